//! A regular file on its way into the target.
//!
//! # Invariants
//! Where another entry stands, the file is written beside it under a spare name and takes its place when it is finished.
//! So a file that is not finished, for whatever reason, costs nobody the one that stood there. Only a file that is to be
//! kept where it matches ([`super::standing`]) is written where it stands.
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
use super::standing::{self, Standing};
use super::{Metadata, MetadataFailure, Stands, TargetDir, TargetError, dress};
use crate::source::sys;

/// A regular file that is new, or stood before. Several threads may write to different ranges at once; ranges of a new one
/// that nobody writes are holes.
#[derive(Debug)]
pub struct TargetFile {
    /// What was made; or what stood before, open for reading.
    pub(super) fd: OwnedFd,
    pub(super) dir: TargetDir,
    pub(super) name: Box<[u8]>,
    /// What it is called until it is finished, if its name is taken.
    spare: Option<Box<[u8]>>,
    pub(super) len: u64,
    /// End of what has been written so far.
    end: AtomicU64,
    pub(super) standing: Option<Standing>,
}

impl TargetFile {
    pub(super) fn new(
        (fd, spare): (OwnedFd, Option<Box<[u8]>>),
        dir: &TargetDir,
        name: &[u8],
        len: u64,
    ) -> Self {
        let end = AtomicU64::new(0);
        Self { fd, dir: dir.clone(), name: name.into(), spare, len, end, standing: None }
    }

    pub(super) fn standing(
        fd: OwnedFd,
        (dir, name): (&TargetDir, &[u8]),
        len: u64,
        standing: Standing,
    ) -> Self {
        Self { standing: Some(standing), ..Self::new((fd, None), dir, name, len) }
    }

    /// What stood here before, if that is kept where it matches.
    pub fn stood(&self) -> Option<&Stands> {
        self.standing.as_ref().map(|standing| &standing.was)
    }

    /// What is read: what was written so far, or what stood before.
    pub(super) fn reading(&self) -> &OwnedFd {
        let written = self.standing.as_ref().and_then(Standing::written);
        written.map_or(&self.fd, |writer| &writer.fd)
    }

    fn writing(&self) -> Result<&OwnedFd, TargetError> {
        match &self.standing {
            Some(standing) => Ok(&standing.writer(self, false)?.fd),
            None => Ok(&self.fd),
        }
    }

    /// Writes all of `content` at `offset` bytes. Fails before it writes anything if that reaches beyond the length
    /// given when the file was made.
    pub fn write_at(&self, content: &[u8], offset: u64) -> Result<(), TargetError> {
        let end = offset.checked_add(content.len() as u64).filter(|&end| end <= self.len);
        let Some(end) = end else {
            return Err(TargetError::BeyondEnd { path: self.dir.path_of(&self.name), len: self.len });
        };
        standing::write_all(self.writing()?, content, offset)
            .map_err(|error| self.error("write to", error))?;
        self.end.fetch_max(end, Ordering::Relaxed);
        Ok(())
    }

    /// Reads back exactly what `buffer` has room for. What was not written reads as zeroes.
    pub fn read_at(&self, mut buffer: &mut [u8], mut offset: u64) -> Result<(), TargetError> {
        while !buffer.is_empty() {
            let read =
                sys::file::read_at(self.reading(), buffer, offset).map_err(|e| self.error("read back", e))?;
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
    /// at the very moment it took the place ([`TargetError::Changed`], as if something else has the file's name in the end).
    pub fn finish(self, metadata: &Metadata<'_>) -> Result<Vec<MetadataFailure>, TargetError> {
        Ok(self.finish_linked(metadata)?.1)
    }

    /// [`TargetFile::finish`], and what [`Target::hard_link`](super::Target::hard_link) needs to give the file further names.
    pub fn finish_linked(
        self,
        metadata: &Metadata<'_>,
    ) -> Result<(LinkSource, Vec<MetadataFailure>), TargetError> {
        let completed = self.complete(metadata);
        if completed.is_err() && self.unplaced().is_some() {
            // The error that came first says more than that the rest could not be removed.
            let _ = self.remove();
        }
        let failures = completed?;
        let source = self.link_source()?;
        let Self { fd, dir, name, standing, .. } = self;
        let closed = match standing.and_then(Standing::into_written) {
            Some(written) => sys::write::close(written),
            None => sys::write::close(fd),
        };
        closed.map_err(|error| TargetError::io("close", dir.path_of(&name), error))?;
        Ok((source, failures))
    }

    fn complete(&self, metadata: &Metadata<'_>) -> Result<Vec<MetadataFailure>, TargetError> {
        let sized = match self.standing {
            Some(_) => self.size_now()? == self.len,
            None => self.end.load(Ordering::Relaxed) == self.len,
        };
        if !sized {
            rustix::fs::ftruncate(self.writing()?, self.len)
                .map_err(|error| self.error("set the length of", error))?;
        }
        let stood = self.standing.is_some();
        let stat = rustix::fs::fstat(self.reading()).map_err(|error| self.error("look at", error))?;
        let shared = self.dir.shared();
        if stood
            && self.unplaced().is_none()
            && dress::is_set(shared, self.reading().as_fd(), &stat, metadata)
        {
            return self.check_stands(self.identity()?).map(|()| Vec::new());
        }
        let mut before = Before::new_entry(self.dir.inherited());
        if stood {
            before.inherited.owner = Some((stat.st_uid, stat.st_gid));
            (before.stray_acl, before.stray_xattrs) = (true, true);
        }
        let handle = Handle::Open(self.reading().as_fd());
        let mut failures = metadata::apply_without_flags(shared, handle, before, metadata);
        match self.unplaced() {
            Some(spare) => self.take_place(spare)?,
            None => self.check_stands(self.identity()?)?,
        }
        metadata::apply_flags(handle, metadata, &mut failures);
        Ok(failures)
    }

    /// The name it has until it takes its place, if that is another.
    fn unplaced(&self) -> Option<&[u8]> {
        match &self.standing {
            Some(standing) => standing.written()?.spare.as_deref(),
            None => self.spare.as_deref(),
        }
    }

    /// Fails if something else has the file's name by now.
    pub(super) fn check_stands(&self, identity: Identity) -> Result<(), TargetError> {
        let stands = entry::identity_of(self.dir.fd()?.as_fd(), &self.name);
        if stands == Some(identity) { Ok(()) } else { Err(self.changed()) }
    }

    pub(super) fn changed(&self) -> TargetError {
        TargetError::Changed { path: self.dir.path_of(&self.name) }
    }

    /// Its length as it is now, in bytes.
    pub fn size_now(&self) -> Result<u64, TargetError> {
        let stat = rustix::fs::fstat(self.reading()).map_err(|error| self.error("look at", error))?;
        Ok(u64::try_from(stat.st_size).unwrap_or(0))
    }

    /// Whether nothing of what stood before was changed, and nothing has to be: length and metadata are right.
    pub fn is_untouched(&self, metadata: &Metadata<'_>) -> Result<bool, TargetError> {
        let untouched = self.standing.as_ref().is_some_and(|standing| standing.written().is_none());
        if !untouched {
            return Ok(false);
        }
        let stat = rustix::fs::fstat(&self.fd).map_err(|error| self.error("look at", error))?;
        let shared = self.dir.shared();
        Ok(u64::try_from(stat.st_size) == Ok(self.len)
            && dress::is_set(shared, self.fd.as_fd(), &stat, metadata))
    }

    /// Makes the file one of its own, if it stood before and has other names.
    pub fn separate(&self) -> Result<(), TargetError> {
        match &self.standing {
            Some(standing) => standing.writer(self, true).map(|_| ()),
            None => Ok(()),
        }
    }

    /// Replaces what stands under the file's name.
    fn take_place(&self, spare: &[u8]) -> Result<(), TargetError> {
        // Some file systems tell only at a close that what was written has no room.
        let second =
            rustix::io::fcntl_dupfd_cloexec(self.reading(), 0).map_err(|e| self.error("close", e))?;
        sys::write::close(second).map_err(|error| self.error("close", error))?;
        let dir = self.dir.fd()?;
        let identity = self.identity()?;
        if let Some(standing) = &self.standing {
            self.check_stands(standing.was.identity)?;
        }
        entry::replace_by(&self.dir, dir.as_fd(), (spare, identity), &self.name)?;
        if entry::identity_of(dir.as_fd(), &self.name) == Some(identity) {
            return Ok(());
        }
        // Whatever it is, it is somebody else's and stays.
        Err(self.changed())
    }

    /// Removes the unfinished file, because its content cannot be completed. What stood in its place before stays; if it was
    /// written to, as far as it was not.
    pub fn discard(self) -> Result<(), TargetError> {
        self.remove()
    }

    /// Gives the file up because the run ends. It is left for the next run if that is wanted and nothing stood in its place.
    pub fn abandon(self) -> Result<(), TargetError> {
        if self.dir.shared().options.resume && self.unplaced().is_none() { Ok(()) } else { self.remove() }
    }

    /// Whether what stood before was written to, so that it is neither the old file nor the new one.
    pub fn is_mixed(&self) -> bool {
        let written = self.standing.as_ref().and_then(Standing::written);
        written.is_some_and(|writer| writer.spare.is_none())
    }

    fn remove(&self) -> Result<(), TargetError> {
        let name = match (self.unplaced(), &self.standing) {
            (Some(spare), _) => spare,
            (None, None) => &*self.name,
            (None, Some(_)) => return Ok(()),
        };
        let dir = self.dir.fd()?;
        let identity = self.identity()?;
        let there = rustix::fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW);
        match there {
            Ok(stat) if Identity::of(&stat) == identity => rustix::fs::unlinkat(&dir, name, AtFlags::empty())
                .map_err(|error| self.error("remove", error)),
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
        rustix::fs::fstat(self.reading())
            .map(|stat| Identity::of(&stat))
            .map_err(|error| self.error("look at", error))
    }

    pub(super) fn error(&self, action: &'static str, source: impl Into<io::Error>) -> TargetError {
        TargetError::io(action, self.dir.path_of(&self.name), source)
    }
}
