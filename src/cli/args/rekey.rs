//! `rekey` as typed.

use std::path::PathBuf;

use clap::Args;

/// `rekey`.
#[derive(Debug, Args)]
#[command(after_help = "\
If the secret that was lost is the one in use, replace it first: lifeboat key passwd; if it is that of an admin, the recovery \
words, too: lifeboat key recovery. Whoever has an admin's key and may write to the store can still change what is sealed to \
whom: then only a new repository helps.")]
pub(crate) struct RekeyArgs {
    /// Also make the key anew that this key file opens; without, its holder reads only what was stored before
    #[arg(long, value_name = "FILE")]
    pub(crate) keep_key_file: Vec<PathBuf>,

    /// The same for a password in a file
    #[arg(long, value_name = "FILE")]
    pub(crate) keep_password_file: Vec<PathBuf>,

    /// Take away the keys that are not made anew, so that nobody goes on with them by mistake
    #[arg(long)]
    pub(crate) remove_old: bool,

    /// Say what would be done, and do nothing
    #[arg(short = 'n', long)]
    pub(crate) dry_run: bool,
}
