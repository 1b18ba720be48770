//! Listing snapshots, and finding the one a person means.
//!
//! # Invariants
//! A snapshot that cannot be read is reported beside the others and hides none of them. `latest` and times pick
//! confirmed snapshots that nobody forgot, by the store's clock, and the confirmation's signature is checked before one is
//! handed out. Tags are those in effect: the labels that count, or what the snapshot says.
//!
//! # Must not
//! Believe the local cache more than the store: what is listed comes from the store, only the bodies from the cache.

mod cache;
mod marks;
mod selector;

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;

use futures::StreamExt;

use self::cache::BodyCache;
use crate::class::Class;
use crate::clock::Timestamp;
use crate::error::Error;
use crate::format::layout::ObjectName;
use crate::format::snapshot::Snapshot;
use crate::id::{SnapshotId, WriterId};
use crate::repo::{LabelsRank, Listed, RepoError, Repository, StoredTomb};

pub use self::marks::check_confirmations;
pub(super) use self::selector::Selector;
pub use self::selector::parse_time;

/// A snapshot, read and verified, and what the listing says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotInfo {
    /// Its name.
    pub id: SnapshotId,
    /// Who wrote it.
    pub writer: WriterId,
    /// Its number among the writer's snapshots.
    pub sequence: u64,
    /// Whether a confirmation stands beside it.
    pub confirmed: bool,
    /// When the store got it, on the store's clock.
    pub stored: Timestamp,
    /// The tomb that stands for it: it is forgotten, and will be removed.
    pub forgotten: Option<StoredTomb>,
    /// The labels that its tags come from, if not from itself.
    pub labels: Option<LabelsRank>,
    /// What it says, with the tags that are in effect.
    pub snapshot: Snapshot,
}

/// Which snapshots count. What is empty does not restrict.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SnapshotFilter {
    /// Made on any of these machines.
    pub hosts: Vec<String>,
    /// Of any of these jobs.
    pub jobs: Vec<String>,
    /// With all of these tags; `key` is also met by `key=value`.
    pub tags: Vec<String>,
    /// Made of all of these sources, as they were given.
    pub paths: Vec<PathBuf>,
}

/// What [`list`] found.
#[derive(Debug, Default)]
pub struct SnapshotList {
    /// Oldest first, by the store's clock.
    pub snapshots: Vec<SnapshotInfo>,
    /// Snapshots and labels that are there and could not be read, by key.
    pub unreadable: Vec<(String, Error)>,
}

impl SnapshotFilter {
    /// Whether every snapshot counts.
    pub fn is_empty(&self) -> bool {
        self.hosts.is_empty() && self.jobs.is_empty() && self.tags.is_empty() && self.paths.is_empty()
    }

    /// Whether this one counts.
    pub fn matches(&self, snapshot: &Snapshot) -> bool {
        let any = |wanted: &[String], found: &[u8]| {
            wanted.is_empty() || wanted.iter().any(|wanted| wanted.as_bytes() == found)
        };
        let tagged = |wanted: &String| {
            snapshot.tags.iter().any(|tag| {
                tag.strip_prefix(wanted.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('='))
            })
        };
        let of_path = |wanted: &PathBuf| {
            let wanted = wanted.as_os_str().as_encoded_bytes();
            snapshot.paths.iter().any(|path| path == wanted)
        };
        any(&self.hosts, &snapshot.host)
            && any(&self.jobs, &snapshot.job)
            && self.tags.iter().all(tagged)
            && self.paths.iter().all(of_path)
    }
}

impl SnapshotInfo {
    fn new(listed: Listed, snapshot: Snapshot) -> Self {
        let Listed { writer, sequence, id, confirmed, stored } = listed;
        Self { id, writer, sequence, confirmed, stored, forgotten: None, labels: None, snapshot }
    }
}

/// All snapshots that match, confirmed or not, forgotten or not. Snapshots known from an earlier run come from the local cache, the others
/// are read [`crate::repo::Limits::requests`] at a time.
pub async fn list(repo: &Repository, filter: &SnapshotFilter) -> Result<SnapshotList, Error> {
    let mut found = SnapshotList::default();
    let listed = listed(repo).await?;
    let mut cache = BodyCache::open(repo);
    let mut unknown = Vec::new();
    for listed in &listed {
        match cache.get(listed) {
            Some(snapshot) => found.snapshots.push(SnapshotInfo::new(*listed, snapshot)),
            None => unknown.push(*listed),
        }
    }
    let mut reads = futures::stream::iter(unknown)
        .map(|listed| async move { (listed, repo.read_snapshot(listed).await) })
        .buffer_unordered(repo.env().limits.requests.max(1));
    while let Some((listed, read)) = reads.next().await {
        if repo.env().cancel.is_raised() {
            return Err(Error::Cancelled);
        }
        match read {
            Ok(stored) => {
                cache.add(&listed, &stored.snapshot);
                found.snapshots.push(SnapshotInfo::new(listed, stored.snapshot));
            }
            // Removed since it was listed.
            Err(RepoError::Store(error)) if error.is_not_found() => {}
            Err(error) if is_fatal(&error) => return Err(error.into()),
            Err(error) => found.unreadable.push((key(&listed), error.into())),
        }
    }
    drop(reads);
    marks::apply(repo, &mut found, &mut cache).await?;
    found.snapshots.retain(|info| filter.matches(&info.snapshot));
    found.snapshots.sort_unstable_by_key(|info| (info.stored, info.writer, info.sequence, info.id));
    found.unreadable.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    Ok(found)
}

/// The snapshot that a selector means: an id or the beginning of one, `latest`, `latest~2` for the third newest, or
/// `@2026-03-01T14:00` for the newest that the store had at that time (a date alone includes the whole day; without `Z` or
/// an offset the machine's time zone counts). An id is found whether it matches the filter or not, and whether the snapshot
/// is forgotten or not, as long as it is there; the others pass by what is forgotten.
///
/// # Errors
/// [`Error::BadSelector`], [`Error::NoSnapshot`], [`Error::AmbiguousSnapshot`].
pub async fn resolve(
    repo: &Repository,
    selector: &str,
    filter: &SnapshotFilter,
) -> Result<SnapshotInfo, Error> {
    let bad = || Error::BadSelector { selector: selector.to_owned() };
    let none = || Error::NoSnapshot { selector: selector.to_owned() };
    let (not_after, back) = match Selector::parse(selector).ok_or_else(bad)? {
        Selector::Id(prefix) => return by_id(repo, selector, &prefix).await,
        Selector::Latest(back) => (None, back),
        Selector::NotAfter(time) => (Some(time), 0),
    };
    let mut candidates = if filter.is_empty() {
        standing(repo).await?
    } else {
        let list = list(repo, filter).await?;
        let standing = list.snapshots.iter().filter(|info| info.forgotten.is_none());
        standing.map(SnapshotInfo::listed).collect()
    };
    candidates.retain(|listed| listed.confirmed && not_after.is_none_or(|time| listed.stored <= time));
    candidates.sort_unstable_by_key(|listed| (listed.stored, listed.writer, listed.sequence, listed.id));
    let mut left = back;
    for listed in candidates.into_iter().rev() {
        // A confirmation that nobody entitled has signed is none.
        match repo.check_confirmation(listed).await {
            Ok(()) if left == 0 => return read(repo, listed).await,
            Ok(()) => left -= 1,
            Err(error) if is_fatal(&error) => return Err(error.into()),
            Err(_) => {}
        }
    }
    Err(none())
}

/// The snapshots that selectors mean, each once, in the order of the selectors; as [`resolve`], with one look at the store.
///
/// # Errors
/// As [`resolve`]; what is wrong with a snapshot that is named by its id and cannot be read.
pub async fn resolve_all(
    repo: &Repository,
    selectors: &[String],
    filter: &SnapshotFilter,
) -> Result<Vec<SnapshotInfo>, Error> {
    let mut all = list(repo, &SnapshotFilter::default()).await?;
    if selectors.iter().any(|selector| !matches!(Selector::parse(selector), Some(Selector::Id(_)))) {
        check_confirmations(repo, &mut all.snapshots).await?;
    }
    resolve_in(&mut all, selectors, filter)
}

/// As [`resolve_all`], of snapshots that were listed already and whose confirmations are checked.
pub(super) fn resolve_in(
    all: &mut SnapshotList,
    selectors: &[String],
    filter: &SnapshotFilter,
) -> Result<Vec<SnapshotInfo>, Error> {
    let mut found: Vec<SnapshotInfo> = Vec::new();
    for selector in selectors {
        let info = pick(all, selector, filter)?;
        if found.iter().all(|known| known.id != info.id) {
            found.push(info);
        }
    }
    Ok(found)
}

/// The snapshot that a selector means; confirmations are checked already.
fn pick(all: &mut SnapshotList, selector: &str, filter: &SnapshotFilter) -> Result<SnapshotInfo, Error> {
    let none = || Error::NoSnapshot { selector: selector.to_owned() };
    let (not_after, back) = match Selector::parse(selector) {
        None => return Err(Error::BadSelector { selector: selector.to_owned() }),
        Some(Selector::Id(prefix)) => {
            let matching: Vec<_> =
                all.snapshots.iter().filter(|info| info.id.to_string().starts_with(&prefix)).collect();
            return match matching[..] {
                [info] => Ok(info.clone()),
                [] => match all.unreadable.iter().position(|(key, _)| is_named(key, &prefix)) {
                    Some(at) => Err(all.unreadable.swap_remove(at).1),
                    None => Err(none()),
                },
                _ => Err(Error::AmbiguousSnapshot { selector: selector.to_owned(), count: matching.len() }),
            };
        }
        Some(Selector::Latest(back)) => (None, back),
        Some(Selector::NotAfter(time)) => (Some(time), 0),
    };
    let counts = |info: &&SnapshotInfo| {
        info.confirmed
            && info.forgotten.is_none()
            && not_after.is_none_or(|time| info.stored <= time)
            && filter.matches(&info.snapshot)
    };
    all.snapshots.iter().rev().filter(counts).nth(back).cloned().ok_or_else(none)
}

/// Whether this key is of a snapshot whose id begins so.
fn is_named(key: &str, prefix: &str) -> bool {
    match ObjectName::parse(key) {
        Some(ObjectName::Snapshot(_, _, id)) => id.to_string().starts_with(prefix),
        _ => false,
    }
}

impl SnapshotInfo {
    /// Its name.
    pub fn listed(&self) -> Listed {
        let Self { id, writer, sequence, confirmed, stored, .. } = *self;
        Listed { writer, sequence, id, confirmed, stored }
    }
}

async fn by_id(repo: &Repository, selector: &str, prefix: &str) -> Result<SnapshotInfo, Error> {
    let mut matching: Vec<_> = listed(repo).await?;
    matching.retain(|listed| listed.id.to_string().starts_with(prefix));
    if matching.len() > 1 {
        matching = without_copies(repo, matching).await?;
    }
    match matching[..] {
        [] => Err(Error::NoSnapshot { selector: selector.to_owned() }),
        [listed] => read(repo, listed).await,
        _ => Err(Error::AmbiguousSnapshot { selector: selector.to_owned(), count: matching.len() }),
    }
}

/// Of a snapshot that has several names the one under which it really stands: anybody who may put objects can put a name
/// beside it. What cannot be read under any keeps one, so that whoever asks for it is told why.
async fn without_copies(repo: &Repository, matching: Vec<Listed>) -> Result<Vec<Listed>, Error> {
    let mut names: HashMap<SnapshotId, usize> = HashMap::new();
    for listed in &matching {
        *names.entry(listed.id).or_default() += 1;
    }
    let is_single = |listed: &Listed| names.get(&listed.id) == Some(&1);
    let (mut good, several): (Vec<_>, Vec<_>) = matching.into_iter().partition(is_single);
    let mut reads = futures::stream::iter(several)
        .map(|listed| async move { (listed, repo.read_snapshot(listed).await) })
        .buffered(repo.env().limits.requests.max(1));
    let mut bad = Vec::new();
    while let Some((listed, read)) = reads.next().await {
        match read {
            Ok(_) => good.push(listed),
            Err(error) if is_fatal(&error) => return Err(error.into()),
            Err(_) => bad.push(listed),
        }
    }
    let mut found: HashSet<SnapshotId> = good.iter().map(|listed| listed.id).collect();
    good.extend(bad.into_iter().filter(|listed| found.insert(listed.id)));
    Ok(good)
}

/// Reads one snapshot, from the cache if it is there.
async fn read(repo: &Repository, listed: Listed) -> Result<SnapshotInfo, Error> {
    let mut cache = BodyCache::open(repo);
    let snapshot = match cache.get(&listed) {
        Some(snapshot) => snapshot,
        None => repo.read_snapshot(listed).await?.snapshot,
    };
    let mut found =
        SnapshotList { snapshots: vec![SnapshotInfo::new(listed, snapshot)], ..SnapshotList::default() };
    marks::read(repo, &mut found, &mut cache).await?;
    found.snapshots.pop().ok_or(Error::NoSnapshot { selector: listed.id.to_string() })
}

/// All snapshots that nobody forgot, by name.
async fn standing(repo: &Repository) -> Result<Vec<Listed>, Error> {
    let mut listed = listed(repo).await?;
    let tombs = repo.standing_tombs(&listed.iter().map(|listed| listed.id).collect()).await?;
    listed.retain(|listed| !tombs.contains_key(&listed.id));
    Ok(listed)
}

/// All snapshots by name.
async fn listed(repo: &Repository) -> Result<Vec<Listed>, Error> {
    Ok(repo.list_snapshots().await?)
}

fn key(listed: &Listed) -> String {
    ObjectName::Snapshot(listed.writer, listed.sequence, listed.id).key()
}

/// Whether a failure concerns the store or the key as a whole and not one object.
fn is_fatal(error: &RepoError) -> bool {
    match error {
        RepoError::RoleForbids { .. } | RepoError::Cancelled => true,
        RepoError::Store(error) => !matches!(error.class(), Class::Failed | Class::Damage),
        _ => false,
    }
}

#[cfg(test)]
mod names;
#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use object_store::memory::InMemory;

    use super::*;
    use crate::format::gc::TombReason;
    use crate::ops::testing::{env, new_repository, put_snapshot as put};
    use crate::store::fault::{FaultStore, OpKind};

    fn filter(host: &str) -> SnapshotFilter {
        SnapshotFilter { hosts: vec![host.into()], ..SnapshotFilter::default() }
    }

    #[tokio::test]
    async fn selectors_find_the_snapshot_a_person_means() {
        let repo = new_repository(Arc::new(InMemory::new()), env()).await;
        let all = SnapshotFilter::default();
        assert!(matches!(resolve(&repo, "latest", &all).await, Err(Error::NoSnapshot { .. })));
        let mut ids = Vec::new();
        for n in 0..20 {
            let host = if n % 5 == 0 { "two" } else { "one" };
            ids.push(put(&repo, n, |s| s.host = host.into()).await);
        }
        // Stored, but its writer never came to confirm it.
        let unconfirmed = Snapshot { host: b"two".to_vec(), ..Snapshot::empty() };
        let last = repo.put_snapshot(20, &unconfirmed, &repo.new_run_keys().unwrap()).await.unwrap();

        let found = |text: &'static str, filter: SnapshotFilter| {
            let repo = &repo;
            async move { resolve(repo, text, &filter).await.map(|info| info.id).map_err(|e| e.to_string()) }
        };
        assert_eq!(found("latest", all.clone()).await, Ok(ids[19]));
        assert_eq!(found("latest~3", all.clone()).await, Ok(ids[16]));
        assert_eq!(found("latest", filter("two")).await, Ok(ids[15]));
        assert_eq!(found("latest~1", filter("two")).await, Ok(ids[10]));
        assert!(found("latest~20", all.clone()).await.is_err());
        assert_eq!(found("@2100-01-01", all.clone()).await, Ok(ids[19]));
        assert!(found("@2000-01-01", all.clone()).await.is_err());
        let by_id = resolve(&repo, &last.to_string()[..12], &filter("one")).await.unwrap();
        assert!(by_id.id == last && !by_id.confirmed);
        let tomb = |n: usize| repo.put_tomb((repo.writer().unwrap().0, n as u64, ids[n]), TombReason::Named);
        tomb(19).await.unwrap();
        let undone = tomb(16).await.unwrap();
        repo.put_undo(vec![undone]).await.unwrap();
        assert_eq!(found("latest", all.clone()).await, Ok(ids[18]), "what is forgotten is passed by");
        assert_eq!(found("latest~2", all.clone()).await, Ok(ids[16]), "what is back counts");
        assert_eq!(found("latest~3", filter("one")).await, Ok(ids[14]));
        assert_eq!(found("@2100-01-01", all.clone()).await, Ok(ids[18]));
        let forgotten = resolve(&repo, &ids[19].to_string(), &all).await.unwrap();
        assert!(
            forgotten.id == ids[19] && forgotten.forgotten.is_some(),
            "an id is found until it is removed"
        );
        let selectors = ["latest", "@2100-01-01", "latest~2", &ids[19].to_string()].map(str::to_owned);
        let several = resolve_all(&repo, &selectors, &all).await.unwrap();
        assert!(several.iter().map(|info| info.id).eq([ids[18], ids[16], ids[19]]), "each once");
        let ambiguous = (0..16).find(|n| ids.iter().filter(|id| id.as_bytes()[0] >> 4 == *n).count() > 1);
        let ambiguous = format!("{:x}", ambiguous.unwrap());
        assert!(matches!(resolve(&repo, &ambiguous, &all).await, Err(Error::AmbiguousSnapshot { .. })));
        assert!(matches!(resolve(&repo, "newest", &all).await, Err(Error::BadSelector { .. })));
    }

    #[tokio::test]
    async fn a_confirmation_that_is_not_signed_does_not_make_a_snapshot_the_latest() {
        let repo = new_repository(Arc::new(InMemory::new()), env()).await;
        let good = put(&repo, 0, |_| {}).await;
        let late = repo.put_snapshot(1, &Snapshot::empty(), &repo.new_run_keys().unwrap()).await.unwrap();
        let name = ObjectName::Confirmation(repo.writer().unwrap().0, 1, late).key();
        repo.store().put(&crate::store::Key::new(name).unwrap(), vec!["forged".into()]).await.unwrap();
        let found = resolve(&repo, "latest", &SnapshotFilter::default()).await.unwrap();
        assert_eq!(found.id, good);
    }

    #[tokio::test]
    async fn what_cannot_be_read_is_reported_and_hides_nothing() {
        let repo = new_repository(Arc::new(InMemory::new()), env()).await;
        let good = put(&repo, 0, |s| s.tags = vec!["db=main".into(), "weekly".into()]).await;
        let name = ObjectName::Snapshot(repo.writer().unwrap().0, 7, SnapshotId::new([7; 32])).key();
        repo.store().put(&crate::store::Key::new(name.clone()).unwrap(), vec!["junk".into()]).await.unwrap();
        let tags = |tags: &[&str]| SnapshotFilter {
            tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
            ..SnapshotFilter::default()
        };
        for (wanted, count) in
            [(vec![], 1), (vec!["db"], 1), (vec!["db=main", "weekly"], 1), (vec!["db=m"], 0)]
        {
            let found = list(&repo, &tags(&wanted)).await.unwrap();
            assert_eq!(found.snapshots.len(), count, "{wanted:?}");
            assert!(found.snapshots.iter().all(|info| info.id == good));
            assert_eq!(found.unreadable.len(), 1);
            assert_eq!(found.unreadable[0].0, name);
        }
    }

    #[tokio::test]
    async fn bodies_come_from_the_cache_and_damage_of_it_costs_reading_only() {
        let cache = tempfile::tempdir().unwrap();
        let objects = Arc::new(FaultStore::recording(Arc::new(InMemory::new())));
        let mut env = env();
        env.places.cache = Some(cache.path().to_owned());
        let repo = new_repository(objects.clone(), env).await;
        for n in 0..5 {
            put(&repo, n, |_| {}).await;
        }
        let all = SnapshotFilter::default();
        let file = cache.path().join(repo.id().to_string()).join("snapshots");
        let cold = list(&repo, &all).await.unwrap().snapshots;
        let reads = || objects.take_record().iter().filter(|op| op.kind == OpKind::Get).count();
        assert!(reads() >= 5);
        assert_eq!(list(&repo, &all).await.unwrap().snapshots, cold);
        assert_eq!(reads(), 0, "all bodies are in the cache");
        put(&repo, 5, |_| {}).await;
        reads();
        assert_eq!(list(&repo, &all).await.unwrap().snapshots.len(), 6);
        assert_eq!(reads(), 1, "only the new one is read");
        let whole = std::fs::read(&file).unwrap();
        for damaged in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[damaged] ^= 1;
            if damaged % 7 == 0 {
                bytes.truncate(damaged);
            }
            std::fs::write(&file, bytes).unwrap();
            let found = list(&repo, &all).await.unwrap();
            assert_eq!((found.snapshots.len(), found.unreadable.len()), (6, 0), "byte {damaged}");
        }
        assert_eq!(repo.store().list("snapshots/").await.unwrap().len(), 12);
        reads();
        reads();
        list(&repo, &all).await.unwrap();
        assert_eq!(reads(), 0, "a damaged cache is written anew");
    }

    /// The bar: 10,000 snapshots listed in under 0.3 s from a warm cache (release, one core).
    #[tokio::test]
    #[ignore = "measures; run it in release with --nocapture"]
    async fn ten_thousand_snapshots_are_listed_quickly() {
        let (dir, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut env = env();
        env.places.cache = Some(cache.path().to_owned());
        let objects = object_store::local::LocalFileSystem::new_with_prefix(dir.path()).unwrap();
        let repo = new_repository(Arc::new(objects), env.clone()).await;
        for n in 0..10_000 {
            put(&repo, n, |s| s.paths = vec![b"/etc".to_vec(), b"/home".to_vec()]).await;
        }
        for run in ["cold", "warm", "warm"] {
            let start = env.clock.monotonic();
            let found = list(&repo, &SnapshotFilter::default()).await.unwrap();
            let took = env.clock.monotonic() - start;
            println!("{run}: {} snapshots in {took:?}", found.snapshots.len());
        }
        let start = env.clock.monotonic();
        resolve(&repo, "latest", &SnapshotFilter::default()).await.unwrap();
        println!("latest in {:?}", env.clock.monotonic() - start);
    }
}
