//! What can go wrong with a repository of restic.

use std::path::PathBuf;

use crate::class::Class;
use crate::compress::CompressError;
use crate::id::ResticId;
use crate::store::StoreError;

/// What is wrong with stored bytes.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// The authentication code does not match.
    #[error("it does not authenticate")]
    Authentication,
    /// The content is not what the name says.
    #[error("its SHA-256 is not its name")]
    Hash,
    /// It was listed, and then it was not there.
    #[error("it is gone since it was listed")]
    Gone,
    /// It ends too early.
    #[error("it is cut off")]
    Truncated,
    /// More bytes than are accepted.
    #[error("it has {len} bytes, more than the {most} allowed")]
    TooLong {
        /// How many.
        len: u64,
        /// The bound.
        most: u64,
    },
    /// The compressed form is not what it should be.
    #[error("it cannot be decompressed")]
    Compression(#[source] CompressError),
    /// The JSON is not what it should be.
    #[error("it is not the JSON it should be")]
    Json(#[source] serde_json::Error),
    /// A value that restic does not write.
    #[error("{what} is wrong")]
    Value {
        /// Which.
        what: &'static str,
    },
}

/// Why a repository of restic could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ResticError {
    /// There is none.
    #[error("there is no restic repository at {url}")]
    NotFound {
        /// Where.
        url: String,
    },
    /// A format that this program does not know.
    #[error("the restic repository has format {version}; 1 and 2 can be read")]
    Version {
        /// Which.
        version: u64,
    },
    /// No key opens with the password.
    #[error("the password opens none of the {keys} keys of the restic repository")]
    WrongPassword {
        /// How many keys there are.
        keys: usize,
    },
    /// The repository has no key that could be tried.
    #[error("the restic repository has no usable key")]
    NoKey,
    /// More keys than are tried.
    #[error("the restic repository has {keys} keys, more than the {most} that are tried")]
    TooManyKeys {
        /// How many.
        keys: usize,
        /// The bound.
        most: usize,
    },
    /// A key wants more work or memory than is spent on it.
    #[error("the cost of restic's key {key} is not accepted: N {n}, r {r}, p {p}")]
    KdfCost {
        /// The key.
        key: String,
        /// Cost.
        n: u64,
        /// Size of a block.
        r: u64,
        /// How often.
        p: u64,
    },
    /// A file of the repository is damaged.
    #[error("restic's {key} is damaged")]
    File {
        /// Its name.
        key: String,
        /// What is wrong.
        #[source]
        fault: Fault,
    },
    /// No index and no pack names the blob.
    #[error("restic's {kind} blob {blob} is in no pack")]
    BlobMissing {
        /// `data` or `tree`.
        kind: &'static str,
        /// The blob.
        blob: ResticId,
    },
    /// A blob is damaged, or its pack is.
    #[error("restic's blob {blob} in pack {pack} is damaged")]
    Blob {
        /// The blob.
        blob: ResticId,
        /// The pack.
        pack: ResticId,
        /// What is wrong.
        #[source]
        fault: Fault,
    },
    /// A pack is not there, or is shorter than the index says.
    #[error("restic's pack {pack} is not there as the index says")]
    Pack {
        /// The pack.
        pack: ResticId,
        /// What the store says.
        #[source]
        source: StoreError,
    },
    /// A directory is not what restic writes.
    #[error("restic's tree {tree} cannot be understood")]
    Tree {
        /// The tree.
        tree: ResticId,
        /// What is wrong.
        #[source]
        fault: Fault,
    },
    /// An entry of a kind that cannot be brought.
    #[error("an entry of the kind {kind:?} cannot be brought")]
    Kind {
        /// As restic says.
        kind: String,
    },
    /// Directories lie too deep in each other, or are too large together.
    #[error("the directories of restic's tree {tree} are too deep or too large to be read")]
    Bounds {
        /// The tree at which it is given up.
        tree: ResticId,
    },
    /// No snapshot has this id.
    #[error("the restic repository has no snapshot {selector:?}")]
    NoSnapshot {
        /// What was asked for.
        selector: String,
    },
    /// Several snapshots have ids that begin like this.
    #[error("{selector:?} is the beginning of {count} snapshots of the restic repository")]
    AmbiguousSnapshot {
        /// What was asked for.
        selector: String,
        /// How many.
        count: usize,
    },
    /// A place for local files cannot be used.
    #[error("cannot use {}", path.display())]
    Local {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A thread broke.
    #[error("a worker broke")]
    Task,
}

impl ResticError {
    /// What kind of failure this is.
    pub fn class(&self) -> Class {
        match self {
            Self::NotFound { .. } | Self::Version { .. } => Class::NoRepository,
            Self::WrongPassword { .. } => Class::Denied,
            Self::KdfCost { .. } => Class::Refused,
            Self::NoKey
            | Self::TooManyKeys { .. }
            | Self::File { .. }
            | Self::BlobMissing { .. }
            | Self::Blob { .. }
            | Self::Pack { .. }
            | Self::Tree { .. }
            | Self::Bounds { .. } => Class::Damage,
            Self::Kind { .. } | Self::NoSnapshot { .. } | Self::AmbiguousSnapshot { .. } | Self::Task => {
                Class::Failed
            }
            Self::Local { source, .. } => match source.kind() {
                std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Class::NoSpace,
                _ => Class::Failed,
            },
            Self::Store(error) => error.class(),
        }
    }

    /// Whether only what was asked for is concerned, so that everything else can still be read.
    pub fn is_local(&self) -> bool {
        matches!(
            self,
            Self::File { .. }
                | Self::BlobMissing { .. }
                | Self::Blob { .. }
                | Self::Pack { .. }
                | Self::Tree { .. }
                | Self::Bounds { .. }
                | Self::Kind { .. }
        )
    }

    pub(super) fn file(key: impl ToString) -> impl FnOnce(Fault) -> Self {
        let key = key.to_string();
        move |fault| Self::File { key, fault }
    }
}
