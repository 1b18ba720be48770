//! Turns the rows of a file into its content: in the node if they are few, in pages otherwise.
//!
//! # Invariants
//! Memory does not grow with a file's length: a finished page leaves, only a row for it stays. The same rows always give
//! the same pages, and one changed row changes about one page a level.

use super::tree::PageStore;
use crate::error::Error;
use crate::format::content::{
    ChunkRow, Content, INLINE_ROWS_MAX, ListPage, ListRef, PageRow, list_page_ends,
};

/// The content of a file whose rows come one by one, in order.
#[derive(Debug, Default)]
pub(super) struct ContentBuilder {
    /// The rows of the page at hand.
    rows: Vec<ChunkRow>,
    /// What stands above them: first the rows for pages of rows, then those for pages of such pages.
    above: Vec<Level>,
    count: u64,
    bytes: u64,
}

#[derive(Debug, Default)]
struct Level {
    page: Vec<PageRow>,
    /// Rows that this level ever had.
    total: u64,
}

impl ContentBuilder {
    /// Bytes of all rows so far.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Appends a row.
    pub(super) fn push(&mut self, row: ChunkRow, pages: &mut dyn PageStore) -> Result<(), Error> {
        // Not before a further row comes: as many rows as a node holds stay in the node, whatever they are.
        if self.rows.last().is_some_and(|last| list_page_ends(&last.id, self.rows.len())) {
            self.end_rows(pages)?;
        }
        self.rows.push(row);
        self.count += 1;
        self.bytes += u64::from(row.len);
        Ok(())
    }

    /// Ends the list.
    pub(super) fn finish(mut self, pages: &mut dyn PageStore) -> Result<Content, Error> {
        if self.count <= INLINE_ROWS_MAX as u64 {
            return Ok(Content::Inline(self.rows));
        }
        self.end_rows(pages)?;
        let mut level = 0;
        loop {
            match self.above.get(level) {
                Some(Level { page, total }) => {
                    if let ([root], 1) = (&page[..], total) {
                        let (id, len) = (root.id, root.len);
                        return Ok(Content::Paged(ListRef { level: level as u8, id, len, rows: self.count }));
                    }
                    if !page.is_empty() {
                        self.end_level(level, pages)?;
                    }
                }
                // The last level ended with a page, so there is always one above it.
                None => return Ok(Content::Inline(Vec::new())),
            }
            level += 1;
        }
    }

    fn end_rows(&mut self, pages: &mut dyn PageStore) -> Result<(), Error> {
        let rows = std::mem::take(&mut self.rows);
        let (count, bytes) = (rows.len() as u64, rows.iter().map(|row| u64::from(row.len)).sum());
        self.store((ListPage::Rows(rows), 0), (bytes, count), pages)
    }

    fn end_level(&mut self, level: usize, pages: &mut dyn PageStore) -> Result<(), Error> {
        let page = std::mem::take(&mut self.above[level].page);
        let (bytes, rows) = page.iter().fold((0, 0), |(b, r), row| (b + row.bytes, r + row.rows));
        self.store((ListPage::Pages(page), level + 1), (bytes, rows), pages)
    }

    /// Stores a page, and appends a row for it to the level `to`.
    fn store(
        &mut self,
        (page, to): (ListPage, usize),
        (bytes, rows): (u64, u64),
        pages: &mut dyn PageStore,
    ) -> Result<(), Error> {
        let encoded = page.encode();
        let id = pages.store_page(&encoded)?;
        if self.above.len() == to {
            self.above.push(Level::default());
        }
        let above = &mut self.above[to];
        above.page.push(PageRow { id, len: encoded.len() as u32, bytes, rows });
        above.total += 1;
        if list_page_ends(&id, above.page.len()) { self.end_level(to, pages) } else { Ok(()) }
    }
}

/// The content of a file whose rows are all at hand.
pub(super) fn content_of(rows: &[ChunkRow], pages: &mut dyn PageStore) -> Result<Content, Error> {
    let mut content = ContentBuilder::default();
    for row in rows {
        content.push(*row, pages)?;
    }
    content.finish(pages)
}

#[cfg(test)]
mod tests {
    use super::super::tree::testing::Memory;
    use super::*;
    use crate::id::ChunkId;

    fn row(n: u64) -> ChunkRow {
        ChunkRow { id: ChunkId::new(*blake3::hash(&n.to_le_bytes()).as_bytes()), len: 7 }
    }

    /// The rule, level by level over the whole list: what the builder must come to.
    fn by_the_rule(rows: &[ChunkRow], memory: &mut Memory) -> Content {
        fn cut<T: Clone>(list: &[T], id: impl Fn(&T) -> ChunkId) -> Vec<Vec<T>> {
            let mut pages = vec![Vec::new()];
            for (at, item) in list.iter().enumerate() {
                let page = pages.last_mut().unwrap();
                page.push(item.clone());
                if at + 1 < list.len() && list_page_ends(&id(item), page.len()) {
                    pages.push(Vec::new());
                }
            }
            pages
        }
        if rows.len() <= INLINE_ROWS_MAX {
            return Content::Inline(rows.to_vec());
        }
        let mut put = |page: ListPage, bytes, rows| {
            let encoded = page.encode();
            let id = memory.store_page(&encoded).unwrap();
            PageRow { id, len: encoded.len() as u32, bytes, rows }
        };
        let pages = cut(rows, |row| row.id).into_iter();
        let mut above: Vec<_> = pages
            .map(|page| put(ListPage::Rows(page.clone()), 7 * page.len() as u64, page.len() as u64))
            .collect();
        let mut level = 0;
        while above.len() > 1 {
            level += 1;
            let sum = |page: &[PageRow]| page.iter().fold((0, 0), |(b, r), p| (b + p.bytes, r + p.rows));
            let pages = cut(&above, |row| row.id).into_iter();
            above = pages
                .map(|page| {
                    let (bytes, rows) = sum(&page);
                    put(ListPage::Pages(page), bytes, rows)
                })
                .collect();
        }
        Content::Paged(ListRef { level, id: above[0].id, len: above[0].len, rows: rows.len() as u64 })
    }

    #[test]
    fn a_list_built_row_by_row_is_the_list_of_the_rule() {
        let all: Vec<_> = (0..700_000).map(row).collect();
        // A list whose 256th row would end a page: with one row more it does, without it stays in the node.
        let ends = (0..).map(row).find(|row| list_page_ends(&row.id, 256)).unwrap();
        let mut exact = all[..255].to_vec();
        exact.push(ends);
        let longer = [&exact[..], &all[..1]].concat();
        let lists = [0, 1, 255, 256, 257, 4096, 4097, 60_000, 700_000].map(|count| all[..count].to_vec());
        for rows in lists.into_iter().chain([exact, longer]) {
            let (mut ruled, mut built) = (Memory::default(), Memory::default());
            let rule = by_the_rule(&rows, &mut ruled);
            assert_eq!(content_of(&rows, &mut built).unwrap(), rule, "{} rows", rows.len());
            assert!(ruled.0.keys().all(|id| built.0.contains_key(id)) && ruled.0.len() == built.0.len());
        }
    }

    #[test]
    fn a_long_list_is_paged_and_an_insert_changes_few_pages() {
        let mut rows: Vec<_> = (0..60_000).map(row).collect();
        let mut before = Memory::default();
        let content = content_of(&rows, &mut before).unwrap();
        assert!(matches!(content, Content::Paged(list) if list.rows == 60_000 && list.level >= 1));
        rows.insert(30_000, row(1 << 40));
        let mut after = Memory::default();
        content_of(&rows, &mut after).unwrap();
        let new = after.0.keys().filter(|id| !before.0.contains_key(id)).count();
        assert!(new <= 6, "{new} new pages");
    }
}
