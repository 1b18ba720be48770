//! Replacing the keys that data keys are sealed to (`docs/protocol.md`, Replacing keys).
//!
//! # Invariants
//! The slots that hold the new keys are durable, were read back and opened before the configuration that names these keys is
//! put; so nothing is ever sealed to a key that no slot holds. A new slot holds every private key that any slot held which the
//! secrets at hand open, so nothing that could be read becomes unreadable.
//!
//! # Crash
//! New slots without their configuration: they ask for one that is not there, and are passed by for the old ones. Old and new
//! slots of one secret: the new one opens.
//!
//! # Must not
//! Say that a key is gone because its slot is: whoever had it may have kept what it opened.

use std::collections::HashSet;

use super::create::sign_and_put;
use super::error::RepoError;
use super::open::{Repository, all_configs};
use crate::class::Class;
use crate::crypto::hpke::PrivateKey;
use crate::crypto::slot::{Opened, Unlock};
use crate::crypto::{FORMER_MAX, Pins};
use crate::format::config::{Config, Purpose, Recipient};
use crate::format::envelope::{ChunkKind, ObjectKind, Preamble};
use crate::format::keyslot::{Role, SlotNote};
use crate::format::layout::ObjectName;
use crate::format::signed::signed_message;
use crate::id::ObjectHash;

/// Why the keys were not replaced, or not to the end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RekeyError {
    /// Something may be sealed to keys that only slots hold which the secrets at hand do not open.
    #[error(
        "old keys were not removed: {keys} of the keys that something may be sealed to are only in slots that nothing given here opens"
    )]
    Incomplete {
        /// How many.
        keys: usize,
    },
    /// Another configuration has the same number.
    #[error(
        "another admin replaced the keys at the same time: what is stored from now on is sealed to both new ones, and no old key was removed"
    )]
    AtOnce,
    /// The keys were replaced since this run read the configuration.
    #[error("the keys were replaced by another admin meanwhile: nothing was done")]
    Overtaken,
    /// A slot has no room for more.
    #[error("the keys were replaced {FORMER_MAX} times, which is as often as a key slot can remember")]
    TooOften,
    /// Numbers of configurations have 16 bits in their preamble.
    #[error("the configurations are numbered up to the last number there is")]
    NoNumber,
}

impl RekeyError {
    /// What kind of failure this is.
    pub fn class(&self) -> Class {
        match self {
            Self::Incomplete { .. } | Self::AtOnce | Self::Overtaken => Class::Refused,
            Self::TooOften | Self::NoNumber => Class::Failed,
        }
    }
}

/// Somebody who goes on: a secret, and the slots that it opens.
pub struct Holder<'a> {
    unlock: &'a Unlock,
    opened: Opened,
    slots: Vec<ObjectHash>,
    /// Private keys of content and of trees, the newest first.
    keys: [Vec<PrivateKey>; 2],
}

impl Holder<'_> {
    /// The slots that its new one stands for.
    pub fn slots(&self) -> &[ObjectHash] {
        &self.slots
    }

    /// Whose secrets they are.
    pub fn role(&self) -> Role {
        self.opened.role
    }
}

/// New keys, and the number of the configuration that is to name them.
pub struct Renewal {
    number: u64,
    keys: [PrivateKey; 2],
    former: [Vec<PrivateKey>; 2],
    /// Keys that some configuration named and that are not among these.
    unknown: usize,
}

impl Renewal {
    /// Number of the configuration.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// How many keys something may be sealed to of which only slots are left that nobody opened here.
    pub fn unknown(&self) -> usize {
        self.unknown
    }

    /// What a slot holds from now on.
    fn renewed(&self, opened: &Opened) -> Opened {
        let mut secrets = opened.secrets.clone();
        let [data, metadata] = self.keys.clone();
        let [former_data, former_metadata] = self.former.clone();
        if secrets.metadata.is_some() {
            (secrets.metadata, secrets.former_metadata) = (Some(metadata), former_metadata);
        }
        if secrets.data.is_some() {
            (secrets.data, secrets.former_data) = (Some(data), former_data);
        }
        Opened { role: opened.role, secrets, pins: Pins { config: self.number, ..opened.pins } }
    }
}

impl Repository {
    /// Who holds this secret; `None` if it opens nothing here. A passphrase costs its stretching for each slot that has one.
    pub async fn holder<'a>(&self, unlock: &'a Unlock) -> Result<Option<Holder<'a>>, RepoError> {
        let mut found = self.opened_by(unlock).await?;
        // An interrupted replacement leaves several; the newest one counts, and what any of them holds is kept.
        found.sort_by_key(|(_, opened)| std::cmp::Reverse(opened.pins.config));
        let keys = ChunkKind::ALL.map(|kind| {
            let all = found.iter().flat_map(|(_, opened)| opened.secrets.private_keys(kind));
            distinct(all.cloned())
        });
        let role = found.first().map(|(_, opened)| opened.role);
        found.retain(|(_, opened)| Some(opened.role) == role);
        let slots = found.iter().map(|(hash, _)| *hash).collect();
        Ok(found.into_iter().next().map(|(_, opened)| Holder { unlock, opened, slots, keys }))
    }

    /// Fails if the keys were replaced since this run was opened: its slot does not hold the new ones.
    ///
    /// # Errors
    /// [`RekeyError::Overtaken`].
    pub async fn not_overtaken(&self) -> Result<(), RepoError> {
        self.current_configs().await.map(drop)
    }

    /// All configurations, of which this run reads the newest.
    async fn current_configs(&self) -> Result<Vec<(u64, ObjectHash, Config)>, RepoError> {
        let configs = all_configs(&self.store, &self.slot.pins).await?;
        if configs.last().map_or(0, |(number, ..)| *number) != self.slot.pins.config {
            return Err(RekeyError::Overtaken.into());
        }
        Ok(configs)
    }

    /// Makes new keys for those who go on. Nothing is stored.
    ///
    /// # Errors
    /// [`RekeyError::Overtaken`], [`RekeyError::TooOften`], [`RekeyError::NoNumber`].
    pub async fn renewal(&self, holders: &[Holder<'_>]) -> Result<Renewal, RepoError> {
        let configs = self.current_configs().await?;
        let number = self.slot.pins.config + 1;
        if number > u64::from(u16::MAX) {
            return Err(RekeyError::NoNumber.into());
        }
        let former = ChunkKind::ALL.map(|kind| {
            let own = self.secrets.private_keys(kind).cloned();
            distinct(own.chain(holders.iter().flat_map(|holder| holder.keys[kind as usize].iter().cloned())))
        });
        if former.iter().any(|keys| keys.len() > FORMER_MAX) {
            return Err(RekeyError::TooOften.into());
        }
        let unknown = unknown(&configs, &former);
        let random = &*self.env.random;
        let keys = [PrivateKey::generate(random)?, PrivateKey::generate(random)?];
        Ok(Renewal { number, keys, former, unknown })
    }

    /// Puts the new slot of one who goes on; it has been read back from the store and opened when this returns. It opens nothing
    /// before the configuration is there.
    pub async fn renew_slot(
        &self,
        renewal: &Renewal,
        holder: &Holder<'_>,
        label: Option<String>,
    ) -> Result<ObjectHash, RepoError> {
        let content = renewal.renewed(&holder.opened);
        let note = SlotNote { label, writer: content.secrets.writer.as_ref().map(|writer| writer.id) };
        self.put_opened(holder.unlock, &content, &note).await
    }

    /// Puts the configuration that names the new keys: whoever opens the repository from now on seals everything to them.
    ///
    /// # Errors
    /// [`RekeyError::AtOnce`] if another one has the same number; then both count.
    pub async fn put_renewal(&self, renewal: &Renewal) -> Result<(), RepoError> {
        let [data, metadata] = &renewal.keys;
        let recipient =
            |purpose, key: &PrivateKey| Recipient { purpose, public_key: key.public_key().to_bytes() };
        let config = Config {
            recipients: vec![recipient(Purpose::Data, data), recipient(Purpose::Metadata, metadata)],
            created: self.env.clock.now().0,
            ..self.config.clone()
        };
        let mut preamble = Preamble::new(ObjectKind::Config, ChunkKind::Data, self.id());
        preamble.key_generation = u16::try_from(renewal.number).map_err(|_| RekeyError::NoNumber)?;
        let message = signed_message(preamble, &config.encode());
        let named = |hash| ObjectName::Config(renewal.number, hash);
        let put = sign_and_put(&self.store, message, &self.root_key()?, named).await?;
        // Put first and listed then: of two who do this at the same time one sees the other.
        let configs = all_configs(&self.store, &self.slot.pins).await?;
        let other = |(number, hash, _): &(u64, ObjectHash, Config)| *number >= renewal.number && *hash != put;
        if configs.iter().any(other) { Err(RekeyError::AtOnce.into()) } else { Ok(()) }
    }
}

/// Each key once, in the order in which they come.
fn distinct(keys: impl Iterator<Item = PrivateKey>) -> Vec<PrivateKey> {
    let mut found: Vec<PrivateKey> = Vec::new();
    for key in keys {
        if !found.contains(&key) {
            found.push(key);
        }
    }
    found
}

/// How many keys that some configuration named are not among those.
fn unknown(configs: &[(u64, ObjectHash, Config)], known: &[Vec<PrivateKey>; 2]) -> usize {
    let public = |keys: &Vec<PrivateKey>| -> HashSet<Vec<u8>> {
        keys.iter().map(|key| key.public_key().to_bytes()).collect()
    };
    let [data, metadata] = [public(&known[0]), public(&known[1])];
    let named = configs.iter().flat_map(|(.., config)| &config.recipients);
    let missing = named.filter(|recipient| match recipient.purpose {
        Purpose::Data => !data.contains(&recipient.public_key),
        Purpose::Metadata => !metadata.contains(&recipient.public_key),
    });
    missing.map(|recipient| &recipient.public_key).collect::<HashSet<_>>().len()
}
