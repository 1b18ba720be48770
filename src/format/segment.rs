//! `docs/format.md` section 4: what is known about a segment besides its stored bytes.

use super::FormatError;
use super::wire::Reader;

/// Most plaintext a segment may hold: one chunk of the greatest size.
pub const SEGMENT_PLAIN_MAX: usize = 8 << 20;

/// Most stored bytes of a segment: raw plaintext and the authentication tag.
pub const SEGMENT_STORED_MAX: usize = SEGMENT_PLAIN_MAX + TAG_LEN;

/// Length of the AES-GCM authentication tag at the end of every sealed block.
pub const TAG_LEN: usize = 16;

/// How a segment's plaintext was encoded before encryption. The number is stored and authenticated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Codec {
    /// As it is.
    Raw = 0,
    /// One zstd frame.
    Zstd = 1,
}

impl Codec {
    /// The codec with this number.
    pub fn from_number(number: u8) -> Option<Self> {
        [Self::Raw, Self::Zstd].into_iter().find(|codec| *codec as u8 == number)
    }
}

/// One row of a segment table: 40 bytes, little-endian, in the order of the fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentEntry {
    /// Where the stored bytes begin in the pack.
    pub offset: u32,
    /// How many stored bytes there are, tag included.
    pub stored_len: u32,
    /// How many bytes of plaintext they open to.
    pub plain_len: u32,
    /// How the plaintext was encoded.
    pub codec: Codec,
    /// Bit 0: fading, writers treat the segment's chunks as unknown.
    pub flags: u8,
    /// Row in the object's table of sealed data keys.
    pub data_key: u8,
    /// Row in the object's table of origin writers.
    pub origin: u8,
    /// Half of the segment's key derivation.
    pub n1: [u8; 12],
    /// The AES-GCM nonce.
    pub n2: [u8; 12],
}

impl SegmentEntry {
    /// Length of the stored form.
    pub const LEN: usize = 40;

    /// Appends the stored form.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.offset.to_le_bytes());
        out.extend_from_slice(&self.stored_len.to_le_bytes());
        out.extend_from_slice(&self.plain_len.to_le_bytes());
        out.extend_from_slice(&[self.codec as u8, self.flags, self.data_key, self.origin]);
        out.extend_from_slice(&self.n1);
        out.extend_from_slice(&self.n2);
    }

    /// Reads one row and checks its lengths against the limits of the format.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, FormatError> {
        let offset = reader.u32()?;
        let stored_len = reader.u32()?;
        let plain_len = reader.u32()?;
        let codec =
            Codec::from_number(reader.u8()?).ok_or(FormatError::Value { section: "4", what: "codec" })?;
        let flags = reader.u8()?;
        let data_key = reader.u8()?;
        let origin = reader.u8()?;
        let (n1, n2) = (reader.array()?, reader.array()?);
        let fits = plain_len as usize <= SEGMENT_PLAIN_MAX
            && stored_len as usize <= SEGMENT_STORED_MAX
            && stored_len as usize >= TAG_LEN
            && offset.checked_add(stored_len).is_some();
        if !fits {
            return Err(FormatError::Value { section: "4", what: "segment length" });
        }
        Ok(Self { offset, stored_len, plain_len, codec, flags, data_key, origin, n1, n2 })
    }
}

/// What the AEAD of a segment authenticates besides its bytes: 28 bytes.
pub fn segment_aad(
    repository: &crate::id::RepositoryId,
    kind: super::envelope::ChunkKind,
    plain_len: u32,
    codec: Codec,
) -> [u8; 28] {
    let mut aad = [0; 28];
    aad[0] = 1; // suite
    aad[1..17].copy_from_slice(repository.as_bytes());
    // bytes 17..19: domain 0
    aad[19] = kind as u8;
    aad[20..24].copy_from_slice(&plain_len.to_le_bytes());
    aad[24] = codec as u8;
    aad
}
