//! How packs are divided among new index objects.

use std::collections::HashMap;

use crate::format::envelope::ChunkKind;
use crate::format::index::{PackRow, RECORD_LEN, TABLE_MAX};
use crate::format::segment::SegmentEntry;
use crate::id::WriterId;
use crate::index::IndexError;
use crate::index::view::{DataKeyNumber, PackNumber, View};

/// A pack to be written, in the order in which packs are divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Version {
    pub(super) kind: ChunkKind,
    /// How many other versions of the pack came before this one.
    pub(super) round: u8,
    pub(super) level: u8,
    /// Source in the level.
    pub(super) source: u32,
    pub(super) pack: u32,
}

/// The tables of a new index object, without its rows.
#[derive(Debug)]
pub struct CompactTables {
    /// What its packs hold.
    pub kind: ChunkKind,
    /// The sealed data keys that segment rows number.
    pub data_keys: Vec<Vec<u8>>,
    /// The writers that segment rows number.
    pub origins: Vec<WriterId>,
    /// How many segment rows there are.
    pub segments: u32,
    /// How many records there are.
    pub records: u64,
    /// Its packs, by their numbers in the view, in order of their ids.
    pub(super) packs: Vec<u32>,
    /// Rows of [`Self::data_keys`] by the view's numbers.
    pub(super) key_rows: HashMap<DataKeyNumber, u8>,
    round: u8,
    bytes: u64,
}

impl CompactTables {
    /// How many pack rows there are.
    pub fn packs(&self) -> u32 {
        self.packs.len() as u32
    }

    fn new(version: &Version) -> Self {
        Self {
            kind: version.kind,
            data_keys: Vec::new(),
            origins: Vec::new(),
            segments: 0,
            records: 0,
            packs: Vec::new(),
            key_rows: HashMap::new(),
            round: version.round,
            bytes: 0,
        }
    }

    /// Takes a pack if there is room for it.
    fn take(&mut self, pack: &Pack<'_>, most: u64) -> bool {
        let full = self.bytes + pack.bytes > most && !self.packs.is_empty();
        let rows = self.segments.checked_add(pack.segments);
        let Some(rows) = rows.filter(|_| !full) else { return false };
        let new_keys = pack.keys.iter().filter(|(_, key)| !self.data_keys.iter().any(|k| k == key)).count();
        let new_origins = pack.origins.iter().filter(|origin| !self.origins.contains(origin)).count();
        if self.data_keys.len() + new_keys > TABLE_MAX || self.origins.len() + new_origins > TABLE_MAX {
            return false;
        }
        for (number, key) in &pack.keys {
            if self.key_rows.contains_key(number) {
                continue;
            }
            let row = self.data_keys.iter().position(|known| known == key).unwrap_or(self.data_keys.len());
            if row == self.data_keys.len() {
                self.data_keys.push(key.to_vec());
                self.bytes += key.len() as u64;
            }
            self.key_rows.insert(*number, row as u8);
        }
        for origin in &pack.origins {
            if !self.origins.contains(origin) {
                self.origins.push(*origin);
            }
        }
        self.segments = rows;
        self.records += u64::from(pack.records);
        self.bytes += pack.bytes;
        self.packs.push(pack.number);
        true
    }
}

/// What a pack needs of an object.
struct Pack<'a> {
    number: u32,
    records: u32,
    segments: u32,
    bytes: u64,
    keys: Vec<(DataKeyNumber, &'a [u8])>,
    origins: Vec<WriterId>,
}

/// New objects, filled one after another.
pub(super) struct Parts<'a> {
    view: &'a View,
    most: u64,
    objects: Vec<CompactTables>,
}

impl<'a> Parts<'a> {
    pub(super) fn new(view: &'a View, most: u64) -> Self {
        Self { view, most, objects: Vec::new() }
    }

    /// Adds a pack, and gives the number of the object that takes it.
    pub(super) fn add(&mut self, version: &Version, records: u32) -> Result<u32, IndexError> {
        let pack = self.pack(version.pack, records)?;
        let open = self.objects.last_mut();
        let open = open.filter(|open| (open.kind, open.round) == (version.kind, version.round));
        if !open.is_some_and(|open| open.take(&pack, self.most)) {
            let mut object = CompactTables::new(version);
            if !object.take(&pack, self.most) {
                // One index object listed it, so its keys and origins fit.
                return Err(IndexError::TooMany { what: "data keys of a pack", limit: TABLE_MAX as u64 });
            }
            self.objects.push(object);
        }
        Ok(self.objects.len() as u32 - 1)
    }

    pub(super) fn finish(self) -> Vec<CompactTables> {
        self.objects
    }

    fn pack(&self, number: u32, records: u32) -> Result<Pack<'a>, IndexError> {
        let pack = PackNumber(number);
        let segments = self.view.segments(pack)?;
        let mut keys: Vec<(DataKeyNumber, &[u8])> = Vec::new();
        let mut origins = Vec::new();
        for segment in &segments {
            let key = self.view.segment_key(pack, segment)?;
            if !keys.iter().any(|(known, _)| *known == key) {
                keys.push((key, self.view.data_key(key)?));
            }
            let origin = self.view.segment_origin(pack, segment)?;
            if !origins.contains(&origin) {
                origins.push(origin);
            }
        }
        let bytes = PackRow::LEN + segments.len() * SegmentEntry::LEN;
        let bytes = bytes as u64 + u64::from(records) * RECORD_LEN as u64;
        Ok(Pack { number, records, segments: segments.len() as u32, bytes, keys, origins })
    }
}
