//! The snapshots that this machine knows to be confirmed, in its local state: those its runs confirmed and those its
//! collections listed. One that is gone without a removal means that a listing cannot be trusted.
//!
//! # Invariants
//! One empty file a snapshot, named by its id: runs of several jobs and a collection may use them at the same time without a
//! lock, and one that was stopped in the middle makes nobody wait.
//!
//! # Crash
//! Some names are there, others are not. Losing them loses the comparison with earlier times, nothing else.

use std::collections::HashSet;
use std::fs::{self, DirBuilder, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::error::RepoError;
use super::open::Repository;
use crate::id::SnapshotId;

const NAME: &str = "seen";

/// The snapshots that were known when it was read.
#[derive(Debug, Default)]
pub struct SeenSnapshots(HashSet<SnapshotId>);

fn path(repo: &Repository) -> PathBuf {
    repo.env.places.state.join(repo.id().to_string()).join(NAME)
}

impl SeenSnapshots {
    /// Those known so far; none on a machine that is new. What is not a name is passed over.
    pub fn load(repo: &Repository) -> Result<Self, RepoError> {
        let path = path(repo);
        read(&path).map(Self).map_err(|source| RepoError::Local { path, source })
    }

    /// Those that were known.
    pub fn ids(&self) -> impl Iterator<Item = &SnapshotId> {
        self.0.iter()
    }

    /// Notes one more; durable when it returns.
    pub fn note(repo: &Repository, snapshot: SnapshotId) -> Result<(), RepoError> {
        let path = path(repo);
        add(&path, [snapshot].iter()).map_err(|source| RepoError::Local { path, source })
    }

    /// From now on `listed` is what is known, and what others noted since this was read.
    pub fn replace(&self, repo: &Repository, listed: &HashSet<SnapshotId>) -> Result<(), RepoError> {
        let path = path(repo);
        rewrite(&path, &self.0, listed).map_err(|source| RepoError::Local { path, source })
    }
}

fn read(folder: &Path) -> io::Result<HashSet<SnapshotId>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(HashSet::new()),
        Err(error) => return Err(error),
    };
    let mut known = HashSet::new();
    for entry in entries {
        known.extend(entry?.file_name().to_str().and_then(|name| name.parse::<SnapshotId>().ok()));
    }
    Ok(known)
}

fn add<'a>(folder: &Path, snapshots: impl Iterator<Item = &'a SnapshotId>) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    for snapshot in snapshots {
        let name = folder.join(snapshot.to_string());
        File::options().create(true).append(true).mode(0o600).open(name)?;
    }
    File::open(folder)?.sync_all()
}

fn rewrite(folder: &Path, known: &HashSet<SnapshotId>, listed: &HashSet<SnapshotId>) -> io::Result<()> {
    for gone in known.difference(listed) {
        match fs::remove_file(folder.join(gone.to_string())) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    add(folder, listed.difference(known))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(numbers: &[u8]) -> HashSet<SnapshotId> {
        numbers.iter().map(|number| SnapshotId::new([*number; 32])).collect()
    }

    #[test]
    fn what_was_noted_meanwhile_stays_and_what_is_no_name_is_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("below").join(NAME);
        assert!(read(&folder).unwrap().is_empty());
        add(&folder, ids(&[1, 2]).iter()).unwrap();
        fs::write(folder.join("something else"), b"").unwrap();
        let known = read(&folder).unwrap();
        assert_eq!(known, ids(&[1, 2]));
        add(&folder, ids(&[3]).iter()).unwrap();
        rewrite(&folder, &known, &ids(&[2, 4])).unwrap();
        assert_eq!(read(&folder).unwrap(), ids(&[2, 3, 4]), "1 is gone and 3 came meanwhile");
        rewrite(&folder, &known, &ids(&[2, 4])).unwrap();
    }

    #[test]
    fn jobs_that_end_together_lose_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join(NAME);
        std::thread::scope(|scope| {
            for job in 0..8_u8 {
                let folder = &folder;
                scope.spawn(move || {
                    for number in 0..4 {
                        add(folder, ids(&[job * 4 + number]).iter()).unwrap();
                        rewrite(folder, &HashSet::new(), &HashSet::new()).unwrap();
                    }
                });
            }
        });
        assert_eq!(read(&folder).unwrap().len(), 32);
    }
}
