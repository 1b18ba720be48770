//! `archive-get`: a file of the log goes back to a server, or is proven to be absent.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::cluster::{find_cluster, system_of};
use super::place::deliver;
use super::plan::{Absence, Archived, judge};
use crate::class::Class;
use crate::error::{Error, LogError};
use crate::format::cluster::History;
use crate::format::log::{LogFile, LogName, SegmentName};
use crate::postgres::{Origin, first_page, parse_history};
use crate::repo::{ListedLog, RepoError, Repository, StoredCluster, trimmed};

/// What a server asks for.
#[derive(Debug, Clone)]
pub struct GetOptions {
    /// The cluster's name; `None` for the only one there is.
    pub cluster: Option<String>,
    /// The file's name.
    pub file: String,
    /// Where to put it.
    pub target: PathBuf,
    /// The server's data directory.
    pub data: PathBuf,
    /// Take a gap for the end of the log.
    pub allow_gap: bool,
}

/// How a question ended that could be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Got {
    /// The file is in its place.
    Delivered {
        /// Its length.
        bytes: u64,
    },
    /// There is no such file, and nothing shows that there ever was.
    Absent,
}

/// Gives a file back.
///
/// # Errors
/// Everything but those two ends. [`LogError::Gap`] if the file is missing and was written, [`LogError::Trimmed`] if a collector
/// may have removed it.
pub async fn get(repo: &Repository, options: &GetOptions) -> Result<Got, Error> {
    let named = options.file.parse();
    let file = named.map_err(|source| LogError::FileName { path: options.file.clone().into(), source })?;
    let cluster = find_cluster(repo, options.cluster.as_deref()).await?;
    let history = history_of(&cluster, system_of(&options.data))?;
    match fetch(repo, (&cluster, &history), file).await? {
        Some(content) => {
            let (target, bytes) = (options.target.clone(), content.len() as u64);
            let placed = tokio::task::spawn_blocking(move || deliver(&target, &content)).await;
            let written = placed.map_err(|_| RepoError::Task)?;
            written.map_err(|source| LogError::Write { path: options.target.clone(), source })?;
            Ok(Got::Delivered { bytes })
        }
        None => absent(repo, (&cluster, &history), file, options.allow_gap).await,
    }
}

/// The history that the server which asks is restored from. One that does not say what it is takes the one that goes on.
fn history_of(cluster: &StoredCluster, system: Option<u64>) -> Result<History, Error> {
    let current = cluster.cluster.current().ok_or(LogError::NoClusters)?;
    let Some(system) = system else { return Ok(*current) };
    let mut newest = cluster.cluster.histories.iter().rev();
    let found = newest.find(|history| history.system == system).copied();
    Ok(found.ok_or_else(|| LogError::OtherServer {
        cluster: cluster.cluster.name.clone(),
        what: "the system identifier",
        expected: current.system,
        found: system,
    })?)
}

/// The content of a file; `None` if nothing is archived under its name that may count.
///
/// # Errors
/// [`LogError::Ambiguous`] for two contents, [`LogError::Unreadable`] if what is there cannot be believed.
pub(super) async fn fetch(
    repo: &Repository,
    (cluster, history): (&StoredCluster, &History),
    file: LogFile,
) -> Result<Option<Vec<u8>>, Error> {
    let prefix = LogName::prefix(cluster.id, history.number, file);
    let mut listed = repo.list_logs(&prefix).await?;
    listed.retain(|listed| repo.archives(cluster, &listed.name.writer));
    let Some(first) = listed.first() else { return Ok(None) };
    if let Some(other) = listed.iter().find(|other| other.name.plain != first.name.plain) {
        confirm_difference(repo, file, (first, other), &listed).await?;
    }
    let mut cause = None;
    for candidate in &listed {
        match read(repo, candidate, history).await {
            Ok(content) => return Ok(Some(content)),
            Err(error) if error.class() == Class::Damage => cause = cause.or(Some(Box::new(error))),
            Err(error) => return Err(error),
        }
    }
    Err(LogError::Unreadable { file, cause }.into())
}

/// Fails unless all but one content are garbage that nobody signed: a name alone says nothing.
async fn confirm_difference(
    repo: &Repository,
    file: LogFile,
    (first, other): (&ListedLog, &ListedLog),
    listed: &[ListedLog],
) -> Result<(), Error> {
    let mut good: Option<&ListedLog> = None;
    for candidate in listed {
        match repo.check_log(candidate).await {
            Err(error) if error.is_invalid() => continue,
            Ok(()) => {}
            // What it was, nobody knows.
            Err(error) if error.is_damage() => {
                let (one, other) = (first.name.writer, other.name.writer);
                return Err(LogError::Ambiguous { file, one, other }.into());
            }
            Err(error) => return Err(error.into()),
        }
        match good {
            Some(good) if good.name.plain != candidate.name.plain => {
                let (one, other) = (good.name.writer, candidate.name.writer);
                return Err(LogError::Ambiguous { file, one, other }.into());
            }
            _ => good = Some(candidate),
        }
    }
    Ok(())
}

/// Reads a file, and demands that it is what its name says: whoever stored it may have been wrong.
async fn read(repo: &Repository, listed: &ListedLog, history: &History) -> Result<Vec<u8>, Error> {
    let file = listed.name.file;
    let content = repo.read_log(listed).await?;
    if let LogFile::Segment(name) | LogFile::Partial(name) = file {
        let refused = |source| LogError::Segment { file, source };
        let page = first_page(&content).map_err(refused)?;
        page.belongs_to(&content, name).map_err(refused)?;
        if page.system != history.system {
            let (expected, found) = (history.system, page.system);
            let (cluster, what) = (file.to_string(), "the system identifier");
            return Err(LogError::OtherServer { cluster, what, expected, found }.into());
        }
    }
    Ok(content)
}

async fn absent(
    repo: &Repository,
    (cluster, history): (&StoredCluster, &History),
    file: LogFile,
    allow_gap: bool,
) -> Result<Got, Error> {
    let timeline = match file {
        LogFile::History(_) => None,
        _ => file.segment().map(|name| name.timeline),
    };
    let archived = archived(repo, (cluster, history), timeline).await?;
    match judge(file, &archived) {
        Absence::Gap { .. } if began_later(repo, (cluster, history), file).await? => Ok(Got::Absent),
        Absence::Gap { later } if !allow_gap => Err(LogError::Gap { file, later }.into()),
        Absence::Trimmed if !allow_gap => Err(LogError::Trimmed { file }.into()),
        Absence::Gap { .. } | Absence::Trimmed | Absence::End => Ok(Got::Absent),
    }
}

/// Whether this is the history of a timeline, and nothing is archived of any before it: then it is older than the archive. A server
/// that goes on to a later timeline asks for it all the same; one that looks for the newest began on a timeline before it.
async fn began_later(
    repo: &Repository,
    (cluster, history): (&StoredCluster, &History),
    file: LogFile,
) -> Result<bool, Error> {
    let LogFile::History(asked) = file else { return Ok(false) };
    let listed = repo.list_logs(&LogName::history_prefix(cluster.id, history.number)).await?;
    let timelines = listed.iter().filter_map(|listed| match listed.name.file {
        LogFile::History(timeline) => Some(timeline),
        other => other.segment().map(|name| name.timeline),
    });
    Ok(timelines.min().is_none_or(|first| first >= asked))
}

/// What is archived of one timeline, and the histories of all.
pub(super) async fn archived(
    repo: &Repository,
    (cluster, history): (&StoredCluster, &History),
    timeline: Option<u32>,
) -> Result<Archived, Error> {
    let mut segments: Vec<SegmentName> = Vec::new();
    if let Some(timeline) = timeline {
        let prefix = LogName::timeline_prefix(cluster.id, history.number, timeline);
        let listed = repo.list_logs(&prefix).await?;
        let counts = listed.into_iter().filter(|listed| repo.archives(cluster, &listed.name.writer));
        segments.extend(counts.filter_map(|listed| match listed.name.file {
            LogFile::Segment(name) => Some(name),
            _ => None,
        }));
        segments.dedup();
    }
    let timelines = timelines(repo, (cluster, history)).await?;
    // Listed after the segments: what was deleted before is covered by now.
    let trims = repo.trims_of(cluster.id, history.number).await?;
    let trimmed = timeline.and_then(|timeline| trimmed(&trims, timeline));
    Ok(Archived { segment_size: history.segment_size, segments, timelines, trimmed })
}

/// The histories of all timelines. One that cannot be read is an error: it may say that something was written.
pub(super) async fn timelines(
    repo: &Repository,
    (cluster, history): (&StoredCluster, &History),
) -> Result<BTreeMap<u32, Vec<Origin>>, Error> {
    let listed = repo.list_logs(&LogName::timelines_prefix(cluster.id, history.number)).await?;
    let mut found = BTreeMap::new();
    for listed in listed.into_iter().filter(|listed| repo.archives(cluster, &listed.name.writer)) {
        let LogFile::History(timeline) = listed.name.file else { continue };
        if found.contains_key(&timeline) {
            continue;
        }
        let file = listed.name.file;
        if let Some(content) = fetch(repo, (cluster, history), file).await? {
            let origins = parse_history(timeline, &content);
            found.insert(timeline, origins.map_err(|source| LogError::History { file, source })?);
        }
    }
    Ok(found)
}
