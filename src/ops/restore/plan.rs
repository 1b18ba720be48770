//! What to fetch in which order, and where each chunk goes. Pure: the same wants always give the same plan.
//!
//! # Invariants
//! Every want is in exactly one planned segment, and every segment in exactly one fetch. A fetch never exceeds the bounds
//! of its [`Shape`], except by one segment that alone is larger.

use std::ops::Range;

use crate::id::ChunkId;

/// How requests are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    /// Most bytes of one request.
    pub(super) request_max: u32,
    /// Bytes between two wanted segments that are fetched rather than skipped.
    pub(super) gap_max: u32,
}

/// A segment that something is wanted of. Packs are numbered in the order in which they are first wanted, so that files are
/// finished about in the order of the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) pack: u32,
    pub(super) offset: u32,
    pub(super) stored_len: u32,
}

/// One use of a chunk: its bytes belong at `at` of the content of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Want {
    /// Number of the segment that holds it.
    pub(super) segment: u32,
    /// Where it begins in the segment's plaintext.
    pub(super) offset: u32,
    pub(super) len: u32,
    /// Number of the file in the window.
    pub(super) file: u32,
    /// Where it begins in the file's content, holes not counted.
    pub(super) at: u64,
    pub(super) chunk: ChunkId,
}

/// A segment and its wants, a range of [`Plan::wants`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PlannedSegment {
    pub(super) segment: u32,
    pub(super) wants: Range<usize>,
}

/// One request: bytes of a pack, and the segments in them, a range of [`Plan::segments`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fetch {
    pub(super) pack: u32,
    pub(super) start: u32,
    pub(super) end: u32,
    pub(super) segments: Range<usize>,
}

/// The work of one window.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) fetches: Vec<Fetch>,
    pub(super) segments: Vec<PlannedSegment>,
    /// Sorted by pack, segment, place in it, and file.
    pub(super) wants: Vec<Want>,
}

/// Plans a window. Every `segment` of `wants` is an index of `places`.
pub(super) fn plan(mut wants: Vec<Want>, places: &[Place], shape: Shape) -> Plan {
    let order = |want: &Want| {
        let place = &places[want.segment as usize];
        (place.pack, place.offset, want.segment, want.offset, want.file, want.at)
    };
    // Chunks of one walk usually lie in order.
    if !wants.is_sorted_by_key(order) {
        wants.sort_unstable_by_key(order);
    }
    let mut segments: Vec<PlannedSegment> = Vec::new();
    let mut fetches: Vec<Fetch> = Vec::new();
    let mut wanted = 0;
    for (at, want) in wants.iter().enumerate() {
        if let Some(last) = segments.last_mut()
            && last.segment == want.segment
        {
            last.wants.end = at + 1;
            continue;
        }
        segments.push(PlannedSegment { segment: want.segment, wants: at..at + 1 });
        let place = &places[want.segment as usize];
        let end = place.offset.saturating_add(place.stored_len);
        match fetches.last_mut() {
            Some(fetch) if joins(fetch, wanted, place, shape) => {
                fetch.end = fetch.end.max(end);
                fetch.segments.end = segments.len();
                wanted += place.stored_len;
            }
            _ => {
                let number = segments.len() - 1;
                fetches.push(Fetch {
                    pack: place.pack,
                    start: place.offset,
                    end,
                    segments: number..number + 1,
                });
                wanted = place.stored_len;
            }
        }
    }
    Plan { fetches, segments, wants }
}

/// Whether a segment is fetched together with the ones before it, of which `wanted` bytes are wanted.
fn joins(fetch: &Fetch, wanted: u32, place: &Place, shape: Shape) -> bool {
    let end = place.offset.saturating_add(place.stored_len).max(fetch.end);
    let len = end - fetch.start;
    let gap = place.offset.saturating_sub(fetch.end);
    // However many gaps there are, at most as much is fetched for nothing as is wanted.
    let waste = len.saturating_sub(wanted.saturating_add(place.stored_len));
    fetch.pack == place.pack && len <= shape.request_max && gap <= shape.gap_max && waste <= wanted
}

impl Plan {
    /// Most files that are begun and not complete at one time, when segments are worked through in order.
    pub(super) fn most_open(&self, files: usize) -> usize {
        let mut spans = vec![(usize::MAX, 0); files];
        for (number, segment) in self.segments.iter().enumerate() {
            for want in &self.wants[segment.wants.clone()] {
                let (first, last) = &mut spans[want.file as usize];
                (*first, *last) = ((*first).min(number), number);
            }
        }
        // A file that one segment completes is never open beside another of that kind.
        let mut change = vec![0_i64; self.segments.len() + 1];
        for (first, last) in spans.into_iter().filter(|(first, last)| first < last) {
            change[first] += 1;
            change[last + 1] -= 1;
        }
        let open = change.into_iter().scan(0, |open, change| {
            *open += change;
            Some(*open)
        });
        open.max().map_or(0, |most| usize::try_from(most).unwrap_or(0))
    }

    /// Bytes of all requests.
    pub(super) fn fetched(&self) -> u64 {
        self.fetches.iter().map(|fetch| u64::from(fetch.end - fetch.start)).sum()
    }
}
