//! The flags of `chattr`.

use std::io;
use std::os::fd::AsFd;

use rustix::io::Errno;

/// `FS_*_FL` bits of an open file or directory; zero where the file system has none.
pub(crate) fn get(fd: impl AsFd) -> io::Result<u32> {
    match rustix::fs::ioctl_getflags(&fd) {
        Ok(flags) => Ok(flags.bits()),
        Err(Errno::NOTTY | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => Ok(0),
        Err(error) => Err(error.into()),
    }
}
