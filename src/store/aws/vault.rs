//! What S3 knows of objects beyond their content: versions and locks. The client makes no such requests, so they are made and
//! signed here.
//!
//! # Invariants
//! A listing of versions is complete or an error. Nothing here asks for the right to bypass a lock.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures::StreamExt;
use object_store::aws::{AmazonS3, AwsAuthorizer};
use object_store::client::{HttpClient, HttpRequest, HttpRequestBody};
use object_store::path::Path;
use object_store::signer::{HeaderValue, Method, Signer};
use object_store::{Error, Result};

use super::lock::{CHECKSUM, Signing, checksum, mode, rfc3339};
use super::xml;
use crate::clock::Timestamp;
use crate::format::config::LockMode;

const STORE: &str = "S3";
/// Most bytes of an answer: a page of a thousand long names has less than half of it.
const ANSWER_MAX: usize = 16 << 20;
/// Only the address is used of what is made with it.
const SOON: Duration = Duration::from_secs(60);

/// A state that an object had, or the mark that it was deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::store) struct Version {
    /// The whole name in the bucket.
    pub(in crate::store) key: String,
    /// Which one.
    pub(in crate::store) id: String,
    /// Whether it is what a plain read gives.
    pub(in crate::store) latest: bool,
    /// Whether it says that the object was deleted.
    pub(in crate::store) deleted: bool,
    /// When it came, on the store's clock.
    pub(in crate::store) modified: Timestamp,
    /// Its size in bytes.
    pub(in crate::store) size: u64,
}

/// The requests of a bucket that the client does not make.
#[derive(Debug)]
pub(in crate::store) struct Vault {
    pub(in crate::store) s3: Arc<AmazonS3>,
    pub(super) client: HttpClient,
    pub(super) signing: Arc<OnceLock<Signing>>,
}

#[derive(Debug, thiserror::Error)]
enum VaultError {
    #[error("Server returned non-2xx status code: {status}: {body}")]
    Status { status: String, body: String },
    #[error("the answer of the store has no `{0}` where there must be one")]
    Answer(&'static str),
    #[error("the answer of the store is larger than it can be")]
    TooLong,
    #[error("the client is not ready to sign")]
    NotReady,
    #[error("a request to the store cannot be written")]
    Request,
}

impl VaultError {
    fn generic(self) -> Error {
        Error::Generic { store: STORE, source: Box::new(self) }
    }
}

/// A request that is answered with a refusal that says what was asked for: there is none.
fn or_none(answer: Result<String>, codes: &[&str]) -> Result<Option<String>> {
    match answer {
        Ok(body) => Ok(Some(body)),
        Err(Error::NotFound { source, .. } | Error::Generic { source, .. })
            if codes.iter().any(|code| source.to_string().contains(code)) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

impl Vault {
    /// Every version whose name begins with `prefix`, names in their order, the newest version of each first.
    pub(in crate::store) async fn versions(
        &self,
        prefix: &str,
        mut each: impl FnMut(Version) + Send,
    ) -> Result<()> {
        let mut marker: Option<(String, String)> = None;
        loop {
            let mut query = vec![("versions", ""), ("prefix", prefix)];
            if let Some((key, id)) = &marker {
                query.push(("key-marker", key));
                query.extend((!id.is_empty()).then_some(("version-id-marker", id.as_str())));
            }
            let page = self.ask(Method::GET, &Path::default(), &query, None).await?;
            for (name, entry) in xml::each(&page, ["Version", "DeleteMarker"]) {
                each(version(entry, name == "DeleteMarker")?);
            }
            match xml::text(&page, "IsTruncated").as_deref() {
                Some("true") => {}
                Some("false") => return Ok(()),
                _ => return Err(VaultError::Answer("IsTruncated").generic()),
            }
            let key = xml::text(&page, "NextKeyMarker");
            let key = key.ok_or_else(|| VaultError::Answer("NextKeyMarker").generic())?;
            let next = (key, xml::text(&page, "NextVersionIdMarker").unwrap_or_default());
            // One that does not move would be followed for ever.
            if marker.as_ref() == Some(&next) {
                return Err(VaultError::Answer("NextKeyMarker").generic());
            }
            marker = Some(next);
        }
    }

    /// Whether the bucket keeps what is replaced or deleted.
    pub(in crate::store) async fn keeps_versions(&self) -> Result<bool> {
        let answer = self.ask(Method::GET, &Path::default(), &[("versioning", "")], None).await?;
        Ok(xml::text(&answer, "Status").is_some())
    }

    /// Whether objects of the bucket can be locked.
    pub(in crate::store) async fn can_lock(&self) -> Result<bool> {
        let answer = self.ask(Method::GET, &Path::default(), &[("object-lock", "")], None).await;
        let codes = [
            "ObjectLockConfigurationNotFound",
            "NotImplemented",
            "501 Not Implemented",
            "NoSuchObjectLockConfiguration",
        ];
        let answer = or_none(answer, &codes)?;
        Ok(answer.is_some_and(|body| xml::text(&body, "ObjectLockEnabled").as_deref() == Some("Enabled")))
    }

    /// Until when an object, or a version of it, is locked.
    pub(in crate::store) async fn locked_until(
        &self,
        path: &Path,
        version: Option<&str>,
    ) -> Result<Option<Timestamp>> {
        let mut query = vec![("retention", "")];
        query.extend(version.map(|id| ("versionId", id)));
        let answer = self.ask(Method::GET, path, &query, None).await;
        let Some(body) = or_none(answer, &["NoSuchObjectLockConfiguration"])? else { return Ok(None) };
        xml::text(&body, "RetainUntilDate").map(|text| time(&text, "RetainUntilDate")).transpose()
    }

    /// Locks an object until then.
    pub(in crate::store) async fn retain(&self, path: &Path, how: LockMode, until: Timestamp) -> Result<()> {
        let until = rfc3339(until).ok_or_else(|| VaultError::Request.generic())?;
        let body = format!(
            "<Retention xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Mode>{}</Mode><RetainUntilDate>{}</RetainUntilDate>\
             </Retention>",
            mode(how),
            xml::escape(&until)
        );
        self.ask(Method::PUT, path, &[("retention", "")], Some(body)).await.map(drop)
    }

    /// Whether a legal hold keeps an object, or a version of it.
    pub(in crate::store) async fn has_legal_hold(&self, path: &Path, version: Option<&str>) -> Result<bool> {
        let mut query = vec![("legal-hold", "")];
        query.extend(version.map(|id| ("versionId", id)));
        let answer = self.ask(Method::GET, path, &query, None).await;
        // Amazon says the first of an object without one, Ceph the second.
        let body = or_none(answer, &["NoSuchObjectLockConfiguration", "ObjectLockConfigurationNotFound"])?;
        Ok(body.is_some_and(|body| xml::text(&body, "Status").as_deref() == Some("ON")))
    }

    /// Keeps an object, or a version of it, until the same is called to keep it no more.
    pub(in crate::store) async fn set_legal_hold(
        &self,
        path: &Path,
        version: Option<&str>,
        on: bool,
    ) -> Result<()> {
        let mut query = vec![("legal-hold", "")];
        query.extend(version.map(|id| ("versionId", id)));
        let body = format!(
            "<LegalHold xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Status>{}</Status></LegalHold>",
            if on { "ON" } else { "OFF" }
        );
        self.ask(Method::PUT, path, &query, Some(body)).await.map(drop)
    }

    /// Deletes a version for good. The store refuses it while it is locked.
    pub(in crate::store) async fn delete_version(&self, path: &Path, version: &str) -> Result<()> {
        self.ask(Method::DELETE, path, &[("versionId", version)], None).await.map(drop)
    }

    async fn ask(
        &self,
        method: Method,
        path: &Path,
        query: &[(&str, &str)],
        body: Option<String>,
    ) -> Result<String> {
        let signing = self.signing.get().ok_or_else(|| VaultError::NotReady.generic())?;
        let mut url = self.s3.signed_url(Method::GET, path, SOON).await?;
        url.query_pairs_mut().clear().extend_pairs(query);
        let mut request = HttpRequest::new(match &body {
            Some(body) => HttpRequestBody::from(body.clone()),
            None => HttpRequestBody::empty(),
        });
        *request.method_mut() = method;
        *request.uri_mut() = url.as_str().parse().map_err(|_| VaultError::Request.generic())?;
        if let Some(body) = body {
            let checksum = checksum(std::iter::once(&bytes::Bytes::from(body)));
            let value = HeaderValue::from_str(&checksum).map_err(|_| VaultError::Request.generic())?;
            request.headers_mut().insert(CHECKSUM, value);
        }
        let credential = signing.credentials.get_credential().await?;
        AwsAuthorizer::new(&credential, "s3", &signing.region).try_authorize(&mut request, None)?;
        let answer = self.client.execute(request).await;
        let answer = answer.map_err(|error| Error::Generic { store: STORE, source: Box::new(error) })?;
        let status = answer.status();
        let mut body = Vec::new();
        let mut stream = answer.into_body().bytes_stream();
        while let Some(piece) = stream.next().await {
            let piece = piece.map_err(|error| Error::Generic { store: STORE, source: Box::new(error) })?;
            if body.len() + piece.len() > ANSWER_MAX {
                return Err(VaultError::TooLong.generic());
            }
            body.extend_from_slice(&piece);
        }
        let body = String::from_utf8_lossy(&body).into_owned();
        if status.is_success() {
            return Ok(body);
        }
        let (path, source) =
            (path.to_string(), VaultError::Status { status: status.to_string(), body }.into());
        Err(match status.as_u16() {
            404 => Error::NotFound { path, source },
            401 => Error::Unauthenticated { path, source },
            403 => Error::PermissionDenied { path, source },
            _ => Error::Generic { store: STORE, source },
        })
    }
}

fn version(entry: &str, deleted: bool) -> Result<Version> {
    let field = |name| xml::text(entry, name).ok_or_else(|| VaultError::Answer(name).generic());
    let size = if deleted { Some(0) } else { field("Size")?.parse().ok() };
    Ok(Version {
        key: field("Key")?,
        id: field("VersionId")?,
        latest: field("IsLatest")? == "true",
        deleted,
        modified: time(&field("LastModified")?, "LastModified")?,
        size: size.ok_or_else(|| VaultError::Answer("Size").generic())?,
    })
}

fn time(text: &str, field: &'static str) -> Result<Timestamp> {
    let parsed =
        text.parse::<jiff::Timestamp>().ok().and_then(|time| i64::try_from(time.as_nanosecond()).ok());
    parsed.map(Timestamp).ok_or_else(|| VaultError::Answer(field).generic())
}
