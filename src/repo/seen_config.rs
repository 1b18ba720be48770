//! The newest configuration that this machine has seen: an older one would have it seal to keys that were replaced.
//!
//! # Invariants
//! One empty file for each number, named by it; the highest counts. So several runs may note theirs at the same time.
//!
//! # Crash
//! A name is there or not. Losing them loses the comparison with earlier times, nothing else.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::error::RepoError;
use super::open::Repository;

impl Repository {
    /// Fails if this machine has seen a newer configuration than the store shows; notes this one otherwise.
    ///
    /// # Errors
    /// [`RepoError::Untrusted`]; [`RepoError::Local`] if what was noted cannot be read.
    pub fn compare_config(&self) -> Result<(), RepoError> {
        let (path, number) = (self.config_notes(), self.slot.pins.config);
        let seen = noted(&path).map_err(|source| RepoError::Local { path: path.clone(), source })?;
        match seen.iter().max() {
            Some(newest) if *newest > number => {
                let reason = "it is older than one that this machine has seen";
                Err(RepoError::Untrusted { repository: self.id(), reason })
            }
            Some(newest) if *newest == number => Ok(()),
            _ => {
                // What is not remembered costs a comparison, and nothing that was asked for now.
                let _ = note(&path, number, &seen);
                Ok(())
            }
        }
    }

    /// Takes the configuration that the store shows for the newest there is, on this machine.
    pub fn accept_config(&self) -> Result<(), RepoError> {
        let (path, number) = (self.config_notes(), self.slot.pins.config);
        let seen = noted(&path);
        let accepted = seen.and_then(|seen| note(&path, number, &seen));
        accepted.map_err(|source| RepoError::Local { path, source })
    }

    fn config_notes(&self) -> PathBuf {
        self.env.places.state.join(self.id().to_string()).join("configs")
    }
}

fn noted(folder: &Path) -> io::Result<Vec<u64>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut found = Vec::new();
    for entry in entries {
        found.extend(entry?.file_name().to_str().and_then(|name| name.parse::<u64>().ok()));
    }
    Ok(found)
}

/// Notes this one, and takes the others away.
fn note(folder: &Path, number: u64, others: &[u64]) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    OpenOptions::new().create(true).append(true).mode(0o600).open(folder.join(number.to_string()))?;
    for other in others.iter().filter(|other| **other != number) {
        match fs::remove_file(folder.join(other.to_string())) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    fs::File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_number_counts_and_what_is_none_is_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("a/b");
        assert_eq!(noted(&folder).unwrap(), [0; 0]);
        note(&folder, 3, &[]).unwrap();
        fs::write(folder.join("x"), "").unwrap();
        note(&folder, 5, &noted(&folder).unwrap()).unwrap();
        assert_eq!(noted(&folder).unwrap(), [5]);
        // Another run noted one meanwhile that this one did not see: both stand, and the higher one counts.
        note(&folder, 4, &[]).unwrap();
        assert_eq!(noted(&folder).unwrap().into_iter().max(), Some(5));
    }
}
