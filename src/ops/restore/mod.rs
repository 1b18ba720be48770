//! Restoring a snapshot, or a part of one, into a directory, or one file onto a block device.
//!
//! The walk reads the tree and plans window after window; the bridge fetches what a window needs in few requests; workers
//! open each segment once, compare the id of every chunk, and write it to all files that want it. A file is finished
//! with its last chunk, a directory with its last entry.
//!
//! # Invariants
//! No byte is written whose chunk id was not computed again. Memory is bounded by windows and the budget of the bridge,
//! whatever the snapshot's size; only the first names of hard links are remembered until the end. A file that cannot be
//! completed is not there at the end, and is counted; all others are restored. Onto a device everything is written that can
//! be had.
//!
//! # Crash
//! What was finished stands. A file in the middle of its content stands unfinished (see
//! [`crate::source::target`]); restoring again replaces it. A device holds a part of the new content.
//!
//! # Must not
//! Write outside of the target, or recurse over anything that is stored.

mod apply;
mod device;
mod entries;
mod fetch;
pub(super) mod layout;
pub(super) mod links;
mod output;
pub(super) mod plan;
pub(super) mod prepare;
mod run;
pub(super) mod select;
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
use self::run::Run;
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
use crate::source::target::{Overwrite, OwnerPolicy, Target, TargetOptions};

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
            dry_run: false,
            verify: false,
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
    /// Bytes of content fetched from the store, trees left out; in a dry run, to be fetched.
    pub fetched: u64,
    /// Entries that are missing or not restored in full, damage left out.
    pub failed: u64,
    /// Entries that are left out because of damage in the repository: the first ten thousand of their stored paths.
    pub damaged: Vec<Vec<u8>>,
    /// How many they are.
    pub damaged_count: u64,
    /// How long it took.
    pub elapsed: Duration,
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
/// [`Error::NoSuchPath`] if the snapshot does not hold the path, [`Error::TargetTooSmall`] before anything is written,
/// [`Error::DeviceOverwrite`] for a device whose content may not go.
pub async fn restore(repo: &Repository, options: RestoreOptions) -> Result<RestoreSummary, Error> {
    let env = repo.env();
    let begun = env.clock.monotonic();
    let observer = Arc::clone(&env.observer);
    check_place(repo, &options.target)?;
    observer.observe(&Event::PhaseStarted { phase: Phase::Plan, total: None });
    let lookup = Lookup::open(repo).await?;
    let snapshot = &options.snapshot.snapshot;
    let mut reader = prepare::reader(&lookup)?;
    let found = reader.find(snapshot.root, &options.path).await?;
    let found = found.ok_or_else(|| Error::NoSuchPath { path: as_path(options.path.clone()) })?;
    let found = prepare::rename(found, &options)?;
    let device = device::open(&options, &found, &*observer)?;
    let total = match &found {
        Found::Root(_) => snapshot.totals.bytes,
        Found::Node(node) if node.kind == NodeKind::Directory => node.totals.bytes,
        Found::Node(node) => node.size,
    };
    lookup.expect(total).await?;
    observer.observe(&Event::PhaseFinished { phase: Phase::Plan });
    observer.counters().total_bytes.store(total, Ordering::Relaxed);
    observer.observe(&Event::PhaseStarted { phase: Phase::Restore, total: Some(total) });

    let empty = is_empty(&options.target);
    if empty && !options.dry_run {
        prepare::check_space(&lookup, &options, (&found, total)).await?;
    }
    let selection = select(found, &options.path, empty);
    let target = match (options.dry_run, device) {
        (true, _) => None,
        (false, Some(device)) => Some(Place::Device(Arc::new(device))),
        (false, None) => Some(Place::Directory(open_target(&options).await?)),
    };
    let id_key = repo.dedup_key(context::CHUNK_ID)?;
    let world = (Arc::clone(&observer), env.cancel.clone());
    let run = Arc::new(Run::new(target, (options.sparse, options.verify), (repo.id(), id_key), world));
    let would_fetch = execute((&lookup, reader), &run, &options.filter, selection).await?;
    if options.verify && !options.dry_run {
        sync(&run).await?;
    }
    observer.observe(&Event::PhaseFinished { phase: Phase::Restore });
    let tally = &run.tally;
    Ok(RestoreSummary {
        entries: tally.entries.load(Ordering::Relaxed),
        files: tally.files.load(Ordering::Relaxed),
        bytes: tally.bytes.load(Ordering::Relaxed),
        fetched: tally.fetched.load(Ordering::Relaxed) + would_fetch,
        failed: tally.failed.load(Ordering::Relaxed),
        damaged: run.damaged_paths(),
        damaged_count: tally.damaged.load(Ordering::Relaxed),
        elapsed: env.clock.monotonic().saturating_sub(begun),
    })
}

async fn open_target(options: &RestoreOptions) -> Result<Target, Error> {
    let target = options.target.clone();
    let how = TargetOptions { owner: options.owner, overwrite: options.overwrite, xattrs: true };
    let opened = tokio::task::spawn_blocking(move || Target::open(&target, how)).await;
    Ok(opened.map_err(|_| RepoError::Task)??)
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

/// Runs walk, bridge and workers to their end; says how much a dry run would fetch.
async fn execute<'a>(
    (lookup, reader): (&'a Lookup<'a>, TreeReader<'a>),
    run: &Arc<Run>,
    filter: &Filter,
    selection: Selection,
) -> Result<u64, Error> {
    let (pace, bounds) = prepare::pace(lookup.repo());
    let dry_run = run.target.is_none();
    let closing = CloseOnDrop(Arc::clone(run));
    let count = if dry_run { 0 } else { lookup.repo().env().limits.workers.max(1) };
    let workers: Vec<_> = (0..count)
        .map(|_| {
            let run = Arc::clone(run);
            tokio::task::spawn_blocking(move || apply::work(&run))
        })
        .collect();
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    let mut would_fetch = 0;
    let walking = async {
        let walked = async {
            let mut walk = Walk::new((lookup, run), reader, filter, (pace, bounds), sender);
            let Selection { root, what, path } = selection;
            match what {
                What::Directory(tree) => walk.directory(root, DirCursor::new(tree), path).await?,
                What::Entry(node) => walk.single(root, node).await?,
            }
            would_fetch = walk.would_fetch;
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
        None => Ok(would_fetch),
    }
}

#[cfg(test)]
mod tests;
