//! Taking tombs back.
//!
//! # Invariants
//! The undo is put first; removals and snapshots are listed after it. A collector says what it removes before it looks for
//! undos, so one of the two sees the other.

use std::collections::HashSet;

use futures::StreamExt;

use super::snapshots::Selector;
use crate::error::Error;
use crate::id::{ObjectHash, SnapshotId};
use crate::repo::Repository;

/// What became of the snapshots that were named.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Undeleted {
    /// These are back.
    pub back: Vec<SnapshotId>,
    /// Nobody had forgotten these.
    pub not_forgotten: Vec<SnapshotId>,
    /// These are removed, or about to be.
    pub too_late: Vec<SnapshotId>,
}

/// Takes back every tomb that stands for these snapshots, which are named by their ids or the beginnings of them.
///
/// # Errors
/// [`Error::BadSelector`], [`Error::NoSnapshot`], [`Error::AmbiguousSnapshot`];
/// [`crate::repo::RepoError::RoleForbids`] without a maintainer's key. Being too late is no error here: look at the result.
pub async fn undelete(repo: &Repository, selectors: &[String]) -> Result<Undeleted, Error> {
    repo.maintainer()?;
    let marks = repo.read_marks().await?;
    let there: HashSet<_> = repo.list_snapshots().await?.into_iter().map(|listed| listed.id).collect();
    let known: HashSet<_> =
        there.iter().copied().chain(marks.tomb_names.iter().map(|(snapshot, _)| *snapshot)).collect();
    let mut done = Undeleted::default();
    let (mut seen, mut undos) = (HashSet::new(), Vec::new());
    for selector in selectors {
        let snapshot = find(&known, selector)?;
        if !seen.insert(snapshot) {
            continue;
        }
        if !there.contains(&snapshot) {
            done.too_late.push(snapshot);
            continue;
        }
        let tombs =
            marks.tomb_names.iter().filter(|(of, hash)| *of == snapshot && !marks.undone.contains(hash));
        let tombs: Vec<ObjectHash> = tombs.map(|(_, hash)| *hash).collect();
        if tombs.is_empty() {
            done.not_forgotten.push(snapshot);
            continue;
        }
        undos.push((snapshot, tombs));
    }
    // One undo for each snapshot: of those that come too late none takes part in another.
    let mut puts = futures::stream::iter(undos)
        .map(|(snapshot, tombs)| async move { repo.put_undo(tombs).await.map(|_| snapshot) })
        .buffered(repo.env().limits.requests.max(1));
    while let Some(snapshot) = puts.next().await {
        done.back.push(snapshot?);
    }
    drop(puts);
    // The undo of one that is lost stays: the collector may have met it all the same.
    let lost = repo.lost_to_removal(&done.back).await?;
    done.back.retain(|snapshot| !lost.contains(snapshot));
    done.too_late.extend(lost);
    done.too_late.sort_unstable();
    Ok(done)
}

fn find(known: &HashSet<SnapshotId>, selector: &str) -> Result<SnapshotId, Error> {
    let Some(Selector::Id(prefix)) = Selector::parse(selector) else {
        return Err(Error::BadSelector { selector: selector.to_owned() });
    };
    let matching: Vec<_> = known.iter().filter(|id| id.to_string().starts_with(&prefix)).collect();
    match matching[..] {
        [] => Err(Error::NoSnapshot { selector: selector.to_owned() }),
        [snapshot] => Ok(*snapshot),
        _ => Err(Error::AmbiguousSnapshot { selector: selector.to_owned(), count: matching.len() }),
    }
}
