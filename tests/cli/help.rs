//! Help, completions and manual pages.

use crate::support::Place;

const VERBS: [(&str, &[&str]); 27] = [
    (
        "rekey",
        &[
            "--keep-key-file",
            "--keep-password-file",
            "--remove-old",
            "--reencrypt",
            "--limit",
            "--dry-run",
            "key passwd",
        ],
    ),
    ("anchor", &["--accept-missing", "--require-anchor"]),
    ("writer", &["list", "revoke"]),
    ("prune", &["--grace", "--undo-window", "--max-unused", "--max-repack", "--reserve", "--dry-run"]),
    ("init", &["--new-key-file", "--recovery-words"]),
    ("key", &["words"]),
    (
        "backup",
        &[
            "--command",
            "--stream",
            "--dump",
            "--dump-option",
            "--read-holes",
            "--as",
            "--job",
            "--host",
            "--tag",
            "--exclude",
            "--iexclude",
            "--exclude-file",
            "--include",
            "--ignore-file",
            "--one-file-system",
            "--exclude-caches",
            "--exclude-larger-than",
            "--level",
            "--allow-shrink",
            "--dry-run",
        ],
    ),
    ("snapshots", &["--host", "--job", "--tag", "--path", "--all"]),
    (
        "forget",
        &[
            "--keep-last",
            "--keep-hourly",
            "--keep-daily",
            "--keep-weekly",
            "--keep-monthly",
            "--keep-quarterly",
            "--keep-yearly",
            "--keep-within",
            "--keep-within-hourly",
            "--keep-within-daily",
            "--keep-within-weekly",
            "--keep-within-monthly",
            "--keep-within-quarterly",
            "--keep-within-yearly",
            "--keep-tag",
            "--host",
            "--job",
            "--tag",
            "--path",
            "--unconfirmed",
            "--allow-empty",
            "--dry-run",
        ],
    ),
    (
        "copy",
        &[
            "--to",
            "--to-key-file",
            "--to-password-file",
            "--to-password-command",
            "--to-words-file",
            "--to-option",
            "--host",
            "--job",
            "--tag",
            "--path",
            "--mirror",
            "--again",
            "--level",
            "--dry-run",
        ],
    ),
    (
        "serve",
        &[
            "--stdio",
            "--listen",
            "--new-token",
            "--root",
            "--role",
            "--quota",
            "--repo-prefix",
            "--tokens",
            "--cert",
            "--key",
            "--plain",
            "--max-connections",
            "--max-per-token",
        ],
    ),
    ("undelete", &["SNAPSHOT"]),
    ("hold", &["add", "list", "remove"]),
    ("tag", &["--add", "--remove", "--set"]),
    ("ls", &["--long", "--no-recursive"]),
    ("diff", &["--metadata", "--host", "--job", "--tag"]),
    (
        "find",
        &[
            "--snapshot",
            "--all",
            "--ignore-case",
            "--newer",
            "--older",
            "--larger",
            "--smaller",
            "--type",
            "--metadata",
            "--long",
            "--host",
            "--job",
            "--tag",
        ],
    ),
    (
        "why",
        &[
            "--source",
            "--job",
            "--host",
            "--tag",
            "--exclude",
            "--exclude-file",
            "--include",
            "--ignore-file",
            "--one-file-system",
            "--exclude-caches",
            "--exclude-larger-than",
        ],
    ),
    ("cat", &["SNAPSHOT:PATH"]),
    (
        "restore",
        &[
            "--target",
            "--tar",
            "--zip",
            "--include",
            "--exclude",
            "--no-owner",
            "--numeric-owner",
            "--sparse",
            "--overwrite",
            "--in-place",
            "--delete",
            "--yes",
            "--strip",
            "--verify",
            "--dry-run",
            "--plan",
        ],
    ),
    ("verify", &["--packs", "--data"]),
    ("stats", &[]),
    ("run", &["JOB", "--force", "--quiet-unless-error", "--dry-run"]),
    ("schedule", &["install", "show", "remove"]),
    ("config", &["check", "show", "schema"]),
    ("doctor", &[]),
    ("completions", &["bash", "zsh", "fish", "elvish", "powershell"]),
];

const GLOBAL: [&str; 14] = [
    "--repo",
    "--config",
    "--password-file",
    "--password-command",
    "--key-file",
    "--json",
    "--quiet",
    "--verbose",
    "--cache-dir",
    "--no-cache",
    "--state-dir",
    "--limit-upload",
    "--limit-download",
    "--option",
];

#[test]
fn every_verb_explains_its_options() {
    let place = Place::empty();
    for (verb, options) in VERBS {
        for form in ["--help", "-h"] {
            let run = place.run([verb, form]).exits(0);
            for option in options.iter().chain(&GLOBAL) {
                assert!(run.out.contains(option), "{verb} {form} lacks {option}");
            }
            assert_eq!(run.err, "");
        }
    }
    let run = place.run(["--help"]).exits(0);
    for (verb, _) in VERBS {
        assert!(run.out.contains(verb), "{verb}");
    }
    assert!(place.run(["--version"]).exits(0).out.starts_with("lifeboat "));
}

#[test]
fn check_is_another_name_of_verify() {
    assert!(Place::empty().run(["check", "--help"]).exits(0).out.contains("--data"));
}

#[test]
fn typing_errors_are_answered_with_what_was_meant() {
    let place = Place::empty();
    assert!(place.run(["bakcup"]).exits(2).err.contains("backup"));
    assert!(place.run(["stats", "--jsno"]).exits(2).err.contains("--json"));
    assert!(place.run::<&str>([]).exits(2).err.contains("Usage"));
}

#[test]
fn every_shell_gets_a_script() {
    let place = Place::empty();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        assert!(place.run(["completions", shell]).exits(0).out.contains("lifeboat"), "{shell}");
    }
}

#[test]
fn every_verb_has_a_manual_page() {
    let place = Place::empty();
    place.run(["man", "target"]).exits(0);
    for (verb, options) in VERBS {
        let page = std::fs::read_to_string(place.path(&format!("target/lifeboat-{verb}.1"))).unwrap();
        let page = page.replace("\\-", "-");
        for option in options.iter().filter(|option| option.starts_with("--")) {
            assert!(page.contains(option), "{verb} lacks {option}");
        }
    }
    assert!(place.path("target/lifeboat.1").exists());
    let until = std::fs::read_to_string(place.path("target/lifeboat-hold-add.1")).unwrap();
    assert!(until.contains("\\-\\-until"), "{until}");
    for page in std::fs::read_dir(place.path("target")).unwrap() {
        let text = std::fs::read_to_string(page.unwrap().path()).unwrap().replace('\\', "");
        for named in text.lines().filter_map(|line| line.strip_suffix("(1)")) {
            assert!(place.path(&format!("target/{named}.1")).exists(), "no page {named}");
        }
    }
    assert_eq!(place.run(["man", "no/such/dir"]).code, 1);
}
