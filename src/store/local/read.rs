//! Reading: positioned reads into buffers that are used again, exact to the byte.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use object_store::path::Path as ObjectPath;
use object_store::{GetRange, ObjectMeta};

use super::disk::{Disk, Kind};
use super::{Inner, LocalError, Step};

/// The last second of the year 9999; a file's time beyond it is hostile or broken.
const LAST_SECOND: i64 = 253_402_300_799;

/// An open object, read or about to be.
pub(super) struct Opened<F> {
    pub(super) file: F,
    pub(super) path: PathBuf,
    /// The part that is wanted, cut to the object's size.
    pub(super) range: Range<u64>,
    /// Its content, if it was to be read at once.
    pub(super) bytes: Option<Bytes>,
    size: u64,
    modified: (i64, i64),
}

impl<F> Opened<F> {
    pub(super) fn meta(&self, location: &ObjectPath) -> ObjectMeta {
        meta(location.clone(), self.size, self.modified)
    }
}

/// Metadata of an object from what the file system says; `modified` is seconds and nanoseconds since 1970.
pub(in crate::store) fn meta(location: ObjectPath, size: u64, modified: (i64, i64)) -> ObjectMeta {
    let seconds = modified.0.clamp(0, LAST_SECOND).unsigned_abs();
    let nanos = u32::try_from(modified.1).ok().filter(|n| *n < 1_000_000_000).unwrap_or(0);
    let last_modified = (UNIX_EPOCH + Duration::new(seconds, nanos)).into();
    ObjectMeta { location, last_modified, size, e_tag: None, version: None }
}

impl<D: Disk> Inner<D> {
    /// Opens a plain file; a link or anything else under the name is an error.
    pub(super) fn open_and_read(
        &self,
        path: &Path,
        wanted: Option<&GetRange>,
        head: bool,
    ) -> Result<Opened<D::File>, LocalError> {
        self.check_way(path)?;
        let file = self.disk.open(path).map_err(|error| match error.raw_os_error() {
            Some(libc::ELOOP | libc::ENXIO) => LocalError::Foreign { path: path.to_owned() },
            Some(libc::ENOTDIR) => LocalError::io(Step::Open, path, io::ErrorKind::NotFound.into()),
            _ => LocalError::io(Step::Open, path, error),
        })?;
        let stat = self.disk.stat_file(&file).map_err(|error| LocalError::io(Step::Look, path, error))?;
        if stat.kind != Kind::File {
            return Err(LocalError::Foreign { path: path.to_owned() });
        }
        let size = stat.len;
        let range = cut(wanted, size);
        let bytes = match wanted {
            Some(_) if !head => Some(self.read(&file, path, range.clone())?),
            _ => None,
        };
        Ok(Opened { file, path: path.to_owned(), range, bytes, size, modified: stat.modified })
    }

    /// No directory above the file is a link; looked at once a process.
    fn check_way(&self, path: &Path) -> Result<(), LocalError> {
        let Some(parent) = path.parent() else { return Ok(()) };
        if self.plain.lock().unwrap_or_else(PoisonError::into_inner).contains(parent) {
            return Ok(());
        }
        if self.is_directory(parent)? {
            self.plain.lock().unwrap_or_else(PoisonError::into_inner).insert(parent.to_owned());
        }
        Ok(())
    }

    /// The bytes of a range that lay inside the file when it was opened; an error if the file has shrunk since.
    pub(super) fn read(&self, file: &D::File, path: &Path, range: Range<u64>) -> Result<Bytes, LocalError> {
        let wanted = range.end - range.start;
        let too_large = || LocalError::io(Step::Read, path, io::ErrorKind::FileTooLarge.into());
        let mut buffer = self.pool.take(usize::try_from(wanted).map_err(|_| too_large())?);
        let mut done = 0;
        while done < buffer.len() {
            match self.disk.read_at(file, &mut buffer[done..], range.start + done as u64) {
                Ok(0) => {
                    return Err(LocalError::Shrunk { path: path.to_owned(), wanted, found: done as u64 });
                }
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(LocalError::io(Step::Read, path, error)),
            }
        }
        Ok(buffer.freeze())
    }
}

/// The wanted part of an object of `size` bytes; empty where they do not overlap.
pub(in crate::store) fn cut(wanted: Option<&GetRange>, size: u64) -> Range<u64> {
    match wanted {
        None => 0..size,
        Some(GetRange::Bounded(range)) => {
            let start = range.start.min(size);
            start..range.end.clamp(start, size)
        }
        Some(GetRange::Offset(start)) => (*start).min(size)..size,
        Some(GetRange::Suffix(len)) => size.saturating_sub(*len)..size,
    }
}
