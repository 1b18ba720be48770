//! Base backups of PostgreSQL: a data directory while its server runs, and back again to a moment.
//!
//! # Invariants
//! A snapshot is made only of a backup that the server brought to its end: label and tablespace map are in it. What changes
//! or vanishes while it is read is normal, because recovery repeats it from the log; what cannot be read ends the backup.
//!
//! # Crash
//! The server forgets a backup when its session ends, and no snapshot was made of it: what is stored is found again by the
//! next run. See [`restore`] for the other way.
//!
//! # Must not
//! Wait for the server's archiver inside the server: a wait that is interrupted there loses the label for ever.

mod archive;
mod check;
mod copy;
mod owner;
pub mod restore;
mod session;
mod spill;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc::channel;

use self::archive::Archive;
pub use self::check::{CheckOptions, CheckReport, Point, Verdict, check};
pub use self::copy::WrongPage;
use self::copy::{Copied, Copier, Step};
use self::session::{Facts, Session, Started, Stopped};
use super::backup::{BackupOptions, BackupSource, BackupSummary, Feed, Foreign, Own, save_own};
use crate::crypto::context;
use crate::database::connection::ConnectOptions;
use crate::database::label::{self, LABEL, Label, MAP};
use crate::database::lsn::segments;
use crate::database::manifest::{MANIFEST, Range, Sum};
use crate::error::{BaseError, Error};
use crate::format::node::{FileTime, Node, NodeKind};
use crate::format::postgres::PostgresBackup;
use crate::format::snapshot::Snapshot;
use crate::postgres::Lsn;
use crate::repo::{RepoError, Repository};

/// Steps of a copy on their way, each of at most [`copy::PIECE`] bytes.
const STEPS: usize = 32;
/// How often the session is used while files are copied, so that nothing on the way forgets it and its end is noticed.
const PING: Duration = Duration::from_secs(20);
/// How long the archive may take for the segment before the backup: longer means that it is not set up.
const EARLY: Duration = Duration::from_secs(60);

/// What is to be backed up, and how.
#[derive(Debug, Clone)]
pub struct BaseBackupOptions {
    /// What people call the cluster.
    pub cluster: String,
    /// Where the server is.
    pub connect: ConnectOptions,
    /// Whether the checkpoint that it begins with is made at once, or spread over time.
    pub fast: bool,
    /// How long is waited for the log of the backup to be in the archive.
    pub wait: Duration,
    /// Name of the machine.
    pub host: Vec<u8>,
    /// Name of the user.
    pub user: Vec<u8>,
    /// Tags, `key` or `key=value`.
    pub tags: Vec<String>,
    /// Level of zstd.
    pub level: i32,
}

/// What a base backup did.
#[derive(Debug, Clone)]
pub struct BaseBackupSummary {
    /// As of any backup.
    pub backup: BackupSummary,
    /// What the snapshot says of it.
    pub postgres: PostgresBackup,
    /// The first of the pages whose checksum is wrong.
    pub wrong: Vec<WrongPage>,
    /// Segments of the log that the archive lacked when the wait was over, by name.
    pub lacking: Vec<String>,
}

/// Saves the data directory of a running server as a new snapshot.
///
/// # Errors
/// [`BaseError`] if the server, its settings or its files do not allow it; what the store says.
pub async fn base_backup(repo: &Repository, options: &BaseBackupOptions) -> Result<BaseBackupSummary, Error> {
    let env = repo.env();
    let mut session = Session::open(&options.connect, &env.cancel, &env.clock).await?;
    let facts = session.facts().await?;
    session.end().await;
    facts.check()?;
    let archive = Archive::of(repo, &options.cluster, &facts).await?;
    let wanted = BackupOptions {
        job: Some(job(&options.cluster)),
        host: options.host.clone(),
        user: options.user.clone(),
        tags: options.tags.clone(),
        level: options.level,
        ..BackupOptions::new(BackupSource::Paths(vec![facts.directory.clone()]))
    };
    let base = Base { repo, options, facts, archive, done: Mutex::new(None) };
    let backup = Box::pin(save_own(repo, &wanted, &base)).await?;
    let done = base.done.into_inner().unwrap_or_else(PoisonError::into_inner);
    // Without it no snapshot would have been made.
    let Some(Done { postgres, wrong, lacking }) = done else { return Err(Error::Cancelled) };
    Ok(BaseBackupSummary { backup, postgres, wrong, lacking })
}

/// The job of a cluster's base backups.
pub fn job(cluster: &str) -> String {
    format!("postgres {cluster}")
}

/// A base backup on its way.
struct Base<'a> {
    repo: &'a Repository,
    options: &'a BaseBackupOptions,
    facts: Facts,
    archive: Archive<'a>,
    done: Mutex<Option<Done>>,
}

#[derive(Debug, Clone)]
struct Done {
    postgres: PostgresBackup,
    wrong: Vec<WrongPage>,
    lacking: Vec<String>,
}

impl Foreign for Base<'_> {
    async fn send(&self, feed: &mut Feed) -> Result<(), Error> {
        let env = self.repo.env();
        let mut session = Session::open(&self.options.connect, &env.cancel, &env.clock).await?;
        let facts = session.facts().await?;
        if !facts.same_server(&self.facts) {
            return Err(BaseError::OtherServer.into());
        }
        facts.check()?;
        let started = session.start(&facts, self.options.fast).await?;
        self.check_early(&started).await?;
        let copied = self.copy(feed, &mut session, &started).await?;
        let stopped = session.stop(&facts).await?;
        session.end().await;
        let done = self.complete(feed, (started, stopped), copied).await?;
        *self.done.lock().unwrap_or_else(PoisonError::into_inner) = Some(done);
        Ok(())
    }

    /// The server's part is done, and everything is stored: now the log of the backup is waited for.
    async fn stands(&self) -> Result<bool, Error> {
        let done = self.done.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(mut done) = done else { return Ok(false) };
        let PostgresBackup { start, stop, timeline, .. } = done.postgres;
        let needed = segments(Lsn(start), Lsn(stop), self.facts.segment_size);
        done.lacking = self.archive.wait(timeline, needed, self.options.wait).await?;
        done.postgres.complete = done.lacking.is_empty();
        *self.done.lock().unwrap_or_else(PoisonError::into_inner) = Some(done);
        Ok(true)
    }
}

impl Own for Base<'_> {
    fn total(&self) -> Option<u64> {
        Some(self.facts.size)
    }

    fn describe(&self, run: Snapshot) -> Snapshot {
        let done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        Snapshot { postgres: done.as_ref().map(|done| done.postgres.clone()), ..run }
    }

    /// A collector that listed snapshots before this one was stored may have taken its log away, or be about to: it sees to it that a
    /// trim is there first.
    async fn is_kept(&self) -> Result<bool, Error> {
        let done = self.done.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(done) = done.filter(|done| done.postgres.complete) else { return Ok(true) };
        let PostgresBackup { start, stop, timeline, .. } = done.postgres;
        self.archive.keeps(timeline, segments(Lsn(start), Lsn(stop), self.facts.segment_size)).await
    }
}

impl Base<'_> {
    /// An archive that does not work is better known now than after hours. The start of a backup ends a segment, so there is one
    /// to be archived.
    async fn check_early(&self, started: &Started) -> Result<(), Error> {
        let first = started.start.0 / u64::from(self.facts.segment_size);
        let Some(before) = first.checked_sub(1).filter(|before| *before > 0) else { return Ok(()) };
        let patience = self.options.wait.min(EARLY);
        let lacking = self.archive.wait(started.timeline, before..=before, patience).await?;
        match lacking.into_iter().next() {
            Some(segment) => Err(BaseError::ArchiveSilent { segment, seconds: patience.as_secs() }.into()),
            None => Ok(()),
        }
    }

    async fn copy(&self, feed: &mut Feed, session: &mut Session, started: &Started) -> Result<Copied, Error> {
        let env = self.repo.env();
        let (steps, mut arriving) = channel(STEPS);
        let hard_links = Arc::new(self.repo.dedup_key(context::HARD_LINK)?);
        let copier = Copier::new(self.facts.layout(), started.clone(), (steps, env, hard_links));
        let job = tokio::task::spawn_blocking(move || copier.run());
        let mut used = env.clock.monotonic();
        loop {
            let step = tokio::time::timeout(PING, arriving.recv()).await;
            let now = env.clock.monotonic();
            if now.saturating_sub(used) >= PING || step.is_err() {
                session.ping().await?;
                used = now;
            }
            match step {
                Ok(Some(step)) => deliver(feed, step).await?,
                Ok(None) => break,
                Err(_) => {}
            }
        }
        job.await.map_err(|_| RepoError::Task)?
    }

    /// Adds what is known only now: label, map and manifest.
    async fn complete(
        &self,
        feed: &mut Feed,
        (started, stopped): (Started, Stopped),
        copied: Copied,
    ) -> Result<Done, Error> {
        let facts = &self.facts;
        let bad = |what| Error::from(BaseError::BadLabel { what });
        let read = Label::parse(&stopped.label).ok_or_else(|| bad("label"))?;
        if (read.start, read.timeline) != (started.start, started.timeline) {
            return Err(bad("label"));
        }
        let map = label::parse_map(&stopped.map).ok_or_else(|| bad("tablespace map"))?;
        if !map.iter().eq(started.tablespaces.iter().map(|space| (&space.oid, &space.place))) {
            return Err(BaseError::TablespacesChanged.into());
        }
        let time = FileTime { seconds: stopped.time / 1_000_000_000, nanos: 0 };
        let Copied { owner, mut manifest, wrong, wrong_count } = copied;
        let private = |name: &str| {
            let node = owner.entry(name.as_bytes(), NodeKind::File);
            Node { mtime: time, ..node }
        };
        let mut files = vec![(LABEL, stopped.label)];
        if !stopped.map.is_empty() {
            files.push((MAP, stopped.map));
        }
        for (name, content) in files {
            let mut sum = Sum::new();
            sum.update(&content);
            let spill = |source| Error::Local { path: PathBuf::from(MANIFEST), source };
            let entry = (time, &*sum.finish());
            manifest.file(name.as_bytes(), content.len() as u64, entry).map_err(spill)?;
            send_file(feed, private(name), Bytes::from(content)).await?;
        }
        let range = Range { timeline: started.timeline, start: started.start, end: stopped.stop };
        self.send_manifest(feed, private(MANIFEST), manifest.finish(range)).await?;
        let postgres = PostgresBackup {
            cluster: self.archive.cluster,
            history: self.archive.history,
            system: facts.system,
            version: facts.version,
            segment_size: facts.segment_size,
            timeline: started.timeline,
            start: started.start.0,
            stop: stopped.stop.0,
            started: started.time,
            stopped: stopped.time,
            complete: false,
            checksums: facts.checksums,
            wrong_pages: wrong_count,
            settings: facts.settings.clone(),
            tablespaces: started.tablespaces,
        };
        Ok(Done { postgres, wrong, lacking: Vec::new() })
    }

    async fn send_manifest(
        &self,
        feed: &mut Feed,
        mut node: Node,
        manifest: std::io::Result<(spill::Spill, u64)>,
    ) -> Result<(), Error> {
        let failed = |source| Error::Local { path: PathBuf::from(MANIFEST), source };
        let (mut spill, size) = manifest.map_err(failed)?;
        node.size = size;
        feed.begin(node).await?;
        spill.rewind().map_err(failed)?;
        while let Some(piece) = spill.read().map_err(failed)? {
            feed.data(piece).await?;
        }
        feed.end().await
    }
}

async fn deliver(feed: &mut Feed, step: Step) -> Result<(), Error> {
    match step {
        Step::Enter(node) => feed.enter(*node).await,
        Step::Leave => feed.leave().await,
        Step::Entry(node) => feed.entry(*node).await,
        Step::Begin(node) => feed.begin(*node).await,
        Step::Data(content) => feed.data(content).await,
        Step::End => feed.end().await,
    }
}

async fn send_file(feed: &mut Feed, mut node: Node, content: Bytes) -> Result<(), Error> {
    node.size = content.len() as u64;
    feed.begin(node).await?;
    feed.data(content).await?;
    feed.end().await
}
