//! The world a run lives in: time, randomness, who is told, the wish to stop, limits and local places.

use std::path::PathBuf;
use std::sync::Arc;

use futures::future::try_join;

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

impl Limits {
    /// Waits for two things that have no order among each other: for both at the same time, or for one after the other if no
    /// two requests may be under way. An error of the first one counts before one of the second.
    pub async fn both<A, B, E>(
        &self,
        first: impl Future<Output = Result<A, E>>,
        second: impl Future<Output = Result<B, E>>,
    ) -> Result<(A, B), E> {
        // What waits within what waits would grow with each level.
        let (first, second) = (Box::pin(first), Box::pin(second));
        if self.requests <= 1 {
            return Ok((first.await?, second.await?));
        }
        let (first, second) = try_join(first, async { Ok(second.await) }).await?;
        Ok((first, second?))
    }
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

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[tokio::test]
    async fn two_things_overlap_only_where_two_requests_may_and_the_first_error_counts() {
        for (requests, order) in [(1, "aabb"), (2, "abab")] {
            let limits = Limits { workers: 1, requests };
            let said = Mutex::new(String::new());
            let speak = async |name: char, result: Result<char, char>| {
                said.lock().unwrap().push(name);
                tokio::task::yield_now().await;
                said.lock().unwrap().push(name);
                result
            };
            assert_eq!(limits.both(speak('a', Ok('a')), speak('b', Ok('b'))).await, Ok(('a', 'b')));
            assert_eq!(*said.lock().unwrap(), order);
            assert_eq!(limits.both(speak('a', Err('a')), speak('b', Err('b'))).await, Err('a'));
            assert_eq!(limits.both(speak('a', Ok('a')), speak('b', Err('b'))).await, Err('b'));
        }
    }
}
