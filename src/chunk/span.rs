//! Fixed spans of a large file, which workers cut independently.

use std::ops::Range;

/// Length of a span in bytes. A stored property: another length moves cut points.
pub const SPAN: u64 = 64 << 20;

/// The spans of a file of `len` bytes, ascending and without gaps: each `span` bytes long, the last one shorter.
///
/// A span is cut as if it were a whole file, so cut points depend on the length of a span and never on the number of
/// workers. A `span` of 0 means one span.
pub fn spans(len: u64, span: u64) -> impl Iterator<Item = Range<u64>> {
    let span = if span == 0 { u64::MAX } else { span };
    (0..len.div_ceil(span)).map(move |number| {
        let start = number * span;
        start..start.saturating_add(span).min(len)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_cover_a_file_once() {
        for (len, span) in [(0, 10), (1, 10), (10, 10), (11, 10), (25, 10), (SPAN * 3 + 1, SPAN)] {
            let mut next = 0;
            for part in spans(len, span) {
                assert_eq!(part.start, next);
                assert!(part.end - part.start == span || part.end == len);
                assert!(part.end > part.start);
                next = part.end;
            }
            assert_eq!(next, len);
        }
    }

    #[test]
    fn extreme_lengths_do_not_overflow() {
        assert_eq!(spans(u64::MAX, u64::MAX - 1).last(), Some(u64::MAX - 1..u64::MAX));
        assert!(spans(u64::MAX, u64::MAX).eq(std::iter::once(0..u64::MAX)));
        assert!(spans(5, 0).eq(std::iter::once(0..5)));
        assert_eq!(spans(u64::MAX, 1).nth(3), Some(3..4));
    }
}
