//! Writing: whole, durable, under the final name only when complete.
//!
//! Large objects bypass the page cache where the file system lets them. Packs of 32 MiB measured 0.12 ns of CPU a byte that
//! way, 0.2 to 2 through the cache, and several at once do not slow each other down; a pack is seldom read back soon. Reads
//! do go through the cache: asking it to read ahead on top measured no better.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use object_store::PutPayload;

use super::super::key::RESERVED;
use super::super::pool::Pool;
use super::disk::{Disk, Kind, Name};
use super::{Inner, LocalError, Step};

/// Objects from this size on are written directly.
const DIRECT_FROM: usize = 1024 * 1024;
/// Alignment of direct writes in memory, offset and length; what every common device accepts.
const BLOCK: usize = 4096;
/// Bytes gathered for one direct write; with the room for alignment a power of two, as the pool keeps them.
const STAGE: usize = 4 * 1024 * 1024 - BLOCK;

/// Directories that are synced at the same time.
const SYNCS: usize = 16;

/// A temporary file, removed again unless it was renamed.
struct Temporary<'a, D: Disk> {
    disk: &'a D,
    path: PathBuf,
    file: D::File,
    direct: bool,
    renamed: bool,
}

impl<D: Disk> Drop for Temporary<'_, D> {
    fn drop(&mut self) {
        if !self.renamed {
            // What stays behind is swept later.
            let _ = self.disk.remove(&self.path);
        }
    }
}

impl<D: Disk> Inner<D> {
    pub(super) fn put(&self, target: &Path, body: &PutPayload) -> Result<(), LocalError> {
        self.settle()?;
        match self.put_once(target, body) {
            // A directory that was known is gone: learn them anew.
            Err(error) if error.is_missing() => {
                self.known.lock().unwrap_or_else(PoisonError::into_inner).clear();
                self.put_once(target, body)
            }
            result => result,
        }
    }

    fn put_once(&self, target: &Path, body: &PutPayload) -> Result<(), LocalError> {
        let parent = target.parent().unwrap_or(&self.root);
        self.ensure_directory(parent)?;
        let mut temporary = self.temporary(body.content_length())?;
        self.write(&mut temporary, body)
            .map_err(|error| LocalError::io(Step::Write, &temporary.path, error))?;
        self.sync_file(&temporary.path, &temporary.file)?;
        self.disk
            .rename(&temporary.path, target)
            .map_err(|error| LocalError::io(Step::Rename, target, error))?;
        temporary.renamed = true;
        self.sync_directory(parent)
    }

    /// Makes what was listed durable, present and absent. Nobody writes meanwhile. Reading alone never syncs.
    pub(super) fn settle(&self) -> Result<(), LocalError> {
        if !self.options.fsync {
            return Ok(());
        }
        let mut listed = self.listed.lock().unwrap_or_else(PoisonError::into_inner);
        while !listed.is_empty() {
            let batch: Vec<PathBuf> = listed.iter().take(SYNCS).cloned().collect();
            self.sync_directories(&batch)?;
            batch.iter().for_each(|directory| drop(listed.take(directory)));
        }
        Ok(())
    }

    /// Several at once, because a disk serves them together. One that is gone needs no sync.
    fn sync_directories(&self, directories: &[PathBuf]) -> Result<(), LocalError> {
        let sync = |directory: &Path| match self.sync_directory(directory) {
            Err(error) if error.is_missing() => Ok(()),
            result => result,
        };
        std::thread::scope(|scope| {
            let threads: Vec<_> = directories
                .iter()
                .map(|directory| {
                    let thread = std::thread::Builder::new().spawn_scoped(scope, move || sync(directory));
                    (directory, thread)
                })
                .collect();
            threads.into_iter().try_for_each(|(directory, thread)| match thread {
                Ok(thread) => {
                    thread.join().unwrap_or_else(|_| Err(LocalError::Thread { path: directory.clone() }))
                }
                // No thread is to be had: it is done here.
                Err(_) => sync(directory),
            })
        })
    }

    /// Removes a file, durably. Its absence before is as good, but must be made durable too.
    pub(super) fn remove(&self, path: &Path) -> Result<(), LocalError> {
        self.settle()?;
        let parent = path.parent().unwrap_or(&self.root);
        match self.disk.remove(path) {
            Ok(()) => self.sync_directory(parent),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.check_root()?;
                match self.sync_directory(parent) {
                    Err(error) if error.is_missing() => Ok(()),
                    result => result,
                }
            }
            Err(error) => Err(LocalError::io(Step::Remove, path, error)),
        }
    }

    /// Makes a directory and those above it, up to the root, which must be there. Each is made durable once a process, also
    /// one that was there: whoever made it may have crashed before its name was.
    pub(super) fn ensure_directory(&self, path: &Path) -> Result<(), LocalError> {
        if self.known.lock().unwrap_or_else(PoisonError::into_inner).contains(path) {
            return Ok(());
        }
        if path == self.root {
            self.check_root()?;
        } else {
            let parent = path.parent().unwrap_or(&self.root);
            self.ensure_directory(parent)?;
            match self.disk.make_directory(path) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    let stat =
                        self.disk.stat_link(path).map_err(|error| LocalError::io(Step::Look, path, error))?;
                    if stat.kind != Kind::Directory {
                        return Err(LocalError::Foreign { path: path.to_owned() });
                    }
                }
                Err(error) => return Err(LocalError::io(Step::MakeDirectory, path, error)),
            }
            self.sync_directory(parent)?;
        }
        self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(path.to_owned());
        Ok(())
    }

    /// Makes the root and what is missing above it. What is there is made durable as far as this user may: whoever made it
    /// may have died before its name was.
    pub(super) fn make_root(&self) -> Result<(), LocalError> {
        let mut missing = Vec::new();
        let mut path = self.root.as_path();
        while let Err(error) = self.disk.stat(path) {
            if error.kind() != io::ErrorKind::NotFound {
                return Err(LocalError::io(Step::Look, path, error));
            }
            missing.push(path);
            match path.parent() {
                Some(parent) => path = parent,
                None => break,
            }
        }
        for above in self.root.ancestors().skip(missing.len() + 1) {
            match self.sync_directory(above) {
                Err(LocalError::Io { source, .. }) if source.kind() == io::ErrorKind::PermissionDenied => {}
                Ok(()) | Err(LocalError::NoSync { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        for path in missing.into_iter().rev() {
            match self.disk.make_directory(path) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(LocalError::io(Step::MakeDirectory, path, error));
                }
                _ => {}
            }
            if let Some(parent) = path.parent() {
                self.sync_directory(parent)?;
            }
        }
        self.check_root()
    }

    /// A name below `tmp/` that nobody else takes.
    pub(super) fn temporary_path(&self) -> Result<PathBuf, LocalError> {
        let directory = self.root.join(RESERVED);
        self.ensure_directory(&directory)?;
        let number = self.counter.fetch_add(1, Ordering::Relaxed);
        Ok(directory.join(format!("{:016x}-{number:x}", self.nonce)))
    }

    fn temporary(&self, len: usize) -> Result<Temporary<'_, D>, LocalError> {
        let path = self.temporary_path()?;
        let mut direct = len >= DIRECT_FROM && self.direct.load(Ordering::Relaxed);
        let mut opened = self.disk.create(&path, direct);
        if direct && opened.as_ref().is_err_and(refused) {
            self.direct.store(false, Ordering::Relaxed);
            direct = false;
            // Some file systems have made the file before they refuse.
            let _ = self.disk.remove(&path);
            opened = self.disk.create(&path, false);
        }
        let file = opened.map_err(|error| LocalError::io(Step::Create, &path, error))?;
        Ok(Temporary { disk: &self.disk, path, file, direct, renamed: false })
    }

    fn write(&self, temporary: &mut Temporary<'_, D>, body: &PutPayload) -> io::Result<()> {
        let len = body.content_length();
        if len >= DIRECT_FROM {
            self.reserve(&temporary.file, len.next_multiple_of(BLOCK))?;
        }
        if temporary.direct {
            self.write_direct(&temporary.file, body)
        } else {
            let mut offset = 0;
            for part in body.iter() {
                self.disk.write_at(&temporary.file, part, offset)?;
                offset += part.len() as u64;
            }
            self.disk.set_len(&temporary.file, offset)
        }
    }

    /// Gathers the body in an aligned buffer and writes it in large pieces; the last one is padded and cut off again.
    fn write_direct(&self, file: &D::File, body: &PutPayload) -> io::Result<()> {
        let len = body.content_length();
        let stage = STAGE.min(len.next_multiple_of(BLOCK));
        let mut stage = Stage::new(&self.pool, stage);
        let mut offset = 0;
        for part in body.iter() {
            let mut part = part.as_ref();
            while !part.is_empty() {
                part = stage.fill(part);
                if stage.is_full() {
                    self.write_stage(file, &mut stage, &mut offset)?;
                }
            }
        }
        stage.pad();
        self.write_stage(file, &mut stage, &mut offset)?;
        self.disk.set_len(file, len as u64)
    }

    fn write_stage(&self, file: &D::File, stage: &mut Stage, offset: &mut u64) -> io::Result<()> {
        let bytes = stage.bytes();
        let result = match self.disk.write_at(file, bytes, *offset) {
            Err(error) if refused(&error) => {
                self.direct.store(false, Ordering::Relaxed);
                self.disk.leave_direct(file)?;
                self.disk.write_at(file, bytes, *offset)
            }
            result => result,
        };
        *offset += bytes.len() as u64;
        stage.clear();
        result
    }

    /// Asks for all the space at once: one extent instead of many, and a full disk is noticed before anything is written.
    fn reserve(&self, file: &D::File, len: usize) -> io::Result<()> {
        match self.disk.reserve(file, len as u64) {
            Err(error) if refused(&error) => Ok(()),
            result => result,
        }
    }

    pub(super) fn sync_file(&self, path: &Path, file: &D::File) -> Result<(), LocalError> {
        if !self.options.fsync {
            return Ok(());
        }
        self.disk.sync(file).map_err(|source| unsynced(Step::SyncFile, path, source))
    }

    pub(super) fn sync_directory(&self, path: &Path) -> Result<(), LocalError> {
        if !self.options.fsync {
            return Ok(());
        }
        self.disk.sync_directory(path).map_err(|source| unsynced(Step::SyncDirectory, path, source))
    }

    pub(super) fn sweep(&self, before: i64) -> Result<u64, LocalError> {
        let directory = self.root.join(RESERVED);
        let failed = |error| LocalError::io(Step::Look, &directory, error);
        let names = match self.disk.names(&directory) {
            Ok(names) => names,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return self.check_root().map(|()| 0),
            Err(error) => return Err(failed(error)),
        };
        let mut removed = 0;
        for name in names {
            let name = name.map_err(failed)?;
            let Ok(stat) = name.stat() else { continue };
            let modified = stat.modified.0.saturating_mul(1_000_000_000).saturating_add(stat.modified.1);
            if stat.kind == Kind::File && modified < before {
                let path = directory.join(name.name());
                match self.disk.remove(&path) {
                    Ok(()) => removed += 1,
                    // Another collection was quicker.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(LocalError::io(Step::Remove, &path, error)),
                }
            }
        }
        Ok(removed)
    }
}

/// Whether a file system says that it cannot do a thing at all.
fn refused(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP | libc::ENOSYS))
}

fn unsynced(step: Step, path: &Path, source: io::Error) -> LocalError {
    if refused(&source) {
        LocalError::NoSync { path: path.to_owned(), source }
    } else {
        LocalError::io(step, path, source)
    }
}

/// An aligned piece of memory that gathers bytes.
struct Stage {
    buffer: super::super::pool::Buffer,
    start: usize,
    size: usize,
    filled: usize,
}

impl Stage {
    /// `size` is a multiple of [`BLOCK`].
    fn new(pool: &Pool, size: usize) -> Self {
        let buffer = pool.take(size + BLOCK);
        // Should the address not tell, the write is refused and repeated through the page cache.
        let start = buffer.as_ptr().align_offset(BLOCK).min(BLOCK);
        Self { buffer, start, size, filled: 0 }
    }

    /// Takes what fits and returns the rest.
    fn fill<'a>(&mut self, part: &'a [u8]) -> &'a [u8] {
        let count = part.len().min(self.size - self.filled);
        let (now, rest) = part.split_at(count);
        let at = self.start + self.filled;
        self.buffer[at..at + count].copy_from_slice(now);
        self.filled += count;
        rest
    }

    fn pad(&mut self) {
        let end = self.filled.next_multiple_of(BLOCK);
        self.buffer[self.start + self.filled..self.start + end].fill(0);
        self.filled = end;
    }

    fn is_full(&self) -> bool {
        self.filled == self.size
    }

    fn bytes(&self) -> &[u8] {
        &self.buffer[self.start..self.start + self.filled]
    }

    fn clear(&mut self) {
        self.filled = 0;
    }
}
