//! Numbers of entries, as the kernel knows them.
//!
//! Each page of a directory gets a number when it is first met, and an entry is a page and its row in that: so what is remembered
//! grows with pages, not with files. All names of one file with several get one number of their own.
//!
//! # Invariants
//! A number never means anything else, for as long as the mount stands. What is remembered is bounded: of two generations
//! the older one is dropped when the younger is full. What was used lately, and the directories above it, is in the
//! younger one; a number that was dropped is *stale*, and whoever still has it finds the entry by its path again.

use std::collections::HashMap;
use std::hash::Hash;

use crate::format::tree::TreeRef;
use crate::id::ChunkId;

/// The directory that is mounted.
pub(super) const ROOT: u64 = 1;
/// Directories that no snapshot holds, and their links.
const VIRTUAL: u64 = 1 << 61;
/// Files with several names.
const LINK: u64 = 1 << 60;
const ROW_BITS: u32 = 16;
/// Entries of one page that can have a number.
pub(super) const ROWS_MAX: u32 = 1 << ROW_BITS;
/// Pages, and files with several names, that a generation holds.
pub(super) const GENERATION: usize = 1 << 16;

/// What a number stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ino {
    Root,
    Virtual(u64),
    Link(u64),
    Row { page: u64, row: u32 },
}

impl Ino {
    pub(super) fn parse(number: u64) -> Self {
        match number {
            ROOT => Self::Root,
            number if number & VIRTUAL != 0 => Self::Virtual(number & !VIRTUAL),
            number if number & LINK != 0 => Self::Link(number & !LINK),
            number => Self::Row { page: number >> ROW_BITS, row: (number & u64::from(ROWS_MAX - 1)) as u32 },
        }
    }

    pub(super) fn number(self) -> u64 {
        match self {
            Self::Root => ROOT,
            Self::Virtual(number) => VIRTUAL | number,
            Self::Link(number) => LINK | number,
            Self::Row { page, row } => page << ROW_BITS | u64::from(row),
        }
    }
}

/// A page of a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PageRecord {
    /// The directory.
    pub(super) dir: u64,
    /// The directory in which the tree is shown.
    pub(super) top: u64,
    /// How many directories lie above its entries, up to there.
    pub(super) depth: u32,
    /// The page.
    pub(super) page: TreeRef,
}

/// What was used lately, and what was before.
#[derive(Debug)]
pub(super) struct Generations<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
}

impl<K: Hash + Eq, V: Copy> Generations<K, V> {
    pub(super) fn new() -> Self {
        Self { young: HashMap::new(), old: HashMap::new() }
    }

    /// The value, which is young from now on, and whether it was before.
    pub(super) fn get(&mut self, key: &K) -> Option<(V, bool)> {
        if let Some(value) = self.young.get(key) {
            return Some((*value, true));
        }
        let (key, value) = self.old.remove_entry(key)?;
        self.young.insert(key, value);
        Some((value, false))
    }

    /// Adds a value; what was not used for `most` of them and another `most` is dropped.
    pub(super) fn put(&mut self, key: K, value: V, most: usize) {
        if self.young.len() >= most {
            self.turn();
        }
        self.young.insert(key, value);
    }

    fn turn(&mut self) {
        self.old = std::mem::take(&mut self.young);
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }
}

/// All numbers that were given out and are not dropped.
#[derive(Debug)]
pub(super) struct Inodes {
    pages: Generations<u64, PageRecord>,
    numbers: Generations<(u64, ChunkId), u64>,
    /// Files with several names, by what their names have in common.
    links: Generations<[u8; 16], u64>,
    /// The name that each was first met by, or a later one if the page of that is stale.
    linked: Generations<u64, u64>,
    next_page: u64,
    next_link: u64,
    most: usize,
}

impl Inodes {
    /// Holds so many pages in each generation.
    pub(super) fn new(most: usize) -> Self {
        Self {
            pages: Generations::new(),
            numbers: Generations::new(),
            links: Generations::new(),
            linked: Generations::new(),
            next_page: 1,
            next_link: 0,
            most,
        }
    }

    /// The number of a page, a new one if it has none.
    pub(super) fn page(&mut self, record: PageRecord) -> u64 {
        self.turn_if_full();
        let key = (record.dir, record.page.id);
        if let Some((number, _)) = self.numbers.get(&key) {
            self.touch(number);
            return number;
        }
        if let Ino::Row { page, .. } = Ino::parse(record.dir) {
            self.touch(page);
        }
        let number = self.next_page;
        self.next_page += 1;
        self.pages.young.insert(number, record);
        self.numbers.young.insert(key, number);
        number
    }

    /// The page with this number; `None` if it is stale.
    pub(super) fn record(&mut self, number: u64) -> Option<PageRecord> {
        self.turn_if_full();
        let (record, was_young) = self.pages.get(&number)?;
        if !was_young {
            self.touch_rest(record, number);
        }
        Some(record)
    }

    /// The number of a file with several names, which have this in common; `row` is one of them.
    pub(super) fn link(&mut self, common: [u8; 16], row: u64) -> u64 {
        self.turn_if_full();
        let number = match self.links.get(&common) {
            Some((number, _)) => number,
            None => {
                let number = self.next_link;
                self.next_link += 1;
                self.links.young.insert(common, number);
                number
            }
        };
        if !self.linked.get(&number).is_some_and(|(row, _)| self.is_known(row)) {
            self.linked.young.insert(number, row);
        }
        Ino::Link(number).number()
    }

    /// A name of the file with this number; `None` if it is stale.
    pub(super) fn linked(&mut self, number: u64) -> Option<u64> {
        self.linked.get(&number).map(|(row, _)| row)
    }

    fn is_known(&self, row: u64) -> bool {
        let Ino::Row { page, .. } = Ino::parse(row) else { return false };
        self.pages.young.contains_key(&page) || self.pages.old.contains_key(&page)
    }

    fn touch(&mut self, number: u64) {
        if let Some((record, false)) = self.pages.get(&number) {
            self.touch_rest(record, number);
        }
    }

    /// What is young has young directories above it: so they are gone through only as far as they are old.
    fn touch_rest(&mut self, mut record: PageRecord, mut number: u64) {
        loop {
            self.numbers.old.remove(&(record.dir, record.page.id));
            self.numbers.young.insert((record.dir, record.page.id), number);
            let Ino::Row { page, .. } = Ino::parse(record.dir) else { break };
            let Some((above, false)) = self.pages.get(&page) else { break };
            (record, number) = (above, page);
        }
    }

    /// Must not come between what is touched for one question: what is young would have old directories above it.
    fn turn_if_full(&mut self) {
        if self.pages.young.len() < self.most && self.links.young.len() < self.most {
            return;
        }
        self.pages.turn();
        self.numbers.turn();
        self.links.turn();
        self.linked.turn();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record(dir: u64, id: u16) -> PageRecord {
        let mut bytes = [0; 32];
        bytes[..2].copy_from_slice(&id.to_le_bytes());
        PageRecord { dir, top: ROOT, depth: 0, page: TreeRef { level: 0, id: ChunkId::new(bytes), len: 1 } }
    }

    #[test]
    fn every_kind_of_number_is_read_back() {
        for ino in [
            Ino::Root,
            Ino::Virtual(0),
            Ino::Virtual(7),
            Ino::Link(0),
            Ino::Link(1 << 40),
            Ino::Row { page: 1, row: 0 },
            Ino::Row { page: 1 << 40, row: ROWS_MAX - 1 },
        ] {
            assert_eq!(Ino::parse(ino.number()), ino);
        }
        // What nobody gave out is a page that is not there.
        assert_eq!(Ino::parse(0), Ino::Row { page: 0, row: 0 });
        assert_eq!(Inodes::new(10).record(0), None);
    }

    #[test]
    fn a_file_with_several_names_has_one_number() {
        let mut inodes = Inodes::new(10);
        assert_eq!(inodes.page(record(ROOT, 0)), 1);
        let first = inodes.link([1; 16], 65_536);
        assert_eq!(inodes.link([1; 16], 65_537), first);
        assert_ne!(inodes.link([2; 16], 65_538), first);
        let Ino::Link(number) = Ino::parse(first) else { panic!("{first:x}") };
        assert_eq!(inodes.linked(number), Some(65_536));
    }

    #[test]
    fn a_file_is_found_by_a_name_whose_page_is_known() {
        let mut inodes = Inodes::new(4);
        let row = |page| Ino::Row { page, row: 0 }.number();
        let first = inodes.page(record(ROOT, 0));
        let file = inodes.link([1; 16], row(first));
        // It is met under a name in each of many directories, so that the page of the first name is dropped, but the file is not.
        for id in 1..100 {
            let page = inodes.page(record(ROOT, id));
            assert_eq!(inodes.link([1; 16], row(page)), file);
        }
        assert_eq!(inodes.record(first), None);
        let Ino::Link(number) = Ino::parse(file) else { panic!("{file:x}") };
        let Some(Ino::Row { page, .. }) = inodes.linked(number).map(Ino::parse) else { panic!("{number}") };
        assert!(inodes.record(page).is_some());
    }

    #[test]
    fn directories_above_what_is_used_are_never_dropped() {
        let mut inodes = Inodes::new(20);
        let mut dirs = vec![ROOT];
        for level in 0..5 {
            let page = inodes.page(record(dirs[level], level as u16));
            dirs.push(Ino::Row { page, row: 3 }.number());
        }
        for id in 0..10_000 {
            inodes.page(record(dirs[5], 100 + id));
        }
        for dir in &dirs[1..] {
            let Ino::Row { page, .. } = Ino::parse(*dir) else { panic!("{dir}") };
            assert!(inodes.record(page).is_some());
        }
        assert_eq!(inodes.page(record(ROOT, 0)), dirs[1] >> ROW_BITS, "and keep their numbers");
    }

    proptest! {
        #[test]
        fn numbers_mean_one_thing_and_memory_is_bounded(
            steps in prop::collection::vec((0_u16..60, 0_usize..40, any::<bool>()), 1..600)
        ) {
            let mut inodes = Inodes::new(8);
            let mut given: HashMap<u64, PageRecord> = HashMap::new();
            let mut known = vec![ROOT];
            for (id, dir, look) in steps {
                let dir = known[dir % known.len()];
                if look && let Ino::Row { page, .. } = Ino::parse(dir) {
                    let found = inodes.record(page);
                    prop_assert!(found.is_none() || found == given.get(&page).copied());
                } else {
                    let wanted = record(dir, id);
                    let page = inodes.page(wanted);
                    prop_assert_eq!(*given.entry(page).or_insert(wanted), wanted);
                    prop_assert_eq!(inodes.record(page), Some(wanted));
                    known.push(Ino::Row { page, row: 0 }.number());
                }
                let held = inodes.pages.young.len() + inodes.pages.old.len();
                // Two generations, and the directories above what is used.
                prop_assert!(held <= 2 * (8 + 40), "{held}");
                prop_assert!(inodes.numbers.young.len() + inodes.numbers.old.len() == held);
            }
        }
    }
}
