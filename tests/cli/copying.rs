//! `copy`: from one repository to another with a key of its own, as a user does it.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::support::{Place, Run, damage, noise};

/// A place with a second repository, `other`, that opens with `other.key`.
fn two() -> Place {
    let place = Place::with_repository();
    let to = place.path("other");
    let made =
        place.bare().args(["init", "-q", "--new-key-file", "other.key", "-r"]).arg(&to).output().unwrap();
    Run::of(made).exits(0);
    place
}

const TO: [&str; 4] = ["--to", "other", "--to-key-file", "other.key"];

fn copy(place: &Place, more: &[&str]) -> Run {
    place.run(["copy"].iter().chain(&TO).chain(more))
}

/// The program on the second repository.
fn other(place: &Place, args: &[&str]) -> Run {
    let mut command = place.bare();
    command.args(["-r", "other", "--key-file", "other.key"]).args(args);
    Run::of(command.output().unwrap())
}

fn number(object: &Value, key: &str) -> u64 {
    object[key].as_u64().unwrap_or_else(|| panic!("{key} in {object}"))
}

fn bytes_of(place: &Place, name: &str) -> u64 {
    place.files(name).iter().map(|path| fs::metadata(path).unwrap().len()).sum()
}

/// What rsync would change to make one directory like the other.
fn differences(from: &Path, to: &Path) -> String {
    let mut rsync = Command::new("rsync");
    rsync.args(["-aHAX", "--checksum", "--delete", "-n", "--itemize-changes"]);
    let done = rsync.arg(format!("{}/", from.display())).arg(to).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8_lossy(&done.stdout).into_owned()
}

#[test]
fn everything_is_copied_once_and_comes_back_from_the_copy() {
    let place = two();
    place.write("src/large", &noise(6 << 20, 3));
    let script = "ln -s a link; ln a hard; mkfifo pipe; truncate -s 2M sparse; chmod 4711 d/b; setfattr -n user.x -v y a";
    let made = Command::new("sh").args(["-c", script]).current_dir(place.path("src")).status().unwrap();
    assert!(made.success());
    place.run(["backup", "-q", "src", "--tag", "t=1", "--job", "j"]).exits(0);
    place.write("src/d/b", b"changed\n");
    place.run(["backup", "-q", "src", "--job", "j"]).exits(0);
    place.run(["tag", "latest~1", "--add", "kept"]).exits(0);

    let dry = copy(&place, &["-n", "--json"]).exits(0);
    assert_eq!(dry.objects().iter().filter(|object| object["outcome"] == "planned").count(), 2);
    assert!(other(&place, &["snapshots", "--json"]).exits(0).out.is_empty(), "a dry run stores nothing");

    let run = copy(&place, &["--json"]).exits(0);
    let objects = run.objects();
    assert_eq!((objects.len(), &objects[0]["outcome"]), (3, &Value::from("copied")));
    assert_eq!(number(&objects[1], "bytes_read"), 8, "of the second one only the changed file is read");
    let listed = other(&place, &["snapshots", "--json"]).exits(0).objects();
    let originals = place.run(["snapshots", "--json"]).exits(0).objects();
    assert_eq!(listed.len(), 2);
    for (copy, original) in listed.iter().zip(&originals) {
        for same in ["time", "tags", "host", "job", "paths", "files", "bytes"] {
            assert_eq!(copy[same], original[same], "{same}");
        }
        assert_eq!(copy["origin"]["snapshot"], original["id"]);
        assert_eq!(copy["origin"]["time"], original["stored"]);
        assert_ne!(copy["id"], original["id"]);
    }
    assert!(listed[0]["tags"].as_array().unwrap().contains(&"kept".into()), "labels go along");

    let stored = format!("latest:{}", place.path("src").display());
    other(&place, &["restore", "-q", &stored, "--target", "target"]).exits(0);
    assert_eq!(differences(&place.path("src"), &place.path("target")), "");
    other(&place, &["verify", "--data"]).exits(0);

    let before = (bytes_of(&place, "other"), place.files("other").len());
    let again = copy(&place, &["--json"]).exits(0).last();
    assert_eq!((number(&again, "copied"), number(&again, "there")), (0, 2));
    assert_eq!((bytes_of(&place, "other"), place.files("other").len()), before);
    let text = copy(&place, &["latest"]).exits(0);
    assert!(text.err.contains("is there already as") && text.out.contains("1 there already"), "{text:?}");
}

#[test]
fn what_is_named_or_filtered_is_copied_alone() {
    let place = two();
    for job in ["one", "two", "three"] {
        place.run(["backup", "-q", "src", "--job", job, "--tag", job]).exits(0);
    }
    let jobs = || -> Vec<String> {
        let found = other(&place, &["snapshots", "--json"]).exits(0).objects();
        found.iter().map(|object| object["job"].as_str().unwrap().to_owned()).collect()
    };
    copy(&place, &["--tag", "two", "-q"]).exits(0);
    assert_eq!(jobs(), ["two"]);
    copy(&place, &["latest~2", "-q"]).exits(0);
    assert_eq!(jobs(), ["one", "two"], "in the order in which the first store got them");
    copy(&place, &["--mirror", "-q"]).exits(0);
    assert_eq!(jobs(), ["one", "two", "three"]);
    copy(&place, &["--mirror", "latest"]).exits(2);
    copy(&place, &["beef"]).exits(1);
}

#[test]
fn the_second_repository_has_secrets_of_its_own() {
    let place = two();
    place.backup();
    let run = |args: &[&str], variables: &[(&str, &str)]| {
        let mut command = place.command();
        command.arg("copy").args(args);
        for (name, value) in variables {
            command.env(name, value);
        }
        Run::of(command.output().unwrap())
    };
    let nowhere = run(&[], &[]).exits(2);
    assert!(nowhere.err.contains("--to"), "{nowhere:?}");
    let none = run(&["--to", "other"], &[]).exits(2);
    assert!(none.err.contains("--to-key-file"), "{none:?}");
    // The first one's key opens the first one only.
    let wrong = run(&["--to", "other", "--to-key-file", "key"], &[]).exits(12);
    assert!(wrong.err.contains("other repository") && wrong.err.contains("/other"), "{wrong:?}");
    let both = run(&["--to", "other", "--to-key-file", "other.key", "--to-password-file", "x"], &[]).exits(2);
    assert!(both.err.contains("--to-password-file"), "{both:?}");
    let absent = run(&["--to", "none", "--to-key-file", "other.key"], &[]).exits(10);
    assert!(absent.err.contains("init --repo") && absent.err.contains("/none"), "{absent:?}");
    let same = run(&["--to", "repo", "--to-key-file", "key"], &[]).exits(2);
    assert!(same.err.contains("to itself"), "{same:?}");
    assert!(other(&place, &["snapshots", "--json"]).exits(0).out.is_empty());
    run(&["-q"], &[("LIFEBOAT_TO_REPO", "other"), ("LIFEBOAT_TO_KEY_FILE", "other.key")]).exits(0);
    assert_eq!(other(&place, &["snapshots", "--json"]).exits(0).objects().len(), 1);
    // A password works as well as a key file.
    place.write("password", b"correct horse\n");
    let made =
        place.bare().args(["init", "-q", "-r", "third", "--password-file", "password"]).output().unwrap();
    Run::of(made).exits(0);
    run(&["-q", "--to", "third", "--to-password-command", "cat password"], &[]).exits(0);
}

#[test]
fn damage_in_the_source_is_named_and_the_rest_is_copied() {
    let place = two();
    place.write("src/large", &noise(2 << 20, 3));
    place.backup();
    for pack in place.files("repo/packs") {
        if fs::metadata(&pack).unwrap().len() > 1 << 20 {
            damage(&pack);
        }
    }
    let run = copy(&place, &["--json"]).exits(4);
    let (objects, last) = (run.objects(), run.last());
    assert!(number(&objects[0], "missing") > 0 && number(&last, "damaged") == 1, "{run:?}");
    assert!(run.err.contains("entry_failed") && run.err.contains("/src/"), "{run:?}");
    other(&place, &["verify", "--data"]).exits(0);
    let again = copy(&place, &["--mirror"]).exits(4);
    assert!(again.err.contains("--again"), "it does not pass for a whole copy: {again:?}");
    let listed = other(&place, &["snapshots"]).exits(0);
    assert!(listed.out.contains("copy without"), "{listed:?}");
}

#[test]
fn a_copy_that_is_killed_goes_on_where_it_was() {
    let place = two();
    for part in 0..6 {
        place.write(&format!("src/{part}"), &noise(10 << 20, part + 1));
    }
    place.backup();
    // The first pack goes at once, the next one waits for the limit: long enough to be met.
    let mut command = place.command();
    command.args(["copy", "--limit-upload", "2M"]).args(TO).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    while place.files("other/packs").is_empty() {
        assert!(child.try_wait().unwrap().is_none(), "it ended before it was killed");
        std::thread::yield_now();
    }
    kill_process(Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap(), Signal::KILL).unwrap();
    child.wait().unwrap();
    assert!(other(&place, &["snapshots", "--json"]).exits(0).out.is_empty(), "nothing is acknowledged");
    let again = copy(&place, &["--json"]).exits(0).last();
    assert!(number(&again, "resumed_bytes") > 0, "{again}");
    let all = 60 << 20;
    assert!(number(&again, "new_bytes") < all, "{again}");
    other(&place, &["verify", "--data"]).exits(0);
    let stored = format!("latest:{}", place.path("src").display());
    other(&place, &["restore", "-q", &stored, "--target", "target"]).exits(0);
    assert_eq!(differences(&place.path("src"), &place.path("target")), "");
}

#[test]
fn retention_of_the_copies_goes_by_the_time_of_the_first_store() {
    let place = two();
    place.run(["backup", "-q", "src", "--job", "j"]).exits(0);
    copy(&place, &["-q"]).exits(0);
    place.run(["backup", "-q", "src", "--job", "j"]).exits(0);
    place.run(["backup", "-q", "src", "--job", "j"]).exits(0);
    // The last comes first: by the clock of the second store the one in the middle would be the newest.
    copy(&place, &["-q", "latest"]).exits(0);
    copy(&place, &["-q"]).exits(0);
    let originals = place.run(["snapshots", "--json"]).exits(0).objects();
    let latest = |verb: &[&str]| other(&place, verb).exits(0);
    latest(&["forget", "--keep-last", "1", "-q"]);
    let left = latest(&["snapshots", "--json"]).objects();
    assert_eq!(left.len(), 1);
    assert_eq!(left[0]["origin"]["snapshot"], originals[2]["id"]);
}
