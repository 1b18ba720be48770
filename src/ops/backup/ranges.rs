//! Where a file has data, in no more pieces than a node can name.

use std::ops::Range;

use crate::source::file::{FileReader, Holes};

/// Most ranges of data that are kept apart: a node with the holes between them takes about a megabyte, and must fit into
/// one chunk. Far below what a reader accepts.
const RANGES_MAX: usize = 1 << 16;

/// The ranges of data of a file. Small holes of a file that has very many are read as the zeroes they stand for.
pub(super) fn data_ranges(file: &FileReader, holes: Holes) -> Vec<Range<u64>> {
    few(file.data_ranges(holes), RANGES_MAX)
}

/// Keeps fewer than `most` ranges: whenever there are more, the smallest holes go. What is kept depends on the ranges
/// alone, and memory on `most`.
fn few(ranges: impl Iterator<Item = Range<u64>>, most: usize) -> Vec<Range<u64>> {
    let mut kept: Vec<Range<u64>> = Vec::new();
    let mut least_hole = 1;
    for range in ranges {
        kept.push(range);
        join_last(&mut kept, least_hole);
        while kept.len() >= most.max(2) {
            least_hole = u64::saturating_mul(least_hole, 2);
            kept.dedup_by(|next, before| join(before, next, least_hole));
        }
    }
    kept
}

/// What is left of `ranges` without `blanks`. Both are in order, and each blank lies in one range.
pub(super) fn without(ranges: &[Range<u64>], blanks: &[Range<u64>]) -> Vec<Range<u64>> {
    let mut left = Vec::with_capacity(ranges.len() + blanks.len());
    let mut blanks = blanks.iter().peekable();
    for range in ranges {
        let mut at = range.start;
        while let Some(blank) = blanks.next_if(|blank| blank.start < range.end) {
            left.push(at..blank.start);
            at = blank.end;
        }
        left.push(at..range.end);
    }
    left.retain(|range| !range.is_empty());
    left
}

fn join_last(kept: &mut Vec<Range<u64>>, least_hole: u64) {
    if let [.., before, last] = kept.as_mut_slice()
        && join(before, last, least_hole)
    {
        kept.pop();
    }
}

fn join(before: &mut Range<u64>, next: &Range<u64>, least_hole: u64) -> bool {
    let joined = next.start.saturating_sub(before.end) < least_hole;
    if joined {
        before.end = next.end;
    }
    joined
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_left_is_exactly_what_is_not_blank(bytes in prop::collection::vec(0_u8..3, 0..60)) {
            // 0: a hole, 1: data, 2: a blank part of a range.
            let runs = |of: fn(u8) -> bool| {
                let mut runs: Vec<Range<u64>> = Vec::new();
                for at in (0..bytes.len()).filter(|at| of(bytes[*at])) {
                    match runs.last_mut() {
                        Some(last) if last.end == at as u64 => last.end += 1,
                        _ => runs.push(at as u64..at as u64 + 1),
                    }
                }
                runs
            };
            let left = without(&runs(|kind| kind > 0), &runs(|kind| kind == 2));
            prop_assert_eq!(left, runs(|kind| kind == 1));
        }
    }

    #[test]
    fn small_holes_go_first_and_all_data_stays() {
        let data = |n: u64| n * 8192..n * 8192 + 4096;
        let large = |n: u64| (1 << 40) + n * (1 << 30)..(1 << 40) + n * (1 << 30) + 4096;
        let all: Vec<_> = (0..100_000).map(data).chain((0..100).map(large)).collect();
        let kept = few(all.iter().cloned(), 1000);
        assert!(kept.len() < 1000);
        assert!(kept.windows(2).all(|pair| pair[0].end < pair[1].start), "in order and apart");
        let inside = |range: &Range<u64>| kept.iter().any(|k| k.start <= range.start && range.end <= k.end);
        assert!(all.iter().all(inside), "no data is lost");
        assert!((0..100).all(|n| kept.contains(&large(n))), "large holes stay");
        assert_eq!(few(all.iter().cloned(), 1_000_000), all, "few ranges are left as they are");
        let apart = [0..1, u64::MAX - 1..u64::MAX];
        let all = few(apart.into_iter(), 2);
        assert_eq!((all.len(), all[0].clone()), (1, 0..u64::MAX));
        assert!(few(std::iter::empty(), 2).is_empty());
    }
}
