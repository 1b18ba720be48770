//! `tag`: other tags for snapshots.

use lifeboat::ops::snapshots::resolve_all;
use lifeboat::ops::tag::{TagEdit, tag};
use lifeboat::repo::Task;
use serde_json::json;

use super::super::args::TagArgs;
use super::super::error::CliError;
use super::super::exit::Exit;
use super::super::render::sanitize;
use super::super::session::Session;

pub(super) async fn run(session: &mut Session, args: TagArgs) -> Result<Exit, CliError> {
    let filter = args.select.filter(&session.directory);
    let set = (!args.set.is_empty()).then(|| args.set.into_iter().filter(|tag| !tag.is_empty()).collect());
    let edit = TagEdit { set, remove: args.remove, add: args.add };
    let repository = session.repository(Task::Tag).await?;
    let snapshots = resolve_all(&repository, &args.snapshots, &filter).await?;
    let done = tag(&repository, &snapshots, &edit).await?;
    session.clear();
    for tagged in &done {
        if session.voice().json {
            session.output.json(&json!({
                "type": "tags",
                "id": tagged.snapshot.to_string(),
                "tags": tagged.tags,
                "changed": tagged.changed,
            }))?;
        } else if !session.voice().quiet {
            let tags: Vec<String> = tagged.tags.iter().map(|tag| sanitize::line(tag)).collect();
            let tags = if tags.is_empty() { "no tags".to_owned() } else { tags.join(",") };
            session.output.text(&format!("snapshot {}: {tags}\n", tagged.snapshot.short()))?;
        }
    }
    Ok(Exit::Done)
}
