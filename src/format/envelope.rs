//! `docs/format.md` section 2: the preamble that every object starts with.

use super::FormatError;
use super::wire::Reader;
use crate::id::RepositoryId;

/// The first eight bytes of every object.
pub const MAGIC: [u8; 8] = *b"LIFEBOAT";

/// The format version this program writes.
pub const VERSION: u16 = 1;

/// Length of a [`Preamble`] in bytes.
pub const PREAMBLE_LEN: usize = 32;

/// What an object is. The number is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ObjectKind {
    /// Signed by the root key: parameters and recipients.
    Config = 1,
    /// One way to open the repository.
    KeySlot = 2,
    /// A writer's public key.
    Writer = 3,
    /// Segments and their directory.
    Pack = 4,
    /// Where chunks are.
    Index = 5,
    /// One saved state.
    Snapshot = 6,
    /// The confirmation of a snapshot.
    Confirmation = 7,
    /// Packs that will be deleted.
    Condemnation = 8,
    /// A numbered mark: condemnations before it are complete.
    Horizon = 9,
    /// The wish to remove a snapshot.
    Tomb = 10,
    /// Takes tombs back.
    Undo = 11,
    /// Snapshots that are removed.
    Removal = 12,
    /// Snapshots that nobody may remove.
    Hold = 13,
    /// Tags given to or taken from a snapshot after it was made.
    Labels = 14,
    /// What a store has shown.
    Anchor = 15,
    /// What is known of a database cluster.
    Cluster = 16,
    /// A file of a database's log.
    Log = 17,
    /// Parts of a database's log that may be gone.
    Trim = 18,
    /// What was verified.
    Verified = 19,
    /// Local only, never stored: the last run's state.
    LocalState = 128,
}

impl ObjectKind {
    fn from_number(number: u8) -> Option<Self> {
        [
            Self::Config,
            Self::KeySlot,
            Self::Writer,
            Self::Pack,
            Self::Index,
            Self::Snapshot,
            Self::Confirmation,
            Self::Condemnation,
            Self::Horizon,
            Self::Tomb,
            Self::Undo,
            Self::Removal,
            Self::Hold,
            Self::Labels,
            Self::Anchor,
            Self::Cluster,
            Self::Log,
            Self::Trim,
            Self::Verified,
            Self::LocalState,
        ]
        .into_iter()
        .find(|kind| *kind as u8 == number)
    }
}

/// What a chunk, and with it a segment and a pack, holds. The number is stored and hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum ChunkKind {
    /// Content of files and streams.
    Data = 0,
    /// Pages of trees and of chunk lists.
    Tree = 1,
}

impl ChunkKind {
    /// Both kinds.
    pub const ALL: [Self; 2] = [Self::Data, Self::Tree];

    /// The kind with this number.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == number)
    }
}

/// The first 32 bytes of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Preamble {
    /// What the object is.
    pub kind: ObjectKind,
    /// For a pack the kind of its chunks; zero elsewhere.
    pub chunk_kind: ChunkKind,
    /// Of a config or a writer's entry its number, so that an old one cannot pass for a newer; zero elsewhere.
    pub key_generation: u16,
    /// Dedup domain; zero until there are several.
    pub domain: u16,
    /// The repository the object belongs to.
    pub repository: RepositoryId,
}

impl Preamble {
    /// A preamble of generation 0 in domain 0.
    pub const fn new(kind: ObjectKind, chunk_kind: ChunkKind, repository: RepositoryId) -> Self {
        Self { kind, chunk_kind, key_generation: 0, domain: 0, repository }
    }

    /// The stored form.
    pub fn encode(&self) -> [u8; PREAMBLE_LEN] {
        let mut out = [0; PREAMBLE_LEN];
        out[..8].copy_from_slice(&MAGIC);
        out[8..10].copy_from_slice(&VERSION.to_le_bytes());
        out[10] = self.kind as u8;
        out[11] = self.chunk_kind as u8;
        out[12..14].copy_from_slice(&self.key_generation.to_le_bytes());
        out[14..16].copy_from_slice(&self.domain.to_le_bytes());
        out[16..].copy_from_slice(self.repository.as_bytes());
        out
    }

    /// Reads a preamble and demands that it is of this kind and repository.
    pub fn expect(bytes: &[u8], kind: ObjectKind, repository: &RepositoryId) -> Result<Self, FormatError> {
        let found = Self::decode(bytes)?;
        if found.kind != kind {
            return Err(FormatError::WrongKind { expected: kind as u8, found: found.kind as u8 });
        }
        if found.repository != *repository {
            return Err(FormatError::ForeignRepository { found: found.repository });
        }
        Ok(found)
    }

    /// Reads the preamble at the start of `bytes`.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut reader = Reader::new(bytes);
        if reader.array::<8>()? != MAGIC {
            return Err(FormatError::NotLifeboat);
        }
        let version = reader.u16()?;
        if version != VERSION {
            return Err(FormatError::Version { found: version });
        }
        let kind = reader.u8()?;
        let kind =
            ObjectKind::from_number(kind).ok_or(FormatError::Value { section: "2", what: "object kind" })?;
        let chunk_kind = ChunkKind::from_number(reader.u8()?)
            .ok_or(FormatError::Value { section: "2", what: "chunk kind" })?;
        let key_generation = reader.u16()?;
        let domain = reader.u16()?;
        let repository = RepositoryId::new(reader.array()?);
        Ok(Self { kind, chunk_kind, key_generation, domain, repository })
    }
}
