//! What a run looks chunks up in: a fixed set of levels, and which of their packs count.

use std::sync::Arc;

use super::IndexError;
use super::bits::Bits;
use super::header::Source;
use super::level::{Found, Level, LevelPack};
use super::merge::FADING;
use super::search::Prefix;
use crate::format::envelope::ChunkKind;
use crate::format::index::{PackRow, Record};
use crate::format::segment::SegmentEntry;
use crate::format::wire::Reader;
use crate::id::{ChunkId, PackId, WriterId};

/// Number of a pack in one view. A pack that several index objects list has several numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PackNumber(pub u32);

/// Number of a sealed data key in one view.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DataKeyNumber(pub u32);

/// Where a copy of a chunk is, and all that reading it by range takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Location {
    /// The pack.
    pub pack: PackNumber,
    /// The pack's name.
    pub pack_id: PackId,
    /// What its chunks are.
    pub pack_kind: ChunkKind,
    /// Number of the segment in the pack.
    pub segment_number: u16,
    /// The segment. Its `data_key` and `origin` are rows of an index object; use the two fields that follow.
    pub segment: SegmentEntry,
    /// The segment's sealed data key.
    pub data_key: DataKeyNumber,
    /// Who made the segment.
    pub origin: WriterId,
    /// Where the chunk begins in the segment's plaintext.
    pub offset: u32,
    /// How many bytes the chunk has.
    pub length: u32,
}

/// One record of a chunk, as far as marking needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Copy {
    /// Number of the record among all of the view.
    pub slot: u64,
    /// The pack.
    pub pack: PackNumber,
    /// What its chunks are.
    pub kind: ChunkKind,
    /// How many bytes the chunk has.
    pub length: u32,
}

/// An immutable view of the index. Cloning is cheap; threads share it.
///
/// Every lookup may meet damage: see [`IndexError::CacheDamaged`]. The view is then of no more use, and the next cache is without
/// what it met.
#[derive(Debug, Clone)]
pub struct View {
    pub(super) levels: Arc<[ViewLevel]>,
    packs: u32,
    /// Packs of listed index objects.
    listed: Arc<Bits>,
    /// Packs that readers may use.
    present: Arc<Bits>,
    /// Packs that writers may depend on.
    usable: Arc<Bits>,
}

#[derive(Debug)]
pub(super) struct ViewLevel {
    pub(super) level: Arc<Level>,
    pub(super) alive: Bits,
    pub(super) pack_base: u32,
    pub(super) key_base: u32,
    pub(super) slot_base: u64,
}

impl View {
    /// Whether damage was met. Other levels still answer; a new cache lacks what is damaged, and fetches it.
    pub fn is_damaged(&self) -> bool {
        self.levels.iter().any(|level| level.level.is_damaged())
    }

    /// A view of these levels and the sources that count in each, in the order in which to look.
    pub(super) fn new(levels: Vec<(Arc<Level>, Bits)>) -> Result<Self, IndexError> {
        let too_many = |what| IndexError::TooMany { what, limit: u64::from(u32::MAX) };
        let (mut packs, mut keys, mut slot_base) = (0_u32, 0_u32, 0_u64);
        let mut placed = Vec::with_capacity(levels.len());
        for (level, alive) in levels {
            let (pack_base, key_base) = (packs, keys);
            packs = packs.checked_add(level.header.packs).ok_or_else(|| too_many("packs"))?;
            keys = keys.checked_add(level.header.keys).ok_or_else(|| too_many("data keys"))?;
            let rows = level.rows();
            placed.push(ViewLevel { level, alive, pack_base, key_base, slot_base });
            slot_base = slot_base.saturating_add(rows);
        }
        let mut listed = Bits::new(packs as usize, true);
        for ViewLevel { level, alive, pack_base, .. } in &placed {
            if (0..level.header.sources.len()).all(|source| alive.get(source)) {
                continue;
            }
            for number in 0..level.header.packs {
                let counts = alive.get(level.pack(number)?.source as usize);
                listed.set((pack_base + number) as usize, counts);
            }
        }
        let listed = Arc::new(listed);
        let usable = Arc::new(Bits::new(packs as usize, false));
        Ok(Self { levels: placed.into(), packs, present: Arc::clone(&listed), listed, usable })
    }

    /// A view of the index objects of both, for readers: every pack is present, none usable. Numbers of `self` keep their
    /// meaning.
    pub fn join(&self, other: &Self) -> Result<Self, IndexError> {
        let both = self.levels.iter().chain(other.levels.iter());
        Self::new(both.map(|level| (Arc::clone(&level.level), level.alive.clone())).collect())
    }

    /// Decides which packs a writer may depend on: those it saw listed and not condemned. Before the first call none
    /// is, so that a writer that forgets it stores everything. Clones made before are not affected.
    pub fn set_usable(&mut self, counts: impl Fn(&PackId) -> bool) -> Result<(), IndexError> {
        self.usable = Arc::new(self.select(counts)?);
        Ok(())
    }

    /// Decides which packs readers may use: those in the listing, condemned or not. Before the first call all are.
    /// Clones made before are not affected.
    pub fn set_present(&mut self, counts: impl Fn(&PackId) -> bool) -> Result<(), IndexError> {
        self.present = Arc::new(self.select(counts)?);
        Ok(())
    }

    fn select(&self, counts: impl Fn(&PackId) -> bool) -> Result<Bits, IndexError> {
        let mut bits = (*self.listed).clone();
        for ViewLevel { level, pack_base, .. } in self.levels.iter() {
            for number in 0..level.header.packs {
                let place = (pack_base + number) as usize;
                if bits.get(place) && !counts(&level.pack_id(number)?) {
                    bits.set(place, false);
                }
            }
        }
        Ok(bits)
    }

    /// A pack that a writer may depend on and that holds the chunk in a segment that is not fading.
    #[inline]
    pub fn find_usable(&self, id: &ChunkId) -> Result<Option<PackNumber>, IndexError> {
        let prefix = id.prefix();
        for level in self.levels.iter() {
            let Some(mut found) = level.level.find(&prefix)? else { continue };
            while let Some(record) = level.level.next(&mut found, &prefix)? {
                let number = level.number(&record)?;
                if self.usable.get(number.0 as usize) && !level.is_fading(&record)? {
                    return Ok(Some(number));
                }
            }
        }
        Ok(None)
    }

    /// Every copy of the chunk in a pack that readers may use, fading ones included. Equality of prefixes decides:
    /// the reader compares the full id once it has the plaintext.
    pub fn locate(&self, id: &ChunkId) -> impl Iterator<Item = Result<Location, IndexError>> {
        Locations { view: self, prefix: id.prefix(), level: 0, found: None }
    }

    /// The records of every copy that [`Self::locate`] finds.
    pub fn copies(&self, id: &ChunkId) -> impl Iterator<Item = Result<Copy, IndexError>> {
        let mut locations = Locations { view: self, prefix: id.prefix(), level: 0, found: None };
        std::iter::from_fn(move || locations.copy().transpose())
    }

    /// How many records the levels have, those that do not count included: one more than the highest slot.
    pub fn slots(&self) -> u64 {
        self.levels.iter().map(|level| level.level.rows()).fold(0, u64::saturating_add)
    }

    /// How many pack numbers there are; those of index objects that are not listed are among them.
    pub fn pack_count(&self) -> u32 {
        self.packs
    }

    /// The pack with this number.
    pub fn pack(&self, number: PackNumber) -> Result<PackRow, IndexError> {
        self.level_pack(number).map(|(_, pack)| pack.row)
    }

    /// Whether a writer may depend on this pack.
    pub fn is_usable(&self, number: PackNumber) -> bool {
        number.0 < self.packs && self.usable.get(number.0 as usize)
    }

    /// A number of the pack with this name, if a listed index object has it.
    pub fn pack_by_id(&self, id: &PackId) -> Result<Option<PackNumber>, IndexError> {
        for ViewLevel { level, pack_base, .. } in self.levels.iter() {
            for number in level.first_pack(id)?..level.header.packs {
                if level.pack_id(number)? != *id {
                    break;
                }
                if self.listed.get((pack_base + number) as usize) {
                    return Ok(Some(PackNumber(pack_base + number)));
                }
            }
        }
        Ok(None)
    }

    /// All packs of listed index objects. A pack that several of them list comes several times.
    pub fn packs(&self) -> impl Iterator<Item = Result<(PackNumber, PackRow), IndexError>> {
        let listed = (0..self.packs).filter(|number| self.listed.get(*number as usize)).map(PackNumber);
        listed.map(|number| self.pack(number).map(|row| (number, row)))
    }

    /// The segments of a pack. Their `data_key` is a row of an index object; see [`Self::segment_key`].
    pub fn segments(&self, number: PackNumber) -> Result<Vec<SegmentEntry>, IndexError> {
        let (level, pack) = self.level_pack(number)?;
        let mut reader = Reader::new(level.level.segment_rows(&pack.row)?);
        let rows = 0..pack.row.segments;
        rows.map(|_| SegmentEntry::decode(&mut reader).map_err(|_| level.level.damage())).collect()
    }

    /// Whether a segment of this pack is fading.
    pub fn has_fading(&self, number: PackNumber) -> Result<bool, IndexError> {
        let (level, _) = self.level_pack(number)?;
        if !level.level.header.fading {
            return Ok(false);
        }
        Ok(self.segments(number)?.iter().any(|segment| segment.flags & FADING != 0))
    }

    /// Number of the sealed data key of a segment of this pack.
    pub fn segment_key(
        &self,
        number: PackNumber,
        segment: &SegmentEntry,
    ) -> Result<DataKeyNumber, IndexError> {
        let (level, pack) = self.level_pack(number)?;
        let (key, _) = level.level.references(&pack, segment)?;
        Ok(DataKeyNumber(level.key_base + key))
    }

    /// Who made a segment of this pack.
    pub(super) fn segment_origin(
        &self,
        number: PackNumber,
        segment: &SegmentEntry,
    ) -> Result<WriterId, IndexError> {
        let (level, pack) = self.level_pack(number)?;
        let (_, origin) = level.level.references(&pack, segment)?;
        level.level.origin(origin)
    }

    /// The sealed bytes of a data key. Two numbers may stand for equal bytes.
    pub fn data_key(&self, number: DataKeyNumber) -> Result<&[u8], IndexError> {
        let level = self.levels.iter().rev().find(|level| level.key_base <= number.0);
        let level = level.filter(|level| number.0 - level.key_base < level.level.header.keys);
        let level = level.ok_or(IndexError::Unknown { what: "data key", number: number.0 })?;
        level.level.data_key(number.0 - level.key_base)
    }

    /// The index object that lists the pack of this number.
    pub fn pack_source(&self, number: PackNumber) -> Result<&Source, IndexError> {
        let (level, pack) = self.level_pack(number)?;
        let entry = level.level.header.sources.get(pack.source as usize);
        Ok(&entry.ok_or_else(|| level.level.damage())?.source)
    }

    /// How many records listed index objects have: at least the number of different chunks.
    pub fn chunk_count(&self) -> u64 {
        self.sources().map(|source| source.records).sum()
    }

    /// For each index object of the view the lengths of its tables of data keys and of origins.
    pub fn tables(&self) -> impl Iterator<Item = (&Source, u32, u32)> {
        self.levels.iter().flat_map(|level| {
            let sources = level.level.header.sources.iter().enumerate();
            let listed = sources.filter(|(number, _)| level.alive.get(*number));
            listed.map(|(_, entry)| (&entry.source, entry.keys, entry.origins))
        })
    }

    /// The index objects of the view.
    pub fn sources(&self) -> impl Iterator<Item = &Source> {
        self.levels.iter().flat_map(|level| {
            let sources = level.level.header.sources.iter().enumerate();
            sources.filter(|(number, _)| level.alive.get(*number)).map(|(_, entry)| &entry.source)
        })
    }

    fn level_pack(&self, number: PackNumber) -> Result<(&ViewLevel, LevelPack), IndexError> {
        let level = self.levels.iter().rev().find(|level| level.pack_base <= number.0);
        let level = level.filter(|level| number.0 - level.pack_base < level.level.header.packs);
        let level = level.ok_or(IndexError::Unknown { what: "pack", number: number.0 })?;
        Ok((level, level.level.pack(number.0 - level.pack_base)?))
    }
}

impl ViewLevel {
    #[inline]
    fn number(&self, record: &Record) -> Result<PackNumber, IndexError> {
        if record.pack >= self.level.header.packs {
            return Err(self.level.damage());
        }
        Ok(PackNumber(self.pack_base + record.pack))
    }

    #[inline]
    fn is_fading(&self, record: &Record) -> Result<bool, IndexError> {
        if !self.level.header.fading {
            return Ok(false);
        }
        let pack = self.level.pack(record.pack)?;
        Ok(self.level.segment(&pack.row, record.segment)?.flags & FADING != 0)
    }

    fn location(&self, number: PackNumber, record: &Record) -> Result<Location, IndexError> {
        let pack = self.level.pack(record.pack)?;
        let segment = self.level.segment(&pack.row, record.segment)?;
        if record.offset + record.len > segment.plain_len {
            return Err(self.level.damage());
        }
        let (key, origin) = self.level.references(&pack, &segment)?;
        Ok(Location {
            pack: number,
            pack_id: pack.row.id,
            pack_kind: pack.row.kind,
            segment_number: record.segment,
            segment,
            data_key: DataKeyNumber(self.key_base + key),
            origin: self.level.origin(origin)?,
            offset: record.offset,
            length: record.len,
        })
    }
}

/// The copies of one chunk.
struct Locations<'a> {
    view: &'a View,
    prefix: Prefix,
    level: usize,
    found: Option<Found>,
}

impl Locations<'_> {
    /// The next record of a present pack: its level, its slot, its pack.
    fn record(&mut self) -> Result<Option<(usize, u64, PackNumber, Record)>, IndexError> {
        while let Some(level) = self.view.levels.get(self.level) {
            if self.found.is_none() {
                self.found = level.level.find(&self.prefix)?;
            }
            if let Some(found) = &mut self.found {
                let mut slot = level.slot_base.saturating_add(level.level.slot(found));
                while let Some(record) = level.level.next(found, &self.prefix)? {
                    let number = level.number(&record)?;
                    if self.view.present.get(number.0 as usize) {
                        return Ok(Some((self.level, slot, number, record)));
                    }
                    slot += 1;
                }
            }
            self.found = None;
            self.level += 1;
        }
        Ok(None)
    }

    fn step(&mut self) -> Result<Option<Location>, IndexError> {
        let Some((level, _, number, record)) = self.record()? else { return Ok(None) };
        self.view.levels[level].location(number, &record).map(Some)
    }

    fn copy(&mut self) -> Result<Option<Copy>, IndexError> {
        let found = self.record();
        if found.is_err() {
            self.level = usize::MAX;
        }
        let Some((level, slot, pack, record)) = found? else { return Ok(None) };
        let kind = self.view.levels[level].level.pack(record.pack)?.row.kind;
        Ok(Some(Copy { slot, pack, kind, length: record.len }))
    }
}

impl Iterator for Locations<'_> {
    type Item = Result<Location, IndexError>;

    fn next(&mut self) -> Option<Self::Item> {
        let step = self.step();
        if step.is_err() {
            self.level = usize::MAX; // a damaged level gives no further answers
        }
        step.transpose()
    }
}
