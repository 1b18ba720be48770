//! Snapshots as they are stored: listing them, writing and reading one.

use std::collections::HashSet;

use super::create::{put_signed, sign_and_put};
use super::error::RepoError;
use super::keys::RunKeys;
use super::open::Repository;
use crate::clock::Timestamp;
use crate::crypto::{object_hash, object_salt};
use crate::format::config::Authority;
use crate::format::envelope::{ChunkKind, ObjectKind};
use crate::format::layout::{self, ObjectName};
use crate::format::sealed::SealedObject;
use crate::format::signed::{SIGNED_MAX, Signed};
use crate::format::snapshot::{Confirmation, SNAPSHOT, Snapshot, SnapshotObject};
use crate::id::{ObjectHash, SnapshotId, WriterId};

/// A snapshot's name, as a listing shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listed {
    /// Who wrote it.
    pub writer: WriterId,
    /// Its number among the writer's snapshots.
    pub sequence: u64,
    /// Its name.
    pub id: SnapshotId,
    /// Whether a confirmation stands beside it.
    pub confirmed: bool,
    /// When the store got it.
    pub stored: Timestamp,
}

impl Listed {
    /// Its name.
    pub fn name(&self) -> ObjectName {
        ObjectName::Snapshot(self.writer, self.sequence, self.id)
    }

    /// The name of its confirmation.
    pub fn confirmation(&self) -> ObjectName {
        ObjectName::Confirmation(self.writer, self.sequence, self.id)
    }
}

/// A snapshot that was read and verified.
#[derive(Debug, Clone)]
pub struct StoredSnapshot {
    /// Where it stands.
    pub listed: Listed,
    /// What it says.
    pub snapshot: Snapshot,
}

impl Repository {
    /// All snapshots, in the order of their names; a removed one is not listed.
    pub async fn list_snapshots(&self) -> Result<Vec<Listed>, RepoError> {
        self.list_snapshots_below(layout::SNAPSHOTS).await
    }

    /// All snapshots of one writer.
    pub async fn list_snapshots_of(&self, writer: WriterId) -> Result<Vec<Listed>, RepoError> {
        self.list_snapshots_below(&format!("{}{writer}/", layout::SNAPSHOTS)).await
    }

    async fn list_snapshots_below(&self, prefix: &str) -> Result<Vec<Listed>, RepoError> {
        let mut found = Vec::new();
        let mut confirmed = HashSet::new();
        for object in self.store.list(prefix).await? {
            match ObjectName::parse(object.key.as_str()) {
                Some(ObjectName::Snapshot(writer, sequence, id)) => {
                    found.push(Listed { writer, sequence, id, confirmed: false, stored: object.modified });
                }
                Some(ObjectName::Confirmation(writer, sequence, id)) => {
                    confirmed.insert((writer, sequence, id));
                }
                _ => {}
            }
        }
        for listed in &mut found {
            listed.confirmed = confirmed.contains(&(listed.writer, listed.sequence, listed.id));
        }
        Ok(found)
    }

    /// Reads a snapshot: hash, signature, body.
    pub async fn read_snapshot(&self, listed: Listed) -> Result<StoredSnapshot, RepoError> {
        match self.read_body(listed).await {
            Err(RepoError::BadSignature { .. }) => {
                // Its writer may have been registered since.
                self.refresh_registry().await?;
                self.read_body(listed).await
            }
            read => read,
        }
    }

    async fn read_body(&self, listed: Listed) -> Result<StoredSnapshot, RepoError> {
        let key = listed.name().key();
        let bytes = self.get_object(listed.name(), SNAPSHOT.max as u64).await?;
        let object = self.placed_snapshot(listed, &bytes)?;
        let body = self.open_sealed(&key, object.writer, &object.sealed)?;
        let snapshot = Snapshot::decode_body(&body).map_err(RepoError::at(&key))?;
        Ok(StoredSnapshot { listed, snapshot })
    }

    /// Checks that a snapshot's writer signed it under this name; a key that may only write can do so.
    pub async fn check_snapshot(&self, listed: Listed) -> Result<(), RepoError> {
        let bytes = self.get_object(listed.name(), SNAPSHOT.max as u64).await?;
        let SnapshotObject { writer, sealed, .. } = self.placed_snapshot(listed, &bytes)?;
        self.verify(&listed.name().key(), (writer, Authority::Writer), sealed.message, &sealed.signature)
    }

    /// Whether what stands under this name was had and is no snapshot: anyone who may put objects can put such a one. What cannot
    /// be had may be one.
    pub async fn is_garbage(&self, listed: Listed) -> Result<bool, RepoError> {
        let checked = match self.check_snapshot(listed).await {
            Err(RepoError::BadSignature { .. }) => {
                // Its writer may have been registered since.
                self.refresh_registry().await?;
                self.check_snapshot(listed).await
            }
            checked => checked,
        };
        Ok(checked.is_err_and(|error| error.is_damage() || error.is_invalid()))
    }

    /// What the object says, if it was meant for this place.
    fn placed_snapshot<'a>(&self, listed: Listed, bytes: &'a [u8]) -> Result<SnapshotObject<'a>, RepoError> {
        let key = listed.name().key();
        let object = SnapshotObject::decode(bytes, &self.id()).map_err(RepoError::at(&key))?;
        if (object.writer, object.sequence) != (listed.writer, listed.sequence) {
            return Err(RepoError::BadSignature { key });
        }
        Ok(object)
    }

    /// Whether a confirmation stands beside the snapshot now. One that cannot be had is an error, not none.
    pub async fn is_confirmed(&self, listed: Listed) -> Result<bool, RepoError> {
        match self.check_confirmation(listed).await {
            Ok(()) => Ok(true),
            Err(error) if error.is_invalid() => Ok(false),
            Err(RepoError::Store(error)) if error.is_not_found() => {
                match self.is_listed(listed.confirmation()).await? {
                    true => Err(error.into()),
                    false => Ok(false),
                }
            }
            Err(error) => Err(error),
        }
    }

    /// Checks that a confirmation is signed by the snapshot's writer or by a maintainer. No hash in its name tells whether
    /// it was spoilt on its way, so one that is not is read once more.
    pub async fn check_confirmation(&self, listed: Listed) -> Result<(), RepoError> {
        match self.read_confirmation(listed).await {
            Err(error) if error.is_invalid() => {
                self.refresh_registry().await?;
                self.read_confirmation(listed).await
            }
            other => other,
        }
    }

    async fn read_confirmation(&self, listed: Listed) -> Result<(), RepoError> {
        let name = listed.confirmation();
        let key = name.key();
        let bytes = self.get_object(name, SIGNED_MAX as u64).await?;
        let decoded = Signed::decode(&bytes, ObjectKind::Confirmation, Some(&self.id()));
        let (_, signed) = decoded.map_err(RepoError::at(&key))?;
        let said = Confirmation::decode(signed.value).map_err(RepoError::at(&key))?;
        if (said.writer, said.sequence, said.snapshot) != (listed.writer, listed.sequence, listed.id.into()) {
            return Err(RepoError::BadSignature { key });
        }
        self.verify(&key, (listed.writer, Authority::Writer), signed.message, &signed.signature)
    }

    /// Seals, signs and puts a snapshot; it is a root from the moment this returns, and not acknowledged.
    pub async fn put_snapshot(
        &self,
        sequence: u64,
        snapshot: &Snapshot,
        keys: &RunKeys,
    ) -> Result<SnapshotId, RepoError> {
        snapshot.check()?;
        let (writer, signing) = self.writer()?;
        let mut body = snapshot.encode_body();
        let key = keys.key(ChunkKind::Tree).base();
        let salt = object_salt(key, &*self.env.random, &object_hash(&body))?;
        self.seal_body(SNAPSHOT, (keys, &salt), &mut body)?;
        let sealed = SealedObject::unsigned(SNAPSHOT, salt, keys.sealed(ChunkKind::Tree), &body);
        let message = SnapshotObject { writer, sequence, sealed }.encode_unsigned(self.id());
        let named = |hash: ObjectHash| ObjectName::Snapshot(writer, sequence, hash.into());
        Ok(sign_and_put(&self.store, message, &signing, named).await?.into())
    }

    /// Puts the confirmation of a snapshot: only after its check came out clean.
    pub async fn confirm_snapshot(&self, sequence: u64, id: SnapshotId) -> Result<(), RepoError> {
        let (writer, signing) = self.writer()?;
        let said = Confirmation { writer, sequence, snapshot: id.into() };
        let value = said.encode();
        let named = |_| ObjectName::Confirmation(writer, sequence, id);
        put_signed(&self.store, (ObjectKind::Confirmation, self.id()), &value, &signing, named).await?;
        Ok(())
    }
}
