//! Selectors, lists and the cache of bodies over a store in memory.

mod unreadable;

use std::sync::Arc;

use object_store::memory::InMemory;

use super::*;
use crate::format::gc::TombReason;
use crate::ops::testing::{env, new_repository, put_snapshot as put};
use crate::store::fault::{FaultStore, OpKind};

fn filter(host: &str) -> SnapshotFilter {
    SnapshotFilter { hosts: vec![host.into()], ..SnapshotFilter::default() }
}

#[tokio::test]
async fn selectors_find_the_snapshot_a_person_means() {
    let repo = new_repository(Arc::new(InMemory::new()), env()).await;
    let all = SnapshotFilter::default();
    assert!(matches!(resolve(&repo, "latest", &all).await, Err(Error::NoSnapshot { .. })));
    let mut ids = Vec::new();
    for n in 0..20 {
        let host = if n % 5 == 0 { "two" } else { "one" };
        ids.push(put(&repo, n, |s| s.host = host.into()).await);
    }
    // Stored, but its writer never came to confirm it.
    let unconfirmed = Snapshot { host: b"two".to_vec(), ..Snapshot::empty() };
    let last = repo.put_snapshot(20, &unconfirmed, &repo.new_run_keys().unwrap()).await.unwrap();

    let found = |text: &'static str, filter: SnapshotFilter| {
        let repo = &repo;
        async move { resolve(repo, text, &filter).await.map(|info| info.id).map_err(|e| e.to_string()) }
    };
    assert_eq!(found("latest", all.clone()).await, Ok(ids[19]));
    assert_eq!(found("latest~3", all.clone()).await, Ok(ids[16]));
    assert_eq!(found("latest", filter("two")).await, Ok(ids[15]));
    assert_eq!(found("latest~1", filter("two")).await, Ok(ids[10]));
    assert!(found("latest~20", all.clone()).await.is_err());
    assert_eq!(found("@2100-01-01", all.clone()).await, Ok(ids[19]));
    assert!(found("@2000-01-01", all.clone()).await.is_err());
    let by_id = resolve(&repo, &last.to_string()[..12], &filter("one")).await.unwrap();
    assert!(by_id.id == last && !by_id.confirmed);
    let tomb = |n: usize| repo.put_tomb((repo.writer().unwrap().0, n as u64, ids[n]), TombReason::Named);
    tomb(19).await.unwrap();
    let undone = tomb(16).await.unwrap();
    repo.put_undo(vec![undone]).await.unwrap();
    assert_eq!(found("latest", all.clone()).await, Ok(ids[18]), "what is forgotten is passed by");
    assert_eq!(found("latest~2", all.clone()).await, Ok(ids[16]), "what is back counts");
    assert_eq!(found("latest~3", filter("one")).await, Ok(ids[14]));
    assert_eq!(found("@2100-01-01", all.clone()).await, Ok(ids[18]));
    let forgotten = resolve(&repo, &ids[19].to_string(), &all).await.unwrap();
    assert!(forgotten.id == ids[19] && forgotten.forgotten.is_some(), "an id is found until it is removed");
    let selectors = ["latest", "@2100-01-01", "latest~2", &ids[19].to_string()].map(str::to_owned);
    let several = resolve_all(&repo, &selectors, &all).await.unwrap();
    assert!(several.iter().map(|info| info.id).eq([ids[18], ids[16], ids[19]]), "each once");
    let ambiguous = (0..16).find(|n| ids.iter().filter(|id| id.as_bytes()[0] >> 4 == *n).count() > 1);
    let ambiguous = format!("{:x}", ambiguous.unwrap());
    assert!(matches!(resolve(&repo, &ambiguous, &all).await, Err(Error::AmbiguousSnapshot { .. })));
    assert!(matches!(resolve(&repo, "newest", &all).await, Err(Error::BadSelector { .. })));
}

#[tokio::test]
async fn a_confirmation_that_is_not_signed_does_not_make_a_snapshot_the_latest() {
    let repo = new_repository(Arc::new(InMemory::new()), env()).await;
    let good = put(&repo, 0, |_| {}).await;
    let late = repo.put_snapshot(1, &Snapshot::empty(), &repo.new_run_keys().unwrap()).await.unwrap();
    let name = ObjectName::Confirmation(repo.writer().unwrap().0, 1, late).key();
    repo.store().put(&crate::store::Key::new(name).unwrap(), vec!["forged".into()]).await.unwrap();
    let found = resolve(&repo, "latest", &SnapshotFilter::default()).await.unwrap();
    assert_eq!(found.id, good);
}

#[tokio::test]
async fn what_cannot_be_read_is_reported_and_hides_nothing() {
    let repo = new_repository(Arc::new(InMemory::new()), env()).await;
    let good = put(&repo, 0, |s| s.tags = vec!["db=main".into(), "weekly".into()]).await;
    let name = ObjectName::Snapshot(repo.writer().unwrap().0, 7, SnapshotId::new([7; 32])).key();
    repo.store().put(&crate::store::Key::new(name.clone()).unwrap(), vec!["junk".into()]).await.unwrap();
    let tags = |tags: &[&str]| SnapshotFilter {
        tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
        ..SnapshotFilter::default()
    };
    for (wanted, count) in [(vec![], 1), (vec!["db"], 1), (vec!["db=main", "weekly"], 1), (vec!["db=m"], 0)] {
        let found = list(&repo, &tags(&wanted)).await.unwrap();
        assert_eq!(found.snapshots.len(), count, "{wanted:?}");
        assert!(found.snapshots.iter().all(|info| info.id == good));
        assert_eq!(found.unreadable.len(), 1);
        assert_eq!(found.unreadable[0].0, name);
    }
}

#[tokio::test]
async fn bodies_come_from_the_cache_and_damage_of_it_costs_reading_only() {
    let cache = tempfile::tempdir().unwrap();
    let objects = Arc::new(FaultStore::recording(Arc::new(InMemory::new())));
    let mut env = env();
    env.places.cache = Some(cache.path().to_owned());
    let repo = new_repository(objects.clone(), env).await;
    for n in 0..5 {
        put(&repo, n, |_| {}).await;
    }
    let all = SnapshotFilter::default();
    let file = cache.path().join(repo.id().to_string()).join("snapshots");
    let cold = list(&repo, &all).await.unwrap().snapshots;
    let reads = || objects.take_record().iter().filter(|op| op.kind == OpKind::Get).count();
    assert!(reads() >= 5);
    assert_eq!(list(&repo, &all).await.unwrap().snapshots, cold);
    assert_eq!(reads(), 0, "all bodies are in the cache");
    put(&repo, 5, |_| {}).await;
    reads();
    assert_eq!(list(&repo, &all).await.unwrap().snapshots.len(), 6);
    assert_eq!(reads(), 1, "only the new one is read");
    let whole = std::fs::read(&file).unwrap();
    for damaged in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[damaged] ^= 1;
        if damaged % 7 == 0 {
            bytes.truncate(damaged);
        }
        std::fs::write(&file, bytes).unwrap();
        let found = list(&repo, &all).await.unwrap();
        assert_eq!((found.snapshots.len(), found.unreadable.len()), (6, 0), "byte {damaged}");
    }
    assert_eq!(repo.store().list("snapshots/").await.unwrap().len(), 12);
    reads();
    reads();
    list(&repo, &all).await.unwrap();
    assert_eq!(reads(), 0, "a damaged cache is written anew");
}

#[tokio::test]
async fn what_a_maintainer_brought_counts_by_its_origin() {
    let repo = new_repository(Arc::new(InMemory::new()), env()).await;
    let all = SnapshotFilter::default();
    let brought = |time: i64| {
        move |snapshot: &mut Snapshot| {
            let (kind, nothing) = ("restic".to_owned(), Vec::new());
            snapshot.origin =
                Some(Origin { kind, repository: nothing.clone(), snapshot: nothing, time, missing: 0 });
        }
    };
    let at = |text: &str| parse_time(text).unwrap().0;
    let own = put(&repo, 0, |_| {}).await;
    let old = put(&repo, 1, brought(at("2020-01-01"))).await;
    let older = put(&repo, 2, brought(at("2019-01-01"))).await;
    // One that claims to be of a time to come counts as what was just stored.
    let future = put(&repo, 3, brought(at("2250-01-01"))).await;
    let order = |found: &[SnapshotInfo]| found.iter().map(|info| info.id).collect::<Vec<_>>();
    let found = list(&repo, &all).await.unwrap().snapshots;
    assert_eq!(order(&found), [older, old, own, future]);
    assert!(found.iter().all(|info| info.counted() <= info.stored));
    let mean = async |text: &str| resolve(&repo, text, &all).await.map(|info| info.id).ok();
    assert_eq!(mean("latest").await, Some(future));
    assert_eq!(mean("latest~1").await, Some(own));
    assert_eq!(mean("latest~3").await, Some(older));
    assert_eq!(mean("@2019-06-01").await, Some(older));
    assert_eq!(mean("@2025-01-01").await, Some(old));
    assert_eq!(mean("@2018-01-01").await, None);
    let several = ["latest", "@2019-06-01"].map(str::to_owned);
    assert_eq!(order(&resolve_all(&repo, &several, &all).await.unwrap()), [future, older]);
    // What a mere writer says of an origin counts for nothing.
    let plain = repo.as_plain_writer();
    let found = list(&plain, &all).await.unwrap().snapshots;
    assert_eq!(order(&found), [own, old, older, future]);
    assert!(found.iter().all(|info| info.origin().is_none()));
    assert_eq!(resolve(&plain, "latest~1", &all).await.unwrap().id, older);
}

/// `tests/long` makes it ten thousand; `cargo bench --bench snapshots` measures the time.
#[tokio::test]
async fn requests_of_a_warm_list_do_not_grow_with_the_snapshots() {
    let count = std::env::var("LIFEBOAT_SNAPSHOTS").map_or(300, |text| text.parse().unwrap());
    let cache = tempfile::tempdir().unwrap();
    let objects = Arc::new(FaultStore::recording(Arc::new(InMemory::new())));
    let mut env = env();
    env.places.cache = Some(cache.path().to_owned());
    let repo = new_repository(objects.clone(), env).await;
    let requests = || {
        let record = objects.take_record();
        let reads = record.iter().filter(|op| op.kind != OpKind::List).count();
        (record.len() - reads, reads)
    };
    let all = SnapshotFilter::default();
    let latest = async || resolve(&repo, "latest", &all).await.unwrap().id;
    put(&repo, 0, |_| {}).await;
    list(&repo, &all).await.unwrap();
    requests();
    list(&repo, &all).await.unwrap();
    let (lists, _) = requests();
    let mut last = latest().await;
    let of_latest = requests();
    for n in 1..count {
        last = put(&repo, n, |s| s.paths = vec![b"/etc".to_vec(), b"/home".to_vec()]).await;
    }
    requests();
    let cold = list(&repo, &all).await.unwrap();
    assert_eq!((cold.snapshots.len() as u64, cold.unreadable.len()), (count, 0));
    assert_eq!(
        requests(),
        (lists, count as usize - 1),
        "each new body once, and the listings of one snapshot"
    );
    for _ in 0..2 {
        let warm = list(&repo, &all).await.unwrap();
        assert!(warm.snapshots == cold.snapshots);
        assert_eq!(requests(), (lists, 0));
    }
    assert_eq!(latest().await, last);
    assert_eq!(requests(), of_latest, "one confirmation and one body, however many there are");
}
