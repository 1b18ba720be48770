//! What is looked at before anything is written: the place, its room, the pace.

use std::collections::HashSet;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use super::entries::Judged;
use super::fetch::Pace;
use super::plan::Shape;
use super::select::{Choice, choose, choose_root};
use super::survey::{growth, judge};
use super::walk::WindowBounds;
use super::{RestoreOptions, as_path};
use crate::error::Error;
use crate::event::{Event, Phase};
use crate::format::node::{Node, NodeKind};
use crate::format::snapshot::Snapshot;
use crate::format::tree::TreeRef;
use crate::ops::tree::{Found, Lookup, Step, TreeReader, TreeWalk, parts};
use crate::repo::Repository;
use crate::source::target::{Stands, Target, TargetDevice, TargetDir, TargetOptions};

/// Hard links that are counted once; beyond that many, each name counts.
const LINKS_KEPT: usize = 1 << 20;

/// Bytes of trees that are fetched at once to find one path, if each request costs a round trip: a small tree is all there
/// then.
const TREE_AHEAD: u64 = 1 << 20;

/// A reader of trees that is used for little at first.
pub(in crate::ops) fn reader<'a>(lookup: &'a Lookup<'a>) -> Result<TreeReader<'a>, Error> {
    lookup.reader_ahead(TREE_AHEAD)
}

/// Ends the plan and begins the restore of what was found: says how many bytes of content it has, and fetches of the index what
/// it takes to find them.
pub(in crate::ops) async fn expect(
    lookup: &Lookup<'_>,
    snapshot: &Snapshot,
    found: &Found,
) -> Result<u64, Error> {
    let total = match found {
        Found::Root(_) => snapshot.totals.bytes,
        Found::Node(node) if node.kind == NodeKind::Directory => node.totals.bytes,
        Found::Node(node) => node.size,
    };
    lookup.expect(total).await?;
    let observer = &lookup.repo().env().observer;
    observer.observe(&Event::PhaseFinished { phase: Phase::Plan });
    observer.counters().total_bytes.store(total, Ordering::Relaxed);
    observer.observe(&Event::PhaseStarted { phase: Phase::Restore, total: Some(total) });
    Ok(total)
}

/// How a repository is read. Nearby, small requests keep what is fetched in the processor's cache, and small windows let
/// the workers begin early; far away, each request costs a round trip, so a whole pack is fetched at once.
pub(super) fn pace(repo: &Repository) -> (Pace, WindowBounds) {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(1 << 16);
    let open_max = usize::try_from(limit / 4).unwrap_or(usize::MAX).clamp(16, 1024);
    let requests = repo.env().limits.requests.max(1);
    if repo.store().is_local() {
        let shape = Shape { request_max: 2 << 20, gap_max: 64 << 10 };
        let pace = Pace { shape, requests: requests.min(4), budget: 12 << 20, open_max };
        return (pace, WindowBounds { first: 1 << 10, most: 1 << 13 });
    }
    let shape = Shape { request_max: 18 << 20, gap_max: 1 << 20 };
    let pace = Pace { shape, requests, budget: 48 << 20, open_max };
    (pace, WindowBounds { first: 1 << 15, most: 1 << 15 })
}

/// Refuses a target inside of the repository.
pub(crate) fn check_place(repo: &Repository, target: &Path) -> Result<(), Error> {
    let Some(root) = repo.store().local_root().and_then(|root| root.canonicalize().ok()) else {
        return Ok(());
    };
    let inside = existing(target).canonicalize().is_ok_and(|place| place.starts_with(root));
    if inside { Err(Error::InsideRepository { path: target.to_owned() }) } else { Ok(()) }
}

/// The directories, by device and inode, that no backup to this repository holds, because they are its own: the repository,
/// if it is on this machine, and what the program keeps here.
pub(in crate::ops) fn own_dirs(repo: &Repository) -> HashSet<(u64, u64)> {
    let places = &repo.env().places;
    let own = [repo.store().local_root(), Some(places.state.as_path()), places.cache.as_deref()];
    let found = own.into_iter().flatten().filter_map(|dir| std::fs::metadata(dir).ok());
    found.map(|found| (found.dev(), found.ino())).collect()
}

/// The nearest directory above that is there, or the target itself.
fn existing(target: &Path) -> PathBuf {
    let mut place = target.to_owned();
    while !place.exists() {
        let parent = place.parent().filter(|parent| !parent.as_os_str().is_empty());
        match parent {
            Some(parent) => place = parent.to_owned(),
            None => return PathBuf::from("."),
        }
    }
    place
}

/// Gives the file that was found the name it is to have.
pub(super) fn rename(found: Found, options: &RestoreOptions) -> Result<Found, Error> {
    match (found, &options.name) {
        (found, None) => Ok(found),
        (Found::Node(mut node), Some(name)) if node.kind == NodeKind::File => {
            node.name.clone_from(name);
            Ok(Found::Node(node))
        }
        _ => Err(Error::NotAFile { path: as_path(options.path.clone()) }),
    }
}

/// Whether nothing stands in the target, `lost+found` apart.
pub(crate) fn is_empty(target: &Path) -> bool {
    match std::fs::read_dir(target) {
        Ok(entries) => entries.flatten().all(|entry| entry.file_name() == "lost+found"),
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

/// Bytes free where the target is, or will be. `None` if its file system has no size to tell of.
pub(super) fn free(target: &Path) -> Result<Option<u64>, Error> {
    if TargetDevice::is_one(target) {
        // It has been found large enough.
        return Ok(None);
    }
    let place = existing(target);
    let room = rustix::fs::statvfs(&place);
    let room = room.map_err(|error| Error::Local { path: place, source: error.into() })?;
    Ok((room.f_blocks > 0).then(|| room.f_bavail.saturating_mul(room.f_frsize)))
}

/// What stands in the target, to be looked at only.
pub(super) fn standing(options: &RestoreOptions) -> Result<Option<Target>, Error> {
    if !options.target.exists() {
        return Ok(None);
    }
    let how = TargetOptions { read_only: true, owner: options.owner, ..TargetOptions::default() };
    Ok(Some(Target::open(&options.target, how)?))
}

/// Refuses a restore that certainly ends with a full target. What is replaced or kept is reckoned with; that more is needed
/// for a while, until a file has taken the place of another, is not.
pub(super) async fn check_space(
    lookup: &Lookup<'_>,
    options: &RestoreOptions,
    (found, total): (&Found, u64),
) -> Result<(), Error> {
    let Some(free) = free(&options.target)? else { return Ok(()) };
    // Only then is it worth a walk over the tree to know what rules, holes and what stands there leave.
    if total <= free {
        return Ok(());
    }
    let needed = match found {
        Found::Root(tree) => needed(lookup, options, *tree).await?,
        Found::Node(node) if node.kind == NodeKind::Directory => needed(lookup, options, node.tree).await?,
        Found::Node(node) => {
            let target = standing(options)?;
            let stands = target.as_ref().and_then(|target| look(target, &target.root(), &node.name));
            needed_by(options, node, stands.as_ref())
        }
    };
    match u64::try_from(needed) {
        Ok(needed) if needed > free => Err(Error::TargetTooSmall { needed, free }),
        _ => Ok(()),
    }
}

fn look(target: &Target, dir: &TargetDir, name: &[u8]) -> Option<Stands> {
    target.look(dir, name).ok().flatten()
}

/// Bytes by which a file makes the target fuller.
fn needed_by(options: &RestoreOptions, node: &Node, stands: Option<&Stands>) -> i64 {
    let policy = options.policy();
    let mtime = (node.mtime.seconds, node.mtime.nanos);
    let judged = stands.map_or(Judged::Fresh, |stands| judge(policy, (node.size, mtime), stands));
    growth(judged, stored_size(node), stands)
}

/// Bytes by which all that the rules select makes the target fuller, each hard-linked file once.
async fn needed(lookup: &Lookup<'_>, options: &RestoreOptions, tree: Option<TreeRef>) -> Result<i64, Error> {
    let mut path = Vec::new();
    parts(&options.path).for_each(|part| {
        path.push(b'/');
        path.extend_from_slice(part);
    });
    let filter = &options.filter;
    let mut reader = lookup.reader()?;
    let target = standing(options)?;
    // One choice a level, and the directory of the target; the walk says by its path how deep it is.
    let mut above = vec![(choose_root(filter, &path), target.as_ref().map(Target::root))];
    let mut walk = TreeWalk::new(tree, path);
    let (mut bytes, mut linked) = (0_i64, HashSet::new());
    while let Some(step) = walk.next(&mut reader).await? {
        let Step::Node(node) = step else { continue };
        above.truncate(walk.depth());
        let Some((chosen, dir)) = above.last() else { continue };
        let is_dir = node.kind == NodeKind::Directory;
        let choice = choose(filter, walk.path(), is_dir, *chosen);
        if choice != Choice::Out && is_dir {
            let below = match (&target, dir) {
                (_, Some(dir)) if walk.depth() <= options.strip => Some(dir.clone()),
                (Some(target), Some(dir)) => target.enter_dir(dir, &node.name).ok().flatten(),
                _ => None,
            };
            walk.enter(&node);
            above.push((choice, below));
        } else if choice == Choice::In && node.kind == NodeKind::File {
            let known = node.hard_link.is_some_and(|number| {
                let known = linked.contains(&number);
                if linked.len() < LINKS_KEPT {
                    linked.insert(number);
                }
                known
            });
            if !known {
                let stands = target.as_ref().zip(dir.as_ref()).and_then(|(t, dir)| look(t, dir, &node.name));
                bytes = bytes.saturating_add(needed_by(options, &node, stands.as_ref()));
            }
        }
    }
    Ok(bytes)
}

fn stored_size(node: &Node) -> u64 {
    node.size.saturating_sub(node.holes.iter().fold(0, |sum, (_, len)| sum.saturating_add(*len)))
}

/// About the most anonymous memory that a restore takes: what is fetched ahead, what workers open, windows that are planned
/// and under way, and names of hard links.
pub(super) fn peak_memory(repo: &Repository, linked: u64) -> u64 {
    /// Program, keys, threads and buffers of the system's libraries.
    const BASE: u64 = 24 << 20;
    /// A segment and what of it is compared or written, for one worker.
    const WORKER: u64 = 6 << 20;
    /// One chunk in a window, or one file in it.
    const WANT: u64 = 700;
    /// Windows at one time: under construction, waiting, under way.
    const WINDOWS: u64 = 3;
    /// A hard link that is remembered.
    const LINK: u64 = 500;
    let (pace, bounds) = pace(repo);
    let workers = repo.env().limits.workers.max(1) as u64;
    let ahead = pace.budget as u64 + u64::from(pace.shape.request_max);
    BASE + ahead + workers * WORKER + WINDOWS * WANT * bounds.most as u64 + LINK * linked
}
