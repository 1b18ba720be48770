//! Schedules as people write them.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use jiff::civil::{Time, Weekday};

use crate::class::Class;

/// The times at which something is to happen.
///
/// Parses and prints as `every 6h`, `hourly`, `daily 02:30`, `daily 02:30,14:00`, `weekly sun 03:00`, `weekly mon,thu 22:15`,
/// `monthly 1 04:00`. Without a time it is midnight, without a day Monday or the first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Schedule {
    /// At all multiples of this time since 1970 in UTC, whatever clocks show; at least a minute, at most 366 days.
    Every(Duration),
    /// On these days, at each of these times of the zone.
    On {
        /// Which days.
        days: Days,
        /// When; sorted, at least one.
        times: Vec<Time>,
    },
}

/// Days of a calendar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Days {
    /// All of them.
    All,
    /// These of each week, sorted from Monday; at least one.
    Week(Vec<Weekday>),
    /// This one of each month, from 1 to 28.
    Month(i8),
}

/// Text that is no schedule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ScheduleError {
    /// It begins with none of the words.
    #[error(
        "expected `every 6h`, `hourly`, `daily 02:30`, `weekly sun 03:00` or `monthly 1 04:00`, found {found:?}"
    )]
    Unknown {
        /// What stands there.
        found: String,
    },
    /// An interval that is none.
    #[error("expected an interval from 1m to 366d such as 15m, 6h or 2d, found {found:?}")]
    Interval {
        /// What stands there.
        found: String,
    },
    /// A time of day that is none.
    #[error("expected times of day such as 02:30 or 02:30,14:00, found {found:?}")]
    Time {
        /// What stands there.
        found: String,
    },
    /// A day of the week that is none.
    #[error("expected days such as sun or mon,thu, found {found:?}")]
    Weekday {
        /// What stands there.
        found: String,
    },
    /// A day that not every month has.
    #[error("expected a day of the month from 1 to 28, found {found:?}")]
    Day {
        /// What stands there.
        found: String,
    },
}

impl ScheduleError {
    /// Always a mistake in arguments or configuration.
    pub fn class(&self) -> Class {
        Class::Usage
    }
}

const MINUTE: u64 = 60;
const HOUR: u64 = 3600;
const DAY: u64 = 24 * HOUR;
const LONGEST: u64 = 366 * DAY;
const WEEK: [(Weekday, &str); 7] = [
    (Weekday::Monday, "mon"),
    (Weekday::Tuesday, "tue"),
    (Weekday::Wednesday, "wed"),
    (Weekday::Thursday, "thu"),
    (Weekday::Friday, "fri"),
    (Weekday::Saturday, "sat"),
    (Weekday::Sunday, "sun"),
];

impl FromStr for Schedule {
    type Err = ScheduleError;

    fn from_str(text: &str) -> Result<Self, ScheduleError> {
        let words: Vec<&str> = text.split_whitespace().collect();
        Ok(match words.as_slice() {
            ["every", interval] => Self::Every(self::interval(interval)?),
            ["hourly"] => Self::Every(Duration::from_secs(HOUR)),
            ["daily"] => Self::On { days: Days::All, times: vec![Time::midnight()] },
            ["daily", at] => Self::On { days: Days::All, times: times(at)? },
            ["weekly"] => Self::On { days: Days::Week(vec![Weekday::Monday]), times: vec![Time::midnight()] },
            ["weekly", days] => Self::On { days: week(days)?, times: vec![Time::midnight()] },
            ["weekly", days, at] => Self::On { days: week(days)?, times: times(at)? },
            ["monthly"] => Self::On { days: Days::Month(1), times: vec![Time::midnight()] },
            ["monthly", day] => Self::On { days: month(day)?, times: vec![Time::midnight()] },
            ["monthly", day, at] => Self::On { days: month(day)?, times: times(at)? },
            _ => return Err(ScheduleError::Unknown { found: text.to_owned() }),
        })
    }
}

fn interval(text: &str) -> Result<Duration, ScheduleError> {
    let wrong = || ScheduleError::Interval { found: text.to_owned() };
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let unit = match unit {
        "m" => MINUTE,
        "h" => HOUR,
        "d" => DAY,
        _ => return Err(wrong()),
    };
    let seconds = number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit)).ok_or_else(wrong)?;
    if (MINUTE..=LONGEST).contains(&seconds) { Ok(Duration::from_secs(seconds)) } else { Err(wrong()) }
}

fn times(text: &str) -> Result<Vec<Time>, ScheduleError> {
    let wrong = || ScheduleError::Time { found: text.to_owned() };
    let number = |digits: &str| {
        let plain = (1..=2).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
        digits.parse::<i8>().ok().filter(|_| plain).ok_or_else(wrong)
    };
    let time = |text: &str| {
        let (hour, minute) =
            text.split_once(':').filter(|(_, minute)| minute.len() == 2).ok_or_else(wrong)?;
        Time::new(number(hour)?, number(minute)?, 0, 0).map_err(|_| wrong())
    };
    let mut times = text.split(',').map(time).collect::<Result<Vec<_>, _>>()?;
    times.sort();
    times.dedup();
    Ok(times)
}

fn week(text: &str) -> Result<Days, ScheduleError> {
    let day = |name: &str| {
        let known = WEEK.iter().find(|(_, short)| *short == name);
        known.map(|(day, _)| *day).ok_or_else(|| ScheduleError::Weekday { found: text.to_owned() })
    };
    let mut days = text.split(',').map(day).collect::<Result<Vec<_>, _>>()?;
    days.sort_by_key(|day| day.to_monday_zero_offset());
    days.dedup();
    Ok(Days::Week(days))
}

fn month(text: &str) -> Result<Days, ScheduleError> {
    match text.parse() {
        Ok(day @ 1..=28) => Ok(Days::Month(day)),
        _ => Err(ScheduleError::Day { found: text.to_owned() }),
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (days, times) = match self {
            Self::Every(interval) => {
                let seconds = interval.as_secs();
                return match seconds {
                    HOUR => f.write_str("hourly"),
                    _ if seconds.is_multiple_of(DAY) => write!(f, "every {}d", seconds / DAY),
                    _ if seconds.is_multiple_of(HOUR) => write!(f, "every {}h", seconds / HOUR),
                    _ => write!(f, "every {}m", seconds / MINUTE),
                };
            }
            Self::On { days, times } => (days, times),
        };
        match days {
            Days::All => f.write_str("daily")?,
            Days::Week(days) => {
                let names = WEEK.iter().filter(|(day, _)| days.contains(day)).map(|(_, name)| *name);
                write!(f, "weekly {}", names.collect::<Vec<_>>().join(","))?;
            }
            Days::Month(day) => write!(f, "monthly {day}")?,
        }
        for (at, time) in times.iter().enumerate() {
            write!(f, "{}{:02}:{:02}", if at == 0 { ' ' } else { ',' }, time.hour(), time.minute())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_schedule_is_refused_with_what_is_expected() {
        for bad in [
            "",
            "never",
            "every",
            "every 0m",
            "every 6",
            "every 6s",
            "every 367d",
            "every -1h",
            "every 6h 02:00",
            "every 99999999999999999999d",
            "hourly 02:00",
            "daily 24:00",
            "daily 2",
            "daily 2:5",
            "daily 02:60",
            "daily +2:30",
            "daily 02:30,",
            "daily 002:30",
            "daily 02:30 x",
            "weekly so",
            "weekly sun,",
            "weekly 03:00",
            "weekly sun 3",
            "monthly 0",
            "monthly 29",
            "monthly 1 x",
            "Daily",
            "daily\u{a0}x",
        ] {
            let error = bad.parse::<Schedule>().expect_err(bad);
            assert_eq!(error.class(), Class::Usage);
        }
    }

    #[test]
    fn schedules_print_as_they_are_read() {
        for (text, printed) in [
            ("every 15m", "every 15m"),
            ("every 60m", "hourly"),
            ("every 48h", "every 2d"),
            ("hourly", "hourly"),
            ("daily", "daily 00:00"),
            (" daily  2:30 ", "daily 02:30"),
            ("daily 14:00,02:30,14:00", "daily 02:30,14:00"),
            ("weekly", "weekly mon 00:00"),
            ("weekly sun,mon 03:00", "weekly mon,sun 03:00"),
            ("monthly 28 23:59", "monthly 28 23:59"),
        ] {
            let schedule: Schedule = text.parse().unwrap();
            assert_eq!(schedule.to_string(), printed, "{text}");
            assert_eq!(printed.parse(), Ok(schedule), "{text}");
        }
    }
}
