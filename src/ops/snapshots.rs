//! Listing snapshots, and finding the one a person means.

use crate::clock::Timestamp;
use crate::format::snapshot::Snapshot;
use crate::id::{SnapshotId, WriterId};

/// A snapshot, read and verified, and what the listing says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotInfo {
    /// Its name.
    pub id: SnapshotId,
    /// Who wrote it.
    pub writer: WriterId,
    /// Its number among the writer's snapshots.
    pub sequence: u64,
    /// Whether a confirmation stands beside it.
    pub confirmed: bool,
    /// When the store got it, on the store's clock.
    pub stored: Timestamp,
    /// What it says.
    pub snapshot: Snapshot,
}
