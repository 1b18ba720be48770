//! Which segments of the log hold a stretch of it.

use crate::postgres::Lsn;

/// Numbers of the segments of `size` bytes that hold what lies from `start` up to, and without, `end`.
pub fn segments(start: Lsn, end: Lsn, size: u32) -> std::ops::RangeInclusive<u64> {
    let size = u64::from(size.max(1));
    let last = end.0.saturating_sub(1).max(start.0);
    start.0 / size..=last / size
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_that_ends_where_a_segment_begins_does_not_need_it() {
        let size = 16 << 20;
        assert_eq!(segments(Lsn(0x200_0028), Lsn(0x300_0000), size), 2..=2);
        assert_eq!(segments(Lsn(0x200_0028), Lsn(0x300_0001), size), 2..=3);
        assert_eq!(segments(Lsn(0x200_0000), Lsn(0x200_0000), size), 2..=2);
    }
}
