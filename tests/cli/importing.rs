//! Snapshots of real restic repositories become snapshots of this one; restic itself is the oracle.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::every_kind::{MAKE, bash};
use crate::support::{Place, Run, damage, noise};

/// A restic repository `restic` of this format that opens with the password in the file `word`.
fn with_restic(version: &str) -> Place {
    let place = Place::empty();
    place.write("word", b"correct horse\n");
    bash(&place.path(""), "chmod 600 word");
    restic(&place, &["init", "--repository-version", version]);
    place.run(["init", "-q", "--new-key-file", "key"]).exits(0);
    place
}

/// Runs restic on the repository `restic`.
fn restic(place: &Place, args: &[&str]) -> String {
    let mut command = Command::new("restic");
    command.env_clear().current_dir(place.path("")).env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.env("HOME", place.path("home")).args([
        "-q",
        "--no-cache",
        "-r",
        "restic",
        "--password-file",
        "word",
    ]);
    let done = command.args(args).output().expect("restic is installed by tests/setup");
    assert!(done.status.success(), "restic {args:?}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8_lossy(&done.stdout).into_owned()
}

fn import(place: &Place, more: &[&str]) -> Run {
    let line = ["import", "restic", "restic", "--from-password-file", "word", "--json"];
    place.run(line.iter().chain(more))
}

/// The objects of one type.
fn of_type(run: &Run, kind: &str) -> Vec<Value> {
    run.objects().into_iter().filter(|object| object["type"] == kind).collect()
}

fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}

/// What rsync would change to make the second directory like the first one.
fn differences(from: &Path, to: &Path) -> String {
    let mut rsync = Command::new("rsync");
    rsync.args(["-aHAX", "--checksum", "--devices", "--specials", "-n", "--itemize-changes"]);
    let done = rsync.arg(format!("{}/", from.display())).arg(to).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8_lossy(&done.stdout).into_owned()
}

/// All names below a directory, and what they are.
fn names(dir: &Path) -> String {
    bash(dir, "find . -printf '%p %y\\0' | LC_ALL=C sort -z | tr '\\0' '\\n'")
}

fn comes_back_as_from_restic(version: &str) {
    let place = with_restic(version);
    let src = place.path("src");
    bash(&src, MAKE);
    // No target of a link that is not UTF-8: Debian's restic damages those when it saves them.
    bash(&src, r#"printf x > $'odd names/q"\b\x01\x7f'; ln -s $'target \xc3\xa9 "' 'odd names/link'"#);
    place.write("src/big", &noise(20_000_000, 7));
    restic(&place, &["backup", "--host", "alpha", "--tag", "one", "--tag", "two", "src"]);
    bash(&src, "printf more >> plain; mkdir -p later/on; printf new > later/on/f; rm fifo; chmod 600 large");
    restic(&place, &["backup", "--host", "alpha", "src"]);
    restic(&place, &["backup", "--host", "beta", "--time", "2020-02-29 12:34:56", "src/dir"]);

    let run = import(&place, &[]).exits(0);
    let done = of_type(&run, "import");
    let listed: Vec<Value> = serde_json::from_str(&restic(&place, &["snapshots", "--json"])).unwrap();
    assert_eq!((done.len(), listed.len()), (3, 3));
    assert_eq!(done[0]["host"], "beta", "the oldest first");
    let ours = place.run(["snapshots", "--json"]).exits(0).objects();
    for theirs in &listed {
        let id = text(&theirs["id"]);
        let imported = done.iter().find(|object| object["id"] == *id).expect("it was imported");
        assert_eq!(imported["missing"], 0);
        let snapshot = text(&imported["snapshot"]);
        let info = ours.iter().find(|object| object["id"] == *snapshot).expect("it is listed");
        assert_eq!(info["host"], theirs["hostname"]);
        assert_eq!(info["user"], theirs["username"]);
        assert_eq!(info["paths"], theirs["paths"]);
        assert_eq!(info["tags"], theirs.get("tags").cloned().unwrap_or(Value::Array(vec![])));
        let time = |value: &Value| text(value).parse::<jiff::Timestamp>().unwrap();
        assert_eq!(time(&info["time"]), time(&theirs["time"]));
        let (theirs, ours) = (place.path(&format!("theirs-{id}")), place.path(&format!("ours-{id}")));
        restic(&place, &["restore", &id, "--target", theirs.to_str().unwrap()]);
        place.run(["restore", "-q", &snapshot, "--target", ours.to_str().unwrap()]).exits(0);
        // The targets themselves are in no snapshot.
        bash(&place.path(""), "touch -d 2020-01-01 theirs-* ours-*");
        assert_eq!(differences(&theirs, &ours), "", "rsync would change something");
        assert_eq!(names(&theirs), names(&ours));
    }
    let again = &done[2];
    assert_eq!(again["read_files"], 4, "plain has three names, and one file is new: {again}");
    assert!(again["bytes_read"].as_u64().unwrap() < 100, "what did not change is not read again: {again}");
    assert!(again["known_files"].as_u64().unwrap() > 5, "{again}");
    place.run(["verify", "-q", "--data"]).exits(0);

    let before = text(&place.run(["stats", "--json"]).exits(0).last()["pack_bytes"].to_string().into());
    let second = import(&place, &[]).exits(0);
    assert_eq!((second.last()["imported"].clone(), second.last()["there"].clone()), (0.into(), 3.into()));
    assert_eq!(second.last()["stored_bytes"], 0);
    assert_eq!(place.run(["snapshots", "--json"]).objects().len(), 3, "imported twice adds nothing");
    assert_eq!(
        text(&place.run(["stats", "--json"]).exits(0).last()["pack_bytes"].to_string().into()),
        before
    );
    bash(&place.path(""), "rm -rf src/* ours-* theirs-*");
}

#[test]
fn format_1_comes_back_as_from_restic() {
    comes_back_as_from_restic("1");
}

#[test]
fn format_2_comes_back_as_from_restic() {
    comes_back_as_from_restic("2");
}

#[test]
fn snapshots_are_chosen_and_planned_and_go_on_in_the_job() {
    let place = with_restic("2");
    place.write("src/a", b"first");
    restic(&place, &["backup", "--host", "alpha", "--tag", "x", "src"]);
    restic(&place, &["backup", "--host", "beta", "src"]);
    let planned = import(&place, &["--dry-run", "--host", "beta"]).exits(0);
    let outcomes = of_type(&planned, "import");
    assert_eq!((outcomes.len(), &outcomes[0]["outcome"]), (1, &Value::from("planned")));
    assert_eq!(place.run(["snapshots", "--json"]).objects().len(), 0);
    import(&place, &["--tag", "x"]).exits(0);
    let ours = place.run(["snapshots", "--json"]).objects();
    assert_eq!((ours.len(), &ours[0]["host"]), (1, &Value::from("alpha")));
    place.run(["backup", "-q", "--host", "alpha", "src"]).exits(0);
    let jobs: Vec<Value> =
        place.run(["snapshots", "--json"]).objects().iter().map(|s| s["job"].clone()).collect();
    assert_eq!(jobs[0], jobs[1], "the job goes on");
    let named = text(&outcomes[0]["id"]);
    import(&place, &[&named[..12]]).exits(0);
    import(&place, &["ffffffffffffffff"]).exits(1);
    let person = place.run(["import", "restic", "restic", "--from-password-file", "word"]).exits(0);
    assert!(person.out.contains("2 here already"), "{person:?}");
}

#[test]
fn what_cannot_be_opened_says_why() {
    let place = with_restic("1");
    place.write("src/a", b"first");
    restic(&place, &["backup", "src"]);
    place.write("wrong", b"horse\n");
    let wrong = place.run(["import", "restic", "restic", "--from-password-file", "wrong"]).exits(12);
    assert!(wrong.err.contains("opens none of the 1 keys"), "{wrong:?}");
    place.run(["import", "restic", "restic"]).exits(2);
    place.run(["import", "restic", "src", "--from-password-file", "word"]).exits(10);
    place.run(["import", "restic", "nowhere", "--from-password-file", "word"]).exits(10);
    place.run(["import", "restic"]).exits(2);
    let mut command = place.command();
    command.env("LIFEBOAT_FROM_PASSWORD_COMMAND", "cat word").args(["import", "restic", "restic"]);
    Run::of(command.output().unwrap()).exits(0);
}

/// The packs of the restic repository, the largest last.
fn packs(place: &Place) -> Vec<PathBuf> {
    let mut packs = place.files("restic/data");
    packs.sort_by_key(|path| fs::metadata(path).unwrap().len());
    packs
}

#[test]
fn a_damaged_pack_costs_what_is_in_it_and_nothing_else() {
    let place = with_restic("2");
    place.write("src/a", b"first");
    restic(&place, &["backup", "src"]);
    place.write("src/d/noise", &noise(3_000_000, 5));
    restic(&place, &["backup", "src"]);
    let pack = packs(&place).pop().unwrap();
    let whole = fs::read(&pack).unwrap();
    damage(&pack);

    let run = import(&place, &[]).exits(4);
    let done = of_type(&run, "import");
    assert_eq!((&done[0]["missing"], &done[1]["missing"]), (&0.into(), &1.into()));
    let failed: Vec<&str> = run.err.lines().filter(|line| line.contains("entry_failed")).collect();
    assert_eq!(failed.len(), 1, "{failed:?}");
    assert!(failed[0].contains("d/noise") && failed[0].contains("restic's blob"), "{failed:?}");
    let restored = place.run(["restore", "-q", "latest", "--target", "target"]);
    assert_eq!(restored.code, 3, "{restored:?}");
    assert_eq!(fs::read(place.path("target/src/a")).unwrap(), b"first");

    // Again it is said, and nothing is done; mended, it is imported in full when that is asked for.
    import(&place, &[]).exits(4);
    assert_eq!(place.run(["snapshots", "--json"]).objects().len(), 2);
    fs::write(&pack, whole).unwrap();
    let again = import(&place, &["--again"]).exits(0);
    assert_eq!(again.last()["imported"], 1);
    import(&place, &[]).exits(0);
}

#[test]
fn without_an_index_the_packs_are_looked_through() {
    for version in ["1", "2"] {
        let place = with_restic(version);
        place.write("src/a", b"first");
        place.write("src/d/noise", &noise(2_000_000, 5));
        restic(&place, &["backup", "src"]);
        for index in place.files("restic/index") {
            fs::remove_file(index).unwrap();
        }
        let run = import(&place, &[]).exits(0);
        assert_eq!(run.last()["imported"], 1);
        place.run(["restore", "-q", "latest", "--target", "target"]).exits(0);
        assert_eq!(differences(&place.path("src"), &place.path("target/src")), "");
    }
}

/// Restores every snapshot that is there, and demands that no file has a wrong byte.
fn nothing_is_wrong(place: &Place, contents: &BTreeMap<&str, Vec<u8>>, what: &str) {
    for snapshot in place.run(["snapshots", "--json"]).exits(0).objects() {
        let target = place.path("target/x");
        let run = place.run(["restore", "-q", &text(&snapshot["id"]), "--target", target.to_str().unwrap()]);
        assert!(matches!(run.code, 0 | 3 | 4), "{what}: {run:?}");
        for (name, content) in contents {
            if let Ok(found) = fs::read(target.join("src").join(name)) {
                assert!(found == *content, "{what}: {name} has wrong bytes");
            }
        }
        fs::remove_dir_all(&target).ok();
    }
}

#[test]
fn no_damage_makes_a_wrong_byte_a_panic_or_a_hang() {
    let place = with_restic("2");
    let contents = BTreeMap::from([
        ("a", b"some text, some text".to_vec()),
        ("d/b", b"other".to_vec()),
        ("d/noise", noise(700_000, 3)),
    ]);
    for (name, content) in &contents {
        place.write(&format!("src/{name}"), content);
    }
    restic(&place, &["backup", "src"]);
    bash(&place.path(""), "rm -rf restic/locks; chmod -R u+w restic; cp -r repo fresh");
    for path in place.files("restic") {
        let whole = fs::read(&path).unwrap();
        let name = path.strip_prefix(place.path("restic")).unwrap().display().to_string();
        let mut damages: Vec<(String, Option<Vec<u8>>)> = vec![("gone".to_owned(), None)];
        for len in [0, 1, whole.len() / 2, whole.len() - 1] {
            damages.push((format!("cut to {len}"), Some(whole[..len].to_vec())));
        }
        for at in [0, 17, whole.len() / 3, whole.len() - 40, whole.len() - 2] {
            let mut flipped = whole.clone();
            flipped[at] ^= 1 << (at % 8);
            damages.push((format!("flipped at {at}"), Some(flipped)));
        }
        damages.push(("longer".to_owned(), Some([&whole[..], b"x"].concat())));
        for (damage, bytes) in damages {
            match bytes {
                Some(bytes) => fs::write(&path, bytes).unwrap(),
                None => fs::remove_file(&path).unwrap(),
            }
            let what = format!("{name} {damage}");
            let run = import(&place, &[]);
            assert!(matches!(run.code, 0 | 1 | 4 | 10 | 12), "{what}: {run:?}");
            assert!(!run.err.contains("panicked"), "{what}: {run:?}");
            if run.code == 0 && !name.starts_with("snapshots") {
                assert_eq!(run.last()["damaged"], 0, "{what}");
            }
            nothing_is_wrong(&place, &contents, &what);
            fs::write(&path, &whole).unwrap();
            bash(&place.path(""), "rm -rf repo state cache; cp -r fresh repo");
        }
    }
}
