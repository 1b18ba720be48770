//! Databases of SQLite: as of one moment while they are written to, and back in the place of one.
//!
//! Saving them is what a backup of files does with them ([`crate::source::sqlite`]); here it is only demanded of every source.
//!
//! # Invariants
//! What is restored takes its place when it is whole and SQLite finds nothing wrong with it. Then nothing of the database that
//! stood there is left beside it.
//!
//! # Crash
//! See [`crate::source::sqlite::swap`]. Before that a file `.lifeboat-…` in the target's directory, which nobody uses any more.

mod check;

use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use self::check::Verdict;
use super::backup::{BackupOptions, BackupSource, BackupSummary, Databases};
use super::restore::{RestoreOptions, RestoreSummary};
use super::snapshots::SnapshotInfo;
use crate::error::{Error, SqliteError};
use crate::random::random_array;
use crate::repo::{RepoError, Repository};
use crate::source::SourceError;
use crate::source::sqlite::swap::{self, InUse};
use crate::source::target::OwnerPolicy;
use crate::sqlite::{HEADER_LEN, Header};

/// Saves databases, and nothing else: each under its own path, which is where symbolic links lead.
///
/// # Errors
/// [`SourceError::NotADatabase`] and [`SourceError::LinkedDatabase`] before anything is done; those of a backup.
pub async fn backup(repo: &Repository, options: BackupOptions) -> Result<BackupSummary, Error> {
    let BackupSource::Paths(given) = &options.source else { return Err(SourceError::NoInput.into()) };
    let mut paths = Vec::with_capacity(given.len());
    for path in given {
        paths.push(database(path)?);
    }
    paths.sort();
    paths.dedup();
    let options = BackupOptions { source: BackupSource::Paths(paths), databases: Databases::Copy, ..options };
    Box::pin(super::backup::backup(repo, options)).await
}

/// Where a database really is. What is missing, or cannot be read, is left to the backup to say.
fn database(path: &Path) -> Result<PathBuf, SourceError> {
    let Ok(real) = path.canonicalize() else { return Ok(path.to_owned()) };
    let Ok(found) = real.metadata() else { return Ok(real) };
    let mut head = Vec::with_capacity(HEADER_LEN);
    if found.is_file() {
        let Ok(file) = File::open(&real) else { return Ok(real) };
        if file.take(HEADER_LEN as u64).read_to_end(&mut head).is_err() {
            return Ok(real);
        }
    }
    if Header::parse(&head).is_none() {
        return Err(SourceError::NotADatabase { path: path.to_owned() });
    }
    if found.nlink() > 1 {
        return Err(SourceError::LinkedDatabase { path: path.to_owned() });
    }
    Ok(real)
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
    /// Replace a database that is open, or of which a part stands in a log or a journal.
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

/// What a restore did.
#[derive(Debug)]
pub struct SqliteRestoreSummary {
    /// As of any restore.
    pub files: RestoreSummary,
    /// What SQLite said; nothing if it was not asked.
    pub checked: Option<Checked>,
    /// Files that stood beside a database in the target's place, and are gone with it.
    pub removed: Vec<PathBuf>,
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
    let standing = (!options.force).then(|| swap::in_use(&target)).transpose().map_err(local)?.flatten();
    if let Some(why) = standing {
        return Err(SqliteError::InUse { path: target, why }.into());
    }
    let tag: [u8; 8] = random_array(&*repo.env().random).map_err(RepoError::from)?;
    let tag = u64::from_le_bytes(tag);
    let new = directory.join(format!(".lifeboat-{tag:016x}"));
    let aside = directory.join(format!(".lifeboat-{tag:016x}-replaced"));
    let done = make(repo, &options, (&directory, &new)).await;
    let done = match done {
        Ok(made) => put(&new, &target, (aside, options.force)).await.map(|removed| (made, removed)),
        Err(error) => Err(error),
    };
    if done.is_err() {
        // It may not have been made; and the error that came first counts.
        let _ = std::fs::remove_file(&new);
    }
    let ((files, checked), removed) = done?;
    let elapsed = repo.env().clock.monotonic().saturating_sub(began);
    Ok(SqliteRestoreSummary { files, checked, removed, elapsed })
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

/// Restores it under another name, and looks at it.
async fn make(
    repo: &Repository,
    options: &SqliteRestoreOptions,
    (directory, new): (&Path, &Path),
) -> Result<(RestoreSummary, Option<Checked>), Error> {
    let name = new.file_name().map(|name| name.as_bytes().to_vec());
    let wanted = RestoreOptions {
        name,
        owner: options.owner,
        ..RestoreOptions::new(options.snapshot.clone(), options.path.clone(), directory.to_owned())
    };
    let done = Box::pin(super::restore::restore(repo, wanted)).await?;
    if done.damaged_count > 0 {
        return Err(SqliteError::Incomplete.into());
    }
    if !std::fs::symlink_metadata(new).is_ok_and(|made| made.is_file()) {
        return Err(SqliteError::NotAFile { path: options.path.clone() }.into());
    }
    if !options.check {
        return Ok((done, None));
    }
    let new = new.to_owned();
    let verdict = tokio::task::spawn_blocking(move || check::verdict(&new));
    match verdict.await.map_err(|_| RepoError::Task)? {
        Verdict::Good => Ok((done, Some(Checked::Good))),
        Verdict::Unknown(why) => Ok((done, Some(Checked::Unknown(why)))),
        Verdict::Damaged(findings) => Err(SqliteError::Damaged { findings }.into()),
    }
}

async fn put(new: &Path, target: &Path, (aside, force): (PathBuf, bool)) -> Result<Vec<PathBuf>, Error> {
    let (new, target) = (new.to_owned(), target.to_owned());
    let path = target.clone();
    let put = tokio::task::spawn_blocking(move || {
        File::open(&new)?.sync_all()?;
        swap::replace(&new, &target, (&aside, force))
    });
    put.await.map_err(|_| RepoError::Task)?.map_err(|source| match source.kind() {
        std::io::ErrorKind::ResourceBusy => SqliteError::InUse { path, why: InUse::Open }.into(),
        _ => Error::Local { path, source },
    })
}
