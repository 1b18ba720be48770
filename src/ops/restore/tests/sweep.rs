//! Removing what the snapshot does not hold, and leaving out components of paths.

use super::*;

async fn saved(place: &Path) -> (Repository, SnapshotInfo, PathBuf) {
    let source = place.join("source");
    fs::create_dir_all(source.join("d/deep")).unwrap();
    fs::create_dir_all(source.join("e")).unwrap();
    for name in ["a", "d/b", "d/deep/c", "e/b"] {
        fs::write(source.join(name), name).unwrap();
    }
    let (repo, snapshot) = backed_up(&source, &place.join("state")).await;
    (repo, snapshot, source)
}

fn below(snapshot: &SnapshotInfo, source: &Path, target: &Path) -> RestoreOptions {
    RestoreOptions {
        path: source.as_os_str().as_encoded_bytes().to_vec(),
        delete: true,
        ..options(snapshot.clone(), target)
    }
}

/// Every entry below a directory, by its path from there.
fn all(dir: &Path) -> Vec<String> {
    let mut walk = ignore::WalkBuilder::new(dir);
    walk.standard_filters(false).sort_by_file_name(|a, b| a.cmp(b));
    let name = |entry: ignore::DirEntry| entry.path().strip_prefix(dir).unwrap().to_str().unwrap().to_owned();
    walk.build().map(Result::unwrap).filter(|entry| entry.depth() > 0).map(name).collect()
}

const WHOLE: [&str; 7] = ["a", "d", "d/b", "d/deep", "d/deep/c", "e", "e/b"];

fn litter(target: &Path) {
    fs::create_dir_all(target.join("x/y")).unwrap();
    fs::create_dir_all(target.join("d/deep")).unwrap();
    for name in ["x/y/z", "d/stray", "d/deep/stray.log", "x/keep.log", ".lifeboat-1-0"] {
        fs::write(target.join(name), b"stray").unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_snapshot_does_not_hold_goes_and_directories_keep_their_times() {
    let place = tempfile::tempdir().unwrap();
    let (repo, snapshot, source) = saved(place.path()).await;
    let target = place.path().join("target");
    litter(&target);
    let dry = restore(&repo, RestoreOptions { dry_run: true, ..below(&snapshot, &source, &target) }).await;
    assert_eq!(dry.unwrap().removed, 7);
    assert!(target.join("x/y/z").exists());
    let done = restore(&repo, below(&snapshot, &source, &target)).await.unwrap();
    assert_eq!((done.removed, done.failed), (7, 0));
    assert_eq!(all(&target), WHOLE);
    let time = |path: PathBuf| fs::metadata(path).unwrap().modified().unwrap();
    assert_eq!(time(target.join("d/deep")), time(source.join("d/deep")));
    let again = restore(&repo, below(&snapshot, &source, &target)).await.unwrap();
    assert_eq!(again.removed, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_rules_leave_out_stays() {
    let place = tempfile::tempdir().unwrap();
    let (repo, snapshot, source) = saved(place.path()).await;
    let target = place.path().join("target");
    litter(&target);
    let mut rules = FilterBuilder::new();
    rules.exclude(b"*.log", false).unwrap();
    let options = RestoreOptions { filter: rules.build().unwrap(), ..below(&snapshot, &source, &target) };
    let done = restore(&repo, options).await.unwrap();
    assert_eq!(done.failed, 0);
    let mut expected = [&WHOLE[..], &["d/deep/stray.log", "x", "x/keep.log"]].concat();
    expected.sort_unstable();
    assert_eq!(all(&target), expected);

    litter(&target);
    let mut rules = FilterBuilder::new();
    rules.include(format!("{}/d/deep", source.display()).as_bytes(), false).unwrap();
    let options = RestoreOptions { filter: rules.build().unwrap(), ..below(&snapshot, &source, &target) };
    let done = restore(&repo, options).await.unwrap();
    assert_eq!(done.removed, 1);
    assert!(target.join("d/stray").exists() && !target.join("d/deep/stray.log").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_goes_beside_the_sources_or_where_a_page_is_damaged() {
    let place = tempfile::tempdir().unwrap();
    let (repo, snapshot, source) = saved(place.path()).await;
    let target = place.path().join("target");
    let stored = target.join(source.strip_prefix("/").unwrap());
    fs::create_dir_all(&stored).unwrap();
    let (beside, inside) = (stored.parent().unwrap().join("beside"), stored.join("inside"));
    for path in [&beside, &inside, &target.join("top")] {
        fs::write(path, b"x").unwrap();
    }
    let mut all = below(&snapshot, &source, &target);
    all.path = Vec::new();
    let done = restore(&repo, all).await.unwrap();
    assert_eq!(done.removed, 1);
    assert!(beside.exists() && target.join("top").exists() && !inside.exists());

    let (_, repo) = repository().await;
    let mut forge = Forge::new(&repo);
    let files = [forge.file("a", &[b"a"]), forge.file("zz", &[b"zz"])];
    let first = forge.page(&files[..1]);
    let second = forge.page(&files[1..]);
    let lying = forge.pages(&[("a", first), ("y", second)]);
    let mut snapshot = forge.store(lying, 1).await;
    snapshot.snapshot.paths = vec![b"/".to_vec()];
    let target = place.path().join("other");
    fs::create_dir(&target).unwrap();
    fs::write(target.join("zz"), b"x").unwrap();
    let done = restore(&repo, RestoreOptions { delete: true, ..options(snapshot, &target) }).await.unwrap();
    assert_eq!((done.removed, done.damaged_count), (0, 1));
    assert_eq!(names(&target), ["a", "zz"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_goes_where_a_directory_could_not_be_saved_as_it_was() {
    let (_, repo) = repository().await;
    let mut forge = Forge::new(&repo);
    let file = forge.file("a", &[b"a"]);
    let mut nodes = vec![forge.dir("changed", std::slice::from_ref(&file)), forge.dir("unreadable", &[])];
    (nodes[0].problem, nodes[1].problem) = (Some(Problem::Changed), Some(Problem::Unreadable));
    nodes.push(forge.dir("whole", &[file]));
    let root = forge.page(&nodes);
    let mut snapshot = forge.store(root, 1).await;
    snapshot.snapshot.paths = vec![b"/".to_vec()];
    let target = tempfile::tempdir().unwrap();
    for dir in ["changed", "unreadable", "whole"] {
        fs::create_dir(target.path().join(dir)).unwrap();
        fs::write(target.path().join(dir).join("only copy"), b"x").unwrap();
    }
    for path in ["", "/changed", "/unreadable"] {
        let place = target.path().join(path.trim_start_matches('/'));
        let mut below = RestoreOptions { delete: true, ..options(snapshot.clone(), &place) };
        below.path = path.as_bytes().to_vec();
        restore(&repo, below).await.unwrap();
    }
    assert_eq!(all(target.path()).iter().filter(|path| path.ends_with("only copy")).count(), 2);
    assert_eq!(names(&target.path().join("whole")), ["a"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_is_restored_goes_only_if_that_is_said() {
    let place = tempfile::tempdir().unwrap();
    let (repo, snapshot, source) = saved(place.path()).await;
    let target = place.path().join("target");
    fs::create_dir(&target).unwrap();
    for number in 0..11 {
        fs::write(target.join(format!("theirs {number}")), b"x").unwrap();
    }
    let refused = restore(&repo, below(&snapshot, &source, &target)).await.unwrap_err();
    assert!(matches!(refused, Error::ManyDeleted { removed: 11, restored: 7 }), "{refused}");
    assert_eq!(refused.class(), crate::class::Class::Refused);
    assert_eq!(names(&target).len(), 11, "nothing was done");
    let done =
        restore(&repo, RestoreOptions { yes: true, ..below(&snapshot, &source, &target) }).await.unwrap();
    assert_eq!(done.removed, 11);
    assert_eq!(all(&target), WHOLE);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_in_the_way_of_a_file_goes() {
    let place = tempfile::tempdir().unwrap();
    let (repo, snapshot, source) = saved(place.path()).await;
    let target = place.path().join("target");
    fs::create_dir_all(target.join("a/was/a/directory")).unwrap();
    let kept = restore(&repo, RestoreOptions { delete: false, ..below(&snapshot, &source, &target) }).await;
    assert_eq!(kept.unwrap().failed, 1);
    let done = restore(&repo, below(&snapshot, &source, &target)).await.unwrap();
    assert_eq!((done.failed, done.removed), (0, 4));
    assert_eq!(fs::read(target.join("a")).unwrap(), b"a");
}

#[tokio::test(flavor = "multi_thread")]
async fn leading_components_are_left_out_as_tar_does_it() {
    let place = tempfile::tempdir().unwrap();
    let (repo, snapshot, source) = saved(place.path()).await;
    let target = place.path().join("target");
    let strip = |strip| RestoreOptions { strip, delete: false, ..below(&snapshot, &source, &target) };
    let done = restore(&repo, strip(1)).await.unwrap();
    // `d/b` comes first, so `e/b` has no place.
    assert_eq!((done.failed, done.damaged_count), (1, 0));
    assert_eq!(all(&target), ["b", "deep", "deep/c"]);
    assert_eq!(fs::read(target.join("b")).unwrap(), b"d/b");
    fs::remove_dir_all(&target).unwrap();
    assert_eq!(restore(&repo, strip(2)).await.unwrap().files, 1);
    assert_eq!(all(&target), ["c"]);
    fs::remove_dir_all(&target).unwrap();
    let done = restore(&repo, strip(9)).await.unwrap();
    assert_eq!((done.files, done.failed), (0, 0));
    // The whole path of the source, as tar counts it; in place, the same is found again.
    let depth = source.components().count() - 1;
    let mut whole = strip(depth);
    (whole.path, whole.in_place) = (Vec::new(), true);
    restore(&repo, whole).await.unwrap();
    assert_eq!(all(&target), WHOLE);
    let mut again = strip(depth);
    (again.path, again.in_place, again.delete) = (Vec::new(), true, true);
    fs::write(target.join("stray"), b"x").unwrap();
    fs::write(target.join("d/stray"), b"x").unwrap();
    let done = restore(&repo, again).await.unwrap();
    assert_eq!((done.fetched, done.removed), (0, 1));
    assert!(target.join("stray").exists() && !target.join("d/stray").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_directories_that_come_together_under_one_name_the_second_removes_nothing() {
    let place = tempfile::tempdir().unwrap();
    let source = place.path().join("source");
    for name in ["d/same/first", "e/same/second", "e/other/third"] {
        fs::create_dir_all(source.join(name).parent().unwrap()).unwrap();
        fs::write(source.join(name), name).unwrap();
    }
    let (repo, snapshot) = backed_up(&source, &place.path().join("state")).await;
    let target = place.path().join("target");
    fs::create_dir_all(target.join("other")).unwrap();
    fs::write(target.join("other/stray"), b"x").unwrap();
    let done =
        restore(&repo, RestoreOptions { strip: 1, ..below(&snapshot, &source, &target) }).await.unwrap();
    assert_eq!((done.failed, done.removed), (1, 1));
    assert_eq!(all(&target), ["other", "other/third", "same", "same/first"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_directory_goes_for_what_is_not_restored() {
    let (_, repo) = repository().await;
    let mut forge = Forge::new(&repo);
    let mut nodes = ["ruled out", "unread"].map(|name| forge.file(name, &[b"x"]));
    nodes[1].problem = Some(Problem::Unreadable);
    let root = forge.page(&nodes);
    let mut snapshot = forge.store(root, 1).await;
    snapshot.snapshot.paths = vec![b"/".to_vec()];
    let place = tempfile::tempdir().unwrap();
    let target = place.path().join("target");
    for name in ["ruled out", "unread"] {
        fs::create_dir_all(target.join(name)).unwrap();
        fs::write(target.join(name).join("only copy"), b"x").unwrap();
    }
    let before = all(&target);
    let mut rules = FilterBuilder::new();
    rules.exclude(b"ruled*", false).unwrap().exclude(b"!ruled*/", false).unwrap();
    let mut options = RestoreOptions { delete: true, ..options(snapshot, &target) };
    options.filter = rules.build().unwrap();
    restore(&repo, options).await.unwrap();
    assert_eq!(all(&target), before);

    let (repo, snapshot, source) = saved(place.path()).await;
    let kept = place.path().join("kept");
    fs::create_dir_all(kept.join("a/directory")).unwrap();
    let options = RestoreOptions { overwrite: Overwrite::Never, ..below(&snapshot, &source, &kept) };
    assert_eq!(restore(&repo, options).await.unwrap().failed, 1);
    assert!(kept.join("a/directory").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_goes_where_something_is_mounted_that_the_snapshot_may_not_hold() {
    let place = tempfile::tempdir().unwrap();
    let (repo, snapshot, source) = saved(place.path()).await;
    let (target, theirs) = (place.path().join("target"), place.path().join("theirs"));
    for dir in [&target.join("d"), &theirs] {
        fs::create_dir_all(dir).unwrap();
    }
    fs::create_dir(theirs.join("deep")).unwrap();
    for name in ["only copy", "deep/stray"] {
        fs::write(theirs.join(name), b"x").unwrap();
    }
    let bound = Command::new("mount").arg("--bind").arg(&theirs).arg(target.join("d")).status();
    if !bound.is_ok_and(|done| done.success()) {
        println!("skipped: mounting needs root");
        return;
    }
    let done = restore(&repo, below(&snapshot, &source, &target)).await;
    Command::new("umount").arg("-l").arg(target.join("d")).status().unwrap();
    assert_eq!(done.unwrap().removed, 1);
    assert!(theirs.join("only copy").exists() && !theirs.join("deep/stray").exists());
}
