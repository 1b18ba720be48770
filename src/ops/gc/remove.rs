//! Removing forgotten snapshots whose time has come.
//!
//! # Invariants
//! The removal is durable before holds and undos are listed, and that is before the first deletion; who puts a hold or an
//! undo and then lists removals sees the removal, or is seen here. A removal under which something was deleted stays for ever: it
//! tells a later collector that a missing snapshot was meant to go. One that fails before its first deletion is taken away
//! again by whoever put it, or its snapshots could never be taken back; nobody deletes on account of another's.
//!
//! # Crash
//! After the removal: the next collection deletes what it names, unless it is held. Half deleted: the same.

use std::collections::HashSet;

use super::options::{PruneOptions, PruneReport};
use super::world::warn;
use crate::clock::Timestamp;
use crate::error::Error;
use crate::format::gc::SNAPSHOTS_MAX;
use crate::format::layout::{self, ObjectName};
use crate::id::{ObjectHash, SnapshotId};
use crate::repo::{Listed, Marks, Problem, RepoError, Repository};
use crate::store::Key;

/// A removal is refused when it takes more than one snapshot in this many.
const SHARE: u64 = 4;

/// Removes the snapshots whose tombs are old enough, and what only they needed.
pub(super) async fn remove(
    repo: &Repository,
    options: &PruneOptions,
    now: Timestamp,
    report: &mut PruneReport,
) -> Result<(), Error> {
    let snapshots = repo.list_snapshots().await?;
    let marks = repo.read_marks().await?;
    for problem in &marks.problems {
        warn(repo, &format!("object {} was skipped: {}", problem.key, problem.error));
    }
    let due = due(&snapshots, &marks, (options, now), report);
    if due.is_empty() {
        return if options.dry_run { Ok(()) } else { clear(repo, &marks).await };
    }
    refuse_damage(repo, &marks)?;
    refuse_many(options, due.len(), snapshots.len())?;
    if options.dry_run {
        report.removed = due.len() as u64;
        return Ok(());
    }
    for part in due.chunks(SNAPSHOTS_MAX) {
        report.removed += remove_part(repo, part, (options, now), report).await?;
    }
    clear(repo, &repo.read_marks().await?).await
}

fn due(
    snapshots: &[Listed],
    marks: &Marks,
    (options, now): (&PruneOptions, Timestamp),
    report: &mut PruneReport,
) -> Vec<Listed> {
    let mut due = Vec::new();
    for listed in snapshots.iter().filter(|listed| marks.tombs.contains_key(&listed.id)) {
        if marks.is_held(&listed.id, now) {
            report.spared += 1;
        } else if is_due(marks, listed, (options, now)) {
            due.push(*listed);
        } else {
            report.waiting += 1;
        }
    }
    due
}

/// Whether a tomb stands whose window is over.
fn is_due(marks: &Marks, listed: &Listed, (options, now): (&PruneOptions, Timestamp)) -> bool {
    let window = i64::try_from(options.undo_window.as_nanos()).unwrap_or(i64::MAX);
    marks.tombs.get(&listed.id).is_some_and(|tomb| now.0.saturating_sub(tomb.stored.0) >= window)
}

fn refuse_damage(repo: &Repository, marks: &Marks) -> Result<(), Error> {
    // Reading them may have read the registry again.
    repo.intact_registry()?;
    // A tomb or a removal that cannot be read removes nothing.
    let spares = |key: &str| key.starts_with(layout::HOLDS) || key.starts_with(layout::UNDONE);
    let is_lost =
        |problem: &Problem| problem.is_damage() || matches!(problem.error, RepoError::TooLarge { .. });
    let damaged = marks.problems.iter().find(|problem| is_lost(problem) && spares(&problem.key));
    damaged.map_or(Ok(()), |problem| Err(Error::MarkDamaged { key: problem.key.clone() }))
}

fn refuse_many(options: &PruneOptions, due: usize, all: usize) -> Result<(), Error> {
    let (removed, all) = (due as u64, all as u64);
    if removed * SHARE > all && !options.yes { Err(Error::ManyRemoved { removed, all }) } else { Ok(()) }
}

/// Removal, holds and undos again, deletions. Gives how many were removed.
async fn remove_part(
    repo: &Repository,
    part: &[Listed],
    when: (&PruneOptions, Timestamp),
    report: &mut PruneReport,
) -> Result<u64, Error> {
    let mut removals = Vec::new();
    let gone = match announce(repo, part, when, &mut removals).await {
        Ok(gone) => gone,
        Err(error) => {
            // Nobody deletes on account of another's removal: nothing rests on these.
            for removal in removals {
                if let Err(error) = delete(repo, ObjectName::Removed(removal)).await {
                    let id = removal.short();
                    warn(repo, &format!("removal {id} is left and names snapshots that are there: {error}"));
                }
            }
            return Err(error);
        }
    };
    report.spared += (part.len() - gone.len()) as u64;
    for listed in &gone {
        delete(repo, ObjectName::Snapshot(listed.writer, listed.sequence, listed.id)).await?;
        delete(repo, ObjectName::Confirmation(listed.writer, listed.sequence, listed.id)).await?;
    }
    Ok(gone.len() as u64)
}

/// Says which snapshots go, and gives those that really do: holds and undos are looked for after it was said. `removals` are
/// the objects that say so, also on a failure.
async fn announce(
    repo: &Repository,
    part: &[Listed],
    (options, now): (&PruneOptions, Timestamp),
    removals: &mut Vec<ObjectHash>,
) -> Result<Vec<Listed>, Error> {
    let first = repo.put_removal(part.iter().map(|listed| listed.id).collect()).await?;
    removals.push(first);
    let marks = repo.read_marks().await?;
    refuse_damage(repo, &marks)?;
    // Someone may have taken a tomb back and put a new one, whose window has only begun.
    let stands = |listed: &&Listed| !marks.is_held(&listed.id, now) && is_due(&marks, listed, (options, now));
    let gone: Vec<Listed> = part.iter().filter(stands).copied().collect();
    if gone.len() < part.len() {
        // The removal must not go on naming what is spared: the next undo would be told that it is too late.
        if !gone.is_empty() {
            removals.push(repo.put_removal(gone.iter().map(|listed| listed.id).collect()).await?);
        }
        delete(repo, ObjectName::Removed(first)).await?;
    }
    Ok(gone)
}

/// Deletes tombs, undos, confirmations and labels that belong to no snapshot any more, and finishes removals that a crash
/// interrupted.
async fn clear(repo: &Repository, marks: &Marks) -> Result<(), Error> {
    // Listed after the marks were: a snapshot that a removal among them names was there before, so it is gone, not yet to come.
    let listed: HashSet<SnapshotId> = repo.list_snapshots().await?.iter().map(|listed| listed.id).collect();
    let gone = |id: &SnapshotId| !listed.contains(id) && marks.removed.contains_key(id);
    for (id, hash) in marks.tomb_names.iter().filter(|(id, _)| gone(id)) {
        delete(repo, ObjectName::Tomb(*id, *hash)).await?;
    }
    clear_undos(repo, marks).await?;
    clear_beside(repo, gone).await
}

/// Deletes confirmations and labels of snapshots that are gone.
async fn clear_beside(repo: &Repository, gone: impl Fn(&SnapshotId) -> bool) -> Result<(), Error> {
    for prefix in [layout::SNAPSHOTS, layout::LABELS] {
        for object in repo.store().list(prefix).await? {
            match ObjectName::parse(object.key.as_str()) {
                Some(name @ ObjectName::Confirmation(_, _, id)) if gone(&id) => delete(repo, name).await?,
                Some(name @ ObjectName::Labels(id, _)) if gone(&id) => delete(repo, name).await?,
                _ => {}
            }
        }
    }
    Ok(())
}

/// Deletes undos whose tombs are all gone. Which tombs stand is listed after the undos were, and by their names alone: a tomb
/// that came after the first listing, or that could not be read, must not lose its undo.
async fn clear_undos(repo: &Repository, marks: &Marks) -> Result<(), Error> {
    if marks.undos.is_empty() {
        return Ok(());
    }
    let listed = repo.store().list(layout::TOMBS).await?;
    let hash = |object: &crate::store::Object| match ObjectName::parse(object.key.as_str())? {
        ObjectName::Tomb(_, hash) => Some(hash),
        _ => None,
    };
    let standing: HashSet<ObjectHash> = listed.iter().filter_map(hash).collect();
    for (hash, undone) in &marks.undos {
        if !undone.iter().any(|tomb| standing.contains(tomb)) {
            delete(repo, ObjectName::Undone(*hash)).await?;
        }
    }
    Ok(())
}

pub(super) async fn delete(repo: &Repository, name: ObjectName) -> Result<(), Error> {
    let key = Key::new(name.key()).map_err(|error| Error::Store(error.into()))?;
    Ok(repo.store().delete(&key).await?)
}
