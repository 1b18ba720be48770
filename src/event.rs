//! How a run tells what it does. Two channels, because a progress bar must never slow a worker down:
//! rare, ordered events, and counters that anyone may read at any time.

use std::error::Error;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::class::Class;
use crate::id::SnapshotId;

/// A part of a run that a person would recognise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Opening the repository and loading its index.
    Open,
    /// Reading sources and storing what is new.
    Backup,
    /// Bringing a snapshot from another repository.
    Transfer,
    /// Making the snapshot and checking it.
    Commit,
    /// Working out what to fetch.
    Plan,
    /// Fetching and writing.
    Restore,
    /// Reading back and comparing.
    Verify,
    /// Finding out what snapshots need.
    Mark,
    /// Moving what is needed, deleting what is not.
    Collect,
    /// Sealing what is under old keys again.
    Reencrypt,
}

/// A fact about a run, in order.
#[derive(Debug)]
pub enum Event<'a> {
    /// A phase began; `total` is in bytes where it is known.
    PhaseStarted {
        /// Which.
        phase: Phase,
        /// Bytes to go through, if known.
        total: Option<u64>,
    },
    /// A phase ended; not sent if an error ended it.
    PhaseFinished {
        /// Which.
        phase: Phase,
    },
    /// An entry is being worked on; sent only when [`Observer::wants_entries`].
    Entry {
        /// Its path.
        path: &'a Path,
        /// What happened to it.
        change: EntryChange,
    },
    /// An entry could not be saved, restored or set in full. This is what turns exit 0 into 3.
    EntryFailed {
        /// Its path.
        path: &'a Path,
        /// Why.
        error: &'a (dyn Error + 'static),
        /// What kind of failure.
        class: Class,
    },
    /// Something the user should know; nothing is lost.
    Warning {
        /// A full sentence without a period.
        message: &'a str,
    },
    /// A command whose output is saved wrote a line to standard error.
    Said {
        /// What its output is called.
        name: &'a Path,
        /// The line, without its end.
        line: &'a str,
    },
    /// A request to the store failed and will be tried again.
    Retrying {
        /// The object.
        key: &'a str,
        /// How often it was tried.
        attempt: u32,
        /// Why.
        error: &'a (dyn Error + 'static),
    },
    /// A snapshot is stored and confirmed.
    Committed {
        /// Its name.
        snapshot: SnapshotId,
    },
}

/// What a run did with one entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EntryChange {
    /// Not there last time.
    New,
    /// Different from last time.
    Changed,
    /// As it was last time.
    Unchanged,
    /// Written to the target.
    Restored,
    /// Removed from the target.
    Removed,
}

/// Amounts of a run. Relaxed atomics: exact once the run has ended, near enough while it goes on.
#[derive(Debug, Default)]
pub struct Counters {
    /// Files, directories and all other entries seen.
    pub entries: AtomicU64,
    /// Regular files seen.
    pub files: AtomicU64,
    /// Bytes of content gone through, whether read or known to be unchanged.
    pub bytes: AtomicU64,
    /// Bytes of content really read.
    pub bytes_read: AtomicU64,
    /// Bytes sent to the store.
    pub bytes_stored: AtomicU64,
    /// Bytes fetched from the store.
    pub bytes_fetched: AtomicU64,
    /// Entries that failed.
    pub failed: AtomicU64,
    /// Expected bytes in total, if known; zero before.
    pub total_bytes: AtomicU64,
}

impl Counters {
    /// Adds to one of the counters.
    pub fn add(counter: &AtomicU64, amount: u64) {
        counter.fetch_add(amount, Ordering::Relaxed);
    }
}

/// Who is told. The library states facts; words, bars and JSON belong to the caller.
pub trait Observer: Send + Sync {
    /// Takes one event; called from any thread, never concurrently for one phase's start and end.
    fn observe(&self, event: &Event<'_>);

    /// The amounts of this run.
    fn counters(&self) -> &Counters;

    /// Whether an event for each entry is wanted.
    fn wants_entries(&self) -> bool {
        false
    }
}

/// An observer that only counts.
#[derive(Debug, Default)]
pub struct CountingObserver(Counters);

impl Observer for CountingObserver {
    fn observe(&self, event: &Event<'_>) {
        if let Event::EntryFailed { .. } = event {
            Counters::add(&self.0.failed, 1);
        }
    }

    fn counters(&self) -> &Counters {
        &self.0
    }
}
