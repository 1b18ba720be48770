//! The chunks of one file, in order, whether its node lists them or pages do.

use std::vec::IntoIter;

use super::{TreeReader, damaged_page};
use crate::error::Error;
use crate::format::FormatError;
use crate::format::content::{ChunkRow, Content, LEVELS_MAX, ListPage, ListRef, PageRow};

/// A place in the content of a file. Holds one page of rows and of each level above it the rest.
#[derive(Debug)]
pub(crate) struct ContentRows {
    rows: IntoIter<ChunkRow>,
    pages: Vec<(u8, IntoIter<PageRow>)>,
    root: Option<ListRef>,
    /// Rows that may still come.
    left: u64,
}

impl ContentRows {
    /// Stands before the first row.
    pub(crate) fn new(content: Content) -> Self {
        let (rows, root) = match content {
            Content::Inline(rows) => (rows, None),
            Content::Paged(list) => (Vec::new(), Some(list)),
        };
        let left = root.map_or(rows.len() as u64, |list| list.rows);
        Self { rows: rows.into_iter(), pages: Vec::new(), root, left }
    }

    /// The next row if no page must be read for it.
    pub(crate) fn next_here(&mut self) -> Option<ChunkRow> {
        self.left = self.left.checked_sub(1)?;
        let row = self.rows.next();
        if row.is_none() {
            self.left += 1;
        }
        row
    }

    /// The next row; `None` at the end.
    pub(crate) async fn next(&mut self, reader: &mut TreeReader<'_>) -> Result<Option<ChunkRow>, Error> {
        loop {
            if let Some(row) = self.next_here() {
                return Ok(Some(row));
            }
            if let Some(root) = self.root.take() {
                let bad = FormatError::Value { section: "7", what: "level of a list page" };
                if root.level > LEVELS_MAX {
                    return Err(damaged_page(&root.id, bad));
                }
                let row = PageRow { id: root.id, len: root.len, bytes: 0, rows: root.rows };
                self.enter(root.level, row, reader).await?;
                continue;
            }
            let Some((level, pages)) = self.pages.last_mut() else { return Ok(None) };
            match pages.next() {
                Some(page) => {
                    let below = *level - 1;
                    self.enter(below, page, reader).await?;
                }
                None => {
                    self.pages.pop();
                }
            }
        }
    }

    async fn enter(&mut self, level: u8, page: PageRow, reader: &mut TreeReader<'_>) -> Result<(), Error> {
        let bad = |what| damaged_page(&page.id, FormatError::Value { section: "7", what });
        let bytes = reader.page(&page.id, page.len).await?;
        match ListPage::decode(&bytes).map_err(|rule| damaged_page(&page.id, rule))? {
            ListPage::Rows(rows) if level == 0 => {
                if rows.is_empty() || rows.len() as u64 > self.left {
                    return Err(bad("count of rows"));
                }
                self.rows = rows.into_iter();
            }
            ListPage::Pages(pages) if level > 0 => {
                if pages.is_empty() {
                    return Err(bad("count of rows"));
                }
                self.pages.push((level, pages.into_iter()));
            }
            _ => return Err(bad("level of a list page")),
        }
        Ok(())
    }
}
