//! AES-256-GCM by the `aes-gcm` crate.

use aes_gcm::aead::AeadInOut;
use aes_gcm::{Aes256Gcm, KeyInit};

use super::NONCE_LEN;
use crate::format::segment::TAG_LEN;

pub(super) struct Cipher(Aes256Gcm);

impl std::fmt::Debug for Cipher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Cipher(..)")
    }
}

impl Cipher {
    pub(super) fn new(key: &[u8; 32]) -> Self {
        Self(Aes256Gcm::new(key.into()))
    }

    pub(super) fn seal(&self, nonce: [u8; NONCE_LEN], aad: &[u8], buf: &mut [u8]) -> Option<[u8; TAG_LEN]> {
        self.0.encrypt_inout_detached(&nonce.into(), aad, buf.into()).ok().map(Into::into)
    }

    pub(super) fn seal_into(
        &self,
        nonce: [u8; NONCE_LEN],
        aad: &[u8],
        plain: &[u8],
        (body, tag): (&mut [u8], &mut [u8; TAG_LEN]),
    ) -> Option<()> {
        body.copy_from_slice(plain);
        *tag = self.seal(nonce, aad, body)?;
        Some(())
    }

    pub(super) fn open_in_place(&self, nonce: [u8; NONCE_LEN], aad: &[u8], buf: &mut [u8]) -> Option<usize> {
        let (body, tag) = buf.split_last_chunk_mut::<TAG_LEN>()?;
        let tag = *tag;
        let len = body.len();
        self.0.decrypt_inout_detached(&nonce.into(), aad, body.into(), &tag.into()).ok().map(|()| len)
    }

    pub(super) fn open_into(
        &self,
        nonce: [u8; NONCE_LEN],
        aad: &[u8],
        (body, tag): (&[u8], &[u8; TAG_LEN]),
        out: &mut [u8],
    ) -> Option<()> {
        out.copy_from_slice(body);
        self.0.decrypt_inout_detached(&nonce.into(), aad, out.into(), &(*tag).into()).ok()
    }
}
