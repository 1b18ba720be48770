//! The house rules that a compiler does not know: layers, words, sizes, documents. Each finding says where, what and why.
//!
//! The rules are data in `rules.rs`; the layers are the table in `src/lib.rs`.

mod rules;
mod source;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use rules::{
    ARGUMENTS_MAX, BANS, DEPENDENCIES_MAX, FILE_LINES_MAX, FOREIGN_TEXT, FUNCTION_LINES_MAX, GENERATED,
    Place, SIDEWAYS,
};
use source::Source;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
/// The binary's room lies above the table of the library.
const CLI_LAYER: u8 = 5;

/// Room to layer, read from the table in `src/lib.rs`.
fn layers(lib: &str) -> BTreeMap<String, u8> {
    let mut layers = BTreeMap::from([("cli".to_owned(), CLI_LAYER), ("main".to_owned(), CLI_LAYER)]);
    for row in lib.lines().filter_map(|line| line.strip_prefix("//! | ")) {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let Some(layer) = cells.first().and_then(|cell| cell.parse().ok()) else { continue };
        let rooms = cells.get(1).unwrap_or(&"");
        layers.extend(
            rooms.split_whitespace().map(|room| {
                (room.trim_matches(['[', ']', '`']).trim_start_matches("mod@").to_owned(), layer)
            }),
        );
    }
    layers
}

fn check_imports(source: &Source, layers: &BTreeMap<String, u8>, findings: &mut Vec<String>) {
    let (path, room) = (&source.path, source.room());
    let Some(layer) = layers.get(room) else {
        if room != "lib" {
            findings.push(format!("{path}:1: room `{room}` is not in the table of src/lib.rs"));
        }
        return;
    };
    if *layer == CLI_LAYER {
        return; // another crate: the compiler shows it the public interface only
    }
    for (name, line) in source.imports() {
        let Some(target) = layers.get(&name).filter(|_| name != room) else { continue };
        let sideways = SIDEWAYS.iter().any(|(from, to, _)| *from == room && *to == name);
        if target > layer {
            findings.push(format!(
                "{path}:{line}: room `{room}` (layer {layer}) imports `{name}` (layer {target}): a room knows lower layers only; \
                 move the code, or pass the value in"
            ));
        } else if target == layer && *layer > 0 && !sideways {
            findings.push(format!(
                "{path}:{line}: room `{room}` imports `{name}` of its own layer {layer}: not in SIDEWAYS of tests/tidy/rules.rs"
            ));
        }
    }
}

fn applies(place: Place, source: &Source, layers: &BTreeMap<String, u8>) -> bool {
    let layer = layers.get(source.room()).copied();
    match place {
        Place::All => true,
        Place::Library => layer != Some(CLI_LAYER),
        Place::Except(prefix) => !source.path.starts_with(prefix),
        Place::Pure => layer == Some(1) || source.path.ends_with("/plan.rs"),
    }
}

fn check_words(source: &Source, layers: &BTreeMap<String, u8>, findings: &mut Vec<String>) {
    for (place, words, why) in BANS {
        if applies(*place, source, layers) {
            findings.extend(
                source.find(words).iter().map(|line| format!("{}:{line}: `{words}`: {why}", source.path)),
            );
        }
    }
}

fn check_sizes(source: &Source, findings: &mut Vec<String>) {
    let path = &source.path;
    if source.lines > FILE_LINES_MAX {
        findings.push(format!(
            "{path}:1: {} lines before the tests, at most {FILE_LINES_MAX}: split it by subject",
            source.lines
        ));
    }
    for function in &source.functions {
        let (name, line) = (&function.name, function.line);
        if function.lines > FUNCTION_LINES_MAX {
            findings.push(format!(
                "{path}:{line}: `{name}` has {} lines, at most {FUNCTION_LINES_MAX}",
                function.lines
            ));
        }
        if function.arguments > ARGUMENTS_MAX {
            findings.push(format!(
                "{path}:{line}: `{name}` takes {} arguments, at most {ARGUMENTS_MAX}: group what belongs together",
                function.arguments
            ));
        }
    }
}

fn check_docs(source: &Source, findings: &mut Vec<String>) {
    let path = &source.path;
    if !source.text.trim_start().starts_with("//!") {
        findings.push(format!("{path}:1: no module docs: say in a sentence what the file is"));
    }
    let is_room = path.starts_with("src/") && path.ends_with("/mod.rs") && path.matches('/').count() == 2;
    let has = |heading: &str| source.text.lines().any(|line| line.trim() == format!("//! # {heading}"));
    if is_room && !has("Invariants") && !has("Must not") {
        findings.push(format!("{path}:1: a room's docs need `# Invariants` or `# Must not`"));
    }
}

/// Section numbers and the text of each, by the headings of `docs/format.md`.
fn sections(document: &str) -> BTreeMap<String, String> {
    let mut sections = BTreeMap::new();
    for part in document.split("\n## ").skip(1) {
        if let Some((number, rest)) = part.split_once(". ") {
            sections.insert(number.to_owned(), rest.to_owned());
        }
    }
    sections
}

/// Every section a file of `src/format/` cites must exist, and must name that file.
fn check_sections(source: &Source, sections: &BTreeMap<String, String>, findings: &mut Vec<String>) {
    let mut cited: Vec<(usize, String)> = Vec::new();
    for (number, line) in source.text.lines().enumerate() {
        for mark in ["docs/format.md` section ", "section: \"", "SECTION: &str = \""] {
            for rest in line.split(mark).skip(1) {
                cited.push((number + 1, rest.chars().take_while(char::is_ascii_digit).collect()));
            }
        }
    }
    let own = source.path.starts_with("src/format/");
    for (line, number) in cited.into_iter().filter(|(_, number)| !number.is_empty()) {
        let at = format!("{}:{line}: section {number}", source.path);
        match sections.get(&number) {
            None => findings.push(format!("{at} is not in docs/format.md")),
            Some(text) if own && !text.contains(&source.path) => {
                findings.push(format!(
                    "{at} of docs/format.md does not name this file: wrong number, or a missing link"
                ));
            }
            Some(_) => {}
        }
    }
}

fn check_text(path: &str, text: &str, findings: &mut Vec<String>) {
    for (number, line) in text.lines().enumerate() {
        for (head, tail, why) in FOREIGN_TEXT {
            if line.contains(&format!("{head}{tail}")) {
                findings.push(format!("{path}:{}: `{head}{tail}`: {why}", number + 1));
            }
        }
    }
}

/// Pages below `docs/` that a text speaks of and that do not exist.
fn check_pages(path: &str, text: &str, exists: impl Fn(&str) -> bool, findings: &mut Vec<String>) {
    for (number, line) in text.lines().enumerate() {
        for rest in line.split("docs/").skip(1) {
            let end =
                rest.find(|c: char| !c.is_ascii_alphanumeric() && !"-_./".contains(c)).unwrap_or(rest.len());
            let page = format!("docs/{}", rest[..end].trim_end_matches('.'));
            if page.ends_with(".md") && !exists(&page) {
                findings.push(format!("{path}:{}: {page} does not exist", number + 1));
            }
        }
    }
}

fn dependencies(manifest: &str) -> usize {
    let section = manifest.split("\n[dependencies]\n").nth(1).unwrap_or("");
    let rows = section.lines().take_while(|line| !line.starts_with('['));
    rows.filter(|line| line.split('#').next().is_some_and(|row| row.contains('='))).count()
}

/// Tracked files, and new ones that git does not ignore; without git, everything outside of hidden folders and `target`.
fn project_files() -> Vec<String> {
    let git = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(ROOT)
        .output();
    if let Ok(output) = git
        && output.status.success()
    {
        return String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect();
    }
    let hidden = |entry: &ignore::DirEntry| {
        entry.depth() > 0 && matches!(entry.file_name().to_string_lossy().as_ref(), "target" | ".git")
    };
    let mut walk = ignore::WalkBuilder::new(ROOT);
    walk.standard_filters(false).filter_entry(move |entry| !hidden(entry));
    let files = walk
        .build()
        .filter_map(Result::ok)
        .filter(|entry| entry.file_type().is_some_and(|kind| kind.is_file()));
    files.filter_map(|e| Some(e.path().strip_prefix(ROOT).ok()?.to_string_lossy().into_owned())).collect()
}

fn sources(paths: &[String], findings: &mut Vec<String>) -> Vec<Source> {
    let mut sources = Vec::new();
    for path in paths.iter().filter(|path| path.starts_with("src/") && path.ends_with(".rs")) {
        let Ok(text) = fs::read_to_string(Path::new(ROOT).join(path)) else { continue };
        match Source::parse(path, &text) {
            Ok(source) => sources.push(source),
            Err(error) => findings.push(error),
        }
    }
    let tests: BTreeSet<String> = sources.iter().flat_map(|source| source.test_modules.clone()).collect();
    let is_test = |path: &str| {
        tests.iter().any(|test| path == format!("{test}.rs") || path.starts_with(&format!("{test}/")))
    };
    sources.retain(|source| !is_test(&source.path));
    sources
}

/// Benchmarks bring their own `main`; without its entry in the manifest one is built as a test without tests, and measures nothing.
fn check_benches(paths: &[String], manifest: &str, findings: &mut Vec<String>) {
    let names = paths.iter().filter_map(|path| path.strip_prefix("benches/")?.strip_suffix(".rs"));
    for name in names.filter(|name| !name.contains('/')) {
        if !manifest.contains(&format!("[[bench]]\nname = \"{name}\"\nharness = false\n")) {
            findings.push(format!(
                "benches/{name}.rs:1: Cargo.toml has no [[bench]] for it with harness = false"
            ));
        }
    }
}

#[test]
fn the_house_is_tidy() {
    let mut findings = Vec::new();
    let paths = project_files();
    let read = |path: &str| fs::read_to_string(Path::new(ROOT).join(path)).unwrap_or_default();
    let layers = layers(&read("src/lib.rs"));
    assert!(layers.len() > 10, "the table of src/lib.rs was not understood: {layers:?}");
    let sections = sections(&read("docs/format.md"));
    assert!(sections.len() > 10, "docs/format.md was not understood: {:?}", sections.keys());
    for source in sources(&paths, &mut findings) {
        check_imports(&source, &layers, &mut findings);
        check_words(&source, &layers, &mut findings);
        check_sizes(&source, &mut findings);
        check_docs(&source, &mut findings);
        check_sections(&source, &sections, &mut findings);
    }
    for path in paths.iter().filter(|path| !GENERATED.contains(&path.as_str())) {
        let text = read(path);
        check_text(path, &text, &mut findings);
        check_pages(path, &text, |page| Path::new(ROOT).join(page).exists(), &mut findings);
    }
    check_benches(&paths, &read("Cargo.toml"), &mut findings);
    let count = dependencies(&read("Cargo.toml"));
    if !(1..DEPENDENCIES_MAX).contains(&count) {
        findings.push(format!(
            "Cargo.toml: {count} direct dependencies, fewer than {DEPENDENCIES_MAX} are allowed"
        ));
    }
    assert!(findings.is_empty(), "{} findings:\n{}", findings.len(), findings.join("\n"));
}

#[cfg(test)]
mod each_rule_can_fail;
