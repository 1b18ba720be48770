//! The judgement: each snapshot with the reasons to keep it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use super::{Bucket, Limit, Policy, Rule, TagList};
use crate::clock::Timestamp;
use crate::id::{SnapshotId, WriterId};

/// How far, in nanoseconds, a writer's clock may differ from the time that counts: one day.
pub const CLOCK_TOLERANCE: i64 = 86_400_000_000_000;

/// What snapshots are judged by: those of one machine's job are held against each other, and against no others.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Group {
    /// Name of the machine; raw bytes.
    pub host: Vec<u8>,
    /// Name of the job; raw bytes.
    pub job: Vec<u8>,
}

/// What retention wants to know of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Its name; each stands in a list once.
    pub id: SnapshotId,
    /// Its writer and its number there: of two that a store whose clock counts seconds got at the same time the later one is newer.
    pub place: (WriterId, u64),
    /// Where it belongs.
    pub group: Group,
    /// When the store got it.
    pub stored: Timestamp,
    /// When it was finished, as the writer has it: a run that took days must not look like a wrong clock.
    pub claimed: Timestamp,
    /// The origin's time, signed by a maintainer, if it was copied or imported. It counts instead of the store's.
    pub brought: Option<Timestamp>,
    /// Its tags.
    pub tags: Vec<String>,
    /// Whether it was confirmed.
    pub confirmed: bool,
    /// Whether somebody put a hold on it.
    pub held: bool,
}

impl Candidate {
    /// The time that retention counts by.
    pub fn counted(&self) -> Timestamp {
        self.brought.unwrap_or(self.stored)
    }

    /// What tells which of two is newer.
    fn age(&self) -> (Timestamp, (WriterId, u64), SnapshotId) {
        (self.counted(), self.place, self.id)
    }

    /// What is to be said of it whatever the policy is.
    fn standing(&self, now: Timestamp) -> Vec<Reason> {
        let time = self.counted();
        let differs = self.claimed.0.abs_diff(time.0) > CLOCK_TOLERANCE.unsigned_abs();
        let future = time.0 > now.0.saturating_add(CLOCK_TOLERANCE);
        [
            (self.held, Reason::Held),
            (!self.confirmed, Reason::NotConfirmed),
            (differs, Reason::ClockDiffers { claimed: self.claimed }),
            (future, Reason::InFuture),
        ]
        .into_iter()
        .filter_map(|(holds, reason)| holds.then_some(reason))
        .collect()
    }
}

/// Why a snapshot is kept.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// Somebody put a hold on it.
    Held,
    /// It is not confirmed, and not retention's business.
    NotConfirmed,
    /// The writer's clock and the time that counts are too far apart to trust either.
    ClockDiffers {
        /// What the writer's clock had.
        claimed: Timestamp,
    },
    /// The time that counts has not come yet.
    InFuture,
    /// The policy has no rules.
    NoPolicy,
    /// A database cluster could not be brought back without it to a time that it can be brought back to now.
    Recovery,
    /// It has these tags.
    Tags(TagList),
    /// A rule by time keeps it.
    Rule {
        /// The rule.
        rule: Rule,
        /// What it stands for; `None` if the rule keeps every snapshot.
        bucket: Option<Bucket>,
        /// It is not the newest of its bucket, but the oldest of all, and the rule may still keep more.
        oldest: bool,
    },
}

impl Reason {
    /// Whether the snapshot takes part in the policy at all with this reason.
    fn counts(&self) -> bool {
        !matches!(self, Self::NotConfirmed | Self::ClockDiffers { .. } | Self::InFuture)
    }
}

impl fmt::Display for Reason {
    /// `held`, `daily 2026-03-01`, `oldest daily 2026-03-01`, `daily within 30d 2026-03-01`, `tags a,b` ...
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Held => f.write_str("held"),
            Self::NotConfirmed => f.write_str("not confirmed, left alone"),
            Self::ClockDiffers { .. } => f.write_str("clock differs"),
            Self::InFuture => f.write_str("in the future"),
            Self::NoPolicy => f.write_str("no policy"),
            Self::Recovery => f.write_str("recovery begins with it"),
            Self::Tags(list) if *list == TagList::default() => f.write_str("no tags"),
            Self::Tags(list) => write!(f, "tags {list}"),
            Self::Rule { rule, bucket, oldest } => {
                f.write_str(if *oldest { "oldest " } else { "" })?;
                match rule.limit {
                    Limit::Within(_) => write!(f, "{rule}")?,
                    Limit::Count(_) | Limit::Unlimited => write!(f, "{}", rule.every)?,
                }
                bucket.map_or(Ok(()), |bucket| write!(f, " {bucket}"))
            }
        }
    }
}

/// What becomes of one snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The snapshot.
    pub id: SnapshotId,
    /// The time that counted.
    pub time: Timestamp,
    /// All reasons to keep it, in a fixed order. Without one it is to be forgotten.
    pub reasons: Vec<Reason>,
}

impl Verdict {
    /// Whether it is kept.
    pub fn is_kept(&self) -> bool {
        !self.reasons.is_empty()
    }
}

/// Candidates by what they are judged by.
pub fn group(candidates: &[Candidate]) -> BTreeMap<&Group, Vec<&Candidate>> {
    let mut groups: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for candidate in candidates {
        groups.entry(&candidate.group).or_default().push(candidate);
    }
    groups
}

impl Policy {
    /// Judges all candidates, each within its group, newest first; equally old ones by writer and number, the largest first.
    ///
    /// `now` is the store's time, as near as the caller can have it, and `zone` says when hours, days and weeks begin.
    /// Durations are measured from the newest snapshot of the group that counts, but never from later than `now`.
    pub fn judge<'a>(
        &self,
        candidates: &'a [Candidate],
        now: Timestamp,
        zone: &TimeZone,
    ) -> BTreeMap<&'a Group, Vec<Verdict>> {
        let judged = |(name, members)| (name, self.judge_group(members, now, zone));
        group(candidates).into_iter().map(judged).collect()
    }

    fn judge_group(&self, mut group: Vec<&Candidate>, now: Timestamp, zone: &TimeZone) -> Vec<Verdict> {
        group.sort_by_key(|candidate| Reverse(candidate.age()));
        let mut verdicts = Vec::with_capacity(group.len());
        let mut counted = Vec::with_capacity(group.len());
        for (at, candidate) in group.iter().enumerate() {
            let mut reasons = candidate.standing(now);
            let counts = reasons.iter().all(Reason::counts);
            if self.is_empty() {
                reasons.push(Reason::NoPolicy);
            } else if counts {
                let lists = self.tags().filter(|list| list.matches(&candidate.tags));
                reasons.extend(lists.map(|list| Reason::Tags(list.clone())));
                counted.push(Counted::new(at, candidate.counted(), zone));
            }
            verdicts.push(Verdict { id: candidate.id, time: candidate.counted(), reasons });
        }
        let Some(newest) = counted.first() else { return verdicts };
        let measured_from = newest.time.min(instant(now));
        for rule in self.rules() {
            let after = match rule.limit {
                Limit::Within(period) => period.before(measured_from, zone),
                Limit::Count(_) | Limit::Unlimited => None,
            };
            apply(rule, after, &counted, &mut verdicts);
        }
        verdicts
    }
}

/// A candidate that takes part in the rules by time.
struct Counted {
    /// Which verdict is its own.
    at: usize,
    time: jiff::Timestamp,
    wall: DateTime,
}

impl Counted {
    fn new(at: usize, time: Timestamp, zone: &TimeZone) -> Self {
        let time = instant(time);
        Self { at, time, wall: zone.to_datetime(time) }
    }
}

fn instant(time: Timestamp) -> jiff::Timestamp {
    jiff::Timestamp::from_nanosecond(i128::from(time.0))
        .expect("64 bits of nanoseconds reach from 1677 to 2262, well within the calendar")
}

/// Gives one rule's reasons; `counted` is newest first, and only what is newer than `after` may be kept.
fn apply(rule: Rule, after: Option<jiff::Timestamp>, counted: &[Counted], verdicts: &mut [Verdict]) {
    let mut left = match rule.limit {
        Limit::Count(count) => count,
        Limit::Unlimited | Limit::Within(_) => u32::MAX,
    };
    // A set and not just the last one: where clocks go back over midnight, a day ends twice.
    let mut taken = BTreeSet::new();
    for (place, candidate) in counted.iter().enumerate() {
        if left == 0 || after.is_some_and(|after| candidate.time <= after) {
            break;
        }
        let bucket = Bucket::of(rule.every, candidate.wall);
        let first = bucket.is_none_or(|bucket| taken.insert(bucket));
        let is_last = place + 1 == counted.len();
        if first || is_last {
            if matches!(rule.limit, Limit::Count(_)) {
                left -= 1;
            }
            verdicts[candidate.at].reasons.push(Reason::Rule { rule, bucket, oldest: !first });
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{Every, Period};
    use super::*;

    const DAY: i64 = CLOCK_TOLERANCE;

    fn berlin() -> TimeZone {
        TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap()
    }

    fn at(text: &str) -> Timestamp {
        let time: jiff::Timestamp = text.parse().unwrap();
        Timestamp(i64::try_from(time.as_nanosecond()).unwrap())
    }

    fn candidate(number: u8, time: Timestamp) -> Candidate {
        Candidate {
            id: SnapshotId::new([number; 32]),
            place: (WriterId::new([1; 16]), number.into()),
            group: Group { host: b"host".to_vec(), job: b"job".to_vec() },
            stored: time,
            claimed: time,
            brought: None,
            tags: Vec::new(),
            confirmed: true,
            held: false,
        }
    }

    /// Candidates at these times, numbered from 0.
    fn candidates(times: &[&str]) -> Vec<Candidate> {
        (0..).zip(times).map(|(number, time)| candidate(number, at(time))).collect()
    }

    fn policy(rules: &[(Every, &str)]) -> Policy {
        rules.iter().fold(Policy::new(), |policy, (every, limit)| policy.keep(*every, limit.parse().unwrap()))
    }

    /// `number: reasons` of each snapshot of the only group, newest first.
    fn table(policy: &Policy, candidates: &[Candidate], now: &str, zone: &TimeZone) -> Vec<String> {
        let groups = policy.judge(candidates, at(now), zone);
        assert_eq!(groups.len(), 1);
        let verdicts = groups.into_values().next().unwrap();
        let row = |verdict: Verdict| {
            let reasons: Vec<_> = verdict.reasons.iter().map(Reason::to_string).collect();
            assert_eq!(verdict.is_kept(), !reasons.is_empty());
            format!("{}: {}", verdict.id.as_bytes()[0], reasons.join("; "))
        };
        verdicts.into_iter().map(row).collect()
    }

    const NOW: &str = "2027-01-01T00:00:00Z";

    #[test]
    fn a_snapshot_is_kept_with_all_its_reasons_and_forgotten_without_any() {
        let mut list = candidates(&[
            "2026-03-01T08:00:00Z",
            "2026-03-01T20:00:00Z",
            "2026-02-28T20:00:00Z",
            "2026-02-27T20:00:00Z",
            "2025-12-31T20:00:00Z",
        ]);
        list[2].tags = vec!["release=1".into()];
        list[3].held = true;
        let policy =
            policy(&[(Every::Snapshot, "1"), (Every::Day, "2"), (Every::Month, "1m"), (Every::Year, "9")])
                .keep_tags("release".parse().unwrap());
        assert_eq!(
            table(&policy, &list, NOW, &TimeZone::UTC),
            [
                "1: last; daily 2026-03-01; monthly within 1m 2026-03; yearly 2026",
                "0: ",
                "2: tags release; daily 2026-02-28; monthly within 1m 2026-02",
                "3: held",
                "4: yearly 2025",
            ]
        );
    }

    #[test]
    fn a_rule_that_may_keep_more_keeps_the_oldest() {
        let list = candidates(&["2026-03-02T08:00:00Z", "2026-03-02T07:00:00Z", "2026-03-02T06:00:00Z"]);
        for (limit, last) in [
            ("1", "2: "),
            ("2", "2: oldest daily 2026-03-02"),
            ("unlimited", "2: oldest daily 2026-03-02"),
            ("1h", "2: "),
            ("3h", "2: oldest daily within 3h 2026-03-02"),
        ] {
            let rows = table(&policy(&[(Every::Day, limit)]), &list, NOW, &TimeZone::UTC);
            assert_eq!((rows[1].as_str(), rows[2].as_str()), ("1: ", last), "{limit}");
        }
    }

    #[test]
    fn weeks_are_iso_weeks_and_leap_days_are_days() {
        let list = candidates(&[
            "2021-01-04T00:00:00Z",
            "2021-01-03T23:59:59Z",
            "2020-12-28T00:00:00Z",
            "2020-12-27T23:59:59Z",
            "2020-03-01T00:00:00Z",
            "2020-02-29T12:00:00Z",
            "2020-02-28T12:00:00Z",
        ]);
        assert_eq!(
            table(&policy(&[(Every::Week, "3"), (Every::Day, "6")]), &list, NOW, &TimeZone::UTC),
            [
                "0: daily 2021-01-04; weekly 2021-W01",
                "1: daily 2021-01-03; weekly 2020-W53",
                "2: daily 2020-12-28",
                "3: daily 2020-12-27; weekly 2020-W52",
                "4: daily 2020-03-01",
                "5: daily 2020-02-29",
                "6: ",
            ]
        );
    }

    #[test]
    fn days_begin_where_the_zone_says_and_last_as_long_as_its_clocks_do() {
        // 25 October 2026 has 25 hours in Berlin: from 22:00 on the 24th to 23:00 in UTC.
        let list = candidates(&[
            "2026-10-25T23:00:00Z",
            "2026-10-25T22:59:59Z",
            "2026-10-25T01:30:00Z",
            "2026-10-25T00:30:00Z",
            "2026-10-24T22:00:00Z",
            "2026-10-24T21:59:59Z",
        ]);
        let rules = policy(&[(Every::Hour, "4"), (Every::Day, "3")]);
        assert_eq!(
            table(&rules, &list, NOW, &berlin()),
            [
                "0: hourly 2026-10-26 00:00; daily 2026-10-26",
                "1: hourly 2026-10-25 23:00; daily 2026-10-25",
                "2: hourly 2026-10-25 02:00",
                "3: ",
                "4: hourly 2026-10-25 00:00",
                "5: daily 2026-10-24",
            ]
        );
        assert_eq!(table(&rules, &list, NOW, &TimeZone::UTC)[5], "5: oldest daily 2026-10-24");
        // The day before the 29th of March at noon began 23 hours earlier.
        let spring = candidates(&["2026-03-29T10:00:00Z", "2026-03-28T11:00:01Z", "2026-03-28T11:00:00Z"]);
        let rows = table(&policy(&[(Every::Snapshot, "1d")]), &spring, NOW, &berlin());
        assert_eq!(rows, ["0: within 1d", "1: within 1d", "2: "]);
    }

    #[test]
    fn a_day_that_ends_twice_is_still_one_day() {
        // Clocks go back from 00:01 to 23:01 of the day before, as they once did in Newfoundland.
        let zone = TimeZone::posix("NST3:30NDT,M4.1.0/0:01,M11.1.0/0:01").unwrap();
        let list = candidates(&[
            "2010-11-07T12:00:00Z", // the 7th
            "2010-11-07T02:40:00Z", // 23:10 on the 6th, the second time
            "2010-11-07T02:30:30Z", // 00:00:30 on the 7th, the first time
            "2010-11-07T02:00:00Z", // 23:30 on the 6th, the first time
            "2010-11-05T12:00:00Z",
        ]);
        assert_eq!(
            table(&policy(&[(Every::Day, "3")]), &list, NOW, &zone),
            ["0: daily 2010-11-07", "1: daily 2010-11-06", "2: ", "3: ", "4: daily 2010-11-05"]
        );
    }

    #[test]
    fn what_cannot_be_trusted_is_kept_and_takes_nothing() {
        let mut list = candidates(&[
            "2026-03-10T12:00:00Z",
            "2026-03-10T11:00:00Z",
            "2026-03-10T10:00:00Z",
            "2028-01-01T00:00:00Z",
            "2026-03-01T10:00:00Z",
            "2026-03-01T09:00:00Z",
        ]);
        list[0].confirmed = false;
        list[1].claimed = Timestamp(list[1].stored.0 + DAY + 1);
        list[2].claimed = Timestamp(list[2].stored.0 - DAY);
        list[4].confirmed = false;
        list[4].claimed = Timestamp(i64::MIN);
        list[4].held = true;
        assert_eq!(
            table(&policy(&[(Every::Snapshot, "1")]), &list, NOW, &TimeZone::UTC),
            [
                "3: in the future",
                "0: not confirmed, left alone",
                "1: clock differs",
                "2: last",
                "4: held; not confirmed, left alone; clock differs",
                "5: ",
            ]
        );
    }

    #[test]
    fn what_was_brought_counts_by_the_time_of_its_origin() {
        let mut list = candidates(&["2026-03-10T12:00:00Z", "2026-03-10T13:00:00Z"]);
        list[1].brought = Some(at("2020-01-01T00:00:00Z"));
        list[1].claimed = at("2019-12-31T23:00:00Z");
        let rows = table(&policy(&[(Every::Year, "2")]), &list, NOW, &TimeZone::UTC);
        assert_eq!(rows, ["0: yearly 2026", "1: yearly 2020"]);
        list[1].claimed = list[1].stored;
        let rows = table(&policy(&[(Every::Year, "2")]), &list, NOW, &TimeZone::UTC);
        assert_eq!(rows[1], "1: clock differs");
    }

    #[test]
    fn durations_count_from_the_newest_but_not_from_later_than_now() {
        let list = candidates(&["2026-03-10T12:00:00Z", "2026-03-09T13:00:00Z"]);
        let within = policy(&[(Every::Snapshot, "2h")]);
        assert_eq!(table(&within, &list, NOW, &TimeZone::UTC), ["0: within 2h", "1: "]);
        let early = "2026-03-09T14:00:00Z";
        assert_eq!(table(&within, &list, early, &TimeZone::UTC), ["0: within 2h", "1: within 2h"]);
    }

    #[test]
    fn groups_do_not_touch_each_other_and_no_policy_keeps_all() {
        let mut list = candidates(&["2026-03-10T12:00:00Z", "2026-03-09T12:00:00Z", "2026-03-08T12:00:00Z"]);
        list[1].group.job = b"other".to_vec();
        list[2].group.host = b"other".to_vec();
        let groups = policy(&[(Every::Snapshot, "1")]).judge(&list, at(NOW), &TimeZone::UTC);
        assert_eq!(groups.len(), 3);
        assert!(groups.values().flatten().all(Verdict::is_kept));
        list.truncate(1);
        assert_eq!(table(&Policy::new(), &list, NOW, &TimeZone::UTC), ["0: no policy"]);
        assert!(Policy::new().judge(&[], at(NOW), &TimeZone::UTC).is_empty());
    }

    /// Ids say nothing of age.
    #[test]
    fn of_equally_old_ones_the_later_one_of_a_writer_is_newer() {
        let mut two = [candidate(0, at("2026-03-01T12:00:00Z")), candidate(1, at("2026-03-01T12:00:00Z"))];
        two[0].id = SnapshotId::new([9; 32]);
        let policy = policy(&[(Every::Snapshot, "1")]);
        let judged = policy.judge(&two, at("2026-03-02T12:00:00Z"), &TimeZone::UTC);
        let verdicts = judged.values().next().unwrap();
        let kept: Vec<_> =
            verdicts.iter().filter(|verdict| verdict.is_kept()).map(|verdict| verdict.id).collect();
        assert_eq!(kept, [two[1].id]);
    }

    // Properties. Times lie close together, so that buckets are shared, or anywhere at all.

    fn time() -> impl Strategy<Value = i64> {
        let near = (0i64..30_000, 0i64..4).prop_map(|(hour, part)| hour * (DAY / 24) + part * (DAY / 96));
        prop_oneof![
            8 => near.prop_map(|time| time + 1_750_000_000_000_000_000),
            4 => (0i64..200).prop_map(|part| part * (DAY / 96) + 1_792_800_000_000_000_000),
            1 => any::<i64>(),
        ]
    }

    fn some_candidate() -> impl Strategy<Value = Candidate> {
        let claim = prop_oneof![6 => Just(0), 1 => -DAY..=DAY, 1 => any::<i64>()];
        let tags = prop::collection::vec(prop::sample::select(vec!["a", "b=1", "c"]), 0..3);
        let flags = (prop::bool::weighted(0.8), prop::bool::weighted(0.1), prop::bool::weighted(0.1));
        (time(), time(), claim, tags, flags, 0u8..2).prop_map(|(stored, origin, claim, tags, flags, job)| {
            let (confirmed, held, brought) = flags;
            let counted = if brought { origin } else { stored };
            Candidate {
                group: Group { host: b"h".to_vec(), job: vec![job] },
                stored: Timestamp(stored),
                claimed: Timestamp(counted.saturating_add(claim)),
                brought: brought.then_some(Timestamp(origin)),
                tags: tags.into_iter().map(str::to_owned).collect(),
                confirmed,
                held,
                ..candidate(0, Timestamp(0))
            }
        })
    }

    fn some_candidates(least: usize) -> impl Strategy<Value = Vec<Candidate>> {
        prop::collection::vec(some_candidate(), least..40).prop_map(|mut list| {
            for (number, candidate) in (0..).zip(&mut list) {
                candidate.id = SnapshotId::new([number; 32]);
                candidate.place.1 = number.into();
            }
            list
        })
    }

    fn some_every() -> impl Strategy<Value = Every> {
        prop::sample::select(vec![
            Every::Snapshot,
            Every::Hour,
            Every::Day,
            Every::Week,
            Every::Month,
            Every::Quarter,
            Every::Year,
        ])
    }

    fn some_limit() -> impl Strategy<Value = Limit> {
        let period = (0u32..2, 0u32..4, 0u32..20, 0u32..30);
        let period = period.prop_map(|(years, months, days, hours)| Period { years, months, days, hours });
        prop_oneof![
            4 => (0u32..12).prop_map(Limit::Count),
            4 => period.prop_map(Limit::Within),
            1 => Just(Limit::Unlimited),
        ]
    }

    fn some_lists() -> impl Strategy<Value = Vec<TagList>> {
        let list = prop::sample::select(vec!["", "a", "a,b", "b=1,c"]).prop_map(|list| list.parse().unwrap());
        prop::collection::vec(list, 0..2)
    }

    fn make(rules: &[(Every, Limit)], lists: &[TagList]) -> Policy {
        let policy = rules.iter().fold(Policy::new(), |policy, (every, limit)| policy.keep(*every, *limit));
        lists.iter().cloned().fold(policy, Policy::keep_tags)
    }

    fn some_policy() -> impl Strategy<Value = Policy> {
        (prop::collection::vec((some_every(), some_limit()), 0..4), some_lists())
            .prop_map(|(rules, lists)| make(&rules, &lists))
    }

    /// What allows at least as much.
    fn stronger(limit: Limit, more: u32) -> Limit {
        match limit {
            Limit::Count(count) => Limit::Count(count + more),
            Limit::Unlimited => Limit::Unlimited,
            Limit::Within(period) => Limit::Within(Period {
                years: period.years + more / 5,
                months: period.months + more % 3,
                days: period.days + more % 4,
                hours: period.hours + more,
            }),
        }
    }

    fn zones() -> impl Strategy<Value = TimeZone> {
        prop::sample::select(vec![
            TimeZone::UTC,
            berlin(),
            TimeZone::posix("NST3:30NDT,M4.1.0/0:01,M11.1.0/0:01").unwrap(),
            TimeZone::posix("OLD10NEW-14,J364/0,J60/0").unwrap(),
        ])
    }

    /// Every snapshot with its verdict, whatever its group.
    fn judged(
        policy: &Policy,
        list: &[Candidate],
        now: i64,
        zone: &TimeZone,
    ) -> BTreeMap<SnapshotId, Verdict> {
        let verdicts = policy.judge(list, Timestamp(now), zone).into_values().flatten();
        verdicts.map(|verdict| (verdict.id, verdict)).collect()
    }

    fn now() -> impl Strategy<Value = i64> {
        prop_oneof![Just(1_900_000_000_000_000_000), time()]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        #[test]
        fn a_stronger_policy_keeps_no_less(
            list in some_candidates(0),
            rules in prop::collection::vec((some_every(), some_limit(), 0u32..12), 1..4),
            more in some_policy(),
            lists in some_lists(),
            (now, zone) in (now(), zones()),
        ) {
            let weak: Vec<_> = rules.iter().map(|(every, limit, _)| (*every, *limit)).collect();
            let weak = make(&weak, &lists);
            // A policy without rules keeps everything, and is not the weakest one.
            prop_assume!(!weak.is_empty());
            let strong: Vec<_> = rules.iter().map(|(every, limit, by)| (*every, stronger(*limit, *by))).collect();
            let strong = more.rules().fold(make(&strong, &lists), |policy, rule| policy.keep(rule.every, rule.limit));
            let strong = more.tags().cloned().fold(strong, Policy::keep_tags);
            let strong = judged(&strong, &list, now, &zone);
            for (id, verdict) in judged(&weak, &list, now, &zone) {
                prop_assert!(!verdict.is_kept() || strong[&id].is_kept(), "{verdict:?}");
            }
        }

        #[test]
        fn what_was_kept_is_kept_again(
            list in some_candidates(0), policy in some_policy(), (now, zone) in (now(), zones()),
        ) {
            let first = judged(&policy, &list, now, &zone);
            let left: Vec<_> = list.into_iter().filter(|candidate| first[&candidate.id].is_kept()).collect();
            for (id, again) in judged(&policy, &left, now, &zone) {
                // A reason stays; one can come, when the oldest that is left gets a rule's last free place.
                prop_assert!(first[&id].reasons.iter().all(|reason| again.reasons.contains(reason)));
            }
        }

        #[test]
        fn the_order_of_the_input_decides_nothing(
            list in some_candidates(0).prop_flat_map(|list| (Just(list.clone()), Just(list).prop_shuffle())),
            policy in some_policy(), (now, zone) in (now(), zones()),
        ) {
            let (list, shuffled) = list;
            let verdicts = policy.judge(&list, Timestamp(now), &zone);
            prop_assert_eq!(&verdicts, &policy.judge(&shuffled, Timestamp(now), &zone));
            for group in verdicts.values() {
                prop_assert!(group.is_sorted_by_key(|verdict| Reverse((verdict.time, verdict.id))));
            }
        }

        #[test]
        fn a_liar_changes_no_verdict_by_being_there(
            list in some_candidates(0), policy in some_policy(), (now, zone) in (now(), zones()),
        ) {
            let all = judged(&policy, &list, now, &zone);
            prop_assert_eq!(all.len(), list.len());
            let mut honest = list;
            honest.retain(|candidate| candidate.standing(Timestamp(now)).iter().all(Reason::counts));
            for candidate in all.values().filter(|v| !v.reasons.iter().all(Reason::counts)) {
                prop_assert!(candidate.is_kept());
            }
            for (id, verdict) in judged(&policy, &honest, now, &zone) {
                prop_assert_eq!(&all[&id], &verdict);
            }
        }

        #[test]
        fn to_lie_to_stay_unconfirmed_or_to_vanish_costs_no_other_snapshot_its_place(
            list in some_candidates(1), which: prop::sample::Index, how in 0..3,
            policy in some_policy(), (now, zone) in (now(), zones()),
        ) {
            let before = judged(&policy, &list, now, &zone);
            let which = which.index(list.len());
            let mut changed = list;
            let id = changed[which].id;
            match how {
                0 => changed[which].confirmed = false,
                1 => changed[which].claimed = Timestamp(changed[which].counted().0 ^ i64::MIN),
                _ => drop(changed.remove(which)),
            }
            for (other, verdict) in judged(&policy, &changed, now, &zone) {
                prop_assert!(other == id || verdict.is_kept() || !before[&other].is_kept());
            }
        }

        #[test]
        fn a_hold_keeps_its_snapshot_and_concerns_no_other(
            list in some_candidates(1), which: prop::sample::Index,
            policy in some_policy(), (now, zone) in (now(), zones()),
        ) {
            let before = judged(&policy, &list, now, &zone);
            let mut held = list;
            let which = which.index(held.len());
            held[which].held = true;
            for (id, verdict) in judged(&policy, &held, now, &zone) {
                if id == held[which].id {
                    prop_assert_eq!(&verdict.reasons[0], &Reason::Held);
                } else {
                    prop_assert_eq!(&verdict, &before[&id]);
                }
            }
        }
    }
}
