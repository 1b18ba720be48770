//! What the judge knows of holds, tombs, undos and removals.

use std::collections::{HashMap, HashSet};

use lifeboat::format::layout::ObjectName;
use lifeboat::id::{ObjectHash, SnapshotId};

use super::Judge;
use crate::world::Objects;

/// The snapshots in the store.
fn ids_there(objects: &Objects) -> HashSet<SnapshotId> {
    let snapshots =
        objects.range("snapshots/".to_owned()..).take_while(|(key, _)| key.starts_with("snapshots/"));
    let id = |key: &String| match ObjectName::parse(key)? {
        ObjectName::Snapshot(_, _, id) => Some(id),
        _ => None,
    };
    snapshots.filter_map(|(key, _)| id(key)).collect()
}

impl Judge {
    /// Someone asks for a snapshot to be removed.
    pub fn forget(&mut self, id: SnapshotId) {
        *self.forgotten.entry(id).or_default() += 1;
    }

    pub fn times_forgotten(&self, id: SnapshotId) -> u32 {
        self.forgotten.get(&id).copied().unwrap_or(0)
    }

    /// It was taken back in time, unless someone asked again meanwhile: from here on it must stay.
    pub fn take_back(&mut self, id: SnapshotId, times: u32) {
        if self.times_forgotten(id) == times {
            self.forgotten.remove(&id);
        }
    }

    /// A hold is acknowledged.
    pub fn hold(&mut self, id: SnapshotId, hold: ObjectHash) {
        self.holds.insert(hold, id);
    }

    /// Someone asks for a hold to be removed.
    pub fn let_go(&mut self, hold: &ObjectHash) {
        self.let_go.insert(*hold);
    }

    /// Whether a hold was acknowledged that nobody asked to remove.
    pub fn is_held(&self, id: &SnapshotId) -> bool {
        self.holds.iter().any(|(hold, held)| held == id && !self.let_go.contains(hold))
    }

    /// Whether a hold on it is in the store, acknowledged or not.
    pub fn has_hold(&self, id: &SnapshotId, objects: &Objects) -> bool {
        let stands = |hold: &ObjectHash| objects.contains_key(&ObjectName::Hold(*hold).key());
        self.named.iter().any(|(hold, named)| named.contains(id) && stands(hold))
    }

    /// Whether an undo names this tomb.
    pub fn is_undone(&self, tomb: &ObjectHash) -> bool {
        self.undone.contains(tomb)
    }

    /// A removal is deleted: what it alone says of a snapshot that is not there must be said still, and what it replaces must not
    /// count again.
    pub(super) fn check_removal(&mut self, key: &str, objects: &Objects) {
        let (before, after) = (self.named_as_removed(objects, ""), self.named_as_removed(objects, key));
        let there = ids_there(objects);
        let unsaid = before.difference(&after).find(|id| !there.contains(id)).copied();
        let anew = after.difference(&before).next().copied();
        self.demand(unsaid.is_none(), "removal", || format!("{key} alone names {unsaid:?}"));
        self.demand(anew.is_none(), "removal", || {
            format!("{key} is deleted, and {anew:?} counts as removed again")
        });
    }

    /// A hold is deleted: not one that was acknowledged, and that nobody asked to remove, while what it holds is there.
    pub(super) fn check_hold(&mut self, hold: &ObjectHash, objects: &Objects) {
        let held = self.holds.get(hold).filter(|_| !self.let_go.contains(hold)).copied();
        let lost = held.filter(|id| ids_there(objects).contains(id));
        self.demand(lost.is_none(), "hold", || format!("{hold} is deleted, and {lost:?} is there"));
    }

    /// What the removals in the store name, without this one; what others replace says nothing.
    pub(super) fn named_as_removed(&self, objects: &Objects, without: &str) -> HashSet<SnapshotId> {
        let there = |key: &String| key != without && objects.contains_key(key);
        let mut said: HashMap<_, _> = self.removals.iter().filter(|(key, _)| there(key)).collect();
        for replaced in said.values().flat_map(|(_, replaced)| replaced).collect::<Vec<_>>() {
            said.remove(&ObjectName::Removed(*replaced).key());
        }
        said.into_values().flat_map(|(named, _)| named).copied().collect()
    }

    /// How many removals name nothing that is there.
    pub fn settled_removals(&self, objects: &Objects) -> usize {
        let there = self.removals.iter().filter(|(key, _)| objects.contains_key(*key));
        there.filter(|(_, (named, _))| named.iter().all(|id| self.gone.contains(id))).count()
    }
}
