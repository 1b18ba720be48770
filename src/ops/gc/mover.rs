//! Moving what is needed out of condemned packs: segments as they are, or single chunks sealed again.
//!
//! # Invariants
//! What a pack holds is read from its directory, never from the index alone. Another copy counts only if the directory of an
//! uncondemned pack that was listed names the full id, in a segment of the same origin or of a maintainer. A chunk is sealed
//! again only after its id was recomputed. What is under a data key that was sealed to replaced keys is sealed again if this key
//! can do that.
//!
//! # Crash
//! Packs that no index object lists: garbage, which a later collection drops.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use super::cut::{chunks_of, is_filled, proofs};
use super::origin::signed_origins;
use super::world::World;
use crate::clock::Timestamp;
use crate::crypto::sign::SigningKey;
use crate::crypto::{SecretKey, chunk_id, context, object_hash};
use crate::error::Error;
use crate::event::Counters;
use crate::format::envelope::{ChunkKind, Preamble};
use crate::format::index::{IndexBuilder, TABLE_MAX};
use crate::format::layout::ObjectName;
use crate::format::pack::{Directory, PACK_MAX, PackedChunk};
use crate::id::{ChunkId, ObjectHash, PackId, WriterId};
use crate::repo::{BufferPool, Moved, PackBuilder, PackKeys, RepoError, Repository, RunKeys, open_directory};
use crate::seal::{SegmentOpener, SegmentSealer};
use crate::store::Key;

/// Plaintext that a segment is closed at.
const SEGMENT_TARGET: usize = 2 << 20;
/// Level of zstd for what is sealed again: it is written once more and read for years.
const LEVEL: i32 = 3;
/// Directories of other packs that are kept.
const DIRECTORIES_KEPT: usize = 64;
/// Packs after which an index object is put.
const INDEX_PACKS: usize = 64;

/// What became of one condemned pack.
pub(super) enum Emptied {
    /// Nothing in it is needed.
    Dead,
    /// Something in it is needed.
    Full,
    /// What is needed is in other packs, which are not all put yet.
    Moved,
    /// It must stay, for this reason.
    Left(String),
}

/// Amounts.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct MovedTotals {
    pub(super) bytes: u64,
    pub(super) packs: u64,
    pub(super) pack_bytes: u64,
    pub(super) index_objects: u64,
}

/// Chunks that will be sealed together again.
struct Open {
    sealer: SegmentSealer,
    plain: Vec<u8>,
    chunks: Vec<(ChunkId, u32)>,
}

type SharedDirectory = Arc<(WriterMap, HashMap<ChunkId, (u16, u32)>)>;
type WriterMap = Vec<Option<WriterId>>;

pub(super) struct Mover<'a> {
    repo: &'a Repository,
    keys: RunKeys,
    writer: (WriterId, SigningKey),
    index_key: SecretKey,
    /// Without it, and without the keys of content, what is moved is moved as it is.
    id_key: Option<SecretKey>,
    opener: SegmentOpener,
    pools: [Arc<BufferPool>; 2],
    packs: [Option<PackBuilder>; 2],
    open: [Option<Open>; 2],
    index: IndexBuilder,
    indexed: (usize, usize),
    horizon: u64,
    /// Packs that are no other copy.
    condemned: HashSet<PackId>,
    /// Whether nothing may be moved as it is that is under an old key.
    renewing: bool,
    directories: HashMap<PackId, SharedDirectory>,
    /// Their packs, the oldest first.
    kept: VecDeque<PackId>,
    pub(super) totals: MovedTotals,
}

impl<'a> Mover<'a> {
    pub(super) fn new(repo: &'a Repository, world: &World) -> Result<Self, Error> {
        let writer = repo.maintainer()?;
        let horizon = world.index.horizon;
        Ok(Self {
            repo,
            keys: repo.new_run_keys()?,
            index: IndexBuilder::new(writer.0, horizon, Vec::new()),
            writer,
            index_key: repo.index_key()?.clone(),
            id_key: repo.dedup_key(context::CHUNK_ID).ok(),
            opener: SegmentOpener::new(repo.id()).map_err(RepoError::from)?,
            pools: [BufferPool::new(1), BufferPool::new(1)],
            packs: [None, None],
            open: [None, None],
            indexed: (0, 0),
            horizon,
            condemned: world.condemned(),
            renewing: false,
            directories: HashMap::new(),
            kept: VecDeque::new(),
            totals: MovedTotals::default(),
        })
    }

    /// The same, for packs that are emptied because something in them is under an old key: none of them is another copy, and
    /// nothing of that is moved as it is.
    pub(super) fn renewing<'p>(mut self, old: impl Iterator<Item = &'p PackId>) -> Self {
        self.condemned.extend(old);
        Self { renewing: true, ..self }
    }

    /// Looks what is needed from one condemned pack, and moves it if told so; its marks are taken away then.
    pub(super) async fn empty(
        &mut self,
        world: &mut World,
        pack: PackId,
        move_it: bool,
    ) -> Result<Emptied, Error> {
        let Some(listed) = world.packs.get(&pack).copied() else { return Ok(Emptied::Dead) };
        let directory = match self.repo.read_directory(pack, listed.size).await {
            Ok((_, directory)) => directory,
            Err(RepoError::Store(error)) if error.is_not_found() => {
                return self.gone(pack, Emptied::Dead).await;
            }
            Err(error @ (RepoError::Store(_) | RepoError::RoleForbids { .. })) => return Err(error.into()),
            Err(error) => return Ok(Emptied::Left(error.to_string())),
        };
        if !is_filled(&directory) {
            return Ok(Emptied::Left("its chunks do not fill its segments".into()));
        }
        let needed = self.needed(world, pack, &directory).await?;
        if needed.is_empty() {
            return Ok(Emptied::Dead);
        }
        if !move_it {
            return Ok(Emptied::Full);
        }
        let bytes = match self.fetch(pack).await {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return Ok(Emptied::Left("its bytes are not what its name says".into())),
            // Another collector emptied and deleted it: the next look shows what it moved.
            Err(Error::Store(error)) if error.is_not_found() => return self.gone(pack, Emptied::Moved).await,
            Err(error) => return Err(error),
        };
        // It came with another request: what is cut out of these bytes must go by what they say themselves.
        let whole = open_directory(&self.index_key, self.repo.id(), &bytes, bytes.len() as u64);
        if whole.map(|(_, whole)| whole).ok().as_ref() != Some(&directory) {
            return Ok(Emptied::Left("its directory is not the one that was read before".into()));
        }
        if !self.take(pack, &bytes, &directory, &needed).await? {
            return Ok(Emptied::Left("a segment does not open, or is not what it is called".into()));
        }
        for chunk in &needed {
            world.live.unmark(&chunk.id)?;
        }
        Ok(Emptied::Moved)
    }

    /// What to make of a pack that is not found: nothing, if it is listed all the same, else `then`.
    async fn gone(&self, pack: PackId, then: Emptied) -> Result<Emptied, Error> {
        match self.repo.is_listed(ObjectName::Pack(pack)).await? {
            true => Ok(Emptied::Left("the store lists it and does not give it".into())),
            false => Ok(then),
        }
    }

    /// The chunks of the pack that are reachable and have no other copy that counts.
    async fn needed(
        &mut self,
        world: &World,
        pack: PackId,
        directory: &Directory,
    ) -> Result<Vec<PackedChunk>, Error> {
        let mut needed = Vec::new();
        for chunk in &directory.chunks {
            if !world.live.is_live(&chunk.id)? {
                continue;
            }
            let segment = &directory.segments[usize::from(chunk.segment)];
            let origin = directory.origins[usize::from(segment.origin)];
            if !self.has_other(world, pack, chunk, origin).await? {
                needed.push(*chunk);
            }
        }
        Ok(needed)
    }

    async fn has_other(
        &mut self,
        world: &World,
        pack: PackId,
        chunk: &PackedChunk,
        origin: WriterId,
    ) -> Result<bool, Error> {
        let copies: Vec<_> = world.live.view().locate(&chunk.id).collect::<Result<_, _>>()?;
        for copy in copies {
            let counts = copy.pack_id != pack
                && !self.condemned.contains(&copy.pack_id)
                && copy.length == chunk.len
                && self.trusts(copy.origin, origin);
            let Some(listed) = world.packs.get(&copy.pack_id).filter(|_| counts) else { continue };
            let Some(other) = self.directory(copy.pack_id, listed.size).await? else { continue };
            let (origins, chunks) = &*other;
            let found = chunks.get(&chunk.id).is_some_and(|(segment, len)| {
                let from = origins.get(usize::from(*segment)).copied().flatten();
                *len == chunk.len && from.is_some_and(|from| self.trusts(from, origin))
            });
            if found {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// A copy of another origin may be a lie about its content, unless a maintainer sealed it: that recomputed the id.
    fn trusts(&self, copy: WriterId, origin: WriterId) -> bool {
        copy == origin || self.repo.is_maintainer(&copy)
    }

    /// Of another pack: the signed origin of each segment, and where each chunk is. None if it cannot be read. All of the pack
    /// is fetched for it: what is about to be deleted hangs on those bytes, and on who made them.
    async fn directory(&mut self, pack: PackId, size: u64) -> Result<Option<SharedDirectory>, Error> {
        if let Some(known) = self.directories.get(&pack) {
            return Ok(Some(Arc::clone(known)));
        }
        if size > PACK_MAX as u64 {
            return Ok(None);
        }
        let bytes = match self.fetch(pack).await {
            Ok(Some(bytes)) => bytes,
            Err(Error::Store(error)) if !error.is_not_found() => return Err(error.into()),
            Ok(None) | Err(_) => return Ok(None),
        };
        let opened = open_directory(&self.index_key, self.repo.id(), &bytes, bytes.len() as u64);
        let Ok((_, directory)) = opened else { return Ok(None) };
        let origins = signed_origins(self.repo, &bytes, &directory);
        let chunks = directory.chunks.iter().map(|chunk| (chunk.id, (chunk.segment, chunk.len))).collect();
        let shared = Arc::new((origins, chunks));
        if self.kept.len() >= DIRECTORIES_KEPT
            && let Some(oldest) = self.kept.pop_front()
        {
            self.directories.remove(&oldest);
        }
        self.kept.push_back(pack);
        self.directories.insert(pack, Arc::clone(&shared));
        Ok(Some(shared))
    }

    /// The whole pack, if its bytes are what its name says; looked at twice.
    async fn fetch(&self, pack: PackId) -> Result<Option<Bytes>, Error> {
        let key = Key::new(ObjectName::Pack(pack).key()).map_err(|error| Error::Store(error.into()))?;
        for _ in 0..2 {
            let bytes = self.repo.store().get(&key, PACK_MAX as u64).await?;
            if object_hash(&bytes) == ObjectHash::from(pack) {
                return Ok(Some(bytes));
            }
        }
        Ok(None)
    }

    /// Takes what is needed of a pack into others. False if something of it may not be moved as it is, and must be.
    async fn take(
        &mut self,
        pack: PackId,
        bytes: &Bytes,
        directory: &Directory,
        needed: &[PackedChunk],
    ) -> Result<bool, Error> {
        let preamble = Preamble::decode(bytes).map_err(RepoError::at(&ObjectName::Pack(pack).key()))?;
        let kind = preamble.chunk_kind;
        let proofs = proofs(bytes, directory);
        let mut rest = needed;
        while let Some(first) = rest.first() {
            let number = first.segment;
            let end = rest.iter().position(|chunk| chunk.segment != number).unwrap_or(rest.len());
            let (wanted, later) = rest.split_at(end);
            rest = later;
            let segment = &directory.segments[usize::from(number)];
            let start = segment.offset as usize;
            let stored = &bytes[start..start + segment.stored_len as usize];
            let plain: u64 = wanted.iter().map(|chunk| u64::from(chunk.len)).sum();
            let sealed = &directory.data_keys[usize::from(segment.data_key)];
            // What nothing needs must not be moved: the next collection would find it and move it again.
            let whole = plain == u64::from(segment.plain_len);
            self.totals.bytes += u64::from(segment.stored_len);
            let old = self.repo.is_sealed_to_others(sealed);
            if (!whole || old) && self.seal_again(kind, (segment, stored), sealed, wanted).await? {
                continue;
            }
            if old && self.renewing {
                return Ok(false);
            }
            let all: Vec<_> = chunks_of(directory, number).iter().map(|c| (c.id, c.len)).collect();
            let row = usize::from(segment.origin);
            let origin = (directory.origins[row], directory.signatures[row]);
            let proof = proofs[usize::from(number)].clone();
            let moved = Moved { data_key: sealed, origin, proof };
            self.pack(kind)?.push_moved(*segment, stored, &all, moved);
            self.finish_full(kind).await?;
        }
        Ok(true)
    }

    /// Opens a segment and seals the wanted chunks again. False if this key cannot, or if a chunk is not what it is called.
    async fn seal_again(
        &mut self,
        kind: ChunkKind,
        (segment, stored): (&crate::format::segment::SegmentEntry, &[u8]),
        sealed: &[u8],
        wanted: &[PackedChunk],
    ) -> Result<bool, Error> {
        // What is sealed again has a maintainer's name on it, so it must have been looked at.
        let Some(id_key) = &self.id_key else { return Ok(false) };
        let key = match self.repo.open_data_key(sealed) {
            Ok(key) => key,
            Err(RepoError::RoleForbids { .. } | RepoError::Crypto(_) | RepoError::Format(_)) => {
                return Ok(false);
            }
            Err(error) => return Err(error.into()),
        };
        let mut plain = Vec::new();
        if self.opener.open(&key, segment, stored, &mut plain).is_err() {
            return Ok(false);
        }
        let cut = |chunk: &PackedChunk| {
            plain.get(chunk.offset as usize..(chunk.offset + chunk.len) as usize).unwrap_or_default()
        };
        if wanted.iter().any(|chunk| chunk_id(id_key, kind, cut(chunk)) != chunk.id) {
            return Ok(false);
        }
        for chunk in wanted {
            let len = self.open[kind as usize].as_ref().map_or(0, |open| open.plain.len());
            if len > 0 && len + chunk.len as usize > SEGMENT_TARGET {
                self.flush(kind).await?;
            }
            let open = self.open(kind)?;
            open.plain.extend_from_slice(cut(chunk));
            open.chunks.push((chunk.id, chunk.len));
        }
        Ok(true)
    }

    fn open(&mut self, kind: ChunkKind) -> Result<&mut Open, Error> {
        let slot = &mut self.open[kind as usize];
        if slot.is_none() {
            let sealer = SegmentSealer::new(self.keys.key(kind), self.repo.id(), LEVEL)?;
            *slot = Some(Open { sealer, plain: Vec::new(), chunks: Vec::new() });
        }
        slot.as_mut().ok_or(Error::Repo(RepoError::Task))
    }

    fn pack(&mut self, kind: ChunkKind) -> Result<&mut PackBuilder, Error> {
        let slot = &mut self.packs[kind as usize];
        if slot.is_none() {
            let buffer = self.pools[kind as usize].take(&|| false).ok_or(Error::Cancelled)?;
            *slot = Some(PackBuilder::new(kind, self.repo.id(), buffer));
        }
        slot.as_mut().ok_or(Error::Repo(RepoError::Task))
    }

    /// Seals the chunks that wait.
    async fn flush(&mut self, kind: ChunkKind) -> Result<(), Error> {
        let Some(mut open) = self.open[kind as usize].take_if(|open| !open.chunks.is_empty()) else {
            return Ok(());
        };
        let mut stored = Vec::new();
        let ids = open.chunks.iter().map(|(id, _)| id);
        let entry = open.sealer.seal(&open.plain, ids, &*self.repo.env().random, &mut stored)?;
        self.pack(kind)?.push(entry, &stored, &open.chunks);
        open.plain.clear();
        open.chunks.clear();
        self.open[kind as usize] = Some(open);
        self.finish_full(kind).await
    }

    async fn finish_full(&mut self, kind: ChunkKind) -> Result<(), Error> {
        match self.packs[kind as usize].take_if(|pack| pack.is_full()) {
            Some(pack) => self.put(pack, false).await,
            None => Ok(()),
        }
    }

    async fn put(&mut self, pack: PackBuilder, last: bool) -> Result<(), Error> {
        let kind = pack.kind();
        let finished = pack.finish(&self.pack_keys(kind), &*self.repo.env().random, last)?;
        self.repo.put_pack(&finished).await?;
        let size = finished.bytes.len() as u64;
        let keys = finished.directory.data_keys.len().max(finished.directory.origins.len());
        if self.indexed.1 + keys > TABLE_MAX || self.indexed.0 == INDEX_PACKS {
            self.put_index().await?;
        }
        let place = (finished.id, kind, size);
        Repository::index_pack(&mut self.index, place, &finished.footer, &finished.directory)?;
        self.indexed = (self.indexed.0 + 1, self.indexed.1 + keys);
        self.totals.packs += 1;
        self.totals.pack_bytes += size;
        Counters::add(&self.repo.env().observer.counters().bytes_stored, size);
        Ok(())
    }

    fn pack_keys(&self, kind: ChunkKind) -> PackKeys<'_> {
        PackKeys {
            repository: self.repo.id(),
            index: &self.index_key,
            writer: self.writer.0,
            signing: &self.writer.1,
            data_key: self.keys.sealed(kind),
        }
    }

    async fn put_index(&mut self) -> Result<(), Error> {
        if self.indexed.0 == 0 {
            return Ok(());
        }
        let empty = IndexBuilder::new(self.writer.0, self.horizon, Vec::new());
        let tables = std::mem::replace(&mut self.index, empty).finish();
        self.repo.put_index(&tables, &self.writer.1).await?;
        self.indexed = (0, 0);
        self.totals.index_objects += 1;
        Ok(())
    }

    /// Puts everything that waits: packs first, then the index object over them.
    pub(super) async fn finish(&mut self) -> Result<(), Error> {
        for kind in ChunkKind::ALL {
            self.flush(kind).await?;
            if let Some(pack) = self.packs[kind as usize].take().filter(|pack| !pack.is_empty()) {
                self.put(pack, true).await?;
            }
        }
        self.put_index().await
    }
}

/// How long the store has had something; zero if it came after `now`.
pub(super) fn age(now: Timestamp, stored: Timestamp) -> std::time::Duration {
    std::time::Duration::from_nanos(u64::try_from(now.0.saturating_sub(stored.0)).unwrap_or(0))
}
