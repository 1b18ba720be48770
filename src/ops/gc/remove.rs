//! Removing forgotten snapshots whose time has come.
//!
//! # Invariants
//! The removal is durable before holds and undos are listed, and that is before the first deletion; who puts a hold or an
//! undo and then lists removals sees the removal, or is seen here. What is spared is named no more from the moment that a
//! second removal replaces the first; both stand until everything is deleted, so that no listing misses both. One that fails
//! before its first deletion is taken away again by whoever put it, or its snapshots could never be taken back; nobody deletes
//! on account of another's. That a snapshot was removed is never unsaid: it tells a later collector that one which is missing
//! was meant to go. What a writer signed after it was revoked goes in the same way, at once unless it is held. What belongs to a snapshot goes when two listings lack it, of which one was made after removals were read.
//!
//! # Crash
//! After the removal: the next collection deletes what it names, unless it is held. Half deleted: the same. A removal that names
//! what was spared since stays, and whoever would hold that is told that he came too late: whether its run is over, and not
//! asleep before its first deletion, nobody can know.

use std::collections::HashSet;

use futures::StreamExt;

use super::fold;
use super::mover::age;
use super::options::{PruneOptions, PruneReport};
use super::world::{still_counts, warn};
use crate::clock::Timestamp;
use crate::error::Error;
use crate::format::gc::SNAPSHOTS_MAX;
use crate::format::layout::{self, ObjectName};
use crate::id::{ObjectHash, SnapshotId};
use crate::repo::{Listed, Marks, Problem, Removals, RepoError, Repository, StoredHold, StoredRemoval};
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
    let refused = refused(repo, &snapshots).await;
    let when = When { options, now, refused: &refused };
    let due = due(&snapshots, &marks, when, report);
    if due.is_empty() {
        return if options.dry_run { Ok(()) } else { clear(repo, marks, snapshots, (options, now)).await };
    }
    refuse_damage(repo, &marks)?;
    let forgotten = due.iter().filter(|listed| !refused.contains(&listed.id)).count();
    refuse_many(options, forgotten, snapshots.len() - refused.len())?;
    if options.dry_run {
        report.removed = due.len() as u64;
        return Ok(());
    }
    let mut removed = HashSet::new();
    for part in due.chunks(SNAPSHOTS_MAX) {
        let gone = remove_part(repo, part, when, report).await?;
        report.removed += gone.len() as u64;
        removed.extend(gone.iter().map(|listed| listed.id));
    }
    let there = snapshots.into_iter().filter(|listed| !removed.contains(&listed.id)).collect();
    clear(repo, repo.read_marks().await?, there, (options, now)).await
}

/// By what it is decided what is due.
#[derive(Clone, Copy)]
struct When<'a> {
    options: &'a PruneOptions,
    now: Timestamp,
    /// Snapshots that were signed after their writer was revoked.
    refused: &'a HashSet<SnapshotId>,
}

/// Snapshots that a writer signed after it was revoked. Each is read: a copy of another's, under the name of a revoked writer,
/// must not get that one named as removed. One that is not to be had is left to the next collection.
async fn refused(repo: &Repository, snapshots: &[Listed]) -> HashSet<SnapshotId> {
    let late = snapshots.iter().filter(|listed| !repo.accepts(&listed.writer, &listed.name()));
    let late: Vec<Listed> = late.copied().collect();
    futures::stream::iter(late)
        .map(|listed| async move { (listed.id, repo.check_snapshot(listed).await) })
        .buffer_unordered(repo.env().limits.requests.max(1))
        .filter_map(|(id, checked)| async move {
            matches!(checked, Err(RepoError::AfterRevocation { .. })).then_some(id)
        })
        .collect()
        .await
}

fn due(snapshots: &[Listed], marks: &Marks, when: When<'_>, report: &mut PruneReport) -> Vec<Listed> {
    let mut due = Vec::new();
    let goes = |listed: &&Listed| marks.tombs.contains_key(&listed.id) || when.refused.contains(&listed.id);
    for listed in snapshots.iter().filter(goes) {
        if marks.is_held(&listed.id, when.now) {
            report.spared += 1;
        } else if is_due(marks, listed, when) {
            due.push(*listed);
        } else {
            report.waiting += 1;
        }
    }
    due
}

/// Whether a tomb stands whose window is over, or its writer was revoked before.
fn is_due(marks: &Marks, listed: &Listed, When { options, now, refused }: When<'_>) -> bool {
    if refused.contains(&listed.id) {
        return true;
    }
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

/// Removal, holds and undos again, deletions. Gives what was removed.
async fn remove_part(
    repo: &Repository,
    part: &[Listed],
    when: When<'_>,
    report: &mut PruneReport,
) -> Result<Vec<Listed>, Error> {
    let mut put = Vec::new();
    let gone = match decide(repo, part, when, &mut put).await {
        Ok(gone) => gone,
        Err(error) => {
            // Nobody deletes on account of another's removal: nothing rests on these, whether they are there or not. The second
            // one stays if the first does: without it more would be named.
            for removal in put {
                if let Err(error) = delete(repo, ObjectName::Removed(removal)).await {
                    let id = removal.short();
                    warn(
                        repo,
                        &format!("removal {id} may be left, and name snapshots that are there: {error}"),
                    );
                    break;
                }
            }
            return Err(error);
        }
    };
    let spared = part.len() - gone.len();
    report.spared += spared as u64;
    for listed in &gone {
        delete(repo, ObjectName::Snapshot(listed.writer, listed.sequence, listed.id)).await?;
        delete(repo, ObjectName::Confirmation(listed.writer, listed.sequence, listed.id)).await?;
    }
    if let [first, _second] = put[..] {
        // Not before: a slow listing could miss the one that came meanwhile and the one that went.
        delete(repo, ObjectName::Removed(first)).await?;
    }
    Ok(gone)
}

/// Puts a removal of all these, and gives those that really go: holds and undos are looked for after it. If that is not all of
/// it, another removal says so in its place, or none. The names of both are in `put` before they can be in the store.
async fn decide(
    repo: &Repository,
    part: &[Listed],
    when: When<'_>,
    put: &mut Vec<ObjectHash>,
) -> Result<Vec<Listed>, Error> {
    let ids = |of: &[Listed]| of.iter().map(|listed| listed.id).collect();
    let removal = repo.new_removal(ids(part), Vec::new())?;
    let first = removal.hash();
    put.push(first);
    repo.put_new_removal(removal).await?;
    let marks = repo.read_marks().await?;
    refuse_damage(repo, &marks)?;
    // Someone may have taken a tomb back and put a new one, whose window has only begun.
    let stands = |listed: &&Listed| !marks.is_held(&listed.id, when.now) && is_due(&marks, listed, when);
    let gone: Vec<Listed> = part.iter().filter(stands).copied().collect();
    if gone.is_empty() {
        delete(repo, ObjectName::Removed(first)).await?;
    } else if gone.len() < part.len() {
        // The removal must not go on naming what is spared: the next undo would be told that it is too late.
        let removal = repo.new_removal(ids(&gone), vec![first])?;
        put.push(removal.hash());
        repo.put_new_removal(removal).await?;
    }
    still_counts(repo).await?;
    Ok(gone)
}

/// Deletes tombs, undos, holds, confirmations and labels that belong to no snapshot any more, finishes removals that a crash
/// interrupted, and folds old ones. `there` is what was listed when this run began, without what it removed itself: one listing
/// that lacks something is not enough to take it for gone.
async fn clear(
    repo: &Repository,
    marks: Marks,
    mut there: Vec<Listed>,
    (options, now): (&PruneOptions, Timestamp),
) -> Result<(), Error> {
    // Listed after the marks were: a snapshot that a removal among them names was there before, so it is gone, not yet to come.
    there.extend(repo.list_snapshots().await?);
    let ids: HashSet<SnapshotId> = there.iter().map(|listed| listed.id).collect();
    let gone = |id: &SnapshotId| !ids.contains(id) && marks.removed.contains(id);
    for (id, hash) in marks.tomb_names.iter().filter(|(id, _)| gone(id)) {
        delete(repo, ObjectName::Tomb(*id, *hash)).await?;
    }
    clear_holds(repo, &marks, gone, (options, now)).await?;
    clear_undos(repo, &marks).await?;
    clear_beside(repo, gone).await?;
    let stays = named_and_there(repo, &marks.removals, there).await?;
    let settled = |stored: &StoredRemoval| stored.removal.snapshots.iter().all(|id| !stays.contains(id));
    fold::fold(repo, marks.removals, settled, (options, now)).await
}

/// Which of these are named by removals, garbage under such a name left out: anyone may put it, and no removal would be folded.
async fn named_and_there(
    repo: &Repository,
    removals: &Removals,
    there: Vec<Listed>,
) -> Result<HashSet<SnapshotId>, Error> {
    let named: HashSet<&SnapshotId> =
        removals.all().flat_map(|stored| stored.removal.snapshots.iter()).collect();
    let mut stays = HashSet::new();
    for listed in there.into_iter().filter(|listed| named.contains(&listed.id)) {
        if !stays.contains(&listed.id) && !repo.is_garbage(listed).await? {
            stays.insert(listed.id);
        }
    }
    Ok(stays)
}

/// Deletes holds of which nothing is there any more. One that stands stays until what it holds was named as removed for the
/// grace: if a listing was wrong there is time to see it.
async fn clear_holds(
    repo: &Repository,
    marks: &Marks,
    gone: impl Fn(&SnapshotId) -> bool,
    (options, now): (&PruneOptions, Timestamp),
) -> Result<(), Error> {
    let old = marks.removals.standing.iter().filter(|stored| age(now, stored.stored) >= options.grace);
    let old: HashSet<&SnapshotId> = old.flat_map(|stored| &stored.removal.snapshots).collect();
    for StoredHold { hash, hold, .. } in &marks.holds {
        let over = hold.until.is_some_and(|until| until <= now.0);
        if hold.snapshots.iter().all(|id| gone(id) && (over || old.contains(id))) {
            delete(repo, ObjectName::Hold(*hash)).await?;
        }
    }
    Ok(())
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

/// Deletes undos whose tombs are all gone. Which tombs stand is listed after the undos were, by their names alone, and twice: a
/// tomb that came after the first listing, that could not be read, or that one listing lacks must not lose its undo.
async fn clear_undos(repo: &Repository, marks: &Marks) -> Result<(), Error> {
    let mut over: Vec<&(ObjectHash, Vec<ObjectHash>)> = marks.undos.iter().collect();
    for _ in 0..2 {
        if over.is_empty() {
            return Ok(());
        }
        let listed = repo.store().list(layout::TOMBS).await?;
        let hash = |object: &crate::store::Object| match ObjectName::parse(object.key.as_str())? {
            ObjectName::Tomb(_, hash) => Some(hash),
            _ => None,
        };
        let standing: HashSet<ObjectHash> = listed.iter().filter_map(hash).collect();
        over.retain(|(_, undone)| !undone.iter().any(|tomb| standing.contains(tomb)));
    }
    for (hash, _) in over {
        delete(repo, ObjectName::Undone(*hash)).await?;
    }
    Ok(())
}

pub(super) async fn delete(repo: &Repository, name: ObjectName) -> Result<(), Error> {
    let key = Key::new(name.key()).map_err(|error| Error::Store(error.into()))?;
    Ok(repo.store().delete(&key).await?)
}
