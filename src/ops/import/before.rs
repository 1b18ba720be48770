//! A directory as it was in the snapshot that was imported before: as restic has it, and as this repository has it.
//!
//! # Invariants
//! A doubt about either side ends the comparison of this directory; then everything in it is read. A name that comes twice
//! is one: which of both entries is here cannot be told.

use crate::format::node::Node;
use crate::ops::tree::{DirCursor, Item, TreeReader};
use crate::restic::{Node as Foreign, TreeNodes};

/// Both sides of a directory.
pub(super) struct Before {
    theirs: TreeNodes,
    ours: DirCursor,
    their_next: Option<Box<Foreign>>,
    /// What follows `their_next`.
    their_after: Option<Box<Foreign>>,
    our_next: Option<Box<Node>>,
    broken: bool,
}

impl Before {
    /// Stands before the first entry.
    pub(super) fn new(theirs: TreeNodes, ours: DirCursor) -> Self {
        let mut before =
            Self { theirs, ours, their_next: None, their_after: None, our_next: None, broken: false };
        before.broken = before.advance().is_none();
        before
    }

    /// Bytes that are held.
    pub(super) fn held(&self) -> usize {
        self.theirs.held()
    }

    /// What both sides have under this name. To be asked for in ascending order.
    pub(super) async fn find(
        &mut self,
        name: &[u8],
        reader: &mut TreeReader<'_>,
    ) -> Option<(Box<Foreign>, Box<Node>)> {
        if self.broken || self.go_to(name, reader).await.is_none() {
            self.broken = true;
            return None;
        }
        let theirs = self.their_next.take_if(|next| next.name == name);
        let ours = self.our_next.take_if(|next| next.name == name);
        theirs.zip(ours)
    }

    /// Goes to the first entry on each side that does not come before this name.
    async fn go_to(&mut self, name: &[u8], reader: &mut TreeReader<'_>) -> Option<()> {
        while self.their_next.as_ref().is_none_or(|next| &*next.name < name) {
            if self.their_next.is_none() && self.their_after.is_none() {
                break;
            }
            self.advance()?;
        }
        while self.our_next.as_ref().is_none_or(|next| &*next.name < name) {
            match self.ours.next(reader).await {
                Ok(Some(Item::Node(node))) => self.our_next = Some(node),
                Ok(Some(Item::Damaged(_))) | Err(_) => return None,
                Ok(None) => break,
            }
        }
        Some(())
    }

    /// Goes to their next entry; `None` unless its name comes before the one that follows.
    fn advance(&mut self) -> Option<()> {
        self.their_next = self.their_after.take();
        self.their_after = self.theirs.next_node().transpose().ok()?.map(Box::new);
        match (&self.their_next, &self.their_after) {
            (Some(next), Some(after)) if next.name >= after.name => None,
            _ => Some(()),
        }
    }
}
