//! Which files of a cluster's log are needed, and which may go: a pure decision about facts that someone else gathered.
//!
//! # Invariants
//! From the oldest base backup whose snapshot is in the store, forgotten or not, everything stays, on all timelines. Positions of
//! the log only grow, over timelines too, so what lies before that is on the way of no recovery. Without a base backup that can
//! be restored nothing goes, and neither does what is not understood, what came since the plan was begun, a file with two
//! contents, or the history of a timeline.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::Duration;

use crate::clock::Timestamp;
use crate::database::lsn::segments;
use crate::format::log::LogFile;
use crate::postgres::Lsn;
use crate::repo::{ListedLog, StoredTrim};

/// Nobody takes longer from the listing of a trim to its reading.
const READ_BY: Duration = Duration::from_secs(24 * 3600);

/// A base backup whose snapshot is in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Base {
    /// The timeline it was taken on.
    pub timeline: u32,
    /// Where recovery begins to read the log.
    pub start: u64,
    /// Where the log must be read to at least.
    pub stop: u64,
    /// When the store got the snapshot.
    pub stored: Timestamp,
    /// Somebody forgot it, and it can still be taken back.
    pub forgotten: bool,
    /// It is confirmed, by a writer that may archive the cluster's log.
    pub counts: bool,
}

/// What is archived of one history of a cluster.
#[derive(Debug, Clone, Copy)]
pub(super) struct Archive<'a> {
    /// Bytes of a segment.
    pub segment_size: u32,
    /// Files of writers that count.
    pub files: &'a [ListedLog],
    /// All base backups of it.
    pub bases: &'a [Base],
}

/// By what it is decided.
#[derive(Debug, Clone, Copy)]
pub(super) struct LogRules {
    /// The store's time when the collection began.
    pub now: Timestamp,
    /// How long something is condemned before it is deleted.
    pub grace: Duration,
}

/// What is needed of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Needs {
    segment_size: u32,
    /// Everything from the segment of this number on.
    from: u64,
    /// Timelines that are before `from` for ever: a base backup that is on its way begins later.
    passed: BTreeSet<u32>,
}

impl Base {
    fn numbers(&self, size: u32) -> (u64, u64) {
        segments(Lsn(self.start), Lsn(self.stop), size).into_inner()
    }
}

impl Needs {
    /// The position from which on everything is needed.
    pub(super) fn floor(&self) -> u64 {
        self.from.saturating_mul(self.segment_size.into())
    }

    /// Whether it has to stay.
    pub(super) fn is_needed(&self, file: LogFile) -> bool {
        let name = file.segment();
        let Some((name, number)) = name.and_then(|name| Some((name, name.number(self.segment_size)?))) else {
            return true;
        };
        number >= self.from || !self.passed.contains(&name.timeline)
    }
}

/// Files that are archived with different contents: which of them is the right one a person has to say.
fn ambiguous(files: &[ListedLog]) -> HashSet<LogFile> {
    let mut first = std::collections::HashMap::new();
    let other = |listed: &&ListedLog| {
        let plain = listed.name.plain;
        *first.entry(listed.name.file).or_insert(plain) != plain
    };
    files.iter().filter(other).map(|listed| listed.name.file).collect()
}

/// What is needed; `None` if nothing may go, since no base backup that counts can be restored.
pub(super) fn needs(archive: &Archive<'_>, rules: &LogRules) -> Option<Needs> {
    let size = archive.segment_size;
    let twofold = ambiguous(archive.files);
    let mut there = BTreeSet::new();
    for listed in archive.files.iter().filter(|listed| !twofold.contains(&listed.name.file)) {
        if let LogFile::Segment(name) = listed.name.file {
            there.extend(name.number(size).map(|number| (name.timeline, number)));
        }
    }
    let whole = |base: &&Base| {
        let ((first, last), timeline) = (base.numbers(size), base.timeline);
        there.range((timeline, first)..=(timeline, last)).count() as u64 == (last - first).saturating_add(1)
    };
    let anchors: Vec<&Base> =
        archive.bases.iter().filter(|base| base.counts && !base.forgotten).filter(whole).collect();
    let newest = anchors.iter().map(|base| base.stored).max()?;
    let from = archive.bases.iter().map(|base| base.numbers(size).0).min()?;
    let mut passed: BTreeSet<u32> = anchors.iter().map(|base| base.timeline).collect();
    for (timeline, last) in last_stored(archive.files) {
        let silent = rules.has_stood(last);
        if last < newest && silent {
            passed.insert(timeline);
        }
    }
    Some(Needs { segment_size: size, from, passed })
}

impl LogRules {
    /// Whether the grace is over of what the store got then. What it got since the collection began is as old as nothing.
    fn has_stood(&self, since: Timestamp) -> bool {
        self.now.0.saturating_sub(since.0).max(0) >= nanos(self.grace)
    }
}

fn nanos(time: Duration) -> i64 {
    i64::try_from(time.as_nanos()).unwrap_or(i64::MAX)
}

/// When the store got the last file of each timeline.
fn last_stored(files: &[ListedLog]) -> BTreeMap<u32, Timestamp> {
    let mut last = BTreeMap::new();
    for listed in files {
        let timeline = match listed.name.file {
            LogFile::History(timeline) => timeline,
            LogFile::Segment(name) | LogFile::Partial(name) | LogFile::Backup(name, _) => name.timeline,
        };
        let known = last.entry(timeline).or_insert(listed.stored);
        *known = listed.stored.max(*known);
    }
    last
}

/// The files that nothing needs, in the order in which they go: the oldest first, so that what an interruption leaves has no hole
/// before what is needed.
pub(super) fn doomed(archive: &Archive<'_>, needs: &Needs, now: Timestamp) -> Vec<ListedLog> {
    let twofold = ambiguous(archive.files);
    let goes = |listed: &&ListedLog| {
        listed.stored < now && !needs.is_needed(listed.name.file) && !twofold.contains(&listed.name.file)
    };
    let mut doomed: Vec<ListedLog> = archive.files.iter().filter(goes).copied().collect();
    let position =
        |listed: &ListedLog| listed.name.file.segment().and_then(|name| name.start(archive.segment_size));
    doomed.sort_by_key(|listed| (position(listed), listed.name));
    doomed
}

/// What becomes of files that nothing needs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Split {
    /// Condemned for the grace: they go now.
    pub go: Vec<ListedLog>,
    /// Condemned, and their time has not come.
    pub wait: Vec<ListedLog>,
    /// When that comes for the last of these.
    pub due: Option<Timestamp>,
    /// Not condemned yet, or stored again since.
    pub new: Vec<ListedLog>,
}

/// Holds what nothing needs against the trims of its log.
pub(super) fn split(doomed: Vec<ListedLog>, trims: &[StoredTrim], (rules, size): (&LogRules, u32)) -> Split {
    let mut split = Split::default();
    for listed in doomed {
        let name = listed.name.file.segment();
        let covering =
            trims.iter().filter(|trim| name.is_some_and(|name| trim.covers(name, size, listed.stored)));
        match covering.map(|trim| trim.stored).min() {
            Some(since) if rules.has_stood(since) => split.go.push(listed),
            Some(since) => {
                split.due = split.due.max(Some(Timestamp(since.0.saturating_add(nanos(rules.grace)))));
                split.wait.push(listed);
            }
            None => split.new.push(listed),
        }
    }
    split
}

/// What a trim must say so that these files are covered: their timelines, up to where everything is needed.
pub(super) fn below(files: &[ListedLog], needs: &Needs) -> Vec<(u32, u64)> {
    let timelines = files.iter().filter_map(|listed| listed.name.file.segment()).map(|name| name.timeline);
    let timelines: BTreeSet<u32> = timelines.collect();
    timelines.into_iter().map(|timeline| (timeline, needs.floor())).collect()
}

/// Trims that another one has made useless: it says as much. Both have stood for the grace, and for a day at least: who has listed
/// the one when the other was not there has read it by then.
pub(super) fn outdated<'a>(trims: &'a [StoredTrim], rules: &LogRules) -> Vec<&'a StoredTrim> {
    let rules = LogRules { grace: rules.grace.max(READ_BY), ..*rules };
    let old = |one: &StoredTrim| rules.has_stood(one.stored);
    // Of two that say the same one stays.
    let beats = |one: &StoredTrim, other: &StoredTrim| {
        one.hash != other.hash
            && one.trim.includes(&other.trim)
            && (one.hash > other.hash || !other.trim.includes(&one.trim))
    };
    let beaten = |trim: &&StoredTrim| trims.iter().any(|other| old(other) && beats(other, trim));
    trims.iter().filter(|trim| old(trim)).filter(beaten).collect()
}

#[cfg(test)]
mod tests;
