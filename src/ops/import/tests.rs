//! Imports of forged repositories, hostile ones first. What restic itself makes is imported by the tests of the program.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::*;
use crate::ops::snapshots::resolve;
use crate::ops::testing::{World, noise, restored};
use crate::ops::verify::{Depth, verify};
use crate::restic::BlobKind;
use crate::restic::testing::Forge;

async fn run(repo: &Repository, forge: &Forge, options: ImportOptions) -> Vec<Done> {
    let restic = forge.open().await;
    let mut import = Import::plan(repo, &restic, &options).await.unwrap();
    let mut all = Vec::new();
    while let Some(done) = import.next().await.unwrap() {
        all.push(done);
    }
    all
}

/// Imports the only snapshot; gives what is restored of it, and how many entries are missing.
async fn only(forge: &Forge) -> (BTreeMap<PathBuf, Vec<u8>>, u64) {
    let world = World::new();
    let repo = world.repository().await;
    let done = run(&repo, forge, options()).await;
    let [Done::Imported(_, done)] = done.as_slice() else { panic!("{done:?}") };
    let report = verify(&repo, Depth::Data).await.unwrap();
    assert!(report.findings.is_empty(), "{:?}", report.findings);
    (restored(&repo, done.snapshot, Path::new("/")).await, done.missing)
}

fn options() -> ImportOptions {
    ImportOptions { level: 1, ..ImportOptions::default() }
}

fn dir(name: &str, subtree: &ResticId) -> Value {
    json!({"name": name, "type": "dir", "mode": 0o755, "subtree": subtree.to_string()})
}

fn has(found: &BTreeMap<PathBuf, Vec<u8>>, name: &str) -> Option<Vec<u8>> {
    found.get(Path::new(name)).cloned()
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_lead_elsewhere_or_come_twice_are_left_out() {
    let mut forge = Forge::new().await;
    let good = forge.file("good", &[b"good"]);
    let empty = forge.tree(&[]);
    let mut nodes: Vec<Value> = ["", ".", "..", "../up", "/etc", "a/b", "a\\x00b"]
        .iter()
        .flat_map(|name| {
            [json!({"name": name, "type": "file", "content": good["content"]}), dir(name, &empty)]
        })
        .collect();
    nodes.extend([good.clone(), good.clone(), json!({"name": "a", "type": "file", "content": []})]);
    nodes.push(json!({"name": "odd", "type": "irregular"}));
    nodes.push(json!({"name": "zero", "type": "file", "size": 0}));
    let root = forge.tree(&nodes);
    forge.finish(&root).await;
    let (found, missing) = only(&forge).await;
    assert_eq!(found.keys().collect::<Vec<_>>(), [Path::new("good"), Path::new("zero")]);
    assert_eq!(missing, 14 + 2 + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_or_lies_costs_only_what_needs_it() {
    let mut forge = Forge::new().await;
    let (one, two) = (noise(1, 5_000), noise(2, 400_000));
    let good = forge.file("good", &[&one, &two, &one]);
    let nowhere = ResticId::new([9; 32]).to_string();
    let ids = good["content"].as_array().unwrap().clone();
    let halfway = json!({"name": "halfway", "type": "file", "content": [ids[0], nowhere]});
    let bad_tree = forge.blob(BlobKind::Tree, b"{\"nodes\":[{\"name\":\"x\"");
    let as_data = forge.blob(BlobKind::Data, b"{\"nodes\":[]}");
    let half_tree = forge.blob(BlobKind::Tree, format!("{{\"nodes\":[{good},7]}}").as_bytes());
    let nodes = [
        json!({"name": "a", "type": "dir"}),
        dir("b", &ResticId::new([9; 32])),
        dir("c", &bad_tree),
        dir("d", &as_data),
        dir("e", &half_tree),
        good.clone(),
        halfway,
    ];
    let root = forge.tree(&nodes);
    forge.finish(&root).await;
    let (found, missing) = only(&forge).await;
    let whole = [&one[..], &two, &one].concat();
    assert_eq!(has(&found, "good"), Some(whole.clone()));
    assert_eq!(has(&found, "e/good"), Some(whole));
    assert_eq!(found.len(), 2, "{:?}", found.keys());
    assert_eq!(missing, 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_lies_gives_no_wrong_byte() {
    for lie in ["offset", "length", "uncompressed_length", "type"] {
        let mut forge = Forge::new().await;
        let good = forge.file("good", &[b"some content", b"and more"]);
        let root = forge.tree(&[good]);
        let (_, pack) = forge
            .end_pack(|blobs| {
                for blob in blobs {
                    blob[lie] = match lie {
                        "offset" => json!(blob["offset"].as_u64().unwrap() + 1),
                        "length" => json!(u32::MAX - 5),
                        "uncompressed_length" => json!(u32::MAX),
                        _ => json!(if blob["type"] == "data" { "tree" } else { "data" }),
                    };
                }
            })
            .await;
        forge.index(&[pack]).await;
        forge.snapshot(&root, "2020-01-01T00:00:00Z").await;
        let world = World::new();
        let repo = world.repository().await;
        // The pack is indexed, so its header is not looked at.
        let done = run(&repo, &forge, options()).await;
        assert!(matches!(done.as_slice(), [Done::Unreadable(..)]), "{lie}: {done:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_copy_stands_in_for_a_damaged_one_and_headers_for_an_index() {
    let mut forge = Forge::new().await;
    let content = noise(3, 10_000);
    let good = forge.file("good", &[&content]);
    let root = forge.tree(std::slice::from_ref(&good));
    let (first, pack) = forge.end_pack(|_| {}).await;
    // The same blobs in a second pack that no index names.
    forge.file("good", &[&content]);
    forge.tree(&[good]);
    forge.end_pack(|_| {}).await;
    forge.index(&[pack]).await;
    forge.snapshot(&root, "2020-01-01T00:00:00Z").await;
    let key = format!("data/{}/{first}", &first.to_string()[..2]);
    forge.store.delete(&key.parse().unwrap()).await.unwrap();
    let (found, missing) = only(&forge).await;
    assert_eq!((has(&found, "good"), missing), (Some(content), 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn depth_is_bounded_and_everything_above_is_imported() {
    let mut forge = Forge::new().await;
    let bottom = forge.file("bottom", &[b"deep"]);
    let mut tree = forge.tree(&[bottom]);
    for _ in 0..4_500 {
        tree = forge.tree(&[dir("d", &tree)]);
    }
    let top = forge.file("top", &[b"high"]);
    let root = forge.tree(&[dir("d", &tree), top]);
    forge.finish(&root).await;
    let world = World::new();
    let repo = world.repository().await;
    let done = run(&repo, &forge, options()).await;
    let [Done::Imported(_, done)] = done.as_slice() else { panic!("{done:?}") };
    assert_eq!((done.missing, done.totals.files), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_is_imported_once_and_only_what_changed_is_read() {
    let mut forge = Forge::new().await;
    let large = noise(4, 3_000_000);
    let pieces: Vec<&[u8]> = large.chunks(700_000).collect();
    let (same, changing) = (forge.file("same", &pieces), forge.file("z", &[b"one"]));
    let sub = forge.tree(&[same]);
    let first = forge.tree(&[dir("sub", &sub), changing]);
    forge.finish(&first).await;
    let changed = forge.file("z", &[b"another one"]);
    let second = forge.tree(&[dir("sub", &sub), changed]);
    let (_, pack) = forge.end_pack(|_| {}).await;
    forge.index(&[pack]).await;
    forge.snapshot(&second, "2021-01-01T00:00:00Z").await;

    let world = World::new();
    let repo = world.repository().await;
    let done = run(&repo, &forge, options()).await;
    let [Done::Imported(_, old), Done::Imported(_, new)] = done.as_slice() else { panic!("{done:?}") };
    assert_eq!((old.bytes_read, new.bytes_read), (3_000_003, 11));
    assert_eq!((new.read_files, new.known_files), (1, 1));
    let found = restored(&repo, new.snapshot, Path::new("/")).await;
    assert_eq!((has(&found, "sub/same"), has(&found, "z")), (Some(large), Some(b"another one".to_vec())));
    let info = resolve(&repo, &new.snapshot.to_string(), &SnapshotFilter::default()).await.unwrap();
    assert_eq!(info.counted().0, 1_609_459_200_000_000_000, "the origin's time counts");

    assert!(run(&repo, &forge, options()).await.is_empty(), "imported twice adds nothing");
    // A third one goes on from the second, also in another run.
    let third = forge.tree(&[dir("sub", &sub)]);
    let (_, pack) = forge.end_pack(|_| {}).await;
    forge.index(&[pack]).await;
    forge.snapshot(&third, "2022-01-01T00:00:00Z").await;
    let done = run(&repo, &forge, options()).await;
    let [Done::Imported(_, third)] = done.as_slice() else { panic!("{done:?}") };
    assert_eq!((third.bytes_read, third.known_files), (0, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_missing_is_not_taken_over_as_if_it_were_whole() {
    let mut forge = Forge::new().await;
    let (kept, lost) = (forge.file("kept", &[b"kept"]), forge.file("lost", &[b"lost"]));
    let sub = forge.tree(&[kept, lost]);
    let first = forge.tree(&[dir("sub", &sub)]);
    let (_, pack) = forge.end_pack(|blobs| drop(blobs.remove(1))).await;
    let index = forge.index(&[pack]).await;
    forge.snapshot(&first, "2020-01-01T00:00:00Z").await;
    let world = World::new();
    let repo = world.repository().await;
    let done = run(&repo, &forge, options()).await;
    let [Done::Imported(theirs, old)] = done.as_slice() else { panic!("{done:?}") };
    assert_eq!(old.missing, 1);

    // Mended: without that index the pack's own header counts.
    forge.store.delete(&format!("index/{index}").parse().unwrap()).await.unwrap();
    let second = forge.tree(&[dir("sub", &sub), json!({"name": "t", "type": "symlink", "linktarget": "x"})]);
    let (_, pack) = forge.end_pack(|_| {}).await;
    forge.index(&[pack]).await;
    forge.snapshot(&second, "2021-01-01T00:00:00Z").await;
    let done = run(&repo, &forge, options()).await;
    let [Done::Imported(_, new)] = done.as_slice() else { panic!("{done:?}") };
    assert_eq!((new.missing, new.bytes_read, new.known_files), (0, 4, 1));
    let again = run(&repo, &forge, ImportOptions { again: true, ..options() }).await;
    let [Done::Imported(theirs_again, again)] = again.as_slice() else { panic!("{again:?}") };
    assert_eq!((again.missing, theirs_again.id), (0, theirs.id));
    assert!(run(&repo, &forge, ImportOptions { again: true, ..options() }).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_name_that_came_twice_nothing_is_taken_over() {
    let mut forge = Forge::new().await;
    let (refused, taken) = (forge.file("x", &[b"refused"]), forge.file("x", &[b"taken"]));
    let mut too_long = refused.clone();
    too_long["user"] = json!("u".repeat(5_000));
    let first = forge.tree(&[too_long, taken]);
    let second = forge.tree(&[refused]);
    forge.finish(&first).await;
    forge.snapshot(&second, "2021-01-01T00:00:00Z").await;
    let world = World::new();
    let repo = world.repository().await;
    let done = run(&repo, &forge, options()).await;
    let [Done::Imported(_, old), Done::Imported(_, new)] = done.as_slice() else { panic!("{done:?}") };
    assert_eq!((old.missing, new.missing), (1, 0));
    let found = restored(&repo, old.snapshot, Path::new("/")).await;
    assert_eq!(has(&found, "x"), Some(b"taken".to_vec()));
    let found = restored(&repo, new.snapshot, Path::new("/")).await;
    assert_eq!(has(&found, "x"), Some(b"refused".to_vec()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_window_counts_every_text_of_an_entry() {
    let mut forge = Forge::new().await;
    let pipe =
        json!({"name": "p", "type": "fifo", "user": "u".repeat(600_000), "group": "g".repeat(600_000)});
    let sub = forge.tree(&[pipe]);
    let dirs: Vec<Value> = (10..40).map(|number| dir(&number.to_string(), &sub)).collect();
    let root = forge.tree(&dirs);
    forge.finish(&root).await;
    let world = World::new();
    let repo = world.repository().await;
    let temp = tempfile::tempdir().unwrap();
    let (mut catalog, _) = forge.open().await.catalog(temp.path(), 2).await.unwrap();
    let key = repo.dedup_key(context::HARD_LINK).unwrap();
    let mut walk = walk::Walk::begin(&mut catalog, root, (None, None), &key).await.unwrap();
    let window = walk.window(false).await.unwrap();
    assert!(window.steps.len() < 15, "{} steps hold 1.2 MB a pipe", window.steps.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_which_the_index_says_another_length_does_not_spoil_its_file() {
    let mut forge = Forge::new().await;
    let content = noise(6, 100_000);
    let good = forge.file("good", &[&content, b"and more"]);
    let root = forge.tree(&[good]);
    let (_, honest) = forge.end_pack(|_| {}).await;
    // The same content, of which the index says less.
    forge.file("good", &[&content]);
    let (_, lying) = forge.end_pack(|blobs| blobs[0]["length"] = json!(40)).await;
    forge.index(&[honest, lying]).await;
    forge.snapshot(&root, "2020-01-01T00:00:00Z").await;
    let (found, missing) = only(&forge).await;
    assert_eq!((has(&found, "good"), missing), (Some([&content[..], b"and more"].concat()), 0));
}
