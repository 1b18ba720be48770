//! Which base backup and which stretch of the log bring a cluster to a moment. Values in, a value out.
//!
//! # Invariants
//! A plan is made only if the archive shows every segment from the base backup to the target, over all timelines between them.
//! A target before the oldest backup is refused: no later backup ever stands in.

use crate::error::BaseError;
use crate::format::log::LogFile;
use crate::format::postgres::PostgresBackup;
use crate::ops::postgres::{HistoryInfo, TimelineInfo};
use crate::postgres::Lsn;

/// What is to be restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// All that was committed up to this time; nanoseconds since 1970.
    Time(i64),
    /// All up to this position.
    Lsn(Lsn),
    /// All up to the restore point of this name.
    Name(String),
    /// All up to this transaction.
    Xid(u64),
    /// No more than the base backup needs to be consistent.
    Immediate,
    /// All that is archived.
    Latest,
}

/// Which timeline is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Follow {
    /// The newest one that the server would find.
    Latest,
    /// That of the base backup.
    Current,
    /// This one.
    Number(u32),
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Which of the backups.
    pub backup: usize,
    /// The timeline to follow.
    pub timeline: u32,
    /// How far the archive goes without a gap from there.
    pub end: Lsn,
    /// Time of the last commit before that, as far as the archive tells; nanoseconds since 1970.
    pub last_commit: Option<i64>,
    /// A segment is missing behind that, or may have been removed: what lies behind it cannot be reached.
    pub hole: bool,
}

/// A stretch of a timeline on the way to the one that is followed; the last one has no end.
#[derive(Debug, Clone, Copy)]
struct Leg<'a> {
    timeline: &'a TimelineInfo,
    left_at: Option<u64>,
}

/// Finds the newest base backup from which the target can be reached.
///
/// # Errors
/// [`BaseError::NoBase`], [`BaseError::NoTimeline`], [`BaseError::TooEarly`], [`BaseError::TooLate`], [`BaseError::Hole`],
/// [`BaseError::TwoContents`].
pub(super) fn plan(
    backups: &[&PostgresBackup],
    history: &HistoryInfo,
    (target, exclusive, follow): (&Target, bool, Follow),
) -> Result<Plan, BaseError> {
    if backups.is_empty() {
        return Err(BaseError::NoBase);
    }
    let mut order: Vec<usize> = (0..backups.len()).collect();
    order.sort_by_key(|at| std::cmp::Reverse((backups[*at].stop, backups[*at].stopped)));
    let mut refused = None;
    for at in order {
        let base = backups[at];
        if too_late_for(base, target) {
            continue;
        }
        match reach(base, history, follow).and_then(|reached| judge(reached, (at, base), (target, exclusive)))
        {
            Ok(plan) => return Ok(plan),
            // What the newest backup lacks is the nearest to what was asked for.
            Err(error) => refused = refused.or(Some(error)),
        }
    }
    let earliest = backups.iter().map(|base| base.stopped).min().unwrap_or_default();
    Err(refused.unwrap_or(BaseError::TooEarly { earliest }))
}

/// Whether a backup ended after the target.
fn too_late_for(base: &PostgresBackup, target: &Target) -> bool {
    match target {
        Target::Time(time) => base.stopped > *time,
        Target::Lsn(lsn) => base.stop > lsn.0,
        Target::Name(_) | Target::Xid(_) | Target::Immediate | Target::Latest => false,
    }
}

/// How far the log goes from a backup.
struct Reached {
    timeline: u32,
    /// The timeline that the end is on.
    on: u32,
    end: u64,
    last_commit: Option<i64>,
    hole: Option<u64>,
}

/// How far the log leads on from a base backup along one way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reach {
    /// The timeline that the end is on.
    pub timeline: u32,
    /// How far the archive goes without a gap.
    pub end: Lsn,
    /// Time of the last commit before that, as far as the archive tells; nanoseconds since 1970.
    pub last_commit: Option<i64>,
    /// A segment is missing behind that.
    pub hole: bool,
}

/// How far the log leads on from a base backup, along its own timeline and to each that leads on from there; none if it cannot be
/// restored from this archive.
pub fn reachable(base: &PostgresBackup, history: &HistoryInfo) -> Vec<Reach> {
    let mut found = Vec::new();
    for timeline in &history.timelines {
        let Ok(reached) = reach(base, history, Follow::Number(timeline.timeline)) else { continue };
        let Reached { on, end, last_commit, hole, .. } = reached;
        let reach = Reach { timeline: on, end: Lsn(end), last_commit, hole: hole.is_some() };
        if end >= base.stop && !found.contains(&reach) {
            found.push(reach);
        }
    }
    found
}

fn reach(base: &PostgresBackup, history: &HistoryInfo, follow: Follow) -> Result<Reached, BaseError> {
    let timeline = match follow {
        Follow::Current => base.timeline,
        Follow::Number(number) => number,
        Follow::Latest => newest(base.timeline, history),
    };
    let legs = legs(timeline, history)?;
    let size = u64::from(base.segment_size);
    let first = legs.iter().position(|leg| leg.timeline.timeline == base.timeline);
    // A backup that ended after its timeline was left belongs to another branch.
    let on_the_way = |leg: &Leg<'_>| leg.left_at.is_none_or(|left| base.stop <= left);
    let Some(first) = first.filter(|first| on_the_way(&legs[*first])) else {
        return Err(BaseError::NotOnTimeline { timeline });
    };
    let (on, end) = (base.timeline, base.start / size * size);
    let mut reached = Reached { timeline, on, end, last_commit: None, hole: None };
    for leg in &legs[first..] {
        reached.on = leg.timeline.timeline;
        let at = reached.end;
        let range = leg.timeline.ranges.iter().find(|range| range.start.0 <= at && at < range.end.0);
        let limit = leg.left_at.map(|left| left / size * size);
        if let Some(range) = range {
            let end = limit.map_or(range.end.0, |limit| limit.min(range.end.0));
            check_contents(history, leg.timeline.timeline, (at, end, base.segment_size))?;
            reached.end = end.max(at);
            reached.last_commit = range.last_commit.or(reached.last_commit);
        }
        match limit {
            Some(limit) if reached.end >= limit => {}
            // The next timeline began later, so there was more.
            Some(_) => {
                reached.hole = Some(reached.end);
                break;
            }
            None => {
                let more = leg.timeline.ranges.iter().any(|range| range.start.0 > reached.end);
                // A server that asks for what a trim covers is not told that the log ends.
                let removed = leg.timeline.trimmed.is_some_and(|below| below.0 > reached.end);
                reached.hole = (more || removed).then_some(reached.end);
            }
        }
    }
    Ok(reached)
}

/// The timeline that a server which looks for the newest one ends up with: it asks for the history of one after the other, and
/// stops at the first that is missing.
fn newest(from: u32, history: &HistoryInfo) -> u32 {
    let known = |number: u32| {
        history.timelines.iter().any(|timeline| timeline.timeline == number && timeline.origin.is_some())
    };
    (from..u32::MAX).find(|number| !known(number + 1)).unwrap_or(from)
}

/// The way from the first timeline to this one.
fn legs(timeline: u32, history: &HistoryInfo) -> Result<Vec<Leg<'_>>, BaseError> {
    let mut legs = Vec::new();
    let (mut number, mut left_at) = (timeline, None);
    loop {
        let found = history.timelines.iter().find(|found| found.timeline == number);
        let timeline = found.ok_or(BaseError::NoTimeline { timeline: number })?;
        legs.push(Leg { timeline, left_at });
        match timeline.origin {
            // Numbers descend, so this ends.
            Some(origin) if origin.timeline < number => {
                (number, left_at) = (origin.timeline, Some(origin.left_at.0));
            }
            _ => break,
        }
    }
    legs.reverse();
    Ok(legs)
}

/// A segment with two contents is not given to a server.
fn check_contents(
    history: &HistoryInfo,
    timeline: u32,
    (from, to, size): (u64, u64, u32),
) -> Result<(), BaseError> {
    let bad = history.ambiguous.iter().find(|file| match file {
        LogFile::Segment(name) if name.timeline == timeline => {
            name.start(size).is_some_and(|start| (from..to).contains(&start))
        }
        _ => false,
    });
    match bad {
        Some(file) => Err(BaseError::TwoContents { file: file.to_string() }),
        None => Ok(()),
    }
}

fn judge(
    Reached { timeline, end, last_commit, hole, .. }: Reached,
    (backup, base): (usize, &PostgresBackup),
    (target, exclusive): (&Target, bool),
) -> Result<Plan, BaseError> {
    let nearest = |at: u64| BaseError::Hole { at: Lsn(at), last_commit };
    if end < base.stop {
        return Err(BaseError::Waiting { end: Lsn(end), stop: Lsn(base.stop) });
    }
    match (target, hole) {
        (Target::Latest, Some(hole)) => return Err(nearest(hole)),
        (Target::Lsn(lsn), Some(hole)) if lsn.0 > end => return Err(nearest(hole)),
        (Target::Lsn(lsn), None) if lsn.0 > end => {
            return Err(BaseError::TooLate { end: Lsn(end), last_commit });
        }
        // A server that is to stop behind a time knows that it is there by a commit after it, and ends with an error without one.
        (Target::Time(time), hole)
            if last_commit.is_none_or(|last| last < *time || (last == *time && !exclusive)) =>
        {
            return Err(hole.map_or(BaseError::TooLate { end: Lsn(end), last_commit }, nearest));
        }
        _ => {}
    }
    Ok(Plan { backup, timeline, end: Lsn(end), last_commit, hole: hole.is_some() })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::format::cluster::History;
    use crate::format::log::SegmentName;
    use crate::id::ClusterId;
    use crate::ops::postgres::{Range, RangeInfo};
    use crate::postgres::Origin;

    const SIZE: u32 = 16 << 20;

    fn at(segment: u64) -> u64 {
        segment * u64::from(SIZE)
    }

    /// A backup of a timeline that begins and ends in these segments; each segment takes a second.
    fn base(timeline: u32, first: u64, last: u64) -> PostgresBackup {
        PostgresBackup {
            started: first as i64,
            stopped: last as i64,
            ..PostgresBackup::sample(ClusterId::new([1; 16]), SIZE, timeline, at(first) + 40..at(last) + 100)
        }
    }

    fn range(timeline: u32, first: u64, last: u64) -> RangeInfo {
        let name = |segment: u64| SegmentName::at(timeline, at(segment), SIZE);
        RangeInfo {
            range: Range { first: name(first), last: name(last), count: last - first + 1 },
            start: Lsn(at(first)),
            end: Lsn(at(last + 1)),
            first_commit: Some(first as i64),
            last_commit: Some(last as i64),
        }
    }

    fn timeline(number: u32, origin: Option<(u32, u64)>, ranges: &[(u64, u64)]) -> TimelineInfo {
        TimelineInfo {
            timeline: number,
            origin: origin.map(|(timeline, at)| Origin { timeline, left_at: Lsn(at) }),
            ranges: ranges.iter().map(|(first, last)| range(number, *first, *last)).collect(),
            trimmed: None,
            gaps: Vec::new(),
            partial: None,
        }
    }

    fn history(timelines: Vec<TimelineInfo>) -> HistoryInfo {
        let history = History { number: 1, system: 1, version: 15, segment_size: SIZE, page_size: 8192 };
        HistoryInfo { history, timelines, ambiguous: Vec::new(), bytes: 0, newest: None }
    }

    fn found(
        backups: &[PostgresBackup],
        history: &HistoryInfo,
        target: Target,
        follow: Follow,
    ) -> Result<Plan, BaseError> {
        plan(&backups.iter().collect::<Vec<_>>(), history, (&target, false, follow))
    }

    #[test]
    fn the_newest_backup_before_the_target_is_taken() {
        let backups = [base(1, 2, 3), base(1, 10, 11), base(1, 20, 20)];
        let whole = history(vec![timeline(1, None, &[(1, 30)])]);
        let taken = |target| found(&backups, &whole, target, Follow::Latest).map(|plan| plan.backup);
        assert_eq!(taken(Target::Time(12)).unwrap(), 1);
        assert_eq!(taken(Target::Time(11)).unwrap(), 1);
        assert_eq!(taken(Target::Time(10)).unwrap(), 0);
        assert_eq!(taken(Target::Lsn(Lsn(at(25)))).unwrap(), 2);
        assert_eq!(taken(Target::Lsn(Lsn(at(20) + 99))).unwrap(), 1);
        assert_eq!(taken(Target::Latest).unwrap(), 2);
        assert!(matches!(taken(Target::Time(2)), Err(BaseError::TooEarly { earliest: 3 })));
        assert!(matches!(taken(Target::Time(31)), Err(BaseError::TooLate { last_commit: Some(30), .. })));
        assert!(matches!(taken(Target::Time(30)), Err(BaseError::TooLate { last_commit: Some(30), .. })));
        let before = plan(&backups.each_ref(), &whole, (&Target::Time(30), true, Follow::Latest));
        assert_eq!(before.unwrap().backup, 2, "just before the last commit");
        assert!(matches!(taken(Target::Lsn(Lsn(at(31) + 1))), Err(BaseError::TooLate { .. })));
        assert!(matches!(found(&[], &whole, Target::Latest, Follow::Latest), Err(BaseError::NoBase)));
    }

    #[test]
    fn what_lies_behind_a_hole_is_refused_with_what_can_be_reached() {
        let backups = [base(1, 2, 3)];
        let torn = history(vec![timeline(1, None, &[(1, 9), (11, 30)])]);
        let plan = |target| found(&backups, &torn, target, Follow::Latest);
        for target in [Target::Latest, Target::Time(15), Target::Lsn(Lsn(at(15)))] {
            let hole = plan(target).unwrap_err();
            assert!(
                matches!(hole, BaseError::Hole { at: Lsn(hole), last_commit: Some(9) } if hole == at(10)),
                "{hole:?}"
            );
        }
        assert!(plan(Target::Time(8)).unwrap().hole);
        assert!(plan(Target::Immediate).is_ok() && plan(Target::Name("a".to_owned())).is_ok());
    }

    #[test]
    fn a_backup_whose_log_is_not_there_is_not_taken() {
        let backups = [base(1, 2, 3), base(1, 9, 11)];
        let short = history(vec![timeline(1, None, &[(1, 10)])]);
        assert_eq!(found(&backups, &short, Target::Latest, Follow::Latest).unwrap().backup, 0);
        let none = history(vec![timeline(1, None, &[(3, 10)])]);
        assert!(matches!(
            found(&backups[..1], &none, Target::Latest, Follow::Latest),
            Err(BaseError::Waiting { .. })
        ));
    }

    #[test]
    fn the_way_goes_over_timelines() {
        let left = at(12) + 500;
        let branched =
            history(vec![timeline(1, None, &[(1, 20)]), timeline(2, Some((1, left)), &[(12, 15)])]);
        let backups = [base(1, 2, 3), base(1, 16, 17)];
        let on = |follow| found(&backups, &branched, Target::Latest, follow).unwrap();
        let newest = on(Follow::Latest);
        assert_eq!((newest.backup, newest.timeline, newest.end), (0, 2, Lsn(at(16))));
        let current = on(Follow::Current);
        assert_eq!((current.backup, current.timeline, current.end), (1, 1, Lsn(at(21))));
        let missing = found(&backups, &branched, Target::Latest, Follow::Number(7));
        assert!(matches!(missing, Err(BaseError::NoTimeline { timeline: 7 })));
        let torn = history(vec![timeline(1, None, &[(1, 10)]), timeline(2, Some((1, left)), &[(12, 15)])]);
        let hole = found(&backups[..1], &torn, Target::Latest, Follow::Latest);
        assert!(matches!(hole, Err(BaseError::Hole { at: Lsn(hole), .. }) if hole == at(11)), "{hole:?}");
    }

    #[test]
    fn a_backup_before_a_branch_leads_to_both_ends_and_one_behind_it_to_one() {
        let left = Some((1, at(12) + 500));
        let branched = history(vec![timeline(1, None, &[(1, 20)]), timeline(2, left, &[(12, 15)])]);
        let ends = |base: &PostgresBackup, history: &HistoryInfo| {
            let found = reachable(base, history).into_iter();
            found.map(|reach| (reach.timeline, reach.end.0 / at(1), reach.hole)).collect::<Vec<_>>()
        };
        assert_eq!(ends(&base(1, 2, 3), &branched), [(1, 21, false), (2, 16, false)]);
        assert_eq!(ends(&base(1, 14, 15), &branched), [(1, 21, false)]);
        assert_eq!(ends(&base(2, 13, 13), &branched), [(2, 16, false)]);
        assert_eq!(ends(&base(2, 15, 16), &branched), [], "its log is not there");
        let torn = history(vec![timeline(1, None, &[(1, 5), (8, 20)]), timeline(2, left, &[(12, 15)])]);
        assert_eq!(ends(&base(1, 2, 3), &torn), [(1, 6, true)], "both ways stop at the same place");
    }

    #[test]
    fn behind_a_trim_a_server_must_not_ask_for_the_end() {
        let mut branch = timeline(1, None, &[(1, 9)]);
        branch.trimmed = Some(Lsn(at(12)));
        let trimmed = history(vec![branch]);
        let to = |target| found(&[base(1, 2, 3)], &trimmed, target, Follow::Latest);
        assert!(to(Target::Lsn(Lsn(at(5)))).unwrap().hole, "so it reads nothing ahead");
        assert!(matches!(to(Target::Latest), Err(BaseError::Hole { .. })));
    }

    #[test]
    fn a_segment_of_two_contents_is_no_way() {
        let mut two = history(vec![timeline(1, None, &[(1, 9)])]);
        two.ambiguous.push(LogFile::Segment(SegmentName::at(1, at(5), SIZE)));
        let plan = found(&[base(1, 2, 3)], &two, Target::Latest, Follow::Latest);
        assert!(matches!(plan, Err(BaseError::TwoContents { .. })));
        assert!(found(&[base(1, 7, 8)], &two, Target::Latest, Follow::Latest).is_ok());
    }

    proptest! {
        /// Whatever is archived of two timelines: a plan to a position is made if and only if each segment on the way is there.
        #[test]
        fn a_plan_stands_on_segments_that_are_there(
            first in prop::collection::btree_set(0_u64..12, 0..12),
            second in prop::collection::btree_set(0_u64..12, 0..12),
            switch in 3_u64..9,
            wanted in 0_u64..12,
        ) {
            let left = at(switch) + 7;
            let made = |number, origin, segments: &std::collections::BTreeSet<u64>| {
                let mut ranges: Vec<(u64, u64)> = Vec::new();
                for segment in segments {
                    match ranges.last_mut() {
                        Some(range) if range.1 + 1 == *segment => range.1 = *segment,
                        _ => ranges.push((*segment, *segment)),
                    }
                }
                timeline(number, origin, &ranges)
            };
            let archive = history(vec![made(1, None, &first), made(2, Some((1, left)), &second)]);
            let target = Lsn(at(wanted) + 200);
            let plan = found(&[base(1, 1, 2)], &archive, Target::Lsn(target), Follow::Number(2));
            let there = |segment: u64| if segment < switch { first.contains(&segment) } else { second.contains(&segment) };
            let possible = wanted >= 2 && (1..=wanted).all(there);
            prop_assert_eq!(plan.is_ok(), possible, "{:?}", plan);
        }
    }
}
