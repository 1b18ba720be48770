//! The header of an index object: who wrote it, what it replaces, and the list of its blocks.

use minicbor::{Decoder, Encoder};

use super::{BLOCK_PLAIN_MAX, RECORD_LEN, SECTION, TABLE_MAX};
use crate::format::FormatError;
use crate::format::segment::{SegmentEntry, TAG_LEN};
use crate::id::{ChunkId, ObjectHash, WriterId};

/// Most bytes of a header's plaintext: the key table and the list of blocks of a few billion records.
pub const HEADER_MAX: usize = 64 << 20;

/// Most bytes of one sealed data key.
pub const DATA_KEY_MAX: usize = 16 << 10;

/// Where a block's rows stand, and what they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockKind {
    /// Rows of the pack table.
    Packs {
        /// Number of the block's first row.
        first: u32,
    },
    /// Rows of the segment table.
    Segments {
        /// Number of the block's first row.
        first: u32,
    },
    /// Sorted records.
    Records {
        /// Id prefix of the block's first record.
        first: [u8; ChunkId::PREFIX_LEN],
    },
}

impl BlockKind {
    fn number(self) -> u8 {
        match self {
            Self::Packs { .. } => 0,
            Self::Segments { .. } => 1,
            Self::Records { .. } => 2,
        }
    }

    /// Length in bytes of one row of such a block.
    pub const fn row_len(self) -> usize {
        match self {
            Self::Packs { .. } => super::PackRow::LEN,
            Self::Segments { .. } => SegmentEntry::LEN,
            Self::Records { .. } => RECORD_LEN,
        }
    }

    /// How many rows a full block has.
    pub const fn rows_max(self) -> usize {
        BLOCK_PLAIN_MAX / self.row_len()
    }
}

/// What a writer knows of a block once it is sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredBlock {
    /// How many stored bytes the block has, tag included.
    pub stored_len: u32,
    /// BLAKE3 of the stored bytes.
    pub sum: [u8; 32],
}

impl StoredBlock {
    /// Measures a sealed block.
    pub fn of(stored: &[u8]) -> Self {
        let stored_len = u32::try_from(stored.len()).unwrap_or(u32::MAX);
        Self { stored_len, sum: *blake3::hash(stored).as_bytes() }
    }
}

/// One entry of the header's list of blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockEntry {
    /// What the rows are and where they stand.
    pub kind: BlockKind,
    /// How many rows the block has.
    pub rows: u32,
    /// Length and sum of the stored bytes.
    pub stored: StoredBlock,
}

impl BlockEntry {
    /// Demands that these are the block's stored bytes.
    pub fn check(&self, stored: &[u8]) -> Result<(), FormatError> {
        if StoredBlock::of(stored) == self.stored { Ok(()) } else { Err(bad("index block sum")) }
    }

    /// How many bytes of plaintext the block opens to.
    pub const fn plain_len(&self) -> usize {
        self.rows as usize * self.kind.row_len()
    }
}

/// Everything about an index object but its rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexHeader {
    /// Who wrote the object.
    pub author: WriterId,
    /// The collector's horizon that the author saw first.
    pub h0: u64,
    /// Index objects whose content this one repeats; ascending.
    pub supersedes: Vec<ObjectHash>,
    /// The sealed data keys that segment rows number.
    pub data_keys: Vec<Vec<u8>>,
    /// The writers that segment rows number.
    pub origins: Vec<WriterId>,
    /// How many pack rows there are.
    pub packs: u32,
    /// How many segment rows there are.
    pub segments: u32,
    /// How many records there are.
    pub records: u64,
    /// The blocks in stored order: packs, segments, records.
    pub blocks: Vec<BlockEntry>,
}

impl IndexHeader {
    /// The stored form, before sealing.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Encoder::new(Vec::new());
        self.write(&mut out).expect("a vector takes every byte");
        out.into_writer()
    }

    fn write(
        &self,
        out: &mut Encoder<Vec<u8>>,
    ) -> Result<(), minicbor::encode::Error<std::convert::Infallible>> {
        out.map(9)?.u8(0)?.bytes(self.author.as_bytes())?.u8(1)?.u64(self.h0)?;
        out.u8(2)?.array(self.supersedes.len() as u64)?;
        for hash in &self.supersedes {
            out.bytes(hash.as_bytes())?;
        }
        out.u8(3)?.array(self.data_keys.len() as u64)?;
        for key in &self.data_keys {
            out.bytes(key)?;
        }
        out.u8(4)?.array(self.origins.len() as u64)?;
        for origin in &self.origins {
            out.bytes(origin.as_bytes())?;
        }
        out.u8(5)?.u32(self.packs)?.u8(6)?.u32(self.segments)?.u8(7)?.u64(self.records)?;
        out.u8(8)?.array(self.blocks.len() as u64)?;
        for block in &self.blocks {
            out.array(5)?.u8(block.kind.number())?;
            match block.kind {
                BlockKind::Packs { first } | BlockKind::Segments { first } => out.u32(first)?,
                BlockKind::Records { first } => out.bytes(&first)?,
            };
            out.u32(block.rows)?.u32(block.stored.stored_len)?.bytes(&block.stored.sum)?;
        }
        Ok(())
    }

    /// Reads a header. The list of blocks then agrees with the counts, and is bounded by `bytes`.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        if bytes.len() > HEADER_MAX {
            return Err(bad("index header length"));
        }
        let mut reader = Decoder::new(bytes);
        let mut header = Self {
            author: WriterId::new([0; WriterId::LEN]),
            h0: 0,
            supersedes: Vec::new(),
            data_keys: Vec::new(),
            origins: Vec::new(),
            packs: 0,
            segments: 0,
            records: 0,
            blocks: Vec::new(),
        };
        let fields = reader.map().map_err(cbor)?.ok_or_else(|| bad("index header"))?;
        let mut known = 0;
        let mut last = None;
        for _ in 0..fields {
            let key = reader.u64().map_err(cbor)?;
            if last.is_some_and(|last| last >= key) {
                return Err(bad("order of index header fields"));
            }
            last = Some(key);
            known += u32::from(header.read_field(key, &mut reader)?);
        }
        if known != 9 {
            return Err(bad("missing index header field"));
        }
        if reader.position() != bytes.len() {
            return Err(FormatError::TrailingBytes);
        }
        header.check()?;
        Ok(header)
    }

    /// Reads one field; false if it is not one of ours and was skipped.
    fn read_field(&mut self, key: u64, reader: &mut Decoder<'_>) -> Result<bool, FormatError> {
        match key {
            0 => self.author = WriterId::new(fixed(reader)?),
            1 => self.h0 = reader.u64().map_err(cbor)?,
            2 => self.supersedes = list(reader, 34, usize::MAX, |reader| fixed(reader).map(ObjectHash::new))?,
            3 => self.data_keys = list(reader, 2, TABLE_MAX, data_key)?,
            4 => self.origins = list(reader, 17, TABLE_MAX, |reader| fixed(reader).map(WriterId::new))?,
            5 => self.packs = reader.u32().map_err(cbor)?,
            6 => self.segments = reader.u32().map_err(cbor)?,
            7 => self.records = reader.u64().map_err(cbor)?,
            8 => self.blocks = list(reader, 38, usize::MAX, block)?,
            _ => {
                reader.skip().map_err(cbor)?;
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn check(&self) -> Result<(), FormatError> {
        if !self.supersedes.is_sorted_by(|a, b| a < b) {
            return Err(bad("order of superseded index objects"));
        }
        let mut rows = [0_u64; 3];
        let mut kind = 0;
        for (number, block) in self.blocks.iter().enumerate() {
            let next = self.blocks.get(number + 1);
            self.check_block(block, next, &rows)?;
            if block.kind.number() < kind {
                return Err(bad("order of index blocks"));
            }
            kind = block.kind.number();
            rows[usize::from(kind)] += u64::from(block.rows);
        }
        if rows != [u64::from(self.packs), u64::from(self.segments), self.records] {
            return Err(bad("index row counts"));
        }
        Ok(())
    }

    fn check_block(
        &self,
        block: &BlockEntry,
        next: Option<&BlockEntry>,
        rows: &[u64; 3],
    ) -> Result<(), FormatError> {
        let next = next.filter(|next| next.kind.number() == block.kind.number());
        let full = block.rows as usize == block.kind.rows_max();
        let partial = block.rows > 0 && (block.rows as usize) < block.kind.rows_max() && next.is_none();
        if !full && !partial {
            return Err(bad("rows of an index block"));
        }
        let stored = block.stored.stored_len as usize;
        if !(TAG_LEN..=BLOCK_PLAIN_MAX + TAG_LEN).contains(&stored) {
            return Err(bad("stored length of an index block"));
        }
        let in_place = match (block.kind, next.map(|next| next.kind)) {
            (BlockKind::Packs { first }, _) => u64::from(first) == rows[0],
            (BlockKind::Segments { first }, _) => u64::from(first) == rows[1],
            (BlockKind::Records { first }, Some(BlockKind::Records { first: next })) => first <= next,
            (BlockKind::Records { .. }, _) => true,
        };
        if in_place { Ok(()) } else { Err(bad("first row of an index block")) }
    }

    /// Numbers of the blocks that may hold records of this prefix, in the list of blocks.
    pub fn record_blocks(&self, prefix: &[u8; ChunkId::PREFIX_LEN]) -> std::ops::Range<usize> {
        let start = self.blocks.partition_point(|block| block.kind.number() < 2);
        let records = &self.blocks[start..];
        let first_not_before = |found: fn(&[u8; 16], &[u8; 16]) -> bool| {
            records.partition_point(
                |block| matches!(&block.kind, BlockKind::Records { first } if found(first, prefix)),
            )
        };
        // Records of one prefix may begin in the block before the first that starts with it.
        let from = first_not_before(|first, prefix| first < prefix).saturating_sub(1);
        let to = first_not_before(|first, prefix| first <= prefix);
        start + from..start + to.max(from)
    }

    /// Number of the block that holds this row of the pack table.
    pub fn pack_block(&self, row: u32) -> Option<usize> {
        (row < self.packs).then(|| row as usize / BlockKind::Packs { first: 0 }.rows_max())
    }

    /// Number of the block that holds this row of the segment table.
    pub fn segment_block(&self, row: u32) -> Option<usize> {
        let start = self.blocks.partition_point(|block| block.kind.number() < 1);
        (row < self.segments).then(|| start + row as usize / BlockKind::Segments { first: 0 }.rows_max())
    }
}

fn bad(what: &'static str) -> FormatError {
    FormatError::Value { section: SECTION, what }
}

fn cbor(_: minicbor::decode::Error) -> FormatError {
    FormatError::Cbor { section: SECTION, what: "index header" }
}

fn fixed<const N: usize>(reader: &mut Decoder<'_>) -> Result<[u8; N], FormatError> {
    reader.bytes().map_err(cbor)?.try_into().map_err(|_| bad("length of an identifier"))
}

/// A list of at most `most` elements; its claimed length is first held against the bytes that are left, at `least`
/// bytes an element.
fn list<'b, T>(
    reader: &mut Decoder<'b>,
    least: usize,
    most: usize,
    element: impl Fn(&mut Decoder<'b>) -> Result<T, FormatError>,
) -> Result<Vec<T>, FormatError> {
    let claimed = reader.array().map_err(cbor)?.ok_or_else(|| bad("index header list"))?;
    let left = reader.input().len().saturating_sub(reader.position());
    let count = usize::try_from(claimed).ok().filter(|count| *count <= left / least);
    let count = count.ok_or(FormatError::Truncated)?;
    if count > most {
        return Err(bad("index key or origin table"));
    }
    (0..count).map(|_| element(reader)).collect()
}

fn data_key(reader: &mut Decoder<'_>) -> Result<Vec<u8>, FormatError> {
    let key = reader.bytes().map_err(cbor)?;
    if key.is_empty() || key.len() > DATA_KEY_MAX {
        return Err(bad("length of a sealed data key"));
    }
    Ok(key.to_vec())
}

fn block(reader: &mut Decoder<'_>) -> Result<BlockEntry, FormatError> {
    if reader.array().map_err(cbor)? != Some(5) {
        return Err(bad("index block entry"));
    }
    let kind = match reader.u8().map_err(cbor)? {
        0 => BlockKind::Packs { first: reader.u32().map_err(cbor)? },
        1 => BlockKind::Segments { first: reader.u32().map_err(cbor)? },
        2 => BlockKind::Records { first: fixed(reader)? },
        _ => return Err(bad("index block kind")),
    };
    let rows = reader.u32().map_err(cbor)?;
    let stored_len = reader.u32().map_err(cbor)?;
    Ok(BlockEntry { kind, rows, stored: StoredBlock { stored_len, sum: fixed(reader)? } })
}
