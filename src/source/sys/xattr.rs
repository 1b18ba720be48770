//! Extended attributes.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{fgetxattr, flistxattr, lgetxattr, llistxattr};
use rustix::io::{Errno, retry_on_intr};

/// The longest list of names and the longest value that Linux hands out.
pub(crate) const MAX: usize = 64 * 1024;

/// Whose attributes: an open file, or a name that is reached without following it.
#[derive(Clone, Copy)]
pub(crate) enum Holder<'a> {
    /// An open descriptor.
    Open(BorrowedFd<'a>),
    /// A path.
    Path(&'a CStr),
}

impl<'a> Holder<'a> {
    /// An open descriptor.
    pub(crate) fn open(fd: &'a impl AsFd) -> Self {
        Self::Open(fd.as_fd())
    }

    /// The names, each ended by a zero byte. Nothing where the file system has no attributes.
    pub(crate) fn names(self, buffer: &mut Vec<u8>) -> io::Result<()> {
        let result = fill(buffer, |buffer| match self {
            Self::Open(fd) => flistxattr(fd, buffer),
            Self::Path(path) => llistxattr(path, buffer),
        });
        match result {
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
                buffer.clear();
                Ok(())
            }
            other => Ok(other?),
        }
    }

    /// One value; `None` if the attribute is gone by now.
    pub(crate) fn value(self, name: &CStr, buffer: &mut Vec<u8>) -> io::Result<Option<()>> {
        let result = fill(buffer, |buffer| match self {
            Self::Open(fd) => fgetxattr(fd, name, buffer),
            Self::Path(path) => lgetxattr(path, name, buffer),
        });
        match result {
            Ok(()) => Ok(Some(())),
            Err(Errno::NODATA) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// Tries with a small buffer first, because nearly every answer is small, and then with the largest one.
fn fill(buffer: &mut Vec<u8>, mut call: impl FnMut(&mut [u8]) -> Result<usize, Errno>) -> Result<(), Errno> {
    for size in [1024, MAX] {
        buffer.resize(size, 0);
        match retry_on_intr(|| call(buffer)) {
            Ok(len) => {
                buffer.truncate(len);
                return Ok(());
            }
            Err(Errno::RANGE) if size < MAX => {}
            Err(error) => {
                buffer.clear();
                return Err(error);
            }
        }
    }
    Err(Errno::RANGE)
}
