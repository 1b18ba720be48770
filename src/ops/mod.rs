//! What the tool does, one operation a file or folder: plans are pure values, and applying one is dumb.
//!
//! # Must not
//! Print, prompt, read the environment, or own stored bytes.

pub mod anchor;
pub mod archive;
pub mod backup;
pub mod base;
pub mod cat;
pub mod copy;
pub mod diff;
pub mod doctor;
pub mod dump;
pub mod find;
pub mod forget;
pub mod gc;
pub mod hold;
pub mod import;
pub mod init;
pub mod keys;
pub mod ledger;
pub mod legal;
pub mod lock;
pub mod ls;
pub mod postgres;
pub mod rekey;
pub mod restore;
pub mod snapshots;
pub mod sqlite;
pub mod stats;
pub mod status;
pub mod tag;
#[cfg(test)]
pub(crate) mod testing;
pub(crate) mod tree;
pub mod undelete;
pub mod verify;
pub mod why;
pub mod writers;
