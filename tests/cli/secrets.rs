//! Passwords, key files and recovery words.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::support::{Place, Run};

#[test]
fn a_key_file_and_a_password_together_are_refused() {
    let place = Place::with_repository();
    place.write("password", b"x");
    for args in [
        &["--key-file", "key", "--password-file", "password"][..],
        &["--key-file", "key", "--password-command", "echo x"],
        &["--password-file", "password", "--password-command", "echo x"],
    ] {
        let run = place.run(["snapshots"].iter().chain(args)).exits(2);
        assert!(run.err.contains("cannot be used together"), "{run:?}");
    }
    let mut command = place.command();
    let run = Run::of(command.env("LIFEBOAT_PASSWORD", "x").arg("snapshots").output().unwrap()).exits(2);
    assert!(run.err.contains("LIFEBOAT_KEY_FILE and LIFEBOAT_PASSWORD"), "{run:?}");
    place.run(["backup", "-q", "src", "--key-file", "key"]).exits(0);
    let run = Run::of(command.args(["--key-file", "key"]).output().unwrap());
    run.exits(0);
}

#[test]
fn nothing_is_asked_without_a_terminal() {
    let place = Place::with_repository();
    let run = Run::of(place.bare().args(["snapshots", "-r", "repo"]).output().unwrap()).exits(2);
    for option in ["--key-file", "--password-file", "--password-command", "LIFEBOAT_PASSWORD"] {
        assert!(run.err.contains(option), "{option}: {run:?}");
    }
    let run = Run::of(place.bare().args(["init", "-r", "new"]).output().unwrap()).exits(2);
    assert!(run.err.contains("--new-key-file") && !place.path("new").exists(), "{run:?}");
}

#[test]
fn a_password_opens_from_file_command_and_environment() {
    let place = Place::empty();
    place.write("password", b"correct horse\n");
    place.write("src/a", b"x");
    fs::set_permissions(place.path("password"), fs::Permissions::from_mode(0o600)).unwrap();
    place.run(["init", "-q", "--password-file", "password"]).exits(0);
    let run = place.run(["backup", "src", "--password-command", "printf 'correct horse'"]).exits(0);
    assert_eq!(run.err, "");
    let mut command = place.command();
    Run::of(command.env("LIFEBOAT_PASSWORD", "correct horse\n").arg("snapshots").output().unwrap()).exits(0);
    place.run(["snapshots", "--password-command", "echo wrong"]).exits(12);
    place.run(["snapshots", "--password-command", "exit 3"]).exits(1);
}

#[test]
fn what_cannot_be_a_password_is_refused() {
    let place = Place::with_repository();
    for content in [&b""[..], b"\n", b"a\0b", b"\xff"] {
        place.write("password", content);
        place.run(["snapshots", "--password-file", "password"]).exits(2);
    }
    let mut command = place.bare();
    Run::of(command.env("LIFEBOAT_PASSWORD", "").args(["snapshots", "-r", "repo"]).output().unwrap())
        .exits(2);
}

#[test]
fn secrets_that_others_may_read_are_warned_of() {
    let place = Place::with_repository();
    fs::set_permissions(place.path("key"), fs::Permissions::from_mode(0o644)).unwrap();
    let run = place.run(["snapshots"]).exits(0);
    assert!(run.err.contains("warning") && run.err.contains("chmod 600"), "{run:?}");
    assert_eq!(place.run(["snapshots", "-q"]).exits(0).err, "");
}

#[test]
fn a_new_key_file_is_private_and_never_replaces_anything() {
    let place = Place::with_repository();
    let mode = fs::metadata(place.path("key")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let before = fs::read(place.path("key")).unwrap();
    place.run(["init", "-r", "other", "--new-key-file", "key"]).exits(7);
    assert_eq!(fs::read(place.path("key")).unwrap(), before);
    assert!(!place.path("other").exists(), "and no repository is made that nobody can open");
}

#[test]
fn recovery_words_open_what_they_were_made_for() {
    let place = Place::empty();
    place.write("src/a", b"x");
    let made = place.run(["init", "--json", "--new-key-file", "key", "--recovery-words"]).exits(0).last();
    let words = made["recovery_words"].as_str().unwrap();
    assert_eq!(words.split_whitespace().count(), 24);
    place.write("words", words.as_bytes());
    place.run(["backup", "-q", "src"]).exits(0);
    assert_eq!(place.run(["snapshots", "--json", "--words-file", "words"]).exits(0).objects().len(), 1);
    let again = place.run(["key", "words", "--json"]).exits(0).last();
    assert_eq!(again["words"].as_str().unwrap(), words);
    assert!(place.run(["key", "words"]).exits(0).out.contains(" 24. "));
    place.write("words", words.replacen(' ', " zoo ", 1).as_bytes());
    place.run(["snapshots", "--words-file", "words"]).exits(2);
}
