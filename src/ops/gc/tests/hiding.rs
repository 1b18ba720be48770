//! Listings that lack something once: it is not gone because of that.

use std::sync::Mutex;

use futures::{FutureExt, StreamExt};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStoreExt, PutPayload};

use super::*;
use crate::ops::undelete::undelete;

/// Takes out every object whose name has this part.
fn take(objects: &InMemory, part: &str) -> Vec<(Path, PutPayload)> {
    let take = async {
        let listed: Vec<_> = objects.list(None).map(|meta| meta.unwrap().location).collect().await;
        let mut out = Vec::new();
        for location in listed.into_iter().filter(|location| location.as_ref().contains(part)) {
            let bytes = objects.get(&location).await.unwrap().bytes().await.unwrap();
            objects.delete(&location).await.unwrap();
            out.push((location, bytes.into()));
        }
        out
    };
    take.now_or_never().unwrap()
}

/// The same repository on another machine, over a store whose listings `which` of a room, counted from zero, lack what has
/// `part` in its name.
fn hiding(world: &World, room: &'static str, part: String, which: &'static [usize]) -> Repository {
    let objects = Arc::clone(&world.objects);
    let state = Mutex::new((0, Vec::new()));
    let plan = move |op: &Op| {
        let (count, hidden) = &mut *state.lock().unwrap();
        for (location, bytes) in hidden.drain(..) {
            objects.put(&location, bytes).now_or_never().unwrap().unwrap();
        }
        if op.kind == OpKind::List && room.starts_with(&op.key) {
            if which.contains(count) {
                *hidden = take(&objects, &part);
            }
            *count += 1;
        }
        Fault::None
    };
    let store = FaultStore::new(Arc::clone(&world.objects) as Arc<dyn ObjectStore>, plan);
    world.repo.with_store(store_over(Arc::new(store))).with_env(world.env_at("hiding"))
}

/// Two snapshots of which the first has a label, and a removal that names it: its collection died.
async fn left() -> (World, SnapshotId, ObjectHash) {
    let (world, first) = World::changed(10_000).await;
    let listed = world.repo.list_snapshots().await.unwrap().into_iter().find(|l| l.id == first).unwrap();
    world.repo.put_labels(&listed, (1, vec!["tag".into()])).await.unwrap();
    let removal = world.repo.put_removal(vec![first]).await.unwrap();
    (world, first, removal)
}

async fn count(world: &World, prefix: &str) -> usize {
    world.repo.store().list(prefix).await.unwrap().len()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_belongs_to_a_snapshot_stays_though_one_listing_lacks_it() {
    let (world, first, _) = left().await;
    world.repo.put_hold(vec![first], None).await.unwrap();
    for which in [&[0][..], &[1], &[2], &[3]] {
        prune(&hiding(&world, layout::SNAPSHOTS, first.to_string(), which), &NOW).await.unwrap();
        let left = (count(&world, layout::HOLDS).await, count(&world, layout::LABELS).await);
        assert_eq!(left, (1, 1), "listing {which:?}");
        assert_eq!(count(&world, layout::SNAPSHOTS).await, 4, "listing {which:?}");
    }
    world.check().await;
}

/// A hold that stands outlives what it holds for a while.
#[tokio::test(flavor = "multi_thread")]
async fn a_hold_stands_until_the_removal_of_what_it_holds_is_older_than_the_grace() {
    let (world, first, _) = left().await;
    world.repo.put_hold(vec![first], None).await.unwrap();
    world.repo.put_hold(vec![first], Some(Timestamp(1))).await.unwrap();
    let slow = PruneOptions { grace: Duration::from_secs(3600), ..NOW };
    prune(&hiding(&world, layout::SNAPSHOTS, first.to_string(), &[0, 1]), &slow).await.unwrap();
    assert_eq!(count(&world, layout::HOLDS).await, 1, "the one that is over goes");
    assert!(world.repo.read_marks().await.unwrap().is_held(&first, Timestamp(2)));
    prune(&hiding(&world, layout::SNAPSHOTS, first.to_string(), &[0, 1]), &NOW).await.unwrap();
    assert_eq!(count(&world, layout::HOLDS).await, 0);
}

/// The collection that put the removal may be asleep, and spare what it names when it wakes.
#[tokio::test(flavor = "multi_thread")]
async fn a_removal_of_what_one_listing_lacks_is_not_folded() {
    let (world, first, removal) = left().await;
    world.repo.put_removal(vec![SnapshotId::new([9; 32])]).await.unwrap();
    let fold = PruneOptions { fold_from: 2, ..NOW };
    for which in [&[0][..], &[1]] {
        prune(&hiding(&world, layout::SNAPSHOTS, first.to_string(), which), &fold).await.unwrap();
        let found = world.repo.removals(&mut Vec::new()).await.unwrap();
        assert!(found.standing.iter().any(|stored| stored.hash == removal), "listing {which:?}: {found:?}");
        assert_eq!(found.all().count(), 2, "listing {which:?}");
    }
}

/// Without its undo the tomb would count again as soon as it is listed.
#[tokio::test(flavor = "multi_thread")]
async fn an_undo_stays_though_one_listing_lacks_its_tomb() {
    let (world, first) = World::changed(10_000).await;
    forget(&world.repo, first).await;
    undelete(&world.repo, &[first.to_string()]).await.unwrap();
    for which in [&[0][..], &[1], &[2], &[3]] {
        prune(&hiding(&world, layout::TOMBS, first.to_string(), which), &NOW).await.unwrap();
        assert_eq!(count(&world, layout::UNDONE).await, 1, "listing {which:?}");
    }
    let report = prune(&world.repo, &NOW).await.unwrap();
    assert_eq!(report.removed, 0);
    world.check().await;
    // Once the tomb is gone its undo goes, too.
    take(&world.objects, &format!("{}{first}", layout::TOMBS));
    prune(&world.repo, &NOW).await.unwrap();
    assert_eq!(count(&world, layout::UNDONE).await, 0);
}
