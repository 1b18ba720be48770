//! The threads' side of a transfer: cuts what arrives, gives it to the workers, and puts the tree together.
//!
//! # Invariants
//! Content is cut where a backup of the same file would cut it: from the start of each range between holes, in spans.
//! Entries reach the assembler in the order in which they came. The line of those that wait is bounded.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::mpsc::Receiver as Answers;

use tokio::sync::mpsc::Receiver;

use super::super::assemble::Assembler;
use super::super::content::ContentBuilder;
use super::super::merge::Tally;
use super::super::round::Round;
use super::super::sink::{Segmenter, Sink};
use super::super::state::Fingerprint;
use super::super::threads::{Built, ThreadPlan};
use super::super::worker::{Cut, Outcome};
use super::feed::{Message, Sent, stripped};
use crate::chunk::{Cutter, SPAN, spans};
use crate::error::Error;
use crate::format::content::ChunkRow;
use crate::format::envelope::ChunkKind;
use crate::format::node::{Node, NodeKind};

/// Entries that wait for their turn.
const LINE: usize = 8 << 10;
/// Bytes of these.
const LINE_BYTES: usize = 32 << 20;

/// Takes everything that arrives, and builds the tree; the entries of its root in any order if they are `loose`.
pub(super) fn work(
    (plan, sink): (&ThreadPlan, &Sink),
    messages: Receiver<Sent>,
    loose: bool,
) -> Result<Built, Error> {
    plan.with_workers(sink, |jobs, answers| {
        let assembler = Assembler::new(plan.boundary.clone(), Segmenter::new(sink, ChunkKind::Tree), None);
        let most = plan.cutters.files.params().max() as usize;
        let mut line = Line { assembler, waiting: VecDeque::new(), bytes: 0 };
        let mut round = Round::new(sink, (&jobs, &answers), (plan.workers, most));
        let cut = round.buffer(&mut |_, row| line.row(row))?;
        let cutter = plan.cutters.files.clone();
        let knife = Knife { cutter, most, cut, start: 0, filled: 0, file: None };
        let root = Node::new(b"/".to_vec(), NodeKind::Directory);
        match loose {
            true => line.assembler.enter_loose(root),
            false => line.assembler.enter(root, &Fingerprint::default())?,
        }
        Intake { sink, line: &mut line, round, knife }.run(messages)?;
        let (root, totals, state) = line.assembler.finish()?;
        let (missing, streams) = (Vec::new(), Vec::new());
        let built = Built { root, totals, tally: Tally::default(), state, missing, excluded: 0, streams };
        drop(jobs);
        Ok::<(Built, Answers<Outcome>), Error>((built, answers))
    })
}

struct Intake<'i, 'a> {
    sink: &'i Sink,
    line: &'i mut Line<'a>,
    round: Round<'i>,
    knife: Knife,
}

impl Intake<'_, '_> {
    fn run(mut self, mut messages: Receiver<Sent>) -> Result<(), Error> {
        loop {
            let message = match messages.blocking_recv() {
                Some((Message::Done, _)) => break,
                // Whoever sends ended before the tree did, and knows why.
                None => return self.settle().and(Err(Error::Cancelled)),
                Some((message, room)) => {
                    let done = self.take(message);
                    drop(room);
                    done
                }
            };
            message?;
            if self.sink.stopped() {
                return Err(Error::Cancelled);
            }
            self.line.drain()?;
            while self.line.is_full() && self.flush()? {
                self.round.receive(&mut |_, row| self.line.row(row))?;
                self.line.drain()?;
            }
        }
        self.settle()?;
        self.line.drain()?;
        self.line.assembler.leave()
    }

    /// Waits until all that is cut is stored, so that the next transfer need not store it again.
    fn settle(&mut self) -> Result<(), Error> {
        while self.flush()? {
            self.round.receive(&mut |_, row| self.line.row(row))?;
        }
        Ok(())
    }

    fn take(&mut self, message: Message) -> Result<(), Error> {
        match message {
            Message::Enter(node) => self.line.push(Slot::Enter(node)),
            Message::Leave => self.line.push(Slot::Leave),
            Message::Incomplete => self.line.push(Slot::Incomplete),
            Message::Entry(node, size) => self.line.push(Slot::Ready(node, size)),
            Message::Whole(node) => self.line.push(Slot::Whole(node)),
            Message::Begin(node) => {
                self.knife.file = Some(OpenFile::new(&node));
                self.line.push(Slot::File(Box::new(Filling::new(*node))));
            }
            Message::Data(content) => self.data(&content)?,
            Message::End(whole) => {
                if let Some(mut file) = self.knife.end() {
                    self.line.end_file(file.chunks, whole && file.is_whole());
                }
            }
            Message::Done => {}
        }
        Ok(())
    }

    fn data(&mut self, mut content: &[u8]) -> Result<(), Error> {
        while !content.is_empty() {
            content = self.knife.take(content);
            if self.knife.is_full() {
                let next = self.round.buffer(&mut |_, row| self.line.row(row))?;
                self.round.send(0, self.knife.change(next))?;
            }
        }
        Ok(())
    }

    /// Gives the workers what is cut. False if they have nothing to do.
    fn flush(&mut self) -> Result<bool, Error> {
        if self.knife.has_chunks() {
            let next = self.round.buffer(&mut |_, row| self.line.row(row))?;
            self.round.send(0, self.knife.change(next))?;
        }
        Ok(!self.round.is_idle())
    }
}

/// Cuts the content of files, one behind another.
struct Knife {
    cutter: Cutter,
    most: usize,
    cut: Cut,
    /// Where what is not cut yet begins and ends in the buffer.
    start: usize,
    filled: usize,
    file: Option<OpenFile>,
}

impl Knife {
    /// Takes as much of the content as fits; gives the rest.
    fn take<'c>(&mut self, content: &'c [u8]) -> &'c [u8] {
        let Some(file) = &mut self.file else { return &[] };
        let Some(left) = file.left() else { return &[] };
        let room = self.cut.bytes.len() - self.filled;
        let len = usize::try_from(left).map_or(room, |left| left.min(room)).min(content.len());
        self.cut.bytes[self.filled..self.filled + len].copy_from_slice(&content[..len]);
        self.filled += len;
        let ends = file.took(len as u64);
        while self.filled - self.start >= self.most || (ends && self.filled > self.start) {
            let chunk = self.cutter.cut(&self.cut.bytes[self.start..self.filled]);
            self.cut.lens.push(chunk as u32);
            self.start += chunk;
            file.chunks += 1;
        }
        &content[len..]
    }

    /// Ends the file; what is left of one that is not whole is dropped.
    fn end(&mut self) -> Option<OpenFile> {
        self.filled = self.start;
        self.file.take()
    }

    fn is_full(&self) -> bool {
        self.filled == self.cut.bytes.len()
    }

    fn has_chunks(&self) -> bool {
        !self.cut.lens.is_empty()
    }

    /// Goes on in another buffer; gives the one with what is cut.
    fn change(&mut self, mut next: Cut) -> Cut {
        let rest = self.filled - self.start;
        next.bytes[..rest].copy_from_slice(&self.cut.bytes[self.start..self.filled]);
        (self.start, self.filled) = (0, rest);
        std::mem::replace(&mut self.cut, next)
    }
}

/// A file whose content arrives.
struct OpenFile {
    /// Lengths of what is cut as if it were a whole file, the next one first.
    pieces: Box<dyn Iterator<Item = u64> + Send>,
    piece: u64,
    chunks: u64,
}

impl OpenFile {
    fn new(node: &Node) -> Self {
        let lens = ranges(node)
            .into_iter()
            .flat_map(|range| spans(range.end - range.start, SPAN).map(|span| span.end - span.start));
        Self { pieces: Box::new(lens), piece: 0, chunks: 0 }
    }

    /// Bytes until the next forced cut; `None` if no more are expected.
    fn left(&mut self) -> Option<u64> {
        if self.piece == 0 {
            self.piece = self.pieces.next()?;
        }
        Some(self.piece)
    }

    /// Notes that so many bytes came; true if there must be a cut behind them.
    fn took(&mut self, len: u64) -> bool {
        self.piece -= len;
        self.piece == 0
    }

    fn is_whole(&mut self) -> bool {
        self.left().is_none()
    }
}

/// Where a file has data.
fn ranges(node: &Node) -> Vec<Range<u64>> {
    let mut ranges = Vec::with_capacity(node.holes.len() + 1);
    let mut end = 0;
    for (offset, len) in &node.holes {
        if *offset > end {
            ranges.push(end..*offset);
        }
        end = offset + len;
    }
    if node.size > end {
        ranges.push(end..node.size);
    }
    ranges
}

/// An entry that waits for its turn.
enum Slot {
    Enter(Box<Node>),
    Leave,
    Incomplete,
    Ready(Vec<u8>, Option<u64>),
    Whole(Box<Node>),
    File(Box<Filling>),
}

/// A file whose rows are still to come.
struct Filling {
    node: Node,
    content: ContentBuilder,
    taken: u64,
    /// How many there are, once that is known.
    chunks: Option<u64>,
    whole: bool,
}

impl Filling {
    fn new(node: Node) -> Self {
        Self { node, content: ContentBuilder::default(), taken: 0, chunks: None, whole: true }
    }
}

impl Slot {
    fn is_ready(&self) -> bool {
        match self {
            Self::File(file) => file.chunks == Some(file.taken),
            _ => true,
        }
    }

    /// About how much memory it takes.
    fn bytes(&self) -> usize {
        let of = |node: &Node| size_of::<Node>() + node.held();
        match self {
            Self::Enter(node) | Self::Whole(node) => of(node),
            Self::File(file) => of(&file.node),
            Self::Ready(node, _) => node.len(),
            Self::Leave | Self::Incomplete => 0,
        }
    }
}

/// Entries in the order in which they came. A file at its head waits for its rows, which come in the same order.
struct Line<'a> {
    assembler: Assembler<'a>,
    waiting: VecDeque<Slot>,
    bytes: usize,
}

impl Line<'_> {
    fn push(&mut self, slot: Slot) {
        self.bytes += slot.bytes();
        self.waiting.push_back(slot);
    }

    fn is_full(&self) -> bool {
        self.waiting.len() >= LINE || self.bytes >= LINE_BYTES
    }

    /// Says how many chunks the file has that began last.
    fn end_file(&mut self, chunks: u64, whole: bool) {
        if let Some(Slot::File(file)) = self.waiting.back_mut() {
            (file.chunks, file.whole) = (Some(chunks), whole);
        }
    }

    /// Takes the next row: it belongs to the first file that lacks any.
    fn row(&mut self, row: ChunkRow) -> Result<(), Error> {
        self.drain()?;
        let Some(Slot::File(file)) = self.waiting.front_mut() else { return Ok(()) };
        file.taken += 1;
        if file.whole { file.content.push(row, self.assembler.pages()) } else { Ok(()) }
    }

    /// Hands on what is ready, in order.
    fn drain(&mut self) -> Result<(), Error> {
        while let Some(slot) = self.waiting.pop_front_if(|slot| slot.is_ready()) {
            self.bytes -= slot.bytes();
            self.hand_on(slot)?;
        }
        Ok(())
    }

    fn hand_on(&mut self, slot: Slot) -> Result<(), Error> {
        let (print, assembler) = (Fingerprint::default(), &mut self.assembler);
        match slot {
            Slot::Enter(node) => assembler.enter(*node, &print),
            Slot::Leave => assembler.leave(),
            Slot::Incomplete => {
                assembler.incomplete();
                Ok(())
            }
            Slot::Ready(node, size) => assembler.entry((&node, &[]), &print, size, false),
            Slot::Whole(node) => assembler.whole_directory(&node),
            Slot::File(file) => {
                let Filling { mut node, content, whole, .. } = *file;
                if whole {
                    node.content = content.finish(assembler.pages())?;
                    return assembler.paged_file((&node, &[]), &print, false);
                }
                let mut encoded = Vec::with_capacity(160);
                stripped(node).encode(&mut encoded);
                assembler.entry((&encoded, &[]), &print, None, false)
            }
        }
    }
}
