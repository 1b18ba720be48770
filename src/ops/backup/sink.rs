//! Where new chunks go: into the worker's open segment, sealed into the run's open pack, and over the bridge to the store.
//!
//! # Invariants
//! A chunk is named before it is looked up, and looked up before it is stored. The pack of every dedup hit is noted: the
//! snapshot depends on it. Memory is bounded by the pool of pack buffers; a worker waits for one rather than allocate.
//!
//! # Must not
//! Talk to the store: finished packs leave through a channel, and the async side puts them.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use tokio::sync::mpsc::UnboundedSender;

use super::state::Fingerprint;
use super::tree::PageStore;
use crate::cancel::Cancel;
use crate::clock::Clock;
use crate::crypto::sign::SigningKey;
use crate::crypto::{SecretKey, chunk_id};
use crate::error::Error;
use crate::event::Observer;
use crate::format::envelope::ChunkKind;
use crate::format::segment::SEGMENT_PLAIN_MAX;
use crate::id::{ChunkId, PackId, RepositoryId, WriterId};
use crate::index::{PackNumber, RunTable, View};
use crate::random::Random;
use crate::repo::{BufferPool, FinishedPack, PackBuilder, PackKeys, RunKeys};
use crate::seal::SegmentSealer;

/// Longer than the tick of any file system's clock.
const SETTLED_NANOS: i64 = 50_000_000;
/// Plaintext that a segment is closed at; one larger chunk is its own segment.
pub(super) const SEGMENT_TARGET: usize = 2 << 20;

/// Least level of zstd for trees: they are small, and every change of a file writes some.
const TREE_LEVEL: i32 = 3;
/// Pack buffers of kind data: one is filled while the others are on their way.
const DATA_BUFFERS: usize = 3;
/// The same where each answer takes its time: one is full then when the next may go.
const DISTANT_DATA_BUFFERS: usize = 4;
/// Pack buffers of kind tree.
const TREE_BUFFERS: usize = 2;

/// What all threads of a run share.
pub(super) struct Sink {
    pub(super) repository: RepositoryId,
    pub(super) keys: RunKeys,
    pub(super) index_key: SecretKey,
    pub(super) writer: WriterId,
    pub(super) signing: SigningKey,
    pub(super) id_key: SecretKey,
    pub(super) random: Arc<dyn Random>,
    pub(super) clock: Arc<dyn Clock>,
    /// Where copies of databases are put for a while.
    pub(super) scratch: PathBuf,
    pub(super) observer: Arc<dyn Observer>,
    pub(super) level: i32,
    /// Count, but seal and store nothing.
    pub(super) dry_run: bool,
    /// Store no times of files.
    pub(super) timeless: bool,
    /// What the repository held when the run began.
    pub(super) base: View,
    /// What this run has published since.
    pub(super) published: RwLock<Option<View>>,
    /// What this run is storing.
    pub(super) running: RunTable,
    /// Packs of `base` the snapshot depends on, one bit a pack.
    pub(super) used: Vec<AtomicU64>,
    /// Packs of `base` that were condemned since the run began: their chunks count as unknown.
    lost: Vec<AtomicU64>,
    /// Every pack of the last run may be depended on: its chunks need not be looked up one by one.
    trust: AtomicBool,
    pub(super) new_bytes: AtomicU64,
    pub(super) new_chunks: AtomicU64,
    /// Raised when a part of the run failed: everything else ends as it stands.
    pub(super) stop: AtomicBool,
    /// Raised by the user: what is in hand is brought to a clean end.
    cancel: Cancel,
    packs: [Mutex<Option<PackBuilder>>; 2],
    pools: [Arc<BufferPool>; 2],
    bridge: Mutex<Option<UnboundedSender<FinishedPack>>>,
}

/// The parts of a sink that only its maker knows.
pub(super) struct SinkParts {
    pub(super) keys: RunKeys,
    pub(super) level: i32,
    pub(super) dry_run: bool,
    pub(super) timeless: bool,
    pub(super) base: View,
    pub(super) bridge: UnboundedSender<FinishedPack>,
}

impl Sink {
    pub(super) fn new(repo: &crate::repo::Repository, parts: SinkParts) -> Result<Self, Error> {
        let SinkParts { keys, level, dry_run, timeless, base, bridge } = parts;
        let (writer, signing) = repo.writer()?;
        let words = (base.pack_count() as usize).div_ceil(64);
        let data_buffers = if repo.store().is_local() { DATA_BUFFERS } else { DISTANT_DATA_BUFFERS };
        Ok(Self {
            repository: repo.id(),
            keys,
            index_key: repo.index_key()?.clone(),
            writer,
            signing,
            id_key: repo.dedup_key(crate::crypto::context::CHUNK_ID)?,
            random: Arc::clone(&repo.env().random),
            clock: Arc::clone(&repo.env().clock),
            scratch: repo.env().places.state.clone(),
            observer: Arc::clone(&repo.env().observer),
            level,
            dry_run,
            timeless,
            base,
            published: RwLock::new(None),
            running: RunTable::new(),
            used: (0..words).map(|_| AtomicU64::new(0)).collect(),
            lost: (0..words).map(|_| AtomicU64::new(0)).collect(),
            trust: AtomicBool::new(false),
            new_bytes: AtomicU64::new(0),
            new_chunks: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            cancel: repo.env().cancel.clone(),
            packs: [Mutex::new(None), Mutex::new(None)],
            pools: [BufferPool::new(data_buffers), BufferPool::new(TREE_BUFFERS)],
            bridge: Mutex::new(Some(bridge)),
        })
    }

    /// Whether the run is to come to an end before its time.
    pub(super) fn stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// Whether the user asked the run to stop.
    pub(super) fn cancelled(&self) -> bool {
        self.cancel.is_raised()
    }

    /// Monotonic time.
    pub(super) fn now(&self) -> std::time::Duration {
        self.clock.monotonic()
    }

    /// Whether a file's last change lies far enough back that a further one would show: within one tick of the file
    /// system's clock it would not, and the file would look unchanged for ever.
    pub(super) fn is_settled(&self, print: &Fingerprint) -> bool {
        let changed =
            print.ctime.seconds.saturating_mul(1_000_000_000).saturating_add(print.ctime.nanos.into());
        self.clock.now().0.saturating_sub(changed) >= SETTLED_NANOS
    }

    /// Names a chunk.
    pub(super) fn name(&self, kind: ChunkKind, bytes: &[u8]) -> ChunkId {
        chunk_id(&self.id_key, kind, bytes)
    }

    /// Whether the repository holds the chunk in a pack that this run may depend on; notes the dependency.
    pub(super) fn is_known(&self, id: &ChunkId) -> Result<bool, Error> {
        match self.base.find_usable(id)? {
            Some(pack) if !has(&self.lost, pack) => {
                self.depend_on(pack);
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// Notes that the snapshot depends on a pack of the base view.
    pub(super) fn depend_on(&self, pack: PackNumber) {
        set(&self.used, pack);
    }

    /// Whether what the last run depended on may be taken over without a look at each chunk.
    pub(super) fn trusts_last(&self) -> bool {
        self.trust.load(Ordering::Acquire)
    }

    /// Takes the last run at its word, which depended on these packs.
    pub(super) fn trust_last(&self, packs: &[PackNumber]) {
        packs.iter().for_each(|pack| self.depend_on(*pack));
        self.trust.store(true, Ordering::Release);
    }

    /// From here on nothing more is found in these packs. What was found there before stays noted: the check of the commit
    /// meets it.
    pub(super) fn avoid(&self, condemned: &HashSet<PackId>) -> Result<(), Error> {
        for pack in self.base.packs() {
            let (number, row) = pack?;
            if condemned.contains(&row.id) {
                set(&self.lost, number);
                if has(&self.used, number) {
                    self.trust.store(false, Ordering::Release);
                }
            }
        }
        Ok(())
    }

    /// Whether the caller must store the chunk: nobody did before, and nobody else in this run does.
    fn must_store(&self, id: &ChunkId) -> Result<bool, Error> {
        if self.is_known(id)? {
            return Ok(false);
        }
        if !self.running.claim(id) {
            return Ok(false);
        }
        // Published before the claim was forgotten: only a look after the claim cannot miss it.
        let published = self.published.read().unwrap_or_else(PoisonError::into_inner);
        let known = published.as_ref().map(|view| view.find_usable(id)).transpose()?.flatten();
        Ok(known.is_none())
    }

    /// Appends a sealed segment to the open pack of its kind, and sends the pack on when it is full.
    fn append(
        &self,
        kind: ChunkKind,
        (entry, stored): (crate::format::segment::SegmentEntry, &[u8]),
        chunks: &[(ChunkId, u32)],
    ) -> Result<(), Error> {
        let mut open = self.packs[kind as usize].lock().unwrap_or_else(PoisonError::into_inner);
        let mut pack = match open.take() {
            Some(pack) => pack,
            None => self.new_pack(kind)?,
        };
        pack.push(entry, stored, chunks);
        if !pack.is_full() {
            *open = Some(pack);
            return Ok(());
        }
        drop(open);
        self.send(pack, false)
    }

    fn new_pack(&self, kind: ChunkKind) -> Result<PackBuilder, Error> {
        let buffer = self.pools[kind as usize].take(&|| self.stopped()).ok_or(Error::Cancelled)?;
        Ok(PackBuilder::new(kind, self.repository, buffer))
    }

    fn send(&self, pack: PackBuilder, last: bool) -> Result<(), Error> {
        let kind = pack.kind();
        let keys = PackKeys {
            repository: self.repository,
            index: &self.index_key,
            writer: self.writer,
            signing: &self.signing,
            data_key: self.keys.sealed(kind),
        };
        let pack = pack.finish(&keys, &*self.random, last)?;
        // The other side is gone only if it failed, and then its error is the one that counts.
        let bridge = self.bridge.lock().unwrap_or_else(PoisonError::into_inner);
        bridge.as_ref().and_then(|bridge| bridge.send(pack).ok()).ok_or(Error::Cancelled)
    }

    /// Tells the other side that no more packs will come.
    pub(super) fn close(&self) {
        self.bridge.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// Sends the open packs on, padded: nobody appends any more.
    pub(super) fn finish(&self) -> Result<(), Error> {
        for open in &self.packs {
            let pack = open.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(pack) = pack.filter(|pack| !pack.is_empty()) {
                self.send(pack, true)?;
            }
        }
        Ok(())
    }
}

fn place(pack: PackNumber) -> (usize, u64) {
    (pack.0 as usize / 64, 1 << (pack.0 % 64))
}

fn has(bits: &[AtomicU64], pack: PackNumber) -> bool {
    let (word, bit) = place(pack);
    bits[word].load(Ordering::Relaxed) & bit != 0
}

fn set(bits: &[AtomicU64], pack: PackNumber) {
    let (word, bit) = place(pack);
    if bits[word].load(Ordering::Relaxed) & bit == 0 {
        bits[word].fetch_or(bit, Ordering::Relaxed);
    }
}

/// A worker's open segment of one kind.
pub(super) struct Segmenter<'a> {
    sink: &'a Sink,
    kind: ChunkKind,
    sealer: Option<SegmentSealer>,
    plain: Vec<u8>,
    chunks: Vec<(ChunkId, u32)>,
    stored: Vec<u8>,
}

impl<'a> Segmenter<'a> {
    pub(super) fn new(sink: &'a Sink, kind: ChunkKind) -> Self {
        Self { sink, kind, sealer: None, plain: Vec::new(), chunks: Vec::new(), stored: Vec::new() }
    }

    /// Names a chunk and stores it unless it is known.
    pub(super) fn store(&mut self, bytes: &[u8]) -> Result<ChunkId, Error> {
        debug_assert!(!bytes.is_empty() && bytes.len() <= SEGMENT_PLAIN_MAX, "a chunk fits a segment");
        let id = self.sink.name(self.kind, bytes);
        if self.sink.must_store(&id)? {
            self.add(id, bytes)?;
        }
        Ok(id)
    }

    fn add(&mut self, id: ChunkId, bytes: &[u8]) -> Result<(), Error> {
        self.sink.new_bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        self.sink.new_chunks.fetch_add(1, Ordering::Relaxed);
        if self.sink.dry_run {
            return Ok(());
        }
        if !self.plain.is_empty() && self.plain.len() + bytes.len() > SEGMENT_TARGET {
            self.flush()?;
        }
        self.plain.extend_from_slice(bytes);
        self.chunks.push((id, bytes.len() as u32));
        Ok(())
    }

    /// Seals what there is.
    pub(super) fn flush(&mut self) -> Result<(), Error> {
        if self.chunks.is_empty() {
            return Ok(());
        }
        let sink = self.sink;
        let sealer = match &mut self.sealer {
            Some(sealer) => sealer,
            empty => {
                let key = sink.keys.key(self.kind);
                let level = match self.kind {
                    ChunkKind::Data => sink.level,
                    ChunkKind::Tree => sink.level.max(TREE_LEVEL),
                };
                empty.insert(SegmentSealer::new(key, sink.repository, level)?)
            }
        };
        self.stored.clear();
        let ids = self.chunks.iter().map(|(id, _)| id);
        let entry = sealer.seal(&self.plain, ids, &*sink.random, &mut self.stored)?;
        sink.append(self.kind, (entry, &self.stored), &self.chunks)?;
        self.plain.clear();
        self.chunks.clear();
        Ok(())
    }
}

impl PageStore for Segmenter<'_> {
    fn store_page(&mut self, page: &[u8]) -> Result<ChunkId, Error> {
        self.store(page)
    }
}
