//! Databases of SQLite. Whoever wants one as of one moment asks SQLite for it (`copy`); what is done here without it is to
//! know a database, and what stands beside it, by their first bytes.
//!
//! # Must not
//! Read a log or a journal, or take a lock of SQLite's: that is SQLite's. Open a file that SQLite has open in this process, and
//! close it: SQLite's locks would be gone with that.

mod copy;
pub mod place;

use std::ffi::{CString, OsString};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use self::copy::Copying;
pub(super) use self::copy::copy;
use super::error::SourceError;
use super::sys::file as sys;
use super::sys::stat::{Stat, stat_at, stat_open};
use super::walk::Dir;

/// Bytes at the beginning of a database that say what it is.
pub const HEADER_LEN: usize = 100;

const LOG: &[u8] = b"-wal";
const JOURNAL: &[u8] = b"-journal";
const INDEX: &[u8] = b"-shm";
/// What is put behind the name of a database for the files beside it.
const BESIDE: [&[u8]; 3] = [LOG, JOURNAL, INDEX];

/// Where changes of a database go first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Into a log, from which they are copied later.
    Log,
    /// Into the database, after what was there went into a journal.
    Journal,
}

/// What these first bytes of a file say, if it is a database; an encrypted one is none.
pub fn mode_of(head: &[u8]) -> Option<Mode> {
    let size = u16::from_be_bytes([*head.get(16)?, *head.get(17)?]);
    let size = size == 1 || (size >= 512 && size.is_power_of_two());
    let known = head.len() >= HEADER_LEN && head.starts_with(b"SQLite format 3\0") && size;
    known.then(|| if head[18].max(head[19]) == 2 { Mode::Log } else { Mode::Journal })
}

/// Whether a file begins as a log does.
pub fn is_log(head: &[u8]) -> bool {
    matches!(head, [0x37, 0x7f, 0x06, 0x82 | 0x83, ..])
}

/// Whether a file begins as a journal does that is not settled.
pub fn is_journal(head: &[u8]) -> bool {
    head.starts_with(&[0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7])
}

/// The database of which a file that begins so is, or holds, what may not be whole: it has a log with content or a journal to be
/// rolled back beside it, or is one. Nothing is asked of the file system for a file that is none of these.
pub fn in_use(dir: &Arc<Dir>, name: &[u8], head: &[u8]) -> Option<PathBuf> {
    let of = |suffix, begins: bool| name.strip_suffix(suffix).filter(|name| begins && !name.is_empty());
    let database = match mode_of(head) {
        Some(Mode::Log) => has_log(dir, name).ok()?.then_some(name),
        Some(Mode::Journal) => {
            let stands = beside(dir, name, JOURNAL).ok()?.is_some_and(|journal| journal.size > 0);
            let head = if stands {
                head_of(&*dir.handle().ok()?, &[name, JOURNAL].concat()).ok()?
            } else {
                Vec::new()
            };
            is_journal(&head).then_some(name)
        }
        None => of(LOG, is_log(head)).or_else(|| of(JOURNAL, is_journal(head))),
    };
    database.map(|name| dir.path_of(name))
}

/// The names under which a log, a journal and an index of this database stand.
pub fn names_beside(path: &Path) -> impl Iterator<Item = PathBuf> {
    BESIDE.into_iter().map(|suffix| OsString::from_vec([path.as_os_str().as_bytes(), suffix].concat()).into())
}

/// Whether a file is a database; an empty one is, of which nothing is committed yet.
///
/// # Errors
/// If it cannot be read.
pub fn is_database(path: &Path) -> io::Result<bool> {
    let head = head_of(rustix::fs::CWD, path.as_os_str().as_bytes())?;
    Ok(head.is_empty() || mode_of(&head).is_some())
}

/// Where changes of the database at this path go, if it is one.
///
/// # Errors
/// If it cannot be read.
pub fn mode_at(path: &Path) -> io::Result<Option<Mode>> {
    Ok(mode_of(&head_of(rustix::fs::CWD, path.as_os_str().as_bytes())?))
}

/// The first bytes of a regular file; of what is none, none.
fn head_of(dir: impl AsFd, name: &[u8]) -> io::Result<Vec<u8>> {
    let fd = sys::open(dir, name)?;
    if !stat_open(&fd)?.is_file() {
        return Ok(Vec::new());
    }
    read_head(&fd)
}

fn read_head(fd: impl AsFd) -> io::Result<Vec<u8>> {
    let mut head = vec![0; HEADER_LEN];
    let mut filled = 0;
    while filled < HEADER_LEN {
        match sys::read_at(&fd, &mut head[filled..], filled as u64)? {
            0 => break,
            read => filled += read,
        }
    }
    head.truncate(filled);
    Ok(head)
}

/// What the file system says of a file beside a database.
fn beside(dir: &Arc<Dir>, name: &[u8], suffix: &[u8]) -> Result<Option<Stat>, SourceError> {
    let name = [name, suffix].concat();
    let found = look(&*dir.handle()?, &name);
    found.map_err(|error| SourceError::of_entry("look at", dir.path_of(&name), error))
}

/// Whether a log with content stands beside a file.
pub(super) fn has_log(dir: &Arc<Dir>, name: &[u8]) -> Result<bool, SourceError> {
    Ok(beside(dir, name, LOG)?.is_some_and(|log| log.size > 0))
}

/// What the file system says of a name, if it stands for something.
pub(super) fn look(dir: impl AsFd, name: &[u8]) -> io::Result<Option<Stat>> {
    match stat_at(dir, &CString::new(name)?) {
        Ok(stat) => Ok(Some(stat)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The name of a file for SQLite that says that nobody changes it: no locks are taken, and nothing is made beside it.
pub fn unchanging(path: &Path) -> String {
    let mut uri = "file:".to_owned();
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'/' | b'-' | b'_' | b'.' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => {
                uri.push(char::from(*byte));
            }
            other => uri.push_str(&format!("%{other:02x}")),
        }
    }
    uri + "?immutable=1"
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::walk::test_dir;
    use super::*;

    fn header(size: [u8; 2], version: u8) -> Vec<u8> {
        let mut head = b"SQLite format 3\0".to_vec();
        head.resize(HEADER_LEN, 0);
        head[16..18].copy_from_slice(&size);
        (head[18], head[19]) = (version, version);
        head
    }

    #[test]
    fn a_database_is_known_by_its_header_and_by_nothing_less() {
        let good = header([0x10, 0], 2);
        assert_eq!(mode_of(&good), Some(Mode::Log));
        assert_eq!(mode_of(&header([0, 1], 1)), Some(Mode::Journal));
        assert_eq!(mode_of(&good[..99]), None);
        for size in [[0, 0], [0x11, 0], [0xff, 0xff], [1, 0]] {
            assert_eq!(mode_of(&header(size, 1)), None, "{size:?}");
        }
        for head in [&b""[..], b"SQLite format 3\0", b"SQLite format 3"] {
            assert_eq!(mode_of(head), None);
        }
    }

    #[test]
    fn one_is_in_use_if_something_counts_beside_it() {
        let (temp, dir) = test_dir();
        let at = |name: &str| temp.path().join(name);
        let log = [&[0x37, 0x7f, 0x06, 0x82][..], &[0; 60]].concat();
        let journal = [0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7, 0, 0];
        for (mode, suffix, content, counts) in [
            (2, "-wal", &log[..], true),
            (2, "-wal", b"", false),
            (2, "-journal", &journal[..], false),
            (1, "-journal", &journal[..], true),
            (1, "-journal", b"dear diary", false),
            (1, "-journal", &[0; 512], false),
            (1, "-wal", &log[..], false),
        ] {
            let head = header([0x10, 0], mode);
            fs::write(at("db"), &head).unwrap();
            let name = format!("db{suffix}");
            fs::write(at(&name), content).unwrap();
            assert_eq!(in_use(&dir, b"db", &head), counts.then(|| at("db")), "{mode} {name}");
            let alone = in_use(&dir, name.as_bytes(), content);
            assert_eq!(alone.is_some(), is_log(content) || is_journal(content), "{name}");
            fs::remove_file(at(&name)).unwrap();
        }
        assert_eq!(in_use(&dir, b"-wal", &log), None);
        assert_eq!(in_use(&dir, b"notes-wal", b"dear diary"), None);
        assert!(is_database(&at("db")).unwrap() && is_database(&at("missing")).is_err());
        fs::write(at("db"), b"").unwrap();
        assert!(is_database(&at("db")).unwrap());
        fs::write(at("db"), b"SQLite format 2").unwrap();
        assert!(!is_database(&at("db")).unwrap());
    }
}
