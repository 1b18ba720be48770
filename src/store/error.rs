//! Why a request to the store failed, and telling a passing fault from a lasting one.

use std::error::Error;
use std::fmt;
use std::io;

use object_store::client::HttpError;

use super::as_of::says_no_versions;
use super::door::{DoorError, FarKind};
use super::key::KeyError;
use super::local::LocalError;
use super::location::UrlError;
use super::open::OpenError;
use super::sftp::SftpError;
use crate::class::Class;
use crate::random::RandomError;

/// The error below a [`StoreError`], as the operating system or the service gave it.
pub type Cause = Box<dyn Error + Send + Sync + 'static>;

/// What was asked of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Storing an object.
    Put,
    /// Reading an object or a part of it.
    Get,
    /// Listing objects.
    List,
    /// Deleting an object.
    Delete,
    /// Locking an object for a time.
    Lock,
    /// Making or looking at the root.
    Root,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Put => "store",
            Self::Get => "read",
            Self::List => "list",
            Self::Delete => "delete",
            Self::Lock => "lock",
            Self::Root => "use",
        })
    }
}

/// Why a request to the store failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// No object has this name.
    #[error("`{key}` is not in the store")]
    NotFound {
        /// The object.
        key: String,
    },
    /// The bucket, the container or the root directory is not there.
    #[error("{place} does not exist")]
    NoBucket {
        /// Where the repository should be.
        place: String,
    },
    /// The object is larger than its reader accepts; nothing of it was read.
    #[error("`{key}` has {size} bytes, more than the {max} allowed")]
    TooLarge {
        /// The object.
        key: String,
        /// Its size in bytes.
        size: u64,
        /// The most the reader accepts.
        max: u64,
    },
    /// The object ends before the range that was asked for, or its content ended early.
    #[error("`{key}` gave {found} bytes where {wanted} were asked for")]
    Short {
        /// The object.
        key: String,
        /// Bytes asked for.
        wanted: u64,
        /// Bytes there were.
        found: u64,
    },
    /// Another content stands under a name that is written only once.
    #[error("`{key}` exists with another content")]
    Conflict {
        /// The object.
        key: String,
    },
    /// The store refuses: wrong credentials, missing rights, a read-only file system.
    #[error("not allowed to {operation} `{key}`")]
    Denied {
        /// What was asked.
        operation: Operation,
        /// The object or prefix.
        key: String,
        /// What the store said.
        #[source]
        source: Cause,
    },
    /// Nowhere were credentials found.
    #[error("no credentials for this store")]
    Credentials {
        /// What the last place said where credentials were looked for.
        #[source]
        source: Cause,
    },
    /// No space, or the quota is used up.
    #[error("no space left to {operation} `{key}`")]
    NoSpace {
        /// What was asked.
        operation: Operation,
        /// The object.
        key: String,
        /// What the store said.
        #[source]
        source: Cause,
    },
    /// The store does not answer, or answers that it cannot work now.
    #[error("the store does not answer to {operation} `{key}`")]
    Unreachable {
        /// What was asked.
        operation: Operation,
        /// The object or prefix.
        key: String,
        /// What happened last.
        #[source]
        source: Cause,
    },
    /// Anything else.
    #[error("cannot {operation} `{key}`")]
    Failed {
        /// What was asked.
        operation: Operation,
        /// The object or prefix.
        key: String,
        /// What happened.
        #[source]
        source: Cause,
    },
    /// The run was asked to stop while a request waited for its turn or for another try.
    #[error("stopped while waiting to {operation} `{key}`")]
    Cancelled {
        /// What was asked.
        operation: Operation,
        /// The object or prefix.
        key: String,
    },
    /// A text is not an object key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A text is not a repository location.
    #[error(transparent)]
    Url(#[from] UrlError),
    /// The store could not be set up as asked.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// No random bytes.
    #[error(transparent)]
    Random(#[from] RandomError),
}

impl StoreError {
    /// What kind of failure this is.
    pub fn class(&self) -> Class {
        match self {
            Self::NotFound { .. } | Self::Failed { .. } | Self::Random(_) => Class::Failed,
            Self::TooLarge { .. } | Self::Short { .. } | Self::Conflict { .. } => Class::Damage,
            Self::NoBucket { .. } => Class::NoRepository,
            Self::Denied { .. } | Self::Credentials { .. } => Class::Denied,
            Self::NoSpace { .. } => Class::NoSpace,
            Self::Unreachable { .. } => Class::Unreachable,
            Self::Cancelled { .. } => Class::Cancelled,
            Self::Key(_) | Self::Url(_) => Class::Usage,
            Self::Open(error) => error.class(),
        }
    }

    /// Whether the object was not there.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }
}

/// The request a failure belongs to.
#[derive(Clone, Copy)]
pub(super) struct Request<'a> {
    pub(super) operation: Operation,
    pub(super) key: &'a str,
    /// The location, for messages.
    pub(super) place: &'a dyn fmt::Display,
}

/// Sorts an error of the layer below.
pub(super) fn classify(request: Request<'_>, error: object_store::Error) -> StoreError {
    let (operation, key) = (request.operation, request.key.to_owned());
    if let object_store::Error::Generic { source, .. } = &error
        && says_no_versions(source.as_ref())
    {
        return OpenError::NoVersions { url: request.place.to_string() }.into();
    }
    let no_bucket = || StoreError::NoBucket { place: request.place.to_string() };
    match error {
        object_store::Error::NotFound { source, .. } => {
            if operation == Operation::List || names_a_bucket(source.as_ref()) {
                no_bucket()
            } else {
                StoreError::NotFound { key }
            }
        }
        object_store::Error::PermissionDenied { source, .. }
        | object_store::Error::Unauthenticated { source, .. } => {
            StoreError::Denied { operation, key, source }
        }
        object_store::Error::Generic { source, .. } => match kind_of(source.as_ref()) {
            Kind::Credentials => StoreError::Credentials { source },
            Kind::Denied => StoreError::Denied { operation, key, source },
            Kind::NoSpace => StoreError::NoSpace { operation, key, source },
            Kind::Unreachable => StoreError::Unreachable { operation, key, source },
            Kind::NoBucket => no_bucket(),
            Kind::Other if operation == Operation::List && status(&source.to_string()) == Some(404) => {
                no_bucket()
            }
            Kind::Other => StoreError::Failed { operation, key, source },
        },
        other => StoreError::Failed { operation, key, source: Box::new(other) },
    }
}

enum Kind {
    Credentials,
    Denied,
    NoSpace,
    Unreachable,
    NoBucket,
    Other,
}

fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error| (*error).source())
}

/// S3 and Google say `NoSuchBucket`, Azure `ContainerNotFound`; a local store says it by type.
fn names_a_bucket(error: &(dyn Error + 'static)) -> bool {
    chain(error).any(|error| {
        matches!(error.downcast_ref(), Some(LocalError::NoRoot { .. }))
            || far_kind(error) == Some(FarKind::NoRoot)
            || {
                let text = error.to_string();
                text.contains("NoSuchBucket") || text.contains("ContainerNotFound")
            }
    })
}

fn far_kind(error: &(dyn Error + 'static)) -> Option<FarKind> {
    error.downcast_ref().map(DoorError::kind).or_else(|| error.downcast_ref().map(SftpError::kind))
}

fn kind_of(error: &(dyn Error + 'static)) -> Kind {
    // It holds what others say, in words that mean nothing here.
    match chain(error).find_map(far_kind) {
        Some(FarKind::Unreachable) => return Kind::Unreachable,
        Some(FarKind::Denied) => return Kind::Denied,
        Some(FarKind::NoSpace) => return Kind::NoSpace,
        Some(FarKind::NoRoot) => return Kind::NoBucket,
        Some(FarKind::Other) => return Kind::Other,
        None => {}
    }
    if names_a_bucket(error) {
        return Kind::NoBucket;
    }
    let text = error.to_string();
    // The last link of every credential chain; only a cloud's own machines answer there.
    if text.contains("169.254.169.254") || text.contains("metadata.google.internal") {
        return Kind::Credentials;
    }
    if let Some(kind) = chain(error).find_map(|error| error.downcast_ref::<io::Error>().and_then(io_kind)) {
        return kind;
    }
    match status(&text) {
        Some(401 | 403) => return Kind::Denied,
        Some(507) => return Kind::NoSpace,
        Some(_) if text.contains("QuotaExceeded") || text.contains("XMinioStorageFull") => {
            return Kind::NoSpace;
        }
        Some(408 | 425 | 429 | 500..=599) => return Kind::Unreachable,
        Some(_) => return Kind::Other,
        None => {}
    }
    let transport = chain(error).any(|error| error.is::<HttpError>());
    // An error inside a reply of success: `InternalError`, `SlowDown`.
    if transport || text.contains("Server returned error response") { Kind::Unreachable } else { Kind::Other }
}

/// The client's error type for a reply with a status is private, so the status is taken from its text.
pub(super) fn status(text: &str) -> Option<u16> {
    let (_, rest) = text.split_once("non-2xx status code: ")?;
    rest.get(..3)?.parse().ok()
}

fn io_kind(error: &io::Error) -> Option<Kind> {
    match error.raw_os_error() {
        Some(libc::ENOSPC | libc::EDQUOT) => return Some(Kind::NoSpace),
        Some(libc::EACCES | libc::EPERM | libc::EROFS) => return Some(Kind::Denied),
        Some(libc::ESTALE | libc::EHOSTDOWN) => return Some(Kind::Unreachable),
        _ => {}
    }
    use io::ErrorKind as E;
    match error.kind() {
        E::ConnectionRefused
        | E::ConnectionReset
        | E::ConnectionAborted
        | E::NotConnected
        | E::HostUnreachable
        | E::NetworkUnreachable
        | E::NetworkDown
        | E::TimedOut
        | E::BrokenPipe => Some(Kind::Unreachable),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class_of(source: impl Error + Send + Sync + 'static) -> Class {
        let error = object_store::Error::Generic { store: "x", source: Box::new(source) };
        classify(Request { operation: Operation::Put, key: "a", place: &"here" }, error).class()
    }

    #[test]
    fn errors_of_the_system_are_sorted() {
        for (code, class) in [
            (libc::ENOSPC, Class::NoSpace),
            (libc::EDQUOT, Class::NoSpace),
            (libc::EACCES, Class::Denied),
            (libc::EROFS, Class::Denied),
            (libc::EIO, Class::Failed),
            (libc::ESTALE, Class::Unreachable),
            (libc::ETIMEDOUT, Class::Unreachable),
            (libc::ECONNRESET, Class::Unreachable),
        ] {
            assert_eq!(class_of(io::Error::from_raw_os_error(code)), class, "{code}");
        }
    }

    #[test]
    fn the_status_is_found_in_the_text_and_nowhere_else() {
        assert_eq!(status("x - Server returned non-2xx status code: 507 Insufficient Storage: "), Some(507));
        for bad in ["", "507", "non-2xx status code: ", "non-2xx status code: 5", "non-2xx status code: é"] {
            assert_eq!(status(bad), None, "{bad}");
        }
    }
}
