//! Cryptography against what others published, and what a whole repository makes of it.
#![allow(missing_docs, unreachable_pub, reason = "a test has no public interface")]
#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

mod nonces;
mod vectors;
