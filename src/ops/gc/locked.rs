//! What a store that locks its objects still holds of what was deleted: given back when the locks are over.
//!
//! In such a store a deletion only hides an object. Its content stays until somebody deletes the version, which the store
//! refuses while it is locked. That refusal is expected, and tells when to come back.
//!
//! # Invariants
//! Only what has been hidden for the grace goes, after a collection that found everything that confirmed snapshots need; of
//! snapshots only those that a removal names, of logs only what a trim covers and no base backup needs. Whoever hides an object without right to has not made it go.

use std::collections::HashSet;
use std::time::Duration;

use super::logs::Judged;
use super::options::{PruneOptions, PruneReport};
use super::world::warn;
use crate::class::Class;
use crate::clock::{Timestamp, later};
use crate::error::Error;
use crate::format::keyslot::Role;
use crate::format::layout::{self, ObjectName};
use crate::format::rights::deleted_by;
use crate::ops::lock::may_go;
use crate::repo::Repository;
use crate::store::Swept;

/// Gives back what can be, and counts what cannot yet. Where the store does not permit that, it is told: the collection is done.
pub(super) async fn sweep(
    repo: &Repository,
    how: (&PruneOptions, Timestamp),
    judged: &Judged,
    report: &mut PruneReport,
) -> Result<(), Error> {
    match give_back(repo, how, judged, report).await {
        Err(error) if error.class() == Class::Denied => {
            warn(repo, &format!("what was deleted is not given back: {error}"));
            Ok(())
        }
        other => other,
    }
}

async fn give_back(
    repo: &Repository,
    (options, now): (&PruneOptions, Timestamp),
    judged: &Judged,
    report: &mut PruneReport,
) -> Result<(), Error> {
    let store = repo.store();
    let Some(lock) = store.lock() else { return Ok(()) };
    let removed: HashSet<_> = repo.read_marks().await?.removed.into_iter().collect();
    for prefix in deleted_by(Role::Maintainer) {
        for hidden in store.hidden(prefix).await? {
            let name = ObjectName::parse(hidden.key.as_str());
            let gone = match name {
                // Nothing else tells whether it was hidden by a collector, or is missed by a base backup.
                Some(ObjectName::Log(name)) => judged.may_go(&name),
                name => prefix == layout::PROBE || may_go(name, &removed),
            };
            if !gone {
                continue;
            }
            let grace = later(hidden.deleted, options.grace);
            let least =
                later(hidden.stored, if prefix == layout::PROBE { Duration::ZERO } else { lock.period() });
            let due = least.max(grace);
            if due > now || options.dry_run {
                report.keep(hidden.size, due);
                continue;
            }
            match store.sweep(&hidden).await? {
                Swept::Gone => report.given_back_bytes += hidden.size,
                Swept::Locked(Some(until)) => report.keep(hidden.size, until),
                // Under a legal hold, which ends when somebody removes it.
                Swept::Locked(None) => report.locked_bytes += hidden.size,
            }
        }
    }
    Ok(())
}
