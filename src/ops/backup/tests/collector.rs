//! Backups while a collector is at work: what is acknowledged can be restored, whenever the collector strikes.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::*;
use crate::clock::{Clock, SystemClock, Timestamp};
use crate::crypto::context;
use crate::format::layout;
use crate::format::snapshot::SnapshotObject;
use crate::ops::backup::state::{StateFile, StateReader};
use crate::ops::gc::{PruneOptions, prune};
use crate::ops::testing::{NOW, contents, copy_objects, forget, restored, store_over};
use crate::ops::verify::{Depth, verify};
use crate::random::{Random, RandomError};

/// Condemns, and leaves the rest to a later collection.
const CONDEMN: PruneOptions = PruneOptions { grace: Duration::from_secs(24 * 3600), ..NOW };

/// A clock that goes two minutes ahead whenever it is looked at.
struct Leaps(SystemClock, AtomicU64);

impl Clock for Leaps {
    fn now(&self) -> Timestamp {
        self.0.now()
    }

    fn monotonic(&self) -> Duration {
        Duration::from_secs(120 * self.1.fetch_add(1, Ordering::SeqCst))
    }
}

/// Ends once this collection has; on a thread of its own, because a request to the store waits for it.
fn collect(repo: &Repository, options: PruneOptions) {
    let run = || tokio::runtime::Runtime::new().unwrap().block_on(prune(repo, &options)).unwrap();
    std::thread::scope(|scope| drop(scope.spawn(run).join().unwrap()));
}

/// The repository as another machine has it.
fn elsewhere(world: &World, repo: &Repository) -> Repository {
    repo.with_env(world.env_at("elsewhere"))
}

fn copy_dir(from: &Path, to: &Path) {
    for entry in ignore::WalkBuilder::new(from).standard_filters(false).build().map(Result::unwrap) {
        let place = to.join(entry.path().strip_prefix(from).unwrap());
        if entry.file_type().is_some_and(|kind| kind.is_dir()) {
            fs::create_dir_all(place).unwrap();
        } else {
            fs::copy(entry.path(), place).unwrap();
        }
    }
}

impl World {
    /// One pack holds a file that lives on, and one that only a forgotten snapshot needs; that one is back under another
    /// name since the last run.
    async fn half_dead(&self) -> Repository {
        self.write("keep", &noise(1, 400_000));
        self.write("gone", &noise(2, 400_000));
        let repo = self.repository().await;
        let first = self.save(&repo).await;
        fs::remove_file(self.source().join("gone")).unwrap();
        self.save(&repo).await;
        forget(&repo, first.snapshot.unwrap()).await;
        self.write("back", &noise(2, 400_000));
        repo
    }

    pub(super) fn through(&self, plan: impl Fn(&Op) -> Fault + Send + Sync + 'static) -> crate::store::Store {
        store_over(Arc::new(FaultStore::new(Arc::clone(&self.objects) as Arc<dyn ObjectStore>, plan)))
    }

    fn stream(&self, script: &str) -> BackupOptions {
        let source = BackupSource::Command(["sh", "-c", script].map(Into::into).to_vec());
        BackupOptions { stored_as: Some("/stream".into()), ..BackupOptions::new(source) }
    }

    fn leaping(&self) -> Env {
        Env { clock: Arc::new(Leaps(SystemClock::new(), AtomicU64::new(0))), ..self.env() }
    }
}

/// A collection without any delay, as a whole, before each single request of a backup in turn.
async fn struck_at_every_request(streams: bool) {
    let world = World::new();
    let prepared = world.half_dead().await;
    let expected = if streams { noise(2, 400_000) } else { Vec::new() };
    let script = format!("cat {}", world.source().join("back").display());
    let (mut confirmed, mut given_up) = (0, 0);
    for stop in 0.. {
        let objects = copy_objects(&world.objects).await;
        let inner = Arc::clone(&objects) as Arc<dyn ObjectStore>;
        let state = world.dir.path().join(format!("state-{stop}"));
        copy_dir(&world.env().places.state, &state);
        let mut env = world.leaping();
        env.places.state = state;
        let plain = prepared.with_store(store_over(Arc::clone(&inner))).with_env(env.clone());
        let other = elsewhere(&world, &plain);
        let struck = Arc::new(AtomicBool::new(false));
        let strike = {
            let struck = Arc::clone(&struck);
            move |op: &Op| {
                if op.number == stop && !struck.swap(true, Ordering::SeqCst) {
                    collect(&other, NOW);
                }
                Fault::None
            }
        };
        let repo = plain.with_store(store_over(Arc::new(FaultStore::new(inner, strike))));
        let options = if streams { world.stream(&script) } else { world.options() };
        let ended = backup(&repo, options).await;
        let _ = fs::remove_dir_all(world.dir.path().join("elsewhere"));
        match ended {
            Ok(saved) => {
                confirmed += 1;
                let id = saved.snapshot.unwrap();
                let listed = plain.list_snapshots().await.unwrap();
                assert!(listed.iter().any(|l| l.id == id && l.confirmed), "request {stop}");
                // Whatever is condemned by now goes, and what was acknowledged stays.
                collect(&plain, NOW);
                let report = verify(&plain, Depth::Data).await.unwrap();
                assert!(!report.has_damage(), "request {stop}: {:?}", report.findings);
                if streams {
                    let found = restored(&plain, id, Path::new("/stream")).await;
                    assert!(found.into_values().eq([expected.clone()]), "request {stop}");
                } else {
                    let found = restored(&plain, id, &world.source()).await;
                    let names =
                        found.into_iter().map(|(path, bytes)| (path.file_name().unwrap().into(), bytes));
                    assert_eq!(names.collect::<BTreeMap<PathBuf, _>>(), contents(&world.source()), "{stop}");
                }
            }
            Err(error) => {
                given_up += 1;
                assert!(streams && error.class() == Class::Unconfirmed, "request {stop}: {error}");
                collect(&plain, NOW);
                assert!(!verify(&plain, Depth::Data).await.unwrap().has_damage(), "request {stop}");
            }
        }
        if !struck.load(Ordering::SeqCst) {
            assert!(stop > 12, "{stop} requests");
            break;
        }
    }
    assert!(confirmed > given_up && (given_up > 0) == streams, "{confirmed} {given_up}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_of_files_survives_a_collection_before_each_of_its_requests() {
    struck_at_every_request(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_survives_a_collection_before_each_of_its_requests_or_says_that_it_did_not() {
    struck_at_every_request(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn content_that_was_moved_is_looked_up_and_no_source_is_read() {
    let world = World::new();
    let first = world.half_dead().await;
    fs::remove_file(world.source().join("back")).unwrap();
    let before = first.list_snapshots().await.unwrap().len();
    let (other, stored) = (elsewhere(&world, &first), AtomicBool::new(false));
    let repo = first.with_store(world.through(move |op: &Op| {
        // Before the check: a moment earlier the pages of this run would have been nobody's.
        if op.kind == OpKind::Put && op.key.starts_with("snapshots/") {
            stored.store(true, Ordering::SeqCst);
        } else if op.key.starts_with("gc/condemned") && stored.swap(false, Ordering::SeqCst) {
            collect(&other, NOW);
        }
        Fault::None
    }));
    let packs = first.list_packs().await.unwrap();
    let saved = world.save(&repo).await;
    assert!(!packs.is_subset(&first.list_packs().await.unwrap()), "the collection moved something");
    assert_eq!((saved.bytes_read, saved.unchanged_files), (0, 1));
    let snapshots = repo.list_snapshots().await.unwrap();
    assert_eq!(snapshots.len(), before, "one was removed, one was made");
    assert!(snapshots.iter().all(|snapshot| snapshot.confirmed));
    assert!(!verify(&first, Depth::Data).await.unwrap().has_damage());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pack_that_goes_while_its_content_is_looked_up_is_looked_up_again() {
    let world = World::new();
    let first = world.half_dead().await;
    let (other, stage) = (elsewhere(&world, &first), AtomicU64::new(0));
    let repo = first.with_env(world.leaping()).with_store(world.through(move |op: &Op| {
        let strikes = match stage.load(Ordering::SeqCst) {
            // Nothing reaches the packs of this run yet.
            0 => (op.kind == OpKind::Put && op.key.starts_with("snapshots/")).then_some(CONDEMN),
            // They were listed a moment ago.
            1 => (op.kind == OpKind::GetRange && op.key.starts_with("packs/")).then_some(NOW),
            _ => None,
        };
        if let Some(options) = strikes {
            stage.fetch_add(1, Ordering::SeqCst);
            collect(&other, options);
        }
        Fault::None
    }));
    let script = format!("cat {}", world.source().join("back").display());
    let saved = backup(&repo, world.stream(&script)).await.unwrap();
    let found = restored(&first, saved.snapshot.unwrap(), Path::new("/stream")).await;
    assert!(found.into_values().eq([noise(2, 400_000)]));
    assert!(!verify(&first, Depth::Data).await.unwrap().has_damage());
    // Both collections struck where they were meant to.
    assert_eq!(repo.load_index().await.unwrap().horizon, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_waits_until_a_collector_has_moved_what_it_needs() {
    let world = World::new();
    let first = world.half_dead().await;
    let (other, stage) = (elsewhere(&world, &first), AtomicU64::new(0));
    let repo = first.with_env(world.leaping()).with_store(world.through(move |op: &Op| {
        let snapshot = op.kind == OpKind::Put && op.key.starts_with("snapshots/");
        let polls = op.kind == OpKind::List && op.key.starts_with("tombs");
        let at = stage.load(Ordering::SeqCst);
        if snapshot && at == 0 {
            stage.store(1, Ordering::SeqCst);
            collect(&other, CONDEMN);
        } else if polls && (1..5).contains(&at) && stage.fetch_add(1, Ordering::SeqCst) == 4 {
            collect(&other, NOW);
        }
        Fault::None
    }));
    let script = format!("cat {}", world.source().join("back").display());
    let saved = backup(&repo, world.stream(&script)).await.unwrap();
    assert!(saved.new_bytes < 10_000, "{} bytes: everything was there", saved.new_bytes);
    assert!(first.list_snapshots().await.unwrap().iter().all(|snapshot| snapshot.confirmed));
    let found = restored(&first, saved.snapshot.unwrap(), Path::new("/stream")).await;
    assert!(found.into_values().eq([noise(2, 400_000)]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_is_forgotten_or_gone_before_it_is_confirmed_is_not_acknowledged() {
    for delete in [false, true] {
        let world = World::new();
        world.write("file", &noise(1, 100_000));
        let first = world.repository().await;
        let (other, objects) = (elsewhere(&world, &first), Arc::clone(&world.objects));
        let stored = AtomicBool::new(false);
        let repo = first.with_store(world.through(move |op: &Op| {
            if op.kind == OpKind::Put && op.key.starts_with("snapshots/") {
                stored.store(true, Ordering::SeqCst);
            } else if op.key.starts_with("gc/condemned") && stored.swap(false, Ordering::SeqCst) {
                let run = || {
                    tokio::runtime::Runtime::new().unwrap().block_on(async {
                        let listed = other.list_snapshots().await.unwrap()[0];
                        if delete {
                            let name = ObjectName::Snapshot(listed.writer, listed.sequence, listed.id);
                            objects.delete(&name.key().as_str().into()).await.unwrap();
                        } else {
                            forget(&other, listed.id).await;
                        }
                    });
                };
                std::thread::scope(|scope| scope.spawn(run).join().unwrap());
            }
            Fault::None
        }));
        let error = backup(&repo, world.options()).await.unwrap_err();
        assert_eq!(error.class(), Class::Unconfirmed, "{error}");
        assert!(
            !first.store().list("snapshots/").await.unwrap().iter().any(|o| o.key.as_str().ends_with(".ok"))
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_condemned_while_a_run_goes_on_is_stored_again_by_the_same_run() {
    let world = World::new();
    world.write("known", &noise(1, 3_000_000));
    let first = world.repository().await;
    world.save(&first).await;
    let before: Vec<_> = first.list_packs().await.unwrap().into_iter().collect();
    let (key, bytes) = condemnation(&first, before.clone());
    world.write("new", &noise(2, 40_000_000));
    let (objects, struck) = (Arc::clone(&world.objects), AtomicBool::new(false));
    let repo = first.with_env(world.leaping()).with_store(world.through(move |op: &Op| {
        if op.kind == OpKind::Put && op.key.starts_with("packs/") && !struck.swap(true, Ordering::SeqCst) {
            let place = key.as_str().into();
            let put = objects.put(&place, PutPayload::from(bytes.clone()));
            put.now_or_never().expect("memory answers at once").unwrap();
        }
        Fault::None
    }));
    let source = world.source();
    let (new, known) = (source.join("new"), source.join("known"));
    let script = format!("cat {}; sleep 4; cat {}", new.display(), known.display());
    let saved = backup(&repo, world.stream(&script)).await.unwrap();
    assert!(saved.new_bytes > 42_500_000, "{}", saved.new_bytes);
    for pack in before {
        first.store().delete(&crate::store::Key::new(ObjectName::Pack(pack).key()).unwrap()).await.unwrap();
    }
    let found = restored(&first, saved.snapshot.unwrap(), Path::new("/stream")).await;
    assert!(found.into_values().eq([[noise(2, 40_000_000), noise(1, 3_000_000)].concat()]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collection_on_this_machine_misses_a_snapshot_that_was_confirmed_here() {
    let world = World::new();
    world.write("file", &noise(1, 100_000));
    let repo = world.repository().await;
    let first = world.save(&repo).await.snapshot.unwrap();
    for object in repo.store().list(layout::SNAPSHOTS).await.unwrap() {
        repo.store().delete(&object.key).await.unwrap();
    }
    let refused = prune(&repo, &NOW).await.unwrap_err();
    assert!(matches!(refused, Error::SnapshotVanished { snapshot } if snapshot == first), "{refused}");
    prune(&elsewhere(&world, &repo), &NOW).await.unwrap();
}

fn last_packs(world: &World, repo: &Repository) -> std::collections::HashSet<PackId> {
    let key = repo.dedup_key(context::LOCAL_STATE).unwrap();
    let files = ignore::WalkBuilder::new(world.env().places.state)
        .standard_filters(false)
        .build()
        .map(Result::unwrap);
    let path = files.map(ignore::DirEntry::into_path).find(|path| path.ends_with("state") && path.is_file());
    let place = StateFile { path: &path.unwrap(), aside: None, key: &key, repository: repo.id() };
    StateReader::open(&place).unwrap().trailer().packs.iter().copied().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_collection_an_unchanged_backup_reads_nothing_and_forgets_dead_packs() {
    let world = World::new();
    let repo = world.half_dead().await;
    fs::remove_file(world.source().join("back")).unwrap();
    for n in 0..3 {
        world.write("churn", &noise(10 + n, 100_000));
        world.save(&repo).await;
    }
    let listed = repo.list_snapshots().await.unwrap();
    for snapshot in listed.iter().take(listed.len() - 1) {
        forget(&repo, snapshot.id).await;
    }
    let before = last_packs(&world, &repo);
    assert_eq!(before, repo.list_packs().await.unwrap(), "trusted runs keep what they were told");
    collect(&elsewhere(&world, &repo), NOW);
    let packs = repo.list_packs().await.unwrap();
    assert!(packs.is_disjoint(&before) || packs.len() < before.len(), "{} of {}", packs.len(), before.len());
    for run in 0..2 {
        let saved = world.save(&repo).await;
        assert_eq!((saved.bytes_read, saved.unchanged_files, saved.changed_files), (0, 2, 0), "run {run}");
        assert!(saved.new_bytes < 5000, "run {run}: {}", saved.new_bytes);
        assert!(last_packs(&world, &repo).is_subset(&repo.list_packs().await.unwrap()));
        assert!(!verify(&repo, Depth::Data).await.unwrap().has_damage());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_fading_is_read_and_stored_again() {
    let world = World::new();
    world.write("file", &noise(1, 300_000));
    let repo = world.repository().await;
    world.save(&repo).await;
    let (_, signing) = repo.writer().unwrap();
    for listed in repo.list_index().await.unwrap() {
        let mut tables = repo.fetch_index(listed.name()).await.unwrap();
        tables.segments.iter_mut().for_each(|segment| segment.flags |= 1);
        repo.put_index(&tables, &signing).await.unwrap();
        world.objects.delete(&listed.name().key().as_str().into()).await.unwrap();
    }
    let again = world.save(&repo).await;
    assert!(again.new_bytes >= 300_000, "{}", again.new_bytes);
    assert_eq!(world.save(&repo).await.bytes_read, 0, "the new copy is not fading");
}

/// What the generator of a machine does that is set back to the same state again and again.
#[derive(Debug)]
struct Repeats;

impl Random for Repeats {
    fn fill(&self, out: &mut [u8]) -> Result<(), RandomError> {
        out.fill(7);
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn randomness_that_repeats_gives_no_two_objects_one_salt() {
    let world = World::new();
    let first = world.repository().await;
    let repo = first.with_env(Env { random: Arc::new(Repeats), ..world.env() });
    for n in 0..3 {
        world.write("file", &noise(n, 100_000));
        world.save(&repo).await;
    }
    let mut salts = Vec::new();
    for object in repo.store().list("").await.unwrap() {
        let bytes = repo.store().get(&object.key, 64 << 20).await.unwrap();
        match ObjectName::parse(object.key.as_str()) {
            Some(ObjectName::Pack(pack)) => {
                salts.push(repo.read_directory(pack, object.size).await.unwrap().0.salt);
            }
            Some(ObjectName::Index(..)) => salts.push(bytes[32..64].try_into().unwrap()),
            Some(ObjectName::Snapshot(..)) => {
                salts.push(SnapshotObject::decode(&bytes, &repo.id()).unwrap().sealed.salt);
            }
            _ => {}
        }
    }
    let count = salts.len();
    salts.sort_unstable();
    salts.dedup();
    assert!(salts.len() == count && count >= 12, "{} of {count}", salts.len());
}
