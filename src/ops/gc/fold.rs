//! Folding: one removal in the place of many, so that what is kept of snapshots that are gone does not grow with every
//! collection.
//!
//! # Invariants
//! Only what names nothing that is there is folded: whoever holds or takes back finds the snapshot gone, whatever removals
//! say. The new removal names all that the old ones did, and is durable before the first of them is deleted. A removal is
//! deleted only when another is there that replaces it, and only after all that it replaces itself.
//!
//! # Crash
//! The new removal and some of the old ones: these say nothing any more, and the next collection deletes them. Two collectors
//! that fold at the same time leave two removals that say the same: a later one folds these.

use std::collections::{BTreeSet, HashSet};

use futures::{StreamExt, TryStreamExt};

use super::mover::age;
use super::options::PruneOptions;
use super::remove::delete;
use super::world::still_counts;
use crate::clock::Timestamp;
use crate::error::Error;
use crate::format::gc::{REPLACED_MAX, SNAPSHOTS_MAX};
use crate::format::layout::ObjectName;
use crate::id::{ObjectHash, SnapshotId};
use crate::repo::{Removals, Repository, StoredRemoval};

/// Removals of more snapshots than this are not folded again.
const FULL: usize = SNAPSHOTS_MAX / 2;

/// Deletes removals that others replace, and puts one in the place of many. `settled` says whether nothing that a removal names
/// is there; it must have been looked after removals were listed, and not in one listing alone.
pub(super) async fn fold(
    repo: &Repository,
    removals: Removals,
    settled: impl Fn(&StoredRemoval) -> bool,
    (options, now): (&PruneOptions, Timestamp),
) -> Result<(), Error> {
    let mut there: HashSet<ObjectHash> = removals.all().map(|stored| stored.hash).collect();
    for hash in replaced(&removals, &there, &settled) {
        delete(repo, ObjectName::Removed(hash)).await?;
        there.remove(&hash);
    }
    let old = |stored: &&StoredRemoval| age(now, stored.stored) >= options.grace && settled(stored);
    let alone = |stored: &&StoredRemoval| stored.removal.replaces.iter().all(|hash| !there.contains(hash));
    let mut old: Vec<&StoredRemoval> = removals.standing.iter().filter(old).filter(alone).collect();
    old.retain(|stored| stored.removal.snapshots.len() <= FULL);
    for part in parts(old, options.fold_from) {
        put(repo, &part).await?;
    }
    Ok(())
}

/// Removals to delete: something is there that replaces them and names nothing that is there, and nothing that they replace.
/// While a replacement names what is there, its run may be at work, and a slow listing that misses it must show the other.
fn replaced(
    removals: &Removals,
    there: &HashSet<ObjectHash>,
    settled: impl Fn(&StoredRemoval) -> bool,
) -> Vec<ObjectHash> {
    let by = removals.all().filter(|stored| settled(stored));
    let over: HashSet<ObjectHash> = by.flat_map(|stored| stored.removal.replaces.iter().copied()).collect();
    let last = |stored: &&StoredRemoval| stored.removal.replaces.iter().all(|hash| !there.contains(hash));
    let replaced = removals.replaced.iter().filter(|stored| over.contains(&stored.hash));
    replaced.filter(last).map(|stored| stored.hash).collect()
}

/// What is folded together: nothing while there are fewer than `from`; then the shorter half, and longer ones as long as they do
/// not outweigh what goes with them. So each name is written again only when twice as many go with it.
fn parts(mut old: Vec<&StoredRemoval>, from: usize) -> Vec<Vec<&StoredRemoval>> {
    if old.len() < from.max(2) {
        return Vec::new();
    }
    let least = (old.len() / 2).max(2);
    old.sort_unstable_by_key(|stored| (stored.removal.snapshots.len(), stored.hash));
    let (mut parts, mut part, mut names, mut taken) = (Vec::new(), Vec::new(), 0, 0);
    for (number, stored) in old.into_iter().enumerate() {
        let more = stored.removal.snapshots.len();
        if number >= least && more > taken {
            break;
        }
        if names + more > SNAPSHOTS_MAX || part.len() == REPLACED_MAX {
            parts.push(std::mem::take(&mut part));
            names = 0;
        }
        part.push(stored);
        (names, taken) = (names + more, taken + more);
    }
    parts.push(part);
    parts.retain(|part| part.len() > 1);
    parts
}

/// Puts one removal in the place of these, and deletes them.
async fn put(repo: &Repository, part: &[&StoredRemoval]) -> Result<(), Error> {
    let names: BTreeSet<SnapshotId> =
        part.iter().flat_map(|stored| stored.removal.snapshots.iter().copied()).collect();
    let replaces: Vec<ObjectHash> = part.iter().map(|stored| stored.hash).collect();
    repo.replace_removals(names.into_iter().collect(), replaces.clone()).await?;
    still_counts(repo).await?;
    let deletes = futures::stream::iter(replaces).map(|hash| delete(repo, ObjectName::Removed(hash)));
    deletes.buffer_unordered(repo.env().limits.requests.max(1)).try_collect().await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::WriterId;

    fn of(lengths: &[usize]) -> Vec<StoredRemoval> {
        let made = |(number, length): (usize, &usize)| {
            let snapshots = vec![SnapshotId::new([number as u8; 32]); *length];
            let hash = ObjectHash::new([number as u8; 32]);
            let (author, nonce, replaces) = (WriterId::new([1; 16]), [0; 16], Vec::new());
            let removal = crate::format::gc::Removal { author, snapshots, nonce, replaces };
            StoredRemoval { hash, removal, stored: Timestamp(0) }
        };
        lengths.iter().enumerate().map(made).collect()
    }

    fn folded(lengths: &[usize], from: usize) -> Vec<Vec<usize>> {
        let all = of(lengths);
        let parts = parts(all.iter().collect(), from);
        parts.iter().map(|part| part.iter().map(|stored| stored.removal.snapshots.len()).collect()).collect()
    }

    #[test]
    fn the_short_ones_are_folded_and_long_ones_only_with_as_much() {
        assert_eq!(folded(&[1, 1, 1], 4), Vec::<Vec<usize>>::new());
        assert_eq!(folded(&[1, 100, 1, 1], 4), [[1, 1, 1]]);
        assert_eq!(folded(&[4, 1, 8, 1, 2], 4), [[1, 1, 2, 4, 8]]);
        assert_eq!(folded(&[0, 0], 0), [[0, 0]]);
        assert_eq!(folded(&[7], 0), Vec::<Vec<usize>>::new());
    }

    #[test]
    fn no_removal_gets_longer_than_one_may_be() {
        let long = FULL - 10;
        assert_eq!(folded(&[long, long, long, long, 5], 5), [vec![5, long, long], vec![long, long]]);
    }

    /// What a collection a day, of one snapshot of each of ten servers a time, leaves in ten years, and what is written for it.
    #[test]
    fn ten_years_leave_few_and_write_each_name_few_times() {
        let (mut lengths, mut written) = (Vec::new(), 0);
        for _ in 0..3650 {
            lengths.push(240);
            for part in folded(&lengths, 16) {
                let together: usize = part.iter().sum();
                written += together;
                for length in part {
                    let at = lengths.iter().position(|other| *other == length).unwrap();
                    lengths.remove(at);
                }
                lengths.push(together);
            }
            lengths.retain(|length| *length <= FULL);
            assert!(lengths.len() <= 16);
        }
        assert!(written < 12 * 3650 * 240, "{}", written / (3650 * 240));
    }
}
