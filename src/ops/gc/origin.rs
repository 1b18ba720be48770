//! Who a pack's segments come from: not what its directory says, but whose signature covers them.

use std::collections::HashMap;

use crate::format::pack::{Directory, Proof};
use crate::id::WriterId;
use crate::repo::{Repository, merkle_root, origin_message, proven_root, segment_leaf};

/// The origin of each segment of a pack, whose bytes were checked against its name; none of a segment that nobody registered
/// signed for. Any machine that may write can name any other in a directory.
pub(super) fn signed_origins(
    repo: &Repository,
    bytes: &[u8],
    directory: &Directory,
) -> Vec<Option<WriterId>> {
    let mut ids = vec![Vec::new(); directory.segments.len()];
    for chunk in &directory.chunks {
        ids[usize::from(chunk.segment)].push((&chunk.id, chunk.len));
    }
    let leaves = directory.segments.iter().zip(ids).map(|(segment, ids)| {
        let start = segment.offset as usize;
        let stored = bytes.get(start..start + segment.stored_len as usize).unwrap_or_default();
        segment_leaf(stored, ids)
    });
    let leaves: Vec<[u8; 32]> = leaves.collect();
    let proofs: HashMap<u16, &Proof> = directory.proofs.iter().map(|proof| (proof.segment, proof)).collect();
    let mut own: Vec<Vec<[u8; 32]>> = vec![Vec::new(); directory.origins.len()];
    let rows = || directory.segments.iter().zip(&leaves).enumerate();
    for (number, (segment, leaf)) in rows() {
        if !proofs.contains_key(&(number as u16)) {
            own[usize::from(segment.origin)].push(*leaf);
        }
    }
    let signed = |origin: u8, root: [u8; 32]| {
        let row = usize::from(origin);
        let (origin, signature) = directory.origins.get(row).zip(directory.signatures.get(row))?;
        let message = origin_message(&repo.id(), &root);
        repo.is_origin(origin, &message, signature).then_some(*origin)
    };
    let own: Vec<_> = own
        .into_iter()
        .enumerate()
        .map(|(origin, leaves)| signed(origin as u8, merkle_root(leaves)))
        .collect();
    let of =
        |(number, (segment, leaf)): (usize, (&crate::format::segment::SegmentEntry, &[u8; 32]))| match proofs
            .get(&(number as u16))
        {
            Some(proof) => proven_root(*leaf, proof).and_then(|root| signed(segment.origin, root)),
            None => own[usize::from(segment.origin)],
        };
    rows().map(of).collect()
}
