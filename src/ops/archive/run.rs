//! What the parts of one run share: what was done, what went wrong, who is told.

use std::collections::HashSet;
use std::error::Error as StdError;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, Semaphore};

use super::entry::Problem;
use crate::class::Class;
use crate::crypto::SecretKey;
use crate::error::Error;
use crate::event::{Counters, EntryChange, Event, Observer};
use crate::id::RepositoryId;
use crate::ops::restore::{RestoreSummary, as_path};
use crate::repo::RepoError;
use crate::seal::SegmentOpener;

/// Most paths that are kept of what is left out; all are counted and reported as events.
const DAMAGED_KEPT: usize = 10_000;

pub(super) struct Run {
    pub(super) repository: RepositoryId,
    pub(super) id_key: SecretKey,
    pub(super) observer: Arc<dyn Observer>,
    wants_entries: bool,
    /// Openers that nobody uses now.
    openers: Mutex<Vec<SegmentOpener>>,
    /// Threads that may work at the same time.
    pub(super) turns: Arc<Semaphore>,
    /// Segments may have become free.
    pub(super) released: Notify,
    /// Number of the last file whose rest nobody wants any more.
    given_up: AtomicU64,
    broken: AtomicBool,
    summary: Mutex<RestoreSummary>,
    damaged: Mutex<HashSet<Vec<u8>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Run {
    pub(super) fn new(
        (repository, id_key): (RepositoryId, SecretKey),
        observer: Arc<dyn Observer>,
        workers: usize,
    ) -> Self {
        Self {
            repository,
            id_key,
            wants_entries: observer.wants_entries(),
            observer,
            openers: Mutex::default(),
            turns: Arc::new(Semaphore::new(workers.max(1))),
            released: Notify::new(),
            given_up: AtomicU64::new(0),
            broken: AtomicBool::new(false),
            summary: Mutex::default(),
            damaged: Mutex::default(),
        }
    }

    /// An opener, given back with [`Run::give_back`].
    pub(super) fn opener(&self) -> Result<SegmentOpener, Error> {
        let free = lock(&self.openers).pop();
        Ok(free.map_or_else(|| SegmentOpener::new(self.repository), Ok)?)
    }

    pub(super) fn give_back(&self, opener: SegmentOpener) {
        lock(&self.openers).push(opener);
    }

    /// A thread ended without a result.
    pub(super) fn break_off(&self) {
        self.broken.store(true, Ordering::Release);
    }

    /// Fails if a thread ended without a result.
    pub(super) fn check(&self) -> Result<(), Error> {
        if self.broken.load(Ordering::Acquire) { Err(RepoError::Task.into()) } else { Ok(()) }
    }

    /// Nobody wants the rest of this file.
    pub(super) fn give_up(&self, file: u64) {
        self.given_up.fetch_max(file, Ordering::Relaxed);
    }

    /// Whether the rest of this file is not wanted. Files are given up in order.
    pub(super) fn is_given_up(&self, file: u64) -> bool {
        self.given_up.load(Ordering::Relaxed) >= file
    }

    /// Bytes came from the store.
    pub(super) fn add_fetched(&self, bytes: u64) {
        lock(&self.summary).fetched += bytes;
    }

    /// Content is in the archive.
    pub(super) fn add_bytes(&self, bytes: u64) {
        lock(&self.summary).bytes += bytes;
        Counters::add(&self.observer.counters().bytes, bytes);
    }

    /// An entry is in the archive.
    pub(super) fn done(&self, path: &[u8], is_file: bool) {
        {
            let mut summary = lock(&self.summary);
            summary.entries += 1;
            summary.files += u64::from(is_file);
        }
        let counters = self.observer.counters();
        Counters::add(&counters.entries, 1);
        Counters::add(&counters.files, u64::from(is_file));
        if self.wants_entries {
            let path = as_path(path.to_vec());
            self.observer.observe(&Event::Entry { path: &path, change: EntryChange::Restored });
        }
    }

    /// An entry is left out, or not there in full.
    pub(super) fn report(&self, path: &[u8], problem: Problem) {
        match problem.class() {
            Class::Damage => self.report_damaged(path, &problem),
            class => {
                lock(&self.summary).failed += 1;
                let path = as_path(path.to_vec());
                self.observer.observe(&Event::EntryFailed { path: &path, error: &problem, class });
            }
        }
    }

    /// An entry, or what is below it, is left out because the repository is damaged.
    pub(super) fn report_damaged(&self, path: &[u8], error: &(dyn StdError + 'static)) {
        lock(&self.summary).damaged_count += 1;
        {
            let mut damaged = lock(&self.damaged);
            if damaged.len() < DAMAGED_KEPT {
                damaged.insert(path.to_vec());
            }
        }
        let path = as_path(path.to_vec());
        self.observer.observe(&Event::EntryFailed { path: &path, error, class: Class::Damage });
    }

    /// Something to know, with which nothing is lost.
    pub(super) fn warn(&self, path: &[u8], problem: Problem) {
        let message = format!("{}: {problem}", as_path(path.to_vec()).display());
        self.observer.observe(&Event::Warning { message: &message });
    }

    /// What was done.
    pub(super) fn summary(&self) -> RestoreSummary {
        let mut summary = lock(&self.summary).clone();
        summary.damaged = lock(&self.damaged).iter().cloned().collect();
        summary.damaged.sort_unstable();
        summary
    }
}
