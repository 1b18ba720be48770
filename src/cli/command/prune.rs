//! `prune`: removes what was forgotten, and gives space back.

use lifeboat::class::Class;
use lifeboat::ops::gc::{LogReport, Plan, PruneOptions, PruneReport, prune};
use lifeboat::repo::{Repository, Task};
use lifeboat::units::{ByteSize, Counted};
use serde_json::json;

use super::super::args::PruneArgs;
use super::super::error::CliError;
use super::super::exit::Exit;
use super::super::observe::words::and_more;
use super::super::render::time;
use super::super::session::Session;

pub(super) async fn run(session: &mut Session, args: PruneArgs) -> Result<Exit, CliError> {
    let options = args.options();
    // What is missing is named as removed then, so it is missed no more.
    let repository = match options.accept_missing {
        true => {
            let repository = session.opened(Task::Prune).await?;
            session.compare_config(&repository)?;
            repository
        }
        false => session.repository(Task::Prune).await?,
    };
    collect(session, &repository, &options).await
}

/// Collects, and ends drawing. What is damaged is said.
pub(crate) async fn carry_out(
    session: &Session,
    repository: &Repository,
    options: &PruneOptions,
) -> Result<PruneReport, CliError> {
    let report = prune(repository, options).await?;
    session.clear();
    for left in &report.left {
        session.say_always(&format!("damage: {}", left_alone(left)));
    }
    Ok(report)
}

/// How to exit after it.
pub(crate) fn exit(report: &PruneReport) -> Exit {
    if report.left.is_empty() { Exit::Done } else { Exit::Class(Class::Damage) }
}

/// The first thing that is damaged, and how many more are; `None` if nothing is.
pub(crate) fn damage(report: &PruneReport) -> Option<String> {
    let [first, others @ ..] = report.left.as_slice() else { return None };
    Some(format!("{}{}", left_alone(first), and_more(others.len())))
}

fn left_alone((key, reason): &(String, String)) -> String {
    format!("{key} was condemned and left alone: {reason}")
}

/// Collects, and says what came of it.
pub(super) async fn collect(
    session: &mut Session,
    repository: &Repository,
    options: &PruneOptions,
) -> Result<Exit, CliError> {
    let report = carry_out(session, repository, options).await?;
    let voice = session.voice();
    if voice.json {
        session.output.json(&object(&report, options.dry_run))?;
    } else if !voice.quiet {
        session.output.text(&text(&report, options.dry_run))?;
    }
    Ok(exit(&report))
}

fn object(report: &PruneReport, dry_run: bool) -> serde_json::Value {
    let plan = &report.plan;
    json!({
        "type": "prune",
        "dry_run": dry_run,
        "snapshots_removed": report.removed,
        "snapshots_waiting": report.waiting,
        "snapshots_spared": report.spared,
        "plan": {
            "packs_dropped": plan.drop.len(),
            "packs_rewritten": plan.rewrite.len(),
            "bytes_condemned": plan.condemned_bytes,
            "bytes_moved": plan.moved_bytes,
            "bytes_freed": plan.freed_bytes(),
            "bytes_unused": plan.unused_bytes,
            "packs_young": plan.young,
            "bytes_young": plan.young_bytes,
            "requests": plan.requests(),
        },
        "packs_condemned": report.condemned,
        "bytes_condemned": report.condemned_bytes,
        "due": report.due.map(|due| time::utc(due.0)),
        "packs_deleted": report.deleted,
        "bytes_deleted": report.deleted_bytes,
        "bytes_moved": report.moved_bytes,
        "packs_written": report.written,
        "bytes_written": report.written_bytes,
        "index_objects_deleted": report.index_deleted,
        "index_objects_written": report.index_written,
        "packs_left": report.left.iter().map(|(key, why)| json!({"key": key, "reason": why})).collect::<Vec<_>>(),
        "pack_bytes": report.pack_bytes,
        "logs": {
            "files_condemned": report.logs.condemned,
            "bytes_condemned": report.logs.condemned_bytes,
            "due": report.logs.due.map(|due| time::utc(due.0)),
            "files_deleted": report.logs.deleted,
            "bytes_deleted": report.logs.deleted_bytes,
        },
        "bytes_locked": report.locked_bytes,
        "free_at": report.free_at.map(|time| time::utc(time.0)),
        "bytes_given_back": report.given_back_bytes,
    })
}

fn text(report: &PruneReport, dry_run: bool) -> String {
    let mut out = String::new();
    let mut line = |text: String| {
        out.push_str(&text);
        out.push('\n');
    };
    let removed = if dry_run { "would be removed" } else { "removed" };
    if report.removed > 0 {
        line(format!("{} {removed}", Counted(report.removed, "forgotten snapshot")));
    }
    if report.waiting > 0 {
        line(format!(
            "{} can still be taken back with undelete",
            Counted(report.waiting, "forgotten snapshot")
        ));
    }
    if report.spared > 0 {
        line(format!("{} spared: held, or taken back in time", Counted(report.spared, "forgotten snapshot")));
    }
    if report.deleted > 0 {
        line(format!(
            "{} deleted, {}; {} moved into {}",
            Counted(report.deleted, "pack"),
            ByteSize(report.deleted_bytes),
            ByteSize(report.moved_bytes),
            Counted(report.written, "pack"),
        ));
    }
    if report.given_back_bytes > 0 {
        line(format!("{} given back whose locks are over", ByteSize(report.given_back_bytes)));
    }
    if report.locked_bytes > 0 || report.free_at.is_some() {
        let free = report.free_at.map(|free| format!("free after {} at the earliest", time::local(free.0)));
        let free = free.unwrap_or_else(|| "by a legal hold".to_owned());
        line(format!("{} deleted and still locked, {free}", ByteSize(report.locked_bytes)));
    }
    if let Some(text) = planned(&report.plan, dry_run) {
        line(text);
    }
    if report.condemned > 0 {
        let due = report.due.map_or_else(String::new, |due| format!(" after {}", time::local(due.0)));
        line(format!(
            "{} with {} condemned; a prune{due} deletes them",
            Counted(report.condemned, "pack"),
            ByteSize(report.condemned_bytes),
        ));
    }
    if report.plan.young > 0 {
        line(format!(
            "{} with {} not needed and too young to go",
            Counted(report.plan.young, "pack"),
            ByteSize(report.plan.young_bytes)
        ));
    }
    for text in logs(&report.logs, dry_run) {
        line(text);
    }
    line(format!(
        "{} in packs, {} of it not needed",
        ByteSize(report.pack_bytes),
        ByteSize(report.plan.unused_bytes)
    ));
    out
}

fn planned(plan: &Plan, dry_run: bool) -> Option<String> {
    if plan.is_empty() {
        return None;
    }
    let verb = if dry_run { "would be condemned" } else { "condemned" };
    Some(format!(
        "{} to drop and {} to rewrite {verb}: {} to free, {} to move, about {} requests",
        Counted(plan.drop.len() as u64, "pack"),
        Counted(plan.rewrite.len() as u64, "pack"),
        ByteSize(plan.freed_bytes()),
        ByteSize(plan.moved_bytes),
        plan.requests(),
    ))
}

fn logs(report: &LogReport, dry_run: bool) -> Vec<String> {
    let files = |count| Counted(count, "log file");
    let mut lines = Vec::new();
    if report.deleted > 0 {
        let verb = if dry_run { "would be deleted" } else { "deleted" };
        lines.push(format!("{} {verb}, {}", files(report.deleted), ByteSize(report.deleted_bytes)));
    }
    if report.condemned > 0 {
        let verb = if dry_run { "would be or are condemned" } else { "condemned" };
        let due = report.due.map_or_else(String::new, |due| format!(" after {}", time::local(due.0)));
        lines.push(format!(
            "{} with {} that no base backup needs {verb}; a prune{due} deletes them",
            files(report.condemned),
            ByteSize(report.condemned_bytes),
        ));
    }
    lines
}
