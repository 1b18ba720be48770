//! Checksums of pages, as PostgreSQL computes them: 32 sums side by side over a page in FNV-1a style, folded into 16 bits
//! together with the page's number (`src/include/storage/checksum_impl.h` of PostgreSQL).

use crate::postgres::Lsn;

/// Sums side by side.
const SUMS: usize = 32;
const PRIME: u32 = 16_777_619;
/// What the sums begin with: random numbers that are part of PostgreSQL's format.
const BASE: [u32; SUMS] = [
    0x5b1f_36e9,
    0xb852_5960,
    0x02ab_50aa,
    0x1de6_6d2a,
    0x79ff_467a,
    0x9bb9_f8a3,
    0x217e_7cd2,
    0x83e1_3d2c,
    0xf8d4_474f,
    0xe39e_b970,
    0x42c6_ae16,
    0x9932_16fa,
    0x7b09_3b5d,
    0x98da_ff3c,
    0xf718_902a,
    0x0b1c_9cdb,
    0xe58f_764b,
    0x1876_36bc,
    0x5d7b_3bb1,
    0xe73d_e7de,
    0x92be_c979,
    0xcca6_c0b2,
    0x304a_0979,
    0x85aa_43d4,
    0x7831_25bb,
    0x6ca8_eaa2,
    0xe407_eac6,
    0x4b5c_fc3e,
    0x9fbf_8c76,
    0x15ca_20be,
    0xf2ca_9fd3,
    0x959b_d756,
];
/// Bytes of a page's header.
const HEADER: usize = 24;
/// Where the header has the checksum.
const CHECKSUM: usize = 8;
/// Where the header has the upper end of free space: zero only in a page that nobody has used yet.
const UPPER: usize = 14;

/// What a page says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Nobody has used it yet; it has no checksum.
    New,
    /// The checksum is right.
    Right,
    /// The checksum is wrong. The position is that of the last change the page claims to hold.
    Wrong(Lsn),
}

/// Whether the page, number `number` of its relation's fork, is what was written. Its length is a multiple of 128 bytes.
pub fn check(page: &[u8], number: u32) -> Verdict {
    debug_assert!(page.len() >= HEADER && page.len().is_multiple_of(4 * SUMS));
    let half = |at: usize| u16::from_le_bytes([page[at], page[at + 1]]);
    if half(UPPER) == 0 {
        return Verdict::New;
    }
    if half(CHECKSUM) == checksum(page, number) {
        return Verdict::Right;
    }
    let word = |at: usize| u64::from(half(at)) | u64::from(half(at + 2)) << 16;
    Verdict::Wrong(Lsn(word(0) << 32 | word(4)))
}

/// The checksum of a page.
pub fn checksum(page: &[u8], number: u32) -> u16 {
    let mut sums = BASE;
    for (at, row) in page.chunks_exact(4 * SUMS).enumerate() {
        let mut words = [0_u32; SUMS];
        for (word, bytes) in words.iter_mut().zip(row.chunks_exact(4)) {
            *word = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        }
        if at == 0 {
            // The field itself counts as zero; the flags behind it do not.
            words[CHECKSUM / 4] &= 0xffff_0000;
        }
        mix(&mut sums, &words);
    }
    // Two rounds of zeroes, so that the last words spread.
    mix(&mut sums, &[0; SUMS]);
    mix(&mut sums, &[0; SUMS]);
    let folded = sums.iter().fold(0, |folded, sum| folded ^ sum) ^ number;
    // Never zero.
    (folded % 65_535 + 1) as u16
}

fn mix(sums: &mut [u32; SUMS], words: &[u32; SUMS]) {
    for (sum, word) in sums.iter_mut().zip(words) {
        let mixed = *sum ^ word;
        *sum = mixed.wrapping_mul(PRIME) ^ (mixed >> 17);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page() -> Vec<u8> {
        let mut page: Vec<u8> = (0..8192_u32).map(|at| (at * 7 + at / 256) as u8).collect();
        page[..8].copy_from_slice(&[2, 0, 0, 0, 0x28, 0, 0, 1]);
        let sum = checksum(&page, 5).to_le_bytes();
        page[CHECKSUM..CHECKSUM + 2].copy_from_slice(&sum);
        page
    }

    #[test]
    fn every_flipped_bit_and_another_place_are_seen() {
        let page = page();
        assert_eq!(check(&page, 5), Verdict::Right);
        assert_eq!(check(&page, 6), Verdict::Wrong(Lsn(0x2_0100_0028)));
        for at in (8..8192 * 8).step_by(61) {
            let mut flipped = page.clone();
            flipped[at / 8] ^= 1 << (at % 8);
            assert_ne!(check(&flipped, 5), Verdict::Right, "bit {at}");
        }
    }

    #[test]
    fn a_page_that_nobody_used_has_none() {
        assert_eq!(check(&[0; 8192], 9), Verdict::New);
    }
}
