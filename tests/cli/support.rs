//! A place of its own for each test: home, repository, key, sources.

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use rustix::process::Pid;
use serde_json::Value;

/// Directories that are gone when the test ends.
pub(crate) struct Place {
    dir: tempfile::TempDir,
}

/// What a run left behind.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Run {
    pub(crate) fn of(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Fails the test unless the code is this one.
    #[track_caller]
    pub(crate) fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self:#?}");
        self
    }

    /// Standard output as one JSON object a line.
    #[track_caller]
    pub(crate) fn objects(&self) -> Vec<Value> {
        self.out.lines().map(|line| serde_json::from_str(line).expect(line)).collect()
    }

    /// The last JSON object of standard output.
    #[track_caller]
    pub(crate) fn last(&self) -> Value {
        self.objects().pop().expect("an object")
    }
}

impl Place {
    /// Empty directories.
    pub(crate) fn empty() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["home", "src", "target"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        Self { dir }
    }

    /// A repository `repo` that opens with the key file `key`, and a few files in `src`.
    pub(crate) fn with_repository() -> Self {
        let place = Self::empty();
        place.write("src/a", b"first\n");
        place.write("src/d/b", b"second\n");
        place.run(["init", "-q", "--new-key-file", "key"]).exits(0);
        place
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, content: &[u8]) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// The program with this place as its world, and no repository named.
    pub(crate) fn bare(&self) -> Command {
        self.furnish(Command::new(env!("CARGO_BIN_EXE_lifeboat")))
    }

    pub(crate) fn furnish(&self, mut command: Command) -> Command {
        command.env_clear().current_dir(self.dir.path()).stdin(Stdio::null());
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("HOME", self.path("home"));
        for (variable, name) in [
            ("XDG_DATA_HOME", "data"),
            ("XDG_CONFIG_HOME", "config"),
            ("XDG_STATE_HOME", "state"),
            ("XDG_CACHE_HOME", "cache"),
        ] {
            command.env(variable, self.path(name));
        }
        command
    }

    /// The program with repository and key named by the environment.
    pub(crate) fn command(&self) -> Command {
        self.named(self.bare())
    }

    fn named(&self, mut command: Command) -> Command {
        command.env("LIFEBOAT_REPO", self.path("repo"));
        if self.path("key").exists() {
            command.env("LIFEBOAT_KEY_FILE", self.path("key"));
        }
        command
    }

    /// Runs a verb on the repository.
    pub(crate) fn run<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Run {
        Run::of(self.command().args(args).output().unwrap())
    }

    /// Runs with bytes on standard input.
    pub(crate) fn feed<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>, input: &[u8]) -> Run {
        let mut child = self.start(args);
        child.stdin.take().unwrap().write_all(input).unwrap();
        Run::of(child.wait_with_output().unwrap())
    }

    /// Starts a run with open pipes. Signals do what they do for a person at a shell, also when these tests run in the
    /// background of a script, where some are ignored.
    pub(crate) fn start<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Child {
        let mut plain = Command::new("env");
        plain.arg("--default-signal=INT,TERM,HUP,QUIT").arg(env!("CARGO_BIN_EXE_lifeboat"));
        let mut command = self.named(self.furnish(plain));
        command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    }

    /// Saves `src`, and gives the snapshot's id.
    pub(crate) fn backup(&self) -> String {
        let run = self.run(["backup", "--json", "src"]).exits(0);
        run.last()["snapshot"].as_str().expect("an id").to_owned()
    }

    /// All files below a directory.
    pub(crate) fn files(&self, name: &str) -> Vec<PathBuf> {
        let found =
            ignore::WalkBuilder::new(self.path(name)).standard_filters(false).build().filter_map(Result::ok);
        found
            .filter(|entry| entry.file_type().is_some_and(|kind| kind.is_file()))
            .map(ignore::DirEntry::into_path)
            .collect()
    }
}

/// Bytes that no compressor makes smaller, the same each time.
pub(crate) fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut out = Vec::with_capacity(len + 8);
    while out.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend_from_slice(&state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
    }
    out.truncate(len);
    out
}

/// Damages a file in its middle.
pub(crate) fn damage(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x40;
    let mut permissions = fs::metadata(path).unwrap().permissions();
    #[expect(clippy::permissions_set_readonly_false, reason = "a file of this test alone")]
    permissions.set_readonly(false);
    fs::set_permissions(path, permissions).unwrap();
    fs::write(path, bytes).unwrap();
}

/// Damages every level of the local index where chunks are looked up: in all of its pieces but the first, which is read when
/// it is loaded, and the last, whose damage shows when it is opened.
pub(crate) fn damage_index(place: &Place) {
    let mut damaged = 0;
    for file in place.files("cache") {
        let mut bytes = fs::read(&file).unwrap();
        if bytes.len() > 64 && bytes[bytes.len() - 64..].windows(8).any(|word| word == b"LBLEVEL1") {
            for piece in 1..bytes.len() >> 16 {
                bytes[(piece << 16) + 70] ^= 4;
                damaged += 1;
            }
            fs::write(&file, bytes).unwrap();
        }
    }
    assert!(damaged > 1, "there are large ones");
}

/// Waits until a condition holds, for as long as a loaded machine may take.
#[track_caller]
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..3000 {
        if holds() {
            return;
        }
        assert!(Command::new("sleep").arg("0.01").status().unwrap().success());
    }
    panic!("{what} did not come");
}

/// The number of a process in a file, once it is there as a whole line.
pub(crate) fn pid(file: &Path) -> Option<Pid> {
    Pid::from_raw(fs::read_to_string(file).ok()?.strip_suffix('\n')?.parse().ok()?)
}

/// Whether a process has ended. A zombie that nobody waits for has ended, too.
pub(crate) fn is_gone(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
    stat.map_or(true, |stat| stat.contains(") Z"))
}
