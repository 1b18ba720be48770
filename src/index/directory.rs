//! The cache directory: level files that appear whole under names of their content, and vanish by unlink.
//!
//! Processes share it without locks. Two that make the same level give it the same name and the same bytes; one that
//! removes a level which another still reads takes nothing from it, because the other has it mapped.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::map::Backing;

/// Length of a level's name: hexadecimal digits of its content's hash.
pub(super) const NAME_LEN: usize = 32;

const LEVEL_SUFFIX: &str = ".level";
const PART_PREFIX: &str = "part-";

/// Distinguishes the temporary files of one process.
static PARTS: AtomicU64 = AtomicU64::new(0);

/// A cache directory that can be listed.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
}

impl Directory {
    /// Opens the directory, makes it if it is not there, and removes what killed processes left behind.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        let directory = Self { path: path.to_owned() };
        for name in directory.names()? {
            if name.starts_with(PART_PREFIX) {
                directory.remove_abandoned(&name);
            }
        }
        Ok(directory)
    }

    /// The directory's path.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            names.extend(entry?.file_name().into_string());
        }
        names.sort_unstable();
        Ok(names)
    }

    /// A writer holds a lock on its part; one without a lock has no writer.
    fn remove_abandoned(&self, name: &str) {
        let path = self.path.join(name);
        if let Ok(file) = File::open(&path)
            && file.try_lock().is_ok()
        {
            // Failing means that the file stays, which costs space until the next time.
            let _ = fs::remove_file(&path);
        }
    }

    /// Names of all levels, in order.
    pub(super) fn levels(&self) -> io::Result<Vec<String>> {
        let ours =
            |name: &&str| name.len() == NAME_LEN && name.bytes().all(|digit| digit.is_ascii_hexdigit());
        let names = self.names()?.into_iter();
        Ok(names.filter_map(|name| name.strip_suffix(LEVEL_SUFFIX).filter(ours).map(str::to_owned)).collect())
    }

    /// Maps a level.
    pub(super) fn load(&self, name: &str) -> io::Result<Backing> {
        let path = self.level_path(name);
        Ok(Backing::map(&File::open(&path)?)?.at(path))
    }

    /// Removes a level. Failing leaves a file that some later run removes.
    pub(super) fn remove(&self, name: &str) {
        let _ = fs::remove_file(self.level_path(name));
    }

    fn level_path(&self, name: &str) -> PathBuf {
        self.path.join(format!("{name}{LEVEL_SUFFIX}"))
    }

    /// Begins a level.
    pub(super) fn part(&self) -> io::Result<Part<'_>> {
        loop {
            let number = PARTS.fetch_add(1, Ordering::Relaxed);
            let path = self.path.join(format!("{PART_PREFIX}{}-{number}", std::process::id()));
            match OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path) {
                Ok(file) => {
                    // Before the lock was taken, another process may have thought the part abandoned. A file system
                    // without locks at worst lets it do so later, which the rename then reports.
                    let contested = matches!(file.try_lock(), Err(TryLockError::WouldBlock));
                    if !contested && file.metadata()?.nlink() > 0 {
                        return Ok(Part { directory: self, file, path: Some(path) });
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl Directory {
    /// A file of this directory that has no name any more.
    pub(super) fn nameless(&self) -> io::Result<File> {
        let mut part = self.part()?;
        if let Some(path) = part.path.take() {
            fs::remove_file(path)?;
        }
        part.file.try_clone()
    }
}

/// A level being written. Dropped before [`Self::publish`], it is removed.
#[derive(Debug)]
pub(super) struct Part<'a> {
    directory: &'a Directory,
    file: File,
    path: Option<PathBuf>,
}

impl Part<'_> {
    /// Gives the complete level its name and maps it. No fsync: a torn file fails its sums.
    pub(super) fn publish(mut self, name: &str) -> io::Result<Backing> {
        let backing = Backing::map(&self.file)?;
        let level = self.directory.level_path(name);
        if let Some(path) = &self.path {
            fs::rename(path, &level)?;
        }
        self.path = None;
        Ok(backing.at(level))
    }
}

impl Write for Part<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for Part<'_> {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            let _ = fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn only_complete_levels_have_names_and_only_abandoned_parts_are_removed() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("a/b");
        let directory = Directory::open(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        let mut part = directory.part().unwrap();
        part.write_all(b"level").unwrap();
        fs::write(path.join("part-1-abandoned"), b"torn").unwrap();
        fs::write(path.join("not-ours.level"), b"").unwrap();
        Directory::open(&path).unwrap();
        assert_eq!(directory.levels().unwrap(), [""; 0]);
        assert!(!path.join("part-1-abandoned").exists() && path.join("not-ours.level").exists());

        let name = "0f".repeat(16);
        assert_eq!(*part.publish(&name).unwrap(), *b"level");
        assert_eq!(directory.levels().unwrap(), [name.as_str()]);
        assert_eq!(
            fs::metadata(path.join(format!("{name}.level"))).unwrap().permissions().mode() & 0o777,
            0o600
        );
        drop(directory.part().unwrap());
        assert_eq!(fs::read_dir(&path).unwrap().count(), 2);

        let mapped = directory.load(&name).unwrap();
        directory.remove(&name);
        assert_eq!((&*mapped, directory.levels().unwrap().len()), (&b"level"[..], 0));
    }
}
