//! Saves streams, standard input or the output of commands, each as one file.
//!
//! # Invariants
//! One thread reads all of them side by side and cuts, so that cut points depend on the content alone; the workers name,
//! compress and seal. Memory is bounded by the buffers that go round between them, and grows neither with the streams nor with
//! their number: so many are read at a time, and the others have not begun.
//! If one of them fails, all do: nothing of the run becomes a snapshot.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender};

use super::content::ContentBuilder;
use super::merge::{Merge, Slot};
use super::options::{Input, SavedStream, StreamSource};
use super::round::{Round, Take};
use super::sink::Sink;
use super::state::Fingerprint;
use super::tree::PageStore;
use super::worker::{Cut, Job, Outcome};
use crate::chunk::Cutter;
use crate::dumps::EndingCheck;
use crate::error::Error;
use crate::event::{Counters, EntryChange, Event};
use crate::format::content::Content;
use crate::format::node::{Node, NodeKind};
use crate::source::SourceError;
use crate::source::stream::{CommandStream, Shell, StdinStream, Step, Stream, end_all, wait_for};
use crate::source::walk::Entry;

/// The streams of a run.
#[derive(Debug, Clone)]
pub(super) struct StreamPlan {
    pub sources: Vec<StreamSource>,
    /// How many are read side by side.
    pub at_once: usize,
    /// Variables that no command gets to see.
    pub withheld: Vec<OsString>,
}

impl StreamPlan {
    /// The shell of all commands for one, which each of them can be given to; better known before the first one runs.
    fn shell(&self) -> Result<Option<Shell>, Error> {
        let mut found = None;
        for source in &self.sources {
            let Input::Shell(text) = &source.input else { continue };
            let shell = match found.take() {
                Some(shell) => shell,
                None => Shell::find(&self.withheld).map_err(|error| source.failed(error))?,
            };
            shell.command(text).map_err(|error| source.failed(error))?;
            found = Some(shell);
        }
        Ok(found)
    }
}

/// A stream that was read to its end.
#[derive(Debug)]
pub(super) struct StreamFile {
    pub stored: PathBuf,
    pub size: u64,
    pub content: Content,
}

/// What reading streams needs.
pub(super) struct Streams<'a> {
    pub sink: &'a Sink,
    pub cutter: Cutter,
    pub workers: usize,
    pub jobs: &'a SyncSender<Job>,
    pub answers: &'a Receiver<Outcome>,
}

/// A stream that is being read, and its buffer.
struct Lane<'s> {
    number: usize,
    source: &'s StreamSource,
    stream: Stream,
    cut: Cut,
    filled: usize,
    size: u64,
    ending: EndingCheck,
}

/// The lanes at work.
struct Lanes<'s>(Vec<Lane<'s>>);

impl Drop for Lanes<'_> {
    fn drop(&mut self) {
        // All of them at once, and not one after the other.
        end_all(self.0.iter_mut().map(|lane| &mut lane.stream));
    }
}

impl Streams<'_> {
    /// Reads all streams to their ends.
    pub(super) fn save(
        &self,
        plan: &StreamPlan,
        pages: &mut dyn PageStore,
    ) -> Result<Vec<StreamFile>, Error> {
        let most = self.cutter.params().max() as usize;
        let mut contents: Vec<_> = plan.sources.iter().map(|_| ContentBuilder::default()).collect();
        let mut sizes = vec![0; plan.sources.len()];
        let mut take = |lane: usize, row| contents[lane].push(row, pages);
        let workers = self.workers + plan.at_once.min(plan.sources.len()).saturating_sub(1);
        let mut round = Round::new(self.sink, (self.jobs, self.answers), (workers, most));
        let at_once = plan.at_once.min(round.most_held()).max(1);
        let shell = plan.shell()?;
        let mut waiting = plan.sources.iter().enumerate();
        let mut lanes = Lanes(Vec::new());
        loop {
            while lanes.0.len() < at_once
                && let Some(next) = waiting.next()
            {
                let stream = next.1.open(shell.as_ref(), &plan.withheld)?;
                lanes.0.push(Lane::new(next, stream, round.buffer(&mut take)?));
            }
            if lanes.0.is_empty() {
                break;
            }
            if self.sink.cancelled() || self.sink.stopped() {
                return Err(Error::Cancelled);
            }
            let ready = wait_for(lanes.0.iter().map(|lane| &lane.stream))?;
            let mut ready = ready.into_iter();
            let mut ended = Vec::new();
            for (at, lane) in lanes.0.iter_mut().enumerate() {
                let step = lane.step(self.sink, ready.next().unwrap_or_default())?;
                if step == Step::End || lane.filled == lane.cut.bytes.len() {
                    self.pass_on(lane, step == Step::End, (&mut round, &mut take))?;
                }
                if step == Step::End {
                    sizes[lane.number] = lane.size;
                    ended.push(at);
                }
            }
            for at in ended.into_iter().rev() {
                round.give_back(lanes.0.remove(at).cut);
            }
        }
        round.finish(&mut take)?;
        let done = plan.sources.iter().zip(sizes).zip(contents);
        done.map(|((source, size), content)| {
            let stored = source.stored.clone();
            Ok(StreamFile { stored, size, content: content.finish(pages)? })
        })
        .collect()
    }

    /// Cuts what is filled, and gives it to the workers; what is left begins the next buffer.
    fn pass_on(
        &self,
        lane: &mut Lane<'_>,
        last: bool,
        (round, take): (&mut Round<'_>, &mut Take<'_>),
    ) -> Result<(), Error> {
        let most = self.cutter.params().max() as usize;
        let mut start = 0;
        while lane.filled - start >= most || (last && lane.filled > start) {
            let len = self.cutter.cut(&lane.cut.bytes[start..lane.filled]);
            lane.cut.lens.push(len as u32);
            start += len;
        }
        let mut next = round.buffer(take)?;
        next.bytes[..lane.filled - start].copy_from_slice(&lane.cut.bytes[start..lane.filled]);
        lane.filled -= start;
        round.send(lane.number, std::mem::replace(&mut lane.cut, next))
    }
}

impl<'s> Lane<'s> {
    fn new((number, source): (usize, &'s StreamSource), stream: Stream, cut: Cut) -> Self {
        Self { number, source, stream, cut, filled: 0, size: 0, ending: EndingCheck::new(source.ending) }
    }

    /// Takes what there is. The end comes only after the dump, if it is one, is known to be whole.
    fn step(&mut self, sink: &Sink, ready: crate::source::stream::Ready) -> Result<Step, Error> {
        let name = self.source.name();
        let mut say = |line: &[u8]| {
            sink.observer.observe(&Event::Said { name, line: &String::from_utf8_lossy(line) });
        };
        let room = &mut self.cut.bytes[self.filled..];
        let step = self.stream.step(ready, sink.now(), room, &mut say);
        let step = step.map_err(|error| match (error, &self.source.input) {
            (SourceError::Cancelled, _) => Error::Cancelled,
            (error, Input::Stdin) => error.into(),
            (error, _) => self.source.failed(error),
        })?;
        match step {
            Step::Bytes(len) => {
                self.ending.push(&self.cut.bytes[self.filled..self.filled + len]);
                self.filled += len;
                self.size += len as u64;
                Counters::add(&sink.observer.counters().bytes_read, len as u64);
                Counters::add(&sink.observer.counters().bytes, len as u64);
            }
            Step::End if !self.ending.is_whole() => return Err(self.source.failed(SourceError::BrokenOff)),
            Step::End if self.size == 0 && !matches!(self.source.input, Input::Stdin) => {
                let message = format!("the command for {} wrote nothing", name.display());
                sink.observer.observe(&Event::Warning { message: &message });
            }
            Step::Nothing | Step::End => {}
        }
        Ok(step)
    }
}

impl StreamSource {
    /// What it is called in messages: its place in the snapshot, without the slash.
    pub(super) fn name(&self) -> &Path {
        self.stored.strip_prefix("/").unwrap_or(&self.stored)
    }

    fn open(&self, shell: Option<&Shell>, withheld: &[OsString]) -> Result<Stream, Error> {
        let started = match (&self.input, shell) {
            (Input::Stdin, _) => return Ok(Stream::Stdin(StdinStream::new()?)),
            (Input::Command(argv), _) => {
                let (program, args) = argv.split_first().ok_or(SourceError::NoInput)?;
                CommandStream::start(Path::new(program), args, withheld)
            }
            (Input::Shell(_), None) => Err(SourceError::NoInput),
            (Input::Shell(text), Some(shell)) => {
                shell.command(text).and_then(|(program, args)| CommandStream::start(program, &args, withheld))
            }
        };
        started.map(Stream::Command).map_err(|error| self.failed(error))
    }

    fn failed(&self, source: SourceError) -> Error {
        Error::CommandFailed { name: self.name().to_owned(), source: Box::new(source) }
    }
}

impl Merge<'_> {
    /// Puts a stream, which was read before, in its place.
    pub(super) fn stream(&mut self, entry: &Entry, number: usize) {
        let remembered = self.parts.last.entry(entry.name());
        let Some(file) = self.parts.streams.get(number) else { return };
        let mut node = self.nodes.make(entry.name(), entry.stat(), 0);
        (node.atime, node.size, node.content) = (None, file.size, file.content.clone());
        let before = remembered.and_then(|last| Node::decode(&last.node).ok());
        let (change, count) = match before {
            Some(before) if before.kind == NodeKind::File && before.content == node.content => {
                (EntryChange::Unchanged, &mut self.tally.unchanged_files)
            }
            Some(_) => (EntryChange::Changed, &mut self.tally.changed_files),
            None => (EntryChange::New, &mut self.tally.new_files),
        };
        *count += 1;
        let observer = &self.parts.sink.observer;
        Counters::add(&observer.counters().files, 1);
        if observer.wants_entries() {
            observer.observe(&Event::Entry { path: &file.stored, change });
        }
        let mut encoded = Vec::with_capacity(256);
        node.encode(&mut encoded);
        // What no file system says of a file never matches: the next run reads it again, and only compares.
        let print = Fingerprint::default();
        let size = Some(file.size);
        self.queue.push_back(Slot::Ready { node: encoded, rows: Vec::new(), print, size, remember: true });
    }
}

/// What there is to say of streams that were read.
pub(super) fn summaries(files: &[StreamFile]) -> Vec<SavedStream> {
    files.iter().map(|file| SavedStream { path: file.stored.clone(), bytes: file.size }).collect()
}
