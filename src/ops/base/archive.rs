//! The archive of a cluster, as a base backup sees it: whose it is, and which segments are there.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::super::postgres::{Server, history_of};
use super::session::Facts;
use crate::error::Error;
use crate::format::cluster::History;
use crate::format::log::{LogFile, LogName, SegmentName};
use crate::id::ClusterId;
use crate::repo::{Repository, trimmed};

/// How often it is looked whether a segment has come.
const LOOK: Duration = Duration::from_millis(500);

/// The archive of one history of a cluster.
pub(super) struct Archive<'a> {
    repo: &'a Repository,
    pub cluster: ClusterId,
    pub history: u64,
    segment_size: u32,
}

impl<'a> Archive<'a> {
    /// The archive of the cluster that people call so. Its record is made if there is none.
    pub(super) async fn of(repo: &'a Repository, name: &str, facts: &Facts) -> Result<Self, Error> {
        let server = Server {
            system: facts.system,
            version: facts.major(),
            segment_size: facts.segment_size,
            page_size: facts.page_size,
        };
        let (stored, history) = history_of(repo, Some(name), server, false).await?;
        Ok(Self { repo, cluster: stored.id, history: history.number, segment_size: facts.segment_size })
    }

    /// The archive of a cluster that is known.
    pub(super) fn known(repo: &'a Repository, (cluster, history): (ClusterId, &History)) -> Self {
        Self { repo, cluster, history: history.number, segment_size: history.segment_size }
    }

    /// Waits until these segments are in the archive; gives the names of those that are not when `patience` has passed. Asks at
    /// least once.
    pub(super) async fn wait(
        &self,
        timeline: u32,
        segments: RangeInclusive<u64>,
        patience: Duration,
    ) -> Result<Vec<String>, Error> {
        let env = self.repo.env();
        let end = env.clock.monotonic().saturating_add(patience);
        let size = u64::from(self.segment_size);
        let mut lacking: Vec<SegmentName> = segments
            .map(|number| SegmentName::at(timeline, number.saturating_mul(size), self.segment_size))
            .collect();
        loop {
            while let Some(segment) = lacking.first() {
                if !self.holds(*segment).await? {
                    break;
                }
                lacking.remove(0);
            }
            if lacking.is_empty() || env.clock.monotonic() >= end {
                return Ok(lacking.iter().map(SegmentName::to_string).collect());
            }
            env.cancel.wait(&*env.clock, LOOK).await.map_err(|_| Error::Cancelled)?;
        }
    }

    /// Whether these segments are there and no trim covers one of them.
    pub(super) async fn keeps(&self, timeline: u32, segments: RangeInclusive<u64>) -> Result<bool, Error> {
        let first = segments.start().saturating_mul(self.segment_size.into());
        let trims = self.repo.trims_of(self.cluster, self.history).await?;
        let covered = trimmed(&trims, timeline).is_some_and(|below| below > first);
        Ok(!covered && self.wait(timeline, segments, Duration::ZERO).await?.is_empty())
    }

    async fn holds(&self, segment: SegmentName) -> Result<bool, Error> {
        let prefix = LogName::prefix(self.cluster, self.history, LogFile::Segment(segment));
        Ok(!self.repo.store().list(&prefix).await?.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing;

    const SIZE: u32 = 1 << 20;

    #[tokio::test(flavor = "multi_thread")]
    async fn log_that_is_missing_or_that_a_collector_is_about_to_remove_is_not_kept() {
        let base = testing::World::new();
        let repo = base.repository().await;
        let cluster = testing::put_cluster(&repo, SIZE).await;
        for number in 4..=6 {
            let file = LogFile::Segment(SegmentName::at(1, number << 20, SIZE));
            testing::put_log(&repo, (&cluster, 1), file, b"log").await;
        }
        let archive = Archive::known(&repo, (cluster.id, &cluster.cluster.histories[0]));
        assert!(archive.keeps(1, 4..=6).await.unwrap());
        assert!(!archive.keeps(1, 4..=7).await.unwrap(), "the last one is missing");
        repo.put_trim((cluster.id, 1), vec![(1, 5 << 20)]).await.unwrap();
        assert!(!archive.keeps(1, 4..=6).await.unwrap(), "the first one is covered");
        assert!(archive.keeps(1, 5..=6).await.unwrap());
    }
}
