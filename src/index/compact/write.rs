//! The streams of a compaction: the records of all levels in order, and blocks made of rows.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::Range;

use super::{CompactTables, Compaction, NONE};
use crate::format::index::{BlockKind, PlainBlock, RECORD_LEN};
use crate::format::segment::SegmentEntry;
use crate::index::IndexError;
use crate::index::cursor::{Input, Position};
use crate::index::search::Prefix;
use crate::index::view::PackNumber;

/// Most records of one prefix. More can only be somebody's attack, and they must be in memory to be put in order.
const PREFIX_MAX: usize = 1 << 20;

/// A record and the number of the pack that stands for its own.
type Row = (u32, [u8; RECORD_LEN]);

/// The records to write, all those of one prefix at a time.
pub(super) struct Prefixes<'a> {
    compaction: &'a Compaction<'a>,
    inputs: Vec<Input<'a>>,
    heads: Vec<(Position, Row)>,
    heap: BinaryHeap<Reverse<(Prefix, usize)>>,
    rows: Vec<Row>,
}

impl<'a> Prefixes<'a> {
    pub(super) fn new(compaction: &'a Compaction<'_>) -> Result<Self, IndexError> {
        let levels = compaction.view.levels.iter();
        let inputs: Vec<_> =
            levels.map(|level| Input::Level { level: &level.level, alive: &level.alive }).collect();
        let heads = vec![(Position::default(), (NONE, [0; RECORD_LEN])); inputs.len()];
        let (heap, rows) = (BinaryHeap::new(), Vec::new());
        let mut prefixes = Self { compaction, inputs, heads, heap, rows };
        for level in 0..prefixes.inputs.len() {
            if let Some(prefix) = prefixes.advance(level)? {
                prefixes.heap.push(Reverse((prefix, level)));
            }
        }
        Ok(prefixes)
    }

    /// The next record of a level that is written; its pack is the one that stands for its own.
    fn advance(&mut self, level: usize) -> Result<Option<Prefix>, IndexError> {
        let input = &self.inputs[level];
        let base = self.compaction.view.levels[level].pack_base;
        while let Some(mut row) = input.next_record(&mut self.heads[level].0)? {
            let local = u32::from_le_bytes([row[16], row[17], row[18], row[19]]);
            let number = base.checked_add(local).filter(|_| local < input.pack_count());
            let place = number.and_then(|number| self.compaction.places.get(number as usize));
            let stands = place.ok_or_else(|| input.damage())?.stands;
            if stands != NONE {
                row[16..20].copy_from_slice(&stands.to_le_bytes());
                self.heads[level].1 = (stands, row);
                return Ok(row.first_chunk().copied());
            }
        }
        Ok(None)
    }

    /// The records of the next prefix, in order and none twice; none at the end.
    pub(super) fn next(&mut self) -> Result<Option<&mut [Row]>, IndexError> {
        self.rows.clear();
        let Some(Reverse((prefix, _))) = self.heap.peek().copied() else { return Ok(None) };
        while let Some(Reverse((next, level))) = self.heap.peek().copied() {
            if next != prefix {
                break;
            }
            if self.rows.len() == PREFIX_MAX {
                return Err(IndexError::TooMany { what: "records of one chunk", limit: PREFIX_MAX as u64 });
            }
            self.rows.push(self.heads[level].1);
            match self.advance(level)? {
                Some(next) => {
                    if let Some(mut top) = self.heap.peek_mut() {
                        top.0.0 = next;
                    }
                }
                None => {
                    self.heap.pop();
                }
            }
        }
        if self.rows.len() > 1 {
            self.rows.sort_unstable();
            self.rows.dedup();
        }
        Ok(Some(&mut self.rows))
    }
}

/// Rows on their way into blocks of one kind.
struct Blocks {
    kind: BlockKind,
    rows: u32,
    before: u32,
    bytes: Vec<u8>,
}

impl Blocks {
    fn new(kind: BlockKind) -> Self {
        Self { kind, rows: 0, before: 0, bytes: Vec::new() }
    }

    /// Adds a row; gives a block that it filled.
    fn push(&mut self, row: &[u8]) -> Option<PlainBlock> {
        if self.rows == 0 {
            self.kind = match self.kind {
                BlockKind::Packs { .. } => BlockKind::Packs { first: self.before },
                BlockKind::Segments { .. } => BlockKind::Segments { first: self.before },
                BlockKind::Records { .. } => {
                    BlockKind::Records { first: row.first_chunk().copied().unwrap_or_default() }
                }
            };
        }
        self.bytes.extend_from_slice(row);
        self.rows += 1;
        if self.rows as usize == self.kind.rows_max() { self.end() } else { None }
    }

    /// Gives what is left.
    fn end(&mut self) -> Option<PlainBlock> {
        if self.rows == 0 {
            return None;
        }
        let rows = std::mem::take(&mut self.rows);
        self.before = self.before.wrapping_add(rows);
        let room = Vec::with_capacity(self.bytes.len());
        Some(PlainBlock { kind: self.kind, rows, bytes: std::mem::replace(&mut self.bytes, room) })
    }
}

impl Compaction<'_> {
    /// Hands out the blocks of packs and of segments.
    pub(super) fn write_packs<E: From<IndexError>>(
        &self,
        object: &CompactTables,
        sink: &mut dyn FnMut(PlainBlock) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut blocks = Blocks::new(BlockKind::Packs { first: 0 });
        let mut first_segment = 0;
        for pack in &object.packs {
            let mut row = self.view.pack(PackNumber(*pack))?;
            row.first_segment = first_segment;
            first_segment += u32::from(row.segments);
            blocks.push(&row.encode()).map_or(Ok(()), &mut *sink)?;
        }
        blocks.end().map_or(Ok(()), &mut *sink)?;
        let mut blocks = Blocks::new(BlockKind::Segments { first: 0 });
        let mut bytes = Vec::with_capacity(SegmentEntry::LEN);
        for pack in &object.packs {
            let pack = PackNumber(*pack);
            for mut segment in self.view.segments(pack)? {
                let key = self.view.segment_key(pack, &segment)?;
                let origin = self.view.segment_origin(pack, &segment)?;
                // Both were added to the tables with the pack.
                let row = object.key_rows.get(&key).copied();
                segment.data_key = row.ok_or(IndexError::Unknown { what: "data key", number: key.0 })?;
                segment.origin = object.origins.iter().position(|known| *known == origin).unwrap_or(0) as u8;
                bytes.clear();
                segment.encode(&mut bytes);
                blocks.push(&bytes).map_or(Ok(()), &mut *sink)?;
            }
        }
        blocks.end().map_or(Ok(()), sink)
    }

    /// Hands out the blocks of records of these objects.
    pub(super) fn write_records<E: From<IndexError>>(
        &self,
        objects: Range<usize>,
        sink: &mut dyn FnMut(usize, PlainBlock) -> Result<(), E>,
    ) -> Result<(), E> {
        let new = || Blocks::new(BlockKind::Records { first: Prefix::default() });
        let mut blocks: Vec<_> = objects.clone().map(|_| new()).collect();
        let mut prefixes = Prefixes::new(self)?;
        while let Some(rows) = prefixes.next()? {
            for (pack, row) in rows.iter_mut() {
                let place = &self.places[*pack as usize];
                *pack = place.object;
                row[16..20].copy_from_slice(&place.row.to_le_bytes());
            }
            if rows.len() > 1 {
                rows.sort_unstable();
            }
            for (object, row) in rows {
                let number = *object as usize;
                if objects.contains(&number)
                    && let Some(block) = blocks[number - objects.start].push(row)
                {
                    sink(number, block)?;
                }
            }
        }
        for (number, mut blocks) in objects.zip(blocks) {
            blocks.end().map_or(Ok(()), |block| sink(number, block))?;
        }
        Ok(())
    }
}
