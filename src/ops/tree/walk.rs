//! All entries below a directory, parents before children, in order.

use super::{DirCursor, Item, TreeReader};
use crate::error::Error;
use crate::format::node::{Node, NodeKind};
use crate::format::tree::TreeRef;

/// Directories on the way down that keep their page; those above read theirs again.
pub(super) const PAGES_KEPT: usize = 32;

/// What comes next.
#[derive(Debug)]
pub(crate) enum Step {
    /// An entry; its path is [`TreeWalk::path`] until the next step.
    Node(Box<Node>),
    /// Entries of the directory [`TreeWalk::path`] that cannot be read.
    Damaged(Error),
}

/// A walk in depth-first order. Memory does not grow with the tree, some bytes a level apart.
#[derive(Debug)]
pub(crate) struct TreeWalk {
    stack: Vec<(DirCursor, usize)>,
    path: Vec<u8>,
}

impl TreeWalk {
    /// Stands before the first entry of a directory whose path is `path`, without a slash at the end.
    pub(crate) fn new(tree: Option<TreeRef>, path: Vec<u8>) -> Self {
        Self { stack: vec![(DirCursor::new(tree), path.len())], path }
    }

    /// Path of the last step.
    pub(crate) fn path(&self) -> &[u8] {
        &self.path
    }

    /// How many directories the entry of the last step lies below where the walk began, that one included.
    pub(crate) fn depth(&self) -> usize {
        self.stack.len()
    }

    /// Goes into the directory that the last step brought.
    pub(crate) fn enter(&mut self, node: &Node) {
        if node.kind != NodeKind::Directory {
            return;
        }
        if let Some(parked) = self.stack.len().checked_sub(PAGES_KEPT)
            && let Some((cursor, _)) = self.stack.get_mut(parked)
        {
            cursor.park();
        }
        self.stack.push((DirCursor::new(node.tree), self.path.len()));
    }

    /// The next step; `None` at the end.
    pub(crate) async fn next(&mut self, reader: &mut TreeReader<'_>) -> Result<Option<Step>, Error> {
        while let Some((cursor, len)) = self.stack.last_mut() {
            self.path.truncate(*len);
            match cursor.next(reader).await? {
                Some(Item::Node(node)) => {
                    self.path.push(b'/');
                    self.path.extend_from_slice(&node.name);
                    return Ok(Some(Step::Node(node)));
                }
                Some(Item::Damaged(error)) => return Ok(Some(Step::Damaged(error))),
                None => {
                    self.stack.pop();
                }
            }
        }
        Ok(None)
    }
}
