//! `run` as typed.

use clap::Args;

/// `run`.
#[derive(Debug, Clone, Args)]
pub(crate) struct RunArgs {
    /// Jobs of the configuration; each is run if it is due, or has no schedule [default: all that have a schedule]
    #[arg(value_name = "JOB")]
    pub(crate) jobs: Vec<String>,

    /// Run them even if they are not due, and prune
    #[arg(short, long)]
    pub(crate) force: bool,

    /// Print nothing if all goes well; else print the whole log
    #[arg(long)]
    pub(crate) quiet_unless_error: bool,

    /// Say what is due, and do nothing
    #[arg(short = 'n', long)]
    pub(crate) dry_run: bool,
}
