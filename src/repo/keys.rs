//! Data keys: the two of a run, and those of other runs as a reader opens them.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use super::error::RepoError;
use super::open::Repository;
use crate::crypto::hpke::PrivateKey;
use crate::crypto::sign::VerifyingKey;
use crate::crypto::{DataKey, generate_data_key, object_hash, open_data_key};
use crate::format::datakey::SealedDataKey;
use crate::format::envelope::ChunkKind;
use crate::format::segment::{Codec, SegmentEntry};
use crate::format::wire::Reader;
use crate::id::{PackId, RunId};
use crate::index::Location;
use crate::random::random_array;

/// Most opened keys that are kept, about 300 bytes each.
const KEYS_MAX: usize = 1 << 14;
/// Most verified signatures that are kept, about 40 bytes each.
const SIGNATURES_MAX: usize = 1 << 16;

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

    /// Opens a sealed data key with the private key of its kind, or finds that it was opened before.
    pub fn open_data_key(&self, sealed: &[u8]) -> Result<Arc<DataKey>, RepoError> {
        let name = *object_hash(sealed).as_bytes();
        if let Some(key) = self.known.data_key(&name) {
            return Ok(key);
        }
        let key = Arc::new(self.open_new(sealed)?);
        self.known.opened(name, &key);
        Ok(key)
    }

    /// The same repository with the data keys and signatures that `other` knows, and will know: for a process that opens one
    /// repository often. Nothing is shared by two repositories, or by two keys of which one opens what the other does not.
    #[must_use]
    pub fn knowing_with(self, other: &Self) -> Self {
        let opens = |repo: &Self, kind| repo.secrets.private_keys(kind).cloned().collect::<Vec<_>>();
        let same = self.id() == other.id()
            && ChunkKind::ALL.into_iter().all(|kind| opens(&self, kind) == opens(other, kind));
        if same { Self { known: Arc::clone(&other.known), ..self } } else { self }
    }

    fn open_new(&self, sealed: &[u8]) -> Result<DataKey, RepoError> {
        let mut reader = Reader::new(sealed);
        let sealed = SealedDataKey::decode(&mut reader)?;
        reader.finish()?;
        let action = match sealed.kind() {
            ChunkKind::Data => "read content",
            ChunkKind::Tree => "read trees and snapshots",
        };
        let mut keys = self.secrets.private_keys(sealed.kind()).peekable();
        let first = *keys.peek().ok_or(RepoError::RoleForbids { action })?;
        let fits = |key: &&PrivateKey| sealed.sealed_to(key.public_key().id()).is_some();
        match keys.find(fits) {
            Some(private) => Ok(open_data_key(private, &self.id(), &sealed)?),
            None if !self.is_current() => Err(RepoError::StaleKey),
            None => Ok(open_data_key(first, &self.id(), &sealed)?),
        }
    }
}

impl Repository {
    /// Whether a data key is sealed to somebody else than those that the configuration names now: to a key that was replaced.
    /// What is no sealed data key is sealed to nobody.
    pub fn is_sealed_to_others(&self, sealed: &[u8]) -> bool {
        let Ok(sealed) = SealedDataKey::decode(&mut Reader::new(sealed)) else { return false };
        let now = &self.recipients[sealed.kind() as usize];
        sealed.recipients().any(|recipient| now.iter().all(|key| key.id() != recipient))
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

/// What was opened and verified before. Opening a data key costs a tenth of a millisecond, a signature a third of that, and a
/// collection looks at everything several times. What failed is tried again.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// By the hash of the sealed form.
    data_keys: Mutex<HashMap<[u8; 32], Arc<DataKey>>>,
    /// Hashes of key, signature and message.
    signatures: Mutex<HashSet<[u8; 32]>>,
}

impl Known {
    fn data_key(&self, name: &[u8; 32]) -> Option<Arc<DataKey>> {
        self.data_keys.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    fn opened(&self, name: [u8; 32], key: &Arc<DataKey>) {
        let mut keys = self.data_keys.lock().unwrap_or_else(PoisonError::into_inner);
        if keys.len() >= KEYS_MAX {
            keys.clear();
        }
        keys.insert(name, Arc::clone(key));
    }

    /// Whether this key signed the message.
    pub(super) fn has_signed(&self, key: &VerifyingKey, message: &[u8], signature: &[u8; 64]) -> bool {
        let mut hasher = blake3::Hasher::new();
        hasher.update(key.as_bytes()).update(signature).update(message);
        let name = *hasher.finalize().as_bytes();
        let locked = || self.signatures.lock().unwrap_or_else(PoisonError::into_inner);
        if locked().contains(&name) {
            return true;
        }
        if key.verify(message, signature).is_err() {
            return false;
        }
        let mut signatures = locked();
        if signatures.len() >= SIGNATURES_MAX {
            signatures.clear();
        }
        signatures.insert(name);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::SecretKey;
    use crate::crypto::sign::SigningKey;
    use crate::format::keyslot::Role;
    use crate::ops::testing::World;

    #[test]
    fn a_signature_that_was_verified_says_nothing_of_another() {
        let known = Known::default();
        let [one, two] = [[1; 32], [2; 32]].map(|seed| SigningKey::from_seed(SecretKey::from_bytes(seed)));
        let signature = one.sign(b"message");
        for _ in 0..2 {
            assert!(known.has_signed(&one.verifying_key(), b"message", &signature));
            assert!(!known.has_signed(&one.verifying_key(), b"massage", &signature));
            assert!(!known.has_signed(&two.verifying_key(), b"message", &signature));
            let mut other = signature;
            other[0] ^= 1;
            assert!(!known.has_signed(&one.verifying_key(), b"message", &other));
        }
    }

    #[tokio::test]
    async fn what_is_known_is_shared_by_openings_of_one_repository_only() {
        let (one, two) = (World::new().repository().await, World::new().repository().await);
        let sealed = one.new_run_keys().unwrap().sealed(ChunkKind::Data).to_vec();
        let again = one.clone().knowing_with(&one);
        assert!(Arc::ptr_eq(&one.open_data_key(&sealed).unwrap(), &again.open_data_key(&sealed).unwrap()));
        let stranger = two.knowing_with(&one);
        assert!(stranger.open_data_key(&sealed).is_err());
        let restricted =
            Repository { secrets: one.secrets.restrict(Role::Writer), known: Arc::default(), ..one.clone() };
        let restricted = restricted.knowing_with(&one);
        assert!(matches!(restricted.open_data_key(&sealed), Err(RepoError::RoleForbids { .. })));
    }
}
