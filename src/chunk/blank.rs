//! Leaving zeroes out of an image: a disk is mostly what was never written.

use std::ops::Range;

/// The smallest block that is left out, in bytes.
const LEAST: u64 = 16 << 10;
/// An image has at most this many blocks, so that a node can name the holes between its data.
const BLOCKS_MAX: u64 = 1 << 16;

/// Length of the blocks of an image of `size` bytes that are left out if they are all zero: a power of two. A stored
/// property: another length moves the ranges in which chunks are cut.
pub fn blank_block(size: u64) -> u64 {
    size.div_ceil(BLOCKS_MAX).clamp(LEAST, 1 << 62).next_power_of_two()
}

/// A part of what was pushed, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// These bytes of the last push are content.
    Data(Range<usize>),
    /// So many zeroes are content: the block that they begin goes on with something else.
    Zeroes(u64),
    /// So many zeroes are a hole.
    Blank(u64),
}

/// Splits a part of an image, pushed in pieces of any length, into content and blank blocks.
///
/// Blocks lie at multiples of their length in the image. One that is cut off by an end of the part counts as a block.
#[derive(Debug)]
pub struct Blanks {
    block: u64,
    /// Place in the image of what is pushed next.
    at: u64,
    /// Zeroes since the beginning of the block at hand; `None` once it holds anything else.
    zeroes: Option<u64>,
}

impl Blanks {
    /// For a part of an image that begins at `at`; `block` is from [`blank_block`].
    pub fn new(block: u64, at: u64) -> Self {
        Self { block: block.max(1), at, zeroes: Some(0) }
    }

    /// Takes the next bytes; `parts` gets what is decided now.
    pub fn push(&mut self, bytes: &[u8], parts: &mut Vec<Part>) {
        let mut start = 0;
        while start < bytes.len() {
            let left = self.block - self.at % self.block;
            let end = usize::try_from(left).map_or(bytes.len(), |left| bytes.len().min(start + left));
            let piece = &bytes[start..end];
            self.zeroes = match self.zeroes {
                Some(zeroes) if is_zero(piece) => Some(zeroes + piece.len() as u64),
                zeroes => {
                    parts.extend(zeroes.filter(|zeroes| *zeroes > 0).map(Part::Zeroes));
                    parts.push(Part::Data(start..end));
                    None
                }
            };
            self.at += piece.len() as u64;
            if self.at.is_multiple_of(self.block) {
                self.finish(parts);
            }
            start = end;
        }
    }

    /// Ends the block at hand; called when nothing more comes.
    pub fn finish(&mut self, parts: &mut Vec<Part>) {
        parts.extend(self.zeroes.filter(|zeroes| *zeroes > 0).map(Part::Blank));
        self.zeroes = Some(0);
    }
}

/// Whether there is nothing but zeroes. Stops soon after the first other byte.
pub fn is_zero(bytes: &[u8]) -> bool {
    bytes.chunks(256).all(|chunk| chunk.iter().fold(0, |all, byte| all | byte) == 0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_image_has_no_more_blocks_than_a_node_can_name() {
        assert_eq!(blank_block(0), LEAST);
        assert_eq!(blank_block(1 << 30), LEAST);
        assert_eq!(blank_block((1 << 30) + 1), LEAST * 2);
        for size in [1, 1 << 31, (1 << 40) - 1, 1 << 40, u64::MAX] {
            let block = blank_block(size);
            assert!(block.is_power_of_two() && size / block <= BLOCKS_MAX, "{size}");
        }
    }

    #[test]
    fn zeroes_are_told_from_the_rest() {
        for len in [0, 1, 255, 256, 257, 5000] {
            let mut bytes = vec![0; len];
            assert!(is_zero(&bytes));
            for at in [0, len / 2, len.saturating_sub(1)] {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = 1;
                    assert!(!is_zero(&bytes), "{at} of {len}");
                    bytes[at] = 0;
                }
            }
        }
    }

    proptest! {
        #[test]
        fn exactly_the_blank_blocks_are_left_out_however_the_bytes_come(
            runs in prop::collection::vec((any::<bool>(), 1_usize..100), 0..12),
            cuts in prop::collection::vec(1_usize..70, 1..12),
            at in 0_u64..100,
            block in prop::sample::select(vec![1_u64, 2, 16, 32, 64]),
        ) {
            let image: Vec<u8> = runs.into_iter().flat_map(|(zero, len)| vec![u8::from(!zero); len]).collect();
            let mut blanks = Blanks::new(block, at);
            // `true` for a byte that is content.
            let (mut kept, mut content) = (Vec::new(), Vec::new());
            let mut settle = |parts: Vec<Part>, bytes: &[u8]| for part in parts {
                let (len, data) = match part {
                    Part::Data(range) => (range.len(), Some(bytes[range].to_vec())),
                    Part::Zeroes(len) => (len as usize, Some(vec![0; len as usize])),
                    Part::Blank(len) => (len as usize, None),
                };
                kept.extend(vec![data.is_some(); len]);
                content.extend(data.unwrap_or_default());
            };
            let mut rest = &image[..];
            for cut in cuts.into_iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (bytes, after) = rest.split_at(cut.min(rest.len()));
                let mut parts = Vec::new();
                blanks.push(bytes, &mut parts);
                settle(parts, bytes);
                rest = after;
            }
            let mut parts = Vec::new();
            blanks.finish(&mut parts);
            settle(parts, &[]);

            let number = |place: usize| (at + place as u64) / block;
            let data = |n: u64| image.iter().enumerate().any(|(place, byte)| number(place) == n && *byte != 0);
            let expected: Vec<bool> = (0..image.len()).map(|place| data(number(place))).collect();
            prop_assert_eq!(&kept, &expected);
            let held: Vec<u8> = image.iter().zip(&expected).filter(|(_, kept)| **kept).map(|(b, _)| *b).collect();
            prop_assert_eq!(content, held);
        }
    }
}
