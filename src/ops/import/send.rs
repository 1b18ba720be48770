//! From a walk to the feed of a transfer: while one window is handed over, the next one is read.

use std::collections::HashMap;
use std::path::PathBuf;

use bytes::Bytes;
use futures::{StreamExt, stream};
use tokio::sync::Mutex;

use super::plan::{Read, Want, reads};
use super::walk::{Earlier, Item, Step, Walk, Window};
use crate::crypto::SecretKey;
use crate::error::Error;
use crate::event::Event;
use crate::id::ResticId;
use crate::ops::backup::{Feed, Foreign};
use crate::ops::tree::Lookup;
use crate::repo::{Env, Repository};
use crate::restic::{BlobKind, Catalog, Fault, ResticError};

/// The contents of blobs, or why there is none.
type Contents = HashMap<ResticId, Result<Bytes, Error>>;

/// A snapshot of restic on its way.
pub(super) struct ResticTree<'a> {
    pub(super) repo: &'a Repository,
    pub(super) catalog: &'a Mutex<Catalog>,
    pub(super) tree: ResticId,
    pub(super) earlier: Option<Earlier>,
    pub(super) hard_links: &'a SecretKey,
}

impl Foreign for ResticTree<'_> {
    async fn send(&self, feed: &mut Feed) -> Result<(), Error> {
        let mut catalog = self.catalog.lock().await;
        let lookup = match self.earlier {
            Some(_) => Some(Lookup::open(self.repo).await?),
            None => None,
        };
        let reader = lookup.as_ref().map(Lookup::reader).transpose()?;
        let mut walk = Walk::begin(&mut catalog, self.tree, (self.earlier, reader), self.hard_links).await?;
        let env = self.repo.env();
        let mut handing = Handing::default();
        let mut next = prepare(&mut walk, feed.trusts_base(), env).await?;
        while let Some(window) = next {
            let trust = feed.trusts_base();
            // Boxed: what waits within what waits would grow with each level.
            let handed = Box::pin(handing.over(feed, window));
            let prepared = Box::pin(prepare(&mut walk, trust, env));
            ((), next) = futures::future::try_join(handed, prepared).await?;
        }
        if walk.windows > 0 {
            let message = format!("attributes of Windows were left out of {} entries", walk.windows);
            env.observer.observe(&Event::Warning { message: &message });
        }
        Ok(())
    }
}

/// The next window and its contents; `None` at the end.
async fn prepare(
    walk: &mut Walk<'_>,
    trust: bool,
    env: &Env,
) -> Result<Option<(Vec<Step>, Contents)>, Error> {
    if env.cancel.is_raised() {
        return Err(Error::Cancelled);
    }
    let Window { steps, wants } = walk.window(trust).await?;
    if steps.is_empty() {
        return Ok(None);
    }
    let mut contents = Contents::new();
    let mut again = Vec::new();
    let catalog = walk.catalog();
    let planned = reads(wants);
    let mut fetched = {
        let catalog = &*catalog;
        stream::iter(planned)
            .map(move |read| fetch(catalog, read))
            .buffer_unordered(env.limits.requests.max(1))
    };
    while let Some(blobs) = fetched.next().await {
        for (want, content) in blobs? {
            match content {
                Some(content) => drop(contents.insert(want.id, Ok(content))),
                None => again.push(want),
            }
        }
    }
    drop(fetched);
    // What did not come that way: each copy is tried, and it is found out what is wrong.
    for Want { id, place } in again {
        let content = match catalog.read(BlobKind::Data, &id).await {
            // The window has room for as much as the first copy was said to hold, and the file has no other size.
            Ok(content) if content.len() as u64 != u64::from(place.content_len()) => {
                let fault = Fault::Value { what: "its length in the index" };
                let pack = catalog.pack_id(place.pack).unwrap_or(id);
                Err(ResticError::Blob { blob: id, pack, fault }.into())
            }
            Ok(content) => Ok(content),
            Err(error) if error.is_local() => Err(error.into()),
            Err(error) => return Err(error.into()),
        };
        contents.insert(id, content);
    }
    for problem in catalog.take_problems() {
        env.observer.observe(&Event::Warning { message: &problem.to_string() });
    }
    Ok(Some((steps, contents)))
}

/// The blobs of one read; `None` for those that it does not bring.
async fn fetch(catalog: &Catalog, read: Read) -> Result<Vec<(Want, Option<Bytes>)>, Error> {
    let none = |read: Read| read.blobs.into_iter().map(|want| (want, None)).collect();
    // Only a blob that alone is too long makes a read that long.
    let acceptable = read.blobs.iter().all(|want| want.place.is_acceptable(BlobKind::Data));
    let Some(pack) = catalog.pack_id(read.pack).filter(|_| acceptable) else { return Ok(none(read)) };
    let range = u64::from(read.start)..u64::from(read.end);
    let stored = match catalog.restic().read_pack(&pack, range).await {
        Ok(stored) => stored,
        Err(error) if error.is_local() => return Ok(none(read)),
        Err(error) => return Err(error.into()),
    };
    let at = |offset: u32| (offset - read.start) as usize;
    let blobs = read.blobs.iter().map(|want| (want.id, want.place, at(want.place.offset))).collect();
    let opened: Result<Vec<_>, ResticError> =
        catalog.restic().open_blobs(BlobKind::Data, (pack, stored), blobs).await;
    let contents = opened?.into_iter().map(|(_, content)| content.ok());
    Ok(read.blobs.into_iter().zip(contents).collect())
}

/// What is under way between two windows.
#[derive(Default)]
struct Handing {
    /// The file that is open, by its path.
    file: Option<PathBuf>,
    /// Directories that were entered below one that was refused, that one included.
    refused: usize,
}

impl Handing {
    async fn over(&mut self, feed: &mut Feed, (steps, contents): (Vec<Step>, Contents)) -> Result<(), Error> {
        for step in steps {
            self.step(feed, step, &contents).await?;
        }
        Ok(())
    }

    async fn step(&mut self, feed: &mut Feed, step: Step, contents: &Contents) -> Result<(), Error> {
        let Step { path, item } = step;
        if self.refused > 0 {
            match item {
                Item::Enter(_) => self.refused += 1,
                Item::Leave => self.refused -= 1,
                _ => {}
            }
            return Ok(());
        }
        let entering = matches!(item, Item::Enter(_));
        let done = match item {
            Item::Enter(node) => feed.enter(*node).await,
            Item::Leave => return feed.leave().await,
            Item::Entry(node) => feed.entry(*node).await,
            Item::Lost(node, error) => feed.lost(*node, &path, &error).await,
            Item::Skipped(error) => return feed.skipped(&path, &error).await,
            Item::Incomplete(error) => return feed.incomplete(&path, &error).await,
            Item::Begin(node) => {
                let begun = feed.begin(*node).await;
                self.file = begun.is_ok().then(|| path.clone());
                begun
            }
            Item::Blob(id) => return self.piece(feed, contents.get(&id)).await,
            Item::End => return self.end(feed).await,
        };
        match done {
            Err(error) if is_refusal(&error) => {
                self.refused = usize::from(entering);
                feed.skipped(&path, &error).await
            }
            other => other,
        }
    }

    async fn piece(&mut self, feed: &mut Feed, content: Option<&Result<Bytes, Error>>) -> Result<(), Error> {
        let Some(path) = &self.file else { return Ok(()) };
        let handed = match content {
            Some(Ok(content)) => feed.data(content.clone()).await,
            Some(Err(error)) => {
                feed.spoilt(path, error).await?;
                self.file = None;
                return Ok(());
            }
            None => Err(ResticError::Task.into()),
        };
        self.judge(feed, handed).await
    }

    async fn end(&mut self, feed: &mut Feed) -> Result<(), Error> {
        if self.file.is_some() {
            let ended = feed.end().await;
            self.judge(feed, ended).await?;
        }
        self.file = None;
        Ok(())
    }

    /// Gives the file up if it is not what its node says.
    async fn judge(&mut self, feed: &mut Feed, done: Result<(), Error>) -> Result<(), Error> {
        match (done, self.file.take()) {
            (Err(error), Some(path)) if is_refusal(&error) => feed.spoilt(&path, &error).await,
            (done, file) => {
                self.file = file;
                done
            }
        }
    }
}

/// Whether the feed only refuses what it was given.
fn is_refusal(error: &Error) -> bool {
    matches!(error, Error::Damaged { .. })
}
