//! Objects in the places of others, spliced together, and put back after their time: noticed, or without any effect.
//!
//! Whoever holds the store may do all of this without a key. In no case may a restore give a wrong byte, may a snapshot be
//! missing without a word, or may a collection take away what could be restored before it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use bytes::Bytes;
use lifeboat::crypto::object_hash;
use lifeboat::format::layout::ObjectName;
use lifeboat::format::log::LogName;
use lifeboat::id::{ObjectHash, PackId, SnapshotId, WriterId};
use lifeboat::ops::anchor::require;
use lifeboat::ops::gc::prune;
use lifeboat::ops::hold::list_holds;
use lifeboat::ops::restore::{RestoreOptions, restore};
use lifeboat::ops::snapshots::{SnapshotFilter, SnapshotInfo, list, resolve};
use lifeboat::ops::verify::{Depth, verify};
use lifeboat::repo::{RepoError, Repository};
use lifeboat::store::Store;

use crate::story::{NOW, Objects, Story};
use crate::world::contents;
use crate::{LIMIT, dice, full, on_all_cores, seed};

/// Cases of each way that run by default; `LIFEBOAT_DAMAGE=full` runs all.
const SAMPLE: usize = 60;

/// What was done to the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    /// Under the name of one object lie the bytes of another.
    Exchanged,
    /// The bytes of an object lie under a further name, of each kind, that carries their hash.
    Renamed,
    /// An object is made of the parts of two.
    Spliced,
    /// An object that was deleted is back.
    Replayed,
    /// Of all objects of a kind there are those that there were.
    RolledBack,
}

struct Case {
    way: Way,
    what: String,
    /// What is put, and what is deleted.
    changes: Vec<(String, Option<Bytes>)>,
    /// The bytes, or the rules for them, are of the kind that the name is of.
    alike: bool,
}

impl Case {
    fn put(way: Way, what: String, key: String, bytes: Bytes) -> Self {
        Self { way, what, changes: vec![(key, Some(bytes))], alike: false }
    }

    fn on(&self, objects: &Objects) -> Objects {
        let mut objects = objects.clone();
        for (key, bytes) in &self.changes {
            match bytes {
                Some(bytes) => drop(objects.insert(key.clone(), bytes.clone())),
                None => drop(objects.remove(key)),
            }
        }
        objects
    }
}

/// What tells kinds apart in a name: its prefix, and whether it is a confirmation.
fn kind(key: &str) -> String {
    let mut parts: Vec<&str> = key.split('/').collect();
    parts.truncate(if parts[0] == "gc" { 2 } else { 1 });
    parts.join("/") + if key.ends_with(".ok") { ".ok" } else { "/" }
}

/// The keys of these objects by kind.
fn kinds(objects: &Objects) -> BTreeMap<String, Vec<&String>> {
    let mut kinds: BTreeMap<String, Vec<&String>> = BTreeMap::new();
    for key in objects.keys() {
        kinds.entry(kind(key)).or_default().push(key);
    }
    kinds
}

/// Objects with what they are called in a message: two of each kind here, one of each kind of the other repository.
fn sources<'a>(story: &'a Story, other: &'a Story) -> Vec<(String, &'a String, &'a Bytes)> {
    let of = |objects: &'a Objects, whose: &'static str, most: usize| {
        let chosen = kinds(objects).into_values().flat_map(move |keys| keys.into_iter().take(most));
        chosen.map(move |key| (format!("{whose}{key}"), key, &objects[key]))
    };
    of(&story.now, "", 2).chain(of(&other.now, "another repository's ", 1)).collect()
}

fn exchanged(story: &Story, other: &Story) -> Vec<Case> {
    let mut cases = Vec::new();
    for keys in kinds(&story.now).into_values() {
        for (whose, from, bytes) in sources(story, other) {
            if story.now[keys[0]] != *bytes {
                let what = format!("{} holds {whose}", keys[0]);
                let case = Case::put(Way::Exchanged, what, keys[0].clone(), bytes.clone());
                cases.push(Case { alike: kind(from) == kind(keys[0]), ..case });
            }
        }
    }
    cases
}

/// Every name that bytes of this hash could have here.
fn names(story: &Story, hash: ObjectHash) -> Vec<ObjectName> {
    let (writers, snapshots) = story.named();
    let id = SnapshotId::from(hash);
    let mut names = vec![
        ObjectName::KeySlot(hash),
        ObjectName::Pack(PackId::new(*hash.as_bytes())),
        ObjectName::Condemned(hash),
        ObjectName::Removed(hash),
        ObjectName::Undone(hash),
        ObjectName::Trimmed(hash),
        ObjectName::Hold(hash),
        ObjectName::Anchor(hash),
        ObjectName::Verified(hash),
    ];
    for number in [0, 1, 2, 9] {
        names.extend([ObjectName::Config(number, hash), ObjectName::Horizon(number, hash)]);
    }
    for writer in writers.into_iter().chain([WriterId::new([9; 16])]) {
        names.push(ObjectName::Index(writer, hash));
        for number in [0, 1, 2, 9] {
            names.push(ObjectName::Writer(writer, number, hash));
            names.push(ObjectName::Snapshot(writer, number, id));
            names.push(ObjectName::Confirmation(writer, number, id));
        }
    }
    for snapshot in snapshots {
        names.extend([ObjectName::Tomb(snapshot, hash), ObjectName::Labels(snapshot, hash)]);
    }
    names
}

fn renamed(story: &Story, other: &Story) -> Vec<Case> {
    let mut cases = Vec::new();
    for (whose, from, bytes) in sources(story, other) {
        for name in names(story, object_hash(bytes)) {
            let key = name.key();
            if story.now.get(&key) != Some(bytes) {
                let alike = kind(from) == kind(&key);
                let case = Case::put(Way::Renamed, format!("{whose} as {key}"), key, bytes.clone());
                cases.push(Case { alike, ..case });
            }
        }
    }
    cases
}

/// Where the parts of an object begin, but for the first.
fn parts(story: &Story, key: &str, bytes: &[u8]) -> Vec<usize> {
    let number = |at: usize, len: usize| {
        let number = |number, byte: &u8| number << 8 | usize::from(*byte);
        bytes[at..at + len].iter().rev().fold(0, number)
    };
    // What is sealed: salt, data key, body, and the signature behind them.
    let sealed = |salt: usize| {
        let body = salt + 34 + number(salt + 32, 2);
        [salt, salt + 32, body, body + 4 + number(body, 4)]
    };
    match ObjectName::parse(key).unwrap() {
        ObjectName::Pack(_) => story.parts[key].clone(),
        ObjectName::KeySlot(_) => (32..bytes.len()).step_by(48).collect(),
        ObjectName::Index(..) => {
            let blocks = 72 + number(68, 4);
            vec![32, 64, 68, 72, blocks, usize::midpoint(blocks, bytes.len())]
        }
        ObjectName::Snapshot(..) => [32, 48].into_iter().chain(sealed(56)).collect(),
        ObjectName::Labels(..) => [32].into_iter().chain(sealed(48)).collect(),
        _ => vec![32, 36, 36 + number(32, 4)],
    }
}

/// The same name for other bytes.
fn with_hash(name: ObjectName, hash: ObjectHash) -> ObjectName {
    match name {
        ObjectName::Config(number, _) => ObjectName::Config(number, hash),
        ObjectName::KeySlot(_) => ObjectName::KeySlot(hash),
        ObjectName::Writer(writer, number, _) => ObjectName::Writer(writer, number, hash),
        ObjectName::Pack(_) => ObjectName::Pack(PackId::new(*hash.as_bytes())),
        ObjectName::Index(writer, _) => ObjectName::Index(writer, hash),
        ObjectName::Snapshot(writer, number, _) => ObjectName::Snapshot(writer, number, hash.into()),
        ObjectName::Confirmation(..) => name,
        ObjectName::Condemned(_) => ObjectName::Condemned(hash),
        ObjectName::Horizon(number, _) => ObjectName::Horizon(number, hash),
        ObjectName::Removed(_) => ObjectName::Removed(hash),
        ObjectName::Undone(_) => ObjectName::Undone(hash),
        ObjectName::Trimmed(_) => ObjectName::Trimmed(hash),
        ObjectName::Tomb(snapshot, _) => ObjectName::Tomb(snapshot, hash),
        ObjectName::Hold(_) => ObjectName::Hold(hash),
        ObjectName::Labels(snapshot, _) => ObjectName::Labels(snapshot, hash),
        ObjectName::Anchor(_) => ObjectName::Anchor(hash),
        ObjectName::Verified(_) => ObjectName::Verified(hash),
        ObjectName::Cluster(cluster, number, _) => ObjectName::Cluster(cluster, number, hash),
        ObjectName::Log(log) => ObjectName::Log(LogName { hash, ..log }),
    }
}

/// Everything that the parts of two objects of one kind make: one from some part on, or in one part only, the other.
fn splices(one: (&[u8], &[usize]), other: (&[u8], &[usize])) -> Vec<(String, Bytes)> {
    let ends = |(bytes, parts): (&[u8], &[usize])| [parts, &[bytes.len()]].concat();
    let (left, right) = (ends(one), ends(other));
    let mut made = Vec::new();
    for at in 0..left.len().min(right.len()) - 1 {
        let tail = [&one.0[..left[at]], &other.0[right[at]..]].concat();
        let inside = &other.0[right[at]..right[at + 1]];
        let part = [&one.0[..left[at]], inside, &one.0[left[at + 1]..]].concat();
        made.push((format!("from part {at} on"), tail.into()));
        made.push((format!("in part {at}"), part.into()));
    }
    let head = [&other.0[..right[0]], &one.0[left[0]..]].concat();
    made.push(("before its first part".to_owned(), head.into()));
    made.retain(|(_, bytes): &(String, Bytes)| bytes != one.0 && bytes != other.0);
    made
}

fn spliced(story: &Story, other: &Story) -> Vec<Case> {
    let mut cases = Vec::new();
    let theirs = kinds(&other.now);
    for (kind, keys) in kinds(&story.now) {
        let few = &keys[..keys.len().min(3)];
        for key in few {
            let mine = &story.now[*key];
            let same = few.iter().filter(|with| *with != key).map(|with| (story, *with));
            for (of, with) in same.chain([(other, theirs[&kind][0])]) {
                let bytes = &of.now[with];
                let made = splices((mine, &parts(story, key, mine)), (bytes, &parts(of, with, bytes)));
                for (how, bytes) in made {
                    let what = format!("{key} is {how} {with}");
                    let name = with_hash(ObjectName::parse(key).unwrap(), object_hash(&bytes));
                    if kind == "packs/" {
                        // Readers ask for ranges, and do not see the hash of the whole.
                        let (what, key) = (format!("{what}, in place"), (*key).clone());
                        let case = Case::put(Way::Spliced, what, key, bytes.clone());
                        cases.push(Case { alike: true, ..case });
                    }
                    cases.push(Case::put(Way::Spliced, what, name.key(), bytes));
                }
            }
        }
    }
    cases
}

fn replayed(story: &Story) -> Vec<Case> {
    let back = |what: String, keys: Vec<&String>| {
        let changes = keys.into_iter().map(|key| (key.clone(), Some(story.gone[key].clone()))).collect();
        Case { way: Way::Replayed, what, changes, alike: true }
    };
    let mut cases = vec![back("all that is gone is back".to_owned(), story.gone.keys().collect())];
    for (kind, keys) in kinds(&story.gone) {
        cases.extend(keys.iter().map(|key| back(format!("{key} is back"), vec![key])));
        cases.push(back(format!("all of {kind} is back"), keys));
    }
    cases
}

fn rolled_back(story: &Story) -> Vec<Case> {
    let mut cases = Vec::new();
    let mut all: Vec<String> = kinds(&story.now).into_keys().collect();
    all.push(String::new());
    for (time, before) in story.before.iter().enumerate() {
        for kind in &all {
            let is = |key: &&String| kind.is_empty() || self::kind(key) == *kind;
            let gone = story.now.keys().filter(is).map(|key| (key.clone(), None));
            let then = before.iter().filter(|(key, _)| is(key));
            let changes = gone.chain(then.map(|(key, bytes)| (key.clone(), Some(bytes.clone())))).collect();
            let what = format!("all of '{kind}' as it was at time {time}");
            cases.push(Case { way: Way::RolledBack, what, changes, alike: true });
        }
    }
    cases
}

/// What a person sees of a snapshot: confirmed, forgotten, held, tags.
type Shown = (bool, bool, bool, Vec<String>);

/// What a person sees.
#[derive(Debug, Clone, PartialEq, Eq)]
struct View {
    snapshots: BTreeMap<SnapshotId, Shown>,
    revoked: BTreeSet<WriterId>,
}

/// What the store shows; with how many snapshots and labels could not be read. None if that is an error.
async fn view(repo: &Repository) -> Option<(View, Vec<SnapshotInfo>, usize)> {
    let listed = list(repo, &SnapshotFilter::default()).await.ok()?;
    let holds = list_holds(repo).await.ok()?;
    let held = |id| holds.iter().any(|info| info.stands && info.stored.hold.snapshots.contains(&id));
    let shown = |info: &SnapshotInfo| {
        let tags = info.snapshot.tags.clone();
        (info.id, (info.confirmed, info.forgotten.is_some(), held(info.id), tags))
    };
    let snapshots = listed.snapshots.iter().map(shown).collect();
    let revoked = repo.writers().into_iter().filter(|writer| writer.revoked.is_some());
    let revoked = revoked.map(|writer| writer.id).collect();
    Some((View { snapshots, revoked }, listed.snapshots, listed.unreadable.len()))
}

/// Whether a snapshot is restored whole; what is restored of it is never anything else.
async fn restores(repo: &Repository, story: &Story, info: &SnapshotInfo, what: &str) -> bool {
    let good = story.made.get(&info.id).unwrap_or_else(|| panic!("{what}: nobody made {}", info.id));
    let place = tempfile::tempdir().unwrap();
    let target = place.path().join("restored");
    let path = story.saved().as_os_str().as_encoded_bytes().to_vec();
    let summary = restore(repo, RestoreOptions::new(info.clone(), path, target.clone())).await;
    let found = contents(&target);
    for (path, content) in &found {
        assert!(good.get(path) == Some(content), "{what}: {} has other content", path.display());
    }
    let clean = summary.is_ok_and(|summary| summary.failed == 0 && summary.damaged_count == 0);
    assert!(!clean || found == *good, "{what}: a restore called itself whole and is not");
    clean
}

/// How a case ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    /// The repository does not open, or cannot be verified.
    Refused,
    /// The verification names something, or the anchor is not fulfilled.
    Found,
    /// Everything is as if nothing had been done.
    Harmless,
}

/// What only the store's word stands for (`docs/threat-model.md`): that such an object is there no more.
const UNSEEN: [&str; 4] = ["gc/undone/", "holds/", "labels/", "tombs/"];

async fn judge(story: &Story, normal: &View, case: &Case) -> Outcome {
    let (what, objects) = (&case.what, case.on(&story.now));
    let store = story.store(&objects).await;
    let repo = match story.open(&store).await {
        Ok(repo) => repo,
        Err(error) => {
            assert!(!matches!(error, RepoError::Task), "{what}: {error}");
            return Outcome::Refused;
        }
    };
    let anchored = require(&repo, story.anchor).await.is_ok();
    let findings = verify(&repo, Depth::Data).await.map(|report| report.findings);
    let quiet = findings.as_ref().is_ok_and(Vec::is_empty);
    let noticed = !quiet || !anchored;
    let Some((seen, infos, unreadable)) = view(&repo).await else {
        assert!(noticed, "{what}: nothing can be listed, and a verification has nothing to say");
        return Outcome::Refused;
    };
    let lost = normal.snapshots.keys().find(|id| !seen.snapshots.contains_key(id));
    assert!(lost.is_none() || noticed, "{what}: {lost:?} is gone without a word");
    if anchored && let Ok(latest) = resolve(&repo, "latest", &SnapshotFilter::default()).await {
        assert_eq!(latest.id, story.last, "{what}: another snapshot stands in for the newest");
    }
    if !noticed {
        assert_eq!(unreadable, 0, "{what}: a verification does not say what a list does");
        let unseen = case.way == Way::RolledBack && UNSEEN.iter().any(|kind| what.contains(kind));
        let more = case.way == Way::Replayed;
        let same = |id: &SnapshotId| normal.snapshots.get(id) == seen.snapshots.get(id);
        assert!(unseen || normal.snapshots.keys().all(same), "{what}: {seen:#?} instead of {normal:#?}");
        assert!(unseen || more || seen == *normal, "{what}: {seen:#?} instead of {normal:#?}");
    }
    let mut whole = BTreeSet::new();
    // The newest, and another one in each case.
    let other = dice(seed(), what, 1) % infos.len().max(1);
    let chosen = infos.iter().enumerate().filter(|(at, info)| *at == other || info.id == story.last);
    for (_, info) in chosen {
        if restores(&repo, story, info, what).await {
            whole.insert(info.id);
        } else {
            assert!(noticed, "{what}: {} is not restored, and a verification has nothing to say", info.id);
        }
    }
    collects(story, &store, (whole, what)).await;
    match (findings, noticed) {
        (Err(_), _) => Outcome::Refused,
        (_, true) => Outcome::Found,
        _ => Outcome::Harmless,
    }
}

/// A collection takes nothing away that could be restored before it, whatever it is told.
async fn collects(story: &Story, store: &Store, (whole, what): (BTreeSet<SnapshotId>, &str)) {
    let Ok(repo) = story.open(store).await else { return };
    let done = prune(&repo, &NOW).await;
    let repo = story.open(store).await.unwrap_or_else(|error| panic!("{what}: {error}"));
    let Some((_, infos, _)) = view(&repo).await else {
        panic!("{what}: nothing can be listed after a collection, which said {done:?}")
    };
    for id in whole.into_iter().filter(|id| story.now.keys().any(|key| key.contains(&id.to_string()))) {
        let Some(info) = infos.iter().find(|info| info.id == id) else {
            panic!("{what}: a collection removed {id}, and said {done:?}")
        };
        assert!(restores(&repo, story, info, what).await, "{what}: a collection spoilt {id}: {done:?}");
    }
}

#[test]
fn nothing_in_the_place_of_something_else_is_believed() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (story, other) = runtime.block_on(async { (Story::tell(1).await, Story::tell(101).await) });
    let (kinds_here, kinds_gone) = (kinds(&story.now), kinds(&story.gone));
    assert_eq!(kinds_here.len(), 15, "{:?}", kinds_here.keys());
    for (kind, keys) in &kinds_here {
        // There is one configuration, and two of everything else.
        assert!(keys.len() > 1 || kind == "config/", "{kind}: {keys:?}");
    }
    for kind in ["gc/condemned/", "holds/", "index/", "keys/", "packs/", "snapshots/", "snapshots.ok"] {
        assert!(kinds_gone.contains_key(kind), "{kind}: {:?}", kinds_gone.keys());
    }
    let normal = runtime.block_on(async {
        let repo = story.open(&story.store(&story.now).await).await.unwrap();
        view(&repo).await.unwrap().0
    });
    let ways = [
        exchanged(&story, &other),
        renamed(&story, &other),
        spliced(&story, &other),
        replayed(&story),
        rolled_back(&story),
    ];
    let untouched = Case { way: Way::Replayed, what: "untouched".into(), changes: Vec::new(), alike: true };
    assert_eq!(runtime.block_on(judge(&story, &normal, &untouched)), Outcome::Harmless);
    let mut cases = Vec::new();
    for mut way in ways {
        // Those where the kinds are alike come first, and the same sample runs each time.
        way.sort_by_key(|case| (!case.alike, dice(seed(), &case.what, 0)));
        let all = way.len();
        if !full() {
            way.truncate(SAMPLE.max(way.iter().filter(|case| case.alike).count()));
        }
        println!("{:?}: {} of {all} cases", way[0].way, way.len());
        cases.extend(way);
    }
    let counts = Mutex::new(BTreeMap::<(Way, Outcome), usize>::new());
    on_all_cores(cases.len(), |runtime, number| {
        let case = &cases[number];
        let judged = async { tokio::time::timeout(LIMIT, judge(&story, &normal, case)).await };
        let outcome = runtime.block_on(judged).unwrap_or_else(|_| panic!("{}: no end", case.what));
        if outcome == Outcome::Harmless {
            println!("harmless: {}", case.what);
        }
        *counts.lock().unwrap().entry((case.way, outcome)).or_default() += 1;
    });
    println!("{:?}", counts.into_inner().unwrap());
}
