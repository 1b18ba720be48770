//! The gear hash: its secret table, its masks, and the portable scan.
//!
//! The hash after byte `p` is `hash = (hash << 1) + table[byte]`, so bit `k` depends on the last `k + 1` bytes only.

use super::params::ChunkParams;
#[cfg(any(test, target_arch = "x86_64"))]
use std::ops::Range;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Bytes that decide whether a place is a cut: no mask has a bit above 47.
#[cfg(any(test, target_arch = "x86_64"))]
const WINDOW: usize = 48;

/// Bytes hashed in one chain when a single place is looked at.
#[cfg(any(test, target_arch = "x86_64"))]
const GROUP: usize = 12;

/// Mask bits within the low 16 of the hash, counted from bit 15 down, that every mask has.
///
/// They are what a vector scan tests, on 16-bit lanes. From the top, because low bits depend on few bytes: bit 0 is a
/// single bit of the table's entry for one byte. Each further bit makes the scan faster, with fewer candidates, and
/// chunks of text less even, with a shorter window: with 13 an edit of source text made 28 % more new bytes than with
/// masks spread over the whole window, with 10 it makes 15 % more.
const LOW_BITS: u32 = 10;

/// [`LOW_BITS`] as a mask.
const LOW: u16 = u16::MAX << (16 - LOW_BITS);

/// Mask bits above the low 16, in the order they are taken: far apart, so that they see different windows.
const HIGH_BITS: [u32; 14] = [47, 31, 39, 23, 43, 27, 35, 19, 45, 29, 37, 21, 41, 33];

/// Which bits of the hash must be zero at a cut.
#[derive(Clone, Copy)]
struct Masks {
    /// Before the average: four times as rare as the average asks for.
    strict: u64,
    /// From the average on: four times as frequent. All its bits are in `strict`.
    loose: u64,
}

impl Masks {
    /// Normalised chunking of level 2 around `average`, a power of two.
    fn new(average: u32) -> Self {
        let bits = average.ilog2();
        let mask = |bits: u32| {
            let high = HIGH_BITS.iter().take((bits - LOW_BITS) as usize);
            high.fold(u64::from(LOW), |mask, bit| mask | 1 << bit)
        };
        Self { strict: mask(bits + 2), loose: mask(bits - 2) }
    }
}

/// Everything a scan needs. The table is secret: who knows it learns about content from chunk lengths.
#[derive(Zeroize, ZeroizeOnDrop)]
pub(super) struct Gear {
    table: [u64; 256],
    /// The table shifted left by one bit, for the portable scan of two bytes a step.
    shifted: [u64; 256],
    #[zeroize(skip)]
    masks: Masks,
    #[zeroize(skip)]
    pub(super) params: ChunkParams,
}

impl Gear {
    pub(super) fn new(key: &[u8; 32], params: ChunkParams) -> Self {
        let mut xof = blake3::Hasher::new_keyed(key).update(b"gear").finalize_xof();
        let mut gear =
            Self { table: [0; 256], shifted: [0; 256], masks: Masks::new(params.average()), params };
        let mut word = [0; 8];
        for (entry, shifted) in gear.table.iter_mut().zip(&mut gear.shifted) {
            xof.fill(&mut word);
            *entry = u64::from_le_bytes(word);
            *shifted = *entry << 1;
        }
        word.zeroize();
        gear
    }

    /// Length of the first chunk: the definition of where cuts are. Other scans must agree with it.
    ///
    /// A chunk ends before the first byte `p` with `min <= p`, `p < max` and `p < data.len()` whose hash passes the
    /// mask, the hash starting at zero before byte `min`; else at `max` or at the end of the data. The last byte of an
    /// odd number of bytes is not looked at.
    pub(super) fn cut(&self, data: &[u8]) -> usize {
        let Masks { strict, loose } = self.masks;
        let (_hash, length) = fastcdc::v2020::cut_gear(
            data,
            self.params.min() as usize,
            self.params.average() as usize,
            self.params.max() as usize,
            strict,
            loose,
            strict << 1,
            loose << 1,
            &self.table,
            &self.shifted,
        );
        length
    }
}

/// What the vector scan takes from here.
#[cfg(any(test, target_arch = "x86_64"))]
impl Gear {
    /// Low 16 bits of each entry, and which bits of their hash every mask tests: the top ones, without a gap.
    pub(super) fn low(&self) -> ([u16; 256], u16) {
        (self.table.map(|entry| entry as u16), LOW)
    }

    /// The first cut in `places`, when the hash starts at zero before byte `start`. Places lie from `start` to the end
    /// of `data`.
    pub(super) fn first_cut(&self, data: &[u8], start: usize, places: Range<usize>) -> Option<usize> {
        if places.len() == 1
            && let Some(window) = data[start..places.end].last_chunk()
        {
            return (self.hash_window(window) & self.mask_at(places.start) == 0).then_some(places.start);
        }
        let from = start.max(places.start.saturating_sub(WINDOW));
        let mut hash = data[from..places.start].iter().fold(0, |hash, &byte| self.step(hash, byte));
        for place in places {
            hash = self.step(hash, data[place]);
            if hash & self.mask_at(place) == 0 {
                return Some(place);
            }
        }
        None
    }

    /// The hash of a whole window, in groups: one chain of 48 additions would be slow.
    #[inline]
    fn hash_window(&self, window: &[u8; WINDOW]) -> u64 {
        let (groups, _) = window.as_chunks::<GROUP>();
        groups.iter().fold(0, |sum, group| {
            let hash = group.iter().fold(0, |hash, &byte| self.step(hash, byte));
            (sum << GROUP).wrapping_add(hash)
        })
    }

    #[inline]
    fn step(&self, hash: u64, byte: u8) -> u64 {
        (hash << 1).wrapping_add(self.table[usize::from(byte)])
    }

    #[inline]
    fn mask_at(&self, place: usize) -> u64 {
        if place < self.params.average() as usize { self.masks.strict } else { self.masks.loose }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_have_the_bits_that_the_scans_rely_on() {
        for bits in ChunkParams::LEAST_AVERAGE.ilog2()..=ChunkParams::MOST_AVERAGE.ilog2() {
            let Masks { strict, loose } = Masks::new(1 << bits);
            assert_eq!((strict.count_ones(), loose.count_ones()), (bits + 2, bits - 2));
            assert_eq!(strict & loose, loose, "a cut under the strict mask is one under the loose mask");
            assert_eq!(strict >> WINDOW, 0);
            assert_eq!((strict as u16, loose as u16), (LOW, LOW));
            assert_eq!(LOW.leading_ones() + LOW.trailing_zeros(), 16, "no gap");
        }
    }

    #[test]
    fn the_window_is_long_enough() {
        let gear = Gear::new(&[3; 32], ChunkParams::FILES);
        let mut other = [[1; 16], [2; 16], [3; 16], [4; 16]].concat();
        let one = other.clone();
        other[..64 - WINDOW].fill(99);
        let hash = |data: &[u8]| data.iter().fold(0, |hash, &byte| gear.step(hash, byte));
        assert_ne!(hash(&one), hash(&other));
        assert_eq!(hash(&one) & gear.masks.strict, hash(&other) & gear.masks.strict);
        let window = one.last_chunk().unwrap();
        assert_eq!(gear.hash_window(window), hash(window));
    }

    #[test]
    fn the_table_depends_on_every_byte_of_the_key() {
        let table = |key: &[u8; 32]| Gear::new(key, ChunkParams::FILES).table;
        let first = table(&[0; 32]);
        for byte in 0..32 {
            let mut key = [0; 32];
            key[byte] = 1;
            let same = table(&key).iter().zip(&first).filter(|(a, b)| a == b).count();
            assert_eq!(same, 0);
        }
    }
}
