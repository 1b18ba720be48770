//! Reading what a snapshot points to: directories page by page, paths by the few pages that lead to them, the chunk list
//! of a file row by row.
//!
//! # Invariants
//! Memory does not grow with a directory, a file or the depth of a tree. A page costs time only if it brings a new name,
//! so no arrangement of pages makes a directory larger than it is. A chunk that is nowhere makes the index be loaded
//! again, once a run; only a second miss is damage (`docs/protocol.md`, Readers).
//!
//! # Must not
//! Recurse over anything that is stored.

mod cursor;
mod find;
mod rows;
#[cfg(test)]
pub(crate) mod testing;
mod walk;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::class::Class;
use crate::crypto::DataKey;
use crate::error::Error;
use crate::format::FormatError;
use crate::format::envelope::ChunkKind;
use crate::id::ChunkId;
use crate::index::{DataKeyNumber, View};
use crate::repo::{ChunkReader, DataKeys, RepoError, Repository};

pub(crate) use cursor::{DirCursor, Item};
pub(crate) use find::{Found, parts};
pub(crate) use rows::ContentRows;
pub(crate) use walk::{Step, TreeWalk};

/// Where chunks are, shared by all that read in one run.
pub(crate) struct Lookup<'a> {
    repo: &'a Repository,
    keys: Arc<DataKeys>,
    view: Mutex<View>,
    /// How often the index was loaded again.
    generation: AtomicU64,
    reloading: tokio::sync::Mutex<()>,
}

impl<'a> Lookup<'a> {
    /// Loads the index.
    pub(crate) async fn open(repo: &'a Repository) -> Result<Self, Error> {
        let loaded = repo.load_index().await?;
        Ok(Self::with_view(repo, loaded.view))
    }

    /// Reads through a view that was loaded already.
    pub(crate) fn with_view(repo: &'a Repository, view: View) -> Self {
        Self {
            repo,
            keys: Arc::new(DataKeys::default()),
            view: Mutex::new(view),
            generation: AtomicU64::new(0),
            reloading: tokio::sync::Mutex::new(()),
        }
    }

    /// The repository.
    pub(crate) fn repo(&self) -> &'a Repository {
        self.repo
    }

    /// The view as it is now.
    pub(crate) fn view(&self) -> View {
        self.view.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How often the index was loaded again; a view taken before a change is out of date.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Loads the index again unless that was done since `generation`. False if this run may not do it any more.
    pub(crate) async fn reload(&self, generation: u64) -> Result<bool, Error> {
        let _turn = self.reloading.lock().await;
        if self.generation() != generation {
            return Ok(true);
        }
        if generation > 0 {
            return Ok(false);
        }
        let loaded = self.repo.load_index().await?;
        *self.view.lock().unwrap_or_else(PoisonError::into_inner) = loaded.view;
        self.generation.store(generation + 1, Ordering::Release);
        Ok(true)
    }

    /// A reader of trees and lists.
    pub(crate) fn reader(&self) -> Result<TreeReader<'_>, Error> {
        let reader = ChunkReader::new(self.repo, self.view(), Arc::clone(&self.keys))?;
        Ok(TreeReader { lookup: self, reader, generation: self.generation() })
    }

    /// Keys of the segments of one view.
    pub(crate) fn opened_keys(&self) -> OpenedKeys {
        OpenedKeys { keys: Arc::clone(&self.keys), by_number: HashMap::new() }
    }
}

/// Data keys by their number in one view.
pub(crate) struct OpenedKeys {
    keys: Arc<DataKeys>,
    by_number: HashMap<DataKeyNumber, Arc<DataKey>>,
}

impl OpenedKeys {
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
        let key = self.keys.get(repo, view.data_key(number)?)?;
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
    /// Fetches up to this many bytes of a pack at once, for who reads most of a tree anyway.
    pub(crate) fn read_ahead(&mut self, bytes: u64) {
        self.reader.read_ahead(bytes);
    }

    /// A page of a tree or list, exactly `len` bytes.
    pub(crate) async fn page(&mut self, id: &ChunkId, len: u32) -> Result<Vec<u8>, Error> {
        loop {
            let read = self.reader.read(ChunkKind::Tree, id).await;
            let error = match read {
                Ok(Some(page)) if page.len() == len as usize => return Ok(page),
                Ok(Some(_)) => return Err(damaged_page(id, FormatError::Truncated)),
                Ok(None) => Error::ChunkLost { chunk: *id },
                Err(error) => Error::Repo(error),
            };
            if !may_have_moved(&error) || !self.lookup.reload(self.generation).await? {
                return Err(error);
            }
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

/// Whether a failure concerns only the bytes that were asked for, so that everything else can still be read.
pub(crate) fn is_local_damage(error: &Error) -> bool {
    match error {
        Error::Repo(RepoError::RoleForbids { .. } | RepoError::Cancelled | RepoError::Task) => false,
        Error::Repo(RepoError::Index(_)) | Error::Index(_) => false,
        Error::Damaged { .. } | Error::ChunkLost { .. } => true,
        Error::Repo(_) | Error::Store(_) | Error::Seal(_) | Error::Crypto(_) => {
            matches!(error.class(), Class::Damage | Class::Failed)
        }
        _ => false,
    }
}
