//! What the next snapshot follows, where anyone may put names beside those of the writer.

use super::*;
use crate::format::snapshot::Snapshot;
use crate::id::SnapshotId;
use crate::ops::testing::store_over;
use crate::repo::Listed;
use crate::store::fault::Failure;

async fn listed(repo: &Repository, id: SnapshotId) -> Listed {
    let listed = repo.list_snapshots().await.unwrap().into_iter().find(|listed| listed.id == id);
    listed.expect("a snapshot that no listing shows is lost")
}

/// A machine that has seen nothing yet.
fn elsewhere(world: &World, repo: &Repository) -> Repository {
    let mut env = world.env();
    env.places.state = world.dir.path().join("elsewhere");
    repo.with_env(env)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_garbage_name_is_neither_followed_nor_counted() {
    let world = World::new();
    let repo = world.repository().await;
    let (writer, _) = repo.writer().unwrap();
    let garbage = SnapshotId::new([0xee; 32]);
    world.put(ObjectName::Snapshot(writer, 9_999_999_999, garbage).key(), vec![7; 100]);
    let first = world.save(&repo).await.snapshot.unwrap();
    let second = world.save(&elsewhere(&world, &repo)).await.snapshot.unwrap();
    for (id, sequence, parents) in [(first, 0, vec![]), (second, 1, vec![first])] {
        let listed = listed(&repo, id).await;
        assert_eq!((listed.sequence, listed.confirmed), (sequence, true));
        assert_eq!(repo.read_snapshot(listed).await.unwrap().snapshot.parents, parents);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_under_another_number_is_not_followed() {
    let world = World::new();
    let repo = world.repository().await;
    let first = world.save(&repo).await.snapshot.unwrap();
    let name = ObjectName::Snapshot(repo.writer().unwrap().0, 0, first).key();
    let bytes = world.objects.get(&name.as_str().into()).await.unwrap().bytes().await.unwrap();
    world.put(ObjectName::Snapshot(repo.writer().unwrap().0, 77, first).key(), bytes.to_vec());
    for repo in [&repo, &elsewhere(&world, &repo)] {
        let heads = repo.heads().await.unwrap();
        assert_eq!((heads.next, heads.parents), (1, vec![first]));
    }
}

/// One object that is archived, or rotten, or of another owner, stops no backup; its number is not given again.
#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_the_store_lists_and_does_not_give_costs_its_number() {
    for failure in [Failure::Denied, Failure::NotFound] {
        let world = World::new();
        let repo = world.repository().await;
        let first = world.save(&repo).await.snapshot.unwrap();
        let last = listed(&repo, world.save(&repo).await.snapshot.unwrap()).await.name().key();
        let store = world.through(move |op: &Op| {
            let hides = op.kind == OpKind::Get && op.key == last;
            if hides { Fault::Before(failure) } else { Fault::None }
        });
        let heads = elsewhere(&world, &repo).with_store(store).heads().await.unwrap();
        assert_eq!((heads.next, heads.parents), (2, vec![first]), "{failure:?}");
    }
}

/// Names without end cost neither the backup nor much time; on a new machine the number may be given again, which does no harm.
#[tokio::test(flavor = "multi_thread")]
async fn many_garbage_names_stop_no_backup() {
    let world = World::new();
    let repo = world.repository().await;
    let (writer, _) = repo.writer().unwrap();
    let first = world.save(&repo).await.snapshot.unwrap();
    for n in 0..16_400_u32 {
        let mut id = [0xee; 32];
        id[..4].copy_from_slice(&n.to_le_bytes());
        world.put(ObjectName::Snapshot(writer, 50, SnapshotId::new(id)).key(), vec![7; 10]);
    }
    let counting = FaultStore::recording(Arc::clone(&world.objects) as Arc<dyn ObjectStore>);
    let counted = repo.with_store(store_over(Arc::new(counting.clone())));
    let second = world.save(&counted).await.snapshot.unwrap();
    assert!(counting.count(OpKind::Get) < 200, "{}", counting.count(OpKind::Get));
    let second = listed(&repo, second).await;
    assert_eq!((second.sequence, second.confirmed), (1, true));
    assert_eq!(repo.read_snapshot(second).await.unwrap().snapshot.parents, [first]);
    let third = world.save(&elsewhere(&world, &repo)).await.snapshot.unwrap();
    assert!(listed(&repo, third).await.confirmed);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_confirmed_the_last_snapshot_need_not_read_it() {
    let world = World::new();
    let repo = world.repository().await;
    let first = world.save(&repo).await.snapshot.unwrap();
    let counting = FaultStore::recording(Arc::clone(&world.objects) as Arc<dyn ObjectStore>);
    let counted = repo.with_store(store_over(Arc::new(counting.clone())));
    assert_eq!(counted.heads().await.unwrap().parents, [first]);
    assert_eq!(counting.count(OpKind::Get), 0);
    assert_eq!(elsewhere(&world, &counted).heads().await.unwrap().parents, [first]);
    assert_eq!(counting.count(OpKind::Get), 1);
}

/// A number with more digits than a name has would be put where no listing finds it.
#[tokio::test]
async fn no_object_is_put_under_a_number_that_no_name_has() {
    let world = World::new();
    let repo = world.repository().await;
    let keys = repo.new_run_keys().unwrap();
    let before = repo.store().list("").await.unwrap().len();
    let most = 9_999_999_999;
    assert!(repo.put_snapshot(most + 1, &Snapshot::empty(), &keys).await.is_err());
    assert!(repo.confirm_snapshot(most + 1, SnapshotId::new([1; 32])).await.is_err());
    assert!(repo.put_horizon(most + 1).await.is_err());
    assert_eq!(repo.store().list("").await.unwrap().len(), before);
    repo.put_horizon(most).await.unwrap();
    assert_eq!(repo.horizon().await.unwrap(), most);
}
