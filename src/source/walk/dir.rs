//! A directory on the way, and the bounded set of descriptors that are open.
//!
//! # Invariants
//! A directory is opened from its parent's descriptor by one name, and its device and inode must be those that the walk
//! saw first; so neither the length of a path nor a swapped symbolic link matters. A descriptor that was closed to stay
//! within the bound is opened again the same way when it is needed.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use rustix::io::Errno;

use crate::source::error::SourceError;
use crate::source::sys::dir as sys;
use crate::source::sys::stat::Stat;

/// Below this depth a directory is simply opened from the root again.
const DEPTH_WORTH_CLIMBING: u32 = 32;

/// Which descriptors are open, oldest first.
#[derive(Debug)]
pub(super) struct Window {
    limit: usize,
    open: Mutex<VecDeque<Weak<Dir>>>,
}

impl Window {
    pub(super) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit: limit.max(2), open: Mutex::default() })
    }

    fn admit(&self, dir: &Arc<Dir>) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.push_back(Arc::downgrade(dir));
        while open.len() > self.limit {
            let oldest = open.pop_front().and_then(|dir| dir.upgrade());
            if let Some(oldest) = oldest {
                oldest.close();
            }
        }
    }

    /// Closes everything that is not in use, because the process ran out of descriptors.
    fn clear(&self) {
        let all = std::mem::take(&mut *self.open.lock().unwrap_or_else(PoisonError::into_inner));
        all.into_iter().filter_map(|dir| dir.upgrade()).for_each(|dir| dir.close());
    }
}

/// A directory of the source. Shared by all entries in it; keeps its parents alive.
#[derive(Debug)]
pub struct Dir {
    parent: Option<Arc<Dir>>,
    name: Box<[u8]>,
    identity: (u64, u64),
    mnt_id: u64,
    depth: u32,
    /// A symbolic link on the way to a root is followed, as the user named it; one below a root never is.
    follow: bool,
    fd: Mutex<Option<Arc<OwnedFd>>>,
    window: Arc<Window>,
}

impl Dir {
    /// The root of the file system.
    pub(super) fn root(window: Arc<Window>) -> Result<Arc<Self>, SourceError> {
        let fail = |source| SourceError::Io { action: "open", path: PathBuf::from("/"), source };
        let fd = sys::open_root().map_err(fail)?;
        let stat = crate::source::sys::stat::stat_open(&fd).map_err(fail)?;
        Ok(Arc::new(Self {
            parent: None,
            name: Box::default(),
            identity: (stat.dev, stat.ino),
            mnt_id: stat.mnt_id,
            depth: 0,
            follow: true,
            // Not in the window: it stays open for as long as anything refers to it.
            fd: Mutex::new(Some(Arc::new(fd))),
            window,
        }))
    }

    /// A directory in this one, not opened yet.
    pub(super) fn child(self: &Arc<Self>, name: &[u8], stat: &Stat, follow: bool) -> Arc<Self> {
        if name == b"." {
            return Arc::clone(self);
        }
        Arc::new(Self {
            parent: Some(Arc::clone(self)),
            name: name.into(),
            identity: (stat.dev, stat.ino),
            mnt_id: stat.mnt_id,
            depth: self.depth.saturating_add(1),
            follow,
            fd: Mutex::new(None),
            window: Arc::clone(&self.window),
        })
    }

    /// The directory's own path in the source.
    pub fn path(&self) -> PathBuf {
        let mut bytes = Vec::new();
        self.path_into(&mut bytes);
        PathBuf::from(OsStr::from_bytes(&bytes))
    }

    /// The path of an entry in it.
    pub fn path_of(&self, name: &[u8]) -> PathBuf {
        if name == b"." { self.path() } else { self.path().join(OsStr::from_bytes(name)) }
    }

    /// Replaces `path` by the directory's path, as bytes.
    pub(super) fn path_into(&self, path: &mut Vec<u8>) {
        path.clear();
        let mut names = Vec::new();
        let mut dir = self;
        while let Some(parent) = &dir.parent {
            names.push(&*dir.name);
            dir = parent;
        }
        for name in names.iter().rev() {
            path.push(b'/');
            path.extend_from_slice(name);
        }
        if path.is_empty() {
            path.push(b'/');
        }
    }

    pub(super) fn identity(&self) -> (u64, u64) {
        self.identity
    }

    pub(super) fn mnt_id(&self) -> u64 {
        self.mnt_id
    }

    pub(super) fn parent(&self) -> Option<&Arc<Dir>> {
        self.parent.as_ref()
    }

    pub(super) fn depth(&self) -> u32 {
        self.depth
    }

    /// A descriptor of the directory, opened if need be.
    pub(crate) fn handle(self: &Arc<Self>) -> Result<Arc<OwnedFd>, SourceError> {
        let mut missing = Vec::new();
        let mut dir = self;
        let mut fd = loop {
            if let Some(fd) = dir.opened() {
                break fd;
            }
            missing.push(dir);
            match &dir.parent {
                Some(parent) => dir = parent,
                None => break Arc::new(sys::open_root().map_err(|e| dir.failure(e))?),
            }
        };
        for dir in missing.into_iter().rev() {
            fd = dir.open_from(&fd)?;
        }
        Ok(fd)
    }

    fn open_from(self: &Arc<Self>, parent: &OwnedFd) -> Result<Arc<OwnedFd>, SourceError> {
        let open = || sys::open_dir(parent, &self.name, self.follow);
        let fd = match open() {
            Err(error) if matches!(Errno::from_io_error(&error), Some(Errno::MFILE | Errno::NFILE)) => {
                self.window.clear();
                open()
            }
            other => other,
        };
        let fd = fd.map_err(|error| self.failure(error))?;
        self.keep(fd)
    }

    fn keep(self: &Arc<Self>, fd: OwnedFd) -> Result<Arc<OwnedFd>, SourceError> {
        if sys::identity(&fd).map_err(|error| self.failure(error))? != self.identity {
            return Err(SourceError::Replaced { path: self.path() });
        }
        let fd = Arc::new(fd);
        *self.slot() = Some(Arc::clone(&fd));
        self.window.admit(self);
        Ok(fd)
    }

    /// Opens the parent of a deep directory through `..` while that is still possible, because the way down from the
    /// root would cost one call a level.
    pub(super) fn reopen_parent(&self) {
        let Some(parent) = &self.parent else { return };
        if parent.depth < DEPTH_WORTH_CLIMBING || parent.opened().is_some() {
            return;
        }
        if let Some(fd) = self.opened() {
            // A failure, or another directory there by now, leaves the long way, which reports it.
            let _ = sys::open_dir(&fd, b"..", false).map(|fd| parent.keep(fd));
        }
    }

    fn opened(&self) -> Option<Arc<OwnedFd>> {
        self.slot().clone()
    }

    fn close(&self) {
        let closed = self.slot().take();
        drop(closed);
    }

    fn slot(&self) -> std::sync::MutexGuard<'_, Option<Arc<OwnedFd>>> {
        self.fd.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failure(&self, error: io::Error) -> SourceError {
        SourceError::of_entry("open", self.path(), error)
    }
}

impl Drop for Dir {
    /// Lets go of a long chain of parents one by one; the derived drop would recurse and overflow the stack.
    fn drop(&mut self) {
        let mut parent = self.parent.take();
        while let Some(dir) = parent.and_then(Arc::into_inner) {
            let mut dir = dir;
            parent = dir.parent.take();
        }
    }
}
