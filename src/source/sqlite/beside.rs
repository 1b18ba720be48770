//! The files beside a database.

use std::ffi::CString;
use std::io;
use std::sync::Arc;

use super::{fill, header_of};
use crate::source::error::SourceError;
use crate::source::sys::file as sys;
use crate::source::sys::stat::{Stat, Time, stat_at, stat_open};
use crate::source::walk::Dir;
use crate::sqlite::{JOURNAL_HEADER_LEN, begins_beside};

/// What the file system says of the files beside a database; what is no regular file is not one of them.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Beside {
    /// The log.
    pub(super) wal: Option<Stat>,
    /// The journal.
    pub(super) journal: Option<Stat>,
    /// The index of the log.
    pub(super) shm: Option<Stat>,
}

impl Beside {
    /// Looks. Three system calls.
    pub(super) fn look(dir: &Arc<Dir>, name: &[u8]) -> Result<Self, SourceError> {
        let stat = |suffix: &[u8]| {
            let name = [name, suffix].concat();
            let Ok(path) = CString::new(name.clone()) else { return Ok(None) };
            match stat_at(&*dir.handle()?, &path) {
                Ok(stat) => Ok(Some(stat).filter(Stat::is_file)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(SourceError::of_entry("look at", dir.path_of(&name), error)),
            }
        };
        Ok(Self { wal: stat(b"-wal")?, journal: stat(b"-journal")?, shm: stat(b"-shm")? })
    }

    /// Whether log and journal are as they were.
    pub(super) fn same(&self, before: &Self) -> bool {
        same(&self.wal, &before.wal) && same(&self.journal, &before.journal)
    }

    /// When any of them last changed.
    pub(super) fn changed(&self) -> Option<Time> {
        [self.wal, self.journal, self.shm].iter().flatten().map(|stat| stat.ctime).max()
    }

    /// Whether the index is as it was.
    pub(super) fn same_index(&self, before: &Self) -> bool {
        same(&self.shm, &before.shm)
    }
}

/// Whether something of a database stands in a log or a journal.
pub fn is_in_use(dir: &Arc<Dir>, name: &[u8]) -> bool {
    let begins = |suffix: &[u8]| {
        let handle = dir.handle().ok()?;
        let fd = sys::open(&*handle, &[name, suffix].concat()).ok()?;
        let file = stat_open(&fd).is_ok_and(|stat| stat.is_file());
        let mut head = [0; JOURNAL_HEADER_LEN];
        let read = if file { fill(&fd, &mut head, 0).ok()? } else { 0 };
        begins_beside(&head[..read]).then_some(())
    };
    begins(b"-wal").or_else(|| begins(b"-journal")).is_some()
}

fn same(now: &Option<Stat>, before: &Option<Stat>) -> bool {
    match (now, before) {
        (Some(now), Some(before)) => now.same_content(before),
        (None, None) => true,
        _ => false,
    }
}

/// Whether a regular file is a database.
pub fn is_database(dir: &Arc<Dir>, name: &[u8]) -> bool {
    let Ok(handle) = dir.handle() else { return false };
    let Ok(fd) = sys::open(&*handle, name) else { return false };
    let file = stat_open(&fd).is_ok_and(|stat| stat.is_file());
    file && matches!(header_of(&fd), Ok(Some(_)))
}
