//! Reading and writing what only holders of a metadata key may see: snapshots and labels.
//!
//! # Invariants
//! A body is opened only after the signature over it was checked.

use super::error::RepoError;
use super::keys::RunKeys;
use super::open::Repository;
use crate::crypto::ObjectSealer;
use crate::format::config::Authority;
use crate::format::envelope::ChunkKind;
use crate::format::sealed::{SealedForm, SealedObject};
use crate::id::WriterId;

impl Repository {
    /// The body of the object under `key`, opened, if its author is registered and signed it.
    pub(super) fn open_sealed(
        &self,
        key: &str,
        author: WriterId,
        object: &SealedObject<'_>,
    ) -> Result<Vec<u8>, RepoError> {
        self.verify(key, (author, Authority::Writer), object.message, &object.signature)?;
        let data_key = self.open_data_key(object.data_key)?;
        if data_key.kind() != ChunkKind::Tree {
            return Err(RepoError::at(key)(object.form.broken("kind of the data key")));
        }
        let mut body = object.body.to_vec();
        ObjectSealer::new(data_key.base(), &object.salt, self.id(), object.form.kind)
            .open_block(0, 1, &mut body)?;
        Ok(body)
    }

    /// Seals the body of an object where it is, with the run's metadata key. The salt is another for every object.
    pub(super) fn seal_body(
        &self,
        form: SealedForm,
        (keys, salt): (&RunKeys, &[u8; 32]),
        body: &mut Vec<u8>,
    ) -> Result<(), RepoError> {
        let base = keys.key(ChunkKind::Tree).base();
        Ok(ObjectSealer::new(base, salt, self.id(), form.kind).seal_block(0, 1, body)?)
    }
}
