//! `sqlite` as typed.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::backup::word;
use super::select::location;
use super::{Location, NewArgs, OwnerArgs, SelectArgs};

/// What `backup` does with databases of SQLite.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum SqliteArg {
    /// Save them as all files, and name those that are in use
    Warn,
    /// Save them as all files
    Off,
}

/// `sqlite`.
#[derive(Debug, Args)]
pub(crate) struct SqliteArgs {
    #[command(subcommand)]
    pub(crate) verb: SqliteVerb,
}

/// What to do with databases of SQLite.
#[derive(Debug, Subcommand)]
pub(crate) enum SqliteVerb {
    /// Save databases as a new snapshot, each as of one moment, while they are written to
    Backup(SqliteBackupArgs),
    /// Restore a database where nothing stands, and let SQLite look at it before it gets its name
    Restore(SqliteRestoreArgs),
}

/// `sqlite backup`.
#[derive(Debug, Args)]
pub(crate) struct SqliteBackupArgs {
    /// Databases to save, all in one snapshot; what is none is named
    #[arg(value_name = "PATH", required = true)]
    pub(crate) paths: Vec<PathBuf>,

    /// What retention and `latest` go by [default: the sorted paths]
    #[arg(long, value_name = "NAME", value_parser = word)]
    pub(crate) job: Option<String>,

    #[command(flatten)]
    pub(crate) new: NewArgs,

    /// Say what would be saved, and store nothing
    #[arg(short = 'n', long)]
    pub(crate) dry_run: bool,
}

/// `sqlite restore`.
#[derive(Debug, Args)]
pub(crate) struct SqliteRestoreArgs {
    /// The database: an id or the beginning of one, `latest`, `latest~2` or `@2026-03-01T14:00`, and its path
    #[arg(value_name = "SNAPSHOT:PATH", value_parser = location())]
    pub(crate) location: Location,

    /// The file that it becomes; nothing may stand there, nor beside it as TARGET-wal, TARGET-journal or TARGET-shm
    #[arg(value_name = "TARGET")]
    pub(crate) target: PathBuf,

    #[command(flatten)]
    pub(crate) select: SelectArgs,

    /// Restore it without letting SQLite look at it
    #[arg(long)]
    pub(crate) no_check: bool,

    #[command(flatten)]
    pub(crate) owner: OwnerArgs,
}
