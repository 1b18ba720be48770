//! What maintainers said about snapshots: tombs, what takes them back, removals, holds (`docs/protocol.md`, Removing).
//!
//! # Invariants
//! Only what a maintainer signed counts. An object whose bytes are not what its name says is damage, which the collector
//! must not pass by: it may have been a hold. Anything else that cannot be believed is reported and skipped.

use std::collections::{HashMap, HashSet};

use futures::{StreamExt, TryStreamExt};

use super::create::put_signed;
use super::error::RepoError;
use super::load::Problem;
use super::open::{Repository, object_key};
use super::removals::{LOOKS, Removals};
use crate::clock::Timestamp;
use crate::format::FormatError;
use crate::format::config::Authority;
use crate::format::envelope::ObjectKind;
use crate::format::gc::{Condemnation, Hold, Horizon, Nonce, Removal, Tomb, TombReason, Trim, Undo};
use crate::format::layout::{self, ObjectName};
use crate::format::ledger::Verified;
use crate::format::signed::{SIGNED_MAX, Signed};
use crate::id::{ObjectHash, PackId, SnapshotId, WriterId};
use crate::random::random_array;
use crate::store::Object;

/// A tomb as it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredTomb {
    /// Its name ends in this.
    pub hash: ObjectHash,
    /// What it says.
    pub tomb: Tomb,
    /// When the store got it.
    pub stored: Timestamp,
}

/// A hold as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredHold {
    /// Its name.
    pub hash: ObjectHash,
    /// What it says.
    pub hold: Hold,
    /// When the store got it.
    pub stored: Timestamp,
}

/// A condemnation as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredCondemnation {
    /// Its name.
    pub hash: ObjectHash,
    /// What it says.
    pub condemnation: Condemnation,
    /// When the store got it.
    pub stored: Timestamp,
}

/// Everything maintainers said about snapshots, as one pass over the listings found it.
#[derive(Debug, Default)]
pub struct Marks {
    /// Tombs that nobody took back, of each snapshot the oldest.
    pub tombs: HashMap<SnapshotId, StoredTomb>,
    /// Tombs that were taken back.
    pub undone: HashSet<ObjectHash>,
    /// The objects that took them back, and which each names.
    pub undos: Vec<(ObjectHash, Vec<ObjectHash>)>,
    /// Every tomb object by its snapshot, taken back or not.
    pub tomb_names: Vec<(SnapshotId, ObjectHash)>,
    /// Snapshots that are removed, or about to be.
    pub removed: HashSet<SnapshotId>,
    /// The removals that say so, and those that say nothing any more.
    pub removals: Removals,
    /// Holds, expired ones included.
    pub holds: Vec<StoredHold>,
    /// Objects that were skipped.
    pub problems: Vec<Problem>,
}

impl Marks {
    /// Whether a hold on the snapshot stands at this time of the store.
    pub fn is_held(&self, snapshot: &SnapshotId, now: Timestamp) -> bool {
        let stands = |hold: &Hold| hold.until.is_none_or(|until| now.0 < until);
        self.holds.iter().any(|stored| stands(&stored.hold) && stored.hold.snapshots.contains(snapshot))
    }

    /// Whether an object could not be read as it was written: a hold may be among them.
    pub fn is_damaged(&self) -> bool {
        self.problems.iter().any(Problem::is_damage)
    }
}

/// A value that someone with an authority signs.
pub(super) trait Said: Sized {
    const KIND: ObjectKind;
    /// What its author must hold.
    const AUTHORITY: Authority = Authority::Maintainer;
    fn read(bytes: &[u8]) -> Result<Self, FormatError>;
    fn author(&self) -> WriterId;
}

macro_rules! said {
    ($($value:ident => $kind:ident),*) => {$(
        impl Said for $value {
            const KIND: ObjectKind = ObjectKind::$kind;
            fn read(bytes: &[u8]) -> Result<Self, FormatError> { $value::decode(bytes) }
            fn author(&self) -> WriterId { self.author }
        }
    )*};
}
said!(Condemnation => Condemnation, Horizon => Horizon, Tomb => Tomb, Undo => Undo, Removal => Removal, Hold => Hold,
    Trim => Trim);

/// Fails if one of these objects could not be read as it was written.
pub(super) fn refuse_damage(problems: Vec<Problem>) -> Result<(), RepoError> {
    match problems.into_iter().find(Problem::is_damage) {
        Some(problem) => Err(problem.error),
        None => Ok(()),
    }
}

impl Repository {
    /// Reads what a maintainer said.
    pub(super) async fn read_said<T: Said>(&self, name: ObjectName) -> Result<T, RepoError> {
        let key = name.key();
        let bytes = self.get_object(name, SIGNED_MAX as u64).await?;
        let (_, signed) = Signed::decode(&bytes, T::KIND, Some(&self.id())).map_err(RepoError::at(&key))?;
        let value = T::read(signed.value).map_err(RepoError::at(&key))?;
        self.verify(&key, (value.author(), T::AUTHORITY), signed.message, &signed.signature)?;
        Ok(value)
    }

    /// Reads a condemnation; one that no maintainer signed is an error.
    pub async fn read_condemnation(&self, name: ObjectName) -> Result<Condemnation, RepoError> {
        self.read_said(name).await
    }

    /// Reads a horizon; its number is the one in its name.
    pub async fn read_horizon(&self, name: ObjectName) -> Result<Horizon, RepoError> {
        let said: Horizon = self.read_said(name).await?;
        match name {
            ObjectName::Horizon(number, _) if number == said.number => Ok(said),
            _ => Err(RepoError::BadSignature { key: name.key() }),
        }
    }

    /// Reads one object of section 11 only to see whether it is good.
    pub async fn check_said(&self, name: ObjectName) -> Result<(), RepoError> {
        match name {
            ObjectName::Condemned(_) => self.read_condemnation(name).await.map(drop),
            ObjectName::Horizon(..) => self.read_horizon(name).await.map(drop),
            ObjectName::Removed(_) => self.read_said::<Removal>(name).await.map(drop),
            ObjectName::Undone(_) => self.read_said::<Undo>(name).await.map(drop),
            ObjectName::Hold(_) => self.read_said::<Hold>(name).await.map(drop),
            ObjectName::Trimmed(_) => self.read_said::<Trim>(name).await.map(drop),
            ObjectName::Tomb(snapshot, _) => {
                let said: Tomb = self.read_said(name).await?;
                (said.snapshot == snapshot).then_some(()).ok_or(RepoError::BadSignature { key: name.key() })
            }
            ObjectName::Labels(..) => self.read_labels(name).await.map(drop),
            ObjectName::Anchor(hash) => self.check_anchor(hash).await.map(drop),
            ObjectName::Verified(_) => self.read_said::<Verified>(name).await.map(drop),
            _ => Ok(()),
        }
    }

    /// All values of one kind below `prefix`, with their names and times. One that is gone since it was listed is left out.
    pub(super) async fn all_said<T: Said>(
        &self,
        prefix: &str,
        problems: &mut Vec<Problem>,
    ) -> Result<Vec<(ObjectName, T, Timestamp)>, RepoError> {
        let names = self.said_names(prefix).await?;
        self.said_under(names, problems).await
    }

    /// The names below `prefix`, with their times.
    pub(super) async fn said_names(&self, prefix: &str) -> Result<Vec<(ObjectName, Timestamp)>, RepoError> {
        let listed = self.store.list(prefix).await?;
        let named = listed
            .into_iter()
            .filter_map(|object| Some((ObjectName::parse(object.key.as_str())?, object.modified)));
        Ok(named.collect())
    }

    /// The values under these names. One that is gone is left out; one that is listed still, and not to be had, is an error:
    /// a hold would hold nothing, and a condemnation would have ended before the horizon moved.
    pub(super) async fn said_under<T: Said>(
        &self,
        names: Vec<(ObjectName, Timestamp)>,
        problems: &mut Vec<Problem>,
    ) -> Result<Vec<(ObjectName, T, Timestamp)>, RepoError> {
        let version = self.registry_version();
        let mut read = self.read_under(&names).await?;
        self.refresh_registry().await?;
        if self.registry_version() != version {
            // A maintainer was registered since.
            read = self.read_under(&names).await?;
        }
        let mut found = Vec::new();
        for value in read {
            match value {
                Ok(value) => found.push(value),
                Err(problem) => problems.push(problem),
            }
        }
        Ok(found)
    }

    /// All values below a prefix of which one goes only after another one says what it said. If one goes away after it was
    /// listed, they are listed again.
    pub(super) async fn said_whole<T: Said>(
        &self,
        prefix: &str,
        problems: &mut Vec<Problem>,
    ) -> Result<Vec<(ObjectName, T, Timestamp)>, RepoError> {
        let mut look = 1;
        loop {
            let names = self.said_names(prefix).await?;
            let (listed, mut skipped) = (names.len(), Vec::new());
            let said = self.said_under::<T>(names, &mut skipped).await?;
            if said.len() + skipped.len() < listed && look < LOOKS {
                look += 1;
                continue;
            }
            problems.append(&mut skipped);
            return Ok(said);
        }
    }

    async fn read_under<T: Said>(
        &self,
        names: &[(ObjectName, Timestamp)],
    ) -> Result<Vec<Result<(ObjectName, T, Timestamp), Problem>>, RepoError> {
        let read = futures::stream::iter(names.iter().copied())
            .map(|(name, modified)| async move {
                match self.read_said::<T>(name).await {
                    Ok(value) => Ok(Some(Ok((name, value, modified)))),
                    Err(RepoError::Store(error)) if error.is_not_found() => {
                        match self.is_listed(name).await? {
                            true => Err(error.into()),
                            false => Ok(None),
                        }
                    }
                    Err(error @ (RepoError::Store(_) | RepoError::Cancelled)) => Err(error),
                    Err(error) => Ok(Some(Err(Problem { key: name.key(), error }))),
                }
            })
            .buffered(self.env.limits.requests.max(1));
        Ok(read.try_collect::<Vec<_>>().await?.into_iter().flatten().collect())
    }

    /// Reads tombs, removals, undos and holds, each listing after the one before: what is put before a removal is listed
    /// here when the removal was put before this began.
    pub async fn read_marks(&self) -> Result<Marks, RepoError> {
        let mut marks = Marks::default();
        let tombs = self.all_said::<Tomb>(layout::TOMBS, &mut marks.problems).await?;
        marks.removals = self.removals(&mut marks.problems).await?;
        marks.removed.extend(marks.removals.snapshots());
        for (name, undo, _) in self.all_said::<Undo>(layout::UNDONE, &mut marks.problems).await? {
            let ObjectName::Undone(hash) = name else { continue };
            marks.undone.extend(&undo.tombs);
            marks.undos.push((hash, undo.tombs));
        }
        for (name, hold, stored) in self.all_said::<Hold>(layout::HOLDS, &mut marks.problems).await? {
            let ObjectName::Hold(hash) = name else { continue };
            marks.holds.push(StoredHold { hash, hold, stored });
        }
        for (name, tomb, stored) in tombs {
            let ObjectName::Tomb(snapshot, hash) = name else { continue };
            if snapshot != tomb.snapshot {
                marks
                    .problems
                    .push(Problem { key: name.key(), error: RepoError::BadSignature { key: name.key() } });
                continue;
            }
            marks.tomb_names.push((snapshot, hash));
            if marks.undone.contains(&hash) {
                continue;
            }
            let found = StoredTomb { hash, tomb, stored };
            let oldest = marks.tombs.entry(snapshot).or_insert(found);
            if stored < oldest.stored {
                *oldest = found;
            }
        }
        Ok(marks)
    }

    /// Tombs that nobody took back, of each of these snapshots the oldest. Reads no others, and so may be asked often.
    pub async fn standing_tombs(
        &self,
        snapshots: &HashSet<SnapshotId>,
    ) -> Result<HashMap<SnapshotId, StoredTomb>, RepoError> {
        self.standing_among(self.list_tombs().await?, snapshots).await
    }

    /// All tombs there are, for [`Self::standing_among`].
    pub async fn list_tombs(&self) -> Result<Vec<Object>, RepoError> {
        Ok(self.store.list(layout::TOMBS).await?)
    }

    /// As [`Self::standing_tombs`], of tombs that were listed already.
    pub async fn standing_among(
        &self,
        listed: Vec<Object>,
        snapshots: &HashSet<SnapshotId>,
    ) -> Result<HashMap<SnapshotId, StoredTomb>, RepoError> {
        let mut names = Vec::new();
        for object in listed {
            match ObjectName::parse(object.key.as_str()) {
                Some(name @ ObjectName::Tomb(snapshot, _)) if snapshots.contains(&snapshot) => {
                    names.push((name, object.modified));
                }
                _ => {}
            }
        }
        if names.is_empty() {
            return Ok(HashMap::new());
        }
        let mut problems = Vec::new();
        let tombs = self.said_under::<Tomb>(names, &mut problems).await?;
        let undos = self.all_said::<Undo>(layout::UNDONE, &mut problems).await?;
        let undone: HashSet<_> = undos.into_iter().flat_map(|(_, undo, _)| undo.tombs).collect();
        let mut standing = HashMap::new();
        for (name, tomb, stored) in tombs {
            let ObjectName::Tomb(snapshot, hash) = name else { continue };
            if snapshot == tomb.snapshot && !undone.contains(&hash) {
                let found = StoredTomb { hash, tomb, stored };
                let oldest = standing.entry(snapshot).or_insert(found);
                if stored < oldest.stored {
                    *oldest = found;
                }
            }
        }
        Ok(standing)
    }

    /// Holds, expired ones included. Damage is an error: it may have been the hold that is asked for.
    pub async fn holds(&self) -> Result<Vec<StoredHold>, RepoError> {
        let mut problems = Vec::new();
        let said = self.all_said::<Hold>(layout::HOLDS, &mut problems).await?;
        refuse_damage(problems)?;
        let holds = said.into_iter().filter_map(|(name, hold, stored)| match name {
            ObjectName::Hold(hash) => Some(StoredHold { hash, hold, stored }),
            _ => None,
        });
        Ok(holds.collect())
    }

    /// Which of these snapshots are removed or about to be: removals are listed first, snapshots second. Whoever put an
    /// undo or a hold before this and is not named was in time. Damage is an error: it may have been a removal.
    pub async fn lost_to_removal(&self, snapshots: &[SnapshotId]) -> Result<HashSet<SnapshotId>, RepoError> {
        let mut problems = Vec::new();
        let removals = self.removals(&mut problems).await?;
        refuse_damage(problems)?;
        let removed: HashSet<_> = removals.snapshots().collect();
        let there: HashSet<_> = self.list_snapshots().await?.into_iter().map(|listed| listed.id).collect();
        let lost = |id: &&SnapshotId| removed.contains(*id) || !there.contains(*id);
        Ok(snapshots.iter().filter(lost).copied().collect())
    }

    /// Deletes a hold.
    pub async fn delete_hold(&self, hash: ObjectHash) -> Result<(), RepoError> {
        self.maintainer()?;
        Ok(self.store.delete(&object_key(ObjectName::Hold(hash))?).await?)
    }

    /// All condemnations. One that cannot be read is a problem, not an error: it has no authority. One that was deleted
    /// since it was listed is left out: its packs are gone, and the horizon moved before.
    pub async fn condemnations(
        &self,
        problems: &mut Vec<Problem>,
    ) -> Result<Vec<StoredCondemnation>, RepoError> {
        let said = self.all_said::<Condemnation>(layout::CONDEMNED, problems).await?;
        let stored = said.into_iter().filter_map(|(name, condemnation, stored)| match name {
            ObjectName::Condemned(hash) => Some(StoredCondemnation { hash, condemnation, stored }),
            _ => None,
        });
        Ok(stored.collect())
    }

    pub(super) fn nonce(&self) -> Result<Nonce, RepoError> {
        Ok(random_array(&*self.env.random)?)
    }

    pub(super) async fn say(
        &self,
        kind: ObjectKind,
        value: &[u8],
        name: impl FnOnce(ObjectHash) -> ObjectName,
    ) -> Result<ObjectHash, RepoError> {
        let (_, signing) = self.maintainer()?;
        put_signed(&self.store, (kind, self.id()), value, &signing, name).await
    }

    /// Puts a tomb: the snapshot will be removed after the delay that the collector keeps.
    pub async fn put_tomb(
        &self,
        (writer, sequence, snapshot): (WriterId, u64, SnapshotId),
        reason: TombReason,
    ) -> Result<ObjectHash, RepoError> {
        let (author, _) = self.maintainer()?;
        let tomb = Tomb { author, writer, sequence, snapshot, reason, nonce: self.nonce()? };
        self.say(ObjectKind::Tomb, &tomb.encode(), |hash| ObjectName::Tomb(snapshot, hash)).await
    }

    /// Takes these tombs back. Whether it was in time, only a look at the removals and at the snapshots after this tells.
    pub async fn put_undo(&self, tombs: Vec<ObjectHash>) -> Result<ObjectHash, RepoError> {
        let (author, _) = self.maintainer()?;
        self.say(ObjectKind::Undo, &Undo { author, tombs }.encode(), ObjectName::Undone).await
    }

    /// Holds these snapshots. Whether it was in time, only a look at the removals and at the snapshots after this tells.
    pub async fn put_hold(
        &self,
        snapshots: Vec<SnapshotId>,
        until: Option<Timestamp>,
    ) -> Result<ObjectHash, RepoError> {
        let (author, _) = self.maintainer()?;
        let hold = Hold { author, snapshots, until: until.map(|until| until.0), nonce: self.nonce()? };
        self.say(ObjectKind::Hold, &hold.encode(), ObjectName::Hold).await
    }

    /// Condemns packs, for ever: nobody may depend on them any more.
    pub async fn put_condemnation(&self, packs: Vec<PackId>) -> Result<ObjectHash, RepoError> {
        let (author, _) = self.maintainer()?;
        let condemnation = Condemnation { author, packs, nonce: self.nonce()? };
        self.say(ObjectKind::Condemnation, &condemnation.encode(), ObjectName::Condemned).await
    }

    /// Moves the horizon: what was condemned and deleted before this need not be looked for any more.
    pub async fn put_horizon(&self, number: u64) -> Result<ObjectHash, RepoError> {
        let (author, _) = self.maintainer()?;
        let horizon = Horizon { author, number, nonce: self.nonce()? };
        self.say(ObjectKind::Horizon, &horizon.encode(), |hash| ObjectName::Horizon(number, hash)).await
    }
}
