//! Backup: sources to packs to a confirmed snapshot.
//!
//! # Invariants
//! Nothing is acknowledged before the check of `docs/protocol.md`, Writer 4, came out clean. A source that cannot be read
//! is an event and a count; a store that cannot be written ends the run.
//!
//! # Crash
//! Before the snapshot: packs, which the next run of the job adopts through the journal. Before the confirmation: a
//! snapshot that no one was told of. The last run's state is replaced only after the confirmation.

mod again;
mod assemble;
mod confirm;
mod content;
mod image;
mod job;
mod large;
mod last;
mod merge;
mod node;
mod options;
mod ranges;
mod run;
mod sink;
mod state;
mod stream;
#[cfg(test)]
mod tests;
mod tree;
mod upload;
mod worker;

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Duration;

use confirm::{Settled, Stored};
use job::JobPlace;
pub(in crate::ops) use node::{file_time, node_kind};
pub use options::{BackupOptions, BackupSource, BackupSummary};
use run::Gathered;
pub(in crate::ops) use run::walk_options;
use state::{CompleteState, StateFile, Trailer};

use crate::crypto::context;
use crate::error::Error;
use crate::event::{Event, Phase};
use crate::format::snapshot::Snapshot;
use crate::index::IndexError;
use crate::repo::{Dependencies, Heads, LoadedIndex, Repository, SeenSnapshots};

/// A run after which fewer entries than one in this many are left is refused.
const SHRINK: u64 = 10;
/// Fewer entries than this may vanish without a question.
const SHRINK_LEAST: u64 = 10;
/// How often a run is repeated because a collector took packs away under it.
const HEALS: usize = 3;

/// Saves the sources as a new snapshot.
///
/// # Errors
/// [`Error::NoSource`] if no source exists, [`Error::Shrunk`] if most of the last run is gone, [`Error::Busy`] if the job
/// is running, [`Error::Unconfirmed`] if the snapshot is stored but could not be confirmed; and whatever the store says.
pub async fn backup(repo: &Repository, options: BackupOptions) -> Result<BackupSummary, Error> {
    let env = repo.env();
    let start = env.clock.monotonic();
    let began = env.clock.now();
    options.check()?;
    let place = JobPlace::lock(env, repo.id(), &options.job_name()).await?;
    let observer = &*env.observer;
    observer.observe(&Event::PhaseStarted { phase: Phase::Open, total: None });
    let state_key = repo.dedup_key(context::LOCAL_STATE)?;
    let (state_path, aside, journal) = (place.state(), Aside(place.aside()), place.journal());
    let mut state = StateFile { path: &state_path, aside: None, key: &state_key, repository: repo.id() };
    // The heads and what is there have no order among each other.
    let (mut heads, loaded) = env.limits.both(repo.heads(), repo.load_index()).await?;
    let (mut loaded, mut summary) = (Some(loaded), BackupSummary::default());
    for attempt in 1..=HEALS {
        if attempt > 1 {
            observer.observe(&Event::PhaseStarted { phase: Phase::Open, total: None });
        }
        let mut index = match loaded.take() {
            Some(loaded) => loaded,
            None => repo.load_index().await?,
        };
        report_problems(repo, &index);
        let mut gathered = match run::gather(repo, &options, &mut index, (state, &journal)).await {
            // The cache drops what is damaged, and the run begins again with what the store has.
            Err(Error::Index(IndexError::CacheDamaged { .. })) if attempt < HEALS => continue,
            other => other?,
        };
        summary.add(&gathered);
        if options.dry_run {
            break;
        }
        if env.cancel.is_raised() {
            return Err(Error::Cancelled);
        }
        refuse_shrink(&options, &gathered)?;
        observer.observe(&Event::PhaseStarted { phase: Phase::Commit, total: None });
        let snapshot = describe(repo, &options, (&gathered, &summary), (&heads, began.0, start));
        let id = repo.put_snapshot(heads.next, &snapshot, &gathered.keys).await?;
        let repeatable = matches!(options.source, BackupSource::Paths(_));
        let stored = Stored { sequence: heads.next, id, root: gathered.root, repeatable };
        let lost = std::mem::take(&mut gathered.lost);
        match confirm::settle(repo, &stored, &mut index, &mut gathered.dependencies, lost).await? {
            Settled::Clean => {
                acknowledge(repo, &stored, gathered).await?;
                summary.snapshot = Some(id);
            }
            Settled::Again => {
                // What is gone is read and stored again, into a further snapshot.
                heads = Heads { next: heads.next + 1, parents: vec![id] };
                state.aside = aside.keep(gathered).then_some(&aside.0);
            }
        }
        observer.observe(&Event::PhaseFinished { phase: Phase::Commit });
        if summary.snapshot.is_some() {
            break;
        }
        summary.unconfirmed = Some(id);
    }
    if let (None, Some(id)) = (summary.snapshot, summary.unconfirmed.take()) {
        let reason = "a collector removed packs it depends on again and again";
        return Err(Error::Unconfirmed { snapshot: id.into(), reason });
    }
    summary.elapsed = env.clock.monotonic().saturating_sub(start);
    Ok(summary)
}

fn report_problems(repo: &Repository, index: &LoadedIndex) {
    for warning in &index.cache_warnings {
        repo.env().observer.observe(&Event::Warning { message: &warning.to_string() });
    }
    for problem in &index.problems {
        let message = format!("object {} was skipped: {}", problem.key, problem.error);
        repo.env().observer.observe(&Event::Warning { message: &message });
    }
}

fn refuse_shrink(options: &BackupOptions, gathered: &Gathered) -> Result<(), Error> {
    let (Some(before), now) = (gathered.entries_before, gathered.totals.entries) else { return Ok(()) };
    let gone = before >= SHRINK_LEAST && now < before / SHRINK;
    if gone && !options.allow_shrink { Err(Error::Shrunk { before, now }) } else { Ok(()) }
}

fn describe(
    repo: &Repository,
    options: &BackupOptions,
    (gathered, summary): (&Gathered, &BackupSummary),
    (heads, began, start): (&Heads, i64, Duration),
) -> Snapshot {
    let elapsed = repo.env().clock.monotonic().saturating_sub(start);
    Snapshot {
        time: began,
        duration: u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX),
        host: options.host.clone(),
        user: options.user.clone(),
        job: options.job_name(),
        paths: options.source_names(),
        tags: options.tags.clone(),
        root: gathered.root,
        totals: gathered.totals,
        new_bytes: summary.new_bytes,
        stored_bytes: summary.stored_bytes,
        problems: summary.failed,
        horizon: gathered.horizon,
        parents: heads.parents.clone(),
        run: gathered.keys.run,
        program: concat!("lifeboat ", env!("CARGO_PKG_VERSION")).to_owned(),
    }
}

/// What a run knew whose snapshot was not confirmed: its next try looks up what it would have to read. Gone with the run.
struct Aside(PathBuf);

impl Aside {
    /// True if there is something to compare with.
    fn keep(&self, gathered: Gathered) -> bool {
        let Gathered { state, totals, dependencies: Dependencies(packs), .. } = gathered;
        // Packs that are lost are among these, so nothing is taken over without a look.
        let trailer = Trailer { totals, packs: packs.into_iter().collect() };
        state.is_some_and(|state| state.complete(&trailer).and_then(|s| s.put_aside(&self.0)).is_ok())
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        // One that stays is never read: a run reads only what it wrote itself.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// The check came out clean: confirm, and only then replace the local state.
async fn acknowledge(repo: &Repository, stored: &Stored, gathered: Gathered) -> Result<(), Error> {
    repo.confirm_snapshot(stored.sequence, stored.id).await?;
    let warn = |message: String| repo.env().observer.observe(&Event::Warning { message: &message });
    // The snapshot is confirmed: from here on, what fails costs a later run time or a comparison, and this one nothing.
    if let Err(error) = SeenSnapshots::note(repo, (repo.writer()?.0, stored.sequence, stored.id)) {
        warn(format!("a collection on this machine will not miss the snapshot if it vanishes: {error}"));
    }
    let Gathered { state, totals, dependencies: Dependencies(packs), .. } = gathered;
    let trailer = Trailer { totals, packs: packs.into_iter().collect() };
    if let Some(state) = state
        && let Err(error) = state.complete(&trailer).and_then(CompleteState::install)
    {
        warn(format!("the next run will read everything again: {error}"));
    }
    repo.env().observer.observe(&Event::Committed { snapshot: stored.id });
    Ok(())
}

impl BackupSummary {
    fn add(&mut self, gathered: &Gathered) {
        let tally = gathered.tally;
        (self.entries, self.files) = (gathered.totals.entries, gathered.totals.files);
        self.bytes = gathered.totals.bytes;
        // Compared with the last run, not with an earlier try of this one.
        if self.unconfirmed.is_none() {
            self.new_files = tally.new_files;
            self.changed_files = tally.changed_files;
            self.unchanged_files = tally.unchanged_files;
        }
        self.failed = tally.failed;
        self.missing.clone_from(&gathered.missing);
        self.excluded = gathered.excluded;
        self.bytes_read += gathered.bytes_read;
        self.new_bytes += gathered.new_bytes;
        self.stored_bytes += gathered.stored_bytes;
        self.resumed_bytes += gathered.resumed_bytes;
    }
}

/// Relaxed is enough: the threads that counted have ended.
fn total(counter: &std::sync::atomic::AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}
