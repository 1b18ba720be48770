//! Where the bytes of a file are: holes, rows of content, and how far to read ahead. Pure.

use std::ops::Range;

use crate::format::content::ChunkRow;

/// What is at an offset of a file, and where it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Extent {
    /// Zeroes that nothing is stored of.
    Hole { end: u64 },
    /// Content, from this offset of what is stored on.
    Data { content: u64, end: u64 },
}

/// The holes of a file.
#[derive(Debug)]
pub(super) struct Extents {
    size: u64,
    /// Offset and end of each hole, and the length of it and all before it.
    holes: Box<[(u64, u64, u64)]>,
}

impl Extents {
    /// Of the holes of a node, which ascend and lie apart; `None` if they reach beyond the end.
    pub(super) fn new(size: u64, holes: &[(u64, u64)]) -> Option<Self> {
        let mut skipped = 0_u64;
        let holes = holes.iter().map(|(offset, len)| {
            let end = offset.checked_add(*len).filter(|end| *end <= size)?;
            skipped = skipped.checked_add(*len)?;
            Some((*offset, end, skipped))
        });
        Some(Self { size, holes: holes.collect::<Option<_>>()? })
    }

    /// Bytes of the file.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Bytes that are stored.
    pub(super) fn content(&self) -> u64 {
        self.size.saturating_sub(self.holes.last().map_or(0, |(.., skipped)| *skipped))
    }

    /// Bytes of memory.
    pub(super) fn weight(&self) -> usize {
        self.holes.len() * size_of::<(u64, u64, u64)>()
    }

    /// What is at an offset before the end.
    pub(super) fn at(&self, offset: u64) -> Extent {
        let next = self.holes.partition_point(|(start, ..)| *start <= offset);
        let before = next.checked_sub(1).and_then(|at| self.holes.get(at));
        let end = self.holes.get(next).map_or(self.size, |(start, ..)| *start);
        match before {
            Some((_, hole_end, _)) if offset < *hole_end => Extent::Hole { end: *hole_end },
            before => Extent::Data { content: offset - before.map_or(0, |(.., skipped)| *skipped), end },
        }
    }

    /// Where the next content begins at or after an offset; `None` if there is none before the end.
    pub(super) fn seek_data(&self, offset: u64) -> Option<u64> {
        let mut at = offset;
        while at < self.size {
            match self.at(at) {
                Extent::Hole { end } => at = end,
                Extent::Data { .. } => return Some(at),
            }
        }
        None
    }

    /// Where the next hole begins at or after an offset, the end of the file being one; `None` beyond the end.
    pub(super) fn seek_hole(&self, offset: u64) -> Option<u64> {
        match self.at(offset) {
            _ if offset >= self.size => None,
            Extent::Hole { .. } => Some(offset),
            Extent::Data { end, .. } => Some(end),
        }
    }
}

/// Rows of content and where each begins.
#[derive(Debug)]
pub(super) struct RowList {
    rows: Box<[ChunkRow]>,
    /// Where each row ends.
    ends: Box<[u64]>,
}

impl RowList {
    pub(super) fn new(rows: Vec<ChunkRow>) -> Self {
        let mut end = 0_u64;
        let ends = rows.iter().map(|row| {
            end += u64::from(row.len);
            end
        });
        Self { ends: ends.collect(), rows: rows.into() }
    }

    /// Bytes of all rows.
    pub(super) fn len(&self) -> u64 {
        self.ends.last().copied().unwrap_or(0)
    }

    /// Bytes of memory.
    pub(super) fn weight(&self) -> usize {
        self.rows.len() * (size_of::<ChunkRow>() + size_of::<u64>())
    }

    /// The rows with any byte in this range, and where each begins.
    pub(super) fn within(&self, range: Range<u64>) -> impl Iterator<Item = (ChunkRow, u64)> {
        self.from(range.start).take_while(move |(_, start)| *start < range.end)
    }

    /// The row with this byte and all behind it, and where each begins.
    pub(super) fn from(&self, at: u64) -> impl Iterator<Item = (ChunkRow, u64)> {
        let first = self.ends.partition_point(|end| *end <= at);
        let rows = self.rows.iter().zip(self.ends.iter()).skip(first);
        rows.map(|(row, end)| (*row, end - u64::from(row.len)))
    }
}

/// How far from where it was expected a read may be and still be one of a row: the kernel sends several at once.
const SLACK: u64 = 1 << 20;
/// The first step of reading ahead.
const FIRST: u64 = 2 << 20;

/// Notices who reads a file from its beginning on.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    /// Where the last read ended that was one of a row.
    expected: u64,
    window: u64,
    /// Up to where content was asked for.
    planned: u64,
}

impl Ahead {
    /// What should be fetched now that this range is read, at most so far ahead.
    pub(super) fn plan(&mut self, read: Range<u64>, size: u64, most: u64) -> Option<Range<u64>> {
        let near = read.start <= self.expected.saturating_add(SLACK)
            && read.start.saturating_add(SLACK) >= self.expected;
        if !near {
            *self = Self { expected: read.end, window: 0, planned: read.end };
            return None;
        }
        self.expected = self.expected.max(read.end);
        if self.planned >= size || read.end.saturating_add(self.window / 2) < self.planned {
            return None;
        }
        self.window = (self.window * 2).clamp(FIRST, most.max(FIRST));
        let start = self.planned.max(read.start);
        let end = self.expected.saturating_add(self.window).min(size);
        self.planned = self.planned.max(end);
        (start < end).then_some(start..end)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::id::ChunkId;

    fn row(len: u32) -> ChunkRow {
        ChunkRow { id: ChunkId::new([len as u8; 32]), len }
    }

    #[test]
    fn holes_that_reach_beyond_the_end_are_refused() {
        assert!(Extents::new(10, &[(5, 5)]).is_some());
        assert!(Extents::new(10, &[(5, 6)]).is_none());
        assert!(Extents::new(10, &[(u64::MAX, 1)]).is_none());
        assert!(Extents::new(u64::MAX, &[(0, u64::MAX)]).is_some_and(|extents| extents.content() == 0));
    }

    #[test]
    fn seeking_ends_with_the_file() {
        let empty = Extents::new(0, &[]).unwrap();
        assert_eq!((empty.seek_data(0), empty.seek_hole(0)), (None, None));
        let hole = Extents::new(10, &[(0, 10)]).unwrap();
        assert_eq!((hole.seek_data(0), hole.seek_hole(3)), (None, Some(3)));
        let full = Extents::new(10, &[]).unwrap();
        assert_eq!((full.seek_data(9), full.seek_hole(0), full.seek_hole(10)), (Some(9), Some(10), None));
    }

    /// A file as bytes: `None` in holes, else the offset in the content.
    fn files() -> impl Strategy<Value = (u64, Vec<(u64, u64)>)> {
        prop::collection::vec((0_u64..20, 1_u64..20), 0..8).prop_flat_map(|gaps| {
            let mut at = 0;
            let holes: Vec<_> = gaps
                .into_iter()
                .map(|(gap, len)| {
                    let hole = (at + gap, len);
                    at += gap + len;
                    hole
                })
                .collect();
            (at..at + 20, Just(holes))
        })
    }

    proptest! {
        #[test]
        fn every_offset_is_in_a_hole_or_in_the_content((size, holes) in files()) {
            let extents = Extents::new(size, &holes).unwrap();
            let is_hole = |at: u64| holes.iter().any(|(start, len)| (*start..start + len).contains(&at));
            let mut content = 0;
            for at in 0..size {
                let found = extents.at(at);
                match found {
                    Extent::Hole { end } => {
                        prop_assert!(is_hole(at) && (at..end).all(is_hole));
                    }
                    Extent::Data { content: found, end } => {
                        prop_assert!(!is_hole(at) && (at..end).all(|at| !is_hole(at)));
                        prop_assert_eq!(found, content);
                        content += 1;
                    }
                }
                prop_assert_eq!(extents.seek_data(at), (at..size).find(|at| !is_hole(*at)));
                prop_assert_eq!(extents.seek_hole(at), (at..=size).find(|at| *at == size || is_hole(*at)));
            }
            prop_assert_eq!(extents.content(), content);
        }

        #[test]
        fn rows_are_found_by_what_they_hold(lens in prop::collection::vec(1_u32..9, 0..20), from in 0_u64..100, len in 1_u64..40) {
            let list = RowList::new(lens.iter().copied().map(row).collect());
            let found: Vec<_> = list.within(from..from + len).collect();
            let mut start = 0;
            let mut wanted = Vec::new();
            for len_of in &lens {
                let end = start + u64::from(*len_of);
                if start < from + len && end > from {
                    wanted.push((row(*len_of), start));
                }
                start = end;
            }
            prop_assert_eq!(found, wanted);
            prop_assert_eq!(list.len(), start);
        }

        #[test]
        fn who_reads_in_order_is_ahead_of_every_read(size in 1_u64..200 << 20, step in 4096_u64..1 << 20) {
            let mut ahead = Ahead::default();
            let mut planned = 0;
            let mut at = 0;
            while at < size {
                let end = (at + step).min(size);
                if let Some(range) = ahead.plan(at..end, size, 8 << 20) {
                    prop_assert_eq!(range.start, planned, "nothing is asked for twice or left out");
                    prop_assert!(range.end <= end + (8 << 20));
                    planned = range.end;
                }
                prop_assert!(planned >= end);
                at = end;
            }
        }
    }

    #[test]
    fn who_jumps_about_fetches_nothing_ahead() {
        let mut ahead = Ahead::default();
        let size = 1 << 40;
        assert!(ahead.plan(0..4096, size, 8 << 20).is_some());
        for at in [500 << 20, 3 << 30, 10 << 20] {
            assert_eq!(ahead.plan(at..at + 4096, size, 8 << 20), None);
        }
        // Until it goes on where it is.
        assert!(ahead.plan((10 << 20) + 4096..(10 << 20) + 8192, size, 8 << 20).is_some());
    }
}
