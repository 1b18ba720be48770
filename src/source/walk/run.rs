//! The consumer's side of a walk.

use std::sync::Arc;
use std::thread::JoinHandle;

use super::dir::{Dir, Window};
use super::entry::Entry;
use super::list::{self, Job, Scratch};
use super::queue::{Listing, Next, Queue};
use super::roots::Roots;
use super::spill::Spill;
use super::{Context, Counts, Failure, Item, WalkOptions, WalkStats};
use crate::cancel::Cancel;
use crate::source::error::SourceError;

/// A walk over the sources of a backup.
#[derive(Debug)]
pub struct Walk {
    shared: Arc<Shared>,
    helpers: Vec<JoinHandle<()>>,
    stack: Vec<Frame>,
    /// How many directories at the top of the stack have not been shown, because nothing in them is included so far.
    unshown: usize,
    /// Items that wait behind such directories.
    due: std::collections::VecDeque<Item>,
    scratch: Scratch,
    cancel: Cancel,
}

#[derive(Debug)]
struct Shared {
    queue: Queue,
    context: Context,
}

/// A directory the walk is in.
#[derive(Debug)]
struct Frame {
    entry: Option<Entry>,
    listing: Option<Listing>,
    next: u32,
    next_failure: Option<(u32, Failure)>,
    next_sub: Option<(u32, Next)>,
}

impl Frame {
    fn new(entry: Option<Entry>, listing: Option<Listing>) -> Self {
        let mut frame = Self { entry, listing: None, next: 0, next_failure: None, next_sub: None };
        frame.load(listing);
        frame
    }

    fn load(&mut self, mut listing: Option<Listing>) {
        self.next = 0;
        self.next_failure = listing.as_mut().and_then(|listing| listing.failures.next());
        self.next_sub = listing.as_mut().and_then(|listing| listing.subs.next());
        self.listing = listing;
    }

    fn failure(&mut self) -> Option<Failure> {
        let (_, failure) = self.next_failure.take_if(|(index, _)| *index <= self.next)?;
        self.next_failure = self.listing.as_mut().and_then(|listing| listing.failures.next());
        Some(failure)
    }

    /// The next entry, and what to do if it is a directory.
    fn entry(&mut self) -> Option<(Entry, Option<Next>)> {
        let listing = self.listing.as_mut()?;
        let index = self.next;
        if index as usize >= listing.block.entries.len() {
            return None;
        }
        self.next += 1;
        let entry = Entry { block: Arc::clone(&listing.block), index };
        let next = self.next_sub.take_if(|(at, _)| *at == index).map(|(_, next)| next);
        if next.is_some() {
            self.next_sub = listing.subs.next();
        }
        Some((entry, next))
    }
}

/// What every thread will know, and the roots that cannot be looked at.
pub(super) fn context(options: WalkOptions) -> Result<(Context, Vec<SourceError>), SourceError> {
    let window = Window::new(options.tuning.open_dirs);
    let places = (&options.roots[..], &options.streams[..]);
    let (roots, failed) = Roots::new(places, &options.filter, &window)?;
    let context = Context {
        roots,
        filter: options.filter,
        one_file_system: options.one_file_system,
        exclude_caches: options.exclude_caches,
        exclude_larger_than: options.exclude_larger_than,
        skip_dirs: options.skip_dirs,
        spill: Arc::new(Spill::new(options.temp_dir)),
        names_held: Arc::default(),
        counts: Counts::default(),
        tuning: options.tuning,
    };
    Ok((context, failed))
}

/// Whether anything in a directory is delivered, or that it cannot be listed.
pub(super) fn delivers(context: Context, job: Job, cancel: Cancel) -> Result<bool, SourceError> {
    let mut walk = Walk::over(context, cancel);
    let output = list::run(&walk.shared.context, job, &mut walk.scratch);
    if output.error.is_some() {
        return Ok(true);
    }
    let listing = walk.shared.queue.begin(output);
    walk.stack.push(Frame::new(None, Some(listing)));
    Ok(walk.next()?.is_some())
}

impl Walk {
    /// Begins a walk. Roots that cannot be looked at come back as errors beside it and are left out; the caller decides
    /// what a missing root means. An error is a mistake in the options.
    pub fn new(options: WalkOptions) -> Result<(Self, Vec<SourceError>), SourceError> {
        let (cancel, threads) = (options.cancel.clone(), options.threads);
        let (context, failed) = context(options)?;
        let mut walk = Self::over(context, cancel);
        if !walk.shared.context.roots.is_empty() {
            let first = walk.shared.queue.begin(list::first(&walk.shared.context));
            walk.stack.push(Frame::new(None, Some(first)));
            walk.start_helpers(threads);
        }
        Ok((walk, failed))
    }

    /// A walk that has nothing to deliver yet.
    fn over(context: Context, cancel: Cancel) -> Self {
        let queue = Queue::new(context.tuning.lookahead);
        Self {
            shared: Arc::new(Shared { queue, context }),
            helpers: Vec::new(),
            stack: Vec::new(),
            unshown: 0,
            due: std::collections::VecDeque::new(),
            scratch: Scratch::new(),
            cancel,
        }
    }

    fn start_helpers(&mut self, threads: usize) {
        for _ in 0..threads {
            let shared = Arc::clone(&self.shared);
            let help = move || {
                let mut scratch = Scratch::new();
                shared.queue.help(|job| list::run(&shared.context, job, &mut scratch));
            };
            // Without helpers the walk is only slower.
            match std::thread::Builder::new().name("walk".to_owned()).spawn(help) {
                Ok(helper) => self.helpers.push(helper),
                Err(_) => return,
            }
        }
    }

    /// The next item, `None` at the end. [`SourceError::Cancelled`], and nothing else, comes as an error, so that a walk
    /// that was stopped cannot be taken for a complete one.
    #[expect(clippy::should_implement_trait, reason = "an iterator would invite to drop the error")]
    pub fn next(&mut self) -> Result<Option<Item>, SourceError> {
        loop {
            if self.cancel.is_raised() {
                return Err(SourceError::Cancelled);
            }
            if let Some(item) = self.due.pop_front() {
                return Ok(Some(item));
            }
            let Some(frame) = self.stack.last_mut() else { return Ok(None) };
            if let Some(failure) = frame.failure() {
                self.show(Item::Failed(failure));
            } else if let Some((entry, next)) = frame.entry() {
                match next {
                    None if self.unshown == 0 => return Ok(Some(Item::Entry(entry))),
                    None => self.show(Item::Entry(entry)),
                    Some(next) => self.enter(entry, next),
                }
            } else if let Some(rest) = frame.listing.as_mut().and_then(|listing| listing.rest.take()) {
                self.go_on(rest);
            } else {
                self.leave();
            }
        }
    }

    /// What was left out so far.
    pub fn stats(&self) -> WalkStats {
        self.shared.context.counts.read()
    }

    fn enter(&mut self, entry: Entry, next: Next) {
        let (mut listing, error, leads) = match next {
            Next::Task { task, leads } => (Some(self.obtain(task)), None, leads),
            Next::Empty => (None, None, false),
            Next::Failed(error) => (None, Some(error), false),
        };
        let error = error.or_else(|| listing.as_mut().and_then(|listing| listing.error.take()));
        if leads && error.is_none() {
            self.unshown += 1;
        } else {
            self.show(Item::Enter { entry: entry.clone(), error });
        }
        self.stack.push(Frame::new(Some(entry), listing));
    }

    fn obtain(&mut self, task: u32) -> Listing {
        let Shared { queue, context } = &*self.shared;
        queue.obtain(task, |job| list::run(context, job, &mut self.scratch))
    }

    fn go_on(&mut self, rest: u32) {
        let mut listing = self.obtain(rest);
        if let Some(error) = listing.error.take() {
            let dir = Arc::clone(&listing.block.dir);
            self.show(Item::Failed(Failure { dir, name: Box::from(&b"."[..]), error }));
        }
        if let Some(frame) = self.stack.last_mut() {
            frame.load(Some(listing));
        }
    }

    fn leave(&mut self) {
        let Some(frame) = self.stack.pop() else { return };
        if let Some(listing) = &frame.listing {
            Dir::reopen_parent(&listing.block.dir);
        }
        // The frame at the bottom stands for no directory.
        if frame.entry.is_none() {
            return;
        }
        if self.unshown > 0 {
            self.unshown -= 1;
        } else {
            self.due.push_back(Item::Leave);
        }
    }

    /// Queues an item, and before it the directories that lead to it.
    fn show(&mut self, item: Item) {
        let first = self.stack.len() - self.unshown;
        for frame in &self.stack[first..] {
            if let Some(entry) = &frame.entry {
                self.due.push_back(Item::Enter { entry: entry.clone(), error: None });
            }
        }
        self.unshown = 0;
        self.due.push_back(item);
    }
}

impl Drop for Walk {
    fn drop(&mut self) {
        self.shared.queue.stop();
        for helper in self.helpers.drain(..) {
            // A panic of a helper has already reached the consumer.
            let _ = helper.join();
        }
    }
}
