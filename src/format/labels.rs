//! `docs/format.md` section 11: tags given to a snapshot after it was made.
//!
//! ```text
//! preamble 32 | writer 16 | salt 32 | data key length u16, data key | body length u32, body sealed | signature 64
//! ```
//!
//! # Invariants
//! Sealed as snapshots are: who cannot read a snapshot learns nothing of its tags.

use super::FormatError;
use super::cbor::{Cbor, encode};
use super::envelope::{ChunkKind, ObjectKind, PREAMBLE_LEN, Preamble};
use super::pack::{DATA_KEY_MAX, padme};
use super::signed::SIGNATURE_LEN;
use super::wire::Reader;
use crate::id::{RepositoryId, SnapshotId, WriterId};

const SECTION: &str = "11";

/// Most bytes of a labels object.
pub const LABELS_MAX: usize = 1 << 20;
/// Most bytes of a body: what is left beside preamble, data key and signature.
const BODY_MAX: usize = LABELS_MAX - DATA_KEY_MAX - 1024;
const TEXT_MAX: usize = 64 << 10;
const LIST_MAX: u64 = 16 << 10;

/// The tags that a snapshot has from now on: the plaintext of a labels object's body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Labels {
    /// The snapshot, the same as in the name.
    pub snapshot: SnapshotId,
    /// Of several labels of one snapshot those with the highest number count.
    pub number: u64,
    /// All tags, `key` or `key=value`; those in the snapshot itself count no more.
    pub tags: Vec<String>,
}

impl Labels {
    /// The plaintext of the body: length, CBOR value, zeroes up to a PADME length.
    pub fn encode_body(&self) -> Vec<u8> {
        let value = encode(|e| {
            e.map(3)?.u8(0)?.bytes(self.snapshot.as_bytes())?.u8(1)?.u64(self.number)?;
            e.u8(2)?.array(self.tags.len() as u64)?;
            for tag in &self.tags {
                e.str(tag)?;
            }
            Ok(())
        });
        let mut out = Vec::with_capacity(padme(value.len() + 4));
        out.extend_from_slice(&(value.len() as u32).to_le_bytes());
        out.extend_from_slice(&value);
        out.resize(padme(out.len()), 0);
        out
    }

    /// Reads the plaintext of a body.
    pub fn decode_body(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut reader = Reader::new(bytes);
        let len = reader.u32()? as usize;
        let value = reader.bytes(len)?;
        if reader.bytes(reader.remaining())?.iter().any(|byte| *byte != 0) {
            return Err(FormatError::Value { section: SECTION, what: "padding" });
        }
        let (mut snapshot, mut number, mut tags) = (None, None, None);
        let mut d = Cbor::new(value, SECTION, "labels");
        d.map(|d, key| {
            match key {
                0 => snapshot = Some(SnapshotId::new(d.fixed()?)),
                1 => number = Some(d.u64()?),
                2 => tags = Some(d.array(LIST_MAX, |d| d.text(TEXT_MAX))?),
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        d.finish(value.len())?;
        let missing = FormatError::Value { section: SECTION, what: "labels" };
        let ((snapshot, number), tags) = snapshot.zip(number).zip(tags).ok_or(missing)?;
        Ok(Self { snapshot, number, tags })
    }

    /// Demands that a reader accepts what [`Self::encode_body`] makes of this.
    pub fn check(&self) -> Result<(), FormatError> {
        let body = self.encode_body();
        if body.len() > BODY_MAX {
            return Err(FormatError::Value { section: SECTION, what: "length of the labels" });
        }
        Self::decode_body(&body).map(|_| ())
    }
}

/// A labels object taken apart; nothing in it may be believed before the signature is checked.
#[derive(Debug, Clone)]
pub struct LabelsObject<'a> {
    /// Who wrote it.
    pub author: WriterId,
    /// Salt of the body's key.
    pub salt: [u8; 32],
    /// The sealed metadata key the body's key comes from.
    pub data_key: &'a [u8],
    /// The body, sealed.
    pub body: &'a [u8],
    /// What the signature covers.
    pub message: &'a [u8],
    /// The author's signature.
    pub signature: [u8; SIGNATURE_LEN],
}

impl<'a> LabelsObject<'a> {
    /// The bytes to sign.
    pub fn encode_unsigned(&self, repository: RepositoryId) -> Vec<u8> {
        let preamble = Preamble::new(ObjectKind::Labels, ChunkKind::Tree, repository);
        let mut out = preamble.encode().to_vec();
        out.extend_from_slice(self.author.as_bytes());
        out.extend_from_slice(&self.salt);
        out.extend_from_slice(&(self.data_key.len() as u16).to_le_bytes());
        out.extend_from_slice(self.data_key);
        out.extend_from_slice(&(self.body.len() as u32).to_le_bytes());
        out.extend_from_slice(self.body);
        out
    }

    /// Takes an object apart.
    pub fn decode(bytes: &'a [u8], repository: &RepositoryId) -> Result<Self, FormatError> {
        Preamble::expect(bytes, ObjectKind::Labels, repository)?;
        let mut reader = Reader::new(bytes);
        reader.bytes(PREAMBLE_LEN)?;
        let author = WriterId::new(reader.array()?);
        let salt = reader.array()?;
        let key_len = reader.u16()? as usize;
        if key_len > DATA_KEY_MAX {
            return Err(FormatError::Value { section: SECTION, what: "length of a sealed data key" });
        }
        let data_key = reader.bytes(key_len)?;
        let body_len = reader.u32()? as usize;
        let body = reader.bytes(body_len)?;
        let signature = reader.array()?;
        reader.finish()?;
        let message = bytes.get(..bytes.len() - SIGNATURE_LEN).ok_or(FormatError::Truncated)?;
        Ok(Self { author, salt, data_key, body, message, signature })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_reader_accepts_is_made() {
        let labels = |tags| Labels { snapshot: SnapshotId::new([1; 32]), number: 3, tags };
        let good = labels(vec!["a".to_owned(), "k=v".to_owned()]);
        assert_eq!(Labels::decode_body(&good.encode_body()), Ok(good.clone()));
        assert_eq!(good.check(), Ok(()));
        assert!(labels(vec!["x".repeat(TEXT_MAX + 1)]).check().is_err());
        assert!(labels(vec![String::new(); LIST_MAX as usize + 1]).check().is_err());
        assert!(labels(vec!["x".repeat(TEXT_MAX); 20]).check().is_err());
    }
}
