//! Reading an object for verification: what goes wrong twice is a finding, what concerns the store as a whole an error.

use super::finding::{Finding, Problem, is_local};
use crate::error::Error;
use crate::event::{Event, Observer};
use crate::repo::{RepoError, Repository};
use crate::store::{Store, StoreError};

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

/// Whether it is not one object but the store that may not be read. A service refuses a key; a directory has files whose rights
/// are wrong one by one.
pub(super) fn refuses(store: &Store, error: &RepoError) -> bool {
    !store.is_local() && matches!(error, RepoError::Store(StoreError::Denied { .. }))
}

/// The failure that all `asked` objects had, if the store refused every one of them: then nothing is known of the repository.
pub(super) fn all_refused(findings: &mut Vec<Finding>, asked: usize) -> Option<RepoError> {
    let refused =
        |f: &Finding| matches!(f.problem, Problem::Invalid(RepoError::Store(StoreError::Denied { .. })));
    if asked == 0 || findings.iter().filter(|finding| refused(finding)).count() < asked {
        return None;
    }
    let at = findings.iter().position(refused)?;
    match findings.swap_remove(at).problem {
        Problem::Invalid(error) => Some(error),
        _ => None,
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
    repo: &Repository,
    key: &str,
    read: impl Fn() -> F,
) -> Result<Result<T, Problem>, Error>
where
    F: Future<Output = Result<T, RepoError>>,
{
    let is_fatal = |error: &RepoError| is_fatal(error) || refuses(repo.store(), error);
    match read().await {
        Ok(value) => return Ok(Ok(value)),
        Err(error) if is_fatal(&error) => return Err(error.into()),
        Err(_) => {}
    }
    match read().await {
        Ok(value) => {
            note_second_read(&*repo.env().observer, key);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Operation;

    #[test]
    fn a_directory_that_refuses_every_file_is_no_damage() {
        let refused = |key: &str| {
            let (key, source) = (key.to_owned(), "not yours".into());
            let error = StoreError::Denied { operation: Operation::Get, key: key.clone(), source };
            Finding::damage(key, problem(error.into()))
        };
        let mut findings = vec![refused("a"), Finding::damage("b", Problem::Missing), refused("c")];
        assert!(all_refused(&mut findings, 3).is_none());
        assert_eq!(findings.len(), 3);
        let error = all_refused(&mut findings, 2).unwrap();
        assert_eq!(error.class(), crate::class::Class::Denied);
        assert!(all_refused(&mut Vec::new(), 0).is_none());
    }
}
