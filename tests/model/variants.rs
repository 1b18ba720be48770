//! Protocols that leave something out. Each one loses data, and the model must notice.

use crate::checker::{CHECKED, COUNTED, KEPT, RESTORABLE, Revoked};

/// What is left out, or done in the wrong order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Variant {
    /// The protocol itself.
    Whole,
    /// The writer acknowledges without a check.
    NoCheck,
    /// The writer checks before its snapshot is stored.
    CheckBeforeSnapshot,
    /// The collector does not list snapshots again after condemning.
    NoSecondList,
    /// Condemnations are removed, and the writer does not look at the horizon.
    NoHorizon,
    /// The condemnation is removed before the horizon moves.
    RecordBeforeHorizon,
    /// The writer's check reads the horizon first and condemnations second.
    HorizonBeforeCondemned,
    /// The collector lists packs before condemnations.
    PacksBeforeCondemned,
    /// A listing may leave out a snapshot that was stored.
    StaleListing,
    /// The writer believes index objects without listing packs.
    NoPackListing,
    /// The same, and superseded index objects are deleted only after the horizon has moved.
    IndexAfterHorizon,
    /// The snapshot is deleted before holds and undos are listed.
    DeleteBeforeHolds,
    /// The removal record is written after holds and undos were listed.
    RemovalAfterHolds,
    /// The removal record is removed before the snapshot is deleted.
    RemovalDroppedEarly,
    /// Nobody waits for the deletion of a snapshot to be durable.
    NoSync,
    /// Only the one who deletes a snapshot waits for it to be durable.
    SyncByRemoverAlone,
    /// A snapshot with a tomb counts as removed already.
    TombIsNoRoot,
    /// Hold and undelete report success without a look.
    KeepWithoutLook,
    /// Hold and undelete look at the snapshot first and at removal records second.
    KeepLooksBackwards,
    /// Hold and undelete look only whether the snapshot is there.
    KeepIgnoresRemoval,
    /// Removal records are folded while the snapshot that they name is there.
    FoldsWhatIsThere,
    /// A pack that no index object names counts as another copy.
    UnnamedCopy,
    /// A condemned pack counts as another copy.
    CondemnedCopy,
    /// The collector deletes before the index names what it moved.
    MoveWithoutIndex,
    /// An index object is deleted before the one that supersedes it is stored.
    ReplacementAfterDelete,
    /// The number of the next horizon is taken before the deletions.
    HorizonListedEarly,
    /// A writer with a cached pack listing believes every index object that is newer.
    CacheBelievesAll,
    /// An index object that replaces others names the horizon its author saw, and not the oldest that they name.
    MergeNamesOwnHorizon,
    /// The writer acknowledges although it could not heal.
    AcknowledgeUnhealed,
    /// The writer repeats its check and forgets that a chunk had no pack left.
    ForgetsLost,
    /// The writer heals with a copy in any pack of the index, present or not.
    HealsFromIndexAlone,
    /// The writer does not read the registry before it confirms.
    NoRereadByWriter,
    /// It does, and takes *about to be revoked* for nothing.
    ClosingIgnored,
    /// The collector does not read the registry after it looked, and deletes.
    NoRereadAfterLook,
    /// The collector does not read the registry before it deletes the index objects that its own replace.
    NoRereadBeforeIndexGoes,
    /// Who revokes lists once, before the first entry.
    OneList,
}

impl Variant {
    /// Somebody takes a pack from the index, and uses it without listing packs after that.
    pub fn uses_without_listing(self) -> bool {
        matches!(
            self,
            Self::NoPackListing
                | Self::IndexAfterHorizon
                | Self::HealsFromIndexAlone
                | Self::PacksBeforeCondemned
        )
    }
}

/// A variant, the smallest configuration that shows its fault, and the promise that it breaks.
pub struct Broken {
    pub variant: Variant,
    pub writers: usize,
    pub collectors: usize,
    /// With removal, hold, undelete and a power cut.
    pub removal: bool,
    /// With pack listings of an earlier run.
    pub cached: bool,
    /// Who is revoked.
    pub revoked: Revoked,
    pub promise: &'static str,
}

const fn loses(variant: Variant, writers: usize, collectors: usize) -> Broken {
    Broken {
        variant,
        writers,
        collectors,
        removal: false,
        cached: false,
        revoked: Revoked::Nobody,
        promise: RESTORABLE,
    }
}

const fn removal(variant: Variant, collectors: usize, promise: &'static str) -> Broken {
    Broken {
        variant,
        writers: 0,
        collectors,
        removal: true,
        cached: false,
        revoked: Revoked::Nobody,
        promise,
    }
}

const fn revoking(variant: Variant, (writers, revoked): (usize, Revoked), promise: &'static str) -> Broken {
    Broken { revoked, promise, ..loses(variant, writers, 1) }
}

/// All of them.
pub const BROKEN: &[Broken] = &[
    loses(Variant::NoCheck, 1, 1),
    Broken { promise: CHECKED, ..loses(Variant::NoCheck, 1, 1) },
    loses(Variant::CheckBeforeSnapshot, 1, 1),
    loses(Variant::NoSecondList, 1, 1),
    loses(Variant::NoHorizon, 1, 1),
    loses(Variant::RecordBeforeHorizon, 1, 1),
    loses(Variant::HorizonBeforeCondemned, 1, 1),
    loses(Variant::PacksBeforeCondemned, 1, 2),
    loses(Variant::StaleListing, 1, 1),
    loses(Variant::NoPackListing, 1, 2),
    loses(Variant::IndexAfterHorizon, 1, 1),
    removal(Variant::DeleteBeforeHolds, 1, KEPT),
    removal(Variant::RemovalAfterHolds, 1, KEPT),
    removal(Variant::RemovalDroppedEarly, 1, KEPT),
    removal(Variant::NoSync, 1, RESTORABLE),
    removal(Variant::SyncByRemoverAlone, 2, RESTORABLE),
    removal(Variant::TombIsNoRoot, 1, KEPT),
    removal(Variant::KeepWithoutLook, 1, KEPT),
    removal(Variant::KeepLooksBackwards, 1, KEPT),
    removal(Variant::KeepIgnoresRemoval, 1, KEPT),
    removal(Variant::FoldsWhatIsThere, 1, KEPT),
    loses(Variant::UnnamedCopy, 1, 1),
    loses(Variant::CondemnedCopy, 1, 2),
    loses(Variant::MoveWithoutIndex, 1, 1),
    loses(Variant::ReplacementAfterDelete, 1, 1),
    loses(Variant::HorizonListedEarly, 1, 2),
    Broken { cached: true, ..loses(Variant::CacheBelievesAll, 1, 1) },
    Broken { cached: true, ..loses(Variant::MergeNamesOwnHorizon, 1, 1) },
    loses(Variant::AcknowledgeUnhealed, 1, 1),
    loses(Variant::ForgetsLost, 1, 1),
    loses(Variant::HealsFromIndexAlone, 1, 2),
    revoking(Variant::NoRereadByWriter, (1, Revoked::Writer), COUNTED),
    revoking(Variant::NoRereadByWriter, (2, Revoked::Writer), RESTORABLE),
    revoking(Variant::ClosingIgnored, (1, Revoked::Writer), COUNTED),
    revoking(Variant::ClosingIgnored, (2, Revoked::Writer), RESTORABLE),
    revoking(Variant::NoRereadAfterLook, (1, Revoked::Writer), RESTORABLE),
    revoking(Variant::NoRereadAfterLook, (1, Revoked::Collector), RESTORABLE),
    revoking(Variant::NoRereadBeforeIndexGoes, (0, Revoked::Collector), RESTORABLE),
    revoking(Variant::OneList, (1, Revoked::Writer), COUNTED),
];
