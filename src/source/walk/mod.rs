//! Walking trees of files: every entry once, depth first, in byte order of raw names, in bounded memory.
//!
//! # Invariants
//! A directory is followed by everything in it and then by [`Item::Leave`]; all comes in the order of a naive sorted
//! recursive walk, whatever the number of threads. No path is ever given to the system, only single names, so neither
//! depth nor length has a limit; nothing recurses. An entry that fails does not take its siblings with it.
//!
//! # Must not
//! Follow symbolic links below a root, enter a file system of the kernel's own state, or wait for itself.

mod dir;
mod entry;
mod explain;
mod ignores;
mod list;
mod names;
mod queue;
mod roots;
mod run;
mod spill;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::cancel::Cancel;
use crate::filter::Filter;
use crate::source::error::SourceError;
pub use dir::Dir;
pub use entry::Entry;
pub use explain::{Explanation, Fate, Omission, explain};
pub use run::Walk;

/// Something to walk.
#[derive(Debug, Clone)]
pub struct Root {
    /// Absolute path in the source. Symbolic links on the way are followed; if the last part is one, the link is stored.
    pub path: PathBuf,
    /// The parts of the path under which it is stored; none for the root of the snapshot's tree.
    pub stored: Vec<Vec<u8>>,
}

impl Root {
    /// A root that is stored under its own path.
    pub fn at(path: PathBuf) -> Self {
        let stored = roots::parts(&path).map(<[u8]>::to_vec).collect();
        Self { path, stored }
    }
}

/// What to walk and how.
#[derive(Debug)]
pub struct WalkOptions {
    /// Several roots may overlap or lie in each other; they become one tree.
    pub roots: Vec<Root>,
    /// Places of files that stand nowhere in the source, and whose content comes from elsewhere: the parts of their paths. They
    /// are entries with [`Entry::stream`], and no rule leaves them out.
    pub streams: Vec<Vec<Vec<u8>>>,
    /// Rules on absolute source paths.
    pub filter: Arc<Filter>,
    /// Do not enter directories on another file system or mount than their root's; they are shown empty.
    pub one_file_system: bool,
    /// Of a directory with a valid `CACHEDIR.TAG` keep only the tag.
    pub exclude_caches: bool,
    /// Leave out regular files larger than this, in bytes.
    pub exclude_larger_than: Option<u64>,
    /// Device and inode of directories to leave out, such as the repository itself. A root is never left out.
    pub skip_dirs: Vec<(u64, u64)>,
    /// Where names of huge directories are sorted; an unlinked file.
    pub temp_dir: PathBuf,
    /// Threads that list ahead. With none the consumer does all.
    pub threads: usize,
    /// Stops the walk.
    pub cancel: Cancel,
    /// Bounds.
    pub tuning: Tuning,
}

/// Bounds on memory and descriptors. They change nothing in what a walk delivers.
#[derive(Clone)]
pub struct Tuning {
    /// Entries looked at before the consumer has come to their directory; about 200 bytes each.
    pub lookahead: usize,
    /// Entries of one directory looked at in one go.
    pub block: usize,
    /// Bytes of names of one directory kept in memory.
    pub names_bytes: usize,
    /// Directories kept open.
    pub open_dirs: usize,
    #[cfg(test)]
    pub(crate) after_listing: Option<Hook>,
}

#[cfg(test)]
pub(crate) type Hook = Arc<dyn Fn(&std::path::Path) + Send + Sync>;

impl std::fmt::Debug for Tuning {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { lookahead, block, names_bytes, open_dirs, .. } = self;
        write!(f, "Tuning({lookahead} entries ahead, {block} a block, {names_bytes} bytes, {open_dirs} open)")
    }
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            lookahead: 16 * 1024,
            block: 4096,
            names_bytes: 16 * 1024 * 1024,
            open_dirs: 256,
            #[cfg(test)]
            after_listing: None,
        }
    }
}

impl Tuning {
    /// Deep down blocks are smaller, because one is held for every directory on the way.
    fn block_at(&self, depth: u32) -> usize {
        (self.block * 16 / (depth as usize).max(16)).max(64).min(self.block.max(1))
    }
}

/// What a walk delivers.
#[derive(Debug)]
pub enum Item {
    /// A directory, before what is in it.
    Enter {
        /// The directory.
        entry: Entry,
        /// Why it could not be listed, or not to the end; what was listed follows all the same.
        error: Option<SourceError>,
    },
    /// The end of the directory entered last.
    Leave,
    /// Anything but a directory.
    Entry(Entry),
    /// An entry about which nothing more is known than its name.
    Failed(Failure),
}

/// An entry that could not be looked at.
#[derive(Debug)]
pub struct Failure {
    /// The directory it is in.
    pub dir: Arc<Dir>,
    /// Its name; `.` if a part of the directory itself could not be listed.
    pub name: Box<[u8]>,
    /// Why.
    pub error: SourceError,
}

/// What a walk left out, in entries; what lies below a directory left out is not counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WalkStats {
    /// By include and exclude rules.
    pub by_rules: u64,
    /// Files above the limit on size.
    pub too_large: u64,
    /// In directories tagged as caches.
    pub in_caches: u64,
    /// Directories of [`WalkOptions::skip_dirs`].
    pub skipped: u64,
    /// Directories shown empty because another file system is mounted there.
    pub other_mounts: u64,
    /// Directories shown empty because they show the state of the kernel.
    pub pseudo: u64,
}

#[derive(Debug, Default)]
struct Counts {
    by_rules: AtomicU64,
    too_large: AtomicU64,
    in_caches: AtomicU64,
    skipped: AtomicU64,
    other_mounts: AtomicU64,
    pseudo: AtomicU64,
}

impl Counts {
    fn read(&self) -> WalkStats {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        WalkStats {
            by_rules: read(&self.by_rules),
            too_large: read(&self.too_large),
            in_caches: read(&self.in_caches),
            skipped: read(&self.skipped),
            other_mounts: read(&self.other_mounts),
            pseudo: read(&self.pseudo),
        }
    }
}

/// What every thread of a walk knows.
#[derive(Debug)]
struct Context {
    roots: roots::Roots,
    filter: Arc<Filter>,
    one_file_system: bool,
    exclude_caches: bool,
    exclude_larger_than: Option<u64>,
    skip_dirs: Vec<(u64, u64)>,
    spill: Arc<spill::Spill>,
    names_held: Arc<AtomicUsize>,
    counts: Counts,
    tuning: Tuning,
}

/// A directory of the test's own.
#[cfg(test)]
pub(super) fn test_dir() -> (tempfile::TempDir, Arc<Dir>) {
    let temp = tempfile::tempdir().expect("a place for tests");
    let dir = open_test_dir(temp.path());
    (temp, dir)
}

#[cfg(test)]
pub(super) fn open_test_dir(path: &std::path::Path) -> Arc<Dir> {
    let mut dir = Dir::root(dir::Window::new(8)).expect("the root of the file system");
    for part in roots::parts(path) {
        let handle = dir.handle().expect("a directory of the test");
        let stat = crate::source::sys::stat::stat_target(&*handle, part).expect("a directory of the test");
        dir = dir.child(part, &stat, true);
    }
    dir
}

#[cfg(test)]
mod tests;
