//! Ed25519 signatures.
//!
//! # Invariants
//! A verifying key is a canonical point of large order, so a signature that verifies was made for that very key.

use std::fmt;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, UnparsedPublicKey};

use super::{CryptoError, SecretKey};
use crate::random::Random;

/// Length of a signature in bytes.
pub const SIGNATURE_LEN: usize = 64;

/// A key that signs: a seed of 32 bytes, as in RFC 8032.
pub struct SigningKey {
    seed: SecretKey,
    pair: Ed25519KeyPair,
}

impl SigningKey {
    /// A fresh key.
    pub fn generate(random: &dyn Random) -> Result<Self, CryptoError> {
        Ok(Self::from_seed(SecretKey::generate(random)?))
    }

    /// The key with this seed; any 32 bytes are one.
    pub fn from_seed(seed: SecretKey) -> Self {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed.expose()).expect("any 32 bytes are a seed");
        Self { seed, pair }
    }

    /// The seed.
    pub const fn seed(&self) -> &SecretKey {
        &self.seed
    }

    /// The public half.
    pub fn verifying_key(&self) -> VerifyingKey {
        use aws_lc_rs::signature::KeyPair;
        let mut key = [0; 32];
        key.copy_from_slice(self.pair.public_key().as_ref());
        VerifyingKey(key)
    }

    /// Signs a message. What the signature is for must be part of the message.
    pub fn sign(&self, message: &[u8]) -> [u8; SIGNATURE_LEN] {
        let mut out = [0; SIGNATURE_LEN];
        out.copy_from_slice(self.pair.sign(message).as_ref());
        out
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({:?})", self.verifying_key())
    }
}

/// A key that verifies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct VerifyingKey([u8; 32]);

impl VerifyingKey {
    /// Takes the stored form. Refuses encodings that are not canonical and the points of small order, under which one
    /// signature fits many messages.
    pub fn from_bytes(bytes: [u8; 32]) -> Result<Self, CryptoError> {
        let mut y = bytes;
        y[31] &= 0x7f;
        y.reverse(); // big-endian, so that arrays compare as numbers
        if y >= FIELD || SMALL_ORDER.contains(&y) {
            return Err(CryptoError::PublicKey { what: "the verifying key" });
        }
        Ok(Self(bytes))
    }

    /// The stored form.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Checks a signature.
    pub fn verify(&self, message: &[u8], signature: &[u8; SIGNATURE_LEN]) -> Result<(), CryptoError> {
        UnparsedPublicKey::new(&ED25519, self.0)
            .verify(message, signature)
            .map_err(|_| CryptoError::Signature)
    }
}

/// 2^255 - 19, big-endian.
const FIELD: [u8; 32] = below_two_to_255(19);

/// The y coordinates of all points of order 1, 2, 4 and 8, big-endian.
const SMALL_ORDER: [[u8; 32]; 5] = [
    [0; 32],
    one(),
    below_two_to_255(20),
    [
        0x05, 0xfc, 0x53, 0x6d, 0x88, 0x02, 0x38, 0xb1, 0x39, 0x33, 0xc6, 0xd3, 0x05, 0xac, 0xdf, 0xd5, 0xf0,
        0x98, 0xef, 0xf2, 0x89, 0xf4, 0xc3, 0x45, 0xb0, 0x27, 0xb2, 0xc2, 0x8f, 0x95, 0xe8, 0x26,
    ],
    [
        0x7a, 0x03, 0xac, 0x92, 0x77, 0xfd, 0xc7, 0x4e, 0xc6, 0xcc, 0x39, 0x2c, 0xfa, 0x53, 0x20, 0x2a, 0x0f,
        0x67, 0x10, 0x0d, 0x76, 0x0b, 0x3c, 0xba, 0x4f, 0xd8, 0x4d, 0x3d, 0x70, 0x6a, 0x17, 0xc7,
    ],
];

const fn one() -> [u8; 32] {
    let mut number = [0; 32];
    number[31] = 1;
    number
}

const fn below_two_to_255(distance: u8) -> [u8; 32] {
    let mut number = [0xff; 32];
    number[0] = 0x7f;
    number[31] = 0xff - distance + 1;
    number
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Seeded, hex};
    use super::*;

    #[test]
    fn the_second_vector_of_rfc_8032() {
        let seed =
            hex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb").try_into().unwrap();
        let key = SigningKey::from_seed(SecretKey::from_bytes(seed));
        assert_eq!(
            key.verifying_key().as_bytes()[..],
            hex("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c")
        );
        assert_eq!(
            key.sign(&[0x72])[..],
            hex(concat!(
                "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da",
                "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
            ))
        );
    }

    #[test]
    fn a_signature_fits_one_key_and_one_message() {
        let random = Seeded::new(3);
        let (key, other) = (SigningKey::generate(&random).unwrap(), SigningKey::generate(&random).unwrap());
        let signature = key.sign(b"snapshot");
        let public = VerifyingKey::from_bytes(*key.verifying_key().as_bytes()).unwrap();
        assert_eq!(public.verify(b"snapshot", &signature), Ok(()));
        assert_eq!(public.verify(b"snapshos", &signature), Err(CryptoError::Signature));
        assert_eq!(other.verifying_key().verify(b"snapshot", &signature), Err(CryptoError::Signature));
        for at in [0, 31, 32, 63] {
            let mut bad = signature;
            bad[at] ^= 1;
            assert_eq!(public.verify(b"snapshot", &bad), Err(CryptoError::Signature));
        }
    }

    #[test]
    fn a_signature_cannot_be_written_in_a_second_way() {
        let key = SigningKey::from_seed(SecretKey::from_bytes([1; 32]));
        let mut signature = key.sign(b"m");
        let order = hex("edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010");
        let mut carry = 0;
        for (byte, add) in signature[32..].iter_mut().zip(order) {
            let sum = u16::from(*byte) + u16::from(add) + carry;
            *byte = sum as u8;
            carry = sum >> 8;
        }
        assert_eq!(key.verifying_key().verify(b"m", &signature), Err(CryptoError::Signature));
    }

    #[test]
    fn weak_and_odd_public_keys_are_refused() {
        for mut y in SMALL_ORDER.into_iter().chain([FIELD, below_two_to_255(18), below_two_to_255(1)]) {
            y.reverse();
            assert!(VerifyingKey::from_bytes(y).is_err());
            y[31] |= 0x80;
            assert!(VerifyingKey::from_bytes(y).is_err());
        }
    }
}
