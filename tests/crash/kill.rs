//! The program is killed by `SIGKILL` at random moments of a backup into a directory, again and again, and goes on.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::world::{contents, noise, write};

struct Place(tempfile::TempDir);

impl Place {
    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn source(&self) -> PathBuf {
        self.path("source")
    }

    fn lifeboat(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lifeboat"));
        command.env_clear().env("HOME", self.0.path());
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

    /// Runs to the end, which must be a good one.
    fn run(&self, args: &[&str], what: &str) -> String {
        let Output { status, stdout, stderr } = self.lifeboat(args).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(status.success(), "{what}: {args:?}: {status}\n{}{}", text(&stdout), text(&stderr));
        text(&stdout)
    }

    /// Starts a backup that says into a file what it acknowledges.
    fn start(&self) -> Child {
        let out = std::fs::File::create(self.path("out")).unwrap();
        let source = self.source();
        let args = ["backup", "--json", "--job", "crash", source.to_str().unwrap()];
        self.lifeboat(&args).stdout(out).stderr(Stdio::null()).spawn().unwrap()
    }

    /// The snapshot that the last backup acknowledged, if it came so far.
    fn acknowledged(&self) -> Option<String> {
        snapshot_of(&std::fs::read_to_string(self.path("out")).unwrap())
    }
}

fn snapshot_of(out: &str) -> Option<String> {
    let last = serde_json::from_str::<serde_json::Value>(out.lines().last()?).ok()?;
    Some(last.get("snapshot")?.as_str()?.to_owned())
}

/// Kills the child after this time; true if it had ended before.
fn kill_after(mut child: Child, time: Duration) -> bool {
    let start = Instant::now();
    while start.elapsed() < time {
        if let Some(status) = child.try_wait().unwrap() {
            assert!(status.success(), "the backup failed by itself: {status}");
            return true;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    false
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

fn dice(seed: u64, round: u64) -> u64 {
    u64::from_le_bytes(noise(seed.wrapping_mul(1_000_003).wrapping_add(round), 8).try_into().unwrap())
}

/// The next state of the source: some files changed, some new, some gone.
fn change(source: &Path, round: u64, seed: u64) {
    for n in 0..4 {
        let dice = dice(seed, round * 16 + n);
        write(source, &format!("changing/{}", dice % 10), &noise(dice, (dice % (3 << 20)) as usize));
    }
    let gone = source.join(format!("changing/{}", dice(seed, round) % 10));
    if round.is_multiple_of(3) && gone.exists() {
        std::fs::remove_file(gone).unwrap();
    }
}

#[test]
fn the_program_may_be_killed_at_any_moment() {
    let (kills, seed) = (number("LIFEBOAT_KILLS", 20), number("LIFEBOAT_SEED", 1));
    let place = Place(tempfile::tempdir().unwrap());
    for n in 0..200 {
        write(&place.source(), &format!("kept/{n}"), format!("kept {n} ").repeat(n + 1).as_bytes());
    }
    let key = place.path("key");
    place.run(&["init", "--new-key-file", key.to_str().unwrap()], "init");
    // How long a whole run takes decides when to kill.
    change(&place.source(), kills, seed);
    let begin = Instant::now();
    assert!(kill_after(place.start(), Duration::from_secs(120)));
    let whole = begin.elapsed().max(Duration::from_millis(20));
    let mut kept: Vec<String> = place.acknowledged().into_iter().collect();
    assert_eq!(kept.len(), 1, "a backup that ends well names its snapshot");
    let (mut killed, mut ended) = (0, 0);
    for round in 0..kills {
        let what = format!("round {round} of seed {seed}");
        change(&place.source(), round, seed);
        let part = dice(seed, (1 << 32) | round) % 1200;
        let done = kill_after(place.start(), whole * u32::try_from(part).unwrap() / 1000);
        if done {
            ended += 1
        } else {
            killed += 1
        }
        kept.extend(place.acknowledged());
        look(&place, &mut kept, &what);
        // Every other time the killed run is not followed by one that ends, so that leftovers gather.
        if round.is_multiple_of(2) {
            go_on(&place, &mut kept, &what);
        }
    }
    println!("{killed} killed, {ended} had ended; a whole run took {whole:?}");
    assert!(killed > 0 || kills == 0, "no backup was killed");
}

/// Right after a death everything acknowledged is there, and there is no damage.
fn look(place: &Place, kept: &mut Vec<String>, what: &str) {
    kept.sort();
    kept.dedup();
    let listed = place.run(&["snapshots", "--json"], what);
    for id in kept {
        assert!(listed.contains(id.as_str()), "{what}: {id} was acknowledged and is gone\n{listed}");
    }
    place.run(&["verify", "--data"], what);
}

/// A further backup works without any help, and restores as the source is.
fn go_on(place: &Place, kept: &mut Vec<String>, what: &str) {
    let source = place.source();
    let source_name = source.to_str().unwrap();
    let out = place.run(&["backup", "--json", "--job", "crash", source_name], what);
    let id = snapshot_of(&out).unwrap_or_else(|| panic!("{what}: {out}"));
    let target = tempfile::tempdir().unwrap();
    let restored = target.path().join("restored");
    place.run(&["restore", &format!("{id}:{source_name}"), "--target", restored.to_str().unwrap()], what);
    assert!(contents(&restored) == contents(&source), "{what}: {id} differs from its source");
    kept.push(id);
    let found = place.run(&["verify", "--data", "--json"], what);
    assert!(!found.contains("no index object"), "{what}: packs were left behind\n{found}");
}
