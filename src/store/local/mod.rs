//! A directory as an object store, durable and without following links.
//!
//! # Invariants
//! An object is complete under its name or not there: it is written to `tmp/`, synced, and renamed. When a `put` returns,
//! the object, its name and every directory above it are on stable storage; when a `delete` returns, the absence is. Before
//! either begins, so is what was listed until then, but for listings of all packs: what is written may rest on it.
//! A path is never followed through a symbolic link below the root.
//!
//! # Crash
//! A crash leaves at most files in `tmp/`, which no listing shows and [`LocalStore::sweep`] removes after a week.
//!
//! # Must not
//! Make the root on its own: a run whose disk is not mounted must fail, not start a new repository beside it.

mod beneath;
#[doc(hidden)]
pub mod disk;
mod read;
mod shelf;
mod upload;
mod walk;
mod write;

use std::collections::{BTreeSet, HashSet};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::path::Path as ObjectPath;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

use self::disk::{Disk, Kind, RealDisk};
pub(super) use self::read::{cut, meta};
pub use self::shelf::{Incoming, Listing, Reading, Shelf};
use super::objects::{delete_each, given, not_implemented, stored};
use super::options::StoreEnv;
use super::pool::Pool;
use crate::event::{Event, Observer};
use crate::random::{RandomError, random_array};

const NAME: &str = "local";

/// One step on the file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Step {
    /// Making a directory.
    MakeDirectory,
    /// Making a temporary file.
    Create,
    /// Writing content.
    Write,
    /// Making content durable.
    SyncFile,
    /// Giving the file its final name.
    Rename,
    /// Making names durable.
    SyncDirectory,
    /// Removing a name.
    Remove,
    /// Opening for reading.
    Open,
    /// Reading content.
    Read,
    /// Looking at a directory or an entry.
    Look,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::MakeDirectory => "make directory",
            Self::Create => "create",
            Self::Write => "write",
            Self::SyncFile | Self::SyncDirectory => "sync",
            Self::Rename => "rename to",
            Self::Remove => "remove",
            Self::Open => "open",
            Self::Read => "read",
            Self::Look => "look at",
        })
    }
}

/// What went wrong in a directory.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LocalError {
    /// The root is not there.
    #[error("{} is not there", path.display())]
    NoRoot {
        /// The root.
        path: PathBuf,
    },
    /// A link, a device or another thing stands where a file or directory of the repository belongs.
    #[error("{} is neither a plain file nor a directory of the repository", path.display())]
    Foreign {
        /// The path.
        path: PathBuf,
    },
    /// The file ended before the bytes that its size promised.
    #[error("{} ends after {found} of {wanted} bytes", path.display())]
    Shrunk {
        /// The path.
        path: PathBuf,
        /// Bytes asked for.
        wanted: u64,
        /// Bytes there were.
        found: u64,
    },
    /// The file system cannot make things durable.
    #[error("{} is on a file system that cannot sync; the option unsafe_no_fsync=true does without", path.display())]
    NoSync {
        /// The path.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A step failed.
    #[error("cannot {step} {}", path.display())]
    Io {
        /// What was tried.
        step: Step,
        /// Where.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The thread that did the work is gone.
    #[error("the thread working on {} ended early", path.display())]
    Thread {
        /// The path.
        path: PathBuf,
    },
}

impl LocalError {
    fn io(step: Step, path: &Path, source: io::Error) -> Self {
        Self::Io { step, path: path.to_owned(), source }
    }

    fn is_missing(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }

    /// As the trait's error; the sorting by error number is done where all stores' errors are sorted.
    fn into_store(self, key: &str) -> Error {
        if self.is_missing() || matches!(self, Self::NoRoot { .. }) {
            Error::NotFound { path: key.to_owned(), source: Box::new(self) }
        } else {
            Error::Generic { store: NAME, source: Box::new(self) }
        }
    }
}

/// How a directory is treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LocalOptions {
    /// Whether anything is synced. Without it a power cut loses what was acknowledged.
    pub fsync: bool,
    /// Whether large objects bypass the page cache, where the file system can.
    pub direct_io: bool,
}

impl Default for LocalOptions {
    fn default() -> Self {
        Self { fsync: true, direct_io: true }
    }
}

struct Inner<D> {
    disk: D,
    root: PathBuf,
    options: LocalOptions,
    /// Lowered when the file system refuses direct writes.
    direct: AtomicBool,
    /// Directories known to be there, to be no links, and to be durable.
    known: Mutex<HashSet<PathBuf>>,
    /// Directories known to be there and to be reached through no link.
    plain: Mutex<HashSet<PathBuf>>,
    /// Directories that were listed since something was last written. Names found there may not be durable: whoever made or
    /// removed them may have died before, or not be done yet.
    listed: Mutex<BTreeSet<PathBuf>>,
    /// Makes names of temporary files unique across processes.
    nonce: u64,
    counter: AtomicU64,
    pool: Pool,
    observer: Arc<dyn Observer>,
}

impl<D: Disk> Inner<D> {
    fn path_of(&self, key: &ObjectPath) -> PathBuf {
        self.root.join(key.as_ref())
    }

    fn check_root(&self) -> std::result::Result<(), LocalError> {
        match self.disk.stat(&self.root) {
            Ok(stat) if stat.kind == Kind::Directory => Ok(()),
            Ok(_) => Err(LocalError::Foreign { path: self.root.clone() }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(LocalError::NoRoot { path: self.root.clone() })
            }
            Err(error) => Err(LocalError::io(Step::Look, &self.root, error)),
        }
    }

    /// A missing file means something else when the root is missing too.
    fn explain(&self, error: LocalError) -> LocalError {
        match error.is_missing().then(|| self.check_root()) {
            Some(Err(root)) => root,
            _ => error,
        }
    }
}

/// A directory as an object store.
pub struct LocalStore<D = RealDisk>(Arc<Inner<D>>);

impl<D> Clone for LocalStore<D> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl LocalStore {
    /// The store below `root`, an absolute path. Touches nothing.
    pub fn new(
        root: impl Into<PathBuf>,
        options: LocalOptions,
        env: &StoreEnv,
    ) -> std::result::Result<Self, RandomError> {
        Self::on_disk(RealDisk, root.into(), options, env)
    }

    pub(super) fn with_pool(
        root: PathBuf,
        options: LocalOptions,
        env: &StoreEnv,
        pool: Pool,
    ) -> std::result::Result<Self, RandomError> {
        Self::build((RealDisk, root), options, env, pool)
    }
}

impl<D: Disk> LocalStore<D> {
    /// The store below `root` on another file system than the machine's: for simulations.
    #[doc(hidden)]
    pub fn on_disk(
        disk: D,
        root: PathBuf,
        options: LocalOptions,
        env: &StoreEnv,
    ) -> std::result::Result<Self, RandomError> {
        Self::build((disk, root), options, env, Pool::default())
    }

    fn build(
        (disk, root): (D, PathBuf),
        options: LocalOptions,
        env: &StoreEnv,
        pool: Pool,
    ) -> std::result::Result<Self, RandomError> {
        Ok(Self(Arc::new(Inner {
            disk,
            root,
            options,
            direct: AtomicBool::new(options.direct_io),
            known: Mutex::default(),
            plain: Mutex::default(),
            listed: Mutex::default(),
            nonce: u64::from_le_bytes(random_array(env.random.as_ref())?),
            counter: AtomicU64::new(0),
            pool,
            observer: Arc::clone(&env.observer),
        })))
    }

    /// The root directory.
    pub fn root(&self) -> &Path {
        &self.0.root
    }

    /// Whether large objects still bypass the page cache: lowered once the file system has refused.
    pub fn writes_directly(&self) -> bool {
        self.0.direct.load(Ordering::Relaxed)
    }

    /// Runs on a thread that may block.
    async fn blocking<T, F>(&self, path: &str, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Inner<D>) -> std::result::Result<T, LocalError> + Send + 'static,
    {
        let inner = Arc::clone(&self.0);
        match tokio::task::spawn_blocking(move || work(&inner).map_err(|e| inner.explain(e))).await {
            Ok(result) => result.map_err(|error| error.into_store(path)),
            Err(_) => Err(LocalError::Thread { path: self.0.root.join(path) }.into_store(path)),
        }
    }

    /// Makes the root and the directories above it, durably. One that is there is left as it is.
    pub async fn create_root(&self) -> Result<()> {
        self.blocking("", |inner| inner.make_root()).await
    }

    /// Bytes that this user may still write, if the file system tells.
    pub fn free_space(&self) -> Option<u64> {
        self.0.disk.free_space(&self.0.root)
    }

    /// Removes temporary files that were last written before `before` nanoseconds of 1970; says how many.
    pub async fn sweep(&self, before: i64) -> Result<u64> {
        self.blocking("", move |inner| inner.sweep(before)).await
    }
}

impl<D> fmt::Debug for LocalStore<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalStore").field("root", &self.0.root).finish_non_exhaustive()
    }
}

impl<D> fmt::Display for LocalStore<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.root.display().fmt(f)
    }
}

#[async_trait::async_trait]
impl<D: Disk> ObjectStore for LocalStore<D> {
    async fn put_opts(
        &self,
        location: &ObjectPath,
        payload: PutPayload,
        opts: PutOptions,
    ) -> Result<PutResult> {
        if opts.mode != PutMode::Overwrite {
            return not_implemented(NAME, "a conditional put");
        }
        let path = self.0.path_of(location);
        self.blocking(location.as_ref(), move |inner| inner.put(&path, &payload)).await?;
        Ok(stored())
    }

    async fn put_multipart_opts(
        &self,
        _: &ObjectPath,
        _: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        not_implemented(NAME, "a put in parts")
    }

    /// A range is read at once; a whole object only when its content is polled, so that its size can be judged first.
    async fn get_opts(&self, location: &ObjectPath, options: GetOptions) -> Result<GetResult> {
        let path = self.0.path_of(location);
        let key = location.as_ref().to_owned();
        let (wanted, head) = (options.range.clone(), options.head);
        let read =
            self.blocking(&key, move |inner| inner.open_and_read(&path, wanted.as_ref(), head)).await?;
        let meta = read.meta(location);
        let range = read.range.clone();
        let store = self.clone();
        let content = async move {
            match read.bytes {
                Some(bytes) => Ok(bytes),
                None => {
                    store.blocking(&key, move |inner| inner.read(&read.file, &read.path, read.range)).await
                }
            }
        };
        let stream: BoxStream<'static, Result<bytes::Bytes>> =
            if head { futures::stream::empty().boxed() } else { futures::stream::once(content).boxed() };
        given(&options, meta, range, stream)
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<ObjectPath>>,
    ) -> BoxStream<'static, Result<ObjectPath>> {
        let store = self.clone();
        delete_each(locations, move |location| {
            let store = store.clone();
            async move {
                let path = store.0.path_of(&location);
                store.blocking(location.as_ref(), move |inner| inner.remove(&path)).await
            }
        })
    }

    fn list(&self, prefix: Option<&ObjectPath>) -> BoxStream<'static, Result<ObjectMeta>> {
        let prefix = prefix.cloned().unwrap_or_default();
        let store = self.clone();
        futures::stream::once(async move {
            let key = prefix.as_ref().to_owned();
            let found = store.blocking(&key, move |inner| inner.walk(prefix.as_ref())).await;
            if let Some(first) = found.as_ref().ok().and_then(|found| found.foreign.first()) {
                let message =
                    format!("ignored what is no object of the repository, such as {}", first.display());
                store.0.observer.observe(&Event::Warning { message: &message });
            }
            let objects: Vec<Result<ObjectMeta>> = match found {
                Ok(found) => found.objects.into_iter().map(Ok).collect(),
                Err(error) => vec![Err(error)],
            };
            futures::stream::iter(objects)
        })
        .flatten()
        .boxed()
    }

    async fn list_with_delimiter(&self, _: Option<&ObjectPath>) -> Result<ListResult> {
        not_implemented(NAME, "a listing by level")
    }

    async fn copy_opts(&self, _: &ObjectPath, _: &ObjectPath, _: CopyOptions) -> Result<()> {
        not_implemented(NAME, "a copy")
    }
}

#[cfg(test)]
mod hooked;
#[cfg(test)]
mod tests;
