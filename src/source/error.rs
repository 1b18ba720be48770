//! What can go wrong with a source.

use std::io;
use std::path::PathBuf;

use crate::class::Class;
use crate::filter::{FilterError, RuleText};

/// A failure to read something that is to be backed up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// A path that was asked for does not exist.
    #[error("{} does not exist", .path.display())]
    Missing {
        /// As given.
        path: PathBuf,
    },
    /// What was named as an image is neither a block device nor a file.
    #[error("{} is neither a block device nor a regular file, so it is no image", .path.display())]
    NotAnImage {
        /// As given.
        path: PathBuf,
    },
    /// The system refused.
    #[error("cannot {action} {}", .path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// An entry that was just listed is gone.
    #[error("{} vanished while it was being read", .path.display())]
    Vanished {
        /// The entry.
        path: PathBuf,
    },
    /// A file was changed by somebody each time it was read; what was read last is stored.
    #[error("{} changed each time it was read", .path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// SQLite cannot read a database.
    #[error("SQLite cannot read {}: {said}; lifeboat backup saves the file as it is", .path.display())]
    Database {
        /// The database.
        path: PathBuf,
        /// What SQLite says.
        said: &'static str,
    },
    /// A database that somebody holds for himself all the time.
    #[error(
        "{} cannot be read: somebody holds it for himself, or changes it without a lock; try again, or stop what uses it",
        .path.display()
    )]
    BusyDatabase {
        /// The database.
        path: PathBuf,
    },
    /// A copy on this machine cannot be written.
    #[error("cannot write a copy to {}", .path.display())]
    Scratch {
        /// The place for copies.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A database that has several names: which files are beside it depends on the one by which it is opened.
    #[error("the database {} has several names, hard links of one another", .path.display())]
    LinkedDatabase {
        /// As given.
        path: PathBuf,
    },
    /// What was to be saved as a database is none.
    #[error("{} is not a database of SQLite, or an encrypted one", .path.display())]
    NotADatabase {
        /// As given.
        path: PathBuf,
    },
    /// Something else now stands under the name of an entry: another inode, or a symbolic link.
    #[error("{} was replaced while it was being read", .path.display())]
    Replaced {
        /// The entry.
        path: PathBuf,
    },
    /// A directory that contains itself through a mount.
    #[error("{} is mounted inside itself", .path.display())]
    Loop {
        /// The inner one.
        path: PathBuf,
    },
    /// An exclude rule hides a path that was asked for.
    #[error("{} is asked for and excluded by {rule}", .path.display())]
    ExcludedRoot {
        /// As given.
        path: PathBuf,
        /// The rule.
        rule: RuleText,
    },
    /// Two sources want the same place in the snapshot.
    #[error("{} and {} cannot be stored in the same place", .first.display(), .second.display())]
    Collision {
        /// One.
        first: PathBuf,
        /// The other.
        second: PathBuf,
    },
    /// A place in the snapshot has a part that is empty, `.`, `..`, or holds a slash or a zero byte.
    #[error("{} cannot be stored under that name", .path.display())]
    BadStoredPath {
        /// The source that was to be stored there.
        path: PathBuf,
    },
    /// A rule file inside the source has an error.
    #[error("{} has a bad rule", .path.display())]
    Rules {
        /// The file.
        path: PathBuf,
        /// The error.
        source: FilterError,
    },
    /// An attribute or a list of attributes is larger than Linux allows.
    #[error("the attributes of {} are too large", .path.display())]
    AttributesTooLarge {
        /// The entry.
        path: PathBuf,
    },
    /// Standard input is closed, a directory, or the null device.
    #[error("there is nothing on standard input")]
    NoInput,
    /// A command that should produce data did not start.
    #[error("cannot start {}", .program.display())]
    CommandStart {
        /// The program.
        program: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A command that should produce data failed, so that what it wrote cannot be trusted.
    #[error("{} ended with {}{}", .program.display(), .end, last_line(.stderr))]
    CommandFailed {
        /// The program.
        program: PathBuf,
        /// How it ended.
        end: CommandEnd,
        /// The end of what it wrote to standard error.
        stderr: String,
    },
    /// A command ended well, and something that it started still holds its output open and writes nothing.
    #[error("{} ended, and something that it started still holds its output open", .program.display())]
    OutputHeld {
        /// The program.
        program: PathBuf,
    },
    /// A command was stopped by the system because it wants to use the terminal.
    #[error("{} wants to ask at the terminal, which it cannot", .program.display())]
    WantsTerminal {
        /// The program.
        program: PathBuf,
    },
    /// A command has a pipe, and there is no shell that fails if its first part does.
    #[error("{} does not tell whether the first part of a pipe fails, and there is no bash", .program.display())]
    NoPipefail {
        /// The shell there is.
        program: PathBuf,
    },
    /// A command ended well, and its output is not what a whole dump is.
    #[error("the dump breaks off before its end, though the command says that it succeeded")]
    BrokenOff,
    /// A server was asked for its databases, and what came is no list, or not a whole one.
    #[error("what it wrote is not a whole list")]
    BadList,
    /// The account at a server may not read everything that is to be saved, and the server would leave it out without a word.
    #[error("the account may not see everything: it lacks {rights} on *.*")]
    MissingRights {
        /// The rights, as they are granted.
        rights: String,
    },
    /// The run was asked to stop.
    #[error("stopped while reading")]
    Cancelled,
}

/// The last line of what a command wrote to standard error, as the end of a message.
fn last_line(stderr: &str) -> String {
    stderr.lines().next_back().map_or_else(String::new, |line| format!(": {line}"))
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommandEnd {
    /// By itself, with this exit code.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

impl std::fmt::Display for CommandEnd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
        }
    }
}

impl SourceError {
    /// What kind of failure it is for the run: of an entry, of the run, or of its arguments.
    pub fn class(&self) -> Class {
        match self {
            Self::Missing { .. }
            | Self::Io { .. }
            | Self::Vanished { .. }
            | Self::Replaced { .. }
            | Self::Changed { .. }
            | Self::Database { .. }
            | Self::BusyDatabase { .. }
            | Self::Loop { .. }
            | Self::Rules { .. }
            | Self::AttributesTooLarge { .. } => Class::Partial,
            Self::ExcludedRoot { .. }
            | Self::Collision { .. }
            | Self::BadStoredPath { .. }
            | Self::NotADatabase { .. }
            | Self::LinkedDatabase { .. }
            | Self::NotAnImage { .. } => Class::Usage,
            Self::NoInput
            | Self::CommandStart { .. }
            | Self::CommandFailed { .. }
            | Self::OutputHeld { .. }
            | Self::WantsTerminal { .. }
            | Self::NoPipefail { .. }
            | Self::BadList
            | Self::MissingRights { .. }
            | Self::BrokenOff => Class::Failed,
            Self::Scratch { source, .. } => match source.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Class::NoSpace,
                _ => Class::Failed,
            },
            Self::Cancelled => Class::Cancelled,
        }
    }

    /// Whether it is about the run as a whole, not about an entry of it.
    pub fn ends_run(&self) -> bool {
        matches!(self, Self::Scratch { .. } | Self::Cancelled)
    }

    /// The entry it is about.
    pub fn path(&self) -> Option<&std::path::Path> {
        match self {
            Self::Missing { path }
            | Self::Io { path, .. }
            | Self::Vanished { path }
            | Self::Changed { path }
            | Self::Database { path, .. }
            | Self::BusyDatabase { path }
            | Self::Scratch { path, .. }
            | Self::NotADatabase { path }
            | Self::LinkedDatabase { path }
            | Self::Replaced { path }
            | Self::Loop { path }
            | Self::ExcludedRoot { path, .. }
            | Self::BadStoredPath { path }
            | Self::NotAnImage { path }
            | Self::Rules { path, .. }
            | Self::AttributesTooLarge { path } => Some(path),
            Self::Collision { first, .. } => Some(first),
            Self::CommandStart { program, .. }
            | Self::CommandFailed { program, .. }
            | Self::OutputHeld { program }
            | Self::NoPipefail { program }
            | Self::WantsTerminal { program } => Some(program),
            Self::NoInput
            | Self::BrokenOff
            | Self::BadList
            | Self::MissingRights { .. }
            | Self::Cancelled => None,
        }
    }

    /// Whether the entry is simply no longer there, which is ordinary in a living tree.
    pub fn is_vanished(&self) -> bool {
        matches!(self, Self::Vanished { .. })
    }

    /// An error of the system on an entry, sorted by what it means.
    pub(crate) fn of_entry(action: &'static str, path: PathBuf, source: io::Error) -> Self {
        use rustix::io::Errno;
        match Errno::from_io_error(&source) {
            Some(Errno::NOENT) => Self::Vanished { path },
            Some(Errno::LOOP | Errno::NOTDIR | Errno::STALE) => Self::Replaced { path },
            _ => Self::Io { action, path, source },
        }
    }
}
