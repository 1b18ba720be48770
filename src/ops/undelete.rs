//! Taking tombs back.
//!
//! # Invariants
//! The undo is put first; removals and snapshots are listed after it. A collector says what it removes before it looks for
//! undos, so one of the two sees the other.

use std::collections::HashSet;

use futures::StreamExt;

use super::snapshots::Selector;
use crate::error::Error;
use crate::format::gc::SNAPSHOTS_MAX;
use crate::format::layout::ObjectName;
use crate::id::{ObjectHash, SnapshotId};
use crate::repo::{Marks, RepoError, Repository};

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
    let mut known = there.clone();
    known.extend(marks.tomb_names.iter().map(|(snapshot, _)| *snapshot));
    known.extend(&marks.removed);
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
        let tombs: Vec<ObjectHash> = tombs_of(&marks, snapshot);
        if tombs.is_empty() {
            done.not_forgotten.push(snapshot);
            continue;
        }
        undos.extend(tombs.chunks(SNAPSHOTS_MAX).map(|part| (snapshot, part.to_vec())));
    }
    // Undos of their own for each snapshot: of those that come too late none takes part in another.
    let mut puts = futures::stream::iter(undos)
        .map(|(snapshot, tombs)| async move { repo.put_undo(tombs).await.map(|_| snapshot) })
        .buffered(repo.env().limits.requests.max(1));
    while let Some(snapshot) = puts.next().await {
        let snapshot = snapshot?;
        if done.back.last() != Some(&snapshot) {
            done.back.push(snapshot);
        }
    }
    drop(puts);
    repo.still_counts().await?;
    // The undo of one that is lost stays: the collector may have met it all the same.
    let lost = repo.lost_to_removal(&done.back).await?;
    done.back.retain(|snapshot| !lost.contains(snapshot));
    done.too_late.extend(lost);
    done.too_late.sort_unstable();
    Ok(done)
}

/// The tombs of a snapshot that nobody took back. One whose bytes are not what its name says may be read by the collector all
/// the same: it is taken back by its name.
fn tombs_of(marks: &Marks, snapshot: SnapshotId) -> Vec<ObjectHash> {
    let damaged = marks.problems.iter().filter_map(|problem| match ObjectName::parse(&problem.key)? {
        ObjectName::Tomb(of, hash) if matches!(problem.error, RepoError::HashMismatch { .. }) => {
            Some((of, hash))
        }
        _ => None,
    });
    let named = marks.tomb_names.iter().copied().chain(damaged);
    named.filter(|(of, hash)| *of == snapshot && !marks.undone.contains(hash)).map(|(_, hash)| hash).collect()
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use object_store::memory::InMemory;

    use super::*;
    use crate::format::gc::TombReason;
    use crate::format::layout::{self, ObjectName};
    use crate::ops::testing::{env, new_repository, put_snapshot, store_over};
    use crate::repo::{Env, Limits};
    use crate::store::Key;
    use crate::store::fault::{Fault, FaultStore, OpKind};

    async fn forgotten(repo: &Repository, sequence: u64) -> SnapshotId {
        let id = put_snapshot(repo, sequence, |_| {}).await;
        let writer = repo.writer().unwrap().0;
        for reason in [TombReason::Policy, TombReason::Named] {
            repo.put_tomb((writer, sequence, id), reason).await.unwrap();
        }
        id
    }

    #[tokio::test]
    async fn every_tomb_of_a_snapshot_is_taken_back() {
        let repo = new_repository(Arc::new(InMemory::new()), env()).await;
        let id = forgotten(&repo, 0).await;
        let text = id.to_string();
        let done = undelete(&repo, &[text[..10].to_owned(), text.clone()]).await.unwrap();
        assert_eq!(done, Undeleted { back: vec![id], ..Undeleted::default() });
        assert!(repo.read_marks().await.unwrap().tombs.is_empty());
        let again = undelete(&repo, &[text]).await.unwrap();
        assert_eq!(again.not_forgotten, [id]);
    }

    /// A tomb that cannot be read now may be read later: it is taken back by its name.
    #[tokio::test]
    async fn a_tomb_that_cannot_be_read_is_taken_back_too() {
        let objects = Arc::new(InMemory::new());
        let repo = new_repository(objects.clone(), env()).await;
        let other = forgotten(&repo, 0).await;
        for damaged in [1, 2] {
            let id = forgotten(&repo, damaged).await;
            let count = AtomicU64::new(0);
            let spoilt = FaultStore::new(objects.clone(), move |op| {
                let tomb = op.kind == OpKind::Get && op.key.starts_with(&format!("{}{id}", layout::TOMBS));
                // Twice each, since what is spoilt is read once more.
                match tomb && count.fetch_add(1, Ordering::SeqCst) < 2 * damaged {
                    true => Fault::Corrupt(50),
                    false => Fault::None,
                }
            });
            let spoilt = repo
                .with_store(store_over(Arc::new(spoilt)))
                .with_env(Env { limits: Limits { requests: 1, ..env().limits }, ..env() });
            let done = undelete(&spoilt, &[id.to_string()]).await.unwrap();
            assert_eq!(done, Undeleted { back: vec![id], ..Undeleted::default() }, "{damaged}");
            let tombs = repo.read_marks().await.unwrap().tombs;
            assert!(!tombs.contains_key(&id) && tombs.contains_key(&other), "{damaged}");
        }
    }

    #[tokio::test]
    async fn after_a_removal_it_is_too_late() {
        let repo = new_repository(Arc::new(InMemory::new()), env()).await;
        let (named, gone, good) =
            (forgotten(&repo, 0).await, forgotten(&repo, 1).await, forgotten(&repo, 2).await);
        let removal = repo.put_removal(vec![named, gone]).await.unwrap();
        let key = ObjectName::Snapshot(repo.writer().unwrap().0, 1, gone).key();
        repo.store().delete(&Key::new(key).unwrap()).await.unwrap();
        let all = [named, gone, good].map(|id| id.to_string());
        let done = undelete(&repo, &all).await.unwrap();
        let mut late = vec![named, gone];
        late.sort_unstable();
        assert_eq!((done.back, done.too_late), (vec![good], late));
        // Also when the removal's own object is gone by then.
        let key = ObjectName::Removed(removal).key();
        repo.store().delete(&Key::new(key).unwrap()).await.unwrap();
        let done = undelete(&repo, &[gone.to_string()]).await.unwrap();
        assert_eq!((done.back.len(), done.too_late), (0, vec![gone]));
        let marks = repo.read_marks().await.unwrap();
        assert!(marks.tombs.contains_key(&gone), "the tomb of what is gone stays");
    }

    #[tokio::test]
    async fn only_ids_name_what_is_forgotten() {
        let repo = new_repository(Arc::new(InMemory::new()), env()).await;
        forgotten(&repo, 0).await;
        let error = |text: &str| {
            let selectors = [text.to_owned()];
            let repo = &repo;
            async move { undelete(repo, &selectors).await.unwrap_err() }
        };
        assert!(matches!(error("latest").await, Error::BadSelector { .. }));
        assert!(matches!(error("").await, Error::BadSelector { .. }));
        let absent =
            if repo.list_snapshots().await.unwrap()[0].id.to_string().starts_with('0') { "1" } else { "0" };
        assert!(matches!(error(absent).await, Error::NoSnapshot { .. }));
    }
}
