//! Files with holes, as GNU tar stores them in its format 1.0: a map in front of the content says where each part belongs.
//!
//! # Invariants
//! Each part begins at a whole block of the file and has whole blocks, the last one apart: GNU tar reads each part from a block
//! of its own, others read them one behind the other, and so both read the same.

use super::header::{BLOCK, digits};

/// The parts of a file that are not holes, as an archive holds them: offset and length, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Parts {
    list: Vec<(u64, u64)>,
    size: u64,
    /// The first part that was not passed.
    next: usize,
}

impl Parts {
    /// Of a file of `size` bytes. `holes` are ascending and apart, as a decoded node has them, and within the file.
    pub(super) fn new(size: u64, holes: &[(u64, u64)]) -> Self {
        let mut list: Vec<(u64, u64)> = Vec::new();
        let mut at = 0;
        let ends = holes.iter().map(|(offset, len)| (*offset, offset.saturating_add(*len)));
        for (hole, behind) in ends.chain([(size, size)]) {
            if at < hole {
                let start = at - at % BLOCK as u64;
                let end = hole.checked_next_multiple_of(BLOCK as u64).map_or(size, |end| end.min(size));
                match list.last_mut() {
                    Some((offset, len)) if start <= *offset + *len => {
                        *len = end.max(*offset + *len) - *offset
                    }
                    _ => list.push((start, end - start)),
                }
            }
            at = behind;
        }
        Self { list, size, next: 0 }
    }

    /// Whether there is anything to leave out.
    pub(super) fn has_holes(&self) -> bool {
        self.stored() < self.size
    }

    /// Bytes of all parts.
    pub(super) fn stored(&self) -> u64 {
        self.list.iter().map(|(_, len)| len).sum()
    }

    /// Bytes of parts between two places of the file. Call it in ascending order.
    pub(super) fn between(&mut self, from: u64, to: u64) -> u64 {
        let mut sum = 0;
        while let Some((offset, len)) = self.list.get(self.next) {
            let end = offset + len;
            sum += end.min(to).saturating_sub((*offset).max(from));
            if end > to {
                break;
            }
            self.next += 1;
        }
        sum
    }

    /// The numbers of the map: how many parts, and each. A hole at the end is shown by an empty part.
    fn numbers(&self) -> impl Iterator<Item = u64> {
        let end = self.list.last().map_or(0, |(offset, len)| offset + len);
        let tail = (end < self.size).then_some((self.size, 0));
        let count = (self.list.len() + usize::from(tail.is_some())) as u64;
        let parts = self.list.iter().copied().chain(tail);
        std::iter::once(count).chain(parts.flat_map(|(offset, len)| [offset, len]))
    }

    /// Length of the map, whole blocks.
    pub(super) fn map_len(&self) -> u64 {
        let len: u64 = self.numbers().map(|number| digits(number) as u64 + 1).sum();
        len.next_multiple_of(BLOCK as u64)
    }

    /// The map, in front of the parts.
    pub(super) fn map(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.map_len() as usize);
        for number in self.numbers() {
            out.extend_from_slice(number.to_string().as_bytes());
            out.push(b'\n');
        }
        out.resize(out.len().next_multiple_of(BLOCK), 0);
        out
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn maps_are_those_of_gnu_tar() {
        let parts = Parts::new(3 << 20, &[(0, 1 << 20), ((1 << 20) + 4096, (2 << 20) - 4096)]);
        assert_eq!(parts.map()[..23], *b"2\n1048576\n4096\n3145728\n");
        assert_eq!(Parts::new(1 << 30, &[(0, 1 << 30)]).map()[..15], *b"1\n1073741824\n0\n");
        assert!(!Parts::new(100, &[(0, 100)]).map().is_empty());
        assert!(!Parts::new(4096, &[(100, 50)]).has_holes(), "too small to be left out");
        assert!(!Parts::new(0, &[]).has_holes());
        assert_eq!(Parts::new(5, &[]).stored(), 5);
    }

    fn holes() -> impl Strategy<Value = (u64, Vec<(u64, u64)>)> {
        let runs = prop::collection::vec((0_u64..3000, 1_u64..3000), 0..8);
        (runs, 0_u64..3000).prop_map(|(runs, tail)| {
            let mut at = 0;
            let holes: Vec<_> = runs
                .into_iter()
                .map(|(gap, len)| {
                    let hole = (at + gap, len);
                    at += gap + len;
                    hole
                })
                .collect();
            (at + tail, holes)
        })
    }

    proptest! {
        #[test]
        fn every_byte_of_content_is_in_a_part_of_whole_blocks((size, holes) in holes()) {
            let parts = Parts::new(size, &holes);
            let mut covered = vec![false; size as usize];
            let mut last = None;
            for (offset, len) in &parts.list {
                prop_assert!(*len > 0 && last.is_none_or(|end| end < *offset), "apart");
                let end = offset + len;
                prop_assert!(offset % 512 == 0 && (len % 512 == 0 || end == size));
                covered[*offset as usize..end as usize].fill(true);
                last = Some(end);
            }
            let mut content = vec![true; size as usize];
            for (offset, len) in &holes {
                content[*offset as usize..(offset + len) as usize].fill(false);
            }
            for (at, (content, covered)) in content.iter().zip(&covered).enumerate() {
                prop_assert!(!content || *covered, "{at}");
            }
            prop_assert_eq!(parts.map().len() as u64, parts.map_len());
        }

        #[test]
        fn parts_are_counted_between_any_places((size, holes) in holes(), cuts in prop::collection::vec(0_u64..500, 1..50)) {
            let mut parts = Parts::new(size, &holes);
            let whole = parts.stored();
            let (mut at, mut sum) = (0, 0);
            for cut in cuts.into_iter().chain([u64::MAX]) {
                let to = size.min(at + cut.min(size));
                let list = parts.list.clone();
                let expected: u64 = list.iter().map(|(o, l)| (o + l).min(to).saturating_sub((*o).max(at))).sum();
                let found = parts.between(at, to);
                prop_assert_eq!(found, expected);
                (at, sum) = (to, sum + found);
            }
            prop_assert_eq!(sum, whole);
        }
    }
}
