//! What index objects say of each pack, in few bytes: all that list it must say the same, and so must its own directory.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use super::finding::{Finding, Problem};
use crate::crypto::SecretKey;
use crate::format::index::{PackRow, Record};
use crate::format::pack::Directory;
use crate::format::segment::SegmentEntry;
use crate::format::wire::Reader;
use crate::id::{ChunkId, PackId};
use crate::repo::{FetchedIndex, RepoError, Repository};

/// The chunks of a pack in any order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Chunks {
    count: u32,
    /// Sum of a hash of each, under a key that nobody knows beforehand.
    sum: u128,
}

/// What an index object says of one pack.
#[derive(Debug, Clone, Copy)]
struct OfPack {
    /// A hash of its row and its segments.
    rows: u128,
    chunks: Chunks,
}

/// What was said of all packs so far.
pub(super) struct Said {
    key: SecretKey,
    packs: HashMap<PackId, OfPack>,
}

impl Said {
    pub(super) fn new(repo: &Repository) -> Result<Self, RepoError> {
        Ok(Self { key: SecretKey::generate(&*repo.env().random)?, packs: HashMap::new() })
    }

    /// Takes in an index object, and compares it with those before.
    pub(super) fn take(
        &mut self,
        index: &FetchedIndex,
        key: &str,
        findings: &mut Vec<Finding>,
    ) -> Result<(), RepoError> {
        let mut chunks = vec![Chunks::default(); index.pack_count()];
        for row in index.records()? {
            let record = Record::decode(row);
            if let Some(chunks) = chunks.get_mut(record.pack as usize) {
                chunks.add(&self.key, (&record.prefix, record.segment), (record.offset, record.len));
            }
        }
        let mut differs = |what| findings.push(Finding::damage(key, Problem::IndexDiffers { what }));
        for (number, chunks) in chunks.into_iter().enumerate() {
            let pack = index.pack(number as u32)?;
            let rows = self.rows(index, &pack)?;
            match self.packs.entry(pack.id) {
                Entry::Vacant(slot) => {
                    slot.insert(OfPack { rows, chunks });
                }
                Entry::Occupied(before) => {
                    if before.get().rows != rows {
                        differs("the segments of a pack");
                    }
                    if before.get().chunks != chunks {
                        differs("the chunks of a pack");
                    }
                }
            }
        }
        Ok(())
    }

    /// Hashes what a pack's row and its segments say; not which segments fade, and in which order keys and origins stand.
    fn rows(&self, index: &FetchedIndex, pack: &PackRow) -> Result<u128, RepoError> {
        let mut hasher = blake3::Hasher::new_keyed(self.key.expose());
        for number in [pack.size, pack.directory_offset, pack.directory_len, pack.kind as u32] {
            hasher.update(&number.to_le_bytes());
        }
        let rows = index.segments(pack)?;
        let mut reader = Reader::new(&rows);
        for _ in 0..pack.segments {
            let segment = SegmentEntry::decode(&mut reader)?;
            let same = SegmentEntry { flags: 0, data_key: 0, origin: 0, ..segment };
            let mut bytes = Vec::with_capacity(SegmentEntry::LEN);
            same.encode(&mut bytes);
            hasher.update(&bytes);
            let (key, origin) = index.references(&segment)?;
            hasher.update(&(key.len() as u64).to_le_bytes()).update(key).update(origin.as_bytes());
        }
        Ok(first_half(&hasher.finalize()))
    }

    /// Whether a pack's directory names the chunks that index objects do.
    pub(super) fn agrees(&self, pack: &PackId, directory: &Directory) -> bool {
        let mut chunks = Chunks::default();
        for chunk in &directory.chunks {
            let prefix = chunk.id.prefix();
            chunks.add(&self.key, (&prefix, chunk.segment), (chunk.offset, chunk.len));
        }
        self.packs.get(pack).map(|said| said.chunks).unwrap_or_default() == chunks
    }
}

impl Chunks {
    fn add(
        &mut self,
        key: &SecretKey,
        (prefix, segment): (&[u8; ChunkId::PREFIX_LEN], u16),
        (offset, len): (u32, u32),
    ) {
        let mut row = [0; ChunkId::PREFIX_LEN + 10];
        row[..16].copy_from_slice(prefix);
        row[16..18].copy_from_slice(&segment.to_le_bytes());
        row[18..22].copy_from_slice(&offset.to_le_bytes());
        row[22..].copy_from_slice(&len.to_le_bytes());
        self.count += 1;
        self.sum = self.sum.wrapping_add(first_half(&blake3::keyed_hash(key.expose(), &row)));
    }
}

fn first_half(hash: &blake3::Hash) -> u128 {
    hash.as_bytes().first_chunk().map_or(0, |half| u128::from_le_bytes(*half))
}
