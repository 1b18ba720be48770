//! What a store has shown, and whether it still does: the state that this machine remembers, and anchors, which a person
//! carries to a machine that remembers nothing (`docs/protocol.md`, Anchors).
//!
//! # Invariants
//! Nothing that was removed in good order raises an alarm: what is missed is looked for in removals after it was missed. An
//! anchor never covers what the store did not show whole and confirmed when it was put.
//!
//! # Must not
//! Believe an anchor for its signature: whoever requires one knows its hash.

mod plan;
#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use futures::{StreamExt, TryStreamExt};

use self::plan::{Covered, Shown, Sight, breach};
use crate::clock::Timestamp;
use crate::error::{Error, TrustError};
use crate::event::Event;
use crate::format::anchor::{ANCHORED_MAX, Anchor};
use crate::id::{ObjectHash, SnapshotId, WriterId};
use crate::repo::{Listed, RepoError, Repository, SeenSnapshots};

/// How many anchors may build on each other: so many reads it takes to require the last one.
const CHAIN_MAX: usize = 16;
/// How many anchors are tried as the base of a new one.
const BASES: usize = 4;
/// Of how many writers the newest snapshot is looked at, and how many names of each: anyone who may put objects can put names.
const HEADS: (usize, usize) = (256, 3);

/// An anchor that was put, or was there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AnchorInfo {
    /// What a person keeps.
    pub hash: ObjectHash,
    /// How many snapshots that are there it covers.
    pub snapshots: usize,
    /// The newest of them, and when the store got it.
    pub newest: Option<(SnapshotId, Timestamp)>,
    /// Whether it was put now; nothing came since the one that was there otherwise.
    pub new: bool,
}

/// Puts an anchor over all confirmed snapshots, or finds one that covers just them.
///
/// # Errors
/// [`TrustError::RolledBack`] if this machine has seen more; [`RepoError::RoleForbids`] without a key that signs.
pub async fn anchor(repo: &Repository) -> Result<AnchorInfo, Error> {
    trusted(repo)?;
    repo.writer()?;
    let confirmed = confirmed(repo).await?;
    let newest = confirmed.iter().max_by_key(|listed| (listed.stored, listed.id));
    let newest = newest.map(|listed| (listed.id, listed.stored));
    let ids: BTreeSet<SnapshotId> = confirmed.iter().map(|listed| listed.id).collect();
    let info = |hash, new| AnchorInfo { hash, snapshots: ids.len(), newest, new };
    let base = match base(repo, &ids).await? {
        Some(base) if base.is_all(repo, &ids) => return Ok(info(base.hash, false)),
        base => base.filter(|base| base.length < CHAIN_MAX),
    };
    let known = base.as_ref().map(|base| &base.covered.snapshots);
    let new: Vec<_> =
        ids.iter().filter(|id| known.is_none_or(|known| !known.contains(id))).copied().collect();
    if new.len() > ANCHORED_MAX {
        return Err(TrustError::TooManyToAnchor { snapshots: new.len() }.into());
    }
    let hash = repo.put_anchor(new, base.map(|base| base.hash)).await?;
    Ok(info(hash, true))
}

/// An anchor that is there.
struct Base {
    hash: ObjectHash,
    covered: Covered,
    length: usize,
}

impl Base {
    /// Whether it says all that there is to say now.
    fn is_all(&self, repo: &Repository, ids: &BTreeSet<SnapshotId>) -> bool {
        let (config, writers) = repo.numbers();
        let same = self.covered.config == config && self.covered.writers == writers.into_iter().collect();
        same && ids.is_subset(&self.covered.snapshots)
    }
}

/// The newest anchor that a registered writer signed and that the store fulfils.
async fn base(repo: &Repository, ids: &BTreeSet<SnapshotId>) -> Result<Option<Base>, Error> {
    let mut anchors = repo.list_anchors().await?;
    anchors.sort_unstable_by_key(|(hash, stored)| Reverse((*stored, *hash)));
    let (config, writers) = repo.numbers();
    for (hash, _) in anchors.into_iter().take(BASES) {
        let read = async {
            repo.check_anchor(hash).await?;
            chain(repo, hash).await
        };
        let chain = match read.await {
            Ok(chain) => chain,
            Err(error) if is_of_object(&error) => continue,
            Err(error) => return Err(error.into()),
        };
        let covered = Covered::of(&chain);
        let shown = Shown {
            config,
            writers: writers.iter().copied().collect(),
            snapshots: ids.iter().map(|id| (*id, Sight::Whole)).collect(),
            removed: removed(repo, covered.snapshots.difference(ids).copied().collect()).await?,
        };
        if breach(&covered, &shown).is_none() {
            return Ok(Some(Base { hash, covered, length: chain.len() }));
        }
    }
    Ok(None)
}

/// Of these, which a maintainer named as removed.
async fn removed(repo: &Repository, gone: BTreeSet<SnapshotId>) -> Result<BTreeSet<SnapshotId>, Error> {
    if gone.is_empty() {
        return Ok(gone);
    }
    let left = repo.not_removed(gone.iter().copied()).await?;
    Ok(gone.difference(&left).copied().collect())
}

/// An anchor, and those that it builds on.
async fn chain(repo: &Repository, hash: ObjectHash) -> Result<Vec<Anchor>, RepoError> {
    let mut chain = vec![repo.read_anchor(hash).await?];
    while let Some(base) = chain.last().and_then(|anchor| anchor.base) {
        if chain.len() == CHAIN_MAX {
            let key = crate::format::layout::ObjectName::Anchor(hash).key();
            return Err(RepoError::BadSignature { key });
        }
        chain.push(repo.read_anchor(base).await?);
    }
    Ok(chain)
}

/// Whether a failure says only that this object is not to be had as its name says.
fn is_of_object(error: &RepoError) -> bool {
    match error {
        RepoError::Store(error) => error.is_not_found(),
        error => error.is_damage() || error.is_invalid(),
    }
}

/// Demands that the store shows at least what this anchor covers: each snapshot is read, and its confirmation.
///
/// # Errors
/// [`TrustError::NoAnchor`] if the store does not have it, [`TrustError::AnchorBroken`] if it shows less.
pub async fn require(repo: &Repository, hash: ObjectHash) -> Result<(), Error> {
    let chain = match chain(repo, hash).await {
        Ok(chain) => chain,
        Err(error) if is_of_object(&error) => return Err(TrustError::NoAnchor { anchor: hash }.into()),
        Err(error) => return Err(error.into()),
    };
    let covered = Covered::of(&chain);
    let mut names: HashMap<SnapshotId, Vec<Listed>> = HashMap::new();
    for listed in repo.list_snapshots().await? {
        if covered.snapshots.contains(&listed.id) {
            names.entry(listed.id).or_default().push(listed);
        }
    }
    let sights = futures::stream::iter(names)
        .map(|(id, names)| async move { Ok::<_, Error>((id, sight(repo, names).await?)) })
        .buffered(repo.env().limits.requests.max(1));
    let snapshots: BTreeMap<_, _> = sights.try_collect().await?;
    let whole = |id: &SnapshotId| !matches!(snapshots.get(id), None | Some(Sight::Changed));
    // Asked after all that: what goes is named before it does.
    let gone = covered.snapshots.iter().filter(|id| !whole(id)).copied().collect();
    let (config, writers) = repo.numbers();
    let removed = removed(repo, gone).await?;
    let shown = Shown { config, writers: writers.into_iter().collect(), snapshots, removed };
    match breach(&covered, &shown) {
        breach if breach.is_none() => Ok(()),
        breach => Err(TrustError::AnchorBroken {
            anchor: hash,
            missing: breach.missing,
            changed: breach.changed,
            older: breach.config || !breach.writers.is_empty(),
        }
        .into()),
    }
}

/// How the store shows a snapshot under one of these names: anyone may put garbage under the others.
async fn sight(repo: &Repository, names: Vec<Listed>) -> Result<Sight, Error> {
    let mut best = Sight::Changed;
    for listed in names {
        match repo.check_snapshot(listed).await {
            Ok(()) if repo.is_confirmed(listed).await? => return Ok(Sight::Whole),
            Ok(()) => {}
            Err(RepoError::AfterRevocation { .. }) => best = Sight::Refused,
            Err(error) if is_of_object(&error) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(best)
}

/// The snapshots that are there and confirmed. Those that this machine has seen so need not be read.
async fn confirmed(repo: &Repository) -> Result<Vec<Listed>, Error> {
    let listed = repo.list_snapshots().await?.into_iter();
    let checks = futures::stream::iter(listed)
        .map(|listed| async move { Ok::<_, Error>((listed, is_good(repo, listed).await?)) })
        .buffered(repo.env().limits.requests.max(1));
    let checked: Vec<(Listed, bool)> = checks.try_collect().await?;
    Ok(checked.into_iter().filter(|(_, good)| *good).map(|(listed, _)| listed).collect())
}

async fn is_good(repo: &Repository, listed: Listed) -> Result<bool, Error> {
    if !listed.confirmed || !repo.accepts(&listed.writer, &listed.name()) {
        return Ok(false);
    }
    Ok(SeenSnapshots::is_noted(repo, &listed) || sight(repo, vec![listed]).await? == Sight::Whole)
}

/// Fails if this machine has seen more than the store shows: nothing may be chosen from what it shows then.
pub fn trusted(repo: &Repository) -> Result<(), Error> {
    match repo.missed() {
        [] => Ok(()),
        missed => Err(TrustError::RolledBack { missing: missed.to_vec() }.into()),
    }
}

/// Compares what the store shows with what this machine has seen, and remembers the newest snapshot of each writer. Gives the
/// snapshots that are gone, or not confirmed any more, though nobody removed them.
pub async fn watch(repo: &Repository) -> Result<Vec<SnapshotId>, Error> {
    // Read before the listing: what a backup on this machine confirms meanwhile need not be in it.
    let seen = match SeenSnapshots::load(repo) {
        Ok(seen) => seen,
        Err(error) => {
            let message = format!("the store is not compared with what this machine has seen: {error}");
            repo.env().observer.observe(&Event::Warning { message: &message });
            return Ok(Vec::new());
        }
    };
    let listed = repo.list_snapshots().await?;
    let shown: BTreeSet<SnapshotId> =
        listed.iter().filter(|listed| listed.confirmed).map(|listed| listed.id).collect();
    let gone: BTreeSet<SnapshotId> = seen.ids().filter(|id| !shown.contains(id)).copied().collect();
    let removed = removed(repo, gone.clone()).await?;
    let new = heads(repo, &seen, listed).await?;
    let removed_ids: Vec<SnapshotId> = removed.iter().copied().collect();
    if !removed.is_empty() || !new.is_empty() {
        // What is not remembered costs a comparison, and nothing that was asked for now.
        let _ = SeenSnapshots::update(repo, &removed_ids, &new);
    }
    Ok(gone.difference(&removed).copied().collect())
}

/// The newest snapshot of each writer, if it was not seen before.
async fn heads(repo: &Repository, seen: &SeenSnapshots, listed: Vec<Listed>) -> Result<Vec<Listed>, Error> {
    let mut newest: BTreeMap<WriterId, Vec<Listed>> = BTreeMap::new();
    let known = |listed: &Listed| listed.confirmed && repo.authority(&listed.writer).is_some();
    for listed in listed.into_iter().filter(known) {
        newest.entry(listed.writer).or_default().push(listed);
    }
    let (writers, names) = HEADS;
    let heads = futures::stream::iter(newest.into_values().take(writers))
        .map(|mut of_writer| async move {
            of_writer.sort_unstable_by_key(|listed| Reverse((listed.stored, listed.sequence, listed.id)));
            for listed in of_writer.into_iter().take(names) {
                if SeenSnapshots::is_noted(repo, &listed) {
                    return Ok(None);
                }
                match sight(repo, vec![listed]).await {
                    Ok(Sight::Whole) => return Ok(Some(listed)),
                    Ok(_) => {}
                    Err(Error::Repo(RepoError::Cancelled)) => return Err(Error::Cancelled),
                    // Whether that matters, what was asked for will show.
                    Err(_) => return Ok(None),
                }
            }
            Ok::<_, Error>(None)
        })
        .buffered(repo.env().limits.requests.max(1));
    let heads: Vec<Option<Listed>> = heads.try_collect().await?;
    Ok(heads.into_iter().flatten().filter(|head| !seen.contains(&head.id)).collect())
}

/// Takes what the store shows now for all there should be, on this machine: forgets what is missed.
pub fn accept_missing(repo: &Repository, missed: &[SnapshotId]) -> Result<(), Error> {
    Ok(SeenSnapshots::update(repo, missed, &[])?)
}
