//! `restore --tar` and `restore --zip`: what the tools that read archives make of them.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::every_kind::{MAKE, SEE, bash, differences};
use crate::support::{Place, Run, damage, noise};

/// What GNU tar is told to restore everything.
const EVERYTHING: [&str; 4] = ["--xattrs", "--xattrs-include=*", "--acls", "-xpf"];

fn unpack(place: &Place, locale: &str, archive: &Path) {
    let mut tar = Command::new("tar");
    tar.args(EVERYTHING).arg(archive).current_dir(place.path("target")).env("LC_ALL", locale);
    let done = Run::of(tar.output().unwrap());
    // It says so of flags of `chattr`, which it does not know, and of times that seem odd to it.
    let usual = |line: &&str| line.contains("SCHILY.fflags") || line.contains("time stamp");
    let strange = done.err.lines().filter(|line| !usual(line)).count();
    assert_eq!((done.code, strange), (0, 0), "{done:?}");
}

/// Like what `tar` cannot hold: no sockets, no flags of `chattr`.
fn without_what_tar_lacks(place: &Place) {
    let source = place.path("src");
    bash(&source, MAKE);
    bash(&source, "rm socket; [ \"$(id -u)\" != 0 ] || { chattr -A nothing; chattr -d zeroes; }");
    // More than a header of tar has room for.
    bash(
        &source,
        r#"
        long=$(printf 'n%.0s' $(seq 120)); byte=$(printf '\xfe'); printf 'x' > "odd names/$long$byte"; ln -s "$long/$long" longlink
        ln "odd names/$long$byte" "deep/second"; printf 'u' > 'ümläut'; printf '%s' "$long" > $'equals=and\nnewline'
        truncate -s 1M hollow; touch -d '2500-01-01 00:00:00.000000001' hollow
        setfattr -n 'user.equals=%sign' -v 0x000a00ff plain
        if [ "$(id -u)" = 0 ]; then
            printf 'id' > ids; chown 4000000000:3000000000 ids
            setfacl -d -m u:4321:rwx dir/empty; setfattr -h -n trusted.link -v 1 link
        fi
        touch -d '2011-11-11 11:11:11.111111111' dir deep dir/empty 'odd names' .
        "#,
    );
}

#[test]
fn gnu_tar_restores_every_kind_of_entry() {
    let place = Place::with_repository();
    without_what_tar_lacks(&place);
    let source = place.path("src");
    place.run(["backup", "-q", "src"]).exits(0);
    let stored = format!("latest:{}", source.display());
    for (locale, to) in [("C", "-"), ("C.UTF-8", "archive.tar")] {
        let archive = place.path("archive.tar");
        let mut command = place.command();
        command.args(["restore", &stored, "--tar", to]);
        if to == "-" {
            command.stdout(File::create(&archive).unwrap());
        }
        let run = Run::of(command.output().unwrap()).exits(0);
        let told = if to == "-" { &run.err } else { &run.out };
        assert!(told.contains("wrote ") && told.contains(" entries"), "{run:?}");
        assert_eq!(fs::metadata(&archive).unwrap().len() % 10_240, 0, "whole records");
        unpack(&place, locale, &archive);
        let target = place.path("target");
        assert_eq!(differences(&source, &target), "", "rsync would change something");
        assert_eq!(bash(&source, SEE), bash(&target, SEE));
        for name in ["sparse", "hollow"] {
            let blocks = |dir: &Path| bash(dir, &format!("stat -c %b {name}")).trim().parse::<u64>().unwrap();
            assert!(blocks(&target) <= blocks(&source) + 8, "the holes of {name} came back");
        }
        bash(&target, "find . -mindepth 1 -delete");
    }
    bash(&source, "find . -mindepth 1 -delete");
}

#[test]
fn sizes_beyond_eight_gigabytes_are_kept() {
    let place = Place::with_repository();
    let make =
        "truncate -s 20G huge; printf 'end' | dd of=huge bs=1 seek=21474836000 conv=notrunc status=none";
    bash(&place.path("src"), make);
    place.run(["backup", "-q", "src"]).exits(0);
    let stored = format!("latest:{}", place.path("src").display());
    place.run(["restore", "-q", &stored, "--tar", "archive.tar"]).exits(0);
    assert!(fs::metadata(place.path("archive.tar")).unwrap().len() < 1 << 20);
    unpack(&place, "C", &place.path("archive.tar"));
    let target = place.path("target");
    assert_eq!(fs::metadata(target.join("huge")).unwrap().len(), 20 << 30);
    assert_eq!(bash(&target, "stat -c %b huge; tail -c 480 huge | head -c 3"), "8\nend");
}

#[test]
fn other_readers_of_tar_see_the_same() {
    let place = Place::with_repository();
    without_what_tar_lacks(&place);
    place.run(["backup", "-q", "src"]).exits(0);
    let stored = format!("latest:{}", place.path("src").display());
    place.run(["restore", "-q", &stored, "--tar", "archive.tar"]).exits(0);
    let python = r#"
import os, stat, sys, tarfile
root, archive = os.fsencode(sys.argv[1]), sys.argv[2]
seen = set()
for member in tarfile.open(archive, "r|"):
    name = os.fsencode(member.name)
    there = os.lstat(os.path.join(root, name))
    seen.add(os.path.normpath(name))
    kind = "islnk isfile isdir issym isfifo ischr isblk".split()
    kind = [k for k in kind if getattr(member, k)()]
    if kind == ["islnk"]:
        assert os.path.samefile(os.path.join(root, os.fsencode(member.linkname)), os.path.join(root, name)), name
        continue
    real = {stat.S_IFREG: "isfile", stat.S_IFDIR: "isdir", stat.S_IFLNK: "issym", stat.S_IFIFO: "isfifo", stat.S_IFCHR: "ischr", stat.S_IFBLK: "isblk"}
    assert kind == [real[stat.S_IFMT(there.st_mode)]], (name, kind)
    if not member.issym():
        assert member.mode == stat.S_IMODE(there.st_mode), name
    assert (member.uid, member.gid) == (there.st_uid, there.st_gid), name
    assert abs(member.mtime - there.st_mtime) < 1e-3, name
    if member.issym():
        assert os.fsencode(member.linkname) == os.readlink(os.path.join(root, name)), name
    if member.ischr() or member.isblk():
        assert (member.devmajor, member.devminor) == (os.major(there.st_rdev), os.minor(there.st_rdev)), name
for base, dirs, files in os.walk(root):
    for name in dirs + files:
        path = os.path.relpath(os.path.join(base, name), root)
        assert path in seen, path
"#;
    let mut reader = Command::new("python3");
    reader
        .args(["-c", python])
        .arg(place.path("src"))
        .arg(place.path("archive.tar"))
        .env("LC_ALL", "C.UTF-8");
    Run::of(reader.output().unwrap()).exits(0);
    // Content, as the reader of the same library gives it.
    let python = r#"
import os, sys, tarfile
root, archive = os.fsencode(sys.argv[1]), sys.argv[2]
with tarfile.open(archive) as tar:
    for member in tar:
        if member.isfile():
            there = open(os.path.join(root, os.fsencode(member.name)), "rb").read()
            assert tar.extractfile(member).read() == there, member.name
"#;
    let mut reader = Command::new("python3");
    reader
        .args(["-c", python])
        .arg(place.path("src"))
        .arg(place.path("archive.tar"))
        .env("LC_ALL", "C.UTF-8");
    Run::of(reader.output().unwrap()).exits(0);
    bash(&place.path("src"), "find . -mindepth 1 -delete");
}

#[test]
fn a_zip_holds_what_a_zip_can() {
    let place = Place::with_repository();
    let source = place.path("src");
    bash(
        &source,
        r#"
        mkdir -p dir/empty; printf 'text %.0s' $(seq 100000) > dir/text; head -c 3000000 /dev/urandom > noise; printf '' > nothing
        head -c 12000000 /dev/zero | tr '\0' 'x' > large; head -c 12000000 /dev/urandom > dir/largenoise
        truncate -s 30M sparse; printf 'middle' | dd of=sparse bs=1 seek=1500000 conv=notrunc status=none
        ln -s dir/text link; ln noise hard; printf 'u' > 'ümläut'; printf 'x' > $'dir/\xff'; chmod 0640 noise; chmod 1700 dir
        mkfifo fifo; setfattr -n user.note -v x nothing; touch -d '2001-02-03 04:05:06' nothing noise dir/text large
        python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind("socket")'
        "#,
    );
    place.run(["backup", "-q", "src"]).exits(0);
    let stored = format!("latest:{}", source.display());
    // The pipe, the socket, the attribute, and the name that is not UTF-8.
    let run = place.run(["restore", "--json", &stored, "--zip", "archive.zip"]).exits(3);
    assert_eq!(run.last()["failed"], 4, "{run:?}");
    for name in ["fifo", "socket", "nothing", "dir/\u{fffd}"] {
        assert!(run.err.lines().any(|line| line.contains(name) && line.contains("entry_failed")), "{run:?}");
    }
    let piped = place.command().args(["restore", "-q", &stored, "--zip", "-"]).output().unwrap();
    assert!(piped.stdout == fs::read(place.path("archive.zip")).unwrap(), "the same each time");
    let target = place.path("target");
    Run::of(
        Command::new("unzip").args(["-qq", "-t", "../archive.zip"]).current_dir(&target).output().unwrap(),
    )
    .exits(0);
    Run::of(
        Command::new("unzip")
            .args(["-K", "-qq", "../archive.zip", "-x", "dir/?"])
            .current_dir(&target)
            .output()
            .unwrap(),
    )
    .exits(0);
    bash(&source, r"rm fifo socket dir/$'\xff'");
    let see = "find . -printf '%p %y %m %s %l ' \\( -type f -printf '%Ts' -o -true \\) -printf '\\n' | sed 's/^\\(. d [0-9]*\\) [0-9]*/\\1/; s/\\( d [0-9]*\\) [0-9]*/\\1/' | LC_ALL=C sort; find . -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum";
    assert_eq!(bash(&source, see), bash(&target, see));
    let python = r#"
import sys, zipfile
with zipfile.ZipFile(sys.argv[1]) as archive:
    assert archive.testzip() is None
    how = {member.filename: member.compress_type for member in archive.infolist()}
    assert how["noise"] == zipfile.ZIP_STORED and how["dir/text"] == zipfile.ZIP_DEFLATED, how
    assert "\u00fcml\u00e4ut" in how, how
    small = archive.getinfo("large").compress_size
    assert small < 200000, small
    assert archive.getinfo("sparse").compress_size < 200000
    assert archive.getinfo("dir/largenoise").compress_size < 12010000
"#;
    let mut reader = Command::new("python3");
    Run::of(reader.args(["-c", python]).arg(place.path("archive.zip")).output().unwrap()).exits(0);
}

#[test]
fn a_zip_of_many_entries_is_read() {
    let place = Place::with_repository();
    bash(&place.path("src"), "mkdir many; cd many; seq 70000 | xargs touch");
    place.run(["backup", "-q", "src"]).exits(0);
    place.run(["restore", "-q", "latest", "--zip", "archive.zip"]).exits(0);
    let python = "import sys, zipfile; names = zipfile.ZipFile(sys.argv[1]).namelist(); assert len(names) > 70000, len(names)";
    let mut reader = Command::new("python3");
    Run::of(reader.args(["-c", python]).arg(place.path("archive.zip")).output().unwrap()).exits(0);
    let list = Command::new("unzip")
        .args(["-Z1", "archive.zip", "*/many/69999"])
        .current_dir(place.path(""))
        .output();
    assert!(Run::of(list.unwrap()).exits(0).out.ends_with("many/69999\n"));
}

#[test]
fn one_file_and_a_whole_snapshot_are_archives_too() {
    let place = Place::with_repository();
    place.backup();
    let source = place.path("src");
    let list = |location: &str| {
        let tar = place.command().args(["restore", location, "-q", "--tar", "-"]).output().unwrap();
        fs::write(place.path("list.tar"), &tar.stdout).unwrap();
        let list = Command::new("tar").arg("-tPf").arg(place.path("list.tar")).output().unwrap();
        Run::of(list).exits(0).out
    };
    assert_eq!(list(&format!("latest:{}/d/b", source.display())), "b\n");
    assert_eq!(list(&format!("latest:{}", source.display())), "./\na\nd/\nd/b\n");
    let whole = list("latest");
    let relative = source.strip_prefix("/").unwrap().display().to_string();
    assert!(
        whole.ends_with(&format!("{relative}/\n{relative}/a\n{relative}/d/\n{relative}/d/b\n")),
        "{whole}"
    );
    assert!(whole.lines().all(|line| !line.starts_with('/') && !line.contains("..")), "{whole}");
    let without = place.run(["restore", "latest", "--exclude", "b", "--tar", "some.tar"]).exits(0);
    assert!(without.out.contains("1 file,"), "{without:?}");
}

#[test]
fn a_damaged_file_is_left_out_and_named() {
    let place = Place::with_repository();
    place.write("src/big", &noise(1 << 20, 7));
    place.backup();
    let pack = place.files("repo/packs").into_iter().max_by_key(|path| fs::metadata(path).unwrap().len());
    damage(&pack.unwrap());
    for option in ["--tar", "--zip"] {
        let run = place.run(["restore", "latest", "--no-cache", option, "archive"]).exits(4);
        assert!(run.err.contains("src/big") && run.out.contains(" left out as damaged"), "{run:?}");
        assert!(place.path("archive").exists(), "the rest is there");
    }
}

#[test]
fn an_archive_replaces_a_file_only_when_it_is_complete() {
    let place = Place::with_repository();
    place.backup();
    place.write("archive.tar", b"older");
    place.run(["restore", "latest:/no/such", "--tar", "archive.tar"]).exits(1);
    assert_eq!(fs::read(place.path("archive.tar")).unwrap(), b"older");
    place.run(["restore", "latest", "--tar", "no/such/archive.tar"]).exits(1);
    place.run(["restore", "latest", "--tar", "target"]).exits(1);
    place.run(["restore", "latest", "--tar", "repo/archive.tar"]).exits(2);
    place.run(["restore", "latest", "--tar", "archive.tar"]).exits(0);
    assert!(fs::read(place.path("archive.tar")).unwrap().len() >= 10_240);
    let left = fs::read_dir(place.path("")).unwrap().filter_map(Result::ok);
    assert_eq!(
        left.filter(|entry| entry.file_name().as_encoded_bytes().starts_with(b".lifeboat")).count(),
        0
    );
}

#[test]
fn a_reader_that_goes_away_is_nobodys_error() {
    let place = Place::with_repository();
    place.write("src/big", &noise(20 << 20, 7));
    place.backup();
    for option in ["--tar", "--zip"] {
        let mut child = place.start(["restore", "latest", option, "-"]);
        drop(child.stdout.take());
        let run = Run::of(child.wait_with_output().unwrap()).exits(141);
        assert!(!run.err.contains("error"), "{run:?}");
    }
    let full = File::options().write(true).open("/dev/full").unwrap();
    let run = place.command().args(["restore", "latest", "--tar", "-"]).stdout(full).output().unwrap();
    assert!(Run::of(run).exits(14).err.contains("cannot write the output"));
}

#[test]
fn nobody_is_shown_an_archive() {
    let place = Place::with_repository();
    place.backup();
    for (option, what) in
        [("--tar -", "standard output"), ("--zip -", "standard output"), ("--zip /dev/tty", "/dev/tty")]
    {
        let mut script = Command::new("script");
        let program = format!("{} restore latest {option}", env!("CARGO_BIN_EXE_lifeboat"));
        script.args(["-qec", &program, "/dev/null"]).current_dir(place.path("")).stdin(Stdio::null());
        script.env("LIFEBOAT_REPO", place.path("repo")).env("LIFEBOAT_KEY_FILE", place.path("key"));
        for (variable, name) in [("XDG_STATE_HOME", "state"), ("XDG_CACHE_HOME", "cache")] {
            script.env(variable, place.path(name));
        }
        let run = Run::of(script.output().unwrap()).exits(2);
        assert!(run.out.contains(&format!("{what} is a terminal")), "{run:?}");
    }
}

#[test]
fn options_that_contradict_each_other_are_refused() {
    let place = Place::with_repository();
    for args in [
        &["--tar", "-", "--zip", "-"][..],
        &["--tar", "-", "--target", "target"],
        &["--zip", "-", "--target", "target"],
        &["--tar", "-", "--no-owner"],
        &["--tar", "-", "--verify"],
        &["--tar", "-", "--dry-run"],
        &["--tar", "-", "--overwrite", "always"],
        &["--zip", "-", "--numeric-owner"],
        &["--zip", "-", "--sparse"],
    ] {
        place.run(["restore", "latest"].iter().chain(args)).exits(2);
    }
}
