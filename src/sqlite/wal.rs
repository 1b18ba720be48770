//! The write-ahead log, and the index over it that its readers share.

use super::{PAGES_MAX, PageMap, be32, page_size};

/// Bytes at the beginning of a log.
pub const WAL_HEADER_LEN: usize = 32;
/// Bytes before each page in a log.
pub const FRAME_HEADER_LEN: usize = 24;
/// Bytes of the index that are of interest here.
pub const INDEX_LEN: usize = 100;

pub(super) const MAGIC: u32 = 0x377f_0682;
const VERSION: u32 = 3_007_000;

/// Goes through a log frame by frame, to where it ends: at the last commit before the first frame that is not of this log.
#[derive(Debug)]
pub struct WalScan {
    page_size: u32,
    big_endian: bool,
    salts: [u8; 8],
    sums: [u32; 2],
    taken: u32,
    /// Frames of the transaction at hand are behind those that count.
    pages: Vec<(u32, u64)>,
    committed: usize,
    frames: u32,
    count: u32,
}

impl WalScan {
    /// `None` if this begins no log: then nothing of it counts.
    pub fn new(header: &[u8]) -> Option<Self> {
        let header = header.get(..WAL_HEADER_LEN)?;
        let magic = be32(header, 0);
        if magic & !1 != MAGIC || be32(header, 4) != VERSION {
            return None;
        }
        let big_endian = magic & 1 == 1;
        let sums = add(big_endian, [0, 0], &header[..24]);
        if sums != [be32(header, 24), be32(header, 28)] {
            return None;
        }
        Some(Self {
            page_size: page_size(be32(header, 8))?,
            big_endian,
            salts: header[16..24].try_into().ok()?,
            sums,
            taken: 0,
            pages: Vec::new(),
            committed: 0,
            frames: 0,
            count: 0,
        })
    }

    /// Bytes of a page.
    pub fn page_size(&self) -> u32 {
        self.page_size
    }

    /// Bytes of a frame.
    pub fn frame_len(&self) -> usize {
        FRAME_HEADER_LEN + self.page_size as usize
    }

    /// What tells this log from the one that was written over.
    pub fn salts(&self) -> [u8; 8] {
        self.salts
    }

    /// Frames up to the last commit.
    pub fn frames(&self) -> u32 {
        self.frames
    }

    /// Takes the next frame; false if the log ends before it.
    pub fn push(&mut self, frame: &[u8]) -> bool {
        let (page, count) = (be32(frame, 0), be32(frame, 4));
        let whole = frame.len() == self.frame_len() && page > 0 && frame.get(8..16) == Some(&self.salts[..]);
        if !whole || self.pages.len() >= PAGES_MAX {
            return false;
        }
        let sums = add(self.big_endian, self.sums, &frame[..8]);
        let sums = add(self.big_endian, sums, &frame[FRAME_HEADER_LEN..]);
        if sums != [be32(frame, 16), be32(frame, 20)] {
            return false;
        }
        let at = WAL_HEADER_LEN as u64 + u64::from(self.taken) * self.frame_len() as u64;
        self.pages.push((page, at + FRAME_HEADER_LEN as u64));
        (self.sums, self.taken) = (sums, self.taken + 1);
        if count > 0 {
            (self.committed, self.frames, self.count) = (self.pages.len(), self.taken, count);
        }
        true
    }

    /// Whether a frame that does not count was written to this log all the same: somebody was stopped while writing it, or it is
    /// damaged.
    pub fn is_own(&self, frame: &[u8]) -> bool {
        frame.get(8..16) == Some(&self.salts[..])
    }

    /// Whether it ended only because there is no more room.
    pub fn is_full(&self) -> bool {
        self.pages.len() >= PAGES_MAX
    }

    /// Pages as of the last commit; `None` if there was none.
    pub fn finish(mut self) -> Option<PageMap> {
        self.pages.truncate(self.committed);
        (self.committed > 0).then(|| PageMap::new((self.page_size, self.count), self.pages, true))
    }
}

/// The sum that SQLite puts over headers and frames: `docs` of the file format, "Checksum Algorithm".
fn add(big_endian: bool, [mut a, mut b]: [u32; 2], bytes: &[u8]) -> [u32; 2] {
    let word = |four: &[u8]| {
        let four = four.try_into().unwrap_or_default();
        if big_endian { u32::from_be_bytes(four) } else { u32::from_le_bytes(four) }
    };
    for eight in bytes.chunks_exact(8) {
        a = a.wrapping_add(word(&eight[..4])).wrapping_add(b);
        b = b.wrapping_add(word(&eight[4..])).wrapping_add(a);
    }
    [a, b]
}

/// What those who have the database open agree on: how far the log goes, and how far it was copied into the file. In the byte
/// order of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Index {
    /// Frames that count.
    pub frames: u32,
    /// Of these the first so many are in the file.
    pub copied: u32,
    /// What tells this log from the one that was written over.
    pub salts: [u8; 8],
}

impl Index {
    /// `None` if somebody is writing it, or nobody has made it yet.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.get(..INDEX_LEN)?;
        let (first, second) = (&bytes[..48], &bytes[48..96]);
        let word = |at: usize| bytes[at..at + 4].try_into().map_or(0, u32::from_ne_bytes);
        let sums = add(cfg!(target_endian = "big"), [0, 0], &first[..40]);
        if first != second || first[12] == 0 || word(0) != VERSION || sums != [word(40), word(44)] {
            return None;
        }
        Some(Self { frames: word(16), copied: word(96), salts: first[32..40].try_into().ok()? })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::testing::{index, wal};
    use super::*;
    use crate::sqlite::pages::Place;

    fn scan(log: &[u8]) -> Option<(u32, Option<PageMap>)> {
        let mut scan = WalScan::new(log)?;
        for frame in log[WAL_HEADER_LEN..].chunks(scan.frame_len()) {
            if !scan.push(frame) {
                break;
            }
        }
        Some((scan.frames(), scan.finish()))
    }

    #[test]
    fn a_log_ends_at_its_last_commit() {
        let log = wal(512, &[(1, 0), (2, 2), (1, 2), (3, 0)]);
        let (frames, map) = scan(&log).unwrap();
        let map = map.unwrap();
        assert_eq!((frames, map.size()), (3, 1024));
        assert_eq!(map.find(0), Place::Elsewhere(32 + 2 * 536 + 24, 512), "the later of the two");
        assert_eq!(scan(&log[..32 + 536]).unwrap(), (0, None));
        // A frame of the log before this one.
        let mut stale = log.clone();
        stale[32 + 2 * 536 + 8] ^= 1;
        assert_eq!(scan(&stale).unwrap().0, 2);
        assert!(scan(&log[..31]).is_none());
    }

    #[test]
    fn an_index_is_believed_only_whole() {
        let index = index(9, 4, b"saltsalt");
        assert_eq!(Index::parse(&index), Some(Index { frames: 9, copied: 4, salts: *b"saltsalt" }));
        for at in [0, 12, 17, 40, 50] {
            let mut bad = index.clone();
            bad[at] ^= 1;
            assert_eq!(Index::parse(&bad), None, "{at}");
        }
        assert_eq!(Index::parse(&index[..99]), None);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..4000), at in 0usize..2000, byte: u8) {
            scan(&bytes);
            Index::parse(&bytes);
            let mut log = wal(512, &[(1, 0), (2, 2), (1, 2)]);
            let place = at % log.len();
            log[place] = byte;
            scan(&log);
        }
    }
}
