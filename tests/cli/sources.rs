//! What can be saved, and comes back.

use std::fs;

use crate::support::{Place, noise};

#[test]
fn files_come_back_as_they_were() {
    let place = Place::with_repository();
    place.write("src/d/big", &noise(3 << 20, 5));
    std::os::unix::fs::symlink("a", place.path("src/link")).unwrap();
    let id = place.backup();
    place.run(["restore", &id[..12], "--target", "target", "--verify"]).exits(0);
    let back = place.path("target").join(place.path("src").strip_prefix("/").unwrap());
    for name in ["a", "d/b", "d/big"] {
        assert_eq!(
            fs::read(back.join(name)).unwrap(),
            fs::read(place.path("src").join(name)).unwrap(),
            "{name}"
        );
    }
    assert_eq!(fs::read_link(back.join("link")).unwrap().to_str(), Some("a"));

    let inner = format!("latest:{}", place.path("src/d").display());
    place.run(["restore", &inner, "--target", "part"]).exits(0);
    assert_eq!(fs::read(place.path("part/b")).unwrap(), b"second\n");
    place.run(["restore", &inner, "--target", "nothing", "-n"]).exits(0);
    assert!(!place.path("nothing").exists());
}

#[test]
fn standard_input_and_commands_are_sources() {
    let place = Place::with_repository();
    place.feed(["backup", "-", "--as", "/dump.sql", "--job", "in"], b"select 1;").exits(0);
    assert_eq!(place.run(["cat", "latest:/dump.sql"]).exits(0).out, "select 1;");
    place.run(["backup", "--job", "out", "--as", "/hello", "--command", "printf", "%s", "--json"]).exits(0);
    assert_eq!(place.run(["cat", "latest:/hello", "--job", "out"]).exits(0).out, "--json");
    let run = place.run(["backup", "--command", "sh", "-c", "echo half; exit 9"]).exits(1);
    assert!(run.err.contains('9'), "{run:?}");
    assert_eq!(place.run(["snapshots", "--json"]).exits(0).objects().len(), 2, "half a dump is not saved");
}

#[test]
fn rules_decide_what_is_saved() {
    let place = Place::with_repository();
    place.write("src/skip.log", b"x");
    place.write("src/KEEP.TMP", b"x");
    place.write("src/large", &noise(100_000, 1));
    place.write("src/sub/.rules", b"secret\n");
    place.write("src/sub/secret", b"x");
    place.write("src/cache/CACHEDIR.TAG", b"Signature: 8a477f597d28d172789f06886806bc55");
    place.write("src/cache/x", b"x");
    place.write("patterns", b"# comment\n*.log\n");
    let args = [
        "backup",
        "src",
        "--exclude-file",
        "patterns",
        "--iexclude",
        "*.tmp",
        "--exclude-larger-than",
        "50K",
        "--ignore-file",
        ".rules",
        "--exclude-caches",
    ];
    place.run(args).exits(0);
    let listed = place.run(["ls"]).exits(0).out;
    for kept in ["src/a", "src/d/b", "src/sub/.rules"] {
        assert!(listed.contains(kept), "{kept} in {listed}");
    }
    for gone in ["skip.log", "KEEP.TMP", "large", "secret", "cache/x"] {
        assert!(!listed.contains(gone), "{gone} in {listed}");
    }
    place.run(["backup", "src", "--include", "**/d/**", "--job", "part"]).exits(0);
    let listed = place.run(["ls", "latest", "--job", "part"]).exits(0).out;
    assert!(listed.contains("src/d/b") && !listed.contains("skip.log"), "{listed}");
}

#[test]
fn a_dry_run_stores_nothing() {
    let place = Place::with_repository();
    let before = place.files("repo").len();
    let summary = place.run(["backup", "-n", "src", "--json"]).exits(0).last();
    assert!(summary["snapshot"].is_null() && summary["files"] == 2, "{summary}");
    assert_eq!(place.files("repo").len(), before);
}

#[test]
fn an_unchanged_source_is_not_read_again() {
    let place = Place::with_repository();
    // What was written a moment ago is looked at again.
    assert!(std::process::Command::new("sleep").arg("0.1").status().unwrap().success());
    place.backup();
    let again = place.run(["backup", "src", "--json"]).exits(0).last();
    assert_eq!((&again["bytes_read"], &again["unchanged_files"]), (&0.into(), &2.into()), "{again}");
    // Directories above the source may have changed, and their pages with them.
    assert!(again["new_bytes"].as_u64().unwrap() < 1000, "{again}");
}
