use std::sync::Arc;

use object_store::memory::InMemory;

use super::*;
use crate::format::cluster::Cluster;
use crate::format::keyslot::Role;
use crate::format::log::Checked;
use crate::ops::testing::{env, new_repository, noise, put_cluster, put_object};

async fn repository() -> (Repository, StoredCluster) {
    let repo = new_repository(Arc::new(InMemory::new()), env()).await;
    let cluster = put_cluster(&repo, 1 << 20).await;
    (repo, cluster)
}

async fn put(repo: &Repository, cluster: &StoredCluster, content: &[u8]) -> ListedLog {
    let facts = LogFacts { checked: Checked::Good, records: 3, end: Some(9), ..LogFacts::default() };
    let file = "000000010000000000000007".parse().unwrap();
    let new = NewLog { place: (cluster, 1), file, content, facts: &facts };
    repo.put_log(new, &repo.new_run_keys().unwrap()).await.unwrap()
}

#[tokio::test]
async fn what_was_stored_comes_back_and_only_to_those_who_may_read_it() {
    let (repo, cluster) = repository().await;
    for content in [Vec::new(), b"short".to_vec(), vec![7; 1 << 20], noise(1, 300_000)] {
        let put = put(&repo, &cluster, &content).await;
        let listed = repo.list_logs(&LogName::prefix(cluster.id, 1, put.name.file)).await.unwrap();
        let listed = listed.into_iter().find(|listed| listed.name == put.name).unwrap();
        assert_eq!(listed.size, put.size);
        for role in [Role::Reader, Role::Admin] {
            assert_eq!(repo.as_role(role).read_log(&listed).await.unwrap(), content, "{role}");
        }
        for role in [Role::Maintainer, Role::Reader] {
            assert_eq!(repo.as_role(role).read_log_facts(&listed).await.unwrap().records, 3, "{role}");
        }
        for role in [Role::Writer, Role::Verifier] {
            let other = repo.as_role(role);
            assert!(
                matches!(other.read_log_facts(&listed).await, Err(RepoError::RoleForbids { .. })),
                "{role}"
            );
            other.check_log(&listed).await.unwrap();
        }
        let maintainer = repo.as_role(Role::Maintainer);
        assert!(matches!(maintainer.read_log(&listed).await, Err(RepoError::RoleForbids { .. })));
    }
}

#[tokio::test]
async fn the_header_of_one_sealed_to_one_reader_comes_with_the_first_read() {
    let (repo, cluster) = repository().await;
    let listed = put(&repo, &cluster, &noise(2, 100_000)).await;
    let head = repo.read_log_head(&listed).await.unwrap();
    assert_eq!(head.len() as u64, LOG_HEAD);
    assert!(LogHeader::header_len(&head, &repo.id()).unwrap() < LOG_HEAD as usize);
}

#[tokio::test]
async fn every_changed_byte_is_noticed() {
    let (repo, cluster) = repository().await;
    let content = noise(3, 5000);
    let listed = put(&repo, &cluster, &content).await;
    let key = ObjectName::Log(listed.name).key();
    let good = repo.store().get(&object_key(ObjectName::Log(listed.name)).unwrap(), 1 << 20).await.unwrap();
    for at in (0..good.len()).step_by(97).chain([good.len() - 1]) {
        let mut bad = good.to_vec();
        bad[at] ^= 4;
        // Under its own name, and under one that is right for it.
        put_object(&repo, &key, bad.clone()).await;
        assert!(matches!(repo.read_log(&listed).await, Err(RepoError::HashMismatch { .. })), "{at}");
        let named = ListedLog { name: LogName { hash: object_hash(&bad), ..listed.name }, ..listed };
        put_object(&repo, &ObjectName::Log(named.name).key(), bad).await;
        assert!(repo.read_log(&named).await.is_err(), "{at}");
    }
    put_object(&repo, &key, good.to_vec()).await;
    assert_eq!(repo.read_log(&listed).await.unwrap(), content);
}

#[tokio::test]
async fn a_file_that_was_moved_or_renamed_is_no_other_one() {
    let (repo, cluster) = repository().await;
    let listed = put(&repo, &cluster, b"content").await;
    let name = listed.name;
    let bytes = repo.store().get(&object_key(ObjectName::Log(name)).unwrap(), 1 << 20).await.unwrap();
    for moved in [
        LogName { file: "000000010000000000000008".parse().unwrap(), ..name },
        LogName { file: "000000020000000000000007".parse().unwrap(), ..name },
        LogName { history: 2, ..name },
        LogName { cluster: repo.cluster_id("other").unwrap(), ..name },
        LogName { writer: WriterId::new([9; 16]), ..name },
        LogName { plain: LogHash::new([9; 32]), ..name },
    ] {
        put_object(&repo, &ObjectName::Log(moved).key(), bytes.to_vec()).await;
        let moved = ListedLog { name: moved, ..listed };
        assert!(matches!(repo.read_log(&moved).await, Err(RepoError::BadSignature { .. })), "{moved:?}");
        assert!(matches!(repo.read_log_facts(&moved).await, Err(RepoError::BadSignature { .. })));
    }
}

#[tokio::test]
async fn content_and_names_are_not_in_the_object() {
    let (repo, cluster) = repository().await;
    let listed = put(&repo, &cluster, &b"a secret row ".repeat(100)).await;
    let key = object_key(ObjectName::Log(listed.name)).unwrap();
    let bytes = repo.store().get(&key, 1 << 20).await.unwrap();
    assert!(!bytes.windows(6).any(|window| window == b"secret"));
    assert!(!bytes.windows(4).any(|window| window == b"main") && !key.as_str().contains("main"));
}

#[tokio::test]
async fn who_was_revoked_keeps_what_was_archived_before() {
    let (repo, cluster) = repository().await;
    let (id, unlock) = crate::ops::testing::add_key(&repo, Role::Writer, Authority::Writer).await;
    let mut writers = vec![repo.writer().unwrap().0, id];
    writers.sort_unstable();
    let next = Cluster { writers, ..cluster.cluster.clone() };
    let cluster = repo.put_cluster(1, &next).await.unwrap();
    let writer = Repository::open(repo.store().clone(), env(), &unlock).await.unwrap();
    let before = put(&writer, &cluster, b"before").await;
    repo.reread_registry().await.unwrap();
    repo.revoke_writer(id, None).await.unwrap();
    let after = put(&writer, &cluster, b"after").await;
    assert_eq!(repo.read_log(&before).await.unwrap(), b"before");
    assert!(matches!(repo.read_log(&after).await, Err(RepoError::AfterRevocation { .. })));
}
