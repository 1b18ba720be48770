//! Keys and what is done with them: ids, encryption, sealing to public keys, signatures, key derivation, key slots.
//!
//! # Invariants
//! * Every key has one purpose: keys that come from another key are made by [`SecretKey::derive`] with a context from
//!   [`context`], which lists each of them once.
//! * A secret is wiped from memory when it is dropped, is compared in constant time, and prints as nothing.
//! * Randomness comes from [`crate::random::Random`] alone.
//!
//! # Must not
//! Do I/O, or accept a cheaper key derivation than the floor in [`kdf`] from stored bytes.

pub mod aead;
pub mod context;
mod datakey;
mod error;
mod hash;
pub mod hpke;
pub mod kdf;
mod key;
pub mod keyfile;
mod object;
mod secrets;
pub mod sign;
pub mod slot;
pub mod words;

pub use datakey::{DataKey, generate_data_key, open_data_key};
pub use error::CryptoError;
pub use hash::{ObjectHasher, chunk_id, cluster_id, log_hash, name_hash, object_hash};
pub use key::SecretKey;
pub use object::{ObjectSealer, object_salt};
pub use secrets::{FORMER_MAX, Part, Pins, Secrets, WriterSecret};

#[cfg(test)]
pub(crate) mod testing;
