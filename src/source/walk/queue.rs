//! Who lists what: helpers run ahead of the consumer in the order in which it will come, within a bound.
//!
//! # Invariants
//! The consumer never waits for work that nobody has begun: it does that itself. So no bound and no number of helpers can
//! stop a walk. Jobs that wait or run form one list in walk order; when a job is done, the directories it found take its
//! place in the list.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::Failure;
use super::entry::Block;
use super::list::{Job, Output, Sub};
use crate::source::error::SourceError;
use std::sync::Arc;

const NONE: u32 = u32::MAX;

/// A directory or a part of one, ready for the consumer.
#[derive(Debug)]
pub(super) struct Listing {
    pub(super) block: Arc<Block>,
    pub(super) failures: std::vec::IntoIter<(u32, Failure)>,
    pub(super) subs: std::vec::IntoIter<(u32, Next)>,
    pub(super) rest: Option<u32>,
    pub(super) error: Option<SourceError>,
}

/// What the consumer does about a directory among the entries.
#[derive(Debug)]
pub(super) enum Next {
    /// Obtain this listing.
    Task { task: u32, leads: bool },
    /// Nothing.
    Empty,
    /// Show this.
    Failed(SourceError),
}

#[derive(Debug)]
enum State {
    Free,
    Waiting(Box<Job>),
    Running,
    Ready(Box<Listing>),
}

#[derive(Debug)]
struct Slot {
    state: State,
    before: u32,
    after: u32,
}

#[derive(Debug)]
struct Inner {
    slots: Vec<Slot>,
    free: Vec<u32>,
    head: u32,
    /// Entries in listings that are ready.
    buffered: usize,
    /// Enough is buffered; helpers rest until half of it is gone, so that they work in stretches.
    full: bool,
    stopped: bool,
    /// A helper panicked; its task will never be ready.
    broken: bool,
    resting: usize,
    wanted: u32,
}

/// The jobs of a walk.
#[derive(Debug)]
pub(super) struct Queue {
    inner: Mutex<Inner>,
    limit: usize,
    work: Condvar,
    ready: Condvar,
}

impl Queue {
    /// Helpers stop beginning new work while more than `limit` entries are buffered.
    pub(super) fn new(limit: usize) -> Self {
        let inner = Inner {
            slots: Vec::new(),
            free: Vec::new(),
            head: NONE,
            buffered: 0,
            full: false,
            stopped: false,
            broken: false,
            resting: 0,
            wanted: NONE,
        };
        Self { inner: Mutex::new(inner), limit: limit.max(1), work: Condvar::new(), ready: Condvar::new() }
    }

    /// Makes a listing of an output whose job was in no list, with its directories at the end of the list.
    pub(super) fn begin(&self, output: Output) -> Listing {
        let listing = self.lock().adopt(output, NONE);
        self.work.notify_all();
        listing
    }

    /// The listing of a task: as it is when a helper has done it, or by doing it here and now. While a helper is at it,
    /// the time is used to list ahead.
    pub(super) fn obtain(&self, task: u32, mut run: impl FnMut(Job) -> Output) -> Listing {
        let mut inner = self.lock();
        loop {
            match inner.take(task) {
                State::Ready(listing) => {
                    inner.buffered = inner.buffered.saturating_sub(listing.block.entries.len());
                    if inner.full && inner.buffered <= self.limit / 2 {
                        inner.full = false;
                        self.work.notify_all();
                    }
                    inner.release(task);
                    return *listing;
                }
                State::Waiting(job) => {
                    drop(inner);
                    let output = run(*job);
                    inner = self.lock();
                    let listing = inner.adopt(output, task);
                    inner.unlink(task);
                    inner.release(task);
                    self.wake_one(&inner);
                    return listing;
                }
                State::Running | State::Free => {}
            }
            assert!(!inner.broken, "a thread of the walk panicked");
            if let Some((ahead, job)) = inner.next_job() {
                drop(inner);
                let output = run(*job);
                inner = self.lock();
                self.done(&mut inner, ahead, output);
            } else {
                inner.wanted = task;
                inner = self.ready.wait(inner).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }

    /// Works until the walk is stopped.
    pub(super) fn help(&self, mut run: impl FnMut(Job) -> Output) {
        let guard = Broken(self);
        let mut inner = self.lock();
        while !inner.stopped {
            if let Some((task, job)) = inner.next_job() {
                drop(inner);
                let output = run(*job);
                inner = self.lock();
                self.done(&mut inner, task, output);
            } else {
                inner.resting += 1;
                inner = self.work.wait(inner).unwrap_or_else(PoisonError::into_inner);
                inner.resting -= 1;
            }
        }
        drop(inner);
        std::mem::forget(guard);
    }

    /// Makes a finished task ready.
    fn done(&self, inner: &mut Inner, task: u32, output: Output) {
        inner.buffered += output.block.entries.len();
        inner.full = inner.full || inner.buffered >= self.limit;
        let listing = inner.adopt(output, task);
        inner.unlink(task);
        inner.slots[task as usize].state = State::Ready(Box::new(listing));
        if inner.wanted == task {
            inner.wanted = NONE;
            self.ready.notify_one();
        }
        self.wake_one(inner);
    }

    /// Lets all helpers end.
    pub(super) fn stop(&self) {
        self.lock().stopped = true;
        self.work.notify_all();
    }

    fn wake_one(&self, inner: &Inner) {
        if inner.resting > 0 && !inner.full && inner.head != NONE {
            self.work.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells the consumer of a helper's panic, so that it does not wait for ever.
struct Broken<'a>(&'a Queue);

impl Drop for Broken<'_> {
    fn drop(&mut self) {
        self.0.lock().broken = true;
        self.0.ready.notify_all();
    }
}

impl Inner {
    /// Takes what the slot holds; a job or a running one is marked as running.
    fn take(&mut self, task: u32) -> State {
        let Some(slot) = self.slots.get_mut(task as usize) else { return State::Free };
        std::mem::replace(&mut slot.state, State::Running)
    }

    /// Turns an output into a listing; its directories enter the list before `place`, or at the end.
    fn adopt(&mut self, output: Output, place: u32) -> Listing {
        let mut subs = Vec::with_capacity(output.subs.len());
        let mut last = if place == NONE { NONE } else { self.slots[place as usize].before };
        let mut insert = |inner: &mut Self, job| {
            last = inner.insert_after(last, job);
            last
        };
        for (index, sub) in output.subs {
            let next = match sub {
                Sub::Walk { job, leads } => Next::Task { task: insert(self, job), leads },
                Sub::Empty => Next::Empty,
                Sub::Failed(error) => Next::Failed(error),
            };
            subs.push((index, next));
        }
        let rest = output.rest.map(|job| insert(self, job));
        Listing {
            block: output.block,
            failures: output.failures.into_iter(),
            subs: subs.into_iter(),
            rest,
            error: output.error,
        }
    }

    /// Puts a job into the list behind `before`, or at its head.
    fn insert_after(&mut self, before: u32, job: Job) -> u32 {
        let after = if before == NONE { self.head } else { self.slots[before as usize].after };
        let slot = Slot { state: State::Waiting(Box::new(job)), before, after };
        let task = if let Some(task) = self.free.pop() {
            self.slots[task as usize] = slot;
            task
        } else {
            self.slots.push(slot);
            u32::try_from(self.slots.len() - 1).unwrap_or(NONE)
        };
        self.set_after(before, task);
        if after != NONE {
            self.slots[after as usize].before = task;
        }
        task
    }

    fn unlink(&mut self, task: u32) {
        let Slot { before, after, .. } = self.slots[task as usize];
        self.set_after(before, after);
        if after != NONE {
            self.slots[after as usize].before = before;
        }
    }

    fn set_after(&mut self, before: u32, after: u32) {
        if before == NONE {
            self.head = after;
        } else {
            self.slots[before as usize].after = after;
        }
    }

    fn release(&mut self, task: u32) {
        self.slots[task as usize].state = State::Free;
        self.free.push(task);
    }

    /// Takes the first job nobody has begun, unless enough is buffered. Only as many running ones can come before it as
    /// there are threads.
    fn next_job(&mut self) -> Option<(u32, Box<Job>)> {
        let mut task = if self.full { NONE } else { self.head };
        while task != NONE {
            let slot = &mut self.slots[task as usize];
            if let State::Waiting(_) = slot.state {
                let State::Waiting(job) = std::mem::replace(&mut slot.state, State::Running) else {
                    return None;
                };
                return Some((task, job));
            }
            task = slot.after;
        }
        None
    }
}
