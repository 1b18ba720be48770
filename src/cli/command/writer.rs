//! `writer`: who signs what the repository holds.

use lifeboat::format::config::Authority;
use lifeboat::ops::writers::{WriterInfo, list_writers, revoke};
use lifeboat::repo::Task;
use serde_json::{Value, json};

use super::super::args::{RevokeArgs, WriterArgs, WriterVerb};
use super::super::error::CliError;
use super::super::exit::Exit;
use super::super::render::table::Table;
use super::super::render::time;
use super::super::session::Session;

pub(super) async fn run(session: &mut Session, args: WriterArgs) -> Result<Exit, CliError> {
    match args.verb {
        WriterVerb::List => list(session).await,
        WriterVerb::Revoke(args) => take(session, args).await,
    }
}

async fn list(session: &mut Session) -> Result<Exit, CliError> {
    let repository = session.repository(Task::ListWriters).await?;
    let writers = list_writers(&repository).await?;
    session.clear();
    if session.voice().json {
        for writer in &writers {
            session.output.json(&object(writer))?;
        }
        return Ok(Exit::Done);
    }
    let headings = ["ID", "SIGNS AS", "CREATED", "LAST SNAPSHOT", "SNAPSHOTS", "STATE"];
    let mut table = Table::new(&headings, &[false, false, false, false, true, false]);
    for writer in &writers {
        let last = writer.last.map(|(id, stored)| format!("{} {}", id.short(), time::local(stored.0)));
        table.row(vec![
            writer.registered.id.to_string(),
            word(writer.registered.authority).to_owned(),
            time::local(writer.registered.created.0),
            last.unwrap_or_else(|| "none".to_owned()),
            writer.snapshots.to_string(),
            state(writer),
        ]);
    }
    session.output.text(&table.render())?;
    Ok(Exit::Done)
}

async fn take(session: &mut Session, args: RevokeArgs) -> Result<Exit, CliError> {
    let repository = session.repository(Task::Revoke).await?;
    let done = revoke(&repository, &args.writer, args.since).await?;
    session.clear();
    if session.voice().json {
        session.output.json(&json!({
            "type": "writer_revoked",
            "id": done.writer.to_string(),
            "accepted": done.accepted,
            "refused": done.refused,
        }))?;
    } else if !session.voice().quiet {
        session.output.text(&format!(
            "revoked writer {}: {} of its objects still count, {} do not, and nothing that it stores from now on\n",
            done.writer, done.accepted, done.refused
        ))?;
        session.say("its key still opens what it opened before: remove its key slot, and its credentials for the store");
    }
    Ok(Exit::Done)
}

fn word(authority: Authority) -> &'static str {
    match authority {
        Authority::Writer => "writer",
        Authority::Maintainer => "maintainer",
        Authority::Verifier => "verifier",
    }
}

fn state(writer: &WriterInfo) -> String {
    let refused = match writer.refused {
        0 => String::new(),
        refused => format!(", {refused} snapshots refused"),
    };
    match writer.registered.revoked {
        Some(since) => format!("revoked {}{refused}", time::local(since.0)),
        None if writer.registered.closing => "being revoked: end it with writer revoke".to_owned(),
        None if writer.own => "active, this key".to_owned(),
        None => "active".to_owned(),
    }
}

fn object(writer: &WriterInfo) -> Value {
    json!({
        "type": "writer",
        "id": writer.registered.id.to_string(),
        "authority": word(writer.registered.authority),
        "created": time::utc(writer.registered.created.0),
        "own": writer.own,
        "last_snapshot": writer.last.map(|(id, _)| id.to_string()),
        "last_stored": writer.last.map(|(_, stored)| time::utc(stored.0)),
        "snapshots": writer.snapshots,
        "refused": writer.refused,
        "revoked": writer.registered.revoked.map(|since| time::utc(since.0)),
        "closing": writer.registered.closing,
    })
}
