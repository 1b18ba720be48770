//! Differences and versions, as lines and as JSON.

use lifeboat::format::node::{Node, NodeKind};
use lifeboat::ops::diff::{Change, DiffCount, DiffSummary, Difference, Field};
use lifeboat::ops::find::{FindSummary, Found, Then};
use lifeboat::ops::snapshots::SnapshotInfo;
use lifeboat::units::ByteSize;
use serde_json::{Map, Value, json};

use super::json::put_bytes;
use super::{mode, sanitize, time};

/// What people know from restic.
fn letter(change: Change) -> char {
    match change {
        Change::Added => '+',
        Change::Removed => '-',
        Change::Content => 'M',
        Change::Metadata => 'U',
        Change::Kind => 'T',
    }
}

/// One word for JSON.
pub(crate) fn change_word(change: Change) -> &'static str {
    match change {
        Change::Added => "added",
        Change::Removed => "removed",
        Change::Content => "content",
        Change::Metadata => "metadata",
        Change::Kind => "kind",
    }
}

/// One word for text and JSON.
pub(crate) fn field_word(field: Field) -> &'static str {
    match field {
        Field::Mode => "mode",
        Field::Owner => "owner",
        Field::Group => "group",
        Field::Mtime => "mtime",
        Field::Xattrs => "xattrs",
        Field::Flags => "flags",
        Field::Problem => "problem",
    }
}

fn field_words(fields: &[Field]) -> Vec<&'static str> {
    fields.iter().map(|field| field_word(*field)).collect()
}

fn file_size(node: Option<&Node>) -> Option<u64> {
    node.filter(|node| node.kind == NodeKind::File).map(|node| node.size)
}

/// A line of `diff`: letter, path, sizes.
pub(crate) fn difference_line(difference: &Difference<'_>) -> String {
    let node = difference.new.or(difference.old);
    let slash = match node.map(|node| node.kind) {
        Some(NodeKind::Directory) if difference.path != b"/" => "/",
        _ => "",
    };
    let before_and_after = (file_size(difference.old), file_size(difference.new));
    let details = match (difference.change, before_and_after) {
        (Change::Metadata, _) => format!("  [{}]", field_words(&difference.fields).join(", ")),
        (_, (Some(old), Some(new))) => format!("  {} -> {}", ByteSize(old), ByteSize(new)),
        (_, (Some(size), None) | (None, Some(size))) => format!("  {}", ByteSize(size)),
        (_, (None, None)) => String::new(),
    };
    let kinds = match (difference.change, difference.old, difference.new) {
        (Change::Kind, Some(old), Some(new)) => {
            format!("  ({} -> {})", mode::kind(old.kind), mode::kind(new.kind))
        }
        _ => String::new(),
    };
    format!("{}    {}{slash}{kinds}{details}\n", letter(difference.change), sanitize::name(difference.path))
}

/// As [`difference_line`], for programs.
pub(crate) fn difference_json(difference: &Difference<'_>) -> Value {
    let kind = |node: Option<&Node>| node.map(|node| mode::kind(node.kind));
    let mut out = Map::new();
    for (key, value) in [
        ("type", json!("difference")),
        ("change", json!(change_word(difference.change))),
        ("old_kind", json!(kind(difference.old))),
        ("kind", json!(kind(difference.new))),
        ("old_size", json!(file_size(difference.old))),
        ("size", json!(file_size(difference.new))),
        ("fields", json!(field_words(&difference.fields))),
    ] {
        out.insert(key.to_owned(), value);
    }
    put_bytes(&mut out, "path", difference.path);
    Value::Object(out)
}

/// The end of `diff`.
pub(crate) fn diff_text(summary: &DiffSummary, metadata_shown: bool) -> String {
    let counts = |what: &str, count: &DiffCount| {
        let DiffCount { added, removed, changed } = count;
        format!("{what:8}{added:>6} added, {removed:>6} removed, {changed:>6} changed\n")
    };
    let mut out = String::from("\n");
    out.push_str(&counts("Files:", &summary.files));
    out.push_str(&counts("Dirs:", &summary.directories));
    out.push_str(&counts("Others:", &summary.others));
    if summary.kinds > 0 {
        out.push_str(&format!("Kind:   {:>6} changed\n", summary.kinds));
    }
    let (added, removed) = (ByteSize(summary.bytes_added), ByteSize(summary.bytes_removed));
    out.push_str(&format!("Bytes:  {added} added, {removed} removed\n"));
    if summary.metadata > 0 {
        let hint = if metadata_shown { "" } else { "; see them with --metadata" };
        out.push_str(&format!("Only metadata differ of {}{hint}\n", summary.metadata));
    }
    out
}

/// As [`diff_text`], for programs.
pub(crate) fn diff_json(summary: &DiffSummary, old: &SnapshotInfo, new: &SnapshotInfo) -> Value {
    let counts =
        |count: &DiffCount| json!({"added": count.added, "removed": count.removed, "changed": count.changed});
    json!({
        "type": "summary",
        "old": old.id.to_string(),
        "new": new.id.to_string(),
        "files": counts(&summary.files),
        "directories": counts(&summary.directories),
        "others": counts(&summary.others),
        "kind_changed": summary.kinds,
        "metadata_changed": summary.metadata,
        "bytes_added": summary.bytes_added,
        "bytes_removed": summary.bytes_removed,
        "damaged": summary.damaged,
        "unknown": summary.unknown,
    })
}

fn then_word(then: Then) -> &'static str {
    match then {
        Then::There => "there",
        Then::Changed => "changed",
        Then::Vanished => "vanished",
        Then::Unknown => "unknown",
    }
}

/// The headings of `find`.
pub(crate) fn find_headings(long: bool) -> String {
    let more = match long {
        true => format!("{:10} {:8} {:8} {:19}  ", "MODE", "OWNER", "GROUP", "MODIFIED"),
        false => String::new(),
    };
    format!(
        "{:19}  {:19}  {:>5}  {:8}  {:>10}  {:8}  {more}PATH\n",
        "FROM", "TO", "COUNT", "THEN", "SIZE", "LAST"
    )
}

/// A line of `find`: when a version was there, in how many snapshots, what came then, and which snapshot has it last.
pub(crate) fn found_line(found: &Found<'_>, long: bool) -> String {
    let node = found.node;
    let more = match long {
        true => format!(
            "{} {:8} {:8} {:19}  ",
            mode::mode(node.kind, node.mode),
            mode::owner(&node.user, node.uid),
            mode::owner(&node.group, node.gid),
            time::local_seconds(node.mtime.seconds),
        ),
        false => String::new(),
    };
    let size = if node.kind == NodeKind::File { ByteSize(node.size).to_string() } else { "-".to_owned() };
    let slash = if node.kind == NodeKind::Directory { "/" } else { "" };
    let arrow = match node.kind {
        NodeKind::Symlink => format!(" -> {}", sanitize::name(&node.target)),
        _ => String::new(),
    };
    format!(
        "{:19}  {:19}  {:>5}  {:8}  {size:>10}  {:8}  {more}{}{slash}{arrow}\n",
        time::local(found.first.snapshot.time),
        time::local(found.last.snapshot.time),
        found.count,
        then_word(found.then),
        found.last.id.short(),
        sanitize::name(found.path),
    )
}

/// The line above the versions of one job of one machine.
pub(crate) fn sequence_line(info: &SnapshotInfo) -> String {
    let (host, job) = (sanitize::name(&info.snapshot.host), sanitize::name(&info.snapshot.job));
    format!("\n{host}: {job}\n")
}

/// As [`found_line`], for programs.
pub(crate) fn found_json(found: &Found<'_>) -> Value {
    let node = found.node;
    let mut out = Map::new();
    for (key, value) in [
        ("type", json!("version")),
        ("kind", json!(mode::kind(node.kind))),
        ("size", json!(file_size(Some(node)))),
        ("mtime", json!(time::utc_parts(node.mtime.seconds, node.mtime.nanos))),
        ("mode", json!(node.mode)),
        ("uid", json!(node.uid)),
        ("gid", json!(node.gid)),
        ("first", json!(found.first.id.to_string())),
        ("first_time", json!(time::utc(found.first.snapshot.time))),
        ("last", json!(found.last.id.to_string())),
        ("last_time", json!(time::utc(found.last.snapshot.time))),
        ("count", json!(found.count)),
        ("then", json!(then_word(found.then))),
    ] {
        out.insert(key.to_owned(), value);
    }
    put_bytes(&mut out, "path", found.path);
    put_bytes(&mut out, "user", &node.user);
    put_bytes(&mut out, "group", &node.group);
    put_bytes(&mut out, "host", &found.first.snapshot.host);
    put_bytes(&mut out, "job", &found.first.snapshot.job);
    if node.kind == NodeKind::Symlink {
        put_bytes(&mut out, "target", &node.target);
    }
    Value::Object(out)
}

/// The last object of `find`.
pub(crate) fn find_json(summary: &FindSummary) -> Value {
    json!({
        "type": "summary",
        "paths": summary.paths,
        "versions": summary.versions,
        "snapshots": summary.snapshots,
        "damaged": summary.damaged,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_one_line_whatever_its_name() {
        let mut old = Node::new(b"x".to_vec(), NodeKind::File);
        old.size = 1024;
        let mut new = old.clone();
        new.size = 2048;
        let path = b"/a\n\x1b[2J";
        let line = |change, old, new, fields| difference_line(&Difference { path, change, old, new, fields });
        let shown = "/a\\n\\x1b[2J";
        let changed = line(Change::Content, Some(&old), Some(&new), vec![]);
        assert_eq!(changed, format!("M    {shown}  1.0 KiB -> 2.0 KiB\n"));
        assert_eq!(line(Change::Removed, Some(&old), None, vec![]), format!("-    {shown}  1.0 KiB\n"));
        let fields = vec![Field::Mode, Field::Mtime];
        let metadata = line(Change::Metadata, Some(&old), Some(&new), fields);
        assert_eq!(metadata, format!("U    {shown}  [mode, mtime]\n"));
        let dir = Node::new(b"x".to_vec(), NodeKind::Directory);
        assert_eq!(line(Change::Added, None, Some(&dir), vec![]), format!("+    {shown}/\n"));
        let kind = line(Change::Kind, Some(&old), Some(&dir), vec![]);
        assert_eq!(kind, format!("T    {shown}/  (file -> directory)  1.0 KiB\n"));
    }
}
