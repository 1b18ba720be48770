//! Finding entries of one directory: by name, and the one that comes next.
//!
//! # Invariants
//! Each page that is entered must begin with the name that it was promised to begin with, behind everything before it. So
//! every page brings a new name, and no arrangement of pages makes a directory larger than it is.

use std::sync::Arc;

use super::pages::{Leaf, Loaded, Pages};
use crate::error::Error;
use crate::format::FormatError;
use crate::format::tree::{PageRow, TreeRef};
use crate::ops::tree::{damaged_page, is_local_damage};

/// A place in a directory: a page of entries, and a row of it.
#[derive(Debug, Clone)]
pub(super) struct Spot {
    pub(super) page: TreeRef,
    pub(super) leaf: Arc<Leaf>,
    pub(super) row: u32,
}

/// What comes behind a name.
#[derive(Debug, Default)]
pub(super) struct Next {
    /// `None` at the end.
    pub(super) spot: Option<Spot>,
    /// Pages on the way that cannot be read.
    pub(super) damage: Vec<Error>,
}

fn bad(page: &TreeRef, what: &'static str) -> Error {
    damaged_page(&page.id, FormatError::Value { section: "5", what })
}

/// Where an entry is.
pub(super) async fn find(pages: &Pages<'_>, tree: TreeRef, name: &[u8]) -> Result<Option<Spot>, Error> {
    let mut page = tree;
    loop {
        match pages.tree(page).await? {
            Loaded::Leaf(leaf) => {
                let row = (0..leaf.len()).find(|row| leaf.name(*row) == Some(name));
                return Ok(row.map(|row| Spot { page, leaf, row }));
            }
            Loaded::Inner(rows) => {
                let behind = rows.partition_point(|row| row.first.as_slice() <= name);
                let Some(row) = behind.checked_sub(1).and_then(|at| rows.get(at)) else { return Ok(None) };
                page = below(&page, row);
            }
            _ => return Err(bad(&page, "kind of a tree page")),
        }
    }
}

fn below(page: &TreeRef, row: &PageRow) -> TreeRef {
    TreeRef { level: page.level - 1, id: row.id, len: row.len }
}

/// Pages of one page, and the one to enter next.
struct Level {
    page: TreeRef,
    rows: Arc<[PageRow]>,
    at: usize,
}

/// The first entry behind a name, or of all. Pages that cannot be read are passed by, and so are, behind a name, entries whose
/// own name cannot be read: who goes through a page meets them.
///
/// # Errors
/// Only what concerns more than a page.
pub(super) async fn next(pages: &Pages<'_>, tree: TreeRef, last: Option<&[u8]>) -> Result<Next, Error> {
    let mut next = Next::default();
    let mut levels: Vec<Level> = Vec::new();
    let mut entering = Some((tree, None));
    loop {
        if let Some((page, first)) = entering.take() {
            match enter(pages, (page, first), last).await {
                Ok(Entered::Spot(spot)) => {
                    next.spot = Some(spot);
                    return Ok(next);
                }
                Ok(Entered::Level(level)) => levels.push(level),
                Ok(Entered::Nothing) => {}
                Err(error) if is_local_damage(&error) => next.damage.push(error),
                Err(error) => return Err(error),
            }
        }
        let Some(level) = levels.last_mut() else { return Ok(next) };
        match level.rows.get(level.at) {
            Some(row) => {
                let behind = last.is_none_or(|last| row.first.as_slice() > last);
                entering = Some((below(&level.page, row), behind.then(|| row.first.clone())));
                level.at += 1;
            }
            None => {
                levels.pop();
            }
        }
    }
}

enum Entered {
    Spot(Spot),
    Level(Level),
    Nothing,
}

async fn enter(
    pages: &Pages<'_>,
    (page, first): (TreeRef, Option<Vec<u8>>),
    last: Option<&[u8]>,
) -> Result<Entered, Error> {
    match pages.tree(page).await? {
        Loaded::Leaf(leaf) => {
            if first.is_some() && first.as_deref() != leaf.name(0) {
                return Err(bad(&page, "first name of a tree page"));
            }
            let is_behind =
                |row: &u32| last.is_none_or(|last| leaf.name(*row).is_some_and(|name| name > last));
            let row = (0..leaf.len()).find(is_behind);
            Ok(row.map_or(Entered::Nothing, |row| Entered::Spot(Spot { page, leaf, row })))
        }
        Loaded::Inner(rows) => {
            if first.is_some() && first.as_ref() != rows.first().map(|row| &row.first) {
                return Err(bad(&page, "first name of a tree page"));
            }
            if rows.windows(2).any(|pair| pair[0].first >= pair[1].first) {
                return Err(bad(&page, "order of tree pages"));
            }
            // The page before the first one behind may hold `last` in its middle.
            let behind = last.map_or(0, |last| rows.partition_point(|row| row.first.as_slice() <= last));
            Ok(Entered::Level(Level { page, rows, at: behind.saturating_sub(1) }))
        }
        _ => Err(bad(&page, "kind of a tree page")),
    }
}
