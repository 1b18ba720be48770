//! The index at size: time to take objects in, to merge, to open, to look chunks up, and to mark them; and what it costs in
//! memory.
//!
//! `LIFEBOAT_BENCH_CHUNKS` says how many chunks (10,000,000 by default); `LIFEBOAT_BENCH_CACHE` names a directory to
//! keep the cache in, so that a second run measures opening alone. `LIFEBOAT_BENCH_COMPACT` names a directory: a repository is made
//! in it, and all is compacted into that.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark reports to the terminal and may panic"
)]

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use divan::Bencher;
use divan::counter::ItemsCount;
use lifeboat::clock::{Clock, SystemClock};
use lifeboat::crypto::keyfile;
use lifeboat::crypto::slot::Unlock;
use lifeboat::format::envelope::ChunkKind;
use lifeboat::format::index::{IndexBuilder, IndexTables, NewChunk, NewPack};
use lifeboat::format::segment::{Codec, SegmentEntry};
use lifeboat::id::{ChunkId, ObjectHash, PackId, WriterId};
use lifeboat::index::{Cache, LiveSet, Mark, RunTable, View};
use lifeboat::ops::init::{InitOptions, init};
use lifeboat::repo::{CompactPlan, Env, Limits, Places, Repository};
use lifeboat::store::{Store, StoreOptions, StoreUrl};

/// Chunks an index object.
const OBJECT: u64 = 1 << 20;
const PACK: u64 = 128;
const SEGMENT: u64 = 4;
const LOOKUPS: u64 = 10_000;

static VIEW: OnceLock<(View, u64)> = OnceLock::new();

fn mix(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

fn bytes(number: u64) -> [u8; 32] {
    let mut out = [0; 32];
    for (place, part) in out.chunks_exact_mut(8).enumerate() {
        part.copy_from_slice(&mix(number ^ (place as u64) << 56).to_be_bytes());
    }
    out
}

fn object(first: u64, chunks: u64) -> IndexTables {
    let writer = WriterId::new([1; 16]);
    let mut builder = IndexBuilder::new(writer, 0, Vec::new());
    let data_key = builder.data_key(&[7; 1200]).unwrap();
    let origin = builder.origin(writer).unwrap();
    for pack in (first..first + chunks).step_by(PACK as usize) {
        let count = PACK.min(first + chunks - pack);
        let segments: Vec<_> = (0..count.div_ceil(SEGMENT) as u32)
            .map(|number| SegmentEntry {
                offset: 32 + number * 1000,
                stored_len: 1000,
                plain_len: 1 << 20,
                codec: Codec::Zstd,
                flags: 0,
                data_key,
                origin,
                n1: [number as u8; 12],
                n2: [1; 12],
            })
            .collect();
        let chunks: Vec<_> = (0..count)
            .map(|number| NewChunk {
                id: ChunkId::new(bytes(pack + number)),
                segment: (number / SEGMENT) as u16,
                offset: (number % SEGMENT) as u32 * 1000,
                len: 1000,
            })
            .collect();
        let new = NewPack {
            id: PackId::new(bytes(!pack)),
            size: 1 << 25,
            directory_offset: 1 << 24,
            directory_len: 5000,
            kind: ChunkKind::Data,
        };
        builder.add_pack(new, &segments, &chunks).unwrap();
    }
    builder.finish()
}

fn status(field: &str) -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap_or("unknown");
    line.split_whitespace().skip(1).collect::<Vec<_>>().join(" ")
}

fn timed<T>(clock: &SystemClock, work: impl FnOnce() -> T) -> (T, Duration) {
    let start = clock.monotonic();
    let out = work();
    (out, clock.monotonic() - start)
}

fn main() {
    let chunks = std::env::var("LIFEBOAT_BENCH_CHUNKS").map_or(10_000_000, |text| text.parse().unwrap());
    let kept = std::env::var("LIFEBOAT_BENCH_CACHE").ok().map(PathBuf::from);
    let temp = tempfile::tempdir().unwrap();
    let directory = kept.unwrap_or_else(|| temp.path().to_owned());
    let clock = SystemClock::new();
    let objects: Vec<u64> = (0..chunks).step_by(OBJECT as usize).collect();
    let listed: Vec<_> = objects.iter().map(|first| ObjectHash::new(bytes(!first))).collect();

    let mut cache = Cache::open(Some(&directory));
    let (mut making, mut adding) = (Duration::ZERO, Duration::ZERO);
    for missing in cache.missing(&listed) {
        let first = objects[listed.iter().position(|object| *object == missing).unwrap()];
        let (tables, made) = timed(&clock, || object(first, OBJECT.min(chunks - first)));
        let (_, added) = timed(&clock, || cache.add(missing, tables).unwrap());
        making += made;
        adding += added;
    }
    let (_, merging) = timed(&clock, || cache.view(&listed).unwrap());
    println!("{chunks} chunks: built {making:.1?}, added {adding:.1?}, merged {merging:.1?}");
    println!("peak so far {}, of it now anonymous {}", status("VmHWM"), status("RssAnon"));
    drop(cache);

    let (view, opening) = timed(&clock, || Cache::open(Some(&directory)).view(&listed).unwrap());
    println!("open and view {opening:.2?}, anonymous {}", status("RssAnon"));
    let mut view = view;
    let (_, selecting) = timed(&clock, || view.set_usable(|_| true).unwrap());
    println!("choose {} usable packs {selecting:.2?}", view.pack_count());
    let first = timed(&clock, || view.find_usable(&ChunkId::new(bytes(chunks / 2))).unwrap());
    println!("first lookup {:.2?}", first.1);
    // Touch everything once, so that the figures below are warm.
    let (_, warming) = timed(&clock, || {
        (0..chunks).step_by(101).for_each(|number| {
            assert!(view.find_usable(&ChunkId::new(bytes(number))).unwrap().is_some());
        });
    });
    println!("{} first touches {warming:.1?}, anonymous {}", chunks / 101, status("RssAnon"));
    mark(&view, chunks);
    if let Ok(place) = std::env::var("LIFEBOAT_BENCH_COMPACT") {
        compact(&view, &listed, std::path::Path::new(&place));
    }
    VIEW.set((view, chunks)).unwrap();
    divan::main();
}

/// Does something, and tells time and the most anonymous memory.
fn sampled<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let done = Arc::new(AtomicBool::new(false));
    let (stop, before) = (Arc::clone(&done), status("RssAnon"));
    let sampler = std::thread::spawn(move || {
        let mut most = 0;
        while !stop.load(Ordering::Relaxed) {
            most = most.max(status("RssAnon").split(' ').next().unwrap().parse::<u64>().unwrap());
            std::thread::park_timeout(Duration::from_millis(2));
        }
        most
    });
    let (out, took) = timed(&SystemClock::new(), work);
    done.store(true, Ordering::Relaxed);
    let most = sampler.join().unwrap();
    println!("{what} in {took:.1?}; anonymous at most {most} kB, before {before}");
    out
}

/// Marks every chunk, as a collection does that needs all of them.
fn mark(view: &View, chunks: u64) {
    let live = sampled("marked all", || {
        let mut live = LiveSet::new(view.clone());
        for number in 0..chunks {
            let id = ChunkId::new(bytes(number));
            assert!(live.mark(ChunkKind::Data, &id, 1000).unwrap() != Mark::Missing);
        }
        live
    });
    assert_eq!(live.marked(), chunks);
}

/// Compacts everything into a new repository, and loads what came of it.
fn compact(view: &View, listed: &[ObjectHash], place: &std::path::Path) {
    let env = Env::system(
        Limits::default(),
        Places { state: place.join("state"), cache: Some(place.join("cache")) },
    );
    let store_env = env.store_env();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let url: StoreUrl = place.join("repository").to_str().unwrap().parse().unwrap();
    let repo = runtime.block_on(async {
        let store = Store::open(&url, &StoreOptions::default(), store_env).await.unwrap();
        let options = InitOptions { new_key_file: true, ..InitOptions::default() };
        let made = init(store.clone(), &env, options).await.unwrap();
        let (_, key) = keyfile::decode(&made.key_file.unwrap()).unwrap();
        Repository::open(store, env, &Unlock::KeyFile(key)).await.unwrap()
    });
    let writer = repo.writer().unwrap().0;
    let replace = listed.iter().map(|object| (writer, *object)).collect();
    let plan = CompactPlan { replace, drop: HashSet::new() };
    let new = sampled("compacted", || runtime.block_on(repo.compact_index(view, &plan)).unwrap());
    println!("{} new objects", new.len());
    let loaded = sampled("loaded again", || runtime.block_on(repo.load_index()).unwrap());
    assert_eq!((loaded.view.chunk_count(), loaded.problems.len()), (view.chunk_count(), 0));
}

/// Looks up chunks that `id` makes of a random number.
fn lookups(bencher: Bencher<'_, '_>, id: fn(u64, u64) -> u64, look: fn(&View, &ChunkId) -> bool) {
    let (view, chunks) = VIEW.get().unwrap();
    let mut round = 0_u64;
    bencher.counter(ItemsCount::new(LOOKUPS)).bench_local(|| {
        round += 1;
        let hits = (0..LOOKUPS).filter(|number| {
            let random = mix(round << 32 | number);
            look(view, &ChunkId::new(bytes(id(random, *chunks))))
        });
        hits.count()
    });
}

#[divan::bench]
fn miss(bencher: Bencher<'_, '_>) {
    lookups(
        bencher,
        |random, chunks| chunks + random % (1 << 50),
        |view, id| view.find_usable(id).unwrap().is_some(),
    );
}

#[divan::bench]
fn hit(bencher: Bencher<'_, '_>) {
    lookups(bencher, |random, chunks| random % chunks, |view, id| view.find_usable(id).unwrap().is_some());
}

#[divan::bench]
fn locate(bencher: Bencher<'_, '_>) {
    lookups(bencher, |random, chunks| random % chunks, |view, id| view.locate(id).next().is_some());
}

#[divan::bench]
fn making_ids_only(bencher: Bencher<'_, '_>) {
    lookups(bencher, |random, chunks| random % chunks, |_, id| id.as_bytes()[0] == 0);
}

#[divan::bench]
fn claim(bencher: Bencher<'_, '_>) {
    let table = RunTable::new();
    let mut number = 0;
    bencher.counter(ItemsCount::new(LOOKUPS)).bench_local(|| {
        (0..LOOKUPS).for_each(|_| {
            number += 1;
            table.claim(&ChunkId::new(bytes(number)));
        });
    });
}
