//! `docs/format.md` section 13: a data key, sealed to those who may read what it protects.

use std::fmt;

use super::FormatError;
use super::envelope::ChunkKind;
use super::wire::Reader;
use crate::id::{RepositoryId, RunId};

/// Length of a data key sealed to one recipient: the encapsulation (1120), the key (32), the tag (16).
pub const SEALED_LEN: usize = 1120 + 32 + 16;

/// Most recipients a data key may have.
pub const RECIPIENTS_MAX: usize = 16;

/// Name of a sealing public key: the first 16 bytes of its BLAKE3.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecipientId([u8; 16]);

impl RecipientId {
    /// Takes the binary form.
    pub const fn new(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The binary form.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for RecipientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for RecipientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RecipientId({self})")
    }
}

/// The key of one run and kind in its sealed forms.
///
/// Stored form: run (16), kind (1), commitment (32), number of recipients (1, at least 1), then for each recipient in
/// ascending order its id (16) and the sealed key ([`SEALED_LEN`]).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedDataKey {
    run: RunId,
    kind: ChunkKind,
    commitment: [u8; 32],
    recipients: Vec<(RecipientId, Box<[u8; SEALED_LEN]>)>,
}

impl SealedDataKey {
    /// Puts the recipients in order. Fails without recipients, with too many, and with one twice.
    pub fn new(
        run: RunId,
        kind: ChunkKind,
        commitment: [u8; 32],
        mut recipients: Vec<(RecipientId, Box<[u8; SEALED_LEN]>)>,
    ) -> Result<Self, FormatError> {
        recipients.sort_by_key(|(recipient, _)| *recipient);
        let ascending = recipients.windows(2).all(|pair| pair[0].0 < pair[1].0);
        if recipients.is_empty() || recipients.len() > RECIPIENTS_MAX || !ascending {
            return Err(FormatError::Value { section: "13", what: "recipients of a data key" });
        }
        Ok(Self { run, kind, commitment, recipients })
    }

    /// The run that made the key.
    pub const fn run(&self) -> RunId {
        self.run
    }

    /// What the key protects.
    pub const fn kind(&self) -> ChunkKind {
        self.kind
    }

    /// Keyed hash of the key over `commit`.
    pub const fn commitment(&self) -> &[u8; 32] {
        &self.commitment
    }

    /// Who can open it, in ascending order.
    pub fn recipients(&self) -> impl Iterator<Item = RecipientId> {
        self.recipients.iter().map(|(recipient, _)| *recipient)
    }

    /// The form for one recipient.
    pub fn sealed_to(&self, recipient: RecipientId) -> Option<&[u8; SEALED_LEN]> {
        let at = self.recipients.binary_search_by_key(&recipient, |(found, _)| *found).ok()?;
        Some(&self.recipients[at].1)
    }

    /// Length of the stored form in bytes.
    pub fn encoded_len(&self) -> usize {
        50 + self.recipients.len() * (16 + SEALED_LEN)
    }

    /// Appends the stored form.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.run.as_bytes());
        out.push(self.kind as u8);
        out.extend_from_slice(&self.commitment);
        // `new` keeps the number below RECIPIENTS_MAX.
        out.push(self.recipients.len() as u8);
        for (recipient, sealed) in &self.recipients {
            out.extend_from_slice(recipient.as_bytes());
            out.extend_from_slice(&sealed[..]);
        }
    }

    /// Reads the stored form and leaves the reader behind it.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, FormatError> {
        let run = RunId::new(reader.array()?);
        let kind = ChunkKind::from_number(reader.u8()?)
            .ok_or(FormatError::Value { section: "13", what: "kind of a data key" })?;
        let commitment = reader.array()?;
        let count = usize::from(reader.u8()?);
        if count == 0 || count > RECIPIENTS_MAX {
            return Err(FormatError::Value { section: "13", what: "recipients of a data key" });
        }
        let mut recipients = Vec::with_capacity(count);
        for _ in 0..count {
            let recipient = RecipientId::new(reader.array()?);
            if recipients.last().is_some_and(|(last, _)| *last >= recipient) {
                return Err(FormatError::Value { section: "13", what: "order of recipients" });
            }
            recipients.push((recipient, Box::new(reader.array()?)));
        }
        Ok(Self { run, kind, commitment, recipients })
    }
}

/// What a sealed data key is bound to, the HPKE `info`: 70 bytes. `lifeboat v1 data key` (20), suite (1), repository (16),
/// run (16), kind (1), recipient (16). Never the pack, so that a pack's segments can move.
pub fn data_key_info(
    repository: &RepositoryId,
    run: &RunId,
    kind: ChunkKind,
    recipient: &RecipientId,
) -> [u8; 70] {
    let mut info = [0; 70];
    info[..20].copy_from_slice(b"lifeboat v1 data key");
    info[20] = 1; // suite
    info[21..37].copy_from_slice(repository.as_bytes());
    info[37..53].copy_from_slice(run.as_bytes());
    info[53] = kind as u8;
    info[54..].copy_from_slice(recipient.as_bytes());
    info
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> SealedDataKey {
        let rows = [5, 3].map(|byte| (RecipientId::new([byte; 16]), Box::new([byte; SEALED_LEN])));
        SealedDataKey::new(RunId::new([1; 16]), ChunkKind::Tree, [2; 32], rows.to_vec()).unwrap()
    }

    #[test]
    fn the_stored_form_is_exact_and_ordered() {
        let mut bytes = Vec::new();
        example().encode(&mut bytes);
        let expected =
            [&[1; 16][..], &[1], &[2; 32], &[2], &[3; 16], &[3; SEALED_LEN], &[5; 16], &[5; SEALED_LEN]]
                .concat();
        assert_eq!(bytes, expected);
        assert_eq!(bytes.len(), example().encoded_len());
        let mut reader = Reader::new(&bytes);
        assert_eq!(SealedDataKey::decode(&mut reader), Ok(example()));
        assert_eq!(reader.finish(), Ok(()));
    }

    #[test]
    fn broken_forms_are_refused() {
        let mut good = Vec::new();
        example().encode(&mut good);
        let broken = |at: usize, byte: u8| {
            let mut bad = good.clone();
            bad[at] = byte;
            SealedDataKey::decode(&mut Reader::new(&bad))
        };
        assert!(broken(16, 2).is_err(), "kind");
        assert!(broken(49, 0).is_err(), "no recipients");
        assert!(broken(49, 17).is_err(), "too many recipients");
        assert_eq!(broken(49, 3), Err(FormatError::Truncated));
        assert!(broken(50, 9).is_err(), "descending");
        for cut in [0, 16, 49, 50, good.len() - 1] {
            assert_eq!(SealedDataKey::decode(&mut Reader::new(&good[..cut])), Err(FormatError::Truncated));
        }
    }

    #[test]
    fn recipients_are_few_and_different() {
        let make = |ids: &[u8]| {
            let rows = ids.iter().map(|id| (RecipientId::new([*id; 16]), Box::new([0; SEALED_LEN])));
            SealedDataKey::new(RunId::new([0; 16]), ChunkKind::Data, [0; 32], rows.collect())
        };
        assert!(make(&[]).is_err());
        assert!(make(&[1, 2, 1]).is_err());
        assert!(make(&(0..17).collect::<Vec<_>>()).is_err());
        let key = make(&(0..16).rev().collect::<Vec<_>>()).unwrap();
        assert_eq!(key.recipients().count(), 16);
        assert!(key.sealed_to(RecipientId::new([15; 16])).is_some());
        assert!(key.sealed_to(RecipientId::new([16; 16])).is_none());
    }

    #[test]
    fn the_info_holds_every_part_in_its_place() {
        let info = data_key_info(
            &RepositoryId::new([1; 16]),
            &RunId::new([2; 16]),
            ChunkKind::Tree,
            &RecipientId::new([3; 16]),
        );
        let expected = [&b"lifeboat v1 data key"[..], &[1], &[1; 16], &[2; 16], &[1], &[3; 16]].concat();
        assert_eq!(info[..], expected);
    }
}
