//! `verify` that remembers: budgets, the ledger, and what `status` and `run` make of it.

use std::fs;
use std::path::PathBuf;

use crate::configuring::{configure, repository};
use crate::support::{Place, Run, damage, noise};

/// A repository whose content is in several packs, and keys of other roles.
fn place() -> Place {
    let place = Place::with_repository();
    for number in 0..3 {
        place.write(&format!("src/noise{number}"), &noise(200_000, number));
        place.backup();
    }
    for role in ["reader", "writer", "verifier", "maintainer"] {
        place.run(["key", "add", "-q", "--role", role, "--new-key-file", &format!("{role}.key")]).exits(0);
    }
    place
}

fn verify(place: &Place, args: &[&str]) -> Run {
    place.run(["verify"].iter().chain(args))
}

fn records(place: &Place) -> Vec<PathBuf> {
    let ledger = place.path("repo/ledger");
    if ledger.exists() { place.files("repo/ledger") } else { Vec::new() }
}

#[test]
fn a_budget_goes_round_and_says_what_that_is_worth() {
    let place = place();
    let packs = place.files("repo/packs").len();
    let first = verify(&place, &["--budget", "1"]).exits(0);
    assert!(first.out.contains("opened and checked, something waits for"), "{first:?}");
    assert!(first.out.contains(&format!("all of it in {packs} runs like this")), "{first:?}");
    for _ in 1..packs {
        verify(&place, &["--budget", "1", "-q"]).exits(0);
    }
    let last = verify(&place, &["--budget", "1h", "--json"]).exits(0).last();
    let coverage = &last["coverage"];
    assert_eq!(coverage["bytes"], coverage["bytes_verified"], "{last}");
    assert!(coverage["look"] == "opened" && coverage["runs"] == 1, "{last}");
    assert_eq!(coverage["objects"], packs);
    let text = verify(&place, &["--data"]).exits(0).out;
    assert!(text.contains("100 % of") && text.contains("the longest ago 0 min; at this pace"), "{text}");
    assert_eq!(records(&place).len(), 2 * (packs + 2));
    // Who looks into the past, or at the structure only, has nothing to say.
    verify(&place, &[]).exits(0);
    assert_eq!(records(&place).len(), 2 * (packs + 2));
    for bad in ["0", "0s", "30x", "", "1y"] {
        assert!(verify(&place, &["--budget", bad]).exits(2).err.contains("such as 30m"), "{bad}");
    }
}

#[test]
fn who_may_not_say_what_was_verified_gets_no_budget_and_leaves_no_record() {
    let place = place();
    for role in ["reader", "writer"] {
        let key = format!("{role}.key");
        let denied = verify(&place, &["--packs", "--budget", "1G", "--key-file", &key]).exits(12);
        assert!(denied.err.contains("may not write down what it has verified"), "{denied:?}");
        verify(&place, &["--packs", "--key-file", &key]).exits(0);
    }
    assert_eq!(
        verify(&place, &["--data", "--json", "--key-file", "reader.key"]).exits(0).last()["coverage"],
        serde_json::Value::Null
    );
    assert!(records(&place).is_empty());
    for (number, role) in ["verifier", "maintainer"].iter().enumerate() {
        let key = format!("{role}.key");
        let done = verify(&place, &["--budget", "1G", "--key-file", &key]).exits(0);
        assert!(done.out.contains("100 % of") && done.out.contains("read and found whole"), "{done:?}");
        assert_eq!(records(&place).len(), 2 * (number + 1));
    }
    // Nobody needs a key to read everything, and then nobody says so.
    let bare = place.bare().env("LIFEBOAT_REPO", place.path("repo")).args(["verify", "--packs"]).output();
    Run::of(bare.unwrap()).exits(0);
    assert_eq!(records(&place).len(), 4);
}

#[test]
fn damage_is_told_of_until_it_is_mended() {
    let place = place();
    verify(&place, &["--data", "-q"]).exits(0);
    let fine = place.run(["status"]).exits(0);
    assert!(fine.out.contains("nothing was damaged"), "{fine:?}");
    let pack =
        place.files("repo/packs").into_iter().max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap();
    let whole = fs::read(&pack).unwrap();
    damage(&pack);
    let packs = place.files("repo/packs").len();
    let codes: Vec<i32> = (0..=packs).map(|_| verify(&place, &["--budget", "1", "-q"]).code).collect();
    let found = codes.iter().position(|code| *code == 4).expect("it is found within a round");
    assert!(codes[found..].iter().all(|code| *code == 4), "{codes:?}");
    let later = verify(&place, &["--budget", "1"]).exits(4);
    assert!(later.err.contains("1 object found damaged before and not looked at now"), "{later:?}");
    let bad = place.run(["status", "--verified-within", "30d"]).exits(4);
    assert!(bad.out.contains("damage: 1 damage when the content was verified last"), "{bad:?}");
    assert!(bad.out.contains("missed: 1 object damaged"), "{bad:?}");
    fs::write(&pack, whole).unwrap();
    verify(&place, &["--data"]).exits(0);
    place.run(["status", "--verified-within", "30d"]).exits(0);
}

#[test]
fn a_record_that_is_damaged_is_named_and_what_it_says_is_verified_again() {
    let place = place();
    verify(&place, &["--data", "-q"]).exits(0);
    let stored = records(&place);
    assert_eq!(stored.len(), 2, "what was seen, and the end");
    stored.iter().for_each(|record| damage(record));
    let found = verify(&place, &[]).exits(4);
    assert!(found.err.contains("damage: ledger/"), "{found:?}");
    let within = place.run(["status", "--verified-within", "30d", "--json"]).exits(0).last();
    assert!(within["verified"].is_null() && within["bytes_verified"] == 0, "{within}");
    // What was stored a moment ago need not have been opened yet.
    assert_eq!(within["verified_within"], true);
    let late = place.run(["status", "--verified-within", "0s"]).exits(5);
    assert!(late.out.contains("missed: something was not opened and checked for"), "{late:?}");
    // Nothing depends on what a record says.
    place.run(["restore", "latest", "--target", "target"]).exits(0);
}

#[test]
fn a_scheduled_verification_runs_when_it_is_due() {
    let place = place();
    let write = |key: &str| {
        let table = "verify = { schedule = \"every 360d\", budget = \"1GiB\" }\n";
        let text = repository(&place, "main", "repo");
        let own = place.path("key").to_str().unwrap().to_owned();
        configure(&place, &format!("{}{table}", text.replace(&own, place.path(key).to_str().unwrap())));
    };
    let run = |args: &[&str]| Run::of(place.bare().arg("run").args(args).output().unwrap());
    write("writer.key");
    assert!(run(&[]).exits(12).err.contains("may not write down what it has verified"));
    write("verifier.key");
    let due = Run::of(place.bare().args(["schedule", "show"]).output().unwrap()).exits(0);
    assert!(due.out.contains("verification of main"), "{due:?}");
    let done = run(&["--force"]).exits(0);
    assert!(done.out.contains("verification of main: done: 100 % of"), "{done:?}");
    assert!(run(&[]).exits(0).out.contains("verification of main: skipped: not due before 2"));
    let object = run(&["--force", "--json"]).exits(0).last();
    assert!(object["kind"] == "verify" && object["coverage"]["look"] == "read", "{object}");
    damage(&place.files("repo/packs")[0]);
    let damaged = run(&["--force"]).exits(4);
    assert!(damaged.err.contains("damage: packs/") && damaged.out.contains("1 damage found"), "{damaged:?}");
}
