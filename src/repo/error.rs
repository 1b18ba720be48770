//! What can go wrong with a repository as a whole.

use std::path::PathBuf;

use super::rekey::RekeyError;
use super::slots::SlotError;
use crate::class::Class;
use crate::crypto::CryptoError;
use crate::format::FormatError;
use crate::format::keyslot::Role;
use crate::format::log::LogFile;
use crate::id::{ClusterId, RepositoryId, WriterId};
use crate::index::IndexError;
use crate::random::RandomError;
use crate::seal::SealError;
use crate::store::StoreError;

/// Why a repository could not be opened, read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RepoError {
    /// There is no repository at this place.
    #[error("there is no repository at {url}")]
    NotFound {
        /// Where it was looked for.
        url: String,
    },
    /// There is one already.
    #[error("there is a repository at {url} already")]
    AlreadyExists {
        /// Where.
        url: String,
    },
    /// No key slot opens with what was given.
    #[error("no key slot of this repository opens with this {what}")]
    WrongKey {
        /// Passphrase, key file or recovery words.
        what: &'static str,
    },
    /// The key opens the repository, but its role may not do this.
    #[error("this key may not {action}")]
    RoleForbids {
        /// What it may not do.
        action: &'static str,
    },
    /// The key opens the repository, and its role is not one that may do this.
    #[error(
        "a key of role {role} opens this repository, and it cannot {task}: that needs a key of role {needed}"
    )]
    WrongRole {
        /// The role at hand.
        role: Role,
        /// What was to be done.
        task: &'static str,
        /// The roles that may, for people.
        needed: String,
        /// One of them, for the next step.
        one: Role,
    },
    /// The key is from before the keys of the repository were replaced, and something is sealed to the new ones only.
    #[error(
        "this key was made before the keys of the repository were replaced, and does not open what was stored since"
    )]
    StaleKey,
    /// The keys of the repository cannot be replaced.
    #[error(transparent)]
    Rekey(#[from] RekeyError),
    /// Something about key slots.
    #[error(transparent)]
    Slot(#[from] SlotError),
    /// The signed configuration is missing, older than one seen before, or contradicts itself.
    #[error("the configuration of repository {repository} is not trustworthy: {reason}")]
    Untrusted {
        /// The repository.
        repository: RepositoryId,
        /// Why, in words.
        reason: &'static str,
    },
    /// An object does not have the hash its name promises.
    #[error("object {key} does not have the content its name promises")]
    HashMismatch {
        /// The object.
        key: String,
    },
    /// An object is larger than any of its kind may be; nothing of it was read. It is no failure of the store: whoever may
    /// put objects can put such a one.
    #[error("object {key} has {size} bytes, more than the {max} allowed")]
    TooLarge {
        /// The object.
        key: String,
        /// Its size in bytes.
        size: u64,
        /// The most that an object of its kind may have.
        max: u64,
    },
    /// An object's signature is wrong, or its signer is unknown.
    #[error("object {key} is not signed by a registered writer")]
    BadSignature {
        /// The object.
        key: String,
    },
    /// An object is signed by a writer who was revoked, and is not among those that still count.
    #[error("object {key} was signed by writer {writer}, who was revoked before")]
    AfterRevocation {
        /// The object.
        key: String,
        /// Its writer.
        writer: WriterId,
    },
    /// The writer that this key signs as was revoked: nothing that it signs would count.
    #[error(
        "writer {writer}, as whom this key signs, was revoked: nothing that it stores is believed any more"
    )]
    WriterRevoked {
        /// The writer.
        writer: WriterId,
    },
    /// No writer of this id is registered.
    #[error("no writer {writer} is registered")]
    UnknownWriter {
        /// Who was asked for.
        writer: WriterId,
    },
    /// A revocation was begun and not ended.
    #[error("writer {writer} is being revoked, and that was not ended: nothing was collected")]
    Closing {
        /// The writer.
        writer: WriterId,
    },
    /// Two records of a database cluster contradict each other.
    #[error(
        "two different records number {number} of database cluster {cluster} are signed by writers who may"
    )]
    ClusterConflict {
        /// The cluster.
        cluster: ClusterId,
        /// Their number.
        number: u64,
    },
    /// What was sealed of a log file did not open to the same: nothing was stored.
    #[error("{file} was compressed or encrypted wrongly by this machine: nothing was stored")]
    LogRoundTrip {
        /// The file.
        file: LogFile,
    },
    /// What was just stored is not listed: nobody can tell whether it is there.
    #[error("object {key} was stored, and a listing does not show it as it should be")]
    NotListedBack {
        /// The object.
        key: String,
    },
    /// A number in the names of objects is used up.
    #[error("the entries of writer {writer} are numbered up to the last number there is")]
    NoNumber {
        /// Whose.
        writer: WriterId,
    },
    /// An object breaks the format.
    #[error("object {key} is damaged")]
    Damaged {
        /// The object.
        key: String,
        /// The rule it breaks.
        #[source]
        rule: FormatError,
    },
    /// Bytes break the format.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// The object storage failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A key could not be used.
    #[error(transparent)]
    Crypto(#[from] CryptoError),
    /// A segment could not be sealed or opened.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// The index failed.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// The system's random generator failed.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// A local file could not be used.
    #[error("cannot use {}", path.display())]
    Local {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A task inside the program ended without a result.
    #[error("a background task ended unexpectedly")]
    Task,
    /// The run was asked to stop.
    #[error("stopped before the end, as asked")]
    Cancelled,
}

impl RepoError {
    /// What kind of failure this is.
    pub fn class(&self) -> Class {
        match self {
            Self::NotFound { .. } => Class::NoRepository,
            Self::WrongKey { .. }
            | Self::RoleForbids { .. }
            | Self::WrongRole { .. }
            | Self::StaleKey
            | Self::WriterRevoked { .. } => Class::Denied,
            Self::Slot(error) => error.class(),
            Self::Rekey(error) => error.class(),
            Self::Untrusted { .. } | Self::ClusterConflict { .. } => Class::Tampered,
            Self::HashMismatch { .. }
            | Self::BadSignature { .. }
            | Self::AfterRevocation { .. }
            | Self::TooLarge { .. } => Class::Damage,
            Self::Closing { .. } => Class::Refused,
            Self::Damaged { rule, .. } | Self::Format(rule) => match rule {
                FormatError::Version { .. } => Class::NoRepository,
                _ => Class::Damage,
            },
            Self::Store(error) => error.class(),
            Self::Crypto(error) => error.class(),
            Self::Seal(error) => error.class(),
            Self::Index(error) => error.class(),
            Self::Local { source, .. } => match source.kind() {
                std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Class::NoSpace,
                _ => Class::Failed,
            },
            Self::AlreadyExists { .. }
            | Self::NoNumber { .. }
            | Self::UnknownWriter { .. }
            | Self::LogRoundTrip { .. }
            | Self::NotListedBack { .. }
            | Self::Random(_)
            | Self::Task => Class::Failed,
            Self::Cancelled => Class::Cancelled,
        }
    }

    /// Whether an object's bytes are not what its name says: what stood in it, nobody knows.
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::HashMismatch { .. })
    }

    /// Whether an object was had, and is none that counts: anyone who may put objects can put such a one.
    pub fn is_invalid(&self) -> bool {
        matches!(
            self,
            Self::TooLarge { .. }
                | Self::BadSignature { .. }
                | Self::AfterRevocation { .. }
                | Self::Damaged { .. }
                | Self::Format(_)
        )
    }

    /// Names the object whose bytes broke the format.
    pub fn at(key: &str) -> impl FnOnce(FormatError) -> Self + '_ {
        move |rule| Self::Damaged { key: key.to_owned(), rule }
    }
}
