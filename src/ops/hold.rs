//! Holds: snapshots that no policy and nobody's naming may remove.
//!
//! # Invariants
//! The hold is put first; removals and snapshots are listed after it. A collector says what it removes before it looks for
//! holds, so one of the two sees the other. A hold that came too late for one of its snapshots is taken away again.

use jiff::tz::TimeZone;
use jiff::{Span, Timestamp as Instant};

use super::snapshots::SnapshotInfo;
use crate::clock::Timestamp;
use crate::error::Error;
use crate::id::{ObjectHash, SnapshotId};
use crate::repo::{Repository, StoredHold};
use crate::retention::Period;

/// When a hold ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// When somebody removes it.
    Removed,
    /// At this time of the store.
    Time(Timestamp),
    /// So long after it was made, by the calendar.
    After(Period),
}

/// Holds these snapshots, together under one hold.
///
/// # Errors
/// [`Error::TooLate`] if one of them is removed or about to be: then none is held. [`Error::HoldIsOver`].
/// [`crate::repo::RepoError::RoleForbids`] without a maintainer's key.
pub async fn hold(
    repo: &Repository,
    snapshots: &[SnapshotInfo],
    until: Until,
    zone: &TimeZone,
) -> Result<(ObjectHash, Option<Timestamp>), Error> {
    repo.maintainer()?;
    let until = match until {
        Until::Removed => None,
        until => Some(end(until, now(repo).await?, zone).ok_or(Error::HoldIsOver)?),
    };
    let mut ids: Vec<SnapshotId> = snapshots.iter().map(|info| info.id).collect();
    ids.sort_unstable();
    let hash = repo.put_hold(ids.clone(), until).await?;
    let mut lost: Vec<_> = repo.lost_to_removal(&ids).await?.into_iter().collect();
    if lost.is_empty() {
        return Ok((hash, until));
    }
    repo.delete_hold(hash).await?;
    lost.sort_unstable();
    Err(Error::TooLate { snapshots: lost })
}

/// The store's time, or the machine's where the store does not tell it.
async fn now(repo: &Repository) -> Result<Timestamp, Error> {
    Ok(repo.store().time().await?.unwrap_or_else(|| repo.env().clock.now()))
}

/// When a hold that is made now ends; `None` if that is not after now.
fn end(until: Until, now: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
    let end = match until {
        Until::Removed => return None,
        Until::Time(time) => time,
        Until::After(period) => {
            let start = Instant::from_nanosecond(i128::from(now.0)).ok()?.to_zoned(zone.clone());
            let span = Span::new().try_years(period.years).ok()?.try_months(period.months).ok()?;
            let span = span.try_days(period.days).ok()?.try_hours(period.hours).ok()?;
            let end = start.checked_add(span).ok()?.timestamp();
            Timestamp(i64::try_from(end.as_nanosecond()).ok()?)
        }
    };
    (end > now).then_some(end)
}

/// A hold and whether it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HoldInfo {
    /// The hold.
    pub stored: StoredHold,
    /// Whether its end is still to come, by the machine's clock; the collector goes by the store's.
    pub stands: bool,
}

/// All holds, oldest first.
pub async fn list_holds(repo: &Repository) -> Result<Vec<HoldInfo>, Error> {
    let now = repo.env().clock.now().0;
    let mut holds: Vec<_> = repo.holds().await?.into_iter().collect();
    holds.sort_by_key(|stored| (stored.stored, stored.hash));
    let stands = |stored: &StoredHold| stored.hold.until.is_none_or(|until| now < until);
    Ok(holds.into_iter().map(|stored| HoldInfo { stands: stands(&stored), stored }).collect())
}

/// Deletes the hold whose id begins so, and gives its whole id.
///
/// # Errors
/// [`Error::NoHold`], [`Error::AmbiguousHold`]; [`crate::repo::RepoError::RoleForbids`] without a maintainer's key.
pub async fn remove_hold(repo: &Repository, selector: &str) -> Result<ObjectHash, Error> {
    repo.maintainer()?;
    let prefix = selector.to_ascii_lowercase();
    let mut matching: Vec<_> = repo.holds().await?.into_iter().map(|stored| stored.hash).collect();
    matching.retain(|hash| !prefix.is_empty() && hash.to_string().starts_with(&prefix));
    match matching[..] {
        [] => Err(Error::NoHold { selector: selector.to_owned() }),
        [hash] => {
            repo.delete_hold(hash).await?;
            Ok(hash)
        }
        _ => Err(Error::AmbiguousHold { selector: selector.to_owned(), count: matching.len() }),
    }
}
