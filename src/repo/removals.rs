//! Removals: which snapshots are gone because a maintainer removed them, or are about to go.
//!
//! # Invariants
//! A removal that another one replaces says nothing. What is said of a snapshot that is gone is never unsaid: whoever deletes
//! a removal that names one has put another before, which names it too and replaces the first. Objects that replace form no
//! circle, since each holds the hashes of what it replaces.

use std::collections::{BTreeSet, HashSet};

use bytes::Bytes;

use super::create::sign;
use super::error::RepoError;
use super::load::Problem;
use super::open::{Repository, object_key};
use crate::clock::Timestamp;
use crate::format::envelope::{ChunkKind, ObjectKind, Preamble};
use crate::format::gc::Removal;
use crate::format::layout::{self, ObjectName};
use crate::format::signed::signed_message;
use crate::id::{ObjectHash, SnapshotId};

/// How often removals, or trims, are listed until none goes away that was listed, and until nothing is missed.
pub(super) const LOOKS: usize = 4;

/// A removal as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRemoval {
    /// Its name.
    pub hash: ObjectHash,
    /// What it says.
    pub removal: Removal,
    /// When the store got it.
    pub stored: Timestamp,
}

/// The removals that one listing showed.
#[derive(Debug, Default)]
pub struct Removals {
    /// Those that count.
    pub standing: Vec<StoredRemoval>,
    /// Those that others replace, and that are there all the same.
    pub replaced: Vec<StoredRemoval>,
}

impl Removals {
    fn of(all: Vec<StoredRemoval>) -> Self {
        let said: HashSet<ObjectHash> =
            all.iter().flat_map(|stored| stored.removal.replaces.iter().copied()).collect();
        let (replaced, standing) = all.into_iter().partition(|stored| said.contains(&stored.hash));
        Self { standing, replaced }
    }

    /// The snapshots that are removed, or about to be.
    pub fn snapshots(&self) -> impl Iterator<Item = &SnapshotId> {
        self.standing.iter().flat_map(|stored| &stored.removal.snapshots)
    }

    /// Everything that is there, replaced or not.
    pub fn all(&self) -> impl Iterator<Item = &StoredRemoval> {
        self.standing.iter().chain(&self.replaced)
    }
}

/// A removal that is signed and not put yet.
#[derive(Debug)]
pub struct NewRemoval {
    hash: ObjectHash,
    bytes: Bytes,
}

impl NewRemoval {
    /// Its name.
    pub fn hash(&self) -> ObjectHash {
        self.hash
    }
}

impl Repository {
    /// All removals. If one goes away after it was listed, removals are listed again: what it said may stand in another one,
    /// which was put before that.
    pub async fn removals(&self, problems: &mut Vec<Problem>) -> Result<Removals, RepoError> {
        let said = self.said_whole::<Removal>(layout::REMOVED, problems).await?;
        let stored = said.into_iter().filter_map(|(name, removal, stored)| match name {
            ObjectName::Removed(hash) => Some(StoredRemoval { hash, removal, stored }),
            _ => None,
        });
        Ok(Removals::of(stored.collect()))
    }

    /// Of these snapshots, which a listing did not show, those that no removal names. A listing of removals that takes long
    /// may show neither of two of which one took the other's place meanwhile, so what is missed is looked for again.
    pub async fn not_removed(
        &self,
        gone: impl IntoIterator<Item = SnapshotId>,
    ) -> Result<BTreeSet<SnapshotId>, RepoError> {
        let mut missing: BTreeSet<SnapshotId> = gone.into_iter().collect();
        for _ in 0..LOOKS {
            if missing.is_empty() {
                break;
            }
            for snapshot in self.removals(&mut Vec::new()).await?.snapshots() {
                missing.remove(snapshot);
            }
        }
        Ok(missing)
    }

    /// Says that these snapshots will be deleted now. Holds and undos must be listed after this.
    pub async fn put_removal(&self, snapshots: Vec<SnapshotId>) -> Result<ObjectHash, RepoError> {
        self.replace_removals(snapshots, Vec::new()).await
    }

    /// Puts a removal in the place of others, which say nothing any more from now on. Whoever puts it knows that nobody
    /// deletes a snapshot on account of what they said and this one does not say.
    pub async fn replace_removals(
        &self,
        snapshots: Vec<SnapshotId>,
        replaces: Vec<ObjectHash>,
    ) -> Result<ObjectHash, RepoError> {
        let removal = self.new_removal(snapshots, replaces)?;
        let hash = removal.hash();
        self.put_new_removal(removal).await?;
        Ok(hash)
    }

    /// Signs a removal that is still to be put: whoever must be able to take it away, also if its put fails and has its effect all
    /// the same, knows its name before.
    pub fn new_removal(
        &self,
        snapshots: Vec<SnapshotId>,
        replaces: Vec<ObjectHash>,
    ) -> Result<NewRemoval, RepoError> {
        let (author, key) = self.maintainer()?;
        let removal = Removal { author, snapshots, nonce: self.nonce()?, replaces };
        let preamble = Preamble::new(ObjectKind::Removal, ChunkKind::Data, self.id());
        let (bytes, hash) = sign(signed_message(preamble, &removal.encode()), &key);
        Ok(NewRemoval { hash, bytes })
    }

    /// Puts it.
    pub async fn put_new_removal(&self, removal: NewRemoval) -> Result<(), RepoError> {
        Ok(self.store.put(&object_key(ObjectName::Removed(removal.hash))?, vec![removal.bytes]).await?)
    }
}
