//! A directory on another machine, reached through a door that its owner opens: the client side of `serve`.
//!
//! `wire` is what travels, for both sides, and `message` what it says; `line` is one connection, and `current` the one that there is; `client` is the store; `ssh` and `https`
//! make connections, the latter with `trust` for the server and `token` for itself.
//!
//! # Invariants
//! Of what the other side sends, no more is kept than was asked for: every request has a window, and there are only so many
//! requests. A reply that breaks the rules ends the connection, never the program.

mod client;
mod current;
mod error;
mod https;
mod line;
mod message;
mod ssh;
mod token;
mod trust;
pub mod wire;

pub(super) use client::DoorStore;
pub(super) use current::{Current, Ends, detached};
pub(crate) use error::DoorError;
pub(super) use error::{FarKind, said};
pub(super) use https::{Https, Web};
pub(crate) use line::{Connect, Far, Wires};
pub(super) use ssh::{Host, Ssh};
pub(super) use token::Token;
pub use trust::Fingerprint;
pub(super) use trust::{Roots, Trust};
