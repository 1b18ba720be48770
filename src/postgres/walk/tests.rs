use proptest::prelude::*;

use super::super::testing::{Maker, SAMPLE, sample};
use super::*;

fn alone(number: u32) -> Walked {
    let (name, bytes) = sample(number);
    Walker::new().walk(&bytes, name).unwrap()
}

/// What `pg_waldump` says of each of the samples, times to the microsecond.
#[test]
fn a_real_log_reads_as_the_servers_own_tool_reads_it() {
    let time = |text: &str| {
        let stamp: jiff::Timestamp = text.parse().unwrap();
        Some(stamp.as_nanosecond() as i64)
    };
    let dense = alone(7);
    assert_eq!((dense.records, dense.commits), (1486, 2));
    assert_eq!(dense.first_commit, time("2026-11-28T18:21:36.612225Z"));
    assert_eq!(dense.last_commit, time("2026-11-28T18:21:36.683941Z"));
    assert_eq!((dense.follows, dense.last), (Some(0x61_ed18), Some(0x7f_faa0)));
    assert_eq!((dense.open, dense.switched, dense.continues), (Some(0x7f_fd60), false, false));
    let switched = alone(8);
    assert_eq!((switched.records, switched.commits), (319, 1));
    assert_eq!((switched.follows, switched.last), (Some(0x7f_fd60), Some(0x83_65a0)));
    assert_eq!((switched.continues, switched.switched, switched.end), (true, true, 0x83_65b8));
    assert_eq!((alone(9).records, alone(9).commits, alone(9).follows), (3, 1, Some(0x83_65a0)));
}

#[test]
fn a_record_that_two_segments_share_is_counted_by_who_sees_both() {
    let mut walker = Walker::new();
    let records = [7, 8, 9].map(|number| {
        let (name, bytes) = sample(number);
        walker.walk(&bytes, name).unwrap().records
    });
    assert_eq!(records, [1486, 320, 3]);
}

#[test]
fn a_segment_that_is_missing_is_noticed() {
    let mut walker = Walker::new();
    let (name, bytes) = sample(7);
    walker.walk(&bytes, name).unwrap();
    let (name, bytes) = sample(9);
    assert_eq!(walker.walk(&bytes, name), Err(WalError::Page { at: Lsn(0x90_0000) }));
    let mut walker = Walker::new();
    let (name, bytes) = sample(8);
    walker.walk(&bytes, name).unwrap();
    let (name, bytes) = sample(8);
    assert!(walker.walk(&bytes, name).is_err(), "the same again does not follow itself");
}

#[test]
fn a_file_that_is_not_what_its_name_says_is_refused() {
    let (name, bytes) = sample(7);
    let other = SegmentName { segment: 8, ..name };
    let misfiled = WalError::Address { expected: Lsn(0x80_0000), found: Lsn(0x70_0000) };
    assert_eq!(Walker::new().walk(&bytes, other), Err(misfiled));
    assert_eq!(first_page(&bytes).unwrap().belongs_to(&bytes, other), Err(misfiled));
    assert!(Walker::new().walk(&bytes, name.on(2)).is_ok(), "a timeline holds pages of the one it came from");
    let mut later = bytes.clone();
    later[4] = 3;
    let timeline = WalError::Timeline { at: Lsn(0x70_0000), found: 3, name: 1 };
    assert_eq!(Walker::new().walk(&later, name), Err(timeline));
    assert!(matches!(Walker::new().walk(&bytes[..1000], name), Err(WalError::Length { .. })));
    assert!(matches!(Walker::new().walk(b"", name), Err(WalError::Length { .. })));
    let mut foreign = bytes;
    foreign[0] = 1;
    assert_eq!(Walker::new().walk(&foreign, name), Err(WalError::Magic { found: 0xd101 }));
}

#[test]
fn a_log_that_ends_in_the_middle_is_no_whole_segment() {
    let (name, mut bytes) = sample(7);
    let end = 0x7f_faa0 - 0x70_0000;
    bytes[end..].fill(0);
    assert_eq!(Walker::new().walk(&bytes, name), Err(WalError::Ends { at: Lsn(0x7f_faa0) }));
    bytes.fill(0);
    assert_eq!(Walker::new().walk(&bytes, name), Err(WalError::Magic { found: 0 }));
}

#[test]
fn a_record_may_be_longer_than_a_segment() {
    let mut maker = Maker::new(3);
    maker.record(b"before");
    maker.record(&vec![5; 3 << 20]);
    let at = maker.record(b"after");
    let mut walker = Walker::new();
    let mut found = Vec::new();
    let segments = maker.segments();
    for (number, bytes) in segments.iter().enumerate() {
        let name = SegmentName { timeline: 1, log: 0, segment: 3 + number as u32 };
        match walker.walk(bytes, name) {
            Ok(walked) => found.push(walked.records),
            Err(error) => assert!(matches!(error, WalError::Ends { .. }) && number + 1 == segments.len()),
        }
        // Who begins in the middle takes the rest of the record as it is.
        let alone = Walker::new().walk(bytes, name);
        assert!(alone.is_ok() || number + 1 == segments.len(), "{alone:?}");
    }
    assert_eq!(found, [1, 0, 0]);
    assert!(at > u64::from(SAMPLE) * 6);
}

#[test]
fn a_record_that_was_given_up_breaks_no_chain() {
    let mut maker = Maker::new(3);
    let before = maker.record(b"before");
    maker.record(&vec![5; 1 << 20]);
    maker.overwrite(before);
    maker.record(b"after");
    let segments = maker.segments();
    let name = |number| SegmentName { timeline: 1, log: 0, segment: number };
    let mut walker = Walker::new();
    assert_eq!(walker.walk(&segments[0], name(3)).unwrap().records, 1);
    assert!(
        matches!(walker.walk(&segments[1], name(4)), Err(WalError::Ends { .. })),
        "after one good record"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// A bit that is flipped is noticed, or lies where nothing is written: between records, in a header where nothing is said.
    #[test]
    fn no_flipped_bit_changes_what_is_found(at in 0..SAMPLE as usize, bit in 0..8u8) {
        let (name, mut bytes) = sample(7);
        bytes[at] ^= 1 << bit;
        if let Ok(walked) = Walker::new().walk(&bytes, name) {
            let good = alone(7);
            // The last record is not seen to its end.
            prop_assert!(walked == good || at >= 0xf_fd60, "{at}");
        }
    }

    /// Whatever stands in a file, reading it ends, and ends inside it.
    #[test]
    fn hostile_bytes_are_refused_and_nothing_panics(
        edits in prop::collection::vec((0..SAMPLE as usize, any::<u32>()), 1..20),
        number in 7..10u32,
    ) {
        let (name, mut bytes) = sample(number);
        for (at, value) in edits {
            let at = at.min(bytes.len() - 4);
            bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
        }
        if let Ok(walked) = Walker::new().walk(&bytes, name) {
            prop_assert!(walked.end <= u64::from(SAMPLE) * u64::from(number + 1));
        }
    }
}
