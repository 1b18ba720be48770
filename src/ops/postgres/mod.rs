//! The log of PostgreSQL: archiving it, giving it back, saying how far it reaches.
//!
//! # Invariants
//! A server removes its own copy of a file when it is told that the file is archived, and takes "there is no such file" for the
//! end of the log. So the first is said only of what is durable and was found again by a listing that shows nothing else under
//! that name, and the second only of what a complete listing lacks and of which nothing shows that it was ever written.
//!
//! # Crash
//! A file is stored or not. One that was stored and not acknowledged is stored again under the same name, or found to be there.
//!
//! # Must not
//! Replace or remove what is archived: a collector does, of what no base backup needs (`gc::logs`).

mod cluster;
mod get;
mod info;
mod place;
mod plan;
mod push;
mod trimmed;
mod verify;

pub(in crate::ops) use cluster::history_of;
pub use cluster::{Allowed, Server, allow, find_cluster};
pub use get::{GetOptions, Got, get};
pub(in crate::ops) use info::cluster_info;
pub use info::{ClusterInfo, HistoryInfo, RangeInfo, TimelineInfo, info};
pub use plan::{Absence, Archived, Range, judge, ranges};
pub use push::{PushOptions, Pushed, WalCheck, push};
pub(in crate::ops) use trimmed::missing_segments;
pub use verify::{VerifyOptions, VerifySummary, verify};

#[cfg(test)]
mod tests;
