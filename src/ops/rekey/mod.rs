//! New keys after one was lost to somebody: everything is sealed to them at once, and those who go on read all that was and will
//! be (`docs/protocol.md`, Replacing keys).
//!
//! # Invariants
//! New slots are durable before the configuration that names their keys, and that is before an old slot goes. What any of the
//! secrets at hand opened before, each new slot of its role opens afterwards. An old slot that nobody opened here goes only if
//! no configuration ever named a key that nobody here holds.
//!
//! # Crash
//! Before the configuration: everything is as it was, beside slots that open nothing yet. After it: the new keys are in use, and
//! some old slots may be left; doing it again clears them.
//!
//! # Must not
//! Promise that the lost key opens nothing any more: what was stored before stays sealed to it, until it is sealed again.

use std::collections::HashSet;

use crate::crypto::slot::Unlock;
use crate::error::Error;
use crate::format::keyslot::Role;
use crate::id::ObjectHash;
use crate::repo::{Holder, RekeyError, RepoError, Repository, SlotError, StoredSlot, Task};

/// How to replace the keys.
#[derive(Debug, Clone, Copy, Default)]
pub struct RekeyOptions<'a> {
    /// Secrets of others who go on.
    pub keep: &'a [Unlock],
    /// Also delete the slots of those who do not, if they hold old keys.
    pub remove_old: bool,
    /// Only say what would be done.
    pub dry_run: bool,
}

/// What became of the keys, or would.
#[derive(Debug, Default)]
pub struct Rekeyed {
    /// Number of the configuration that names the new keys.
    pub number: u64,
    /// Those who go on: an old slot of each, and the new one. None in a dry run.
    pub renewed: Vec<(StoredSlot, Option<ObjectHash>)>,
    /// Slots of others that hold old keys only: they open nothing that is stored from now on.
    pub stale: Vec<StoredSlot>,
    /// Slots that are gone.
    pub removed: Vec<ObjectHash>,
    /// Slots that should be gone and could not be deleted, each with the reason.
    pub left: Vec<(ObjectHash, Error)>,
    /// Keys that something may be sealed to, and that only slots hold which nothing given here opens.
    pub unknown: usize,
}

impl Rekeyed {
    async fn delete(&mut self, repo: &Repository, slots: impl IntoIterator<Item = ObjectHash>) {
        for slot in slots {
            match repo.delete_slot(slot).await {
                Ok(()) => self.removed.push(slot),
                Err(error) => self.left.push((slot, error.into())),
            }
        }
    }
}

/// Replaces the keys. `own` opened this run; it and the recovery words that it knows go on, too.
///
/// # Errors
/// [`RepoError::WrongRole`], [`RepoError::StaleKey`]; [`RepoError::WrongKey`] if a secret of another opens nothing;
/// [`SlotError::NotFound`] if its slot is not listed; [`RekeyError`].
pub async fn rekey(repo: &Repository, own: &Unlock, options: RekeyOptions<'_>) -> Result<Rekeyed, Error> {
    repo.allow(Task::Rekey)?;
    let before = repo.list_slots().await?.slots;
    let words = repo.secrets().recovery.clone().map(Unlock::Words);
    let holders = holders(repo, own, (options.keep, words.as_ref())).await?;
    let renewal = repo.renewal(&holders).await?;
    let renewed: HashSet<ObjectHash> = holders.iter().flat_map(Holder::slots).copied().collect();
    let is_stale = |slot: &&StoredSlot| holds_keys(slot.role) && !renewed.contains(&slot.hash);
    let mut done = Rekeyed {
        number: renewal.number(),
        stale: before.iter().filter(is_stale).cloned().collect(),
        unknown: renewal.unknown(),
        ..Rekeyed::default()
    };
    if options.remove_old && !done.stale.is_empty() && done.unknown > 0 {
        return Err(RepoError::from(RekeyError::Incomplete { keys: done.unknown }).into());
    }
    // All of them, before anything is put: one that was left out would hold none of the new keys.
    let old = holders.iter().map(|holder| listed(&before, holder)).collect::<Result<Vec<_>, _>>()?;
    for (holder, slot) in holders.iter().zip(old) {
        let new = match options.dry_run {
            true => None,
            false => Some(repo.renew_slot(&renewal, holder, slot.note.label.clone()).await?),
        };
        done.renewed.push((slot, new));
    }
    if options.dry_run {
        return Ok(done);
    }
    // Another admin may have taken one of them away, which knew no secret that opens it: then that holder would have nothing.
    let there: HashSet<ObjectHash> =
        repo.list_slots().await?.slots.into_iter().map(|slot| slot.hash).collect();
    if done.renewed.iter().any(|(_, new)| new.is_some_and(|new| !there.contains(&new))) {
        return Err(RepoError::from(RekeyError::Overtaken).into());
    }
    repo.put_renewal(&renewal).await?;
    done.delete(repo, renewed).await;
    if options.remove_old {
        let old: Vec<ObjectHash> = done.stale.iter().map(|slot| slot.hash).collect();
        done.delete(repo, old).await;
    }
    Ok(done)
}

/// What was listed of one who goes on: a slot that came since, or was not to be had, is none of these.
fn listed(slots: &[StoredSlot], holder: &Holder<'_>) -> Result<StoredSlot, RepoError> {
    let found = slots.iter().find(|slot| holder.slots().contains(&slot.hash)).cloned();
    let missing = || {
        let ids: Vec<String> = holder.slots().iter().map(ToString::to_string).collect();
        SlotError::NotFound { selector: ids.join(", ") }.into()
    };
    found.ok_or_else(missing)
}

/// Whether slots of this role hold private keys.
fn holds_keys(role: Role) -> bool {
    matches!(role, Role::Maintainer | Role::Reader | Role::Admin)
}

/// Those who go on, each once. The recovery words may have been replaced by another admin; a secret that somebody gave must open
/// something.
async fn holders<'a>(
    repo: &Repository,
    own: &'a Unlock,
    (keep, words): (&'a [Unlock], Option<&'a Unlock>),
) -> Result<Vec<Holder<'a>>, Error> {
    let mut holders: Vec<Holder<'a>> = Vec::new();
    let given = std::iter::once(own).chain(keep).map(|unlock| (unlock, true));
    for (unlock, must) in given.chain(words.map(|unlock| (unlock, false))) {
        match repo.holder(unlock).await? {
            Some(holder) if holders.iter().any(|known| known.slots() == holder.slots()) => {}
            Some(holder) => holders.push(holder),
            None if must => return Err(RepoError::WrongKey { what: unlock.what() }.into()),
            None => {}
        }
    }
    Ok(holders)
}

#[cfg(test)]
mod tests;
