//! Block devices: their size, and zeroes without writing them.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Advice, FallocateFlags, Mode, OFlags, SeekFrom};
use rustix::io::retry_on_intr;

/// Bytes from the beginning to the end. Moves the position of the descriptor.
pub(crate) fn size(fd: impl AsFd) -> io::Result<u64> {
    Ok(rustix::fs::seek(&fd, SeekFrom::End(0))?)
}

/// Opens a device to write to it, and claims it: `EBUSY` if anything else has, such as a mount.
pub(crate) fn claim(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
    Ok(retry_on_intr(|| rustix::fs::open(path, flags, Mode::empty()))?)
}

/// The unit in which a device takes requests, in bytes.
pub(crate) fn sector(fd: impl AsFd) -> io::Result<u32> {
    Ok(rustix::fs::ioctl_blksszget(&fd)?)
}

/// Gives the space of whole sectors back; they read as zeroes afterwards. Fails where a device does not promise that.
pub(crate) fn punch(fd: impl AsFd, offset: u64, len: u64) -> io::Result<()> {
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    Ok(retry_on_intr(|| rustix::fs::fallocate(&fd, flags, offset, len))?)
}

/// Makes whole sectors zeroes, by writing them if the device knows no better way.
pub(crate) fn zero(fd: impl AsFd, offset: u64, len: u64) -> io::Result<()> {
    let flags = FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE;
    Ok(retry_on_intr(|| rustix::fs::fallocate(&fd, flags, offset, len))?)
}

/// Drops what is kept in memory of a range and was written already; an empty range means to the end. Only advice: a
/// refusal changes nothing.
pub(crate) fn forget(fd: impl AsFd, offset: u64, len: u64) {
    let _ = rustix::fs::fadvise(&fd, offset, std::num::NonZeroU64::new(len), Advice::DontNeed);
}

/// Waits until everything that was written lies on the device.
pub(crate) fn sync(fd: impl AsFd) -> io::Result<()> {
    Ok(retry_on_intr(|| rustix::fs::fsync(&fd))?)
}
