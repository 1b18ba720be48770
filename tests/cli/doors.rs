//! A repository behind `ssh://`, with a stand-in for `ssh` that runs on this machine what it is asked to run on another.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use rustix::process::{Pid, Signal, kill_process};

use crate::support::{Place, Run, noise};

const PROGRAM: &str = env!("CARGO_BIN_EXE_lifeboat");

/// A script that stands in for `ssh`. `$*` is what the other machine is asked to run; what it runs is said by `body`.
fn ssh(place: &Place, name: &str, body: &str) -> String {
    let path = place.path(name);
    let pids = place.path("pids");
    let script = format!(
        "#!/bin/sh\nwhile [ \"$1\" != -- ]; do shift; done\nshift 2\necho $$ >>{}\n{body}\n",
        pids.display()
    );
    fs::write(&path, script).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
    path.to_str().unwrap().to_owned()
}

/// As a plain key of `ssh` does it: a shell runs what is asked for.
fn plain(place: &Place) -> String {
    ssh(place, "plain", "exec sh -c \"exec $*\"")
}

/// As a key with a forced command does it.
fn forced(place: &Place, more: &str) -> String {
    let root = place.path("server").display().to_string();
    let name = format!("forced{}", more.replace(' ', ""));
    ssh(
        place,
        &name,
        &format!("SSH_ORIGINAL_COMMAND=\"$*\" exec {PROGRAM} serve --stdio --root {root} {more}"),
    )
}

fn over(place: &Place, command: &str, args: &[&str]) -> Run {
    let url = format!("ssh://ann@server.example{}", place.path("server").display());
    at(place, &url, command, args)
}

fn at(place: &Place, url: &str, command: &str, args: &[&str]) -> Run {
    let mut run = place.command();
    run.env("LIFEBOAT_REPO", url).env("LIFEBOAT_SSH_COMMAND", command);
    run.args(["-o", &format!("ssh.program={PROGRAM}")]).args(args);
    Run::of(run.output().unwrap())
}

fn made(place: &Place) -> String {
    place.write("src/a", b"first\n");
    place.write("src/d/b", &noise(3 << 20, 5));
    let plain = plain(place);
    over(place, &plain, &["init", "-q", "--new-key-file", "key"]).exits(0);
    plain
}

/// Saves `src`, and does with it what there is to do, in a repository that was made.
pub(crate) fn every_verb_works(place: &Place, run: &dyn Fn(&[&str]) -> Run) {
    run(&["backup", "src"]);
    place.write("src/c", b"third\n");
    run(&["backup", "src"]);
    run(&["verify", "--data"]);
    let checks = run(&["doctor", "--json"]).objects();
    let state = |name: &str| checks.iter().find(|check| check["name"] == name).unwrap()["state"].clone();
    assert!(state("store") == "ok" && !state("space").is_null(), "{checks:?}");
    let source = place.path("src");
    run(&["restore", &format!("latest:{}", source.display()), "--target", "target"]);
    let differ = std::process::Command::new("diff").arg("-r").args([&source, &place.path("target")]).status();
    assert!(differ.unwrap().success());
    assert_eq!(run(&["cat", &format!("latest:{}", source.join("c").display())]).out, "third\n");
    run(&["hold", "add", "latest"]);
    run(&["tag", "latest", "--add", "x"]);
    run(&["forget", "--keep-last", "1"]);
    run(&["prune", "--grace", "0s", "--undo-window", "0s", "--force", "--yes"]);
    run(&["verify", "--data"]);
    let second = place.path("second");
    let init = place.bare().args(["init", "-q", "--new-key-file", "second.key", "-r"]).arg(&second).output();
    Run::of(init.unwrap()).exits(0);
    run(&["copy", "--to", second.to_str().unwrap(), "--to-key-file", "second.key"]);
}

#[test]
fn every_verb_works_behind_a_door() {
    let place = Place::empty();
    let plain = made(&place);
    let run = |args: &[&str]| over(&place, &plain, args).exits(0);
    every_verb_works(&place, &run);
    // The same directory without a door shows the same repository.
    let near = place.command().env("LIFEBOAT_REPO", place.path("server")).arg("verify").output().unwrap();
    Run::of(near).exits(0);
}

#[test]
fn a_forced_command_is_all_that_counts() {
    let place = Place::empty();
    made(&place);
    let writer = forced(&place, "");
    over(&place, &writer, &["backup", "src"]).exits(0);
    at(&place, "ssh://server.example", &writer, &["snapshots"]).exits(0);
    place.write("src/c", b"third\n");
    over(&place, &writer, &["backup", "src"]).exits(0);
    for args in [
        &["forget", "--keep-last", "1"][..],
        &["prune", "--grace", "0s", "--force", "--yes"],
        &["tag", "latest", "--add", "x"],
    ] {
        over(&place, &writer, args).exits(12);
    }
    let denied = over(&place, &writer, &["hold", "add", "latest"]).exits(12);
    assert!(denied.err.contains("opened with the role writer, which may not store"), "{}", denied.err);
    assert!(denied.err.contains("another --role"), "{}", denied.err);
    at(&place, "ssh://server.example/etc", &writer, &["snapshots"]).exits(12);
    let reader = forced(&place, "--role reader");
    place.write("src/new", b"new\n");
    over(&place, &reader, &["backup", "src"]).exits(12);
    over(&place, &reader, &["verify", "--data"]).exits(0);
    let full = forced(&place, "--quota 3M");
    place.write("src/large", &noise(4 << 20, 9));
    let full = over(&place, &full, &["backup", "src"]).exits(14);
    assert!(full.err.contains("the quota of 3.0 MiB has"), "{}", full.err);
}

#[test]
fn what_goes_wrong_before_the_door_is_said_and_has_its_code() {
    let place = Place::empty();
    made(&place);
    for (body, code, wanted) in [
        ("echo 'ssh: connect to host x port 22: Connection refused' >&2; exit 255", 13, "Connection refused"),
        ("echo 'ann@x: Permission denied (publickey).' >&2; exit 255", 12, "Permission denied (publickey)"),
        ("printf 'Host key verification failed.\\n\\033[2J' >&2; exit 255", 12, "\\u{1b}[2J"),
        ("echo 'sh: 1: lifeboat: not found' >&2; exit 127", 1, "does not find the program lifeboat"),
        ("echo 'Welcome to server'; cat >/dev/null", 1, "printed `Welcome to server`"),
        ("printf 'LIFEBOAT\\t\\0\\t\\0'; cat >/dev/null", 1, "this one speaks 1 to 1, the other one 9 to 9"),
        ("exec sh -c \"$* --no-such-option\"", 1, "--no-such-option"),
        ("exit 0", 1, "the program on the other machine ended"),
    ] {
        let run = over(&place, &ssh(&place, "broken", body), &["--retry-for", "0", "snapshots"]).exits(code);
        assert!(run.err.contains(wanted), "{body}: {}", run.err);
    }
    let run = over(&place, "/nonexistent/ssh", &["--retry-for", "0", "snapshots"]).exits(1);
    assert!(run.err.contains("cannot run `/nonexistent/ssh`"), "{}", run.err);
    let run = over(&place, " ", &["snapshots"]).exits(2);
    assert!(run.err.contains("ssh.command"), "{}", run.err);
    let missing = place.path("nowhere");
    let run = at(&place, &format!("ssh://x{}", missing.display()), &plain(&place), &["snapshots"]).exits(10);
    assert!(run.err.contains("lifeboat init") && !missing.exists(), "{}", run.err);
    // A person at a terminal is not left waiting; a program that is none gets the reason.
    let garbage = place.bare().args(["serve", "--stdio", "--root", "/tmp"]).output().unwrap();
    assert_eq!(garbage.status.code(), Some(0), "a client that says nothing and goes");
}

fn pids(place: &Place) -> Vec<i32> {
    let text = fs::read_to_string(place.path("pids")).unwrap_or_default();
    text.lines().map(|line| line.parse().unwrap()).collect()
}

fn lives(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

#[test]
fn a_connection_that_breaks_is_made_again_and_none_outlives_the_run() {
    let place = Place::empty();
    let plain = made(&place);
    for part in 0..4 {
        place.write(&format!("src/{part}"), &noise(20 << 20, part + 1));
    }
    let url = format!("ssh://server{}", place.path("server").display());
    let option = format!("ssh.program={PROGRAM}");
    let command = format!("ssh.command={plain}");
    let args = |limit| {
        ["-r", &url, "-o", &option, "-o", &command, "backup", "src", "--limit-upload", limit]
            .map(str::to_owned)
    };
    let packs = |more| {
        let before = place.files("server/packs").len();
        while place.files("server/packs").len() < before + more {
            std::thread::yield_now();
        }
    };
    fs::remove_file(place.path("pids")).unwrap();
    let child = place.start(args("4M"));
    packs(1);
    kill_process(Pid::from_raw(*pids(&place).last().unwrap()).unwrap(), Signal::KILL).unwrap();
    packs(1);
    assert!(pids(&place).len() >= 2);
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    kill_process(pid, Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(pids(&place).into_iter().all(|pid| !lives(pid)));
    let child = place.start(args("1G"));
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(pids(&place).into_iter().all(|pid| !lives(pid)));
    over(&place, &plain, &["verify", "--data"]).exits(0);
}
