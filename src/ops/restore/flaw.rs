//! What can be wrong with an entry of a snapshot, wherever it is restored to.

use crate::class::Class;

/// Why an entry is left out or to be doubted, whatever it is restored to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(in crate::ops) enum Flaw {
    #[error("it could not be read when it was backed up")]
    Unsaved,
    #[error("it changed while it was backed up")]
    ChangedThen,
    #[error("its name is not one plain component")]
    UnsafeName,
    #[error("its size does not agree with its content")]
    Size,
    #[error("a part of its content has no readable copy")]
    Lost,
}

impl Flaw {
    /// What kind of failure this is.
    pub(in crate::ops) fn class(self) -> Class {
        match self {
            Self::Unsaved | Self::ChangedThen => Class::Partial,
            Self::UnsafeName | Self::Size | Self::Lost => Class::Damage,
        }
    }
}
