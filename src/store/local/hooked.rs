//! The machine's file system with a hook before each step, for tests.

use std::fs::{DirEntry, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Step;
use super::disk::{Disk, RealDisk, Stat};

/// Sees each step before it happens; an error stands in for the step's own.
pub(super) type Hook = Arc<dyn Fn(Step, &Path) -> io::Result<()> + Send + Sync>;

pub(super) struct Hooked(pub(super) Hook);

/// A file and the path it was opened by.
pub(super) type Named = (File, PathBuf);

impl Disk for Hooked {
    type File = Named;
    type Name = DirEntry;

    fn stat(&self, path: &Path) -> io::Result<Stat> {
        (self.0)(Step::Look, path)?;
        RealDisk.stat(path)
    }

    fn stat_link(&self, path: &Path) -> io::Result<Stat> {
        (self.0)(Step::Look, path)?;
        RealDisk.stat_link(path)
    }

    fn names(&self, path: &Path) -> io::Result<impl Iterator<Item = io::Result<DirEntry>>> {
        (self.0)(Step::Look, path)?;
        RealDisk.names(path)
    }

    fn open(&self, path: &Path) -> io::Result<Named> {
        (self.0)(Step::Open, path)?;
        Ok((RealDisk.open(path)?, path.to_owned()))
    }

    fn stat_file(&self, file: &Named) -> io::Result<Stat> {
        (self.0)(Step::Look, &file.1)?;
        RealDisk.stat_file(&file.0)
    }

    fn read_at(&self, file: &Named, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        (self.0)(Step::Read, &file.1)?;
        RealDisk.read_at(&file.0, buffer, offset)
    }

    fn create(&self, path: &Path, direct: bool) -> io::Result<Named> {
        (self.0)(Step::Create, path)?;
        Ok((RealDisk.create(path, direct)?, path.to_owned()))
    }

    fn reserve(&self, file: &Named, len: u64) -> io::Result<()> {
        (self.0)(Step::Write, &file.1)?;
        RealDisk.reserve(&file.0, len)
    }

    fn write_at(&self, file: &Named, bytes: &[u8], offset: u64) -> io::Result<()> {
        (self.0)(Step::Write, &file.1)?;
        RealDisk.write_at(&file.0, bytes, offset)
    }

    fn set_len(&self, file: &Named, len: u64) -> io::Result<()> {
        (self.0)(Step::Write, &file.1)?;
        RealDisk.set_len(&file.0, len)
    }

    fn leave_direct(&self, file: &Named) -> io::Result<()> {
        RealDisk.leave_direct(&file.0)
    }

    fn sync(&self, file: &Named) -> io::Result<()> {
        (self.0)(Step::SyncFile, &file.1)?;
        RealDisk.sync(&file.0)
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        (self.0)(Step::SyncDirectory, path)?;
        RealDisk.sync_directory(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        (self.0)(Step::Rename, to)?;
        RealDisk.rename(from, to)
    }

    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        (self.0)(Step::Rename, to)?;
        RealDisk.rename_new(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        (self.0)(Step::Remove, path)?;
        RealDisk.remove(path)
    }

    fn make_directory(&self, path: &Path) -> io::Result<()> {
        (self.0)(Step::MakeDirectory, path)?;
        RealDisk.make_directory(path)
    }

    fn free_space(&self, path: &Path) -> Option<u64> {
        RealDisk.free_space(path)
    }
}
