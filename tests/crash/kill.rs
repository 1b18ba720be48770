//! The program is killed by `SIGKILL` at random moments of a backup into a directory, again and again, and goes on.

use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use crate::place::{Place, snapshot_of};
use crate::world::{noise, number, write};

/// Starts a backup that says into a file what it acknowledges.
fn start(place: &Place) -> Child {
    let out = std::fs::File::create(place.path("out")).unwrap();
    let args = ["backup", "--json", "--job", "crash", place.source().to_str().unwrap()];
    place.lifeboat(&args).stdout(out).stderr(Stdio::null()).spawn().unwrap()
}

/// The snapshot that the last backup acknowledged, if it came so far.
fn acknowledged(place: &Place) -> Option<String> {
    snapshot_of(&std::fs::read_to_string(place.path("out")).unwrap())
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
    let place = Place::new();
    for n in 0..200 {
        write(place.source(), &format!("kept/{n}"), format!("kept {n} ").repeat(n + 1).as_bytes());
    }
    place.init();
    // How long a whole run takes decides when to kill.
    change(place.source(), kills, seed);
    let begin = Instant::now();
    assert!(kill_after(start(&place), Duration::from_secs(120)));
    let whole = begin.elapsed().max(Duration::from_millis(20));
    let mut kept: Vec<String> = acknowledged(&place).into_iter().collect();
    assert_eq!(kept.len(), 1, "a backup that ends well names its snapshot");
    let (mut killed, mut ended) = (0, 0);
    for round in 0..kills {
        let what = format!("round {round} of seed {seed}");
        change(place.source(), round, seed);
        let part = dice(seed, (1 << 32) | round) % 1200;
        let done = kill_after(start(&place), whole * u32::try_from(part).unwrap() / 1000);
        if done {
            ended += 1
        } else {
            killed += 1
        }
        kept.extend(acknowledged(&place));
        place.look(&kept, &what);
        // Every other time the killed run is not followed by one that ends, so that leftovers gather.
        if round.is_multiple_of(2) {
            kept.push(place.go_on(&what));
        }
    }
    println!("{killed} killed, {ended} had ended; a whole run took {whole:?}");
    assert!(killed > 0 || kills == 0, "no backup was killed");
}
