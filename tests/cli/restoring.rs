//! Restoring over what is there: in place, by policy, with removal; and what is said before.

#![allow(clippy::print_stderr, reason = "a test that is left out says so")]

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::process::Command;

use crate::support::{Place, noise};

/// `src` with a large file, saved; and where it goes.
fn saved() -> (Place, String) {
    let place = Place::with_repository();
    place.write("src/large", &noise(24 << 20, 7));
    place.backup();
    let stored = format!("latest:{}", place.path("src").display());
    (place, stored)
}

#[test]
fn a_restore_that_is_killed_goes_on_in_place_with_what_arrived() {
    let (place, stored) = saved();
    let restore = ["restore", &stored, "--target", "target", "--limit-download", "12M"];
    let mut child = place.start(restore);
    while fs::metadata(place.path("target/large")).map_or(0, |found| found.blocks()) < 8 << 11 {
        std::thread::yield_now();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(fs::metadata(place.path("target/large")).unwrap().mode() & 0o777, 0o600);
    let plan = ["restore", &stored, "--target", "target", "--in-place", "--plan", "--json"];
    let plan = place.run(plan).exits(0).last();
    let done = place.run(["restore", &stored, "--target", "target", "--in-place", "--json"]).exits(0).last();
    let kept = done["bytes_kept"].as_u64().unwrap();
    assert!(kept >= 3 << 20, "{done}");
    assert_eq!(kept + done["bytes"].as_u64().unwrap(), (24 << 20) + 13);
    for field in ["bytes", "chunks", "bytes_kept", "bytes_fetched", "entries", "files"] {
        assert_eq!(plan[field], done[field], "{field}");
    }
    assert_eq!(fs::read(place.path("target/large")).unwrap(), noise(24 << 20, 7));
    let again = place.run(["restore", &stored, "--target", "target", "--in-place", "--json"]).exits(0).last();
    assert_eq!((&again["bytes"], &again["bytes_fetched"]), (&0.into(), &0.into()));
}

#[test]
fn a_plan_says_what_it_takes_and_invents_no_time() {
    let (place, stored) = saved();
    let plan = |json: bool| {
        let json = if json { &["--json"][..] } else { &[] };
        let args = ["restore", &stored, "--target", "target", "--plan"];
        place.run([&args[..], json].concat()).exits(0)
    };
    let first = plan(false);
    assert!(first.out.contains("time      not known"), "{}", first.out);
    assert_eq!(plan(true).last()["expected_seconds"], serde_json::Value::Null);
    assert!(fs::read_dir(place.path("target")).unwrap().next().is_none());
    place.run(["restore", "-q", &stored, "--target", "target"]).exits(0);
    fs::remove_dir_all(place.path("target")).unwrap();
    let object = plan(true).last();
    assert_eq!((&object["type"], &object["fits"]), (&"plan".into(), &true.into()));
    assert!(object["expected_seconds"].as_f64().unwrap() > 0.0, "{object}");
    for field in ["requests", "memory", "space_needed", "space_free", "bytes", "bytes_fetched", "chunks"] {
        assert!(object[field].as_u64().unwrap() > 0, "{field} of {object}");
    }
    let text = plan(false).out;
    for word in ["write", "fetch", "requests", "memory", "room", "time      about"] {
        assert!(text.contains(word), "{word} in {text}");
    }
}

#[test]
fn policies_and_removal_are_options() {
    let (place, stored) = saved();
    let restore = |more: &[&str]| {
        let args = ["restore", &stored, "--target", "target", "--json"];
        place.run([&args[..], more].concat())
    };
    restore(&[]).exits(0);
    place.write("target/stray", b"x");
    place.write("target/d/stray", b"x");
    let changed = fs::File::options().write(true).open(place.path("target/large")).unwrap();
    changed.write_all_at(b"newer", 5).unwrap();
    let done = restore(&["--overwrite", "if-newer", "--delete"]).exits(0).last();
    assert_eq!((&done["left"], &done["removed"]), (&3.into(), &2.into()), "{done}");
    assert!(fs::read(place.path("target/large")).unwrap() != noise(24 << 20, 7));
    assert!(!place.path("target/stray").exists());
    let done = restore(&["--overwrite", "if-changed"]).exits(0).last();
    assert!(done["bytes"].as_u64().unwrap() >= 24 << 20, "{done}");
    assert!(fs::read(place.path("target/large")).unwrap() == noise(24 << 20, 7));
    let done = restore(&["--overwrite", "if-changed"]).exits(0).last();
    assert_eq!(done["bytes_fetched"], 0, "{done}");
    restore(&["--overwrite", "never"]).exits(3);
    restore(&["--yes"]).exits(2);
    restore(&["--overwrite", "sometimes"]).exits(2);
    for number in 0..20 {
        place.write(&format!("target/theirs/{number}"), b"x");
    }
    let refused = restore(&["--delete"]).exits(7);
    assert!(refused.err.contains("--yes"), "{}", refused.err);
    assert_eq!(restore(&["--delete", "--yes"]).exits(0).last()["removed"], 21);
    let strip = place.run(["restore", &stored, "--target", "stripped", "--strip", "1"]).exits(0);
    assert!(strip.out.contains("1 file,"), "{}", strip.out);
    assert_eq!(fs::read(place.path("stripped/b")).unwrap(), b"second\n");
}

#[test]
fn the_repository_stays_where_all_that_is_around_it_is_restored() {
    let place = Place::with_repository();
    let around = place.path("");
    place.run(["backup", "-q", around.to_str().unwrap()]).exits(0);
    let stored = format!("latest:{}", around.display());
    place.write("stray", b"x");
    fs::remove_file(place.path("src/a")).unwrap();
    let args = ["restore", &stored, "--target", around.to_str().unwrap(), "--in-place", "--delete", "--json"];
    let before = place.files("repo");
    let planned = place.run([&args[..], &["--plan"]].concat()).exits(0).last();
    let done = place.run(args).exits(0).last();
    assert_eq!((&planned["removed"], &done["removed"]), (&1.into(), &1.into()), "{done}");
    assert!(place.path("src/a").exists() && !place.path("stray").exists());
    assert_eq!(place.files("repo"), before);
    assert!(!place.files("state").is_empty());
    place.run(["verify", "-q"]).exits(0);
}

/// A file system of its own, gone with the value; none if that may not be done here.
pub(crate) struct Mounted(std::path::PathBuf);

impl Mounted {
    pub(crate) fn new(place: &Place, name: &str, (kind, options): (&str, &str)) -> Option<Self> {
        let path = place.path(name);
        fs::create_dir_all(&path).unwrap();
        let status = Command::new("mount").args(["-t", kind, "-o", options, kind]).arg(&path).status();
        if status.is_ok_and(|status| status.success()) {
            return Some(Self(path));
        }
        eprintln!("skipped: mounting {kind} is not possible here");
        None
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        Command::new("umount").arg("-l").arg(&self.0).status().unwrap();
    }
}

#[test]
fn a_target_that_is_too_small_is_refused_before_or_told_of_when_it_is_full() {
    let (place, stored) = saved();
    let Some(_small) = Mounted::new(&place, "small", ("tmpfs", "size=8M")) else { return };
    let restore = |more: &[&str]| {
        let args = ["restore", &stored, "--target", "small"];
        place.run([&args[..], more].concat())
    };
    let plan = restore(&["--plan"]).exits(14);
    assert!(plan.out.contains("too little"), "{}", plan.out);
    let refused = restore(&[]).exits(14);
    assert!(refused.err.contains("make room"), "{}", refused.err);
    assert!(fs::read_dir(place.path("small")).unwrap().next().is_none());
    // A rule that leaves enough out makes it fit.
    restore(&["--exclude", "large"]).exits(0);
    // Full in the middle: what stood is still there.
    place.write("src/half", &noise(5 << 20, 3));
    place.backup();
    place.write("small/half", &noise(5 << 20, 4));
    let full = restore(&["--include", "half"]).exits(14);
    assert!(full.err.contains("small/half") || full.err.contains("No space"), "{}", full.err);
    assert_eq!(fs::read(place.path("small/half")).unwrap(), noise(5 << 20, 4));
    restore(&["--include", "half", "--in-place"]).exits(0);
    assert_eq!(fs::read(place.path("small/half")).unwrap(), noise(5 << 20, 3));
}

#[test]
fn a_file_system_without_attributes_costs_them_alone_and_that_is_said() {
    let place = Place::with_repository();
    place.write("src/plain", b"no attributes\n");
    symlink("a", place.path("src/link")).unwrap();
    let flags = rustix::fs::XattrFlags::empty();
    if rustix::fs::setxattr(place.path("src/a"), "user.note", b"text", flags).is_err() {
        println!("skipped: no attributes here");
        return;
    }
    place.backup();
    let Some(_mounted) = Mounted::new(&place, "bare", ("ramfs", "mode=755")) else { return };
    let stored = format!("latest:{}", place.path("src").display());
    for more in [&[][..], &["--in-place"]] {
        let run = place.run([&["restore", &stored, "--target", "bare", "--json"], more].concat());
        if run.code == 0 {
            println!("skipped: ramfs has attributes here");
            return;
        }
        let run = run.exits(3);
        assert!(run.err.contains("user.note"), "{}", run.err);
        assert_eq!(run.last()["failed"], 1, "{}", run.err);
        assert_eq!(fs::read(place.path("bare/a")).unwrap(), b"first\n");
        assert_eq!(fs::read_link(place.path("bare/link")).unwrap().as_os_str(), "a");
    }
}
