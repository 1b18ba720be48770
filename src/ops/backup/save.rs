//! From the first look at the store to the confirmed snapshot, whatever it is that is saved.
//!
//! # Invariants
//! Those of the room: no acknowledgement before the check, and what a collector took away under the run is stored again.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::confirm::{self, Settled, Stored};
use super::job::JobPlace;
use super::options::BackupSummary;
use super::run::Gathered;
use super::state::{CompleteState, StateFile, Trailer};
use crate::crypto::context;
use crate::error::Error;
use crate::event::{Event, Phase};
use crate::format::snapshot::Snapshot;
use crate::id::{PackId, SnapshotId};
use crate::ops::tree::is_cache_damage;
use crate::repo::{Dependencies, Heads, Listed, LoadedIndex, OwnSnapshots, Repository, SeenSnapshots};

/// How often a run is repeated because a collector took packs away under it.
const HEALS: usize = 3;

/// What a run saves.
pub(super) trait Subject {
    /// What a person calls the work on it.
    fn phase(&self) -> Phase;

    /// Whether nothing is to be stored.
    fn dry_run(&self) -> bool;

    /// Whether it can be read again, and is then what it was.
    fn repeatable(&self) -> bool;

    /// Whether a reading that broke off, of which nothing was stored, can begin anew.
    fn can_begin_anew(&self) -> bool {
        self.repeatable()
    }

    /// Reads it once, and stores what is new.
    async fn gather(
        &self,
        repo: &Repository,
        index: &mut LoadedIndex,
        local: (StateFile<'_>, &Path),
    ) -> Result<Gathered, Error>;

    /// Whether what was read may become a snapshot.
    async fn accept(&self, gathered: &Gathered) -> Result<(), Error>;

    /// Whether everything is still there that the stored snapshot needs besides packs.
    async fn is_kept(&self) -> Result<bool, Error> {
        Ok(true)
    }

    /// Says what it is, in a snapshot that says everything of the run.
    fn describe(&self, run: Snapshot) -> Snapshot;
}

/// Saves the subject as a new snapshot of the job whose place this is.
pub(super) async fn save(
    repo: &Repository,
    place: &JobPlace,
    subject: &impl Subject,
) -> Result<BackupSummary, Error> {
    let env = repo.env();
    let start = env.clock.monotonic();
    let began = env.clock.now();
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
        let mut gathered = match subject.gather(repo, &mut index, (state, &journal)).await {
            Err(error) if attempt < HEALS && begins_anew(&error, subject) => continue,
            other => other?,
        };
        summary.add(&gathered);
        if subject.dry_run() {
            break;
        }
        if env.cancel.is_raised() {
            return Err(Error::Cancelled);
        }
        subject.accept(&gathered).await?;
        observer.observe(&Event::PhaseStarted { phase: Phase::Commit, total: None });
        let run = describe_run(repo, (&gathered, &summary), (&heads, began.0, start));
        let snapshot = subject.describe(run);
        let id = repo.put_snapshot(heads.next, &snapshot, &gathered.keys).await?;
        remember(repo, (heads.next, id), &snapshot);
        let repeatable = subject.repeatable();
        let stored = Stored { sequence: heads.next, id, root: gathered.root, repeatable };
        let lost = std::mem::take(&mut gathered.lost);
        match confirm::settle(repo, &stored, &mut index, &mut gathered.dependencies, lost).await? {
            Settled::Clean => {
                summary.packs = acknowledge(repo, subject, &stored, (gathered, &heads)).await?;
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

/// Whether a run begins again with what the store has: the cache has dropped what was damaged.
fn begins_anew(error: &Error, subject: &impl Subject) -> bool {
    is_cache_damage(error) && subject.can_begin_anew()
}

/// What a key that opens no snapshots knows of its own it has from here. Without it a name is not shown, which is no reason to
/// fail.
fn remember(repo: &Repository, (sequence, id): (u64, SnapshotId), snapshot: &Snapshot) {
    let (Some(own), Ok((writer, _))) = (OwnSnapshots::of(repo), repo.writer()) else { return };
    let stored = repo.env().clock.now();
    if let Err(error) = own.note(&Listed { writer, sequence, id, confirmed: false, stored }, snapshot) {
        let message = format!("this machine will not show the snapshot's name: {error}");
        repo.env().observer.observe(&Event::Warning { message: &message });
    }
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

/// A snapshot that says what there is to say of the run.
fn describe_run(
    repo: &Repository,
    (gathered, summary): (&Gathered, &BackupSummary),
    (heads, began, start): (&Heads, i64, Duration),
) -> Snapshot {
    let elapsed = repo.env().clock.monotonic().saturating_sub(start);
    Snapshot {
        time: began,
        duration: u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX),
        root: gathered.root,
        totals: gathered.totals,
        new_bytes: summary.new_bytes,
        stored_bytes: summary.stored_bytes,
        problems: summary.failed,
        horizon: gathered.horizon,
        parents: heads.parents.clone(),
        run: gathered.keys.run,
        program: concat!("lifeboat ", env!("CARGO_PKG_VERSION")).to_owned(),
        ..Snapshot::empty()
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

/// The check came out clean: lock what must not go now, confirm, and only then replace the local state. Gives the packs that
/// the snapshot needs.
async fn acknowledge(
    repo: &Repository,
    subject: &impl Subject,
    stored: &Stored,
    (gathered, heads): (Gathered, &Heads),
) -> Result<Vec<PackId>, Error> {
    if !subject.is_kept().await? {
        let reason = "a collector removed log that it needs, or is about to";
        return Err(Error::Unconfirmed { snapshot: stored.id.into(), reason });
    }
    // Before anybody is told that the snapshot is there: for half of the lock's time at least it can lose nothing.
    let parents = heads.parents.iter().copied().collect();
    repo.extend_locks(&gathered.dependencies.0, &parents).await?;
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
    Ok(trailer.packs)
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
        self.root = gathered.root;
        self.missing.clone_from(&gathered.missing);
        self.excluded = gathered.excluded;
        self.streams.clone_from(&gathered.streams);
        self.bytes_read += gathered.bytes_read;
        self.new_bytes += gathered.new_bytes;
        self.stored_bytes += gathered.stored_bytes;
        self.resumed_bytes += gathered.resumed_bytes;
    }
}
