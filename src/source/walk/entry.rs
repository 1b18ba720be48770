//! Entries as the consumer sees them: small handles into blocks that hold names and facts of many.

use std::path::PathBuf;
use std::sync::Arc;

use super::dir::Dir;
use super::names::Arena;
use crate::source::sys::stat::Stat;

/// Some entries of one directory, in order.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) dir: Arc<Dir>,
    pub(super) names: Arena,
    pub(super) entries: Vec<Record>,
    /// Entries that stand here in the snapshot and elsewhere in the source; sorted by `index`, and nearly always none.
    pub(super) foreign: Vec<Foreign>,
}

#[derive(Debug)]
pub(super) struct Record {
    /// Which name of the arena; of no meaning for a foreign entry.
    pub(super) name: u32,
    pub(super) stat: Stat,
}

#[derive(Debug)]
pub(super) struct Foreign {
    pub(super) index: u32,
    pub(super) stored: Box<[u8]>,
    pub(super) dir: Arc<Dir>,
    pub(super) source: Box<[u8]>,
    pub(super) synthetic: bool,
    pub(super) stream: Option<usize>,
}

/// One entry of the source. Cheap to clone and to send; keeps the facts of its neighbours and its directory alive, so it
/// should not be hoarded.
#[derive(Debug, Clone)]
pub struct Entry {
    pub(super) block: Arc<Block>,
    pub(super) index: u32,
}

impl Entry {
    /// The name in the snapshot; empty for the root of the tree.
    pub fn name(&self) -> &[u8] {
        match self.foreign() {
            Some(foreign) => &foreign.stored,
            None => self.block.names.get(self.record().name as usize),
        }
    }

    /// What the file system says about it, as of the walk.
    pub fn stat(&self) -> &Stat {
        &self.record().stat
    }

    /// The directory in which it stands in the source.
    pub fn dir(&self) -> &Arc<Dir> {
        self.foreign().map_or(&self.block.dir, |foreign| &foreign.dir)
    }

    /// The name by which it is reached in [`Entry::dir`]; `.` for the root of the file system.
    pub fn source_name(&self) -> &[u8] {
        match self.foreign() {
            Some(foreign) => &foreign.source,
            None => self.name(),
        }
    }

    /// The path in the source. Costs an allocation; for messages and rules.
    pub fn path(&self) -> PathBuf {
        self.dir().path_of(self.source_name())
    }

    /// A directory that exists only in the snapshot, to hold what is stored under another path than its own. It has
    /// neither attributes nor flags to read.
    pub fn is_synthetic(&self) -> bool {
        self.foreign().is_some_and(|foreign| foreign.synthetic)
    }

    /// Which of [`super::WalkOptions::streams`] it is, if it is one. Nothing stands there in the source.
    pub fn stream(&self) -> Option<usize> {
        self.foreign().and_then(|foreign| foreign.stream)
    }

    fn record(&self) -> &Record {
        &self.block.entries[self.index as usize]
    }

    fn foreign(&self) -> Option<&Foreign> {
        if self.block.foreign.is_empty() {
            return None;
        }
        let at = self.block.foreign.binary_search_by_key(&self.index, |foreign| foreign.index).ok()?;
        self.block.foreign.get(at)
    }
}
