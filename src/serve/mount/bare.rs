//! Which entries are known to have no extended attributes.
//!
//! `ls -l` asks for two of each entry that it lists, and nearly none has any. What is known here is answered by the thread that
//! takes the question, without the bridge.
//!
//! # Invariants
//! What a number stands for never changes, so what is known of one stays true. How many are known is bounded.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::inodes::Generations;
use crate::format::node::Node;

/// Numbers that a generation holds.
const GENERATION: usize = 1 << 16;

pub(super) struct Bare {
    known: Mutex<Generations<u64, ()>>,
}

impl Bare {
    pub(super) fn new() -> Self {
        Self { known: Mutex::new(Generations::new()) }
    }

    fn known(&self) -> MutexGuard<'_, Generations<u64, ()>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what an entry with this number has.
    pub(super) fn note(&self, ino: u64, node: &Node) {
        if node.xattrs.is_empty() {
            self.known().put(ino, (), GENERATION);
        }
    }

    /// Whether the entry with this number is known to have none.
    pub(super) fn is_known(&self, ino: u64) -> bool {
        self.known().get(&ino).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::node::NodeKind;

    #[test]
    fn only_what_has_no_attributes_is_known_and_not_for_ever() {
        let bare = Bare::new();
        let mut node = Node::new(b"n".to_vec(), NodeKind::File);
        bare.note(1, &node);
        node.xattrs = vec![(b"user.a".to_vec(), b"1".to_vec())];
        bare.note(2, &node);
        assert_eq!((bare.is_known(1), bare.is_known(2), bare.is_known(3)), (true, false, false));
        node.xattrs.clear();
        for ino in 10..10 + 3 * GENERATION as u64 {
            bare.note(ino, &node);
        }
        assert!(!bare.is_known(1) && bare.is_known(9 + 3 * GENERATION as u64));
        assert!(bare.known().len() <= 2 * GENERATION);
    }
}
