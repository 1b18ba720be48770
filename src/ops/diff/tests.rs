//! Differences of trees made by hand, held against a naive comparison; and what they cost.

use std::collections::BTreeMap;
use std::sync::Arc;

use object_store::memory::InMemory;
use proptest::prelude::*;

use super::*;
use crate::format::tree::TreeRef;
use crate::id::ChunkId;
use crate::ops::testing::{World, new_repository, store_over};
use crate::ops::tree::testing::{Forge, snapshot_of};
use crate::store::fault::{FaultStore, OpKind};

/// What stands under a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::ops) enum Made {
    /// Content and mode.
    File(u8, u8),
    Link(u8),
    Dir(BTreeMap<String, Made>),
}

pub(in crate::ops) fn trees_of(depth: u32) -> impl Strategy<Value = BTreeMap<String, Made>> {
    let name = || "[a-d]{1,2}";
    let leaf = prop_oneof![
        4 => (0_u8..3, 0_u8..2).prop_map(|(content, mode)| Made::File(content, mode)),
        1 => (0_u8..2).prop_map(Made::Link),
    ];
    let made = leaf.prop_recursive(depth, 60, 10, move |inner| {
        prop::collection::btree_map(name(), inner, 0..10).prop_map(Made::Dir)
    });
    prop::collection::btree_map(name(), made, 0..12)
}

/// Stores a directory in pages that end after one name in `every`, so that nearly equal directories share pages.
pub(in crate::ops) fn build(
    forge: &mut Forge<'_>,
    tree: &BTreeMap<String, Made>,
    every: u8,
) -> Option<TreeRef> {
    let mut pages: Vec<(String, Vec<Node>)> = Vec::new();
    let mut ended = true;
    for (name, made) in tree {
        let node = match made {
            Made::File(content, mode) => {
                let mut node = forge.file(name, &[&[*content; 3][..]]);
                node.mode = u32::from(*mode);
                node
            }
            Made::Link(target) => {
                let mut node = Node::new(name.as_bytes().to_vec(), NodeKind::Symlink);
                node.target = vec![*target + 1];
                node
            }
            Made::Dir(below) => {
                let mut node = Node::new(name.as_bytes().to_vec(), NodeKind::Directory);
                node.tree = build(forge, below, every);
                node
            }
        };
        if std::mem::replace(&mut ended, blake3::hash(name.as_bytes()).as_bytes()[0].is_multiple_of(every)) {
            pages.push((name.clone(), Vec::new()));
        }
        pages.last_mut().unwrap().1.push(node);
    }
    let mut level: Vec<(String, TreeRef)> =
        pages.into_iter().map(|(first, nodes)| (first, forge.page(&nodes))).collect();
    while level.len() > 1 {
        let groups: Vec<_> = level.chunks(3).collect();
        let above = groups.iter().map(|group| {
            let below: Vec<_> = group.iter().map(|(first, tree)| (first.as_str(), *tree)).collect();
            (below[0].0.to_owned(), forge.pages(&below))
        });
        level = above.collect();
    }
    level.pop().map(|(_, tree)| tree)
}

/// Every path and what stands there, in the order of a walk.
pub(in crate::ops) fn flat(tree: &BTreeMap<String, Made>) -> BTreeMap<Vec<String>, Made> {
    let mut out = BTreeMap::new();
    for (name, made) in tree {
        out.insert(vec![name.clone()], made.clone());
        if let Made::Dir(below) = made {
            for (mut path, made) in flat(below) {
                path.insert(0, name.clone());
                out.insert(path, made);
            }
        }
    }
    out
}

fn naive(old: &BTreeMap<String, Made>, new: &BTreeMap<String, Made>) -> Vec<(String, Change)> {
    let (old, new) = (flat(old), flat(new));
    let mut paths: Vec<_> = old.keys().chain(new.keys()).collect();
    paths.sort();
    paths.dedup();
    let change = |path: &Vec<String>| match (old.get(path), new.get(path)) {
        (None, _) => Some(Change::Added),
        (_, None) => Some(Change::Removed),
        (Some(Made::File(a, b)), Some(Made::File(c, d))) => match (a == c, b == d) {
            (false, _) => Some(Change::Content),
            (true, false) => Some(Change::Metadata),
            (true, true) => None,
        },
        (Some(Made::Link(a)), Some(Made::Link(b))) => (a != b).then_some(Change::Content),
        (Some(Made::Dir(_)), Some(Made::Dir(_))) => None,
        _ => Some(Change::Kind),
    };
    paths.into_iter().filter_map(|path| Some((format!("/{}", path.join("/")), change(path)?))).collect()
}

pub(in crate::ops) fn run<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// A snapshot of this root, as of a moment.
pub(in crate::ops) fn snapshot(root: Option<TreeRef>, moment: i64) -> SnapshotInfo {
    let any = TreeRef { level: 0, id: ChunkId::new([0; 32]), len: 0 };
    let mut info = snapshot_of(root.unwrap_or(any));
    info.snapshot.root = root;
    info.stored = crate::clock::Timestamp(moment);
    info
}

fn sides(old: Option<TreeRef>, new: Option<TreeRef>, path: &str) -> DiffOptions {
    let side = |root| DiffSide { snapshot: snapshot(root, 0), path: path.as_bytes().to_vec() };
    DiffOptions { old: side(old), new: side(new) }
}

async fn changes(repo: &Repository, options: DiffOptions) -> (Vec<(String, Change)>, DiffSummary) {
    let mut out = Vec::new();
    let visit = |difference: &Difference<'_>| {
        out.push((String::from_utf8_lossy(difference.path).into_owned(), difference.change));
    };
    let summary = diff_ahead(repo, options, 0, visit).await.unwrap();
    (out, summary)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn it_finds_what_a_naive_comparison_finds(
        old in trees_of(3),
        other in trees_of(3),
        edits in prop::collection::btree_map("[a-d]{1,2}", prop::option::of((0_u8..3, 0_u8..2)), 0..4),
        (related, every) in (any::<bool>(), prop::sample::select(vec![1_u8, 2, 3, 255])),
    ) {
        let mut new = if related { old.clone() } else { other };
        for (name, edit) in edits {
            match edit {
                Some((content, mode)) => drop(new.insert(name, Made::File(content, mode))),
                None => drop(new.remove(&name)),
            }
        }
        run(async {
            let world = World::new();
            let repo = world.repository().await;
            let mut forge = Forge::new(&repo);
            let roots = (build(&mut forge, &old, every), build(&mut forge, &new, every));
            if let Some(any) = roots.0.or(roots.1) {
                forge.store(any, 1).await;
            }
            let (found, summary) = changes(&repo, sides(roots.0, roots.1, "")).await;
            let expected = naive(&old, &new);
            prop_assert_eq!(&found, &expected);
            prop_assert_eq!((summary.damaged, summary.unknown), (0, 0));
            prop_assert_eq!(summary.is_empty(), expected.is_empty());
            let counts = [summary.files, summary.directories, summary.others];
            let all: u64 = counts.iter().map(|count| count.added + count.removed + count.changed).sum();
            prop_assert_eq!(all + summary.kinds + summary.metadata, expected.len() as u64);
            Ok(())
        })?;
    }
}

/// A directory of many entries, the same but for what `edit` does.
fn large(edit: impl FnOnce(&mut BTreeMap<String, Made>)) -> BTreeMap<String, Made> {
    let mut tree: BTreeMap<_, _> = (0..4000).map(|n| (format!("{n:05}"), Made::File(0, 0))).collect();
    edit(&mut tree);
    BTreeMap::from([("dir".to_owned(), Made::Dir(tree)), ("same".to_owned(), Made::Dir(large_same()))])
}

fn large_same() -> BTreeMap<String, Made> {
    (0..1000).map(|n| (format!("s{n:05}"), Made::File(1, 0))).collect()
}

#[tokio::test]
async fn equal_trees_and_equal_pages_are_not_read() {
    let objects = Arc::new(InMemory::new());
    let repo = new_repository(objects.clone(), crate::ops::testing::env()).await;
    let mut forge = Forge::new(&repo);
    forge.a_segment = 1;
    let old = build(&mut forge, &large(|_| {}), 40);
    let new = build(
        &mut forge,
        &large(|tree| {
            tree.insert("02000".to_owned(), Made::File(2, 0));
            tree.insert("03000x".to_owned(), Made::File(2, 0));
        }),
        40,
    );
    forge.store(old.unwrap(), 1).await;
    let counting = FaultStore::recording(objects);
    let repo = repo.with_store(store_over(Arc::new(counting.clone())));
    let reads = |counting: &FaultStore| {
        counting
            .take_record()
            .iter()
            .filter(|op| op.kind == OpKind::GetRange && op.key.starts_with("packs/"))
            .count()
    };
    let (all, _) = changes(&repo, sides(None, old, "")).await;
    assert_eq!(all.len(), 5002);
    let whole = reads(&counting);
    let (found, summary) = changes(&repo, sides(old, new, "/dir")).await;
    let expected = [("/dir/02000".to_owned(), Change::Content), ("/dir/03000x".to_owned(), Change::Added)];
    assert_eq!(found, expected);
    assert_eq!((summary.bytes_added, summary.bytes_removed), (3, 0));
    let few = reads(&counting);
    assert!(whole > 100 && few < 30, "{few} of {whole} requests");
    let (none, _) = changes(&repo, sides(new, new, "")).await;
    assert_eq!((none.len(), reads(&counting)), (0, 0), "nothing at all is read");
}

#[tokio::test]
async fn what_stands_where_a_page_is_lost_is_unknown_and_not_gone() {
    let world = World::new();
    let repo = world.repository().await;
    let mut forge = Forge::new(&repo);
    let files = |forge: &mut Forge<'_>, names: &[&str], byte: u8| -> Vec<Node> {
        names.iter().map(|name| forge.file(name, &[&[byte; 4][..]])).collect()
    };
    let first = files(&mut forge, &["a", "b"], 1);
    let middle = files(&mut forge, &["c", "d", "e"], 1);
    let last = files(&mut forge, &["f", "g"], 1);
    let changed = files(&mut forge, &["f", "h"], 2);
    let [first, middle, last, changed] = [first, middle, last, changed].map(|nodes| forge.page(&nodes));
    let lost = TreeRef { level: 0, id: ChunkId::new([7; 32]), len: 10 };
    let whole = forge.pages(&[("a", first), ("c", middle), ("f", last)]);
    let torn = forge.pages(&[("a", first), ("c", lost), ("f", changed)]);
    forge.store(whole, 1).await;
    let expected = |added: Change, removed: Change| {
        let at = |path: &str, change| (path.to_owned(), change);
        vec![at("/f", Change::Content), at("/g", removed), at("/h", added)]
    };
    let (found, summary) = changes(&repo, sides(Some(whole), Some(torn), "")).await;
    assert_eq!(found, expected(Change::Added, Change::Removed));
    assert_eq!((summary.damaged, summary.unknown), (1, 3));
    let (found, summary) = changes(&repo, sides(Some(torn), Some(whole), "")).await;
    assert_eq!(found, expected(Change::Removed, Change::Added));
    assert_eq!((summary.damaged, summary.unknown), (1, 3));
    let (found, summary) = changes(&repo, sides(Some(torn), Some(torn), "")).await;
    assert!(found.is_empty() && summary.damaged == 0, "what is the same is the same");
}

#[tokio::test]
async fn single_paths_are_compared_and_a_path_that_is_not_there_is_an_error() {
    let world = World::new();
    let repo = world.repository().await;
    let mut forge = Forge::new(&repo);
    let map = |made: [(&str, Made); 1]| BTreeMap::from(made.map(|(name, made)| (name.to_owned(), made)));
    let old = build(&mut forge, &map([("x", Made::File(1, 0))]), 1);
    let new = build(&mut forge, &map([("x", Made::Dir(map([("y", Made::File(2, 1))])))]), 1);
    forge.store(old.unwrap(), 1).await;
    let (found, summary) = changes(&repo, sides(old, new, "/x/")).await;
    assert_eq!(found, [("/x".to_owned(), Change::Kind), ("/x/y".to_owned(), Change::Added)]);
    assert_eq!((summary.kinds, summary.bytes_added, summary.bytes_removed), (1, 3, 3));
    let mut options = sides(old, new, "x");
    options.new.path = b"x/y".to_vec();
    let (found, _) = changes(&repo, options).await;
    assert_eq!(found, [("/".to_owned(), Change::Content)]);
    let error = diff(&repo, sides(old, new, "/x/y"), |_| {}).await.unwrap_err();
    assert!(matches!(error, Error::NoSuchPath { .. }), "{error:?}");
}
