//! Puts a database in the place of another, and takes away what stands beside that one.
//!
//! A log or a journal of the old database beside the new one would be played into it when it is opened next.
//!
//! # Crash
//! The old database gets a second name, what is beside it is moved to that name, and then the new one takes the first name. So at
//! every moment something stands under the first name, and the old one is whole under one name or the other. A crash between the
//! two leaves it whole under the second name only.
//!
//! # Must not
//! Wait for what stands there, or follow it, if it is no regular file.

use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use super::is_hot;
use super::locks::{OPEN, PENDING, SHARED};
use crate::source::sys::lock;
use crate::sqlite::BESIDE;

/// Why a database is not to be replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InUse {
    /// Somebody has it open.
    Open,
    /// The log beside it holds what is not in it yet.
    Log,
    /// The journal beside it is to be rolled back.
    Journal,
}

impl std::fmt::Display for InUse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Open => "it is open",
            Self::Log => "a log with content stands beside it",
            Self::Journal => "a journal to be rolled back stands beside it",
        })
    }
}

/// The name with something behind it.
fn with(path: &Path, suffix: &[u8]) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(suffix));
    PathBuf::from(name)
}

/// Opens a regular file; what is none is an error.
fn open(path: &Path, write: bool) -> io::Result<Option<File>> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    let other = || io::Error::other(format!("{} is not a regular file", path.display()));
    match File::options().read(true).write(write).custom_flags(flags.bits().cast_signed()).open(path) {
        Ok(file) if file.metadata()?.is_file() => Ok(Some(file)),
        Ok(_) => Err(other()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(_) if fs::symlink_metadata(path).is_ok_and(|found| !found.is_file()) => Err(other()),
        Err(error) => Err(error),
    }
}

/// All bytes at which those who have a database open take their locks.
fn all() -> (u64, u64) {
    (PENDING.0, SHARED.0 + SHARED.1 - PENDING.0)
}

/// Whether a database is in use, or a part of it stands beside it. A program that has it open and does nothing is found only
/// where the system lets this one see which files it has open.
///
/// # Errors
/// If it, or what is beside it, cannot be opened.
pub fn in_use(path: &Path) -> io::Result<Option<InUse>> {
    let Some(file) = open(path, false)? else { return in_use_beside(path) };
    if lock::is_taken(&file, all())? || is_open(&file)? {
        return Ok(Some(InUse::Open));
    }
    in_use_beside(path)
}

/// The same, of the files beside it alone.
fn in_use_beside(path: &Path) -> io::Result<Option<InUse>> {
    let index = open(&with(path, b"-shm"), false)?;
    if index.map_or(Ok(false), |index| lock::is_taken(&index, OPEN))? {
        return Ok(Some(InUse::Open));
    }
    if let Some(log) = open(&with(path, b"-wal"), false)?
        && log.metadata()?.len() > 0
    {
        return Ok(Some(InUse::Log));
    }
    let Some(journal) = open(&with(path, b"-journal"), false)? else { return Ok(None) };
    let size = journal.metadata()?.len();
    Ok(is_hot(&OwnedFd::from(journal), size)?.then_some(InUse::Journal))
}

/// Whether another process has the file open, as far as the system says.
fn is_open(file: &File) -> io::Result<bool> {
    let wanted = file.metadata()?;
    let own = std::process::id().to_string();
    let Ok(processes) = fs::read_dir("/proc") else { return Ok(false) };
    for process in processes.flatten() {
        let name = process.file_name();
        let number = name.to_str().filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()));
        if number.is_none_or(|number| number == own) {
            continue;
        }
        let Ok(files) = fs::read_dir(process.path().join("fd")) else { continue };
        let same = |found: fs::Metadata| (found.dev(), found.ino()) == (wanted.dev(), wanted.ino());
        if files.flatten().any(|entry| fs::metadata(entry.path()).is_ok_and(same)) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Gives `new` the name `path`. What stood there is removed, with all that is beside it; those files are returned. While that
/// goes on, nobody can begin to use the old one, unless `force` is given and somebody already does.
///
/// # Errors
/// [`io::ErrorKind::ResourceBusy`] if somebody uses it; then nothing is changed. Otherwise `aside` has what stood there, or it
/// was put back.
pub fn replace(new: &Path, path: &Path, (aside, force): (&Path, bool)) -> io::Result<Vec<PathBuf>> {
    let old = match open(path, true) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => open(path, false)?,
        other => other?,
    };
    if let Some(old) = &old {
        // Without the right to write, it can only be seen that nobody has it.
        let alone = match lock::seize(old, all()) {
            Err(_) => !lock::is_taken(old, all())?,
            Ok(alone) => alone,
        };
        if !force && (!alone || is_open(old)?) {
            return Err(io::ErrorKind::ResourceBusy.into());
        }
    }
    if !force && in_use_beside(path)?.is_some() {
        return Err(io::ErrorKind::ResourceBusy.into());
    }
    let mut moved = Vec::new();
    for suffix in BESIDE {
        let (from, to) = (with(path, suffix), with(aside, suffix));
        if let Err(error) = fs::rename(&from, &to) {
            if error.kind() == io::ErrorKind::NotFound {
                continue;
            }
            return Err(put_back(moved, error));
        }
        moved.push((from, to));
    }
    // Some file systems know no second names; there the name stands for nothing for a moment.
    let linked = old.is_some() && fs::hard_link(path, aside).is_ok();
    if old.is_some() && !linked {
        if let Err(error) = fs::rename(path, aside) {
            return Err(put_back(moved, error));
        }
        moved.push((path.to_owned(), aside.to_owned()));
    }
    if let Err(error) = sync_parent(path).and_then(|()| fs::rename(new, path)) {
        if linked {
            let _ = fs::remove_file(aside);
        }
        return Err(put_back(moved, error));
    }
    sync_parent(path)?;
    if linked {
        fs::remove_file(aside)?;
    }
    for (_, to) in &moved {
        fs::remove_file(to)?;
    }
    sync_parent(path)?;
    Ok(moved.into_iter().map(|(from, _)| from).filter(|from| from != path).collect())
}

/// The error that came first says more than one of putting back; what could not be put back stands aside.
fn put_back(moved: Vec<(PathBuf, PathBuf)>, error: io::Error) -> io::Error {
    for (from, to) in moved.into_iter().rev() {
        let _ = fs::rename(to, from);
    }
    error
}

fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(parent.unwrap_or_else(|| Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::super::super::sys::lock::share;
    use super::*;

    #[test]
    fn what_stood_there_goes_with_all_that_is_beside_it() {
        let place = tempfile::tempdir().unwrap();
        let at = |name: &str| place.path().join(name);
        for name in ["db", "db-wal", "db-shm", "db-journal", "db-other", "new"] {
            fs::write(at(name), name).unwrap();
        }
        assert_eq!(in_use(&at("db")).unwrap(), Some(InUse::Log));
        let error = replace(&at("new"), &at("db"), (&at("aside"), false)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ResourceBusy);
        let removed = replace(&at("new"), &at("db"), (&at("aside"), true)).unwrap();
        assert_eq!(removed.len(), 3);
        let mut left: Vec<_> = fs::read_dir(place.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["db", "db-other"]);
        assert_eq!(fs::read(at("db")).unwrap(), b"new");
        fs::write(at("new"), "again").unwrap();
        assert!(replace(&at("new"), &at("fresh"), (&at("aside"), false)).unwrap().is_empty());
    }

    #[test]
    fn one_that_is_open_stays_and_so_does_what_cannot_be_replaced() {
        let place = tempfile::tempdir().unwrap();
        let at = |name: &str| place.path().join(name);
        for name in ["db", "db-wal", "new"] {
            fs::write(at(name), name).unwrap();
        }
        assert!(replace(&at("missing"), &at("db"), (&at("aside"), true)).is_err());
        assert!(at("db").exists() && at("db-wal").exists() && !at("aside").exists(), "put back");
        assert!(!at("aside-wal").exists());
        fs::write(at("db-wal"), "").unwrap();
        let reader = File::open(at("db")).unwrap();
        assert!(share(&reader, SHARED).unwrap());
        assert_eq!(in_use(&at("db")).unwrap(), Some(InUse::Open));
        let error = replace(&at("new"), &at("db"), (&at("aside"), false)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ResourceBusy);
        assert_eq!(fs::read(at("db")).unwrap(), b"db");
        replace(&at("new"), &at("db"), (&at("aside"), true)).unwrap();
        assert_eq!(fs::read(at("db")).unwrap(), b"new");
    }

    #[test]
    fn who_has_it_open_and_does_nothing_is_seen() {
        let place = tempfile::tempdir().unwrap();
        let at = |name: &str| place.path().join(name);
        for name in ["db", "new"] {
            fs::write(at(name), name).unwrap();
        }
        assert_eq!(in_use(&at("db")).unwrap(), None);
        let mut user = std::process::Command::new("sleep")
            .arg("600")
            .stdin(File::open(at("db")).unwrap())
            .spawn()
            .unwrap();
        assert_eq!(in_use(&at("db")).unwrap(), Some(InUse::Open));
        assert!(replace(&at("new"), &at("db"), (&at("aside"), false)).is_err());
        user.kill().unwrap();
        user.wait().unwrap();
        replace(&at("new"), &at("db"), (&at("aside"), false)).unwrap();
        assert_eq!(fs::read(at("db")).unwrap(), b"new");
    }

    #[test]
    fn a_pipe_beside_it_is_not_waited_for() {
        let place = tempfile::tempdir().unwrap();
        let at = |name: &str| place.path().join(name);
        for suffix in ["-wal", "-shm", "-journal", ""] {
            let pipe = at(&format!("db{suffix}"));
            let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
            assert!(made.success());
            fs::write(at("new"), "new").unwrap();
            let error = in_use(&at("db")).unwrap_err();
            assert!(error.to_string().contains("not a regular file"), "{error}");
            assert!(replace(&at("new"), &at("db"), (&at("aside"), false)).is_err());
            fs::remove_file(pipe).unwrap();
        }
    }
}
