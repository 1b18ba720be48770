//! Holds: snapshots that no policy and nobody's naming may remove.
//!
//! # Invariants
//! The hold is put first; removals and snapshots are listed after it. A collector says what it removes before it looks for
//! holds, so one of the two sees the other. A hold that came too late for one of its snapshots is taken away again.

use jiff::tz::TimeZone;
use jiff::{Span, Timestamp as Instant};

use super::legal::{is_legal, release};
use super::snapshots::SnapshotInfo;
use crate::class::Class;
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
/// [`crate::repo::RepoError::RoleForbids`] without a maintainer's key, [`crate::repo::RepoError::WriterRevoked`] if it was revoked
/// meanwhile: then the hold does not count.
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
    repo.still_counts().await?;
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
    /// Whether the store keeps what it names, as a legal hold; `None` where that may not be asked.
    pub legal: Option<bool>,
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
    let mut found = Vec::with_capacity(holds.len());
    for stored in holds {
        let legal = match is_legal(repo, stored.hash).await {
            Err(error) if error.class() == Class::Denied => None,
            legal => Some(legal?),
        };
        found.push(HoldInfo { legal, stands: stands(&stored), stored });
    }
    Ok(found)
}

/// A hold that is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HoldRemoved {
    /// Its id.
    pub hash: ObjectHash,
    /// How many objects the store keeps no more because of it.
    pub released: u64,
}

/// Deletes the hold whose id begins so. Of a legal hold the store first stops to keep what no other one needs; stopped in
/// between, it is finished by calling this again.
///
/// # Errors
/// [`Error::NoHold`], [`Error::AmbiguousHold`]; [`crate::repo::RepoError::RoleForbids`] without a maintainer's key; what keeps
/// another legal hold's needs from being known.
pub async fn remove_hold(repo: &Repository, selector: &str) -> Result<HoldRemoved, Error> {
    repo.maintainer()?;
    let prefix = selector.to_ascii_lowercase();
    let holds = repo.holds().await?;
    let is_meant = |stored: &&StoredHold| !prefix.is_empty() && stored.hash.to_string().starts_with(&prefix);
    let matching: Vec<&StoredHold> = holds.iter().filter(is_meant).collect();
    match matching[..] {
        [] => Err(Error::NoHold { selector: selector.to_owned() }),
        [meant] => {
            let released = release(repo, meant, &holds).await?;
            repo.delete_hold(meant.hash).await?;
            Ok(HoldRemoved { hash: meant.hash, released })
        }
        _ => Err(Error::AmbiguousHold { selector: selector.to_owned(), count: matching.len() }),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use object_store::memory::InMemory;

    use super::*;
    use crate::format::layout;
    use crate::ops::snapshots::{SnapshotFilter, resolve_all};
    use crate::ops::testing::{env, new_repository, put_snapshot};

    async fn infos(repo: &Repository) -> Vec<SnapshotInfo> {
        let ids: Vec<_> =
            repo.list_snapshots().await.unwrap().iter().map(|listed| listed.id.to_string()).collect();
        resolve_all(repo, &ids, &SnapshotFilter::default()).await.unwrap()
    }

    #[tokio::test]
    async fn a_hold_that_comes_too_late_is_taken_away_again() {
        let repo = new_repository(Arc::new(InMemory::new()), env()).await;
        let (a, b) = (put_snapshot(&repo, 0, |_| {}).await, put_snapshot(&repo, 1, |_| {}).await);
        let both = infos(&repo).await;
        assert!(hold(&repo, &both, Until::Removed, &TimeZone::UTC).await.is_ok());
        repo.put_removal(vec![b]).await.unwrap();
        let error = hold(&repo, &both, Until::Removed, &TimeZone::UTC).await.unwrap_err();
        assert!(matches!(&error, Error::TooLate { snapshots } if *snapshots == [b]), "{error}");
        assert_eq!(repo.store().list(layout::HOLDS).await.unwrap().len(), 1, "the first one alone");
        let name = layout::ObjectName::Snapshot(repo.writer().unwrap().0, 0, a).key();
        repo.store().delete(&crate::store::Key::new(name).unwrap()).await.unwrap();
        let error = hold(&repo, &both[..], Until::Removed, &TimeZone::UTC).await.unwrap_err();
        assert!(matches!(&error, Error::TooLate { snapshots } if snapshots.len() == 2), "{error}");
    }

    #[tokio::test]
    async fn holds_are_listed_and_removed_by_the_beginning_of_their_id() {
        let repo = new_repository(Arc::new(InMemory::new()), env()).await;
        put_snapshot(&repo, 0, |_| {}).await;
        let all = infos(&repo).await;
        let (hash, until) =
            hold(&repo, &all, Until::After("1d".parse().unwrap()), &TimeZone::UTC).await.unwrap();
        let listed = list_holds(&repo).await.unwrap();
        assert!(
            listed.len() == 1
                && listed[0].stands
                && listed[0].legal == Some(false)
                && listed[0].stored.hold.until == until.map(|until| until.0)
        );
        assert!(repo.store().list("probe/").await.unwrap().is_empty());
        assert!(matches!(remove_hold(&repo, "").await, Err(Error::NoHold { .. })));
        let removed = remove_hold(&repo, &hash.to_string()[..8]).await.unwrap();
        assert_eq!(removed, HoldRemoved { hash, released: 0 });
        assert!(matches!(remove_hold(&repo, &hash.to_string()).await, Err(Error::NoHold { .. })));
        let over = hold(&repo, &all, Until::Time(Timestamp(1)), &TimeZone::UTC).await;
        assert!(matches!(over, Err(Error::HoldIsOver)));
    }

    #[test]
    fn a_hold_ends_by_the_calendar() {
        let now = Timestamp(1_772_366_400_000_000_000); // 2026-03-01T12:00:00Z
        let after = |text: &str| end(Until::After(text.parse().unwrap()), now, &TimeZone::UTC);
        let day = 86_400_000_000_000;
        assert_eq!(after("1m"), Some(Timestamp(now.0 + 31 * day)));
        assert_eq!(after("1y2h"), Some(Timestamp(now.0 + 365 * day + day / 12)));
        assert_eq!(after("0d"), None);
        assert_eq!(after("4294967295y"), None, "beyond the calendar");
    }
}
