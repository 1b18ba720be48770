//! A file that several workers read at the same time, each its own span.

use std::ops::Range;
use std::sync::Arc;

use super::again;
use super::content::ContentBuilder;
use super::image;
use super::merge::{JOBS, Merge, Slot};
use super::node::NodeMaker;
use super::ranges::{data_ranges, without};
use super::sink::Sink;
use super::state::{Fingerprint, ROWS_MAX};
use super::tree::PageStore;
use super::worker::{Body, FileJob, FileOutcome, Job, Outcome, SavedFile, Span, SpanContent, describe};
use crate::chunk::{SPAN, spans};
use crate::error::Error;
use crate::event::Counters;
use crate::format::content::{ChunkRow, Content};
use crate::format::node::Problem;
use crate::source::SourceError;
use crate::source::file::FileReader;
use crate::source::walk::Entry;

const TRIES: u32 = 3;

/// What a span holds, or why it could not be read.
type SpanAnswer = Result<SpanContent, SourceError>;

/// A large file and what is known of its spans. Rows leave it in pages as soon as their turn comes, so that memory does
/// not grow with the file.
#[derive(Debug)]
pub(super) struct LargeFile {
    job: FileJob,
    reader: Option<Arc<FileReader>>,
    ranges: Vec<Range<u64>>,
    /// Jobs in order of their spans, with their rows from the answer until they are taken over.
    parts: Vec<(u64, Option<SpanAnswer>)>,
    /// Spans whose rows were taken over.
    taken: usize,
    content: ContentBuilder,
    /// Zeroes that were read and left out.
    blanks: SpanContent,
    /// How it begins.
    head: Vec<u8>,
    /// Rows for the next run to look up; none if there are too many.
    kept: Option<Vec<ChunkRow>>,
    error: Option<SourceError>,
    tries: u32,
}

impl LargeFile {
    pub(super) fn new(job: FileJob) -> Self {
        Self {
            job,
            reader: None,
            ranges: Vec::new(),
            parts: Vec::new(),
            taken: 0,
            content: ContentBuilder::default(),
            blanks: SpanContent::default(),
            head: Vec::new(),
            kept: Some(Vec::new()),
            error: None,
            tries: 0,
        }
    }

    pub(super) fn entry(&self) -> &Entry {
        &self.job.entry
    }

    /// Opens the file as it is now, and forgets what was read of it before.
    pub(super) fn open(&mut self, sink: &Sink) -> Result<Result<(), SourceError>, Error> {
        let opened = match self.job.image {
            true => image::open(&self.job.entry),
            false => again::open_as(&self.job, sink)?,
        };
        let reader = match opened {
            Ok(reader) => Arc::new(reader),
            Err(error) => return Ok(Err(error)),
        };
        self.ranges = data_ranges(&reader, self.job.holes);
        self.reader = Some(reader);
        self.parts.clear();
        self.taken = 0;
        self.content = ContentBuilder::default();
        self.blanks = SpanContent::default();
        self.head = Vec::new();
        self.kept = Some(Vec::new());
        self.tries += 1;
        Ok(Ok(()))
    }

    /// The spans to read: data only, cut at fixed lengths, so that no cut depends on who reads.
    pub(super) fn spans(&self) -> Vec<Span> {
        let Some(reader) = &self.reader else { return Vec::new() };
        let of_range = |range: &Range<u64>| {
            let start = range.start;
            spans(range.end - start, SPAN).map(move |span| start + span.start..start + span.end)
        };
        let image = self.job.image;
        let ranges = self.ranges.iter().flat_map(of_range);
        ranges.map(|range| Span { file: Arc::clone(reader), range, image }).collect()
    }

    /// A job for the next span was given out.
    pub(super) fn expect(&mut self, job: u64) {
        self.parts.push((job, None));
    }

    /// Whether an answer is for this file.
    pub(super) fn waits_for(&self, job: u64) -> bool {
        self.place_of(job).is_some_and(|at| at >= self.taken && self.parts[at].1.is_none())
    }

    fn place_of(&self, job: u64) -> Option<usize> {
        self.parts.binary_search_by_key(&job, |part| part.0).ok()
    }

    /// Takes the answer of a span, and stores the pages that are complete with it.
    pub(super) fn take(
        &mut self,
        job: u64,
        answer: SpanAnswer,
        pages: &mut dyn PageStore,
    ) -> Result<(), Error> {
        if let Some(at) = self.place_of(job) {
            self.parts[at].1 = Some(answer);
        }
        while let Some(answer) = self.parts.get_mut(self.taken).and_then(|part| part.1.take()) {
            self.taken += 1;
            match answer {
                Ok(SpanContent { rows, blanks, head }) => {
                    self.take_rows(&rows, pages)?;
                    if !head.is_empty() {
                        self.head = head;
                    }
                    blanks.into_iter().for_each(|blank| self.blanks.blank(blank));
                }
                Err(error) => self.error = self.error.take().or(Some(error)),
            }
        }
        Ok(())
    }

    fn take_rows(&mut self, rows: &[ChunkRow], pages: &mut dyn PageStore) -> Result<(), Error> {
        self.kept = self.kept.take().filter(|kept| kept.len() + rows.len() <= ROWS_MAX);
        if let Some(kept) = &mut self.kept {
            kept.extend_from_slice(rows);
        }
        rows.iter().try_for_each(|row| self.content.push(*row, pages))
    }

    /// Whether a span could not be read, so that no other needs to be.
    pub(super) fn is_lost(&self) -> bool {
        self.error.is_some()
    }

    /// Bytes of what is open; of a device only this tells.
    pub(super) fn size(&self) -> u64 {
        self.reader.as_ref().map_or(0, |reader| reader.stat().size)
    }

    /// Whether every span is answered.
    pub(super) fn is_complete(&self) -> bool {
        self.taken == self.parts.len()
    }

    /// The saved file; `None` if it changed and was opened again, so that its spans must be read again.
    pub(super) fn finish(
        &mut self,
        (nodes, sink): (&mut NodeMaker, &Sink),
        pages: &mut dyn PageStore,
    ) -> Result<Result<Option<SavedFile>, SourceError>, Error> {
        let changed = match self.changed() {
            Ok(None) => return Ok(self.open(sink)?.map(|()| None)),
            Ok(Some(changed)) => changed,
            Err(error) => return Ok(Err(error)),
        };
        let Some(reader) = self.reader.take() else { return Ok(Ok(None)) };
        let ranges = without(&self.ranges, &self.blanks.blanks);
        let (mut node, failures) = describe(nodes, &self.job, (&*reader, &ranges), self.content.bytes());
        node.problem = changed.then_some(Problem::Changed);
        let (print, size) = (again::print(&reader), node.size);
        let live = again::live(&self.job, &self.head);
        node.content = std::mem::take(&mut self.content).finish(pages)?;
        let paged = matches!(node.content, Content::Paged(_));
        let rows = self.kept.take().filter(|_| paged).unwrap_or_default();
        let (body, entry) = (Body::Paged(Box::new(node), rows), self.job.entry.clone());
        Ok(Ok(Some(SavedFile { body, print, size, changed, live, entry, failures })))
    }

    /// Whether it changed under the readers; `None` if it did and is to be read again.
    fn changed(&mut self) -> Result<Option<bool>, SourceError> {
        if let Some(error) = self.error.take() {
            return Err(error);
        }
        let Some(reader) = &self.reader else { return Ok(Some(true)) };
        let changed = !reader.stood_still()?;
        Ok((!changed || self.tries == TRIES).then_some(changed))
    }
}

impl Merge<'_> {
    pub(super) fn large(&mut self, job: FileJob) -> Result<(), Error> {
        let mut file = LargeFile::new(job);
        match file.open(self.parts.sink)? {
            Ok(()) => {
                if !file.entry().stat().is_file() {
                    Counters::add(&self.counters().bytes, file.size());
                }
                self.send_spans(&mut file)?;
                self.queue.push_back(Slot::Large(Box::new(file)));
            }
            Err(error) => {
                let node = self.failed_file(file.entry(), &error);
                self.push_ready(&node, Fingerprint::default(), None);
            }
        }
        Ok(())
    }

    fn send_spans(&mut self, file: &mut LargeFile) -> Result<(), Error> {
        let spans = file.spans();
        for span in spans {
            if file.is_lost() {
                break;
            }
            let number = self.next_job;
            self.next_job += 1;
            file.expect(number);
            // Answers are taken while the channel is full, or workers and this thread would wait for each other.
            while self.in_flight >= JOBS {
                self.wait_for_large(file)?;
            }
            self.send(Job::Span(number, span))?;
        }
        Ok(())
    }

    fn wait_for_large(&mut self, file: &mut LargeFile) -> Result<(), Error> {
        match self.receive()? {
            Outcome::Span(number, answer) if file.waits_for(number) => {
                file.take(number, answer, self.parts.assembler.pages())?;
            }
            other => self.answer(other)?,
        }
        Ok(())
    }

    pub(super) fn large_done(&mut self, mut file: Box<LargeFile>) -> Result<(), Error> {
        let nodes = (&mut self.nodes, self.parts.sink);
        match file.finish(nodes, self.parts.assembler.pages())? {
            Ok(Some(saved)) => self.saved(saved),
            Ok(None) => {
                // It changed while it was read: once more, at the head of the queue.
                self.send_spans(&mut file)?;
                self.queue.push_front(Slot::Large(file));
                Ok(())
            }
            Err(error) => self.file_done(FileOutcome::Failed(file.entry().clone(), error)),
        }
    }
}
