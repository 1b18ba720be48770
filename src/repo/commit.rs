//! The commit of a snapshot: index objects, the snapshot, the check, the confirmation (`docs/protocol.md`, Writer 3 and 4).

use std::cmp::Reverse;
use std::collections::HashSet;

use bytes::Bytes;

use super::error::RepoError;
use super::index_object::seal_index_object;
use super::load::{LoadedIndex, Problem};
use super::open::{Repository, object_key};
use super::pack::{FinishedPack, PackKeys, open_directory};
use super::seen::SeenSnapshots;
use super::snapshots::Listed;
use crate::class::Class;
use crate::crypto::object_hash;
use crate::crypto::sign::SigningKey;
use crate::format::index::{IndexBuilder, IndexTables, NewChunk, NewPack};
use crate::format::layout::{NUMBER_MAX, ObjectName};
use crate::format::pack::{Directory, FOOTER_LEN, Footer, PACK_MAX};
use crate::id::{ObjectHash, PackId, SnapshotId};

/// Bytes of a pack's tail that are fetched at first; most directories fit.
const TAIL: u64 = 256 << 10;

/// How many names may turn out to be no snapshot of the writer; after that only those count that this machine has seen
/// confirmed. Anyone who may put objects can put names without end.
const HEADS_READ: usize = 50;

/// The packs a snapshot depends on: new ones, dedup hits, and everything inherited from the last run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dependencies(pub HashSet<PackId>);

/// What the check after the commit says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckOutcome {
    /// Nothing the snapshot depends on is condemned or gone.
    Clean,
    /// Something is: other copies of what it held must be found, or stored.
    Lost,
}

/// A writer's latest snapshots: what the next one follows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Heads {
    /// Number of the next snapshot.
    pub next: u64,
    /// The latest; several if runs overlapped.
    pub parents: Vec<SnapshotId>,
}

/// What stands under the name of a writer's snapshot.
enum Head {
    /// A snapshot that the writer signed under this number.
    Own,
    /// Something that the store does not give.
    Hidden,
    /// Anything else.
    Other,
}

impl Repository {
    /// The heads of this key's writer: of the snapshots that it signed those with the highest number. Those that this
    /// machine has seen confirmed need not be read.
    ///
    /// A snapshot that the store lists and does not give costs its number. One that is damaged, or that is passed by because
    /// too many names stand above it, does not: anyone may put such a name. Both cost their place among the parents.
    pub async fn heads(&self) -> Result<Heads, RepoError> {
        let mut listed = self.list_snapshots_of(self.writer()?.0).await?;
        listed.sort_unstable_by_key(|snapshot| Reverse((snapshot.sequence, snapshot.id)));
        let (mut last, mut hidden, mut parents, mut left) = (None, None, Vec::new(), HEADS_READ);
        for snapshot in listed {
            if last.is_some_and(|last| snapshot.sequence < last) {
                break;
            }
            match self.head(snapshot, &mut left).await? {
                Head::Own => {
                    last = Some(snapshot.sequence);
                    parents.push(snapshot.id);
                }
                // There must be a number after it.
                Head::Hidden if snapshot.sequence < NUMBER_MAX => {
                    hidden = hidden.max(Some(snapshot.sequence))
                }
                Head::Hidden | Head::Other => {}
            }
        }
        Ok(Heads { next: last.max(hidden).map_or(0, |last| last + 1), parents })
    }

    /// What stands under this name, as far as `left` more reads in vain can tell.
    async fn head(&self, listed: Listed, left: &mut usize) -> Result<Head, RepoError> {
        if SeenSnapshots::is_noted(self, &listed) {
            return Ok(Head::Own);
        }
        if *left == 0 {
            return Ok(Head::Other);
        }
        let error = match self.check_snapshot(listed).await {
            Ok(()) => return Ok(Head::Own),
            Err(error) => error,
        };
        *left -= 1;
        match error {
            RepoError::Store(error) if error.is_not_found() => {
                Ok(if self.is_listed(listed.name()).await? { Head::Hidden } else { Head::Other })
            }
            RepoError::Store(error) => match error.class() {
                // Of this object only: no reason to store nothing.
                Class::Failed | Class::Damage | Class::Denied => Ok(Head::Hidden),
                _ => Err(error.into()),
            },
            RepoError::Cancelled => Err(error),
            _ => Ok(Head::Other),
        }
    }

    /// Adds a finished pack to an index object under construction.
    pub fn index_pack(
        builder: &mut IndexBuilder,
        (id, kind, size): (PackId, crate::format::envelope::ChunkKind, u64),
        footer: &Footer,
        directory: &Directory,
    ) -> Result<(), RepoError> {
        let mut segments = directory.segments.clone();
        let mut keys = Vec::with_capacity(directory.data_keys.len());
        for sealed in &directory.data_keys {
            keys.push(builder.data_key(sealed)?);
        }
        let mut origins = Vec::with_capacity(directory.origins.len());
        for origin in &directory.origins {
            origins.push(builder.origin(*origin)?);
        }
        for segment in &mut segments {
            // The directory was decoded or made here: its rows are in range.
            segment.data_key = keys.get(usize::from(segment.data_key)).copied().unwrap_or(0);
            segment.origin = origins.get(usize::from(segment.origin)).copied().unwrap_or(0);
        }
        let pack = NewPack {
            id,
            size: u32::try_from(size).unwrap_or(u32::MAX),
            directory_offset: footer.directory_offset,
            directory_len: footer.directory_len,
            kind,
        };
        let chunks: Vec<_> = directory
            .chunks
            .iter()
            .map(|c| NewChunk { id: c.id, segment: c.segment, offset: c.offset, len: c.len })
            .collect();
        Ok(builder.add_pack(pack, &segments, &chunks)?)
    }

    /// Puts a finished pack. The caller has noted it in the journal.
    pub async fn put_pack(&self, pack: &FinishedPack) -> Result<(), RepoError> {
        Ok(self.store.put(&object_key(ObjectName::Pack(pack.id))?, vec![pack.bytes.clone()]).await?)
    }

    /// Seals an index object, signs it with its author's key, and puts it; the packs it names must be durable.
    pub async fn put_index(
        &self,
        tables: &IndexTables,
        signing: &SigningKey,
    ) -> Result<ObjectHash, RepoError> {
        let (repository, index, writer) = (self.id(), self.index_key()?, tables.author);
        let keys = PackKeys { repository, index, writer, signing, data_key: &[] };
        let bytes = seal_index_object(tables, &keys, &*self.env.random)?;
        let hash = object_hash(&bytes);
        let name = ObjectName::Index(tables.author, hash);
        self.store.put(&object_key(name)?, vec![Bytes::from(bytes)]).await?;
        Ok(hash)
    }

    /// Step 4: condemnations first, the horizon second; the packs again if the horizon moved, which updates `index`. What is
    /// damaged under the name of a higher horizon may be one, or garbage: it counts as moved. The registry third: if someone
    /// was revoked since the index was loaded, all of it must be looked up again.
    ///
    /// What is condemned or gone is added to `lost`. The caller keeps that from check to check until it has found or stored
    /// other copies: once the horizon was read again, the same check would come out clean.
    pub async fn check_commit(
        &self,
        index: &mut LoadedIndex,
        dependencies: &Dependencies,
        lost: &mut HashSet<PackId>,
    ) -> Result<CheckOutcome, RepoError> {
        let mut problems = Vec::new();
        let condemned = self.condemned(&mut problems).await?;
        // A condemnation that cannot be read may name a pack that this snapshot depends on.
        if let Some(problem) = problems.into_iter().find(Problem::is_damage) {
            return Err(problem.error);
        }
        let (horizon, damaged) = self.listed_horizon().await?;
        lost.extend(dependencies.0.intersection(&condemned));
        if horizon != index.horizon || !damaged.is_empty() {
            index.horizon = horizon;
            index.packs = self.list_packs().await?;
            lost.extend(dependencies.0.iter().filter(|pack| !index.packs.contains(pack)));
        }
        index.condemned.extend(condemned);
        // Whoever revokes lists what still counts after he said that he will: what was seen before this, and is not in that
        // list, was stored too late, and nothing may depend on it.
        self.still_counts().await?;
        if self.revocations() != index.revocations {
            lost.extend(&dependencies.0);
        }
        Ok(if lost.is_empty() { CheckOutcome::Clean } else { CheckOutcome::Lost })
    }

    /// Reads a pack's directory by one or two requests. The pack's own hash is not checked: the directory's seal is.
    pub async fn read_directory(&self, id: PackId, size: u64) -> Result<(Footer, Directory), RepoError> {
        let name = ObjectName::Pack(id);
        let key = object_key(name)?;
        let damaged = || crate::format::FormatError::Truncated;
        if size < FOOTER_LEN as u64 || size > PACK_MAX as u64 {
            return Err(RepoError::at(key.as_str())(damaged()));
        }
        let start = size.saturating_sub(TAIL);
        let mut tail = self.store.get_range(&key, start..size).await?;
        let footer =
            Footer::decode(&tail[tail.len() - FOOTER_LEN..], size).map_err(RepoError::at(key.as_str()))?;
        if u64::from(footer.directory_offset) < start {
            tail = self.store.get_range(&key, u64::from(footer.directory_offset)..size).await?;
        }
        open_directory(self.index_key()?, self.id(), &tail, size)
    }
}
