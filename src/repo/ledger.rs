//! The ledger: what was verified, when, how, and by whom.
//!
//! # Invariants
//! Only what someone signed counts who holds the authority of a verifier, and of whoever was revoked nothing does. The store says
//! when a record was put, so no clock of a client makes anything look verified that was not.
//!
//! # Crash
//! What was verified since the last record is verified again.

use super::create::put_signed;
use super::error::RepoError;
use super::load::Problem;
use super::marks::Said;
use super::open::Repository;
use crate::clock::Timestamp;
use crate::format::FormatError;
use crate::format::config::Authority;
use crate::format::envelope::ObjectKind;
use crate::format::layout::{self, ObjectName};
use crate::format::ledger::{Look, Verified};
use crate::id::{ObjectHash, WriterId};

/// A record as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredVerified {
    /// Its name.
    pub hash: ObjectHash,
    /// What it says.
    pub verified: Verified,
    /// When the store got it.
    pub stored: Timestamp,
}

impl StoredVerified {
    /// When the first of what it names was looked at, by the store's clock.
    pub fn since(&self) -> Timestamp {
        let ago = i64::try_from(self.verified.passed).unwrap_or(i64::MAX);
        Timestamp(self.stored.0.saturating_sub(ago))
    }
}

impl Said for Verified {
    const KIND: ObjectKind = ObjectKind::Verified;
    const AUTHORITY: Authority = Authority::Verifier;
    fn read(bytes: &[u8]) -> Result<Self, FormatError> {
        Self::decode(bytes)
    }
    fn author(&self) -> WriterId {
        self.author
    }
}

/// What a run has verified since it put its last record.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewlyVerified {
    /// What is as it should be.
    pub good: Vec<ObjectHash>,
    /// What is not.
    pub damaged: Vec<ObjectHash>,
    /// How many nanoseconds ago the first of it was looked at.
    pub passed: u64,
    /// At the end of a run: how many damages it found.
    pub ended: Option<u64>,
}

impl Repository {
    /// Whether this key may say what it has verified.
    ///
    /// # Errors
    /// [`RepoError::RoleForbids`] with a reader's or a writer's; [`RepoError::WriterRevoked`].
    pub fn may_record(&self) -> Result<WriterId, RepoError> {
        let forbidden = RepoError::RoleForbids { action: "write down what it has verified" };
        if self.secrets.writer.is_none() {
            return Err(forbidden);
        }
        let (author, key) = self.writer()?;
        let covers = self.registry.get(&author).is_some_and(|known| {
            known.authority.covers(Authority::Verifier) && known.key == key.verifying_key()
        });
        if covers { Ok(author) } else { Err(forbidden) }
    }

    /// Objects below a prefix: name, bytes, and when the store got it.
    pub async fn list_named(&self, prefix: &str) -> Result<Vec<(ObjectName, u64, Timestamp)>, RepoError> {
        let listed = self.store.list(prefix).await?.into_iter();
        let named = listed.filter_map(|object| {
            Some((ObjectName::parse(object.key.as_str())?, object.size, object.modified))
        });
        Ok(named.collect())
    }

    /// All records. One that cannot be read, or does not count, is a problem, not an error: what it says is verified again.
    pub async fn ledger(&self, problems: &mut Vec<Problem>) -> Result<Vec<StoredVerified>, RepoError> {
        let said = self.all_said::<Verified>(layout::LEDGER, problems).await?;
        let stored = said.into_iter().filter_map(|(name, verified, stored)| match name {
            ObjectName::Verified(hash) => Some(StoredVerified { hash, verified, stored }),
            _ => None,
        });
        Ok(stored.collect())
    }

    /// Puts a record; at most [`crate::format::ledger::VERIFIED_MAX`] objects of each kind.
    pub async fn put_verified(&self, look: Look, new: NewlyVerified) -> Result<Verified, RepoError> {
        let author = self.may_record()?;
        let (_, key) = self.writer()?;
        let NewlyVerified { mut good, mut damaged, passed, ended } = new;
        for hashes in [&mut good, &mut damaged] {
            hashes.sort_unstable();
            hashes.dedup();
        }
        let verified = Verified { author, look, passed, good, damaged, ended, nonce: self.nonce()? };
        let kind = (ObjectKind::Verified, self.id());
        put_signed(&self.store, kind, &verified.encode(), &key, ObjectName::Verified).await?;
        Ok(verified)
    }
}
