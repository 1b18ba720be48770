//! The walk over the snapshot: it decides what is restored, and hands it on in windows.

mod files;
mod surveys;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::mpsc::Sender;

use super::entries::{DAMAGED, Dir, File, Meta, OwnerNames};
use super::fetch::Pace;
use super::flaw::Flaw;
use super::links::Linking;
use super::run::{EntryProblem, Job, Late, Run, Task, lock};
use super::select::{Choice, choose, choose_root};
use super::window::{Builder, Lost, Window};
use crate::class::Class;
use crate::error::Error;
use crate::filter::Filter;
use crate::format::content::ChunkRow;
use crate::format::node::{Node, NodeKind};
use crate::index::View;
use crate::ops::tree::{DirCursor, Item, Lookup, OpenedKeys, TreeReader};
use crate::source::target::NodeKind as SpecialKind;

/// Directories on the way down that keep their page; those above read theirs again.
const PAGES_KEPT: usize = 32;
/// Tasks that a worker takes at once.
const TASKS: usize = 64;
/// Entries that may be on their way when the walk goes on to the next window. A tree of tiny files is walked faster than it is
/// made.
const UNDER_WAY: usize = 1 << 14;
/// The bridge gets its turn after this many entries.
const TURN: usize = 32;

/// Bounds of a window.
#[derive(Debug, Clone, Copy)]
pub(super) struct WindowBounds {
    /// Entries and chunks of the first one; small, so that workers begin early.
    pub(super) first: usize,
    /// Entries and chunks of all later ones.
    pub(super) most: usize,
}

/// A directory the walk is inside.
struct Frame {
    dir: Arc<Dir>,
    cursor: DirCursor,
    /// What the rules say of it.
    choice: Choice,
    /// Length of its path.
    path: usize,
}

pub(super) struct Walk<'a> {
    lookup: &'a Lookup<'a>,
    pub(super) run: &'a Run,
    reader: TreeReader<'a>,
    filter: &'a Filter,
    pace: Pace,
    windows: Sender<Window>,
    /// Most of a window; grows to `most`.
    window: usize,
    most: usize,
    view: View,
    keys: OpenedKeys,
    generation: u64,
    builder: Builder,
    lost: Vec<Lost>,
    tasks: Vec<Task>,
    parts: surveys::Parts,
    names: Arc<OwnerNames>,
    stack: Vec<Frame>,
    path: Vec<u8>,
    /// Bytes that a dry run would fetch.
    pub(super) would_fetch: u64,
    /// And by how many requests.
    pub(super) would_ask: u64,
    /// How many components of paths below the target are left out.
    strip: usize,
    /// Names that stand directly in the target, if those of several directories come together there.
    taken: HashSet<Box<[u8]>>,
}

/// The file whose rows are being planned.
struct Open {
    file: Arc<File>,
    /// Its number in the window under construction.
    number: Option<u32>,
    /// Wants since the last window.
    wants: u32,
    at: u64,
}

impl<'a> Walk<'a> {
    pub(super) fn new(
        (lookup, run): (&'a Lookup<'a>, &'a Run),
        mut reader: TreeReader<'a>,
        (filter, strip): (&'a Filter, usize),
        (pace, bounds): (Pace, WindowBounds),
        windows: Sender<Window>,
    ) -> Self {
        if !lookup.repo().store().is_local() {
            // All of the tree is read, so whole packs of it cost the fewest requests.
            reader.read_ahead(u64::from(pace.shape.request_max));
        }
        Self {
            lookup,
            run,
            reader,
            filter,
            pace,
            windows,
            window: bounds.first,
            most: bounds.most,
            generation: lookup.generation(),
            view: lookup.view(),
            keys: lookup.opened_keys(),
            builder: Builder::default(),
            lost: Vec::new(),
            tasks: Vec::new(),
            parts: surveys::Parts::default(),
            names: Arc::default(),
            stack: Vec::new(),
            path: Vec::new(),
            would_fetch: 0,
            would_ask: 0,
            strip,
            taken: HashSet::new(),
        }
    }

    /// Restores all entries of a directory whose stored path is `path`, as rules see it.
    pub(super) async fn directory(
        &mut self,
        root: Arc<Dir>,
        cursor: DirCursor,
        path: Vec<u8>,
    ) -> Result<(), Error> {
        let choice = choose_root(self.filter, &path);
        self.run.begin();
        self.stack.push(Frame { dir: root, cursor, choice, path: path.len() });
        self.path = path;
        let mut turn = 0;
        while let Some(frame) = self.stack.last_mut() {
            if self.run.stopped() {
                return Ok(());
            }
            match frame.cursor.next(&mut self.reader).await? {
                None => self.leave().await?,
                Some(Item::Damaged(error)) => {
                    let path = frame.dir.path_of(b"");
                    self.run.report_damaged(path, &error);
                }
                Some(Item::Node(node)) => self.entry(node).await?,
            }
            turn += 1;
            if turn % TURN == 0 {
                tokio::task::yield_now().await;
            }
        }
        self.finish().await
    }

    /// Restores a single entry into `root`.
    pub(super) async fn single(&mut self, root: Arc<Dir>, node: Box<Node>) -> Result<(), Error> {
        self.run.begin();
        if self.run.is_saved(&root, &node) {
            root.hold();
            self.count_dry(&root, &node);
            let linking = self.run.linking(&root, node);
            self.make(&root, linking).await?;
        }
        self.push(Task::Leave(root)).await?;
        self.finish().await
    }

    async fn leave(&mut self) -> Result<(), Error> {
        let Some(frame) = self.stack.pop() else { return Ok(()) };
        self.path.truncate(self.stack.last().map_or(0, |above| above.path));
        self.push(Task::Leave(frame.dir)).await
    }

    /// Whether nothing is to be written.
    fn dry(&self) -> bool {
        self.run.policy.dry
    }

    /// Hands a task on; what it stands for was begun.
    pub(super) async fn push(&mut self, task: Task) -> Result<(), Error> {
        self.tasks.push(task);
        self.flush_if_full(None).await
    }

    async fn entry(&mut self, node: Box<Node>) -> Result<(), Error> {
        let Some(frame) = self.stack.last() else { return Ok(()) };
        let parent = Arc::clone(&frame.dir);
        if matches!(node.name.as_slice(), b"." | b"..")
            || node.name.iter().any(|byte| matches!(byte, b'/' | 0))
        {
            self.run.report_damaged(parent.path_of(&node.name), &Flaw::UnsafeName);
            return Ok(());
        }
        let is_dir = node.kind == NodeKind::Directory;
        let mut choice = frame.choice;
        if !self.filter.is_empty() {
            self.path.truncate(frame.path);
            self.path.push(b'/');
            self.path.extend_from_slice(&node.name);
            choice = choose(self.filter, &self.path, is_dir, choice);
            if choice == Choice::Out {
                return Ok(());
            }
        }
        if !self.run.is_saved(&parent, &node) {
            return Ok(());
        }
        let stripped = self.stack.len() <= self.strip;
        if self.stack.len() == self.strip + 1
            && self.strip > 0
            && !self.taken.insert(node.name.as_slice().into())
        {
            self.run.report_failed(parent.path_of(&node.name), &EntryProblem::Taken, Class::Failed);
            return Ok(());
        }
        if is_dir {
            self.enter(&parent, node, (choice, stripped));
            return Ok(());
        }
        if stripped {
            return Ok(());
        }
        self.count_dry(&parent, &node);
        parent.hold();
        let linking = self.run.linking(&parent, node);
        self.make(&parent, linking).await
    }

    /// Counts an entry that would be made.
    fn count_dry(&self, dir: &Dir, node: &Node) {
        if self.dry() {
            self.run.report_done(|| dir.path_of(&node.name), node.kind == NodeKind::File);
        }
    }

    fn enter(&mut self, parent: &Arc<Dir>, mut node: Box<Node>, (choice, stripped): (Choice, bool)) {
        let meta = Meta::take(&mut node, &mut self.names);
        let cursor = DirCursor::new(node.tree);
        if let Some(parked) = self.stack.len().checked_sub(PAGES_KEPT)
            && let Some(frame) = self.stack.get_mut(parked)
        {
            frame.cursor.park();
        }
        let path = self.path.len();
        let dir = match stripped {
            true => Dir::stripped(Arc::clone(parent), node.name),
            false => Dir::new(Some(Arc::clone(parent)), node.name, (Some(meta), choice == Choice::Leads)),
        };
        if self.dry() && choice == Choice::In && !stripped {
            self.run.report_done(|| dir.path_of(b""), false);
        }
        self.run.begin();
        self.stack.push(Frame { dir, cursor, choice, path });
    }

    /// Makes an entry, whose directory is held for it.
    async fn make(&mut self, dir: &Arc<Dir>, linking: Linking) -> Result<(), Error> {
        let (mut node, link) = match linking {
            Linking::Make(node, link) => (node, link),
            Linking::Later(None) => return Ok(()),
            Linking::Later(Some(task)) => {
                self.run.begin();
                return self.push(task).await;
            }
        };
        let special = match node.kind {
            NodeKind::File => return self.file(dir, node, link).await,
            NodeKind::Symlink => None,
            NodeKind::Fifo => Some(SpecialKind::Fifo),
            NodeKind::Socket => Some(SpecialKind::Socket),
            NodeKind::CharDevice => Some(SpecialKind::CharDevice(node.rdev)),
            NodeKind::BlockDevice => Some(SpecialKind::BlockDevice(node.rdev)),
            NodeKind::Directory | NodeKind::Unknown => {
                let path = dir.path_of(&node.name);
                self.run.report_failed(path, &Flaw::Unsaved, Class::Partial);
                if let Some(number) = link {
                    self.run.settle_link(number, None);
                }
                self.run.leave(dir);
                return Ok(());
            }
        };
        let meta = Meta::take(&mut node, &mut self.names);
        let (dir, name, target) = (Arc::clone(dir), node.name.into_boxed_slice(), node.target);
        self.run.begin();
        self.push(match special {
            Some(kind) => Task::Special { dir, name, kind, meta, link },
            None => Task::Symlink { dir, name, target, meta, link },
        })
        .await
    }

    async fn flush_if_full(&mut self, open: Option<&mut Open>) -> Result<(), Error> {
        let window = self.window;
        let surveyed = self.parts.rows().max(self.parts.files()) >= window;
        if surveyed {
            // What is missing waits for more, so that no segment is fetched for each survey that wants a little of it.
            self.survey().await?;
        }
        let full = self.builder.len() + self.lost.len() >= window || self.tasks.len() >= window;
        if full {
            self.flush(open).await?;
        }
        if surveyed || full {
            self.window = (window * 2).min(self.most);
        }
        Ok(())
    }

    /// Sends the window on. `open` is a file that goes on in the next one.
    async fn flush(&mut self, open: Option<&mut Open>) -> Result<(), Error> {
        if let Some(open) = open {
            open.file.left.fetch_add(open.wants, Ordering::Relaxed);
            (open.wants, open.number) = (0, None);
        }
        self.survey().await?;
        if self.dry() {
            return self.count_window().await;
        }
        for window in self.builder.finish(self.pace.shape, self.pace.open_max) {
            // Nobody takes it any more only if the run ends early.
            let _ = self.windows.send(window).await;
        }
        self.run.lose(std::mem::take(&mut self.lost));
        let mut tasks = std::mem::take(&mut self.tasks);
        while !tasks.is_empty() {
            let rest = tasks.split_off(TASKS.min(tasks.len()));
            self.run.push(Job::Tasks(std::mem::replace(&mut tasks, rest)));
        }
        // The directories the walk is inside end with it.
        self.run.room(UNDER_WAY + self.stack.len()).await;
        self.renew_view();
        Ok(())
    }

    /// Takes over an index that was loaded again.
    fn renew_view(&mut self) {
        if self.generation != self.lookup.generation() {
            self.generation = self.lookup.generation();
            self.view = self.lookup.view();
            self.keys = self.lookup.opened_keys();
        }
    }

    /// What a dry run does with a window.
    async fn count_window(&mut self) -> Result<(), Error> {
        for window in self.builder.finish(self.pace.shape, self.pace.open_max) {
            self.would_fetch += window.plan.fetched();
            self.would_ask += window.plan.fetches.len() as u64;
            self.run.tally.chunks.fetch_add(window.plan.wants.len() as u64, Ordering::Relaxed);
            let bytes = window.plan.wants.iter().map(|want| u64::from(want.len)).sum();
            self.run.tally.bytes.fetch_add(bytes, Ordering::Relaxed);
        }
        self.tasks.clear();
        let lost = std::mem::take(&mut self.lost);
        if !lost.is_empty() {
            self.lookup.reload(self.generation).await?;
            self.renew_view();
        }
        for Lost { chunk, len, wanted, .. } in lost {
            let found = self.find(&ChunkRow { id: chunk, len }).await?.is_some();
            for (file, _) in wanted {
                if !found && file.state.swap(DAMAGED, Ordering::Relaxed) != DAMAGED {
                    self.run.report_damaged(file.path(), &Flaw::Lost);
                }
            }
        }
        Ok(())
    }

    /// Sends the rest on, and waits until all is done; what could not be linked is made then.
    async fn finish(&mut self) -> Result<(), Error> {
        loop {
            self.flush(None).await?;
            if self.dry() {
                return Ok(());
            }
            while !self.run.is_idle() {
                if self.run.stopped() {
                    return Ok(());
                }
                self.run.idle.notified().await;
            }
            let late = std::mem::take(&mut *lock(&self.run.late));
            if late.is_empty() || self.run.stopped() {
                return Ok(());
            }
            for Late { dir, node, alone } in late {
                let linking = if alone { Linking::Make(node, None) } else { self.run.linking(&dir, node) };
                self.make(&dir, linking).await?;
            }
        }
    }
}
