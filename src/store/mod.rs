//! Object storage: typed keys, durable writes, exact reads, complete listings, patience.
//!
//! The only room that knows `object_store`. A directory, one behind a door (`ssh://`, `https://`) or SFTP, S3, Google and Azure look the
//! same from above; what they do not share is evened out here or reported by [`Store::probe`].
//!
//! # Invariants
//! When [`Store::put`] returns, the object is durable. A listing is complete or an error, never silently empty. A read
//! returns exactly the bytes asked for. Every request may be repeated, since a name never has two contents.
//!
//! # Crash
//! A crash leaves whole objects or none, beside temporary files that no listing shows.
//!
//! # Must not
//! Believe a status that proves nothing (`AlreadyExists` is settled by reading and comparing), hold a lock across an await,
//! read the process's environment.

mod as_of;
mod aws;
mod azure;
#[doc(hidden)]
pub mod conformance;
mod connect;
pub mod door;
mod error;
pub mod fault;
mod files;
mod google;
mod key;
mod limit;
pub mod local;
mod location;
mod locks;
mod objects;
mod open;
mod options;
mod parts;
mod pool;
mod probe;
mod read_only;
mod retry;
mod sftp;

use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use object_store::path::Path as ObjectPath;
use object_store::{GetOptions, GetResult, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};

pub use error::{Cause, Operation, StoreError};
pub use key::{Key, KeyError};
pub use local::{Incoming, Listing, Reading, Shelf};
pub use location::{Bucket, Cloud, StoreUrl, UrlError};
pub use locks::{Hidden, Swept};
pub use open::OpenError;
pub use options::{Environment, StoreEnv, StoreOptions};
pub use probe::{ProbeCheck, ProbeExtent, ProbeFailure, ProbeReport, ProbeStep};
pub use read_only::ReadOnly;

use self::aws::Vault;
use self::error::{Request, classify};
use self::files::Files;
use self::limit::Limit;
use self::pool::Pool;
use crate::clock::Timestamp;
use crate::event::{Counters, Event};
use crate::format::config::Lock;

/// Temporary files older than this are nobody's any more.
const STALE: Duration = Duration::from_secs(7 * 24 * 3600);

/// An object as a listing shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Its name.
    pub key: Key,
    /// Its size in bytes.
    pub size: u64,
    /// When it was stored, on the store's clock.
    pub modified: Timestamp,
}

struct Inner {
    objects: Arc<dyn ObjectStore>,
    /// Where objects are files.
    files: Option<Files>,
    url: StoreUrl,
    env: StoreEnv,
    retry_for: Duration,
    create_only: bool,
    /// The store may keep the very memory it is given, as one in memory does. It is given a copy: the buffers of packs
    /// must come back, or a run that waits for one waits for ever.
    keeps_memory: bool,
    upload: Option<Limit>,
    download: Option<Limit>,
    pool: Pool,
    /// Versions and locks, where the store has them.
    vault: Option<Arc<Vault>>,
    /// How what is stored is locked.
    lock: OnceLock<Lock>,
}

/// A place where objects lie. Clones share it.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("url", &self.0.url).finish_non_exhaustive()
    }
}

/// The part of an object that is read.
#[derive(Clone)]
enum Part {
    Whole { max: u64 },
    Range(Range<u64>),
}

impl Store {
    /// Opens the store at `url`. Checks the options and finds credentials, but asks the store nothing: whether it is there
    /// shows with the first request.
    pub async fn open(url: &StoreUrl, options: &StoreOptions, env: StoreEnv) -> Result<Self, StoreError> {
        let pool = Pool::default();
        let opened = open::open(url, options, &env, &pool).await?;
        Ok(Self(Arc::new(Inner {
            objects: opened.objects,
            files: opened.files,
            url: url.clone(),
            env,
            retry_for: options.retry_for,
            create_only: opened.create_only,
            keeps_memory: false,
            upload: Limit::new(options.limit_upload),
            download: Limit::new(options.limit_download),
            pool,
            vault: opened.vault,
            lock: OnceLock::new(),
        })))
    }

    /// A store over any implementation of the trait, keys beginning at its root; of `options` only rates and patience count.
    /// For tests and simulation.
    pub fn from_object_store(objects: Arc<dyn ObjectStore>, options: &StoreOptions, env: StoreEnv) -> Self {
        Self(Arc::new(Inner {
            objects,
            files: None,
            url: StoreUrl::memory(),
            env,
            retry_for: options.retry_for,
            create_only: false,
            keeps_memory: true,
            upload: Limit::new(options.limit_upload),
            download: Limit::new(options.limit_download),
            pool: Pool::default(),
            vault: None,
            lock: OnceLock::new(),
        }))
    }

    /// A store behind a door that a test opens.
    #[cfg(test)]
    pub(crate) fn behind(
        connect: Arc<dyn door::Connect>,
        path: &str,
        options: &StoreOptions,
        env: StoreEnv,
    ) -> Self {
        let store = door::DoorStore::new(connect, path.to_owned(), "ssh://test".to_owned());
        Self::with_files(Arc::new(store.clone()), Files::Door(store), options, env)
    }

    /// A store of files on another machine that a test plays.
    #[cfg(test)]
    fn with_files(
        objects: Arc<dyn ObjectStore>,
        files: Files,
        options: &StoreOptions,
        env: StoreEnv,
    ) -> Self {
        Self(Arc::new(Inner {
            objects,
            files: Some(files),
            url: "ssh://test".parse().expect("it is an address"),
            env,
            retry_for: options.retry_for,
            create_only: true,
            keeps_memory: false,
            upload: None,
            download: None,
            pool: Pool::default(),
            vault: None,
            lock: OnceLock::new(),
        }))
    }

    /// Stores an object in one request; durable when it returns. May be repeated with the same content.
    pub async fn put(&self, key: &Key, body: Vec<Bytes>) -> Result<(), StoreError> {
        let given = |part: Bytes| if self.0.keeps_memory { Bytes::copy_from_slice(&part) } else { part };
        let payload: PutPayload = body.into_iter().filter(|part| !part.is_empty()).map(given).collect();
        let len = payload.content_length() as u64;
        self.take(self.0.upload.as_ref(), len, Operation::Put, key.as_str()).await?;
        self.attempts(Operation::Put, key.as_str(), || self.put_once(key, payload.clone())).await?;
        Counters::add(&self.0.env.observer.counters().bytes_stored, len);
        Ok(())
    }

    async fn put_once(&self, key: &Key, payload: PutPayload) -> Result<(), StoreError> {
        let mode = if self.0.create_only { PutMode::Create } else { PutMode::Overwrite };
        let path = self.path(key.as_str());
        let mut options = PutOptions::from(mode);
        self.mark_locked(key, &payload, &mut options);
        match self.0.objects.put_opts(&path, payload.clone(), options).await {
            Ok(_) => Ok(()),
            Err(object_store::Error::AlreadyExists { source, .. }) => {
                self.settle(key, &payload, source).await
            }
            Err(error) => Err(self.classify(Operation::Put, key.as_str(), error)),
        }
    }

    /// `AlreadyExists` can mean an earlier try of ours, a conflict that left nothing, or another content: only reading tells.
    async fn settle(&self, key: &Key, payload: &PutPayload, source: Cause) -> Result<(), StoreError> {
        let max = payload.content_length() as u64;
        match self.get_once(key, &Part::Whole { max }).await {
            Ok(found) if equal(payload, &found) => Ok(()),
            Ok(_) | Err(StoreError::TooLarge { .. }) => Err(StoreError::Conflict { key: key.to_string() }),
            Err(StoreError::NotFound { .. }) => {
                Err(StoreError::Unreachable { operation: Operation::Put, key: key.to_string(), source })
            }
            Err(error) => Err(error),
        }
    }

    /// Reads a whole object of at most `max` bytes; a larger one is an error before any of it is read.
    pub async fn get(&self, key: &Key, max: u64) -> Result<Bytes, StoreError> {
        self.read(key, Part::Whole { max }).await
    }

    /// Reads exactly this range; [`StoreError::Short`] if the object ends before it does.
    pub async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes, StoreError> {
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        self.read(key, Part::Range(range)).await
    }

    async fn read(&self, key: &Key, part: Part) -> Result<Bytes, StoreError> {
        let bytes = self.attempts(Operation::Get, key.as_str(), || self.get_once(key, &part)).await?;
        Counters::add(&self.0.env.observer.counters().bytes_fetched, bytes.len() as u64);
        Ok(bytes)
    }

    async fn get_once(&self, key: &Key, part: &Part) -> Result<Bytes, StoreError> {
        let (result, len) = self.ask(key, part).await?;
        self.collect(key, result, len).await
    }

    /// The beginning of a reply of just what is asked for, and how many bytes will come.
    async fn ask(&self, key: &Key, part: &Part) -> Result<(GetResult, u64), StoreError> {
        let options = match part {
            Part::Whole { .. } => GetOptions::new(),
            Part::Range(range) => GetOptions::new().with_range(Some(range.clone())),
        };
        let result = self.0.objects.get_opts(&self.path(key.as_str()), options).await;
        let result = result.map_err(|error| match part {
            Part::Range(range) if is_beyond_the_end(&error) => {
                StoreError::Short { key: key.to_string(), wanted: range.end - range.start, found: 0 }
            }
            _ => self.classify(Operation::Get, key.as_str(), error),
        })?;
        let found = result.range.end.saturating_sub(result.range.start);
        match part {
            Part::Whole { max } if result.meta.size > *max => {
                Err(StoreError::TooLarge { key: key.to_string(), size: result.meta.size, max: *max })
            }
            Part::Range(range) if result.range != *range => {
                Err(StoreError::Short { key: key.to_string(), wanted: range.end - range.start, found })
            }
            _ => Ok((result, found)),
        }
    }

    /// Gathers a reply of exactly `wanted` bytes. One piece is handed on as it is, several are copied into a reused buffer.
    async fn collect(&self, key: &Key, result: GetResult, wanted: u64) -> Result<Bytes, StoreError> {
        let short = |found| StoreError::Short { key: key.to_string(), wanted, found };
        let size = usize::try_from(wanted).map_err(|_| short(0))?;
        let mut stream = result.into_stream();
        let mut buffer = None;
        let mut filled = 0;
        while let Some(piece) = stream.next().await {
            let piece = piece.map_err(|error| self.classify(Operation::Get, key.as_str(), error))?;
            self.take(self.0.download.as_ref(), piece.len() as u64, Operation::Get, key.as_str()).await?;
            if piece.len() == size && filled == 0 {
                return Ok(piece);
            }
            let end = filled + piece.len();
            let buffer = buffer.get_or_insert_with(|| self.0.pool.take(size));
            let room = buffer.get_mut(filled..end).ok_or_else(|| short(end as u64))?;
            room.copy_from_slice(&piece);
            filled = end;
        }
        match buffer {
            Some(buffer) if filled == size => Ok(buffer.freeze()),
            None if size == 0 => Ok(Bytes::new()),
            _ => Err(short(filled as u64)),
        }
    }

    /// All objects whose keys begin with `prefix`, in the order of their keys; complete, or an error. The prefix is plain
    /// text: end it with `/` to mean a directory, which is also what the store does fast. What is no [`Key`] is left out and
    /// reported as a warning.
    pub async fn list(&self, prefix: &str) -> Result<Vec<Object>, StoreError> {
        self.attempts(Operation::List, prefix, || self.list_once(prefix)).await
    }

    async fn list_once(&self, prefix: &str) -> Result<Vec<Object>, StoreError> {
        let (directory, stem) = prefix.rsplit_once('/').unwrap_or(("", prefix));
        if !prefix.is_empty() {
            Key::new(prefix.strip_suffix('/').unwrap_or(prefix))?;
        }
        let top = self.path(directory);
        // Names before the stem need not be sent; one character less, because the offset itself is left out.
        let offset = stem.get(..stem.len().saturating_sub(1)).filter(|text| !text.is_empty());
        let mut stream = match offset {
            Some(offset) => {
                let slash = if directory.is_empty() { "" } else { "/" };
                self.0
                    .objects
                    .list_with_offset(Some(&top), &self.path(&format!("{directory}{slash}{offset}")))
            }
            None => self.0.objects.list(Some(&top)),
        };
        let root = self.0.url.prefix();
        let mut objects = Vec::new();
        let mut foreign = None;
        while let Some(meta) = stream.next().await {
            let meta = meta.map_err(|error| self.classify(Operation::List, prefix, error))?;
            let text = meta.location.as_ref();
            let text = text.strip_prefix(root).unwrap_or(text).trim_start_matches('/');
            if !text.starts_with(prefix) {
                continue;
            }
            match Key::new(text) {
                Ok(key) => {
                    let modified = Timestamp(meta.last_modified.timestamp_nanos_opt().unwrap_or(0));
                    objects.push(Object { key, size: meta.size, modified });
                }
                Err(_) => foreign = foreign.or_else(|| Some(text.escape_default().to_string())),
            }
        }
        if let Some(name) = foreign {
            let message = format!("ignoring what is no object of the repository, such as {name}");
            self.0.env.observer.observe(&Event::Warning { message: &message });
        }
        objects.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        objects.dedup_by(|a, b| a.key == b.key);
        Ok(objects)
    }

    /// Deletes an object, durably; one that is not there counts as deleted.
    pub async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        self.attempts(Operation::Delete, key.as_str(), || async {
            match self.0.objects.delete(&self.path(key.as_str())).await {
                Ok(()) => Ok(()),
                Err(error) => match self.classify(Operation::Delete, key.as_str(), error) {
                    StoreError::NotFound { .. } => Ok(()),
                    error => Err(error),
                },
            }
        })
        .await
    }

    /// Makes the root directory of a store of files; nothing elsewhere. Nothing else makes it, so that
    /// a run whose disk is not mounted fails instead of writing beside it.
    pub async fn create_root(&self) -> Result<(), StoreError> {
        self.attempts(Operation::Root, "", || async {
            match &self.0.files {
                Some(files) => {
                    let made = files.create_root().await;
                    made.map_err(|error| self.classify(Operation::Root, "", error))
                }
                None => Ok(()),
            }
        })
        .await
    }

    /// Removes half-written files that are a week old from a store of files; says how many.
    pub async fn sweep_temporary(&self) -> Result<u64, StoreError> {
        let Some(files) = &self.0.files else { return Ok(0) };
        let now = self.0.env.clock.now().0;
        files.sweep(now).await.map_err(|error| self.classify(Operation::Root, key::RESERVED, error))
    }

    /// Whether names are those of files, so that one cannot be the beginning of another.
    pub fn has_directories(&self) -> bool {
        self.0.files.is_some()
    }

    /// Whether the objects are files of this machine.
    pub fn is_local(&self) -> bool {
        self.local_root().is_some()
    }

    /// The directory of a local store.
    pub fn local_root(&self) -> Option<&Path> {
        self.0.files.as_ref()?.local_root()
    }

    /// Where the store lies.
    pub fn url(&self) -> &StoreUrl {
        &self.0.url
    }

    /// Bytes left for this user where objects are files, if that is known.
    pub async fn free_space(&self) -> Option<u64> {
        self.0.files.as_ref()?.free_space().await
    }

    /// `relative` is a key or a prefix of one, or empty; the prefix of the location was checked when it was parsed.
    fn path(&self, relative: &str) -> ObjectPath {
        let prefix = self.0.url.prefix();
        let slash = if prefix.is_empty() || relative.is_empty() { "" } else { "/" };
        ObjectPath::parse(format!("{prefix}{slash}{relative}"))
            .expect("prefixes and keys are checked when they are made")
    }

    fn classify(&self, operation: Operation, key: &str, error: object_store::Error) -> StoreError {
        classify(Request { operation, key, place: &self.0.url }, error)
    }

    async fn take(
        &self,
        limit: Option<&Limit>,
        bytes: u64,
        operation: Operation,
        key: &str,
    ) -> Result<(), StoreError> {
        match limit {
            Some(limit) => limit
                .take(&self.0.env, bytes)
                .await
                .map_err(|_| StoreError::Cancelled { operation, key: key.to_owned() }),
            None => Ok(()),
        }
    }

    async fn attempts<T, F>(
        &self,
        operation: Operation,
        key: &str,
        request: impl FnMut() -> F,
    ) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        retry::attempts(&self.0.env, self.0.retry_for, (operation, key), request).await
    }
}

/// Whether the store refuses a range because it begins after the end; each says it in its own way.
fn is_beyond_the_end(error: &object_store::Error) -> bool {
    let object_store::Error::Generic { source, .. } = error else { return false };
    let text = source.to_string();
    error::status(&text) == Some(416) || text.contains("but object was only")
}

fn equal(payload: &PutPayload, found: &[u8]) -> bool {
    let mut rest = found;
    payload.content_length() == found.len()
        && payload.iter().all(|part| {
            let (head, tail) = rest.split_at(part.len());
            rest = tail;
            head == part
        })
}

#[cfg(test)]
mod tests;
