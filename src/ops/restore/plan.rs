//! What to fetch in which order, and where each chunk goes. Pure: the same wants always give the same plan.
//!
//! # Invariants
//! Every want is in exactly one planned segment, and every segment in exactly one fetch. A fetch never exceeds the bounds
//! of its [`Shape`], except by one segment that alone is larger.

use std::ops::Range;

use crate::id::ChunkId;

/// How requests are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::ops) struct Shape {
    /// Most bytes of one request.
    pub(in crate::ops) request_max: u32,
    /// Bytes between two wanted segments that are fetched rather than skipped.
    pub(in crate::ops) gap_max: u32,
}

/// A segment that something is wanted of. Packs are numbered in the order in which they are first wanted, so that files are
/// finished about in the order of the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::ops) struct Place {
    pub(in crate::ops) pack: u32,
    pub(in crate::ops) offset: u32,
    pub(in crate::ops) stored_len: u32,
}

/// One use of a chunk: its bytes belong at `at` of the content of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::ops) struct Want {
    /// Number of the segment that holds it.
    pub(in crate::ops) segment: u32,
    /// Where it begins in the segment's plaintext.
    pub(in crate::ops) offset: u32,
    pub(in crate::ops) len: u32,
    /// Number of the file in the window.
    pub(in crate::ops) file: u32,
    /// Where it begins in the file's content, holes not counted.
    pub(in crate::ops) at: u64,
    pub(in crate::ops) chunk: ChunkId,
}

/// A segment and its wants, a range of [`Plan::wants`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::ops) struct PlannedSegment {
    pub(in crate::ops) segment: u32,
    pub(in crate::ops) wants: Range<usize>,
}

/// One request: bytes of a pack, and the segments in them, a range of [`Plan::segments`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::ops) struct Fetch {
    pub(in crate::ops) pack: u32,
    pub(in crate::ops) start: u32,
    pub(in crate::ops) end: u32,
    pub(in crate::ops) segments: Range<usize>,
}

/// The work of one window.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::ops) struct Plan {
    pub(in crate::ops) fetches: Vec<Fetch>,
    pub(in crate::ops) segments: Vec<PlannedSegment>,
    /// Sorted by pack, segment, place in it, and file.
    pub(in crate::ops) wants: Vec<Want>,
}

/// Plans a window. Every `segment` of `wants` is an index of `places`.
pub(in crate::ops) fn plan(mut wants: Vec<Want>, places: &[Place], shape: Shape) -> Plan {
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
    pub(in crate::ops) fn most_open(&self, files: usize) -> usize {
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
    pub(in crate::ops) fn fetched(&self) -> u64 {
        self.fetches.iter().map(|fetch| u64::from(fetch.end - fetch.start)).sum()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use proptest::prelude::*;

    use super::*;

    const SHAPE: Shape = Shape { request_max: 100, gap_max: 10 };

    /// Packs of segments behind one another, with gaps, in shuffled order; and wants of them.
    fn windows() -> impl Strategy<Value = (Vec<Place>, Vec<Want>)> {
        let segment = (0_u32..4, 1_u32..130, 0_u32..15);
        let segments = prop::collection::vec(segment, 1..30);
        let wants =
            prop::collection::vec((any::<prop::sample::Index>(), 0_u32..5, 0_u32..10, any::<u8>()), 1..80);
        (segments, wants).prop_map(|(segments, wants)| {
            let mut ends = [0; 4];
            let mut places = Vec::new();
            for (pack, stored_len, gap) in segments {
                let offset = ends[pack as usize] + gap;
                ends[pack as usize] = offset + stored_len;
                places.push(Place { pack, offset, stored_len });
            }
            let wants = wants.into_iter().enumerate().map(|(at, (segment, offset, file, chunk))| Want {
                segment: segment.index(places.len()) as u32,
                offset,
                len: 1,
                file,
                at: at as u64,
                chunk: ChunkId::new([chunk; 32]),
            });
            let wants = wants.collect();
            (places, wants)
        })
    }

    proptest! {
        #[test]
        fn every_want_is_served_once_and_every_segment_fetched_once((places, wants) in windows()) {
            let plan = plan(wants.clone(), &places, SHAPE);
            let mut served: Vec<_> = plan.segments.iter().flat_map(|s| &plan.wants[s.wants.clone()]).copied().collect();
            let mut expected = wants;
            served.sort_by_key(|want| want.at);
            expected.sort_by_key(|want| want.at);
            prop_assert_eq!(&served, &expected);
            let mut seen = HashSet::new();
            for segment in &plan.segments {
                prop_assert!(seen.insert(segment.segment), "planned twice");
                prop_assert!(plan.wants[segment.wants.clone()].iter().all(|w| w.segment == segment.segment));
            }
            let fetched: Vec<usize> = plan.fetches.iter().flat_map(|f| f.segments.clone()).collect();
            prop_assert_eq!(fetched, (0..plan.segments.len()).collect::<Vec<_>>());
        }

        #[test]
        fn fetches_hold_their_segments_within_bounds((places, wants) in windows()) {
            let plan = plan(wants, &places, SHAPE);
            for fetch in &plan.fetches {
                let mut wanted = 0;
                let mut last = None::<&Place>;
                for segment in &plan.segments[fetch.segments.clone()] {
                    let place = &places[segment.segment as usize];
                    prop_assert_eq!(place.pack, fetch.pack);
                    prop_assert!(fetch.start <= place.offset && place.offset + place.stored_len <= fetch.end);
                    if let Some(last) = last {
                        prop_assert!(place.offset - (last.offset + last.stored_len) <= SHAPE.gap_max);
                    }
                    wanted += place.stored_len;
                    last = Some(place);
                }
                let len = fetch.end - fetch.start;
                prop_assert!(len <= SHAPE.request_max || fetch.segments.len() == 1);
                prop_assert!(len <= 2 * wanted, "at most as much for nothing as is wanted");
            }
            // Neighbours are not fetched apart without a reason.
            for pair in plan.fetches.windows(2) {
                let joined = pair[0].pack == pair[1].pack
                    && pair[1].start == pair[0].end
                    && pair[1].end - pair[0].start <= SHAPE.request_max;
                let next = &places[plan.segments[pair[1].segments.start].segment as usize];
                prop_assert!(!joined || next.offset + next.stored_len - pair[0].start > SHAPE.request_max);
            }
        }

        #[test]
        fn open_files_are_counted_as_they_are_written((places, wants) in windows()) {
            let plan = plan(wants, &places, SHAPE);
            let mut left: HashMap<u32, usize> = HashMap::new();
            plan.wants.iter().for_each(|want| *left.entry(want.file).or_default() += 1);
            let (mut open, mut most) = (HashSet::new(), 0);
            for segment in &plan.segments {
                for want in &plan.wants[segment.wants.clone()] {
                    open.insert(want.file);
                    *left.get_mut(&want.file).unwrap() -= 1;
                }
                // A file within one segment is closed before the next file is opened.
                let spanning = open.iter().filter(|file| {
                    let segments = plan.segments.iter();
                    segments.filter(|s| plan.wants[s.wants.clone()].iter().any(|w| w.file == **file)).count() > 1
                });
                most = most.max(spanning.count());
                open.retain(|file| left[file] > 0);
            }
            prop_assert_eq!(plan.most_open(10), most);
        }
    }

    #[test]
    fn a_whole_pack_is_one_request() {
        let places: Vec<_> = (0..8).map(|n| Place { pack: 0, offset: 32 + n * 10, stored_len: 10 }).collect();
        let want = |segment| Want {
            segment,
            offset: 0,
            len: 1,
            file: segment,
            at: 0,
            chunk: ChunkId::new([segment as u8; 32]),
        };
        let plan = plan((0..8).rev().map(want).collect(), &places, SHAPE);
        assert_eq!(plan.fetches, [Fetch { pack: 0, start: 32, end: 112, segments: 0..8 }]);
        assert_eq!(plan.fetched(), 80);
        assert_eq!(plan.most_open(8), 0);
    }
}
