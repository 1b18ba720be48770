//! What SQLite writes: the header of a database, its write-ahead log, its rollback journal. Bytes in, values out.
//!
//! From the description of the file format that SQLite publishes, and for what that leaves open (which journal counts, where a
//! log ends) from what its pager does.
//!
//! # Invariants
//! Everything here comes from files that may be damaged or not what their names say: nothing panics, every number is held
//! against what is there, and memory is bounded by [`PAGES_MAX`].
//!
//! # Must not
//! Know of repositories, do I/O.

mod header;
mod journal;
mod pages;
#[cfg(test)]
pub(crate) mod testing;
mod wal;

pub use header::{HEADER_LEN, Header};
pub use journal::{JOURNAL_HEADER_LEN, JournalHeader, SUPER_TAIL_LEN, SuperTail, super_name};
pub use pages::{PAGES_MAX, PageMap, Place};
pub use wal::{FRAME_HEADER_LEN, INDEX_LEN, Index, WAL_HEADER_LEN, WalScan};

/// The byte at which everybody who writes must pass; the page that it lies in is never used.
pub const PENDING_BYTE: u64 = 0x4000_0000;

/// What is put behind the name of a database for the files beside it.
pub const BESIDE: [&[u8]; 3] = [b"-wal", b"-journal", b"-shm"];

/// The name of the database that a file belongs to, by its name alone.
pub fn database_of(name: &[u8]) -> Option<&[u8]> {
    BESIDE.iter().find_map(|suffix| name.strip_suffix(*suffix)).filter(|name| !name.is_empty())
}

/// Whether a file begins as a log or a journal does that something stands in.
pub fn begins_beside(head: &[u8]) -> bool {
    be32(head, 0) & !1 == wal::MAGIC || head.starts_with(&journal::MAGIC)
}

/// A length of pages that SQLite can have.
fn page_size(size: u32) -> Option<u32> {
    ((512..=65_536).contains(&size) && size.is_power_of_two()).then_some(size)
}

/// Four bytes, the most significant first; what is not there is zero.
fn be32(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|four| four.try_into().ok()).map_or(0, u32::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_beside_a_database_are_known_by_their_names() {
        assert_eq!(database_of(b"a.db-wal"), Some(&b"a.db"[..]));
        assert_eq!(database_of(b"a-journal"), Some(&b"a"[..]));
        assert_eq!(database_of(b"a-wal-shm"), Some(&b"a-wal"[..]));
        for other in [&b"-wal"[..], b"a.wal", b"a-walx", b"", b"wal"] {
            assert_eq!(database_of(other), None, "{other:?}");
        }
    }
}
