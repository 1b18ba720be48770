//! What was done with a database of SQLite, for people and for scripts.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use lifeboat::ops::sqlite::{Checked, SqliteRestoreSummary};
use lifeboat::units::ByteSize;
use serde_json::{Map, Value, json};

use super::json::put_list;
use super::{sanitize, time};

/// The last object of `sqlite restore --json`.
pub(crate) fn restore_json(done: &SqliteRestoreSummary) -> Value {
    let bytes = |paths: &[PathBuf]| -> Vec<Vec<u8>> {
        paths.iter().map(|path| path.as_os_str().as_bytes().to_vec()).collect()
    };
    let mut out = Map::new();
    out.insert("type".to_owned(), json!("summary"));
    out.insert("bytes".to_owned(), json!(done.files.bytes));
    out.insert("checked".to_owned(), json!(done.checked == Some(Checked::Good)));
    out.insert("doubtful".to_owned(), json!(done.doubt.is_some()));
    put_list(&mut out, "removed", &bytes(&done.removed));
    put_list(&mut out, "left", &bytes(&done.left));
    out.insert("failed".to_owned(), json!(done.files.failed));
    out.insert("seconds".to_owned(), json!(done.elapsed.as_secs_f64()));
    Value::Object(out)
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
    if let Some(doubt) = done.doubt {
        out.push_str(&format!("  doubtful  {doubt}\n"));
    }
    for path in &done.removed {
        out.push_str(&format!("  removed   {}, which belonged to the one before\n", sanitize::path(path)));
    }
    for path in &done.left {
        out.push_str(&format!("  not removed   {}, which nobody needs any more\n", sanitize::path(path)));
    }
    out
}
