//! Why a database's log could not be stored, read or shown.

use std::io;
use std::path::PathBuf;

use super::words::io_class;
use crate::class::Class;
use crate::format::cluster::NameError;
use crate::format::log::{LogFile, ParseLogFileError};
use crate::id::WriterId;
use crate::postgres::{HistoryError, WalError};

/// What can go wrong with a database's log.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// The text cannot be the name of a cluster.
    #[error("{name:?} cannot be the name of a database cluster")]
    Name {
        /// The text.
        name: String,
        /// Why not.
        #[source]
        source: NameError,
    },
    /// No cluster of this name.
    #[error("no database cluster {name:?} is known in this repository")]
    NoCluster {
        /// What was asked for.
        name: String,
    },
    /// No cluster is named, and there is none.
    #[error("no database cluster is known in this repository")]
    NoClusters,
    /// No cluster is named, and there are several.
    #[error("no database cluster is named, and there are {count}")]
    WhichCluster {
        /// How many.
        count: usize,
    },
    /// Not a file that a server archives.
    #[error("{} cannot be archived", path.display())]
    FileName {
        /// What was given.
        path: PathBuf,
        /// Why not.
        #[source]
        source: ParseLogFileError,
    },
    /// A local file could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A local file could not be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file is longer than any of its kind.
    #[error("{} has {size} bytes, more than any file of its kind", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
        /// Its length.
        size: u64,
    },
    /// A segment is damaged, or is not what its name says.
    #[error("segment {file} was not archived")]
    Segment {
        /// The file.
        file: LogFile,
        /// What is wrong.
        #[source]
        source: WalError,
    },
    /// A history file cannot be one.
    #[error("{file} is no history of a timeline")]
    History {
        /// The file.
        file: LogFile,
        /// What is wrong.
        #[source]
        source: HistoryError,
    },
    /// The server is not the one that the cluster's log comes from.
    #[error("{what} of this server is {found}, and that of database cluster {cluster} is {expected}")]
    OtherServer {
        /// The cluster.
        cluster: String,
        /// What differs.
        what: &'static str,
        /// What the cluster's record says.
        expected: u64,
        /// What the server says.
        found: u64,
    },
    /// What the server is was known before, as an earlier history of the cluster.
    #[error("this server is history {history} of database cluster {cluster}, which is over")]
    OldHistory {
        /// The cluster.
        cluster: String,
        /// Its number.
        history: u64,
    },
    /// The writer of this key is not one whose logs count.
    #[error("writer {writer}, as whom this key signs, may not archive the log of database cluster {cluster}")]
    NotAllowed {
        /// The cluster.
        cluster: String,
        /// The writer.
        writer: WriterId,
    },
    /// Another content is archived under this name.
    #[error(
        "{file} is archived with another content: it was stored by writer {theirs}, and now comes from writer {ours}"
    )]
    Different {
        /// The file.
        file: LogFile,
        /// Who stored what is there.
        theirs: WriterId,
        /// Who tried to store this.
        ours: WriterId,
    },
    /// Two contents are archived under one name.
    #[error("{file} is archived with different contents, by writer {one} and by writer {other}")]
    Ambiguous {
        /// The file.
        file: LogFile,
        /// Who stored one.
        one: WriterId,
        /// Who stored another.
        other: WriterId,
    },
    /// What is archived under this name cannot be read, or nobody signed it who may.
    #[error("{file} is archived, and nothing under its name can be read")]
    Unreadable {
        /// The file.
        file: LogFile,
        /// Why not, of one of them.
        #[source]
        cause: Option<Box<super::Error>>,
    },
    /// A file is missing in the middle of what is archived.
    #[error("{file} is not archived, and {later} is: the log has a gap")]
    Gap {
        /// What was asked for.
        file: LogFile,
        /// What shows that it was written.
        later: LogFile,
    },
    /// A file was removed because no base backup needed it.
    #[error("{file} is not archived any more: no base backup needed it, and a prune has removed it")]
    Trimmed {
        /// What was asked for.
        file: LogFile,
    },
    /// The writer may archive already.
    #[error("writer {writer} may archive the log of database cluster {cluster} already")]
    AllowedAlready {
        /// The cluster.
        cluster: String,
        /// The writer.
        writer: WriterId,
    },
}

impl LogError {
    /// What kind of failure this is.
    pub fn class(&self) -> Class {
        match self {
            Self::Name { .. } | Self::WhichCluster { .. } | Self::FileName { .. } => Class::Usage,
            Self::NoCluster { .. }
            | Self::NoClusters
            | Self::Trimmed { .. }
            | Self::AllowedAlready { .. } => Class::Failed,
            Self::Read { source, .. } | Self::Write { source, .. } => io_class(source),
            Self::TooLong { .. } | Self::Segment { .. } | Self::History { .. } | Self::Gap { .. } => {
                Class::Damage
            }
            Self::OtherServer { .. } | Self::OldHistory { .. } => Class::Refused,
            Self::NotAllowed { .. } => Class::Denied,
            Self::Different { .. } | Self::Ambiguous { .. } => Class::Tampered,
            Self::Unreadable { cause, .. } => cause.as_ref().map_or(Class::Damage, |cause| cause.class()),
        }
    }
}
