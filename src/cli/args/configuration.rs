//! `config` as typed.

use clap::{Args, Subcommand};

/// `config`.
#[derive(Debug, Args)]
pub(crate) struct ConfigArgs {
    #[command(subcommand)]
    pub(crate) verb: ConfigVerb,
}

/// What to do with the configuration.
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigVerb {
    /// Say all that is wrong with it, by file and line
    Check,
    /// Show what it says
    Show {
        /// Also show what holds where it says nothing, and what the environment replaces
        #[arg(long)]
        effective: bool,

        /// Say of each setting where it comes from
        #[arg(long)]
        origins: bool,
    },
    /// Print its JSON schema, for editors
    Schema,
}
