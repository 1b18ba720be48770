//! Which slot is to be run now, and how a job stands.

use std::time::Duration;

use jiff::tz::TimeZone;

use super::Schedule;
use crate::clock::{Timestamp, later};

/// A schedule, and what belongs to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The slots.
    pub schedule: Schedule,
    /// How long after each of them; see [`spread`].
    pub shift: Duration,
    /// How long after its end a run that failed is tried again; `None`: not before the next slot.
    pub retry: Option<Duration>,
}

/// What is remembered of the last run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastRun {
    /// The slot it was for.
    pub slot: Timestamp,
    /// When it ended; `None` if it did not: it is at work, or was interrupted.
    pub ended: Option<Timestamp>,
    /// It did what it should.
    pub good: bool,
    /// The slot of the last run that was good, this one or one before it.
    pub good_slot: Option<Timestamp>,
    /// How many runs began since then, this one among them.
    pub attempts: u32,
    /// One of these ended, and was not good.
    pub failed: bool,
}

/// Whether something is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// Now, for this slot.
    Now(Timestamp),
    /// Not before this moment; `None` at the end of time.
    Later(Option<Timestamp>),
}

/// How a job stands by what is remembered of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Its last run was good, or the first one after that is at work, and none is late.
    Good,
    /// Since this moment there should be a good run, and there is none.
    Missed(Timestamp),
    /// A run ended and was not good, and none was good since.
    Failed,
}

impl Plan {
    /// Whether a run is due now. A last run of `None` is one that is not known: there was none, or nobody remembers it.
    pub fn due(&self, last: Option<&LastRun>, now: Timestamp, zone: &TimeZone) -> Due {
        let Some(slot) = self.slot(now, zone) else { return Due::Later(self.next(now, zone)) };
        match credible(last, now) {
            Some(run) if run.slot >= slot => match (run.ended, self.retry) {
                (None, _) => Due::Now(slot),
                (Some(ended), Some(retry)) if !run.good => match later(ended, retry) {
                    // A retry does not outlive the next slot, and an end in the future was told by a wrong clock.
                    at if at <= now || ended > now => Due::Now(slot),
                    at => Due::Later(self.next(now, zone).into_iter().chain([at]).min()),
                },
                (Some(_), _) => Due::Later(self.next(now, zone)),
            },
            _ => Due::Now(slot),
        }
    }

    /// The latest slot whose shifted moment has come.
    pub fn slot(&self, now: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        self.schedule.latest(Timestamp(now.0.checked_sub(nanos(self.shift))?), zone)
    }

    /// When the first slot after the present one is due.
    pub fn next(&self, now: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let slot = self.schedule.next(Timestamp(now.0.checked_sub(nanos(self.shift))?), zone)?;
        Some(later(slot, self.shift))
    }

    /// How the job stands, if nothing is said of a run that is late by less than `slack`. Only a run that ended well counts: one
    /// that began proves nothing, because it may be killed each time, or never end. With `at_work` the last run goes on.
    pub fn standing(
        &self,
        (last, at_work): (Option<&LastRun>, bool),
        now: Timestamp,
        zone: &TimeZone,
        slack: Duration,
    ) -> Standing {
        let patient = Timestamp(now.0.saturating_sub(nanos(slack)));
        let last = credible(last, now);
        let good = last.and_then(|run| run.good_slot).filter(|slot| *slot <= now);
        let wanted = self.slot(patient, zone);
        let timely = |run: &LastRun| wanted.is_none_or(|slot| run.slot >= slot);
        match (last, wanted) {
            (Some(run), _) if at_work && run.attempts <= 1 && timely(run) => Standing::Good,
            (Some(run), _) if run.failed && timely(run) => Standing::Failed,
            (_, Some(slot)) if good.is_none_or(|good| good < slot) => {
                Standing::Missed(later(slot, self.shift))
            }
            (Some(run), _) if run.failed => Standing::Failed,
            _ => Standing::Good,
        }
    }
}

/// A run for a slot that is still to come was noted by a clock that was wrong.
fn credible(last: Option<&LastRun>, now: Timestamp) -> Option<&LastRun> {
    last.filter(|run| run.slot <= now)
}

fn nanos(time: Duration) -> i64 {
    i64::try_from(time.as_nanos()).unwrap_or(i64::MAX)
}

/// How long after its slots something is due that should not be at the same moment everywhere: less than `window`, in whole
/// seconds, and always the same for the same name of a machine and of what it does.
pub fn spread(window: Duration, machine: &[u8], name: &[u8]) -> Duration {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(machine.len() as u64).to_le_bytes());
    hasher.update(machine).update(name);
    let mut first = [0; 8];
    first.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    let seconds = window.as_secs();
    Duration::from_secs(if seconds == 0 { 0 } else { u64::from_le_bytes(first) % seconds })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::super::slot::tests::{any_schedule, at, berlin};
    use super::*;

    const MINUTE: i64 = 60_000_000_000;

    fn plan(text: &str) -> Plan {
        Plan { schedule: text.parse().unwrap(), shift: Duration::ZERO, retry: None }
    }

    /// A first run.
    fn ran(slot: &str, ended: Option<&str>, good: bool) -> LastRun {
        begun(None, at(slot)).end(ended.map(at), good)
    }

    fn begun(last: Option<LastRun>, slot: Timestamp) -> LastRun {
        let good_slot = last.and_then(|run| run.good_slot);
        let attempts = last.map_or(0, |run| run.attempts) + 1;
        LastRun {
            slot,
            ended: None,
            good: false,
            good_slot,
            attempts,
            failed: last.is_some_and(|run| run.failed),
        }
    }

    impl LastRun {
        fn end(self, ended: Option<Timestamp>, good: bool) -> Self {
            match (ended, good) {
                (None, _) => self,
                (_, true) => {
                    Self { ended, good, good_slot: Some(self.slot), attempts: 0, failed: false, ..self }
                }
                (_, false) => Self { ended, good, failed: true, ..self },
            }
        }
    }

    #[test]
    fn what_is_not_known_is_due_and_what_ran_is_not() {
        let (plan, zone, now) = (plan("daily 02:00"), berlin(), at("2026-05-05T12:00Z"));
        let slot = at("2026-05-05T00:00Z");
        let next = Due::Later(Some(at("2026-05-06T00:00Z")));
        for (last, due) in [
            (None, Due::Now(slot)),
            (Some(ran("2026-05-04T00:00Z", Some("2026-05-04T01:00Z"), true)), Due::Now(slot)),
            (Some(ran("2026-05-05T00:00Z", Some("2026-05-05T01:00Z"), true)), next),
            (Some(ran("2026-05-05T00:00Z", Some("2026-05-05T01:00Z"), false)), next),
            // It was interrupted.
            (Some(ran("2026-05-05T00:00Z", None, false)), Due::Now(slot)),
            // A clock was wrong.
            (Some(ran("2099-01-01T00:00Z", Some("2026-05-05T01:00Z"), true)), Due::Now(slot)),
        ] {
            assert_eq!(plan.due(last.as_ref(), now, &zone), due, "{last:?}");
        }
    }

    #[test]
    fn what_failed_is_tried_again_if_that_is_wanted() {
        let plan = Plan { retry: Some(Duration::from_secs(1800)), ..plan("daily 02:00") };
        let failed = ran("2026-05-05T00:00Z", Some("2026-05-05T01:00Z"), false);
        let due = |now: &str| plan.due(Some(&failed), at(now), &berlin());
        assert_eq!(due("2026-05-05T01:10Z"), Due::Later(Some(at("2026-05-05T01:30Z"))));
        assert_eq!(due("2026-05-05T01:30Z"), Due::Now(at("2026-05-05T00:00Z")));
        let good = LastRun { good: true, ..failed };
        assert_eq!(
            plan.due(Some(&good), at("2026-05-05T09:00Z"), &berlin()),
            Due::Later(Some(at("2026-05-06T00:00Z")))
        );
    }

    #[test]
    fn what_did_not_run_is_missed_after_a_while() {
        let (plan, zone, slack) = (plan("daily 02:00"), berlin(), Duration::from_secs(3600));
        let standing =
            |last: Option<LastRun>, now: &str| plan.standing((last.as_ref(), false), at(now), &zone, slack);
        let yesterday = ran("2026-05-04T00:00Z", Some("2026-05-04T01:00Z"), true);
        assert_eq!(standing(Some(yesterday), "2026-05-05T00:59Z"), Standing::Good);
        assert_eq!(standing(Some(yesterday), "2026-05-05T01:00Z"), Standing::Missed(at("2026-05-05T00:00Z")));
        assert_eq!(standing(None, "2026-05-05T12:00Z"), Standing::Missed(at("2026-05-05T00:00Z")));
        let failed = ran("2026-05-04T00:00Z", Some("2026-05-04T01:00Z"), false);
        assert_eq!(standing(Some(failed), "2026-05-05T00:30Z"), Standing::Failed);
        let interrupted = ran("2026-05-05T00:00Z", None, false);
        assert_eq!(
            standing(Some(interrupted), "2026-05-05T12:00Z"),
            Standing::Missed(at("2026-05-05T00:00Z"))
        );
        // One that failed and is at work again has failed, and so has one that was killed after that.
        let again = begun(Some(failed), at("2026-05-05T00:00Z"));
        assert_eq!(standing(Some(again), "2026-05-05T00:30Z"), Standing::Failed);
        let future = ran("2099-01-01T00:00Z", Some("2099-01-01T00:00Z"), true);
        assert_eq!(standing(Some(future), "2026-05-05T12:00Z"), Standing::Missed(at("2026-05-05T00:00Z")));
    }

    #[test]
    fn a_run_at_work_is_good_until_the_next_one_should_have_been() {
        let (plan, zone, slack) = (plan("daily 02:00"), berlin(), Duration::from_secs(3600));
        let standing = |run: LastRun, now: &str| plan.standing((Some(&run), true), at(now), &zone, slack);
        let yesterday = ran("2026-05-04T00:00Z", Some("2026-05-04T01:00Z"), true);
        let today = begun(Some(yesterday), at("2026-05-05T00:00Z"));
        for (now, expected) in [
            ("2026-05-05T00:30Z", Standing::Good),
            ("2026-05-05T23:00Z", Standing::Good),
            ("2026-05-06T00:59Z", Standing::Good),
            ("2026-05-06T01:00Z", Standing::Missed(at("2026-05-06T00:00Z"))),
            ("2026-06-01T12:00Z", Standing::Missed(at("2026-06-01T00:00Z"))),
        ] {
            assert_eq!(standing(today, now), expected, "{now}");
        }
        // The second one at work proves that the first one was not good.
        let second = begun(Some(today), at("2026-05-05T00:00Z"));
        assert_eq!(standing(second, "2026-05-05T00:30Z"), Standing::Good);
        assert_eq!(standing(second, "2026-05-05T12:00Z"), Standing::Missed(at("2026-05-05T00:00Z")));
        let frequent = Plan { schedule: "every 15m".parse().unwrap(), ..plan.clone() };
        let killed = begun(Some(begun(None, at("2026-05-05T11:45Z"))), at("2026-05-05T12:00Z"));
        for at_work in [false, true] {
            let now = at("2026-05-05T12:05Z");
            let found = frequent.standing((Some(&killed), at_work), now, &zone, slack);
            assert_eq!(found, Standing::Missed(at("2026-05-05T11:00Z")));
        }
    }

    #[test]
    fn machines_are_spread_and_each_stays_where_it_is() {
        let window = Duration::from_secs(1800);
        let shifts: Vec<_> = (0..50_u8).map(|host| spread(window, &[host], b"web")).collect();
        assert!(shifts.iter().all(|shift| *shift < window));
        assert!(shifts.iter().collect::<std::collections::BTreeSet<_>>().len() > 40);
        assert_eq!(spread(window, &[7], b"web"), shifts[7]);
        assert_ne!(spread(window, b"ab", b"c"), spread(window, b"a", b"bc"));
        assert_eq!(spread(Duration::ZERO, b"a", b"b"), Duration::ZERO);
    }

    /// What happens to a host in a minute.
    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Minute {
        Asleep,
        Good,
        Fails,
        Killed,
    }

    /// Pieces of time in which a host is asleep, or awake with runs that end in one way.
    fn days() -> impl Strategy<Value = Vec<(Minute, i64)>> {
        let what = proptest::sample::select(vec![
            Minute::Asleep,
            Minute::Good,
            Minute::Good,
            Minute::Fails,
            Minute::Killed,
        ]);
        proptest::collection::vec((what, 1_i64..600), 1..60)
    }

    /// Lives a week from this moment, asking every five minutes while awake. Gives each run with its slot and its end.
    fn live(
        plan: &Plan,
        start: Timestamp,
        days: &[(Minute, i64)],
    ) -> (Vec<(Timestamp, Minute)>, Vec<Timestamp>) {
        let (mut last, mut runs, mut asked) = (None, Vec::new(), Vec::new());
        let minutes = days.iter().cycle().flat_map(|(what, minutes)| (0..*minutes).map(move |_| *what));
        for (minute, what) in (0..7 * 24 * 60).zip(minutes) {
            let now = Timestamp(start.0 + minute * MINUTE);
            if what == Minute::Asleep || minute % 5 != 0 {
                continue;
            }
            asked.push(now);
            if let Due::Now(slot) = plan.due(last.as_ref(), now, &berlin()) {
                runs.push((slot, what));
                let ended = (what != Minute::Killed).then_some(now);
                last = Some(begun(last, slot).end(ended, what == Minute::Good));
            }
        }
        (runs, asked)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        /// However often runs begin and are killed or fail, at work or not: without a good one nothing stands well for longer
        /// than the slack after a slot, and right after a good one all is well.
        #[test]
        fn only_a_good_run_makes_a_job_stand_well(
            schedule in any_schedule(),
            ends in proptest::collection::vec((any::<bool>(), any::<bool>(), any::<bool>()), 1..40),
            step in 1_i64..3000,
        ) {
            let plan = Plan { schedule, shift: Duration::ZERO, retry: None };
            let (zone, slack) = (berlin(), Duration::from_secs(3600));
            let mut now = at("2026-03-25T09:00Z");
            let mut last: Option<LastRun> = None;
            for (ended, good, at_work) in ends {
                let slot = plan.slot(now, &zone).unwrap();
                let at_work = at_work && !ended;
                last = Some(begun(last, slot).end(ended.then_some(now), good));
                let standing = plan.standing((last.as_ref(), at_work), now, &zone, slack);
                if ended {
                    prop_assert_eq!(standing == Standing::Good, good);
                }
                now = Timestamp(now.0 + step * MINUTE);
                let wanted = plan.slot(Timestamp(now.0 - 60 * MINUTE), &zone).unwrap();
                let run = last.unwrap();
                if run.good_slot.is_none_or(|slot| slot < wanted) && (run.slot < wanted || run.attempts > 1) {
                    for at_work in [false, true] {
                        prop_assert_ne!(plan.standing((Some(&run), at_work), now, &zone, slack), Standing::Good);
                    }
                }
            }
        }

        /// Five hosts through a week in which clocks go forward or back.
        #[test]
        fn every_run_due_ran_once(
            schedule in any_schedule(),
            window in 0_u64..7200,
            hosts in proptest::collection::vec(days(), 5),
            spring in any::<bool>(),
        ) {
            let start = at(if spring { "2026-03-25T09:00Z" } else { "2026-10-21T09:00Z" });
            for (host, days) in hosts.iter().enumerate() {
                let shift = spread(Duration::from_secs(window), &[host as u8], b"job");
                let plan = Plan { schedule: schedule.clone(), shift, retry: None };
                let (runs, asked) = live(&plan, start, days);
                // Every slot that was the latest one when the host asked was run, and nothing else was.
                let mut ends: BTreeMap<Timestamp, Vec<Minute>> = BTreeMap::new();
                for (slot, end) in &runs {
                    ends.entry(*slot).or_default().push(*end);
                }
                let wanted: std::collections::BTreeSet<_> =
                    asked.iter().filter_map(|now| plan.slot(*now, &berlin())).collect();
                prop_assert!(wanted.iter().eq(ends.keys()));
                // Once to its end, and never again after that.
                for (slot, ends) in &ends {
                    let (end, before) = ends.split_last().unwrap();
                    prop_assert!(before.iter().all(|end| *end == Minute::Killed), "{slot:?} {ends:?}");
                    let given_up = runs.last().is_some_and(|(last, _)| last == slot)
                        || runs.iter().any(|(other, _)| other > slot);
                    prop_assert!(*end != Minute::Killed || given_up);
                }
                prop_assert!(runs.is_sorted_by_key(|(slot, _)| *slot));
            }
        }

        #[test]
        fn what_is_late_is_missed_and_what_ran_is_not(
            schedule in any_schedule(),
            second in 1_767_225_600_i64..1_798_761_600,
            late in 0_i64..300,
        ) {
            let plan = Plan { schedule, shift: Duration::from_secs(90), retry: None };
            let (now, zone) = (Timestamp(second * 1_000_000_000), berlin());
            let slot = plan.slot(now, &zone).unwrap();
            let run = begun(None, slot).end(Some(now), true);
            prop_assert_eq!(plan.standing((Some(&run), false), now, &zone, Duration::ZERO), Standing::Good);
            let before = begun(None, Timestamp(slot.0 - 1)).end(Some(now), true);
            let due = Timestamp(later(slot, plan.shift).0 + late * MINUTE);
            let slack = Duration::from_secs(150 * 60);
            let standing = plan.standing((Some(&before), false), due, &zone, slack);
            let latest = plan.slot(Timestamp(due.0 - 150 * MINUTE), &zone).unwrap();
            let missed = latest > before.slot;
            prop_assert_eq!(standing != Standing::Good, missed);
        }
    }
}
