//! The registry of writers: whose signatures count, and for what.
//!
//! # Invariants
//! Of a writer's entries the valid one with the highest number counts. One whose bytes are not what its name says may have
//! taken something from its writer: it is reported, so that whoever removes anything can refuse.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use futures::StreamExt;
use tokio::sync::oneshot;

use super::env::Limits;
use super::error::RepoError;
use super::open::get_checked;
use crate::crypto::sign::VerifyingKey;
use crate::format::config::{Authority, WriterEntry};
use crate::format::envelope::ObjectKind;
use crate::format::layout::{self, ObjectName};
use crate::format::signed::{SIGNED_MAX, Signed};
use crate::id::{RepositoryId, WriterId};
use crate::store::Store;

/// Entries up to this size are fetched several at a time: a true one has a few hundred bytes, and others may put larger ones.
const SMALL: u64 = 64 << 10;

/// The repository, and its root key.
pub(super) type Root = (RepositoryId, VerifyingKey);

/// What is known of one writer.
pub(super) type Known = (VerifyingKey, Authority);

/// What the registry said when it was read last. Clones share it.
#[derive(Clone)]
pub(super) struct Registry(Arc<Shared>);

struct Shared {
    entries: RwLock<Entries>,
    /// A signature was refused since it was read.
    doubted: AtomicBool,
    version: AtomicU64,
}

#[derive(Clone, Default, PartialEq, Eq)]
struct Entries {
    /// With the number of the entry that says so.
    writers: HashMap<WriterId, (u64, Known)>,
    /// Keys of entries that are damaged, and that are not older than a valid one of their writer.
    damaged: Vec<String>,
}

impl Registry {
    /// Reads it, as far as that goes without the repository's root key, which signs every entry, and waits for that.
    pub(super) async fn open(
        place: (&Store, Limits),
        root: oneshot::Receiver<Root>,
    ) -> Result<Self, RepoError> {
        // It is not told if the repository cannot be opened.
        let root = async { root.await.map_err(|_| RepoError::Cancelled) };
        Ok(Self::of(read(place, root).await?))
    }

    fn of(entries: Entries) -> Self {
        let (doubted, version) = (AtomicBool::new(false), AtomicU64::new(0));
        Self(Arc::new(Shared { entries: RwLock::new(entries), doubted, version }))
    }

    /// What is known of this writer.
    pub(super) fn get(&self, writer: &WriterId) -> Option<Known> {
        let entries = self.0.entries.read().unwrap_or_else(PoisonError::into_inner);
        entries.writers.get(writer).map(|(_, known)| *known)
    }

    /// Registers a writer until the store is read again.
    #[cfg(test)]
    pub(super) fn add(&self, writer: WriterId, known: Known) {
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

    /// Reads it again if a signature was refused. What an entry said that is gone, or damaged, goes on to count: an older one
    /// may give back what was taken from its writer.
    pub(super) async fn refresh(&self, place: (&Store, Limits), root: Root) -> Result<(), RepoError> {
        if !self.0.doubted.swap(false, Ordering::SeqCst) {
            return Ok(());
        }
        let mut fresh = match read(place, async { Ok(root) }).await {
            Ok(fresh) => fresh,
            Err(error) => {
                self.doubt();
                return Err(error);
            }
        };
        let mut entries = self.0.entries.write().unwrap_or_else(PoisonError::into_inner);
        for (writer, known) in &entries.writers {
            let found = fresh.writers.entry(*writer).or_insert(*known);
            if found.0 < known.0 {
                *found = *known;
            }
        }
        if fresh != *entries {
            *entries = fresh;
            self.0.version.fetch_add(1, Ordering::SeqCst);
        }
        Ok(())
    }

    /// Another registry, in which this writer has no more authority than that.
    #[cfg(test)]
    pub(super) fn with_authority(&self, writer: WriterId, authority: Authority) -> Self {
        let mut entries = self.0.entries.read().unwrap().clone();
        entries.writers.get_mut(&writer).unwrap().1.1 = authority;
        Self::of(entries)
    }
}

async fn read(
    (store, limits): (&Store, Limits),
    root: impl Future<Output = Result<Root, RepoError>>,
) -> Result<Entries, RepoError> {
    let mut newest: HashMap<WriterId, (u64, Known)> = HashMap::new();
    let mut damaged: Vec<(WriterId, u64, String)> = Vec::new();
    let listed = store.list(layout::WRITERS).await?;
    let ahead = if listed.iter().all(|object| object.size <= SMALL) { limits.requests.max(1) } else { 1 };
    let names = listed.iter().filter_map(|object| match ObjectName::parse(object.key.as_str())? {
        name @ ObjectName::Writer(id, number, _) => Some((name, id, number)),
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
        let Some(((name, id, number), read)) = read else { break };
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
        let Some(known) = read_entry((repository, root), (id, number), &bytes) else { continue };
        if newest.insert(id, (number, known)).is_some_and(|(found, ..)| found == number) {
            let reason = "two entries of one writer have the same number";
            return Err(RepoError::Untrusted { repository, reason });
        }
    }
    damaged.retain(|(id, number, _)| newest.get(id).is_none_or(|(found, _)| found < number));
    Ok(Entries { writers: newest, damaged: damaged.into_iter().map(|(.., key)| key).collect() })
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
    in_place.then_some((key, entry.authority))
}
