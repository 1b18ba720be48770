//! Buckets: the hours, days, weeks ... of a calendar, of which a rule keeps one snapshot each.

use std::fmt;

use jiff::civil::DateTime;

/// Of what a rule keeps one snapshot each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Every {
    /// Every snapshot.
    Snapshot,
    /// Each hour that has one.
    Hour,
    /// Each day that has one.
    Day,
    /// Each ISO week that has one, Monday to Sunday.
    Week,
    /// Each month that has one.
    Month,
    /// Each quarter of a year that has one.
    Quarter,
    /// Each year that has one.
    Year,
}

impl fmt::Display for Every {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Snapshot => "last",
            Self::Hour => "hourly",
            Self::Day => "daily",
            Self::Week => "weekly",
            Self::Month => "monthly",
            Self::Quarter => "quarterly",
            Self::Year => "yearly",
        })
    }
}

/// One stretch of a calendar, in the zone that the policy was applied in.
///
/// Prints as `2026-03-01 14:00`, `2026-03-01`, `2026-W09`, `2026-03`, `2026-Q1`, `2026`. An hour that comes twice when
/// clocks go back is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Bucket {
    /// Year, month, day, hour.
    Hour(i16, i8, i8, i8),
    /// Year, month, day.
    Day(i16, i8, i8),
    /// The year that the ISO week belongs to, and its number from 1 to 53.
    Week(i16, i8),
    /// Year and month.
    Month(i16, i8),
    /// Year, and quarter from 1 to 4.
    Quarter(i16, i8),
    /// Year.
    Year(i16),
}

impl Bucket {
    /// Where a time on the wall falls; every snapshot is for itself and has no bucket.
    pub(super) fn of(every: Every, at: DateTime) -> Option<Self> {
        Some(match every {
            Every::Snapshot => return None,
            Every::Hour => Self::Hour(at.year(), at.month(), at.day(), at.hour()),
            Every::Day => Self::Day(at.year(), at.month(), at.day()),
            Every::Week => {
                let week = at.date().iso_week_date();
                Self::Week(week.year(), week.week())
            }
            Every::Month => Self::Month(at.year(), at.month()),
            Every::Quarter => Self::Quarter(at.year(), (at.month() + 2) / 3),
            Every::Year => Self::Year(at.year()),
        })
    }
}

impl fmt::Display for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hour(year, month, day, hour) => write!(f, "{year:04}-{month:02}-{day:02} {hour:02}:00"),
            Self::Day(year, month, day) => write!(f, "{year:04}-{month:02}-{day:02}"),
            Self::Week(year, week) => write!(f, "{year:04}-W{week:02}"),
            Self::Month(year, month) => write!(f, "{year:04}-{month:02}"),
            Self::Quarter(year, quarter) => write!(f, "{year:04}-Q{quarter}"),
            Self::Year(year) => write!(f, "{year:04}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_falls_into_one_bucket_of_each_kind() {
        let kinds = [Every::Hour, Every::Day, Every::Week, Every::Month, Every::Quarter, Every::Year];
        for (time, buckets) in [
            ("2026-03-01T14:59:59", "2026-03-01 14:00|2026-03-01|2026-W09|2026-03|2026-Q1|2026"),
            ("2024-02-29T00:00:00", "2024-02-29 00:00|2024-02-29|2024-W09|2024-02|2024-Q1|2024"),
            // The first days of a year may lie in week 53 of the one before, its last days in week 1 of the next.
            ("2021-01-03T23:00:00", "2021-01-03 23:00|2021-01-03|2020-W53|2021-01|2021-Q1|2021"),
            ("2021-01-04T00:00:00", "2021-01-04 00:00|2021-01-04|2021-W01|2021-01|2021-Q1|2021"),
            ("2018-12-31T00:00:00", "2018-12-31 00:00|2018-12-31|2019-W01|2018-12|2018-Q4|2018"),
            ("2026-04-01T00:00:00", "2026-04-01 00:00|2026-04-01|2026-W14|2026-04|2026-Q2|2026"),
        ] {
            let at: DateTime = time.parse().unwrap();
            let found: Vec<_> = kinds.iter().map(|kind| Bucket::of(*kind, at).unwrap().to_string()).collect();
            assert_eq!(found.join("|"), buckets);
            assert_eq!(Bucket::of(Every::Snapshot, at), None);
        }
    }
}
