//! Keys of a repository: giving them to others, replacing one's own, taking them away.
//!
//! # Invariants
//! What is new is durable, was read back and opened before what is old is deleted; so whenever this is stopped, the old secret
//! opens, or the new one does, or both do.
//!
//! # Must not
//! Promise that a key which was removed is forgotten: who had it may have kept what it opened.

use crate::crypto::SecretKey;
use crate::crypto::slot::Unlock;
use crate::error::Error;
use crate::format::keyslot::{Role, SlotKind};
use crate::id::ObjectHash;
use crate::repo::{OpenedSlot, RepoError, Repository, SlotError, SlotList, StoredSlot, Task};

/// What came of replacing slots.
#[derive(Debug)]
pub struct Replaced {
    /// The new slot.
    pub new: ObjectHash,
    /// Slots that are gone.
    pub removed: Vec<ObjectHash>,
    /// Slots that should be gone and could not be deleted, each with the reason: what opened them opens them still.
    pub left: Vec<(ObjectHash, Error)>,
}

impl Replaced {
    fn by(new: ObjectHash) -> Self {
        Self { new, removed: Vec::new(), left: Vec::new() }
    }

    async fn delete(&mut self, repo: &Repository, slot: ObjectHash) {
        match repo.delete_slot(slot).await {
            Ok(()) => self.removed.push(slot),
            Err(error) => self.left.push((slot, error.into())),
        }
    }

    /// Deletes slots that one secret opens, of which the new one is a copy. One of another role, or of a rekey that goes on beside
    /// this, holds what the copy does not: the only way in could be among them.
    async fn delete_copied(&mut self, repo: &Repository, slots: Vec<OpenedSlot>) {
        for OpenedSlot { hash: slot, role, newer } in slots {
            let error = match newer {
                _ if role != repo.role() => SlotError::OtherRole { slot, role },
                true => SlotError::Newer { slot },
                false => {
                    self.delete(repo, slot).await;
                    continue;
                }
            };
            self.left.push((slot, RepoError::from(error).into()));
        }
    }
}

/// The task that giving a key to this role is.
pub fn adding(role: Role) -> Task {
    match role {
        Role::Reader => Task::AddReader,
        Role::Writer | Role::Maintainer | Role::Verifier | Role::Admin => Task::AddSigner,
    }
}

/// Gives a key of this role to who holds `unlock`.
///
/// # Errors
/// [`RepoError::WrongRole`], [`SlotError::Taken`], [`SlotError::Label`].
pub async fn add_key(
    repo: &Repository,
    unlock: &Unlock,
    role: Role,
    label: Option<String>,
) -> Result<ObjectHash, Error> {
    repo.allow(adding(role))?;
    not_taken(repo, unlock).await?;
    Ok(repo.add_slot(unlock, role, label).await?)
}

/// Which of two slots one secret opens would be chance.
async fn not_taken(repo: &Repository, unlock: &Unlock) -> Result<(), Error> {
    match repo.opens(unlock).await?.first() {
        Some(slot) => Err(RepoError::from(SlotError::Taken { slot: slot.hash }).into()),
        None => Ok(()),
    }
}

/// Whether the secret of the slot that opened this run may be replaced by another one.
///
/// # Errors
/// [`SlotError::ByWords`].
pub fn may_replace(repo: &Repository, slots: &SlotList) -> Result<StoredSlot, Error> {
    let gone = || SlotError::NotFound { selector: repo.slot().to_string() };
    let own = slots.slots.iter().find(|slot| slot.hash == repo.slot());
    let own = own.ok_or_else(gone).map_err(RepoError::from)?;
    match own.kind {
        SlotKind::Words => Err(RepoError::from(SlotError::ByWords).into()),
        SlotKind::Passphrase | SlotKind::KeyFile => Ok(own.clone()),
    }
}

/// The slots that `own` opens, which opened this run: an interrupted [`replace_words`] may have left a second one.
async fn opened_by(repo: &Repository, own: &Unlock) -> Result<Vec<OpenedSlot>, Error> {
    let mut slots = repo.opens(own).await?;
    if !slots.iter().any(|slot| slot.hash == repo.slot()) {
        slots.push(OpenedSlot { hash: repo.slot(), role: repo.role(), newer: false });
    }
    Ok(slots)
}

/// Replaces the secret of the slot that opened this run, `old`, by `new`: `old` opens nothing any more but what is told.
///
/// # Errors
/// As [`may_replace`]; [`SlotError::Taken`].
pub async fn replace_secret(repo: &Repository, old: &Unlock, new: &Unlock) -> Result<Replaced, Error> {
    repo.allow(Task::OwnKey)?;
    let own = may_replace(repo, &repo.list_slots().await?)?;
    not_taken(repo, new).await?;
    let slots = opened_by(repo, old).await?;
    let mut replaced = Replaced::by(repo.copy_slot(new, own.note.label, None).await?);
    replaced.delete_copied(repo, slots).await;
    // A rekey beside this may have made one since.
    for OpenedSlot { hash: slot, .. } in repo.opens(old).await?.into_iter().filter(|slot| slot.newer) {
        if !replaced.left.iter().any(|(left, _)| *left == slot) {
            replaced.left.push((slot, RepoError::from(SlotError::Newer { slot }).into()));
        }
    }
    Ok(replaced)
}

/// Removes the slot whose id begins so. Gives it, and whether another key signs as the same writer.
///
/// The slot that opened this run stays, so whoever removes others keeps a way to all that there is: of another admin's slot
/// nobody can tell without its secret whether it holds the keys of a later rekey.
///
/// # Errors
/// [`RepoError::WrongRole`]; [`SlotError::NotFound`], [`SlotError::Ambiguous`], [`SlotError::InUse`];
/// [`RekeyError::Overtaken`](crate::repo::RekeyError::Overtaken) if the keys were replaced since this run was opened.
pub async fn remove_key(repo: &Repository, selector: &str) -> Result<(StoredSlot, bool), Error> {
    repo.allow(Task::ManageKeys)?;
    let slots = repo.list_slots().await?;
    repo.not_overtaken().await?;
    let slot = slots.find(selector).map_err(RepoError::from)?;
    if slot.hash == repo.slot() {
        return Err(RepoError::from(SlotError::InUse { slot: slot.hash }).into());
    }
    let other = |other: &StoredSlot| other.hash != slot.hash && other.note.writer == slot.note.writer;
    let shared = slot.note.writer.is_some() && slots.slots.iter().any(other);
    repo.delete_slot(slot.hash).await?;
    Ok((slot.clone(), shared))
}

/// Makes these words the recovery words, in place of all that were before: `own` opened this run, and its slot knows them
/// from now on.
///
/// # Errors
/// [`RepoError::WrongRole`]; [`RekeyError::Overtaken`](crate::repo::RekeyError::Overtaken) if the keys were replaced since this run was opened.
pub async fn replace_words(repo: &Repository, own: &Unlock, words: &SecretKey) -> Result<Replaced, Error> {
    repo.allow(Task::ManageKeys)?;
    let before = repo.list_slots().await?.slots;
    // Since it was opened somebody may have written the words down, which takes its time.
    repo.not_overtaken().await?;
    let newer = newer_words(repo).await?;
    let new = repo.copy_slot(&Unlock::Words(words.clone()), None, Some(words)).await?;
    let mut replaced = Replaced::by(new);
    if let Some(mine) = before.iter().find(|slot| slot.hash == repo.slot() && slot.kind != SlotKind::Words) {
        let old = opened_by(repo, own).await?;
        repo.copy_slot(own, mine.note.label.clone(), Some(words)).await?;
        replaced.delete_copied(repo, old).await;
    }
    for slot in before.iter().filter(|slot| slot.kind == SlotKind::Words && slot.role == Role::Admin) {
        if newer.contains(&slot.hash) {
            replaced.left.push((slot.hash, RepoError::from(SlotError::Newer { slot: slot.hash }).into()));
        } else {
            replaced.delete(repo, slot.hash).await;
        }
    }
    Ok(replaced)
}

/// Slots of the words that this key knows which a rekey has made whose configuration is not there yet.
async fn newer_words(repo: &Repository) -> Result<Vec<ObjectHash>, Error> {
    let Some(words) = &repo.secrets().recovery else { return Ok(Vec::new()) };
    let opened = repo.opens(&Unlock::Words(words.clone())).await?;
    Ok(opened.into_iter().filter(|slot| slot.newer).map(|slot| slot.hash).collect())
}

/// Whether the words that this key knows open the repository: another key may have replaced them.
pub async fn knows_words(repo: &Repository) -> Result<bool, Error> {
    repo.allow(Task::ManageKeys)?;
    match &repo.secrets().recovery {
        Some(words) => Ok(!repo.opens(&Unlock::Words(words.clone())).await?.is_empty()),
        None => Ok(false),
    }
}

#[cfg(test)]
mod tests;
