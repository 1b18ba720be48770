//! What the walk, the bridge and the workers of one restore share: the queue of work, what went wrong, what was done.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::error::Error as StdError;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, OwnedSemaphorePermit};

use super::entries::{Dir, File, Meta, as_path};
use super::flaw::Flaw;
use super::output::Place;
use super::speed::Work;
use super::survey::Survey;
use super::window::{Lost, Window};
use super::{Planned, RestoreSummary};
use crate::cancel::Cancel;
use crate::class::Class;
use crate::crypto::SecretKey;
use crate::error::Error;
use crate::event::{Counters, EntryChange, Event, Observer};
use crate::format::node::{Node, Problem};
use crate::id::RepositoryId;
use crate::source::target::{LinkSource, MetadataFailure, NodeKind, Overwrite, Target, TargetError};

/// Entries after which the walk looks again whether it may go on.
const ROOM_STEP: usize = 1 << 10;

/// Most paths that are kept of what is left out; all are counted and reported as events.
const DAMAGED_KEPT: usize = 10_000;

/// Why an entry is left out, where no other error says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum EntryProblem {
    #[error(transparent)]
    Flaw(#[from] Flaw),
    #[error("a part of its content has no readable copy: what lay there on the device still does")]
    LostOnDevice,
    #[error("what was written reads back as something else")]
    ReadBack,
    #[error("its directory could not be made")]
    NoDirectory,
    #[error("a part of its content has no readable copy: what stands there is partly old, partly restored")]
    Mixed,
    #[error("another entry with this name was restored, from another directory that is stripped")]
    Taken,
}

/// Something without content to be done by a worker.
#[derive(Debug)]
pub(super) enum Task {
    /// The walk is through with a file.
    Release(Arc<File>),
    /// The walk leaves a directory.
    Leave(Arc<Dir>),
    /// A symlink.
    Symlink { dir: Arc<Dir>, name: Box<[u8]>, target: Vec<u8>, meta: Meta, link: Option<[u8; 16]> },
    /// A pipe, socket or device.
    Special { dir: Arc<Dir>, name: Box<[u8]>, kind: NodeKind, meta: Meta, link: Option<[u8; 16]> },
    /// A hole of a file that goes onto a device.
    Zero(Arc<File>, std::ops::Range<u64>),
    /// A further name of something that was made.
    Link { entry: Late, source: LinkSource },
}

/// An entry that the walk has to look at again.
#[derive(Debug)]
pub(super) struct Late {
    pub(super) dir: Arc<Dir>,
    pub(super) node: Box<Node>,
    /// It could not be linked, so it becomes an entry of its own.
    pub(super) alone: bool,
}

/// Work for a worker.
#[derive(Debug)]
pub(super) enum Job {
    /// A fetched segment.
    Segment { window: Arc<Window>, segment: usize, stored: Bytes, budget: Arc<OwnedSemaphorePermit> },
    /// Things without content.
    Tasks(Vec<Task>),
    /// Files to hold against what stands in the target.
    Survey(Survey),
}

/// How existing entries are dealt with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Policy {
    pub(super) overwrite: Overwrite,
    pub(super) in_place: bool,
    pub(super) dry: bool,
}

impl Policy {
    /// Whether what stands is looked at before anything is fetched.
    pub(super) fn surveys(self) -> bool {
        self.in_place || self.dry || self.overwrite != Overwrite::Always
    }
}

/// How far the first of several names has come.
#[derive(Debug)]
pub(super) enum LinkState {
    /// It is on its way; the others wait.
    Pending { content: [u8; 16], waiting: Vec<Late> },
    /// It stands.
    Made { content: [u8; 16], source: LinkSource },
}

#[derive(Debug, Default)]
struct Queue {
    jobs: VecDeque<Job>,
    closed: bool,
}

/// Amounts of the summary.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) entries: AtomicU64,
    pub(super) files: AtomicU64,
    pub(super) bytes: AtomicU64,
    pub(super) chunks: AtomicU64,
    pub(super) compared: AtomicU64,
    pub(super) kept: AtomicU64,
    pub(super) left: AtomicU64,
    pub(super) removed: AtomicU64,
    pub(super) fetched: AtomicU64,
    /// Bytes that the target will take up more, as far as a dry run knows.
    pub(super) growth: AtomicI64,
    pub(super) failed: AtomicU64,
    pub(super) damaged: AtomicU64,
    pub(super) doubted: AtomicU64,
}

pub(super) struct Run {
    /// None in a dry run if nothing stands there.
    pub(super) target: Option<Place>,
    pub(super) policy: Policy,
    pub(super) sparse: bool,
    pub(super) verify: bool,
    pub(super) repository: RepositoryId,
    pub(super) id_key: SecretKey,
    pub(super) observer: Arc<dyn Observer>,
    pub(super) cancel: Cancel,
    pub(super) wants_entries: bool,
    queue: Mutex<Queue>,
    ready: Condvar,
    /// Entries that were handed over and are not done.
    outstanding: AtomicUsize,
    /// Nothing is outstanding, or the run stops: for the walk.
    pub(super) idle: Notify,
    /// Less is outstanding than before, or the run stops: for the walk.
    room: Notify,
    /// Something was lost, or the run stops: for the bridge.
    pub(super) attention: Notify,
    pub(super) lost: Mutex<Vec<Lost>>,
    pub(super) late: Mutex<Vec<Late>>,
    /// An ordered map, because it grows without ever being twice in memory.
    pub(super) links: Mutex<BTreeMap<[u8; 16], LinkState>>,
    pub(super) tally: Tally,
    /// Which hard link a file with several names that stood in the target was kept for.
    claims: Mutex<HashMap<(u64, u64), [u8; 16]>>,
    damaged: Mutex<Vec<Vec<u8>>>,
    stop: AtomicBool,
    failure: Mutex<Option<Error>>,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Run {
    pub(super) fn new(
        (target, policy): (Option<Place>, Policy),
        (sparse, verify): (bool, bool),
        (repository, id_key): (RepositoryId, SecretKey),
        (observer, cancel): (Arc<dyn Observer>, Cancel),
    ) -> Self {
        Self {
            target,
            policy,
            sparse,
            verify,
            repository,
            id_key,
            wants_entries: observer.wants_entries(),
            observer,
            cancel,
            queue: Mutex::default(),
            ready: Condvar::new(),
            outstanding: AtomicUsize::new(0),
            idle: Notify::new(),
            room: Notify::new(),
            attention: Notify::new(),
            lost: Mutex::default(),
            late: Mutex::default(),
            links: Mutex::default(),
            tally: Tally::default(),
            claims: Mutex::default(),
            damaged: Mutex::default(),
            stop: AtomicBool::new(false),
            failure: Mutex::default(),
        }
    }

    /// Queues work; none any more when the run stops. Whoever waits for what becomes of it hears that it was dropped, also if
    /// no worker is left.
    pub(super) fn push(&self, job: Job) {
        let mut queue = lock(&self.queue);
        if !self.stop.load(Ordering::Acquire) {
            queue.jobs.push_back(job);
            self.ready.notify_one();
        }
    }

    /// The next piece of work; waits for it. `None` when there will be none.
    pub(super) fn pop(&self) -> Option<Job> {
        let mut queue = lock(&self.queue);
        loop {
            if let Some(job) = queue.jobs.pop_front() {
                return Some(job);
            }
            if queue.closed {
                return None;
            }
            queue = self.ready.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// No more work will come.
    pub(super) fn close(&self) {
        lock(&self.queue).closed = true;
        self.ready.notify_all();
    }

    /// An entry is handed over; in a dry run to nobody.
    pub(super) fn begin(&self) {
        if !self.policy.dry {
            self.outstanding.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// An entry is done, whatever came of it.
    pub(super) fn end(&self) {
        let left = self.outstanding.fetch_sub(1, Ordering::AcqRel) - 1;
        if left == 0 {
            self.idle.notify_one();
        }
        if left.is_multiple_of(ROOM_STEP) {
            self.room.notify_one();
        }
    }

    /// Waits while more than `most` entries are outstanding, unless the run stops. They must all come to their end without
    /// whoever waits.
    pub(super) async fn room(&self, most: usize) {
        while self.outstanding.load(Ordering::Acquire) > most.max(ROOM_STEP) && !self.stopped() {
            self.room.notified().await;
        }
    }

    /// Whether everything that was handed over is done.
    pub(super) fn is_idle(&self) -> bool {
        self.outstanding.load(Ordering::Acquire) == 0
    }

    /// Whether the run comes to an end before its time.
    pub(super) fn stopped(&self) -> bool {
        if self.cancel.is_raised() {
            self.fail(Error::Cancelled);
        }
        self.stop.load(Ordering::Acquire)
    }

    /// Ends the run; the first error counts.
    pub(super) fn fail(&self, error: Error) {
        lock(&self.failure).get_or_insert(error);
        if !self.stop.swap(true, Ordering::AcqRel) {
            let left = std::mem::take(&mut lock(&self.queue).jobs);
            drop(left);
            self.idle.notify_one();
            self.room.notify_one();
            self.attention.notify_one();
            self.ready.notify_all();
        }
    }

    /// Why the run ended, if it was not done.
    pub(super) fn failure(&self) -> Option<Error> {
        lock(&self.failure).take()
    }

    /// The paths that were left out, as many as were kept.
    pub(super) fn damaged_paths(&self) -> Vec<Vec<u8>> {
        let mut paths = std::mem::take(&mut *lock(&self.damaged));
        paths.sort_unstable();
        paths
    }

    /// An entry is left out because the repository is damaged.
    pub(super) fn report_damaged(&self, path: Vec<u8>, error: &(dyn StdError + 'static)) {
        self.tally.damaged.fetch_add(1, Ordering::Relaxed);
        {
            let mut damaged = lock(&self.damaged);
            if damaged.len() < DAMAGED_KEPT {
                damaged.push(path.clone());
            }
        }
        let path = as_path(path);
        self.observer.observe(&Event::EntryFailed { path: &path, error, class: Class::Damage });
    }

    /// An entry, or a part of its metadata, could not be restored.
    pub(super) fn report_failed(&self, path: Vec<u8>, error: &(dyn StdError + 'static), class: Class) {
        self.tally.failed.fetch_add(1, Ordering::Relaxed);
        let path = as_path(path);
        self.observer.observe(&Event::EntryFailed { path: &path, error, class });
    }

    /// Whether there is anything of an entry to restore; what is wrong with it is reported.
    pub(super) fn is_saved(&self, dir: &Dir, node: &Node) -> bool {
        match node.problem {
            Some(Problem::Unreadable) => {
                self.report_failed(dir.path_of(&node.name), &Flaw::Unsaved, Class::Partial);
                // Of a directory that was saved in part, that part comes back.
                return node.tree.is_some();
            }
            Some(Problem::Changed) => {
                self.tally.doubted.fetch_add(1, Ordering::Relaxed);
                let path = as_path(dir.path_of(&node.name));
                let message = format!("{}: {}", path.display(), Flaw::ChangedThen);
                self.observer.observe(&Event::Warning { message: &message });
            }
            None => {}
        }
        true
    }

    /// The target refused an entry. One that is full, or gone, ends the run.
    pub(super) fn report_refused(&self, path: Vec<u8>, error: TargetError) {
        let gone = || error.may_be_gone() && self.directory().is_some_and(Target::is_gone);
        match error.class() {
            Class::NoSpace => self.fail(Error::Target(error)),
            Class::Failed if gone() => self.fail(Error::Target(error)),
            Class::Damage => self.report_damaged(path, &error),
            class => self.report_failed(path, &error, class),
        }
    }

    /// Metadata that could not be set: one failed entry, however many properties it is.
    pub(super) fn report_unset(&self, path: impl FnOnce() -> Vec<u8>, failures: &[MetadataFailure]) {
        let Some(first) = failures.first() else { return };
        self.tally.failed.fetch_add(1, Ordering::Relaxed);
        let path = as_path(path());
        self.observer.observe(&Event::EntryFailed { path: &path, error: first, class: first.class() });
        for failure in &failures[1..] {
            let message = format!("{}: {failure}: {}", path.display(), failure.error);
            self.observer.observe(&Event::Warning { message: &message });
        }
    }

    /// An entry stands.
    pub(super) fn report_done(&self, path: impl FnOnce() -> Vec<u8>, is_file: bool) {
        self.tally.entries.fetch_add(1, Ordering::Relaxed);
        let counters = self.observer.counters();
        Counters::add(&counters.entries, 1);
        if is_file {
            self.tally.files.fetch_add(1, Ordering::Relaxed);
            Counters::add(&counters.files, 1);
        }
        if self.wants_entries {
            let path = as_path(path());
            self.observer.observe(&Event::Entry { path: &path, change: EntryChange::Restored });
        }
    }

    /// Whether a file with several names, which stands in the target, may be kept for this hard link: it is not for another.
    pub(super) fn claim(&self, file: (u64, u64), link: [u8; 16]) -> bool {
        *lock(&self.claims).entry(file).or_insert(link) == link
    }

    /// An entry stays as it stands, because it is not to be overwritten.
    pub(super) fn report_left(&self, path: impl FnOnce() -> Vec<u8>) {
        self.tally.left.fetch_add(1, Ordering::Relaxed);
        Counters::add(&self.observer.counters().entries, 1);
        if self.wants_entries {
            let path = as_path(path());
            self.observer.observe(&Event::Entry { path: &path, change: EntryChange::Unchanged });
        }
    }

    /// What was done so far, as it counts for time.
    pub(super) fn work(&self) -> Work {
        let get = |amount: &AtomicU64| amount.load(Ordering::Relaxed);
        let Tally { fetched, compared, entries, .. } = &self.tally;
        Work { fetched: get(fetched), compared: get(compared), entries: get(entries) }
    }

    /// How many hard links are remembered.
    pub(super) fn linked(&self) -> u64 {
        lock(&self.links).len() as u64
    }

    /// All that was done.
    pub(super) fn summary(&self, planned: Planned, elapsed: Duration) -> RestoreSummary {
        let get = |amount: &AtomicU64| amount.load(Ordering::Relaxed);
        let tally = &self.tally;
        RestoreSummary {
            entries: get(&tally.entries),
            files: get(&tally.files),
            bytes: get(&tally.bytes),
            chunks: get(&tally.chunks),
            kept: get(&tally.kept),
            left: get(&tally.left),
            removed: get(&tally.removed),
            fetched: get(&tally.fetched) + planned.bytes,
            failed: get(&tally.failed),
            damaged: self.damaged_paths(),
            damaged_count: get(&tally.damaged),
            doubted: get(&tally.doubted),
            elapsed,
            forecast: None,
        }
    }

    /// Chunks that must be looked for elsewhere.
    pub(super) fn lose(&self, lost: Vec<Lost>) {
        if !lost.is_empty() {
            lock(&self.lost).extend(lost);
            self.attention.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;
    use crate::event::CountingObserver;
    use crate::source::target::{Target, TargetOptions};

    impl Run {
        /// A run of nothing into a directory.
        pub(in crate::ops::restore) fn for_test(dir: &std::path::Path) -> Self {
            let target = Target::open(dir, TargetOptions::default()).unwrap();
            let world: (Arc<dyn Observer>, _) = (Arc::new(CountingObserver::default()), Cancel::default());
            let keys = (RepositoryId::new([1; 16]), SecretKey::from_bytes([2; 32]));
            Self::new((Some(Place::Directory(target)), Policy::default()), (false, false), keys, world)
        }
    }

    #[test]
    fn whoever_waits_for_work_hears_that_nobody_will_do_it() {
        let dir = tempfile::tempdir().unwrap();
        let run = Run::for_test(dir.path());
        for begun in [true, false] {
            let (answers, mut answered) = tokio::sync::mpsc::unbounded_channel();
            let survey = || Survey { parts: Arc::default(), pieces: Vec::new(), answers };
            if begun {
                run.push(Job::Survey(survey()));
                assert!(answered.recv().now_or_never().is_none());
                run.fail(Error::Cancelled);
            } else {
                run.push(Job::Survey(survey()));
            }
            assert!(matches!(answered.recv().now_or_never(), Some(None)), "pushed before: {begun}");
        }
    }

    #[test]
    fn whoever_hands_over_waits_until_less_is_under_way_or_the_run_stops() {
        let dir = tempfile::tempdir().unwrap();
        let run = Run::for_test(dir.path());
        let most = 2 * ROOM_STEP + 7;
        (0..4 * ROOM_STEP).for_each(|_| run.begin());
        let mut waiting = Box::pin(run.room(most));
        for left in (0..4 * ROOM_STEP).rev() {
            assert!(left < 2 * ROOM_STEP || waiting.as_mut().now_or_never().is_none(), "{left}");
            run.end();
            if left <= 2 * ROOM_STEP {
                break;
            }
        }
        assert!(waiting.as_mut().now_or_never().is_some());
        assert!(run.room(most).now_or_never().is_some(), "nothing to wait for");
        (0..4 * ROOM_STEP).for_each(|_| run.begin());
        let mut waiting = Box::pin(run.room(most));
        assert!(waiting.as_mut().now_or_never().is_none());
        run.fail(Error::Cancelled);
        assert!(waiting.now_or_never().is_some());
    }
}
