//! Where every blob is: sorted rows, on the disk when they are many.
//!
//! # Invariants
//! Memory holds one run of rows, whatever the repository's size; further runs lie in files without a name, and are mapped.
//! The same goes for the names of packs.

use std::io;
use std::path::{Path, PathBuf};

use super::blobs::{BlobKind, BlobRow, Place};
use crate::id::ResticId;
use crate::index::{ScratchFile, ScratchMap};

/// `id 32 | kind 1 | pack u32 | offset u32 | length u32 | plain u32`, numbers with their highest byte first, so that rows
/// are sorted as bytes.
const ROW: usize = 49;
/// `id 32 | end u32`.
const PACK_ROW: usize = 36;
/// Rows of a run: 50 MiB.
const RUN_ROWS: usize = 1 << 20;
/// Copies of one blob that are worth a look.
const COPIES_MAX: usize = 64;
/// Bytes of pack rows in memory.
const PACKS_HELD: usize = 4 << 20;

enum Run {
    Held(Vec<[u8; ROW]>),
    Mapped(ScratchMap),
}

impl Run {
    fn rows(&self) -> &[[u8; ROW]] {
        match self {
            Self::Held(rows) => rows,
            Self::Mapped(map) => map.as_ref().as_chunks().0,
        }
    }
}

/// A pack that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PackRow {
    pub(super) id: ResticId,
    /// Where the last blob that is known of it ends.
    pub(super) end: u32,
}

/// Where every known blob is.
pub(super) struct Table {
    place: PathBuf,
    run_rows: usize,
    open: Vec<[u8; ROW]>,
    runs: Vec<Run>,
    packs: Vec<[u8; PACK_ROW]>,
    spilled: Vec<ScratchMap>,
    packs_held: usize,
    pack_count: u32,
}

impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Table").field("packs", &self.pack_count).field("runs", &self.runs.len()).finish()
    }
}

impl Table {
    /// An empty table whose files will lie in `place`.
    pub(super) fn new(place: &Path) -> Self {
        Self::with_run(place, RUN_ROWS, PACKS_HELD / PACK_ROW)
    }

    fn with_run(place: &Path, run_rows: usize, packs_held: usize) -> Self {
        Self {
            place: place.to_owned(),
            run_rows,
            open: Vec::new(),
            runs: Vec::new(),
            packs: Vec::new(),
            spilled: Vec::new(),
            packs_held,
            pack_count: 0,
        }
    }

    /// The directory of its files.
    pub(super) fn place(&self) -> &Path {
        &self.place
    }

    /// The number that the next pack gets.
    pub(super) fn next_pack(&self) -> u32 {
        self.pack_count
    }

    /// Adds a pack, which gets the number [`Self::next_pack`], and its blobs, whose rows must have that number.
    pub(super) fn push(&mut self, id: &ResticId, rows: &[BlobRow]) -> io::Result<()> {
        let end = rows.iter().map(|row| row.offset.saturating_add(row.length)).max().unwrap_or(0);
        let mut pack = [0; PACK_ROW];
        pack[..32].copy_from_slice(id.as_bytes());
        pack[32..].copy_from_slice(&end.to_be_bytes());
        self.packs.push(pack);
        self.pack_count += 1;
        if self.packs.len() == self.packs_held {
            self.spilled.push(spill(&self.place, self.packs.as_flattened())?);
            self.packs.clear();
        }
        for row in rows {
            self.open.push(encode(row));
            if self.open.len() >= self.run_rows {
                self.open.sort_unstable();
                self.open.dedup();
                self.runs.push(Run::Mapped(spill(&self.place, self.open.as_flattened())?));
                self.open.clear();
            }
        }
        Ok(())
    }

    /// Makes what was added known. To be called after some pushes, before the next look.
    pub(super) fn settle(&mut self) {
        let mut rows = std::mem::take(&mut self.open);
        if let Some(at) = self.runs.iter().position(|run| matches!(run, Run::Held(_)))
            && let Run::Held(before) = self.runs.swap_remove(at)
        {
            rows.extend(before);
        }
        rows.sort_unstable();
        rows.dedup();
        self.runs.push(Run::Held(rows));
    }

    /// Copies of a blob, those that were added last first; of very many only the first.
    pub(super) fn find(&self, kind: BlobKind, id: &ResticId) -> Vec<Place> {
        let mut wanted = [0; 33];
        wanted[..32].copy_from_slice(id.as_bytes());
        wanted[32] = kind as u8;
        let mut found = Vec::new();
        for run in &self.runs {
            let rows = run.rows();
            let first = rows.partition_point(|row| row[..33] < wanted[..]);
            let count = rows[first..].partition_point(|row| row[..33] == wanted[..]);
            found.extend(rows[first..first + count].iter().rev().take(COPIES_MAX).map(decode));
        }
        found.sort_unstable_by(|a, b| b.cmp(a));
        found.dedup();
        found.truncate(COPIES_MAX);
        found
    }

    /// A pack by its number.
    pub(super) fn pack(&self, number: u32) -> Option<PackRow> {
        let number = number as usize;
        let row = match self.spilled.get(number / self.packs_held) {
            Some(map) => map.as_ref().as_chunks::<PACK_ROW>().0.get(number % self.packs_held),
            None => self.packs.get(number - self.spilled.len() * self.packs_held),
        };
        row.map(pack_row)
    }

    /// The names of all packs that begin with this byte, sorted.
    pub(super) fn packs_beginning(&self, byte: u8) -> Vec<ResticId> {
        let spilled = self.spilled.iter().flat_map(|map| map.as_ref().as_chunks::<PACK_ROW>().0);
        let all = spilled.chain(&self.packs).filter(|row| row[0] == byte);
        let mut ids: Vec<ResticId> = all.map(|row| pack_row(row).id).collect();
        ids.sort_unstable();
        ids
    }
}

fn spill(place: &Path, bytes: &[u8]) -> io::Result<ScratchMap> {
    let file = ScratchFile::create(place)?;
    file.write_at(bytes, 0)?;
    file.map()
}

fn encode(row: &BlobRow) -> [u8; ROW] {
    let mut out = [0; ROW];
    out[..32].copy_from_slice(row.id.as_bytes());
    out[32] = row.kind as u8;
    for (at, number) in [(33, row.pack), (37, row.offset), (41, row.length), (45, row.plain)] {
        out[at..at + 4].copy_from_slice(&number.to_be_bytes());
    }
    out
}

fn decode(row: &[u8; ROW]) -> Place {
    let number = |at: usize| u32::from_be_bytes([row[at], row[at + 1], row[at + 2], row[at + 3]]);
    Place { pack: number(33), offset: number(37), length: number(41), plain: number(45) }
}

fn pack_row(row: &[u8; PACK_ROW]) -> PackRow {
    let mut id = [0; 32];
    id.copy_from_slice(&row[..32]);
    PackRow { id: ResticId::new(id), end: u32::from_be_bytes([row[32], row[33], row[34], row[35]]) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn id(number: u8) -> ResticId {
        ResticId::new([number; 32])
    }

    #[test]
    fn of_countless_copies_the_last_ones_count() {
        let temp = tempfile::tempdir().unwrap();
        let mut table = Table::with_run(temp.path(), 300, 5);
        for pack in 0..10 {
            let row =
                |offset| BlobRow { id: id(1), kind: BlobKind::Data, pack, offset, length: 40, plain: 0 };
            table.push(&id(pack as u8), &(0..100).map(row).collect::<Vec<_>>()).unwrap();
        }
        table.settle();
        let found = table.find(BlobKind::Data, &id(1));
        let last: Vec<Place> = (36..100).rev().map(|offset| Place::stored(9, offset, 40)).collect();
        assert_eq!(found, last);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn every_copy_is_found_however_many_runs_there_are(
            packs in proptest::collection::vec(proptest::collection::vec((0u8..20, any::<bool>(), 0u32..50), 0..12), 0..20),
            run_rows in 1usize..40,
            packs_held in 1usize..5,
            settle_at in 0usize..20,
        ) {
            let temp = tempfile::tempdir().unwrap();
            let mut table = Table::with_run(temp.path(), run_rows, packs_held);
            let mut expected: BTreeMap<(u8, u8), Vec<Place>> = BTreeMap::new();
            for (number, pack) in packs.iter().enumerate() {
                prop_assert_eq!(table.next_pack(), number as u32);
                let mut rows = Vec::new();
                for (blob, tree, offset) in pack {
                    let kind = if *tree { BlobKind::Tree } else { BlobKind::Data };
                    let row = BlobRow { id: id(*blob), kind, pack: number as u32, offset: *offset, length: 40, plain: 7 };
                    rows.push(row);
                    let place = Place { pack: number as u32, offset: *offset, length: 40, plain: 7 };
                    expected.entry((*blob, kind as u8)).or_default().push(place);
                }
                table.push(&id(number as u8), &rows).unwrap();
                if number == settle_at {
                    table.settle();
                }
            }
            table.settle();
            for blob in 0..20 {
                for kind in [BlobKind::Data, BlobKind::Tree] {
                    let mut all = expected.remove(&(blob, kind as u8)).unwrap_or_default();
                    all.sort_unstable_by(|a, b| b.cmp(a));
                    all.dedup();
                    all.truncate(COPIES_MAX);
                    prop_assert_eq!(table.find(kind, &id(blob)), all);
                }
            }
            for (number, pack) in packs.iter().enumerate() {
                let end = pack.iter().map(|(_, _, offset)| offset + 40).max().unwrap_or(0);
                prop_assert_eq!(table.pack(number as u32), Some(PackRow { id: id(number as u8), end }));
                prop_assert_eq!(table.packs_beginning(number as u8), vec![id(number as u8)]);
            }
            prop_assert_eq!(table.pack(packs.len() as u32), None);
        }
    }
}
