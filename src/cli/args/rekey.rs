//! `rekey` as typed.

use std::path::PathBuf;

use clap::Args;
use lifeboat::units::ByteSize;

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

    /// Instead seal again what is still under old keys; may be stopped anywhere, and goes on when it is run again
    ///
    /// What is needed of the old packs is written into new ones under new keys, and the old ones are condemned: `prune` deletes
    /// them when the grace has passed. What a snapshot says of itself, labels, and the archived log of a database stay as they are.
    #[arg(long, conflicts_with_all = ["keep_key_file", "keep_password_file", "remove_old"])]
    pub(crate) reencrypt: bool,

    /// With --reencrypt, fetch and send at most so many bytes a second, such as 10M
    #[arg(long, value_name = "SIZE", requires = "reencrypt")]
    pub(crate) limit: Option<ByteSize>,

    /// With --reencrypt, bytes that stay free on a local disk
    #[arg(long, value_name = "SIZE", default_value = "256M", requires = "reencrypt")]
    pub(crate) reserve: ByteSize,

    /// Say what would be done, and do nothing
    #[arg(short = 'n', long)]
    pub(crate) dry_run: bool,
}
