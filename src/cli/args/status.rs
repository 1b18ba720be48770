//! `status` as typed.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use lifeboat::ops::status::Objectives;

use super::SelectArgs;
use super::global::duration;
use super::prune::percent;

/// `status`.
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    pub(crate) select: SelectArgs,

    /// The last confirmed snapshot of every job must not be older than this, such as 26h; else exit code 5
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) max_age: Option<Duration>,

    /// Everything must have been opened and checked within this time, or stored since, such as 30d; else exit code 5
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) verified_within: Option<Duration>,

    /// The last confirmed snapshot of every job must have so much of what is usual for it, the median of up to seven before it,
    /// such as 90%; else exit code 5
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    pub(crate) min_size: Option<u64>,
}

/// `metrics`.
#[derive(Debug, Args)]
pub(crate) struct MetricsArgs {
    /// The file to write instead of printing, replaced as a whole
    #[arg(long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}

impl StatusArgs {
    /// What is asked of every job.
    pub(crate) fn objectives(&self) -> Objectives {
        Objectives { max_age: self.max_age, min_size: self.min_size }
    }
}
