//! `--json`: the fields that `docs/json.md` promises.

use serde_json::Value;

use crate::support::Place;

#[track_caller]
fn has(object: &Value, kind: &str, fields: &[&str]) {
    assert_eq!(object["type"], kind, "{object}");
    for field in fields {
        assert!(object.get(field).is_some(), "{field} is missing in {object}");
    }
}

const BACKUP: [&str; 14] = [
    "snapshot",
    "entries",
    "files",
    "new_files",
    "changed_files",
    "unchanged_files",
    "bytes",
    "bytes_read",
    "new_bytes",
    "stored_bytes",
    "resumed_bytes",
    "excluded",
    "failed",
    "missing",
];
const SNAPSHOT: [&str; 12] = [
    "id",
    "time",
    "host",
    "job",
    "paths",
    "tags",
    "user",
    "stored",
    "confirmed",
    "files",
    "bytes",
    "problems",
];
const ENTRY: [&str; 10] = ["path", "kind", "mode", "uid", "gid", "user", "group", "size", "mtime", "problem"];

#[test]
fn every_verb_has_its_objects() {
    let place = Place::empty();
    let made = place.run(["init", "--json", "--new-key-file", "key"]).exits(0).last();
    has(&made, "repository", &["repository", "place", "key_file", "recovery_words"]);
    place.write("src/a", b"first\n");

    let backup = place.run(["backup", "--json", "src", "--tag", "k=v", "--job", "j", "--host", "h"]).exits(0);
    has(&backup.last(), "summary", &BACKUP);
    assert_eq!(backup.objects().len(), 1, "events go to standard error");
    for line in backup.err.lines() {
        assert!(serde_json::from_str::<Value>(line).unwrap()["type"].is_string(), "{line}");
    }

    let snapshot = place.run(["snapshots", "--json"]).exits(0).last();
    has(&snapshot, "snapshot", &SNAPSHOT);
    assert_eq!(snapshot["id"], backup.last()["snapshot"]);
    assert_eq!((&snapshot["host"], &snapshot["job"]), (&"h".into(), &"j".into()));
    assert_eq!(snapshot["tags"], serde_json::json!(["k=v"]));
    assert_eq!(snapshot["paths"], serde_json::json!([place.path("src")]));

    for entry in place.run(["ls", "--json"]).exits(0).objects() {
        has(&entry, "entry", &ENTRY);
    }
    let restore = place.run(["restore", "latest", "--target", "target", "--json"]).exits(0).last();
    has(
        &restore,
        "summary",
        &[
            "entries",
            "files",
            "bytes",
            "chunks",
            "bytes_kept",
            "bytes_fetched",
            "left",
            "removed",
            "failed",
            "damaged",
            "damaged_count",
            "seconds",
        ],
    );
    let verify = place.run(["verify", "--json"]).exits(0).last();
    has(&verify, "summary", &["damage", "warnings", "objects", "bytes", "chunks", "snapshots", "seconds"]);
    has(
        &place.run(["stats", "--json"]).exits(0).last(),
        "stats",
        &["snapshots", "packs", "chunks", "total_bytes"],
    );
    for check in place.run(["doctor", "--json"]).exits(0).objects() {
        has(&check, "check", &["name", "state", "detail", "hint"]);
    }
}

#[test]
fn every_phase_that_begins_ends_before_the_next() {
    let place = Place::with_repository();
    place.backup();
    place.write("src/more", b"more\n");
    place.backup();
    place.run(["forget", "latest~1"]).exits(0);
    let now = ["prune", "--json", "--grace", "0s", "--undo-window", "0s", "--force", "--yes"];
    for (verb, phases) in [
        (&["backup", "--json", "src"][..], &["open", "backup", "commit"][..]),
        (&["restore", "--json", "latest", "--target", "target"], &["plan", "restore"]),
        (&["verify", "--json", "--data"], &["verify"]),
        (&now, &["mark", "collect"]),
    ] {
        let err = place.run(verb).exits(0).err;
        let (mut open, mut ended) = (None, Vec::new());
        for line in err.lines() {
            let event: Value = serde_json::from_str(line).unwrap();
            let phase = || event["phase"].as_str().unwrap().to_owned();
            match event["type"].as_str().unwrap() {
                "phase_started" => assert_eq!(open.replace(phase()), None, "{err}"),
                "phase_finished" => {
                    assert_eq!(open.take(), Some(phase()), "{err}");
                    ended.push(phase());
                }
                _ => {}
            }
        }
        assert_eq!(open, None, "{err}");
        assert!(phases.iter().all(|phase| ended.iter().any(|ended| ended == phase)), "{err}");
    }
}

#[test]
fn errors_are_objects_on_standard_error() {
    let place = Place::with_repository();
    let run = place.run(["ls", "ffff", "--json"]).exits(1);
    assert_eq!(run.out, "");
    let error: Value = serde_json::from_str(run.err.lines().last().unwrap()).unwrap();
    has(&error, "error", &["message", "causes", "hint"]);
    assert_eq!((&error["class"], &error["code"]), (&"failed".into(), &1.into()));
}

#[test]
fn names_that_are_not_utf8_keep_their_bytes() {
    use std::os::unix::ffi::OsStrExt;
    let place = Place::with_repository();
    let name = std::ffi::OsStr::from_bytes(b"caf\xe9");
    std::fs::write(place.path("src").join(name), b"x").unwrap();
    place.backup();
    let entries = place.run(["ls", "--json"]).exits(0).objects();
    let odd = entries.iter().find(|entry| entry.get("path_hex").is_some()).expect("an entry with bytes");
    assert!(odd["path_hex"].as_str().unwrap().ends_with("636166e9"), "{odd}");
}
