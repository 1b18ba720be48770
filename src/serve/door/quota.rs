//! How much may lie in a directory. Everything below it counts, whoever put it there; it is counted now and then, and what
//! this connection adds in between is added.
//!
//! Several connections at once may go over by what each adds between two counts, at most.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::request::Refusal;
use crate::clock::Clock;
use crate::store::door::wire::Code;
use crate::store::{Shelf, StoreError};
use crate::units::ByteSize;

/// A count is good for so long, or for so many times as long as it took, whichever is longer.
const GOOD_FOR: Duration = Duration::from_secs(60);
const TIMES: u32 = 20;

#[derive(Default)]
struct State {
    /// What was counted, when, and how long that took.
    counted: Option<(u64, Duration, Duration)>,
    /// Bytes stored since, and bytes of what is being stored.
    stored: u64,
    open: u64,
}

/// A limit on what lies in a directory.
pub(in crate::serve) struct Quota {
    most: u64,
    shelf: Shelf,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    counting: tokio::sync::Mutex<()>,
}

/// Room that is kept for an object. Dropped without [`Reserved::stored`], it is free again.
pub(super) struct Reserved {
    quota: Arc<Quota>,
    size: u64,
    stored: bool,
}

impl Quota {
    pub(in crate::serve) fn new(most: u64, shelf: Shelf, clock: Arc<dyn Clock>) -> Self {
        Self { most, shelf, clock, state: Mutex::default(), counting: tokio::sync::Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps room for an object, if there is.
    pub(super) async fn reserve(self: &Arc<Self>, size: u64) -> Result<Reserved, Refusal> {
        let size = Shelf::room(size);
        if self.is_old(GOOD_FOR) {
            self.count(GOOD_FOR).await?;
        }
        // Something may have been deleted since it was counted.
        if !self.fits(size) && self.is_old(Duration::ZERO) {
            self.count(Duration::ZERO).await?;
        }
        let mut state = self.state();
        let left = self.left(&state);
        if size > left {
            let (most, left) = (ByteSize(self.most), ByteSize(left));
            return Err(Refusal::new(Code::NoSpace, format!("the quota of {most} has {left} left")));
        }
        state.open += size;
        drop(state);
        Ok(Reserved { quota: Arc::clone(self), size, stored: false })
    }

    /// Bytes that may still be stored.
    pub(super) async fn free(&self) -> Result<u64, StoreError> {
        if self.is_old(GOOD_FOR) {
            self.count(GOOD_FOR).await?;
        }
        Ok(self.left(&self.state()))
    }

    fn left(&self, state: &State) -> u64 {
        let counted = state.counted.map_or(0, |(bytes, ..)| bytes);
        self.most.saturating_sub(counted).saturating_sub(state.stored).saturating_sub(state.open)
    }

    fn fits(&self, size: u64) -> bool {
        size <= self.left(&self.state())
    }

    fn is_old(&self, good_for: Duration) -> bool {
        let now = self.clock.monotonic();
        self.state()
            .counted
            .is_none_or(|(_, at, took)| now.saturating_sub(at) >= good_for.max(took.saturating_mul(TIMES)))
    }

    async fn count(&self, good_for: Duration) -> Result<(), StoreError> {
        let _one = self.counting.lock().await;
        if !self.is_old(good_for) {
            return Ok(());
        }
        // What is stored meanwhile may be counted twice until the next count: rather too much than too little.
        let before = self.state().stored;
        let start = self.clock.monotonic();
        let counted = self.shelf.used().await;
        let end = self.clock.monotonic();
        let mut state = self.state();
        state.counted = Some((counted?, end, end.saturating_sub(start)));
        state.stored = state.stored.saturating_sub(before);
        Ok(())
    }
}

impl Reserved {
    /// The object is there.
    pub(super) fn stored(mut self) {
        self.stored = true;
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        let mut state = self.quota.state();
        state.open = state.open.saturating_sub(self.size);
        if self.stored {
            state.stored = state.stored.saturating_add(self.size);
        }
    }
}
