//! `stats`: how much there is.

use std::collections::HashMap;

use lifeboat::ops::gc::shares;
use lifeboat::ops::snapshots::{SnapshotFilter, list};
use lifeboat::ops::stats::{Stats, stats};
use lifeboat::repo::{Repository, Task};
use lifeboat::units::ByteSize;
use serde_json::json;

use super::super::args::StatsArgs;
use super::super::error::CliError;
use super::super::exit::Exit;
use super::super::render::table::Table;
use super::super::render::{sanitize, time};
use super::super::session::Session;

pub(super) async fn run(session: &mut Session, args: StatsArgs) -> Result<Exit, CliError> {
    let repository = session.repository(Task::Stats).await?;
    if args.snapshots {
        return each(session, &repository).await;
    }
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

/// What each snapshot needs alone.
async fn each(session: &mut Session, repository: &Repository) -> Result<Exit, CliError> {
    let shares: HashMap<_, _> = shares(repository).await?.into_iter().collect();
    let found = list(repository, &SnapshotFilter::default()).await?;
    session.clear();
    let mut table = Table::new(
        &["ID", "STORED", "JOB", "SIZE", "ALONE", "IN THE STORE"],
        &[false, false, false, true, true, true],
    );
    for info in &found.snapshots {
        let Some(share) = shares.get(&info.id) else { continue };
        let size = info.snapshot.totals.bytes;
        if session.voice().json {
            session.output.json(&json!({
                "type": "snapshot_stats",
                "id": info.id.to_string(),
                "bytes": size,
                "bytes_exclusive": share.bytes,
                "bytes_shared": size.saturating_sub(share.bytes),
                "bytes_exclusive_stored": share.stored,
            }))?;
            continue;
        }
        table.row(vec![
            info.id.short(),
            time::local(info.stored.0),
            sanitize::name(&info.snapshot.job),
            ByteSize(size).to_string(),
            ByteSize(share.bytes).to_string(),
            ByteSize(share.stored).to_string(),
        ]);
    }
    if !session.voice().json {
        session.output.text(&table.render())?;
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
