//! What a person types to mean a snapshot.

use jiff::Timestamp as Instant;
use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;

use crate::clock::Timestamp;

/// A selector, parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::ops) enum Selector {
    /// The first hexadecimal digits of an id.
    Id(String),
    /// How many confirmed snapshots are newer.
    Latest(usize),
    /// The newest that the store had at this time.
    NotAfter(Timestamp),
}

impl Selector {
    /// Parses `latest`, `latest~N`, `@TIME` or hexadecimal digits. A time without a zone is one of this machine.
    pub(in crate::ops) fn parse(text: &str) -> Option<Self> {
        Self::parse_in(text, TimeZone::system)
    }

    fn parse_in(text: &str, zone: impl FnOnce() -> TimeZone) -> Option<Self> {
        if let Some(time) = text.strip_prefix('@') {
            return parse_time_in(time, zone).map(Self::NotAfter);
        }
        if text == "latest" {
            return Some(Self::Latest(0));
        }
        if let Some(back) = text.strip_prefix("latest~") {
            let digits = !back.is_empty() && back.bytes().all(|digit| digit.is_ascii_digit());
            return if digits { back.parse().ok().map(Self::Latest) } else { None };
        }
        let id = !text.is_empty() && text.len() <= 64 && text.bytes().all(|digit| digit.is_ascii_hexdigit());
        id.then(|| Self::Id(text.to_ascii_lowercase()))
    }
}

/// A time as a person writes it: `2026-03-01`, which is the last moment of that day, `2026-03-01T14:00`, with or without
/// `Z` or an offset. Without one it is a time of this machine's zone.
pub fn parse_time(text: &str) -> Option<Timestamp> {
    parse_time_in(text, TimeZone::system)
}

/// As [`parse_time`], but a date alone is the first moment of that day.
pub fn parse_begin(text: &str) -> Option<Timestamp> {
    parse_begin_in(text, TimeZone::system)
}

fn parse_begin_in(text: &str, zone: impl FnOnce() -> TimeZone) -> Option<Timestamp> {
    match text.contains([' ', 'T']) {
        true => parse_time_in(text, zone),
        false => {
            let (day, zone) = day_in(text, zone);
            nanos(day.parse::<Date>().ok()?.to_zoned(zone).ok()?.timestamp()).map(Timestamp)
        }
    }
}

/// A day, and the zone it is one of.
fn day_in(text: &str, zone: impl FnOnce() -> TimeZone) -> (&str, TimeZone) {
    match text.strip_suffix('Z') {
        Some(day) => (day, TimeZone::UTC),
        None => (text, zone()),
    }
}

fn parse_time_in(text: &str, zone: impl FnOnce() -> TimeZone) -> Option<Timestamp> {
    let text = text.replacen(' ', "T", 1);
    if !text.contains('T') {
        // A day includes its last moment.
        let (day, zone) = day_in(&text, zone);
        let next = day.parse::<Date>().ok()?.tomorrow().ok()?;
        let end = next.to_zoned(zone).ok()?.timestamp();
        return nanos(end).map(|end| Timestamp(end - 1));
    }
    let (day, clock) = text.split_once('T')?;
    let instant = if clock.contains(['Z', '+', '-']) {
        text.parse::<Instant>().ok()?
    } else if clock.contains(':') && day.len() >= 10 {
        text.parse::<DateTime>().ok()?.to_zoned(zone()).ok()?.timestamp()
    } else {
        return None;
    };
    nanos(instant).map(Timestamp)
}

fn nanos(instant: Instant) -> Option<i64> {
    i64::try_from(instant.as_nanosecond()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Option<Selector> {
        let berlin = TimeZone::fixed(jiff::tz::offset(1));
        Selector::parse_in(text, || berlin)
    }

    fn at(text: &str) -> Option<i64> {
        match parse(text)? {
            Selector::NotAfter(time) => Some(time.0),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_day_begins_where_the_one_before_ends() {
        let berlin = || TimeZone::fixed(jiff::tz::offset(1));
        for (day, before) in [("2026-03-01", "2026-02-28"), ("2026-03-01Z", "2026-02-28Z")] {
            let begin = parse_begin_in(day, berlin).unwrap();
            assert_eq!(begin.0, parse_time_in(before, berlin).unwrap().0 + 1);
        }
        assert_eq!(parse_begin_in("2026-03-01T14:00", berlin), parse_time_in("2026-03-01T14:00", berlin));
        for bad in ["", "now", "2026-02-30", "20:00", "2026-03-01T"] {
            assert_eq!(parse_begin_in(bad, berlin), None, "{bad}");
        }
    }

    #[test]
    fn times_are_read_in_every_form_a_person_would_type() {
        const NOON: i64 = 1_772_366_400_000_000_000; // 2026-03-01T12:00:00Z
        for text in [
            "@2026-03-01T12:00Z",
            "@2026-03-01T12:00:00Z",
            "@2026-03-01T13:00+01:00",
            "@2026-03-01T13:00",
            "@2026-03-01 13:00:00",
            "@2026-03-01T07:00:00-05:00",
        ] {
            assert_eq!(at(text), Some(NOON), "{text}");
        }
        let end = NOON + 12 * 3_600_000_000_000 - 1;
        assert_eq!(at("@2026-03-01Z"), Some(end));
        assert_eq!(at("@2026-03-01"), Some(end - 3_600_000_000_000));
        for bad in
            ["@", "@yesterday", "@2026-13-01", "@2026-03-01T25:00", "@2026-03-01T", "@9999-12-31", "@T12:00"]
        {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn selectors_are_ids_or_places_in_the_row() {
        assert_eq!(parse("latest"), Some(Selector::Latest(0)));
        assert_eq!(parse("latest~12"), Some(Selector::Latest(12)));
        assert_eq!(parse("4F1b"), Some(Selector::Id("4f1b".into())));
        for bad in [
            "",
            "latest~",
            "latest~-1",
            "latest~+1",
            "Latest",
            "4g",
            "latest~99999999999999999999999",
            &"a".repeat(65),
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
