//! The machines and people that sign: who they are, when each stored its last snapshot, and taking their say from them.
//!
//! # Must not
//! Take the last maintainer's, or that of the key in use unless it is named in full.

use std::cmp::Reverse;
use std::collections::HashMap;

use crate::clock::Timestamp;
use crate::error::{Error, TrustError};
use crate::format::config::Authority;
use crate::id::{SnapshotId, WriterId};
use crate::repo::{Listed, RegisteredWriter, RepoError, Repository};

/// How many names of a writer's snapshots may turn out to be none: anyone who may put objects can put such names.
const READS: usize = 50;

/// A writer, and what the store has of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WriterInfo {
    /// As the registry has it.
    pub registered: RegisteredWriter,
    /// Whether the key in use signs as this writer.
    pub own: bool,
    /// Its last snapshot that counts: its name, and when the store got it.
    pub last: Option<(SnapshotId, Timestamp)>,
    /// How many names of its snapshots the store lists that count; names alone, which anyone who may put objects can put.
    pub snapshots: u64,
    /// How many it lists that do not count because the writer was revoked before.
    pub refused: u64,
}

/// What a revocation did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Revocation {
    /// Who was revoked.
    pub writer: WriterId,
    /// How many of its objects still count.
    pub accepted: usize,
    /// How many that the store has do not.
    pub refused: usize,
}

/// All writers, in the order in which they were registered.
pub async fn list_writers(repo: &Repository) -> Result<Vec<WriterInfo>, Error> {
    let mut listed: HashMap<WriterId, Vec<Listed>> = HashMap::new();
    for snapshot in repo.list_snapshots().await? {
        listed.entry(snapshot.writer).or_default().push(snapshot);
    }
    let own = repo.secrets().writer.as_ref().map(|writer| writer.id);
    let mut writers = Vec::new();
    for registered in repo.writers() {
        let all = listed.remove(&registered.id).unwrap_or_default();
        let (good, refused): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|listed| repo.accepts(&listed.writer, &listed.name()));
        let (snapshots, refused) = (good.len() as u64, refused.len() as u64);
        let last = last(repo, good).await?;
        writers.push(WriterInfo { own: own == Some(registered.id), registered, last, snapshots, refused });
    }
    Ok(writers)
}

/// The newest of these that is a snapshot.
async fn last(repo: &Repository, mut listed: Vec<Listed>) -> Result<Option<(SnapshotId, Timestamp)>, Error> {
    listed.sort_unstable_by_key(|listed| Reverse((listed.stored, listed.sequence, listed.id)));
    for listed in listed.into_iter().take(READS) {
        match repo.check_snapshot(listed).await {
            Ok(()) => return Ok(Some((listed.id, listed.stored))),
            // Removed since it was listed.
            Err(RepoError::Store(error)) if error.is_not_found() => {}
            Err(error @ (RepoError::Store(_) | RepoError::Cancelled)) => return Err(error.into()),
            Err(_) => {}
        }
    }
    Ok(None)
}

/// Revokes the writer whose id this is, or begins so: what it signs from now on counts for nothing. With `since` its
/// snapshots do not count either that the store got from that time on.
///
/// # Errors
/// [`RepoError::RoleForbids`] without an admin's key; [`TrustError::NoWriter`], [`TrustError::AmbiguousWriter`], [`TrustError::OwnWriter`],
/// [`TrustError::LastMaintainer`], [`TrustError::IsRevoked`].
pub async fn revoke(
    repo: &Repository,
    selector: &str,
    since: Option<Timestamp>,
) -> Result<Revocation, Error> {
    repo.may_revoke()?;
    repo.reread_registry().await?;
    let writers = repo.writers();
    let selector = selector.to_ascii_lowercase();
    let writer = the_one(&writers, &selector)?;
    let id = writer.id;
    let own = repo.secrets().writer.as_ref().is_some_and(|writer| writer.id == id);
    if own && selector != id.to_string() {
        return Err(TrustError::OwnWriter { writer: id }.into());
    }
    let maintains =
        |writer: &RegisteredWriter| writer.authority == Authority::Maintainer && writer.revoked.is_none();
    if maintains(writer) && !writers.iter().any(|other| other.id != id && maintains(other)) {
        return Err(TrustError::LastMaintainer { writer: id }.into());
    }
    if writer.revoked.is_some() && since.is_none() {
        return Err(TrustError::IsRevoked { writer: id }.into());
    }
    let (accepted, refused) = repo.revoke_writer(id, since).await?;
    Ok(Revocation { writer: id, accepted, refused })
}

/// The registered writer whose id this is, or begins so.
///
/// # Errors
/// [`TrustError::NoWriter`], [`TrustError::AmbiguousWriter`].
pub fn find_writer(repo: &Repository, selector: &str) -> Result<WriterId, Error> {
    Ok(the_one(&repo.writers(), &selector.to_ascii_lowercase())?.id)
}

fn the_one<'a>(writers: &'a [RegisteredWriter], selector: &str) -> Result<&'a RegisteredWriter, TrustError> {
    let found = writers.iter().filter(|writer| writer.id.to_string().starts_with(selector));
    match found.collect::<Vec<_>>()[..] {
        [writer] if !selector.is_empty() => Ok(writer),
        [] => Err(TrustError::NoWriter { selector: selector.to_owned() }),
        ref several => {
            Err(TrustError::AmbiguousWriter { selector: selector.to_owned(), count: several.len() })
        }
    }
}

#[cfg(test)]
mod tests;
