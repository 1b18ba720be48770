//! The writer's own journal: the packs a run was about to put. It is fsynced before each PUT, so that a run after a
//! crash can adopt what is really there instead of sending it again.
//!
//! # Crash
//! A torn last line is ignored. Losing the journal costs sending some packs again.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::error::RepoError;
use crate::id::PackId;

/// Longest journal that is read back.
const JOURNAL_MAX: u64 = 64 << 20;

/// An open journal.
#[derive(Debug)]
pub struct Journal {
    file: File,
    path: PathBuf,
}

impl Journal {
    /// The packs that the journal at `path` names; none if there is no journal.
    pub fn read(path: &Path) -> Result<Vec<PackId>, RepoError> {
        let mut text = String::new();
        match File::open(path) {
            Ok(file) => {
                let read = file.take(JOURNAL_MAX).read_to_string(&mut text);
                // A journal that is not text was damaged: it names nothing.
                if read.is_err() {
                    return Ok(Vec::new());
                }
            }
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(RepoError::Local { path: path.to_owned(), source }),
        }
        Ok(text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')?.parse().ok()).collect())
    }

    /// Opens the journal for appending.
    pub fn open(path: &Path) -> Result<Self, RepoError> {
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path);
        let file = file.map_err(|source| RepoError::Local { path: path.to_owned(), source })?;
        Ok(Self { file, path: path.to_owned() })
    }

    /// Notes that this pack is about to be put; durable when it returns.
    pub fn note(&mut self, pack: PackId) -> Result<(), RepoError> {
        let written =
            self.file.write_all(format!("{pack}\n").as_bytes()).and_then(|()| self.file.sync_data());
        written.map_err(|source| RepoError::Local { path: self.path.clone(), source })
    }

    /// Forgets all packs: they are in the index now.
    pub fn clear(&mut self) -> Result<(), RepoError> {
        self.file.set_len(0).map_err(|source| RepoError::Local { path: self.path.clone(), source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_line_is_ignored_and_the_rest_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        assert!(Journal::read(&path).unwrap().is_empty());
        let packs = [PackId::new([1; 32]), PackId::new([2; 32])];
        let mut journal = Journal::open(&path).unwrap();
        for pack in packs {
            journal.note(pack).unwrap();
        }
        assert_eq!(Journal::read(&path).unwrap(), packs);
        let torn = std::fs::metadata(&path).unwrap().len() - 3;
        File::options().write(true).open(&path).unwrap().set_len(torn).unwrap();
        assert_eq!(Journal::read(&path).unwrap(), packs[..1]);
        journal.clear().unwrap();
        assert!(Journal::read(&path).unwrap().is_empty());
    }
}
