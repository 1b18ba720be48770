//! A bucket that keeps versions, as it was at a time: also if somebody has replaced or deleted everything since.
//!
//! Of each name the newest version counts that is not later than the time; if that says that the object was deleted, it was.
//! Times are the store's.
//!
//! # Must not
//! Write anything.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::aws::AmazonS3;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

use super::aws::{Vault, Version};
use super::connect::is_odd_name;
use crate::clock::Timestamp;

const STORE: &str = "S3";

#[derive(Debug, thiserror::Error)]
enum AsOfError {
    /// Its text is looked for where errors are sorted.
    #[error("the bucket keeps no versions of its objects")]
    NoVersions,
    #[error("what a bucket was at a time is only read")]
    ReadOnly,
    #[error("there was no such object then")]
    NoObject,
}

/// Whether an error says that nothing is known of earlier times.
pub(super) fn says_no_versions(error: &(dyn std::error::Error + 'static)) -> bool {
    matches!(error.downcast_ref(), Some(AsOfError::NoVersions))
}

struct Inner {
    s3: Arc<AmazonS3>,
    vault: Arc<Vault>,
    time: Timestamp,
    /// Versions of what was listed or read, by name; `None`: there was none.
    known: Mutex<HashMap<String, Option<String>>>,
    /// Whether the bucket was found to keep versions.
    checked: tokio::sync::OnceCell<()>,
}

/// The store as it was.
#[derive(Clone)]
pub(super) struct AsOf(Arc<Inner>);

impl AsOf {
    pub(super) fn new(s3: Arc<AmazonS3>, vault: Arc<Vault>, time: Timestamp) -> Self {
        let (known, checked) = (Mutex::default(), tokio::sync::OnceCell::new());
        Self(Arc::new(Inner { s3, vault, time, known, checked }))
    }
}

impl fmt::Debug for AsOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsOf").field("time", &self.0.time).finish_non_exhaustive()
    }
}

impl fmt::Display for AsOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} as of {:?}", self.0.s3, self.0.time)
    }
}

/// Of versions in the order of a listing those that a reader would have seen at a time.
#[derive(Debug, Default)]
struct Then {
    found: Vec<Version>,
}

impl Then {
    /// Takes the next version of the listing.
    fn take(&mut self, version: Version, time: Timestamp) {
        if version.modified > time {
            return;
        }
        match self.found.last_mut().filter(|last| last.key == version.key) {
            // Of two of one moment the store lists the newer one first.
            Some(last) if version.modified > last.modified => *last = version,
            Some(_) => {}
            None => self.found.push(version),
        }
    }
}

impl Inner {
    async fn then(&self, prefix: &str) -> Result<Vec<Version>> {
        self.checked.get_or_try_init(|| self.check()).await?;
        let mut then = Then::default();
        self.vault.versions(prefix, |version| then.take(version, self.time)).await?;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.extend(then.found.iter().map(|v| (v.key.clone(), (!v.deleted).then(|| v.id.clone()))));
        Ok(then.found)
    }

    /// A bucket that keeps no versions lists what is there now, and nothing says that it was there then.
    async fn check(&self) -> Result<()> {
        match self.vault.keeps_versions().await {
            Ok(true) | Err(Error::PermissionDenied { .. }) => Ok(()),
            Ok(false) => Err(Error::Generic { store: STORE, source: AsOfError::NoVersions.into() }),
            Err(error) => Err(error),
        }
    }

    async fn list(&self, prefix: String) -> Result<Vec<Result<ObjectMeta>>> {
        let found = self.then(&prefix).await?;
        Ok(found.into_iter().filter(|v| !v.deleted && !is_odd_name(&v.key)).map(meta).collect())
    }

    /// The version of one name.
    async fn version(&self, key: &str) -> Result<Option<String>> {
        let known =
            |inner: &Self| inner.known.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned();
        if let Some(version) = known(self) {
            return Ok(version);
        }
        self.then(key).await?;
        Ok(known(self).flatten())
    }
}

fn meta(version: Version) -> Result<ObjectMeta> {
    let invalid = |source| Error::InvalidPath { source };
    let nanos = version.modified.0;
    Ok(ObjectMeta {
        location: Path::parse(&version.key).map_err(invalid)?,
        last_modified: std::time::UNIX_EPOCH
            .checked_add(std::time::Duration::from_nanos(u64::try_from(nanos).unwrap_or(0)))
            .unwrap_or(std::time::UNIX_EPOCH)
            .into(),
        size: version.size,
        e_tag: None,
        version: Some(version.id),
    })
}

fn refused<T>() -> Result<T> {
    Err(Error::NotSupported { source: AsOfError::ReadOnly.into() })
}

#[async_trait::async_trait]
impl ObjectStore for AsOf {
    async fn put_opts(&self, _: &Path, _: PutPayload, _: PutOptions) -> Result<PutResult> {
        refused()
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        refused()
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        match self.0.version(location.as_ref()).await? {
            Some(version) => {
                self.0.s3.get_opts(location, GetOptions { version: Some(version), ..options }).await
            }
            None => Err(Error::NotFound { path: location.to_string(), source: AsOfError::NoObject.into() }),
        }
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        locations.then(|_| async { refused() }).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let inner = Arc::clone(&self.0);
        let prefix = prefix.map(Path::to_string).filter(|prefix| !prefix.is_empty());
        let prefix = prefix.map_or_else(String::new, |prefix| format!("{prefix}/"));
        let listed = async move {
            match inner.list(prefix).await {
                Ok(found) => futures::stream::iter(found).boxed(),
                Err(error) => futures::stream::once(async { Err(error) }).boxed(),
            }
        };
        futures::stream::once(listed).flatten().boxed()
    }

    async fn list_with_delimiter(&self, _: Option<&Path>) -> Result<ListResult> {
        refused()
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        refused()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(key: &str, id: &str, modified: i64, deleted: bool) -> Version {
        let (key, id) = (key.to_owned(), id.to_owned());
        Version { key, id, latest: false, deleted, modified: Timestamp(modified), size: 0 }
    }

    #[test]
    fn of_each_name_the_newest_version_counts_that_is_not_later() {
        let listing = || {
            [
                version("a", "deleted", 30, true),
                version("a", "second", 20, false),
                version("a", "first", 10, false),
                version("b", "garbage", 40, false),
                version("b", "good", 10, false),
                version("c", "new", 25, false),
            ]
        };
        let at = |time| {
            let mut then = Then::default();
            listing().into_iter().for_each(|version| then.take(version, Timestamp(time)));
            then.found.into_iter().map(|v| v.id).collect::<Vec<_>>()
        };
        assert_eq!(at(5), [""; 0]);
        assert_eq!(at(10), ["first", "good"]);
        assert_eq!(at(29), ["second", "good", "new"]);
        assert_eq!(at(30), ["deleted", "good", "new"]);
        assert_eq!(at(99), ["deleted", "garbage", "new"]);
    }

    #[test]
    fn of_two_of_one_moment_the_one_listed_first_counts() {
        let mut then = Then::default();
        for id in ["newer", "older"] {
            then.take(version("a", id, 10, false), Timestamp(10));
        }
        assert_eq!(then.found.iter().map(|v| v.id.as_str()).collect::<Vec<_>>(), ["newer"]);
    }
}
