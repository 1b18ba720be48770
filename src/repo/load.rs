//! Step 1 of a writer (`docs/protocol.md`): what is there, in an order that no collector can fool.
//!
//! The horizon first, then the index objects, then the packs, then the condemnations. A record counts only if its pack was
//! listed and was not seen condemned.

use std::collections::HashSet;
use std::fmt;
use std::path::PathBuf;

use futures::StreamExt;

use super::env::Limits;
use super::error::RepoError;
use super::index_object::open_index_object;
use super::open::Repository;
use crate::class::Class;
use crate::format::layout::{self, ObjectName};
use crate::id::{ObjectHash, PackId, WriterId};
use crate::index::{Cache, CacheWarning, IndexError, View};

/// Most bytes of an index object.
pub const INDEX_MAX: u64 = 1 << 30;

/// Bytes of index objects that are fetched at the same time, or one that is larger.
const AHEAD: u64 = 8 << 20;

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

impl Problem {
    /// Whether nobody knows what stands in the object: its bytes are not what its name says, or the store lists it and does
    /// not give it.
    pub fn is_damage(&self) -> bool {
        self.error.is_damage() || matches!(self.error, RepoError::Store(_))
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "object {} was skipped: {}", self.key, self.error)
    }
}

/// An index object, as a listing shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ListedIndex {
    /// Who wrote it.
    pub author: WriterId,
    /// Its name.
    pub object: ObjectHash,
    /// How many bytes it has.
    pub size: u64,
}

impl ListedIndex {
    /// The object's name.
    pub fn name(&self) -> ObjectName {
        ObjectName::Index(self.author, self.object)
    }
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
    /// Index objects that were listed, and those this run added since.
    pub listed: Vec<ObjectHash>,
    /// The same as the listing showed them; nothing is added.
    pub objects: Vec<ListedIndex>,
    /// Packs that exist.
    pub packs: HashSet<PackId>,
    /// Packs that were seen condemned.
    pub condemned: HashSet<PackId>,
    /// Index objects and condemnations that were skipped.
    pub problems: Vec<Problem>,
    /// What the registry said of revocations when the loading began.
    pub(super) revocations: u64,
    /// Why there is no local cache, if one was wanted.
    pub cache_warnings: Vec<CacheWarning>,
}

/// A [`LoadedIndex`] without the cache it came through.
struct Found {
    view: View,
    horizon: u64,
    objects: Vec<ListedIndex>,
    packs: HashSet<PackId>,
    condemned: HashSet<PackId>,
    problems: Vec<Problem>,
    revocations: u64,
}

impl Found {
    fn with(self, mut cache: Cache) -> LoadedIndex {
        let Self { view, horizon, objects, packs, condemned, problems, revocations } = self;
        let (listed, cache_warnings) = (hashes(&objects), cache.take_warnings());
        LoadedIndex {
            cache,
            view,
            horizon,
            listed,
            objects,
            packs,
            condemned,
            problems,
            revocations,
            cache_warnings,
        }
    }
}

/// How many objects are fetched at the same time of which none is larger.
pub(super) fn at_once(limits: Limits, largest: u64) -> usize {
    (AHEAD / largest.max(1)).clamp(1, limits.requests.max(1) as u64) as usize
}

/// Whether a failure says nothing about the object that was to be read.
fn is_of_this_run(error: &RepoError) -> bool {
    match error {
        RepoError::Store(_) | RepoError::RoleForbids { .. } | RepoError::Cancelled => true,
        RepoError::Index(error) => error.class() != Class::Damage,
        _ => false,
    }
}

/// The names of objects.
pub(super) fn hashes(listed: &[ListedIndex]) -> Vec<ObjectHash> {
    listed.iter().map(|listed| listed.object).collect()
}

impl Repository {
    /// All index objects there are, in order of their names.
    pub async fn list_index(&self) -> Result<Vec<ListedIndex>, RepoError> {
        let objects = self.store.list(layout::INDEX).await?;
        let listed = objects.iter().filter_map(|found| match ObjectName::parse(found.key.as_str())? {
            ObjectName::Index(author, object) => Some(ListedIndex { author, object, size: found.size }),
            _ => None,
        });
        Ok(listed.collect())
    }

    /// The local cache of the index.
    pub(super) fn open_cache(&self) -> Cache {
        let place =
            self.env.places.cache.as_ref().map(|cache| cache.join(self.id().to_string()).join("index"));
        Cache::open(place.as_deref())
    }

    /// Loads the index, through the local cache if there is one. A damaged cache is dropped and fetched again.
    pub async fn load_index(&self) -> Result<LoadedIndex, RepoError> {
        let mut cache = self.open_cache();
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
        let revocations = self.revocations();
        let (horizon, damaged) = self.listed_horizon().await?;
        let mut listed = self.list_index().await?;
        // Of a writer that is being revoked only what is named already will be believed for certain.
        listed.retain(|listed| {
            let name = listed.name();
            self.may_depend(&listed.author, &name) || !self.accepts(&listed.author, &name)
        });
        // What was listed may be fetched at any time.
        let then = async {
            let (packs, mut problems) = (self.list_packs().await?, damaged);
            let condemned = self.condemned(&mut problems).await?;
            Ok((packs, condemned, problems))
        };
        let fetched = self.env.limits.both(self.fetch_missing(cache, listed), then).await?;
        let ((objects, mut problems), (packs, condemned, others)) = fetched;
        problems.extend(others);
        let mut view = cache.view(&hashes(&objects))?;
        view.set_usable(|pack| packs.contains(pack) && !condemned.contains(pack))?;
        view.set_present(|pack| packs.contains(pack))?;
        Ok(Found { view, horizon, objects, packs, condemned, problems, revocations })
    }

    /// A view for reading: of these index objects, and of packs that are there. Gives also what was skipped.
    pub(super) async fn load_listed(
        &self,
        cache: &mut Cache,
        listed: Vec<ListedIndex>,
    ) -> Result<(View, Vec<Problem>), RepoError> {
        let fetched = self.env.limits.both(self.fetch_missing(cache, listed), self.list_packs()).await?;
        let ((objects, problems), packs) = fetched;
        let mut view = cache.view(&hashes(&objects))?;
        view.set_present(|pack| packs.contains(pack))?;
        Ok((view, problems))
    }

    /// Bytes of listed index objects that the cache lacks.
    pub(super) fn missing_bytes(&self, cache: &Cache, listed: &[ListedIndex]) -> u64 {
        let missing: HashSet<_> = cache.missing(&hashes(listed)).into_iter().collect();
        listed.iter().filter(|listed| missing.contains(&listed.object)).map(|listed| listed.size).sum()
    }

    /// Brings these objects into the cache; gives those that are in it now, and why others are not.
    pub(super) async fn fetch_missing(
        &self,
        cache: &mut Cache,
        listed: Vec<ListedIndex>,
    ) -> Result<(Vec<ListedIndex>, Vec<Problem>), RepoError> {
        // Also of those that the cache has: they were believed before their writer was revoked.
        let (mut listed, mut problems) = self.without_refused(listed);
        let missing: HashSet<_> = cache.missing(&hashes(&listed)).into_iter().collect();
        let wanted: Vec<_> = listed.iter().filter(|listed| missing.contains(&listed.object)).collect();
        let largest = wanted.iter().map(|listed| listed.size).max().unwrap_or(0);
        let mut bad = HashSet::new();
        let mut reads = futures::stream::iter(wanted)
            .map(async |listed| (listed, self.fetch_listed(listed).await))
            .buffered(at_once(self.env.limits, largest));
        while let Some((listed, fetched)) = reads.next().await {
            let name = listed.name();
            let added = fetched.and_then(|fetched| Ok(fetched.add_to(cache, listed.object)?));
            let error = match added {
                Ok(()) => continue,
                Err(RepoError::Store(error)) if error.is_not_found() && self.is_listed(name).await? => {
                    error.into()
                }
                Err(error) if is_of_this_run(&error) => return Err(error),
                Err(error) => error,
            };
            bad.insert(listed.object);
            problems.push(Problem { key: name.key(), error });
        }
        drop(reads);
        listed.retain(|listed| !bad.contains(&listed.object));
        Ok((listed, problems))
    }

    /// Those of index objects that may be believed, and why others may not though nothing is wrong with them.
    pub(super) fn without_refused(&self, listed: Vec<ListedIndex>) -> (Vec<ListedIndex>, Vec<Problem>) {
        let (good, refused): (Vec<_>, Vec<_>) =
            listed.into_iter().partition(|listed| self.accepts(&listed.author, &listed.name()));
        let problems = refused.into_iter().map(|listed| {
            let key = listed.name().key();
            let error = RepoError::AfterRevocation { key: key.clone(), writer: listed.author };
            Problem { key, error }
        });
        (good, problems.collect())
    }

    /// Where large files are built for a moment, if there is a cache directory.
    pub(super) fn scratch_place(&self) -> Option<PathBuf> {
        Some(self.env.places.cache.as_ref()?.join(self.id().to_string()).join("compact"))
    }

    /// Whether a listing shows the object now.
    pub async fn is_listed(&self, name: ObjectName) -> Result<bool, RepoError> {
        let key = name.key();
        Ok(self.store.list(&key).await?.iter().any(|object| object.key.as_str() == key))
    }

    /// The highest horizon that a maintainer set; zero if no collection ever ended. Damage of one that may be higher is an
    /// error: who compares two of them must not take a collection that ended for none.
    pub async fn horizon(&self) -> Result<u64, RepoError> {
        let (horizon, damaged) = self.listed_horizon().await?;
        damaged.into_iter().next().map_or(Ok(horizon), |problem| Err(problem.error))
    }

    /// The highest horizon that could be read, and those above it that are damaged.
    pub(super) async fn listed_horizon(&self) -> Result<(u64, Vec<Problem>), RepoError> {
        let mut turn = 1;
        loop {
            let version = self.registry_version();
            match self.find_horizon().await {
                // Gone since it was listed: a higher one stands.
                Err(RepoError::Store(error)) if error.is_not_found() && turn < LOADS_MAX => {}
                Err(error) => return Err(error),
                Ok(found) => {
                    self.refresh_registry().await?;
                    if self.registry_version() == version || turn == LOADS_MAX {
                        return Ok(found);
                    }
                }
            }
            turn += 1;
        }
    }

    async fn find_horizon(&self) -> Result<(u64, Vec<Problem>), RepoError> {
        let objects = self.store.list(layout::HORIZON).await?;
        let names = objects.iter().filter_map(|object| ObjectName::parse(object.key.as_str()));
        let mut names: Vec<_> = names.filter(|name| matches!(name, ObjectName::Horizon(..))).collect();
        names.sort_unstable();
        let mut damaged = Vec::new();
        for name in names.into_iter().rev() {
            match self.read_horizon(name).await {
                Ok(horizon) => {
                    let higher = |number: Option<u64>| number > Some(horizon.number);
                    let damaged = damaged.into_iter().filter(|(number, _)| higher(*number));
                    return Ok((horizon.number, damaged.map(|(_, problem)| problem).collect()));
                }
                Err(error @ (RepoError::Store(_) | RepoError::Cancelled)) => return Err(error),
                Err(error) if error.is_damage() => {
                    damaged.push((name.number(), Problem { key: name.key(), error }));
                }
                // Without authority it says nothing.
                Err(_) => {}
            }
        }
        Ok((0, damaged.into_iter().map(|(_, problem)| problem).collect()))
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

    /// All packs that a maintainer condemned.
    pub async fn condemned(&self, problems: &mut Vec<Problem>) -> Result<HashSet<PackId>, RepoError> {
        let stored = self.condemnations(problems).await?;
        Ok(stored.into_iter().flat_map(|stored| stored.condemnation.packs).collect())
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

#[cfg(test)]
mod tests;
