//! Whether the lock that the repository was made with is in force, and for how long it protects what is there.

use jiff::Timestamp as Instant;

use super::Check;
use crate::class::Class;
use crate::clock::Timestamp;
use crate::format::config::Lock;
use crate::format::layout::PROBE;
use crate::ops::lock::{Protection, protection};
use crate::random::random_array;
use crate::repo::{RepoError, Repository};
use crate::store::{Key, StoreError};

/// The checks of a repository with a lock; none of one without.
pub(super) async fn checks(repo: &Repository) -> Vec<Check> {
    let Some(lock) = repo.config().lock else { return Vec::new() };
    let mut checks = vec![in_force(repo, lock).await];
    if repo.store().lock().is_some() {
        checks.push(match protection(repo).await {
            Ok(Some(found)) => of(found),
            Ok(None) => return checks,
            Err(error) if error.class() == Class::Denied => Check::warn(
                "protection",
                format!("this key cannot see what snapshots need: {error}"),
                "a key of role maintainer, reader or admin can",
            ),
            Err(error) => Check::fail("protection", &error, "run `lifeboat verify`"),
        });
    }
    checks
}

async fn in_force(repo: &Repository, lock: Lock) -> Check {
    const ELSEWHERE: &str =
        "locks belong to the bucket of S3 that the repository was made in; keep copies elsewhere read-only";
    const NOT_IN_FORCE: &str = "what is stored can be deleted: copy it into a bucket with Object Lock enabled, which is made with it";
    if repo.store().lock().is_none() {
        return Check::warn("lock", format!("{lock} is asked for, and this store locks nothing"), ELSEWHERE);
    }
    match tried(repo).await {
        Ok(true) => {
            Check::ok("lock", format!("{lock} is in force: the store refused to delete a locked object"))
        }
        Ok(false) => Check {
            state: super::CheckState::Fail,
            ..Check::warn(
                "lock",
                format!("{lock} is not in force: a locked object could be deleted"),
                NOT_IN_FORCE,
            )
        },
        Err(error) if error.class() == Class::Denied => Check::warn(
            "lock",
            format!("{lock} was not tried out: {error}"),
            "a maintainer's rights are needed for it",
        ),
        Err(error) => Check::fail("lock", &error, "check the store"),
    }
}

/// Whether the bucket says that it locks, and does.
async fn tried(repo: &Repository) -> Result<bool, RepoError> {
    if !repo.store().can_lock().await? {
        return Ok(false);
    }
    let name = u64::from_le_bytes(random_array::<8>(&*repo.env().random).map_err(StoreError::from)?);
    let key = Key::new(format!("{PROBE}{name:016x}/locked")).map_err(StoreError::from)?;
    Ok(repo.store().try_lock(&key).await?)
}

fn of(found: Protection) -> Check {
    const OLDER: &str = "what only older snapshots need may be deleted; hold a copy of it where nobody can";
    const BEGIN: &str = "make a backup: it locks anew what it needs";
    let Some(first) = found.first else {
        let detail = format!("no snapshot is locked; {} older", found.older);
        return Check::warn("protection", detail, BEGIN);
    };
    let first_text = written(first);
    let least = if found.exact { "" } else { " or later" };
    let detail = format!(
        "{} confirmed within the time of the lock; the first of what they need can be deleted on {first_text}{least}",
        super::count(found.snapshots, "snapshot")
    );
    match found.older {
        0 => Check::ok("protection", detail),
        older => {
            Check::warn("protection", format!("{detail}; {} older", super::count(older, "snapshot")), OLDER)
        }
    }
}

/// A time for people, in UTC; one before all times is now.
fn written(time: Timestamp) -> String {
    match Instant::from_nanosecond(i128::from(time.0)) {
        Ok(instant) if time.0 > 0 => instant.strftime("%Y-%m-%d %H:%M UTC").to_string(),
        _ => "any day: it is not locked".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::CheckState;
    use super::*;

    #[test]
    fn what_is_protected_is_told_with_its_date() {
        let found = |older, first, exact| Protection { snapshots: 2, older, first, exact };
        let day = Some(Timestamp(1_800_000_000_000_000_000));
        let check = of(found(0, day, true));
        assert_eq!(check.state, CheckState::Ok);
        assert!(check.detail.ends_with("can be deleted on 2027-01-15 08:00 UTC"), "{}", check.detail);
        assert!(of(found(0, day, false)).detail.ends_with("or later"));
        assert_eq!(of(found(1, day, true)).state, CheckState::Warn);
        assert_eq!(of(found(1, None, true)).state, CheckState::Warn);
        assert!(of(found(0, Some(Timestamp(i64::MIN)), true)).detail.contains("not locked"));
    }
}
