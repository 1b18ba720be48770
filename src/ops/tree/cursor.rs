//! The entries of one directory, in order, page by page.

use super::{TreeReader, damaged_page, is_local_damage};
use crate::error::Error;
use crate::format::FormatError;
use crate::format::node::Node;
use crate::format::tree::{LEVELS_MAX, Page, PageRow, TreeRef};

/// What comes next in a directory.
#[derive(Debug)]
pub(crate) enum Item {
    /// An entry.
    Node(Box<Node>),
    /// Entries that cannot be read; reading goes on behind them.
    Damaged(Error),
}

/// What a cursor stands before.
#[derive(Debug, Clone, Copy)]
pub(super) enum At<'a> {
    /// An entry of the page it is in.
    Row { name: &'a [u8], row: &'a [u8] },
    /// A page, not read yet; `first` is empty for that of the whole directory.
    Page { first: &'a [u8], tree: TreeRef },
    /// The end.
    End,
}

/// A place in a directory. Holds one page of entries, and of each level above it the rows that are still to come.
#[derive(Debug)]
pub(crate) struct DirCursor {
    /// Pages to come, the next one last; each with its level.
    pending: Vec<(u8, Option<Vec<u8>>, TreeRef)>,
    page: Option<LeafPage>,
    /// The last name that was handed out.
    last: Option<Vec<u8>>,
}

#[derive(Debug)]
struct LeafPage {
    from: TreeRef,
    /// Empty while the cursor is parked.
    bytes: Vec<u8>,
    rows: Vec<(u32, u32)>,
    next: usize,
}

impl DirCursor {
    /// Stands before the first entry.
    pub(crate) fn new(tree: Option<TreeRef>) -> Self {
        let pending = tree.map(|tree| (tree.level, None, tree)).into_iter().collect();
        Self { pending, page: None, last: None }
    }

    /// Gives up the memory of the current page; it is read again when it is needed.
    pub(crate) fn park(&mut self) {
        if self.page.as_ref().is_some_and(|page| page.next == page.rows.len()) {
            self.page = None;
        }
        if let Some(page) = &mut self.page {
            page.bytes = Vec::new();
            page.rows = Vec::new();
        }
    }

    /// The next entry, or what stands in its way; `None` at the end.
    ///
    /// # Errors
    /// Only what concerns the whole run: damage is an [`Item`].
    pub(crate) async fn next(&mut self, reader: &mut TreeReader<'_>) -> Result<Option<Item>, Error> {
        loop {
            if let Some(error) = self.settle(reader).await? {
                return Ok(Some(Item::Damaged(error)));
            }
            if let Some(item) = self.take_row() {
                return Ok(Some(item));
            }
            if self.pending.is_empty() {
                return Ok(None);
            }
            if let Some(error) = self.open(reader).await? {
                return Ok(Some(Item::Damaged(error)));
            }
        }
    }

    /// Where the cursor stands; nothing is read for it, so a parked page must have been settled.
    pub(super) fn at(&self) -> At<'_> {
        if let Some(row) = self.row() {
            // A name that cannot be read comes first, so that the row is taken and found damaged.
            return At::Row { name: Node::peek_name(row).unwrap_or_default(), row };
        }
        match self.pending.last() {
            Some((_, first, tree)) => At::Page { first: first.as_deref().unwrap_or_default(), tree: *tree },
            None => At::End,
        }
    }

    /// The name that comes next, or that the next page begins with, empty if that is not known; `None` at the end.
    pub(super) fn next_name(&self) -> Option<Vec<u8>> {
        match self.at() {
            At::Row { name, .. } | At::Page { first: name, .. } => Some(name.to_vec()),
            At::End => None,
        }
    }

    /// The last name that was handed out or passed by; of a page that was passed by, its first.
    pub(super) fn last(&self) -> Option<&[u8]> {
        self.last.as_deref()
    }

    fn row(&self) -> Option<&[u8]> {
        let page = self.page.as_ref()?;
        let &(start, len) = page.rows.get(page.next)?;
        page.bytes.get(start as usize..start as usize + len as usize)
    }

    /// Reads a parked page again; gives the damage that costs the rest of the page.
    pub(super) async fn settle(&mut self, reader: &mut TreeReader<'_>) -> Result<Option<Error>, Error> {
        let Some(page) = self.page.as_mut().filter(|page| page.bytes.is_empty()) else { return Ok(None) };
        match reader.page(&page.from.id, page.from.len).await {
            Ok(bytes) => {
                page.rows = leaf_rows(&bytes, page.from)?; // decoded before
                page.bytes = bytes;
                Ok(None)
            }
            Err(error) if is_local_damage(&error) => {
                self.page = None;
                Ok(Some(error))
            }
            Err(error) => Err(error),
        }
    }

    /// Takes the row that is next in the page.
    pub(super) fn take_row(&mut self) -> Option<Item> {
        let page = self.page.as_mut()?;
        let Some(&(start, len)) = page.rows.get(page.next) else {
            self.page = None;
            return None;
        };
        page.next += 1;
        let row = &page.bytes[start as usize..start as usize + len as usize];
        Some(take(row, &mut self.last, page.from))
    }

    /// Passes by the row that is next, without looking into it.
    pub(super) fn pass_row(&mut self) {
        if let Some(name) = self.row().and_then(|row| Node::peek_name(row).ok()) {
            self.last = Some(name.to_vec());
        }
        if let Some(page) = &mut self.page {
            page.next += 1;
        }
    }

    /// Reads the page that is next; gives the damage that costs it.
    pub(super) async fn open(&mut self, reader: &mut TreeReader<'_>) -> Result<Option<Error>, Error> {
        self.page = None;
        let Some((level, first, tree)) = self.pending.pop() else { return Ok(None) };
        match self.enter(level, first, tree, reader).await {
            Ok(()) => Ok(None),
            Err(error) if is_local_damage(&error) => Ok(Some(error)),
            Err(error) => Err(error),
        }
    }

    /// Passes by the page that is next, without reading it.
    pub(super) fn pass_page(&mut self) {
        self.page = None;
        if let Some((_, Some(first), _)) = self.pending.pop() {
            self.last = Some(first);
        }
    }

    /// Passes by the pages in which only names before this one can be; true if there was one.
    pub(super) fn skip_to(&mut self, name: &[u8]) -> bool {
        let behind =
            |page: &(u8, Option<Vec<u8>>, TreeRef)| page.1.as_deref().is_some_and(|first| first <= name);
        let mut passed = false;
        while self.row().is_none() && self.pending.iter().rev().nth(1).is_some_and(behind) {
            self.pass_page();
            passed = true;
        }
        passed
    }

    async fn enter(
        &mut self,
        level: u8,
        first: Option<Vec<u8>>,
        tree: TreeRef,
        reader: &mut TreeReader<'_>,
    ) -> Result<(), Error> {
        let bad = |what| damaged_page(&tree.id, FormatError::Value { section: "5", what });
        if level > LEVELS_MAX {
            return Err(bad("level of a tree page"));
        }
        // A page must begin behind everything before it, or it could come again and again.
        if let (Some(first), Some(last)) = (&first, &self.last)
            && first <= last
        {
            return Err(bad("order of tree pages"));
        }
        let bytes = reader.page(&tree.id, tree.len).await?;
        let decoded = Page::decode(&bytes, level).map_err(|rule| damaged_page(&tree.id, rule))?;
        match decoded {
            Page::Nodes(nodes) => {
                let name = nodes.first().map(|node| Node::peek_name(node)).transpose();
                let name = name.map_err(|rule| damaged_page(&tree.id, rule))?;
                if first.is_some() && first.as_deref() != name {
                    return Err(bad("first name of a tree page"));
                }
                let rows = leaf_rows(&bytes, tree)?;
                self.page = Some(LeafPage { from: tree, bytes, rows, next: 0 });
            }
            Page::Pages(rows) => {
                if first.is_some() && first.as_ref() != rows.first().map(|row| &row.first) {
                    return Err(bad("first name of a tree page"));
                }
                if rows.windows(2).any(|pair| pair[0].first >= pair[1].first) {
                    return Err(bad("order of tree pages"));
                }
                let below = |row: PageRow| {
                    let tree = TreeRef { level: level - 1, id: row.id, len: row.len };
                    (level - 1, Some(row.first), tree)
                };
                self.pending.extend(rows.into_iter().rev().map(below));
            }
        }
        Ok(())
    }
}

/// Where the rows of a page of entries begin, and how long they are.
pub(crate) fn leaf_rows(bytes: &[u8], tree: TreeRef) -> Result<Vec<(u32, u32)>, Error> {
    let page = Page::decode(bytes, 0).map_err(|rule| damaged_page(&tree.id, rule))?;
    let Page::Nodes(nodes) = page else { return Ok(Vec::new()) };
    let mut start = 1;
    let rows = nodes.iter().map(|node| {
        let row = (start + 4, node.len() as u32);
        start += 4 + node.len() as u32;
        row
    });
    Ok(rows.collect())
}

fn take(row: &[u8], last: &mut Option<Vec<u8>>, tree: TreeRef) -> Item {
    let node = match Node::decode(row) {
        Ok(node) => node,
        Err(rule) => return Item::Damaged(damaged_page(&tree.id, rule)),
    };
    match last {
        Some(last) if node.name <= *last => {
            let rule = FormatError::Value { section: "5", what: "order of names" };
            Item::Damaged(damaged_page(&tree.id, rule))
        }
        Some(last) => {
            last.clone_from(&node.name);
            Item::Node(Box::new(node))
        }
        None => {
            *last = Some(node.name.clone());
            Item::Node(Box::new(node))
        }
    }
}
