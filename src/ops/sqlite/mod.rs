//! Databases of SQLite: as of one moment while they are written to, and back in the place of one.
//!
//! To save them is a backup of files, in which SQLite's copy stands for each ([`crate::source::sqlite`]).
//!
//! # Invariants
//! What is restored takes its place when it is whole and SQLite finds nothing wrong with it. Then nothing of the database that
//! stood there is left beside it. What was saved as a file, and may not be of one moment, is not called good.
//!
//! # Crash
//! See [`crate::source::sqlite::swap`]. Before that a file `.lifeboat-…` in the target's directory, which nobody uses any more.

mod check;

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use self::check::Verdict;
use super::backup::{BackupOptions, BackupSource, BackupSummary, Databases};
use super::restore::{RestoreOptions, RestoreSummary, prepare};
use super::snapshots::SnapshotInfo;
use super::tree::{Found, Lookup};
use crate::error::{Error, SqliteError};
use crate::event::Event;
use crate::random::random_array;
use crate::repo::{RepoError, Repository};
use crate::source::SourceError;
use crate::source::sqlite::is_database;
use crate::source::sqlite::swap::{Replaced, Spot};
use crate::source::target::OwnerPolicy;

/// Saves databases, and nothing else: each under its own path, which is where symbolic links lead.
///
/// # Errors
/// [`SourceError::NotADatabase`] and [`SourceError::LinkedDatabase`] before anything is done, if that is true of all of them or one
/// is no file; those of a backup.
pub async fn backup(repo: &Repository, options: BackupOptions) -> Result<BackupSummary, Error> {
    let BackupSource::Paths(given) = &options.source else { return Err(SourceError::NoInput.into()) };
    let (mut paths, mut refused, mut seen) = (Vec::with_capacity(given.len()), Vec::new(), HashSet::new());
    for path in given {
        // What is missing, or cannot be read, is left to the backup to say.
        let real = path.canonicalize().unwrap_or_else(|_| path.clone());
        let found = real.metadata().ok();
        if found.as_ref().is_some_and(|found| !found.is_file()) {
            return Err(SourceError::NotADatabase { path: path.clone() }.into());
        }
        // Two files of one inode in SQLite's hands: closing one would end the locks of the other.
        let inode = found.as_ref().map(|found| (found.dev(), found.ino()));
        if inode.is_some_and(|inode| !seen.insert(inode)) {
            continue;
        }
        if found.is_some_and(|found| found.nlink() > 1) {
            refused.push(SourceError::LinkedDatabase { path: path.clone() });
        } else if is_database(&real).is_ok_and(|known| !known) {
            refused.push(SourceError::NotADatabase { path: path.clone() });
        }
        paths.push(real);
    }
    paths.sort();
    paths.dedup();
    if refused.len() >= paths.len()
        && let Some(first) = refused.into_iter().next()
    {
        return Err(first.into());
    }
    let options = BackupOptions {
        source: BackupSource::Paths(paths),
        databases: Databases::Copy,
        // Each is named, and what is not there is named as missing.
        allow_shrink: true,
        ..options
    };
    Box::pin(super::backup::backup(repo, options)).await
}

/// Which database to restore, and where to.
#[derive(Debug)]
pub struct SqliteRestoreOptions {
    /// The snapshot.
    pub snapshot: SnapshotInfo,
    /// Its stored path.
    pub path: Vec<u8>,
    /// The file that it becomes.
    pub target: PathBuf,
    /// Owner and group.
    pub owner: OwnerPolicy,
    /// Replace what stands there, whoever uses it and whatever it is.
    pub force: bool,
    /// Let SQLite look at it before it takes its place.
    pub check: bool,
}

/// What SQLite said of a database that it does not call damaged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Checked {
    /// It finds nothing wrong.
    Good,
    /// It cannot look at it without the program that the database belongs to, and why.
    Unknown(String),
}

/// Why a database may not be of one moment, whatever SQLite says of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doubt {
    /// It changed each time it was read; it was saved as a file.
    Changed,
    /// A log or a journal was saved beside it as a file, and is not restored with it.
    Beside,
}

impl std::fmt::Display for Doubt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Changed => "it changed while it was saved as a file, and may be of several moments",
            Self::Beside => {
                "it was saved as a file, and what stands in the log or the journal beside it is not restored with it"
            }
        })
    }
}

/// What a restore did.
#[derive(Debug)]
pub struct SqliteRestoreSummary {
    /// As of any restore.
    pub files: RestoreSummary,
    /// What SQLite said; nothing if it was not asked.
    pub checked: Option<Checked>,
    /// Why it may not be of one moment.
    pub doubt: Option<Doubt>,
    /// Files that stood beside a database in the target's place, and are gone with it.
    pub removed: Vec<PathBuf>,
    /// What is left of that database, and could not be removed.
    pub left: Vec<PathBuf>,
    /// How long it took.
    pub elapsed: Duration,
}

/// Restores a database.
///
/// # Errors
/// [`SqliteError`], with the target as it was; those of a restore.
pub async fn restore(
    repo: &Repository,
    options: SqliteRestoreOptions,
) -> Result<SqliteRestoreSummary, Error> {
    let began = repo.env().clock.monotonic();
    let (directory, target) = place(&options.target)?;
    let local = |source| Error::Local { path: target.clone(), source };
    let spot = Spot::open(&directory, target.file_name().unwrap_or_default()).map_err(local)?;
    if let (false, Some(why)) = (options.force, spot.in_use().map_err(local)?) {
        return Err(SqliteError::InUse { path: target, why }.into());
    }
    let tag: [u8; 8] = random_array(&*repo.env().random).map_err(RepoError::from)?;
    let new = directory.join(format!(".lifeboat-{:016x}", u64::from_le_bytes(tag)));
    let done = match make(repo, &options, (&directory, &new)).await {
        Ok(made) => put((new.clone(), spot), &target, options.force).await.map(|replaced| (made, replaced)),
        Err(error) => Err(error),
    };
    if done.is_err() {
        // It may not have been made; and the error that came first counts.
        let _ = std::fs::remove_file(&new);
    }
    let (Made { files, checked, doubt }, Replaced { removed, left }) = done?;
    let elapsed = repo.env().clock.monotonic().saturating_sub(began);
    Ok(SqliteRestoreSummary { files, checked, doubt, removed, left, elapsed })
}

/// The directory and the file, through a symbolic link if it is one: SQLite goes through it too.
fn place(target: &Path) -> Result<(PathBuf, PathBuf), Error> {
    let real = target.canonicalize().unwrap_or_else(|_| target.to_owned());
    let none = || Error::from(SqliteError::NoTarget { path: target.to_owned() });
    let file = real.is_file() || std::fs::symlink_metadata(&real).is_err();
    let name = real.file_name().filter(|_| file && !target.as_os_str().as_bytes().ends_with(b"/"));
    let name = name.ok_or_else(none)?.to_owned();
    let parent = real.parent().filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.map_or_else(|| PathBuf::from("."), Path::to_owned);
    let directory = parent.canonicalize().map_err(|source| Error::Local { path: parent, source })?;
    let target = directory.join(name);
    Ok((directory, target))
}

/// A restored database under another name.
struct Made {
    files: RestoreSummary,
    checked: Option<Checked>,
    doubt: Option<Doubt>,
}

/// Restores it under another name, and looks at it.
async fn make(
    repo: &Repository,
    options: &SqliteRestoreOptions,
    (directory, new): (&Path, &Path),
) -> Result<Made, Error> {
    let beside = is_beside(repo, options).await?;
    let name = new.file_name().map(|name| name.as_bytes().to_vec());
    let wanted = RestoreOptions {
        name,
        owner: options.owner,
        ..RestoreOptions::new(options.snapshot.clone(), options.path.clone(), directory.to_owned())
    };
    let files = Box::pin(super::restore::restore(repo, wanted)).await?;
    if files.damaged_count > 0 {
        return Err(SqliteError::Incomplete.into());
    }
    if !std::fs::symlink_metadata(new).is_ok_and(|made| made.is_file()) {
        return Err(SqliteError::NotRestored { path: options.path.clone() }.into());
    }
    let warn = |message: &str| repo.env().observer.observe(&Event::Warning { message });
    let doubt = if files.doubted > 0 { Some(Doubt::Changed) } else { beside.then_some(Doubt::Beside) };
    if let Some(doubt) = doubt {
        warn(&format!("{}: {doubt}", String::from_utf8_lossy(&options.path)));
    }
    if !options.check {
        return Ok(Made { files, checked: None, doubt });
    }
    let new = new.to_owned();
    let verdict = tokio::task::spawn_blocking(move || check::verdict(&new));
    let checked = match verdict.await.map_err(|_| RepoError::Task)? {
        Verdict::Good => Checked::Good,
        Verdict::Unknown(why) => {
            warn(&format!("SQLite cannot check {}: {why}", String::from_utf8_lossy(&options.path)));
            Checked::Unknown(why)
        }
        Verdict::Damaged(findings) => return Err(SqliteError::Damaged { findings }.into()),
        Verdict::Failed(said) => return Err(SqliteError::Unchecked { said }.into()),
    };
    Ok(Made { files, checked: Some(checked), doubt })
}

/// Whether a log or a journal with content is in the snapshot beside the database, which then was saved as a file.
async fn is_beside(repo: &Repository, options: &SqliteRestoreOptions) -> Result<bool, Error> {
    let lookup = Lookup::open(repo).await?;
    let mut reader = prepare::reader(&lookup)?;
    for suffix in [&b"-wal"[..], b"-journal"] {
        let path = [&options.path[..], suffix].concat();
        if let Some(Found::Node(node)) = reader.find(options.snapshot.snapshot.root, &path).await?
            && node.size > 0
        {
            return Ok(true);
        }
    }
    Ok(false)
}

async fn put((new, spot): (PathBuf, Spot), target: &Path, force: bool) -> Result<Replaced, Error> {
    let path = target.to_owned();
    let put = tokio::task::spawn_blocking(move || {
        File::open(&new)?.sync_all()?;
        let new = new.file_name().unwrap_or_default();
        if force {
            let aside = [new.as_bytes(), b"-replaced"].concat();
            return spot.put_by_force(new, OsStr::from_bytes(&aside)).map(Ok);
        }
        spot.put(new)
    });
    let put = put.await.map_err(|_| RepoError::Task)?;
    let replaced = put.map_err(|source| Error::Local { path: path.clone(), source })?;
    replaced.map_err(|why| SqliteError::InUse { path, why }.into())
}
