//! Parts of messages.

use crate::class::Class;
use crate::format::layout::UNDONE;
use crate::id::SnapshotId;
use crate::retention::Group;

/// What a damaged mark may have said.
pub(super) fn doubt(key: &str) -> &'static str {
    if key.starts_with(UNDONE) { "may say that a snapshot was taken back" } else { "may be a hold" }
}

/// Most snapshots that a message names.
const NAMED: usize = 20;

pub(super) fn count(snapshots: &[SnapshotId]) -> String {
    match snapshots.len() {
        1 => "1 snapshot is".to_owned(),
        count => format!("{count} snapshots are"),
    }
}

pub(super) fn names(snapshots: &[SnapshotId]) -> String {
    let named: Vec<_> = snapshots.iter().take(NAMED).map(ToString::to_string).collect();
    let more = snapshots.len().saturating_sub(NAMED);
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    format!("{}{more}", named.join(", "))
}

/// How a store shows less than an anchor covers.
pub(super) fn less(missing: &[SnapshotId], changed: &[SnapshotId], older: bool) -> String {
    let mut parts = Vec::new();
    if !missing.is_empty() {
        parts.push(format!(
            "{} gone, and nobody removed what is missing: {}",
            count(missing),
            names(missing)
        ));
    }
    if !changed.is_empty() {
        parts.push(format!("{} damaged, or not confirmed any more: {}", count(changed), names(changed)));
    }
    if older {
        parts.push("an older configuration or registry of writers".to_owned());
    }
    parts.join("; ")
}

pub(super) fn group_name(group: &Group) -> String {
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    format!("job {} of {}", text(&group.job), text(&group.host))
}

pub(super) fn io_class(error: &std::io::Error) -> Class {
    use std::io::ErrorKind::{QuotaExceeded, StorageFull};
    match error.kind() {
        StorageFull | QuotaExceeded => Class::NoSpace,
        _ => Class::Failed,
    }
}
