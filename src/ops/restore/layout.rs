//! Where the bytes of a file's content lie in the file: its holes are not part of the content.

use std::ops::Range;

/// The smallest run of zeroes that becomes a hole, and what it is aligned to: a block of the file system.
const BLOCK: usize = 4096;

/// Places of content in a file with holes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::ops) struct Layout {
    /// For each hole, where it stands in the content and by how much it and those before shift what follows.
    shifts: Box<[(u64, u64)]>,
}

impl Layout {
    /// The layout of a file of `size` bytes, and the length of its content; `None` if a hole reaches beyond the end.
    /// `holes` are ascending and apart, as a decoded node has them.
    pub(in crate::ops) fn new(size: u64, holes: &[(u64, u64)]) -> Option<(Self, u64)> {
        let mut shift = 0;
        let mut shifts = Vec::with_capacity(holes.len());
        for (offset, len) in holes {
            if offset.checked_add(*len)? > size {
                return None;
            }
            let at = offset.checked_sub(shift)?;
            shift += len;
            shifts.push((at, shift));
        }
        Some((Self { shifts: shifts.into() }, size - shift))
    }

    /// The holes, in order.
    pub(super) fn holes(&self) -> impl Iterator<Item = Range<u64>> {
        let mut before = 0;
        self.shifts.iter().map(move |(at, shift)| {
            let hole = at + before..at + shift;
            before = *shift;
            hole
        })
    }

    /// The pieces of `len` bytes of content that begin at `at`: which of them, and where each goes in the file.
    pub(in crate::ops) fn pieces(&self, at: u64, len: usize) -> impl Iterator<Item = (Range<usize>, u64)> {
        let mut next = self.shifts.partition_point(|(place, _)| *place <= at);
        let mut start = 0;
        std::iter::from_fn(move || {
            if start >= len {
                return None;
            }
            let here = at + start as u64;
            let shift = next.checked_sub(1).map_or(0, |last| self.shifts[last].1);
            let until = self.shifts.get(next).map_or(u64::MAX, |(place, _)| *place);
            let end = usize::try_from(until - at).map_or(len, |end| end.min(len));
            let piece = (start..end, here + shift);
            start = end;
            next += 1;
            Some(piece)
        })
    }
}

/// The ranges of `bytes`, which begin at `offset` of a file, that are not whole blocks of zeroes.
pub(super) fn without_zeroes(bytes: &[u8], offset: u64) -> impl Iterator<Item = Range<usize>> {
    let to_boundary = (BLOCK - (offset % BLOCK as u64) as usize) % BLOCK;
    let mut start = 0;
    let block_end = move |start: usize| {
        let end =
            if start < to_boundary { to_boundary } else { start + BLOCK - (start - to_boundary) % BLOCK };
        end.min(bytes.len())
    };
    let is_zero =
        move |range: Range<usize>| range.len() == BLOCK && bytes[range].iter().all(|byte| *byte == 0);
    std::iter::from_fn(move || {
        while start < bytes.len() && is_zero(start..block_end(start)) {
            start = block_end(start);
        }
        let from = start;
        while start < bytes.len() && !is_zero(start..block_end(start)) {
            start = block_end(start);
        }
        (from < start).then_some(from..start)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn holes() -> impl Strategy<Value = (u64, Vec<(u64, u64)>)> {
        let runs = prop::collection::vec((0_u64..50, 1_u64..50), 0..8);
        (runs, 0_u64..50).prop_map(|(runs, tail)| {
            let mut at = 0;
            let holes = runs.into_iter().map(|(gap, len)| {
                let hole = (at + gap, len);
                at += gap + len;
                hole
            });
            let holes: Vec<_> = holes.collect();
            (at + tail, holes)
        })
    }

    proptest! {
        #[test]
        fn every_byte_of_content_has_one_place_outside_of_the_holes(
            (size, holes) in holes(),
            cuts in prop::collection::vec(1_usize..40, 1..20),
        ) {
            let (layout, content) = Layout::new(size, &holes).unwrap();
            let told: Vec<_> = layout.holes().map(|hole| (hole.start, hole.end - hole.start)).collect();
            prop_assert_eq!(&told, &holes);
            let mut expected = vec![true; size as usize];
            for (offset, len) in &holes {
                expected[*offset as usize..(offset + len) as usize].fill(false);
            }
            let mut written = vec![false; size as usize];
            let (mut at, mut last) = (0, None);
            for cut in cuts.into_iter().cycle() {
                let len = cut.min((content - at) as usize);
                if len == 0 {
                    break;
                }
                let mut covered = 0;
                for (piece, place) in layout.pieces(at, len) {
                    prop_assert_eq!(piece.start, covered);
                    covered = piece.end;
                    for byte in place..place + piece.len() as u64 {
                        prop_assert!(last.is_none_or(|last| last < byte), "in order");
                        last = Some(byte);
                        written[byte as usize] = true;
                    }
                }
                prop_assert_eq!(covered, len);
                at += len as u64;
            }
            prop_assert_eq!(written, expected);
        }

        #[test]
        fn only_whole_aligned_blocks_of_zeroes_are_left_out(
            parts in prop::collection::vec((any::<bool>(), 1_usize..10_000), 0..8),
            offset in 0_u64..9000,
        ) {
            let bytes: Vec<u8> =
                parts.into_iter().flat_map(|(zero, len)| vec![u8::from(!zero); len]).collect();
            let mut kept = vec![false; bytes.len()];
            let mut end = 0;
            for range in without_zeroes(&bytes, offset) {
                prop_assert!(range.start >= end && !range.is_empty());
                end = range.end;
                kept[range].fill(true);
            }
            let mut oracle = vec![true; bytes.len()];
            for start in 0..bytes.len() {
                let aligned = (offset + start as u64).is_multiple_of(BLOCK as u64);
                if aligned && bytes.len() - start >= BLOCK && bytes[start..start + BLOCK].iter().all(|b| *b == 0) {
                    oracle[start..start + BLOCK].fill(false);
                }
            }
            prop_assert_eq!(kept, oracle);
        }
    }

    #[test]
    fn a_hole_beyond_the_end_is_refused() {
        assert_eq!(Layout::new(10, &[(5, 6)]), None);
        assert_eq!(Layout::new(10, &[(u64::MAX, 1)]), None);
        assert_eq!(Layout::new(10, &[(5, 5)]).map(|(_, content)| content), Some(5));
    }
}
