//! What PostgreSQL writes: pages and records of its log, and the history of timelines. Bytes in, values out.
//!
//! # Invariants
//! Everything here comes from files that may be damaged or not what their names say: every read is bounded, nothing panics,
//! and what is refused is said with its position in the log.
//!
//! # Must not
//! Know of repositories, do I/O.

mod crc;
mod history;
mod page;
mod record;
mod walk;

#[cfg(test)]
pub(crate) mod testing;

pub use history::{HistoryError, Origin, parse_history};
pub use page::{FirstPage, LONG_HEADER, first_page, first_page_of};
pub use walk::{Walked, Walker};

use std::fmt;

/// A position in the log, as the server writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xffff_ffff)
    }
}

impl std::str::FromStr for Lsn {
    type Err = HistoryError;

    fn from_str(text: &str) -> Result<Self, HistoryError> {
        let half = |text: &str| {
            let plain = !text.is_empty() && text.len() <= 8 && text.bytes().all(|b| b.is_ascii_hexdigit());
            plain.then(|| u64::from_str_radix(text, 16).ok())?
        };
        let parts = text.split_once('/').and_then(|(upper, lower)| Some((half(upper)?, half(lower)?)));
        parts.map(|(upper, lower)| Self(upper << 32 | lower)).ok_or(HistoryError::Position)
    }
}

/// What is wrong with a segment of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WalError {
    /// Shorter than the header of its first page, or not as long as that says.
    #[error("it has {found} bytes, and its first page says {expected}")]
    Length {
        /// What the first page says; of a file without a whole one the least there could be.
        expected: u64,
        /// The file's length.
        found: u64,
    },
    /// No version of PostgreSQL that this program knows begins its pages so.
    #[error(
        "its first page begins with {found:#06x}, which no version of PostgreSQL writes that this program knows"
    )]
    Magic {
        /// What it begins with.
        found: u16,
    },
    /// The first page has no long header, or one that cannot be.
    #[error("its first page has no valid header")]
    Header,
    /// The file holds another part of the log than its name says: it was recycled, or misnamed.
    #[error("page at {expected} says that it belongs to {found}: the file is not what its name says")]
    Address {
        /// Where the page stands by the file's name.
        expected: Lsn,
        /// What it says.
        found: Lsn,
    },
    /// A page is of a timeline that this one cannot come from.
    #[error("page at {at} is of timeline {found}, and the file's name is of timeline {name}")]
    Timeline {
        /// The page.
        at: Lsn,
        /// What it says.
        found: u32,
        /// What the name says.
        name: u32,
    },
    /// The header of a page is not what the page before it asks for.
    #[error("page at {at} has a header that does not fit")]
    Page {
        /// The page.
        at: Lsn,
    },
    /// A record is not what its checksum says.
    #[error("the record at {at} does not have its checksum")]
    Checksum {
        /// The record.
        at: Lsn,
    },
    /// A record has a length that none can have.
    #[error("there is no record at {at}, where one should begin")]
    Record {
        /// Where.
        at: Lsn,
    },
    /// A record does not follow the one before it.
    #[error("the record at {at} follows {found}, and the one before it is at {expected}")]
    Chain {
        /// The record.
        at: Lsn,
        /// The record before it.
        expected: Lsn,
        /// What it says.
        found: Lsn,
    },
    /// The log ends before the segment does.
    #[error("the log ends at {at}, in the middle of the segment")]
    Ends {
        /// Where.
        at: Lsn,
    },
}
