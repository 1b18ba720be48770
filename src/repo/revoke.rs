//! Taking what a writer may say from it, and what is known of writers (`docs/protocol.md`, Revoking a writer).
//!
//! # Invariants
//! Two entries are put. After the first nobody begins to depend on what the writer signs from then on, and its own runs
//! acknowledge nothing; what still counts is listed after that, and named by the second. So what anybody was told to be safe
//! is in the list. What was taken once never comes back: a later entry names a part of what the one before named.
//!
//! # Crash
//! After the first entry: readers believe all that the writer signs, collections refuse to work; revoking it again goes on.

use std::collections::HashSet;

use futures::{StreamExt, TryStreamExt};

use super::create::sign;
use super::error::RepoError;
use super::open::{Repository, object_key};
use super::registry::{Known, Stand};
use crate::class::Class;
use crate::clock::Timestamp;
use crate::crypto::name_hash;
use crate::crypto::sign::SigningKey;
use crate::format::config::{ACCEPTED_MAX, Authority, Standing, WriterEntry};
use crate::format::envelope::{ChunkKind, ObjectKind, Preamble};
use crate::format::gc::{Hold, Removal, Tomb, Trim, Undo};
use crate::format::layout::{self, ObjectName};
use crate::format::signed::signed_message;
use crate::id::{NameHash, WriterId};

/// A writer as the registry has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegisteredWriter {
    /// The writer.
    pub id: WriterId,
    /// What it may sign.
    pub authority: Authority,
    /// When the store got its first entry.
    pub created: Timestamp,
    /// Since when it is revoked: when the store got the entry that says so.
    pub revoked: Option<Timestamp>,
    /// A revocation was begun and not ended.
    pub closing: bool,
}

/// An object that a writer signed, or that stands under its name.
struct Signed {
    /// Logs come last, if there is more than an entry holds: they may be many, and snapshots are few.
    log: bool,
    stored: Timestamp,
    name: ObjectName,
    /// Whether it says something of one snapshot or one file of a log only, so that nobody else depends on it.
    late: bool,
    /// Whether it is not to be had, and only may be the writer's.
    unknown: bool,
}

impl Signed {
    /// Whether it does not count when only what came before `since` does.
    fn is_late(&self, since: Option<Timestamp>) -> bool {
        self.late && since.is_some_and(|since| self.stored >= since)
    }
}

/// Whose an object is.
enum Whose {
    /// The writer signed it.
    Its,
    /// It is not to be had now.
    Unknown,
    /// Somebody else's, or none that can ever count.
    NotIts,
}

/// Whether an object is not to be had, so that nobody knows what it was.
fn is_unknown(error: &RepoError) -> bool {
    match error {
        RepoError::Store(error) => matches!(error.class(), Class::Failed | Class::Damage | Class::Denied),
        error => matches!(error, RepoError::HashMismatch { .. } | RepoError::TooLarge { .. }),
    }
}

/// What an entry names of these: what is the writer's before what only may be, which anyone who may put objects can put any
/// number of; then the oldest. Logs come last: they may be many, and snapshots are few.
fn named(mut signed: Vec<Signed>) -> Vec<NameHash> {
    signed.sort_unstable_by_key(|signed| (signed.log, signed.unknown, signed.stored, signed.name));
    signed.truncate(ACCEPTED_MAX);
    let mut named: Vec<_> = signed.iter().map(|signed| name_hash(&signed.name)).collect();
    named.sort_unstable();
    named
}

impl Repository {
    /// All writers that were ever registered, by id.
    pub fn writers(&self) -> Vec<RegisteredWriter> {
        let writer = |(id, _, known): (WriterId, u64, Known)| RegisteredWriter {
            id,
            authority: known.authority,
            created: known.times.0,
            revoked: matches!(known.stand, Stand::Revoked(_)).then_some(known.times.1),
            closing: matches!(known.stand, Stand::Closing(_)),
        };
        let mut writers: Vec<_> = self.registry.all().into_iter().map(writer).collect();
        writers.sort_unstable_by_key(|writer| (writer.created, writer.id));
        writers
    }

    /// Fails unless this key may change the registry.
    pub fn may_revoke(&self) -> Result<(), RepoError> {
        self.root_key().map(drop)
    }

    /// Revokes a writer: of what it signed only that counts which the store has now; of its snapshots, of labels and of tombs
    /// only those that it got before `since`. Gives how many objects still count, and how many do not.
    ///
    /// # Errors
    /// [`RepoError::RoleForbids`] without the root key.
    pub async fn revoke_writer(
        &self,
        writer: WriterId,
        since: Option<Timestamp>,
    ) -> Result<(usize, usize), RepoError> {
        let root = self.root_key()?;
        self.reread_registry().await?;
        let Some((_, number, known)) = self.registry.all().into_iter().find(|(id, ..)| *id == writer) else {
            return Err(RepoError::UnknownWriter { writer });
        };
        let before = match &known.stand {
            Stand::Revoked(accepted) => Some(accepted.clone()),
            Stand::Active | Stand::Closing(_) => None,
        };
        let mut next = number;
        let mut put = async |standing: Standing| {
            next += 1;
            self.put_entry(&root, (writer, next), &known, standing).await
        };
        if before.is_none() {
            let (accepted, _) = self.chosen((writer, &known), since, None).await?;
            put(Standing::Closing(accepted)).await?;
        }
        let before = before.as_deref();
        let (accepted, refused) = self.chosen((writer, &known), since, before).await?;
        let count = accepted.len();
        put(Standing::Revoked(accepted)).await?;
        self.reread_registry().await?;
        Ok((count, refused))
    }

    async fn put_entry(
        &self,
        root: &SigningKey,
        (writer, number): (WriterId, u64),
        known: &Known,
        standing: Standing,
    ) -> Result<(), RepoError> {
        let (key, authority) = (*known.key.as_bytes(), known.authority);
        let entry = WriterEntry { writer, key, authority, standing };
        let mut preamble = Preamble::new(ObjectKind::Writer, ChunkKind::Data, self.id());
        preamble.key_generation = u16::try_from(number).map_err(|_| RepoError::NoNumber { writer })?;
        let (bytes, hash) = sign(signed_message(preamble, &entry.encode()), root);
        Ok(self.store.put(&object_key(ObjectName::Writer(writer, number, hash))?, vec![bytes]).await?)
    }

    /// What still counts of a writer, the oldest first if there is more than an entry holds and logs last, and how many objects do not.
    async fn chosen(
        &self,
        (writer, known): (WriterId, &Known),
        since: Option<Timestamp>,
        before: Option<&HashSet<NameHash>>,
    ) -> Result<(Vec<NameHash>, usize), RepoError> {
        let mut signed = self.signed_by(writer, known.authority).await?;
        let all = signed.len();
        signed.retain(|signed| {
            let named_before = before.is_none_or(|before| before.contains(&name_hash(&signed.name)));
            named_before && !signed.is_late(since)
        });
        let accepted = named(signed);
        let refused = all - accepted.len();
        Ok((accepted, refused))
    }

    /// Everything that stands under the writer's name, was signed by it, or may be its own because it is not to be had: left
    /// out, that would never count again. Whoever did not sign an object gains nothing if it is named: the signature is checked
    /// whenever it is read. So garbage stops no revocation.
    async fn signed_by(&self, writer: WriterId, authority: Authority) -> Result<Vec<Signed>, RepoError> {
        let mut signed = Vec::new();
        for object in self.store.list(&format!("{}{writer}/", layout::INDEX)).await? {
            if let Some(name @ ObjectName::Index(..)) = ObjectName::parse(object.key.as_str()) {
                signed.push(Signed {
                    log: false,
                    stored: object.modified,
                    name,
                    late: false,
                    unknown: false,
                });
            }
        }
        for object in self.store.list(layout::STREAMS).await? {
            match ObjectName::parse(object.key.as_str()) {
                Some(name @ ObjectName::Log(log)) if log.writer == writer => {
                    signed.push(Signed {
                        log: true,
                        stored: object.modified,
                        name,
                        late: true,
                        unknown: false,
                    });
                }
                _ => {}
            }
        }
        for listed in self.list_snapshots_of(writer).await? {
            let (stored, name) = (listed.stored, listed.name());
            signed.push(Signed { log: false, stored, name, late: true, unknown: false });
        }
        let mut shared = vec![(layout::ANCHORS, false), (layout::CLUSTERS, false), (layout::LABELS, true)];
        if authority == Authority::Maintainer {
            let marks = [
                layout::CONDEMNED,
                layout::HORIZON,
                layout::REMOVED,
                layout::UNDONE,
                layout::TRIMMED,
                layout::HOLDS,
            ];
            shared.extend(marks.map(|prefix| (prefix, false)));
            shared.push((layout::TOMBS, true));
        }
        for (prefix, late) in shared {
            let reads = futures::stream::iter(self.said_names(prefix).await?)
                .map(|(name, stored)| async move {
                    let unknown = match self.whose(writer, name).await? {
                        Whose::Its => false,
                        Whose::Unknown => true,
                        Whose::NotIts => return Ok::<_, RepoError>(None),
                    };
                    Ok(Some(Signed { log: false, stored, name, late, unknown }))
                })
                .buffer_unordered(self.env.limits.requests.max(1));
            signed.extend(reads.try_collect::<Vec<_>>().await?.into_iter().flatten());
        }
        Ok(signed)
    }

    /// Whether the writer signed what stands under this name. On an anchor that is not to be had nothing depends: it counts by its
    /// hash.
    async fn whose(&self, writer: WriterId, name: ObjectName) -> Result<Whose, RepoError> {
        let unknown = if matches!(name, ObjectName::Anchor(_)) { Whose::NotIts } else { Whose::Unknown };
        match self.author_of(name).await {
            Ok(author) if author == Some(writer) => Ok(Whose::Its),
            Err(error) if is_unknown(&error) => Ok(unknown),
            Err(error @ (RepoError::Store(_) | RepoError::Cancelled)) => Err(error),
            // The bytes are known, and are not this writer's, or can never count.
            Ok(_) | Err(_) => Ok(Whose::NotIts),
        }
    }

    async fn author_of(&self, name: ObjectName) -> Result<Option<WriterId>, RepoError> {
        Ok(Some(match name {
            ObjectName::Anchor(hash) => self.check_anchor(hash).await?.author,
            ObjectName::Labels(..) => self.read_labels(name).await?.author,
            ObjectName::Cluster(..) => self.cluster_author(name).await?,
            ObjectName::Condemned(_) => self.read_condemnation(name).await?.author,
            ObjectName::Horizon(..) => self.read_horizon(name).await?.author,
            ObjectName::Removed(_) => self.read_said::<Removal>(name).await?.author,
            ObjectName::Undone(_) => self.read_said::<Undo>(name).await?.author,
            ObjectName::Hold(_) => self.read_said::<Hold>(name).await?.author,
            ObjectName::Tomb(..) => self.read_said::<Tomb>(name).await?.author,
            ObjectName::Trimmed(_) => self.read_said::<Trim>(name).await?.author,
            _ => return Ok(None),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::SnapshotId;

    /// Others' garbage must not take the place of what counts: that would be lost with the next collection.
    #[test]
    fn what_only_may_be_a_writers_comes_last() {
        let writer = WriterId::new([1; 16]);
        let name = |number: usize| ObjectName::Snapshot(writer, number as u64, SnapshotId::new([2; 32]));
        let of = |number: usize, unknown| Signed {
            log: false,
            stored: Timestamp(number as i64),
            name: name(number),
            late: false,
            unknown,
        };
        let mut all: Vec<Signed> = (0..ACCEPTED_MAX).map(|number| of(number, true)).collect();
        all.extend([of(ACCEPTED_MAX, false), of(ACCEPTED_MAX + 1, false)]);
        let named = named(all);
        assert_eq!(named.len(), ACCEPTED_MAX);
        let counts = |number| named.binary_search(&name_hash(&name(number))).is_ok();
        assert!([0, ACCEPTED_MAX, ACCEPTED_MAX + 1].into_iter().all(counts));
        assert!(![ACCEPTED_MAX - 2, ACCEPTED_MAX - 1].into_iter().any(counts));
    }
}
