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

/// What became of a request.
struct Fetched {
    window: Arc<Window>,
    /// Planned segments that did not come.
    left: Range<usize>,
    reply: Result<(), Error>,
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
                Some(fetched) = fetches.next(), if !fetches.is_empty() => self.settle(fetched)?,
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

    /// Fetches what one request is planned for. Each segment goes to the workers when it is there, with its part of the budget:
    /// while one request comes to its end the next is under way.
    fn fetch(&self, window: Arc<Window>, fetch: usize) -> impl Future<Output = Fetched> + use<'a> {
        let (lookup, run, budget) = (self.lookup, self.run, Arc::clone(&self.budget));
        let all = self.pace.budget / UNIT;
        async move {
            let planned = &window.plan.fetches[fetch];
            let units = ((planned.end - planned.start) as usize).div_ceil(UNIT).clamp(1, all.max(1));
            let permit = budget.acquire_many_owned(units as u32).await;
            let mut permit = permit.expect("the budget is never closed");
            let pieces = pieces(&window, planned.segments.clone());
            let ranges: Vec<_> =
                pieces.iter().map(|piece| u64::from(piece.start)..u64::from(piece.end)).collect();
            let (mut left, mut end) = (planned.segments.clone(), planned.start);
            let mut take = |came: Range<usize>, bytes: Bytes| {
                let (first, last) = (&pieces[came.start], &pieces[came.end - 1]);
                run.tally.fetched.fetch_add(u64::from(last.end - end), Ordering::Relaxed);
                end = last.end;
                let units = bytes.len().div_ceil(UNIT).min(permit.num_permits());
                let share = Arc::new(permit.split(units).expect("no more than there is"));
                let segments = first.segments.start..last.segments.end;
                left.start = segments.end;
                hand_out(run, (&window, segments), (first.start, &bytes), &share);
            };
            let pack = window.tables.packs[planned.pack as usize];
            let reply = get(lookup, pack, &ranges, &mut take).await;
            Fetched { left, reply, window }
        }
    }

    /// Gives up what did not come.
    fn settle(&mut self, fetched: Fetched) -> Result<(), Error> {
        let Fetched { window, left, reply } = fetched;
        match reply {
            Err(error) if may_have_moved(&error) || is_local_damage(&error) => {
                for segment in left {
                    self.run.lose(window.lost(segment, window.plan.segments[segment].wants.clone()));
                }
                Ok(())
            }
            reply => reply,
        }
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

/// Bytes of a pack that come together, and the planned segments in them.
struct Piece {
    start: u32,
    end: u32,
    segments: Range<usize>,
}

/// What a request fetches, segment by segment. Two that overlap, because an index object is wrong about one of them, are one
/// piece.
fn pieces(window: &Window, segments: Range<usize>) -> Vec<Piece> {
    let mut pieces: Vec<Piece> = Vec::with_capacity(segments.len());
    for number in segments {
        let Range { start, end } = window.place(number);
        match pieces.last_mut() {
            Some(last) if start < last.end => {
                last.end = last.end.max(end);
                last.segments.end = number + 1;
            }
            _ => pieces.push(Piece { start, end, segments: number..number + 1 }),
        }
    }
    pieces
}

/// Gives segments to the workers, which are in these bytes of a pack from `start` on.
fn hand_out(
    run: &Run,
    (window, segments): (&Arc<Window>, Range<usize>),
    (start, bytes): (u32, &Bytes),
    budget: &Arc<OwnedSemaphorePermit>,
) {
    for segment in segments {
        let place = window.place(segment);
        run.push(Job::Segment {
            window: Arc::clone(window),
            segment,
            stored: bytes.slice((place.start - start) as usize..(place.end - start) as usize),
            budget: Arc::clone(budget),
        });
    }
}

async fn get(
    lookup: &Lookup<'_>,
    pack: PackId,
    ranges: &[Range<u64>],
    take: &mut (dyn FnMut(Range<usize>, Bytes) + Send),
) -> Result<(), Error> {
    let key = Key::new(ObjectName::Pack(pack).key()).map_err(|error| RepoError::Store(error.into()))?;
    Ok(lookup.repo().store().get_parts(&key, ranges, take).await?)
}
