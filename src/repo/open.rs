//! Opening a repository: a key slot gives secrets and what to trust, the signed config gives everything else.

mod trusted;

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::oneshot;

use self::trusted::trusted;
pub(super) use self::trusted::{SLOTS_MAX, Slots, all_configs, is_current};
use super::env::Env;
use super::error::RepoError;
use super::keys::Known;
use super::reading::COLD_FROM;
use super::registry::{self, Registry, Stand};
use crate::chunk::{ChunkParams, Cutter};
use crate::crypto::hpke::PublicKey;
use crate::crypto::sign::{SigningKey, VerifyingKey};
use crate::crypto::slot::{Opened, Unlock};
use crate::crypto::{Pins, SecretKey, Secrets, context, object_hash};
use crate::event::Event;
use crate::format::FormatError;
use crate::format::config::{Authority, Config, Purpose};
use crate::format::envelope::ChunkKind;
use crate::format::keyslot::Role;
use crate::format::layout::{self, ObjectName};
use crate::id::{ObjectHash, RepositoryId, SnapshotId, WriterId};
use crate::store::{Key, Store, StoreError};

/// How often an object is read whose bytes are not what its name says.
pub(super) const READS: usize = 2;

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
        if !is_current(&secrets, &config) {
            let message = RepoError::StaleKey.to_string();
            env.observer.observe(&Event::Warning { message: &message });
        }
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

    /// Whether the key opens what is stored now. One that was made before the keys were replaced opens what came before; one that
    /// opens no trees and no content is always current.
    pub fn is_current(&self) -> bool {
        is_current(&self.secrets, &self.config)
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
        match ObjectName::parse(key) {
            Some(name) if known.accepts(&name) => Ok(()),
            _ if known.stand == Stand::Active => Ok(()),
            _ => Err(RepoError::AfterRevocation { key: key.to_owned(), writer }),
        }
    }

    /// Whether a registered writer signed as the origin of segments. Whether that one was revoked does not matter: what says
    /// where they are is what is believed or not.
    pub(crate) fn is_origin(&self, writer: &WriterId, message: &[u8], signature: &[u8; 64]) -> bool {
        let known = self.registry.get(writer);
        let may = |known: &registry::Known| known.authority.covers(Authority::Writer);
        known.is_some_and(|known| may(&known) && self.known.has_signed(&known.key, message, signature))
    }

    /// Whether an object of this writer counts, if the writer has signed it. For what was checked once and is kept.
    pub fn accepts(&self, writer: &WriterId, name: &ObjectName) -> bool {
        self.registry.get(writer).is_none_or(|known| known.accepts(name))
    }

    /// Whether a run may begin to depend on what an object of this writer says.
    pub(super) fn may_depend(&self, writer: &WriterId, name: &ObjectName) -> bool {
        self.registry.get(writer).is_none_or(|known| known.may_depend(name))
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

    /// Fails unless what this key has put until now counts: it may be revoked while it works. If no entry shows that now, all of
    /// it came before the first one, and so it is in the list.
    pub async fn still_counts(&self) -> Result<(), RepoError> {
        self.reread_registry().await?;
        self.writer().map(drop)
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

#[cfg(test)]
mod tests;
