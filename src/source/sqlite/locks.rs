//! SQLite's locks: which byte of which file says what, and how long is waited for one.
//!
//! Positions as in SQLite's `os_unix.c` and `wal.c`; they are part of its file format.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use super::{Hold, fill};
use crate::source::sys::file as sys;
use crate::source::sys::lock::{self, Bytes};
use crate::source::walk::Dir;
use crate::sqlite::{INDEX_LEN, Index, PENDING_BYTE};

/// Who waits to write alone.
pub(super) const PENDING: Bytes = (PENDING_BYTE, 1);
/// Who prepares a transaction.
pub(super) const RESERVED: Bytes = (PENDING_BYTE + 1, 1);
/// Who reads.
pub(super) const SHARED: Bytes = (PENDING_BYTE + 2, 510);
/// In the file of the index: who copies the log into the database.
pub(super) const COPYING: Bytes = (121, 1);
/// In the file of the index: who has it open.
pub(super) const OPEN: Bytes = (128, 1);

/// How often a lock is tried that is given back soon: five seconds in all.
const TRIES: u32 = 500;
/// The same where it can be done without, because somebody may keep it for good: half a second.
const FEW_TRIES: u32 = 50;
/// How long is waited after each try.
const PAUSE: Duration = Duration::from_millis(10);

/// Tries until it is done; false if it never was, or cannot be.
fn in_time(tries: u32, mut attempt: impl FnMut() -> io::Result<bool>) -> bool {
    for _ in 0..tries {
        match attempt() {
            Ok(true) => return true,
            Ok(false) => std::thread::park_timeout(PAUSE),
            Err(_) => return false,
        }
    }
    false
}

/// Becomes a reader of the database: until that ends, nobody writes to its file but who copies from a log.
pub(super) fn share(fd: &OwnedFd, hold: Hold) -> bool {
    let tries = match hold {
        Hold::Moment => FEW_TRIES,
        Hold::Reading => TRIES,
    };
    in_time(tries, || {
        // Whoever waits to write comes first.
        if !lock::share(fd, PENDING)? {
            return Ok(false);
        }
        let shared = lock::share(fd, SHARED);
        lock::release(fd, PENDING)?;
        shared
    })
}

/// Ends being a reader.
pub(super) fn release(fd: &OwnedFd) {
    // What fails to be given back is given back when the file is closed.
    let _ = lock::release(fd, SHARED);
}

/// Whether somebody prepares a transaction; the journal is that one's then, and nothing of it is in the file yet.
pub(super) fn is_written(fd: &OwnedFd) -> bool {
    matches!(lock::is_taken(fd, RESERVED), Ok(true))
}

/// The index of a log, kept as it is as long as this lives: nobody copies from the log, and so nobody writes over it either
/// unless all of it is copied.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) index: Index,
    _fd: OwnedFd,
}

/// Whether others have a database in WAL mode open.
#[derive(Debug)]
pub(super) enum Found {
    /// They have, and this is what they agree on.
    Live(Live),
    /// Nobody has; who opens it makes the index anew.
    Nobody,
    /// It cannot be found out.
    Unknown,
}

/// Joins those who have the database open; for one who reads it already, so that the last of them does not tidy up.
pub(super) fn join(dir: &Arc<Dir>, name: &[u8], exists: bool) -> Found {
    if !exists {
        return Found::Nobody;
    }
    let Ok(handle) = dir.handle() else { return Found::Unknown };
    let Ok(fd) = sys::open(&*handle, &[name, b"-shm"].concat()) else { return Found::Unknown };
    match lock::is_taken(&fd, OPEN) {
        // Left behind by somebody who was killed. Who held this lock now would make others believe in what is in it.
        Ok(false) => return Found::Nobody,
        Ok(true) => {}
        Err(_) => return Found::Unknown,
    }
    // Whoever makes the index needs the other lock for that, so it comes second.
    let ready =
        in_time(TRIES, || lock::share(&fd, OPEN)) && in_time(FEW_TRIES, || Ok(read_index(&fd)?.is_some()));
    if !ready || !in_time(TRIES, || lock::share(&fd, COPYING)) {
        return Found::Unknown;
    }
    let mut index = None;
    in_time(FEW_TRIES, || {
        index = read_index(&fd)?;
        Ok(index.is_some())
    });
    match index {
        Some(index) => Found::Live(Live { index, _fd: fd }),
        None => Found::Unknown,
    }
}

/// What the index says, if nobody changed it meanwhile: a log that is all copied may be begun anew at any time.
fn read_index(fd: &OwnedFd) -> io::Result<Option<Index>> {
    let mut bytes = [0; INDEX_LEN];
    let mut read = || {
        let read = fill(fd, &mut bytes, 0)?;
        Ok::<_, io::Error>(Index::parse(&bytes[..read]))
    };
    let (before, after) = (read()?, read()?);
    Ok(after.filter(|_| before == after))
}
