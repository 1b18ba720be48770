//! Names of a directory that is too large for memory: sorted runs in one unlinked file.

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{FallocateFlags, Mode, OFlags};

/// A file without a name, to which ranges are added and from which they are given back.
#[derive(Debug)]
pub(super) struct Spill {
    dir: PathBuf,
    file: Mutex<Option<std::sync::Arc<File>>>,
    end: AtomicU64,
}

impl Spill {
    /// Nothing is created before the first range is written.
    pub(super) fn new(dir: PathBuf) -> Self {
        Self { dir, file: Mutex::default(), end: AtomicU64::new(0) }
    }

    /// Writes one run.
    pub(super) fn write(&self, run: &[u8]) -> io::Result<Range<u64>> {
        let file = self.file()?;
        let len = run.len() as u64;
        let start = self.end.fetch_add(len, Ordering::Relaxed);
        file.write_all_at(run, start)?;
        Ok(start..start + len)
    }

    /// Reads what lies at `at`, at most up to `end`.
    pub(super) fn read(&self, buffer: &mut [u8], at: u64, end: u64) -> io::Result<usize> {
        let len = usize::try_from(end - at).unwrap_or(usize::MAX).min(buffer.len());
        self.file()?.read_exact_at(&mut buffer[..len], at)?;
        Ok(len)
    }

    /// Gives the room of a run back to the file system, where it can take it.
    pub(super) fn free(&self, range: &Range<u64>) {
        if let Ok(file) = self.file() {
            let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            let _ = rustix::fs::fallocate(&file, flags, range.start, range.end - range.start);
        }
    }

    fn file(&self) -> io::Result<std::sync::Arc<File>> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = &*file {
            return Ok(std::sync::Arc::clone(file));
        }
        let opened = std::sync::Arc::new(unnamed(&self.dir)?);
        *file = Some(std::sync::Arc::clone(&opened));
        Ok(opened)
    }
}

/// A file that is gone when it is closed. Where the file system cannot make one, it is created and unlinked.
fn unnamed(dir: &Path) -> io::Result<File> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    if let Ok(fd) = rustix::fs::open(dir, flags, Mode::RUSR | Mode::WUSR) {
        return Ok(fd.into());
    }
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let path = dir.join(format!(".lifeboat-names-{}-{number}", std::process::id()));
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}
