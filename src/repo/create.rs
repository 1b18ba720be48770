//! Making a repository. The config is written last: before it there is no repository, only keys that open nothing.

use bytes::Bytes;
use zeroize::Zeroizing;

use super::env::Env;
use super::error::RepoError;
use super::open::object_key;
use crate::chunk::ChunkParams;
use crate::crypto::hpke::PrivateKey;
use crate::crypto::kdf::KdfParams;
use crate::crypto::sign::SigningKey;
use crate::crypto::slot::{self, Opened, Unlock};
use crate::crypto::{Pins, SecretKey, Secrets, WriterSecret, keyfile, object_hash, words};
use crate::format::config::{
    Authority, Config, Lock, Purpose, Recipient, SUITE, Standing, StoredChunkParams, WriterEntry,
};
use crate::format::envelope::{ChunkKind, ObjectKind, Preamble};
use crate::format::keyslot::{Role, SLOT_MAX, SlotNote};
use crate::format::layout::{self, ObjectName};
use crate::format::signed::signed_message;
use crate::id::{ObjectHash, RepositoryId, WriterId};
use crate::random::random_array;
use crate::store::Store;

/// A way to open the new repository.
#[derive(Debug)]
pub enum NewSlot {
    /// With this passphrase.
    Passphrase(Zeroizing<String>),
    /// With a key file that is made now.
    KeyFile,
    /// With recovery words that are made now.
    Words,
}

/// What a new repository's configuration says.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// How content is cut.
    pub chunk_params: ChunkParams,
    /// What the store answered to its probe.
    pub store_probe: u32,
    /// How objects are locked, its own first ones included.
    pub lock: Option<Lock>,
}

/// A repository that was just made.
#[derive(Debug)]
pub struct Created {
    /// Its name.
    pub repository: RepositoryId,
    /// Text of the key file, for each slot of that kind.
    pub key_files: Vec<Zeroizing<String>>,
    /// The recovery words, for each slot of that kind.
    pub words: Vec<Zeroizing<String>>,
}

/// Makes a repository in `store`.
///
/// # Errors
/// [`RepoError::AlreadyExists`] if a config stands there already.
pub async fn create(store: &Store, env: &Env, slots: &[NewSlot], plan: Plan) -> Result<Created, RepoError> {
    if !store.list(layout::CONFIG).await?.is_empty() {
        return Err(RepoError::AlreadyExists { url: store.url().to_string() });
    }
    if let Some(lock) = plan.lock {
        store.set_lock(lock);
    }
    let random = &*env.random;
    let repository = RepositoryId::new(random_array(random)?);
    let root = SigningKey::generate(random)?;
    let writer =
        WriterSecret { id: WriterId::new(random_array(random)?), seed: SecretKey::generate(random)? };
    let wanted = slots.iter().any(|slot| matches!(slot, NewSlot::Words));
    let recovery = wanted.then(|| SecretKey::generate(random)).transpose()?;
    let secrets = Secrets {
        dedup: Some(SecretKey::generate(random)?),
        index: Some(SecretKey::generate(random)?),
        metadata: Some(PrivateKey::generate(random)?),
        data: Some(PrivateKey::generate(random)?),
        writer: Some(writer.clone()),
        root: Some(root.seed().clone()),
        recovery: recovery.clone(),
        ..Secrets::default()
    };
    let pins = Pins { repository, root: root.verifying_key(), config: 0 };
    let opened = Opened { role: Role::Admin, secrets, pins };
    let note = SlotNote { label: None, writer: Some(writer.id) };

    let mut created = Created { repository, key_files: Vec::new(), words: Vec::new() };
    for new in slots {
        let unlock = match new {
            NewSlot::Passphrase(text) => Unlock::Passphrase(text.clone()),
            NewSlot::KeyFile => {
                let key = SecretKey::generate(random)?;
                created.key_files.push(keyfile::encode(&repository, &key));
                Unlock::KeyFile(key)
            }
            NewSlot::Words => {
                let Some(key) = recovery.clone() else { continue };
                created.words.push(words::encode(&key));
                Unlock::Words(key)
            }
        };
        put_slot((store, env), &unlock, &opened, &note).await?;
    }
    register(store, (repository, &root), &writer, Authority::Maintainer).await?;
    let config = new_config(env, &opened, plan);
    put_signed(store, (ObjectKind::Config, repository), &config.encode(), &root, |hash| {
        ObjectName::Config(0, hash)
    })
    .await?;
    Ok(created)
}

/// Enters a new writer into the registry.
pub(super) async fn register(
    store: &Store,
    (repository, root): (RepositoryId, &SigningKey),
    writer: &WriterSecret,
    authority: Authority,
) -> Result<(), RepoError> {
    let key = *SigningKey::from_seed(writer.seed.clone()).verifying_key().as_bytes();
    let entry = WriterEntry { writer: writer.id, key, authority, standing: Standing::Active };
    let named = |hash| ObjectName::Writer(writer.id, 0, hash);
    put_signed(store, (ObjectKind::Writer, repository), &entry.encode(), root, named).await?;
    Ok(())
}

fn new_config(env: &Env, opened: &Opened, Plan { chunk_params: params, store_probe, lock }: Plan) -> Config {
    let recipient = |purpose, key: &Option<PrivateKey>| {
        key.as_ref().map(|key| Recipient { purpose, public_key: key.public_key().to_bytes() })
    };
    Config {
        repository: opened.pins.repository,
        suite: SUITE,
        root: *opened.pins.root.as_bytes(),
        recipients: [
            recipient(Purpose::Data, &opened.secrets.data),
            recipient(Purpose::Metadata, &opened.secrets.metadata),
        ]
        .into_iter()
        .flatten()
        .collect(),
        chunk_params: StoredChunkParams { min: params.min(), average: params.average(), max: params.max() },
        created: env.clock.now().0,
        store_probe,
        lock,
    }
}

/// Puts a slot, reads it back from the store and opens it: a slot that does not open must never be relied on.
pub(super) async fn put_slot(
    (store, env): (&Store, &Env),
    unlock: &Unlock,
    content: &Opened,
    note: &SlotNote,
) -> Result<ObjectHash, RepoError> {
    let bytes = slot::wrap(unlock, content, Some(note), KdfParams::default(), &*env.random)?;
    let hash = object_hash(&bytes);
    let name = ObjectName::KeySlot(hash);
    store.put(&object_key(name)?, vec![Bytes::from(bytes)]).await?;
    let back = super::open::get_checked(store, name, SLOT_MAX as u64).await?;
    if slot::open(unlock, &back)? == *content {
        Ok(hash)
    } else {
        Err(RepoError::HashMismatch { key: name.key() })
    }
}

/// Signs a value and puts it under the name that its hash gives.
pub(super) async fn put_signed(
    store: &Store,
    (kind, repository): (ObjectKind, RepositoryId),
    value: &[u8],
    key: &SigningKey,
    name: impl FnOnce(ObjectHash) -> ObjectName,
) -> Result<ObjectHash, RepoError> {
    let message = signed_message(Preamble::new(kind, ChunkKind::Data, repository), value);
    sign_and_put(store, message, key, name).await
}

/// Signs an object and puts it under the name that its hash gives.
pub(super) async fn sign_and_put(
    store: &Store,
    message: Vec<u8>,
    key: &SigningKey,
    name: impl FnOnce(ObjectHash) -> ObjectName,
) -> Result<ObjectHash, RepoError> {
    let (bytes, hash) = sign(message, key);
    store.put(&object_key(name(hash))?, vec![bytes]).await?;
    Ok(hash)
}

/// Signs an object: its bytes, and the hash that its name is made of.
pub(super) fn sign(message: Vec<u8>, key: &SigningKey) -> (Bytes, ObjectHash) {
    let mut bytes = message;
    let signature = key.sign(&bytes);
    bytes.extend_from_slice(&signature);
    let hash = object_hash(&bytes);
    (bytes.into(), hash)
}
