//! `backup --stream`: the output of several commands in one snapshot, or nothing at all.

use std::fs;
use std::process::Command;

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use crate::support::{Place, Run, damage_index, is_gone, noise, pid, until};

/// Demands that nothing was saved.
#[track_caller]
fn saved_nothing(place: &Place) {
    assert!(place.run(["snapshots", "--all", "--json"]).exits(0).out.is_empty());
}

fn cat(place: &Place, path: &str) -> String {
    place.run(["cat", &format!("latest:{path}")]).exits(0).out
}

#[test]
fn several_commands_and_paths_become_one_snapshot() {
    let place = Place::with_repository();
    let large = noise(30 << 20, 3);
    place.write("large", &large);
    let args = [
        "backup",
        "--json",
        "src",
        "--stream",
        "db/large=cat large",
        "--stream",
        "/db/sub/b.sql=printf 'a=b;' | tr a-z A-Z",
        "--stream",
        "empty=true",
        "--exclude",
        "*.sql",
    ];
    let run = place.run(args).exits(0);
    assert!(run.err.contains("empty wrote nothing"), "{run:?}");
    let first = run.last();
    assert_eq!((&first["files"], &first["new_files"]), (&5.into(), &5.into()), "{first}");
    assert_eq!(first["streams"][1], serde_json::json!({"path": "/db/sub/b.sql", "bytes": 4}));
    assert_eq!(cat(&place, "/db/sub/b.sql"), "A=B;");
    assert_eq!(cat(&place, "/empty"), "");
    assert_eq!(cat(&place, &place.path("src/a").display().to_string()), "first\n");
    let listed = place.run(["snapshots", "--json"]).exits(0).last();
    let streams = "stream:db/large stream:db/sub/b.sql stream:empty";
    let expected = format!("{streams} {}", place.path("src").display());
    assert_eq!(listed["job"], expected.as_str(), "the commands are not in it");
    place.run(["restore", "latest:/db", "--target", "back", "--verify"]).exits(0);
    assert!(fs::read(place.path("back/large")).unwrap() == large);

    // A second run of the job finds again what it has, and tells what changed.
    let mut changed = large;
    changed[20 << 20] ^= 1;
    place.write("large", &changed);
    let again = place.run(args).exits(0).last();
    assert_eq!((&again["changed_files"], &again["unchanged_files"]), (&1.into(), &4.into()), "{again}");
    assert!(again["new_bytes"].as_u64().unwrap() < 4 << 20, "{again}");
    place.run(["verify", "--data"]).exits(0);
}

#[test]
fn more_streams_than_are_read_at_once_come_in_order_and_whole() {
    let place = Place::with_repository();
    let mut args = vec!["backup".to_owned(), "--json".to_owned()];
    for n in 0..20 {
        args.push("--stream".to_owned());
        args.push(format!("many/{n:02}=seq {n} 40000"));
    }
    // `yes` is ended by its pipe, which is a failure of the pipe.
    args.push("--stream=hundred=yes | head -c 100000000".to_owned());
    let refused = place.run(&args).exits(1);
    assert!(refused.err.contains("141") || refused.err.contains("signal"), "{refused:?}");
    args.pop();
    args.push("--stream=hundred=head -c 100000000 /dev/zero | tr '\\0' x".to_owned());
    let done = place.run(&args).exits(0).last();
    assert_eq!(done["files"], 21, "{done}");
    assert!(done["bytes"].as_u64().unwrap() > 100_000_000);
    let text = cat(&place, "/many/07");
    assert!(text.starts_with("7\n8\n") && text.ends_with("39999\n40000\n"));
    assert_eq!(cat(&place, "/hundred").len(), 100_000_000);
    place.run(["verify", "--data"]).exits(0);
}

#[test]
fn one_command_that_fails_fails_everything() {
    for (bad, said) in [
        ("exit 3", "exit code 3"),
        ("echo half; echo 'server closed the connection' >&2; exit 1", "server closed the connection"),
        ("head -c 9000000 /dev/urandom; exit 1", "exit code 1"),
        ("echo half; kill -9 $$", "signal 9"),
        ("false | cat", "exit code 1"),
        ("echo x | false | cat", "exit code 1"),
        ("no-such-program-at-all", "exit code 127"),
        ("echo half; exec >&-; sleep 0.2; exit 5", "exit code 5"),
        ("yes & exit 6", "exit code 6"),
    ] {
        let place = Place::with_repository();
        let bad = format!("--stream=bad/x={bad}");
        let run = place.run(["backup", "src", "--stream=good=echo fine", &bad]).exits(1);
        assert!(run.err.contains("error: the command for bad/x failed, so nothing was saved"), "{run:?}");
        assert!(run.err.contains(said), "{run:?}");
        saved_nothing(&place);
        // What was read of the others is not lost: it is just a run that did not come to its end.
        place.run(["backup", "src", "--stream=good=echo fine"]).exits(0);
        place.run(["verify", "--data"]).exits(0);
    }
}

#[test]
fn output_that_ends_early_counts_if_its_command_does_well() {
    let place = Place::with_repository();
    place.run(["backup", "--stream=a=echo data; exec >&-; sleep 0.3"]).exits(0);
    assert_eq!(cat(&place, "/a"), "data\n");
    // As does what a part of it that goes on writes.
    place.run(["backup", "--stream=a=(sleep 0.3; echo late) & echo early"]).exits(0);
    assert_eq!(cat(&place, "/a"), "early\nlate\n");
}

#[test]
fn what_holds_the_output_open_without_writing_is_not_waited_for_for_ever() {
    let place = Place::with_repository();
    let run = place.run(["backup", "--stream=a=sleep 1000 & echo $! >left; echo data"]).exits(1);
    assert!(run.err.contains("holds its output open") && run.err.contains("next step"), "{run:?}");
    saved_nothing(&place);
    let left = pid(&place.path("left")).unwrap();
    until("the end of what was left behind", || is_gone(left));
}

#[test]
fn what_a_command_says_is_shown_with_its_name_and_cannot_move_the_cursor() {
    let place = Place::with_repository();
    let noisy = "--stream=db/a=printf 'one\\n\\033[2Jtwo\\r\\n' >&2; echo data";
    let run = place.run(["backup", noisy]).exits(0);
    assert_eq!(run.err, "db/a: one\ndb/a: \\x1b[2Jtwo\n");
    let run = place.run(["backup", "--json", noisy]).exits(0);
    let said: Vec<serde_json::Value> = run.err.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let said: Vec<_> = said.iter().filter(|event| event["type"] == "said").collect();
    assert_eq!((said.len(), &said[1]["name"]), (2, &"db/a".into()), "{said:?}");
    assert_eq!(said[1]["line"], "\u{1b}[2Jtwo");
    let run = place.run(["backup", "-q", noisy]).exits(0);
    assert_eq!(run.err, "", "quiet is quiet");
    let run = place.run(["backup", "-q", "--stream=db/a=echo why >&2; exit 1"]).exits(1);
    assert!(run.err.contains("exit code 1: why"), "{run:?}");
}

#[test]
fn no_command_sees_how_the_repository_opens() {
    let place = Place::with_repository();
    let key = fs::read(place.path("key")).unwrap();
    for args in [&["--stream=variables=env"][..], &["--as", "/variables", "--command", "env"]] {
        let mut command = place.command();
        command.env("LIFEBOAT_TOKEN", "secret").env("PGPASSWORD", "needed").arg("backup").args(args);
        Run::of(command.output().unwrap()).exits(0);
        let seen = cat(&place, "/variables");
        for (variable, there) in [
            ("LIFEBOAT_KEY_FILE", false),
            ("LIFEBOAT_TOKEN", false),
            ("LIFEBOAT_REPO", true),
            ("PGPASSWORD", true),
        ] {
            assert_eq!(seen.contains(variable), there, "{variable} in {seen}");
        }
    }
    assert!(fs::read(place.path("key")).unwrap() == key);
}

#[test]
fn a_signal_ends_all_commands_and_what_they_started() {
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let place = Place::with_repository();
        let child = place.start([
            "backup",
            "src",
            "--stream=endless=echo $$ >one; cat /dev/zero",
            "--stream=silent=echo $$ >two; sleep 1000 | (sleep 1000; echo $! >never)",
            // It does not listen, and is killed.
            "--stream=deaf=trap '' TERM INT; echo $$ >three; while :; do sleep 0.1; done",
        ]);
        until("the commands", || ["one", "two", "three"].iter().all(|name| pid(&place.path(name)).is_some()));
        let pids = ["one", "two", "three"].map(|name| pid(&place.path(name)).unwrap());
        kill_process(Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap(), signal).unwrap();
        let output = child.wait_with_output().unwrap();
        let err = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{err}");
        for pid in pids {
            assert!(test_kill_process(pid).is_err(), "the command is gone");
            until("the end of its group", || rustix::process::test_kill_process_group(pid).is_err());
        }
        saved_nothing(&place);
        place.run(["verify"]).exits(0);
    }
}

#[test]
fn a_command_that_wants_to_ask_at_the_terminal_is_told_that_it_cannot() {
    let place = Place::with_repository();
    let mut command = Command::new("script");
    let program = env!("CARGO_BIN_EXE_lifeboat");
    command.args(["-qec", &format!("{program} backup --stream 'a=read answer </dev/tty'"), "/dev/null"]);
    command.current_dir(place.path("")).env_clear().env("PATH", std::env::var_os("PATH").unwrap());
    command.env("HOME", place.path("home")).env("XDG_STATE_HOME", place.path("state"));
    command.env("LIFEBOAT_REPO", place.path("repo")).env("LIFEBOAT_KEY_FILE", place.path("key"));
    let run = Run::of(command.output().unwrap()).exits(1);
    assert!(run.out.contains("wants to ask at the terminal"), "{run:?}");
    saved_nothing(&place);
}

#[test]
fn a_stream_without_a_place_of_its_own_is_a_mistake() {
    let place = Place::with_repository();
    let below = format!("--stream={}/x=echo x >ran", place.path("src").display());
    let above =
        format!("--stream={}=echo x >ran", place.path("").display().to_string().trim_end_matches('/'));
    for args in [
        &["--stream=a=echo x >ran", "--stream=a=echo y"][..],
        &["--stream=a=echo x >ran", "--stream=/a=echo y"],
        &["--stream=a=echo x >ran", "--stream=a/b=echo y"],
        &["src", &below],
        &["src", &above],
        &["--stream=../a=echo x >ran"],
        &["--stream=a/=echo x >ran"],
        &["--stream=a"],
        &["--stream==echo x >ran"],
        &["--stream=a= "],
        &["-", "--stream=a=echo x >ran"],
        &["--as", "/x", "--stream=a=echo x >ran"],
    ] {
        let run = place.run(["backup"].iter().chain(args)).exits(2);
        assert!(run.err.contains("error: "), "{run:?}");
    }
    assert!(!place.path("ran").exists(), "nothing was started");
    saved_nothing(&place);
}

#[test]
fn a_dry_run_names_the_streams_and_stores_nothing() {
    let place = Place::with_repository();
    let run = place.run(["backup", "-n", "--stream=db/a=echo data", "--stream=db/b=true"]).exits(0);
    assert!(run.out.ends_with("stream /db/a 5 B\nstream /db/b 0 B\n"), "{run:?}");
    saved_nothing(&place);
    place.run(["backup", "-n", "--stream=db/a=exit 1"]).exits(1);
}

#[test]
fn standard_input_is_never_begun_in_the_middle() {
    let place = Place::with_repository();
    let bytes = noise(20 << 20, 7);
    place.write("bytes", &bytes);
    // So that there is something to look up in.
    (0..12_000).for_each(|n| place.write(&format!("many/{n}"), format!("file {n}").as_bytes()));
    let save = || {
        let mut command = place.command();
        command.args(["backup", "-"]).stdin(fs::File::open(place.path("bytes")).unwrap());
        Run::of(command.output().unwrap())
    };
    let size = || place.run(["ls", "latest:/", "--json"]).exits(0).last()["size"].as_u64().unwrap();
    let count = || place.run(["snapshots", "--json"]).exits(0).out.lines().count();
    place.run(["backup", "many"]).exits(0);
    for _ in 0..2 {
        save().exits(0);
    }
    damage_index(&place);
    // What was read before the damage was met does not come again.
    let run = save().exits(1);
    assert!(run.err.contains("index cache is damaged"), "{run:?}");
    assert_eq!(count(), 3, "and no fourth one");
    save().exits(0);
    assert_eq!(size(), 20 << 20, "the damage is gone");

    // A command runs once more, and is whole.
    damage_index(&place);
    place.run(["backup", "--stream=bytes=echo x >>runs; cat bytes"]).exits(0);
    assert_eq!(fs::read(place.path("runs")).unwrap(), b"x\nx\n");
    assert_eq!(size(), 20 << 20);
    place.run(["verify", "--data"]).exits(0);
}

/// A tool that says that it ran.
fn tool(place: &Place, name: &str) {
    place.write(&format!("tools/{name}"), b"#!/bin/sh\necho ran >ran\nexit 9\n");
    let path = place.path(&format!("tools/{name}"));
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
}

fn dump(place: &Place, args: &[&str], variables: &[(&str, &str)]) -> Run {
    let path = format!("{}:{}", place.path("tools").display(), std::env::var("PATH").unwrap());
    let mut command = place.command();
    command.env("PATH", path).envs(variables.iter().copied()).args(["backup", "--dump"]).args(args);
    Run::of(command.output().unwrap())
}

#[test]
fn a_dump_of_a_server_elsewhere_needs_a_name_for_its_job() {
    let place = Place::with_repository();
    ["psql", "mariadb", "redis-cli"].iter().for_each(|name| tool(&place, name));
    for (args, variables, by) in [
        (&["redis", "--dump-option=-h", "--dump-option=cache1"][..], &[][..], "--dump-option"),
        (&["postgres"], &[("PGHOST", "db1")], "PGHOST"),
        (&["postgres", "-n"], &[("PGSERVICE", "db1")], "PGSERVICE"),
        (&["mariadb"], &[("MYSQL_TCP_PORT", "3307")], "MYSQL_TCP_PORT"),
    ] {
        let run = dump(&place, args, variables).exits(2);
        assert!(run.err.contains(&format!("error: {by} says")) && run.err.contains("--job db1"), "{run:?}");
        assert!(!place.path("ran").exists(), "nobody was asked");
        dump(&place, &[args, &["--job=db1"]].concat(), variables).exits(1);
        fs::remove_file(place.path("ran")).unwrap();
    }
    for server in ["postgres", "mariadb", "redis"] {
        let others = [("PGHOST", ""), ("PGDATABASE", "x"), ("REDISCLI_AUTH", "x"), ("MYSQL_PWD", "x")];
        dump(&place, &[server], &others).exits(1);
    }
}

#[test]
fn what_stands_where_a_dump_will_is_found_before_anybody_is_asked() {
    let place = Place::with_repository();
    ["psql", "mariadb", "redis-cli"].iter().for_each(|name| tool(&place, name));
    for args in [
        &["postgres", "--stream=postgres=echo x"][..],
        &["postgres", "--stream=postgres/globals.sql=echo x"],
        &["postgres", "--stream=postgres/databases=echo x"],
        &["mariadb", "--stream=mariadb/users.sql/x=echo x"],
        &["redis", "--stream=redis/dump.rdb=echo x"],
    ] {
        let run = dump(&place, args, &[]).exits(2);
        assert!(run.err.contains("cannot be stored in the same place"), "{run:?}");
    }
    assert!(!place.path("ran").exists(), "nobody was asked");
    dump(&place, &["redis", "--stream=redis/other=echo x"], &[]).exits(1);
    assert!(place.path("ran").exists());
}

#[test]
fn paths_are_saved_as_the_commands_left_them() {
    let place = Place::with_repository();
    let file = place.path("src/a").display().to_string();
    let args = ["backup", &file, "--stream=x=cat next >src/a; mv moved src/moved 2>/dev/null; echo x"];
    for content in ["one\n", "two\n", "six\n"] {
        place.write("next", content.as_bytes());
        place.run(args).exits(0);
        assert_eq!(cat(&place, &file), content);
    }
    // One that takes another's place, and one that was not there.
    let moved = place.path("src/moved").display().to_string();
    place.write("moved", b"there");
    let renames = "--stream=x=echo new >src/n && mv src/n src/a; mv moved src/moved; echo x";
    let done = place.run(["backup", "--json", &file, &moved, renames]).exits(0).last();
    assert_eq!((&done["failed"], &done["missing"]), (&0.into(), &serde_json::json!([])), "{done}");
    assert_eq!((cat(&place, &file), cat(&place, &moved)), ("new\n".to_owned(), "there".to_owned()));
}

#[test]
fn a_second_signal_ends_the_commands_too() {
    for signals in [&[Signal::INT, Signal::INT][..], &[Signal::QUIT]] {
        let place = Place::with_repository();
        let deaf = "--stream=a=trap '' TERM INT QUIT; echo $$ >one; while :; do sleep 0.1; done";
        let child = place.start(["backup", deaf, "--stream=b=echo $$ >two; sleep 1000 | cat"]);
        until("the commands", || ["one", "two"].iter().all(|name| pid(&place.path(name)).is_some()));
        let pids = ["one", "two"].map(|name| pid(&place.path(name)).unwrap());
        let own = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
        for signal in signals {
            kill_process(own, *signal).unwrap();
            // Two that wait together are one.
            assert!(Command::new("sleep").arg("0.3").status().unwrap().success());
        }
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(128 + signals[0].as_raw()), "{output:?}");
        for pid in pids {
            until("the end of the command", || is_gone(pid));
        }
        saved_nothing(&place);
    }
}
