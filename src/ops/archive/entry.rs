//! One entry of an archive, and why one is not in it.

use crate::class::Class;
use crate::format::node::Node;
use crate::ops::restore::flaw::Flaw;

/// Why an entry is left out of the archive or is in it in part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Problem {
    #[error(transparent)]
    Flaw(#[from] Flaw),
    #[error(
        "a part of its content has no readable copy, and its beginning was in the archive already: a link without a target replaces it there"
    )]
    LostMidway,
    #[error(
        "a part of its content has no readable copy, and its beginning was in the archive already: the list of the archive does not name it"
    )]
    LostUnlisted,
    #[error("an archive cannot hold a socket")]
    Socket,
    #[error("a zip archive cannot hold pipes and devices")]
    NotInZip,
    #[error("its device number does not fit into an archive")]
    Device,
    #[error("its name is too long for a zip archive")]
    LongName,
    #[error("programs on other systems would unpack its name elsewhere, so a zip archive must not hold it")]
    ForeignPath,
    #[error("a zip archive cannot hold its extended attributes and access control lists")]
    Attributes,
    #[error("its name is not UTF-8: it is in the archive, but few programs unpack it")]
    ForeignName,
    #[error("the name of an extended attribute cannot be written")]
    AttributeName,
}

impl Problem {
    /// What kind of failure this is.
    pub(super) fn class(self) -> Class {
        match self {
            Self::Flaw(flaw) => flaw.class(),
            Self::LostMidway | Self::LostUnlisted => Class::Damage,
            _ => Class::Partial,
        }
    }
}

/// An entry on its way into the archive.
#[derive(Debug)]
pub(super) struct Entry {
    /// Stored path, for messages.
    path: Box<[u8]>,
    /// How much of the path the archive leaves out.
    cut: usize,
    pub(super) node: Box<Node>,
}

impl Entry {
    /// `cut` bytes of the path, the slash after them included, are above what was asked for.
    pub(super) fn new(path: &[u8], cut: usize, node: Box<Node>) -> Self {
        Self { path: path.into(), cut: cut.min(path.len()), node }
    }

    /// Stored path.
    pub(super) fn path(&self) -> &[u8] {
        &self.path
    }

    /// The name in the archive: relative, of plain components; empty for the directory that was asked for.
    pub(super) fn name(&self) -> &[u8] {
        &self.path[self.cut..]
    }

    /// About how much memory it takes.
    pub(super) fn weight(&self) -> usize {
        // Holes are kept twice, in the layout too.
        size_of::<Node>()
            + self.path.len()
            + self.node.held()
            + self.node.holes.len() * size_of::<(u64, u64)>()
    }
}

/// Bytes of a file, ready to be written.
#[derive(Debug)]
pub(super) struct Piece {
    /// Where in the file they belong.
    pub(super) place: u64,
    pub(super) raw: Vec<u8>,
    /// The same compressed, if the archive compresses.
    pub(super) packed: Option<super::zip::Packed>,
}

/// Why something was not written.
#[derive(Debug)]
pub(super) enum Refusal {
    /// The archive cannot hold it.
    Entry(Problem),
    /// Nothing more can be written.
    Run(crate::error::Error),
}

impl From<crate::error::Error> for Refusal {
    fn from(error: crate::error::Error) -> Self {
        Self::Run(error)
    }
}
