//! Speed of both ends of a restore and a backup at the file system: walking a tree, and writing one of small files.
//!
//! `LIFEBOAT_BENCH_TREE` names a tree to walk; without it one of 20,000 files is made. `TMPDIR` says where files are made: choose a
//! fresh file system, because ext4 is slow for minutes after many files were deleted. Nothing is deleted before the end.
#![allow(clippy::unwrap_used, missing_docs, reason = "a benchmark may stop at any error")]

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use divan::Bencher;
use divan::counter::ItemsCount;
use lifeboat::cancel::Cancel;
use lifeboat::filter::FilterBuilder;
use lifeboat::source::target::{Metadata, Target, TargetOptions};
use lifeboat::source::walk::{Item, Root, Tuning, Walk, WalkOptions};
use tempfile::TempDir;

/// Files in each directory that is made.
const EACH: usize = 100;
/// Files that one sample of [`create`] makes.
const CREATED: usize = 20_000;

static PLACE: OnceLock<PathBuf> = OnceLock::new();

fn main() {
    let place = TempDir::new().unwrap();
    PLACE.set(place.path().to_owned()).unwrap();
    divan::main();
}

fn place() -> &'static Path {
    PLACE.get().unwrap()
}

/// Writes files of 600 bytes, some directories on each thread.
fn write(target: &Target, files: usize, threads: usize) {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let metadata = Metadata { mode: 0o644, uid, gid, mtime: (1_000_000_000, 0), ..Metadata::default() };
    let make = |number: usize| target.make_dir(&target.root(), number.to_string().as_bytes()).unwrap();
    let dirs: Vec<_> = (0..files / EACH).map(make).collect();
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let (dirs, metadata) = (&dirs, &metadata);
            scope.spawn(move || {
                for dir in dirs.iter().skip(thread).step_by(threads) {
                    for number in 0..EACH {
                        let file = target.create_file(dir, number.to_string().as_bytes(), 600).unwrap();
                        file.write_at(&[7; 600], 0).unwrap();
                        assert!(file.finish(metadata).unwrap().is_empty());
                    }
                }
            });
        }
    });
}

fn tree() -> PathBuf {
    if let Some(tree) = std::env::var_os("LIFEBOAT_BENCH_TREE") {
        return tree.into();
    }
    let tree = place().join("tree");
    if !tree.exists() {
        write(&Target::open(&tree, TargetOptions::default()).unwrap(), 20_000, 1);
    }
    tree
}

fn walked(tree: &Path, threads: usize) -> usize {
    let options = WalkOptions {
        roots: vec![Root { path: tree.to_owned(), stored: Vec::new() }],
        filter: Arc::new(FilterBuilder::new().build().unwrap()),
        one_file_system: false,
        exclude_caches: false,
        exclude_larger_than: None,
        streams: Vec::new(),
        skip_dirs: Vec::new(),
        temp_dir: place().to_owned(),
        threads,
        cancel: Cancel::new(),
        tuning: Tuning::default(),
    };
    let (mut walk, failed) = Walk::new(options).unwrap();
    assert!(failed.is_empty(), "{failed:?}");
    let mut count = 0;
    while let Some(item) = walk.next().unwrap() {
        count += usize::from(!matches!(item, Item::Leave));
    }
    count
}

/// With so many threads that list ahead.
#[divan::bench(args = [0, 1, 2], sample_count = 10, sample_size = 1)]
fn walk(bencher: Bencher<'_, '_>, threads: usize) {
    let tree = tree();
    let entries = walked(&tree, threads);
    bencher.counter(ItemsCount::new(entries)).bench_local(|| walked(&tree, threads));
}

/// Files of 600 bytes in directories of a hundred.
#[divan::bench(args = [1, 2], sample_count = 3, sample_size = 1)]
fn create(bencher: Bencher<'_, '_>, threads: usize) {
    let mut number = 0;
    let fresh = || {
        number += 1;
        let path = place().join(format!("{threads}-{number}"));
        Target::open(&path, TargetOptions::default()).unwrap()
    };
    let bencher = bencher.counter(ItemsCount::new(CREATED)).with_inputs(fresh);
    bencher.bench_local_refs(|target| write(target, CREATED, threads));
}
