//! The rollback journal: what stood in the pages that a transaction changes.

use super::{PAGES_MAX, PENDING_BYTE, PageMap, be32, page_size};

/// Bytes of a header that are of interest; it takes a whole sector.
pub const JOURNAL_HEADER_LEN: usize = 28;
/// Bytes at the end of a journal that say whether a transaction of several databases is in it.
pub const SUPER_TAIL_LEN: usize = 16;

pub(super) const MAGIC: [u8; 8] = [0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7];
/// Longest name of a file that several journals have in common.
const NAME_MAX: u32 = 4096;

/// A header of a journal; it may have several, each followed by its records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JournalHeader {
    /// Records that follow; as many as there are if `None`.
    pub records: Option<u32>,
    nonce: u32,
    /// Pages of the database before the transaction.
    pub pages: u32,
    /// Bytes that a header takes.
    pub sector: u32,
    /// Bytes of a page.
    pub page_size: u32,
}

impl JournalHeader {
    /// `None` if there is none, which ends the journal.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.get(..JOURNAL_HEADER_LEN)?;
        let sector = be32(bytes, 20);
        if !bytes.starts_with(&MAGIC) || !(32..=65_536).contains(&sector) || !sector.is_power_of_two() {
            return None;
        }
        Some(Self {
            records: Some(be32(bytes, 8)).filter(|count| *count != u32::MAX),
            nonce: be32(bytes, 12),
            pages: be32(bytes, 16),
            sector,
            page_size: page_size(be32(bytes, 24))?,
        })
    }

    /// Sizes are those of the first header of a journal; the others only go on.
    pub fn after(self, first: &Self) -> Self {
        Self { sector: first.sector, page_size: first.page_size, ..self }
    }

    /// Bytes of a record: the number of a page, the page, and a sum.
    pub fn record_len(&self) -> usize {
        self.page_size as usize + 8
    }

    /// The number of the page that a record holds; `None` if the journal ends before it.
    pub fn page_of(&self, record: &[u8]) -> Option<u32> {
        let size = self.page_size as usize;
        let page = be32(record, 0);
        let locked = PENDING_BYTE / u64::from(self.page_size) + 1;
        if record.len() != self.record_len() || page == 0 || u64::from(page) == locked {
            return None;
        }
        let content = &record[4..4 + size];
        let (mut sum, mut at) = (self.nonce, size - 200);
        while at > 0 {
            sum = sum.wrapping_add(u32::from(content[at]));
            at = at.saturating_sub(200);
        }
        (sum == be32(record, 4 + size)).then_some(page)
    }

    /// What the database was before: `records` are pages and where they begin in the journal.
    pub fn map(&self, records: Vec<(u32, u64)>) -> Option<PageMap> {
        let room = records.len() < PAGES_MAX;
        room.then(|| PageMap::new((self.page_size, self.pages), records, false))
    }
}

/// The end of a journal that belongs to a transaction of several databases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SuperTail {
    /// Bytes of the name that stands before it.
    pub len: u32,
    sum: u32,
}

impl SuperTail {
    /// `None` if it belongs to a transaction of this database alone.
    pub fn parse(tail: &[u8]) -> Option<Self> {
        let tail = tail.get(..SUPER_TAIL_LEN)?;
        let len = be32(tail, 0);
        let named = tail[8..] == MAGIC && (1..=NAME_MAX).contains(&len);
        named.then(|| Self { len, sum: be32(tail, 4) })
    }
}

/// The name that `tail` speaks of; while there is a file of that name, the transaction is not committed.
pub fn super_name(tail: SuperTail, name: &[u8]) -> Option<&[u8]> {
    // SQLite adds them as signed.
    let sum = name.iter().fold(0_u32, |sum, byte| sum.wrapping_add(*byte as i8 as u32));
    let whole = name.len() == tail.len as usize && sum == tail.sum && !name.contains(&0);
    whole.then_some(name)
}

#[cfg(test)]
mod tests {
    use super::super::testing::journal;
    use super::*;

    #[test]
    fn records_are_believed_by_their_sum() {
        let journal = journal((512, 7, 2), &[(2, 5), (1, 6)]);
        let header = JournalHeader::parse(&journal).unwrap();
        assert_eq!((header.records, header.pages, header.sector), (Some(2), 2, 512));
        let records = &journal[512..];
        assert_eq!(header.page_of(&records[..520]), Some(2));
        assert_eq!(header.page_of(&records[520..1040]), Some(1));
        let mut bad = records[..520].to_vec();
        bad[4 + 312] ^= 1;
        assert_eq!(header.page_of(&bad), None);
        assert_eq!(header.page_of(&records[..519]), None);
        let map = header.map(vec![(2, 516), (1, 1036), (9, 1)]).unwrap();
        assert_eq!(map.size(), 1024);
    }

    #[test]
    fn a_header_out_of_bounds_is_none() {
        let good = journal((512, 7, 2), &[]);
        for (at, byte) in [(0, 0), (20, 9), (22, 3), (24, 1), (26, 3)] {
            let mut bad = good.clone();
            bad[at] = byte;
            assert_eq!(JournalHeader::parse(&bad), None, "{at}");
        }
        assert_eq!(JournalHeader::parse(&good[..27]), None);
    }

    #[test]
    fn the_name_of_a_common_journal_is_read() {
        let name = b"/srv/\xfftogether-mj12";
        let sum = name.iter().fold(0_u32, |sum, byte| sum.wrapping_add(*byte as i8 as u32));
        let mut tail = (name.len() as u32).to_be_bytes().to_vec();
        tail.extend(sum.to_be_bytes());
        tail.extend(MAGIC);
        let tail = SuperTail::parse(&tail).unwrap();
        assert_eq!(super_name(tail, name), Some(&name[..]));
        assert_eq!(super_name(tail, b"/srv/other"), None);
        assert_eq!(SuperTail::parse(&[0; 16]), None);
    }
}
