//! Sealed blocks of an object that is not made of segments: index objects, pack directories, local state.

use super::aead::{AeadKey, NONCE_LEN};
use super::{CryptoError, SecretKey, context};
use crate::format::envelope::ObjectKind;
use crate::format::segment::TAG_LEN;
use crate::id::{ObjectHash, RepositoryId};
use crate::random::{Random, RandomError, random_array};

/// Seals or opens the blocks of one object.
///
/// The object's key is keyed BLAKE3 of a random salt that is stored with it; block `i` has nonce `i` (96 bits,
/// little-endian). Additional data, 26 bytes: suite (1), repository (16), object kind (1), block (4), count (4).
///
/// # Invariants
/// Blocks are sealed in ascending order, so that no nonce comes twice. The salt is another for every object that is
/// sealed: [`object_salt`] makes one.
#[derive(Debug)]
pub struct ObjectSealer {
    key: AeadKey,
    repository: RepositoryId,
    kind: ObjectKind,
    next: u32,
}

impl ObjectSealer {
    /// For the object with this salt. `base` is the index key's key for [`context::INDEX`], a data key's base, or the
    /// key for [`context::LOCAL_STATE`].
    pub fn new(base: &SecretKey, salt: &[u8; 32], repository: RepositoryId, kind: ObjectKind) -> Self {
        let key = base.derive(context::OBJECT_BLOCK).keyed_key(salt);
        Self { key: AeadKey::new(&key), repository, kind, next: 0 }
    }

    /// Seals block `block` of `count` where it is, and appends the tag.
    pub fn seal_block(&mut self, block: u32, count: u32, buf: &mut Vec<u8>) -> Result<(), CryptoError> {
        if block < self.next || block >= count {
            return Err(CryptoError::BlockOrder { block, next: self.next, count });
        }
        self.next = block + 1;
        let tag = self.key.seal_in_place(nonce(block), &self.aad(block, count), buf)?;
        buf.extend_from_slice(&tag);
        Ok(())
    }

    /// Opens block `block` of `count` where it is, and removes the tag. On failure `buf` is zeroed.
    pub fn open_block(&self, block: u32, count: u32, buf: &mut Vec<u8>) -> Result<(), CryptoError> {
        let len = self.key.open_in_place(nonce(block), &self.aad(block, count), buf)?;
        buf.truncate(len);
        Ok(())
    }

    /// Opens a block into a buffer of its own length less [`TAG_LEN`], and leaves the sealed bytes alone.
    pub fn open_block_into(
        &self,
        (block, count): (u32, u32),
        sealed: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), CryptoError> {
        out.resize(sealed.len().saturating_sub(TAG_LEN), 0);
        self.key.open_into(nonce(block), &self.aad(block, count), sealed, out)
    }

    fn aad(&self, block: u32, count: u32) -> [u8; 26] {
        let mut aad = [0; 26];
        aad[0] = 1; // suite
        aad[1..17].copy_from_slice(self.repository.as_bytes());
        aad[17] = self.kind as u8;
        aad[18..22].copy_from_slice(&block.to_le_bytes());
        aad[22..].copy_from_slice(&count.to_le_bytes());
        aad
    }
}

/// A salt for an object whose plaintext `content` names: keyed BLAKE3 of 32 fresh random bytes and that hash.
///
/// A machine that was cloned while it ran may be given the same random bytes as its clone. What they seal then still has two
/// salts, and so two keys, unless it is the same.
pub fn object_salt(
    base: &SecretKey,
    random: &dyn Random,
    content: &ObjectHash,
) -> Result<[u8; 32], RandomError> {
    let mut message = [0; 64];
    message[..32].copy_from_slice(&random_array::<32>(random)?);
    message[32..].copy_from_slice(content.as_bytes());
    Ok(*base.derive(context::OBJECT_SALT).keyed_key(&message).expose())
}

fn nonce(block: u32) -> [u8; NONCE_LEN] {
    let mut nonce = [0; NONCE_LEN];
    nonce[..4].copy_from_slice(&block.to_le_bytes());
    nonce
}

#[cfg(test)]
mod tests {
    use super::super::testing::to_hex;
    use super::*;

    fn sealer(base: u8, salt: u8, repository: u8, kind: ObjectKind) -> ObjectSealer {
        let repository = RepositoryId::new([repository; 16]);
        ObjectSealer::new(&SecretKey::from_bytes([base; 32]), &[salt; 32], repository, kind)
    }

    fn sealed() -> Vec<u8> {
        let mut buf = b"block".to_vec();
        sealer(1, 2, 3, ObjectKind::Index).seal_block(1, 4, &mut buf).unwrap();
        buf
    }

    #[test]
    fn a_block_opens_in_its_place_only() {
        assert_eq!(to_hex(&sealed()), "73fc118585b2040f0944155d84882e4f0c7eb95750");
        let open = |sealer: ObjectSealer, block, count| {
            let mut buf = sealed();
            sealer.open_block(block, count, &mut buf).map(|()| buf)
        };
        let this = || sealer(1, 2, 3, ObjectKind::Index);
        assert_eq!(open(this(), 1, 4).unwrap(), b"block");
        for wrong in [
            open(this(), 0, 4),
            open(this(), 1, 5),
            open(sealer(9, 2, 3, ObjectKind::Index), 1, 4),
            open(sealer(1, 9, 3, ObjectKind::Index), 1, 4),
            open(sealer(1, 2, 9, ObjectKind::Index), 1, 4),
            open(sealer(1, 2, 3, ObjectKind::Pack), 1, 4),
        ] {
            assert_eq!(wrong, Err(CryptoError::Authentication));
        }
    }

    #[test]
    fn damage_is_found_and_nothing_is_left_behind() {
        let this = sealer(1, 2, 3, ObjectKind::Index);
        for at in 0..sealed().len() {
            let mut buf = sealed();
            buf[at] ^= 0x80;
            let mut out = b"older content".to_vec();
            assert_eq!(this.open_block_into((1, 4), &buf, &mut out), Err(CryptoError::Authentication));
            assert_eq!(this.open_block(1, 4, &mut buf), Err(CryptoError::Authentication));
            assert!(buf.iter().chain(&out).all(|byte| *byte == 0));
        }
        for len in [0, 1, 15, 16] {
            assert!(this.open_block(1, 4, &mut sealed()[..len].to_vec()).is_err());
            assert!(this.open_block_into((1, 4), &sealed()[..len], &mut Vec::new()).is_err());
        }
        let mut out = Vec::new();
        this.open_block_into((1, 4), &sealed(), &mut out).unwrap();
        assert_eq!(out, b"block");
    }

    #[test]
    fn a_salt_depends_on_key_randomness_and_content() {
        use super::super::testing::Seeded;
        let salt = |base: u8, seed, content: u8| {
            let base = SecretKey::from_bytes([base; 32]);
            object_salt(&base, &Seeded::new(seed), &ObjectHash::new([content; 32])).unwrap()
        };
        assert_eq!(salt(1, 1, 1), salt(1, 1, 1), "randomness that repeats");
        for other in [salt(2, 1, 1), salt(1, 2, 1), salt(1, 1, 2)] {
            assert_ne!(other, salt(1, 1, 1));
        }
    }

    #[test]
    fn no_block_is_sealed_twice() {
        let mut this = sealer(1, 2, 3, ObjectKind::Index);
        let mut seal = |block, count| this.seal_block(block, count, &mut vec![0; 3]);
        assert_eq!(seal(0, 3), Ok(()));
        assert_eq!(seal(0, 3), Err(CryptoError::BlockOrder { block: 0, next: 1, count: 3 }));
        assert_eq!(seal(2, 3), Ok(()));
        assert_eq!(seal(1, 3), Err(CryptoError::BlockOrder { block: 1, next: 3, count: 3 }));
        assert_eq!(seal(3, 3), Err(CryptoError::BlockOrder { block: 3, next: 3, count: 3 }));
    }
}
