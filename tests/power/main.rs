//! The power is cut at every system call of the local store, and nothing that was acknowledged is lost; without any one kind
//! of sync something is.
//!
//! `LIFEBOAT_CUTS` says how many states of the disk are tried at each call.
#![allow(missing_docs, unreachable_pub, reason = "a test has no public interface")]
#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a failed step fails the test; files have times"
)]

mod disk;
mod machine;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use disk::{Dice, SimDisk, State, Sync, Watch};
use futures::future::{BoxFuture, FutureExt};
use futures::stream::{self, StreamExt};
use machine::{Facts, Process, Source, copy};

/// What a process does.
type Work = fn(&Process) -> BoxFuture<'_, ()>;

/// A process that may end at any call, and another one that comes after it.
struct Workload {
    name: &'static str,
    first: Work,
    second: Work,
}

const WORKLOADS: &[Workload] = &[
    Workload { name: "an object", first: |p| put(p).boxed(), second: |p| put(p).boxed() },
    Workload {
        name: "an object and none",
        first: |p| put_and_delete(p).boxed(),
        second: |p| delete(p).boxed(),
    },
    Workload { name: "a listing", first: |p| put_and_delete(p).boxed(), second: |p| list(p).boxed() },
    BACKUP,
];

const BACKUP: Workload =
    Workload { name: "backup", first: |p| two_backups(p).boxed(), second: |p| backup_after(p).boxed() };

async fn put(process: &Process) {
    process.create_root().await;
    process.put("some/where/object", b"content").await.unwrap();
}

async fn put_and_delete(process: &Process) {
    process.create_root().await;
    process.put("some/where/object", &[7; 9000]).await.unwrap();
    process.delete("some/where/object").await;
}

async fn delete(process: &Process) {
    process.create_root().await;
    process.delete("some/where/object").await;
}

async fn list(process: &Process) {
    process.create_root().await;
    process.put_what_is_listed(&["some/where/object"]).await;
}

/// `forget` and `prune` belong here as further steps.
async fn two_backups(process: &Process) {
    process.init().await.unwrap();
    process.back_up().await.unwrap();
    process.source.change();
    process.back_up().await.unwrap();
}

async fn backup_after(process: &Process) {
    // An `init` that was killed after its last word may have left a repository that nobody has the key of.
    if process.init().await.is_ok() {
        process.back_up().await.unwrap();
    }
}

/// A moment just before a system call: the disk, the local state, and what was acknowledged.
struct Moment {
    call: String,
    disk: State,
    local: PathBuf,
    facts: Facts,
}

/// A workload run to its end, with every moment of it.
struct Run {
    moments: Vec<Moment>,
    source: Arc<Source>,
    home: tempfile::TempDir,
}

async fn record(work: Work, omit: Option<Sync>) -> Run {
    let (home, source) = (tempfile::tempdir().unwrap(), Arc::new(Source::new()));
    let (facts, moments) = (Arc::new(Mutex::new(Facts::default())), Arc::new(Mutex::new(Vec::new())));
    let local = home.path().join("local");
    std::fs::create_dir(&local).unwrap();
    let watch: Watch = {
        let (facts, moments, local, copies) =
            (Arc::clone(&facts), Arc::clone(&moments), local.clone(), home.path().join("copies"));
        Arc::new(move |disk, call| {
            // Facts first: what is acknowledged by now was so before this call.
            let facts = facts.lock().unwrap().clone();
            let mut moments = moments.lock().unwrap();
            let copied = copies.join(moments.len().to_string());
            copy(&local, &copied);
            moments.push(Moment { call: call.to_owned(), disk: disk.clone(), local: copied, facts });
        })
    };
    let disk = SimDisk::new(State::new(), omit, Some(Arc::clone(&watch)));
    let process = Process::new(disk.clone(), &local, Arc::clone(&source), facts);
    work(&process).await;
    watch(&disk.state(), "the end");
    drop((process, disk, watch));
    let moments = Arc::into_inner(moments).expect("nothing is at work any more").into_inner().unwrap();
    Run { moments, source, home }
}

/// A disk after its power was cut, and who finds it.
struct Case {
    what: String,
    disk: State,
    local: tempfile::TempDir,
    facts: Facts,
    source: Arc<Source>,
}

impl Case {
    async fn check(self) -> Result<(), String> {
        let disk = SimDisk::new(self.disk, None, None);
        let process = Process::new(disk, self.local.path(), self.source, Arc::new(Mutex::new(self.facts)));
        process.check().await.map_err(|error| format!("{}: {error}", self.what))
    }
}

/// What is left of the local state: all, nothing, or all with what was written last damaged.
fn local_after(local: &Path, seed: u64) -> tempfile::TempDir {
    let left = tempfile::tempdir().unwrap();
    let mut dice = Dice::new(seed);
    match seed % 3 {
        0 => copy(local, left.path()),
        1 => {}
        _ => {
            copy(local, left.path());
            for entry in walkdir::WalkDir::new(left.path()).into_iter().map(Result::unwrap) {
                if entry.file_type().is_file() && dice.below(2) == 0 {
                    tear(entry.path(), &mut dice);
                }
            }
        }
    }
    left
}

/// Zeroes blocks of a file or cuts it off.
fn tear(path: &Path, dice: &mut Dice) {
    let mut content = std::fs::read(path).unwrap();
    match dice.below(2) {
        0 => content.truncate(dice.below(content.len() + 1)),
        _ => {
            for block in content.chunks_mut(4096) {
                if dice.below(2) == 0 {
                    block.fill(0);
                }
            }
        }
    }
    std::fs::write(path, content).unwrap();
}

/// The power is cut at every moment of a run.
fn cuts_of(run: &Run, seeds: u64) -> Vec<Case> {
    let mut seen = HashSet::new();
    let mut cases = Vec::new();
    for seed in 0..seeds {
        for (number, moment) in run.moments.iter().enumerate() {
            let seed_here = if seed < 4 { seed } else { seed * 100_003 + number as u64 };
            let mut disk = moment.disk.after_power_cut(seed_here);
            // Every damage to the local state is another case; otherwise equal disks are one.
            let local = if seed_here % 3 == 2 { seed_here } else { seed_here % 3 };
            let known = (disk.fingerprint(), local, moment.facts.snapshots.len(), moment.facts.key.is_some());
            if seen.insert((known, moment.facts.objects.clone())) {
                cases.push(Case {
                    what: format!("cut {number} before `{}`, seed {seed_here}", moment.call),
                    disk,
                    local: local_after(&moment.local, seed_here),
                    facts: moment.facts.clone(),
                    source: Arc::clone(&run.source),
                });
            }
        }
    }
    cases
}

/// The process is killed at a moment, another one goes on, and then the power is cut.
async fn cuts_after(run: &Run, number: usize, (work, omit, seeds): (Work, Option<Sync>, u64)) -> Vec<Case> {
    let moment = &run.moments[number];
    let local = run.home.path().join(format!("second/{number}"));
    copy(&moment.local, &local);
    let disk = SimDisk::new(moment.disk.clone(), omit, None);
    let facts = Arc::new(Mutex::new(moment.facts.clone()));
    work(&Process::new(disk.clone(), &local, Arc::clone(&run.source), Arc::clone(&facts))).await;
    let (state, facts) = (disk.state(), facts.lock().unwrap().clone());
    let mut seen = HashSet::new();
    let mut cases = Vec::new();
    for seed in 0..seeds {
        let seed = if seed < 4 { seed } else { seed * 100_003 + number as u64 };
        let mut disk = state.after_power_cut(seed);
        if seen.insert(disk.fingerprint()) {
            let what = format!(
                "killed {number} before `{}`, then the work of another, then cut, seed {seed}",
                moment.call
            );
            cases.push(Case {
                what,
                disk,
                local: local_after(&local, seed),
                facts: facts.clone(),
                source: Arc::clone(&run.source),
            });
        }
    }
    cases
}

/// Checks cases, a few at a time, until one fails.
async fn first_failure(cases: Vec<Case>) -> Option<String> {
    let mut checks = stream::iter(cases).map(Case::check).buffer_unordered(4);
    while let Some(result) = checks.next().await {
        if let Err(failure) = result {
            return Some(failure);
        }
    }
    None
}

/// From so many states on, each workload is asked about each kind of sync.
const THOROUGH: u64 = 20;

/// States tried at each call.
fn seeds() -> u64 {
    std::env::var("LIFEBOAT_CUTS").ok().and_then(|text| text.parse().ok()).unwrap_or(5)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn the_power_may_be_cut_at_every_system_call() {
    for workload in WORKLOADS {
        let run = record(workload.first, None).await;
        let cases = cuts_of(&run, seeds());
        println!(
            "{}: {} calls, {} different cases after a cut",
            workload.name,
            run.moments.len() - 1,
            cases.len()
        );
        if let Some(failure) = first_failure(cases).await {
            panic!("{}: {failure}", workload.name);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn the_power_may_be_cut_after_another_process_went_on_from_a_killed_one() {
    for workload in WORKLOADS {
        let run = record(workload.first, None).await;
        let mut checked = 0;
        for number in 0..run.moments.len() {
            let cases = cuts_after(&run, number, (workload.second, None, seeds().min(6))).await;
            checked += cases.len();
            if let Some(failure) = first_failure(cases).await {
                panic!("{}: {failure}", workload.name);
            }
        }
        println!("{}: killed at {} calls, {checked} different cases", workload.name, run.moments.len() - 1);
    }
}

/// How a workload shows that a kind of sync is left out, if it does.
async fn caught(workload: &Workload, omit: Sync) -> Option<String> {
    let run = record(workload.first, Some(omit)).await;
    if let Some(failure) = first_failure(cuts_of(&run, 6)).await {
        return Some(failure);
    }
    for number in 0..run.moments.len() {
        let cases = cuts_after(&run, number, (workload.second, Some(omit), 2)).await;
        if let Some(failure) = first_failure(cases).await {
            return Some(failure);
        }
    }
    None
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn without_any_one_sync_something_is_lost() {
    let mut missed = Vec::new();
    for omit in Sync::ALL {
        let mut losses = 0;
        for workload in WORKLOADS {
            if let Some(failure) = caught(workload, omit).await {
                println!("without {omit:?}, {}: {failure}", workload.name);
                losses += 1;
                if seeds() < THOROUGH {
                    break;
                }
            }
        }
        if losses == 0 {
            missed.push(omit);
        }
    }
    assert!(missed.is_empty(), "nothing is lost without {missed:?}");
}
