//! Tags after the fact: a snapshot is signed and never changes, so its new tags are objects of their own.

use super::snapshots::SnapshotInfo;
use crate::error::Error;
use crate::id::SnapshotId;
use crate::repo::{RepoError, Repository};

/// What becomes of a snapshot's tags: first `set`, then `remove`, then `add`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TagEdit {
    /// These instead of those it has.
    pub set: Option<Vec<String>>,
    /// Without these; `key` also means every `key=value`.
    pub remove: Vec<String>,
    /// And these.
    pub add: Vec<String>,
}

impl TagEdit {
    /// The tags after it, each once.
    pub fn apply(&self, tags: &[String]) -> Vec<String> {
        let is = |tag: &str, wanted: &String| {
            tag.strip_prefix(wanted.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('='))
        };
        let base = self.set.as_deref().unwrap_or(tags);
        let kept = base.iter().filter(|tag| !self.remove.iter().any(|wanted| is(tag, wanted)));
        let mut edited: Vec<String> = Vec::new();
        for tag in kept.chain(&self.add) {
            if !edited.contains(tag) {
                edited.push(tag.clone());
            }
        }
        edited
    }
}

/// A snapshot and its tags.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tagged {
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// The tags it has now.
    pub tags: Vec<String>,
    /// Whether they are others than before.
    pub changed: bool,
}

/// Gives snapshots other tags. What has them already is left as it is.
///
/// # Errors
/// [`RepoError::RoleForbids`] unless the key is a maintainer's or that of the snapshots' writer; [`Error::TagsTooLong`].
pub async fn tag(
    repo: &Repository,
    snapshots: &[SnapshotInfo],
    edit: &TagEdit,
) -> Result<Vec<Tagged>, Error> {
    let mut done = Vec::with_capacity(snapshots.len());
    for info in snapshots {
        if repo.env().cancel.is_raised() {
            return Err(Error::Cancelled);
        }
        let tags = edit.apply(&info.snapshot.tags);
        let changed = tags != info.snapshot.tags;
        if changed {
            let number = info.labels.map_or(0, |number| number.saturating_add(1));
            repo.put_labels(&info.listed(), (number, tags.clone())).await.map_err(|error| match error {
                RepoError::Format(rule) => Error::TagsTooLong(rule),
                error => error.into(),
            })?;
        }
        done.push(Tagged { snapshot: info.id, tags, changed });
    }
    Ok(done)
}
