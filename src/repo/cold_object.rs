//! One index object that is read by ranges: its header, and of its rows the few blocks that a lookup needs.
//!
//! # Invariants
//! A block counts only if it has the hash that the header holds and opens under its number. What a record says counts only
//! once the signature over the header was checked ([`ColdObject::prove`]).

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;

use super::error::RepoError;
use super::index_fetch::again;
use super::index_object::{HEAD_LEN, Head};
use super::load::ListedIndex;
use super::open::{Repository, object_key};
use crate::crypto::ObjectSealer;
use crate::format::FormatError;
use crate::format::config::Authority;
use crate::format::datakey::SealedDataKey;
use crate::format::envelope::ChunkKind;
use crate::format::index::{IndexHeader, PackRow, Record, decode_packs, decode_records, decode_segments};
use crate::format::segment::SegmentEntry;
use crate::format::signed::SIGNATURE_LEN;
use crate::format::wire::Reader;
use crate::id::ChunkId;

/// Bytes that are fetched at first: the header of most objects is not longer.
const FIRST: u64 = 512 << 10;

/// Blocks of pack rows that are kept.
const PACK_BLOCKS_KEPT: usize = 8;

/// Most blocks that are read for one prefix. Ids are hashes: an honest object never has more than two.
const RECORD_BLOCKS_MAX: usize = 4;

/// An index object of which only the header is here.
pub(super) struct ColdObject {
    pub(super) listed: ListedIndex,
    header: IndexHeader,
    sealer: ObjectSealer,
    count: u32,
    /// Where each block begins, and where the last one ends.
    starts: Vec<u64>,
    /// Whether it has segments of data, and of trees.
    kinds: [bool; 2],
    /// What the signature covers, until it was checked.
    message: Mutex<Option<Bytes>>,
    packs: Mutex<VecDeque<(usize, Vec<PackRow>)>>,
}

impl ColdObject {
    /// Reads the header, by one request if it is not very long; again if it cannot be believed.
    pub(super) async fn open(repo: &Repository, listed: ListedIndex) -> Result<Self, RepoError> {
        again(|| Self::open_once(repo, listed)).await
    }

    async fn open_once(repo: &Repository, listed: ListedIndex) -> Result<Self, RepoError> {
        let key = object_key(listed.name())?;
        let first = repo.store.get_range(&key, 0..listed.size.min(FIRST)).await?;
        let at = || RepoError::at(key.as_str());
        let head = Head::read(&first, &repo.id()).map_err(at())?;
        let message = if head.len <= first.len() {
            first.slice(..head.len)
        } else {
            if head.len as u64 > listed.size {
                return Err(at()(FormatError::Truncated));
            }
            let rest = repo.store.get_range(&key, first.len() as u64..head.len as u64).await?;
            [first, rest].concat().into()
        };
        debug_assert!(head.len >= HEAD_LEN, "a head has its fixed part");
        let (header, sealer) = head.open(repo, key.as_str(), &message)?;
        if header.author != listed.author {
            return Err(RepoError::BadSignature { key: key.as_str().to_owned() });
        }
        let mut end = head.len as u64;
        let mut starts = Vec::with_capacity(header.blocks.len() + 1);
        starts.push(end);
        for block in &header.blocks {
            end += u64::from(block.stored.stored_len);
            starts.push(end);
        }
        if end + SIGNATURE_LEN as u64 > listed.size {
            return Err(at()(FormatError::Truncated));
        }
        let mut kinds = [false; 2];
        for sealed in &header.data_keys {
            let key = SealedDataKey::decode(&mut Reader::new(sealed)).map_err(at())?;
            kinds[key.kind() as usize] = true;
        }
        let (message, packs) = (Mutex::new(Some(message)), Mutex::default());
        Ok(Self { listed, header, sealer, count: head.count, starts, kinds, message, packs })
    }

    /// Whether it may say where chunks of this kind are.
    pub(super) fn holds(&self, kind: ChunkKind) -> bool {
        self.kinds[kind as usize]
    }

    fn key(&self) -> String {
        self.listed.name().key()
    }

    fn bad(&self, rule: FormatError) -> RepoError {
        RepoError::at(&self.key())(rule)
    }

    /// Demands that the object is signed by its author: one request, once.
    pub(super) async fn prove(&self, repo: &Repository) -> Result<(), RepoError> {
        let message = self.message.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(message) = message else { return Ok(()) };
        again(|| self.check_signature(repo, &message)).await?;
        *self.message.lock().unwrap_or_else(PoisonError::into_inner) = None;
        Ok(())
    }

    async fn check_signature(&self, repo: &Repository, message: &[u8]) -> Result<(), RepoError> {
        let end = self.starts.last().copied().unwrap_or(0);
        let range = end..end + SIGNATURE_LEN as u64;
        let signature = repo.store.get_range(&object_key(self.listed.name())?, range).await?;
        let signature = Reader::new(&signature).array().map_err(|rule| self.bad(rule))?;
        repo.verify(&self.key(), (self.header.author, Authority::Writer), message, &signature)
    }

    /// The plaintext of neighbouring blocks, by one request; again if it cannot be believed.
    async fn blocks(&self, repo: &Repository, numbers: Range<usize>) -> Result<Vec<Vec<u8>>, RepoError> {
        again(|| self.blocks_once(repo, numbers.clone())).await
    }

    async fn blocks_once(&self, repo: &Repository, numbers: Range<usize>) -> Result<Vec<Vec<u8>>, RepoError> {
        let (Some(start), Some(end)) = (self.starts.get(numbers.start), self.starts.get(numbers.end)) else {
            return Err(self.bad(FormatError::Truncated));
        };
        let stored = repo.store.get_range(&object_key(self.listed.name())?, *start..*end).await?;
        let mut blocks = Vec::new();
        for number in numbers {
            let range = (self.starts[number] - start) as usize..(self.starts[number + 1] - start) as usize;
            let entry = &self.header.blocks[number];
            entry.check(&stored[range.clone()]).map_err(|rule| self.bad(rule))?;
            let mut block = stored[range].to_vec();
            self.sealer.open_block(number as u32 + 1, self.count, &mut block)?;
            if block.len() != entry.plain_len() {
                return Err(self.bad(FormatError::Truncated));
            }
            blocks.push(block);
        }
        Ok(blocks)
    }

    /// The records of a chunk.
    pub(super) async fn find(&self, repo: &Repository, id: &ChunkId) -> Result<Vec<Record>, RepoError> {
        let prefix = id.prefix();
        let mut numbers = self.header.record_blocks(&prefix);
        numbers.end = numbers.end.min(numbers.start + RECORD_BLOCKS_MAX);
        if numbers.is_empty() {
            return Ok(Vec::new());
        }
        let mut found = Vec::new();
        for block in self.blocks(repo, numbers).await? {
            let rows = decode_records(&block).map_err(|rule| self.bad(rule))?;
            let from = rows.partition_point(|row| row[..prefix.len()] < prefix[..]);
            let alike = rows[from..].iter().take_while(|row| row[..prefix.len()] == prefix[..]);
            found.extend(alike.map(Record::decode));
        }
        Ok(found)
    }

    /// The row of the pack that a record points to.
    pub(super) async fn pack(&self, repo: &Repository, number: u32) -> Result<PackRow, RepoError> {
        let block = self.header.pack_block(number).ok_or_else(|| self.bad(FormatError::Truncated))?;
        let at = number as usize % crate::format::index::BlockKind::Packs { first: 0 }.rows_max();
        let cut = |rows: &[PackRow]| rows.get(at).copied();
        {
            let kept = self.packs.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(row) = kept.iter().find(|(known, _)| *known == block).and_then(|(_, rows)| cut(rows))
            {
                return Ok(row);
            }
        }
        let plain = self.blocks(repo, block..block + 1).await?.pop().unwrap_or_default();
        let rows = decode_packs(&plain).map_err(|rule| self.bad(rule))?;
        let row = cut(&rows).ok_or_else(|| self.bad(FormatError::Truncated))?;
        let mut kept = self.packs.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() == PACK_BLOCKS_KEPT {
            kept.pop_front();
        }
        kept.push_back((block, rows));
        Ok(row)
    }

    /// The rows of a pack's segments.
    pub(super) async fn segments(
        &self,
        repo: &Repository,
        pack: &PackRow,
    ) -> Result<Vec<SegmentEntry>, RepoError> {
        let bad = || self.bad(FormatError::Truncated);
        let count = usize::from(pack.segments);
        let last =
            pack.first_segment.checked_add(u32::from(pack.segments).saturating_sub(1)).ok_or_else(bad)?;
        let first = self.header.segment_block(pack.first_segment).ok_or_else(bad)?;
        let end = self.header.segment_block(last).ok_or_else(bad)? + 1;
        let mut rows = Vec::new();
        for block in self.blocks(repo, first..end).await? {
            rows.extend(decode_segments(&block).map_err(|rule| self.bad(rule))?);
        }
        let full = crate::format::index::BlockKind::Segments { first: 0 }.rows_max();
        let from = pack.first_segment as usize % full;
        rows.get(from..from + count).map(<[_]>::to_vec).ok_or_else(bad)
    }

    /// The sealed data keys that segment rows number.
    pub(super) fn data_keys(&self) -> &[Vec<u8>] {
        &self.header.data_keys
    }
}
