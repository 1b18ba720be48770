//! A snapshot, or a part of it, as a tar or zip archive, written in one pass and without temporary files.
//!
//! The walk reads the tree in order and says for each chunk in which segment it is. Segments are fetched ahead, a few requests
//! at a time, and opened on several threads; batches of entries are put together from them on several threads, and every chunk
//! is compared with its id there. The encoder takes batch after batch and turns them into the archive, and a thread of its own
//! writes that.
//!
//! # Invariants
//! No byte of content is written whose chunk id was not computed again. Entries come in the order of the tree, parents first.
//! Memory is bounded by the room of the segments and a few batches; beside that, the first names of hard links are remembered,
//! and by a zip archive some bytes for each entry. What cannot be had is left out, counted and named; see
//! `docs/decisions/0010-a-damaged-file-in-an-archive.md` for content that is lost when a part of it is written.
//!
//! # Crash
//! A file has its name when the archive is complete and on the disk. Before that it is named `.lifeboat-…` beside it, and nothing
//! reads it; a run that is killed leaves it behind. What was written to a pipe stays written, without an end.
//!
//! # Must not
//! Write a name that is not relative and of plain components, or recurse over anything that is stored.

mod assemble;
mod encode;
mod entry;
mod fetch;
mod place;
mod run;
mod segments;
mod sink;
mod tar;
mod walk;
mod zip;

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::try_join3;
use futures::stream::FuturesOrdered;
use tokio::sync::mpsc::{self, Receiver};

use self::assemble::{Step, assemble};
use self::encode::{Encoder, Format};
use self::place::Place;
use self::run::Run;
use self::segments::{Pace, Segments};
use self::sink::Sink;
use self::walk::Walk;
use crate::crypto::context;
use crate::error::Error;
use crate::event::{Event, Phase};
use crate::filter::Filter;
use crate::format::node::NodeKind;
use crate::ops::restore::plan::Shape;
use crate::ops::restore::{RestoreSummary, as_path, prepare};
use crate::ops::snapshots::SnapshotInfo;
use crate::ops::tree::{Found, Lookup, TreeReader, parts};
use crate::repo::{RepoError, Repository};

/// What kind of archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArchiveKind {
    /// A tar archive of POSIX.1-2001, with everything GNU tar can restore.
    Tar {
        /// Names of owners and groups are left out.
        numeric_owner: bool,
    },
    /// A zip archive: files, directories, symlinks, modes, times, owners by number.
    Zip,
}

/// Where the archive goes.
pub enum ArchiveOutput {
    /// There, as it is made.
    Stream(Box<dyn Write + Send>),
    /// Into a file, which is replaced when the archive is complete and readable by its owner alone; or into the pipe or device
    /// that stands there.
    File(PathBuf),
}

/// What is to be in the archive.
#[derive(Debug)]
pub struct ArchiveOptions {
    /// The snapshot.
    pub snapshot: SnapshotInfo,
    /// Stored path of what is wanted; empty or `/` for everything. Names in the archive begin below it.
    pub path: Vec<u8>,
    /// Which kind.
    pub kind: ArchiveKind,
    /// Rules on stored paths.
    pub filter: Filter,
}

/// Writes an archive. In the summary, `bytes` is the content of files in it.
///
/// # Errors
/// Only what concerns the whole archive, which then has no end; an entry that fails is counted and reported as an event.
/// [`Error::NoSuchPath`] if the snapshot does not hold the path, [`Error::Output`] if the output takes no more,
/// [`Error::OutputIsTerminal`] before anything is written.
pub async fn archive(
    repo: &Repository,
    options: ArchiveOptions,
    output: ArchiveOutput,
) -> Result<RestoreSummary, Error> {
    archive_at(repo, options, output, pace(repo)).await
}

/// An archive, with how much is fetched ahead.
async fn archive_at(
    repo: &Repository,
    options: ArchiveOptions,
    output: ArchiveOutput,
    pace: (Pace, usize),
) -> Result<RestoreSummary, Error> {
    let env = repo.env();
    let begun = env.clock.monotonic();
    let observer = Arc::clone(&env.observer);
    if let ArchiveOutput::File(path) = &output {
        prepare::check_place(repo, path)?;
    }
    observer.observe(&Event::PhaseStarted { phase: Phase::Plan, total: None });
    let lookup = Lookup::open(repo).await?;
    let snapshot = &options.snapshot.snapshot;
    let mut reader = prepare::reader(&lookup)?;
    let found = reader.find(snapshot.root, &options.path).await?;
    let found = found.ok_or_else(|| Error::NoSuchPath { path: as_path(options.path.clone()) })?;
    prepare::expect(&lookup, snapshot, &found).await?;
    let key = (repo.id(), repo.dedup_key(context::CHUNK_ID)?);
    let run = Arc::new(Run::new(key, Arc::clone(&observer), env.limits.workers));
    let work = async {
        // It may be a pipe that nobody reads yet.
        let opened = tokio::task::spawn_blocking(move || Place::open(output)).await;
        let (out, place) = opened.map_err(|_| RepoError::Task)??;
        let sink = Sink::start(out)?;
        execute((&lookup, reader), &run, &options, (found, sink), pace).await?;
        Ok::<_, Error>(place)
    };
    let place = tokio::select! {
        biased;
        done = work => done?,
        _ = env.cancel.wait(&*env.clock, Duration::MAX) => return Err(Error::Cancelled),
    };
    place.commit().await?;
    observer.observe(&Event::PhaseFinished { phase: Phase::Restore });
    let elapsed = env.clock.monotonic().saturating_sub(begun);
    Ok(RestoreSummary { elapsed, ..run.summary() })
}

/// How a repository is read. Far away each request costs a round trip, so more is asked for at once and ahead; batches that wait.
fn pace(repo: &Repository) -> (Pace, usize) {
    let requests = repo.env().limits.requests.max(1);
    if repo.store().is_local() {
        let shape = Shape { request_max: 2 << 20, gap_max: 64 << 10 };
        return (Pace { shape, requests: requests.min(4), room: 20 << 20 }, 8);
    }
    let shape = Shape { request_max: 8 << 20, gap_max: 1 << 20 };
    (Pace { shape, requests, room: 96 << 20 }, 64)
}

/// Runs walk, fetches and encoder to their end.
async fn execute<'a>(
    (lookup, mut reader): (&'a Lookup<'a>, TreeReader<'a>),
    run: &Arc<Run>,
    options: &ArchiveOptions,
    (found, sink): (Found, Sink),
    (pace, ahead): (Pace, usize),
) -> Result<(), Error> {
    if !lookup.repo().store().is_local() {
        reader.read_ahead(u64::from(pace.shape.request_max));
    }
    let (format, packer) = match options.kind {
        ArchiveKind::Tar { numeric_owner } => (Format::Tar(Box::new(tar::Tar::new(numeric_owner))), None),
        ArchiveKind::Zip => (Format::Zip(Box::new(zip::Zip::new()?)), Some(Arc::default())),
    };
    let (requests, asked) = mpsc::unbounded_channel();
    let (batches, came) = mpsc::channel(ahead);
    let segments = Segments::new(lookup, pace, requests);
    let has_links = packer.is_none();
    let world = (&**run, &lookup.repo().env().cancel);
    let walk = Walk::new(world, reader, (&options.filter, has_links), segments, batches);
    let walking = async {
        let mut stored = Vec::new();
        parts(&options.path).for_each(|part| {
            stored.push(b'/');
            stored.extend_from_slice(part);
        });
        match found {
            Found::Root(tree) => walk.directory(None, tree, Vec::new()).await,
            Found::Node(node) if node.kind == NodeKind::Directory => {
                let tree = node.tree;
                walk.directory(Some(node), tree, stored).await
            }
            Found::Node(node) => walk.single(node, stored).await,
        }
    };
    let encoder = Encoder::new(Arc::clone(run), format, sink);
    let writing = write(lookup, (run, packer), encoder, came);
    try_join3(walking, fetch::fetch_all(lookup, run, pace.requests, asked), writing).await?;
    Ok(())
}

/// Puts batches together, several at a time, and writes them in order.
async fn write(
    lookup: &Lookup<'_>,
    (run, packer): (&Arc<Run>, Option<Arc<zip::Packer>>),
    mut encoder: Encoder,
    mut batches: Receiver<Vec<Step>>,
) -> Result<(), Error> {
    let at_once = lookup.repo().env().limits.workers.max(1) + 2;
    let mut under_way = FuturesOrdered::new();
    let mut open = true;
    loop {
        tokio::select! {
            biased;
            batch = batches.recv(), if open && under_way.len() < at_once => match batch {
                Some(batch) => under_way.push_back(assemble(lookup, run, packer.clone(), batch)),
                None => open = false,
            },
            Some(ready) = under_way.next(), if !under_way.is_empty() => encoder.write(ready?).await?,
            else => return encoder.finish().await,
        }
    }
}

#[cfg(test)]
mod tests;
