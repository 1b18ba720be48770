//! `docs/format.md` section 5: a directory's entries, in byte order of their names, in pages of a shallow tree.

use minicbor::Encoder;
use minicbor::decode::Decoder;

use super::FormatError;
use super::wire::Reader;
use crate::id::ChunkId;

/// A page has at least this many bytes before a boundary may end it.
pub const PAGE_MIN: usize = 8 << 10;
/// A page ends at this many bytes at the latest; a larger entry is its own page.
pub const PAGE_MAX: usize = 256 << 10;
/// One name in this many ends a page.
pub const PAGE_ENTRIES: u64 = 256;
/// Deepest tree of pages.
pub const LEVELS_MAX: u8 = 8;

const NODES_TAG: u8 = 0x01;
const PAGES_TAG: u8 = 0x02;

/// Where a directory's entries begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TreeRef {
    /// 0: the page holds nodes; above: rows of pages one level down.
    pub level: u8,
    /// The page, a chunk of kind tree.
    pub id: ChunkId,
    /// Length of the page in bytes.
    pub len: u32,
}

/// A row of a page above level 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageRow {
    /// Name of the first entry below.
    pub first: Vec<u8>,
    /// The page, one level down.
    pub id: ChunkId,
    /// Its length in bytes.
    pub len: u32,
}

/// Appends rows to a page under construction.
#[derive(Debug, Clone)]
pub struct PageBuilder {
    bytes: Vec<u8>,
}

impl PageBuilder {
    /// An empty page of this level.
    pub fn new(level: u8) -> Self {
        Self { bytes: vec![if level == 0 { NODES_TAG } else { PAGES_TAG }] }
    }

    /// Bytes so far.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether no row has been added.
    pub fn is_empty(&self) -> bool {
        self.bytes.len() == 1
    }

    /// Appends an encoded node (level 0) or row.
    pub fn push(&mut self, row: &[u8]) {
        self.bytes.extend_from_slice(&(row.len() as u32).to_le_bytes());
        self.bytes.extend_from_slice(row);
    }

    /// The finished page.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Empties the page, keeping its memory.
    pub fn clear(&mut self) {
        self.bytes.truncate(1);
    }
}

/// A page taken apart: rows borrowed from its bytes.
#[derive(Debug, Clone)]
pub enum Page<'a> {
    /// Encoded nodes.
    Nodes(Vec<&'a [u8]>),
    /// Pages one level down.
    Pages(Vec<PageRow>),
}

impl<'a> Page<'a> {
    /// Takes a page apart and demands the level it was referred to with.
    pub fn decode(bytes: &'a [u8], level: u8) -> Result<Self, FormatError> {
        let expected = if level == 0 { NODES_TAG } else { PAGES_TAG };
        match bytes.split_first() {
            Some((&tag, rest)) if tag == expected && level <= LEVELS_MAX => {
                let rows = split_rows(rest)?;
                if level == 0 {
                    return Ok(Self::Nodes(rows));
                }
                Ok(Self::Pages(rows.into_iter().map(PageRow::decode).collect::<Result<_, _>>()?))
            }
            _ => Err(FormatError::Value { section: "5", what: "kind of a tree page" }),
        }
    }
}

fn split_rows(bytes: &[u8]) -> Result<Vec<&[u8]>, FormatError> {
    let mut reader = Reader::new(bytes);
    let mut rows = Vec::new();
    while reader.remaining() > 0 {
        let len = reader.u32()? as usize;
        rows.push(reader.bytes(len)?);
    }
    Ok(rows)
}

impl PageRow {
    /// Appends the stored form.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut encoder = Encoder::new(out);
        let written = encoder
            .array(3)
            .and_then(|e| e.bytes(&self.first))
            .and_then(|e| e.bytes(self.id.as_bytes()))
            .and_then(|e| e.u32(self.len));
        debug_assert!(written.is_ok(), "writing to memory cannot fail");
    }

    fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let bad = FormatError::Cbor { section: "5", what: "row of a tree page" };
        let mut d = Decoder::new(bytes);
        let read = |d: &mut Decoder<'_>| -> Result<Self, minicbor::decode::Error> {
            let fields = d.array()?;
            let first = d.bytes()?.to_vec();
            let id: [u8; 32] =
                d.bytes()?.try_into().map_err(|_| minicbor::decode::Error::message("chunk id"))?;
            let len = d.u32()?;
            if fields == Some(3) {
                Ok(Self { first, id: ChunkId::new(id), len })
            } else {
                Err(minicbor::decode::Error::message("fields"))
            }
        };
        let row = read(&mut d).map_err(|_| bad.clone())?;
        if d.position() == bytes.len() { Ok(row) } else { Err(bad) }
    }
}
