//! Passwords as PostgreSQL's own clients keep them: lines of `host:port:database:user:password`.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use zeroize::Zeroizing;

use super::connection::ConnectOptions;
use super::error::PgError;

/// Largest file that is read.
const FILE_MAX: u64 = 1 << 20;

/// The password of the first line that fits. A file that is not there has none.
///
/// # Errors
/// [`PgError::OpenPassfile`] if others may read the file; [`PgError::Io`].
pub fn find(path: &Path, options: &ConnectOptions) -> Result<Option<Zeroizing<String>>, PgError> {
    let io = |source| PgError::Io { action: "read", path: path.to_owned(), source };
    let stat = match std::fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(io)?,
    };
    if !stat.is_file() || stat.len() > FILE_MAX {
        return Err(PgError::File { path: path.to_owned(), fault: "is no file of passwords" });
    }
    if stat.mode() & 0o077 != 0 {
        return Err(PgError::OpenPassfile { path: path.to_owned() });
    }
    let text = Zeroizing::new(std::fs::read(path).map_err(io)?);
    Ok(text.split(|byte| *byte == b'\n').find_map(|line| of_line(line, options)))
}

fn of_line(line: &[u8], options: &ConnectOptions) -> Option<Zeroizing<String>> {
    let line = str::from_utf8(line).ok()?;
    if line.starts_with('#') {
        return None;
    }
    // A socket where PostgreSQL puts it by itself counts as this machine.
    let host = if options.is_local() { "localhost" } else { options.host.as_str() };
    let (port, hosts) = (options.port.to_string(), [host, options.host.as_str()]);
    let wanted: [&[&str]; 4] = [&hosts, &[&port], &[&options.database], &[&options.user]];
    let mut rest = line;
    for values in wanted {
        let (field, after) = field(rest)?;
        if field != "*" && !values.contains(&field.as_str()) {
            return None;
        }
        rest = after;
    }
    let password = Zeroizing::new(unescaped(rest.trim_end_matches('\r')).0);
    (!password.is_empty()).then_some(password)
}

/// The field before the next colon, and what follows the colon.
fn field(text: &str) -> Option<(String, &str)> {
    let (field, end) = unescaped(text);
    Some((field, text.get(end..)?.strip_prefix(':')?))
}

/// The text up to the first colon without a backslash, and how long that is.
fn unescaped(text: &str) -> (String, usize) {
    let (mut out, mut chars) = (String::new(), text.char_indices());
    while let Some((at, char)) = chars.next() {
        match char {
            ':' => return (out, at),
            '\\' => out.extend(chars.next().map(|(_, char)| char)),
            other => out.push(other),
        }
    }
    (out, text.len())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_first_line_that_fits_has_the_password() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("pgpass");
        let text = "# a:b\nother:*:*:*:no\nlocalhost:5433:*:ann:no\nlocalhost:*:postgres:ann:a\\:b\\\\c\n*:*:*:*:last";
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let of = |user: &str, host: &str| {
            let options = ConnectOptions { host: host.to_owned(), ..ConnectOptions::new(user) };
            find(&path, &options).unwrap().map(|password| password.to_string())
        };
        assert_eq!(of("ann", "/run/x").as_deref(), Some("a:b\\c"));
        assert_eq!(of("ben", "/run/x").as_deref(), Some("last"));
        assert_eq!(of("ben", "other").as_deref(), Some("no"));
    }

    #[test]
    fn a_file_that_others_may_read_is_not_used_and_no_file_has_no_password() {
        let place = tempfile::tempdir().unwrap();
        let (path, options) = (place.path().join("pgpass"), ConnectOptions::new("ann"));
        assert!(find(&path, &options).unwrap().is_none());
        fs::write(&path, "*:*:*:*:x").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(find(&path, &options), Err(PgError::OpenPassfile { .. })));
    }

    #[test]
    fn broken_lines_are_passed_over() {
        let options = ConnectOptions::new("ann");
        for line in [&b""[..], b":", b"*:*:*", b"*:*:*:*", b"*:*:*:*:", b"\xff:*:*:*:x", b"*:*:*:*\\:x"] {
            assert!(of_line(line, &options).is_none(), "{line:?}");
        }
    }
}
