//! `anchor`: what a store shows, in a form that a person can carry away.

use lifeboat::ops::anchor::{accept_missing, anchor, watch};
use lifeboat::repo::Task;
use lifeboat::units::Counted;
use serde_json::json;

use super::super::args::AnchorArgs;
use super::super::error::CliError;
use super::super::exit::Exit;
use super::super::render::time;
use super::super::session::Session;

pub(super) async fn run(session: &mut Session, args: &AnchorArgs) -> Result<Exit, CliError> {
    if args.accept_missing {
        return accept(session).await;
    }
    let repository = session.repository(Task::Anchor).await?;
    let info = anchor(&repository).await?;
    session.clear();
    if session.voice().json {
        session.output.json(&json!({
            "type": "anchor",
            "anchor": info.hash.to_string(),
            "snapshots": info.snapshots,
            "newest": info.newest.map(|(id, _)| id.to_string()),
            "newest_stored": info.newest.map(|(_, stored)| time::utc(stored.0)),
            "new": info.new,
        }))?;
        return Ok(Exit::Done);
    }
    session.output.text(&format!("{}\n", info.hash))?;
    let newest =
        info.newest.map(|(id, stored)| format!(", the newest {} of {}", id.short(), time::local(stored.0)));
    session.say(&format!(
        "covers {}{}; keep it where the backups are not, and give it to --require-anchor",
        Counted(info.snapshots as u64, "snapshot"),
        newest.unwrap_or_default()
    ));
    Ok(Exit::Done)
}

async fn accept(session: &mut Session) -> Result<Exit, CliError> {
    let repository = session.opened(Task::ListWriters).await?;
    let missed = watch(&repository).await?;
    accept_missing(&repository, &missed)?;
    repository.accept_config().map_err(lifeboat::error::Error::from)?;
    session.clear();
    let ids: Vec<String> = missed.iter().map(ToString::to_string).collect();
    if session.voice().json {
        session.output.json(&json!({ "type": "accepted", "snapshots": ids }))?;
    } else if ids.is_empty() {
        session.say("nothing is missing");
    } else if !session.voice().quiet {
        session.output.text(&format!("not missed any more on this machine: {}\n", ids.join(", ")))?;
    }
    Ok(Exit::Done)
}
