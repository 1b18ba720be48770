//! Timelines of trees made by hand, held against a naive account of them; and what they cost.

use std::sync::Arc;

use object_store::memory::InMemory;
use proptest::prelude::*;

use super::*;
use crate::filter::FilterBuilder;
use crate::format::tree::TreeRef;
use crate::id::ChunkId;
use crate::ops::diff::tests::{Made, build, flat, run, snapshot, trees_of};
use crate::ops::testing::{World, back_up, env, new_repository, store_over};
use crate::ops::tree::testing::Forge;
use crate::store::fault::{FaultStore, OpKind};

/// Path, first, last, count, then.
type Line = (String, i64, i64, u64, Then);

fn names(patterns: &[&str]) -> Filter {
    let mut builder = FilterBuilder::new();
    for pattern in patterns {
        builder.include(pattern.as_bytes(), false).unwrap();
    }
    builder.build().unwrap()
}

async fn lines(repo: &Repository, options: FindOptions, most: usize) -> (Vec<Line>, FindSummary) {
    let mut out = Vec::new();
    let visit = |found: &Found<'_>| {
        let path = String::from_utf8_lossy(found.path).into_owned();
        out.push((path, found.first.stored.0, found.last.stored.0, found.count, found.then));
    };
    let summary = find_within(repo, options, Bounds { table: most, ahead: 0 }, visit).await.unwrap();
    (out, summary)
}

/// What makes a version: not the mode, and of a directory nothing.
fn shape(made: &Made) -> (u8, u8) {
    match made {
        Made::File(content, _) => (0, *content),
        Made::Link(target) => (1, *target),
        Made::Dir(_) => (2, 0),
    }
}

fn naive(sequence: &[BTreeMap<String, Made>], name: &str) -> Vec<Line> {
    let flat: Vec<_> = sequence.iter().map(flat).collect();
    let mut paths: Vec<_> = flat.iter().flat_map(BTreeMap::keys).collect();
    paths.sort();
    paths.dedup();
    let mut out = Vec::new();
    for path in paths.into_iter().filter(|path| path.last().is_some_and(|last| last.starts_with(name))) {
        let states: Vec<_> = flat.iter().map(|tree| tree.get(path).map(shape)).collect();
        let mut at = 0;
        while at < states.len() {
            let end = (at..states.len()).find(|next| states[*next] != states[at]).unwrap_or(states.len());
            if states[at].is_some() {
                let then = match states.get(end) {
                    None => Then::There,
                    Some(None) => Then::Vanished,
                    Some(Some(_)) => Then::Changed,
                };
                let path = format!("/{}", path.join("/"));
                out.push((path, at as i64, end as i64 - 1, (end - at) as u64, then));
            }
            at = end;
        }
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn it_tells_what_a_naive_account_tells_however_little_it_may_hold(
        first in trees_of(3),
        others in prop::collection::vec(prop::option::of(trees_of(2)), 1..5),
        edits in prop::collection::vec(("[a-d]{1,2}", prop::option::of((0_u8..3, 0_u8..2))), 4),
        every in prop::sample::select(vec![1_u8, 2, 255]),
        most in prop::sample::select(vec![0_usize, 3000, usize::MAX]),
        name in prop::sample::select(vec!["", "a", "bc"]),
    ) {
        let mut sequence = vec![first];
        for (other, (name, edit)) in others.into_iter().zip(edits) {
            let mut next = other.unwrap_or_else(|| sequence.last().unwrap().clone());
            match edit {
                Some((content, mode)) => drop(next.insert(name, Made::File(content, mode))),
                None => drop(next.remove(&name)),
            }
            sequence.push(next);
        }
        run(async {
            let world = World::new();
            let repo = world.repository().await;
            let mut forge = Forge::new(&repo);
            let roots: Vec<_> = sequence.iter().map(|tree| build(&mut forge, tree, every)).collect();
            if let Some(any) = roots.iter().flatten().next() {
                forge.store(*any, 1).await;
            }
            let snapshots = roots.iter().enumerate().map(|(at, root)| snapshot(*root, at as i64));
            // In any order.
            let snapshots = snapshots.rev().collect();
            let options = FindOptions { snapshots, names: names(&[&format!("{name}*")]), ..FindOptions::default() };
            let (found, summary) = lines(&repo, options, most).await;
            prop_assert_eq!(&found, &naive(&sequence, name));
            prop_assert_eq!((summary.versions, summary.damaged), (found.len() as u64, 0));
            Ok(())
        })?;
    }
}

#[tokio::test]
async fn many_snapshots_of_a_tree_that_changes_slowly_cost_little_more_than_one() {
    let objects = Arc::new(InMemory::new());
    let repo = new_repository(objects.clone(), env()).await;
    let mut forge = Forge::new(&repo);
    forge.a_segment = 1;
    let mut tree: BTreeMap<_, _> = (0..3000).map(|n| (format!("{n:05}"), Made::File(0, 0))).collect();
    let mut roots = Vec::new();
    for day in 0..40_u8 {
        tree.insert(format!("{:05}", u32::from(day) * 70), Made::File(day + 1, 0));
        let root = BTreeMap::from([("d".to_owned(), Made::Dir(tree.clone()))]);
        roots.push(build(&mut forge, &root, 40));
    }
    forge.store(roots[0].unwrap(), 1).await;
    let counting = FaultStore::recording(objects);
    let repo = repo.with_store(store_over(Arc::new(counting.clone())));
    let mut cost = Vec::new();
    for count in [1, roots.len()] {
        let snapshots =
            roots[..count].iter().enumerate().map(|(at, root)| snapshot(*root, at as i64)).collect();
        let options = FindOptions { snapshots, names: names(&["0007*"]), ..FindOptions::default() };
        let (found, _) = lines(&repo, options, usize::MAX).await;
        assert_eq!(found.len(), if count == 1 { 10 } else { 11 });
        let record = counting.take_record();
        cost.push(
            record.iter().filter(|op| op.kind == OpKind::GetRange && op.key.starts_with("packs/")).count(),
        );
    }
    // On the way to one change lie seven pages, new ones and old ones.
    assert!(cost[0] > 70 && cost[1] < cost[0] + 40 * 15, "{cost:?}");
    let snapshots = roots.iter().map(|root| snapshot(*root, 0)).collect();
    let elsewhere = FindOptions { snapshots, names: names(&["/e/x"]), ..FindOptions::default() };
    let (found, _) = lines(&repo, elsewhere, usize::MAX).await;
    let reads = counting.take_record().iter().filter(|op| op.kind == OpKind::GetRange).count();
    assert!(found.is_empty() && reads <= 41, "{reads}: only roots are read");
}

#[tokio::test]
async fn what_cannot_be_read_is_neither_there_nor_gone() {
    let world = World::new();
    let repo = world.repository().await;
    let mut forge = Forge::new(&repo);
    let page = |forge: &mut Forge<'_>, names: &[&str]| {
        let nodes: Vec<_> = names.iter().map(|name| forge.file(name, &[name.as_bytes()])).collect();
        forge.page(&nodes)
    };
    let (a, c, f) = (page(&mut forge, &["a"]), page(&mut forge, &["c", "d"]), page(&mut forge, &["f"]));
    let fewer = page(&mut forge, &["d"]);
    let lost = TreeRef { level: 0, id: ChunkId::new([7; 32]), len: 10 };
    let middles = [("c", c), ("c", lost), ("d", fewer)];
    let roots = middles.map(|middle| forge.pages(&[("a", a), middle, ("f", f)]));
    forge.store(roots[0], 1).await;
    let snapshots = roots.iter().enumerate().map(|(at, root)| snapshot(Some(*root), at as i64)).collect();
    let options = FindOptions { snapshots, names: names(&["*"]), ..FindOptions::default() };
    let (found, summary) = lines(&repo, options, usize::MAX).await;
    let line =
        |path: &str, first, last, then| (path.to_owned(), first, last, (last - first + 1) as u64, then);
    let expected = [
        line("/a", 0, 2, Then::There),
        line("/c", 0, 0, Then::Unknown),
        line("/d", 0, 0, Then::Unknown),
        line("/d", 2, 2, Then::There),
        line("/f", 0, 2, Then::There),
    ];
    assert_eq!(found, expected);
    assert_eq!(summary.damaged, 1);
}

#[tokio::test]
async fn sizes_times_kinds_and_metadata_narrow_what_is_found() {
    let world = World::new();
    let repo = world.repository().await;
    let at = |name: &str, seconds| {
        let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
        std::fs::File::options()
            .write(true)
            .open(world.source().join(name))
            .unwrap()
            .set_modified(time)
            .unwrap();
    };
    world.write("small", b"x");
    world.write("large", &[0; 5000]);
    at("small", 1000);
    at("large", 2000);
    std::fs::create_dir(world.source().join("dir")).unwrap();
    back_up(&repo, &world.source()).await;
    world.write("large", &[1; 50]);
    at("large", 3000);
    std::fs::remove_file(world.source().join("small")).unwrap();
    back_up(&repo, &world.source()).await;
    let snapshots = crate::ops::snapshots::list(&repo, &Default::default()).await.unwrap().snapshots;
    let find = async |edit: fn(&mut FindOptions)| -> Vec<(String, u64, Then)> {
        let below = format!("{}/*", world.source().display());
        let mut options =
            FindOptions { snapshots: snapshots.clone(), names: names(&[&below]), ..FindOptions::default() };
        edit(&mut options);
        let (found, _) = lines(&repo, options, usize::MAX).await;
        let name = |path: String| path.rsplit('/').next().unwrap().to_owned();
        found.into_iter().map(|(path, _, _, count, then)| (name(path), count, then)).collect()
    };
    let line = |name: &str, count, then| (name.to_owned(), count, then);
    let all = [
        line("dir", 2, Then::There),
        line("large", 1, Then::Changed),
        line("large", 1, Then::There),
        line("small", 1, Then::Vanished),
    ];
    assert_eq!(find(|_| {}).await, all);
    assert_eq!(find(|o| o.larger = Some(50)).await, all[1..2]);
    assert_eq!(find(|o| o.smaller = Some(51)).await, all[2..]);
    assert_eq!(find(|o| o.kinds = vec![NodeKind::Directory]).await, all[..1]);
    assert_eq!(find(|o| o.before = Some(Timestamp(2_000_000_000_000))).await, all[3..]);
    let young = find(|o| {
        o.not_before = Some(Timestamp(3_000_000_000_000));
        o.kinds = vec![NodeKind::File];
    });
    assert_eq!(young.await, all[2..3]);
}

#[tokio::test]
async fn each_job_of_each_machine_has_a_timeline_of_its_own() {
    let world = World::new();
    let repo = world.repository().await;
    let mut forge = Forge::new(&repo);
    let tree = |made: &[&str]| -> BTreeMap<String, Made> {
        made.iter().map(|name| ((*name).to_owned(), Made::File(1, 0))).collect()
    };
    let one = build(&mut forge, &tree(&["x"]), 1);
    let other = build(&mut forge, &tree(&["y"]), 1);
    forge.store(one.unwrap(), 1).await;
    let of = |root, moment, job: &str| {
        let mut info = snapshot(root, moment);
        info.snapshot.job = job.as_bytes().to_vec();
        info
    };
    let snapshots = vec![of(one, 0, "a"), of(other, 1, "b"), of(one, 2, "a"), of(other, 3, "b")];
    let options = FindOptions { snapshots, names: names(&["*"]), ..FindOptions::default() };
    let (found, _) = lines(&repo, options, usize::MAX).await;
    let expected = [("/x".to_owned(), 0, 2, 2, Then::There), ("/y".to_owned(), 1, 3, 2, Then::There)];
    assert_eq!(found, expected);
}
