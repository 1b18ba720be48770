//! `docs/format.md` section 12: a key slot, one way to unlock the secrets of one role.
//!
//! The object is a preamble and one CBOR map: 0 kind, 1 role, 2 `[memory KiB, passes, lanes]` (passphrase only), 3 salt
//! (32 bytes), 4 commitment (32 bytes), 5 the sealed secrets, 6 the sealed note (272 bytes; may be absent).

use std::fmt;

use minicbor::{Decoder, Encoder};

use super::FormatError;
use super::envelope::{ObjectKind, PREAMBLE_LEN, Preamble};
use crate::id::WriterId;

/// Most bytes of a whole slot.
pub const SLOT_MAX: usize = 64 << 10;

/// Most bytes of a label.
pub const LABEL_MAX: usize = 128;
/// Bytes of a note's plaintext: all notes look the same from outside.
pub const NOTE_LEN: usize = 256;
/// Bytes of a sealed note.
pub const SEALED_NOTE_LEN: usize = NOTE_LEN + 16;

const WHAT: &str = "key slot";
const SECTION: &str = "12";

/// What unlocks a slot. The number is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum SlotKind {
    /// Something a person remembers, stretched.
    Passphrase = 1,
    /// 256 random bits in a file.
    KeyFile = 2,
    /// 256 random bits as 24 words on paper.
    Words = 3,
}

impl SlotKind {
    const ALL: [Self; 3] = [Self::Passphrase, Self::KeyFile, Self::Words];
}

impl fmt::Display for SlotKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Passphrase => "passphrase",
            Self::KeyFile => "key file",
            Self::Words => "set of recovery words",
        })
    }
}

/// What the holder of a slot's secrets may do. The number is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Role {
    /// Backs up, and cannot read what it wrote.
    Writer = 1,
    /// Collects garbage without reading a file.
    Maintainer = 2,
    /// Checks what is stored.
    Verifier = 3,
    /// Restores.
    Reader = 4,
    /// All of it, and signs the config.
    Admin = 5,
}

impl Role {
    /// All roles.
    pub const ALL: [Self; 5] = [Self::Writer, Self::Maintainer, Self::Verifier, Self::Reader, Self::Admin];

    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Writer => "writer",
            Self::Maintainer => "maintainer",
            Self::Verifier => "verifier",
            Self::Reader => "reader",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Cost of stretching a passphrase, as stored; not checked against floor and cap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredCost {
    /// KiB of memory.
    pub memory_kib: u32,
    /// Passes over it.
    pub passes: u32,
    /// Independent lanes.
    pub lanes: u32,
}

/// A key slot's fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeySlot {
    /// The repository it belongs to, and the generation.
    pub preamble: Preamble,
    /// What unlocks it.
    pub kind: SlotKind,
    /// Whose secrets it holds.
    pub role: Role,
    /// There for a passphrase, and for nothing else.
    pub cost: Option<StoredCost>,
    /// Fresh for every slot, so the key that wraps is, too.
    pub salt: [u8; 32],
    /// Tells the right key from a wrong one before anything is decrypted.
    pub commitment: [u8; 32],
    /// The secrets, sealed.
    pub sealed: Vec<u8>,
    /// What the slot is for, sealed for everyone who holds the index key; exactly [`SEALED_NOTE_LEN`] bytes.
    pub note: Option<Vec<u8>>,
}

/// What is noted of a slot, so that a list of slots tells one from another.
///
/// Its plaintext: length u32, a CBOR map (0 label, 1 writer id; each may be absent), zeroes up to [`NOTE_LEN`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SlotNote {
    /// What a person called it, at most [`LABEL_MAX`] bytes.
    pub label: Option<String>,
    /// The writer that signs with the slot's secrets.
    pub writer: Option<WriterId>,
}

impl SlotNote {
    /// The plaintext.
    pub fn encode(&self) -> Result<Vec<u8>, FormatError> {
        if self.label.as_ref().is_some_and(|label| label.len() > LABEL_MAX) {
            return Err(FormatError::Value { section: SECTION, what: "length of a label" });
        }
        let mut value = Vec::new();
        self.encode_fields(&mut Encoder::new(&mut value)).expect("a vector takes all bytes");
        let mut out = (value.len() as u32).to_le_bytes().to_vec();
        out.append(&mut value);
        out.resize(NOTE_LEN, 0);
        Ok(out)
    }

    fn encode_fields(
        &self,
        e: &mut Encoder<&mut Vec<u8>>,
    ) -> Result<(), minicbor::encode::Error<std::convert::Infallible>> {
        e.map(u64::from(self.label.is_some()) + u64::from(self.writer.is_some()))?;
        if let Some(label) = &self.label {
            e.u8(0)?.str(label)?;
        }
        if let Some(writer) = &self.writer {
            e.u8(1)?.bytes(writer.as_bytes())?;
        }
        Ok(())
    }

    /// Reads the plaintext.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let broken = FormatError::Value { section: SECTION, what: "note of a key slot" };
        let (len, rest) = bytes.split_first_chunk::<4>().ok_or(broken.clone())?;
        let len = u32::from_le_bytes(*len) as usize;
        let (value, padding) = rest.split_at_checked(len).ok_or(broken.clone())?;
        if bytes.len() != NOTE_LEN || padding.iter().any(|byte| *byte != 0) {
            return Err(broken);
        }
        let mut note = Self::default();
        read_map(value, (SECTION, "note of a key slot"), |key, d| {
            match key {
                0 => note.label = Some(d.str()?.to_owned()),
                1 => note.writer = Some(WriterId::new(byte_array(d)?)),
                _ => d.skip()?,
            }
            Ok(())
        })?;
        if note.label.as_ref().is_some_and(|label| label.len() > LABEL_MAX) {
            return Err(broken);
        }
        Ok(note)
    }
}

impl KeySlot {
    /// What the sealed part authenticates besides itself, 110 bytes: preamble (32), kind (1), role (1), memory, passes,
    /// lanes (4 each, zero without a passphrase), salt (32), commitment (32).
    pub fn aad(&self) -> [u8; 110] {
        let mut aad = [0; 110];
        aad[..32].copy_from_slice(&self.preamble.encode());
        aad[32] = self.kind as u8;
        aad[33] = self.role as u8;
        if let Some(cost) = self.cost {
            aad[34..38].copy_from_slice(&cost.memory_kib.to_le_bytes());
            aad[38..42].copy_from_slice(&cost.passes.to_le_bytes());
            aad[42..46].copy_from_slice(&cost.lanes.to_le_bytes());
        }
        aad[46..78].copy_from_slice(&self.salt);
        aad[78..].copy_from_slice(&self.commitment);
        aad
    }

    /// The stored form.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = self.preamble.encode().to_vec();
        self.encode_fields(&mut Encoder::new(&mut out)).expect("a vector takes all bytes");
        out
    }

    fn encode_fields(
        &self,
        e: &mut Encoder<&mut Vec<u8>>,
    ) -> Result<(), minicbor::encode::Error<std::convert::Infallible>> {
        e.map(5 + u64::from(self.cost.is_some()) + u64::from(self.note.is_some()))?;
        e.u8(0)?.u8(self.kind as u8)?;
        e.u8(1)?.u8(self.role as u8)?;
        if let Some(cost) = self.cost {
            e.u8(2)?.array(3)?.u32(cost.memory_kib)?.u32(cost.passes)?.u32(cost.lanes)?;
        }
        e.u8(3)?.bytes(&self.salt)?;
        e.u8(4)?.bytes(&self.commitment)?;
        e.u8(5)?.bytes(&self.sealed)?;
        if let Some(note) = &self.note {
            e.u8(6)?.bytes(note)?;
        }
        Ok(())
    }

    /// Reads a whole slot object of any repository.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        if bytes.len() > SLOT_MAX {
            return Err(FormatError::Value { section: SECTION, what: "length of a key slot" });
        }
        let preamble = Preamble::decode(bytes)?;
        if preamble.kind != ObjectKind::KeySlot {
            return Err(FormatError::WrongKind {
                expected: ObjectKind::KeySlot as u8,
                found: preamble.kind as u8,
            });
        }
        let mut fields = Fields::default();
        read_map(&bytes[PREAMBLE_LEN..], (SECTION, WHAT), |key, d| fields.read(key, d))?;
        fields.finish(preamble)
    }
}

#[derive(Default)]
struct Fields {
    kind: Option<u8>,
    role: Option<u8>,
    cost: Option<StoredCost>,
    salt: Option<[u8; 32]>,
    commitment: Option<[u8; 32]>,
    sealed: Option<Vec<u8>>,
    note: Option<Vec<u8>>,
}

impl Fields {
    fn read(&mut self, key: u32, d: &mut Decoder<'_>) -> Result<(), minicbor::decode::Error> {
        match key {
            0 => self.kind = Some(d.u8()?),
            1 => self.role = Some(d.u8()?),
            2 => {
                if d.array()? != Some(3) {
                    return Err(minicbor::decode::Error::message("not three costs"));
                }
                self.cost = Some(StoredCost { memory_kib: d.u32()?, passes: d.u32()?, lanes: d.u32()? });
            }
            3 => self.salt = Some(byte_array(d)?),
            4 => self.commitment = Some(byte_array(d)?),
            5 => self.sealed = Some(d.bytes()?.to_vec()),
            6 => self.note = Some(d.bytes()?.to_vec()),
            _ => d.skip()?,
        }
        Ok(())
    }

    fn finish(self, preamble: Preamble) -> Result<KeySlot, FormatError> {
        let value = |what| FormatError::Value { section: SECTION, what };
        let kind = SlotKind::ALL.into_iter().find(|kind| Some(*kind as u8) == self.kind);
        let role = Role::ALL.into_iter().find(|role| Some(*role as u8) == self.role);
        let kind = kind.ok_or(value("kind of a key slot"))?;
        if self.cost.is_some() != (kind == SlotKind::Passphrase) {
            return Err(value("cost of a key slot"));
        }
        if self.note.as_ref().is_some_and(|note| note.len() != SEALED_NOTE_LEN) {
            return Err(value("note of a key slot"));
        }
        Ok(KeySlot {
            preamble,
            kind,
            role: role.ok_or(value("role of a key slot"))?,
            cost: self.cost,
            salt: self.salt.ok_or(value("salt of a key slot"))?,
            commitment: self.commitment.ok_or(value("commitment of a key slot"))?,
            sealed: self.sealed.ok_or(value("sealed part of a key slot"))?,
            note: self.note,
        })
    }
}

/// Reads one map of definite length with integer keys in ascending order that fills `bytes`. `read` takes the value of
/// each key, and skips those it does not know.
pub(crate) fn read_map(
    bytes: &[u8],
    (section, what): (&'static str, &'static str),
    mut read: impl FnMut(u32, &mut Decoder<'_>) -> Result<(), minicbor::decode::Error>,
) -> Result<(), FormatError> {
    let broken = |_| FormatError::Cbor { section, what };
    let mut d = Decoder::new(bytes);
    let count = d.map().map_err(broken)?.ok_or(FormatError::Cbor { section, what })?;
    let mut last = None;
    for _ in 0..count {
        let key = d.u32().map_err(broken)?;
        if last.is_some_and(|last| last >= key) {
            return Err(FormatError::Value { section, what: "order of fields" });
        }
        last = Some(key);
        read(key, &mut d).map_err(broken)?;
    }
    if d.position() == bytes.len() { Ok(()) } else { Err(FormatError::TrailingBytes) }
}

/// Reads a byte string of exactly `N` bytes.
pub(crate) fn byte_array<const N: usize>(d: &mut Decoder<'_>) -> Result<[u8; N], minicbor::decode::Error> {
    d.bytes()?.try_into().map_err(|_| minicbor::decode::Error::message("wrong length"))
}

#[cfg(test)]
mod tests {
    use super::super::envelope::ChunkKind;
    use super::*;
    use crate::id::RepositoryId;

    fn example(kind: SlotKind) -> KeySlot {
        let cost = StoredCost { memory_kib: 65_536, passes: 3, lanes: 1 };
        KeySlot {
            preamble: Preamble::new(ObjectKind::KeySlot, ChunkKind::Data, RepositoryId::new([9; 16])),
            kind,
            role: Role::Reader,
            cost: (kind == SlotKind::Passphrase).then_some(cost),
            salt: [1; 32],
            commitment: [2; 32],
            sealed: vec![3; 5],
            note: None,
        }
    }

    #[test]
    fn a_note_is_exact_and_says_nothing_by_its_length() {
        let note = SlotNote { label: Some("web1".to_owned()), writer: Some(WriterId::new([7; 16])) };
        let bytes = note.encode().unwrap();
        let value = [&[25, 0, 0, 0, 0xa2, 0, 0x64][..], b"web1", &[1, 0x50], &[7; 16]].concat();
        assert_eq!(bytes[..value.len()], value);
        for some in [note, SlotNote::default(), SlotNote { label: Some("x".repeat(LABEL_MAX)), writer: None }]
        {
            let bytes = some.encode().unwrap();
            assert_eq!((bytes.len(), SlotNote::decode(&bytes)), (NOTE_LEN, Ok(some)));
        }
        let long = SlotNote { label: Some("x".repeat(LABEL_MAX + 1)), writer: None };
        assert!(long.encode().is_err());
        let edited = |edit: &dyn Fn(&mut Vec<u8>)| {
            let mut bytes = bytes.clone();
            edit(&mut bytes);
            SlotNote::decode(&bytes)
        };
        assert!(edited(&|b| b.clear()).is_err());
        assert!(edited(&|b| b.truncate(NOTE_LEN - 1)).is_err());
        assert!(edited(&|b| b[NOTE_LEN - 1] = 1).is_err(), "padding");
        assert!(edited(&|b| b[1] = 0xff).is_err(), "a length past the end");
        assert!(edited(&|b| b[7] = 0xff).is_err(), "no text");
    }

    #[test]
    fn a_slot_carries_a_note_of_one_length_only() {
        let with = |len| KeySlot { note: Some(vec![9; len]), ..example(SlotKind::KeyFile) };
        assert_eq!(KeySlot::decode(&with(SEALED_NOTE_LEN).encode()), Ok(with(SEALED_NOTE_LEN)));
        for len in [0, SEALED_NOTE_LEN - 1, SEALED_NOTE_LEN + 1] {
            assert!(KeySlot::decode(&with(len).encode()).is_err(), "{len}");
        }
        assert_eq!(with(SEALED_NOTE_LEN).aad(), example(SlotKind::KeyFile).aad());
    }

    #[test]
    fn the_stored_form_is_exact() {
        let bytes = example(SlotKind::Passphrase).encode();
        let expected = [
            &example(SlotKind::Passphrase).preamble.encode()[..],
            &[0xa6, 0, 1, 1, 4, 2, 0x83, 0x1a, 0, 1, 0, 0, 3, 1, 3, 0x58, 32],
            &[1; 32],
            &[4, 0x58, 32],
            &[2; 32],
            &[5, 0x45, 3, 3, 3, 3, 3],
        ]
        .concat();
        assert_eq!(bytes, expected);
        for kind in SlotKind::ALL {
            assert_eq!(KeySlot::decode(&example(kind).encode()), Ok(example(kind)));
        }
    }

    #[test]
    fn unknown_fields_are_skipped_and_everything_else_is_refused() {
        let good = example(SlotKind::KeyFile).encode();
        let edited = |edit: &dyn Fn(&mut Vec<u8>)| {
            let mut bytes = good.clone();
            edit(&mut bytes);
            KeySlot::decode(&bytes)
        };
        let newer = edited(&|b| {
            b[32] = 0xa6;
            b.extend([7, 0x81, 0x61, b'x']);
        });
        assert_eq!(newer, Ok(example(SlotKind::KeyFile)));
        assert_eq!(edited(&|b| b.push(0)), Err(FormatError::TrailingBytes));
        assert!(edited(&|b| b.truncate(b.len() - 1)).is_err());
        assert!(edited(&|b| b[10] = 1).is_err(), "another object");
        assert!(edited(&|b| b[32] = 0xbf).is_err(), "indefinite length");
        assert!(edited(&|b| b[33] = 1).is_err(), "a field twice");
        assert!(edited(&|b| b[34] = 9).is_err(), "slot kind");
        assert!(edited(&|b| b[34] = 1).is_err(), "passphrase without cost");
        assert!(edited(&|b| b[36] = 9).is_err(), "role");
        assert!(edited(&|b| b.extend(vec![0; SLOT_MAX])).is_err(), "too long");
    }

    #[test]
    fn every_field_enters_what_is_authenticated() {
        let slot = example(SlotKind::Passphrase);
        let changed = |change: &dyn Fn(&mut KeySlot)| {
            let mut other = slot.clone();
            change(&mut other);
            other.aad()
        };
        for aad in [
            changed(&|s| s.preamble.repository = RepositoryId::new([8; 16])),
            changed(&|s| s.kind = SlotKind::Words),
            changed(&|s| s.role = Role::Admin),
            changed(&|s| s.cost = None),
            changed(&|s| s.salt[31] = 0),
            changed(&|s| s.commitment[31] = 0),
        ] {
            assert_ne!(aad, slot.aad());
        }
        assert_eq!(changed(&|s| s.sealed.clear()), slot.aad());
    }
}
