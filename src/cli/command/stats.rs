//! `stats`: how much there is.

use lifeboat::ops::stats::{Stats, stats};
use lifeboat::units::ByteSize;
use serde_json::json;

use super::super::error::CliError;
use super::super::exit::Exit;
use super::super::session::Session;

pub(super) async fn run(session: &mut Session) -> Result<Exit, CliError> {
    let repository = session.repository().await?;
    let found = stats(&repository).await?;
    session.clear();
    if session.voice().json {
        session.output.json(&json!({
            "type": "stats",
            "snapshots": found.snapshots,
            "packs": found.packs,
            "pack_bytes": found.pack_bytes,
            "index_objects": found.index_objects,
            "index_bytes": found.index_bytes,
            "chunks": found.chunks,
            "plain_bytes": found.plain_bytes,
            "stored_bytes": found.stored_bytes,
            "total_bytes": found.total_bytes,
            "other_objects": found.other_objects,
            "other_bytes": found.other_bytes,
        }))?;
    } else {
        session.output.text(&text(&found))?;
    }
    Ok(Exit::Done)
}

fn text(found: &Stats) -> String {
    let size = |bytes| ByteSize(bytes).to_string();
    let space = found.pack_bytes + found.index_bytes + found.other_bytes;
    let ratio = if space == 0 { 0.0 } else { found.total_bytes as f64 / space as f64 };
    format!(
        "snapshots      {} of {} together\n\
         chunks         {} of {} before compression, {} after\n\
         packs          {} of {}\n\
         index          {} of {}\n\
         other objects  {} of {}\n\
         space in use   {}, for {ratio:.1} times as many bytes of snapshots\n",
        found.snapshots,
        size(found.total_bytes),
        found.chunks,
        size(found.plain_bytes),
        size(found.stored_bytes),
        found.packs,
        size(found.pack_bytes),
        found.index_objects,
        size(found.index_bytes),
        found.other_objects,
        size(found.other_bytes),
        size(space),
    )
}
