//! The threads of a pass: the workers, and the one that gives them work and puts the tree together.

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex};

use super::assemble::Assembler;
use super::last::LastRun;
use super::merge::{Merge, Parts, Tally};
use super::options::{Databases, SavedStream};
use super::run::{Begin, Begun};
use super::sink::{Segmenter, Sink};
use super::state::StateWriter;
use super::stream::{self, StreamPlan, Streams};
use super::worker::{self, Cutters, Job, Outcome};
use crate::crypto::context;
use crate::error::Error;
use crate::format::envelope::ChunkKind;
use crate::format::node::Totals;
use crate::format::tree::TreeRef;
use crate::repo::Repository;
use crate::source::SourceError;
use crate::source::file::Holes;

/// What the threads of a pass give back.
pub(super) struct Built {
    pub root: Option<TreeRef>,
    pub totals: Totals,
    pub tally: Tally,
    pub state: Option<StateWriter>,
    pub missing: Vec<PathBuf>,
    pub excluded: u64,
    pub streams: Vec<SavedStream>,
}

/// Files that are to be saved.
pub(super) struct Files {
    pub begin: Begin,
    pub last: LastRun,
    pub holes: Holes,
    pub databases: Databases,
    pub streams: StreamPlan,
}

/// Closes the bridge also when a thread panics: the other side waits until it is closed.
struct CloseOnDrop<'a>(&'a Sink);

impl Drop for CloseOnDrop<'_> {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// Keys and numbers the threads need, taken from the repository before they start.
pub(super) struct ThreadPlan {
    pub workers: usize,
    pub cutters: Cutters,
    pub boundary: crate::crypto::SecretKey,
    hard_links: Arc<crate::crypto::SecretKey>,
}

impl ThreadPlan {
    pub(super) fn new(repo: &Repository) -> Result<Self, Error> {
        Ok(Self {
            workers: repo.env().limits.workers.max(1),
            cutters: Cutters { files: repo.cutter()?, images: repo.image_cutter()? },
            hard_links: Arc::new(repo.dedup_key(context::HARD_LINK)?),
            boundary: repo.dedup_key(context::PAGE_BOUNDARY)?,
        })
    }

    /// Runs the pass and closes the bridge, whatever happens.
    pub(super) fn run(
        self,
        sink: &Sink,
        work: impl FnOnce(&Self, &Sink) -> Result<Built, Error>,
    ) -> Result<Built, Error> {
        let _close = CloseOnDrop(sink);
        let built = work(&self, sink);
        // A run that was asked to stop still sends on what it has: the next one need not send it again.
        let interrupted = matches!(built, Err(Error::Cancelled | Error::Source(SourceError::Cancelled)));
        let sent = if built.is_ok() || interrupted { sink.finish() } else { Ok(()) };
        if interrupted {
            return Err(Error::Cancelled);
        }
        let built = built?;
        sent.map(|()| built)
    }

    pub(super) fn files(
        &self,
        sink: &Sink,
        Files { begin, last, holes, databases, streams }: Files,
        state: Option<StateWriter>,
    ) -> Result<Built, Error> {
        self.with_workers(sink, |jobs, answers| {
            let mut assembler =
                Assembler::new(self.boundary.clone(), Segmenter::new(sink, ChunkKind::Tree), state);
            let hard_links = Arc::clone(&self.hard_links);
            let (cutter, workers) = (self.cutters.files.clone(), self.workers);
            let reading = Streams { sink, cutter, workers, jobs: &jobs, answers: &answers };
            let streams = reading.save(&streams, assembler.pages())?;
            let saved = stream::summaries(&streams);
            let Begun { walk, images, missing } = begin()?;
            let parts = Parts {
                sink,
                walk,
                last,
                hard_links,
                holes,
                images,
                databases,
                streams,
                jobs,
                answers,
                assembler,
            };
            let (assembler, walk, tally, answers) = Merge::new(parts).run()?;
            let (root, totals, state) = assembler.finish()?;
            let excluded = walk.stats();
            let excluded = excluded.by_rules + excluded.too_large + excluded.in_caches;
            Ok((Built { root, totals, tally, state, missing, excluded, streams: saved }, answers))
        })
    }

    /// Starts the workers for `feed`, which ends their work by dropping its side of the jobs; they then seal what they
    /// have.
    pub(super) fn with_workers(
        &self,
        sink: &Sink,
        feed: impl FnOnce(SyncSender<Job>, Receiver<Outcome>) -> Result<(Built, Receiver<Outcome>), Error>,
    ) -> Result<Built, Error> {
        let (jobs, todo) = sync_channel(64);
        let (answers_in, answers) = channel();
        let todo = Mutex::new(todo);
        std::thread::scope(|scope| {
            for _ in 0..self.workers {
                let (cutters, links) = (self.cutters.clone(), Arc::clone(&self.hard_links));
                let (todo, answers) = (&todo, answers_in.clone());
                scope.spawn(move || worker::work(sink, (cutters, links), todo, &answers));
            }
            drop(answers_in);
            let (built, answers) = feed(jobs, answers)?;
            // What the workers say at the end is said by hanging up, or by an error.
            while let Ok(last) = answers.recv() {
                if let Outcome::Broken(error) = last {
                    return Err(error);
                }
            }
            Ok(built)
        })
    }
}
