//! What was removed of a log in good order, and what is missing of it.
//!
//! # Invariants
//! A stretch is called removed only if a maintainer's trim covers all of it and it lies before every base backup in the store: a
//! collector takes nothing behind one.

use std::collections::BTreeMap;

use super::plan::ranges;
use crate::error::Error;
use crate::format::cluster::History;
use crate::format::log::SegmentName;
use crate::format::postgres::PostgresBackup;
use crate::ops::snapshots::{SnapshotFilter, list};
use crate::repo::{Repository, StoredCluster, StoredTrim, trimmed};

/// What trims say of one log, and the base backups that hold against it.
#[derive(Debug, Clone, Default)]
pub(super) struct Trimmed {
    segment_size: u32,
    trims: Vec<StoredTrim>,
    bases: Vec<PostgresBackup>,
}

impl Trimmed {
    /// Reads trims, and, if there are any, the snapshots of base backups.
    pub(super) async fn of(
        repo: &Repository,
        (cluster, history): (&StoredCluster, &History),
    ) -> Result<Self, Error> {
        let trims = repo.trims_of(cluster.id, history.number).await?;
        let mut bases = Vec::new();
        if !trims.is_empty() {
            let found = list(repo, &SnapshotFilter::default()).await?.snapshots;
            let all = found.into_iter().filter_map(|info| info.snapshot.postgres);
            bases.extend(all.filter(|base| (base.cluster, base.history) == (cluster.id, history.number)));
        }
        Ok(Self { segment_size: history.segment_size, trims, bases })
    }

    /// The position up to which a timeline may be gone.
    pub(super) fn below(&self, timeline: u32) -> Option<u64> {
        trimmed(&self.trims, timeline)
    }

    /// Whether all segments between these two were removed in good order.
    pub(super) fn between(&self, last: SegmentName, next: SegmentName) -> bool {
        let size = u64::from(self.segment_size.max(1));
        let (Some(_), Some(end)) = (last.start(self.segment_size), next.start(self.segment_size)) else {
            return false;
        };
        let before = |base: &PostgresBackup| end <= base.start / size * size;
        let covered = self.below(next.timeline).is_some_and(|below| end <= below);
        covered && self.bases.iter().all(before)
    }
}

/// Pairs of segments between which others are missing that were not removed in good order. A key that cannot see base backups takes all
/// that a trim covers for that.
pub(in crate::ops) async fn missing_segments(
    repo: &Repository,
    (cluster, history): (&StoredCluster, &History),
    segments: BTreeMap<u32, Vec<SegmentName>>,
) -> Result<Vec<(SegmentName, SegmentName)>, Error> {
    let trimmed = Trimmed::of(repo, (cluster, history)).await?;
    let mut missing = Vec::new();
    for mut names in segments.into_values() {
        names.sort_unstable();
        let found = ranges(&names, history.segment_size);
        let pairs = found.windows(2).map(|pair| (pair[0].last, pair[1].first));
        missing.extend(pairs.filter(|(last, next)| !trimmed.between(*last, *next)));
    }
    Ok(missing)
}
