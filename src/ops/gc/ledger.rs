//! The ledger: records that say nothing any more go.
//!
//! # Crash
//! What was not deleted is at the next collection.

use std::collections::HashSet;

use super::remove::delete;
use super::world::still_counts;
use crate::clock::Timestamp;
use crate::error::Error;
use crate::format::layout::ObjectName;
use crate::ops::ledger::{stored, superseded};
use crate::repo::{RepoError, Repository};

/// Deletes records of which others say something newer of all that is there, and those of who was revoked. One that is damaged
/// stays, for a verification to name.
pub(super) async fn tidy(repo: &Repository, now: Timestamp) -> Result<(), Error> {
    let mut problems = Vec::new();
    let records = repo.ledger(&mut problems).await?;
    let of_revoked =
        problems.iter().filter(|problem| matches!(problem.error, RepoError::AfterRevocation { .. }));
    let mut go: Vec<ObjectName> = of_revoked.filter_map(|problem| ObjectName::parse(&problem.key)).collect();
    if !records.is_empty() {
        let there: HashSet<_> = stored(repo).await?.into_iter().map(|stored| stored.hash).collect();
        go.extend(superseded(&records, &there, now).into_iter().map(ObjectName::Verified));
    }
    if !go.is_empty() {
        still_counts(repo).await?;
    }
    for name in go {
        delete(repo, name).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use object_store::memory::InMemory;

    use super::*;
    use crate::clock::later;
    use crate::format::ledger::Look;
    use crate::id::ObjectHash;
    use crate::ops::gc::{PruneOptions, prune};
    use crate::ops::testing::{env, new_repository, store_over};
    use crate::repo::NewlyVerified;
    use crate::store::fault::{Failure, Fault, FaultStore, OpKind};

    async fn records(repo: &Repository) -> usize {
        repo.ledger(&mut Vec::new()).await.unwrap().len()
    }

    #[tokio::test]
    async fn records_that_say_nothing_any_more_go() {
        let objects = Arc::new(InMemory::new());
        let repo = new_repository(objects.clone(), env()).await;
        let now = repo.env().clock.now();
        for number in 0..30 {
            let good = vec![ObjectHash::new([number; 32])];
            let seen = NewlyVerified { good, ended: Some(0), ..NewlyVerified::new(now) };
            repo.put_verified(Look::Read, seen).await.unwrap();
        }
        prune(&repo, &PruneOptions::default()).await.unwrap();
        assert_eq!(records(&repo).await, 30, "young ones stay");
        let late = later(now, Duration::from_secs(2 * 24 * 3600));
        // A store that does not let them go is no reason to fail.
        let faults = FaultStore::new(objects, |op| match op.kind {
            OpKind::Delete if op.key.starts_with("ledger/") => Fault::Before(Failure::NoSpace),
            _ => Fault::None,
        });
        let full = repo.with_store(store_over(Arc::new(faults)));
        tidy(&full, late).await.unwrap_err();
        prune(&full, &PruneOptions::default()).await.unwrap();
        tidy(&repo, late).await.unwrap();
        assert_eq!(records(&repo).await, 8, "the last ends of runs");
        tidy(&repo, late).await.unwrap();
        assert_eq!(records(&repo).await, 8);
    }
}
