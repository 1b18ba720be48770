//! 256 secret bits.

use std::fmt;

use zeroize::{Zeroize, ZeroizeOnDrop};

use super::CryptoError;
use crate::random::Random;

/// A symmetric key or a seed. Wiped on drop; prints without its bytes; equal in constant time.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct SecretKey([u8; 32]);

impl SecretKey {
    /// Length in bytes.
    pub const LEN: usize = 32;

    /// A fresh key.
    pub fn generate(random: &dyn Random) -> Result<Self, CryptoError> {
        let mut key = Self([0; 32]);
        random.fill(&mut key.0)?;
        Ok(key)
    }

    /// Takes the bytes of a key; the caller wipes its own copy.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes. Whoever copies them wipes the copy.
    pub const fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// The key for one purpose that comes from this one: BLAKE3's key derivation with a context of [`super::context`].
    pub fn derive(&self, context: &'static str) -> Self {
        Self(blake3::derive_key(context, &self.0))
    }

    /// Keyed BLAKE3-256 of `message`, as a key.
    pub(super) fn keyed_key(&self, message: &[u8]) -> Self {
        Self(*blake3::keyed_hash(&self.0, message).as_bytes())
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey(..)")
    }
}

impl PartialEq for SecretKey {
    fn eq(&self, other: &Self) -> bool {
        equal(&self.0, &other.0)
    }
}

impl Eq for SecretKey {}

/// Whether two secrets are equal, in a time that depends on their length alone.
pub(super) fn equal(a: &[u8], b: &[u8]) -> bool {
    aws_lc_rs::constant_time::verify_slices_are_equal(a, b).is_ok()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::context;
    use super::super::testing::{Broken, Seeded, to_hex};
    use super::*;

    #[test]
    fn every_context_gives_another_key_and_the_keys_are_fixed() {
        let root = SecretKey::from_bytes([7; 32]);
        let keys: BTreeSet<_> = context::ALL.iter().map(|context| *root.derive(context).expose()).collect();
        assert_eq!(keys.len(), context::ALL.len());
        assert!(context::ALL.iter().all(|context| context.starts_with("lifeboat v1 ")));
        assert_eq!(to_hex(root.derive(context::CHUNK_ID).expose()), GOLDEN_CHUNK_ID_KEY);
    }

    const GOLDEN_CHUNK_ID_KEY: &str = "c8171d98c03fe46742a171451798816ddb04ead0d8d2409167d51b7c0f64e17b";

    #[test]
    fn a_key_does_not_print_its_bytes() {
        assert_eq!(format!("{:?}", SecretKey::from_bytes([0xab; 32])), "SecretKey(..)");
    }

    #[test]
    fn fresh_keys_differ_and_a_broken_generator_makes_none() {
        let random = Seeded::new(1);
        let (a, b) = (SecretKey::generate(&random).unwrap(), SecretKey::generate(&random).unwrap());
        assert_ne!(a, b);
        assert_eq!(a, a.clone());
        assert!(SecretKey::generate(&Broken).is_err());
    }
}
