//! What a merge reads: index objects that just came in, and levels, behind one face.

use std::borrow::Cow;

use super::IndexError;
use super::bits::Bits;
use super::header::{Source, SourceEntry};
use super::level::{Level, LevelPack};
use crate::format::index::{IndexHeader, IndexTables, PackRow, RECORD_LEN, StoredRows};
use crate::format::segment::SegmentEntry;
use crate::id::{ObjectHash, WriterId};

/// One input of a merge.
#[derive(Debug, Clone, Copy)]
pub(super) enum Input<'a> {
    /// One index object.
    Tables {
        /// Its name.
        object: ObjectHash,
        /// Its content.
        tables: &'a IndexTables,
    },
    /// One index object whose rows are mapped; they were checked.
    Mapped {
        /// Its name.
        object: ObjectHash,
        /// Its header.
        header: &'a IndexHeader,
        /// Its content.
        rows: StoredRows<'a>,
    },
    /// A level, of which only some sources count.
    Level {
        /// The level.
        level: &'a Level,
        /// The sources that count.
        alive: &'a Bits,
    },
}

impl<'a> Input<'a> {
    /// The sources that count, each with its number in this input.
    pub(super) fn sources(&self) -> Vec<(usize, SourceEntry)> {
        match self {
            Self::Tables { object, tables } => {
                let source = Source {
                    object: *object,
                    author: tables.author,
                    h0: tables.h0,
                    supersedes: tables.supersedes.clone(),
                    records: tables.records.len() as u64,
                };
                let (keys, origins) = (tables.data_keys.len() as u32, tables.origins.len() as u32);
                vec![(0, SourceEntry { source, keys, origins })]
            }
            Self::Mapped { object, header, .. } => {
                let source = Source {
                    object: *object,
                    author: header.author,
                    h0: header.h0,
                    supersedes: header.supersedes.clone(),
                    records: header.records,
                };
                let (keys, origins) = (header.data_keys.len() as u32, header.origins.len() as u32);
                vec![(0, SourceEntry { source, keys, origins })]
            }
            Self::Level { level, alive } => {
                let sources = level.header.sources.iter().cloned().enumerate();
                sources.filter(|(number, _)| alive.get(*number)).collect()
            }
        }
    }

    /// How many sources there are, whether they count or not.
    pub(super) fn source_count(&self) -> usize {
        match self {
            Self::Tables { .. } | Self::Mapped { .. } => 1,
            Self::Level { level, .. } => level.header.sources.len(),
        }
    }

    pub(super) fn pack_count(&self) -> u32 {
        match self {
            Self::Tables { tables, .. } => tables.packs.len() as u32,
            Self::Mapped { header, .. } => header.packs,
            Self::Level { level, .. } => level.header.packs,
        }
    }

    /// The pack with this number below [`Self::pack_count`].
    pub(super) fn pack(&self, number: u32) -> Result<LevelPack, IndexError> {
        match self {
            Self::Tables { tables, .. } => {
                let row = *tables.packs.get(number as usize).ok_or_else(|| self.damage())?;
                Ok(LevelPack { row, source: 0 })
            }
            Self::Mapped { rows, .. } => {
                let row = rows.pack(number).map_err(|_| self.damage())?;
                Ok(LevelPack { row, source: 0 })
            }
            Self::Level { level, .. } => level.pack(number),
        }
    }

    /// The stored form of a pack's segments.
    pub(super) fn segments(&self, row: &PackRow) -> Result<Cow<'a, [u8]>, IndexError> {
        match self {
            Self::Tables { tables, .. } => {
                let mut bytes = Vec::with_capacity(usize::from(row.segments) * SegmentEntry::LEN);
                tables.segments_of(row).iter().for_each(|segment| segment.encode(&mut bytes));
                Ok(Cow::Owned(bytes))
            }
            Self::Mapped { rows, .. } => rows.segments(row).map(Cow::Borrowed).map_err(|_| self.damage()),
            Self::Level { level, .. } => level.segment_rows(row).map(Cow::Borrowed),
        }
    }

    /// Data key `number` of a source.
    pub(super) fn data_key(&self, source: usize, number: u32) -> Result<&'a [u8], IndexError> {
        match self {
            Self::Tables { tables, .. } => {
                tables.data_keys.get(number as usize).map(Vec::as_slice).ok_or_else(|| self.damage())
            }
            Self::Mapped { header, .. } => {
                header.data_keys.get(number as usize).map(Vec::as_slice).ok_or_else(|| self.damage())
            }
            Self::Level { level, .. } => level.data_key(level.bases(source).0 + number),
        }
    }

    /// Origin `number` of a source.
    pub(super) fn origin(&self, source: usize, number: u32) -> Result<WriterId, IndexError> {
        match self {
            Self::Tables { tables, .. } => {
                tables.origins.get(number as usize).copied().ok_or_else(|| self.damage())
            }
            Self::Mapped { header, .. } => {
                header.origins.get(number as usize).copied().ok_or_else(|| self.damage())
            }
            Self::Level { level, .. } => level.origin(level.bases(source).1 + number),
        }
    }

    /// Says that the input contradicts itself.
    pub(super) fn damage(&self) -> IndexError {
        match self {
            Self::Tables { object, .. } | Self::Mapped { object, .. } => {
                IndexError::CacheDamaged { level: object.to_string() }
            }
            Self::Level { level, .. } => level.damage(),
        }
    }

    /// The record after all that `position` has passed.
    pub(super) fn next_record(
        &self,
        position: &mut Position,
    ) -> Result<Option<[u8; RECORD_LEN]>, IndexError> {
        match self {
            Self::Tables { tables, .. } => {
                let row = tables.records.get(position.row as usize).copied();
                position.row += 1;
                Ok(row)
            }
            Self::Mapped { rows, .. } => {
                let row = rows.records().get(position.row as usize).copied();
                position.row += 1;
                Ok(row)
            }
            Self::Level { level, .. } => {
                let Some(shard) = level.header.shards.get(position.shard) else { return Ok(None) };
                let row = *level.row(shard, position.row)?;
                position.row += 1;
                if position.row == shard.rows {
                    *position = Position { shard: position.shard + 1, row: 0 };
                }
                Ok(Some(row))
            }
        }
    }
}

/// How far an input's records have been read.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Position {
    shard: usize,
    row: u64,
}
