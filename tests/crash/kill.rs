//! The process dies by `SIGKILL` at random moments of a backup into a directory, again and again, and goes on.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use lifeboat::crypto::SecretKey;
use lifeboat::ops::snapshots::{SnapshotFilter, list};
use lifeboat::ops::verify::{Depth, Problem, verify};
use lifeboat::repo::Repository;
use lifeboat::store::{Store, StoreEnv, StoreOptions, StoreUrl};

use crate::world::{back_up, check_snapshots, copy_tree, env, new_repository, noise, open, write};

/// Tells a child of this test what to back up.
const PLACE: &str = "LIFEBOAT_CRASH_PLACE";

async fn local(place: &Path) -> Store {
    let env = env(place);
    let store_env =
        StoreEnv { clock: env.clock, random: env.random, observer: env.observer, cancel: env.cancel };
    let url = StoreUrl::local(place.join("repository"));
    Store::open(&url, &StoreOptions::default(), store_env).await.unwrap()
}

async fn local_repository(place: &Path, key: &SecretKey) -> Repository {
    open(local(place).await, place, key).await.unwrap()
}

fn key(place: &Path) -> SecretKey {
    SecretKey::from_bytes(std::fs::read(place.join("key")).unwrap().try_into().unwrap())
}

/// Not a test of its own: what a killed child does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_child_backs_up() {
    let Ok(place) = std::env::var(PLACE) else { return };
    let place = PathBuf::from(place);
    let repo = local_repository(&place, &key(&place)).await;
    let id = back_up(&repo, &place.join("source")).await.unwrap();
    // Acknowledged: from here on the snapshot must never be lost.
    write(&place, &format!("acknowledged/{id}"), b"");
}

fn start(place: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "kill::a_child_backs_up", "--nocapture"])
        .env(PLACE, place)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Kills the child after this time; true if it had ended before.
fn kill_after(mut child: Child, time: Duration) -> bool {
    let start = Instant::now();
    while start.elapsed() < time {
        if let Some(status) = child.try_wait().unwrap() {
            assert!(status.success(), "the child failed by itself");
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
fn a_process_may_be_killed_at_any_moment() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (kills, seed) = (number("LIFEBOAT_KILLS", 20), number("LIFEBOAT_SEED", 1));
    let dir = tempfile::tempdir().unwrap();
    let (place, source) = (dir.path(), dir.path().join("source"));
    for n in 0..200 {
        write(&source, &format!("kept/{n}"), format!("kept {n} ").repeat(n + 1).as_bytes());
    }
    let key = runtime.block_on(async { new_repository(local(place).await, place).await });
    std::fs::write(place.join("key"), key.expose()).unwrap();
    std::fs::create_dir(place.join("acknowledged")).unwrap();
    // How long a whole run takes decides when to kill.
    let begin = Instant::now();
    assert!(kill_after(start(place), Duration::from_secs(120)));
    let whole = begin.elapsed().max(Duration::from_millis(20));
    let (mut killed, mut ended) = (0, 0);
    for round in 0..kills {
        change(&source, round, seed);
        let part = dice(seed, 1 << 32 | round) % 1200;
        let done = kill_after(start(place), whole * u32::try_from(part).unwrap() / 1000);
        if done { ended += 1 } else { killed += 1 }
        runtime.block_on(look(place, &key, round, seed));
    }
    println!("{killed} killed, {ended} had ended; a whole run took {whole:?}");
    assert!(killed > 0 || kills == 0, "no child was killed");
}

/// After each death: everything acknowledged is there and whole, and a further backup works and restores as it is.
async fn look(place: &Path, key: &SecretKey, round: u64, seed: u64) {
    let what = format!("round {round} of seed {seed}");
    let repo = local_repository(place, key).await;
    let found = list(&repo, &SnapshotFilter::default()).await.unwrap();
    assert!(found.unreadable.is_empty(), "{what}");
    for acknowledged in std::fs::read_dir(place.join("acknowledged")).unwrap() {
        let id = acknowledged.unwrap().file_name().into_string().unwrap();
        let kept = found.snapshots.iter().any(|info| info.confirmed && info.id.to_string() == id);
        assert!(kept, "{what}: {id} was acknowledged and is gone");
    }
    let damage = |report: &lifeboat::ops::verify::VerifyReport| {
        report.findings.iter().filter(|finding| !matches!(finding.problem, Problem::Unconfirmed | Problem::Unindexed)).map(ToString::to_string).collect::<Vec<_>>()
    };
    let report = verify(&repo, Depth::Data).await.unwrap();
    assert_eq!(damage(&report), [""; 0], "{what}: right after the kill");
    // Every other time the killed run is not followed by one that ends, so that leftovers gather.
    if round.is_multiple_of(2) {
        let source = place.join("source");
        let id = back_up(&repo, &source).await.unwrap_or_else(|e| panic!("{what}: {e}"));
        let copy = tempfile::tempdir().unwrap();
        copy_tree(&source, copy.path());
        check_snapshots(&repo, &[(id, copy.path())], &what).await;
        let report = verify(&repo, Depth::Data).await.unwrap();
        let unindexed = report.findings.iter().filter(|f| matches!(f.problem, Problem::Unindexed)).count();
        assert_eq!((unindexed, damage(&report)), (0, Vec::new()), "{what}: after going on");
    }
}
