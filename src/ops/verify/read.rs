//! Reading an object for verification: what goes wrong twice is a finding, what concerns the store as a whole an error.

use std::collections::BTreeMap;

use super::finding::{Finding, Problem, Severity, is_local};
use crate::error::Error;
use crate::event::{Event, Observer};
use crate::repo::{RepoError, Repository};
use crate::store::{Store, StoreError};

/// Whether a failure is not about one object.
pub(super) fn is_fatal(error: &RepoError) -> bool {
    match error {
        RepoError::RoleForbids { .. }
        | RepoError::StaleKey
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

pub(super) fn is_refusal(error: &RepoError) -> bool {
    matches!(error, RepoError::Store(StoreError::Denied { .. }))
}

/// Whether a finding says no more than that the store refused to give something.
fn is_refused(finding: &Finding) -> bool {
    match &finding.problem {
        Problem::Invalid(error) | Problem::Page { error, .. } => is_refusal(error),
        _ => false,
    }
}

/// How many objects were asked for, by kind: the part of the key before the first slash.
#[derive(Debug, Default)]
pub(super) struct Asked(BTreeMap<String, usize>);

impl Asked {
    pub(super) fn add(&mut self, key: &str) {
        *self.0.entry(kind(key).to_owned()).or_default() += 1;
    }

    /// Adds what else was asked for.
    pub(super) fn join(&mut self, other: Self) {
        for (kind, asked) in other.0 {
            *self.0.entry(kind).or_default() += asked;
        }
    }

    /// The failure to end with, if the store refused everything that was asked for, or all of one kind.
    pub(super) fn refused(&self, store: &Store, findings: &mut Vec<Finding>) -> Option<RepoError> {
        all_refused(findings, self.0.values().sum()).or_else(|| self.kind_refused(store, findings))
    }

    /// The failure to end with, if the store refused all objects of one kind and nothing else is damaged. A service refuses a
    /// key a prefix; a directory has files whose rights are wrong one by one.
    pub(super) fn kind_refused(&self, store: &Store, findings: &mut Vec<Finding>) -> Option<RepoError> {
        if store.is_local() || is_more_damaged(findings) {
            return None;
        }
        for (name, asked) in &self.0 {
            let mut of_kind: Vec<_> =
                findings.extract_if(.., |finding| kind(&finding.key) == name.as_str()).collect();
            let error = all_refused(&mut of_kind, *asked);
            findings.append(&mut of_kind);
            if error.is_some() {
                return error;
            }
        }
        None
    }
}

fn kind(key: &str) -> &str {
    key.split_once('/').map_or(key, |(kind, _)| kind)
}

fn is_more_damaged(findings: &[Finding]) -> bool {
    findings.iter().any(|finding| finding.severity == Severity::Damage && !is_refused(finding))
}

/// The failure to end with, if a service refused the pages of all trees, none was read, and nothing else is damaged.
pub(super) fn pages_refused(store: &Store, findings: &mut Vec<Finding>) -> Option<RepoError> {
    if store.is_local() || is_more_damaged(findings) {
        return None;
    }
    let refused = |f: &Finding| matches!(&f.problem, Problem::Page { error, .. } if is_refusal(error));
    let at = findings.iter().position(refused)?;
    match findings.swap_remove(at).problem {
        Problem::Page { error, .. } => Some(error),
        _ => None,
    }
}

/// The failure that all `asked` objects had, if the store refused every one of them: then nothing is known of the repository.
pub(super) fn all_refused(findings: &mut Vec<Finding>, asked: usize) -> Option<RepoError> {
    let refused = |f: &Finding| matches!(&f.problem, Problem::Invalid(error) if is_refusal(error));
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
    let version = repo.registry_version();
    match read().await {
        Ok(value) => return Ok(Ok(value)),
        Err(error) if is_fatal(&error) => return Err(error.into()),
        // Its writer may have been registered since this began.
        Err(RepoError::BadSignature { .. }) => match repo.refresh_registry().await {
            Err(error) if is_fatal(&error) => return Err(error.into()),
            _ => {}
        },
        Err(_) => {}
    }
    match read().await {
        Ok(value) => {
            if repo.registry_version() == version {
                note_second_read(&*repo.env().observer, key);
            }
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
