//! Opened segments: fetched once for all who read them, ahead of them where they read in order, and kept while there is room.
//!
//! # Invariants
//! No chunk is handed out whose id was not computed again. What is kept, and what is fetched and opened at the same time,
//! is bounded. A failure is not kept: who comes next tries again.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::{OnceCell, Semaphore};

use super::lru::Lru;
use crate::crypto::{SecretKey, context};
use crate::error::Error;
use crate::format::content::ChunkRow;
use crate::format::envelope::ChunkKind;
use crate::id::ChunkId;
use crate::ops::tree::{
    Located, Locator, Lookup, Sought, elsewhere, fetch, genuine, is_local_damage, may_have_moved,
};
use crate::repo::{RepoError, SegmentPlace};
use crate::seal::SegmentOpener;

/// Bytes of opened segments that are kept.
const KEPT: usize = 24 << 20;
/// Bytes that are fetched and opened at the same time.
const BUDGET: usize = 16 << 20;
/// Segments whose memory waits for others.
const SPARE: usize = 4;
/// Unit of the budget.
const UNIT: usize = 64 << 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Key {
    Segment(SegmentPlace),
    /// A chunk that was found elsewhere, because its segment is damaged.
    Chunk(ChunkId),
}

/// An opened segment, or one that is being opened.
#[derive(Debug, Default)]
pub(super) struct Slot {
    opened: OnceCell<Opened>,
    /// Chunks that are looked at when it is opened.
    wanted: Mutex<Vec<(ChunkRow, u32)>>,
    /// Somebody was asked to open it.
    asked: AtomicBool,
}

/// Memory of segments that are not kept any more, for the next ones.
type Spare = Arc<Mutex<Vec<Vec<u8>>>>;

#[derive(Debug, Default)]
struct Opened {
    plain: Vec<u8>,
    /// Chunks whose ids were computed again, and where they begin.
    genuine: Mutex<HashSet<(ChunkRow, u32)>>,
    spare: Spare,
}

impl Drop for Opened {
    fn drop(&mut self) {
        let mut spare = lock(&self.spare);
        if spare.len() < SPARE {
            spare.push(std::mem::take(&mut self.plain));
        }
    }
}

/// Gives back memory of a larger segment, but for a quarter: what is kept is counted by its length.
fn trim(plain: &mut Vec<u8>) {
    if plain.capacity() - plain.len() > plain.len() / 4 {
        plain.shrink_to_fit();
    }
}

/// Bytes of an opened segment.
#[derive(Debug)]
pub(super) struct Shared {
    slot: Arc<Slot>,
    range: Range<usize>,
}

impl Shared {
    /// The bytes.
    pub(super) fn bytes(&self) -> &[u8] {
        let plain = self.slot.opened.get().map(|opened| &opened.plain[..]);
        plain.and_then(|plain| plain.get(self.range.clone())).unwrap_or_default()
    }
}

/// A segment to open before it is read.
#[derive(Debug)]
pub(super) struct Wish {
    slot: Arc<Slot>,
    place: Located,
}

pub(super) struct Segments<'a> {
    lookup: &'a Lookup<'a>,
    id_key: SecretKey,
    locator: Mutex<Locator<'a>>,
    kept: Mutex<Lru<Key, Arc<Slot>>>,
    budget: Semaphore,
    openers: Arc<Mutex<Vec<SegmentOpener>>>,
    spare: Spare,
    wishes: UnboundedSender<Wish>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<'a> Segments<'a> {
    /// Whoever listens to `wishes` calls [`Self::grant`] for each.
    pub(super) fn new(lookup: &'a Lookup<'a>, wishes: UnboundedSender<Wish>) -> Result<Self, Error> {
        Ok(Self {
            lookup,
            id_key: lookup.repo().dedup_key(context::CHUNK_ID)?,
            locator: Mutex::new(Locator::new(lookup)),
            kept: Mutex::new(Lru::new(KEPT)),
            budget: Semaphore::new(BUDGET / UNIT),
            openers: Arc::default(),
            spare: Spare::default(),
            wishes,
        })
    }

    /// Gives a part of a chunk to `take`: `range` of its bytes.
    pub(super) async fn read(
        &self,
        row: &ChunkRow,
        range: Range<usize>,
        take: impl FnOnce(&[u8]),
    ) -> Result<(), Error> {
        let rescued = lock(&self.kept).get(&Key::Chunk(row.id));
        if let Some(opened) = rescued.as_ref().and_then(|slot| slot.opened.get())
            && let Some(part) = opened.plain.get(range.clone())
        {
            take(part);
            return Ok(());
        }
        let place = self.locate(row).await?;
        let slot = self.slot(&place);
        let found = match slot.opened.get_or_try_init(|| self.open(&slot, &place)).await {
            Ok(opened) => self.genuine(opened, row, place.location.offset),
            Err(error) if may_have_moved(&error) || is_local_damage(&error) => None,
            Err(error) => return Err(error),
        };
        if let Some(part) = found.and_then(|chunk| chunk.get(range.clone())) {
            take(part);
            return Ok(());
        }
        let tried = vec![place.copy];
        let found = elsewhere(self.lookup, &self.id_key, vec![Sought { row: *row, tried }]).await?;
        let chunk = found.into_iter().flatten().next().ok_or(Error::ChunkLost { chunk: row.id })?;
        take(chunk.get(range).unwrap_or_default());
        let weight = chunk.len();
        let mut opened = Opened::default();
        opened.plain = chunk;
        let slot = Slot { opened: OnceCell::new_with(Some(opened)), ..Slot::default() };
        lock(&self.kept).insert(Key::Chunk(row.id), Arc::new(slot), weight);
        Ok(())
    }

    /// The bytes of `wanted`, which these rows hold, if all of them lie behind one another in one segment that can be opened. Each
    /// row comes with the place where it begins.
    pub(super) async fn shared(
        &self,
        rows: impl Iterator<Item = (ChunkRow, u64)>,
        wanted: Range<u64>,
    ) -> Result<Option<Shared>, Error> {
        let mut found: Option<(SegmentPlace, Arc<Slot>, Range<usize>)> = None;
        for (row, start) in rows {
            // Where it should be, it was looked for in vain.
            if lock(&self.kept).get(&Key::Chunk(row.id)).is_some() {
                return Ok(None);
            }
            let Some(place) = self.locate_here(&row)? else { return Ok(None) };
            let at = place.location.offset as usize;
            let (segment, slot, range) = match found {
                None => {
                    let slot = self.slot(&place);
                    match slot.opened.get_or_try_init(|| self.open(&slot, &place)).await {
                        Ok(_) => {}
                        // Who reads chunk by chunk will find it elsewhere, or say what is wrong with it.
                        Err(error) if may_have_moved(&error) || is_local_damage(&error) => return Ok(None),
                        Err(error) => return Err(error),
                    }
                    let from = at + (wanted.start - start) as usize;
                    (place.copy.segment, slot, from..at)
                }
                Some(found) => found,
            };
            let follows = segment == place.copy.segment && range.end == at;
            let opened = slot.opened.get().filter(|_| follows);
            if opened.and_then(|opened| self.genuine(opened, &row, place.location.offset)).is_none() {
                return Ok(None);
            }
            let end = at + (wanted.end - start).min(row.len.into()) as usize;
            found = Some((segment, slot, range.start..end));
        }
        Ok(found.map(|(_, slot, range)| Shared { slot, range }))
    }

    /// Asks for the segments of the chunks at the beginning that somebody is about to read. Of those behind them it only
    /// takes what lies in the last of these segments, so that all of it is looked at when it is opened.
    pub(super) fn wish(&self, rows: impl Iterator<Item = (ChunkRow, bool)>) -> Result<(), Error> {
        let mut last: Option<Wish> = None;
        for (row, read) in rows {
            if !read && last.is_none() {
                break;
            }
            // What is not in the index is looked for when it is read.
            let Some(place) = self.locate_here(&row)? else { continue };
            let wanted = (row, place.location.offset);
            match &last {
                Some(wish) if wish.place.copy.segment == place.copy.segment => {
                    lock(&wish.slot.wanted).push(wanted)
                }
                _ if !read => break,
                _ => {
                    self.send(last.take());
                    let slot = self.slot(&place);
                    if !slot.opened.initialized() {
                        lock(&slot.wanted).push(wanted);
                        last = Some(Wish { slot, place });
                    }
                }
            }
        }
        self.send(last);
        Ok(())
    }

    fn send(&self, wish: Option<Wish>) {
        if let Some(wish) = wish.filter(|wish| !wish.slot.asked.swap(true, Ordering::AcqRel)) {
            // Nobody listens any more only when the mount ends.
            let _ = self.wishes.send(wish);
        }
    }

    /// Opens a segment. If that fails, so will the one who reads it, and say so.
    pub(super) async fn grant(&self, wish: Wish) {
        let Wish { slot, place } = wish;
        let _ = slot.opened.get_or_try_init(|| self.open(&slot, &place)).await;
        slot.asked.store(false, Ordering::Release);
    }

    fn slot(&self, place: &Located) -> Arc<Slot> {
        let mut kept = lock(&self.kept);
        let key = Key::Segment(place.copy.segment);
        kept.get(&key).unwrap_or_else(|| {
            let slot = Arc::new(Slot::default());
            kept.insert(key, Arc::clone(&slot), place.location.segment.plain_len as usize);
            slot
        })
    }

    /// The chunk in an opened segment, if it is the one that is wanted.
    fn genuine<'o>(&self, opened: &'o Opened, row: &ChunkRow, offset: u32) -> Option<&'o [u8]> {
        let start = offset as usize;
        let chunk = opened.plain.get(start..start + row.len as usize)?;
        if lock(&opened.genuine).contains(&(*row, offset)) {
            return Some(chunk);
        }
        genuine(&self.id_key, &opened.plain, row, offset)?;
        lock(&opened.genuine).insert((*row, offset));
        Some(chunk)
    }

    async fn open(&self, slot: &Slot, place: &Located) -> Result<Opened, Error> {
        let entry = place.location.segment;
        let units = (entry.stored_len as usize + entry.plain_len as usize).div_ceil(UNIT);
        let units = units.clamp(1, BUDGET / UNIT) as u32;
        let _permit = self.budget.acquire_many(units).await.expect("the budget is never closed");
        // Before it can fail: who asks again for what cannot be had must not add to what was asked before.
        let wanted = std::mem::take(&mut *lock(&slot.wanted));
        let stored = fetch(self.lookup, &place.location).await?;
        let (openers, key, id_key) = (Arc::clone(&self.openers), Arc::clone(&place.key), self.id_key.clone());
        let spare = Arc::clone(&self.spare);
        let repository = self.lookup.repo().id();
        let opened = tokio::task::spawn_blocking(move || {
            let free = lock(&openers).pop();
            let mut opener = free.map_or_else(|| SegmentOpener::new(repository), Ok)?;
            let mut plain = lock(&spare).pop().unwrap_or_default();
            let opened = opener.open(&key, &entry, &stored, &mut plain);
            lock(&openers).push(opener);
            opened?;
            trim(&mut plain);
            let found = wanted.into_iter().filter(|(row, at)| genuine(&id_key, &plain, row, *at).is_some());
            let genuine = Mutex::new(found.collect());
            Ok::<_, Error>(Opened { plain, genuine, spare })
        });
        opened.await.map_err(|_| RepoError::Task)?
    }

    /// The first copy whose key can be used, by the newest view that is at hand.
    fn locate_here(&self, row: &ChunkRow) -> Result<Option<Located>, Error> {
        let mut locator = lock(&self.locator);
        locator.renew();
        locator.here(row)
    }

    async fn locate(&self, row: &ChunkRow) -> Result<Located, Error> {
        loop {
            if let Some(place) = self.locate_here(row)? {
                return Ok(place);
            }
            let generation = lock(&self.locator).generation();
            if !self.lookup.more(generation, ChunkKind::Data, &row.id).await? {
                return Err(Error::ChunkLost { chunk: row.id });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use tokio::sync::mpsc::unbounded_channel;

    use super::*;
    use crate::format::content::Content;
    use crate::ops::testing::{World, noise, store_over};
    use crate::ops::tree::testing::{Forge, copies, flip, remove};
    use crate::repo::Repository;
    use crate::store::fault::{Failure, Fault, FaultStore, OpKind};

    /// Stores these chunks in one file, so many of them in a segment, and so many copies of it.
    async fn stored(
        repo: &Repository,
        parts: &[&[u8]],
        (a_segment, copies): (usize, usize),
    ) -> Vec<ChunkRow> {
        let mut forge = Forge::new(repo);
        forge.a_segment = a_segment;
        let file = forge.file("a", parts);
        let Content::Inline(rows) = file.content.clone() else { panic!("inline") };
        let root = forge.page(&[file]);
        forge.store(root, copies).await;
        rows
    }

    async fn slot_of(segments: &Segments<'_>, row: &ChunkRow) -> Arc<Slot> {
        segments.slot(&segments.locate(row).await.unwrap())
    }

    #[tokio::test]
    async fn memory_of_a_large_segment_is_not_kept_behind_a_small_one() {
        let repo = World::new().repository().await;
        let rows = stored(&repo, &[&noise(1, 1 << 20), b"small"], (1, 1)).await;
        let lookup = Lookup::open(&repo).await.unwrap();
        let (wishing, _wishes) = unbounded_channel();
        let segments = Segments::new(&lookup, wishing).unwrap();
        segments.read(&rows[0], 0..1, |_| {}).await.unwrap();
        *lock(&segments.kept) = Lru::new(KEPT);
        assert!(lock(&segments.spare).iter().any(|plain| plain.capacity() >= 1 << 20), "it is used again");
        segments.read(&rows[1], 0..5, |part| assert_eq!(part, b"small")).await.unwrap();
        let slot = slot_of(&segments, &rows[1]).await;
        assert!(slot.opened.get().unwrap().plain.capacity() < 1 << 16);
    }

    #[tokio::test]
    async fn what_cannot_be_had_does_not_grow_with_each_wish() {
        let world = World::new();
        let repo = world.repository().await;
        let rows = stored(&repo, &[b"a", b"b", b"c"], (4, 1)).await;
        let lookup = Lookup::open(&repo).await.unwrap();
        remove(&world.objects, copies(&repo, &rows[0].id).await[0].pack_id).await;
        let (wishing, mut wishes) = unbounded_channel();
        let segments = Segments::new(&lookup, wishing).unwrap();
        for _ in 0..5 {
            segments.wish(rows.iter().map(|row| (*row, true))).unwrap();
            segments.grant(wishes.try_recv().unwrap()).await;
        }
        let slot = slot_of(&segments, &rows[0]).await;
        assert!(lock(&slot.wanted).is_empty());
    }

    #[tokio::test]
    async fn another_length_is_another_chunk() {
        let repo = World::new().repository().await;
        let rows = stored(&repo, &[b"first", b"second"], (2, 1)).await;
        let lookup = Lookup::open(&repo).await.unwrap();
        let (wishing, _wishes) = unbounded_channel();
        let segments = Segments::new(&lookup, wishing).unwrap();
        segments.read(&rows[0], 0..5, |_| {}).await.unwrap();
        let slot = slot_of(&segments, &rows[0]).await;
        let opened = slot.opened.get().unwrap();
        let offset = segments.locate(&rows[0]).await.unwrap().location.offset;
        assert_eq!(segments.genuine(opened, &rows[0], offset), Some(&b"first"[..]));
        let shorter = ChunkRow { len: 4, ..rows[0] };
        assert_eq!(segments.genuine(opened, &shorter, offset), None);
    }

    #[tokio::test]
    async fn damage_is_not_fetched_again_and_a_store_that_is_away_is_asked_once() {
        let world = World::new();
        let repo = world.repository().await;
        let rows = stored(&repo, &[&noise(1, 5000)], (1, 2)).await;
        let away = Arc::new(AtomicBool::new(false));
        let (is_away, asked) = (Arc::clone(&away), Arc::new(AtomicUsize::new(0)));
        let count = Arc::clone(&asked);
        let faults = FaultStore::new(Arc::clone(&world.objects) as _, move |op| {
            if op.kind != OpKind::GetRange {
                return Fault::None;
            }
            count.fetch_add(1, Ordering::SeqCst);
            if is_away.load(Ordering::SeqCst) { Fault::Before(Failure::Unreachable) } else { Fault::None }
        });
        let repo = repo.with_store(store_over(Arc::new(faults)));
        let lookup = Lookup::open(&repo).await.unwrap();
        let (wishing, _wishes) = unbounded_channel();
        let segments = Segments::new(&lookup, wishing).unwrap();
        let shared = async || segments.shared([(rows[0], 0)].into_iter(), 0..5).await;
        away.store(true, Ordering::SeqCst);
        asked.store(0, Ordering::SeqCst);
        assert!(shared().await.is_err());
        assert_eq!(asked.load(Ordering::SeqCst), 1);
        away.store(false, Ordering::SeqCst);
        // What is read first.
        let first = segments.locate(&rows[0]).await.unwrap().location;
        flip(&world.objects, first.pack_id, first.segment.offset + 9).await;
        assert!(shared().await.unwrap().is_none());
        segments.read(&rows[0], 0..5, |part| assert_eq!(part, &noise(1, 5000)[..5])).await.unwrap();
        asked.store(0, Ordering::SeqCst);
        assert!(shared().await.unwrap().is_none());
        segments.read(&rows[0], 5..10, |part| assert_eq!(part, &noise(1, 5000)[5..10])).await.unwrap();
        assert_eq!(asked.load(Ordering::SeqCst), 0);
    }
}
