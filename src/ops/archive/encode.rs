//! What comes, in the order of the archive, becomes the archive.
//!
//! # Invariants
//! The beginning of a file is held back until it ends or [`HELD_MAX`] bytes of it are there, all of them compared with their
//! ids: a file up to that size is in the archive whole or not at all. A larger one whose content turns out lost later is made
//! useless where it stands (`docs/decisions/0010-a-damaged-file-in-an-archive.md`).

use std::collections::HashSet;
use std::sync::Arc;

use super::assemble::{Ready, Step};
use super::entry::{Entry, Piece, Problem, Refusal};
use super::run::Run;
use super::sink::Sink;
use super::tar::Tar;
use super::zip::Zip;
use crate::error::Error;
use crate::ops::restore::flaw::Flaw;

/// Most bytes of a file that are held back.
pub(super) const HELD_MAX: usize = 8 << 20;

/// The kind of archive.
pub(super) enum Format {
    Tar(Box<Tar>),
    Zip(Box<Zip>),
}

/// The file that is under way.
struct Open {
    entry: Entry,
    held: Vec<Piece>,
    bytes: usize,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing of it is written.
    Held,
    /// Its beginning is written.
    Begun,
    /// What became of it was said; what still comes is of no use.
    Over,
}

pub(super) struct Encoder {
    run: Arc<Run>,
    format: Format,
    sink: Sink,
    open: Option<Open>,
    /// Number of the last file, as the walk counts.
    file: u64,
    /// Names of files with more names that are not in the archive.
    lost: HashSet<Box<[u8]>>,
}

impl Encoder {
    pub(super) fn new(run: Arc<Run>, format: Format, sink: Sink) -> Self {
        Self { run, format, sink, open: None, file: 0, lost: HashSet::new() }
    }

    /// Writes the steps of a batch.
    pub(super) async fn write(&mut self, steps: Vec<Ready>) -> Result<(), Error> {
        for step in steps {
            match step {
                Step::Entry(entry) => self.entry(&entry).await?,
                Step::Link(entry, first) => self.link(&entry, &first).await?,
                Step::Begin(entry) => {
                    self.file += 1;
                    self.open = Some(Open { entry, held: Vec::new(), bytes: 0, state: State::Held });
                }
                Step::Content(pieces) => self.content(pieces).await?,
                Step::Lost(problem) => self.lose(problem).await?,
                Step::End => self.end().await?,
            }
        }
        Ok(())
    }

    /// Ends the archive.
    pub(super) async fn finish(mut self) -> Result<(), Error> {
        match self.format {
            Format::Tar(tar) => tar.finish(&mut self.sink).await?,
            Format::Zip(zip) => zip.finish(&mut self.sink).await?,
        }
        self.sink.finish().await
    }

    async fn entry(&mut self, entry: &Entry) -> Result<(), Error> {
        let sink = &mut self.sink;
        let written = match &mut self.format {
            Format::Tar(tar) => tar.entry(sink, entry, None).await,
            Format::Zip(zip) => zip.entry(sink, entry).await,
        };
        self.settle(entry, written)
    }

    async fn link(&mut self, entry: &Entry, first: &[u8]) -> Result<(), Error> {
        if self.lost.contains(first) {
            self.run.report(entry.path(), Flaw::Lost.into());
            return Ok(());
        }
        let Format::Tar(tar) = &mut self.format else { return Ok(()) };
        let written = tar.entry(&mut self.sink, entry, Some(first)).await;
        self.settle(entry, written)
    }

    /// Says what became of an entry.
    fn settle(&mut self, entry: &Entry, written: Result<(), Refusal>) -> Result<(), Error> {
        match written {
            Ok(()) => {
                self.run.done(entry.path(), entry.node.kind == crate::format::node::NodeKind::File);
                if let Some(problem) = self.format.lacks(entry) {
                    self.run.report(entry.path(), problem);
                }
                Ok(())
            }
            Err(Refusal::Entry(problem)) => {
                self.note_lost(entry);
                self.run.report(entry.path(), problem);
                Ok(())
            }
            Err(Refusal::Run(error)) => Err(error),
        }
    }

    fn note_lost(&mut self, entry: &Entry) {
        if entry.node.hard_link.is_some() {
            self.lost.insert(entry.name().into());
        }
    }

    async fn content(&mut self, pieces: Vec<Piece>) -> Result<(), Error> {
        let Some(mut open) = self.open.take() else { return Ok(()) };
        match open.state {
            State::Over => {}
            State::Begun => self.pieces(pieces).await?,
            State::Held => {
                open.bytes += pieces.iter().map(|piece| piece.raw.len()).sum::<usize>();
                open.held.extend(pieces);
                if open.bytes > HELD_MAX {
                    self.begin(&mut open).await?;
                }
            }
        }
        self.open = Some(open);
        Ok(())
    }

    /// Writes the beginning of a file.
    async fn begin(&mut self, open: &mut Open) -> Result<(), Error> {
        let begun = match &mut self.format {
            Format::Tar(tar) => tar.begin(&mut self.sink, &open.entry).await,
            Format::Zip(zip) => zip.begin(&mut self.sink, &open.entry).await,
        };
        match begun {
            Ok(()) => {
                open.state = State::Begun;
                self.pieces(std::mem::take(&mut open.held)).await
            }
            refused => {
                open.state = State::Over;
                open.held.clear();
                self.run.give_up(self.file);
                self.settle(&open.entry, refused)
            }
        }
    }

    async fn pieces(&mut self, pieces: Vec<Piece>) -> Result<(), Error> {
        for piece in pieces {
            self.run.add_bytes(piece.raw.len() as u64);
            match &mut self.format {
                Format::Tar(tar) => tar.piece(&mut self.sink, piece).await?,
                Format::Zip(zip) => zip.piece(&mut self.sink, piece).await?,
            }
        }
        Ok(())
    }

    async fn end(&mut self) -> Result<(), Error> {
        let Some(mut open) = self.open.take() else { return Ok(()) };
        if open.state == State::Held {
            if let Format::Zip(zip) = &mut self.format
                && open.entry.node.holes.is_empty()
            {
                let bytes = open.bytes as u64;
                let written = zip.whole(&mut self.sink, &open.entry, open.held).await;
                if written.is_ok() {
                    self.run.add_bytes(bytes);
                }
                return self.settle(&open.entry, written);
            }
            self.begin(&mut open).await?;
        }
        if open.state == State::Begun {
            match &mut self.format {
                Format::Tar(tar) => tar.end(&mut self.sink).await?,
                Format::Zip(zip) => zip.end(&mut self.sink).await?,
            }
            self.settle(&open.entry, Ok(()))?;
        }
        Ok(())
    }

    /// The file cannot be had in full.
    async fn lose(&mut self, problem: Problem) -> Result<(), Error> {
        let Some(open) = &mut self.open else { return Ok(()) };
        let before = std::mem::replace(&mut open.state, State::Over);
        open.held = Vec::new();
        self.run.give_up(self.file);
        let problem = match (before, &mut self.format) {
            (State::Over, _) => return Ok(()),
            (State::Held, _) => problem,
            (State::Begun, Format::Tar(tar)) => {
                tar.spoil(&mut self.sink, &open.entry).await?;
                Problem::LostMidway
            }
            (State::Begun, Format::Zip(zip)) => {
                zip.spoil(&mut self.sink).await?;
                Problem::LostUnlisted
            }
        };
        self.run.report(open.entry.path(), problem);
        if open.entry.node.hard_link.is_some() {
            self.lost.insert(open.entry.name().into());
        }
        Ok(())
    }
}

impl Format {
    /// What of an entry that was written the archive does not hold.
    fn lacks(&self, entry: &Entry) -> Option<Problem> {
        match self {
            Self::Tar(_) => super::tar::lacks(entry),
            Self::Zip(_) => super::zip::lacks(entry),
        }
    }
}
