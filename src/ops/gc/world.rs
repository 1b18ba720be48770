//! What a collector sees: listings in the order that `docs/protocol.md` demands, every snapshot read, everything reachable
//! marked.
//!
//! # Invariants
//! Snapshots are listed first, then condemnations, then index objects, then packs: a pack that is counted on was listed
//! after all that condemned it and could be seen. A snapshot that was there before and is gone without a removal, or
//! anything of a confirmed one that cannot be read, ends the collection.

use std::collections::{HashMap, HashSet};

use futures::{StreamExt, TryStreamExt};

use super::reach::{Broken, Live, Reach};
use crate::class::Class;
use crate::clock::Timestamp;
use crate::error::Error;
use crate::event::Event;
use crate::format::layout::{self, ObjectName};
use crate::format::tree::TreeRef;
use crate::id::{ObjectHash, PackId, SnapshotId, WriterId};
use crate::index::LiveSet;
use crate::repo::{
    Listed, LoadedIndex, RepoError, Repository, SeenSnapshots, StoredCondemnation, StoredSnapshot,
};

/// A pack as a listing shows it.
#[derive(Debug, Clone, Copy)]
pub(super) struct ListedPack {
    pub(super) size: u64,
    pub(super) stored: Timestamp,
}

/// One look at the repository.
pub(super) struct World {
    pub(super) snapshots: Vec<Listed>,
    pub(super) condemnations: Vec<StoredCondemnation>,
    pub(super) index: LoadedIndex,
    pub(super) index_times: Vec<((WriterId, ObjectHash), Timestamp)>,
    pub(super) packs: HashMap<PackId, ListedPack>,
    pub(super) live: LiveSet,
}

/// A snapshot to mark from.
pub(super) struct Root {
    pub(super) listed: Listed,
    pub(super) tree: Option<TreeRef>,
    parents: Vec<SnapshotId>,
}

impl World {
    /// Packs that anyone condemned.
    pub(super) fn condemned(&self) -> HashSet<PackId> {
        let said = self.condemnations.iter().flat_map(|stored| stored.condemnation.packs.iter().copied());
        said.chain(self.index.condemned.iter().copied()).collect()
    }
}

/// Looks; those `accepted` may be missing.
pub(super) async fn look(repo: &Repository, accepted: &HashSet<SnapshotId>) -> Result<World, Error> {
    // Read before the listing: what a backup on this machine confirms meanwhile need not be in it.
    let seen = SeenSnapshots::load(repo)?;
    let snapshots = repo.list_snapshots().await?;
    let mut problems = Vec::new();
    let condemnations = repo.condemnations(&mut problems).await?;
    let mut index = repo.load_index().await?;
    let index_times = list_index(repo).await?;
    let packs = list_packs(repo, &index).await?;
    problems.append(&mut index.problems);
    for problem in problems {
        // Bytes that are not what their name says may have been an index object, or a condemnation: without it a chunk would
        // look dead, or a doomed copy good. What nobody entitled has signed is passed over.
        if matches!(problem.error, RepoError::HashMismatch { .. }) {
            return Err(problem.error.into());
        }
        warn(repo, &format!("object {} was skipped: {}", problem.key, problem.error));
    }
    let roots = read_roots(repo, &snapshots).await?;
    check_heads(repo, (&seen, accepted), &snapshots, &roots).await?;
    let mut reach = Reach::new(repo, index.view.clone(), Live::new(index.view.clone()))?;
    for root in &roots {
        let broken = reach.snapshot(root.tree).await?;
        judge(repo, &root.listed, broken).await?;
    }
    Ok(World { snapshots, condemnations, index, index_times, packs, live: reach.marker.set })
}

pub(super) fn warn(repo: &Repository, message: &str) {
    repo.env().observer.observe(&Event::Warning { message });
}

/// When the store got each index object, and whose it is.
async fn list_index(repo: &Repository) -> Result<Vec<((WriterId, ObjectHash), Timestamp)>, Error> {
    let listed = repo.store().list(layout::INDEX).await?;
    let named = listed.into_iter().filter_map(|object| match ObjectName::parse(object.key.as_str())? {
        ObjectName::Index(writer, hash) => Some(((writer, hash), object.modified)),
        _ => None,
    });
    Ok(named.collect())
}

/// The packs that were listed when the index was loaded, with what the listing says of them.
async fn list_packs(repo: &Repository, index: &LoadedIndex) -> Result<HashMap<PackId, ListedPack>, Error> {
    let listed = repo.store().list(layout::PACKS).await?;
    let named = listed.into_iter().filter_map(|object| match ObjectName::parse(object.key.as_str())? {
        ObjectName::Pack(id) if index.packs.contains(&id) => {
            Some((id, ListedPack { size: object.size, stored: object.modified }))
        }
        _ => None,
    });
    Ok(named.collect())
}

/// Reads every snapshot. What no writer signed is skipped; a confirmed one that is damaged ends the collection.
pub(super) async fn read_roots(repo: &Repository, snapshots: &[Listed]) -> Result<Vec<Root>, Error> {
    let reads = futures::stream::iter(snapshots.iter().copied())
        .map(|listed| async move { read_root(repo, listed).await })
        .buffered(repo.env().limits.requests.max(1));
    Ok(reads.try_collect::<Vec<_>>().await?.into_iter().flatten().collect())
}

async fn read_root(repo: &Repository, listed: Listed) -> Result<Option<Root>, Error> {
    let error = match repo.read_snapshot(listed).await {
        Ok(StoredSnapshot { snapshot, .. }) => {
            return Ok(Some(Root { listed, tree: snapshot.root, parents: snapshot.parents }));
        }
        // Removed since it was listed.
        Err(RepoError::Store(error)) if error.is_not_found() => return Ok(None),
        Err(error @ (RepoError::Store(_) | RepoError::RoleForbids { .. } | RepoError::Cancelled)) => {
            return Err(error.into());
        }
        Err(error) => error,
    };
    let forged = matches!(error, RepoError::BadSignature { .. });
    if !forged && is_confirmed(repo, &listed).await? {
        return Err(error.into());
    }
    warn(repo, &format!("snapshot {} was skipped: {error}", listed.id.short()));
    Ok(None)
}

/// Whether the snapshot's own writer has confirmed it.
async fn is_confirmed(repo: &Repository, listed: &Listed) -> Result<bool, Error> {
    if !listed.confirmed { Ok(false) } else { has_confirmation(repo, listed).await }
}

async fn has_confirmation(repo: &Repository, listed: &Listed) -> Result<bool, Error> {
    match repo.check_confirmation(*listed).await {
        Ok(()) => Ok(true),
        Err(RepoError::Store(error)) if error.is_not_found() => Ok(false),
        Err(error @ (RepoError::Store(_) | RepoError::Cancelled)) => Err(error.into()),
        Err(_) => Ok(false),
    }
}

/// Every snapshot that another one follows, and every one that was seen before, must be listed or removed by a maintainer:
/// a listing that leaves something out must never make it garbage.
async fn check_heads(
    repo: &Repository,
    (seen, accepted): (&SeenSnapshots, &HashSet<SnapshotId>),
    snapshots: &[Listed],
    roots: &[Root],
) -> Result<(), Error> {
    let listed: HashSet<SnapshotId> = snapshots.iter().map(|listed| listed.id).collect();
    let followed = roots.iter().flat_map(|root| root.parents.iter());
    let mut missing = followed.chain(seen.ids()).filter(|id| !listed.contains(id)).peekable();
    if missing.peek().is_some() {
        // Read after the listing: what another collector deleted before it was named before that.
        let marks = repo.read_marks().await?;
        if let Some(id) = missing.find(|id| !marks.removed.contains_key(id) && !accepted.contains(id)) {
            return Err(Error::SnapshotVanished { snapshot: *id });
        }
    }
    if !accepted.is_empty() {
        // Only a dry run was told that they may be missing: the next run must miss them still.
        return Ok(());
    }
    // One that is not confirmed may not be durable yet: a power cut may take it away, and nobody is to wonder then.
    let confirmed = snapshots.iter().filter(|listed| listed.confirmed).map(|listed| listed.id).collect();
    if let Err(error) = seen.replace(repo, &confirmed) {
        warn(repo, &format!("the next collection cannot compare its listing with this one: {error}"));
    }
    Ok(())
}

/// Snapshots that are gone and that nobody removed.
pub(super) async fn vanished(repo: &Repository) -> Result<Vec<SnapshotId>, Error> {
    let seen = SeenSnapshots::load(repo)?;
    let snapshots = repo.list_snapshots().await?;
    let roots = read_roots(repo, &snapshots).await?;
    let listed: HashSet<SnapshotId> = snapshots.iter().map(|listed| listed.id).collect();
    let marks = repo.read_marks().await?;
    let followed = roots.iter().flat_map(|root| root.parents.iter());
    let missing = followed.chain(seen.ids()).filter(|id| !listed.contains(id));
    let missing: HashSet<_> = missing.filter(|id| !marks.removed.contains_key(id)).copied().collect();
    Ok(missing.into_iter().collect())
}

/// What could not be reached of a confirmed snapshot ends the collection; an unconfirmed one never promised anything.
async fn judge(repo: &Repository, listed: &Listed, broken: Broken) -> Result<(), Error> {
    let Some(first) = broken.first else { return Ok(()) };
    // Asked anew: it may have been confirmed since it was listed.
    if has_confirmation(repo, listed).await? {
        return Err(first);
    }
    let (id, count) = (listed.id.short(), broken.count);
    warn(repo, &format!("{count} chunks of the unconfirmed snapshot {id} are missing: {first}"));
    Ok(())
}

/// Whether a failure may come from another collector's work between two listings: looking again may help.
pub(super) fn may_have_moved(error: &Error) -> bool {
    crate::ops::tree::may_have_moved(error)
        || matches!(error, Error::Index(crate::index::IndexError::CacheDamaged { .. }))
        || matches!(error, Error::Repo(RepoError::Index(_)))
        || error.class() == Class::Failed && matches!(error, Error::Store(_))
}
