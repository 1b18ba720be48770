//! Golden vectors of the stored format: bytes in files below `vectors/`, one folder for each kind of value.
//!
//! `make.py` makes the bytes from `docs/format.md`, without this library; here they meet the decoders. What a good vector
//! decodes to is part of the file (`expect: ok ...`), and encoding that value again must give the same bytes. A bad
//! vector names the exact error. After a change of the format: change `make.py`, run it, fill in the values with
//! `LIFEBOAT_BLESS=1 cargo test --test format every_vector`, and read the difference.

#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

mod kinds;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use kinds::{KINDS, Outcome};

/// Bad vectors for each good one.
const BAD_FOR_GOOD: usize = 3;

/// One file.
struct Vector {
    path: PathBuf,
    /// What a decoder needs besides the bytes: a length, a level.
    given: u64,
    expect: String,
    bytes: Vec<u8>,
}

impl Vector {
    fn read(path: PathBuf) -> Self {
        let text = fs::read_to_string(&path).unwrap();
        let (head, body) =
            text.split_once("bytes:\n").unwrap_or_else(|| panic!("{}: no bytes", path.display()));
        let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        assert!(
            field("comment:").is_some_and(|comment| !comment.is_empty()),
            "{}: no comment",
            path.display()
        );
        let expect = field("expect:").unwrap_or_else(|| panic!("{}: expects nothing", path.display()));
        Self {
            given: field("given:").map_or(0, |given| given.parse().unwrap()),
            expect: expect.to_owned(),
            bytes: from_hex(body),
            path,
        }
    }

    fn is_good(&self) -> bool {
        self.expect.starts_with("ok")
    }

    fn bless(&self, expect: &str) {
        let text = fs::read_to_string(&self.path).unwrap();
        let lines = text.lines().map(|line| match line.starts_with("expect:") {
            true => format!("expect: {expect}\n"),
            false => format!("{line}\n"),
        });
        fs::write(&self.path, lines.collect::<String>()).unwrap();
    }
}

fn from_hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    assert!(digits.len().is_multiple_of(2), "half a byte");
    let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks_exact(2).map(pair).collect()
}

fn describe(outcome: &Outcome) -> String {
    match outcome {
        Ok((value, _)) => format!("ok {value}"),
        Err(error) => format!("error {error}"),
    }
}

fn folders() -> BTreeMap<String, Vec<Vector>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/format/vectors");
    let mut folders = BTreeMap::new();
    for folder in fs::read_dir(root).unwrap().map(|entry| entry.unwrap()) {
        let name = folder.file_name().into_string().unwrap();
        let mut files: Vec<PathBuf> =
            fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().path()).collect();
        files.sort();
        folders.insert(name, files.into_iter().map(Vector::read).collect());
    }
    folders
}

#[test]
fn every_vector_decodes_as_written_and_encodes_to_its_bytes() {
    let bless = std::env::var_os("LIFEBOAT_BLESS").is_some();
    let mut wrong = Vec::new();
    for (name, vectors) in folders() {
        let Some((_, decode)) = KINDS.iter().find(|(kind, _)| *kind == name) else {
            panic!("vectors/{name}/ belongs to no decoder");
        };
        for vector in vectors {
            let outcome = decode(&vector.bytes, vector.given);
            let found = describe(&outcome);
            let same_bytes = outcome.as_ref().map_or(true, |(_, encoded)| *encoded == vector.bytes);
            if bless && vector.is_good() && outcome.is_ok() {
                vector.bless(&found);
            } else if found != vector.expect {
                wrong.push(format!(
                    "{}\n  expected {}\n  found    {found}",
                    vector.path.display(),
                    vector.expect
                ));
            }
            if !same_bytes {
                wrong.push(format!("{}: encodes to other bytes", vector.path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{} vectors:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn every_kind_has_good_vectors_and_more_bad_ones() {
    let folders = folders();
    for (kind, _) in KINDS {
        let vectors = folders.get(*kind).unwrap_or_else(|| panic!("vectors/{kind}/ is missing"));
        let good = vectors.iter().filter(|vector| vector.is_good()).count();
        let bad = vectors.len() - good;
        assert!(good > 0 && bad >= good * BAD_FOR_GOOD, "{kind}: {good} good, {bad} bad");
    }
}

#[test]
fn no_decoder_panics_on_cut_or_altered_bytes() {
    for (name, vectors) in folders() {
        let (_, decode) = KINDS.iter().find(|(kind, _)| *kind == name).unwrap();
        for vector in vectors.iter().filter(|vector| vector.is_good()) {
            for cut in 0..vector.bytes.len() {
                let _ = decode(&vector.bytes[..cut], vector.given);
            }
            let mut bytes = vector.bytes.clone();
            for at in 0..bytes.len().min(2048) {
                for bit in 0..8 {
                    bytes[at] ^= 1 << bit;
                    if let Ok((_, encoded)) = decode(&bytes, vector.given) {
                        // What is accepted has one stored form, or says less than it could (an unknown field).
                        assert!(encoded.len() <= bytes.len(), "{name}: byte {at} bit {bit} grows");
                    }
                    bytes[at] ^= 1 << bit;
                }
            }
        }
    }
}
