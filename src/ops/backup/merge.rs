//! The middle of a backup: compares the walk with the last run, gives changed files to the workers, and hands finished
//! entries to the assembler in walk order.
//!
//! # Invariants
//! An entry is taken over from the last run only if its fingerprint is as it was and every chunk it names is in a pack
//! that this run may depend on. The queue is bounded; while it is full, nothing new is walked.

use std::collections::{HashMap, HashSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender};

use super::assemble::Assembler;
use super::image::Images;
use super::large::LargeFile;
use super::last::{LastRun, Remembered};
use super::node::NodeMaker;
use super::options::Databases;
use super::sink::Sink;
use super::state::Fingerprint;
use super::stream::StreamFile;
use super::worker::{Body, FileJob, FileOutcome, Job, Outcome, SavedFile, next_answer};
use crate::chunk::SPAN;
use crate::crypto::SecretKey;
use crate::error::Error;
use crate::event::{Counters, EntryChange, Event};
use crate::format::content::{ChunkRow, Content};
use crate::format::node::{Node, NodeKind, Problem};
use crate::source::file::Holes;
use crate::source::meta::Mounts;
use crate::source::walk::{Entry, Failure, Item, Walk};
use crate::source::{SourceError, Stat};

/// Entries that wait for their turn.
const QUEUE: usize = 8 << 10;
/// Jobs that are on their way.
pub(super) const JOBS: u64 = 16;
/// A batch of files is given to a worker at this size: about one segment.
const BATCH_BYTES: u64 = 1 << 20;
/// A batch of files is given to a worker at this number.
const BATCH_FILES: usize = 1024;
/// Databases in use that are remembered, so that each is named once.
const NAMED_MAX: usize = 1024;

/// What a run did, in numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub new_files: u64,
    pub changed_files: u64,
    pub unchanged_files: u64,
    pub failed: u64,
}

/// An entry in walk order.
pub(super) enum Slot {
    Enter(Box<(Node, Fingerprint)>),
    Leave,
    /// The directory entered last was not listed to its end.
    Incomplete,
    /// Ready, from the last run or without content.
    Ready {
        node: Vec<u8>,
        rows: Vec<ChunkRow>,
        print: Fingerprint,
        size: Option<u64>,
        remember: bool,
    },
    /// The next answer of this job.
    Waiting(u64),
    Large(Box<LargeFile>),
}

/// The parts of a merge that its maker knows.
pub(super) struct Parts<'a> {
    pub sink: &'a Sink,
    pub walk: Walk,
    pub last: LastRun,
    pub hard_links: Arc<SecretKey>,
    pub holes: Holes,
    pub images: Images,
    pub streams: Vec<StreamFile>,
    pub databases: Databases,
    pub jobs: SyncSender<Job>,
    pub answers: Receiver<Outcome>,
    pub assembler: Assembler<'a>,
}

pub(super) struct Merge<'a> {
    pub(super) parts: Parts<'a>,
    pub(super) nodes: NodeMaker,
    mounts: Mounts,
    pub(super) queue: VecDeque<Slot>,
    batch: Vec<FileJob>,
    batch_bytes: u64,
    pub(super) next_job: u64,
    pub(super) in_flight: u64,
    answered: HashMap<u64, VecDeque<FileOutcome>>,
    pub(super) tally: Tally,
    /// Databases in use that were named; the first ones only.
    named: HashSet<PathBuf>,
}

impl<'a> Merge<'a> {
    pub(super) fn new(parts: Parts<'a>) -> Self {
        let nodes = NodeMaker::new(Arc::clone(&parts.hard_links), parts.sink.timeless);
        Self {
            parts,
            nodes,
            mounts: Mounts::new(),
            queue: VecDeque::new(),
            batch: Vec::new(),
            batch_bytes: 0,
            next_job: 0,
            in_flight: 0,
            answered: HashMap::new(),
            tally: Tally::default(),
            named: HashSet::new(),
        }
    }

    /// Goes through the whole walk; the assembler has everything when it returns.
    pub(super) fn run(mut self) -> Result<(Assembler<'a>, Walk, Tally, Receiver<Outcome>), Error> {
        while let Some(item) = self.parts.walk.next()? {
            if self.parts.sink.stopped() {
                return Err(Error::Cancelled);
            }
            self.take(item)?;
            self.drain()?;
            while self.queue.len() >= QUEUE || self.in_flight >= JOBS {
                self.wait()?;
                self.drain()?;
            }
        }
        self.send_batch()?;
        self.drain()?;
        while !self.queue.is_empty() {
            self.wait()?;
            self.drain()?;
        }
        Ok((self.parts.assembler, self.parts.walk, self.tally, self.parts.answers))
    }

    pub(super) fn counters(&self) -> &Counters {
        self.parts.sink.observer.counters()
    }

    fn failed(&mut self, path: &std::path::Path, error: &SourceError) {
        self.tally.failed += 1;
        let event = Event::EntryFailed { path, error, class: error.class() };
        self.parts.sink.observer.observe(&event);
    }

    fn tell(&self, entry: &Entry, change: EntryChange) {
        if self.parts.sink.observer.wants_entries() {
            self.parts.sink.observer.observe(&Event::Entry { path: &entry.path(), change });
        }
    }

    fn take(&mut self, item: Item) -> Result<(), Error> {
        match item {
            Item::Enter { entry, error } => self.enter(&entry, error),
            Item::Leave => {
                self.parts.last.leave();
                self.queue.push_back(Slot::Leave);
            }
            Item::Entry(entry) => self.entry(entry)?,
            Item::Failed(failure) => self.take_failure(&failure),
        }
        Ok(())
    }

    fn take_failure(&mut self, failure: &Failure) {
        self.failed(&failure.dir.path_of(&failure.name), &failure.error);
        // A part of a directory that could not be listed has no name to stand under.
        if &*failure.name == b"." {
            self.queue.push_back(Slot::Incomplete);
        } else {
            let mut node = Node::new(failure.name.to_vec(), NodeKind::Unknown);
            node.problem = Some(Problem::Unreadable);
            self.push_ready(&node, Fingerprint::default(), None);
        }
    }

    fn enter(&mut self, entry: &Entry, error: Option<SourceError>) {
        Counters::add(&self.counters().entries, 1);
        let mount = self.mounts.index(entry.stat().dev);
        let mut print = Fingerprint::of(entry.stat());
        let name = if entry.name().is_empty() { b"/" } else { entry.name() };
        let remembered = self.parts.last.enter(name).filter(|last| last.print == print);
        let remembered = remembered.and_then(|last| Node::decode(&last.node).ok());
        let mut node = match remembered {
            Some(node) => node,
            None => {
                let (node, failures) = self.nodes.make_directory(entry, mount);
                if !failures.is_empty() {
                    // Looked at again by the next run, which must not call this complete.
                    print = Fingerprint::default();
                }
                for failure in failures {
                    self.failed(&entry.path(), &failure);
                }
                node
            }
        };
        node.problem = None;
        if let Some(error) = error {
            self.failed(&entry.path(), &error);
            node.problem = Some(Problem::Unreadable);
        }
        self.queue.push_back(Slot::Enter(Box::new((node, print))));
    }

    fn entry(&mut self, entry: Entry) -> Result<(), Error> {
        Counters::add(&self.counters().entries, 1);
        if let Some(number) = entry.stream() {
            self.stream(&entry, number);
            return Ok(());
        }
        let stat = *entry.stat();
        // Asked for every entry, changed or not: the numbers must come out as they did last time.
        let mount = self.mounts.index(stat.dev);
        let print = Fingerprint::of(&stat);
        let remembered = self.parts.last.entry(entry.name());
        let image = self.parts.images.contain(&entry);
        if stat.is_file() || image {
            Counters::add(&self.counters().files, 1);
        }
        let known = remembered.is_some();
        if let Some(last) = remembered
            && last.print == print
            // Of a database it says nothing of the log beside it.
            && self.parts.databases != Databases::Copy
            // Of a device it says nothing of the content.
            && (stat.is_file() || !image)
            && self.same_number(&stat, mount, &last)
            && self.still_there(&last)?
        {
            self.unchanged(&entry, &stat, last);
            return Ok(());
        }
        let change = if known { EntryChange::Changed } else { EntryChange::New };
        self.tell(&entry, change);
        if !stat.is_file() && !image {
            self.special(&entry, mount, print);
            return Ok(());
        }
        if known {
            self.tally.changed_files += 1;
        } else {
            self.tally.new_files += 1;
        }
        Counters::add(&self.counters().bytes, stat.size);
        self.changed(
            FileJob { entry, mount, holes: self.parts.holes, image, databases: self.parts.databases },
            stat.size,
        )
    }

    fn unchanged(&mut self, entry: &Entry, stat: &Stat, last: Remembered) {
        let size = stat.is_file().then_some(stat.size);
        if let Some(size) = size {
            self.tally.unchanged_files += 1;
            Counters::add(&self.counters().bytes, size);
        }
        self.tell(entry, EntryChange::Unchanged);
        let Remembered { print, node, rows } = last;
        self.queue.push_back(Slot::Ready { node, rows, print, size, remember: true });
    }

    fn special(&mut self, entry: &Entry, mount: u32, print: Fingerprint) {
        let (node, failures) = self.nodes.make_special(entry, mount);
        let whole = failures.is_empty();
        for failure in failures {
            self.failed(&entry.path(), &failure);
        }
        self.push_ready(&node, print, whole.then_some(()));
    }

    pub(super) fn push_ready(&mut self, node: &Node, print: Fingerprint, whole: Option<()>) {
        let mut encoded = Vec::with_capacity(160);
        node.encode(&mut encoded);
        let remember = whole.is_some();
        self.queue.push_back(Slot::Ready { node: encoded, rows: Vec::new(), print, size: None, remember });
    }

    /// Whether a file with several names still has its number: a file system that was not there last time moves those of
    /// the others, and two files with one number would be restored as one.
    fn same_number(&self, stat: &Stat, mount: u32, last: &Remembered) -> bool {
        // No one who lacks the key can guess it, so it stands in an encoded node only as what it is; decoding the nodes of
        // a tree of hard links took a tenth of an unchanged run.
        self.nodes
            .hard_link(stat, mount)
            .is_none_or(|number| last.node.windows(16).any(|part| part == number))
    }

    /// Whether every chunk of a remembered file is in a pack that this run may depend on.
    fn still_there(&self, last: &Remembered) -> Result<bool, Error> {
        if self.parts.sink.trusts_last() {
            return Ok(true);
        }
        let inline;
        let rows = if last.rows.is_empty() {
            let Ok(node) = Node::decode(&last.node) else { return Ok(false) };
            inline = match node.content {
                Content::Inline(rows) => rows,
                Content::Paged(_) => return Ok(false),
            };
            &inline
        } else {
            &last.rows
        };
        for row in rows {
            if !self.parts.sink.is_known(&row.id)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn changed(&mut self, job: FileJob, size: u64) -> Result<(), Error> {
        if size > SPAN || job.image {
            self.send_batch()?;
            return self.large(job);
        }
        self.queue.push_back(Slot::Waiting(self.next_job));
        self.batch.push(job);
        self.batch_bytes += size;
        if self.batch_bytes >= BATCH_BYTES || self.batch.len() >= BATCH_FILES {
            self.send_batch()?;
        }
        Ok(())
    }

    pub(super) fn failed_file(&mut self, entry: &Entry, error: &SourceError) -> Node {
        self.failed(&entry.path(), error);
        let mount = self.mounts.index(entry.stat().dev);
        let mut node = self.nodes.make(entry.name(), entry.stat(), mount);
        if node.kind != NodeKind::File && self.parts.images.contain(entry) {
            (node.kind, node.rdev) = (NodeKind::File, 0);
        }
        node.size = 0;
        node.problem = Some(Problem::Unreadable);
        node
    }

    fn send_batch(&mut self) -> Result<(), Error> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let files = std::mem::take(&mut self.batch);
        self.batch_bytes = 0;
        let number = self.next_job;
        self.next_job += 1;
        self.send(Job::Files(number, files))
    }

    pub(super) fn send(&mut self, job: Job) -> Result<(), Error> {
        self.in_flight += 1;
        self.parts.jobs.send(job).map_err(|_| Error::Cancelled)
    }

    /// Waits for an answer; before that, everything that could be answered must have been asked.
    fn wait(&mut self) -> Result<(), Error> {
        if self.in_flight == 0
            || matches!(self.queue.front(), Some(Slot::Waiting(job)) if *job == self.next_job)
        {
            self.send_batch()?;
        }
        let outcome = self.receive()?;
        self.answer(outcome)
    }

    pub(super) fn receive(&mut self) -> Result<Outcome, Error> {
        let outcome = next_answer(self.parts.sink, &self.parts.answers)?;
        self.in_flight -= 1;
        Ok(outcome)
    }

    pub(super) fn answer(&mut self, outcome: Outcome) -> Result<(), Error> {
        match outcome {
            Outcome::Files(number, files) => {
                self.answered.insert(number, files.into());
            }
            Outcome::Span(number, rows) => {
                let waiting = self.queue.iter_mut().find_map(|slot| match slot {
                    Slot::Large(file) if file.waits_for(number) => Some(file),
                    _ => None,
                });
                if let Some(file) = waiting {
                    file.take(number, rows, self.parts.assembler.pages())?;
                }
            }
            // Only a stream has these.
            Outcome::Cut(..) => {}
            Outcome::Broken(error) => return Err(error),
        }
        Ok(())
    }

    /// Hands on what is ready, in order.
    fn drain(&mut self) -> Result<(), Error> {
        loop {
            match self.queue.front_mut() {
                Some(Slot::Waiting(job)) if !self.answered.contains_key(job) => return Ok(()),
                Some(Slot::Large(file)) if !file.is_complete() => return Ok(()),
                None => return Ok(()),
                Some(_) => {}
            }
            let Some(slot) = self.queue.pop_front() else { return Ok(()) };
            self.hand_on(slot)?;
        }
    }

    fn hand_on(&mut self, slot: Slot) -> Result<(), Error> {
        match slot {
            Slot::Enter(directory) => self.parts.assembler.enter(directory.0, &directory.1),
            Slot::Leave => self.parts.assembler.leave(),
            Slot::Incomplete => {
                self.parts.assembler.incomplete();
                Ok(())
            }
            Slot::Ready { node, rows, print, size, remember } => {
                // If every pack of the last run may be depended on, that goes for the pages of a long list too.
                if rows.is_empty() || self.parts.sink.trusts_last() {
                    return self.parts.assembler.entry((&node, &rows), &print, size, remember);
                }
                // The pages of a long list are made again: they are known, or they are stored.
                match Node::decode(&node) {
                    Ok(node) => self.parts.assembler.long_file((node, &rows), &print, remember),
                    Err(rule) => Err(Error::Damaged { key: "the last run's state".to_owned(), rule }),
                }
            }
            Slot::Waiting(job) => {
                let Some(answers) = self.answered.get_mut(&job) else { return Ok(()) };
                let outcome = answers.pop_front();
                if answers.is_empty() {
                    self.answered.remove(&job);
                }
                match outcome {
                    Some(outcome) => self.file_done(outcome),
                    None => Ok(()),
                }
            }
            Slot::Large(file) => self.large_done(file),
        }
    }

    pub(super) fn file_done(&mut self, outcome: FileOutcome) -> Result<(), Error> {
        match outcome {
            FileOutcome::Saved(saved) => self.saved(*saved),
            FileOutcome::Failed(entry, error) => {
                let node = self.failed_file(&entry, &error);
                let mut encoded = Vec::new();
                node.encode(&mut encoded);
                self.parts.assembler.entry((&encoded, &[]), &Fingerprint::default(), None, false)
            }
        }
    }

    /// Warns of a database that is in use, once for all that belongs to it.
    fn name_live(&mut self, live: Option<PathBuf>) {
        let Some(path) = live.filter(|path| !self.named.contains(path)) else { return };
        let message = format!(
            "{} is a database of SQLite in use: what is saved of it may be of several moments; save it with lifeboat sqlite backup",
            path.display()
        );
        self.parts.sink.observer.observe(&Event::Warning { message: &message });
        if self.named.len() < NAMED_MAX {
            self.named.insert(path);
        }
    }

    pub(super) fn saved(&mut self, saved: SavedFile) -> Result<(), Error> {
        let SavedFile { body, print, size, changed, live, entry, failures } = saved;
        self.name_live(live);
        if changed {
            self.failed(&entry.path(), &SourceError::Changed { path: entry.path() });
        }
        for failure in &failures {
            self.failed(&entry.path(), failure);
        }
        // An empty fingerprint never matches: the next run looks again.
        let print = if self.parts.sink.is_settled(&print) { print } else { Fingerprint::default() };
        let remember = !changed && failures.is_empty();
        match body {
            Body::Rows(node, rows) => self.parts.assembler.long_file((*node, &rows), &print, remember),
            Body::Paged(node, rows) => self.parts.assembler.paged_file((&node, &rows), &print, remember),
            Body::Whole(node) => self.parts.assembler.entry((&node, &[]), &print, Some(size), remember),
        }
    }
}
