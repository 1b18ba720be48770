//! Reading single chunks: pages of trees and lists, one segment at a time. Opened segments and stored bytes are kept, a few
//! in memory and those of trees in the local cache.
//!
//! A restore does not read content through this: it plans, and fetches whole ranges of packs.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use super::error::RepoError;
use super::keys::{SealedKeyName, SegmentPlace};
use super::open::{Repository, object_key};
use super::tree_cache::TreeCache;
use crate::crypto::{DataKey, SecretKey, chunk_id, context};
use crate::format::FormatError;
use crate::format::envelope::ChunkKind;
use crate::format::layout::ObjectName;
use crate::id::{ChunkId, PackId};
use crate::index::{Location, View};
use crate::seal::SegmentOpener;

/// Opened segments that are kept: neighbours are usually wanted next.
const SEGMENTS_KEPT: usize = 16;

/// Bytes of packs that are kept in memory by a reader that reads ahead and has no cache.
const RANGES_KEPT: usize = 36 << 20;
/// Parts of packs that are remembered as fetched.
const AHEAD_KEPT: usize = 1 << 16;

/// A segment's place, and its plaintext. Not its number: what one index object says of that may hide what another does.
type KeptSegment = (SegmentPlace, Arc<Vec<u8>>);

fn is_gone(error: &RepoError) -> bool {
    matches!(error, RepoError::Store(error) if error.is_not_found())
}

/// Reads chunks by id. One task uses it at a time.
pub struct ChunkReader<'a> {
    repo: &'a Repository,
    view: View,
    /// Names chunks; a maintainer does without.
    id_key: Option<SecretKey>,
    opener: SegmentOpener,
    kept: VecDeque<KeptSegment>,
    keeps: usize,
    /// Bytes that one request may fetch beyond what is wanted; zero reads single segments.
    ahead: u64,
    /// Stored bytes of packs, from an offset on.
    ranges: VecDeque<(PackId, u64, Bytes)>,
    /// Parts of packs of which more was fetched than was wanted: that pays once.
    fetched: HashSet<(PackId, u64)>,
    cache: Option<Arc<TreeCache>>,
}

impl<'a> ChunkReader<'a> {
    /// Reads through this view of the index.
    pub fn new(repo: &'a Repository, view: View) -> Result<Self, RepoError> {
        let id_key = repo.dedup_key(context::CHUNK_ID).ok();
        let opener = SegmentOpener::new(repo.id())?;
        Ok(Self {
            repo,
            view,
            id_key,
            opener,
            kept: VecDeque::new(),
            keeps: SEGMENTS_KEPT,
            ahead: 0,
            ranges: VecDeque::new(),
            fetched: HashSet::new(),
            cache: None,
        })
    }

    /// Takes stored bytes of trees from this cache, and puts there what it fetches of them.
    pub fn with_cache(self, cache: Option<Arc<TreeCache>>) -> Self {
        Self { cache, ..self }
    }

    /// Keeps at most this many opened segments, about 1 MiB each; at least one.
    pub fn keeping(self, segments: usize) -> Self {
        Self { keeps: segments.max(1), ..self }
    }

    /// Fetches up to so many bytes of a pack at once, when something of it is wanted for the first time: a whole pack if it is
    /// not longer, what follows a segment otherwise.
    pub fn read_ahead(&mut self, bytes: u64) {
        self.ahead = bytes;
    }

    /// Reads through another view from now on.
    pub fn set_view(&mut self, view: View) {
        self.view = view;
    }

    /// The plaintext of a chunk. Every known copy is tried; the id is recomputed before a byte is handed out.
    ///
    /// Without the key that names chunks a true copy cannot be told from a lie about it, which any writer can put beside it and
    /// never in its place. Then all copies are read, and must be the same.
    ///
    /// # Errors
    /// `Ok(None)` if no copy is known at all; the last copy's error if none could be read. Without that key also if any copy that
    /// is there cannot be read, or is not like the others.
    pub async fn read(&mut self, kind: ChunkKind, id: &ChunkId) -> Result<Option<Vec<u8>>, RepoError> {
        let locations: Vec<Location> = self.view.locate(id).collect::<Result<_, _>>()?;
        let (mut failure, mut found) = (None, None);
        for location in locations {
            match self.read_at(kind, id, &location).await {
                Ok(chunk) if self.id_key.is_some() => return Ok(Some(chunk)),
                Ok(chunk) if found.as_ref().is_none_or(|found| *found == chunk) => found = Some(chunk),
                Ok(_) => {
                    return Err(RepoError::HashMismatch { key: ObjectName::Pack(location.pack_id).key() });
                }
                Err(error @ RepoError::RoleForbids { .. }) => return Err(error),
                Err(error) if self.id_key.is_none() && !is_gone(&error) => return Err(error),
                Err(error) => failure = Some(error),
            }
        }
        match failure {
            Some(error) if found.is_none() => Err(error),
            _ => Ok(found),
        }
    }

    async fn read_at(
        &mut self,
        kind: ChunkKind,
        id: &ChunkId,
        location: &Location,
    ) -> Result<Vec<u8>, RepoError> {
        let plain = self.segment(location).await?;
        let start = location.offset as usize;
        let chunk = plain.get(start..start + location.length as usize);
        let key = || ObjectName::Pack(location.pack_id).key();
        let chunk = chunk.ok_or_else(|| RepoError::at(&key())(FormatError::Truncated))?;
        match &self.id_key {
            Some(id_key) if chunk_id(id_key, kind, chunk) != *id => {
                Err(RepoError::HashMismatch { key: key() })
            }
            _ => Ok(chunk.to_vec()),
        }
    }

    async fn segment(&mut self, location: &Location) -> Result<Arc<Vec<u8>>, RepoError> {
        let sealed = self.view.data_key(location.data_key)?;
        let wanted = SegmentPlace::new(location, SealedKeyName::of(sealed));
        if let Some((_, plain)) = self.kept.iter().find(|(key, _)| *key == wanted) {
            return Ok(Arc::clone(plain));
        }
        let data_key = self.repo.open_data_key(sealed)?;
        let mut plain = Vec::new();
        if !self.open_cached(location, &data_key, &mut plain) {
            plain.clear();
            let stored = self.stored(location).await?;
            self.opener.open(&data_key, &location.segment, &stored, &mut plain)?;
        }
        let plain = Arc::new(plain);
        if self.kept.len() >= self.keeps {
            self.kept.pop_front();
        }
        self.kept.push_back((wanted, Arc::clone(&plain)));
        Ok(plain)
    }

    /// Opens a segment from the cache, if it is there. What does not open is of no use, and says nothing of the repository.
    fn open_cached(&mut self, location: &Location, key: &DataKey, plain: &mut Vec<u8>) -> bool {
        let Some(cache) = &self.cache else { return false };
        let start = u64::from(location.segment.offset);
        let range = start..start + u64::from(location.segment.stored_len);
        let Some(stored) = cache.get(&location.pack_id, range) else { return false };
        let opened = self.opener.open(key, &location.segment, &stored, plain).is_ok();
        if !opened {
            cache.forget(&location.pack_id);
        }
        opened
    }

    /// The stored bytes of a segment, from the store.
    async fn stored(&mut self, location: &Location) -> Result<Bytes, RepoError> {
        let start = u64::from(location.segment.offset);
        let end = start + u64::from(location.segment.stored_len);
        let cut = |from: u64, bytes: &Bytes| {
            let inside = from <= start && end <= from + bytes.len() as u64;
            inside.then(|| bytes.slice((start - from) as usize..(end - from) as usize))
        };
        let mut kept = self.ranges.iter().filter(|(pack, ..)| *pack == location.pack_id);
        if let Some(stored) = kept.find_map(|(_, from, bytes)| cut(*from, bytes)) {
            return Ok(stored);
        }
        let key = object_key(ObjectName::Pack(location.pack_id))?;
        let row = self.view.pack(location.pack)?;
        let (body, is_tree) = (u64::from(row.directory_offset), row.kind == ChunkKind::Tree);
        if self.ahead > 0 && end <= body && self.is_first(location.pack_id, body, start) {
            let from = if body <= self.ahead { 0 } else { start };
            let to = body.min(from + self.ahead).max(end);
            // What the index says of a pack may be wrong; then the segment alone is tried.
            if let Ok(bytes) = self.repo.store.get_range(&key, from..to).await {
                self.keep((location.pack_id, is_tree), from, &bytes);
                if let Some(stored) = cut(from, &bytes) {
                    return Ok(stored);
                }
            }
        }
        let bytes = self.repo.store.get_range(&key, start..end).await?;
        if is_tree && let Some(cache) = &self.cache {
            cache.put(&location.pack_id, start, &bytes);
        }
        Ok(bytes)
    }

    /// Whether this part of the pack was not fetched ahead before.
    fn is_first(&mut self, pack: PackId, body: u64, start: u64) -> bool {
        if self.fetched.len() >= AHEAD_KEPT {
            self.fetched.clear();
        }
        self.fetched.insert((pack, if body <= self.ahead { 0 } else { start / self.ahead }))
    }

    /// Keeps what was fetched ahead: in the cache, or in memory.
    fn keep(&mut self, (pack, is_tree): (PackId, bool), from: u64, bytes: &Bytes) {
        if is_tree && self.cache.as_ref().is_some_and(|cache| cache.put(&pack, from, bytes)) {
            return;
        }
        let held =
            |ranges: &VecDeque<(PackId, u64, Bytes)>| ranges.iter().map(|(.., b)| b.len()).sum::<usize>();
        while !self.ranges.is_empty() && held(&self.ranges) + bytes.len() > RANGES_KEPT {
            self.ranges.pop_front();
        }
        self.ranges.push_back((pack, from, bytes.clone()));
    }
}
