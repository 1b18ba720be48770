//! The log of PostgreSQL, without a server: what it would run, and what it would take the answers for.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::Command;

use super::support::{Place, damage};

const SEGMENTS: [&str; 3] =
    ["000000010000000000000007", "000000010000000000000008", "000000010000000000000009"];

/// A repository, and a data directory with three segments of a real server.
fn place() -> Place {
    let place = Place::with_repository();
    for name in SEGMENTS {
        let stored =
            PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/samples/wal").join(format!("{name}.zst"));
        let bytes = zstd::decode_all(&fs::read(stored).unwrap()[..]).unwrap();
        place.write(&format!("data/pg_wal/{name}"), &bytes);
    }
    place
}

/// The program as a server runs it: in its data directory.
fn server(place: &Place, args: &[&str]) -> Command {
    let mut command = place.command();
    command.current_dir(place.path("data")).arg("postgres").args(args);
    command
}

fn code(place: &Place, args: &[&str]) -> i32 {
    let output = server(place, args).output().unwrap();
    let status = output.status;
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap())
}

fn push_all(place: &Place) {
    for name in SEGMENTS {
        assert_eq!(code(place, &["archive-push", &format!("pg_wal/{name}")]), 0);
    }
}

fn objects(place: &Place, name: &str) -> Vec<PathBuf> {
    let files = place.files("repo/streams");
    files.into_iter().filter(|path| path.to_string_lossy().contains(name)).collect()
}

#[test]
fn a_file_comes_back_as_it_was() {
    let place = place();
    push_all(&place);
    for name in SEGMENTS {
        assert_eq!(code(&place, &["archive-get", name, "pg_wal/RECOVERYXLOG"]), 0);
        let (is, was) = (place.path("data/pg_wal/RECOVERYXLOG"), place.path("data/pg_wal").join(name));
        assert!(fs::read(is).unwrap() == fs::read(was).unwrap(), "{name}");
    }
    assert_eq!(fs::read_dir(place.path("data/pg_wal")).unwrap().count(), 4, "nothing is left beside it");
}

/// PostgreSQL takes each code from 1 to 125 for the end of the log, so all but a proven end is 200.
#[test]
fn every_failure_of_archive_get_stops_a_server() {
    let place = place();
    push_all(&place);
    let target = "pg_wal/RECOVERYXLOG";
    assert_eq!(code(&place, &["archive-get", "00000001000000000000000A", target]), 1, "the end of the log");
    assert_eq!(code(&place, &["archive-get", "00000002.history", target]), 1);
    for (args, why) in [
        (&["archive-get"][..], "no arguments"),
        (&["archive-get", "--nonsense", SEGMENTS[0], target], "an unknown option"),
        (&["archive-get", "--help"], "help is no file"),
        (&["archive-get", SEGMENTS[0], target, "more"], "an argument too many"),
        (&["archive-gett", SEGMENTS[0], target], "a misspelt verb"),
        (&["--cluster", "main", SEGMENTS[0], target], "no verb"),
        (&["archive-get", "nonsense", target], "no name of a file"),
        (&["archive-get", "--cluster", "other", SEGMENTS[0], target], "no such cluster"),
        (&["archive-get", "--cluster", "a/b", SEGMENTS[0], target], "no name of a cluster"),
        (&["archive-get", SEGMENTS[0], "nowhere/RECOVERYXLOG"], "no place for it"),
        (&["archive-get", SEGMENTS[0], "."], "a directory"),
        (&["archive-get", "-r", "ftp://x", SEGMENTS[0], target], "no store"),
        (&["archive-get", "-r", "/nonexistent/repo", SEGMENTS[0], target], "no repository"),
        (&["archive-get", "--key-file", "/nonexistent/key", SEGMENTS[0], target], "no key"),
        (&["archive-get", "--retry-for", "soon", SEGMENTS[0], target], "no time"),
        (&["archive-get", "--require-anchor", "00", SEGMENTS[0], target], "no anchor"),
    ] {
        assert_eq!(code(&place, args), 200, "{why}");
    }
    let no_home = server(&place, &["archive-get", SEGMENTS[0], target]).env_clear().status().unwrap();
    assert_eq!(no_home.code(), Some(200), "nothing is configured");
    place.write("other.key", b"LIFEBOAT-KEY-1 nonsense\n");
    let key = place.path("other.key");
    let broken = ["archive-get", "--key-file", key.to_str().unwrap(), SEGMENTS[0], target];
    assert_eq!(code(&place, &broken), 200, "a broken key");
}

/// Where memory is short, threads cannot be made, which is a panic, or memory not had, which is a signal: neither is an end.
#[test]
fn a_panic_of_archive_get_stops_a_server() {
    let place = place();
    push_all(&place);
    for kib in [30_000, 60_000, 120_000, 240_000] {
        let line = format!("ulimit -v {kib}; exec \"$0\" postgres archive-get {} x", SEGMENTS[0]);
        let mut command = Command::new("sh");
        command.args(["-c", &line]).arg(env!("CARGO_BIN_EXE_lifeboat"));
        command.current_dir(place.path("data")).env("HOME", place.path("home"));
        command.env("LIFEBOAT_REPO", place.path("repo")).env("LIFEBOAT_KEY_FILE", place.path("key"));
        let status = command.output().unwrap().status;
        let ended = status.code().unwrap_or_else(|| 128 + status.signal().unwrap());
        assert!(ended == 0 || ended > 125, "with {kib} KiB: {status}");
    }
}

#[test]
fn a_gap_or_damage_is_no_end() {
    let place = place();
    push_all(&place);
    let target = "pg_wal/RECOVERYXLOG";
    for path in objects(&place, SEGMENTS[1]) {
        damage(&path);
    }
    assert_eq!(code(&place, &["archive-get", SEGMENTS[1], target]), 200);
    for path in objects(&place, SEGMENTS[1]) {
        fs::remove_file(path).unwrap();
    }
    assert_eq!(code(&place, &["archive-get", SEGMENTS[1], target]), 200);
    assert_eq!(code(&place, &["archive-get", "--allow-gap", SEGMENTS[1], target]), 1);
    assert!(!place.path("data").join(target).exists());
    place.run(["postgres", "verify"]).exits(4);
    let shown = place.run(["postgres", "info", "--json"]).exits(0).last();
    let ranges = &shown["histories"][0]["timelines"][0]["ranges"];
    assert_eq!(ranges.as_array().map(Vec::len), Some(2), "{shown}");
    assert!(place.run(["postgres", "info"]).exits(0).out.contains("gap after"));
}

#[test]
fn the_same_file_again_is_success_and_another_one_is_not() {
    let place = place();
    let path = format!("pg_wal/{}", SEGMENTS[2]);
    assert_eq!(code(&place, &["archive-push", &path]), 0);
    assert_eq!(code(&place, &["archive-push", &path]), 0);
    assert_eq!(objects(&place, SEGMENTS[2]).len(), 1);
    let mut other = fs::read(place.path("data").join(&path)).unwrap();
    other[0x90..].fill(0);
    place.write(&format!("data/{path}"), &other);
    assert_eq!(code(&place, &["archive-push", &path]), 4, "it ends in the middle");
    assert_eq!(code(&place, &["archive-push", "--wal-check", "warn", &path]), 15, "another content");
    // A segment under the name of another one.
    fs::copy(place.path("data/pg_wal").join(SEGMENTS[0]), place.path("data/pg_wal").join(SEGMENTS[1]))
        .unwrap();
    let misfiled = format!("pg_wal/{}", SEGMENTS[1]);
    for check in ["error", "warn", "off"] {
        assert_eq!(code(&place, &["archive-push", "--wal-check", check, &misfiled]), 4, "{check}");
    }
    assert!(objects(&place, SEGMENTS[1]).is_empty());
    assert_eq!(code(&place, &["archive-push", "pg_wal/gone"]), 2);
    assert_eq!(code(&place, &["archive-push", "pg_wal/00000001000000000000000B"]), 1);
}

#[test]
fn a_push_that_is_killed_is_pushed_again() {
    let place = place();
    let path = format!("pg_wal/{}", SEGMENTS[0]);
    for after in ["0.02", "0.06", "0.12", "0.24", "0.4"] {
        let mut command = Command::new("timeout");
        command.args(["-s", "KILL", after, env!("CARGO_BIN_EXE_lifeboat"), "postgres", "archive-push"]);
        command.args([&path, "--limit-upload", "40K"]).current_dir(place.path("data"));
        command.env("HOME", place.path("home")).env("LIFEBOAT_REPO", place.path("repo"));
        command.env("LIFEBOAT_KEY_FILE", place.path("key")).output().unwrap();
    }
    assert_eq!(code(&place, &["archive-push", &path]), 0);
    assert_eq!(code(&place, &["archive-get", SEGMENTS[0], "pg_wal/RECOVERYXLOG"]), 0);
    place.run(["postgres", "verify"]).exits(0);
}

#[test]
fn nothing_in_the_store_tells_the_name_of_a_cluster() {
    let place = place();
    let path = format!("pg_wal/{}", SEGMENTS[0]);
    assert_eq!(code(&place, &["archive-push", "--cluster", "payroll", &path]), 0);
    for file in place.files("repo") {
        assert!(!file.to_string_lossy().contains("payroll"));
        assert!(!fs::read(&file).unwrap().windows(7).any(|window| window == b"payroll"));
    }
    assert_eq!(place.run(["postgres", "info", "--json"]).exits(0).last()["name"], "payroll");
    // The other verbs go on: they know of logs, and leave them alone.
    place.run(["backup", "src"]).exits(0);
    place.run(["verify"]).exits(0);
    place.run(["stats"]).exits(0);
    place.run(["prune"]).exits(0);
    assert_eq!(code(&place, &["archive-get", SEGMENTS[0], "pg_wal/RECOVERYXLOG"]), 0);
}

#[test]
fn a_writers_key_pushes_and_reads_nothing() {
    let place = place();
    push_all(&place);
    place.run(["key", "add", "--role", "writer", "--new-key-file", "writer.key"]).exits(0);
    let key = place.path("writer.key");
    let with = |args: &[&str]| {
        let mut command = server(&place, args);
        command.env("LIFEBOAT_KEY_FILE", &key).output().unwrap()
    };
    let path = format!("pg_wal/{}", SEGMENTS[0]);
    let refused = with(&["archive-push", &path]);
    assert_eq!(refused.status.code(), Some(12));
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    let hint = said.split("postgres allow main ").nth(1).unwrap_or_else(|| panic!("{said}"));
    let writer = hint.split_whitespace().next().unwrap();
    place.run(["postgres", "allow", "main", writer]).exits(0);
    place.run(["postgres", "allow", "main", writer]).exits(1);
    assert_eq!(with(&["archive-push", &path]).status.code(), Some(0));
    assert_eq!(with(&["archive-get", SEGMENTS[0], "pg_wal/RECOVERYXLOG"]).status.code(), Some(200));
    assert_eq!(with(&["info"]).status.code(), Some(12));
    assert_eq!(with(&["allow", "main", writer]).status.code(), Some(12));
}

#[test]
fn a_machine_that_has_seen_the_new_keys_archives_nothing_under_the_old_ones() {
    let place = place();
    place.run(["key", "add", "--role", "writer", "--new-key-file", "writer.key"]).exits(0);
    let key = place.path("writer.key");
    let push = |name: &str| {
        let path = format!("pg_wal/{name}");
        let mut command = server(&place, &["archive-push", &path]);
        command.env("LIFEBOAT_KEY_FILE", &key).output().unwrap()
    };
    let old = place.files("repo/config");
    place.run(["rekey", "-q"]).exits(0);
    assert_eq!(push(SEGMENTS[0]).status.code(), Some(0));
    let new = place.files("repo/config").into_iter().find(|path| !old.contains(path)).unwrap();
    fs::remove_file(&new).unwrap();
    let refused = push(SEGMENTS[1]);
    assert_eq!(refused.status.code(), Some(15), "{refused:?}");
    assert!(objects(&place, SEGMENTS[1]).is_empty(), "nothing was stored");
}

/// A server archives the histories of its timelines before all else.
#[test]
fn the_history_of_a_timeline_may_be_the_first_file_of_a_cluster() {
    let place = place();
    place.write("data/pg_wal/00000002.history", b"1\t0/7000000\tno recovery target specified\n");
    place.write("elsewhere/pg_wal/00000002.history", b"1\t0/7000000\tno recovery target specified\n");
    let alone = place
        .command()
        .args(["postgres", "archive-push"])
        .arg(place.path("elsewhere/pg_wal/00000002.history"))
        .output();
    assert_eq!(alone.unwrap().status.code(), Some(1), "nothing says whose it is");
    assert_eq!(code(&place, &["archive-push", "pg_wal/00000002.history"]), 0);
    push_all(&place);
    assert_eq!(code(&place, &["archive-get", "00000002.history", "pg_wal/RECOVERYHISTORY"]), 0);
    let shown = place.run(["postgres", "info", "--json"]).exits(0).last();
    assert_eq!(shown["histories"].as_array().map(Vec::len), Some(1), "{shown}");
}
