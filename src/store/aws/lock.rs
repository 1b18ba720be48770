//! Objects that are stored under a lock: the headers that say so, signed together with the rest of the request.
//!
//! The client signs a request before it hands it over, and knows nothing of locks; so one that carries a [`Retain`] gets its
//! headers here and is signed again.

use std::sync::{Arc, OnceLock};

use aws_lc_rs::digest::{Context, SHA256};
use object_store::aws::{AwsAuthorizer, AwsCredentialProvider};
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService,
};
use object_store::signer::HeaderValue;
use object_store::{ClientOptions, PutPayload};

use super::super::connect::Connector;
use crate::clock::Timestamp;
use crate::format::config::LockMode;

pub(super) const MODE: &str = "x-amz-object-lock-mode";
pub(super) const UNTIL: &str = "x-amz-object-lock-retain-until-date";
/// A store refuses a lock without a checksum of what is locked.
pub(super) const CHECKSUM: &str = "x-amz-checksum-sha256";
const DIGEST: &str = "x-amz-content-sha256";
const UNSIGNED: &str = "UNSIGNED-PAYLOAD";

/// How long an object is kept that is being stored.
#[derive(Debug, Clone)]
pub(in crate::store) struct Retain {
    /// How hard the lock is to undo.
    pub(in crate::store) mode: LockMode,
    /// When it ends.
    pub(in crate::store) until: Timestamp,
    /// What is stored.
    pub(in crate::store) payload: PutPayload,
}

/// Who signs, known once the client is made.
#[derive(Debug)]
pub(super) struct Signing {
    pub(super) credentials: AwsCredentialProvider,
    pub(super) region: String,
}

/// Makes the clients of S3.
#[derive(Debug, Default)]
pub(super) struct LockConnector {
    pub(super) signing: Arc<OnceLock<Signing>>,
}

impl HttpConnector for LockConnector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let inner = Connector.connect(options)?;
        Ok(HttpClient::new(Locking { inner, signing: Arc::clone(&self.signing) }))
    }
}

#[derive(Debug)]
struct Locking {
    inner: HttpClient,
    signing: Arc<OnceLock<Signing>>,
}

#[derive(Debug, thiserror::Error)]
enum LockError {
    #[error("the client is not ready to sign")]
    NotReady,
    #[error("the request to lock an object cannot be signed")]
    Sign(#[source] object_store::Error),
    #[error("the end of the lock is no time")]
    Header,
}

#[async_trait::async_trait]
impl HttpService for Locking {
    async fn call(&self, mut request: HttpRequest) -> Result<HttpResponse, HttpError> {
        if let Some(retain) = request.extensions_mut().remove::<Retain>() {
            let failed = |error: LockError| HttpError::new(HttpErrorKind::Request, error);
            let signing = self.signing.get().ok_or_else(|| failed(LockError::NotReady))?;
            add_headers(&mut request, &retain).map_err(failed)?;
            sign(&mut request, signing).await.map_err(failed)?;
        }
        self.inner.execute(request).await
    }
}

fn add_headers(request: &mut HttpRequest, retain: &Retain) -> Result<(), LockError> {
    let value = |text: String| HeaderValue::from_str(&text).map_err(|_| LockError::Header);
    let until = value(rfc3339(retain.until).ok_or(LockError::Header)?)?;
    let has_checksum = request.headers().keys().any(|name| name.as_str().starts_with("x-amz-checksum-"));
    let headers = request.headers_mut();
    headers.insert(MODE, value(mode(retain.mode).to_owned())?);
    headers.insert(UNTIL, until);
    if !has_checksum {
        headers.insert(CHECKSUM, value(checksum(retain.payload.iter()))?);
    }
    Ok(())
}

/// Signs again what was signed before, with the same digest of the body.
async fn sign(request: &mut HttpRequest, signing: &Signing) -> Result<(), LockError> {
    let credential = signing.credentials.get_credential().await.map_err(LockError::Sign)?;
    let digest = request.headers().get(DIGEST).and_then(|value| value.to_str().ok()).unwrap_or(UNSIGNED);
    let digest = (digest != UNSIGNED).then(|| from_hex(digest)).flatten();
    let authorizer =
        AwsAuthorizer::new(&credential, "s3", &signing.region).with_sign_payload(digest.is_some());
    authorizer.try_authorize(request, digest.as_deref()).map_err(LockError::Sign)
}

/// The word for a mode in headers and documents.
pub(super) fn mode(mode: LockMode) -> &'static str {
    match mode {
        LockMode::Governance => "GOVERNANCE",
        LockMode::Compliance => "COMPLIANCE",
    }
}

/// A time as headers and documents have it: whole seconds, rounded up, so that no lock is shorter than was asked for.
pub(super) fn rfc3339(time: Timestamp) -> Option<String> {
    let seconds = time.0.div_euclid(1_000_000_000) + i64::from(time.0.rem_euclid(1_000_000_000) > 0);
    Some(jiff::Timestamp::from_second(seconds).ok()?.to_string())
}

/// SHA-256 of a body in the form of the header.
pub(super) fn checksum<'a>(parts: impl Iterator<Item = &'a bytes::Bytes>) -> String {
    let mut context = Context::new(&SHA256);
    parts.for_each(|part| context.update(part));
    base64(context.finish().as_ref())
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let bits =
            group.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        for place in 0..4 {
            let digit = (bits >> (18 - 6 * place)) & 63;
            out.push(if place <= group.len() { char::from(DIGITS[digit as usize]) } else { '=' });
        }
    }
    out
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let pair = |at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok();
    (0..text.len()).step_by(2).map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_written_as_the_headers_want_them() {
        for (text, wanted) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg==")]
        {
            assert_eq!(base64(text.as_bytes()), wanted);
        }
        let empty = checksum([].iter());
        assert_eq!(empty, "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=");
        let parts = ["a".into(), "bc".into()];
        assert_eq!(checksum(parts.iter()), checksum(["abc".into()].iter()));
        assert_eq!(from_hex("00ff10"), Some(vec![0, 255, 16]));
        for bad in ["0", "zz", "é"] {
            assert_eq!(from_hex(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_end_of_a_lock_is_never_earlier_than_was_asked_for() {
        assert_eq!(rfc3339(Timestamp(0)).as_deref(), Some("1970-01-01T00:00:00Z"));
        assert_eq!(rfc3339(Timestamp(1)).as_deref(), Some("1970-01-01T00:00:01Z"));
        assert_eq!(rfc3339(Timestamp(-1)).as_deref(), Some("1970-01-01T00:00:00Z"));
    }
}
