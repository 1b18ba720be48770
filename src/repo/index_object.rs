//! Index objects as they are stored: tables sealed block by block under one key, signed by their author.
//!
//! ```text
//! preamble 32 | salt 32 | count of blocks u32 | header length u32, header sealed (block 0) | blocks sealed | signature 64 | padding
//! ```
//!
//! The signature covers everything up to the end of the sealed header, which holds the hash of every block.

use super::error::RepoError;
use super::open::Repository;
use super::pack::PackKeys;
use crate::crypto::{ObjectHasher, ObjectSealer, object_salt};
use crate::format::FormatError;
use crate::format::config::Authority;
use crate::format::envelope::{ChunkKind, ObjectKind, PREAMBLE_LEN, Preamble};
use crate::format::index::{HEADER_MAX, IndexDecoder, IndexHeader, IndexTables, StoredBlock};
use crate::format::pack::padme;
use crate::format::segment::TAG_LEN;
use crate::format::signed::SIGNATURE_LEN;
use crate::format::wire::Reader;
use crate::id::{ObjectHash, RepositoryId};
use crate::random::Random;

pub(super) const SALT_LEN: usize = 32;
pub(super) const HEAD_LEN: usize = PREAMBLE_LEN + SALT_LEN + 8;

/// The stored form of an index object.
pub fn seal_index_object(
    tables: &IndexTables,
    keys: &PackKeys<'_>,
    random: &dyn Random,
) -> Result<Vec<u8>, RepoError> {
    let salt = object_salt(keys.index, random, &content_hash(tables)?)?;
    let count = tables.block_count() as u32 + 1;
    let mut blocks = Vec::new();
    let mut stored = Vec::new();
    let mut block_sealer = ObjectSealer::new(keys.index, &salt, keys.repository, ObjectKind::Index);
    for (number, block) in tables.blocks().enumerate() {
        let mut bytes = block.bytes;
        block_sealer.seal_block(number as u32 + 1, count, &mut bytes)?;
        stored.push(StoredBlock { stored_len: bytes.len() as u32, sum: *blake3::hash(&bytes).as_bytes() });
        blocks.extend_from_slice(&bytes);
    }
    let (mut out, signature) = seal_head(&tables.header(&stored)?, &salt, keys)?;
    out.extend_from_slice(&blocks);
    out.extend_from_slice(&signature);
    let len = out.len();
    out.resize(padme(len), 0);
    random.fill(&mut out[len..])?;
    Ok(out)
}

/// The hash of all that is sealed in an index object, as far as it is known before sealing: the header's list of blocks
/// follows from the rest.
fn content_hash(tables: &IndexTables) -> Result<ObjectHash, FormatError> {
    let mut hasher = ObjectHasher::new();
    let stored = vec![StoredBlock { stored_len: 0, sum: [0; 32] }; tables.block_count()];
    hasher.update(&tables.header(&stored)?.encode());
    tables.blocks().for_each(|block| hasher.update(&block.bytes));
    Ok(hasher.finish())
}

/// What an index object begins with, up to the end of its sealed header, and the signature of that. The header is block 0
/// but is known last, so it gets a sealer of its own.
pub(super) fn seal_head(
    header: &IndexHeader,
    salt: &[u8; SALT_LEN],
    keys: &PackKeys<'_>,
) -> Result<(Vec<u8>, [u8; SIGNATURE_LEN]), RepoError> {
    let count = header.blocks.len() as u32 + 1;
    let mut sealed = header.encode();
    let mut sealer = ObjectSealer::new(keys.index, salt, keys.repository, ObjectKind::Index);
    sealer.seal_block(0, count, &mut sealed)?;
    let mut out = Preamble::new(ObjectKind::Index, ChunkKind::Data, keys.repository).encode().to_vec();
    out.extend_from_slice(salt);
    out.extend_from_slice(&count.to_le_bytes());
    out.extend_from_slice(&(sealed.len() as u32).to_le_bytes());
    out.extend_from_slice(&sealed);
    let signature = keys.signing.sign(&out);
    Ok((out, signature))
}

/// What an index object begins with.
pub(super) struct Head {
    pub(super) salt: [u8; SALT_LEN],
    /// Number of blocks, the header included.
    pub(super) count: u32,
    /// How many bytes there are up to the end of the sealed header: what the signature covers.
    pub(super) len: usize,
}

impl Head {
    /// Reads the fixed part; the rest may not be there yet.
    pub(super) fn read(bytes: &[u8], repository: &RepositoryId) -> Result<Self, FormatError> {
        Preamble::expect(bytes, ObjectKind::Index, repository)?;
        let mut reader = Reader::new(bytes);
        reader.bytes(PREAMBLE_LEN)?;
        let (salt, count, len) = (reader.array()?, reader.u32()?, reader.u32()? as usize);
        if len > HEADER_MAX + TAG_LEN {
            return Err(FormatError::Value { section: "15", what: "length of the header" });
        }
        Ok(Self { salt, count, len: HEAD_LEN + len })
    }

    /// Opens the header; `bytes` holds at least [`Self::len`] bytes.
    pub(super) fn open(
        &self,
        repo: &Repository,
        key: &str,
        bytes: &[u8],
    ) -> Result<(IndexHeader, ObjectSealer), RepoError> {
        let at = || RepoError::at(key);
        let sealed = bytes.get(HEAD_LEN..self.len).ok_or(FormatError::Truncated).map_err(at())?;
        let sealer = ObjectSealer::new(repo.index_key()?, &self.salt, repo.id(), ObjectKind::Index);
        let mut header = sealed.to_vec();
        sealer.open_block(0, self.count, &mut header)?;
        let header = IndexHeader::decode(&header).map_err(at())?;
        if header.blocks.len() as u64 + 1 != u64::from(self.count) {
            return Err(at()(FormatError::Value { section: "15", what: "count of blocks" }));
        }
        Ok((header, sealer))
    }
}

/// Where the signature of an index object begins.
#[cfg(test)]
pub(crate) fn signature_at(repo: &Repository, key: &str, bytes: &[u8]) -> Result<usize, RepoError> {
    let head = Head::read(bytes, &repo.id()).map_err(RepoError::at(key))?;
    let (header, _) = head.open(repo, key, bytes)?;
    Ok(head.len + header.blocks.iter().map(|block| block.stored.stored_len as usize).sum::<usize>())
}

/// Opens an index object whose hash was checked: signature, header, every block.
pub fn open_index_object(repo: &Repository, key: &str, bytes: &[u8]) -> Result<IndexTables, RepoError> {
    let at = || RepoError::at(key);
    let head = Head::read(bytes, &repo.id()).map_err(at())?;
    let (header, sealer) = head.open(repo, key, bytes)?;
    let blocks_len: usize = header.blocks.iter().map(|block| block.stored.stored_len as usize).sum();
    let mut reader = Reader::new(bytes);
    reader.bytes(head.len + blocks_len).map_err(at())?;
    let signature: [u8; SIGNATURE_LEN] = reader.array().map_err(at())?;
    repo.verify(key, (header.author, Authority::Writer), &bytes[..head.len], &signature)?;
    let mut reader = Reader::new(bytes);
    reader.bytes(head.len).map_err(at())?;
    let entries = header.blocks.clone();
    let mut decoder = IndexDecoder::new(header);
    for (number, entry) in entries.iter().enumerate() {
        let mut block = reader.bytes(entry.stored.stored_len as usize).map_err(at())?.to_vec();
        if *blake3::hash(&block).as_bytes() != entry.stored.sum {
            return Err(RepoError::HashMismatch { key: key.to_owned() });
        }
        sealer.open_block(number as u32 + 1, head.count, &mut block)?;
        decoder.push(&block).map_err(at())?;
    }
    decoder.finish().map_err(at())
}
