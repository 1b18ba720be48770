//! The machine's file system as somebody uses it who lets others in: no path leads out of the root, and none through a link,
//! whatever stands in it and whoever changes it meanwhile. The kernel sees to that (`openat2` of Linux 5.6).
//!
//! # Invariants
//! Every call starts at a descriptor of the root, which is opened once.
//!
//! # Must not
//! Decide anything, like every [`Disk`].

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags};

use super::disk::{Disk, Kind, Name, RealDisk, Stat, rename_new_at};

/// A directory that nothing leads out of.
pub(super) struct Beneath {
    root: PathBuf,
    opened: OnceLock<OwnedFd>,
}

/// A name in a directory that is held open.
pub(super) struct NameAt {
    directory: Arc<OwnedFd>,
    name: OsString,
    kind: FileType,
}

fn kind_of(kind: FileType) -> Kind {
    match kind {
        FileType::RegularFile => Kind::File,
        FileType::Directory => Kind::Directory,
        _ => Kind::Other,
    }
}

fn stat_of(stat: &rustix::fs::Stat) -> Stat {
    Stat {
        kind: kind_of(FileType::from_raw_mode(stat.st_mode)),
        len: u64::try_from(stat.st_size).unwrap_or(0),
        modified: (stat.st_mtime, i64::try_from(stat.st_mtime_nsec).unwrap_or(0)),
    }
}

impl Name for NameAt {
    fn name(&self) -> OsString {
        self.name.clone()
    }

    fn kind(&self) -> io::Result<Kind> {
        match self.kind {
            FileType::Unknown => Ok(self.stat()?.kind),
            kind => Ok(kind_of(kind)),
        }
    }

    fn stat(&self) -> io::Result<Stat> {
        let stat = rustix::fs::statat(&self.directory, &self.name, AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(stat_of(&stat))
    }
}

/// The directory that a path is in.
enum Parent<'a> {
    Root(&'a OwnedFd),
    Below(OwnedFd),
}

impl AsFd for Parent<'_> {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        match self {
            Self::Root(fd) => fd.as_fd(),
            Self::Below(fd) => fd.as_fd(),
        }
    }
}

impl Beneath {
    /// Nothing is opened yet: the root may be missing.
    pub(super) fn new(root: PathBuf) -> Self {
        Self { root, opened: OnceLock::new() }
    }

    fn root(&self) -> io::Result<&OwnedFd> {
        if let Some(fd) = self.opened.get() {
            return Ok(fd);
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(CWD, &self.root, flags, Mode::empty())?;
        Ok(self.opened.get_or_init(|| fd))
    }

    /// The path below the root; `.` for the root itself.
    fn relative<'a>(&self, path: &'a Path) -> io::Result<&'a Path> {
        let path = path.strip_prefix(&self.root).map_err(|_| io::ErrorKind::InvalidInput)?;
        Ok(if path.as_os_str().is_empty() { Path::new(".") } else { path })
    }

    fn openat(&self, path: &Path, flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        Ok(rustix::fs::openat2(self.root()?, path, flags | OFlags::CLOEXEC, mode, resolve)?)
    }

    /// The directory of an entry, opened, and its name.
    fn parent<'a>(&self, path: &'a Path) -> io::Result<(Parent<'_>, &'a OsStr)> {
        let path = self.relative(path)?;
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        match path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            None => Ok((Parent::Root(self.root()?), name)),
            Some(parent) => {
                let flags = OFlags::PATH | OFlags::DIRECTORY;
                Ok((Parent::Below(self.openat(parent, flags, Mode::empty())?), name))
            }
        }
    }
}

/// The names in a directory, but for itself and the one above.
struct Names {
    entries: Dir,
    directory: Arc<OwnedFd>,
}

impl Iterator for Names {
    type Item = io::Result<NameAt>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let entry = match self.entries.next()? {
                Ok(entry) => entry,
                Err(error) => return Some(Err(error.into())),
            };
            let name = entry.file_name().to_bytes();
            if !matches!(name, b"." | b"..") {
                let name = OsString::from_vec(name.to_vec());
                let directory = Arc::clone(&self.directory);
                return Some(Ok(NameAt { directory, name, kind: entry.file_type() }));
            }
        }
    }
}

impl Disk for Beneath {
    type File = File;
    type Name = NameAt;

    fn stat(&self, path: &Path) -> io::Result<Stat> {
        let fd = self.openat(self.relative(path)?, OFlags::PATH, Mode::empty())?;
        let stat = rustix::fs::fstat(fd)?;
        // Somebody took the root away while it was open.
        if stat.st_nlink == 0 { Err(io::ErrorKind::NotFound.into()) } else { Ok(stat_of(&stat)) }
    }

    fn stat_link(&self, path: &Path) -> io::Result<Stat> {
        let (parent, name) = self.parent(path)?;
        Ok(stat_of(&rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?))
    }

    fn names(&self, path: &Path) -> io::Result<impl Iterator<Item = io::Result<NameAt>>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let directory = Arc::new(self.openat(self.relative(path)?, flags, Mode::empty())?);
        Ok(Names { entries: Dir::read_from(&directory)?, directory })
    }

    fn open(&self, path: &Path) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        Ok(self.openat(self.relative(path)?, flags, Mode::empty())?.into())
    }

    fn stat_file(&self, file: &File) -> io::Result<Stat> {
        RealDisk.stat_file(file)
    }

    fn read_at(&self, file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        RealDisk.read_at(file, buffer, offset)
    }

    fn create(&self, path: &Path, direct: bool) -> io::Result<File> {
        let direct = if direct { OFlags::DIRECT } else { OFlags::empty() };
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | direct;
        Ok(self.openat(self.relative(path)?, flags, Mode::RUSR)?.into())
    }

    fn reserve(&self, file: &File, len: u64) -> io::Result<()> {
        RealDisk.reserve(file, len)
    }

    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        RealDisk.write_at(file, bytes, offset)
    }

    fn set_len(&self, file: &File, len: u64) -> io::Result<()> {
        RealDisk.set_len(file, len)
    }

    fn leave_direct(&self, file: &File) -> io::Result<()> {
        RealDisk.leave_direct(file)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        RealDisk.sync(file)
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        Ok(rustix::fs::fsync(self.openat(self.relative(path)?, flags, Mode::empty())?)?)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let ((from_dir, from), (to_dir, to)) = (self.parent(from)?, self.parent(to)?);
        Ok(rustix::fs::renameat(from_dir, from, to_dir, to)?)
    }

    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        let ((from_dir, from), (to_dir, to)) = (self.parent(from)?, self.parent(to)?);
        rename_new_at((from_dir, Path::new(from)), (to_dir, Path::new(to)))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let (parent, name) = self.parent(path)?;
        Ok(rustix::fs::unlinkat(parent, name, AtFlags::empty())?)
    }

    fn make_directory(&self, path: &Path) -> io::Result<()> {
        let (parent, name) = self.parent(path)?;
        Ok(rustix::fs::mkdirat(parent, name, Mode::RWXU)?)
    }

    fn free_space(&self, path: &Path) -> Option<u64> {
        let fd = self.openat(self.relative(path).ok()?, OFlags::PATH, Mode::empty()).ok()?;
        let stat = rustix::fs::fstatvfs(fd).ok()?;
        Some(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn no_path_leads_out_of_the_root_or_through_a_link() {
        let place = tempfile::tempdir().unwrap();
        let (root, outside) = (place.path().join("root"), place.path().join("outside"));
        std::fs::create_dir_all(root.join("a")).unwrap();
        std::fs::create_dir(&outside).unwrap();
        std::fs::write(outside.join("secret"), "x").unwrap();
        symlink(&outside, root.join("packs")).unwrap();
        symlink(outside.join("secret"), root.join("a/link")).unwrap();
        symlink("../outside", root.join("a/up")).unwrap();
        let disk = Beneath::new(root.clone());
        for bad in ["packs/secret", "a/link", "a/up/secret", "../outside/secret", "a/../../outside/secret"] {
            let path = root.join(bad);
            assert!(disk.open(&path).is_err(), "{bad}");
            assert!(disk.remove(&path).is_err() || bad == "a/link", "{bad}");
            assert!(disk.create(&path, false).is_err() || bad == "a/link", "{bad}");
        }
        assert!(disk.names(&root.join("packs")).is_err());
        assert!(disk.make_directory(&root.join("packs/x")).is_err());
        assert!(disk.create(&root.join("packs/new"), false).is_err());
        assert!(disk.open(&outside.join("secret")).is_err(), "not even by its own name");
        assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 1);
        drop(disk.create(&root.join("a/new"), false).unwrap());
        disk.rename_new(&root.join("a/new"), &root.join("a/named")).unwrap();
        drop(disk.create(&root.join("a/new"), false).unwrap());
        let taken = disk.rename_new(&root.join("a/new"), &root.join("a/named")).unwrap_err();
        assert_eq!(taken.kind(), io::ErrorKind::AlreadyExists);
    }
}
