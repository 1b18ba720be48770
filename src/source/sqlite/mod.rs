//! Databases of SQLite, read as one who has them open would: what is committed at one moment, and nothing of what is not.
//!
//! A log or a journal beside the file is not copied with it: its pages are put in their places. So what comes of it is a whole
//! database on its own.
//!
//! # Invariants
//! The locks are SQLite's own, taken for reading and as ranges that belong to the open file. They are held while the database is
//! copied on this machine, and given back before anything of it is sent anywhere. In WAL mode they hold off copying the log into
//! the file, which every writer does without; nobody waits. With a rollback journal a large file is read without a lock at first,
//! and with one only if it changed meanwhile, because writers wait for that.
//! What was seen before the wait for a lock is looked at again once it is there. Where locks are not to be had, what was read
//! counts only if nothing of the database changed from before to after, and could not have changed without showing.
//!
//! # Crash
//! The copy has no name, and is gone with the process.
//!
//! # Must not
//! Write to the database, or make or remove a file beside it. Trust what a log says of lengths. Call a copy good that has a fault.

mod beside;
mod locks;
pub mod swap;
#[cfg(test)]
mod tests;
mod view;

use std::fs::{DirBuilder, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use self::beside::Beside;
pub use self::beside::{is_database, is_in_use};
use self::view::{View, is_hot};
use super::error::SourceError;
use super::sys::file as sys;
use super::sys::stat::Stat;
use super::walk::Dir;
use super::walk::spill::unnamed;
use crate::clock::Clock;
use crate::sqlite::{HEADER_LEN, Header};

/// Up to this size a database with a rollback journal is read under its lock at once: that takes no longer than a commit.
const SMALL: u64 = 4 << 20;
/// How often a database that changes, or does not make sense, is looked at.
const TRIES: u32 = 4;
/// Between two tries: so long after a change the next one shows in the times.
const PAUSE: Duration = Duration::from_millis(70);
/// Bytes copied at a time.
const PIECE: usize = 1 << 20;

/// Whether writers may be made to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hold {
    /// Only for a moment: it may turn out that what is read is of several moments.
    Moment,
    /// As long as it is read, where nothing else helps.
    Reading,
}

/// How a database is copied.
pub struct Copying<'a> {
    /// The directory for the copy, which has no name there and can be read by nobody else.
    pub scratch: &'a Path,
    /// Tells how long ago something changed.
    pub clock: &'a dyn Clock,
    /// Asked now and then whether to go on.
    pub go_on: &'a dyn Fn() -> bool,
}

/// A database as of one moment.
#[derive(Debug)]
pub(super) struct Copied {
    pub(super) file: File,
    pub(super) size: u64,
    /// What the file system said of the database's file.
    pub(super) main: Stat,
    /// What is wrong with it.
    pub(super) fault: Option<&'static str>,
    /// It changed each time, so that it may be of several moments.
    pub(super) changed: bool,
}

/// A database by its directory and its name.
type Name<'a> = (&'a Arc<Dir>, &'a [u8]);

/// The first page's header, of a file that is a database.
pub(super) fn header_of(fd: &OwnedFd) -> io::Result<Option<Header>> {
    let mut head = [0; HEADER_LEN];
    let read = fill(fd, &mut head, 0)?;
    Ok(Header::parse(&head[..read]))
}

/// Copies a database that is open as `fd`. If it changes all the time, or has a fault all the time, the last copy says so.
pub(super) fn copy(fd: &OwnedFd, name: Name<'_>, how: &Copying<'_>) -> Result<Copied, SourceError> {
    let mut hold = Hold::Moment;
    for _ in 1..TRIES {
        let copied = attempt(fd, name, (how, hold, false));
        locks::release(fd);
        match copied? {
            Some(copied) if !copied.changed && copied.fault.is_none() => return Ok(copied),
            _ => std::thread::park_timeout(PAUSE),
        }
        hold = Hold::Reading;
    }
    let copied = attempt(fd, name, (how, hold, true));
    locks::release(fd);
    copied?.ok_or_else(|| SourceError::Changed { path: name.0.path_of(name.1) })
}

/// `None` if it is known before it is copied that it will not do; the `last` time it is copied all the same.
fn attempt(
    fd: &OwnedFd,
    name: Name<'_>,
    (how, hold, last): (&Copying<'_>, Hold, bool),
) -> Result<Option<Copied>, SourceError> {
    let view = View::open(fd, name, (hold, how.clock))?;
    if !last && (view.fault().is_some() || !view.may_stand()) {
        return Ok(None);
    }
    let (file, size) = pour(&view, (fd, name), how)?;
    let changed = size < view.size() || !view.stands(fd, name)?;
    Ok(Some(Copied { file, size, main: *view.main(), fault: view.fault(), changed }))
}

/// Copies what the view shows; less than its size if something of it went away meanwhile.
fn pour(
    view: &View,
    (fd, (dir, name)): (&OwnedFd, Name<'_>),
    how: &Copying<'_>,
) -> Result<(File, u64), SourceError> {
    let scratch =
        |source| SourceError::Io { action: "copy a database to", path: PathBuf::from(how.scratch), source };
    let file = unnamed(how.scratch).or_else(|_| {
        DirBuilder::new().recursive(true).mode(0o700).create(how.scratch).and_then(|()| unnamed(how.scratch))
    });
    let file = file.map_err(scratch)?;
    let mut buffer = vec![0; PIECE];
    let mut at = 0;
    while at < view.size() {
        if !(how.go_on)() {
            return Err(SourceError::Cancelled);
        }
        let room = usize::try_from(view.size() - at).unwrap_or(usize::MAX).min(PIECE);
        let read = match view.read_at(fd, &mut buffer[..room], at) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
            Err(error) => return Err(SourceError::of_entry("read", dir.path_of(name), error)),
        };
        file.write_all_at(&buffer[..read], at).map_err(scratch)?;
        at += read as u64;
    }
    Ok((file, at))
}

fn fill(fd: &OwnedFd, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match sys::read_at(fd, &mut buffer[filled..], at + filled as u64)? {
            0 => break,
            read => filled += read,
        }
    }
    Ok(filled)
}
