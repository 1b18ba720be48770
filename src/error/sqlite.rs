//! Why a database of SQLite cannot be restored.

use std::path::PathBuf;

use crate::class::Class;

/// What stands in the way of a restored database, or is wrong with it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SqliteError {
    /// Something stands under the name; it stays as it is.
    #[error("{} stands there already, and nothing is replaced", path.display())]
    Taken {
        /// What stands there.
        path: PathBuf,
    },
    /// Something stands beside the name; it stays as it is.
    #[error("{} stands there: SQLite would take it for a part of {}, and nothing is replaced", beside.display(), path.display())]
    Beside {
        /// The name, which is free.
        path: PathBuf,
        /// What stands beside it.
        beside: PathBuf,
    },
    /// SQLite finds fault with what was restored; it is removed again.
    #[error("the database in the snapshot is damaged: {}", findings.join("; "))]
    Damaged {
        /// What SQLite says, the first things only.
        findings: Vec<String>,
    },
    /// Some of it is lost in the repository; what was restored of it is removed again.
    #[error("the database cannot be restored in full: the repository is damaged")]
    Incomplete,
    /// SQLite could not look at what was restored; it is removed again.
    #[error("SQLite cannot look at the restored database: {said}")]
    Unchecked {
        /// What SQLite says.
        said: String,
    },
    /// The file was not made; why, was said before.
    #[error("nothing was restored of {}", String::from_utf8_lossy(path))]
    NotRestored {
        /// Its stored path.
        path: Vec<u8>,
    },
    /// A path that a database cannot have.
    #[error("{} is not a file to restore to", path.display())]
    NoTarget {
        /// As given.
        path: PathBuf,
    },
}

impl SqliteError {
    /// What kind of failure it is.
    pub fn class(&self) -> Class {
        match self {
            Self::Taken { .. } | Self::Beside { .. } => Class::Refused,
            Self::Damaged { .. } | Self::Incomplete => Class::Damage,
            Self::Unchecked { .. } | Self::NotRestored { .. } => Class::Failed,
            Self::NoTarget { .. } => Class::Usage,
        }
    }
}
