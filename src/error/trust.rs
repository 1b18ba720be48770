//! What goes wrong where it is decided whom to believe.

use super::words::{count, less, names};
use crate::class::Class;
use crate::id::{ObjectHash, SnapshotId, WriterId};

/// Why what the store shows is not believed, or a writer was not revoked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrustError {
    /// This machine has seen snapshots that the store does not show, or not as confirmed ones, and nobody removed them.
    #[error(
        "the store shows less than this machine has seen: {} gone, or not confirmed any more, and nobody removed {}: {}",
        count(missing), if missing.len() == 1 { "it" } else { "them" }, names(missing)
    )]
    RolledBack {
        /// The snapshots.
        missing: Vec<SnapshotId>,
    },
    /// The store does not have the anchor that is required.
    #[error("the store has no anchor {anchor}: what it shows is older, or of another repository")]
    NoAnchor {
        /// Which.
        anchor: ObjectHash,
    },
    /// The store shows less than the anchor that is required covers.
    #[error("the store shows less than anchor {anchor} covers: {}", less(missing, changed, *older))]
    AnchorBroken {
        /// Which.
        anchor: ObjectHash,
        /// Snapshots that are gone and that nobody removed.
        missing: Vec<SnapshotId>,
        /// Snapshots that are there, and damaged or not confirmed any more.
        changed: Vec<SnapshotId>,
        /// The configuration, or an entry of the writers' registry, is an older one.
        older: bool,
    },
    /// One anchor cannot name so many snapshots.
    #[error("{snapshots} snapshots are more than an anchor can name")]
    TooManyToAnchor {
        /// How many.
        snapshots: usize,
    },
    /// No writer matches.
    #[error("no writer matches {selector:?}")]
    NoWriter {
        /// What was asked for.
        selector: String,
    },
    /// Several writers match.
    #[error("{selector:?} matches {count} writers")]
    AmbiguousWriter {
        /// What was asked for.
        selector: String,
        /// How many match.
        count: usize,
    },
    /// The writer is the one that the key in use signs as.
    #[error("the key in use signs as writer {writer}, and could store nothing any more: nothing was done")]
    OwnWriter {
        /// The writer.
        writer: WriterId,
    },
    /// Nobody else could forget or collect.
    #[error("writer {writer} is the last one that may remove anything: nothing was done")]
    LastMaintainer {
        /// The writer.
        writer: WriterId,
    },
    /// The writer is revoked already.
    #[error("writer {writer} is revoked already")]
    IsRevoked {
        /// The writer.
        writer: WriterId,
    },
}

impl TrustError {
    /// What kind of failure this is.
    pub fn class(&self) -> Class {
        match self {
            Self::RolledBack { .. } | Self::NoAnchor { .. } | Self::AnchorBroken { .. } => Class::Tampered,
            Self::OwnWriter { .. } | Self::LastMaintainer { .. } => Class::Refused,
            Self::TooManyToAnchor { .. }
            | Self::NoWriter { .. }
            | Self::AmbiguousWriter { .. }
            | Self::IsRevoked { .. } => Class::Failed,
        }
    }
}
