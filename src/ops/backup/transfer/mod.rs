//! Transfer: a tree that comes from another repository, step by step, becomes a snapshot of this one.
//!
//! What arrives goes the way of a backup: it is cut, named and looked up with this repository's keys, sealed, opened again
//! and compared, stored, checked and confirmed. Nothing is decrypted to disk. `copy` and `import` are what is at the other
//! end of a [`Feed`].
//!
//! # Invariants
//! Those of the room. What could not be had is recorded with its entry, counted, and said in the snapshot's origin: a copy
//! that lacks something is never taken for a whole one.
//!
//! # Crash
//! As of a backup: the next transfer at the same place adopts the packs that are stored and in no index object.

mod feed;
mod intake;
mod own;
#[cfg(test)]
mod tests;

use std::path::Path;

use feed::Counts;
pub(crate) use feed::Feed;
pub(crate) use own::{Own, save_own};

use super::confirm;
use super::job::JobPlace;
use super::run::{Gathered, How, Pass};
use super::save::{Subject, save};
use super::state::StateFile;
use super::total;
use crate::error::Error;
use crate::event::Phase;
use crate::format::node::Totals;
use crate::format::snapshot::{Origin, Snapshot};
use crate::format::tree::TreeRef;
use crate::id::{PackId, SnapshotId};
use crate::repo::{Dependencies, LoadedIndex, RepoError, Repository};

/// A tree somewhere else.
pub(crate) trait Foreign {
    /// Sends all entries of the tree to `feed`, depth first and in byte order of their names. Called again if a collector
    /// took packs away under the transfer.
    ///
    /// # Errors
    /// What ends the transfer. What concerns an entry only goes to the feed.
    async fn send(&self, feed: &mut Feed) -> Result<(), Error>;

    /// Whether what was sent is still there and wanted; asked once all of it is stored, before a snapshot is made of it.
    async fn stands(&self) -> Result<bool, Error> {
        Ok(true)
    }
}

/// What a snapshot says that is about to arrive, and how it is to be stored.
#[derive(Debug, Clone)]
pub(crate) struct Arrival {
    /// When its run began, nanoseconds since 1970, by the clock of whoever made it.
    pub(crate) time: i64,
    /// How long that took, in nanoseconds.
    pub(crate) duration: u64,
    /// Name of the machine; raw bytes.
    pub(crate) host: Vec<u8>,
    /// Name of the user; raw bytes.
    pub(crate) user: Vec<u8>,
    /// The job.
    pub(crate) job: Vec<u8>,
    /// The sources.
    pub(crate) paths: Vec<Vec<u8>>,
    /// Tags, `key` or `key=value`.
    pub(crate) tags: Vec<String>,
    /// Entries that could not be saved in full when it was made.
    pub(crate) problems: u64,
    /// Where it comes from; what is missing now is added.
    pub(crate) origin: Origin,
    /// Bytes of all files, as far as that is known; for the bars.
    pub(crate) total: Option<u64>,
    /// Level of zstd.
    pub(crate) level: i32,
}

/// Where this machine keeps the journal of transfers of one origin, locked as long as this lives.
#[derive(Debug)]
pub(crate) struct TransferPlace(JobPlace);

impl TransferPlace {
    /// Locks the place of everything that comes from `origin`, which is any text that names that repository.
    ///
    /// # Errors
    /// [`Error::Busy`] if another transfer from there is at work on this machine; [`RepoError::RoleForbids`] without a
    /// maintainer's key, because the origin that another key signs does not count.
    pub(crate) async fn lock(repo: &Repository, origin: &[u8]) -> Result<Self, Error> {
        let action = "bring snapshots from elsewhere";
        repo.maintainer().map_err(|_| RepoError::RoleForbids { action })?;
        // No job has a NUL in its name: this is the place of none of them.
        let name = [b"transfer\0", origin].concat();
        Ok(Self(JobPlace::lock(repo.env(), repo.id(), &name).await?))
    }
}

/// An earlier snapshot of this repository, from which entries can be taken over because all that it needs is usable.
#[derive(Debug, Clone)]
pub(crate) struct Base {
    packs: Vec<PackId>,
}

impl Base {
    /// Looks at everything below `root` in this repository. `None` if some of it is damaged, lost or condemned: then its
    /// chunks can be asked for one by one.
    pub(crate) async fn of(repo: &Repository, root: Option<TreeRef>) -> Result<Option<Self>, Error> {
        let found = confirm::usable(repo, root).await?;
        Ok(found.map(|Dependencies(packs)| Self { packs: packs.into_iter().collect() }))
    }
}

/// A snapshot that was brought from elsewhere, in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Brought {
    /// Its name in this repository.
    pub snapshot: SnapshotId,
    /// What it holds.
    pub totals: Totals,
    /// Files whose content was read there.
    pub read_files: u64,
    /// Files whose content was taken over from the snapshot that was brought before.
    pub known_files: u64,
    /// Bytes of content that were read there, decompressed.
    pub bytes_read: u64,
    /// Bytes that this repository did not have, before compression.
    pub new_bytes: u64,
    /// Bytes that were sent to the store.
    pub stored_bytes: u64,
    /// Bytes of packs that an interrupted run had stored and this one took over.
    pub resumed_bytes: u64,
    /// Entries, and parts of directories, that could not be had in full.
    pub missing: u64,
}

/// What a transfer did.
#[derive(Debug, Clone)]
pub(crate) struct Transferred {
    /// For whoever asked for it.
    pub(crate) brought: Brought,
    /// The root of the snapshot.
    pub(crate) root: Option<TreeRef>,
    /// What the next one may be based on.
    pub(crate) base: Base,
}

/// Stores a foreign tree as a new snapshot, and confirms it.
///
/// # Errors
/// [`Error::DescriptionTooLong`]; [`Error::OriginGone`]; [`Error::Unconfirmed`] if the snapshot is stored but could not be confirmed; what
/// `foreign` ends with, and whatever the store says.
pub(crate) async fn transfer(
    repo: &Repository,
    place: &TransferPlace,
    (arrival, base): (&Arrival, Option<&Base>),
    foreign: &impl Foreign,
) -> Result<Transferred, Error> {
    let subject = Arriving { arrival, base, foreign };
    // As many parents as nobody has: they are not known yet.
    let parents = vec![SnapshotId::new([0; 32]); 256];
    let described = subject.describe(Snapshot { parents, ..Snapshot::empty() });
    described.check().map_err(Error::DescriptionTooLong)?;
    // What waits within what waits would grow with each level.
    let done = Box::pin(save(repo, &place.0, &subject)).await?;
    // Without a snapshot only a dry run ends well, and a transfer is none.
    let Some(snapshot) = done.snapshot else { return Err(Error::Cancelled) };
    let brought = Brought {
        snapshot,
        totals: Totals { entries: done.entries, files: done.files, bytes: done.bytes },
        read_files: done.new_files,
        known_files: done.unchanged_files,
        bytes_read: done.bytes_read,
        new_bytes: done.new_bytes,
        stored_bytes: done.stored_bytes,
        resumed_bytes: done.resumed_bytes,
        missing: done.failed,
    };
    Ok(Transferred { brought, root: done.root, base: Base { packs: done.packs } })
}

/// Stores what `foreign` sends; `loose` if the entries of its root come in any order.
async fn gather(
    repo: &Repository,
    (index, journal): (&mut LoadedIndex, &Path),
    (how, base): (How, Option<&[PackId]>),
    (foreign, loose): (&impl Foreign, bool),
) -> Result<Gathered, Error> {
    let pass = Pass::new(repo, how, index, base)?;
    let (mut feed, messages) = Feed::new(&pass.sink, loose);
    let counts = feed.counts();
    let beside = Box::pin(async move {
        foreign.send(&mut feed).await?;
        feed.finish().await
    });
    let work = move |plan: &_, sink: &_| intake::work((plan, sink), messages, loose);
    let gathered = Box::pin(pass.run(repo, (index, journal), work, beside)).await?;
    Ok(Gathered { tally: Counts::tally(&counts), ..gathered })
}

fn bytes_so_far(repo: &Repository) -> u64 {
    total(&repo.env().observer.counters().bytes)
}

struct Arriving<'a, F> {
    arrival: &'a Arrival,
    base: Option<&'a Base>,
    foreign: &'a F,
}

impl<F: Foreign> Subject for Arriving<'_, F> {
    fn phase(&self) -> Phase {
        Phase::Transfer
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
        let Arrival { level, total, .. } = *self.arrival;
        // A run may bring several snapshots, and its bars go on from one to the next.
        let before = bytes_so_far(repo);
        let total = total.map(|total| total.saturating_add(before));
        let how = How { phase: self.phase(), level, dry_run: self.dry_run(), timeless: false, total };
        let base = self.base.map(|base| &base.packs[..]);
        gather(repo, (index, journal), (how, base), (self.foreign, false)).await
    }

    async fn accept(&self, _: &Gathered) -> Result<(), Error> {
        if self.foreign.stands().await? { Ok(()) } else { Err(Error::OriginGone) }
    }

    fn describe(&self, run: Snapshot) -> Snapshot {
        let Arrival { time, duration, host, user, job, paths, tags, origin, problems, .. } =
            self.arrival.clone();
        let missing = origin.missing.saturating_add(run.problems);
        Snapshot {
            time,
            duration,
            host,
            user,
            job,
            paths,
            tags,
            problems: problems.saturating_add(run.problems),
            origin: Some(Origin { missing, ..origin }),
            ..run
        }
    }
}
