//! Buffers of cut content on their way to the workers and back, and the rows that come back with them, in order.
//!
//! # Invariants
//! Memory is bounded by the buffers: when all are with the workers, whoever wants one waits for an answer.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, SyncSender};

use super::sink::Sink;
use super::worker::{Cut, Job, Outcome, next_answer};
use crate::error::Error;
use crate::format::content::ChunkRow;

/// Bytes that are cut at a time: about one segment, so that what lay together stays together.
const CUT: usize = 2 << 20;
/// Bytes of all buffers together, unless they are so large that two are more.
const BUFFERED: usize = 32 << 20;

/// Takes over a row of a lane whose turn has come.
pub(super) type Take<'t> = dyn FnMut(usize, ChunkRow) -> Result<(), Error> + 't;

/// The buffers on their way round.
pub(super) struct Round<'r> {
    sink: &'r Sink,
    jobs: &'r SyncSender<Job>,
    answers: &'r Receiver<Outcome>,
    buffer_len: usize,
    /// Buffers that may still be made.
    left: usize,
    free: Vec<Cut>,
    /// The number of the first part whose rows are still to be taken over, and what is known of it and those after it: whose
    /// they are, and what they are.
    first: u64,
    parts: VecDeque<(usize, Option<Vec<ChunkRow>>)>,
}

impl<'r> Round<'r> {
    /// Buffers for so many workers and for chunks of at most `most` bytes.
    pub(super) fn new(
        sink: &'r Sink,
        (jobs, answers): (&'r SyncSender<Job>, &'r Receiver<Outcome>),
        (workers, most): (usize, usize),
    ) -> Self {
        let buffer_len = CUT.max(2 * most);
        // One is filled while each worker has one, and one more is ready for the worker that is done first.
        let left = (workers + 2).min(BUFFERED / buffer_len).max(2);
        Self { sink, jobs, answers, buffer_len, left, free: Vec::new(), first: 0, parts: VecDeque::new() }
    }

    /// A buffer; waits for one if all are with the workers.
    pub(super) fn buffer(&mut self, take: &mut Take<'_>) -> Result<Cut, Error> {
        loop {
            if let Some(free) = self.free.pop() {
                return Ok(free);
            }
            if self.left > 0 {
                self.left -= 1;
                return Ok(Cut { bytes: vec![0; self.buffer_len], lens: Vec::new() });
            }
            self.receive(take)?;
        }
    }

    /// How many buffers may be held outside so that there is still one to be had.
    pub(super) fn most_held(&self) -> usize {
        self.left + self.free.len() + self.parts.len() - 1
    }

    /// Takes back a buffer that is not needed.
    pub(super) fn give_back(&mut self, cut: Cut) {
        self.free.push(cut);
    }

    /// Gives a buffer of this lane to the workers.
    pub(super) fn send(&mut self, lane: usize, cut: Cut) -> Result<(), Error> {
        let number = self.first + self.parts.len() as u64;
        self.parts.push_back((lane, None));
        self.jobs.send(Job::Cut(number, cut)).map_err(|_| self.broken())
    }

    /// Why no worker takes a job any more.
    fn broken(&self) -> Error {
        next_answer(self.sink, self.answers).err().unwrap_or(Error::Cancelled)
    }

    /// Whether no buffer is with the workers.
    pub(super) fn is_idle(&self) -> bool {
        self.parts.is_empty()
    }

    /// Waits for an answer, and takes over all rows whose turn has come.
    pub(super) fn receive(&mut self, take: &mut Take<'_>) -> Result<(), Error> {
        let Outcome::Cut(number, rows, mut cut) = next_answer(self.sink, self.answers)? else {
            return Ok(());
        };
        cut.lens.clear();
        self.free.push(cut);
        let place = number.checked_sub(self.first).and_then(|at| self.parts.get_mut(at as usize));
        if let Some(part) = place {
            part.1 = Some(rows);
        }
        while let Some((lane, rows)) =
            self.parts.front_mut().and_then(|(lane, rows)| rows.take().map(|rows| (*lane, rows)))
        {
            self.parts.pop_front();
            self.first += 1;
            rows.into_iter().try_for_each(|row| take(lane, row))?;
        }
        Ok(())
    }

    /// Waits for what is still on its way.
    pub(super) fn finish(mut self, take: &mut Take<'_>) -> Result<(), Error> {
        while !self.parts.is_empty() {
            self.receive(take)?;
        }
        Ok(())
    }
}
