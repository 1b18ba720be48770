//! The gear hash: its secret table, its masks, and the portable scan.
//!
//! The hash after byte `p` is `hash = (hash << 1) + table[byte]`, so bit `k` depends on the last `k + 1` bytes only.

use super::params::ChunkParams;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Bytes that decide whether a place is a cut: no mask has a bit above 47.
pub(super) const WINDOW: usize = 48;

/// Mask bits within the low 16 of the hash, counted from bit 15 down, that every mask has.
///
/// They are what a vector scan tests, on 16-bit lanes. From the top, because low bits depend on few bytes: bit 0 is a
/// single bit of the table's entry for one byte. Not more than 13, because the other bits see a longer window.
const LOW_BITS: u32 = 13;

/// Mask bits above the low 16, in the order they are taken: far apart, so that they see different windows.
const HIGH_BITS: [u32; 12] = [47, 31, 39, 23, 43, 27, 35, 19, 45, 29, 37, 21];

/// Which bits of the hash must be zero at a cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Masks {
    /// Before the average: four times as rare as the average asks for.
    pub(super) strict: u64,
    /// From the average on: four times as frequent. All its bits are in `strict`.
    pub(super) loose: u64,
    /// What both have in the low 16 bits: the top bits of those, without a gap.
    pub(super) low: u16,
}

impl Masks {
    /// Normalised chunking of level 2 around `average`, a power of two.
    fn new(average: u32) -> Self {
        let bits = average.ilog2();
        let low_bits = LOW_BITS.min(bits - 2);
        let low = u16::MAX << (16 - low_bits);
        let mask = |bits: u32| {
            let high = HIGH_BITS.iter().take((bits - low_bits) as usize);
            high.fold(u64::from(low), |mask, bit| mask | 1 << bit)
        };
        Self { strict: mask(bits + 2), loose: mask(bits - 2), low }
    }
}

/// Everything a scan needs. The table is secret: who knows it learns about content from chunk lengths.
#[derive(Zeroize, ZeroizeOnDrop)]
pub(super) struct Gear {
    table: [u64; 256],
    /// The table shifted left by one bit, for the portable scan of two bytes a step.
    shifted: [u64; 256],
    #[zeroize(skip)]
    pub(super) masks: Masks,
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
        xof.zeroize();
        gear
    }

    /// Low 16 bits of each entry.
    pub(super) fn low_table(&self) -> [u16; 256] {
        self.table.map(|entry| entry as u16)
    }

    /// Length of the first chunk: the definition of where cuts are. Other scans must agree with it.
    pub(super) fn cut(&self, data: &[u8]) -> usize {
        
        let (min, average, max) =
            (self.params.min() as usize, self.params.average() as usize, self.params.max() as usize);
        let Masks { strict, loose, .. } = self.masks;
        let (_hash, length) = fastcdc::v2020::cut_gear(
            data,
            min,
            average,
            max,
            strict,
            loose,
            strict << 1,
            loose << 1,
            &self.table,
            &self.shifted,
        );
        length
    }

    /// Whether a chunk of `data` may end before byte `place`, when the hash starts at byte `start <= place`.
    pub(super) fn is_cut(&self, data: &[u8], start: usize, place: usize) -> bool {
        let from = start.max((place + 1).saturating_sub(WINDOW));
        let hash = data[from..=place]
            .iter()
            .fold(0_u64, |hash, &byte| (hash << 1).wrapping_add(self.table[usize::from(byte)]));
        hash & self.mask_at(place) == 0
    }

    /// The first cut in `places`, byte by byte.
    pub(super) fn first_cut(&self, data: &[u8], start: usize, places: std::ops::Range<usize>) -> Option<usize> {
        let from = start.max(places.start.saturating_sub(WINDOW));
        let mut hash = 0_u64;
        for (place, &byte) in data.iter().enumerate().take(places.end).skip(from) {
            hash = (hash << 1).wrapping_add(self.table[usize::from(byte)]);
            if place >= places.start && hash & self.mask_at(place) == 0 {
                return Some(place);
            }
        }
        None
    }

    fn mask_at(&self, place: usize) -> u64 {
        if place < self.params.average() as usize { self.masks.strict } else { self.masks.loose }
    }
}
