//! Keys of a repository: listing, replacing, removing them, and words on paper.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::support::{Place, Run};

fn keys(place: &Place) -> Vec<Value> {
    place.run(["key", "list", "--json"]).exits(0).objects()
}

fn id_of(place: &Place, label: &str) -> String {
    let found = keys(place).into_iter().find(|key| key["label"] == label).expect("a key of that label");
    found["id"].as_str().unwrap().to_owned()
}

fn bare(place: &Place, args: &[&str]) -> Run {
    Run::of(place.bare().args(["-r", "repo"]).args(args).output().unwrap())
}

#[test]
fn keys_are_listed_with_what_is_known_of_them() {
    let place = Place::with_repository();
    place.write("password", b"correct horse\n");
    fs::set_permissions(place.path("password"), fs::Permissions::from_mode(0o600)).unwrap();
    let add = ["key", "add", "--role", "reader", "--label", "Büro", "--new-password-file", "password"];
    place.run(add).exits(0);
    let made = place.run(["key", "add", "--json", "--role", "writer", "--new-key-file", "w"]).exits(0).last();
    assert_eq!((made["role"].as_str(), made["key_file"].as_str()), (Some("writer"), Some("w")));
    let mode = fs::metadata(place.path("w")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    let found = keys(&place);
    let shown: Vec<_> = found
        .iter()
        .map(|key| {
            (key["role"].as_str().unwrap(), key["kind"].as_str().unwrap(), key["current"].as_bool().unwrap())
        })
        .collect();
    assert_eq!(
        shown,
        [("admin", "key_file", true), ("reader", "password", false), ("writer", "key_file", false)]
    );
    assert_eq!(found[1]["label"], "Büro");
    assert!(found[1]["writer"].is_null() && found[2]["writer"].is_string() && found[2]["label"].is_null());
    let table = place.run(["key", "list"]).exits(0).out;
    assert!(table.contains("Büro") && table.contains("opened this run"), "{table}");
    // It opens by file, by command, and by what it is.
    bare(&place, &["snapshots", "--password-file", "password"]).exits(0);
    bare(&place, &["snapshots", "--password-command", "echo correct horse"]).exits(0);

    let taken = place.run(["key", "add", "--role", "writer", "--new-password-file", "password"]).exits(2);
    assert!(taken.err.contains("opens key") && taken.err.contains("next step"), "{taken:?}");
    let exists = place.run(["key", "add", "--role", "writer", "--new-key-file", "w"]).exits(7);
    assert!(exists.err.contains("exists already"), "{exists:?}");
    for label in ["", "a\nb", &"x".repeat(129)] {
        place.run(["key", "add", "--role", "writer", "--new-key-file", "no", "--label", label]).exits(2);
    }
    let nobody = bare(&place, &["key", "add", "--role", "writer", "--key-file", "key"]).exits(2);
    assert!(nobody.err.contains("no terminal"), "{nobody:?}");
    assert!(!place.path("no").exists());
    assert_eq!(keys(&place).len(), 3, "what was refused made nothing");
}

#[test]
fn a_secret_is_replaced_by_another_and_the_old_one_opens_nothing_any_more() {
    let place = Place::with_repository();
    let before = place.backup();
    place.run(["key", "passwd", "--new-key-file", "new"]).exits(0);
    bare(&place, &["snapshots", "--key-file", "key"]).exits(12);
    let seen = bare(&place, &["snapshots", "--json", "--key-file", "new"]).exits(0).last();
    assert_eq!(seen["id"], before.as_str());
    // From a key file to a password, and on to another one.
    let to_password = ["key", "passwd", "--key-file", "new", "--new-password-command", "echo one"];
    bare(&place, &to_password).exits(0);
    let again =
        ["key", "passwd", "--json", "--password-command", "echo one", "--new-password-command", "echo two"];
    let replaced = bare(&place, &again).exits(0).last();
    assert_eq!(replaced["removed"].as_array().unwrap().len(), 1, "{replaced}");
    bare(&place, &["snapshots", "--password-command", "echo one"]).exits(12);
    bare(&place, &["backup", "-q", "src", "--password-command", "echo two"]).exits(0);
    assert_eq!(place.files("repo/keys").len(), 1);
    assert_eq!(place.files("repo/writers").len(), 1, "it signs as before");
}

#[test]
fn a_writer_replaces_its_own_secret_and_keeps_its_label() {
    let place = Place::with_repository();
    place.run(["key", "add", "--role", "writer", "--new-key-file", "w1", "--label", "web1"]).exits(0);
    let before = id_of(&place, "web1");
    bare(&place, &["key", "passwd", "--key-file", "w1", "--new-key-file", "w2"]).exits(0);
    assert_ne!(id_of(&place, "web1"), before);
    bare(&place, &["backup", "-q", "src", "--key-file", "w1"]).exits(12);
    bare(&place, &["backup", "-q", "src", "--key-file", "w2"]).exits(0);
}

#[test]
fn a_key_is_taken_away_but_not_the_one_in_use() {
    let place = Place::with_repository();
    let own = keys(&place)[0]["id"].as_str().unwrap().to_owned();
    let last = place.run(["key", "remove", &own]).exits(7);
    assert!(last.err.contains("opened this run") && last.err.contains("next step"), "{last:?}");
    place.run(["key", "add", "--role", "writer", "--new-key-file", "w", "--label", "web1"]).exits(0);
    place.run(["key", "remove", &own]).exits(7);
    let writer = id_of(&place, "web1");
    bare(&place, &["backup", "-q", "src", "--key-file", "w"]).exits(0);
    place.run(["key", "remove", &writer[..8]]).exits(0);
    bare(&place, &["backup", "-q", "src", "--key-file", "w"]).exits(12);
    place.run(["key", "remove", &writer]).exits(1);
    place.run(["key", "remove", ""]).exits(1);
    place.run(["verify", "--data"]).exits(0);

    place.run(["key", "add", "--role", "admin", "--new-key-file", "second", "--label", "second"]).exits(0);
    place.run(["key", "remove", &own]).exits(7);
    bare(&place, &["key", "remove", &own[..16], "--key-file", "second"]).exits(0);
    bare(&place, &["snapshots", "--key-file", "key"]).exits(12);
    bare(&place, &["prune", "--dry-run", "--key-file", "second"]).exits(0);
}

#[test]
fn new_recovery_words_replace_the_old_ones() {
    let place = Place::empty();
    place.write("src/a", b"x");
    let made = place.run(["init", "--json", "--new-key-file", "key", "--recovery-words"]).exits(0).last();
    place.write("old", made["recovery_words"].as_str().unwrap().as_bytes());
    fs::set_permissions(place.path("old"), fs::Permissions::from_mode(0o600)).unwrap();
    place.run(["key", "add", "--role", "admin", "--new-key-file", "second"]).exits(0);
    bare(&place, &["key", "verify-recovery", "--words-file", "old"]).exits(0);
    let nowhere = place.run(["key", "recovery"]).exits(2);
    assert!(nowhere.err.contains("--words-to"), "{nowhere:?}");
    bare(&place, &["key", "verify-recovery", "--words-file", "old"]).exits(0);

    let args = ["key", "recovery", "--json", "--words-to", "new", "--png", "new.png"];
    let replaced = place.run(args).exits(0).last();
    assert_eq!(
        replaced["removed"].as_array().unwrap().len(),
        2,
        "the old words and this key's slot: {replaced}"
    );
    for file in ["new", "new.png"] {
        let mode = fs::metadata(place.path(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    assert!(fs::read(place.path("new.png")).unwrap().starts_with(b"\x89PNG"));
    let text = fs::read_to_string(place.path("new")).unwrap();
    assert!(text.contains(" 24. "), "{text}");
    let opened = bare(&place, &["key", "verify-recovery", "--json", "--words-file", "new"]).exits(0).last();
    assert_eq!(opened["role"], "admin");
    bare(&place, &["key", "verify-recovery", "--words-file", "old"]).exits(12);
    bare(&place, &["snapshots", "--words-file", "new"]).exits(0);
    // This key knows the new ones, another one the old ones, which it does not show.
    let words = place.run(["key", "words"]).exits(0).out;
    let plain = |text: &str| -> Vec<String> {
        text.split_whitespace().filter(|part| !part.ends_with('.')).map(str::to_owned).collect()
    };
    assert_eq!(plain(&words), plain(&text));
    let stale = bare(&place, &["key", "words", "--key-file", "second"]).exits(2);
    assert!(stale.err.contains("were replaced"), "{stale:?}");
    place.run(["key", "recovery", "--words-to", "new"]).exits(7);

    // Words replace words, and are not replaced by something else.
    let by_words = bare(&place, &["key", "passwd", "--words-file", "new", "--new-key-file", "x"]).exits(2);
    assert!(by_words.err.contains("key recovery") && !place.path("x").exists(), "{by_words:?}");
    bare(&place, &["key", "recovery", "--words-file", "new", "--words-to", "newer"]).exits(0);
    bare(&place, &["key", "verify-recovery", "--words-file", "new"]).exits(12);
    bare(&place, &["key", "verify-recovery", "--words-file", "newer"]).exits(0);
    let typo = text.replacen(plain(&text)[0].as_str(), "zoo", 1);
    place.write("typo", typo.as_bytes());
    bare(&place, &["key", "verify-recovery", "--words-file", "typo"]).exits(2);
}

/// Talks with the program at a terminal: `answer` is given what it has said so far, and says what is typed, once.
fn at_terminal(place: &Place, args: &str, mut answer: impl FnMut(&str) -> Option<String>) -> (i32, String) {
    let program = env!("CARGO_BIN_EXE_lifeboat");
    let mut command = Command::new("script");
    command.args(["-qec", &format!("stty -echo; {program} -r repo {args}"), "/dev/null"]);
    command.current_dir(place.path("")).env("HOME", place.path("home")).env("SHELL", "/bin/sh");
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let (mut said, mut buffer) = (String::new(), [0; 4096]);
    while let Ok(len @ 1..) = stdout.read(&mut buffer) {
        said.push_str(&String::from_utf8_lossy(&buffer[..len]));
        if let Some(typed) = answer(&said) {
            stdin.write_all(format!("{typed}\n").as_bytes()).unwrap();
        }
    }
    (child.wait().unwrap().code().unwrap(), said)
}

#[test]
fn words_are_shown_at_a_terminal_and_typed_back() {
    let place = Place::with_repository();
    let shown = |said: &str| -> Option<String> {
        let words: Vec<_> = said.split(" 1. ").nth(1)?.split_whitespace().collect();
        said.contains("Type them back").then(|| {
            let words = words.into_iter().filter(|word| word.chars().all(|c| c.is_ascii_lowercase()));
            words.take(24).collect::<Vec<_>>().join(" ")
        })
    };
    let before = place.files("repo/keys").len();
    // Wrong each time: nothing changes.
    let mut asked = 0;
    let (code, said) = at_terminal(&place, "key recovery --key-file key", |said| {
        let now = said.matches("Type them back").count();
        (now > std::mem::replace(&mut asked, now)).then(|| "no such words".to_owned())
    });
    assert_eq!((code, asked), (7, 3), "{said}");
    assert_eq!(place.files("repo/keys").len(), before);

    let (mut done, mut typed) = (false, String::new());
    let (code, said) = at_terminal(&place, "key recovery --key-file key", |said| {
        let words = shown(said).filter(|_| !done)?;
        done = true;
        typed.clone_from(&words);
        Some(words)
    });
    assert_eq!(code, 0, "{said}");
    assert!(said.contains('█') && said.contains("\u{1b}[30;107m"), "a code to photograph: {said}");
    place.write("words", typed.as_bytes());
    bare(&place, &["key", "verify-recovery", "--words-file", "words"]).exits(0);
    let mut done = false;
    let (code, said) = at_terminal(&place, "key verify-recovery", |said| {
        let now = said.contains("Type the 24 words")
            && !std::mem::replace(&mut done, said.contains("Type the 24 words"));
        now.then(|| typed.clone())
    });
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("with role admin"), "{said}");
}

#[test]
fn a_new_password_is_asked_for_twice() {
    let place = Place::with_repository();
    let talk = |second: &'static str| {
        let mut answers = vec![("the same again", second), ("password of the new key", "one")];
        at_terminal(&place, "key add --role reader --key-file key", move |said| {
            let (question, _) = answers.last()?;
            said.contains(question).then(|| answers.pop()).flatten().map(|(_, answer)| answer.to_owned())
        })
    };
    let (code, said) = talk("two");
    assert_eq!(code, 2, "{said}");
    assert_eq!(keys(&place).len(), 1);
    let (code, said) = talk("one");
    assert_eq!(code, 0, "{said}");
    bare(&place, &["snapshots", "--password-command", "echo one"]).exits(0);
}
