//! A store behind a door. One connection at a time, made when it is needed and again when it was lost; what was under way
//! then fails as with any store that does not answer, and is repeated above.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path as ObjectPath;
use object_store::{
    CopyOptions, GetOptions, GetRange, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

use super::current::Current;
use super::error::DoorError;
use super::line::{Call, Connect, Line};
use super::wire::{Answer, Ask, DATA_MAX, OBJECT_MAX, Row, WINDOW, cost};
use crate::store::objects::{delete_each, given, not_implemented, stored};

const NAME: &str = "door";

struct Inner {
    connect: Arc<dyn Connect>,
    path: String,
    place: String,
    current: Current<Line>,
}

/// A store behind a door. Clones share its connection.
#[derive(Clone)]
pub(in crate::store) struct DoorStore(Arc<Inner>);

impl fmt::Debug for DoorStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DoorStore").field("place", &self.0.place).finish_non_exhaustive()
    }
}

impl fmt::Display for DoorStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0.place)
    }
}

fn meta(location: ObjectPath, size: u64, modified: i64) -> ObjectMeta {
    let since = std::time::Duration::from_nanos(modified.max(0).unsigned_abs());
    let last_modified = (std::time::UNIX_EPOCH + since).into();
    ObjectMeta { location, last_modified, size, e_tag: None, version: None }
}

impl DoorStore {
    /// Connects to nothing yet. `path` is what the address says of the directory; `place` is the address, for messages.
    pub(in crate::store) fn new(connect: Arc<dyn Connect>, path: String, place: String) -> Self {
        Self(Arc::new(Inner { connect, path, place, current: Current::default() }))
    }

    async fn line(&self) -> Result<Arc<Line>, DoorError> {
        let store = self.clone();
        let make = |again| async move {
            let hello = Ask::Open { again, path: store.0.path.clone() };
            Line::open(store.0.connect.as_ref(), hello).await
        };
        self.0.current.line(make).await
    }

    async fn ask(&self, ask: Ask) -> Result<Call, DoorError> {
        self.line().await?.ask(&ask).await
    }

    async fn done(&self, ask: Ask) -> Result<(), DoorError> {
        let mut call = self.ask(ask).await?;
        match call.next().await? {
            Answer::Done => Ok(()),
            _ => Err(call.odd()),
        }
    }

    /// Makes the directory of the repository, if the role of this door may.
    pub(in crate::store) async fn create_root(&self) -> Result<()> {
        self.done(Ask::Root).await.map_err(|error| error.into_store(""))
    }

    /// Bytes that may still be stored; `None` if that is not known.
    pub(in crate::store) async fn free_space(&self) -> Result<Option<u64>> {
        let space = async {
            let mut call = self.ask(Ask::Space).await?;
            let Answer::Space { free } = call.next().await? else { return Err(call.odd()) };
            match call.next().await? {
                Answer::Done => Ok(Some(free).filter(|free| *free < u64::MAX)),
                _ => Err(call.odd()),
            }
        };
        space.await.map_err(|error: DoorError| error.into_store(""))
    }

    async fn put(&self, key: &str, payload: &PutPayload) -> Result<(), DoorError> {
        let size = payload.content_length() as u64;
        if size > OBJECT_MAX {
            return Err(DoorError::Broken { what: format!("an object of {size} bytes is too large for it") });
        }
        let mut call = self.ask(Ask::Put { key: key.to_owned(), size }).await?;
        let mut window = WINDOW;
        for part in payload.iter() {
            let mut part = part.clone();
            while !part.is_empty() {
                let content = part.split_to(part.len().min(DATA_MAX));
                let cost = cost(content.len());
                loop {
                    let answer = if window < cost { Some(call.next().await?) } else { call.try_next()? };
                    match answer {
                        None => break,
                        Some(Answer::Credit(more)) => window = window.saturating_add(more).min(WINDOW),
                        Some(_) => return Err(call.odd()),
                    }
                }
                window -= cost;
                call.give(content).await?;
            }
        }
        call.commit();
        loop {
            match call.next().await? {
                Answer::Done => return Ok(()),
                Answer::Credit(_) => {}
                _ => return Err(call.odd()),
            }
        }
    }

    async fn get(
        &self,
        key: String,
        wanted: Range<u64>,
    ) -> Result<(Call, (u64, i64, Range<u64>)), DoorError> {
        let mut call = self.ask(Ask::Get { key, range: wanted }).await?;
        match call.next().await? {
            Answer::Meta { size, modified, range } => Ok((call, (size, modified, range))),
            _ => Err(call.odd()),
        }
    }

    async fn head(&self, key: String) -> Result<(u64, i64), DoorError> {
        let mut call = self.ask(Ask::Head { key }).await?;
        let Answer::Meta { size, modified, .. } = call.next().await? else { return Err(call.odd()) };
        match call.next().await? {
            Answer::Done => Ok((size, modified)),
            _ => Err(call.odd()),
        }
    }

    fn rows(&self, directory: String, after: String) -> BoxStream<'static, Result<ObjectMeta>> {
        let (store, key) = (self.clone(), directory.clone());
        let begun = async move { store.ask(Ask::List { directory, after }).await };
        let failed = move |error: DoorError| error.into_store(&key);
        stream::once(begun)
            .map_ok(|call| {
                contents(call).and_then(|page| async move {
                    let rows = Row::parse_all(&page);
                    rows.map_err(|error| DoorError::Broken { what: error.to_string() })
                })
            })
            .try_flatten()
            .map_ok(|rows| stream::iter(rows.into_iter().filter_map(of_row).map(Ok)))
            .try_flatten()
            .map_err(failed)
            .boxed()
    }
}

/// A name that no path can be is no object.
fn of_row(row: Row) -> Option<ObjectMeta> {
    Some(meta(ObjectPath::parse(&row.key).ok()?, row.size, row.modified))
}

/// The content that answers a request, as it comes, until all of it is there.
fn contents(call: Call) -> impl futures::Stream<Item = Result<Bytes, DoorError>> + Send + 'static {
    stream::try_unfold(call, |mut call| async move {
        match call.next().await? {
            Answer::Data(content) => {
                call.took(&content);
                Ok(Some((content, call)))
            }
            Answer::Done => Ok(None),
            _ => Err(call.odd()),
        }
    })
}

fn wanted(range: Option<&GetRange>) -> Result<Range<u64>> {
    match range {
        None => Ok(0..u64::MAX),
        Some(GetRange::Bounded(range)) => Ok(range.clone()),
        Some(GetRange::Offset(start)) => Ok(*start..u64::MAX),
        Some(GetRange::Suffix(_)) => not_implemented(NAME, "reading the end of an object"),
    }
}

#[async_trait::async_trait]
impl ObjectStore for DoorStore {
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
        let failed = |error: DoorError| error.into_store(location.as_ref());
        let (content, size, modified, range) = if options.head {
            let (size, modified) = self.head(key).await.map_err(failed)?;
            (stream::empty().boxed(), size, modified, 0..size)
        } else {
            let wanted = wanted(options.range.as_ref())?;
            let (call, (size, modified, range)) = self.get(key.clone(), wanted).await.map_err(failed)?;
            let len = range.end - range.start;
            // More than was promised is not handed on.
            let content = contents(call).scan(len, |left, content| {
                let content = content.map(|mut content: Bytes| {
                    let kept = usize::try_from(*left).unwrap_or(usize::MAX).min(content.remaining());
                    *left -= kept as u64;
                    content.split_to(kept)
                });
                futures::future::ready(Some(content))
            });
            let content = content.map_err(move |error| error.into_store(&key)).boxed();
            (content, size, modified, range)
        };
        given(&options, meta(location.clone(), size, modified), range, content)
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<ObjectPath>>,
    ) -> BoxStream<'static, Result<ObjectPath>> {
        let store = self.clone();
        delete_each(locations, move |location| {
            let (store, key) = (store.clone(), location.as_ref().to_owned());
            async move {
                let done = store.done(Ask::Delete { key }).await;
                done.map_err(|error| error.into_store(location.as_ref()))
            }
        })
    }

    fn list(&self, prefix: Option<&ObjectPath>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.rows(prefix.map_or_else(String::new, ToString::to_string), String::new())
    }

    fn list_with_offset(
        &self,
        prefix: Option<&ObjectPath>,
        offset: &ObjectPath,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.rows(prefix.map_or_else(String::new, ToString::to_string), offset.to_string())
    }

    async fn list_with_delimiter(&self, _: Option<&ObjectPath>) -> Result<ListResult> {
        not_implemented(NAME, "a listing by level")
    }

    async fn copy_opts(&self, _: &ObjectPath, _: &ObjectPath, _: CopyOptions) -> Result<()> {
        not_implemented(NAME, "a copy")
    }
}
