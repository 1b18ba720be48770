//! Forgetting snapshots: by a policy, by name, or because they were never confirmed.
//!
//! # Invariants
//! Nothing is deleted here. A forgotten snapshot gets a tomb; `prune` removes it once the tomb has stood for
//! [`UNDO_WINDOW`], and until then an undo takes the tomb back. A hold wins over everything.
//!
//! # Crash
//! Some tombs are there, others are not; forgetting again puts the rest.

mod plan;

pub use plan::{Fate, ForgetPlan, Planned, UNCONFIRMED_AGE};

use std::collections::HashMap;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use jiff::tz::TimeZone;

use self::plan::World;
use crate::clock::Timestamp;
use crate::error::Error;
use crate::id::{ObjectHash, SnapshotId};
use crate::ops::snapshots::{SnapshotFilter, SnapshotList, check_confirmations, list, resolve_all};
use crate::repo::{RepoError, Repository};
use crate::retention::Policy;

/// How long a tomb stands before `prune` honours it, unless it is told otherwise.
pub const UNDO_WINDOW: Duration = Duration::from_secs(7 * 24 * 3600);

/// What to forget.
#[derive(Debug, Clone)]
pub struct ForgetOptions {
    /// What to keep; without rules nothing is forgotten by it.
    pub policy: Policy,
    /// Selectors of snapshots to forget; then no policy is applied.
    pub named: Vec<String>,
    /// Also those that were never confirmed and are older than [`UNCONFIRMED_AGE`].
    pub unconfirmed: bool,
    /// Which snapshots the policy is applied to, and what `latest` means.
    pub filter: SnapshotFilter,
    /// Whether a job of a machine may be left without a confirmed snapshot.
    pub allow_empty: bool,
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
            dry_run: false,
            zone,
        }
    }
}

/// When a tomb that is put at `stored` may be honoured.
pub fn undelete_until(stored: Timestamp) -> Timestamp {
    let window = i64::try_from(UNDO_WINDOW.as_nanos()).unwrap_or(i64::MAX);
    Timestamp(stored.0.saturating_add(window))
}

/// Says what would be forgotten, and why. Stores nothing that stays.
///
/// # Errors
/// [`Error::NothingToForget`], [`Error::NamedAndPolicy`]; [`Error::Held`] if a named snapshot is held;
/// [`Error::NothingLeft`] unless that is allowed; [`RepoError::RoleForbids`] without a maintainer's key, except for a dry
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
    let named = match by_name {
        true => resolve_all(repo, &options.named, &options.filter).await?,
        false => Vec::new(),
    };
    let mut found = list(repo, &SnapshotFilter::default()).await?;
    check_confirmations(repo, &mut found.snapshots).await?;
    let now = if options.dry_run { None } else { repo.store().time().await? };
    let now = now.unwrap_or_else(|| about_now(repo, &found));
    let held = standing_holds(repo, now).await?;
    let world = World { all: &found.snapshots, held: &held, now };
    let groups = match by_name {
        true => world.named(named)?,
        false => world.by_policy(&options.policy, (&options.filter, options.unconfirmed), &options.zone),
    };
    let mut plan = ForgetPlan { now, groups, unreadable: Vec::new() };
    let emptied = world.emptied(&plan);
    if !emptied.is_empty() && !options.allow_empty {
        return Err(Error::NothingLeft { groups: emptied });
    }
    plan.unreadable = found.unreadable;
    Ok(plan)
}

/// Puts a tomb for each snapshot that the plan forgets.
pub async fn apply_forget(repo: &Repository, plan: &ForgetPlan) -> Result<(), Error> {
    repo.maintainer()?;
    futures::stream::iter(plan.dropped())
        .map(|(info, reason)| async move {
            if repo.env().cancel.is_raised() {
                return Err(Error::Cancelled);
            }
            Ok::<_, Error>(repo.put_tomb((info.writer, info.sequence, info.id), reason).await?)
        })
        .buffer_unordered(repo.env().limits.requests.max(1))
        .try_for_each(|_| async { Ok(()) })
        .await
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
