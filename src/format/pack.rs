//! `docs/format.md` section 3: a pack, segments with a sealed directory.
//!
//! ```text
//! preamble 32 | segments, padding | directory, sealed | parity | footer 64
//! ```

use super::FormatError;
use super::envelope::PREAMBLE_LEN;
use super::segment::SegmentEntry;
use super::wire::{Reader, put_u24};
use crate::id::{ChunkId, WriterId};

/// Length of the footer.
pub const FOOTER_LEN: usize = 64;
/// A pack is closed when its segments reach this many bytes.
pub const PACK_TARGET: usize = 16 << 20;
/// A pack is closed when segments and directory reach this many bytes: half of the most, so that one more segment of tiny
/// chunks and the padding always fit.
pub const PACK_FULL: usize = PACK_MAX / 2;
/// A pack of trees is closed at this many bytes: trees are small, and buffers cost memory.
pub const TREE_PACK_TARGET: usize = 4 << 20;
/// No pack is longer.
pub const PACK_MAX: usize = 64 << 20;
/// Most segments in a pack.
pub const SEGMENTS_MAX: usize = 65_535;
/// Most bytes of a sealed data key.
pub const DATA_KEY_MAX: usize = 16 << 10;

const FOOTER_MAGIC: [u8; 8] = *b"LBPACKv1";

/// The last 64 bytes of a pack: where its directory and its parity are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Footer {
    /// Where the sealed directory begins.
    pub directory_offset: u32,
    /// Length of the sealed directory, tag included.
    pub directory_len: u32,
    /// Where parity begins: right behind the directory.
    pub parity_offset: u32,
    /// Length of the parity; zero if there is none.
    pub parity_len: u32,
    /// Salt of the directory's key.
    pub salt: [u8; 32],
}

impl Footer {
    /// The stored form.
    pub fn encode(&self) -> [u8; FOOTER_LEN] {
        let mut out = [0; FOOTER_LEN];
        out[0..4].copy_from_slice(&self.directory_offset.to_le_bytes());
        out[4..8].copy_from_slice(&self.directory_len.to_le_bytes());
        out[8..12].copy_from_slice(&self.parity_offset.to_le_bytes());
        out[12..16].copy_from_slice(&self.parity_len.to_le_bytes());
        out[16..48].copy_from_slice(&self.salt);
        out[56..64].copy_from_slice(&FOOTER_MAGIC);
        out
    }

    /// Reads the footer of a pack of `pack_len` bytes and checks that its ranges follow each other to the end.
    pub fn decode(bytes: &[u8], pack_len: u64) -> Result<Self, FormatError> {
        let mut reader = Reader::new(bytes);
        let (directory_offset, directory_len) = (reader.u32()?, reader.u32()?);
        let (parity_offset, parity_len) = (reader.u32()?, reader.u32()?);
        let salt = reader.array()?;
        let reserved = reader.u64()?;
        let magic: [u8; 8] = reader.array()?;
        reader.finish()?;
        let directory_end = u64::from(directory_offset) + u64::from(directory_len);
        let parity_end = u64::from(parity_offset) + u64::from(parity_len);
        let sound = magic == FOOTER_MAGIC
            && reserved == 0
            && pack_len <= PACK_MAX as u64
            && directory_offset as usize >= PREAMBLE_LEN
            && directory_end == u64::from(parity_offset)
            && parity_end + FOOTER_LEN as u64 == pack_len;
        if !sound {
            return Err(FormatError::Value { section: "3", what: "footer" });
        }
        Ok(Self { directory_offset, directory_len, parity_offset, parity_len, salt })
    }
}

/// One row of a directory's chunk table: 40 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PackedChunk {
    /// The chunk.
    pub id: ChunkId,
    /// Row in the segment table.
    pub segment: u16,
    /// Where the chunk begins in the segment's plaintext.
    pub offset: u32,
    /// Its length.
    pub len: u32,
}

/// Shows that an origin signed for a segment that was moved here from another pack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// Row in the segment table.
    pub segment: u16,
    /// The segment's place in the pack it was first written to.
    pub leaf: u16,
    /// How many segments that pack had.
    pub leaves: u16,
    /// Hashes beside the way from the leaf to the root, from the leaf on.
    pub siblings: Vec<[u8; 32]>,
}

impl Proof {
    /// How many siblings the way from a leaf to the root has; an odd node at the end of a level has none.
    pub fn depth(leaf: u16, leaves: u16) -> usize {
        let (mut place, mut width, mut depth) = (leaf, leaves, 0);
        while width > 1 {
            depth += usize::from(place & 1 == 1 || place + 1 < width);
            place >>= 1;
            width = width.div_ceil(2);
        }
        depth
    }

    /// Bytes of the stored form.
    pub fn stored_len(&self) -> usize {
        6 + self.siblings.len() * 32
    }

    fn encode(&self, out: &mut Vec<u8>) {
        for number in [self.segment, self.leaf, self.leaves] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        self.siblings.iter().for_each(|hash| out.extend_from_slice(hash));
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, FormatError> {
        let (segment, leaf, leaves) = (reader.u16()?, reader.u16()?, reader.u16()?);
        if leaf >= leaves {
            return Err(FormatError::Value { section: "3", what: "proof table" });
        }
        let siblings = (0..Self::depth(leaf, leaves)).map(|_| reader.array()).collect::<Result<_, _>>()?;
        Ok(Self { segment, leaf, leaves, siblings })
    }
}

/// What a pack holds: the plaintext of its directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directory {
    /// BLAKE3 of the pack's bytes before the directory: binds the directory to this pack.
    pub body_hash: [u8; 32],
    /// Sealed data keys the segments need.
    pub data_keys: Vec<Vec<u8>>,
    /// Writers that first sealed the segments.
    pub origins: Vec<WriterId>,
    /// For each origin the signature over the root of a tree of segments: of those of this pack that name the origin and
    /// have no proof, or of the pack that the others came from. A writer has one row for each such pack.
    pub signatures: Vec<[u8; 64]>,
    /// The segments in order of their offsets.
    pub segments: Vec<SegmentEntry>,
    /// The chunks in order of segment and offset.
    pub chunks: Vec<PackedChunk>,
    /// Of each segment that was moved here, in order.
    pub proofs: Vec<Proof>,
}

impl Directory {
    /// The stored plaintext, padded with zeroes to the length that `pad` gives for its length.
    pub fn encode(&self, pad: impl Fn(usize) -> usize) -> Vec<u8> {
        debug_assert_eq!(self.origins.len(), self.signatures.len(), "one signature an origin");
        let mut out = Vec::with_capacity(
            128 + self.segments.len() * SegmentEntry::LEN + self.chunks.len() * PackedChunk::LEN,
        );
        out.extend_from_slice(&self.body_hash);
        out.push(self.data_keys.len() as u8);
        out.push(self.origins.len() as u8);
        out.extend_from_slice(&(self.segments.len() as u16).to_le_bytes());
        out.extend_from_slice(&(self.chunks.len() as u32).to_le_bytes());
        out.extend_from_slice(&(self.proofs.len() as u16).to_le_bytes());
        for key in &self.data_keys {
            out.extend_from_slice(&(key.len() as u16).to_le_bytes());
            out.extend_from_slice(key);
        }
        for (origin, signature) in self.origins.iter().zip(&self.signatures) {
            out.extend_from_slice(origin.as_bytes());
            out.extend_from_slice(signature);
        }
        for segment in &self.segments {
            segment.encode(&mut out);
        }
        for chunk in &self.chunks {
            out.extend_from_slice(chunk.id.as_bytes());
            out.extend_from_slice(&chunk.segment.to_le_bytes());
            put_u24(&mut out, chunk.offset);
            put_u24(&mut out, chunk.len);
        }
        self.proofs.iter().for_each(|proof| proof.encode(&mut out));
        let padded = pad(out.len()).max(out.len());
        out.resize(padded, 0);
        out
    }

    /// Reads a directory whose segments must end at or before `body_end`.
    pub fn decode(bytes: &[u8], body_end: u32) -> Result<Self, FormatError> {
        let mut reader = Reader::new(bytes);
        let body_hash = reader.array()?;
        let (keys, origins) = (reader.u8()?, reader.u8()?);
        let (segments, chunks, proofs) = (reader.u16()?, reader.u32()?, reader.u16()?);
        let mut data_keys = Vec::new();
        for _ in 0..keys {
            let len = reader.u16()? as usize;
            if len > DATA_KEY_MAX {
                return Err(FormatError::Value { section: "3", what: "length of a sealed data key" });
            }
            data_keys.push(reader.bytes(len)?.to_vec());
        }
        let (mut origin_ids, mut signatures) = (Vec::new(), Vec::new());
        for _ in 0..origins {
            origin_ids.push(WriterId::new(reader.array()?));
            signatures.push(reader.array()?);
        }
        let segments = decode_segments(&mut reader, segments, (keys, origins, body_end))?;
        let chunks = decode_chunks(&mut reader, chunks, &segments)?;
        let proofs = decode_proofs(&mut reader, proofs, segments.len())?;
        if reader.bytes(reader.remaining())?.iter().any(|byte| *byte != 0) {
            return Err(FormatError::Value { section: "3", what: "padding of the directory" });
        }
        Ok(Self { body_hash, data_keys, origins: origin_ids, signatures, segments, chunks, proofs })
    }
}

fn decode_segments(
    reader: &mut Reader<'_>,
    count: u16,
    (keys, origins, body_end): (u8, u8, u32),
) -> Result<Vec<SegmentEntry>, FormatError> {
    if reader.remaining() < usize::from(count) * SegmentEntry::LEN {
        return Err(FormatError::Truncated);
    }
    let mut segments = Vec::with_capacity(usize::from(count));
    let mut end = PREAMBLE_LEN as u32;
    for _ in 0..count {
        let segment = SegmentEntry::decode(reader)?;
        if segment.offset != end || segment.data_key >= keys || segment.origin >= origins {
            return Err(FormatError::Value { section: "3", what: "segment table" });
        }
        end = segment.offset + segment.stored_len;
        segments.push(segment);
    }
    if end > body_end {
        return Err(FormatError::Value { section: "3", what: "segment table" });
    }
    Ok(segments)
}

fn decode_chunks(
    reader: &mut Reader<'_>,
    count: u32,
    segments: &[SegmentEntry],
) -> Result<Vec<PackedChunk>, FormatError> {
    if (reader.remaining() as u64) < u64::from(count) * PackedChunk::LEN as u64 {
        return Err(FormatError::Truncated);
    }
    let mut chunks: Vec<PackedChunk> = Vec::with_capacity(count as usize);
    for _ in 0..count {
        let id = ChunkId::new(reader.array()?);
        let chunk = PackedChunk { id, segment: reader.u16()?, offset: reader.u24()?, len: reader.u24()? };
        let inside = segments
            .get(usize::from(chunk.segment))
            .is_some_and(|segment| chunk.len > 0 && chunk.offset + chunk.len <= segment.plain_len);
        let place = |chunk: &PackedChunk| (chunk.segment, chunk.offset);
        let follows = chunks.last().is_none_or(|last| place(last) < place(&chunk));
        if !inside || !follows {
            return Err(FormatError::Value { section: "3", what: "chunk table" });
        }
        chunks.push(chunk);
    }
    Ok(chunks)
}

fn decode_proofs(reader: &mut Reader<'_>, count: u16, segments: usize) -> Result<Vec<Proof>, FormatError> {
    let mut proofs: Vec<Proof> = Vec::new();
    for _ in 0..count {
        let proof = Proof::decode(reader)?;
        let ascends = proofs.last().is_none_or(|last| last.segment < proof.segment);
        if !ascends || usize::from(proof.segment) >= segments {
            return Err(FormatError::Value { section: "3", what: "proof table" });
        }
        proofs.push(proof);
    }
    Ok(proofs)
}

impl PackedChunk {
    /// Length of the stored form.
    pub const LEN: usize = 40;
}

/// PADME: the length to pad `len` to, so that lengths leak few bits; at most 12 % more.
///
/// From Nikitin et al., "Reducing Metadata Leakage from Encrypted Files and Communication with PURBs", 2019.
pub fn padme(len: usize) -> usize {
    if len < 2 {
        return len;
    }
    let exponent = len.ilog2();
    let low_bits = exponent - (exponent.ilog2() + 1).min(exponent);
    let mask = (1_usize << low_bits) - 1;
    len.checked_add(mask).map_or(len, |sum| sum & !mask)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_costs_at_most_twelve_percent_and_never_shrinks() {
        for len in (0..200_000).chain([1 << 24, (1 << 24) + 1, usize::MAX]) {
            let padded = padme(len);
            assert!(padded >= len && (padded - len) as f64 <= len as f64 * 0.12, "{len} -> {padded}");
        }
        assert_eq!(
            (padme(1000), padme(1 << 20), padme((1 << 20) + 1)),
            (1024, 1 << 20, (1 << 20) + (1 << 15))
        );
    }
}
