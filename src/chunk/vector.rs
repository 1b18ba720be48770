//! Finding candidates of cuts with AVX-512 VBMI, 64 places at a time.
//!
//! The low 16 bits of a gear hash after byte `p` are `sum of table[byte[p - i]] << i` for `i` in `0..16`. Written with
//! `D` for "the value one byte earlier" that sum is `(1 + 2 D)(1 + 4 D^2)(1 + 16 D^4)(1 + 256 D^8) table[byte]`: four
//! shifts and additions instead of sixteen, in any order. The last factor adds a low byte to a high byte and is done
//! on bytes; then places are split into even and odd ones, in 16-bit lanes, where an odd place needs no shuffle to see
//! the even one before it.
//!
//! # Invariants
//!
//! Every place whose full hash passes a mask is reported; most reported places are no cuts. The caller confirms.
#![expect(unsafe_code, reason = "vector loads, and calls of functions compiled for AVX-512")]

use std::arch::x86_64::{
    __m512i, _MM_HINT_T0, _mm_prefetch, _mm512_add_epi8, _mm512_add_epi16, _mm512_alignr_epi32,
    _mm512_alignr_epi64, _mm512_loadu_si512, _mm512_mask_blend_epi8, _mm512_movepi8_mask,
    _mm512_permutex2var_epi8, _mm512_set1_epi16, _mm512_setzero_si512, _mm512_shldi_epi32, _mm512_slli_epi16,
    _mm512_srli_epi16, _mm512_testn_epi16_mask, _pdep_u64,
};
use std::ops::Range;

const EVEN_BITS: u64 = 0x5555_5555_5555_5555;

/// Bytes that one round of the scan takes.
pub(super) const ROUND: usize = 256;

/// Rounds after which candidates are confirmed; a power of two.
const BATCH: usize = 8;

/// Bytes asked of memory in advance. Skipping up to the minimum length loses the processor's own prefetching.
const AHEAD: usize = 2048;

/// Most candidates of a round that are looked at one by one.
const CROWD: u32 = 12;

/// Lookup tables of the low 16 bits, split by byte as the byte permutes want them.
#[derive(Clone, zeroize::Zeroize, zeroize::ZeroizeOnDrop)]
#[repr(C, align(64))]
pub(super) struct Finder {
    low: [u8; 256],
    high: [u8; 256],
    #[zeroize(skip)]
    mask: u16,
}

impl Finder {
    /// `None` when this processor cannot run the scan. `mask` has the top bits of 16, without a gap.
    pub(super) fn new(table: &[u16; 256], mask: u16) -> Option<Self> {
        let runs = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vbmi")
            && is_x86_feature_detected!("avx512vbmi2")
            && is_x86_feature_detected!("bmi1")
            && is_x86_feature_detected!("bmi2")
            && is_x86_feature_detected!("popcnt");
        let low = table.map(|entry| entry as u8);
        let high = table.map(|entry| (entry >> 8) as u8);
        runs.then_some(Self { low, high, mask })
    }

    /// Looks at the whole rounds of `data`, the hash starting at zero before the first byte.
    ///
    /// Calls `confirm` with ranges that hold every candidate, in ascending order, until it returns a place, and returns
    /// that as `Ok`; else returns the number of bytes looked at as `Err`.
    pub(super) fn find(
        &self,
        data: &[u8],
        confirm: impl FnMut(Range<usize>) -> Option<usize>,
    ) -> Result<usize, usize> {
        // SAFETY: a `Finder` exists only where `new` has found the features that `scan` is compiled for.
        unsafe { scan(self, data, confirm) }
    }
}

/// What the next 64 places need of the last 64: the last few bytes of each stage.
struct Carry {
    low: __m512i,
    odd: __m512i,
    even2: __m512i,
    odd2: __m512i,
    even4: __m512i,
    odd4: __m512i,
}

/// Which lanes of a round passed, in its four parts: even places, odd places.
type Passed = [[u32; 2]; 4];

#[target_feature(enable = "avx512f,avx512bw,avx512vbmi,avx512vbmi2,bmi1,bmi2,popcnt")]
fn scan(
    finder: &Finder,
    data: &[u8],
    mut confirm: impl FnMut(Range<usize>) -> Option<usize>,
) -> Result<usize, usize> {
    let (low, high) = (load_table(&finder.low), load_table(&finder.high));
    let mask = _mm512_set1_epi16(finder.mask.cast_signed());
    let zero = _mm512_setzero_si512();
    let mut carry = Carry { low: zero, odd: zero, even2: zero, odd2: zero, even4: zero, odd4: zero };
    prefetch::<AHEAD>(data.as_ptr());
    let (rounds, _) = data.as_chunks::<ROUND>();
    for (batch, rounds) in rounds.chunks(BATCH).enumerate() {
        let mut passed: [Passed; BATCH] = Default::default();
        let mut hits = [0_u8; BATCH];
        let mut hit_count = 0;
        for (round, bytes) in rounds.iter().enumerate() {
            prefetch::<ROUND>(bytes.as_ptr().wrapping_add(AHEAD));
            let (parts, _) = bytes.as_chunks::<64>();
            let mut any = 0;
            for (part, passed) in parts.iter().zip(&mut passed[round]) {
                let [even, odd] = hash(load(part), &low, &high, &mut carry);
                *passed = [_mm512_testn_epi16_mask(even, mask), _mm512_testn_epi16_mask(odd, mask)];
                any |= passed[0] | passed[1];
            }
            // Without a branch: it would be predicted wrongly again and again, and empty the pipeline.
            hits[hit_count & (BATCH - 1)] = round as u8;
            hit_count += usize::from(any != 0);
        }
        for &round in &hits[..hit_count] {
            let start = (batch * BATCH + usize::from(round)) * ROUND;
            if let Some(place) = confirm_round(start, &passed[usize::from(round)], &mut confirm) {
                return Ok(place);
            }
        }
    }
    Err(rounds.len() * ROUND)
}

/// Confirms the candidates of the round that begins at `start`.
#[inline]
#[target_feature(enable = "bmi1,bmi2,popcnt")]
fn confirm_round(
    start: usize,
    passed: &Passed,
    confirm: &mut impl FnMut(Range<usize>) -> Option<usize>,
) -> Option<usize> {
    let mut places = passed
        .map(|[even, odd]| _pdep_u64(u64::from(even), EVEN_BITS) | _pdep_u64(u64::from(odd), !EVEN_BITS));
    // Repetitive data may pass everywhere and be a cut nowhere; rolling through it costs less than one look a place.
    if places.iter().map(|part| part.count_ones()).sum::<u32>() > CROWD {
        return confirm(start..start + ROUND);
    }
    while let Some(place) = take_first(&mut places) {
        let place = start + place;
        if let Some(cut) = confirm(place..place + 1) {
            return Some(cut);
        }
    }
    None
}

/// Low 16 bits of the hash after each of 64 bytes: the even places, the odd places.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi,avx512vbmi2,bmi1,bmi2,popcnt")]
fn hash(bytes: __m512i, low: &[__m512i; 4], high: &[__m512i; 4], carry: &mut Carry) -> [__m512i; 2] {
    // 1 + 256 D^8, on bytes: eight bytes are one 64-bit lane.
    let low = lookup(low, bytes);
    let high = _mm512_add_epi8(lookup(high, bytes), _mm512_alignr_epi64(low, carry.low, 7));
    let even = _mm512_mask_blend_epi8(!EVEN_BITS, low, _mm512_slli_epi16(high, 8));
    let odd = _mm512_mask_blend_epi8(!EVEN_BITS, _mm512_srli_epi16(low, 8), high);
    // 1 + 2 D
    let even2 = _mm512_add_epi16(even, _mm512_slli_epi16(earlier(odd, carry.odd), 1));
    let odd2 = _mm512_add_epi16(odd, _mm512_slli_epi16(even, 1));
    // 1 + 4 D^2: two places are one lane.
    let even4 = _mm512_add_epi16(even2, _mm512_slli_epi16(earlier(even2, carry.even2), 2));
    let odd4 = _mm512_add_epi16(odd2, _mm512_slli_epi16(earlier(odd2, carry.odd2), 2));
    // 1 + 16 D^4: four places are two lanes.
    let even8 = _mm512_alignr_epi32(even4, carry.even4, 15);
    let odd8 = _mm512_alignr_epi32(odd4, carry.odd4, 15);
    let sums = [
        _mm512_add_epi16(even4, _mm512_slli_epi16(even8, 4)),
        _mm512_add_epi16(odd4, _mm512_slli_epi16(odd8, 4)),
    ];
    *carry = Carry { low, odd, even2, odd2, even4, odd4 };
    sums
}

/// `now` moved up by one 16-bit lane; the last lane of `before` comes first.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi,avx512vbmi2,bmi1,bmi2,popcnt")]
fn earlier(now: __m512i, before: __m512i) -> __m512i {
    _mm512_shldi_epi32(now, _mm512_alignr_epi32(now, before, 15), 16)
}

/// `table[byte]` for 64 bytes: the permutes look at seven bits, the top bit chooses between them.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi,avx512vbmi2,bmi1,bmi2,popcnt")]
fn lookup(table: &[__m512i; 4], bytes: __m512i) -> __m512i {
    let lower = _mm512_permutex2var_epi8(table[0], bytes, table[1]);
    let upper = _mm512_permutex2var_epi8(table[2], bytes, table[3]);
    _mm512_mask_blend_epi8(_mm512_movepi8_mask(bytes), lower, upper)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load_table(table: &[u8; 256]) -> [__m512i; 4] {
    let (parts, _) = table.as_chunks::<64>();
    [load(&parts[0]), load(&parts[1]), load(&parts[2]), load(&parts[3])]
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load(bytes: &[u8; 64]) -> __m512i {
    // SAFETY: the reference is to 64 readable bytes, and this load needs no alignment.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
}

/// Asks for the cache lines of `N` bytes.
#[inline]
fn prefetch<const N: usize>(from: *const u8) {
    for line in 0..N / 64 {
        // SAFETY: a prefetch reads nothing and faults nowhere, whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(from.wrapping_add(line * 64).cast()) };
    }
}

/// Clears the lowest bit of 256 and returns its number.
#[inline]
fn take_first(places: &mut [u64; 4]) -> Option<usize> {
    let [a, b, c, d] = places.map(|part| part != 0);
    // Without branches: which part it is cannot be predicted.
    let part =
        (u8::from(a) | u8::from(b) << 1 | u8::from(c) << 2 | u8::from(d) << 3).trailing_zeros() as usize;
    let bits = places.get_mut(part)?;
    let bit = bits.trailing_zeros() as usize;
    *bits &= *bits - 1;
    Some(part * 64 + bit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(len: usize, seed: u64) -> impl Iterator<Item = u64> {
        std::iter::successors(Some(seed), |state| Some(state.wrapping_mul(6_364_136_223_846_793_005) + 1))
            .take(len)
    }

    /// Places whose low hash passes, by the definition of the hash.
    fn passing(table: &[u16; 256], mask: u16, data: &[u8]) -> Vec<usize> {
        let hashes = data.iter().scan(0_u16, |hash, &byte| {
            *hash = (*hash << 1).wrapping_add(table[usize::from(byte)]);
            Some(*hash)
        });
        hashes.enumerate().filter(|(_, hash)| hash & mask == 0).map(|(place, _)| place).collect()
    }

    #[test]
    fn every_place_that_passes_is_shown_once_and_in_order() {
        let table: Vec<_> = bytes(256, 1).map(|word| (word >> 48) as u16).collect();
        let table = table.try_into().unwrap();
        let data: Vec<_> = bytes(20_000, 2).map(|word| (word >> 56) as u8).collect();
        // From every second place, which crowds each round, to one in 65536.
        for bits in 1..=16 {
            let mask = u16::MAX << (16 - bits);
            let Some(finder) = Finder::new(&table, mask) else { return };
            for data in [&data[..], &data[1..6000], &data[..ROUND], &data[..ROUND - 1], &[]] {
                let mut shown = Vec::new();
                let seen = finder.find(data, |places| {
                    shown.push(places);
                    None
                });
                assert_eq!(seen, Err(data.len() / ROUND * ROUND));
                assert!(shown.is_sorted_by(|a, b| a.end <= b.start));
                let expected = passing(&table, mask, &data[..data.len() / ROUND * ROUND]);
                assert!(
                    expected.iter().all(|place| shown.iter().any(|places| places.contains(place))),
                    "{bits}"
                );
                let single: Vec<_> = shown.iter().filter(|places| places.len() == 1).collect();
                assert!(single.iter().all(|places| expected.contains(&places.start)), "{bits}");
            }
        }
    }

    #[test]
    fn the_first_confirmed_place_ends_the_scan() {
        let table = std::array::from_fn(|byte| if byte == 7 { 0 } else { 0x8000 });
        let mut data = vec![1; 3 * ROUND];
        data[300] = 7;
        data[301] = 7;
        let Some(finder) = Finder::new(&table, 0x8000) else { return };
        assert_eq!(finder.find(&data, |places| Some(places.start)), Ok(300));
        assert_eq!(finder.find(&data, |places| (places.start > 300).then_some(places.start)), Ok(301));
    }

    #[test]
    fn the_lowest_bit_is_taken_first() {
        let mut places = [0, 1 << 63 | 2, 0, 1];
        assert_eq!(std::iter::from_fn(|| take_first(&mut places)).collect::<Vec<_>>(), [65, 127, 192]);
        assert_eq!(places, [0; 4]);
    }
}
