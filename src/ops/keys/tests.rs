//! Keys over a store that stops anywhere, and what a writer's key is worth to a thief.

use std::sync::Arc;

use object_store::memory::InMemory;

use super::*;
use crate::crypto::hpke::PrivateKey;
use crate::crypto::sign::SigningKey;
use crate::crypto::{DataKey, keyfile, open_data_key};
use crate::format::datakey::SealedDataKey;
use crate::format::envelope::ChunkKind;
use crate::format::layout::{self, ObjectName};
use crate::format::wire::Reader;
use crate::ops::init::{InitOptions, init};
use crate::ops::testing::{World, back_up, env, noise, store_over};
use crate::ops::verify::{Depth, verify};
use crate::repo::RekeyError;
use crate::seal::SegmentOpener;
use crate::store::fault::{Fault, FaultStore};

fn file(byte: u8) -> Unlock {
    Unlock::KeyFile(SecretKey::from_bytes([byte; 32]))
}

/// A repository with one admin slot, and what opens it.
async fn made(objects: &Arc<InMemory>) -> Unlock {
    let options = InitOptions { new_key_file: true, recovery_words: true, ..InitOptions::default() };
    let made = init(store_over(Arc::clone(objects) as _), &env(), options).await.unwrap();
    Unlock::KeyFile(keyfile::decode(&made.key_file.unwrap()).unwrap().1)
}

async fn open(objects: &Arc<InMemory>, unlock: &Unlock) -> Result<Repository, RepoError> {
    Repository::open(store_over(Arc::clone(objects) as _), env(), unlock).await
}

/// What is done, and which secrets may open afterwards, whatever happened.
#[derive(Debug, Clone, Copy)]
enum Change {
    Passwd,
    Add,
    Remove,
    Words,
}

async fn apply(change: Change, repo: &Repository, own: &Unlock) -> Result<(), Error> {
    match change {
        Change::Passwd => {
            let replaced = replace_secret(repo, own, &file(2)).await?;
            replaced.left.into_iter().next().map_or(Ok(()), |(_, error)| Err(error))
        }
        Change::Add => add_key(repo, &file(2), Role::Maintainer, Some("m".to_owned())).await.map(drop),
        Change::Remove => {
            let slots = repo.list_slots().await?;
            let own = slots.slots.iter().find(|slot| slot.kind == SlotKind::Words).unwrap();
            remove_key(repo, &own.hash.to_string()).await.map(drop)
        }
        Change::Words => {
            let replaced = replace_words(repo, own, &SecretKey::from_bytes([3; 32])).await?;
            replaced.left.into_iter().next().map_or(Ok(()), |(_, error)| Err(error))
        }
    }
}

/// Stops before and after each request, and looks who can open the repository.
async fn stop_everywhere(change: Change) {
    for after in [false, true] {
        for stop in 0.. {
            let objects = Arc::new(InMemory::new());
            let own = made(&objects).await;
            let (armed, is_armed) = (Arc::new(std::sync::atomic::AtomicU64::new(u64::MAX)), stop);
            let plan = Arc::clone(&armed);
            let faults = FaultStore::new(Arc::clone(&objects) as _, move |op| {
                let from = plan.load(std::sync::atomic::Ordering::SeqCst);
                match op.number.checked_sub(from) == Some(is_armed) {
                    true if after => Fault::StopAfter,
                    true => Fault::Stop,
                    false => Fault::None,
                }
            });
            let faults = Arc::new(faults);
            let repo = Repository::open(store_over(Arc::clone(&faults) as _), env(), &own).await.unwrap();
            let so_far = faults.record().len() as u64;
            armed.store(so_far, std::sync::atomic::Ordering::SeqCst);
            let done = apply(change, &repo, &own).await;
            let (old, new) = (open(&objects, &own).await, open(&objects, &file(2)).await);
            let admin = |opened: &Result<Repository, RepoError>| {
                opened.as_ref().is_ok_and(|repo| repo.role() == Role::Admin)
            };
            let context = format!("{change:?}, stopped at {stop}, after {after}: {done:?}");
            match change {
                Change::Passwd => assert!(admin(&old) || admin(&new), "{context}"),
                _ => assert!(admin(&old), "{context}"),
            }
            if let Ok(new) = &new {
                assert!(new.writer().is_ok() && new.maintainer().is_ok(), "registered: {context}");
            }
            if let (Change::Words, Ok(old)) = (change, &old) {
                let words = SecretKey::from_bytes([3; 32]);
                let opens = open(&objects, &Unlock::Words(words)).await.is_ok();
                assert!(opens || knows_words(old).await.unwrap(), "some words open: {context}");
            }
            if !faults.is_stopped() {
                done.unwrap();
                assert!(matches!(change, Change::Passwd) != admin(&old), "{context}");
                break;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whenever_a_change_stops_the_old_secret_opens_or_the_new_one() {
    for change in [Change::Passwd, Change::Add, Change::Remove, Change::Words] {
        stop_everywhere(change).await;
    }
}

#[tokio::test]
async fn the_key_in_use_stays_and_a_secret_opens_one_slot() {
    let objects = Arc::new(InMemory::new());
    let own = made(&objects).await;
    let repo = open(&objects, &own).await.unwrap();
    let taken = add_key(&repo, &own, Role::Writer, None).await.unwrap_err();
    assert!(matches!(&taken, Error::Repo(RepoError::Slot(SlotError::Taken { .. }))), "{taken}");
    let slots = repo.list_slots().await.unwrap();
    let words = slots.slots.iter().find(|slot| slot.kind == SlotKind::Words).unwrap().hash;
    let (_, shared) = remove_key(&repo, &words.to_string()).await.unwrap();
    assert!(shared, "the key file signs as the same writer");
    let whole = repo.slot().to_string();
    let last = remove_key(&repo, &whole).await.unwrap_err();
    assert!(matches!(&last, Error::Repo(RepoError::Slot(SlotError::InUse { .. }))), "{last}");
    for (byte, role) in (10..).zip([Role::Writer, Role::Reader, Role::Maintainer, Role::Verifier]) {
        let hash = add_key(&repo, &file(byte), role, Some(role.name().to_owned())).await.unwrap();
        let theirs = open(&objects, &file(byte)).await.unwrap();
        assert_eq!((theirs.role(), theirs.slot()), (role, hash));
        assert!(remove_key(&theirs, &whole).await.is_err());
        let note = &theirs.list_slots().await.unwrap().find(&hash.to_string()).unwrap().note.clone();
        assert_eq!(note.label.as_deref(), Some(role.name()));
        assert_eq!(note.writer.is_some(), role != Role::Reader);
    }
    assert!(remove_key(&repo, &whole).await.is_err());
}

#[tokio::test]
async fn a_slot_of_another_repository_locks_nobody_out() {
    let (objects, foreign) = (Arc::new(InMemory::new()), Arc::new(InMemory::new()));
    let own = made(&objects).await;
    let repo = open(&objects, &own).await.unwrap();
    let other = open(&foreign, &made(&foreign).await).await.unwrap();
    // The same secret opens both; at least one of these names comes first.
    let mut first = false;
    while !first {
        let hash = other.add_slot(&own, Role::Admin, None).await.unwrap();
        first = hash < repo.slot();
        let key = crate::store::Key::new(ObjectName::KeySlot(hash).key()).unwrap();
        let bytes = other.store().get(&key, 1 << 20).await.unwrap();
        repo.store().put(&key, vec![bytes]).await.unwrap();
        other.delete_slot(hash).await.unwrap();
    }
    let opened = open(&objects, &own).await.unwrap();
    assert_eq!((opened.id(), opened.slot()), (repo.id(), repo.slot()));
    let listed = opened.list_slots().await.unwrap();
    assert_eq!(listed.slots.len(), 2, "and they are none of ours");
    assert!(!listed.unreadable.is_empty());
}

#[tokio::test]
async fn what_a_verifier_signs_is_no_writers_word() {
    let objects = Arc::new(InMemory::new());
    let repo = open(&objects, &made(&objects).await).await.unwrap();
    add_key(&repo, &file(7), Role::Verifier, None).await.unwrap();
    let verifier = open(&objects, &file(7)).await.unwrap();
    let (writer, signing) = verifier.writer().unwrap();
    let tables = crate::format::index::IndexBuilder::new(writer, 0, Vec::new()).finish();
    verifier.put_index(&tables, &signing).await.unwrap();
    let loaded = repo.load_index().await.unwrap();
    assert_eq!(loaded.problems.len(), 1, "its index object is not believed");
    assert!(verifier.maintainer().is_err());
}

/// All that a writer's machine holds, tried as every kind of key on all that the store holds.
#[tokio::test(flavor = "multi_thread")]
async fn a_writers_secrets_and_the_whole_store_decrypt_nothing() {
    let world = World::new();
    let admin = world.repository().await;
    add_key(&admin, &file(9), Role::Writer, None).await.unwrap();
    let writer = Repository::open(admin.store().clone(), world.env_at("writer"), &file(9)).await.unwrap();
    world.write("a", &noise(1, 300_000));
    world.write("b", b"a secret of the machine that it has forgotten");
    back_up(&writer, &world.source()).await;
    // It was opened before the writer was registered.
    let report = verify(&admin, Depth::Data).await.unwrap();
    assert!(!report.has_damage(), "{:?}", report.findings);
    add_key(&admin, &file(8), Role::Reader, None).await.unwrap();
    let reader = Repository::open(admin.store().clone(), world.env_at("reader"), &file(8)).await.unwrap();
    assert!(!verify(&reader, Depth::Data).await.unwrap().has_damage(), "a reader opens all of it");

    let secrets = writer.secrets();
    let seeds = [&secrets.dedup, &secrets.index].map(|key| key.clone().unwrap());
    let mut seeds = seeds.to_vec();
    seeds.push(secrets.writer.as_ref().unwrap().seed.clone());
    let derived: Vec<_> = crate::crypto::context::ALL
        .iter()
        .flat_map(|context| seeds.iter().map(|seed| seed.derive(context)).collect::<Vec<_>>())
        .collect();
    seeds.extend(derived);
    let root = SigningKey::from_seed(seeds[0].clone()).verifying_key();
    assert_ne!(root.as_bytes(), &admin.config().root);

    for listed in writer.list_snapshots().await.unwrap() {
        assert!(matches!(writer.read_snapshot(listed).await, Err(RepoError::RoleForbids { .. })));
    }
    let (mut keys, mut segments) = (0, 0);
    for object in writer.store().list(layout::PACKS).await.unwrap() {
        let Some(ObjectName::Pack(id)) = ObjectName::parse(object.key.as_str()) else { continue };
        let bytes = writer.store().get(&object.key, 1 << 30).await.unwrap();
        let (_, directory) = writer.read_directory(id, object.size).await.unwrap();
        for sealed in &directory.data_keys {
            keys += 1;
            assert!(matches!(writer.open_data_key(sealed), Err(RepoError::RoleForbids { .. })));
            let sealed = SealedDataKey::decode(&mut Reader::new(sealed)).unwrap();
            for seed in &seeds {
                let private = PrivateKey::from_seed(seed.clone());
                assert!(open_data_key(&private, &writer.id(), &sealed).is_err());
            }
        }
        for segment in &directory.segments {
            segments += 1;
            let stored = &bytes[segment.offset as usize..][..segment.stored_len as usize];
            for seed in &seeds {
                for kind in [ChunkKind::Data, ChunkKind::Tree] {
                    let key = DataKey::new(seed.clone(), crate::id::RunId::new([0; 16]), kind);
                    let mut opener = SegmentOpener::new(writer.id()).unwrap();
                    assert!(opener.open(&key, segment, stored, &mut Vec::new()).is_err());
                }
            }
        }
    }
    assert!(keys >= 2 && segments >= 2, "{keys} keys, {segments} segments");
    // Nor does any of it open another slot.
    for seed in seeds {
        for unlock in [Unlock::KeyFile(seed.clone()), Unlock::Words(seed)] {
            assert!(writer.opens(&unlock).await.unwrap().is_empty());
        }
    }
}

/// An interrupted `key recovery` leaves two slots of one secret.
#[tokio::test]
async fn whatever_the_old_secret_opens_is_replaced() {
    let objects = Arc::new(InMemory::new());
    let own = made(&objects).await;
    let repo = open(&objects, &own).await.unwrap();
    repo.copy_slot(&own, None, None).await.unwrap();
    replace_words(&repo, &own, &SecretKey::from_bytes([3; 32])).await.unwrap();
    assert_eq!(repo.opens(&own).await.unwrap().len(), 1);
    let repo = open(&objects, &own).await.unwrap();
    assert!(knows_words(&repo).await.unwrap());
    repo.copy_slot(&own, None, None).await.unwrap();
    let replaced = replace_secret(&repo, &own, &file(2)).await.unwrap();
    assert_eq!((replaced.removed.len(), replaced.left.len()), (2, 0));
    assert!(open(&objects, &own).await.is_err());
    assert_eq!(open(&objects, &file(2)).await.unwrap().role(), Role::Admin);
}

/// Two machines may give one secret to two keys at the same time.
#[tokio::test]
async fn a_key_of_another_role_is_not_taken_away_with_its_secret() {
    let objects = Arc::new(InMemory::new());
    let own = made(&objects).await;
    let repo = open(&objects, &own).await.unwrap();
    let other = repo.add_slot(&own, Role::Writer, None).await.unwrap();
    let replaced = replace_secret(&repo, &own, &file(2)).await.unwrap();
    assert_eq!(replaced.removed, [repo.slot()]);
    assert!(matches!(
        &replaced.left[..],
        [(slot, Error::Repo(RepoError::Slot(SlotError::OtherRole { role: Role::Writer, .. })))] if *slot == other
    ));
    let theirs = open(&objects, &own).await.unwrap();
    assert_eq!((theirs.role(), theirs.slot()), (Role::Writer, other));
    assert_eq!(open(&objects, &file(2)).await.unwrap().role(), Role::Admin);
}

/// A rekey puts new slots before the configuration that names their keys.
#[tokio::test]
async fn a_slot_that_a_rekey_makes_meanwhile_is_not_taken_away() {
    let objects = Arc::new(InMemory::new());
    let own = made(&objects).await;
    let (repo, other) = (open(&objects, &own).await.unwrap(), open(&objects, &own).await.unwrap());
    let holders = [other.holder(&own).await.unwrap().unwrap()];
    let renewal = other.renewal(&holders).await.unwrap();
    let new = other.renew_slot(&renewal, &holders[0], None).await.unwrap();
    let replaced = replace_secret(&repo, &own, &file(2)).await.unwrap();
    assert_eq!(replaced.removed, [repo.slot()]);
    assert!(matches!(
        &replaced.left[..],
        [(slot, Error::Repo(RepoError::Slot(SlotError::Newer { .. })))] if *slot == new
    ));
    other.put_renewal(&renewal).await.unwrap();
    assert_eq!(open(&objects, &own).await.unwrap().slot(), new, "whoever has the new keys");
}

/// Whoever replaces the words opens the repository, and then waits until somebody has written them down.
#[tokio::test]
async fn words_that_a_rekey_made_meanwhile_are_not_taken_away() {
    for done in [false, true] {
        let objects = Arc::new(InMemory::new());
        let own = made(&objects).await;
        let repo = open(&objects, &own).await.unwrap();
        let old = Unlock::Words(repo.secrets().recovery.clone().unwrap());
        let other = open(&objects, &old).await.unwrap();
        let holders = [other.holder(&old).await.unwrap().unwrap()];
        let renewal = other.renewal(&holders).await.unwrap();
        let new = other.renew_slot(&renewal, &holders[0], None).await.unwrap();
        if done {
            other.put_renewal(&renewal).await.unwrap();
        }
        let replaced = replace_words(&repo, &own, &SecretKey::from_bytes([3; 32])).await;
        if done {
            let error = replaced.unwrap_err();
            assert!(matches!(error, Error::Repo(RepoError::Rekey(RekeyError::Overtaken))), "{error}");
            let removed = remove_key(&repo, &new.to_string()).await.unwrap_err();
            assert!(matches!(removed, Error::Repo(RepoError::Rekey(RekeyError::Overtaken))), "{removed}");
        } else {
            let left = replaced.unwrap().left;
            assert!(left.iter().any(|(slot, _)| *slot == new), "{left:?}");
            other.put_renewal(&renewal).await.unwrap();
        }
        assert_eq!(open(&objects, &old).await.unwrap().slot(), new, "whoever has the new keys");
    }
}
