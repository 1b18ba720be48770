//! The snapshots that this machine knows to be confirmed, in its local state: those its runs confirmed and those its
//! collections listed. One that is gone without a removal means that a listing cannot be trusted.
//!
//! # Invariants
//! Runs of several jobs and a collection may use the file at the same time: whoever changes it holds its lock, and what was
//! noted since a collection read it stays.
//!
//! # Crash
//! A torn last line is passed over. Losing the file loses the comparison with earlier times, nothing else.

use std::collections::HashSet;
use std::fs::{self, DirBuilder, File};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::error::RepoError;
use super::open::Repository;
use crate::id::SnapshotId;

const NAME: &str = "snapshots-seen";

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
        append(&path, snapshot).map_err(|source| RepoError::Local { path, source })
    }

    /// From now on `listed` is what is known, and what others noted since this was read.
    pub fn replace(&self, repo: &Repository, listed: &HashSet<SnapshotId>) -> Result<(), RepoError> {
        let path = path(repo);
        rewrite(&path, &self.0, listed).map_err(|source| RepoError::Local { path, source })
    }
}

fn read(path: &Path) -> io::Result<HashSet<SnapshotId>> {
    match fs::read(path) {
        // A line without its end was torn.
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes)
            .split_inclusive('\n')
            .filter_map(|line| line.strip_suffix('\n')?.parse().ok())
            .collect()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(HashSet::new()),
        Err(error) => Err(error),
    }
}

/// Holds the lock until it is dropped.
fn lock(path: &Path) -> io::Result<File> {
    if let Some(folder) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    let lock = path.with_extension("lock");
    let file = File::options().create(true).truncate(false).write(true).mode(0o600).open(lock)?;
    rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive)?;
    Ok(file)
}

fn append(path: &Path, snapshot: SnapshotId) -> io::Result<()> {
    let _lock = lock(path)?;
    let mut file = File::options().create(true).append(true).mode(0o600).open(path)?;
    // The empty line ends one that was torn.
    file.write_all(format!("\n{snapshot}\n").as_bytes())?;
    file.sync_data()
}

fn rewrite(path: &Path, known: &HashSet<SnapshotId>, listed: &HashSet<SnapshotId>) -> io::Result<()> {
    let _lock = lock(path)?;
    let now = read(path)?;
    let kept: HashSet<&SnapshotId> = now.difference(known).chain(listed).collect();
    let mut lines: Vec<_> = kept.into_iter().map(|id| format!("{id}\n")).collect();
    lines.sort_unstable();
    let fresh = path.with_extension("new");
    let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
    file.write_all(lines.concat().as_bytes())?;
    file.sync_data()?;
    fs::rename(&fresh, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(numbers: &[u8]) -> HashSet<SnapshotId> {
        numbers.iter().map(|number| SnapshotId::new([*number; 32])).collect()
    }

    #[test]
    fn what_was_noted_meanwhile_stays_and_a_torn_line_harms_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("below").join(NAME);
        assert!(read(&path).unwrap().is_empty());
        for id in ids(&[1, 2]) {
            append(&path, id).unwrap();
        }
        let known = read(&path).unwrap();
        assert_eq!(known, ids(&[1, 2]));
        append(&path, SnapshotId::new([3; 32])).unwrap();
        rewrite(&path, &known, &ids(&[2, 4])).unwrap();
        assert_eq!(read(&path).unwrap(), ids(&[2, 3, 4]), "1 is gone and 3 came meanwhile");

        let len = fs::metadata(&path).unwrap().len();
        File::options().write(true).open(&path).unwrap().set_len(len - 5).unwrap();
        assert_eq!(read(&path).unwrap().len(), 2);
        append(&path, SnapshotId::new([5; 32])).unwrap();
        assert!(read(&path).unwrap().contains(&SnapshotId::new([5; 32])));
        assert_eq!(read(&path).unwrap().len(), 3);
    }

    #[test]
    fn jobs_that_end_together_lose_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(NAME);
        std::thread::scope(|scope| {
            for job in 0..8 {
                let path = &path;
                scope.spawn(move || {
                    for number in 0..4 {
                        append(path, SnapshotId::new([job * 4 + number; 32])).unwrap();
                        rewrite(path, &HashSet::new(), &HashSet::new()).unwrap();
                    }
                });
            }
        });
        assert_eq!(read(&path).unwrap().len(), 32);
    }
}
