//! The last run's state, walked in step with this run's walk: both are in the same order, so one pass is enough.

use super::state::{Fingerprint, Record, StateReader, Trailer};
use crate::format::content::ChunkRow;
use crate::format::node::Node;

/// What the last run saved of an entry.
#[derive(Debug)]
pub(super) struct Remembered {
    pub print: Fingerprint,
    pub node: Vec<u8>,
    pub rows: Vec<ChunkRow>,
}

/// A position in the last run's state. Damage in it ends the memory: everything after is new.
pub(super) struct LastRun {
    reader: Option<StateReader>,
    peeked: Option<Record>,
    /// Directories entered that the last run did not have.
    unknown: usize,
}

impl LastRun {
    /// At the beginning; without a state everything is new.
    pub(super) fn new(reader: Option<StateReader>) -> Self {
        Self { reader, peeked: None, unknown: 0 }
    }

    /// What the last run said of itself.
    pub(super) fn trailer(&self) -> Option<&Trailer> {
        self.reader.as_ref().map(StateReader::trailer)
    }

    fn peek(&mut self) -> Option<&Record> {
        if self.peeked.is_none() {
            self.peeked = match self.reader.as_mut()?.next() {
                Ok(record) => record,
                Err(_) => {
                    self.reader = None;
                    None
                }
            };
        }
        self.peeked.as_ref()
    }

    fn take(&mut self) -> Option<Record> {
        self.peek()?;
        self.peeked.take()
    }

    /// Goes to the entry with this name in the directory at hand; leaves the position behind it if it is there.
    fn seek(&mut self, name: &[u8]) -> Option<Record> {
        loop {
            let found = match self.peek()? {
                Record::Leave => return None,
                Record::Enter { node, .. } | Record::Entry { node, .. } => {
                    Node::peek_name(node).ok()?.cmp(name)
                }
            };
            match found {
                std::cmp::Ordering::Less => self.skip(),
                std::cmp::Ordering::Equal => return self.take(),
                std::cmp::Ordering::Greater => return None,
            }
        }
    }

    /// Skips one entry, a directory with all that is in it.
    fn skip(&mut self) {
        if matches!(self.take(), Some(Record::Enter { .. })) {
            self.skip_rest();
        }
    }

    /// Skips to behind the end of the directory at hand.
    fn skip_rest(&mut self) {
        let mut depth = 1;
        while depth > 0 {
            match self.take() {
                Some(Record::Enter { .. }) => depth += 1,
                Some(Record::Leave) => depth -= 1,
                Some(Record::Entry { .. }) => {}
                None => return,
            }
        }
    }

    /// Enters a directory.
    pub(super) fn enter(&mut self, name: &[u8]) -> Option<Remembered> {
        if self.unknown == 0 {
            // If it was something else last time, the position is behind it now.
            if let Some(Record::Enter { print, node }) = self.seek(name) {
                return Some(Remembered { print, node, rows: Vec::new() });
            }
        }
        self.unknown += 1;
        None
    }

    /// Looks for anything but a directory.
    pub(super) fn entry(&mut self, name: &[u8]) -> Option<Remembered> {
        if self.unknown > 0 {
            return None;
        }
        match self.seek(name)? {
            Record::Entry { print, node, rows } => Some(Remembered { print, node, rows }),
            Record::Enter { .. } => {
                self.skip_rest();
                None
            }
            Record::Leave => None,
        }
    }

    /// Leaves the directory entered last.
    pub(super) fn leave(&mut self) {
        if self.unknown > 0 {
            self.unknown -= 1;
        } else {
            self.skip_rest();
        }
    }
}
