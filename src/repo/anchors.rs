//! Anchors as they are stored.

use super::create::sign;
use super::error::RepoError;
use super::open::{Repository, object_key};
use crate::clock::Timestamp;
use crate::format::anchor::Anchor;
use crate::format::config::Authority;
use crate::format::envelope::{ChunkKind, ObjectKind, Preamble};
use crate::format::layout::{self, ObjectName};
use crate::format::signed::{SIGNED_MAX, Signed, signed_message};
use crate::id::{ObjectHash, SnapshotId, WriterId};

impl Repository {
    /// The names of all anchors, with the times at which the store got them.
    pub async fn list_anchors(&self) -> Result<Vec<(ObjectHash, Timestamp)>, RepoError> {
        let listed = self.store.list(layout::ANCHORS).await?;
        let named = listed.iter().filter_map(|object| match ObjectName::parse(object.key.as_str())? {
            ObjectName::Anchor(hash) => Some((hash, object.modified)),
            _ => None,
        });
        Ok(named.collect())
    }

    /// Reads an anchor of which the hash is trusted: who signed it does not matter.
    pub async fn read_anchor(&self, hash: ObjectHash) -> Result<Anchor, RepoError> {
        let bytes = self.get_object(ObjectName::Anchor(hash), SIGNED_MAX as u64).await?;
        Ok(self.decode_anchor(hash, &bytes)?.1)
    }

    /// Reads an anchor and checks that a registered writer signed it.
    pub async fn check_anchor(&self, hash: ObjectHash) -> Result<Anchor, RepoError> {
        let name = ObjectName::Anchor(hash);
        let bytes = self.get_object(name, SIGNED_MAX as u64).await?;
        let (signed, anchor) = self.decode_anchor(hash, &bytes)?;
        let asked = match self.authority(&anchor.author) {
            Some(Authority::Verifier) => Authority::Verifier,
            _ => Authority::Writer,
        };
        self.verify(&name.key(), (anchor.author, asked), signed.message, &signed.signature)?;
        Ok(anchor)
    }

    fn decode_anchor<'a>(
        &self,
        hash: ObjectHash,
        bytes: &'a [u8],
    ) -> Result<(Signed<'a>, Anchor), RepoError> {
        let key = ObjectName::Anchor(hash).key();
        let decoded = Signed::decode(bytes, ObjectKind::Anchor, Some(&self.id()));
        let (_, signed) = decoded.map_err(RepoError::at(&key))?;
        let anchor = Anchor::decode(signed.value).map_err(RepoError::at(&key))?;
        Ok((signed, anchor))
    }

    /// Signs and puts an anchor that says what the registry and the configuration are now.
    pub async fn put_anchor(
        &self,
        snapshots: Vec<SnapshotId>,
        base: Option<ObjectHash>,
    ) -> Result<ObjectHash, RepoError> {
        let (author, key) = self.writer()?;
        let (config, writers) = self.numbers();
        let anchor = Anchor { author, config, writers, snapshots, base };
        let preamble = Preamble::new(ObjectKind::Anchor, ChunkKind::Data, self.id());
        let (bytes, hash) = sign(signed_message(preamble, &anchor.encode()), &key);
        self.store.put(&object_key(ObjectName::Anchor(hash))?, vec![bytes]).await?;
        Ok(hash)
    }

    /// The number of the configuration, and of the entry that counts of each writer, by id.
    pub fn numbers(&self) -> (u64, Vec<(WriterId, u64)>) {
        let all = self.registry.all().into_iter();
        let mut writers: Vec<_> = all.map(|(writer, number, _)| (writer, number)).collect();
        writers.sort_unstable();
        (self.slot.pins.config, writers)
    }
}
