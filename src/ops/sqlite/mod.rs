//! Databases of SQLite: saved as of one moment while they are written to, and restored where nothing stands.
//!
//! To save them is a backup of files, in which SQLite's copy stands for each ([`crate::source::sqlite`]).
//!
//! # Invariants
//! What is restored gets its name when it is whole and SQLite finds nothing wrong with it, and replaces nothing
//! ([`crate::source::sqlite::place`]). What was saved as a file, and may not be of one moment, is not called good.
//!
//! # Crash
//! A file `.lifeboat-…` in the target's directory, which nobody uses any more, unless it has its name already.

mod check;

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use self::check::Verdict;
use super::backup::{BackupOptions, BackupSource, BackupSummary, Databases};
use super::cat::cat;
use super::restore::{RestoreOptions, RestoreSummary, prepare};
use super::snapshots::SnapshotInfo;
use super::tree::{Found, Lookup, is_local_damage, may_have_moved};
use crate::error::{Error, SqliteError};
use crate::event::Event;
use crate::format::node::{NodeKind, Problem};
use crate::random::random_array;
use crate::repo::{RepoError, Repository};
use crate::source::SourceError;
use crate::source::sqlite::place::{Placed, Spot};
use crate::source::sqlite::{Mode, is_database, is_journal, is_log, mode_at, names_beside};
use crate::source::target::OwnerPolicy;

/// Saves databases, and nothing else: each under its own path, which is where symbolic links lead. What stands beside one of them is
/// part of it, also if it is given.
///
/// # Errors
/// [`SourceError::NotADatabase`] and [`SourceError::LinkedDatabase`] before anything is done, if that is true of all of them or one
/// is no file; those of a backup.
pub async fn backup(repo: &Repository, options: BackupOptions) -> Result<BackupSummary, Error> {
    let BackupSource::Paths(given) = &options.source else { return Err(SourceError::NoInput.into()) };
    // What is missing, or cannot be read, is left to the backup to say.
    let reals: Vec<PathBuf> =
        given.iter().map(|path| path.canonicalize().unwrap_or_else(|_| path.clone())).collect();
    let databases = reals.iter().filter(|real| is_database(real).unwrap_or(false));
    let beside = databases.flat_map(|real| names_beside(real));
    let beside: Vec<PathBuf> = beside.filter(|path| !matches!(mode_at(path), Ok(Some(_)))).collect();
    // SQLite has these open while it copies: to open its index here and close it would end its locks.
    let mut seen: HashSet<(u64, u64)> = beside
        .iter()
        .filter_map(|path| path.metadata().ok())
        .map(|found| (found.dev(), found.ino()))
        .collect();
    let (mut paths, mut refused, mut hopeful) = (Vec::with_capacity(given.len()), Vec::new(), false);
    for (path, real) in given.iter().zip(reals) {
        if beside.contains(&real) {
            continue;
        }
        let found = real.metadata().ok();
        if found.as_ref().is_some_and(|found| !found.is_file()) {
            return Err(SourceError::NotADatabase { path: path.clone() }.into());
        }
        // Two files of one inode in SQLite's hands: closing one would end the locks of the other.
        let inode = found.as_ref().map(|found| (found.dev(), found.ino()));
        if inode.is_some_and(|inode| !seen.insert(inode)) {
            continue;
        }
        if found.as_ref().is_some_and(|found| found.nlink() > 1) {
            refused.push(SourceError::LinkedDatabase { path: path.clone() });
        } else if is_database(&real).is_ok_and(|known| !known) {
            refused.push(SourceError::NotADatabase { path: path.clone() });
        } else {
            hopeful |= found.is_some();
        }
        paths.push(real);
    }
    paths.sort();
    paths.dedup();
    if !hopeful && let Some(first) = refused.into_iter().next() {
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
    /// The file that it becomes; nothing may stand there, or beside it.
    pub target: PathBuf,
    /// Owner and group.
    pub owner: OwnerPolicy,
    /// Let SQLite look at it before it gets its name.
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
    /// What stands beside it by now: somebody opened it already, or put there what is not its own.
    pub beside: Vec<PathBuf>,
    /// The name that it had until then, if that could not be removed.
    pub left: Option<PathBuf>,
    /// Why it may not have its name after a crash of the machine, or why nobody knows what stands beside it.
    pub fault: Option<io::Error>,
    /// How long it took.
    pub elapsed: Duration,
}

impl SqliteRestoreSummary {
    /// Whether something is to be looked at.
    pub fn is_partial(&self) -> bool {
        let settled = self.beside.is_empty() && self.left.is_none() && self.fault.is_none();
        self.files.failed > 0 || self.doubt.is_some() || !settled
    }
}

/// Restores a database.
///
/// # Errors
/// [`SqliteError`], with whatever stands there as it was; those of a restore.
pub async fn restore(
    repo: &Repository,
    options: SqliteRestoreOptions,
) -> Result<SqliteRestoreSummary, Error> {
    let began = repo.env().clock.monotonic();
    let (directory, target) = place(&options.target)?;
    let local = |source| Error::Local { path: target.clone(), source };
    let spot = Spot::open(&directory, target.file_name().unwrap_or_default()).map_err(local)?;
    if let Some(stands) = spot.taken().map_err(local)? {
        return Err(taken(target, stands).into());
    }
    let tag: [u8; 8] = random_array(&*repo.env().random).map_err(RepoError::from)?;
    let new = directory.join(format!(".lifeboat-{:016x}", u64::from_le_bytes(tag)));
    let done = match make(repo, &options, (&directory, &new)).await {
        Ok(made) => give((new.clone(), spot), &target).await.map(|placed| (made, placed)),
        Err(error) => Err(error),
    };
    if done.is_err() {
        // It may not have been made; and the error that came first counts.
        let _ = std::fs::remove_file(&new);
    }
    let (Made { files, checked, doubt }, Placed { beside, left, fault }) = done?;
    let elapsed = repo.env().clock.monotonic().saturating_sub(began);
    Ok(SqliteRestoreSummary { files, checked, doubt, beside, left, fault, elapsed })
}

fn taken(path: PathBuf, stands: PathBuf) -> SqliteError {
    if stands == path { SqliteError::Taken { path } } else { SqliteError::Beside { path, beside: stands } }
}

/// The directory and the file in it. The directory is found through symbolic links; under the name nothing may stand, also no link.
fn place(target: &Path) -> Result<(PathBuf, PathBuf), Error> {
    let name = target.file_name().filter(|_| !target.as_os_str().as_bytes().ends_with(b"/"));
    let name = name.ok_or_else(|| SqliteError::NoTarget { path: target.to_owned() })?;
    let parent = target.parent().filter(|parent| !parent.as_os_str().is_empty());
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
    let mode = mode_at(new).map_err(|source| Error::Local { path: new.to_owned(), source })?;
    let doubt = match files.doubted {
        0 => is_beside(repo, options, mode).await?.then_some(Doubt::Beside),
        _ => Some(Doubt::Changed),
    };
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

/// Whether a log or a journal that counts is in the snapshot beside the database, which then was saved as a file.
async fn is_beside(
    repo: &Repository,
    options: &SqliteRestoreOptions,
    mode: Option<Mode>,
) -> Result<bool, Error> {
    type Begins = fn(&[u8]) -> bool;
    let kinds: [(&[u8], Begins); 2] = [(b"-journal", is_journal), (b"-wal", is_log)];
    // Of a database with a journal SQLite reads no log.
    let kinds = &kinds[..if mode == Some(Mode::Journal) { 1 } else { 2 }];
    let lookup = Lookup::open(repo).await?;
    let mut reader = prepare::reader(&lookup)?;
    for (suffix, begins) in kinds {
        let path = [&options.path[..], suffix].concat();
        let found = reader.find(options.snapshot.snapshot.root, &path).await?;
        let Some(Found::Node(node)) = found else { continue };
        let counts = match (node.kind, node.problem) {
            (NodeKind::File, Some(Problem::Unreadable)) => true,
            (NodeKind::File, _) => {
                node.size > 0 && head(repo, options, &path).await?.is_none_or(|head| begins(&head))
            }
            _ => false,
        };
        if counts {
            return Ok(true);
        }
    }
    Ok(false)
}

/// How a stored file begins; `None` if that is lost.
async fn head(
    repo: &Repository,
    options: &SqliteRestoreOptions,
    path: &[u8],
) -> Result<Option<Vec<u8>>, Error> {
    let mut head = Head::default();
    let read = Box::pin(cat(repo, &options.snapshot, path, &mut head)).await;
    match read {
        // It takes no more than the beginning.
        Ok(_) | Err(Error::Output(_)) => Ok(Some(head.0)),
        Err(error) if is_local_damage(&error) || may_have_moved(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Takes the first bytes of what is written, and then no more.
#[derive(Default)]
struct Head(Vec<u8>);

impl Head {
    /// Enough to know a log or a journal by.
    const LEN: usize = 8;
}

impl io::Write for Head {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let wanted = bytes.len().min(Self::LEN - self.0.len());
        self.0.extend_from_slice(&bytes[..wanted]);
        // Zero is the end of what it takes.
        Ok(wanted)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Makes it last, and gives it its name.
async fn give((new, spot): (PathBuf, Spot), target: &Path) -> Result<Placed, Error> {
    let path = target.to_owned();
    let given = tokio::task::spawn_blocking(move || {
        File::open(&new)?.sync_all()?;
        spot.give(new.file_name().unwrap_or_default())
    });
    let given = given.await.map_err(|_| RepoError::Task)?;
    let given = given.map_err(|source| Error::Local { path: path.clone(), source })?;
    Ok(given.map_err(|stands| taken(path, stands))?)
}
