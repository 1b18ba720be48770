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
/// [`RepoError::RoleForbids`] unless the key is a maintainer's or that of the snapshots' writer, and if it is a writer's and a
/// maintainer has tagged one of them; [`Error::TagsTooLong`].
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
            let number = repo.number_after(info.labels.as_ref())?;
            repo.put_labels(&info.listed(), (number, tags.clone())).await.map_err(|error| match error {
                RepoError::Format(rule) => Error::TagsTooLong(rule),
                error => error.into(),
            })?;
        }
        done.push(Tagged { snapshot: info.id, tags, changed });
    }
    if done.iter().any(|tagged| tagged.changed) {
        repo.still_counts().await?;
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use object_store::memory::InMemory;

    use super::*;
    use crate::format::labels::Labels;
    use crate::format::layout::{self, ObjectName};
    use crate::ops::snapshots::{SnapshotFilter, list};
    use crate::ops::testing::{env, new_repository, put_snapshot};
    use crate::store::Key;
    use crate::store::fault::{FaultStore, OpKind};

    fn tags(tags: &[&str]) -> Vec<String> {
        tags.iter().map(|tag| (*tag).to_owned()).collect()
    }

    #[test]
    fn edits_set_remove_and_add() {
        let have = tags(&["a", "k=1", "k=2", "kk"]);
        for (set, remove, add, left) in [
            (None, &[][..], &["b", "a"][..], &["a", "k=1", "k=2", "kk", "b"][..]),
            (None, &["k"], &["k=3"], &["a", "kk", "k=3"]),
            (None, &["k=1", "none"], &[], &["a", "k=2", "kk"]),
            (Some(&["x"][..]), &[], &[], &["x"]),
            (Some(&[][..]), &[], &[], &[]),
        ] {
            let edit = TagEdit { set: set.map(tags), remove: tags(remove), add: tags(add) };
            assert_eq!(edit.apply(&have), tags(left), "{edit:?}");
        }
    }

    async fn seen(repo: &Repository) -> Vec<String> {
        list(repo, &SnapshotFilter::default()).await.unwrap().snapshots[0].snapshot.tags.clone()
    }

    async fn edit(repo: &Repository, edit: TagEdit) -> Vec<Tagged> {
        let found = list(repo, &SnapshotFilter::default()).await.unwrap().snapshots;
        tag(repo, &found[..1], &edit).await.unwrap()
    }

    fn add(text: &str) -> TagEdit {
        TagEdit { add: tags(&[text]), ..TagEdit::default() }
    }

    #[tokio::test]
    async fn the_highest_number_counts_and_the_cache_spares_reading_it() {
        let cache = tempfile::tempdir().unwrap();
        let objects = Arc::new(FaultStore::recording(Arc::new(InMemory::new())));
        let mut env = env();
        env.places.cache = Some(cache.path().to_owned());
        let repo = new_repository(objects.clone(), env).await;
        let id = put_snapshot(&repo, 0, |snapshot| snapshot.tags = tags(&["a"])).await;
        edit(&repo, add("b")).await;
        edit(&repo, add("c")).await;
        assert!(!edit(&repo, add("c")).await[0].changed);
        assert_eq!(repo.store().list(layout::LABELS).await.unwrap().len(), 2, "no change, no object");
        assert_eq!(seen(&repo).await, ["a", "b", "c"]);
        objects.take_record();
        assert_eq!(seen(&repo).await, ["a", "b", "c"]);
        assert_eq!(objects.take_record().iter().filter(|op| op.kind == OpKind::Get).count(), 0);

        let listed = repo.list_snapshots().await.unwrap()[0];
        let both = [
            repo.put_labels(&listed, (5, tags(&["x"]))).await.unwrap(),
            repo.put_labels(&listed, (5, tags(&["y"]))).await.unwrap(),
        ];
        let wins = both.iter().max_by_key(|labels| labels.hash).unwrap();
        assert_eq!(seen(&repo).await, wins.labels.tags, "of equal numbers the higher hash");
        let tagged = SnapshotFilter { tags: wins.labels.tags.clone(), ..SnapshotFilter::default() };
        assert_eq!(list(&repo, &tagged).await.unwrap().snapshots[0].id, id);
    }

    #[tokio::test]
    async fn labels_of_another_snapshot_or_without_a_signature_say_nothing() {
        let repo = new_repository(Arc::new(InMemory::new()), env()).await;
        let (first, second) = (put_snapshot(&repo, 0, |_| {}).await, put_snapshot(&repo, 1, |_| {}).await);
        let listed = repo.list_snapshots().await.unwrap();
        let good = repo.put_labels(&listed[0], (1, tags(&["x"]))).await.unwrap();
        let name = ObjectName::Labels(listed[0].id, good.hash);
        let bytes = repo.store().get(&Key::new(name.key()).unwrap(), 1 << 20).await.unwrap();
        // The same bytes under the other snapshot's name.
        let moved = ObjectName::Labels(listed[1].id, good.hash).key();
        repo.store().put(&Key::new(moved.clone()).unwrap(), vec![bytes.clone()]).await.unwrap();
        let mut forged = bytes.to_vec();
        let last = forged.len() - 1;
        forged[last] ^= 1;
        let hash = crate::crypto::object_hash(&forged);
        let unsigned = ObjectName::Labels(listed[0].id, hash).key();
        repo.store().put(&Key::new(unsigned.clone()).unwrap(), vec![forged.into()]).await.unwrap();

        let found = list(&repo, &SnapshotFilter::default()).await.unwrap();
        let mut keys: Vec<_> = found.unreadable.iter().map(|(key, _)| key.clone()).collect();
        keys.sort_unstable();
        let mut expected = vec![moved, unsigned];
        expected.sort_unstable();
        assert_eq!(keys, expected);
        for info in found.snapshots {
            assert!(info.id == first || info.id == second);
            let tagged = if info.id == listed[0].id { vec!["x".to_owned()] } else { Vec::new() };
            assert_eq!(info.snapshot.tags, tagged);
        }
    }

    #[tokio::test]
    async fn tags_that_nobody_could_read_are_not_written() {
        let repo = new_repository(Arc::new(InMemory::new()), env()).await;
        put_snapshot(&repo, 0, |_| {}).await;
        let found = list(&repo, &SnapshotFilter::default()).await.unwrap().snapshots;
        let long = tag(&repo, &found, &add(&"x".repeat(1 << 20))).await;
        assert!(matches!(long, Err(Error::TagsTooLong(_))));
        let labels = Labels { snapshot: found[0].id, number: 0, tags: tags(&["ok"]) };
        assert_eq!(labels.check(), Ok(()));
        assert!(repo.store().list(layout::LABELS).await.unwrap().is_empty());
    }
}
