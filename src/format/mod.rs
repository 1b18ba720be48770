//! The stored format: bytes to values and back. The authority is `docs/format.md`; each file here mirrors a section.
//!
//! # Invariants
//! Every decoder bounds every length before it allocates, and refuses what it does not understand. Encoding is
//! deterministic: the same value has one stored form.
//!
//! # Must not
//! Do I/O, hold a key, read a clock.

pub mod anchor;
mod cbor;
pub mod cluster;
pub mod config;
pub mod content;
pub mod datakey;
pub mod envelope;
pub mod gc;
pub mod index;
pub mod keyslot;
pub mod labels;
pub mod layout;
pub mod ledger;
pub mod log;
pub mod node;
pub mod pack;
pub mod postgres;
pub mod rights;
pub mod sealed;
pub mod segment;
pub mod signed;
pub mod snapshot;
pub mod tree;
pub mod wire;

use crate::id::RepositoryId;

/// Bytes that break a rule of `docs/format.md`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FormatError {
    /// Section 2: the magic is missing.
    #[error("not a Lifeboat object")]
    NotLifeboat,
    /// Section 2: written by a newer program.
    #[error("format version {found} is newer than this program understands")]
    Version {
        /// The version in the object.
        found: u16,
    },
    /// Section 2: an object of another kind stands under this name.
    #[error("an object of kind {found} stands where kind {expected} belongs")]
    WrongKind {
        /// The kind that belongs there.
        expected: u8,
        /// The kind that was found.
        found: u8,
    },
    /// Section 2: the object belongs to another repository.
    #[error("the object belongs to repository {found}")]
    ForeignRepository {
        /// The repository it names.
        found: RepositoryId,
    },
    /// The bytes end too early.
    #[error("the object is truncated")]
    Truncated,
    /// There are more bytes than the value needs.
    #[error("the object has trailing bytes")]
    TrailingBytes,
    /// A field holds a value that its section does not allow.
    #[error("{what} breaks section {section} of the format")]
    Value {
        /// The section of `docs/format.md`.
        section: &'static str,
        /// The field.
        what: &'static str,
    },
    /// A CBOR value does not decode.
    #[error("{what} is not valid CBOR (section {section} of the format)")]
    Cbor {
        /// The section of `docs/format.md`.
        section: &'static str,
        /// The value.
        what: &'static str,
    },
}
