//! Puts the tree together: entries come in walk order, pages leave as soon as they are full.

use std::collections::BTreeMap;

use super::content::content_of;
use super::sink::Segmenter;
use super::state::{Fingerprint, StateWriter};
use super::tree::DirectoryPages;
use crate::crypto::SecretKey;
use crate::error::Error;
use crate::format::content::ChunkRow;
use crate::format::node::{Node, Problem, Totals};
use crate::format::tree::TreeRef;

/// A directory under construction.
struct Frame {
    node: Node,
    pages: DirectoryPages,
    totals: Totals,
    /// Entries that come in any order, until the directory ends.
    loose: Option<BTreeMap<Vec<u8>, Vec<u8>>>,
}

impl Frame {
    fn new(node: Node) -> Self {
        Self { node, pages: DirectoryPages::new(), totals: Totals::default(), loose: None }
    }

    fn push(
        &mut self,
        (name, node): (&[u8], &[u8]),
        boundary: &SecretKey,
        segment: &mut Segmenter<'_>,
    ) -> Result<(), Error> {
        match &mut self.loose {
            Some(loose) => {
                loose.insert(name.to_vec(), node.to_vec());
                Ok(())
            }
            None => self.pages.push(name, node, boundary, segment),
        }
    }
}

/// The tree of a run and, beside it, the state that the next run will compare with.
pub(super) struct Assembler<'a> {
    stack: Vec<Frame>,
    boundary: SecretKey,
    segment: Segmenter<'a>,
    state: Option<StateWriter>,
    root: (Option<TreeRef>, Totals),
}

impl<'a> Assembler<'a> {
    /// Pages go into `segment`; without `state` nothing is remembered.
    pub(super) fn new(boundary: SecretKey, segment: Segmenter<'a>, state: Option<StateWriter>) -> Self {
        Self { stack: Vec::new(), boundary, segment, state, root: (None, Totals::default()) }
    }

    /// Begins a directory, whose node has no tree yet.
    pub(super) fn enter(&mut self, node: Node, print: &Fingerprint) -> Result<(), Error> {
        if let Some(state) = &mut self.state {
            let mut encoded = Vec::with_capacity(160);
            node.encode(&mut encoded);
            state.enter(print, &encoded)?;
        }
        self.stack.push(Frame::new(node));
        Ok(())
    }

    /// Begins a directory of few entries, which come in any order, each with a name of its own.
    pub(super) fn enter_loose(&mut self, node: Node) {
        self.stack.push(Frame { loose: Some(BTreeMap::new()), ..Frame::new(node) });
    }

    /// Adds an entry; `remember` is false for one that the next run must look at again.
    pub(super) fn entry(
        &mut self,
        (node, rows): (&[u8], &[ChunkRow]),
        print: &Fingerprint,
        file_size: Option<u64>,
        remember: bool,
    ) -> Result<(), Error> {
        if let (Some(state), true) = (&mut self.state, remember) {
            state.entry(print, node, rows)?;
        }
        let name = Node::peek_name(node).map_err(in_memory)?;
        let Some(frame) = self.stack.last_mut() else { return Ok(()) };
        frame.totals.entries += 1;
        if let Some(size) = file_size {
            frame.totals.files += 1;
            frame.totals.bytes = frame.totals.bytes.saturating_add(size);
        }
        frame.push((name, node), &self.boundary, &mut self.segment)
    }

    /// Adds a file whose rows go into pages.
    pub(super) fn long_file(
        &mut self,
        (mut node, rows): (Node, &[ChunkRow]),
        print: &Fingerprint,
        remember: bool,
    ) -> Result<(), Error> {
        node.content = content_of(rows, &mut self.segment)?;
        self.paged_file((&node, rows), print, remember)
    }

    /// Adds a file whose node has its content; `rows` are those of its pages, if the next run is to know them.
    pub(super) fn paged_file(
        &mut self,
        (node, rows): (&Node, &[ChunkRow]),
        print: &Fingerprint,
        remember: bool,
    ) -> Result<(), Error> {
        let mut encoded = Vec::with_capacity(256);
        node.encode(&mut encoded);
        self.entry((&encoded, rows), print, Some(node.size), remember)
    }

    /// Adds a directory whose entries are stored already, as its node says.
    pub(super) fn whole_directory(&mut self, node: &Node) -> Result<(), Error> {
        let mut encoded = Vec::with_capacity(224);
        node.encode(&mut encoded);
        let Some(frame) = self.stack.last_mut() else { return Ok(()) };
        frame.totals.entries += 1;
        frame.totals.add(node.totals);
        frame.push((&node.name, &encoded), &self.boundary, &mut self.segment)
    }

    /// Notes that the directory entered last is not complete.
    pub(super) fn incomplete(&mut self) {
        if let Some(frame) = self.stack.last_mut() {
            frame.node.problem = Some(Problem::Unreadable);
        }
    }

    /// Where pages go.
    pub(super) fn pages(&mut self) -> &mut Segmenter<'a> {
        &mut self.segment
    }

    /// Ends the directory entered last.
    pub(super) fn leave(&mut self) -> Result<(), Error> {
        if let Some(state) = &mut self.state {
            state.leave();
        }
        let Some(Frame { mut node, mut pages, totals, loose }) = self.stack.pop() else { return Ok(()) };
        for (name, node) in loose.into_iter().flatten() {
            pages.push(&name, &node, &self.boundary, &mut self.segment)?;
        }
        let tree = pages.finish(&self.boundary, &mut self.segment)?;
        let Some(parent) = self.stack.last_mut() else {
            self.root = (tree, totals);
            return Ok(());
        };
        parent.totals.entries += 1;
        parent.totals.add(totals);
        (node.tree, node.totals) = (tree, totals);
        let mut encoded = Vec::with_capacity(224);
        node.encode(&mut encoded);
        parent.push((&node.name, &encoded), &self.boundary, &mut self.segment)
    }

    /// Seals the last pages; the root and its totals, and the state to complete.
    pub(super) fn finish(mut self) -> Result<(Option<TreeRef>, Totals, Option<StateWriter>), Error> {
        debug_assert!(self.stack.is_empty(), "every directory was left");
        self.segment.flush()?;
        Ok((self.root.0, self.root.1, self.state))
    }
}

fn in_memory(rule: crate::format::FormatError) -> Error {
    Error::Damaged { key: "a node in memory".to_owned(), rule }
}
