//! How large a repository is: from its listings and its index, without reading a pack.

use std::collections::HashSet;

use super::snapshots::{SnapshotFilter, list};
use crate::error::Error;
use crate::format::layout::{self, ObjectName};
use crate::repo::Repository;

/// Amounts of a repository.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Snapshots, confirmed or not.
    pub snapshots: u64,
    /// Packs.
    pub packs: u64,
    /// Their bytes.
    pub pack_bytes: u64,
    /// Index objects.
    pub index_objects: u64,
    /// Their bytes.
    pub index_bytes: u64,
    /// Objects of every other kind.
    pub other_objects: u64,
    /// Their bytes.
    pub other_bytes: u64,
    /// Chunks in the index; one that is stored twice counts twice.
    pub chunks: u64,
    /// Bytes of all segments before compression.
    pub plain_bytes: u64,
    /// Bytes of all segments as they are stored.
    pub stored_bytes: u64,
    /// Bytes of the files of all snapshots, as if each were restored on its own.
    pub total_bytes: u64,
}

/// Measures a repository.
pub async fn stats(repo: &Repository) -> Result<Stats, Error> {
    let mut stats = Stats::default();
    let mut packs = HashSet::new();
    for prefix in layout::PREFIXES {
        for object in repo.store().list(prefix).await? {
            let (count, bytes) = match ObjectName::parse(object.key.as_str()) {
                Some(ObjectName::Pack(id)) => {
                    packs.insert(id);
                    (&mut stats.packs, &mut stats.pack_bytes)
                }
                Some(ObjectName::Index(..)) => (&mut stats.index_objects, &mut stats.index_bytes),
                _ => (&mut stats.other_objects, &mut stats.other_bytes),
            };
            *count += 1;
            *bytes += object.size;
        }
    }
    let list = list(repo, &SnapshotFilter::default()).await?;
    stats.snapshots = (list.snapshots.len() + list.unreadable.len()) as u64;
    stats.total_bytes = list.snapshots.iter().map(|info| info.snapshot.totals.bytes).sum();
    let index = repo.load_index().await?;
    stats.chunks = index.view.chunk_count();
    for pack in index.view.packs() {
        let (number, row) = pack?;
        // Each pack once, and only those that are there.
        if !packs.remove(&row.id) {
            continue;
        }
        for segment in index.view.segments(number)? {
            stats.plain_bytes += u64::from(segment.plain_len);
            stats.stored_bytes += u64::from(segment.stored_len);
        }
    }
    Ok(stats)
}
