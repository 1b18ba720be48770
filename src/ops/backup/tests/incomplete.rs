//! A directory that is listed in part, and then cannot be listed to its end.

use std::collections::BTreeSet;

use super::hostile::node;
use super::*;
use crate::filter::FilterBuilder;
use crate::format::node::Problem;
use crate::ops::diff::{DiffCount, DiffOptions, DiffSide, diff};
use crate::ops::find::{FindOptions, Then, find};
use crate::ops::restore::{RestoreOptions, restore};
use crate::ops::snapshots::{SnapshotFilter, list, resolve};
use crate::source::walk::Tuning;

/// Files in the directory; of those that sort first as many as one block holds are seen.
const FILES: usize = 100;
const BLOCK: usize = 64;

/// The names in the restored directory after this snapshot was restored over what stands there, with what it lacks removed.
async fn names_after(
    repo: &Repository,
    summary: &BackupSummary,
    path: &Path,
    target: &Path,
) -> BTreeSet<String> {
    let id = summary.snapshot.unwrap().to_string();
    let snapshot = resolve(repo, &id, &SnapshotFilter::default()).await.unwrap();
    let path = path.as_os_str().as_encoded_bytes().to_vec();
    let options =
        RestoreOptions { delete: true, yes: true, ..RestoreOptions::new(snapshot, path, target.to_owned()) };
    restore(repo, options).await.unwrap();
    let names = fs::read_dir(target.join("many")).unwrap();
    names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// How many entries a comparison calls unknown; none may look removed or added.
async fn unknown(repo: &Repository, runs: [&BackupSummary; 2], path: &Path) -> u64 {
    let mut sides = Vec::new();
    for run in runs {
        let id = run.snapshot.unwrap().to_string();
        let snapshot = resolve(repo, &id, &SnapshotFilter::default()).await.unwrap();
        sides.push(DiffSide { snapshot, path: path.as_os_str().as_encoded_bytes().to_vec() });
    }
    let new = sides.pop().unwrap();
    let found = diff(repo, DiffOptions { old: sides.pop().unwrap(), new }, |_| {}).await.unwrap();
    assert_eq!((found.files, found.directories.removed), (DiffCount::default(), 0), "{found:?}");
    found.unknown
}

/// How each version of what matches ended.
async fn ends(repo: &Repository, pattern: &str) -> Vec<Then> {
    let snapshots = list(repo, &SnapshotFilter::default()).await.unwrap().snapshots;
    let mut ends = Vec::new();
    let mut names = FilterBuilder::new();
    names.include(pattern.as_bytes(), false).unwrap();
    let options = FindOptions {
        snapshots,
        names: names.build().unwrap(),
        not_before: None,
        before: None,
        larger: None,
        smaller: None,
        kinds: Vec::new(),
        metadata: false,
    };
    find(repo, options, |found| ends.push(found.then)).await.unwrap();
    ends
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_that_breaks_off_makes_a_directory_incomplete_and_deletes_nothing() {
    let world = World::new();
    let (source, many) = (world.source(), world.source().join("many"));
    fs::create_dir_all(many.join("a/deep")).unwrap();
    world.write("many/a/deep/file", b"the deepest");
    for n in 0..FILES {
        world.write(&format!("many/f{n:02}"), &noise(n as u64, 2000));
    }
    let repo = world.repository().await;
    let whole = world.save(&repo).await;
    assert_eq!((whole.files, whole.failed), (FILES as u64 + 1, 0));
    let target = world.dir.path().join("target");
    let all = names_after(&repo, &whole, &source, &target).await;
    assert_eq!(all.len(), FILES + 1);

    // Another directory takes the place of this one while what is deepest in it is listed; with so few open at a time it must be
    // opened again for the rest of its names.
    let (deep, moved) = (many.join("a/deep"), source.join("moved"));
    let (from, to) = (many.clone(), moved.clone());
    let hook = move |listed: &Path| {
        if listed == deep {
            fs::rename(&from, &to).unwrap();
            fs::create_dir(&from).unwrap();
        }
    };
    let mut tuning = Tuning { block: BLOCK, open_dirs: 2, ..Tuning::default() };
    tuning.after_listing = Some(Arc::new(hook));
    tokio::time::sleep(std::time::Duration::from_millis(80)).await;
    let broken = backup(&repo, BackupOptions { tuning: Some(tuning), ..world.options() }).await.unwrap();
    assert_eq!((broken.unchanged_files, broken.failed), (BLOCK as u64, 1), "{broken:?}");
    let saved = node(&repo, broken.snapshot.unwrap(), &many).await;
    assert_eq!(saved.problem, Some(Problem::Unreadable));
    assert_eq!(names_after(&repo, &broken, &source, &target).await, all, "what was not seen is not gone");
    assert_eq!(unknown(&repo, [&whole, &broken], &source).await, (FILES + 1 - BLOCK) as u64);

    // The next run takes nothing for granted of it.
    fs::remove_dir(&many).unwrap();
    fs::rename(&moved, &many).unwrap();
    let again = world.save(&repo).await;
    assert_eq!((again.files, again.failed), (FILES as u64 + 1, 0));
    assert_eq!((again.unchanged_files, again.new_files), (BLOCK as u64, (FILES + 1 - BLOCK) as u64));
    assert!(again.new_bytes < 50_000, "content is known: {}", again.new_bytes);
    assert_eq!(node(&repo, again.snapshot.unwrap(), &many).await.problem, None);
    assert_eq!(names_after(&repo, &again, &source, &target).await, all);
    assert_eq!(unknown(&repo, [&broken, &again], &source).await, (FILES + 1 - BLOCK) as u64);
    assert_eq!(unknown(&repo, [&whole, &again], &source).await, 0);
    let ends = ends(&repo, "**/many/f99").await;
    assert_eq!(ends, [Then::Unknown, Then::There], "it did not vanish");
}
