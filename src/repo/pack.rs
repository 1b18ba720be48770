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
use super::merkle::{merkle_root, origin_message, segment_leaf};
use crate::crypto::sign::SigningKey;
use crate::crypto::{ObjectHasher, ObjectSealer, SecretKey, object_hash, object_salt};
use crate::format::envelope::{ChunkKind, ObjectKind, PREAMBLE_LEN, Preamble};
use crate::format::pack::{
    Directory, FOOTER_LEN, Footer, PACK_FULL, PACK_TARGET, PackedChunk, Proof, SEGMENTS_MAX,
    TREE_PACK_TARGET, padme,
};
use crate::format::segment::{SEGMENT_STORED_MAX, SegmentEntry, TAG_LEN};
use crate::format::signed::SIGNATURE_LEN;
use crate::id::{ChunkId, PackId, RepositoryId, WriterId};
use crate::random::Random;

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
    /// Of the segments that the builder of the pack sealed itself.
    leaves: Vec<[u8; 32]>,
    /// Of moved segments.
    data_keys: Vec<Vec<u8>>,
    origins: Vec<Origin>,
    proofs: Vec<Proof>,
}

/// A writer, and its signature over the segments of one pack.
pub type Origin = (WriterId, [u8; SIGNATURE_LEN]);

/// What goes with a segment that is moved as it is.
#[derive(Debug, Clone)]
pub struct Moved<'a> {
    /// The sealed data key that opens it.
    pub data_key: &'a [u8],
    /// Who signed for it.
    pub origin: Origin,
    /// Shows that the signature covers it.
    pub proof: Proof,
}

/// Row of the key and of the origin of segments that the builder sealed itself, until the pack is finished.
const OWN: u8 = u8::MAX;
/// Most keys and most origins of moved segments: one more row is for the builder's own.
const ROWS_MAX: usize = OWN as usize - 1;

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
        Self {
            kind,
            buffer,
            segments: Vec::new(),
            chunks: Vec::new(),
            leaves: Vec::new(),
            data_keys: Vec::new(),
            origins: Vec::new(),
            proofs: Vec::new(),
        }
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
        let keys: usize = self.data_keys.iter().map(Vec::len).sum();
        let proofs: usize = self.proofs.iter().map(Proof::stored_len).sum();
        len >= self.target()
            || len + directory + keys + proofs >= PACK_FULL
            || self.segments.len() == SEGMENTS_MAX
            || self.data_keys.len().max(self.origins.len()) == ROWS_MAX
    }

    /// Appends a sealed segment with its chunks, in order of their offsets.
    pub fn push(&mut self, mut entry: SegmentEntry, stored: &[u8], chunks: &[(ChunkId, u32)]) {
        self.leaves.push(segment_leaf(stored, chunks.iter().map(|(id, len)| (id, *len))));
        (entry.data_key, entry.origin) = (OWN, OWN);
        self.append(entry, stored, chunks);
    }

    /// Appends a segment of another pack as it is, with all its chunks.
    pub fn push_moved(
        &mut self,
        mut entry: SegmentEntry,
        stored: &[u8],
        chunks: &[(ChunkId, u32)],
        moved: Moved<'_>,
    ) {
        debug_assert!(!self.is_full(), "there is room for the key and the origin");
        let Moved { data_key, origin, mut proof } = moved;
        let row = |place: Option<usize>, next: usize| (place.is_none(), place.unwrap_or(next) as u8);
        let (new_key, key) = row(self.data_keys.iter().position(|k| k == data_key), self.data_keys.len());
        if new_key {
            self.data_keys.push(data_key.to_vec());
        }
        let (new_origin, from) = row(self.origins.iter().position(|o| *o == origin), self.origins.len());
        if new_origin {
            self.origins.push(origin);
        }
        proof.segment = self.segments.len() as u16;
        self.proofs.push(proof);
        (entry.data_key, entry.origin) = (key, from);
        self.append(entry, stored, chunks);
    }

    fn append(&mut self, mut entry: SegmentEntry, stored: &[u8], chunks: &[(ChunkId, u32)]) {
        debug_assert_eq!(entry.stored_len as usize, stored.len(), "the entry describes these bytes");
        let target = self.target();
        if self.buffer.bytes.capacity() < target && self.buffer.bytes.len() + stored.len() > 1 << 20 {
            // One step from small to full size, so that growing never copies megabytes again and again.
            self.buffer.bytes.reserve_exact(target + SEGMENT_STORED_MAX / 4 - self.buffer.bytes.len());
        }
        entry.offset = self.buffer.bytes.len() as u32;
        let segment = self.segments.len() as u16;
        self.buffer.bytes.extend_from_slice(stored);
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
        let Self { kind, mut buffer, mut segments, chunks, leaves, mut data_keys, mut origins, proofs } =
            self;
        if !leaves.is_empty() {
            let (key, origin) = (data_keys.len() as u8, origins.len() as u8);
            for own in segments.iter_mut().filter(|segment| segment.data_key == OWN) {
                (own.data_key, own.origin) = (key, origin);
            }
            data_keys.push(keys.data_key.to_vec());
            let message = origin_message(&keys.repository, &merkle_root(leaves));
            origins.push((keys.writer, keys.signing.sign(&message)));
        }
        let (origins, signatures) = origins.into_iter().unzip();
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
            data_keys,
            origins,
            signatures,
            segments,
            chunks,
            proofs,
        };
        let mut sealed = directory.encode(padme);
        let salt = object_salt(keys.index, random, &object_hash(&sealed))?;
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
