//! Sets of small numbers as bits, plain and atomic.

use std::sync::atomic::{AtomicU64, Ordering};

/// A fixed number of bits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bits {
    words: Vec<u64>,
}

impl Bits {
    pub(super) fn new(len: usize, value: bool) -> Self {
        Self { words: vec![if value { u64::MAX } else { 0 }; len.div_ceil(64)] }
    }

    /// Whether bit `number` is set; false beyond the end.
    #[inline]
    pub(super) fn get(&self, number: usize) -> bool {
        self.words.get(number / 64).is_some_and(|word| word >> (number % 64) & 1 == 1)
    }

    /// Sets bit `number` to `value`; nothing happens beyond the end.
    pub(super) fn set(&mut self, number: usize, value: bool) {
        if let Some(word) = self.words.get_mut(number / 64) {
            let bit = 1 << (number % 64);
            if value { *word |= bit } else { *word &= !bit }
        }
    }
}

/// A set of slots of a view, for who walks what snapshots reach.
#[derive(Debug)]
pub struct BitSet(Bits);

impl BitSet {
    /// An empty set of slots below `len`.
    pub fn new(len: usize) -> Self {
        Self(Bits::new(len, false))
    }

    /// Whether the slot is in it.
    pub fn get(&self, slot: usize) -> bool {
        self.0.get(slot)
    }

    /// Puts a slot into it.
    pub fn set(&mut self, slot: usize) {
        self.0.set(slot, true);
    }

    /// Takes all out.
    pub fn clear(&mut self) {
        self.0.words.fill(0);
    }
}

/// Bits that threads set and never clear. What a bit stands for is immutable, so no ordering is needed.
#[derive(Debug)]
pub(super) struct AtomicBits {
    words: Box<[AtomicU64]>,
}

impl AtomicBits {
    pub(super) fn new(len: usize) -> Self {
        Self { words: (0..len.div_ceil(64)).map(|_| AtomicU64::new(0)).collect() }
    }

    #[inline]
    pub(super) fn get(&self, number: usize) -> bool {
        self.words.get(number / 64).is_some_and(|word| word.load(Ordering::Relaxed) >> (number % 64) & 1 == 1)
    }

    pub(super) fn set(&self, number: usize) {
        if let Some(word) = self.words.get(number / 64) {
            word.fetch_or(1 << (number % 64), Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_keep_their_values_and_end_where_they_end() {
        let mut bits = Bits::new(70, false);
        let shared = AtomicBits::new(70);
        for number in [0, 63, 64, 69, 1000] {
            bits.set(number, true);
            shared.set(number);
        }
        let expected = |number| [0, 63, 64, 69].contains(&number);
        assert!((0..2000).all(|number| bits.get(number) == expected(number)));
        assert!((0..2000).all(|number| shared.get(number) == expected(number)));
        bits.set(63, false);
        assert!(!bits.get(63) && bits.get(64));
    }
}
