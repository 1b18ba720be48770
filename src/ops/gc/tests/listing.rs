//! Collections over a store that does not give what it lists, or whose objects rot: nothing may look dead because of that.

use object_store::ObjectStoreExt;

use super::*;
use crate::repo::CheckOutcome;
use crate::store::fault::Failure;

/// The same repository through a store that answers as `fault` says, on a machine that has never seen it.
fn through(world: &World, fault: impl Fn(&Op) -> Fault + Send + Sync + 'static) -> Repository {
    let objects = Arc::clone(&world.objects) as Arc<dyn ObjectStore>;
    let state = world.dir.path().join("elsewhere");
    let env = Env { places: Places { state, cache: None }, ..env() };
    world.repo.with_store(store_over(Arc::new(FaultStore::new(objects, fault)))).with_env(env)
}

fn not_found(prefix: &'static str, part: String) -> impl Fn(&Op) -> Fault + Send + Sync + 'static {
    move |op| match op.kind {
        OpKind::Get if op.key.starts_with(prefix) && op.key.ends_with(&part) => {
            Fault::Before(Failure::NotFound)
        }
        _ => Fault::None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listed_snapshot_that_is_not_found_is_not_taken_for_a_removed_one() {
    let mut world = World::new().await;
    world.write("a", &noise(1, 300_000));
    let first = world.save().await;
    world.write("a", &noise(2, 300_000));
    world.save().await;
    let refused = prune(&through(&world, not_found("snapshots/", first.to_string())), &NOW).await;
    assert!(refused.is_err(), "{refused:?}");
    world.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_object_that_is_listed_and_not_found_makes_nothing_look_dead() {
    let mut world = World::new().await;
    world.write("a", &noise(1, 300_000));
    let id = world.save().await;
    // Its writer is about to confirm it.
    remove::delete(&world.repo, name_of(&world.repo, id).await.1).await.unwrap();
    let refused = prune(&through(&world, not_found("index/", String::new())), &NOW).await;
    assert!(refused.is_err(), "{refused:?}");
    world.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_condemned_pack_that_is_listed_and_not_found_is_not_deleted() {
    // The first snapshot needs nothing else of its pack than what the second one shares with it.
    let mut world = World::new().await;
    world.write("a", &noise(1, 300_000));
    world.write("b", &noise(2, 300_000));
    let first = world.save().await;
    let packs = world.repo.list_packs().await.unwrap();
    fs::remove_file(world.source().join("a")).unwrap();
    world.save().await;
    world.forget(first).await;
    let mut left = 0;
    for pack in packs {
        let hidden = pack.to_string();
        let copy = copy_objects(&world.objects).await;
        let store = FaultStore::new(Arc::clone(&copy) as Arc<dyn ObjectStore>, move |op: &Op| {
            let reads = matches!(op.kind, OpKind::Get | OpKind::GetRange) && op.key.ends_with(&hidden);
            if reads { Fault::Before(Failure::NotFound) } else { Fault::None }
        });
        let repo = world.repo.with_store(store_over(Arc::new(store)));
        match prune(&repo, &NOW).await {
            // The pages of a tree, which are read to mark.
            Err(error) => assert!(error.to_string().contains(&pack.to_string()), "{error}"),
            Ok(report) => {
                assert_eq!(report.left.len(), 1, "{:?}", report.left);
                left += 1;
            }
        }
        let whole = world.repo.with_store(store_over(copy));
        assert!(!verify(&whole, Depth::Data).await.unwrap().has_damage(), "{pack} was hidden");
    }
    assert!(left > 0, "a pack with data was to be moved");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_that_is_listed_and_not_found_spares_all_the_same() {
    let mut world = World::new().await;
    world.write("a", &noise(1, 100_000));
    let first = world.save().await;
    let content = world.saved[&first].clone();
    world.write("a", &noise(2, 100_000));
    world.save().await;
    world.repo.put_hold(vec![first], None).await.unwrap();
    world.forget(first).await;
    world.saved.insert(first, content);
    let refused = prune(&through(&world, not_found("holds/", String::new())), &NOW).await;
    assert!(refused.is_err(), "{refused:?}");
    world.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_condemnation_that_is_listed_and_not_found_has_not_ended() {
    let mut world = World::new().await;
    world.write("a", &noise(1, 100_000));
    world.save().await;
    let packs: Vec<_> = world.repo.list_packs().await.unwrap().into_iter().collect();
    let mut index = world.repo.load_index().await.unwrap();
    let dependencies = crate::repo::Dependencies(packs.iter().copied().collect());
    world.repo.put_condemnation(packs).await.unwrap();
    let faulty = through(&world, not_found("gc/condemned/", String::new()));
    let checked = faulty.check_commit(&mut index, &dependencies, &mut HashSet::new()).await;
    assert!(checked.is_err(), "{checked:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_horizon_is_not_one_that_has_not_moved() {
    let mut world = World::new().await;
    world.write("a", &noise(1, 100_000));
    world.save().await;
    let mut index = world.repo.load_index().await.unwrap();
    let dependencies = crate::repo::Dependencies(world.repo.list_packs().await.unwrap());
    // A collector condemns, deletes and ends.
    let pack = *dependencies.0.iter().next().unwrap();
    remove::delete(&world.repo, ObjectName::Pack(pack)).await.unwrap();
    world.repo.put_horizon(1).await.unwrap();
    let faulty = through(&world, |op| match op.kind {
        OpKind::Get if op.key.starts_with(layout::HORIZON) => Fault::Corrupt(70),
        _ => Fault::None,
    });
    let mut lost = HashSet::new();
    let checked = faulty.check_commit(&mut index, &dependencies, &mut lost).await.unwrap();
    assert_eq!((checked, lost), (CheckOutcome::Lost, HashSet::from([pack])));
    assert!(faulty.horizon().await.is_err(), "a collector must not give its number again");
    // One below that is damaged hides nothing.
    let rot = ObjectName::Horizon(0, ObjectHash::new([7; 32]));
    world.objects.put(&rot.key().into(), vec![0; 9].into()).await.unwrap();
    assert_eq!(world.repo.horizon().await.unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_under_the_name_of_a_horizon_stops_no_backup() {
    let mut world = World::new().await;
    let garbage = ObjectName::Horizon(layout::NUMBER_MAX, ObjectHash::new([7; 32]));
    world.objects.put(&garbage.key().into(), vec![0; 9].into()).await.unwrap();
    world.write("a", &noise(1, 10_000));
    let id = world.save().await;
    let listed = world.repo.list_snapshots().await.unwrap();
    assert!(listed.iter().any(|listed| listed.id == id && listed.confirmed));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_that_is_too_large_spares_all_the_same() {
    let mut world = World::new().await;
    world.write("a", &noise(1, 10_000));
    let first = world.save().await;
    let content = world.saved[&first].clone();
    world.write("a", &noise(2, 10_000));
    world.save().await;
    let hold = world.repo.put_hold(vec![first], None).await.unwrap();
    world.forget(first).await;
    world.saved.insert(first, content);
    let large = vec![0; crate::format::signed::SIGNED_MAX + 1];
    world.objects.put(&ObjectName::Hold(hold).key().into(), large.into()).await.unwrap();
    let refused = prune(&world.repo, &NOW).await;
    assert!(matches!(refused, Err(Error::MarkDamaged { .. })), "{refused:?}");
    let listed = world.repo.list_snapshots().await.unwrap();
    assert!(listed.iter().any(|listed| listed.id == first));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_horizon_that_is_listed_and_never_found_is_an_error_at_last() {
    let world = World::new().await;
    world.repo.put_horizon(1).await.unwrap();
    let asked = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let faulty = through(&world, move |op| match op.kind {
        OpKind::Get if op.key.starts_with(layout::HORIZON) => {
            // Without a bound this would never end.
            match count.fetch_add(1, Ordering::SeqCst) {
                0..200 => Fault::Before(Failure::NotFound),
                _ => Fault::None,
            }
        }
        _ => Fault::None,
    });
    assert!(faulty.horizon().await.is_err());
    assert!(asked.load(Ordering::SeqCst) < 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_is_missed_also_when_its_confirmation_went_first() {
    let (world, second, body) = World::unconfirmed().await;
    prune(&world.repo, &NOW).await.unwrap();
    remove::delete(&world.repo, body).await.unwrap();
    let refused = prune(&world.repo, &NOW).await.unwrap_err();
    assert!(matches!(refused, Error::SnapshotVanished { snapshot } if snapshot == second), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_snapshot_lacks_that_was_seen_confirmed_ends_the_collection() {
    let mut world = World::new().await;
    world.write("a", &noise(1, 300_000));
    let only = world.save().await;
    remove::delete(&world.repo, name_of(&world.repo, only).await.1).await.unwrap();
    world.refuses_without_its_largest_pack().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_learns_nothing() {
    let mut world = World::new().await;
    world.write("a", &noise(1, 10_000));
    world.save().await;
    fs::remove_dir_all(world.seen()).unwrap();
    prune(&world.repo, &PruneOptions { dry_run: true, ..NOW }).await.unwrap();
    assert!(!world.seen().exists());
    prune(&world.repo, &NOW).await.unwrap();
    assert_eq!(fs::read_dir(world.seen()).unwrap().count(), 1);
}

/// Only what was confirmed is missed later: anyone may put names, and delete them again.
#[tokio::test(flavor = "multi_thread")]
async fn names_that_nobody_signed_are_not_missed() {
    let mut world = World::new().await;
    world.write("a", &noise(1, 10_000));
    let first = world.save().await;
    let (writer, id) = (world.repo.writer().unwrap().0, SnapshotId::new([0xee; 32]));
    let keys = world.repo.new_run_keys().unwrap();
    let open = world.repo.put_snapshot(5, &crate::format::snapshot::Snapshot::empty(), &keys).await.unwrap();
    let mut names = vec![
        ObjectName::Snapshot(writer, 9_999_999_999, id),
        ObjectName::Confirmation(writer, 9_999_999_999, id),
        ObjectName::Snapshot(writer, 9_999_999_998, first),
        ObjectName::Confirmation(writer, 5, open),
    ];
    for name in &names {
        world.objects.put(&name.key().into(), vec![7; 50].into()).await.unwrap();
    }
    prune(&world.repo, &NOW).await.unwrap();
    names.push(ObjectName::Snapshot(writer, 5, open));
    for name in names {
        remove::delete(&world.repo, name).await.unwrap();
    }
    prune(&world.repo, &NOW).await.unwrap();
    world.check().await;
}

/// One read that went wrong is not believed either.
#[tokio::test(flavor = "multi_thread")]
async fn what_an_unconfirmed_snapshot_lacks_is_looked_for_twice() {
    let mut world = World::new().await;
    world.write("a", &noise(1, 300_000));
    let only = world.save().await;
    remove::delete(&world.repo, name_of(&world.repo, only).await.1).await.unwrap();
    let packs = world.repo.list_packs().await.unwrap();
    for at in 0..3 {
        let count = std::sync::atomic::AtomicUsize::new(0);
        let faulty = through(&world, move |op| match op.kind {
            OpKind::GetRange | OpKind::Get if op.key.starts_with(layout::PACKS) => {
                match count.fetch_add(1, Ordering::SeqCst) == at {
                    true => Fault::Corrupt(100),
                    false => Fault::None,
                }
            }
            _ => Fault::None,
        });
        let options = PruneOptions { max_unused: 100, ..NOW };
        prune(&faulty, &options).await.unwrap();
        assert_eq!(world.repo.list_packs().await.unwrap(), packs, "request {at}");
    }
    world.check().await;
}
