//! Fetching an index object that is too large for memory: piece by piece, its rows opened into a file without a name.
//!
//! # Invariants
//! Nothing of it counts before the hash in its name, its signature and all its rows were checked. Memory holds a few pieces.

use std::borrow::Cow;
use std::path::Path;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};

use super::error::RepoError;
use super::index_object::{HEAD_LEN, Head};
use super::load::{INDEX_MAX, ListedIndex};
use super::open::{READS, Repository, object_key};
use crate::class::Class;
use crate::crypto::{ObjectHasher, ObjectSealer};
use crate::format::FormatError;
use crate::format::config::Authority;
use crate::format::index::{IndexHeader, IndexTables, PackRow, RECORD_LEN, StoredRows};
use crate::format::segment::SegmentEntry;
use crate::format::signed::SIGNATURE_LEN;
use crate::format::wire::Reader;
use crate::id::{ObjectHash, WriterId};
use crate::index::{Cache, IndexError, MappedTables, ScratchFile};
use crate::store::StoreError;

/// Objects from this size on are fetched in this way, if there is a cache directory.
pub(super) const LARGE: u64 = if cfg!(test) { 64 << 10 } else { 16 << 20 };

/// Bytes of one request.
const PIECE: u64 = if cfg!(test) { 10 << 10 } else { 4 << 20 };

/// Requests at the same time.
const AHEAD: usize = 4;

/// An object on its way.
struct Incoming<'a> {
    repo: &'a Repository,
    key: &'a str,
    /// Bytes that came and were not used yet.
    left: Vec<u8>,
    head: Option<Opened>,
    file: ScratchFile,
    at: u64,
    signature: Option<[u8; SIGNATURE_LEN]>,
}

struct Opened {
    message: Bytes,
    header: IndexHeader,
    sealer: ObjectSealer,
    count: u32,
    /// Blocks that were opened.
    done: usize,
}

/// An index object that was fetched and checked.
#[derive(Debug)]
pub enum FetchedIndex {
    /// Decoded.
    Whole(IndexTables),
    /// Too large for that: its rows lie in a file without a name.
    Mapped(MappedTables),
}

impl FetchedIndex {
    fn rows(mapped: &MappedTables) -> Result<StoredRows<'_>, FormatError> {
        StoredRows::new(&mapped.header, mapped.rows.as_ref())
    }

    /// How many packs it lists.
    pub fn pack_count(&self) -> usize {
        match self {
            Self::Whole(tables) => tables.packs.len(),
            Self::Mapped(mapped) => mapped.header.packs as usize,
        }
    }

    /// A pack by its number.
    pub fn pack(&self, number: u32) -> Result<PackRow, FormatError> {
        match self {
            Self::Whole(tables) => tables.packs.get(number as usize).copied().ok_or(FormatError::Truncated),
            Self::Mapped(mapped) => Self::rows(mapped)?.pack(number),
        }
    }

    /// The stored rows of a pack's segments.
    pub fn segments(&self, pack: &PackRow) -> Result<Cow<'_, [u8]>, FormatError> {
        match self {
            Self::Whole(tables) => {
                let segments = tables.segments_of(pack);
                let mut rows = Vec::with_capacity(segments.len() * SegmentEntry::LEN);
                segments.iter().for_each(|segment| segment.encode(&mut rows));
                Ok(rows.into())
            }
            Self::Mapped(mapped) => Ok(Self::rows(mapped)?.segments(pack)?.into()),
        }
    }

    /// The sealed data key and the origin that a segment row numbers.
    pub fn references(&self, segment: &SegmentEntry) -> Result<(&[u8], WriterId), FormatError> {
        let (keys, origins) = match self {
            Self::Whole(tables) => (&tables.data_keys, &tables.origins),
            Self::Mapped(mapped) => (&mapped.header.data_keys, &mapped.header.origins),
        };
        let key = keys.get(usize::from(segment.data_key)).ok_or(FormatError::Truncated)?;
        let origin = origins.get(usize::from(segment.origin)).ok_or(FormatError::Truncated)?;
        Ok((key, *origin))
    }

    /// All records.
    pub fn records(&self) -> Result<&[[u8; RECORD_LEN]], FormatError> {
        match self {
            Self::Whole(tables) => Ok(&tables.records),
            Self::Mapped(mapped) => Ok(Self::rows(mapped)?.records()),
        }
    }

    /// Puts it into a cache.
    pub fn add_to(self, cache: &mut Cache, object: ObjectHash) -> Result<(), IndexError> {
        match self {
            Self::Whole(tables) => cache.add(object, tables),
            Self::Mapped(mapped) => cache.add_mapped(object, &mapped),
        }
    }
}

/// Reads, and reads again what cannot be believed: it may have been spoilt on its way.
pub(super) async fn again<T, F>(read: impl Fn() -> F) -> Result<T, RepoError>
where
    F: Future<Output = Result<T, RepoError>>,
{
    let mut reads = 1;
    loop {
        match read().await {
            Err(error) if reads < READS && is_of_bytes(&error) => reads += 1,
            done => return done,
        }
    }
}

/// Whether a failure is one of bytes that were read.
fn is_of_bytes(error: &RepoError) -> bool {
    match error {
        RepoError::Store(StoreError::Short { .. }) => true,
        RepoError::Store(_) | RepoError::Index(_) | RepoError::TooLarge { .. } => false,
        error => error.class() == Class::Damage,
    }
}

impl Repository {
    /// Fetches an index object: into memory, or by way of a file if it is large and there is a place for that.
    pub async fn fetch_listed(&self, listed: &ListedIndex) -> Result<FetchedIndex, RepoError> {
        if let Some(place) = self.scratch_place().filter(|_| listed.size >= LARGE) {
            match self.fetch_large_index(listed, &place).await {
                // No room, or no rights: then it goes through memory, as all of the cache does.
                Err(RepoError::Local { .. }) => {}
                fetched => return fetched.map(FetchedIndex::Mapped),
            }
        }
        self.fetch_index(listed.name()).await.map(FetchedIndex::Whole)
    }

    /// Fetches an index object by way of a file in `place`; twice if it cannot be believed at first.
    async fn fetch_large_index(&self, listed: &ListedIndex, place: &Path) -> Result<MappedTables, RepoError> {
        again(|| self.fetch_pieces(listed, place)).await
    }

    async fn fetch_pieces(&self, listed: &ListedIndex, place: &Path) -> Result<MappedTables, RepoError> {
        let key = object_key(listed.name())?;
        if listed.size > INDEX_MAX {
            return Err(RepoError::at(key.as_str())(FormatError::Truncated));
        }
        let local = |source| RepoError::Local { path: place.to_owned(), source };
        let file = ScratchFile::create(place).map_err(local)?;
        let (head, signature) = (None, None);
        let mut incoming =
            Incoming { repo: self, key: key.as_str(), left: Vec::new(), head, file, at: 0, signature };
        let mut hasher = ObjectHasher::new();
        let starts = (0..listed.size).step_by(PIECE as usize);
        let mut pieces = futures::stream::iter(starts)
            .map(|start| self.store.get_range(&key, start..(start + PIECE).min(listed.size)))
            .buffered(AHEAD.min(self.env.limits.requests.max(1)));
        while let Some(piece) = pieces.try_next().await? {
            if self.env.cancel.is_raised() {
                return Err(RepoError::Cancelled);
            }
            hasher.update(&piece);
            incoming.take(&piece).map_err(|error| match error {
                RepoError::Local { source, .. } => local(source),
                error => error,
            })?;
        }
        if hasher.finish() != listed.object {
            return Err(RepoError::HashMismatch { key: key.as_str().to_owned() });
        }
        let Incoming { head, file, signature, .. } = incoming;
        let bad = || RepoError::at(key.as_str())(FormatError::Truncated);
        let (head, signature) = head.zip(signature).ok_or_else(bad)?;
        let author = head.header.author;
        if author != listed.author {
            return Err(RepoError::BadSignature { key: key.as_str().to_owned() });
        }
        self.verify(key.as_str(), (author, Authority::Writer), &head.message, &signature)?;
        let rows = file.map().map_err(local)?;
        let stored = StoredRows::new(&head.header, rows.as_ref());
        stored.and_then(|stored| stored.check(&head.header)).map_err(RepoError::at(key.as_str()))?;
        Ok(MappedTables { header: head.header, rows })
    }
}

impl Incoming<'_> {
    /// Uses as much as is complete.
    fn take(&mut self, piece: &[u8]) -> Result<(), RepoError> {
        if self.signature.is_some() {
            return Ok(()); // filling
        }
        self.left.extend_from_slice(piece);
        let mut used = 0;
        if self.head.is_none() {
            if self.left.len() < HEAD_LEN {
                return Ok(());
            }
            let head = Head::read(&self.left, &self.repo.id()).map_err(RepoError::at(self.key))?;
            if self.left.len() < head.len {
                return Ok(());
            }
            let (header, sealer) = head.open(self.repo, self.key, &self.left)?;
            let message = Bytes::copy_from_slice(&self.left[..head.len]);
            self.head = Some(Opened { message, header, sealer, count: head.count, done: 0 });
            used = head.len;
        }
        if let Some(head) = &mut self.head {
            while let Some(entry) = head.header.blocks.get(head.done) {
                let end = used + entry.stored.stored_len as usize;
                let Some(stored) = self.left.get(used..end) else { break };
                entry.check(stored).map_err(RepoError::at(self.key))?;
                let mut block = stored.to_vec();
                head.done += 1;
                head.sealer.open_block(head.done as u32, head.count, &mut block)?;
                if block.len() != entry.plain_len() {
                    return Err(RepoError::at(self.key)(FormatError::Truncated));
                }
                let written = self.file.write_at(&block, self.at);
                written.map_err(|source| RepoError::Local { path: Default::default(), source })?;
                self.at += block.len() as u64;
                used = end;
            }
            if head.done == head.header.blocks.len() {
                self.signature = Reader::new(&self.left[used..]).array().ok();
            }
        }
        self.left.drain(..used);
        Ok(())
    }
}
