//! The async side of a transfer: what arrives, held to what a reader accepts, on its way to the threads.
//!
//! # Invariants
//! Bytes on their way are bounded, whatever the entries are. Names ascend within a directory. Nothing is sent that a reader
//! of this repository would refuse.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::super::merge::Tally;
use super::super::sink::Sink;
use super::super::total;
use crate::class::Class;
use crate::error::Error;
use crate::event::{Counters, EntryChange, Event};
use crate::format::FormatError;
use crate::format::content::{ChunkRow, Content, INLINE_ROWS_MAX};
use crate::format::node::{Node, NodeKind, Problem, Totals};
use crate::format::segment::SEGMENT_PLAIN_MAX;
use crate::id::ChunkId;

/// Messages on their way.
const MESSAGES: usize = 256;
/// Bytes of content and entries on their way.
const ROOM: usize = 16 << 20;
/// Content goes in pieces of this size.
const PIECE: usize = 1 << 20;
/// Longest stored form of an entry before its content is known: with that it must still fit into a page of its own.
const NODE_MAX: usize = SEGMENT_PLAIN_MAX - INLINE_ROWS_MAX * ChunkRow::LEN - (1 << 10);

/// What arrives, in walk order.
#[derive(Debug)]
pub(super) enum Message {
    /// A directory, without its entries.
    Enter(Box<Node>),
    /// The end of the directory entered last.
    Leave,
    /// Something of the directory entered last could not be had.
    Incomplete,
    /// An entry, encoded and complete; the size of a regular file.
    Entry(Vec<u8>, Option<u64>),
    /// A directory all of whose entries are stored.
    Whole(Box<Node>),
    /// A file whose content follows.
    Begin(Box<Node>),
    /// Content of the file that began last.
    Data(Bytes),
    /// The end of the file; false if its content could not be had.
    End(bool),
    /// Everything was sent.
    Done,
}

/// A message, and its place among the bytes on their way.
pub(super) type Sent = (Message, Option<OwnedSemaphorePermit>);

/// What a feed counted.
#[derive(Debug, Default)]
pub(super) struct Counts {
    missing: AtomicU64,
    read: AtomicU64,
    known: AtomicU64,
}

impl Counts {
    pub(super) fn tally(&self) -> Tally {
        let [failed, new_files, unchanged_files] = [&self.missing, &self.read, &self.known].map(total);
        Tally { new_files, unchanged_files, failed, changed_files: 0 }
    }
}

/// Takes a tree in walk order: depth first, names ascending in each directory, the root's entries first. Each call waits
/// until there is room.
///
/// Every call that takes a node refuses one that no reader would accept, with [`Error::Damaged`], and has done nothing then:
/// the caller may report that with [`Self::skipped`] and go on. Any other error ends the transfer.
pub(crate) struct Feed {
    sink: Arc<Sink>,
    messages: Sender<Sent>,
    room: Arc<Semaphore>,
    counts: Arc<Counts>,
    /// The last name in each directory that was entered, the root first.
    names: Vec<Vec<u8>>,
    /// Names of the root's entries, if they come in any order.
    loose: Option<BTreeSet<Vec<u8>>>,
    /// Bytes that the file at hand still lacks.
    expected: u64,
    scratch: Vec<u8>,
}

impl Feed {
    /// A feed whose entries ascend; those of the root come in any order if they are `loose`.
    pub(super) fn new(sink: &Arc<Sink>, loose: bool) -> (Self, Receiver<Sent>) {
        let (messages, receiver) = channel(MESSAGES);
        let feed = Self {
            sink: Arc::clone(sink),
            messages,
            room: Arc::new(Semaphore::new(ROOM)),
            counts: Arc::default(),
            names: vec![Vec::new()],
            loose: loose.then(BTreeSet::new),
            expected: 0,
            scratch: Vec::new(),
        };
        (feed, receiver)
    }

    pub(super) fn counts(&self) -> Arc<Counts> {
        Arc::clone(&self.counts)
    }

    /// Whether what the base has may be taken over unseen: entries with the content, and directories with the tree, that
    /// their nodes in the base's snapshot have. This may end while the transfer goes on.
    pub(crate) fn trusts_base(&self) -> bool {
        self.sink.trusts_last()
    }

    /// Whether this repository has the chunk where the snapshot may depend on it; if so, it does from now on.
    pub(crate) fn holds(&self, chunk: &ChunkId) -> Result<bool, Error> {
        self.sink.is_known(chunk)
    }

    /// Goes into a directory.
    pub(crate) async fn enter(&mut self, node: Node) -> Result<(), Error> {
        let node = Node { tree: None, totals: Totals::default(), ..node };
        let len = self.admit(&node)?;
        self.names.push(Vec::new());
        self.count(&node, 1);
        self.send(Message::Enter(Box::new(node)), len).await
    }

    /// Ends the directory that was entered last. The root ends by itself.
    pub(crate) async fn leave(&mut self) -> Result<(), Error> {
        if self.names.len() > 1 {
            self.names.pop();
            self.send(Message::Leave, 0).await?;
        }
        Ok(())
    }

    /// Says that a part of the directory at hand, whose path is `path`, cannot be had.
    pub(crate) async fn incomplete(&mut self, path: &Path, error: &Error) -> Result<(), Error> {
        self.failed(path, error);
        self.send(Message::Incomplete, 0).await
    }

    /// Says that an entry cannot be brought at all, not even its name.
    pub(crate) async fn skipped(&mut self, path: &Path, error: &Error) -> Result<(), Error> {
        self.incomplete(path, error).await
    }

    /// Adds an entry without content, or one that is taken over as it stands in this repository: a file with its content, a
    /// directory with its tree.
    pub(crate) async fn entry(&mut self, node: Node) -> Result<(), Error> {
        let len = self.admit(&node)?;
        self.count(&node, 1);
        if node.kind == NodeKind::Directory {
            let Totals { entries, files, bytes } = node.totals;
            let counters = self.sink.observer.counters();
            Counters::add(&counters.entries, entries);
            Counters::add(&counters.files, files);
            Counters::add(&counters.bytes, bytes);
            self.counts.known.fetch_add(files, Ordering::Relaxed);
            return self.send(Message::Whole(Box::new(node)), len).await;
        }
        let size = (node.kind == NodeKind::File).then_some(node.size);
        self.tell(if size.is_some() { EntryChange::Unchanged } else { EntryChange::New });
        if let Some(size) = size {
            self.counts.known.fetch_add(1, Ordering::Relaxed);
            Counters::add(&self.sink.observer.counters().bytes, size);
        }
        let encoded = self.scratch.clone();
        self.send(Message::Entry(encoded, size), len).await
    }

    /// Adds an entry whose content, or target, cannot be had; it is recorded without.
    pub(crate) async fn lost(&mut self, node: Node, path: &Path, error: &Error) -> Result<(), Error> {
        let node = stripped(node);
        let len = self.admit(&node)?;
        self.failed(path, error);
        self.count(&node, 1);
        let encoded = self.scratch.clone();
        self.send(Message::Entry(encoded, None), len).await
    }

    /// Begins a file. What follows until [`Self::end`] is its content without the holes that the node names: exactly as many
    /// bytes as its size has beside them.
    ///
    /// # Errors
    /// [`Error::Damaged`] if its node is refused, before anything was done.
    pub(crate) async fn begin(&mut self, node: Node) -> Result<(), Error> {
        let node = Node { content: Content::Inline(Vec::new()), ..node };
        let len = self.admit(&node)?;
        self.count(&node, 1);
        let holes: u64 = node.holes.iter().map(|(_, len)| len).sum();
        self.expected = node.size - holes;
        self.counts.read.fetch_add(1, Ordering::Relaxed);
        self.tell(EntryChange::New);
        self.send(Message::Begin(Box::new(node)), len).await
    }

    /// Appends content to the file that began last.
    ///
    /// # Errors
    /// [`Error::Damaged`] if that is more than its node says; the file is to be ended by [`Self::spoilt`] then.
    pub(crate) async fn data(&mut self, mut content: Bytes) -> Result<(), Error> {
        self.expected = self.expected.checked_sub(content.len() as u64).ok_or_else(misfit)?;
        while !content.is_empty() {
            let piece = content.split_to(content.len().min(PIECE));
            let (len, counters) = (piece.len(), self.sink.observer.counters());
            Counters::add(&counters.bytes_read, len as u64);
            Counters::add(&counters.bytes, len as u64);
            self.send(Message::Data(piece), len).await?;
        }
        Ok(())
    }

    /// Ends the file that began last.
    ///
    /// # Errors
    /// [`Error::Damaged`] if it lacks some of what its node says; it is to be ended by [`Self::spoilt`] then.
    pub(crate) async fn end(&mut self) -> Result<(), Error> {
        if self.expected > 0 {
            return Err(misfit());
        }
        self.send(Message::End(true), 0).await
    }

    /// Ends the file that began last, of whose content the rest cannot be had; it is recorded without any.
    pub(crate) async fn spoilt(&mut self, path: &Path, error: &Error) -> Result<(), Error> {
        self.failed(path, error);
        self.counts.read.fetch_sub(1, Ordering::Relaxed);
        self.send(Message::End(false), 0).await
    }

    pub(super) async fn finish(mut self) -> Result<(), Error> {
        while self.names.len() > 1 {
            self.leave().await?;
        }
        self.send(Message::Done, 0).await
    }

    fn count(&self, node: &Node, entries: u64) {
        let counters = self.sink.observer.counters();
        Counters::add(&counters.entries, entries);
        if node.kind == NodeKind::File {
            Counters::add(&counters.files, 1);
        }
    }

    /// Names the entry that was admitted last, if somebody wants to know.
    fn tell(&self, change: EntryChange) {
        if !self.sink.observer.wants_entries() {
            return;
        }
        let mut path = Vec::new();
        for name in &self.names {
            path.push(b'/');
            path.extend_from_slice(name);
        }
        let path = Path::new(OsStr::from_bytes(&path));
        self.sink.observer.observe(&Event::Entry { path, change });
    }

    fn failed(&self, path: &Path, error: &Error) {
        self.counts.missing.fetch_add(1, Ordering::Relaxed);
        let class = match error.class() {
            Class::Damage => Class::Damage,
            _ => Class::Failed,
        };
        self.sink.observer.observe(&Event::EntryFailed { path, error, class });
    }

    /// Demands that a reader accepts the entry and that its turn has come; gives the length of its stored form, which is in
    /// `scratch` then.
    fn admit(&mut self, node: &Node) -> Result<usize, Error> {
        let top = self.names.len() == 1;
        let last = self.names.last_mut();
        if let (Some(names), true) = (&mut self.loose, top) {
            check(node, &[], &mut self.scratch).map_err(refused)?;
            if !names.insert(node.name.clone()) {
                return Err(refused(FormatError::Value { section: "5", what: "order of names" }));
            }
            return Ok(self.scratch.len());
        }
        let checked = check(node, last.as_deref().map_or(&[][..], Vec::as_slice), &mut self.scratch);
        checked.map_err(refused)?;
        if let Some(last) = last {
            last.clone_from(&node.name);
        }
        Ok(self.scratch.len())
    }

    async fn send(&mut self, message: Message, len: usize) -> Result<(), Error> {
        let room = match len {
            0 => None,
            len => {
                let room = Arc::clone(&self.room).acquire_many_owned(len.min(ROOM) as u32).await;
                Some(room.map_err(|_| Error::Cancelled)?)
            }
        };
        // Whoever listens is gone only if it failed, and then its error is the one that counts.
        self.messages.send((message, room)).await.map_err(|_| Error::Cancelled)
    }
}

/// The content of a file has another length than its node says.
fn misfit() -> Error {
    refused(FormatError::Value { section: "6", what: "size of a file" })
}

fn refused(rule: FormatError) -> Error {
    Error::Damaged { key: "an entry that was to be brought".to_owned(), rule }
}

/// An entry without what could not be had.
pub(super) fn stripped(node: Node) -> Node {
    Node {
        size: 0,
        content: Content::Inline(Vec::new()),
        holes: Vec::new(),
        tree: None,
        totals: Totals::default(),
        problem: Some(Problem::Unreadable),
        ..node
    }
}

fn check(node: &Node, last: &[u8], scratch: &mut Vec<u8>) -> Result<(), FormatError> {
    let bad = |section, what| Err(FormatError::Value { section, what });
    if matches!(&*node.name, b"" | b"." | b"..") || node.name.iter().any(|byte| matches!(byte, 0 | b'/')) {
        return bad("6", "node name");
    }
    if &*node.name <= last {
        return bad("5", "order of names");
    }
    if node.holes.last().is_some_and(|(offset, len)| offset.saturating_add(*len) > node.size) {
        return bad("6", "holes");
    }
    scratch.clear();
    node.encode(scratch);
    if scratch.len() > NODE_MAX {
        return bad("6", "length of a node");
    }
    Node::decode(scratch).map(|_| ())
}
