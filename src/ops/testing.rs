//! A world for tests: memory for storage, the machine's clock, no cache.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use object_store::ObjectStore;
use object_store::memory::InMemory;

use crate::cancel::Cancel;
use crate::clock::SystemClock;
use crate::crypto::keyfile;
use crate::crypto::slot::Unlock;
use crate::event::CountingObserver;
use crate::format::snapshot::Snapshot;
use crate::id::SnapshotId;
use crate::ops::backup::{BackupOptions, BackupSource, backup};
use crate::ops::init::{InitOptions, init};
use crate::random::SystemRandom;
use crate::repo::{Env, Limits, Places, Repository};
use crate::store::{Store, StoreEnv, StoreOptions};

/// Two workers, no cache, a state directory that is not there.
pub(crate) fn env() -> Env {
    Env {
        clock: Arc::new(SystemClock::new()),
        random: Arc::new(SystemRandom),
        observer: Arc::new(CountingObserver::default()),
        cancel: Cancel::new(),
        limits: Limits { workers: 2, requests: 4 },
        places: Places { state: PathBuf::from("/nonexistent"), cache: None },
    }
}

/// A store over any implementation of the trait that does not try twice.
pub(crate) fn store_over(objects: Arc<dyn ObjectStore>) -> Store {
    let env = env();
    let options = StoreOptions { retry_for: Duration::ZERO, ..StoreOptions::default() };
    let store_env =
        StoreEnv { clock: env.clock, random: env.random, observer: env.observer, cancel: env.cancel };
    Store::from_object_store(objects, &options, store_env)
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
