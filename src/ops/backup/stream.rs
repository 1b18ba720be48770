//! Saves a stream, standard input or the output of a command, as one file.

use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};

use super::assemble::Assembler;
use super::merge::Tally;
use super::options::BackupSource;
use super::run::Built;
use super::sink::{Segmenter, Sink};
use super::state::Fingerprint;
use crate::cancel::Cancel;
use crate::chunk::Cutter;
use crate::crypto::SecretKey;
use crate::error::Error;
use crate::event::Counters;
use crate::format::content::ChunkRow;
use crate::format::envelope::ChunkKind;
use crate::format::node::{Node, NodeKind};
use crate::source::SourceError;
use crate::source::stream::{CommandStream, Stderr, StdinStream};

const READ: usize = 1 << 20;

/// What saving a stream needs.
pub(super) struct Stream<'a> {
    pub sink: &'a Sink,
    pub cutter: Cutter,
    pub cancel: &'a Cancel,
}

impl Stream<'_> {
    /// Reads the stream to its end and builds the tree that leads to it.
    pub(super) fn save(
        &self,
        source: &BackupSource,
        path: &Path,
        boundary: SecretKey,
    ) -> Result<Built, Error> {
        let mut rows = Vec::new();
        let size = match source {
            BackupSource::Command(argv) => {
                let (program, args) = argv.split_first().ok_or(SourceError::NoInput)?;
                let started = CommandStream::start(Path::new(program), args, Stderr::Inherit, self.cancel);
                let mut stream = started.map_err(Error::CommandFailed)?;
                let size = self.store(|buffer| stream.read(buffer), &mut rows)?;
                // Only now is it known whether what was read can be trusted.
                stream.finish().map_err(|error| match error {
                    SourceError::Cancelled => Error::Cancelled,
                    other => Error::CommandFailed(other),
                })?;
                size
            }
            _ => {
                let mut stream = StdinStream::new(self.cancel)?;
                self.store(|buffer| stream.read(buffer), &mut rows)?
            }
        };
        self.build(path, (size, rows), boundary)
    }

    fn store(
        &self,
        mut read: impl FnMut(&mut [u8]) -> Result<usize, SourceError>,
        rows: &mut Vec<ChunkRow>,
    ) -> Result<u64, Error> {
        let most = self.cutter.params().max() as usize;
        let mut segment = Segmenter::new(self.sink, ChunkKind::Data);
        let mut buffer = vec![0; READ.max(2 * most)];
        let (mut filled, mut size, mut last) = (0, 0, false);
        while !last {
            while filled < buffer.len() && !last {
                let count = read(&mut buffer[filled..])?;
                filled += count;
                size += count as u64;
                last = count == 0;
                Counters::add(&self.sink.observer.counters().bytes_read, count as u64);
                Counters::add(&self.sink.observer.counters().bytes, count as u64);
            }
            let mut start = 0;
            while filled - start >= most || (last && filled > start) {
                let len = self.cutter.cut(&buffer[start..filled]);
                let id = segment.store(&buffer[start..start + len])?;
                rows.push(ChunkRow { id, len: len as u32 });
                start += len;
            }
            buffer.copy_within(start..filled, 0);
            filled -= start;
        }
        segment.flush()?;
        Ok(size)
    }

    fn build(
        &self,
        path: &Path,
        (size, rows): (u64, Vec<ChunkRow>),
        boundary: SecretKey,
    ) -> Result<Built, Error> {
        let segment = Segmenter::new(self.sink, ChunkKind::Tree);
        let mut assembler = Assembler::new(boundary, segment, None);
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
        (node.mode, node.size) = (0o600, size);
        assembler.long_file((node, rows), &print, false)?;
        for _ in 0..=directories.len() {
            assembler.leave()?;
        }
        let (root, totals, state) = assembler.finish()?;
        let tally = Tally { new_files: 1, ..Tally::default() };
        Ok(Built { root, totals, tally, state, excluded: 0 })
    }
}
