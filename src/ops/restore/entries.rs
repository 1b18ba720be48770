//! What is being made: directories and files on their way, shared by the threads that make them.
//!
//! # Invariants
//! A directory is made when something in it is, and finished when everything in it is done: each child holds it, and
//! so does the walk while it is inside. A file is made when its first byte is there, and finished or discarded when
//! the last of its chunks is done. A file that is dropped before that is discarded, whatever the reason.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};

use super::layout::Layout;
use super::output::Output;
use crate::format::content::ChunkRow;
use crate::format::node::{FileTime, Node};
use crate::source::target::{Metadata, Stands, TargetDir};

/// What an entry is to look like. As small as it can be: a window holds tens of thousands.
#[derive(Debug)]
pub(super) struct Meta {
    mode: u32,
    uid: u32,
    gid: u32,
    flags: u32,
    mtime: FileTime,
    atime: Option<FileTime>,
    names: Arc<OwnerNames>,
    xattrs: Box<[(Vec<u8>, Vec<u8>)]>,
}

/// Names of owner and group, which most neighbours share.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct OwnerNames {
    user: Vec<u8>,
    group: Vec<u8>,
}

impl Meta {
    /// Takes what a node says; `names` remembers the owner of the node before.
    pub(super) fn take(node: &mut Node, names: &mut Arc<OwnerNames>) -> Self {
        if names.user != node.user || names.group != node.group {
            *names = Arc::new(OwnerNames {
                user: std::mem::take(&mut node.user),
                group: std::mem::take(&mut node.group),
            });
        }
        Self {
            mode: node.mode,
            uid: node.uid,
            gid: node.gid,
            flags: node.flags,
            mtime: node.mtime,
            atime: node.atime,
            names: Arc::clone(names),
            xattrs: std::mem::take(&mut node.xattrs).into(),
        }
    }

    /// When the content last changed.
    pub(super) fn mtime(&self) -> (i64, u32) {
        (self.mtime.seconds, self.mtime.nanos)
    }

    /// As the target takes it.
    pub(super) fn as_metadata(&self) -> Metadata<'_> {
        let named = |name: &'_ Vec<u8>| (!name.is_empty()).then_some(());
        Metadata {
            mode: self.mode,
            uid: self.uid,
            gid: self.gid,
            user: named(&self.names.user).map(|()| self.names.user.as_slice()),
            group: named(&self.names.group).map(|()| self.names.group.as_slice()),
            mtime: (self.mtime.seconds, self.mtime.nanos),
            atime: self.atime.map(|time| (time.seconds, time.nanos)),
            xattrs: self.xattrs.iter().map(|(name, value)| (name.as_slice(), value.as_slice())).collect(),
            flags: self.flags,
        }
    }
}

/// A directory of the snapshot.
#[derive(Debug)]
pub(super) struct Dir {
    pub(super) parent: Option<Arc<Dir>>,
    /// One component; for the root of the restore its stored path, without a slash at the end.
    pub(super) name: Box<[u8]>,
    /// What to set at the end; nothing if it is not the snapshot's.
    pub(super) meta: Option<Meta>,
    /// It is restored only if something in it is.
    pub(super) only_leads: bool,
    /// Its component is left out of paths in the target: what is in it goes into the directory above.
    pub(super) stripped: bool,
    /// The directory that stands in the target, where that is looked at before anything is made.
    pub(super) stands: OnceLock<Option<TargetDir>>,
    /// `None` inside: it could not be made.
    pub(super) made: OnceLock<Option<TargetDir>>,
    /// What is not done yet, the walk included.
    pub(super) pending: AtomicUsize,
}

impl Dir {
    /// A directory the walk is about to enter.
    pub(super) fn new(
        parent: Option<Arc<Self>>,
        name: Vec<u8>,
        (meta, only_leads): (Option<Meta>, bool),
    ) -> Arc<Self> {
        Arc::new(Self::plain(parent, name, (meta, only_leads)))
    }

    /// A directory the walk is about to enter, whose component is left out.
    pub(super) fn stripped(parent: Arc<Self>, name: Vec<u8>) -> Arc<Self> {
        let mut dir = Self::plain(Some(parent), name, (None, true));
        dir.stripped = true;
        Arc::new(dir)
    }

    fn plain(parent: Option<Arc<Self>>, name: Vec<u8>, (meta, only_leads): (Option<Meta>, bool)) -> Self {
        if let Some(parent) = &parent {
            parent.hold();
        }
        Self {
            parent,
            name: name.into(),
            meta,
            only_leads,
            stripped: false,
            stands: OnceLock::new(),
            made: OnceLock::new(),
            pending: AtomicUsize::new(1),
        }
    }

    /// One more thing to wait for.
    pub(super) fn hold(&self) {
        self.pending.fetch_add(1, Ordering::Relaxed);
    }

    /// The stored path of an entry in this directory, or of the directory itself if `name` is empty.
    pub(super) fn path_of(&self, name: &[u8]) -> Vec<u8> {
        let mut names = vec![name];
        let mut dir = Some(self);
        while let Some(at) = dir {
            names.push(&at.name);
            dir = at.parent.as_deref();
        }
        let mut path = names.pop().unwrap_or_default().to_vec();
        for name in names.into_iter().rev().filter(|name| !name.is_empty()) {
            path.push(b'/');
            path.extend_from_slice(name);
        }
        if path.is_empty() { b"/".to_vec() } else { path }
    }
}

/// Chains may be as long as a tree is deep: parents are dropped in a loop, not by recursion.
impl Drop for Dir {
    fn drop(&mut self) {
        let mut next = self.parent.take();
        while let Some(dir) = next {
            next = Arc::into_inner(dir).and_then(|mut dir| dir.parent.take());
        }
    }
}

/// How a file stands. The highest of several wins.
pub(super) const WHOLE: u8 = 0;
/// Content is lost: the file is left out.
pub(super) const DAMAGED: u8 = 1;
/// What its node says contradicts itself: the file is left out.
pub(super) const MISFIT: u8 = 2;
/// The target refused, and that was reported.
pub(super) const FAILED: u8 = 3;

/// What is done about something that stands in a file's place, as it was found.
#[derive(Debug, Clone, Copy)]
pub(super) enum Judged {
    /// Nothing of it can be kept, or nothing stands there.
    Fresh,
    /// It stays as it is, and the file is not restored.
    Stays,
    /// Size and time say that its content is right.
    Trusted(Stands),
    /// It is compared chunk by chunk.
    Compared(Stands),
}

/// A regular file on its way.
#[derive(Debug)]
pub(super) struct File {
    pub(super) dir: Arc<Dir>,
    pub(super) name: Box<[u8]>,
    pub(super) meta: Meta,
    pub(super) size: u64,
    pub(super) layout: Layout,
    /// It is the one that others with this number are linked to.
    pub(super) link: Option<[u8; 16]>,
    pub(super) handle: RwLock<Option<Output>>,
    /// Chunks that are not done, and one for the walk while it is not through with the file.
    pub(super) left: AtomicU32,
    pub(super) state: AtomicU8,
    /// What stands in its place, if somebody looked.
    pub(super) judged: OnceLock<Judged>,
    /// Its chunks in order, if it is to be read back.
    pub(super) rows: Option<Mutex<Vec<ChunkRow>>>,
}

impl File {
    /// A file of nothing.
    #[cfg(test)]
    pub(super) fn for_test() -> Arc<Self> {
        use crate::format::node::NodeKind;
        let dir = Dir::new(None, Vec::new(), (None, false));
        let mut node = Node::new(b"f".to_vec(), NodeKind::File);
        let meta = Meta::take(&mut node, &mut Arc::default());
        Arc::new(Self::new(dir, (b"f".to_vec(), meta), (0, Layout::default()), (None, false)))
    }

    /// A file that nothing is known of yet, and the walk's hold on it. Its chunks are kept if it is to be read back.
    pub(super) fn new(
        dir: Arc<Dir>,
        (name, meta): (Vec<u8>, Meta),
        (size, layout): (u64, Layout),
        (link, reads_back): (Option<[u8; 16]>, bool),
    ) -> Self {
        Self {
            dir,
            name: name.into_boxed_slice(),
            meta,
            size,
            layout,
            link,
            handle: RwLock::default(),
            left: 1.into(),
            state: WHOLE.into(),
            judged: OnceLock::new(),
            rows: reads_back.then(Mutex::default),
        }
    }

    /// Where it belongs, for messages.
    pub(super) fn path(&self) -> Vec<u8> {
        self.dir.path_of(&self.name)
    }

    /// Notes that it cannot be completed.
    pub(super) fn give_up(&self, state: u8) {
        self.state.fetch_max(state, Ordering::Relaxed);
    }

    /// What is kept of the file that stands in its place, which was this one.
    pub(super) fn kept(&self) -> Option<&Stands> {
        match self.judged.get() {
            Some(Judged::Trusted(stands) | Judged::Compared(stands)) => Some(stands),
            _ => None,
        }
    }

    /// Whether nothing of its content is to be fetched, whatever it is.
    pub(super) fn is_settled(&self) -> bool {
        matches!(self.judged.get(), Some(Judged::Stays | Judged::Trusted(_)))
    }

    /// Whether chunks are still written to it: one that stood there gets all that can be had, though it cannot be completed.
    pub(super) fn takes_content(&self) -> bool {
        let compared = || matches!(self.judged.get(), Some(Judged::Compared(_)));
        match self.state.load(Ordering::Relaxed) {
            WHOLE => true,
            DAMAGED => compared(),
            _ => false,
        }
    }

    /// Whether it can still be completed.
    pub(super) fn is_whole(&self) -> bool {
        self.state.load(Ordering::Relaxed) == WHOLE
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let handle = self.handle.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = handle.take() {
            // The run ends early; what cannot be removed now stands as an unfinished file.
            let _ = file.abandon();
        }
    }
}

/// Raw bytes as a path.
pub(crate) fn as_path(bytes: Vec<u8>) -> PathBuf {
    PathBuf::from(OsString::from_vec(bytes))
}
