//! Stored bytes of trees that came from a store far away, as files of the local cache.
//!
//! ```text
//! <cache>/<repository>/trees/<pack>-<offset>    bytes of the pack from that offset on
//! ```
//!
//! A tree that many backups have changed lies in many packs, and whoever walks it in the order of its names comes back to each of
//! them again and again. So what was fetched is kept, and fetched once.
//!
//! # Invariants
//! Nothing here is believed: a segment is opened with its key, and its chunks are named anew, wherever its bytes come from.
//! What does not open is thrown away and fetched. It is as much encrypted as the repository.
//!
//! # Crash
//! A file gets its name when all of it is written. What a crash leaves under another name is removed when there are files that
//! are an hour younger.
//!
//! # Must not
//! Be read by a verification, or by a collection: those ask what the store has.

use std::collections::{HashMap, VecDeque};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use super::open::Repository;
use crate::id::PackId;
use crate::random::{Random, random_array};

/// Most bytes of all files together.
const BYTES_MAX: u64 = 512 << 20;
/// Most files.
const FILES_MAX: usize = 20_000;
/// How much older than the youngest file one is that will not be finished any more.
const PART_AGE: Duration = Duration::from_secs(3600);

/// The cache of one run. Nothing it meets is an error: without a usable directory there is no cache.
pub struct TreeCache {
    dir: PathBuf,
    random: Arc<dyn Random>,
    held: Mutex<Held>,
}

/// What there is, the oldest first.
#[derive(Default)]
struct Held {
    by_pack: HashMap<PackId, Vec<Range<u64>>>,
    order: VecDeque<(PackId, Range<u64>)>,
    bytes: u64,
    /// No more is written after a failure: the disk is full, or must not be written to.
    failed: bool,
}

impl TreeCache {
    /// The repository's cache, unless its store is near or nothing is to be kept.
    pub fn open(repo: &Repository) -> Option<Arc<Self>> {
        if repo.store().is_local() {
            return None;
        }
        let dir = repo.env().places.cache.as_ref()?.join(repo.id().to_string()).join("trees");
        let cache = Self { dir, random: Arc::clone(&repo.env().random), held: Mutex::default() };
        cache.find();
        cache.trim(0);
        Some(Arc::new(cache))
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, pack: &PackId, from: u64) -> PathBuf {
        self.dir.join(format!("{pack}-{from}"))
    }

    /// Notes the files that are there, and removes what was never finished.
    fn find(&self) {
        let Ok(entries) = fs::read_dir(&self.dir) else { return };
        let mut found: Vec<(SystemTime, PackId, Range<u64>)> = Vec::new();
        let mut parts = Vec::new();
        for entry in entries.flatten() {
            let Ok(meta) = entry.metadata() else { continue };
            let modified = meta.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            match parse(&entry.file_name().to_string_lossy()) {
                Some((pack, from)) if meta.is_file() => found.push((modified, pack, from..from + meta.len())),
                _ => parts.push((modified, entry.path())),
            }
        }
        // Their own times tell what is old, so that no clock is asked.
        let newest = found.iter().map(|(modified, ..)| *modified).max();
        for (modified, path) in parts {
            let age = newest.and_then(|newest| newest.duration_since(modified).ok());
            if age.is_some_and(|age| age > PART_AGE) {
                let _ = fs::remove_file(path);
            }
        }
        found.sort_by_key(|(modified, ..)| *modified);
        let mut held = self.held();
        for (_, pack, range) in found {
            held.add(pack, range);
        }
    }

    /// Bytes of a pack, if they are there.
    pub(super) fn get(&self, pack: &PackId, range: Range<u64>) -> Option<Bytes> {
        let from = self.held().covering(pack, &range)?;
        let mut bytes = vec![0; usize::try_from(range.end - range.start).ok()?];
        let read = File::open(self.path(pack, from))
            .and_then(|file| file.read_exact_at(&mut bytes, range.start - from));
        if read.is_err() {
            self.forget(pack);
            return None;
        }
        Some(bytes.into())
    }

    /// Keeps bytes of a pack, in the place of the oldest ones. False if they are not kept.
    pub(super) fn put(&self, pack: &PackId, from: u64, bytes: &[u8]) -> bool {
        let len = bytes.len() as u64;
        if len > BYTES_MAX / 4 || self.held().failed {
            return false;
        }
        self.trim(len);
        if self.write(&self.path(pack, from), bytes).is_err() {
            self.held().failed = true;
            return false;
        }
        let within = self.held().add(*pack, from..from + len);
        for start in within {
            let _ = fs::remove_file(self.path(pack, start));
        }
        true
    }

    /// Throws away what is kept of a pack.
    pub(super) fn forget(&self, pack: &PackId) {
        let ranges = self.held().remove(pack);
        for range in ranges {
            let _ = fs::remove_file(self.path(pack, range.start));
        }
    }

    /// Makes room for so many bytes.
    fn trim(&self, more: u64) {
        loop {
            let mut held = self.held();
            if held.bytes + more <= BYTES_MAX && held.order.len() < FILES_MAX {
                return;
            }
            let Some((pack, range)) = held.order.front().cloned() else { return };
            held.drop_range(&pack, &range);
            drop(held);
            let _ = fs::remove_file(self.path(&pack, range.start));
        }
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.dir)?;
        let suffix = u64::from_le_bytes(random_array(&*self.random).map_err(io::Error::other)?);
        let part = path.with_extension(format!("{suffix:016x}"));
        let written = OpenOptions::new()
            .create_new(true)
            .write(true)
            .mode(0o600)
            .open(&part)
            .and_then(|mut file| file.write_all(bytes))
            .and_then(|()| fs::rename(&part, path));
        if written.is_err() {
            let _ = fs::remove_file(&part);
        }
        written
    }
}

impl Held {
    /// Where the file begins that has all of these bytes.
    fn covering(&self, pack: &PackId, range: &Range<u64>) -> Option<u64> {
        let ranges = self.by_pack.get(pack)?;
        ranges.iter().find(|held| held.start <= range.start && range.end <= held.end).map(|held| held.start)
    }

    /// Adds a range, and says where those begin that are within it and of no use any more.
    fn add(&mut self, pack: PackId, range: Range<u64>) -> Vec<u64> {
        let of_pack = self.by_pack.get(&pack).cloned().unwrap_or_default();
        let within = |held: &Range<u64>| range.start <= held.start && held.end <= range.end;
        let within: Vec<_> = of_pack.into_iter().filter(within).collect();
        within.iter().for_each(|held| self.drop_range(&pack, held));
        self.bytes += range.end - range.start;
        self.by_pack.entry(pack).or_default().push(range.clone());
        self.order.push_back((pack, range.clone()));
        within.into_iter().map(|held| held.start).filter(|start| *start != range.start).collect()
    }

    fn remove(&mut self, pack: &PackId) -> Vec<Range<u64>> {
        let ranges = self.by_pack.get(pack).cloned().unwrap_or_default();
        ranges.iter().for_each(|range| self.drop_range(pack, range));
        ranges
    }

    fn drop_range(&mut self, pack: &PackId, range: &Range<u64>) {
        if let Some(ranges) = self.by_pack.get_mut(pack) {
            ranges.retain(|held| held != range);
        }
        self.order.retain(|held| held != &(*pack, range.clone()));
        self.bytes = self.bytes.saturating_sub(range.end - range.start);
    }
}

/// Reads a file's name.
fn parse(name: &str) -> Option<(PackId, u64)> {
    let (pack, from) = name.split_once('-')?;
    let from = from.parse().ok().filter(|parsed: &u64| parsed.to_string() == from)?;
    Some((pack.parse().ok()?, from))
}

#[cfg(test)]
mod tests;
