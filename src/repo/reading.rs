//! Where a reader finds chunks. It asks a view; what the view lacks, it asks for here (`docs/protocol.md`, Readers).
//!
//! # Invariants
//! A chunk is given up only after the listing of index objects was seen unchanged: packs and index objects may move while
//! somebody reads.

use super::cold::ColdIndex;
use super::error::RepoError;
use super::load::{ListedIndex, Problem};
use super::open::Repository;
use crate::format::envelope::ChunkKind;
use crate::id::ChunkId;
use crate::index::{Cache, IndexError, View};

/// If the local cache lacks more bytes of index objects than this, they are not fetched for reading a part of a snapshot.
pub const COLD_FROM: u64 = 64 << 20;

/// How often a load that met a damaged cache, or an object that went away, begins again.
const LOADS_MAX: usize = 16;

/// How often a reader loads the index again. Where others store all the time, no two listings are equal, and what is lost must
/// be called lost at last.
const RELOADS_MAX: u32 = 100;

/// What a reader knows of the index.
pub struct ReadIndex {
    view: View,
    /// The listing that all else goes by.
    listed: Vec<ListedIndex>,
    /// Objects that were not fetched.
    cold: Option<ColdIndex>,
    /// Most bytes that are fetched to have everything at hand.
    most: u64,
    /// How often it was loaded again.
    reloads: u32,
    problems: Vec<Problem>,
}

impl Repository {
    /// Loads the index for reading: all of it if the cache holds nearly everything, else what can be had without fetching
    /// much.
    pub async fn read_index(&self) -> Result<ReadIndex, RepoError> {
        ReadIndex::load(self, None, self.cold_from).await
    }
}

impl ReadIndex {
    /// Where chunks are, as far as is known.
    pub fn view(&self) -> &View {
        &self.view
    }

    /// Bytes of index objects that were not fetched; zero if the view knows everything.
    pub fn left(&self) -> u64 {
        self.cold.as_ref().map_or(0, ColdIndex::bytes)
    }

    /// Fetches what was left, for who will need much of it.
    pub async fn load_rest(&mut self, repo: &Repository) -> Result<(), RepoError> {
        *self = Self::load(repo, None, u64::MAX).await?;
        Ok(())
    }

    /// Counts from zero again how often the index is loaded.
    pub fn renew(&mut self) {
        self.reloads = 0;
    }

    /// Index objects that were left out since the last call. One may come again.
    pub fn take_problems(&mut self) -> Vec<Problem> {
        let mut problems = std::mem::take(&mut self.problems);
        problems.extend(self.cold.as_mut().map(ColdIndex::take_problems).unwrap_or_default());
        problems
    }

    /// Looks for a chunk in what was not fetched and was not asked about it yet. True if the view changed.
    pub async fn look(
        &mut self,
        repo: &Repository,
        kind: ChunkKind,
        id: &ChunkId,
    ) -> Result<bool, RepoError> {
        let Some(cold) = &mut self.cold else { return Ok(false) };
        let changed = cold.look(repo, kind, id).await?;
        if changed {
            self.view = cold.view()?;
        }
        Ok(changed)
    }

    /// Loads the index again if its listing is another now, or what this machine had of it is damaged. If not, there is nothing
    /// more to be known: what was not found is lost.
    pub async fn reload(&mut self, repo: &Repository) -> Result<bool, RepoError> {
        let spent = self.reloads == RELOADS_MAX;
        if spent || !self.view.is_damaged() && repo.list_index().await? == self.listed {
            return Ok(false);
        }
        let (reloads, before) = (self.reloads + 1, self.take_problems());
        *self = Self { reloads, ..Self::load(repo, self.cold.take(), self.most).await? };
        self.problems.extend(before);
        Ok(true)
    }

    async fn load(repo: &Repository, mut old: Option<ColdIndex>, most: u64) -> Result<Self, RepoError> {
        let mut cache = repo.open_cache();
        for _ in 0..LOADS_MAX {
            match Self::load_through(repo, &mut cache, old.take(), most).await {
                Err(RepoError::Index(IndexError::CacheDamaged { .. })) => {}
                // Replaced and deleted since it was listed: a new listing shows by what.
                Err(RepoError::Store(error)) if error.is_not_found() => {}
                other => return other,
            }
        }
        Self::load_through(repo, &mut Cache::open(None), None, most).await
    }

    async fn load_through(
        repo: &Repository,
        cache: &mut Cache,
        old: Option<ColdIndex>,
        most: u64,
    ) -> Result<Self, RepoError> {
        let listed = repo.list_index().await?;
        let missing = repo.missing_bytes(cache, &listed);
        if missing <= most {
            let (view, problems) = repo.load_listed(cache, listed.clone()).await?;
            return Ok(Self { view, listed, cold: None, most, reloads: 0, problems });
        }
        let (believed, problems) = repo.without_refused(listed.clone());
        let mut cold = ColdIndex::load(repo, cache, &believed, old).await?;
        let view = cold.view()?;
        Ok(Self { view, listed, cold: Some(cold), most, reloads: 0, problems })
    }
}
