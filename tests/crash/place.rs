//! A repository in a directory, the program's own places beside it, and runs of the real program on them.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::world::{contents, copy_tree};

pub struct Place {
    home: tempfile::TempDir,
    source: PathBuf,
}

impl Place {
    /// An empty one with its source in it.
    pub fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let source = home.path().join("source");
        Self { home, source }
    }

    /// Everything but the source again, to break it.
    pub fn copy(&self) -> Self {
        let home = tempfile::tempdir().unwrap();
        for name in ["repository", "state", "cache", "data"] {
            if self.path(name).exists() {
                copy_tree(&self.path(name), &home.path().join(name));
            }
        }
        std::fs::copy(self.path("key"), home.path().join("key")).unwrap();
        Self { home, source: self.source.clone() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    pub fn source(&self) -> &Path {
        &self.source
    }

    pub fn lifeboat(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lifeboat"));
        command.env_clear().env("HOME", self.home.path());
        for (name, dir) in
            [("XDG_STATE_HOME", "state"), ("XDG_CACHE_HOME", "cache"), ("XDG_DATA_HOME", "data")]
        {
            command.env(name, self.path(dir));
        }
        command.arg("-r").arg(self.path("repository"));
        if args[0] != "init" {
            command.arg("--key-file").arg(self.path("key"));
        }
        command.args(args);
        command
    }

    pub fn init(&self) {
        self.run(&["init", "--new-key-file", self.path("key").to_str().unwrap()], "init");
    }

    /// Runs to the end, which must be a good one.
    pub fn run(&self, args: &[&str], what: &str) -> String {
        let Output { status, stdout, stderr } = self.lifeboat(args).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(status.success(), "{what}: {args:?}: {status}\n{}{}", text(&stdout), text(&stderr));
        text(&stdout)
    }

    pub fn back_up(&self, what: &str) -> String {
        let out = self.run(&["backup", "--json", "--job", "crash", self.source.to_str().unwrap()], what);
        snapshot_of(&out).unwrap_or_else(|| panic!("{what}: {out}"))
    }

    /// A snapshot restores to what is in this directory.
    pub fn check(&self, id: &str, wanted: &Path, what: &str) {
        let target = tempfile::tempdir().unwrap();
        let restored = target.path().join("restored");
        let what_of_it = format!("{id}:{}", self.source.to_str().unwrap());
        self.run(&["restore", &what_of_it, "--target", restored.to_str().unwrap()], what);
        assert!(contents(&restored) == contents(wanted), "{what}: {id} differs from its source");
    }

    /// Right after a death everything acknowledged is there, and there is no damage. Gives the list of snapshots.
    pub fn look(&self, kept: &[String], what: &str) -> String {
        let listed = self.run(&["snapshots", "--all", "--json"], what);
        for id in kept {
            assert!(listed.contains(id.as_str()), "{what}: {id} was acknowledged and is gone\n{listed}");
        }
        self.run(&["verify", "--data"], what);
        listed
    }

    /// A further backup works without any help, and restores as the source is.
    pub fn go_on(&self, what: &str) -> String {
        let id = self.back_up(what);
        self.check(&id, &self.source, what);
        self.check_leftovers(what);
        id
    }

    /// No packs were left behind by a run that was cut short.
    pub fn check_leftovers(&self, what: &str) {
        let found = self.run(&["verify", "--data", "--json"], what);
        assert!(!found.contains("no index object"), "{what}: packs were left behind\n{found}");
    }
}

/// The snapshot that a backup acknowledged, if it came so far.
pub fn snapshot_of(out: &str) -> Option<String> {
    let last = serde_json::from_str::<serde_json::Value>(out.lines().last()?).ok()?;
    Some(last.get("snapshot")?.as_str()?.to_owned())
}
