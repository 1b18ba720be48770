//! `diff`, `find` and `why` as typed.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use lifeboat::ops::find::When;
use lifeboat::units::ByteSize;

use super::select::location;
use super::{Location, RuleArgs, SelectArgs};

/// `diff`.
#[derive(Debug, Args)]
#[command(after_long_help = DIFF_LEGEND)]
pub(crate) struct DiffArgs {
    /// What counts as before: an id or the beginning of one, `latest~1`, `@2026-03-01T14:00`, and perhaps a path in it
    #[arg(value_name = "SNAPSHOT[:PATH]", value_parser = location())]
    pub(crate) old: Location,

    /// What counts as after; without a path of its own, that of the first counts
    #[arg(value_name = "SNAPSHOT[:PATH]", value_parser = location())]
    pub(crate) new: Location,

    #[command(flatten)]
    pub(crate) select: SelectArgs,

    /// Also show entries that differ in nothing but metadata, such as mode, owner or time; these are only counted otherwise
    #[arg(long)]
    pub(crate) metadata: bool,
}

const DIFF_LEGEND: &str = "\
The letters before the paths:
  +  added
  -  removed
  M  other content: the bytes of a file, the target of a link, the number of a device
  U  other metadata; in brackets which
  T  something of another kind, such as a directory in the place of a file";

/// `find`.
#[derive(Debug, Args)]
pub(crate) struct FindArgs {
    /// Names or paths, as in a .gitignore file: `*.odt` at every depth, `/etc/*.conf` from the root, `cache/` directories
    /// only, `!` in front takes back
    #[arg(value_name = "PATTERN", required = true, allow_hyphen_values = false)]
    pub(crate) patterns: Vec<OsString>,

    /// Only in these snapshots [default: all]; may be given several times
    #[arg(short, long, value_name = "SNAPSHOT")]
    pub(crate) snapshot: Vec<String>,

    #[command(flatten)]
    pub(crate) select: SelectArgs,

    /// Also in snapshots that are forgotten and not removed yet
    #[arg(long)]
    pub(crate) all: bool,

    /// Upper and lower case are the same
    #[arg(short, long)]
    pub(crate) ignore_case: bool,

    /// Only entries changed at or after a time: `2026-03-01` (its beginning), `2026-03-01T14:00`, or `7d` for seven days ago
    #[arg(long, value_name = "WHEN")]
    pub(crate) newer: Option<When>,

    /// Only entries changed before a time
    #[arg(long, value_name = "WHEN")]
    pub(crate) older: Option<When>,

    /// Only files that are larger, such as 500M
    #[arg(long, value_name = "SIZE")]
    pub(crate) larger: Option<ByteSize>,

    /// Only files that are smaller
    #[arg(long, value_name = "SIZE")]
    pub(crate) smaller: Option<ByteSize>,

    /// Only entries of this kind; may be given several times
    #[arg(short = 't', long = "type", value_name = "KIND")]
    pub(crate) kind: Vec<KindArg>,

    /// A line also for each change of metadata, such as mode or owner
    #[arg(long)]
    pub(crate) metadata: bool,

    /// Show mode, owner, group and the time of the last change, too
    #[arg(short, long)]
    pub(crate) long: bool,
}

/// A kind of entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum KindArg {
    /// Regular files
    #[value(alias = "f")]
    File,
    /// Directories
    #[value(alias = "d")]
    Directory,
    /// Symbolic links
    #[value(alias = "l")]
    Symlink,
    /// Devices, pipes and sockets
    Other,
}

/// `why`.
#[derive(Debug, Args)]
pub(crate) struct WhyArgs {
    /// A file or directory of this machine, whether it is there or not
    #[arg(value_name = "PATH")]
    pub(crate) file: PathBuf,

    /// What the backup saves; may be given several times [default: the sources of the newest snapshot that tells of the path]
    #[arg(long, value_name = "PATH")]
    pub(crate) source: Vec<PathBuf>,

    #[command(flatten)]
    pub(crate) rules: RuleArgs,

    /// The job whose snapshots count [default: all]; may be given several times
    #[arg(long, value_name = "NAME")]
    pub(crate) job: Vec<String>,

    /// The machine whose snapshots count [default: this one]
    #[arg(long, value_name = "HOST")]
    pub(crate) host: Option<String>,

    /// Only snapshots with this tag count; may be given several times
    #[arg(long, value_name = "TAG")]
    pub(crate) tag: Vec<String>,
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::Cli;

    #[test]
    fn what_makes_no_sense_is_refused() {
        for bad in [
            &["diff", "latest"][..],
            &["diff", "latest", ":/etc"],
            &["find"],
            &["find", "x", "--newer", "yesterday"],
            &["find", "x", "--larger", "-1"],
            &["find", "x", "--type", "folder"],
            &["why"],
            &["why", "a", "b"],
        ] {
            let line = ["lifeboat"].into_iter().chain(bad.iter().copied());
            assert!(Cli::try_parse_from(line).is_err(), "{bad:?}");
        }
        for good in [
            &["diff", "latest~1:/etc", "@2026-03-01T14:00:/etc", "--metadata"][..],
            &["find", "*.odt", "-i", "-s", "latest", "-t", "f", "--newer", "7d", "--older", "2026-03-01"],
            &["why", "x", "-e", "*.tmp", "-x", "--job", "etc"],
        ] {
            let line = ["lifeboat"].into_iter().chain(good.iter().copied());
            assert!(Cli::try_parse_from(line).is_ok(), "{good:?}");
        }
    }
}
