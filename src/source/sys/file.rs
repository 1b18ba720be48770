//! Files: opening, reading at a position, finding holes.

use std::io;
use std::num::NonZeroU64;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Advice, Mode, OFlags, SeekFrom};
use rustix::io::{Errno, retry_on_intr};

/// Opens for reading. Never follows a symbolic link, never waits for the other end of a pipe, and leaves the access time
/// alone where the system lets us.
pub(crate) fn open(dir: impl AsFd, name: &[u8]) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    open_untouched(dir, name, flags)
}

/// Opens with these flags, and leaves the access time alone where the system lets us.
pub(super) fn open_untouched(dir: impl AsFd, name: &[u8], flags: OFlags) -> io::Result<OwnedFd> {
    let open = |flags| retry_on_intr(|| rustix::fs::openat(&dir, name, flags, Mode::empty()));
    let fd = match open(flags | OFlags::NOATIME) {
        Err(Errno::PERM) => open(flags),
        other => other,
    };
    Ok(fd?)
}

/// Reads at a position; zero bytes mean the end.
pub(crate) fn read_at(fd: impl AsFd, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    Ok(retry_on_intr(|| rustix::io::pread(&fd, &mut *buffer, offset))?)
}

/// Reads from a stream.
pub(crate) fn read(fd: impl AsFd, buffer: &mut [u8]) -> io::Result<usize> {
    Ok(retry_on_intr(|| rustix::io::read(&fd, &mut *buffer))?)
}

/// The start of the next data at or after `offset`; `None` if only a hole follows.
pub(crate) fn next_data(fd: impl AsFd, offset: u64) -> io::Result<Option<u64>> {
    match rustix::fs::seek(&fd, SeekFrom::Data(offset)) {
        Ok(at) => Ok(Some(at)),
        Err(Errno::NXIO) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The start of the next hole at or after `offset`; the end of the file counts as one.
pub(crate) fn next_hole(fd: impl AsFd, offset: u64) -> io::Result<u64> {
    Ok(rustix::fs::seek(&fd, SeekFrom::Hole(offset))?)
}

/// Says that the file will be read from start to end. Only advice: a refusal changes nothing.
pub(crate) fn will_read_in_order(fd: impl AsFd) {
    let _ = rustix::fs::fadvise(&fd, 0, None::<NonZeroU64>, Advice::Sequential);
}

/// The target of a symbolic link.
pub(crate) fn read_link(dir: impl AsFd, name: &[u8]) -> io::Result<Vec<u8>> {
    let target = retry_on_intr(|| rustix::fs::readlinkat(&dir, name, Vec::new()))?;
    Ok(target.into_bytes())
}
