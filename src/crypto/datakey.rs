//! The key of one run and kind, and what comes from it.

use zeroize::Zeroizing;

use super::aead::{AeadKey, NONCE_LEN};
use super::hpke::{PrivateKey, PublicKey};
use super::key::equal;
use super::{CryptoError, SecretKey, context, hpke};
use crate::format::datakey::{RECIPIENTS_MAX, SEALED_LEN, SealedDataKey, data_key_info};
use crate::format::envelope::ChunkKind;
use crate::format::segment::Codec;
use crate::id::{ChunkId, RepositoryId, RunId};
use crate::random::Random;

/// 256 random bits that protect what one run stores of one kind.
#[derive(Debug, Clone)]
pub struct DataKey {
    key: SecretKey,
    run: RunId,
    kind: ChunkKind,
    commitment: [u8; 32],
    segment_keys: SecretKey,
    segment_nonces: SecretKey,
}

impl DataKey {
    /// Prepares the key of a run.
    pub fn new(key: SecretKey, run: RunId, kind: ChunkKind) -> Self {
        let commitment = *blake3::keyed_hash(key.expose(), b"commit").as_bytes();
        let segment_keys = key.derive(context::SEGMENT_KEY);
        let segment_nonces = key.derive(context::SEGMENT_NONCE);
        Self { key, run, kind, commitment, segment_keys, segment_nonces }
    }

    /// The run that made it.
    pub const fn run(&self) -> RunId {
        self.run
    }

    /// What it protects.
    pub const fn kind(&self) -> ChunkKind {
        self.kind
    }

    /// Stands beside each sealed form and tells this key from any other.
    pub const fn commitment(&self) -> &[u8; 32] {
        &self.commitment
    }

    /// The key's name: the first 16 bytes of its commitment.
    pub fn id(&self) -> [u8; 16] {
        let mut id = [0; 16];
        id.copy_from_slice(&self.commitment[..16]);
        id
    }

    /// The base of the keys of objects that this key protects, for [`super::ObjectSealer`].
    pub const fn base(&self) -> &SecretKey {
        &self.key
    }

    /// The key of the segment with this `N1`.
    pub fn segment_key(&self, n1: &[u8; NONCE_LEN]) -> AeadKey {
        AeadKey::new(&self.segment_keys.keyed_key(n1))
    }

    /// `N1` and `N2` of a new segment: 24 bytes of keyed BLAKE3 over 32 fresh random bytes, codec (1 byte), level
    /// (4 bytes, little-endian) and the ids of the segment's chunks in order. Content enters, so that even a machine
    /// that repeats its random numbers repeats no key and nonce over other bytes.
    pub fn segment_nonces<'a>(
        &self,
        fresh: &[u8; 32],
        (codec, level): (Codec, i32),
        ids: impl IntoIterator<Item = &'a ChunkId>,
    ) -> ([u8; NONCE_LEN], [u8; NONCE_LEN]) {
        let mut hasher = blake3::Hasher::new_keyed(self.segment_nonces.expose());
        hasher.update(fresh);
        hasher.update(&[codec as u8]);
        hasher.update(&level.to_le_bytes());
        for id in ids {
            hasher.update(id.as_bytes());
        }
        let mut out = hasher.finalize_xof();
        let (mut n1, mut n2) = ([0; NONCE_LEN], [0; NONCE_LEN]);
        out.fill(&mut n1);
        out.fill(&mut n2);
        (n1, n2)
    }
}

/// Makes the data key of a run and seals it to all recipients.
pub fn generate_data_key(
    random: &dyn Random,
    repository: &RepositoryId,
    run: RunId,
    kind: ChunkKind,
    recipients: &[PublicKey],
) -> Result<(DataKey, SealedDataKey), CryptoError> {
    if recipients.is_empty() || recipients.len() > RECIPIENTS_MAX {
        return Err(CryptoError::Recipients { count: recipients.len() });
    }
    let key = DataKey::new(SecretKey::generate(random)?, run, kind);
    let mut rows = Vec::with_capacity(recipients.len());
    for recipient in recipients {
        let info = data_key_info(repository, &run, kind, &recipient.id());
        let sealed = hpke::seal(recipient, &info, key.key.expose(), random)?;
        let sealed: Box<[u8; SEALED_LEN]> =
            sealed.into_boxed_slice().try_into().expect("sealing adds a fixed length to 32 bytes");
        rows.push((recipient.id(), sealed));
    }
    let sealed = SealedDataKey::new(run, kind, key.commitment, rows)?;
    Ok((key, sealed))
}

/// Opens a sealed data key and checks it against its commitment.
pub fn open_data_key(
    private: &PrivateKey,
    repository: &RepositoryId,
    sealed: &SealedDataKey,
) -> Result<DataKey, CryptoError> {
    let recipient = private.public_key().id();
    let run = sealed.run();
    let bytes = sealed.sealed_to(recipient).ok_or(CryptoError::NotRecipient { run, recipient })?;
    let info = data_key_info(repository, &run, sealed.kind(), &recipient);
    let plain = hpke::open(private, &info, bytes)?;
    let mut key = Zeroizing::new([0; 32]);
    if plain.len() != key.len() {
        return Err(CryptoError::Authentication);
    }
    key.copy_from_slice(&plain);
    let key = DataKey::new(SecretKey::from_bytes(*key), run, sealed.kind());
    if !equal(&key.commitment, sealed.commitment()) {
        return Err(CryptoError::WrongKey);
    }
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Seeded, to_hex};
    use super::*;

    const REPOSITORY: RepositoryId = RepositoryId::new([1; 16]);
    const RUN: RunId = RunId::new([2; 16]);

    fn key() -> DataKey {
        DataKey::new(SecretKey::from_bytes([3; 32]), RUN, ChunkKind::Data)
    }

    #[test]
    fn what_comes_from_a_data_key_is_fixed() {
        assert_eq!(
            to_hex(key().commitment()),
            "5954d0c1b4cdb37395f5dee2eadd5ee74f1170b7d50433f14ec7ea4a9681f7dd"
        );
        let ids = [ChunkId::new([4; 32]), ChunkId::new([5; 32])];
        let (n1, n2) = key().segment_nonces(&[6; 32], (Codec::Zstd, 3), &ids);
        assert_eq!(to_hex(&n1), "af7a1ad53432fabb2fe5431a");
        assert_eq!(to_hex(&n2), "4f92d340435c7467e01532f3");
        let mut block = [0; 16];
        let tag = key().segment_key(&n1).seal_in_place(n2, b"", &mut block).unwrap();
        assert_eq!(
            to_hex(&[block, tag].concat()),
            "e534fa4390006b4366e572e8f98ed654429bcf658a9c3d8d2f0c92b95122c421"
        );
    }

    #[test]
    fn everything_that_shapes_a_segment_enters_its_nonces() {
        let ids = [ChunkId::new([4; 32]), ChunkId::new([5; 32])];
        let base = key().segment_nonces(&[6; 32], (Codec::Zstd, 3), &ids);
        let other = DataKey::new(SecretKey::from_bytes([9; 32]), RUN, ChunkKind::Data);
        for changed in [
            other.segment_nonces(&[6; 32], (Codec::Zstd, 3), &ids),
            key().segment_nonces(&[7; 32], (Codec::Zstd, 3), &ids),
            key().segment_nonces(&[6; 32], (Codec::Raw, 3), &ids),
            key().segment_nonces(&[6; 32], (Codec::Zstd, 4), &ids),
            key().segment_nonces(&[6; 32], (Codec::Zstd, -3), &ids),
            key().segment_nonces(&[6; 32], (Codec::Zstd, 3), ids.iter().rev()),
            key().segment_nonces(&[6; 32], (Codec::Zstd, 3), &ids[..1]),
        ] {
            assert!(changed.0 != base.0 && changed.1 != base.1);
        }
    }

    #[test]
    fn recipients_and_nobody_else_open_a_data_key() {
        let random = Seeded::new(7);
        let keys: Vec<_> = (0..3).map(|_| PrivateKey::generate(&random).unwrap()).collect();
        let public: Vec<_> = keys[..2].iter().map(|key| key.public_key().clone()).collect();
        let (made, sealed) = generate_data_key(&random, &REPOSITORY, RUN, ChunkKind::Data, &public).unwrap();
        for key in &keys[..2] {
            let opened = open_data_key(key, &REPOSITORY, &sealed).unwrap();
            assert_eq!((opened.key, opened.commitment), (made.key.clone(), made.commitment));
            assert_eq!((opened.run, opened.kind), (RUN, ChunkKind::Data));
        }
        let stranger = open_data_key(&keys[2], &REPOSITORY, &sealed).map(|_| ());
        assert!(matches!(stranger, Err(CryptoError::NotRecipient { .. })));
        let elsewhere = open_data_key(&keys[0], &RepositoryId::new([9; 16]), &sealed).map(|_| ());
        assert_eq!(elsewhere, Err(CryptoError::Authentication));
    }

    #[test]
    fn a_sealed_key_is_bound_to_run_kind_recipient_and_commitment() {
        let random = Seeded::new(8);
        let private = PrivateKey::generate(&random).unwrap();
        let id = private.public_key().id();
        let (_, sealed) =
            generate_data_key(&random, &REPOSITORY, RUN, ChunkKind::Data, &[private.public_key().clone()])
                .unwrap();
        let with = |run, kind, commitment| {
            let rows = vec![(id, Box::new(*sealed.sealed_to(id).unwrap()))];
            let edited = SealedDataKey::new(run, kind, commitment, rows).unwrap();
            open_data_key(&private, &REPOSITORY, &edited).map(|_| ())
        };
        assert_eq!(with(RUN, ChunkKind::Data, *sealed.commitment()), Ok(()));
        assert_eq!(
            with(RunId::new([0; 16]), ChunkKind::Data, *sealed.commitment()),
            Err(CryptoError::Authentication)
        );
        assert_eq!(with(RUN, ChunkKind::Tree, *sealed.commitment()), Err(CryptoError::Authentication));
        assert_eq!(with(RUN, ChunkKind::Data, [0; 32]), Err(CryptoError::WrongKey));
    }

    #[test]
    fn a_data_key_without_recipients_is_not_made() {
        let made = generate_data_key(&Seeded::new(9), &REPOSITORY, RUN, ChunkKind::Data, &[]).map(|_| ());
        assert_eq!(made, Err(CryptoError::Recipients { count: 0 }));
    }
}
