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
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use disk::{Dice, SimDisk, State, Sync, Watch};
use futures::future::{FutureExt, LocalBoxFuture};
use futures::stream::{self, StreamExt};
use machine::{Facts, Process, Source, Stage, copy};

/// What a process does.
type Work = fn(&Process) -> LocalBoxFuture<'_, ()>;

/// A process that may end at any call, and another one that comes after it.
struct Workload {
    name: &'static str,
    /// What is done before, and ends well.
    before: Work,
    first: Work,
    /// Others that may come after it, each by itself.
    second: &'static [Work],
    /// Whether another one removes what the first is about to remove, and dies before it has synced. Only when there is time.
    outrun: bool,
}

impl Workload {
    const DEFAULT: Self = Self {
        name: "",
        before: |_| async {}.boxed_local(),
        first: |_| async {}.boxed_local(),
        second: &[],
        outrun: false,
    };
}

const WORKLOADS: &[Workload] = &[
    Workload {
        name: "an object",
        first: |p| put(p).boxed_local(),
        second: &[|p| put(p).boxed_local()],
        ..Workload::DEFAULT
    },
    Workload {
        name: "an object and none",
        first: |p| put_and_delete(p).boxed_local(),
        second: &[|p| delete(p).boxed_local()],
        ..Workload::DEFAULT
    },
    Workload {
        name: "a listing",
        first: |p| put_and_delete(p).boxed_local(),
        second: &[|p| list(p).boxed_local()],
        ..Workload::DEFAULT
    },
    Workload {
        name: "backup",
        first: |p| two_backups(p).boxed_local(),
        second: &[|p| backup_after(p).boxed_local(), |p| collection_after(p).boxed_local()],
        ..Workload::DEFAULT
    },
    Workload {
        name: "forget and prune",
        before: |p| a_collection(p).boxed_local(),
        first: |p| forget_and_prune(p).boxed_local(),
        second: &[|p| backup_after(p).boxed_local(), |p| collection_after(p).boxed_local()],
        ..Workload::DEFAULT
    },
    Workload {
        name: "prune that is outrun",
        before: |p| a_collection(p).boxed_local(),
        first: |p| forget_and_prune(p).boxed_local(),
        outrun: true,
        ..Workload::DEFAULT
    },
];

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

async fn two_backups(process: &Process) {
    process.init().await.unwrap();
    process.back_up().await.unwrap();
    process.source.change();
    process.back_up().await.unwrap();
}

/// Leaves a removal behind, which the next collection folds with its own.
async fn a_collection(process: &Process) {
    two_backups(process).await;
    forget_and_prune(process).await;
}

async fn backup_after(process: &Process) {
    // An `init` that was killed after its last word may have left a repository that nobody has the key of.
    if process.init().await.is_ok() {
        process.back_up().await.unwrap();
    }
}

async fn forget_and_prune(process: &Process) {
    process.forget().await.unwrap();
    process.prune().await.unwrap();
    process.source.change();
    process.back_up().await.unwrap();
}

async fn collection_after(process: &Process) {
    if process.init().await.is_ok() {
        process.prune().await.unwrap();
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

/// Remembers the moments of a process. The facts are taken first: what is acknowledged by now was so before this call.
fn watch(
    (facts, local): (&Arc<Mutex<Facts>>, &Path),
    copies: PathBuf,
    wanted: impl Fn(usize) -> bool + Send + std::marker::Sync + 'static,
) -> (Watch, Arc<Mutex<Vec<Moment>>>) {
    let moments = Arc::new(Mutex::new(Vec::new()));
    let (facts, local, kept, calls) =
        (Arc::clone(facts), local.to_owned(), Arc::clone(&moments), AtomicUsize::new(0));
    let watch = move |disk: &State, call: &str| {
        let number = calls.fetch_add(1, Ordering::Relaxed);
        if wanted(number) {
            let facts = facts.lock().unwrap().clone();
            let copied = copies.join(number.to_string());
            copy(&local, &copied);
            let call = call.to_owned();
            kept.lock().unwrap().push(Moment { call, disk: disk.clone(), local: copied, facts });
        }
    };
    (Arc::new(watch), moments)
}

async fn record(workload: &Workload, omit: Option<Sync>) -> Run {
    let (home, source) = (tempfile::tempdir().unwrap(), Arc::new(Source::new()));
    let facts = Arc::new(Mutex::new(Facts::default()));
    let local = home.path().join("local");
    std::fs::create_dir(&local).unwrap();
    let disk = SimDisk::new(State::new(), omit, None);
    (workload.before)(&Process::new(disk.clone(), &local, Arc::clone(&source), Arc::clone(&facts))).await;
    let (watch, moments) = watch((&facts, &local), home.path().join("copies"), |_| true);
    let make = if workload.outrun { SimDisk::outrun } else { SimDisk::new };
    let disk = make(disk.state(), omit, Some(Arc::clone(&watch)));
    let process = Process::new(disk.clone(), &local, Arc::clone(&source), facts);
    (workload.first)(&process).await;
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
            for entry in
                ignore::WalkBuilder::new(left.path()).standard_filters(false).build().map(Result::unwrap)
            {
                if entry.file_type().is_some_and(|kind| kind.is_file()) && dice.below(2) == 0 {
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

/// What the power leaves of a moment, and what is left of the local state: equal ones are one.
type Seen = HashSet<([u8; 32], u64, Stage)>;

/// The power is cut at this moment.
fn cut(moment: &Moment, source: &Arc<Source>, (what, seed): (String, u64), seen: &mut Seen) -> Option<Case> {
    let mut disk = moment.disk.after_power_cut(seed);
    // Every damage to the local state is another case.
    let local = if seed % 3 == 2 { seed } else { seed % 3 };
    seen.insert((disk.fingerprint(), local, moment.facts.stage())).then(|| Case {
        what: format!("{what} before `{}`, seed {seed}", moment.call),
        disk,
        local: local_after(&moment.local, seed),
        facts: moment.facts.clone(),
        source: Arc::clone(source),
    })
}

fn seed_at(seed: u64, number: usize) -> u64 {
    if seed < 4 { seed } else { seed * 100_003 + number as u64 }
}

/// The power is cut at every moment of a run.
fn cuts_of(run: &Run, seeds: u64) -> Vec<Case> {
    let mut seen = Seen::new();
    let mut cases = Vec::new();
    for seed in 0..seeds {
        for (number, moment) in run.moments.iter().enumerate() {
            let what = (format!("cut {number}"), seed_at(seed, number));
            cases.extend(cut(moment, &run.source, what, &mut seen));
        }
    }
    cases
}

/// Calls of the second process before one of which the power may be cut, too.
const SECOND: usize = 80;

/// The process is killed at a moment, another one goes on, and then the power is cut: when that one has ended, or before one
/// of its calls.
async fn cuts_after(run: &Run, number: usize, (work, omit, seeds): (Work, Option<Sync>, u64)) -> Vec<Case> {
    let moment = &run.moments[number];
    let home = tempfile::tempdir_in(run.home.path()).unwrap();
    let local = home.path().join("local");
    copy(&moment.local, &local);
    let facts = Arc::new(Mutex::new(moment.facts.clone()));
    let during = Dice::new(number as u64).below(SECOND);
    let (watch, moments) = watch((&facts, &local), home.path().join("copies"), move |call| call == during);
    let disk = SimDisk::new(moment.disk.clone(), omit, Some(watch));
    work(&Process::new(disk.clone(), &local, Arc::clone(&run.source), Arc::clone(&facts))).await;
    let end =
        Moment { call: "the end".into(), disk: disk.state(), local, facts: facts.lock().unwrap().clone() };
    drop(disk);
    let mut moments = std::mem::take(&mut *moments.lock().unwrap());
    moments.push(end);
    let mut seen = Seen::new();
    let mut cases = Vec::new();
    for seed in 0..seeds {
        for then in &moments {
            let what =
                format!("killed {number} before `{}`, then the work of another, then cut", moment.call);
            cases.extend(cut(then, &run.source, (what, seed_at(seed, number)), &mut seen));
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

/// Calls of a workload that are always tried all.
const FEW: usize = 40;

/// States tried at each call.
fn seeds() -> u64 {
    std::env::var("LIFEBOAT_CUTS").ok().and_then(|text| text.parse().ok()).unwrap_or(5)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn the_power_may_be_cut_at_every_system_call() {
    for workload in WORKLOADS.iter().filter(|workload| seeds() >= THOROUGH || !workload.outrun) {
        let run = record(workload, None).await;
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
    for workload in WORKLOADS.iter().filter(|workload| !workload.second.is_empty()) {
        let run = record(workload, None).await;
        let mut checked = 0;
        // Of the many calls of a backup or a collection another part for each second process, when it must be quick.
        let quick = seeds() < THOROUGH;
        let step = if quick && run.moments.len() > FEW { FEW / 5 } else { 1 };
        for (first, second) in workload.second.iter().enumerate() {
            for number in (first * step / 2..run.moments.len()).step_by(step) {
                let seeds = if quick { 2 } else { 6 };
                let cases = cuts_after(&run, number, (*second, None, seeds)).await;
                checked += cases.len();
                if let Some(failure) = first_failure(cases).await {
                    panic!("{}: {failure}", workload.name);
                }
            }
        }
        println!("{}: killed at {} calls, {checked} different cases", workload.name, run.moments.len() - 1);
    }
}

/// How a workload shows that a kind of sync is left out, if it does.
async fn caught(workload: &Workload, omit: Sync) -> Option<String> {
    let run = record(workload, Some(omit)).await;
    if let Some(failure) = first_failure(cuts_of(&run, 6)).await {
        return Some(failure);
    }
    for number in 0..run.moments.len() {
        for second in workload.second {
            let cases = cuts_after(&run, number, (*second, Some(omit), 2)).await;
            if let Some(failure) = first_failure(cases).await {
                return Some(failure);
            }
        }
    }
    None
}

/// Of the workloads these are about single objects, all others about a repository.
const OBJECTS: usize = 3;

/// With time enough something must be lost both of single objects and of a repository.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn without_any_one_sync_something_is_lost() {
    let (objects, repositories) = WORKLOADS.split_at(OBJECTS);
    let mut missed = Vec::new();
    for omit in Sync::ALL {
        let asked = if seeds() < THOROUGH { &[objects][..] } else { &[objects, repositories] };
        for workloads in asked {
            match first_loss(workloads, omit).await {
                Some(failure) => println!("without {omit:?}, {failure}"),
                None => missed.push((omit, workloads[0].name)),
            }
        }
    }
    assert!(missed.is_empty(), "nothing is lost without {missed:?}");
}

async fn first_loss(workloads: &[Workload], omit: Sync) -> Option<String> {
    for workload in workloads {
        if let Some(failure) = caught(workload, omit).await {
            return Some(format!("{}: {failure}", workload.name));
        }
    }
    None
}
