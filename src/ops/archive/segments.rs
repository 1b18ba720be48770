//! Segments on their way: each is fetched and opened once while it is wanted, whoever wants it.
//!
//! # Invariants
//! What segments take up in memory is bounded by the room. A segment gives its room back when nobody holds it; the table
//! lets go of the oldest that nobody else holds. Chunks of neighbouring files lie side by side in segments, so most are
//! found here.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use crate::crypto::DataKey;
use crate::error::Error;
use crate::format::content::ChunkRow;
use crate::format::envelope::ChunkKind;
use crate::format::segment::SegmentEntry;
use crate::id::{ChunkId, PackId};
use crate::ops::restore::plan::{Place, Shape, Want, plan};
use crate::ops::tree::{ChunkCopy, Located, Locator, Lookup};
use crate::repo::SegmentPlace;

/// Unit of the room.
const UNIT: usize = 64 << 10;

/// A segment that is fetched, or was.
#[derive(Debug)]
pub(super) struct Cell {
    /// Its plaintext; `None` inside if it cannot be had.
    plain: OnceLock<Option<Vec<u8>>>,
    done: Notify,
    _room: OwnedSemaphorePermit,
}

impl Cell {
    /// Tells all that wait what became of it. The first word counts.
    pub(super) fn settle(&self, plain: Option<Vec<u8>>) {
        let _ = self.plain.set(plain);
        self.done.notify_waiters();
    }

    /// Waits until it is known what became of it.
    pub(super) async fn settled(&self) {
        loop {
            let notified = self.done.notified();
            if self.plain.get().is_some() {
                return;
            }
            notified.await;
        }
    }

    /// Its plaintext, if it was settled with one.
    pub(super) fn plain(&self) -> Option<&[u8]> {
        self.plain.get()?.as_deref()
    }
}

/// A segment to fetch and open.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) cell: Arc<Cell>,
    pub(super) entry: SegmentEntry,
    pub(super) key: Arc<DataKey>,
}

impl Part {
    /// The bytes of its pack that it takes up.
    pub(super) fn range(&self) -> Range<u64> {
        let start = u64::from(self.entry.offset);
        start..start + u64::from(self.entry.stored_len)
    }
}

/// Segments of one pack to be fetched at once, in order.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) pack: PackId,
    pub(super) parts: Vec<Part>,
}

/// Where a chunk will be read.
#[derive(Debug)]
pub(super) enum Found {
    /// There, at this offset.
    In(Arc<Cell>, ChunkCopy),
    /// There is no room for its segment now.
    NoRoom,
    /// Nowhere in the index as it is known.
    Nowhere,
}

/// How a repository is read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    pub(super) shape: Shape,
    /// Requests at the same time.
    pub(super) requests: usize,
    /// Bytes of segments in memory.
    pub(super) room: usize,
}

pub(super) struct Segments<'a> {
    lookup: &'a Lookup<'a>,
    locator: Locator<'a>,
    kept: HashMap<SegmentPlace, Arc<Cell>>,
    /// Those that are kept, the oldest first.
    order: VecDeque<SegmentPlace>,
    room: Arc<Semaphore>,
    pace: Pace,
    /// To be fetched.
    wanted: Vec<(PackId, Part)>,
    wanted_bytes: u64,
    requests: UnboundedSender<Request>,
}

impl<'a> Segments<'a> {
    pub(super) fn new(lookup: &'a Lookup<'a>, pace: Pace, requests: UnboundedSender<Request>) -> Self {
        Self {
            lookup,
            locator: Locator::new(lookup),
            kept: HashMap::new(),
            order: VecDeque::new(),
            room: Arc::new(Semaphore::new((pace.room / UNIT).max(1))),
            pace,
            wanted: Vec::new(),
            wanted_bytes: 0,
            requests,
        }
    }

    /// Where a chunk will be read; its segment is requested with the next ones if it is not on its way.
    pub(super) async fn find(&mut self, row: &ChunkRow) -> Result<Found, Error> {
        loop {
            for (_, copy) in self.locator.copies(row)? {
                if let Some(cell) = self.kept.get(&copy.segment) {
                    return Ok(Found::In(Arc::clone(cell), copy));
                }
            }
            if let Some(found) = self.locator.here(row)? {
                return Ok(self.want(found));
            }
            if !self.lookup.look(self.locator.generation(), ChunkKind::Data, &row.id).await? {
                return Ok(Found::Nowhere);
            }
            self.locator.renew();
        }
    }

    /// Takes over an index of which more is known.
    pub(super) fn renew_view(&mut self) {
        self.locator.renew();
    }

    fn want(&mut self, Located { location, copy, key }: Located) -> Found {
        let entry = location.segment;
        let Some(room) = self.take_room(entry.plain_len.max(entry.stored_len) as usize) else {
            return Found::NoRoom;
        };
        let cell = Arc::new(Cell { plain: OnceLock::new(), done: Notify::new(), _room: room });
        self.kept.insert(copy.segment, Arc::clone(&cell));
        self.order.push_back(copy.segment);
        if entry.stored_len == 0 {
            cell.settle(None);
        } else {
            self.wanted_bytes += u64::from(entry.stored_len);
            self.wanted.push((location.pack_id, Part { cell: Arc::clone(&cell), entry, key }));
        }
        if self.wanted_bytes >= u64::from(self.pace.shape.request_max) {
            self.send();
        }
        Found::In(cell, copy)
    }

    fn take_room(&mut self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let units = bytes.div_ceil(UNIT).clamp(1, (self.pace.room / UNIT).max(1)) as u32;
        loop {
            if let Ok(room) = Arc::clone(&self.room).try_acquire_many_owned(units) {
                return Some(room);
            }
            let idle =
                |place: &SegmentPlace| self.kept.get(place).is_none_or(|cell| Arc::strong_count(cell) == 1);
            let oldest = self.order.iter().position(idle)?;
            let place = self.order.remove(oldest)?;
            self.kept.remove(&place);
        }
    }

    /// Hands over what is to be fetched.
    pub(super) fn send(&mut self) {
        self.wanted_bytes = 0;
        let wanted = std::mem::take(&mut self.wanted);
        let mut numbers: HashMap<PackId, u32> = HashMap::new();
        let mut places = Vec::with_capacity(wanted.len());
        for (pack, part) in &wanted {
            let next = numbers.len() as u32;
            let pack = *numbers.entry(*pack).or_insert(next);
            let (offset, stored_len) = (part.entry.offset, part.entry.stored_len);
            places.push(Place { pack, offset, stored_len });
        }
        let all = |segment| Want { segment, offset: 0, len: 1, file: 0, at: 0, chunk: ChunkId::new([0; 32]) };
        let plan = plan((0..wanted.len() as u32).map(all).collect(), &places, self.pace.shape);
        let mut wanted: Vec<_> = wanted.into_iter().map(Some).collect();
        for fetch in plan.fetches {
            let planned = plan.segments[fetch.segments].iter();
            let (packs, parts): (Vec<_>, Vec<_>) =
                planned.filter_map(|planned| wanted[planned.segment as usize].take()).unzip();
            if let Some(pack) = packs.first() {
                // Nobody takes it any more only if the run ends early.
                let _ = self.requests.send(Request { pack: *pack, parts });
            }
        }
    }
}
