//! The file system under the local store: every system call it makes, and no other. A test puts a simulated one in its place,
//! whose power can be cut.
//!
//! # Must not
//! Decide anything. What is done in which order, and what a failure means, is decided above.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, DirEntry, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FallocateFlags, OFlags, RenameFlags};
use rustix::io::Errno;

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A plain file.
    File,
    /// A directory.
    Directory,
    /// A link, a device or anything else.
    Other,
}

impl From<fs::FileType> for Kind {
    fn from(kind: fs::FileType) -> Self {
        if kind.is_dir() {
            Self::Directory
        } else if kind.is_file() {
            Self::File
        } else {
            Self::Other
        }
    }
}

/// What a file system says of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// What it is.
    pub kind: Kind,
    /// Bytes.
    pub len: u64,
    /// Seconds and nanoseconds since 1970 of the last change of its content.
    pub modified: (i64, i64),
}

impl From<fs::Metadata> for Stat {
    fn from(stat: fs::Metadata) -> Self {
        Self { kind: stat.file_type().into(), len: stat.len(), modified: (stat.mtime(), stat.mtime_nsec()) }
    }
}

/// One name of a directory that is being read. What is not asked for costs nothing.
pub trait Name {
    /// The name itself.
    fn name(&self) -> OsString;
    /// What it stands for; a link is not followed.
    fn kind(&self) -> io::Result<Kind>;
    /// More of it; a link is not followed.
    fn stat(&self) -> io::Result<Stat>;
}

/// A file system, as far as the local store uses one. Errors carry the numbers of the operating system.
pub trait Disk: Send + Sync + 'static {
    /// An open file. Dropping it closes it.
    type File: Send + Sync + 'static;
    /// A name that [`Disk::names`] came upon.
    type Name: Name;

    /// What the path leads to, links followed.
    fn stat(&self, path: &Path) -> io::Result<Stat>;
    /// What the path is, a link at its end not followed.
    fn stat_link(&self, path: &Path) -> io::Result<Stat>;
    /// The names in a directory, in any order.
    fn names(&self, path: &Path) -> io::Result<impl Iterator<Item = io::Result<Self::Name>>>;
    /// Opens for reading; a link at the end of the path is not followed, and a pipe is not waited for.
    fn open(&self, path: &Path) -> io::Result<Self::File>;
    /// What an open file is.
    fn stat_file(&self, file: &Self::File) -> io::Result<Stat>;
    /// Reads from a position; fewer bytes than asked for, and none at the end.
    fn read_at(&self, file: &Self::File, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Makes a file that only its owner may read, for writing; `direct` bypasses the page cache.
    fn create(&self, path: &Path, direct: bool) -> io::Result<Self::File>;
    /// Asks for all the space of a file at once.
    fn reserve(&self, file: &Self::File, len: u64) -> io::Result<()>;
    /// Writes all of it at a position.
    fn write_at(&self, file: &Self::File, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Cuts a file off, or makes it longer.
    fn set_len(&self, file: &Self::File, len: u64) -> io::Result<()>;
    /// Lets an open file use the page cache from now on.
    fn leave_direct(&self, file: &Self::File) -> io::Result<()>;
    /// Makes the content of a file durable, not its name.
    fn sync(&self, file: &Self::File) -> io::Result<()>;
    /// Makes the names in a directory durable, not its own.
    fn sync_directory(&self, path: &Path) -> io::Result<()>;
    /// Gives a file another name, in place of what has it.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Gives a file another name, unless something has it: then `AlreadyExists`.
    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Takes a name away.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes a directory that only its owner may enter.
    fn make_directory(&self, path: &Path) -> io::Result<()>;
    /// Bytes that this user may still write, if the file system tells.
    fn free_space(&self, path: &Path) -> Option<u64>;
}

/// The machine's file systems.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealDisk;

impl Name for DirEntry {
    fn name(&self) -> OsString {
        self.file_name()
    }

    fn kind(&self) -> io::Result<Kind> {
        Ok(self.file_type()?.into())
    }

    fn stat(&self) -> io::Result<Stat> {
        Ok(self.metadata()?.into())
    }
}

impl Disk for RealDisk {
    type File = File;
    type Name = DirEntry;

    fn stat(&self, path: &Path) -> io::Result<Stat> {
        Ok(fs::metadata(path)?.into())
    }

    fn stat_link(&self, path: &Path) -> io::Result<Stat> {
        Ok(fs::symlink_metadata(path)?.into())
    }

    fn names(&self, path: &Path) -> io::Result<impl Iterator<Item = io::Result<DirEntry>>> {
        fs::read_dir(path)
    }

    fn open(&self, path: &Path) -> io::Result<File> {
        File::options().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path)
    }

    fn stat_file(&self, file: &File) -> io::Result<Stat> {
        Ok(file.metadata()?.into())
    }

    fn read_at(&self, file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        file.read_at(buffer, offset)
    }

    fn create(&self, path: &Path, direct: bool) -> io::Result<File> {
        let flag = if direct { libc::O_DIRECT } else { 0 };
        File::options()
            .write(true)
            .create_new(true)
            .mode(0o400)
            .custom_flags(libc::O_NOFOLLOW | flag)
            .open(path)
    }

    fn reserve(&self, file: &File, len: u64) -> io::Result<()> {
        Ok(rustix::fs::fallocate(file, FallocateFlags::empty(), 0, len)?)
    }

    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        file.write_all_at(bytes, offset)
    }

    fn set_len(&self, file: &File, len: u64) -> io::Result<()> {
        file.set_len(len)
    }

    fn leave_direct(&self, file: &File) -> io::Result<()> {
        let flags = rustix::fs::fcntl_getfl(file)?;
        Ok(rustix::fs::fcntl_setfl(file, flags - OFlags::DIRECT)?)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_all()
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        rename_new_at((CWD, from), (CWD, to))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn make_directory(&self, path: &Path) -> io::Result<()> {
        DirBuilder::new().mode(0o700).create(path)
    }

    fn free_space(&self, path: &Path) -> Option<u64> {
        let stat = rustix::fs::statvfs(path).ok()?;
        Some(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}

/// A rename that replaces nothing. A file system that does not know it gets a second name and loses the first: a crash between
/// the two leaves a temporary name, as any crash may.
pub(super) fn rename_new_at(
    (from_dir, from): (impl AsFd, &Path),
    (to_dir, to): (impl AsFd, &Path),
) -> io::Result<()> {
    match rustix::fs::renameat_with(&from_dir, from, &to_dir, to, RenameFlags::NOREPLACE) {
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {}
        result => return Ok(result?),
    }
    rustix::fs::linkat(&from_dir, from, &to_dir, to, AtFlags::empty())?;
    Ok(rustix::fs::unlinkat(&from_dir, from, AtFlags::empty())?)
}
