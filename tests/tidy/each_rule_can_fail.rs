//! A rule that cannot fail protects nothing: each one here meets code that breaks it, and code that does not.

use super::*;

const TABLE: &str = "//! | layer | room | what |\n//! |---|---|---|\n//! | 4 | [`ops`] | x |\n//! | 4 | [`error`] | x |\n\
                     //! | 3 | [`repo`] | x |\n//! | 3 | [`index`] | x |\n//! | 1 | [`chunk`] | x |\n\
                     //! | 1 | [`filter`] | x |\n//! | 0 | [`id`] [`class`] | x |\n";

type Check = fn(&Source, &BTreeMap<String, u8>, &mut Vec<String>);

fn findings(path: &str, text: &str, check: Check) -> Vec<String> {
    let mut findings = Vec::new();
    check(&Source::parse(path, text).unwrap(), &layers(TABLE), &mut findings);
    findings
}

fn lines(path: &str, text: &str, check: Check) -> Vec<usize> {
    let line = |finding: &String| finding.split(':').nth(1).and_then(|line| line.parse().ok());
    findings(path, text, check).iter().filter_map(line).collect()
}

#[test]
fn the_table_gives_every_room_its_layer() {
    let layers = layers(TABLE);
    assert_eq!((layers["ops"], layers["chunk"], layers["class"], layers["cli"]), (4, 1, 0, CLI_LAYER));
}

#[test]
fn upward_and_sideways_imports_are_found_wherever_they_hide() {
    for text in [
        "use crate::repo::Repo;",
        "use crate::{id::ChunkId, repo::{Repo, open}};",
        "use super::super::repo;",
        "fn f() -> crate::repo::Repo { panic!() }",
        "fn f() { m!(crate::repo::open()); }",
        "use crate::filter::Rules;",
    ] {
        assert_eq!(lines("src/chunk/gear.rs", &format!("//! x\n{text}"), check_imports), [2], "{text}");
    }
    for text in [
        "use crate::id::ChunkId;",
        "use super::cutter::Cutter;",
        "use crate::chunk::cutter;",
        "#[cfg(test)]\nmod tests { use crate::repo::Repo; }",
        "#[cfg(test)]\nuse crate::repo::Repo;",
    ] {
        assert_eq!(findings("src/chunk/gear.rs", text, check_imports), [""; 0], "{text}");
    }
    assert_eq!(findings("src/ops/run.rs", "use crate::error::Error;", check_imports), [""; 0]);
    assert_eq!(lines("src/error.rs", "use crate::ops::Run;", check_imports), [1]);
    assert_eq!(lines("src/attic/old.rs", "", check_imports), [1], "a room that is not in the table");
}

#[test]
fn banned_words_are_found_in_code_and_not_in_prose_or_tests() {
    for (path, text) in [
        ("src/repo/a.rs", "fn f() { x.unwrap(); }"),
        ("src/repo/a.rs", "enum E { Other(String) }"),
        ("src/repo/a.rs", "fn f() { runtime.block_on(g()); }"),
        ("src/repo/a.rs", "fn f() { println!(\"x\"); }"),
        ("src/repo/a.rs", "use object_store::path::Path;"),
        ("src/repo/a.rs", "fn f() { std::env::var(\"HOME\"); }"),
        ("src/repo/a.rs", "fn f() { SystemTime::now(); }"),
        ("src/cli/a.rs", concat!("fn f() { to", "do!() }")),
        ("src/chunk/a.rs", "async fn f() {}"),
        ("src/chunk/a.rs", "fn f() { std::fs::read(\"x\"); }"),
        ("src/ops/restore/plan.rs", "use std::time::Instant;"),
    ] {
        assert_eq!(lines(path, text, check_words), [1], "{path}: {text}");
    }
    for (path, text) in [
        ("src/repo/a.rs", "/// Does not println!, nor .unwrap().\nfn f() { log(\"anyhow\"); }"),
        ("src/repo/a.rs", "#[cfg(test)]\nmod tests { fn f() { x.unwrap(); } }\nasync fn g() {}"),
        ("src/cli/a.rs", "fn f() { println!(\"x\"); }"),
        ("src/store/open.rs", "use object_store::path::Path;"),
        ("src/chunk/a.rs", "#[cfg(test)]\nfn f() { std::fs::read(\"x\"); }\nfn g() {}"),
    ] {
        assert_eq!(findings(path, text, check_words), [""; 0], "{path}: {text}");
    }
}

#[test]
fn sizes_are_counted_to_the_line() {
    let sizes: Check = |source, _, findings| check_sizes(source, findings);
    let function = |lines: usize| format!("impl X {{\nfn f() {{\n{}}}\n}}\n", "g();\n".repeat(lines - 2));
    assert_eq!(findings("src/a.rs", &function(FUNCTION_LINES_MAX), sizes), [""; 0]);
    assert_eq!(lines("src/a.rs", &function(FUNCTION_LINES_MAX + 1), sizes), [2]);
    let file = |lines: usize| {
        format!("{}#[cfg(test)]\nmod tests {{\n{}}}\n", "// x\n".repeat(lines), "// x\n".repeat(900))
    };
    assert_eq!(findings("src/a.rs", &file(FILE_LINES_MAX), sizes), [""; 0]);
    assert_eq!(lines("src/a.rs", &file(FILE_LINES_MAX + 1), sizes), [1]);
    assert_eq!(
        findings("src/a.rs", "impl X { fn f(&self, a: A, b: A, c: A, d: A, e: A) {} }", sizes),
        [""; 0]
    );
    assert_eq!(lines("src/a.rs", "fn f(a: A, b: A, c: A, d: A, e: A, g: A) {}", sizes), [1]);
    let given = "impl T for X { fn f(a: A, b: A, c: A, d: A, e: A, g: A) {} }\n";
    let own = format!("{given}impl X {{ fn f(a: A, b: A, c: A, d: A, e: A, g: A) {{}} }}");
    assert_eq!(lines("src/a.rs", &own, sizes), [2], "a trait decides on the arguments of its functions");
}

#[test]
fn rooms_without_docs_are_found() {
    let docs: Check = |source, _, findings| check_docs(source, findings);
    assert_eq!(lines("src/repo/mod.rs", "//! A repository.\n", docs), [1]);
    assert_eq!(lines("src/repo/open.rs", "fn f() {}\n", docs), [1]);
    assert_eq!(findings("src/repo/mod.rs", "//! A repository.\n//! # Must not\n//! Print.\n", docs), [""; 0]);
}

#[test]
fn cited_sections_must_exist_and_name_the_file() {
    let check: Check = |source, _, findings| {
        let document = "# Format\n\n## 5. Trees\n`src/format/tree.rs`\n\n## 6. Nodes\n`src/format/node.rs`\n";
        check_sections(source, &sections(document), findings);
    };
    let cite = |number: u8| format!("fn f() {{ E {{ section: \"{number}\", what: \"x\" }}; }}");
    assert_eq!(findings("src/format/tree.rs", &cite(5), check), [""; 0]);
    assert_eq!(lines("src/format/tree.rs", &cite(6), check), [1]);
    assert_eq!(lines("src/format/tree.rs", &cite(77), check), [1]);
    assert_eq!(lines("src/format/tree.rs", "//! `docs/format.md` section 6: trees.", check), [1]);
}

#[test]
fn foreign_text_and_too_many_dependencies_are_found() {
    let mut findings = Vec::new();
    check_text(
        "README.md",
        &format!("fine\nsee {}{}main", FOREIGN_TEXT[0].0, FOREIGN_TEXT[0].1),
        &mut findings,
    );
    assert_eq!(findings.len(), 1);
    assert!(findings[0].starts_with("README.md:2: "), "{findings:?}");
    let manifest = "[package]\n\n[dependencies]\n# a = b\na = \"1\" # x = y\nb = { version = \"1\" }\n\n[dev-dependencies]\nc = \"1\"\n";
    assert_eq!(dependencies(manifest), 2);
}

#[test]
fn benchmarks_that_would_measure_nothing_are_found() {
    let mut findings = Vec::new();
    let paths = ["benches/a.rs", "benches/b.rs", "src/c.rs"].map(str::to_owned);
    let manifest = "[[bench]]\nname = \"a\"\nharness = false\n\n[[bench]]\nname = \"b\"\n";
    check_benches(&paths, manifest, &mut findings);
    assert!(findings.len() == 1 && findings[0].starts_with("benches/b.rs:1: "), "{findings:?}");
}

#[test]
fn pages_that_do_not_exist_are_found() {
    let mut findings = Vec::new();
    let text = concat!(
        "see docs",
        "/here.md, section 2\nand [gone](docs",
        "/sub/gone.md).\nand docs/ and docs/decisions/"
    );
    check_pages("src/a.rs", text, |page| page.ends_with("/here.md"), &mut findings);
    assert_eq!(findings, [concat!("src/a.rs:2: docs", "/sub/gone.md does not exist")]);
}

#[test]
fn modules_that_only_tests_compile_are_known() {
    let source = Source::parse("src/crypto/aead/mod.rs", "#[cfg(test)]\nmod tests;\n").unwrap();
    assert_eq!(source.test_modules, ["src/crypto/aead/tests"]);
    let source = Source::parse("src/crypto/hash.rs", "#[cfg(test)]\npub(crate) mod testing;\n").unwrap();
    assert_eq!(source.test_modules, ["src/crypto/hash/testing"]);
}
