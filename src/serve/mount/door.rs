//! The kernel's side of the mount: threads that take its questions and hand them over the bridge.
//!
//! # Must not
//! Wait for anything but room on the bridge. What needs no waiting is answered here.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::time::Duration;

use fuser::{
    Errno, FileAttr, FileHandle, Filesystem, FopenFlags, Generation, INodeNo, InitFlags, KernelConfig,
    LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEntry, ReplyLseek,
    ReplyOpen, ReplyStatfs, ReplyXattr, Request as From,
};
use tokio::sync::mpsc::Sender;

use super::bare::Bare;
use super::names::NAME_MAX;

/// Most bytes that are read at once; each answer that is being made up needs as much memory.
const READ_MAX: u32 = 128 << 10;
/// Reads that the kernel has under way on its own.
const BACKGROUND: u16 = 32;

/// What the kernel asks. A question that is dropped is answered with an error.
pub(super) enum Question {
    Lookup { parent: u64, name: Vec<u8>, reply: ReplyEntry },
    Attr { ino: u64, reply: ReplyAttr },
    Target { ino: u64, reply: ReplyData },
    Open { ino: u64, reply: ReplyOpen },
    OpenDir { ino: u64, reply: ReplyOpen },
    Read { ino: u64, offset: u64, len: u32, reply: ReplyData },
    List { ino: u64, behind: u64, reply: Listing },
    Xattr { ino: u64, name: Vec<u8>, room: u32, reply: ReplyXattr },
    Xattrs { ino: u64, room: u32, reply: ReplyXattr },
    Seek { ino: u64, offset: i64, whence: i32, reply: ReplyLseek },
}

/// A directory's entries on their way, with or without attributes.
pub(super) enum Listing {
    Names(ReplyDirectory),
    Plus(ReplyDirectoryPlus),
}

impl Listing {
    /// Adds an entry; false if there is no more room.
    pub(super) fn add(&mut self, cookie: u64, name: &[u8], attr: &FileAttr, valid: Duration) -> bool {
        let name = OsStr::from_bytes(name);
        !match self {
            Self::Names(reply) => reply.add(attr.ino, cookie, attr.kind, name),
            Self::Plus(reply) => reply.add(attr.ino, cookie, name, &valid, attr, Generation(0)),
        }
    }

    /// Sends what was added.
    pub(super) fn done(self) {
        match self {
            Self::Names(reply) => reply.ok(),
            Self::Plus(reply) => reply.ok(),
        }
    }

    /// Sends an error instead.
    pub(super) fn error(self, errno: Errno) {
        match self {
            Self::Names(reply) => reply.error(errno),
            Self::Plus(reply) => reply.error(errno),
        }
    }
}

/// What the threads have.
pub(super) struct Door {
    bridge: Sender<Question>,
    bare: Arc<Bare>,
    /// The kernel judges by modes and access control lists who may read.
    checked: bool,
}

impl Door {
    pub(super) fn new(bridge: Sender<Question>, bare: Arc<Bare>, checked: bool) -> Self {
        Self { bridge, bare, checked }
    }

    /// Hands a question over. When nobody listens any more, it is dropped, which is an answer.
    fn ask(&self, question: Question) {
        let _ = self.bridge.blocking_send(question);
    }
}

impl Filesystem for Door {
    fn init(&mut self, _: &From, config: &mut KernelConfig) -> io::Result<()> {
        // What this kernel does not know is done without.
        let _ = config.set_max_write(READ_MAX);
        let _ = config.set_max_background(BACKGROUND);
        for wanted in [
            InitFlags::FUSE_DO_READDIRPLUS,
            InitFlags::FUSE_READDIRPLUS_AUTO,
            InitFlags::FUSE_PARALLEL_DIROPS,
        ] {
            let _ = config.add_capabilities(wanted);
        }
        if self.checked {
            let _ = config.add_capabilities(InitFlags::FUSE_POSIX_ACL);
        }
        Ok(())
    }

    fn lookup(&self, _: &From, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        self.ask(Question::Lookup { parent: parent.0, name: name.as_bytes().to_vec(), reply });
    }

    fn getattr(&self, _: &From, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        self.ask(Question::Attr { ino: ino.0, reply });
    }

    fn readlink(&self, _: &From, ino: INodeNo, reply: ReplyData) {
        self.ask(Question::Target { ino: ino.0, reply });
    }

    fn open(&self, _: &From, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        self.ask(Question::Open { ino: ino.0, reply });
    }

    fn read(
        &self,
        _: &From,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        self.ask(Question::Read { ino: ino.0, offset, len: size, reply });
    }

    fn opendir(&self, _: &From, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        self.ask(Question::OpenDir { ino: ino.0, reply });
    }

    fn readdir(&self, _: &From, ino: INodeNo, _: FileHandle, offset: u64, reply: ReplyDirectory) {
        self.ask(Question::List { ino: ino.0, behind: offset, reply: Listing::Names(reply) });
    }

    fn readdirplus(&self, _: &From, ino: INodeNo, _: FileHandle, offset: u64, reply: ReplyDirectoryPlus) {
        self.ask(Question::List { ino: ino.0, behind: offset, reply: Listing::Plus(reply) });
    }

    fn statfs(&self, _: &From, _: INodeNo, reply: ReplyStatfs) {
        reply.statfs(0, 0, 0, 0, 0, 4096, NAME_MAX as u32, 4096);
    }

    fn getxattr(&self, _: &From, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        if self.bare.is_known(ino.0) {
            return reply.error(Errno::ENODATA);
        }
        self.ask(Question::Xattr { ino: ino.0, name: name.as_bytes().to_vec(), room: size, reply });
    }

    fn listxattr(&self, _: &From, ino: INodeNo, size: u32, reply: ReplyXattr) {
        if self.bare.is_known(ino.0) {
            return reply_value(reply, size, &[]);
        }
        self.ask(Question::Xattrs { ino: ino.0, room: size, reply });
    }

    fn lseek(&self, _: &From, ino: INodeNo, _: FileHandle, offset: i64, whence: i32, reply: ReplyLseek) {
        self.ask(Question::Seek { ino: ino.0, offset, whence, reply });
    }
}

/// Answers with a value, or how long it is if there is no room for any, as the kernel asks to know that first.
pub(super) fn reply_value(reply: ReplyXattr, room: u32, value: &[u8]) {
    match (room as usize, u32::try_from(value.len())) {
        (0, Ok(len)) => reply.size(len),
        (room, _) if room < value.len() => reply.error(Errno::ERANGE),
        _ => reply.data(value),
    }
}

/// Answers that something is open; what the kernel knows of its content stays right.
pub(super) fn reply_open(reply: ReplyOpen) {
    reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_NOFLUSH);
}

/// As [`reply_open`], of a directory.
pub(super) fn reply_open_dir(reply: ReplyOpen) {
    reply.opened(FileHandle(0), FopenFlags::empty());
}

/// Answers with an entry.
pub(super) fn reply_entry(reply: ReplyEntry, (attr, valid): &(FileAttr, Duration)) {
    reply.entry(valid, attr, Generation(0));
}
