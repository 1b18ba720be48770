//! What is believed without asking the store: the key slot that opens, and the configuration that was signed for it.
//!
//! # Invariants
//! A passphrase is tried on no more than [`SLOTS_MAX`] slots, however many there are. A configuration counts only if the root key of the
//! slot signed it, and if it is not older than the slot. Of several slots that open, one whose keys open what is stored now comes
//! before one that was made before the keys were replaced.

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use tokio::sync::oneshot;

use super::get_checked;
use crate::crypto::hpke::PrivateKey;
use crate::crypto::slot::{self, Opened, Unlock};
use crate::crypto::{CryptoError, Pins, Secrets, object_hash};
use crate::format::config::{Config, Purpose};
use crate::format::envelope::ObjectKind;
use crate::format::keyslot::SLOT_MAX;
use crate::format::layout::{self, ObjectName};
use crate::format::signed::{SIGNED_MAX, Signed};
use crate::id::ObjectHash;
use crate::repo::env::Limits;
use crate::repo::error::RepoError;
use crate::repo::registry::Root;
use crate::store::{Object, Store};

/// Most key slots on which a passphrase is tried.
pub(in crate::repo) const SLOTS_MAX: usize = 64;

/// What a slot opened, and the number and the content of the configuration its maker signed.
type Trusted = (ObjectHash, Opened, (u64, Config));

/// The slot that opens, and the configuration its maker signed. Tells `root` what else goes by it. A slot of another
/// repository, which the same passphrase may open, is passed by: no configuration here is signed for it.
pub(super) async fn trusted(
    (store, limits): (&Store, Limits),
    unlock: &Unlock,
    root: oneshot::Sender<Root>,
) -> Result<Trusted, RepoError> {
    let slots = async { Ok(store.list(layout::KEYS).await?) };
    let (configs, slots) = limits.both(list_configs(store), slots).await?;
    let newest = async {
        Ok(match configs.last() {
            Some(newest) => Some(get_checked(store, *newest, SIGNED_MAX as u64).await),
            None => None,
        })
    };
    let mut slots = Slots::new((store, limits), slots);
    let (mut found, mut newest) = limits.both(slots.next(unlock), newest).await?;
    let mut failure = None;
    let mut best: Option<Trusted> = None;
    while let Some((hash, opened)) = found {
        match read_config(store, &opened, (&configs, newest.take())).await {
            Ok(config) if is_current(&opened.secrets, &config.1) => {
                best = Some((hash, opened, config));
                break;
            }
            // An interrupted replacement of the keys leaves an old slot beside the new one.
            Ok(config) => best = best.or(Some((hash, opened, config))),
            Err(error @ (RepoError::Store(_) | RepoError::Cancelled)) => return Err(error),
            Err(error) => failure = failure.or(Some(error)),
        }
        found = slots.next(unlock).await?;
    }
    match best {
        Some(trusted) => {
            // Nobody listens any more only if reading the registry failed.
            let _ = root.send((trusted.1.pins.repository, trusted.1.pins.root));
            Ok(trusted)
        }
        None => Err(failure.unwrap_or_else(|| slots.failure(unlock))),
    }
}

/// Whether the private keys among these secrets are those that the configuration has everything sealed to.
pub(in crate::repo) fn is_current(secrets: &Secrets, config: &Config) -> bool {
    let is_named = |purpose, key: &PrivateKey| {
        let public = key.public_key().to_bytes();
        config.recipients.iter().any(|found| found.purpose == purpose && found.public_key == public)
    };
    [(Purpose::Data, &secrets.data), (Purpose::Metadata, &secrets.metadata)]
        .into_iter()
        .all(|(purpose, key)| key.as_ref().is_none_or(|key| is_named(purpose, key)))
}

/// Every configuration that the maker of this slot signed, with its number and hash, the newest last. What is none is passed by.
pub(in crate::repo) async fn all_configs(
    store: &Store,
    pins: &Pins,
) -> Result<Vec<(u64, ObjectHash, Config)>, RepoError> {
    let mut found = Vec::new();
    for name in list_configs(store).await? {
        let ObjectName::Config(number, hash) = name else { continue };
        let bytes = get_checked(store, name, SIGNED_MAX as u64).await;
        match bytes.and_then(|bytes| read_one_config(pins, (name, number), &bytes)) {
            Ok(config) => found.push((number, hash, config)),
            Err(error @ (RepoError::Store(_) | RepoError::Cancelled)) => return Err(error),
            Err(_) => {}
        }
    }
    Ok(found)
}

/// The names of configurations, the newest last.
async fn list_configs(store: &Store) -> Result<Vec<ObjectName>, RepoError> {
    let listed = store.list(layout::CONFIG).await?;
    if listed.is_empty() {
        return Err(RepoError::NotFound { url: store.url().to_string() });
    }
    let names = listed.iter().filter_map(|object| ObjectName::parse(object.key.as_str()));
    let mut configs: Vec<_> = names.filter(|name| matches!(name, ObjectName::Config(..))).collect();
    configs.sort_unstable();
    Ok(configs)
}

/// The key slots of a place, in the order of their names, to be tried one after the other.
pub(in crate::repo) struct Slots<'a> {
    fetched: BoxStream<'a, Result<Bytes, RepoError>>,
    damaged: Option<RepoError>,
    tried: usize,
}

impl<'a> Slots<'a> {
    pub(in crate::repo) fn new((store, limits): (&'a Store, Limits), listed: Vec<Object>) -> Self {
        let small = listed.into_iter().filter(|object| object.size <= SLOT_MAX as u64);
        let names = small.filter_map(|object| ObjectName::parse(object.key.as_str()));
        let names = names.filter(|name| matches!(name, ObjectName::KeySlot(_)));
        let fetched = futures::stream::iter(names.collect::<Vec<_>>())
            .map(move |name| get_checked(store, name, SLOT_MAX as u64))
            .buffered(limits.requests.max(1))
            .boxed();
        Self { fetched, damaged: None, tried: 0 }
    }

    /// The next slot that opens.
    pub(in crate::repo) async fn next(
        &mut self,
        unlock: &Unlock,
    ) -> Result<Option<(ObjectHash, Opened)>, RepoError> {
        // Only a passphrase costs more than a look.
        let costs = usize::from(matches!(unlock, Unlock::Passphrase(_)));
        while self.tried < SLOTS_MAX
            && let Some(fetched) = self.fetched.next().await
        {
            let bytes = match fetched {
                Ok(bytes) => bytes,
                Err(error @ RepoError::HashMismatch { .. }) => {
                    self.damaged = Some(error);
                    continue;
                }
                // Removed since it was listed.
                Err(RepoError::Store(error)) if error.is_not_found() => continue,
                Err(error) => return Err(error),
            };
            match slot::open(unlock, &bytes) {
                Ok(opened) => {
                    self.tried += costs;
                    return Ok(Some((object_hash(&bytes), opened)));
                }
                // These cost a look. Only a slot that the key was really tried on may use up the patience: anybody who may
                // put objects can put others before it.
                Err(CryptoError::SlotKind { .. }) => continue,
                Err(error @ CryptoError::Format(_)) => {
                    self.damaged = Some(RepoError::Crypto(error));
                    continue;
                }
                Err(CryptoError::WrongKey) => {}
                Err(error) => self.damaged = Some(RepoError::Crypto(error)),
            }
            self.tried += costs;
        }
        Ok(None)
    }

    /// Why none opened.
    fn failure(self, unlock: &Unlock) -> RepoError {
        self.damaged.unwrap_or(RepoError::WrongKey { what: unlock.what() })
    }
}

/// The configuration that counts, with its number, of which the bytes of the last one were fetched already.
async fn read_config(
    store: &Store,
    opened: &Opened,
    (names, mut fetched): (&[ObjectName], Option<Result<Bytes, RepoError>>),
) -> Result<(u64, Config), RepoError> {
    let repository = opened.pins.repository;
    let mut newest: Option<(u64, Config)> = None;
    let mut failure = None;
    for name in names.iter().rev() {
        let number = name.number().unwrap_or(0);
        if newest.as_ref().is_some_and(|(found, _)| *found != number) {
            break;
        }
        let bytes = match fetched.take() {
            Some(bytes) => bytes,
            None => get_checked(store, *name, SIGNED_MAX as u64).await,
        };
        match bytes.and_then(|bytes| read_one_config(&opened.pins, (*name, number), &bytes)) {
            // Two admins may have replaced the keys at the same time: then everything is sealed to both new ones.
            Ok(config) => {
                let both = match newest.take() {
                    Some((_, other)) => other.merge(config),
                    None => Some(config),
                };
                let reason = "two configurations have the same number";
                let both = both.ok_or(RepoError::Untrusted { repository, reason })?;
                newest = Some((number, both));
            }
            // Garbage under a config's name is skipped, so that nobody can lock a repository with it.
            Err(error @ (RepoError::Store(_) | RepoError::Cancelled)) => return Err(error),
            Err(error) => failure = Some(error),
        }
    }
    let Some((number, config)) = newest else {
        let reason = "no configuration is signed by the root key of the key slot";
        return Err(failure.unwrap_or(RepoError::Untrusted { repository, reason }));
    };
    if number < opened.pins.config {
        let reason = "it is older than the one the key slot was made with";
        return Err(RepoError::Untrusted { repository, reason });
    }
    Ok((number, config))
}

fn read_one_config(
    pins: &Pins,
    (name, number): (ObjectName, u64),
    bytes: &[u8],
) -> Result<Config, RepoError> {
    let key = name.key();
    let at = || RepoError::at(key.as_str());
    let (preamble, signed) =
        Signed::decode(bytes, ObjectKind::Config, Some(&pins.repository)).map_err(at())?;
    if pins.root.verify(signed.message, &signed.signature).is_err() {
        return Err(RepoError::BadSignature { key });
    }
    // An old config under a new number would bring back keys that were taken away.
    if u64::from(preamble.key_generation) != number {
        let reason = "its name carries another number than it was signed with";
        return Err(RepoError::Untrusted { repository: pins.repository, reason });
    }
    let config = Config::decode(signed.value).map_err(at())?;
    if config.repository != pins.repository || config.root != *pins.root.as_bytes() {
        let reason = "it names another repository or root key";
        return Err(RepoError::Untrusted { repository: pins.repository, reason });
    }
    Ok(config)
}
