//! The world a run lives in: time, randomness, who is told, the wish to stop, limits and local places.

use std::path::PathBuf;
use std::sync::Arc;

use crate::cancel::Cancel;
use crate::clock::{Clock, SystemClock};
use crate::event::{CountingObserver, Observer};
use crate::random::{Random, SystemRandom};
use crate::store::StoreEnv;

/// Everything a run takes from outside besides the store. Clones share it.
#[derive(Clone)]
pub struct Env {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub random: Arc<dyn Random>,
    /// Who is told.
    pub observer: Arc<dyn Observer>,
    /// The wish to stop.
    pub cancel: Cancel,
    /// How much of the machine a run may use.
    pub limits: Limits,
    /// Where local files live.
    pub places: Places,
}

impl Env {
    /// The machine's clock and randomness; nobody is told anything, and nobody stops it yet.
    pub fn system(limits: Limits, places: Places) -> Self {
        Self {
            clock: Arc::new(SystemClock::new()),
            random: Arc::new(SystemRandom),
            observer: Arc::new(CountingObserver::default()),
            cancel: Cancel::new(),
            limits,
            places,
        }
    }

    /// The same world for a store: what stops this stops that.
    pub fn store_env(&self) -> StoreEnv {
        StoreEnv {
            clock: Arc::clone(&self.clock),
            random: Arc::clone(&self.random),
            observer: Arc::clone(&self.observer),
            cancel: self.cancel.clone(),
        }
    }
}

impl std::fmt::Debug for Env {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Env")
            .field("limits", &self.limits)
            .field("places", &self.places)
            .finish_non_exhaustive()
    }
}

/// How much of the machine a run may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Threads that cut, hash, compress and encrypt.
    pub workers: usize,
    /// Requests to the store at the same time.
    pub requests: usize,
}

impl Default for Limits {
    fn default() -> Self {
        let workers = std::thread::available_parallelism().map_or(2, usize::from);
        Self { workers, requests: 8 }
    }
}

/// Where local files live.
#[derive(Debug, Clone)]
pub struct Places {
    /// What must last: seen heads, the last run's state, the journal.
    pub state: PathBuf,
    /// What may be lost; `None` to do without.
    pub cache: Option<PathBuf>,
}
