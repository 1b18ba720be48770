//! The walk's side of a survey: files wait here, with their chunks, until workers have held them against what stands in the
//! target; only what does not stand there is planned.
//!
//! # Invariants
//! The parts of a window never exceed its bounds. The walk keeps its hold on a file until the last part of it was surveyed.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::super::entries::{File, Judged};
use super::super::run::{Job, Task};
use super::super::survey::{Part, Survey, batches};
use super::Walk;
use crate::error::Error;
use crate::format::content::ChunkRow;

/// The files of a window, each with those of its chunks that fell into it.
#[derive(Debug, Default)]
pub(super) struct Parts {
    parts: Vec<Part>,
    rows: usize,
}

impl Parts {
    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    pub(super) fn files(&self) -> usize {
        self.parts.len()
    }

    /// Adds a chunk, and where it begins in the content of its file.
    pub(super) fn add(&mut self, file: &Arc<File>, row: (u64, ChunkRow)) {
        self.of(file).rows.push(row);
        self.rows += 1;
    }

    /// The part of the file that the walk is in.
    fn of(&mut self, file: &Arc<File>) -> &mut Part {
        let open = self.parts.last().is_some_and(|last| !last.last && Arc::ptr_eq(&last.file, file));
        if !open {
            self.parts.push(Part { file: Arc::clone(file), rows: Vec::new(), last: false });
        }
        self.parts.last_mut().expect("there is one now")
    }
}

impl Walk<'_> {
    /// Whether files are held against what stands before anything is fetched for them.
    pub(super) fn surveys(&self) -> bool {
        self.run.policy.surveys()
    }

    /// All rows of a file are known.
    pub(super) async fn through_with(&mut self, file: Arc<File>) -> Result<(), Error> {
        self.parts.of(&file).last = true;
        self.flush_if_full(None).await
    }

    /// Lets the workers look, and plans what is missing in the target.
    pub(super) async fn survey(&mut self) -> Result<(), Error> {
        let Parts { parts, .. } = std::mem::take(&mut self.parts);
        if parts.is_empty() {
            return Ok(());
        }
        let parts = Arc::new(parts);
        let mut kept: Vec<Vec<bool>> = parts.iter().map(|part| vec![false; part.rows.len()]).collect();
        let (answers, mut answered) = tokio::sync::mpsc::unbounded_channel();
        for pieces in batches(&parts) {
            let (parts, answers) = (Arc::clone(&parts), answers.clone());
            self.run.push(Job::Survey(Survey { parts, pieces, answers }));
        }
        drop(answers);
        while let Some((piece, stands)) = answered.recv().await {
            if let Some(rows) = kept.get_mut(piece.part).and_then(|part| part.get_mut(piece.rows)) {
                rows.copy_from_slice(&stands);
            }
        }
        if self.run.stopped() {
            return Ok(());
        }
        for (part, kept) in parts.iter().zip(kept) {
            self.plan_part(part, &kept).await?;
        }
        Ok(())
    }

    async fn plan_part(&mut self, part: &Part, kept: &[bool]) -> Result<(), Error> {
        let file = &part.file;
        if file.takes_content() && !file.is_settled() {
            let missing = || part.rows.iter().zip(kept).filter(|(_, kept)| !**kept).map(|(row, _)| *row);
            file.left.fetch_add(u32::try_from(missing().count()).unwrap_or(u32::MAX), Ordering::Relaxed);
            let mut number = None;
            for row in missing() {
                self.plan_row((file, &mut number), row).await?;
            }
        }
        if part.last && !self.dry() {
            self.tasks.push(Task::Release(Arc::clone(file)));
        }
        if part.last && self.dry() && matches!(file.judged.get(), Some(Judged::Stays)) {
            let tally = &self.run.tally;
            tally.entries.fetch_sub(1, Ordering::Relaxed);
            tally.files.fetch_sub(1, Ordering::Relaxed);
            tally.left.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }
}
