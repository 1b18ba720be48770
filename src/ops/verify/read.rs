//! Reading an object for verification: what goes wrong twice is a finding, what concerns the store as a whole an error.

use super::finding::{Problem, is_local};
use crate::error::Error;
use crate::event::{Event, Observer};
use crate::repo::RepoError;
use crate::store::StoreError;

/// Whether a failure is not about one object.
pub(super) fn is_fatal(error: &RepoError) -> bool {
    match error {
        RepoError::RoleForbids { .. }
        | RepoError::Cancelled
        | RepoError::Task
        | RepoError::Random(_)
        | RepoError::Local { .. } => true,
        RepoError::Store(error) => matches!(
            error,
            StoreError::NoBucket { .. }
                | StoreError::Credentials { .. }
                | StoreError::Unreachable { .. }
                | StoreError::Cancelled { .. }
        ),
        error => is_local(error),
    }
}

/// What a failure says of the object.
pub(super) fn problem(error: RepoError) -> Problem {
    match error {
        RepoError::HashMismatch { .. } => Problem::HashMismatch,
        RepoError::Store(StoreError::NotFound { .. }) => Problem::Missing,
        RepoError::TooLarge { size, .. } | RepoError::Store(StoreError::TooLarge { size, .. }) => {
            Problem::TooLarge { size }
        }
        error => Problem::Invalid(error),
    }
}

/// Reads, and reads again if that failed: only what fails twice is a problem of the stored bytes.
pub(super) async fn twice<T, F>(
    observer: &dyn Observer,
    key: &str,
    read: impl Fn() -> F,
) -> Result<Result<T, Problem>, Error>
where
    F: Future<Output = Result<T, RepoError>>,
{
    match read().await {
        Ok(value) => return Ok(Ok(value)),
        Err(error) if is_fatal(&error) => return Err(error.into()),
        Err(_) => {}
    }
    match read().await {
        Ok(value) => {
            note_second_read(observer, key);
            Ok(Ok(value))
        }
        Err(error) if is_fatal(&error) => Err(error.into()),
        Err(error) => Ok(Err(problem(error))),
    }
}

/// Tells that an object was wrong at first: the bytes are good, something on the way is not.
pub(super) fn note_second_read(observer: &dyn Observer, key: &str) {
    let message =
        format!("{key} was read wrong once and right the second time: check memory, disks and network");
    observer.observe(&Event::Warning { message: &message });
}
