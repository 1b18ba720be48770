//! Snapshots as they are stored: listing them, writing and reading one.

use std::collections::HashSet;

use bytes::Bytes;

use super::error::RepoError;
use super::keys::RunKeys;
use super::open::{Repository, object_key};
use crate::clock::Timestamp;
use crate::crypto::{ObjectSealer, object_hash, object_salt};
use crate::format::FormatError;
use crate::format::config::Authority;
use crate::format::envelope::{ChunkKind, ObjectKind};
use crate::format::layout::{self, ObjectName};
use crate::format::signed::{SIGNED_MAX, Signed};
use crate::format::snapshot::{Confirmation, SNAPSHOT_MAX, Snapshot, SnapshotObject};
use crate::id::{SnapshotId, WriterId};

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
        let name = ObjectName::Snapshot(listed.writer, listed.sequence, listed.id);
        let key = name.key();
        let bytes = self.get_object(name, SNAPSHOT_MAX as u64).await?;
        let object = SnapshotObject::decode(&bytes, &self.id()).map_err(RepoError::at(&key))?;
        if (object.writer, object.sequence) != (listed.writer, listed.sequence) {
            return Err(RepoError::BadSignature { key });
        }
        self.verify(&key, (object.writer, Authority::Writer), object.message, &object.signature)?;
        let data_key = self.open_data_key(object.data_key)?;
        if data_key.kind() != ChunkKind::Tree {
            let rule = FormatError::Value { section: "10", what: "kind of the data key" };
            return Err(RepoError::at(&key)(rule));
        }
        let mut body = object.body.to_vec();
        ObjectSealer::new(data_key.base(), &object.salt, self.id(), ObjectKind::Snapshot)
            .open_block(0, 1, &mut body)?;
        let snapshot = Snapshot::decode_body(&body).map_err(RepoError::at(&key))?;
        Ok(StoredSnapshot { listed, snapshot })
    }

    /// Checks that a confirmation is signed by the snapshot's writer or by a maintainer.
    pub async fn check_confirmation(&self, listed: Listed) -> Result<(), RepoError> {
        let name = ObjectName::Confirmation(listed.writer, listed.sequence, listed.id);
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
        ObjectSealer::new(key, &salt, self.id(), ObjectKind::Snapshot).seal_block(0, 1, &mut body)?;
        let unsigned = SnapshotObject {
            writer,
            sequence,
            salt,
            data_key: keys.sealed(ChunkKind::Tree),
            body: &body,
            message: &[],
            signature: [0; 64],
        };
        let mut bytes = unsigned.encode_unsigned(self.id());
        let signature = signing.sign(&bytes);
        bytes.extend_from_slice(&signature);
        let id = SnapshotId::from(object_hash(&bytes));
        let name = ObjectName::Snapshot(writer, sequence, id);
        self.store.put(&object_key(name)?, vec![Bytes::from(bytes)]).await?;
        Ok(id)
    }

    /// Puts the confirmation of a snapshot: only after its check came out clean.
    pub async fn confirm_snapshot(&self, sequence: u64, id: SnapshotId) -> Result<(), RepoError> {
        let (writer, signing) = self.writer()?;
        let said = Confirmation { writer, sequence, snapshot: id.into() };
        let value = said.encode();
        let named = |_| ObjectName::Confirmation(writer, sequence, id);
        super::create::put_signed(
            &self.store,
            (ObjectKind::Confirmation, self.id()),
            &value,
            &signing,
            named,
        )
        .await?;
        Ok(())
    }
}
