//! Metadata beyond `statx`: extended attributes, flags, targets of links, names of owners.

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;

use super::error::SourceError;
use super::file::{FileReader, open_file};
use super::sys::stat::{Stat, stat_at};
use super::sys::xattr::Holder;
use super::sys::{dir, file, flags};
use super::walk::Entry;
use crate::format::node::XATTRS_MAX;

/// More than this in all attributes of one entry is refused: a node with them must fit into one chunk.
const XATTR_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Names kept for each of users and groups.
const OWNERS_MAX: usize = 4096;

/// One extended attribute.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Xattr {
    /// With its namespace, such as `user.note`.
    pub name: Box<[u8]>,
    /// At most 64 KiB.
    pub value: Box<[u8]>,
}

/// The extended attributes of an entry, sorted by name.
#[derive(Debug, Default)]
pub struct Xattrs {
    /// Those that could be read.
    pub list: Vec<Xattr>,
    /// Why there are not more.
    pub error: Option<SourceError>,
}

pub(super) fn read_xattrs(holder: Holder<'_>, path: impl Fn() -> PathBuf) -> Xattrs {
    let mut xattrs = Xattrs::default();
    let mut names = Vec::new();
    let failed = |error| SourceError::of_entry("read the attributes of", path(), error);
    if let Err(error) = holder.names(&mut names) {
        xattrs.error = Some(failed(error));
        return xattrs;
    }
    let (mut value, mut total) = (Vec::new(), 0);
    for name in names.split_inclusive(|&byte| byte == 0) {
        let Ok(name) = CStr::from_bytes_with_nul(name) else { continue };
        match holder.value(name, &mut value) {
            Ok(Some(())) => {
                total += name.count_bytes() + value.len();
                if total > XATTR_BYTES_MAX || xattrs.list.len() as u64 == XATTRS_MAX {
                    xattrs.error = Some(SourceError::AttributesTooLarge { path: path() });
                    break;
                }
                xattrs.list.push(Xattr { name: name.to_bytes().into(), value: value.as_slice().into() });
            }
            Ok(None) => {}
            Err(error) => {
                xattrs.error.get_or_insert_with(|| failed(error));
            }
        }
    }
    xattrs.list.sort_unstable();
    xattrs
}

impl Entry {
    /// Opens a regular file; see [`open_file`].
    pub fn open(&self) -> Result<FileReader, SourceError> {
        open_file(self.dir(), self.source_name(), self.stat())
    }

    /// What stands under its name now, which may be another file. One system call.
    pub fn look_again(&self) -> Result<Stat, SourceError> {
        let handle = self.dir().handle()?;
        // A name from a directory has no zero byte.
        let name = CString::new(self.source_name()).unwrap_or_default();
        stat_at(&*handle, &name).map_err(|error| SourceError::of_entry("look at", self.path(), error))
    }

    /// The extended attributes of anything, by its name and without opening or following it. For a file that is read
    /// anyway, [`FileReader::xattrs`] is cheaper and certain to be of the same inode. Needs `/proc`. One system call if
    /// there are none.
    pub fn xattrs(&self) -> Xattrs {
        if self.is_synthetic() {
            return Xattrs::default();
        }
        let handle = match self.dir().handle() {
            Ok(handle) => handle,
            Err(error) => return Xattrs { list: Vec::new(), error: Some(error) },
        };
        let mut path = format!("/proc/self/fd/{}/", handle.as_raw_fd()).into_bytes();
        path.extend_from_slice(self.source_name());
        // A name from a directory has no zero byte; without one there is nothing to cut.
        let path = CString::new(path).unwrap_or_default();
        read_xattrs(Holder::Path(&path), || self.path())
    }

    /// The target of a symbolic link. One system call.
    pub fn link_target(&self) -> Result<Vec<u8>, SourceError> {
        let handle = self.dir().handle()?;
        file::read_link(&*handle, self.source_name()).map_err(|error| {
            match rustix::io::Errno::from_io_error(&error) {
                // It is no link any more.
                Some(rustix::io::Errno::INVAL) => SourceError::Replaced { path: self.path() },
                _ => SourceError::of_entry("read the link", self.path(), error),
            }
        })
    }

    /// The flags of `chattr` of a directory as `FS_*_FL` bits; zero for everything else but regular files, for which
    /// [`FileReader::flags`] is the way. Three system calls.
    pub fn dir_flags(&self) -> Result<u32, SourceError> {
        if self.is_synthetic() || !self.stat().is_dir() {
            return Ok(0);
        }
        let handle = self.dir().handle()?;
        let failed = |error| SourceError::of_entry("read the flags of", self.path(), error);
        let fd = dir::open_dir(&*handle, self.source_name(), false).map_err(failed)?;
        flags::get(&fd).map_err(failed)
    }
}

/// Names of users and groups, looked up once each.
#[derive(Debug, Default)]
pub struct Owners {
    users: HashMap<u32, Option<Arc<[u8]>>>,
    groups: HashMap<u32, Option<Arc<[u8]>>>,
}

impl Owners {
    /// Nothing is looked up yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The name of a user, if the system knows one now.
    pub fn user(&mut self, uid: u32) -> Option<Arc<[u8]>> {
        let look_up = || uzers::get_user_by_uid(uid).map(|user| user.name().as_bytes().into());
        cached(&mut self.users, uid, look_up)
    }

    /// The name of a group, if the system knows one now.
    pub fn group(&mut self, gid: u32) -> Option<Arc<[u8]>> {
        let look_up = || uzers::get_group_by_gid(gid).map(|group| group.name().as_bytes().into());
        cached(&mut self.groups, gid, look_up)
    }
}

fn cached(
    names: &mut HashMap<u32, Option<Arc<[u8]>>>,
    id: u32,
    look_up: impl FnOnce() -> Option<Arc<[u8]>>,
) -> Option<Arc<[u8]>> {
    if names.len() >= OWNERS_MAX {
        names.clear();
    }
    names.entry(id).or_insert_with(look_up).clone()
}

/// Numbers file systems in order of appearance, so that a hard link can be told by (number, inode) from run to run although
/// device numbers change at every boot. Ask in the order of the walk.
#[derive(Debug, Default)]
pub struct Mounts {
    seen: HashMap<u64, u32>,
    last: Option<(u64, u32)>,
}

impl Mounts {
    /// None seen yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The number of the file system with this device.
    pub fn index(&mut self, dev: u64) -> u32 {
        if let Some((last, index)) = self.last
            && last == dev
        {
            return index;
        }
        let next = u32::try_from(self.seen.len()).unwrap_or(u32::MAX);
        let index = *self.seen.entry(dev).or_insert(next);
        self.last = Some((dev, index));
        index
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use rustix::fs::{XattrFlags, lsetxattr};

    use super::*;
    use crate::source::walk::{Item, Root, Tuning, Walk, WalkOptions};

    fn entries(dir: &Path) -> Vec<Entry> {
        let options = WalkOptions {
            streams: Vec::new(),
            roots: vec![Root { path: dir.to_owned(), stored: Vec::new() }],
            filter: Arc::default(),
            one_file_system: false,
            exclude_caches: false,
            exclude_larger_than: None,
            skip_dirs: Vec::new(),
            temp_dir: PathBuf::from("/tmp"),
            threads: 0,
            cancel: crate::cancel::Cancel::new(),
            tuning: Tuning::default(),
        };
        let (mut walk, _) = Walk::new(options).unwrap();
        let mut entries = Vec::new();
        while let Some(item) = walk.next().unwrap() {
            if let Item::Enter { entry, .. } | Item::Entry(entry) = item {
                entries.push(entry);
            }
        }
        entries
    }

    fn set(path: &Path, name: &str, value: &[u8]) -> bool {
        lsetxattr(path, name, value, XattrFlags::empty()).is_ok()
    }

    #[test]
    fn attributes_of_files_directories_and_links_come_sorted() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, b"x").unwrap();
        symlink("file", dir.path().join("link")).unwrap();
        if !set(&file, "user.b", b"two") {
            println!("skipped: the file system has no attributes");
            return;
        }
        assert!(set(&file, "user.a", &[7; 2000]) && set(dir.path(), "user.dir", b""));
        let trusted = set(&dir.path().join("link"), "trusted.link", b"t");
        let entries = entries(dir.path());
        let names = |entry: &Entry| {
            let Xattrs { list, error } = entry.xattrs();
            assert!(error.is_none(), "{error:?}");
            let user = list.into_iter().filter(|x| !x.name.starts_with(b"security."));
            user.map(|x| (String::from_utf8(x.name.into()).unwrap(), x.value.len())).collect::<Vec<_>>()
        };
        assert_eq!(names(&entries[0]), [("user.dir".into(), 0)]);
        assert_eq!(names(&entries[1]), [("user.a".into(), 2000), ("user.b".into(), 3)]);
        let open = entries[1].open().unwrap();
        assert_eq!(open.xattrs().list, entries[1].xattrs().list);
        if trusted {
            assert_eq!(names(&entries[2]), [("trusted.link".into(), 1)]);
        } else {
            println!("skipped: attributes of links need root");
        }
        assert_eq!(entries[2].link_target().unwrap(), b"file");
        assert!(matches!(entries[1].link_target(), Err(SourceError::Replaced { .. })));
    }

    #[test]
    fn flags_are_read_where_there_are_some() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("sub")).unwrap();
        let fd = fs::File::open(dir.path().join("sub")).unwrap();
        let nodump = rustix::fs::IFlags::NODUMP;
        if rustix::fs::ioctl_getflags(&fd).and_then(|f| rustix::fs::ioctl_setflags(&fd, f | nodump)).is_err()
        {
            println!("skipped: the file system has no flags");
            return;
        }
        let entries = entries(dir.path());
        assert_eq!(entries[1].dir_flags().unwrap() & nodump.bits(), nodump.bits());
        assert_eq!(entries[0].dir_flags().unwrap() & nodump.bits(), 0);
        assert_eq!(entries[1].stat().attributes & 0x40, 0x40);
    }

    #[test]
    fn owners_and_mounts_are_remembered() {
        let mut owners = Owners::new();
        assert_eq!(owners.user(0).as_deref(), Some(&b"root"[..]));
        assert_eq!((owners.user(4_000_000_001), owners.group(4_000_000_001)), (None, None));
        (0..OWNERS_MAX as u32 + 10).for_each(|uid| drop(cached(&mut owners.users, uid, || None)));
        assert!(owners.users.len() <= OWNERS_MAX);
        let mut mounts = Mounts::new();
        assert_eq!([7, 9, 7, 7, 2, 9].map(|dev| mounts.index(dev)), [0, 1, 0, 0, 2, 1]);
    }
}
