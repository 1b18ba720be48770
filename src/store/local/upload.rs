//! Writing an object as its bytes arrive: to `tmp/`, synced, and named only if nothing has the name.
//!
//! # Crash
//! As everywhere in this room: a file in `tmp/`, or the whole object. Who gives up takes the file away at once.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};

use super::disk::Disk;
use super::{Inner, LocalError, Step};

/// An object that is being written. Dropped before [`Upload::commit`], nothing of it stays.
pub(super) struct Upload<D: Disk> {
    inner: Arc<Inner<D>>,
    file: D::File,
    path: PathBuf,
    len: u64,
    named: bool,
}

impl<D: Disk> Drop for Upload<D> {
    fn drop(&mut self) {
        if !self.named {
            // What stays behind is swept later.
            let _ = self.inner.disk.remove(&self.path);
        }
    }
}

impl<D: Disk> Upload<D> {
    /// Makes the temporary file. What was listed until now is durable then.
    pub(super) fn begin(inner: &Arc<Inner<D>>) -> Result<Self, LocalError> {
        inner.settle()?;
        let path = inner.temporary_path()?;
        let file = match inner.disk.create(&path, false) {
            // `tmp/` was known and is gone: make it anew.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                inner.known.lock().unwrap_or_else(PoisonError::into_inner).clear();
                inner.temporary_path()?;
                inner.disk.create(&path, false)
            }
            result => result,
        };
        let file = file.map_err(|error| LocalError::io(Step::Create, &path, error))?;
        Ok(Self { inner: Arc::clone(inner), file, path, len: 0, named: false })
    }

    /// Adds to its end.
    pub(super) fn write(&mut self, part: &[u8]) -> Result<(), LocalError> {
        let written = self.inner.disk.write_at(&self.file, part, self.len);
        written.map_err(|error| LocalError::io(Step::Write, &self.path, error))?;
        self.len += part.len() as u64;
        Ok(())
    }

    /// Makes it durable under its name; `false` if something has the name already, and that is durable then.
    pub(super) fn commit(mut self, target: &Path) -> Result<bool, LocalError> {
        self.inner.sync_file(&self.path, &self.file)?;
        match self.name(target) {
            // A directory that was known is gone: learn them anew.
            Err(error) if error.is_missing() => {
                self.inner.known.lock().unwrap_or_else(PoisonError::into_inner).clear();
                self.name(target)
            }
            result => result,
        }
    }

    fn name(&mut self, target: &Path) -> Result<bool, LocalError> {
        let parent = target.parent().unwrap_or(&self.inner.root);
        self.inner.ensure_directory(parent)?;
        match self.inner.disk.rename_new(&self.path, target) {
            Ok(()) => self.named = true,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(LocalError::io(Step::Rename, target, error)),
        }
        self.inner.sync_directory(parent)?;
        Ok(self.named)
    }
}
