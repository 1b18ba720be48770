//! `postgres`: the log of PostgreSQL.

use lifeboat::class::Class;
use lifeboat::error::TrustError;
use lifeboat::format::log::SegmentName;
use lifeboat::ops::anchor::watch;
use lifeboat::ops::postgres::{
    GetOptions, Got, PushOptions, Pushed, VerifyOptions, VerifySummary, WalCheck, allow, get, info, push,
    verify,
};
use lifeboat::repo::Task;
use serde_json::json;

use super::super::args::{
    AllowArgs, ArchiveGetArgs, ArchivePushArgs, ClusterArgs, LogVerifyArgs, PostgresArgs, PostgresVerb,
    WalCheckArg,
};
use super::super::error::CliError;
use super::super::exit::Exit;
use super::super::render::{postgres as text, time};
use super::super::report::{Context, report};
use super::super::session::Session;
use super::{base, base_restore};

/// Where a server that follows another one says so.
const STANDBY: &str = "standby.signal";

pub(super) async fn run(session: &mut Session, args: PostgresArgs) -> Result<Exit, CliError> {
    match args.verb {
        PostgresVerb::Backup(args) => base::backup(session, args).await,
        PostgresVerb::Restore(args) => base_restore::run(session, args).await,
        PostgresVerb::ArchivePush(args) => archive_push(session, args).await,
        PostgresVerb::ArchiveGet(args) => archive_get(session, args).await,
        PostgresVerb::Check(args) => base::check(session, args).await,
        PostgresVerb::Info(args) => show(session, &args).await,
        PostgresVerb::Verify(args) => check(session, args).await,
        PostgresVerb::Allow(args) => let_in(session, &args).await,
    }
}

async fn archive_push(session: &mut Session, args: ArchivePushArgs) -> Result<Exit, CliError> {
    let repository = session.opened(Task::ArchiveLog).await?;
    session.compare_config(&repository)?;
    let options = PushOptions {
        path: session.directory.join(args.path),
        cluster: args.cluster.cluster,
        check: match args.wal_check {
            WalCheckArg::Error => WalCheck::Error,
            WalCheckArg::Warn => WalCheck::Warn,
            WalCheckArg::Off => WalCheck::Off,
        },
        new_history: args.new_history,
        host: super::backup::host(),
        program: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let pushed = push(&repository, &options).await?;
    session.clear();
    if let Some(fault) = pushed.fault {
        session.warn(&format!("{} is stored, and it is damaged: {fault}", pushed.file));
    }
    if session.voice().json {
        session.output.json(&pushed_object(&pushed))?;
    }
    Ok(Exit::Done)
}

fn pushed_object(pushed: &Pushed) -> serde_json::Value {
    json!({
        "type": "archived",
        "file": pushed.file.to_string(),
        "cluster": pushed.cluster,
        "history": pushed.history,
        "already": pushed.already,
        "bytes": pushed.bytes,
        "stored_bytes": pushed.stored,
        "fault": pushed.fault.map(|fault| fault.to_string()),
    })
}

/// A server that follows another one asks again and again, and does not open the database by itself: a passing fault must not
/// stop it.
async fn archive_get(session: &mut Session, args: ArchiveGetArgs) -> Result<Exit, CliError> {
    let standby = session.directory.join(STANDBY).exists();
    match give(session, args).await {
        Err(error) if standby && error.class() == Class::Unreachable => {
            report(&error, &Context { json: session.voice().json, ..Context::default() });
            Ok(Exit::Absent)
        }
        other => other,
    }
}

async fn give(session: &mut Session, args: ArchiveGetArgs) -> Result<Exit, CliError> {
    let repository = session.opened(Task::ReadLog).await?;
    let options = GetOptions {
        cluster: args.cluster.cluster,
        file: args.file.clone(),
        target: session.directory.join(args.path),
        data: session.directory.clone(),
        allow_gap: args.allow_gap,
    };
    let got = get(&repository, &options).await?;
    if got == Got::Absent && session.settings.store.as_of.is_none() {
        // A store that shows an older state lacks what was archived since.
        let missing = watch(&repository).await?;
        if !missing.is_empty() {
            return Err(CliError::Library(TrustError::RolledBack { missing }.into()));
        }
    }
    session.clear();
    if session.voice().json {
        let bytes = match got {
            Got::Delivered { bytes } => Some(bytes),
            Got::Absent => None,
        };
        session
            .output
            .json(&json!({ "type": "file", "file": args.file, "found": bytes.is_some(), "bytes": bytes }))?;
    }
    Ok(if got == Got::Absent { Exit::Absent } else { Exit::Done })
}

async fn show(session: &mut Session, args: &ClusterArgs) -> Result<Exit, CliError> {
    let repository = session.repository(Task::ShowLogs).await?;
    let clusters = info(&repository, args.cluster.as_deref()).await?;
    session.clear();
    for cluster in &clusters {
        if session.voice().json {
            session.output.json(&text::object(cluster))?;
        } else {
            session.output.text(&text::cluster(cluster))?;
        }
    }
    if clusters.is_empty() && !session.voice().json {
        session.say("no database cluster is known in this repository");
    }
    Ok(Exit::Done)
}

async fn check(session: &mut Session, args: LogVerifyArgs) -> Result<Exit, CliError> {
    let repository = session.repository(Task::ReadLog).await?;
    let options = VerifyOptions { cluster: args.cluster.cluster, timeline: args.timeline };
    let found = verify(&repository, &options).await?;
    session.clear();
    if session.voice().json {
        session.output.json(&verified_object(&found))?;
    } else {
        session.output.text(&text::verified(&found))?;
    }
    let good = found.bad.is_empty() && found.gaps.is_empty();
    Ok(if good { Exit::Done } else { Exit::Class(Class::Damage) })
}

fn verified_object(found: &VerifySummary) -> serde_json::Value {
    let bad = found.bad.iter().map(|(file, why)| json!({ "file": file.to_string(), "reason": why }));
    let pairs = |pairs: &[(SegmentName, SegmentName)]| {
        let pair = |(last, next): &(SegmentName, SegmentName)| json!({ "after": last.to_string(), "before": next.to_string() });
        pairs.iter().map(pair).collect::<Vec<_>>()
    };
    json!({
        "type": "log_verified",
        "cluster": found.cluster,
        "segments": found.segments,
        "records": found.records,
        "commits": found.commits,
        "first_commit": found.first_commit.map(time::utc),
        "last_commit": found.last_commit.map(time::utc),
        "bad": bad.collect::<Vec<_>>(),
        "gaps": pairs(&found.gaps),
        "removed": pairs(&found.removed),
    })
}

async fn let_in(session: &mut Session, args: &AllowArgs) -> Result<Exit, CliError> {
    let repository = session.repository(Task::AllowWriter).await?;
    let done = allow(&repository, &args.cluster, &args.writer).await?;
    session.clear();
    if session.voice().json {
        session.output.json(&json!({
            "type": "writer_allowed",
            "cluster": done.cluster,
            "writer": done.writer.to_string(),
            "writers": done.writers,
        }))?;
    } else if !session.voice().quiet {
        let line = format!("writer {} may archive the log of cluster {} now\n", done.writer, done.cluster);
        session.output.text(&line)?;
    }
    Ok(Exit::Done)
}
