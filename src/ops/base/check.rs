//! Whether a server archives as it should, and could be brought back: asked of it and of the repository at the same time.
//!
//! # Must not
//! Change anything. Only if it is asked to try the archive, the server writes a message to its log that means nothing, and goes on to
//! the next segment.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::super::postgres::{find_cluster, info, missing_segments};
use super::super::snapshots::{SnapshotFilter, SnapshotInfo, check_confirmations, list};
use super::archive::Archive;
use super::restore::reachable;
use super::session::{Archiver, Facts, Session};
use crate::database::PgError;
use crate::database::connection::ConnectOptions;
use crate::error::Error;
use crate::format::cluster::History;
use crate::format::log::{LogFile, LogName, SegmentName};
use crate::format::postgres::PostgresBackup;
use crate::postgres::Lsn;
use crate::repo::{Repository, StoredCluster};

/// The SQLSTATE of what a role may not do.
const FORBIDDEN: &str = "42501";

/// What is to be checked, and what is demanded.
#[derive(Debug, Clone)]
pub struct CheckOptions {
    /// What people call the cluster.
    pub cluster: String,
    /// Where the server is.
    pub connect: ConnectOptions,
    /// Whether the server goes on to the next segment, and how long the archive may take for it.
    pub archive_test: Option<Duration>,
    /// How many segments may be ended and not be in the archive.
    pub max_lag: u64,
    /// How old the newest base backup may be.
    pub max_age: Option<Duration>,
}

/// How something turned out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// As it should be.
    Good,
    /// Worth knowing, and no fault.
    Note,
    /// Not as it should be.
    Missed,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Point {
    /// Its name, a word.
    pub name: &'static str,
    /// How it turned out.
    pub verdict: Verdict,
    /// In words.
    pub text: String,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckReport {
    /// The cluster.
    pub cluster: String,
    /// Where the server's log ends.
    pub current: Lsn,
    /// The last segment of the server's timeline that is in the archive.
    pub last_archived: Option<SegmentName>,
    /// Segments that are ended and not in the archive behind that.
    pub lag: u64,
    /// How long ago the server archived something, by its own clock, if anything waits.
    pub lag_seconds: Option<u64>,
    /// Age of the newest base backup by the store's clock; `None` if there is none, or this key cannot see it.
    pub newest_base: Option<Duration>,
    /// Age of the oldest one.
    pub oldest_base: Option<Duration>,
    /// Between how many pairs of segments something is missing.
    pub gaps: usize,
    /// What was looked at, in order.
    pub points: Vec<Point>,
}

impl CheckReport {
    /// Whether everything is as it should be.
    pub fn is_good(&self) -> bool {
        self.points.iter().all(|point| point.verdict != Verdict::Missed)
    }

    fn say(&mut self, name: &'static str, verdict: Verdict, text: String) {
        self.points.push(Point { name, verdict, text });
    }

    fn demand(&mut self, name: &'static str, good: bool, text: String) {
        self.say(name, if good { Verdict::Good } else { Verdict::Missed }, text);
    }
}

/// Checks.
///
/// # Errors
/// If there is no such cluster, or the server or the store cannot be asked.
pub async fn check(repo: &Repository, options: &CheckOptions) -> Result<CheckReport, Error> {
    let env = repo.env();
    let cluster = find_cluster(repo, Some(&options.cluster)).await?;
    let mut session = Session::open(&options.connect, &env.cancel, &env.clock).await?;
    let facts = session.facts().await?;
    let archiver = session.archiver().await?;
    let mut report = CheckReport {
        cluster: options.cluster.clone(),
        current: archiver.current,
        last_archived: None,
        lag: 0,
        lag_seconds: None,
        newest_base: None,
        oldest_base: None,
        gaps: 0,
        points: Vec::new(),
    };
    server(&mut report, &facts, &archiver);
    let known = cluster.cluster.histories.iter().rfind(|history| history.system == facts.system);
    match known.copied() {
        Some(history) => {
            let place = (&cluster, &history);
            archive(repo, place, (options, &archiver), &mut report).await?;
            if !archiver.standby {
                ahead(&mut session, &history, &mut report).await?;
            }
            bases(repo, place, options, &mut report).await?;
            if let Some(patience) = options.archive_test {
                try_archive(repo, place, (&mut session, archiver.standby, patience), &mut report).await?;
            }
        }
        None => {
            report.demand("server", false, "it is another server than the cluster's record says".to_owned())
        }
    }
    session.end().await;
    Ok(report)
}

/// What the server alone says.
fn server(report: &mut CheckReport, facts: &Facts, archiver: &Archiver) {
    if archiver.standby {
        report.say(
            "role",
            Verdict::Note,
            "it is a standby, which archives only with archive_mode = always".to_owned(),
        );
    }
    let (level, mode) = facts.modes();
    report.demand("wal_level", level != "minimal", format!("wal_level is {level}"));
    let archives = mode == "always" || mode == "on" && !archiver.standby;
    report.demand("archive_mode", archives || archiver.standby, format!("archive_mode is {mode}"));
    let command = archiver.command.as_str();
    if !archiver.library.is_empty() {
        let text =
            format!("archive_library is {:?}, so that archive_command counts for nothing", archiver.library);
        report.demand("archive_command", false, text);
    } else {
        let verdict = match command {
            "" | "(disabled)" => Verdict::Missed,
            command if command.contains("archive-push") => Verdict::Good,
            _ => Verdict::Note,
        };
        report.say("archive_command", verdict, format!("archive_command is {command:?}"));
    }
    let failing = archiver
        .failed_ago
        .is_some_and(|failed| archiver.archived_ago.is_none_or(|archived| failed < archived));
    let text = match (failing, &archiver.last_failed) {
        (true, Some(file)) => format!("archiving {file} fails, {} failures in all", archiver.failures),
        _ => format!("nothing fails, {} failures since the statistics began", archiver.failures),
    };
    report.demand("archiver", !failing, text);
    let checksums = if facts.checksums { Verdict::Good } else { Verdict::Note };
    let text = if facts.checksums {
        "pages have checksums"
    } else {
        "pages have no checksums: a damaged one is not noticed"
    };
    report.say("checksums", checksums, text.to_owned());
    let text = if archiver.may_back_up {
        "this role may take base backups"
    } else {
        "this role may not take base backups: it lacks pg_read_all_settings, or the functions that begin and end one"
    };
    report.say("rights", if archiver.may_back_up { Verdict::Good } else { Verdict::Note }, text.to_owned());
}

/// What the archive has of what the server says.
async fn archive(
    repo: &Repository,
    (cluster, history): (&StoredCluster, &History),
    (options, archiver): (&CheckOptions, &Archiver),
    report: &mut CheckReport,
) -> Result<(), Error> {
    let listed = repo.list_logs(&LogName::history_prefix(cluster.id, history.number)).await?;
    let counts = listed.iter().filter(|listed| repo.archives(cluster, &listed.name.writer));
    let files: BTreeSet<LogFile> = counts.map(|listed| listed.name.file).collect();
    let mut segments: BTreeMap<u32, Vec<SegmentName>> = BTreeMap::new();
    for file in &files {
        if let LogFile::Segment(name) = file {
            segments.entry(name.timeline).or_default().push(*name);
        }
    }
    let number = |name: &SegmentName| name.number(history.segment_size);
    let last = segments.get(&archiver.timeline).and_then(|names| names.iter().max()).copied();
    // The segment that the server writes is not ended.
    let written = archiver.current.0 / u64::from(history.segment_size.max(1));
    report.last_archived = last;
    report.lag = match last.as_ref().and_then(number) {
        Some(last) => written.saturating_sub(last + 1),
        // The timeline may have begun just now: what an earlier one has of the archive does not wait.
        None => {
            let earlier = segments.iter().filter(|(timeline, _)| **timeline < archiver.timeline);
            let last = earlier.flat_map(|(_, names)| names).filter_map(number).max();
            written.saturating_sub(last.map_or(0, |last| last + 1))
        }
    };
    if report.lag > 0 {
        report.lag_seconds = archiver.archived_ago;
    }
    let named = last.map_or("nothing of this timeline".to_owned(), |name| name.to_string());
    let text =
        format!("the archive has {named}, the server is at {}: {} segments wait", report.current, report.lag);
    report.demand("lag", report.lag <= options.max_lag, text);
    if let Some(Ok(said)) = archiver.last_archived.as_deref().map(str::parse::<LogFile>) {
        let trims = repo.trims_of(cluster.id, history.number).await?;
        let covered = |name| trims.iter().any(|stored| stored.trim.covers(name, history.segment_size));
        let there = said.segment().is_some_and(covered) || files.contains(&said);
        let text = match there {
            true => format!("{said}, which the server archived last, is there"),
            false => format!(
                "{said}, which the server archived last, is not in this archive: its command archives elsewhere"
            ),
        };
        report.demand("reached", there, text);
    }
    let gaps = missing_segments(repo, (cluster, history), segments).await?;
    report.gaps = gaps.len();
    let text = match gaps.first() {
        None => "the log has no gap".to_owned(),
        Some((last, next)) => {
            format!("the log has {} gaps, the first after {last} and before {next}", gaps.len())
        }
    };
    report.demand("gaps", gaps.is_empty(), text);
    Ok(())
}

/// An archive cannot be ahead of the server that it is of. It was listed after the server was asked, so that is asked again.
async fn ahead(session: &mut Session, history: &History, report: &mut CheckReport) -> Result<(), Error> {
    let Some(last) = report.last_archived else { return Ok(()) };
    let Some(start) = last.start(history.segment_size).filter(|start| *start > report.current.0) else {
        return Ok(());
    };
    let now = session.archiver().await?;
    if now.timeline == last.timeline && start > now.current.0 {
        let text = format!(
            "the archive has {last}, which this server, at {}, has not written: another server archives into it, or this one was set back",
            now.current
        );
        report.demand("ahead", false, text);
    }
    Ok(())
}

/// How old the base backups are that can be restored, and whether there are others.
async fn bases(
    repo: &Repository,
    (cluster, history): (&StoredCluster, &History),
    options: &CheckOptions,
    report: &mut CheckReport,
) -> Result<(), Error> {
    if repo.secrets().metadata.is_none() {
        report.say("base", Verdict::Note, "this key cannot see base backups".to_owned());
        return Ok(());
    }
    let now = repo.env().clock.now();
    let mut found = list(repo, &SnapshotFilter::default()).await?.snapshots;
    found.retain(|info| info.confirmed && info.forgotten.is_none() && repo.archives(cluster, &info.writer));
    found.retain(|info| {
        let of = |base: &PostgresBackup| (base.cluster, base.history) == (cluster.id, history.number);
        info.snapshot.postgres.as_ref().is_some_and(of)
    });
    check_confirmations(repo, &mut found).await?;
    found.retain(|info| info.confirmed);
    let archives = info(repo, Some(&cluster.cluster.name)).await?.into_iter().flat_map(|one| one.histories);
    let archive = { archives }.find(|one| one.history.number == history.number);
    let can_be = |info: &SnapshotInfo| {
        let base = info.snapshot.postgres.as_ref();
        base.zip(archive.as_ref()).is_some_and(|(base, archive)| !reachable(base, archive).is_empty())
    };
    let (good, torn): (Vec<_>, Vec<_>) = found.into_iter().partition(can_be);
    if let Some(first) = torn.first() {
        let (count, id) = (torn.len(), first.id.short());
        let text = format!("of {count} base backups the archive lacks log that they need, the first is {id}");
        report.demand("base_log", false, text);
    }
    let age = |info: &SnapshotInfo| {
        Duration::from_nanos(u64::try_from(now.0.saturating_sub(info.stored.0)).unwrap_or(0))
    };
    let ages: Vec<Duration> = good.iter().map(age).collect();
    (report.newest_base, report.oldest_base) = (ages.iter().min().copied(), ages.iter().max().copied());
    let hours = |age: Duration| format!("{} h", age.as_secs() / 3600);
    let (good, text) = match (report.newest_base, report.oldest_base) {
        (Some(newest), Some(oldest)) => {
            let text =
                format!("the newest base backup is {} old, the oldest {}", hours(newest), hours(oldest));
            (options.max_age.is_none_or(|most| newest <= most), text)
        }
        _ => (false, "there is no base backup that can be restored".to_owned()),
    };
    report.demand("base", good, text);
    Ok(())
}

/// Lets the server end its segment, and waits for it.
async fn try_archive(
    repo: &Repository,
    (cluster, history): (&StoredCluster, &History),
    (session, standby, patience): (&mut Session, bool, Duration),
    report: &mut CheckReport,
) -> Result<(), Error> {
    if standby {
        let text = "nothing was tried: a standby ends no segment of its log".to_owned();
        report.say("archive_test", Verdict::Note, text);
        return Ok(());
    }
    let segment = match session.switch().await {
        Ok(segment) => segment,
        Err(error @ PgError::Server { .. }) => {
            let text = match error.code() {
                Some(FORBIDDEN) => "this role may not call pg_switch_wal(), so nothing was tried".to_owned(),
                _ => format!("the segment could not be ended, so nothing was tried: {error}"),
            };
            report.demand("archive_test", false, text);
            return Ok(());
        }
        Err(error) => return Err(error.into()),
    };
    let archive = Archive::known(repo, (cluster.id, history));
    let number = segment.number(history.segment_size).unwrap_or_default();
    let lacking = archive.wait(segment.timeline, number..=number, patience).await?;
    let text = match lacking.is_empty() {
        true => format!("{segment} came into the archive"),
        false => format!("{segment} did not come into the archive within {} s", patience.as_secs()),
    };
    report.demand("archive_test", lacking.is_empty(), text);
    Ok(())
}
