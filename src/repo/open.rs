//! Opening a repository: a key slot gives secrets and what to trust, the signed config gives everything else.

use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use tokio::sync::oneshot;

use super::env::{Env, Limits};
use super::error::RepoError;
use super::keys::Known;
use super::reading::COLD_FROM;
use super::registry::{Registry, Root, Stand};
use crate::chunk::{ChunkParams, Cutter};
use crate::crypto::hpke::PublicKey;
use crate::crypto::sign::{SigningKey, VerifyingKey};
use crate::crypto::slot::{self, Opened, Unlock};
use crate::crypto::{CryptoError, Pins, SecretKey, Secrets, context, object_hash};
use crate::event::Event;
use crate::format::FormatError;
use crate::format::config::{Authority, Config, Purpose};
use crate::format::envelope::{ChunkKind, ObjectKind};
use crate::format::keyslot::Role;
use crate::format::layout::{self, ObjectName};
use crate::format::signed::{SIGNED_MAX, Signed};
use crate::id::{ObjectHash, RepositoryId, SnapshotId, WriterId};
use crate::store::{Key, Object, Store, StoreError};

/// Most key slots that are tried.
const SLOTS_MAX: usize = 64;
/// How often an object is read whose bytes are not what its name says.
pub(super) const READS: usize = 2;
/// Most bytes of a key slot.
const SLOT_MAX: u64 = 64 << 10;

/// An open repository: its store, its configuration and the secrets of one role.
#[derive(Clone)]
pub struct Repository {
    pub(super) store: Store,
    pub(super) env: Env,
    pub(super) config: Config,
    pub(super) secrets: Secrets,
    pub(super) slot: OpenSlot,
    pub(super) known: Arc<Known>,
    pub(super) index_key: Option<SecretKey>,
    pub(super) registry: Registry,
    pub(super) recipients: [Vec<PublicKey>; 2],
    /// Bytes of missing index objects from which on readers do without them.
    pub(super) cold_from: u64,
    /// Snapshots that this machine has seen and the store does not show.
    pub(super) missed: Arc<[SnapshotId]>,
}

/// The slot that a repository was opened with.
#[derive(Debug, Clone, Copy)]
pub(super) struct OpenSlot {
    pub(super) hash: ObjectHash,
    pub(super) role: Role,
    /// What a slot that is made now must make its holder believe.
    pub(super) pins: Pins,
}

impl std::fmt::Debug for Repository {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Repository").field("id", &self.config.repository).finish_non_exhaustive()
    }
}

impl Repository {
    /// Opens the repository in `store`.
    ///
    /// # Errors
    /// [`RepoError::NotFound`] if there is none, [`RepoError::WrongKey`] if no slot opens,
    /// [`RepoError::Untrusted`] if the configuration is not the one the slot's maker signed.
    pub async fn open(store: Store, env: Env, unlock: &Unlock) -> Result<Self, RepoError> {
        let (sender, root) = oneshot::channel();
        let trusted = trusted((&store, env.limits), unlock, sender);
        let registry = Registry::open((&store, env.limits), root);
        let ((hash, opened, (number, config)), registry) = env.limits.both(trusted, registry).await?;
        for key in registry.damaged() {
            let message = format!("object {key} is damaged: what it says of a writer is not known");
            env.observer.observe(&Event::Warning { message: &message });
        }
        let mut recipients = [Vec::new(), Vec::new()];
        for recipient in &config.recipients {
            let kind = match recipient.purpose {
                Purpose::Data => ChunkKind::Data,
                Purpose::Metadata => ChunkKind::Tree,
            };
            recipients[kind as usize].push(PublicKey::from_bytes(&recipient.public_key)?);
        }
        let Opened { role, secrets, pins } = opened;
        let slot = OpenSlot { hash, role, pins: Pins { config: number, ..pins } };
        let index_key = secrets.index.as_ref().map(|key| key.derive(context::INDEX));
        if let Some(lock) = config.lock {
            store.set_lock(lock);
        }
        let known = Arc::default();
        let cold_from = COLD_FROM;
        let missed = Arc::default();
        Ok(Self {
            store,
            env,
            config,
            secrets,
            slot,
            known,
            index_key,
            registry,
            recipients,
            cold_from,
            missed,
        })
    }

    /// The same repository, of which it is known that its store shows less than it did: these are gone and nobody removed them.
    /// What is newest is not chosen then.
    #[must_use]
    pub fn missing(self, missed: Vec<SnapshotId>) -> Self {
        Self { missed: missed.into(), ..self }
    }

    /// Snapshots that are gone and that nobody removed.
    pub fn missed(&self) -> &[SnapshotId] {
        &self.missed
    }

    /// The repository's name.
    pub fn id(&self) -> RepositoryId {
        self.config.repository
    }

    /// The world this repository was opened in.
    pub fn env(&self) -> &Env {
        &self.env
    }

    /// Where its objects are.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Its configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The secrets its key opened.
    pub fn secrets(&self) -> &Secrets {
        &self.secrets
    }

    /// Whose secrets these are.
    pub fn role(&self) -> Role {
        self.slot.role
    }

    /// The key slot they came from.
    pub fn slot(&self) -> ObjectHash {
        self.slot.hash
    }

    /// The same repository through another store, for tests with faults.
    #[cfg(test)]
    pub(crate) fn with_store(&self, store: Store) -> Self {
        self.copy(store, self.env.clone())
    }

    /// The same repository in another world.
    #[cfg(test)]
    pub(crate) fn with_env(&self, env: Env) -> Self {
        self.copy(self.store.clone(), env)
    }

    /// The same repository with a registry that gives this key no more than a writer's authority.
    #[cfg(test)]
    pub(crate) fn as_plain_writer(&self) -> Self {
        let (writer, _) = self.writer().unwrap();
        Self { registry: self.registry.with_authority(writer, Authority::Writer), ..self.clone() }
    }

    /// The same repository, whose readers do without an index that is larger than this.
    #[cfg(test)]
    pub(crate) fn with_cold_from(&self, bytes: u64) -> Self {
        Self { cold_from: bytes, ..self.clone() }
    }

    #[cfg(test)]
    fn copy(&self, store: Store, env: Env) -> Self {
        Self { store, env, ..self.clone() }
    }

    /// The same repository as a key of this role opens it, which signs as this one does if it signs.
    #[cfg(test)]
    pub(crate) fn as_role(&self, role: Role) -> Self {
        let secrets = self.secrets.restrict(role);
        let index_key = self.index_key.clone().filter(|_| secrets.index.is_some());
        let slot = OpenSlot { role, ..self.slot };
        Self { secrets, index_key, slot, known: Arc::default(), ..self.clone() }
    }

    /// The key of index objects and pack directories.
    pub fn index_key(&self) -> Result<&SecretKey, RepoError> {
        self.index_key.as_ref().ok_or(RepoError::RoleForbids { action: "read the index" })
    }

    /// A key derived from the dedup root.
    pub fn dedup_key(&self, context: &'static str) -> Result<SecretKey, RepoError> {
        let root = self.secrets.dedup.as_ref();
        Ok(root.ok_or(RepoError::RoleForbids { action: "name chunks" })?.derive(context))
    }

    /// The writer this key signs as.
    ///
    /// # Errors
    /// [`RepoError::RoleForbids`] if it signs nothing, [`RepoError::WriterRevoked`] if that would count no more.
    pub fn writer(&self) -> Result<(WriterId, SigningKey), RepoError> {
        let writer = self.secrets.writer.as_ref().ok_or(RepoError::RoleForbids { action: "write" })?;
        if self.registry.get(&writer.id).is_some_and(|known| known.stand != Stand::Active) {
            return Err(RepoError::WriterRevoked { writer: writer.id });
        }
        Ok((writer.id, SigningKey::from_seed(writer.seed.clone())))
    }

    /// Whether the registry gives this writer the authority of a maintainer.
    pub fn is_maintainer(&self, writer: &WriterId) -> bool {
        self.registry.get(writer).is_some_and(|known| known.authority == Authority::Maintainer)
    }

    /// The maintainer this key signs as: the registry must say so.
    pub fn maintainer(&self) -> Result<(WriterId, SigningKey), RepoError> {
        let (id, key) = self.writer()?;
        match self.registry.get(&id) {
            Some(known) if known.authority == Authority::Maintainer && known.key == key.verifying_key() => {
                Ok((id, key))
            }
            _ => Err(RepoError::RoleForbids { action: "remove anything" }),
        }
    }

    /// How content is cut.
    pub fn cutter(&self) -> Result<Cutter, RepoError> {
        let stored = self.config.chunk_params;
        let params = ChunkParams::new(stored.min, stored.average, stored.max)
            .map_err(|_| FormatError::Value { section: "9", what: "chunk parameters" })?;
        Ok(Cutter::new(self.dedup_key(context::CUTTER)?.expose(), params))
    }

    /// How images are cut.
    pub fn image_cutter(&self) -> Result<Cutter, RepoError> {
        let params = self.cutter()?.params().for_images();
        Ok(Cutter::new(self.dedup_key(context::CUTTER)?.expose(), params))
    }

    /// Gets an object and checks that it has the content its name promises.
    pub async fn get_object(&self, name: ObjectName, max: u64) -> Result<Bytes, RepoError> {
        get_checked(&self.store, name, max).await
    }

    /// Checks a signature of a registered writer who holds `authority`, and that the object of this key counts if that writer
    /// was revoked.
    pub(crate) fn verify(
        &self,
        key: &str,
        (writer, authority): (WriterId, Authority),
        message: &[u8],
        signature: &[u8; 64],
    ) -> Result<(), RepoError> {
        let known = self.registry.get(&writer).filter(|known| {
            known.authority.covers(authority) && self.known.has_signed(&known.key, message, signature)
        });
        let Some(known) = known else {
            self.registry.doubt();
            return Err(RepoError::BadSignature { key: key.to_owned() });
        };
        match ObjectName::parse(key).and_then(|name| name.accepted_as()) {
            Some(object) if known.accepts(&object) => Ok(()),
            _ if known.stand == Stand::Active => Ok(()),
            _ => Err(RepoError::AfterRevocation { key: key.to_owned(), writer }),
        }
    }

    /// Whether a registered writer signed as the origin of segments. Whether that one was revoked does not matter: what says
    /// where they are is what is believed or not.
    pub(crate) fn is_origin(&self, writer: &WriterId, message: &[u8], signature: &[u8; 64]) -> bool {
        let known = self.registry.get(writer);
        known.is_some_and(|known| self.known.has_signed(&known.key, message, signature))
    }

    /// Whether an object of this writer counts, if the writer has signed it. For what was checked once and is kept.
    pub fn accepts(&self, writer: &WriterId, object: &ObjectHash) -> bool {
        self.registry.get(writer).is_none_or(|known| known.accepts(object))
    }

    /// Whether a run may begin to depend on what an object of this writer says.
    pub(super) fn may_depend(&self, writer: &WriterId, object: &ObjectHash) -> bool {
        self.registry.get(writer).is_none_or(|known| known.may_depend(object))
    }

    /// Reads the registry again if it lists other entries than before: someone may have been revoked.
    pub async fn reread_registry(&self) -> Result<(), RepoError> {
        let root = VerifyingKey::from_bytes(self.config.root)?;
        self.registry.reread((&self.store, self.env.limits), (self.id(), root)).await
    }

    /// Changes when something is taken from a writer.
    pub(crate) fn revocations(&self) -> u64 {
        self.registry.revocations()
    }

    /// Reads the registry again if a signature was refused since it was read: a writer may be new.
    pub async fn refresh_registry(&self) -> Result<(), RepoError> {
        let root = VerifyingKey::from_bytes(self.config.root)?;
        self.registry.refresh((&self.store, self.env.limits), (self.id(), root)).await
    }

    /// Changes when the registry says something else than before.
    pub fn registry_version(&self) -> u64 {
        self.registry.version()
    }

    /// Fails if an entry of the registry is damaged: what its writer signed could look forged, and what was taken from one
    /// could be back. Also while someone is being revoked: what that one signed now may count or not. Nothing may be removed then.
    pub fn intact_registry(&self) -> Result<(), RepoError> {
        if let Some((writer, ..)) =
            self.registry.all().into_iter().find(|(.., known)| matches!(known.stand, Stand::Closing(_)))
        {
            return Err(RepoError::Closing { writer });
        }
        self.registry.damaged().into_iter().next().map_or(Ok(()), |key| Err(RepoError::HashMismatch { key }))
    }
}

/// The key of an object. A number that no name can carry is refused: what is put under it, no listing would ever show.
pub(super) fn object_key(name: ObjectName) -> Result<Key, RepoError> {
    if name.number().is_some_and(|number| number > layout::NUMBER_MAX) {
        return Err(FormatError::Value { section: "1", what: "number in a name" }.into());
    }
    Key::new(name.key()).map_err(|error| RepoError::Store(error.into()))
}

/// Gets an object and checks that it has the content its name promises. One that has not is read once more: it may have been
/// spoilt on its way.
pub(super) async fn get_checked(store: &Store, name: ObjectName, max: u64) -> Result<Bytes, RepoError> {
    let key = object_key(name)?;
    for _ in 0..READS {
        let bytes = store.get(&key, max).await.map_err(|error| match error {
            StoreError::TooLarge { key, size, max } => RepoError::TooLarge { key, size, max },
            error => error.into(),
        })?;
        if name.content_hash().is_none_or(|hash| hash == object_hash(&bytes)) {
            return Ok(bytes);
        }
    }
    Err(RepoError::HashMismatch { key: key.as_str().to_owned() })
}

/// What a slot opened, and the number and the content of the configuration its maker signed.
type Trusted = (ObjectHash, Opened, (u64, Config));

/// The slot that opens, and the configuration its maker signed. Tells `root` what else goes by it. A slot of another
/// repository, which the same passphrase may open, is passed by: no configuration here is signed for it.
async fn trusted(
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
    while let Some((hash, opened)) = found {
        match read_config(store, &opened, (&configs, newest.take())).await {
            Ok(config) => {
                // Nobody listens any more only if reading the registry failed.
                let _ = root.send((opened.pins.repository, opened.pins.root));
                return Ok((hash, opened, config));
            }
            Err(error @ (RepoError::Store(_) | RepoError::Cancelled)) => return Err(error),
            Err(error) => failure = failure.or(Some(error)),
        }
        found = slots.next(unlock).await?;
    }
    Err(failure.unwrap_or_else(|| slots.failure(unlock)))
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
pub(super) struct Slots<'a> {
    fetched: BoxStream<'a, Result<Bytes, RepoError>>,
    damaged: Option<RepoError>,
    tried: usize,
}

impl<'a> Slots<'a> {
    pub(super) fn new((store, limits): (&'a Store, Limits), listed: Vec<Object>) -> Self {
        let small = listed.into_iter().filter(|object| object.size <= SLOT_MAX);
        let names = small.filter_map(|object| ObjectName::parse(object.key.as_str()));
        let names = names.filter(|name| matches!(name, ObjectName::KeySlot(_)));
        let fetched = futures::stream::iter(names.collect::<Vec<_>>())
            .map(move |name| get_checked(store, name, SLOT_MAX))
            .buffered(limits.requests.max(1))
            .boxed();
        Self { fetched, damaged: None, tried: 0 }
    }

    /// The next slot that opens.
    pub(super) async fn next(&mut self, unlock: &Unlock) -> Result<Option<(ObjectHash, Opened)>, RepoError> {
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
                    self.tried += 1;
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
            self.tried += 1;
        }
        Ok(None)
    }

    /// Why none opened.
    fn failure(self, unlock: &Unlock) -> RepoError {
        let what = match unlock {
            Unlock::Passphrase(_) => "passphrase",
            Unlock::KeyFile(_) => "key file",
            Unlock::Words(_) => "set of recovery words",
        };
        self.damaged.unwrap_or(RepoError::WrongKey { what })
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
        match bytes.and_then(|bytes| read_one_config(opened, (*name, number), &bytes)) {
            Ok(_) if newest.is_some() => {
                let reason = "two configurations have the same number";
                return Err(RepoError::Untrusted { repository, reason });
            }
            Ok(config) => newest = Some((number, config)),
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
    opened: &Opened,
    (name, number): (ObjectName, u64),
    bytes: &[u8],
) -> Result<Config, RepoError> {
    let key = name.key();
    let at = || RepoError::at(key.as_str());
    let (preamble, signed) =
        Signed::decode(bytes, ObjectKind::Config, Some(&opened.pins.repository)).map_err(at())?;
    if opened.pins.root.verify(signed.message, &signed.signature).is_err() {
        return Err(RepoError::BadSignature { key });
    }
    // An old config under a new number would bring back keys that were taken away.
    if u64::from(preamble.key_generation) != number {
        let reason = "its name carries another number than it was signed with";
        return Err(RepoError::Untrusted { repository: opened.pins.repository, reason });
    }
    let config = Config::decode(signed.value).map_err(at())?;
    if config.repository != opened.pins.repository || config.root != *opened.pins.root.as_bytes() {
        let reason = "it names another repository or root key";
        return Err(RepoError::Untrusted { repository: opened.pins.repository, reason });
    }
    Ok(config)
}

#[cfg(test)]
mod tests;
