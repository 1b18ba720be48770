mod cold;
mod doubt;
mod forecast;
mod in_place;
mod replace;
mod sweep;

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;

use super::*;
use crate::filter::FilterBuilder;
use crate::format::content::Content;
use crate::format::node::Problem;
use crate::ops::cat::cat;
use crate::ops::ls::{LsOptions, ls};
use crate::ops::snapshots::{SnapshotFilter, resolve};
use crate::ops::testing::{self, back_up, env, new_repository, store_over};
use crate::ops::tree::testing::{Forge, copies, flip, remove};
use crate::repo::Env;
use crate::store::fault::{FaultStore, OpKind};

fn options(snapshot: SnapshotInfo, target: &Path) -> RestoreOptions {
    RestoreOptions::new(snapshot, Vec::new(), target.to_owned())
}

async fn repository() -> (Arc<InMemory>, Repository) {
    let objects = Arc::new(InMemory::new());
    let repo = new_repository(Arc::<InMemory>::clone(&objects), env()).await;
    (objects, repo)
}

/// Names in a directory, sorted.
fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Different bytes for different seeds.
fn noise(len: usize, seed: u64) -> Vec<u8> {
    testing::noise(seed, len)
}

fn make_tree(dir: &Path) {
    fs::create_dir_all(dir.join("a/b/c")).unwrap();
    fs::create_dir(dir.join("empty")).unwrap();
    fs::write(dir.join("a/nothing"), b"").unwrap();
    fs::write(dir.join("a/small"), b"small").unwrap();
    fs::write(dir.join("a/large"), noise(9 << 20, 1)).unwrap();
    fs::write(dir.join("a/b/zeroes"), vec![0; 3 << 20]).unwrap();
    fs::write(dir.join("a/b/c").join("n".repeat(255)), noise(100_000, 2)).unwrap();
    fs::hard_link(dir.join("a/small"), dir.join("empty.link")).unwrap();
    fs::hard_link(dir.join("a/large"), dir.join("a/b/large too")).unwrap();
    symlink("../nowhere", dir.join("a/link")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        dir.join("a/pipe"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    let sparse = fs::File::create(dir.join("sparse")).unwrap();
    sparse.write_all_at(&noise(50_000, 3), 1 << 20).unwrap();
    sparse.write_all_at(b"end", 5 << 20).unwrap();
    sparse.set_len(8 << 20).unwrap();
    for number in 0..300 {
        fs::write(dir.join(format!("a/b/{number}")), noise(number * 7, number as u64)).unwrap();
    }
    fs::set_permissions(dir.join("a/small"), fs::Permissions::from_mode(0o4711)).unwrap();
    fs::set_permissions(dir.join("a/b/c"), fs::Permissions::from_mode(0o500)).unwrap();
    let _ = rustix::fs::setxattr(dir.join("a"), "user.note", b"text", rustix::fs::XattrFlags::empty());
}

/// What `rsync` would change to make the second like the first; nothing if there is no `rsync`.
fn differences(from: &Path, to: &Path) -> String {
    let rsync = Command::new("rsync")
        .args(["-aHAXSn", "--checksum", "--delete", "--itemize-changes"])
        .arg(format!("{}/", from.display()))
        .arg(format!("{}/", to.display()))
        .output();
    rsync.map_or(String::new(), |done| {
        String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr)
    })
}

/// As [`differences`], but for the two directories themselves: one that is not empty keeps its own metadata.
fn differences_below(from: &Path, to: &Path) -> String {
    let all = differences(from, to);
    all.lines().filter(|line| !line.ends_with(" ./")).map(|line| format!("{line}\n")).collect()
}

async fn backed_up(source: &Path, state: &Path) -> (Repository, SnapshotInfo) {
    let mut env: Env = env();
    env.places.state = state.to_owned();
    let repo = new_repository(Arc::new(InMemory::new()), env).await;
    back_up(&repo, source).await;
    let snapshot = resolve(&repo, "latest", &SnapshotFilter::default()).await.unwrap();
    (repo, snapshot)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_of_everything_comes_back_as_it_was() {
    let place = tempfile::tempdir().unwrap();
    let source = place.path().join("source");
    fs::create_dir(&source).unwrap();
    make_tree(&source);
    let (repo, snapshot) = backed_up(&source, &place.path().join("state")).await;
    for (number, sparse) in [(0, false), (1, true)] {
        let target = place.path().join(format!("target{number}"));
        let mut options = options(snapshot.clone(), &target);
        options.path = source.as_os_str().as_encoded_bytes().to_vec();
        (options.sparse, options.verify) = (sparse, sparse);
        let done = restore(&repo, options).await.unwrap();
        assert_eq!((done.failed, done.damaged_count), (0, 0));
        assert_eq!(differences(&source, &target), "");
        assert_eq!(fs::read(target.join("a/large")).unwrap(), noise(9 << 20, 1));
        let stat = |name: &str| fs::metadata(target.join(name)).unwrap();
        assert_eq!(stat("a/large").ino(), stat("a/b/large too").ino());
        assert_eq!(stat("a/small").mode() & 0o7777, 0o4711);
        assert_eq!(stat("a/b/c").mode() & 0o7777, 0o500);
        assert_eq!(stat("sparse").len(), 8 << 20);
        assert!(stat("sparse").blocks() * 512 < 1 << 20, "holes stay holes");
        assert_eq!(stat("a/b/zeroes").blocks() == 0, sparse, "zeroes become holes only if asked");
        assert_eq!(fs::read_link(target.join("a/link")).unwrap(), Path::new("../nowhere"));
    }
}

#[tokio::test]
async fn stored_paths_go_below_the_target_and_rules_select() {
    let place = tempfile::tempdir().unwrap();
    let source = place.path().join("source");
    fs::create_dir(&source).unwrap();
    make_tree(&source);
    let (repo, snapshot) = backed_up(&source, &place.path().join("state")).await;
    let stored = source.to_str().unwrap();

    let target = place.path().join("some");
    let mut some = options(snapshot.clone(), &target);
    let mut rules = FilterBuilder::new();
    rules.include(format!("{stored}/a/b/1*").as_bytes(), false).unwrap();
    // Not `*9` alone: the temporary directory may be called so.
    rules.exclude(format!("{stored}/**/*9").as_bytes(), false).unwrap();
    some.filter = rules.build().unwrap();
    let done = restore(&repo, some).await.unwrap();
    assert_eq!((done.failed, done.damaged_count), (0, 0));
    let below = target.join(&stored[1..]);
    assert_eq!(names(&below), ["a"]);
    assert_eq!(names(&below.join("a")), ["b"]);
    let expected = (0..300).map(|n| n.to_string()).filter(|n| n.starts_with('1') && !n.ends_with('9'));
    let mut expected: Vec<_> = expected.collect();
    expected.sort();
    assert_eq!(names(&below.join("a/b")), expected);
    assert_eq!(done.files, expected.len() as u64);

    let target = place.path().join("one");
    let mut one = options(snapshot.clone(), &target);
    one.path = format!("{stored}/a/small").into_bytes();
    assert_eq!(restore(&repo, one).await.unwrap().files, 1);
    assert_eq!(names(&target), ["small"]);

    let target = place.path().join("dry");
    let mut dry = options(snapshot.clone(), &target);
    dry.dry_run = true;
    let done = restore(&repo, dry).await.unwrap();
    assert!(!target.exists());
    assert_eq!(done.entries, snapshot.snapshot.totals.entries);
    assert!(done.fetched > 9 << 20 && done.bytes > 9 << 20);

    let mut out = Vec::new();
    let path = format!("{stored}/sparse");
    assert_eq!(cat(&repo, &snapshot, path.as_bytes(), &mut out).await.unwrap(), 8 << 20);
    assert!(out == fs::read(&path).unwrap());
    out.clear();
    cat(&repo, &snapshot, format!("{stored}/a/large").as_bytes(), &mut out).await.unwrap();
    assert!(out == noise(9 << 20, 1));
    let missing = cat(&repo, &snapshot, b"/no/such", &mut out).await;
    assert!(matches!(missing, Err(Error::NoSuchPath { .. })));
    assert!(matches!(cat(&repo, &snapshot, stored.as_bytes(), &mut out).await, Err(Error::NotAFile { .. })));

    let mut seen = Vec::new();
    let all = LsOptions { snapshot: snapshot.clone(), path: Vec::new(), recursive: true };
    ls(&repo, all, |path, _| seen.push(path.to_vec())).await.unwrap();
    assert_eq!(seen.len() as u64, snapshot.snapshot.totals.entries);
    assert!(seen.contains(&path.into_bytes()));
    seen.clear();
    let flat = LsOptions { snapshot, path: stored.as_bytes().to_vec(), recursive: false };
    ls(&repo, flat, |path, _| seen.push(path[stored.len()..].to_vec())).await.unwrap();
    assert_eq!(seen, [&b"/a"[..], b"/empty", b"/empty.link", b"/sparse"]);
}

/// Ten files of two chunks each; neighbours share segments.
fn ten_files(forge: &mut Forge<'_>) -> Vec<Node> {
    let file = |n: u64| {
        let (head, tail) = (noise(3000, n), noise(2000, 100 + n));
        (format!("{n}"), head, tail)
    };
    (0..10).map(file).map(|(name, head, tail)| forge.file(&name, &[&head, &tail])).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_costs_only_the_files_that_need_it() {
    let (objects, repo) = repository().await;
    let mut forge = Forge::new(&repo);
    let files = ten_files(&mut forge);
    let Content::Inline(rows) = &files[4].content else { panic!() };
    let chunk = rows[1].id;
    let root = forge.page(&files);
    let snapshot = forge.store(root, 1).await;
    let copy = copies(&repo, &chunk).await.remove(0);
    flip(&objects, copy.pack_id, copy.segment.offset + 5).await;
    let target = tempfile::tempdir().unwrap();
    let done = restore(&repo, options(snapshot.clone(), target.path())).await.unwrap();
    // Four chunks share a segment: two files.
    assert_eq!(done.damaged, [b"/4".to_vec(), b"/5".to_vec()]);
    assert_eq!(names(target.path()), ["0", "1", "2", "3", "6", "7", "8", "9"]);
    assert_eq!(fs::read(target.path().join("9")).unwrap(), [noise(3000, 9), noise(2000, 109)].concat());
    assert_eq!((done.failed, done.files), (0, 8));

    remove(&objects, copy.pack_id).await;
    let target = tempfile::tempdir().unwrap();
    let done = restore(&repo, options(snapshot, target.path())).await.unwrap();
    assert_eq!((done.damaged_count, done.files), (10, 0));
    assert!(names(target.path()).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn another_copy_is_as_good() {
    let (objects, repo) = repository().await;
    let mut forge = Forge::new(&repo);
    let files = ten_files(&mut forge);
    let Content::Inline(rows) = &files[4].content else { panic!() };
    let (head, tail) = (rows[0].id, rows[1].id);
    let root = forge.page(&files);
    let snapshot = forge.store(root, 3).await;
    let of_head = copies(&repo, &head).await;
    assert_eq!(of_head.len(), 3);
    flip(&objects, of_head[0].pack_id, of_head[0].segment.offset).await;
    let of_tail = copies(&repo, &tail).await;
    flip(&objects, of_tail[1].pack_id, of_tail[1].segment.offset).await;
    let target = tempfile::tempdir().unwrap();
    let done = restore(&repo, options(snapshot.clone(), target.path())).await.unwrap();
    assert_eq!((done.damaged_count, done.failed, done.files), (0, 0, 10));
    assert_eq!(fs::read(target.path().join("4")).unwrap(), [noise(3000, 4), noise(2000, 104)].concat());
    let mut out = Vec::new();
    cat(&repo, &snapshot, b"4", &mut out).await.unwrap();
    assert_eq!(out, [noise(3000, 4), noise(2000, 104)].concat());
}

#[tokio::test]
async fn a_damaged_directory_costs_only_itself() {
    let (objects, repo) = repository().await;
    let mut forge = Forge::new(&repo);
    forge.a_segment = 1;
    let file = forge.file("f", &[b"content"]);
    let good = forge.dir("good", std::slice::from_ref(&file));
    let other = forge.file("g", &[b"more"]);
    let bad = forge.dir("bad", &[other, file]);
    let page = bad.tree.unwrap().id;
    let root = forge.page(&[bad, good]);
    let snapshot = forge.store(root, 1).await;
    let copy = copies(&repo, &page).await.remove(0);
    flip(&objects, copy.pack_id, copy.segment.offset).await;
    let target = tempfile::tempdir().unwrap();
    let done = restore(&repo, options(snapshot.clone(), target.path())).await.unwrap();
    assert_eq!(done.damaged, [b"/bad".to_vec()]);
    assert_eq!(fs::read(target.path().join("good/f")).unwrap(), b"content");
    let all = LsOptions { snapshot, path: Vec::new(), recursive: true };
    let mut seen = 0;
    assert!(ls(&repo, all, |_, _| seen += 1).await.is_err());
    assert_eq!(seen, 3, "what can be read is shown");
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_entries_are_left_out_and_nothing_gets_outside() {
    let (_, repo) = repository().await;
    let mut forge = Forge::new(&repo);
    let outside = tempfile::tempdir().unwrap();
    let target = outside.path().join("target");
    let mut nodes: Vec<Node> = ["../escape", "..", ".", "a\0b", "dir/file"]
        .iter()
        .map(|name| forge.file(name, &[b"evil"]))
        .collect();
    nodes.push(forge.dir("../up", &[]));
    let mut long = forge.file("x", &[b"12345"]);
    long.size = 4;
    nodes.push(long);
    let mut short = forge.file("y", &[b"12345"]);
    short.size = 1 << 60;
    nodes.push(short);
    let mut hole = forge.file("z", &[b"12345"]);
    hole.holes = vec![(3, 1 << 40)];
    nodes.push(hole);
    nodes.sort_by(|a, b| a.name.cmp(&b.name));
    // After all others: twice the same name, and one out of order.
    let good = forge.file("zz", &[b"good"]);
    nodes.extend([good.clone(), forge.file("zz", &[b"again"]), forge.file("c", &[b"late"])]);
    let mut unsaved = forge.file("zzz", &[b"x"]);
    unsaved.problem = Some(Problem::Unreadable);
    nodes.push(unsaved);
    let root = forge.page(&nodes);
    let snapshot = forge.store(root, 1).await;
    let done = restore(&repo, options(snapshot, &target)).await.unwrap();
    assert_eq!(names(outside.path()), ["target"]);
    assert_eq!(names(&target), ["zz"]);
    assert_eq!(fs::read(target.join("zz")).unwrap(), b"good");
    // Six names, three sizes, two out of order.
    assert_eq!((done.damaged_count, done.failed, done.files), (11, 1, 1));
}

#[tokio::test]
async fn pages_that_repeat_or_lie_end() {
    let (_, repo) = repository().await;
    let mut forge = Forge::new(&repo);
    let file = |forge: &mut Forge<'_>, name: &str| forge.file(name, &[name.as_bytes()]);
    let (a, b, c) = (file(&mut forge, "a"), file(&mut forge, "b"), file(&mut forge, "c"));
    let first = forge.page(&[a, b]);
    let second = forge.page(&[c]);
    // Each level names the one below many times: as many pages as there are grains of sand.
    let mut bomb = first;
    for _ in 0..7 {
        bomb = forge.pages(&[("a", bomb), ("a", bomb), ("a", bomb)]);
    }
    let honest = forge.pages(&[("a", first), ("c", second)]);
    let lying = forge.pages(&[("a", first), ("d", second)]);
    let nodes = [("1", bomb), ("2", honest), ("3", lying)].map(|(name, tree)| {
        let mut dir = Node::new(name.as_bytes().to_vec(), NodeKind::Directory);
        (dir.mode, dir.tree) = (0o755, Some(tree));
        dir
    });
    let root = forge.page(&nodes);
    let snapshot = forge.store(root, 1).await;
    let target = tempfile::tempdir().unwrap();
    let done = restore(&repo, options(snapshot, target.path())).await.unwrap();
    assert_eq!(names(&target.path().join("2")), ["a", "b", "c"]);
    assert_eq!(names(&target.path().join("3")), ["a", "b"]);
    assert!(names(&target.path().join("1")).is_empty(), "a page that names a page twice is refused whole");
    assert_eq!(done.damaged, [b"/1".to_vec(), b"/3".to_vec()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn links_join_what_is_the_same_and_nothing_else() {
    let (objects, repo) = repository().await;
    let mut forge = Forge::new(&repo);
    forge.a_segment = 1;
    let linked = |forge: &mut Forge<'_>, name: &str, content: &[u8], number: u8| {
        let mut node = forge.file(name, &[content]);
        node.hard_link = Some([number; 16]);
        node
    };
    let mut nodes = vec![
        linked(&mut forge, "a", b"one", 1),
        linked(&mut forge, "b", b"one", 1),
        linked(&mut forge, "c", b"other", 1),
        linked(&mut forge, "d", b"lost", 2),
        linked(&mut forge, "e", b"lost", 2),
    ];
    let Content::Inline(rows) = &nodes[3].content else { panic!() };
    let lost = rows[0].id;
    let mut link = Node::new(b"f".to_vec(), NodeKind::Symlink);
    (link.target, link.hard_link) = (b"a".to_vec(), Some([3; 16]));
    nodes.push(link.clone());
    link.name = b"g".to_vec();
    nodes.push(link);
    let root = forge.page(&nodes);
    let snapshot = forge.store(root, 1).await;
    let copy = copies(&repo, &lost).await.remove(0);
    flip(&objects, copy.pack_id, copy.segment.offset).await;
    let target = tempfile::tempdir().unwrap();
    let done = restore(&repo, options(snapshot, target.path())).await.unwrap();
    assert_eq!(done.damaged, [b"/d".to_vec(), b"/e".to_vec()]);
    assert_eq!(names(target.path()), ["a", "b", "c", "f", "g"]);
    let inode = |name: &str| fs::symlink_metadata(target.path().join(name)).unwrap().ino();
    assert_eq!(inode("a"), inode("b"));
    assert_ne!(inode("a"), inode("c"));
    assert_eq!(inode("f"), inode("g"));
    assert_eq!(fs::read(target.path().join("c")).unwrap(), b"other");
}

#[tokio::test(flavor = "multi_thread")]
async fn depth_has_no_limit() {
    const LEVELS: usize = 1500;
    let (_, repo) = repository().await;
    let mut forge = Forge::new(&repo);
    forge.a_segment = 64;
    let mut entries = vec![forge.file("deep", &[b"down here"])];
    for _ in 0..LEVELS {
        entries = vec![forge.dir("d", &entries), forge.file("e", &[b"x"])];
    }
    let root = forge.page(&entries);
    let snapshot = forge.store(root, 1).await;
    let target = tempfile::tempdir().unwrap();
    let done = restore(&repo, options(snapshot.clone(), target.path())).await.unwrap();
    assert_eq!((done.entries, done.failed, done.damaged_count), (2 * LEVELS as u64 + 1, 0, 0));
    let path = "/d".repeat(LEVELS) + "/deep";
    let mut out = Vec::new();
    cat(&repo, &snapshot, path.as_bytes(), &mut out).await.unwrap();
    assert_eq!(out, b"down here");
}

#[tokio::test]
async fn what_stands_in_the_target_is_replaced_or_kept() {
    let (_, repo) = repository().await;
    let mut forge = Forge::new(&repo);
    let file = forge.file("f", &[b"stored"]);
    let root = forge.page(&[file]);
    let snapshot = forge.store(root, 1).await;
    let target = tempfile::tempdir().unwrap();
    let path = target.path().join("f");
    fs::write(&path, "older, and longer").unwrap();
    let mut keep = options(snapshot.clone(), target.path());
    keep.overwrite = Overwrite::Never;
    let done = restore(&repo, keep).await.unwrap();
    assert_eq!((done.failed, done.files), (1, 0));
    assert_eq!(fs::read(&path).unwrap(), b"older, and longer");
    assert_eq!(restore(&repo, options(snapshot, target.path())).await.unwrap().failed, 0);
    assert_eq!(fs::read(&path).unwrap(), b"stored");
}

#[tokio::test]
async fn a_target_without_room_is_refused_before_anything_is_written() {
    let (_, repo) = repository().await;
    let mut forge = Forge::new(&repo);
    let mut huge = forge.file("huge", &[b"x"]);
    huge.size = 1 << 60;
    let mut dir = forge.dir("d", &[huge.clone()]);
    dir.totals.bytes = huge.size;
    huge.holes = vec![(1, huge.size - 1)];
    let mut holes = forge.dir("e", &[huge]);
    holes.totals.bytes = 1 << 60;
    let root = forge.page(&[dir, holes]);
    let snapshot = forge.store(root, 1).await;
    let place = tempfile::tempdir().unwrap();
    let target = place.path().join("target");
    let mut full = options(snapshot.clone(), &target);
    full.path = b"/d".to_vec();
    assert!(matches!(restore(&repo, full).await, Err(Error::TargetTooSmall { .. })));
    assert!(!target.exists());
    let mut fits = options(snapshot, &target);
    fits.path = b"/e".to_vec();
    let _ = restore(&repo, fits).await.unwrap();
    assert!(target.exists(), "holes take no room");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pack_costs_about_one_request() {
    let place = tempfile::tempdir().unwrap();
    let source = place.path().join("source");
    fs::create_dir(&source).unwrap();
    for number in 0..500 {
        fs::write(source.join(number.to_string()), noise(120_000, number)).unwrap();
    }
    let mut env: Env = env();
    env.places.state = place.path().join("state");
    // A store in memory would keep the buffers of all packs, which are few.
    let disk = place.path().join("repository");
    fs::create_dir(&disk).unwrap();
    let objects = Arc::new(LocalFileSystem::new_with_prefix(&disk).unwrap());
    let repo = new_repository(Arc::<LocalFileSystem>::clone(&objects), env).await;
    back_up(&repo, &source).await;
    let snapshot = resolve(&repo, "latest", &SnapshotFilter::default()).await.unwrap();
    let packs = repo.list_packs().await.unwrap().len();
    let asked = Arc::new(FaultStore::recording(objects));
    let repo = repo.with_store(store_over(Arc::<FaultStore>::clone(&asked)));
    let done = restore(&repo, options(snapshot, &place.path().join("target"))).await.unwrap();
    assert_eq!((done.files, done.failed, done.damaged_count), (500, 0, 0));
    let ranges = asked.count(OpKind::GetRange);
    assert!(packs >= 4 && ranges as f64 <= packs as f64 * 1.2 + 1.0, "{ranges} requests for {packs} packs");
}
