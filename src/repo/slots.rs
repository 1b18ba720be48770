//! Key slots of a repository that is open: listing, adding, replacing and removing them.
//!
//! # Invariants
//! A slot is read back from the store and opened before anything is taken away for it. The entry of a new writer is durable
//! before the slot that signs as it. Of the slots of admins the last one is never removed.
//!
//! # Crash
//! A writer's entry without a slot: nobody signs as it. Both the new and the old slot of a replacement: either opens.
//!
//! # Must not
//! Take a slot away to make room for one that was not opened yet.

use futures::StreamExt;

use super::create::{put_slot, register};
use super::error::RepoError;
use super::open::{Repository, SLOTS_MAX, Slots, get_checked, object_key};
use crate::class::Class;
use crate::clock::Timestamp;
use crate::crypto::sign::SigningKey;
use crate::crypto::slot::{Opened, Unlock, open_note};
use crate::crypto::{Part, SecretKey, Secrets, WriterSecret};
use crate::format::config::Authority;
use crate::format::keyslot::{KeySlot, LABEL_MAX, Role, SLOT_MAX, SlotKind, SlotNote};
use crate::format::layout::{self, ObjectName};
use crate::id::{ObjectHash, WriterId};
use crate::random::random_array;

/// Why a key slot cannot be made or removed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SlotError {
    /// The slot that opened this run: that another one opens as much is not known.
    #[error("key {slot} opened this run, so it was not removed")]
    InUse {
        /// The slot.
        slot: ObjectHash,
    },
    /// No slot matches.
    #[error("no key matches {selector:?}")]
    NotFound {
        /// What was asked for.
        selector: String,
    },
    /// Several slots match.
    #[error("{selector:?} matches {count} keys")]
    Ambiguous {
        /// What was asked for.
        selector: String,
        /// How many.
        count: usize,
    },
    /// A second slot for the same secret: which of them opens would be chance.
    #[error("this secret opens key {slot} of the repository already")]
    Taken {
        /// The slot.
        slot: ObjectHash,
    },
    /// The same secret opens a slot that a copy of another one does not replace.
    #[error("key {slot} has the same secret and the role {role}, so it was not replaced")]
    OtherRole {
        /// The slot.
        slot: ObjectHash,
        /// Its role.
        role: Role,
    },
    /// The same secret opens a slot that holds keys which came since.
    #[error("key {slot} has the same secret and was made by a rekey meanwhile, so it was not replaced")]
    Newer {
        /// The slot.
        slot: ObjectHash,
    },
    /// A passphrase is tried on so many slots; one more might never be reached.
    #[error("the repository has {SLOTS_MAX} passwords, which is as many as are tried")]
    Full,
    /// Recovery words are not replaced by something else.
    #[error("recovery words opened this run, and only new words can replace them")]
    ByWords,
    /// A label that is too long, or that no terminal should be shown.
    #[error("a label has 1 to {LABEL_MAX} bytes and no control characters")]
    Label,
}

impl SlotError {
    /// What kind of failure this is.
    pub fn class(&self) -> Class {
        match self {
            Self::InUse { .. } | Self::OtherRole { .. } | Self::Newer { .. } | Self::Full => Class::Refused,
            Self::NotFound { .. } => Class::Failed,
            Self::Ambiguous { .. } => Class::Failed,
            Self::Taken { .. } | Self::ByWords | Self::Label => Class::Usage,
        }
    }
}

/// A slot that a secret opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenedSlot {
    /// The slot.
    pub hash: ObjectHash,
    /// Its role.
    pub role: Role,
    /// It was made for a configuration that came, or is to come, after the one that this run reads: it may hold other keys.
    pub newer: bool,
}

/// A key slot, and what is known of it without opening it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredSlot {
    /// Its name.
    pub hash: ObjectHash,
    /// What unlocks it.
    pub kind: SlotKind,
    /// Whose secrets it holds.
    pub role: Role,
    /// When the store got it.
    pub created: Timestamp,
    /// What is noted of it, if this key can read that.
    pub note: SlotNote,
}

/// The key slots there are.
#[derive(Debug, Default)]
pub struct SlotList {
    /// The oldest first.
    pub slots: Vec<StoredSlot>,
    /// What stands among them and is none of this repository, with the reason.
    pub unreadable: Vec<(String, RepoError)>,
}

impl SlotList {
    /// The slot whose id begins so.
    ///
    /// # Errors
    /// [`SlotError::NotFound`], [`SlotError::Ambiguous`].
    pub fn find(&self, selector: &str) -> Result<&StoredSlot, SlotError> {
        let prefix = selector.to_ascii_lowercase();
        let matches = |slot: &&StoredSlot| !prefix.is_empty() && slot.hash.to_string().starts_with(&prefix);
        match self.slots.iter().filter(matches).collect::<Vec<_>>()[..] {
            [] => Err(SlotError::NotFound { selector: selector.to_owned() }),
            [slot] => Ok(slot),
            ref several => Err(SlotError::Ambiguous { selector: selector.to_owned(), count: several.len() }),
        }
    }
}

/// The authority that the registry gives to a role; `None` if it signs nothing.
fn authority(role: Role) -> Option<Authority> {
    match role {
        Role::Writer => Some(Authority::Writer),
        Role::Maintainer | Role::Admin => Some(Authority::Maintainer),
        Role::Verifier => Some(Authority::Verifier),
        Role::Reader => None,
    }
}

/// Whether a label may be stored.
///
/// # Errors
/// [`SlotError::Label`].
pub fn check_label(label: Option<&str>) -> Result<(), SlotError> {
    let fits =
        |label: &str| !label.is_empty() && label.len() <= LABEL_MAX && !label.chars().any(char::is_control);
    if label.is_none_or(fits) { Ok(()) } else { Err(SlotError::Label) }
}

impl Repository {
    /// All key slots of this repository.
    pub async fn list_slots(&self) -> Result<SlotList, RepoError> {
        let listed = self.store.list(layout::KEYS).await?;
        let named = listed.into_iter().filter_map(|object| match ObjectName::parse(object.key.as_str())? {
            name @ ObjectName::KeySlot(hash) => Some((name, hash, object.modified)),
            _ => None,
        });
        let mut reads = futures::stream::iter(named)
            .map(|(name, hash, created)| async move {
                let read = get_checked(&self.store, name, SLOT_MAX as u64).await;
                (name, read.and_then(|bytes| self.stored_slot((hash, created), &bytes)))
            })
            .buffered(self.env.limits.requests.max(1));
        let mut found = SlotList::default();
        while let Some((name, read)) = reads.next().await {
            match read {
                Ok(slot) => found.slots.push(slot),
                Err(RepoError::Store(error)) if error.is_not_found() => {}
                Err(error @ (RepoError::Store(_) | RepoError::Cancelled)) => return Err(error),
                Err(error) => found.unreadable.push((name.key(), error)),
            }
        }
        drop(reads);
        found.slots.sort_unstable_by_key(|slot| (slot.created, slot.hash));
        Ok(found)
    }

    fn stored_slot(
        &self,
        (hash, created): (ObjectHash, Timestamp),
        bytes: &[u8],
    ) -> Result<StoredSlot, RepoError> {
        let slot = KeySlot::decode(bytes).map_err(RepoError::at(&ObjectName::KeySlot(hash).key()))?;
        if slot.preamble.repository != self.id() {
            let found = slot.preamble.repository;
            return Err(crate::format::FormatError::ForeignRepository { found }.into());
        }
        let note = self.secrets.index.as_ref().and_then(|index| open_note(index, &slot));
        let note = note.unwrap_or_default();
        Ok(StoredSlot { hash, kind: slot.kind, role: slot.role, created, note })
    }

    /// The slots that this opens. A passphrase costs its stretching for each slot that has one.
    pub async fn opens(&self, unlock: &Unlock) -> Result<Vec<OpenedSlot>, RepoError> {
        let config = self.slot.pins.config;
        let opened = self.opened_by(unlock).await?.into_iter().map(|(hash, opened)| OpenedSlot {
            hash,
            role: opened.role,
            newer: opened.pins.config > config,
        });
        Ok(opened.collect())
    }

    /// The same, with what they hold.
    pub(super) async fn opened_by(&self, unlock: &Unlock) -> Result<Vec<(ObjectHash, Opened)>, RepoError> {
        let listed = self.store.list(layout::KEYS).await?;
        let mut slots = Slots::new((&self.store, self.env.limits), listed);
        let mut found = Vec::new();
        while let Some((hash, opened)) = slots.next(unlock).await? {
            // A slot of another repository, which the same secret may open, is none of this one's.
            if opened.pins.repository == self.id() && opened.pins.root == self.slot.pins.root {
                found.push((hash, opened));
            }
        }
        Ok(found)
    }

    /// Gives a new slot to a role: for one that signs a new writer is registered first. The slot has been read back from the
    /// store and opened when this returns.
    ///
    /// # Errors
    /// [`SlotError::Label`]; [`crate::crypto::CryptoError::RoleSecret`] if this key does not hold what the role needs.
    pub async fn add_slot(
        &self,
        unlock: &Unlock,
        role: Role,
        label: Option<String>,
    ) -> Result<ObjectHash, RepoError> {
        check_label(label.as_deref())?;
        let random = &*self.env.random;
        let mut secrets = Secrets { writer: None, ..self.secrets.restrict(role) };
        if let Some(authority) = authority(role) {
            let seed = SecretKey::generate(random)?;
            secrets.writer = Some(WriterSecret { id: WriterId::new(random_array(random)?), seed });
            secrets.check(role)?;
            let root = self.root_key()?;
            if let Some(writer) = &secrets.writer {
                register(&self.store, (self.id(), &root), writer, authority).await?;
            }
        }
        let note = SlotNote { label, writer: secrets.writer.as_ref().map(|writer| writer.id) };
        self.put_slot(unlock, (role, secrets), &note).await
    }

    pub(super) fn root_key(&self) -> Result<SigningKey, RepoError> {
        let seed = self.secrets.root.clone();
        let seed = seed.ok_or(RepoError::RoleForbids { action: "sign the registry" })?;
        Ok(SigningKey::from_seed(seed))
    }

    async fn put_slot(
        &self,
        unlock: &Unlock,
        (role, secrets): (Role, Secrets),
        note: &SlotNote,
    ) -> Result<ObjectHash, RepoError> {
        let content = Opened { role, secrets, pins: self.slot.pins };
        self.put_opened(unlock, &content, note).await
    }

    /// Puts a slot; it has been read back from the store and opened when this returns.
    pub(super) async fn put_opened(
        &self,
        unlock: &Unlock,
        content: &Opened,
        note: &SlotNote,
    ) -> Result<ObjectHash, RepoError> {
        if matches!(unlock, Unlock::Passphrase(_)) {
            let slots = self.list_slots().await?.slots;
            let passphrases = slots.iter().filter(|slot| slot.kind == SlotKind::Passphrase).count();
            if passphrases >= SLOTS_MAX {
                return Err(SlotError::Full.into());
            }
        }
        put_slot((&self.store, &self.env), unlock, content, note).await
    }

    /// Puts what this key holds into a further slot that `unlock` opens. `recovery` replaces what an admin knows of the recovery
    /// words. The slot has been read back from the store and opened when this returns.
    pub async fn copy_slot(
        &self,
        unlock: &Unlock,
        label: Option<String>,
        recovery: Option<&SecretKey>,
    ) -> Result<ObjectHash, RepoError> {
        let mut secrets = self.secrets.clone();
        if Part::Recovery.may_be_of(self.role()) && recovery.is_some() {
            secrets.recovery = recovery.cloned();
        }
        let note = SlotNote { label, writer: secrets.writer.as_ref().map(|writer| writer.id) };
        self.put_slot(unlock, (self.role(), secrets), &note).await
    }

    /// Deletes a slot.
    pub async fn delete_slot(&self, hash: ObjectHash) -> Result<(), RepoError> {
        Ok(self.store.delete(&object_key(ObjectName::KeySlot(hash))?).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(byte: u8) -> StoredSlot {
        StoredSlot {
            hash: ObjectHash::new([byte; 32]),
            kind: SlotKind::KeyFile,
            role: Role::Admin,
            created: Timestamp(0),
            note: SlotNote::default(),
        }
    }

    #[test]
    fn a_slot_is_found_by_the_beginning_of_its_id_if_no_other_begins_so() {
        let list = SlotList { slots: vec![slot(0xaa), slot(0xab)], ..SlotList::default() };
        assert!(matches!(list.find("a"), Err(SlotError::Ambiguous { count: 2, .. })));
        assert!(matches!(list.find(""), Err(SlotError::NotFound { .. })));
        assert_eq!(list.find("AB").unwrap().hash, slot(0xab).hash);
    }

    #[test]
    fn labels_are_short_and_fit_for_a_terminal() {
        for good in ["web1", "büro", &"x".repeat(LABEL_MAX)] {
            assert!(check_label(Some(good)).is_ok());
        }
        for bad in ["", "a\nb", "\u{1b}[2J", &"x".repeat(LABEL_MAX + 1)] {
            assert!(matches!(check_label(Some(bad)), Err(SlotError::Label)));
        }
    }
}
