//! A store behind SFTP. One connection at a time, made when it is needed and again when it was lost; what was under way then
//! fails as with any store that does not answer, and is repeated above.

use std::collections::{BTreeSet, HashSet};
use std::fmt;
use std::ops::Range;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex as SyncMutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path as ObjectPath;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use tokio::sync::Mutex;

use super::super::door::{Connect, Current};
use super::super::local::{cut, meta};
use super::super::objects::{delete_each, given, not_implemented, stored};
use super::super::options::StoreEnv;
use super::error::SftpError;
use super::line::{Handle, Line, ahead};
use super::wire::{Ask, Attributes, Kind, Mode, Reply, Space};
use crate::event::Observer;
use crate::random::{RandomError, random_array};

const NAME: &str = "sftp";

/// How a server is treated.
#[derive(Debug, Clone, Copy)]
pub(in crate::store) struct SftpOptions {
    /// Whether anything is synced. Without it a power cut there loses what was acknowledged.
    pub(in crate::store) fsync: bool,
}

pub(super) struct Inner {
    connect: Arc<dyn Connect>,
    /// The directory of the objects, as the server knows it.
    pub(super) root: String,
    place: String,
    pub(super) options: SftpOptions,
    current: Current<Line>,
    /// Directories known to be there and to be durable.
    pub(super) known: SyncMutex<HashSet<String>>,
    /// Directories that were listed since something was last written; what was found there may not be durable.
    pub(super) listed: SyncMutex<BTreeSet<String>>,
    /// Held while that is made durable.
    pub(super) settling: Mutex<()>,
    /// Makes names of temporary files unique across processes.
    pub(super) nonce: u64,
    pub(super) counter: AtomicU64,
    pub(super) observer: Arc<dyn Observer>,
}

/// A store behind SFTP. Clones share its connection.
#[derive(Clone)]
pub(in crate::store) struct SftpStore(pub(super) Arc<Inner>);

impl fmt::Debug for SftpStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SftpStore").field("place", &self.0.place).finish_non_exhaustive()
    }
}

impl fmt::Display for SftpStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0.place)
    }
}

/// What an address says of a directory, as a path of the server: without one it is where the server begins.
fn root_of(path: &str) -> String {
    let path = match path.strip_prefix("/~") {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => rest.trim_start_matches('/'),
        _ => path,
    };
    if path.is_empty() { ".".to_owned() } else { path.to_owned() }
}

impl SftpStore {
    /// Connects to nothing yet. `path` is what the address says of the directory; `place` is the address, for messages.
    pub(in crate::store) fn new(
        connect: Arc<dyn Connect>,
        (path, place): (&str, String),
        options: SftpOptions,
        env: &StoreEnv,
    ) -> std::result::Result<Self, RandomError> {
        Ok(Self(Arc::new(Inner {
            connect,
            root: root_of(path),
            place,
            options,
            current: Current::default(),
            known: SyncMutex::default(),
            listed: SyncMutex::default(),
            settling: Mutex::default(),
            nonce: u64::from_le_bytes(random_array(env.random.as_ref())?),
            counter: AtomicU64::new(0),
            observer: Arc::clone(&env.observer),
        })))
    }

    pub(super) async fn line(&self) -> Result<Arc<Line>, SftpError> {
        let store = self.clone();
        let make = |_| async move { Line::open(store.0.connect.as_ref()).await };
        self.0.current.line(make).await
    }

    pub(super) fn path_of(&self, key: &str) -> String {
        match key {
            "" => self.0.root.clone(),
            key => format!("{}/{key}", self.0.root.trim_end_matches('/')),
        }
    }

    /// Forgets which directories are there: one of them is gone.
    pub(super) fn learn_anew(&self) {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    pub(super) fn listed(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.0.listed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) async fn check_root(&self, line: &Line) -> Result<(), SftpError> {
        let root = &self.0.root;
        match line.look(&Ask::Stat { path: root }, root).await {
            Ok(found) if matches!(found.kind(), Some(Kind::Directory) | None) => Ok(()),
            Ok(_) => Err(SftpError::Foreign { path: root.clone() }),
            Err(error) if error.is_missing() => Err(SftpError::NoRoot { path: root.clone() }),
            Err(error) => Err(error),
        }
    }

    /// A missing file means something else when the root is missing too.
    async fn explain(&self, line: &Line, error: SftpError) -> SftpError {
        if !error.is_missing() {
            return error;
        }
        match self.check_root(line).await {
            Err(root) => root,
            Ok(()) => error,
        }
    }

    async fn space_on(&self, line: &Line) -> Result<Option<Space>, SftpError> {
        if !line.features.space {
            return Ok(None);
        }
        match line.ask(&Ask::Space { path: &self.0.root }).await? {
            Reply::Extended(answer) => Space::parse(answer).map(Some).ok_or_else(|| line.odd()),
            // A file system may not know.
            Reply::Status { .. } => Ok(None),
            _ => Err(line.odd()),
        }
    }

    /// What lies behind a failure of which the server says no more: whether `wanted` bytes have room there.
    pub(super) async fn explain_failure(&self, line: &Line, error: SftpError, wanted: u64) -> SftpError {
        let SftpError::Answer { step, path, .. } = &error else { return error };
        if !error.is_plain_failure() {
            return error;
        }
        let (step, path) = (*step, path.clone());
        match self.space_on(line).await {
            Ok(Some(space)) if space.read_only => SftpError::ReadOnly { step, path },
            Ok(Some(space)) if space.no_names || space.free < wanted => SftpError::NoSpace { step, path },
            _ => error,
        }
    }

    /// Bytes that may still be stored; `None` if the server does not say.
    pub(in crate::store) async fn free_space(&self) -> Result<Option<u64>> {
        let space = async { self.space_on(self.line().await?.as_ref()).await };
        space
            .await
            .map(|space| space.map(|space| space.free))
            .map_err(|error: SftpError| error.into_store(""))
    }

    /// Opens an object; a link or anything else under the name is an error.
    async fn open(&self, key: &str) -> Result<Opened, SftpError> {
        let line = self.line().await?;
        let path = self.path_of(key);
        let (file, found) = tokio::join!(line.open_file(&path, Mode::Read), line.link_stat(&path));
        let found = match found {
            Ok(found) => found,
            Err(error) => return Err(self.explain(&line, error).await),
        };
        let size = plain_size(&found, &path)?;
        let file = match file {
            Ok(file) => Arc::new(file),
            Err(error) => return Err(self.explain(&line, error).await),
        };
        Ok(Opened { file, path, size, modified: modified(&found), piece: line.read_max })
    }

    async fn head(&self, key: &str) -> Result<(u64, (i64, i64)), SftpError> {
        let line = self.line().await?;
        let path = self.path_of(key);
        match line.link_stat(&path).await {
            Ok(found) => Ok((plain_size(&found, &path)?, modified(&found))),
            Err(error) => Err(self.explain(&line, error).await),
        }
    }
}

/// When a file was written last: seconds since 1970, which is all that there is, and nanoseconds.
pub(super) fn modified(found: &Attributes) -> (i64, i64) {
    (found.modified.map_or(0, i64::from), 0)
}

fn plain_size(found: &Attributes, path: &str) -> Result<u64, SftpError> {
    match (found.kind(), found.size) {
        (Some(Kind::File) | None, Some(size)) => Ok(size),
        (Some(Kind::File) | None, None) => {
            Err(SftpError::Broken { what: format!("it does not say how large `{path}` is") })
        }
        // As with a bucket: no object has the name of a directory.
        (Some(Kind::Directory | Kind::Other), _) => Err(SftpError::Foreign { path: path.to_owned() }),
    }
}

/// An object that is being read.
struct Opened {
    file: Arc<Handle>,
    path: String,
    size: u64,
    modified: (i64, i64),
    /// Bytes that one request may read.
    piece: u32,
}

/// A part of a file that is read by one request, or by more if the server gives less.
async fn piece(file: Arc<Handle>, path: Arc<str>, range: Range<u64>, size: u64) -> Result<Bytes, SftpError> {
    let (mut at, mut gathered) = (range.start, BytesMut::new());
    loop {
        let left = u32::try_from(range.end - at).unwrap_or(u32::MAX);
        let content = file.read(at, left, &path).await?;
        let content = content.ok_or_else(|| SftpError::Shrunk { path: path.to_string(), size })?;
        at += content.len() as u64;
        if at == range.end && gathered.is_empty() {
            return Ok(content);
        }
        gathered.extend_from_slice(&content);
        if at == range.end {
            return Ok(gathered.freeze());
        }
    }
}

impl Opened {
    /// The bytes of a range of the object, in order; several requests are under way at once.
    fn content(
        self,
        range: Range<u64>,
    ) -> impl futures::Stream<Item = Result<Bytes, SftpError>> + Send + 'static {
        let Self { file, path, size, piece: len, .. } = self;
        let path: Arc<str> = path.into();
        let end = range.end;
        let starts = stream::iter(range.step_by(len as usize));
        starts
            .map(move |start| {
                let range = start..start.saturating_add(u64::from(len)).min(end);
                piece(Arc::clone(&file), Arc::clone(&path), range, size)
            })
            .buffered(ahead(len))
    }
}

#[async_trait::async_trait]
impl ObjectStore for SftpStore {
    async fn put_opts(
        &self,
        location: &ObjectPath,
        payload: PutPayload,
        opts: PutOptions,
    ) -> Result<PutResult> {
        if opts.mode != PutMode::Create {
            return not_implemented(NAME, "replacing an object");
        }
        let key = location.as_ref();
        self.put(key, &payload).await.map_err(|error| error.into_store(key))?;
        Ok(stored())
    }

    async fn put_multipart_opts(
        &self,
        _: &ObjectPath,
        _: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        not_implemented(NAME, "a put in parts")
    }

    async fn get_opts(&self, location: &ObjectPath, options: GetOptions) -> Result<GetResult> {
        let key = location.as_ref().to_owned();
        let failed = |error: SftpError| error.into_store(location.as_ref());
        let (content, size, modified, range) = if options.head {
            let (size, modified) = self.head(&key).await.map_err(failed)?;
            (stream::empty().boxed(), size, modified, 0..size)
        } else {
            let opened = self.open(&key).await.map_err(failed)?;
            let (size, modified) = (opened.size, opened.modified);
            let range = cut(options.range.as_ref(), size);
            let content = opened.content(range.clone()).map_err(move |error| error.into_store(&key));
            (content.boxed(), size, modified, range)
        };
        given(&options, meta(location.clone(), size, modified), range, content)
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<ObjectPath>>,
    ) -> BoxStream<'static, Result<ObjectPath>> {
        let store = self.clone();
        delete_each(locations, move |location| {
            let store = store.clone();
            async move {
                let key = location.as_ref();
                store.remove(key).await.map_err(|error| error.into_store(key))
            }
        })
    }

    fn list(&self, prefix: Option<&ObjectPath>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (store, prefix) = (self.clone(), prefix.map_or_else(String::new, ToString::to_string));
        stream::once(async move {
            let found = store.walk(&prefix).await.map_err(|error| error.into_store(&prefix));
            found.map(|found| stream::iter(found.into_iter().map(Ok)))
        })
        .try_flatten()
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
mod tests;
