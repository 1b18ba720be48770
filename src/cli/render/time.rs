//! Times in the zone of this machine, and durations.

use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;

fn timestamp(nanos: i64) -> Timestamp {
    Timestamp::from_nanosecond(i128::from(nanos)).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// `2026-03-01 14:00:05` in the local zone.
pub(crate) fn local(nanos: i64) -> String {
    timestamp(nanos).to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string()
}

/// As [`local`], of whole seconds; out of jiff's range, the plain number.
pub(crate) fn local_seconds(seconds: i64) -> String {
    match Timestamp::from_second(seconds) {
        Ok(time) => time.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string(),
        Err(_) => format!("@{seconds}"),
    }
}

/// `2026-03-01T13:00:05.123456789Z`, for JSON.
pub(crate) fn utc(nanos: i64) -> String {
    timestamp(nanos).to_string()
}

/// As [`utc`], of seconds and nanoseconds; `None` outside of the years -9999 to 9999.
pub(crate) fn utc_parts(seconds: i64, nanos: u32) -> Option<String> {
    Timestamp::new(seconds, i32::try_from(nanos).ok()?).ok().map(|time| time.to_string())
}

/// `0.4 s`, `12.3 s`, `5 min 3 s`, `2 h 5 min`.
pub(crate) fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..60 => format!("{:.1} s", duration.as_secs_f64()),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}

/// As [`duration`], of what may be long ago: `5 min`, `3 h`, `12 d`.
pub(crate) fn age(age: Duration) -> String {
    let minutes = age.as_secs() / 60;
    match minutes {
        0..120 => format!("{minutes} min"),
        120..2880 => format!("{} h", minutes / 60),
        _ => format!("{} d", minutes / 1440),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stored_time_can_be_shown() {
        for nanos in [i64::MIN, -1, 0, i64::MAX] {
            assert!(!local(nanos).is_empty() && utc(nanos).ends_with('Z'));
        }
        for seconds in [i64::MIN, 0, i64::MAX] {
            assert!(!local_seconds(seconds).is_empty());
        }
        assert_eq!(utc(1_772_373_605_000_000_000), "2026-03-01T14:00:05Z");
    }

    #[test]
    fn durations_read_well() {
        for (millis, text) in [(420, "0.4 s"), (61_000, "1 min 1 s"), (7_500_000, "2 h 5 min")] {
            assert_eq!(duration(Duration::from_millis(millis)), text);
        }
        for (minutes, text) in [(0, "0 min"), (119, "119 min"), (120, "2 h"), (2879, "47 h"), (2880, "2 d")] {
            assert_eq!(age(Duration::from_secs(minutes * 60)), text);
        }
    }
}
