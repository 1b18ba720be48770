//! The first look: every listing, every small object and every index object, read in full.
//!
//! # Invariants
//! Snapshots are listed before index objects, and those before packs, so that a backup that goes on meanwhile is never
//! taken for damage.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use futures::StreamExt;

use super::finding::{BadPack, Finding, Problem, Severity, pack_key};
use super::read::{Asked, is_fatal, problem, twice};
use super::said::Said;
use super::small::{self, Checked};
use crate::clock::Timestamp;
use crate::error::Error;
use crate::format::layout::{self, ObjectName};
use crate::format::pack::PACK_MAX;
use crate::id::{ObjectHash, PackId, SnapshotId};
use crate::index::{Cache, View};
use crate::repo::{Listed, ListedIndex, RepoError, Repository};
use crate::store::{Object, StoreError};

/// Prefixes that are listed first, in no order among each other.
const FIRST: [&str; 12] = [
    layout::CONFIG,
    layout::KEYS,
    layout::WRITERS,
    layout::TOMBS,
    layout::REMOVED,
    layout::UNDONE,
    layout::TRIMMED,
    layout::HOLDS,
    layout::LABELS,
    layout::ANCHORS,
    layout::LEDGER,
    layout::CLUSTERS,
];
/// Prefixes that are listed after those, each after the one before it.
const THEN: [&str; 5] = [layout::SNAPSHOTS, layout::CONDEMNED, layout::HORIZON, layout::INDEX, layout::PACKS];

/// Index objects up to this many bytes together are held in memory and not in the cache.
const IN_MEMORY: u64 = 32 << 20;
/// Bytes of index objects that are on their way at the same time.
const INDEX_BUDGET: u64 = 16 << 20;

/// What is there.
pub(super) struct Survey {
    pub(super) findings: Vec<Finding>,
    pub(super) objects: u64,
    pub(super) bytes: u64,
    /// Confirmed ones first, then in the order of their names.
    pub(super) snapshots: Vec<Root>,
    /// Snapshots that this key does not open.
    pub(super) closed: u64,
    /// Snapshots and index objects as listed.
    pub(super) listing: Vec<ObjectHash>,
    /// Packs as listed, with their sizes, in the order of their names.
    pub(super) packs: Vec<ListedPack>,
    /// What index objects say of each pack.
    pub(super) said: Arc<Said>,
    /// Where chunks are, as far as the packs are there.
    pub(super) view: View,
    /// Where chunks should be.
    pub(super) promised: View,
    /// Packs that are indexed and not there.
    pub(super) bad: HashMap<PackId, BadPack>,
}

/// A pack as it is listed.
#[derive(Debug, Clone, Copy)]
pub(super) struct ListedPack {
    pub(super) id: PackId,
    pub(super) size: u64,
    pub(super) stored: Timestamp,
}

/// A snapshot that could be read.
#[derive(Debug, Clone)]
pub(super) struct Root {
    pub(super) listed: Listed,
    pub(super) tree: Option<crate::format::tree::TreeRef>,
}

/// Names of the snapshots and index objects there are now.
pub(super) async fn listing(repo: &Repository) -> Result<Vec<ObjectHash>, Error> {
    let mut hashes = Vec::new();
    for prefix in [layout::SNAPSHOTS, layout::INDEX] {
        for object in repo.store().list(prefix).await? {
            hashes.extend(ObjectName::parse(object.key.as_str()).and_then(|name| name.content_hash()));
        }
    }
    Ok(hashes)
}

#[derive(Default)]
struct Names {
    small: Vec<(ObjectName, u64)>,
    snapshots: Vec<(Listed, bool)>,
    /// What is to be read of all that.
    asked: Asked,
    snapshot_bytes: u64,
    listing: Vec<ObjectHash>,
    tombs: HashSet<SnapshotId>,
    index: Vec<ListedIndex>,
    packs: Vec<ListedPack>,
}

impl Names {
    fn add(&mut self, name: ObjectName, object: &Object) {
        if matches!(name, ObjectName::Snapshot(..) | ObjectName::Index(..)) {
            self.listing.extend(name.content_hash());
        }
        if !matches!(name, ObjectName::Pack(_)) {
            self.asked.add(object.key.as_str());
        }
        match name {
            ObjectName::Pack(id) => {
                self.packs.push(ListedPack { id, size: object.size, stored: object.modified });
            }
            ObjectName::Index(author, hash) => {
                self.index.push(ListedIndex { author, object: hash, size: object.size });
            }
            ObjectName::Snapshot(writer, sequence, id) => {
                self.snapshot_bytes += object.size;
                let stored = object.modified;
                self.snapshots.push((Listed { writer, sequence, id, confirmed: false, stored }, true));
            }
            ObjectName::Confirmation(writer, sequence, id) => {
                self.snapshot_bytes += object.size;
                let stored = object.modified;
                self.snapshots.push((Listed { writer, sequence, id, confirmed: true, stored }, false));
            }
            name => {
                if let ObjectName::Tomb(snapshot, _) = name {
                    self.tombs.insert(snapshot);
                }
                self.small.push((name, object.size));
            }
        }
    }

    /// Snapshots, and separately those of which only the confirmation is there.
    fn pair(&mut self) -> (Vec<Listed>, Vec<Listed>) {
        let (bodies, confirmations): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.snapshots).into_iter().partition(|(_, body)| *body);
        let known: HashSet<_> =
            bodies.iter().map(|(listed, _)| (listed.writer, listed.sequence, listed.id)).collect();
        let confirmed: HashSet<_> =
            confirmations.iter().map(|(listed, _)| (listed.writer, listed.sequence, listed.id)).collect();
        let mut bodies: Vec<_> = bodies.into_iter().map(|(listed, _)| listed).collect();
        for listed in &mut bodies {
            listed.confirmed = confirmed.contains(&(listed.writer, listed.sequence, listed.id));
        }
        let alone = confirmations.into_iter().map(|(listed, _)| listed);
        let alone = alone.filter(|listed| !known.contains(&(listed.writer, listed.sequence, listed.id)));
        (bodies, alone.collect())
    }
}

/// Looks at everything but the content of packs. `cached` allows the use of the local cache for a large index.
pub(super) async fn survey(repo: &Repository, cached: bool) -> Result<Survey, Error> {
    let mut findings = Vec::new();
    let mut names = Names::default();
    let mut objects = 0;
    let mut listings = futures::stream::iter(FIRST)
        .map(|prefix| repo.store().list(prefix))
        .buffered(repo.env().limits.requests.max(1))
        .chain(futures::stream::iter(THEN).then(|prefix| repo.store().list(prefix)))
        .boxed();
    while let Some(listed) = listings.next().await {
        for object in listed? {
            objects += 1;
            match ObjectName::parse(object.key.as_str()) {
                Some(name) => names.add(name, &object),
                None => findings.push(Finding::warning(object.key.as_str(), Problem::ForeignName)),
            }
        }
    }
    drop(listings);
    let (listed, alone) = names.pair();
    let mut bytes = check_small(repo, &names.small, &mut findings).await?;
    let opens = repo.secrets().metadata.is_some();
    let (snapshots, orphans, closed) = match opens {
        true => {
            let (roots, orphans) = read_snapshots(repo, (listed, &names.tombs), &mut findings).await?;
            (roots, orphans, 0)
        }
        false => (Vec::new(), Vec::new(), check_signatures(repo, listed, &mut findings).await?),
    };
    report_missing(repo, &alone, orphans, &mut findings).await?;
    let loaded = load_index(repo, &names.index, cached, &mut findings).await?;
    if let Some(error) = names.asked.refused(repo.store(), &mut findings) {
        return Err(error.into());
    }
    bytes += names.snapshot_bytes + names.index.iter().map(|listed| listed.size).sum::<u64>();
    let mut survey = Survey {
        findings,
        objects,
        bytes,
        snapshots,
        closed,
        listing: names.listing,
        packs: names.packs,
        said: Arc::new(loaded.said),
        promised: loaded.view.clone(),
        view: loaded.view,
        bad: HashMap::new(),
    };
    survey.check_packs()?;
    if !opens {
        let condemned = repo.condemned(&mut Vec::new()).await?;
        // In this order: the horizon moves before a condemnation goes.
        match repo.horizon().await {
            Ok(0) => survey.blame_missing(&condemned),
            Err(error) if is_fatal(&error) => return Err(error.into()),
            _ => {}
        }
    }
    Ok(survey)
}

/// Reads every small object; one that is not listed any more when it is missed is none.
async fn check_small(
    repo: &Repository,
    names: &[(ObjectName, u64)],
    findings: &mut Vec<Finding>,
) -> Result<u64, Error> {
    let mut checks = futures::stream::iter(names)
        .map(|(name, size)| async move {
            let key = name.key();
            let checked = match twice(repo, &key, || small::check(repo, *name)).await {
                // Collectors delete such objects at any time, and maintainers take holds away.
                Ok(Err(Problem::Missing)) if !repo.is_listed(*name).await? => Ok(Ok(Checked::Good)),
                checked => checked,
            };
            Ok::<_, Error>((key, *size, checked?))
        })
        .buffer_unordered(repo.env().limits.requests.max(1));
    let mut bytes = 0;
    while let Some(checked) = checks.next().await {
        let (key, size, checked) = checked?;
        match checked {
            Ok(Checked::Good) => {}
            Ok(Checked::Foreign) => findings.push(Finding::warning(key, Problem::ForeignObject)),
            Err(problem) => findings.push(Finding::damage(key, problem)),
        }
        bytes += size;
    }
    Ok(bytes)
}

/// A snapshot that follows one which is not there: its key, and the one that is missed.
type Orphan = (String, SnapshotId);

/// Reports the snapshots that are missed and that no maintainer removed.
async fn report_missing(
    repo: &Repository,
    alone: &[Listed],
    orphans: Vec<Orphan>,
    findings: &mut Vec<Finding>,
) -> Result<(), Error> {
    if alone.is_empty() && orphans.is_empty() {
        return Ok(());
    }
    let missed = alone.iter().map(|listed| listed.id).chain(orphans.iter().map(|(_, parent)| *parent));
    // Read after snapshots were listed: a removal is put before what it names is deleted.
    let missed = match repo.not_removed(missed).await {
        Ok(missed) => missed,
        // The mark has a finding of its own; what it says is not known, so nothing is missed for certain.
        Err(RepoError::Store(StoreError::Denied { .. })) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    for listed in alone.iter().filter(|listed| missed.contains(&listed.id)) {
        let key = ObjectName::Snapshot(listed.writer, listed.sequence, listed.id).key();
        findings.push(Finding::damage(key, Problem::Missing));
    }
    for (key, parent) in orphans.into_iter().filter(|(_, parent)| missed.contains(parent)) {
        findings.push(Finding::warning(key, Problem::ParentMissing { parent }));
    }
    Ok(())
}

/// Reads every snapshot; gives also those that follow one which is not there.
async fn read_snapshots(
    repo: &Repository,
    (listed, tombs): (Vec<Listed>, &HashSet<SnapshotId>),
    findings: &mut Vec<Finding>,
) -> Result<(Vec<Root>, Vec<Orphan>), Error> {
    let known: HashSet<_> = listed.iter().map(|listed| listed.id).collect();
    let mut reads = futures::stream::iter(listed)
        .map(|listed| async move {
            let key = ObjectName::Snapshot(listed.writer, listed.sequence, listed.id).key();
            let read = twice(repo, &key, || repo.read_snapshot(listed)).await;
            (listed, (key, read), confirmed(repo, listed).await)
        })
        .buffer_unordered(repo.env().limits.requests.max(1));
    let (mut roots, mut orphans) = (Vec::new(), Vec::new());
    while let Some((listed, (key, read), confirmed)) = reads.next().await {
        if repo.env().cancel.is_raised() {
            return Err(Error::Cancelled);
        }
        findings.extend(confirmed?);
        match read? {
            Ok(stored) => {
                for parent in stored.snapshot.parents {
                    if !known.contains(&parent) && !tombs.contains(&parent) {
                        orphans.push((key.clone(), parent));
                    }
                }
                roots.push(Root { listed, tree: stored.snapshot.root });
            }
            Err(problem) => findings.push(Finding::damage(key, problem)),
        }
    }
    roots.sort_by_key(|root| {
        (!root.listed.confirmed, root.listed.writer, root.listed.sequence, root.listed.id)
    });
    Ok((roots, orphans))
}

/// What is to be said of a snapshot's confirmation, or of that there is none.
async fn confirmed(repo: &Repository, listed: Listed) -> Result<Option<Finding>, Error> {
    if !listed.confirmed {
        return Ok(Some(Finding::warning(listed.name().key(), Problem::Unconfirmed)));
    }
    let key = listed.confirmation().key();
    let checked = twice(repo, &key, || repo.check_confirmation(listed)).await?;
    Ok(checked.err().map(|problem| Finding::damage(key, problem)))
}

/// Checks what a key can check that opens no snapshot: who signed it, and its confirmation. Gives how many there are.
async fn check_signatures(
    repo: &Repository,
    listed: Vec<Listed>,
    findings: &mut Vec<Finding>,
) -> Result<u64, Error> {
    let count = listed.len() as u64;
    let mut checks = futures::stream::iter(listed)
        .map(|listed| async move {
            let key = listed.name().key();
            let signed = twice(repo, &key, || repo.check_snapshot(listed)).await;
            ((key, signed), confirmed(repo, listed).await)
        })
        .buffer_unordered(repo.env().limits.requests.max(1));
    while let Some(((key, signed), confirmed)) = checks.next().await {
        if repo.env().cancel.is_raised() {
            return Err(Error::Cancelled);
        }
        findings.extend(confirmed?);
        if let Err(problem) = signed? {
            findings.push(Finding::damage(key, problem));
        }
    }
    Ok(count)
}

struct Loaded {
    view: View,
    said: Said,
}

async fn load_index(
    repo: &Repository,
    listed: &[ListedIndex],
    cached: bool,
    findings: &mut Vec<Finding>,
) -> Result<Loaded, Error> {
    let env = repo.env();
    let total: u64 = listed.iter().map(|listed| listed.size).sum();
    let place = env.places.cache.as_ref().filter(|_| cached && total > IN_MEMORY);
    let place = place.map(|cache| cache.join(repo.id().to_string()).join("index"));
    let mut cache = Cache::open(place.as_deref());
    let largest = listed.iter().map(|listed| listed.size).max().unwrap_or(0).max(1);
    let at_once = usize::try_from(INDEX_BUDGET / largest).unwrap_or(1).clamp(1, env.limits.requests.max(1));
    let mut reads = futures::stream::iter(listed)
        .map(|listed| async move {
            let key = listed.name().key();
            let read = twice(repo, &key, || repo.fetch_listed(listed)).await;
            (key, listed.object, read)
        })
        .buffer_unordered(at_once);
    let mut good = Vec::new();
    let mut said = Said::new(repo)?;
    while let Some((key, hash, read)) = reads.next().await {
        if env.cancel.is_raised() {
            return Err(Error::Cancelled);
        }
        match read? {
            Ok(fetched) => {
                said.take(&fetched, &key, findings)?;
                match fetched.add_to(&mut cache, hash) {
                    Ok(()) => good.push(hash),
                    Err(error) => match RepoError::from(error) {
                        error if is_fatal(&error) => return Err(error.into()),
                        error => findings.push(Finding::damage(key, problem(error))),
                    },
                }
            }
            Err(problem) => findings.push(Finding::damage(key, problem)),
        }
    }
    Ok(Loaded { view: cache.view(&good)?, said })
}

impl Survey {
    /// Makes damage of a pack that is missing, where no walk through trees will show whether anything is lost: as long as
    /// no collection has ended. One that has may leave records of what it deleted, where they are a small part of an object.
    fn blame_missing(&mut self, condemned: &HashSet<PackId>) {
        let blamed: HashSet<String> =
            self.bad.keys().filter(|pack| !condemned.contains(pack)).map(|pack| pack_key(*pack)).collect();
        for finding in &mut self.findings {
            if matches!(finding.problem, Problem::Missing) && blamed.contains(&finding.key) {
                finding.severity = Severity::Damage;
            }
        }
    }

    /// Holds the listing of packs against the index.
    fn check_packs(&mut self) -> Result<(), Error> {
        let sizes: HashMap<PackId, u64> = self.packs.iter().map(|pack| (pack.id, pack.size)).collect();
        let mut indexed = HashSet::new();
        for pack in self.promised.packs() {
            let (_, row) = pack?;
            if !indexed.insert(row.id) {
                continue;
            }
            match sizes.get(&row.id) {
                Some(found) if *found == u64::from(row.size) => {}
                Some(found) => {
                    let problem = Problem::WrongSize { expected: u64::from(row.size), found: *found };
                    self.findings.push(Finding::damage(pack_key(row.id), problem));
                }
                None => {
                    // Whether anything is lost shows when the trees are walked.
                    self.findings.push(Finding::warning(pack_key(row.id), Problem::Missing));
                    self.bad.insert(row.id, BadPack::Whole);
                }
            }
        }
        for ListedPack { id, size, .. } in &self.packs {
            if *size > PACK_MAX as u64 {
                self.findings.push(Finding::damage(pack_key(*id), Problem::TooLarge { size: *size }));
            } else if !indexed.contains(id) {
                self.findings.push(Finding::warning(pack_key(*id), Problem::Unindexed));
            }
        }
        self.view.set_present(|pack| sizes.contains_key(pack))?;
        Ok(())
    }
}
