//! The system calls of the room, each as one function with plain arguments and results.
//!
//! # Must not
//! Decide anything: no retries beyond `EINTR`, no filters, no policy.

pub(crate) mod block;
pub(crate) mod dir;
pub(crate) mod file;
pub(crate) mod flags;
pub(crate) mod stat;
pub(crate) mod write;
pub(crate) mod xattr;
