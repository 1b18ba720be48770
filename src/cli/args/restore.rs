//! `restore` as typed.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::select::location;
use super::{ExcludeArgs, IncludeArgs, Location, OwnerArgs, SelectArgs};

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
    #[arg(long, value_name = "FILE", conflicts_with_all = ["zip", "target", "to_file", "overwrite_device", "no_owner", "sparse", "overwrite", "in_place", "delete", "strip", "verify", "dry_run", "plan"])]
    pub(crate) tar: Option<PathBuf>,

    /// Write a zip archive into FILE, `-` for standard output, instead of a directory; it holds no devices, pipes and attributes, and a file once for each of its names
    #[arg(long, value_name = "FILE", conflicts_with_all = ["target", "to_file", "overwrite_device", "no_owner", "numeric_owner", "sparse", "overwrite", "in_place", "delete", "strip", "verify", "dry_run", "plan"])]
    pub(crate) zip: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) include: IncludeArgs,

    #[command(flatten)]
    pub(crate) exclude: ExcludeArgs,

    #[command(flatten)]
    pub(crate) select: SelectArgs,

    #[command(flatten)]
    pub(crate) owner: OwnerArgs,

    /// Turn runs of zeroes into holes
    #[arg(long)]
    pub(crate) sparse: bool,

    /// What happens to files that stand in the way
    #[arg(long, value_name = "WHEN", default_value = "always")]
    pub(crate) overwrite: OverwriteArg,

    /// Read what stands in the target, keep of each file what matches, and fetch and write only the rest, also inside of a
    /// large file
    ///
    /// Content is compared, not times. Files above 1 MiB are written where they stand, and are closed to everybody else until
    /// they are done; smaller ones are replaced when they are complete. A restore that was stopped anywhere, with --in-place or
    /// without, goes on when it is run again with it: finished files are kept, and of unfinished ones what arrived; only what
    /// was to replace another file, and a small file's part, is fetched again. With --overwrite always or if-changed.
    #[arg(long)]
    pub(crate) in_place: bool,

    /// Remove from the target what the snapshot does not hold, when all is restored
    ///
    /// Only in directories that were saved and are restored as a whole, so nothing beside a source of the backup, and nothing
    /// that --exclude or --include leaves out. What the backup itself left out is not in the snapshot, and goes; but the
    /// repository and Lifeboat's own files stay, and so does what lies directly in a directory where something is mounted.
    #[arg(long)]
    pub(crate) delete: bool,

    /// With --delete, remove even more than ten entries and more than are restored
    #[arg(long, requires = "delete")]
    pub(crate) yes: bool,

    /// Leave out the first N components of each path below the target; what has no more is not restored
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) strip: usize,

    /// Read back what was written and compare
    #[arg(long)]
    pub(crate) verify: bool,

    /// Say what would be written, and write nothing
    #[arg(short = 'n', long)]
    pub(crate) dry_run: bool,

    /// As --dry-run, with all it takes: bytes to fetch and to write, requests, memory, room in the target, and time, if this
    /// machine restored from this repository before
    #[arg(long)]
    pub(crate) plan: bool,
}

/// When an existing file is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OverwriteArg {
    /// Replace it
    Always,
    /// Replace it if its type, its size or the time of its last change differs; what agrees is believed to be the same
    IfChanged,
    /// Replace it if the snapshot's was changed later
    IfNewer,
    /// Keep it, and count the entry as failed
    Never,
}
