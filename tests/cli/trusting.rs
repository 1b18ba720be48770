//! Whom and what to believe: `writer`, `anchor`, `--require-anchor`, and a store that shows less than it did.

use std::fs;
use std::path::Path;

use crate::support::{Place, Run, noise};

fn copy(from: &Path, to: &Path) {
    for entry in ignore::WalkBuilder::new(from).standard_filters(false).build().map(Result::unwrap) {
        let target = to.join(entry.path().strip_prefix(from).unwrap());
        if entry.file_type().is_some_and(|kind| kind.is_dir()) {
            fs::create_dir_all(&target).unwrap();
        } else {
            fs::copy(entry.path(), &target).unwrap();
        }
    }
}

/// Two snapshots, the repository as it was after the first in `old`, an anchor over each state.
fn rolled_back() -> (Place, [String; 2], [String; 2]) {
    let place = Place::with_repository();
    let first = place.backup();
    let before = anchor(&place);
    copy(&place.path("repo"), &place.path("old"));
    place.write("src/a", b"changed\n");
    let second = place.backup();
    let after = anchor(&place);
    (place, [first, second], [before, after])
}

fn anchor(place: &Place) -> String {
    let run = place.run(["anchor"]).exits(0);
    let hash = run.out.trim().to_owned();
    assert!(hash.len() == 64 && run.err.contains("--require-anchor"), "{run:?}");
    hash
}

/// Runs as on a machine that was never used with the repository.
fn fresh(place: &Place, args: &[&str]) -> Run {
    let _ = fs::remove_dir_all(place.path("fresh"));
    place.run([args, &["--state-dir", "fresh", "--no-cache"]].concat())
}

fn put_back(place: &Place) {
    fs::remove_dir_all(place.path("repo")).unwrap();
    fs::rename(place.path("old"), place.path("repo")).unwrap();
}

#[test]
fn a_store_that_was_copied_back_is_found_with_what_was_seen_and_with_an_anchor() {
    let (place, [first, second], [before, after]) = rolled_back();
    place.run(["snapshots", "--require-anchor", &before]).exits(0);
    fresh(&place, &["snapshots", "--require-anchor", &after]).exits(0);
    let source = place.path("src").display().to_string();
    put_back(&place);

    // This machine has seen more, and names it.
    let run = place.run(["snapshots"]).exits(15);
    assert!(run.out.contains(&first[..8]), "what is there is shown: {run:?}");
    assert!(run.err.contains(&second) && run.err.contains("next step:"), "{run:?}");
    let run = place.run(["restore", "latest", "--target", "target/latest"]).exits(15);
    assert!(run.err.contains(&second) && !place.path("target/latest").exists(), "{run:?}");
    // Named by its id the earlier one restores, and the run says that something is wrong.
    place.run(["restore", &format!("{first}:{source}"), "--target", "target/first"]).exits(15);
    assert_eq!(fs::read(place.path("target/first/a")).unwrap(), b"first\n");
    let run = place.run(["forget", "--keep-last", "1"]).exits(15);
    assert!(run.err.contains(&second), "{run:?}");
    place.run(["anchor"]).exits(15);
    let error = place.run(["snapshots", "--json"]).exits(15).err;
    assert!(error.contains(r#""class":"tampered""#) && error.contains(r#""code":15"#), "{error}");

    // A machine that knows nothing, with and without the anchor.
    fresh(&place, &["snapshots"]).exits(0);
    fresh(&place, &["restore", "latest", "--target", "target/b", "--require-anchor", &before]).exits(0);
    for verb in [&["snapshots"][..], &["restore", "latest", "--target", "target/c"], &["verify"], &["stats"]]
    {
        let run = fresh(&place, &[verb, &["--require-anchor", &after]].concat()).exits(15);
        assert!(run.err.contains(&after), "{run:?}");
    }
    assert!(!place.path("target/c").exists());
    let run = fresh(&place, &["backup", "src", "--require-anchor", &after]).exits(15);
    assert!(run.out.is_empty(), "{run:?}");

    // A backup on the machine that knows stores all the same: data comes first.
    place.run(["backup", "src"]).exits(15);
    let run = place.run(["anchor", "--accept-missing"]).exits(0);
    assert!(run.out.contains(&second), "{run:?}");
    place.run(["restore", "latest", "--target", "target/accepted"]).exits(0);
    assert_eq!(place.run(["snapshots", "--json"]).exits(0).objects().len(), 2);
}

#[test]
fn what_is_removed_in_order_breaks_no_anchor() {
    let (place, [first, second], [before, after]) = rolled_back();
    place.run(["forget", &first]).exits(0);
    place.run(["prune", "--undo-window", "0", "--grace", "0", "--yes", "--force"]).exits(0);
    assert_eq!(place.run(["snapshots", "--all", "--json"]).exits(0).objects().len(), 1);
    for anchor in [&before, &after] {
        place.run(["restore", "latest", "--target", "target/x", "--require-anchor", anchor]).exits(0);
        fs::remove_dir_all(place.path("target/x")).unwrap();
    }
    let last = place.run(["anchor", "--json"]).exits(0).last();
    assert_eq!((&last["type"], &last["snapshots"]), (&"anchor".into(), &1.into()), "{last}");
    assert_eq!(last["newest"], *second);
    let again = place.run(["anchor", "--json"]).exits(0).last();
    assert_eq!((&again["anchor"], &again["new"]), (&last["anchor"], &false.into()));
    place.run(["verify", "--data"]).exits(0);
    place.run(["verify", "--packs"]).exits(0);
}

#[test]
fn what_an_anchor_cannot_be_asked_for_is_a_mistake() {
    let place = Place::with_repository();
    place.backup();
    let hash = anchor(&place);
    for bad in ["", "12", &hash[1..], &format!("{hash}0"), "latest"] {
        place.run(["snapshots", "--require-anchor", bad]).exits(2);
    }
    let typed: Vec<_> = hash.as_bytes().chunks(8).map(|part| std::str::from_utf8(part).unwrap()).collect();
    place.run(["snapshots", "--require-anchor", &typed.join(" ").to_uppercase()]).exits(0);
    let unknown = "0".repeat(64);
    let run = place.run(["snapshots", "--require-anchor", &unknown]).exits(15);
    assert!(run.err.contains(&unknown), "{run:?}");
    for verb in [&["doctor"][..], &["init", "--new-key-file", "other"]] {
        let run = place.run([verb, &["--require-anchor", &hash]].concat()).exits(2);
        assert!(run.err.contains("--require-anchor"), "{run:?}");
    }
    let mut keyless = place.bare();
    keyless.args(["-r", "repo", "verify", "--packs", "--require-anchor", &hash]);
    assert_eq!(keyless.output().unwrap().status.code(), Some(2));
    // Nothing is made where something is required.
    let mut default = place.bare();
    default.args(["backup", "src", "--require-anchor", &hash]);
    assert_eq!(default.output().unwrap().status.code(), Some(10));
    assert!(!place.path("data").exists());
}

/// A machine with all that a writer has, and the right to do anything to the store.
#[test]
fn a_thief_deletes_replaces_and_floods_and_everything_earlier_restores() {
    let place = Place::with_repository();
    place.write("src/big", &noise(200_000, 5));
    let first = place.backup();
    place.write("src/a", b"second state\n");
    let second = place.backup();
    let hash = anchor(&place);
    let source = place.path("src").display().to_string();
    let of = |id: &str, name: &str| {
        let all = place.files("repo/snapshots");
        all.into_iter().find(|path| path.to_string_lossy().ends_with(&format!("{id}{name}"))).unwrap()
    };
    let restores = |args: &[&str], content: &[u8], code: i32| {
        let _ = fs::remove_dir_all(place.path("target/r"));
        place.run([&["restore"], args, &["--target", "target/r"]].concat()).exits(code);
        assert_eq!(fs::read(place.path("target/r/a")).unwrap(), content);
    };
    copy(&place.path("repo"), &place.path("old"));
    let renew = || {
        fs::remove_dir_all(place.path("repo")).unwrap();
        copy(&place.path("old"), &place.path("repo"));
    };

    // Fake snapshots under the writer's name, with the highest numbers: each is named, none is used.
    let folder = of(&first, "").parent().unwrap().to_owned();
    for number in ["9999999999", "9999999998", "0000000000"] {
        let fake = "e".repeat(60) + &number[6..];
        fs::copy(of(&first, ""), folder.join(format!("{number}-{fake}"))).unwrap();
        fs::copy(of(&first, ".ok"), folder.join(format!("{number}-{fake}.ok"))).unwrap();
    }
    let run = place.run(["snapshots"]).exits(4);
    assert_eq!(run.err.matches("is left out").count(), 3, "{run:?}");
    restores(&[&format!("latest:{source}"), "--require-anchor", &hash], b"second state\n", 0);
    place.run(["verify"]).exits(4);
    renew();

    // The newest is deleted.
    fs::remove_file(of(&second, ".ok")).unwrap();
    fs::remove_file(of(&second, "")).unwrap();
    let run = place.run(["snapshots"]).exits(15);
    assert!(run.err.contains(&second), "{run:?}");
    restores(&[&format!("{first}:{source}")], b"first\n", 15);
    let run = fresh(&place, &["snapshots", "--require-anchor", &hash]).exits(15);
    assert!(run.err.contains(&second) && !run.err.contains(&first), "{run:?}");
    renew();

    // Only its confirmation is deleted: `latest` would be the one before.
    fs::remove_file(of(&second, ".ok")).unwrap();
    let run = place.run(["restore", "latest", "--target", "target/n"]).exits(15);
    assert!(run.err.contains(&second), "{run:?}");
    fresh(&place, &["ls", "latest", "--require-anchor", &hash]).exits(15);
    restores(&[&format!("{second}:{source}")], b"second state\n", 15);
    renew();

    // The first is replaced by the second's bytes, and by nothing.
    for bytes in [fs::read(of(&second, "")).unwrap(), Vec::new()] {
        let path = of(&first, "");
        fs::remove_file(&path).unwrap();
        fs::write(&path, bytes).unwrap();
        let run = fresh(&place, &["snapshots", "--require-anchor", &hash]).exits(15);
        assert!(run.err.contains(&first) && run.err.contains("damaged"), "{run:?}");
        restores(&[&format!("{second}:{source}")], b"second state\n", 0);
        renew();
    }
}

#[test]
fn the_last_one_who_may_remove_is_not_revoked() {
    let place = Place::with_repository();
    let id = place.backup();
    let writers = place.run(["writer", "list", "--json"]).exits(0).objects();
    let [writer] = &writers[..] else { panic!("{writers:?}") };
    assert_eq!((&writer["authority"], &writer["own"]), (&"maintainer".into(), &true.into()));
    assert_eq!((&writer["last_snapshot"], &writer["revoked"]), (&id.into(), &serde_json::Value::Null));
    let own = writer["id"].as_str().unwrap();
    let run = place.run(["writer", "list"]).exits(0);
    assert!(run.out.contains(own) && run.out.contains("active, this key"), "{run:?}");
    let run = place.run(["writer", "revoke", &own[..10]]).exits(7);
    assert!(run.err.contains(own), "it must be named in full: {run:?}");
    place.run(["writer", "revoke", own]).exits(7);
    place.run(["writer", "revoke", "ffffffffffff0"]).exits(1);
    place.run(["writer", "revoke", own, "--since", "soon"]).exits(2);
    place.run(["verify"]).exits(0);
}
