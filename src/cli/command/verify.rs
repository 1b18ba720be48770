//! `verify`: is everything there, and is it right?

use lifeboat::class::Class;
use lifeboat::ops::verify::{Depth, Finding, Severity, VerifyReport, verify, verify_packs_without_key};
use lifeboat::repo::Task;
use lifeboat::units::{ByteSize, Counted};
use serde_json::{Map, Value, json};

use super::super::args::VerifyArgs;
use super::super::error::CliError;
use super::super::exit::Exit;
use super::super::render::json::put_bytes;
use super::super::render::{sanitize, time};
use super::super::session::Session;

pub(super) async fn run(session: &mut Session, args: VerifyArgs) -> Result<Exit, CliError> {
    let report = if args.packs && !session.settings.secret.is_given() {
        session.refuse_anchor()?;
        verify_packs_without_key(session.store().await?, &session.env).await?
    } else {
        let depth = match (args.packs, args.data) {
            (true, _) => Depth::Packs,
            (false, true) => Depth::Data,
            (false, false) => Depth::Structure,
        };
        let task = if depth == Depth::Data { Task::VerifyData } else { Task::Verify };
        verify(&session.repository(task).await?, depth).await?
    };
    session.clear();
    show(session, &report)?;
    Ok(if report.has_damage() { Exit::Class(Class::Damage) } else { Exit::Done })
}

fn word(severity: Severity) -> &'static str {
    match severity {
        Severity::Damage => "damage",
        Severity::Warning => "warning",
    }
}

fn show(session: &mut Session, report: &VerifyReport) -> Result<(), CliError> {
    let voice = session.voice();
    if voice.json {
        for finding in &report.findings {
            session.output.json(&object(finding))?;
        }
        return session.output.json(&summary(report));
    }
    for finding in &report.findings {
        let line = describe(finding, voice.verbose);
        match finding.severity {
            Severity::Damage => session.say_always(&format!("damage: {line}")),
            Severity::Warning => session.say(&format!("warning: {line}")),
        }
    }
    if voice.quiet {
        return Ok(());
    }
    let verdict = match report.findings.len() {
        0 => "no findings".to_owned(),
        count => Counted(count as u64, "finding").to_string(),
    };
    session.output.text(&format!(
        "{verdict}: {}, {}, {}, {} checked in {}\n",
        Counted(report.objects, "object"),
        ByteSize(report.bytes),
        Counted(report.chunks, "chunk"),
        Counted(report.snapshots, "snapshot"),
        time::duration(report.elapsed),
    ))?;
    if report.closed > 0 {
        session.say(&format!(
            "of {} the signatures were checked and nothing below them: this key does not open them",
            Counted(report.closed, "snapshot")
        ));
    }
    Ok(())
}

/// Paths that are named for one finding unless `--verbose` asks for all.
const NAMED: usize = 5;

fn describe(finding: &Finding, all: bool) -> String {
    let mut out = sanitize::line(&finding.to_string());
    let named = if all { finding.affected.len() } else { NAMED.min(finding.affected.len()) };
    for hit in &finding.affected[..named] {
        let path = if hit.path.is_empty() { "/".to_owned() } else { sanitize::name(&hit.path) };
        out.push_str(&format!("\n    in snapshot {}: {path}", hit.snapshot.short()));
    }
    let more = finding.affected_count.saturating_sub(named as u64);
    if more > 0 {
        out.push_str(&format!("\n    and {more} more"));
    }
    out
}

fn object(finding: &Finding) -> Value {
    let affected = finding.affected.iter().map(|hit| {
        let mut out = Map::new();
        out.insert("snapshot".to_owned(), json!(hit.snapshot.to_string()));
        put_bytes(&mut out, "path", &hit.path);
        Value::Object(out)
    });
    json!({
        "type": "finding",
        "severity": word(finding.severity),
        "key": finding.key,
        "message": finding.problem.to_string(),
        "affected": affected.collect::<Vec<_>>(),
        "affected_count": finding.affected_count,
    })
}

fn summary(report: &VerifyReport) -> Value {
    let count = |severity| report.findings.iter().filter(|finding| finding.severity == severity).count();
    json!({
        "type": "summary",
        "damage": count(Severity::Damage),
        "warnings": count(Severity::Warning),
        "objects": report.objects,
        "bytes": report.bytes,
        "chunks": report.chunks,
        "snapshots": report.snapshots,
        "closed": report.closed,
        "seconds": report.elapsed.as_secs_f64(),
    })
}
