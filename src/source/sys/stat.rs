//! Facts about an inode, by `statx`.

use std::ffi::CStr;
use std::io;
use std::os::fd::AsFd;

use rustix::fs::{AtFlags, FileType, Statx, StatxFlags, StatxTimestamp, makedev};

/// A point in time as an inode keeps it: seconds since 1970, negative before, and nanoseconds after that second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Time {
    /// Whole seconds.
    pub secs: i64,
    /// Below 1,000,000,000.
    pub nanos: u32,
}

/// The kinds of entry a directory can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A symbolic link.
    Symlink,
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// Something this program does not know.
    Unknown,
}

/// What the file system says about an inode, without its name, content or extended attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stat {
    /// Type and permission bits, as in `st_mode`.
    pub(crate) mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Length in bytes; of a symbolic link, the length of its target.
    pub size: u64,
    /// 512-byte blocks really allocated.
    pub blocks: u64,
    /// Number of names.
    pub nlink: u64,
    /// Inode number.
    pub ino: u64,
    /// Device of the file system.
    pub dev: u64,
    /// Device that a device node stands for.
    pub rdev: u64,
    /// Mount through which it was reached; zero where the system does not tell.
    pub mnt_id: u64,
    /// Last access.
    pub atime: Time,
    /// Last change of the content.
    pub mtime: Time,
    /// Last change of content or metadata; only the system sets it.
    pub ctime: Time,
    /// Birth, where the file system keeps it.
    pub btime: Option<Time>,
    /// `STATX_ATTR_*` bits: compressed 4, immutable 0x10, append 0x20, nodump 0x40, encrypted 0x800, mount root 0x2000.
    pub attributes: u64,
}

impl Stat {
    /// What kind of entry it is.
    pub fn kind(&self) -> Kind {
        match FileType::from_raw_mode(self.mode) {
            FileType::RegularFile => Kind::File,
            FileType::Directory => Kind::Dir,
            FileType::Symlink => Kind::Symlink,
            FileType::Fifo => Kind::Fifo,
            FileType::Socket => Kind::Socket,
            FileType::CharacterDevice => Kind::CharDevice,
            FileType::BlockDevice => Kind::BlockDevice,
            _ => Kind::Unknown,
        }
    }

    /// Whether it is a directory.
    pub fn is_dir(&self) -> bool {
        self.kind() == Kind::Dir
    }

    /// Whether it is a regular file.
    pub fn is_file(&self) -> bool {
        self.kind() == Kind::File
    }

    /// Whether `other` is the same inode, of the same type.
    pub fn same_inode(&self, other: &Self) -> bool {
        (self.dev, self.ino, self.kind()) == (other.dev, other.ino, other.kind())
    }

    /// Whether nothing shows that content or metadata changed between `other` and this. A change within one tick of the
    /// file system's clock leaves no trace.
    pub fn same_content(&self, other: &Self) -> bool {
        self.same_inode(other)
            && (self.size, self.mtime, self.ctime) == (other.size, other.mtime, other.ctime)
    }
}

fn mask() -> StatxFlags {
    StatxFlags::BASIC_STATS | StatxFlags::BTIME | StatxFlags::MNT_ID
}

/// The entry itself, never what a symbolic link points to; mounts nothing.
pub(crate) fn stat_at(dir: impl AsFd, name: &CStr) -> io::Result<Stat> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    Ok(convert(&rustix::io::retry_on_intr(|| rustix::fs::statx(&dir, name, flags, mask()))?))
}

/// What the name leads to, through symbolic links.
pub(crate) fn stat_target(dir: impl AsFd, name: &[u8]) -> io::Result<Stat> {
    Ok(convert(&rustix::io::retry_on_intr(|| rustix::fs::statx(&dir, name, AtFlags::empty(), mask()))?))
}

/// An open descriptor.
pub(crate) fn stat_open(fd: impl AsFd) -> io::Result<Stat> {
    Ok(convert(&rustix::io::retry_on_intr(|| rustix::fs::statx(&fd, c"", AtFlags::EMPTY_PATH, mask()))?))
}

fn convert(s: &Statx) -> Stat {
    let has = |flag: StatxFlags| s.stx_mask & flag.bits() != 0;
    Stat {
        mode: u32::from(s.stx_mode),
        uid: s.stx_uid,
        gid: s.stx_gid,
        size: s.stx_size,
        blocks: s.stx_blocks,
        nlink: u64::from(s.stx_nlink),
        ino: s.stx_ino,
        dev: makedev(s.stx_dev_major, s.stx_dev_minor),
        rdev: makedev(s.stx_rdev_major, s.stx_rdev_minor),
        mnt_id: if has(StatxFlags::MNT_ID) { s.stx_mnt_id } else { 0 },
        atime: time(&s.stx_atime),
        mtime: time(&s.stx_mtime),
        ctime: time(&s.stx_ctime),
        btime: has(StatxFlags::BTIME).then(|| time(&s.stx_btime)),
        attributes: (s.stx_attributes & s.stx_attributes_mask).bits(),
    }
}

fn time(t: &StatxTimestamp) -> Time {
    Time { secs: t.tv_sec, nanos: t.tv_nsec }
}
