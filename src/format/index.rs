//! `docs/format.md` section 15: the plaintext of an index object, which says where chunks are.
//!
//! The object is: preamble, salt, length of the sealed header, sealed header (block 0), sealed blocks 1 to n, signature,
//! padding. This file knows the plaintext of the header and of the blocks; whoever holds the index key seals and opens.
//!
//! # Invariants
//! Packs are in order of their ids and records in byte order, without repetition, so that the same content has one
//! stored form. A decoded [`IndexTables`] holds no row that points outside another table or outside a segment.

mod build;
mod header;
mod rows;

pub use build::{IndexBuilder, NewChunk, NewPack};
pub use header::{BlockEntry, BlockKind, DATA_KEY_MAX, HEADER_MAX, IndexHeader, StoredBlock};
pub use rows::StoredRows;

use super::FormatError;
use super::envelope::ChunkKind;
use super::segment::SegmentEntry;
use super::wire::{Reader, put_u24};
use crate::id::{ChunkId, ObjectHash, PackId, WriterId};

const SECTION: &str = "15";

/// Most bytes of plaintext in a block of rows.
pub const BLOCK_PLAIN_MAX: usize = 64 << 10;

/// Length of the stored form of a [`Record`].
pub const RECORD_LEN: usize = 28;

/// Most rows of the tables that one byte numbers: sealed data keys and origins.
pub const TABLE_MAX: usize = 255;

fn bad(what: &'static str) -> FormatError {
    FormatError::Value { section: SECTION, what }
}

/// One row of the pack table: 64 bytes, little-endian, in the order of the fields, a zero byte after the kind and
/// twelve at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackRow {
    /// The pack's name.
    pub id: PackId,
    /// How many bytes the pack has.
    pub size: u32,
    /// Where its sealed directory begins.
    pub directory_offset: u32,
    /// How many stored bytes the directory has.
    pub directory_len: u32,
    /// What its chunks are.
    pub kind: ChunkKind,
    /// How many segments it has.
    pub segments: u16,
    /// Row of its first segment; the others follow.
    pub first_segment: u32,
}

impl PackRow {
    /// Length of the stored form.
    pub const LEN: usize = 64;

    /// The stored form.
    pub fn encode(&self) -> [u8; Self::LEN] {
        let mut out = [0; Self::LEN];
        out[..32].copy_from_slice(self.id.as_bytes());
        out[32..36].copy_from_slice(&self.size.to_le_bytes());
        out[36..40].copy_from_slice(&self.directory_offset.to_le_bytes());
        out[40..44].copy_from_slice(&self.directory_len.to_le_bytes());
        out[44] = self.kind as u8;
        out[46..48].copy_from_slice(&self.segments.to_le_bytes());
        out[48..52].copy_from_slice(&self.first_segment.to_le_bytes());
        out
    }

    /// Reads one row; its directory then lies inside the pack.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, FormatError> {
        let id = PackId::new(reader.array()?);
        let (size, directory_offset, directory_len) = (reader.u32()?, reader.u32()?, reader.u32()?);
        let kind = ChunkKind::from_number(reader.u8()?).ok_or_else(|| bad("chunk kind of a pack row"))?;
        let reserved = reader.u8()?;
        let (segments, first_segment) = (reader.u16()?, reader.u32()?);
        if reserved != 0 || reader.array::<12>()? != [0; 12] {
            return Err(bad("reserved bytes of a pack row"));
        }
        if directory_offset.checked_add(directory_len).is_none_or(|end| end > size) {
            return Err(bad("directory of a pack row"));
        }
        Ok(Self { id, size, directory_offset, directory_len, kind, segments, first_segment })
    }
}

/// Where one copy of a chunk is: 28 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    /// The first half of the chunk's id.
    pub prefix: [u8; ChunkId::PREFIX_LEN],
    /// Row of the pack.
    pub pack: u32,
    /// Number of the segment in the pack.
    pub segment: u16,
    /// Where the chunk begins in the segment's plaintext.
    pub offset: u32,
    /// How many bytes the chunk has.
    pub len: u32,
}

impl Record {
    /// The stored form.
    ///
    /// # Panics
    /// If offset or length do not fit 24 bits; segments are bounded far below.
    pub fn encode(&self) -> [u8; RECORD_LEN] {
        let mut out = Vec::with_capacity(RECORD_LEN);
        out.extend_from_slice(&self.prefix);
        out.extend_from_slice(&self.pack.to_le_bytes());
        out.extend_from_slice(&self.segment.to_le_bytes());
        put_u24(&mut out, self.offset);
        put_u24(&mut out, self.len);
        out.try_into().expect("the fields add up to 28 bytes")
    }

    /// Reads one row. Whether it points into the tables is for the caller to check.
    pub fn decode(row: &[u8; RECORD_LEN]) -> Self {
        let mut prefix = [0; ChunkId::PREFIX_LEN];
        prefix.copy_from_slice(&row[..16]);
        Self {
            prefix,
            pack: u32::from_le_bytes([row[16], row[17], row[18], row[19]]),
            segment: u16::from_le_bytes([row[20], row[21]]),
            offset: u32::from_le_bytes([row[22], row[23], row[24], 0]),
            len: u32::from_le_bytes([row[25], row[26], row[27], 0]),
        }
    }
}

/// The plaintext of one block of rows, to be sealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlainBlock {
    /// What the rows are and where they stand.
    pub kind: BlockKind,
    /// How many rows there are.
    pub rows: u32,
    /// The rows, at most [`BLOCK_PLAIN_MAX`] bytes.
    pub bytes: Vec<u8>,
}

/// Everything an index object says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexTables {
    /// Who wrote it.
    pub author: WriterId,
    /// The collector's horizon that the author saw first.
    pub h0: u64,
    /// Index objects whose content this one repeats; ascending.
    pub supersedes: Vec<ObjectHash>,
    /// The sealed data keys that segment rows number.
    pub data_keys: Vec<Vec<u8>>,
    /// The writers that segment rows number.
    pub origins: Vec<WriterId>,
    /// The packs, in order of their ids.
    pub packs: Vec<PackRow>,
    /// The segments of all packs, in pack order.
    pub segments: Vec<SegmentEntry>,
    /// Stored forms of [`Record`]s in byte order.
    pub records: Vec<[u8; RECORD_LEN]>,
}

impl IndexTables {
    /// The blocks to seal, in stored order; the first one is block 1 of the object.
    pub fn blocks(&self) -> impl Iterator<Item = PlainBlock> {
        let packs = table_blocks(&self.packs, |first, rows| PlainBlock {
            kind: BlockKind::Packs { first },
            rows: rows.len() as u32,
            bytes: rows.iter().flat_map(PackRow::encode).collect(),
        });
        let segments = table_blocks(&self.segments, |first, rows| {
            let mut bytes = Vec::with_capacity(rows.len() * SegmentEntry::LEN);
            rows.iter().for_each(|row| row.encode(&mut bytes));
            PlainBlock { kind: BlockKind::Segments { first }, rows: rows.len() as u32, bytes }
        });
        let records = self.records.chunks(BLOCK_PLAIN_MAX / RECORD_LEN).map(|rows| PlainBlock {
            kind: BlockKind::Records { first: Record::decode(&rows[0]).prefix },
            rows: rows.len() as u32,
            bytes: rows.as_flattened().to_vec(),
        });
        packs.chain(segments).chain(records)
    }

    /// How many blocks [`Self::blocks`] yields.
    pub fn block_count(&self) -> usize {
        self.packs.len().div_ceil(BlockKind::Packs { first: 0 }.rows_max())
            + self.segments.len().div_ceil(BlockKind::Segments { first: 0 }.rows_max())
            + self.records.len().div_ceil(BLOCK_PLAIN_MAX / RECORD_LEN)
    }

    /// The header, once every block is sealed: `stored` in the order of [`Self::blocks`]. Fails if it is not one entry
    /// a block.
    pub fn header(&self, stored: &[StoredBlock]) -> Result<IndexHeader, FormatError> {
        if stored.len() != self.block_count() {
            return Err(bad("number of sealed index blocks"));
        }
        let blocks = self.blocks().zip(stored);
        Ok(IndexHeader {
            author: self.author,
            h0: self.h0,
            supersedes: self.supersedes.clone(),
            data_keys: self.data_keys.clone(),
            origins: self.origins.clone(),
            packs: count(self.packs.len())?,
            segments: count(self.segments.len())?,
            records: self.records.len() as u64,
            blocks: blocks
                .map(|(plain, stored)| BlockEntry { kind: plain.kind, rows: plain.rows, stored: *stored })
                .collect(),
        })
    }

    /// Reads the plaintext of all blocks of `header`, in stored order.
    pub fn decode<B: AsRef<[u8]>>(
        header: IndexHeader,
        blocks: impl IntoIterator<Item = B>,
    ) -> Result<Self, FormatError> {
        let mut decoder = IndexDecoder::new(header);
        blocks.into_iter().try_for_each(|block| decoder.push(block.as_ref()))?;
        decoder.finish()
    }

    /// The segments of a pack.
    pub fn segments_of(&self, pack: &PackRow) -> &[SegmentEntry] {
        let first = pack.first_segment as usize;
        self.segments.get(first..first + usize::from(pack.segments)).unwrap_or(&[])
    }

    /// Demands everything that a decoder demands: order, and that no row points outside the tables.
    pub fn check(&self) -> Result<(), FormatError> {
        if self.data_keys.len() > TABLE_MAX || self.origins.len() > TABLE_MAX {
            return Err(bad("index key or origin table"));
        }
        self.check_packs()?;
        if !self.records.is_sorted_by(|a, b| a < b) {
            return Err(bad("order of records"));
        }
        self.records.iter().try_for_each(|row| self.check_record(&Record::decode(row)))
    }

    fn check_packs(&self) -> Result<(), FormatError> {
        if !self.packs.is_sorted_by(|a, b| a.id < b.id) {
            return Err(bad("order of pack rows"));
        }
        let mut first = 0;
        for pack in &self.packs {
            if u64::from(pack.first_segment) != first {
                return Err(bad("first segment of a pack row"));
            }
            first += u64::from(pack.segments);
        }
        if first != self.segments.len() as u64 {
            return Err(bad("number of segment rows"));
        }
        for pack in &self.packs {
            check_segments(pack, self.segments_of(pack), self.data_keys.len(), self.origins.len())?;
        }
        Ok(())
    }

    fn check_record(&self, record: &Record) -> Result<(), FormatError> {
        let pack = self.packs.get(record.pack as usize).ok_or_else(|| bad("pack of a record"))?;
        let segment = self.segments_of(pack).get(usize::from(record.segment));
        let segment = segment.ok_or_else(|| bad("segment of a record"))?;
        check_range(record, segment)
    }
}

fn check_range(record: &Record, segment: &SegmentEntry) -> Result<(), FormatError> {
    // Both are 24-bit numbers: the sum cannot overflow.
    if record.offset + record.len > segment.plain_len {
        return Err(bad("range of a record"));
    }
    Ok(())
}

fn table_blocks<'a, T>(
    rows: &'a [T],
    block: impl Fn(u32, &'a [T]) -> PlainBlock + 'a,
) -> impl Iterator<Item = PlainBlock> + 'a
where
    T: TableRow,
{
    let full = T::KIND.rows_max();
    rows.chunks(full).enumerate().map(move |(number, rows)| block((number * full) as u32, rows))
}

trait TableRow {
    const KIND: BlockKind;
}

impl TableRow for PackRow {
    const KIND: BlockKind = BlockKind::Packs { first: 0 };
}

impl TableRow for SegmentEntry {
    const KIND: BlockKind = BlockKind::Segments { first: 0 };
}

fn count(rows: usize) -> Result<u32, FormatError> {
    u32::try_from(rows).map_err(|_| bad("number of index rows"))
}

fn check_segments(
    pack: &PackRow,
    segments: &[SegmentEntry],
    data_keys: usize,
    origins: usize,
) -> Result<(), FormatError> {
    for segment in segments {
        if usize::from(segment.data_key) >= data_keys || usize::from(segment.origin) >= origins {
            return Err(bad("data key or origin of a segment row"));
        }
        if segment.offset.checked_add(segment.stored_len).is_none_or(|end| end > pack.size) {
            return Err(bad("range of a segment row"));
        }
    }
    Ok(())
}

/// The rows of one opened block of packs.
pub fn decode_packs(block: &[u8]) -> Result<Vec<PackRow>, FormatError> {
    decode_rows(block, PackRow::LEN, PackRow::decode)
}

/// The rows of one opened block of segments.
pub fn decode_segments(block: &[u8]) -> Result<Vec<SegmentEntry>, FormatError> {
    decode_rows(block, SegmentEntry::LEN, SegmentEntry::decode)
}

/// The rows of one opened block of records, in strict byte order.
pub fn decode_records(block: &[u8]) -> Result<&[[u8; RECORD_LEN]], FormatError> {
    let (rows, rest) = block.as_chunks::<RECORD_LEN>();
    if !rest.is_empty() {
        return Err(FormatError::Truncated);
    }
    if !rows.is_sorted_by(|a, b| a < b) {
        return Err(bad("order of records"));
    }
    Ok(rows)
}

fn decode_rows<T>(
    block: &[u8],
    row_len: usize,
    decode: impl Fn(&mut Reader<'_>) -> Result<T, FormatError>,
) -> Result<Vec<T>, FormatError> {
    let mut reader = Reader::new(block);
    let mut rows = Vec::with_capacity(block.len() / row_len);
    while reader.remaining() > 0 {
        rows.push(decode(&mut reader)?);
    }
    Ok(rows)
}

/// Reads an index object block by block, so that its ciphertext need not be held as a whole.
#[derive(Debug)]
pub struct IndexDecoder {
    blocks: std::vec::IntoIter<BlockEntry>,
    tables: IndexTables,
}

impl IndexDecoder {
    /// Begins with an opened header.
    pub fn new(header: IndexHeader) -> Self {
        let tables = IndexTables {
            author: header.author,
            h0: header.h0,
            supersedes: header.supersedes,
            data_keys: header.data_keys,
            origins: header.origins,
            packs: Vec::new(),
            segments: Vec::new(),
            records: Vec::new(),
        };
        Self { blocks: header.blocks.into_iter(), tables }
    }

    /// Takes the plaintext of the next block of the header's list.
    pub fn push(&mut self, plain: &[u8]) -> Result<(), FormatError> {
        let entry = self.blocks.next().ok_or(FormatError::TrailingBytes)?;
        if plain.len() < entry.plain_len() {
            return Err(FormatError::Truncated);
        }
        if plain.len() > entry.plain_len() {
            return Err(FormatError::TrailingBytes);
        }
        match entry.kind {
            BlockKind::Packs { .. } => self.tables.packs.extend(decode_packs(plain)?),
            BlockKind::Segments { .. } => self.tables.segments.extend(decode_segments(plain)?),
            BlockKind::Records { first } => {
                let rows = decode_records(plain)?;
                let continues = rows.first().is_some_and(|row| {
                    row[..16] == first && self.tables.records.last().is_none_or(|last| last < row)
                });
                if !continues {
                    return Err(bad("first record of an index block"));
                }
                self.tables.records.extend_from_slice(rows);
            }
        }
        Ok(())
    }

    /// Demands that every block came, and that no row points outside the tables.
    pub fn finish(self) -> Result<IndexTables, FormatError> {
        if self.blocks.len() > 0 {
            return Err(FormatError::Truncated);
        }
        self.tables.check()?;
        Ok(self.tables)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::format::segment::Codec;

    fn segment(seed: u8, plain_len: u32) -> SegmentEntry {
        SegmentEntry {
            offset: 32,
            stored_len: 100,
            plain_len,
            codec: Codec::Zstd,
            flags: 0,
            data_key: 0,
            origin: 0,
            n1: [seed; 12],
            n2: [!seed; 12],
        }
    }

    fn new_pack(seed: u8) -> NewPack {
        NewPack {
            id: PackId::new([seed; 32]),
            size: 1000,
            directory_offset: 900,
            directory_len: 80,
            kind: ChunkKind::Data,
        }
    }

    fn chunk(seed: u8, segment: u16, offset: u32, len: u32) -> NewChunk {
        NewChunk { id: ChunkId::new([seed; 32]), segment, offset, len }
    }

    fn builder() -> IndexBuilder {
        let superseded = [3, 2, 3].map(|seed| ObjectHash::new([seed; 32]));
        let mut builder = IndexBuilder::new(WriterId::new([1; 16]), 7, superseded.to_vec());
        assert_eq!(builder.data_key(b"sealed"), Ok(0));
        assert_eq!(builder.data_key(b"other"), Ok(1));
        assert_eq!(builder.data_key(b"sealed"), Ok(0));
        assert_eq!(builder.origin(WriterId::new([1; 16])), Ok(0));
        builder
    }

    fn small() -> IndexTables {
        let mut builder = builder();
        let chunks = [chunk(5, 1, 10, 40), chunk(4, 0, 0, 100)];
        builder.add_pack(new_pack(9), &[segment(1, 100), segment(2, 50)], &chunks).unwrap();
        builder.add_pack(new_pack(8), &[segment(3, 60)], &[chunk(5, 0, 0, 60)]).unwrap();
        assert_eq!(builder.len_records(), 3);
        builder.finish()
    }

    fn seal(tables: &IndexTables) -> (IndexHeader, Vec<Vec<u8>>) {
        let plain: Vec<_> = tables.blocks().map(|block| block.bytes).collect();
        let stored: Vec<_> = plain
            .iter()
            .map(|bytes| StoredBlock { stored_len: bytes.len() as u32 + 16, sum: [1; 32] })
            .collect();
        (tables.header(&stored).unwrap(), plain)
    }

    fn decode(tables: &IndexTables) -> Result<IndexTables, FormatError> {
        let (header, blocks) = seal(tables);
        IndexTables::decode(IndexHeader::decode(&header.encode())?, blocks)
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn rows_and_header_have_their_documented_bytes() {
        let tables = small();
        let (header, blocks) = seal(&tables);
        assert_eq!(
            hex(&blocks[0][..64]),
            "08".repeat(32) + "e80300008403000050000000" + "0000" + "0100" + "00000000" + &"00".repeat(12)
        );
        assert_eq!(hex(&blocks[0][64 + 44..64 + 52]), "0000020001000000");
        assert_eq!(
            hex(&blocks[1][..40]),
            "20000000640000003c00000001000000".to_owned() + &"03".repeat(12) + &"fc".repeat(12)
        );
        assert_eq!(
            hex(&blocks[2]),
            "04".repeat(16)
                + "010000000000000000640000"
                + &"05".repeat(16)
                + "0000000000000000003c0000"
                + &"05".repeat(16)
                + "0100000001000a0000280000"
        );
        let sum = "5820".to_owned() + &"01".repeat(32);
        let golden = "a9".to_owned()
            + "0050"
            + &"01".repeat(16)
            + "0107"
            + "0282"
            + "5820"
            + &"02".repeat(32)
            + "5820"
            + &"03".repeat(32)
            + "0382"
            + "46"
            + &hex(b"sealed")
            + "45"
            + &hex(b"other")
            + "0481"
            + "50"
            + &"01".repeat(16)
            + "0502"
            + "0603"
            + "0703"
            + "0883"
            + "850000021890"
            + &sum
            + "850100031888"
            + &sum
            + "850250"
            + &"04".repeat(16)
            + "031864"
            + &sum;
        assert_eq!(hex(&header.encode()), golden);
        assert_eq!(decode(&tables), Ok(tables));
    }

    /// A change to the tables that a decoder must refuse.
    type Spoil = fn(&mut IndexTables);

    #[test]
    fn tables_that_contradict_themselves_are_refused() {
        let bad: &[(&str, Spoil)] = &[
            ("order of pack rows", |t| t.packs[1].id = t.packs[0].id),
            ("first segment of a pack row", |t| t.packs[1].first_segment = 0),
            ("first segment of a pack row", |t| t.packs[0].segments = u16::MAX),
            ("number of segment rows", |t| t.packs[1].segments = 1),
            ("number of segment rows", |t| t.segments.truncate(1)),
            ("directory of a pack row", |t| t.packs[0].directory_len = u32::MAX),
            ("data key or origin of a segment row", |t| t.segments[0].data_key = 2),
            ("data key or origin of a segment row", |t| t.segments[2].origin = 1),
            ("range of a segment row", |t| t.segments[1].offset = 901),
            ("segment length", |t| t.segments[1].plain_len = (8 << 20) + 1),
            ("order of records", |t| t.records.swap(0, 1)),
            ("order of records", |t| t.records[1] = t.records[0]),
            ("pack of a record", |t| t.records[0][16] = 2),
            ("segment of a record", |t| t.records[1][20] = 1),
            ("range of a record", |t| t.records[0][22] = 1),
            ("range of a record", |t| t.records[0][22..].fill(0xff)),
            ("order of superseded index objects", |t| t.supersedes.swap(0, 1)),
            ("length of a sealed data key", |t| t.data_keys[0].clear()),
            ("length of a sealed data key", |t| t.data_keys[0] = vec![0; DATA_KEY_MAX + 1]),
            ("index key or origin table", |t| t.data_keys = vec![vec![0]; 256]),
        ];
        for (expected, spoil) in bad {
            let mut tables = small();
            spoil(&mut tables);
            match decode(&tables) {
                Err(FormatError::Value { what, .. }) => assert_eq!(what, *expected),
                other => panic!("{expected}: {other:?}"),
            }
        }
    }

    #[test]
    fn reserved_bytes_of_a_pack_row_must_be_zero() {
        let row = small().packs[0].encode();
        for byte in [45, 52, 63] {
            let mut row = row;
            row[byte] = 1;
            assert_eq!(decode_packs(&row), Err(bad("reserved bytes of a pack row")), "{byte}");
        }
        let mut row = row;
        row[44] = 2;
        assert_eq!(decode_packs(&row), Err(bad("chunk kind of a pack row")));
    }

    #[test]
    fn blocks_that_differ_from_the_header_are_refused() {
        let tables = small();
        let (header, blocks) = seal(&tables);
        let tried = |blocks: &[Vec<u8>]| IndexTables::decode(header.clone(), blocks);
        assert_eq!(tried(&blocks[..2]), Err(FormatError::Truncated));
        for number in 0..3 {
            let mut short = blocks.clone();
            short[number].pop();
            assert_eq!(tried(&short), Err(FormatError::Truncated));
            let mut long = blocks.clone();
            long[number].push(0);
            assert_eq!(tried(&long), Err(FormatError::TrailingBytes));
        }
        let mut more = blocks.clone();
        more.push(Vec::new());
        assert_eq!(tried(&more), Err(FormatError::TrailingBytes));
        let mut other = header.clone();
        other.blocks[2].kind = BlockKind::Records { first: [3; 16] };
        assert_eq!(IndexTables::decode(other, &blocks), Err(bad("first record of an index block")));
    }

    #[test]
    fn a_header_is_refused_when_cut_changed_or_boastful() {
        let (header, _) = seal(&small());
        let bytes = header.encode();
        for len in 0..bytes.len() {
            assert!(IndexHeader::decode(&bytes[..len]).is_err(), "{len}");
        }
        let mut long = bytes.clone();
        long.push(0);
        assert_eq!(IndexHeader::decode(&long), Err(FormatError::TrailingBytes));
        // Lists that claim 2^32 elements are refused before anything is allocated.
        for field in [2, 3, 4, 8] {
            let boast = [0xa1, field, 0x9b, 0, 0, 0, 1, 0, 0, 0, 0];
            assert_eq!(IndexHeader::decode(&boast), Err(FormatError::Truncated), "{field}");
        }
        assert_eq!(IndexHeader::decode(&[0xbf, 0xff]), Err(bad("index header")));
        assert_eq!(IndexHeader::decode(&[0xa0]), Err(bad("missing index header field")));
        assert_eq!(IndexHeader::decode(&[0xa2, 1, 0, 1, 0]), Err(bad("order of index header fields")));
        type SpoilHeader = fn(&mut IndexHeader);
        let spoils: &[(&str, SpoilHeader)] = &[
            ("index row counts", |h| h.records = u64::MAX),
            ("index row counts", |h| h.packs = 1),
            ("rows of an index block", |h| h.blocks[0].rows = 0),
            ("rows of an index block", |h| h.blocks[0].rows = 1025),
            ("order of index blocks", |h| h.blocks.swap(0, 2)),
            ("first row of an index block", |h| h.blocks[1].kind = BlockKind::Segments { first: 1 }),
            ("stored length of an index block", |h| h.blocks[1].stored.stored_len = 15),
            ("stored length of an index block", |h| h.blocks[1].stored.stored_len = 65553),
        ];
        for (expected, spoil) in spoils {
            let mut header = header.clone();
            spoil(&mut header);
            assert_eq!(IndexHeader::decode(&header.encode()), Err(bad(expected)));
        }
    }

    #[test]
    fn a_field_of_a_later_version_is_skipped() {
        let (header, _) = seal(&small());
        let mut bytes = header.encode();
        bytes[0] = 0xaa;
        bytes.extend_from_slice(&[0x09, 0x82, 0x01, 0x61, b'x']);
        assert_eq!(IndexHeader::decode(&bytes), Ok(header));
    }

    #[test]
    fn a_block_sum_holds_the_stored_bytes() {
        let entry =
            BlockEntry { kind: BlockKind::Packs { first: 0 }, rows: 1, stored: StoredBlock::of(b"stored") };
        assert_eq!(entry.check(b"stored"), Ok(()));
        for other in [&b"storeD"[..], b"store", b"stored "] {
            assert_eq!(entry.check(other), Err(bad("index block sum")));
        }
    }

    #[test]
    fn the_builder_refuses_what_no_decoder_would_take() {
        let mut builder = builder();
        let one = [segment(1, 100)];
        let mut fails = |pack, segments: &[SegmentEntry], chunks: &[NewChunk]| {
            assert!(builder.add_pack(pack, segments, chunks).is_err());
            assert_eq!(builder.len_records(), 0);
        };
        fails(NewPack { directory_offset: 1001, ..new_pack(1) }, &one, &[]);
        fails(new_pack(1), &[segment(1, u32::MAX)], &[]);
        fails(new_pack(1), &[SegmentEntry { data_key: 2, ..one[0] }], &[]);
        fails(new_pack(1), &[SegmentEntry { offset: 990, ..one[0] }], &[]);
        fails(new_pack(1), &vec![one[0]; 65536], &[]);
        fails(new_pack(1), &one, &[chunk(1, 1, 0, 1)]);
        fails(new_pack(1), &one, &[chunk(1, 0, u32::MAX, 2)]);
        fails(new_pack(1), &one, &[chunk(1, 0, 50, 51)]);
        builder.add_pack(new_pack(1), &one, &[chunk(1, 0, 50, 50)]).unwrap();
        assert_eq!(builder.add_pack(new_pack(1), &one, &[]), Err(bad("a pack listed twice")));
        (2..255).for_each(|n: u16| assert_eq!(builder.data_key(&n.to_le_bytes()), Ok(n as u8)));
        assert_eq!(builder.data_key(b"one more"), Err(bad("index key or origin table")));
        assert_eq!(builder.data_key(b"other"), Ok(1));
    }

    #[test]
    fn the_header_names_the_blocks_that_answer_a_lookup() {
        let mut builder = builder();
        // 6,000 records of three prefixes: every prefix spans blocks.
        let segments = vec![segment(0, 1 << 20); 2000];
        let chunks: Vec<_> = (0..6000_u32).map(|n| chunk(10 * (1 + n / 2000) as u8, 0, n, 1)).collect();
        builder.add_pack(new_pack(1), &segments, &chunks).unwrap();
        let (header, _) = seal(&builder.finish());
        assert_eq!(header.blocks.len(), 1 + 2 + 3);
        let blocks = |seed: u8| header.record_blocks(&[seed; 16]);
        assert_eq!((blocks(5), blocks(10), blocks(20), blocks(30)), (3..3, 3..4, 3..5, 4..6));
        assert_eq!((blocks(15), blocks(25), blocks(31)), (3..4, 4..5, 5..6));
        assert_eq!((header.pack_block(0), header.pack_block(1)), (Some(0), None));
        assert_eq!((header.segment_block(1637), header.segment_block(1638)), (Some(1), Some(2)));
        assert_eq!(header.segment_block(2000), None);
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = IndexHeader::decode(&bytes);
            let _ = (decode_packs(&bytes), decode_segments(&bytes), decode_records(&bytes).is_ok());
        }

        #[test]
        fn changed_headers_never_panic(at in 0_usize..300, byte: u8) {
            let (header, blocks) = seal(&small());
            let mut bytes = header.encode();
            let at = at % bytes.len();
            bytes[at] = byte;
            if let Ok(header) = IndexHeader::decode(&bytes) {
                let _ = IndexTables::decode(header, &blocks);
            }
        }
    }
}
