//! Listing many snapshots: from the local cache, without it, and finding the latest.
//!
//! `LIFEBOAT_BENCH_SNAPSHOTS` says how many there are (10,000 by default). They are made in a local directory first, below
//! `TMPDIR`, without syncs.
#![allow(clippy::unwrap_used, missing_docs, reason = "a benchmark may stop at any error")]

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use divan::Bencher;
use lifeboat::cancel::Cancel;
use lifeboat::clock::SystemClock;
use lifeboat::crypto::keyfile;
use lifeboat::crypto::slot::Unlock;
use lifeboat::event::CountingObserver;
use lifeboat::format::snapshot::Snapshot;
use lifeboat::ops::init::{InitOptions, init};
use lifeboat::ops::snapshots::{SnapshotFilter, list, resolve};
use lifeboat::random::SystemRandom;
use lifeboat::repo::{Env, Limits, Places, Repository};
use lifeboat::store::{Store, StoreEnv, StoreOptions, StoreUrl};
use tokio::runtime::Runtime;

struct World {
    runtime: Runtime,
    cached: Repository,
    uncached: Repository,
    count: usize,
}

static WORLD: OnceLock<World> = OnceLock::new();

fn main() {
    let count = std::env::var("LIFEBOAT_BENCH_SNAPSHOTS").map_or(10_000, |text| text.parse().unwrap());
    let place = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let (cached, uncached) = runtime.block_on(made(place.path(), count));
    assert!(WORLD.set(World { runtime, cached, uncached, count }).is_ok());
    divan::main();
}

fn env(place: &Path, cache: bool) -> Env {
    Env {
        clock: Arc::new(SystemClock::new()),
        random: Arc::new(SystemRandom),
        observer: Arc::new(CountingObserver::default()),
        cancel: Cancel::new(),
        limits: Limits::default(),
        places: Places { state: place.join("state"), cache: cache.then(|| place.join("cache")) },
    }
}

/// A repository with so many snapshots of nothing, opened with a cache and without one.
async fn made(place: &Path, count: usize) -> (Repository, Repository) {
    let env_of_store = env(place, true);
    let store_env = StoreEnv {
        clock: env_of_store.clock,
        random: env_of_store.random,
        observer: env_of_store.observer,
        cancel: env_of_store.cancel,
    };
    let options = StoreOptions {
        options: vec![("unsafe_no_fsync".into(), "true".into())],
        retry_for: Duration::ZERO,
        ..StoreOptions::default()
    };
    let url: StoreUrl = place.join("repository").to_str().unwrap().parse().unwrap();
    let store = Store::open(&url, &options, store_env).await.unwrap();
    let fresh = InitOptions { new_key_file: true, ..InitOptions::default() };
    let key_file = init(store.clone(), &env(place, true), fresh).await.unwrap().key_file.unwrap();
    let open = async |cache| {
        let (_, key) = keyfile::decode(&key_file).unwrap();
        Repository::open(store.clone(), env(place, cache), &Unlock::KeyFile(key)).await.unwrap()
    };
    let repo = open(true).await;
    for sequence in 0..count as u64 {
        let snapshot = Snapshot {
            time: repo.env().clock.now().0,
            host: b"host".to_vec(),
            job: b"job".to_vec(),
            paths: vec![b"/etc".to_vec(), b"/home".to_vec()],
            ..Snapshot::empty()
        };
        let id = repo.put_snapshot(sequence, &snapshot, &repo.new_run_keys().unwrap()).await.unwrap();
        repo.confirm_snapshot(sequence, id).await.unwrap();
    }
    (repo, open(false).await)
}

fn listed(bencher: Bencher<'_, '_>, repo: fn(&World) -> &Repository) {
    let world = WORLD.get().unwrap();
    let found = || world.runtime.block_on(list(repo(world), &SnapshotFilter::default())).unwrap();
    assert_eq!(found().snapshots.len(), world.count);
    bencher.bench_local(found);
}

#[divan::bench(sample_count = 20, sample_size = 1)]
fn list_cached(bencher: Bencher<'_, '_>) {
    listed(bencher, |world| &world.cached);
}

#[divan::bench(sample_count = 3, sample_size = 1)]
fn list_uncached(bencher: Bencher<'_, '_>) {
    listed(bencher, |world| &world.uncached);
}

#[divan::bench(sample_count = 20, sample_size = 1)]
fn latest(bencher: Bencher<'_, '_>) {
    let world = WORLD.get().unwrap();
    bencher.bench_local(|| {
        world.runtime.block_on(resolve(&world.cached, "latest", &SnapshotFilter::default())).unwrap()
    });
}
