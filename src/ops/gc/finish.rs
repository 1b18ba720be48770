//! The end of a collection: index objects, the horizon, condemnations, in that order.
//!
//! # Invariants
//! New index objects are durable before those they replace are deleted; those are deleted before the horizon moves; the
//! horizon moves before a condemnation goes (I4). A condemnation goes only when none of its packs is left.
//!
//! # Crash
//! Index objects that repeat each other, or a condemnation of packs that are gone: the next collection clears them.

use std::collections::{BTreeSet, HashSet};
use std::time::Duration;

use super::mover::age;
use super::options::PruneReport;
use super::remove::delete;
use super::world::{World, still_counts, warn};
use crate::clock::Timestamp;
use crate::error::Error;
use crate::format::gc::PACKS_MAX;
use crate::format::layout::{self, ObjectName};
use crate::id::{ObjectHash, PackId};
use crate::index::IndexError;
use crate::repo::{RepoError, Repository};

/// Horizons that are kept: the highest counts, the one below it is for whoever listed before it was put.
const HORIZONS_KEPT: u64 = 2;
/// An empty condemnation, by which a collection reads the store's clock, is nobody's any more after this.
const STALE: Duration = Duration::from_secs(24 * 3600);

/// Ends the condemnations of which no pack is there but such as must be `left` alone; these are condemned anew first, so that
/// a pack that nobody can decode, which anyone may put, does not keep the others' condemnation for ever.
pub(super) async fn end(
    repo: &Repository,
    world: World,
    (chosen, left): (&HashSet<ObjectHash>, &HashSet<PackId>),
    report: &mut PruneReport,
) -> Result<World, Error> {
    let (mut ended, mut again) = (Vec::new(), BTreeSet::new());
    for stored in world.condemnations.iter().filter(|stored| chosen.contains(&stored.hash)) {
        let packs = &stored.condemnation.packs;
        let here: Vec<PackId> = packs.iter().filter(|pack| world.packs.contains_key(pack)).copied().collect();
        if here.is_empty() || here.len() < packs.len() && here.iter().all(|pack| left.contains(pack)) {
            ended.push(stored);
            again.extend(here);
        }
    }
    if ended.is_empty() {
        return Ok(world);
    }
    let again: Vec<PackId> = again.into_iter().collect();
    for part in again.chunks(PACKS_MAX) {
        repo.put_condemnation(part.to_vec()).await?;
    }
    let gone: HashSet<PackId> =
        ended.iter().flat_map(|stored| stored.condemnation.packs.iter().copied()).collect();
    compact(repo, gone, report).await?;
    // Listed after the deletions: whoever started under the number found here saw none of what was deleted.
    let next = repo.horizon().await?.saturating_add(1);
    repo.put_horizon(next).await?;
    still_counts(repo).await?;
    for stored in ended {
        delete(repo, ObjectName::Condemned(stored.hash)).await?;
    }
    Ok(world)
}

/// Replaces index objects that are many or mostly about packs that are gone, and deletes those that were replaced before.
async fn compact(repo: &Repository, gone: HashSet<PackId>, report: &mut PruneReport) -> Result<(), Error> {
    // Once more if the local cache turns out to be damaged: it was dropped, and is made again from the store.
    for attempt in 0..2 {
        let index = repo.load_index().await?;
        // Only what no listing shows any more may be left out of the index.
        let drop: HashSet<PackId> = gone.iter().filter(|pack| !index.packs.contains(pack)).copied().collect();
        let replaced = repo.superseded(&index.view, &index.objects);
        let mut plan = repo.plan_compaction((&index.view, &index.objects), drop)?;
        if !plan.is_empty() {
            match repo.compact_index(&index.view, &plan).await {
                Ok(new) => report.index_written += new.len() as u64,
                // Any writer can put index objects that do not go together. They must not keep the horizon: what is in them
                // stays as it is, and readers look at what packs there are.
                Err(RepoError::Index(error @ IndexError::TooMany { .. })) => {
                    warn(repo, &format!("the index was not compacted: {error}"));
                    plan.replace.clear();
                }
                Err(RepoError::Index(IndexError::CacheDamaged { .. })) if attempt == 0 => continue,
                Err(error) => return Err(error.into()),
            }
        }
        let old: BTreeSet<_> = replaced.into_iter().chain(plan.replace).collect();
        still_counts(repo).await?;
        for (author, object) in old {
            delete(repo, ObjectName::Index(author, object)).await?;
            report.index_deleted += 1;
        }
        break;
    }
    Ok(())
}

/// Deletes horizons that higher ones replaced, and what interrupted collections left behind.
pub(super) async fn tidy(repo: &Repository, world: &World, now: Timestamp) -> Result<(), Error> {
    let listed = repo.store().list(layout::HORIZON).await?;
    let names = listed.iter().filter_map(|object| ObjectName::parse(object.key.as_str()));
    let valid = repo.horizon().await?;
    // By their numbers and not by how many there are: whoever may put objects could push the valid one out with names.
    let old = |name: &ObjectName| matches!(name, ObjectName::Horizon(number, _) if number.saturating_add(HORIZONS_KEPT) <= valid);
    for name in names.filter(old) {
        // One that no maintainer signed is not ours to delete.
        if repo.read_horizon(name).await.is_ok() {
            delete(repo, name).await?;
        }
    }
    // What was signed after its writer was revoked can never count again, whatever it is.
    for object in repo.store().list(layout::INDEX).await? {
        match ObjectName::parse(object.key.as_str()) {
            Some(name @ ObjectName::Index(writer, _)) if !repo.accepts(&writer, &name) => {
                delete(repo, name).await?;
            }
            _ => {}
        }
    }
    for stored in &world.condemnations {
        if stored.condemnation.packs.is_empty() && age(now, stored.stored) > STALE {
            delete(repo, ObjectName::Condemned(stored.hash)).await?;
        }
    }
    Ok(())
}
