//! Building the tables of an index object from the packs that a run wrote.

use std::collections::BTreeSet;

use super::{DATA_KEY_MAX, IndexTables, PackRow, Record, TABLE_MAX, bad, check_segments, count};
use crate::format::FormatError;
use crate::format::envelope::ChunkKind;
use crate::format::segment::SegmentEntry;
use crate::format::wire::Reader;
use crate::id::{ChunkId, ObjectHash, PackId, WriterId};

/// A pack as [`IndexBuilder::add_pack`] takes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewPack {
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
}

/// Where a chunk of a new pack is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewChunk {
    /// The chunk.
    pub id: ChunkId,
    /// Number of its segment in the pack.
    pub segment: u16,
    /// Where it begins in the segment's plaintext.
    pub offset: u32,
    /// How many bytes it has.
    pub len: u32,
}

/// Gathers packs into an [`IndexTables`]; takes 28 bytes a chunk.
#[derive(Debug)]
pub struct IndexBuilder {
    tables: IndexTables,
    ids: BTreeSet<PackId>,
}

impl IndexBuilder {
    /// An index object without packs.
    pub fn new(author: WriterId, h0: u64, mut supersedes: Vec<ObjectHash>) -> Self {
        supersedes.sort_unstable();
        supersedes.dedup();
        let tables = IndexTables {
            author,
            h0,
            supersedes,
            data_keys: Vec::new(),
            origins: Vec::new(),
            packs: Vec::new(),
            segments: Vec::new(),
            records: Vec::new(),
        };
        Self { tables, ids: BTreeSet::new() }
    }

    /// The row of this sealed data key, added if it is new. Fails when the key is too long or 255 others came before.
    pub fn data_key(&mut self, sealed: &[u8]) -> Result<u8, FormatError> {
        if sealed.is_empty() || sealed.len() > DATA_KEY_MAX {
            return Err(bad("length of a sealed data key"));
        }
        row_of(&mut self.tables.data_keys, |key| key == sealed, || sealed.to_vec())
    }

    /// The row of this origin, added if it is new. Fails when 255 others came before.
    pub fn origin(&mut self, writer: WriterId) -> Result<u8, FormatError> {
        row_of(&mut self.tables.origins, |origin| *origin == writer, || writer)
    }

    /// Adds a pack. The segments' `data_key` and `origin` are rows that this builder gave. On an error nothing is added;
    /// a pack can be added once.
    pub fn add_pack(
        &mut self,
        pack: NewPack,
        segments: &[SegmentEntry],
        chunks: &[NewChunk],
    ) -> Result<(), FormatError> {
        let NewPack { id, size, directory_offset, directory_len, kind } = pack;
        let count_of = u16::try_from(segments.len()).map_err(|_| bad("number of segments in a pack"))?;
        let first_segment = count(self.tables.segments.len())?;
        count(self.tables.segments.len() + segments.len())?;
        let number = count(self.tables.packs.len())?;
        let row =
            PackRow { id, size, directory_offset, directory_len, kind, segments: count_of, first_segment };
        PackRow::decode(&mut Reader::new(&row.encode()))?;
        for segment in segments {
            let mut bytes = Vec::with_capacity(SegmentEntry::LEN);
            segment.encode(&mut bytes);
            SegmentEntry::decode(&mut Reader::new(&bytes))?;
        }
        check_segments(&row, segments, self.tables.data_keys.len(), self.tables.origins.len())?;
        for chunk in chunks {
            let segment = segments.get(usize::from(chunk.segment));
            let segment = segment.ok_or_else(|| bad("segment of a record"))?;
            if chunk.offset.checked_add(chunk.len).is_none_or(|end| end > segment.plain_len.min(0xff_ffff)) {
                return Err(bad("range of a record"));
            }
        }
        if !self.ids.insert(id) {
            return Err(bad("a pack listed twice"));
        }
        self.tables.packs.push(row);
        self.tables.segments.extend_from_slice(segments);
        self.tables.records.extend(chunks.iter().map(|chunk| {
            let NewChunk { id, segment, offset, len } = *chunk;
            Record { prefix: id.prefix(), pack: number, segment, offset, len }.encode()
        }));
        Ok(())
    }

    /// How many records there are, by which a writer decides when to publish.
    pub fn len_records(&self) -> usize {
        self.tables.records.len()
    }

    /// Puts everything in order.
    pub fn finish(self) -> IndexTables {
        let mut tables = self.tables;
        let old = std::mem::take(&mut tables.packs);
        let mut order: Vec<u32> = (0..old.len() as u32).collect();
        order.sort_unstable_by_key(|number| old[*number as usize].id);
        let mut number_of = vec![0_u32; old.len()];
        let mut segments = Vec::with_capacity(tables.segments.len());
        for (new, number) in order.iter().enumerate() {
            let mut row = old[*number as usize];
            number_of[*number as usize] = new as u32;
            let first = segments.len() as u32;
            segments.extend_from_slice(tables.segments_of(&row));
            row.first_segment = first;
            tables.packs.push(row);
        }
        tables.segments = segments;
        for row in &mut tables.records {
            let pack = number_of[Record::decode(row).pack as usize];
            row[16..20].copy_from_slice(&pack.to_le_bytes());
        }
        tables.records.sort_unstable();
        tables.records.dedup();
        tables
    }
}

fn row_of<T>(table: &mut Vec<T>, same: impl Fn(&T) -> bool, new: impl Fn() -> T) -> Result<u8, FormatError> {
    let row = table.iter().position(same).unwrap_or(table.len());
    if row >= TABLE_MAX {
        return Err(bad("index key or origin table"));
    }
    if row == table.len() {
        table.push(new());
    }
    Ok(row as u8)
}
