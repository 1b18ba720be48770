//! The smaller verbs as typed.

use std::path::PathBuf;

use clap::Args;
use clap_complete::Shell;
use lifeboat::format::config::Lock;
use lifeboat::ops::verify::Budget;
use lifeboat::units::ByteSize;

use super::global::duration;
use super::select::location;
use super::{Location, SelectArgs};

/// `init`.
#[derive(Debug, Args)]
pub(crate) struct InitArgs {
    /// Make a key file (mode 0600) that opens the repository; an existing file is never replaced
    #[arg(long, value_name = "FILE")]
    pub(crate) new_key_file: Option<PathBuf>,

    /// Make 24 recovery words that open the repository, and print them; `lifeboat key words` shows them again
    #[arg(long)]
    pub(crate) recovery_words: bool,

    /// Let the store lock every object for this long, in a bucket of S3 with Object Lock enabled
    ///
    /// Until it ends nobody can delete or replace what is stored; with `compliance` not even the account's owner, with
    /// `governance` those to whom the store gives that right. What a later snapshot needs is locked anew. It stays with
    /// the repository, and a bucket costs what it cannot give back.
    #[arg(long, value_name = "MODE:TIME", value_parser = super::policy::lock)]
    pub(crate) lock: Option<Lock>,

    /// Go on even if the store does not keep the promises that safe deletion rests on
    #[arg(long)]
    pub(crate) accept_weak_store: bool,
}

/// `snapshots`.
#[derive(Debug, Args)]
pub(crate) struct SnapshotsArgs {
    #[command(flatten)]
    pub(crate) select: SelectArgs,

    /// Also those that are forgotten and not removed yet
    #[arg(long)]
    pub(crate) all: bool,
}

/// `stats`.
#[derive(Debug, Args)]
pub(crate) struct StatsArgs {
    /// Show what each snapshot needs that no other does
    #[arg(long)]
    pub(crate) snapshots: bool,
}

/// `ls`.
#[derive(Debug, Args)]
pub(crate) struct LsArgs {
    /// The snapshot, and perhaps a path in it
    #[arg(value_name = "SNAPSHOT[:PATH]", default_value = "latest", value_parser = location())]
    pub(crate) location: Location,

    #[command(flatten)]
    pub(crate) select: SelectArgs,

    /// Show mode, owner, group, size and time
    #[arg(short, long)]
    pub(crate) long: bool,

    /// Stay in the directory
    #[arg(long)]
    pub(crate) no_recursive: bool,
}

/// `cat`.
#[derive(Debug, Args)]
pub(crate) struct CatArgs {
    /// The snapshot and the path of a regular file in it
    #[arg(value_name = "SNAPSHOT:PATH", value_parser = location())]
    pub(crate) location: Location,

    #[command(flatten)]
    pub(crate) select: SelectArgs,
}

/// `verify`.
#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// Read every stored object and check its hash; needs no key
    #[arg(long, conflicts_with = "data")]
    pub(crate) packs: bool,

    /// Read, open and check every chunk
    #[arg(long)]
    pub(crate) data: bool,

    /// Stop after this time or so many bytes, such as 30m or 50GiB, and take what was verified longest ago; opens and checks
    /// chunks if the key does, unless --packs is given
    #[arg(long, value_name = "TIME|SIZE", value_parser = budget)]
    pub(crate) budget: Option<Budget>,
}

/// A time has a small letter at its end, and a size has none.
fn budget(text: &str) -> Result<Budget, String> {
    if let Ok(time) = duration(text)
        && text.ends_with(|c: char| c.is_ascii_lowercase())
        && !time.is_zero()
    {
        return Ok(Budget::Time(time));
    }
    match text.parse::<ByteSize>() {
        Ok(ByteSize(0)) | Err(_) => {
            Err("expected a time such as 30m or 2h, or a size such as 50GiB".to_owned())
        }
        Ok(ByteSize(bytes)) => Ok(Budget::Bytes(bytes)),
    }
}

/// `completions`.
#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// For which shell
    pub(crate) shell: Shell,
}

/// `man`.
#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// The directory, which must exist
    #[arg(value_name = "DIR")]
    pub(crate) dir: PathBuf,
}
