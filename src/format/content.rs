//! `docs/format.md` section 7: the content of a file, a list of chunks, in pages when it is long.

use super::FormatError;
use super::segment::SEGMENT_PLAIN_MAX;
use super::wire::{Reader, put_u24};
use crate::id::ChunkId;

/// Most rows of content that a node holds itself; a longer list goes into pages.
pub const INLINE_ROWS_MAX: usize = 256;
/// A page of a list ends after this many rows at the latest.
pub const PAGE_ROWS_MAX: usize = 4096;
/// A page of a list has at least this many rows, unless it is the last.
pub const PAGE_ROWS_MIN: usize = 256;
/// Deepest list: more levels than any file can need.
pub const LEVELS_MAX: u8 = 8;

/// One row of a list: a whole chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ChunkRow {
    /// The chunk.
    pub id: ChunkId,
    /// Its length in bytes, at least 1.
    pub len: u32,
}

/// Content of a regular file without its holes, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// All rows.
    Inline(Vec<ChunkRow>),
    /// The rows are in pages.
    Paged(ListRef),
}

impl Content {
    /// Whether there is no chunk at all.
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::Inline(rows) if rows.is_empty())
    }
}

/// Where a paged list begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListRef {
    /// 0: the page holds rows of content; above: rows of pages one level down.
    pub level: u8,
    /// The page, a chunk of kind tree.
    pub id: ChunkId,
    /// Length of the page in bytes.
    pub len: u32,
    /// Rows of content in the whole list.
    pub rows: u64,
}

/// A row of a page above level 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageRow {
    /// The page, one level down.
    pub id: ChunkId,
    /// Its length in bytes.
    pub len: u32,
    /// Bytes of content below it.
    pub bytes: u64,
    /// Rows of content below it.
    pub rows: u64,
}

impl ChunkRow {
    /// Length of the stored form.
    pub const LEN: usize = 35;

    /// The stored form of a list of rows.
    pub fn encode_all(rows: &[Self]) -> Vec<u8> {
        let mut out = Vec::with_capacity(rows.len() * Self::LEN);
        for row in rows {
            out.extend_from_slice(row.id.as_bytes());
            put_u24(&mut out, row.len);
        }
        out
    }

    /// Reads rows from exactly `bytes`.
    pub fn decode_all(bytes: &[u8]) -> Result<Vec<Self>, FormatError> {
        if !bytes.len().is_multiple_of(Self::LEN) {
            return Err(FormatError::Value { section: "7", what: "length of the chunk list" });
        }
        let mut rows = Vec::with_capacity(bytes.len() / Self::LEN);
        let mut reader = Reader::new(bytes);
        while reader.remaining() > 0 {
            let row = Self { id: ChunkId::new(reader.array()?), len: reader.u24()? };
            if row.len == 0 || row.len as usize > SEGMENT_PLAIN_MAX {
                return Err(FormatError::Value { section: "7", what: "length of a chunk" });
            }
            rows.push(row);
        }
        Ok(rows)
    }
}

/// A page of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListPage {
    /// Rows of content.
    Rows(Vec<ChunkRow>),
    /// Pages one level down.
    Pages(Vec<PageRow>),
}

const ROWS_TAG: u8 = 0x11;
const PAGES_TAG: u8 = 0x12;

impl ListPage {
    /// The stored form.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Rows(rows) => {
                let mut out = vec![ROWS_TAG];
                out.extend_from_slice(&ChunkRow::encode_all(rows));
                out
            }
            Self::Pages(pages) => {
                let mut out = vec![PAGES_TAG];
                for page in pages {
                    out.extend_from_slice(page.id.as_bytes());
                    put_u24(&mut out, page.len);
                    out.extend_from_slice(&page.bytes.to_le_bytes());
                    out.extend_from_slice(&page.rows.to_le_bytes());
                }
                out
            }
        }
    }

    /// Reads a page from exactly `bytes`.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        match bytes.split_first() {
            Some((&ROWS_TAG, rows)) => ChunkRow::decode_all(rows).map(Self::Rows),
            Some((&PAGES_TAG, rest)) => {
                let mut reader = Reader::new(rest);
                let mut pages = Vec::new();
                while reader.remaining() > 0 {
                    let (id, len) = (ChunkId::new(reader.array()?), reader.u24()?);
                    pages.push(PageRow { id, len, bytes: reader.u64()?, rows: reader.u64()? });
                }
                Ok(Self::Pages(pages))
            }
            _ => Err(FormatError::Value { section: "7", what: "kind of a list page" }),
        }
    }
}

/// Whether a page of a list ends after a row with this id: the boundary moves with the content, not with its position.
pub fn list_page_ends(id: &ChunkId, rows_in_page: usize) -> bool {
    rows_in_page >= PAGE_ROWS_MAX || (rows_in_page >= PAGE_ROWS_MIN && id.as_bytes()[31] < 1)
}
