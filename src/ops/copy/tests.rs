//! Copies between two repositories with keys of their own, over stores in memory.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use object_store::ObjectStore;

use super::*;
use crate::class::Class;
use crate::format::content::Content;
use crate::format::envelope::ChunkKind;
use crate::format::node::{Node, NodeKind, Problem};
use crate::format::snapshot::{Origin, Snapshot};
use crate::id::SnapshotId;
use crate::ops::gc::prune;
use crate::ops::testing::{
    NOW, World, add_objects, back_up, contents, copy_objects, forget, noise, restored, store_over,
};
use crate::ops::tree::testing::Forge;
use crate::ops::verify::{Depth, verify};
use crate::store::fault::{Failure, Fault, FaultStore, Op, OpKind};

/// A source with files, and an empty target.
struct Two {
    from: World,
    to: World,
    source: Repository,
    target: Repository,
}

impl Two {
    async fn new() -> Self {
        let (from, to) = (World::new(), World::new());
        for (name, seed, len) in [("small", 1, 1_000), ("medium", 2, 300_000), ("large", 3, 3_000_000)] {
            from.write(name, &noise(seed, len));
        }
        fs::create_dir(from.source().join("dir")).unwrap();
        for n in 0..50 {
            from.write(&format!("dir/{n}"), &noise(100 + n, 2_000));
        }
        let (source, target) = (from.repository().await, to.repository().await);
        Self { from, to, source, target }
    }

    async fn back_up(&self) -> SnapshotId {
        // What was written a moment ago is looked at again by the next run.
        tokio::time::sleep(std::time::Duration::from_millis(80)).await;
        back_up(&self.source, &self.from.source()).await
    }

    async fn copy(&self, options: CopyOptions) -> Vec<Outcome> {
        copied(&self.source, &self.target, options).await
    }

    async fn has(&self, id: SnapshotId) -> BTreeMap<PathBuf, Vec<u8>> {
        restored(&self.target, id, &self.from.source()).await
    }
}

async fn copied(from: &Repository, to: &Repository, options: CopyOptions) -> Vec<Outcome> {
    let mut copy = Copy::plan(from, to, options).await.unwrap();
    let mut outcomes = Vec::new();
    while let Some((_, outcome)) = copy.next().await.unwrap() {
        outcomes.push(outcome);
    }
    outcomes
}

fn mirror() -> CopyOptions {
    CopyOptions { mirror: true, ..CopyOptions::new() }
}

#[track_caller]
fn done(outcome: Outcome) -> Brought {
    match outcome {
        Outcome::Copied(done) => done,
        other => panic!("{other:?}"),
    }
}

async fn is_sound(repo: &Repository) {
    let report = verify(repo, Depth::Data).await.unwrap();
    assert!(report.findings.is_empty(), "{:?}", report.findings);
}

async fn names(repo: &Repository) -> Vec<String> {
    let listed = repo.store().list("").await.unwrap();
    listed.iter().map(|object| object.key.as_str().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_is_copied_in_order_and_only_what_changed_is_read() {
    let two = Two::new().await;
    let mut states = Vec::new();
    let mut ids = Vec::new();
    for n in 0..3 {
        two.from.write("dir/changing", &noise(1_000 + n, 5_000));
        ids.push(two.back_up().await);
        states.push(contents(&two.from.source()));
    }
    let outcomes = two.copy(CopyOptions::new()).await;
    let all: Vec<_> = outcomes.into_iter().map(done).collect();
    assert_eq!(all.len(), 3);
    assert_eq!(all[0].bytes_read, 1_000 + 300_000 + 3_000_000 + 50 * 2_000 + 5_000);
    assert_eq!([all[1].bytes_read, all[2].bytes_read], [5_000; 2], "only the changed file is read");
    for (copy, state) in all.iter().zip(&states) {
        assert_eq!(two.has(copy.snapshot).await, *state);
        assert_eq!(copy.missing, 0);
    }
    let originals = list(&two.source, &SnapshotFilter::default()).await.unwrap().snapshots;
    let copies = list(&two.target, &SnapshotFilter::default()).await.unwrap().snapshots;
    for (original, copy) in originals.iter().zip(&copies) {
        let origin = copy.origin().unwrap();
        assert_eq!(origin.repository, two.source.id().as_bytes());
        assert_eq!(origin.snapshot, original.id.as_bytes());
        assert_eq!(origin.time, original.stored.0);
        assert_eq!((copy.counted(), copy.confirmed), (original.stored, true));
        let (a, b) = (&original.snapshot, &copy.snapshot);
        assert_eq!(
            (&a.host, &a.job, &a.paths, a.time, a.totals),
            (&b.host, &b.job, &b.paths, b.time, b.totals)
        );
    }
    is_sound(&two.target).await;

    // Again, by a process that knows nothing of the first: nothing is stored.
    let before = names(&two.target).await;
    let again = two.copy(CopyOptions::new()).await;
    for (outcome, copy) in again.iter().zip(&all) {
        assert_eq!(*outcome, Outcome::Left(Verdict::There { copy: copy.snapshot, missing: 0 }));
    }
    assert_eq!(names(&two.target).await, before);

    // The next one is compared with the copy of the one before.
    two.from.write("new", &noise(9, 7_000));
    two.back_up().await;
    let next = two.copy(mirror()).await;
    let next = done(*next.last().unwrap());
    assert_eq!(next.bytes_read, 7_000);
    assert_eq!(two.has(next.snapshot).await, contents(&two.from.source()));
    // A state directory that is lost costs no reading either.
    let elsewhere = two.target.with_env(two.to.env_at("elsewhere"));
    two.from.write("new", &noise(10, 8_000));
    two.back_up().await;
    let last = copied(&two.source, &elsewhere, mirror()).await;
    assert_eq!(done(*last.last().unwrap()).bytes_read, 8_000);
    is_sound(&two.target).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_copied_on_keeps_its_origin_and_does_not_come_back() {
    let two = Two::new().await;
    let first = two.back_up().await;
    let second = done(two.copy(CopyOptions::new()).await[0]);
    let third = World::new().repository().await;
    let on = copied(&two.target, &third, CopyOptions::new()).await;
    let found = list(&third, &SnapshotFilter::default()).await.unwrap().snapshots;
    assert_eq!(found[0].origin().unwrap().snapshot, first.as_bytes(), "the first origin");
    assert_eq!(
        restored(&third, done(on[0]).snapshot, &two.from.source()).await,
        contents(&two.from.source())
    );
    let there = Outcome::Left(Verdict::There { copy: done(on[0]).snapshot, missing: 0 });
    assert_eq!(copied(&two.source, &third, CopyOptions::new()).await, [there]);
    let home = Outcome::Left(Verdict::There { copy: first, missing: 0 });
    assert_eq!(copied(&third, &two.source, CopyOptions::new()).await, [home]);
    assert_ne!(second.snapshot, first);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_is_not_copied_to_itself_and_not_by_a_mere_writer() {
    let two = Two::new().await;
    two.back_up().await;
    let itself = Copy::plan(&two.source, &two.source.clone(), CopyOptions::new()).await.err().unwrap();
    assert_eq!(itself.class(), Class::Usage, "{itself}");
    let plain = two.target.as_plain_writer();
    let mut copy = Copy::plan(&two.source, &plain, CopyOptions::new()).await.unwrap();
    assert_eq!(copy.next().await.unwrap_err().class(), Class::Denied);
    let missing = CopyOptions { named: vec!["beef".into()], ..CopyOptions::new() };
    assert!(matches!(Copy::plan(&two.source, &two.target, missing).await, Err(Error::NoSnapshot { .. })));
    assert!(list(&two.target, &SnapshotFilter::default()).await.unwrap().snapshots.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_in_the_source_costs_the_entries_that_need_it_until_it_is_mended() {
    let two = Two::new().await;
    two.back_up().await;
    let whole = copy_objects(&two.from.objects).await;
    let index = two.source.load_index().await.unwrap();
    let data = index.view.packs().map(Result::unwrap).find(|(_, row)| row.kind == ChunkKind::Data).unwrap().1;
    crate::ops::tree::testing::flip(&two.from.objects, data.id, 40).await;
    let partial = done(two.copy(CopyOptions::new()).await[0]);
    assert!(partial.missing > 0 && partial.missing < 53, "{}", partial.missing);
    let (have, all) = (two.has(partial.snapshot).await, contents(&two.from.source()));
    assert_eq!(have.len() as u64, all.len() as u64 - partial.missing);
    assert!(have.iter().all(|(name, content)| all[name] == *content));
    let left = Outcome::Left(Verdict::There { copy: partial.snapshot, missing: partial.missing });
    assert_eq!(two.copy(mirror()).await, [left]);
    is_sound(&two.target).await;

    // Mended, it is copied again if that is wanted, and then it is whole.
    crate::ops::tree::testing::remove(&two.from.objects, data.id).await;
    add_objects(&whole, &two.from.objects).await;
    let mended = done(two.copy(CopyOptions { again: true, ..mirror() }).await[0]);
    assert_eq!(mended.missing, 0);
    assert_eq!(two.has(mended.snapshot).await, all);
    let there = Outcome::Left(Verdict::There { copy: mended.snapshot, missing: 0 });
    assert_eq!(two.copy(CopyOptions { again: true, ..CopyOptions::new() }).await, [there]);
}

/// Stores a tree made by hand as a confirmed snapshot.
async fn forged(repo: &Repository, make: impl FnOnce(&mut Forge<'_>) -> Vec<Node>) -> SnapshotId {
    let mut forge = Forge::new(repo);
    let nodes = make(&mut forge);
    let root = forge.page(&nodes);
    forge.store(root, 1).await;
    crate::ops::testing::put_snapshot(repo, 0, |snapshot| snapshot.root = Some(root)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_source_cannot_make_the_target_hold_what_no_backup_writes() {
    let two = Two::new().await;
    forged(&two.source, |forge| {
        let mut nodes = vec![forge.file("..", &[b"escape"]), forge.file("a/b", &[b"slash"])];
        let mut long = forge.file("b-long", &[b"12345"]);
        long.size = 4;
        let mut short = forge.file("c-short", &[b"12345"]);
        short.size = 6_000_000_000;
        let mut hole = forge.file("d-hole", &[b"12345"]);
        hole.holes = vec![(3, 10)];
        // An entry without content of its own that names chunks all the same.
        let mut link = Node::new(b"e-link".to_vec(), NodeKind::Symlink);
        (link.target, link.content) = (b"x".to_vec(), Content::Inline(vec![forge.row(b"12345")]));
        let mut unreadable = forge.file("f-unreadable", &[b"12345"]);
        unreadable.problem = Some(Problem::Unreadable);
        let lost = forge.file("g-good", &[b"good"]);
        let evil = [forge.file("inner", &[b"x"])];
        let evil = forge.dir("h/../x", &evil);
        let dir = [forge.file("z", &[b"z"]), forge.file("a", &[b"out of order"])];
        let dir = forge.dir("i-dir", &dir);
        nodes.extend([long, short, hole, link, unreadable, lost, evil, dir]);
        nodes
    })
    .await;
    let copy = done(two.copy(CopyOptions::new()).await[0]);
    // Two names, two lengths, a hole, a directory, and an order.
    assert_eq!(copy.missing, 7);
    let found = restored(&two.target, copy.snapshot, Path::new("/")).await;
    let names: Vec<_> = found.keys().map(|path| path.display().to_string()).collect();
    assert_eq!(names, ["g-good", "i-dir/z"]);
    is_sound(&two.target).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_whose_root_is_lost_becomes_no_empty_copy() {
    let two = Two::new().await;
    let mut forge = Forge::new(&two.source);
    let nodes = [forge.file("a", &[b"1"])];
    let root = forge.page(&nodes);
    crate::ops::testing::put_snapshot(&two.source, 0, |snapshot| snapshot.root = Some(root)).await;
    assert_eq!(two.copy(mirror()).await, [Outcome::Unreadable]);
    let there = list(&two.target, &SnapshotFilter::default()).await.unwrap().snapshots;
    assert!(there.is_empty(), "{there:?}");
    // Mended, it is copied.
    forge.store(root, 1).await;
    assert_eq!(done(two.copy(mirror()).await[0]).missing, 0);
    is_sound(&two.target).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_goes_forward_under_its_own_retention() {
    let two = Two::new().await;
    let first = two.back_up().await;
    let copy = done(two.copy(mirror()).await[0]);
    let last = two.back_up().await;
    two.copy(mirror()).await;
    // Forgotten and removed there, it does not come back.
    forget(&two.target, copy.snapshot).await;
    prune(&two.target, &NOW).await.unwrap();
    let verdicts = two.copy(mirror()).await;
    assert_eq!(verdicts[0], Outcome::Left(Verdict::Older));
    assert!(matches!(verdicts[1], Outcome::Left(Verdict::There { .. })));
    // Unless it is wanted.
    let named = CopyOptions { named: vec![first.to_string()], ..CopyOptions::new() };
    assert_eq!(done(two.copy(named).await[0]).missing, 0);
    // What the source forgot is left out.
    forget(&two.source, last).await;
    let newest = two.back_up().await;
    forget(&two.source, newest).await;
    assert!(two.copy(mirror()).await.iter().all(|outcome| matches!(outcome, Outcome::Left(_))));
    is_sound(&two.target).await;
}

/// The source as it is read through a store that does `strike` before its second request for a part of a pack: how many a copy
/// needs is chance, but tree and content take one each.
fn struck(two: &Two, strike: impl Fn() + Send + Sync + 'static) -> Repository {
    let count = std::sync::atomic::AtomicU64::new(0);
    let plan = move |op: &Op| {
        if op.kind == OpKind::GetRange && count.fetch_add(1, Ordering::SeqCst) == 1 {
            strike();
        }
        Fault::None
    };
    let inner = Arc::clone(&two.from.objects) as Arc<dyn ObjectStore>;
    two.source.with_store(store_over(Arc::new(FaultStore::new(inner, plan))))
}

fn on_a_thread<F: Future>(future: impl FnOnce() -> F + Send) {
    let run = || drop(tokio::runtime::Runtime::new().unwrap().block_on(future()));
    std::thread::scope(|scope| scope.spawn(run).join().unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_forgotten_or_removed_while_it_is_copied_is_no_damage() {
    let two = Two::new().await;
    let id = two.back_up().await;
    let source = two.source.clone();
    let tomb = struck(&two, move || on_a_thread(|| forget(&source, id)));
    assert_eq!(copied(&tomb, &two.target, mirror()).await, [Outcome::Gone]);
    assert!(list(&two.target, &SnapshotFilter::default()).await.unwrap().snapshots.is_empty());
    // It is still there, so whoever names it has it.
    let named = || CopyOptions { named: vec![id.to_string()], ..CopyOptions::new() };
    let source = two.source.clone();
    let gone = struck(&two, move || on_a_thread(|| async { prune(&source, &NOW).await.unwrap() }));
    assert_eq!(copied(&gone, &two.target, named()).await, [Outcome::Gone]);
    is_sound(&two.target).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_in_the_target_takes_nothing_from_a_copy() {
    let two = Two::new().await;
    two.from.write("dir/changing", &noise(1_000, 5_000));
    two.back_up().await;
    two.from.write("dir/changing", &noise(1_001, 5_000));
    fs::remove_file(two.from.source().join("medium")).unwrap();
    two.back_up().await;
    two.from.write("back", &noise(2, 300_000));
    two.back_up().await;
    let state = contents(&two.from.source());
    let mut struck_last = 0;
    for stop in (0..).step_by(3) {
        let prepared = World::new();
        let target = prepared.repository().await;
        // The first is copied and forgotten, so that half of a pack is dead.
        let mut copy = Copy::plan(&two.source, &target, CopyOptions::new()).await.unwrap();
        let (_, first) = copy.next().await.unwrap().unwrap();
        copy.next().await.unwrap();
        drop(copy);
        forget(&target, done(first).snapshot).await;
        let collector = target.with_env(prepared.env_at("elsewhere"));
        let once = Arc::new(AtomicBool::new(false));
        let plan = {
            let once = Arc::clone(&once);
            move |op: &Op| {
                if op.number == stop && !once.swap(true, Ordering::SeqCst) {
                    on_a_thread(|| async { prune(&collector, &NOW).await.unwrap() });
                }
                Fault::None
            }
        };
        let inner = Arc::clone(&prepared.objects) as Arc<dyn ObjectStore>;
        let watched = target.with_store(store_over(Arc::new(FaultStore::new(inner, plan))));
        let outcomes = copied(&two.source, &watched, mirror()).await;
        let last = done(*outcomes.last().unwrap());
        prune(&target, &NOW).await.unwrap();
        assert_eq!(restored(&target, last.snapshot, &two.from.source()).await, state, "request {stop}");
        assert!(!verify(&target, Depth::Data).await.unwrap().has_damage(), "request {stop}");
        if !once.load(Ordering::SeqCst) {
            break;
        }
        struck_last = stop;
    }
    assert!(struck_last > 10, "{struck_last}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_died_goes_on_and_stores_nothing_twice() {
    let two = Two::new().await;
    for n in 0..12 {
        two.from.write(&format!("big{n:02}"), &noise(500 + n, 5_000_000));
    }
    two.back_up().await;
    let inner = Arc::clone(&two.to.objects) as Arc<dyn ObjectStore>;
    let packs = std::sync::atomic::AtomicU64::new(0);
    let dies = move |op: &Op| {
        let pack = op.kind == OpKind::Put && op.key.starts_with("packs/");
        if pack && packs.fetch_add(1, Ordering::SeqCst) == 2 { Fault::StopAfter } else { Fault::None }
    };
    let dying = two.target.with_store(store_over(Arc::new(FaultStore::new(inner, dies))));
    let mut copy = Copy::plan(&two.source, &dying, CopyOptions::new()).await.unwrap();
    copy.next().await.unwrap_err();
    drop(copy);
    let stored: u64 = two.target.store().list("packs/").await.unwrap().iter().map(|object| object.size).sum();
    assert!(stored >= 2 * (16 << 20), "{stored}");
    let done = done(two.copy(CopyOptions::new()).await[0]);
    assert!(done.resumed_bytes >= 2 * (15 << 20), "{}", done.resumed_bytes);
    let all = 12 * 5_000_000 + 3_401_000;
    assert!(
        done.new_bytes + done.resumed_bytes < all + (all >> 4),
        "{} {}",
        done.new_bytes,
        done.resumed_bytes
    );
    assert_eq!(two.has(done.snapshot).await, contents(&two.from.source()));
    is_sound(&two.target).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_does_not_answer_ends_the_copy_with_its_own_error() {
    let two = Two::new().await;
    two.back_up().await;
    let reads = std::sync::atomic::AtomicU64::new(0);
    let silent = move |op: &Op| match op.kind {
        OpKind::GetRange if reads.fetch_add(1, Ordering::SeqCst) >= 1 => Fault::Before(Failure::Unreachable),
        _ => Fault::None,
    };
    let inner = Arc::clone(&two.from.objects) as Arc<dyn ObjectStore>;
    let source = two.source.with_store(store_over(Arc::new(FaultStore::new(inner, silent))));
    let mut copy = Copy::plan(&source, &two.target, CopyOptions::new()).await.unwrap();
    assert_eq!(copy.next().await.unwrap_err().class(), Class::Unreachable);
    assert!(list(&two.target, &SnapshotFilter::default()).await.unwrap().snapshots.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unconfirmed_snapshot_is_left_and_a_forged_origin_hides_nothing() {
    let two = Two::new().await;
    let id = two.back_up().await;
    let open =
        two.source.put_snapshot(7, &Snapshot::empty(), &two.source.new_run_keys().unwrap()).await.unwrap();
    let named = CopyOptions { named: vec![open.to_string()], ..CopyOptions::new() };
    assert_eq!(two.copy(named).await, [Outcome::Left(Verdict::NotConfirmed)]);
    // Somebody who may only write claims to have brought it.
    let origin = Origin {
        kind: Origin::COPY.into(),
        repository: two.source.id().as_bytes().to_vec(),
        snapshot: id.as_bytes().to_vec(),
        time: i64::MAX,
        missing: 0,
    };
    crate::ops::testing::put_snapshot(&two.target, 0, |snapshot| snapshot.origin = Some(origin)).await;
    let there = Copy::plan(&two.source, &two.target, mirror()).await.unwrap();
    assert!(
        matches!(there.planned().next().unwrap().verdict, Verdict::There { .. }),
        "a maintainer is believed"
    );
    let plain = Copy::plan(&two.source, &two.target.as_plain_writer(), mirror()).await.map(|copy| {
        let verdicts: Vec<_> = copy.planned().map(|planned| planned.verdict).collect();
        verdicts
    });
    assert_eq!(plain.unwrap(), [Verdict::Copy]);
}
