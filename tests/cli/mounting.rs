//! `mount`, through the kernel: what the system's own tools see there, and how it ends. Where nothing can be mounted, these
//! tests say so and pass.

#![allow(clippy::print_stderr, reason = "a test that is left out says so")]

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command};

use rustix::process::{Pid, Signal, kill_process};

use crate::every_kind::{MAKE, bash};
use crate::support::{Place, damage, noise};

/// What tools say of a tree that can be said of a mount, too: no flags, no sizes of directories, no counts of names.
const SEE: &str = r#"
set -eu
find . -printf '%p %y %m %U %G %l %T@\n' | LC_ALL=C sort
find . -type f -printf '%p %s\n' | LC_ALL=C sort
find . ! -type l -print0 | LC_ALL=C sort -z | xargs -0 getfacl -n
find . -print0 | LC_ALL=C sort -z | xargs -0 getfattr -h -d -m - -e hex
[ "$(id -u)" != 0 ] || getcap -r . | LC_ALL=C sort
find . -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum
"#;

/// A mount that stands, taken away when the test fails.
struct Mount {
    child: Child,
    err: BufReader<ChildStderr>,
    dir: PathBuf,
}

impl Mount {
    /// `None` where nothing can be mounted.
    fn start(place: &Place, args: &[&str]) -> Option<Self> {
        let helper = Command::new("fusermount3").arg("-V").output().is_ok();
        if !Path::new("/dev/fuse").exists() || !(helper || rustix::process::geteuid().is_root()) {
            eprintln!("not tested: nothing can be mounted here");
            return None;
        }
        let dir = place.path("mnt");
        fs::create_dir_all(&dir).unwrap();
        let mut child = place.start(["mount"].iter().chain(args).chain(&["mnt"]));
        let mut err = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        while !line.contains("mounted at") {
            line.clear();
            assert_ne!(err.read_line(&mut line).unwrap(), 0, "it ended: {:?}", child.wait());
        }
        assert!(line.contains("end it with Ctrl-C"), "{line}");
        Some(Self { child, err, dir })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn send(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for the end: code, and what was said.
    fn end(mut self) -> (Option<i32>, String) {
        let mut said = String::new();
        self.err.read_to_string(&mut said).unwrap();
        (self.child.wait().unwrap().code(), said)
    }

    /// Ends it in the regular way.
    #[track_caller]
    fn stop(self, code: i32) -> String {
        self.send(Signal::INT);
        let dir = self.dir.clone();
        let (found, said) = self.end();
        assert_eq!(found, Some(code), "{said}");
        assert!(fs::read_dir(dir).unwrap().next().is_none(), "nothing is mounted any more");
        said
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            let _ = Command::new("umount").arg("-l").arg(&self.dir).output();
            let _ = self.child.kill();
        }
    }
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn every_kind_of_entry_is_seen_as_it_was() {
    let place = Place::with_repository();
    let source = place.path("src");
    bash(&source, MAKE);
    place.run(["backup", "-q", "src"]).exits(0);
    let stored = format!("latest:{}", source.display());
    let Some(mount) = Mount::start(&place, &[&stored]) else { return };
    let mut rsync = Command::new("rsync");
    rsync.args(["-aHAXS", "--checksum", "--delete", "--devices", "--specials", "-n", "--itemize-changes"]);
    let differs = rsync.arg(format!("{}/", mount.dir.display())).arg(&source).output().unwrap();
    assert!(differs.status.success(), "{}", String::from_utf8_lossy(&differs.stderr));
    assert_eq!(String::from_utf8_lossy(&differs.stdout), "", "rsync would change something");
    assert_eq!(bash(&source, SEE), bash(&mount.dir, SEE));

    bash(&place.path("target"), "cp -a ../mnt/. . && tar -C ../mnt -cf - . | tar -tf - >/dev/null");
    assert_eq!(bash(&source, SEE), bash(&place.path("target"), SEE), "cp brings the same");
    let number = |path: &str| fs::metadata(mount.path(path)).unwrap().ino();
    assert_eq!(number("plain"), number("hard"));
    assert_eq!(number("plain"), number("dir/hard-too"));
    let copied = |path: &str| fs::metadata(place.path(&format!("target/{path}"))).unwrap();
    assert_eq!(copied("plain").ino(), copied("dir/hard-too").ino());
    assert!(copied("sparse").blocks() * 512 < copied("sparse").len() / 2, "holes are seen as holes");
    assert!(fs::write(mount.path("plain"), "x").is_err() && fs::remove_file(mount.path("plain")).is_err());
    assert_eq!(mount.stop(0).lines().count(), 1, "but for the answer to the signal nothing is said");
}

#[test]
fn snapshots_are_found_by_what_they_are_and_new_ones_appear() {
    let place = Place::with_repository();
    place.run(["backup", "-q", "src", "--host", "one", "--tag", "a/b"]).exits(0);
    let Some(mount) = Mount::start(&place, &["--host", "one"]) else { return };
    assert_eq!(names(&mount.dir), ["hosts", "ids", "jobs", "tags"]);
    assert_eq!(names(&mount.path("hosts")), ["one"]);
    assert_eq!(names(&mount.path("tags")), ["a_b"]);
    let job = names(&mount.path("jobs")).pop().unwrap();
    assert!(job.starts_with('_') && job.ends_with("_src"), "{job}");
    let job = mount.path("jobs").join(job);
    let found = names(&job);
    assert!(found.len() == 2 && found[0].ends_with('Z') && found[1] == "latest", "{found:?}");
    assert_eq!(fs::read_link(job.join("latest")).unwrap(), Path::new(&found[0]));
    let within = place.path("src");
    let file = within.strip_prefix("/").unwrap().join("d/b");
    for view in ["hosts/one/latest", "tags/a_b/latest", "ids/latest"] {
        assert_eq!(fs::read(mount.path(view).join(&file)).unwrap(), b"second\n");
    }
    // Another machine's snapshot is not shown; one of this machine is, and soon.
    place.write("src/d/b", b"third\n");
    place.run(["backup", "-q", "src", "--host", "two"]).exits(0);
    place.run(["backup", "-q", "src", "--host", "one"]).exits(0);
    while fs::read(mount.path("ids/latest").join(&file)).unwrap() != b"third\n" {
        std::thread::yield_now();
    }
    assert_eq!(names(&mount.path("hosts")), ["one"]);
    assert_eq!(names(&mount.path("hosts/one")).len(), 3);
    mount.stop(0);
}

#[test]
fn many_readers_get_what_was_saved() {
    let place = Place::with_repository();
    let content = noise(9 << 20, 5);
    place.write("src/large", &content);
    for number in 0..300 {
        place.write(&format!("src/small/{number}"), &noise(3000 + number, number as u64));
    }
    place.run(["backup", "-q", "src"]).exits(0);
    let stored = format!("latest:{}", place.path("src").display());
    let Some(mount) = Mount::start(&place, &[&stored]) else { return };
    let dir = &mount.dir;
    std::thread::scope(|scope| {
        for reader in 0..1000_usize {
            let content = &content;
            let read = move || match reader % 2 {
                0 => {
                    let at = reader * 7919 * 1024 % (content.len() - 40_000);
                    let mut found = vec![0; 40_000];
                    let large = fs::File::open(dir.join("large")).unwrap();
                    large.read_exact_at(&mut found, at as u64).unwrap();
                    assert!(found == content[at..at + 40_000]);
                }
                _ => {
                    let number = reader % 300;
                    let found = fs::read(dir.join(format!("small/{number}"))).unwrap();
                    assert!(found == noise(3000 + number, number as u64));
                }
            };
            std::thread::Builder::new().stack_size(128 << 10).spawn_scoped(scope, read).unwrap();
        }
    });
    assert!(fs::read(mount.path("large")).unwrap() == content);
    assert_eq!(names(&mount.path("small")).len(), 300);
    mount.stop(0);
}

#[test]
fn damage_costs_one_file_and_is_said() {
    let place = Place::with_repository();
    place.run(["backup", "-q", "src"]).exits(0);
    place.write("src/lost", &noise(3 << 20, 3));
    let before = place.files("repo/packs");
    place.run(["backup", "-q", "src"]).exits(0);
    let packs = place.files("repo/packs");
    let new = packs.into_iter().filter(|pack| !before.contains(pack));
    damage(&new.max_by_key(|pack| fs::metadata(pack).unwrap().len()).unwrap());
    let stored = format!("latest:{}", place.path("src").display());
    let Some(mount) = Mount::start(&place, &[&stored]) else { return };
    let grep = Command::new("grep").args(["-r", "second", "."]).current_dir(&mount.dir).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&grep.stdout), "./d/b:second\n");
    let error = fs::read(mount.path("lost")).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::IO.raw_os_error()));
    assert_eq!(fs::read(mount.path("a")).unwrap(), b"first\n");
    let said = mount.stop(4);
    assert_eq!(said.matches("mnt/lost: ").count(), 1, "{said}");
}

#[test]
fn it_ends_when_somebody_unmounts_and_when_it_is_in_use() {
    let place = Place::with_repository();
    place.backup();
    let Some(mount) = Mount::start(&place, &[]) else { return };
    let umount = Command::new("umount").arg(&mount.dir).output().unwrap();
    if !umount.status.success() {
        assert!(Command::new("fusermount3").arg("-u").arg(&mount.dir).status().unwrap().success());
    }
    assert_eq!(mount.end(), (Some(0), String::new()));

    let mount = Mount::start(&place, &["latest"]).unwrap();
    let file = place.path("src").join("a");
    let open = fs::File::open(mount.dir.join(file.strip_prefix("/").unwrap())).unwrap();
    mount.send(Signal::TERM);
    let dir = mount.dir.clone();
    let (code, said) = mount.end();
    assert_eq!(code, Some(0), "{said}");
    if rustix::process::geteuid().is_root() {
        assert!(said.contains("in use"), "{said}");
    }
    assert!(open.read_at(&mut [0], 0).is_err());
    assert!(names(&dir).is_empty());
}

#[test]
fn a_place_that_cannot_be_mounted_at_is_said_to_be_one() {
    let place = Place::with_repository();
    place.backup();
    place.write("full/of", b"something");
    place.write("file", b"");
    fs::create_dir(place.path("repo/inside")).unwrap();
    for (dir, why) in [
        ("missing", "no such directory"),
        ("full", "not empty"),
        ("file", "not a directory"),
        ("repo/inside", "inside the repository"),
    ] {
        let run = place.run(["mount", dir]).exits(2);
        assert!(run.err.contains(why), "{run:?}");
    }
    fs::create_dir(place.path("mnt")).unwrap();
    let file = format!("latest:{}", place.path("src/a").display());
    assert!(place.run(["mount", &file, "mnt"]).exits(1).err.contains("not a directory"));
    assert!(place.run(["mount", "latest:/no/such", "mnt"]).exits(1).err.contains("/no/such"));
    assert!(place.run(["mount", "4711", "mnt"]).exits(1).err.contains("4711"));
}
