//! The snapshots that this machine knows to be confirmed, in its local state: those its runs confirmed and those whose
//! confirmation its collections checked. One that is gone without a removal means that a listing cannot be trusted; it is
//! missed also if its confirmation went before it.
//!
//! # Invariants
//! One file a snapshot, named by its id, with its key in it: runs of several jobs and a collection may use them at the same time without a
//! lock, and one that was stopped in the middle makes nobody wait.
//!
//! # Crash
//! Some names are there, others are not. Losing them loses the comparison with earlier times, nothing else.

use std::collections::HashSet;
use std::fs::{self, DirBuilder, File};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::error::RepoError;
use super::open::Repository;
use super::snapshots::Listed;
use crate::format::layout::ObjectName;
use crate::id::{SnapshotId, WriterId};

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

    /// Whether this one was known.
    pub fn contains(&self, snapshot: &SnapshotId) -> bool {
        self.0.contains(snapshot)
    }

    /// Notes one more: writer, number, id. Durable when it returns.
    pub fn note(
        repo: &Repository,
        (writer, sequence, id): (WriterId, u64, SnapshotId),
    ) -> Result<(), RepoError> {
        let path = path(repo);
        let key = ObjectName::Snapshot(writer, sequence, id).key();
        add(&path, [(id, key)]).map_err(|source| RepoError::Local { path, source })
    }

    /// Whether a snapshot is known under just this name: then its writer signed it so. False says nothing.
    pub fn is_noted(repo: &Repository, listed: &Listed) -> bool {
        let noted = fs::read(path(repo).join(listed.id.to_string()));
        noted.is_ok_and(|noted| noted == listed.name().key().as_bytes())
    }

    /// Forgets those that were removed and notes those that are new; whatever else is known stays.
    pub fn update(repo: &Repository, removed: &[SnapshotId], new: &[Listed]) -> Result<(), RepoError> {
        let path = path(repo);
        let new = new.iter().map(|listed| (listed.id, listed.name().key()));
        remove(&path, removed)
            .and_then(|()| add(&path, new))
            .map_err(|source| RepoError::Local { path, source })
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

fn add(folder: &Path, snapshots: impl IntoIterator<Item = (SnapshotId, String)>) -> io::Result<()> {
    make(folder)?;
    for (snapshot, key) in snapshots {
        let name = folder.join(snapshot.to_string());
        // The name is what counts. A key that did not become durable with it costs reading the snapshot once.
        File::options()
            .create(true)
            .write(true)
            .truncate(true)
            .mode(0o600)
            .open(name)?
            .write_all(key.as_bytes())?;
    }
    File::open(folder)?.sync_all()
}

/// Makes the directory, and each above it that is not there, durable.
fn make(folder: &Path) -> io::Result<()> {
    let missing: Vec<&Path> = folder.ancestors().take_while(|above| !above.exists()).collect();
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    for made in missing.into_iter().rev() {
        let above = made.parent().filter(|above| !above.as_os_str().is_empty());
        File::open(above.unwrap_or(Path::new(".")))?.sync_all()?;
    }
    Ok(())
}

fn remove(folder: &Path, snapshots: &[SnapshotId]) -> io::Result<()> {
    for gone in snapshots {
        match fs::remove_file(folder.join(gone.to_string())) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(numbers: &[u8]) -> Vec<SnapshotId> {
        numbers.iter().map(|number| SnapshotId::new([*number; 32])).collect()
    }

    fn named(numbers: &[u8]) -> Vec<(SnapshotId, String)> {
        ids(numbers).into_iter().map(|id| (id, id.to_string())).collect()
    }

    fn known(folder: &Path) -> Vec<SnapshotId> {
        let mut known: Vec<_> = read(folder).unwrap().into_iter().collect();
        known.sort_unstable();
        known
    }

    #[test]
    fn what_was_noted_meanwhile_stays_and_what_is_no_name_is_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("below").join(NAME);
        assert!(known(&folder).is_empty());
        remove(&folder, &ids(&[1])).unwrap();
        add(&folder, named(&[1, 2])).unwrap();
        fs::write(folder.join("something else"), b"").unwrap();
        assert_eq!(known(&folder), ids(&[1, 2]));
        add(&folder, named(&[2, 3])).unwrap();
        remove(&folder, &ids(&[1])).unwrap();
        add(&folder, named(&[4])).unwrap();
        assert_eq!(known(&folder), ids(&[2, 3, 4]), "1 is gone and 3 came meanwhile");
        remove(&folder, &ids(&[1])).unwrap();
        assert_eq!(
            fs::read(folder.join(ids(&[2])[0].to_string())).unwrap(),
            ids(&[2])[0].to_string().as_bytes()
        );
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
                        add(folder, named(&[job * 4 + number])).unwrap();
                        remove(folder, &[]).unwrap();
                    }
                });
            }
        });
        assert_eq!(read(&folder).unwrap().len(), 32);
    }
}
