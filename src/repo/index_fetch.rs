//! Fetching an index object that is too large for memory: piece by piece, its rows opened into a file without a name.
//!
//! # Invariants
//! Nothing of it counts before the hash in its name, its signature and all its rows were checked. Memory holds a few pieces.

use std::path::Path;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};

use super::error::RepoError;
use super::index_object::{HEAD_LEN, Head};
use super::load::{INDEX_MAX, ListedIndex};
use super::open::{Repository, object_key};
use crate::crypto::{ObjectHasher, ObjectSealer};
use crate::format::FormatError;
use crate::format::config::Authority;
use crate::format::index::{IndexHeader, StoredRows};
use crate::format::signed::SIGNATURE_LEN;
use crate::format::wire::Reader;
use crate::index::{MappedTables, ScratchFile};

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

impl Repository {
    /// Fetches an index object by way of a file in `place`.
    pub(super) async fn fetch_large_index(
        &self,
        listed: &ListedIndex,
        place: &Path,
    ) -> Result<MappedTables, RepoError> {
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
