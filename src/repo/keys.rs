//! Data keys: the two of a run, and those of other runs as a reader opens them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::error::RepoError;
use super::open::Repository;
use crate::crypto::{DataKey, generate_data_key, object_hash, open_data_key};
use crate::format::datakey::SealedDataKey;
use crate::format::envelope::ChunkKind;
use crate::format::segment::{Codec, SegmentEntry};
use crate::format::wire::Reader;
use crate::id::{PackId, RunId};
use crate::index::Location;
use crate::random::random_array;

/// The data keys of one run, one a kind, with their sealed forms.
#[derive(Debug, Clone)]
pub struct RunKeys {
    /// The run.
    pub run: RunId,
    keys: [(DataKey, Vec<u8>); 2],
}

impl RunKeys {
    /// The key of this kind.
    pub fn key(&self, kind: ChunkKind) -> &DataKey {
        &self.keys[kind as usize].0
    }

    /// The sealed form of the key of this kind.
    pub fn sealed(&self, kind: ChunkKind) -> &[u8] {
        &self.keys[kind as usize].1
    }
}

impl Repository {
    /// Makes the keys of a new run and seals them to the repository's recipients.
    pub fn new_run_keys(&self) -> Result<RunKeys, RepoError> {
        let random = &*self.env.random;
        let run = RunId::new(random_array(random)?);
        let make = |kind: ChunkKind| -> Result<(DataKey, Vec<u8>), RepoError> {
            let to = &self.recipients[kind as usize];
            let (key, sealed) = generate_data_key(random, &self.id(), run, kind, to)?;
            let mut bytes = Vec::with_capacity(sealed.encoded_len());
            sealed.encode(&mut bytes);
            Ok((key, bytes))
        };
        Ok(RunKeys { run, keys: [make(ChunkKind::Data)?, make(ChunkKind::Tree)?] })
    }

    /// Opens a sealed data key with the private key of its kind.
    pub fn open_data_key(&self, sealed: &[u8]) -> Result<DataKey, RepoError> {
        let mut reader = Reader::new(sealed);
        let sealed = SealedDataKey::decode(&mut reader)?;
        reader.finish()?;
        let (private, action) = match sealed.kind() {
            ChunkKind::Data => (&self.secrets.data, "read content"),
            ChunkKind::Tree => (&self.secrets.metadata, "read trees and snapshots"),
        };
        let private = private.as_ref().ok_or(RepoError::RoleForbids { action })?;
        Ok(open_data_key(private, &self.id(), &sealed)?)
    }
}

/// All that reading a segment takes. Places that are equal give the same bytes; those that two index objects name for one
/// segment may differ, because one of them is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SegmentPlace {
    /// The pack.
    pub pack: PackId,
    range: (u32, u32),
    plain_len: u32,
    codec: Codec,
    nonces: [[u8; 12]; 2],
    key: SealedKeyName,
}

impl SegmentPlace {
    /// The place that a location names, with the key that it names.
    pub fn new(location: &Location, key: SealedKeyName) -> Self {
        let SegmentEntry { offset, stored_len, plain_len, codec, n1, n2, .. } = location.segment;
        Self { pack: location.pack_id, range: (offset, stored_len), plain_len, codec, nonces: [n1, n2], key }
    }
}

/// Tells one sealed data key from every other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SealedKeyName([u8; 16]);

impl SealedKeyName {
    /// The name of these sealed bytes.
    pub fn of(sealed: &[u8]) -> Self {
        let hash = object_hash(sealed);
        let mut name = [0; 16];
        name.copy_from_slice(&hash.as_bytes()[..16]);
        Self(name)
    }
}

/// Data keys that were opened already; opening one costs a tenth of a millisecond.
#[derive(Debug, Default)]
pub struct DataKeys(Mutex<HashMap<Vec<u8>, Arc<DataKey>>>);

impl DataKeys {
    /// The key, opened now or before.
    pub fn get(&self, repository: &Repository, sealed: &[u8]) -> Result<Arc<DataKey>, RepoError> {
        if let Some(key) = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(sealed) {
            return Ok(Arc::clone(key));
        }
        let key = Arc::new(repository.open_data_key(sealed)?);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(sealed.to_vec(), Arc::clone(&key));
        Ok(key)
    }
}
