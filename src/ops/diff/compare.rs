//! How two entries of one name differ.

use crate::format::node::{Node, NodeKind};

/// How an entry differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It was not there before.
    Added,
    /// It is not there any more.
    Removed,
    /// Its content is another: the bytes of a file, the target of a link, the number of a device.
    Content,
    /// Nothing but its metadata differs.
    Metadata,
    /// It is something else now, such as a directory where a file was.
    Kind,
}

/// Metadata that can differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// Permission bits.
    Mode,
    /// Owner, by number or by name.
    Owner,
    /// Group, by number or by name.
    Group,
    /// Last change of content.
    Mtime,
    /// Extended attributes, ACLs among them.
    Xattrs,
    /// Inode flags.
    Flags,
    /// What went wrong when it was saved.
    Problem,
}

/// How an entry that both sides have differs; `None` if it does not. Content of files is compared by its chunks and its holes, so
/// a hole that became zeroes counts as other content. Nobody changes the times of the last read and of birth by intent, and a
/// restore gives names of one file another number: these do not count. What is in a directory is no part of its node.
pub fn change(old: &Node, new: &Node) -> Option<Change> {
    if old.kind != new.kind {
        return Some(Change::Kind);
    }
    let same = match new.kind {
        NodeKind::File => (old.size, &old.content, &old.holes) == (new.size, &new.content, &new.holes),
        NodeKind::Symlink => old.target == new.target,
        NodeKind::CharDevice | NodeKind::BlockDevice => old.rdev == new.rdev,
        NodeKind::Directory | NodeKind::Fifo | NodeKind::Socket | NodeKind::Unknown => true,
    };
    match same {
        false => Some(Change::Content),
        true if fields(old, new).is_empty() => None,
        true => Some(Change::Metadata),
    }
}

/// The metadata in which two entries differ.
pub fn fields(old: &Node, new: &Node) -> Vec<Field> {
    let all = [
        (Field::Mode, old.mode == new.mode),
        (Field::Owner, (old.uid, &old.user) == (new.uid, &new.user)),
        (Field::Group, (old.gid, &old.group) == (new.gid, &new.group)),
        (Field::Mtime, old.mtime == new.mtime),
        (Field::Xattrs, old.xattrs == new.xattrs),
        (Field::Flags, old.flags == new.flags),
        (Field::Problem, old.problem == new.problem),
    ];
    all.into_iter().filter(|(_, same)| !same).map(|(field, _)| field).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::content::{ChunkRow, Content};
    use crate::format::node::{FileTime, Problem};
    use crate::id::ChunkId;

    fn edited(kind: NodeKind, edit: impl FnOnce(&mut Node)) -> (Option<Change>, Vec<Field>) {
        let old = Node::new(b"x".to_vec(), kind);
        let mut new = old.clone();
        edit(&mut new);
        (change(&old, &new), fields(&old, &new))
    }

    #[test]
    fn every_difference_is_told_by_its_name() {
        let row = ChunkRow { id: ChunkId::new([1; 32]), len: 3 };
        let file = |edit: fn(&mut Node)| edited(NodeKind::File, edit);
        assert_eq!(file(|n| n.mode = 0o600), (Some(Change::Metadata), vec![Field::Mode]));
        assert_eq!(file(|n| n.user = b"ann".to_vec()), (Some(Change::Metadata), vec![Field::Owner]));
        assert_eq!(file(|n| n.gid = 7), (Some(Change::Metadata), vec![Field::Group]));
        assert_eq!(file(|n| n.mtime = FileTime { seconds: 0, nanos: 1 }).1, [Field::Mtime]);
        assert_eq!(file(|n| n.xattrs.push((vec![1], vec![]))).1, [Field::Xattrs]);
        assert_eq!(file(|n| n.flags = 16).1, [Field::Flags]);
        assert_eq!(file(|n| n.problem = Some(Problem::Changed)).1, [Field::Problem]);
        assert_eq!(file(|n| n.size = 5), (Some(Change::Content), vec![]));
        assert_eq!(file(|n| n.holes.push((0, 1))).0, Some(Change::Content));
        let content = edited(NodeKind::File, |n| n.content = Content::Inline(vec![row]));
        assert_eq!(content.0, Some(Change::Content));
        assert_eq!(file(|n| n.kind = NodeKind::Fifo).0, Some(Change::Kind));
        assert_eq!(edited(NodeKind::Symlink, |n| n.target = b"y".to_vec()).0, Some(Change::Content));
        assert_eq!(edited(NodeKind::CharDevice, |n| n.rdev = 1).0, Some(Change::Content));
    }

    #[test]
    fn what_nobody_changes_by_intent_does_not_count() {
        for kind in [NodeKind::File, NodeKind::Directory] {
            let same = edited(kind, |n| {
                n.atime = Some(FileTime { seconds: 9, nanos: 0 });
                n.btime = Some(FileTime { seconds: 9, nanos: 0 });
                n.hard_link = Some([1; 16]);
                n.totals.entries = 7;
            });
            assert_eq!(same, (None, vec![]));
        }
    }
}
