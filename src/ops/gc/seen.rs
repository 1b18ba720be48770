//! The snapshots a collector saw last time, in its local state: one that vanished without a removal means that the listing
//! cannot be trusted.
//!
//! # Crash
//! The file is replaced whole. Losing it loses the comparison with last time, nothing else.

use std::collections::HashSet;
use std::fs;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::id::SnapshotId;
use crate::repo::Repository;

const NAME: &str = "snapshots-seen";

/// Snapshots seen before.
#[derive(Debug, Default)]
pub(super) struct SeenSnapshots(Vec<SnapshotId>);

fn place(repo: &Repository) -> PathBuf {
    repo.env().places.state.join(repo.id().to_string())
}

impl SeenSnapshots {
    /// Those of last time; none if there was no last time. What is not a name is passed over.
    pub(super) fn load(repo: &Repository) -> Result<Self, Error> {
        let path = place(repo).join(NAME);
        match fs::read(&path) {
            Ok(bytes) => {
                let text = String::from_utf8_lossy(&bytes);
                Ok(Self(text.lines().filter_map(|line| line.parse().ok()).collect()))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Self::default()),
            Err(source) => Err(Error::Local { path, source }),
        }
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = &SnapshotId> {
        self.0.iter()
    }

    /// Replaces what is remembered.
    pub(super) fn save(repo: &Repository, seen: &HashSet<SnapshotId>) -> Result<(), Error> {
        let folder = place(repo);
        let path = folder.join(NAME);
        let written = write(&folder, &path, seen);
        written.map_err(|source| Error::Local { path, source })
    }
}

fn write(folder: &Path, path: &Path, seen: &HashSet<SnapshotId>) -> std::io::Result<()> {
    fs::create_dir_all(folder)?;
    let mut names: Vec<_> = seen.iter().map(|id| format!("{id}\n")).collect();
    names.sort_unstable();
    let fresh = path.with_extension("new");
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
    file.write_all(names.concat().as_bytes())?;
    file.sync_data()?;
    fs::rename(&fresh, path)
}
