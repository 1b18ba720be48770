//! The registry of writers: whose signatures count, and for what.
//!
//! # Invariants
//! Of a writer's entries the valid one with the highest number counts. One whose bytes are not what its name says may have
//! taken something from its writer: it is reported, so that whoever removes anything can refuse.
//!
//! What a writer signed after it was revoked counts for nothing, and that is decided by a list that the root key signed: no
//! time, and nothing else that the writer could choose, enters.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use futures::StreamExt;
use tokio::sync::oneshot;

use super::env::Limits;
use super::error::RepoError;
use super::load::at_once;
use super::open::get_checked;
use crate::clock::Timestamp;
use crate::crypto::name_hash;
use crate::crypto::sign::VerifyingKey;
use crate::format::config::{Authority, Standing, WriterEntry};
use crate::format::envelope::ObjectKind;
use crate::format::layout::{self, ObjectName};
use crate::format::signed::{SIGNED_MAX, Signed};
use crate::id::{NameHash, RepositoryId, WriterId};
use crate::store::{Object, Store};

/// The repository, and its root key.
pub(super) type Root = (RepositoryId, VerifyingKey);

/// What is known of one writer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) key: VerifyingKey,
    pub(super) authority: Authority,
    pub(super) stand: Stand,
    /// When the store got its first entry, and the one that counts.
    pub(super) times: (Timestamp, Timestamp),
}

/// A [`Standing`] that is quick to ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Stand {
    Active,
    Closing(Arc<HashSet<NameHash>>),
    Revoked(Arc<HashSet<NameHash>>),
}

impl Known {
    /// Whether this object of the writer counts, if it has signed it.
    pub(super) fn accepts(&self, name: &ObjectName) -> bool {
        match &self.stand {
            Stand::Active | Stand::Closing(_) => true,
            Stand::Revoked(accepted) => accepted.contains(&name_hash(&name.accepted_as())),
        }
    }

    /// Whether somebody may begin to depend on what this object of the writer says.
    pub(super) fn may_depend(&self, name: &ObjectName) -> bool {
        match &self.stand {
            Stand::Active => true,
            Stand::Closing(accepted) | Stand::Revoked(accepted) => {
                accepted.contains(&name_hash(&name.accepted_as()))
            }
        }
    }
}

/// What the registry said when it was read last. Clones share it.
#[derive(Clone)]
pub(super) struct Registry(Arc<Shared>);

struct Shared {
    entries: RwLock<Entries>,
    /// A signature was refused since it was read.
    doubted: AtomicBool,
    version: AtomicU64,
    revocations: AtomicU64,
}

#[derive(Clone, Default)]
struct Entries {
    /// With the number of the entry that says so.
    writers: HashMap<WriterId, (u64, Known)>,
    /// Keys of entries that are damaged, and that are not older than a valid one of their writer.
    damaged: Vec<String>,
    /// Keys of all that was listed.
    listed: Vec<String>,
}

impl Registry {
    /// Reads it, as far as that goes without the repository's root key, which signs every entry, and waits for that.
    pub(super) async fn open(
        place: (&Store, Limits),
        root: oneshot::Receiver<Root>,
    ) -> Result<Self, RepoError> {
        // It is not told if the repository cannot be opened.
        let root = async { root.await.map_err(|_| RepoError::Cancelled) };
        let listed = place.0.list(layout::WRITERS).await?;
        Ok(Self::of(read(place, listed, root).await?))
    }

    fn of(entries: Entries) -> Self {
        let (doubted, version) = (AtomicBool::new(false), AtomicU64::new(0));
        let revocations = AtomicU64::new(0);
        Self(Arc::new(Shared { entries: RwLock::new(entries), doubted, version, revocations }))
    }

    /// What is known of this writer.
    pub(super) fn get(&self, writer: &WriterId) -> Option<Known> {
        let entries = self.0.entries.read().unwrap_or_else(PoisonError::into_inner);
        entries.writers.get(writer).map(|(_, known)| known.clone())
    }

    /// All writers, each with the number of the entry that counts.
    pub(super) fn all(&self) -> Vec<(WriterId, u64, Known)> {
        let entries = self.0.entries.read().unwrap_or_else(PoisonError::into_inner);
        let all = entries.writers.iter().map(|(writer, (number, known))| (*writer, *number, known.clone()));
        all.collect()
    }

    /// Registers a writer until the store is read again.
    #[cfg(test)]
    pub(super) fn add(&self, writer: WriterId, (key, authority): (VerifyingKey, Authority)) {
        let times = (Timestamp(0), Timestamp(0));
        let known = Known { key, authority, stand: Stand::Active, times };
        self.0.entries.write().unwrap().writers.insert(writer, (0, known));
    }

    /// Keys of damaged entries.
    pub(super) fn damaged(&self) -> Vec<String> {
        self.0.entries.read().unwrap_or_else(PoisonError::into_inner).damaged.clone()
    }

    /// Notes that a signature was refused.
    pub(super) fn doubt(&self) {
        self.0.doubted.store(true, Ordering::SeqCst);
    }

    /// Grows when something else is known than before.
    pub(super) fn version(&self) -> u64 {
        self.0.version.load(Ordering::SeqCst)
    }

    /// Grows when something is taken from a writer.
    pub(super) fn revocations(&self) -> u64 {
        self.0.revocations.load(Ordering::SeqCst)
    }

    /// Reads it again if a signature was refused.
    pub(super) async fn refresh(&self, place: (&Store, Limits), root: Root) -> Result<(), RepoError> {
        if !self.0.doubted.swap(false, Ordering::SeqCst) {
            return Ok(());
        }
        let done = self.reread(place, root).await;
        if done.is_err() {
            self.doubt();
        }
        done
    }

    /// Reads it again if other entries are listed than before, or if one was damaged: names carry hashes, so the same names mean
    /// the same content.
    pub(super) async fn reread(&self, place: (&Store, Limits), root: Root) -> Result<(), RepoError> {
        let listed = place.0.list(layout::WRITERS).await?;
        let same = {
            let entries = self.0.entries.read().unwrap_or_else(PoisonError::into_inner);
            entries.damaged.is_empty()
                && entries
                    .listed
                    .iter()
                    .map(String::as_str)
                    .eq(listed.iter().map(|object| object.key.as_str()))
        };
        if !same {
            self.take(read(place, listed, async { Ok(root) }).await?);
        }
        Ok(())
    }

    /// Believes what was read. What an entry said that is gone, or damaged, goes on to count: an older one may give back what
    /// was taken from its writer.
    fn take(&self, mut fresh: Entries) {
        let mut entries = self.0.entries.write().unwrap_or_else(PoisonError::into_inner);
        for (writer, known) in &entries.writers {
            let found = fresh.writers.entry(*writer).or_insert_with(|| known.clone());
            if found.0 < known.0 {
                *found = known.clone();
            }
        }
        // Nothing follows from other names alone: anyone who may put objects can put such.
        let same = fresh.writers == entries.writers && fresh.damaged == entries.damaged;
        let taken = fresh.writers.iter().any(|(writer, (_, known))| {
            let before = entries.writers.get(writer).map_or(&Stand::Active, |(_, known)| &known.stand);
            known.stand != *before
        });
        *entries = fresh;
        if !same {
            self.0.version.fetch_add(1, Ordering::SeqCst);
        }
        if taken {
            self.0.revocations.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Another registry, in which this writer has no more authority than that.
    #[cfg(test)]
    pub(super) fn with_authority(&self, writer: WriterId, authority: Authority) -> Self {
        let mut entries = self.0.entries.read().unwrap().clone();
        entries.writers.get_mut(&writer).unwrap().1.authority = authority;
        Self::of(entries)
    }
}

async fn read(
    (store, limits): (&Store, Limits),
    listed: Vec<Object>,
    root: impl Future<Output = Result<Root, RepoError>>,
) -> Result<Entries, RepoError> {
    let mut newest: HashMap<WriterId, (u64, Known)> = HashMap::new();
    let mut damaged: Vec<(WriterId, u64, String)> = Vec::new();
    let ahead = at_once(limits, listed.iter().map(|object| object.size).max().unwrap_or(0));
    let names = listed.iter().filter_map(|object| match ObjectName::parse(object.key.as_str())? {
        name @ ObjectName::Writer(id, number, _) => Some((name, (id, number), object.modified)),
        _ => None,
    });
    let reads = futures::stream::iter(names)
        .map(async |entry| (entry, get_checked(store, entry.0, SIGNED_MAX as u64).await))
        .buffered(ahead);
    let mut reads = std::pin::pin!(reads);
    let mut first = reads.next().await;
    let (repository, root) = root.await?;
    loop {
        let read = match first.take() {
            Some(read) => Some(read),
            None => reads.next().await,
        };
        let Some(((name, (id, number), stored), read)) = read else { break };
        if newest.get(&id).is_some_and(|(found, ..)| *found > number) {
            continue;
        }
        let bytes = match read {
            Ok(bytes) => bytes,
            // Without the entry everything its writer signed would look forged: that must not come from a bad connection.
            Err(error @ (RepoError::Store(_) | RepoError::Cancelled)) => return Err(error),
            Err(error) if error.is_damage() || matches!(error, RepoError::TooLarge { .. }) => {
                damaged.push((id, number, name.key()));
                continue;
            }
            Err(_) => continue,
        };
        let Some(mut known) = read_entry((repository, root), (id, number), &bytes) else { continue };
        known.times = (newest.get(&id).map_or(stored, |(_, first)| first.times.0), stored);
        if let Some((_, other)) = newest.get(&id).filter(|(found, _)| *found == number) {
            let reason = "two entries of one writer have the same number";
            let known = stricter(other, known).ok_or(RepoError::Untrusted { repository, reason })?;
            newest.insert(id, (number, known));
            continue;
        }
        newest.insert(id, (number, known));
    }
    damaged.retain(|(id, number, _)| newest.get(id).is_none_or(|(found, _)| found < number));
    let damaged = damaged.into_iter().map(|(.., key)| key).collect();
    let listed = listed.iter().map(|object| object.key.as_str().to_owned()).collect();
    Ok(Entries { writers: newest, damaged, listed })
}

/// Of two entries with one number what both let count: two admins may have revoked one writer at the same time. None if they do
/// not speak of the same key.
fn stricter(one: &Known, other: Known) -> Option<Known> {
    if one.key != other.key || one.authority != other.authority {
        return None;
    }
    let both = |one: &HashSet<NameHash>, other: &HashSet<NameHash>| {
        Arc::new(one.intersection(other).copied().collect())
    };
    let stand = match (&one.stand, &other.stand) {
        (Stand::Revoked(one), Stand::Revoked(other)) => Stand::Revoked(both(one, other)),
        (Stand::Closing(one), Stand::Closing(other)) => Stand::Closing(both(one, other)),
        (stand @ Stand::Revoked(_), _) | (_, stand @ Stand::Revoked(_)) => stand.clone(),
        (stand @ Stand::Closing(_), _) | (_, stand) => stand.clone(),
    };
    let times = (one.times.0.min(other.times.0), one.times.1.max(other.times.1));
    Some(Known { stand, times, ..other })
}

/// A valid entry of this writer with this number; none if it is anything else.
fn read_entry(
    (repository, root): (RepositoryId, VerifyingKey),
    (id, number): (WriterId, u64),
    bytes: &[u8],
) -> Option<Known> {
    let decoded = Signed::decode(bytes, ObjectKind::Writer, Some(&repository));
    let (preamble, signed) = decoded.ok()?;
    root.verify(signed.message, &signed.signature).ok()?;
    let entry = WriterEntry::decode(signed.value).ok()?;
    let key = VerifyingKey::from_bytes(entry.key).ok()?;
    let in_place = entry.writer == id && u64::from(preamble.key_generation) == number;
    let stand = match entry.standing {
        Standing::Active => Stand::Active,
        Standing::Closing(accepted) => Stand::Closing(Arc::new(accepted.into_iter().collect())),
        Standing::Revoked(accepted) => Stand::Revoked(Arc::new(accepted.into_iter().collect())),
    };
    let times = (Timestamp(0), Timestamp(0));
    in_place.then_some(Known { key, authority: entry.authority, stand, times })
}
