//! `snapshots`: what there is.

use lifeboat::class::Class;
use lifeboat::ops::snapshots::{SnapshotInfo, list};
use lifeboat::units::ByteSize;
use serde_json::{Map, Value, json};

use super::super::args::SnapshotsArgs;
use super::super::error::CliError;
use super::super::exit::Exit;
use super::super::observe::words;
use super::super::render::json::{put_bytes, put_list};
use super::super::render::table::Table;
use super::super::render::{sanitize, time};
use super::super::session::Session;

pub(super) async fn run(session: &mut Session, args: SnapshotsArgs) -> Result<Exit, CliError> {
    let repository = session.repository().await?;
    let found = list(&repository, &args.select.filter(&session.directory)).await?;
    session.clear();
    for (key, error) in &found.unreadable {
        let causes = words::causes(error).join(": ");
        session.warn(&format!(
            "{key} is not shown: {error}{}{causes}",
            if causes.is_empty() { "" } else { ": " }
        ));
    }
    if session.voice().json {
        for info in &found.snapshots {
            session.output.json(&object(info))?;
        }
    } else if found.snapshots.is_empty() {
        session.say("there are no snapshots");
    } else {
        session.output.text(&table(&found.snapshots))?;
    }
    Ok(if found.unreadable.is_empty() { Exit::Done } else { Exit::Class(Class::Damage) })
}

fn table(snapshots: &[SnapshotInfo]) -> String {
    let headings = ["ID", "TIME", "HOST", "JOB", "TAGS", "SIZE", "PATHS"];
    let mut table = Table::new(&headings, &[false, false, false, false, false, true, false]);
    for info in snapshots {
        let snapshot = &info.snapshot;
        let paths: Vec<String> = snapshot.paths.iter().map(|path| sanitize::name(path)).collect();
        let tags: Vec<String> = snapshot.tags.iter().map(|tag| sanitize::line(tag)).collect();
        let open = if info.confirmed { "" } else { " (not confirmed)" };
        table.row(vec![
            info.id.short(),
            time::local(snapshot.time),
            sanitize::name(&snapshot.host),
            sanitize::name(&snapshot.job),
            tags.join(","),
            ByteSize(snapshot.totals.bytes).to_string(),
            format!("{}{open}", paths.join(" ")),
        ]);
    }
    table.render()
}

fn object(info: &SnapshotInfo) -> Value {
    let snapshot = &info.snapshot;
    let mut out = Map::new();
    for (key, value) in [
        ("type", json!("snapshot")),
        ("id", json!(info.id.to_string())),
        ("time", json!(time::utc(snapshot.time))),
        ("stored", json!(time::utc(info.stored.0))),
        ("confirmed", json!(info.confirmed)),
        ("tags", json!(snapshot.tags)),
        ("seconds", json!(snapshot.duration as f64 / 1e9)),
        ("entries", json!(snapshot.totals.entries)),
        ("files", json!(snapshot.totals.files)),
        ("bytes", json!(snapshot.totals.bytes)),
        ("new_bytes", json!(snapshot.new_bytes)),
        ("stored_bytes", json!(snapshot.stored_bytes)),
        ("problems", json!(snapshot.problems)),
        ("writer", json!(info.writer.to_string())),
        ("sequence", json!(info.sequence)),
        ("program", json!(snapshot.program)),
    ] {
        out.insert(key.to_owned(), value);
    }
    put_bytes(&mut out, "host", &snapshot.host);
    put_bytes(&mut out, "user", &snapshot.user);
    put_bytes(&mut out, "job", &snapshot.job);
    put_list(&mut out, "paths", &snapshot.paths);
    Value::Object(out)
}
