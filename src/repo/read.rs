//! Reading single chunks: pages of trees and lists, one segment at a time, with a small cache.
//!
//! A restore does not read content through this: it plans, and fetches whole ranges of packs.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use super::error::RepoError;
use super::keys::{SealedKeyName, SegmentPlace};
use super::open::{Repository, object_key};
use crate::crypto::{SecretKey, chunk_id, context};
use crate::format::FormatError;
use crate::format::envelope::ChunkKind;
use crate::format::layout::ObjectName;
use crate::id::{ChunkId, PackId};
use crate::index::{Location, View};
use crate::seal::SegmentOpener;

/// Opened segments that are kept: neighbours are usually wanted next.
const SEGMENTS_KEPT: usize = 16;

/// Ranges of packs that are kept by a reader that reads ahead.
const RANGES_KEPT: usize = 2;

/// A segment's place, and its plaintext. Not its number: what one index object says of that may hide what another does.
type KeptSegment = (SegmentPlace, Arc<Vec<u8>>);

/// Reads chunks by id. One task uses it at a time.
pub struct ChunkReader<'a> {
    repo: &'a Repository,
    view: View,
    id_key: SecretKey,
    opener: SegmentOpener,
    kept: VecDeque<KeptSegment>,
    keeps: usize,
    /// Bytes that one request may fetch beyond what is wanted; zero reads single segments.
    ahead: u64,
    /// Stored bytes of packs, from an offset on.
    ranges: VecDeque<(PackId, u64, Bytes)>,
}

impl<'a> ChunkReader<'a> {
    /// Reads through this view of the index.
    pub fn new(repo: &'a Repository, view: View) -> Result<Self, RepoError> {
        let id_key = repo.dedup_key(context::CHUNK_ID)?;
        let opener = SegmentOpener::new(repo.id())?;
        let (kept, ranges) = (VecDeque::new(), VecDeque::new());
        Ok(Self { repo, view, id_key, opener, kept, keeps: SEGMENTS_KEPT, ahead: 0, ranges })
    }

    /// Keeps at most this many opened segments, about 1 MiB each; at least one.
    pub fn keeping(self, segments: usize) -> Self {
        Self { keeps: segments.max(1), ..self }
    }

    /// Fetches up to so many bytes of a pack at once: a whole pack if it is not longer, what follows a segment otherwise.
    /// Two such ranges are kept.
    pub fn read_ahead(&mut self, bytes: u64) {
        self.ahead = bytes;
    }

    /// Reads through another view from now on.
    pub fn set_view(&mut self, view: View) {
        self.view = view;
    }

    /// The plaintext of a chunk. Every known copy is tried; the id is recomputed before a byte is handed out.
    ///
    /// # Errors
    /// `Ok(None)` if no copy is known at all; the last copy's error if none could be read.
    pub async fn read(&mut self, kind: ChunkKind, id: &ChunkId) -> Result<Option<Vec<u8>>, RepoError> {
        let locations: Vec<Location> = self.view.locate(id).collect::<Result<_, _>>()?;
        let mut failure = None;
        for location in locations {
            match self.read_at(kind, id, &location).await {
                Ok(chunk) => return Ok(Some(chunk)),
                Err(error @ RepoError::RoleForbids { .. }) => return Err(error),
                Err(error) => failure = Some(error),
            }
        }
        failure.map_or(Ok(None), Err)
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
        if chunk_id(&self.id_key, kind, chunk) == *id {
            Ok(chunk.to_vec())
        } else {
            Err(RepoError::HashMismatch { key: key() })
        }
    }

    async fn segment(&mut self, location: &Location) -> Result<Arc<Vec<u8>>, RepoError> {
        let sealed = self.view.data_key(location.data_key)?;
        let wanted = SegmentPlace::new(location, SealedKeyName::of(sealed));
        if let Some((_, plain)) = self.kept.iter().find(|(key, _)| *key == wanted) {
            return Ok(Arc::clone(plain));
        }
        let entry = &location.segment;
        let stored = self.stored(location).await?;
        let data_key = self.repo.open_data_key(self.view.data_key(location.data_key)?)?;
        let mut plain = Vec::new();
        self.opener.open(&data_key, entry, &stored, &mut plain)?;
        let plain = Arc::new(plain);
        if self.kept.len() >= self.keeps {
            self.kept.pop_front();
        }
        self.kept.push_back((wanted, Arc::clone(&plain)));
        Ok(plain)
    }

    /// The stored bytes of a segment.
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
        let body = u64::from(self.view.pack(location.pack)?.directory_offset);
        if self.ahead > 0 && end <= body {
            let from = if body <= self.ahead { 0 } else { start };
            let to = body.min(from + self.ahead).max(end);
            // What the index says of a pack may be wrong; then the segment alone is tried.
            if let Ok(bytes) = self.repo.store.get_range(&key, from..to).await {
                if self.ranges.len() == RANGES_KEPT {
                    self.ranges.pop_front();
                }
                self.ranges.push_back((location.pack_id, from, bytes.clone()));
                if let Some(stored) = cut(from, &bytes) {
                    return Ok(stored);
                }
            }
        }
        Ok(self.repo.store.get_range(&key, start..end).await?)
    }
}
