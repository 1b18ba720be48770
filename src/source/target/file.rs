//! A regular file on its way into the target.
//!
//! # Invariants
//! Where another entry stands, the file is written beside it under a spare name and takes its place when it is finished.
//! So a file that is not finished, for whatever reason, costs nobody the one that stood there.
//!
//! # Crash
//! A file that was not finished stands with mode 0600, the owner of the process and whatever content had arrived: under
//! its own name if that was free, and running the restore again replaces it; under a spare name (`.lifeboat-…`) that
//! nobody will use any more if it was to replace another. One that was finished but for the rename stands under its
//! spare name with all its content and its final owner and mode.
//! A power cut before the sync at the end of the restore may cost a file that has just taken the place of another, on a file
//! system that does not write it before it renames it: a sync of each would cost a restore over many small files far more
//! than running it again.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::AtFlags;
use rustix::io::Errno;

use super::dir::Identity;
use super::entry::{self, LinkSource};
use super::metadata::{self, Before, Handle};
use super::{Metadata, MetadataFailure, TargetDir, TargetError};
use crate::source::sys;

/// A new regular file. Several threads may write to different ranges at once; ranges that nobody writes are holes.
#[derive(Debug)]
pub struct TargetFile {
    fd: OwnedFd,
    dir: TargetDir,
    name: Box<[u8]>,
    /// What it is called until it is finished, if its name is taken.
    spare: Option<Box<[u8]>>,
    len: u64,
    /// End of what has been written so far.
    end: AtomicU64,
}

impl TargetFile {
    pub(super) fn new(
        (fd, spare): (OwnedFd, Option<Box<[u8]>>),
        dir: &TargetDir,
        name: &[u8],
        len: u64,
    ) -> Self {
        Self { fd, dir: dir.clone(), name: name.into(), spare, len, end: AtomicU64::new(0) }
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

    /// Gives the file its length, its metadata and its place, and closes it. Every `write_at` must have returned. What
    /// could not be set is returned; the content stands all the same.
    ///
    /// # Errors
    /// If another entry stood in its place, that one still does; unless somebody put something else under the spare name
    /// at the very moment it took the place ([`TargetError::Changed`]).
    pub fn finish(self, metadata: &Metadata<'_>) -> Result<Vec<MetadataFailure>, TargetError> {
        let completed = self.complete(metadata);
        if completed.is_err() && self.spare.is_some() {
            // The error that came first says more than that the rest could not be removed.
            let _ = self.remove();
        }
        let failures = completed?;
        let Self { fd, dir, name, .. } = self;
        sys::write::close(fd).map_err(|error| TargetError::io("close", dir.path_of(&name), error))?;
        Ok(failures)
    }

    fn complete(&self, metadata: &Metadata<'_>) -> Result<Vec<MetadataFailure>, TargetError> {
        if self.end.load(Ordering::Relaxed) != self.len {
            rustix::fs::ftruncate(&self.fd, self.len)
                .map_err(|error| self.error("set the length of", error))?;
        }
        let before = Before::new_entry(self.dir.inherited());
        let handle = Handle::Open(self.fd.as_fd());
        let mut failures = metadata::apply_without_flags(self.dir.shared(), handle, before, metadata);
        if let Some(spare) = &self.spare {
            self.take_place(spare)?;
        }
        metadata::apply_flags(handle, metadata, &mut failures);
        Ok(failures)
    }

    /// Replaces what stands under the file's name.
    fn take_place(&self, spare: &[u8]) -> Result<(), TargetError> {
        // Some file systems tell only at a close that what was written has no room.
        let second = rustix::io::fcntl_dupfd_cloexec(&self.fd, 0).map_err(|e| self.error("close", e))?;
        sys::write::close(second).map_err(|error| self.error("close", error))?;
        let dir = self.dir.fd()?;
        let identity = self.identity()?;
        entry::replace_by(&self.dir, dir.as_fd(), (spare, identity), &self.name)?;
        if entry::identity_of(dir.as_fd(), &self.name) == Some(identity) {
            return Ok(());
        }
        // Whatever it is, it is somebody else's and stays.
        Err(TargetError::Changed { path: self.dir.path_of(&self.name) })
    }

    /// Removes the unfinished file, because its content cannot be completed. What stood in its place before stays.
    pub fn discard(self) -> Result<(), TargetError> {
        self.remove()
    }

    fn remove(&self) -> Result<(), TargetError> {
        let name = self.spare.as_ref().unwrap_or(&self.name);
        let dir = self.dir.fd()?;
        let identity = self.identity()?;
        let there = rustix::fs::statat(&dir, &**name, AtFlags::SYMLINK_NOFOLLOW);
        match there {
            Ok(stat) if Identity::of(&stat) == identity => {
                rustix::fs::unlinkat(&dir, &**name, AtFlags::empty())
                    .map_err(|error| self.error("remove", error))
            }
            // Somebody else's by now.
            Ok(_) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(self.error("look at", error)),
        }
    }

    /// What [`Target::hard_link`](super::Target::hard_link) needs to give this file further names: after it is finished,
    /// and before that if nothing else stands in its place.
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
