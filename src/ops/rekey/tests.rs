//! New keys over a store that stops anywhere, two admins at once, and what a lost key is worth afterwards.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use object_store::memory::InMemory;

use super::*;
use crate::crypto::{SecretKey, keyfile, open_data_key};
use crate::format::datakey::SealedDataKey;
use crate::format::envelope::ChunkKind;
use crate::format::layout::{self, ObjectName};
use crate::format::wire::Reader;
use crate::id::SnapshotId;
use crate::ops::init::{InitOptions, init};
use crate::ops::keys::{add_key, knows_words};
use crate::ops::testing::{World, back_up, env, noise, put_snapshot, restored, store_over};
use crate::ops::verify::{Depth, verify};
use crate::store::fault::{Fault, FaultStore, OpKind};

fn file(byte: u8) -> Unlock {
    Unlock::KeyFile(SecretKey::from_bytes([byte; 32]))
}

const READER: u8 = 8;

/// A repository with an admin, recovery words, and a reader; and what the admin opens it with.
async fn made(objects: &Arc<InMemory>) -> Unlock {
    let options = InitOptions { new_key_file: true, recovery_words: true, ..InitOptions::default() };
    let made = init(store_over(Arc::clone(objects) as _), &env(), options).await.unwrap();
    let own = Unlock::KeyFile(keyfile::decode(&made.key_file.unwrap()).unwrap().1);
    let repo = open(objects, &own).await.unwrap();
    add_key(&repo, &file(READER), Role::Reader, Some("reader".to_owned())).await.unwrap();
    own
}

async fn open(objects: &Arc<InMemory>, unlock: &Unlock) -> Result<Repository, RepoError> {
    Repository::open(store_over(Arc::clone(objects) as _), env(), unlock).await
}

/// The snapshots that this key opens.
async fn reads(repo: &Repository) -> HashSet<SnapshotId> {
    let mut found = HashSet::new();
    for listed in repo.list_snapshots().await.unwrap() {
        match repo.read_snapshot(listed).await {
            Ok(_) => found.extend([listed.id]),
            Err(RepoError::StaleKey | RepoError::Crypto(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }
    found
}

fn keeping(keep: &[Unlock]) -> RekeyOptions<'_> {
    RekeyOptions { keep, ..RekeyOptions::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_lost_key_held_opens_nothing_that_is_stored_afterwards() {
    let world = World::new();
    let own = made(&world.objects).await;
    let at = async |unlock: &Unlock, state: &str| {
        let store = store_over(Arc::clone(&world.objects) as _);
        Repository::open(store, world.env_at(state), unlock).await.unwrap()
    };
    let admin = at(&own, "admin").await;
    for (byte, role) in [(7, Role::Maintainer), (9, Role::Writer), (6, Role::Reader)] {
        add_key(&admin, &file(byte), role, Some(role.name().to_owned())).await.unwrap();
    }
    // The reader's machine is taken: all that its slot held, and the repository as it opened it.
    let thief = at(&file(READER), "thief").await;
    let writer = at(&file(9), "writer").await;
    world.write("a", &noise(1, 300_000));
    world.write("b", b"before");
    let before = back_up(&writer, &world.source()).await;
    let old: HashSet<String> = names(&admin).await;

    let keep = [file(7), file(6)];
    let dry = rekey(&admin, &own, RekeyOptions { dry_run: true, remove_old: true, ..keeping(&keep) });
    let dry = dry.await.unwrap();
    assert_eq!((names(&admin).await, dry.number), (old.clone(), 1), "a dry run stores nothing");
    let done = rekey(&admin, &own, RekeyOptions { remove_old: true, ..keeping(&keep) }).await.unwrap();
    let labels = |slots: &[StoredSlot]| slots.iter().map(|slot| slot.note.label.clone()).collect::<Vec<_>>();
    assert_eq!(labels(&done.stale), [Some("reader".to_owned())], "whose secret nobody gave");
    assert_eq!((done.renewed.len(), done.removed.len(), done.left.len(), done.unknown), (4, 5, 0, 0));
    assert_eq!(dry.renewed.len(), 4);

    world.write("b", b"after");
    world.write("c", &noise(2, 300_000));
    let writer = at(&file(9), "writer").await;
    let after = back_up(&writer, &world.source()).await;

    let admin = at(&own, "admin").await;
    let new: Vec<String> = names(&admin).await.difference(&old).cloned().collect();
    assert!(sealed_from(&thief, &admin, &new).await >= 2, "a pack of content and one of trees");
    assert!(thief.opens(&file(READER)).await.unwrap().is_empty(), "nor a new slot");
    // What came before is open to it still.
    assert_eq!(reads(&thief).await, HashSet::from([before]));

    for unlock in [&own, &file(6)] {
        let reader = at(unlock, "other").await;
        assert!(reader.is_current());
        let (one, two) = (
            restored(&reader, before, &world.source()).await,
            restored(&reader, after, &world.source()).await,
        );
        assert_eq!(one.len(), 2);
        assert_eq!(two[std::path::Path::new("b")], b"after");
        assert!(!verify(&reader, Depth::Data).await.unwrap().has_damage());
    }
    let maintainer = at(&file(7), "maintainer").await;
    assert!(maintainer.is_current() && maintainer.maintainer().is_ok());
    assert_eq!(reads(&maintainer).await.len(), 2);
    let words = at(&own, "admin").await;
    assert!(knows_words(&words).await.unwrap(), "they were made anew, too");
    let words = Unlock::Words(words.secrets().recovery.clone().unwrap());
    assert_eq!(reads(&at(&words, "words").await).await.len(), 2);
}

/// How many data keys these packs have; what was taken opens none of them.
async fn sealed_from(thief: &Repository, admin: &Repository, names: &[String]) -> usize {
    let mut count = 0;
    for key in names {
        let Some(ObjectName::Pack(id)) = ObjectName::parse(key) else { continue };
        let (_, directory) = admin.read_directory(id, size(admin, key).await).await.unwrap();
        for sealed in &directory.data_keys {
            count += 1;
            assert!(thief.open_data_key(sealed).is_err());
            assert!(admin.open_data_key(sealed).is_ok());
            let sealed = SealedDataKey::decode(&mut Reader::new(sealed)).unwrap();
            let mut keys = ChunkKind::ALL.into_iter().flat_map(|kind| thief.secrets().private_keys(kind));
            assert!(!keys.any(|private| open_data_key(private, &thief.id(), &sealed).is_ok()));
        }
    }
    count
}

async fn names(repo: &Repository) -> HashSet<String> {
    let mut found = HashSet::new();
    for prefix in layout::PREFIXES {
        let listed = repo.store().list(prefix).await.unwrap();
        found.extend(listed.into_iter().map(|object| object.key.as_str().to_owned()));
    }
    found
}

async fn size(repo: &Repository, key: &str) -> u64 {
    let listed = repo.store().list(layout::PACKS).await.unwrap();
    listed.into_iter().find(|object| object.key.as_str() == key).unwrap().size
}

/// Stops before and after each request: whoever goes on reads what was and what comes, and doing it again ends it.
#[tokio::test(flavor = "multi_thread")]
async fn wherever_it_stops_those_who_go_on_read_everything() {
    for after in [false, true] {
        for stop in 0.. {
            let objects = Arc::new(InMemory::new());
            let own = made(&objects).await;
            let armed = Arc::new(AtomicU64::new(u64::MAX));
            let plan = Arc::clone(&armed);
            let faults = Arc::new(FaultStore::new(Arc::clone(&objects) as _, move |op| {
                match op.number.checked_sub(plan.load(Ordering::SeqCst)) == Some(stop) {
                    true if after => Fault::StopAfter,
                    true => Fault::Stop,
                    false => Fault::None,
                }
            }));
            let repo = Repository::open(store_over(Arc::clone(&faults) as _), env(), &own).await.unwrap();
            put_snapshot(&repo, 1, |_| {}).await;
            armed.store(faults.record().len() as u64, Ordering::SeqCst);
            let keep = [file(READER)];
            let done = rekey(&repo, &own, keeping(&keep)).await;
            let context = format!("stopped at {stop}, after {after}: {done:?}");

            let admin = open(&objects, &own).await.unwrap();
            assert!(admin.is_current(), "{context}");
            put_snapshot(&admin, 2, |_| {}).await;
            for unlock in [&own, &keep[0]] {
                let repo = open(&objects, unlock).await.unwrap();
                assert_eq!((repo.is_current(), reads(&repo).await.len()), (true, 2), "{context}");
            }
            let again = rekey(&admin, &own, RekeyOptions { remove_old: true, ..keeping(&keep) }).await;
            let again = again.unwrap_or_else(|error| panic!("{context}: {error}"));
            assert_eq!((again.stale.len(), again.left.len()), (0, 0), "{context}");
            for unlock in [&own, &keep[0]] {
                let repo = open(&objects, unlock).await.unwrap();
                assert_eq!((repo.is_current(), reads(&repo).await.len()), (true, 2), "{context}");
                assert_eq!(repo.opens(unlock).await.unwrap().len(), 1, "nothing is left behind: {context}");
            }
            if !faults.is_stopped() {
                assert!(done.unwrap().left.is_empty());
                break;
            }
        }
    }
}

/// Both put a configuration of one number: what is stored is sealed to both, and one run with both secrets ends it.
#[tokio::test(flavor = "multi_thread")]
async fn two_admins_at_once_lose_nothing() {
    let objects = Arc::new(InMemory::new());
    let own = made(&objects).await;
    let first = open(&objects, &own).await.unwrap();
    add_key(&first, &file(2), Role::Admin, None).await.unwrap();
    let second = open(&objects, &file(2)).await.unwrap();
    let late = second.clone();
    let (other, mut renewals) = (file(2), Vec::new());
    for (repo, unlock) in [(&first, &own), (&second, &other)] {
        let holder = repo.holder(unlock).await.unwrap().unwrap();
        let renewal = repo.renewal(std::slice::from_ref(&holder)).await.unwrap();
        repo.renew_slot(&renewal, &holder, None).await.unwrap();
        renewals.push(renewal);
    }
    first.put_renewal(&renewals[0]).await.unwrap();
    let between = open(&objects, &own).await.unwrap();
    assert!(between.is_current());
    let between = put_snapshot(&between, 1, |_| {}).await;
    let clash = second.put_renewal(&renewals[1]).await.unwrap_err();
    assert!(matches!(clash, RepoError::Rekey(RekeyError::AtOnce)), "{clash}");

    let [one, two] = [open(&objects, &own).await.unwrap(), open(&objects, &file(2)).await.unwrap()];
    assert!(one.is_current() && two.is_current());
    let both = put_snapshot(&one, 2, |_| {}).await;
    assert_eq!(reads(&one).await, HashSet::from([between, both]));
    assert_eq!(reads(&two).await, HashSet::from([both]), "the one between was sealed to the first alone");
    // Nobody throws away what only the other's slot holds.
    let hasty = rekey(&two, &file(2), RekeyOptions { remove_old: true, ..RekeyOptions::default() }).await;
    assert!(matches!(hasty, Err(Error::Repo(RepoError::Rekey(RekeyError::Incomplete { keys: 2 })))));
    let overtaken = rekey(&late, &file(2), RekeyOptions::default()).await;
    assert!(matches!(overtaken, Err(Error::Repo(RepoError::Rekey(RekeyError::Overtaken)))));

    let keep = [file(2)];
    let done = rekey(&one, &own, RekeyOptions { remove_old: true, ..keeping(&keep) }).await.unwrap();
    assert_eq!((done.number, done.unknown), (2, 0));
    for unlock in [&own, &keep[0]] {
        assert_eq!(reads(&open(&objects, unlock).await.unwrap()).await.len(), 2);
    }
}

#[tokio::test]
async fn a_key_from_before_reads_what_it_opens_and_judges_nothing() {
    let objects = Arc::new(InMemory::new());
    let own = made(&objects).await;
    let repo = open(&objects, &own).await.unwrap();
    add_key(&repo, &file(2), Role::Admin, None).await.unwrap();
    add_key(&repo, &file(9), Role::Writer, None).await.unwrap();
    put_snapshot(&repo, 1, |_| {}).await;
    rekey(&repo, &own, RekeyOptions::default()).await.unwrap();
    put_snapshot(&open(&objects, &own).await.unwrap(), 2, |_| {}).await;
    let stale = open(&objects, &file(2)).await.unwrap();
    assert!(!stale.is_current());
    assert_eq!(reads(&stale).await.len(), 1);
    let may: Vec<Task> = Task::ALL.into_iter().filter(|task| stale.allow(*task).is_ok()).collect();
    use Task::{
        Anchor, ArchiveLog, Backup, ListHolds, ListWriters, Look, OwnKey, Restore, Revoke, Snapshots, Why,
    };
    assert_eq!(
        may,
        [Backup, Snapshots, Look, Why, Restore, ListHolds, OwnKey, Anchor, ListWriters, Revoke, ArchiveLog]
    );
    assert!(matches!(
        rekey(&stale, &file(2), RekeyOptions::default()).await,
        Err(Error::Repo(RepoError::StaleKey))
    ));
    let writer = open(&objects, &file(9)).await.unwrap();
    assert!(writer.is_current(), "it holds no private key, and seals to those of the configuration");
    let unknown = rekey(&open(&objects, &own).await.unwrap(), &own, keeping(&[file(99)])).await;
    assert!(matches!(unknown, Err(Error::Repo(RepoError::WrongKey { .. }))));
}

/// A read that went wrong must not lead to keys that no slot holds.
#[tokio::test]
async fn a_slot_that_is_not_to_be_had_for_a_moment_stops_it_before_anything_is_stored() {
    let objects = Arc::new(InMemory::new());
    let own = made(&objects).await;
    let slot = open(&objects, &own).await.unwrap().slot().to_string();
    let spoilt = Arc::new(AtomicU64::new(0));
    let rest = Arc::clone(&spoilt);
    let faults = FaultStore::new(Arc::clone(&objects) as _, move |op| {
        let one_less = |rest: u64| rest.checked_sub(1);
        let is_it = op.kind == OpKind::Get && op.key.ends_with(&slot);
        match is_it && rest.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less).is_ok() {
            true => Fault::Corrupt(50),
            false => Fault::None,
        }
    });
    let repo = Repository::open(store_over(Arc::new(faults)), env(), &own).await.unwrap();
    let before = names(&repo).await;
    // Both reads of a listing; whoever opens the slot after that gets it.
    spoilt.store(2, Ordering::SeqCst);
    let failed = rekey(&repo, &own, RekeyOptions::default()).await;
    assert!(matches!(failed, Err(Error::Repo(RepoError::Slot(SlotError::NotFound { .. })))), "{failed:?}");
    assert_eq!(names(&repo).await, before);
}
