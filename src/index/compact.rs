//! What new index objects hold that take the place of old ones: their packs, in groups that become one object each, and
//! a stream of their blocks.
//!
//! A pack that several old objects list is written once, with the records of all of them. If they contradict each other on
//! it, each version goes into an object of its own: nobody's word makes another's vanish.
//!
//! # Invariants
//! Every record of the chosen objects comes out once, but for those of packs to drop. Memory grows with packs, some tens
//! of bytes each, and not with chunks.

mod parts;
mod write;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashSet};
use std::ops::Range;

pub use self::parts::CompactTables;
use self::parts::{Parts, Version};
use self::write::Prefixes;
use super::IndexError;
use super::bits::Bits;
use super::view::{PackNumber, View};
use crate::format::index::{PackRow, PlainBlock};
use crate::format::segment::SegmentEntry;
use crate::id::{ObjectHash, PackId};

/// Stands for no pack, and for no object.
const NONE: u32 = u32::MAX;

/// Most contradicting versions of one pack.
const VERSIONS_MAX: usize = 64;

/// The next pack of a level: its id, the level, its number there.
type Head = Reverse<(PackId, usize, u32)>;

/// What becomes of a pack of the view.
#[derive(Debug, Clone, Copy)]
struct Place {
    /// Number of the pack whose row stands for this one; [`NONE`] if it is left out.
    stands: u32,
    /// How many records there are; of a pack that stands for others, theirs too.
    records: u32,
    /// Number of the new object.
    object: u32,
    /// Row in the new object; before that is known, the place among all packs in order of their ids.
    row: u32,
}

/// Index objects of a view, arranged anew.
#[derive(Debug)]
pub struct Compaction<'a> {
    view: &'a View,
    /// For each level the sources that are replaced.
    chosen: Vec<Bits>,
    /// For each pack of the view, by its number.
    places: Vec<Place>,
    objects: Vec<CompactTables>,
}

impl View {
    /// Arranges what these index objects say in new ones of at most about `most` bytes each, one kind of pack in each,
    /// without the records of the packs in `drop`. Reads every record once.
    ///
    /// # Errors
    /// [`IndexError::NotHeld`] if the view lacks one of the objects.
    pub fn compaction(
        &self,
        replace: &HashSet<ObjectHash>,
        drop: &HashSet<PackId>,
        most: u64,
    ) -> Result<Compaction<'_>, IndexError> {
        let none = Place { stands: NONE, records: 0, object: NONE, row: 0 };
        let mut compaction = Compaction {
            view: self,
            chosen: self.choose_sources(replace)?,
            places: vec![none; self.pack_count() as usize],
            objects: Vec::new(),
        };
        let versions = compaction.merge_packs(drop)?;
        compaction.count_records()?;
        compaction.divide(versions, most)?;
        Ok(compaction)
    }

    fn choose_sources(&self, replace: &HashSet<ObjectHash>) -> Result<Vec<Bits>, IndexError> {
        let mut left = replace.clone();
        let mut chosen = Vec::new();
        for level in self.levels.iter() {
            let sources = &level.level.header.sources;
            let mut bits = Bits::new(sources.len(), false);
            for (number, entry) in sources.iter().enumerate() {
                let counts = level.alive.get(number) && left.remove(&entry.source.object);
                bits.set(number, counts);
            }
            chosen.push(bits);
        }
        left.into_iter().next().map_or(Ok(chosen), |object| Err(IndexError::NotHeld { object }))
    }
}

impl Compaction<'_> {
    /// How many new objects there are.
    pub fn len(&self) -> usize {
        self.objects.len()
    }

    /// Whether nothing is left to be written.
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    /// The tables of a new object, without rows.
    pub fn tables(&self, object: usize) -> Option<&CompactTables> {
        self.objects.get(object)
    }

    /// Hands out the blocks of these new objects, each object's in stored order. Reads every record once, however many
    /// objects there are; holds one block of each.
    pub fn write<E: From<IndexError>>(
        &self,
        objects: Range<usize>,
        mut sink: impl FnMut(usize, PlainBlock) -> Result<(), E>,
    ) -> Result<(), E> {
        for number in objects.clone() {
            let Some(object) = self.objects.get(number) else { continue };
            self.write_packs(object, &mut |block| sink(number, block))?;
        }
        self.write_records(objects, &mut sink)
    }

    fn is_chosen(&self, level: usize, number: u32) -> Result<bool, IndexError> {
        let source = self.view.levels[level].level.pack(number)?.source;
        Ok(self.chosen[level].get(source as usize))
    }

    /// Goes through all packs in order of their ids, and gives those that are written.
    fn merge_packs(&mut self, drop: &HashSet<PackId>) -> Result<Vec<Version>, IndexError> {
        let view = self.view;
        let mut heap = BinaryHeap::new();
        let id = |level: usize, number: u32| -> Result<Option<Head>, IndexError> {
            let level_of = &view.levels[level].level;
            if number >= level_of.header.packs {
                return Ok(None);
            }
            Ok(Some(Reverse((level_of.pack_id(number)?, level, number))))
        };
        for level in 0..view.levels.len() {
            heap.extend(id(level, 0)?);
        }
        let mut written = Vec::new();
        let mut group: Vec<PackNumber> = Vec::new();
        let mut last = None;
        while let Some(Reverse((pack, level, number))) = heap.pop() {
            heap.extend(id(level, number + 1)?);
            if last != Some(pack) {
                group.clear();
                last = Some(pack);
            }
            if drop.contains(&pack) || !self.is_chosen(level, number)? {
                continue;
            }
            let this = PackNumber(view.levels[level].pack_base + number);
            let mut stands = None;
            for other in &group {
                if self.same_pack(*other, this)? {
                    stands = Some(*other);
                    break;
                }
            }
            let place = &mut self.places[this.0 as usize];
            place.stands = stands.unwrap_or(this).0;
            if stands.is_none() {
                if group.len() == VERSIONS_MAX {
                    let limit = VERSIONS_MAX as u64;
                    return Err(IndexError::TooMany { what: "versions of one pack", limit });
                }
                place.row = written.len() as u32;
                let source = view.levels[level].level.pack(number)?.source;
                let kind = view.pack(this)?.kind;
                written.push(Version {
                    kind,
                    round: group.len() as u8,
                    level: level as u8,
                    source,
                    pack: this.0,
                });
                group.push(this);
            }
        }
        Ok(written)
    }

    /// Whether two packs of one name have the same rows, by what their numbers stand for.
    fn same_pack(&self, a: PackNumber, b: PackNumber) -> Result<bool, IndexError> {
        let row = |number| self.view.pack(number).map(|row| PackRow { first_segment: 0, ..row });
        if row(a)? != row(b)? {
            return Ok(false);
        }
        for (one, other) in self.view.segments(a)?.iter().zip(self.view.segments(b)?) {
            let keys = (self.view.segment_key(a, one)?, self.view.segment_key(b, &other)?);
            let same = SegmentEntry { data_key: 0, origin: 0, ..*one }
                == SegmentEntry { data_key: 0, origin: 0, ..other }
                && self.view.data_key(keys.0)? == self.view.data_key(keys.1)?
                && self.view.segment_origin(a, one)? == self.view.segment_origin(b, &other)?;
            if !same {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn count_records(&mut self) -> Result<(), IndexError> {
        let mut counts = vec![0_u32; self.places.len()];
        let mut prefixes = Prefixes::new(self)?;
        while let Some(rows) = prefixes.next()? {
            for (pack, _) in rows {
                let count = &mut counts[*pack as usize];
                let limit = u64::from(u32::MAX);
                *count =
                    count.checked_add(1).ok_or(IndexError::TooMany { what: "records of a pack", limit })?;
            }
        }
        for (place, count) in self.places.iter_mut().zip(counts) {
            place.records = count;
        }
        Ok(())
    }

    /// Divides the packs among new objects, those of one old object together: what one run stored is read together.
    fn divide(&mut self, mut versions: Vec<Version>, most: u64) -> Result<(), IndexError> {
        versions.sort_unstable();
        let mut parts = Parts::new(self.view, most);
        for version in &versions {
            let records = self.places[version.pack as usize].records;
            self.places[version.pack as usize].object = parts.add(version, records)?;
        }
        self.objects = parts.finish();
        for object in &mut self.objects {
            object.packs.sort_unstable_by_key(|pack| self.places[*pack as usize].row);
            for (row, pack) in object.packs.iter().enumerate() {
                self.places[*pack as usize].row = row as u32;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
