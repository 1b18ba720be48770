//! What is backed up: trees of files, streams, the output of commands; and where it is restored to.
//!
//! # Invariants
//! Nothing here writes to a source. A name is bytes; it is never decoded. What could not be read is an error for that
//! one entry, and its siblings are still delivered; it never looks like an empty file or directory.
//!
//! # Must not
//! Follow a symbolic link below a root, read a pipe or a device found in a tree (one that is named as an image is read), or
//! know of chunks and repositories.

pub mod device;
pub mod error;
pub mod file;
pub mod meta;
pub mod sqlite;
pub mod stream;
pub(crate) mod sys;
pub mod target;
pub mod walk;

pub use error::{CommandEnd, SourceError};
pub use sys::stat::{Kind, Stat, Time};
