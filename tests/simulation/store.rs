//! The store of a simulation, as one machine reaches it: every request waits for its turn.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetRange, GetResult, GetResultPayload, ListResult, MultipartUpload,
    ObjectMeta, ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

use crate::world::{Life, World};

/// What is asked.
#[derive(Debug, Clone)]
pub enum Request {
    Put(String, Bytes),
    Get(String, Option<Range<u64>>),
    List(String),
    Delete(String),
}

/// What is answered.
#[derive(Debug)]
pub enum Answer {
    Done,
    Content {
        meta: ObjectMeta,
        range: Range<u64>,
        bytes: Bytes,
    },
    /// The objects, and whether the listing fails behind them.
    Listed {
        objects: Vec<ObjectMeta>,
        fails: bool,
    },
}

impl Request {
    pub fn key(&self) -> &str {
        match self {
            Self::Put(key, _) | Self::Get(key, _) | Self::List(key) | Self::Delete(key) => key,
        }
    }

    pub fn verb(&self) -> &'static str {
        match self {
            Self::Put(..) => "PUT",
            Self::Get(..) => "GET",
            Self::List(..) => "LIST",
            Self::Delete(..) => "DELETE",
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("the simulated machine is dead")]
struct DeadError;

pub fn dead() -> Error {
    Error::Generic { store: "simulation", source: Box::new(DeadError) }
}

/// What this program never asks of a store.
fn never() -> Error {
    let source = std::io::Error::from(std::io::ErrorKind::Unsupported);
    Error::Generic { store: "simulation", source: Box::new(source) }
}

pub fn unreachable() -> Error {
    let source = std::io::Error::from_raw_os_error(libc::ECONNRESET);
    Error::Generic { store: "simulation", source: Box::new(source) }
}

pub fn full() -> Error {
    let source = std::io::Error::from_raw_os_error(libc::ENOSPC);
    Error::Generic { store: "simulation", source: Box::new(source) }
}

pub fn not_found(key: &str) -> Error {
    let source = std::io::Error::from_raw_os_error(libc::ENOENT);
    Error::NotFound { path: key.to_owned(), source: Box::new(source) }
}

/// The store through the eyes of one life of one machine.
#[derive(Clone)]
pub struct SimStore {
    pub world: Arc<World>,
    pub life: Life,
}

impl fmt::Debug for SimStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimStore").field("life", &self.life).finish_non_exhaustive()
    }
}

impl fmt::Display for SimStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("simulation")
    }
}

impl SimStore {
    async fn delete(&self, location: Path) -> Result<Path> {
        self.world.ask(self.life, Request::Delete(location.to_string())).await?;
        Ok(location)
    }
}

#[async_trait::async_trait]
impl ObjectStore for SimStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, _: PutOptions) -> Result<PutResult> {
        self.world.ask(self.life, Request::Put(location.to_string(), payload.into())).await?;
        Ok(PutResult { e_tag: None, version: None, extensions: Default::default() })
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        Err(never())
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let range = match options.range {
            None => None,
            Some(GetRange::Bounded(range)) => Some(range),
            Some(_) => return Err(never()),
        };
        let answer = self.world.ask(self.life, Request::Get(location.to_string(), range)).await?;
        let Answer::Content { meta, range, bytes } = answer else { unreachable!("a content was asked for") };
        let payload = GetResultPayload::Stream(futures::stream::once(async { Ok(bytes) }).boxed());
        let (attributes, extensions) = Default::default();
        Ok(GetResult { payload, meta, range, attributes, extensions })
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let store = self.clone();
        locations
            .and_then(move |location| {
                let store = store.clone();
                async move { store.delete(location).await }
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (store, prefix) = (self.clone(), prefix.map_or(String::new(), Path::to_string));
        let listed = async move {
            let answer = store.world.ask(store.life, Request::List(prefix)).await?;
            let Answer::Listed { objects, fails } = answer else { unreachable!("a list was asked for") };
            let end = if fails { vec![Err(unreachable())] } else { Vec::new() };
            Ok::<_, Error>(futures::stream::iter(objects.into_iter().map(Ok).chain(end)))
        };
        futures::stream::once(listed).try_flatten().boxed()
    }

    async fn list_with_delimiter(&self, _: Option<&Path>) -> Result<ListResult> {
        Err(never())
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        Err(never())
    }
}
