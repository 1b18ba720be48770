//! The repository that is damaged: small, and with an object of every kind.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lifeboat::chunk::ChunkParams;
use lifeboat::clock::Timestamp;
use lifeboat::crypto::slot::Unlock;
use lifeboat::crypto::{SecretKey, keyfile};
use lifeboat::format::gc::TombReason;
use lifeboat::format::ledger::Look;
use lifeboat::id::{ClusterId, ObjectHash, PackId, SnapshotId};
use lifeboat::ops::backup::{BackupOptions, BackupSource, backup};
use lifeboat::ops::init::{InitOptions, init};
use lifeboat::repo::{Env, Limits, NewlyVerified, Places, RepoError, Repository};
use lifeboat::store::{Key, Store, StoreOptions};
use object_store::memory::InMemory;

/// A repository as bytes, and the key that opens it.
pub struct World {
    pub objects: BTreeMap<String, Bytes>,
    key: SecretKey,
    /// The newest snapshot.
    pub last: SnapshotId,
    /// The directory that was backed up; it stays as the second snapshot has it.
    pub source: tempfile::TempDir,
}

pub fn env(state: &Path) -> Env {
    Env::system(Limits { workers: 1, requests: 4 }, Places { state: state.to_owned(), cache: None })
}

/// A store in memory that holds these objects.
pub async fn store_of(objects: &BTreeMap<String, Bytes>) -> Store {
    let env = env(Path::new("/nonexistent"));
    let store_env = env.store_env();
    let options = StoreOptions { retry_for: Duration::ZERO, ..StoreOptions::default() };
    let store = Store::from_object_store(Arc::new(InMemory::new()), &options, store_env);
    for (key, bytes) in objects {
        store.put(&Key::new(key.as_str()).unwrap(), vec![bytes.clone()]).await.unwrap();
    }
    store
}

impl World {
    /// Small files, empty files, links, a file of many chunks, a directory of many pages; two snapshots; two key slots;
    /// a condemnation and a horizon.
    pub async fn build() -> Self {
        let (source, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fill(source.path());
        let env = env(state.path());
        let store = store_of(&BTreeMap::new()).await;
        // Chunks as small as they may be, so that a short file has a list in pages.
        let chunk_params = ChunkParams::new(64, 4096, 4096).unwrap();
        let options =
            InitOptions { new_key_file: true, recovery_words: true, chunk_params, ..InitOptions::default() };
        let made = init(store.clone(), &env, options).await.unwrap();
        let (_, key) = keyfile::decode(&made.key_file.unwrap()).unwrap();
        let repo = Repository::open(store.clone(), env, &Unlock::KeyFile(key.clone())).await.unwrap();
        back_up(&repo, source.path()).await;
        std::fs::write(source.path().join("second"), b"only in the second snapshot").unwrap();
        let last = back_up(&repo, source.path()).await;
        collected(&repo).await;
        let mut objects = BTreeMap::new();
        for object in store.list("").await.unwrap() {
            let bytes = store.get(&object.key, u64::MAX).await.unwrap();
            objects.insert(object.key.as_str().to_owned(), bytes);
        }
        Self { objects, key, last, source }
    }

    /// Opens the repository that these objects are.
    pub async fn open(&self, store: &Store) -> Result<Repository, RepoError> {
        let unlock = Unlock::KeyFile(self.key.clone());
        Repository::open(store.clone(), env(Path::new("/nonexistent")), &unlock).await
    }
}

fn fill(source: &Path) {
    let file = |name: &str, bytes: &[u8]| {
        let path: PathBuf = source.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    };
    for n in 0..20 {
        file(&format!("small/{n}"), format!("file {n} ").repeat(n + 1).as_bytes());
    }
    for n in 0..700 {
        file(&format!("many/{n:05}"), b"");
    }
    // The same few chunks again and again: a long list, and little to store.
    file("long", &b"0123456789abcdef".repeat(96 << 10));
    let mut noise = vec![0; 10_000];
    blake3::Hasher::new().finalize_xof().fill(&mut noise);
    file("deep/er/noise", &noise);
    std::os::unix::fs::symlink("small/1", source.join("link")).unwrap();
    std::fs::hard_link(source.join("small/2"), source.join("hard")).unwrap();
}

pub async fn back_up(repo: &Repository, source: &Path) -> SnapshotId {
    let options = BackupOptions {
        job: Some("damage".into()),
        host: b"host".to_vec(),
        user: b"user".to_vec(),
        tags: vec!["kind=test".into()],
        ..BackupOptions::new(BackupSource::Paths(vec![source.to_owned()]))
    };
    let summary = backup(repo, options).await.unwrap();
    assert_eq!(summary.failed, 0, "{summary:?}");
    summary.snapshot.unwrap()
}

/// Every path below a directory and what is in it.
pub fn contents(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let entries = ignore::WalkBuilder::new(root).standard_filters(false).build().filter_map(Result::ok);
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

/// What maintainers leave behind, one object of each kind.
async fn collected(repo: &Repository) {
    let id = SnapshotId::new([0xcc; 32]);
    repo.put_condemnation(vec![PackId::new([0xcc; 32])]).await.unwrap();
    repo.put_horizon(1).await.unwrap();
    let tomb = repo.put_tomb((repo.writer().unwrap().0, 7, id), TombReason::Named).await.unwrap();
    repo.put_undo(vec![tomb]).await.unwrap();
    repo.put_removal(vec![id]).await.unwrap();
    repo.put_hold(vec![id], None).await.unwrap();
    repo.put_trim((ClusterId::new([0xcc; 16]), 1), vec![(1, 1 << 24)]).await.unwrap();
    let seen = NewlyVerified {
        good: vec![ObjectHash::new([0xcc; 32])],
        ended: Some(0),
        ..NewlyVerified::new(Timestamp(0))
    };
    repo.put_verified(Look::Read, seen).await.unwrap();
    let listed = repo.list_snapshots().await.unwrap()[0];
    repo.put_labels(&listed, (0, vec!["after=all".into()])).await.unwrap();
}
