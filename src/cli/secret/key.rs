//! Key files and recovery words.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::super::error::CliError;
use super::read_secret_file;
use lifeboat::crypto::{CryptoError, SecretKey, keyfile, words};

pub(super) fn read_key_file(path: &Path, warn: &dyn Fn(&str)) -> Result<SecretKey, CliError> {
    read(path, warn, |text| keyfile::decode(text).map(|(_, key)| key))
}

pub(super) fn read_words(path: &Path, warn: &dyn Fn(&str)) -> Result<SecretKey, CliError> {
    read(path, warn, words::decode)
}

fn read(
    path: &Path,
    warn: &dyn Fn(&str),
    decode: impl Fn(&str) -> Result<SecretKey, CryptoError>,
) -> Result<SecretKey, CliError> {
    let bytes = read_secret_file(path, warn)?;
    // What is not UTF-8 is no key either; the decoder says which kind of key it misses.
    let text = std::str::from_utf8(&bytes).unwrap_or("");
    decode(text).map_err(|source| CliError::BadKey { path: path.to_path_buf(), source })
}

/// A file for a secret, in the making: it exists, empty and private, before the repository does, so that a repository is never
/// made whose key has no place to go. Dropped unwritten, it is removed again.
pub(crate) struct NewKeyFile {
    path: PathBuf,
    file: File,
    written: bool,
}

impl NewKeyFile {
    /// Makes the file with mode 0600; an existing one is never touched.
    pub(crate) fn create(path: &Path) -> Result<Self, CliError> {
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
            Ok(file) => Ok(Self { path: path.to_path_buf(), file, written: false }),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                Err(CliError::KeyFileExists { path: path.to_path_buf() })
            }
            Err(source) => Err(CliError::Write { path: path.to_path_buf(), source }),
        }
    }

    /// Writes the key; it and its name are on the disk when this returns. After a failure the file stays as it is,
    /// because part of a key is better than none.
    pub(crate) fn write(mut self, text: &[u8]) -> io::Result<()> {
        self.written = true;
        self.file.write_all(text)?;
        self.file.sync_all()?;
        let parent = self.path.parent().filter(|parent| !parent.as_os_str().is_empty());
        File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
    }
}

impl Drop for NewKeyFile {
    fn drop(&mut self) {
        if !self.written {
            // Nothing is lost if an empty file stays.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Makes a directory for private files, and those above it.
pub(crate) fn create_private_dir(path: &Path) -> Result<(), CliError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|source| CliError::Write { path: path.to_path_buf(), source })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn a_new_key_file_is_private_and_replaces_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("k");
        drop(NewKeyFile::create(&path).unwrap());
        assert!(!path.exists(), "unwritten, it goes away");
        NewKeyFile::create(&path).unwrap().write(b"key\n").unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert!(matches!(NewKeyFile::create(&path), Err(CliError::KeyFileExists { .. })));
        assert_eq!(std::fs::read(&path).unwrap(), b"key\n");
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("k");
        std::fs::write(&path, b"\xff\x00").unwrap();
        assert!(matches!(read_key_file(&path, &|_| {}), Err(CliError::BadKey { .. })));
        assert!(matches!(read_words(&path, &|_| {}), Err(CliError::BadKey { .. })));
    }

    #[test]
    fn a_secret_that_others_may_read_is_warned_of() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("k");
        for (mode, warned) in [(0o600, 0), (0o640, 1), (0o604, 1)] {
            std::fs::write(&path, b"x").unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let count = std::cell::Cell::new(0);
            read_secret_file(&path, &|_| count.set(count.get() + 1)).unwrap();
            assert_eq!(count.get(), warned, "{mode:o}");
        }
    }
}
