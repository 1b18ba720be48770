//! Tests: a snapshot is what stands under its whole name; and what the cache keeps.

use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use object_store::memory::InMemory;

use super::*;
use crate::ops::testing::{env, new_repository, put_snapshot as put};
use crate::store::Key;

async fn write(repo: &Repository, name: ObjectName, bytes: impl Into<bytes::Bytes>) {
    repo.store().put(&Key::new(name.key()).unwrap(), vec![bytes.into()]).await.unwrap();
}

#[tokio::test]
async fn a_copy_under_another_number_is_no_snapshot_and_hides_none() {
    let cache = tempfile::tempdir().unwrap();
    for place in [None, Some(cache.path().to_owned())] {
        let mut env = env();
        env.places.cache = place;
        let repo = new_repository(Arc::new(InMemory::new()), env).await;
        let all = SnapshotFilter::default();
        let id = put(&repo, 0, |_| {}).await;
        let newest = put(&repo, 1, |_| {}).await;
        let listed = repo.list_snapshots().await.unwrap()[0];
        // So that the true one and its confirmation are in the cache.
        resolve_all(&repo, &["latest~1".to_owned()], &all).await.unwrap();
        let key = Key::new(ObjectName::Snapshot(listed.writer, 0, id).key()).unwrap();
        let bytes = repo.store().get(&key, 1 << 20).await.unwrap();
        write(&repo, ObjectName::Snapshot(listed.writer, 98, id), bytes).await;
        write(&repo, ObjectName::Snapshot(listed.writer, 99, id), "junk").await;

        for _ in 0..2 {
            let found = list(&repo, &all).await.unwrap();
            let names: Vec<_> = found.snapshots.iter().map(|info| (info.sequence, info.id)).collect();
            assert_eq!(names, [(0, id), (1, newest)]);
            assert_eq!(found.unreadable.len(), 2);
        }
        let confirmed: Vec<_> =
            repo.list_snapshots().await.unwrap().into_iter().filter(|listed| listed.confirmed).collect();
        assert_eq!(confirmed.iter().map(|listed| listed.sequence).collect::<Vec<_>>(), [0, 1]);
        for selector in [id.to_string(), id.to_string()[..60].to_owned()] {
            assert_eq!(resolve(&repo, &selector, &all).await.unwrap().sequence, 0);
            assert_eq!(resolve_all(&repo, &[selector], &all).await.unwrap()[0].sequence, 0);
        }
        assert_eq!(resolve(&repo, "latest", &all).await.unwrap().id, newest);
        // With the true one gone nothing is left, and the reason is told.
        repo.store().delete(&key).await.unwrap();
        let gone = resolve(&repo, &id.to_string(), &all).await;
        assert!(matches!(gone, Err(Error::Repo(_))), "{gone:?}");
    }
}

#[tokio::test]
async fn the_cache_forgets_what_is_not_listed() {
    let cache = tempfile::tempdir().unwrap();
    let mut env = env();
    env.places.cache = Some(cache.path().to_owned());
    let repo = new_repository(Arc::new(InMemory::new()), env).await;
    let all = SnapshotFilter::default();
    for n in 0..10 {
        put(&repo, n, |snapshot| snapshot.tags = vec!["x".repeat(5000)]).await;
    }
    list(&repo, &all).await.unwrap();
    let file = cache.path().join(repo.id().to_string()).join("snapshots");
    let state = || std::fs::metadata(&file).map(|file| (file.len(), file.ino(), file.mtime_nsec())).unwrap();
    let large = state();
    for listed in &repo.list_snapshots().await.unwrap()[..9] {
        let name = ObjectName::Snapshot(listed.writer, listed.sequence, listed.id);
        repo.store().delete(&Key::new(name.key()).unwrap()).await.unwrap();
    }
    let found = list(&repo, &all).await.unwrap().snapshots;
    let small = state();
    assert!(small.0 < large.0 / 5, "{} of {} bytes", small.0, large.0);
    assert_eq!(list(&repo, &all).await.unwrap().snapshots, found);
    assert_eq!(state(), small, "a second run writes nothing");
}
