//! Listing snapshots, and finding the one a person means.
//!
//! # Invariants
//! A snapshot that cannot be read is reported beside the others and hides none of them. `latest` and times pick
//! confirmed snapshots that nobody forgot, by the store's clock or, of what a maintainer brought from elsewhere, by the
//! origin's time; and the confirmation's signature is checked before one is
//! handed out. An older one never stands in for a confirmed one that cannot be read. Tags are those in effect: the labels that count, or what the snapshot says.
//!
//! # Must not
//! Believe the local cache more than the store: what is listed comes from the store, only the bodies from the cache.

mod cache;
mod filter;
mod marks;
mod selector;

use std::collections::{BTreeSet, HashMap};

use futures::StreamExt;

use self::cache::BodyCache;
use super::anchor::trusted;
use crate::class::Class;
use crate::clock::Timestamp;
use crate::error::Error;
use crate::format::layout::ObjectName;
use crate::format::snapshot::{Origin, Snapshot};
use crate::id::{SnapshotId, WriterId};
use crate::repo::{LabelsRank, Listed, OwnSnapshots, RepoError, Repository, StoredTomb};

pub use self::filter::SnapshotFilter;
pub use self::marks::check_confirmations;
pub(super) use self::marks::judge_unread;
pub(super) use self::selector::Selector;
pub use self::selector::{parse_begin, parse_time};

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
    /// Whether the listing showed one, which may be damaged or forged.
    pub has_confirmation: bool,
    /// When the store got it, on the store's clock.
    pub stored: Timestamp,
    /// Whether a maintainer brought it from elsewhere: then its origin counts.
    pub brought: bool,
    /// The tomb that stands for it: it is forgotten, and will be removed.
    pub forgotten: Option<StoredTomb>,
    /// The labels that its tags come from, if not from itself.
    pub labels: Option<LabelsRank>,
    /// What it says, with the tags that are in effect.
    pub snapshot: Snapshot,
}

/// What [`list`] found.
#[derive(Debug, Default)]
pub struct SnapshotList {
    /// Oldest first, by the time that counts.
    pub snapshots: Vec<SnapshotInfo>,
    /// Snapshots and labels that are there and could not be read, by key.
    pub unreadable: Vec<(String, Error)>,
    /// The snapshots among these.
    pub unread: Vec<Listed>,
    /// How many there are that this key cannot open and this machine did not make.
    pub closed: u64,
}

impl SnapshotInfo {
    fn new(repo: &Repository, listed: Listed, snapshot: Snapshot) -> Self {
        let Listed { writer, sequence, id, confirmed, stored } = listed;
        Self {
            brought: snapshot.origin.is_some() && repo.is_maintainer(&writer),
            id,
            writer,
            sequence,
            confirmed,
            has_confirmation: confirmed,
            stored,
            forgotten: None,
            labels: None,
            snapshot,
        }
    }

    /// Where it came from, if that counts.
    pub fn origin(&self) -> Option<&Origin> {
        self.snapshot.origin.as_ref().filter(|_| self.brought)
    }

    /// The time that counts: when the store got it, or when the store of its origin did. Nothing counts as later than it was
    /// stored.
    pub fn counted(&self) -> Timestamp {
        self.origin().map_or(self.stored, |origin| Timestamp(origin.time).min(self.stored))
    }

    /// What tells which of two snapshots is newer.
    pub(in crate::ops) fn age(&self) -> Age {
        (self.counted(), self.writer, self.sequence, self.id)
    }
}

/// All snapshots that match, confirmed or not, forgotten or not; with a key that cannot open them those of this machine's own
/// runs, with the tags that they were made with. Snapshots known from an earlier run come from the local cache, the others
/// are read [`crate::repo::Limits::requests`] at a time.
pub async fn list(repo: &Repository, filter: &SnapshotFilter) -> Result<SnapshotList, Error> {
    let mut found = SnapshotList::default();
    let listed = listed(repo).await?;
    let mut cache = BodyCache::open(repo);
    let own = own(repo, &listed);
    let mut unknown = Vec::new();
    for listed in &listed {
        let known = own.as_ref().and_then(|own| own.get(listed)).or_else(|| cache.get(listed));
        match known.filter(|_| repo.accepts(&listed.writer, &listed.name())) {
            Some(snapshot) => found.snapshots.push(SnapshotInfo::new(repo, *listed, snapshot)),
            None if !opens(repo) => found.closed += 1,
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
                found.snapshots.push(SnapshotInfo::new(repo, listed, stored.snapshot));
            }
            // Removed since it was listed, unless it is listed still.
            Err(RepoError::Store(error))
                if error.is_not_found() && !repo.is_listed(listed.name()).await? => {}
            Err(error) if is_fatal(&error) => return Err(error.into()),
            Err(error) => {
                found.unreadable.push((listed.name().key(), error.into()));
                found.unread.push(listed);
            }
        }
    }
    drop(reads);
    marks::apply(repo, &mut found, &mut cache).await?;
    found.snapshots.retain(|info| filter.matches(&info.snapshot));
    found.snapshots.sort_unstable_by_key(SnapshotInfo::age);
    found.unreadable.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    Ok(found)
}

/// Whether this key opens snapshots.
fn opens(repo: &Repository) -> bool {
    repo.secrets().metadata.is_some()
}

/// What this machine remembers of its own runs, for a key that does not open snapshots.
fn own<'a>(repo: &'a Repository, listed: &[Listed]) -> Option<OwnSnapshots<'a>> {
    let own = OwnSnapshots::of(repo)?;
    own.keep(listed);
    Some(own)
}

/// As [`list`]; only a confirmation that somebody entitled has signed counts, and of what could not be read there are left in
/// [`SnapshotList::unread`] those that are confirmed and that nobody forgot.
pub async fn list_checked(repo: &Repository, filter: &SnapshotFilter) -> Result<SnapshotList, Error> {
    let mut found = list(repo, filter).await?;
    check_confirmations(repo, &mut found.snapshots).await?;
    judge_unread(repo, &mut found).await?;
    Ok(found)
}

/// The snapshot that a selector means: an id or the beginning of one, `latest`, `latest~2` for the third newest, or
/// `@2026-03-01T14:00` for the newest that the store had at that time, or the store of its origin if a maintainer brought it
/// (a date alone includes the whole day; without `Z` or an offset the machine's time zone counts). An id is found whether it
/// matches the filter or not, and whether the snapshot is forgotten or not, as long as it is there; the others pass by what
/// is forgotten.
///
/// # Errors
/// [`Error::BadSelector`], [`Error::NoSnapshot`], [`Error::AmbiguousSnapshot`]; [`Error::UnreadableSnapshot`] if it may mean
/// one that cannot be read; [`Error::Trust`] if it is no id and the store shows less than it did.
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
    trusted(repo)?;
    let mut picked = match filter.is_empty() && not_after.is_none() {
        true => by_name(repo, back).await?,
        false => None,
    };
    let mut all = SnapshotList::default();
    if picked.is_none() {
        all = list(repo, filter).await?;
        picked = Some(by_time(repo, &all, (not_after, back)).await?);
    }
    let picked = picked.flatten();
    let at = picked.as_ref().map(|picked| picked.age);
    let meant = |unread: &Listed| may_be_meant(unread, not_after, at);
    all.unread.retain(meant);
    judge_unread(repo, &mut all).await?;
    if let Some(unread) = all.unread.first().copied() {
        return Err(all.unreadable(selector, unread));
    }
    let Picked { age, body } = picked.ok_or_else(none)?;
    body.map_err(|error| match error.class() {
        Class::Damage => unreadable(selector, age.3, error),
        _ => error,
    })
}

/// The snapshot that a selector means, if it can be read.
struct Picked {
    age: Age,
    body: Result<SnapshotInfo, Error>,
}

/// The newest one but `back`, going by names: while none of the newest was brought from elsewhere, no older name can stand
/// for a newer one. `None` if one was: then all must be read.
async fn by_name(repo: &Repository, back: usize) -> Result<Option<Option<Picked>>, Error> {
    let mut candidates = standing(repo).await?;
    candidates.retain(|listed| listed.confirmed && repo.accepts(&listed.writer, &listed.name()));
    candidates.sort_unstable_by_key(age);
    let mut left = back;
    for listed in candidates.into_iter().rev() {
        // A confirmation that nobody entitled has signed is none.
        let confirmed = async { Ok::<_, Error>(repo.is_confirmed(listed).await?) };
        let body = async { Ok(read(repo, listed).await) };
        let (true, body) = repo.env().limits.both(confirmed, body).await? else { continue };
        match &body {
            Ok(info) if info.brought => return Ok(None),
            // Whether this one was brought is not known, only because the store did not answer.
            Err(error) if left > 0 && error.class() != Class::Damage => return body.map(|_| None),
            _ => {}
        }
        if left == 0 {
            return Ok(Some(Some(Picked { age: age(&listed), body })));
        }
        left -= 1;
    }
    Ok(Some(None))
}

/// The newest one but `back` of those that count and are not newer than that.
async fn by_time(
    repo: &Repository,
    all: &SnapshotList,
    (not_after, mut back): (Option<Timestamp>, usize),
) -> Result<Option<Picked>, Error> {
    let counts = |info: &&SnapshotInfo| {
        info.confirmed && info.forgotten.is_none() && not_after.is_none_or(|time| info.counted() <= time)
    };
    for info in all.snapshots.iter().rev().filter(counts) {
        if !repo.is_confirmed(info.listed()).await? {
            continue;
        }
        if back == 0 {
            return Ok(Some(Picked { age: info.age(), body: Ok(info.clone()) }));
        }
        back -= 1;
    }
    Ok(None)
}

/// What tells which of two snapshots is newer: the time that counts before all else.
pub(in crate::ops) type Age = (Timestamp, WriterId, u64, SnapshotId);

/// The age of one of which only the name is known.
fn age(listed: &Listed) -> Age {
    (listed.stored, listed.writer, listed.sequence, listed.id)
}

/// Whether a selector that picked one of this age would have meant the other, could that one be read.
fn may_be_meant(unread: &Listed, not_after: Option<Timestamp>, picked: Option<Age>) -> bool {
    not_after.is_none_or(|time| unread.stored <= time) && picked.is_none_or(|picked| picked < age(unread))
}

fn unreadable(selector: &str, snapshot: SnapshotId, cause: Error) -> Error {
    Error::UnreadableSnapshot { selector: selector.to_owned(), snapshot, cause: Box::new(cause) }
}

impl SnapshotList {
    /// The snapshot that cannot be read and has this id, all of which must be given.
    pub(super) fn unread_by_id(&self, id: &str) -> Option<Listed> {
        let id = id.to_ascii_lowercase().parse::<SnapshotId>().ok()?;
        // Anyone may put garbage under the id of one that can be read.
        let readable = self.snapshots.iter().any(|info| info.id == id);
        self.unread.iter().find(|listed| listed.id == id && !readable).copied()
    }

    /// As [`Self::unread_by_id`]; it is not in the list any more.
    pub(super) fn take_unread(&mut self, id: &str) -> Option<Listed> {
        let found = self.unread_by_id(id)?;
        self.unread.retain(|listed| *listed != found);
        self.unreadable.retain(|(key, _)| *key != found.name().key());
        Some(found)
    }

    /// Says that a selector may mean this one.
    fn unreadable(&mut self, selector: &str, unread: Listed) -> Error {
        let key = unread.name().key();
        match self.unreadable.iter().position(|(found, _)| *found == key) {
            Some(at) => unreadable(selector, unread.id, self.unreadable.swap_remove(at).1),
            None => Error::NoSnapshot { selector: selector.to_owned() },
        }
    }
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
        trusted(repo)?;
        check_confirmations(repo, &mut all.snapshots).await?;
        judge_unread(repo, &mut all).await?;
    }
    resolve_in(&mut all, selectors, filter)
}

/// As [`resolve_all`], of snapshots that were listed already and whose confirmations are checked; those that could not be
/// read were judged.
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
        Some(Selector::Id(prefix)) => return pick_id(all, selector, &prefix),
        Some(Selector::Latest(back)) => (None, back),
        Some(Selector::NotAfter(time)) => (Some(time), 0),
    };
    let counts = |info: &&SnapshotInfo| {
        info.confirmed
            && info.forgotten.is_none()
            && not_after.is_none_or(|time| info.counted() <= time)
            && filter.matches(&info.snapshot)
    };
    let picked = all.snapshots.iter().rev().filter(counts).nth(back).cloned();
    let at = picked.as_ref().map(SnapshotInfo::age);
    match all.unread.iter().find(|unread| may_be_meant(unread, not_after, at)).copied() {
        Some(unread) => Err(all.unreadable(selector, unread)),
        None => picked.ok_or_else(none),
    }
}

/// The snapshot whose id begins so; one that cannot be read has a beginning, too.
fn pick_id(all: &mut SnapshotList, selector: &str, prefix: &str) -> Result<SnapshotInfo, Error> {
    let named = |key: &str| match ObjectName::parse(key) {
        Some(ObjectName::Snapshot(_, _, id)) => Some(id),
        _ => None,
    };
    let unread = all.unreadable.iter().filter_map(|(key, _)| named(key));
    let mut ids: BTreeSet<_> = all.snapshots.iter().map(|info| info.id).chain(unread).collect();
    ids.retain(|id| id.to_string().starts_with(prefix));
    match ids.len() {
        0 => return Err(Error::NoSnapshot { selector: selector.to_owned() }),
        1 => {}
        count => return Err(Error::AmbiguousSnapshot { selector: selector.to_owned(), count }),
    }
    if let Some(info) = all.snapshots.iter().find(|info| ids.contains(&info.id)) {
        return Ok(info.clone());
    }
    let damaged = |(key, _): &(String, Error)| named(key).is_some_and(|id| ids.contains(&id));
    match all.unreadable.iter().position(damaged) {
        Some(at) => Err(all.unreadable.swap_remove(at).1),
        None => Err(Error::NoSnapshot { selector: selector.to_owned() }),
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
    let count = matching.iter().map(|listed| listed.id).collect::<BTreeSet<_>>().len();
    if count > 1 {
        return Err(Error::AmbiguousSnapshot { selector: selector.to_owned(), count });
    }
    // Several names with one id: anyone may put garbage under the others.
    let mut result = Err(Error::NoSnapshot { selector: selector.to_owned() });
    for listed in matching {
        result = read(repo, listed).await;
        match &result {
            Err(error) if error.class() == Class::Damage => {}
            _ => break,
        }
    }
    result
}

/// Reads one snapshot, from the cache if it is there.
async fn read(repo: &Repository, listed: Listed) -> Result<SnapshotInfo, Error> {
    let mut cache = BodyCache::open(repo);
    let known = cache.get(&listed).filter(|_| repo.accepts(&listed.writer, &listed.name()));
    let body = async {
        Ok(match known {
            Some(snapshot) => snapshot,
            None => repo.read_snapshot(listed).await?.snapshot,
        })
    };
    let writers = HashMap::from([(listed.id, listed.writer)]);
    let said = marks::read(repo, &writers, &mut cache);
    let (snapshot, said) = repo.env().limits.both(body, said).await?;
    let snapshots = vec![SnapshotInfo::new(repo, listed, snapshot)];
    let mut found = SnapshotList { snapshots, ..SnapshotList::default() };
    said.give(repo, &mut found);
    found.snapshots.pop().ok_or(Error::NoSnapshot { selector: listed.id.to_string() })
}

/// All snapshots that nobody forgot, by name.
async fn standing(repo: &Repository) -> Result<Vec<Listed>, Error> {
    let tombs = async { Ok(repo.list_tombs().await?) };
    let (mut listed, tombs) = repo.env().limits.both(listed(repo), tombs).await?;
    let ids = listed.iter().map(|listed| listed.id).collect();
    let tombs = repo.standing_among(tombs, &ids).await?;
    listed.retain(|listed| !tombs.contains_key(&listed.id));
    Ok(listed)
}

/// All snapshots by name.
async fn listed(repo: &Repository) -> Result<Vec<Listed>, Error> {
    Ok(repo.list_snapshots().await?)
}

/// Whether a failure concerns the store or the key as a whole and not one object.
fn is_fatal(error: &RepoError) -> bool {
    match error {
        RepoError::RoleForbids { .. } | RepoError::WrongRole { .. } | RepoError::Cancelled => true,
        RepoError::Store(error) => !matches!(error.class(), Class::Failed | Class::Damage),
        _ => false,
    }
}

#[cfg(test)]
mod names;
#[cfg(test)]
mod tests;
