//! `postgres` as typed.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use super::base::{BaseBackupArgs, ServerCheckArgs};
use super::base_restore::BaseRestoreArgs;

/// `postgres`.
#[derive(Debug, Args)]
pub(crate) struct PostgresArgs {
    #[command(subcommand)]
    pub(crate) verb: PostgresVerb,
}

impl PostgresArgs {
    /// How long to try again, if nobody says: a server runs a verb for its log again, and waits for the answer.
    pub(crate) fn patience(&self) -> Option<Duration> {
        match self.verb {
            PostgresVerb::ArchivePush(_) => Some(Duration::from_secs(60)),
            PostgresVerb::ArchiveGet(_) => Some(Duration::from_secs(600)),
            _ => None,
        }
    }
}

/// What to do with PostgreSQL.
#[derive(Debug, Subcommand)]
pub(crate) enum PostgresVerb {
    /// Save the data directory of a running server as a new snapshot
    Backup(BaseBackupArgs),
    /// Restore a cluster as it was at a moment, into an empty directory
    Restore(BaseRestoreArgs),
    /// Archive a file of the log; for archive_command: 'lifeboat postgres archive-push %p'
    ArchivePush(ArchivePushArgs),
    /// Give a file of the log back; for restore_command: 'lifeboat postgres archive-get %f %p'
    ///
    /// Exit codes are PostgreSQL's: 0 the file is there, 1 there is no such file and nothing shows that there ever was one,
    /// 200 everything else, so that a server never takes a failure for the end of the log.
    ArchiveGet(ArchiveGetArgs),
    /// Check, on the server's machine, that its archive works and that it could be brought back; for a monitor
    Check(ServerCheckArgs),
    /// Show what is archived of each cluster, which times it covers, and where something is missing
    Info(ClusterArgs),
    /// Open every archived segment and go through its records, from each to the next
    Verify(LogVerifyArgs),
    /// Let another writer archive the log of a cluster, such as that of a standby
    Allow(AllowArgs),
}

/// A cluster that may be left out.
#[derive(Debug, Args)]
pub(crate) struct ClusterArgs {
    /// The database cluster; may be left out where there is one
    #[arg(long, value_name = "NAME")]
    pub(crate) cluster: Option<String>,
}

/// `postgres archive-push`.
#[derive(Debug, Args)]
pub(crate) struct ArchivePushArgs {
    /// The file, as the server gives it: %p
    #[arg(value_name = "PATH")]
    pub(crate) path: PathBuf,

    #[command(flatten)]
    pub(crate) cluster: ClusterArgs,

    /// What to do about a segment with damaged records
    #[arg(long, value_name = "WHAT", default_value = "error")]
    pub(crate) wal_check: WalCheckArg,

    /// The cluster is another server than before, after initdb or pg_upgrade: begin a history of its own
    #[arg(long)]
    pub(crate) new_history: bool,
}

/// What to do about damage.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum WalCheckArg {
    /// Refuse it: the server keeps the segment and says so
    Error,
    /// Store it and warn
    Warn,
    /// Do not look
    Off,
}

/// `postgres archive-get`.
#[derive(Debug, Args)]
pub(crate) struct ArchiveGetArgs {
    /// The file's name, as the server gives it: %f
    #[arg(value_name = "FILE")]
    pub(crate) file: String,

    /// Where to put it, as the server gives it: %p
    #[arg(value_name = "PATH")]
    pub(crate) path: PathBuf,

    #[command(flatten)]
    pub(crate) cluster: ClusterArgs,

    /// Take a gap for the end of the log: what was committed after it is lost
    #[arg(long)]
    pub(crate) allow_gap: bool,
}

/// `postgres verify`.
#[derive(Debug, Args)]
pub(crate) struct LogVerifyArgs {
    #[command(flatten)]
    pub(crate) cluster: ClusterArgs,

    /// Only this timeline
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) timeline: Option<u32>,
}

/// `postgres allow`.
#[derive(Debug, Args)]
pub(crate) struct AllowArgs {
    /// The database cluster
    #[arg(value_name = "CLUSTER")]
    pub(crate) cluster: String,

    /// The writer's id or the beginning of it; see `lifeboat writer list`
    #[arg(value_name = "WRITER")]
    pub(crate) writer: String,
}
