//! The hash tree over a pack's segments, which their origin signs; a proof goes with a segment that is moved.

use crate::crypto::object_hash;
use crate::format::pack::Proof;
use crate::id::{ChunkId, RepositoryId};

/// A node of the tree.
type Hash = [u8; 32];

/// Leaf of a pack's hash tree: the hash of a segment's stored bytes, and the ids and lengths of its chunks in order.
pub fn segment_leaf<'a>(stored: &[u8], chunks: impl IntoIterator<Item = (&'a ChunkId, u32)>) -> Hash {
    let mut leaf = blake3::Hasher::new_derive_key("lifeboat v1 segment leaf");
    leaf.update(object_hash(stored).as_bytes());
    for (id, len) in chunks {
        leaf.update(id.as_bytes());
        leaf.update(&len.to_le_bytes());
    }
    *leaf.finalize().as_bytes()
}

/// What a writer signs for the segments it sealed in one pack.
pub fn origin_message(repository: &RepositoryId, root: &Hash) -> Vec<u8> {
    let mut message = b"lifeboat v1 pack origin".to_vec();
    message.extend_from_slice(repository.as_bytes());
    message.extend_from_slice(root);
    message
}

fn parent(left: &Hash, right: &Hash) -> Hash {
    let mut hasher = blake3::Hasher::new_derive_key("lifeboat v1 segment node");
    hasher.update(left);
    hasher.update(right);
    *hasher.finalize().as_bytes()
}

/// The level above; an odd node rises as it is.
fn rise(level: &[Hash]) -> Vec<Hash> {
    let pair = |pair: &[Hash]| match pair {
        [left, right] => parent(left, right),
        _ => pair[0],
    };
    level.chunks(2).map(pair).collect()
}

/// Root of the tree over the leaves.
pub fn merkle_root(mut level: Vec<Hash>) -> Hash {
    while level.len() > 1 {
        level = rise(&level);
    }
    level.first().copied().unwrap_or_default()
}

/// The proofs of all leaves, in order.
pub fn merkle_proofs(mut level: Vec<Hash>) -> Vec<Proof> {
    let leaves = level.len() as u16;
    let new = |leaf| Proof { segment: leaf, leaf, leaves, siblings: Vec::new() };
    let mut proofs: Vec<_> = (0..leaves).map(new).collect();
    let mut height = 0;
    while level.len() > 1 {
        for proof in &mut proofs {
            let sibling = usize::from(proof.leaf >> height) ^ 1;
            proof.siblings.extend(level.get(sibling));
        }
        level = rise(&level);
        height += 1;
    }
    proofs
}

/// The root that a leaf and its proof lead to; `None` if the proof has not the length that its place asks for.
pub fn proven_root(mut hash: Hash, proof: &Proof) -> Option<Hash> {
    let (mut place, mut width) = (proof.leaf, proof.leaves);
    let mut siblings = proof.siblings.iter();
    while width > 1 {
        if place & 1 == 1 {
            hash = parent(siblings.next()?, &hash);
        } else if place + 1 < width {
            hash = parent(&hash, siblings.next()?);
        }
        place >>= 1;
        width = width.div_ceil(2);
    }
    siblings.next().is_none().then_some(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_leaf_is_proven_and_no_other() {
        for count in 1..40_u8 {
            let leaves: Vec<Hash> = (0..count).map(|n| [n; 32]).collect();
            let root = merkle_root(leaves.clone());
            for (proof, leaf) in merkle_proofs(leaves.clone()).iter().zip(&leaves) {
                assert_eq!(proven_root(*leaf, proof), Some(root), "{count} {}", proof.leaf);
                assert_eq!(proof.siblings.len(), Proof::depth(proof.leaf, proof.leaves));
                assert_ne!(proven_root([0xee; 32], proof), Some(root));
                let mut longer = proof.clone();
                longer.siblings.push([0; 32]);
                assert_eq!(proven_root(*leaf, &longer), None);
            }
        }
    }
}
