//! What is said of a path, held against what a backup saves.

use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;

use super::*;
use crate::filter::{Filter, FilterBuilder};
use crate::ops::backup::backup;
use crate::ops::ls::{LsOptions, ls};
use crate::ops::snapshots::resolve;
use crate::ops::testing::{World, back_up};

fn rules(world: &World) -> Arc<Filter> {
    let mut builder = FilterBuilder::new();
    let file = world.dir.path().join("rules");
    builder.exclude_lines(&file, b"# of a file\n*.bak\n!dear.bak\n", false).unwrap();
    for pattern in ["*.tmp", "!keep.tmp", "build/", "**/a/b", "logs/**"] {
        builder.exclude(pattern.as_bytes(), false).unwrap();
    }
    builder.exclude(b"*.ISO", true).unwrap();
    builder.ignore_file(b".ignore");
    Arc::new(builder.build().unwrap())
}

fn options(world: &World) -> BackupOptions {
    BackupOptions {
        filter: rules(world),
        exclude_caches: true,
        exclude_larger_than: Some(1000),
        job: Some("test".to_owned()),
        ..BackupOptions::new(BackupSource::Paths(vec![world.source(), world.source().join("build/wanted")]))
    }
}

fn fill(world: &World) {
    for name in [
        "x.tmp",
        "keep.tmp",
        "a/b",
        "a/c",
        "a/d/x.bak",
        "a/d/dear.bak",
        "build/out",
        "build/wanted/out",
        "build/wanted/x.tmp",
        "logs/one",
        "logs/two/three",
        "disc.iso",
        "big",
        "sub/.ignore",
        "sub/no",
        "sub/yes",
        "sub/deep/no",
        "sub/deep/.ignore",
        "sub/deep/only/here",
        "cache/CACHEDIR.TAG",
        "cache/junk",
        "cache/d/x",
    ] {
        let path = world.source().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, b"content").unwrap();
    }
    world.write("big", &[0; 1001]);
    world.write("sub/.ignore", b"no\n/deep/only\n");
    world.write("sub/deep/.ignore", b"!no\nonly/\n");
    world.write("cache/CACHEDIR.TAG", b"Signature: 8a477f597d28d172789f06886806bc55");
    std::os::unix::fs::symlink("a", world.source().join("link")).unwrap();
}

async fn ask(repo: &Repository, world: &World, path: &Path) -> Why {
    let options =
        WhyOptions { path: path.to_owned(), backup: options(world), filter: SnapshotFilter::default() };
    why(repo, options).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn it_agrees_with_a_backup_on_every_entry() {
    let world = World::new();
    let repo = world.repository().await;
    fill(&world);
    let saved = backup(&repo, options(&world)).await.unwrap().snapshot.unwrap();
    let snapshot = resolve(&repo, &saved.to_string(), &SnapshotFilter::default()).await.unwrap();
    let mut held = BTreeSet::new();
    ls(&repo, LsOptions { snapshot, path: Vec::new(), recursive: true }, |path, _| {
        held.insert(path.to_vec());
    })
    .await
    .unwrap();
    let (mut kept, mut left) = (0, 0);
    for entry in ignore::WalkBuilder::new(world.source()).standard_filters(false).build() {
        let entry = entry.unwrap();
        let answer = ask(&repo, &world, entry.path()).await;
        let is_held = held.contains(entry.path().as_os_str().as_bytes());
        assert_eq!(matches!(answer.fate, Fate::Saved { .. }), is_held, "{:?}: {answer:?}", entry.path());
        assert_eq!(answer.saved.is_some(), is_held, "{:?}: {answer:?}", entry.path());
        if let Some(saved) = answer.saved {
            assert!(
                saved.is_newest && saved.since == Since::Unchanged,
                "{:?}: {:?}",
                entry.path(),
                saved.since
            );
        }
        *(if is_held { &mut kept } else { &mut left }) += 1;
    }
    assert!(kept > 12 && left > 10, "{kept} kept, {left} left out");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_state_that_was_saved_is_found_and_compared() {
    let world = World::new();
    let repo = world.repository().await;
    world.write("file", b"one");
    world.write("gone", b"two");
    let first = back_up(&repo, &world.source()).await;
    fs::remove_file(world.source().join("gone")).unwrap();
    let second = back_up(&repo, &world.source()).await;
    world.write("file", b"longer");
    let plain = |path: &str| WhyOptions {
        path: world.source().join(path),
        backup: BackupOptions::new(BackupSource::Paths(Vec::new())),
        filter: SnapshotFilter::default(),
    };
    let answer = why(&repo, plain("file")).await.unwrap();
    assert_eq!(answer.sources, [world.source()], "as the newest snapshot says");
    let saved = answer.saved.unwrap();
    assert_eq!((saved.snapshot.id, saved.is_newest), (second, true));
    assert!(matches!(saved.since, Since::Changed(Change::Content, _)), "{:?}", saved.since);
    let answer = why(&repo, plain("gone")).await.unwrap();
    assert!(matches!(answer.fate, Fate::Missing { .. }), "{:?}", answer.fate);
    let saved = answer.saved.unwrap();
    assert_eq!((saved.snapshot.id, saved.is_newest, saved.since), (first, false, Since::Gone));
    assert!(saved.is_dropped);
    // A newer snapshot of something else says nothing of it.
    let other = world.dir.path().join("other");
    fs::create_dir(&other).unwrap();
    back_up(&repo, &other).await;
    let saved = why(&repo, plain("file")).await.unwrap().saved.unwrap();
    assert_eq!((saved.snapshot.id, saved.is_newest, saved.is_dropped), (second, false, false));
    world.write("new", b"x");
    let answer = why(&repo, plain("new")).await.unwrap();
    assert!(matches!(answer.fate, Fate::Saved { .. }) && answer.saved.is_none());
    let elsewhere = WhyOptions { path: "/etc".into(), ..plain("") };
    assert!(matches!(why(&repo, elsewhere).await.unwrap().fate, Fate::NoSource));
    let other = SnapshotFilter { jobs: vec!["none".into()], ..SnapshotFilter::default() };
    let answer = why(&repo, WhyOptions { filter: other, ..plain("file") }).await.unwrap();
    assert!(answer.sources.is_empty() && answer.saved.is_none() && matches!(answer.fate, Fate::NoSource));
}

#[test]
fn an_image_is_not_compared_with_its_device() {
    let saved = Node { size: 1 << 20, ..Node::new(b"disk".to_vec(), NodeKind::File) };
    let device = Stat { mode: libc::S_IFBLK | 0o660, ..Stat::default() };
    assert_eq!(since(&saved, &device, Path::new("/dev/disk")), Since::Unknown);
    let pipe = Stat { mode: libc::S_IFIFO | 0o660, ..Stat::default() };
    assert!(matches!(since(&saved, &pipe, Path::new("/disk")), Since::Changed(Change::Kind, _)));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_backup_refuses_is_refused_here_too() {
    let world = World::new();
    let repo = world.repository().await;
    let mut builder = FilterBuilder::new();
    builder.exclude(b"source", false).unwrap();
    let backup = BackupOptions {
        filter: Arc::new(builder.build().unwrap()),
        ..BackupOptions::new(BackupSource::Paths(vec![world.source()]))
    };
    let options = WhyOptions { path: world.source(), backup, filter: SnapshotFilter::default() };
    let error = why(&repo, options).await.unwrap_err();
    assert!(matches!(&error, Error::Source(crate::source::SourceError::ExcludedRoot { .. })), "{error:?}");
}
