//! `restore` as typed.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::select::location;
use super::{ExcludeArgs, IncludeArgs, Location, SelectArgs};

/// What to write where.
#[derive(Debug, Args)]
pub(crate) struct RestoreArgs {
    /// An id or the beginning of one, `latest`, `latest~2` or `@2026-03-01T14:00`; with a path, what lies there is put
    /// directly into the target
    #[arg(value_name = "SNAPSHOT[:PATH]", value_parser = location())]
    pub(crate) location: Location,

    /// The directory to write into; made if it is not there. For SNAPSHOT:PATH of a file also a block device, which is
    /// written from its beginning
    #[arg(short, long, value_name = "DIR", required_unless_present_any = ["tar", "zip", "to_file"])]
    pub(crate) target: Option<PathBuf>,

    /// Restore one file, SNAPSHOT:PATH, under this name instead
    #[arg(long, value_name = "FILE", conflicts_with = "target")]
    pub(crate) to_file: Option<PathBuf>,

    /// Overwrite the block device that is the target
    #[arg(long)]
    pub(crate) overwrite_device: bool,

    /// Write a tar archive into FILE, `-` for standard output, instead of a directory; GNU tar restores it with `tar --xattrs
    /// --xattrs-include='*' --acls -xpf -`
    #[arg(long, value_name = "FILE", conflicts_with_all = ["zip", "target", "to_file", "overwrite_device", "no_owner", "sparse", "overwrite", "verify", "dry_run"])]
    pub(crate) tar: Option<PathBuf>,

    /// Write a zip archive into FILE, `-` for standard output, instead of a directory; it holds no devices, pipes and attributes
    #[arg(long, value_name = "FILE", conflicts_with_all = ["target", "to_file", "overwrite_device", "no_owner", "numeric_owner", "sparse", "overwrite", "verify", "dry_run"])]
    pub(crate) zip: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) include: IncludeArgs,

    #[command(flatten)]
    pub(crate) exclude: ExcludeArgs,

    #[command(flatten)]
    pub(crate) select: SelectArgs,

    /// Leave owners and groups as the system sets them
    #[arg(long, conflicts_with = "numeric_owner")]
    pub(crate) no_owner: bool,

    /// Set owners and groups by number, not by name
    #[arg(long)]
    pub(crate) numeric_owner: bool,

    /// Turn runs of zeroes into holes
    #[arg(long)]
    pub(crate) sparse: bool,

    /// What happens to files that stand in the way
    #[arg(long, value_name = "WHEN", default_value = "always")]
    pub(crate) overwrite: OverwriteArg,

    /// Read back what was written and compare
    #[arg(long)]
    pub(crate) verify: bool,

    /// Say what would be written, and write nothing
    #[arg(short = 'n', long)]
    pub(crate) dry_run: bool,
}

/// When an existing file is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OverwriteArg {
    /// Replace it
    Always,
    /// Keep it, and count the entry as failed
    Never,
}
