//! New keys after one was lost: who reads what before and afterwards.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;

use serde_json::Value;

use crate::support::{Place, Run, noise};

/// Runs with a key file, as on a machine of its own.
fn with(place: &Place, key: &str, args: &[&str]) -> Run {
    let state = format!("state-of-{key}");
    place.run([args, &["--key-file", key, "--state-dir", &state, "--no-cache"]].concat())
}

fn labels(object: &Value, list: &str) -> Vec<String> {
    let slots = object[list].as_array().unwrap();
    slots.iter().map(|slot| slot["label"].as_str().unwrap_or("own").to_owned()).collect()
}

/// A repository with a snapshot, and keys of other roles.
fn place() -> (Place, String) {
    let place = Place::empty();
    place.write("src/a", b"before\n");
    place.write("src/noise", &noise(400_000, 1));
    place.run(["init", "-q", "--new-key-file", "key", "--recovery-words"]).exits(0);
    for (name, role) in [("m", "maintainer"), ("w", "writer"), ("lost", "reader"), ("r", "reader")] {
        place.run(["key", "add", "-q", "--role", role, "--new-key-file", name, "--label", name]).exits(0);
    }
    let first = place.backup();
    (place, first)
}

fn restored(place: &Place, key: &str, id: &str) -> Vec<u8> {
    let _ = fs::remove_dir_all(place.path("target/x"));
    let path = format!("{id}:{}", place.path("src").display());
    with(place, key, &["restore", &path, "--target", "target/x"]).exits(0);
    fs::read(place.path("target/x/a")).unwrap()
}

#[test]
fn whoever_found_a_key_reads_nothing_new_and_everybody_else_goes_on() {
    let (place, first) = place();
    // The thief keeps the slot as well as the secret.
    let slots: Vec<_> =
        place.files("repo/keys").into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect();
    let before = place.files("repo");
    let dry = place.run(["rekey", "-n", "--json", "--keep-key-file", "m", "--remove-old"]).exits(0).last();
    assert_eq!(place.files("repo").len(), before.len());
    assert_eq!(
        (dry["dry_run"].as_bool(), labels(&dry, "stale")),
        (Some(true), vec!["lost".to_owned(), "r".to_owned()])
    );
    let unknown = place.run(["rekey", "--keep-key-file", "key", "--keep-password-file", "src/a"]).exits(12);
    assert!(unknown.err.contains("passphrase"), "{unknown:?}");

    let done = place.run(["rekey", "--json", "--keep-key-file", "m", "--remove-old"]).exits(0).last();
    assert_eq!((done["configuration"].as_u64(), done["unknown_keys"].as_u64()), (Some(1), Some(0)));
    assert_eq!(labels(&done, "renewed"), ["own", "m", "own"], "the key in use, the one given, the words");
    assert_eq!(labels(&done, "stale"), ["lost", "r"]);
    assert_eq!((done["removed"].as_array().unwrap().len(), done["left"].as_array().unwrap().len()), (5, 0));

    place.write("src/a", b"after\n");
    place.write("src/more", &noise(400_000, 2));
    let second = with(&place, "w", &["backup", "--json", "src"]).exits(0).last();
    let second = second["snapshot"].as_str().unwrap().to_owned();
    with(&place, "lost", &["snapshots"]).exits(12);
    for (path, bytes) in &slots {
        if !path.exists() {
            fs::write(path, bytes).unwrap();
        }
    }
    assert_eq!(restored(&place, "lost", &first), b"before\n", "what was stored before is open to it");
    let path = format!("{second}:{}", place.path("src").display());
    let closed = with(&place, "lost", &["restore", &path, "--target", "target/y"]).exits(12);
    assert!(closed.err.contains("before the keys of the repository were replaced"), "{closed:?}");
    assert!(closed.err.contains("next step"), "{closed:?}");
    assert!(!place.path("target/y/a").exists());
    with(&place, "lost", &["verify"]).exits(12);
    with(&place, "lost", &["key", "add", "--role", "reader", "--new-key-file", "more"]).exits(12);
    assert!(!place.path("more").exists());
    let doctor = with(&place, "lost", &["doctor"]);
    assert!(doctor.out.contains("before the keys"), "{doctor:?}");

    // The old slots are back, and whoever goes on is not led astray by them.
    for id in [&first, &second] {
        assert_eq!(
            restored(&place, "key", id),
            if *id == first { b"before\n".to_vec() } else { b"after\n".to_vec() }
        );
    }
    with(&place, "m", &["prune", "--dry-run"]).exits(0);
    place.run(["verify", "--data"]).exits(0);
    place.run(["key", "add", "-q", "--role", "reader", "--new-key-file", "r2"]).exits(0);
    assert_eq!(restored(&place, "r2", &first), b"before\n");
    assert_eq!(restored(&place, "r2", &second), b"after\n");
    // Doing it again clears what came back.
    let again =
        place.run(["rekey", "--json", "--keep-key-file", "m", "--keep-key-file", "r2", "--remove-old"]);
    let mut stale = labels(&again.exits(0).last(), "stale");
    stale.sort();
    assert_eq!(stale, ["lost", "r"], "they are as old as their return");
    assert_eq!(restored(&place, "r2", &first), b"before\n");
    assert_eq!(place.files("repo/keys").len(), 5);
    let people = place.run(["rekey", "-n"]).exits(0);
    assert!(
        people.out.contains("would be made anew") && people.out.contains("lifeboat key remove"),
        "{people:?}"
    );
}

#[test]
fn a_machine_that_has_seen_the_new_keys_seals_nothing_to_the_old_ones() {
    let (place, _) = place();
    let old = place.files("repo/config");
    place.run(["rekey", "-q"]).exits(0);
    with(&place, "w", &["backup", "-q", "src"]).exits(0);
    let new = place.files("repo/config").into_iter().find(|path| !old.contains(path)).unwrap();
    let bytes = fs::read(&new).unwrap();
    fs::remove_file(&new).unwrap();
    let packs = place.files("repo");
    place.write("src/a", b"again\n");
    let run = with(&place, "w", &["backup", "-q", "src"]).exits(15);
    assert!(run.err.contains("older than one that this machine has seen"), "{run:?}");
    assert!(run.err.contains("anchor --accept-missing"), "{run:?}");
    assert_eq!(place.files("repo"), packs, "nothing was stored");
    fs::write(&new, bytes).unwrap();
    with(&place, "w", &["backup", "-q", "src"]).exits(0);
    // Somebody says that it is in order.
    fs::remove_file(&new).unwrap();
    with(&place, "w", &["backup", "-q", "src"]).exits(15);
    with(&place, "w", &["anchor", "--accept-missing", "-q"]).exits(0);
    with(&place, "w", &["backup", "-q", "src"]).exits(0);
}

/// A password that others got to know: `key passwd`, and then new keys.
#[test]
fn a_password_that_was_lost_is_replaced_first() {
    let place = Place::empty();
    place.write("src/a", b"before\n");
    for (name, text) in [("one", "correct horse\n"), ("two", "battery staple\n")] {
        place.write(name, text.as_bytes());
        fs::set_permissions(place.path(name), fs::Permissions::from_mode(0o600)).unwrap();
    }
    let by = |password: &str, args: &[&str]| place.run([args, &["--password-file", password]].concat());
    by("one", &["init", "-q"]).exits(0);
    by("one", &["backup", "-q", "src"]).exits(0);
    let kept: Vec<_> =
        place.files("repo/keys").into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect();
    by("one", &["key", "passwd", "-q", "--new-password-file", "two"]).exits(0);
    by("two", &["rekey", "-q"]).exits(0);
    place.write("src/a", b"after\n");
    by("two", &["backup", "-q", "src"]).exits(0);
    for (path, bytes) in kept {
        fs::write(path, bytes).unwrap();
    }
    let listed = by("one", &["snapshots", "--json", "--no-cache", "--state-dir", "thief"]).exits(12);
    assert_eq!(
        listed.objects().iter().filter(|object| object["type"] == "snapshot").count(),
        1,
        "{listed:?}"
    );
    by("one", &["cat", &format!("latest:{}/a", place.path("src").display())]).exits(12);
    by("two", &["verify", "--data"]).exits(0);
}

#[test]
fn a_killed_run_goes_on_and_the_old_packs_go() {
    let (place, first) = place();
    place.write("src/big", &noise(6_000_000, 7));
    let second = place.backup();
    place.run(["rekey", "-q"]).exits(0);
    let old = place.files("repo/packs");
    let dry = place.run(["rekey", "--reencrypt", "-n", "--json"]).exits(0).last();
    assert_eq!(
        (dry["type"].as_str(), dry["packs_old"].as_u64()),
        (Some("reencrypt"), Some(old.len() as u64))
    );
    assert!(dry["bytes_old"].as_u64().unwrap() > 6_000_000 && dry["bytes_old"] == dry["pack_bytes"]);

    // After the first pack the limit makes the next request wait.
    let mut child = place.start(["rekey", "--reencrypt", "--json", "--limit", "1M"]);
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    let has_stored = |line: String| {
        serde_json::from_str::<Value>(&line).is_ok_and(|event| event["bytes_stored"].as_u64() > Some(0))
    };
    assert!(lines.any(has_stored), "it ended before it was killed");
    child.kill().unwrap();
    child.wait().unwrap();
    place.run(["verify", "--data"]).exits(0);
    let left = place.run(["rekey", "--reencrypt", "-n", "--json"]).exits(0).last();
    assert_eq!(left["packs_old"], dry["packs_old"], "nothing is condemned before everything in it is safe");

    let run = place.run(["rekey", "--reencrypt", "--json"]).exits(0);
    assert!(run.err.contains("\"phase\":\"reencrypt\""), "{run:?}");
    let done = run.last();
    assert_eq!((&done["packs_condemned"], &done["bytes_condemned"]), (&dry["packs_old"], &dry["bytes_old"]));
    assert_eq!(place.run(["rekey", "--reencrypt", "--json"]).exits(0).last()["packs_old"], 0);
    let stored = place.run(["backup", "--json", "src"]).exits(0).last()["new_bytes"].as_u64().unwrap();
    assert!(stored < 100_000, "what was sealed again is found: {stored}");
    place.run(["prune", "--grace", "0s", "--young", "0s", "--force"]).exits(0);
    assert!(old.iter().all(|path| !path.exists()), "the old packs are gone");
    place.run(["verify", "--data"]).exits(0);
    for id in [&first, &second] {
        assert_eq!(restored(&place, "key", id), b"before\n");
    }
    place.run(["rekey", "--limit", "1M"]).exits(2);
    place.run(["rekey", "--reencrypt", "--remove-old"]).exits(2);
}
