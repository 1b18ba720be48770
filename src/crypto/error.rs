//! What can go wrong with keys.

use crate::class::Class;
use crate::format::FormatError;
use crate::format::datakey::RecipientId;
use crate::format::keyslot::SlotKind;
use crate::id::RunId;
use crate::random::RandomError;

/// A key that does not fit, bytes that do not authenticate, or a secret that is not well formed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CryptoError {
    /// No random bytes, so nothing was made.
    #[error("no random bytes for a key or a nonce")]
    Random(#[from] RandomError),
    /// A stored form that does not decode.
    #[error("a stored key does not decode")]
    Format(#[from] FormatError),
    /// The tag does not match: damage, another key, or bytes that belong elsewhere.
    #[error("the bytes do not authenticate")]
    Authentication,
    /// The bytes are too many for one encryption.
    #[error("{len} bytes cannot be encrypted at once")]
    TooLong {
        /// How many there are.
        len: usize,
    },
    /// The commitment says that this key or passphrase is not the right one.
    #[error("wrong key or passphrase")]
    WrongKey,
    /// The data key is not sealed to this private key.
    #[error("the data key of run {run} is not sealed to recipient {recipient}")]
    NotRecipient {
        /// The run whose key it is.
        run: RunId,
        /// The recipient that was looked for.
        recipient: RecipientId,
    },
    /// A data key needs at least one recipient and at most a few.
    #[error("a data key cannot be sealed to {count} recipients")]
    Recipients {
        /// How many were given.
        count: usize,
    },
    /// A public key that is not one.
    #[error("{what} is not a valid public key")]
    PublicKey {
        /// Which.
        what: &'static str,
    },
    /// The signature is not by this key over this message.
    #[error("the signature does not verify")]
    Signature,
    /// The cost of a key derivation is outside of what the format allows.
    #[error("{what} of the key derivation is {value}, allowed is {least} to {most}")]
    KdfCost {
        /// Which cost.
        what: &'static str,
        /// What was asked for.
        value: u32,
        /// The floor.
        least: u32,
        /// The cap.
        most: u32,
    },
    /// There is not enough memory for the key derivation.
    #[error("the key derivation needs {kib} KiB of memory and could not get it")]
    KdfMemory {
        /// How much it needs.
        kib: u32,
    },
    /// The slot is of another kind than the key that was tried on it.
    #[error("the key slot is for a {found}, not for a {tried}")]
    SlotKind {
        /// What was tried.
        tried: SlotKind,
        /// What the slot is for.
        found: SlotKind,
    },
    /// A role lacks a secret it needs, or has one it must not have.
    #[error("a {role} {} the {secret}", if *.missing { "needs" } else { "must not hold" })]
    RoleSecret {
        /// The role's name.
        role: &'static str,
        /// The secret's name.
        secret: &'static str,
        /// Whether it lacks the secret.
        missing: bool,
    },
    /// A block out of order, or past the end of its object.
    #[error("block {block} cannot follow: the next of {count} is {next}")]
    BlockOrder {
        /// The block that was given.
        block: u32,
        /// The first block that may come.
        next: u32,
        /// How many blocks the object has.
        count: u32,
    },
    /// The text is not 24 words.
    #[error("expected 24 recovery words, found {found}")]
    WordCount {
        /// How many words there are.
        found: usize,
    },
    /// A word that is not on the list.
    #[error("recovery word {position} is not on the list of words")]
    UnknownWord {
        /// Which word, from 1.
        position: usize,
    },
    /// All words are on the list, but together they are not a key.
    #[error("the checksum of the recovery words is wrong: a word is mistaken or out of place")]
    WordChecksum,
    /// A key file that does not start and divide as one.
    #[error("not a Lifeboat key file")]
    KeyFileSyntax,
    /// A key file with a typing error.
    #[error("the checksum of the key file is wrong")]
    KeyFileChecksum,
}

impl CryptoError {
    /// What kind of failure this is.
    pub fn class(&self) -> Class {
        match self {
            Self::Random(_) | Self::KdfMemory { .. } | Self::TooLong { .. } | Self::BlockOrder { .. } => {
                Class::Failed
            }
            Self::Recipients { .. } => Class::Failed,
            Self::Format(FormatError::Version { .. }) => Class::NoRepository,
            Self::Format(_) | Self::Authentication | Self::PublicKey { .. } => Class::Damage,
            Self::Signature => Class::Tampered,
            Self::KdfCost { .. } => Class::Refused,
            Self::WrongKey | Self::NotRecipient { .. } | Self::SlotKind { .. } | Self::RoleSecret { .. } => {
                Class::Denied
            }
            Self::WordCount { .. }
            | Self::UnknownWord { .. }
            | Self::WordChecksum
            | Self::KeyFileSyntax
            | Self::KeyFileChecksum => Class::Usage,
        }
    }
}
