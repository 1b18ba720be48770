//! The chunks that this run stores, before they appear in a view.

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::id::ChunkId;

const SHARDS: usize = 64;

/// Which chunks workers of this run have taken on. Threads share it; it takes about 40 bytes a chunk until
/// [`Self::forget`].
#[derive(Debug)]
pub struct RunTable {
    shards: Box<[Mutex<Shard>]>,
}

type Shard = HashSet<Key, BuildHasherDefault<IdHasher>>;

/// Ids are keyed hashes: no one can choose them to collide, so eight of their bytes are as good a hash as any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Key(ChunkId);

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let first = self.0.as_bytes().first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        state.write_u64(first);
    }
}

#[derive(Debug, Default)]
struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.0 = self.0.rotate_left(8) ^ u64::from(*byte));
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}

impl RunTable {
    /// An empty table.
    pub fn new() -> Self {
        Self { shards: (0..SHARDS).map(|_| Mutex::default()).collect() }
    }

    fn shard(&self, id: &ChunkId) -> MutexGuard<'_, Shard> {
        let [.., last] = id.as_bytes();
        // A thread that panicked left a set that is whole: insertion and removal are its only changes.
        self.shards[usize::from(*last) % SHARDS].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a chunk on: true for exactly one caller, who must store it; false if somebody in this run does or did.
    pub fn claim(&self, id: &ChunkId) -> bool {
        self.shard(id).insert(Key(*id))
    }

    /// Whether somebody in this run stores or stored the chunk.
    pub fn contains(&self, id: &ChunkId) -> bool {
        self.shard(id).contains(&Key(*id))
    }

    /// Drops chunks that a new view has, or that were claimed and could not be stored. Whoever claims them next must
    /// ask the view first.
    pub fn forget<'a>(&self, ids: impl Iterator<Item = &'a ChunkId>) {
        for id in ids {
            let mut shard = self.shard(id);
            shard.remove(&Key(*id));
            if shard.capacity() > 1024 && shard.len() < shard.capacity() / 8 {
                let len = shard.len();
                shard.shrink_to(len * 2);
            }
        }
    }

    /// How many chunks are in the table, by which a run decides when to publish.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().unwrap_or_else(PoisonError::into_inner).len()).sum()
    }

    /// Whether the table is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Default for RunTable {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn id(number: u32) -> ChunkId {
        ChunkId::new(*blake3::hash(&number.to_le_bytes()).as_bytes())
    }

    #[test]
    fn of_many_threads_one_wins_each_chunk() {
        let table = RunTable::new();
        let wins: Vec<AtomicUsize> = (0..5000).map(|_| AtomicUsize::new(0)).collect();
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let (table, wins) = (&table, &wins);
                scope.spawn(move || {
                    for step in 0..5000 {
                        let number = (step + thread * 617) % 5000;
                        if table.claim(&id(number as u32)) {
                            wins[number].fetch_add(1, Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        assert!(wins.iter().all(|wins| wins.load(Ordering::Relaxed) == 1));
        assert_eq!(table.len(), 5000);
    }

    #[test]
    fn forgotten_chunks_can_be_claimed_again_and_give_their_memory_back() {
        let table = RunTable::new();
        let ids: Vec<_> = (0..200_000).map(id).collect();
        assert!(ids.iter().all(|id| table.claim(id)));
        assert!(ids.iter().all(|id| table.contains(id) && !table.claim(id)));
        table.forget(ids[1..].iter());
        assert_eq!(table.len(), 1);
        assert!(table.contains(&ids[0]) && !table.contains(&ids[1]) && table.claim(&ids[1]));
        let capacity: usize = table.shards.iter().map(|shard| shard.lock().unwrap().capacity()).sum();
        assert!(capacity < 100_000, "{capacity}");
    }

    #[test]
    fn ids_with_equal_prefixes_are_different_chunks() {
        let table = RunTable::new();
        let mut other = *id(1).as_bytes();
        other[20] ^= 1;
        assert!(table.claim(&id(1)) && table.claim(&ChunkId::new(other)));
    }
}
