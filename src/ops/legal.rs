//! Legal holds: what held snapshots need is kept by the store itself, whatever its locks say, until the hold is removed.
//!
//! A hold is a legal one if the store keeps the hold's own object so: no other note of it is needed, and nobody can take the
//! note away who may not take the legal hold away.
//!
//! # Invariants
//! A hold stands, and is marked, before the store keeps anything for it, and its mark goes last. Of what another legal hold may need
//! nothing is given up: if that cannot be found out, nothing is.
//!
//! # Crash
//! Some objects are kept and others not yet. Done again, the same call goes on with the same hold.

use std::collections::HashSet;

use futures::{StreamExt, TryStreamExt};
use jiff::tz::TimeZone;

use super::hold::{Until, hold};
use super::lock::needed;
use super::snapshots::{SnapshotFilter, SnapshotInfo, list};
use crate::error::Error;
use crate::format::layout::ObjectName;
use crate::format::rights::LOCKED_ANEW;
use crate::id::{ObjectHash, SnapshotId};
use crate::repo::{Repository, StoredHold};
use crate::store::{Key, StoreError};

/// A legal hold.
#[derive(Debug)]
pub struct LegalHold {
    /// Its id.
    pub hash: ObjectHash,
    /// How many objects the store keeps for it.
    pub objects: u64,
    /// What the snapshots need and could not be found, so that nothing keeps it: how much, and the first of it.
    pub missing: Option<(u64, Error)>,
}

fn mark(hash: ObjectHash) -> Result<Key, StoreError> {
    Ok(Key::new(ObjectName::Hold(hash).key())?)
}

/// Whether the store keeps what a hold names.
pub(super) async fn is_legal(repo: &Repository, hash: ObjectHash) -> Result<bool, Error> {
    Ok(repo.store().lock().is_some() && repo.store().has_legal_hold(&mark(hash)?).await?)
}

/// Holds these snapshots, and has the store keep what they need. One that was begun for just these snapshots is gone on with.
///
/// # Errors
/// [`Error::NoLegalHold`] where the store locks nothing; as [`hold`]; what the store says.
pub async fn hold_legally(repo: &Repository, snapshots: &[SnapshotInfo]) -> Result<LegalHold, Error> {
    repo.maintainer()?;
    if repo.store().lock().is_none() {
        return Err(Error::NoLegalHold);
    }
    let hash = match begun(repo, snapshots).await? {
        Some(hash) => hash,
        None => hold(repo, snapshots, Until::Removed, &TimeZone::UTC).await?.0,
    };
    repo.store().set_legal_hold(&mark(hash)?, true).await?;
    let needed = needed(repo, &snapshots.iter().collect::<Vec<_>>()).await?;
    let keys: Vec<Key> = needed.objects.into_iter().map(|locked| locked.key).collect();
    set(repo, &keys, true).await?;
    let missing = needed.broken.first.map(|first| (needed.broken.count, first));
    Ok(LegalHold { hash, objects: keys.len() as u64, missing })
}

/// A legal hold on just these snapshots.
async fn begun(repo: &Repository, snapshots: &[SnapshotInfo]) -> Result<Option<ObjectHash>, Error> {
    let wanted: HashSet<SnapshotId> = snapshots.iter().map(|info| info.id).collect();
    for stored in repo.holds().await? {
        let ids: HashSet<SnapshotId> = stored.hold.snapshots.iter().copied().collect();
        if stored.hold.until.is_none() && ids == wanted && is_legal(repo, stored.hash).await? {
            return Ok(Some(stored.hash));
        }
    }
    Ok(None)
}

async fn set(repo: &Repository, keys: &[Key], on: bool) -> Result<(), Error> {
    let requests = futures::stream::iter(keys).map(|key| repo.store().set_legal_hold(key, on));
    let mut requests = requests.buffer_unordered(repo.env().limits.requests.max(1));
    while requests.try_next().await?.is_some() {
        if repo.env().cancel.is_raised() {
            return Err(Error::Cancelled);
        }
    }
    Ok(())
}

/// The store stops to keep what this hold needs and no other legal one of `holds`; says how many objects that are. Nothing if
/// it is no legal hold.
pub(super) async fn release(
    repo: &Repository,
    meant: &StoredHold,
    holds: &[StoredHold],
) -> Result<u64, Error> {
    if !is_legal(repo, meant.hash).await? {
        return Ok(0);
    }
    let mut others: HashSet<SnapshotId> = HashSet::new();
    for other in holds.iter().filter(|other| other.hash != meant.hash) {
        if is_legal(repo, other.hash).await? {
            others.extend(&other.hold.snapshots);
        }
    }
    let mine: HashSet<SnapshotId> = meant.hold.snapshots.iter().copied().collect();
    let mut keys = objects(repo, &mine, false).await?;
    if !others.is_empty() {
        let theirs = objects(repo, &others, true).await?;
        keys.retain(|key| !theirs.contains(key));
    }
    set(repo, &keys.iter().cloned().collect::<Vec<_>>(), false).await?;
    let mut released = keys.len() as u64;
    if others.is_empty() {
        // What was replaced or deleted since is below a mark, and no hold needs it any more.
        for prefix in LOCKED_ANEW {
            for hidden in repo.store().hidden(prefix).await? {
                released += u64::from(repo.store().release_hidden(&hidden).await?);
            }
        }
    }
    repo.store().set_legal_hold(&mark(meant.hash)?, false).await?;
    Ok(released)
}

/// What these snapshots need of what is there. With `all`, one that cannot be read, or lacks something, is an error.
async fn objects(repo: &Repository, ids: &HashSet<SnapshotId>, all: bool) -> Result<HashSet<Key>, Error> {
    let found = list(repo, &SnapshotFilter::default()).await?;
    let unread = found.unread.iter().find(|listed| ids.contains(&listed.id));
    if let Some(listed) = unread.filter(|_| all) {
        let name = listed.name().key();
        let error = found.unreadable.into_iter().find(|(key, _)| *key == name).map(|(_, error)| error);
        return Err(error.unwrap_or_else(|| Error::NoSnapshot { selector: listed.id.to_string() }));
    }
    let infos: Vec<&SnapshotInfo> = found.snapshots.iter().filter(|info| ids.contains(&info.id)).collect();
    let needed = needed(repo, &infos).await?;
    match needed.broken.first {
        Some(error) if all => Err(error),
        _ => Ok(needed.objects.into_iter().map(|locked| locked.key).collect()),
    }
}
