//! What is backed up, and where it is restored to.

pub(crate) mod sys;
pub mod target;
