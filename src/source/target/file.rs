//! A regular file on its way into the target.
//!
//! # Crash
//! A file that was not finished stands with mode 0600, the owner of the process and whatever content had arrived; there
//! is no temporary name. Running the restore again replaces it.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::AtFlags;
use rustix::io::Errno;

use super::dir::Identity;
use super::entry::LinkSource;
use super::metadata::{self, Before, Handle};
use super::{Metadata, MetadataFailure, TargetDir, TargetError};
use crate::source::sys;

/// A new regular file. Several threads may write to different ranges at once; ranges that nobody writes are holes.
#[derive(Debug)]
pub struct TargetFile {
    fd: OwnedFd,
    dir: TargetDir,
    name: Box<[u8]>,
    len: u64,
    /// End of what has been written so far.
    end: AtomicU64,
}

impl TargetFile {
    pub(super) fn new(fd: OwnedFd, dir: &TargetDir, name: &[u8], len: u64) -> Self {
        Self { fd, dir: dir.clone(), name: name.into(), len, end: AtomicU64::new(0) }
    }

    /// Writes all of `content` at `offset` bytes. Fails before it writes anything if that reaches beyond the length
    /// given when the file was made.
    pub fn write_at(&self, mut content: &[u8], mut offset: u64) -> Result<(), TargetError> {
        let end = offset.checked_add(content.len() as u64).filter(|&end| end <= self.len);
        let Some(end) = end else {
            return Err(TargetError::BeyondEnd { path: self.dir.path_of(&self.name), len: self.len });
        };
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
        self.end.fetch_max(end, Ordering::Relaxed);
        Ok(())
    }

    /// Reads back exactly what `buffer` has room for. What was not written reads as zeroes.
    pub fn read_at(&self, mut buffer: &mut [u8], mut offset: u64) -> Result<(), TargetError> {
        while !buffer.is_empty() {
            let read =
                sys::file::read_at(&self.fd, buffer, offset).map_err(|e| self.error("read back", e))?;
            if read == 0 {
                // The file gets its full length when it is finished.
                buffer.fill(0);
                return Ok(());
            }
            buffer = buffer.get_mut(read..).unwrap_or_default();
            offset += read as u64;
        }
        Ok(())
    }

    /// Gives the file its length and its metadata, and closes it. Every `write_at` must have returned. What could not
    /// be set is returned; the content stands all the same.
    pub fn finish(self, metadata: &Metadata<'_>) -> Result<Vec<MetadataFailure>, TargetError> {
        if self.end.load(Ordering::Relaxed) != self.len {
            rustix::fs::ftruncate(&self.fd, self.len)
                .map_err(|error| self.error("set the length of", error))?;
        }
        let before = Before::new_entry(self.dir.inherited());
        let failures = metadata::apply(self.dir.shared(), Handle::Open(self.fd.as_fd()), before, metadata);
        let Self { fd, dir, name, .. } = self;
        sys::write::close(fd).map_err(|error| TargetError::io("close", dir.path_of(&name), error))?;
        Ok(failures)
    }

    /// Removes the unfinished file, because its content cannot be completed.
    pub fn discard(self) -> Result<(), TargetError> {
        let dir = self.dir.fd()?;
        let identity = self.identity()?;
        let there = rustix::fs::statat(&dir, &*self.name, AtFlags::SYMLINK_NOFOLLOW);
        match there {
            Ok(stat) if Identity::of(&stat) == identity => {
                rustix::fs::unlinkat(&dir, &*self.name, AtFlags::empty())
                    .map_err(|error| self.error("remove", error))
            }
            // Somebody else's by now.
            Ok(_) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(self.error("look at", error)),
        }
    }

    /// What [`Target::hard_link`](super::Target::hard_link) needs to give this file further names, now or after it is
    /// finished.
    pub fn link_source(&self) -> Result<LinkSource, TargetError> {
        Ok(LinkSource::new(&self.dir, &self.name, self.identity()?))
    }

    fn identity(&self) -> Result<Identity, TargetError> {
        rustix::fs::fstat(&self.fd)
            .map(|stat| Identity::of(&stat))
            .map_err(|error| self.error("look at", error))
    }

    fn error(&self, action: &'static str, source: impl Into<io::Error>) -> TargetError {
        TargetError::io(action, self.dir.path_of(&self.name), source)
    }
}
