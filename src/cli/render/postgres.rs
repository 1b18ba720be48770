//! Archived logs as text and as JSON.

use lifeboat::ops::postgres::{ClusterInfo, HistoryInfo, RangeInfo, TimelineInfo, VerifySummary};
use lifeboat::units::ByteSize;
use serde_json::{Value, json};

use super::sanitize;
use super::table::Table;
use super::time;

/// A cluster for a person.
pub(crate) fn cluster(info: &ClusterInfo) -> String {
    let mut out = format!("cluster {}\n", sanitize::line(&info.name));
    for history in &info.histories {
        out.push_str(&self::history(history));
    }
    out
}

fn history(info: &HistoryInfo) -> String {
    let known = &info.history;
    let newest = info
        .newest
        .map_or("nothing archived".to_owned(), |at| format!("last archived {}", time::local(at.0)));
    let mut out = format!(
        "history {}: PostgreSQL {}, system {}, {} in the store, {newest}\n",
        known.number,
        known.version,
        known.system,
        ByteSize(info.bytes),
    );
    let mut table = Table::new(
        &["TIMELINE", "FROM", "TO", "SEGMENTS", "FIRST COMMIT", "LAST COMMIT"],
        &[true, false, false, true, false, false],
    );
    let mut rows = 0;
    for timeline in &info.timelines {
        for range in &timeline.ranges {
            table.row(vec![
                timeline.timeline.to_string(),
                range.range.first.to_string(),
                range.range.last.to_string(),
                range.range.count.to_string(),
                commit(range.first_commit),
                commit(range.last_commit),
            ]);
            rows += 1;
        }
    }
    if rows > 0 {
        out.push_str(&table.render());
    }
    for timeline in &info.timelines {
        for (at, pair) in timeline.ranges.windows(2).enumerate() {
            let what =
                if timeline.gaps.contains(&(at + 1)) { "gap" } else { "removed what no base backup needs" };
            out.push_str(&format!(
                "{what} after {} and before {}\n",
                pair[0].range.last, pair[1].range.first
            ));
        }
    }
    for file in &info.ambiguous {
        out.push_str(&format!("{file} is archived with different contents\n"));
    }
    out
}

fn commit(at: Option<i64>) -> String {
    at.map_or("none".to_owned(), time::local)
}

/// A cluster for a program.
pub(crate) fn object(info: &ClusterInfo) -> Value {
    let histories: Vec<Value> = info.histories.iter().map(history_object).collect();
    let writers: Vec<String> = info.writers.iter().map(ToString::to_string).collect();
    json!({
        "type": "cluster",
        "name": info.name,
        "id": info.id.to_string(),
        "writers": writers,
        "histories": histories,
    })
}

fn history_object(info: &HistoryInfo) -> Value {
    let known = &info.history;
    json!({
        "history": known.number,
        "system": known.system.to_string(),
        "version": known.version,
        "segment_bytes": known.segment_size,
        "stored_bytes": info.bytes,
        "last_archived": info.newest.map(|at| time::utc(at.0)),
        "ambiguous": info.ambiguous.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "timelines": info.timelines.iter().map(timeline_object).collect::<Vec<_>>(),
    })
}

fn timeline_object(info: &TimelineInfo) -> Value {
    json!({
        "timeline": info.timeline,
        "from_timeline": info.origin.map(|origin| origin.timeline),
        "from_lsn": info.origin.map(|origin| origin.left_at.to_string()),
        "removed_below_lsn": info.trimmed.map(|at| at.to_string()),
        "gaps_before_ranges": info.gaps,
        "partial": info.partial.map(|name| name.to_string()),
        "ranges": info.ranges.iter().map(range_object).collect::<Vec<_>>(),
    })
}

fn range_object(info: &RangeInfo) -> Value {
    json!({
        "first": info.range.first.to_string(),
        "last": info.range.last.to_string(),
        "segments": info.range.count,
        "start_lsn": info.start.to_string(),
        "end_lsn": info.end.to_string(),
        "first_commit": info.first_commit.map(time::utc),
        "last_commit": info.last_commit.map(time::utc),
    })
}

/// What was found wrong, or that all is well.
pub(crate) fn verified(found: &VerifySummary) -> String {
    let mut out = String::new();
    for (file, why) in &found.bad {
        out.push_str(&format!("{file}: {}\n", sanitize::line(why)));
    }
    for (last, next) in &found.removed {
        out.push_str(&format!("removed what no base backup needs after {last} and before {next}\n"));
    }
    for (last, next) in &found.gaps {
        out.push_str(&format!("gap after {last} and before {next}\n"));
    }
    let times = match (found.first_commit, found.last_commit) {
        (Some(first), Some(last)) => format!(", from {} to {}", time::local(first), time::local(last)),
        _ => String::new(),
    };
    out.push_str(&format!(
        "cluster {}: went through {} segments, {} records, {} commits{times}\n",
        sanitize::line(&found.cluster),
        found.segments,
        found.records,
        found.commits
    ));
    out
}
