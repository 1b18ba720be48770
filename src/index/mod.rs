//! Chunk id to location: the local cache of index objects, merged into a few sorted files that are memory-mapped.
//!
//! Index objects come in as [`IndexTables`](crate::format::index::IndexTables) through [`Cache::add`]. [`Cache::view`]
//! merges them into at most eight *levels* and gives a [`View`], which answers lookups. A level is an immutable file:
//! pack, segment, key and origin tables, and sorted records in shards with a binary fuse filter each. What this run
//! stores itself is in the [`RunTable`] until it appears in a view.
//!
//! # Invariants
//! * A view holds records only of index objects that its caller listed.
//! * Every byte of a level is checked against a BLAKE3 sum before it is first used: a damaged file gives
//!   [`IndexError::CacheDamaged`], never a wrong answer.
//! * Memory does not grow with the number of chunks, apart from mapped files and some bytes a pack.
//!
//! # Crash
//! A level gets its name by a rename once it is complete. A file torn by a power cut fails its sums and is fetched
//! again; parts left behind by a killed process are removed by the next one that opens the cache.
//!
//! # Must not
//! Be authoritative: deleting the cache costs requests and nothing else. Change a file once it has its name: other
//! processes have it mapped.

mod bits;
mod cache;
mod compact;
mod cursor;
mod directory;
mod header;
mod level;
mod live;
mod map;
mod merge;
mod pieces;
mod run;
mod scratch;
mod search;
#[cfg(test)]
mod testing;
mod view;

pub use bits::BitSet;
pub use cache::{Cache, CacheWarning, MappedTables};
pub use compact::{CompactTables, Compaction};
pub use header::Source;
pub use live::{LiveSet, Mark, Usage};
pub use run::RunTable;
pub use scratch::{ScratchFile, ScratchMap};
pub use view::{Copy, DataKeyNumber, Location, PackNumber, View};

use crate::class::Class;
use crate::format::FormatError;
use crate::id::ObjectHash;

/// Why the index cannot answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IndexError {
    /// A file of the cache does not match its sums. It is removed: what was in it is [`Cache::missing`] again.
    #[error("the index cache is damaged in {level}")]
    CacheDamaged {
        /// Name of the file.
        level: String,
    },
    /// Tables that no decoder or builder made.
    #[error("the tables of index object {object} contradict themselves")]
    Malformed {
        /// The object.
        object: ObjectHash,
        /// What is wrong with them.
        #[source]
        source: FormatError,
    },
    /// More rows than their numbers can count.
    #[error("the index has more than {limit} {what}")]
    TooMany {
        /// What there is too much of.
        what: &'static str,
        /// The most there can be.
        limit: u64,
    },
    /// An index object that the view does not hold.
    #[error("index object {object} is not in this view of the index")]
    NotHeld {
        /// The object.
        object: ObjectHash,
    },
    /// A number that the view did not give out.
    #[error("{what} {number} is not in this view of the index")]
    Unknown {
        /// What the number should name.
        what: &'static str,
        /// The number.
        number: u32,
    },
}

impl IndexError {
    /// What kind of failure it is. Damage of the cache is not damage of the repository.
    pub fn class(&self) -> Class {
        match self {
            Self::Malformed { .. } => Class::Damage,
            Self::CacheDamaged { .. }
            | Self::TooMany { .. }
            | Self::NotHeld { .. }
            | Self::Unknown { .. } => Class::Failed,
        }
    }
}
