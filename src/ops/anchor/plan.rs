//! What an anchor covers, and whether a store still shows that: values only.

use std::collections::{BTreeMap, BTreeSet};

use crate::format::anchor::Anchor;
use crate::id::{SnapshotId, WriterId};

/// What an anchor says, and the ones that it builds on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Covered {
    /// The least number that the configuration may have.
    pub(super) config: u64,
    /// The least number that each writer's entry may have.
    pub(super) writers: BTreeMap<WriterId, u64>,
    /// Snapshots that must be there, unless they were removed.
    pub(super) snapshots: BTreeSet<SnapshotId>,
}

impl Covered {
    /// What these say together, of which each builds on the next.
    pub(super) fn of<'a>(chain: impl IntoIterator<Item = &'a Anchor>) -> Self {
        let mut covered = Self::default();
        for anchor in chain {
            covered.config = covered.config.max(anchor.config);
            for (writer, number) in &anchor.writers {
                let least = covered.writers.entry(*writer).or_insert(*number);
                *least = (*least).max(*number);
            }
            covered.snapshots.extend(&anchor.snapshots);
        }
        covered
    }
}

/// How a store shows a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sight {
    /// What its name says, signed, and confirmed.
    Whole,
    /// Its object is not what its name says, or it is not confirmed.
    Changed,
    /// Its writer was revoked, and it does not count: the root key said so.
    Refused,
}

/// What a store shows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Shown {
    /// Number of the configuration.
    pub(super) config: u64,
    /// Numbers of the entries of writers.
    pub(super) writers: BTreeMap<WriterId, u64>,
    /// Snapshots that are listed.
    pub(super) snapshots: BTreeMap<SnapshotId, Sight>,
    /// Snapshots that a maintainer named as removed.
    pub(super) removed: BTreeSet<SnapshotId>,
}

/// How a store shows less than an anchor covers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Breach {
    /// The configuration is an older one.
    pub(super) config: bool,
    /// Writers whose entries are older, or gone.
    pub(super) writers: Vec<WriterId>,
    /// Snapshots that are gone and were not removed.
    pub(super) missing: Vec<SnapshotId>,
    /// Snapshots that are there, and not as they were.
    pub(super) changed: Vec<SnapshotId>,
}

impl Breach {
    /// Whether all is there.
    pub(super) fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// How this store shows less than that.
pub(super) fn breach(covered: &Covered, shown: &Shown) -> Breach {
    let older = |(writer, least): &(&WriterId, &u64)| shown.writers.get(*writer) < Some(*least);
    let mut breach = Breach {
        config: shown.config < covered.config,
        writers: covered.writers.iter().filter(older).map(|(writer, _)| *writer).collect(),
        ..Breach::default()
    };
    for snapshot in covered.snapshots.difference(&shown.removed) {
        match shown.snapshots.get(snapshot) {
            Some(Sight::Whole | Sight::Refused) => {}
            Some(Sight::Changed) => breach.changed.push(*snapshot),
            None => breach.missing.push(*snapshot),
        }
    }
    breach
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::id::ObjectHash;

    /// A store in a model, and all anchors that were ever put.
    #[derive(Debug, Clone, Default)]
    struct Model {
        shown: Shown,
        anchors: Vec<Anchor>,
        next: u8,
    }

    #[derive(Debug, Clone)]
    enum Step {
        Add,
        Revoke(u8),
        Forget(usize),
        Fold,
        Anchor { base: bool },
    }

    fn snapshot(number: u8) -> SnapshotId {
        SnapshotId::new([number; 32])
    }

    impl Model {
        /// What anybody may do who is entitled to it.
        fn step(&mut self, step: &Step) {
            match step {
                Step::Add => {
                    self.next = self.next.wrapping_add(1);
                    self.shown.snapshots.insert(snapshot(self.next), Sight::Whole);
                    self.shown.writers.entry(WriterId::new([self.next % 3; 16])).or_insert(0);
                }
                Step::Revoke(writer) => {
                    *self.shown.writers.entry(WriterId::new([writer % 3; 16])).or_insert(0) += 1;
                    self.shown.config += 1;
                    let chosen = self.shown.snapshots.values_mut().nth(usize::from(*writer));
                    chosen.into_iter().for_each(|sight| *sight = Sight::Refused);
                }
                Step::Forget(which) => {
                    let id = self.shown.snapshots.keys().nth(*which % self.shown.snapshots.len().max(1));
                    if let Some(id) = id.copied() {
                        // The removal is put first; what is half deleted looks changed.
                        self.shown.removed.insert(id);
                        self.shown.snapshots.insert(id, Sight::Changed);
                    }
                }
                Step::Fold => self.shown.snapshots.retain(|id, _| !self.shown.removed.contains(id)),
                Step::Anchor { base } => {
                    let base = base.then(|| self.anchors.len().checked_sub(1)).flatten();
                    let before = base.map_or(Covered::default(), |base| self.covered(base));
                    let whole = self.shown.snapshots.iter().filter(|(_, sight)| **sight == Sight::Whole);
                    self.anchors.push(Anchor {
                        author: WriterId::new([9; 16]),
                        config: self.shown.config,
                        writers: self.shown.writers.iter().map(|(id, number)| (*id, *number)).collect(),
                        snapshots: whole
                            .map(|(id, _)| *id)
                            .filter(|id| !before.snapshots.contains(id))
                            .collect(),
                        base: base.map(|base| ObjectHash::new([base as u8; 32])),
                    });
                }
            }
        }

        fn covered(&self, number: usize) -> Covered {
            let mut chain = vec![&self.anchors[number]];
            while let Some(base) = chain.last().and_then(|anchor| anchor.base) {
                chain.push(&self.anchors[usize::from(base.as_bytes()[0])]);
            }
            Covered::of(chain)
        }

        fn breaches(&self, shown: &Shown) -> Vec<(usize, Breach)> {
            let all = (0..self.anchors.len()).map(|number| (number, breach(&self.covered(number), shown)));
            all.filter(|(_, breach)| !breach.is_none()).collect()
        }
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => Just(Step::Add),
            1 => any::<u8>().prop_map(Step::Revoke),
            2 => any::<usize>().prop_map(Step::Forget),
            1 => Just(Step::Fold),
            3 => any::<bool>().prop_map(|base| Step::Anchor { base }),
        ];
        proptest::collection::vec(step, 1..60)
    }

    proptest! {
        #[test]
        fn whatever_is_done_in_order_keeps_every_anchor(steps in steps()) {
            let mut model = Model::default();
            for step in &steps {
                model.step(step);
                prop_assert_eq!(model.breaches(&model.shown), vec![]);
            }
        }

        #[test]
        fn a_covered_snapshot_that_goes_or_changes_without_a_removal_breaks_each_anchor_over_it(
            steps in steps(), which in any::<proptest::sample::Index>(), replaced in any::<bool>(),
        ) {
            let mut model = Model::default();
            steps.iter().for_each(|step| model.step(step));
            let whole: Vec<_> = model.shown.snapshots.iter()
                .filter(|(id, sight)| **sight == Sight::Whole && !model.shown.removed.contains(*id))
                .map(|(id, _)| *id).collect();
            prop_assume!(!whole.is_empty());
            let victim = whole[which.index(whole.len())];
            let mut shown = model.shown.clone();
            if replaced {
                shown.snapshots.insert(victim, Sight::Changed);
                // Another one beside it does not help.
                shown.snapshots.insert(snapshot(0), Sight::Whole);
            } else {
                shown.snapshots.remove(&victim);
            }
            let broken: Vec<_> = model.breaches(&shown).into_iter().map(|(number, _)| number).collect();
            let covering: Vec<_> = (0..model.anchors.len())
                .filter(|number| model.covered(*number).snapshots.contains(&victim)).collect();
            prop_assert_eq!(broken, covering);
        }

        #[test]
        fn a_store_copied_back_breaks_each_anchor_that_covers_what_came_since(
            steps in steps(), at in any::<proptest::sample::Index>(),
        ) {
            let at = at.index(steps.len());
            let mut model = Model::default();
            steps[..at].iter().for_each(|step| model.step(step));
            let old = model.shown.clone();
            steps[at..].iter().for_each(|step| model.step(step));
            let broken: BTreeSet<_> =
                model.breaches(&old).into_iter().map(|(number, _)| number).collect();
            for number in 0..model.anchors.len() {
                let covered = model.covered(number);
                let shows = covered.snapshots.iter().all(|id| {
                    old.removed.contains(id) || old.snapshots.get(id).is_some_and(|s| *s != Sight::Changed)
                });
                let numbers = covered.config <= old.config
                    && covered.writers.iter().all(|(id, n)| old.writers.get(id).is_some_and(|o| o >= n));
                prop_assert_eq!(broken.contains(&number), !(shows && numbers));
            }
        }
    }
}
