//! From an entry of restic to a node.

use crate::crypto::SecretKey;
use crate::format::node::{Node, NodeKind};
use crate::restic::{Node as Foreign, NodeType};

/// The node of an entry, without content, entries and size.
pub(super) fn convert(entry: &Foreign, hard_links: &SecretKey) -> Node {
    let kind = match entry.kind {
        NodeType::File => NodeKind::File,
        NodeType::Dir => NodeKind::Directory,
        NodeType::Symlink => NodeKind::Symlink,
        NodeType::Dev => NodeKind::BlockDevice,
        NodeType::CharDev => NodeKind::CharDevice,
        NodeType::Fifo => NodeKind::Fifo,
        NodeType::Socket => NodeKind::Socket,
        NodeType::Unknown(_) => NodeKind::Unknown,
    };
    let mut node = Node::new(entry.name.clone(), kind);
    node.mode = entry.mode;
    (node.uid, node.gid) = (entry.uid, entry.gid);
    (node.user, node.group) = (entry.user.clone().into_bytes(), entry.group.clone().into_bytes());
    (node.mtime, node.atime) = (entry.mtime, entry.atime);
    node.xattrs.clone_from(&entry.xattrs);
    match kind {
        NodeKind::Symlink => node.target.clone_from(&entry.target),
        NodeKind::CharDevice | NodeKind::BlockDevice => node.rdev = entry.device,
        _ => {}
    }
    node.hard_link = hard_link(entry, hard_links);
    node
}

/// The number that all names of one file have in common.
fn hard_link(entry: &Foreign, key: &SecretKey) -> Option<[u8; 16]> {
    let (device, inode) = entry.inode;
    if entry.links < 2 || inode == 0 || entry.kind == NodeType::Dir {
        return None;
    }
    let mut place = [0; 16];
    place[..8].copy_from_slice(&device.to_le_bytes());
    place[8..].copy_from_slice(&inode.to_le_bytes());
    blake3::keyed_hash(key.expose(), &place).as_bytes().first_chunk().copied()
}
