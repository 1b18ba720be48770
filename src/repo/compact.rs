//! Compaction: few large index objects in the place of many small ones, without the records of packs that are gone.
//!
//! # Invariants
//! Only records of packs whose deletes are complete are left out (`docs/protocol.md`). An object is named in `supersedes`
//! only once everything it says is durable elsewhere: of the new objects the last one names all that are replaced, and is
//! put after all others.
//!
//! # Crash
//! Before the last PUT there are new objects that repeat what others say: the next compaction merges them. After it,
//! [`Repository::superseded`] names what may be deleted.
//!
//! # Must not
//! Delete anything: that is for the caller, once the new objects are durable.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::path::PathBuf;

use bytes::Bytes;

use super::error::RepoError;
use super::index_file::IndexFile;
use super::load::ListedIndex;
use super::open::{Repository, object_key};
use super::pack::PackKeys;
use crate::crypto::{ObjectHasher, object_salt};
use crate::format::config::Authority;
use crate::format::index::{IndexHeader, TABLE_MAX};
use crate::format::layout::ObjectName;
use crate::id::{ObjectHash, PackId, WriterId};
use crate::index::{Compaction, IndexError, View};

/// Bytes that a new index object should have at most, padding left out. One PUT must be able to carry it, and the fewer
/// there are, the fewer must be asked where a chunk is.
pub const INDEX_FULL: u64 = 240 << 20;

/// Objects below this size are merged when there are more than [`SMALL_MAX`].
const SMALL: u64 = INDEX_FULL / 4;

/// An object with longer tables of keys or origins is not small, whatever its size: two such do not fit into one, and to
/// merge them would come to no end.
const SMALL_TABLE: usize = TABLE_MAX / 2;

/// Small objects that are left alone: a run adds one, and each costs a reader a request.
const SMALL_MAX: usize = 8;

/// An object is written anew when more than this share of its packs is gone, in percent.
const DROPPED_MAX: u64 = 20;

/// New objects that are built at the same time; a pass over all records is made for each such batch.
const BATCH: usize = 16;

/// What a plan must know of an index object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexStat {
    /// Who wrote it.
    pub author: WriterId,
    /// Its name.
    pub object: ObjectHash,
    /// How many bytes it has.
    pub size: u64,
    /// How many packs it lists.
    pub packs: u64,
    /// How many of them are gone.
    pub dropped: u64,
    /// How many rows the longer one of its tables of data keys and of origins has.
    pub table: usize,
}

impl IndexStat {
    fn is_small(&self) -> bool {
        self.size < SMALL && self.table <= SMALL_TABLE
    }
}

/// Which index objects to replace, and what to leave out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CompactPlan {
    /// The objects that the new ones replace; the caller deletes them when those are durable.
    pub replace: Vec<(WriterId, ObjectHash)>,
    /// Packs whose deletes are complete.
    pub drop: HashSet<PackId>,
}

impl CompactPlan {
    /// Decides which objects are worth being replaced; only those count whose author `may_replace` allows. `drop` are packs
    /// named in a condemnation whose deletes are complete; no others may be in it.
    pub fn new(
        objects: &[IndexStat],
        drop: HashSet<PackId>,
        may_replace: impl Fn(&WriterId) -> bool,
    ) -> Self {
        let ours = || objects.iter().filter(|stat| may_replace(&stat.author));
        let merge = ours().filter(|stat| stat.is_small()).count() > SMALL_MAX;
        let chosen = ours().filter(|stat| {
            let wasteful = stat.dropped * 100 > stat.packs * DROPPED_MAX;
            wasteful || (merge && stat.is_small())
        });
        let mut replace: Vec<_> = chosen.map(|stat| (stat.author, stat.object)).collect();
        replace.sort_unstable();
        replace.dedup();
        Self { replace, drop }
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.replace.is_empty()
    }
}

impl Repository {
    /// What a registered writer may sign; none if it is not registered.
    pub fn authority(&self, writer: &WriterId) -> Option<Authority> {
        self.registry.get(writer).map(|known| known.authority)
    }

    /// Plans a compaction of the objects in `view`, which came from `listed`: of all of them if this key is a maintainer's, of
    /// its own otherwise. `drop` are packs whose deletes are complete.
    pub fn plan_compaction(
        &self,
        (view, listed): (&View, &[ListedIndex]),
        drop: HashSet<PackId>,
    ) -> Result<CompactPlan, RepoError> {
        let (writer, _) = self.writer()?;
        let all = self.authority(&writer) == Some(Authority::Maintainer);
        let mut packs: HashMap<ObjectHash, (u64, u64)> = HashMap::new();
        for pack in view.packs() {
            let (number, row) = pack?;
            let (packs, dropped) = packs.entry(view.pack_source(number)?.object).or_default();
            *packs += 1;
            *dropped += u64::from(drop.contains(&row.id));
        }
        let tables: HashMap<_, _> = view
            .tables()
            .map(|(source, keys, origins)| (source.object, keys.max(origins) as usize))
            .collect();
        let stats = listed.iter().filter_map(|listed| {
            let table = *tables.get(&listed.object)?;
            let (packs, dropped) = packs.get(&listed.object).copied().unwrap_or_default();
            let ListedIndex { author, object, size } = *listed;
            Some(IndexStat { author, object, size, packs, dropped, table })
        });
        Ok(CompactPlan::new(&stats.collect::<Vec<_>>(), drop, |author| all || *author == writer))
    }

    /// Puts index objects that say what those to replace say, in order of the plan; gives their names. All objects of the
    /// plan must be in `view`. Nothing is deleted. The files that the objects are built in take as much room on the local disk as
    /// sixteen objects.
    ///
    /// # Errors
    /// [`IndexError::CacheDamaged`] asks for the index to be loaded again.
    pub async fn compact_index(&self, view: &View, plan: &CompactPlan) -> Result<Vec<ObjectHash>, RepoError> {
        self.compact_index_to(view, plan, INDEX_FULL).await
    }

    pub(super) async fn compact_index_to(
        &self,
        view: &View,
        plan: &CompactPlan,
        most: u64,
    ) -> Result<Vec<ObjectHash>, RepoError> {
        let (writer, _) = self.writer()?;
        let replace: HashSet<_> = plan.replace.iter().map(|(_, object)| *object).collect();
        let mut new = Vec::new();
        let mut batch = 0;
        loop {
            let (repo, view, drop) = (self.clone(), view.clone(), plan.drop.clone());
            let replace = replace.clone();
            // Arranging is repeated for each batch, so that nothing borrowed lives across a request.
            let built = tokio::task::spawn_blocking(move || {
                let compaction = view.compaction(&replace, &drop, most)?;
                let objects = batch * BATCH..((batch + 1) * BATCH).min(compaction.len());
                let more = objects.end < compaction.len();
                Builder { repo: &repo, view: &view, replace: &replace, drop: &drop }
                    .build(&compaction, objects)
                    .map(|built| (built, more))
            });
            let (built, more) = built.await.map_err(|_| RepoError::Task)??;
            for (hash, bytes) in built {
                if self.env.cancel.is_raised() {
                    return Err(RepoError::Cancelled);
                }
                let key = object_key(ObjectName::Index(writer, hash))?;
                self.store.put(&key, vec![bytes]).await?;
                new.push(hash);
            }
            if !more {
                return Ok(new);
            }
            batch += 1;
        }
    }

    /// Listed index objects whose content another one of `view` repeats, by an author who may say so: a maintainer, or the
    /// author of both. They may be deleted. A compaction that was cut short leaves some.
    pub fn superseded(&self, view: &View, listed: &[ListedIndex]) -> Vec<(WriterId, ObjectHash)> {
        let mut said: HashMap<ObjectHash, Vec<WriterId>> = HashMap::new();
        for source in view.sources() {
            for object in &source.supersedes {
                said.entry(*object).or_default().push(source.author);
            }
        }
        let may = |by: &WriterId, author: &WriterId| {
            by == author || self.authority(by) == Some(Authority::Maintainer)
        };
        let superseded = listed.iter().filter(|listed| {
            said.get(&listed.object).is_some_and(|by| by.iter().any(|by| may(by, &listed.author)))
        });
        superseded.map(|listed| (listed.author, listed.object)).collect()
    }
}

/// Builds new index objects.
struct Builder<'a> {
    repo: &'a Repository,
    view: &'a View,
    replace: &'a HashSet<ObjectHash>,
    drop: &'a HashSet<PackId>,
}

impl Builder<'_> {
    fn build(
        &self,
        compaction: &Compaction<'_>,
        objects: Range<usize>,
    ) -> Result<Vec<(ObjectHash, Bytes)>, RepoError> {
        let (writer, signing) = self.repo.writer()?;
        let keys = PackKeys {
            repository: self.repo.id(),
            index: self.repo.index_key()?,
            writer,
            signing: &signing,
            data_key: &[],
        };
        let random = &*self.repo.env.random;
        let place = self.place();
        let mut files = Vec::new();
        for number in objects.clone() {
            let header = self.header(compaction, number, writer)?;
            let content = self.content_hash(&header, number, compaction.len());
            let salt = object_salt(keys.index, random, &content)?;
            files.push(IndexFile::begin(&place, header, &keys, salt)?);
        }
        compaction.write(objects.clone(), |number, block| {
            if self.repo.env.cancel.is_raised() {
                return Err(RepoError::Cancelled);
            }
            files[number - objects.start].push(block)
        })?;
        files.into_iter().map(|file| file.finish(&keys, random)).collect()
    }

    fn header(
        &self,
        compaction: &Compaction<'_>,
        number: usize,
        author: WriterId,
    ) -> Result<IndexHeader, RepoError> {
        let limit = compaction.len() as u64;
        let tables = compaction.tables(number);
        let tables = tables.ok_or(IndexError::TooMany { what: "index objects", limit })?;
        let last = number + 1 == compaction.len();
        let mut supersedes: Vec<_> = if last { self.replace.iter().copied().collect() } else { Vec::new() };
        supersedes.sort_unstable();
        // A pack listing that is older than any of these horizons must not be trusted on account of the new object.
        let replaced = self.view.sources().filter(|source| self.replace.contains(&source.object));
        let h0 = replaced.map(|source| source.h0).min().unwrap_or(0);
        Ok(IndexHeader {
            author,
            h0,
            supersedes,
            data_keys: tables.data_keys.clone(),
            origins: tables.origins.clone(),
            packs: tables.packs(),
            segments: tables.segments,
            records: tables.records,
            blocks: Vec::new(),
        })
    }

    /// Stands for the content of a new object before its rows are made: they follow from what is replaced, what is left out,
    /// and the object's number.
    fn content_hash(&self, header: &IndexHeader, number: usize, count: usize) -> ObjectHash {
        let mut hasher = ObjectHasher::new();
        let mut replace: Vec<_> = self.replace.iter().collect();
        let mut drop: Vec<_> = self.drop.iter().collect();
        replace.sort_unstable();
        drop.sort_unstable();
        for number in [number, count, replace.len(), drop.len()] {
            hasher.update(&(number as u64).to_le_bytes());
        }
        replace.iter().for_each(|object| hasher.update(object.as_bytes()));
        drop.iter().for_each(|pack| hasher.update(pack.as_bytes()));
        hasher.update(&header.encode());
        hasher.finish()
    }

    /// Where files are built: beside the cache, or where state is kept.
    fn place(&self) -> PathBuf {
        let state = || self.repo.env.places.state.join(self.repo.id().to_string()).join("compact");
        self.repo.scratch_place().unwrap_or_else(state)
    }
}

#[cfg(test)]
mod tests;
