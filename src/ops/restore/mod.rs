//! Restoring a snapshot, or a part of one, into a directory, or one file onto a block device.
//!
//! The walk reads the tree and plans window after window; the bridge fetches what a window needs in few requests; workers
//! open each segment once, compare the id of every chunk, and write it to all files that want it. A file is finished
//! with its last chunk, a directory with its last entry.
//!
//! Where what stands in the target counts, workers first hold the files of a window against it (`survey`), and only what
//! does not stand there is planned. In place, that goes chunk by chunk; a run that was stopped anywhere is gone on with by
//! running it again.
//!
//! # Invariants
//! No byte is written whose chunk id was not computed again, nor kept in place of one. Memory is bounded by windows and the
//! budget of the bridge, whatever the snapshot's size; only the first names of hard links are remembered until the end, and
//! hashes of the names of directories in which something is removed. A file that cannot be completed is not there at the end,
//! and is counted; all others are restored. In place, a large one stands there with what could be had, closed to everybody
//! else, and is counted. Onto a device everything is written that can be had.
//!
//! # Crash
//! What was finished stands. A file in the middle of its content stands unfinished (see
//! [`crate::source::target`]); restoring again replaces it, or goes on with it in place. A device holds a part of the
//! new content.
//!
//! # Must not
//! Write outside of the target, or recurse over anything that is stored.

mod apply;
mod device;
mod entries;
mod fetch;
pub(super) mod flaw;
pub(super) mod layout;
pub(super) mod links;
mod output;
pub(super) mod plan;
pub(super) mod prepare;
mod run;
pub(super) mod select;
mod speed;
mod stale;
mod survey;
mod sweep;
mod walk;
mod window;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

pub(crate) use self::entries::as_path;
use self::entries::{Dir, Meta};
use self::fetch::Bridge;
pub(crate) use self::links::content_of;
use self::output::Place;
pub(crate) use self::prepare::{check_place, is_empty};
use self::run::{Policy, Run};
use self::speed::Work;
use self::sweep::Sweep;
use self::walk::Walk;
use crate::crypto::context;
use crate::error::Error;
use crate::event::{Event, Phase};
use crate::filter::Filter;
use crate::format::node::{Node, NodeKind};
use crate::format::tree::TreeRef;
use crate::ops::snapshots::SnapshotInfo;
use crate::ops::tree::{DirCursor, Found, Lookup, TreeReader, parts};
use crate::repo::{RepoError, Repository};
use crate::source::target::{Overwrite, OwnerPolicy, Target, TargetDevice, TargetOptions};

/// What to restore, and how.
#[derive(Debug)]
pub struct RestoreOptions {
    /// The snapshot.
    pub snapshot: SnapshotInfo,
    /// Stored path of what is wanted; empty or `/` for everything. The content of a directory goes directly into the
    /// target.
    pub path: Vec<u8>,
    /// Where to: a directory, or for a single file a block device.
    pub target: PathBuf,
    /// Whether the content of a block device may go.
    pub overwrite_device: bool,
    /// The name in the target of the one file that is restored, if not its own.
    pub name: Option<Vec<u8>>,
    /// Owners and groups.
    pub owner: OwnerPolicy,
    /// Whether runs of zeroes become holes too.
    pub sparse: bool,
    /// What happens where an entry stands already.
    pub overwrite: Overwrite,
    /// Rules on stored paths.
    pub filter: Filter,
    /// Whether regular files are kept where they match, chunk by chunk, and only the rest is fetched and written. What was
    /// unfinished is left for the next run.
    pub in_place: bool,
    /// Whether what the snapshot does not hold is removed, in directories that were saved and are restored as a whole. What
    /// rules leave out stays.
    pub delete: bool,
    /// Whether more may be removed than is restored.
    pub yes: bool,
    /// How many leading components of paths below the target are left out. What has no more is not restored.
    pub strip: usize,
    /// Only work out what would be done.
    pub dry_run: bool,
    /// Read each file back before it is finished, and compare; at the end, wait until all lies on the disk. The chunk list
    /// of a file is kept for that, 36 bytes a chunk.
    pub verify: bool,
}

impl RestoreOptions {
    /// All that is below `path`, without any rule, over what stands in the target.
    pub fn new(snapshot: SnapshotInfo, path: Vec<u8>, target: PathBuf) -> Self {
        Self {
            snapshot,
            path,
            target,
            overwrite_device: false,
            name: None,
            owner: OwnerPolicy::default(),
            sparse: false,
            overwrite: Overwrite::default(),
            filter: Filter::default(),
            in_place: false,
            delete: false,
            yes: false,
            strip: 0,
            dry_run: false,
            verify: false,
        }
    }

    fn policy(&self) -> Policy {
        match TargetDevice::is_one(&self.target) {
            true => Policy { dry: self.dry_run, ..Policy::default() },
            false => Policy { overwrite: self.overwrite, in_place: self.in_place, dry: self.dry_run },
        }
    }
}

/// What a restore did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RestoreSummary {
    /// Entries that stand now.
    pub entries: u64,
    /// Regular files among them.
    pub files: u64,
    /// Bytes of content written; in a dry run, to be written.
    pub bytes: u64,
    /// How many chunks they are.
    pub chunks: u64,
    /// Bytes of content that stood in the target and were kept.
    pub kept: u64,
    /// Entries that stay as they stood, because they are not older.
    pub left: u64,
    /// Entries that the snapshot does not hold and that were removed; in a dry run, are to be.
    pub removed: u64,
    /// Bytes of content fetched from the store, trees left out; in a dry run, to be fetched.
    pub fetched: u64,
    /// Entries that are missing or not restored in full, damage left out.
    pub failed: u64,
    /// Entries that are left out because of damage in the repository: the first ten thousand of their stored paths.
    pub damaged: Vec<Vec<u8>>,
    /// How many they are.
    pub damaged_count: u64,
    /// Entries that changed while they were saved, so that they may be of several moments.
    pub doubted: u64,
    /// How long it took.
    pub elapsed: Duration,
    /// What a dry run expects.
    pub forecast: Option<Forecast>,
}

/// What a restore would need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forecast {
    /// Requests for content; trees are read by the dry run already.
    pub requests: u64,
    /// About the most anonymous memory, in bytes.
    pub memory: u64,
    /// Bytes by which the target becomes fuller; it may take more for a while, until a file has taken the place of another.
    pub space_needed: u64,
    /// Bytes free there; `None` if its file system has no size to tell of.
    pub space_free: Option<u64>,
    /// How long it will take, by what was measured when this machine restored from this repository; `None` if it did not yet,
    /// or not much of what is to be done here.
    pub time: Option<Duration>,
}

impl Forecast {
    /// Whether the target has room.
    pub fn fits(&self) -> bool {
        self.space_free.is_none_or(|free| self.space_needed <= free)
    }
}

/// A directory and its content, or a single entry.
struct Selection {
    root: Arc<Dir>,
    what: What,
    /// Stored path of `root`.
    path: Vec<u8>,
}

enum What {
    Directory(Option<TreeRef>),
    Entry(Box<Node>),
}

/// Restores.
///
/// # Errors
/// Only what concerns the whole run; an entry that fails is counted and reported as an event.
/// [`Error::NoSuchPath`] if the snapshot does not hold the path; [`Error::TargetTooSmall`] and [`Error::ManyDeleted`] before
/// anything is written; [`Error::DeviceOverwrite`] for a device whose content may not go.
pub async fn restore(repo: &Repository, options: RestoreOptions) -> Result<RestoreSummary, Error> {
    let env = repo.env();
    let begun = env.clock.monotonic();
    let observer = Arc::clone(&env.observer);
    let options = Arc::new(options);
    if options.in_place && matches!(options.overwrite, Overwrite::IfNewer | Overwrite::Never) {
        return Err(Error::InPlacePolicy);
    }
    check_place(repo, &options.target)?;
    observer.observe(&Event::PhaseStarted { phase: Phase::Plan, total: None });
    let lookup = Lookup::open(repo).await?;
    let snapshot = &options.snapshot.snapshot;
    let mut reader = prepare::reader(&lookup)?;
    let found = reader.find(snapshot.root, &options.path).await?;
    let found = found.ok_or_else(|| Error::NoSuchPath { path: as_path(options.path.clone()) })?;
    let found = prepare::rename(found, &options)?;
    let device = device::open(&options, &found, &*observer)?;
    if device.is_some() && (options.in_place || options.delete || options.strip > 0) {
        return Err(Error::NotOnDevice);
    }
    let total = prepare::expect(&lookup, snapshot, &found).await?;
    if !options.dry_run && device.is_none() {
        prepare::check_space(&lookup, &options, (&found, total)).await?;
    }
    let sound = match &found {
        Found::Node(node) => node.problem.is_none(),
        // The root has no node that would say so.
        Found::Root(_) => snapshot.problems == 0,
    };
    let selection = select(found, &options.path, is_empty(&options.target));
    let target = open_target(&options, device).await?;
    let id_key = repo.dedup_key(context::CHUNK_ID)?;
    let world = (Arc::clone(&observer), env.cancel.clone());
    let how = (options.sparse, options.verify);
    let run = Arc::new(Run::new((target, options.policy()), how, (repo.id(), id_key), world));
    let sweep = match &selection.what {
        What::Directory(tree) if options.delete => {
            Some(Sweep::new(&lookup, (&run, &options), (*tree, selection.path.clone()), sound))
        }
        _ => None,
    };
    if let Some(sweep) = &sweep {
        sweep.before().await?;
    }
    let planned = execute((&lookup, reader), &run, &options, selection).await?;
    if !options.dry_run {
        if let Some(sweep) = &sweep {
            sweep.after().await?;
        }
        finish(&run, options.verify).await?;
    }
    observer.observe(&Event::PhaseFinished { phase: Phase::Restore });
    let mut done = run.summary(planned, env.clock.monotonic().saturating_sub(begun));
    match options.dry_run {
        true => done.forecast = Some(forecast(repo, (&run, &options), planned)?),
        false => remember(repo, &run, done.elapsed),
    }
    Ok(done)
}

/// What a dry run counted.
#[derive(Debug, Clone, Copy, Default)]
struct Planned {
    bytes: u64,
    requests: u64,
}

fn forecast(
    repo: &Repository,
    (run, options): (&Run, &RestoreOptions),
    planned: Planned,
) -> Result<Forecast, Error> {
    let work = Work { fetched: planned.bytes, ..run.work() };
    Ok(Forecast {
        requests: planned.requests,
        memory: prepare::peak_memory(repo, run.linked()),
        space_needed: u64::try_from(run.tally.growth.load(Ordering::Relaxed)).unwrap_or(0),
        space_free: prepare::free(&options.target)?,
        time: speed::expected(repo, work),
    })
}

/// Remembers how fast it was.
fn remember(repo: &Repository, run: &Run, elapsed: Duration) {
    if let Err(error) = speed::note(repo, run.work(), elapsed) {
        let message = format!("how fast this restore was could not be noted: {error}");
        run.observer.observe(&Event::Warning { message: &message });
    }
}

/// Opens the target; for a dry run only if it is a directory that is there.
async fn open_target(options: &RestoreOptions, device: Option<TargetDevice>) -> Result<Option<Place>, Error> {
    match device {
        Some(_) if options.dry_run => return Ok(None),
        Some(device) => return Ok(Some(Place::Device(Arc::new(device)))),
        None if options.dry_run => return Ok(prepare::standing(options)?.map(Place::Directory)),
        None => {}
    }
    let target = options.target.clone();
    let how = TargetOptions {
        owner: options.owner,
        overwrite: options.overwrite,
        resume: options.in_place,
        ..TargetOptions::default()
    };
    let opened = tokio::task::spawn_blocking(move || Target::open(&target, how)).await;
    Ok(Some(Place::Directory(opened.map_err(|_| RepoError::Task)??)))
}

/// Makes sure that the target is still where it was; with `durable`, that everything lies on the disk.
async fn finish(run: &Arc<Run>, durable: bool) -> Result<(), Error> {
    if let Some(target) = run.directory() {
        target.check_place()?;
    }
    if durable { sync(run).await } else { Ok(()) }
}

/// Waits until everything lies on the disk, and hears of writes that failed on their way there.
async fn sync(run: &Arc<Run>) -> Result<(), Error> {
    let run = Arc::clone(run);
    let synced = tokio::task::spawn_blocking(move || run.directory().map_or(Ok(()), Target::sync)).await;
    Ok(synced.map_err(|_| RepoError::Task)??)
}

/// Decides which directory of the snapshot the target stands for. It takes over that directory's metadata only if it is
/// new or empty: somebody's home directory must not get the mode of `/etc`.
fn select(found: Found, path: &[u8], empty: bool) -> Selection {
    let mut stored = Vec::new();
    for part in parts(path) {
        stored.push(b'/');
        stored.extend_from_slice(part);
    }
    match found {
        Found::Root(tree) => {
            let root = Dir::new(None, Vec::new(), (None, false));
            Selection { root, what: What::Directory(tree), path: Vec::new() }
        }
        Found::Node(mut node) if node.kind == NodeKind::Directory => {
            let tree = node.tree;
            let meta = empty.then(|| Meta::take(&mut node, &mut Arc::default()));
            let root = Dir::new(None, stored.clone(), (meta, false));
            Selection { root, what: What::Directory(tree), path: stored }
        }
        Found::Node(node) => {
            let parent = stored.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
            stored.truncate(parent);
            let root = Dir::new(None, stored.clone(), (None, false));
            Selection { root, what: What::Entry(node), path: stored }
        }
    }
}

/// Ends the workers, whatever becomes of the restore. Work that is left then is left undone.
struct CloseOnDrop(Arc<Run>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        if !self.0.is_idle() {
            self.0.fail(Error::Cancelled);
        }
        self.0.close();
    }
}

/// Runs walk, bridge and workers to their end; says what a dry run would fetch.
async fn execute<'a>(
    (lookup, reader): (&'a Lookup<'a>, TreeReader<'a>),
    run: &Arc<Run>,
    options: &RestoreOptions,
    selection: Selection,
) -> Result<Planned, Error> {
    let (pace, bounds) = prepare::pace(lookup.repo());
    let closing = CloseOnDrop(Arc::clone(run));
    let count = lookup.repo().env().limits.workers.max(1);
    let workers: Vec<_> = (0..count)
        .map(|_| {
            let run = Arc::clone(run);
            tokio::task::spawn_blocking(move || apply::work(&run))
        })
        .collect();
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    let mut planned = Planned::default();
    let walking = async {
        let walked = async {
            let rules = (&options.filter, options.strip);
            let mut walk = Walk::new((lookup, run), reader, rules, (pace, bounds), sender);
            let Selection { root, what, path } = selection;
            match what {
                What::Directory(tree) => walk.directory(root, DirCursor::new(tree), path).await?,
                What::Entry(node) => walk.single(root, node).await?,
            }
            planned = Planned { bytes: walk.would_fetch, requests: walk.would_ask };
            Ok(())
        };
        if let Err(error) = walked.await {
            run.fail(error);
        }
    };
    let bridging = async {
        if let Err(error) = Bridge::new(lookup, run, pace).run(receiver).await {
            run.fail(error);
        }
    };
    tokio::join!(walking, bridging);
    drop(closing);
    for worker in workers {
        if worker.await.is_err() {
            run.fail(RepoError::Task.into());
        }
    }
    match run.failure() {
        Some(error) => Err(error),
        None => Ok(planned),
    }
}

#[cfg(test)]
mod tests;
