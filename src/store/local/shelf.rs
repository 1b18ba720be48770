//! A directory as those use it who let others in: what `serve` works on. By key, beneath its root, in pieces of bounded size,
//! and with no way to replace anything.
//!
//! # Invariants
//! As those of the room: an object is complete under its name or not there, and durable when [`Incoming::commit`] returns.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use object_store::path::Path as ObjectPath;

use super::super::error::{Operation, Request, StoreError, classify};
use super::super::location::StoreUrl;
use super::super::options::StoreEnv;
use super::super::{Key, Object, STALE};
use super::beneath::Beneath;
use super::disk::{Disk, Kind, Name};
use super::read::Opened;
use super::upload::Upload;
use super::walk::{Met, Walk};
use super::{Inner, LocalError, LocalOptions, LocalStore, Step};
use crate::clock::Timestamp;
use crate::format::layout::PACKS;

/// A directory that nothing leads out of. Clones share it.
#[derive(Clone)]
pub struct Shelf {
    local: LocalStore<Beneath>,
    top: PathBuf,
    env: StoreEnv,
    place: StoreUrl,
}

/// An object that is being read.
pub struct Reading {
    shelf: Shelf,
    key: Key,
    opened: Arc<Opened<<Beneath as Disk>::File>>,
    /// The part that is wanted, cut to the size of the object.
    pub range: Range<u64>,
    /// Bytes of the whole object.
    pub size: u64,
    /// When it was stored.
    pub modified: Timestamp,
}

/// An object that is being written. Dropped, nothing of it stays.
pub struct Incoming {
    shelf: Shelf,
    key: Key,
    upload: Upload<Beneath>,
}

/// A listing that is being made.
pub struct Listing {
    shelf: Shelf,
    prefix: String,
    walk: Arc<Mutex<Walk<Beneath>>>,
}

impl Shelf {
    /// The objects below `top`, or below a directory in it; `top` is an absolute path. Touches nothing.
    pub fn new(top: PathBuf, prefix: Option<&Key>, env: &StoreEnv) -> Result<Self, StoreError> {
        let root = prefix.map_or_else(|| top.clone(), |prefix| top.join(prefix.as_str()));
        let options = LocalOptions { direct_io: false, ..LocalOptions::default() };
        let local = LocalStore::on_disk(Beneath::new(top.clone()), root.clone(), options, env)?;
        Ok(Self { local, top, env: env.clone(), place: StoreUrl::local(root) })
    }

    /// The directory of the objects.
    pub fn root(&self) -> &Path {
        self.local.root()
    }

    fn sort(&self, operation: Operation, key: &str, error: object_store::Error) -> StoreError {
        classify(Request { operation, key, place: &self.place }, error)
    }

    async fn blocking<T, F>(&self, operation: Operation, key: &str, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Inner<Beneath>) -> Result<T, LocalError> + Send + 'static,
    {
        self.local.blocking(key, work).await.map_err(|error| self.sort(operation, key, error))
    }

    /// Makes the directory of the objects, durably.
    pub async fn make_root(&self) -> Result<(), StoreError> {
        let plain = LocalStore::new(self.root(), LocalOptions::default(), &self.env)?;
        plain.create_root().await.map_err(|error| self.sort(Operation::Root, "", error))
    }

    /// Opens an object to read the wanted part of it, or all; a part that it does not have is cut off.
    pub async fn read(&self, key: &Key, wanted: Option<Range<u64>>) -> Result<Reading, StoreError> {
        let path = self.root().join(key.as_str());
        let work = move |inner: &Inner<Beneath>| inner.open_and_read(&path, None, true);
        let opened = self.blocking(Operation::Get, key.as_str(), work).await?;
        let size = opened.range.end;
        let range = wanted.map_or(0..size, |wanted| {
            let start = wanted.start.min(size);
            start..wanted.end.clamp(start, size)
        });
        let modified = time_of(opened.meta(&ObjectPath::default()).last_modified);
        Ok(Reading { shelf: self.clone(), key: key.clone(), opened: Arc::new(opened), range, size, modified })
    }

    /// Whether something has the name; that is durable then.
    pub async fn exists(&self, key: &Key) -> Result<bool, StoreError> {
        let path = self.root().join(key.as_str());
        let work = move |inner: &Inner<Beneath>| {
            let parent = path.parent().unwrap_or(&inner.root);
            match inner.disk.stat_link(&path) {
                Ok(_) => {
                    inner.ensure_directory(parent)?;
                    inner.sync_directory(parent)?;
                    Ok(true)
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
                Err(error) => Err(LocalError::io(Step::Look, &path, error)),
            }
        };
        self.blocking(Operation::Put, key.as_str(), work).await
    }

    /// Begins to write an object. What was listed until now is durable then.
    pub async fn begin(&self, key: &Key) -> Result<Incoming, StoreError> {
        let inner = Arc::clone(&self.local.0);
        let work = move |_: &Inner<Beneath>| Upload::begin(&inner);
        let upload = self.blocking(Operation::Put, key.as_str(), work).await?;
        Ok(Incoming { shelf: self.clone(), key: key.clone(), upload })
    }

    /// Deletes an object, durably; one that is not there counts as deleted.
    pub async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        let path = self.root().join(key.as_str());
        self.blocking(Operation::Delete, key.as_str(), move |inner| inner.remove(&path)).await
    }

    /// Begins to list what is in a directory, or in all, behind the key `after`. It need not be a key's directory: then
    /// nothing is found.
    pub async fn list(&self, directory: &str, after: &str) -> Result<Listing, StoreError> {
        if !directory.is_empty() {
            Key::new(directory)?;
        }
        let (prefix, after) = (directory.to_owned(), after.to_owned());
        let work = move |inner: &Inner<Beneath>| Walk::new(inner, &prefix, &after);
        let walk = Arc::new(Mutex::new(self.blocking(Operation::List, directory, work).await?));
        Ok(Listing { shelf: self.clone(), prefix: directory.to_owned(), walk })
    }

    /// Takes every directory but those of single packs for listed: who listed it was here under another connection, and what
    /// is written now may rest on it.
    pub async fn note_listed(&self) -> Result<(), StoreError> {
        self.blocking(Operation::Root, "", |inner| {
            let mut walk = Walk::new(inner, "", "")?;
            let packs = inner.root.join(PACKS.trim_end_matches('/'));
            while walk.next(inner)?.is_some() {}
            let mut listed = inner.listed.lock().unwrap_or_else(PoisonError::into_inner);
            listed.retain(|directory| directory.parent() != Some(&packs));
            Ok(())
        })
        .await
    }

    /// Bytes that may still be written to the file system, if it tells.
    pub async fn free_space(&self) -> Option<u64> {
        let local = self.local.clone();
        tokio::task::spawn_blocking(move || local.free_space()).await.ok()?
    }

    /// What a file of so many bytes counts for: a block at least, because its name takes room, too.
    pub fn room(size: u64) -> u64 {
        size.max(4096)
    }

    /// Bytes of all files below the top, also those that are half-written.
    pub async fn used(&self) -> Result<u64, StoreError> {
        let top = self.top.clone();
        self.blocking(Operation::Root, "", move |inner| count(inner, top)).await
    }

    /// Removes half-written files that are a week old; says how many.
    pub async fn sweep(&self) -> Result<u64, StoreError> {
        let age = i64::try_from(STALE.as_nanos()).unwrap_or(i64::MAX);
        let before = self.env.clock.now().0.saturating_sub(age);
        self.local.sweep(before).await.map_err(|error| self.sort(Operation::Root, "", error))
    }
}

fn count(inner: &Inner<Beneath>, top: PathBuf) -> Result<u64, LocalError> {
    let mut sum = 0_u64;
    let mut pending = vec![top];
    while let Some(directory) = pending.pop() {
        let failed = |error| LocalError::io(Step::Look, &directory, error);
        let names = match inner.disk.names(&directory) {
            Ok(names) => names,
            // What goes while it is counted takes no space.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(failed(error)),
        };
        for name in names {
            let name = name.map_err(failed)?;
            let Ok(stat) = name.stat() else { continue };
            match stat.kind {
                Kind::Directory => pending.push(directory.join(name.name())),
                _ => sum = sum.saturating_add(Shelf::room(stat.len)),
            }
        }
    }
    Ok(sum)
}

fn time_of(time: impl Into<std::time::SystemTime>) -> Timestamp {
    let since = time.into().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
}

impl Reading {
    /// The bytes of a part that lies in the object; an error if it has shrunk since it was opened.
    pub async fn bytes(&self, range: Range<u64>) -> Result<Bytes, StoreError> {
        let opened = Arc::clone(&self.opened);
        let work = move |inner: &Inner<Beneath>| inner.read(&opened.file, &opened.path, range);
        self.shelf.blocking(Operation::Get, self.key.as_str(), work).await
    }
}

impl Incoming {
    /// Adds to the end. Lost with an error.
    pub async fn write(mut self, part: Bytes) -> Result<Self, StoreError> {
        let (shelf, key) = (self.shelf.clone(), self.key.clone());
        let work = move |_: &Inner<Beneath>| self.upload.write(&part).map(|()| self);
        shelf.blocking(Operation::Put, key.as_str(), work).await
    }

    /// Makes the object durable under its name. [`StoreError::Conflict`] if something has the name already: what that is
    /// was not looked at.
    pub async fn commit(self) -> Result<(), StoreError> {
        let Self { shelf, key, upload } = self;
        let path = shelf.root().join(key.as_str());
        let work = move |_: &Inner<Beneath>| upload.commit(&path);
        match shelf.blocking(Operation::Put, key.as_str(), work).await? {
            true => Ok(()),
            false => Err(StoreError::Conflict { key: key.to_string() }),
        }
    }
}

impl Listing {
    /// The next objects, `most` at most, in the order of their keys; none at the end. What is no object's name is left out.
    pub async fn page(&self, most: usize) -> Result<Vec<Object>, StoreError> {
        let walk = Arc::clone(&self.walk);
        let work = move |inner: &Inner<Beneath>| {
            let mut walk = walk.lock().unwrap_or_else(PoisonError::into_inner);
            let mut page = Vec::new();
            while page.len() < most {
                match walk.next(inner)? {
                    None => break,
                    Some(Met::Foreign(_)) => {}
                    Some(Met::Object(meta)) => {
                        if let Ok(key) = Key::new(meta.location.as_ref()) {
                            let modified = time_of(meta.last_modified);
                            page.push(Object { key, size: meta.size, modified });
                        }
                    }
                }
            }
            Ok(page)
        };
        self.shelf.blocking(Operation::List, &self.prefix, work).await
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::clock::SystemClock;
    use crate::store::tests::env_with;

    fn shelf(top: &Path) -> Shelf {
        Shelf::new(top.to_owned(), None, &env_with(SystemClock::new()).0).unwrap()
    }

    async fn put(shelf: &Shelf, key: &str, body: &'static str) -> Result<(), StoreError> {
        let incoming = shelf.begin(&Key::new(key).unwrap()).await?;
        incoming.write(Bytes::from_static(body.as_bytes())).await?.commit().await
    }

    #[tokio::test]
    async fn what_was_listed_under_another_connection_counts_as_listed() {
        let place = tempfile::tempdir().unwrap();
        put(&shelf(place.path()), "packs/ab/x", "one").await.unwrap();
        put(&shelf(place.path()), "index/w/y", "two").await.unwrap();
        let later = shelf(place.path());
        later.note_listed().await.unwrap();
        let listed = later.local.0.listed.lock().unwrap().clone();
        let path = |name: &str| place.path().join(name);
        assert!(listed.contains(&path("index/w")) && listed.contains(&path("packs")), "{listed:?}");
        assert!(!listed.contains(&path("packs/ab")), "{listed:?}");
    }

    #[tokio::test]
    async fn nothing_is_replaced_and_nothing_half_written_is_shown_or_left() {
        let place = tempfile::tempdir().unwrap();
        let shelf = shelf(place.path());
        put(&shelf, "packs/ab/x", "one").await.unwrap();
        assert!(matches!(put(&shelf, "packs/ab/x", "two").await, Err(StoreError::Conflict { .. })));
        let reading = shelf.read(&Key::new("packs/ab/x").unwrap(), None).await.unwrap();
        assert_eq!((reading.size, reading.bytes(0..3).await.unwrap().as_ref()), (3, &b"one"[..]));
        let half = shelf.begin(&Key::new("packs/ab/y").unwrap()).await.unwrap();
        let half = half.write(Bytes::from_static(b"half")).await.unwrap();
        let listed = shelf.list("", "").await.unwrap().page(10).await.unwrap();
        assert_eq!(listed.len(), 1);
        assert_eq!(shelf.used().await.unwrap(), 2 * 4096, "what is half-written takes space");
        drop(half);
        assert_eq!(std::fs::read_dir(place.path().join("tmp")).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn a_root_that_is_not_there_is_no_repository() {
        let place = tempfile::tempdir().unwrap();
        let shelf = shelf(&place.path().join("a/b"));
        assert!(matches!(shelf.list("", "").await, Err(StoreError::NoBucket { .. })));
        assert!(matches!(put(&shelf, "packs/x", "x").await, Err(StoreError::NoBucket { .. })));
        assert!(!place.path().join("a").exists());
        shelf.make_root().await.unwrap();
        put(&shelf, "packs/x", "x").await.unwrap();
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn pages_are_the_listing_in_order_from_any_key_on(
            names in prop::collection::btree_set("[a-b.-]{1,2}(/[a-b.0-]{1,2}){0,2}", 0..20),
            after in "[a-b./-]{0,4}",
            most in 1_usize..5,
        ) {
            let place = tempfile::tempdir().unwrap();
            let mut wanted = Vec::new();
            for name in names {
                let path = place.path().join(&name);
                if Key::new(name.as_str()).is_ok()
                    && std::fs::create_dir_all(path.parent().unwrap()).is_ok()
                    && std::fs::File::create_new(&path).is_ok()
                {
                    wanted.push(name);
                }
            }
            wanted.retain(|name| *name > after);
            wanted.sort_unstable();
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let found = runtime.block_on(async {
                let listing = shelf(place.path()).list("", &after).await.unwrap();
                let mut found = Vec::new();
                loop {
                    let page = listing.page(most).await.unwrap();
                    if page.is_empty() {
                        break found;
                    }
                    found.extend(page.into_iter().map(|object| object.key.to_string()));
                }
            });
            prop_assert_eq!(found, wanted);
        }
    }
}
