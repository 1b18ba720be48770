//! What is looked at before anything is written: the place, its room, the pace.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};

use super::fetch::Pace;
use super::plan::Shape;
use super::select::{Choice, choose, choose_root};
use super::walk::WindowBounds;
use super::{RestoreOptions, as_path};
use crate::error::Error;
use crate::format::node::{Node, NodeKind};
use crate::format::tree::TreeRef;
use crate::ops::tree::{Found, Lookup, Step, TreeReader, TreeWalk, parts};
use crate::repo::Repository;

/// Hard links that are counted once; beyond that many, each name counts.
const LINKS_KEPT: usize = 1 << 20;

/// Bytes of trees that are fetched at once to find one path, if each request costs a round trip: a small tree is all there
/// then.
const TREE_AHEAD: u64 = 1 << 20;

/// A reader of trees that is used for little at first.
pub(in crate::ops) fn reader<'a>(lookup: &'a Lookup<'a>) -> Result<TreeReader<'a>, Error> {
    lookup.reader_ahead(TREE_AHEAD)
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

/// Refuses a restore into an empty target that has too little room. Where entries are replaced nobody can tell before.
pub(super) async fn check_space(
    lookup: &Lookup<'_>,
    options: &RestoreOptions,
    (found, total): (&Found, u64),
) -> Result<(), Error> {
    let place = existing(&options.target);
    let local = |source: io::Error| Error::Local { path: place.clone(), source };
    let room = rustix::fs::statvfs(&place).map_err(|error| local(error.into()))?;
    let free = room.f_bavail.saturating_mul(room.f_frsize);
    // Only then is it worth a walk over the tree to know what rules and holes leave.
    if total <= free {
        return Ok(());
    }
    let needed = match found {
        Found::Root(tree) => needed(lookup, options, *tree).await?,
        Found::Node(node) if node.kind == NodeKind::Directory => needed(lookup, options, node.tree).await?,
        Found::Node(node) => stored_size(node),
    };
    if needed <= free { Ok(()) } else { Err(Error::TargetTooSmall { needed, free }) }
}

/// Bytes of content that the rules select, each hard-linked file once.
async fn needed(lookup: &Lookup<'_>, options: &RestoreOptions, tree: Option<TreeRef>) -> Result<u64, Error> {
    let mut path = Vec::new();
    parts(&options.path).for_each(|part| {
        path.push(b'/');
        path.extend_from_slice(part);
    });
    let filter = &options.filter;
    let mut reader = lookup.reader()?;
    // One choice a level; the walk says by its path how deep it is.
    let mut choices = vec![choose_root(filter, &path)];
    let mut walk = TreeWalk::new(tree, path);
    let (mut bytes, mut linked) = (0_u64, HashSet::new());
    while let Some(step) = walk.next(&mut reader).await? {
        let Step::Node(node) = step else { continue };
        choices.truncate(walk.depth());
        let above = choices.last().copied().unwrap_or(Choice::Out);
        let is_dir = node.kind == NodeKind::Directory;
        let choice = choose(filter, walk.path(), is_dir, above);
        if choice != Choice::Out && is_dir {
            walk.enter(&node);
            choices.push(choice);
        } else if choice == Choice::In && node.kind == NodeKind::File {
            let known = node.hard_link.is_some_and(|number| {
                let known = linked.contains(&number);
                if linked.len() < LINKS_KEPT {
                    linked.insert(number);
                }
                known
            });
            bytes = bytes.saturating_add(if known { 0 } else { stored_size(&node) });
        }
    }
    Ok(bytes)
}

fn stored_size(node: &Node) -> u64 {
    node.size.saturating_sub(node.holes.iter().fold(0, |sum, (_, len)| sum.saturating_add(*len)))
}
