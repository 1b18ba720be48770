//! Two directories side by side: what differs, without reading what is the same in both.
//!
//! # Invariants
//! A page that both directories refer to is read for neither, at whatever level it stands; the same goes for everything below
//! two equal references. So two directories of a million entries that differ in one cost a few pages. What stands in a page
//! that cannot be read is unknown, and what may have stood in a directory that was not listed whole when it was saved: it is
//! never taken for absent.

use std::cmp::Ordering;

use super::cursor::At;
use super::walk::PAGES_KEPT;
use super::{DirCursor, Item, TreeReader};
use crate::error::Error;
use crate::format::node::{Node, NodeKind, Problem};
use crate::format::tree::TreeRef;

/// One of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Old,
    New,
}

/// What comes next in two directories.
#[derive(Debug)]
pub(crate) enum Pair {
    /// A name and what stands there on each side; never the same bytes on both.
    Entry { old: Option<Box<Node>>, new: Option<Box<Node>> },
    /// An entry of one side where the other cannot be read, or was not listed whole.
    Unknown { side: Side, node: Box<Node> },
    /// Entries that cannot be read.
    Gap(Gap),
}

/// Names of one side that cannot be read.
#[derive(Debug)]
pub(crate) struct Gap {
    pub(crate) side: Side,
    pub(crate) error: Error,
    /// The first name that may be in it; empty at the beginning of the directory.
    pub(crate) from: Vec<u8>,
    /// The first name behind it; `None` at the end of the directory.
    pub(crate) until: Option<Vec<u8>>,
}

/// The directories that a pair of entries stands for.
pub(crate) fn trees(old: Option<&Node>, new: Option<&Node>) -> [Option<TreeRef>; 2] {
    [old, new].map(|node| node.filter(|node| node.kind == NodeKind::Directory).and_then(|node| node.tree))
}

#[derive(Debug)]
struct Half {
    cursor: DirCursor,
    /// What was last before here could not be read, so a name before the next one may have been there.
    blind: bool,
}

/// A place in two directories.
#[derive(Debug)]
struct PairCursor {
    old: Half,
    new: Half,
    /// An entry whose counterpart turned out to be damaged.
    held: Option<(Side, Box<Node>)>,
    /// Pages with nothing but names before this one are passed by.
    from: Option<Vec<u8>>,
}

/// What to do next.
enum Move {
    Open(Side),
    PassPages,
    PassRows,
    Take(Side),
    TakeBoth,
    Nothing,
}

impl PairCursor {
    fn new([old, new]: [Option<TreeRef>; 2], from: Option<Vec<u8>>) -> Self {
        let half = |tree| Half { cursor: DirCursor::new(tree), blind: false };
        Self { old: half(old), new: half(new), held: None, from }
    }

    fn park(&mut self) {
        self.old.cursor.park();
        self.new.cursor.park();
    }

    fn half(&mut self, side: Side) -> &mut Half {
        match side {
            Side::Old => &mut self.old,
            Side::New => &mut self.new,
        }
    }

    async fn next(&mut self, reader: &mut TreeReader<'_>) -> Result<Option<Pair>, Error> {
        loop {
            if let Some((side, node)) = self.held.take() {
                return Ok(Some(Pair::Unknown { side, node }));
            }
            for side in [Side::Old, Side::New] {
                if let Some(error) = self.half(side).cursor.settle(reader).await? {
                    return Ok(Some(self.gap(side, error)));
                }
            }
            if let Some(from) = &self.from {
                for half in [&mut self.old, &mut self.new] {
                    half.blind &= !half.cursor.skip_to(from);
                }
            }
            match plan(self.old.cursor.at(), self.new.cursor.at()) {
                Move::Nothing => return Ok(None),
                Move::Open(side) => {
                    let half = self.half(side);
                    let from = half.cursor.next_name().unwrap_or_default();
                    if let Some(error) = half.cursor.open(reader).await? {
                        return Ok(Some(self.gap_from(side, error, from)));
                    }
                }
                Move::PassPages => {
                    self.each(DirCursor::pass_page);
                }
                Move::PassRows => {
                    self.each(DirCursor::pass_row);
                }
                Move::Take(side) => return Ok(self.take(side)),
                Move::TakeBoth => return Ok(self.take_both()),
            }
        }
    }

    fn each(&mut self, pass: impl Fn(&mut DirCursor)) {
        for half in [&mut self.old, &mut self.new] {
            pass(&mut half.cursor);
            half.blind = false;
        }
    }

    fn take(&mut self, side: Side) -> Option<Pair> {
        let half = self.half(side);
        let node = match half.cursor.take_row()? {
            Item::Node(node) => node,
            Item::Damaged(error) => return Some(self.gap(side, error)),
        };
        half.blind = false;
        Some(match (side, self.old.blind || self.new.blind) {
            (side, true) => Pair::Unknown { side, node },
            (Side::Old, false) => Pair::Entry { old: Some(node), new: None },
            (Side::New, false) => Pair::Entry { old: None, new: Some(node) },
        })
    }

    fn take_both(&mut self) -> Option<Pair> {
        // A damaged one leaves the other to be taken alone.
        let old = match self.old.cursor.take_row()? {
            Item::Node(node) => node,
            Item::Damaged(error) => return Some(self.gap(Side::Old, error)),
        };
        self.old.blind = false;
        let new = match self.new.cursor.take_row()? {
            Item::Node(node) => node,
            Item::Damaged(error) => {
                self.held = Some((Side::Old, old));
                return Some(self.gap(Side::New, error));
            }
        };
        self.new.blind = false;
        Some(Pair::Entry { old: Some(old), new: Some(new) })
    }

    /// A gap behind the last name.
    fn gap(&mut self, side: Side, error: Error) -> Pair {
        // The smallest name that is greater has one more byte.
        let from = self.half(side).cursor.last().map(|last| [last, b"\0"].concat());
        self.gap_from(side, error, from.unwrap_or_default())
    }

    fn gap_from(&mut self, side: Side, error: Error, from: Vec<u8>) -> Pair {
        let half = self.half(side);
        half.blind = true;
        Pair::Gap(Gap { side, error, from, until: half.cursor.next_name() })
    }
}

/// Keeps both sides at the same name, and opens a page only when something of the other side may be in it.
fn plan(old: At<'_>, new: At<'_>) -> Move {
    match (old, new) {
        (At::End, At::End) => Move::Nothing,
        (At::Page { tree: one, .. }, At::Page { tree: other, .. }) if one == other => Move::PassPages,
        (At::Page { first: one, tree: a }, At::Page { first: other, tree: b }) => {
            // The other one may be in the higher one, so that goes first of two that begin alike, as far as one can tell.
            let (names, levels) = (one.cmp(other), b.level.cmp(&a.level));
            let untold = one.is_empty() || other.is_empty();
            match if untold { levels.then(names) } else { names.then(levels) } {
                Ordering::Less | Ordering::Equal => Move::Open(Side::Old),
                Ordering::Greater => Move::Open(Side::New),
            }
        }
        (At::Page { .. }, At::End) => Move::Open(Side::Old),
        (At::End, At::Page { .. }) => Move::Open(Side::New),
        (At::Page { first, .. }, At::Row { name, .. }) => {
            if first <= name {
                Move::Open(Side::Old)
            } else {
                Move::Take(Side::New)
            }
        }
        (At::Row { name, .. }, At::Page { first, .. }) => {
            if first <= name {
                Move::Open(Side::New)
            } else {
                Move::Take(Side::Old)
            }
        }
        (At::Row { .. }, At::End) => Move::Take(Side::Old),
        (At::End, At::Row { .. }) => Move::Take(Side::New),
        (At::Row { name: one, row: a }, At::Row { name: other, row: b }) => match one.cmp(other) {
            Ordering::Less => Move::Take(Side::Old),
            Ordering::Greater => Move::Take(Side::New),
            Ordering::Equal if a == b && !one.is_empty() => Move::PassRows,
            Ordering::Equal => Move::TakeBoth,
        },
    }
}

/// All that differs below two directories, in depth-first order, parents before children. Memory does not grow with the
/// trees, some bytes a level apart.
#[derive(Debug)]
pub(crate) struct PairWalk {
    stack: Vec<Frame>,
    path: Vec<u8>,
}

#[derive(Debug)]
struct Frame {
    cursor: PairCursor,
    /// Length of the path of the two directories.
    len: usize,
    /// Which of them was not listed whole.
    partial: [bool; 2],
}

/// Which of these is a directory that was not listed whole.
fn partial(nodes: [Option<&Node>; 2]) -> [bool; 2] {
    let cut = |node: &Node| node.kind == NodeKind::Directory && node.problem == Some(Problem::Unreadable);
    nodes.map(|node| node.is_some_and(cut))
}

impl PairWalk {
    /// Stands before the first difference of two directories whose path is `path`, without a slash at the end. Entries before
    /// `from` may be passed by.
    pub(crate) fn new(trees: [Option<TreeRef>; 2], path: Vec<u8>, from: Option<&[u8]>) -> Self {
        let mut walk = Self { stack: Vec::new(), path };
        walk.push(trees, [false; 2], from);
        walk
    }

    /// The same, of directories that are these entries.
    pub(crate) fn of(mut self, nodes: [Option<&Node>; 2]) -> Self {
        self.stack.iter_mut().for_each(|frame| frame.partial = partial(nodes));
        self
    }

    /// Path of the last step; of a gap, that of the directory it is in.
    pub(crate) fn path(&self) -> &[u8] {
        &self.path
    }

    /// Goes into the directories that the last step brought; equal ones hold nothing to see. Entries before `from` may be passed by.
    pub(crate) fn enter(&mut self, nodes: [Option<&Node>; 2], from: Option<&[u8]>) {
        self.push(trees(nodes[0], nodes[1]), partial(nodes), from);
    }

    fn push(&mut self, trees: [Option<TreeRef>; 2], partial: [bool; 2], from: Option<&[u8]>) {
        if trees[0] == trees[1] {
            return;
        }
        if let Some(parked) = self.stack.len().checked_sub(PAGES_KEPT)
            && let Some(frame) = self.stack.get_mut(parked)
        {
            frame.cursor.park();
        }
        let cursor = PairCursor::new(trees, from.map(<[u8]>::to_vec));
        self.stack.push(Frame { cursor, len: self.path.len(), partial });
    }

    /// Leaves the directories that the walk is in, whatever is still to come there.
    pub(crate) fn leave(&mut self) {
        self.stack.pop();
    }

    /// The next step; `None` at the end.
    ///
    /// # Errors
    /// Only what concerns the whole run: damage is a [`Gap`].
    pub(crate) async fn next(&mut self, reader: &mut TreeReader<'_>) -> Result<Option<Pair>, Error> {
        while let Some(frame) = self.stack.last_mut() {
            self.path.truncate(frame.len);
            let pair = match frame.cursor.next(reader).await? {
                Some(Pair::Entry { old: Some(node), new: None }) if frame.partial[1] => {
                    Pair::Unknown { side: Side::Old, node }
                }
                Some(Pair::Entry { old: None, new: Some(node) }) if frame.partial[0] => {
                    Pair::Unknown { side: Side::New, node }
                }
                Some(pair) => pair,
                None => {
                    self.stack.pop();
                    continue;
                }
            };
            let name = match &pair {
                Pair::Entry { old: Some(node), .. } | Pair::Entry { new: Some(node), .. } => &node.name,
                Pair::Unknown { node, .. } => &node.name,
                Pair::Entry { .. } | Pair::Gap(_) => return Ok(Some(pair)),
            };
            self.path.push(b'/');
            self.path.extend_from_slice(name);
            return Ok(Some(pair));
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests;
