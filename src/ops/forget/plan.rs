//! What will be forgotten, and why: a value that `--dry-run` shows and the real run applies.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, HashSet};

use jiff::tz::TimeZone;

use super::recovery::Recovery;
use crate::clock::Timestamp;
use crate::error::Error;
use crate::format::gc::TombReason;
use crate::id::{ObjectHash, SnapshotId, WriterId};
use crate::ops::snapshots::{SnapshotFilter, SnapshotInfo};
use crate::repo::{Listed, StoredTomb};
use crate::retention::{Candidate, Group, Policy, Reason};

/// A snapshot that is not confirmed after this long, by the store's clock, may be forgotten as such: 30 days.
pub const UNCONFIRMED_AGE: i64 = 30 * 86_400_000_000_000;

/// What becomes of one snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// It is kept, for all of these reasons.
    Keep(Vec<Reason>),
    /// It is forgotten.
    Forget(TombReason),
    /// It was forgotten before.
    Forgotten(StoredTomb),
}

/// One snapshot of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    /// The snapshot.
    pub info: SnapshotInfo,
    /// What becomes of it.
    pub fate: Fate,
}

/// What is to be forgotten.
#[derive(Debug)]
pub struct ForgetPlan {
    /// The store's time when the plan was made, as near as it is known.
    pub now: Timestamp,
    /// The snapshots that were judged, newest first, by machine and job.
    pub groups: BTreeMap<Group, Vec<Planned>>,
    /// Snapshots that cannot be read and that somebody named by their whole ids.
    pub unread: Vec<(Listed, Fate)>,
    /// What it does to database clusters; only if it forgets base backups, or is only shown.
    pub recovery: Vec<Recovery>,
    /// Snapshots and labels that could not be read, by key; they are left alone.
    pub unreadable: Vec<(String, Error)>,
}

impl ForgetPlan {
    /// Keeps these after all, if a policy would forget them.
    pub(super) fn keep(&mut self, needed: &HashSet<SnapshotId>) {
        for planned in self.groups.values_mut().flatten().filter(|planned| needed.contains(&planned.info.id))
        {
            match &mut planned.fate {
                Fate::Forget(TombReason::Policy) => planned.fate = Fate::Keep(vec![Reason::Recovery]),
                Fate::Keep(reasons) => reasons.push(Reason::Recovery),
                Fate::Forget(_) | Fate::Forgotten(_) => {}
            }
        }
    }

    /// All snapshots of the plan.
    pub fn snapshots(&self) -> impl Iterator<Item = &Planned> {
        self.groups.values().flatten()
    }

    /// The tombs that this plan puts: writer, number and id of a snapshot, and the reason.
    pub fn tombs(&self) -> impl Iterator<Item = ((WriterId, u64, SnapshotId), TombReason)> {
        let read = self.dropped().map(|(info, reason)| ((info.writer, info.sequence, info.id), reason));
        let unread = self.unread.iter().filter_map(|(listed, fate)| match fate {
            Fate::Forget(reason) => Some(((listed.writer, listed.sequence, listed.id), *reason)),
            Fate::Keep(_) | Fate::Forgotten(_) => None,
        });
        read.chain(unread)
    }

    /// Those that can be read and that this plan forgets, with the reason.
    pub fn dropped(&self) -> impl Iterator<Item = (&SnapshotInfo, TombReason)> {
        self.snapshots().filter_map(|planned| match planned.fate {
            Fate::Forget(reason) => Some((&planned.info, reason)),
            Fate::Keep(_) | Fate::Forgotten(_) => None,
        })
    }
}

/// Where a snapshot belongs.
pub(super) fn group_of(info: &SnapshotInfo) -> Group {
    Group { host: info.snapshot.host.clone(), job: info.snapshot.job.clone() }
}

/// What is known when a plan is made.
pub(super) struct World<'a> {
    /// Every snapshot, with its confirmation checked.
    pub(super) all: &'a [SnapshotInfo],
    /// The holds that stand.
    pub(super) held: &'a HashMap<SnapshotId, ObjectHash>,
    /// The store's time.
    pub(super) now: Timestamp,
}

impl World<'_> {
    /// Snapshots by a policy; those that the filter leaves out or that are forgotten already are not part of the plan.
    pub(super) fn by_policy(
        &self,
        policy: &Policy,
        (filter, unconfirmed): (&SnapshotFilter, bool),
        zone: &TimeZone,
    ) -> BTreeMap<Group, Vec<Planned>> {
        let counts = |info: &&SnapshotInfo| info.forgotten.is_none() && filter.matches(&info.snapshot);
        let by_id: HashMap<_, _> = self.all.iter().filter(counts).map(|info| (info.id, info)).collect();
        let candidates: Vec<_> = by_id.values().map(|info| self.candidate(info)).collect();
        let mut groups = BTreeMap::new();
        for (group, verdicts) in policy.judge(&candidates, self.now, zone) {
            let planned = verdicts.into_iter().filter_map(|verdict| {
                let info = *by_id.get(&verdict.id)?;
                let fate = match verdict.reasons {
                    _ if unconfirmed && self.is_stale(info) => Fate::Forget(TombReason::Unconfirmed),
                    reasons if reasons.is_empty() => Fate::Forget(TombReason::Policy),
                    reasons => Fate::Keep(reasons),
                };
                Some(Planned { info: info.clone(), fate })
            });
            groups.insert(group.clone(), planned.collect());
        }
        groups
    }

    /// Snapshots that somebody named.
    ///
    /// # Errors
    /// [`Error::Held`] for one with a hold.
    pub(super) fn named(&self, named: Vec<SnapshotInfo>) -> Result<BTreeMap<Group, Vec<Planned>>, Error> {
        let mut groups: BTreeMap<_, Vec<Planned>> = BTreeMap::new();
        for info in named {
            let fate = match (self.held.get(&info.id), info.forgotten) {
                (_, Some(tomb)) => Fate::Forgotten(tomb),
                (Some(hold), None) => return Err(Error::Held { snapshot: info.id, hold: *hold }),
                (None, None) => Fate::Forget(TombReason::Named),
            };
            groups.entry(group_of(&info)).or_default().push(Planned { info, fate });
        }
        for planned in groups.values_mut() {
            planned.sort_by_key(|planned| Reverse(planned.info.age()));
        }
        Ok(groups)
    }

    /// Snapshots that cannot be read, which somebody named by their whole ids; with the tombs that stand.
    ///
    /// # Errors
    /// [`Error::Held`] for one with a hold.
    pub(super) fn unread(
        &self,
        named: Vec<Listed>,
        tombs: &HashMap<SnapshotId, StoredTomb>,
    ) -> Result<Vec<(Listed, Fate)>, Error> {
        let fate = |listed: Listed| match (self.held.get(&listed.id), tombs.get(&listed.id)) {
            (_, Some(tomb)) => Ok((listed, Fate::Forgotten(*tomb))),
            (Some(hold), None) => Err(Error::Held { snapshot: listed.id, hold: *hold }),
            (None, None) => Ok((listed, Fate::Forget(TombReason::Named))),
        };
        named.into_iter().map(fate).collect()
    }

    /// The groups that would lose their last confirmed snapshot.
    pub(super) fn emptied(&self, plan: &ForgetPlan) -> Vec<Group> {
        let dropped: HashSet<_> = plan.dropped().map(|(info, _)| info.id).collect();
        let mut left: BTreeMap<Group, (u64, u64)> = BTreeMap::new();
        for info in self.all.iter().filter(|info| info.confirmed && info.forgotten.is_none()) {
            let (lost, kept) = left.entry(group_of(info)).or_default();
            *(if dropped.contains(&info.id) { lost } else { kept }) += 1;
        }
        left.into_iter().filter(|(_, (lost, kept))| *lost > 0 && *kept == 0).map(|(group, _)| group).collect()
    }

    fn candidate(&self, info: &SnapshotInfo) -> Candidate {
        let duration = i64::try_from(info.snapshot.duration).unwrap_or(i64::MAX);
        let (began, brought) = (info.snapshot.time, info.brought.then(|| info.counted()));
        let finished = began.saturating_add(duration);
        Candidate {
            id: info.id,
            place: (info.writer, info.sequence),
            group: group_of(info),
            stored: info.stored,
            // Another tool says when a run began, not when its store got the snapshot: any moment of the run fits.
            claimed: Timestamp(brought.map_or(finished, |time| time.0.clamp(began, finished))),
            brought,
            tags: info.snapshot.tags.clone(),
            confirmed: info.confirmed,
            held: self.held.contains_key(&info.id),
        }
    }

    /// Whether nobody will confirm it any more. One whose confirmation is damaged was confirmed once.
    fn is_stale(&self, info: &SnapshotInfo) -> bool {
        let age = self.now.0.saturating_sub(info.stored.0);
        let open = !info.confirmed && !info.has_confirmation;
        open && !self.held.contains_key(&info.id) && age > UNCONFIRMED_AGE
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::snapshot::Snapshot;
    use crate::retention::{Every, Limit};

    const HOUR: i64 = 3_600_000_000_000;
    const NOW: Timestamp = Timestamp(1_800_000_000_000_000_000);

    fn info(number: u8, host: &str, age: i64) -> SnapshotInfo {
        let stored = Timestamp(NOW.0 - age);
        let snapshot =
            Snapshot { time: stored.0, host: host.into(), job: b"j".to_vec(), ..Snapshot::empty() };
        SnapshotInfo {
            id: SnapshotId::new([number; 32]),
            writer: WriterId::new([1; 16]),
            sequence: u64::from(number),
            confirmed: true,
            has_confirmation: true,
            stored,
            brought: false,
            forgotten: None,
            labels: None,
            snapshot,
        }
    }

    fn tomb(info: &SnapshotInfo) -> StoredTomb {
        let tomb = crate::format::gc::Tomb {
            author: info.writer,
            writer: info.writer,
            sequence: info.sequence,
            snapshot: info.id,
            reason: TombReason::Named,
            nonce: [0; 16],
        };
        StoredTomb { hash: ObjectHash::new([9; 32]), tomb, stored: NOW }
    }

    fn dropped(groups: BTreeMap<Group, Vec<Planned>>) -> (ForgetPlan, Vec<u8>) {
        let plan =
            ForgetPlan { now: NOW, groups, unread: Vec::new(), recovery: Vec::new(), unreadable: Vec::new() };
        let mut numbers: Vec<_> = plan.dropped().map(|(info, _)| info.id.as_bytes()[0]).collect();
        numbers.sort_unstable();
        (plan, numbers)
    }

    fn last(count: u32) -> Policy {
        Policy::new().keep(Every::Snapshot, Limit::Count(count))
    }

    #[test]
    fn what_is_forgotten_or_left_out_takes_no_place_of_another() {
        let mut all: Vec<_> = (1..=5).map(|n| info(n, "a", i64::from(n) * HOUR)).collect();
        all[0].forgotten = Some(tomb(&all[0]));
        all[4].snapshot.tags = vec!["x".into()];
        let held = HashMap::new();
        let world = World { all: &all, held: &held, now: NOW };
        let none = SnapshotFilter::default();
        let (plan, numbers) = dropped(world.by_policy(&last(2), (&none, false), &TimeZone::UTC));
        assert_eq!(
            (numbers, plan.snapshots().count()),
            (vec![4, 5], 4),
            "1 is forgotten, so 2 and 3 are kept"
        );
        let tagged = SnapshotFilter { tags: vec!["x".into()], ..SnapshotFilter::default() };
        let (_, numbers) = dropped(world.by_policy(&last(1), (&tagged, false), &TimeZone::UTC));
        assert!(numbers.is_empty());
    }

    #[test]
    fn holds_win_over_policies_and_over_names() {
        let all: Vec<_> = (1..=3).map(|n| info(n, "a", i64::from(n) * HOUR)).collect();
        let held = HashMap::from([(all[2].id, ObjectHash::new([7; 32]))]);
        let world = World { all: &all, held: &held, now: NOW };
        let groups = world.by_policy(&last(1), (&SnapshotFilter::default(), false), &TimeZone::UTC);
        assert_eq!(dropped(groups).1, [2]);
        assert!(world.named(vec![all[1].clone()]).is_ok());
        let refused = world.named(all.clone());
        assert!(matches!(refused, Err(Error::Held { snapshot, .. }) if snapshot == all[2].id));
    }

    #[test]
    fn the_last_confirmed_snapshot_of_a_group_is_missed() {
        let mut all =
            vec![info(1, "a", HOUR), info(2, "a", 2 * HOUR), info(3, "b", HOUR), info(4, "c", HOUR)];
        all[1].confirmed = false;
        all[3].confirmed = false;
        let held = HashMap::new();
        let world = World { all: &all, held: &held, now: NOW };
        let emptied = |named: &[usize]| {
            let named = named.iter().map(|at| all[*at].clone()).collect();
            let groups = world.emptied(&dropped(world.named(named).unwrap()).0);
            groups.into_iter().map(|group| String::from_utf8(group.host).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(emptied(&[0]), ["a"], "the one that is not confirmed does not count");
        assert_eq!(emptied(&[0, 2]), ["a", "b"]);
        assert!(emptied(&[1]).is_empty() && emptied(&[3]).is_empty(), "nothing that counts is lost");
    }

    #[test]
    fn only_old_snapshots_that_nobody_confirmed_go_as_such() {
        let mut all =
            vec![info(1, "a", HOUR), info(2, "a", UNCONFIRMED_AGE), info(3, "a", UNCONFIRMED_AGE + 1)];
        all.push(info(4, "a", 2 * UNCONFIRMED_AGE));
        for info in &mut all[..3] {
            (info.confirmed, info.has_confirmation) = (false, false);
        }
        let held = HashMap::new();
        let world = World { all: &all, held: &held, now: NOW };
        let none = SnapshotFilter::default();
        let (plan, numbers) = dropped(world.by_policy(&Policy::new(), (&none, true), &TimeZone::UTC));
        assert_eq!(numbers, [3]);
        assert!(plan.dropped().all(|(_, reason)| reason == TombReason::Unconfirmed));
        let (_, numbers) = dropped(world.by_policy(&last(1), (&none, false), &TimeZone::UTC));
        assert!(numbers.is_empty(), "retention leaves them alone");
    }
}
