//! `snapshots`: what there is.

use lifeboat::class::Class;
use lifeboat::error::Error;
use lifeboat::format::snapshot::Origin;
use lifeboat::ops::forget::undelete_until;
use lifeboat::ops::snapshots::{SnapshotInfo, list};
use lifeboat::repo::{RepoError, Task};
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
    let repository = session.repository(Task::Snapshots).await?;
    let mut found = list(&repository, &args.select.filter(&session.directory)).await?;
    session.clear();
    warn_of_unreadable(session, &found.unreadable);
    let all = found.snapshots.len();
    found.snapshots.retain(|info| args.all || info.forgotten.is_none());
    let hidden = all - found.snapshots.len();
    if session.voice().json {
        for info in &found.snapshots {
            session.output.json(&object(info))?;
        }
    } else if found.snapshots.is_empty() {
        if found.closed == 0 {
            session.say("there are no snapshots");
        }
    } else {
        session.output.text(&table(&found.snapshots))?;
    }
    if hidden > 0 && !session.voice().json {
        session.say(&format!("{hidden} forgotten snapshots are not shown; see them with --all"));
    }
    if found.closed > 0 {
        session.say(&format!(
            "{} snapshots are not shown: this key does not open them, and this machine did not make them",
            found.closed
        ));
    }
    // What nobody believes because its writer was revoked before is no damage, nor what this key is too old for.
    let any = |is: &dyn Fn(&Error) -> bool| found.unreadable.iter().any(|(_, error)| is(error));
    Ok(match any(&|error| !is_after_revocation(error) && !is_stale(error)) {
        true => Exit::Class(Class::Damage),
        false if any(&is_stale) => Exit::Class(Class::Denied),
        false => Exit::Done,
    })
}

fn is_stale(error: &Error) -> bool {
    matches!(error, Error::Repo(RepoError::StaleKey))
}

pub(super) fn is_after_revocation(error: &Error) -> bool {
    matches!(error, Error::Repo(RepoError::AfterRevocation { .. }))
}

/// Names what could not be read, and why.
pub(super) fn warn_of_unreadable(session: &Session, unreadable: &[(String, Error)]) {
    let (after, others): (Vec<_>, Vec<_>) =
        unreadable.iter().partition(|(_, error)| is_after_revocation(error));
    let (stale, others): (Vec<_>, Vec<_>) = others.into_iter().partition(|(_, error)| is_stale(error));
    for alike in [after, stale] {
        if let [(key, error), others @ ..] = &alike[..] {
            let more =
                if others.is_empty() { String::new() } else { format!(" (and {} more)", others.len()) };
            session.warn(&format!("{key} is left out{more}: {error}"));
        }
    }
    for (key, error) in others {
        let causes = words::causes(error).join(": ");
        let colon = if causes.is_empty() { "" } else { ": " };
        session.warn(&format!("{key} is left out: {error}{colon}{causes}"));
    }
}

fn table(snapshots: &[SnapshotInfo]) -> String {
    let headings = ["ID", "TIME", "HOST", "JOB", "TAGS", "SIZE", "PATHS"];
    let mut table = Table::new(&headings, &[false, false, false, false, false, true, false]);
    for info in snapshots {
        let snapshot = &info.snapshot;
        let paths: Vec<String> = snapshot.paths.iter().map(|path| sanitize::name(path)).collect();
        let tags: Vec<String> = snapshot.tags.iter().map(|tag| sanitize::line(tag)).collect();
        let open = if info.confirmed { "" } else { " (not confirmed)" };
        let partial = match info.origin() {
            Some(origin) if origin.missing > 0 => format!(" (copy without {} entries)", origin.missing),
            _ => String::new(),
        };
        let gone = info.forgotten.map(|tomb| time::local(undelete_until(tomb.stored).0));
        let gone = gone.map_or(String::new(), |until| format!(" (forgotten, undelete until {until})"));
        table.row(vec![
            info.id.short(),
            time::local(snapshot.time),
            sanitize::name(&snapshot.host),
            sanitize::name(&snapshot.job),
            tags.join(","),
            ByteSize(snapshot.totals.bytes).to_string(),
            format!("{}{open}{partial}{gone}", paths.join(" ")),
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
        ("forgotten", json!(info.forgotten.map(|tomb| time::utc(tomb.stored.0)))),
        ("undelete_until", json!(info.forgotten.map(|tomb| time::utc(undelete_until(tomb.stored).0)))),
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
    out.insert("origin".to_owned(), info.origin().map_or(Value::Null, origin));
    Value::Object(out)
}

/// Where a snapshot was brought from.
fn origin(origin: &Origin) -> Value {
    json!({
        "kind": origin.kind,
        "repository": hex(&origin.repository),
        "snapshot": hex(&origin.snapshot),
        "time": time::utc(origin.time),
        "missing": origin.missing,
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
