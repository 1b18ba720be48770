use std::sync::Arc;

use object_store::memory::InMemory;
use proptest::prelude::*;

use super::*;
use crate::crypto::sign::SigningKey;
use crate::crypto::{SecretKey, WriterSecret};
use crate::format::cluster::{Engine, History};
use crate::format::keyslot::Role;
use crate::ops::testing::{env, new_repository, put_object};

fn history(number: u64) -> History {
    History { number, system: number * 100, version: 15, segment_size: 16 << 20, page_size: 8192 }
}

fn cluster(name: &str, histories: u64, writers: &[WriterId]) -> Cluster {
    let mut writers = writers.to_vec();
    writers.sort_unstable();
    let histories = (1..=histories).map(history).collect();
    Cluster { name: name.to_owned(), engine: Engine::Postgres, histories, writers }
}

fn id(byte: u8) -> WriterId {
    WriterId::new([byte; 16])
}

fn candidate(number: u64, author: u8, histories: u64, writers: &[u8]) -> Candidate {
    let writers: Vec<_> = writers.iter().map(|writer| id(*writer)).collect();
    // Writer 9 is a maintainer.
    let (author, by_maintainer) = (id(author), author == 9);
    Candidate { number, author, by_maintainer, cluster: cluster("main", histories, &writers) }
}

fn chosen(records: &[Candidate]) -> Result<Option<(u64, usize)>, u64> {
    let found = choose(records.to_vec())?;
    Ok(found.map(|found| (found.number, found.cluster.histories.len())))
}

#[test]
fn a_chain_of_writers_who_let_each_other_in_counts_to_its_end() {
    let first = candidate(0, 1, 1, &[1]);
    let second = candidate(1, 1, 1, &[1, 2]);
    let third = candidate(2, 2, 2, &[1, 2]);
    assert_eq!(chosen(&[]), Ok(None));
    assert_eq!(chosen(&[third.clone(), first.clone(), second.clone()]), Ok(Some((2, 2))));
    assert_eq!(chosen(&[first.clone(), third]), Ok(Some((0, 1))), "nobody let writer 2 in");
    assert_eq!(chosen(&[candidate(1, 1, 1, &[1])]), Ok(None), "there is no first one");
}

#[test]
fn two_that_differ_are_an_error_which_a_maintainer_mends() {
    let (one, other) = (candidate(0, 1, 1, &[1]), candidate(0, 2, 1, &[2]));
    assert_eq!(chosen(&[one.clone(), other.clone()]), Err(0));
    assert_eq!(chosen(&[one.clone(), one.clone()]), Ok(Some((0, 1))), "the same twice is the same");
    let mended = candidate(1, 9, 1, &[1]);
    let later = candidate(2, 1, 2, &[1]);
    let late_enemy = candidate(5, 2, 7, &[2]);
    let records = [one, other.clone(), mended.clone(), later, late_enemy];
    assert_eq!(chosen(&records), Ok(Some((2, 2))));
    let beside = candidate(1, 1, 7, &[1]);
    assert_eq!(chosen(&[other, beside, mended]), Ok(Some((1, 1))), "only a maintainer's counts there");
}

proptest! {
    /// Whatever a writer puts who was never let in, what counts is the same.
    #[test]
    fn a_stranger_changes_nothing(numbers in prop::collection::vec((1..6u64, 1..9u64), 0..6)) {
        let honest =
            vec![candidate(0, 1, 1, &[1]), candidate(1, 1, 2, &[1, 2]), candidate(2, 2, 3, &[1, 2])];
        let mut all = honest.clone();
        all.extend(numbers.iter().map(|(number, histories)| candidate(*number, 7, *histories, &[7])));
        prop_assert_eq!(choose(all), choose(honest));
    }

    /// The order of a listing means nothing.
    #[test]
    fn order_means_nothing(
        records in prop::collection::vec((0..4u64, 1..4u8, 1..3u64, prop::bool::ANY), 0..8),
        turn in 0..8usize,
    ) {
        let mut records: Vec<_> = records
            .into_iter()
            .map(|(number, author, histories, more)| {
                let writers: &[u8] = if more { &[1, 2, 3] } else { &[1] };
                candidate(number, author, histories, writers)
            })
            .collect();
        let before = chosen(&records);
        let turn = turn % records.len().max(1);
        records.rotate_left(turn);
        prop_assert_eq!(chosen(&records), before);
    }
}

async fn repository() -> Repository {
    new_repository(Arc::new(InMemory::new()), env()).await
}

/// The same repository as another registered writer opens it.
fn as_writer(repo: &Repository, byte: u8) -> Repository {
    let (id, seed) = (id(byte), [byte; 32]);
    let key = SigningKey::from_seed(SecretKey::from_bytes(seed)).verifying_key();
    repo.registry.add(id, (key, Authority::Writer));
    let mut writer = repo.as_role(Role::Writer);
    writer.secrets.writer = Some(WriterSecret { id, seed: SecretKey::from_bytes(seed) });
    writer
}

#[tokio::test]
async fn a_writer_makes_a_record_that_all_roles_with_the_index_key_read() {
    let repo = repository().await;
    let writer = as_writer(&repo, 1);
    assert_eq!(writer.cluster("main").await.unwrap(), None);
    let stored = writer.put_cluster(0, &cluster("main", 1, &[id(1)])).await.unwrap();
    assert_eq!((stored.number, stored.cluster.name.as_str()), (0, "main"));
    for role in [Role::Writer, Role::Maintainer, Role::Reader, Role::Admin] {
        let other = repo.as_role(role);
        assert_eq!(other.cluster("main").await.unwrap(), Some(stored.clone()), "{role}");
        assert_eq!(other.clusters().await.unwrap(), std::slice::from_ref(&stored), "{role}");
    }
    let next = writer.put_cluster(1, &cluster("main", 2, &[id(1)])).await.unwrap();
    assert_eq!((next.number, next.cluster.current().map(|h| h.number)), (1, Some(2)));
    assert_eq!(repo.cluster("other").await.unwrap(), None);
}

#[tokio::test]
async fn nothing_that_is_stored_shows_the_name() {
    let repo = repository().await;
    repo.put_cluster(0, &cluster("payroll", 1, &[repo.writer().unwrap().0])).await.unwrap();
    for object in repo.store().list(layout::CLUSTERS).await.unwrap() {
        assert!(!object.key.as_str().contains("payroll"));
        let bytes = repo.store().get(&object.key, 1 << 20).await.unwrap();
        assert!(!bytes.windows(7).any(|window| window == b"payroll"));
    }
}

#[tokio::test]
async fn two_first_records_are_an_error_to_whoever_reads_or_writes() {
    let repo = repository().await;
    let (one, other) = (as_writer(&repo, 1), as_writer(&repo, 2));
    one.put_cluster(0, &cluster("main", 1, &[id(1)])).await.unwrap();
    // The other one listed before that.
    let raced = other.put_cluster(0, &cluster("main", 1, &[id(2)])).await;
    assert!(matches!(raced, Err(RepoError::ClusterConflict { number: 0, .. })), "{raced:?}");
    assert!(matches!(one.cluster("main").await, Err(RepoError::ClusterConflict { .. })));
    let mended = repo.put_cluster(1, &cluster("main", 1, &[id(1)])).await.unwrap();
    assert_eq!(one.cluster("main").await.unwrap(), Some(mended));
}

#[tokio::test]
async fn garbage_is_passed_by_and_damage_that_may_count_is_an_error() {
    let repo = repository().await;
    let stored = repo.put_cluster(0, &cluster("main", 1, &[repo.writer().unwrap().0])).await.unwrap();
    let garbage = b"garbage".to_vec();
    let name = ObjectName::Cluster(stored.id, 3, object_hash(&garbage));
    put_object(&repo, &name.key(), garbage).await;
    assert_eq!(repo.cluster("main").await.unwrap(), Some(stored.clone()));
    let damaged = ObjectName::Cluster(stored.id, 1, ObjectHash::new([1; 32]));
    put_object(&repo, &damaged.key(), b"spoilt".to_vec()).await;
    assert!(matches!(repo.cluster("main").await, Err(RepoError::HashMismatch { .. })));
    let next = repo.put_cluster(2, &cluster("main", 2, &[repo.writer().unwrap().0])).await.unwrap();
    assert_eq!(repo.cluster("main").await.unwrap(), Some(next), "what stands below it does not count");
}

#[tokio::test]
async fn a_record_that_was_moved_counts_nowhere() {
    let repo = repository().await;
    let me = repo.writer().unwrap().0;
    let stored = repo.put_cluster(0, &cluster("main", 1, &[me])).await.unwrap();
    let listed = repo.store().list(layout::CLUSTERS).await.unwrap().remove(0);
    let bytes = repo.store().get(&listed.key, 1 << 20).await.unwrap();
    let hash = object_hash(&bytes);
    for name in [
        ObjectName::Cluster(stored.id, 7, hash),
        ObjectName::Cluster(repo.cluster_id("other").unwrap(), 0, hash),
    ] {
        put_object(&repo, &name.key(), bytes.to_vec()).await;
        assert!(matches!(repo.check_cluster(name).await, Err(RepoError::BadSignature { .. })));
    }
    assert_eq!(repo.clusters().await.unwrap(), [stored]);
}
