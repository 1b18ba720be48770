//! The roots of a walk, merged into one tree of the places they are stored in.
//!
//! # Invariants
//! A place belongs to one source. Directories that only lead to a root carry the facts of the real ones wherever the
//! stored path is the path in the source; otherwise they are synthetic.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::sync::Arc;

use rustix::process::{getegid, geteuid};

use super::Root;
use super::dir::{Dir, Window};
use super::entry::Foreign;
use crate::filter::{Filter, Verdict};
use crate::source::error::SourceError;
use crate::source::sys::stat::{Stat, stat_at, stat_target};

const DIRECTORY: u32 = 0o040_755;
const STREAM: u32 = 0o100_600;

/// One place of the tree.
#[derive(Debug, Default)]
pub(super) struct Node {
    /// Where it is in the source; `None` for a synthetic directory.
    origin: Option<Origin>,
    pub(super) stat: Stat,
    /// Asked for, with all below it; otherwise it only leads to such places.
    pub(super) selected: bool,
    /// Its content comes from elsewhere.
    stream: Option<usize>,
    pub(super) children: BTreeMap<Box<[u8]>, usize>,
}

#[derive(Debug, Clone)]
struct Origin {
    dir: Arc<Dir>,
    name: Box<[u8]>,
    follow: bool,
}

/// All places; the first is the root of the snapshot's tree.
#[derive(Debug)]
pub(super) struct Roots {
    nodes: Vec<Node>,
    slash: Arc<Dir>,
}

/// A root with every directory on the way to it.
struct Resolved {
    /// `steps[k]` is what the first `k` parts of the path lead to; the last is the root itself.
    steps: Vec<(Origin, Stat)>,
}

impl Roots {
    /// Looks at every root. Those that cannot be looked at come back as errors; the others are walked.
    pub(super) fn new(
        (roots, streams): (&[Root], &[Vec<Vec<u8>>]),
        filter: &Filter,
        window: &Arc<Window>,
    ) -> Result<(Self, Vec<SourceError>), SourceError> {
        let slash = Dir::root(Arc::clone(window))?;
        let mut tree = Self { nodes: vec![Node::default()], slash };
        tree.nodes[0].stat.mode = DIRECTORY;
        let mut failed = Vec::new();
        for root in roots {
            check_parts(&root.stored, || root.path.clone())?;
            match tree.resolve(&root.path) {
                Ok(resolved) => {
                    check_rules(root, &resolved, filter)?;
                    tree.insert(root, resolved)?;
                }
                Err(error) => failed.push(error),
            }
        }
        for (number, parts) in streams.iter().enumerate() {
            tree.insert_stream(number, parts)?;
        }
        tree.check_files()?;
        Ok((tree, failed))
    }

    pub(super) fn node(&self, node: usize) -> &Node {
        &self.nodes[node]
    }

    /// Whether there is anything to walk.
    pub(super) fn is_empty(&self) -> bool {
        !self.nodes.iter().any(|node| node.selected)
    }

    /// The entry of a place.
    pub(super) fn entry(&self, node: usize, stored: &[u8], index: u32) -> Foreign {
        let (dir, source, synthetic) = match &self.nodes[node].origin {
            Some(origin) => (Arc::clone(&origin.dir), origin.name.clone(), false),
            None => (Arc::clone(&self.slash), Box::from(&b"."[..]), true),
        };
        let stream = self.nodes[node].stream;
        Foreign { index, stored: stored.into(), dir, source, synthetic, stream }
    }

    /// The directory that a place stands for, to be listed or to hold further places.
    pub(super) fn dir(&self, node: usize) -> Arc<Dir> {
        let node = &self.nodes[node];
        match &node.origin {
            Some(origin) => origin.dir.child(&origin.name, &node.stat, origin.follow),
            None => Arc::clone(&self.slash),
        }
    }

    /// Whether the place is the entry `name` of `dir`, so that a listing of `dir` shows it anyway.
    pub(super) fn is_at(&self, node: usize, dir: &Dir, name: &[u8]) -> bool {
        let origin = self.nodes[node].origin.as_ref();
        origin.is_some_and(|origin| *origin.name == *name && origin.dir.identity() == dir.identity())
    }

    /// What stands at a path.
    pub(super) fn look(&self, path: &Path) -> Result<Stat, SourceError> {
        let steps = self.resolve(path)?.steps;
        let missing = || SourceError::Missing { path: path.to_owned() };
        steps.into_iter().next_back().map(|(_, stat)| stat).ok_or_else(missing)
    }

    fn resolve(&self, path: &Path) -> Result<Resolved, SourceError> {
        let missing = |error: std::io::Error| match SourceError::of_entry("look at", path.to_owned(), error) {
            SourceError::Vanished { path } | SourceError::Replaced { path } => SourceError::Missing { path },
            other => other,
        };
        let dot = Box::from(&b"."[..]);
        let here = Origin { dir: Arc::clone(&self.slash), name: dot, follow: true };
        let stat = stat_at(&*self.slash.handle()?, c".").map_err(missing)?;
        let mut steps = vec![(here, stat)];
        let parts: Vec<_> = parts(path).collect();
        let mut dir = Arc::clone(&self.slash);
        for (i, &part) in parts.iter().enumerate() {
            let last = i + 1 == parts.len();
            let fd = dir.handle()?;
            let stat = if last {
                let name = CString::new(part).map_err(|_| SourceError::Missing { path: path.to_owned() })?;
                stat_at(&*fd, &name)
            } else {
                stat_target(&*fd, part)
            };
            let stat = stat.map_err(missing)?;
            if !last && !stat.is_dir() {
                return Err(SourceError::Missing { path: path.to_owned() });
            }
            let next = dir.child(part, &stat, !last);
            steps.push((Origin { dir, name: part.into(), follow: !last }, stat));
            dir = next;
        }
        Ok(Resolved { steps })
    }

    fn insert(&mut self, root: &Root, resolved: Resolved) -> Result<(), SourceError> {
        let source: Vec<_> = parts(&root.path).collect();
        let mut node = 0;
        for (depth, part) in root.stored.iter().enumerate() {
            if source.len() > depth && source[..depth] == root.stored[..depth] {
                let place = &mut self.nodes[node];
                if place.origin.is_none() && !place.selected {
                    let (origin, stat) = &resolved.steps[depth];
                    place.origin = Some(origin.clone());
                    place.stat = *stat;
                }
            }
            node = self.child(node, part);
        }
        let Some((origin, stat)) = resolved.steps.into_iter().next_back() else { return Ok(()) };
        let place = &mut self.nodes[node];
        let other = place.origin.as_ref().map(|other| other.dir.path_of(&other.name));
        if place.selected && !place.stat.same_inode(&stat) {
            let first = other.unwrap_or_default();
            return Err(SourceError::Collision { first, second: root.path.clone() });
        }
        if node == 0 && !stat.is_dir() {
            return Err(SourceError::BadStoredPath { path: root.path.clone() });
        }
        *place = Node {
            origin: Some(origin),
            stat,
            selected: true,
            stream: None,
            children: std::mem::take(&mut place.children),
        };
        Ok(())
    }

    /// A stream stands where nothing else does, and not below a path that was asked for: that may hold the same name. It belongs
    /// to whoever runs this, who can then restore it.
    fn insert_stream(&mut self, number: usize, parts: &[Vec<u8>]) -> Result<(), SourceError> {
        let path = || std::path::PathBuf::from(std::ffi::OsString::from_vec(parts.join(&b'/')));
        check_parts(parts, path)?;
        let owned = Stat { uid: geteuid().as_raw(), gid: getegid().as_raw(), ..Stat::default() };
        let mut node = 0;
        for part in parts {
            let place = &mut self.nodes[node];
            if place.origin.is_none() && place.children.is_empty() {
                // It is made for this one, and belongs to whom this belongs to.
                place.stat = Stat { mode: DIRECTORY, ..owned };
            }
            if place.selected {
                return Err(SourceError::Collision { first: self.path(&self.nodes[node]), second: path() });
            }
            node = self.child(node, part);
        }
        let place = &self.nodes[node];
        if node == 0 || place.selected || !place.children.is_empty() {
            return Err(SourceError::Collision { first: self.path(place), second: path() });
        }
        let stat = Stat { mode: STREAM, ..owned };
        self.nodes[node] = Node { stat, selected: true, stream: Some(number), ..Node::default() };
        Ok(())
    }

    fn child(&mut self, parent: usize, name: &[u8]) -> usize {
        if let Some(&child) = self.nodes[parent].children.get(name) {
            return child;
        }
        let child = self.nodes.len();
        self.nodes.push(Node::default());
        self.nodes[child].stat.mode = DIRECTORY;
        self.nodes[parent].children.insert(name.into(), child);
        child
    }

    /// Nothing can be stored below a file.
    fn check_files(&self) -> Result<(), SourceError> {
        for node in self.nodes.iter().filter(|node| !node.stat.is_dir()) {
            if let Some(&child) = node.children.values().next() {
                return Err(SourceError::Collision {
                    first: self.path(node),
                    second: self.path(&self.nodes[child]),
                });
            }
        }
        Ok(())
    }

    fn path(&self, node: &Node) -> std::path::PathBuf {
        node.origin.as_ref().map(|origin| origin.dir.path_of(&origin.name)).unwrap_or_default()
    }
}

/// The parts of a path that mean something.
pub(super) fn parts(path: &Path) -> impl Iterator<Item = &[u8]> {
    path.as_os_str().as_bytes().split(|&byte| byte == b'/').filter(|part| !matches!(*part, b"" | b"."))
}

fn check_parts(parts: &[Vec<u8>], path: impl FnOnce() -> std::path::PathBuf) -> Result<(), SourceError> {
    let bad = |part: &Vec<u8>| {
        matches!(part.as_slice(), b"" | b"." | b"..") || part.iter().any(|&byte| byte == b'/' || byte == 0)
    };
    if parts.iter().any(bad) { Err(SourceError::BadStoredPath { path: path() }) } else { Ok(()) }
}

fn check_rules(root: &Root, resolved: &Resolved, filter: &Filter) -> Result<(), SourceError> {
    let Some((origin, stat)) = resolved.steps.last() else { return Ok(()) };
    let path = origin.dir.path_of(&origin.name);
    match filter.matches(path.as_os_str().as_bytes(), stat.is_dir()) {
        Verdict::Keep => Ok(()),
        Verdict::Exclude { rule } => Err(match filter.rule(rule) {
            Some(rule) => SourceError::ExcludedRoot { path: root.path.clone(), rule: rule.clone() },
            None => SourceError::BadStoredPath { path: root.path.clone() },
        }),
    }
}
