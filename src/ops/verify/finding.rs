//! What a verification has to say: typed findings in a fixed order.

use std::fmt;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::id::{ChunkId, PackId, SnapshotId};
use crate::index::IndexError;
use crate::ops::ledger::{Coverage, Forecast};
use crate::repo::RepoError;

/// Most affected paths that a finding names; the others are counted.
pub const AFFECTED_MAX: usize = 100;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Something stored is lost or wrong.
    Damage,
    /// Nothing that was acknowledged is lost.
    Warning,
}

/// A file or directory that cannot be restored as it was.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Affected {
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// The stored path in it; empty for all of it.
    pub path: Vec<u8>,
}

/// One result of a verification.
#[derive(Debug)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// The object.
    pub key: String,
    /// What is wrong with it.
    pub problem: Problem,
    /// What it hits, as far as that is known; at most [`AFFECTED_MAX`].
    pub affected: Vec<Affected>,
    /// How many paths it hits, counted again in each snapshot.
    pub affected_count: u64,
}

/// What is wrong.
#[derive(Debug)]
#[non_exhaustive]
pub enum Problem {
    /// The name is not one of an object: something that does not belong here.
    ForeignName,
    /// It belongs to another repository, or is what an interrupted `init` left.
    ForeignObject,
    /// The content is not the one whose hash is in the name.
    HashMismatch,
    /// It cannot be read, decoded or trusted.
    Invalid(RepoError),
    /// Something refers to it, and it is not there.
    Missing,
    /// It is larger than any object of its kind.
    TooLarge {
        /// Its size in bytes.
        size: u64,
    },
    /// The listing shows another size than the index.
    WrongSize {
        /// Bytes by the index.
        expected: u64,
        /// Bytes by the listing.
        found: u64,
    },
    /// No index object lists this pack: a run was cut short, or an index object is gone.
    Unindexed,
    /// The snapshot was stored but never acknowledged.
    Unconfirmed,
    /// A later snapshot of the same writer follows this one, it is not there, and nothing says that it was removed.
    ParentMissing {
        /// The one that is gone.
        parent: SnapshotId,
    },
    /// A chunk that a snapshot needs is in no index object.
    ChunkUnknown {
        /// The chunk.
        chunk: ChunkId,
    },
    /// A chunk is indexed with another length, or as another kind, than its snapshot says.
    ChunkDiffers {
        /// The chunk.
        chunk: ChunkId,
    },
    /// A page of a directory or of a file's chunk list cannot be read.
    Page {
        /// The page.
        chunk: ChunkId,
        /// Why.
        error: RepoError,
    },
    /// An entry of a directory contradicts itself or its neighbours.
    Entry {
        /// How.
        what: &'static str,
    },
    /// More missing chunks and unreadable pages than are listed one by one.
    More {
        /// How many.
        count: u64,
    },
    /// Segments of the pack do not open to the chunks they should hold.
    Segments {
        /// How many.
        damaged: usize,
        /// Of how many.
        of: usize,
    },
    /// The pack's directory or the frame around it cannot be read.
    Directory(RepoError),
    /// The directory says something else of the pack's bytes than they are.
    BodyHash,
    /// The pack's origin has not signed what it holds.
    OriginSignature,
    /// Index and directory contradict each other.
    IndexDiffers {
        /// About what.
        what: &'static str,
    },
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ForeignName => f.write_str("is not the name of an object"),
            Self::ForeignObject => f.write_str("belongs to another repository"),
            Self::HashMismatch => f.write_str("does not have the content its name promises"),
            Self::Invalid(error) => write_chain(f, "is not valid", error),
            Self::Missing => f.write_str("is missing"),
            Self::TooLarge { size } => write!(f, "has {size} bytes, more than such an object may have"),
            Self::WrongSize { expected, found } => {
                write!(f, "has {found} bytes, the index says {expected}")
            }
            Self::Unindexed => f.write_str("is in no index object"),
            Self::Unconfirmed => f.write_str("was never confirmed"),
            Self::ParentMissing { parent } => write!(f, "follows snapshot {parent}, which is gone"),
            Self::ChunkUnknown { chunk } => write!(f, "needs chunk {chunk}, which is in no index object"),
            Self::ChunkDiffers { chunk } => {
                write!(f, "needs chunk {chunk}, which the index has with another length or kind")
            }
            Self::Page { chunk, error } => write_chain(f, format_args!("page {chunk} cannot be read"), error),
            Self::Entry { what } => write!(f, "has an entry that {what}"),
            Self::More { count } => write!(f, "{count} more problems like these"),
            Self::Segments { damaged, of } => write!(f, "{damaged} of {of} segments are damaged"),
            Self::Directory(error) => write_chain(f, "has a damaged directory", error),
            Self::BodyHash => f.write_str("has a directory that belongs to other content"),
            Self::OriginSignature => f.write_str("is not signed by the writer it comes from"),
            Self::IndexDiffers { what } => write!(f, "differs from the index in {what}"),
        }
    }
}

fn write_chain(
    f: &mut fmt::Formatter<'_>,
    what: impl fmt::Display,
    error: &(dyn std::error::Error + 'static),
) -> fmt::Result {
    write!(f, "{what}: {error}")?;
    let mut source = error.source();
    while let Some(error) = source {
        write!(f, ": {error}")?;
        source = error.source();
    }
    Ok(())
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.key, self.problem)
    }
}

impl Finding {
    /// Damage of an object; what nobody believes because its writer was revoked before is none.
    pub(super) fn damage(key: impl Into<String>, problem: Problem) -> Self {
        let severity = match &problem {
            Problem::Invalid(RepoError::AfterRevocation { .. }) => Severity::Warning,
            _ => Severity::Damage,
        };
        Self { severity, key: key.into(), problem, affected: Vec::new(), affected_count: 0 }
    }

    /// Something worth knowing that loses nothing.
    pub(super) fn warning(key: impl Into<String>, problem: Problem) -> Self {
        Self { severity: Severity::Warning, ..Self::damage(key, problem) }
    }

    /// Adds what an impact hits.
    pub(super) fn hit(&mut self, impact: Impact) {
        if impact.count > 0 && impact.confirmed {
            self.severity = Severity::Damage;
        }
        self.affected_count += impact.count;
        let room = AFFECTED_MAX.saturating_sub(self.affected.len());
        self.affected.extend(impact.affected.into_iter().take(room));
    }
}

/// What a lost chunk or pack hits.
#[derive(Debug, Default)]
pub(super) struct Impact {
    pub(super) affected: Vec<Affected>,
    pub(super) count: u64,
    /// Whether a confirmed snapshot is among the hit.
    pub(super) confirmed: bool,
}

impl Impact {
    pub(super) fn add(&mut self, snapshot: SnapshotId, path: impl FnOnce() -> Vec<u8>, confirmed: bool) {
        self.count += 1;
        self.confirmed |= confirmed;
        if self.affected.len() < AFFECTED_MAX {
            self.affected.push(Affected { snapshot, path: path() });
        }
    }
}

/// What the ledger says after a verification.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Covered {
    /// How much was verified so, or more closely, and when.
    pub coverage: Coverage,
    /// When all of it will have been again, if each run does as much as this one; none if this one did nothing.
    pub forecast: Option<Forecast>,
    /// Objects that were found damaged before, and that this run did not look at.
    pub known: u64,
    /// When this was so.
    pub at: Timestamp,
}

/// What a verification found, and how much it looked at.
#[derive(Debug, Default)]
pub struct VerifyReport {
    /// In the order of their keys.
    pub findings: Vec<Finding>,
    /// Objects that were checked.
    pub objects: u64,
    /// Bytes that were fetched.
    pub bytes: u64,
    /// Chunks: recomputed, at [`super::Depth::Data`]; elsewhere those in the index.
    pub chunks: u64,
    /// Snapshots whose trees were walked.
    pub snapshots: u64,
    /// Snapshots of which only the signature was checked, because the key does not open them: what is below them nobody looked
    /// at.
    pub closed: u64,
    /// What the ledger says now of all that is stored, if it was told.
    pub coverage: Option<Covered>,
    /// How long it took.
    pub elapsed: Duration,
}

impl VerifyReport {
    /// Whether there is damage, also what is known from before: warnings alone are none.
    pub fn has_damage(&self) -> bool {
        let known = self.coverage.is_some_and(|covered| covered.known > 0);
        known || self.findings.iter().any(|finding| finding.severity == Severity::Damage)
    }

    pub(super) fn sort(&mut self) {
        self.findings.sort_by_cached_key(|finding| (finding.key.clone(), finding.problem.to_string()));
    }
}

/// A pack that does not give what the index promises.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum BadPack {
    /// Nothing of it can be had.
    Whole,
    /// These segments are damaged, ascending.
    Segments(Vec<u16>),
}

/// A failure of the index cache is one of this machine, not of the repository.
pub(super) fn is_local(error: &RepoError) -> bool {
    matches!(error, RepoError::Index(IndexError::CacheDamaged { .. } | IndexError::TooMany { .. }))
}

/// The key of a pack.
pub(super) fn pack_key(pack: PackId) -> String {
    crate::format::layout::ObjectName::Pack(pack).key()
}
