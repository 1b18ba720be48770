//! Saves a stream, standard input or the output of a command, as one file.
//!
//! # Invariants
//! One thread reads and cuts, so that cut points depend on the content alone; the workers name, compress and seal. Memory
//! is bounded by the buffers that go round between them, and does not grow with the stream.

use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};
use std::sync::mpsc::{Receiver, SyncSender};

use super::assemble::Assembler;
use super::content::ContentBuilder;
use super::merge::Tally;
use super::options::BackupSource;
use super::round::Round;
use super::sink::{Segmenter, Sink};
use super::state::Fingerprint;
use super::threads::Built;
use super::worker::{Job, Outcome};
use crate::cancel::Cancel;
use crate::chunk::Cutter;
use crate::crypto::SecretKey;
use crate::error::Error;
use crate::event::Counters;
use crate::format::content::Content;
use crate::format::envelope::ChunkKind;
use crate::format::node::{Node, NodeKind};
use crate::source::SourceError;
use crate::source::stream::{CommandStream, Stderr, StdinStream};

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
        let mut content = ContentBuilder::default();
        let mut take = |row| content.push(row, assembler.pages());
        let mut round = Round::new(self.sink, (&self.jobs, &self.answers), (self.workers, most));
        let mut cut = round.buffer(&mut take)?;
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
            let mut next = round.buffer(&mut take)?;
            next.bytes[..filled - start].copy_from_slice(&cut.bytes[start..filled]);
            round.send(std::mem::replace(&mut cut, next))?;
            filled -= start;
        }
        round.finish(&mut take)?;
        Ok((size, content.finish(assembler.pages())?))
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
