//! zstd with bounds, and telling what cannot be compressed.
//!
//! # Invariants
//! * One frame a segment, with its content size, without checksum (the AEAD has one), without dictionary.
//! * Decompression writes exactly the length that the caller knows, or fails; it takes no other memory that depends on
//!   the input.
//! * The same input, level and zstd give the same bytes; a worker's context carries nothing from one call to the next.

mod compressor;
mod decompressor;
mod entropy;

pub use compressor::Compressor;
pub use decompressor::{Decompressor, decompress_unsized};
pub use entropy::looks_incompressible;

use crate::class::Class;

/// The levels that can be asked for.
pub const LEVELS: std::ops::RangeInclusive<i32> = -7..=19;

/// What can go wrong with compression.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CompressError {
    /// No such level.
    #[error("compression level {level} is not between -7 and 19")]
    Level {
        /// What was asked for.
        level: i32,
    },
    /// zstd has no memory, or broke.
    #[error("zstd cannot compress: {reason}")]
    Compress {
        /// What zstd says.
        reason: &'static str,
    },
    /// Not one whole frame of the right kind.
    #[error("not a single zstd frame: {reason}")]
    Frame {
        /// What is wrong.
        reason: &'static str,
    },
    /// The frame holds another length than it should.
    #[error("the zstd frame holds {found} bytes instead of {expected}")]
    Length {
        /// What the caller knows.
        expected: usize,
        /// What the frame declares.
        found: u64,
    },
}

impl CompressError {
    /// What kind of failure this is.
    pub fn class(&self) -> Class {
        match self {
            Self::Level { .. } => Class::Usage,
            Self::Compress { .. } => Class::Failed,
            Self::Frame { .. } | Self::Length { .. } => Class::Damage,
        }
    }
}
