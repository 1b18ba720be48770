//! Each role with each command: what is not for it fails before it does anything.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use crate::support::{Place, Run, noise};

const ROLES: [&str; 5] = ["writer", "reader", "maintainer", "verifier", "admin"];

/// A repository with two snapshots of an admin, and a key file for each role.
fn place() -> Place {
    let place = Place::empty();
    place.write("src/a", b"first\n");
    place.write("src/d/b", b"second\n");
    place.write("src/noise", &noise(300_000, 9));
    place.run(["init", "-q", "--new-key-file", "key", "--recovery-words"]).exits(0);
    place.backup();
    place.write("src/a", b"first, changed\n");
    place.backup();
    for role in ROLES {
        let file = format!("{role}.key");
        let label = format!("of a {role}");
        place.run(["key", "add", "-q", "--role", role, "--new-key-file", &file, "--label", &label]).exits(0);
    }
    place
}

fn run_as(place: &Place, role: &str, args: &[&str]) -> Run {
    // Each role is a machine of its own.
    let (key, state, cache) = (format!("{role}.key"), format!("state-of-{role}"), format!("cache-of-{role}"));
    let own = ["--key-file", &key, "--state-dir", &state, "--cache-dir", &cache];
    place.run(args.iter().copied().chain(own))
}

/// Everything below these directories and its bytes.
fn contents(place: &Place, names: &[&str]) -> BTreeMap<PathBuf, Vec<u8>> {
    let files = names.iter().flat_map(|name| place.files(name));
    files.map(|path| (path.clone(), fs::read(&path).unwrap())).collect()
}

/// Those that may; everybody else must be refused.
type Row = (&'static [&'static str], &'static [&'static str]);

const ALL: &[&str] = &ROLES;
const READERS: &[&str] = &["reader", "admin"];
const KEEPERS: &[&str] = &["maintainer", "admin"];
const ADMIN: &[&str] = &["admin"];

const TABLE: &[Row] = &[
    (&["backup", "src"], &["writer", "admin"]),
    (&["backup", "--dry-run", "src"], &["writer", "admin"]),
    (&["snapshots"], ALL),
    (&["status"], ALL),
    (&["metrics"], ALL),
    (&["ls", "latest"], READERS),
    (&["diff", "latest", "latest"], READERS),
    (&["find", "*"], READERS),
    (&["why", "src/a"], READERS),
    (&["restore", "latest", "--target", "target/one"], READERS),
    (&["restore", "latest", "--tar", "target/tar"], READERS),
    (&["verify"], ALL),
    (&["verify", "--packs"], ALL),
    (&["verify", "--data"], READERS),
    (&["hold", "add", "latest", "--until", "1d"], KEEPERS),
    (&["hold", "list"], ALL),
    (&["tag", "latest", "--add", "good"], KEEPERS),
    (&["forget", "latest~1", "--dry-run"], &["maintainer", "reader", "admin"]),
    (&["prune", "--dry-run"], KEEPERS),
    (&["stats"], &["maintainer", "reader", "admin"]),
    (&["stats", "--snapshots"], &["maintainer", "reader", "admin"]),
    (&["key", "list"], ALL),
    (&["key", "words"], ADMIN),
    (&["rekey", "--dry-run"], ADMIN),
    (&["doctor"], ALL),
    (&["anchor"], &["writer", "verifier", "maintainer", "admin"]),
    (&["anchor", "--accept-missing"], ALL),
    (&["writer", "list"], ALL),
    (&["verify"], ALL),
];

#[test]
fn each_role_does_what_is_its_own_and_is_refused_the_rest_before_anything_happens() {
    let place = place();
    for (args, may) in TABLE {
        for role in ROLES {
            let before = contents(&place, &["repo", "target"]);
            let run = run_as(&place, role, args);
            if may.contains(&role) {
                run.exits(0);
                let _ = fs::remove_dir_all(place.path("target/one"));
                let _ = fs::remove_file(place.path("target/tar"));
                continue;
            }
            let run = run.exits(12);
            let said = format!("a key of role {role} opens this repository");
            assert!(run.err.contains(&said) && run.err.contains("next step"), "{args:?}: {run:?}");
            assert!(may.iter().all(|role| run.err.contains(role)), "{args:?}: {run:?}");
            assert!(run.out.is_empty(), "{args:?}: {run:?}");
            assert_eq!(contents(&place, &["repo", "target"]), before, "{args:?} of {role}");
        }
    }
}

/// What changes the repository so that it cannot simply be done again.
const ONCE: &[Row] = &[
    (&["mount", "target"], READERS),
    (&["cat", "latest:/no/such"], READERS),
    (&["import", "restic", "no/such"], ADMIN),
    (&["copy", "--to", "no/such"], READERS),
    (&["forget", "latest~1"], KEEPERS),
    (&["undelete", "latest~1"], KEEPERS),
    (&["hold", "remove", "ff"], KEEPERS),
    (&["prune", "--grace", "0s"], KEEPERS),
    (&["key", "add", "--role", "reader", "--new-key-file", "target/made"], READERS),
    (&["key", "add", "--role", "writer", "--new-key-file", "target/made"], ADMIN),
    (&["key", "add", "--role", "admin", "--new-password-command", "touch target/ran; echo x"], ADMIN),
    (&["key", "remove", "ff"], ADMIN),
    (&["key", "recovery", "--words-to", "target/words"], ADMIN),
    (&["writer", "revoke", "ff"], ADMIN),
    (&["rekey"], ADMIN),
    (&["rekey", "--remove-old"], ADMIN),
    (&["rekey", "--reencrypt"], ADMIN),
];

#[test]
fn what_changes_things_is_refused_to_other_roles_and_leaves_no_file() {
    let place = place();
    for (args, may) in ONCE {
        for role in ROLES.into_iter().filter(|role| !may.contains(role)) {
            let before = contents(&place, &["repo", "target"]);
            let run = run_as(&place, role, args).exits(12);
            assert!(run.err.contains(&format!("a key of role {role} opens")), "{args:?}: {run:?}");
            assert_eq!(contents(&place, &["repo", "target"]), before, "{args:?} of {role}");
        }
    }
    // A copy needs an admin's key of the repository that it writes to.
    place.run(["init", "-q", "-r", "second", "--new-key-file", "second.key"]).exits(0);
    let second = ["-r", "second", "--key-file", "second.key"];
    for role in ["writer", "maintainer"] {
        let file = format!("second-{role}.key");
        let add = ["key", "add", "-q", "--role", role, "--new-key-file", &file];
        place.run(add.into_iter().chain(second)).exits(0);
        let run = place.run(["copy", "--to", "second", "--to-key-file", &file]).exits(12);
        assert!(run.err.contains(&format!("a key of role {role} opens")), "{run:?}");
    }
    assert!(place.files("second/packs").is_empty());
}

#[test]
fn a_maintainer_forgets_and_prunes_and_a_reader_restores_what_is_left() {
    let place = place();
    let old = run_as(&place, "admin", &["snapshots", "--json"]).exits(0).objects()[0]["id"].clone();
    let old = old.as_str().unwrap();
    // Some that share everything, and one that has much of its own.
    place.write("src/gone", &noise(3_000_000, 5));
    let big = place.backup();
    fs::remove_file(place.path("src/gone")).unwrap();
    place.backup();
    let packs = |place: &Place| -> u64 {
        place.files("repo/packs").iter().map(|path| fs::metadata(path).unwrap().len()).sum()
    };
    let before = packs(&place);
    run_as(&place, "maintainer", &["forget", old, &big]).exits(0);
    let prune = ["prune", "--grace", "0s", "--undo-window", "0s", "--young", "0s", "--yes", "--force"];
    run_as(&place, "maintainer", &prune).exits(0);
    assert!(packs(&place) + 2_500_000 < before, "{} of {before}", packs(&place));
    run_as(&place, "reader", &["verify", "--data"]).exits(0);
    run_as(&place, "verifier", &["verify"]).exits(0);
    let source = place.path("src").display().to_string();
    run_as(&place, "reader", &["restore", &format!("latest:{source}"), "--target", "target/all"]).exits(0);
    for file in ["a", "d/b", "noise"] {
        let (one, other) = (place.path("src").join(file), place.path("target/all").join(file));
        assert_eq!(fs::read(one).unwrap(), fs::read(other).unwrap(), "{file}");
    }
    // Nothing is left to do, so a second time moves nothing.
    let before = contents(&place, &["repo/packs"]);
    run_as(&place, "maintainer", &prune).exits(0);
    assert_eq!(contents(&place, &["repo/packs"]), before);
}

#[test]
fn a_writer_dedups_sees_its_own_names_and_reads_an_unchanged_tree_from_its_memory() {
    let place = place();
    let backup = |role: &str| run_as(&place, role, &["backup", "--json", "src"]).exits(0).last();
    let first = backup("writer");
    let (read, new) = (first["bytes_read"].as_u64().unwrap(), first["new_bytes"].as_u64().unwrap());
    assert!(read >= 300_000, "it has not seen the tree before: {first}");
    assert!(new < 10_000, "all content is there already: {first}");
    let second = backup("writer");
    assert_eq!(second["bytes_read"].as_u64(), Some(0), "{second}");
    assert_eq!(second["unchanged_files"].as_u64(), Some(3), "{second}");

    let ids = |run: &Run| -> Vec<Value> { run.objects().iter().map(|object| object["id"].clone()).collect() };
    let seen = run_as(&place, "writer", &["snapshots", "--json"]).exits(0);
    assert_eq!(ids(&seen), [first["snapshot"].clone(), second["snapshot"].clone()]);
    assert!(seen.objects()[0]["paths"][0].as_str().unwrap().ends_with("src"), "{seen:?}");
    let shown = run_as(&place, "writer", &["snapshots"]).exits(0);
    assert!(shown.err.contains("2 snapshots are not shown"), "{shown:?}");
    // Another machine with the same key has no memory of them.
    let other = place.run(["snapshots", "--json", "--key-file", "writer.key", "--state-dir", "other"]);
    assert_eq!(other.exits(0).out, "");
    assert_eq!(ids(&run_as(&place, "reader", &["snapshots", "--json"]).exits(0)).len(), 4);

    // What it saw is forgotten with the snapshot.
    let id = first["snapshot"].as_str().unwrap();
    run_as(&place, "maintainer", &["forget", id]).exits(0);
    let prune = ["prune", "--grace", "0s", "--undo-window", "0s", "--yes", "--force"];
    run_as(&place, "maintainer", &prune).exits(0);
    let seen = run_as(&place, "writer", &["snapshots", "--json"]).exits(0);
    assert_eq!(ids(&seen), [second["snapshot"].clone()]);
    let kept =
        place.files("state-of-writer").iter().filter(|path| path.parent().unwrap().ends_with("own")).count();
    assert_eq!(kept, 1);
    run_as(&place, "reader", &["restore", "latest", "--target", "target/all"]).exits(0);
}

#[test]
fn a_verifier_finds_what_is_missing() {
    let place = place();
    let run = run_as(&place, "verifier", &["verify", "--json"]).exits(0);
    assert_eq!((run.last()["closed"].as_u64(), run.last()["snapshots"].as_u64()), (Some(2), Some(0)));
    let said = run_as(&place, "verifier", &["verify"]).exits(0);
    assert!(said.err.contains("nothing below them"), "{said:?}");
    let pack = place.files("repo/packs").remove(0);
    fs::remove_file(pack).unwrap();
    let run = run_as(&place, "verifier", &["verify"]).exits(4);
    assert!(run.err.contains("damage: packs/") && run.err.contains("is missing"), "{run:?}");
}
