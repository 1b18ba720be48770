//! Why a base backup of a database cannot be made, restored or forgotten.

use std::path::PathBuf;

use crate::class::Class;
use crate::id::SnapshotId;
use crate::postgres::Lsn;

/// What a server, its settings or its files do not allow.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BaseError {
    /// Forgetting would take times away that a database cluster can be brought back to, and that are to be kept.
    #[error(
        "without snapshot {snapshot} database cluster {cluster} could not be brought back to all times that are to be kept: nothing was forgotten"
    )]
    Shortened {
        /// The cluster.
        cluster: String,
        /// A base backup that is needed for it.
        snapshot: SnapshotId,
    },
    /// Which base backups lead to which timelines is not known, and some are to be forgotten that may be needed.
    #[error(
        "which timelines of database cluster {cluster} its base backups lead to is not known, because not all histories of timelines could be read: nothing was forgotten"
    )]
    Unclear {
        /// The cluster.
        cluster: String,
    },
    /// The server is too old or too new for its functions to be known.
    #[error("PostgreSQL {major} is not supported: 14 to 18 are")]
    Version {
        /// Its major version.
        major: u32,
    },
    /// The server is a standby.
    #[error("this server is a standby: back its primary up")]
    Standby,
    /// The role cannot see a setting.
    #[error("the role may not read the setting {name}")]
    HiddenSetting {
        /// Which.
        name: &'static str,
    },
    /// A setting does not allow recovery from an archive.
    #[error("{name} is {value}, and a base backup needs it to be {needed}")]
    Setting {
        /// Which.
        name: &'static str,
        /// As it is.
        value: String,
        /// As it must be.
        needed: &'static str,
    },
    /// The data directory is not on this machine, or is another server's.
    #[error("{} is not the data directory of this server: {fault}", path.display())]
    NotItsDirectory {
        /// Where the server says it is.
        path: PathBuf,
        /// What is wrong with it, in words.
        fault: &'static str,
    },
    /// A directory that the server cannot do without is a link.
    #[error("{} is not a directory, and links are not followed", path.display())]
    Linked {
        /// The link.
        path: PathBuf,
    },
    /// A tablespace lies where it would be saved twice, or nowhere.
    #[error("the tablespace {name} lies in {place}: it must be outside of the data directory")]
    TablespaceInside {
        /// What it is called.
        name: String,
        /// Where it lies.
        place: String,
    },
    /// Tablespaces were made or removed while the backup went on.
    #[error("tablespaces were made or removed during the backup: nothing was saved")]
    TablespacesChanged,
    /// Another server answers than before.
    #[error("another server answers now than before: nothing was saved")]
    OtherServer,
    /// The archive does not get what the server archives.
    #[error("segment {segment} did not come into the archive within {seconds} seconds: nothing was saved")]
    ArchiveSilent {
        /// The segment before the backup.
        segment: String,
        /// How long was waited.
        seconds: u64,
    },
    /// What the server gave at the end of the backup is not what it should be.
    #[error("PostgreSQL gave a {what} that cannot be right: nothing was saved")]
    BadLabel {
        /// What.
        what: &'static str,
    },
    /// The session ended before the backup did, so the server has given it up.
    #[error("the session of the backup ended before it was complete: nothing was saved")]
    SessionLost(#[source] crate::database::PgError),
    /// No base backup can be begun with.
    #[error("there is no base backup of this cluster")]
    NoBase,
    /// A timeline is asked for that nobody archived.
    #[error("timeline {timeline} is not in the archive")]
    NoTimeline {
        /// Which.
        timeline: u32,
    },
    /// A backup does not lie on the way to a timeline.
    #[error("no base backup lies on the way to timeline {timeline}")]
    NotOnTimeline {
        /// Which.
        timeline: u32,
    },
    /// The target lies before all base backups.
    #[error("no base backup is old enough: the earliest moment that can be restored is {}", moment(*earliest))]
    TooEarly {
        /// When the oldest ended; nanoseconds since 1970.
        earliest: i64,
    },
    /// The archive ends before the target.
    #[error("the archive ends at {end}{}, before the target: nothing was written", committed(*last_commit))]
    TooLate {
        /// Where it ends.
        end: Lsn,
        /// Time of the last commit in it.
        last_commit: Option<i64>,
    },
    /// The archive lacks a segment before the target.
    #[error("the archive has a gap at {at}{}: what lies behind it cannot be reached, and nothing was written", committed(*last_commit))]
    Hole {
        /// Where.
        at: Lsn,
        /// Time of the last commit before it.
        last_commit: Option<i64>,
    },
    /// A segment is archived with different contents.
    #[error("{file} is archived with two different contents: nothing was written")]
    TwoContents {
        /// The file.
        file: String,
    },
    /// The archive does not hold the log of the backup itself.
    #[error(
        "the archive ends or has a gap at {end}, and the base backup needs it up to {stop}: nothing was written"
    )]
    Waiting {
        /// Where it ends.
        end: Lsn,
        /// Where the backup ended.
        stop: Lsn,
    },
    /// A directory to restore into holds something.
    #[error("{} is not an empty directory: nothing was written", path.display())]
    NotEmpty {
        /// The directory.
        path: PathBuf,
    },
    /// A directory to restore into lies in another one.
    #[error("{} lies in another directory that is restored into", path.display())]
    Nested {
        /// The directory.
        path: PathBuf,
    },
    /// The backup has no such tablespace.
    #[error("the base backup has no tablespace {name:?}")]
    NoTablespace {
        /// Its name or number.
        name: String,
    },
    /// A setting would not stay on its line.
    #[error("the value of {name} holds a line break")]
    NotALine {
        /// Which.
        name: &'static str,
    },
    /// Files are missing of what was restored.
    #[error("{count} files could not be restored, so no server starts from this directory")]
    NotWhole {
        /// How many.
        count: u64,
        /// Whether the repository is damaged.
        damaged: bool,
    },
    /// The control file was never whole.
    #[error("{} {fault}", path.display())]
    Control {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, after its name.
        #[source]
        fault: crate::database::control::ControlFault,
    },
}

impl BaseError {
    /// What kind of failure it is.
    pub fn class(&self) -> Class {
        match self {
            Self::SessionLost(error) => match error.class() {
                Class::Cancelled => Class::Cancelled,
                _ => Class::Failed,
            },
            Self::Control { .. } | Self::NotWhole { damaged: true, .. } | Self::TwoContents { .. } => {
                Class::Damage
            }
            Self::Nested { .. } | Self::NoTablespace { .. } | Self::NotALine { .. } => Class::Usage,
            Self::NotEmpty { .. } | Self::Shortened { .. } | Self::Unclear { .. } => Class::Refused,
            _ => Class::Failed,
        }
    }
}

fn moment(nanos: i64) -> String {
    let time = jiff::Timestamp::from_nanosecond(i128::from(nanos)).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    time.strftime("%Y-%m-%d %H:%M:%S.%6f UTC").to_string()
}

fn committed(last: Option<i64>) -> String {
    last.map_or_else(String::new, |last| format!(", where the last commit is of {}", moment(last)))
}
