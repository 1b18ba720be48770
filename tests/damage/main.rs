//! Damage of every kind, in every object, is found: by opening the repository or by verifying it.
//!
//! A sample runs by default. `LIFEBOAT_DAMAGE=full` flips every single bit; `LIFEBOAT_SEED` picks another sample.
#![allow(missing_docs, unreachable_pub, reason = "a test has no public interface")]
#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

mod exchange;
mod story;
mod world;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use lifeboat::ops::restore::{RestoreOptions, restore};
use lifeboat::ops::snapshots::{SnapshotFilter, list};
use lifeboat::ops::verify::{Depth, verify, verify_packs_without_key};
use lifeboat::repo::RepoError;
use world::{World, env, store_of};

/// Bits that the sample flips in all.
const SAMPLE: usize = 6000;
/// In objects up to this size the sample flips a bit of every byte.
const SMALL: usize = 1024;
/// Nothing may take longer, whatever the bytes say.
const LIMIT: Duration = Duration::from_secs(20);

/// Whoever looks: with a key, without one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    with_key: bool,
    without: bool,
}

/// Opens and verifies what is left; never panics, never hangs.
async fn look(world: &World, objects: &BTreeMap<String, Bytes>, what: &str) -> Seen {
    let store = store_of(objects).await;
    let with_key = async {
        match world.open(&store).await {
            Err(error) => {
                assert!(!matches!(error, RepoError::Task), "{what}");
                true
            }
            Ok(repo) => {
                let report =
                    verify(&repo, Depth::Data).await.unwrap_or_else(|error| panic!("{what}: {error}"));
                !report.findings.is_empty()
            }
        }
    };
    let with_key = tokio::time::timeout(LIMIT, with_key).await.unwrap_or_else(|_| panic!("{what}: no end"));
    let env = env(Path::new("/nonexistent"));
    let report =
        verify_packs_without_key(store, &env).await.unwrap_or_else(|error| panic!("{what}: {error}"));
    Seen { with_key, without: !report.findings.is_empty() }
}

fn kind(key: &str) -> &str {
    if key.ends_with(".ok") { "ok" } else { key.split('/').next().unwrap_or(key) }
}

/// A number that looks random and depends on the seed and the place alone.
fn dice(seed: u64, key: &str, place: usize) -> usize {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes()).update(key.as_bytes()).update(&place.to_le_bytes());
    let hash = *hasher.finalize().as_bytes();
    usize::from_le_bytes(hash[..8].try_into().unwrap())
}

fn seed() -> u64 {
    std::env::var("LIFEBOAT_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1)
}

fn full() -> bool {
    std::env::var("LIFEBOAT_DAMAGE").is_ok_and(|value| value == "full")
}

/// Runs every case on all cores; a case that fails ends the test.
fn on_all_cores(count: usize, case: impl Fn(&tokio::runtime::Runtime, usize) + Sync) {
    let next = AtomicUsize::new(0);
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        return;
                    }
                    case(&runtime, number);
                }
            });
        }
    });
}

fn build() -> World {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let world = World::build().await;
        let kinds: std::collections::BTreeSet<_> = world.objects.keys().map(|key| kind(key)).collect();
        let expected = [
            "config",
            "gc",
            "holds",
            "index",
            "keys",
            "labels",
            "ledger",
            "ok",
            "packs",
            "snapshots",
            "tombs",
            "writers",
        ];
        assert!(kinds.iter().eq(expected.iter()), "{kinds:?}");
        let seen = look(&world, &world.objects, "untouched").await;
        assert_eq!(seen, Seen { with_key: false, without: false }, "a sound repository has no findings");
        world
    })
}

/// Which bits of an object are flipped.
fn bits(key: &str, len: usize, total: usize) -> Vec<usize> {
    if full() {
        return (0..len * 8).collect();
    }
    let stride = if len <= SMALL { 1 } else { (total / SAMPLE).max(1) };
    (0..len)
        .step_by(stride)
        .map(|byte| {
            let byte = byte + dice(seed(), key, byte) % stride.min(len - byte);
            byte * 8 + dice(seed(), key, byte) % 8
        })
        .collect()
}

#[test]
fn every_flipped_bit_is_found() {
    let world = build();
    let total = world.objects.values().map(Bytes::len).sum();
    let cases: Vec<_> = world
        .objects
        .iter()
        .flat_map(|(key, bytes)| bits(key, bytes.len(), total).into_iter().map(move |bit| (key, bit)))
        .collect();
    println!("{} objects, {total} bytes, {} flipped bits", world.objects.len(), cases.len());
    on_all_cores(cases.len(), |runtime, number| {
        let (key, bit) = cases[number];
        let mut bytes = world.objects[key].to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let mut objects = world.objects.clone();
        objects.insert(key.clone(), bytes.into());
        let what = format!("bit {bit} of {key}");
        let seen = runtime.block_on(look(&world, &objects, &what));
        assert!(seen.with_key, "{what} was not found");
        assert!(seen.without || kind(key) == "ok", "{what} was not found without a key");
    });
}

/// One object as it should not be: what was done to it, and the objects then.
fn broken(world: &World) -> Vec<(String, String, BTreeMap<String, Bytes>)> {
    let mut cases = Vec::new();
    for (key, whole) in &world.objects {
        let mut case = |what: String, bytes: Option<Bytes>| {
            let mut objects = world.objects.clone();
            match bytes {
                Some(bytes) if bytes == *whole => return,
                Some(bytes) => objects.insert(key.clone(), bytes),
                None => objects.remove(key),
            };
            cases.push((key.clone(), what, objects));
        };
        case("missing".into(), None);
        let len = whole.len();
        for short in [0, 1, 31, 32, len / 2, len - 64, len - 1, dice(seed(), key, 0) % len] {
            case(format!("cut to {short}"), Some(whole.slice(..short.min(len))));
        }
        case("longer".into(), Some([&whole[..], &[0]].concat().into()));
        for block in (0..len).step_by(512) {
            let mut bytes = whole.to_vec();
            bytes[block..(block + 512).min(len)].fill(0);
            case(format!("zeroes at {block}"), Some(bytes.into()));
        }
        for (other, bytes) in &world.objects {
            if other != key && kind(other) == kind(key) {
                case(format!("the content of {other}"), Some(bytes.clone()));
            }
        }
    }
    cases
}

#[test]
fn missing_cut_zeroed_and_exchanged_objects_are_found() {
    let world = build();
    let cases = broken(&world);
    println!("{} cases", cases.len());
    on_all_cores(cases.len(), |runtime, number| {
        let (key, what, objects) = &cases[number];
        let seen = runtime.block_on(look(&world, objects, &format!("{key}: {what}")));
        // Nothing refers to what a collector leaves behind, nor to a key slot that is not the one in use.
        let unnoticed =
            what == "missing" && ["gc", "holds", "keys", "labels", "ledger", "tombs"].contains(&kind(key));
        assert!(seen.with_key || unnoticed, "{key}: {what} was not found");
        // A name without its object, and a confirmation of another snapshot, show only to whoever can read.
        assert!(
            seen.without || what == "missing" || kind(key) == "ok",
            "{key}: {what} was not found without a key"
        );
    });
}

/// Restores of a damaged repository that are tried.
const RESTORES: usize = 40;

/// What a restore may leave: every file as it was, or the truth that it is not.
/// True if the newest snapshot was restored whole.
async fn restore_all(world: &World, objects: &BTreeMap<String, Bytes>, what: &str) -> bool {
    let store = store_of(objects).await;
    let Ok(repo) = world.open(&store).await else { return false };
    let Ok(list) = list(&repo, &SnapshotFilter::default()).await else { return false };
    let mut restored_whole = false;
    let good = world::contents(world.source.path());
    for snapshot in list.snapshots {
        let newest = snapshot.id == world.last;
        let target = tempfile::tempdir().unwrap();
        let path = snapshot.snapshot.paths[0].clone();
        let options = RestoreOptions::new(snapshot, path, target.path().join("restored"));
        let Ok(summary) = restore(&repo, options).await else { continue };
        let found = world::contents(&target.path().join("restored"));
        for (path, content) in &found {
            assert!(
                good.get(path) == Some(content),
                "{what}: {} was restored with other content",
                path.display()
            );
        }
        if newest && summary.failed == 0 && summary.damaged_count == 0 {
            assert!(found == good, "{what}: the restore called itself whole and is not");
            restored_whole = true;
        }
    }
    restored_whole
}

#[test]
fn a_restore_from_damage_never_gives_a_wrong_byte() {
    let world = build();
    let total = world.objects.values().map(Bytes::len).sum();
    let mut cases = Vec::new();
    for (key, bytes) in
        world.objects.iter().filter(|(key, _)| ["packs", "index", "snapshots"].contains(&kind(key)))
    {
        for bit in bits(key, bytes.len(), total) {
            let mut bytes = bytes.to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            cases.push((format!("bit {bit} of {key}"), key, Some(bytes)));
        }
        let len = bytes.len();
        for block in (0..len).step_by(512) {
            let mut bytes = bytes.to_vec();
            bytes[block..(block + 512).min(len)].fill(0);
            cases.push((format!("zeroes at {block} of {key}"), key, Some(bytes)));
        }
    }
    cases.sort_by_key(|(what, key, _)| dice(seed(), key, what.len()) ^ dice(seed(), what, 0));
    if !full() {
        cases.truncate(RESTORES);
    }
    // What is missing is always tried.
    cases.extend(world.objects.keys().map(|key| (format!("without {key}"), key, None)));
    let wholes = AtomicUsize::new(0);
    on_all_cores(cases.len() + 1, |runtime, number| {
        if number == cases.len() {
            assert!(
                runtime.block_on(restore_all(&world, &world.objects, "untouched")),
                "nothing can be restored"
            );
            return;
        }
        let (what, key, bytes) = &cases[number];
        let mut objects = world.objects.clone();
        match bytes {
            Some(bytes) => objects.insert((*key).clone(), bytes.clone().into()),
            None => objects.remove(*key),
        };
        let end = runtime
            .block_on(async { tokio::time::timeout(LIMIT, restore_all(&world, &objects, what)).await });
        let whole = end.unwrap_or_else(|_| panic!("{what}: no end"));
        wholes.fetch_add(usize::from(whole), Ordering::Relaxed);
    });
    println!("{} of {} restores were whole all the same", wholes.into_inner(), cases.len());
}

#[test]
fn two_objects_that_changed_places_are_found() {
    let world = build();
    let keys: Vec<_> = world.objects.keys().collect();
    let pairs: Vec<_> = keys
        .iter()
        .flat_map(|a| keys.iter().map(move |b| (*a, *b)))
        .filter(|(a, b)| a < b && kind(a) == kind(b))
        .collect();
    on_all_cores(pairs.len(), |runtime, number| {
        let (a, b) = pairs[number];
        let mut objects = world.objects.clone();
        objects.insert(a.clone(), world.objects[b].clone());
        objects.insert(b.clone(), world.objects[a].clone());
        let what = format!("{a} and {b}");
        assert!(runtime.block_on(look(&world, &objects, &what)).with_key, "{what} were not found");
    });
}
