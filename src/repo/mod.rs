//! A repository: opening it, reading chunks, making packs, and the commit of a snapshot.
//!
//! # Invariants
//! Pack durable before index durable before snapshot durable before the check before the acknowledgement (I1, I5). A
//! writer depends only on packs that it saw listed and did not see condemned (I3). A listing is believed only when it is
//! complete (I7); what cannot be decoded is reported and skipped, never removed (I8).
//!
//! # Crash
//! Packs without an index object: adopted by the writer's next run through its journal. A snapshot without its
//! confirmation: stored, not acknowledged.
//!
//! # Must not
//! Know of sources, targets, or of what a command prints.

mod access;
mod anchors;
mod clusters;
mod cold;
mod cold_object;
mod commit;
mod compact;
mod create;
mod env;
mod error;
mod index_fetch;
mod index_file;
mod index_object;
mod journal;
mod keys;
mod labels;
mod ledger;
mod load;
mod locks;
mod logs;
mod marks;
mod merkle;
mod open;
mod own;
mod pack;
mod read;
mod reading;
mod registry;
mod rekey;
mod removals;
mod revoke;
mod sealed;
mod seen;
mod seen_config;
mod slots;
mod snapshots;
mod tree_cache;
mod trims;

pub use access::Task;
pub use clusters::StoredCluster;
pub use commit::{CheckOutcome, Dependencies, Heads};
pub use compact::{CompactPlan, INDEX_FULL, IndexStat};
pub use create::{Created, NewSlot, Plan, create};
pub use env::{Env, Limits, Places};
pub use error::RepoError;
pub use index_fetch::FetchedIndex;
#[cfg(test)]
pub(crate) use index_object::signature_at;
pub use index_object::{open_index_object, seal_index_object};
pub use journal::Journal;
pub use keys::{RunKeys, SealedKeyName, SegmentPlace};
pub use labels::{LabelsRank, StoredLabels};
pub use ledger::{NewlyVerified, StoredVerified};
pub use load::{INDEX_MAX, ListedIndex, LoadedIndex, Problem};
pub use locks::Locked;
pub use logs::{ListedLog, NewLog};
pub use marks::{Marks, StoredCondemnation, StoredHold, StoredTomb};
pub use merkle::{merkle_proofs, merkle_root, origin_message, proven_root, segment_leaf};
pub use open::Repository;
pub use own::OwnSnapshots;
pub use pack::{BufferPool, FinishedPack, Moved, Origin, PackBuilder, PackKeys, PoolBuffer, open_directory};
pub use read::ChunkReader;
pub use reading::{COLD_FROM, ReadIndex};
pub use rekey::{Holder, RekeyError, Renewal};
pub use removals::{NewRemoval, Removals, StoredRemoval};
pub use revoke::RegisteredWriter;
pub use seen::SeenSnapshots;
pub use slots::{OpenedSlot, SlotError, SlotList, StoredSlot, check_label};
pub use snapshots::{Listed, StoredSnapshot};
pub use tree_cache::TreeCache;
pub use trims::{StoredTrim, trimmed};
