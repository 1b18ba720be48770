//! Reading single chunks: pages of trees and lists, one segment at a time, with a small cache.
//!
//! A restore does not read content through this: it plans, and fetches whole ranges of packs.

use std::collections::VecDeque;
use std::sync::Arc;

use super::error::RepoError;
use super::keys::DataKeys;
use super::open::{Repository, object_key};
use crate::crypto::{SecretKey, chunk_id, context};
use crate::format::FormatError;
use crate::format::envelope::ChunkKind;
use crate::format::layout::ObjectName;
use crate::id::ChunkId;
use crate::index::{Location, PackNumber, View};
use crate::seal::SegmentOpener;

/// Opened segments that are kept: neighbours are usually wanted next.
const SEGMENTS_KEPT: usize = 16;

/// A segment's place, and its plaintext.
type KeptSegment = ((PackNumber, u16), Arc<Vec<u8>>);

/// Reads chunks by id. One task uses it at a time.
pub struct ChunkReader<'a> {
    repo: &'a Repository,
    view: View,
    keys: Arc<DataKeys>,
    id_key: SecretKey,
    opener: SegmentOpener,
    kept: VecDeque<KeptSegment>,
    keeps: usize,
}

impl<'a> ChunkReader<'a> {
    /// Reads through this view of the index.
    pub fn new(repo: &'a Repository, view: View, keys: Arc<DataKeys>) -> Result<Self, RepoError> {
        let id_key = repo.dedup_key(context::CHUNK_ID)?;
        Ok(Self {
            repo,
            view,
            keys,
            id_key,
            opener: SegmentOpener::new(repo.id())?,
            kept: VecDeque::new(),
            keeps: SEGMENTS_KEPT,
        })
    }

    /// Keeps at most this many opened segments, about 1 MiB each; at least one.
    pub fn keeping(self, segments: usize) -> Self {
        Self { keeps: segments.max(1), ..self }
    }

    /// Reads through another view from now on.
    pub fn set_view(&mut self, view: View) {
        self.view = view;
        // Pack numbers mean something else now.
        self.kept.clear();
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
        let wanted = (location.pack, location.segment_number);
        if let Some((_, plain)) = self.kept.iter().find(|(key, _)| *key == wanted) {
            return Ok(Arc::clone(plain));
        }
        let entry = &location.segment;
        let range = u64::from(entry.offset)..u64::from(entry.offset) + u64::from(entry.stored_len);
        let stored =
            self.repo.store.get_range(&object_key(ObjectName::Pack(location.pack_id))?, range).await?;
        let data_key = self.keys.get(self.repo, self.view.data_key(location.data_key)?)?;
        let mut plain = Vec::new();
        self.opener.open(&data_key, entry, &stored, &mut plain)?;
        let plain = Arc::new(plain);
        if self.kept.len() >= self.keeps {
            self.kept.pop_front();
        }
        self.kept.push_back((wanted, Arc::clone(&plain)));
        Ok(plain)
    }
}
