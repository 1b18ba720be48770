//! A store that fails as told, and remembers what it was asked. For tests and simulation.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

use super::objects::delete_each;

/// What was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OpKind {
    /// Storing an object.
    Put,
    /// Reading a whole object.
    Get,
    /// Reading a part of an object.
    GetRange,
    /// Listing.
    List,
    /// Deleting an object.
    Delete,
}

/// One request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Op {
    /// How many requests came before it.
    pub number: u64,
    /// What was asked.
    pub kind: OpKind,
    /// The object or the prefix.
    pub key: String,
    /// Bytes sent, or asked for by a range; zero where it is not known beforehand.
    pub bytes: u64,
}

/// How a request fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Failure {
    /// The connection is reset.
    Unreachable,
    /// The disk or the quota is full.
    NoSpace,
    /// The disk cannot read, or write, there.
    Broken,
    /// Rights are missing.
    Denied,
    /// The store claims that the object is there.
    AlreadyExists,
    /// The object is said not to be there.
    NotFound,
}

/// What happens to one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// Nothing out of the ordinary.
    None,
    /// It fails and has no effect.
    Before(Failure),
    /// It has its effect, and then fails.
    After(Failure),
    /// It has its effect twice.
    Twice,
    /// The content ends after this many bytes.
    Short(u64),
    /// The byte at this place of the content is another.
    Corrupt(u64),
    /// The listing fails after this many objects.
    ListFails(usize),
    /// The process is dead: neither this request nor any later one has an effect or succeeds.
    Stop,
    /// The process dies after this request had its effect.
    StopAfter,
}

#[derive(Debug, thiserror::Error)]
#[error("the simulated process has stopped")]
struct StoppedError;

type Plan = dyn Fn(&Op) -> Fault + Send + Sync;

struct Inner {
    objects: Arc<dyn ObjectStore>,
    plan: Box<Plan>,
    record: Mutex<Vec<Op>>,
    count: AtomicU64,
    stopped: AtomicBool,
}

/// Wraps a store. Clones share the record.
#[derive(Clone)]
pub struct FaultStore(Arc<Inner>);

impl FaultStore {
    /// Asks `plan` about each request.
    pub fn new(objects: Arc<dyn ObjectStore>, plan: impl Fn(&Op) -> Fault + Send + Sync + 'static) -> Self {
        Self(Arc::new(Inner {
            objects,
            plan: Box::new(plan),
            record: Mutex::default(),
            count: AtomicU64::new(0),
            stopped: AtomicBool::new(false),
        }))
    }

    /// Wraps a store only to count what it is asked.
    pub fn recording(objects: Arc<dyn ObjectStore>) -> Self {
        Self::new(objects, |_| Fault::None)
    }

    /// Every request so far, repeated ones included.
    pub fn record(&self) -> Vec<Op> {
        self.0.record.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Forgets the requests so far and returns them.
    pub fn take_record(&self) -> Vec<Op> {
        std::mem::take(&mut *self.0.record.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// How many requests of a kind there were.
    pub fn count(&self, kind: OpKind) -> usize {
        self.record().iter().filter(|op| op.kind == kind).count()
    }

    /// Whether [`Fault::Stop`] or [`Fault::StopAfter`] has struck.
    pub fn is_stopped(&self) -> bool {
        self.0.stopped.load(Ordering::Acquire)
    }
}

impl Inner {
    /// Notes a request and decides about it; an error when it must not take effect.
    fn begin(&self, kind: OpKind, key: &str, bytes: u64) -> Result<Fault> {
        if self.stopped.load(Ordering::Acquire) {
            return Err(stopped());
        }
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        let op = Op { number, kind, key: key.to_owned(), bytes };
        let fault = (self.plan)(&op);
        self.record.lock().unwrap_or_else(PoisonError::into_inner).push(op);
        match fault {
            Fault::Before(failure) => Err(error(failure, key)),
            Fault::Stop => {
                self.stopped.store(true, Ordering::Release);
                Err(stopped())
            }
            fault => Ok(fault),
        }
    }

    /// What comes after the effect.
    fn end(&self, fault: Fault, key: &str) -> Result<()> {
        match fault {
            Fault::After(failure) => Err(error(failure, key)),
            Fault::StopAfter => {
                self.stopped.store(true, Ordering::Release);
                Err(stopped())
            }
            _ => Ok(()),
        }
    }

    async fn delete(&self, location: Path) -> Result<Path> {
        let fault = self.begin(OpKind::Delete, location.as_ref(), 0)?;
        self.objects.delete(&location).await?;
        if fault == Fault::Twice {
            self.objects.delete(&location).await?;
        }
        self.end(fault, location.as_ref())?;
        Ok(location)
    }
}

fn stopped() -> Error {
    Error::Generic { store: "fault", source: Box::new(StoppedError) }
}

fn error(failure: Failure, key: &str) -> Error {
    let path = key.to_owned();
    let io = |code| -> Box<dyn StdError + Send + Sync> { Box::new(io::Error::from_raw_os_error(code)) };
    match failure {
        Failure::Unreachable => Error::Generic { store: "fault", source: io(libc::ECONNRESET) },
        Failure::NoSpace => Error::Generic { store: "fault", source: io(libc::ENOSPC) },
        Failure::Broken => Error::Generic { store: "fault", source: io(libc::EIO) },
        Failure::Denied => Error::PermissionDenied { path, source: io(libc::EACCES) },
        Failure::AlreadyExists => Error::AlreadyExists { path, source: io(libc::EEXIST) },
        Failure::NotFound => Error::NotFound { path, source: io(libc::ENOENT) },
    }
}

/// The content of a reply, changed as told; its announced length stays.
fn changed(bytes: Bytes, fault: Fault) -> Bytes {
    match fault {
        Fault::Short(len) => bytes.slice(..bytes.len().min(usize::try_from(len).unwrap_or(usize::MAX))),
        Fault::Corrupt(place) => {
            let mut bytes = bytes.to_vec();
            if let Some(byte) = usize::try_from(place).ok().and_then(|place| bytes.get_mut(place)) {
                *byte ^= 1;
            }
            bytes.into()
        }
        _ => bytes,
    }
}

impl fmt::Debug for FaultStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultStore").field("objects", &self.0.objects).finish_non_exhaustive()
    }
}

impl fmt::Display for FaultStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.objects.fmt(f)
    }
}

#[async_trait::async_trait]
impl ObjectStore for FaultStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let fault = self.0.begin(OpKind::Put, location.as_ref(), payload.content_length() as u64)?;
        let result = self.0.objects.put_opts(location, payload.clone(), opts.clone()).await?;
        if fault == Fault::Twice {
            self.0.objects.put_opts(location, payload, opts).await?;
        }
        self.0.end(fault, location.as_ref())?;
        Ok(result)
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.0.objects.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let (kind, bytes) = match &options.range {
            Some(object_store::GetRange::Bounded(range)) => (OpKind::GetRange, range.end - range.start),
            Some(_) => (OpKind::GetRange, 0),
            None => (OpKind::Get, 0),
        };
        let fault = self.0.begin(kind, location.as_ref(), bytes)?;
        let mut result = self.0.objects.get_opts(location, options).await?;
        if matches!(fault, Fault::Short(_) | Fault::Corrupt(_)) {
            let (meta, range, attributes) =
                (result.meta.clone(), result.range.clone(), result.attributes.clone());
            let bytes = changed(result.bytes().await?, fault);
            let payload = GetResultPayload::Stream(futures::stream::once(async { Ok(bytes) }).boxed());
            result = GetResult { payload, meta, range, attributes, extensions: Default::default() };
        }
        self.0.end(fault, location.as_ref())?;
        Ok(result)
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let inner = Arc::clone(&self.0);
        delete_each(locations, move |location| {
            let inner = Arc::clone(&inner);
            async move { inner.delete(location).await.map(drop) }
        })
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let key = prefix.map_or(String::new(), Path::to_string);
        let fault = match self.0.begin(OpKind::List, &key, 0) {
            Ok(fault) => fault,
            Err(error) => return futures::stream::once(async { Err(error) }).boxed(),
        };
        let objects = self.0.objects.list(prefix);
        let end = match fault {
            Fault::ListFails(after) => {
                let failed = futures::stream::once(async move { Err(error(Failure::Unreachable, &key)) });
                return objects.take(after).chain(failed).boxed();
            }
            fault => self.0.end(fault, &key),
        };
        match end {
            Ok(()) => objects,
            Err(error) => futures::stream::once(async { Err(error) }).boxed(),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.0.objects.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.0.objects.copy_opts(from, to, options).await
    }
}
