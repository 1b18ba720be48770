//! Index objects to test with, and what a view of them must answer.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::{IndexError, Location, View};
use crate::format::envelope::ChunkKind;
use crate::format::index::{IndexBuilder, IndexTables, NewChunk, NewPack};
use crate::format::segment::{Codec, SegmentEntry};
use crate::id::{ChunkId, ObjectHash, PackId, WriterId};

/// An index object and its tables.
#[derive(Debug, Clone)]
pub(super) struct Object {
    pub(super) hash: ObjectHash,
    pub(super) tables: IndexTables,
}

const PACKS: u8 = 16;

fn id(number: u32) -> ChunkId {
    let mut bytes = *blake3::hash(&number.to_le_bytes()).as_bytes();
    // Some ids share what the filters look at, some lie side by side.
    match number % 8 {
        0 => bytes[..8].fill(7),
        1 => bytes[..7].fill(0xff),
        2 => bytes[..8].fill(0),
        _ => {}
    }
    ChunkId::new(bytes)
}

/// The chunk with this number; it has one byte more than its number.
pub(super) fn chunk_id(number: u32) -> ChunkId {
    id(number)
}

/// Changes bits of a byte of the only level in a directory; gives the level's file.
pub(super) fn damage_level(directory: &Path, at: usize, bits: u8) -> PathBuf {
    let file = fs::read_dir(directory).unwrap().next().unwrap().unwrap().path();
    let mut bytes = fs::read(&file).unwrap();
    bytes[at] ^= bits;
    fs::write(&file, bytes).unwrap();
    file
}

/// A view of one object with these packs, each a list of chunks.
pub(super) fn sample_view(packs: &[&[u32]]) -> View {
    let chunks = |pack: &&[u32]| pack.iter().map(|chunk| (*chunk, false, 0)).collect();
    let parts = packs.iter().enumerate().map(|(number, pack)| (number as u8, false, chunks(pack))).collect();
    let object = Object::new(1, &parts);
    let mut cache = super::Cache::open(None);
    cache.add(object.hash, object.tables).unwrap();
    cache.view(&[object.hash]).unwrap()
}

/// The ids that objects choose from, and some that none has.
pub(super) fn all_ids() -> Vec<ChunkId> {
    (0..140).map(id).collect()
}

pub(super) fn pack_id(number: u8) -> PackId {
    PackId::new(*blake3::hash(&[number]).as_bytes())
}

fn bit_of(id: &PackId) -> u16 {
    1 << (0..PACKS).find(|number| pack_id(*number) == *id).expect("only these packs are made")
}

/// For each pack: its number, whether its second segment is fading, and its chunks.
type Parts = Vec<(u8, bool, Vec<(u32, bool, u16)>)>;

impl Object {
    fn new(number: u32, parts: &Parts) -> Self {
        let author = WriterId::new([number as u8; 16]);
        let mut builder = IndexBuilder::new(author, u64::from(number), vec![ObjectHash::new([1; 32])]);
        let keys = [0, 1].map(|key| builder.data_key(format!("key {key} of {number}").as_bytes()).unwrap());
        let origins = [author, WriterId::new([0xee; 16])].map(|origin| builder.origin(origin).unwrap());
        let mut seen = BTreeSet::new();
        for (pack, fading, chunks) in parts {
            if !seen.insert(pack) {
                continue;
            }
            let segments = [0, 1].map(|segment| SegmentEntry {
                offset: 32 + segment * 100,
                stored_len: 100,
                plain_len: 1 << 17,
                codec: Codec::Zstd,
                flags: u8::from(*fading && segment == 1),
                data_key: keys[segment as usize],
                origin: origins[usize::from(*pack) % 2],
                n1: [*pack; 12],
                n2: [number as u8; 12],
            });
            let new = NewPack {
                id: pack_id(*pack),
                size: 300,
                directory_offset: 232,
                directory_len: 60,
                kind: ChunkKind::Data,
            };
            let chunks: Vec<_> = chunks
                .iter()
                .map(|(chunk, segment, offset)| NewChunk {
                    id: id(*chunk),
                    segment: u16::from(*segment),
                    offset: u32::from(*offset),
                    len: chunk + 1,
                })
                .collect();
            builder.add_pack(new, &segments, &chunks).unwrap();
        }
        let hash = ObjectHash::new(*blake3::hash(format!("{number} {parts:?}").as_bytes()).as_bytes());
        Self { hash, tables: builder.finish() }
    }

    /// An object of three packs that depends on its number only.
    pub(super) fn numbered(number: u32) -> Self {
        let pack = |part: u32| {
            let chunks = (0..10).map(|n| ((number * 7 + part * 31 + n * n) % 120, n % 3 == 0, n as u16));
            (
                ((number + part * 5) % u32::from(PACKS)) as u8,
                (number + part).is_multiple_of(4),
                chunks.collect(),
            )
        };
        Self::new(number, &(0..3).map(pack).collect())
    }
}

/// Any small object; ids and packs repeat between objects.
pub(super) fn object_strategy() -> impl Strategy<Value = Object> {
    let chunks = proptest::collection::vec((0_u32..120, any::<bool>(), 0_u16..500), 0..12);
    let parts = proptest::collection::vec((0..PACKS, any::<bool>(), chunks), 0..5);
    (0_u32..200, parts).prop_map(|(number, parts)| Object::new(number, &parts))
}

/// A location without the numbers that only one view knows.
type Plain = (PackId, u16, [u8; 24], Vec<u8>, WriterId, u32, u32, u8);

/// What a view of these objects must answer.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) objects: BTreeMap<ObjectHash, Object>,
}

impl Model {
    pub(super) fn new(objects: Vec<Object>) -> Self {
        Self { objects: objects.into_iter().map(|object| (object.hash, object)).collect() }
    }

    fn locate(&self, id: &ChunkId, present: u16) -> Vec<Plain> {
        let mut found = Vec::new();
        for Object { tables, .. } in self.objects.values() {
            for row in tables.records.iter().filter(|row| row[..16] == id.prefix()) {
                let record = crate::format::index::Record::decode(row);
                let pack = &tables.packs[record.pack as usize];
                let segment = tables.segments_of(pack)[usize::from(record.segment)];
                if bit_of(&pack.id) & present != 0 {
                    found.push((
                        pack.id,
                        record.segment,
                        [segment.n1, segment.n2].concat().try_into().unwrap(),
                        tables.data_keys[usize::from(segment.data_key)].clone(),
                        tables.origins[usize::from(segment.origin)],
                        record.offset,
                        record.len,
                        segment.flags,
                    ));
                }
            }
        }
        found.sort();
        found
    }

    /// Compares everything that the view answers; fails only with the view's own errors.
    pub(super) fn compare(&self, mut view: View, usable: u16, present: u16) -> Result<(), IndexError> {
        for id in all_ids().iter().step_by(9) {
            assert_eq!(view.find_usable(id)?, None, "no pack is usable before anybody says so");
        }
        view.set_usable(|id| bit_of(id) & usable != 0)?;
        view.set_present(|id| bit_of(id) & present != 0)?;
        for id in &all_ids() {
            self.compare_chunk(&view, id, usable, present)?;
        }
        self.compare_packs(&view, usable)?;
        let records = self.objects.values().map(|object| object.tables.records.len() as u64);
        assert_eq!(view.chunk_count(), records.sum::<u64>());
        let mut sources: Vec<_> = view.sources().map(|source| (source.object, source.h0)).collect();
        sources.sort();
        let expected = self.objects.values().map(|object| (object.hash, object.tables.h0));
        assert_eq!(sources, expected.collect::<Vec<_>>());
        Ok(())
    }

    fn compare_chunk(&self, view: &View, id: &ChunkId, usable: u16, present: u16) -> Result<(), IndexError> {
        let found: Vec<Location> = view.locate(id).collect::<Result<_, _>>()?;
        let mut plain = Vec::new();
        for at in &found {
            let n = [at.segment.n1, at.segment.n2].concat().try_into().unwrap();
            let key = view.data_key(at.data_key)?.to_vec();
            let flags = at.segment.flags;
            plain.push((at.pack_id, at.segment_number, n, key, at.origin, at.offset, at.length, flags));
            assert_eq!(view.pack(at.pack)?.id, at.pack_id);
            assert_eq!(view.segments(at.pack)?[usize::from(at.segment_number)], at.segment);
            assert_eq!(view.segment_key(at.pack, &at.segment)?, at.data_key);
        }
        plain.sort();
        assert_eq!(plain, self.locate(id, present));
        let candidates = self.locate(id, usable);
        let candidates: Vec<_> =
            candidates.iter().filter(|found| found.7 == 0).map(|found| found.0).collect();
        match view.find_usable(id)? {
            None => assert_eq!(candidates, []),
            Some(pack) => {
                assert!(candidates.contains(&view.pack(pack)?.id));
                assert!(view.is_usable(pack));
            }
        }
        Ok(())
    }

    fn compare_packs(&self, view: &View, usable: u16) -> Result<(), IndexError> {
        let packs = self.objects.values().flat_map(|object| &object.tables.packs);
        let mut expected: Vec<_> = packs.map(|pack| (pack.id, pack.segments)).collect();
        let mut found = Vec::new();
        for pack in view.packs() {
            let (number, pack) = pack?;
            assert_eq!(view.is_usable(number), bit_of(&pack.id) & usable != 0);
            found.push((pack.id, pack.segments));
        }
        found.sort();
        expected.sort();
        assert_eq!(found, expected);
        for number in 0..PACKS + 2 {
            let id = pack_id(number);
            match view.pack_by_id(&id)? {
                Some(number) => assert_eq!(view.pack(number)?.id, id),
                None => assert!(expected.iter().all(|(expected, _)| *expected != id)),
            }
        }
        Ok(())
    }
}
