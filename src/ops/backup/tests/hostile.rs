//! Sources, options and accidents that a run must survive, or refuse, without leaving what nobody can read.

use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

use rustix::fs::{XattrFlags, setxattr};

use super::*;
use crate::crypto::keyfile;
use crate::crypto::sign::SigningKey;
use crate::crypto::slot::Unlock;
use crate::format::config::{Authority, Standing, WriterEntry};
use crate::format::node::{Node, XATTRS_MAX};
use crate::id::SnapshotId;
use crate::ops::init::{InitOptions, init};
use crate::ops::testing::store_over;
use crate::ops::tree::{Found, Lookup};
use crate::random::{Random, RandomError, SystemRandom};
use crate::repo::RepoError;
use crate::store::fault::Failure;

async fn snapshot(repo: &Repository, id: SnapshotId) -> crate::repo::StoredSnapshot {
    let listed = repo.list_snapshots().await.unwrap().into_iter().find(|listed| listed.id == id);
    repo.read_snapshot(listed.unwrap()).await.unwrap()
}

pub(super) async fn node(repo: &Repository, id: SnapshotId, path: &Path) -> Node {
    let root = snapshot(repo, id).await.snapshot.root;
    let lookup = Lookup::open(repo).await.unwrap();
    match lookup.reader().unwrap().find(root, path.as_os_str().as_bytes()).await.unwrap() {
        Some(Found::Node(node)) => *node,
        other => panic!("{other:?} stands at {}", path.display()),
    }
}

/// A directory on a file system in memory, which takes attributes without end; none on a machine without it.
fn in_memory() -> Option<tempfile::TempDir> {
    let dir = tempfile::tempdir_in("/dev/shm").ok()?;
    setxattr(dir.path(), "user.probe", b"", XattrFlags::empty()).ok()?;
    Some(dir)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_description_that_could_not_be_read_back_is_refused_at_once() {
    let world = World::new();
    world.write("file", b"content");
    let repo = world.repository().await;
    let mut paths = vec![world.source()];
    paths.extend((0..800).map(|n| PathBuf::from(format!("/nowhere/{n:0100}"))));
    let many = || BackupOptions { source: BackupSource::Paths(paths.clone()), ..world.options() };
    let refused = backup(&repo, many()).await.unwrap_err();
    assert_eq!(refused.class(), Class::Usage, "{refused}");
    let named = backup(&repo, BackupOptions { job: Some("many".into()), ..many() }).await.unwrap();
    assert_eq!(snapshot(&repo, named.snapshot.unwrap()).await.snapshot.paths.len(), 801);

    let tags = vec!["x".repeat(70_000)];
    let refused = backup(&repo, BackupOptions { tags, ..world.options() }).await.unwrap_err();
    assert_eq!(refused.class(), Class::Usage, "{refused}");
    let stored_as = Some(PathBuf::from(format!("/{}", "x".repeat(5000))));
    let refused = backup(&repo, BackupOptions { stored_as, ..world.options() }).await.unwrap_err();
    assert_eq!(refused.class(), Class::Usage, "{refused}");
    assert_eq!(repo.list_snapshots().await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_could_not_be_read_back_is_never_stored() {
    let world = World::new();
    let repo = world.repository().await;
    let keys = repo.new_run_keys().unwrap();
    let empty = crate::format::snapshot::Snapshot::empty;
    let long = crate::format::snapshot::Snapshot { job: vec![b'x'; 70_000], ..empty() };
    assert!(repo.put_snapshot(0, &long, &keys).await.is_err());
    let large = crate::format::snapshot::Snapshot { paths: vec![vec![b'x'; 60_000]; 100], ..empty() };
    assert!(repo.put_snapshot(0, &large, &keys).await.is_err());
    assert!(repo.list_snapshots().await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn attributes_beyond_what_a_node_holds_are_reported_each_time_and_the_entry_stays_readable() {
    let Some(source) = in_memory() else { return };
    let world = World::new();
    let repo = world.repository().await;
    fs::create_dir(source.path().join("dir")).unwrap();
    fs::write(source.path().join("file"), b"content").unwrap();
    for n in 0..5000 {
        for name in ["dir", "file"] {
            let flags = XattrFlags::empty();
            setxattr(source.path().join(name), format!("user.{n:04}"), b"value", flags).unwrap();
        }
    }
    for run in 0..2 {
        let saved = backup(&repo, options(source.path())).await.unwrap();
        assert_eq!(saved.failed, 2, "run {run}");
        for name in ["dir", "file"] {
            let node = node(&repo, saved.snapshot.unwrap(), &source.path().join(name)).await;
            assert!(!node.xattrs.is_empty() && node.xattrs.len() as u64 <= XATTRS_MAX, "{name}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_names_of_a_file_keep_their_number_when_only_they_changed() {
    let Some(source) = in_memory() else { return };
    let world = World::new();
    let repo = world.repository().await;
    world.write("elsewhere", b"content");
    let (one, two) = (source.path().join("one"), source.path().join("two"));
    fs::write(&one, b"content").unwrap();
    fs::hard_link(&one, &two).unwrap();
    let both = || BackupOptions {
        source: BackupSource::Paths(vec![world.source(), source.path().to_owned()]),
        ..world.options()
    };
    let first = backup(&repo, both()).await.unwrap().snapshot.unwrap();
    fs::write(&one, b"changed").unwrap();
    let second = backup(&repo, both()).await.unwrap().snapshot.unwrap();
    let before = node(&repo, first, &one).await.hard_link;
    let after = node(&repo, second, &one).await.hard_link;
    assert!(before.is_some() && before == after, "{before:?} {after:?}");
    assert_eq!(node(&repo, second, &two).await.hard_link, after);
}

/// Panics on threads without a name, which workers are.
#[derive(Debug)]
pub(super) struct PanicsInWorkers;

impl Random for PanicsInWorkers {
    fn fill(&self, out: &mut [u8]) -> Result<(), RandomError> {
        assert!(std::thread::current().name().is_some(), "the accident that was asked for");
        SystemRandom.fill(out)
    }
}

struct PanicsAtEntries(Counters);

impl Observer for PanicsAtEntries {
    fn observe(&self, _: &Event<'_>) {}

    fn counters(&self) -> &Counters {
        &self.0
    }

    fn wants_entries(&self) -> bool {
        panic!("the accident that was asked for")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thread_that_panics_ends_the_run_instead_of_hanging_it() {
    let world = World::new();
    for n in 0..40 {
        world.write(&format!("f{n}"), &noise(n, 1_000_000));
    }
    let repo = world.repository().await;
    let in_worker = repo.with_env(Env { random: Arc::new(PanicsInWorkers), ..world.env() });
    let observer = Arc::new(PanicsAtEntries(Counters::default()));
    let in_merge = repo.with_env(Env { observer, ..world.env() });
    for broken in [in_worker, in_merge] {
        let run = tokio::time::timeout(Duration::from_secs(20), backup(&broken, world.options())).await;
        assert!(run.expect("the run hangs").is_err());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cache_that_breaks_after_the_confirmation_does_not_make_the_run_fail() {
    let world = World::new();
    let cache = world.dir.path().join("cache");
    let first = world.repository().await;
    let mut env = world.env();
    env.places.cache = Some(cache.clone());
    world.write("one", &noise(1, 300_000));
    backup(&first.with_env(env.clone()), world.options()).await.unwrap();
    world.write("two", &noise(2, 300_000));
    let spoil = move |op: &Op| {
        if op.kind == OpKind::Put && op.key.ends_with(".ok") {
            let found = fs::read_dir(cache.join(first_dir(&cache)).join("index")).unwrap();
            for level in found.map(|entry| entry.unwrap().path()).filter(|path| path.is_file()) {
                let len = fs::metadata(&level).unwrap().len();
                let mut permissions = fs::metadata(&level).unwrap().permissions();
                std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o600);
                fs::set_permissions(&level, permissions).unwrap();
                let file = fs::File::options().write(true).open(&level).unwrap();
                std::os::unix::fs::FileExt::write_all_at(&file, &vec![0xff; len as usize], 0).unwrap();
            }
        }
        Fault::None
    };
    let inner = Arc::clone(&world.objects) as Arc<dyn ObjectStore>;
    let store = store_over(Arc::new(FaultStore::new(inner, spoil)));
    let repo = first.with_env(env).with_store(store);
    let saved = backup(&repo, world.options()).await.unwrap();
    assert!(repo.list_snapshots().await.unwrap().iter().any(|s| Some(s.id) == saved.snapshot && s.confirmed));
}

fn first_dir(path: &Path) -> std::ffi::OsString {
    fs::read_dir(path).unwrap().next().unwrap().unwrap().file_name()
}

fn registry_entry(repo: &Repository, number: u64, authority: Authority) -> (String, Vec<u8>) {
    let (writer, signing) = repo.writer().unwrap();
    let key = *signing.verifying_key().as_bytes();
    let entry = WriterEntry { writer, key, authority, standing: Standing::Active };
    let root = SigningKey::from_seed(repo.secrets().root.clone().unwrap());
    let mut preamble = Preamble::new(ObjectKind::Writer, ChunkKind::Data, repo.id());
    preamble.key_generation = number as u16;
    let mut bytes = signed_message(preamble, &entry.encode());
    let signature = root.sign(&bytes);
    bytes.extend_from_slice(&signature);
    (ObjectName::Writer(writer, number, object_hash(&bytes)).key(), bytes)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_registry_believes_no_entry_under_another_number_no_two_with_one_and_no_failure() {
    let objects: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let options = InitOptions { new_key_file: true, ..InitOptions::default() };
    let made = init(store_over(Arc::clone(&objects)), &env(), options).await.unwrap();
    let (_, key) = keyfile::decode(&made.key_file.unwrap()).unwrap();
    let open = |objects: Arc<dyn ObjectStore>| {
        let unlock = Unlock::KeyFile(key.clone());
        async move { Repository::open(store_over(objects), env(), &unlock).await }
    };
    let put = |(key, bytes): (String, Vec<u8>)| {
        let objects = Arc::clone(&objects);
        async move { objects.put(&key.into(), PutPayload::from(bytes)).await.unwrap() }
    };
    let repo = open(Arc::clone(&objects)).await.unwrap();
    let first = registry_entry(&repo, 0, Authority::Maintainer);
    assert_eq!(repo.store().list("writers/").await.unwrap()[0].key.as_str(), first.0, "the one made by init");
    put(registry_entry(&repo, 1, Authority::Writer)).await;
    let (writer, signing) = repo.writer().unwrap();
    put((ObjectName::Writer(writer, 7, object_hash(&first.1)).key(), first.1)).await;
    let demoted = open(Arc::clone(&objects)).await.unwrap();
    let signature = signing.sign(b"message");
    let verify = |authority| demoted.verify("key", (writer, authority), b"message", &signature);
    assert!(verify(Authority::Writer).is_ok());
    assert!(verify(Authority::Maintainer).is_err(), "an old entry came back under a new number");

    let fail = |op: &Op| match op.kind {
        OpKind::Get if op.key.starts_with("writers/") => Fault::Before(Failure::Denied),
        _ => Fault::None,
    };
    let failed = open(Arc::new(FaultStore::new(Arc::clone(&objects), fail))).await.unwrap_err();
    assert!(matches!(failed, RepoError::Store(_)), "{failed}");

    put(registry_entry(&repo, 1, Authority::Maintainer)).await;
    let two = open(objects).await.unwrap_err();
    assert!(matches!(two, RepoError::Untrusted { .. }), "{two}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_object_that_goes_away_is_no_failure_and_one_that_cannot_be_read_is_a_problem() {
    let world = World::new();
    world.write("file", &noise(1, 300_000));
    let first = world.repository().await;
    world.save(&first).await;
    let through = |plan: Box<dyn Fn(&Op) -> Fault + Send + Sync>| {
        let inner = Arc::clone(&world.objects) as Arc<dyn ObjectStore>;
        first.with_store(store_over(Arc::new(FaultStore::new(inner, plan))))
    };
    let missing = through(Box::new(|op: &Op| match op.kind {
        OpKind::Get if op.key.starts_with("index/") => Fault::Before(Failure::NotFound),
        _ => Fault::None,
    }));
    assert_eq!(missing.load_index().await.unwrap().problems.len(), 1);

    let objects = Arc::clone(&world.objects);
    let deleting = through(Box::new(move |op: &Op| {
        if op.kind == OpKind::Get && op.key.starts_with("index/") {
            let place = op.key.as_str().into();
            let deleted = objects.delete(&place);
            deleted.now_or_never().expect("memory answers at once").unwrap();
        }
        Fault::None
    }));
    let loaded = deleting.load_index().await.unwrap();
    assert!(loaded.problems.is_empty() && loaded.listed.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_keeps_what_it_is_given_does_not_starve_the_run_of_buffers() {
    let world = World::new();
    for n in 0..4 {
        world.write(&format!("f{n}"), &noise(n, 17_500_000));
    }
    let repo = world.repository().await;
    let run = tokio::time::timeout(Duration::from_secs(60), backup(&repo, world.options())).await;
    assert_eq!(run.expect("the run hangs").unwrap().files, 4);
}
