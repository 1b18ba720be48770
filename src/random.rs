//! Randomness, injected. Keys and nonces come from here and from nowhere else.

use std::fmt;

/// The system gave no random bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the system's random generator failed")]
pub struct RandomError;

/// A source of bytes that nobody can predict.
pub trait Random: Send + Sync + fmt::Debug {
    /// Fills `out` with fresh bytes.
    fn fill(&self, out: &mut [u8]) -> Result<(), RandomError>;
}

/// Fresh bytes as an array.
pub fn random_array<const N: usize>(random: &dyn Random) -> Result<[u8; N], RandomError> {
    let mut out = [0; N];
    random.fill(&mut out)?;
    Ok(out)
}

/// The operating system's generator.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemRandom;

impl Random for SystemRandom {
    fn fill(&self, out: &mut [u8]) -> Result<(), RandomError> {
        getrandom::fill(out).map_err(|_| RandomError)
    }
}
