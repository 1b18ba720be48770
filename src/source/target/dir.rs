//! A directory of the target, and the bounded set of descriptors that stay open.
//!
//! # Invariants
//! A [`TargetDir`] names one directory for ever: by the (device, inode) seen when it was made or entered. When its
//! descriptor was given up, it is opened again from the nearest ancestor that is still open, one component at a time
//! and without following a link, and each component must be the same directory as before.
//!
//! Descriptors are given up in clock order (a second chance for what was used meanwhile). Every [`LANDMARK`]th level
//! has its own ring, so that leaving a chain of a million directories costs a few walks, not one walk a directory.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::fmt;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use rustix::fs::{AtFlags, Mode, OFlags, Stat, StatxAttributes, StatxFlags};
use rustix::io::Errno;

use super::{Shared, TargetError};

/// Levels between directories that are kept open longer.
const LANDMARK: u32 = 512;

/// How directories are opened: never through a link.
pub(super) const OPEN_DIR: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NONBLOCK)
    .union(OFlags::CLOEXEC);

/// What tells one inode from every other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Identity {
    pub(super) dev: u64,
    pub(super) ino: u64,
}

impl Identity {
    pub(super) fn of(stat: &Stat) -> Self {
        Self { dev: stat.st_dev, ino: stat.st_ino }
    }
}

/// What an entry made in a directory gets without being asked, so that only differences cost a system call.
#[derive(Debug, Clone, Copy)]
pub(super) struct Inherited {
    /// Owner and group, where they are certain.
    pub(super) owner: Option<(u32, u32)>,
    /// Whether a default access control list is passed on.
    pub(super) acl: bool,
}

/// A directory in the target. Cheap to clone; any number may be held, the descriptors behind them are bounded.
#[derive(Clone)]
pub struct TargetDir(Arc<DirNode>);

struct DirNode {
    shared: Arc<Shared>,
    parent: Option<TargetDir>,
    /// One component; the path as given for the root.
    name: Box<[u8]>,
    identity: Identity,
    inherited: Inherited,
    /// Made by this restore, not found.
    fresh: bool,
    depth: u32,
    open: Mutex<Option<Arc<OwnedFd>>>,
    used: AtomicBool,
}

/// What [`TargetDir::child`] and [`TargetDir::root`] are told about the directory they stand for.
pub(super) struct Found {
    pub(super) fd: OwnedFd,
    pub(super) identity: Identity,
    pub(super) inherited: Inherited,
    pub(super) fresh: bool,
}

impl TargetDir {
    /// The target itself. Its descriptor is in no ring, so it stays open.
    pub(super) fn root(shared: Arc<Shared>, path: &[u8], found: Found) -> Self {
        Self::new(shared, None, path, found).0
    }

    pub(super) fn child(&self, name: &[u8], found: Found) -> Self {
        let (dir, fd) = Self::new(Arc::clone(&self.0.shared), Some(self.clone()), name, found);
        dir.0.shared.descriptors.register(&dir.0);
        drop(fd);
        dir
    }

    fn new(shared: Arc<Shared>, parent: Option<Self>, name: &[u8], found: Found) -> (Self, Arc<OwnedFd>) {
        let fd = Arc::new(found.fd);
        let node = DirNode {
            shared,
            depth: parent.as_ref().map_or(0, |parent| parent.0.depth.saturating_add(1)),
            parent,
            name: name.into(),
            identity: found.identity,
            inherited: found.inherited,
            fresh: found.fresh,
            open: Mutex::new(Some(Arc::clone(&fd))),
            used: AtomicBool::new(false),
        };
        (Self(Arc::new(node)), fd)
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.0.shared
    }

    pub(super) fn inherited(&self) -> Inherited {
        self.0.inherited
    }

    pub(super) fn identity(&self) -> Identity {
        self.0.identity
    }

    /// Whether it was made by this restore.
    pub fn is_fresh(&self) -> bool {
        self.0.fresh
    }

    /// What tells it from every other: device and inode.
    pub fn inode(&self) -> (u64, u64) {
        (self.0.identity.dev, self.0.identity.ino)
    }

    /// Whether something is mounted here, be it a part of the file system around it. Never so of the target itself.
    pub fn is_mount(&self) -> Result<bool, TargetError> {
        let Some(parent) = &self.0.parent else { return Ok(false) };
        if parent.0.identity.dev != self.0.identity.dev {
            return Ok(true);
        }
        // Before Linux 5.8 nobody tells of a bind mount, nor does a system without this call.
        let found = rustix::fs::statx(&*self.fd()?, c"", AtFlags::EMPTY_PATH, StatxFlags::empty());
        Ok(found.is_ok_and(|found| found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT)))
    }

    /// Where the directory is, for messages. Never used to open anything.
    pub fn path(&self) -> PathBuf {
        let mut names = Vec::new();
        let mut dir = Some(self);
        while let Some(TargetDir(node)) = dir {
            names.push(OsStr::from_bytes(&node.name));
            dir = node.parent.as_ref();
        }
        names.into_iter().rev().collect()
    }

    /// The failure of an entry in this directory that is another one by now.
    pub fn changed(&self, name: &[u8]) -> TargetError {
        TargetError::Changed { path: self.path_of(name) }
    }

    /// The failure of an entry in whose place something stands that is to stay.
    pub fn exists(&self, name: &[u8]) -> TargetError {
        TargetError::Exists { path: self.path_of(name) }
    }

    pub(super) fn path_of(&self, name: &[u8]) -> PathBuf {
        self.path().join(OsStr::from_bytes(name))
    }

    /// The open directory, opened again if its descriptor was given up meanwhile.
    pub(super) fn fd(&self) -> Result<Arc<OwnedFd>, TargetError> {
        if let Some(fd) = self.0.open_now() {
            return Ok(fd);
        }
        let mut closed = vec![self];
        let mut dir = self;
        let mut fd = loop {
            // The root is always open, so the climb ends at the latest there.
            let Some(parent) = &dir.0.parent else { return Err(TargetError::Changed { path: self.path() }) };
            if let Some(fd) = parent.0.open_now() {
                break fd;
            }
            closed.push(parent);
            dir = parent;
        };
        for dir in closed.into_iter().rev() {
            fd = dir.reopen(&fd)?;
        }
        Ok(fd)
    }

    /// Fails if something else has the directory's name by now. The target itself is asked by its path.
    pub(super) fn check_place(&self) -> Result<(), TargetError> {
        let Some(parent) = &self.0.parent else { return Ok(()) };
        let stands = super::entry::identity_of(parent.fd()?.as_fd(), &self.0.name);
        if stands == Some(self.0.identity) { Ok(()) } else { Err(TargetError::Changed { path: self.path() }) }
    }

    fn reopen(&self, parent: &OwnedFd) -> Result<Arc<OwnedFd>, TargetError> {
        let opened = rustix::fs::openat(parent, &*self.0.name, OPEN_DIR, Mode::empty());
        let fd = opened.map_err(|error| match error {
            Errno::LOOP | Errno::NOTDIR | Errno::NOENT => TargetError::Changed { path: self.path() },
            other => TargetError::io("open the directory", self.path(), other),
        })?;
        let stat = rustix::fs::fstat(&fd).map_err(|error| TargetError::io("look at", self.path(), error))?;
        if Identity::of(&stat) != self.0.identity {
            return Err(TargetError::Changed { path: self.path() });
        }
        let fd = Arc::new(fd);
        {
            let mut slot = lock(&self.0.open);
            if let Some(other) = &*slot {
                return Ok(Arc::clone(other));
            }
            *slot = Some(Arc::clone(&fd));
        }
        self.0.shared.descriptors.register(&self.0);
        Ok(fd)
    }
}

impl fmt::Debug for TargetDir {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TargetDir")
            .field("name", &self.0.name.escape_ascii().to_string())
            .finish_non_exhaustive()
    }
}

impl DirNode {
    fn open_now(&self) -> Option<Arc<OwnedFd>> {
        let fd = lock(&self.open).clone();
        if fd.is_some() && !self.used.load(Ordering::Relaxed) {
            self.used.store(true, Ordering::Relaxed);
        }
        fd
    }
}

/// Chains may be a million long: parents are dropped in a loop, not by recursion.
impl Drop for DirNode {
    fn drop(&mut self) {
        let mut next = self.parent.take();
        while let Some(TargetDir(node)) = next {
            next = Arc::into_inner(node).and_then(|mut node| node.parent.take());
        }
    }
}

/// The descriptors that may be given up.
#[derive(Debug)]
pub(super) struct Descriptors {
    recent: Ring,
    landmarks: Ring,
}

#[derive(Debug)]
struct Ring {
    bound: usize,
    /// Each open directory stands here at least once, so the ring's length bounds the open descriptors.
    queue: Mutex<VecDeque<Weak<DirNode>>>,
}

impl Descriptors {
    /// Keeps at most `bound` directories open, and one for each thread at work.
    pub(super) fn new(bound: usize) -> Self {
        let landmarks = bound.div_ceil(4);
        let ring = |bound: usize| Ring { bound: bound.max(1), queue: Mutex::default() };
        Self { recent: ring(bound - landmarks), landmarks: ring(landmarks) }
    }

    fn register(&self, node: &Arc<DirNode>) {
        let ring = if node.depth.is_multiple_of(LANDMARK) { &self.landmarks } else { &self.recent };
        let given_up = ring.push(node);
        // Closed, and a last handle dropped, outside the lock.
        drop(given_up);
    }
}

impl Ring {
    fn push(&self, node: &Arc<DirNode>) -> Option<(Arc<DirNode>, Option<Arc<OwnedFd>>)> {
        let mut queue = lock(&self.queue);
        queue.push_back(Arc::downgrade(node));
        while queue.len() > self.bound {
            // A handle that is gone has closed its descriptor already.
            let oldest = queue.pop_front()?.upgrade()?;
            if oldest.used.swap(false, Ordering::Relaxed) {
                queue.push_back(Arc::downgrade(&oldest));
                continue;
            }
            let fd = lock(&oldest.open).take();
            return Some((oldest, fd));
        }
        None
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Looks at an open directory: who it is, and what it passes on.
pub(super) fn look(fd: OwnedFd, fresh: bool, creator: (u32, u32)) -> rustix::io::Result<(Found, Stat)> {
    let stat = rustix::fs::fstat(fd.as_fd())?;
    let (uid, gid) = creator;
    let set_gid = stat.st_mode & 0o2000 != 0;
    // A new directory shows what the next new entry gets (file systems that map owners, groups taken from the parent).
    // With a found one that is certain only where both rules for groups agree.
    let owner = match (stat.st_uid == uid, stat.st_gid == gid) {
        (true, true) => Some((uid, gid)),
        (true, false) if fresh || set_gid => Some((uid, stat.st_gid)),
        _ => None,
    };
    let acl = !fresh && rustix::fs::fgetxattr(&fd, c"system.posix_acl_default", &mut [0; 0][..]).is_ok();
    let inherited = Inherited { owner, acl };
    Ok((Found { identity: Identity::of(&stat), fd, inherited, fresh }, stat))
}
