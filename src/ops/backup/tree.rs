//! Builds the pages of directories while entries stream by.
//!
//! # Invariants
//! Memory does not grow with a directory's size: a finished page leaves, only a row for it stays. The same entries
//! always give the same pages, and one changed entry changes one page a level.

use crate::crypto::SecretKey;
use crate::error::Error;
use crate::format::tree::{PAGE_ENTRIES, PAGE_MAX, PAGE_MIN, PageBuilder, PageRow, TreeRef};
use crate::id::ChunkId;

/// Takes a finished page, stores it as a chunk of kind tree unless it is known, and names it.
pub(super) trait PageStore {
    fn store_page(&mut self, page: &[u8]) -> Result<ChunkId, Error>;
}

/// Entries of one directory, from which its pages are made.
#[derive(Debug)]
pub(super) struct DirectoryPages {
    levels: Vec<Level>,
}

#[derive(Debug)]
struct Level {
    page: PageBuilder,
    first: Vec<u8>,
    rows: usize,
}

impl DirectoryPages {
    /// A directory without entries.
    pub(super) fn new() -> Self {
        Self { levels: Vec::new() }
    }

    /// Appends an entry; names must come in byte order.
    pub(super) fn push(
        &mut self,
        name: &[u8],
        node: &[u8],
        boundary: &SecretKey,
        pages: &mut dyn PageStore,
    ) -> Result<(), Error> {
        self.push_at(0, name, node, (boundary, pages))
    }

    fn push_at(
        &mut self,
        level: usize,
        name: &[u8],
        row: &[u8],
        (boundary, pages): (&SecretKey, &mut dyn PageStore),
    ) -> Result<(), Error> {
        if self.levels.len() == level {
            self.levels.push(Level { page: PageBuilder::new(level as u8), first: Vec::new(), rows: 0 });
        }
        let current = &mut self.levels[level];
        if !current.page.is_empty() && current.page.len() + row.len() + 4 > PAGE_MAX {
            self.end_page(level, (boundary, &mut *pages))?;
        }
        let current = &mut self.levels[level];
        if current.page.is_empty() {
            current.first.clear();
            current.first.extend_from_slice(name);
        }
        current.page.push(row);
        current.rows += 1;
        let len = current.page.len();
        if len >= PAGE_MAX || (len >= PAGE_MIN && ends_page(boundary, level as u8, name)) {
            self.end_page(level, (boundary, pages))?;
        }
        Ok(())
    }

    fn end_page(
        &mut self,
        level: usize,
        (boundary, pages): (&SecretKey, &mut dyn PageStore),
    ) -> Result<(), Error> {
        let current = &mut self.levels[level];
        let id = pages.store_page(current.page.bytes())?;
        let row = PageRow { first: std::mem::take(&mut current.first), id, len: current.page.len() as u32 };
        current.page.clear();
        current.rows = 0;
        let mut encoded = Vec::with_capacity(row.first.len() + 48);
        row.encode(&mut encoded);
        self.push_at(level + 1, &row.first, &encoded, (boundary, pages))
    }

    /// Ends the directory and names its root page; `None` if there was no entry.
    pub(super) fn finish(
        mut self,
        boundary: &SecretKey,
        pages: &mut dyn PageStore,
    ) -> Result<Option<TreeRef>, Error> {
        let mut level = 0;
        while level < self.levels.len() {
            let top = level + 1 == self.levels.len();
            let current = &self.levels[level];
            if !current.page.is_empty() {
                if top && level > 0 && current.rows == 1 {
                    // A single page below: it is the root itself.
                    return single_child(current.page.bytes(), level as u8);
                }
                if top {
                    let id = pages.store_page(current.page.bytes())?;
                    return Ok(Some(TreeRef { level: level as u8, id, len: current.page.len() as u32 }));
                }
                self.end_page(level, (boundary, &mut *pages))?;
            }
            level += 1;
        }
        Ok(None)
    }
}

fn single_child(page: &[u8], level: u8) -> Result<Option<TreeRef>, Error> {
    use crate::format::tree::Page;
    let damaged = |rule| Error::Damaged { key: "a tree page in memory".to_owned(), rule };
    match Page::decode(page, level).map_err(damaged)? {
        Page::Pages(rows) => {
            Ok(rows.first().map(|row| TreeRef { level: level - 1, id: row.id, len: row.len }))
        }
        Page::Nodes(_) => Ok(None),
    }
}

fn ends_page(boundary: &SecretKey, level: u8, name: &[u8]) -> bool {
    let mut hasher = blake3::Hasher::new_keyed(boundary.expose());
    hasher.update(&[level]);
    hasher.update(name);
    let hash = hasher.finalize();
    let mut word = [0; 8];
    word.copy_from_slice(&hash.as_bytes()[..8]);
    u64::from_le_bytes(word) < u64::MAX / PAGE_ENTRIES
}

#[cfg(test)]
pub(super) mod testing {
    use super::*;
    use std::collections::HashMap;

    /// Keeps pages in memory, under the plain hash of each.
    #[derive(Default)]
    pub(in super::super) struct Memory(pub(in super::super) HashMap<ChunkId, Vec<u8>>);

    impl PageStore for Memory {
        fn store_page(&mut self, page: &[u8]) -> Result<ChunkId, Error> {
            let id = ChunkId::new(*blake3::hash(page).as_bytes());
            self.0.insert(id, page.to_vec());
            Ok(id)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::testing::Memory;
    use super::*;
    use crate::format::tree::Page;

    fn names_below(memory: &Memory, root: TreeRef, out: &mut Vec<Vec<u8>>) {
        let page = &memory.0[&root.id];
        assert_eq!(page.len(), root.len as usize);
        match Page::decode(page, root.level).unwrap() {
            Page::Nodes(nodes) => out.extend(nodes.into_iter().map(<[u8]>::to_vec)),
            Page::Pages(rows) => {
                for row in rows {
                    let child = TreeRef { level: root.level - 1, id: row.id, len: row.len };
                    let before = out.len();
                    names_below(memory, child, out);
                    assert_eq!(out[before], row.first, "a row names its first entry");
                }
            }
        }
    }

    fn build(names: &[Vec<u8>], key: &SecretKey) -> (Memory, Option<TreeRef>) {
        let mut memory = Memory::default();
        let mut pages = DirectoryPages::new();
        for name in names {
            pages.push(name, name, key, &mut memory).unwrap();
        }
        let root = pages.finish(key, &mut memory).unwrap();
        (memory, root)
    }

    fn names(count: usize) -> Vec<Vec<u8>> {
        (0..count).map(|n| format!("{n:08}-{}", "x".repeat(n % 90)).into_bytes()).collect()
    }

    #[test]
    fn pages_hold_every_entry_in_order_at_every_size() {
        let key = SecretKey::from_bytes([3; 32]);
        for count in [0, 1, 2, 300, 5_000, 200_000] {
            let names = names(count);
            let (memory, root) = build(&names, &key);
            let mut found = Vec::new();
            if let Some(root) = root {
                names_below(&memory, root, &mut found);
            }
            assert_eq!(found, names);
            assert!(memory.0.values().all(|page| page.len() <= PAGE_MAX));
        }
    }

    #[test]
    fn one_more_entry_changes_one_page_a_level() {
        let key = SecretKey::from_bytes([3; 32]);
        let mut names = names(50_000);
        let (before, _) = build(&names, &key);
        names.insert(20_000, b"00019999-zz".to_vec());
        let (after, root) = build(&names, &key);
        let new = after.0.keys().filter(|id| !before.0.contains_key(id)).count();
        assert!(new <= usize::from(root.unwrap().level) + 2, "{new} new pages");
    }
}
