//! A repository behind `sftp://`, with a stand-in for `ssh` that runs the server of OpenSSH on this machine.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::doors::every_verb_works;
use crate::support::{Place, Run, noise};

/// Where systems keep it.
const SERVERS: [&str; 4] = [
    "/usr/lib/openssh/sftp-server",
    "/usr/libexec/openssh/sftp-server",
    "/usr/lib/ssh/sftp-server",
    "/usr/libexec/sftp-server",
];

/// A script that stands in for `ssh`; `options` are those of the server.
fn ssh(place: &Place, name: &str, options: &str) -> String {
    let server = SERVERS.into_iter().find(|path| Path::new(path).exists());
    let server = server.expect("sftp-server is missing: run tests/setup");
    let path = place.path(name);
    // What it is asked for must be the subsystem, and nothing for a shell.
    let script = format!(
        "#!/bin/sh\nwhile [ \"$1\" != -s ]; do shift; done\n[ \"$2 $4\" = '-- sftp' ] || exit 1\n\
         exec {server} -d {} {options}\n",
        place.path("").display()
    );
    fs::write(&path, script).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
    path.to_str().unwrap().to_owned()
}

fn at(place: &Place, url: &str, command: &str, args: &[&str]) -> Run {
    let mut run = place.command();
    run.env("LIFEBOAT_REPO", url).env("LIFEBOAT_SSH_COMMAND", command).args(args);
    Run::of(run.output().unwrap())
}

#[test]
fn every_verb_works_over_sftp() {
    let place = Place::empty();
    place.write("src/a", b"first\n");
    place.write("src/d/b", &noise(3 << 20, 5));
    let command = ssh(&place, "ssh", "");
    let url = format!("sftp://ann@server.example{}", place.path("server/of mine").display());
    let run = |args: &[&str]| at(&place, &url, &command, args).exits(0);
    at(&place, &url, &command, &["snapshots"]).exits(10);
    run(&["init", "-q", "--new-key-file", "key"]);
    every_verb_works(&place, &run);
    // The same directory shows the same repository, and nothing half-written.
    let near = place.path("server/of mine");
    let here = place.command().env("LIFEBOAT_REPO", &near).args(["verify", "--data"]).output().unwrap();
    Run::of(here).exits(0);
    assert_eq!(fs::read_dir(near.join("tmp")).unwrap().count(), 0);
    for (path, mode) in [(near.join("packs"), 0o700), (place.files("server/of mine/packs").remove(0), 0o400)]
    {
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, mode, "{}", path.display());
    }
    // Where the server begins.
    at(&place, "sftp://server/~/server/of mine", &command, &["snapshots"]).exits(0);
}

#[test]
fn what_a_server_does_not_do_is_said() {
    let place = Place::empty();
    place.write("src/a", b"first\n");
    let command = ssh(&place, "ssh", "");
    let url = format!("sftp://server{}", place.path("server").display());
    at(&place, &url, &command, &["init", "-q", "--new-key-file", "key"]).exits(0);
    at(&place, &url, &ssh(&place, "read-only", "-R"), &["snapshots"]).exits(0);
    let denying = ssh(&place, "denying", "-P write");
    let run = at(&place, &url, &denying, &["backup", "src"]).exits(12);
    assert!(run.err.contains("Permission denied"), "{}", run.err);
    // One that cannot sync.
    let careless = ssh(&place, "careless", "-P fsync");
    let run = at(&place, &url, &careless, &["backup", "src"]).exits(1);
    assert!(run.err.contains("unsafe_no_fsync=true"), "{}", run.err);
    at(&place, &url, &careless, &["backup", "-o", "unsafe_no_fsync=true", "src"]).exits(0);
    // One that gives no second name to a file.
    let linkless = ssh(&place, "linkless", "-P hardlink");
    place.write("src/b", b"second\n");
    at(&place, &url, &linkless, &["backup", "src"]).exits(0);
    at(&place, &url, &command, &["verify", "--data"]).exits(0);
    let run = at(&place, &url, "echo Welcome", &["snapshots"]).exits(1);
    assert!(run.err.contains("its login must print nothing"), "{}", run.err);
    at(&place, &url, &command, &["snapshots", "-o", "ssh.program=x"]).exits(2);
}

#[test]
fn a_full_disk_is_told_from_other_failures() {
    let place = Place::empty();
    place.write("src/a", &noise(8 << 20, 9));
    let disk = place.path("disk");
    fs::create_dir(&disk).unwrap();
    let mount =
        std::process::Command::new("mount").args(["-t", "tmpfs", "-o", "size=4m", "t"]).arg(&disk).status();
    if !mount.is_ok_and(|status| status.success()) {
        // Only the system's administrator mounts.
        return;
    }
    let command = ssh(&place, "ssh", "");
    let url = format!("sftp://server{}", disk.join("repo").display());
    let made = at(&place, &url, &command, &["init", "-q", "--new-key-file", "key"]);
    let stored = at(&place, &url, &command, &["backup", "src"]);
    let unmounted = std::process::Command::new("umount").arg(&disk).status().unwrap();
    assert!(unmounted.success());
    made.exits(0);
    stored.exits(14);
}
