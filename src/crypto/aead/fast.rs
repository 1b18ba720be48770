//! AES-256-GCM by AWS-LC.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

use super::NONCE_LEN;
use crate::format::segment::TAG_LEN;

#[derive(Debug)]
pub(super) struct Cipher(LessSafeKey);

impl Cipher {
    pub(super) fn new(key: &[u8; 32]) -> Self {
        let key = UnboundKey::new(&AES_256_GCM, key).expect("32 bytes are a key of AES-256");
        Self(LessSafeKey::new(key))
    }

    pub(super) fn seal(&self, nonce: [u8; NONCE_LEN], aad: &[u8], buf: &mut [u8]) -> Option<[u8; TAG_LEN]> {
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = self.0.seal_in_place_separate_tag(nonce, Aad::from(aad), buf).ok()?;
        tag.as_ref().try_into().ok()
    }

    pub(super) fn seal_into(
        &self,
        nonce: [u8; NONCE_LEN],
        aad: &[u8],
        plain: &[u8],
        (body, tag): (&mut [u8], &mut [u8; TAG_LEN]),
    ) -> Option<()> {
        let nonce = Nonce::assume_unique_for_key(nonce);
        self.0.seal_out_of_place_scatter(nonce, Aad::from(aad), plain, body, &[], tag).ok()
    }

    pub(super) fn open_in_place(&self, nonce: [u8; NONCE_LEN], aad: &[u8], buf: &mut [u8]) -> Option<usize> {
        let nonce = Nonce::assume_unique_for_key(nonce);
        self.0.open_in_place(nonce, Aad::from(aad), buf).ok().map(|plain| plain.len())
    }

    pub(super) fn open_into(
        &self,
        nonce: [u8; NONCE_LEN],
        aad: &[u8],
        (body, tag): (&[u8], &[u8; TAG_LEN]),
        out: &mut [u8],
    ) -> Option<()> {
        let nonce = Nonce::assume_unique_for_key(nonce);
        self.0.open_separate_gather(nonce, Aad::from(aad), body, tag, out).ok()
    }
}
