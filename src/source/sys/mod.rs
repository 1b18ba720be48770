//! System calls that no safe wrapper offers.

pub(crate) mod write;
