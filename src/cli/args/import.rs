//! `import` as typed.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::bring::BringArgs;
use super::global::pair;

/// `import`.
#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    #[command(subcommand)]
    pub(crate) verb: ImportVerb,
}

/// From which tool.
#[derive(Debug, Subcommand)]
pub(crate) enum ImportVerb {
    /// Import snapshots of a restic repository, with their times, hosts, users, paths and tags; nothing is restored to disk,
    /// and nothing is written there
    Restic(ResticArgs),
}

/// `import restic`.
#[derive(Debug, Args)]
pub(crate) struct ResticArgs {
    #[command(flatten)]
    pub(crate) from: FromArgs,

    /// Snapshots to import: restic's ids, or the beginnings of them [default: all that match]
    #[arg(value_name = "SNAPSHOT")]
    pub(crate) snapshots: Vec<String>,

    /// Only snapshots of this machine; may be given several times
    #[arg(long, value_name = "HOST", help_heading = "Which snapshots")]
    pub(crate) host: Vec<String>,

    /// Only snapshots with this tag; given several times, with all of them
    #[arg(long, value_name = "TAG", help_heading = "Which snapshots")]
    pub(crate) tag: Vec<String>,

    /// Only snapshots of this source path; given several times, of all of them
    #[arg(long, value_name = "PATH", help_heading = "Which snapshots")]
    pub(crate) path: Vec<String>,

    #[command(flatten)]
    pub(crate) bring: BringArgs,
}

/// The repository of the other tool, and what opens it. The ids are others than those of the global options.
#[derive(Debug, Args)]
#[command(next_help_heading = "The restic repository")]
pub(crate) struct FromArgs {
    /// Where the restic repository lies: a directory, s3://, gs:// or az://
    #[arg(id = "from_repo", value_name = "REPO")]
    pub(crate) repo: OsString,

    /// Read its password from a file; one trailing newline is not part of it [env: LIFEBOAT_FROM_PASSWORD_FILE]
    #[arg(id = "from_password_file", long = "from-password-file", value_name = "FILE")]
    pub(crate) password_file: Option<PathBuf>,

    /// Read its password from a command that the shell runs [env: LIFEBOAT_FROM_PASSWORD_COMMAND]
    #[arg(id = "from_password_command", long = "from-password-command", value_name = "COMMAND")]
    pub(crate) password_command: Option<OsString>,

    /// An option of its store; may be given several times
    #[arg(id = "from_option", long = "from-option", value_name = "KEY=VALUE", value_parser = pair)]
    pub(crate) option: Vec<(String, String)>,
}
