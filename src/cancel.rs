//! The wish to stop, seen by every thread of a run.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

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
}
