//! What others said of snapshots: labels, tombs, confirmations.

use std::collections::{HashMap, HashSet};

use futures::{StreamExt, TryStreamExt};

use super::cache::BodyCache;
use super::{SnapshotInfo, SnapshotList, is_fatal};
use crate::error::Error;
use crate::format::layout::ObjectName;
use crate::id::{ObjectHash, SnapshotId, WriterId};
use crate::repo::{Listed, RepoError, Repository, StoredLabels, StoredTomb};

/// What was said of some snapshots.
pub(super) struct Said {
    labels: HashMap<SnapshotId, StoredLabels>,
    tombs: HashMap<SnapshotId, StoredTomb>,
    /// The names of all labels there are of these snapshots.
    names: Vec<ObjectHash>,
    unreadable: Vec<(String, Error)>,
}

/// Gives each snapshot found its tags and its tomb, and writes the cache.
pub(super) async fn apply(
    repo: &Repository,
    found: &mut SnapshotList,
    cache: &mut BodyCache,
) -> Result<(), Error> {
    let writers = found.snapshots.iter().map(|info| (info.id, info.writer)).collect();
    let names = read(repo, &writers, cache).await?.give(repo, found);
    let listed: Vec<_> = found.snapshots.iter().map(SnapshotInfo::listed).collect();
    cache.save(Some((&listed, &names)));
    Ok(())
}

/// Reads what was said of these snapshots, each with its writer.
pub(super) async fn read(
    repo: &Repository,
    writers: &HashMap<SnapshotId, WriterId>,
    cache: &mut BodyCache,
) -> Result<Said, Error> {
    let snapshots: HashSet<_> = writers.keys().copied().collect();
    let tombs = async { Ok(repo.standing_tombs(&snapshots).await?) };
    let (mut said, tombs) = repo.env().limits.both(read_labels(repo, writers, cache), tombs).await?;
    said.tombs = tombs;
    Ok(said)
}

impl Said {
    /// Gives the snapshots their tags and tombs; returns the names of their labels.
    pub(super) fn give(mut self, repo: &Repository, found: &mut SnapshotList) -> Vec<ObjectHash> {
        for info in &mut found.snapshots {
            if let Some(labels) = self.labels.remove(&info.id) {
                info.labels = Some(repo.rank_labels(&labels));
                info.snapshot.tags = labels.labels.tags;
            }
            info.forgotten = self.tombs.get(&info.id).copied();
        }
        found.unreadable.append(&mut self.unreadable);
        self.names
    }
}

async fn read_labels(
    repo: &Repository,
    writers: &HashMap<SnapshotId, WriterId>,
    cache: &mut BodyCache,
) -> Result<Said, Error> {
    let mut names = Vec::new();
    // A key that opens no snapshots opens no labels.
    let labels = if super::opens(repo) { repo.list_labels().await? } else { Default::default() };
    for (snapshot, hashes) in labels {
        if writers.contains_key(&snapshot) {
            names.extend(hashes.into_iter().map(|hash| (snapshot, hash)));
        }
    }
    let listed = names.iter().map(|(_, hash)| *hash).collect();
    let mut best: HashMap<SnapshotId, StoredLabels> = HashMap::new();
    let mut take = |labels: StoredLabels| {
        let snapshot = labels.labels.snapshot;
        let counts = writers.get(&snapshot).is_some_and(|writer| repo.may_label(labels.author, *writer));
        if counts
            && best.get(&snapshot).is_none_or(|found| repo.rank_labels(found) < repo.rank_labels(&labels))
        {
            best.insert(snapshot, labels);
        }
    };
    let (mut unknown, mut unreadable) = (Vec::new(), Vec::new());
    for (snapshot, hash) in names {
        let name = ObjectName::Labels(snapshot, hash);
        let counts =
            |labels: &StoredLabels| labels.labels.snapshot == snapshot && repo.accepts(&labels.author, &name);
        match cache.labels(&hash).filter(counts) {
            Some(labels) => take(labels),
            None => unknown.push(name),
        }
    }
    let mut reads = futures::stream::iter(unknown)
        .map(|name| async move { (name, repo.read_labels(name).await) })
        .buffer_unordered(repo.env().limits.requests.max(1));
    while let Some((name, read)) = reads.next().await {
        match read {
            Ok(labels) => {
                cache.add_labels(&labels);
                take(labels);
            }
            // Removed since they were listed.
            Err(RepoError::Store(error)) if error.is_not_found() => {}
            Err(error) if is_fatal(&error) => return Err(error.into()),
            Err(error) => unreadable.push((name.key(), error.into())),
        }
    }
    drop(reads);
    Ok(Said { labels: best, tombs: HashMap::new(), names: listed, unreadable })
}

/// Checks the confirmations of snapshots, and takes those that nobody entitled has signed for none. Each is fetched once:
/// what was signed stays so. One that cannot be had is an error: nobody may take its snapshot for an unconfirmed one.
pub async fn check_confirmations(repo: &Repository, snapshots: &mut [SnapshotInfo]) -> Result<(), Error> {
    let mut cache = BodyCache::open(repo);
    let mut forged = HashSet::new();
    let unknown: Vec<_> = snapshots
        .iter()
        .filter(|info| info.confirmed && !cache.is_confirmed(&info.listed()))
        .map(SnapshotInfo::listed)
        .collect();
    let mut checks = futures::stream::iter(unknown)
        .map(|listed| async move { (listed, repo.is_confirmed(listed).await) })
        .buffer_unordered(repo.env().limits.requests.max(1));
    while let Some((listed, checked)) = checks.next().await {
        if repo.env().cancel.is_raised() {
            return Err(Error::Cancelled);
        }
        match checked? {
            true => cache.add_confirmed(&listed),
            false => drop(forged.insert(listed.id)),
        }
    }
    drop(checks);
    for info in snapshots.iter_mut().filter(|info| forged.contains(&info.id)) {
        info.confirmed = false;
    }
    cache.save(None);
    Ok(())
}

/// Leaves of the snapshots that could not be read those that count: they are confirmed, and nobody forgot them.
pub(in crate::ops) async fn judge_unread(repo: &Repository, list: &mut SnapshotList) -> Result<(), Error> {
    let unread = std::mem::take(&mut list.unread);
    list.unread = counting(repo, unread).await?;
    Ok(())
}

/// Of these snapshots those that are confirmed and that nobody forgot.
pub(super) async fn counting(repo: &Repository, mut listed: Vec<Listed>) -> Result<Vec<Listed>, Error> {
    listed.retain(|listed| listed.confirmed);
    if listed.is_empty() {
        return Ok(listed);
    }
    let tombs = repo.standing_tombs(&listed.iter().map(|listed| listed.id).collect()).await?;
    listed.retain(|listed| !tombs.contains_key(&listed.id));
    let checks = futures::stream::iter(listed)
        .map(|listed| async move { Ok::<_, RepoError>(repo.is_confirmed(listed).await?.then_some(listed)) })
        .buffered(repo.env().limits.requests.max(1));
    Ok(checks.try_collect::<Vec<_>>().await?.into_iter().flatten().collect())
}
