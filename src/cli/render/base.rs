//! What a base backup did, for people and for scripts.

use std::fmt::Write as _;

use lifeboat::ops::base::restore::BaseRestoreSummary;
use lifeboat::ops::base::{BaseBackupSummary, CheckReport, Point, Verdict};
use lifeboat::postgres::Lsn;
use serde_json::{Value, json};

use super::{sanitize, summary, time};

/// Segments that a message names.
const NAMED: usize = 3;

/// The last object of `postgres backup --json`.
pub(crate) fn backup_json(done: &BaseBackupSummary, cluster: &str) -> Value {
    let mut out = summary::backup_json(&done.backup);
    let base = &done.postgres;
    let wrong: Vec<Value> = done
        .wrong
        .iter()
        .map(|page| json!({ "file": page.file.to_string_lossy(), "page": page.page }))
        .collect();
    let spaces: Vec<Value> = base
        .tablespaces
        .iter()
        .map(|space| {
            json!({
                "oid": space.oid,
                "name": String::from_utf8_lossy(&space.name),
                "place": String::from_utf8_lossy(&space.place),
            })
        })
        .collect();
    out["postgres"] = json!({
        "cluster": cluster,
        "history": base.history,
        "state": if base.complete { "complete" } else { "waiting-for-wal" },
        "system": base.system.to_string(),
        "version": base.version,
        "timeline": base.timeline,
        "start": Lsn(base.start).to_string(),
        "stop": Lsn(base.stop).to_string(),
        "started": time::utc(base.started),
        "stopped": time::utc(base.stopped),
        "checksums": base.checksums,
        "wrong_pages": base.wrong_pages,
        "wrong": wrong,
        "lacking": done.lacking,
        "tablespaces": spaces,
    });
    out
}

/// Several lines for a person.
pub(crate) fn backup_text(done: &BaseBackupSummary, cluster: &str) -> String {
    let base = &done.postgres;
    let mut out = summary::backup_text(&done.backup, None);
    let (start, stop) = (Lsn(base.start), Lsn(base.stop));
    let _ = writeln!(out, "  log       {start} to {stop} of timeline {}", base.timeline);
    let pages = match (base.checksums, base.wrong_pages) {
        (false, _) => "have no checksums in this cluster".to_owned(),
        (true, 0) => "all have their checksum".to_owned(),
        (true, wrong) => format!("{wrong} with a wrong checksum, named above"),
    };
    let _ = writeln!(out, "  pages     {pages}");
    let _ = writeln!(
        out,
        "  cluster   {} can be restored from {} on",
        sanitize::line(cluster),
        time::local(base.stopped)
    );
    out
}

/// What is said of a backup whose log is not all there yet.
pub(crate) fn waiting(lacking: &[String]) -> String {
    let named = lacking.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
    let more = if lacking.len() > NAMED { ", ..." } else { "" };
    format!(
        "error: the backup is stored, but of its log the archive lacks {named}{more}: it can be restored when that has come; \
         the server's log says why archive_command fails"
    )
}

/// The last object of `postgres restore --json`.
pub(crate) fn restore_json(done: &BaseRestoreSummary, dry_run: bool) -> Value {
    let spaces: Vec<Value> = done
        .spaces
        .iter()
        .map(|(space, place)| json!({ "oid": space.oid, "place": place.to_string_lossy() }))
        .collect();
    json!({
        "type": "summary",
        "dry_run": dry_run,
        "snapshot": done.snapshot.id.to_string(),
        "timeline": done.plan.timeline,
        "archive_end": done.plan.end.to_string(),
        "last_commit": done.plan.last_commit.map(time::utc),
        "gap": done.plan.hole,
        "tablespaces": spaces,
        "files": done.files.files,
        "bytes": done.files.bytes,
        "seconds": done.files.elapsed.as_secs_f64(),
    })
}

/// Several lines for a person.
pub(crate) fn restore_text(done: &BaseRestoreSummary, directory: &str, dry_run: bool) -> String {
    let (verb, base) = (if dry_run { "would restore" } else { "restored" }, &done.base);
    let mut out = format!("{verb} snapshot {} into {directory}\n", done.snapshot.id.short());
    let _ = writeln!(out, "  backup    ended {} at {}", time::local(base.stopped), Lsn(base.stop));
    let last =
        done.plan.last_commit.map_or_else(String::new, |last| format!(", last commit {}", time::local(last)));
    let _ = writeln!(out, "  log       reaches {} of timeline {}{last}", done.plan.end, done.plan.timeline);
    if done.plan.hole {
        out.push_str(
            "  gap       behind that segments are missing: the server stops there and does not open\n",
        );
    }
    for (space, place) in &done.spaces {
        let _ = writeln!(out, "  space     {} in {}", sanitize::name(&space.name), sanitize::path(place));
    }
    if !dry_run {
        let _ = writeln!(out, "start PostgreSQL {} on it; it fetches its log by itself", base.major());
    }
    out
}

/// What a check found, on one line.
pub(crate) fn check_line(report: &CheckReport) -> String {
    let missed: Vec<&Point> = report.points.iter().filter(|point| point.verdict == Verdict::Missed).collect();
    let name = sanitize::line(&report.cluster);
    if missed.is_empty() {
        let base = report.newest_base.map_or("not seen".to_owned(), |age| format!("{} old", time::age(age)));
        return format!("OK cluster {name}: {} segments wait, base backup {base}\n", report.lag);
    }
    let texts: Vec<String> = missed.iter().map(|point| sanitize::line(&point.text)).collect();
    format!("MISSED cluster {name}: {}\n", texts.join("; "))
}

/// What a check found, a line each.
pub(crate) fn check_points(report: &CheckReport) -> String {
    let line = |point: &Point| {
        format!("{:7} {:16} {}\n", verdict(point.verdict), point.name, sanitize::line(&point.text))
    };
    report.points.iter().map(line).collect()
}

/// What a check found, for a program.
pub(crate) fn check_json(report: &CheckReport) -> Value {
    let point =
        |point: &Point| json!({ "name": point.name, "verdict": verdict(point.verdict), "text": point.text });
    json!({
        "type": "postgres_check",
        "cluster": report.cluster,
        "good": report.is_good(),
        "current_lsn": report.current.to_string(),
        "last_archived": report.last_archived.map(|name| name.to_string()),
        "lag_segments": report.lag,
        "lag_seconds": report.lag_seconds,
        "newest_base_seconds": report.newest_base.map(|age| age.as_secs()),
        "oldest_base_seconds": report.oldest_base.map(|age| age.as_secs()),
        "gaps": report.gaps,
        "points": report.points.iter().map(point).collect::<Vec<_>>(),
    })
}

fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Good => "good",
        Verdict::Note => "note",
        Verdict::Missed => "missed",
    }
}
