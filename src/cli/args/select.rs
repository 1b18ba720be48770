//! Which snapshots, and which path in one.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use clap::Args;
use lifeboat::ops::snapshots::SnapshotFilter;

use super::super::paths;

/// Filters over snapshots; they narrow what `latest` means, too.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Which snapshots")]
pub(crate) struct SelectArgs {
    /// Only snapshots of this machine; may be given several times
    #[arg(long, value_name = "HOST")]
    host: Vec<String>,

    /// Only snapshots of this job; may be given several times
    #[arg(long, value_name = "NAME")]
    job: Vec<String>,

    /// Only snapshots with this tag; may be given several times
    #[arg(long, value_name = "TAG")]
    tag: Vec<String>,

    /// Only snapshots of this source path; may be given several times
    #[arg(long, value_name = "PATH")]
    path: Vec<PathBuf>,
}

impl SelectArgs {
    /// As the library takes it; paths are recorded as absolute ones.
    pub(crate) fn filter(self, directory: &Path) -> SnapshotFilter {
        let paths = self.path.iter().map(|path| paths::absolute(path, directory)).collect();
        SnapshotFilter { hosts: self.host, jobs: self.job, tags: self.tag, paths }
    }
}

/// A snapshot and perhaps a path in it: `SNAPSHOT[:PATH]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Location {
    /// An id prefix, `latest`, `latest~N` or `@TIME`.
    pub(crate) selector: String,
    /// Raw bytes; `None` if no colon was given.
    pub(crate) path: Option<Vec<u8>>,
}

impl Location {
    /// Takes it apart. A time has colons of its own, so after `@` only `:/` begins a path.
    pub(crate) fn parse(text: &OsStr) -> Result<Self, &'static str> {
        let bytes = text.as_bytes();
        let at = if bytes.starts_with(b"@") {
            bytes.windows(2).position(|pair| pair == b":/")
        } else {
            bytes.iter().position(|byte| *byte == b':')
        };
        let (selector, path) = match at {
            Some(at) => (&bytes[..at], Some(bytes[at + 1..].to_vec())),
            None => (bytes, None),
        };
        match std::str::from_utf8(selector) {
            Ok(selector) if !selector.is_empty() => Ok(Self { selector: selector.to_owned(), path }),
            _ => Err("expected a snapshot: an id, `latest`, `latest~2` or `@2026-03-01T14:00`"),
        }
    }
}

/// For arguments of clap.
pub(super) fn location() -> impl clap::builder::TypedValueParser<Value = Location> {
    use clap::builder::TypedValueParser;
    clap::builder::OsStringValueParser::new().try_map(|text: OsString| Location::parse(&text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_location_is_a_selector_and_perhaps_a_path() {
        for (text, selector, path) in [
            ("latest", "latest", None),
            ("latest:", "latest", Some("")),
            ("ab12:/etc", "ab12", Some("/etc")),
            ("latest~2:a:b", "latest~2", Some("a:b")),
            ("@2026-03-01T14:00", "@2026-03-01T14:00", None),
            ("@2026-03-01T14:00:/etc/x:y", "@2026-03-01T14:00", Some("/etc/x:y")),
        ] {
            let location = Location::parse(OsStr::new(text)).unwrap();
            assert_eq!(location.selector, selector, "{text}");
            assert_eq!(location.path.as_deref(), path.map(str::as_bytes), "{text}");
        }
        for bad in [&b""[..], b":/etc", b"\xff:/etc"] {
            assert!(Location::parse(OsStr::from_bytes(bad)).is_err());
        }
        assert_eq!(Location::parse(OsStr::from_bytes(b"a:\xff")).unwrap().path.unwrap(), b"\xff");
    }
}
