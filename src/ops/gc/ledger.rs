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
