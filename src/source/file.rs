//! Reading regular files.
//!
//! # Invariants
//! What is read belongs to the inode that the walk saw: its device, inode and type are compared on the open descriptor.
//! A read that fails is an error, never the end of the file.

use std::fs::File;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use rustix::fs::CWD;
use rustix::io::Errno;

use super::error::SourceError;
use super::meta::{Xattrs, read_xattrs};
use super::sqlite::{self, Copying};
use super::sys::stat::{Stat, stat_open};
use super::sys::{block, file as sys, flags, xattr::Holder};
use super::walk::Dir;

/// How often a read is tried again after an input or output error: some come from a cable, not from the medium.
const READ_TRIES: u32 = 4;

/// How often a file that changes under the reader is read.
const CHANGE_TRIES: u32 = 3;

/// From this size on the system is told that the file will be read in order.
const LARGE: u64 = 1024 * 1024;

/// An open regular file. Threads may read from it at the same time.
#[derive(Debug)]
pub struct FileReader {
    fd: OwnedFd,
    stat: Stat,
    dir: Arc<Dir>,
    name: Box<[u8]>,
    /// It stands for a block device, whose end is known.
    device: bool,
    /// What is read in its stead: a copy of the database that it is, as of one moment.
    copy: Option<File>,
}

/// Whether holes are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holes {
    /// Ask the file system where data is.
    Skip,
    /// Read everything: for file systems whose answer cannot be trusted for files that were just written.
    Read,
}

/// Opens a file that the walk showed. Two system calls: `openat`, `statx`.
pub fn open_file(dir: &Arc<Dir>, name: &[u8], expected: &Stat) -> Result<FileReader, SourceError> {
    let fd = open(dir, name)?;
    let stat = stat_open(&fd).map_err(|e| SourceError::of_entry("look at", dir.path_of(name), e))?;
    check(dir, name, expected, &stat)?;
    if stat.size >= LARGE {
        sys::will_read_in_order(&fd);
    }
    Ok(FileReader { fd, stat, dir: Arc::clone(dir), name: name.into(), device: false, copy: None })
}

fn open(dir: &Arc<Dir>, name: &[u8]) -> Result<OwnedFd, SourceError> {
    let fd = sys::open(&*dir.handle()?, name);
    fd.map_err(|error| match Errno::from_io_error(&error) {
        // A socket or a device without a driver took the place of the file.
        Some(Errno::NXIO | Errno::NODEV) => SourceError::Replaced { path: dir.path_of(name) },
        _ => SourceError::of_entry("open", dir.path_of(name), error),
    })
}

fn check(dir: &Dir, name: &[u8], expected: &Stat, found: &Stat) -> Result<(), SourceError> {
    if found.is_file() && found.same_inode(expected) {
        Ok(())
    } else {
        Err(SourceError::Replaced { path: dir.path_of(name) })
    }
}

fn read_at(fd: &OwnedFd, buffer: &mut [u8], offset: u64) -> std::io::Result<usize> {
    let mut tries = 1;
    loop {
        match sys::read_at(fd, buffer, offset) {
            Err(error) if Errno::from_io_error(&error) == Some(Errno::IO) && tries < READ_TRIES => tries += 1,
            other => return other,
        }
    }
}

impl FileReader {
    /// What the file system said when the file was opened.
    pub fn stat(&self) -> &Stat {
        &self.stat
    }

    /// For an open block device; `stat` is what a regular file of its size would have.
    pub(super) fn of_device((fd, stat): (OwnedFd, Stat), dir: &Arc<Dir>, name: &[u8]) -> Self {
        Self { fd, stat, dir: Arc::clone(dir), name: name.into(), device: true, copy: None }
    }

    /// What a reader of the database would see in it at one moment, copied. Nobody waits for who reads the copy.
    ///
    /// # Errors
    /// If it is no database of SQLite, one with several names (which files are beside it then depends on the name), or one that
    /// SQLite cannot read or does not get at; [`SourceError::Scratch`] if the copy cannot be written.
    pub fn consistent(mut self, how: &Copying<'_>) -> Result<Self, SourceError> {
        let path = || self.dir.path_of(&self.name);
        if self.device {
            return Err(SourceError::NotADatabase { path: path() });
        }
        if self.stat.nlink > 1 {
            return Err(SourceError::LinkedDatabase { path: path() });
        }
        if self.stat.size == 0 {
            // Nothing is committed yet; but a log can only belong to what is lost.
            return match sqlite::has_log(&self.dir, &self.name)? {
                false => Ok(self),
                true => Err(SourceError::Database { path: path(), said: "it is empty and has a log" }),
            };
        }
        let copied = match sqlite::copy(&self.fd, (&self.dir, &self.name), how) {
            Err(error) if error.ends_run() => return Err(error),
            copied => copied,
        };
        // SQLite found it, and what is beside it, by its path.
        let now = sqlite::look(CWD, path().as_os_str().as_bytes());
        let now = now.map_err(|error| self.failure("look at", error))?;
        if !now.is_some_and(|now| now.same_inode(&self.stat)) {
            return Err(SourceError::Replaced { path: path() });
        }
        let copied = copied?;
        self.stat = Stat { size: copied.size, ..copied.main };
        self.copy = Some(copied.file);
        Ok(self)
    }

    /// Whether it is the copy of a database.
    pub fn is_copy(&self) -> bool {
        self.copy.is_some()
    }

    /// Whether it stands for a block device.
    pub fn is_device(&self) -> bool {
        self.device
    }

    /// Reads at a position; zero is the end, and less than asked for does not mean the end. A device that ends before its
    /// end is an error. One system call.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize, SourceError> {
        if let Some(copy) = &self.copy {
            return sys::read_at(copy, buffer, offset)
                .map_err(|error| self.failure("read the copy of", error));
        }
        match read_at(&self.fd, buffer, offset).map_err(|error| self.failure("read", error))? {
            0 if self.device && !buffer.is_empty() => {
                Err(self.failure("read to the end of", std::io::ErrorKind::UnexpectedEof.into()))
            }
            read => Ok(read),
        }
    }

    /// Says that a range will not be read again: what is read of a whole disk must not push everything else out of memory.
    /// For a device only; what is kept of a file may be somebody else's.
    pub fn done_with(&self, range: &Range<u64>) {
        if self.device && !range.is_empty() {
            block::forget(&self.fd, range.start, range.end - range.start);
        }
    }

    /// Whether nothing shows that the file changed since it was opened. Of a change of a device nobody tells.
    pub fn stood_still(&self) -> Result<bool, SourceError> {
        if self.device || self.is_copy() {
            return Ok(true);
        }
        let now = stat_open(&self.fd).map_err(|error| self.failure("look at", error))?;
        Ok(now.same_content(&self.stat))
    }

    /// The ranges that hold data, in order, up to the size at opening; the rest is zeroes. A file that has all its blocks
    /// is one range and costs nothing.
    pub fn data_ranges(&self, holes: Holes) -> DataRanges<'_> {
        let sparse = self.stat.blocks.saturating_mul(512) < self.stat.size && self.copy.is_none();
        DataRanges { file: self, at: 0, ask: sparse && holes == Holes::Skip }
    }

    /// Extended attributes, access control lists and capabilities among them. One system call if there are none.
    pub fn xattrs(&self) -> Xattrs {
        read_xattrs(Holder::open(&self.fd), || self.dir.path_of(&self.name))
    }

    /// The flags of `chattr` as `FS_*_FL` bits; zero where there are none. One system call.
    pub fn flags(&self) -> Result<u32, SourceError> {
        if self.device {
            return Ok(0);
        }
        flags::get(&self.fd).map_err(|error| self.failure("read the flags of", error))
    }

    fn failure(&self, action: &'static str, source: std::io::Error) -> SourceError {
        SourceError::Io { action, path: self.dir.path_of(&self.name), source }
    }
}

/// See [`FileReader::data_ranges`].
#[derive(Debug)]
pub struct DataRanges<'a> {
    file: &'a FileReader,
    at: u64,
    ask: bool,
}

impl Iterator for DataRanges<'_> {
    type Item = Range<u64>;

    fn next(&mut self) -> Option<Range<u64>> {
        let size = self.file.stat.size;
        if self.at >= size {
            return None;
        }
        let mut range = self.at..size;
        if self.ask {
            let found = sys::next_data(&self.file.fd, self.at).and_then(|start| match start {
                Some(start) => Ok(Some((start, sys::next_hole(&self.file.fd, start)?))),
                None => Ok(None),
            });
            match found {
                Ok(Some((start, end))) if self.at <= start && start < end => {
                    range = start.min(size)..end.min(size)
                }
                Ok(None) => range = size..size,
                // A file system without an answer, or with one that makes no sense: read all that is left.
                Ok(Some(_)) | Err(_) => self.ask = false,
            }
        }
        self.at = range.end;
        (!range.is_empty()).then_some(range)
    }
}

/// A small file, whole.
#[derive(Debug)]
pub struct SmallFile {
    /// What the file system said after the last read; belongs to the content unless `changed`.
    pub stat: Stat,
    /// Extended attributes.
    pub xattrs: Xattrs,
    /// Inode flags as `FS_IOC_GETFLAGS` gives them; zero where the file system has none.
    pub flags: u32,
    /// It changed each time it was read, so the content may mix old and new.
    pub changed: bool,
}

/// Reads a small file into `content` and checks that it stood still. Six system calls: `openat`, `pread`, `statx`,
/// `flistxattr`, `ioctl`, `close`. `None`: it has grown beyond `limit` bytes and is to be read in pieces.
pub fn read_small(
    dir: &Arc<Dir>,
    name: &[u8],
    expected: &Stat,
    limit: usize,
    content: &mut Vec<u8>,
) -> Result<Option<SmallFile>, SourceError> {
    let fd = open(dir, name)?;
    let failure = |action, error| SourceError::of_entry(action, dir.path_of(name), error);
    let mut before = *expected;
    let mut tries = 1;
    loop {
        let fits = read_whole(&fd, before.size, limit, content).map_err(|error| failure("read", error));
        let stat = stat_open(&fd).map_err(|error| failure("look at", error))?;
        // First of all: the error of reading a directory or a device that took its place says nothing.
        check(dir, name, expected, &stat)?;
        if !fits? {
            return Ok(None);
        }
        let still = stat.same_content(&before) && content.len() as u64 == stat.size;
        if still || tries == CHANGE_TRIES {
            let xattrs = read_xattrs(Holder::open(&fd), || dir.path_of(name));
            let flags = flags::get(&fd).unwrap_or(0);
            return Ok(Some(SmallFile { stat, xattrs, flags, changed: !still }));
        }
        before = stat;
        tries += 1;
    }
}

/// Reads until a read comes back short; one byte more than expected is asked for, so that one call is enough to see the
/// end. `false` if there is more than `limit`.
fn read_whole(fd: &OwnedFd, size: u64, limit: usize, content: &mut Vec<u8>) -> std::io::Result<bool> {
    let expected = usize::try_from(size).unwrap_or(usize::MAX).min(limit);
    content.resize(expected + 1, 0);
    let mut len = 0;
    loop {
        let read = read_at(fd, &mut content[len..], len as u64)?;
        len += read;
        if len > limit {
            return Ok(false);
        }
        if read == 0 || len < content.len() {
            content.truncate(len);
            return Ok(true);
        }
        content.resize((len * 2).clamp(1024, limit + 1), 0);
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::CString;
    use std::fs;
    use std::os::unix::fs::{FileExt, symlink};
    use std::path::Path;

    use super::*;
    use crate::source::sys::stat::stat_at;
    use crate::source::walk::test_dir;

    fn seen(dir: &Arc<Dir>, name: &str) -> Stat {
        stat_at(&*dir.handle().unwrap(), &CString::new(name).unwrap()).unwrap()
    }

    fn small(dir: &Arc<Dir>, name: &str, expected: &Stat) -> (Option<SmallFile>, Vec<u8>) {
        let mut content = vec![9; 77];
        let read = read_small(dir, name.as_bytes(), expected, 65_536, &mut content).unwrap();
        (read, content)
    }

    #[test]
    fn small_files_are_read_whole() {
        let (temp, dir) = test_dir();
        for size in [0, 1, 4096, 65_535, 65_536] {
            let content: Vec<u8> = (0..size).map(|i| i as u8).collect();
            fs::write(temp.path().join("f"), &content).unwrap();
            let (read, got) = small(&dir, "f", &seen(&dir, "f"));
            assert!(!read.unwrap().changed && got == content, "{size}");
        }
        fs::write(temp.path().join("f"), vec![0; 65_537]).unwrap();
        assert!(small(&dir, "f", &seen(&dir, "f")).0.is_none());
    }

    #[test]
    fn a_file_that_changed_since_the_walk_is_read_as_it_is_now() {
        let (temp, dir) = test_dir();
        fs::write(temp.path().join("f"), b"old").unwrap();
        let expected = seen(&dir, "f");
        fs::OpenOptions::new()
            .append(true)
            .open(temp.path().join("f"))
            .unwrap()
            .write_at(&[b'n'; 3000], 3)
            .unwrap();
        let (read, content) = small(&dir, "f", &expected);
        let read = read.unwrap();
        assert!(!read.changed && read.stat.size == 3003 && content.len() == 3003);
    }

    #[test]
    fn a_file_that_never_stands_still_is_flagged() {
        let Some(proc) = Path::new("/proc/self").exists().then(|| Path::new("/proc/self")) else { return };
        // Its size is told as zero, whatever it holds.
        let dir = crate::source::walk::open_test_dir(proc);
        let (read, content) = small(&dir, "status", &seen(&dir, "status"));
        assert!(read.unwrap().changed && content.starts_with(b"Name:"));
    }

    #[test]
    fn whatever_takes_the_place_of_a_file_is_refused_without_waiting() {
        let (temp, dir) = test_dir();
        let path = temp.path().join("f");
        fs::write(&path, b"x").unwrap();
        let expected = seen(&dir, "f");
        let replaced = |what: &str| {
            let small = read_small(&dir, b"f", &expected, 100, &mut Vec::new());
            assert!(matches!(small, Err(SourceError::Replaced { .. })), "{what}: {small:?}");
            let open = open_file(&dir, b"f", &expected);
            assert!(matches!(open, Err(SourceError::Replaced { .. })), "{what}: {open:?}");
        };
        // Kept under another name, so that its inode number is not given to what follows.
        fs::rename(&path, temp.path().join("kept")).unwrap();
        fs::write(&path, b"x").unwrap();
        replaced("another file");
        fs::remove_file(&path).unwrap();
        symlink("kept", &path).unwrap();
        replaced("a link to it");
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        replaced("a directory");
        fs::remove_dir(&path).unwrap();
        rustix::fs::mkfifoat(CWD, &path, rustix::fs::Mode::RWXU).unwrap();
        replaced("a pipe");
        fs::remove_file(&path).unwrap();
        let socket = std::os::unix::net::UnixListener::bind(&path).unwrap();
        replaced("a socket");
        drop(socket);
        fs::remove_file(&path).unwrap();
        assert!(open_file(&dir, b"f", &expected).unwrap_err().is_vanished());
    }

    #[test]
    fn holes_are_skipped_and_a_huge_one_costs_nothing() {
        let (temp, dir) = test_dir();
        let file = File::create(temp.path().join("f")).unwrap();
        // The largest size that file systems in use allow, from large to small.
        let size =
            [i64::MAX as u64, 1 << 44, 1 << 40, 1 << 30].into_iter().find(|&size| file.set_len(size).is_ok());
        let size = size.unwrap();
        let block = 1 << 20;
        file.write_all_at(b"data", 4 * block).unwrap();
        file.write_all_at(&[1], size / 2).unwrap();
        let open = open_file(&dir, b"f", &seen(&dir, "f")).unwrap();
        let ranges: Vec<_> = open.data_ranges(Holes::Skip).collect();
        assert!(ranges.len() <= 2, "{ranges:?}");
        assert!(
            ranges.iter().any(|r| r.contains(&(4 * block))) && ranges.iter().any(|r| r.contains(&(size / 2)))
        );
        assert!(ranges.iter().all(|r| r.end - r.start <= block) || ranges.len() == 1);
        let whole: Vec<_> = open.data_ranges(Holes::Read).collect();
        assert_eq!(whole, vec![0..size]);
    }

    #[test]
    fn what_holes_leave_out_is_zero() {
        let (temp, dir) = test_dir();
        let file = File::create(temp.path().join("f")).unwrap();
        file.set_len(3 << 20).unwrap();
        for at in [0, 100_000, 1 << 20, (2 << 20) + 5] {
            file.write_all_at(&[3; 5000], at).unwrap();
        }
        let plain = fs::read(temp.path().join("f")).unwrap();
        let open = open_file(&dir, b"f", &seen(&dir, "f")).unwrap();
        let mut rebuilt = vec![0; 3 << 20];
        for range in open.data_ranges(Holes::Skip) {
            let mut at = range.start;
            while at < range.end {
                let len = open.read_at(&mut rebuilt[at as usize..range.end as usize], at).unwrap();
                assert!(len > 0);
                at += len as u64;
            }
        }
        assert_eq!(rebuilt, plain);
        let dense = fs::write(temp.path().join("g"), b"dense").map(|()| seen(&dir, "g")).unwrap();
        let open = open_file(&dir, b"g", &dense).unwrap();
        assert_eq!(open.data_ranges(Holes::Skip).collect::<Vec<_>>(), vec![0..5]);
        assert!(open.stood_still().unwrap());
    }
}
