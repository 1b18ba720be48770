//! Regular files that stand in the target and are to be kept where they match the snapshot.
//!
//! # Invariants
//! Such a file is opened for reading first; only a difference opens it for writing. Before its first byte is written it is
//! closed to everybody else (mode 0600, owner of the process, no access control list), as a new file is: new content must
//! not show through old permissions.
//!
//! What has another name too, or is small, is never written in place: a copy is, and takes its place, so the other name
//! keeps what it had, and a small file is old or new, never half of both. So is a program that runs.
//!
//! # Crash
//! A file that is written in place stands partly old, partly new. A copy of a small file is left behind under its spare name.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, OnceLock, PoisonError};

use rustix::fs::{AtFlags, FallocateFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use rustix::process::{Gid, Uid};

use super::dir::Identity;
use super::dress::mtime;
use super::metadata::ACL_ACCESS;
use super::{Target, TargetDir, TargetError, TargetFile, entry};
use crate::source::sys;

/// Up to this size a file is copied rather than written in place.
const SMALL: u64 = 1 << 20;

/// Zeroes that stand where the snapshot has a hole are given back to the file system from this length on.
const WORTH_PUNCHING: u64 = 64 << 10;

/// Bytes that are copied or compared at once.
const PIECE: usize = 256 << 10;

/// What stands under a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stands {
    pub(super) identity: Identity,
    pub(super) kind: FileType,
    /// Bytes.
    pub size: u64,
    /// Bytes of the file system that it takes up.
    pub allocated: u64,
    /// When its content last changed: seconds since 1970 and nanoseconds.
    pub mtime: (i64, u32),
    /// Its names.
    pub links: u64,
}

impl Stands {
    pub(super) fn of(stat: &Stat) -> Self {
        #[allow(clippy::useless_conversion, reason = "the width differs between architectures")]
        let links = u64::from(stat.st_nlink);
        Self {
            identity: Identity::of(stat),
            kind: FileType::from_raw_mode(stat.st_mode),
            size: u64::try_from(stat.st_size).unwrap_or(0),
            allocated: u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512),
            mtime: mtime(stat),
            links,
        }
    }

    /// Whether it is a regular file.
    pub fn is_file(&self) -> bool {
        self.kind == FileType::RegularFile
    }

    /// Whether it is a directory.
    pub fn is_dir(&self) -> bool {
        self.kind == FileType::Directory
    }

    /// Whether it is a symlink.
    pub fn is_symlink(&self) -> bool {
        self.kind == FileType::Symlink
    }

    /// Whether `other` is the same file.
    pub fn same_file(&self, other: &Self) -> bool {
        self.identity == other.identity
    }

    /// What tells it from every other: device and inode.
    pub fn identity(&self) -> (u64, u64) {
        (self.identity.dev, self.identity.ino)
    }
}

/// The part of a [`TargetFile`] that stood before.
#[derive(Debug)]
pub(super) struct Standing {
    pub(super) was: Stands,
    making: Mutex<()>,
    writer: OnceLock<Writer>,
}

/// What is written.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) fd: OwnedFd,
    /// The name of a copy that takes its place in the end.
    pub(super) spare: Option<Box<[u8]>>,
}

impl Standing {
    fn new(was: Stands) -> Self {
        Self { was, making: Mutex::default(), writer: OnceLock::new() }
    }

    /// What is written, if anything is.
    pub(super) fn written(&self) -> Option<&Writer> {
        self.writer.get()
    }

    /// The descriptor of what was written, to be closed.
    pub(super) fn into_written(self) -> Option<OwnedFd> {
        self.writer.into_inner().map(|writer| writer.fd)
    }

    /// What is to be written: opened or copied now, or by another thread before.
    pub(super) fn writer(&self, file: &TargetFile, separate: bool) -> Result<&Writer, TargetError> {
        if let Some(writer) = self.writer.get() {
            return Ok(writer);
        }
        let _alone = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(writer) = self.writer.get() {
            return Ok(writer);
        }
        let writer = self.make(file, separate)?;
        Ok(self.writer.get_or_init(|| writer))
    }

    fn make(&self, file: &TargetFile, separate: bool) -> Result<Writer, TargetError> {
        if separate || self.is_small(file) || self.was.links > 1 {
            return self.copy(file);
        }
        let dir = file.dir.fd()?;
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let open = || rustix::fs::openat(&dir, &*file.name, flags, Mode::empty());
        let opened = match open() {
            // Its owner may not write to it, but may change that.
            Err(Errno::ACCESS) if close_to_others(file).is_ok() => open(),
            done => done,
        };
        let fd = match opened {
            Ok(fd) => fd,
            Err(Errno::TXTBSY | Errno::ACCESS) => return self.copy(file),
            Err(Errno::LOOP | Errno::NOENT | Errno::NXIO | Errno::ISDIR) => return Err(file.changed()),
            Err(error) => {
                return Err(entry::explain(&file.dir, dir.as_fd(), &file.name, ("write to", error)));
            }
        };
        let stat = rustix::fs::fstat(&fd).map_err(|error| file.error("look at", error))?;
        if Identity::of(&stat) != self.was.identity {
            return Err(file.changed());
        }
        if stat.st_nlink > 1 || close_to_others(file).is_err() {
            return self.copy(file);
        }
        Ok(Writer { fd, spare: None })
    }

    /// Small before and after.
    fn is_small(&self, file: &TargetFile) -> bool {
        self.was.size.max(file.len) <= SMALL
    }

    /// Copies what stands. A large copy takes its place at once, so that a later run finds what this one wrote.
    fn copy(&self, file: &TargetFile) -> Result<Writer, TargetError> {
        let dir = file.dir.fd()?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let make =
            |dir: BorrowedFd<'_>, name: &[u8]| rustix::fs::openat(dir, name, flags, Mode::RUSR | Mode::WUSR);
        let (fd, spare) = entry::make_spare(&file.dir, &file.name, "create", make)?;
        let copied = copy_content(file, &fd, self.was.size.min(file.len));
        let stat = copied.and_then(|()| rustix::fs::fstat(&fd).map_err(|error| file.error("look at", error)));
        let placed = stat.and_then(|stat| {
            let identity = Identity::of(&stat);
            let stays = self.is_small(file);
            if !stays {
                file.check_stands(self.was.identity)?;
                entry::replace_by(&file.dir, dir.as_fd(), (&spare, identity), &file.name)?;
            }
            Ok(stays)
        });
        match placed {
            Ok(stays) => Ok(Writer { fd, spare: stays.then_some(spare) }),
            Err(error) => {
                // The error that came first says more.
                let _ = rustix::fs::unlinkat(&dir, &*spare, AtFlags::empty());
                Err(error)
            }
        }
    }
}

/// Takes all rights from everybody but the process.
fn close_to_others(file: &TargetFile) -> rustix::io::Result<()> {
    let fd = file.fd.as_fd();
    let stat = rustix::fs::fstat(fd)?;
    let (uid, gid) = file.dir.shared().creator;
    if (stat.st_uid, stat.st_gid) != (uid, gid) {
        rustix::fs::fchown(fd, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
    }
    match rustix::fs::fremovexattr(fd, ACL_ACCESS) {
        Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
        Err(error) => return Err(error),
    }
    if stat.st_mode & 0o7777 != 0o600 {
        rustix::fs::fchmod(fd, Mode::RUSR | Mode::WUSR)?;
    }
    Ok(())
}

/// Copies the first `len` bytes: by sharing blocks where the file system can, without holes elsewhere.
fn copy_content(file: &TargetFile, to: &OwnedFd, len: u64) -> Result<(), TargetError> {
    let failed = |error: Errno| file.error("copy", error);
    if rustix::fs::ioctl_ficlone(to, &file.fd).is_ok() {
        return rustix::fs::ftruncate(to, len).map_err(failed);
    }
    let mut buffer = Vec::new();
    let mut at = 0;
    while let Some((start, end)) = next_data(&file.fd, at, len) {
        at = start;
        while at < end {
            buffer.resize(PIECE.min(usize::try_from(end - at).unwrap_or(PIECE)), 0);
            let read =
                sys::file::read_at(&file.fd, &mut buffer, at).map_err(|error| file.error("read", error))?;
            if read == 0 {
                return Ok(());
            }
            write_all(to, buffer.get(..read).unwrap_or_default(), at).map_err(failed)?;
            at += read as u64;
        }
    }
    Ok(())
}

/// Writes all of it.
pub(super) fn write_all(fd: &OwnedFd, mut content: &[u8], mut offset: u64) -> rustix::io::Result<()> {
    while !content.is_empty() {
        match rustix::io::pwrite(fd, content, offset) {
            Ok(0) => return Err(Errno::IO),
            Ok(written) => {
                content = content.get(written..).unwrap_or_default();
                offset += written as u64;
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The next range before `end` that is no hole. A file system that cannot tell has none.
fn next_data(fd: &OwnedFd, at: u64, end: u64) -> Option<(u64, u64)> {
    if at >= end {
        return None;
    }
    let start = match sys::file::next_data(fd, at) {
        Ok(Some(start)) => start,
        Ok(None) => return None,
        Err(_) => return Some((at, end)),
    };
    if start >= end {
        return None;
    }
    let stop = sys::file::next_hole(fd, start).ok().filter(|stop| *stop > start);
    Some((start, stop.unwrap_or(end).min(end)))
}

impl TargetFile {
    /// Makes `len` bytes at `offset` read as zeroes, as far as the file reaches, and gives their room back where that is
    /// worth it and can be done. Only a file that stood before can have anything else there.
    pub fn clear(&self, offset: u64, len: u64) -> Result<(), TargetError> {
        let Some(standing) = &self.standing else { return Ok(()) };
        let size = self.size_now()?;
        let end = offset.saturating_add(len).min(size).min(self.len);
        let mut at = offset;
        while let Some((start, stop)) = next_data(self.reading(), at, end) {
            at = stop;
            let zero = self.is_zero(start, stop)?;
            if zero && stop - start < WORTH_PUNCHING {
                continue;
            }
            let writer = standing.writer(self, false)?;
            let how = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            let punched = rustix::fs::fallocate(&writer.fd, how, start, stop - start);
            if punched.is_err() && !zero {
                self.write_zeroes(writer, start, stop)?;
            }
        }
        Ok(())
    }

    fn is_zero(&self, mut at: u64, end: u64) -> Result<bool, TargetError> {
        let mut buffer = vec![0; PIECE.min(usize::try_from(end - at).unwrap_or(PIECE))];
        while at < end {
            let len = buffer.len().min(usize::try_from(end - at).unwrap_or(usize::MAX));
            let piece = buffer.get_mut(..len).unwrap_or_default();
            self.read_at(piece, at)?;
            if piece.iter().any(|byte| *byte != 0) {
                return Ok(false);
            }
            at += len as u64;
        }
        Ok(true)
    }

    fn write_zeroes(&self, writer: &Writer, mut at: u64, end: u64) -> Result<(), TargetError> {
        let zeroes = vec![0; PIECE];
        while at < end {
            let len = PIECE.min(usize::try_from(end - at).unwrap_or(PIECE));
            write_all(&writer.fd, zeroes.get(..len).unwrap_or_default(), at)
                .map_err(|error| self.error("write to", error))?;
            at += len as u64;
        }
        Ok(())
    }
}

impl Target {
    /// What stands under a name; a symlink is not followed.
    pub fn look(&self, parent: &TargetDir, name: &[u8]) -> Result<Option<Stands>, TargetError> {
        entry::check_name(parent, name)?;
        match rustix::fs::statat(&parent.fd()?, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(Stands::of(&stat))),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(error) => Err(TargetError::io("look at", parent.path_of(name), error)),
        }
    }

    /// Opens the regular file that stands under a name, to become one of `len` bytes. Nothing of it is changed before
    /// something is written. `None` if no regular file stands there, or nobody may read it: then it is to be replaced.
    ///
    /// The content that stands is kept where nothing else is written: it is the caller who compares it.
    pub fn open_standing(
        &self,
        parent: &TargetDir,
        name: &[u8],
        len: u64,
    ) -> Result<Option<TargetFile>, TargetError> {
        entry::check_name(parent, name)?;
        let fd = match sys::file::open(&*parent.fd()?, name) {
            Ok(fd) => fd,
            Err(error) => {
                return match Errno::from_io_error(&error) {
                    Some(
                        Errno::NOENT | Errno::LOOP | Errno::ACCESS | Errno::PERM | Errno::NXIO | Errno::NODEV,
                    ) => Ok(None),
                    _ => Err(TargetError::io("open", parent.path_of(name), error)),
                };
            }
        };
        let stat = rustix::fs::fstat(&fd)
            .map_err(|error| TargetError::io("look at", parent.path_of(name), error))?;
        let was = Stands::of(&stat);
        if !was.is_file() {
            return Ok(None);
        }
        Ok(Some(TargetFile::standing(fd, (parent, name), len, Standing::new(was))))
    }
}
