//! A directory on another machine, reached by SFTP: for servers that run nothing of ours and let nothing else in.
//!
//! `wire` is what travels: version 3 with the extensions of OpenSSH. `line` is one connection, `client` the store, `write` and
//! `walk` what it does there. Connections are made by the system's `ssh`, as those to a door.
//!
//! # Invariants
//! As those of a local directory: an object is complete under its name or not there; when a put or a delete returns, it is
//! durable, and so is what was listed before; nothing that has a name is replaced. A server that cannot sync is refused, unless
//! the user says otherwise. Of what the server sends, no more is kept than was asked for; what breaks the rules ends the
//! connection, never the program.
//!
//! # Crash
//! A connection that breaks leaves whole objects, and files in `tmp/`, which no listing shows and a sweep removes.
//!
//! # Must not
//! Trust a name: what comes back from a directory is checked before it is a part of a path.

mod client;
mod error;
mod line;
#[cfg(test)]
mod played;
mod walk;
mod wire;
mod write;

pub(super) use client::{SftpOptions, SftpStore};
pub(super) use error::SftpError;
