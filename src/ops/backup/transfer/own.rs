//! A tree of this machine that is read step by step while something else goes on, such as a database's own backup: a
//! snapshot of this machine's own, without an origin.
//!
//! # Invariants
//! Those of the room. The entries of the root may come in any order, because some are known only when all others are read.

use std::path::Path;

use super::super::job::JobPlace;
use super::super::options::{BackupOptions, BackupSummary};
use super::super::run::{Gathered, How};
use super::super::save::{Subject, save};
use super::super::state::StateFile;
use super::{Foreign, gather};
use crate::error::Error;
use crate::event::Phase;
use crate::format::snapshot::Snapshot;
use crate::repo::{LoadedIndex, Repository};

/// A tree of this machine.
pub(crate) trait Own: Foreign {
    /// Bytes to go through, if that is known; for the bars.
    fn total(&self) -> Option<u64>;

    /// Says what it is, in a snapshot that says everything else of the run. Asked after all was sent.
    fn describe(&self, run: Snapshot) -> Snapshot;

    /// Whether everything is still there that the snapshot needs besides packs; asked once it is stored, before it is confirmed.
    async fn is_kept(&self) -> Result<bool, Error> {
        Ok(true)
    }
}

/// Stores it as a new snapshot, and confirms it. Of the options those count that say what the run is called and how hard it
/// compresses; the sources are named by what they hold and not read.
///
/// # Errors
/// As of a backup; and what `own` ends with.
pub(crate) async fn save_own(
    repo: &Repository,
    options: &BackupOptions,
    own: &impl Own,
) -> Result<BackupSummary, Error> {
    options.check()?;
    let place = JobPlace::lock(repo.env(), repo.id(), &options.job_name()).await?;
    // What waits within what waits would grow with each level.
    Box::pin(save(repo, &place, &Owned { options, own })).await
}

struct Owned<'a, O> {
    options: &'a BackupOptions,
    own: &'a O,
}

impl<O: Own> Subject for Owned<'_, O> {
    fn phase(&self) -> Phase {
        Phase::Backup
    }

    fn dry_run(&self) -> bool {
        false
    }

    fn repeatable(&self) -> bool {
        true
    }

    async fn gather(
        &self,
        repo: &Repository,
        index: &mut LoadedIndex,
        (_, journal): (StateFile<'_>, &Path),
    ) -> Result<Gathered, Error> {
        let (phase, level, total) = (self.phase(), self.options.level, self.own.total());
        let how = How { phase, level, dry_run: self.dry_run(), timeless: false, total };
        gather(repo, (index, journal), (how, None), (self.own, true)).await
    }

    async fn accept(&self, _: &Gathered) -> Result<(), Error> {
        if self.own.stands().await? { Ok(()) } else { Err(Error::OriginGone) }
    }

    async fn is_kept(&self) -> Result<bool, Error> {
        self.own.is_kept().await
    }

    fn describe(&self, run: Snapshot) -> Snapshot {
        let options = self.options;
        self.own.describe(Snapshot {
            host: options.host.clone(),
            user: options.user.clone(),
            job: options.job_name(),
            paths: options.source_names(),
            tags: options.tags.clone(),
            ..run
        })
    }
}
