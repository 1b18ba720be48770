//! Packs under construction: sealed segments one behind another, and at the end the directory that names them.
//!
//! # Invariants
//! A finished pack never changes; its name is the hash of its bytes. The directory is bound to the bytes before it.
//!
//! # Must not
//! Talk to the store: a pack is made in memory and put elsewhere.

use std::sync::{Arc, Condvar, Mutex, PoisonError};

use bytes::Bytes;

use super::error::RepoError;
use crate::crypto::sign::SigningKey;
use crate::crypto::{ObjectHasher, ObjectSealer, SecretKey, object_hash};
use crate::format::envelope::{ChunkKind, ObjectKind, PREAMBLE_LEN, Preamble};
use crate::format::pack::{
    Directory, FOOTER_LEN, Footer, PACK_FULL, PACK_TARGET, PackedChunk, SEGMENTS_MAX, TREE_PACK_TARGET, padme,
};
use crate::format::segment::{SEGMENT_STORED_MAX, SegmentEntry, TAG_LEN};
use crate::id::{ChunkId, PackId, RepositoryId, WriterId};
use crate::random::{Random, random_array};

/// What packs are sealed and signed with.
#[derive(Debug)]
pub struct PackKeys<'a> {
    /// The repository.
    pub repository: RepositoryId,
    /// Key of directories and index objects.
    pub index: &'a SecretKey,
    /// Who signs.
    pub writer: WriterId,
    /// With what.
    pub signing: &'a SigningKey,
    /// The run's sealed data key of this kind of pack.
    pub data_key: &'a [u8],
}

/// Buffers for packs, reused, and never more than `limit` at a time: this bounds the memory of a run.
#[derive(Debug)]
pub struct BufferPool {
    state: Mutex<PoolState>,
    returned: Condvar,
}

#[derive(Debug)]
struct PoolState {
    free: Vec<Vec<u8>>,
    left: usize,
}

impl BufferPool {
    /// A pool of at most `limit` buffers.
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(PoolState { free: Vec::new(), left: limit }),
            returned: Condvar::new(),
        })
    }

    /// An empty buffer; waits until one is free or `stop` says not to, which it is asked again and again.
    pub fn take(self: &Arc<Self>, stop: &dyn Fn() -> bool) -> Option<PoolBuffer> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(bytes) = state.free.pop() {
                return Some(PoolBuffer { bytes, pool: Arc::clone(self) });
            }
            if state.left > 0 {
                state.left -= 1;
                return Some(PoolBuffer { bytes: Vec::new(), pool: Arc::clone(self) });
            }
            if stop() {
                return None;
            }
            let wait = std::time::Duration::from_millis(50);
            state = self.returned.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// A buffer that goes back to its pool when it is dropped.
#[derive(Debug)]
pub struct PoolBuffer {
    bytes: Vec<u8>,
    pool: Arc<BufferPool>,
}

impl AsRef<[u8]> for PoolBuffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for PoolBuffer {
    fn drop(&mut self) {
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.clear();
        self.pool.state.lock().unwrap_or_else(PoisonError::into_inner).free.push(bytes);
        self.pool.returned.notify_one();
    }
}

/// A pack that still takes segments.
#[derive(Debug)]
pub struct PackBuilder {
    kind: ChunkKind,
    buffer: PoolBuffer,
    segments: Vec<SegmentEntry>,
    chunks: Vec<PackedChunk>,
    leaves: Vec<[u8; 32]>,
}

/// A pack that is ready to be put.
#[derive(Debug)]
pub struct FinishedPack {
    /// Its name.
    pub id: PackId,
    /// What its chunks are.
    pub kind: ChunkKind,
    /// Its bytes; the buffer returns to its pool with the last clone.
    pub bytes: Bytes,
    /// Where its directory is.
    pub footer: Footer,
    /// What it holds.
    pub directory: Directory,
}

impl PackBuilder {
    /// An empty pack.
    pub fn new(kind: ChunkKind, repository: RepositoryId, mut buffer: PoolBuffer) -> Self {
        buffer.bytes.clear();
        buffer.bytes.extend_from_slice(&Preamble::new(ObjectKind::Pack, kind, repository).encode());
        Self { kind, buffer, segments: Vec::new(), chunks: Vec::new(), leaves: Vec::new() }
    }

    /// What its chunks are.
    pub fn kind(&self) -> ChunkKind {
        self.kind
    }

    fn target(&self) -> usize {
        match self.kind {
            ChunkKind::Data => PACK_TARGET,
            ChunkKind::Tree => TREE_PACK_TARGET,
        }
    }

    /// Whether there is no segment yet.
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// Whether the pack should take no further segment.
    pub fn is_full(&self) -> bool {
        let len = self.buffer.bytes.len();
        let directory = self.segments.len() * SegmentEntry::LEN + self.chunks.len() * PackedChunk::LEN;
        // Tiny chunks that compress well take more room in the directory than in the segments.
        len >= self.target() || len + directory >= PACK_FULL || self.segments.len() == SEGMENTS_MAX
    }

    /// Appends a sealed segment with its chunks, in order of their offsets.
    pub fn push(&mut self, mut entry: SegmentEntry, stored: &[u8], chunks: &[(ChunkId, u32)]) {
        debug_assert_eq!(entry.stored_len as usize, stored.len(), "the entry describes these bytes");
        let target = self.target();
        if self.buffer.bytes.capacity() < target && self.buffer.bytes.len() + stored.len() > 1 << 20 {
            // One step from small to full size, so that growing never copies megabytes again and again.
            self.buffer.bytes.reserve_exact(target + SEGMENT_STORED_MAX / 4 - self.buffer.bytes.len());
        }
        entry.offset = self.buffer.bytes.len() as u32;
        let segment = self.segments.len() as u16;
        self.buffer.bytes.extend_from_slice(stored);
        self.leaves.push(segment_leaf(stored, chunks.iter().map(|(id, _)| id)));
        let mut offset = 0;
        for &(id, len) in chunks {
            self.chunks.push(PackedChunk { id, segment, offset, len });
            offset += len;
        }
        debug_assert_eq!(offset, entry.plain_len, "the chunks fill the segment");
        self.segments.push(entry);
    }

    /// Seals the directory; `pad` hides the length, for the last pack of a run.
    pub fn finish(
        self,
        keys: &PackKeys<'_>,
        random: &dyn Random,
        pad: bool,
    ) -> Result<FinishedPack, RepoError> {
        let Self { kind, mut buffer, segments, chunks, leaves } = self;
        let bytes = &mut buffer.bytes;
        if pad {
            let len = bytes.len();
            bytes.resize(padme(len), 0);
            random.fill(&mut bytes[len..])?;
        }
        let mut hasher = ObjectHasher::new();
        hasher.update(bytes);
        let directory_offset = bytes.len();
        let directory = Directory {
            body_hash: *hasher.finish().as_bytes(),
            data_keys: vec![keys.data_key.to_vec()],
            origins: vec![keys.writer],
            signatures: vec![keys.signing.sign(&origin_message(&keys.repository, &merkle_root(leaves)))],
            segments,
            chunks,
        };
        let salt = random_array(random)?;
        let mut sealed = directory.encode(padme);
        ObjectSealer::new(keys.index, &salt, keys.repository, ObjectKind::Pack).seal_block(
            0,
            1,
            &mut sealed,
        )?;
        let footer = Footer {
            directory_offset: directory_offset as u32,
            directory_len: sealed.len() as u32,
            parity_offset: (directory_offset + sealed.len()) as u32,
            parity_len: 0,
            salt,
        };
        bytes.extend_from_slice(&sealed);
        bytes.extend_from_slice(&footer.encode());
        hasher.update(&bytes[directory_offset..]);
        let id = PackId::from(hasher.finish());
        Ok(FinishedPack { id, kind, bytes: Bytes::from_owner(buffer), footer, directory })
    }
}

/// Leaf of a pack's hash tree: the hash of a segment's stored bytes, and the ids of its chunks in order.
pub fn segment_leaf<'a>(stored: &[u8], chunks: impl IntoIterator<Item = &'a ChunkId>) -> [u8; 32] {
    let mut leaf = blake3::Hasher::new_derive_key("lifeboat v1 segment leaf");
    leaf.update(object_hash(stored).as_bytes());
    for id in chunks {
        leaf.update(id.as_bytes());
    }
    *leaf.finalize().as_bytes()
}

/// What a writer signs for the segments it sealed in one pack.
pub fn origin_message(repository: &RepositoryId, root: &[u8; 32]) -> Vec<u8> {
    let mut message = b"lifeboat v1 pack origin".to_vec();
    message.extend_from_slice(repository.as_bytes());
    message.extend_from_slice(root);
    message
}

/// Root of a binary hash tree over the leaves; an odd node rises as it is.
pub fn merkle_root(mut level: Vec<[u8; 32]>) -> [u8; 32] {
    while level.len() > 1 {
        level = level
            .chunks(2)
            .map(|pair| match pair {
                [left, right] => {
                    let mut hasher = blake3::Hasher::new_derive_key("lifeboat v1 segment node");
                    hasher.update(left);
                    hasher.update(right);
                    *hasher.finalize().as_bytes()
                }
                _ => pair[0],
            })
            .collect();
    }
    level.first().copied().unwrap_or_default()
}

/// Reads the directory of a pack from its tail: `tail` ends where the pack ends, and holds directory and footer.
pub fn open_directory(
    index: &SecretKey,
    repository: RepositoryId,
    tail: &[u8],
    pack_len: u64,
) -> Result<(Footer, Directory), RepoError> {
    let footer_at = tail.len().checked_sub(FOOTER_LEN).ok_or(crate::format::FormatError::Truncated)?;
    let footer = Footer::decode(&tail[footer_at..], pack_len)?;
    let tail_start = pack_len - tail.len() as u64;
    let start = u64::from(footer.directory_offset).checked_sub(tail_start);
    let range = start.map(|start| start as usize..start as usize + footer.directory_len as usize);
    let mut sealed =
        range.and_then(|range| tail.get(range)).ok_or(crate::format::FormatError::Truncated)?.to_vec();
    if sealed.len() < TAG_LEN || (footer.directory_offset as usize) < PREAMBLE_LEN {
        return Err(crate::format::FormatError::Truncated.into());
    }
    ObjectSealer::new(index, &footer.salt, repository, ObjectKind::Pack).open_block(0, 1, &mut sealed)?;
    let directory = Directory::decode(&sealed, footer.directory_offset)?;
    Ok((footer, directory))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::pack::PACK_MAX;
    use crate::format::segment::Codec;
    use crate::random::SystemRandom;

    #[test]
    fn a_pack_of_tiny_chunks_is_full_before_its_directory_makes_it_too_long() {
        let repository = RepositoryId::new([1; 16]);
        let mut pack =
            PackBuilder::new(ChunkKind::Data, repository, BufferPool::new(1).take(&|| false).unwrap());
        // Files of eight bytes that compress well: a segment of few stored bytes names very many chunks.
        let chunks: Vec<_> =
            (0..1_u32 << 17).map(|n| (ChunkId::new(*blake3::hash(&n.to_le_bytes()).as_bytes()), 8)).collect();
        let entry = SegmentEntry {
            offset: 0,
            stored_len: 1000,
            plain_len: 1 << 20,
            codec: Codec::Zstd,
            flags: 0,
            data_key: 0,
            origin: 0,
            n1: [0; 12],
            n2: [0; 12],
        };
        for _ in 0..20 {
            if pack.is_full() {
                break;
            }
            pack.push(entry, &[7; 1000], &chunks);
        }
        let signing = SigningKey::generate(&SystemRandom).unwrap();
        let index = SecretKey::from_bytes([3; 32]);
        let writer = WriterId::new([4; 16]);
        let keys = PackKeys { repository, index: &index, writer, signing: &signing, data_key: &[5; 100] };
        let pack = pack.finish(&keys, &SystemRandom, true).unwrap();
        assert!(pack.bytes.len() <= PACK_MAX, "{}", pack.bytes.len());
        open_directory(&index, repository, &pack.bytes, pack.bytes.len() as u64).unwrap();
    }
}
