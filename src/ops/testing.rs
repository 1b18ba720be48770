//! A world for tests: memory for storage, the machine's clock, no cache.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt};

use crate::crypto::kdf::KdfParams;
use crate::crypto::sign::SigningKey;
use crate::crypto::slot::{self, Opened, Unlock};
use crate::crypto::{Pins, SecretKey, Secrets, WriterSecret, keyfile, object_hash};
use crate::format::cluster::{Cluster, Engine, History};
use crate::format::config::{Authority, Standing, WriterEntry};
use crate::format::envelope::{ChunkKind, ObjectKind, Preamble};
use crate::format::gc::TombReason;
use crate::format::keyslot::Role;
use crate::format::layout::ObjectName;
use crate::format::log::{LogFacts, LogFile};
use crate::format::signed::signed_message;
use crate::format::snapshot::Snapshot;
use crate::id::{SnapshotId, WriterId};
use crate::ops::backup::{BackupOptions, BackupSource, backup};
use crate::ops::gc::PruneOptions;
use crate::ops::init::{InitOptions, init};
use crate::ops::restore::{RestoreOptions, restore};
use crate::ops::snapshots::{SnapshotFilter, resolve};
use crate::random::random_array;
use crate::repo::{Env, Limits, NewLog, Places, Repository, StoredCluster};
use crate::store::{Key, Store, StoreOptions};

/// Removes everything that can be removed, without any delay.
pub(crate) const NOW: PruneOptions = PruneOptions::AT_ONCE;

/// A source, a place for local state, and a store in memory; the directory is gone when the test ends.
pub(crate) struct World {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) objects: Arc<InMemory>,
}

impl World {
    pub(crate) fn new() -> Self {
        let world = Self { dir: tempfile::tempdir().unwrap(), objects: Arc::new(InMemory::new()) };
        fs::create_dir(world.source()).unwrap();
        world
    }

    pub(crate) fn source(&self) -> PathBuf {
        self.dir.path().join("source")
    }

    pub(crate) fn write(&self, name: &str, content: &[u8]) {
        fs::write(self.source().join(name), content).unwrap();
    }

    pub(crate) fn env(&self) -> Env {
        self.env_at("state")
    }

    /// With local state of another name: as another machine is.
    pub(crate) fn env_at(&self, state: &str) -> Env {
        Env { places: Places { state: self.dir.path().join(state), cache: None }, ..env() }
    }

    pub(crate) async fn repository(&self) -> Repository {
        new_repository(Arc::clone(&self.objects) as Arc<dyn ObjectStore>, self.env()).await
    }
}

/// Two workers, no cache, a state directory that is not there.
pub(crate) fn env() -> Env {
    Env::system(
        Limits { workers: 2, requests: 4 },
        Places { state: PathBuf::from("/nonexistent"), cache: None },
    )
}

/// A store over any implementation of the trait that does not try twice.
pub(crate) fn store_over(objects: Arc<dyn ObjectStore>) -> Store {
    let options = StoreOptions { retry_for: Duration::ZERO, ..StoreOptions::default() };
    Store::from_object_store(objects, &options, env().store_env())
}

/// A store in memory.
pub(crate) fn memory_store() -> Store {
    store_over(Arc::new(InMemory::new()))
}

/// A new repository that is open.
pub(crate) async fn new_repository(objects: Arc<dyn ObjectStore>, env: Env) -> Repository {
    let store = store_over(objects);
    let options = InitOptions { new_key_file: true, ..InitOptions::default() };
    let made = init(store.clone(), &env, options).await.unwrap();
    let (_, key) = keyfile::decode(&made.key_file.unwrap()).unwrap();
    Repository::open(store, env, &Unlock::KeyFile(key)).await.unwrap()
}

/// Backs a directory up, as it is.
pub(crate) async fn back_up(repo: &Repository, source: &Path) -> SnapshotId {
    let options = BackupOptions {
        job: Some("test".into()),
        allow_shrink: true,
        ..BackupOptions::new(BackupSource::Paths(vec![source.to_owned()]))
    };
    let summary = backup(repo, options).await.unwrap();
    assert_eq!((summary.failed, summary.missing.len()), (0, 0));
    summary.snapshot.unwrap()
}

/// Puts a confirmed snapshot of nothing, of job `etc` on `one` unless `edit` says otherwise.
pub(crate) async fn put_snapshot(
    repo: &Repository,
    sequence: u64,
    edit: impl FnOnce(&mut Snapshot),
) -> SnapshotId {
    let keys = repo.new_run_keys().unwrap();
    let time = repo.env().clock.now().0;
    let mut snapshot = Snapshot { time, host: b"one".to_vec(), job: b"etc".to_vec(), ..Snapshot::empty() };
    edit(&mut snapshot);
    let id = repo.put_snapshot(sequence, &snapshot, &keys).await.unwrap();
    repo.confirm_snapshot(sequence, id).await.unwrap();
    id
}

/// Forgets one snapshot, as someone does who names it.
pub(crate) async fn forget(repo: &Repository, id: SnapshotId) {
    let listed = repo.list_snapshots().await.unwrap().into_iter().find(|l| l.id == id).unwrap();
    repo.put_tomb((listed.writer, listed.sequence, id), TombReason::Named).await.unwrap();
}

/// What a snapshot has below a stored path, as a restore brings it back.
pub(crate) async fn restored(repo: &Repository, id: SnapshotId, path: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let dir = tempfile::tempdir().unwrap();
    let snapshot = resolve(repo, &id.to_string(), &SnapshotFilter::default()).await.unwrap();
    let target = dir.path().join("restored");
    let path = path.as_os_str().as_encoded_bytes().to_vec();
    restore(repo, RestoreOptions::new(snapshot, path, target.clone())).await.unwrap();
    contents(&target)
}

/// The files below a directory and what is in them.
pub(crate) fn contents(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let files = ignore::WalkBuilder::new(root).standard_filters(false).build().map(Result::unwrap);
    let files = files.filter(|entry| entry.file_type().is_some_and(|kind| kind.is_file()));
    files.map(|e| (e.path().strip_prefix(root).unwrap().to_owned(), fs::read(e.path()).unwrap())).collect()
}

/// Puts what `from` has and `to` lacks.
pub(crate) async fn add_objects(from: &InMemory, to: &InMemory) {
    let mut objects = from.list(None);
    while let Some(meta) = objects.next().await {
        let location = meta.unwrap().location;
        if to.head(&location).await.is_err() {
            let bytes = from.get(&location).await.unwrap().bytes().await.unwrap();
            to.put(&location, bytes.into()).await.unwrap();
        }
    }
}

/// A store of its own with the same objects.
pub(crate) async fn copy_objects(from: &InMemory) -> Arc<InMemory> {
    let to = InMemory::new();
    add_objects(from, &to).await;
    Arc::new(to)
}

/// Bytes that neither compress nor repeat, others for each seed.
pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut out);
    out
}

/// Registers another writer, as an admin does who adds a key, and gives what opens the repository as it.
pub(crate) async fn add_key(repo: &Repository, role: Role, authority: Authority) -> (WriterId, Unlock) {
    let random = &crate::random::SystemRandom;
    let root = SigningKey::from_seed(repo.secrets().root.clone().unwrap());
    let writer = WriterSecret {
        id: WriterId::new(random_array(random).unwrap()),
        seed: SecretKey::generate(random).unwrap(),
    };
    let id = writer.id;
    let key = *SigningKey::from_seed(writer.seed.clone()).verifying_key().as_bytes();
    let entry = WriterEntry { writer: id, key, authority, standing: Standing::Active };
    put_entry(repo, 0, &entry).await;
    let secrets = Secrets { writer: Some(writer), ..repo.secrets().clone() }.restrict(role);
    let pins = Pins { repository: repo.id(), root: root.verifying_key(), config: 0 };
    let unlock = Unlock::KeyFile(SecretKey::generate(random).unwrap());
    let slot =
        slot::wrap(&unlock, &Opened { role, secrets, pins }, None, KdfParams::default(), random).unwrap();
    put_object(repo, &ObjectName::KeySlot(object_hash(&slot)).key(), slot).await;
    (id, unlock)
}

/// Puts an entry of the registry.
pub(crate) async fn put_entry(repo: &Repository, number: u16, entry: &WriterEntry) {
    let root = SigningKey::from_seed(repo.secrets().root.clone().unwrap());
    let mut preamble = Preamble::new(ObjectKind::Writer, ChunkKind::Data, repo.id());
    preamble.key_generation = number;
    let mut bytes = signed_message(preamble, &entry.encode());
    let signature = root.sign(&bytes);
    bytes.extend_from_slice(&signature);
    let name = ObjectName::Writer(entry.writer, u64::from(number), object_hash(&bytes));
    put_object(repo, &name.key(), bytes).await;
}

/// Puts an object as anyone may who may put objects.
pub(crate) async fn put_object(repo: &Repository, key: &str, bytes: Vec<u8>) {
    repo.store().put(&Key::new(key).unwrap(), vec![bytes.into()]).await.unwrap();
}

/// The first database cluster of a repository, whose log this writer archives.
pub(crate) async fn put_cluster(repo: &Repository, segment_size: u32) -> StoredCluster {
    let history = History { number: 1, system: 7, version: 15, segment_size, page_size: 8192 };
    let writers = vec![repo.writer().unwrap().0];
    let cluster =
        Cluster { name: "main".into(), engine: Engine::Postgres, histories: vec![history], writers };
    repo.put_cluster(0, &cluster).await.unwrap()
}

/// Archives a file of a log.
pub(crate) async fn put_log(repo: &Repository, place: (&StoredCluster, u64), file: LogFile, content: &[u8]) {
    let new = NewLog { place, file, content, facts: &LogFacts::default() };
    repo.put_log(new, &repo.new_run_keys().unwrap()).await.unwrap();
}
