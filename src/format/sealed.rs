//! `docs/format.md` sections 10 and 11: objects that say what they say to holders of a metadata key only.
//!
//! ```text
//! preamble 32 | head | salt 32 | data key length u16, data key | body length u32, body sealed | signature 64
//! ```
//!
//! The head is the kind's own: who wrote the object, and what its name says besides. The body's plaintext is length u32,
//! CBOR value, zeroes up to a PADME length.

use super::FormatError;
use super::envelope::{ChunkKind, ObjectKind, PREAMBLE_LEN, Preamble};
use super::pack::{DATA_KEY_MAX, padme};
use super::signed::SIGNATURE_LEN;
use super::wire::Reader;
use crate::id::RepositoryId;

/// What tells one kind of sealed objects from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SealedForm {
    /// The kind in the preamble, and in the additional data of the sealed body.
    pub kind: ObjectKind,
    /// The section of `docs/format.md`, for errors.
    pub section: &'static str,
    /// Most bytes of an object.
    pub max: usize,
}

impl SealedForm {
    /// The error that says which rule of this form was broken.
    pub const fn broken(&self, what: &'static str) -> FormatError {
        FormatError::Value { section: self.section, what }
    }

    /// Most bytes of a body: what is left beside preamble, data key and signature.
    pub(super) const fn body_max(&self) -> usize {
        self.max - DATA_KEY_MAX - 1024
    }

    /// The value in the plaintext of a body.
    pub(super) fn value<'a>(&self, body: &'a [u8]) -> Result<&'a [u8], FormatError> {
        let mut reader = Reader::new(body);
        let len = reader.u32()? as usize;
        let value = reader.bytes(len)?;
        if reader.bytes(reader.remaining())?.iter().any(|byte| *byte != 0) {
            return Err(self.broken("padding"));
        }
        Ok(value)
    }
}

/// The plaintext of a body with this value.
pub(super) fn padded_body(value: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(padme(value.len() + 4));
    out.extend_from_slice(&(value.len() as u32).to_le_bytes());
    out.extend_from_slice(value);
    out.resize(padme(out.len()), 0);
    out
}

/// What follows the head of a sealed object; nothing in it may be believed before the signature is checked.
#[derive(Debug, Clone)]
pub struct SealedObject<'a> {
    /// What kind of object it is.
    pub form: SealedForm,
    /// Salt of the body's key.
    pub salt: [u8; 32],
    /// The sealed metadata key the body's key comes from.
    pub data_key: &'a [u8],
    /// The body, sealed.
    pub body: &'a [u8],
    /// What the signature covers; empty in one that is to be signed.
    pub message: &'a [u8],
    /// The author's signature; zero in one that is to be signed.
    pub signature: [u8; SIGNATURE_LEN],
}

impl<'a> SealedObject<'a> {
    /// An object that is to be signed.
    pub const fn unsigned(form: SealedForm, salt: [u8; 32], data_key: &'a [u8], body: &'a [u8]) -> Self {
        Self { form, salt, data_key, body, message: &[], signature: [0; SIGNATURE_LEN] }
    }

    /// The bytes to sign: everything but the signature.
    pub(super) fn encode_unsigned(&self, repository: RepositoryId, head: &[&[u8]]) -> Vec<u8> {
        let preamble = Preamble::new(self.form.kind, ChunkKind::Tree, repository);
        let mut out = preamble.encode().to_vec();
        head.iter().for_each(|field| out.extend_from_slice(field));
        out.extend_from_slice(&self.salt);
        out.extend_from_slice(&(self.data_key.len() as u16).to_le_bytes());
        out.extend_from_slice(self.data_key);
        out.extend_from_slice(&(self.body.len() as u32).to_le_bytes());
        out.extend_from_slice(self.body);
        out
    }

    /// Takes an object apart; `head` reads what the kind has of its own.
    pub(super) fn decode<H>(
        form: SealedForm,
        bytes: &'a [u8],
        repository: &RepositoryId,
        head: impl FnOnce(&mut Reader<'a>) -> Result<H, FormatError>,
    ) -> Result<(H, Self), FormatError> {
        Preamble::expect(bytes, form.kind, repository)?;
        let mut reader = Reader::new(bytes);
        reader.bytes(PREAMBLE_LEN)?;
        let head = head(&mut reader)?;
        let salt = reader.array()?;
        let key_len = reader.u16()? as usize;
        if key_len > DATA_KEY_MAX {
            return Err(form.broken("length of a sealed data key"));
        }
        let data_key = reader.bytes(key_len)?;
        let body_len = reader.u32()? as usize;
        let body = reader.bytes(body_len)?;
        let signature = reader.array()?;
        reader.finish()?;
        let message = bytes.get(..bytes.len() - SIGNATURE_LEN).ok_or(FormatError::Truncated)?;
        Ok((head, Self { form, salt, data_key, body, message, signature }))
    }
}
