//! Verifications that remember.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::class::Class;
use crate::format::envelope::ChunkKind;
use crate::format::ledger::Look;
use crate::ops::ledger::{Ledger, stored};
use crate::repo::NewlyVerified;
use crate::store::fault::Failure;

fn within(depth: Depth, bytes: u64) -> VerifyOptions {
    VerifyOptions { depth, budget: Some(Budget::Bytes(bytes)), record: true }
}

fn recorded(depth: Depth) -> VerifyOptions {
    VerifyOptions { record: true, ..VerifyOptions::all(depth) }
}

async fn records(repo: &Repository) -> usize {
    let mut problems = Vec::new();
    let records = repo.ledger(&mut problems).await.unwrap();
    assert!(problems.is_empty(), "{problems:?}");
    records.len()
}

/// Objects with content, and the bytes of all of them.
async fn content(world: &World) -> (usize, u64) {
    let all = stored(&world.repo).await.unwrap();
    (all.len(), all.iter().map(|stored| stored.size).sum())
}

#[tokio::test]
async fn each_run_goes_on_where_the_last_one_ended_until_all_is_verified() {
    let world = world().await;
    let (objects, bytes) = content(&world).await;
    assert!(objects > 2, "there is something to divide");
    let mut verified = 0;
    for run in 1..=objects {
        // One object a run.
        let report = verify_with(&world.repo, &within(Depth::Data, 1)).await.unwrap();
        assert_eq!(lines(&report), [""; 0]);
        let covered = report.coverage.unwrap();
        assert!(covered.coverage.verified > verified, "run {run}: {covered:?}");
        verified = covered.coverage.verified;
        assert_eq!((covered.coverage.bytes, covered.known), (bytes, 0));
        assert_eq!(covered.forecast.unwrap().runs as usize, objects);
        assert_eq!(covered.forecast.unwrap().within.is_some(), run > 1);
    }
    assert_eq!(verified, bytes, "nothing twice before everything once");
    // What was opened was read, too, but not the other way round.
    let report = verify_with(&world.repo, &within(Depth::Packs, 1)).await.unwrap();
    assert_eq!(report.coverage.unwrap().coverage.verified, bytes);
}

#[tokio::test]
async fn a_verification_of_everything_is_recorded_and_one_that_nobody_asked_to_record_is_not() {
    let world = world().await;
    for depth in [Depth::Structure, Depth::Packs, Depth::Data] {
        assert_eq!(verify(&world.repo, depth).await.unwrap().coverage, None);
    }
    assert_eq!(verify_with(&world.repo, &recorded(Depth::Structure)).await.unwrap().coverage, None);
    assert_eq!(records(&world.repo).await, 0);
    let covered = verify_with(&world.repo, &recorded(Depth::Packs)).await.unwrap().coverage.unwrap();
    let (objects, bytes) = content(&world).await;
    assert_eq!((covered.coverage.objects, covered.coverage.verified), (objects as u64, bytes));
    assert_eq!(covered.coverage.look, Look::Read);
    let ledger = Ledger::read(&world.repo).await.unwrap();
    assert_eq!(ledger.coverage(&stored(&world.repo).await.unwrap(), Look::Opened).verified, 0);
    assert_eq!(ledger.ends(Look::Read).map(|end| end.damages).collect::<Vec<_>>(), [0]);
}

#[tokio::test]
async fn what_is_damaged_takes_its_turn_and_is_told_of_in_every_run_until_it_is_good() {
    let world = world().await;
    let pack = world.packs(ChunkKind::Data).await.remove(0);
    let whole = world.get(&pack).await;
    world.flip(&pack, |len| len / 2).await;
    let objects = content(&world).await.0;
    let (mut named, mut told) = (0, 0);
    for run in 0..2 * objects {
        let report = verify_with(&world.repo, &within(Depth::Packs, 1)).await.unwrap();
        let found = report.findings.iter().filter(|finding| finding.key == pack.as_str()).count();
        let known = report.coverage.unwrap().known as usize;
        assert!(found + known <= 1, "run {run}: {report:?}");
        assert_eq!(report.has_damage(), found + known == 1);
        named += found;
        told += known;
        let ledger = Ledger::read(&world.repo).await.unwrap();
        assert_eq!(ledger.ends(Look::Read).last().unwrap().damages, (found + known) as u64);
    }
    assert_eq!((named, told > objects / 2), (2, true), "it is looked at as often as the others: {told}");
    world.put(&pack, whole).await;
    let mut report = verify_with(&world.repo, &within(Depth::Packs, 1)).await.unwrap();
    for _ in 0..objects {
        report = verify_with(&world.repo, &within(Depth::Packs, 1)).await.unwrap();
    }
    assert!(!report.has_damage(), "{report:?}");
    assert_eq!(report.coverage.unwrap().coverage.damaged, 0);
}

/// A time is over at once here: one object is looked at all the same, or nothing ever would be.
#[tokio::test]
async fn within_a_time_that_is_over_one_object_is_verified() {
    let world = world().await;
    let options = VerifyOptions { budget: Some(Budget::Time(Duration::ZERO)), ..recorded(Depth::Data) };
    let objects = content(&world).await.0;
    for run in 1..=objects {
        let covered = verify_with(&world.repo, &options).await.unwrap().coverage.unwrap();
        let all = covered.coverage.verified == covered.coverage.bytes;
        assert_eq!(all, run == objects, "run {run}: {covered:?}");
    }
}

#[tokio::test]
async fn what_was_looked_at_before_the_store_went_away_is_known() {
    let world = world().await;
    let lost = world.packs(ChunkKind::Tree).await.remove(0);
    let (reads, of_lost) = (AtomicUsize::new(0), lost.as_str().to_owned());
    let faults = FaultStore::new(world.objects.clone(), move |op| match op.kind {
        OpKind::Get if op.key == of_lost => Fault::Before(Failure::Unreachable),
        OpKind::Get if op.key.starts_with("packs/") => {
            reads.fetch_add(1, Ordering::Relaxed);
            Fault::None
        }
        _ => Fault::None,
    });
    let repo = world.repo.with_store(store_over(Arc::new(faults)));
    let error = verify_with(&repo, &recorded(Depth::Packs)).await.unwrap_err();
    assert_eq!(error.class(), Class::Unreachable);
    let ledger = Ledger::read(&world.repo).await.unwrap();
    let all = stored(&world.repo).await.unwrap();
    let name = ObjectName::parse(lost.as_str()).unwrap();
    assert_eq!(ledger.good(&name.content_hash().unwrap(), Look::Read), None);
    assert_eq!(ledger.ends(Look::Read).count(), 0, "it did not come to its end");
    assert_eq!(ledger.coverage(&all, Look::Read).damaged, 0, "nothing is known of it");
    let covered = verify_with(&world.repo, &recorded(Depth::Packs)).await.unwrap().coverage.unwrap();
    assert_eq!(covered.coverage.verified, covered.coverage.bytes);
}

#[tokio::test]
async fn what_is_refused_keeps_nothing_else_from_being_verified() {
    let world = world().await;
    let refused = world.packs(ChunkKind::Data).await.remove(0).as_str().to_owned();
    let size = stored(&world.repo).await.unwrap().iter().map(|stored| stored.size).max().unwrap();
    let faults = FaultStore::new(world.objects.clone(), move |op| match op.kind {
        OpKind::Get if op.key == refused => Fault::Before(Failure::Denied),
        _ => Fault::None,
    });
    let repo = world.repo.with_store(store_over(Arc::new(faults)));
    let (objects, bytes) = content(&world).await;
    let mut verified = 0;
    for _ in 0..objects {
        let report = verify_with(&repo, &within(Depth::Packs, 1)).await.unwrap();
        verified = report.coverage.unwrap().coverage.verified;
        assert_eq!(report.coverage.unwrap().coverage.damaged, 0, "nothing is known of its bytes");
    }
    assert_eq!(verified, bytes - size, "all but that one");
}

/// It is listed, and not to be had: whoever needs no tree of it must hear of it, too.
#[tokio::test]
async fn a_pack_that_is_listed_and_not_given_is_damage() {
    let world = world().await;
    let lost = world.packs(ChunkKind::Data).await.remove(0).as_str().to_owned();
    let key = lost.clone();
    let faults = FaultStore::new(world.objects.clone(), move |op| match op.kind {
        OpKind::Get if op.key == lost => Fault::Before(Failure::NotFound),
        _ => Fault::None,
    });
    let repo = world.repo.with_store(store_over(Arc::new(faults)));
    let report = verify(&repo, Depth::Packs).await.unwrap();
    let found: Vec<_> = report.findings.iter().filter(|finding| finding.key == key).collect();
    assert!(found.iter().any(|finding| finding.severity == Severity::Damage), "{report:?}");
}

/// Bytes that have the right hash, and do not open: what only reads them does not lift that.
#[tokio::test]
async fn a_lesser_look_lifts_no_damage() {
    let world = world().await;
    let all = stored(&world.repo).await.unwrap();
    let seen =
        NewlyVerified { damaged: vec![all[0].hash], ..NewlyVerified::new(world.repo.env().clock.now()) };
    world.repo.put_verified(Look::Opened, seen).await.unwrap();
    let report = verify_with(&world.repo, &recorded(Depth::Packs)).await.unwrap();
    assert_eq!((report.coverage.unwrap().known, report.has_damage()), (1, true));
    assert!(Ledger::read(&world.repo).await.unwrap().knows_damage());
    let report = verify_with(&world.repo, &recorded(Depth::Data)).await.unwrap();
    assert!(!report.has_damage() && !Ledger::read(&world.repo).await.unwrap().knows_damage());
}

#[tokio::test]
async fn a_record_that_cannot_be_had_is_passed_by() {
    let world = world().await;
    verify_with(&world.repo, &recorded(Depth::Data)).await.unwrap();
    for failure in [Failure::Denied, Failure::NotFound, Failure::Broken] {
        let faults = FaultStore::new(world.objects.clone(), move |op| match op.kind {
            OpKind::Get if op.key.starts_with("ledger/") => Fault::Before(failure),
            _ => Fault::None,
        });
        let repo = world.repo.with_store(store_over(Arc::new(faults)));
        assert_eq!(Ledger::read(&repo).await.unwrap().ends(Look::Read).count(), 0);
    }
}

#[tokio::test]
async fn a_store_that_takes_no_record_is_verified_all_the_same_but_not_within_a_budget() {
    let world = world().await;
    let faults = FaultStore::new(world.objects.clone(), |op| match op.kind {
        OpKind::Put if op.key.starts_with("ledger/") => Fault::Before(Failure::Denied),
        _ => Fault::None,
    });
    let repo = world.repo.with_store(store_over(Arc::new(faults)));
    let report = verify_with(&repo, &recorded(Depth::Data)).await.unwrap();
    assert_eq!((lines(&report).len(), report.coverage), (0, None));
    let error = verify_with(&repo, &within(Depth::Data, 1)).await.unwrap_err();
    assert_eq!(error.class(), Class::Denied);
    // What was found is told all the same.
    let pack = world.packs(ChunkKind::Data).await.remove(0);
    world.flip(&pack, |len| len / 2).await;
    assert!(verify_with(&repo, &within(Depth::Packs, u64::MAX)).await.unwrap().has_damage());
    assert_eq!(records(&world.repo).await, 0);
}
