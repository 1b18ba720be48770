//! Collections that somebody disturbs: other machines at any moment, or one that may put objects and means harm.

use std::fs;
use std::sync::atomic::{AtomicU64, AtomicUsize};

use futures::FutureExt;
use object_store::ObjectStoreExt;
use object_store::memory::InMemory;

use super::*;
use crate::crypto::sign::SigningKey;
use crate::format::envelope::ChunkKind;
use crate::format::gc::TombReason;
use crate::format::index::IndexBuilder;
use crate::format::signed::SIGNED_MAX;
use crate::ops::testing::add_objects;
use crate::random::SystemRandom;
use crate::repo::{BufferPool, PackBuilder, PackKeys};
use crate::seal::SegmentSealer;

/// Collects in a copy of `before`; at the listing of this number everything that `later` has more happens at once. None if there
/// were not so many listings before it condemned anything: a writer would have seen that.
async fn disturbed(world: &World, before: &InMemory, later: &Arc<InMemory>, at: usize) -> Option<Repository> {
    let objects = copy_objects(before).await;
    let count = Arc::new(AtomicUsize::new(0));
    let fault = {
        let (objects, later, count) = (Arc::clone(&objects), Arc::clone(later), Arc::clone(&count));
        let least = AtomicU64::new(u64::MAX);
        move |op: &Op| {
            // One without packs only tells the time; the first of all is such a one, and all of them are of one length.
            let condemns = op.kind == OpKind::Put
                && op.key.starts_with(layout::CONDEMNED)
                && op.bytes > least.fetch_min(op.bytes, Ordering::SeqCst);
            if condemns && count.load(Ordering::SeqCst) <= at {
                count.store(usize::MAX / 2, Ordering::SeqCst);
            }
            if op.kind == OpKind::List && count.fetch_add(1, Ordering::SeqCst) == at {
                add_objects(&later, &objects).now_or_never().unwrap();
            }
            Fault::None
        }
    };
    let objects: Arc<dyn ObjectStore> = objects;
    let env = world.env_at(&format!("disturbed-{at}"));
    let faulty = FaultStore::new(Arc::clone(&objects), fault);
    let repo = world.repo.with_store(store_over(Arc::new(faulty))).with_env(env.clone());
    prune(&repo, &NOW).await.unwrap();
    (at < count.load(Ordering::SeqCst) && count.load(Ordering::SeqCst) < usize::MAX / 2)
        .then(|| world.repo.with_store(store_over(objects)).with_env(env))
}

fn over(world: &World, objects: &Arc<InMemory>) -> Repository {
    world.repo.with_store(store_over(Arc::clone(objects) as Arc<dyn ObjectStore>))
}

/// A snapshot is stored and confirmed, and after that another collector condemns what it needs: at any moment of this one.
#[tokio::test(flavor = "multi_thread")]
async fn what_another_collector_condemns_meanwhile_is_not_deleted_under_a_new_snapshot() {
    let (mut world, first) = World::changed(300_000).await;
    world.forget(first).await;
    prune(&world.repo, &PruneOptions { young: Some(Duration::from_secs(3600)), ..NOW }).await.unwrap();
    let later = copy_objects(&world.objects).await;
    let elsewhere = over(&world, &later);
    world.write("a", &noise(1, 300_000));
    back_up(&elsewhere, &world.source()).await;
    let packs = world.repo.list_packs().await.unwrap();
    elsewhere.put_condemnation(packs.into_iter().collect()).await.unwrap();
    for at in 0.. {
        let Some(repo) = disturbed(&world, &world.objects, &later, at).await else {
            assert!(at > 10, "only {at} listings were disturbed");
            break;
        };
        let report = verify(&repo, Depth::Data).await.unwrap();
        assert!(!report.has_damage(), "disturbed at listing {at}: {:?}", report.findings);
    }
}

/// A snapshot is forgotten and taken back: at any moment of a collection.
#[tokio::test(flavor = "multi_thread")]
async fn a_tomb_that_was_taken_back_meanwhile_stays_taken_back() {
    let mut world = World::new().await;
    for n in 0..2 {
        world.write("a", &noise(n, 10_000));
        world.save().await;
    }
    let later = copy_objects(&world.objects).await;
    let elsewhere = over(&world, &later);
    let kept = elsewhere.list_snapshots().await.unwrap()[0];
    let tomb = (kept.writer, kept.sequence, kept.id);
    let tomb = elsewhere.put_tomb(tomb, TombReason::Named).await.unwrap();
    elsewhere.put_undo(vec![tomb]).await.unwrap();
    for at in 0.. {
        let Some(repo) = disturbed(&world, &world.objects, &later, at).await else {
            assert!(at > 10, "only {at} listings were disturbed");
            break;
        };
        assert_eq!(repo.list_snapshots().await.unwrap().len(), 2, "disturbed at listing {at}");
        let marks = repo.read_marks().await.unwrap();
        assert!(marks.tombs.is_empty(), "disturbed at listing {at}");
    }
}

/// Objects that are larger than any may be, under every kind of name, stop neither a backup nor a collection; only what may
/// have been a hold or an undo, of something that is about to be removed, has to go first.
#[tokio::test(flavor = "multi_thread")]
async fn objects_that_are_too_large_stop_nobody() {
    let (mut world, first) = World::changed(100_000).await;
    world.forget(first).await;
    let listed = world.repo.list_snapshots().await.unwrap()[0];
    let hash = ObjectHash::new([0xee; 32]);
    let id = SnapshotId::new([0xee; 32]);
    for name in [
        ObjectName::Condemned(hash),
        ObjectName::Horizon(9_999_999_999, hash),
        ObjectName::Removed(hash),
        ObjectName::Undone(hash),
        ObjectName::Tomb(id, hash),
        ObjectName::Hold(hash),
        ObjectName::Snapshot(listed.writer, 77, id),
        ObjectName::Confirmation(listed.writer, 77, id),
    ] {
        let location = object_store::path::Path::from(name.key());
        world.objects.put(&location, vec![0; 2 * SIGNED_MAX + 1].into()).await.unwrap();
    }
    world.save().await;
    for name in [ObjectName::Undone(hash), ObjectName::Hold(hash)] {
        let refused = prune(&world.repo, &NOW).await;
        assert!(matches!(refused, Err(Error::MarkDamaged { .. })), "{refused:?}");
        remove::delete(&world.repo, name).await.unwrap();
    }
    let report = prune(&world.repo, &NOW).await.unwrap();
    assert_eq!(report.removed, 1);
}

/// A pack that nobody can decode is left alone, and does not keep the condemnation of others.
#[tokio::test(flavor = "multi_thread")]
async fn a_garbage_pack_does_not_keep_the_condemnation_of_others() {
    let (mut world, first) = World::changed(100_000).await;
    world.forget(first).await;
    let garbage = PackId::new([0xee; 32]);
    let location = object_store::path::Path::from(ObjectName::Pack(garbage).key());
    world.objects.put(&location, vec![7; 5000].into()).await.unwrap();
    for _ in 0..2 {
        let report = prune(&world.repo, &NOW).await.unwrap();
        assert_eq!((report.condemned, report.left.len()), (1, 1));
        assert_eq!(world.repo.horizon().await.unwrap(), 1);
        let condemned = world.repo.condemnations(&mut Vec::new()).await.unwrap();
        assert_eq!(condemned.len(), 1);
        assert_eq!(condemned[0].condemnation.packs, [garbage]);
    }
    // With something new to condemn and to finish behind it, it is still told.
    world.write("a", &noise(3, 100_000));
    let next = world.save().await;
    world.write("a", &noise(4, 100_000));
    world.save().await;
    world.forget(next).await;
    let report = prune(&world.repo, &NOW).await.unwrap();
    assert!(report.deleted >= 1, "{report:?}");
    assert_eq!((report.condemned, report.left.len()), (1, 1));
}

/// Names of horizons do not push the valid one out: its number would be given again.
#[tokio::test(flavor = "multi_thread")]
async fn a_horizon_never_goes_back() {
    let mut world = World::new().await;
    for n in 0..3 {
        world.write("a", &noise(n, 100_000));
        let id = world.save().await;
        world.write("a", &noise(100 + n, 100_000));
        world.save().await;
        world.forget(id).await;
        prune(&world.repo, &NOW).await.unwrap();
        assert_eq!(world.repo.horizon().await.unwrap(), n + 1);
    }
    for byte in [0xfd, 0xfe, 0xff] {
        let name = ObjectName::Horizon(3, ObjectHash::new([byte; 32]));
        world.objects.put(&object_store::path::Path::from(name.key()), vec![0; 9].into()).await.unwrap();
    }
    prune(&world.repo, &NOW).await.unwrap();
    assert_eq!(world.repo.horizon().await.unwrap(), 3);
}

/// What an unconfirmed snapshot lacks is passed by; what a confirmed one lacks is not, though they share every page.
#[tokio::test(flavor = "multi_thread")]
async fn damage_under_a_confirmed_snapshot_shows_behind_an_unconfirmed_one() {
    let mut world = World::new().await;
    fs::create_dir_all(world.source().join("x/y")).unwrap();
    world.write("x/y/a", &noise(1, 300_000));
    let first = world.save().await;
    let listed = world.repo.list_snapshots().await.unwrap()[0];
    let stored = world.repo.read_snapshot(listed).await.unwrap();
    let keys = world.repo.new_run_keys().unwrap();
    let same = world.repo.put_snapshot(7, &stored.snapshot, &keys).await.unwrap();
    world.repo.confirm_snapshot(7, same).await.unwrap();
    let ok = ObjectName::Confirmation(listed.writer, listed.sequence, first);
    remove::delete(&world.repo, ok).await.unwrap();
    world.refuses_without_its_largest_pack().await;
}

/// A pack that names another's chunks, and a maintainer as their origin without its signature, is no copy of them.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_under_a_forged_origin_does_not_count() {
    let mut world = World::new().await;
    world.write("a", &noise(1, 300_000));
    world.save().await;
    let (random, signing) = (SystemRandom, SigningKey::generate(&SystemRandom).unwrap());
    let (writer, _) = world.repo.maintainer().unwrap();
    let victims = world.repo.store().list(layout::PACKS).await.unwrap();
    let mut forged = Vec::new();
    let run = world.repo.new_run_keys().unwrap();
    let index_key = world.repo.index_key().unwrap().clone();
    let mut index = IndexBuilder::new(writer, 0, Vec::new());
    for (victim, kind) in victims.iter().zip(std::iter::repeat(ChunkKind::Data)) {
        let Some(ObjectName::Pack(id)) = ObjectName::parse(victim.key.as_str()) else { panic!() };
        let bytes = world.repo.store().get(&victim.key, 1 << 30).await.unwrap();
        if crate::format::envelope::Preamble::decode(&bytes).unwrap().chunk_kind != kind {
            continue;
        }
        let (_, directory) = world.repo.read_directory(id, victim.size).await.unwrap();
        let chunks: Vec<_> = directory.chunks.iter().map(|chunk| (chunk.id, chunk.len)).collect();
        let plain = vec![0; chunks.iter().map(|chunk| chunk.1 as usize).sum()];
        let mut sealer = SegmentSealer::new(run.key(kind), world.repo.id(), 1).unwrap();
        let mut stored = Vec::new();
        let entry = sealer.seal(&plain, chunks.iter().map(|chunk| &chunk.0), &random, &mut stored).unwrap();
        let buffer = BufferPool::new(1).take(&|| false).unwrap();
        let mut pack = PackBuilder::new(kind, world.repo.id(), buffer);
        pack.push(entry, &stored, &chunks);
        let keys = PackKeys {
            repository: world.repo.id(),
            index: &index_key,
            writer,
            signing: &signing,
            data_key: run.sealed(kind),
        };
        let pack = pack.finish(&keys, &random, false).unwrap();
        world.repo.put_pack(&pack).await.unwrap();
        let place = (pack.id, kind, pack.bytes.len() as u64);
        Repository::index_pack(&mut index, place, &pack.footer, &pack.directory).unwrap();
        forged.push(pack.id);
    }
    assert!(!forged.is_empty());
    let (_, own) = world.repo.maintainer().unwrap();
    world.repo.put_index(&index.finish(), &own).await.unwrap();
    let all = victims.iter().filter_map(|object| match ObjectName::parse(object.key.as_str())? {
        ObjectName::Pack(id) => Some(id),
        _ => None,
    });
    world.repo.put_condemnation(all.collect()).await.unwrap();
    let young = PruneOptions { young: Some(Duration::from_secs(3600)), ..NOW };
    let report = prune(&world.repo, &young).await.unwrap();
    assert_eq!(report.condemned, 0, "the victim's packs are gone: {report:?}");
    for pack in forged {
        remove::delete(&world.repo, ObjectName::Pack(pack)).await.unwrap();
    }
    world.check().await;
}

/// A second collection without a delay is not taken aback by what the first one moved.
#[tokio::test(flavor = "multi_thread")]
async fn a_collector_does_not_take_itself_for_a_writer_at_work() {
    let mut world = World::new().await;
    for n in 0..40 {
        world.write(&format!("f{n}"), &noise(n, 50_000));
    }
    let first = world.save().await;
    for n in 0..15 {
        world.write(&format!("f{n}"), &noise(1000 + n, 50_000));
    }
    let second = world.save().await;
    for n in 15..30 {
        world.write(&format!("f{n}"), &noise(1000 + n, 50_000));
    }
    world.save().await;
    for id in [first, second] {
        world.forget(id).await;
        let report = prune(&world.repo, &PruneOptions { force: false, max_unused: 0, ..NOW }).await.unwrap();
        assert!(report.written > 0, "{report:?}");
    }
    world.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_run_leaves_nothing_and_no_option_is_too_large() {
    let world = World::one_of_three_forgotten().await;
    prune(&world.repo, &PruneOptions { yes: false, ..NOW }).await.unwrap_err();
    assert!(world.repo.store().list(layout::CONDEMNED).await.unwrap().is_empty());
    let long = PruneOptions { grace: Duration::MAX, undo_window: Duration::MAX, max_unused: u64::MAX, ..NOW };
    prune(&world.repo, &long).await.unwrap();
}
