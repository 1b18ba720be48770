//! `copy` as typed, and how a second repository is named.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;

use super::SelectArgs;
use super::bring::BringArgs;
use super::global::pair;

/// `copy`.
#[derive(Debug, Args)]
pub(crate) struct CopyArgs {
    /// Snapshots to copy: ids or the beginnings of them, `latest`, `latest~2`, `@2026-03-01T14:00` [default: all that match]
    #[arg(value_name = "SNAPSHOT")]
    pub(crate) snapshots: Vec<String>,

    #[command(flatten)]
    pub(crate) to: ToArgs,

    #[command(flatten)]
    pub(crate) select: SelectArgs,

    /// Keep the other repository in step: copy what is newer than what was copied before, of each job of each machine, and what
    /// was brought into this one from elsewhere. Nothing is removed there, and what its own `forget` removed does not come
    /// back as long as a later copy of the same job is kept
    #[arg(long, conflicts_with = "snapshots")]
    pub(crate) mirror: bool,

    #[command(flatten)]
    pub(crate) bring: BringArgs,
}

/// The repository to copy to, and what opens it.
#[derive(Debug, Args)]
#[command(next_help_heading = "The other repository")]
pub(crate) struct ToArgs {
    /// Where it lies [env: LIFEBOAT_TO_REPO]
    #[arg(id = "to", long = "to", value_name = "URL")]
    pub(crate) repo: Option<OsString>,

    /// Read its password from a file [env: LIFEBOAT_TO_PASSWORD_FILE]
    #[arg(id = "to-password-file", long = "to-password-file", value_name = "FILE")]
    pub(crate) password_file: Option<PathBuf>,

    /// Read its password from a command that the shell runs [env: LIFEBOAT_TO_PASSWORD_COMMAND]
    #[arg(id = "to-password-command", long = "to-password-command", value_name = "COMMAND")]
    pub(crate) password_command: Option<OsString>,

    /// Open it with a key file [env: LIFEBOAT_TO_KEY_FILE]
    #[arg(id = "to-key-file", long = "to-key-file", value_name = "FILE")]
    pub(crate) key_file: Option<PathBuf>,

    /// Open it with the 24 recovery words in a file [env: LIFEBOAT_TO_WORDS_FILE]
    #[arg(id = "to-words-file", long = "to-words-file", value_name = "FILE")]
    pub(crate) words_file: Option<PathBuf>,

    /// An option of its store; may be given several times
    #[arg(id = "to-option", long = "to-option", value_name = "KEY=VALUE", value_parser = pair)]
    pub(crate) option: Vec<(String, String)>,
}
