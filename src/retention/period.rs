//! How long something is kept: years, months, days and hours, by the calendar.

use std::fmt;
use std::str::FromStr;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Span, Timestamp};

use super::RetentionError;

/// A length of time by the calendar. Parses and prints as `1y5m7d2h`, the units in any order, each at most once.
/// A length of zero means that its rule is off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Period {
    /// Calendar years.
    pub years: u32,
    /// Calendar months.
    pub months: u32,
    /// Calendar days, of 23 to 25 hours.
    pub days: u32,
    /// Hours of 3600 seconds.
    pub hours: u32,
}

impl Period {
    /// Whether all of it is zero.
    pub fn is_zero(&self) -> bool {
        *self == Self::default()
    }

    /// The moment that lies this far before `end`; `None` if that is before all time.
    ///
    /// Years, months and days go back on the clock on the wall. A day that the month does not have runs over into the
    /// next month: a month before 31 March is 3 March, or the 2nd of a leap year. A time that a change of the clocks
    /// left out or repeated is taken as the earlier moment, which keeps more.
    pub fn before(&self, end: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let mut start = end;
        if (self.years, self.months, self.days) != (0, 0, 0) {
            let wall = zone.to_datetime(end);
            let months = i64::from(wall.year()) * 12 + i64::from(wall.month()) - 1;
            let months = months - i64::from(self.years) * 12 - i64::from(self.months);
            let year = i16::try_from(months.div_euclid(12)).ok()?;
            let month = i8::try_from(months.rem_euclid(12) + 1).ok()?;
            let first = Date::new(year, month, 1).ok()?;
            let days = i64::from(wall.day()) - 1 - i64::from(self.days);
            let date = first.checked_add(Span::new().try_days(days).ok()?).ok()?;
            start = zone.to_ambiguous_timestamp(date.to_datetime(wall.time())).earlier().ok()?;
        }
        start.checked_sub(SignedDuration::from_hours(i64::from(self.hours))).ok()
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_zero() {
            return f.write_str("0h");
        }
        for (amount, unit) in [(self.years, 'y'), (self.months, 'm'), (self.days, 'd'), (self.hours, 'h')] {
            if amount != 0 {
                write!(f, "{amount}{unit}")?;
            }
        }
        Ok(())
    }
}

impl FromStr for Period {
    type Err = RetentionError;

    fn from_str(text: &str) -> Result<Self, RetentionError> {
        let mut rest = text.trim();
        if rest.is_empty() {
            return Err(RetentionError::Empty);
        }
        let mut period = Self::default();
        let mut seen = Vec::new();
        while let Some(found) = rest.chars().next() {
            let number;
            (number, rest) = leading_number(rest, found)?;
            let unit = rest.chars().next().ok_or(RetentionError::NoUnit { number })?;
            let field = match unit {
                'y' => &mut period.years,
                'm' => &mut period.months,
                'd' => &mut period.days,
                'h' => &mut period.hours,
                _ => return Err(RetentionError::UnknownUnit { unit }),
            };
            if seen.contains(&unit) {
                return Err(RetentionError::RepeatedUnit { unit });
            }
            seen.push(unit);
            *field = number;
            rest = &rest[unit.len_utf8()..];
        }
        Ok(period)
    }
}

/// The number that a text starts with, and what follows it. `found` is the text's first character, for the error.
fn leading_number(text: &str, found: char) -> Result<(u32, &str), RetentionError> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, rest) = text.split_at(digits);
    match number.parse() {
        Ok(number) => Ok((number, rest)),
        Err(_) if digits > 0 => Err(RetentionError::TooLarge { max: u32::MAX }),
        Err(_) if found == '-' => Err(RetentionError::Negative),
        Err(_) => Err(RetentionError::NoNumber { found }),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn time(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn back(period: &str, end: &str, zone: &TimeZone) -> String {
        period.parse::<Period>().unwrap().before(time(end), zone).map_or("-".into(), |t| t.to_string())
    }

    #[test]
    fn periods_parse_in_any_order_and_print_in_one() {
        for (text, printed) in [
            ("9h", "9h"),
            ("5d7m", "7m5d"),
            ("4h3d9m", "9m3d4h"),
            (" 1y5m7d2h\n", "1y5m7d2h"),
            ("9999y", "9999y"),
            ("007d", "7d"),
            ("0d", "0h"),
            ("4294967295h", "4294967295h"),
        ] {
            let period: Period = text.parse().unwrap();
            assert_eq!(period.to_string(), printed);
            assert_eq!(printed.parse(), Ok(period));
        }
        assert!("0y0h".parse::<Period>().unwrap().is_zero());
    }

    #[test]
    fn what_is_no_period_is_refused_with_the_cause() {
        use RetentionError::{Empty, Negative, NoNumber, NoUnit, RepeatedUnit, TooLarge, UnknownUnit};
        for (text, error) in [
            ("", Empty),
            ("  ", Empty),
            ("5", NoUnit { number: 5 }),
            ("1y3", NoUnit { number: 3 }),
            ("2w", UnknownUnit { unit: 'w' }),
            ("1y 3m", NoNumber { found: ' ' }),
            ("1D", UnknownUnit { unit: 'D' }),
            ("1é", UnknownUnit { unit: 'é' }),
            ("d", NoNumber { found: 'd' }),
            ("+1d", NoNumber { found: '+' }),
            ("\u{7c0}d", NoNumber { found: '\u{7c0}' }),
            ("-5d", Negative),
            ("1y-5d", Negative),
            ("1d2d", RepeatedUnit { unit: 'd' }),
            ("4294967296d", TooLarge { max: u32::MAX }),
        ] {
            assert_eq!(text.parse::<Period>(), Err(error), "{text:?}");
        }
        assert!(matches!("9".repeat(1 << 16).parse::<Period>(), Err(TooLarge { .. })));
    }

    #[test]
    fn the_calendar_decides_how_long_a_month_is() {
        let utc = &TimeZone::UTC;
        for (period, end, start) in [
            ("1m", "2026-03-31T12:00:00Z", "2026-03-03T12:00:00Z"),
            ("1m", "2024-03-31T12:00:00Z", "2024-03-02T12:00:00Z"),
            ("1m3d", "2026-03-31T12:00:00Z", "2026-02-28T12:00:00Z"),
            ("1y", "2024-02-29T00:00:00Z", "2023-03-01T00:00:00Z"),
            ("4y", "2024-02-29T00:00:00Z", "2020-02-29T00:00:00Z"),
            ("1y", "2025-02-28T00:00:00Z", "2024-02-28T00:00:00Z"),
            ("13m", "2016-01-18T12:02:03Z", "2014-12-18T12:02:03Z"),
            ("36h", "2016-01-01T00:00:00.5Z", "2015-12-30T12:00:00.5Z"),
            ("9999y", "2016-01-18T12:02:03Z", "-007983-01-18T12:02:03Z"),
            ("4294967295y", "2016-01-18T12:02:03Z", "-"),
            ("4294967295m4294967295d", "2016-01-18T12:02:03Z", "-"),
            ("4294967295d", "2016-01-18T12:02:03Z", "-"),
            ("4294967295h", "2016-01-18T12:02:03Z", "-"),
        ] {
            assert_eq!(back(period, end, utc), start, "{period} before {end}");
        }
    }

    #[test]
    fn a_day_is_as_long_as_the_clocks_make_it() {
        let berlin = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        for (period, end, start) in [
            // The clocks went forward at 02:00 on 29 March: this day had 23 hours.
            ("1d", "2026-03-29T12:00:00+02:00", "2026-03-28T11:00:00Z"),
            ("24h", "2026-03-29T12:00:00+02:00", "2026-03-28T10:00:00Z"),
            // 02:30 did not exist that day; the earlier moment is 01:30.
            ("1d", "2026-03-30T02:30:00+02:00", "2026-03-29T00:30:00Z"),
            // They went back at 03:00 on 25 October: 02:30 was twice, and the first counts.
            ("1d", "2026-10-26T02:30:00+01:00", "2026-10-25T00:30:00Z"),
            ("1h", "2026-10-25T02:30:00+01:00", "2026-10-25T00:30:00Z"),
        ] {
            assert_eq!(back(period, end, &berlin), start, "{period} before {end}");
        }
    }

    #[test]
    fn a_day_that_was_left_out_does_not_end_a_period_before_it_began() {
        // As on an island that moved over the date line: the clocks go forward by a whole day on 30 December.
        let island = TimeZone::posix("OLD10NEW-14,J364/0,J60/0").unwrap();
        let end = time("2011-12-31T10:00:00+14:00");
        assert_eq!(island.to_datetime(end).to_string(), "2011-12-31T10:00:00");
        assert!("1d".parse::<Period>().unwrap().before(end, &island).unwrap() < end);
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(any: String, near in "[-0-9ymdhw ]{0,24}") {
            for text in [any, near] {
                if let Ok(period) = text.parse::<Period>() {
                    prop_assert_eq!(period.to_string().parse::<Period>(), Ok(period));
                }
            }
        }

        #[test]
        fn a_longer_period_begins_no_later(
            end: i64,
            short in prop::array::uniform4(0u32..100),
            more in prop::array::uniform4(prop_oneof![Just(0u32), 0..100u32, any::<u32>()]),
        ) {
            let berlin = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
            let period = |[years, months, days, hours]: [u32; 4]| Period { years, months, days, hours };
            let end = Timestamp::from_nanosecond(i128::from(end)).unwrap();
            let long = std::array::from_fn(|i| short[i].saturating_add(more[i]));
            let (short, long) = (period(short), period(long));
            if let Some(start) = short.before(end, &berlin) {
                prop_assert!(short.is_zero() || start < end);
                prop_assert!(long.before(end, &berlin).is_none_or(|longer| longer <= start));
            }
        }
    }
}
