//! Legal holds: what held snapshots need is kept by the store itself, whatever its locks say, until the hold is removed.
//!
//! A hold is a legal one if the store keeps the hold's own object so: no other note of it is needed, and nobody can take the
//! note away who may not take the legal hold away.
//!
//! # Invariants
//! A hold stands, and is marked, before the store keeps anything for it, and its mark goes last. Of what another legal hold may need
//! nothing is given up: if that cannot be found out, nothing is. What a legal hold needs that was made meanwhile is kept again before
//! the mark goes.
//!
//! # Crash
//! Some objects are kept and others not yet. Done again, the same call goes on with the same hold. Only a legal hold that was made while
//! a removal was at work, and that this did not live to see, has to be made again. Two removals at once may leave objects kept that only
//! these two needed: the removal of the last legal hold lets go of them.

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
    loop {
        let hash = match begun(repo, snapshots).await? {
            Some(hash) => hash,
            None => hold(repo, snapshots, Until::Removed, &TimeZone::UTC).await?.0,
        };
        repo.store().set_legal_hold(&mark(hash)?, true).await?;
        let needed = needed(repo, &snapshots.iter().collect::<Vec<_>>()).await?;
        let keys: Vec<Key> = needed.objects.into_iter().map(|locked| locked.key).collect();
        set(repo, &keys, true).await?;
        // One that was begun may have been on its way out: then what it needs was let go meanwhile.
        if repo.holds().await?.iter().any(|stored| stored.hash == hash) {
            let missing = needed.broken.first.map(|first| (needed.broken.count, first));
            return Ok(LegalHold { hash, objects: keys.len() as u64, missing });
        }
    }
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

/// The store keeps these objects, or keeps them no more; says how many it turned.
async fn set(repo: &Repository, keys: &[Key], on: bool) -> Result<u64, Error> {
    let requests = futures::stream::iter(keys).map(|key| async move {
        match on {
            true => repo.store().set_legal_hold(key, true).await.map(|()| true),
            false => let_go(repo, key).await,
        }
    });
    let mut requests = requests.buffer_unordered(repo.env().limits.requests.max(1));
    let mut turned = 0;
    while let Some(one) = requests.try_next().await? {
        turned += u64::from(one);
        if repo.env().cancel.is_raised() {
            return Err(Error::Cancelled);
        }
    }
    Ok(turned)
}

/// Takes the legal hold off an object, if one keeps it; says whether one did. What is gone since it was listed is hidden.
async fn let_go(repo: &Repository, key: &Key) -> Result<bool, StoreError> {
    match repo.store().has_legal_hold(key).await {
        Ok(true) => {}
        Err(error) if !error.is_not_found() => return Err(error),
        Ok(false) | Err(_) => return Ok(false),
    }
    match repo.store().set_legal_hold(key, false).await {
        Err(error) if error.is_not_found() => Ok(false),
        result => result.map(|()| true),
    }
}

/// Of these holds the legal ones, without those that are known.
async fn legal<'a>(
    repo: &Repository,
    holds: &'a [StoredHold],
    known: &HashSet<ObjectHash>,
) -> Result<Vec<&'a StoredHold>, Error> {
    let mut found = Vec::new();
    for stored in holds.iter().filter(|stored| !known.contains(&stored.hash)) {
        if is_legal(repo, stored.hash).await? {
            found.push(stored);
        }
    }
    Ok(found)
}

fn snapshots(holds: &[&StoredHold]) -> HashSet<SnapshotId> {
    holds.iter().flat_map(|stored| stored.hold.snapshots.iter().copied()).collect()
}

/// The store stops to keep what this hold needs and no other legal one of `holds`; says how many objects that are. Nothing if
/// it is no legal hold. With the last one everything goes, also what it does not need any more, or an earlier one left.
pub(super) async fn release(
    repo: &Repository,
    meant: &StoredHold,
    holds: &[StoredHold],
) -> Result<u64, Error> {
    if !is_legal(repo, meant.hash).await? {
        return Ok(0);
    }
    let mut known = HashSet::from([meant.hash]);
    let others = legal(repo, holds, &known).await?;
    known.extend(others.iter().map(|other| other.hash));
    let released = match others.is_empty() {
        true => release_all(repo).await?,
        false => {
            // What the others need is looked for last: what a collection stored meanwhile is not released then.
            let (mine, _) = objects(repo, &snapshots(&[meant])).await?;
            let (theirs, lacking) = objects(repo, &snapshots(&others)).await?;
            lacking.map_or(Ok(()), Err)?;
            set(repo, &mine.difference(&theirs).cloned().collect::<Vec<_>>(), false).await?
        }
    };
    // Whoever makes a legal hold marks it before anything is kept for it: if it does not show here, all of that comes later than
    // what was released.
    let holds = repo.holds().await?;
    let late = legal(repo, &holds, &known).await?;
    if !late.is_empty() {
        let (theirs, lacking) = objects(repo, &snapshots(&late)).await?;
        set(repo, &theirs.into_iter().collect::<Vec<_>>(), true).await?;
        lacking.map_or(Ok(()), Err)?;
    }
    repo.store().set_legal_hold(&mark(meant.hash)?, false).await?;
    Ok(released)
}

/// The store stops to keep whatever a legal hold may need; says how many objects that are.
async fn release_all(repo: &Repository) -> Result<u64, Error> {
    let mut released = 0;
    for prefix in LOCKED_ANEW {
        let there = repo.store().list(prefix).await?;
        let keys: Vec<Key> = there.into_iter().map(|object| object.key).collect();
        released += set(repo, &keys, false).await?;
        // What was replaced or deleted since is below a mark.
        for hidden in repo.store().hidden(prefix).await? {
            released += u64::from(repo.store().release_hidden(&hidden).await?);
        }
    }
    Ok(released)
}

/// What these snapshots need of what is there; and an error if one of them cannot be read, or lacks something.
async fn objects(
    repo: &Repository,
    ids: &HashSet<SnapshotId>,
) -> Result<(HashSet<Key>, Option<Error>), Error> {
    let found = list(repo, &SnapshotFilter::default()).await?;
    let unread = found.unread.iter().find(|listed| ids.contains(&listed.id)).map(|listed| {
        let name = listed.name().key();
        let error = found.unreadable.into_iter().find(|(key, _)| *key == name).map(|(_, error)| error);
        error.unwrap_or_else(|| Error::NoSnapshot { selector: listed.id.to_string() })
    });
    let infos: Vec<&SnapshotInfo> = found.snapshots.iter().filter(|info| ids.contains(&info.id)).collect();
    let needed = needed(repo, &infos).await?;
    let keys = needed.objects.into_iter().map(|locked| locked.key).collect();
    Ok((keys, unread.or(needed.broken.first)))
}
