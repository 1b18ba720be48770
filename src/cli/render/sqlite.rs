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
    put_list(&mut out, "beside", &bytes(&done.beside));
    put_list(&mut out, "left", &bytes(done.left.as_slice()));
    out.insert("fault".to_owned(), json!(done.fault.as_ref().map(ToString::to_string)));
    out.insert("failed".to_owned(), json!(done.files.failed));
    out.insert("seconds".to_owned(), json!(done.elapsed.as_secs_f64()));
    Value::Object(out)
}

/// A line, and one for each thing to look at.
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
    for path in &done.beside {
        out.push_str(&format!(
            "  beside    {}: somebody opened it already, or put there what is not its own\n",
            sanitize::path(path)
        ));
    }
    if let Some(path) = &done.left {
        out.push_str(&format!("  left      {}, its name until now: remove that\n", sanitize::path(path)));
    }
    if let Some(fault) = &done.fault {
        out.push_str(&format!("  unsure    whether it stands there alone, also after a crash: {fault}\n"));
    }
    out
}
