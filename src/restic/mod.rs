//! Reading repositories of restic, formats 1 and 2: keys, snapshots, indexes, packs, blobs, trees.
//!
//! Written from restic's own description of its format. Every name is a SHA-256, every file and blob is AES-256-CTR under
//! Poly1305-AES, and format 2 may compress what is inside.
//!
//! # Invariants
//! * A blob that is handed out has the SHA-256 that it was asked by, and had its authentication code. What does not is damage
//!   that names the blob and its pack; where the repository has another copy, that one is tried.
//! * Nothing that is stored decides how much memory is taken: every file, blob, list and key derivation has a bound, and the
//!   table of blobs lies on the disk when it is large.
//! * An index is a hint. A blob that no index names is looked for in the headers of the packs that no index names, so that
//!   a damaged or outdated index costs time and nothing else. For the same reason it does not matter which index supersedes
//!   which: all are read, and what an old one says wrongly is found to be wrong.
//!
//! # Must not
//! Write to the repository, not even a lock: reading asks for no rights. Whoever removes data from it at the same time makes
//! blobs vanish under the reader, who reports them as missing.

mod blobs;
mod catalog;
mod crypto;
mod error;
mod keyfile;
mod node;
mod pack;
mod parts;
mod repository;
mod snapshot;
mod table;
#[cfg(test)]
pub(crate) mod testing;
mod text;
mod tree;
mod unpacked;

pub use blobs::{BlobKind, Place};
pub use catalog::Catalog;
pub use error::{Fault, ResticError};
pub use node::{Node, NodeType};
pub use repository::Restic;
pub use snapshot::Snapshot;
pub use tree::TreeNodes;
