//! Step 1 of a writer (`docs/protocol.md`): what is there, in an order that no collector can fool.
//!
//! The horizon first, then the index objects, then the packs, then the condemnations. A record counts only if its pack was
//! listed and was not seen condemned.

use std::collections::HashSet;

use super::error::RepoError;
use super::index_object::open_index_object;
use super::open::Repository;
use crate::format::layout::{self, ObjectName};
use crate::id::{ObjectHash, PackId};
use crate::index::{Cache, CacheWarning, IndexError, View};

/// Most bytes of an index object.
pub const INDEX_MAX: u64 = 1 << 30;

/// How often a load that met a damaged level of the cache, or an index object that went away, begins again.
const LOADS_MAX: usize = 16;

/// An object that was skipped because it could not be believed.
#[derive(Debug)]
pub struct Problem {
    /// Its key.
    pub key: String,
    /// Why it was skipped.
    pub error: RepoError,
}

/// What a run knows of the repository.
#[derive(Debug)]
pub struct LoadedIndex {
    /// The local cache the view comes from.
    pub cache: Cache,
    /// Where chunks are.
    pub view: View,
    /// The highest horizon, listed first.
    pub horizon: u64,
    /// Index objects that were listed.
    pub listed: Vec<ObjectHash>,
    /// Packs that exist.
    pub packs: HashSet<PackId>,
    /// Packs that were seen condemned.
    pub condemned: HashSet<PackId>,
    /// Index objects and condemnations that were skipped.
    pub problems: Vec<Problem>,
    /// Why there is no local cache, if one was wanted.
    pub cache_warnings: Vec<CacheWarning>,
}

/// A [`LoadedIndex`] without the cache it came through.
struct Found {
    view: View,
    horizon: u64,
    listed: Vec<ObjectHash>,
    packs: HashSet<PackId>,
    condemned: HashSet<PackId>,
    problems: Vec<Problem>,
}

impl Found {
    fn with(self, mut cache: Cache) -> LoadedIndex {
        let Self { view, horizon, listed, packs, condemned, problems } = self;
        let cache_warnings = cache.take_warnings();
        LoadedIndex { cache, view, horizon, listed, packs, condemned, problems, cache_warnings }
    }
}

impl Repository {
    /// Loads the index, through the local cache if there is one. A damaged cache is dropped and fetched again.
    pub async fn load_index(&self) -> Result<LoadedIndex, RepoError> {
        let place =
            self.env.places.cache.as_ref().map(|cache| cache.join(self.id().to_string()).join("index"));
        let mut cache = Cache::open(place.as_deref());
        for _ in 0..LOADS_MAX {
            match self.load_through(&mut cache).await {
                Err(RepoError::Index(IndexError::CacheDamaged { .. })) => {}
                // Superseded and deleted since it was listed: a new listing shows what replaced it.
                Err(RepoError::Store(error)) if error.is_not_found() => {}
                Err(error) => return Err(error),
                Ok(found) => return Ok(found.with(cache)),
            }
        }
        let mut memory = Cache::open(None);
        Ok(self.load_through(&mut memory).await?.with(memory))
    }

    async fn load_through(&self, cache: &mut Cache) -> Result<Found, RepoError> {
        let horizon = self.horizon().await?;
        let mut listed = Vec::new();
        let mut names = Vec::new();
        for object in self.store.list(layout::INDEX).await? {
            if let Some(name @ ObjectName::Index(_, hash)) = ObjectName::parse(object.key.as_str()) {
                listed.push(hash);
                names.push((name, hash));
            }
        }
        let missing: HashSet<_> = cache.missing(&listed).into_iter().collect();
        let mut problems = Vec::new();
        for (name, hash) in names.into_iter().filter(|(_, hash)| missing.contains(hash)) {
            match self.fetch_index(name).await {
                Ok(tables) => cache.add(hash, tables)?,
                Err(RepoError::Store(error)) if error.is_not_found() && self.is_listed(name).await? => {
                    problems.push(Problem { key: name.key(), error: error.into() });
                }
                Err(error @ (RepoError::Store(_) | RepoError::RoleForbids { .. })) => return Err(error),
                Err(error) => problems.push(Problem { key: name.key(), error }),
            }
        }
        let bad: HashSet<_> =
            problems.iter().filter_map(|p| ObjectName::parse(&p.key)?.content_hash()).collect();
        listed.retain(|hash| !bad.contains(hash));
        let packs = self.list_packs().await?;
        let condemned = self.condemned(&mut problems).await?;
        let mut view = cache.view(&listed)?;
        view.set_usable(|pack| packs.contains(pack) && !condemned.contains(pack))?;
        view.set_present(|pack| packs.contains(pack))?;
        Ok(Found { view, horizon, listed, packs, condemned, problems })
    }

    async fn is_listed(&self, name: ObjectName) -> Result<bool, RepoError> {
        let key = name.key();
        Ok(self.store.list(&key).await?.iter().any(|object| object.key.as_str() == key))
    }

    /// The highest horizon that a maintainer set; zero if no collection ever ended.
    pub async fn horizon(&self) -> Result<u64, RepoError> {
        let objects = self.store.list(layout::HORIZON).await?;
        let names = objects.iter().filter_map(|object| ObjectName::parse(object.key.as_str()));
        let mut names: Vec<_> = names.filter(|name| matches!(name, ObjectName::Horizon(..))).collect();
        names.sort_unstable();
        for name in names.into_iter().rev() {
            match self.read_horizon(name).await {
                Ok(horizon) => return Ok(horizon.number),
                // Gone since it was listed: a higher one stands.
                Err(RepoError::Store(error)) if error.is_not_found() => {
                    return Box::pin(self.horizon()).await;
                }
                Err(error @ (RepoError::Store(_) | RepoError::Cancelled)) => return Err(error),
                // Without authority it says nothing.
                Err(_) => {}
            }
        }
        Ok(0)
    }

    /// All packs there are.
    pub async fn list_packs(&self) -> Result<HashSet<PackId>, RepoError> {
        let objects = self.store.list(layout::PACKS).await?;
        Ok(objects
            .iter()
            .filter_map(|object| match ObjectName::parse(object.key.as_str())? {
                ObjectName::Pack(id) => Some(id),
                _ => None,
            })
            .collect())
    }

    /// All packs that a maintainer condemned. A condemnation that cannot be read is a problem, not an error: it has no
    /// authority.
    pub async fn condemned(&self, problems: &mut Vec<Problem>) -> Result<HashSet<PackId>, RepoError> {
        let mut condemned = HashSet::new();
        for object in self.store.list(layout::CONDEMNED).await? {
            let Some(name @ ObjectName::Condemned(_)) = ObjectName::parse(object.key.as_str()) else {
                continue;
            };
            match self.read_condemnation(name).await {
                Ok(condemnation) => condemned.extend(condemnation.packs),
                // Deleted since it was listed: its packs are gone, and the horizon moved before.
                Err(RepoError::Store(error)) if error.is_not_found() => {}
                Err(error @ RepoError::Store(_)) => return Err(error),
                Err(error) => problems.push(Problem { key: name.key(), error }),
            }
        }
        Ok(condemned)
    }

    pub(crate) async fn fetch_index(
        &self,
        name: ObjectName,
    ) -> Result<crate::format::index::IndexTables, RepoError> {
        let bytes = self.get_object(name, INDEX_MAX).await?;
        let key = name.key();
        let tables = open_index_object(self, &key, &bytes)?;
        match name {
            ObjectName::Index(writer, _) if writer != tables.author => Err(RepoError::BadSignature { key }),
            _ => Ok(tables),
        }
    }
}
