//! An index that is too large to be fetched for a few chunks: of large index objects only the headers are here, and a chunk is
//! looked up by single blocks. The pack that holds it then answers for its neighbours, from its own directory.
//!
//! What was found goes into a [`View`], beside what the local cache and small objects hold. So all who read look chunks up in
//! a view, and ask here only for what it lacks.
//!
//! # Invariants
//! Memory is bounded by headers, [`FOUND_MAX`] records and what one chunk brings. What was found for a chunk is kept until
//! another one is looked for, so that each of its copies can be tried. An object that cannot be read is left out, as a whole
//! index does; [`ColdIndex::take_problems`] says so.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use futures::StreamExt;

use super::cold_object::ColdObject;
use super::error::RepoError;
use super::load::{ListedIndex, Problem, hashes};
use super::open::{Repository, object_key};
use super::pack::open_directory;
use crate::class::Class;
use crate::crypto::object_hash;
use crate::format::FormatError;
use crate::format::envelope::ChunkKind;
use crate::format::index::{IndexBuilder, IndexTables, NewChunk, NewPack, PackRow, Record};
use crate::format::layout::ObjectName;
use crate::format::pack::PACK_MAX;
use crate::id::{ChunkId, ObjectHash, WriterId};
use crate::index::{Cache, View};

/// Objects below this size are fetched as a whole.
const SMALL: u64 = 1 << 20;

/// Objects that speak of trees only are fetched as a whole up to this size together: every path takes trees.
const TREES_MAX: u64 = 48 << 20;

/// Objects that are asked at the same time.
const WAVE: usize = 4;

/// Most copies of a chunk that one lookup follows up.
const COPIES_MAX: usize = 8;

/// Records of found packs that are kept. They take some 30 bytes each.
const FOUND_MAX: u64 = if cfg!(test) { 4096 } else { 1 << 20 };

/// See the module.
pub(super) struct ColdIndex {
    /// What the cache holds of the listed objects.
    base: View,
    objects: Vec<Arc<ColdObject>>,
    /// What was found, pack by pack.
    found: Cache,
    packs: Vec<ObjectHash>,
    records: u64,
    /// For each chunk that was looked for, the objects that were asked.
    asked: HashMap<ChunkId, Vec<usize>>,
    /// The object that knew a chunk last: neighbours are wanted next.
    last: usize,
    problems: Vec<Problem>,
}

impl ColdIndex {
    /// Fetches what is small, and the headers of all else; those that `old` has are taken from there.
    pub(super) async fn load(
        repo: &Repository,
        cache: &mut Cache,
        listed: &[ListedIndex],
        old: Option<Self>,
    ) -> Result<Self, RepoError> {
        let missing: HashSet<_> = cache.missing(&hashes(listed)).into_iter().collect();
        let known: HashMap<_, _> =
            old.iter().flat_map(|old| &old.objects).map(|known| (known.listed, Arc::clone(known))).collect();
        let (large, mut whole): (Vec<_>, Vec<_>) =
            listed.iter().partition(|listed| missing.contains(&listed.object) && listed.size >= SMALL);
        let mut reads = futures::stream::iter(large)
            .map(|listed: ListedIndex| {
                let known = known.get(&listed).cloned();
                async move {
                    let read = match known {
                        Some(known) => Ok(known),
                        None => ColdObject::open(repo, listed).await.map(Arc::new),
                    };
                    (listed, read)
                }
            })
            .buffered(repo.env.limits.requests.max(1));
        let (mut objects, mut problems) = (Vec::new(), Vec::new());
        while let Some((listed, read)) = reads.next().await {
            match read {
                Ok(object) => objects.push(object),
                Err(error) => problems.push(left_out(repo, &listed, error).await?),
            }
        }
        drop(reads);
        objects.sort_by_key(|object| (object.holds(ChunkKind::Data), object.listed.size));
        let mut trees = 0;
        while let Some(first) = objects.first()
            && !first.holds(ChunkKind::Data)
            && trees + first.listed.size <= TREES_MAX
        {
            trees += first.listed.size;
            whole.push(objects.remove(0).listed);
        }
        let (whole, bad) = repo.fetch_missing(cache, whole).await?;
        problems.extend(bad);
        let base = cache.view(&hashes(&whole))?;
        let (asked, packs) = (HashMap::new(), Vec::new());
        Ok(Self { base, objects, found: Cache::open(None), packs, records: 0, asked, last: 0, problems })
    }

    /// Index objects that were left out since the last call. One may come again.
    pub(super) fn take_problems(&mut self) -> Vec<Problem> {
        std::mem::take(&mut self.problems)
    }

    /// Bytes of the objects that were not fetched.
    pub(super) fn bytes(&self) -> u64 {
        self.objects.iter().map(|object| object.listed.size).sum()
    }

    /// All that is known so far.
    pub(super) fn view(&mut self) -> Result<View, RepoError> {
        Ok(self.base.join(&self.found.view(&self.packs)?)?)
    }

    /// Looks for a chunk in objects that were not asked about it yet. True if something came of it, so that the view changed.
    ///
    /// # Errors
    /// Beside those of the store, the store's "not found" if an index object is gone.
    pub(super) async fn look(
        &mut self,
        repo: &Repository,
        kind: ChunkKind,
        id: &ChunkId,
    ) -> Result<bool, RepoError> {
        let asked = self.asked.get(id).cloned().unwrap_or_default();
        if asked.is_empty() && self.records > FOUND_MAX {
            // Who still needs something of it asks again.
            (self.found, self.records) = (Cache::open(None), 0);
            self.packs.clear();
            self.asked.clear();
        }
        let mut left: Vec<_> = (0..self.objects.len())
            .filter(|number| self.objects[*number].holds(kind) && !asked.contains(number))
            .collect();
        // The one that knew the last chunk is asked alone, the others together.
        left.sort_by_key(|number| *number != self.last);
        let mut wave = if left.first() == Some(&self.last) { 1 } else { WAVE };
        while !left.is_empty() {
            let now: Vec<_> = left.drain(..wave.min(left.len())).collect();
            wave = WAVE;
            self.asked.entry(*id).or_default().extend(&now);
            let finds = now.iter().map(|number| self.objects[*number].find(repo, id));
            let mut any = false;
            for (number, records) in now.iter().zip(futures::future::join_all(finds).await) {
                let records = match records {
                    Ok(records) => records,
                    Err(error) => {
                        let listed = self.objects[*number].listed;
                        self.problems.push(left_out(repo, &listed, error).await?);
                        continue;
                    }
                };
                // Records of packs that were deleted stay: they must not crowd out those of packs that are there.
                let mut found = 0;
                for record in records {
                    if found < COPIES_MAX && self.follow(repo, (*number, record), id).await? {
                        (any, self.last) = (true, *number);
                        found += 1;
                    }
                }
            }
            if any {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Takes in what is known of the pack that a record points to; false if that is of no use.
    async fn follow(
        &mut self,
        repo: &Repository,
        (number, record): (usize, Record),
        id: &ChunkId,
    ) -> Result<bool, RepoError> {
        let object = Arc::clone(&self.objects[number]);
        let followed = async {
            object.prove(repo).await?;
            let pack = object.pack(repo, record.pack).await?;
            match from_directory(repo, &pack, id).await {
                Ok(tables) => Ok(Some((ObjectHash::from(pack.id), tables))),
                Err(RepoError::Store(error)) if error.is_not_found() => Ok(None),
                Err(error) if is_of_one_object(&error) => {
                    let tables = from_rows(repo, &object, (&pack, record), id).await?;
                    // Another object may say something else of the same chunk.
                    let place =
                        [id.as_bytes(), object.listed.object.as_bytes(), &record.encode()[..]].concat();
                    Ok(Some((object_hash(&place), tables)))
                }
                Err(error) => Err(error),
            }
        };
        let (name, tables) = match followed.await {
            Ok(Some(found)) => found,
            Ok(None) => return Ok(false),
            Err(error) => {
                self.problems.push(left_out(repo, &object.listed, error).await?);
                return Ok(false);
            }
        };
        if self.packs.contains(&name) {
            return Ok(true);
        }
        self.records += tables.records.len() as u64;
        self.found.add(name, tables)?;
        self.packs.push(name);
        Ok(true)
    }
}

/// What the pack's own directory says, which must know the chunk.
async fn from_directory(repo: &Repository, pack: &PackRow, id: &ChunkId) -> Result<IndexTables, RepoError> {
    let key = object_key(ObjectName::Pack(pack.id))?;
    let size = u64::from(pack.size);
    let bad = || RepoError::at(key.as_str())(FormatError::Truncated);
    if size > PACK_MAX as u64 {
        return Err(bad());
    }
    let tail = repo.store.get_range(&key, u64::from(pack.directory_offset)..size).await?;
    let (footer, directory) = open_directory(repo.index_key()?, repo.id(), &tail, size)?;
    if !directory.chunks.iter().any(|chunk| chunk.id == *id) {
        return Err(bad());
    }
    let mut builder = IndexBuilder::new(WriterId::new([0; 16]), 0, Vec::new());
    Repository::index_pack(&mut builder, (pack.id, pack.kind, size), &footer, &directory)?;
    Ok(builder.finish())
}

/// What the index object says of this chunk alone: the pack's directory is damaged, its segments need not be.
async fn from_rows(
    repo: &Repository,
    object: &ColdObject,
    (pack, record): (&PackRow, Record),
    id: &ChunkId,
) -> Result<IndexTables, RepoError> {
    let mut builder = IndexBuilder::new(object.listed.author, 0, Vec::new());
    for key in object.data_keys() {
        builder.data_key(key)?;
    }
    let origin = builder.origin(object.listed.author)?;
    let mut segments = object.segments(repo, pack).await?;
    segments.iter_mut().for_each(|segment| segment.origin = origin);
    let PackRow { id: name, size, directory_offset, directory_len, kind, .. } = *pack;
    let new = NewPack { id: name, size, directory_offset, directory_len, kind };
    let chunk = NewChunk { id: *id, segment: record.segment, offset: record.offset, len: record.len };
    builder.add_pack(new, &segments, &[chunk])?;
    Ok(builder.finish())
}

/// What is to be said of an index object that is left out, so that others may still answer.
///
/// # Errors
/// The failure, if it concerns more than this object. That the object is not there does, unless it is still listed: something
/// else took its place.
async fn left_out(repo: &Repository, listed: &ListedIndex, error: RepoError) -> Result<Problem, RepoError> {
    let gone = matches!(&error, RepoError::Store(error) if error.is_not_found());
    let of_one = if gone { repo.is_listed(listed.name()).await? } else { is_of_one_object(&error) };
    if of_one { Ok(Problem { key: listed.name().key(), error }) } else { Err(error) }
}

/// Whether a failure concerns the bytes of one object only.
fn is_of_one_object(error: &RepoError) -> bool {
    match error {
        RepoError::Store(error) => !error.is_not_found() && error.class() == Class::Damage,
        RepoError::RoleForbids { .. } | RepoError::Cancelled | RepoError::Index(_) => false,
        error => error.class() == Class::Damage,
    }
}
