//! The real program is killed just before each of its system calls that change a file, and goes on; and it is held there
//! while another one works.
//!
//! `LIFEBOAT_KILLS=all` tries every call; otherwise some, evenly spread.

use std::os::unix::process::ExitStatusExt;

use crate::place::{Place, snapshot_of};
use crate::trace::{self, Next, Traced};
use crate::world::{copy_tree, noise, number, write};

/// What is run and may be killed anywhere; `SOURCE` stands for the source, `OLD` for the snapshot that is removed.
const COMMANDS: &[&[&str]] = &[&["backup", "--json", "--job", "crash", SOURCE], &["forget", OLD], PRUNE];
/// What another process does while the commands are held.
const OTHERS: &[&[&str]] = &[&["backup", "--json", "--job", "another", SOURCE], PRUNE];
const PRUNE: &[&str] = &["prune", "--grace", "0s", "--max-unused", "0", "--reserve", "0", "--yes", "--force"];
const SOURCE: &str = "SOURCE";
const OLD: &str = "OLD";

/// A repository with two snapshots, and a source that has changed since.
struct World {
    place: Place,
    /// The one that is removed, and what it restores to.
    old: (String, tempfile::TempDir),
    first: (String, tempfile::TempDir),
}

impl World {
    fn new() -> Self {
        let place = Place::new();
        for n in 0..20 {
            write(place.source(), &format!("kept/{n}"), format!("kept {n} ").repeat(n + 1).as_bytes());
        }
        write(place.source(), "changed", &noise(1, 300_000));
        place.init();
        let old = saved(&place);
        write(place.source(), "changed", &noise(2, 300_000));
        let first = saved(&place);
        write(place.source(), "changed", &noise(3, 1_200_000));
        write(place.source(), "new/file", &noise(4, 200_000));
        Self { place, old, first }
    }

    fn args<'a>(&'a self, args: &[&'a str]) -> Vec<&'a str> {
        let meant = |arg: &&'a str| match *arg {
            SOURCE => self.place.source().to_str().unwrap(),
            OLD => &self.old.0,
            arg => arg,
        };
        args.iter().map(meant).collect()
    }

    /// What must be there is there, and the rest is whole or not there.
    fn check(&self, place: &Place, happened: &Happened, what: &str) {
        let mut kept = vec![self.first.0.clone()];
        kept.extend(happened.acknowledged.iter().cloned());
        let listed = place.look(&kept, what);
        place.check(&self.first.0, self.first.1.path(), what);
        for id in &happened.acknowledged {
            place.check(id, place.source(), what);
        }
        // Commands that were begun and that ended.
        let (old, ended) = (listed.contains(&self.old.0), happened.ended);
        assert!(old || happened.forgetting, "{what}: {} was not to be removed and is gone", self.old.0);
        assert!(!old || ended < COMMANDS.len(), "{what}: {} was removed and is there", self.old.0);
        if old {
            place.check(&self.old.0, self.old.1.path(), what);
        }
    }
}

/// Saves the source; gives the snapshot and what it must restore to.
fn saved(place: &Place) -> (String, tempfile::TempDir) {
    let copy = tempfile::tempdir().unwrap();
    copy_tree(place.source(), copy.path());
    (place.back_up("a backup"), copy)
}

/// What happened in one run of all commands.
#[derive(Default)]
struct Happened {
    /// Calls that were seen.
    calls: u64,
    /// Snapshots that were acknowledged.
    acknowledged: Vec<String>,
    /// Commands that ended well.
    ended: usize,
    /// Whether the command began that forgets.
    forgetting: bool,
    killed: bool,
}

/// Runs the commands; before each call `ask` is asked, with its number over all of them.
fn run_all(world: &World, place: &Place, mut ask: impl FnMut(u64) -> Next) -> Happened {
    let mut happened = Happened::default();
    for args in COMMANDS {
        let before = happened.calls;
        happened.forgetting |= args.contains(&OLD);
        let mut command = place.lifeboat(&world.args(args));
        command.stdout(std::fs::File::create(place.path("out")).unwrap());
        command.stderr(std::fs::File::create(place.path("said")).unwrap());
        let Traced { status, calls } = trace::run(&mut command, |call| ask(before + call)).unwrap();
        happened.calls += calls;
        happened.acknowledged.extend(snapshot_of(&std::fs::read_to_string(place.path("out")).unwrap()));
        happened.killed = status.signal() == Some(libc::SIGKILL);
        if happened.killed {
            break;
        }
        let said = std::fs::read_to_string(place.path("said")).unwrap();
        assert!(status.success(), "{args:?} failed by itself: {status}\n{said}");
        happened.ended += 1;
    }
    happened
}

/// The calls that are tried, of about so many.
fn chosen(calls: u64, samples: u64) -> Vec<u64> {
    if std::env::var("LIFEBOAT_KILLS").is_ok_and(|value| value == "all") {
        // The number varies a little from run to run.
        return (1..=calls + calls / 10).collect();
    }
    let samples = number("LIFEBOAT_KILLS", samples).min(calls);
    let shift = number("LIFEBOAT_SEED", 1) % (calls / samples.max(1)).max(1);
    (0..samples).map(|n| (n * calls / samples + shift).clamp(1, calls)).collect()
}

#[test]
fn the_program_may_be_killed_before_every_call_that_changes_a_file() {
    let world = World::new();
    let calls = run_all(&world, &world.place.copy(), |_| Next::GoOn).calls;
    assert!(calls > 100, "only {calls} calls");
    let (mut killed, mut acknowledged) = (0, 0);
    let tried = chosen(calls, 150);
    for at in &tried {
        let what = format!("killed before call {at}");
        let place = world.place.copy();
        let mut happened = run_all(&world, &place, |call| if call == *at { Next::Kill } else { Next::GoOn });
        killed += u64::from(happened.killed);
        acknowledged += happened.acknowledged.len();
        world.check(&place, &happened, &what);
        // What a backup left behind the next one uses; what a collection left, the next collection.
        happened.acknowledged.push(match happened.ended {
            0 => place.go_on(&what),
            _ => place.back_up(&what),
        });
        place.run(PRUNE, &what);
        place.check_leftovers(&what);
        world.check(&place, &happened, &what);
    }
    println!("{calls} calls, {} tried, {killed} killed, {acknowledged} had acknowledged", tried.len());
    assert!(killed * 10 > tried.len() as u64 * 8, "only {killed} of {} were killed", tried.len());
}

#[test]
fn the_program_may_be_held_before_every_call_while_another_works() {
    let world = World::new();
    let calls = run_all(&world, &world.place.copy(), |_| Next::GoOn).calls;
    let tried = chosen(calls, 40);
    for at in &tried {
        for other in OTHERS {
            let what = format!("held before call {at}, meanwhile {}", other[0]);
            let place = world.place.copy();
            let mut others = Vec::new();
            let mut happened = run_all(&world, &place, |call| {
                if call == *at {
                    others.extend(snapshot_of(&place.run(&world.args(other), &what)));
                }
                Next::GoOn
            });
            assert!(!happened.killed && happened.acknowledged.len() == 1, "{what}");
            happened.acknowledged.extend(others);
            world.check(&place, &happened, &what);
        }
    }
    println!("{calls} calls, held before {} of them", tried.len());
}
