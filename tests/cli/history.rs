//! `diff`, `find`, `why`: what changed, when, and what would.

use crate::support::Place;

/// The path of a file in `src`, as it is stored.
fn stored(place: &Place, name: &str) -> String {
    place.path("src").join(name).to_str().unwrap().to_owned()
}

#[test]
fn differences_have_the_letters_that_people_know() {
    let place = Place::with_repository();
    place.write("src/gone", b"x");
    place.write("src/kind", b"file");
    place.write("src/mode", b"x");
    let first = place.backup();
    place.write("src/a", b"first, and more\n");
    place.write("src/new/file", b"1234");
    std::fs::remove_file(place.path("src/gone")).unwrap();
    std::fs::remove_file(place.path("src/kind")).unwrap();
    std::fs::create_dir(place.path("src/kind")).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(place.path("src/mode"), mode).unwrap();
    let second = place.backup();

    let run = place.run(["diff", "latest~1", "latest"]).exits(0);
    for line in [
        format!("M    {}  6 B -> 16 B\n", stored(&place, "a")),
        format!("-    {}  1 B\n", stored(&place, "gone")),
        format!("T    {}/  (file -> directory)  4 B\n", stored(&place, "kind")),
        format!("+    {}/\n", stored(&place, "new")),
        format!("+    {}  4 B\n", stored(&place, "new/file")),
    ] {
        assert!(run.out.contains(&line), "{line} in {run:?}");
    }
    assert!(!run.out.contains("src/d") && !run.out.contains("src/mode"), "{run:?}");
    assert!(run.out.contains("1 added,      1 removed,      1 changed"), "{run:?}");
    assert!(run.out.contains("14 B added, 5 B removed") && run.out.contains("--metadata"), "{run:?}");
    assert!(run.err.contains(&first[..8]) && run.err.contains(&second[..8]), "{run:?}");
    let all = place.run(["diff", &first, &second, "--metadata"]).exits(0);
    assert!(all.out.contains(&format!("U    {}  [mode]\n", stored(&place, "mode"))), "{all:?}");

    let part = format!("latest~1:{}", stored(&place, "new"));
    assert!(place.run(["diff", &part, "latest"]).exits(1).err.contains("src/new"));
    let part = format!("{first}:{}", stored(&place, "d"));
    let same = place.run(["diff", &part, "latest"]).exits(0);
    assert!(same.out.is_empty() && same.err.contains("nothing differs"), "{same:?}");
    place.run(["diff", "latest~7", "latest"]).exits(1);
}

#[test]
fn a_file_has_a_line_for_each_version_and_not_for_each_snapshot() {
    let place = Place::with_repository();
    let save = || place.run(["backup", "-q", "src", "--job", "j", "--host", "h"]).exits(0);
    for _ in 0..3 {
        save();
    }
    place.write("src/d/b", b"second, changed\n");
    save();
    std::fs::remove_file(place.path("src/d/b")).unwrap();
    save();
    let run = place.run(["find", "b", "--type", "f"]).exits(0);
    let lines: Vec<Vec<&str>> = run.out.lines().map(|line| line.split_whitespace().collect()).collect();
    let columns = |line: &Vec<&str>| line[4..6].iter().map(|cell| (*cell).to_owned()).collect::<Vec<_>>();
    assert_eq!(lines.len(), 3, "{run:?}");
    assert_eq!(
        (columns(&lines[1]), columns(&lines[2])),
        (vec!["3".into(), "changed".into()], vec!["1".into(), "vanished".into()])
    );
    assert!(run.out.ends_with(&format!("{}\n", stored(&place, "d/b"))), "{run:?}");

    let json = place.run(["find", "/**/d/*", "--json"]).exits(0).objects();
    assert_eq!(json.len(), 3);
    assert_eq!((&json[0]["count"], &json[0]["then"]), (&3.into(), &"changed".into()));
    assert_eq!((&json[1]["size"], &json[1]["host"], &json[1]["job"]), (&16.into(), &"h".into(), &"j".into()));
    assert_eq!((&json[2]["type"], &json[2]["snapshots"]), (&"summary".into(), &5.into()));
    for (args, versions) in [
        (&["find", "B"][..], 0),
        (&["find", "B", "-i"], 2),
        (&["find", "b", "--snapshot", "latest"], 0),
        (&["find", "b", "-s", "latest~1", "-s", "latest~2"], 2),
        (&["find", "b", "--larger", "10"], 1),
        (&["find", "b", "--older", "2001-01-01"], 0),
        (&["find", "b", "--newer", "1d"], 2),
        (&["find", "b", "--job", "other"], 0),
        (&["find", "src/d/", "--long"], 1),
    ] {
        let found = place.run(args.iter().chain(&["--json"])).exits(0).last();
        assert_eq!(found["versions"], versions, "{args:?}");
    }
    let none = place.run(["find", "no-such-name"]).exits(0);
    assert!(none.out.is_empty() && none.err.contains("nothing matches in 5 snapshots"), "{none:?}");
    let quiet = place.run(["find", "no-such-name", "-q"]).exits(0);
    assert!(quiet.out.is_empty() && quiet.err.is_empty(), "{quiet:?}");
    place.run(["find", "[z-a]"]).exits(2);
    place.run(["find", "x", "--snapshot", "deadbeef"]).exits(1);
    let long = place.run(["find", "a", "-l"]).exits(0).out;
    assert!(long.contains("MODIFIED") && long.contains("-rw"), "{long}");
}

#[test]
fn the_rule_that_leaves_a_path_out_is_named() {
    let place = Place::with_repository();
    place.write("rules", b"# comment\n*.log\n");
    place.write("src/x.log", b"x");
    place.write("src/.ignore", b"secret\n");
    place.write("src/secret/deep", b"x");
    place.run(["backup", "src", "--exclude-file", "rules", "--ignore-file", ".ignore"]).exits(0);
    let why = |args: &[&str]| place.run(["why"].iter().chain(args)).exits(0).out;
    let text = why(&["src/x.log", "--exclude-file", "rules"]);
    assert!(text.contains("left out") && text.contains("\"*.log\" in line 2 of rules"), "{text}");
    assert!(text.contains("in no snapshot"), "{text}");
    let text = why(&["src/secret/deep", "--ignore-file", ".ignore"]);
    assert!(text.contains("src/secret is: \"secret\" in line 1 of the ignore file"), "{text}");
    assert!(why(&["src/a", "-e", "a"]).contains("the option \"a\" excludes it"));
    let text = why(&["src/a"]);
    assert!(text.contains("would be saved") && text.contains("last saved in the newest snapshot"), "{text}");
    assert!(text.contains("has not changed since"), "{text}");
    place.write("src/a", b"other content\n");
    assert!(why(&["src/a"]).contains("content has changed since"));
    assert!(why(&["/etc/hostname"]).contains("not in any source"));
    assert!(why(&["src/nothing"]).contains("does not exist"));
    assert!(why(&["src/a", "--source", "src/d"]).contains("not in any source"));
    assert!(why(&["src/a", "--host", "another"]).contains("no source is known"));
    place.run(["why", "src", "-e", "src"]).exits(2);
    place.run(["why", "src/a", "-e", "[z-a]"]).exits(2);

    let json = place.run(["why", "src/x.log", "--exclude-file", "rules", "--json"]).exits(0).last();
    assert_eq!(
        (&json["fate"], &json["reason"], &json["rule"]),
        (&"left_out".into(), &"rule".into(), &"*.log".into())
    );
    assert_eq!((&json["rule_line"], &json["rule_file"]), (&2.into(), &"rules".into()));
    assert!(json["saved"].is_null() && json["at"] == json["path"], "{json}");
    let saved = &place.run(["why", "src/a", "--json"]).exits(0).last()["saved"];
    assert_eq!(
        (&saved["since"], &saved["change"], &saved["newest"]),
        (&"changed".into(), &"content".into(), &true.into())
    );
    std::fs::remove_file(place.path("src/a")).unwrap();
    place.write("other/file", b"x");
    place.run(["backup", "other"]).exits(0);
    let text = why(&["src/a"]);
    assert!(text.contains("last saved in snapshot ") && !text.contains("newer snapshots"), "{text}");
    let command = text.split("to have it back: lifeboat ").nth(1).unwrap().trim();
    let command = command.replace("DIR", "back");
    place.run(command.split(' ')).exits(0);
    assert!(place.path("back/a").exists());
    assert!(why(&["src/x.log", "--host", "h", "--job", "j"]).contains("in no snapshot of h with that job\n"));
}

#[test]
fn names_cannot_act_on_a_terminal_here_either() {
    let place = Place::with_repository();
    place.backup();
    let name = "src/\u{1b}[2Jx\ny\u{202e}z";
    place.write(name, b"x");
    place.run(["backup", "src", "--job", "a\u{202e}b"]).exits(0);
    let pattern = "x\n*\u{1b}";
    for args in [
        &["diff", "latest~1", "latest"][..],
        &["find", "*z"],
        &["find", "*z", "-l"],
        &["why", name],
        &["why", name, "-e", "*z", "-e", "*\u{202e}*"],
        &["why", name, "--source", pattern],
    ] {
        let run = place.run(args.iter().copied()).exits(0);
        for bad in ["\u{1b}", "\u{202e}", "x\ny", "x\n*"] {
            assert!(!run.out.contains(bad) && !run.err.contains(bad), "{args:?}: {run:?}");
        }
        assert!(args.contains(&pattern) || run.out.contains("\\x1b[2Jx\\ny\\u{202e}z"), "{args:?}: {run:?}");
    }
}

#[test]
fn damage_is_told_and_the_rest_is_shown() {
    let place = Place::with_repository();
    let first = place.backup();
    place.write("src/other", b"x");
    place.backup();
    for pack in place.files("repo/packs") {
        std::fs::remove_file(pack).unwrap();
    }
    let whole = place.run(["--no-cache", "diff", &first, "latest"]).exits(4);
    assert!(whole.out.is_empty() || !whole.out.contains("src"), "{whole:?}");
    assert!(whole.err.contains("error:"), "{whole:?}");
    let found = place.run(["--no-cache", "find", "*", "--json"]).exits(4);
    assert!(found.last()["damaged"].as_u64().unwrap() > 0, "{found:?}");
    let why = place.run(["--no-cache", "why", "src/a"]).exits(4);
    assert!(why.out.contains("would be saved"), "{why:?}");
    assert!(why.out.contains("in no snapshot of") && why.out.contains("that can be read"), "{why:?}");
}
