//! Which snapshots are to be copied: a pure decision over what both repositories list.

use std::collections::HashMap;

use crate::clock::Timestamp;
use crate::format::snapshot::Origin;
use crate::format::tree::TreeRef;
use crate::id::{RepositoryId, SnapshotId};
use crate::ops::snapshots::SnapshotInfo;
use crate::retention::Group;

/// Why a snapshot is copied, or is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is to be copied.
    Copy,
    /// It is there already.
    There {
        /// Its name there.
        copy: SnapshotId,
        /// Entries that an earlier copy had to leave out.
        missing: u64,
    },
    /// A mirror passes it by: a later one of the same job and machine was copied before. It may have been there and been
    /// forgotten under the mirror's own policy.
    Older,
    /// It was never confirmed, and may lack chunks.
    NotConfirmed,
}

/// A snapshot of the source, and what is to become of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    /// The snapshot.
    pub info: SnapshotInfo,
    /// What its copy is to say of where it came from.
    pub origin: Origin,
    /// What is to become of it.
    pub verdict: Verdict,
}

/// What a snapshot is called over the borders of repositories.
pub(super) type Name = (String, Vec<u8>, Vec<u8>);

/// A snapshot that the target has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) id: SnapshotId,
    pub(super) root: Option<TreeRef>,
    pub(super) missing: u64,
}

/// What the target has.
#[derive(Debug, Default)]
pub(super) struct There {
    held: HashMap<Name, Held>,
    /// The time of the newest snapshot that came from the source, of each job of each machine.
    newest: HashMap<Group, Timestamp>,
}

/// Where a snapshot is judged by.
pub(super) fn group_of(info: &SnapshotInfo) -> Group {
    Group { host: info.snapshot.host.clone(), job: info.snapshot.job.clone() }
}

/// Where a snapshot of a repository comes from: from there, unless it was brought there from elsewhere.
pub(super) fn origin_of(repository: RepositoryId, info: &SnapshotInfo) -> Origin {
    info.origin().cloned().unwrap_or_else(|| Origin {
        kind: Origin::COPY.to_owned(),
        repository: repository.as_bytes().to_vec(),
        snapshot: info.id.as_bytes().to_vec(),
        time: info.stored.0,
        missing: 0,
    })
}

fn name_of(origin: &Origin) -> Name {
    (origin.kind.clone(), origin.repository.clone(), origin.snapshot.clone())
}

impl There {
    /// Of the snapshots of `target`, whose confirmations are checked; `source` is where they may have come from. One that is
    /// forgotten counts as long as it is there.
    pub(super) fn new(target: RepositoryId, source: RepositoryId, snapshots: &[SnapshotInfo]) -> Self {
        let mut there = Self::default();
        for info in snapshots.iter().filter(|info| info.confirmed) {
            let origin = origin_of(target, info);
            if origin.kind == Origin::COPY && origin.repository == source.as_bytes() {
                let newest = there.newest.entry(group_of(info)).or_insert(Timestamp(i64::MIN));
                *newest = (*newest).max(Timestamp(origin.time));
            }
            let held = Held { id: info.id, root: info.snapshot.root, missing: origin.missing };
            let known = there.held.entry(name_of(&origin)).or_insert(held);
            if held.missing < known.missing {
                *known = held;
            }
        }
        there
    }

    /// What there is of a snapshot from there.
    pub(super) fn get(&self, origin: &Origin) -> Option<&Held> {
        self.held.get(&name_of(origin))
    }
}

/// What decides beside the snapshots themselves.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wishes {
    /// Only what is newer than what was copied before.
    pub(super) mirror: bool,
    /// Those again whose copy lacks something.
    pub(super) again: bool,
}

/// Judges snapshots of the source, whose confirmations are checked; they keep their order.
pub(super) fn judge(
    source: RepositoryId,
    snapshots: Vec<SnapshotInfo>,
    there: &There,
    wishes: Wishes,
) -> Vec<Planned> {
    let verdict = |info: &SnapshotInfo, origin: &Origin| match there.get(origin) {
        Some(held) if held.missing <= origin.missing || !wishes.again => {
            Verdict::There { copy: held.id, missing: held.missing }
        }
        Some(_) => Verdict::Copy,
        None if !info.confirmed => Verdict::NotConfirmed,
        None if wishes.mirror && !info.brought && there.has_newer(info) => Verdict::Older,
        None => Verdict::Copy,
    };
    let planned = snapshots.into_iter().map(|info| {
        let origin = origin_of(source, &info);
        Planned { verdict: verdict(&info, &origin), info, origin }
    });
    planned.collect()
}

impl There {
    /// Whether a later one was copied. Of two that a store got at the same moment, by a clock that counts seconds, neither is
    /// later: the one that is not there may never have been.
    fn has_newer(&self, info: &SnapshotInfo) -> bool {
        self.newest.get(&group_of(info)).is_some_and(|newest| *newest > info.stored)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::snapshot::Snapshot;
    use crate::id::WriterId;

    const A: RepositoryId = RepositoryId::new([0xa; 16]);
    const B: RepositoryId = RepositoryId::new([0xb; 16]);

    fn info(number: u8, job: &str) -> SnapshotInfo {
        SnapshotInfo {
            id: SnapshotId::new([number; 32]),
            writer: WriterId::new([1; 16]),
            sequence: number.into(),
            confirmed: true,
            has_confirmation: true,
            stored: Timestamp(i64::from(number) * 100),
            brought: false,
            forgotten: None,
            labels: None,
            snapshot: Snapshot { job: job.into(), ..Snapshot::empty() },
        }
    }

    /// The copy of a snapshot, as it stands in the target.
    fn copied(from: &SnapshotInfo, number: u8, missing: u64) -> SnapshotInfo {
        let origin = Origin { missing, ..origin_of(A, from) };
        let snapshot = Snapshot { origin: Some(origin), ..from.snapshot.clone() };
        SnapshotInfo { brought: true, snapshot, ..info(number, "") }
    }

    fn verdicts(source: &[SnapshotInfo], target: &[SnapshotInfo], wishes: Wishes) -> Vec<Verdict> {
        let there = There::new(B, A, target);
        judge(A, source.to_vec(), &there, wishes).into_iter().map(|planned| planned.verdict).collect()
    }

    const PLAIN: Wishes = Wishes { mirror: false, again: false };
    const MIRROR: Wishes = Wishes { mirror: true, again: false };

    #[test]
    fn what_is_there_is_passed_by_and_a_mirror_goes_only_forward() {
        let source: Vec<_> = (1..=4).map(|n| info(n, "j")).chain([info(1, "other")]).collect();
        let source =
            [&source[..4], &[SnapshotInfo { id: SnapshotId::new([9; 32]), ..source[4].clone() }]].concat();
        let target = [copied(&source[1], 50, 0)];
        let there = Verdict::There { copy: target[0].id, missing: 0 };
        use Verdict::{Copy, Older};
        assert_eq!(verdicts(&source, &[], MIRROR), [Copy; 5], "an empty mirror takes all");
        assert_eq!(verdicts(&source, &target, PLAIN), [Copy, there, Copy, Copy, Copy]);
        assert_eq!(verdicts(&source, &target, MIRROR), [Older, there, Copy, Copy, Copy]);
        // Stored within the same second as what was copied, perhaps after that was done.
        let twin = SnapshotInfo { id: SnapshotId::new([8; 32]), ..source[1].clone() };
        assert_eq!(verdicts(&[twin], &target, MIRROR), [Copy]);
        // Another tool's repository that calls itself as the source is not the source.
        let mut foreign = target.clone();
        foreign[0].snapshot.origin.as_mut().unwrap().kind = "restic".into();
        assert_eq!(verdicts(&source[..1], &foreign, MIRROR), [Copy]);
        // What was imported into the source has an old time, and is new all the same.
        let mut imported = source.clone();
        imported[0] = copied(&info(7, "j"), 1, 0);
        assert_eq!(verdicts(&imported, &target, MIRROR)[0], Copy);
    }

    #[test]
    fn a_copy_that_lacks_something_is_there_and_can_be_made_again() {
        let source = [info(1, "j")];
        let target = [copied(&source[0], 50, 3)];
        let partial = Verdict::There { copy: target[0].id, missing: 3 };
        assert_eq!(verdicts(&source, &target, PLAIN), [partial]);
        let again = Wishes { mirror: true, again: true };
        assert_eq!(verdicts(&source, &target, again), [Verdict::Copy]);
        let both = [copied(&source[0], 50, 3), copied(&source[0], 51, 0)];
        let whole = Verdict::There { copy: both[1].id, missing: 0 };
        assert_eq!(verdicts(&source, &both, again), [whole]);
    }

    #[test]
    fn what_came_from_the_target_does_not_go_back_to_it() {
        let original = info(1, "j");
        let there = There::new(A, B, std::slice::from_ref(&original));
        let planned = judge(B, vec![copied(&original, 50, 0)], &there, PLAIN);
        assert_eq!(planned[0].verdict, Verdict::There { copy: original.id, missing: 0 });
        assert_eq!(planned[0].origin.repository, A.as_bytes(), "the first origin stays");
    }

    #[test]
    fn an_origin_that_no_maintainer_signed_hides_nothing() {
        let source = [info(1, "j")];
        let forged = SnapshotInfo { brought: false, ..copied(&source[0], 50, 0) };
        assert_eq!(verdicts(&source, &[forged], MIRROR), [Verdict::Copy]);
        let open = SnapshotInfo { confirmed: false, ..copied(&source[0], 50, 0) };
        assert_eq!(verdicts(&source, &[open], PLAIN), [Verdict::Copy]);
        let unconfirmed = [SnapshotInfo { confirmed: false, ..info(1, "j") }];
        assert_eq!(verdicts(&unconfirmed, &[], PLAIN), [Verdict::NotConfirmed]);
    }
}
