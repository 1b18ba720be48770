//! One level: an immutable merge of index objects, and the search in it.

use xorf::{BinaryFuse8Ref, Filter, FilterRef};

use super::IndexError;
use super::bits::AtomicBits;
use super::header::{Header, Shard};
use super::map::Backing;
use super::pieces::{PieceDamaged, Pieces};
use super::search::{Prefix, Sorted, key_of};
use crate::format::FormatError;
use crate::format::index::{PackRow, RECORD_LEN, Record};
use crate::format::segment::SegmentEntry;
use crate::format::wire::Reader;
use crate::id::{PackId, WriterId};

/// A row of a level's pack table: a [`PackRow`] whose last twelve bytes begin with the number of its source.
#[derive(Debug, Clone, Copy)]
pub(super) struct LevelPack {
    pub(super) row: PackRow,
    pub(super) source: u32,
}

/// Where a source number stands in a stored pack row.
pub(super) const PACK_SOURCE_AT: usize = 52;

/// Where the rows of one prefix begin.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found {
    shard: usize,
    row: u64,
}

/// An open level.
#[derive(Debug)]
pub(super) struct Level {
    /// Its file name, or what stands for one.
    pub(super) name: String,
    pub(super) header: Header,
    /// Numbers of each source's first key and first origin.
    bases: Vec<(u32, u32)>,
    /// How many records come before each shard.
    rows_before: Vec<u64>,
    pieces: Pieces,
    /// Shards whose filter has been checked.
    filters: AtomicBits,
}

impl Level {
    /// Opens a level from the bytes of its file.
    pub(super) fn open(name: &str, backing: Backing) -> Result<Self, IndexError> {
        let damaged = |_: FormatError| IndexError::CacheDamaged { level: name.to_owned() };
        let header = Header::read(&backing).map_err(damaged)?;
        let mut base = (0, 0);
        let mut bases = Vec::with_capacity(header.sources.len());
        for source in &header.sources {
            bases.push(base);
            base = (base.0 + source.keys, base.1 + source.origins);
        }
        let rows_before = header.shards.iter().scan(0_u64, |sum, shard| {
            let before = *sum;
            *sum = sum.saturating_add(shard.rows);
            Some(before)
        });
        let rows_before = rows_before.collect();
        let pieces = Pieces::new(backing, header.data_len as usize);
        let filters = AtomicBits::new(header.shards.len());
        Ok(Self { name: name.to_owned(), header, bases, rows_before, pieces, filters })
    }

    /// Whether damage was ever seen.
    pub(super) fn is_damaged(&self) -> bool {
        self.pieces.is_damaged()
    }

    /// Whether it is held in memory and has no file.
    pub(super) fn is_memory(&self) -> bool {
        self.pieces.is_memory()
    }

    /// Marks the level as useless and says so.
    #[cold]
    pub(super) fn damage(&self) -> IndexError {
        let PieceDamaged = self.pieces.damage();
        IndexError::CacheDamaged { level: self.name.clone() }
    }

    #[inline]
    fn bytes(&self, at: u64, len: usize) -> Result<&[u8], IndexError> {
        self.pieces.bytes(at, len).map_err(|PieceDamaged| self.damage())
    }

    #[inline]
    fn array<const N: usize>(&self, at: u64) -> Result<[u8; N], IndexError> {
        self.pieces.array(at).map_err(|PieceDamaged| self.damage())
    }

    fn pack_at(&self, number: u32) -> Result<u64, IndexError> {
        if number >= self.header.packs {
            return Err(self.damage());
        }
        Ok(u64::from(number) * PackRow::LEN as u64)
    }

    /// The pack with this number.
    pub(super) fn pack(&self, number: u32) -> Result<LevelPack, IndexError> {
        let mut row = self.array::<{ PackRow::LEN }>(self.pack_at(number)?)?;
        let source = u32::from_le_bytes(row[PACK_SOURCE_AT..PACK_SOURCE_AT + 4].try_into().unwrap_or([0; 4]));
        row[PACK_SOURCE_AT..].fill(0);
        let row = PackRow::decode(&mut Reader::new(&row)).map_err(|_| self.damage())?;
        let segments_end = u64::from(row.first_segment) + u64::from(row.segments);
        if segments_end > u64::from(self.header.segments) || source as usize >= self.bases.len() {
            return Err(self.damage());
        }
        Ok(LevelPack { row, source })
    }

    /// The name of a pack.
    pub(super) fn pack_id(&self, number: u32) -> Result<PackId, IndexError> {
        self.array(self.pack_at(number)?).map(PackId::new)
    }

    /// Number of the first pack whose name is not before `id`.
    pub(super) fn first_pack(&self, id: &PackId) -> Result<u32, IndexError> {
        let (mut low, mut high) = (0, self.header.packs);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.pack_id(middle)? < *id { low = middle + 1 } else { high = middle }
        }
        Ok(low)
    }

    /// The stored form of a pack's segments.
    pub(super) fn segment_rows(&self, row: &PackRow) -> Result<&[u8], IndexError> {
        let at = self.header.segments_at() + u64::from(row.first_segment) * SegmentEntry::LEN as u64;
        self.bytes(at, usize::from(row.segments) * SegmentEntry::LEN)
    }

    /// A segment of a pack of this level.
    pub(super) fn segment(&self, row: &PackRow, number: u16) -> Result<SegmentEntry, IndexError> {
        if number >= row.segments {
            return Err(self.damage());
        }
        let first = u64::from(row.first_segment) + u64::from(number);
        let bytes =
            self.bytes(self.header.segments_at() + first * SegmentEntry::LEN as u64, SegmentEntry::LEN)?;
        SegmentEntry::decode(&mut Reader::new(bytes)).map_err(|_| self.damage())
    }

    /// Level-wide numbers of a segment's data key and origin.
    pub(super) fn references(
        &self,
        pack: &LevelPack,
        segment: &SegmentEntry,
    ) -> Result<(u32, u32), IndexError> {
        let source = pack.source as usize;
        let (entry, base) = match (self.header.sources.get(source), self.bases.get(source)) {
            (Some(entry), Some(base)) => (entry, base),
            _ => return Err(self.damage()),
        };
        let (key, origin) = (u32::from(segment.data_key), u32::from(segment.origin));
        if key >= entry.keys || origin >= entry.origins {
            return Err(self.damage());
        }
        Ok((base.0 + key, base.1 + origin))
    }

    /// Level-wide numbers of a source's first data key and first origin.
    pub(super) fn bases(&self, source: usize) -> (u32, u32) {
        self.bases.get(source).copied().unwrap_or_default()
    }

    /// The sealed data key with this level-wide number.
    pub(super) fn data_key(&self, number: u32) -> Result<&[u8], IndexError> {
        if number >= self.header.keys {
            return Err(self.damage());
        }
        let ends = self.header.key_ends_at() + u64::from(number) * 8;
        let start = if number == 0 { 0 } else { u64::from_le_bytes(self.array(ends - 8)?) };
        let end = u64::from_le_bytes(self.array(ends)?);
        let len = end.checked_sub(start).filter(|_| end <= self.header.keys_len);
        let len = len.and_then(|len| usize::try_from(len).ok()).ok_or_else(|| self.damage())?;
        self.bytes(self.header.keys_at() + start, len)
    }

    /// The origin with this level-wide number.
    pub(super) fn origin(&self, number: u32) -> Result<WriterId, IndexError> {
        if number >= self.header.origins {
            return Err(self.damage());
        }
        self.array(self.header.origins_at() + u64::from(number) * WriterId::LEN as u64).map(WriterId::new)
    }

    /// The row of a shard.
    #[inline]
    pub(super) fn row(&self, shard: &Shard, row: u64) -> Result<&[u8; RECORD_LEN], IndexError> {
        let bytes = self.bytes(shard.at + row * RECORD_LEN as u64, RECORD_LEN)?;
        bytes.first_chunk().ok_or_else(|| self.damage())
    }

    /// Where the records of this prefix begin. The filter turns most absent prefixes away.
    #[inline]
    pub(super) fn find(&self, prefix: &Prefix) -> Result<Option<Found>, IndexError> {
        let key = key_of(prefix);
        let Some(number) = self.shard_of(key) else { return Ok(None) };
        let shard = &self.header.shards[number];
        if shard.filter_len > 0 {
            if !self.filters.get(number) {
                self.check_filter(number, shard)?;
            }
            // Checked above: this looks at no sums again.
            let fingerprints = self.pieces.checked(shard.filter_at, shard.filter_len as usize);
            if !BinaryFuse8Ref::from_dma(&shard.descriptor, fingerprints).contains(&key) {
                return Ok(None);
            }
        }
        let sorted = Sorted { rows: shard.rows, first_key: shard.first_key, last_key: shard.last_key };
        let row = sorted.lower_bound(prefix, |row| self.row(shard, row))?;
        Ok((row < shard.rows).then_some(Found { shard: number, row }))
    }

    #[cold]
    fn check_filter(&self, number: usize, shard: &Shard) -> Result<(), IndexError> {
        self.bytes(shard.filter_at, shard.filter_len as usize)?;
        self.filters.set(number);
        Ok(())
    }

    /// The record at `found` if it still is of this prefix; `found` moves on.
    #[inline]
    pub(super) fn next(&self, found: &mut Found, prefix: &Prefix) -> Result<Option<Record>, IndexError> {
        let Some(shard) = self.header.shards.get(found.shard).filter(|shard| found.row < shard.rows) else {
            return Ok(None);
        };
        let row = self.row(shard, found.row)?;
        if row[..prefix.len()] != *prefix {
            return Ok(None);
        }
        found.row += 1;
        Ok(Some(Record::decode(row)))
    }

    /// How many records the level has.
    pub(super) fn rows(&self) -> u64 {
        self.header.shards.iter().map(|shard| shard.rows).fold(0, u64::saturating_add)
    }

    /// Number of the record that [`Self::next`] gives next.
    pub(super) fn slot(&self, found: &Found) -> u64 {
        self.rows_before.get(found.shard).copied().unwrap_or(u64::MAX).saturating_add(found.row)
    }

    /// The shard that may hold this key. Ids are uniform and shards equally full, so the first guess is nearly right.
    #[inline]
    fn shard_of(&self, key: u64) -> Option<usize> {
        let shards = &self.header.shards;
        let mut number = ((u128::from(key) * shards.len() as u128) >> 64) as usize;
        if shards.get(number.wrapping_sub(4)).is_some_and(|shard| shard.first_key > key)
            || shards.get(number + 4).is_some_and(|shard| shard.last_key < key)
        {
            number = shards.partition_point(|shard| shard.last_key < key);
        }
        while number > 0 && shards.get(number)?.first_key > key {
            number -= 1;
        }
        while shards.get(number)?.last_key < key {
            number += 1;
        }
        (shards.get(number)?.first_key <= key).then_some(number)
    }
}
