//! The page for the worst day: its commands, as printed.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use super::support::{Place, noise};

/// The blocks of the page in this language.
fn blocks(language: &str) -> Vec<&'static str> {
    let page = include_str!("../../docs/runbook.md");
    page.split(&format!("```{language}\n")).skip(1).map(|rest| rest.split("```").next().unwrap()).collect()
}

/// What needs a bucket with versions or a server of a database is run elsewhere.
#[test]
fn the_other_commands_of_the_runbook_are_ones_that_there_are() {
    let place = Place::empty();
    let blocks = blocks("console");
    let lines: Vec<&str> = blocks.iter().flat_map(|block| block.lines()).collect();
    assert_eq!((blocks.len(), lines.len()), (3, 8), "{lines:?}");
    for line in lines {
        let words = line.strip_prefix("lifeboat ").unwrap().split(' ');
        let known = place.run(words.chain(["--help"])).exits(0);
        assert!(known.out.contains("Usage: lifeboat"), "{known:?}");
    }
}

#[test]
fn the_commands_of_the_runbook_bring_files_back_on_a_machine_that_has_seen_nothing() {
    let place = Place::empty();
    place.write("srv/etc/fstab", b"/dev/vda1 / ext4 defaults 0 1\n");
    place.write("srv/home/mail", &noise(700_000, 4));
    let made = place.run(["init", "--json", "--new-key-file", "key", "--recovery-words"]).exits(0).last();
    place.write("words", made["recovery_words"].as_str().unwrap().as_bytes());
    fs::set_permissions(place.path("words"), fs::Permissions::from_mode(0o600)).unwrap();
    place.run(["backup", "-q", "--as", "/", "srv"]).exits(0);
    let anchor = place.run(["anchor", "--json"]).exits(0).last()["anchor"].as_str().unwrap().to_owned();
    place.run(["backup", "-q", "--as", "/", "srv"]).exits(0);

    let blocks = blocks("sh");
    assert_eq!(blocks.len(), 6, "{blocks:?}");
    let path = |name: &str| place.path(name).to_str().unwrap().to_owned();
    let text = blocks.concat();
    let names =
        [("/srv/backups", path("repo")), ("/root/backup.key", path("key")), ("/root/words", path("words"))];
    let text = names.iter().fold(text, |text, (printed, here)| text.replace(printed, here));
    let text = text.replace("/mnt/new", &path("new")).replace("ANCHOR", &anchor);
    let directory = Path::new(env!("CARGO_BIN_EXE_lifeboat")).parent().unwrap();
    let programs = format!("{}:/usr/bin:/bin", directory.display());
    let output = Command::new("sh")
        .args(["-euc", &text])
        .env_clear()
        .env("PATH", programs)
        .env("HOME", place.path("another-machine"))
        .output()
        .unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}{err}");
    for name in ["etc/fstab", "home/mail"] {
        let (is, was) = (place.path("new").join(name), place.path("srv").join(name));
        assert!(fs::read(is).unwrap() == fs::read(was).unwrap(), "{name}: {out}{err}");
    }
}
