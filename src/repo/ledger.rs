//! The ledger: what was verified, when, how, and by whom.
//!
//! # Invariants
//! Only what someone signed counts who holds the authority of a verifier, and of whoever was revoked nothing does. The store says
//! when a record was put, so no clock of a client makes anything look verified that was not.
//!
//! # Crash
//! What was verified since the last record is verified again.

use futures::StreamExt;

use super::create::put_signed;
use super::error::RepoError;
use super::load::Problem;
use super::marks::Said;
use super::open::Repository;
use crate::class::Class;
use crate::clock::Timestamp;
use crate::format::FormatError;
use crate::format::config::Authority;
use crate::format::envelope::ObjectKind;
use crate::format::layout::{self, ObjectName};
use crate::format::ledger::{Look, VERIFIED_MAX, Verified};
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
    /// When the first of what it names was looked at, by the store's clock, or by the author's if that was earlier.
    pub fn since(&self) -> Timestamp {
        let ago = i64::try_from(self.verified.passed).unwrap_or(i64::MAX);
        Timestamp(self.stored.0.saturating_sub(ago).min(self.verified.began))
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewlyVerified {
    /// What is as it should be.
    pub good: Vec<ObjectHash>,
    /// What is not.
    pub damaged: Vec<ObjectHash>,
    /// When the first of it was looked at, by this machine's clock.
    pub began: Timestamp,
    /// How many nanoseconds ago that was.
    pub passed: u64,
    /// At the end of a run: how many damages it found.
    pub ended: Option<u64>,
}

impl NewlyVerified {
    /// Nothing, since then.
    pub fn new(began: Timestamp) -> Self {
        Self { good: Vec::new(), damaged: Vec::new(), began, passed: 0, ended: None }
    }
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

    /// Gives every record, one by one and in no order. One that cannot be read, or does not count, is a problem, not an error: what
    /// it says is verified again.
    pub async fn each_verified(
        &self,
        problems: &mut Vec<Problem>,
        mut give: impl FnMut(StoredVerified),
    ) -> Result<(), RepoError> {
        let names = self.said_names(layout::LEDGER).await?;
        let version = self.registry_version();
        let doubted = self.read_verified(names, problems, &mut give).await?;
        if doubted.is_empty() {
            return Ok(());
        }
        self.refresh_registry().await?;
        let unknown = match self.registry_version() == version {
            true => doubted,
            // Somebody was registered since.
            false => self.read_verified(doubted, problems, &mut give).await?,
        };
        let bad = |(name, _): (ObjectName, Timestamp)| {
            let key = name.key();
            Problem { error: RepoError::BadSignature { key: key.clone() }, key }
        };
        problems.extend(unknown.into_iter().map(bad));
        Ok(())
    }

    /// Reads these; gives back those whose author is not known to hold the authority.
    async fn read_verified(
        &self,
        names: Vec<(ObjectName, Timestamp)>,
        problems: &mut Vec<Problem>,
        give: &mut impl FnMut(StoredVerified),
    ) -> Result<Vec<(ObjectName, Timestamp)>, RepoError> {
        let mut doubted = Vec::new();
        let mut reads = futures::stream::iter(names)
            .map(|(name, stored)| async move { (name, stored, self.read_said::<Verified>(name).await) })
            .buffer_unordered(self.env.limits.requests.max(1));
        while let Some((name, stored, read)) = reads.next().await {
            match read {
                Ok(verified) => {
                    if let ObjectName::Verified(hash) = name {
                        give(StoredVerified { hash, verified, stored });
                    }
                }
                Err(RepoError::BadSignature { .. }) => doubted.push((name, stored)),
                // Deleted since it was listed.
                Err(RepoError::Store(error)) if error.is_not_found() => {}
                // Refused, or on a bad sector.
                Err(error) if matches!(error.class(), Class::Denied | Class::Failed | Class::Damage) => {
                    problems.push(Problem { key: name.key(), error });
                }
                Err(error @ (RepoError::Store(_) | RepoError::Cancelled)) => return Err(error),
                Err(error) => problems.push(Problem { key: name.key(), error }),
            }
        }
        Ok(doubted)
    }

    /// All records at once: for who decides which of them go.
    pub async fn ledger(&self, problems: &mut Vec<Problem>) -> Result<Vec<StoredVerified>, RepoError> {
        let mut all = Vec::new();
        self.each_verified(problems, |record| all.push(record)).await?;
        Ok(all)
    }

    /// Puts a record; at most [`crate::format::ledger::VERIFIED_MAX`] objects of each kind.
    pub async fn put_verified(&self, look: Look, new: NewlyVerified) -> Result<(), RepoError> {
        let author = self.may_record()?;
        let (_, key) = self.writer()?;
        let NewlyVerified { mut good, mut damaged, began, passed, ended } = new;
        for hashes in [&mut good, &mut damaged] {
            hashes.sort_unstable();
            hashes.dedup();
            if hashes.len() > VERIFIED_MAX {
                // Nobody could read it.
                return Err(FormatError::Value { section: "22", what: "length of a list" }.into());
            }
        }
        let verified =
            Verified { author, look, began: began.0, passed, good, damaged, ended, nonce: self.nonce()? };
        let kind = (ObjectKind::Verified, self.id());
        put_signed(&self.store, kind, &verified.encode(), &key, ObjectName::Verified).await?;
        Ok(())
    }
}
