//! How long the store keeps what confirmed snapshots need.
//!
//! A listing says when an object was stored, and so when its lock ends at the earliest. Which one is the first is found by
//! asking for those that could be it, and for no others.

use std::collections::{BTreeMap, HashSet};

use futures::{StreamExt, TryStreamExt};

use super::gc::reach::{Broken, Live, Reach};
use super::snapshots::{SnapshotFilter, SnapshotInfo, list};
use crate::clock::{Timestamp, later};
use crate::database::lsn::segments;
use crate::error::Error;
use crate::format::layout::ObjectName;
use crate::format::log::{LogFile, LogName};
use crate::format::postgres::PostgresBackup;
use crate::id::{PackId, SnapshotId};
use crate::postgres::Lsn;
use crate::repo::{Locked, Repository};
use crate::store::{Key, StoreError};

/// Most objects that are asked for.
const ASKED_MAX: usize = 4096;

/// What locks protect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Protection {
    /// Confirmed snapshots that were stored within the time of a lock.
    pub snapshots: usize,
    /// Confirmed ones that are older: what only they need may be locked no more.
    pub older: usize,
    /// When the first object that one of the former needs can be deleted; `None` if there are none of them.
    pub first: Option<Timestamp>,
    /// Whether that is known, or only that it is not earlier.
    pub exact: bool,
}

/// Finds out how long the store keeps what confirmed snapshots need; `None` if it locks nothing.
///
/// # Errors
/// What the store says; [`crate::repo::RepoError::RoleForbids`] with a key that may not see what a snapshot needs.
pub async fn protection(repo: &Repository) -> Result<Option<Protection>, Error> {
    let Some(lock) = repo.store().lock() else { return Ok(None) };
    let now = repo.env().clock.now();
    let found = list(repo, &SnapshotFilter::default()).await?;
    let confirmed: Vec<_> = found.snapshots.iter().filter(|info| info.confirmed).collect();
    let recent: Vec<_> = confirmed.iter().filter(|info| later(info.stored, lock.period()) > now).collect();
    let (snapshots, older) = (recent.len(), confirmed.len() - recent.len());
    if recent.is_empty() {
        return Ok(Some(Protection { snapshots, older, first: None, exact: true }));
    }
    let recent: Vec<&SnapshotInfo> = recent.into_iter().copied().collect();
    let needed = needed(repo, &recent).await?;
    let (first, exact) = first_end(repo, needed.objects).await?;
    Ok(Some(Protection { snapshots, older, first, exact }))
}

/// What snapshots need.
pub(super) struct Needed {
    /// The objects, none twice.
    pub(super) objects: Vec<Locked>,
    /// What could not be reached: objects may be missing.
    pub(super) broken: Broken,
}

/// The objects that snapshots need: they themselves, packs, index objects, of base backups their own log, and what the repository is
/// opened with.
pub(super) async fn needed(repo: &Repository, snapshots: &[&SnapshotInfo]) -> Result<Needed, Error> {
    let index = repo.load_index().await?;
    let mut reach = Reach::new(repo, index.view.clone(), Live::new(index.view.clone()))?;
    let mut broken = Broken::default();
    for info in snapshots {
        let found = reach.snapshot(info.snapshot.root).await?;
        broken.count += found.count;
        broken.first = broken.first.or(found.first);
    }
    let live = reach.marker.set;
    let mut packs: HashSet<PackId> = HashSet::new();
    for pack in index.view.packs() {
        let (number, row) = pack?;
        if live.usage(number).chunks > 0 {
            packs.insert(row.id);
        }
    }
    let ids: HashSet<SnapshotId> = snapshots.iter().map(|info| info.id).collect();
    let mut objects = repo.locked(&packs, &ids).await?;
    objects.extend(logs(repo, snapshots).await?);
    Ok(Needed { objects, broken })
}

/// The files of logs without which base backups among these cannot be opened, none twice: their own segments, and the histories of
/// timelines.
async fn logs(repo: &Repository, snapshots: &[&SnapshotInfo]) -> Result<Vec<Locked>, Error> {
    let Some(lock) = repo.store().lock() else { return Ok(Vec::new()) };
    let mut found = BTreeMap::new();
    for base in snapshots.iter().filter_map(|info| info.snapshot.postgres.as_ref()) {
        for prefix in [
            LogName::timelines_prefix(base.cluster, base.history),
            LogName::timeline_prefix(base.cluster, base.history, base.timeline),
        ] {
            for listed in
                repo.list_logs(&prefix).await?.into_iter().filter(|listed| is_own(base, listed.name.file))
            {
                let key = Key::new(ObjectName::Log(listed.name).key()).map_err(StoreError::from)?;
                found.insert(key, later(listed.stored, lock.period()));
            }
        }
    }
    Ok(found.into_iter().map(|(key, end)| Locked { key, end }).collect())
}

fn is_own(base: &PostgresBackup, file: LogFile) -> bool {
    let size = base.segment_size;
    match file {
        LogFile::Segment(name) => {
            let own = segments(Lsn(base.start), Lsn(base.stop), size);
            name.timeline == base.timeline && name.number(size).is_some_and(|number| own.contains(&number))
        }
        LogFile::History(_) => true,
        LogFile::Partial(_) | LogFile::Backup(..) => false,
    }
}

/// The first end of these locks, and whether it is known: those that could be the first are asked for, the earliest first.
async fn first_end(repo: &Repository, mut locked: Vec<Locked>) -> Result<(Option<Timestamp>, bool), Error> {
    locked.sort_unstable_by_key(|locked| locked.end);
    let at_once = repo.env().limits.requests.max(1);
    let mut first: Option<Timestamp> = None;
    for (number, part) in locked.chunks(at_once).enumerate() {
        if first.is_some_and(|first| part[0].end >= first) {
            break;
        }
        if number * at_once >= ASKED_MAX {
            return Ok((Some(part[0].end), false));
        }
        let asked = futures::stream::iter(part).map(|locked| repo.store().locked_until(&locked.key));
        let ends: Vec<Option<Timestamp>> = asked.buffer_unordered(at_once).try_collect().await?;
        // One that is not locked at all can go now.
        let end = ends.into_iter().map(|end| end.unwrap_or(Timestamp(i64::MIN))).min();
        first = first.into_iter().chain(end).min();
    }
    Ok((first, true))
}

/// Whether the name is one that a collection may delete for good when its lock is over; of snapshots only those that were
/// removed, and not merely hidden by whoever may delete.
pub(super) fn may_go(name: Option<ObjectName>, removed: &HashSet<SnapshotId>) -> bool {
    match name {
        Some(ObjectName::Snapshot(_, _, id) | ObjectName::Confirmation(_, _, id)) => removed.contains(&id),
        // That of a base backup that is missing tells nobody that it was meant to go.
        Some(ObjectName::Log(_)) | None => false,
        Some(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::log::SegmentName;
    use crate::id::{ClusterId, ObjectHash, WriterId};

    #[test]
    fn a_snapshot_that_nobody_removed_is_never_given_up() {
        let id = SnapshotId::new([7; 32]);
        let writer = WriterId::new([1; 16]);
        let snapshot = Some(ObjectName::Snapshot(writer, 1, id));
        assert!(!may_go(snapshot, &HashSet::new()) && may_go(snapshot, &[id].into()));
        assert!(!may_go(Some(ObjectName::Confirmation(writer, 1, id)), &HashSet::new()));
        assert!(may_go(Some(ObjectName::Pack(ObjectHash::new([1; 32]).into())), &HashSet::new()));
        assert!(!may_go(None, &HashSet::new()));
    }

    #[test]
    fn a_base_backup_needs_its_own_segments_and_all_histories() {
        let size = 1 << 20;
        let base = PostgresBackup::sample(ClusterId::new([1; 16]), size, 2, (4 << 20) + 40..6 << 20);
        let segment = |timeline, number: u64| SegmentName::at(timeline, number << 20, size);
        let own = |number| is_own(&base, LogFile::Segment(segment(2, number)));
        assert_eq!([3, 4, 5, 6].map(own), [false, true, true, false]);
        assert!(!is_own(&base, LogFile::Segment(segment(1, 4))));
        assert!(is_own(&base, LogFile::History(3)) && !is_own(&base, LogFile::Partial(segment(2, 4))));
    }
}
