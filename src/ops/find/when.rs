//! Times as a person names them who looks for something.

use std::str::FromStr;

use jiff::Timestamp as Instant;
use jiff::tz::TimeZone;

use crate::clock::Timestamp;
use crate::ops::snapshots::parse_begin;
use crate::retention::Period;

/// A point in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// This one.
    Time(Timestamp),
    /// So long before now, by the calendar.
    Ago(Period),
}

/// Text that is no time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected a date such as 2026-03-01, a time such as 2026-03-01T14:00, or a duration such as 7d or 1y6m"
)]
pub struct ParseWhenError;

impl When {
    /// As a time. What lies before all time is the beginning of it.
    pub fn at(self, now: Timestamp, zone: &TimeZone) -> Timestamp {
        match self {
            Self::Time(time) => time,
            Self::Ago(period) => {
                let now = Instant::from_nanosecond(i128::from(now.0)).ok();
                let then = now.and_then(|now| period.before(now, zone));
                let nanos = then.and_then(|then| i64::try_from(then.as_nanosecond()).ok());
                Timestamp(nanos.unwrap_or(i64::MIN))
            }
        }
    }
}

impl FromStr for When {
    type Err = ParseWhenError;

    fn from_str(text: &str) -> Result<Self, ParseWhenError> {
        match parse_begin(text) {
            Some(time) => Ok(Self::Time(time)),
            None => text.parse().map(Self::Ago).map_err(|_| ParseWhenError),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_durations_are_told_apart() {
        const DAY: i64 = 24 * 3600 * 1_000_000_000;
        let at = |text: &str| text.parse::<When>().unwrap().at(Timestamp(100 * DAY), &TimeZone::UTC).0;
        assert_eq!(at("7d"), 93 * DAY);
        assert_eq!(at("1970-01-03Z"), 2 * DAY);
        assert_eq!(at("1970-01-03T12:00Z"), 2 * DAY + DAY / 2);
        assert_eq!(at("9999y"), i64::MIN);
        for bad in ["", "yesterday", "-7d", "7"] {
            assert_eq!(bad.parse::<When>(), Err(ParseWhenError), "{bad}");
        }
    }
}
