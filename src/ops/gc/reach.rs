//! Marking: every chunk that a snapshot reaches becomes live.
//!
//! # Invariants
//! A page is entered once for each way it is read, however many snapshots share it; but again if anything below the snapshot
//! it was entered from could not be reached, so that each that shares it is known to be broken. What cannot be reached is counted and
//! the rest is marked all the same, so that trouble in one place never makes anything else look dead.

use std::collections::HashSet;

use crate::class::Class;
use crate::crypto::CryptoError;
use crate::error::Error;
use crate::format::FormatError;
use crate::format::content::{self, ChunkRow, Content, ListPage};
use crate::format::envelope::ChunkKind;
use crate::format::node::{Node, NodeKind};
use crate::format::tree::{Page, TreeRef};
use crate::id::ChunkId;
use crate::index::{IndexError, LiveSet, Mark, View};
use crate::ops::tree::{damaged_page, is_local_damage};
use crate::repo::{ChunkReader, RepoError, Repository};

/// Opened segments that are kept: pages of one snapshot lie side by side.
const SEGMENTS_KEPT: usize = 8;
/// Bytes of a pack of trees that are fetched at once from a store that is far away.
const AHEAD: u64 = 4 << 20;

/// Whether a page may well be there, and another try, or another listing, would have shown what is below it. To pass it by would
/// make that look dead, though its snapshot may be confirmed a moment later.
fn is_of_the_store(error: &Error) -> bool {
    match error {
        Error::Repo(RepoError::Store(error)) | Error::Store(error) => error.class() == Class::Failed,
        _ => false,
    }
}

/// Whether something was sealed to keys that this one does not hold: it was stored after the keys were replaced, by a run that knew
/// that and this one does not.
pub(super) fn is_sealed_to_others(error: &RepoError) -> bool {
    matches!(error, RepoError::Crypto(CryptoError::NotRecipient { .. }))
}

/// A page still to be entered.
#[derive(Debug, Clone, Copy)]
struct Item {
    list: bool,
    level: u8,
    id: ChunkId,
    len: u32,
}

impl Item {
    fn key(&self) -> u128 {
        u128::from_le_bytes(self.id.prefix()) ^ u128::from(self.level) ^ (u128::from(self.list) << 8)
    }
}

/// What could not be reached below one snapshot.
#[derive(Debug, Default)]
pub(in crate::ops) struct Broken {
    /// How many chunks and pages.
    pub(in crate::ops) count: u64,
    /// The first of them.
    pub(in crate::ops) first: Option<Error>,
    /// Whether one of them is sealed to keys that this one does not hold.
    pub(in crate::ops) sealed_to_others: bool,
}

impl Broken {
    fn add(&mut self, error: impl FnOnce() -> Error) {
        self.count += 1;
        self.first.get_or_insert_with(error);
    }
}

/// What to do with a page.
pub(in crate::ops) enum Step {
    /// No copy is there.
    Missing,
    /// What is below it is known.
    Skip,
    /// Look what is below it.
    Enter,
}

/// Takes note of what is reached.
pub(in crate::ops) trait Marker {
    /// A page is reached; `key` names it and the way it is read.
    fn page(&mut self, key: u128, id: &ChunkId, len: u32) -> Result<Step, IndexError>;
    /// A page was read.
    fn entered(&mut self, key: u128);
    /// The next snapshot begins.
    fn begin_snapshot(&mut self) {}
    /// Something below the snapshot at hand is missing: another one that shares any of its pages is broken too, and must be
    /// found so.
    fn forget_snapshot(&mut self) {}
    /// A chunk of content is reached. False if no copy is there.
    fn data(&mut self, id: &ChunkId, len: u32) -> Result<bool, IndexError>;
}

/// Marks what is live.
pub(in crate::ops) struct Live {
    pub(in crate::ops) set: LiveSet,
    entered: HashSet<u128>,
    /// Pages that were first entered from the snapshot at hand.
    fresh: Vec<u128>,
}

impl Live {
    /// Nothing is live yet.
    pub(in crate::ops) fn new(view: View) -> Self {
        Self { set: LiveSet::new(view), entered: HashSet::new(), fresh: Vec::new() }
    }
}

impl Marker for Live {
    fn page(&mut self, key: u128, id: &ChunkId, len: u32) -> Result<Step, IndexError> {
        Ok(match self.set.mark(ChunkKind::Tree, id, len)? {
            Mark::Missing => Step::Missing,
            _ if self.entered.contains(&key) => Step::Skip,
            _ => Step::Enter,
        })
    }

    fn entered(&mut self, key: u128) {
        self.entered.insert(key);
        self.fresh.push(key);
    }

    fn begin_snapshot(&mut self) {
        self.fresh.clear();
    }

    fn forget_snapshot(&mut self) {
        for page in self.fresh.drain(..) {
            self.entered.remove(&page);
        }
    }

    fn data(&mut self, id: &ChunkId, len: u32) -> Result<bool, IndexError> {
        Ok(self.set.mark(ChunkKind::Data, id, len)? != Mark::Missing)
    }
}

/// Goes through what snapshots reach.
pub(in crate::ops) struct Reach<'a, M> {
    repo: &'a Repository,
    reader: ChunkReader<'a>,
    pub(in crate::ops) marker: M,
    stack: Vec<std::vec::IntoIter<Item>>,
}

fn reader(repo: &Repository, view: View) -> Result<ChunkReader<'_>, Error> {
    let mut reader = ChunkReader::new(repo, view)?.keeping(SEGMENTS_KEPT);
    if !repo.store().is_local() {
        reader.read_ahead(AHEAD);
    }
    Ok(reader)
}

impl<'a, M: Marker> Reach<'a, M> {
    /// Nothing is reached yet.
    pub(in crate::ops) fn new(repo: &'a Repository, view: View, marker: M) -> Result<Self, Error> {
        Ok(Self { repo, reader: reader(repo, view)?, marker, stack: Vec::new() })
    }

    /// From now on everything is fetched again that was fetched so far; what is marked stays.
    pub(in crate::ops) fn read_anew(&mut self, view: View) -> Result<(), Error> {
        self.reader = reader(self.repo, view)?;
        Ok(())
    }

    /// Goes through everything below the root of a snapshot.
    pub(in crate::ops) async fn snapshot(&mut self, root: Option<TreeRef>) -> Result<Broken, Error> {
        let mut broken = Broken::default();
        let Some(root) = root else { return Ok(broken) };
        let item = Item { list: false, level: root.level, id: root.id, len: root.len };
        self.stack.push(vec![item].into_iter());
        self.marker.begin_snapshot();
        while let Some(items) = self.stack.last_mut() {
            let Some(item) = items.next() else {
                self.stack.pop();
                continue;
            };
            if self.repo.env().cancel.is_raised() {
                return Err(Error::Cancelled);
            }
            match self.enter(item, &mut broken).await {
                Ok(below) if below.is_empty() => {}
                Ok(below) => self.stack.push(below.into_iter()),
                Err(error) if is_local_damage(&error) && !is_of_the_store(&error) => {
                    broken.sealed_to_others |=
                        matches!(&error, Error::Repo(error) if is_sealed_to_others(error));
                    broken.add(|| error);
                }
                Err(error) => return Err(error),
            }
        }
        if broken.count > 0 {
            self.marker.forget_snapshot();
        }
        Ok(broken)
    }

    async fn enter(&mut self, item: Item, broken: &mut Broken) -> Result<Vec<Item>, Error> {
        match self.marker.page(item.key(), &item.id, item.len)? {
            Step::Missing => return Err(Error::ChunkLost { chunk: item.id }),
            Step::Skip => return Ok(Vec::new()),
            Step::Enter => {}
        }
        let page = self.reader.read(ChunkKind::Tree, &item.id).await?;
        let page = page.ok_or(Error::ChunkLost { chunk: item.id })?;
        let below = self.look(item, &page, broken).map_err(|error| match error {
            RepoError::Format(rule) => damaged_page(&item.id, rule),
            error => error.into(),
        })?;
        self.marker.entered(item.key());
        Ok(below)
    }

    /// Marks the data a page names; gives the pages below it.
    fn look(&mut self, item: Item, page: &[u8], broken: &mut Broken) -> Result<Vec<Item>, RepoError> {
        if item.list {
            return self.list(item, page, broken);
        }
        let below = |level, id, len| Item { list: false, level, id, len };
        let nodes = match Page::decode(page, item.level)? {
            Page::Pages(rows) => {
                return Ok(rows.into_iter().map(|row| below(item.level - 1, row.id, row.len)).collect());
            }
            Page::Nodes(nodes) => nodes,
        };
        let mut items = Vec::new();
        for bytes in nodes {
            let node = Node::decode(bytes)?;
            match (&node.content, &node.tree) {
                (_, Some(tree)) if node.kind == NodeKind::Directory => {
                    items.push(below(tree.level, tree.id, tree.len));
                }
                (Content::Paged(list), _) => {
                    items.push(Item { list: true, level: list.level, id: list.id, len: list.len });
                }
                (Content::Inline(rows), _) => self.rows(rows, broken)?,
            }
        }
        Ok(items)
    }

    fn list(&mut self, item: Item, page: &[u8], broken: &mut Broken) -> Result<Vec<Item>, RepoError> {
        match (ListPage::decode(page)?, item.level) {
            (ListPage::Rows(rows), 0) => {
                self.rows(&rows, broken)?;
                Ok(Vec::new())
            }
            (ListPage::Pages(pages), 1..=content::LEVELS_MAX) => {
                let level = item.level - 1;
                let below = |page: content::PageRow| Item { list: true, level, id: page.id, len: page.len };
                Ok(pages.into_iter().map(below).collect())
            }
            _ => Err(FormatError::Value { section: "7", what: "level of a list page" }.into()),
        }
    }

    fn rows(&mut self, rows: &[ChunkRow], broken: &mut Broken) -> Result<(), RepoError> {
        for row in rows {
            if !self.marker.data(&row.id, row.len)? {
                broken.add(|| Error::ChunkLost { chunk: row.id });
            }
        }
        Ok(())
    }
}
