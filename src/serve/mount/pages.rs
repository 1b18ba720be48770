//! Pages of directories and of chunk lists, read once and kept while there is room.
//!
//! # Invariants
//! What is kept, and how many pages are read at the same time, is bounded.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Semaphore;

use super::extents::RowList;
use super::lru::Lru;
use crate::error::Error;
use crate::format::FormatError;
use crate::format::content::{self, ListPage};
use crate::format::node::Node;
use crate::format::tree::{self, Page, PageRow, TreeRef};
use crate::id::ChunkId;
use crate::ops::tree::{Lookup, TreeReader, damaged_page, leaf_rows};

/// Bytes of pages that are kept.
const KEPT: usize = 12 << 20;
/// Pages that are read at the same time.
const READERS: usize = 4;
/// Opened segments that each reader keeps.
const SEGMENTS: usize = 3;
/// Bytes of a pack that are fetched at once, if each request costs a round trip and there is a cache to keep them.
const AHEAD: u64 = 1 << 20;

/// Entries of a directory as they are stored.
#[derive(Debug)]
pub(super) struct Leaf {
    bytes: Vec<u8>,
    rows: Vec<(u32, u32)>,
}

impl Leaf {
    /// How many entries there are.
    pub(super) fn len(&self) -> u32 {
        self.rows.len() as u32
    }

    fn row(&self, row: u32) -> Option<&[u8]> {
        let (start, len) = *self.rows.get(row as usize)?;
        self.bytes.get(start as usize..(start + len) as usize)
    }

    /// The name of an entry, if it can be read.
    pub(super) fn name(&self, row: u32) -> Option<&[u8]> {
        Node::peek_name(self.row(row)?).ok()
    }

    /// An entry; `None` if the page has not so many.
    pub(super) fn node(&self, row: u32) -> Option<Result<Node, FormatError>> {
        self.row(row).map(Node::decode)
    }
}

/// A page taken apart.
#[derive(Debug, Clone)]
pub(super) enum Loaded {
    /// Entries of a directory.
    Leaf(Arc<Leaf>),
    /// Pages of a directory.
    Inner(Arc<[PageRow]>),
    /// Rows of content.
    Rows(Arc<RowList>),
    /// Pages of rows.
    Lists(Arc<[content::PageRow]>),
}

/// What a page is taken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum As {
    /// A page of a directory, of this level.
    Tree(u8),
    List,
}

/// Reads pages.
pub(super) struct Pages<'a> {
    lookup: &'a Lookup<'a>,
    free: Mutex<Vec<TreeReader<'a>>>,
    readers: Semaphore,
    kept: Mutex<Lru<(ChunkId, As), Loaded>>,
}

impl<'a> Pages<'a> {
    pub(super) fn new(lookup: &'a Lookup<'a>) -> Self {
        let readers = Semaphore::new(READERS);
        Self { lookup, free: Mutex::default(), readers, kept: Mutex::new(Lru::new(KEPT)) }
    }

    /// A page of a directory: a leaf if its level is 0.
    pub(super) async fn tree(&self, page: TreeRef) -> Result<Loaded, Error> {
        if page.level > tree::LEVELS_MAX {
            let rule = FormatError::Value { section: "5", what: "level of a tree page" };
            return Err(damaged_page(&page.id, rule));
        }
        self.load(page.id, page.len, As::Tree(page.level)).await
    }

    /// A page of a directory that has entries.
    pub(super) async fn leaf(&self, page: TreeRef) -> Result<Arc<Leaf>, Error> {
        match self.tree(page).await? {
            Loaded::Leaf(leaf) => Ok(leaf),
            _ => {
                Err(damaged_page(&page.id, FormatError::Value { section: "5", what: "kind of a tree page" }))
            }
        }
    }

    /// A page of a chunk list.
    pub(super) async fn list(&self, id: ChunkId, len: u32) -> Result<Loaded, Error> {
        self.load(id, len, As::List).await
    }

    async fn load(&self, id: ChunkId, len: u32, how: As) -> Result<Loaded, Error> {
        let known = self.kept.lock().unwrap_or_else(PoisonError::into_inner).get(&(id, how));
        if let Some(loaded) = known {
            return Ok(loaded);
        }
        let bytes = self.read(&id, len).await?;
        let (loaded, weight) = match how {
            As::Tree(0) => {
                let rows = leaf_rows(&bytes, TreeRef { level: 0, id, len })?;
                let weight = bytes.len() + rows.len() * size_of::<(u32, u32)>();
                (Loaded::Leaf(Arc::new(Leaf { bytes, rows })), weight)
            }
            how => take_apart(&bytes, how).map_err(|rule| damaged_page(&id, rule))?,
        };
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.insert((id, how), loaded.clone(), weight);
        Ok(loaded)
    }

    async fn read(&self, id: &ChunkId, len: u32) -> Result<Vec<u8>, Error> {
        let _permit = self.readers.acquire().await.expect("the readers are never closed");
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut reader = match free {
            Some(reader) => reader,
            None => {
                let mut reader = self.lookup.reader()?.keeping(SEGMENTS);
                let repo = self.lookup.repo();
                if !repo.store().is_local() && repo.env().places.cache.is_some() {
                    reader.read_ahead(AHEAD);
                }
                reader
            }
        };
        let read = reader.page(id, len).await;
        self.free.lock().unwrap_or_else(PoisonError::into_inner).push(reader);
        read
    }
}

/// A page other than of entries, and about the bytes it takes.
fn take_apart(bytes: &[u8], how: As) -> Result<(Loaded, usize), FormatError> {
    const A_ROW: usize = 64;
    let weight = bytes.len();
    Ok(match how {
        As::Tree(level) => match Page::decode(bytes, level)? {
            Page::Pages(rows) => {
                let weight = weight + rows.len() * A_ROW;
                (Loaded::Inner(rows.into()), weight)
            }
            Page::Nodes(_) => return Err(FormatError::Value { section: "5", what: "kind of a tree page" }),
        },
        As::List => match ListPage::decode(bytes)? {
            ListPage::Rows(rows) => {
                let list = RowList::new(rows);
                let weight = list.weight();
                (Loaded::Rows(Arc::new(list)), weight)
            }
            ListPage::Pages(pages) => {
                let weight = pages.len() * A_ROW;
                (Loaded::Lists(pages.into()), weight)
            }
        },
    })
}
