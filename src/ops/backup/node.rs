//! From what the file system says to a node.

use std::sync::Arc;

use crate::crypto::SecretKey;
use crate::format::node::{FileTime, Node, NodeKind, Problem};
use crate::source::meta::{Owners, Xattrs};
use crate::source::walk::Entry;
use crate::source::{Kind, SourceError, Stat, Time};

/// Inode flags that `chattr` can set again; the others describe how the file system stores the file.
const SETTABLE_FLAGS: u32 = 0x0083_c0ff;

/// A time as it is stored.
pub(in crate::ops) fn file_time(time: Time) -> FileTime {
    // A file system that invents nanoseconds must not make an entry that no reader accepts.
    FileTime { seconds: time.secs, nanos: time.nanos.min(999_999_999) }
}

/// What kind of node an entry is.
pub(in crate::ops) fn node_kind(kind: Kind) -> NodeKind {
    match kind {
        Kind::File => NodeKind::File,
        Kind::Dir => NodeKind::Directory,
        Kind::Symlink => NodeKind::Symlink,
        Kind::Fifo => NodeKind::Fifo,
        Kind::Socket => NodeKind::Socket,
        Kind::CharDevice => NodeKind::CharDevice,
        Kind::BlockDevice => NodeKind::BlockDevice,
        Kind::Unknown => NodeKind::Unknown,
    }
}

/// Makes nodes. One a thread: it remembers names of owners.
pub(in crate::ops) struct NodeMaker {
    owners: Owners,
    hard_link_key: Arc<SecretKey>,
    /// Leaves times out.
    timeless: bool,
}

impl NodeMaker {
    pub(in crate::ops) fn new(hard_link_key: Arc<SecretKey>, timeless: bool) -> Self {
        Self { owners: Owners::new(), hard_link_key, timeless }
    }

    /// A node with everything that one `statx` tells. `mount` is stable from run to run, unlike a device number.
    pub(in crate::ops) fn make(&mut self, name: &[u8], stat: &Stat, mount: u32) -> Node {
        let kind = node_kind(stat.kind());
        let name = if name.is_empty() { b"/".to_vec() } else { name.to_vec() };
        let mut node = Node::new(name, kind);
        node.mode = stat.mode & 0o7777;
        (node.uid, node.gid) = (stat.uid, stat.gid);
        node.user = self.owners.user(stat.uid).map_or_else(Vec::new, |name| name.to_vec());
        node.group = self.owners.group(stat.gid).map_or_else(Vec::new, |name| name.to_vec());
        if !self.timeless {
            node.mtime = file_time(stat.mtime);
            node.atime = Some(file_time(stat.atime));
            node.btime = stat.btime.map(file_time);
        }
        node.flags = stat.attributes as u32 & 0x74;
        match kind {
            NodeKind::File => node.size = stat.size,
            NodeKind::CharDevice | NodeKind::BlockDevice => node.rdev = stat.rdev,
            _ => {}
        }
        node.hard_link = self.hard_link(stat, mount);
        node
    }

    /// The number that all names of one file have in common; none if there is but one name.
    pub(super) fn hard_link(&self, stat: &Stat, mount: u32) -> Option<[u8; 16]> {
        if stat.is_dir() || stat.nlink < 2 {
            return None;
        }
        let mut place = [0; 12];
        place[..4].copy_from_slice(&mount.to_le_bytes());
        place[4..].copy_from_slice(&stat.ino.to_le_bytes());
        blake3::keyed_hash(self.hard_link_key.expose(), &place).as_bytes().first_chunk().copied()
    }

    /// A node for anything that is neither a file nor a directory. What could not be read of it is returned beside it.
    pub(in crate::ops) fn make_special(&mut self, entry: &Entry, mount: u32) -> (Node, Vec<SourceError>) {
        let mut node = self.make(entry.name(), entry.stat(), mount);
        let mut failures = Vec::new();
        if node.kind == NodeKind::Symlink {
            match entry.link_target() {
                Ok(target) => node.target = target,
                Err(error) => {
                    node.problem = Some(Problem::Unreadable);
                    failures.push(error);
                }
            }
        }
        failures.extend(take_xattrs(&mut node, entry.xattrs()));
        (node, failures)
    }

    /// A node for a directory, without its entries.
    pub(in crate::ops) fn make_directory(&mut self, entry: &Entry, mount: u32) -> (Node, Vec<SourceError>) {
        let mut node = self.make(entry.name(), entry.stat(), mount);
        let mut failures = Vec::new();
        // A directory that cannot be opened is reported by the walk, which tried to list it.
        if let Ok(flags) = entry.dir_flags() {
            take_flags(&mut node, flags);
        }
        failures.extend(take_xattrs(&mut node, entry.xattrs()));
        (node, failures)
    }
}

/// Takes the flags that can be set again.
pub(super) fn take_flags(node: &mut Node, flags: u32) {
    node.flags = flags & SETTABLE_FLAGS;
}

/// Takes the attributes; returns why there are not more.
pub(super) fn take_xattrs(node: &mut Node, xattrs: Xattrs) -> Option<SourceError> {
    node.xattrs = xattrs.list.into_iter().map(|x| (x.name.into_vec(), x.value.into_vec())).collect();
    xattrs.error
}
