//! `schedule` as typed.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// `schedule`.
#[derive(Debug, Args)]
pub(crate) struct ScheduleArgs {
    #[command(subcommand)]
    pub(crate) verb: ScheduleVerb,
}

/// What to do with the schedule.
#[derive(Debug, Subcommand)]
pub(crate) enum ScheduleVerb {
    /// Let systemd, or cron, ask every five minutes what is due
    Install(InstallArgs),
    /// Say when each job ran last, and when it runs next
    Show,
    /// Take away what `install` wrote
    Remove(UnitArgs),
}

/// Where units go.
#[derive(Debug, Args)]
pub(crate) struct UnitArgs {
    /// Units of the user's own systemd, not of the machine's
    #[arg(long)]
    pub(crate) user: bool,

    /// Use this directory, and tell systemd nothing: for packages and images
    #[arg(long, value_name = "DIR")]
    pub(crate) into: Option<PathBuf>,

    /// Say what would be done, and do nothing
    #[arg(short = 'n', long)]
    pub(crate) dry_run: bool,
}

/// `schedule install`.
#[derive(Debug, Args)]
pub(crate) struct InstallArgs {
    #[command(flatten)]
    pub(crate) units: UnitArgs,

    /// Print a line for a crontab instead
    #[arg(long, conflicts_with_all = ["user", "into"])]
    pub(crate) cron: bool,
}
