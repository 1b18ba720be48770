//! The first bytes of a database.

use super::{be32, page_size};

/// Bytes at the beginning of a database that say what it is.
pub const HEADER_LEN: usize = 100;

const MAGIC: &[u8] = b"SQLite format 3\0";

/// What the first page of a database says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Bytes of a page.
    pub page_size: u32,
    /// Whether changes go to a write-ahead log first.
    pub wal: bool,
    /// Pages of the database; `None` if whoever wrote last did not count them.
    pub pages: Option<u32>,
}

impl Header {
    /// `None` if it is no database, or an encrypted one.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        if bytes.len() < HEADER_LEN || !bytes.starts_with(MAGIC) {
            return None;
        }
        let size = u32::from(u16::from_be_bytes([bytes[16], bytes[17]]));
        let page_size = page_size(if size == 1 { 65_536 } else { size })?;
        // Programs from before 2010 leave the count as it was, and the change counter tells that.
        let counted = be32(bytes, 24) == be32(bytes, 92);
        let pages = Some(be32(bytes, 28)).filter(|pages| counted && *pages > 0);
        Some(Self { page_size, wal: bytes[19] == 2, pages })
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::header;
    use super::*;

    #[test]
    fn a_header_is_read_and_a_wrong_one_is_no_database() {
        let good = header(4096, 7, true);
        assert_eq!(Header::parse(&good), Some(Header { page_size: 4096, wal: true, pages: Some(7) }));
        let mut old = good.clone();
        old[95] ^= 1;
        assert_eq!(Header::parse(&old).unwrap().pages, None);
        assert_eq!(Header::parse(&header(65_536, 1, false)).unwrap().page_size, 65_536);
        assert_eq!(Header::parse(&good[..99]), None);
        for (at, byte) in [(0, b's'), (16, 0x11), (16, 0xff)] {
            let mut bad = good.clone();
            bad[at] = byte;
            assert_eq!(Header::parse(&bad), None, "{at}");
        }
    }
}
