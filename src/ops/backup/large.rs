//! A file that several workers read at the same time, each its own span.

use std::ops::Range;
use std::sync::Arc;

use super::node::NodeMaker;
use super::ranges::data_ranges;
use super::worker::{FileJob, SavedFile, finish_file};
use crate::chunk::{SPAN, spans};
use crate::format::content::ChunkRow;
use crate::source::SourceError;
use crate::source::file::FileReader;
use crate::source::walk::Entry;

const TRIES: u32 = 3;

/// The rows of a span, or why it could not be read.
type SpanRows = Result<Vec<ChunkRow>, SourceError>;

/// A large file and what is known of its spans.
#[derive(Debug)]
pub(super) struct LargeFile {
    job: FileJob,
    reader: Option<Arc<FileReader>>,
    ranges: Vec<Range<u64>>,
    /// Jobs in order of their spans, with their rows once they are answered.
    parts: Vec<(u64, Option<SpanRows>)>,
    open_parts: usize,
    tries: u32,
}

impl LargeFile {
    pub(super) fn new(job: FileJob) -> Self {
        Self { job, reader: None, ranges: Vec::new(), parts: Vec::new(), open_parts: 0, tries: 0 }
    }

    pub(super) fn entry(&self) -> &Entry {
        &self.job.entry
    }

    /// Opens the file as it is now.
    pub(super) fn open(&mut self) -> Result<(), SourceError> {
        let reader = Arc::new(self.job.entry.open()?);
        self.ranges = data_ranges(&reader, self.job.holes);
        self.reader = Some(reader);
        self.parts.clear();
        self.tries += 1;
        Ok(())
    }

    /// The spans to read: data only, cut at fixed lengths, so that no cut depends on who reads.
    pub(super) fn spans(&self) -> Vec<(Arc<FileReader>, Range<u64>)> {
        let Some(reader) = &self.reader else { return Vec::new() };
        let of_range = |range: &Range<u64>| {
            let start = range.start;
            spans(range.end - start, SPAN).map(move |span| start + span.start..start + span.end)
        };
        self.ranges.iter().flat_map(of_range).map(|span| (Arc::clone(reader), span)).collect()
    }

    /// A job for the next span was given out.
    pub(super) fn expect(&mut self, job: u64) {
        self.parts.push((job, None));
        self.open_parts += 1;
    }

    /// Whether an answer is for this file.
    pub(super) fn waits_for(&self, job: u64) -> bool {
        self.parts.binary_search_by_key(&job, |part| part.0).is_ok_and(|at| self.parts[at].1.is_none())
    }

    /// Takes the answer of a span.
    pub(super) fn take(&mut self, job: u64, rows: SpanRows) {
        if let Ok(at) = self.parts.binary_search_by_key(&job, |part| part.0) {
            self.parts[at].1 = Some(rows);
            self.open_parts -= 1;
        }
    }

    /// Whether every span is answered.
    pub(super) fn is_complete(&self) -> bool {
        self.open_parts == 0
    }

    /// The saved file; `None` if it changed and was opened again, so that its spans must be read again.
    pub(super) fn finish(&mut self, nodes: &mut NodeMaker) -> Result<Option<SavedFile>, SourceError> {
        let mut rows = Vec::new();
        for (_, part) in self.parts.drain(..) {
            rows.extend(part.unwrap_or(Ok(Vec::new()))?);
        }
        let Some(reader) = self.reader.clone() else { return Ok(None) };
        let changed = !reader.stat_now()?.same_content(reader.stat());
        if changed && self.tries < TRIES {
            self.open()?;
            return Ok(None);
        }
        Ok(Some(finish_file(nodes, &self.job, (&reader, &self.ranges, rows), changed)))
    }
}
