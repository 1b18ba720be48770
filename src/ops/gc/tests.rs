//! Whole collections over a store in memory.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use object_store::ObjectStore;

mod ending;
mod growth;
mod hiding;
mod hostile;
mod listing;
mod poison;
mod reencrypt;
mod refused;
mod registry;

use super::*;
use crate::id::SnapshotId;
use crate::ops::testing::{self, back_up, contents, copy_objects, env, forget, noise, restored, store_over};
use crate::ops::verify::{Depth, verify};
use crate::repo::{Env, Places};
use crate::store::fault::{Fault, FaultStore, Op, OpKind};

/// Removes without any delay, and leaves as many dead bytes alone as a collection usually does.
const NOW: PruneOptions = PruneOptions { young: None, max_unused: 50, ..testing::NOW };

struct World {
    base: testing::World,
    repo: Repository,
    /// What each snapshot must restore to.
    saved: BTreeMap<SnapshotId, BTreeMap<PathBuf, Vec<u8>>>,
}

impl Deref for World {
    type Target = testing::World;

    fn deref(&self) -> &testing::World {
        &self.base
    }
}

impl World {
    async fn new() -> Self {
        let base = testing::World::new();
        let repo = base.repository().await;
        Self { base, repo, saved: BTreeMap::new() }
    }

    /// Two snapshots, the first of which has another content of `a` than the second.
    async fn changed(len: usize) -> (Self, SnapshotId) {
        let mut world = Self::new().await;
        world.write("a", &noise(1, len));
        let first = world.save().await;
        world.write("a", &noise(2, len));
        world.save().await;
        (world, first)
    }

    /// Three snapshots, one of them forgotten.
    async fn one_of_three_forgotten() -> Self {
        let mut world = Self::new().await;
        for n in 0..3 {
            world.write("a", &noise(n, 10_000));
            world.save().await;
        }
        let first = *world.saved.keys().next().unwrap();
        world.forget(first).await;
        world
    }

    /// Two snapshots, of which the second has lost its confirmation; with the name of its body.
    async fn unconfirmed() -> (Self, SnapshotId, ObjectName) {
        let mut world = Self::new().await;
        world.write("a", &noise(1, 10_000));
        world.save().await;
        let second = world.save().await;
        let (body, confirmation) = name_of(&world.repo, second).await;
        remove::delete(&world.repo, confirmation).await.unwrap();
        (world, second, body)
    }

    /// Where this machine remembers what it has seen confirmed.
    fn seen(&self) -> PathBuf {
        self.dir.path().join("state").join(self.repo.id().to_string()).join("seen")
    }

    /// A collection must not go on once the largest pack is lost.
    async fn refuses_without_its_largest_pack(&self) {
        let packs = self.repo.store().list(layout::PACKS).await.unwrap();
        let largest = packs.iter().max_by_key(|object| object.size).unwrap();
        self.repo.store().delete(&largest.key).await.unwrap();
        let refused = prune(&self.repo, &NOW).await;
        assert!(matches!(refused, Err(Error::ChunkLost { .. })), "{refused:?}");
    }

    async fn save(&mut self) -> SnapshotId {
        let id = back_up(&self.repo, &self.source()).await;
        self.saved.insert(id, contents(&self.source()));
        id
    }

    async fn forget(&mut self, id: SnapshotId) {
        forget(&self.repo, id).await;
        self.saved.remove(&id);
    }

    /// Every snapshot that was not forgotten restores, and nothing is wrong with the repository.
    async fn check(&self) {
        let report = verify(&self.repo, Depth::Data).await.unwrap();
        assert!(!report.has_damage(), "{:?}", report.findings);
        for (id, content) in &self.saved {
            assert_eq!(restored(&self.repo, *id, &self.source()).await, *content);
        }
    }

    async fn pack_bytes(&self) -> u64 {
        let packs = self.repo.store().list(layout::PACKS).await.unwrap();
        packs.iter().map(|object| object.size).sum()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_forgotten_snapshots_needed_is_given_back_and_the_rest_restores() {
    let mut world = World::new().await;
    for n in 0..40 {
        world.write(&format!("f{n}"), &noise(n, 50_000));
    }
    let first = world.save().await;
    for n in 0..35 {
        world.write(&format!("f{n}"), &noise(1000 + n, 50_000));
    }
    world.save().await;
    let before = world.pack_bytes().await;
    world.forget(first).await;
    let report = prune(&world.repo, &NOW).await.unwrap();
    assert_eq!((report.removed, report.left.len(), report.condemned), (1, 0, 0));
    assert!(report.moved_bytes >= 250_000, "five files of the first pack live on: {report:?}");
    assert!(report.deleted >= 2, "{report:?}");
    let after = world.pack_bytes().await;
    assert!(after < before - 1_500_000, "{before} -> {after}");
    world.check().await;
    let again = prune(&world.repo, &NOW).await.unwrap();
    assert_eq!((again.deleted, again.written, again.removed), (0, 0, 0), "{again:?}");
    assert_eq!(world.pack_bytes().await, after);
    world.save().await;
    world.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn within_the_windows_nothing_goes_and_it_can_be_taken_back() {
    let (mut world, first) = World::changed(300_000).await;
    let content = world.saved[&first].clone();
    world.forget(first).await;
    let window = PruneOptions { undo_window: Duration::from_secs(3600), ..NOW };
    let report = prune(&world.repo, &window).await.unwrap();
    assert_eq!((report.removed, report.waiting, report.deleted), (0, 1, 0));
    let marks = world.repo.read_marks().await.unwrap();
    world.repo.put_undo(vec![marks.tombs[&first].hash]).await.unwrap();
    world.saved.insert(first, content);
    let report = prune(&world.repo, &NOW).await.unwrap();
    assert_eq!((report.removed, report.waiting), (0, 0));
    world.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_condemned_pack_waits_for_its_time_and_a_later_run_finishes() {
    let (mut world, first) = World::changed(300_000).await;
    world.forget(first).await;
    let slow = PruneOptions { grace: Duration::from_secs(3600), young: Some(Duration::ZERO), ..NOW };
    let report = prune(&world.repo, &slow).await.unwrap();
    assert_eq!((report.removed, report.deleted), (1, 0));
    assert!(report.condemned >= 1 && report.due.is_some(), "{report:?}");
    world.check().await;
    // A writer that comes now depends on nothing that is condemned.
    world.write("b", &noise(1, 300_000));
    world.save().await;
    let report = prune(&world.repo, &NOW).await.unwrap();
    assert!(report.deleted >= 1 && report.condemned == 0, "{report:?}");
    assert!(world.repo.condemned(&mut Vec::new()).await.unwrap().is_empty());
    assert_eq!(world.repo.horizon().await.unwrap(), 1);
    world.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_held_snapshot_is_not_removed() {
    let (mut world, first) = World::changed(100_000).await;
    let content = world.saved[&first].clone();
    world.repo.put_hold(vec![first], None).await.unwrap();
    world.forget(first).await;
    world.saved.insert(first, content);
    let report = prune(&world.repo, &NOW).await.unwrap();
    assert_eq!((report.removed, report.spared), (0, 1));
    world.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_vanished_ends_the_collection_until_someone_says_that_it_may() {
    let (mut world, first) = World::changed(100_000).await;
    prune(&world.repo, &NOW).await.unwrap();
    for object in world.repo.store().list(layout::SNAPSHOTS).await.unwrap() {
        if object.key.as_str().contains(&first.to_string()) {
            world.repo.store().delete(&object.key).await.unwrap();
        }
    }
    let refused = prune(&world.repo, &NOW).await.unwrap_err();
    assert!(matches!(refused, Error::SnapshotVanished { snapshot } if snapshot == first), "{refused}");
    prune(&world.repo, &PruneOptions { accept_missing: true, ..NOW }).await.unwrap();
    prune(&world.repo, &NOW).await.unwrap();
    world.saved.remove(&first);
    world.check().await;
}

async fn name_of(repo: &Repository, id: SnapshotId) -> (ObjectName, ObjectName) {
    let listed = repo.list_snapshots().await.unwrap().into_iter().find(|listed| listed.id == id).unwrap();
    let (writer, sequence) = (listed.writer, listed.sequence);
    (ObjectName::Snapshot(writer, sequence, id), ObjectName::Confirmation(writer, sequence, id))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_removal_names_is_not_missing() {
    let mut world = World::new().await;
    world.write("a", &noise(1, 10_000));
    let first = world.save().await;
    world.save().await;
    world.forget(first).await;
    // As far as a removal came that was cut short: the confirmation is alone.
    remove::delete(&world.repo, name_of(&world.repo, first).await.0).await.unwrap();
    let findings = || async { verify(&world.repo, Depth::Structure).await.unwrap().findings };
    assert!(!findings().await.is_empty(), "nobody said that it may be gone");
    world.repo.put_removal(vec![first]).await.unwrap();
    assert!(findings().await.is_empty());
    prune(&world.repo, &NOW).await.unwrap();
    assert!(findings().await.is_empty(), "the second follows one that was removed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_was_never_confirmed_may_vanish() {
    let (world, second, body) = World::unconfirmed().await;
    // Nobody has ever seen it confirmed.
    fs::remove_file(world.seen().join(second.to_string())).unwrap();
    prune(&world.repo, &NOW).await.unwrap();
    // Its writer died before its name was durable, and the power was cut.
    remove::delete(&world.repo, body).await.unwrap();
    prune(&world.repo, &NOW).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn many_snapshots_at_once_need_a_yes() {
    let world = World::one_of_three_forgotten().await;
    let asked = prune(&world.repo, &PruneOptions { yes: false, ..NOW }).await.unwrap_err();
    assert!(matches!(asked, Error::ManyRemoved { removed: 1, all: 3 }), "{asked}");
    world.check().await;
}

/// Content that nothing needs is gone after a collection also where little of a segment is dead: left in, it would be moved with
/// the rest by each collection anew.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_collected_once_is_not_moved_again() {
    let mut world = World::new().await;
    for n in 0..10 {
        world.write(&format!("f{n}"), &noise(n, 30_000));
    }
    let first = world.save().await;
    world.write("f0", &noise(100, 30_000));
    world.save().await;
    world.forget(first).await;
    let report = prune(&world.repo, &NOW).await.unwrap();
    assert!(report.moved_bytes > 0 && report.deleted > 0, "{report:?}");
    let before = world.pack_bytes().await;
    let again = prune(&world.repo, &NOW).await.unwrap();
    assert!(again.plan.is_empty() && again.plan.unused_bytes == 0, "{again:?}");
    assert_eq!(world.pack_bytes().await, before);
    world.check().await;
}

/// A collection that is killed at any of its requests loses nothing, and the next one finishes it.
#[tokio::test(flavor = "multi_thread")]
async fn a_collection_may_be_killed_at_every_request() {
    let mut world = World::new().await;
    for n in 0..12 {
        world.write(&format!("f{n}"), &noise(n, 30_000));
    }
    let first = world.save().await;
    for n in 0..10 {
        world.write(&format!("f{n}"), &noise(100 + n, 30_000));
    }
    world.save().await;
    world.forget(first).await;
    for stop in (0..).step_by(3) {
        let objects: Arc<dyn ObjectStore> = copy_objects(&world.objects).await;
        let struck = Arc::new(AtomicBool::new(false));
        let fault = {
            let struck = Arc::clone(&struck);
            move |op: &Op| {
                let now = op.number == stop;
                struck.fetch_or(now, Ordering::SeqCst);
                match (now, op.kind, stop % 2) {
                    (false, ..) => Fault::None,
                    (true, OpKind::Put | OpKind::Delete, 0) => Fault::StopAfter,
                    (true, ..) => Fault::Stop,
                }
            }
        };
        let faulty = FaultStore::new(Arc::clone(&objects), fault);
        let env = world.env_at(&format!("state-{stop}"));
        let killed = world.repo.with_store(store_over(Arc::new(faulty))).with_env(env.clone());
        let ended = prune(&killed, &NOW).await;
        assert_eq!(ended.is_err(), struck.load(Ordering::SeqCst), "request {stop}: {ended:?}");
        let repo = world.repo.with_store(store_over(objects)).with_env(env);
        let report = verify(&repo, Depth::Data).await.unwrap();
        assert!(!report.has_damage(), "after request {stop}: {:?}", report.findings);
        let report = prune(&repo, &NOW).await.unwrap();
        assert_eq!((report.condemned, report.left.len()), (0, 0), "after request {stop}");
        let report = verify(&repo, Depth::Data).await.unwrap();
        assert!(!report.has_damage(), "at the end, {stop}: {:?}", report.findings);
        let listed = repo.list_snapshots().await.unwrap();
        assert_eq!(listed.len(), 1, "the forgotten one is gone");
        if ended.is_ok() {
            return;
        }
    }
}
