//! Saves a stream, standard input or the output of a command, as one file.
//!
//! # Invariants
//! One thread reads and cuts, so that cut points depend on the content alone; the workers name, compress and seal. Memory
//! is bounded by the buffers that go round between them, and does not grow with the stream.

use std::collections::VecDeque;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};
use std::sync::mpsc::{Receiver, SyncSender};

use super::assemble::Assembler;
use super::content::ContentBuilder;
use super::merge::Tally;
use super::options::BackupSource;
use super::run::Built;
use super::sink::{Segmenter, Sink};
use super::state::Fingerprint;
use super::worker::{Cut, Job, Outcome, next_answer};
use crate::cancel::Cancel;
use crate::chunk::Cutter;
use crate::crypto::SecretKey;
use crate::error::Error;
use crate::event::Counters;
use crate::format::content::{ChunkRow, Content};
use crate::format::envelope::ChunkKind;
use crate::format::node::{Node, NodeKind};
use crate::source::SourceError;
use crate::source::stream::{CommandStream, Stderr, StdinStream};

/// Bytes that are read and cut at a time: about one segment, so that what lay together stays together.
const READ: usize = 2 << 20;
/// Bytes of all buffers together, unless they are so large that two are more.
const BUFFERED: usize = 32 << 20;

/// What saving a stream needs.
pub(super) struct Stream<'a> {
    pub sink: &'a Sink,
    pub cutter: Cutter,
    pub cancel: &'a Cancel,
    pub workers: usize,
    pub jobs: SyncSender<Job>,
    pub answers: Receiver<Outcome>,
}

impl Stream<'_> {
    /// Reads the stream to its end and builds the tree that leads to it; returns the answers that are still to come.
    pub(super) fn save(
        self,
        source: &BackupSource,
        path: &Path,
        boundary: SecretKey,
    ) -> Result<(Built, Receiver<Outcome>), Error> {
        let mut assembler = Assembler::new(boundary, Segmenter::new(self.sink, ChunkKind::Tree), None);
        let (size, content) = match source {
            BackupSource::Command(argv) => {
                let (program, args) = argv.split_first().ok_or(SourceError::NoInput)?;
                let started = CommandStream::start(Path::new(program), args, Stderr::Inherit, self.cancel);
                let mut stream = started.map_err(Error::CommandFailed)?;
                let stored = self.store(|buffer| stream.read(buffer), &mut assembler)?;
                // Only now is it known whether what was read can be trusted.
                stream.finish().map_err(|error| match error {
                    SourceError::Cancelled => Error::Cancelled,
                    other => Error::CommandFailed(other),
                })?;
                stored
            }
            _ => {
                let mut stream = StdinStream::new(self.cancel)?;
                self.store(|buffer| stream.read(buffer), &mut assembler)?
            }
        };
        Ok((build(assembler, path, (size, content))?, self.answers))
    }

    fn store(
        &self,
        mut read: impl FnMut(&mut [u8]) -> Result<usize, SourceError>,
        assembler: &mut Assembler<'_>,
    ) -> Result<(u64, Content), Error> {
        let most = self.cutter.params().max() as usize;
        let mut round = Round::new(self, READ.max(2 * most), assembler);
        let mut cut = round.buffer()?;
        let (mut filled, mut size, mut last) = (0, 0, false);
        while !last {
            while filled < cut.bytes.len() && !last {
                let count = read(&mut cut.bytes[filled..])?;
                filled += count;
                size += count as u64;
                last = count == 0;
                Counters::add(&self.sink.observer.counters().bytes_read, count as u64);
                Counters::add(&self.sink.observer.counters().bytes, count as u64);
            }
            let mut start = 0;
            while filled - start >= most || (last && filled > start) {
                let len = self.cutter.cut(&cut.bytes[start..filled]);
                cut.lens.push(len as u32);
                start += len;
            }
            let mut next = round.buffer()?;
            next.bytes[..filled - start].copy_from_slice(&cut.bytes[start..filled]);
            round.send(std::mem::replace(&mut cut, next))?;
            filled -= start;
        }
        Ok((size, round.finish()?))
    }
}

/// The buffers on their way round, and the rows that come back.
struct Round<'r, 'a> {
    stream: &'r Stream<'r>,
    assembler: &'r mut Assembler<'a>,
    buffer_len: usize,
    /// Buffers that may still be made.
    left: usize,
    free: Vec<Cut>,
    /// The number of the first part whose rows are still to be taken over, and what is known of it and those after it.
    first: u64,
    parts: VecDeque<Option<Vec<ChunkRow>>>,
    content: ContentBuilder,
}

impl<'r, 'a> Round<'r, 'a> {
    fn new(stream: &'r Stream<'r>, buffer_len: usize, assembler: &'r mut Assembler<'a>) -> Self {
        // One is filled while each worker has one, and one more is ready for the worker that is done first.
        let left = (stream.workers + 2).min(BUFFERED / buffer_len).max(2);
        let (free, parts, content) = (Vec::new(), VecDeque::new(), ContentBuilder::default());
        Self { stream, assembler, buffer_len, left, free, first: 0, parts, content }
    }

    /// A buffer; waits for one if all are with the workers.
    fn buffer(&mut self) -> Result<Cut, Error> {
        if let Some(free) = self.free.pop() {
            return Ok(free);
        }
        if self.left > 0 {
            self.left -= 1;
            return Ok(Cut { bytes: vec![0; self.buffer_len], lens: Vec::new() });
        }
        self.receive()?;
        self.buffer()
    }

    fn send(&mut self, cut: Cut) -> Result<(), Error> {
        let number = self.first + self.parts.len() as u64;
        self.parts.push_back(None);
        self.stream.jobs.send(Job::Cut(number, cut)).map_err(|_| self.broken())
    }

    /// Why no worker takes a job any more.
    fn broken(&self) -> Error {
        next_answer(self.stream.sink, &self.stream.answers).err().unwrap_or(Error::Cancelled)
    }

    /// Waits for an answer, and takes over all rows whose turn has come.
    fn receive(&mut self) -> Result<(), Error> {
        let Outcome::Cut(number, rows, mut cut) = next_answer(self.stream.sink, &self.stream.answers)? else {
            return Ok(());
        };
        cut.lens.clear();
        self.free.push(cut);
        let place = number.checked_sub(self.first).and_then(|at| self.parts.get_mut(at as usize));
        if let Some(part) = place {
            *part = Some(rows);
        }
        while let Some(rows) = self.parts.front_mut().and_then(Option::take) {
            self.parts.pop_front();
            self.first += 1;
            rows.iter().try_for_each(|row| self.content.push(*row, self.assembler.pages()))?;
        }
        Ok(())
    }

    /// Waits for what is still on its way.
    fn finish(mut self) -> Result<Content, Error> {
        while !self.parts.is_empty() {
            self.receive()?;
        }
        self.content.finish(self.assembler.pages())
    }
}

fn build(mut assembler: Assembler<'_>, path: &Path, (size, content): (u64, Content)) -> Result<Built, Error> {
    let names: Vec<&[u8]> = path
        .components()
        .filter_map(|part| match part {
            Component::Normal(name) => Some(name.as_bytes()),
            _ => None,
        })
        .collect();
    let (name, directories) = names.split_last().ok_or(SourceError::NoInput)?;
    let print = Fingerprint::default();
    let directory = |name: &[u8]| {
        let mut node = Node::new(name.to_vec(), NodeKind::Directory);
        node.mode = 0o755;
        node
    };
    assembler.enter(directory(b"/"), &print)?;
    for name in directories {
        assembler.enter(directory(name), &print)?;
    }
    let mut node = Node::new(name.to_vec(), NodeKind::File);
    (node.mode, node.size, node.content) = (0o600, size, content);
    assembler.paged_file((&node, &[]), &print, false)?;
    for _ in 0..=directories.len() {
        assembler.leave()?;
    }
    let (root, totals, state) = assembler.finish()?;
    let tally = Tally { new_files: 1, ..Tally::default() };
    Ok(Built { root, totals, tally, state, excluded: 0 })
}
