//! Removing what the snapshot does not hold.
//!
//! # Invariants
//! Only below an open directory, by name, and never through a link; what is mounted below is left alone, bind mounts too.
//! What a [`Removal`] wants to keep stays, with the directories that lead to it. Directories may be nested as deep as they
//! like.

use std::mem::MaybeUninit;
use std::os::fd::AsFd;

use rustix::fs::{AtFlags, FileType, Mode, RawDir};
use rustix::io::Errno;

use super::entry::{explain, identity_of};
use super::{Target, TargetDir, TargetError, dir};

/// Bytes of directory entries that the system hands out at once.
const LISTING: usize = 32 << 10;

/// What is asked about each entry, and told about what became of it.
pub trait Removal {
    /// Whether an entry stays that lies below the directory where the removal begins, by its path from there; of a
    /// directory, also all that is in it.
    fn stays(&self, path: &[u8], is_dir: bool) -> bool;

    /// Whether a directory stays with all that is in it, wherever it lies; by device and inode.
    fn is_kept(&self, dir: (u64, u64)) -> bool;

    /// Only count.
    fn pretend(&self) -> bool;

    /// It is gone, or would be.
    fn removed(&mut self, path: &[u8]);

    /// It could not be removed.
    fn failed(&mut self, path: &[u8], error: TargetError);
}

/// A name, and whether it is a directory's.
pub type Listed = (Box<[u8]>, bool);

/// A directory that is being emptied.
struct Level {
    dir: TargetDir,
    /// Names to go.
    left: Vec<Listed>,
    /// Length of its path.
    path: usize,
    /// Something in it stays.
    keeps: bool,
}

impl Target {
    /// The names in a directory, and which of them are directories.
    pub fn list(&self, dir: &TargetDir) -> Result<Vec<Listed>, TargetError> {
        let failed = |error: Errno| TargetError::io("list", dir.path(), error);
        let shared = dir.fd()?;
        // A descriptor of its own: the place in the listing belongs to it.
        let fd = rustix::fs::openat(&shared, c".", dir::OPEN_DIR, Mode::empty()).map_err(failed)?;
        let mut buffer = vec![MaybeUninit::uninit(); LISTING];
        let mut entries = RawDir::new(&fd, &mut buffer);
        let mut names = Vec::new();
        while let Some(entry) = entries.next() {
            let entry = match entry {
                Err(Errno::INTR) => continue,
                entry => entry.map_err(failed)?,
            };
            let name = entry.file_name().to_bytes();
            if matches!(name, b"." | b"..") {
                continue;
            }
            let is_dir = match entry.file_type() {
                FileType::Unknown => rustix::fs::statat(&fd, name, AtFlags::SYMLINK_NOFOLLOW)
                    .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory),
                kind => kind == FileType::Directory,
            };
            names.push((name.into(), is_dir));
        }
        Ok(names)
    }

    /// Removes an entry, and all that is in it, but for what stays.
    pub fn remove(&self, parent: &TargetDir, name: &[u8], removal: &mut dyn Removal) {
        let path = name.to_vec();
        let is_dir = self.look(parent, name).ok().flatten().is_some_and(|stands| stands.is_dir());
        let root = Level { dir: parent.clone(), left: vec![(name.into(), is_dir)], path: 0, keeps: true };
        self.empty(root, path, removal);
    }

    fn empty(&self, root: Level, mut path: Vec<u8>, removal: &mut dyn Removal) {
        let mut levels = vec![root];
        while let Some(level) = levels.last_mut() {
            path.truncate(level.path);
            let Some((name, is_dir)) = level.left.pop() else {
                let done = levels.pop();
                if let (Some(done), Some(above)) = (done, levels.last_mut()) {
                    above.keeps |= done.keeps || !take_away(above, &done, &path, removal);
                }
                continue;
            };
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(&name);
            if removal.stays(&path, is_dir) {
                level.keeps = true;
            } else if is_dir {
                match self.descend(&level.dir, &name) {
                    Ok(Some((dir, _))) if removal.is_kept(dir.inode()) => level.keeps = true,
                    Ok(Some((dir, left))) => {
                        let below = Level { dir, left, path: path.len(), keeps: false };
                        levels.push(below);
                    }
                    Ok(None) => {}
                    Err(error) => {
                        level.keeps = true;
                        removal.failed(&path, error);
                    }
                }
            } else {
                level.keeps |= !unlink(&level.dir, &name, (AtFlags::empty(), &path), removal);
            }
        }
    }

    fn descend(&self, parent: &TargetDir, name: &[u8]) -> Result<Option<Entered>, TargetError> {
        let Some(dir) = self.enter_dir(parent, name)? else { return Ok(None) };
        if dir.is_mount()? {
            return Err(TargetError::Mounted { path: parent.path_of(name) });
        }
        let names = self.list(&dir)?;
        Ok(Some((dir, names)))
    }
}

type Entered = (TargetDir, Vec<Listed>);

/// Removes an empty directory, unless something else has its name by now.
fn take_away(above: &Level, done: &Level, path: &[u8], removal: &mut dyn Removal) -> bool {
    if done.keeps {
        return false;
    }
    let name = path.get(above.path..).unwrap_or_default();
    let name = name.strip_prefix(b"/").unwrap_or(name);
    let stands = above.dir.fd().ok().and_then(|fd| identity_of(fd.as_fd(), name));
    if stands != Some(done.dir.identity()) {
        removal.failed(path, TargetError::Changed { path: above.dir.path_of(name) });
        return false;
    }
    unlink(&above.dir, name, (AtFlags::REMOVEDIR, path), removal)
}

fn unlink(dir: &TargetDir, name: &[u8], (flags, path): (AtFlags, &[u8]), removal: &mut dyn Removal) -> bool {
    let done = match dir.fd() {
        _ if removal.pretend() => Ok(()),
        Ok(fd) => match rustix::fs::unlinkat(&fd, name, flags) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(explain(dir, fd.as_fd(), name, ("remove", error))),
        },
        Err(error) => Err(error),
    };
    match done {
        Ok(()) => {
            removal.removed(path);
            true
        }
        Err(error) => {
            removal.failed(path, error);
            false
        }
    }
}
