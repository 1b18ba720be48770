//! A block device as the target of one file.
//!
//! # Invariants
//! The device is claimed while it is open: nobody mounts it meanwhile, and none is opened that is mounted, used for swap
//! or a part of something else. Nothing behind the length that was announced is written.
//!
//! # Crash
//! The device holds a part of the new content and a part of the old. Restoring again writes all of it.
//!
//! # Must not
//! Rely on a discard to make zeroes, or set any metadata: the node of a device is the system's.

use std::io;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::Errno;

use super::TargetError;
use crate::source::device::device_uses;
use crate::source::sys;

/// Zeroes are written in pieces of this size where the device cannot make them.
static ZEROES: [u8; 256 << 10] = [0; 256 << 10];

/// What a range must begin and end at to be made zeroes by the device: no page that is kept in memory is cut in two.
const ALIGNMENT: u64 = 64 << 10;

/// An open block device. Several threads may write to different ranges at once.
#[derive(Debug)]
pub struct TargetDevice {
    fd: OwnedFd,
    path: PathBuf,
    size: u64,
    /// Whether the device was not found unable yet to give space back and read it as zeroes.
    punches: AtomicBool,
}

impl TargetDevice {
    /// Whether the path leads to a block device.
    pub fn is_one(path: &Path) -> bool {
        use std::os::unix::fs::FileTypeExt;
        std::fs::metadata(path).is_ok_and(|found| found.file_type().is_block_device())
    }

    /// Opens a device and claims it.
    ///
    /// # Errors
    /// [`TargetError::DeviceInUse`] if it is mounted, used for swap, or a part of it or something made of it is.
    pub fn open(path: &Path) -> Result<Self, TargetError> {
        use std::os::unix::fs::MetadataExt;
        let failed = |action, error: io::Error| TargetError::io(action, path.to_owned(), error);
        let in_use = |uses: String| TargetError::DeviceInUse { path: path.to_owned(), uses };
        let found = std::fs::metadata(path).map_err(|error| failed("look at", error))?;
        let uses = device_uses(found.rdev());
        if !uses.is_empty() {
            return Err(in_use(uses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")));
        }
        let fd = sys::block::claim(path).map_err(|error| match Errno::from_io_error(&error) {
            Some(Errno::BUSY) => in_use("claimed by somebody else".to_owned()),
            _ => failed("open", error),
        })?;
        let now = sys::stat::stat_open(&fd).map_err(|error| failed("look at", error))?;
        if now.rdev != found.rdev() || now.kind() != crate::source::Kind::BlockDevice {
            return Err(TargetError::Changed { path: path.to_owned() });
        }
        let size = sys::block::size(&fd).map_err(|error| failed("find the size of", error))?;
        let sector = sys::block::sector(&fd).map_err(|error| failed("find the sectors of", error))?;
        // No device has sectors that large; one that has would be written as if it knew nothing of zeroes.
        let punches = ALIGNMENT.is_multiple_of(u64::from(sector.max(1)));
        Ok(Self { fd, path: path.to_owned(), size, punches: AtomicBool::new(punches) })
    }

    /// Its size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Writes all of `content` at `offset` bytes.
    pub fn write_at(&self, mut content: &[u8], mut offset: u64) -> Result<(), TargetError> {
        let end = offset.checked_add(content.len() as u64);
        if end.is_none_or(|end| end > self.size) {
            return Err(TargetError::BeyondEnd { path: self.path.clone(), len: self.size });
        }
        while !content.is_empty() {
            match rustix::io::pwrite(&self.fd, content, offset) {
                Ok(0) => return Err(self.error("write to", io::ErrorKind::WriteZero)),
                Ok(written) => {
                    content = content.get(written..).unwrap_or_default();
                    offset += written as u64;
                }
                Err(Errno::INTR) => {}
                Err(error) => return Err(self.error("write to", error)),
            }
        }
        Ok(())
    }

    /// Makes a range zeroes, and gives its space back where the device promises that it reads as zeroes then.
    pub fn zero(&self, range: Range<u64>) -> Result<(), TargetError> {
        let inner = inner(&range);
        if inner.is_empty() || range.end > self.size {
            return self.write_zeroes(range);
        }
        self.write_zeroes(range.start..inner.start)?;
        self.write_zeroes(inner.end..range.end)?;
        let len = inner.end - inner.start;
        if self.punches.load(Ordering::Relaxed) {
            match sys::block::punch(&self.fd, inner.start, len) {
                Ok(()) => return Ok(()),
                Err(error) if is_unsupported(&error) => self.punches.store(false, Ordering::Relaxed),
                Err(error) => return Err(self.error("give space back on", error)),
            }
        }
        match sys::block::zero(&self.fd, inner.start, len) {
            Err(error) if is_unsupported(&error) => self.write_zeroes(inner),
            done => done.map_err(|error| self.error("write zeroes to", error)),
        }
    }

    /// Makes a run of zeroes within content zeroes: the short way, if the device can give the space back.
    pub fn zero_run(&self, range: Range<u64>) -> Result<(), TargetError> {
        if self.punches.load(Ordering::Relaxed) { self.zero(range) } else { self.write_zeroes(range) }
    }

    fn write_zeroes(&self, range: Range<u64>) -> Result<(), TargetError> {
        let mut at = range.start;
        while at < range.end {
            let len = (range.end - at).min(ZEROES.len() as u64);
            self.write_at(ZEROES.get(..len as usize).unwrap_or_default(), at)?;
            at += len;
        }
        Ok(())
    }

    /// Reads exactly what `buffer` has room for.
    pub fn read_at(&self, mut buffer: &mut [u8], mut offset: u64) -> Result<(), TargetError> {
        while !buffer.is_empty() {
            let read = sys::file::read_at(&self.fd, buffer, offset);
            match read.map_err(|error| self.error("read back", error))? {
                0 => return Err(self.error("read back", io::ErrorKind::UnexpectedEof)),
                read => {
                    buffer = buffer.get_mut(read..).unwrap_or_default();
                    offset += read as u64;
                }
            }
        }
        Ok(())
    }

    /// Waits until everything lies on the device, and forgets it, so that what is read next comes from there.
    pub fn settle(&self) -> Result<(), TargetError> {
        sys::block::sync(&self.fd).map_err(|error| self.error("sync", error))?;
        sys::block::forget(&self.fd, 0, 0);
        Ok(())
    }

    fn error(&self, action: &'static str, source: impl Into<io::Error>) -> TargetError {
        TargetError::io(action, self.path.clone(), source)
    }
}

/// The part of a range that a device can be asked to make zeroes; empty at `range.start` if there is none.
fn inner(range: &Range<u64>) -> Range<u64> {
    let start = range.start.checked_next_multiple_of(ALIGNMENT).unwrap_or(u64::MAX);
    let end = range.end - range.end % ALIGNMENT;
    if start < end { start..end } else { range.start..range.start }
}

fn is_unsupported(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL | Errno::NODEV))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_units_are_left_to_the_device() {
        const A: u64 = ALIGNMENT;
        for (range, expected) in [
            (0..A, 0..A),
            (1..A, 1..1),
            (1..3 * A - 1, A..2 * A),
            (A - 1..A + 1, A - 1..A - 1),
            (5..5, 5..5),
            (A..A, A..A),
            (u64::MAX - 10..u64::MAX, u64::MAX - 10..u64::MAX - 10),
        ] {
            assert_eq!(inner(&range), expected, "{range:?}");
        }
    }

    #[test]
    fn what_is_no_block_device_is_told_from_one() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, b"x").unwrap();
        for path in [file.as_path(), dir.path(), Path::new("/dev/null"), Path::new("/no/such")] {
            assert!(!TargetDevice::is_one(path), "{path:?}");
        }
        let opened = TargetDevice::open(&file);
        assert!(matches!(opened, Err(TargetError::Changed { .. } | TargetError::Io { .. })), "{opened:?}");
        assert_eq!(std::fs::read(&file).unwrap(), b"x");
    }
}
