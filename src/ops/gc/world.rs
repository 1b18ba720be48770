//! What a collector sees: listings in the order that `docs/protocol.md` demands, every snapshot read, everything reachable
//! marked.
//!
//! # Invariants
//! Snapshots are listed first, then condemnations, then index objects, then packs: a pack that is counted on was listed
//! after all that condemned it and could be seen. A snapshot that was there before and is gone without a removal, or
//! anything of a confirmed one that cannot be read, ends the collection. One that this machine has seen confirmed is
//! confirmed, whatever became of the object that said so.

use std::collections::{BTreeSet, HashMap, HashSet};

use futures::{StreamExt, TryStreamExt};

use super::reach::{Broken, Live, Reach, is_sealed_to_others};
use crate::class::Class;
use crate::clock::Timestamp;
use crate::error::Error;
use crate::event::Event;
use crate::format::layout::{self, ObjectName};
use crate::format::postgres::PostgresBackup;
use crate::format::tree::TreeRef;
use crate::id::{ClusterId, ObjectHash, PackId, SnapshotId, WriterId};
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

/// Fails unless what this run just put counts: its own key may be revoked while it works. To be asked after something was put and
/// before what it replaces is deleted. If no entry shows then, the put came before the first one, and so it is in the list.
pub(super) async fn still_counts(repo: &Repository) -> Result<(), Error> {
    repo.still_counts().await?;
    repo.intact_registry()?;
    repo.maintainer()?;
    Ok(())
}

/// One look at the repository.
pub(super) struct World {
    pub(super) snapshots: Vec<Listed>,
    pub(super) condemnations: Vec<StoredCondemnation>,
    pub(super) index: LoadedIndex,
    pub(super) index_times: Vec<((WriterId, ObjectHash), Timestamp)>,
    pub(super) packs: HashMap<PackId, ListedPack>,
    pub(super) live: LiveSet,
    /// Base backups among the snapshots.
    pub(super) bases: Vec<(Listed, BaseRange)>,
}

/// What a snapshot says of a base backup, as far as its log is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BaseRange {
    pub(super) cluster: ClusterId,
    pub(super) history: u64,
    pub(super) system: u64,
    pub(super) segment_size: u32,
    pub(super) timeline: u32,
    pub(super) start: u64,
    pub(super) stop: u64,
}

impl From<&PostgresBackup> for BaseRange {
    fn from(base: &PostgresBackup) -> Self {
        let PostgresBackup { cluster, history, system, segment_size, timeline, start, stop, .. } = *base;
        Self { cluster, history, system, segment_size, timeline, start, stop }
    }
}

/// A snapshot to mark from.
pub(super) struct Root {
    pub(super) listed: Listed,
    pub(super) tree: Option<TreeRef>,
    pub(super) base: Option<BaseRange>,
    parents: Vec<SnapshotId>,
}

impl World {
    /// Packs that anyone condemned.
    pub(super) fn condemned(&self) -> HashSet<PackId> {
        let said = self.condemnations.iter().flat_map(|stored| stored.condemnation.packs.iter().copied());
        said.chain(self.index.condemned.iter().copied()).collect()
    }
}

/// Looks; those `accepted` may be missing. What is confirmed is remembered for the next collection on this machine if this
/// one is to `learn`.
pub(super) async fn look(
    repo: &Repository,
    accepted: &HashSet<SnapshotId>,
    learn: bool,
) -> Result<World, Error> {
    loop {
        let version = repo.registry_version();
        let looked = look_once(repo, accepted, learn).await;
        repo.refresh_registry().await?;
        // After everything was read: whoever revokes a writer lists what still counts later than this, if this does not show it.
        repo.reread_registry().await?;
        repo.intact_registry()?;
        if repo.registry_version() == version {
            return looked;
        }
        // What a writer signed who was registered since must not look forged, nor what one signed who was revoked look good. Each
        // time the root key has signed something, so this ends.
    }
}

async fn look_once(repo: &Repository, accepted: &HashSet<SnapshotId>, learn: bool) -> Result<World, Error> {
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
        // What cannot be had may be an index object, or a condemnation: without it a chunk would look dead, or a doomed copy
        // good. What nobody entitled has signed is passed over.
        if problem.is_damage() {
            return Err(problem.error.into());
        }
        warn(repo, &format!("object {} was skipped: {}", problem.key, problem.error));
    }
    let roots = read_roots(repo, &snapshots).await?;
    check_heads(repo, (&seen, accepted), (&snapshots, &roots)).await?;
    if learn {
        remember(repo, &seen, (&snapshots, &roots)).await?;
    }
    let mut reach = Reach::new(repo, index.view.clone(), Live::new(index.view.clone()))?;
    for root in &roots.read {
        let mut broken = reach.snapshot(root.tree).await?;
        if broken.count > 0 {
            // Once more, with nothing that was kept: one bad read must make nothing look dead.
            reach.read_anew(index.view.clone())?;
            broken = reach.snapshot(root.tree).await?;
        }
        judge(repo, &root.listed, (&seen, broken)).await?;
    }
    let bases = roots.read.iter().filter_map(|root| Some((root.listed, root.base?))).collect();
    Ok(World { snapshots, condemnations, index, index_times, packs, live: reach.marker.set, bases })
}

pub(super) fn warn(repo: &Repository, message: &str) {
    repo.env().observer.observe(&Event::Warning { message });
}

/// When the store got each index object, and whose it is.
async fn list_index(repo: &Repository) -> Result<Vec<((WriterId, ObjectHash), Timestamp)>, Error> {
    let listed = repo.store().list(layout::INDEX).await?;
    let named = listed.into_iter().filter_map(|object| match ObjectName::parse(object.key.as_str())? {
        // Who is revoked is at work no more.
        name @ ObjectName::Index(writer, hash) if repo.accepts(&writer, &name) => {
            Some(((writer, hash), object.modified))
        }
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

/// What the snapshots of a listing turned out to be.
pub(super) struct Roots {
    /// Those that could be read.
    pub(super) read: Vec<Root>,
    /// Those that could not, and that nobody confirmed.
    pub(super) unread: Vec<SnapshotId>,
    /// Those that are not there any more.
    gone: Vec<SnapshotId>,
}

enum Read {
    Root(Root),
    Unread(SnapshotId, RepoError),
    Gone(SnapshotId),
}

/// Reads every snapshot. What no writer signed is skipped; a confirmed one that is damaged ends the collection.
pub(super) async fn read_roots(repo: &Repository, snapshots: &[Listed]) -> Result<Roots, Error> {
    let reads = futures::stream::iter(snapshots.iter().copied())
        .map(|listed| async move { read_root(repo, listed).await })
        .buffered(repo.env().limits.requests.max(1));
    let mut roots = Roots { read: Vec::new(), unread: Vec::new(), gone: Vec::new() };
    for read in reads.try_collect::<Vec<_>>().await? {
        match read {
            Read::Root(root) => roots.read.push(root),
            Read::Gone(id) => roots.gone.push(id),
            Read::Unread(id, error) => {
                warn(repo, &format!("snapshot {} was skipped: {error}", id.short()));
                // What was taken from its writer is not lost, also if this machine had seen it confirmed.
                if !matches!(error, RepoError::AfterRevocation { .. }) {
                    roots.unread.push(id);
                }
            }
        }
    }
    Ok(roots)
}

async fn read_root(repo: &Repository, listed: Listed) -> Result<Read, Error> {
    let error = match repo.read_snapshot(listed).await {
        Ok(StoredSnapshot { snapshot, .. }) => {
            let base = snapshot.postgres.as_ref().map(BaseRange::from);
            return Ok(Read::Root(Root { listed, tree: snapshot.root, base, parents: snapshot.parents }));
        }
        Err(RepoError::Store(error)) if error.is_not_found() => {
            return match repo.is_listed(listed.name()).await? {
                // Neither removed nor to be had: what it needs must not look dead.
                true => Err(error.into()),
                false => Ok(Read::Gone(listed.id)),
            };
        }
        Err(
            error @ (RepoError::Store(_)
            | RepoError::RoleForbids { .. }
            | RepoError::StaleKey
            | RepoError::Cancelled),
        ) => {
            return Err(error.into());
        }
        // It may be confirmed a moment later.
        Err(error) if is_sealed_to_others(&error) => return Err(error.into()),
        Err(error) => error,
    };
    let forged = matches!(error, RepoError::BadSignature { .. } | RepoError::AfterRevocation { .. });
    // Asked anew: it may have been confirmed since it was listed.
    if !forged && repo.is_confirmed(listed).await? {
        return Err(error.into());
    }
    Ok(Read::Unread(listed.id, error))
}

/// Every snapshot that another one follows, and every one that was seen before, must be there or be removed by a maintainer:
/// a listing that leaves something out must never make it garbage. One that was seen confirmed must be read as well: if its
/// writer is not known any more, that is damage of the registry and no forgery.
async fn check_heads(
    repo: &Repository,
    (seen, accepted): (&SeenSnapshots, &HashSet<SnapshotId>),
    (snapshots, roots): (&[Listed], &Roots),
) -> Result<(), Error> {
    let missing = unexplained(repo, seen, (snapshots, roots)).await?;
    if let Some(snapshot) = missing.iter().find(|id| !accepted.contains(id)) {
        return Err(Error::SnapshotVanished { snapshot: *snapshot });
    }
    let read: HashSet<&SnapshotId> = roots.read.iter().map(|root| &root.listed.id).collect();
    let lost = roots.unread.iter().filter(|id| seen.contains(id) && !read.contains(id)).copied();
    // Anyone may put garbage under the name of one that was removed.
    match repo.not_removed(lost).await?.first() {
        Some(id) => Err(Error::SnapshotUnreadable { snapshot: *id }),
        None => Ok(()),
    }
}

/// Snapshots that ought to be there, are not, and that no removal names.
async fn unexplained(
    repo: &Repository,
    seen: &SeenSnapshots,
    (snapshots, roots): (&[Listed], &Roots),
) -> Result<BTreeSet<SnapshotId>, Error> {
    let listed: HashSet<&SnapshotId> = snapshots.iter().map(|listed| &listed.id).collect();
    let followed = roots.read.iter().flat_map(|root| root.parents.iter());
    let unlisted = followed.chain(seen.ids()).filter(|id| !listed.contains(id));
    // Asked after the listing: what another collector deleted before it was named before that.
    Ok(repo.not_removed(unlisted.chain(&roots.gone).copied()).await?)
}

/// Notes what a later collection on this machine must find: what is confirmed by now. One that is not may not be durable
/// yet: a power cut may take it away, and nobody is to wonder then. Only what was removed is missed no more.
async fn remember(
    repo: &Repository,
    seen: &SeenSnapshots,
    (snapshots, roots): (&[Listed], &Roots),
) -> Result<(), Error> {
    let listed: HashSet<&SnapshotId> = snapshots.iter().map(|listed| &listed.id).collect();
    let removed: Vec<SnapshotId> = seen.ids().filter(|id| !listed.contains(id)).copied().collect();
    let roots = roots.read.iter().map(|root| root.listed);
    let checks = futures::stream::iter(roots.filter(|root| root.confirmed && !seen.contains(&root.id)))
        .map(|listed| async move { Ok::<_, RepoError>(repo.is_confirmed(listed).await?.then_some(listed)) })
        .buffered(repo.env().limits.requests.max(1));
    let new: Vec<Listed> = checks.try_collect::<Vec<_>>().await?.into_iter().flatten().collect();
    if let Err(error) = SeenSnapshots::update(repo, &removed, &new) {
        warn(repo, &format!("the next collection cannot compare its listing with this one: {error}"));
    }
    Ok(())
}

/// Snapshots that are gone and that nobody removed.
pub(super) async fn vanished(repo: &Repository) -> Result<Vec<SnapshotId>, Error> {
    let seen = SeenSnapshots::load(repo)?;
    let snapshots = repo.list_snapshots().await?;
    let roots = read_roots(repo, &snapshots).await?;
    Ok(unexplained(repo, &seen, (&snapshots, &roots)).await?.into_iter().collect())
}

/// What could not be reached of a confirmed snapshot ends the collection; an unconfirmed one never promised anything, unless it only
/// is this key that does not open what is there.
async fn judge(
    repo: &Repository,
    listed: &Listed,
    (seen, broken): (&SeenSnapshots, Broken),
) -> Result<(), Error> {
    let Some(first) = broken.first else { return Ok(()) };
    // Asked anew: it may have been confirmed since it was listed.
    if broken.sealed_to_others || seen.contains(&listed.id) || repo.is_confirmed(*listed).await? {
        return Err(first);
    }
    let (id, count) = (listed.id.short(), broken.count);
    warn(repo, &format!("{count} chunks of the unconfirmed snapshot {id} are missing: {first}"));
    Ok(())
}

/// Whether a failure may come from another collector's work between two listings: looking again may help.
pub(super) fn may_have_moved(error: &Error) -> bool {
    crate::ops::tree::may_have_moved(error)
        || crate::ops::tree::is_cache_damage(error)
        || matches!(error, Error::Repo(RepoError::Index(_)))
        || error.class() == Class::Failed && matches!(error, Error::Store(_))
}
