//! What was done with a database of SQLite, for people and for scripts.

use std::path::Path;

use lifeboat::ops::sqlite::{Checked, SqliteRestoreSummary};
use lifeboat::units::ByteSize;
use serde_json::{Value, json};

use super::{sanitize, time};

/// The last object of `sqlite restore --json`.
pub(crate) fn restore_json(done: &SqliteRestoreSummary) -> Value {
    let removed: Vec<_> = done.removed.iter().map(|path| path.to_string_lossy()).collect();
    json!({
        "type": "summary",
        "bytes": done.files.bytes,
        "checked": done.checked == Some(Checked::Good),
        "removed": removed,
        "failed": done.files.failed,
        "seconds": done.elapsed.as_secs_f64(),
    })
}

/// A line, and one for each file that is gone.
pub(crate) fn restore_text(done: &SqliteRestoreSummary, target: &Path) -> String {
    let said = match &done.checked {
        Some(Checked::Good) => ", and SQLite finds nothing wrong with it".to_owned(),
        Some(Checked::Unknown(why)) => format!(", which SQLite cannot check: {}", sanitize::line(why)),
        None => ", not checked".to_owned(),
    };
    let mut out = format!(
        "restored {} to {} in {}{said}\n",
        ByteSize(done.files.bytes),
        sanitize::path(target),
        time::duration(done.elapsed),
    );
    for path in &done.removed {
        out.push_str(&format!("  removed   {}, which belonged to the one before\n", sanitize::path(path)));
    }
    out
}
