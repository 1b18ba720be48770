//! Rates of bytes a second, and waiting for them.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::options::StoreEnv;
use crate::cancel::Stopped;

/// A token bucket of one second's worth. Whoever takes more than is there leaves a debt that the next one waits for, so a
/// large object is sent in one go and the average still holds.
#[derive(Debug)]
pub(super) struct Limit {
    rate: u64,
    /// When the bucket will have no debt, on the monotonic clock.
    free_at: Mutex<Duration>,
}

impl Limit {
    pub(super) fn new(rate: Option<u64>) -> Option<Self> {
        rate.filter(|rate| *rate > 0).map(|rate| Self { rate, free_at: Mutex::new(Duration::ZERO) })
    }

    /// Takes `bytes` from the bucket and says how long to wait first.
    fn reserve(&self, bytes: u64, now: Duration) -> Duration {
        let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
        let start = (*free_at).max(now.saturating_sub(Duration::from_secs(1)));
        *free_at = start.saturating_add(Duration::from_secs_f64(bytes as f64 / self.rate as f64));
        start.saturating_sub(now)
    }

    /// Waits for earlier debts, then takes `bytes`.
    pub(super) async fn take(&self, env: &StoreEnv, bytes: u64) -> Result<(), Stopped> {
        let pause = self.reserve(bytes, env.clock.monotonic());
        if pause.is_zero() { Ok(()) } else { env.cancel.wait(&*env.clock, pause).await }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_average_holds_and_idle_time_is_not_saved_up() {
        let limit = Limit::new(Some(1000)).unwrap();
        let at = Duration::from_secs;
        assert_eq!(limit.reserve(500, at(100)), Duration::ZERO);
        assert_eq!(limit.reserve(5000, at(100)), Duration::ZERO, "half a second is left in the bucket");
        assert_eq!(limit.reserve(1000, at(100)), Duration::from_millis(4500));
        assert_eq!(limit.reserve(1000, at(1000)), Duration::ZERO);
        assert_eq!(limit.reserve(1000, at(1000)), Duration::ZERO);
        assert_eq!(limit.reserve(1, at(1000)), at(1), "one second of burst, however long the pause was");
    }

    #[test]
    fn zero_means_no_limit() {
        assert!(Limit::new(Some(0)).is_none() && Limit::new(None).is_none());
    }
}
