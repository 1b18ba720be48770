//! `postgres backup` and `postgres check` as typed.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::NewArgs;
use super::backup::word;
use super::global::duration;

/// Where a server is and who asks. Without an option PostgreSQL's own variables count, such as PGHOST and PGPASSFILE.
#[derive(Debug, Args)]
pub(crate) struct ConnectArgs {
    /// The directory of the server's socket, or its host [default: PGHOST, or where the socket is]
    #[arg(long, value_name = "HOST", value_parser = word)]
    pub(crate) pg_host: Option<String>,

    /// The server's port, which is part of the socket's name too [default: PGPORT, or 5432]
    #[arg(long, value_name = "PORT")]
    pub(crate) pg_port: Option<u16>,

    /// The role [default: PGUSER, or the user's name]
    #[arg(long, value_name = "ROLE", value_parser = word)]
    pub(crate) pg_user: Option<String>,

    /// The database to connect to [default: PGDATABASE, or postgres]
    #[arg(long, value_name = "NAME", value_parser = word)]
    pub(crate) pg_database: Option<String>,

    /// A file that holds the role's password and nothing else [default: PGPASSWORD, or PGPASSFILE, or ~/.pgpass]
    #[arg(long, value_name = "FILE")]
    pub(crate) pg_password_file: Option<PathBuf>,
}

/// `postgres backup`.
#[derive(Debug, Args)]
pub(crate) struct BaseBackupArgs {
    /// What the cluster is called in the repository
    #[arg(value_name = "CLUSTER", value_parser = word)]
    pub(crate) cluster: String,

    #[command(flatten)]
    pub(crate) connect: ConnectArgs,

    /// How long to wait, when all files are saved, for the log of the backup to be in the archive
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = duration)]
    pub(crate) wait_archive: Duration,

    /// Begin with a checkpoint that is spread over time, as the server makes them by itself, instead of one at once
    #[arg(long)]
    pub(crate) spread_checkpoint: bool,

    #[command(flatten)]
    pub(crate) new: NewArgs,
}

/// `postgres check`.
#[derive(Debug, Args)]
pub(crate) struct ServerCheckArgs {
    /// What the cluster is called in the repository
    #[arg(value_name = "CLUSTER", value_parser = word)]
    pub(crate) cluster: String,

    #[command(flatten)]
    pub(crate) connect: ConnectArgs,

    /// Let the server end its segment, and wait for it to come into the archive, up to this long; 60s if no time is given
    #[arg(long, value_name = "TIME", value_parser = duration, num_args = 0..=1, default_missing_value = "60s", require_equals = true)]
    pub(crate) archive_test: Option<Duration>,

    /// How many segments may be ended and not be in the archive
    #[arg(long, value_name = "N", default_value_t = 4)]
    pub(crate) max_lag: u64,

    /// How old the newest base backup may be, such as 26h or 8d [default: as old as it is]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) max_age: Option<Duration>,
}
