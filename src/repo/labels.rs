//! Tags given to a snapshot after it was made.
//!
//! # Invariants
//! Labels count if a maintainer or the snapshot's own writer signed them. A maintainer's win over a writer's, whatever their
//! numbers; then the highest number wins, and of equal ones the higher hash, so that everybody who sees the same listing sees
//! the same tags.

use std::collections::HashMap;

use super::create::sign_and_put;
use super::error::RepoError;
use super::open::Repository;
use super::snapshots::Listed;
use crate::crypto::{object_hash, object_salt};
use crate::format::config::Authority;
use crate::format::envelope::ChunkKind;
use crate::format::labels::{LABELS, Labels, LabelsObject};
use crate::format::layout::{self, ObjectName};
use crate::format::sealed::SealedObject;
use crate::id::{ObjectHash, SnapshotId, WriterId};

/// Labels that were read and whose signature is right; whether they count, [`Repository::may_label`] says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredLabels {
    /// Their name ends in this.
    pub hash: ObjectHash,
    /// Who signed them.
    pub author: WriterId,
    /// What they say.
    pub labels: Labels,
}

/// What decides between labels of one snapshot: the greater one counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct LabelsRank {
    /// Whether a maintainer signed them.
    pub by_maintainer: bool,
    /// Their number.
    pub number: u64,
    /// Their name ends in this.
    pub hash: ObjectHash,
}

impl Repository {
    /// The rank of labels among those of their snapshot.
    pub fn rank_labels(&self, stored: &StoredLabels) -> LabelsRank {
        let by_maintainer = self.is_maintainer(&stored.author);
        LabelsRank { by_maintainer, number: stored.labels.number, hash: stored.hash }
    }

    /// The number that labels by this key need so as to count before those of this rank.
    ///
    /// # Errors
    /// [`RepoError::RoleForbids`] if it is a writer's and those are a maintainer's.
    pub fn number_after(&self, counting: Option<&LabelsRank>) -> Result<u64, RepoError> {
        let by_maintainer = self.is_maintainer(&self.writer()?.0);
        match counting {
            Some(rank) if rank.by_maintainer && !by_maintainer => {
                Err(RepoError::RoleForbids { action: "change tags that a maintainer gave" })
            }
            // Its own begin anew: a writer cannot have taken the last number there is.
            Some(rank) if rank.by_maintainer != by_maintainer => Ok(0),
            Some(rank) => Ok(rank.number.saturating_add(1)),
            None => Ok(0),
        }
    }

    /// The names of all labels, by snapshot.
    pub async fn list_labels(&self) -> Result<HashMap<SnapshotId, Vec<ObjectHash>>, RepoError> {
        let mut found: HashMap<_, Vec<_>> = HashMap::new();
        for object in self.store.list(layout::LABELS).await? {
            if let Some(ObjectName::Labels(snapshot, hash)) = ObjectName::parse(object.key.as_str()) {
                found.entry(snapshot).or_default().push(hash);
            }
        }
        Ok(found)
    }

    /// Whether labels by this author count for a snapshot of this writer.
    pub fn may_label(&self, author: WriterId, snapshot_writer: WriterId) -> bool {
        match self.authority(&author) {
            Some(Authority::Maintainer) => true,
            Some(Authority::Writer) => author == snapshot_writer,
            Some(Authority::Verifier) | None => false,
        }
    }

    /// Checks who signed labels; a key that does not open them can do so.
    pub async fn check_labels(&self, name: ObjectName) -> Result<(), RepoError> {
        let key = name.key();
        let bytes = self.get_object(name, LABELS.max as u64).await?;
        let object = LabelsObject::decode(&bytes, &self.id()).map_err(RepoError::at(&key))?;
        let sealed = &object.sealed;
        self.verify(&key, (object.author, Authority::Writer), sealed.message, &sealed.signature)
    }

    /// Reads labels: hash, signature, body.
    pub async fn read_labels(&self, name: ObjectName) -> Result<StoredLabels, RepoError> {
        let key = name.key();
        let ObjectName::Labels(snapshot, hash) = name else { return Err(RepoError::BadSignature { key }) };
        let bytes = self.get_object(name, LABELS.max as u64).await?;
        let object = LabelsObject::decode(&bytes, &self.id()).map_err(RepoError::at(&key))?;
        let body = self.open_sealed(&key, object.author, &object.sealed)?;
        let labels = Labels::decode_body(&body).map_err(RepoError::at(&key))?;
        if labels.snapshot != snapshot {
            return Err(RepoError::BadSignature { key });
        }
        Ok(StoredLabels { hash, author: object.author, labels })
    }

    /// Seals, signs and puts labels for a snapshot.
    ///
    /// # Errors
    /// [`RepoError::RoleForbids`] unless this key is a maintainer's or the snapshot's writer's; [`RepoError::Format`] if
    /// there are more tags, or longer ones, than a reader accepts.
    pub async fn put_labels(
        &self,
        snapshot: &Listed,
        (number, tags): (u64, Vec<String>),
    ) -> Result<StoredLabels, RepoError> {
        let (author, signing) = self.writer()?;
        if !self.may_label(author, snapshot.writer) {
            return Err(RepoError::RoleForbids { action: "tag snapshots of others" });
        }
        let labels = Labels { snapshot: snapshot.id, number, tags };
        labels.check()?;
        let keys = self.new_run_keys()?;
        let mut body = labels.encode_body();
        let key = keys.key(ChunkKind::Tree).base();
        let salt = object_salt(key, &*self.env.random, &object_hash(&body))?;
        self.seal_body(LABELS, (&keys, &salt), &mut body)?;
        let sealed = SealedObject::unsigned(LABELS, salt, keys.sealed(ChunkKind::Tree), &body);
        let message = LabelsObject { author, sealed }.encode_unsigned(self.id());
        let named = |hash| ObjectName::Labels(snapshot.id, hash);
        let hash = sign_and_put(&self.store, message, &signing, named).await?;
        Ok(StoredLabels { hash, author, labels })
    }
}

#[cfg(test)]
mod tests;
