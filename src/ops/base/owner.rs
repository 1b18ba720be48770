//! Whom the entries belong to that are made for a backup.

use crate::format::node::{Node, NodeKind};

/// Whom an entry belongs to, by numbers and names.
#[derive(Default)]
pub(super) struct Owner {
    ids: (u32, u32),
    names: (Vec<u8>, Vec<u8>),
}

impl Owner {
    /// That of this entry.
    pub(super) fn of(node: Node) -> Self {
        Self { ids: (node.uid, node.gid), names: (node.user, node.group) }
    }

    /// A new entry of this owner, which nobody else reads.
    pub(super) fn entry(&self, name: &[u8], kind: NodeKind) -> Node {
        let mut node = Node::new(name.to_vec(), kind);
        node.mode = if kind == NodeKind::Directory { 0o700 } else { 0o600 };
        (node.uid, node.gid) = self.ids;
        (node.user, node.group) = self.names.clone();
        node
    }
}
