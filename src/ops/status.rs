//! How it stands: for each job its last confirmed snapshot, and what of it misses an objective.
//!
//! # Invariants
//! Only what a confirmation proves counts. A job of which nothing is confirmed is there, and misses every objective: what did
//! not run must not look like what has nothing to say.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use super::ledger::{Coverage, Ledger, RunEnd, stored};
use super::lock::{Protection, protection};
use super::snapshots::{SnapshotFilter, SnapshotInfo, list_checked};
use crate::class::Class;
use crate::clock::Timestamp;
use crate::error::Error;
use crate::format::ledger::Look;
use crate::id::SnapshotId;
use crate::repo::Repository;

/// How many snapshots before the last one say how large a job is.
const COMPARED: usize = 7;

/// What a person wants to be true of every job.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Objectives {
    /// The last confirmed snapshot is not older than this.
    pub max_age: Option<Duration>,
    /// The last confirmed snapshot has at least so many thousandths of what the job had before: the median of up to seven.
    pub min_size: Option<u64>,
}

/// One job of one machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobStatus {
    /// The machine; raw bytes.
    pub host: Vec<u8>,
    /// The job; raw bytes.
    pub job: Vec<u8>,
    /// Its last confirmed snapshot that nobody forgot.
    pub last: Option<SnapshotInfo>,
    /// Bytes that are usual: the median of up to seven confirmed snapshots before the last one.
    pub usual: Option<u64>,
    /// Confirmed snapshots that nobody forgot.
    pub snapshots: usize,
    /// Of these, those on which a hold stands.
    pub held: usize,
    /// Snapshots that are newer than the last confirmed one and are not confirmed: runs that failed at the end, or go on.
    pub open: usize,
}

/// An objective that a job misses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Miss {
    /// Nothing of the job is confirmed.
    Never,
    /// The last snapshot is so old.
    Age(Duration),
    /// The last snapshot has so many bytes where so many are usual.
    Size {
        /// Those of the last one.
        bytes: u64,
        /// Those that are usual.
        usual: u64,
    },
}

impl JobStatus {
    /// How old its last snapshot is; one of the future is new.
    pub fn age(&self, now: Timestamp) -> Option<Duration> {
        let last = self.last.as_ref()?.counted();
        Some(Duration::from_nanos(u64::try_from(now.0.saturating_sub(last.0)).unwrap_or(0)))
    }

    /// The objectives that it misses.
    pub fn misses(&self, objectives: &Objectives, now: Timestamp) -> Vec<Miss> {
        let (Some(last), Some(age)) = (&self.last, self.age(now)) else {
            let asked = objectives.max_age.is_some() || objectives.min_size.is_some();
            return if asked { vec![Miss::Never] } else { Vec::new() };
        };
        let bytes = last.snapshot.totals.bytes;
        let old = objectives.max_age.filter(|most| age > *most).map(|_| Miss::Age(age));
        let small = objectives.min_size.zip(self.usual).and_then(|(least, usual)| {
            let small = u128::from(bytes) * 1000 < u128::from(usual) * u128::from(least);
            small.then_some(Miss::Size { bytes, usual })
        });
        old.into_iter().chain(small).collect()
    }
}

/// What locks protect, as far as this key can know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protected {
    /// Nothing is locked here.
    Unlocked,
    /// This key cannot see what snapshots need.
    Unknown,
    /// Until when.
    Until(Protection),
}

/// How a repository stands.
#[derive(Debug)]
pub struct Status {
    /// When this was found out, by this machine's clock.
    pub now: Timestamp,
    /// Every job, by host and name.
    pub jobs: Vec<JobStatus>,
    /// For how long the store keeps what confirmed snapshots need.
    pub protected: Protected,
    /// The last verification of content that came to its end.
    pub verified: Option<RunEnd>,
    /// How much of the content was opened and checked, if that was asked for, or if some of it is known to be damaged.
    pub coverage: Option<Coverage>,
    /// Snapshots that this key does not open and this machine did not make.
    pub closed: u64,
    /// Snapshots that cannot be read, by key.
    pub unreadable: Vec<(String, Error)>,
}

impl Status {
    /// For how long something waits to be opened and checked, if that is longer than it may, or something is known to be damaged.
    pub fn unverified(&self, within: Duration) -> Option<Duration> {
        let coverage = self.coverage.filter(|coverage| coverage.objects > 0)?;
        let age = coverage.age(self.now);
        (age > within || coverage.damaged > 0).then_some(age)
    }
}

/// Finds out how the jobs that match stand, with any key: one that does not open snapshots sees those of this machine's runs.
/// `covered` asks how much of the content was verified, which takes a listing of all of it.
pub async fn status(repo: &Repository, filter: &SnapshotFilter, covered: bool) -> Result<Status, Error> {
    let found = list_checked(repo, filter).await?;
    let now = repo.env().clock.now();
    let holds = repo.holds().await?;
    let stands = |until: Option<i64>| until.is_none_or(|until| now.0 < until);
    let held = holds.iter().filter(|stored| stands(stored.hold.until));
    let held: HashSet<SnapshotId> = held.flat_map(|stored| stored.hold.snapshots.iter().copied()).collect();
    let protected = match protection(repo).await {
        Ok(None) => Protected::Unlocked,
        Ok(Some(protection)) => Protected::Until(protection),
        Err(error) if error.class() == Class::Denied => Protected::Unknown,
        Err(error) => return Err(error),
    };
    let ledger = match Ledger::read(repo).await {
        Err(error) if error.class() == Class::Denied => Ledger::new(now),
        read => read?,
    };
    let verified = ledger.ends(Look::Read).next_back().copied();
    // A run that found damage may not have come to its end.
    let coverage = match covered || ledger.knows_damage() {
        true => Some(ledger.coverage(&stored(repo).await?, Look::Opened)),
        false => None,
    };
    let jobs = jobs(found.snapshots, &held);
    let (closed, unreadable) = (found.closed, found.unreadable);
    Ok(Status { now, jobs, protected, verified, coverage, closed, unreadable })
}

/// Snapshots, oldest first, by the jobs that they are of.
fn jobs(snapshots: Vec<SnapshotInfo>, held: &HashSet<SnapshotId>) -> Vec<JobStatus> {
    let mut by_job: BTreeMap<(Vec<u8>, Vec<u8>), Vec<SnapshotInfo>> = BTreeMap::new();
    for info in snapshots.into_iter().filter(|info| info.forgotten.is_none()) {
        let job = (info.snapshot.host.clone(), info.snapshot.job.clone());
        by_job.entry(job).or_default().push(info);
    }
    let of = |((host, job), mut all): ((Vec<u8>, Vec<u8>), Vec<SnapshotInfo>)| {
        let open = all.iter().rev().take_while(|info| !info.confirmed).count();
        all.retain(|info| info.confirmed);
        let sizes = all.iter().rev().skip(1).take(COMPARED).map(|info| info.snapshot.totals.bytes);
        let usual = median(sizes.collect());
        let (snapshots, held) = (all.len(), all.iter().filter(|info| held.contains(&info.id)).count());
        JobStatus { host, job, last: all.pop(), usual, snapshots, held, open }
    };
    by_job.into_iter().map(of).collect()
}

/// The one in the middle; of an even number the lower one of both.
fn median(mut sizes: Vec<u64>) -> Option<u64> {
    sizes.sort_unstable();
    sizes.get(sizes.len().saturating_sub(1) / 2).copied()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use object_store::memory::InMemory;
    use proptest::prelude::*;

    use super::*;
    use crate::ops::hold::{Until, hold};
    use crate::ops::snapshots::list;
    use crate::ops::testing::{env, new_repository, put_snapshot};

    const HOUR: Duration = Duration::from_secs(3600);

    async fn some(sizes: &[u64]) -> (Repository, Vec<SnapshotInfo>) {
        let repo = new_repository(Arc::new(InMemory::new()), env()).await;
        for (number, bytes) in sizes.iter().enumerate() {
            put_snapshot(&repo, number as u64, |snapshot| snapshot.totals.bytes = *bytes).await;
        }
        let found = list(&repo, &SnapshotFilter::default()).await.unwrap().snapshots;
        (repo, found)
    }

    #[tokio::test]
    async fn each_job_is_known_by_its_last_confirmed_snapshot() {
        let (repo, mut found) = some(&[100, 300, 200, 50, 1]).await;
        found[4].confirmed = false;
        found[0].snapshot.host = b"other".to_vec();
        let held = [found[2].id].into();
        let found = jobs(found, &held);
        let job = found.iter().find(|job| job.host != b"other").unwrap();
        assert_eq!((job.snapshots, job.held, job.open, job.usual), (3, 1, 1, Some(200)));
        assert_eq!(job.last.as_ref().unwrap().snapshot.totals.bytes, 50);
        let other = found.iter().find(|job| job.host == b"other").unwrap();
        assert_eq!((other.snapshots, other.usual), (1, None));

        let all = list(&repo, &SnapshotFilter::default()).await.unwrap().snapshots;
        hold(&repo, &all[..1], Until::Removed, &jiff::tz::TimeZone::UTC).await.unwrap();
        let status = status(&repo, &SnapshotFilter::default(), true).await.unwrap();
        assert_eq!((status.jobs.len(), status.jobs[0].held, status.protected), (1, 1, Protected::Unlocked));
    }

    #[tokio::test]
    async fn what_is_old_or_small_or_never_came_misses_an_objective() {
        let (_, found) = some(&[1000, 1000, 899]).await;
        let stored = found[2].stored;
        let job = jobs(found, &HashSet::new()).remove(0);
        let at = |hours: u64| Timestamp(stored.0 + i64::try_from((HOUR * hours as u32).as_nanos()).unwrap());
        let age = Objectives { max_age: Some(HOUR * 26), min_size: None };
        assert_eq!(job.misses(&age, at(26)), []);
        assert_eq!(job.misses(&age, at(27)), [Miss::Age(HOUR * 27)]);
        assert_eq!(job.misses(&age, Timestamp(0)), [], "the clock of this machine may be behind");
        let size = |least| Objectives { max_age: None, min_size: Some(least) };
        assert_eq!(job.misses(&size(900), at(1)), [Miss::Size { bytes: 899, usual: 1000 }]);
        assert_eq!(job.misses(&size(899), at(1)), []);
        let never = JobStatus { last: None, ..job };
        assert_eq!(never.misses(&age, at(1)), [Miss::Never]);
        assert_eq!(never.misses(&Objectives::default(), at(1)), []);
    }

    proptest! {
        #[test]
        fn what_is_usual_is_one_of_those_before_and_half_are_not_smaller(sizes in prop::collection::vec(any::<u64>(), 0..20)) {
            let found = median(sizes.clone());
            prop_assert_eq!(found.is_none(), sizes.is_empty());
            if let Some(found) = found {
                prop_assert!(sizes.contains(&found));
                let not_smaller = sizes.iter().filter(|size| **size >= found).count();
                prop_assert!(not_smaller * 2 >= sizes.len());
            }
        }
    }
}
