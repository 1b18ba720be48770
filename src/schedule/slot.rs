//! The moments that a schedule names.

use std::time::Duration;

use jiff::civil::{Date, DateTime};
use jiff::tz::{AmbiguousOffset, TimeZone};

use super::grammar::{Days, Schedule};
use crate::clock::Timestamp;

/// So many days in a row hold a slot of every schedule, and one of the day before and of the day after.
const DAYS: usize = 34;

impl Schedule {
    /// The latest slot that is not after this moment; `None` only at the beginning of time.
    pub fn latest(&self, moment: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        match self {
            Self::Every(interval) => grid(moment, *interval, 0),
            Self::On { .. } => {
                let from = date(moment, zone).tomorrow().ok()?;
                let mut days = std::iter::successors(Some(from), |day| day.yesterday().ok()).take(DAYS);
                days.find_map(|day| self.slots(day, zone).into_iter().filter(|slot| *slot <= moment).max())
            }
        }
    }

    /// The first slot that is after this moment; `None` only at the end of time.
    pub fn next(&self, moment: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        match self {
            Self::Every(interval) => grid(moment, *interval, 1),
            Self::On { .. } => {
                let from = date(moment, zone).yesterday().ok()?;
                let mut days = std::iter::successors(Some(from), |day| day.tomorrow().ok()).take(DAYS);
                days.find_map(|day| self.slots(day, zone).into_iter().filter(|slot| *slot > moment).min())
            }
        }
    }

    fn slots(&self, day: Date, zone: &TimeZone) -> Vec<Timestamp> {
        let Self::On { days, times } = self else { return Vec::new() };
        let meant = match days {
            Days::All => true,
            Days::Week(days) => days.contains(&day.weekday()),
            Days::Month(number) => day.day() == *number,
        };
        if !meant {
            return Vec::new();
        }
        times.iter().filter_map(|time| moment(day.to_datetime(*time), zone)).collect()
    }
}

/// A multiple of the interval since 1970: the last one up to this moment, or so many after it.
fn grid(moment: Timestamp, interval: Duration, more: i64) -> Option<Timestamp> {
    let interval = i64::try_from(interval.as_nanos()).ok().filter(|nanos| *nanos > 0)?;
    moment.0.div_euclid(interval).checked_add(more)?.checked_mul(interval).map(Timestamp)
}

fn instant(moment: Timestamp) -> jiff::Timestamp {
    // Every number of nanoseconds in 64 bits is within the years that are known.
    jiff::Timestamp::from_nanosecond(i128::from(moment.0)).unwrap_or(jiff::Timestamp::UNIX_EPOCH)
}

fn date(moment: Timestamp, zone: &TimeZone) -> Date {
    zone.to_datetime(instant(moment)).date()
}

/// The moment at which clocks show this: the first of two, and the first that exists where none shows it.
fn moment(shown: DateTime, zone: &TimeZone) -> Option<Timestamp> {
    let ambiguous = zone.to_ambiguous_timestamp(shown);
    let found = match ambiguous.offset() {
        AmbiguousOffset::Gap { after, .. } => {
            // By the offset that comes after the gap it is before the moment at which clocks change.
            let before = after.to_timestamp(shown).ok()?;
            zone.following(before).next().map(|change| change.timestamp())?
        }
        AmbiguousOffset::Unambiguous { .. } | AmbiguousOffset::Fold { .. } => ambiguous.earlier().ok()?,
    };
    i64::try_from(found.as_nanosecond()).ok().map(Timestamp)
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Berlin, without a database of zones.
    pub(in super::super) fn berlin() -> TimeZone {
        TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap()
    }

    pub(in super::super) fn at(text: &str) -> Timestamp {
        let time: jiff::Timestamp = text.parse().unwrap();
        Timestamp(i64::try_from(time.as_nanosecond()).unwrap())
    }

    fn after(schedule: &str, from: &str, count: usize) -> Vec<Timestamp> {
        let schedule: Schedule = schedule.parse().unwrap();
        let next = |slot: &Timestamp| schedule.next(*slot, &berlin());
        std::iter::successors(next(&at(from)), next).take(count).collect()
    }

    #[test]
    fn a_time_that_does_not_exist_is_the_next_one_that_does() {
        let slots = after("daily 02:30", "2026-03-28T00:00Z", 3);
        assert_eq!(slots, [at("2026-03-28T01:30Z"), at("2026-03-29T01:00Z"), at("2026-03-30T00:30Z")]);
        // Two times that end up at the same moment are one slot.
        let slots = after("daily 02:15,02:30,03:00", "2026-03-29T00:00Z", 2);
        assert_eq!(slots, [at("2026-03-29T01:00Z"), at("2026-03-30T00:15Z")]);
    }

    #[test]
    fn a_time_that_exists_twice_is_the_first_of_both() {
        let slots = after("daily 02:30", "2026-10-24T00:00Z", 3);
        assert_eq!(slots, [at("2026-10-24T00:30Z"), at("2026-10-25T00:30Z"), at("2026-10-26T01:30Z")]);
    }

    #[test]
    fn intervals_go_on_through_a_change_of_clocks() {
        let slots = after("every 6h", "2026-10-24T18:00Z", 3);
        assert_eq!(slots, [at("2026-10-25T00:00Z"), at("2026-10-25T06:00Z"), at("2026-10-25T12:00Z")]);
    }

    #[test]
    fn days_of_weeks_and_months_are_those_of_the_zone() {
        // 2026-11-01 is a Sunday; in Berlin it begins an hour before it does in UTC.
        assert_eq!(after("weekly sun 00:15", "2026-10-27T00:00Z", 1), [at("2026-10-31T23:15Z")]);
        let slots = after("monthly 28 12:00", "2026-01-28T11:00Z", 2);
        assert_eq!(slots, [at("2026-02-28T11:00Z"), at("2026-03-28T11:00Z")]);
    }

    #[test]
    fn the_ends_of_time_have_no_slot_beyond_them() {
        for text in ["every 1m", "daily", "monthly"] {
            let schedule: Schedule = text.parse().unwrap();
            for moment in [i64::MIN, i64::MAX] {
                let moment = Timestamp(moment);
                assert!(schedule.latest(moment, &berlin()).is_none_or(|slot| slot <= moment));
                assert!(schedule.next(moment, &berlin()).is_none_or(|slot| slot > moment));
            }
        }
    }

    pub(in super::super) fn any_schedule() -> impl Strategy<Value = Schedule> {
        let texts = [
            "every 1m",
            "every 7h",
            "hourly",
            "every 3d",
            "daily 02:00",
            "daily 02:30",
            "daily 02:59,03:00",
            "daily 23:59",
            "weekly sun 02:30",
            "weekly mon,sat",
            "monthly 28 02:30",
            "monthly",
        ];
        proptest::sample::select(texts.to_vec()).prop_map(|text| text.parse().unwrap())
    }

    proptest! {
        #[test]
        fn slots_follow_one_another_without_a_gap(
            schedule in any_schedule(),
            second in 1_767_225_600_i64..1_798_761_600,
        ) {
            let (moment, zone) = (Timestamp(second * 1_000_000_000), berlin());
            let latest = schedule.latest(moment, &zone).unwrap();
            let next = schedule.next(moment, &zone).unwrap();
            prop_assert!(latest <= moment && moment < next);
            // Nothing lies between them, and each finds itself again.
            prop_assert_eq!(schedule.next(latest, &zone), Some(next));
            prop_assert_eq!(schedule.latest(next, &zone), Some(next));
            prop_assert_eq!(schedule.latest(Timestamp(next.0 - 1), &zone), Some(latest));
        }
    }
}
