//! What the ledger says, for people and for programs.

use lifeboat::clock::Timestamp;
use lifeboat::format::ledger::Look;
use lifeboat::ops::ledger::{Coverage, Forecast};
use lifeboat::ops::verify::Covered;
use lifeboat::units::{ByteSize, Counted};
use serde_json::{Value, json};

use super::time;

/// What of all that is stored is verified, and when it will be again.
pub(crate) fn guarantee(covered: &Covered) -> String {
    let forecast = match covered.forecast {
        Some(Forecast { within: Some(within), .. }) => {
            format!("; at this pace all of it within {}", time::age(within))
        }
        Some(Forecast { runs, within: None }) => format!("; all of it in {} like this", Counted(runs, "run")),
        None => String::new(),
    };
    described(&covered.coverage, covered.at, &forecast)
}

/// What of all that is stored is verified.
pub(crate) fn share(coverage: &Coverage, now: Timestamp) -> String {
    described(coverage, now, "")
}

fn described(coverage: &Coverage, now: Timestamp, forecast: &str) -> String {
    let how = match coverage.look {
        Look::Read => "read and found whole",
        Look::Opened => "opened and checked",
    };
    if coverage.objects == 0 {
        return "nothing is stored that could be verified".to_owned();
    }
    let share = (u128::from(coverage.verified) * 1000 / u128::from(coverage.bytes.max(1))) as u64;
    let age = time::age(coverage.age(now));
    let waits = match coverage.verified == coverage.bytes {
        true => format!("the longest ago {age}"),
        false => format!("something waits for {age}"),
    };
    let damaged = match coverage.damaged {
        0 => String::new(),
        count => format!("; {} damaged", Counted(count, "object")),
    };
    format!("{} of {} {how}, {waits}{forecast}{damaged}", percent(share), ByteSize(coverage.bytes))
}

/// Thousandths as percent; never 100 for less than all.
fn percent(thousandths: u64) -> String {
    match (thousandths / 10, thousandths % 10) {
        (whole, 0) => format!("{whole} %"),
        (whole, tenth) => format!("{whole}.{tenth} %"),
    }
}

/// The same for programs.
pub(crate) fn coverage_object(covered: &Covered) -> Value {
    let Covered { coverage, forecast, at, known } = covered;
    json!({
        "look": match coverage.look {
            Look::Read => "read",
            Look::Opened => "opened",
        },
        "objects": coverage.objects,
        "bytes": coverage.bytes,
        "bytes_verified": coverage.verified,
        "damaged": coverage.damaged,
        "damaged_not_looked_at": known,
        "oldest_seconds": coverage.oldest.map(|_| coverage.age(*at).as_secs()),
        "runs": forecast.map(|forecast| forecast.runs),
        "within_seconds": forecast.and_then(|forecast| forecast.within).map(|within| within.as_secs()),
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const DAY: i64 = 24 * 3600 * 1_000_000_000;

    #[test]
    fn a_guarantee_is_one_line_and_says_100_percent_of_nothing_less() {
        let coverage = Coverage {
            look: Look::Opened,
            objects: 9,
            bytes: 100_000,
            verified: 100_000,
            damaged: 0,
            oldest: Some(Timestamp(DAY)),
        };
        let within = Some(Duration::from_secs(21 * 24 * 3600));
        let at = Timestamp(20 * DAY);
        let covered = Covered { coverage, forecast: Some(Forecast { runs: 21, within }), known: 0, at };
        assert_eq!(
            guarantee(&covered),
            "100 % of 97.7 KiB opened and checked, the longest ago 19 d; at this pace all of it within 21 d"
        );
        let coverage = Coverage { look: Look::Read, verified: 99_999, damaged: 1, ..coverage };
        let covered = Covered { coverage, forecast: Some(Forecast { runs: 2, within: None }), ..covered };
        assert_eq!(
            guarantee(&covered),
            "99.9 % of 97.7 KiB read and found whole, something waits for 19 d; all of it in 2 runs like this; 1 object damaged"
        );
        let nothing = Coverage { objects: 0, bytes: 0, verified: 0, ..coverage };
        assert!(guarantee(&Covered { coverage: nothing, ..covered }).contains("nothing is stored"));
    }
}
