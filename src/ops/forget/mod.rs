//! Forgetting snapshots: by a policy, by name, or because they were never confirmed.
//!
//! # Invariants
//! Nothing is deleted here. A forgotten snapshot gets a tomb; `prune` removes it once the tomb has stood for
//! an undo window, and until then an undo takes the tomb back. A hold wins over everything.
//!
//! # Crash
//! Some tombs are there, others are not; forgetting again puts the rest.

mod plan;
mod recovery;

pub use recovery::{End, Recovery, RecoveryRange};

pub use plan::{Fate, ForgetPlan, Planned, UNCONFIRMED_AGE};

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use jiff::tz::TimeZone;

use self::plan::World;
use self::recovery::{Asked, Known};
use crate::clock::Timestamp;
use crate::error::{BaseError, Error};
use crate::format::postgres::PostgresBackup;
use crate::id::{ClusterId, ObjectHash, SnapshotId};
use crate::ops::anchor::trusted;
use crate::ops::gc::PruneOptions;
use crate::ops::snapshots::{
    Selector, SnapshotFilter, SnapshotInfo, SnapshotList, check_confirmations, judge_unread, list, resolve_in,
};
use crate::repo::{Listed, RepoError, Repository};
use crate::retention::Policy;

/// What to forget.
#[derive(Debug, Clone)]
pub struct ForgetOptions {
    /// What to keep; without rules nothing is forgotten by it.
    pub policy: Policy,
    /// Selectors of snapshots to forget; then no policy is applied. One that cannot be read is named by its whole id.
    pub named: Vec<String>,
    /// Also those that were never confirmed and are older than [`UNCONFIRMED_AGE`].
    pub unconfirmed: bool,
    /// Which snapshots the policy is applied to, and what `latest` means.
    pub filter: SnapshotFilter,
    /// Whether a job of a machine may be left without a confirmed snapshot.
    pub allow_empty: bool,
    /// How far back every time is to be reachable that database clusters can be brought back to.
    pub keep_recovery: Option<Duration>,
    /// Whether less than that may be left, and no base backup of a cluster, and whether it need not be known what is left.
    pub allow_shorter: bool,
    /// Whether nothing may be stored, not even what asks for the store's time.
    pub dry_run: bool,
    /// When hours, days and weeks begin.
    pub zone: TimeZone,
}

impl ForgetOptions {
    /// Forgets nothing yet.
    pub fn new(zone: TimeZone) -> Self {
        Self {
            policy: Policy::new(),
            named: Vec::new(),
            unconfirmed: false,
            filter: SnapshotFilter::default(),
            allow_empty: false,
            keep_recovery: None,
            allow_shorter: false,
            dry_run: false,
            zone,
        }
    }
}

/// When a tomb that is put at `stored` may be honoured by a `prune` that is not told otherwise.
pub fn undelete_until(stored: Timestamp) -> Timestamp {
    let window = i64::try_from(PruneOptions::default().undo_window.as_nanos()).unwrap_or(i64::MAX);
    Timestamp(stored.0.saturating_add(window))
}

/// Says what would be forgotten, and why. Stores nothing that stays.
///
/// # Errors
/// [`Error::NothingToForget`], [`Error::NamedAndPolicy`]; [`Error::Held`] if a named snapshot is held;
/// [`Error::NothingLeft`], [`BaseError::Shortened`] and [`BaseError::Unclear`] unless that is allowed; [`RepoError::RoleForbids`] without a maintainer's key, except for a dry
/// run.
pub async fn plan_forget(repo: &Repository, options: &ForgetOptions) -> Result<ForgetPlan, Error> {
    let by_name = !options.named.is_empty();
    match (by_name, options.policy.is_empty(), options.unconfirmed) {
        (true, true, false) => {}
        (true, ..) => return Err(Error::NamedAndPolicy),
        (false, true, false) => return Err(Error::NothingToForget),
        (false, ..) => {}
    }
    if !options.dry_run {
        repo.maintainer()?;
    }
    // What is newest is not known where the store shows less than it did.
    let id = |selector: &String| matches!(Selector::parse(selector), Some(Selector::Id(_)));
    if !by_name || !options.named.iter().all(id) {
        trusted(repo)?;
    }
    let mut found = list(repo, &SnapshotFilter::default()).await?;
    check_confirmations(repo, &mut found.snapshots).await?;
    let (whole, named): (Vec<String>, Vec<String>) =
        options.named.iter().cloned().partition(|selector| found.unread_by_id(selector).is_some());
    let unread: Vec<Listed> = whole.iter().filter_map(|selector| found.take_unread(selector)).collect();
    judge_unread(repo, &mut found).await?;
    let named = resolve_in(&mut found, &named, &options.filter)?;
    let now = if options.dry_run { None } else { repo.store().time().await? };
    let now = now.unwrap_or_else(|| about_now(repo, &found));
    let held = standing_holds(repo, now).await?;
    let world = World { all: &found.snapshots, held: &held, now };
    let groups = match by_name {
        true => world.named(named)?,
        false => world.by_policy(&options.policy, (&options.filter, options.unconfirmed), &options.zone),
    };
    let tombs = repo.standing_tombs(&unread.iter().map(|listed| listed.id).collect()).await?;
    let unread = world.unread(unread, &tombs)?;
    let mut plan = ForgetPlan { now, groups, unread, recovery: Vec::new(), unreadable: Vec::new() };
    keep_recovery(repo, &world, (options, by_name), &mut plan).await?;
    let emptied = world.emptied(&plan);
    if !emptied.is_empty() && !options.allow_empty {
        return Err(Error::NothingLeft { groups: emptied });
    }
    plan.unreadable = found.unreadable;
    Ok(plan)
}

/// Takes out of the plan what the recovery of database clusters needs, or refuses if somebody named it; and says what they can be
/// brought back to. Asks only for archives of which there is a base backup to forget, unless somebody looks.
async fn keep_recovery(
    repo: &Repository,
    world: &World<'_>,
    (options, by_name): (&ForgetOptions, bool),
    plan: &mut ForgetPlan,
) -> Result<(), Error> {
    let of = |info: &SnapshotInfo| info.snapshot.postgres.as_ref().map(|base| base.cluster);
    let losing: HashSet<ClusterId> = plan.dropped().filter_map(|(info, _)| of(info)).collect();
    if !options.dry_run && losing.is_empty() {
        return Ok(());
    }
    let asked = Asked { losing, all: options.dry_run, allow_shorter: options.allow_shorter };
    let known = Known::of(repo, world.all, &asked).await?;
    let dropped = |plan: &ForgetPlan| plan.dropped().map(|(info, _)| info.id).collect::<HashSet<_>>();
    if !options.allow_shorter {
        let mut needed = HashSet::new();
        if let Some(window) = options.keep_recovery {
            let of = |base: &PostgresBackup| known.unclear.get(&(base.cluster, base.history));
            let unclear = plan.dropped().find_map(|(info, _)| info.snapshot.postgres.as_ref().and_then(of));
            if let Some(cluster) = unclear {
                return Err(BaseError::Unclear { cluster: cluster.clone() }.into());
            }
            let window = i64::try_from(window.as_nanos()).unwrap_or(i64::MAX);
            needed = recovery::needed(&known.bases, Timestamp(world.now.0.saturating_sub(window)));
        }
        if by_name {
            let gone = dropped(plan);
            let lost = known
                .bases
                .iter()
                .find(|base| needed.contains(&base.snapshot) && gone.contains(&base.snapshot));
            if let Some(base) = lost {
                let cluster = known.names.get(&base.end.cluster).cloned().unwrap_or_default();
                return Err(BaseError::Shortened { cluster, snapshot: base.snapshot }.into());
            }
        } else {
            plan.keep(&needed);
            let gone = dropped(plan);
            plan.keep(&recovery::last_ones(&known.bases, &gone));
        }
    }
    plan.recovery = known.without(&dropped(plan));
    Ok(())
}

/// Puts a tomb for each snapshot that the plan forgets.
///
/// # Errors
/// [`crate::repo::RepoError::WriterRevoked`] if the key was revoked meanwhile: then they may not count.
pub async fn apply_forget(repo: &Repository, plan: &ForgetPlan) -> Result<(), Error> {
    repo.maintainer()?;
    futures::stream::iter(plan.tombs())
        .map(|(snapshot, reason)| async move {
            if repo.env().cancel.is_raised() {
                return Err(Error::Cancelled);
            }
            Ok::<_, Error>(repo.put_tomb(snapshot, reason).await?)
        })
        .buffer_unordered(repo.env().limits.requests.max(1))
        .try_for_each(|_| async { Ok(()) })
        .await?;
    Ok(repo.still_counts().await?)
}

/// The store's time as far as it is known without storing anything: of the machine's clock and the newest snapshot the
/// later.
fn about_now(repo: &Repository, found: &SnapshotList) -> Timestamp {
    let newest = found.snapshots.iter().map(|info| info.stored).max();
    newest.unwrap_or(Timestamp(i64::MIN)).max(repo.env().clock.now())
}

/// The holds that stand at this time, one for each snapshot.
async fn standing_holds(
    repo: &Repository,
    now: Timestamp,
) -> Result<HashMap<SnapshotId, ObjectHash>, RepoError> {
    let mut held = HashMap::new();
    for stored in repo.holds().await? {
        if stored.hold.until.is_none_or(|until| now.0 < until) {
            held.extend(stored.hold.snapshots.iter().map(|snapshot| (*snapshot, stored.hash)));
        }
    }
    Ok(held)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use object_store::memory::InMemory;

    use super::*;
    use crate::class::Class;
    use crate::format::layout;
    use crate::ops::testing::{env, new_repository, put_snapshot};
    use crate::ops::undelete::undelete;
    use crate::ops::verify::{Depth, verify};
    use crate::retention::{Every, Limit};

    fn options(keep: u32) -> ForgetOptions {
        let policy = Policy::new().keep(Every::Snapshot, Limit::Count(keep));
        ForgetOptions { policy, ..ForgetOptions::new(TimeZone::UTC) }
    }

    fn named(ids: &[SnapshotId]) -> ForgetOptions {
        let named = ids.iter().map(SnapshotId::to_string).collect();
        ForgetOptions { named, ..ForgetOptions::new(TimeZone::UTC) }
    }

    async fn dropped(repo: &Repository, options: &ForgetOptions) -> Vec<SnapshotId> {
        let plan = plan_forget(repo, options).await.unwrap();
        let mut ids: Vec<_> = plan.dropped().map(|(info, _)| info.id).collect();
        if !options.dry_run {
            apply_forget(repo, &plan).await.unwrap();
        }
        ids.sort_unstable();
        ids
    }

    async fn tombs(repo: &Repository) -> usize {
        repo.store().list(layout::TOMBS).await.unwrap().len()
    }

    #[tokio::test]
    async fn each_forgotten_snapshot_gets_one_tomb_and_comes_back_without_it() {
        let repo = new_repository(Arc::new(InMemory::new()), env()).await;
        let mut ids = Vec::new();
        for n in 0..4 {
            ids.push(put_snapshot(&repo, n, |_| {}).await);
        }
        let mut old = ids[..2].to_vec();
        old.sort_unstable();
        let before = repo.store().list("").await.unwrap();
        let dry = ForgetOptions { dry_run: true, ..options(2) };
        assert_eq!(dropped(&repo, &dry).await, old);
        assert_eq!(repo.store().list("").await.unwrap(), before, "a dry run stores nothing");
        assert_eq!(dropped(&repo, &options(2)).await, old);
        assert_eq!(tombs(&repo).await, 2);
        assert!(dropped(&repo, &options(2)).await.is_empty(), "they do not count any more");
        assert!(dropped(&repo, &named(&ids[..1])).await.is_empty());
        assert_eq!(tombs(&repo).await, 2, "no second tomb");

        let done = undelete(&repo, &[ids[0].to_string(), ids[3].to_string()]).await.unwrap();
        assert_eq!((done.back, done.not_forgotten), (vec![ids[0]], vec![ids[3]]));
        assert_eq!(dropped(&repo, &options(9)).await, []);
        assert_eq!(dropped(&repo, &options(2)).await, ids[..1], "it is judged again");
        let report = verify(&repo, Depth::Data).await.unwrap();
        assert!(report.findings.is_empty(), "{:?}", report.findings);
    }

    #[tokio::test]
    async fn a_wrong_word_forgets_nothing() {
        let repo = new_repository(Arc::new(InMemory::new()), env()).await;
        let id = put_snapshot(&repo, 0, |_| {}).await;
        let other = put_snapshot(&repo, 1, |s| s.job = b"other".to_vec()).await;
        let refused = |options: ForgetOptions| {
            let repo = &repo;
            async move { plan_forget(repo, &options).await.unwrap_err() }
        };
        assert_eq!(refused(options(0)).await.class(), Class::Usage);
        assert_eq!(
            refused(ForgetOptions { named: vec![id.to_string()], ..options(1) }).await.class(),
            Class::Usage
        );
        assert_eq!(refused(ForgetOptions { unconfirmed: true, ..named(&[id]) }).await.class(), Class::Usage);
        let error = refused(named(&[id, other])).await;
        assert!(matches!(&error, Error::NothingLeft { groups } if groups.len() == 2), "{error}");
        repo.put_hold(vec![id], None).await.unwrap();
        let error = refused(ForgetOptions { allow_empty: true, ..named(&[id]) }).await;
        assert!(matches!(error, Error::Held { snapshot, .. } if snapshot == id));
        assert_eq!(tombs(&repo).await, 0);
        dropped(&repo, &ForgetOptions { allow_empty: true, ..named(&[other]) }).await;
        assert_eq!(tombs(&repo).await, 1);
    }

    #[tokio::test]
    async fn a_hold_that_is_over_and_a_forged_confirmation_count_for_nothing() {
        let repo = new_repository(Arc::new(InMemory::new()), env()).await;
        let first = put_snapshot(&repo, 0, |_| {}).await;
        put_snapshot(&repo, 1, |_| {}).await;
        repo.put_hold(vec![first], Some(Timestamp(1))).await.unwrap();
        assert_eq!(dropped(&repo, &ForgetOptions { dry_run: true, ..options(1) }).await, [first]);
        // The store says that a third one was confirmed: it must not push a good one out.
        let snapshot = crate::format::snapshot::Snapshot::empty();
        let late = repo.put_snapshot(2, &snapshot, &repo.new_run_keys().unwrap()).await.unwrap();
        let name = layout::ObjectName::Confirmation(repo.writer().unwrap().0, 2, late).key();
        repo.store().put(&crate::store::Key::new(name).unwrap(), vec!["forged".into()]).await.unwrap();
        assert_eq!(dropped(&repo, &options(1)).await, [first]);
    }

    #[tokio::test]
    async fn what_was_brought_is_judged_by_the_time_of_its_origin() {
        let repo = new_repository(Arc::new(InMemory::new()), env()).await;
        put_snapshot(&repo, 0, |_| {}).await;
        let year = 365 * 24 * 3_600_000_000_000;
        let brought = put_snapshot(&repo, 1, |snapshot| {
            snapshot.time -= year;
            let (time, kind) = (snapshot.time, "lifeboat".to_owned());
            let origin = crate::format::snapshot::Origin {
                kind,
                repository: vec![1; 16],
                snapshot: vec![2; 32],
                time,
                missing: 0,
            };
            snapshot.origin = Some(origin);
        })
        .await;
        let dry = ForgetOptions { dry_run: true, ..options(1) };
        assert_eq!(dropped(&repo, &dry).await, [brought], "it was stored later, and is a year older");
        // By a writer's word alone it is one whose clock is wrong, which is left alone.
        assert_eq!(dropped(&repo.as_plain_writer(), &dry).await, []);
        // A run of another tool that took days counts by its beginning, and has no wrong clock.
        let long = put_snapshot(&repo, 2, |snapshot| {
            snapshot.time -= year;
            snapshot.duration = 3 * 24 * 3_600_000_000_000;
            let (time, kind, nothing) = (snapshot.time, "restic".to_owned(), Vec::new());
            snapshot.origin = Some(crate::format::snapshot::Origin {
                kind,
                repository: nothing.clone(),
                snapshot: nothing,
                time,
                missing: 0,
            });
        })
        .await;
        assert!(dropped(&repo, &dry).await.contains(&long));
    }

    #[tokio::test]
    async fn a_damaged_hold_stops_everything() {
        let objects = Arc::new(InMemory::new());
        let repo = new_repository(objects, env()).await;
        let id = put_snapshot(&repo, 0, |_| {}).await;
        put_snapshot(&repo, 1, |_| {}).await;
        let name = layout::ObjectName::Hold(ObjectHash::new([7; 32])).key();
        repo.store().put(&crate::store::Key::new(name).unwrap(), vec!["rot".into()]).await.unwrap();
        assert_eq!(plan_forget(&repo, &named(&[id])).await.unwrap_err().class(), Class::Damage);
    }
}
