//! `docs/format.md` section 8: signed objects, a preamble, a CBOR value in clear and an Ed25519 signature over both.
//!
//! ```text
//! preamble 32 | length u32 | CBOR value | signature 64
//! ```

use super::FormatError;
use super::envelope::{ObjectKind, PREAMBLE_LEN, Preamble};
use super::wire::Reader;
use crate::id::RepositoryId;

/// Length of an Ed25519 signature.
pub const SIGNATURE_LEN: usize = 64;
/// Most bytes of a signed object.
pub const SIGNED_MAX: usize = 16 << 20;

/// A signed object taken apart; nothing in it may be believed before the signature is checked.
#[derive(Debug, Clone, Copy)]
pub struct Signed<'a> {
    /// What the signature covers: preamble, length and value.
    pub message: &'a [u8],
    /// The CBOR value.
    pub value: &'a [u8],
    /// The signature.
    pub signature: [u8; SIGNATURE_LEN],
}

/// The bytes to sign: preamble, length and value.
pub fn signed_message(preamble: Preamble, value: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(PREAMBLE_LEN + 4 + value.len() + SIGNATURE_LEN);
    out.extend_from_slice(&preamble.encode());
    out.extend_from_slice(&(value.len() as u32).to_le_bytes());
    out.extend_from_slice(value);
    out
}

impl<'a> Signed<'a> {
    /// Takes an object of this kind apart; `repository` is `None` only while the first config is being read.
    pub fn decode(
        bytes: &'a [u8],
        kind: ObjectKind,
        repository: Option<&RepositoryId>,
    ) -> Result<(Preamble, Self), FormatError> {
        let found = Preamble::decode(bytes)?;
        let preamble = Preamble::expect(bytes, kind, repository.unwrap_or(&found.repository))?;
        let mut reader = Reader::new(bytes);
        reader.bytes(PREAMBLE_LEN)?;
        let len = reader.u32()? as usize;
        let value = reader.bytes(len)?;
        let signature = reader.array()?;
        reader.finish()?;
        let message = bytes.get(..PREAMBLE_LEN + 4 + len).ok_or(FormatError::Truncated)?;
        Ok((preamble, Self { message, value, signature }))
    }
}
