//! The one bridge between the threads that make packs and the async store.
//!
//! # Invariants
//! A pack is in the journal, durably, before it is put. An index object names only packs whose PUT returned. After an
//! index object is durable, its chunks move from the run's table into a published view, never through a gap.

use std::collections::HashSet;
use std::path::Path;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::mpsc::UnboundedReceiver;

use super::sink::Sink;
use crate::error::Error;
use crate::format::envelope::ChunkKind;
use crate::format::index::IndexBuilder;
use crate::format::pack::{Directory, Footer};
use crate::id::{ChunkId, ObjectHash, PackId};
use crate::index::Cache;
use crate::repo::{FinishedPack, Journal, Repository};

/// An index object is put at the latest after this many packs.
const INDEX_PACKS: usize = 64;
/// An index object is put at the latest after this many records: this bounds the run's table.
const INDEX_RECORDS: usize = 1 << 16;
/// Condemnations are listed, and what is durable is indexed, at the latest after this time.
const LOOK_EVERY: Duration = Duration::from_secs(5 * 60);
/// How often it is looked whether that time has come.
const TICK: Duration = Duration::from_secs(1);
/// Packs on their way at the same time, unless fewer requests are allowed.
const PUTS: usize = 4;
/// The same where each answer takes its time, fewer than there are buffers: if all of them were on their way they would be
/// answered at about the same time, and the line would stand still until the next one is full.
const DISTANT_PUTS: usize = 3;

/// What the bridge leaves behind.
#[derive(Debug, Default)]
pub(super) struct Uploaded {
    /// Packs of this run, all durable and indexed.
    pub packs: HashSet<PackId>,
    /// Packs that were condemned since the run began, as far as that was seen.
    pub condemned: HashSet<PackId>,
    /// Bytes of packs and index objects.
    pub bytes: u64,
}

/// A pack whose PUT returned.
struct Durable {
    id: PackId,
    kind: ChunkKind,
    size: u64,
    footer: Footer,
    directory: Directory,
}

/// What the uploader takes of what the run knows of the repository.
pub(super) struct Place<'a> {
    pub horizon: u64,
    pub cache: &'a mut Cache,
    /// Index objects that were listed when the run began, and those it put since.
    pub listed: &'a mut Vec<ObjectHash>,
    /// Packs that were condemned when the run began.
    pub condemned: &'a HashSet<PackId>,
}

pub(super) struct Uploader<'a> {
    repo: &'a Repository,
    sink: &'a Sink,
    journal: Option<Journal>,
    builder: IndexBuilder,
    unindexed: usize,
    /// Chunks of packs that are durable and in no index object yet.
    indexed: Vec<ChunkId>,
    place: Place<'a>,
    looked: Duration,
    done: Uploaded,
}

impl<'a> Uploader<'a> {
    /// Uploads for the run of `sink`, with its journal at `journal`. What is put goes into the cache at once: memory does
    /// not grow with the run.
    pub(super) fn new(
        repo: &'a Repository,
        sink: &'a Sink,
        journal: &Path,
        place: Place<'a>,
    ) -> Result<Self, Error> {
        let journal = if sink.dry_run { None } else { Some(Journal::open(journal)?) };
        Ok(Self {
            repo,
            sink,
            journal,
            builder: IndexBuilder::new(sink.writer, place.horizon, Vec::new()),
            unindexed: 0,
            indexed: Vec::new(),
            place,
            looked: repo.env().clock.monotonic(),
            done: Uploaded::default(),
        })
    }

    /// Puts packs as they come until the other side is done, then the last index object.
    pub(super) async fn run(mut self, mut packs: UnboundedReceiver<FinishedPack>) -> Result<Uploaded, Error> {
        let mut puts = FuturesUnordered::new();
        let puts_max = if self.repo.store().is_local() { PUTS } else { DISTANT_PUTS };
        let most = self.repo.env().limits.requests.clamp(1, puts_max);
        let mut open = true;
        while open || !puts.is_empty() {
            tokio::select! {
                biased;
                Some(durable) = puts.next(), if !puts.is_empty() => self.durable(durable?).await?,
                pack = packs.recv(), if open && puts.len() < most => match pack {
                    Some(pack) => {
                        self.note(pack.id).await?;
                        puts.push(put(self.repo, pack));
                    }
                    None => open = false,
                },
                () = tokio::time::sleep(TICK) => {}
            }
            if open {
                self.look_if_due().await?;
            }
        }
        self.flush_index().await?;
        if let Some(journal) = &mut self.journal {
            journal.clear()?;
        }
        Ok(self.done)
    }

    async fn note(&mut self, pack: PackId) -> Result<(), Error> {
        let Some(mut journal) = self.journal.take() else { return Ok(()) };
        let noted = tokio::task::spawn_blocking(move || journal.note(pack).map(|()| journal)).await;
        self.journal = Some(noted.map_err(|_| crate::repo::RepoError::Task)??);
        Ok(())
    }

    /// Adopts a pack of an earlier run that reached the store but no index object.
    pub(super) async fn adopt(&mut self, pack: PackId, size: u64) -> Result<(), Error> {
        let (footer, directory) = self.repo.read_directory(pack, size).await?;
        let kind = directory_kind(&directory);
        self.index(Durable { id: pack, kind, size, footer, directory })
    }

    async fn durable(&mut self, pack: Durable) -> Result<(), Error> {
        self.done.bytes += pack.size;
        self.index(pack)?;
        if self.unindexed >= INDEX_PACKS || self.builder.len_records() >= INDEX_RECORDS {
            self.look().await?;
        }
        Ok(())
    }

    async fn look_if_due(&mut self) -> Result<(), Error> {
        let passed = self.repo.env().clock.monotonic().saturating_sub(self.looked);
        if passed >= LOOK_EVERY && !self.sink.dry_run { self.look().await } else { Ok(()) }
    }

    /// Puts an index object, so that nobody takes what is durable for garbage, and then looks what was condemned: the run
    /// uses nothing more of it.
    async fn look(&mut self) -> Result<(), Error> {
        self.flush_index().await?;
        self.looked = self.repo.env().clock.monotonic();
        let condemned = self.repo.condemned(&mut Vec::new()).await?;
        let known = |pack: &PackId| self.place.condemned.contains(pack) || self.done.condemned.contains(pack);
        let new: HashSet<PackId> = condemned.into_iter().filter(|pack| !known(pack)).collect();
        if new.is_empty() {
            return Ok(());
        }
        self.sink.avoid(&new)?;
        let own = new.iter().any(|pack| self.done.packs.contains(pack));
        self.done.condemned.extend(new);
        if own { self.publish() } else { Ok(()) }
    }

    fn index(&mut self, pack: Durable) -> Result<(), Error> {
        let place = (pack.id, pack.kind, pack.size);
        Repository::index_pack(&mut self.builder, place, &pack.footer, &pack.directory)?;
        self.unindexed += 1;
        self.indexed.extend(pack.directory.chunks.iter().map(|chunk| chunk.id));
        self.done.packs.insert(pack.id);
        Ok(())
    }

    /// Puts an index object over the packs that are durable, and publishes it to the workers.
    pub(super) async fn flush_index(&mut self) -> Result<(), Error> {
        if self.unindexed == 0 {
            return Ok(());
        }
        let empty = IndexBuilder::new(self.sink.writer, self.place.horizon, Vec::new());
        let tables = std::mem::replace(&mut self.builder, empty).finish();
        self.unindexed = 0;
        let hash = self.repo.put_index(&tables, &self.sink.signing).await?;
        self.place.listed.push(hash);
        self.place.cache.add(hash, tables)?;
        self.publish()?;
        self.sink.running.forget(self.indexed.drain(..).collect::<Vec<_>>().iter());
        Ok(())
    }

    fn publish(&mut self) -> Result<(), Error> {
        let mut view = self.place.cache.view(self.place.listed)?;
        // What the run began with is in its base view, where dependencies are noted.
        view.set_usable(|pack| self.done.packs.contains(pack) && !self.done.condemned.contains(pack))?;
        *self.sink.published.write().unwrap_or_else(PoisonError::into_inner) = Some(view);
        Ok(())
    }
}

/// A pack holds chunks of one kind; which, its data key tells.
fn directory_kind(directory: &Directory) -> ChunkKind {
    let sealed = directory.data_keys.first().map_or(&[][..], Vec::as_slice);
    let mut reader = crate::format::wire::Reader::new(sealed);
    crate::format::datakey::SealedDataKey::decode(&mut reader).map_or(ChunkKind::Data, |key| key.kind())
}

async fn put(repo: &Repository, pack: FinishedPack) -> Result<Durable, Error> {
    repo.put_pack(&pack).await?;
    let FinishedPack { id, kind, bytes, footer, directory } = pack;
    Ok(Durable { id, kind, size: bytes.len() as u64, footer, directory })
}

/// The run's stop flag is raised when the bridge ends early, so that no worker waits for a buffer for ever.
pub(super) struct StopOnDrop(pub(super) Arc<Sink>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.stop.store(true, std::sync::atomic::Ordering::Release);
    }
}
