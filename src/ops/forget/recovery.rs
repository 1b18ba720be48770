//! To which times database clusters can be brought back, by the base backups that there are and those that would be left.
//!
//! # Invariants
//! Which base backups a window needs goes by the store's clock, as all of a policy does; what is shown goes by the server's.
//! What cannot be found out of a cluster stops a plan only if that would take one of its base backups away, and nobody has allowed that.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::class::Class;
use crate::clock::Timestamp;
use crate::error::Error;
use crate::event::Event;
use crate::id::{ClusterId, SnapshotId};
use crate::ops::base::restore::reachable;
use crate::ops::postgres::{ClusterInfo, HistoryInfo, cluster_info};
use crate::ops::snapshots::SnapshotInfo;
use crate::postgres::Lsn;
use crate::repo::{Repository, StoredCluster};

/// Where a stretch of a log ends that base backups lead into: all of those that lead to the same end are of one stretch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct End {
    /// The cluster.
    pub cluster: ClusterId,
    /// Number of its history.
    pub history: u64,
    /// The timeline that recovery ends on.
    pub timeline: u32,
    /// How far the log goes without a gap.
    pub lsn: Lsn,
}

/// A base backup that can be restored, along one of the ways that lead on from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Restorable {
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// Where the log ends that leads on from it.
    pub end: End,
    /// Time of the last commit in that, as far as the archive tells; nanoseconds since 1970.
    pub last_commit: Option<i64>,
    /// Something is missing behind the end.
    pub gap: bool,
    /// When it ended, by the server's clock: it leads to no earlier time.
    pub stopped: i64,
    /// When the store got it.
    pub stored: Timestamp,
}

/// A stretch of time that a cluster can be brought back to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecoveryRange {
    /// Where its log ends.
    pub end: End,
    /// The earliest time.
    pub from: i64,
    /// Time of the last commit.
    pub last_commit: Option<i64>,
    /// Something is missing behind the end.
    pub gap: bool,
}

/// What a plan does to one cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovery {
    /// Its name.
    pub cluster: String,
    /// What it can be brought back to now, by the beginnings.
    pub before: Vec<RecoveryRange>,
    /// And without what the plan forgets.
    pub after: Vec<RecoveryRange>,
}

/// All base backups that can be restored, and the names of their clusters.
#[derive(Debug, Clone, Default)]
pub(super) struct Known {
    pub(super) bases: Vec<Restorable>,
    pub(super) names: BTreeMap<ClusterId, String>,
    /// Histories of which it is not known how their timelines hang together, and the names of their clusters.
    pub(super) unclear: HashMap<(ClusterId, u64), String>,
}

/// Of which clusters it is to be known what they can be brought back to.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    /// Those of which base backups are to be forgotten.
    pub(super) losing: HashSet<ClusterId>,
    /// All others, too: somebody looks.
    pub(super) all: bool,
    /// Base backups may be forgotten that are needed.
    pub(super) allow_shorter: bool,
}

impl Asked {
    /// Passes a failure over that stops no plan; says so.
    fn pass<T>(
        &self,
        repo: &Repository,
        of: Option<&StoredCluster>,
        error: Error,
    ) -> Result<Option<T>, Error> {
        let needed = match of {
            Some(cluster) => self.losing.contains(&cluster.id),
            None => !self.losing.is_empty(),
        };
        // What is so today and not tomorrow, and what no other cluster could be asked after either.
        let passing = matches!(error.class(), Class::Cancelled | Class::Unreachable | Class::Denied);
        if passing || needed && !self.allow_shorter {
            return Err(error);
        }
        let whose = of.map_or("database clusters".to_owned(), |stored| {
            format!("database cluster {}", stored.cluster.name)
        });
        let message = format!("what {whose} can be brought back to is not known: {error}");
        repo.env().observer.observe(&Event::Warning { message: &message });
        Ok(None)
    }

    /// What is archived of the clusters that are asked for.
    async fn clusters(&self, repo: &Repository) -> Result<Vec<ClusterInfo>, Error> {
        let clusters = match repo.clusters().await {
            Ok(clusters) => clusters,
            Err(error) => self.pass(repo, None, error.into())?.unwrap_or_default(),
        };
        let mut found = Vec::new();
        for cluster in clusters.into_iter().filter(|cluster| self.all || self.losing.contains(&cluster.id)) {
            match cluster_info(repo, cluster.clone()).await {
                Ok(info) => found.push(info),
                Err(error) => found.extend(self.pass(repo, Some(&cluster), error)?),
            }
        }
        Ok(found)
    }
}

impl Known {
    /// Finds out how far the log of each base backup among these goes.
    ///
    /// # Errors
    /// What keeps that from being known of a cluster that is to lose one, unless that is allowed; of others it is said.
    pub(super) async fn of(repo: &Repository, all: &[SnapshotInfo], asked: &Asked) -> Result<Self, Error> {
        let counts = |info: &&SnapshotInfo| info.confirmed && info.forgotten.is_none();
        let bases: Vec<_> = { all.iter().filter(counts) }
            .filter_map(|snapshot| Some((snapshot, snapshot.snapshot.postgres.as_ref()?)))
            .collect();
        let mut found = Self::default();
        if bases.is_empty() {
            return Ok(found);
        }
        for cluster in asked.clusters(repo).await? {
            let may = |snapshot: &SnapshotInfo| {
                cluster.writers.contains(&snapshot.writer) || repo.is_maintainer(&snapshot.writer)
            };
            let of = bases.iter().filter(|(snapshot, base)| base.cluster == cluster.id && may(snapshot));
            for (snapshot, base) in of {
                let mut histories = cluster.histories.iter();
                let Some(history) = histories.find(|history| history.history.number == base.history) else {
                    continue;
                };
                found.bases.extend(reachable(base, history).into_iter().map(|reached| Restorable {
                    snapshot: snapshot.id,
                    end: End {
                        cluster: cluster.id,
                        history: base.history,
                        timeline: reached.timeline,
                        lsn: reached.end,
                    },
                    last_commit: reached.last_commit,
                    gap: reached.hole,
                    stopped: base.stopped,
                    stored: snapshot.counted(),
                }));
            }
            for history in cluster.histories.iter().filter(|history| is_unclear(history)) {
                found.unclear.insert((cluster.id, history.history.number), cluster.name.clone());
            }
            found.names.insert(cluster.id, cluster.name);
        }
        Ok(found)
    }

    /// What each cluster can be brought back to, now and without these.
    pub(super) fn without(&self, dropped: &HashSet<SnapshotId>) -> Vec<Recovery> {
        let of = |id: &ClusterId, name: &String| {
            let mine: Vec<Restorable> =
                self.bases.iter().filter(|base| base.end.cluster == *id).copied().collect();
            let left: Vec<Restorable> =
                mine.iter().filter(|base| !dropped.contains(&base.snapshot)).copied().collect();
            Recovery { cluster: name.clone(), before: ranges(&mine), after: ranges(&left) }
        };
        let all = self.names.iter().map(|(id, name)| of(id, name));
        all.filter(|recovery| !recovery.before.is_empty()).collect()
    }
}

/// Whether a timeline has no origin though there is an earlier one: its history is missing, or this key does not read it.
fn is_unclear(history: &HistoryInfo) -> bool {
    let first = history.timelines.iter().map(|timeline| timeline.timeline).min();
    history.timelines.iter().any(|timeline| timeline.origin.is_none() && Some(timeline.timeline) != first)
}

/// The stretches that base backups lead into, by their beginnings.
fn ranges(bases: &[Restorable]) -> Vec<RecoveryRange> {
    let mut ranges: BTreeMap<End, RecoveryRange> = BTreeMap::new();
    for Restorable { end, last_commit, gap, stopped, .. } in bases.iter().copied() {
        let range = ranges.entry(end).or_insert(RecoveryRange { end, from: stopped, last_commit, gap });
        range.from = range.from.min(stopped);
        range.last_commit = range.last_commit.max(last_commit);
    }
    let mut ranges: Vec<RecoveryRange> = ranges.into_values().collect();
    ranges.sort_by_key(|range| (range.from, range.end));
    ranges
}

/// The base backups without which a time would be lost that the cluster can be brought back to, and that is not before `limit`: of each
/// stretch that reaches so far the newest one that is as old as the limit, or else the oldest one.
pub(super) fn needed(bases: &[Restorable], limit: Timestamp) -> HashSet<SnapshotId> {
    let mut stretches: BTreeMap<End, Vec<&Restorable>> = BTreeMap::new();
    for base in bases {
        stretches.entry(base.end).or_default().push(base);
    }
    let mut needed = HashSet::new();
    for mut stretch in stretches.into_values() {
        stretch.sort_by_key(|base| (base.stored, base.snapshot));
        // Nobody knows when an end was that goes on, or that has no commit.
        let over = stretch.iter().all(|base| base.gap && base.last_commit.is_some_and(|last| last < limit.0));
        let before = stretch.iter().rfind(|base| base.stored <= limit);
        needed.extend(before.or(stretch.first()).filter(|_| !over).map(|base| base.snapshot));
    }
    needed
}

/// Of each cluster the newest base backup that can be restored, if only `dropped` ones can.
pub(super) fn last_ones(bases: &[Restorable], dropped: &HashSet<SnapshotId>) -> HashSet<SnapshotId> {
    let mut clusters: BTreeMap<ClusterId, Vec<&Restorable>> = BTreeMap::new();
    for base in bases {
        clusters.entry(base.end.cluster).or_default().push(base);
    }
    let all_go = |bases: &Vec<&Restorable>| bases.iter().all(|base| dropped.contains(&base.snapshot));
    let newest = |bases: Vec<&Restorable>| {
        bases.into_iter().max_by_key(|base| (base.stored, base.snapshot)).map(|base| base.snapshot)
    };
    clusters.into_values().filter(all_go).filter_map(newest).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn base(number: u8, end: u64, stored: i64) -> Restorable {
        let end = End { cluster: ClusterId::new([1; 16]), history: 1, timeline: 1, lsn: Lsn(end) };
        Restorable {
            snapshot: SnapshotId::new([number; 32]),
            end,
            last_commit: Some(end.lsn.0 as i64),
            gap: end.lsn.0 < 1000,
            stopped: stored - 1,
            stored: Timestamp(stored),
        }
    }

    fn ids(found: &HashSet<SnapshotId>) -> Vec<u8> {
        let mut numbers: Vec<u8> = found.iter().map(|id| id.as_bytes()[0]).collect();
        numbers.sort_unstable();
        numbers
    }

    #[test]
    fn a_window_needs_the_base_backup_that_it_begins_with() {
        let bases = [base(1, 1000, 10), base(2, 1000, 20), base(3, 1000, 30)];
        assert_eq!(ids(&needed(&bases, Timestamp(25))), [2]);
        assert_eq!(ids(&needed(&bases, Timestamp(20))), [2]);
        assert_eq!(ids(&needed(&bases, Timestamp(5))), [1], "it reaches no further back");
        let torn = [base(1, 15, 10), base(2, 1000, 20)];
        assert_eq!(ids(&needed(&torn, Timestamp(12))), [1, 2], "behind the gap another one is needed");
        assert_eq!(ids(&needed(&torn, Timestamp(16))), [2], "what lies before the gap is older than that");
    }

    /// Somebody went back to before the second base backup: the way to the new timeline begins with the first.
    #[test]
    fn each_timeline_needs_a_base_backup_that_leads_onto_it() {
        let on = |number, timeline, end, stored| {
            let base = base(number, end, stored);
            Restorable { end: End { timeline, ..base.end }, ..base }
        };
        let bases = [on(1, 1, 1000, 10), on(1, 2, 2000, 10), on(2, 1, 1000, 20), on(3, 2, 2000, 30)];
        assert_eq!(ids(&needed(&bases, Timestamp(25))), [1, 2]);
        assert_eq!(ids(&needed(&bases, Timestamp(35))), [2, 3]);
    }

    #[test]
    fn ranges_begin_with_the_oldest_that_leads_to_the_same_end() {
        let known = Known {
            bases: vec![base(1, 1000, 10), base(2, 1000, 20), base(3, 15, 5)],
            names: BTreeMap::from([(ClusterId::new([1; 16]), "main".to_owned())]),
            unclear: HashMap::new(),
        };
        let found = known.without(&[SnapshotId::new([1; 32])].into());
        let froms = |ranges: &[RecoveryRange]| ranges.iter().map(|range| range.from).collect::<Vec<_>>();
        assert_eq!((froms(&found[0].before), froms(&found[0].after)), (vec![4, 9], vec![4, 19]));
    }

    #[test]
    fn the_newest_of_those_that_can_be_restored_is_missed_only_if_all_go() {
        let bases = [base(1, 1000, 10), base(2, 1000, 20)];
        let all: HashSet<SnapshotId> = bases.iter().map(|base| base.snapshot).collect();
        assert_eq!(ids(&last_ones(&bases, &all)), [2]);
        assert!(last_ones(&bases, &[bases[1].snapshot].into()).is_empty());
    }

    proptest! {
        /// With only those that are needed, everything since the limit that could be reached still can.
        #[test]
        fn what_is_needed_covers_the_window(
            all in prop::collection::vec((0..3_u64, 0..100_i64), 1..12),
            limit in 0..100_i64,
        ) {
            let bases: Vec<Restorable> = all
                .iter()
                .enumerate()
                .map(|(n, (end, stored))| Restorable { gap: *end < 2, ..base(n as u8, 40 * end + 30, *stored) })
                .collect();
            let kept = needed(&bases, Timestamp(limit));
            for time in limit..120 {
                let reaches = |base: &&Restorable| {
                    base.stored.0 <= time && (!base.gap || base.last_commit.unwrap() >= time)
                };
                let before = bases.iter().any(|base| reaches(&base));
                let after = bases.iter().filter(|base| kept.contains(&base.snapshot)).any(|base| reaches(&base));
                prop_assert!(!before || after, "{} {:?}", time, kept);
            }
        }
    }
}
