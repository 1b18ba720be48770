//! Trying again: every request of this room may be repeated, because no name is ever written with two contents.

use std::time::Duration;

use super::error::{Operation, StoreError};
use super::options::StoreEnv;
use crate::event::Event;
use crate::random::{Random, random_array};

const FIRST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(60);
/// Tries after a fault that is odd rather than passing: content cut short, no credentials found.
const ODD_TRIES: u32 = 3;

/// The pause before try number `attempt + 1`: doubled each time up to a minute, half of it left to chance, so that many
/// clients do not come back at once.
pub(super) fn pause(attempt: u32, random: &dyn Random) -> Duration {
    let most = FIRST.saturating_mul(1 << attempt.saturating_sub(1).min(16)).min(LONGEST);
    // Without randomness the pause is merely not spread.
    let chance =
        random_array::<2>(random).map_or(1.0, |b| f64::from(u16::from_le_bytes(b)) / f64::from(u16::MAX));
    most.mul_f64(0.5 + chance / 2.0)
}

/// Runs `request` until it succeeds, fails for good, or has failed for `retry_for` on the injected clock.
pub(super) async fn attempts<T, F>(
    env: &StoreEnv,
    retry_for: Duration,
    (operation, key): (Operation, &str),
    mut request: impl FnMut() -> F,
) -> Result<T, StoreError>
where
    F: Future<Output = Result<T, StoreError>>,
{
    let start = env.clock.monotonic();
    let mut attempt = 1;
    loop {
        let error = match request().await {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        let again = match &error {
            StoreError::Unreachable { .. } => true,
            StoreError::Short { .. } | StoreError::Credentials { .. } => attempt < ODD_TRIES,
            _ => false,
        };
        let pause = pause(attempt, env.random.as_ref());
        let passed = env.clock.monotonic().saturating_sub(start);
        if !again || passed.saturating_add(pause) > retry_for {
            return Err(error);
        }
        env.observer.observe(&Event::Retrying { key, attempt, error: &error });
        let waited = env.cancel.wait(&*env.clock, pause).await;
        waited.map_err(|_| StoreError::Cancelled { operation, key: key.to_owned() })?;
        attempt += 1;
    }
}
