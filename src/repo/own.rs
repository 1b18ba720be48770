//! The snapshots of this machine's own runs, as they were stored, for a key that cannot open them in the store: what a
//! writer knows of its past it has from its own disk.
//!
//! # Invariants
//! One file a snapshot, named by its id and sealed with the local-state key. In it stands the object's whole name, so a file
//! under another name says nothing.
//!
//! # Crash
//! A file is there or not; one that is torn is passed over. Losing it costs seeing the snapshot's name here.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::PathBuf;

use super::error::RepoError;
use super::open::Repository;
use super::seen::SeenSnapshots;
use super::snapshots::Listed;
use crate::crypto::{ObjectSealer, SecretKey, context, object_hash, object_salt};
use crate::format::envelope::ObjectKind;
use crate::format::snapshot::{SNAPSHOT, Snapshot};
use crate::format::wire::Reader;
use crate::id::SnapshotId;

/// What this machine remembers of its own snapshots.
pub struct OwnSnapshots<'a> {
    repo: &'a Repository,
    folder: PathBuf,
    key: SecretKey,
}

impl<'a> OwnSnapshots<'a> {
    /// Those of a repository whose snapshots this key cannot open; `None` for a key that needs no such memory, or cannot seal
    /// it.
    pub fn of(repo: &'a Repository) -> Option<Self> {
        if repo.secrets.metadata.is_some() {
            return None;
        }
        let folder = repo.env.places.state.join(repo.id().to_string()).join("own");
        Some(Self { repo, folder, key: repo.dedup_key(context::LOCAL_STATE).ok()? })
    }

    /// Remembers a snapshot that was just stored under this name.
    pub fn note(&self, listed: &Listed, snapshot: &Snapshot) -> Result<(), RepoError> {
        let mut plain = listed.name().key().into_bytes();
        let mut out = (plain.len() as u32).to_le_bytes().to_vec();
        out.append(&mut plain);
        out.extend_from_slice(&snapshot.encode_body());
        let salt = object_salt(&self.key, &*self.repo.env.random, &object_hash(&out))?;
        self.sealer(&salt).seal_block(0, 1, &mut out)?;
        let path = self.folder.join(listed.id.to_string());
        self.write(&path, &salt, &out).map_err(|source| RepoError::Local { path, source })
    }

    fn write(&self, path: &std::path::Path, salt: &[u8; 32], sealed: &[u8]) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
        let mut file = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(path)?;
        file.write_all(salt)?;
        file.write_all(sealed)?;
        file.sync_all()
    }

    /// What was remembered of this snapshot.
    pub fn get(&self, listed: &Listed) -> Option<Snapshot> {
        let path = self.folder.join(listed.id.to_string());
        if fs::metadata(&path).ok()?.len() > SNAPSHOT.max as u64 {
            return None;
        }
        let bytes = fs::read(path).ok()?;
        let (salt, sealed) = bytes.split_first_chunk::<32>()?;
        let mut plain = sealed.to_vec();
        self.sealer(salt).open_block(0, 1, &mut plain).ok()?;
        let mut reader = Reader::new(&plain);
        let len = reader.u32().ok()? as usize;
        let named = reader.bytes(len).ok()? == listed.name().key().as_bytes();
        let body = reader.bytes(reader.remaining()).ok()?;
        Snapshot::decode_body(body).ok().filter(|_| named)
    }

    /// Forgets those that are not in this listing any more, unless they are missed: a store that shows an older state must not
    /// cost what nobody can make again. What cannot be removed is tried again with the next listing.
    pub fn keep(&self, listed: &[Listed]) {
        let Ok(entries) = fs::read_dir(&self.folder) else { return };
        let Ok(seen) = SeenSnapshots::load(self.repo) else { return };
        let listed: std::collections::HashSet<_> = listed.iter().map(|listed| listed.id).collect();
        for entry in entries.filter_map(Result::ok) {
            let id = entry.file_name().to_str().and_then(|name| name.parse::<SnapshotId>().ok());
            if id.is_some_and(|id| !listed.contains(&id) && !seen.contains(&id))
                && let Err(error) = fs::remove_file(entry.path())
                && error.kind() != ErrorKind::NotFound
            {
                return;
            }
        }
    }

    fn sealer(&self, salt: &[u8; 32]) -> ObjectSealer {
        ObjectSealer::new(&self.key, salt, self.repo.id(), ObjectKind::LocalState)
    }
}
