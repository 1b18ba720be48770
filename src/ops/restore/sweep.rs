//! Removing from the target what the snapshot does not hold.
//!
//! # Invariants
//! Only in directories that were saved and are restored as a whole: not above the sources of the snapshot, not where rules
//! select single entries, not where a page of the directory is damaged or it could not be saved as it was, not where stripped
//! directories come together, nor where something is mounted, of which a backup may have saved the empty directory alone.
//! What rules leave out stays, and so do the repository and what the program keeps on this machine, which no backup holds.
//! A directory goes to make way only for what is restored. Names that the snapshot holds are kept as hashes under a random
//! key, eight bytes a name: two that agree keep an entry, never remove one.
//!
//! # Crash
//! What was removed is gone, the rest is there; removing again goes on. It comes after everything was restored.

use std::collections::HashSet;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::RestoreOptions;
use super::entries::{Meta, as_path};
use super::prepare;
use super::run::Run;
use super::select::{Choice, choose, choose_root};
use crate::error::Error;
use crate::event::{EntryChange, Event};
use crate::filter::Verdict;
use crate::format::node::{Node, NodeKind, Problem};
use crate::format::tree::TreeRef;
use crate::ops::tree::{DirCursor, Item, Lookup};
use crate::repo::RepoError;
use crate::source::target::{Overwrite, Removal, Target, TargetDir, TargetError};

/// So few may go without a word, however little is restored.
const FEW: u64 = 10;
/// Directories on the way down that keep their page; those above read theirs again.
const PAGES_KEPT: usize = 32;

/// What a walk over the target does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Counts what would go.
    Count,
    /// Removes directories that stand where the snapshot has something else.
    Conflicts,
    /// Removes what the snapshot does not hold.
    Extras,
}

/// Entries that are to go, or went.
#[derive(Debug, Clone, Copy, Default)]
struct Found {
    extras: u64,
    conflicts: u64,
    /// Entries of the snapshot that are restored.
    restored: u64,
}

/// A directory that both the snapshot and the target have.
struct Frame {
    cursor: DirCursor,
    dir: TargetDir,
    choice: Choice,
    /// Length of its path.
    path: usize,
    /// Everything in it is known, and all of it is restored.
    whole: bool,
    /// The names the snapshot holds, hashed, and under which a directory may stay.
    names: Vec<(u64, bool)>,
    meta: Option<Meta>,
}

/// How far a walk over the target has come.
#[derive(Default)]
struct Tour {
    /// Stored path of what it is at.
    path: Vec<u8>,
    found: Found,
    /// Names, hashed, that stand directly in the target, if those of several directories come together there: the first has it.
    taken: HashSet<u64>,
}

pub(super) struct Sweep<'a> {
    lookup: &'a Lookup<'a>,
    run: Arc<Run>,
    options: Arc<RestoreOptions>,
    /// The directory of the snapshot, with its path.
    tree: Option<TreeRef>,
    root: Vec<u8>,
    /// It was saved as it was.
    sound: bool,
    /// Directories that stay, wherever they lie.
    own: Arc<HashSet<(u64, u64)>>,
    hasher: RandomState,
}

impl<'a> Sweep<'a> {
    pub(super) fn new(
        lookup: &'a Lookup<'a>,
        (run, options): (&Arc<Run>, &Arc<RestoreOptions>),
        (tree, root): (Option<TreeRef>, Vec<u8>),
        sound: bool,
    ) -> Self {
        let (run, options) = (Arc::clone(run), Arc::clone(options));
        let own = Arc::new(prepare::own_dirs(lookup.repo()));
        Self { lookup, run, options, tree, root, sound, own, hasher: RandomState::new() }
    }

    /// Counts what would go, and refuses if that is more than what is restored. Clears directories out of the way of other
    /// entries, unless nothing is to be written.
    pub(super) async fn before(&self) -> Result<u64, Error> {
        let found = self.walk(Mode::Count).await?;
        let removed = found.extras + found.conflicts;
        if removed > found.restored.max(FEW) && !self.options.yes && !self.run.policy.dry {
            return Err(Error::ManyDeleted { removed, restored: found.restored });
        }
        if found.conflicts > 0 && !self.run.policy.dry {
            self.walk(Mode::Conflicts).await?;
        }
        Ok(removed)
    }

    /// Removes what the snapshot does not hold.
    pub(super) async fn after(&self) -> Result<(), Error> {
        self.walk(Mode::Extras).await.map(|_| ())
    }

    async fn walk(&self, mode: Mode) -> Result<Found, Error> {
        let mut tour = Tour { path: self.root.clone(), ..Tour::default() };
        // Who only counts may not even make a directory usable.
        let looking = match mode {
            Mode::Count => prepare::standing(&self.options)?,
            _ => None,
        };
        let Some(target) = looking.as_ref().or(self.run.directory()) else { return Ok(tour.found) };
        let mut reader = self.lookup.reader()?;
        let choice = choose_root(&self.options.filter, &tour.path);
        let mut top = self.frame((self.tree, None), target.root(), choice, (&tour.path, 0));
        top.whole &= self.sound;
        let mut stack = vec![top];
        while let Some(frame) = stack.last_mut() {
            self.go_on()?;
            tour.path.truncate(frame.path);
            match frame.cursor.next(&mut reader).await? {
                None => {
                    if let Some(frame) = stack.pop() {
                        self.settle(frame, &mut tour, mode).await?;
                    }
                }
                Some(Item::Damaged(_)) => frame.whole = false,
                Some(Item::Node(node)) => {
                    // What is missing in it may have been there.
                    let sound = node.problem.is_none();
                    let below = self.entry(target, frame, *node, &mut tour);
                    let Some((tree, meta, dir, choice)) = below else { continue };
                    let level = stack.len();
                    if let Some(parked) = level.checked_sub(PAGES_KEPT)
                        && let Some(frame) = stack.get_mut(parked)
                    {
                        frame.cursor.park();
                    }
                    let mut frame = self.frame((tree, Some(meta)), dir, choice, (&tour.path, level));
                    frame.whole &= sound;
                    stack.push(frame);
                }
            }
        }
        // It may have been stopped in the last directory.
        self.go_on()?;
        Ok(tour.found)
    }

    fn go_on(&self) -> Result<(), Error> {
        match self.run.stopped() {
            true => Err(self.run.failure().unwrap_or(Error::Cancelled)),
            false => Ok(()),
        }
    }

    fn frame(
        &self,
        (tree, meta): (Option<TreeRef>, Option<Meta>),
        dir: TargetDir,
        choice: Choice,
        (path, level): (&[u8], usize),
    ) -> Frame {
        let strip = self.options.strip;
        let whole = choice == Choice::In
            && self.was_saved(path)
            && (strip == 0 || level > strip)
            && dir.is_mount().is_ok_and(|mount| !mount);
        Frame { cursor: DirCursor::new(tree), dir, choice, path: path.len(), whole, names: Vec::new(), meta }
    }

    /// Whether a directory is a source of the snapshot, or below one: those above hold what leads there, nothing more.
    fn was_saved(&self, path: &[u8]) -> bool {
        self.options.snapshot.snapshot.paths.iter().any(|source| {
            let source = source.strip_suffix(b"/").unwrap_or(source);
            path.strip_prefix(source).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
        })
    }

    /// Notes an entry of the snapshot; what is to be entered comes back.
    fn entry(
        &self,
        target: &Target,
        frame: &mut Frame,
        mut node: Node,
        tour: &mut Tour,
    ) -> Option<(Option<TreeRef>, Meta, TargetDir, Choice)> {
        let Tour { path, found, taken } = tour;
        let is_dir = node.kind == NodeKind::Directory;
        path.push(b'/');
        path.extend_from_slice(&node.name);
        let choice = choose(&self.options.filter, path, is_dir, frame.choice);
        let made = choice != Choice::Out
            && node.problem != Some(Problem::Unreadable)
            && node.kind != NodeKind::Unknown
            && self.options.overwrite != Overwrite::Never;
        let name = self.hasher.hash_one(node.name.as_slice());
        frame.names.push((name, is_dir || !made));
        if choice == Choice::Out {
            return None;
        }
        let level = path[self.root.len()..].iter().filter(|byte| **byte == b'/').count();
        let strip = self.options.strip;
        if strip > 0 && level == strip + 1 && !taken.insert(name) {
            // It is not restored, and what stands there is of another directory.
            return None;
        }
        found.restored += u64::from(choice == Choice::In);
        if !is_dir {
            return None;
        }
        let dir = match level <= strip {
            true => Some(frame.dir.clone()),
            false => target.enter_dir(&frame.dir, &node.name).ok().flatten(),
        };
        let Some(dir) = dir.filter(|dir| !self.own.contains(&dir.inode())) else {
            found.restored = found.restored.saturating_add(node.totals.entries);
            return None;
        };
        Some((node.tree, Meta::take(&mut node, &mut Arc::default()), dir, choice))
    }

    /// Holds the names in a directory of the target against those of the snapshot.
    async fn settle(&self, mut frame: Frame, tour: &mut Tour, mode: Mode) -> Result<(), Error> {
        if !frame.whole {
            return Ok(());
        }
        frame.names.sort_unstable();
        let (run, options, hasher) = (Arc::clone(&self.run), Arc::clone(&self.options), self.hasher.clone());
        let (own, path) = (Arc::clone(&self.own), tour.path.clone());
        let is_root = path == self.root;
        let settled = tokio::task::spawn_blocking(move || {
            let mut remover = Remover { run: &run, options: &options, own: &own, path, mode, gone: 0 };
            remover.sweep(&frame, &hasher, is_root)
        });
        let (extras, conflicts) = settled.await.map_err(|_| RepoError::Task)?;
        tour.found.extras += extras;
        tour.found.conflicts += conflicts;
        Ok(())
    }
}

/// Removes in one directory.
struct Remover<'a> {
    run: &'a Run,
    options: &'a RestoreOptions,
    own: &'a HashSet<(u64, u64)>,
    /// Path of the directory.
    path: Vec<u8>,
    mode: Mode,
    gone: u64,
}

impl Remover<'_> {
    /// Returns how many entries the snapshot does not hold, and how many stand in the way of others.
    fn sweep(&mut self, frame: &Frame, hasher: &RandomState, is_root: bool) -> (u64, u64) {
        let Some(target) = self.run.directory() else { return (0, 0) };
        let names = match target.list(&frame.dir) {
            Ok(names) => names,
            Err(error) => {
                self.run.report_refused(self.path.clone(), error);
                return (0, 0);
            }
        };
        let (mut extras, mut conflicts) = (0, 0);
        for (name, is_dir) in names {
            let hash = hasher.hash_one(&*name);
            let at = frame.names.partition_point(|(known, _)| *known < hash);
            let held = frame.names.get(at).filter(|(known, _)| *known == hash);
            let (counter, wanted) = match held {
                None => (&mut extras, self.mode != Mode::Conflicts),
                Some((_, false)) if is_dir => (&mut conflicts, self.mode != Mode::Extras),
                Some(_) => continue,
            };
            // What the file system itself has there is nobody's to remove.
            if !wanted || (is_root && &*name == b"lost+found") {
                continue;
            }
            self.gone = 0;
            target.remove(&frame.dir, &name, self);
            *counter += self.gone;
        }
        let touched = extras + conflicts > 0 && !self.pretend();
        if let (true, Some(meta)) = (touched, &frame.meta) {
            match target.finish_dir(&frame.dir, &meta.as_metadata()) {
                Ok(unset) => self.run.report_unset(|| self.path.clone(), &unset),
                Err(error) => self.run.report_refused(self.path.clone(), error),
            }
        }
        (extras, conflicts)
    }

    fn full_path(&self, path: &[u8]) -> Vec<u8> {
        [&self.path, &b"/"[..], path].concat()
    }
}

impl Removal for Remover<'_> {
    fn stays(&self, path: &[u8], is_dir: bool) -> bool {
        let filter = &self.options.filter;
        self.run.stopped()
            || (!filter.is_empty() && filter.matches(&self.full_path(path), is_dir) != Verdict::Keep)
    }

    fn is_kept(&self, dir: (u64, u64)) -> bool {
        self.own.contains(&dir)
    }

    fn pretend(&self) -> bool {
        self.mode == Mode::Count
    }

    fn removed(&mut self, path: &[u8]) {
        self.gone += 1;
        let dry = self.run.policy.dry;
        if self.pretend() && !dry {
            return;
        }
        self.run.tally.removed.fetch_add(1, Ordering::Relaxed);
        if self.run.wants_entries {
            let path = as_path(self.full_path(path));
            self.run.observer.observe(&Event::Entry { path: &path, change: EntryChange::Removed });
        }
    }

    fn failed(&mut self, path: &[u8], error: TargetError) {
        if !self.pretend() {
            self.run.report_refused(self.full_path(path), error);
        }
    }
}
