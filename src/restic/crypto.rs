//! AES-256 in counter mode, then Poly1305-AES over the ciphertext: `IV 16 | ciphertext | code 16`.
//!
//! Poly1305-AES (Bernstein 2005): the one-time key is `r`, with some bits cleared, and the AES-128 encryption of the nonce
//! under `k`. Clearing the bits is part of Poly1305 itself.

use std::sync::Arc;

use aws_lc_rs::cipher::{
    AES_128, AES_256, DecryptingKey, DecryptionContext, EncryptingKey, EncryptionContext, UnboundCipherKey,
};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::iv::FixedLength;
use poly1305::Poly1305;
use poly1305::universal_hash::KeyInit;
use zeroize::Zeroizing;

use super::error::Fault;
use crate::id::ResticId;

/// Bytes of a sealed text before the ciphertext, and behind it.
const IV: usize = 16;
const CODE: usize = 16;
/// What sealing adds to a length.
pub(super) const OVERHEAD: usize = IV + CODE;
/// Memory of a key derivation: restic aims at 60 MiB.
const KDF_MEMORY_MAX: u64 = 1 << 30;
/// Work of a key derivation: about a minute.
const KDF_WORK_MAX: u64 = 1 << 27;

/// The three keys of a repository, or of a password. Clones share them.
#[derive(Clone)]
pub(super) struct Key(Arc<Parts>);

struct Parts {
    cipher: DecryptingKey,
    code: EncryptingKey,
    r: Zeroizing<[u8; 16]>,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key")
    }
}

/// What a password is derived with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct KdfCost {
    pub(super) n: u64,
    pub(super) r: u64,
    pub(super) p: u64,
}

impl Key {
    pub(super) fn new(encrypt: &[u8; 32], k: &[u8; 16], r: &[u8; 16]) -> Self {
        let bound = |algorithm, key: &[u8]| {
            UnboundCipherKey::new(algorithm, key).expect("the key has the length of its algorithm")
        };
        Self(Arc::new(Parts {
            cipher: DecryptingKey::ctr(bound(&AES_256, encrypt)).expect("AES has a counter mode"),
            code: EncryptingKey::ecb(bound(&AES_128, k)).expect("AES encrypts a block"),
            r: Zeroizing::new(*r),
        }))
    }

    /// The key of a password; `None` if its cost is out of bounds. Takes up to a minute and a gibibyte.
    pub(super) fn derive(password: &[u8], salt: &[u8], cost: KdfCost) -> Option<Self> {
        let KdfCost { n, r, p } = cost;
        // One block for each of `n` steps, and one for each of `p` lanes.
        let memory = n.checked_add(p)?.checked_mul(r)?.checked_mul(128)?;
        let work = n.checked_mul(r)?.checked_mul(p)?;
        if !n.is_power_of_two() || n < 2 || memory > KDF_MEMORY_MAX || work > KDF_WORK_MAX {
            return None;
        }
        // Within these bounds nothing overflows in there.
        let params =
            scrypt::Params::new(n.trailing_zeros() as u8, u32::try_from(r).ok()?, u32::try_from(p).ok()?);
        let mut bytes = Zeroizing::new([0; 64]);
        scrypt::scrypt(password, salt, &params.ok()?, &mut *bytes).ok()?;
        Self::from_bytes(&bytes)
    }

    fn from_bytes(bytes: &[u8; 64]) -> Option<Self> {
        let (encrypt, code) = bytes.split_first_chunk()?;
        let (k, r) = code.split_first_chunk()?;
        Some(Self::new(encrypt, k, r.first_chunk()?))
    }

    fn code(&self, iv: &[u8; IV], text: &[u8]) -> Option<[u8; CODE]> {
        let mut once = Zeroizing::new([0; 32]);
        once[..16].copy_from_slice(&*self.0.r);
        once[16..].copy_from_slice(iv);
        self.0.code.less_safe_encrypt(&mut once[16..], EncryptionContext::None).ok()?;
        Some(Poly1305::new((&*once).into()).compute_unpadded(text).into())
    }

    /// Opens in place, and gives the plaintext.
    pub(super) fn open<'a>(&self, sealed: &'a mut [u8]) -> Result<&'a mut [u8], Fault> {
        let (iv, rest) = sealed.split_first_chunk_mut::<IV>().ok_or(Fault::Truncated)?;
        let (text, code) = rest.split_last_chunk_mut::<CODE>().ok_or(Fault::Truncated)?;
        let expected = self.code(iv, text).ok_or(Fault::Authentication)?;
        verify_slices_are_equal(&expected, code).map_err(|_| Fault::Authentication)?;
        let context = DecryptionContext::Iv128(FixedLength::from(&*iv));
        self.0.cipher.decrypt(text, context).map_err(|_| Fault::Authentication)
    }
}

/// The name of these bytes.
pub(super) fn name_of(bytes: &[u8]) -> ResticId {
    let mut id = [0; 32];
    id.copy_from_slice(digest(&SHA256, bytes).as_ref());
    ResticId::new(id)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Seals for tests: counter mode is its own inverse.
    pub(in crate::restic) fn seal(key: &Key, iv: [u8; 16], plain: &[u8]) -> Vec<u8> {
        let mut text = plain.to_vec();
        let context = DecryptionContext::Iv128(FixedLength::from(&iv));
        key.0.cipher.decrypt(&mut text, context).unwrap();
        let code = key.code(&iv, &text).unwrap();
        [&iv[..], &text, &code].concat()
    }

    fn hex<const N: usize>(text: &str) -> [u8; N] {
        let bytes: Vec<u8> =
            (0..N).map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap()).collect();
        bytes.try_into().unwrap()
    }

    #[test]
    fn the_code_is_that_of_the_paper() {
        // Appendix B of "The Poly1305-AES message-authentication code".
        for (text, k, r, nonce, code) in [
            (
                "f3f6",
                "ec074c835580741701425b623235add6",
                "851fc40c3467ac0be05cc20404f3f700",
                "fb447350c4e868c52ac3275cf9d4327e",
                "f4c633c3044fc145f84f335cb81953de",
            ),
            (
                "",
                "75deaa25c09f208e1dc4ce6b5cad3fbf",
                "a0f3080000f46400d0c7e9076c834403",
                "61ee09218d29b0aaed7e154a2c5509cc",
                "dd3fab2251f11ac759f0887129cc2ee7",
            ),
            (
                "663cea190ffb83d89593f3f476b6bc24d7e679107ea26adb8caf6652d0656136",
                "6acb5f61a7176dd320c5c1eb2edcdc74",
                "48443d0bb0d21109c89a100b5ce2c208",
                "ae212a55399729595dea458bc621ff0e",
                "0ee1c16bb73f0f4fd19881753c01cdbe",
            ),
        ] {
            let key = Key::new(&[0; 32], &hex(k), &hex(r));
            let text: Vec<u8> = (0..text.len() / 2)
                .map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap())
                .collect();
            assert_eq!(key.code(&hex(nonce), &text), Some(hex(code)));
        }
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_found() {
        let key = Key::new(&[1; 32], &[2; 16], &[3; 16]);
        let sealed = seal(&key, [4; 16], b"a text that is longer than a block");
        assert_eq!(key.open(&mut sealed.clone()).unwrap(), b"a text that is longer than a block");
        for bit in 0..sealed.len() * 8 {
            let mut bad = sealed.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(key.open(&mut bad), Err(Fault::Authentication)), "bit {bit}");
        }
        for len in 0..sealed.len() {
            assert!(key.open(&mut sealed[..len].to_vec()).is_err(), "length {len}");
        }
    }

    #[test]
    fn a_derivation_out_of_bounds_is_refused() {
        for (n, r, p) in [
            (0, 8, 1),
            (1, 8, 1),
            (3, 8, 1),
            (1 << 40, 8, 1),
            (1 << 63, 8, 1),
            (1 << 15, 1 << 40, 1),
            (1 << 15, 8, 1 << 40),
            (1 << 15, 0, 1),
            (1 << 15, 8, 0),
            (2, 1 << 20, 1 << 20),
            (1 << 20, 8, 1 << 10),
            (2, 1, 1 << 26),
            (2, 1 << 13, 1 << 13),
        ] {
            assert!(Key::derive(b"x", b"salt", KdfCost { n, r, p }).is_none(), "{n} {r} {p}");
        }
        assert!(Key::derive(b"x", b"salt", KdfCost { n: 2, r: 8, p: 1 }).is_some());
    }
}
