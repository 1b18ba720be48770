//! What stays of snapshots that were removed, and what it costs everybody after them.

use futures::FutureExt;
use object_store::ObjectStoreExt;

use super::*;
use crate::clock::Timestamp;
use crate::format::gc::TombReason;
use crate::id::WriterId;
use crate::ops::snapshots::{SnapshotFilter, list};
use crate::ops::testing::put_snapshot;
use crate::ops::undelete::undelete;
use crate::ops::verify::verify_packs_without_key;
use crate::store::fault::Failure;

/// How many snapshots come and go.
const MANY: u64 = 300;

/// Objects by the room that they are in.
async fn rooms(repo: &Repository) -> BTreeMap<&'static str, usize> {
    let mut rooms = BTreeMap::new();
    for prefix in layout::PREFIXES {
        rooms.insert(prefix, repo.store().list(prefix).await.unwrap().len());
    }
    rooms
}

/// The same repository, and what is asked of its store.
fn counted(world: &World) -> (Repository, FaultStore) {
    let counter = FaultStore::recording(Arc::clone(&world.objects) as Arc<dyn ObjectStore>);
    (world.repo.with_store(store_over(Arc::new(counter.clone()))), counter)
}

fn asked(counter: &FaultStore) -> (usize, usize) {
    let read = counter.count(OpKind::Get) + counter.count(OpKind::GetRange);
    let listed = counter.count(OpKind::List);
    counter.take_record();
    (listed, read)
}

/// Listings and reads of a backup without a change, of a list of snapshots, and of a collection.
async fn costs(world: &mut World) -> [(usize, usize); 3] {
    let (repo, counter) = counted(world);
    back_up(&repo, &world.source()).await;
    let backup = asked(&counter);
    list(&repo, &SnapshotFilter::default()).await.unwrap();
    let snapshots = asked(&counter);
    prune(&repo, &NOW).await.unwrap();
    [backup, snapshots, asked(&counter)]
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_kept_of_removed_snapshots_does_not_grow_with_every_collection() {
    let mut world = World::new().await;
    world.write("a", &noise(1, 10_000));
    world.save().await;
    let before = (rooms(&world.repo).await, costs(&mut world).await);
    let writer = world.repo.writer().unwrap().0;
    let mut ids = Vec::new();
    for n in 0..MANY {
        let id = put_snapshot(&world.repo, 100 + n, |_| {}).await;
        world.repo.put_hold(vec![id], Some(Timestamp(1))).await.unwrap();
        let tomb = world.repo.put_tomb((writer, 100 + n, id), TombReason::Policy).await.unwrap();
        world.repo.put_undo(vec![tomb]).await.unwrap();
        forget(&world.repo, id).await;
        prune(&world.repo, &NOW).await.unwrap();
        ids.push(id);
    }
    let after = (rooms(&world.repo).await, costs(&mut world).await);
    let marks = world.repo.read_marks().await.unwrap();
    assert!(ids.iter().all(|id| marks.removed.contains(id)), "each is still known to be removed");
    let more: usize = after.0.values().sum::<usize>() - before.0.values().sum::<usize>();
    // Fewer removals than would be folded, and what one more backup stores.
    assert!(more < NOW.fold_from + 6, "{more} objects more: {:?}", after.0);
    for (before, after) in before.1.iter().zip(after.1) {
        assert!(after.0 <= before.0 && after.1 <= before.1 + NOW.fold_from, "{before:?} {after:?}");
    }
    world.check().await;
}

const FOLD: PruneOptions = PruneOptions { fold_from: 2, ..NOW };

/// Snapshots that were removed one by one, and one that is there and follows the last of them.
async fn removed(count: u64) -> (World, Vec<SnapshotId>) {
    let mut world = World::new().await;
    let mut ids = Vec::new();
    for n in 0..=count {
        world.write("a", &noise(n, 1000));
        ids.push(world.save().await);
    }
    ids.pop();
    for id in &ids {
        world.forget(*id).await;
        prune(&world.repo, &NOW).await.unwrap();
    }
    assert_eq!(removals(&world.repo).await, ids.len());
    (world, ids)
}

async fn removals(repo: &Repository) -> usize {
    repo.store().list(layout::REMOVED).await.unwrap().len()
}

/// The repository over other objects, on a machine of another name.
fn elsewhere(world: &World, objects: Arc<dyn ObjectStore>, name: &str) -> Repository {
    world.repo.with_store(store_over(objects)).with_env(world.env_at(name))
}

async fn knows_all(repo: &Repository, ids: &[SnapshotId], when: &str) {
    let missing = repo.not_removed(ids.iter().copied()).await.unwrap();
    assert!(missing.is_empty(), "{when}: {missing:?}");
}

/// Runs a whole collection while another one waits in the middle of a request.
fn meanwhile(repo: Repository, options: PruneOptions) {
    let run = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(prune(&repo, &options)).unwrap();
    };
    std::thread::spawn(run).join().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fold_may_be_killed_at_every_request() {
    let (world, ids) = removed(5).await;
    for stop in 0.. {
        let objects = copy_objects(&world.objects).await as Arc<dyn ObjectStore>;
        let faulty = FaultStore::new(Arc::clone(&objects), move |op| match op.number == stop {
            true if stop % 2 == 0 => Fault::Stop,
            true => Fault::StopAfter,
            false => Fault::None,
        });
        let name = format!("state-{stop}");
        let ended = prune(&elsewhere(&world, Arc::new(faulty), &name), &FOLD).await;
        let repo = elsewhere(&world, objects, &name);
        knows_all(&repo, &ids, &format!("killed at {stop}")).await;
        prune(&repo, &FOLD).await.unwrap();
        prune(&repo, &FOLD).await.unwrap();
        knows_all(&repo, &ids, &format!("after {stop}")).await;
        assert_eq!(removals(&repo).await, 1, "killed at {stop}");
        if ended.is_ok() {
            assert!(stop > 20, "only {stop} requests");
            return;
        }
    }
}

/// Another collection folds, whole, between any two requests of this one; and a third one after both.
#[tokio::test(flavor = "multi_thread")]
async fn two_may_fold_at_the_same_time() {
    let (world, ids) = removed(4).await;
    for at in 0.. {
        let objects = copy_objects(&world.objects).await as Arc<dyn ObjectStore>;
        let other = elsewhere(&world, Arc::clone(&objects), "other");
        let faulty = FaultStore::new(Arc::clone(&objects), move |op| {
            if op.number == at {
                meanwhile(other.clone(), FOLD);
            }
            Fault::None
        });
        prune(&elsewhere(&world, Arc::new(faulty.clone()), "this"), &FOLD).await.unwrap();
        let repo = elsewhere(&world, objects, "third");
        knows_all(&repo, &ids, &format!("disturbed at {at}")).await;
        assert!(removals(&repo).await <= 2, "disturbed at {at}");
        prune(&repo, &FOLD).await.unwrap();
        assert_eq!(removals(&repo).await, 1, "disturbed at {at}");
        knows_all(&repo, &ids, &format!("after {at}")).await;
        if faulty.record().len() as u64 <= at {
            break;
        }
    }
}

/// What a listing showed is folded before it is read: then the listing was too old.
#[tokio::test(flavor = "multi_thread")]
async fn who_listed_before_a_fold_lists_again() {
    let (world, ids) = removed(3).await;
    let (folded, other) = (AtomicBool::new(false), world.repo.clone());
    let objects = Arc::clone(&world.objects) as Arc<dyn ObjectStore>;
    let slow = FaultStore::new(objects, move |op| {
        let reads = op.kind == OpKind::Get && op.key.starts_with(layout::REMOVED);
        if reads && !folded.swap(true, Ordering::SeqCst) {
            meanwhile(other.clone(), FOLD);
        }
        Fault::None
    });
    let marks = elsewhere(&world, Arc::new(slow), "slow").read_marks().await.unwrap();
    assert!(ids.iter().all(|id| marks.removed.contains(id)), "{:?}", marks.removed);
    assert_eq!((removals(&world.repo).await, marks.problems.len()), (1, 0));
}

/// A listing is not made at one moment: it may show neither what was folded nor what it was folded into.
#[tokio::test(flavor = "multi_thread")]
async fn a_listing_that_missed_a_fold_ends_no_collection() {
    let (world, ids) = removed(2).await;
    prune(&world.repo, &FOLD).await.unwrap();
    let location = world.repo.store().list(layout::REMOVED).await.unwrap()[0].key.as_str().into();
    let bytes = world.objects.get(&location).await.unwrap().bytes().await.unwrap();
    for at in 0..4 {
        let (objects, location, bytes) = (Arc::clone(&world.objects), location.clone(), bytes.clone());
        let listings = std::sync::atomic::AtomicU64::new(0);
        let faulty = FaultStore::new(Arc::clone(&objects) as Arc<dyn ObjectStore>, move |op| {
            let lists = op.kind == OpKind::List && layout::REMOVED.starts_with(&op.key);
            let hides = lists && listings.fetch_add(1, Ordering::SeqCst) == at;
            match hides {
                true => objects.delete(&location).now_or_never().unwrap().unwrap(),
                false => drop(objects.put(&location, bytes.clone().into()).now_or_never().unwrap()),
            }
            Fault::None
        });
        let repo = elsewhere(&world, Arc::new(faulty), "slow");
        prune(&repo, &NOW).await.unwrap();
        let report = verify(&repo, Depth::Structure).await.unwrap();
        assert!(report.findings.is_empty(), "{at}: {:?}", report.findings);
        knows_all(&world.repo, &ids, "at the end").await;
    }
}

/// A snapshot that was spared is named no more as soon as the second removal is there, whatever happens then.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_collection_has_spared_can_be_held_and_taken_back() {
    let (mut world, _) = removed(0).await;
    let mut ids = Vec::new();
    for n in 0..3 {
        world.write("a", &noise(50 + n, 1000));
        ids.push(world.save().await);
    }
    let (spared, gone) = (ids[0], ids[1]);
    world.forget(spared).await;
    world.forget(gone).await;
    let (plain, puts) = (world.repo.clone(), std::sync::atomic::AtomicU64::new(0));
    let faulty = FaultStore::new(Arc::clone(&world.objects) as Arc<dyn ObjectStore>, move |op| {
        if op.kind != OpKind::Put || !op.key.starts_with(layout::REMOVED) {
            return Fault::None;
        }
        match puts.fetch_add(1, Ordering::SeqCst) {
            0 => {
                plain.put_hold(vec![spared], None).now_or_never().unwrap().unwrap();
                Fault::None
            }
            _ => Fault::StopAfter,
        }
    });
    prune(&elsewhere(&world, Arc::new(faulty), "killed"), &NOW).await.unwrap_err();
    assert_eq!(removals(&world.repo).await, 2);
    let lost = world.repo.lost_to_removal(&[spared, gone]).await.unwrap();
    assert_eq!(lost, HashSet::from([gone]));
    let done = undelete(&world.repo, &[spared.to_string()]).await.unwrap();
    assert_eq!((done.back, done.too_late.len()), (vec![spared], 0));
    for _ in 0..3 {
        prune(&world.repo, &FOLD).await.unwrap();
        assert_eq!(world.repo.lost_to_removal(&[spared, gone]).await.unwrap(), HashSet::from([gone]));
    }
    knows_all(&world.repo, &[gone], "at the end").await;
    assert_eq!(removals(&world.repo).await, 1);
}

/// Between the two there is no moment at which a listing, which takes its time, could miss both.
#[tokio::test(flavor = "multi_thread")]
async fn a_replaced_removal_stands_until_everything_is_deleted() {
    let (mut world, _) = removed(0).await;
    for n in 0..2 {
        world.write("a", &noise(50 + n, 1000));
        world.save().await;
    }
    let mut ids = world.saved.keys().copied().collect::<Vec<_>>();
    let (spared, gone) = (ids.remove(0), ids.remove(0));
    world.forget(spared).await;
    world.forget(gone).await;
    let (plain, named) = (world.repo.clone(), AtomicBool::new(false));
    let faulty = FaultStore::new(Arc::clone(&world.objects) as Arc<dyn ObjectStore>, move |op| {
        let names = op.kind == OpKind::Put && op.key.starts_with(layout::REMOVED);
        if names && !named.swap(true, Ordering::SeqCst) {
            plain.put_hold(vec![spared], None).now_or_never().unwrap().unwrap();
        }
        Fault::None
    });
    prune(&elsewhere(&world, Arc::new(faulty.clone()), "one"), &NOW).await.unwrap();
    let deletes: Vec<_> = faulty.record().into_iter().filter(|op| op.kind == OpKind::Delete).collect();
    let first = |prefix: &str| deletes.iter().position(|op| op.key.starts_with(prefix)).unwrap();
    assert!(first(layout::SNAPSHOTS) < first(layout::REMOVED), "{deletes:?}");
}

/// What was listed is folded, or cleared away, before it is read: that is no damage.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_collection_deletes_while_verify_is_at_work_is_no_damage() {
    let (world, ids) = removed(3).await;
    world.repo.put_hold(ids, Some(Timestamp(1))).await.unwrap();
    let (struck, other) = (AtomicBool::new(false), world.repo.clone());
    let slow = FaultStore::new(Arc::clone(&world.objects) as Arc<dyn ObjectStore>, move |op| {
        let lists = op.kind == OpKind::List && layout::PACKS.starts_with(&op.key);
        if lists && !struck.swap(true, Ordering::SeqCst) {
            meanwhile(other.clone(), FOLD);
        }
        Fault::None
    });
    let report = verify(&elsewhere(&world, Arc::new(slow), "slow"), Depth::Structure).await.unwrap();
    assert!(report.findings.is_empty(), "{:?}", report.findings);
    let rooms = rooms(&world.repo).await;
    assert_eq!((rooms[layout::REMOVED], rooms[layout::HOLDS]), (1, 0));
    // What is listed and cannot be had is damage all the same.
    world.repo.put_hold(world.saved.keys().copied().collect(), None).await.unwrap();
    let hidden = FaultStore::new(Arc::clone(&world.objects) as Arc<dyn ObjectStore>, |op| {
        let reads = op.kind == OpKind::Get && op.key.starts_with(layout::HOLDS);
        if reads { Fault::Before(Failure::NotFound) } else { Fault::None }
    });
    let report = verify(&elsewhere(&world, Arc::new(hidden), "hidden"), Depth::Structure).await.unwrap();
    assert!(report.has_damage() && report.findings.len() == 1, "{:?}", report.findings);
}

/// Packs are deleted after verify has listed them: what was needed of them is elsewhere.
#[tokio::test(flavor = "multi_thread")]
async fn packs_that_a_collection_deletes_while_verify_is_at_work_are_no_damage() {
    for depth in [None, Some(Depth::Packs), Some(Depth::Data)] {
        let mut world = World::new().await;
        for n in 0..4 {
            world.write(&format!("f{n}"), &noise(n, 30_000));
        }
        let first = world.save().await;
        for n in 0..3 {
            world.write(&format!("f{n}"), &noise(10 + n, 30_000));
        }
        world.save().await;
        world.forget(first).await;
        let (struck, other) = (AtomicBool::new(false), world.repo.clone());
        let before = world.repo.list_packs().await.unwrap();
        let slow = FaultStore::new(Arc::clone(&world.objects) as Arc<dyn ObjectStore>, move |op| {
            let reads =
                matches!(op.kind, OpKind::Get | OpKind::GetRange) && op.key.starts_with(layout::PACKS);
            if reads && !struck.swap(true, Ordering::SeqCst) {
                meanwhile(other.clone(), NOW);
            }
            Fault::None
        });
        let slow = elsewhere(&world, Arc::new(slow), "slow");
        let report = match depth {
            Some(depth) => verify(&slow, depth).await.unwrap(),
            None => verify_packs_without_key(slow.store().clone(), slow.env()).await.unwrap(),
        };
        assert!(!report.has_damage(), "{depth:?}: {:?}", report.findings);
        assert!(!before.is_subset(&world.repo.list_packs().await.unwrap()));
    }
}

/// Neither what names a snapshot that is there, nor what is younger than the grace.
#[tokio::test(flavor = "multi_thread")]
async fn only_what_is_over_is_folded() {
    let (mut world, ids) = removed(4).await;
    let young = PruneOptions { grace: Duration::from_secs(3600), ..FOLD };
    prune(&world.repo, &young).await.unwrap();
    assert_eq!(removals(&world.repo).await, 4);
    let there = *world.saved.keys().next().unwrap();
    let stuck = world.repo.put_removal(vec![there, ids[0]]).await.unwrap();
    let report = prune(&world.repo, &FOLD).await.unwrap();
    assert_eq!((report.removed, removals(&world.repo).await), (0, 2));
    let found = world.repo.removals(&mut Vec::new()).await.unwrap();
    assert!(found.standing.iter().any(|stored| stored.hash == stuck) && found.replaced.is_empty());
    assert!(found.standing.iter().any(|stored| stored.removal.snapshots.len() == 4));
    // A hold that holds nothing any more goes; one that holds anything stays.
    world.repo.put_hold(ids.clone(), None).await.unwrap();
    world.repo.put_hold(vec![ids[0], there], None).await.unwrap();
    prune(&world.repo, &FOLD).await.unwrap();
    assert_eq!(world.repo.store().list(layout::HOLDS).await.unwrap().len(), 1);
    world.save().await;
    world.check().await;
}

/// Anyone may put garbage under the name of what was removed.
#[tokio::test(flavor = "multi_thread")]
async fn garbage_under_the_name_of_a_removed_snapshot_keeps_no_removal() {
    let (world, ids) = removed(3).await;
    let (writer, other) = (world.repo.writer().unwrap().0, WriterId::new([3; 16]));
    let good = world.repo.list_snapshots().await.unwrap()[0].name().key();
    let copied = world.objects.get(&good.into()).await.unwrap().bytes().await.unwrap();
    for (name, bytes) in [
        (ObjectName::Snapshot(writer, 99, ids[0]), vec![7; 100].into()),
        (ObjectName::Snapshot(other, 1, ids[1]), copied),
    ] {
        world.objects.put(&name.key().into(), bytes.into()).await.unwrap();
    }
    prune(&world.repo, &FOLD).await.unwrap();
    assert_eq!(removals(&world.repo).await, 1);
    knows_all(&world.repo, &ids, "beside garbage").await;
}

/// What cannot be read is not folded, and hides nothing of the others.
#[tokio::test(flavor = "multi_thread")]
async fn a_removal_that_cannot_be_read_is_left_alone() {
    let (world, ids) = removed(3).await;
    let rot = ObjectName::Removed(ObjectHash::new([7; 32]));
    world.objects.put(&rot.key().into(), vec![7; 100].into()).await.unwrap();
    for _ in 0..2 {
        prune(&world.repo, &FOLD).await.unwrap();
        assert_eq!(removals(&world.repo).await, 2);
    }
    knows_all(&world.repo, &ids, "beside garbage").await;
}
