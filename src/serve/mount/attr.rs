//! A node as the kernel wants it. Pure.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{FileAttr, FileType, INodeNo};

use super::names::is_plain;
use crate::format::node::{FileTime, Node, NodeKind};

/// Bytes of names of attributes that the kernel takes for one entry.
const XATTR_LIST_MAX: usize = 1 << 16;
/// The longest name of an attribute.
const XATTR_NAME_MAX: usize = 255;
const BLOCK: u64 = 512;

/// Why an entry is not shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unfit {
    #[error("its name is not one plain component")]
    Name,
    #[error("its kind could not be learnt when it was backed up")]
    Kind,
    #[error("its device number is none of this system")]
    Device,
    #[error("its directory has too many entries in one page")]
    Crowded,
    #[error("it could not be read when it was backed up")]
    Unsaved,
    #[error("its size does not agree with its content")]
    Size,
}

/// The attributes of an entry. `ino` is its number; how many names a file has is not stored, so that one with several shows
/// two.
pub(super) fn attr(node: &Node, ino: u64) -> Result<FileAttr, Unfit> {
    if !is_plain(&node.name) {
        return Err(Unfit::Name);
    }
    of_node(node, ino)
}

/// As [`attr`], whatever its name.
pub(super) fn of_node(node: &Node, ino: u64) -> Result<FileAttr, Unfit> {
    let kind = match node.kind {
        NodeKind::File => FileType::RegularFile,
        NodeKind::Directory => FileType::Directory,
        NodeKind::Symlink => FileType::Symlink,
        NodeKind::Fifo => FileType::NamedPipe,
        NodeKind::Socket => FileType::Socket,
        NodeKind::CharDevice => FileType::CharDevice,
        NodeKind::BlockDevice => FileType::BlockDevice,
        NodeKind::Unknown => return Err(Unfit::Kind),
    };
    let rdev = match node.kind {
        NodeKind::CharDevice | NodeKind::BlockDevice => {
            u32::try_from(node.rdev).map_err(|_| Unfit::Device)?
        }
        _ => 0,
    };
    let (size, taken) = match node.kind {
        NodeKind::File => {
            let holes = node.holes.iter().fold(0_u64, |sum, (_, len)| sum.saturating_add(*len));
            (node.size, node.size.saturating_sub(holes))
        }
        NodeKind::Symlink => (node.target.len() as u64, 0),
        _ => (0, 0),
    };
    let mtime = time(node.mtime);
    Ok(FileAttr {
        ino: INodeNo(ino),
        // The kernel counts with signed numbers.
        size: size.min(i64::MAX as u64),
        blocks: taken.div_ceil(BLOCK),
        atime: node.atime.map_or(mtime, time),
        mtime,
        ctime: mtime,
        crtime: mtime,
        kind,
        perm: (node.mode & 0o7777) as u16,
        nlink: if node.kind == NodeKind::Directory || node.hard_link.is_some() { 2 } else { 1 },
        uid: node.uid,
        gid: node.gid,
        rdev,
        blksize: 128 << 10,
        flags: 0,
    })
}

/// A directory, or a link with a target of this length, that no snapshot holds.
pub(super) fn virtual_attr(
    ino: u64,
    kind: FileType,
    (nanos, len): (i64, usize),
    (uid, gid): (u32, u32),
) -> FileAttr {
    let (seconds, nanos) = (nanos.div_euclid(1_000_000_000), nanos.rem_euclid(1_000_000_000));
    let mtime = time(FileTime { seconds, nanos: nanos as u32 });
    FileAttr {
        ino: INodeNo(ino),
        size: len as u64,
        blocks: 0,
        atime: mtime,
        mtime,
        ctime: mtime,
        crtime: mtime,
        kind,
        perm: if kind == FileType::Symlink { 0o777 } else { 0o555 },
        nlink: if kind == FileType::Symlink { 1 } else { 2 },
        uid,
        gid,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

fn time(time: FileTime) -> SystemTime {
    let seconds = Duration::from_secs(time.seconds.unsigned_abs());
    let whole =
        if time.seconds < 0 { UNIX_EPOCH.checked_sub(seconds) } else { UNIX_EPOCH.checked_add(seconds) };
    let whole = whole.and_then(|whole| whole.checked_add(Duration::from_nanos(time.nanos.into())));
    whole.unwrap_or(UNIX_EPOCH)
}

/// The value of an extended attribute.
pub(super) fn xattr<'n>(node: &'n Node, name: &[u8]) -> Option<&'n [u8]> {
    node.xattrs.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_slice())
}

/// The names of all extended attributes that can have one here, each with a zero behind it.
pub(super) fn xattr_names(node: &Node) -> Vec<u8> {
    let mut list = Vec::new();
    for (name, _) in &node.xattrs {
        let fits = !name.is_empty() && name.len() <= XATTR_NAME_MAX && !name.contains(&0);
        if fits && list.len() + name.len() < XATTR_LIST_MAX {
            list.extend_from_slice(name);
            list.push(0);
        }
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_can_be_shown() {
        for (seconds, nanos) in [(0, 0), (-1, 999_999_999), (-14_182_940, 123_456_789), (7_258_118_400, 1)] {
            let shown = time(FileTime { seconds, nanos });
            let (found, before) = match shown.duration_since(UNIX_EPOCH) {
                Ok(after) => (after.as_nanos() as i128, false),
                Err(before) => (-(before.duration().as_nanos() as i128), true),
            };
            assert_eq!(found, i128::from(seconds) * 1_000_000_000 + i128::from(nanos));
            assert_eq!(before, seconds < 0);
        }
        for seconds in [i64::MIN, i64::MAX] {
            time(FileTime { seconds, nanos: 999_999_999 });
        }
        virtual_attr(1, FileType::Directory, (i64::MIN, 0), (0, 0));
    }

    #[test]
    fn what_cannot_stand_here_is_said_to_be_unfit() {
        let node = |name: &str, kind| Node::new(name.into(), kind);
        assert_eq!(attr(&node("..", NodeKind::File), 9), Err(Unfit::Name));
        assert_eq!(attr(&node("a/b", NodeKind::Directory), 9), Err(Unfit::Name));
        assert_eq!(attr(&node("a", NodeKind::Unknown), 9), Err(Unfit::Kind));
        let mut device = node("a", NodeKind::CharDevice);
        device.rdev = 1 << 32;
        assert_eq!(attr(&device, 9), Err(Unfit::Device));
        device.rdev = rustix::fs::makedev(259, 70_000);
        assert_eq!(u64::from(attr(&device, 9).unwrap().rdev), device.rdev, "as the kernel packs it");
    }

    #[test]
    fn absurd_sizes_stay_numbers() {
        let mut node = Node::new(b"a".to_vec(), NodeKind::File);
        node.size = u64::MAX;
        node.holes = vec![(0, u64::MAX - 5), (u64::MAX - 3, 2)];
        let shown = attr(&node, 9).unwrap();
        assert_eq!((shown.size, shown.blocks), (i64::MAX as u64, 1));
    }

    #[test]
    fn names_of_attributes_that_the_kernel_refuses_are_left_out() {
        let mut node = Node::new(b"a".to_vec(), NodeKind::File);
        for name in [&b""[..], b"user.a\0b", &[b'x'; 256], b"user.ok"] {
            node.xattrs.push((name.to_vec(), b"v".to_vec()));
        }
        assert_eq!(xattr_names(&node), b"user.ok\0");
        assert_eq!(xattr(&node, b"user.ok"), Some(&b"v"[..]));
        node.xattrs = (0..4096).map(|n| (format!("user.{n:0200}").into_bytes(), Vec::new())).collect();
        assert!(xattr_names(&node).len() <= XATTR_LIST_MAX);
    }
}
