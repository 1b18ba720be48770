//! The real code against a simulated world: random histories of machines that back up, restore, forget, collect and
//! verify at the same time, over a store that fails, on clocks that are wrong, in an order that a seed decides.
//!
//! `LIFEBOAT_SEED=n` runs one history and prints what happened; `LIFEBOAT_SEEDS=n` runs so many instead of the default;
//! `LIFEBOAT_FIRST=n` begins there.
#![allow(missing_docs, unreachable_pub, reason = "a test has no public interface")]
#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a failed step fails the test; the speed is measured, and what happened is shown"
)]

mod actors;
mod chance;
mod collector;
mod fault;
mod history;
mod judge;
mod reading;
mod setup;
mod store;
mod tree;
mod world;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use history::{Outcome, Report};
use setup::Setup;

/// Histories that are run twice, to see that they are the same.
const REPEATED: u64 = 40;
/// Histories of a run that asks for no number.
const SEEDS: u64 = 5000;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Machines are tasks of one thread: only one of them moves at a time.
fn block_on<T>(runtime: &tokio::runtime::Runtime, work: impl Future<Output = T>) -> T {
    tokio::task::LocalSet::new().block_on(runtime, work)
}

/// A directory for the histories of this process, in memory where there is one: they write many small files. Its name is
/// stored in snapshots, so it is the same each time, unless another process has it.
struct Scratch {
    path: PathBuf,
    _lock: std::fs::File,
}

impl Scratch {
    fn new(name: &str) -> Self {
        let memory = PathBuf::from("/dev/shm");
        let parent = if memory.is_dir() { memory } else { std::env::temp_dir() };
        for number in 0..100 {
            let path = parent.join(format!("lifeboat-{name}-{number}"));
            let Ok(lock) = std::fs::File::create(path.with_extension("lock")) else { continue };
            if lock.try_lock().is_ok() {
                return Self { path, _lock: lock };
            }
        }
        panic!("no directory for simulations is free in {}", parent.display());
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

/// Runs one history in a directory of its own.
fn history(
    runtime: &tokio::runtime::Runtime,
    setup: &Arc<Setup>,
    (seed, scratch): (u64, &Scratch),
) -> Report {
    let dir = scratch.path.join(seed.to_string());
    let done = block_on(runtime, history::run(setup, seed, &dir));
    let _ = std::fs::remove_dir_all(&dir);
    done
}

/// Runs on a thread of its own, whose name is what randomness goes by.
fn on_thread<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("history".into());
        thread.spawn_scoped(scope, work).unwrap().join().unwrap()
    })
}

fn setup() -> Arc<Setup> {
    on_thread(|| runtime().block_on(Setup::new()))
}

/// Runs one history and shows it.
fn show(setup: &Arc<Setup>, seed: u64) {
    let scratch = Scratch::new("simulation");
    let (outcome, verdict, world) = on_thread(|| history(&runtime(), setup, (seed, &scratch)));
    println!("{}", world.trace());
    println!("seed {seed}: {outcome:?}");
    if let Err(violations) = verdict {
        panic!("seed {seed}:\n{violations}");
    }
}

#[test]
fn nothing_acknowledged_is_lost_whatever_happens() {
    let setup = setup();
    if let Some(seed) = number("LIFEBOAT_SEED") {
        return show(&setup, seed);
    }
    let (first, seeds) = (number("LIFEBOAT_FIRST").unwrap_or(0), number("LIFEBOAT_SEEDS").unwrap_or(SEEDS));
    let scratch = Scratch::new("simulation");
    let next = AtomicU64::new(first);
    let failed = AtomicBool::new(false);
    let threads = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    let begin = Instant::now();
    let work = || {
        let runtime = runtime();
        let mut sum = Outcome::default();
        let mut bad = Vec::new();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= first + seeds || failed.load(Ordering::Relaxed) {
                return (sum, bad);
            }
            let (outcome, verdict, world) = history(&runtime, &setup, (seed, &scratch));
            sum.steps += outcome.steps;
            sum.confirmed += outcome.confirmed;
            sum.removed += outcome.removed;
            if let Err(violations) = verdict {
                failed.store(number("LIFEBOAT_GO_ON").is_none(), Ordering::Relaxed);
                bad.push((seed, violations, world.trace()));
            }
        }
    };
    let results: Vec<_> = std::thread::scope(|scope| {
        let start = || std::thread::Builder::new().name("history".into()).spawn_scoped(scope, work).unwrap();
        let threads: Vec<_> = (0..threads.min(seeds)).map(|_| start()).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let seconds = begin.elapsed().as_secs_f64();
    let (steps, confirmed, removed) =
        results.iter().fold((0, 0, 0), |(steps, confirmed, removed), (sum, _)| {
            (steps + sum.steps, confirmed + sum.confirmed, removed + sum.removed)
        });
    println!(
        "{seeds} histories, {steps} requests, {confirmed} snapshots kept, {removed} removed; {:.1} histories a second",
        seeds as f64 / seconds
    );
    let bad: Vec<_> = results.into_iter().flat_map(|(_, bad)| bad).collect();
    for (seed, violations, trace) in &bad {
        println!("{trace}\nseed {seed}:\n{violations}\n");
    }
    let seeds: Vec<u64> = bad.iter().map(|(seed, ..)| *seed).collect();
    assert!(bad.is_empty(), "LIFEBOAT_SEED={} shows it; all: {seeds:?}", seeds[0]);
}

#[test]
fn a_seed_gives_the_same_history_again() {
    let setup = setup();
    let scratch = Scratch::new("repeated");
    let (first, seeds) =
        (number("LIFEBOAT_FIRST").unwrap_or(0), number("LIFEBOAT_REPEATED").unwrap_or(REPEATED));
    let traced = |seed| on_thread(|| history(&runtime(), &setup, (seed, &scratch)).2.trace());
    let mut different = Vec::new();
    for seed in first..first + seeds {
        let (one, two) = (traced(seed), traced(seed));
        if one != two {
            let same = one.lines().zip(two.lines()).take_while(|(one, two)| one == two).count();
            println!("seed {seed}:\n{:?}\n{:?}", one.lines().nth(same), two.lines().nth(same));
            different.push(seed);
        }
    }
    assert!(different.is_empty(), "{} of {seeds} differ: {different:?}", different.len());
}
