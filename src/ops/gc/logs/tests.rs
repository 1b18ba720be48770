//! Whole collections over logs in a store in memory. What files hold does not matter to a collector; their names do.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::FutureExt;
use object_store::{ObjectStore, ObjectStoreExt};

use super::super::{PruneOptions, prune};
use super::*;
use crate::error::{BaseError, LogError};
use crate::format::cluster::Cluster;
use crate::format::config::Authority;
use crate::format::keyslot::Role;
use crate::format::layout;
use crate::format::log::{LogFile, SegmentName};
use crate::format::postgres::PostgresBackup;
use crate::ops::forget::{ForgetOptions, plan_forget};
use crate::ops::postgres::{GetOptions, get, info};
use crate::ops::testing::{self, NOW, add_key, forget, put_snapshot, store_over};
use crate::ops::undelete::undelete;
use crate::ops::verify::{Depth, verify};
use crate::retention::{Every, Limit, Policy};
use crate::store::fault::{Failure, Fault, FaultStore, Op, OpKind};

const SIZE: u32 = 1 << 20;
/// Deletes what was condemned by an earlier run.
const SOON: PruneOptions = PruneOptions { grace: Duration::from_nanos(1), ..NOW };
/// Deletes nothing yet.
const LATER: PruneOptions = PruneOptions { grace: Duration::from_secs(3600), ..NOW };

struct World {
    base: testing::World,
    repo: Repository,
    cluster: StoredCluster,
    snapshots: std::cell::Cell<u64>,
}

fn name(timeline: u32, number: u64) -> SegmentName {
    SegmentName::at(timeline, number * u64::from(SIZE), SIZE)
}

impl World {
    /// A cluster with these segments of its first timeline.
    async fn new(numbers: std::ops::RangeInclusive<u64>) -> Self {
        let base = testing::World::new();
        let repo = base.repository().await;
        let cluster = testing::put_cluster(&repo, SIZE).await;
        let world = Self { base, repo, cluster, snapshots: 0.into() };
        for number in numbers {
            world.archive(LogFile::Segment(name(1, number)), b"log").await;
        }
        world
    }

    async fn archive(&self, file: LogFile, content: &[u8]) {
        self.archive_as(&self.repo, 1, file, content).await;
    }

    async fn archive_as(&self, repo: &Repository, history: u64, file: LogFile, content: &[u8]) {
        testing::put_log(repo, (&self.cluster, history), file, content).await;
    }

    /// A base backup that needs these segments.
    async fn back_up(&self, numbers: std::ops::RangeInclusive<u64>) -> SnapshotId {
        let sequence = self.snapshots.replace(self.snapshots.get() + 1);
        self.back_up_as(&self.repo, sequence, numbers).await
    }

    async fn back_up_as(
        &self,
        repo: &Repository,
        sequence: u64,
        numbers: std::ops::RangeInclusive<u64>,
    ) -> SnapshotId {
        let log = numbers.start() * u64::from(SIZE) + 40..numbers.end() * u64::from(SIZE) + 400;
        put_snapshot(repo, sequence, |snapshot| {
            snapshot.postgres = Some(PostgresBackup::sample(self.cluster.id, SIZE, 1, log));
        })
        .await
    }

    async fn prune(&self, options: &PruneOptions) -> LogReport {
        prune(&self.repo, options).await.unwrap().logs
    }

    /// Numbers of the segments of the first timeline that are there.
    async fn left(&self) -> Vec<u64> {
        let listed = self.repo.list_logs(layout::STREAMS).await.unwrap();
        let number = |listed: &ListedLog| match listed.name.file {
            LogFile::Segment(name) if name.timeline == 1 => name.number(SIZE),
            _ => None,
        };
        listed.iter().filter_map(number).collect()
    }

    async fn trims(&self) -> usize {
        self.repo.store().list(layout::TRIMMED).await.unwrap().len()
    }

    async fn is_sound(&self) {
        let report = verify(&self.repo, Depth::Data).await.unwrap();
        assert!(report.findings.is_empty(), "{:?}", report.findings);
    }

    /// The repository through a store that answers as told.
    fn through(&self, fault: impl Fn(&Op) -> Fault + Send + Sync + 'static) -> Repository {
        let objects = Arc::clone(&self.base.objects) as Arc<dyn ObjectStore>;
        self.repo.with_store(store_over(Arc::new(FaultStore::new(objects, fault))))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_base_backup_needs_is_condemned_and_goes_when_it_was_for_the_grace() {
    let world = World::new(1..=9).await;
    world.archive(LogFile::History(2), b"1\t0/700000\tfor a test\n").await;
    world.archive(LogFile::Backup(name(1, 2), 40), b"label").await;
    assert_eq!(world.prune(&SOON).await, LogReport::default(), "there is no base backup");
    world.back_up(4..=5).await;
    let dry = world.prune(&PruneOptions { dry_run: true, ..SOON }).await;
    assert_eq!((dry.condemned, dry.deleted, world.trims().await), (4, 0, 0));
    let first = world.prune(&LATER).await;
    assert_eq!((first.condemned, first.deleted), (4, 0));
    assert!(first.condemned_bytes > 0 && first.due.is_some());
    let again = world.prune(&LATER).await;
    assert_eq!((again.condemned, world.trims().await), (4, 1), "it was condemned already");
    assert_eq!(world.left().await, (1..=9).collect::<Vec<_>>());
    let second = world.prune(&SOON).await;
    assert_eq!((second.condemned, second.deleted, second.deleted_bytes), (0, 4, first.condemned_bytes));
    assert_eq!(world.left().await, (4..=9).collect::<Vec<_>>());
    assert_eq!(world.trims().await, 1, "it explains what is gone");
    assert_eq!(world.prune(&SOON).await, LogReport::default());
    world.is_sound().await;
    let shown = info(&world.repo, None).await.unwrap();
    let timeline = &shown[0].histories[0].timelines[0];
    assert_eq!((timeline.ranges.len(), timeline.gaps.len()), (1, 0));
    assert_eq!(timeline.trimmed.map(|at| at.0), Some(4 * u64::from(SIZE)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_asks_for_what_was_removed_is_not_told_of_an_end() {
    let world = World::new(1..=9).await;
    world.back_up(8..=8).await;
    world.prune(&NOW).await;
    assert_eq!(world.left().await, [8, 9], "without a grace at once");
    // Even if what follows is gone as well.
    for listed in world.repo.list_logs(layout::STREAMS).await.unwrap() {
        delete(&world.repo, ObjectName::Log(listed.name)).await.unwrap();
    }
    let ask = |number| {
        let options = GetOptions {
            cluster: None,
            file: name(1, number).to_string(),
            target: world.base.dir.path().join("target"),
            data: world.base.dir.path().to_owned(),
            allow_gap: false,
        };
        let repo = &world.repo;
        async move { get(repo, &options).await }
    };
    let removed = ask(3).await;
    assert!(matches!(removed, Err(Error::Log(LogError::Trimmed { .. }))), "{removed:?}");
    assert!(ask(8).await.is_ok(), "the trim says nothing of it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_base_backup_that_was_forgotten_needs_its_log_until_it_is_removed() {
    let world = World::new(1..=9).await;
    let old = world.back_up(3..=3).await;
    world.back_up(7..=7).await;
    world.prune(&NOW).await;
    forget(&world.repo, old).await;
    let window = PruneOptions { undo_window: Duration::from_secs(3600), ..NOW };
    world.prune(&window).await;
    assert_eq!(world.left().await, (3..=9).collect::<Vec<_>>());
    undelete(&world.repo, &[old.to_string()]).await.unwrap();
    world.prune(&NOW).await;
    assert_eq!(world.left().await, (3..=9).collect::<Vec<_>>(), "it was taken back");
    forget(&world.repo, old).await;
    world.repo.put_hold(vec![old], None).await.unwrap();
    world.prune(&NOW).await;
    assert_eq!(world.left().await, (3..=9).collect::<Vec<_>>(), "it is held");
    for hold in world.repo.holds().await.unwrap() {
        world.repo.delete_hold(hold.hash).await.unwrap();
    }
    world.prune(&NOW).await;
    assert_eq!(world.left().await, [7, 8, 9]);
    world.is_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_needed_again_when_its_time_comes_stays() {
    let world = World::new(1..=9).await;
    world.back_up(7..=7).await;
    assert_eq!(world.prune(&LATER).await.condemned, 6);
    // A long backup ends only now.
    let late = world.back_up(4..=5).await;
    assert_eq!(world.prune(&SOON).await.deleted, 3);
    assert_eq!(world.left().await, (4..=9).collect::<Vec<_>>());
    forget(&world.repo, late).await;
    world.prune(&SOON).await;
    assert_eq!(world.left().await, [7, 8, 9]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_archived_again_has_a_grace_of_its_own() {
    let world = World::new(1..=9).await;
    world.back_up(7..=7).await;
    world.prune(&LATER).await;
    world.prune(&SOON).await;
    world.archive(LogFile::Segment(name(1, 2)), b"log").await;
    let again = world.prune(&LATER).await;
    assert_eq!((again.condemned, again.deleted, world.trims().await), (1, 0, 2));
    assert_eq!(world.prune(&SOON).await.deleted, 1);
    assert_eq!(
        world.trims().await,
        2,
        "the second trim says what the first does, and is too young to stand for it"
    );
    assert_eq!(world.left().await, [7, 8, 9]);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_elses_files_and_no_unknown_ones_go() {
    let world = World::new(1..=9).await;
    let (_, unlock) = add_key(&world.repo, Role::Writer, Authority::Writer).await;
    let other = Repository::open(world.repo.store().clone(), world.base.env(), &unlock).await.unwrap();
    world.archive_as(&other, 1, LogFile::Segment(name(1, 1)), b"others").await;
    world.archive_as(&world.repo, 5, LogFile::Segment(name(1, 1)), b"no such history").await;
    world.archive(LogFile::Segment(name(1, 3)), b"another content").await;
    world.back_up(6..=6).await;
    world.prune(&NOW).await;
    assert_eq!(world.left().await, [1, 3, 3, 6, 7, 8, 9, 1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_of_another_server_under_the_same_name_keeps_everything() {
    let world = World::new(1..=9).await;
    world.back_up(6..=6).await;
    let sequence = world.snapshots.get();
    put_snapshot(&world.repo, sequence, |snapshot| {
        snapshot.postgres =
            Some(PostgresBackup { system: 8, ..PostgresBackup::sample(world.cluster.id, SIZE, 1, 40..400) });
    })
    .await;
    assert_eq!(world.prune(&NOW).await, LogReport::default());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collection_that_is_killed_anywhere_is_ended_by_the_next_one() {
    let mut ended = false;
    for stop in 0..400 {
        let world = World::new(1..=6).await;
        let old = world.back_up(3..=3).await;
        world.back_up(5..=5).await;
        world.prune(&LATER).await;
        forget(&world.repo, old).await;
        let killed =
            prune(&world.through(move |op| if op.number == stop { Fault::Stop } else { Fault::None }), &SOON)
                .await;
        let left = world.left().await;
        assert!(left.ends_with(&[5, 6]), "{stop}: {left:?}");
        let shown = info(&world.repo, None).await.unwrap();
        assert!(shown[0].histories[0].timelines[0].gaps.is_empty(), "{stop}: {left:?}");
        let there = world.repo.list_snapshots().await.unwrap().iter().any(|listed| listed.id == old);
        assert!(!there || left.contains(&3), "{stop}: {left:?}");
        world.prune(&SOON).await;
        world.prune(&SOON).await;
        assert_eq!(world.left().await, [5, 6], "{stop}");
        world.is_sound().await;
        ended = killed.is_ok();
        if ended {
            break;
        }
    }
    assert!(ended, "it takes more requests than were tried");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_without_a_base_backup_takes_no_log_away() {
    let world = World::new(1..=9).await;
    let old = world.back_up(3..=3).await;
    world.back_up(7..=7).await;
    world.prune(&NOW).await;
    let id = old.to_string();
    let lying = world.through(move |op| match op.kind {
        OpKind::Get if op.key.contains(&id) => Fault::Before(Failure::NotFound),
        _ => Fault::None,
    });
    assert!(prune(&lying, &NOW).await.is_err());
    for listed in world.repo.list_snapshots().await.unwrap().into_iter().filter(|listed| listed.id == old) {
        delete(&world.repo, listed.name()).await.unwrap();
    }
    assert!(matches!(prune(&world.repo, &NOW).await, Err(Error::SnapshotVanished { .. })));
    assert_eq!(world.left().await, (3..=9).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn two_collectors_and_one_that_reads_no_content_do_the_same() {
    let world = World::new(1..=9).await;
    let old = world.back_up(3..=3).await;
    world.back_up(7..=7).await;
    forget(&world.repo, old).await;
    let (_, unlock) = add_key(&world.repo, Role::Maintainer, Authority::Maintainer).await;
    let other = Repository::open(world.repo.store().clone(), world.base.env(), &unlock).await.unwrap();
    for options in [LATER, SOON] {
        let (one, other) = tokio::join!(prune(&world.repo, &options), prune(&other, &options));
        assert!(one.is_ok() || other.is_ok(), "{one:?} {other:?}");
    }
    prune(&other, &SOON).await.unwrap();
    assert_eq!(world.left().await, [7, 8, 9]);
    world.is_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_trim_covers_and_a_base_backup_has_before_it_is_missed() {
    let world = World::new(1..=9).await;
    world.back_up(7..=7).await;
    world.prune(&LATER).await;
    // A backup that began long ago ends only now, and the log behind its own is lost.
    world.back_up(2..=3).await;
    let lost = |number| LogFile::Segment(name(1, number));
    for listed in world.repo.list_logs(layout::STREAMS).await.unwrap() {
        if listed.name.file == lost(5) {
            delete(&world.repo, ObjectName::Log(listed.name)).await.unwrap();
        }
    }
    let shown = info(&world.repo, None).await.unwrap();
    let timeline = &shown[0].histories[0].timelines[0];
    assert_eq!((timeline.ranges.len(), &timeline.gaps[..]), (2, &[1][..]));
}

/// A reader lists a trim that goes before it is read: what it said stands in another one, which was put before that.
#[tokio::test(flavor = "multi_thread")]
async fn a_trim_that_goes_between_listing_and_reading_is_found_in_the_next() {
    let world = World::new(1..=9).await;
    let (of, floor) = ((world.cluster.id, 1), vec![(1, 7 * u64::from(SIZE))]);
    let second = world.repo.put_trim(of, floor.clone()).await.unwrap();
    let objects = Arc::clone(&world.base.objects) as Arc<dyn ObjectStore>;
    let listed = world.repo.store().list(layout::TRIMMED).await.unwrap();
    let bytes = world.repo.store().get(&listed[0].key, 1 << 20).await.unwrap();
    delete(&world.repo, ObjectName::Trimmed(second)).await.unwrap();
    let first = world.repo.put_trim(of, floor).await.unwrap();
    let (first, second) = (first.to_string(), second.to_string());
    let reader = world.through(move |op| {
        if op.kind == OpKind::Get && op.key.contains(&first) {
            // A store in memory answers at once.
            let place = op.key.replace(&first, &second).into();
            assert!(objects.put(&place, bytes.clone().into()).now_or_never().is_some_and(|put| put.is_ok()));
            assert!(objects.delete(&op.key.clone().into()).now_or_never().is_some());
        }
        Fault::None
    });
    assert_eq!(reader.trims_of(world.cluster.id, 1).await.unwrap().len(), 1);
}

/// Before the first deletion, too, it is looked whether there are snapshots that were not seen.
#[tokio::test(flavor = "multi_thread")]
async fn a_base_backup_that_ends_while_logs_are_judged_keeps_its_log() {
    let world = World::new(1..=9).await;
    world.back_up(7..=7).await;
    world.prune(&LATER).await;
    let before = testing::copy_objects(&world.base.objects).await;
    world.back_up(4..=5).await;
    let mut late = Vec::new();
    for listed in world.repo.store().list(layout::SNAPSHOTS).await.unwrap() {
        let place = object_store::path::Path::from(listed.key.as_str());
        if before.head(&place).await.is_err() {
            late.push((place.clone(), world.repo.store().get(&listed.key, 1 << 20).await.unwrap()));
            world.base.objects.delete(&place).await.unwrap();
        }
    }
    assert_eq!(late.len(), 2, "a snapshot and its confirmation");
    let objects = Arc::clone(&world.base.objects) as Arc<dyn ObjectStore>;
    let late = std::sync::Mutex::new(late);
    let collector = world.through(move |op| {
        if op.kind == OpKind::List && op.key.starts_with(layout::STREAMS) {
            for (place, bytes) in late.lock().unwrap().drain(..) {
                // A store in memory answers at once.
                assert!(objects.put(&place, bytes.into()).now_or_never().is_some_and(|put| put.is_ok()));
            }
        }
        Fault::None
    });
    assert_eq!(prune(&collector, &SOON).await.unwrap().logs.deleted, 3);
    assert_eq!(world.left().await, (4..=9).collect::<Vec<_>>());
    world.is_sound().await;
}

/// Machines that store snapshots all the time keep nothing from going: they need no log.
#[tokio::test(flavor = "multi_thread")]
async fn snapshots_that_are_no_base_backups_do_not_hold_up_the_logs() {
    let world = World::new(1..=9).await;
    world.back_up(7..=7).await;
    world.prune(&LATER).await;
    let writer = world.repo.clone();
    let stored = Arc::new(AtomicU64::new(100));
    let count = Arc::clone(&stored);
    let collector = world.through(move |op| {
        if op.kind == OpKind::List && op.key.starts_with(layout::STREAMS) {
            let number = count.fetch_add(1, Ordering::Relaxed);
            // A store in memory answers at once.
            assert!(put_snapshot(&writer, number, |_| {}).now_or_never().is_some());
        }
        Fault::None
    });
    assert_eq!(prune(&collector, &SOON).await.unwrap().logs.deleted, 6);
    assert!(stored.load(Ordering::Relaxed) < 110, "it did not begin again each time");
    assert_eq!(world.left().await, (7..=9).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn more_timelines_than_a_trim_may_hold_take_several() {
    let world = World::new(1..=9).await;
    world.back_up(7..=7).await;
    let (options, now) = (LATER, world.repo.env().clock.now());
    let run = Run { repo: &world.repo, options: &options, now, accepted: HashSet::new() };
    let known = Known::list(&world.repo).await.unwrap();
    let mut logs = judge(&run, &run.look().await.unwrap(), &known).await.unwrap();
    let first = logs[0].split.new[0];
    let on = |timeline| {
        let name = LogName { file: LogFile::Segment(name(timeline, 1)), ..first.name };
        ListedLog { name, ..first }
    };
    let last = TIMELINES_MAX as u32 + 1;
    logs[0].split.new = (1..=last).map(on).collect();
    assert!(condemn(&world.repo, &logs).await.unwrap());
    let trims = world.repo.trims_of(world.cluster.id, 1).await.unwrap();
    let below = |timeline| crate::repo::trimmed(&trims, timeline);
    assert_eq!((trims.len(), below(1), below(last)), (2, below(2), below(2)));
    assert_eq!((below(2), below(last + 1)), (Some(7 * u64::from(SIZE)), None));
}

fn forgetting(snapshot: SnapshotId, window: Duration) -> ForgetOptions {
    let new = ForgetOptions::new(jiff::tz::TimeZone::UTC);
    ForgetOptions { named: vec![snapshot.to_string()], keep_recovery: Some(window), ..new }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_base_backup_is_forgotten_only_if_it_is_known_what_leads_to_each_timeline() {
    let world = World::new(1..=9).await;
    let first = world.back_up(3..=3).await;
    let second = world.back_up(5..=5).await;
    world.archive(LogFile::History(2), b"1\t0/400000\tback to before the second\n").await;
    world.archive(LogFile::Segment(name(2, 4)), b"log").await;
    let lost = plan_forget(&world.repo, &forgetting(first, Duration::ZERO)).await;
    assert!(
        matches!(lost, Err(Error::Base(BaseError::Shortened { snapshot, .. })) if snapshot == first),
        "{lost:?}"
    );
    let (_, unlock) = add_key(&world.repo, Role::Maintainer, Authority::Maintainer).await;
    let blind = Repository::open(world.repo.store().clone(), world.base.env(), &unlock).await.unwrap();
    let unknown = plan_forget(&blind, &forgetting(second, Duration::ZERO)).await;
    assert!(matches!(unknown, Err(Error::Base(BaseError::Unclear { .. }))), "{unknown:?}");
    let all_the_same = ForgetOptions { allow_shorter: true, ..forgetting(second, Duration::ZERO) };
    assert!(plan_forget(&blind, &all_the_same).await.is_ok());
}

/// The history of a timeline that nobody understands: it is not known what the base backups of that cluster lead to.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_archive_stops_the_forgetting_of_its_own_base_backups_alone() {
    let world = World::new(1..=9).await;
    world.back_up(3..=3).await;
    let own = world.back_up(5..=5).await;
    let named = Cluster { name: "damaged".into(), ..world.cluster.cluster.clone() };
    let cluster = world.repo.put_cluster(0, &named).await.unwrap();
    let file = LogFile::History(2);
    testing::put_log(&world.repo, (&cluster, 1), file, b"nobody wrote this").await;
    let mut bases = Vec::new();
    for number in [4, 5] {
        let log = number * u64::from(SIZE) + 40..number * u64::from(SIZE) + 400;
        let base = PostgresBackup::sample(cluster.id, SIZE, 1, log);
        bases.push(put_snapshot(&world.repo, number, |snapshot| snapshot.postgres = Some(base)).await);
    }
    let window = Duration::from_secs(3600);
    for dry_run in [false, true] {
        let other = ForgetOptions { dry_run, keep_recovery: None, ..forgetting(own, window) };
        assert_eq!(plan_forget(&world.repo, &other).await.unwrap().dropped().count(), 1);
        let damaged = ForgetOptions { dry_run, ..forgetting(bases[0], window) };
        let refused = plan_forget(&world.repo, &damaged).await;
        assert!(matches!(refused, Err(Error::Log(LogError::History { .. }))), "{refused:?}");
        let allowed = ForgetOptions { allow_shorter: true, ..damaged };
        let plan = plan_forget(&world.repo, &allowed).await.unwrap();
        assert_eq!((plan.dropped().count(), plan.recovery.len()), (1, usize::from(dry_run)), "of the others");
    }
    // Somebody looks, and nothing goes.
    let keep = Policy::new().keep(Every::Snapshot, Limit::Count(9));
    let all = ForgetOptions { policy: keep, dry_run: true, ..ForgetOptions::new(jiff::tz::TimeZone::UTC) };
    assert_eq!(plan_forget(&world.repo, &all).await.unwrap().dropped().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_base_backup_of_who_may_not_archive_stands_in_for_no_other() {
    let world = World::new(1..=9).await;
    let (_, unlock) = add_key(&world.repo, Role::Writer, Authority::Writer).await;
    let other = Repository::open(world.repo.store().clone(), world.base.env(), &unlock).await.unwrap();
    world.back_up_as(&other, 0, 2..=2).await;
    let own = world.back_up(3..=3).await;
    let lost = plan_forget(&world.repo, &forgetting(own, Duration::from_secs(3600))).await;
    assert!(
        matches!(lost, Err(Error::Base(BaseError::Shortened { snapshot, .. })) if snapshot == own),
        "{lost:?}"
    );
}

/// In a store that keeps versions: what somebody hid is given up only if it was meant to go.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_hidden_is_given_up_only_if_nothing_needs_it() {
    let world = World::new(1..=9).await;
    world.back_up(6..=6).await;
    let options = NOW;
    world.prune(&options).await;
    let now = world.repo.env().clock.now();
    let run = Run { repo: &world.repo, options: &options, now, accepted: HashSet::new() };
    let judged = run.collect(&mut super::super::PruneReport::default()).await.unwrap();
    let listed = world.repo.list_logs(layout::STREAMS).await.unwrap();
    let named = |number| LogName { file: LogFile::Segment(name(1, number)), ..listed[0].name };
    let gone: Vec<u64> = (1..=9).filter(|number| judged.may_go(&named(*number))).collect();
    assert_eq!(gone, [1, 2, 3, 4, 5], "not what a base backup needs, nor what came later");
    assert!(!judged.may_go(&LogName { history: 2, ..named(1) }));
    assert!(!judged.may_go(&LogName { file: LogFile::History(2), ..named(1) }));
}
