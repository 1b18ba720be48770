//! One request, from its first frame to its last.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use tokio::sync::{Semaphore, mpsc};

use super::role::{Act, may};
use super::session::Shared;
use crate::store::door::wire::{Answer, Ask, Code, DATA_MAX, OBJECT_MAX, Role, Row, WINDOW, cost};
use crate::store::{Key, KeyError, StoreError};

/// Rows that fit a frame, whatever their keys.
const PAGE: usize = DATA_MAX / (Key::MAX_LEN + 18);

/// Why a request is not done.
pub(super) enum Refusal {
    /// To be told.
    No { code: Code, message: String },
    /// Nobody wants to know any more.
    Gone,
}

impl Refusal {
    pub(super) fn new(code: Code, message: impl Into<String>) -> Self {
        Self::No { code, message: message.into() }
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        let code = match &error {
            StoreError::NotFound { .. } => Code::NotFound,
            StoreError::NoBucket { .. } => Code::NoRoot,
            StoreError::Denied { .. } => Code::Denied,
            StoreError::NoSpace { .. } => Code::NoSpace,
            StoreError::Conflict { .. } => Code::Exists,
            StoreError::Key(_) => Code::Invalid,
            _ => Code::Failed,
        };
        let mut message = format!("on the server: {error}");
        let mut cause = std::error::Error::source(&error);
        while let Some(error) = cause {
            message = format!("{message}: {error}");
            cause = error.source();
        }
        Self::No { code, message }
    }
}

impl From<KeyError> for Refusal {
    fn from(error: KeyError) -> Self {
        Self::new(Code::Invalid, error.to_string())
    }
}

/// What comes for a put.
pub(super) enum Part {
    Content(Bytes),
    Commit,
}

/// What a request is told while it is open.
pub(super) enum Feed {
    /// Content, and how much more may come.
    Parts(mpsc::Receiver<Part>, Arc<AtomicU32>),
    /// How much may be sent; closed when it is given up.
    Credit(Arc<Semaphore>),
    Nothing,
}

/// Does a request; what is left to say then is that it is done.
pub(super) async fn handle(shared: &Shared, id: u32, ask: Ask, feed: Feed) -> Result<(), Refusal> {
    match (ask, feed) {
        (Ask::Head { key }, _) => {
            let reading = shared.shelf.read(&Key::new(key)?, None).await?;
            let (size, modified) = (reading.size, reading.modified.0);
            shared.say(id, Answer::Meta { size, modified, range: 0..0 }).await
        }
        (Ask::Get { key, range }, Feed::Credit(credit)) => {
            if range.start > range.end {
                return Err(Refusal::new(Code::Invalid, "the range ends before it begins"));
            }
            let reading = shared.shelf.read(&Key::new(key)?, Some(range)).await?;
            let (size, modified, range) = (reading.size, reading.modified.0, reading.range.clone());
            shared.say(id, Answer::Meta { size, modified, range: range.clone() }).await?;
            let mut at = range.start;
            while at < range.end {
                let end = range.end.min(at + DATA_MAX as u64);
                take(&credit, usize::try_from(end - at).unwrap_or(DATA_MAX)).await?;
                let content = reading.bytes(at..end).await?;
                shared.say(id, Answer::Data(content)).await?;
                at = end;
            }
            Ok(())
        }
        (Ask::List { directory, after }, Feed::Credit(credit)) => {
            list(shared, id, (directory, after), &credit).await
        }
        (Ask::Put { key, size }, Feed::Parts(parts, window)) => {
            put(shared, id, (&Key::new(key)?, size), (parts, window)).await
        }
        (Ask::Delete { key }, _) => {
            let key = Key::new(key)?;
            allowed(shared.role, Act::Delete, &key)?;
            shared.ready().await?;
            Ok(shared.shelf.delete(&key).await?)
        }
        (Ask::Space, _) => {
            let mut free = shared.shelf.free_space().await.unwrap_or(u64::MAX);
            if let Some(quota) = &shared.quota {
                free = free.min(quota.free().await?);
            }
            shared.say(id, Answer::Space { free }).await
        }
        (Ask::Root, _) => {
            if shared.role != Role::Admin {
                let there = shared.shelf.list("config", "").await;
                // It asks only that there is one.
                return there.map(drop).map_err(Refusal::from);
            }
            Ok(shared.shelf.make_root().await?)
        }
        _ => Err(Refusal::new(Code::Invalid, "this is no request")),
    }
}

fn allowed(role: Role, act: Act, key: &Key) -> Result<(), Refusal> {
    if may(role, act, key) {
        return Ok(());
    }
    let what = match act {
        Act::Put => "store",
        Act::Delete => "delete",
    };
    let message = format!("this door is opened with the role {role}, which may not {what} `{key}`");
    Err(Refusal::new(Code::Denied, message))
}

async fn take(credit: &Semaphore, len: usize) -> Result<(), Refusal> {
    let permit = credit.acquire_many(cost(len)).await.map_err(|_| Refusal::Gone)?;
    permit.forget();
    Ok(())
}

async fn list(
    shared: &Shared,
    id: u32,
    (directory, after): (String, String),
    credit: &Semaphore,
) -> Result<(), Refusal> {
    let listing = shared.shelf.list(&directory, &after).await?;
    loop {
        let objects = listing.page(PAGE).await?;
        if objects.is_empty() {
            return Ok(());
        }
        let mut page = Vec::new();
        for object in objects {
            let row = Row { key: object.key.to_string(), size: object.size, modified: object.modified.0 };
            if !row.push(&mut page) {
                return Err(Refusal::new(Code::Failed, "a page has no room for its rows"));
            }
        }
        take(credit, page.len()).await?;
        shared.say(id, Answer::Data(page.into())).await?;
    }
}

async fn put(
    shared: &Shared,
    id: u32,
    (key, size): (&Key, u64),
    (mut parts, window): (mpsc::Receiver<Part>, Arc<AtomicU32>),
) -> Result<(), Refusal> {
    allowed(shared.role, Act::Put, key)?;
    if size > OBJECT_MAX {
        return Err(Refusal::new(Code::Invalid, format!("an object of {size} bytes is too large")));
    }
    shared.ready().await?;
    if shared.shelf.exists(key).await? {
        return Err(Refusal::new(Code::Exists, format!("`{key}` exists already")));
    }
    let reserved = match &shared.quota {
        None => None,
        Some(quota) => Some(quota.reserve(size).await?),
    };
    let mut incoming = shared.shelf.begin(key).await?;
    let (mut len, mut owed) = (0_u64, 0);
    loop {
        match parts.recv().await.ok_or(Refusal::Gone)? {
            Part::Commit if len == size => break,
            Part::Commit => {
                return Err(Refusal::new(
                    Code::Invalid,
                    format!("{len} bytes came where {size} were announced"),
                ));
            }
            Part::Content(content) => {
                len += content.len() as u64;
                if len > size {
                    return Err(Refusal::new(Code::Invalid, "more came than was announced"));
                }
                owed += cost(content.len());
                incoming = incoming.write(content).await?;
                if owed >= WINDOW / 4 {
                    window.fetch_add(owed, Ordering::Relaxed);
                    shared.say(id, Answer::Credit(std::mem::take(&mut owed))).await?;
                }
            }
        }
    }
    incoming.commit().await?;
    if let Some(reserved) = reserved {
        reserved.stored();
    }
    Ok(())
}
