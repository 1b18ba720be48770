//! Which pages of a database stand elsewhere than in its file.

use super::PENDING_BYTE;

/// The page in which the byte is that writers lock.
fn lock_page(page_size: u32) -> u32 {
    (PENDING_BYTE / u64::from(page_size.max(1)) + 1) as u32
}

/// Most pages that are looked up elsewhere: 64 MiB of memory, 16 GiB of pages of the usual size.
pub const PAGES_MAX: usize = 1 << 22;

/// Pages that stand in a log or a journal.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct PageMap {
    page_size: u32,
    /// Pages of the database.
    count: u32,
    /// Number of a page, from 1 on, and where it begins; ascending.
    pages: Vec<(u32, u64)>,
}

impl PageMap {
    /// Takes pages in any order; of one that comes twice the `last` or the first counts. Pages behind the end are dropped.
    pub(super) fn new((page_size, count): (u32, u32), mut pages: Vec<(u32, u64)>, last: bool) -> Self {
        pages.retain(|(page, _)| (1..=count).contains(page));
        pages.sort_by_key(|(page, _)| *page);
        if last {
            pages.reverse();
        }
        // The sort keeps the order of equals, so that after a reversal the last one comes first.
        pages.dedup_by_key(|(page, _)| *page);
        if last {
            pages.reverse();
        }
        pages.shrink_to_fit();
        Self { page_size, count, pages }
    }

    /// Bytes of a page.
    pub fn page_size(&self) -> u32 {
        self.page_size
    }

    /// Bytes of the database.
    pub fn size(&self) -> u64 {
        u64::from(self.count) * u64::from(self.page_size)
    }

    /// Whether nothing stands elsewhere.
    pub fn is_empty(&self) -> bool {
        self.pages.is_empty()
    }

    /// Whether the file, so many bytes long, and the pages here can be all of the database. One page may be nowhere: the one
    /// that is only there to be locked.
    pub fn covers(&self, file: u64) -> bool {
        let in_file = file / u64::from(self.page_size.max(1));
        let within = self.pages.partition_point(|(page, _)| u64::from(*page) <= in_file);
        let locked = u64::from(lock_page(self.page_size));
        let nowhere = locked > in_file
            && locked <= u64::from(self.count)
            && self.pages.binary_search_by_key(&locked, |(page, _)| u64::from(*page)).is_err();
        u64::from(self.count) <= in_file + (self.pages.len() - within) as u64 + u64::from(nowhere)
    }

    /// How many bytes from `offset` on belong to the page that is only there to be locked.
    pub fn locked(&self, offset: u64) -> Option<u64> {
        let size = u64::from(self.page_size.max(1));
        (offset / size + 1 == u64::from(lock_page(self.page_size))).then(|| size - offset % size)
    }

    /// Where the bytes at `offset` of the database stand, and how many of those that follow stand together with them.
    pub fn find(&self, offset: u64) -> Place {
        let size = u64::from(self.page_size.max(1));
        let (page, within) = (offset / size + 1, offset % size);
        let at = self.pages.partition_point(|(number, _)| u64::from(*number) < page);
        match self.pages.get(at) {
            Some((number, start)) if u64::from(*number) == page => {
                Place::Elsewhere(start + within, size - within)
            }
            Some((number, _)) => Place::File((u64::from(*number) - 1) * size - offset),
            None => Place::File(self.size().saturating_sub(offset)),
        }
    }
}

/// Where bytes of a database stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In the database's own file, where they belong; so many.
    File(u64),
    /// In the other file: at which offset, how many.
    Elsewhere(u64, u64),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_or_the_last_of_equal_pages_counts() {
        let pages = vec![(3, 300), (1, 100), (3, 301), (9, 900), (0, 1), (3, 302)];
        let last = PageMap::new((512, 4), pages.clone(), true);
        assert_eq!(last.pages, [(1, 100), (3, 302)]);
        assert_eq!(PageMap::new((512, 4), pages, false).pages, [(1, 100), (3, 300)]);
        assert_eq!(last.size(), 2048);
    }

    #[test]
    fn every_byte_has_one_place() {
        let map = PageMap::new((512, 4), vec![(2, 9000), (3, 7000)], true);
        assert_eq!(map.find(0), Place::File(512));
        assert_eq!(map.find(511), Place::File(1));
        assert_eq!(map.find(512), Place::Elsewhere(9000, 512));
        assert_eq!(map.find(1500), Place::Elsewhere(7476, 36));
        assert_eq!(map.find(1536), Place::File(512));
        assert_eq!(map.find(5000), Place::File(0));
    }

    #[test]
    fn a_page_that_is_nowhere_is_missed() {
        let map = PageMap::new((512, 4), vec![(2, 9000), (4, 7000)], true);
        assert!(map.covers(1536) && map.covers(4096), "the third is in the file");
        assert!(!map.covers(1535) && !map.covers(1024) && !map.covers(0), "the second is not counted twice");
        // Of pages of 64 KiB the 16385th is the one that is only there to be locked.
        let map = PageMap::new((65_536, 16_386), vec![(16_386, 9000)], true);
        assert!(map.covers(PENDING_BYTE) && !map.covers(PENDING_BYTE - 1));
        assert_eq!((map.locked(PENDING_BYTE + 6), map.locked(PENDING_BYTE - 1)), (Some(65_530), None));
        assert_eq!(map.locked(PENDING_BYTE + 65_536), None);
    }
}
