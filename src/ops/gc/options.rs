//! What a collection is asked for, and what it reports.

use std::time::Duration;

use super::logs::LogReport;
use super::mover::MovedTotals;
use super::plan::{Plan, Rules};
use crate::clock::Timestamp;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// How to collect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PruneOptions {
    /// Time between condemning packs and deleting them, on the store's clock. Zero is safe, and makes running backups
    /// store again what they were about to use.
    pub grace: Duration,
    /// Time in which a forgotten snapshot can still be taken back.
    pub undo_window: Duration,
    /// Packs younger than this are left alone; `None` for twice the grace.
    pub young: Option<Duration>,
    /// Dead bytes that may stay in packs, in thousandths of the live ones.
    pub max_unused: u64,
    /// Most bytes that are moved in this run.
    pub max_repack: u64,
    /// Bytes that must stay free on a local store while content is moved.
    pub reserve: u64,
    /// Remove snapshots even if they are more than a quarter of all.
    pub yes: bool,
    /// Collect without a delay even if a backup may be running.
    pub force: bool,
    /// Go on when a snapshot is gone that nobody removed, and name it as removed.
    pub accept_missing: bool,
    /// With so many removals that are older than the grace and of which nothing is there, they are folded.
    pub fold_from: usize,
    /// Only say what would be done.
    pub dry_run: bool,
}

impl Default for PruneOptions {
    fn default() -> Self {
        Self {
            grace: 7 * DAY,
            undo_window: 7 * DAY,
            young: None,
            max_unused: 50,
            max_repack: u64::MAX,
            reserve: 256 << 20,
            yes: false,
            force: false,
            accept_missing: false,
            fold_from: 16,
            dry_run: false,
        }
    }
}

impl PruneOptions {
    /// Removes everything that can be removed, without any delay and without asking: for repositories that nobody else uses.
    pub const AT_ONCE: Self = Self {
        grace: Duration::ZERO,
        undo_window: Duration::ZERO,
        young: Some(Duration::ZERO),
        max_unused: 0,
        max_repack: u64::MAX,
        reserve: 0,
        yes: true,
        force: true,
        accept_missing: false,
        fold_from: 16,
        dry_run: false,
    };

    pub(super) fn rules(&self) -> Rules {
        Rules {
            young: self.young.unwrap_or(self.grace.saturating_mul(2)),
            max_unused: self.max_unused,
            max_repack: self.max_repack,
        }
    }
}

/// What a collection did, or would do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PruneReport {
    /// Snapshots that were removed.
    pub removed: u64,
    /// Forgotten snapshots that can still be taken back.
    pub waiting: u64,
    /// Snapshots that were spared: held, or taken back in time.
    pub spared: u64,
    /// What was condemned in this run.
    pub plan: Plan,
    /// Packs that are condemned and wait for their time.
    pub condemned: u64,
    /// Bytes of these.
    pub condemned_bytes: u64,
    /// When the last of them may be deleted.
    pub due: Option<Timestamp>,
    /// Packs that were deleted.
    pub deleted: u64,
    /// Bytes of these.
    pub deleted_bytes: u64,
    /// Bytes of segments that were moved to other packs.
    pub moved_bytes: u64,
    /// Packs that were written.
    pub written: u64,
    /// Bytes of these.
    pub written_bytes: u64,
    /// Index objects that were deleted.
    pub index_deleted: u64,
    /// Index objects that were written.
    pub index_written: u64,
    /// Condemned packs that were left alone, with the reason, by key.
    pub left: Vec<(String, String)>,
    /// Bytes of all packs when the run ended.
    pub pack_bytes: u64,
    /// What became of the logs of databases.
    pub logs: LogReport,
    /// Bytes of objects that were deleted, now or before, and that the store still keeps because they are locked.
    pub locked_bytes: u64,
    /// When the last of them becomes free, at the earliest; of those that only a legal hold keeps nobody knows.
    pub free_at: Option<Timestamp>,
    /// Bytes of such objects that the store gave back, because their locks were over.
    pub given_back_bytes: u64,
}

impl PruneReport {
    /// Something deleted stays in the store until then.
    pub(super) fn keep(&mut self, bytes: u64, until: Timestamp) {
        self.locked_bytes += bytes;
        self.free_at = self.free_at.max(Some(until));
    }

    pub(super) fn add(&mut self, moved: &MovedTotals) {
        self.moved_bytes += moved.bytes;
        self.written += moved.packs;
        self.written_bytes += moved.pack_bytes;
        self.index_written += moved.index_objects;
    }
}
