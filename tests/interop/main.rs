//! A repository outlives the program that wrote it: `reader.py`, made from `docs/format.md` alone, restores it, and
//! everything is as it was.
//!
//! The reader's packages are installed into a virtual environment below cargo's target directory, once.

#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

mod tree;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/interop");

/// The interpreter with the reader's packages.
fn python() -> &'static Path {
    static PYTHON: OnceLock<PathBuf> = OnceLock::new();
    PYTHON.get_or_init(|| {
        let target = Path::new(env!("CARGO_BIN_EXE_lifeboat")).ancestors().nth(2).unwrap();
        let (venv, wanted) =
            (target.join("interop"), fs::read(Path::new(FOLDER).join("requirements.txt")).unwrap());
        let (python, stamp) = (venv.join("bin/python"), venv.join("installed.txt"));
        if fs::read(&stamp).ok().as_ref() != Some(&wanted) {
            done(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&venv), "needs python3-venv");
            let pip =
                ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", "requirements.txt"];
            done(Command::new(&python).args(pip).current_dir(FOLDER), "needs the network, once");
            fs::write(stamp, wanted).unwrap();
        }
        python
    })
}

fn done(command: &mut Command, hint: &str) -> Output {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}; {hint}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?} ended with {}:\n{said}\n{hint}", output.status);
    output
}

/// A place with a repository in it.
struct Place {
    directory: tempfile::TempDir,
    unlock: [&'static str; 2],
}

impl Place {
    fn new(init: &[&str], unlock: [&'static str; 2]) -> Self {
        let place = Self { directory: tempfile::tempdir().unwrap(), unlock };
        fs::create_dir(place.path("source")).unwrap();
        fs::write(place.path("password"), "correct horse battery staple\n").unwrap();
        let args: Vec<&str> = [&["init"], init].concat();
        done(&mut place.lifeboat(&args), "");
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn lifeboat(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lifeboat"));
        command
            .args(args)
            .env_clear()
            .env("HOME", self.directory.path())
            .env("LIFEBOAT_REPO", self.path("repo"));
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.current_dir(self.directory.path());
        command
    }

    fn backup(&self) {
        done(self.lifeboat(&["backup"]).args(self.unlock).arg(self.path("source")), "");
    }

    fn read(&self, target: &str) -> Command {
        let mut command = Command::new(python());
        command.arg(Path::new(FOLDER).join("reader.py")).arg(self.path("repo")).args(self.unlock);
        command.args(["--target", target]).current_dir(self.directory.path());
        command.env("PYTHONDONTWRITEBYTECODE", "1");
        command
    }

    /// Where the reader puts the source below its target.
    fn restored(&self, target: &str) -> PathBuf {
        self.path(target).join(self.path("source").strip_prefix("/").unwrap())
    }
}

#[test]
fn every_kind_of_entry_comes_back_without_the_program() {
    let place = Place::new(&["--new-key-file", "key"], ["--key-file", "key"]);
    tree::fill(&place.path("source"));
    place.backup();
    done(&mut place.read("first"), "");
    let wanted = tree::describe(&place.path("source"));
    assert!(wanted.len() > 3000, "the tree holds {} entries", wanted.len());
    tree::assert_same(&wanted, &tree::describe(&place.restored("first")));

    tree::change(&place.path("source"));
    place.backup();
    let wanted = tree::describe(&place.path("source"));
    done(&mut place.read("second"), "");
    tree::assert_same(&wanted, &tree::describe(&place.restored("second")));

    fs::remove_dir_all(place.path("repo/index")).unwrap();
    done(place.read("from packs").arg("--from-packs"), "");
    tree::assert_same(&wanted, &tree::describe(&place.restored("from packs")));
}

#[test]
fn a_passphrase_opens_a_repository_without_the_program() {
    let place = Place::new(&["--password-file", "password"], ["--password-file", "password"]);
    fs::write(place.path("source/file"), "content").unwrap();
    place.backup();
    done(&mut place.read("target"), "");
    assert_eq!(fs::read(place.restored("target").join("file")).unwrap(), b"content");
    fs::write(place.path("password"), "correct horse battery stable\n").unwrap();
    assert!(!place.read("other").output().unwrap().status.success(), "another passphrase opens nothing");
}

/// What was stored before and after the keys were replaced, also beside an old slot of the same secret.
#[test]
fn new_keys_and_old_ones_open_a_repository_without_the_program() {
    let place = Place::new(&["--new-key-file", "key"], ["--key-file", "key"]);
    fs::write(place.path("source/old"), "old content").unwrap();
    place.backup();
    let slots = || fs::read_dir(place.path("repo/keys")).unwrap().map(|entry| entry.unwrap().path());
    let old = slots().next().unwrap();
    let bytes = fs::read(&old).unwrap();
    for _ in 0..2 {
        done(place.lifeboat(&["rekey"]).args(place.unlock), "");
        fs::write(place.path("source/new"), "new content").unwrap();
        place.backup();
    }
    fs::write(old, bytes).unwrap();
    assert_eq!(slots().count(), 2);
    done(&mut place.read("target"), "");
    for name in ["old", "new"] {
        let content = fs::read_to_string(place.restored("target").join(name)).unwrap();
        assert_eq!(content, format!("{name} content"));
    }
}

#[test]
fn what_counts_of_a_revoked_writer_comes_back_and_nothing_else() {
    let place = Place::new(&["--new-key-file", "key"], ["--key-file", "key"]);
    let add = ["key", "add", "--role", "writer", "--new-key-file", "other"];
    done(place.lifeboat(&add).args(place.unlock), "");
    let backup = |content: &str| {
        fs::write(place.path("source/file"), content).unwrap();
        done(place.lifeboat(&["backup", "--key-file", "other"]).arg(place.path("source")), "");
    };
    let names = |folder: &Path| -> Vec<PathBuf> {
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
    };
    backup("before");
    let snapshots = names(&place.path("repo/snapshots")).remove(0);
    let before = names(&snapshots);
    backup("after");
    let mut late = names(&snapshots);
    late.retain(|name| !before.contains(name));
    assert_eq!(late.len(), 2, "a snapshot and its confirmation");
    fs::create_dir(place.path("away")).unwrap();
    let away = |name: &Path| place.path("away").join(name.file_name().unwrap());
    late.iter().for_each(|name| fs::rename(name, away(name)).unwrap());
    let writer = snapshots.file_name().unwrap().to_str().unwrap();
    let mut revoke = place.lifeboat(&["writer", "revoke", writer]);
    // Another machine: it has not seen what is away.
    done(revoke.args(place.unlock).env("XDG_STATE_HOME", place.path("away")), "");
    late.iter().for_each(|name| fs::rename(away(name), name).unwrap());
    done(&mut place.read("target"), "");
    assert_eq!(fs::read(place.restored("target").join("file")).unwrap(), b"before");
}

#[test]
fn the_reader_believes_no_altered_byte() {
    let place = Place::new(&["--new-key-file", "key"], ["--key-file", "key"]);
    fs::write(place.path("source/file"), "content ".repeat(1000)).unwrap();
    place.backup();
    let objects: Vec<PathBuf> = ignore::WalkBuilder::new(place.path("repo"))
        .standard_filters(false)
        .build()
        .map(|entry| entry.unwrap().into_path())
        .filter(|path| path.is_file())
        .collect();
    assert!(objects.len() >= 7, "{objects:?}");
    for (number, object) in objects.iter().enumerate() {
        let good = fs::read(object).unwrap();
        let mut bad = good.clone();
        // In a pack the reader looks at segments only, the first of which begins at 32.
        bad[40] ^= 1;
        fs::write(object, &bad).unwrap();
        let output = place.read(&format!("target {number}")).output().unwrap();
        assert!(!output.status.success(), "{} was altered and believed", object.display());
        fs::write(object, &good).unwrap();
    }
    done(&mut place.read("target"), "");
}
