//! What SQLite says of a database that nobody uses.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rusqlite::{Connection, OpenFlags};

/// Findings that are reported.
const MOST: u32 = 20;

/// What SQLite says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Good,
    /// It needs something of the program whose database it is, such as an order of its own for text.
    Unknown(String),
    /// The first findings.
    Damaged(Vec<String>),
}

/// How the errors begin that say nothing of the database but that it is not for everybody.
const FOREIGN: [&str; 4] =
    ["no such collation sequence", "no such function", "no such module", "unsafe use of"];

/// Lets SQLite look at it. Nothing is made beside it.
pub(super) fn verdict(path: &Path) -> Verdict {
    match check(path) {
        Ok(findings) if findings.is_empty() => Verdict::Good,
        Ok(findings) => Verdict::Damaged(findings),
        Err(error) => {
            let said = error.to_string();
            match FOREIGN.iter().any(|foreign| said.starts_with(foreign)) {
                true => Verdict::Unknown(said),
                false => Verdict::Damaged(vec![said]),
            }
        }
    }
}

fn check(path: &Path) -> rusqlite::Result<Vec<String>> {
    let flags =
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(uri(path), flags)?;
    // What a hostile database brings along is not run.
    connection.pragma_update(None, "trusted_schema", false)?;
    connection.pragma_update(None, "cell_size_check", true)?;
    let mut statement = connection.prepare(&format!("PRAGMA quick_check({MOST})"))?;
    let mut rows = statement.query([])?;
    let mut findings = Vec::new();
    while let Some(row) = rows.next()? {
        findings.push(row.get::<_, String>(0)?);
    }
    findings.retain(|finding| finding != "ok");
    Ok(findings)
}

/// Nobody changes it, so it needs no locks, and no index of a log.
fn uri(path: &Path) -> String {
    let mut uri = "file:".to_owned();
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'/' | b'-' | b'_' | b'.' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => {
                uri.push(char::from(*byte))
            }
            other => uri.push_str(&format!("%{other:02x}")),
        }
    }
    uri + "?immutable=1"
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::fs;

    use super::*;

    #[test]
    fn a_good_database_under_any_name_has_no_findings_and_nothing_beside_it() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join(OsStr::from_bytes(b"a?b %\xff#.db"));
        let made = Connection::open(place.path().join("x")).unwrap();
        made.execute_batch(
            "PRAGMA journal_mode=WAL; CREATE TABLE t(x); INSERT INTO t VALUES(zeroblob(9000))",
        )
        .unwrap();
        drop(made);
        fs::rename(place.path().join("x"), &path).unwrap();
        assert_eq!(verdict(&path), Verdict::Good);
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1);
        let mut bytes = fs::read(&path).unwrap();
        for byte in &mut bytes[4096..4200] {
            *byte ^= 0x55;
        }
        fs::write(&path, &bytes).unwrap();
        let damaged = |path: &Path| matches!(verdict(path), Verdict::Damaged(_));
        assert!(damaged(&path));
        fs::write(&path, b"no database at all").unwrap();
        assert!(damaged(&path) && damaged(&place.path().join("missing")));
    }

    #[test]
    fn one_that_needs_its_program_is_not_called_damaged() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("db");
        let made = Connection::open(&path).unwrap();
        made.execute_batch("CREATE TABLE t(x UNIQUE); INSERT INTO t VALUES('a'), ('b')").unwrap();
        // What a program with an order of its own leaves behind.
        made.execute_batch(
            "PRAGMA writable_schema=1;
             UPDATE sqlite_schema SET sql = 'CREATE TABLE t(x COLLATE unicase UNIQUE)' WHERE name = 't'",
        )
        .unwrap();
        drop(made);
        assert!(matches!(verdict(&path), Verdict::Unknown(said) if said.contains("unicase")));
    }
}
