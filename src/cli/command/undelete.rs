//! `undelete`: forgotten snapshots back.

use lifeboat::error::Error;
use lifeboat::ops::undelete::undelete;
use lifeboat::repo::Task;
use serde_json::json;

use super::super::args::UndeleteArgs;
use super::super::error::CliError;
use super::super::exit::Exit;
use super::super::session::Session;

pub(super) async fn run(session: &mut Session, args: UndeleteArgs) -> Result<Exit, CliError> {
    let repository = session.repository(Task::Undelete).await?;
    let done = undelete(&repository, &args.snapshots).await?;
    session.clear();
    for (snapshots, state, text) in [
        (&done.back, "back", "is back"),
        (&done.not_forgotten, "not_forgotten", "was not forgotten"),
        (&done.too_late, "too_late", ""),
    ] {
        for snapshot in snapshots {
            if session.voice().json {
                let id = snapshot.to_string();
                session.output.json(&json!({ "type": "undelete", "id": id, "state": state }))?;
            } else if !text.is_empty() && !session.voice().quiet {
                session.output.text(&format!("snapshot {} {text}\n", snapshot.short()))?;
            }
        }
    }
    match done.too_late.is_empty() {
        true => Ok(Exit::Done),
        false => Err(Error::TooLate { snapshots: done.too_late }.into()),
    }
}
