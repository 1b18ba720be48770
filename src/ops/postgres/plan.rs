//! What names of archived files say: whether one that is missing was ever written, and which stretches are whole.

use std::collections::BTreeMap;

use crate::format::log::{LogFile, SegmentName};
use crate::postgres::Origin;

/// What is archived of one history, as far as a question needs it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Archived {
    /// Bytes of a segment.
    pub segment_size: u32,
    /// Segments of the timeline in question, by position.
    pub segments: Vec<SegmentName>,
    /// The histories of all timelines that have one.
    pub timelines: BTreeMap<u32, Vec<Origin>>,
    /// The position up to which the timeline in question may have been removed.
    pub trimmed: Option<u64>,
}

/// What it means that a file is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Absence {
    /// Nothing shows that it was ever written: the log ends before it.
    End,
    /// This file shows that it was.
    Gap {
        /// The file.
        later: LogFile,
    },
    /// It may have been there, and nothing needed it any more.
    Trimmed,
}

/// What it means that no file of this name is archived.
///
/// A segment was written if a later one of its timeline is there, unless the timeline began after it; and if another timeline
/// left its own later than in that segment. A timeline's history was written if one of a later timeline is there: the server
/// looks for the newest one step by step, and stops at the first that is missing. What a collector removed is not the end of the log
/// either.
pub fn judge(file: LogFile, archived: &Archived) -> Absence {
    let later = match file {
        LogFile::History(timeline) => later_history(timeline, archived),
        LogFile::Segment(name) => later_segment(name, archived).or_else(|| left_later(name, archived)),
        LogFile::Partial(_) | LogFile::Backup(..) => None,
    };
    match later {
        Some(later) => Absence::Gap { later },
        None if is_trimmed(file, archived) => Absence::Trimmed,
        None => Absence::End,
    }
}

/// Whether a segment lies before the position up to which its timeline may be gone, and not before the timeline began.
fn is_trimmed(file: LogFile, archived: &Archived) -> bool {
    let LogFile::Segment(name) = file else { return false };
    let end =
        name.start(archived.segment_size).and_then(|start| start.checked_add(archived.segment_size.into()));
    let trimmed = archived.trimmed.zip(end).is_some_and(|(trimmed, end)| end <= trimmed);
    trimmed && first_of(name.timeline, archived).is_none_or(|first| name >= first)
}

/// The first segment of a timeline of which it is known where it began.
fn first_of(timeline: u32, archived: &Archived) -> Option<SegmentName> {
    let began = archived.timelines.get(&timeline)?.last()?;
    Some(SegmentName::at(timeline, began.left_at.0, archived.segment_size))
}

/// The first timeline has no history.
fn later_history(timeline: u32, archived: &Archived) -> Option<LogFile> {
    let mut later = archived.timelines.keys().filter(|other| timeline > 1 && **other > timeline);
    later.next().map(|other| LogFile::History(*other))
}

fn later_segment(name: SegmentName, archived: &Archived) -> Option<LogFile> {
    if first_of(name.timeline, archived).is_some_and(|first| name < first) {
        return None;
    }
    let mut later =
        archived.segments.iter().filter(|other| other.timeline == name.timeline && **other > name);
    later.next().map(|other| LogFile::Segment(*other))
}

/// The segment in which a timeline is left is whole only on the new one.
fn left_later(name: SegmentName, archived: &Archived) -> Option<LogFile> {
    archived.timelines.iter().find_map(|(timeline, origins)| {
        // Positions of a timeline before it began belong to its ancestors.
        let mut begins = 0;
        origins.iter().find_map(|origin| {
            let first = SegmentName::at(name.timeline, begins, archived.segment_size);
            let last = SegmentName::at(name.timeline, origin.left_at.0, archived.segment_size);
            begins = origin.left_at.0;
            let within = origin.timeline == name.timeline && first <= name && name < last;
            within.then_some(LogFile::History(*timeline))
        })
    })
}

/// Segments without a gap between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// The first one.
    pub first: SegmentName,
    /// The last one.
    pub last: SegmentName,
    /// How many.
    pub count: u64,
}

/// The stretches of segments of one timeline that follow each other; `segments` ascends.
pub fn ranges(segments: &[SegmentName], size: u32) -> Vec<Range> {
    let mut ranges: Vec<Range> = Vec::new();
    for segment in segments {
        // One that cannot be has a place of its own.
        let next = ranges.last().and_then(|range| range.last.start(size)?.checked_add(size.into()));
        match ranges.last_mut() {
            Some(range) if range.last == *segment => {}
            Some(range) if next.is_some() && next == segment.start(size) => {
                range.last = *segment;
                range.count += 1;
            }
            _ => ranges.push(Range { first: *segment, last: *segment, count: 1 }),
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::postgres::Lsn;

    const SIZE: u32 = 16 << 20;

    fn segment(timeline: u32, number: u32) -> SegmentName {
        SegmentName { timeline, log: number / 256, segment: number % 256 }
    }

    fn origin(timeline: u32, number: u32, within: u64) -> Origin {
        Origin { timeline, left_at: Lsn(u64::from(number) * u64::from(SIZE) + within) }
    }

    fn archived(segments: &[(u32, u32)], timelines: &[(u32, Vec<Origin>)]) -> Archived {
        let segments = segments.iter().map(|(timeline, number)| segment(*timeline, *number)).collect();
        let timelines = timelines.iter().cloned().collect();
        Archived { segment_size: SIZE, segments, timelines, trimmed: None }
    }

    fn gap(later: LogFile) -> Absence {
        Absence::Gap { later }
    }

    #[test]
    fn the_end_of_the_log_and_a_hole_in_it_are_told_apart() {
        let log = archived(&[(1, 3), (1, 4), (1, 6)], &[]);
        assert_eq!(judge(LogFile::Segment(segment(1, 7)), &log), Absence::End);
        assert_eq!(judge(LogFile::Segment(segment(1, 5)), &log), gap(LogFile::Segment(segment(1, 6))));
        assert_eq!(judge(LogFile::Segment(segment(1, 2)), &log), gap(LogFile::Segment(segment(1, 3))));
        assert_eq!(judge(LogFile::History(2), &log), Absence::End);
        assert_eq!(judge(LogFile::Segment(segment(1, 0)), &archived(&[], &[])), Absence::End);
    }

    #[test]
    fn a_timeline_has_no_segments_before_it_began() {
        let log = archived(&[(2, 5), (2, 6)], &[(2, vec![origin(1, 5, 0x148)])]);
        assert_eq!(judge(LogFile::Segment(segment(2, 4)), &log), Absence::End, "a normal probe");
        assert_eq!(judge(LogFile::Segment(segment(2, 7)), &log), Absence::End);
        let holed = archived(&[(2, 6)], &[(2, vec![origin(1, 5, 0x148)])]);
        assert_eq!(judge(LogFile::Segment(segment(2, 5)), &holed), gap(LogFile::Segment(segment(2, 6))));
    }

    #[test]
    fn a_timeline_that_was_left_later_had_the_segments_before_that() {
        let log = archived(&[], &[(2, vec![origin(1, 5, 0x148)])]);
        assert_eq!(judge(LogFile::Segment(segment(1, 4)), &log), gap(LogFile::History(2)));
        assert_eq!(judge(LogFile::Segment(segment(1, 5)), &log), Absence::End, "whole only on the new one");
        assert_eq!(judge(LogFile::Segment(segment(1, 6)), &log), Absence::End);
        let third = archived(&[], &[(3, vec![origin(1, 5, 0), origin(2, 9, 1)])]);
        assert_eq!(judge(LogFile::Segment(segment(2, 3)), &third), Absence::End, "before 2 began");
        assert_eq!(judge(LogFile::Segment(segment(2, 6)), &third), gap(LogFile::History(3)));
        assert_eq!(judge(LogFile::Segment(segment(2, 9)), &third), Absence::End);
    }

    #[test]
    fn a_missing_history_hides_later_timelines() {
        let log = archived(&[], &[(4, vec![origin(1, 5, 0)])]);
        assert_eq!(judge(LogFile::History(3), &log), gap(LogFile::History(4)));
        assert_eq!(judge(LogFile::History(5), &log), Absence::End);
        assert_eq!(judge(LogFile::History(1), &log), Absence::End, "the first one has none");
        let name = segment(1, 9);
        assert_eq!(judge(LogFile::Backup(name, 40), &log), Absence::End);
        assert_eq!(judge(LogFile::Partial(name), &log), Absence::End);
    }

    #[test]
    fn what_was_removed_is_not_the_end_of_the_log() {
        let all = Archived { trimmed: Some(6 * u64::from(SIZE)), ..archived(&[], &[]) };
        let asked = |number| judge(LogFile::Segment(segment(1, number)), &all);
        assert_eq!([asked(1), asked(5), asked(6)], [Absence::Trimmed, Absence::Trimmed, Absence::End]);
        let log = archived(&[], &[(2, vec![origin(1, 5, 0x148)])]);
        let second = Archived { trimmed: Some(9 * u64::from(SIZE)), ..log };
        let asked = |number| judge(LogFile::Segment(segment(2, number)), &second);
        assert_eq!(asked(4), Absence::End, "before it began");
        assert_eq!(asked(5), Absence::Trimmed);
        assert_eq!(judge(LogFile::History(3), &second), Absence::End);
    }

    proptest! {
        /// A server that replays one timeline asks for segment after segment. Whatever is missing of what was archived, it is told
        /// of an end only behind the last one that is there.
        #[test]
        fn nothing_that_is_archived_lies_behind_what_is_called_the_end(
            numbers in prop::collection::btree_set(1..40u32, 1..20),
            asked in 1..45u32,
        ) {
            let numbers: Vec<u32> = numbers.into_iter().collect();
            let pairs: Vec<_> = numbers.iter().map(|number| (1, *number)).collect();
            let log = archived(&pairs, &[]);
            prop_assume!(!numbers.contains(&asked));
            let ended = judge(LogFile::Segment(segment(1, asked)), &log) == Absence::End;
            prop_assert_eq!(ended, numbers.iter().all(|number| *number < asked));
        }

        /// Ranges hold each segment once, in order, and between two of them one is missing.
        #[test]
        fn ranges_are_what_they_cover(numbers in prop::collection::btree_set(0..600u32, 0..40)) {
            let segments: Vec<_> = numbers.iter().map(|number| segment(3, *number)).collect();
            let found = ranges(&segments, SIZE);
            let mut covered = BTreeSet::new();
            for range in &found {
                let first = range.first.log * 256 + range.first.segment;
                prop_assert_eq!(segment(3, first + range.count as u32 - 1), range.last);
                prop_assert!(first == 0 || !numbers.contains(&(first - 1)));
                covered.extend(first..first + range.count as u32);
            }
            prop_assert_eq!(covered, numbers);
        }
    }
}
