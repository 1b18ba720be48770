//! `verify`: is everything there, and is it right?

use lifeboat::class::Class;
use lifeboat::ops::verify::{Depth, Finding, Severity, VerifyReport, verify, verify_packs_without_key};
use lifeboat::units::ByteSize;
use serde_json::{Value, json};

use super::super::args::VerifyArgs;
use super::super::error::CliError;
use super::super::exit::Exit;
use super::super::render::{sanitize, time};
use super::super::session::Session;

pub(super) async fn run(session: &mut Session, args: VerifyArgs) -> Result<Exit, CliError> {
    let report = if args.packs && !session.settings.secret.is_given() {
        verify_packs_without_key(session.store().await?, &session.env).await?
    } else {
        let depth = match (args.packs, args.data) {
            (true, _) => Depth::Packs,
            (false, true) => Depth::Data,
            (false, false) => Depth::Structure,
        };
        verify(&session.repository().await?, depth).await?
    };
    session.clear();
    show(session, &report)?;
    let damage = report.findings.iter().any(|finding| finding.severity == Severity::Damage);
    Ok(if damage { Exit::Class(Class::Damage) } else { Exit::Done })
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
        let line = format!("{}: {}", sanitize::line(&finding.key), sanitize::line(&finding.what.to_string()));
        match finding.severity {
            Severity::Damage => session.error(&format!("damage: {line}")),
            Severity::Warning => session.warn(&line),
        }
    }
    if voice.quiet {
        return Ok(());
    }
    let verdict = if report.findings.is_empty() {
        "no findings".to_owned()
    } else {
        format!("{} findings", report.findings.len())
    };
    session.output.text(&format!(
        "{verdict}: {} objects, {}, {} chunks, {} snapshots checked in {}\n",
        report.objects,
        ByteSize(report.bytes),
        report.chunks,
        report.snapshots,
        time::duration(report.elapsed),
    ))
}

fn object(finding: &Finding) -> Value {
    json!({
        "type": "finding",
        "severity": word(finding.severity),
        "key": finding.key,
        "message": finding.what.to_string(),
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
        "seconds": report.elapsed.as_secs_f64(),
    })
}
