//! Time and chance of a simulated machine: everything follows from the seed.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lifeboat::clock::{Clock, Timestamp};
use lifeboat::random::{Random, RandomError};

/// A small generator (SplitMix64): good enough to choose with, and the same everywhere.
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        let mut dice = Self(seed);
        dice.next();
        dice
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`.
    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }

    pub fn one_in(&mut self, n: u64) -> bool {
        n > 0 && self.below(n) == 0
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }

    /// Another generator that goes its own way.
    pub fn fork(&mut self) -> Self {
        Self::new(self.next())
    }
}

/// What runs a request: the thread of the history, or one of the threads an operation starts. Each role has one thread at
/// a time, so what it draws depends on the seed alone, whatever the other threads do meanwhile.
fn role() -> String {
    std::thread::current().name().unwrap_or("worker").to_owned()
}

/// Randomness of one machine.
#[derive(Debug)]
pub struct SimRandom {
    seed: u64,
    lanes: Mutex<HashMap<String, Dice>>,
}

impl SimRandom {
    pub fn new(seed: u64) -> Arc<Self> {
        Arc::new(Self { seed, lanes: Mutex::default() })
    }
}

impl Random for SimRandom {
    fn fill(&self, out: &mut [u8]) -> Result<(), RandomError> {
        let role = role();
        let mut lanes = self.lanes.lock().unwrap();
        let lane = lanes.entry(role).or_insert_with_key(|role| {
            let hash = blake3::hash(role.as_bytes());
            let mut start = [0; 8];
            start.copy_from_slice(&hash.as_bytes()[..8]);
            Dice::new(self.seed ^ u64::from_le_bytes(start))
        });
        for part in out.chunks_mut(8) {
            let bytes = lane.next().to_le_bytes();
            part.copy_from_slice(&bytes[..part.len()]);
        }
        Ok(())
    }
}

/// The clock of one machine: the store's, and years off. Its monotonic time leaps at each look, so that a pause between
/// two tries is over at once.
pub struct SimClock {
    store: Arc<AtomicI64>,
    skew: i64,
    looks: Mutex<HashMap<String, u32>>,
}

impl SimClock {
    pub fn new(store: Arc<AtomicI64>, skew: i64) -> Arc<Self> {
        Arc::new(Self { store, skew, looks: Mutex::default() })
    }
}

impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.store.load(Ordering::Acquire).saturating_add(self.skew))
    }

    fn monotonic(&self) -> Duration {
        let mut looks = self.looks.lock().unwrap();
        let count = looks.entry(role()).or_default();
        *count += 1;
        Duration::from_secs(61) * *count
    }
}
