//! What came of jobs, a line each.

use lifeboat::clock::Timestamp;
use lifeboat::schedule::Standing;
use lifeboat::units::{ByteSize, Counted};
use serde_json::{Map, Value, json};

use super::super::exit::Exit;
use super::super::jobs::{Failure, Kind, Known, Outcome, Report, Stand};
use super::coverage::{coverage_object, guarantee};
use super::summary::backup_line;
use super::table::Table;
use super::{sanitize, time};

/// One word for how it ended.
fn outcome(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Skipped(_) => "skipped",
        Outcome::Due => "due",
        Outcome::Ran(Exit::Done) => "done",
        Outcome::Ran(Exit::Signal(_)) => "stopped",
        Outcome::Ran(exit) => match exit.code() {
            3 => "partial",
            11 => "busy",
            _ => "failed",
        },
    }
}

/// What it is called in a line.
fn title(kind: Kind, name: &str) -> String {
    match kind {
        Kind::Backup => name.to_owned(),
        Kind::Prune => format!("prune of {name}"),
        Kind::Verify => format!("verification of {name}"),
    }
}

/// For a log.
pub(crate) fn line(report: &Report) -> String {
    let name = title(report.kind, &report.name);
    let mut parts = Vec::new();
    match &report.outcome {
        Outcome::Skipped(reason) => parts.push(reason.clone()),
        Outcome::Due => {}
        Outcome::Ran(_) => {
            parts.extend(report.backup.as_ref().map(|done| backup_line(done).trim_end().to_owned()));
            parts
                .extend(report.retention.map(|(kept, forgotten)| format!("kept {kept}, forgot {forgotten}")));
            parts.extend(report.prune.as_ref().map(|done| {
                format!(
                    "{} removed, {} given back",
                    Counted(done.removed, "snapshot"),
                    ByteSize(done.deleted_bytes)
                )
            }));
            parts.extend(report.verify.as_ref().map(|done| {
                let covered = done.coverage.as_ref().map(guarantee);
                covered.unwrap_or_else(|| format!("{} checked", ByteSize(done.bytes)))
            }));
            parts.extend(report.message.as_ref().map(|message| sanitize::line(message)));
            parts.extend(report.next.map(|next| format!("next {}", time::local(next.0))));
        }
    }
    let end = match report.exit() {
        Exit::Done => String::new(),
        exit => format!(" (exit code {})", exit.code()),
    };
    let rest = if parts.is_empty() { String::new() } else { format!(": {}", parts.join("; ")) };
    format!("{name}: {}{end}{rest}\n", outcome(&report.outcome))
}

/// For scripts.
pub(crate) fn object(report: &Report) -> Value {
    let utc = |time: Option<Timestamp>| json!(time.map(|time| time::utc(time.0)));
    let backup = report.backup.as_ref();
    let prune = report.prune.as_ref();
    let skipped = match &report.outcome {
        Outcome::Skipped(reason) => Some(reason),
        _ => None,
    };
    let mut out = Map::new();
    for (key, value) in [
        ("type", json!("run")),
        ("kind", json!(report.kind.name())),
        ("name", json!(report.name)),
        ("repository", json!(report.repository)),
        ("outcome", json!(outcome(&report.outcome))),
        ("code", json!(report.exit().code())),
        ("reason", json!(skipped)),
        ("message", json!(report.message)),
        ("began", utc(report.began)),
        ("ended", utc(report.ended)),
        ("next", utc(report.next)),
        ("snapshot", json!(backup.and_then(|done| done.snapshot).map(|id| id.to_string()))),
        ("files", json!(backup.map(|done| done.files))),
        ("bytes", json!(backup.map(|done| done.bytes))),
        ("new_bytes", json!(backup.map(|done| done.new_bytes))),
        ("stored_bytes", json!(backup.map(|done| done.stored_bytes))),
        ("failed", json!(backup.map(|done| done.failed + done.missing.len() as u64))),
        ("kept", json!(report.retention.map(|(kept, _)| kept))),
        ("forgotten", json!(report.retention.map(|(_, forgotten)| forgotten))),
        (
            "coverage",
            json!(report.verify.as_ref().and_then(|done| done.coverage.as_ref()).map(coverage_object)),
        ),
        ("snapshots_removed", json!(prune.map(|done| done.removed))),
        ("bytes_deleted", json!(prune.map(|done| done.deleted_bytes))),
    ] {
        out.insert(key.to_owned(), value);
    }
    Value::Object(out)
}

/// When each runs.
pub(crate) fn stand_table(stands: &[Stand], now: Timestamp) -> String {
    let mut table = Table::new(&["JOB", "SCHEDULE", "LAST", "RESULT", "NEXT"], &[false; 5]);
    for stand in stands {
        let schedule =
            stand.plan.as_ref().map_or_else(|| "when named".to_owned(), |plan| plan.schedule.to_string());
        let last = stand.known.record().map(|record| time::local(record.began));
        let next = match stand.next {
            Some(at) if at <= now => "now".to_owned(),
            Some(at) => time::local(at.0),
            None => "never".to_owned(),
        };
        table.row(vec![
            title(stand.kind, &stand.name),
            schedule,
            last.unwrap_or_else(|| "none".to_owned()),
            result(stand),
            if stand.at_work { "at work".to_owned() } else { next },
        ]);
    }
    table.render()
}

/// How the last run ended, in words.
fn result(stand: &Stand) -> String {
    match &stand.known {
        Known::Never => "never ran".to_owned(),
        Known::Unknown => "unknown".to_owned(),
        Known::Run(_) if stand.at_work => "at work".to_owned(),
        Known::Run(record) => match (record.ended, record.code) {
            (Some(_), Some(0)) => "done".to_owned(),
            (Some(_), Some(code)) => format!("exit code {code}"),
            _ => "interrupted".to_owned(),
        },
    }
}

/// What is wrong with it, if something is.
pub(crate) fn missed(stand: &Stand) -> Option<String> {
    let name = title(stand.kind, &stand.name);
    let reason = match stand.standing {
        Standing::Good => return None,
        Standing::Missed(since) => {
            let why = match &stand.known {
                Known::Never => "it never ran here".to_owned(),
                Known::Unknown => "what is remembered of it is damaged".to_owned(),
                Known::Run(record) => {
                    let good = record.last_good.map_or_else(
                        || "none was good yet".to_owned(),
                        |good| format!("the last good one ended on {}", time::local(good)),
                    );
                    let began = time::local(record.began);
                    format!("the last run, {}, began on {began}; {good}", result(stand))
                }
            };
            format!("no run ended well that was due on {}: {why}", time::local(since.0))
        }
        Standing::Failed => match stand.known.record().and_then(|record| record.failed.as_ref()) {
            Some(Failure { code, message }) => {
                let message = message.as_ref().map(|message| format!(": {}", sanitize::line(message)));
                format!("the last run failed with exit code {code}{}", message.unwrap_or_default())
            }
            None => format!("the last run was {}", result(stand)),
        },
    };
    Some(format!("{name}: {reason}"))
}

/// What a run that counts as good had to leave out, if it did.
pub(crate) fn incomplete(stand: &Stand) -> Option<String> {
    let record = stand.known.record().filter(|record| record.good() && record.code != Some(0))?;
    let message = record.message.as_ref().map(|message| format!(": {}", sanitize::line(message)));
    let (name, message) = (title(stand.kind, &stand.name), message.unwrap_or_default());
    Some(format!("{name}: the last run ended with {}, so some entries are not saved{message}", result(stand)))
}

/// For scripts.
pub(crate) fn stand_object(stand: &Stand) -> Value {
    let record = stand.known.record();
    let utc = |nanos: Option<i64>| json!(nanos.map(time::utc));
    let standing = match stand.standing {
        Standing::Good => "good",
        Standing::Missed(_) => "missed",
        Standing::Failed => "failed",
    };
    let mut out = Map::new();
    for (key, value) in [
        ("type", json!("scheduled")),
        ("kind", json!(stand.kind.name())),
        ("name", json!(stand.name)),
        ("schedule", json!(stand.plan.as_ref().map(|plan| plan.schedule.to_string()))),
        ("next", utc(stand.next.map(|next| next.0))),
        ("at_work", json!(stand.at_work)),
        ("known", json!(!matches!(stand.known, Known::Unknown))),
        ("began", utc(record.map(|record| record.began))),
        ("ended", utc(record.and_then(|record| record.ended))),
        ("code", json!(record.and_then(|record| record.code))),
        ("message", json!(record.and_then(|record| record.message.as_deref()))),
        ("snapshot", json!(record.and_then(|record| record.snapshot.as_deref()))),
        ("last_good", utc(record.and_then(|record| record.last_good))),
        ("standing", json!(standing)),
        ("missed", json!(missed(stand))),
    ] {
        out.insert(key.to_owned(), value);
    }
    Value::Object(out)
}
