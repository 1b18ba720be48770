//! What a run did, for people and for scripts.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use lifeboat::ops::backup::{BackupSummary, SavedStream};
use lifeboat::ops::restore::{Forecast, RestoreSummary};
use lifeboat::units::{ByteSize, Counted};
use serde_json::{Map, Value, json};

use super::json::{put_bytes, put_list};
use super::{sanitize, time};

/// The last object of `backup --json`.
pub(crate) fn backup_json(done: &BackupSummary) -> Value {
    let missing: Vec<String> = done.missing.iter().map(|path| path.to_string_lossy().into_owned()).collect();
    json!({
        "type": "summary",
        "snapshot": done.snapshot.map(|id| id.to_string()),
        "entries": done.entries,
        "files": done.files,
        "new_files": done.new_files,
        "changed_files": done.changed_files,
        "unchanged_files": done.unchanged_files,
        "bytes": done.bytes,
        "bytes_read": done.bytes_read,
        "new_bytes": done.new_bytes,
        "stored_bytes": done.stored_bytes,
        "resumed_bytes": done.resumed_bytes,
        "excluded": done.excluded,
        "failed": done.failed,
        "missing": missing,
        "streams": done.streams.iter().map(stream_json).collect::<Vec<_>>(),
        "seconds": done.elapsed.as_secs_f64(),
    })
}

fn stream_json(stream: &SavedStream) -> Value {
    let mut out = Map::new();
    put_bytes(&mut out, "path", stream.path.as_os_str().as_bytes());
    out.insert("bytes".to_owned(), stream.bytes.into());
    Value::Object(out)
}

/// One line for logs; after a dry run one more for each stream.
pub(crate) fn backup_line(done: &BackupSummary) -> String {
    let what = done.snapshot.map_or_else(|| "dry run".to_owned(), |id| format!("snapshot {}", id.short()));
    let trouble = match done.failed + done.missing.len() as u64 {
        0 => String::new(),
        failed => format!(", {failed} failed"),
    };
    let streams = done.streams.iter().filter(|_| done.snapshot.is_none());
    let streams: String = streams
        .map(|stream| format!("stream {} {}\n", sanitize::path(&stream.path), ByteSize(stream.bytes)))
        .collect();
    format!(
        "{what}: {}, {}, {} new, {} stored, {}{trouble}\n{streams}",
        Counted(done.files, "file"),
        ByteSize(done.bytes),
        ByteSize(done.new_bytes),
        ByteSize(done.stored_bytes),
        time::duration(done.elapsed),
    )
}

/// Several lines for a person; `restore` is the command that brings the snapshot back.
pub(crate) fn backup_text(done: &BackupSummary, restore: Option<&str>) -> String {
    let head = match done.snapshot {
        Some(id) => format!("saved snapshot {} in {}", id.short(), time::duration(done.elapsed)),
        None => format!("would save, found out in {}", time::duration(done.elapsed)),
    };
    let size = |bytes| ByteSize(bytes).to_string();
    let mut out = format!(
        "{head}\n\
         \x20 sources   {} and {}, {}\n\
         \x20 changes   {} new, {} changed, {} unchanged\n\
         \x20 read      {}\n\
         \x20 new       {}{}\n\
         \x20 stored    {}{}\n",
        Counted(done.files, "file"),
        Counted(done.entries.saturating_sub(done.files), "other entry"),
        size(done.bytes),
        done.new_files,
        done.changed_files,
        done.unchanged_files,
        size(done.bytes_read),
        size(done.new_bytes),
        share(done.bytes.saturating_sub(done.new_bytes), done.bytes, " of the sources is stored already"),
        size(done.stored_bytes),
        share(done.stored_bytes, done.new_bytes, " of what is new, by compression"),
    );
    if done.resumed_bytes > 0 {
        out.push_str(&format!("  resumed   {} of an interrupted run\n", size(done.resumed_bytes)));
    }
    for stream in done.streams.iter().filter(|_| done.snapshot.is_none()) {
        out.push_str(&format!("  stream    {} {}\n", sanitize::path(&stream.path), size(stream.bytes)));
    }
    if done.excluded > 0 {
        out.push_str(&format!("  excluded  {}\n", Counted(done.excluded, "entry")));
    }
    for path in &done.missing {
        out.push_str(&format!("  missing   {}\n", sanitize::path(path)));
    }
    if done.failed > 0 {
        out.push_str(&format!("  failed    {}, named above\n", Counted(done.failed, "entry")));
    }
    if let Some(command) = restore {
        out.push_str(&format!("restore with: {command}\n"));
    }
    out
}

fn share(part: u64, whole: u64, of: &str) -> String {
    if whole == 0 { String::new() } else { format!(" ({:.1} %{of})", 100.0 * part as f64 / whole as f64) }
}

/// The last object of `restore --json`.
pub(crate) fn restore_json(done: &RestoreSummary) -> Value {
    Value::Object(restored(done, "summary"))
}

/// The object of `restore --plan --json`.
pub(crate) fn plan_json(done: &RestoreSummary, forecast: &Forecast) -> Value {
    let mut out = restored(done, "plan");
    for (key, value) in [
        ("requests", json!(forecast.requests)),
        ("memory", json!(forecast.memory)),
        ("space_needed", json!(forecast.space_needed)),
        ("space_free", json!(forecast.space_free)),
        ("fits", json!(forecast.fits())),
        ("expected_seconds", json!(forecast.time.map(|time| time.as_secs_f64()))),
    ] {
        out.insert(key.to_owned(), value);
    }
    Value::Object(out)
}

fn restored(done: &RestoreSummary, kind: &str) -> Map<String, Value> {
    let mut out = Map::new();
    for (key, value) in [
        ("type", json!(kind)),
        ("entries", json!(done.entries)),
        ("files", json!(done.files)),
        ("bytes", json!(done.bytes)),
        ("chunks", json!(done.chunks)),
        ("bytes_kept", json!(done.kept)),
        ("bytes_fetched", json!(done.fetched)),
        ("left", json!(done.left)),
        ("removed", json!(done.removed)),
        ("failed", json!(done.failed)),
        ("damaged_count", json!(done.damaged_count)),
        ("seconds", json!(done.elapsed.as_secs_f64())),
    ] {
        out.insert(key.to_owned(), value);
    }
    put_list(&mut out, "damaged", &done.damaged);
    out
}

/// One line.
pub(crate) fn archive_text(done: &RestoreSummary, place: &Path) -> String {
    let mut trouble = String::new();
    if done.failed > 0 {
        trouble.push_str(&format!(", {} not in it or not in full", done.failed));
    }
    if done.damaged_count > 0 {
        trouble.push_str(&format!(", {} left out as damaged", done.damaged_count));
    }
    format!(
        "wrote {}, {}, {} to {} in {}{trouble}\n",
        Counted(done.entries, "entry"),
        Counted(done.files, "file"),
        ByteSize(done.bytes),
        sanitize::path(place),
        time::duration(done.elapsed),
    )
}

/// One line.
pub(crate) fn restore_text(done: &RestoreSummary, target: &Path) -> String {
    let dry_run = done.forecast.is_some();
    let mut more = String::new();
    if done.kept > 0 {
        more.push_str(&format!(", {} kept", ByteSize(done.kept)));
    }
    if dry_run {
        more.push_str(&format!(", {} to fetch", ByteSize(done.fetched)));
    }
    if done.left > 0 {
        more.push_str(&format!(", {} left as they were", done.left));
    }
    if done.removed > 0 {
        more.push_str(&format!(", {} {}", done.removed, if dry_run { "to remove" } else { "removed" }));
    }
    if done.failed > 0 {
        more.push_str(&format!(", {} not set in full", done.failed));
    }
    if done.damaged_count > 0 {
        more.push_str(&format!(", {} left out as damaged", done.damaged_count));
    }
    format!(
        "{} {}, {}, {} to {} in {}{more}\n",
        if dry_run { "would restore" } else { "restored" },
        Counted(done.entries, "entry"),
        Counted(done.files, "file"),
        ByteSize(done.bytes),
        sanitize::path(target),
        time::duration(done.elapsed),
    )
}

/// Several lines for a person.
pub(crate) fn plan_text(done: &RestoreSummary, forecast: &Forecast, target: &Path) -> String {
    let size = |bytes| ByteSize(bytes).to_string();
    let mut out = format!(
        "would restore to {}\n\
         \x20 entries   {} and {}\n\
         \x20 write     {} in {}\n",
        sanitize::path(target),
        Counted(done.files, "file"),
        Counted(done.entries.saturating_sub(done.files), "other entry"),
        size(done.bytes),
        Counted(done.chunks, "chunk"),
    );
    let mut line = |name: &str, text: String| out.push_str(&format!("  {name:<9} {text}\n"));
    if done.kept > 0 {
        line("keep", size(done.kept));
    }
    line("fetch", format!("{} in {}", size(done.fetched), Counted(forecast.requests, "request")));
    if done.left > 0 {
        line("leave", format!("{} as found", Counted(done.left, "entry")));
    }
    if done.removed > 0 {
        line("remove", Counted(done.removed, "entry").to_string());
    }
    line("memory", format!("about {}", size(forecast.memory)));
    let room = match forecast.space_free {
        Some(free) if forecast.fits() => format!("{} free", size(free)),
        Some(free) => format!("{} free: too little", size(free)),
        None => "the file system does not tell what is free".to_owned(),
    };
    line("room", format!("{} needed, {room}", size(forecast.space_needed)));
    line(
        "time",
        match forecast.time {
            Some(time) => format!("about {}, as earlier restores took", time::duration(time)),
            None => "not known: no restore like this was measured here yet".to_owned(),
        },
    );
    if done.failed > 0 {
        line("failed", format!("{}, named above", Counted(done.failed, "entry")));
    }
    if done.damaged_count > 0 {
        line("damaged", format!("{}, to be left out", Counted(done.damaged_count, "entry")));
    }
    out
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use lifeboat::id::SnapshotId;

    use super::*;

    fn done() -> BackupSummary {
        let mut done = BackupSummary::default();
        done.snapshot = Some(SnapshotId::new([0xab; 32]));
        (done.entries, done.files) = (5, 3);
        (done.bytes, done.new_bytes, done.stored_bytes) = (4096, 1024, 512);
        done.elapsed = Duration::from_millis(1500);
        done
    }

    #[test]
    fn a_summary_says_what_a_person_wants_to_know() {
        let text = backup_text(&done(), Some("lifeboat restore abababab --target DIR"));
        for part in [
            "abababab in 1.5 s",
            "3 files",
            "75.0 % of the sources",
            "50.0 % of what is new",
            "restore with: ",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert_eq!(
            backup_line(&done()),
            "snapshot abababab: 3 files, 4.0 KiB, 1.0 KiB new, 512 B stored, 1.5 s\n"
        );
    }

    #[test]
    fn nothing_is_divided_by_nothing() {
        let text = backup_text(&BackupSummary::default(), None);
        assert!(!text.contains("NaN") && text.starts_with("would save"), "{text}");
    }

    #[test]
    fn the_last_object_names_the_snapshot() {
        let object = backup_json(&done());
        assert_eq!(object["snapshot"], "ab".repeat(32));
        assert!(backup_json(&BackupSummary::default())["snapshot"].is_null());
    }
}
