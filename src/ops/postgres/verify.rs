//! `verify`: every segment of a history is opened and gone through, from each to the next.

use std::collections::BTreeMap;

use super::cluster::find_cluster;
use super::get::{fetch, timelines};
use super::trimmed::Trimmed;
use crate::class::Class;
use crate::error::{Error, LogError};
use crate::format::cluster::History;
use crate::format::log::{LogFile, LogName, SegmentName};
use crate::postgres::{Origin, Walker};
use crate::repo::{Repository, StoredCluster};

/// What is to be verified.
#[derive(Debug, Clone, Default)]
pub struct VerifyOptions {
    /// The cluster's name; `None` for the only one there is.
    pub cluster: Option<String>,
    /// Only this timeline.
    pub timeline: Option<u32>,
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VerifySummary {
    /// The cluster's name.
    pub cluster: String,
    /// Segments that were opened and gone through.
    pub segments: u64,
    /// Records in them.
    pub records: u64,
    /// Commits among them.
    pub commits: u64,
    /// Time of the first commit, nanoseconds since 1970.
    pub first_commit: Option<i64>,
    /// Time of the last commit.
    pub last_commit: Option<i64>,
    /// Files that cannot be replayed, and why.
    pub bad: Vec<(LogFile, String)>,
    /// Between these two segments there are none.
    pub gaps: Vec<(SegmentName, SegmentName)>,
    /// Between these two segments a collector removed what no base backup needed.
    pub removed: Vec<(SegmentName, SegmentName)>,
}

/// Opens and goes through every segment of the history that goes on, timeline by timeline.
///
/// # Errors
/// What stops it. What is wrong with the log is in the summary.
pub async fn verify(repo: &Repository, options: &VerifyOptions) -> Result<VerifySummary, Error> {
    let cluster = find_cluster(repo, options.cluster.as_deref()).await?;
    let history = *cluster.cluster.current().ok_or(LogError::NoClusters)?;
    let origins = timelines(repo, (&cluster, &history)).await?;
    let mut all: BTreeMap<u32, Vec<SegmentName>> = BTreeMap::new();
    for listed in repo.list_logs(&LogName::history_prefix(cluster.id, history.number)).await? {
        if let (LogFile::Segment(name), true) =
            (listed.name.file, repo.archives(&cluster, &listed.name.writer))
        {
            all.entry(name.timeline).or_default().push(name);
        }
    }
    let mut run = Run {
        repo,
        place: (&cluster, &history),
        walker: Walker::new(),
        summary: VerifySummary { cluster: cluster.cluster.name.clone(), ..VerifySummary::default() },
    };
    for (timeline, segments) in &mut all {
        segments.dedup();
        if options.timeline.is_none_or(|wanted| wanted == *timeline) {
            run.timeline(segments, origins.get(timeline).and_then(|origins| origins.last())).await?;
        }
    }
    let mut summary = run.summary;
    if !summary.gaps.is_empty() {
        let trimmed = Trimmed::of(repo, (&cluster, &history)).await?;
        (summary.removed, summary.gaps) =
            summary.gaps.into_iter().partition(|(last, next)| trimmed.between(*last, *next));
    }
    Ok(summary)
}

struct Run<'a> {
    repo: &'a Repository,
    place: (&'a StoredCluster, &'a History),
    walker: Walker,
    summary: VerifySummary,
}

impl Run<'_> {
    async fn timeline(&mut self, segments: &[SegmentName], origin: Option<&Origin>) -> Result<(), Error> {
        let size = self.place.1.segment_size;
        self.walker = Walker::new();
        if let (Some(first), Some(origin)) = (segments.first(), origin) {
            self.seed(*first, origin).await?;
        }
        let mut before: Option<SegmentName> = None;
        for segment in segments {
            if self.repo.env().cancel.is_raised() {
                return Err(Error::Cancelled);
            }
            let follows = before.and_then(|before| before.start(size)?.checked_add(size.into()));
            if let Some(before) = before.filter(|_| follows != segment.start(size)) {
                self.summary.gaps.push((before, *segment));
                self.walker = Walker::new();
            }
            self.segment(*segment).await?;
            before = Some(*segment);
        }
        Ok(())
    }

    /// What the first segment of a timeline follows is the last whole one of the timeline that it came from.
    async fn seed(&mut self, first: SegmentName, origin: &Origin) -> Result<(), Error> {
        let size = self.place.1.segment_size;
        let began = SegmentName::at(first.timeline, origin.left_at.0, size);
        let before = first.start(size).and_then(|start| start.checked_sub(1));
        let Some(before) = before.filter(|_| began == first) else { return Ok(()) };
        let name = SegmentName::at(origin.timeline, before, size);
        // It is gone through, and complained of, with its own timeline.
        if let Ok(Some(content)) = fetch(self.repo, self.place, LogFile::Segment(name)).await
            && self.walker.walk(&content, name).is_err()
        {
            self.walker = Walker::new();
        }
        Ok(())
    }

    async fn segment(&mut self, name: SegmentName) -> Result<(), Error> {
        let file = LogFile::Segment(name);
        let content = match fetch(self.repo, self.place, file).await {
            Ok(Some(content)) => content,
            Ok(None) => return self.gone(file).await,
            Err(error) if matches!(error.class(), Class::Damage | Class::Tampered) => {
                return self.bad(file, &told(&error));
            }
            Err(error) => return Err(error),
        };
        match self.walker.walk(&content, name) {
            Ok(found) => {
                let summary = &mut self.summary;
                summary.segments += 1;
                summary.records += found.records;
                summary.commits += found.commits;
                summary.first_commit = summary.first_commit.or(found.first_commit);
                summary.last_commit = summary.last_commit.max(found.last_commit);
                Ok(())
            }
            Err(error) => self.bad(file, &error.to_string()),
        }
    }

    /// A segment is gone since it was listed: unless a collector has removed it, that is not as it should be.
    async fn gone(&mut self, file: LogFile) -> Result<(), Error> {
        let (cluster, history) = self.place;
        let trims = self.repo.trims_of(cluster.id, history.number).await?;
        let covered = |name| trims.iter().any(|stored| stored.trim.covers(name, history.segment_size));
        match file.segment().is_some_and(covered) {
            true => self.walker = Walker::new(),
            false => self.bad(file, "it is not there any more")?,
        }
        Ok(())
    }

    fn bad(&mut self, file: LogFile, why: &str) -> Result<(), Error> {
        self.walker = Walker::new();
        self.summary.bad.push((file, why.to_owned()));
        Ok(())
    }
}

/// An error with its causes, on one line.
fn told(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
