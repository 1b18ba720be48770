//! Pairs of directories that are deep, split in different ways, or made to mislead.

use super::super::testing::Forge;
use super::super::{Lookup, damaged_page};
use super::*;
use crate::format::FormatError;
use crate::id::ChunkId;
use crate::ops::testing::World;
use crate::repo::Repository;

/// One line a step: `-path`, `+path`, `*path` for both, `?path` for an unknown one, `!dir` for a gap.
async fn steps(repo: &Repository, trees_of: [Option<TreeRef>; 2], from: Option<&[u8]>) -> Vec<String> {
    let lookup = Lookup::open(repo).await.unwrap();
    let mut reader = lookup.reader().unwrap();
    let mut walk = PairWalk::new(trees_of, Vec::new(), from);
    let mut out = Vec::new();
    while let Some(pair) = walk.next(&mut reader).await.unwrap() {
        let mark = match &pair {
            Pair::Entry { old: Some(_), new: Some(_) } => '*',
            Pair::Entry { old: Some(_), .. } => '-',
            Pair::Entry { .. } => '+',
            Pair::Unknown { .. } => '?',
            Pair::Gap(_) => '!',
        };
        out.push(format!("{mark}{}", String::from_utf8_lossy(walk.path())));
        if let Pair::Entry { old, new } = &pair {
            walk.enter([old.as_deref(), new.as_deref()], None);
        }
        assert!(out.len() < 10_000, "it ends");
    }
    out
}

fn files(forge: &mut Forge<'_>, names: &[&str]) -> TreeRef {
    let nodes: Vec<_> = names.iter().map(|name| forge.file(name, &[b"x"])).collect();
    forge.page(&nodes)
}

#[tokio::test]
async fn a_directory_that_grew_shares_its_pages_with_what_it_was() {
    let world = World::new();
    let repo = world.repository().await;
    let mut forge = Forge::new(&repo);
    let (one, two) = (files(&mut forge, &["a", "b"]), files(&mut forge, &["m", "n"]));
    let three = files(&mut forge, &["x"]);
    let grown = forge.pages(&[("a", one), ("m", two)]);
    let above = forge.pages(&[("a", grown)]);
    let more = forge.pages(&[("x", three)]);
    let higher = forge.pages(&[("a", grown), ("x", more)]);
    forge.store(grown, 1).await;
    assert_eq!(steps(&repo, [Some(one), Some(grown)], None).await, ["+/m", "+/n"]);
    assert_eq!(steps(&repo, [Some(higher), Some(one)], None).await, ["-/m", "-/n", "-/x"]);
    assert_eq!(steps(&repo, [Some(above), Some(grown)], None).await, [""; 0]);
    assert_eq!(steps(&repo, [Some(two), Some(higher)], None).await, ["+/a", "+/b", "+/x"]);
    assert_eq!(steps(&repo, [None, None], None).await, [""; 0]);
    // Pages with nothing but earlier names are passed by; of the page itself all comes.
    assert_eq!(steps(&repo, [None, Some(higher)], Some(b"n")).await, ["+/m", "+/n", "+/x"]);
    assert_eq!(steps(&repo, [None, Some(higher)], Some(b"z")).await, ["+/x"]);
}

#[tokio::test]
async fn trees_deeper_than_pages_are_kept_are_compared_to_their_ends() {
    let world = World::new();
    let repo = world.repository().await;
    let mut forge = Forge::new(&repo);
    let depth = PAGES_KEPT + 10;
    let mut roots = Vec::new();
    for side in ["old", "new"] {
        let mut node = forge.file("b", &[side.as_bytes()]);
        for _ in 0..depth {
            let (before, behind) = (forge.file("a", &[b"same"]), forge.file(side, &[b"x"]));
            let mut all = vec![before, node, behind];
            all.sort_by(|one, other| one.name.cmp(&other.name));
            node = forge.dir("b", &all);
        }
        roots.push(node.tree);
    }
    forge.store(roots[0].unwrap(), 1).await;
    let found = steps(&repo, [roots[0], roots[1]], None).await;
    // One changed file or directory a level, and one entry of each side behind it.
    assert_eq!(found.len(), 3 * depth);
    assert_eq!(found[depth - 1], format!("*{}", "/b".repeat(depth)));
    assert_eq!(found[3 * depth - 1], "-/old");
    assert_eq!(found[3 * depth - 2], "+/new");
}

#[tokio::test]
async fn pages_that_are_made_to_mislead_are_damage_and_end() {
    let world = World::new();
    let repo = world.repository().await;
    let mut forge = Forge::new(&repo);
    let (one, two) = (files(&mut forge, &["a", "b"]), files(&mut forge, &["m", "n"]));
    let honest = forge.pages(&[("a", one), ("m", two)]);
    let backwards = forge.pages(&[("m", two), ("a", one)]);
    let again = forge.pages(&[("a", one), ("b", one), ("c", one)]);
    let other = files(&mut forge, &["x"]);
    let false_names = forge.pages(&[("0", other)]);
    let twice = files(&mut forge, &["a", "a", "b"]);
    let lost = TreeRef { level: 0, id: ChunkId::new([9; 32]), len: 5 };
    let beyond = TreeRef { level: 200, id: one.id, len: one.len };
    forge.store(honest, 1).await;
    for hostile in [backwards, again, false_names, twice, lost, beyond] {
        for pair in [[Some(hostile), Some(honest)], [Some(honest), Some(hostile)], [Some(hostile), None]] {
            let found = steps(&repo, pair, None).await;
            assert!(found.iter().any(|step| step == "!"), "{hostile:?}: {found:?}");
        }
        assert_eq!(steps(&repo, [Some(hostile), Some(hostile)], None).await, [""; 0]);
    }
    let found = steps(&repo, [Some(twice), Some(one)], None).await;
    assert_eq!(found, ["!"], "what is the same on both sides is no difference");
    let found = steps(&repo, [Some(lost), Some(honest)], None).await;
    assert_eq!(found, ["!", "?/a", "?/b", "?/m", "?/n"]);
    let rule = FormatError::Value { section: "5", what: "order of names" };
    assert!(super::super::is_local_damage(&damaged_page(&one.id, rule)));
}
