//! Opening a repository, and its list of snapshots.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, stream};
use serde::Deserialize;
use zeroize::Zeroizing;

use super::blobs::{BlobKind, BlobOpener, Place};
use super::catalog::Catalog;
use super::crypto::{Key, name_of};
use super::error::{Fault, ResticError};
use super::keyfile::{KEY_FILE_MAX, KeyFile};
use super::snapshot::{SNAPSHOT_MAX, Snapshot};
use super::unpacked;
use crate::id::ResticId;
use crate::store::{Key as StoreKey, ReadOnly, StoreError};

const CONFIG_MAX: usize = 64 << 10;
/// Most keys that are tried.
const KEYS_MAX: usize = 64;

#[derive(Deserialize)]
struct Config {
    version: u64,
    id: String,
}

/// An open repository of restic. Clones share it.
#[derive(Debug, Clone)]
pub struct Restic {
    store: ReadOnly,
    key: Key,
    id: String,
    version: u64,
}

impl Restic {
    /// Opens the repository in this store.
    ///
    /// # Errors
    /// [`ResticError::NotFound`], [`ResticError::WrongPassword`], and whatever keeps config and keys from being read.
    pub async fn open(store: ReadOnly, password: &str) -> Result<Self, ResticError> {
        let sealed = match fetch(&store, "config", CONFIG_MAX).await {
            Err(ResticError::Store(StoreError::NotFound { .. } | StoreError::NoBucket { .. })) => {
                return Err(ResticError::NotFound { url: store.url().to_string() });
            }
            other => other?,
        };
        let key = unlock(&store, password).await?;
        let damaged = |fault| ResticError::file("config")(fault);
        let json = unpacked::open(&key, &sealed, CONFIG_MAX).map_err(damaged)?;
        let config: Config = serde_json::from_slice(&json).map_err(|error| damaged(Fault::Json(error)))?;
        if !(1..=2).contains(&config.version) {
            return Err(ResticError::Version { version: config.version });
        }
        if config.id.len() > 128 {
            return Err(damaged(Fault::Value { what: "its id" }));
        }
        Ok(Self { store, key, id: config.id, version: config.version })
    }

    /// What restic calls the repository: by its own rules 64 hexadecimal digits.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The version of its format.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Where it lies.
    pub fn url(&self) -> String {
        self.store.url().to_string()
    }

    /// All snapshots, the oldest first, and what kept others from being read. Up to `requests` are read at once.
    pub async fn snapshots(&self, requests: usize) -> Result<(Vec<Snapshot>, Vec<ResticError>), ResticError> {
        let names = list(&self.store, "snapshots/").await?;
        let (mut snapshots, mut problems) = (Vec::new(), Vec::new());
        let mut reads = stream::iter(names)
            .map(|id| async move {
                let key = format!("snapshots/{id}");
                let json = self.document(&key, &id, SNAPSHOT_MAX).await?;
                Snapshot::decode(id, &json).map_err(ResticError::file(key))
            })
            .buffer_unordered(requests.max(1));
        while let Some(read) = reads.next().await {
            match read {
                Ok(snapshot) => snapshots.push(snapshot),
                Err(error) if error.is_local() => problems.push(error),
                Err(error) => return Err(error),
            }
        }
        snapshots.sort_by_key(|snapshot| (snapshot.time, snapshot.id));
        Ok((snapshots, problems))
    }

    /// Reads all indexes; what does not fit into memory lies in `scratch`. Also gives what kept some from being read.
    pub async fn catalog(
        &self,
        scratch: &Path,
        requests: usize,
    ) -> Result<(Catalog, Vec<ResticError>), ResticError> {
        Catalog::load(self, scratch, requests).await
    }

    pub(super) fn key(&self) -> &Key {
        &self.key
    }

    /// The names in a directory of the repository.
    pub(super) async fn list(&self, directory: &str) -> Result<Vec<ResticId>, ResticError> {
        list(&self.store, directory).await
    }

    /// The packs whose names begin with this byte, and their sizes.
    pub(super) async fn list_packs(&self, byte: u8) -> Result<Vec<(ResticId, u64)>, ResticError> {
        let directory = format!("data/{byte:02x}/");
        let objects = self.store.list(&directory).await?;
        let named = objects.into_iter().filter_map(|object| {
            let id: ResticId = object.key.as_str().strip_prefix(&directory)?.parse().ok()?;
            Some((id, object.size))
        });
        Ok(named.collect())
    }

    /// A file that holds a JSON document of at most `most` bytes.
    pub(super) async fn document(
        &self,
        key: &str,
        id: &ResticId,
        most: usize,
    ) -> Result<Vec<u8>, ResticError> {
        let sealed = fetch_listed(&self.store, key, most).await?;
        let (key_of, id) = (self.key.clone(), *id);
        let open = move || {
            if name_of(&sealed) != id {
                return Err(Fault::Hash);
            }
            unpacked::open(&key_of, &sealed, most)
        };
        blocking(open).await?.map_err(ResticError::file(key))
    }

    /// Bytes of a pack.
    pub async fn read_pack(&self, pack: &ResticId, range: Range<u64>) -> Result<Bytes, ResticError> {
        let name = pack.to_string();
        let key = store_key(&format!("data/{}/{name}", &name[..2]))?;
        self.store.get_range(&key, range).await.map_err(|error| match error {
            StoreError::NotFound { .. } | StoreError::Short { .. } | StoreError::TooLarge { .. } => {
                ResticError::Pack { pack: *pack, source: error }
            }
            other => other.into(),
        })
    }

    /// Opens blobs of which `stored` holds the bytes, each with where it begins there; gives their contents or what is wrong
    /// with each.
    pub async fn open_blobs(
        &self,
        kind: BlobKind,
        (pack, stored): (ResticId, Bytes),
        blobs: Vec<(ResticId, Place, usize)>,
    ) -> Result<Vec<(ResticId, Result<Bytes, ResticError>)>, ResticError> {
        let key = self.key.clone();
        blocking(move || {
            // Without memory for it nothing can be said of the blobs.
            let mut opener = BlobOpener::new(&key).map_err(|_| ResticError::Task)?;
            let open = |(id, place, at): (ResticId, Place, usize)| {
                let bytes = stored.get(at..).and_then(|rest| rest.get(..place.length as usize));
                let opened = bytes.ok_or(Fault::Truncated);
                let opened = opened.and_then(|bytes| opener.open((kind, &id), &place, bytes));
                (id, opened.map_err(|fault| ResticError::Blob { blob: id, pack, fault }))
            };
            Ok(blobs.into_iter().map(open).collect())
        })
        .await?
    }
}

/// Work that would keep other tasks waiting.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ResticError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| ResticError::Task)
}

fn store_key(text: &str) -> Result<StoreKey, ResticError> {
    StoreKey::new(text).map_err(|error| ResticError::Store(error.into()))
}

async fn fetch(store: &ReadOnly, key: &str, most: usize) -> Result<Bytes, ResticError> {
    store.get(&store_key(key)?, most as u64).await.map_err(|error| match error {
        StoreError::TooLarge { size, max, .. } => {
            ResticError::file(key)(Fault::TooLong { len: size, most: max })
        }
        other => other.into(),
    })
}

/// As [`fetch`], of a file that was listed: if it cannot be had, only that file is concerned.
async fn fetch_listed(store: &ReadOnly, key: &str, most: usize) -> Result<Bytes, ResticError> {
    let fault = |fault| Err(ResticError::file(key)(fault));
    match fetch(store, key, most).await {
        Err(ResticError::Store(StoreError::NotFound { .. })) => fault(Fault::Gone),
        Err(ResticError::Store(StoreError::Short { .. })) => fault(Fault::Truncated),
        other => other,
    }
}

async fn list(store: &ReadOnly, directory: &str) -> Result<Vec<ResticId>, ResticError> {
    let objects = store.list(directory).await?;
    let name = |text: &str| text.strip_prefix(directory).and_then(|name| name.parse().ok());
    Ok(objects.iter().filter_map(|object| name(object.key.as_str())).collect())
}

/// The repository's keys, if the password opens this key file.
fn try_key((name, id): (&str, &ResticId), bytes: &[u8], password: &[u8]) -> Result<Option<Key>, ResticError> {
    if name_of(bytes) != *id {
        return Err(ResticError::file(name)(Fault::Hash));
    }
    KeyFile::decode(bytes).map_err(ResticError::file(name))?.unlock(password, name)
}

/// Tries the password on each key.
async fn unlock(store: &ReadOnly, password: &str) -> Result<Key, ResticError> {
    let names = list(store, "keys/").await?;
    if names.len() > KEYS_MAX {
        return Err(ResticError::TooManyKeys { keys: names.len(), most: KEYS_MAX });
    }
    let password = Arc::new(Zeroizing::new(password.as_bytes().to_vec()));
    let (mut tried, mut problem) = (0, None);
    for id in names {
        let name = format!("keys/{id}");
        let opened = match fetch_listed(store, &name, KEY_FILE_MAX).await {
            Ok(bytes) => {
                let password = Arc::clone(&password);
                blocking(move || try_key((&name, &id), &bytes, &password)).await?
            }
            Err(error) if error.is_local() => Err(error),
            Err(error) => return Err(error),
        };
        match opened {
            Ok(Some(key)) => return Ok(key),
            Ok(None) => tried += 1,
            // Another key may be the right one.
            Err(error) => problem = Some(error),
        }
    }
    Err(match (problem, tried) {
        (Some(error), _) => error,
        (None, 0) => ResticError::NoKey,
        (None, keys) => ResticError::WrongPassword { keys },
    })
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Forge, PASSWORD};
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_key_file_that_cannot_be_had_does_not_keep_another_from_being_tried() {
        let forge = Forge::new().await;
        // Listed before the good one.
        let key = store_key(&format!("keys/{}", "0".repeat(64))).unwrap();
        for bytes in [vec![b' '; KEY_FILE_MAX + 1], b"{}".to_vec(), Vec::new()] {
            forge.store.put(&key, vec![bytes.into()]).await.unwrap();
            let restic = Restic::open(ReadOnly::new(forge.store.clone()), PASSWORD).await;
            assert!(restic.is_ok(), "{restic:?}");
            let wrong = Restic::open(ReadOnly::new(forge.store.clone()), "another").await;
            assert!(matches!(wrong, Err(ResticError::File { .. })), "{wrong:?}");
        }
    }
}
