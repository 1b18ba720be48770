//! What `explain` says, held against what a walk does.

use std::collections::BTreeSet;

use super::super::explain::{Fate, Omission, explain};
use super::*;

#[derive(Debug, Clone)]
enum Thing {
    File(usize),
    Tag,
    Rules(Vec<&'static str>),
    Link,
    Dir(BTreeMap<&'static str, Thing>),
}

fn things() -> impl Strategy<Value = BTreeMap<&'static str, Thing>> {
    let name =
        || prop::sample::select(vec!["a", "b", "a.o", "c.o", "cache", "keep", "CACHEDIR.TAG", ".rules"]);
    let rules = prop::collection::vec(
        prop::sample::select(vec!["*.o", "!c.o", "/a", "b/a", "keep/", "!keep", "[z-a]", "cache"]),
        0..4,
    );
    let leaf = prop_oneof![
        (0_usize..3).prop_map(Thing::File),
        Just(Thing::Tag),
        rules.prop_map(Thing::Rules),
        Just(Thing::Link),
    ];
    let thing = leaf.prop_recursive(4, 40, 6, move |inner| {
        prop::collection::btree_map(name(), inner, 0..6).prop_map(Thing::Dir)
    });
    prop::collection::btree_map(name(), thing, 0..7)
}

fn create(dir: &Path, things: &BTreeMap<&'static str, Thing>) {
    for (name, thing) in things {
        let path = dir.join(name);
        match thing {
            Thing::File(size) => fs::write(path, vec![0; *size]).unwrap(),
            Thing::Tag => fs::write(path, "Signature: 8a477f597d28d172789f06886806bc55").unwrap(),
            Thing::Rules(lines) => fs::write(path, lines.join("\n")).unwrap(),
            Thing::Link => symlink("a", path).unwrap(),
            Thing::Dir(things) => {
                fs::create_dir(&path).unwrap();
                create(&path, things);
            }
        }
    }
}

/// Everything in a directory, and it.
fn all(dir: &Path, out: &mut Vec<PathBuf>) {
    out.push(dir.to_owned());
    if fs::symlink_metadata(dir).unwrap().is_dir() {
        for entry in fs::read_dir(dir).unwrap() {
            all(&entry.unwrap().path(), out);
        }
    }
}

fn delivered(options: WalkOptions) -> Option<BTreeSet<PathBuf>> {
    let (mut walk, _) = Walk::new(options).ok()?;
    let mut paths = BTreeSet::new();
    while let Some(item) = walk.next().unwrap() {
        match item {
            Item::Enter { entry, .. } | Item::Entry(entry) => {
                paths.insert(entry.path());
            }
            Item::Leave | Item::Failed(_) => {}
        }
    }
    Some(paths)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn it_says_of_every_entry_what_a_walk_does_with_it(
        made in things(),
        excludes in prop::collection::vec(
            prop::sample::select(vec!["*.o", "!a.o", "cache/", "**/a/b", "keep", "!keep", "b/**"]), 0..4),
        includes in prop::collection::vec(prop::sample::select(vec!["*.o", "b", "**/a/keep", "!b/a"]), 0..3),
        (caches, limit) in (any::<bool>(), prop::option::of(0_u64..3)),
        (ignore, skip, second) in (any::<bool>(), any::<bool>(), any::<bool>()),
    ) {
        let dir = tempfile::tempdir().unwrap();
        create(dir.path(), &made);
        let mut builder = FilterBuilder::new();
        for pattern in excludes {
            builder.exclude(pattern.as_bytes(), false).unwrap();
        }
        for pattern in includes {
            builder.include(pattern.as_bytes(), false).unwrap();
        }
        if ignore {
            builder.ignore_file(b".rules");
        }
        let filter = Arc::new(builder.build().unwrap());
        let mut roots = vec![Root::at(dir.path().to_owned())];
        if second {
            roots.push(Root::at(dir.path().join("b/a")));
        }
        let skipped = fs::symlink_metadata(dir.path().join("a")).ok().filter(|_| skip);
        let options = || WalkOptions {
            filter: Arc::clone(&filter),
            exclude_caches: caches,
            exclude_larger_than: limit,
            skip_dirs: skipped.iter().map(|found| (found.dev(), found.ino())).collect(),
            threads: 0,
            ..options(roots.clone())
        };
        let Some(delivered) = delivered(options()) else {
            prop_assert!(explain(options(), dir.path()).is_err());
            return Ok(());
        };
        let mut paths = Vec::new();
        all(dir.path(), &mut paths);
        for path in paths {
            let explained = explain(options(), &path).unwrap();
            let saved = matches!(explained.fate, Fate::Saved { .. });
            prop_assert_eq!(saved, delivered.contains(&path), "{:?}: {:?}", path, explained.fate);
            let told = matches!(explained.fate, Fate::Saved { .. } | Fate::LeftOut { .. });
            prop_assert!(told && explained.stat.is_ok(), "{:?}: {:?}", path, explained.fate);
        }
    }
}

fn fate(dir: &Path, path: &str, edit: impl FnOnce(&mut WalkOptions)) -> Fate {
    let mut options = options(vec![Root::at(dir.to_owned())]);
    edit(&mut options);
    explain(options, &dir.join(path)).unwrap().fate
}

#[test]
fn each_reason_is_named_with_the_place_where_it_stands() {
    let dir =
        tree(&["x.o", "sub/.rules", "sub/log", "sub/in/log", "big", "c/CACHEDIR.TAG", "c/junk", "own/f"]);
    fs::write(dir.path().join("sub/.rules"), "# logs\n\nlog\n").unwrap();
    fs::write(dir.path().join("big"), vec![0; 100]).unwrap();
    fs::write(dir.path().join("c/CACHEDIR.TAG"), "Signature: 8a477f597d28d172789f06886806bc55").unwrap();
    let rules = |build: fn(&mut FilterBuilder)| {
        let mut builder = FilterBuilder::new();
        build(&mut builder);
        Arc::new(builder.build().unwrap())
    };
    let of = |path: &str, build: fn(&mut FilterBuilder)| fate(dir.path(), path, |o| o.filter = rules(build));
    let left_out = |fate: Fate| match fate {
        Fate::LeftOut { at, omission } => (at.strip_prefix(dir.path()).unwrap().to_owned(), omission),
        other => panic!("{other:?}"),
    };

    let (at, omission) = left_out(of("x.o", |b| {
        b.exclude(b"*.o", false).unwrap();
    }));
    assert!(at == Path::new("x.o") && matches!(&omission, Omission::Rule(rule) if rule.pattern == "*.o"));
    let (at, omission) = left_out(of("sub/in/log", |b| {
        b.exclude(b"sub/", false).unwrap();
    }));
    assert!(at == Path::new("sub") && matches!(&omission, Omission::Rule(rule) if rule.pattern == "sub/"));
    let (at, omission) = left_out(of("sub/in/log", |b| {
        b.ignore_file(b".rules");
    }));
    let Omission::IgnoreFile(rule) = &omission else { panic!("{omission:?}") };
    let place = rule.place.as_ref().unwrap();
    assert_eq!((at.as_path(), place.line), (Path::new("sub/in/log"), 3));
    assert_eq!(place.file, dir.path().join("sub/.rules"));
    let (_, omission) = left_out(of("big", |b| {
        b.include(b"*.o", false).unwrap();
    }));
    assert_eq!(omission, Omission::NotIncluded);
    let (_, omission) = left_out(of("sub", |b| {
        b.include(b"*.o", false).unwrap();
    }));
    assert_eq!(omission, Omission::NotIncluded, "nothing in it is included");
    let way = of("sub", |b| {
        b.include(b"log", false).unwrap();
    });
    assert!(matches!(way, Fate::Saved { way: true, .. }), "{way:?}");

    let (_, omission) = left_out(fate(dir.path(), "big", |o| o.exclude_larger_than = Some(99)));
    assert_eq!(omission, Omission::TooLarge { size: 100, limit: 99 });
    let (_, omission) = left_out(fate(dir.path(), "c/junk", |o| o.exclude_caches = true));
    assert_eq!(omission, Omission::Cache);
    let own = fs::metadata(dir.path().join("own")).unwrap();
    let (at, omission) = left_out(fate(dir.path(), "own/f", |o| o.skip_dirs = vec![(own.dev(), own.ino())]));
    assert_eq!((at.as_path(), omission), (Path::new("own"), Omission::OwnFiles));
}

#[test]
fn what_is_not_there_or_not_asked_for_is_told_apart() {
    let dir = tree(&["src/a/f", "other/g"]);
    symlink("a", dir.path().join("src/link")).unwrap();
    let at = |path: &str| {
        explain(options(vec![Root::at(dir.path().join("src"))]), &dir.path().join(path)).unwrap().fate
    };
    assert!(matches!(at("src/a/f"), Fate::Saved { way: false, empty: None }));
    assert!(matches!(at(""), Fate::Saved { way: true, .. }), "it leads to the source");
    assert!(matches!(at("other/g"), Fate::NoSource));
    let missing =
        |fate: Fate, path: &str| matches!(fate, Fate::Missing { at } if at == dir.path().join(path));
    assert!(missing(at("src/a/gone/x"), "src/a/gone"));
    let behind = |fate: Fate, path: &str| matches!(fate, Fate::Behind { at } if at == dir.path().join(path));
    assert!(behind(at("src/link/f"), "src/link") && behind(at("src/a/f/x"), "src/a/f"));
    let gone = explain(options(vec![Root::at(dir.path().join("no"))]), &dir.path().join("no/x")).unwrap();
    assert!(missing(gone.fate, "no"));
    let none = explain(options(Vec::new()), dir.path()).unwrap();
    assert!(matches!(none.fate, Fate::NoSource) && none.stat.is_ok());
}
