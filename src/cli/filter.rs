//! Include and exclude rules: from options and files to a filter.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use lifeboat::filter::{Filter, FilterBuilder};

use super::args::{ExcludeArgs, IncludeArgs, RuleArgs};
use super::error::CliError;

/// The rules of a backup.
pub(crate) fn of_backup(rules: &RuleArgs) -> Result<Filter, CliError> {
    build(&rules.exclude, &rules.include, rules.ignore_file.as_deref())
}

/// Rules of files come first, and rules without regard to case before the others, so that the last one counts.
pub(crate) fn build(
    exclude: &ExcludeArgs,
    include: &IncludeArgs,
    ignore_file: Option<&OsStr>,
) -> Result<Filter, CliError> {
    let mut builder = FilterBuilder::new();
    for (files, ignore_case) in [(&exclude.iexclude_file, true), (&exclude.exclude_file, false)] {
        for path in files {
            builder.exclude_lines(path, &read(path)?, ignore_case)?;
        }
    }
    for (patterns, ignore_case) in [(&exclude.iexclude, true), (&exclude.exclude, false)] {
        each(patterns, |pattern| builder.exclude(pattern, ignore_case).map(|_| ()).map_err(CliError::from))?;
    }
    for (files, ignore_case) in [(&include.iinclude_file, true), (&include.include_file, false)] {
        for path in files {
            builder.include_lines(path, &read(path)?, ignore_case)?;
        }
    }
    for (patterns, ignore_case) in [(&include.iinclude, true), (&include.include, false)] {
        each(patterns, |pattern| builder.include(pattern, ignore_case).map(|_| ()).map_err(CliError::from))?;
    }
    if let Some(name) = ignore_file {
        builder.ignore_file(name.as_bytes());
    }
    Ok(builder.build()?)
}

fn each(patterns: &[OsString], mut add: impl FnMut(&[u8]) -> Result<(), CliError>) -> Result<(), CliError> {
    patterns.iter().try_for_each(|pattern| add(pattern.as_bytes()))
}

fn read(path: &Path) -> Result<Vec<u8>, CliError> {
    std::fs::read(path).map_err(|source| CliError::Read { path: PathBuf::from(path), source })
}
