//! The wish to stop, seen by every thread of a run.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::clock::Clock;

/// Longest sleep without a look at the clock and the flag; short, so that a stop is felt at once.
const STEP: Duration = Duration::from_millis(50);

/// The run was asked to stop while it waited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stopped;

/// A flag that is raised once and never lowered. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// A flag that is not raised.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks everyone who holds the flag to come to a clean end.
    pub fn raise(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Whether the run has been asked to stop.
    pub fn is_raised(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    /// Waits until `pause` has passed on this clock, or the flag is raised. Sleeps in small real steps, so a simulated
    /// clock may run faster.
    pub async fn wait(&self, clock: &dyn Clock, pause: Duration) -> Result<(), Stopped> {
        let end = clock.monotonic().saturating_add(pause);
        loop {
            if self.is_raised() {
                return Err(Stopped);
            }
            let left = end.saturating_sub(clock.monotonic());
            if left.is_zero() {
                return Ok(());
            }
            tokio::time::sleep(left.min(STEP)).await;
        }
    }
}
