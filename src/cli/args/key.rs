//! `key` as typed.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use lifeboat::format::keyslot::Role;

/// `key`.
#[derive(Debug, Args)]
pub(crate) struct KeyArgs {
    #[command(subcommand)]
    pub(crate) verb: KeyVerb,
}

/// What to do with keys.
#[derive(Debug, Subcommand)]
pub(crate) enum KeyVerb {
    /// List the keys: role, kind, age, label
    List,
    /// Give a key to someone else, which can do no more than its role
    Add(KeyAddArgs),
    /// Replace the secret that opened this run by another one
    Passwd(NewSecretArgs),
    /// Take a key away; the one that opened this run stays
    Remove {
        /// Its id or the beginning of it
        #[arg(value_name = "KEY")]
        key: String,
    },
    /// Make new recovery words, which replace the old ones
    Recovery(RecoveryArgs),
    /// Say whether recovery words open this repository
    VerifyRecovery,
    /// Show the 24 recovery words again
    Words,
}

/// `key add`.
#[derive(Debug, Args)]
pub(crate) struct KeyAddArgs {
    /// What the key may do
    #[arg(long)]
    pub(crate) role: RoleArg,

    /// What to call it, such as the name of a machine; whoever opens the repository can read it
    #[arg(long, value_name = "TEXT")]
    pub(crate) label: Option<String>,

    #[command(flatten)]
    pub(crate) secret: NewSecretArgs,
}

/// A secret to be made or taken; a person is asked for a password if none is named.
#[derive(Debug, Args)]
#[group(multiple = false)]
pub(crate) struct NewSecretArgs {
    /// Read the new password from a file; one trailing newline is not part of it
    #[arg(long, value_name = "FILE")]
    pub(crate) new_password_file: Option<PathBuf>,

    /// Read the new password from a command that the shell runs
    #[arg(long, value_name = "COMMAND")]
    pub(crate) new_password_command: Option<OsString>,

    /// Make a key file (mode 0600); an existing file is never replaced
    #[arg(long, value_name = "FILE")]
    pub(crate) new_key_file: Option<PathBuf>,
}

/// `key recovery`.
#[derive(Debug, Args)]
pub(crate) struct RecoveryArgs {
    /// Write the words into a file (mode 0600) instead of showing them; an existing file is never replaced
    #[arg(long, value_name = "FILE")]
    pub(crate) words_to: Option<PathBuf>,

    /// Write the QR code of the words into a picture (mode 0600); an existing file is never replaced
    #[arg(long, value_name = "FILE")]
    pub(crate) png: Option<PathBuf>,
}

/// A role as typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum RoleArg {
    /// Backs up, and can read nothing, not even what it wrote
    Writer,
    /// Restores
    Reader,
    /// Forgets and prunes, and can read no file
    Maintainer,
    /// Checks the structure
    Verifier,
    /// May do everything
    Admin,
}

impl From<RoleArg> for Role {
    fn from(role: RoleArg) -> Self {
        match role {
            RoleArg::Writer => Self::Writer,
            RoleArg::Reader => Self::Reader,
            RoleArg::Maintainer => Self::Maintainer,
            RoleArg::Verifier => Self::Verifier,
            RoleArg::Admin => Self::Admin,
        }
    }
}
