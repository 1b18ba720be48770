//! A segment: chunks compressed and encrypted together, opened again and compared before anyone stores them.
//!
//! # Invariants
//! * Nothing leaves [`SegmentSealer::seal`] that a reader could not open to the very bytes that went in: twice in its
//!   history zstd made frames that did not hold what they were given.
//! * Each segment has a key and a nonce of its own, made from fresh randomness and the ids of its chunks.
//! * A segment opens only with its data key, repository, kind, plain length and codec. Its place does not matter.
//!
//! # Must not
//! Know packs, offsets or the store.

mod opener;
mod sealer;

pub use opener::SegmentOpener;
pub use sealer::SegmentSealer;

use crate::class::Class;
use crate::compress::CompressError;
use crate::crypto::CryptoError;

/// What can go wrong with a segment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// The plaintext is longer than a segment may be.
    #[error("a segment of {len} bytes is too long")]
    TooLong {
        /// Its length.
        len: usize,
    },
    /// Plaintext without the ids of its chunks.
    #[error("a segment of {len} bytes names no chunk")]
    NoChunks {
        /// Its length.
        len: usize,
    },
    /// What was sealed did not open to what it was made from: the machine or a library is broken. Nothing was kept.
    #[error("a sealed segment did not open to its own plaintext")]
    RoundTrip {
        /// Why it did not open; `None` when it opened to other bytes.
        #[source]
        source: Option<Box<SealError>>,
    },
    /// The stored bytes are not as long as their entry says.
    #[error("a segment has {found} stored bytes instead of {expected}")]
    StoredLength {
        /// What the entry says.
        expected: u32,
        /// How many there are.
        found: usize,
    },
    /// Keys, nonces, or bytes that do not authenticate.
    #[error("the segment's encryption failed")]
    Crypto(#[from] CryptoError),
    /// Compression, or a frame that does not hold what it should.
    #[error("the segment's compression failed")]
    Compress(#[from] CompressError),
}

impl SealError {
    /// What kind of failure this is.
    pub fn class(&self) -> Class {
        match self {
            Self::TooLong { .. } | Self::NoChunks { .. } | Self::RoundTrip { .. } => Class::Failed,
            Self::StoredLength { .. } => Class::Damage,
            Self::Crypto(error) => error.class(),
            Self::Compress(error) => error.class(),
        }
    }
}
