//! `postgres restore` as typed.

use std::path::PathBuf;

use clap::{ArgGroup, Args, ValueEnum};
use lifeboat::clock::Timestamp;
use lifeboat::postgres::Lsn;

use super::backup::word;
use super::global::time;

/// `postgres restore`.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("wanted").required(true))]
pub(crate) struct BaseRestoreArgs {
    /// What the cluster is called in the repository
    #[arg(value_name = "CLUSTER", value_parser = word)]
    pub(crate) cluster: String,

    /// The data directory to make, which is empty or does not exist
    #[arg(value_name = "DIR")]
    pub(crate) dir: PathBuf,

    /// As it was at this time, such as 2026-03-01T14:32:05+01:00; without an offset, of this machine's zone
    #[arg(long, value_name = "TIME", group = "wanted", value_parser = time)]
    pub(crate) target_time: Option<Timestamp>,

    /// Up to this position in the log, such as 16/B374D848
    #[arg(long, value_name = "LSN", group = "wanted")]
    pub(crate) target_lsn: Option<Lsn>,

    /// Up to the restore point of this name, which pg_create_restore_point made
    #[arg(long, value_name = "NAME", group = "wanted", value_parser = word)]
    pub(crate) target_name: Option<String>,

    /// Up to and with this transaction
    #[arg(long, value_name = "XID", group = "wanted")]
    pub(crate) target_xid: Option<u64>,

    /// `latest`: as far as the archive goes; `immediate`: as soon as the base backup is consistent
    #[arg(long, value_name = "END", group = "wanted")]
    pub(crate) target: Option<EndArg>,

    /// Stop just before what the target names
    #[arg(long, conflicts_with_all = ["target", "target_name"])]
    pub(crate) exclusive: bool,

    /// What the server does when it is there [default: pause; for `latest` it is promoted in any case]
    #[arg(long, value_name = "ACTION")]
    pub(crate) target_action: Option<ActionArg>,

    /// The timeline to follow: a number, `latest`, or `current`, which is that of the base backup
    #[arg(long, value_name = "TIMELINE", default_value = "latest", value_parser = timeline)]
    pub(crate) timeline: TimelineArg,

    /// Put a tablespace, named by its name or number, into another directory than where it was; may be given several times
    #[arg(long, value_name = "TABLESPACE=DIR", value_parser = space)]
    pub(crate) tablespace_map: Vec<(String, PathBuf)>,

    /// Begin with this base backup, by its id or the beginning of one, instead of the newest that can be used
    #[arg(long, value_name = "SNAPSHOT")]
    pub(crate) snapshot: Option<String>,

    /// Make a standby, which follows the archive and goes on asking it for more
    #[arg(long, group = "wanted", conflicts_with = "target_action")]
    pub(crate) standby: bool,

    /// Say what would be done, and write nothing
    #[arg(short = 'n', long)]
    pub(crate) dry_run: bool,
}

/// Where recovery ends that has no moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum EndArg {
    /// As far as the archive goes
    Latest,
    /// As soon as the base backup is consistent
    Immediate,
}

/// What a server does at the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ActionArg {
    /// Wait, and answer queries that change nothing
    Pause,
    /// Take changes, on a new timeline
    Promote,
    /// Shut down
    Shutdown,
}

/// Which timeline is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TimelineArg {
    /// The newest there is.
    Latest,
    /// That of the base backup.
    Current,
    /// This one.
    Number(u32),
}

fn timeline(text: &str) -> Result<TimelineArg, &'static str> {
    match text {
        "latest" => Ok(TimelineArg::Latest),
        "current" => Ok(TimelineArg::Current),
        number => match number.parse() {
            Ok(number) if number > 0 => Ok(TimelineArg::Number(number)),
            _ => Err("expected a number from 1 on, `latest` or `current`"),
        },
    }
}

fn space(text: &str) -> Result<(String, PathBuf), &'static str> {
    const WANTED: &str = "expected TABLESPACE=DIR, with an absolute directory";
    let (name, dir) = text.split_once('=').ok_or(WANTED)?;
    let dir = PathBuf::from(dir);
    if name.is_empty() || !dir.is_absolute() { Err(WANTED) } else { Ok((name.to_owned(), dir)) }
}
