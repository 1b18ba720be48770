//! Sealing again what is under old keys: stopped anywhere, beside running backups, and until nothing old is left.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::super::{ReencryptOptions, ReencryptReport, prune, reencrypt, remove};
use crate::crypto::slot::Unlock;
use crate::crypto::{CryptoError, SecretKey, open_data_key};
use crate::error::Error;
use crate::format::datakey::SealedDataKey;
use crate::format::envelope::ChunkKind;
use crate::format::keyslot::Role;
use crate::format::layout::{self, ObjectName};
use crate::format::wire::Reader;
use crate::id::{PackId, SnapshotId};
use crate::ops::keys::add_key;
use crate::ops::rekey::{RekeyOptions, rekey};
use crate::ops::testing::{NOW, World, back_up, forget, noise, restored, store_over};
use crate::ops::verify::{Depth, verify};
use crate::repo::{RepoError, Repository};
use crate::store::fault::{Fault, FaultStore};

const ALL: ReencryptOptions = ReencryptOptions { reserve: 0, dry_run: false };

fn file(byte: u8) -> Unlock {
    Unlock::KeyFile(SecretKey::from_bytes([byte; 32]))
}

/// A repository with two snapshots from before the keys were replaced, as an admin opens it before and after.
async fn replaced(world: &World) -> (Repository, Repository, [SnapshotId; 2]) {
    let first = world.repository().await;
    add_key(&first, &file(1), Role::Admin, None).await.unwrap();
    let old = at(world, &file(1)).await;
    world.write("a", &noise(1, 3 << 20));
    world.write("b", &noise(2, 200_000));
    let one = back_up(&old, &world.source()).await;
    world.write("b", &noise(3, 200_000));
    let two = back_up(&old, &world.source()).await;
    rekey(&old, &file(1), RekeyOptions::default()).await.unwrap();
    (old, at(world, &file(1)).await, [one, two])
}

async fn at(world: &World, unlock: &Unlock) -> Repository {
    Repository::open(store_over(Arc::clone(&world.objects) as _), world.env(), unlock).await.unwrap()
}

async fn packs(repo: &Repository) -> Vec<(PackId, u64)> {
    let listed = repo.store().list(layout::PACKS).await.unwrap();
    let named = listed.iter().filter_map(|object| match ObjectName::parse(object.key.as_str())? {
        ObjectName::Pack(id) => Some((id, object.size)),
        _ => None,
    });
    named.collect()
}

/// Packs of the store with a data key that these secrets open.
async fn opened_by(thief: &Repository, admin: &Repository) -> usize {
    let mut count = 0;
    for (id, size) in packs(admin).await {
        let (_, directory) = admin.read_directory(id, size).await.unwrap();
        let opens = |sealed: &Vec<u8>| {
            let sealed = SealedDataKey::decode(&mut Reader::new(sealed)).unwrap();
            let mut keys = ChunkKind::ALL.into_iter().flat_map(|kind| thief.secrets().private_keys(kind));
            keys.any(|key| open_data_key(key, &admin.id(), &sealed).is_ok())
        };
        count += usize::from(directory.data_keys.iter().any(opens));
    }
    count
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_key_opens_no_chunk_after_everything_was_sealed_again() {
    let world = World::new();
    let (thief, admin, [one, two]) = replaced(&world).await;
    let before = (restored(&admin, one, &world.source()).await, restored(&admin, two, &world.source()).await);
    let there = packs(&admin).await.len();
    let dry = reencrypt(&admin, ReencryptOptions { dry_run: true, ..ALL }).await.unwrap();
    assert_eq!((dry.old as usize, packs(&admin).await.len(), dry.written), (there, there, 0));
    assert_eq!(dry.old_bytes, dry.pack_bytes);

    let report = reencrypt(&admin, ALL).await.unwrap();
    assert_eq!((report.old, report.condemned, report.left.len(), report.full), (dry.old, dry.old, 0, false));
    assert!(report.written > 0);
    let again = reencrypt(&admin, ALL).await.unwrap();
    assert_eq!((again.old, again.written), (0, 0), "nothing is left to do");
    // The old ones stand until a collection removes them, and a backup finds everything in the new ones.
    assert_eq!(opened_by(&thief, &admin).await, there);
    let count = packs(&admin).await.len();
    let three = back_up(&admin, &world.source()).await;
    assert!(packs(&admin).await.len() <= count + 1, "no content is stored again");

    prune(&admin, &NOW).await.unwrap();
    prune(&admin, &NOW).await.unwrap();
    assert_eq!(opened_by(&thief, &admin).await, 0);
    assert_eq!(restored(&admin, one, &world.source()).await, before.0);
    assert_eq!(restored(&admin, two, &world.source()).await, before.1);
    assert_eq!(restored(&admin, three, &world.source()).await, before.1);
    assert!(!verify(&admin, Depth::Data).await.unwrap().has_damage());
}

/// Stops before a request, and goes on: no chunk is written a third time, and everything restores.
#[tokio::test(flavor = "multi_thread")]
async fn wherever_it_stops_the_next_run_goes_on() {
    for stop in (0..).step_by(3) {
        let world = World::new();
        let (_, admin, [one, two]) = replaced(&world).await;
        let armed = Arc::new(AtomicU64::new(u64::MAX));
        let plan = Arc::clone(&armed);
        let faults = Arc::new(FaultStore::new(Arc::clone(&world.objects) as _, move |op| {
            match op.number.checked_sub(plan.load(Ordering::SeqCst)) == Some(stop) {
                true => Fault::Stop,
                false => Fault::None,
            }
        }));
        let faulty = admin.with_store(store_over(Arc::clone(&faults) as _));
        armed.store(faults.record().len() as u64, Ordering::SeqCst);
        let done: Result<ReencryptReport, Error> = reencrypt(&faulty, ALL).await;
        let admin = at(&world, &file(1)).await;
        assert!(!verify(&admin, Depth::Data).await.unwrap().has_damage(), "stopped at {stop}");
        let more = reencrypt(&admin, ALL).await.unwrap();
        assert_eq!((more.left.len(), reencrypt(&admin, ALL).await.unwrap().old), (0, 0), "stopped at {stop}");
        prune(&admin, &NOW).await.unwrap();
        for id in [one, two] {
            assert!(!restored(&admin, id, &world.source()).await.is_empty(), "stopped at {stop}");
        }
        if !faults.is_stopped() {
            assert_eq!(more.written, 0);
            done.unwrap();
            break;
        }
    }
}

/// What came to be needed of an old pack after it was condemned is sealed again by the collection.
#[tokio::test(flavor = "multi_thread")]
async fn a_collection_seals_again_what_is_under_an_old_key() {
    let world = World::new();
    let (thief, admin, [one, two]) = replaced(&world).await;
    // Only the second one needs it: condemned as a whole, before anything was sealed again.
    forget(&admin, one).await;
    let old: Vec<PackId> = packs(&admin).await.into_iter().map(|(id, _)| id).collect();
    admin.put_condemnation(old).await.unwrap();
    prune(&admin, &NOW).await.unwrap();
    prune(&admin, &NOW).await.unwrap();
    assert_eq!(opened_by(&thief, &admin).await, 0);
    assert_eq!(restored(&admin, two, &world.source()).await.len(), 2);
}

/// What it does not open may be confirmed a moment later, so it must not look dead: neither a snapshot nor a tree.
#[tokio::test(flavor = "multi_thread")]
async fn a_collection_that_began_before_the_keys_were_replaced_takes_nothing_for_dead() {
    let world = World::new();
    let (old, admin, _) = replaced(&world).await;
    let old = old.with_env(world.env_at("other"));
    world.write("c", b"after");
    let id = back_up(&admin, &world.source()).await;
    let listed = admin.list_snapshots().await.unwrap().into_iter().find(|listed| listed.id == id).unwrap();
    let stored = admin.read_snapshot(listed).await.unwrap();
    let refuses = async |why: &str| {
        let refused = prune(&old, &NOW).await;
        assert!(
            matches!(refused, Err(Error::Repo(RepoError::Crypto(CryptoError::NotRecipient { .. })))),
            "{why}: {refused:?}"
        );
    };
    let ok = ObjectName::Confirmation(listed.writer, listed.sequence, id);
    remove::delete(&admin, ok).await.unwrap();
    refuses("a snapshot").await;
    old.put_snapshot(77, &stored.snapshot, &old.new_run_keys().unwrap()).await.unwrap();
    remove::delete(&admin, listed.name()).await.unwrap();
    refuses("a tree").await;
}
