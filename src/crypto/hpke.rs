//! Sealing to a public key: HPKE (RFC 9180) in base mode with X-Wing, HKDF-SHA256 and AES-256-GCM.
//!
//! Algorithm numbers: KEM 0x647a, KDF 0x0001, AEAD 0x0002. Stored forms, all of fixed length:
//! * public key, 1216 bytes: ML-KEM-768 encapsulation key (1184), X25519 public key (32);
//! * private key, 32 bytes: the X-Wing seed, which SHAKE-256 expands to the 64 bytes of an ML-KEM-768 seed and the
//!   32 of an X25519 private key;
//! * sealed: encapsulation, 1120 bytes (ML-KEM-768 ciphertext 1088, X25519 ephemeral key 32), then ciphertext and tag.
//!
//! One message is sealed with each encapsulation: sequence number 0, empty associated data.

use std::convert::Infallible;
use std::fmt;
use std::sync::{Arc, OnceLock};

use hpke::aead::AesGcm256;
use hpke::kdf::HkdfSha256;
use hpke::kem::{Kem, XWing};
use hpke::rand_core::{TryCryptoRng, TryRng};
use hpke::{Deserializable, OpModeR, OpModeS, Serializable};
use zeroize::Zeroizing;

use super::{CryptoError, SecretKey, context};
use crate::format::datakey::RecipientId;
use crate::random::Random;

/// Length of a public key in bytes.
pub const PUBLIC_LEN: usize = 1216;

/// Length of an encapsulation in bytes.
pub const ENCAPSULATION_LEN: usize = 1120;

/// Bytes that sealing adds to a plaintext.
pub const OVERHEAD: usize = ENCAPSULATION_LEN + 16;

/// Where secrets can be sealed to.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey {
    key: <XWing as Kem>::PublicKey,
    id: RecipientId,
}

impl PublicKey {
    fn new(key: <XWing as Kem>::PublicKey) -> Self {
        let hash = blake3::hash(&key.to_bytes());
        let mut id = [0; 16];
        id.copy_from_slice(&hash.as_bytes()[..16]);
        Self { key, id: RecipientId::new(id) }
    }

    /// Reads and checks the stored form.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, CryptoError> {
        let key = <XWing as Kem>::PublicKey::from_bytes(bytes);
        key.map(Self::new).map_err(|_| CryptoError::PublicKey { what: "the sealing key" })
    }

    /// The stored form, [`PUBLIC_LEN`] bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.key.to_bytes().to_vec()
    }

    /// The key's name.
    pub const fn id(&self) -> RecipientId {
        self.id
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", self.id)
    }
}

/// Opens what was sealed to its public key.
#[derive(Clone)]
pub struct PrivateKey(Arc<Expanded>);

/// Lattice keys are made from the seed when they are first asked for, and once: each time costs as much as opening does.
struct Expanded {
    seed: SecretKey,
    private: OnceLock<<XWing as Kem>::PrivateKey>,
    public: OnceLock<PublicKey>,
}

impl PrivateKey {
    /// A fresh key.
    pub fn generate(random: &dyn Random) -> Result<Self, CryptoError> {
        let input = SecretKey::generate(random)?;
        let (key, _) = XWing::derive_keypair(input.expose());
        Ok(Self::from_seed(SecretKey::from_bytes(key.to_bytes().into())))
    }

    /// Takes the stored form; any 32 bytes are a key.
    pub fn from_seed(seed: SecretKey) -> Self {
        Self(Arc::new(Expanded { seed, private: OnceLock::new(), public: OnceLock::new() }))
    }

    /// The stored form.
    pub fn seed(&self) -> &SecretKey {
        &self.0.seed
    }

    /// The public half.
    pub fn public_key(&self) -> &PublicKey {
        self.0.public.get_or_init(|| PublicKey::new(XWing::sk_to_pk(self.expanded())))
    }

    fn expanded(&self) -> &<XWing as Kem>::PrivateKey {
        self.0.private.get_or_init(|| {
            let seed = self.0.seed.expose();
            <XWing as Kem>::PrivateKey::from_bytes(seed).expect("any 32 bytes are a private key")
        })
    }
}

impl PartialEq for PrivateKey {
    fn eq(&self, other: &Self) -> bool {
        self.0.seed == other.0.seed
    }
}

impl Eq for PrivateKey {}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PrivateKey").field(&self.0.seed).finish()
    }
}

/// Seals a plaintext to a public key, bound to `info`.
pub fn seal(
    to: &PublicKey,
    info: &[u8],
    plaintext: &[u8],
    random: &dyn Random,
) -> Result<Vec<u8>, CryptoError> {
    let mut stream = Stream::new(random)?;
    let (encapsulation, sealed) = hpke::single_shot_seal_with_rng::<AesGcm256, HkdfSha256, XWing>(
        &OpModeS::Base,
        &to.key,
        info,
        plaintext,
        &[],
        &mut stream,
    )
    .map_err(|_| CryptoError::TooLong { len: plaintext.len() })?;
    Ok([&encapsulation.to_bytes()[..], &sealed].concat())
}

/// Opens what [`seal`] made with the same `info`.
pub fn open(key: &PrivateKey, info: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, CryptoError> {
    let (encapsulation, body) =
        sealed.split_at_checked(ENCAPSULATION_LEN).ok_or(CryptoError::Authentication)?;
    let encapsulation =
        <XWing as Kem>::EncappedKey::from_bytes(encapsulation).map_err(|_| CryptoError::Authentication)?;
    hpke::single_shot_open::<AesGcm256, HkdfSha256, XWing>(
        &OpModeR::Base,
        key.expanded(),
        &encapsulation,
        info,
        body,
        &[],
    )
    .map(Zeroizing::new)
    .map_err(|_| CryptoError::Authentication)
}

/// The `hpke` crate wants a generator that cannot fail; this one has drawn its seed before.
struct Stream(blake3::OutputReader);

impl Stream {
    fn new(random: &dyn Random) -> Result<Self, CryptoError> {
        let seed = SecretKey::generate(random)?.derive(context::ENCAPSULATION);
        Ok(Self(blake3::Hasher::new_keyed(seed.expose()).finalize_xof()))
    }
}

impl TryRng for Stream {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut bytes = [0; 4];
        self.0.fill(&mut bytes);
        Ok(u32::from_le_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes);
        Ok(u64::from_le_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Infallible> {
        self.0.fill(out);
        Ok(())
    }
}

impl TryCryptoRng for Stream {}

#[cfg(test)]
mod tests {
    use super::super::testing::{Broken, Seeded, to_hex};
    use super::*;

    #[test]
    fn the_public_key_of_a_seed_is_fixed() {
        let private = PrivateKey::from_seed(SecretKey::from_bytes([5; 32]));
        let public = private.public_key();
        assert_eq!(public.to_bytes().len(), PUBLIC_LEN);
        assert_eq!(public.id().to_string(), "7e0b8eb7458a4cca12c74baa0df4c10c");
        assert_eq!(PublicKey::from_bytes(&public.to_bytes()).as_ref(), Ok(public));
    }

    #[test]
    fn sealed_bytes_open_with_the_private_key_and_the_same_info_only() {
        let random = Seeded::new(4);
        let (key, other) = (PrivateKey::generate(&random).unwrap(), PrivateKey::generate(&random).unwrap());
        for len in [0, 1, 32, 5000] {
            let plain = vec![0x5a; len];
            let sealed = seal(key.public_key(), b"info", &plain, &random).unwrap();
            assert_eq!(sealed.len(), len + OVERHEAD);
            assert_eq!(*open(&key, b"info", &sealed).unwrap(), plain);
            assert_eq!(open(&other, b"info", &sealed), Err(CryptoError::Authentication));
            assert_eq!(open(&key, b"inf", &sealed), Err(CryptoError::Authentication));
        }
    }

    #[test]
    fn every_part_of_the_sealed_bytes_is_protected() {
        let random = Seeded::new(5);
        let key = PrivateKey::generate(&random).unwrap();
        let sealed = seal(key.public_key(), b"", b"secret", &random).unwrap();
        for at in [0, 1087, 1088, 1119, 1120, 1125, 1126, sealed.len() - 1] {
            let mut bad = sealed.clone();
            bad[at] ^= 1;
            assert_eq!(open(&key, b"", &bad), Err(CryptoError::Authentication), "{at}");
        }
        for len in [0, 1119, 1120, 1135, sealed.len() - 1] {
            assert_eq!(open(&key, b"", &sealed[..len]), Err(CryptoError::Authentication), "{len}");
        }
    }

    #[test]
    fn two_sealings_differ_and_fixed_randomness_gives_fixed_bytes() {
        let key = PrivateKey::from_seed(SecretKey::from_bytes([5; 32]));
        let random = Seeded::new(6);
        let (a, b) = (seal(key.public_key(), b"", b"x", &random), seal(key.public_key(), b"", b"x", &random));
        assert_ne!(a, b);
        assert_eq!(to_hex(&blake3::hash(&a.unwrap()).as_bytes()[..8]), "8eabd6f19900b737");
        assert_eq!(
            seal(key.public_key(), b"", b"x", &Broken),
            Err(CryptoError::Random(crate::random::RandomError))
        );
    }

    #[test]
    fn public_keys_that_are_not_keys_are_refused() {
        let good = PrivateKey::from_seed(SecretKey::from_bytes([5; 32])).public_key().to_bytes();
        for bad in [&good[1..], &[], &[0xff; PUBLIC_LEN][..]] {
            assert_eq!(PublicKey::from_bytes(bad), Err(CryptoError::PublicKey { what: "the sealing key" }));
        }
    }
}
