//! AES-256-GCM: encryption that notices every change.
//!
//! Two implementations of the same function. AWS-LC is some five times faster and serves the processors it is written
//! for; the `aes-gcm` crate serves all others and is the oracle of the tests.
//!
//! # Invariants
//! A nonce is used once with a key; that is the caller's duty. Opening what does not authenticate leaves no plaintext
//! behind.

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod fast;
#[cfg(any(test, not(any(target_arch = "x86_64", target_arch = "aarch64"))))]
mod portable;

use zeroize::Zeroize;

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use self::fast::Cipher;
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
use self::portable::Cipher;
use super::{CryptoError, SecretKey};
use crate::format::segment::TAG_LEN;

/// Length of a nonce in bytes.
pub const NONCE_LEN: usize = 12;

/// A key that is ready to encrypt.
#[derive(Debug)]
pub struct AeadKey(Cipher);

impl AeadKey {
    /// Prepares a key.
    pub fn new(key: &SecretKey) -> Self {
        Self(Cipher::new(key.expose()))
    }

    /// Encrypts `buf` where it is and returns the tag. `nonce` must never have been used with this key for other bytes.
    pub fn seal_in_place(
        &self,
        nonce: [u8; NONCE_LEN],
        aad: &[u8],
        buf: &mut [u8],
    ) -> Result<[u8; TAG_LEN], CryptoError> {
        let len = buf.len();
        self.0.seal(nonce, aad, buf).ok_or(CryptoError::TooLong { len })
    }

    /// Encrypts `plain` into `out`, which must be longer by the tag. `nonce` as for [`AeadKey::seal_in_place`].
    pub fn seal_into(
        &self,
        nonce: [u8; NONCE_LEN],
        aad: &[u8],
        plain: &[u8],
        out: &mut [u8],
    ) -> Result<(), CryptoError> {
        let len = plain.len();
        let sealed = match out.split_last_chunk_mut::<TAG_LEN>() {
            Some((body, tag)) if body.len() == len => self.0.seal_into(nonce, aad, plain, (body, tag)),
            _ => None,
        };
        sealed.ok_or(CryptoError::TooLong { len })
    }

    /// Opens `buf`, ciphertext and tag, where it is, and returns the length of the plaintext at its start.
    /// On failure `buf` is zeroed.
    pub fn open_in_place(
        &self,
        nonce: [u8; NONCE_LEN],
        aad: &[u8],
        buf: &mut [u8],
    ) -> Result<usize, CryptoError> {
        let opened = self.0.open_in_place(nonce, aad, buf);
        opened.ok_or_else(|| {
            buf.zeroize();
            CryptoError::Authentication
        })
    }

    /// Opens `sealed`, ciphertext and tag, into `out`, which must be shorter by the tag. On failure `out` is zeroed.
    pub fn open_into(
        &self,
        nonce: [u8; NONCE_LEN],
        aad: &[u8],
        sealed: &[u8],
        out: &mut [u8],
    ) -> Result<(), CryptoError> {
        let opened = match sealed.split_last_chunk::<TAG_LEN>() {
            Some((body, tag)) if body.len() == out.len() => self.0.open_into(nonce, aad, (body, tag), out),
            _ => None,
        };
        opened.ok_or_else(|| {
            out.zeroize();
            CryptoError::Authentication
        })
    }
}

#[cfg(test)]
mod tests;
