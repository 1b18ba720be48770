//! Showing what a snapshot holds.
//!
//! # Must not
//! Read the content of files.

use crate::error::Error;
use crate::format::node::{Node, NodeKind};
use crate::ops::snapshots::SnapshotInfo;
use crate::ops::tree::{Found, Lookup, Step, TreeWalk, parts};
use crate::repo::Repository;

/// What to show.
#[derive(Debug, Clone)]
pub struct LsOptions {
    /// The snapshot.
    pub snapshot: SnapshotInfo,
    /// Stored path; empty or `/` for the root.
    pub path: Vec<u8>,
    /// Whether the content of directories below is shown too.
    pub recursive: bool,
}

/// Calls `visit` with the full stored path and the node of each entry of a directory, in order, parents before children;
/// with that entry alone if the path names something else.
///
/// # Errors
/// [`Error::NoSuchPath`] if there is no such path. Damage is returned at the end, when everything that can be read has
/// been visited.
pub async fn ls(
    repo: &Repository,
    options: LsOptions,
    mut visit: impl FnMut(&[u8], &Node) + Send,
) -> Result<(), Error> {
    let LsOptions { snapshot, path, recursive } = options;
    let lookup = Lookup::open(repo).await?;
    let mut reader = lookup.reader()?;
    let mut stored = Vec::new();
    parts(&path).for_each(|part| {
        stored.push(b'/');
        stored.extend_from_slice(part);
    });
    let tree = match reader.find(snapshot.snapshot.root, &path).await? {
        None => return Err(Error::NoSuchPath { path: super::restore::as_path(path) }),
        Some(Found::Root(tree)) => tree,
        Some(Found::Node(node)) if node.kind == NodeKind::Directory => node.tree,
        Some(Found::Node(node)) => {
            visit(&stored, &node);
            return Ok(());
        }
    };
    let mut walk = TreeWalk::new(tree, stored);
    let mut damage = None;
    while let Some(step) = walk.next(&mut reader).await? {
        if repo.env().cancel.is_raised() {
            return Err(Error::Cancelled);
        }
        match step {
            Step::Node(node) => {
                visit(walk.path(), &node);
                if recursive {
                    walk.enter(&node);
                }
            }
            Step::Damaged(error) => {
                damage.get_or_insert(error);
            }
        }
    }
    damage.map_or(Ok(()), Err)
}
