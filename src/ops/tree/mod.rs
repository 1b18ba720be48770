//! Reading what a snapshot points to: directories page by page, paths by the few pages that lead to them, the chunk list
//! of a file row by row.
//!
//! # Invariants
//! Memory does not grow with a directory, a file or the depth of a tree. A page costs time only if it brings a new name,
//! so no arrangement of pages makes a directory larger than it is. A chunk that is nowhere, or cannot be read, makes the index
//! be listed again; only a miss under an unchanged listing is damage (`docs/protocol.md`, Readers).
//!
//! # Must not
//! Recurse over anything that is stored.

mod cursor;
mod elsewhere;
mod find;
mod locate;
mod pair;
mod rows;
#[cfg(test)]
pub(crate) mod testing;
mod walk;

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::class::Class;
use crate::crypto::DataKey;
use crate::error::Error;
use crate::event::Event;
use crate::format::FormatError;
use crate::format::envelope::ChunkKind;
use crate::id::ChunkId;
use crate::index::{DataKeyNumber, IndexError, Location, View};
use crate::repo::{ChunkReader, ReadIndex, RepoError, Repository, SealedKeyName, SegmentPlace, TreeCache};

pub(crate) use cursor::{DirCursor, Item, leaf_rows};
pub(crate) use elsewhere::{Sought, elsewhere, fetch, genuine};
pub(crate) use find::{Absent, Found, parts};
pub(crate) use locate::{Located, Locator};
pub(crate) use pair::{Gap, Pair, PairWalk, Side, trees};
pub(crate) use rows::ContentRows;
pub(crate) use walk::{Step, TreeWalk};

/// How often the view may change under somebody who looks for one chunk. Whoever reads at the same time changes it too; what
/// is lost must be called lost at last.
pub(crate) const LOOKS_MAX: u32 = 1000;

/// Where chunks are, shared by all that read in one run.
pub(crate) struct Lookup<'a> {
    repo: &'a Repository,
    index: tokio::sync::Mutex<ReadIndex>,
    view: Mutex<View>,
    /// Bytes of the index that were not fetched.
    left: AtomicU64,
    /// How often the view changed.
    generation: AtomicU64,
    /// Index objects that the user was told about.
    told: Mutex<HashSet<String>>,
    cache: Option<Arc<TreeCache>>,
}

impl<'a> Lookup<'a> {
    /// Loads the index, or what it takes to look something up in it.
    pub(crate) async fn open(repo: &'a Repository) -> Result<Self, Error> {
        let index = repo.read_index().await?;
        let lookup = Self {
            repo,
            view: Mutex::new(index.view().clone()),
            left: index.left().into(),
            index: tokio::sync::Mutex::new(index),
            generation: AtomicU64::new(0),
            told: Mutex::default(),
            cache: TreeCache::open(repo),
        };
        lookup.tell(&mut *lookup.index.lock().await);
        Ok(lookup)
    }

    /// Fetches the rest of the index for a run that reads `content` bytes, if that may take as many requests for single places.
    pub(crate) async fn expect(&self, content: u64) -> Result<(), Error> {
        let left = self.left.load(Ordering::Acquire);
        if left > 0 && content > left {
            let mut index = self.index.lock().await;
            index.load_rest(self.repo).await?;
            self.tell(&mut index);
            self.publish(&index);
        }
        Ok(())
    }

    fn publish(&self, index: &ReadIndex) {
        *self.view.lock().unwrap_or_else(PoisonError::into_inner) = index.view().clone();
        self.left.store(index.left(), Ordering::Release);
        self.generation.fetch_add(1, Ordering::AcqRel);
    }

    /// The repository.
    pub(crate) fn repo(&self) -> &'a Repository {
        self.repo
    }

    /// The view as it is now.
    pub(crate) fn view(&self) -> View {
        self.view.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How often the view changed; one taken before a change is out of date.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Looks for a chunk that the view of `generation` does not hold, or holds in vain, in index objects that were not fetched.
    /// True if the view is another now.
    pub(crate) async fn look(&self, generation: u64, kind: ChunkKind, id: &ChunkId) -> Result<bool, Error> {
        if self.left.load(Ordering::Acquire) == 0 {
            return Ok(self.generation() != generation);
        }
        let mut index = self.index.lock().await;
        if self.generation() != generation {
            return Ok(true);
        }
        let looked = index.look(self.repo, kind, id).await;
        self.tell(&mut index);
        match looked {
            Ok(true) => self.publish(&index),
            Ok(false) => return Ok(false),
            // An index object went away; whoever still lacks the chunk then lists the index again.
            Err(RepoError::Store(error)) if error.is_not_found() => return Ok(false),
            Err(error) => return Err(error.into()),
        }
        Ok(true)
    }

    /// Loads the index again if its listing is another than that of the view of `generation`. False if all that is not to be
    /// found now is lost.
    pub(crate) async fn reload(&self, generation: u64) -> Result<bool, Error> {
        let mut index = self.index.lock().await;
        if self.generation() != generation {
            return Ok(true);
        }
        let changed = index.reload(self.repo).await?;
        self.tell(&mut index);
        if changed {
            self.publish(&index);
        }
        Ok(changed)
    }

    /// Looks for a chunk that the view of `generation` does not hold, or holds in vain, wherever that may help: in what was not
    /// fetched, and in a new listing of the index. True if the view is another now; false if the chunk is lost.
    pub(crate) async fn more(&self, generation: u64, kind: ChunkKind, id: &ChunkId) -> Result<bool, Error> {
        Ok(self.look(generation, kind, id).await? || self.reload(generation).await?)
    }

    /// Lets the index be loaded again as often as at first, for who reads for days.
    pub(crate) async fn renew(&self) {
        self.index.lock().await.renew();
    }

    /// Names the index objects that were left out, each once a run.
    fn tell(&self, index: &mut ReadIndex) {
        for problem in index.take_problems() {
            let message = problem.to_string();
            if self.told.lock().unwrap_or_else(PoisonError::into_inner).insert(problem.key) {
                self.repo.env().observer.observe(&Event::Warning { message: &message });
            }
        }
    }

    /// A reader of trees and lists.
    pub(crate) fn reader(&self) -> Result<TreeReader<'_>, Error> {
        let generation = self.generation();
        let reader = ChunkReader::new(self.repo, self.view())?.with_cache(self.cache.clone());
        Ok(TreeReader { lookup: self, reader, generation })
    }

    /// As [`Lookup::reader`]; from a store far away, where each request costs a round trip, up to so many bytes of a pack are
    /// fetched at once.
    pub(crate) fn reader_ahead(&self, bytes: u64) -> Result<TreeReader<'_>, Error> {
        let mut reader = self.reader()?;
        if !self.repo.store().is_local() {
            reader.read_ahead(bytes);
        }
        Ok(reader)
    }

    /// Keys of the segments of one view.
    pub(crate) fn opened_keys(&self) -> OpenedKeys {
        OpenedKeys { by_number: HashMap::new(), names: HashMap::new() }
    }
}

/// Data keys by their number in one view.
pub(crate) struct OpenedKeys {
    by_number: HashMap<DataKeyNumber, Arc<DataKey>>,
    names: HashMap<DataKeyNumber, SealedKeyName>,
}

/// A copy of a chunk as one index object names it: what is read, and where the chunk is in that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct ChunkCopy {
    pub(crate) segment: SegmentPlace,
    pub(crate) offset: u32,
}

impl OpenedKeys {
    /// Names the copy at a location of this view.
    fn copy(&mut self, view: &View, location: &Location) -> Result<ChunkCopy, Error> {
        let number = location.data_key;
        let name = match self.names.get(&number) {
            Some(name) => *name,
            None => {
                let name = SealedKeyName::of(view.data_key(number)?);
                self.names.insert(number, name);
                name
            }
        };
        Ok(ChunkCopy { segment: SegmentPlace::new(location, name), offset: location.offset })
    }

    /// The copies of a chunk of this length that a view knows.
    pub(crate) fn copies(
        &mut self,
        view: &View,
        (id, len): (&ChunkId, u32),
    ) -> Result<Vec<(Location, ChunkCopy)>, Error> {
        let mut copies = Vec::new();
        for location in view.locate(id) {
            let location = location?;
            if location.length == len {
                copies.push((location, self.copy(view, &location)?));
            }
        }
        Ok(copies)
    }

    /// The key with this number.
    pub(crate) fn get(
        &mut self,
        repo: &Repository,
        view: &View,
        number: DataKeyNumber,
    ) -> Result<Arc<DataKey>, Error> {
        if let Some(key) = self.by_number.get(&number) {
            return Ok(Arc::clone(key));
        }
        let key = repo.open_data_key(view.data_key(number)?)?;
        self.by_number.insert(number, Arc::clone(&key));
        Ok(key)
    }
}

/// Reads chunks of kind tree. One task uses it at a time.
pub(crate) struct TreeReader<'a> {
    lookup: &'a Lookup<'a>,
    reader: ChunkReader<'a>,
    generation: u64,
}

impl TreeReader<'_> {
    /// The same reader, which keeps at most so many opened segments.
    pub(crate) fn keeping(self, segments: usize) -> Self {
        Self { reader: self.reader.keeping(segments), ..self }
    }

    /// Fetches up to this many bytes of a pack at once, for who reads most of a tree anyway.
    pub(crate) fn read_ahead(&mut self, bytes: u64) {
        self.reader.read_ahead(bytes);
    }

    /// A page of a tree or list, exactly `len` bytes.
    pub(crate) async fn page(&mut self, id: &ChunkId, len: u32) -> Result<Vec<u8>, Error> {
        let mut looks = 0;
        loop {
            let read = self.reader.read(ChunkKind::Tree, id).await;
            let error = match read {
                Ok(Some(page)) if page.len() == len as usize => return Ok(page),
                Ok(Some(_)) => return Err(damaged_page(id, FormatError::Truncated)),
                Ok(None) => Error::ChunkLost { chunk: *id },
                Err(error) => Error::Repo(error),
            };
            let hope = looks < LOOKS_MAX
                && (may_have_moved(&error) || is_local_damage(&error) || is_cache_damage(&error));
            if !hope || !self.lookup.more(self.generation, ChunkKind::Tree, id).await? {
                return Err(error);
            }
            looks += 1;
            self.generation = self.lookup.generation();
            self.reader.set_view(self.lookup.view());
        }
    }
}

/// A page that breaks the format.
pub(crate) fn damaged_page(id: &ChunkId, rule: FormatError) -> Error {
    Error::Damaged { key: format!("tree page {}", id.short()), rule }
}

/// Whether a failure can come from an index that is older than the packs.
pub(crate) fn may_have_moved(error: &Error) -> bool {
    match error {
        Error::ChunkLost { .. } => true,
        Error::Repo(RepoError::Store(error)) | Error::Store(error) => error.is_not_found(),
        _ => false,
    }
}

/// Whether a failure is of the local index, which is fetched anew when the index is loaded again.
pub(crate) fn is_cache_damage(error: &Error) -> bool {
    matches!(
        error,
        Error::Index(IndexError::CacheDamaged { .. })
            | Error::Repo(RepoError::Index(IndexError::CacheDamaged { .. }))
    )
}

/// Whether a failure concerns only the bytes that were asked for, so that everything else can still be read.
pub(crate) fn is_local_damage(error: &Error) -> bool {
    match error {
        Error::Repo(
            RepoError::RoleForbids { .. } | RepoError::StaleKey | RepoError::Cancelled | RepoError::Task,
        ) => false,
        Error::Repo(RepoError::Index(_)) | Error::Index(_) => false,
        // The user's own key opened the repository: what it does not open was sealed to somebody else, or is damaged.
        Error::Repo(RepoError::Crypto(_)) => true,
        Error::Damaged { .. } | Error::ChunkLost { .. } => true,
        Error::Repo(_) | Error::Store(_) | Error::Seal(_) | Error::Crypto(_) => {
            matches!(error.class(), Class::Damage | Class::Failed)
        }
        _ => false,
    }
}
