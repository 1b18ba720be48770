//! Exit codes, each by a way to reach it. `docs/exit-codes.md` is the contract.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};

use crate::support::{Place, Run, damage, noise};

#[test]
fn code_1_when_nothing_usable_was_done() {
    let place = Place::with_repository();
    let run = place.run(["backup", "no/such", "nor/this"]).exits(1);
    assert!(run.err.contains("none of the sources exists"), "{}", run.err);
    place.run(["backup", "--command", "false"]).exits(1);
    place.run(["backup", "--command", "no-such-program-at-all"]).exits(1);
    place.run(["ls", "latest"]).exits(1);
    place.run(["init", "--new-key-file", "other"]).exits(1);
    assert!(!place.path("other").exists(), "no key of a repository that was not made is left");
}

#[test]
fn code_2_for_mistakes_in_the_arguments() {
    let place = Place::with_repository();
    for args in [
        &["backup"][..],
        &["backup", "--no-such-option", "src"],
        &["backup", "src", "--exclude", "[z-a]"],
        &["backup", "src", "--exclude-file", "no/such/file"],
        &["backup", "-", "src"],
        &["backup", "src", "--level", "99"],
        &["stats", "-r", "ftp://host/x"],
        &["stats", "-r", ""],
        &["stats", "-o", "novalue"],
        &["restore", "latest"],
        &["restore", "latest", "--target", "target", "--no-owner", "--numeric-owner"],
        &["cat", "latest"],
        &["verify", "--packs", "--data"],
    ] {
        let run = place.run(args.iter().copied()).exits(2);
        assert!(run.out.is_empty() && run.err.contains("error"), "{args:?}: {run:?}");
    }
    Run::of(place.bare().arg("init").output().unwrap()).exits(2);
}

#[test]
fn code_3_when_some_entries_failed() {
    let place = Place::with_repository();
    let run = place.run(["backup", "src", "no/such"]).exits(3);
    assert!(run.out.contains("snapshot"), "the rest is saved: {run:?}");
    assert!(run.err.contains("no/such"), "{run:?}");
}

#[test]
fn code_4_when_damage_is_found() {
    let place = Place::with_repository();
    place.write("src/big", &noise(1 << 20, 7));
    place.backup();
    place.run(["verify"]).exits(0);
    place.run(["verify", "--packs"]).exits(0);
    place.run(["verify", "--data"]).exits(0);
    let pack = place.files("repo/packs").into_iter().max_by_key(|path| fs::metadata(path).unwrap().len());
    damage(&pack.unwrap());
    let run = place.run(["verify", "--packs"]).exits(4);
    assert!(run.err.contains("damage"), "{run:?}");
    place.run(["verify", "--data"]).exits(4);
    let run = place.run(["restore", "latest", "--target", "target", "--no-cache"]).exits(4);
    assert!(run.err.contains("src/big"), "what is left out is named: {run:?}");
}

#[test]
fn code_7_when_it_would_be_dangerous() {
    let place = Place::with_repository();
    for number in 0..100 {
        place.write(&format!("src/many/{number}"), b"x");
    }
    place.backup();
    fs::remove_dir_all(place.path("src/many")).unwrap();
    let run = place.run(["backup", "src"]).exits(7);
    assert!(run.err.contains("--allow-shrink"), "{run:?}");
    place.run(["backup", "src", "--allow-shrink"]).exits(0);
    let run = place.run(["init", "-r", "elsewhere", "--new-key-file", "key"]).exits(7);
    assert!(run.err.contains("exists already"), "{run:?}");
}

/// A stream cannot be read again. Whoever does not want to wait for a collector that may still name the new place stops it.
#[test]
fn code_8_when_a_collector_removed_what_a_stream_counted_on() {
    let place = Place::with_repository();
    let content = noise(1 << 20, 3);
    place.write("src/big", &content);
    place.backup();
    let mut run = place.start(["backup", "-", "--job", "x"]);
    let mut input = run.stdin.take().unwrap();
    // A pipe holds far less: when all is written, the run has seen what the repository has.
    input.write_all(&content).unwrap();
    place.run(["forget", "latest", "--allow-empty"]).exits(0);
    place.run(["prune", "--grace", "0s", "--undo-window", "0s", "--force", "--yes"]).exits(0);
    drop(input);
    let mut said = BufReader::new(run.stderr.take().unwrap()).lines().map(Result::unwrap);
    assert!(said.any(|line| line.contains("waiting until")), "the run had nothing to wait for");
    kill_process(Pid::from_child(&run), Signal::TERM).unwrap();
    assert_eq!(run.wait().unwrap().code(), Some(8));
    let snapshot = place.run(["snapshots", "--json"]).exits(0).last();
    assert_eq!(snapshot["confirmed"], false);
}

#[test]
fn code_10_without_a_repository() {
    let place = Place::with_repository();
    for args in [&["backup", "src"][..], &["snapshots"], &["verify"], &["stats"], &["ls"]] {
        let run = Run::of(place.command().args(args).args(["-r", "no where"]).output().unwrap()).exits(10);
        let init = format!("lifeboat init --repo '{}'", place.path("no where").display());
        assert!(run.err.contains(&init), "{args:?}: {run:?}");
    }
    let run = Run::of(place.bare().arg("snapshots").output().unwrap()).exits(10);
    assert!(run.err.contains("--repo"), "{run:?}");
    assert!(!place.path("no where").exists() && !place.path("data").exists(), "nothing is made");
}

#[test]
fn code_11_while_the_same_job_runs() {
    let place = Place::with_repository();
    let mut first = place.start(["backup", "-", "--job", "x"]);
    first.stdin.as_mut().unwrap().write_all(b"some").unwrap();
    let lock = || place.files("state").iter().any(|path| path.ends_with("lock"));
    while !lock() {
        std::thread::yield_now();
    }
    let second = place.feed(["backup", "-", "--job", "x"], b"other");
    place.feed(["backup", "-", "--job", "y"], b"other").exits(0);
    drop(first.stdin.take());
    assert!(first.wait().unwrap().success());
    second.exits(11);
}

#[test]
fn code_12_with_a_wrong_key() {
    let place = Place::with_repository();
    place.run(["init", "-q", "-r", "other", "--new-key-file", "wrong"]).exits(0);
    let run = place.run(["snapshots", "--key-file", "wrong"]).exits(12);
    assert!(run.err.contains("key"), "{run:?}");
    let mut command = place.bare();
    command.env("LIFEBOAT_PASSWORD", "nope").args(["snapshots", "-r", "repo"]);
    Run::of(command.output().unwrap()).exits(12);
}

#[test]
fn code_13_when_the_store_does_not_answer() {
    let place = Place::with_repository();
    let mut command = place.command();
    command.envs([("AWS_ACCESS_KEY_ID", "k"), ("AWS_SECRET_ACCESS_KEY", "s"), ("AWS_REGION", "r")]);
    command.args(["snapshots", "-r", "s3://bucket/x", "--retry-for", "0"]);
    command.args(["-o", "endpoint=http://127.0.0.1:1", "-o", "allow_http=true"]);
    let run = Run::of(command.output().unwrap()).exits(13);
    assert!(run.err.contains("doctor"), "{run:?}");
}

#[test]
fn code_14_without_room_for_the_output() {
    let place = Place::with_repository();
    place.backup();
    let full = || Stdio::from(File::options().write(true).open("/dev/full").unwrap());
    for args in [&["snapshots"][..], &["cat", "latest:/etc/none"], &["completions", "bash"]] {
        let output = place.command().args(args).stdout(full()).output().unwrap();
        let expected = if args[0] == "cat" { 1 } else { 14 };
        Run::of(output).exits(expected);
    }
}

#[test]
fn code_15_when_the_store_was_tampered_with() {
    let place = Place::with_repository();
    let id = place.backup();
    place.write("src/a", b"changed\n");
    place.backup();
    for file in place.files("repo/snapshots").iter().filter(|path| path.to_string_lossy().contains(&id)) {
        fs::remove_file(file).unwrap();
    }
    let run = place.run(["prune"]).exits(15);
    assert!(run.err.contains(&id[..8]) && run.err.contains("--accept-missing"), "{run:?}");
    place.run(["prune", "--accept-missing"]).exits(0);
}

#[test]
fn code_141_and_silence_when_nobody_reads() {
    let place = Place::with_repository();
    place.write("src/big", &noise(4 << 20, 3));
    let id = place.backup();
    let big = format!("{id}:{}", place.path("src/big").display());
    for args in [&["cat", &big][..], &["completions", "bash"], &["snapshots"]] {
        // The reader is gone before the program starts: nobody can be quick enough to write first.
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = place.command().args(args).stdout(writer).stderr(Stdio::piped()).output().unwrap();
        let err = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), &*err), (Some(141), ""), "{args:?}");
    }
}
