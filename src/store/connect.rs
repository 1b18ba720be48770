//! The HTTP side that all clouds share: timeouts that fit large objects on slow lines, and names that must not stop a
//! listing.

use std::time::Duration;

use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService,
    ReqwestConnector,
};
use object_store::{BackoffConfig, ClientConfigKey, ClientOptions, RetryConfig};

/// Time in which each read must bring something.
const READ: Duration = Duration::from_secs(60);
const CONNECT: Duration = Duration::from_secs(20);
/// An upload may last this long plus its length at [`SLOWEST`]. The kernel ends a connection whose peer has acknowledged
/// nothing for half a minute; this catches a server that takes everything and never answers.
const UPLOAD: Duration = Duration::from_secs(300);
/// Bytes a second of the slowest line worth waiting for.
const SLOWEST: u64 = 16 * 1024;

/// What every request of every cloud begins with; options given by the user come on top.
pub(super) fn client_options(allow_http: bool) -> ClientOptions {
    ClientOptions::new()
        .with_timeout_disabled()
        .with_read_timeout(READ)
        .with_connect_timeout(CONNECT)
        .with_config(ClientConfigKey::UserAgent, concat!("lifeboat/", env!("CARGO_PKG_VERSION")))
        .with_allow_http(allow_http)
}

/// The client's own patience is short: it repeats a request with the old signature. Fresh requests are made above.
pub(super) fn retry() -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig {
            init_backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(2),
            base: 2.0,
        },
        max_retries: 2,
        retry_timeout: Duration::from_secs(30),
    }
}

/// Makes clients that treat uploads apart: the client counts its read timeout from the first byte *sent*, so that it would
/// fail any upload that lasts longer.
#[derive(Debug, Default)]
pub(super) struct Connector;

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let reads = ReqwestConnector::default().connect(options)?;
        let uploads = ReqwestConnector::default().connect(&options.clone().with_read_timeout_disabled())?;
        Ok(HttpClient::new(Split { reads, uploads }))
    }
}

#[derive(Debug)]
struct Split {
    reads: HttpClient,
    uploads: HttpClient,
}

#[derive(Debug, thiserror::Error)]
#[error("the upload was not answered within {} s", .0.as_secs())]
struct NoAnswer(Duration);

#[async_trait::async_trait]
impl HttpService for Split {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        if request.method().as_str() == "PUT" {
            let len = request.body().content_length() as u64;
            let limit = UPLOAD + Duration::from_secs(len / SLOWEST);
            return tokio::time::timeout(limit, self.uploads.execute(request))
                .await
                .unwrap_or_else(|_| Err(HttpError::new(HttpErrorKind::Timeout, NoAnswer(limit))));
        }
        let listing = request.method().as_str() == "GET" && is_listing(request.uri().query().unwrap_or(""));
        let response = self.reads.execute(request).await?;
        if !listing || !response.status().is_success() {
            return Ok(response);
        }
        let (mut parts, body) = response.into_parts();
        parts.headers.remove("content-length");
        let body = match String::from_utf8(body.bytes().await?.into()) {
            Ok(text) => without_odd_names(text).into(),
            Err(error) => error.into_bytes().into(),
        };
        Ok(HttpResponse::from_parts(parts, body))
    }
}

fn is_listing(query: &str) -> bool {
    query.split('&').any(|pair| pair == "list-type=2" || pair == "comp=list")
}

/// Leaves out entries whose names the client would take for an error and so give up the whole listing: anyone who may write
/// one object could then hide all others. No key of ours has an empty segment, so nothing of ours is lost.
fn without_odd_names(text: String) -> String {
    let (open, close, tag) = if text.contains("<Contents>") {
        ("<Contents>", "</Contents>", "Key")
    } else {
        ("<Blob>", "</Blob>", "Name")
    };
    let mut kept = String::new();
    let mut rest = text.as_str();
    let mut changed = false;
    while let Some(start) = rest.find(open) {
        let Some(end) = rest[start..].find(close).map(|at| start + at + close.len()) else { break };
        let odd = is_odd(&rest[start..end], tag);
        kept.push_str(&rest[..if odd { start } else { end }]);
        changed |= odd;
        rest = &rest[end..];
    }
    if !changed {
        return text;
    }
    kept.push_str(rest);
    kept
}

fn is_odd(entry: &str, tag: &str) -> bool {
    let name = entry
        .split_once(&format!("<{tag}>"))
        .and_then(|(_, rest)| rest.split_once(&format!("</{tag}>")))
        .map_or("", |(name, _)| name);
    is_odd_name(name)
}

/// Whether the client takes this name for an error.
pub(super) fn is_odd_name(name: &str) -> bool {
    let name = name.strip_prefix('/').unwrap_or(name);
    let name = name.strip_suffix('/').unwrap_or(name);
    // A character reference stands for a control character, or for one that no key has.
    name.split('/').any(|part| matches!(part, "" | "." | ".."))
        || name.contains("&#")
        || name.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_name_does_not_hide_the_others() {
        let entry = |key: &str| format!("<Contents><Key>{key}</Key><Size>1</Size></Contents>");
        let page = |keys: &[&str]| {
            let entries: String = keys.iter().map(|key| entry(key)).collect();
            format!(
                "<?xml?><ListBucketResult><KeyCount>1</KeyCount>{entries}<IsTruncated>false</IsTruncated></ListBucketResult>"
            )
        };
        let odd = ["packs//x", "packs/../x", "packs/./x", "a&#10;b", ".."];
        assert_eq!(
            without_odd_names(page(&["a/b", odd[0], odd[1], "c", odd[2], odd[3], odd[4]])),
            page(&["a/b", "c"])
        );
        assert_eq!(without_odd_names(page(&["a/b", "folder/"])), page(&["a/b", "folder/"]));
        for whole in ["", "<Contents>", "<Contents><Key>a//b</Key>", "<Blobs/>", "</Contents><Contents>"] {
            assert_eq!(without_odd_names(whole.to_owned()), whole);
        }
        let blobs = "<Blobs><Blob><Name>a</Name></Blob><Blob><Name>a//b</Name></Blob></Blobs>";
        assert_eq!(without_odd_names(blobs.to_owned()), "<Blobs><Blob><Name>a</Name></Blob></Blobs>");
    }

    #[test]
    fn listings_are_told_from_reads() {
        assert!(is_listing("list-type=2&prefix=packs%2F") && is_listing("restype=container&comp=list"));
        assert!(!is_listing("") && !is_listing("versionId=list-type=2"));
    }
}
