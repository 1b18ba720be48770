use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use object_store::memory::InMemory;

use super::*;
use crate::error::{Error, LogError};
use crate::format::config::Authority;
use crate::format::keyslot::Role;
use crate::format::layout::{self, ObjectName};
use crate::format::log::LogFile;
use crate::ops::testing::{add_key, env, new_repository};
use crate::postgres::testing::sample;
use crate::repo::Repository;
use crate::store::Key;

/// A data directory with the sample segments in it, and a repository.
struct World {
    dir: tempfile::TempDir,
    repo: Repository,
}

impl World {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("pg_wal")).unwrap();
        let world = Self { dir, repo: new_repository(Arc::new(InMemory::new()), env()).await };
        for number in [7, 8, 9] {
            world.write(&sample(number).0.to_string(), &sample(number).1);
        }
        world
    }

    fn write(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.dir.path().join("pg_wal").join(name);
        fs::write(&path, content).unwrap();
        path
    }

    fn options(&self, name: &str) -> PushOptions {
        PushOptions {
            path: self.dir.path().join("pg_wal").join(name),
            cluster: None,
            check: WalCheck::Error,
            new_history: false,
            host: b"here".to_vec(),
            program: "test".to_owned(),
        }
    }

    async fn push(&self, name: &str) -> Result<Pushed, Error> {
        push(&self.repo, &self.options(name)).await
    }

    async fn push_all(&self) {
        for number in [7, 8, 9] {
            self.push(&sample(number).0.to_string()).await.unwrap();
        }
    }

    async fn get(&self, name: &str) -> Result<Got, Error> {
        let options = GetOptions {
            cluster: None,
            file: name.to_owned(),
            target: self.dir.path().join("RECOVERYXLOG"),
            data: self.dir.path().to_owned(),
            allow_gap: false,
        };
        get(&self.repo, &options).await
    }

    fn delivered(&self) -> Vec<u8> {
        fs::read(self.dir.path().join("RECOVERYXLOG")).unwrap()
    }

    async fn keys_of(&self, name: &str) -> Vec<Key> {
        let all = self.repo.store().list(layout::STREAMS).await.unwrap();
        all.into_iter().map(|object| object.key).filter(|key| key.as_str().contains(name)).collect()
    }
}

fn name(number: u32) -> String {
    sample(number).0.to_string()
}

#[tokio::test]
async fn what_was_archived_comes_back() {
    let world = World::new().await;
    world.push_all().await;
    for number in [7, 8, 9] {
        assert_eq!(world.get(&name(number)).await.unwrap(), Got::Delivered { bytes: 1 << 20 });
        assert_eq!(world.delivered(), sample(number).1);
    }
    let history = b"1\t0/8365B8\tno recovery target specified\n";
    world.write("00000002.history", history);
    world.push("00000002.history").await.unwrap();
    world.write(&format!("{}.00000028.backup", name(8)), b"START WAL LOCATION: 0/800028\n");
    world.push(&format!("{}.00000028.backup", name(8))).await.unwrap();
    assert_eq!(world.get("00000002.history").await.unwrap(), Got::Delivered { bytes: history.len() as u64 });
    assert_eq!(world.delivered(), history);
}

#[tokio::test]
async fn the_same_again_is_success_and_something_else_is_not() {
    let world = World::new().await;
    let first = world.push(&name(7)).await.unwrap();
    assert!(!first.already && first.fault.is_none() && first.history == 1 && first.cluster == "main");
    assert!(world.push(&name(7)).await.unwrap().already);
    assert_eq!(world.keys_of(&name(7)).await.len(), 1);
    // Another server's segment of the same name: one record less.
    let (segment, mut other) = sample(9);
    world.push(&name(9)).await.unwrap();
    other[0x90..].fill(0);
    world.write(&segment.to_string(), &other);
    let options = PushOptions { check: WalCheck::Off, ..world.options(&segment.to_string()) };
    let refused = push(&world.repo, &options).await;
    assert!(matches!(refused, Err(Error::Log(LogError::Different { .. }))), "{refused:?}");
    assert_eq!(world.get(&name(9)).await.unwrap(), Got::Delivered { bytes: 1 << 20 });
}

#[tokio::test]
async fn a_damaged_or_misfiled_segment_stays_with_the_server() {
    let world = World::new().await;
    let (segment, mut bytes) = sample(7);
    world.write(&sample(8).0.to_string(), &bytes);
    let misfiled = world.push(&name(8)).await;
    assert!(matches!(misfiled, Err(Error::Log(LogError::Segment { .. }))), "{misfiled:?}");
    let options = PushOptions { check: WalCheck::Off, ..world.options(&name(8)) };
    assert!(push(&world.repo, &options).await.is_err(), "whatever is to be done about damage");
    bytes[70_000] ^= 1;
    world.write(&segment.to_string(), &bytes);
    assert!(world.push(&name(7)).await.is_err());
    assert!(world.keys_of("0000000100000000").await.is_empty());
    let options = PushOptions { check: WalCheck::Warn, ..world.options(&name(7)) };
    assert!(push(&world.repo, &options).await.unwrap().fault.is_some());
    assert_eq!(world.get(&name(7)).await.unwrap(), Got::Delivered { bytes: 1 << 20 });
    assert_eq!(world.delivered(), bytes);
}

#[tokio::test]
async fn what_is_absent_and_what_is_missing_are_told_apart() {
    let world = World::new().await;
    assert!(world.get(&name(7)).await.is_err(), "there is no cluster");
    world.push(&name(7)).await.unwrap();
    world.push(&name(9)).await.unwrap();
    assert_eq!(world.get(&name(9).replace('9', "A")).await.unwrap(), Got::Absent);
    assert_eq!(world.get("00000002.history").await.unwrap(), Got::Absent);
    let hole = world.get(&name(8)).await;
    assert!(matches!(hole, Err(Error::Log(LogError::Gap { .. }))), "{hole:?}");
    assert!(matches!(world.get("nonsense").await, Err(Error::Log(LogError::FileName { .. }))));
    for key in world.keys_of(&name(7)).await {
        let mut bytes = world.repo.store().get(&key, 4 << 20).await.unwrap().to_vec();
        bytes[5000] ^= 1;
        world.repo.store().put(&key, vec![bytes.into()]).await.unwrap();
    }
    let damaged = world.get(&name(7)).await;
    assert!(matches!(damaged, Err(Error::Log(LogError::Unreadable { .. }))), "{damaged:?}");
    // The server still has it: stored again, beside what is damaged.
    assert!(!world.push(&name(7)).await.unwrap().already);
    assert_eq!(world.get(&name(7)).await.unwrap(), Got::Delivered { bytes: 1 << 20 });
}

#[tokio::test]
async fn an_archive_that_began_on_a_later_timeline_has_no_history_of_it() {
    let world = World::new().await;
    let later = name(7).replacen("00000001", "00000003", 1);
    world.write(&later, &sample(7).1);
    world.push(&later).await.unwrap();
    world.write("00000004.history", b"1\t0/100000\tx\n2\t0/200000\tx\n3\t0/8365B8\tx\n");
    world.push("00000004.history").await.unwrap();
    assert_eq!(world.get("00000003.history").await.unwrap(), Got::Absent);
    world.push(&name(7)).await.unwrap();
    let hole = world.get("00000003.history").await;
    assert!(matches!(hole, Err(Error::Log(LogError::Gap { .. }))), "{hole:?}");
}

#[tokio::test]
async fn another_server_is_another_history_if_somebody_says_so() {
    let world = World::new().await;
    world.push(&name(7)).await.unwrap();
    let (segment, mut bytes) = sample(9);
    bytes[24] ^= 1;
    world.write(&segment.to_string(), &bytes);
    let other = world.push(&name(9)).await;
    assert!(matches!(other, Err(Error::Log(LogError::OtherServer { .. }))), "{other:?}");
    let new = PushOptions { new_history: true, ..world.options(&name(9)) };
    assert_eq!(push(&world.repo, &new).await.unwrap().history, 2);
    assert_eq!(push(&world.repo, &new).await.unwrap().history, 2, "once is enough");
    let old = push(&world.repo, &PushOptions { new_history: true, ..world.options(&name(7)) }).await;
    assert!(matches!(old, Err(Error::Log(LogError::OldHistory { history: 1, .. }))), "{old:?}");
}

#[tokio::test]
async fn a_writer_archives_where_it_was_let_in_and_reads_nothing() {
    let world = World::new().await;
    world.push(&name(7)).await.unwrap();
    let (id, unlock) = add_key(&world.repo, Role::Writer, Authority::Writer).await;
    let writer = Repository::open(world.repo.store().clone(), env(), &unlock).await.unwrap();
    let stranger = push(&writer, &world.options(&name(8))).await;
    assert!(matches!(stranger, Err(Error::Log(LogError::NotAllowed { .. }))), "{stranger:?}");
    world.repo.reread_registry().await.unwrap();
    assert_eq!(allow(&world.repo, "main", &id.to_string()).await.unwrap().writer, id);
    assert!(matches!(allow(&world.repo, "main", &id.to_string()).await, Err(Error::Log(_))));
    assert!(!push(&writer, &world.options(&name(8))).await.unwrap().already);
    assert!(push(&writer, &world.options(&name(7))).await.unwrap().already, "what another one stored");
    assert_eq!(world.get(&name(8)).await.unwrap(), Got::Delivered { bytes: 1 << 20 });
}

#[tokio::test]
async fn two_contents_are_never_given_to_a_server() {
    let world = World::new().await;
    let (segment, mut other) = sample(9);
    world.push(&name(9)).await.unwrap();
    let one = world.keys_of(&name(9)).await.remove(0);
    let bytes = world.repo.store().get(&one, 4 << 20).await.unwrap();
    world.repo.store().delete(&one).await.unwrap();
    other[0x90..].fill(0);
    world.write(&segment.to_string(), &other);
    let options = PushOptions { check: WalCheck::Off, ..world.options(&name(9)) };
    push(&world.repo, &options).await.unwrap();
    world.repo.store().put(&one, vec![bytes]).await.unwrap();
    assert!(matches!(world.get(&name(9)).await, Err(Error::Log(LogError::Ambiguous { .. }))));
    let shown = info(&world.repo, None).await.unwrap();
    assert_eq!(shown[0].histories[0].ambiguous, [LogFile::Segment(segment)]);
    assert_eq!(verify(&world.repo, &VerifyOptions::default()).await.unwrap().bad.len(), 1);
}

#[tokio::test]
async fn info_and_verify_say_how_far_the_log_reaches() {
    let world = World::new().await;
    world.push_all().await;
    let shown = info(&world.repo, Some("main")).await.unwrap();
    let history = &shown[0].histories[0];
    let ranges = &history.timelines[0].ranges;
    assert_eq!((shown.len(), history.timelines.len(), ranges.len(), ranges[0].range.count), (1, 1, 1, 3));
    assert!(ranges[0].first_commit < ranges[0].last_commit);
    let found = verify(&world.repo, &VerifyOptions::default()).await.unwrap();
    assert_eq!((found.segments, found.records, found.commits), (3, 1486 + 320 + 3, 4));
    assert_eq!((found.first_commit, found.last_commit), (ranges[0].first_commit, ranges[0].last_commit));
    assert!(found.bad.is_empty() && found.gaps.is_empty());
    for key in world.keys_of(&name(8)).await {
        world.repo.store().delete(&key).await.unwrap();
    }
    assert_eq!(verify(&world.repo, &VerifyOptions::default()).await.unwrap().gaps.len(), 1);
    let shown = info(&world.repo.as_role(Role::Maintainer), None).await.unwrap();
    assert_eq!(shown[0].histories[0].timelines[0].ranges.len(), 2);
    assert!(matches!(info(&world.repo, Some("other")).await, Err(Error::Log(LogError::NoCluster { .. }))));
}

#[tokio::test]
async fn a_collection_leaves_logs_alone() {
    let world = World::new().await;
    world.push_all().await;
    let before = world.repo.store().list("").await.unwrap();
    let logs = before.iter().filter(|object| {
        let name = ObjectName::parse(object.key.as_str());
        matches!(name, Some(ObjectName::Log(_) | ObjectName::Cluster(..)))
    });
    assert_eq!(logs.count(), 4);
    crate::ops::gc::prune(&world.repo, &crate::ops::testing::NOW).await.unwrap();
    world.get(&name(8)).await.unwrap();
    assert_eq!(verify(&world.repo, &VerifyOptions::default()).await.unwrap().segments, 3);
}
