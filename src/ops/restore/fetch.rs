//! The one bridge between the store and the workers: it fetches what windows plan, ahead of the workers and within a
//! budget, and looks elsewhere for what was lost.
//!
//! # Invariants
//! Bytes that are fetched or wait for a worker never exceed the budget, except by one request. Each copy of a chunk is
//! tried at most once.

use std::collections::HashSet;
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::mpsc::Receiver;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::entries::DAMAGED;
use super::plan::{Shape, Want};
use super::run::{Job, Run, lock};
use super::window::{Builder, Lost, Window};
use crate::error::Error;
use crate::format::envelope::ChunkKind;
use crate::format::layout::ObjectName;
use crate::id::PackId;
use crate::index::{Location, View};
use crate::ops::tree::{ChunkCopy, LOOKS_MAX, Lookup, OpenedKeys, is_local_damage, may_have_moved};
use crate::repo::RepoError;
use crate::store::Key;

/// Unit of the budget.
const UNIT: usize = 64 << 10;

/// How much is under way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    pub(super) shape: Shape,
    /// Requests at the same time.
    pub(super) requests: usize,
    /// Bytes that may be fetched ahead of the workers.
    pub(super) budget: usize,
    /// Files that may be open at the same time.
    pub(super) open_max: usize,
}

pub(super) struct Bridge<'a> {
    lookup: &'a Lookup<'a>,
    run: &'a Run,
    pace: Pace,
    budget: Arc<Semaphore>,
    view: View,
    keys: OpenedKeys,
    generation: u64,
    /// Requests to make, in order.
    waiting: VecDeque<(Arc<Window>, usize)>,
}

struct Fetched {
    window: Arc<Window>,
    fetch: usize,
    reply: Result<Bytes, Error>,
    permit: Arc<OwnedSemaphorePermit>,
}

impl<'a> Bridge<'a> {
    pub(super) fn new(lookup: &'a Lookup<'a>, run: &'a Run, pace: Pace) -> Self {
        let budget = Arc::new(Semaphore::new((pace.budget / UNIT).max(1)));
        let generation = lookup.generation();
        let (view, keys) = (lookup.view(), lookup.opened_keys());
        Self { lookup, run, pace, budget, view, keys, generation, waiting: VecDeque::new() }
    }

    /// Fetches until the walk is done and nothing is under way.
    pub(super) async fn run(mut self, mut windows: Receiver<Window>) -> Result<(), Error> {
        let mut fetches = FuturesUnordered::new();
        let mut open = true;
        loop {
            if self.run.stopped() {
                return Ok(());
            }
            let lost = std::mem::take(&mut *lock(&self.run.lost));
            if !lost.is_empty() {
                self.look_elsewhere(lost).await?;
            }
            while fetches.len() < self.pace.requests
                && let Some((window, fetch)) = self.waiting.pop_front()
            {
                fetches.push(self.fetch(window, fetch));
            }
            if !open && fetches.is_empty() && self.waiting.is_empty() {
                return Ok(());
            }
            tokio::select! {
                biased;
                Some(fetched) = fetches.next(), if !fetches.is_empty() => self.hand_out(fetched)?,
                () = self.run.attention.notified() => {}
                window = windows.recv(), if open && self.waiting.is_empty() => match window {
                    Some(window) => self.take(window),
                    None => open = false,
                },
            }
        }
    }

    fn take(&mut self, window: Window) {
        let window = Arc::new(window);
        let count = window.plan.fetches.len();
        self.waiting.extend((0..count).map(|fetch| (Arc::clone(&window), fetch)));
    }

    fn fetch(&self, window: Arc<Window>, fetch: usize) -> impl Future<Output = Fetched> + use<'a> {
        let (lookup, budget) = (self.lookup, Arc::clone(&self.budget));
        let all = self.pace.budget / UNIT;
        async move {
            let planned = &window.plan.fetches[fetch];
            let range = u64::from(planned.start)..u64::from(planned.end);
            let units = ((range.end - range.start) as usize).div_ceil(UNIT).clamp(1, all.max(1));
            let permit = budget.acquire_many_owned(units as u32).await;
            let permit = Arc::new(permit.expect("the budget is never closed"));
            let pack = window.tables.packs[planned.pack as usize];
            let reply = get(lookup, pack, range).await;
            Fetched { window, fetch, reply, permit }
        }
    }

    /// Gives the segments of a reply to the workers, or up.
    fn hand_out(&mut self, fetched: Fetched) -> Result<(), Error> {
        let Fetched { window, fetch, reply, permit } = fetched;
        let planned = &window.plan.fetches[fetch];
        let bytes = match reply {
            Ok(bytes) => bytes,
            Err(error) if may_have_moved(&error) || is_local_damage(&error) => {
                for segment in planned.segments.clone() {
                    self.run.lose(window.lost(segment, window.plan.segments[segment].wants.clone()));
                }
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        self.run.tally.fetched.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        for segment in planned.segments.clone() {
            let entry = &window.tables.sources[window.plan.segments[segment].segment as usize].entry;
            let start = (entry.offset - planned.start) as usize;
            self.run.push(Job::Segment {
                window: Arc::clone(&window),
                segment,
                stored: bytes.slice(start..start + entry.stored_len as usize),
                budget: Arc::clone(&permit),
            });
        }
        Ok(())
    }

    /// Plans the copies that were not tried yet; asks for more of the index as long as there are none.
    async fn look_elsewhere(&mut self, lost: Vec<Lost>) -> Result<(), Error> {
        let mut builder = Builder::default();
        let mut missing = lost;
        loop {
            let mut left = Vec::new();
            for lost in missing {
                left.extend(self.look_for(lost, &mut builder).await?);
            }
            missing = left;
            if missing.is_empty() || !self.lookup.reload(self.generation).await? {
                break;
            }
            self.renew_view();
        }
        for (file, _) in missing.into_iter().flat_map(|lost| lost.wanted) {
            file.give_up(DAMAGED);
            self.run.done_with_chunk(&file);
        }
        for window in builder.finish(self.pace.shape, self.pace.open_max) {
            self.take(window);
        }
        Ok(())
    }

    /// Takes over an index of which more is known.
    fn renew_view(&mut self) {
        self.generation = self.lookup.generation();
        self.view = self.lookup.view();
        self.keys = self.lookup.opened_keys();
    }

    /// Plans a copy of one chunk, here or in what was not fetched of the index; returns what has none that was not tried. One
    /// chunk at a time: what is found for the next may push out what was found for this one.
    async fn look_for(&mut self, lost: Lost, builder: &mut Builder) -> Result<Option<Lost>, Error> {
        let mut left = self.plan_copy(lost, builder)?;
        for _ in 0..LOOKS_MAX {
            let Some(lost) = left else { return Ok(None) };
            if !self.lookup.look(self.generation, ChunkKind::Data, &lost.chunk).await? {
                return Ok(Some(lost));
            }
            self.renew_view();
            left = self.plan_copy(lost, builder)?;
        }
        Ok(left)
    }

    /// Plans a copy that was not tried; returns what has none.
    fn plan_copy(&mut self, mut lost: Lost, builder: &mut Builder) -> Result<Option<Lost>, Error> {
        let Some((location, segment)) = self.next_copy(&mut lost, builder)? else { return Ok(Some(lost)) };
        for (file, at) in lost.wanted {
            let file = builder.add_file(file);
            let (offset, len, chunk) = (location.offset, lost.len, lost.chunk);
            builder.want(Want { segment, offset, len, file, at, chunk });
        }
        builder.note_tried(lost.chunk, lost.tried);
        Ok(None)
    }

    fn next_copy(
        &mut self,
        lost: &mut Lost,
        builder: &mut Builder,
    ) -> Result<Option<(Location, u32)>, Error> {
        loop {
            let tried: HashSet<ChunkCopy> = lost.tried.iter().copied().collect();
            let copies = self.keys.copies(&self.view, (&lost.chunk, lost.len))?;
            let fresh = copies.into_iter().filter(|(_, copy)| !tried.contains(copy));
            let Some(chosen) = builder.choose(fresh) else { return Ok(None) };
            let location = chosen.location;
            if let Some(segment) = chosen.segment {
                return Ok(Some((location, segment)));
            }
            match self.keys.get(self.lookup.repo(), &self.view, location.data_key) {
                Ok(key) => return Ok(Some((location, builder.add_segment(&chosen, key)))),
                Err(error) if is_local_damage(&error) => lost.tried.push(chosen.copy),
                Err(error) => return Err(error),
            }
        }
    }
}

async fn get(lookup: &Lookup<'_>, pack: PackId, range: Range<u64>) -> Result<Bytes, Error> {
    let key = Key::new(ObjectName::Pack(pack).key()).map_err(|error| RepoError::Store(error.into()))?;
    Ok(lookup.repo().store().get_range(&key, range).await?)
}
