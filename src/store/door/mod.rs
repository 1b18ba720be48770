//! A directory on another machine, reached through a door that its owner opens: the client side of `serve`.
//!
//! `wire` is what travels, for both sides, and `message` what it says; `line` is one connection; `client` is the store; `ssh` makes connections.
//!
//! # Invariants
//! Of what the other side sends, no more is kept than was asked for: every request has a window, and there are only so many
//! requests. A reply that breaks the rules ends the connection, never the program.

mod client;
mod error;
mod line;
mod message;
mod ssh;
pub mod wire;

pub(super) use client::DoorStore;
pub(crate) use error::DoorError;
pub(super) use error::{FarKind, said};
pub(crate) use line::{Connect, Far, Wires};
pub(super) use ssh::{Host, Ssh};
