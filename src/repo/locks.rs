//! Locks that last as long as they are needed: what a new snapshot depends on is locked anew before it is acknowledged.
//!
//! An object's lock begins when it is stored, and a listing tells when that was, so only those whose time is half over are
//! asked for again. What this machine has locked again it notes, so that an unchanged backup asks for little.
//!
//! # Crash
//! Some objects are locked longer than need be. A note that is lost or damaged costs requests, nothing else.

use std::collections::{HashMap, HashSet};
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;

use futures::{StreamExt, TryStreamExt};

use super::error::RepoError;
use super::open::Repository;
use crate::clock::{Timestamp, later};
use crate::crypto::object_hash;
use crate::event::Event;
use crate::format::layout::{self, ObjectName};
use crate::format::rights::LOCKED_ANEW;
use crate::id::{ObjectHash, PackId, SnapshotId};
use crate::random::random_array;
use crate::store::Key;

/// A row of the note: hash of an object's name, end of its lock.
const ROW: usize = 40;
/// Most bytes of the note that are read: 1.6 million objects.
const NOTE_MAX: u64 = 64 << 20;

/// What is known of locks without asking for each: a lower bound of their ends.
#[derive(Debug, Default)]
struct LockNotes {
    ends: HashMap<ObjectHash, Timestamp>,
}

impl LockNotes {
    fn path(repo: &Repository) -> PathBuf {
        repo.env.places.state.join(repo.id().to_string()).join("locks")
    }

    fn load(repo: &Repository) -> Self {
        let path = Self::path(repo);
        let small = fs::metadata(&path).is_ok_and(|metadata| metadata.len() <= NOTE_MAX);
        let bytes = if small { fs::read(&path).unwrap_or_default() } else { Vec::new() };
        Self::decode(&bytes)
    }

    fn decode(bytes: &[u8]) -> Self {
        let row = |row: &[u8]| {
            let (hash, end) = row.split_first_chunk::<32>()?;
            let end = i64::from_le_bytes(end.try_into().ok()?);
            Some((ObjectHash::new(*hash), Timestamp(end)))
        };
        Self { ends: bytes.chunks_exact(ROW).filter_map(row).collect() }
    }

    fn encode(&self) -> Vec<u8> {
        let row = |(hash, end): (&ObjectHash, &Timestamp)| {
            hash.as_bytes().iter().copied().chain(end.0.to_le_bytes()).collect::<Vec<u8>>()
        };
        self.ends.iter().flat_map(row).collect()
    }

    /// Replaces the note. Of two runs that do so at once one wins, and the other's objects are locked again some day.
    fn store(&self, repo: &Repository) -> io::Result<()> {
        let path = Self::path(repo);
        if let Some(parent) = path.parent() {
            DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
        }
        let suffix = u64::from_le_bytes(random_array(&*repo.env.random).map_err(io::Error::other)?);
        let new = path.with_extension(format!("{suffix:016x}"));
        let written = fs::write(&new, self.encode()).and_then(|()| fs::rename(&new, &path));
        if written.is_err() {
            let _ = fs::remove_file(&new);
        }
        written
    }

    /// What an object is called in the note.
    fn name(key: &Key) -> ObjectHash {
        object_hash(key.as_str().as_bytes())
    }

    /// When the lock of an object ends by what was noted; long ago, if nothing was.
    fn end(&self, key: &Key) -> Timestamp {
        self.ends.get(&Self::name(key)).copied().unwrap_or(Timestamp(i64::MIN))
    }
}

/// An object with a lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Locked {
    /// Its name.
    pub key: Key,
    /// When its lock ends, at the earliest.
    pub end: Timestamp,
}

impl Repository {
    /// What these snapshots depend on that need these packs: they and the packs, all index objects, and what the repository is
    /// opened with; with the ends of their locks as far as they are known without asking. Nothing where nothing is locked.
    pub async fn locked(
        &self,
        packs: &HashSet<PackId>,
        snapshots: &HashSet<SnapshotId>,
    ) -> Result<Vec<Locked>, RepoError> {
        let Some(lock) = self.store.lock() else { return Ok(Vec::new()) };
        let notes = LockNotes::load(self);
        let mut found = Vec::new();
        // Logs are many, and only base backups need some of them: whoever asks for those adds them.
        for room in LOCKED_ANEW.into_iter().filter(|room| *room != layout::STREAMS) {
            for object in self.store.list(room).await? {
                let is_needed = ObjectName::parse(object.key.as_str()).is_some_and(|name| match name {
                    ObjectName::Pack(pack) => packs.contains(&pack),
                    ObjectName::Snapshot(_, _, id) | ObjectName::Confirmation(_, _, id) => {
                        snapshots.contains(&id)
                    }
                    _ => true,
                });
                if is_needed {
                    let end = later(object.modified, lock.period()).max(notes.end(&object.key));
                    found.push(Locked { key: object.key, end });
                }
            }
        }
        Ok(found)
    }

    /// Locks anew what a snapshot depends on that needs these packs and follows these snapshots, as far as it is not locked for
    /// half of the time any more; says how much that was. The snapshot itself was stored a moment ago, and is locked as long.
    ///
    /// # Errors
    /// What the store says. The snapshot must not be acknowledged then.
    pub async fn extend_locks(
        &self,
        packs: &HashSet<PackId>,
        parents: &HashSet<SnapshotId>,
    ) -> Result<u64, RepoError> {
        let Some(lock) = self.store.lock() else { return Ok(0) };
        let now = self.env.clock.now();
        let (half, whole) = (later(now, lock.period() / 2), later(now, lock.period()));
        let mut short = self.locked(packs, parents).await?;
        short.retain(|locked| locked.end < half);
        if short.is_empty() {
            return Ok(0);
        }
        let requests = futures::stream::iter(&short).map(async |locked| {
            match self.store.retain(&locked.key, whole).await {
                Ok(()) => Ok(()),
                Err(_) if self.is_replaced(&locked.key).await? => Ok(()),
                Err(error) => Err(RepoError::from(error)),
            }
        });
        requests.buffer_unordered(self.env.limits.requests.max(1)).try_collect::<()>().await?;
        let mut notes = LockNotes::load(self);
        notes.ends.retain(|_, end| *end > now);
        notes.ends.extend(short.iter().map(|locked| (LockNotes::name(&locked.key), whole)));
        if let Err(error) = notes.store(self) {
            let message = format!("the next backup will lock again what this one did: {error}");
            self.env.observer.observe(&Event::Warning { message: &message });
        }
        Ok(short.len() as u64)
    }

    /// Whether this is gone because a collection, or whoever gives keys, put something else in its place. A pack or a snapshot that
    /// is needed never is.
    async fn is_replaced(&self, key: &Key) -> Result<bool, RepoError> {
        use ObjectName::{Confirmation, Pack, Snapshot};
        if let Some(Pack(..) | Snapshot(..) | Confirmation(..)) = ObjectName::parse(key.as_str()) {
            return Ok(false);
        }
        let room = key.as_str().rfind('/').map_or("", |end| &key.as_str()[..=end]);
        Ok(!self.store.list(room).await?.iter().any(|object| object.key == *key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_comes_back_and_a_damaged_one_says_less() {
        let hash = |n: u8| ObjectHash::new([n; 32]);
        let notes = LockNotes { ends: [(hash(1), Timestamp(5)), (hash(2), Timestamp(-1))].into() };
        let bytes = notes.encode();
        assert_eq!(LockNotes::decode(&bytes).ends, notes.ends);
        for cut in 0..bytes.len() {
            assert!(LockNotes::decode(&bytes[..cut]).ends.len() <= 1, "{cut}");
        }
    }
}
