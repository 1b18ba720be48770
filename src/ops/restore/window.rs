//! A part of a restore that is planned at once. Memory is bounded by the size of a window, not by that of the snapshot.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use super::entries::File;
use super::plan::{Place, Plan, Shape, Want, plan};
use crate::crypto::DataKey;
use crate::format::segment::SegmentEntry;
use crate::id::{ChunkId, PackId};
use crate::index::Location;
use crate::ops::tree::ChunkCopy;
use crate::repo::SegmentPlace;

/// A segment to read, and all that reading it takes.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) pack: u32,
    pub(super) place: SegmentPlace,
    pub(super) entry: SegmentEntry,
    pub(super) key: Arc<DataKey>,
}

/// What the parts of one window share.
#[derive(Debug, Default)]
pub(super) struct Tables {
    pub(super) sources: Vec<Source>,
    pub(super) packs: Vec<PackId>,
    pub(super) files: Vec<Arc<File>>,
    /// Copies of a chunk that were tried in vain.
    pub(super) tried: HashMap<ChunkId, Vec<ChunkCopy>>,
}

/// A planned window, or a part of one.
#[derive(Debug)]
pub(super) struct Window {
    pub(super) plan: Plan,
    pub(super) tables: Arc<Tables>,
}

/// A chunk that could not be had from the copies that were tried.
#[derive(Debug)]
pub(super) struct Lost {
    pub(super) chunk: ChunkId,
    pub(super) len: u32,
    /// Who wants it, and where it begins in their content.
    pub(super) wanted: Vec<(Arc<File>, u64)>,
    pub(super) tried: Vec<ChunkCopy>,
}

impl Window {
    /// The bytes of its pack that a planned segment takes up.
    pub(super) fn place(&self, segment: usize) -> Range<u32> {
        let entry = &self.tables.sources[self.plan.segments[segment].segment as usize].entry;
        entry.offset..entry.offset.saturating_add(entry.stored_len)
    }

    /// What is lost when these wants, all of one segment, cannot be had from it.
    pub(super) fn lost(&self, segment: usize, wants: Range<usize>) -> Vec<Lost> {
        let wants = &self.plan.wants[wants];
        let place = self.tables.sources[self.plan.segments[segment].segment as usize].place;
        let alike = wants.chunk_by(|a, b| a.chunk == b.chunk && a.offset == b.offset);
        let lose = |wants: &[Want]| {
            let chunk = wants[0].chunk;
            let mut tried = self.tables.tried.get(&chunk).cloned().unwrap_or_default();
            tried.push(ChunkCopy { segment: place, offset: wants[0].offset });
            let wanted = wants.iter().map(|w| (Arc::clone(&self.tables.files[w.file as usize]), w.at));
            Lost { chunk, len: wants[0].len, wanted: wanted.collect(), tried }
        };
        alike.map(lose).collect()
    }
}

/// A copy to read.
#[derive(Debug)]
pub(super) struct Chosen {
    pub(super) location: Location,
    pub(super) copy: ChunkCopy,
    /// The number of its segment, if something else of that is read in the window.
    pub(super) segment: Option<u32>,
}

/// Collects the wants of a window.
#[derive(Debug, Default)]
pub(super) struct Builder {
    tables: Tables,
    wants: Vec<Want>,
    by_segment: HashMap<SegmentPlace, u32>,
    by_pack: HashMap<PackId, u32>,
}

impl Builder {
    /// How many wants there are.
    pub(super) fn len(&self) -> usize {
        self.wants.len()
    }

    /// Gives a file its number.
    pub(super) fn add_file(&mut self, file: Arc<File>) -> u32 {
        self.tables.files.push(file);
        (self.tables.files.len() - 1) as u32
    }

    /// Notes copies that are not to be used again.
    pub(super) fn note_tried(&mut self, chunk: ChunkId, copies: Vec<ChunkCopy>) {
        self.tables.tried.insert(chunk, copies);
    }

    /// Of several copies the one in a segment that is read anyway, or the first.
    pub(super) fn choose(&self, copies: impl Iterator<Item = (Location, ChunkCopy)>) -> Option<Chosen> {
        let mut first = None;
        for (location, copy) in copies {
            let segment = self.by_segment.get(&copy.segment).copied();
            if segment.is_some() {
                return Some(Chosen { location, copy, segment });
            }
            first.get_or_insert(Chosen { location, copy, segment });
        }
        first
    }

    /// Adds a segment, and gives it its number.
    pub(super) fn add_segment(&mut self, chosen: &Chosen, key: Arc<DataKey>) -> u32 {
        let Chosen { location, copy, .. } = chosen;
        let packs = &mut self.tables.packs;
        let pack = *self.by_pack.entry(location.pack_id).or_insert_with(|| {
            packs.push(location.pack_id);
            (packs.len() - 1) as u32
        });
        self.tables.sources.push(Source { pack, place: copy.segment, entry: location.segment, key });
        let number = (self.tables.sources.len() - 1) as u32;
        self.by_segment.insert(copy.segment, number);
        number
    }

    /// Adds a want.
    pub(super) fn want(&mut self, want: Want) {
        self.wants.push(want);
    }

    /// Plans what was collected, and starts over. Several windows come out if one would keep more than `open_max` files
    /// open.
    pub(super) fn finish(&mut self, shape: Shape, open_max: usize) -> Vec<Window> {
        let Self { tables, wants, .. } = std::mem::take(self);
        let place = |source: &Source| Place {
            pack: source.pack,
            offset: source.entry.offset,
            stored_len: source.entry.stored_len,
        };
        let places: Vec<Place> = tables.sources.iter().map(place).collect();
        let files = tables.files.len();
        let tables = Arc::new(tables);
        let mut parts = vec![wants];
        let mut windows = Vec::new();
        while let Some(part) = parts.pop() {
            let (Some(first), Some(last)) =
                (part.iter().map(|want| want.file).min(), part.iter().map(|want| want.file).max())
            else {
                continue;
            };
            let plan = plan(part, &places, shape);
            if first < last && plan.most_open(files) > open_max {
                let middle = first + (last - first) / 2;
                let (head, tail) = plan.wants.into_iter().partition(|want| want.file <= middle);
                parts.push(tail);
                parts.push(head);
                continue;
            }
            windows.push(Window { plan, tables: Arc::clone(&tables) });
        }
        windows
    }
}
