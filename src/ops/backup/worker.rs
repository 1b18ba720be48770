//! A worker: reads files, cuts, names and stores their chunks, and makes their nodes.
//!
//! # Invariants
//! Cut points depend on content alone: a range is cut from its start, whoever cuts it. A file that changes while it is
//! read is read again, up to three times; what was read last is stored and marked.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::again;
use super::node::{NodeMaker, take_flags, take_xattrs};
use super::options::Databases;
use super::ranges::data_ranges;
use super::sink::{Segmenter, Sink};
use super::state::Fingerprint;
use crate::chunk::Cutter;
use crate::crypto::SecretKey;
use crate::error::Error;
use crate::event::Counters;
use crate::format::content::{ChunkRow, Content, INLINE_ROWS_MAX};
use crate::format::envelope::ChunkKind;
use crate::format::node::{HOLES_MAX, Node, Problem};
use crate::source::file::{FileReader, Holes, read_small};
use crate::source::sqlite::HEADER_LEN;
use crate::source::walk::Entry;
use crate::source::{SourceError, Stat};

/// Files up to this size are read whole; larger ones in pieces.
const SMALL: usize = 512 << 10;
/// Bytes read at a time: what is cut and named next is still in the processor's cache.
const READ: usize = 512 << 10;
/// How often a file that changes is read.
const TRIES: u32 = 3;
/// How long a wait for an answer lasts before the wish to stop is looked at.
const TICK: Duration = Duration::from_millis(100);

/// A file to be saved.
#[derive(Debug)]
pub(super) struct FileJob {
    pub entry: Entry,
    pub mount: u32,
    pub holes: Holes,
    /// It is saved as an image, whatever it is.
    pub image: bool,
    /// What is done with it if it is a database.
    pub databases: Databases,
}

/// Work for one worker.
#[derive(Debug)]
pub(super) enum Job {
    /// Whole files, in walk order.
    Files(u64, Vec<FileJob>),
    /// A part of a large file, or of an image.
    Span(u64, Span),
    /// A part of a stream.
    Cut(u64, Cut),
}

/// A part of a large file or of an image.
#[derive(Debug)]
pub(super) struct Span {
    pub file: Arc<FileReader>,
    pub range: Range<u64>,
    /// Blocks of zeroes are left out.
    pub image: bool,
}

/// What a span holds.
#[derive(Debug, Default)]
pub(super) struct SpanContent {
    pub rows: Vec<ChunkRow>,
    /// What was read and is not in the rows, because it is zeroes; in order and apart.
    pub blanks: Vec<Range<u64>>,
    /// How the file begins, if it is in here: enough to know a database by.
    pub head: Vec<u8>,
}

impl SpanContent {
    /// Adds zeroes at the end of the list.
    pub(super) fn blank(&mut self, range: Range<u64>) {
        match self.blanks.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => self.blanks.push(range),
        }
    }
}

/// A part of a stream, cut: the chunks lie one behind another from the start of `bytes`.
#[derive(Debug, Default)]
pub(super) struct Cut {
    pub bytes: Vec<u8>,
    pub lens: Vec<u32>,
}

/// What became of a file.
#[derive(Debug)]
pub(super) enum FileOutcome {
    /// Saved.
    Saved(Box<SavedFile>),
    /// Not readable.
    Failed(Entry, SourceError),
}

/// What is known of a file's content.
#[derive(Debug)]
pub(super) enum Body {
    /// All of it is in the node, which is encoded.
    Whole(Vec<u8>),
    /// So many rows that they go into pages, which are still to be made.
    Rows(Box<Node>, Vec<ChunkRow>),
    /// The node has its content; the rows of its pages, if they are to be remembered.
    Paged(Box<Node>, Vec<ChunkRow>),
}

/// A file whose content is stored.
#[derive(Debug)]
pub(super) struct SavedFile {
    pub body: Body,
    pub print: Fingerprint,
    pub size: u64,
    /// It changed each time it was read.
    pub changed: bool,
    /// The database in use that it is, or belongs to.
    pub live: Option<PathBuf>,
    /// For messages about `changed` and `failures`.
    pub entry: Entry,
    /// What of its metadata could not be read.
    pub failures: Vec<SourceError>,
}

/// The answer to a job.
#[derive(Debug)]
pub(super) enum Outcome {
    Files(u64, Vec<FileOutcome>),
    Span(u64, Result<SpanContent, SourceError>),
    /// The rows, and the buffer to be used again.
    Cut(u64, Vec<ChunkRow>, Cut),
    /// The run is over.
    Broken(Error),
}

/// How content is cut.
#[derive(Debug, Clone)]
pub(super) struct Cutters {
    pub files: Cutter,
    pub images: Cutter,
}

/// Works until there is no more work, then seals what is left.
pub(super) fn work(
    sink: &Sink,
    (cutters, hard_links): (Cutters, Arc<SecretKey>),
    jobs: &Mutex<Receiver<Job>>,
    answers: &Sender<Outcome>,
) {
    let _stop = StopOnPanic(sink);
    let mut worker = Worker {
        sink,
        cutter: cutters.files,
        image_cutter: cutters.images,
        nodes: NodeMaker::new(hard_links, sink.timeless),
        segment: Segmenter::new(sink, ChunkKind::Data),
        buffer: Vec::new(),
    };
    loop {
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let answer = match job {
            Ok(_) if sink.stopped() => return,
            Ok(_) if sink.cancelled() => Err(Error::Cancelled),
            Ok(Job::Files(number, files)) => worker.files(files).map(|done| Outcome::Files(number, done)),
            Ok(Job::Span(number, span)) => worker.span(span).map(|content| Outcome::Span(number, content)),
            Ok(Job::Cut(number, cut)) => worker.chunks(&cut).map(|rows| Outcome::Cut(number, rows, cut)),
            Err(_) => match worker.segment.flush() {
                Ok(()) => return,
                Err(error) => Err(error),
            },
        };
        let broken = answer.is_err();
        // What was read before the user stopped the run is kept: the next run need not read it again.
        let answer = match answer {
            Err(Error::Cancelled) if sink.cancelled() => worker.segment.flush().and(Err(Error::Cancelled)),
            answer => answer,
        };
        // The other side hangs up only when the run is over.
        if answers.send(answer.unwrap_or_else(Outcome::Broken)).is_err() || broken {
            return;
        }
    }
}

/// Waits for the next answer; ends when the run does.
pub(super) fn next_answer(sink: &Sink, answers: &Receiver<Outcome>) -> Result<Outcome, Error> {
    loop {
        match answers.recv_timeout(TICK) {
            Ok(Outcome::Broken(error)) => return Err(error),
            Ok(outcome) => return Ok(outcome),
            Err(RecvTimeoutError::Timeout) if !sink.stopped() && !sink.cancelled() => {}
            Err(_) => return Err(Error::Cancelled),
        }
    }
}

/// A worker that dies answers nothing any more: without this the others would wait for it for ever.
struct StopOnPanic<'a>(&'a Sink);

impl Drop for StopOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.stop.store(true, Ordering::Release);
        }
    }
}

pub(super) struct Worker<'a> {
    pub(super) sink: &'a Sink,
    cutter: Cutter,
    pub(super) image_cutter: Cutter,
    nodes: NodeMaker,
    pub(super) segment: Segmenter<'a>,
    pub(super) buffer: Vec<u8>,
}

impl Worker<'_> {
    pub(super) fn go_on(&self) -> Result<(), Error> {
        if self.sink.stopped() || self.sink.cancelled() { Err(Error::Cancelled) } else { Ok(()) }
    }

    fn files(&mut self, files: Vec<FileJob>) -> Result<Vec<FileOutcome>, Error> {
        let mut done = Vec::with_capacity(files.len());
        for file in files {
            self.go_on()?;
            done.push(match self.file(&file)? {
                Ok(saved) => FileOutcome::Saved(Box::new(saved)),
                Err(error) => FileOutcome::Failed(file.entry, error),
            });
        }
        Ok(done)
    }

    fn file(&mut self, file: &FileJob) -> Result<Result<SavedFile, SourceError>, Error> {
        let error = match self.file_as(file, file.entry.stat())? {
            Err(error) => error,
            saved => return Ok(saved),
        };
        match again::look(&file.entry, error) {
            Ok(now) => self.file_as(file, &now),
            Err(error) => Ok(Err(error)),
        }
    }

    /// Saves a file that is expected to be the one of `stat`.
    fn file_as(&mut self, file: &FileJob, stat: &Stat) -> Result<Result<SavedFile, SourceError>, Error> {
        let sparse = stat.blocks.saturating_mul(512) < stat.size;
        let whole = file.databases != Databases::Copy && !(sparse && stat.size > 4096);
        if stat.size <= SMALL as u64 && whole {
            return self.small_file(file, stat);
        }
        self.large_file(file)
    }

    fn small_file(&mut self, file: &FileJob, stat: &Stat) -> Result<Result<SavedFile, SourceError>, Error> {
        let entry = &file.entry;
        let mut content = std::mem::take(&mut self.buffer);
        let read = read_small(entry.dir(), entry.source_name(), stat, SMALL, &mut content);
        let read = match read {
            Ok(Some(read)) => read,
            Ok(None) => {
                self.buffer = content;
                return self.large_file(file);
            }
            Err(error) => {
                self.buffer = content;
                return Ok(Err(error));
            }
        };
        let mut node = self.nodes.make(entry.name(), &read.stat, file.mount);
        take_flags(&mut node, read.flags);
        node.size = content.len() as u64;
        let mut rows = Vec::new();
        let mut rest = &content[..];
        while !rest.is_empty() {
            let (chunk, after) = rest.split_at(self.cutter.cut(rest));
            rows.push(ChunkRow { id: self.segment.store(chunk)?, len: chunk.len() as u32 });
            rest = after;
        }
        Counters::add(&self.sink.observer.counters().bytes_read, content.len() as u64);
        let live = again::live(file, &content[..content.len().min(HEADER_LEN)]);
        self.buffer = content;
        let failures = take_xattrs(&mut node, read.xattrs).into_iter().collect();
        let facts = Facts { print: Fingerprint::of(&read.stat), changed: read.changed, live };
        Ok(Ok(saved(node, rows, facts, (entry, failures))))
    }

    fn large_file(&mut self, file: &FileJob) -> Result<Result<SavedFile, SourceError>, Error> {
        let mut tries = 1;
        loop {
            let reader = match again::open_as(file, self.sink)? {
                Ok(reader) => reader,
                Err(error) => return Ok(Err(error)),
            };
            let ranges = data_ranges(&reader, file.holes);
            let mut content = SpanContent::default();
            for range in &ranges {
                match self.range(&reader, range.clone(), &mut content)? {
                    Ok(()) => {}
                    Err(error) => return Ok(Err(error)),
                }
            }
            let still = match reader.stood_still() {
                Ok(still) => still,
                Err(error) => return Ok(Err(error)),
            };
            if still || tries == TRIES {
                let SpanContent { rows, head, .. } = content;
                let stored = rows.iter().map(|row| u64::from(row.len)).sum();
                let (node, failures) = describe(&mut self.nodes, file, (&reader, &ranges), stored);
                let live = again::live(file, &head);
                let facts = Facts { print: again::print(&reader), changed: !still, live };
                return Ok(Ok(saved(node, rows, facts, (&file.entry, failures))));
            }
            tries += 1;
        }
    }

    /// Names and stores chunks that were cut already.
    fn chunks(&mut self, cut: &Cut) -> Result<Vec<ChunkRow>, Error> {
        let mut rows = Vec::with_capacity(cut.lens.len());
        let mut start = 0;
        for &len in &cut.lens {
            self.go_on()?;
            let chunk = &cut.bytes[start..start + len as usize];
            rows.push(ChunkRow { id: self.segment.store(chunk)?, len });
            start += len as usize;
        }
        Ok(rows)
    }

    fn span(&mut self, span: Span) -> Result<Result<SpanContent, SourceError>, Error> {
        let Span { file, range, image } = span;
        if image {
            return self.image_span(&file, range);
        }
        let mut content = SpanContent::default();
        Ok(self.range(&file, range, &mut content)?.map(|()| content))
    }

    /// Cuts one range from its start. A file that shrank ends the range early.
    fn range(
        &mut self,
        file: &FileReader,
        range: Range<u64>,
        content: &mut SpanContent,
    ) -> Result<Result<(), SourceError>, Error> {
        let begins = range.start == 0;
        let most = self.cutter.params().max() as usize;
        self.buffer.resize(READ.max(2 * most), 0);
        let (mut start, mut filled, mut offset) = (0, 0, range.start);
        loop {
            self.go_on()?;
            self.buffer.copy_within(start..filled, 0);
            (start, filled) = (0, filled - start);
            while filled < self.buffer.len() && offset < range.end {
                let room = (self.buffer.len() - filled) as u64;
                let want = room.min(range.end - offset) as usize;
                match file.read_at(&mut self.buffer[filled..filled + want], offset) {
                    Ok(0) => offset = range.end,
                    Ok(read) => {
                        (filled, offset) = (filled + read, offset + read as u64);
                        Counters::add(&self.sink.observer.counters().bytes_read, read as u64);
                    }
                    Err(error) => return Ok(Err(error)),
                }
            }
            if begins && content.head.is_empty() {
                content.head = self.buffer[..filled.min(HEADER_LEN)].to_vec();
            }
            let last = offset == range.end;
            while filled - start >= most || (last && filled > start) {
                let len = self.cutter.cut(&self.buffer[start..filled]);
                let id = self.segment.store(&self.buffer[start..start + len])?;
                content.rows.push(ChunkRow { id, len: len as u32 });
                start += len;
            }
            if last {
                return Ok(Ok(()));
            }
        }
    }
}

/// The node of a file that was read in pieces, `stored` bytes in all, without its content; and what could not be read of
/// its metadata.
pub(super) fn describe(
    nodes: &mut NodeMaker,
    file: &FileJob,
    (reader, ranges): (&FileReader, &[Range<u64>]),
    stored: u64,
) -> (Node, Vec<SourceError>) {
    let stat = reader.stat();
    let mut node = nodes.make(file.entry.name(), stat, file.mount);
    let expected: u64 = ranges.iter().map(|range| range.end - range.start).sum();
    if stored == expected {
        node.holes = holes_between(ranges, stat.size);
    } else {
        // It shrank under the reader: holes would stand in the wrong places, so there are none.
        node.size = stored;
    }
    let mut failures = Vec::new();
    match reader.flags() {
        Ok(flags) => take_flags(&mut node, flags),
        Err(error) => failures.push(error),
    }
    failures.extend(take_xattrs(&mut node, reader.xattrs()));
    (node, failures)
}

fn holes_between(ranges: &[Range<u64>], size: u64) -> Vec<(u64, u64)> {
    let mut holes = Vec::new();
    let mut end = 0;
    for range in ranges {
        if range.start > end {
            holes.push((end, range.start - end));
        }
        end = range.end;
    }
    if size > end {
        holes.push((end, size - end));
    }
    debug_assert!(holes.len() <= HOLES_MAX, "a file has more holes than a node may name");
    holes
}

/// What is known of a file beside its content.
struct Facts {
    print: Fingerprint,
    changed: bool,
    live: Option<PathBuf>,
}

fn saved(
    mut node: Node,
    rows: Vec<ChunkRow>,
    Facts { print, changed, live }: Facts,
    (entry, failures): (&Entry, Vec<SourceError>),
) -> SavedFile {
    if changed {
        node.problem = Some(Problem::Changed);
    }
    let size = node.size;
    let body = if rows.len() > INLINE_ROWS_MAX {
        Body::Rows(Box::new(node), rows)
    } else {
        node.content = Content::Inline(rows);
        let mut encoded = Vec::with_capacity(node.xattrs.len() * 64 + 160 + node.target.len());
        node.encode(&mut encoded);
        Body::Whole(encoded)
    };
    SavedFile { body, print, size, changed, live, entry: entry.clone(), failures }
}
