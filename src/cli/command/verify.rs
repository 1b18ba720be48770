//! `verify`: is everything there, and is it right?

use lifeboat::class::Class;
use lifeboat::ops::verify::{
    Depth, Finding, Severity, VerifyOptions, VerifyReport, verify_packs_without_key, verify_with,
};
use lifeboat::repo::{Repository, Task};
use lifeboat::units::{ByteSize, Counted};
use serde_json::{Map, Value, json};

use super::super::args::VerifyArgs;
use super::super::error::CliError;
use super::super::exit::Exit;
use super::super::render::coverage::{coverage_object, guarantee};
use super::super::render::json::put_bytes;
use super::super::render::{sanitize, time};
use super::super::session::Session;

pub(super) async fn run(session: &mut Session, args: VerifyArgs) -> Result<Exit, CliError> {
    let report = if args.packs && args.budget.is_none() && !session.settings.secret.is_given() {
        session.refuse_anchor()?;
        verify_packs_without_key(session.store().await?, &session.env).await?
    } else {
        let task = if args.data { Task::VerifyData } else { Task::Verify };
        let repository = session.repository(task).await?;
        verify_with(&repository, &options(&repository, &args, session.is_of_the_past())).await?
    };
    session.clear();
    show(session, &report)?;
    Ok(exit(&report))
}

/// What is to be verified, and how.
fn options(repository: &Repository, args: &VerifyArgs, past: bool) -> VerifyOptions {
    let depth = match (args.packs, args.data) {
        (true, _) => Depth::Packs,
        (false, true) => Depth::Data,
        (false, false) if args.budget.is_some() => deepest(repository),
        (false, false) => Depth::Structure,
    };
    VerifyOptions { depth, budget: args.budget, record: !past }
}

/// How closely this key can look at content.
pub(crate) fn deepest(repository: &Repository) -> Depth {
    if repository.allow(Task::VerifyData).is_ok() { Depth::Data } else { Depth::Packs }
}

/// How to exit after it.
pub(crate) fn exit(report: &VerifyReport) -> Exit {
    if report.has_damage() { Exit::Class(Class::Damage) } else { Exit::Done }
}

fn word(severity: Severity) -> &'static str {
    match severity {
        Severity::Damage => "damage",
        Severity::Warning => "warning",
    }
}

/// Says what was found.
pub(crate) fn tell(session: &Session, report: &VerifyReport) {
    for finding in &report.findings {
        let line = describe(finding, session.voice().verbose);
        match finding.severity {
            Severity::Damage => session.say_always(&format!("damage: {line}")),
            Severity::Warning => session.say(&format!("warning: {line}")),
        }
    }
    if let Some(known) = known(report) {
        session.say_always(&format!("damage: {known}"));
    }
}

/// What was found before and is not known to be otherwise.
fn known(report: &VerifyReport) -> Option<String> {
    let known = report.coverage.map_or(0, |covered| covered.known);
    let text =
        "found damaged before and not looked at now: a verification of everything names what that hits";
    (known > 0).then(|| format!("{} {text}", Counted(known, "object")))
}

/// What went wrong, for who hears of the end only.
pub(crate) fn damage(report: &VerifyReport) -> Option<String> {
    let count = report.findings.iter().filter(|finding| finding.severity == Severity::Damage).count();
    let found = (count > 0).then(|| format!("{} found", Counted(count as u64, "damage")));
    found.or_else(|| known(report))
}

fn show(session: &mut Session, report: &VerifyReport) -> Result<(), CliError> {
    let voice = session.voice();
    if voice.json {
        for finding in &report.findings {
            session.output.json(&object(finding))?;
        }
        return session.output.json(&summary(report));
    }
    tell(session, report);
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
    if let Some(covered) = &report.coverage {
        session.output.text(&format!("{}\n", guarantee(covered)))?;
    }
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
        "coverage": report.coverage.as_ref().map(coverage_object),
        "seconds": report.elapsed.as_secs_f64(),
    })
}
