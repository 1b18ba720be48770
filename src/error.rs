//! The one error of public operations. Rooms below have their own; here they meet, and answer with a [`Class`].

mod base;
mod log;
mod sqlite;
mod trust;
mod words;

use std::path::PathBuf;

pub use self::base::BaseError;
pub use self::log::LogError;
pub use self::sqlite::SqliteError;
pub use self::trust::TrustError;
use self::words::{doubt, group_name, io_class};
use crate::class::Class;
use crate::crypto::CryptoError;
use crate::database::PgError;
use crate::filter::FilterError;
use crate::format::FormatError;
use crate::id::{ChunkId, ObjectHash, RepositoryId, SnapshotId, WriterId};
use crate::index::IndexError;
use crate::policy::PolicyError;
use crate::repo::RepoError;
use crate::restic::ResticError;
use crate::retention::Group;
use crate::seal::SealError;
use crate::source::SourceError;
use crate::source::target::TargetError;
use crate::store::StoreError;

/// Why an operation failed. Messages say what, the sources say why; hints belong to the command line.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The repository could not be opened, read or written.
    #[error(transparent)]
    Repo(#[from] RepoError),
    /// The object storage failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A source could not be read at all.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The restore target could not be written.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// An include or exclude rule is wrong.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// A segment could not be sealed or opened.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// The index cache failed.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// A key could not be used.
    #[error(transparent)]
    Crypto(#[from] CryptoError),
    /// A repository of restic could not be read.
    #[error(transparent)]
    Restic(#[from] ResticError),
    /// No permission of a store can be written.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// A database's log could not be stored, read or shown.
    #[error(transparent)]
    Log(#[from] LogError),
    /// A server of PostgreSQL, or a file of it, cannot be used.
    #[error(transparent)]
    Postgres(#[from] PgError),
    /// A base backup cannot be made or restored.
    #[error(transparent)]
    Base(#[from] BaseError),
    /// A database of SQLite cannot be restored.
    #[error(transparent)]
    Sqlite(#[from] SqliteError),
    /// Stored bytes break the format.
    #[error("object {key} is damaged")]
    Damaged {
        /// The object.
        key: String,
        /// The rule it breaks.
        #[source]
        rule: FormatError,
    },
    /// A chunk has no readable copy.
    #[error("chunk {chunk} has no readable copy")]
    ChunkLost {
        /// The chunk.
        chunk: ChunkId,
    },
    /// None of the sources exists.
    #[error("none of the sources exists: {}", paths.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(", "))]
    NoSource {
        /// The sources as given.
        paths: Vec<PathBuf>,
    },
    /// The command whose output was to be saved failed.
    #[error("the command for {} failed, so nothing was saved", name.display())]
    CommandFailed {
        /// What its output was to be called.
        name: PathBuf,
        /// How it failed.
        #[source]
        source: Box<SourceError>,
    },
    /// Most of what the last run saw is gone.
    #[error("the sources hold {now} entries, last time they held {before}: nothing was saved")]
    Shrunk {
        /// Entries last time.
        before: u64,
        /// Entries now.
        now: u64,
    },
    /// Another run of this job holds its state.
    #[error("another run of this job is at work (lock {})", lock.display())]
    Busy {
        /// The lock file.
        lock: PathBuf,
    },
    /// The snapshot is stored but could not be confirmed.
    #[error("snapshot {snapshot} is stored but not confirmed: {reason}")]
    Unconfirmed {
        /// The snapshot.
        snapshot: ObjectHash,
        /// Why, in words.
        reason: &'static str,
    },
    /// No snapshot matches.
    #[error("no snapshot matches {selector:?}")]
    NoSnapshot {
        /// What was asked for.
        selector: String,
    },
    /// Several snapshots match.
    #[error("{selector:?} matches {count} snapshots")]
    AmbiguousSnapshot {
        /// What was asked for.
        selector: String,
        /// How many match.
        count: usize,
    },
    /// The snapshot that a selector means, or may mean, cannot be read. An older one does not stand in for it.
    #[error("{selector:?} may mean snapshot {snapshot}, which cannot be read")]
    UnreadableSnapshot {
        /// What was asked for.
        selector: String,
        /// The snapshot.
        snapshot: SnapshotId,
        /// Why not.
        #[source]
        cause: Box<Error>,
    },
    /// A selector is not well formed.
    #[error("{selector:?} is not a snapshot selector")]
    BadSelector {
        /// What was given.
        selector: String,
    },
    /// The snapshot does not hold this path.
    #[error("the snapshot holds no {}", path.display())]
    NoSuchPath {
        /// The path asked for.
        path: PathBuf,
    },
    /// The path is not a regular file.
    #[error("{} is not a regular file", path.display())]
    NotAFile {
        /// The path asked for.
        path: PathBuf,
    },
    /// The target has less room than the restore needs.
    #[error("the target needs {needed} bytes and has {free}")]
    TargetTooSmall {
        /// Bytes the restore will write.
        needed: u64,
        /// Bytes free.
        free: u64,
    },
    /// The target is a block device, and nothing says that what is on it may go.
    #[error("{} is a block device of {size} bytes, whose content would be overwritten: nothing was written", path.display())]
    DeviceOverwrite {
        /// The device.
        path: PathBuf,
        /// Its size in bytes.
        size: u64,
    },
    /// A device takes one file from its beginning.
    #[error("a block device is written whole: nothing on it is kept, removed or stripped")]
    NotOnDevice,
    /// What is written in place is newer than the snapshot until it is done, and would be left for ever if it is not.
    #[error("what is not to be overwritten cannot be restored in place")]
    InPlacePolicy,
    /// A restore would remove more from the target than it brings.
    #[error("{removed} entries would be removed from the target, which gets {restored}: nothing was done")]
    ManyDeleted {
        /// Entries that would go.
        removed: u64,
        /// Entries that are restored.
        restored: u64,
    },
    /// A place for local files is missing or unusable.
    #[error("cannot use {}", path.display())]
    Local {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The output could not be written.
    #[error("cannot write the output")]
    Output(#[source] std::io::Error),
    /// An archive was to be written to a terminal.
    #[error("{} is a terminal, and an archive is not for the eye", path.display())]
    OutputIsTerminal {
        /// The terminal.
        path: PathBuf,
    },
    /// The sources lie inside the repository, or the target does.
    #[error("{} lies inside the repository", path.display())]
    InsideRepository {
        /// The path.
        path: PathBuf,
    },
    /// The path is not a directory.
    #[error("{} is not a directory", path.display())]
    NotADirectory {
        /// The path asked for.
        path: PathBuf,
    },
    /// Nothing can be mounted at a place.
    #[error("cannot mount at {}: {fault}", path.display())]
    MountPoint {
        /// The place.
        path: PathBuf,
        /// What is wrong with it, in words.
        fault: &'static str,
    },
    /// This machine cannot mount.
    #[error("this machine has no {missing}, so nothing can be mounted")]
    NoFuse {
        /// A device or a program.
        missing: &'static str,
    },
    /// The system does not let this user give others access to a mount.
    #[error("this machine does not let an ordinary user give others access to a mount")]
    OthersRefused,
    /// The system did not mount, or not unmount.
    #[error("mounting at {} failed", path.display())]
    MountRefused {
        /// The place.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A new repository needs something that opens it.
    #[error("a new repository needs a passphrase, a key file or recovery words")]
    NoKeySlot,
    /// The store failed its trial.
    #[error("the store at {url} does not show what was just written or deleted")]
    WeakStore {
        /// Where.
        url: String,
    },
    /// Objects were to be locked, and the store does not do that.
    #[error("{url} does not lock objects: nothing was made")]
    NotLockable {
        /// Where.
        url: String,
    },
    /// A collection cannot tell what is gone from what is not listed.
    #[error("the store at {url} does not list what was just stored: nothing was collected")]
    NotListed {
        /// Where.
        url: String,
    },
    /// There are packs, index objects or snapshots, but no configuration.
    #[error("{url} holds parts of a repository without its configuration: nothing was made")]
    Remains {
        /// Where.
        url: String,
    },
    /// What describes the run does not fit into a snapshot.
    #[error(
        "the sources, names and tags of this run do not fit into a snapshot; give the job a short name, and name a directory instead of what is in it"
    )]
    DescriptionTooLong(#[source] FormatError),
    /// A path to store under has a part that no entry may be called.
    #[error("{} has a part that is too long for the name of an entry", path.display())]
    StoredPathTooLong {
        /// The path.
        path: PathBuf,
    },
    /// Neither a policy nor a snapshot says what to forget.
    #[error("nothing says what to forget: a policy that keeps nothing is none")]
    NothingToForget,
    /// Snapshots are named, and a policy is given too.
    #[error("snapshots are named, so no policy can be applied to them")]
    NamedAndPolicy,
    /// Forgetting would leave a job of a machine without any confirmed snapshot.
    #[error("no confirmed snapshot would be left of {}: nothing was forgotten", groups.iter().map(group_name).collect::<Vec<_>>().join("; "))]
    NothingLeft {
        /// Which.
        groups: Vec<Group>,
    },
    /// A hold stands on a snapshot.
    #[error("snapshot {snapshot} is held by {hold}: nothing was forgotten")]
    Held {
        /// The snapshot.
        snapshot: SnapshotId,
        /// The hold.
        hold: ObjectHash,
    },
    /// A removal was quicker.
    #[error("too late: {} removed or about to be: {}", if snapshots.len() == 1 { "this snapshot is" } else { "these snapshots are" }, snapshots.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))]
    TooLate {
        /// The snapshots.
        snapshots: Vec<SnapshotId>,
    },
    /// A hold would end before it begins.
    #[error("this hold would be over already")]
    HoldIsOver,
    /// There is nothing that could keep an object for a legal hold.
    #[error("a legal hold is kept by the store, and this repository has no locks there")]
    NoLegalHold,
    /// No hold matches.
    #[error("no hold matches {selector:?}")]
    NoHold {
        /// What was asked for.
        selector: String,
    },
    /// Several holds match.
    #[error("{selector:?} matches {count} holds")]
    AmbiguousHold {
        /// What was asked for.
        selector: String,
        /// How many match.
        count: usize,
    },
    /// There are more tags, or longer ones, than a snapshot may have.
    #[error("these are too many tags, or too long ones")]
    TagsTooLong(#[source] FormatError),
    /// A snapshot that was there is gone, and nobody who may has removed it.
    #[error("snapshot {snapshot} is gone and no maintainer removed it: nothing was collected")]
    SnapshotVanished {
        /// The snapshot.
        snapshot: SnapshotId,
    },
    /// A snapshot that this machine has seen confirmed is there and cannot be read.
    #[error(
        "snapshot {snapshot} was confirmed and cannot be read any more, or its writer is not known: nothing was collected"
    )]
    SnapshotUnreadable {
        /// The snapshot.
        snapshot: SnapshotId,
    },
    /// A collection would remove many snapshots at once.
    #[error("{removed} of {all} snapshots would be removed at once: nothing was removed")]
    ManyRemoved {
        /// How many would go.
        removed: u64,
        /// How many there are.
        all: u64,
    },
    /// Collecting without a delay would send a running backup back to its sources.
    #[error(
        "writer {writer} stored an index object within the last day and no snapshot since: it may be at work"
    )]
    WriterAtWork {
        /// The writer.
        writer: WriterId,
    },
    /// A mark of a maintainer cannot be read: it may have been a hold, or have taken a tomb back.
    #[error("object {key} is damaged and {}: no snapshot was removed", doubt(key))]
    MarkDamaged {
        /// The object.
        key: String,
    },
    /// What the store shows, or who signed it, is not to be believed.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// Two repositories are needed, and both are one.
    #[error("both are repository {repository}: it cannot be copied to itself")]
    SameRepository {
        /// Which.
        repository: RepositoryId,
    },
    /// What was brought from elsewhere is gone from there, or was forgotten there meanwhile.
    #[error("what was being brought was removed or forgotten meanwhile: no snapshot was made of it")]
    OriginGone,
    /// The user or the system asked the run to stop.
    #[error("stopped before the end, as asked")]
    Cancelled,
}

impl Error {
    /// What kind of failure this is.
    pub fn class(&self) -> Class {
        match self {
            Self::Repo(error) => error.class(),
            Self::Store(error) => error.class(),
            Self::Source(error) => error.class(),
            Self::Target(error) => error.class(),
            Self::Filter(_)
            | Self::Policy(_)
            | Self::NotLockable { .. }
            | Self::BadSelector { .. }
            | Self::InsideRepository { .. }
            | Self::OutputIsTerminal { .. }
            | Self::MountPoint { .. }
            | Self::NoKeySlot
            | Self::DescriptionTooLong(_)
            | Self::NothingToForget
            | Self::NamedAndPolicy
            | Self::HoldIsOver
            | Self::NoLegalHold
            | Self::SameRepository { .. }
            | Self::InPlacePolicy
            | Self::NotOnDevice
            | Self::TagsTooLong(_)
            | Self::StoredPathTooLong { .. } => Class::Usage,
            Self::UnreadableSnapshot { cause, .. } => cause.class(),
            Self::Seal(error) => error.class(),
            Self::Index(error) => error.class(),
            Self::Crypto(error) => error.class(),
            Self::Restic(error) => error.class(),
            Self::Postgres(error) => error.class(),
            Self::Base(error) => error.class(),
            Self::Sqlite(error) => error.class(),
            Self::Damaged { .. }
            | Self::ChunkLost { .. }
            | Self::MarkDamaged { .. }
            | Self::SnapshotUnreadable { .. } => Class::Damage,
            Self::NoSource { .. }
            | Self::CommandFailed { .. }
            | Self::NoSnapshot { .. }
            | Self::AmbiguousSnapshot { .. }
            | Self::NoSuchPath { .. }
            | Self::NotAFile { .. }
            | Self::NotADirectory { .. }
            | Self::NoFuse { .. }
            | Self::OthersRefused
            | Self::MountRefused { .. }
            | Self::TooLate { .. }
            | Self::NoHold { .. }
            | Self::AmbiguousHold { .. }
            | Self::OriginGone
            | Self::Remains { .. } => Class::Failed,
            Self::Shrunk { .. }
            | Self::DeviceOverwrite { .. }
            | Self::WeakStore { .. }
            | Self::NotListed { .. }
            | Self::NothingLeft { .. }
            | Self::Held { .. }
            | Self::ManyRemoved { .. }
            | Self::ManyDeleted { .. }
            | Self::WriterAtWork { .. } => Class::Refused,
            Self::Busy { .. } => Class::Busy,
            Self::Unconfirmed { .. } => Class::Unconfirmed,
            Self::TargetTooSmall { .. } => Class::NoSpace,
            Self::Local { source, .. } | Self::Output(source) => io_class(source),
            Self::SnapshotVanished { .. } => Class::Tampered,
            Self::Trust(error) => error.class(),
            Self::Log(error) => error.class(),
            Self::Cancelled => Class::Cancelled,
        }
    }
}
