//! What goes on until it is told to stop: a repository shown to other programs.
//!
//! # Must not
//! Print, prompt, read the environment, or change anything stored.

pub mod mount;
