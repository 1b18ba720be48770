//! The order and the content of a walk.

mod explain;
mod trouble;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::*;
use crate::filter::FilterBuilder;
use crate::source::Kind;

fn options(roots: Vec<Root>) -> WalkOptions {
    WalkOptions {
        roots,
        streams: Vec::new(),
        filter: Arc::default(),
        one_file_system: false,
        exclude_caches: false,
        exclude_larger_than: None,
        skip_dirs: Vec::new(),
        temp_dir: std::env::temp_dir(),
        threads: 2,
        cancel: Cancel::new(),
        tuning: Tuning::default(),
    }
}

/// Stored under nothing, so that the walk shows the content of the directory only.
fn bare(dir: &Path) -> Vec<Root> {
    vec![Root { path: dir.to_owned(), stored: Vec::new() }]
}

/// One line an item: `name/` for a directory, then what is in it, then `^`; `!name` for a failure.
fn lines(walk: &mut Walk) -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    while let Some(item) = walk.next().unwrap() {
        out.push(match item {
            Item::Enter { entry, error: None } => [entry.name(), b"/"].concat(),
            Item::Enter { entry, error: Some(_) } => [b"!", entry.name(), b"/"].concat(),
            Item::Leave => b"^".to_vec(),
            Item::Entry(entry) => entry.name().to_vec(),
            Item::Failed(failure) => [b"!", &*failure.name].concat(),
        });
    }
    out
}

fn walked(options: WalkOptions) -> Vec<String> {
    let (mut walk, failed) = Walk::new(options).unwrap();
    assert!(failed.is_empty(), "{failed:?}");
    lines(&mut walk).into_iter().map(|line| String::from_utf8_lossy(&line).into_owned()).collect()
}

fn naive(dir: &Path, name: &[u8], out: &mut Vec<Vec<u8>>) {
    out.push([name, b"/"].concat());
    let entries: BTreeMap<_, _> =
        fs::read_dir(dir).unwrap().map(|e| e.unwrap()).map(|e| (e.file_name(), e)).collect();
    for (name, entry) in entries {
        if entry.file_type().unwrap().is_dir() {
            naive(&entry.path(), name.as_bytes(), out);
        } else {
            out.push(name.as_bytes().to_vec());
        }
    }
    out.push(b"^".to_vec());
}

fn make(root: &Path, paths: &[&str]) {
    for path in paths {
        let path = root.join(path.trim_end_matches('/'));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        if paths.iter().any(|p| p.ends_with('/') && root.join(p.trim_end_matches('/')) == path) {
            fs::create_dir_all(path).unwrap();
        } else {
            fs::write(path, b"x").unwrap();
        }
    }
}

fn tree(paths: &[&str]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    make(dir.path(), paths);
    dir
}

fn with_rules(dir: &Path, build: impl FnOnce(&mut FilterBuilder)) -> Vec<String> {
    let mut builder = FilterBuilder::new();
    build(&mut builder);
    walked(WalkOptions { filter: Arc::new(builder.build().unwrap()), ..options(bare(dir)) })
}

#[derive(Debug, Clone)]
enum Made {
    File,
    Dir(BTreeMap<Vec<u8>, Made>),
}

fn arbitrary_tree() -> impl Strategy<Value = BTreeMap<Vec<u8>, Made>> {
    let name = || prop::collection::vec(prop::sample::select(b"ab.- \n\xff~0".to_vec()), 3..6);
    let leaf = Just(Made::File).boxed();
    let made = leaf.prop_recursive(5, 60, 6, move |inner| {
        prop_oneof![Just(Made::File), prop::collection::btree_map(name(), inner, 0..6).prop_map(Made::Dir)]
    });
    prop::collection::btree_map(name(), made, 0..8)
}

fn create(dir: &Path, tree: &BTreeMap<Vec<u8>, Made>) {
    for (name, made) in tree {
        let path = dir.join(OsStr::from_bytes(name));
        match made {
            Made::File => fs::write(path, b"").unwrap(),
            Made::Dir(tree) => {
                fs::create_dir(&path).unwrap();
                create(&path, tree);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn order_is_that_of_a_naive_walk_whatever_the_threads_and_bounds(
        made in arbitrary_tree(),
        threads in 0_usize..5,
        lookahead in prop::sample::select(vec![1_usize, 3, 100]),
        block in prop::sample::select(vec![1_usize, 2, 64]),
        names_bytes in prop::sample::select(vec![1_usize, 100, 1 << 20]),
    ) {
        let dir = tempfile::tempdir().unwrap();
        create(dir.path(), &made);
        let mut expected = Vec::new();
        naive(dir.path(), b"", &mut expected);
        let tuning = Tuning { lookahead, block, names_bytes, open_dirs: 2, after_listing: None };
        let (mut walk, _) = Walk::new(WalkOptions { threads, tuning, ..options(bare(dir.path())) }).unwrap();
        prop_assert_eq!(lines(&mut walk), expected);
    }
}

#[test]
fn every_kind_of_entry_is_delivered_and_nothing_is_opened_or_followed() {
    let dir = tree(&["file", "dir/inner"]);
    let at = |name: &str| dir.path().join(name);
    symlink("/etc", at("link")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, at("pipe"), rustix::fs::Mode::RUSR).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
    let long = "n".repeat(255);
    fs::write(at(&long), b"").unwrap();
    fs::write(dir.path().join(OsStr::from_bytes(b"new\nline\xff")), b"abc").unwrap();
    let device = rustix::fs::makedev(1, 3);
    let mode = rustix::fs::Mode::RUSR;
    let made =
        rustix::fs::mknodat(rustix::fs::CWD, at("null"), rustix::fs::FileType::CharacterDevice, mode, device);
    if made.is_err() {
        println!("skipped: device nodes need root");
    }
    let (mut walk, _) = Walk::new(options(bare(dir.path()))).unwrap();
    let mut seen = BTreeMap::new();
    while let Some(item) = walk.next().unwrap() {
        match item {
            Item::Enter { entry, error: None } | Item::Entry(entry) => {
                let meta = fs::symlink_metadata(entry.path()).unwrap();
                let stat = *entry.stat();
                assert_eq!((stat.ino, stat.dev, stat.mode), (meta.ino(), meta.dev(), meta.mode()));
                assert_eq!((stat.uid, stat.gid, stat.nlink), (meta.uid(), meta.gid(), meta.nlink()));
                assert_eq!((stat.mtime.secs, i64::from(stat.mtime.nanos)), (meta.mtime(), meta.mtime_nsec()));
                assert_eq!((stat.size, stat.rdev), (meta.size(), meta.rdev()));
                seen.insert(entry.name().to_vec(), stat.kind());
            }
            Item::Leave => {}
            other => panic!("{other:?}"),
        }
    }
    let kind = |name: &[u8]| seen.get(name).copied();
    assert_eq!(kind(b"file"), Some(Kind::File));
    assert_eq!(kind(b"dir"), Some(Kind::Dir));
    assert_eq!(kind(b"link"), Some(Kind::Symlink));
    assert_eq!(kind(b"pipe"), Some(Kind::Fifo));
    assert_eq!(kind(b"socket"), Some(Kind::Socket));
    assert_eq!(kind(b"new\nline\xff"), Some(Kind::File));
    assert_eq!(kind(long.as_bytes()), Some(Kind::File));
    assert_eq!(kind(b"null"), made.is_ok().then_some(Kind::CharDevice));
}

/// Makes directories inside each other, deeper than any path reaches, each with a file that comes after the next one.
fn deep(dir: &Path, depth: usize, name: &str) {
    use rustix::fs::{Mode, OFlags, mkdirat, open, openat};
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let mut fd = open(dir, flags, Mode::empty()).unwrap();
    for _ in 0..depth {
        openat(&fd, "z", OFlags::CREATE | OFlags::WRONLY, Mode::RUSR).unwrap();
        mkdirat(&fd, name, Mode::RWXU).unwrap();
        fd = openat(&fd, name, flags, Mode::empty()).unwrap();
    }
}

fn remove_deep(dir: &Path) {
    // `rm` uses names relative to directories, which the standard library's removal also does, but by recursion.
    assert!(std::process::Command::new("rm").arg("-rf").arg(dir).status().unwrap().success());
}

#[test]
fn depth_and_length_of_paths_have_no_limit() {
    let dir = tempfile::tempdir().unwrap();
    let name = "d".repeat(200);
    deep(dir.path(), 3000, &name);
    for threads in [0, 2] {
        let tuning = Tuning { open_dirs: 8, ..Tuning::default() };
        let (mut walk, _) = Walk::new(WalkOptions { threads, tuning, ..options(bare(dir.path())) }).unwrap();
        let (mut depth, mut deepest, mut files) = (0_usize, 0, 0);
        while let Some(item) = walk.next().unwrap() {
            match item {
                Item::Enter { error: None, .. } => depth += 1,
                Item::Leave => depth -= 1,
                Item::Entry(entry) => {
                    entry.dir().handle().unwrap();
                    files += 1;
                }
                other => panic!("{other:?}"),
            }
            deepest = deepest.max(depth);
        }
        assert_eq!((deepest, files), (3001, 3000));
    }
    remove_deep(dir.path());
}

#[test]
fn a_hundred_thousand_levels_do_not_overflow_the_stack() {
    let window = dir::Window::new(4);
    let mut dir = Dir::root(window).unwrap();
    for _ in 0..100_000 {
        dir = dir.child(b"x", &crate::source::Stat::default(), false);
    }
    assert_eq!(dir.path().as_os_str().len(), 200_000);
    drop(dir);
}

#[test]
fn roots_become_one_tree_with_the_way_to_them() {
    let dir = tree(&["a/b/c/file", "a/b/other", "a/x", "e"]);
    let base = dir.path().file_name().unwrap().to_str().unwrap().to_owned();
    let roots = ["a/b/c", "a/b", "a/b", "e"].map(|path| Root::at(dir.path().join(path))).to_vec();
    let parents = dir.path().parent().unwrap();
    let mut expected: Vec<String> = vec!["/".into()];
    expected.extend(roots::parts(parents).map(|part| format!("{}/", String::from_utf8_lossy(part))));
    let depth = expected.len() + 1;
    expected.push(format!("{base}/"));
    expected.extend(["a/", "b/", "c/", "file", "^", "other", "^", "^", "e"].map(String::from));
    expected.extend(vec!["^".to_string(); depth]);
    assert_eq!(walked(options(roots.clone())), expected);

    let (mut walk, _) = Walk::new(options(roots)).unwrap();
    let mut inodes = Vec::new();
    while let Some(item) = walk.next().unwrap() {
        if let Item::Enter { entry, .. } = item {
            assert_eq!(entry.stat().ino, fs::metadata(entry.path()).unwrap().ino());
            inodes.push(entry.stat().ino);
        }
    }
    assert!(inodes.contains(&fs::metadata(parents).unwrap().ino()));
}

#[test]
fn a_stored_path_moves_a_root_and_shadows_what_is_there() {
    let dir = tree(&["home/a/f", "home/m", "srv/data/g", "srv/file"]);
    let part = |parts: &[&str]| parts.iter().map(|p| p.as_bytes().to_vec()).collect::<Vec<_>>();
    let at = |path: &str, stored: &[&str]| Root { path: dir.path().join(path), stored: part(stored) };
    let roots = vec![
        at("home", &["h"]),
        at("srv/data", &["h", "a"]),
        at("srv/file", &["h", "k"]),
        at("srv", &["new", "z"]),
    ];
    let got = walked(options(roots));
    let expected =
        ["/", "h/", "a/", "g", "^", "k", "m", "^", "new/", "z/", "data/", "g", "^", "file", "^", "^", "^"];
    assert_eq!(got, expected);

    let (mut walk, _) = Walk::new(options(vec![at("srv/file", &["k"])])).unwrap();
    assert!(matches!(walk.next().unwrap(), Some(Item::Enter { .. })));
    let Some(Item::Entry(entry)) = walk.next().unwrap() else { panic!() };
    assert_eq!((entry.name(), entry.source_name()), (&b"k"[..], &b"file"[..]));
    assert_eq!(entry.path(), dir.path().join("srv/file"));

    let clash = |roots| Walk::new(options(roots)).map(|_| ()).unwrap_err();
    assert!(matches!(clash(vec![at("home", &["x"]), at("srv", &["x"])]), SourceError::Collision { .. }));
    assert!(matches!(
        clash(vec![at("srv/file", &["x"]), at("home", &["x", "y"])]),
        SourceError::Collision { .. }
    ));
    for bad in ["", ".", "..", "a/b", "a\0"] {
        assert!(matches!(clash(vec![at("home", &[bad])]), SourceError::BadStoredPath { .. }), "{bad:?}");
    }
}

#[test]
fn a_missing_root_is_told_apart_and_a_link_as_a_root_stays_a_link() {
    let dir = tree(&["real/f"]);
    symlink("real", dir.path().join("link")).unwrap();
    symlink("nowhere", dir.path().join("broken")).unwrap();
    let roots = ["gone", "link", "broken", "real/f/below"]
        .map(|p| Root { path: dir.path().join(p), stored: vec![p.replace('/', "_").into_bytes()] });
    let (mut walk, failed) = Walk::new(options(roots.to_vec())).unwrap();
    assert!(
        failed.iter().all(|e| matches!(e, SourceError::Missing { .. })) && failed.len() == 2,
        "{failed:?}"
    );
    assert_eq!(lines(&mut walk), [&b"/"[..], b"broken", b"link", b"^"]);
    let through =
        walked(options(vec![Root { path: dir.path().join("link/f"), stored: vec![b"f".to_vec()] }]));
    assert_eq!(through, ["/", "f", "^"]);
    let (mut none, failed) = Walk::new(options(vec![roots[0].clone()])).unwrap();
    assert!(failed.len() == 1 && none.next().unwrap().is_none());
}

#[test]
fn rules_apply_and_cannot_hide_a_root() {
    let dir =
        tree(&["a.o", "keep/b.o", "keep/c.c", "cache/x", "sub/.rules", "sub/log", "sub/in/log", "sub/k.o"]);
    fs::write(dir.path().join("sub/.rules"), "/log\n[z-a]\n!k.o\n").unwrap();
    let got = with_rules(dir.path(), |b| {
        b.exclude(b"*.o", false).unwrap().exclude(b"cache/", false).unwrap();
    });
    assert_eq!(got, ["/", "keep/", "c.c", "^", "sub/", ".rules", "in/", "log", "^", "log", "^", "^"]);
    let got = with_rules(dir.path(), |b| {
        b.ignore_file(b".rules").exclude(b"[ak]*", false).unwrap();
    });
    assert_eq!(got, ["/", "cache/", "x", "^", "sub/", "!.rules", ".rules", "in/", "log", "^", "^", "^"]);
    let got = with_rules(dir.path(), |b| {
        b.include(b"*.o", false).unwrap().exclude(b"sub", false).unwrap();
    });
    assert_eq!(got, ["/", "a.o", "keep/", "b.o", "^", "^"]);

    let mut builder = FilterBuilder::new();
    builder.exclude(b"keep", false).unwrap();
    let filter = Arc::new(builder.build().unwrap());
    let root = Root::at(dir.path().join("keep"));
    let error = Walk::new(WalkOptions { filter, ..options(vec![root]) }).unwrap_err();
    assert!(matches!(error, SourceError::ExcludedRoot { .. }), "{error:?}");
}

#[test]
fn a_root_inside_an_excluded_directory_is_still_walked() {
    let dir = tree(&["top/skip/keep/f", "top/skip/g", "top/h"]);
    let stored = |parts: &[&str]| parts.iter().map(|p| p.as_bytes().to_vec()).collect();
    let root = |path: &str, parts: &[&str]| Root { path: dir.path().join(path), stored: stored(parts) };
    let roots = vec![root("top", &["top"]), root("top/skip/keep", &["top", "skip", "keep"])];
    let mut builder = FilterBuilder::new();
    builder.exclude(b"skip", false).unwrap();
    let got = walked(WalkOptions { filter: Arc::new(builder.build().unwrap()), ..options(roots) });
    assert_eq!(got, ["/", "top/", "h", "skip/", "keep/", "f", "^", "^", "^", "^"]);
}

#[test]
fn caches_large_files_and_the_repository_are_left_out_and_counted() {
    let dir =
        tree(&["c/CACHEDIR.TAG", "c/junk", "c/sub/x", "fake/CACHEDIR.TAG", "fake/y", "repo/data", "big"]);
    fs::write(dir.path().join("c/CACHEDIR.TAG"), "Signature: 8a477f597d28d172789f06886806bc55\n# x").unwrap();
    fs::write(dir.path().join("big"), vec![0; 5000]).unwrap();
    let repo = fs::metadata(dir.path().join("repo")).unwrap();
    let (mut walk, _) = Walk::new(WalkOptions {
        exclude_caches: true,
        exclude_larger_than: Some(4999),
        skip_dirs: vec![(repo.dev(), repo.ino())],
        ..options(bare(dir.path()))
    })
    .unwrap();
    let expected: [&[u8]; 9] =
        [b"/", b"c/", b"CACHEDIR.TAG", b"^", b"fake/", b"CACHEDIR.TAG", b"y", b"^", b"^"];
    assert_eq!(lines(&mut walk), expected);
    let stats = walk.stats();
    assert_eq!((stats.in_caches, stats.too_large, stats.skipped), (2, 1, 1));
}

#[test]
fn streams_stand_in_order_where_nothing_else_does() {
    let dir = tree(&["d/b", "d/x"]);
    let parts = |path: &str| path.split('/').map(|part| part.as_bytes().to_vec()).collect::<Vec<_>>();
    let streams = |paths: &[&str]| paths.iter().map(|path| parts(path)).collect::<Vec<_>>();
    let root = || vec![Root { path: dir.path().join("d"), stored: parts("m/d") }];
    let with = |paths: &[&str]| WalkOptions { streams: streams(paths), ..options(root()) };
    let rules = FilterBuilder::new().build().unwrap();
    let all = WalkOptions { filter: Arc::new(rules), ..with(&["z", "m/c", "a/b/c", "m/e"]) };
    let expected = ["/", "a/", "b/", "c", "^", "^", "m/", "c", "d/", "b", "x", "^", "e", "^", "z", "^"];
    assert_eq!(walked(all), expected);
    let alone = WalkOptions { streams: streams(&["only"]), ..options(Vec::new()) };
    let (mut walk, _) = Walk::new(alone).unwrap();
    let mut numbers = Vec::new();
    while let Some(item) = walk.next().unwrap() {
        if let Item::Entry(entry) = item {
            numbers.push((entry.name().to_vec(), entry.stream()));
        }
    }
    assert_eq!(numbers, [(b"only".to_vec(), Some(0))]);
    for bad in [&["m/d"][..], &["m/d/new"], &["m"], &["a", "a"], &["a", "a/b"], &["a/b", "a"], &["a/../b"]] {
        let error = Walk::new(with(bad)).unwrap_err();
        assert_eq!(error.class(), crate::class::Class::Usage, "{bad:?}: {error}");
    }
}
