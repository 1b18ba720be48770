//! What SQLite says of a database that nobody uses.

use std::path::Path;

use rusqlite::{Connection, ErrorCode, OpenFlags};

use crate::source::sqlite::unchanging;

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
    /// It could not look.
    Failed(String),
}

/// Lets SQLite look at it. Nothing is made beside it.
pub(super) fn verdict(path: &Path) -> Verdict {
    let error = match check(path) {
        Ok(findings) if findings.is_empty() => return Verdict::Good,
        Ok(findings) => return Verdict::Damaged(findings),
        Err(error) => error,
    };
    let said = error.to_string();
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Verdict::Damaged(vec![said]),
        Some(
            ErrorCode::SystemIoFailure
            | ErrorCode::OutOfMemory
            | ErrorCode::CannotOpen
            | ErrorCode::DiskFull
            | ErrorCode::PermissionDenied,
        ) => Verdict::Failed(said),
        _ => Verdict::Unknown(said),
    }
}

fn check(path: &Path) -> rusqlite::Result<Vec<String>> {
    let flags =
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(unchanging(path), flags)?;
    // What a hostile database brings along is not run.
    connection.pragma_update(None, "trusted_schema", false)?;
    connection.pragma_update(None, "cell_size_check", true)?;
    let mut statement = connection.prepare(&format!("PRAGMA quick_check({MOST})"))?;
    let mut rows = statement.query([])?;
    let mut findings = Vec::new();
    while let Some(row) = rows.next()? {
        // It names tables, which may be called anything.
        findings.push(String::from_utf8_lossy(row.get_ref(0)?.as_bytes()?).into_owned());
    }
    findings.retain(|finding| finding != "ok");
    Ok(findings)
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::fs;
    use std::os::unix::ffi::OsStrExt;

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
        assert!(damaged(&path));
        assert!(matches!(verdict(&place.path().join("missing")), Verdict::Failed(_)));
    }

    /// SQLite takes any bytes for a name, and says them when it finds fault with what is called so.
    #[test]
    fn damage_of_what_has_a_name_that_is_no_text_is_damage() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("db");
        let made = Connection::open(&path).unwrap();
        made.execute_batch("CREATE TABLE tZZZ(x NOT NULL, y); INSERT INTO tZZZ VALUES(1, 'a'), (2, 'b')")
            .unwrap();
        made.execute_batch(
            "PRAGMA writable_schema=1;
             UPDATE sqlite_schema SET sql = 'CREATE TABLE tZZZ(x NOT NULL, y NOT NULL)';
             PRAGMA writable_schema=0; UPDATE tZZZ SET y = NULL",
        )
        .unwrap();
        drop(made);
        assert!(
            matches!(verdict(&path), Verdict::Damaged(said) if said[0].contains("tZZZ")),
            "it is damaged"
        );
        let mut bytes = fs::read(&path).unwrap();
        let places: Vec<usize> = (0..bytes.len() - 4).filter(|at| &bytes[*at..at + 4] == b"tZZZ").collect();
        for at in places {
            bytes[at + 1..at + 4].fill(0xe9);
        }
        fs::write(&path, bytes).unwrap();
        assert!(matches!(verdict(&path), Verdict::Damaged(_)), "{:?}", verdict(&path));
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
        let path = place.path().join("words");
        let made = Connection::open(&path).unwrap();
        for table in ["fts3(x, tokenize=simple)", "fts5(x, tokenize=ascii)"] {
            made.execute_batch(&format!("DROP TABLE IF EXISTS f; CREATE VIRTUAL TABLE f USING {table}"))
                .unwrap();
            made.execute_batch("INSERT INTO f VALUES('a')").unwrap();
            // As a program leaves it behind that has a way of its own to cut text into words.
            let sql = table.replace("simple", "mozporter").replace("ascii", "mozporter");
            made.execute_batch(&format!(
                "PRAGMA writable_schema=1;
                 UPDATE sqlite_schema SET sql = 'CREATE VIRTUAL TABLE f USING {sql}' WHERE name = 'f';
                 PRAGMA writable_schema=0"
            ))
            .unwrap();
            assert!(matches!(verdict(&path), Verdict::Unknown(_)), "{table}: {:?}", verdict(&path));
            made.execute_batch(&format!(
                "PRAGMA writable_schema=1;
                 UPDATE sqlite_schema SET sql = 'CREATE VIRTUAL TABLE f USING {table}' WHERE name = 'f';
                 PRAGMA writable_schema=0"
            ))
            .unwrap();
        }
    }
}
