//! Collections that end early: what they leave, and what they may not touch.

use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;

use futures::FutureExt;
use object_store::ObjectStoreExt;
use object_store::memory::InMemory;

use super::*;
use crate::ops::backup::{BackupOptions, BackupSource, backup};
use crate::ops::undelete::undelete;
use crate::store::fault::Failure;

/// The same repository over a store that fails as told.
fn failing(world: &World, plan: impl Fn(&Op) -> Fault + Send + Sync + 'static) -> Repository {
    let objects = Arc::clone(&world.objects) as Arc<dyn ObjectStore>;
    world.repo.with_store(store_over(Arc::new(FaultStore::new(objects, plan))))
}

async fn forgotten() -> (World, SnapshotId) {
    let mut world = World::new().await;
    world.write("a", &noise(1, 100_000));
    let first = world.save().await;
    world.write("a", &noise(2, 100_000));
    world.save().await;
    world.forget(first).await;
    (world, first)
}

/// A removal under which nothing was deleted must not go on naming what is there: nobody could take it back.
#[tokio::test(flavor = "multi_thread")]
async fn a_removal_that_failed_names_nothing() {
    for failing_list in [layout::TOMBS, layout::HOLDS, layout::CONDEMNED] {
        let (world, first) = forgotten().await;
        let named = AtomicBool::new(false);
        let repo = failing(&world, move |op| match op.kind {
            OpKind::Put if op.key.starts_with(layout::REMOVED) => {
                named.store(true, Ordering::SeqCst);
                Fault::None
            }
            OpKind::List if named.load(Ordering::SeqCst) && failing_list.starts_with(&op.key) => {
                Fault::Before(Failure::Denied)
            }
            _ => Fault::None,
        });
        let ended = prune(&repo, &NOW).await;
        assert!(ended.is_err(), "{failing_list}");
        let there = world.repo.list_snapshots().await.unwrap().iter().any(|listed| listed.id == first);
        let removals = world.repo.store().list(layout::REMOVED).await.unwrap().len();
        assert_eq!(removals, usize::from(!there), "{failing_list}");
        let done = undelete(&world.repo, &[first.to_string()]).await.unwrap();
        assert_eq!(done.back, if there { vec![first] } else { Vec::new() }, "{failing_list}");
    }
}

/// The second removal, which names only what is not spared, is taken away with the first.
#[tokio::test(flavor = "multi_thread")]
async fn a_removal_that_failed_half_way_names_nothing() {
    let (mut world, first) = forgotten().await;
    world.write("a", &noise(3, 100_000));
    let third = world.save().await;
    world.write("a", &noise(4, 100_000));
    world.save().await;
    world.forget(third).await;
    let plain = world.repo.clone();
    let (named, deleted) = (AtomicBool::new(false), AtomicBool::new(false));
    let repo = failing(&world, move |op| {
        let of_removal = op.key.starts_with(layout::REMOVED);
        match op.kind {
            // A hold that comes between the removal and the listing of holds.
            OpKind::Put if of_removal && !named.swap(true, Ordering::SeqCst) => {
                plain.put_hold(vec![first], None).now_or_never().unwrap().unwrap();
                Fault::None
            }
            OpKind::Delete if of_removal && !deleted.swap(true, Ordering::SeqCst) => {
                Fault::Before(Failure::Denied)
            }
            _ => Fault::None,
        }
    });
    prune(&repo, &NOW).await.unwrap_err();
    let there: Vec<_> = world.repo.list_snapshots().await.unwrap().iter().map(|listed| listed.id).collect();
    let marks = world.repo.read_marks().await.unwrap();
    assert!(marks.removed.iter().all(|id| !there.contains(id)), "{:?}", marks.removed);
}

/// One hold comes between the removal and the listing of holds; then the store fails as `fault` says of the second put, and of the
/// first deletion, of a removal. Gives how the collection ended, and what removals name.
async fn held_meanwhile(
    (world, held): (&World, SnapshotId),
    (second_put, first_delete): (Fault, Fault),
) -> (Result<PruneReport, Error>, HashSet<SnapshotId>) {
    let plain = world.repo.clone();
    let (puts, deletes) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let repo = failing(world, move |op| {
        if !op.key.starts_with(layout::REMOVED) {
            return Fault::None;
        }
        match op.kind {
            OpKind::Put => match puts.fetch_add(1, Ordering::SeqCst) {
                0 => {
                    plain.put_hold(vec![held], None).now_or_never().unwrap().unwrap();
                    Fault::None
                }
                1 => second_put,
                _ => Fault::None,
            },
            OpKind::Delete if deletes.fetch_add(1, Ordering::SeqCst) == 0 => first_delete,
            _ => Fault::None,
        }
    });
    let ended = prune(&repo, &NOW).await;
    (ended, world.repo.read_marks().await.unwrap().removed)
}

/// Nothing was deleted, and the removal is tried to be taken away twice.
#[tokio::test(flavor = "multi_thread")]
async fn a_removal_of_nothing_but_what_is_spared_does_not_stay() {
    let (world, first) = forgotten().await;
    let (ended, removed) =
        held_meanwhile((&world, first), (Fault::None, Fault::Before(Failure::Denied))).await;
    assert!(ended.is_err() && removed.is_empty(), "{removed:?}");
    let done = undelete(&world.repo, &[first.to_string()]).await.unwrap();
    assert_eq!((done.back, done.too_late.len()), (vec![first], 0));
}

/// A second removal that is there though its put has failed names what nobody deletes.
#[tokio::test(flavor = "multi_thread")]
async fn a_second_removal_that_failed_and_is_there_all_the_same_is_taken_away() {
    let (mut world, first) = forgotten().await;
    world.write("a", &noise(3, 100_000));
    let third = world.save().await;
    world.write("a", &noise(4, 100_000));
    world.save().await;
    world.forget(third).await;
    for second_put in [Fault::After(Failure::Denied), Fault::Before(Failure::Denied)] {
        let (ended, removed) = held_meanwhile((&world, first), (second_put, Fault::None)).await;
        assert!(ended.is_err() && removed.is_empty(), "{second_put:?}: {removed:?}");
        assert!(world.repo.store().list(layout::REMOVED).await.unwrap().is_empty(), "{second_put:?}");
        for hold in world.repo.holds().await.unwrap() {
            world.repo.delete_hold(hold.hash).await.unwrap();
        }
    }
    let done = undelete(&world.repo, &[third.to_string()]).await.unwrap();
    assert_eq!((done.back, done.too_late.len()), (vec![third], 0));
    // If the first one cannot be deleted the second one stays: it names less.
    world.forget(third).await;
    let (ended, removed) =
        held_meanwhile((&world, first), (Fault::After(Failure::Denied), Fault::Before(Failure::Denied)))
            .await;
    assert!(ended.is_err() && removed == HashSet::from([third]), "{removed:?}");
}

/// A collection without a delay finishes what others condemned only when no backup may be counting on it.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_delay_what_another_collector_condemned_waits_for_writers_too() {
    let (world, _) = forgotten().await;
    let slow = PruneOptions { grace: Duration::from_secs(3600), young: Some(Duration::ZERO), ..NOW };
    let report = prune(&world.repo, &slow).await.unwrap();
    assert!(report.condemned >= 1 && report.deleted == 0, "{report:?}");
    // A run that stored an index object and no snapshot.
    world.write("b", &noise(3, 100_000));
    let stopped = failing(&world, |op| match op.kind {
        OpKind::Put if op.key.starts_with(layout::SNAPSHOTS) => Fault::Stop,
        _ => Fault::None,
    });
    let options = BackupOptions {
        job: Some("test".into()),
        ..BackupOptions::new(BackupSource::Paths(vec![world.source()]))
    };
    backup(&stopped, options).await.unwrap_err();
    let packs = world.repo.list_packs().await.unwrap();
    let refused = prune(&world.repo, &PruneOptions { force: false, ..NOW }).await;
    assert!(matches!(refused, Err(Error::WriterAtWork { .. })), "{refused:?}");
    assert_eq!(world.repo.list_packs().await.unwrap(), packs);
    assert!(prune(&world.repo, &NOW).await.unwrap().deleted >= 1);
    world.check().await;
}

/// A store whose listings lag: the marks that were to tell its time are deleted all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_does_not_list_keeps_no_mark() {
    let (world, _) = forgotten().await;
    let hidden = Arc::new(Mutex::new(Vec::new()));
    let repo = {
        let (objects, hidden) = (Arc::clone(&world.objects), Arc::clone(&hidden));
        failing(&world, move |op| {
            let mut hidden = hidden.lock().unwrap();
            for (location, bytes) in hidden.drain(..) {
                objects.put(&location, bytes).now_or_never().unwrap().unwrap();
            }
            if op.kind == OpKind::List && layout::CONDEMNED.starts_with(&op.key) {
                *hidden = taken(&objects);
            }
            Fault::None
        })
    };
    let ended = prune(&repo, &NOW).await;
    assert!(matches!(ended, Err(Error::NotListed { .. })), "{ended:?}");
    let left = std::mem::take(&mut *hidden.lock().unwrap());
    for (location, bytes) in left {
        world.objects.put(&location, bytes).await.unwrap();
    }
    assert!(world.repo.store().list(layout::CONDEMNED).await.unwrap().is_empty());
}

/// Takes every condemnation out.
fn taken(objects: &InMemory) -> Vec<(object_store::path::Path, object_store::PutPayload)> {
    let take = async {
        use futures::TryStreamExt;
        let below = object_store::path::Path::from("gc/condemned");
        let listed: Vec<_> = objects.list(Some(&below)).try_collect().await.unwrap();
        let mut out = Vec::new();
        for meta in listed {
            let bytes = objects.get(&meta.location).await.unwrap().bytes().await.unwrap();
            objects.delete(&meta.location).await.unwrap();
            out.push((meta.location, bytes.into()));
        }
        out
    };
    take.now_or_never().unwrap()
}

/// What `--accept-missing` would name is named in a dry run, too, and the next run still misses it.
#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_accepts_what_it_is_told_to_and_notes_nothing() {
    let (world, _) = forgotten().await;
    prune(&world.repo, &NOW).await.unwrap();
    let listed = world.repo.list_snapshots().await.unwrap();
    for object in world.repo.store().list(layout::SNAPSHOTS).await.unwrap() {
        world.repo.store().delete(&object.key).await.unwrap();
    }
    let dry = PruneOptions { dry_run: true, accept_missing: true, ..NOW };
    prune(&world.repo, &dry).await.unwrap();
    let refused = prune(&world.repo, &NOW).await;
    assert!(
        matches!(refused, Err(Error::SnapshotVanished { snapshot }) if snapshot == listed[0].id),
        "{refused:?}"
    );
}

/// An undo that cannot be read stops removals: not as a hold, but as what it may be.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_undo_is_called_one() {
    for (name, word) in [
        (ObjectName::Undone(ObjectHash::new([7; 32])), "taken back"),
        (ObjectName::Hold(ObjectHash::new([7; 32])), "hold"),
    ] {
        let (world, _) = forgotten().await;
        let location = object_store::path::Path::from(name.key());
        world.objects.put(&location, vec![7; 100].into()).await.unwrap();
        let refused = prune(&world.repo, &NOW).await.unwrap_err();
        assert!(matches!(&refused, Error::MarkDamaged { key } if *key == name.key()), "{refused}");
        assert!(refused.to_string().contains(word), "{refused}");
    }
}
