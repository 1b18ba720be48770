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
mod round;
mod run;
mod save;
mod sink;
mod state;
mod stream;
#[cfg(test)]
mod tests;
mod threads;
mod transfer;
mod tree;
mod upload;
mod worker;

use std::path::Path;
use std::sync::Arc;

use job::JobPlace;
pub(in crate::ops) use node::{NodeMaker, file_time, node_kind};
pub use options::{BackupOptions, BackupSource, BackupSummary, Databases, Input, SavedStream, StreamSource};
use run::Gathered;
pub(in crate::ops) use run::walk_options;
use save::{Subject, save};
use state::StateFile;
pub use transfer::Brought;
pub(crate) use transfer::{
    Arrival, Base, Feed, Foreign, Own, TransferPlace, Transferred, save_own, transfer,
};

use crate::error::Error;
use crate::event::Phase;
use crate::format::snapshot::Snapshot;
use crate::repo::{LoadedIndex, Repository};

/// A run after which fewer entries than one in this many are left is refused.
const SHRINK: u64 = 10;
/// Fewer entries than this may vanish without a question.
const SHRINK_LEAST: u64 = 10;

/// Saves the sources as a new snapshot.
///
/// # Errors
/// [`Error::NoSource`] if no source exists, [`Error::Shrunk`] if most of the last run is gone, [`Error::Busy`] if the job
/// is running, [`Error::Unconfirmed`] if the snapshot is stored but could not be confirmed; and whatever the store says.
pub async fn backup(repo: &Repository, options: BackupOptions) -> Result<BackupSummary, Error> {
    options.check()?;
    let place = JobPlace::lock(repo.env(), repo.id(), &options.job_name()).await?;
    save(repo, &place, &Sources(Arc::new(options))).await
}

/// What a backup saves.
struct Sources(Arc<BackupOptions>);

impl Subject for Sources {
    fn phase(&self) -> Phase {
        Phase::Backup
    }

    fn dry_run(&self) -> bool {
        self.0.dry_run
    }

    fn repeatable(&self) -> bool {
        matches!(self.0.source, BackupSource::Paths(_)) && self.0.streams.is_empty()
    }

    fn can_begin_anew(&self) -> bool {
        // Commands run once more; of standard input only the rest would come.
        !matches!(self.0.source, BackupSource::Stdin)
    }

    async fn gather(
        &self,
        repo: &Repository,
        index: &mut LoadedIndex,
        local: (StateFile<'_>, &Path),
    ) -> Result<Gathered, Error> {
        run::gather(repo, &self.0, index, local).await
    }

    async fn accept(&self, gathered: &Gathered) -> Result<(), Error> {
        let (Some(before), now) = (gathered.entries_before, gathered.totals.entries) else { return Ok(()) };
        let gone = before >= SHRINK_LEAST && now < before / SHRINK;
        if gone && !self.0.allow_shrink { Err(Error::Shrunk { before, now }) } else { Ok(()) }
    }

    fn describe(&self, run: Snapshot) -> Snapshot {
        Snapshot {
            host: self.0.host.clone(),
            user: self.0.user.clone(),
            job: self.0.job_name(),
            paths: self.0.source_names(),
            tags: self.0.tags.clone(),
            ..run
        }
    }
}

/// Relaxed is enough: the threads that counted have ended.
fn total(counter: &std::sync::atomic::AtomicU64) -> u64 {
    counter.load(std::sync::atomic::Ordering::Relaxed)
}
