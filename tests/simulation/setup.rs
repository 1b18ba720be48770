//! One repository for all histories of a process: its keys cost time, and its configuration is the same each time.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::Duration;

use futures::TryStreamExt;
use lifeboat::cancel::Cancel;
use lifeboat::chunk::ChunkParams;
use lifeboat::crypto::keyfile;
use lifeboat::crypto::slot::Unlock;
use lifeboat::event::CountingObserver;
use lifeboat::id::ChunkId;
use lifeboat::ops::init::{InitOptions, init};
use lifeboat::repo::{Env, Limits, Places, Repository};
use lifeboat::store::{Store, StoreOptions};
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt};

use crate::chance::{SimClock, SimRandom};
use crate::world::{BEGIN, Object, Objects};

pub struct Setup {
    pub objects: Objects,
    pub unlock: Unlock,
    /// Only for its keys.
    pub repo: Arc<Repository>,
    pub contents: Arc<Vec<Vec<ChunkId>>>,
}

/// A machine's world: its clock is `skew` nanoseconds off the store's.
pub fn env(seed: u64, (store_clock, skew): (&Arc<AtomicI64>, i64), places: Places) -> Env {
    Env {
        clock: SimClock::new(Arc::clone(store_clock), skew),
        random: SimRandom::new(seed),
        observer: Arc::new(CountingObserver::default()),
        cancel: Cancel::new(),
        limits: Limits { workers: 1, requests: 1 },
        places,
    }
}

pub fn store_over(objects: Arc<dyn ObjectStore>, env: &Env, retry_for: Duration) -> Store {
    let options = StoreOptions { retry_for, ..StoreOptions::default() };
    Store::from_object_store(objects, &options, env.store_env())
}

pub fn places(dir: &Path, with_cache: bool) -> Places {
    Places { state: dir.join("state"), cache: with_cache.then(|| dir.join("cache")) }
}

impl Setup {
    pub async fn new() -> Arc<Self> {
        let memory = Arc::new(InMemory::new());
        let clock = Arc::new(AtomicI64::new(BEGIN));
        let env = env(1, (&clock, 0), Places { state: PathBuf::from("/nonexistent"), cache: None });
        let store = store_over(memory.clone(), &env, Duration::ZERO);
        let options = InitOptions {
            new_key_file: true,
            chunk_params: ChunkParams::new(2 << 10, 4 << 10, 16 << 10).unwrap(),
            ..InitOptions::default()
        };
        let made = init(store.clone(), &env, options).await.unwrap();
        let unlock = Unlock::KeyFile(keyfile::decode(&made.key_file.unwrap()).unwrap().1);
        let mut objects = BTreeMap::new();
        let listed: Vec<_> = memory.list(None).try_collect().await.unwrap();
        for meta in listed {
            let bytes = memory.get(&meta.location).await.unwrap().bytes().await.unwrap();
            objects.insert(meta.location.to_string(), Object { bytes, modified: BEGIN });
        }
        let repo = Arc::new(Repository::open(store, env, &unlock).await.unwrap());
        let contents = Arc::new(crate::reading::content_ids(&repo));
        Arc::new(Self { objects, unlock, repo, contents })
    }
}
