//! A repository with one acknowledged snapshot, and a source that has changed since.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt;
use lifeboat::crypto::slot::Unlock;
use lifeboat::crypto::{SecretKey, keyfile};
use lifeboat::error::Error;
use lifeboat::id::SnapshotId;
use lifeboat::ops::backup::{BackupOptions, BackupSource, backup};
use lifeboat::ops::init::{InitOptions, init};
use lifeboat::ops::restore::{RestoreOptions, restore};
use lifeboat::ops::snapshots::{SnapshotFilter, resolve};
use lifeboat::repo::{Env, Limits, Places, RepoError, Repository};
use lifeboat::store::{Store, StoreOptions};
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt};

pub struct World {
    pub objects: Arc<InMemory>,
    state: tempfile::TempDir,
    pub key: SecretKey,
    /// As it is now.
    pub source: tempfile::TempDir,
    /// As it was at the first snapshot.
    pub before: tempfile::TempDir,
    pub first: SnapshotId,
}

/// A copy of the repository and of the local state, to crash in.
pub struct Copy {
    pub objects: Arc<InMemory>,
    pub state: PathBuf,
    _dir: tempfile::TempDir,
}

pub fn env(state: &Path) -> Env {
    Env::system(
        Limits { workers: 2, requests: 2 },
        Places { state: state.join("state"), cache: Some(state.join("cache")) },
    )
}

pub fn store_over(objects: Arc<dyn ObjectStore>) -> Store {
    store_with(objects, Duration::ZERO)
}

/// Tries again, as a real run does.
pub fn patient_store_over(objects: Arc<dyn ObjectStore>) -> Store {
    store_with(objects, Duration::from_secs(20))
}

fn store_with(objects: Arc<dyn ObjectStore>, retry_for: Duration) -> Store {
    let options = StoreOptions { retry_for, ..StoreOptions::default() };
    Store::from_object_store(objects, &options, env(Path::new("/nonexistent")).store_env())
}

pub async fn open(store: Store, state: &Path, key: &SecretKey) -> Result<Repository, RepoError> {
    Repository::open(store, env(state), &Unlock::KeyFile(key.clone())).await
}

pub async fn new_repository(store: Store, state: &Path) -> SecretKey {
    let options = InitOptions { new_key_file: true, ..InitOptions::default() };
    let made = init(store, &env(state), options).await.unwrap();
    keyfile::decode(&made.key_file.unwrap()).unwrap().1
}

pub async fn back_up(repo: &Repository, source: &Path) -> Result<SnapshotId, Error> {
    let options = BackupOptions {
        job: Some("crash".into()),
        ..BackupOptions::new(BackupSource::Paths(vec![source.to_owned()]))
    };
    let summary = backup(repo, options).await?;
    assert_eq!(summary.failed, 0, "the source is quiet");
    Ok(summary.snapshot.expect("a backup that succeeds has a snapshot"))
}

/// Restores each snapshot and compares it with the directory it was made of.
pub async fn check_snapshots(repo: &Repository, snapshots: &[(SnapshotId, &Path)], what: &str) {
    for (id, source) in snapshots {
        let filter = SnapshotFilter::default();
        let snapshot =
            resolve(repo, &id.to_string(), &filter).await.unwrap_or_else(|e| panic!("{what}: {e}"));
        assert!(snapshot.confirmed, "{what}: {id} was acknowledged");
        let target = tempfile::tempdir().unwrap();
        // The paths as stored are those of the source, wherever its copy is now.
        let path = snapshot.snapshot.paths[0].clone();
        let options = RestoreOptions::new(snapshot, path, target.path().join("restored"));
        let summary = restore(repo, options).await.unwrap_or_else(|e| panic!("{what}: {e}"));
        assert_eq!((summary.failed, summary.damaged.len()), (0, 0), "{what}");
        assert_eq!(contents(&target.path().join("restored")), contents(source), "{what}: {id}");
    }
}

/// Every path below a directory and what is in it.
pub fn contents(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let entries = ignore::WalkBuilder::new(root).standard_filters(false).build().map(Result::unwrap);
    for entry in entries.filter(|entry| entry.depth() > 0) {
        let content = match entry.file_type().unwrap() {
            kind if kind.is_file() => std::fs::read(entry.path()).unwrap(),
            kind if kind.is_symlink() => {
                std::fs::read_link(entry.path()).unwrap().into_os_string().into_encoded_bytes()
            }
            _ => Vec::new(),
        };
        found.insert(entry.path().strip_prefix(root).unwrap().to_owned(), content);
    }
    found
}

/// A number from the environment.
pub fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

/// Copies a directory of plain files.
pub fn copy_tree(from: &Path, to: &Path) {
    for entry in ignore::WalkBuilder::new(from).standard_filters(false).build() {
        let entry = entry.unwrap();
        let target = to.join(entry.path().strip_prefix(from).unwrap());
        if entry.file_type().is_some_and(|kind| kind.is_dir()) {
            std::fs::create_dir_all(&target).unwrap();
        } else {
            std::fs::copy(entry.path(), &target).unwrap();
        }
    }
}

/// Bytes that do not compress and depend on the seed alone.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

pub fn write(root: &Path, name: &str, bytes: &[u8]) {
    let path = root.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, bytes).unwrap();
}

impl World {
    /// Enough new content for several packs in the second backup.
    pub async fn build() -> Self {
        let (source, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for n in 0..50 {
            write(source.path(), &format!("kept/{n}"), format!("kept {n} ").repeat(20).as_bytes());
        }
        write(source.path(), "changed", &noise(1, 300_000));
        let objects = Arc::new(InMemory::new());
        let store = store_over(objects.clone());
        let key = new_repository(store.clone(), state.path()).await;
        let repo = open(store, state.path(), &key).await.unwrap();
        let first = back_up(&repo, source.path()).await.unwrap();
        let before = tempfile::tempdir().unwrap();
        copy_tree(source.path(), before.path());
        write(source.path(), "changed", &noise(2, 400_000));
        for n in 0..3 {
            write(source.path(), &format!("new/{n}"), &noise(10 + n, 9 << 20));
        }
        std::fs::remove_file(source.path().join("kept/7")).unwrap();
        Self { objects, state, key, source, before, first }
    }

    pub async fn copy(&self) -> Copy {
        let objects = InMemory::new();
        let listed: Vec<_> = self.objects.list(None).try_collect().await.unwrap();
        for object in listed {
            let bytes = self.objects.get(&object.location).await.unwrap().bytes().await.unwrap();
            objects.put(&object.location, bytes.into()).await.unwrap();
        }
        let dir = tempfile::tempdir().unwrap();
        copy_tree(self.state.path(), dir.path());
        Copy { objects: Arc::new(objects), state: dir.path().to_owned(), _dir: dir }
    }
}
