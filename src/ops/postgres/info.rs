//! `info`: what is archived of each cluster, and which stretches of it can be replayed.

use std::collections::BTreeMap;

use super::cluster::find_cluster;
use super::get::timelines;
use super::plan::{Range, ranges};
use super::trimmed::Trimmed;
use crate::clock::Timestamp;
use crate::error::Error;
use crate::format::cluster::History;
use crate::format::log::{LogFacts, LogFile, LogName, SegmentName};
use crate::id::{ClusterId, WriterId};
use crate::postgres::{Lsn, Origin};
use crate::repo::{ListedLog, Repository, StoredCluster};

/// How many segments from an end of a range are asked for the time of a commit.
const LOOKED_AT: usize = 16;

/// What is archived of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterInfo {
    /// Its name.
    pub name: String,
    /// Its id in the names of objects.
    pub id: ClusterId,
    /// Whose log objects count, besides maintainers'.
    pub writers: Vec<WriterId>,
    /// Its histories, by number.
    pub histories: Vec<HistoryInfo>,
}

/// What is archived of one history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryInfo {
    /// What it is.
    pub history: History,
    /// Its timelines, by number.
    pub timelines: Vec<TimelineInfo>,
    /// Files that are archived with different contents: they are not given to a server.
    pub ambiguous: Vec<LogFile>,
    /// Bytes of its objects.
    pub bytes: u64,
    /// When the store got the last one.
    pub newest: Option<Timestamp>,
}

/// What is archived of one timeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimelineInfo {
    /// Its number.
    pub timeline: u32,
    /// The timeline that it came from, and where.
    pub origin: Option<Origin>,
    /// Segments without a gap between them, in order.
    pub ranges: Vec<RangeInfo>,
    /// The position up to which segments may have been removed that no base backup needs.
    pub trimmed: Option<Lsn>,
    /// Of its ranges those, by their numbers from 0, before which something is missing that was not removed in good order.
    pub gaps: Vec<usize>,
    /// A file `.partial` is archived: where the server that was replaced had come to.
    pub partial: Option<SegmentName>,
}

/// A stretch of the log that can be replayed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RangeInfo {
    /// Its segments.
    pub range: Range,
    /// Its first position.
    pub start: Lsn,
    /// The position behind it.
    pub end: Lsn,
    /// Time of its first commit, as far as its first segments tell; nanoseconds since 1970.
    pub first_commit: Option<i64>,
    /// Time of its last commit, as far as its last segments tell.
    pub last_commit: Option<i64>,
}

/// What is archived of the cluster of this name, or of all.
pub async fn info(repo: &Repository, name: Option<&str>) -> Result<Vec<ClusterInfo>, Error> {
    let clusters = match name {
        Some(name) => vec![find_cluster(repo, Some(name)).await?],
        None => repo.clusters().await?,
    };
    let mut found = Vec::new();
    for cluster in clusters {
        found.push(cluster_info(repo, cluster).await?);
    }
    Ok(found)
}

/// What is archived of this cluster.
pub(in crate::ops) async fn cluster_info(
    repo: &Repository,
    cluster: StoredCluster,
) -> Result<ClusterInfo, Error> {
    let mut histories = Vec::new();
    for history in &cluster.cluster.histories {
        histories.push(history_info(repo, (&cluster, history)).await?);
    }
    let (name, writers) = (cluster.cluster.name, cluster.cluster.writers);
    Ok(ClusterInfo { name, id: cluster.id, writers, histories })
}

async fn history_info(
    repo: &Repository,
    (cluster, history): (&StoredCluster, &History),
) -> Result<HistoryInfo, Error> {
    let listed = repo.list_logs(&LogName::history_prefix(cluster.id, history.number)).await?;
    let mut files: BTreeMap<LogFile, ListedLog> = BTreeMap::new();
    let mut info = HistoryInfo {
        history: *history,
        timelines: Vec::new(),
        ambiguous: Vec::new(),
        bytes: 0,
        newest: None,
    };
    for listed in listed.into_iter().filter(|listed| repo.archives(cluster, &listed.name.writer)) {
        info.bytes += listed.size;
        info.newest = info.newest.max(Some(listed.stored));
        let file = listed.name.file;
        let other = files.get(&file).is_some_and(|first| first.name.plain != listed.name.plain);
        if other && !info.ambiguous.contains(&file) {
            info.ambiguous.push(file);
        }
        files.entry(file).or_insert(listed);
    }
    // A key that opens no content still says which segments there are.
    let origins = match repo.secrets().data {
        Some(_) => timelines(repo, (cluster, history)).await?,
        None => BTreeMap::new(),
    };
    let trimmed = Trimmed::of(repo, (cluster, history)).await?;
    let mut segments: BTreeMap<u32, (Vec<SegmentName>, Option<SegmentName>)> = BTreeMap::new();
    for file in files.keys() {
        match file {
            LogFile::Segment(name) => segments.entry(name.timeline).or_default().0.push(*name),
            LogFile::Partial(name) => segments.entry(name.timeline).or_default().1 = Some(*name),
            LogFile::History(timeline) => drop(segments.entry(*timeline).or_default()),
            LogFile::Backup(..) => {}
        }
    }
    for (timeline, (segments, partial)) in segments {
        let mut found = Vec::new();
        for range in ranges(&segments, history.segment_size) {
            found.push(range_info(repo, (range, history.segment_size), &files).await?);
        }
        let origin = origins.get(&timeline).and_then(|origins| origins.last()).copied();
        let torn = |at: &usize| !trimmed.between(found[at - 1].range.last, found[*at].range.first);
        let gaps = (1..found.len()).filter(torn).collect();
        let below = trimmed.below(timeline).map(Lsn);
        info.timelines.push(TimelineInfo { timeline, origin, ranges: found, trimmed: below, gaps, partial });
    }
    Ok(info)
}

async fn range_info(
    repo: &Repository,
    (range, size): (Range, u32),
    files: &BTreeMap<LogFile, ListedLog>,
) -> Result<RangeInfo, Error> {
    let start = range.first.start(size).unwrap_or_default();
    let end = range.last.start(size).unwrap_or_default().saturating_add(size.into());
    let inside = files.range(LogFile::Segment(range.first)..=LogFile::Segment(range.last));
    let mut first_commit = None;
    for (_, listed) in inside.clone().take(LOOKED_AT) {
        first_commit = facts(repo, listed).await?.and_then(|facts| facts.first_commit);
        if first_commit.is_some() {
            break;
        }
    }
    let mut last_commit = None;
    for (_, listed) in inside.rev().take(LOOKED_AT) {
        last_commit = facts(repo, listed).await?.and_then(|facts| facts.last_commit);
        if last_commit.is_some() {
            break;
        }
    }
    Ok(RangeInfo { range, start: Lsn(start), end: Lsn(end), first_commit, last_commit })
}

/// What is known of a segment. Damage is for `verify` to find.
async fn facts(repo: &Repository, listed: &ListedLog) -> Result<Option<LogFacts>, Error> {
    match repo.read_log_facts(listed).await {
        Ok(facts) => Ok(Some(facts)),
        Err(error) if error.is_invalid() || error.is_damage() => Ok(None),
        Err(error) => Err(error.into()),
    }
}
