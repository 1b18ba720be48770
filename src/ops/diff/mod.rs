//! What differs between two snapshots, or two directories of snapshots.
//!
//! # Invariants
//! What is the same in both is not read: equal trees, and equal pages of large directories. An entry whose counterpart
//! cannot be read is not said to be added or removed. Memory does not grow with the trees.
//!
//! # Must not
//! Read the content of files: equal content has equal chunks.

mod compare;
#[cfg(test)]
pub(in crate::ops) mod tests;

use std::path::PathBuf;

pub use self::compare::{Change, Field, change, fields};
use crate::class::Class;
use crate::error::Error;
use crate::event::{Counters, Event};
use crate::format::node::{Node, NodeKind};
use crate::ops::snapshots::SnapshotInfo;
use crate::ops::tree::{Found, Lookup, Pair, PairWalk, TreeReader, parts, trees};
use crate::repo::Repository;

/// Bytes of trees that one request to a store far away may fetch: little is read of trees that are nearly the same.
const AHEAD: u64 = 1 << 20;

/// A place in a snapshot.
#[derive(Debug, Clone)]
pub struct DiffSide {
    /// The snapshot.
    pub snapshot: SnapshotInfo,
    /// Stored path; empty or `/` for the root.
    pub path: Vec<u8>,
}

/// What to compare with what.
#[derive(Debug, Clone)]
pub struct DiffOptions {
    /// What counts as before.
    pub old: DiffSide,
    /// What counts as after.
    pub new: DiffSide,
}

/// An entry that differs.
#[derive(Debug)]
pub struct Difference<'a> {
    /// The stored path if the same path is compared on both sides, otherwise the path below the two; `/` for these themselves.
    pub path: &'a [u8],
    /// How.
    pub change: Change,
    /// The entry before; `None` if it was added.
    pub old: Option<&'a Node>,
    /// The entry after; `None` if it was removed.
    pub new: Option<&'a Node>,
    /// Of an entry on both sides, the metadata that differ.
    pub fields: Vec<Field>,
}

/// Entries of one kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DiffCount {
    /// Only in the second.
    pub added: u64,
    /// Only in the first.
    pub removed: u64,
    /// In both, with other content.
    pub changed: u64,
}

/// What a comparison found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DiffSummary {
    /// Regular files.
    pub files: DiffCount,
    /// Directories; their entries are counted, so none has changed.
    pub directories: DiffCount,
    /// Links, devices, pipes, sockets.
    pub others: DiffCount,
    /// Entries of another kind than before.
    pub kinds: u64,
    /// Entries that differ in nothing but their metadata.
    pub metadata: u64,
    /// Bytes of added files, and what changed ones grew by.
    pub bytes_added: u64,
    /// Bytes of removed files, and what changed ones shrank by.
    pub bytes_removed: u64,
    /// Places where a tree cannot be read.
    pub damaged: u64,
    /// Entries that stand where the other side cannot be read, or was not listed whole when it was saved.
    pub unknown: u64,
}

impl DiffSummary {
    /// Whether nothing differs, as far as could be seen.
    pub fn is_empty(&self) -> bool {
        let nothing = Self { damaged: self.damaged, unknown: self.unknown, ..Self::default() };
        *self == nothing
    }

    fn count(&mut self, difference: &Difference<'_>) {
        let (old, new) = (difference.old, difference.new);
        let size = |node: Option<&Node>| node.filter(|n| n.kind == NodeKind::File).map_or(0, |n| n.size);
        let (before, after) = (size(old), size(new));
        let add = |total: &mut u64, amount: u64| *total = total.saturating_add(amount);
        match difference.change {
            Change::Added => add(&mut self.of(new).added, 1),
            Change::Removed => add(&mut self.of(old).removed, 1),
            Change::Content => add(&mut self.of(new).changed, 1),
            Change::Kind => {
                self.kinds += 1;
                add(&mut self.bytes_added, after);
                return add(&mut self.bytes_removed, before);
            }
            Change::Metadata => return add(&mut self.metadata, 1),
        }
        add(&mut self.bytes_added, after.saturating_sub(before));
        add(&mut self.bytes_removed, before.saturating_sub(after));
    }

    fn of(&mut self, node: Option<&Node>) -> &mut DiffCount {
        match node.map(|node| node.kind) {
            Some(NodeKind::File) => &mut self.files,
            Some(NodeKind::Directory) => &mut self.directories,
            _ => &mut self.others,
        }
    }
}

/// Calls `visit` with every entry that differs, in order, parents before children. What lies in a directory that only one side
/// has is visited entry by entry. What cannot be read is an event and a count.
///
/// # Errors
/// [`Error::NoSuchPath`] if one of the two does not exist; what concerns the whole run.
pub async fn diff(
    repo: &Repository,
    options: DiffOptions,
    visit: impl FnMut(&Difference<'_>) + Send,
) -> Result<DiffSummary, Error> {
    diff_ahead(repo, options, AHEAD, visit).await
}

async fn diff_ahead(
    repo: &Repository,
    options: DiffOptions,
    ahead: u64,
    visit: impl FnMut(&Difference<'_>) + Send,
) -> Result<DiffSummary, Error> {
    let lookup = Lookup::open(repo).await?;
    let mut reader = lookup.reader_ahead(ahead)?;
    let old = stands(&mut reader, &options.old).await?;
    let new = stands(&mut reader, &options.new).await?;
    let mut base = Vec::new();
    if parts(&options.old.path).eq(parts(&options.new.path)) {
        parts(&options.old.path).for_each(|part| {
            base.push(b'/');
            base.extend_from_slice(part);
        });
    }
    let mut comparison = Comparison { repo, summary: DiffSummary::default(), visit };
    let nodes = [&old, &new].map(|found| match found {
        Found::Root(_) => None,
        Found::Node(node) => Some(&**node),
    });
    if let [Some(old), Some(new)] = nodes {
        comparison.entry(if base.is_empty() { b"/" } else { &base }, Some(old), Some(new));
    }
    let [was, is] = trees(nodes[0], nodes[1]);
    let root = |found: &Found, tree| if let Found::Root(root) = found { *root } else { tree };
    let walk = PairWalk::new([root(&old, was), root(&new, is)], base, None).of(nodes);
    comparison.run(walk, &mut reader).await?;
    Ok(comparison.summary)
}

async fn stands(reader: &mut TreeReader<'_>, side: &DiffSide) -> Result<Found, Error> {
    let found = reader.find(side.snapshot.snapshot.root, &side.path).await?;
    found.ok_or_else(|| Error::NoSuchPath { path: super::restore::as_path(side.path.clone()) })
}

struct Comparison<'a, V> {
    repo: &'a Repository,
    summary: DiffSummary,
    visit: V,
}

impl<V: FnMut(&Difference<'_>) + Send> Comparison<'_, V> {
    async fn run(&mut self, mut walk: PairWalk, reader: &mut TreeReader<'_>) -> Result<(), Error> {
        let env = self.repo.env();
        while let Some(pair) = walk.next(reader).await? {
            if env.cancel.is_raised() {
                return Err(Error::Cancelled);
            }
            match pair {
                Pair::Entry { old, new } => {
                    self.entry(walk.path(), old.as_deref(), new.as_deref());
                    walk.enter([old.as_deref(), new.as_deref()], None);
                }
                Pair::Unknown { .. } => self.summary.unknown += 1,
                Pair::Gap(gap) => {
                    self.summary.damaged += 1;
                    let path = if walk.path().is_empty() { b"/" } else { walk.path() };
                    let path: PathBuf = super::restore::as_path(path.to_vec());
                    let event = Event::EntryFailed { path: &path, error: &gap.error, class: Class::Damage };
                    env.observer.observe(&event);
                }
            }
        }
        Ok(())
    }

    fn entry(&mut self, path: &[u8], old: Option<&Node>, new: Option<&Node>) {
        Counters::add(&self.repo.env().observer.counters().entries, 1);
        let (change, fields) = match (old, new) {
            (Some(old), Some(new)) => match change(old, new) {
                Some(change) => (change, fields(old, new)),
                None => return,
            },
            (None, Some(_)) => (Change::Added, Vec::new()),
            (_, None) => (Change::Removed, Vec::new()),
        };
        let difference = Difference { path, change, old, new, fields };
        self.summary.count(&difference);
        (self.visit)(&difference);
    }
}
