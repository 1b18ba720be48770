//! A bounded cache: what was used last stays.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

/// Values with weights. Together they never weigh more than the bound, unless a single one alone does.
#[derive(Debug)]
pub(super) struct Lru<K, V> {
    entries: HashMap<K, Entry<V>>,
    /// Keys by the time of their last use.
    order: BTreeMap<u64, K>,
    tick: u64,
    weight: usize,
    most: usize,
}

#[derive(Debug)]
struct Entry<V> {
    value: V,
    weight: usize,
    used: u64,
}

impl<K: Hash + Eq + Copy, V: Clone> Lru<K, V> {
    /// Holds values of this weight.
    pub(super) fn new(most: usize) -> Self {
        Self { entries: HashMap::new(), order: BTreeMap::new(), tick: 0, weight: 0, most }
    }

    /// The value, which has now been used.
    pub(super) fn get(&mut self, key: &K) -> Option<V> {
        let entry = self.entries.get_mut(key)?;
        self.order.remove(&entry.used);
        self.tick += 1;
        entry.used = self.tick;
        self.order.insert(self.tick, *key);
        Some(entry.value.clone())
    }

    /// Keeps a value, in the place of those that were not used for longest.
    pub(super) fn insert(&mut self, key: K, value: V, weight: usize) {
        self.remove(&key);
        while self.weight.saturating_add(weight) > self.most {
            let Some((_, oldest)) = self.order.pop_first() else { break };
            if let Some(entry) = self.entries.remove(&oldest) {
                self.weight -= entry.weight;
            }
        }
        self.tick += 1;
        self.weight += weight;
        self.order.insert(self.tick, key);
        self.entries.insert(key, Entry { value, weight, used: self.tick });
    }

    /// Gives a value up.
    pub(super) fn remove(&mut self, key: &K) {
        if let Some(entry) = self.entries.remove(key) {
            self.order.remove(&entry.used);
            self.weight -= entry.weight;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_kept_was_used_last_and_fits(
            steps in prop::collection::vec((0_u8..12, 0_usize..40, any::<bool>()), 0..200)
        ) {
            let mut lru = Lru::new(100);
            // Keys and weights, the one used last in the end.
            let mut model: Vec<(u8, usize)> = Vec::new();
            for (key, weight, insert) in steps {
                if insert {
                    lru.insert(key, weight, weight);
                    model.retain(|(known, _)| *known != key);
                    while model.iter().map(|(_, weight)| weight).sum::<usize>() + weight > 100 {
                        model.remove(0);
                    }
                    model.push((key, weight));
                } else {
                    let place = model.iter().position(|(known, _)| *known == key);
                    let known = place.map(|place| model.remove(place));
                    model.extend(known);
                    prop_assert_eq!(lru.get(&key), known.map(|(_, weight)| weight));
                }
                prop_assert_eq!(lru.weight, model.iter().map(|(_, weight)| weight).sum::<usize>());
                prop_assert!(lru.weight <= 100);
                prop_assert_eq!((lru.order.len(), lru.entries.len()), (model.len(), model.len()));
            }
        }
    }

    #[test]
    fn a_value_that_is_too_heavy_is_alone() {
        let mut lru = Lru::new(10);
        lru.insert(1, (), 5);
        lru.insert(2, (), 1000);
        assert_eq!((lru.get(&1), lru.get(&2)), (None, Some(())));
        lru.insert(3, (), 1);
        assert_eq!((lru.get(&2), lru.get(&3)), (None, Some(())));
        lru.remove(&3);
        assert_eq!((lru.weight, lru.order.len()), (0, 0));
    }
}
