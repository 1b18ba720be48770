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
use super::envelope::ObjectKind;
use super::sealed::{SealedForm, SealedObject, padded_body};
use super::wire::Reader;
use crate::id::{RepositoryId, SnapshotId, WriterId};

/// How a labels object is sealed.
pub const LABELS: SealedForm = SealedForm { kind: ObjectKind::Labels, section: "11", max: 1 << 20 };
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
        padded_body(&value)
    }

    /// Reads the plaintext of a body.
    pub fn decode_body(bytes: &[u8]) -> Result<Self, FormatError> {
        let value = LABELS.value(bytes)?;
        let (mut snapshot, mut number, mut tags) = (None, None, None);
        let mut d = Cbor::new(value, LABELS.section, "labels");
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
        let missing = || LABELS.broken("labels");
        let ((snapshot, number), tags) = snapshot.zip(number).zip(tags).ok_or_else(missing)?;
        Ok(Self { snapshot, number, tags })
    }

    /// Demands that a reader accepts what [`Self::encode_body`] makes of this.
    pub fn check(&self) -> Result<(), FormatError> {
        let body = self.encode_body();
        if body.len() > LABELS.body_max() {
            return Err(LABELS.broken("length of the labels"));
        }
        Self::decode_body(&body).map(|_| ())
    }
}

/// A labels object taken apart; nothing in it may be believed before the signature is checked.
#[derive(Debug, Clone)]
pub struct LabelsObject<'a> {
    /// Who wrote it.
    pub author: WriterId,
    /// The rest, which a reader of the repository can open.
    pub sealed: SealedObject<'a>,
}

impl<'a> LabelsObject<'a> {
    /// The bytes to sign.
    pub fn encode_unsigned(&self, repository: RepositoryId) -> Vec<u8> {
        self.sealed.encode_unsigned(repository, &[self.author.as_bytes()])
    }

    /// Takes an object apart.
    pub fn decode(bytes: &'a [u8], repository: &RepositoryId) -> Result<Self, FormatError> {
        let author = |reader: &mut Reader<'_>| Ok(WriterId::new(reader.array()?));
        let (author, sealed) = SealedObject::decode(LABELS, bytes, repository, author)?;
        Ok(Self { author, sealed })
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
