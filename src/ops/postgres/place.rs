//! Putting a file where the server waits for it.
//!
//! # Invariants
//! Under the name the server gave stands a whole file or none. It is durable when it is reported.
//!
//! # Crash
//! A file with a name of its own is left beside it, which the next try replaces.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

/// Writes the file, and makes it and its name durable.
pub(super) fn deliver(path: &Path, content: &[u8]) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut name = path.file_name().map(OsString::from).ok_or(io::ErrorKind::InvalidInput)?;
    name.push(".lifeboat");
    let beside = parent.join(name);
    let written = write(&beside, content).and_then(|()| fs::rename(&beside, path));
    if written.is_err() {
        // The first error is the one to tell of.
        let _ = fs::remove_file(&beside);
    }
    written?;
    File::open(parent)?.sync_all()
}

fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_file_or_none() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("RECOVERYXLOG");
        deliver(&target, b"one").unwrap();
        fs::write(dir.path().join("RECOVERYXLOG.lifeboat"), b"left by a crash").unwrap();
        deliver(&target, b"two").unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"two");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        let nowhere = dir.path().join("gone").join("x");
        assert!(deliver(&nowhere, b"three").is_err());
        let taken = dir.path().join("taken");
        fs::create_dir(&taken).unwrap();
        assert!(deliver(&taken, b"four").is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }
}
