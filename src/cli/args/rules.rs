//! Include and exclude rules as typed.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;

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
