//! Cutting a pack into segments that go to other packs.

use std::collections::HashMap;

use crate::format::pack::{Directory, PackedChunk, Proof};
use crate::repo::{merkle_proofs, segment_leaf};

/// Whether the chunks of each segment lie one behind the other and fill it, as every writer leaves them: a segment is moved
/// with the lengths of its chunks, and their places follow from these.
pub(super) fn is_filled(directory: &Directory) -> bool {
    let mut ends = vec![0_u32; directory.segments.len()];
    let mut last = 0;
    let in_place = directory.chunks.iter().all(|chunk| {
        let end = &mut ends[usize::from(chunk.segment)];
        let good = chunk.segment >= last && chunk.offset == *end;
        last = chunk.segment;
        *end = chunk.offset.saturating_add(chunk.len);
        good
    });
    in_place && directory.segments.iter().zip(&ends).all(|(segment, end)| segment.plain_len == *end)
}

/// The chunks of a segment; those of a directory are in order of their segments.
pub(super) fn chunks_of(directory: &Directory, segment: u16) -> &[PackedChunk] {
    let chunks = &directory.chunks;
    let start = chunks.partition_point(|chunk| chunk.segment < segment);
    let end = chunks.partition_point(|chunk| chunk.segment <= segment);
    chunks.get(start..end).unwrap_or_default()
}

/// The proof of each segment: the one it came with, or one made from the segments beside it.
pub(super) fn proofs(bytes: &[u8], directory: &Directory) -> Vec<Proof> {
    let brought: HashMap<u16, &Proof> = directory.proofs.iter().map(|proof| (proof.segment, proof)).collect();
    let mut own: Vec<(Vec<usize>, Vec<[u8; 32]>)> = vec![Default::default(); directory.origins.len()];
    for (number, segment) in directory.segments.iter().enumerate() {
        if brought.contains_key(&(number as u16)) {
            continue;
        }
        let start = segment.offset as usize;
        let stored = bytes.get(start..start + segment.stored_len as usize).unwrap_or_default();
        let ids = chunks_of(directory, number as u16).iter().map(|c| (&c.id, c.len));
        let (places, leaves) = &mut own[usize::from(segment.origin)];
        places.push(number);
        leaves.push(segment_leaf(stored, ids));
    }
    let none = |segment| Proof { segment, leaf: 0, leaves: 1, siblings: Vec::new() };
    let mut proofs: Vec<Proof> = (0..directory.segments.len() as u16).map(none).collect();
    for (number, proof) in brought {
        proofs[usize::from(number)] = proof.clone();
    }
    for (places, leaves) in own {
        for (place, proof) in places.into_iter().zip(merkle_proofs(leaves)) {
            proofs[place] = proof;
        }
    }
    proofs
}
