//! The real program is killed just before each of its system calls that change a file, and goes on; and it is held there
//! while another one works.
//!
//! `LIFEBOAT_KILLS=all` tries every call; otherwise some, evenly spread.

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

use crate::place::{Place, snapshot_of};
use crate::trace::{self, Next, Traced};
use crate::world::{copy_tree, noise, number, write};

/// What is run and may be killed anywhere; `SOURCE` stands for the source. `forget` and `prune` belong here.
const COMMANDS: &[&[&str]] = &[&["backup", "--json", "--job", "crash", SOURCE]];
/// What another process does while the commands are held. `prune --grace 0s` belongs here.
const OTHERS: &[&[&str]] = &[&["backup", "--json", "--job", "another", SOURCE]];
const SOURCE: &str = "SOURCE";

/// A repository with a snapshot, and a source that has changed since.
struct World {
    place: Place,
    before: tempfile::TempDir,
    first: String,
}

impl World {
    fn new() -> Self {
        let place = Place::new();
        for n in 0..20 {
            write(place.source(), &format!("kept/{n}"), format!("kept {n} ").repeat(n + 1).as_bytes());
        }
        write(place.source(), "changed", &noise(1, 300_000));
        place.init();
        let first = place.back_up("the first backup");
        let before = tempfile::tempdir().unwrap();
        copy_tree(place.source(), before.path());
        write(place.source(), "changed", &noise(2, 1_200_000));
        write(place.source(), "new/file", &noise(3, 200_000));
        Self { place, before, first }
    }
}

fn command(place: &Place, command: &[&str]) -> Command {
    let source = place.source().to_str().unwrap();
    let args: Vec<&str> = command.iter().map(|arg| if *arg == SOURCE { source } else { *arg }).collect();
    let mut command = place.lifeboat(&args);
    command.stdout(std::fs::File::create(place.path("out")).unwrap()).stderr(Stdio::null());
    command
}

/// What happened in one run of all commands.
struct Happened {
    /// Calls that were seen.
    calls: u64,
    /// Snapshots that were acknowledged.
    acknowledged: Vec<String>,
    killed: bool,
}

/// Runs the commands; before each call `ask` is asked, with its number over all of them.
fn run_all(place: &Place, mut ask: impl FnMut(u64) -> Next) -> Happened {
    let mut happened = Happened { calls: 0, acknowledged: Vec::new(), killed: false };
    for args in COMMANDS {
        let before = happened.calls;
        let Traced { status, calls } =
            trace::run(&mut command(place, args), |call| ask(before + call)).unwrap();
        happened.calls += calls;
        happened.acknowledged.extend(snapshot_of(&std::fs::read_to_string(place.path("out")).unwrap()));
        happened.killed = status.signal() == Some(libc::SIGKILL);
        if happened.killed {
            break;
        }
        assert!(status.success(), "{args:?} failed by itself: {status}");
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
    let calls = run_all(&world.place.copy(), |_| Next::GoOn).calls;
    assert!(calls > 50, "only {calls} calls");
    let (mut killed, mut acknowledged) = (0, 0);
    let tried = chosen(calls, 150);
    for at in &tried {
        let what = format!("killed before call {at}");
        let place = world.place.copy();
        let happened = run_all(&place, |call| if call == *at { Next::Kill } else { Next::GoOn });
        killed += u64::from(happened.killed);
        acknowledged += happened.acknowledged.len();
        let mut kept = vec![world.first.clone()];
        kept.extend(happened.acknowledged.iter().cloned());
        place.look(&kept, &what);
        place.check(&world.first, world.before.path(), &what);
        for id in &happened.acknowledged {
            place.check(id, place.source(), &what);
        }
        kept.push(place.go_on(&what));
        place.look(&kept, &what);
    }
    println!("{calls} calls, {} tried, {killed} killed, {acknowledged} had acknowledged", tried.len());
    assert!(killed * 10 > tried.len() as u64 * 8, "only {killed} of {} were killed", tried.len());
}

#[test]
fn the_program_may_be_held_before_every_call_while_another_works() {
    let world = World::new();
    let calls = run_all(&world.place.copy(), |_| Next::GoOn).calls;
    let tried = chosen(calls, 40);
    for at in &tried {
        let what = format!("held before call {at}");
        let place = world.place.copy();
        let mut others = Vec::new();
        let happened = run_all(&place, |call| {
            if call == *at {
                for args in OTHERS {
                    let source = place.source().to_str().unwrap();
                    let args: Vec<&str> =
                        args.iter().map(|arg| if *arg == SOURCE { source } else { *arg }).collect();
                    others.extend(snapshot_of(&place.run(&args, &what)));
                }
            }
            Next::GoOn
        });
        assert!(!happened.killed && happened.acknowledged.len() == 1, "{what}");
        let mut kept = vec![world.first.clone()];
        kept.extend(others.iter().chain(&happened.acknowledged).cloned());
        place.look(&kept, &what);
        place.check(&world.first, world.before.path(), &what);
        for id in &kept[1..] {
            place.check(id, place.source(), &what);
        }
    }
    println!("{calls} calls, held before {} of them", tried.len());
}
