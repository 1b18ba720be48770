//! Include and exclude rules as typed.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;
use lifeboat::units::ByteSize;

/// What is left out. Rules of files come first, so that an argument can take one of them back with `!`.
#[derive(Debug, Args)]
#[command(next_help_heading = "What to leave out")]
pub(crate) struct ExcludeArgs {
    /// Leave out what matches the pattern, as in a .gitignore file; may be given several times
    #[arg(short, long, value_name = "PATTERN")]
    pub(crate) exclude: Vec<OsString>,

    /// As --exclude, upper and lower case being the same
    #[arg(long, value_name = "PATTERN")]
    pub(crate) iexclude: Vec<OsString>,

    /// Leave out what matches a pattern of the file, one a line
    #[arg(long, value_name = "FILE")]
    pub(crate) exclude_file: Vec<PathBuf>,

    /// As --exclude-file, upper and lower case being the same
    #[arg(long, value_name = "FILE")]
    pub(crate) iexclude_file: Vec<PathBuf>,
}

/// What alone is kept.
#[derive(Debug, Args)]
#[command(next_help_heading = "What to keep")]
pub(crate) struct IncludeArgs {
    /// Keep only what matches the pattern; may be given several times
    #[arg(short, long, value_name = "PATTERN")]
    pub(crate) include: Vec<OsString>,

    /// As --include, upper and lower case being the same
    #[arg(long, value_name = "PATTERN")]
    pub(crate) iinclude: Vec<OsString>,

    /// Keep only what matches a pattern of the file, one a line
    #[arg(long, value_name = "FILE")]
    pub(crate) include_file: Vec<PathBuf>,

    /// As --include-file, upper and lower case being the same
    #[arg(long, value_name = "FILE")]
    pub(crate) iinclude_file: Vec<PathBuf>,
}

/// All that decides what of the sources belongs to a backup.
#[derive(Debug, Args)]
pub(crate) struct RuleArgs {
    #[command(flatten)]
    pub(crate) exclude: ExcludeArgs,

    #[command(flatten)]
    pub(crate) include: IncludeArgs,

    /// Read patterns of each directory from a file of this name in it, such as .gitignore
    #[arg(long, value_name = "NAME", help_heading = "What to leave out")]
    pub(crate) ignore_file: Option<OsString>,

    /// Stay on the file systems of the sources
    #[arg(short = 'x', long, help_heading = "What to leave out")]
    pub(crate) one_file_system: bool,

    /// Leave out the content of directories that have a CACHEDIR.TAG
    #[arg(long, help_heading = "What to leave out")]
    pub(crate) exclude_caches: bool,

    /// Leave out files that are larger, such as 500M
    #[arg(long, value_name = "SIZE", help_heading = "What to leave out")]
    pub(crate) exclude_larger_than: Option<ByteSize>,
}
