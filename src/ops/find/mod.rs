//! Finding entries in many snapshots, and what became of each over time.
//!
//! Snapshots of one job of one machine are a sequence. The first is walked, each later one is held against the one before, so
//! what did not change is not read again: a year of snapshots of a tree that changes slowly costs little more than one.
//!
//! # Invariants
//! Memory is bounded: what was found is held in a table of bounded size for a window of paths. When the table is full, the window
//! shrinks, and what lies behind it is looked for in another pass. An entry where a tree cannot be read is neither there nor
//! gone: what is known of it ends before and begins anew behind.
//!
//! # Must not
//! Read the content of files.

mod table;
#[cfg(test)]
mod tests;
mod when;

use std::collections::BTreeMap;
use std::path::PathBuf;

pub use self::table::Then;
use self::table::{PathKey, Table, Window};
pub use self::when::{ParseWhenError, When};
use crate::class::Class;
use crate::clock::Timestamp;
use crate::error::Error;
use crate::event::{Counters, Event};
use crate::filter::{Filter, Inclusion};
use crate::format::node::{Node, NodeKind};
use crate::ops::diff::{Change, change};
use crate::ops::snapshots::SnapshotInfo;
use crate::ops::tree::{Gap, Lookup, Pair, PairWalk, Side, TreeReader, trees};
use crate::repo::Repository;

/// Bytes of trees that one request to a store far away may fetch.
const AHEAD: u64 = 4 << 20;
/// Most bytes of what was found that are held at once.
const TABLE_MAX: usize = 64 << 20;

/// What to look for.
#[derive(Debug, Default)]
pub struct FindOptions {
    /// The snapshots, in any order.
    pub snapshots: Vec<SnapshotInfo>,
    /// Include rules on stored paths: an entry is looked for if one of them matches the entry itself.
    pub names: Filter,
    /// Last changed at this time or later.
    pub not_before: Option<Timestamp>,
    /// Last changed before this time.
    pub before: Option<Timestamp>,
    /// Regular files of more bytes.
    pub larger: Option<u64>,
    /// Regular files of fewer bytes.
    pub smaller: Option<u64>,
    /// Entries of one of these kinds; all if empty.
    pub kinds: Vec<NodeKind>,
    /// Whether other metadata make another version, too.
    pub metadata: bool,
}

/// One version of an entry, and the snapshots that hold it.
#[derive(Debug)]
pub struct Found<'a> {
    /// Stored path.
    pub path: &'a [u8],
    /// The entry as the first of these snapshots holds it; without content, holes and attributes.
    pub node: &'a Node,
    /// The first snapshot that holds this version.
    pub first: &'a SnapshotInfo,
    /// The last one.
    pub last: &'a SnapshotInfo,
    /// How many snapshots of this job and machine that is, both included.
    pub count: u64,
    /// What became of it.
    pub then: Then,
}

/// What a search found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FindSummary {
    /// Paths of one job and machine.
    pub paths: u64,
    /// Versions of them.
    pub versions: u64,
    /// Snapshots that were looked at.
    pub snapshots: u64,
    /// Places where a tree cannot be read.
    pub damaged: u64,
}

/// Calls `visit` with every version of every entry that matches: by machine and job, in the order of their paths, the oldest
/// version first. What cannot be read is an event and a count.
///
/// # Errors
/// What concerns the whole run.
pub async fn find(
    repo: &Repository,
    options: FindOptions,
    visit: impl FnMut(&Found<'_>) + Send,
) -> Result<FindSummary, Error> {
    find_within(repo, options, Bounds { table: TABLE_MAX, ahead: AHEAD }, visit).await
}

/// What a search may take.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    /// Bytes of what was found that are held at once.
    table: usize,
    /// Bytes of trees that one request to a store far away may fetch.
    ahead: u64,
}

async fn find_within(
    repo: &Repository,
    mut options: FindOptions,
    bounds: Bounds,
    visit: impl FnMut(&Found<'_>) + Send,
) -> Result<FindSummary, Error> {
    let mut snapshots = std::mem::take(&mut options.snapshots);
    snapshots.sort_by_key(|info| (info.stored, info.writer, info.sequence));
    let mut summary = FindSummary { snapshots: snapshots.len() as u64, ..FindSummary::default() };
    let mut sequences: BTreeMap<(Vec<u8>, Vec<u8>), Vec<SnapshotInfo>> = BTreeMap::new();
    for info in snapshots {
        let key = (info.snapshot.host.clone(), info.snapshot.job.clone());
        sequences.entry(key).or_default().push(info);
    }
    let lookup = Lookup::open(repo).await?;
    let mut reader = lookup.reader_ahead(bounds.ahead)?;
    let mut search = Search { repo, options, table_max: bounds.table, summary: &mut summary, visit };
    for sequence in sequences.values() {
        search.sequence(sequence, &mut reader).await?;
    }
    Ok(summary)
}

struct Search<'a, V> {
    repo: &'a Repository,
    options: FindOptions,
    table_max: usize,
    summary: &'a mut FindSummary,
    visit: V,
}

impl<V: FnMut(&Found<'_>) + Send> Search<'_, V> {
    /// Goes through the snapshots of one job and machine, in as many passes as it takes.
    async fn sequence(
        &mut self,
        sequence: &[SnapshotInfo],
        reader: &mut TreeReader<'_>,
    ) -> Result<(), Error> {
        let mut from = PathKey::default();
        loop {
            let mut table = Table::new(Window { from, until: None }, self.table_max);
            let mut before = None;
            for (number, info) in sequence.iter().enumerate() {
                let step = Step { number: number as u32, table: &mut table };
                let walk =
                    PairWalk::new([before, info.snapshot.root], Vec::new(), step.table.window.name(b""));
                self.step(walk, step, reader).await?;
                before = info.snapshot.root;
            }
            self.show(&table, sequence);
            match table.window.until {
                Some(until) => from = until,
                None => return Ok(()),
            }
        }
    }

    /// Holds one snapshot against the one before.
    async fn step(
        &mut self,
        mut walk: PairWalk,
        mut step: Step<'_>,
        reader: &mut TreeReader<'_>,
    ) -> Result<(), Error> {
        while let Some(pair) = walk.next(reader).await? {
            if self.repo.env().cancel.is_raised() {
                return Err(Error::Cancelled);
            }
            let (old, new) = match pair {
                Pair::Gap(gap) => {
                    self.gap(walk.path(), &gap, &mut step);
                    continue;
                }
                Pair::Entry { old, new } => (old, new),
                Pair::Unknown { side: Side::Old, node } => {
                    self.lose_sight(walk.path(), &node.name, &mut step);
                    continue;
                }
                Pair::Unknown { side: Side::New, node } => (None, Some(node)),
            };
            Counters::add(&self.repo.env().observer.counters().entries, 1);
            if step.table.window.is_behind(walk.path()) {
                walk.leave();
                continue;
            }
            self.entry(walk.path(), [old.as_deref(), new.as_deref()], &mut step);
            let below = trees(old.as_deref(), new.as_deref());
            if below[0] != below[1]
                && step.table.window.reaches_below(walk.path())
                && self.options.names.inclusion(walk.path(), true) != Inclusion::Outside
            {
                let from = step.table.window.name(walk.path());
                walk.enter([old.as_deref(), new.as_deref()], from);
            }
        }
        Ok(())
    }

    fn entry(&self, path: &[u8], [old, new]: [Option<&Node>; 2], step: &mut Step<'_>) {
        let wanted = |node: Option<&Node>| node.is_some_and(|node| self.wants(path, node));
        let (was, is) = (wanted(old), wanted(new));
        if !was && !is || !step.table.window.holds(path) {
            return;
        }
        if let (true, true, Some(old), Some(new)) = (was, is, old, new)
            && self.is_same(old, new)
        {
            return;
        }
        if was {
            let then = if new.is_some() { Then::Changed } else { Then::Vanished };
            step.table.close(path, step.number - 1, then);
        }
        if let (true, Some(new)) = (is, new) {
            step.table.open(path, step.number, new);
        }
    }

    /// Nothing is known any more of an entry and of what is below it: the directory that it was in cannot be read, or was not
    /// listed whole.
    fn lose_sight(&self, path: &[u8], name: &[u8], step: &mut Step<'_>) {
        let dir = &path[..path.len().saturating_sub(name.len() + 1)];
        let behind = [name, b"\0"].concat();
        if let Some(last) = step.number.checked_sub(1) {
            step.table.close_between(dir, (name, Some(&behind)), last);
        }
    }

    /// Nothing is known any more of what was found between two names.
    fn gap(&mut self, dir: &[u8], gap: &Gap, step: &mut Step<'_>) {
        if gap.side == Side::Old {
            return; // told of when it was the new side
        }
        if step.table.window.holds(&[dir, b"/", &gap.from].concat()) {
            self.summary.damaged += 1;
            let path: PathBuf =
                super::restore::as_path(if dir.is_empty() { b"/".to_vec() } else { dir.to_vec() });
            let event = Event::EntryFailed { path: &path, error: &gap.error, class: Class::Damage };
            self.repo.env().observer.observe(&event);
        }
        if let Some(last) = step.number.checked_sub(1) {
            step.table.close_between(dir, (&gap.from, gap.until.as_deref()), last);
        }
    }

    fn wants(&self, path: &[u8], node: &Node) -> bool {
        let options = &self.options;
        let is_file = node.kind == NodeKind::File;
        let changed = i128::from(node.mtime.seconds) * 1_000_000_000 + i128::from(node.mtime.nanos);
        (options.kinds.is_empty() || options.kinds.contains(&node.kind))
            && options.larger.is_none_or(|than| is_file && node.size > than)
            && options.smaller.is_none_or(|than| is_file && node.size < than)
            && options.not_before.is_none_or(|time| changed >= i128::from(time.0))
            && options.before.is_none_or(|time| changed < i128::from(time.0))
            && options.names.inclusion(path, node.kind == NodeKind::Directory) == Inclusion::Included
    }

    /// Whether a person would call it the same version. The time of a directory changes with what is in it.
    fn is_same(&self, old: &Node, new: &Node) -> bool {
        match change(old, new) {
            None => true,
            Some(Change::Metadata) => {
                !self.options.metadata && (new.kind == NodeKind::Directory || old.mtime == new.mtime)
            }
            Some(_) => false,
        }
    }

    fn show(&mut self, table: &Table, sequence: &[SnapshotInfo]) {
        for (path, versions) in table.found() {
            self.summary.paths += 1;
            for version in versions {
                let last = version.last.map_or(sequence.len() - 1, |(last, _)| last as usize);
                let (Some(first), Some(last_info)) =
                    (sequence.get(version.first as usize), sequence.get(last))
                else {
                    continue;
                };
                self.summary.versions += 1;
                (self.visit)(&Found {
                    path,
                    node: &version.node,
                    first,
                    last: last_info,
                    count: last as u64 - u64::from(version.first) + 1,
                    then: version.last.map_or(Then::There, |(_, then)| then),
                });
            }
        }
    }
}

/// One snapshot of a sequence.
struct Step<'a> {
    number: u32,
    table: &'a mut Table,
}
