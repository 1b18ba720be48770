//! Logs of databases: what no base backup needs is condemned by a trim, and deleted when that has stood for the grace.
//!
//! # Invariants
//! Trims are listed before snapshots, and those before the files of a log. What a trim covers is judged anew by the base backups
//! that are there then; a file goes only if it was in the store before the trim was. So a snapshot that is undeleted or held in
//! time keeps its log, and whoever has found a way through the log has the grace to go it. Files go the oldest first, a few at once, and
//! no others before those are gone. Before every few thousand it is looked whether there are snapshots that were not seen.
//!
//! # Crash
//! A trim without its deletions: the next collection goes on, with what is not needed then. Files that are gone are covered by a
//! trim that stands.
//!
//! # Must not
//! Delete the history of a timeline, or what somebody stored who may not archive the cluster's log.

mod plan;
#[cfg(test)]
mod tests;

use std::collections::HashSet;

use futures::{StreamExt, TryStreamExt};

use self::plan::{Archive, Base, LogRules, Needs, Split, below, doomed, needs, outdated, split};
use super::remove::delete;
use super::world::{BaseRange, World, read_roots, still_counts, warn};
use super::{LOOKS, Run};
use crate::clock::Timestamp;
use crate::error::Error;
use crate::event::Counters;
use crate::format::cluster::History;
use crate::format::gc::TIMELINES_MAX;
use crate::format::layout::ObjectName;
use crate::format::log::LogName;
use crate::id::{ClusterId, SnapshotId};
use crate::repo::{Listed, ListedLog, RepoError, Repository, StoredCluster, StoredTrim};

/// Before so many deletions it is looked whether there are snapshots that were not seen.
const LOOK_EVERY: usize = 4096;

/// What a collection did to logs, or would do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogReport {
    /// Files that were deleted.
    pub deleted: u64,
    /// Bytes of these.
    pub deleted_bytes: u64,
    /// Files that no base backup needs, and that wait for their time.
    pub condemned: u64,
    /// Bytes of these.
    pub condemned_bytes: u64,
    /// When the last of them may be deleted.
    pub due: Option<Timestamp>,
}

/// What is known of logs before snapshots are listed.
pub(super) struct Known {
    clusters: Vec<StoredCluster>,
    trims: Vec<StoredTrim>,
}

impl Known {
    /// Lists clusters and trims. Of a cluster whose record cannot be believed nothing is known, so nothing of any goes.
    pub(super) async fn list(repo: &Repository) -> Result<Self, Error> {
        let clusters = match repo.clusters().await {
            Ok(clusters) => clusters,
            Err(error)
                if error.is_invalid()
                    || error.is_damage()
                    || matches!(error, RepoError::ClusterConflict { .. }) =>
            {
                warn(repo, &format!("the logs of databases were left alone: {error}"));
                Vec::new()
            }
            Err(error) => return Err(error.into()),
        };
        let mut trims = Vec::new();
        if !clusters.is_empty() {
            let mut problems = Vec::new();
            trims = repo.trims(&mut problems).await?;
            for problem in problems {
                warn(repo, &format!("object {} was skipped: {}", problem.key, problem.error));
            }
        }
        Ok(Self { clusters, trims })
    }
}

/// What was found of one log.
struct Log {
    cluster: ClusterId,
    history: u64,
    segment_size: u32,
    needs: Needs,
    split: Split,
}

/// What was judged of all logs.
#[derive(Default)]
pub(super) struct Judged {
    logs: Vec<Log>,
    trims: Vec<StoredTrim>,
}

impl Judged {
    /// Whether a file that is gone already was meant to go: a trim covers it, and nothing needs it.
    pub(super) fn may_go(&self, name: &LogName) -> bool {
        let log = self.logs.iter().find(|log| (log.cluster, log.history) == (name.cluster, name.history));
        let Some((log, segment)) = log.zip(name.file.segment()) else { return false };
        let of = |trim: &&StoredTrim| trim.is_of(log.cluster, log.history);
        let covered = self.trims.iter().filter(of).any(|trim| trim.trim.covers(segment, log.segment_size));
        covered && !log.needs.is_needed(name.file)
    }
}

/// Condemns, deletes, and gives what was judged. The snapshots of `world` were listed after what is `known`.
pub(super) async fn collect(
    run: &Run<'_>,
    (mut world, mut known): (World, Known),
    report: &mut super::PruneReport,
) -> Result<Judged, Error> {
    if known.clusters.is_empty() {
        return Ok(Judged::default());
    }
    let repo = run.repo;
    let mut logs = judge(run, &world, &known).await?;
    if run.options.dry_run {
        let (trims, report) = (known.trims, &mut report.logs);
        logs.iter().for_each(|log| account(log, (run, true), report));
        return Ok(Judged { logs, trims });
    }
    let hurried = run.options.grace.is_zero();
    if hurried && logs.iter().any(|log| !log.split.new.is_empty() || !log.split.go.is_empty()) {
        run.refuse_at_work(&world)?;
    }
    if condemn(repo, &logs).await? && hurried {
        known = Known::list(repo).await?;
        world = run.look().await?;
        logs = judge(run, &world, &known).await?;
    }
    let mut looks = 1;
    while !remove(run, &logs, &world, &mut report.logs).await? {
        if looks == LOOKS {
            warn(
                repo,
                "files of logs are left for the next collection: base backups come faster than they are looked at",
            );
            break;
        }
        looks += 1;
        known = Known::list(repo).await?;
        world = run.look().await?;
        logs = judge(run, &world, &known).await?;
    }
    logs.iter().for_each(|log| account(log, (run, false), &mut report.logs));
    let rules = rules(run);
    let outdated = outdated(&known.trims, &rules);
    if !outdated.is_empty() {
        still_counts(repo).await?;
    }
    for trim in outdated {
        delete(repo, ObjectName::Trimmed(trim.hash)).await?;
    }
    Ok(Judged { logs, trims: known.trims })
}

/// Whether there is a base backup that was not seen. What cannot be read may be one: its writer may be registered since. Others need
/// no log.
async fn has_new_base(repo: &Repository, seen: &mut HashSet<SnapshotId>) -> Result<bool, Error> {
    let mut new = repo.list_snapshots().await?;
    new.retain(|listed| !seen.contains(&listed.id));
    let roots = read_roots(repo, &new).await?;
    seen.extend(new.iter().map(|listed| listed.id));
    Ok(!roots.unread.is_empty() || roots.read.iter().any(|root| root.base.is_some()))
}

/// Deletes what is to go, in order; false if it stopped because base backups were stored that `world` does not show.
async fn remove(run: &Run<'_>, logs: &[Log], world: &World, report: &mut LogReport) -> Result<bool, Error> {
    let repo = run.repo;
    let mut seen: HashSet<SnapshotId> = world.snapshots.iter().map(|listed| listed.id).collect();
    let go: Vec<&ListedLog> = logs.iter().flat_map(|log| &log.split.go).collect();
    for part in go.chunks(LOOK_EVERY) {
        still_counts(repo).await?;
        if has_new_base(repo, &mut seen).await? {
            return Ok(false);
        }
        for few in part.chunks(repo.env().limits.requests.max(1)) {
            run.stop_if_asked()?;
            let requests = futures::stream::iter(few)
                .map(|listed| async move { delete(repo, ObjectName::Log(listed.name)).await });
            requests.buffer_unordered(few.len()).try_collect::<()>().await?;
            let bytes = few.iter().map(|listed| listed.size).sum();
            report.deleted += few.len() as u64;
            report.deleted_bytes += bytes;
            Counters::add(&repo.env().observer.counters().bytes, bytes);
        }
    }
    Ok(true)
}

fn rules(run: &Run<'_>) -> LogRules {
    LogRules { now: run.now, grace: run.options.grace }
}

/// Puts a trim for each log of which something is to go that none covers, or several if there are more timelines than one may hold.
/// Whether there was any.
async fn condemn(repo: &Repository, logs: &[Log]) -> Result<bool, Error> {
    let mut put = false;
    for log in logs.iter().filter(|log| !log.split.new.is_empty()) {
        for part in below(&log.split.new, &log.needs).chunks(TIMELINES_MAX) {
            repo.put_trim((log.cluster, log.history), part.to_vec()).await?;
            put = true;
        }
    }
    Ok(put)
}

fn account(log: &Log, (run, would): (&Run<'_>, bool), report: &mut LogReport) {
    let bytes = |files: &[ListedLog]| files.iter().map(|listed| listed.size).sum::<u64>();
    let Split { go, wait, due, new } = &log.split;
    if would {
        report.deleted += go.len() as u64;
        report.deleted_bytes += bytes(go);
    }
    report.condemned += (wait.len() + new.len()) as u64;
    report.condemned_bytes += bytes(wait) + bytes(new);
    let fresh = (!new.is_empty()).then(|| crate::clock::later(run.now, run.options.grace));
    report.due = report.due.max(*due).max(fresh);
}

/// Judges every log that has base backups.
async fn judge(run: &Run<'_>, world: &World, known: &Known) -> Result<Vec<Log>, Error> {
    let repo = run.repo;
    let ids = world.bases.iter().map(|(listed, _)| listed.id).collect();
    let forgotten: HashSet<SnapshotId> = repo.standing_tombs(&ids).await?.into_keys().collect();
    let mut logs = Vec::new();
    for cluster in &known.clusters {
        for history in &cluster.cluster.histories {
            let Some(bases) = bases(repo, (cluster, history), (&world.bases, &forgotten)).await? else {
                continue;
            };
            let mut files = repo.list_logs(&LogName::history_prefix(cluster.id, history.number)).await?;
            files.retain(|listed| repo.archives(cluster, &listed.name.writer));
            let archive = Archive { segment_size: history.segment_size, files: &files, bases: &bases };
            let rules = rules(run);
            let Some(needs) = needs(&archive, &rules) else { continue };
            let (id, history, segment_size) = (cluster.id, history.number, history.segment_size);
            let of: Vec<StoredTrim> =
                known.trims.iter().filter(|trim| trim.is_of(id, history)).cloned().collect();
            let split = split(doomed(&archive, &needs, run.now), &of, (&rules, segment_size));
            logs.push(Log { cluster: id, history, segment_size, needs, split });
        }
    }
    Ok(logs)
}

/// The base backups of one log; `None` if there are none, or one that is not understood.
async fn bases(
    repo: &Repository,
    (cluster, history): (&StoredCluster, &History),
    (known, forgotten): (&[(Listed, BaseRange)], &HashSet<SnapshotId>),
) -> Result<Option<Vec<Base>>, Error> {
    let mut bases = Vec::new();
    for (listed, range) in
        known.iter().filter(|(_, range)| (range.cluster, range.history) == (cluster.id, history.number))
    {
        if (range.system, range.segment_size) != (history.system, history.segment_size) {
            let (name, id) = (&cluster.cluster.name, listed.id.short());
            warn(
                repo,
                &format!("the log of cluster {name} was left alone: snapshot {id} is of another server"),
            );
            return Ok(None);
        }
        let counts =
            repo.archives(cluster, &listed.writer) && listed.confirmed && repo.is_confirmed(*listed).await?;
        bases.push(Base {
            timeline: range.timeline,
            start: range.start,
            stop: range.stop,
            stored: listed.stored,
            forgotten: forgotten.contains(&listed.id),
            counts,
        });
    }
    Ok((!bases.is_empty()).then_some(bases))
}
