use std::path::Path;
use std::sync::Arc;

use object_store::ObjectStore;
use object_store::memory::InMemory;

use super::*;
use crate::class::Class;
use crate::error::TrustError;
use crate::format::config::Authority;
use crate::format::keyslot::Role;
use crate::format::layout::{self, ObjectName};
use crate::ops::gc::{PruneOptions, prune};
use crate::ops::snapshots::{SnapshotFilter, resolve};
use crate::ops::testing::{
    NOW, World, add_key, back_up, contents, copy_objects, forget, put_object, put_snapshot, restored,
    store_over,
};
use crate::ops::writers::revoke;
use crate::repo::{Env, Places};

/// Another machine, which has never seen the repository, before this store.
fn fresh(repo: &Repository, objects: Arc<InMemory>, state: &Path) -> Repository {
    let env = Env { places: Places { state: state.to_owned(), cache: None }, ..repo.env().clone() };
    repo.with_store(store_over(objects as Arc<dyn ObjectStore>)).with_env(env)
}

async fn three(repo: &Repository) -> Vec<SnapshotId> {
    let mut ids = Vec::new();
    for number in 0..3 {
        ids.push(put_snapshot(repo, number, |_| {}).await);
    }
    ids
}

async fn name(repo: &Repository, id: SnapshotId) -> Listed {
    repo.list_snapshots().await.unwrap().into_iter().find(|listed| listed.id == id).unwrap()
}

async fn delete(repo: &Repository, name: ObjectName) {
    repo.store().delete(&crate::store::Key::new(name.key()).unwrap()).await.unwrap();
}

fn breach_of(result: Result<(), Error>) -> (Vec<SnapshotId>, Vec<SnapshotId>, bool) {
    match result {
        Err(Error::Trust(TrustError::AnchorBroken { missing, changed, older, .. })) => {
            (missing, changed, older)
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_anchor_holds_while_snapshots_come_and_are_removed_in_order() {
    let world = World::new();
    let repo = world.repository().await;
    let none = anchor(&repo).await.unwrap();
    assert_eq!((none.snapshots, none.newest, none.new), (0, None, true));
    let mut anchors = vec![none.hash];
    let ids = three(&repo).await;
    for (round, id) in ids.into_iter().enumerate() {
        put_snapshot(&repo, 3 + round as u64, |_| {}).await;
        let info = anchor(&repo).await.unwrap();
        assert_eq!((info.snapshots, info.new), (4, true));
        let again = anchor(&repo).await.unwrap();
        assert_eq!((again.hash, again.new), (info.hash, false), "nothing came since");
        anchors.push(info.hash);
        forget(&repo, id).await;
        prune(&repo, &NOW).await.unwrap();
        for hash in &anchors {
            require(&repo, *hash).await.unwrap();
        }
    }
    let built = repo.read_anchor(*anchors.last().unwrap()).await.unwrap();
    assert_eq!((built.base, built.snapshots.len()), (Some(anchors[2]), 1), "only what is new is named");
}

/// The chain of anchors is cut from time to time, so that requiring one takes few reads.
#[tokio::test(flavor = "multi_thread")]
async fn a_chain_of_anchors_stays_short_and_each_still_holds() {
    let world = World::new();
    let repo = world.repository().await;
    let mut anchors = Vec::new();
    for number in 0..CHAIN_MAX as u64 + 3 {
        put_snapshot(&repo, number, |_| {}).await;
        anchors.push(anchor(&repo).await.unwrap().hash);
    }
    for hash in &anchors {
        assert!(chain(&repo, *hash).await.unwrap().len() <= CHAIN_MAX);
        require(&repo, *hash).await.unwrap();
    }
    let first = repo.list_snapshots().await.unwrap()[0];
    delete(&repo, first.name()).await;
    for hash in &anchors {
        assert_eq!(breach_of(require(&repo, *hash).await).0, [first.id]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_without_a_removal_is_named_from_a_machine_that_remembers_nothing() {
    let world = World::new();
    let repo = world.repository().await;
    let ids = three(&repo).await;
    let hash = anchor(&repo).await.unwrap().hash;
    let other = tempfile::tempdir().unwrap();
    let attacked = async || fresh(&repo, copy_objects(&world.objects).await, other.path());

    let gone = attacked().await;
    delete(&gone, name(&gone, ids[2]).await.name()).await;
    assert_eq!(breach_of(require(&gone, hash).await), (vec![ids[2]], vec![], false));

    let unconfirmed = attacked().await;
    delete(&unconfirmed, name(&unconfirmed, ids[1]).await.confirmation()).await;
    assert_eq!(breach_of(require(&unconfirmed, hash).await), (vec![], vec![ids[1]], false));

    for bytes in [vec![], vec![7; 700]] {
        let replaced = attacked().await;
        put_over(&replaced, &name(&replaced, ids[0]).await.name().key(), bytes).await;
        assert_eq!(breach_of(require(&replaced, hash).await), (vec![], vec![ids[0]], false));
    }

    // Another snapshot in its place, signed by a key that may, under its number.
    let faked = attacked().await;
    let old = name(&faked, ids[2]).await;
    delete(&faked, old.name()).await;
    delete(&faked, old.confirmation()).await;
    put_snapshot(&faked, old.sequence, |snapshot| snapshot.time = 1).await;
    assert_eq!(breach_of(require(&faked, hash).await).0, [ids[2]]);

    // Nothing left at all, and another repository.
    let emptied = attacked().await;
    for listed in emptied.list_snapshots().await.unwrap() {
        delete(&emptied, listed.name()).await;
        delete(&emptied, listed.confirmation()).await;
    }
    assert_eq!(breach_of(require(&emptied, hash).await).0.len(), 3);
    delete(&emptied, ObjectName::Anchor(hash)).await;
    let refused = require(&emptied, hash).await.unwrap_err();
    assert!(matches!(refused, Error::Trust(TrustError::NoAnchor { .. })), "{refused}");
    assert_eq!(refused.class(), Class::Tampered);

    // A copy of everything is as good, garbage beside it does not matter.
    let whole = attacked().await;
    let garbage = ObjectName::Snapshot(WriterId::new([9; 16]), 4, ids[0]);
    put_object(&whole, &garbage.key(), vec![1; 100]).await;
    put_object(&whole, &ObjectName::Anchor(ObjectHash::new([8; 32])).key(), vec![1; 100]).await;
    require(&whole, hash).await.unwrap();
    anchor(&whole).await.unwrap();
}

async fn put_over(repo: &Repository, key: &str, bytes: Vec<u8>) {
    repo.store().delete(&crate::store::Key::new(key).unwrap()).await.unwrap();
    put_object(repo, key, bytes).await;
}

/// A store may hide what took something from a key: the numbers of the registry are covered, too.
#[tokio::test(flavor = "multi_thread")]
async fn a_hidden_revocation_breaks_an_anchor_and_a_legal_one_does_not() {
    let world = World::new();
    let repo = world.repository().await;
    let (thief, key) = add_key(&repo, Role::Writer, Authority::Writer).await;
    let stolen = Repository::open(repo.store().clone(), world.env_at("thief"), &key).await.unwrap();
    put_snapshot(&stolen, 0, |_| {}).await;
    repo.reread_registry().await.unwrap();
    let before = anchor(&repo).await.unwrap().hash;
    revoke(&repo, &thief.to_string(), Some(Timestamp(0))).await.unwrap();
    require(&repo, before).await.unwrap();
    prune(&repo, &NOW).await.unwrap();
    require(&repo, before).await.unwrap();
    let after = anchor(&repo).await.unwrap();
    assert_eq!(after.snapshots, 0);
    for object in repo.store().list(&format!("{}{thief}/", layout::WRITERS)).await.unwrap() {
        if !object.key.as_str().contains("/0000000000-") {
            repo.store().delete(&object.key).await.unwrap();
        }
    }
    let fooled = Repository::open(repo.store().clone(), world.env_at("thief"), &key).await.unwrap();
    require(&fooled, before).await.unwrap();
    assert_eq!(breach_of(require(&fooled, after.hash).await), (vec![], vec![], true));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_has_seen_more_says_what_is_missing_and_chooses_nothing() {
    let world = World::new();
    let repo = world.repository().await;
    std::fs::write(world.source().join("a"), b"one").unwrap();
    let first = back_up(&repo, &world.source()).await;
    let saved = contents(&world.source());
    // Only a reader: it remembers what it saw.
    let reader = repo.with_env(world.env_at("reader"));
    assert!(watch(&reader).await.unwrap().is_empty());
    let old = copy_objects(&world.objects).await;
    std::fs::write(world.source().join("a"), b"two").unwrap();
    let second = back_up(&repo, &world.source()).await;
    assert!(watch(&reader).await.unwrap().is_empty());

    let rolled = reader.with_store(store_over(Arc::clone(&old) as Arc<dyn ObjectStore>));
    let missed = watch(&rolled).await.unwrap();
    assert_eq!(missed, [second]);
    let rolled = rolled.missing(missed);
    for selector in ["latest", "latest~1", "@2090-01-01"] {
        let refused = resolve(&rolled, selector, &SnapshotFilter::default()).await.unwrap_err();
        assert_eq!(refused.class(), Class::Tampered, "{refused}");
    }
    assert!(anchor(&rolled).await.is_err(), "no anchor blesses it");
    assert_eq!(restored(&rolled, first, &world.source()).await, saved, "what is there restores by its id");

    // Accepted on that machine, it is missed no more there, and still elsewhere.
    accept_missing(&rolled, &[second]).unwrap();
    let rolled = reader.with_store(store_over(old as Arc<dyn ObjectStore>));
    assert!(watch(&rolled).await.unwrap().is_empty());
    assert_eq!(watch(&repo.with_store(rolled.store().clone())).await.unwrap(), [second]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_maintainer_removed_is_no_alarm_and_is_forgotten() {
    let world = World::new();
    let repo = world.repository().await;
    let reader = repo.with_env(world.env_at("reader"));
    let mut ids = Vec::new();
    for number in 0..3 {
        ids.push(put_snapshot(&repo, number, |_| {}).await);
        assert!(watch(&reader).await.unwrap().is_empty());
    }
    forget(&repo, ids[2]).await;
    forget(&repo, ids[1]).await;
    assert!(watch(&reader).await.unwrap().is_empty(), "forgotten is not removed");
    prune(&repo, &PruneOptions { ..NOW }).await.unwrap();
    assert!(watch(&reader).await.unwrap().is_empty());
    let seen: Vec<_> = SeenSnapshots::load(&reader).unwrap().ids().copied().collect();
    assert_eq!(seen, [ids[0]]);
    // A confirmation that goes is missed, too: nobody would choose the snapshot any more.
    delete(&repo, name(&repo, ids[0]).await.confirmation()).await;
    assert_eq!(watch(&reader).await.unwrap(), [ids[0]]);
}

/// A flood of names under a writer does not keep its true head from being remembered, nor is one of them.
#[tokio::test(flavor = "multi_thread")]
async fn garbage_is_not_remembered() {
    let world = World::new();
    let repo = world.repository().await;
    let id = put_snapshot(&repo, 0, |_| {}).await;
    let writer = repo.writer().unwrap().0;
    for number in [7, 8] {
        let fake = SnapshotId::new([number; 32]);
        for name in [
            ObjectName::Snapshot(writer, u64::from(number), fake),
            ObjectName::Confirmation(writer, u64::from(number), fake),
        ] {
            put_object(&repo, &name.key(), vec![number; 300]).await;
        }
    }
    for number in 0..HEADS.0 as u16 {
        let mut nobody = [0; 16];
        nobody[14..].copy_from_slice(&number.to_be_bytes());
        let (nobody, fake) = (WriterId::new(nobody), SnapshotId::new([9; 32]));
        for name in [ObjectName::Snapshot(nobody, 0, fake), ObjectName::Confirmation(nobody, 0, fake)] {
            put_object(&repo, &name.key(), vec![9; 300]).await;
        }
    }
    let reader = repo.with_env(world.env_at("reader"));
    assert!(watch(&reader).await.unwrap().is_empty());
    let seen: Vec<_> = SeenSnapshots::load(&reader).unwrap().ids().copied().collect();
    assert_eq!(seen, [id]);
    assert_eq!(anchor(&repo).await.unwrap().snapshots, 1);
}
