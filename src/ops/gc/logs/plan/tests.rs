use proptest::prelude::*;

use super::*;
use crate::format::gc::Trim;
use crate::format::log::{LogName, SegmentName};
use crate::id::{ClusterId, LogHash, ObjectHash, WriterId};

const SIZE: u32 = 16 << 20;
const DAY: i64 = 86_400_000_000_000;
const NOW: Timestamp = Timestamp(1_000 * DAY);
const GRACE: Duration = Duration::from_secs(7 * 86_400);

fn at(number: u64) -> u64 {
    number * u64::from(SIZE)
}

fn day(day: i64) -> Timestamp {
    Timestamp(day * DAY)
}

fn listed(file: LogFile, stored: i64) -> ListedLog {
    let name = LogName {
        cluster: ClusterId::new([1; 16]),
        history: 1,
        file,
        writer: WriterId::new([2; 16]),
        plain: LogHash::new([3; 32]),
        hash: ObjectHash::new([4; 32]),
    };
    ListedLog { name, size: 10, stored: day(stored) }
}

/// A segment of a timeline that was stored on a day.
fn segment(timeline: u32, number: u64, stored: i64) -> ListedLog {
    listed(LogFile::Segment(SegmentName::at(timeline, at(number), SIZE)), stored)
}

/// The segments of a timeline, one a day.
fn daily(timeline: u32, numbers: std::ops::RangeInclusive<u64>) -> Vec<ListedLog> {
    numbers.map(|number| segment(timeline, number, number as i64)).collect()
}

/// A base backup of a timeline that was stored on the day on which its only segment was.
fn base(timeline: u32, number: u64) -> Base {
    Base {
        timeline,
        start: at(number) + 40,
        stop: at(number) + 400,
        stored: Timestamp(number as i64 * DAY + 1),
        forgotten: false,
        counts: true,
    }
}

fn rules() -> LogRules {
    LogRules { now: NOW, grace: GRACE }
}

fn gone(files: &[ListedLog], bases: &[Base], rules: &LogRules) -> Vec<(u32, u64)> {
    let archive = Archive { segment_size: SIZE, files, bases };
    let Some(needs) = needs(&archive, rules) else { return Vec::new() };
    let doomed = doomed(&archive, &needs, rules.now);
    doomed
        .iter()
        .filter_map(|listed| listed.name.file.segment())
        .map(|name| (name.timeline, name.number(SIZE).unwrap()))
        .collect()
}

#[test]
fn what_lies_before_the_oldest_base_backup_goes_the_oldest_first() {
    let mut files = daily(1, 1..=9);
    files.reverse();
    assert_eq!(gone(&files, &[base(1, 4), base(1, 6)], &rules()), [(1, 1), (1, 2), (1, 3)]);
    assert!(gone(&files, &[], &rules()).is_empty(), "nobody knows what it is for");
    let forgotten = Base { forgotten: true, ..base(1, 2) };
    assert_eq!(gone(&files, &[forgotten, base(1, 6)], &rules()), [(1, 1)], "it can be taken back");
    assert!(gone(&files, &[forgotten], &rules()).is_empty());
    let foreign = Base { counts: false, ..base(1, 3) };
    assert_eq!(gone(&files, &[foreign, base(1, 6)], &rules()), [(1, 1), (1, 2)], "it may be confirmed yet");
    assert!(gone(&files, &[foreign], &rules()).is_empty());
}

#[test]
fn a_base_backup_that_cannot_be_restored_lets_nothing_go() {
    let mut files = daily(1, 1..=9);
    files.retain(|listed| *listed != segment(1, 6, 6));
    assert!(gone(&files, &[base(1, 6)], &rules()).is_empty());
    let mut two = daily(1, 1..=9);
    let mut other = segment(1, 6, 6);
    other.name.plain = LogHash::new([9; 32]);
    two.push(other);
    assert!(gone(&two, &[base(1, 6)], &rules()).is_empty());
    assert_eq!(gone(&two, &[base(1, 8)], &rules()).last(), Some(&(1, 7)));
    assert!(!gone(&two, &[base(1, 8)], &rules()).contains(&(1, 6)), "which one is right is not known");
}

#[test]
fn a_branch_that_goes_on_below_the_oldest_base_backup_is_left_alone() {
    // Somebody went back to segment 4 and goes on from there; the only base backup is on the branch that was left.
    let mut files = daily(1, 1..=20);
    files.extend((4..=6).map(|number| segment(2, number, 990 + number as i64)));
    let bases = [base(1, 15)];
    assert!(gone(&files, &bases, &rules()).iter().all(|(timeline, _)| *timeline == 1));
    let over: Vec<_> =
        daily(1, 1..=20).into_iter().chain((4..=6).map(|number| segment(2, number, 7))).collect();
    assert!(gone(&over, &bases, &rules()).contains(&(2, 5)), "nobody has added to it since");
    let on_it = [base(1, 15), Base { start: at(5), stop: at(5) + 9, stored: day(996), ..base(2, 5) }];
    assert_eq!(gone(&files, &on_it, &rules()), [(1, 1), (1, 2), (1, 3), (1, 4), (2, 4)]);
}

#[test]
fn histories_and_what_cannot_be_stay_and_labels_go_with_their_segment() {
    let mut files = daily(1, 1..=9);
    let name = |number| SegmentName::at(1, at(number), SIZE);
    files.push(listed(LogFile::History(2), 1));
    files.push(listed(LogFile::Backup(name(2), 40), 2));
    files.push(listed(LogFile::Backup(name(6), 40), 6));
    files.push(listed(LogFile::Partial(name(3)), 3));
    let odd = SegmentName { timeline: 1, log: 0, segment: u32::MAX };
    files.push(listed(LogFile::Segment(odd), 1));
    let bases = [base(1, 6)];
    let archive = Archive { segment_size: SIZE, files: &files, bases: &bases };
    let needs = needs(&archive, &rules()).unwrap();
    let doomed: Vec<LogFile> = doomed(&archive, &needs, NOW).iter().map(|listed| listed.name.file).collect();
    assert!(doomed.contains(&LogFile::Backup(name(2), 40)) && doomed.contains(&LogFile::Partial(name(3))));
    for stays in [LogFile::History(2), LogFile::Backup(name(6), 40), LogFile::Segment(odd)] {
        assert!(!doomed.contains(&stays), "{stays}");
    }
}

#[test]
fn what_is_condemned_goes_after_the_grace_unless_it_came_again() {
    let trim = |stored: i64, below: &[(u32, u64)], hash: u8| StoredTrim {
        hash: ObjectHash::new([hash; 32]),
        trim: Trim {
            author: WriterId::new([2; 16]),
            cluster: ClusterId::new([1; 16]),
            history: 1,
            below: below.to_vec(),
            nonce: [0; 16],
        },
        stored: day(stored),
    };
    let files = vec![segment(1, 1, 1), segment(1, 2, 995), segment(1, 3, 2), segment(2, 1, 1)];
    let trims = [trim(990, &[(1, at(3))], 1), trim(996, &[(1, at(4))], 2)];
    let found = split(files, &trims, (&rules(), SIZE));
    assert_eq!(found.go, [segment(1, 1, 1)]);
    assert_eq!(found.wait, [segment(1, 2, 995), segment(1, 3, 2)]);
    assert_eq!((found.new, found.due), (vec![segment(2, 1, 1)], Some(day(1003))));
    assert!(outdated(&trims, &rules()).is_empty(), "the second one has not stood for the grace");
    let later = LogRules { now: day(1100), ..rules() };
    assert_eq!(outdated(&trims, &later), [&trims[0]]);
    let same = [trim(900, &[(1, 5)], 1), trim(901, &[(1, 5)], 2), trim(902, &[(1, 9)], 0)];
    let hurried = LogRules { now: Timestamp(day(996).0 + DAY - 1), grace: Duration::ZERO };
    assert!(
        outdated(&trims, &hurried).is_empty(),
        "who has listed the first one may still be about to read it"
    );
    assert_eq!(outdated(&trims, &LogRules { now: day(997), ..hurried }), [&trims[0]]);
    assert_eq!(outdated(&same[..2], &later), [&same[0]], "of two that say the same one stays");
    assert_eq!(outdated(&same, &later), [&same[0], &same[1]]);
}

/// A tree of timelines: each leaves an earlier one at a segment. Archived segments, with holes; base backups.
#[derive(Debug, Clone)]
struct Story {
    /// Parent and number of the segment in which it was left, of timelines 2 on.
    branches: Vec<(u32, u64)>,
    files: Vec<ListedLog>,
    bases: Vec<Base>,
}

const LAST: u64 = 24;

fn story() -> impl Strategy<Value = Story> {
    let branches = prop::collection::vec((0..4_u32, 1..LAST), 0..4);
    let files = prop::collection::vec((1..6_u32, 0..=LAST, 900..1000_i64), 0..150);
    let bases = prop::collection::vec((1..6_u32, 0..LAST, 0..4_u64, 900..1001_i64, any::<[bool; 4]>()), 0..8);
    (branches, files, bases).prop_map(|(branches, files, bases)| {
        let branches: Vec<(u32, u64)> = branches
            .iter()
            .enumerate()
            .map(|(n, (parent, left))| (parent % (n as u32 + 1) + 1, *left))
            .collect();
        let known = branches.len() as u32 + 1;
        let mut files: Vec<ListedLog> =
            files.iter().map(|(t, n, stored)| segment((t - 1) % known + 1, *n, *stored)).collect();
        files.sort_by_key(|listed| listed.name);
        files.dedup_by_key(|listed| listed.name);
        let bases = bases
            .iter()
            .map(|(t, n, len, stored, flags)| Base {
                start: at(*n) + 40,
                stop: at(*n + *len) + 400,
                stored: day(*stored),
                forgotten: flags[0] && flags[1],
                counts: flags[2] || flags[3],
                ..base((t - 1) % known + 1, *n)
            })
            .collect();
        Story { branches, files, bases }
    })
}

impl Story {
    /// The timelines on the way to one, the first one first, each with the number of the segment from which the next one has the log.
    fn way(&self, to: u32) -> Vec<(u32, u64)> {
        let (mut way, mut number, mut until) = (Vec::new(), to, u64::MAX);
        loop {
            way.push((number, until));
            if number == 1 {
                break;
            }
            let (parent, left) = self.branches[number as usize - 2];
            (number, until) = (parent, left.min(until));
        }
        way.reverse();
        way
    }

    /// How far each timeline can be followed from a base backup: number of the first segment that is missing, if the backup
    /// itself can be restored.
    fn reach(&self, files: &[ListedLog], base: &Base, to: u32) -> Option<u64> {
        let there: HashSet<(u32, u64)> = files
            .iter()
            .filter_map(|listed| listed.name.file.segment())
            .map(|name| (name.timeline, name.number(SIZE).unwrap()))
            .collect();
        let (first, last) = base.numbers(SIZE);
        if !(first..=last).all(|number| there.contains(&(base.timeline, number))) {
            return None;
        }
        let way = self.way(to);
        let begins = way.iter().position(|(timeline, _)| *timeline == base.timeline)?;
        if way[begins].1 <= last && way[begins].1 != u64::MAX {
            return None;
        }
        let mut at = first;
        for (timeline, until) in &way[begins..] {
            while at < *until && there.contains(&(*timeline, at)) {
                at += 1;
            }
            if at < *until {
                break;
            }
        }
        Some(at)
    }
}

proptest! {
    /// Whatever happened: a base backup that can be restored still can, and every timeline can be followed from it as far as before.
    #[test]
    fn what_could_be_restored_still_can(story in story()) {
        let archive = Archive { segment_size: SIZE, files: &story.files, bases: &story.bases };
        let Some(needs) = needs(&archive, &rules()) else { return Ok(()) };
        let doomed = doomed(&archive, &needs, NOW);
        let left: Vec<ListedLog> =
            story.files.iter().filter(|listed| !doomed.contains(listed)).copied().collect();
        for base in &story.bases {
            for to in 1..=story.branches.len() as u32 + 1 {
                let (before, after) = (story.reach(&story.files, base, to), story.reach(&left, base, to));
                prop_assert_eq!(before, after, "{:?} to {}", base, to);
            }
        }
    }

    /// However far the deletions come: what is left before a needed segment has no new hole that reaches to it.
    #[test]
    fn an_interruption_leaves_no_hole_before_what_is_needed(story in story(), done in 0..200_usize) {
        let archive = Archive { segment_size: SIZE, files: &story.files, bases: &story.bases };
        let Some(needs) = needs(&archive, &rules()) else { return Ok(()) };
        let doomed = doomed(&archive, &needs, NOW);
        let done = &doomed[..done.min(doomed.len())];
        for gone in done {
            let name = gone.name.file.segment().unwrap();
            let later = doomed.iter().filter(|other| {
                let other = other.name.file.segment().unwrap();
                other.timeline == name.timeline && other < name
            });
            prop_assert!(later.into_iter().all(|earlier| done.contains(earlier)));
        }
    }

    /// Nothing goes that lies behind the beginning of any base backup, on any timeline.
    #[test]
    fn nothing_goes_behind_the_oldest_base_backup(story in story()) {
        let first = story.bases.iter().map(|base| base.numbers(SIZE).0).min().unwrap_or(0);
        for (_, number) in gone(&story.files, &story.bases, &rules()) {
            prop_assert!(number < first);
        }
    }
}
