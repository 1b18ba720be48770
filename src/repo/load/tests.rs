use std::fs;
use std::sync::Arc;

use object_store::memory::InMemory;
use object_store::path::Path as ObjectPath;
use object_store::{ObjectStore, ObjectStoreExt};

use super::super::index_fetch::LARGE;
use super::*;
use crate::id::ChunkId;
use crate::index::Location;
use crate::ops::testing::{back_up, env, new_repository, store_over};
use crate::store::fault::{FaultStore, OpKind};

/// A repository whose one index object is too large for memory, as tests see it.
async fn world() -> (tempfile::TempDir, Arc<InMemory>, Repository) {
    let place = tempfile::tempdir().unwrap();
    let source = place.path().join("source");
    fs::create_dir(&source).unwrap();
    for number in 0..3500_u32 {
        fs::write(source.join(number.to_string()), number.to_le_bytes()).unwrap();
    }
    let objects = Arc::new(InMemory::new());
    let mut env = env();
    env.places.state = place.path().join("state");
    let repo = new_repository(Arc::<InMemory>::clone(&objects), env).await;
    back_up(&repo, &source).await;
    (place, objects, repo)
}

fn cached(repo: &Repository, place: &std::path::Path) -> Repository {
    let mut env = repo.env().clone();
    env.places.cache = Some(place.to_owned());
    repo.with_env(env)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_object_comes_through_a_file_and_says_the_same() {
    let (place, objects, repo) = world().await;
    let listed = repo.list_index().await.unwrap();
    assert!(listed.len() == 1 && listed[0].size >= LARGE, "{listed:?}");
    let tables = repo.fetch_index(listed[0].name()).await.unwrap();
    let counting = FaultStore::recording(Arc::<InMemory>::clone(&objects) as Arc<dyn ObjectStore>);
    let through = repo.with_store(store_over(Arc::new(counting.clone())));
    let mapped = cached(&through, &place.path().join("cache")).load_index().await.unwrap();
    let reads = counting.record().into_iter().filter(|op| op.key.starts_with("index/"));
    assert!(reads.filter(|op| op.kind == OpKind::GetRange).count() > 5, "it was not read in pieces");
    let whole = repo.load_index().await.unwrap();
    assert!(mapped.problems.is_empty() && whole.problems.is_empty());
    for row in &tables.records {
        let mut id = [0; 32];
        id[..16].copy_from_slice(&row[..16]);
        let places = |view: &View| -> Vec<(Location, Vec<u8>)> {
            let id = ChunkId::new(id);
            let found = view.locate(&id).map(Result::unwrap);
            found.map(|at| (at, view.data_key(at.data_key).unwrap().to_vec())).collect()
        };
        assert_eq!(places(&mapped.view), places(&whole.view));
        assert_eq!(places(&mapped.view).len(), 1);
    }
    let source = |view: &View| view.sources().cloned().collect::<Vec<_>>();
    assert_eq!(source(&mapped.view), source(&whole.view));
    // It stays in the cache.
    counting.take_record();
    cached(&through, &place.path().join("cache")).load_index().await.unwrap();
    assert!(counting.record().iter().all(|op| !op.key.starts_with("index/")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_object_that_is_damaged_anywhere_is_a_problem_and_nothing_of_it_counts() {
    let (place, objects, repo) = world().await;
    let listed = repo.list_index().await.unwrap()[0];
    let key = listed.name().key();
    let path = ObjectPath::from(key.as_str());
    let good = objects.get(&path).await.unwrap().bytes().await.unwrap();
    let signature = crate::repo::signature_at(&repo, &key, &good).unwrap();
    let spots = [5, 40, 66, 70, 500, good.len() / 2, signature, signature + 64, good.len() - 1];
    for (number, spot) in spots.into_iter().enumerate() {
        // Under its old name its hash is wrong; under a new name only seals and signature are left.
        for renamed in [false, true] {
            let mut bytes = good.to_vec();
            if spot < bytes.len() {
                bytes[spot] ^= 1;
            }
            let hash = crate::crypto::object_hash(&bytes);
            let name = if renamed { ObjectName::Index(listed.author, hash) } else { listed.name() };
            objects.delete(&path).await.unwrap();
            objects.put(&name.key().into(), bytes.into()).await.unwrap();
            let cache = place.path().join(format!("{number}{renamed}"));
            let loaded = cached(&repo, &cache).load_index().await.unwrap();
            let filling = renamed && spot >= signature + 64;
            assert_eq!(loaded.problems.len(), usize::from(!filling), "{spot} {renamed}");
            assert_eq!(loaded.view.chunk_count() > 0, filling, "{spot} {renamed}");
            objects.delete(&name.key().into()).await.unwrap();
        }
    }
    // Cut short, too.
    for len in [10, 60, 200, good.len() / 2, signature + 10] {
        objects.put(&path, good.slice(..len).into()).await.unwrap();
        let loaded = cached(&repo, &place.path().join(format!("cut{len}"))).load_index().await.unwrap();
        assert_eq!((loaded.problems.len(), loaded.view.chunk_count()), (1, 0), "{len}");
    }
    // A cache that cannot be written is no reason to fail.
    objects.put(&path, good.clone().into()).await.unwrap();
    let file = place.path().join("file");
    fs::write(&file, b"no directory").unwrap();
    let loaded = cached(&repo, &file).load_index().await.unwrap();
    assert!(loaded.problems.is_empty() && loaded.view.chunk_count() > 3000);
}

#[test]
fn large_objects_are_fetched_alone_and_small_ones_together() {
    let limits = Limits { workers: 1, requests: 4 };
    let ahead = [0, 100_000, AHEAD / 2, AHEAD, u64::MAX].map(|largest| at_once(limits, largest));
    assert_eq!(ahead, [4, 4, 2, 1, 1]);
}
