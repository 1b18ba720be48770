//! What the workers do: open segments, compare ids, write, make entries, set metadata.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use super::entries::{DAMAGED, Dir, FAILED, File, Judged, MISFIT, Meta};
use super::flaw::Flaw;
use super::output::{Output, Place};
use super::run::{EntryProblem, Job, Late, Run, Task, lock};
use super::window::Window;
use crate::class::Class;
use crate::crypto::chunk_id;
use crate::error::Error;
use crate::event::Counters;
use crate::format::envelope::ChunkKind;
use crate::repo::RepoError;
use crate::seal::SegmentOpener;
use crate::source::target::{
    LinkSource, Metadata, MetadataFailure, Overwrite, Target, TargetDir, TargetError,
};

/// A worker that panics must not leave the others waiting.
struct StopOnPanic<'a>(&'a Run);

impl Drop for StopOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.fail(Error::Repo(RepoError::Task));
        }
    }
}

/// Works until there is no more to do.
pub(super) fn work(run: &Run) {
    let _guard = StopOnPanic(run);
    let opener = SegmentOpener::new(run.repository);
    let mut opener = match opener {
        Ok(opener) => opener,
        Err(error) => {
            run.fail(error.into());
            return;
        }
    };
    let mut plain = Vec::new();
    while let Some(job) = run.pop() {
        if run.stopped() {
            continue;
        }
        match job {
            Job::Segment { window, segment, stored, budget } => {
                run.segment((&window, segment), &stored, &mut opener, &mut plain);
                drop((stored, budget));
            }
            Job::Survey(survey) => run.survey(&survey, &mut plain),
            Job::Tasks(tasks) => {
                for task in tasks {
                    if run.stopped() {
                        break;
                    }
                    run.task(task);
                }
            }
        }
    }
}

impl Run {
    /// Opens a segment and gives each of its chunks to all that want it. What cannot be had is looked for elsewhere.
    fn segment(
        &self,
        (window, number): (&Window, usize),
        stored: &[u8],
        opener: &mut SegmentOpener,
        plain: &mut Vec<u8>,
    ) {
        let planned = &window.plan.segments[number];
        let source = &window.tables.sources[planned.segment as usize];
        let opened = opener.open(&source.key, &source.entry, stored, plain);
        if opened.is_err() {
            return self.lose(window.lost(number, planned.wants.clone()));
        }
        let wants = &window.plan.wants[planned.wants.clone()];
        let mut at = planned.wants.start;
        for group in wants.chunk_by(|a, b| a.offset == b.offset && a.chunk == b.chunk) {
            let these = at..at + group.len();
            at = these.end;
            let start = group[0].offset as usize;
            let chunk = plain.get(start..start + group[0].len as usize);
            let genuine =
                chunk.filter(|chunk| chunk_id(&self.id_key, ChunkKind::Data, chunk) == group[0].chunk);
            let Some(chunk) = genuine else {
                self.lose(window.lost(number, these));
                continue;
            };
            for want in group {
                let file = &window.tables.files[want.file as usize];
                self.write(file, chunk, want.at);
                self.done_with_chunk(file);
            }
        }
    }

    /// Writes a chunk into a file, which is made if this is the first one.
    fn write(&self, file: &File, chunk: &[u8], at: u64) {
        if !self.goes_on(file) {
            return;
        }
        let mut handle = file.handle.read().unwrap_or_else(PoisonError::into_inner);
        if handle.is_none() {
            drop(handle);
            if !self.create(file) {
                return;
            }
            handle = file.handle.read().unwrap_or_else(PoisonError::into_inner);
        }
        let Some(target) = handle.as_ref() else { return };
        let written = file.layout.pieces(at, chunk.len()).try_for_each(|(piece, offset)| {
            target.write_at(chunk.get(piece).unwrap_or_default(), offset, self.sparse)
        });
        match written {
            Ok(()) => {
                let bytes = chunk.len() as u64;
                self.tally.bytes.fetch_add(bytes, Ordering::Relaxed);
                self.tally.chunks.fetch_add(1, Ordering::Relaxed);
                Counters::add(&self.observer.counters().bytes, bytes);
            }
            Err(error) => {
                file.give_up(FAILED);
                self.report_refused(file.path(), error);
            }
        }
    }

    /// Makes the file unless another thread did; false if that failed, which is reported.
    fn create(&self, file: &File) -> bool {
        let mut handle = file.handle.write().unwrap_or_else(PoisonError::into_inner);
        if handle.is_some() {
            return true;
        }
        if !self.goes_on(file) {
            return false;
        }
        if let Some(Place::Device(device)) = &self.target {
            *handle = Some(Output::Device(Arc::clone(device)));
            return true;
        }
        let Some(target) = self.directory() else { return false };
        let Some(dir) = self.enter(&file.dir) else {
            file.give_up(FAILED);
            self.tally.failed.fetch_add(1, Ordering::Relaxed);
            return false;
        };
        let made = match file.kept() {
            // What is kept of it must be of the file that was compared.
            Some(kept) => target.open_standing(dir, &file.name, file.size).and_then(|found| match found {
                Some(found) if found.stood().is_some_and(|stood| stood.same_file(kept)) => Ok(found),
                _ => Err(dir.changed(&file.name)),
            }),
            None => target.create_file(dir, &file.name, file.size),
        }
        .map(Output::File);
        match made {
            Ok(made) => {
                *handle = Some(made);
                true
            }
            Err(error) => {
                file.give_up(FAILED);
                drop(handle);
                self.report_refused(file.path(), error);
                false
            }
        }
    }

    /// One chunk less to wait for; the last one finishes the file.
    pub(super) fn done_with_chunk(&self, file: &Arc<File>) {
        if file.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.finish_file(file);
            self.leave(&file.dir);
            self.end();
        }
    }

    fn finish_file(&self, file: &File) {
        let stays = matches!(file.judged.get(), Some(Judged::Stays));
        let whole =
            !self.stopped() && !stays && file.is_whole() && self.create(file) && self.reads_back(file);
        let handle = file.handle.write().unwrap_or_else(PoisonError::into_inner).take();
        let mut mixed = false;
        let source = match handle {
            Some(handle) if whole => self.set_file(file, handle),
            Some(handle) if self.stopped() => {
                // What cannot be removed now stands as an unfinished file.
                let _ = handle.abandon();
                None
            }
            Some(handle) => {
                mixed = handle.is_mixed();
                if let Err(error) = handle.discard() {
                    self.report_refused(file.path(), error);
                }
                None
            }
            None => None,
        };
        match file.state.load(Ordering::Relaxed) {
            DAMAGED if mixed => self.report_damaged(file.path(), &EntryProblem::Mixed),
            DAMAGED => self.report_damaged(file.path(), &self.loss()),
            MISFIT => self.report_damaged(file.path(), &Flaw::Size),
            _ if stays && file.is_whole() => self.report_left(|| file.path()),
            _ => {}
        }
        if let Some(number) = file.link {
            self.settle_link(number, source);
        }
    }

    /// Reads the file back, if that is wanted; a difference is reported.
    fn reads_back(&self, file: &File) -> bool {
        let Some(rows) = &file.rows else { return true };
        let handle = file.handle.read().unwrap_or_else(PoisonError::into_inner);
        let Some(target) = handle.as_ref() else { return false };
        if let Output::Device(device) = target
            && let Err(error) = device.settle()
        {
            file.give_up(FAILED);
            self.report_refused(file.path(), error);
            return false;
        }
        let (mut at, mut chunk) = (0, Vec::new());
        for row in lock(rows).iter() {
            chunk.resize(row.len as usize, 0);
            let read = file.layout.pieces(at, chunk.len()).try_for_each(|(piece, offset)| {
                target.read_at(chunk.get_mut(piece).unwrap_or_default(), offset)
            });
            at += u64::from(row.len);
            if let Err(error) = read {
                file.give_up(FAILED);
                self.report_refused(file.path(), error);
                return false;
            }
            if chunk_id(&self.id_key, ChunkKind::Data, &chunk) != row.id {
                file.give_up(FAILED);
                self.report_failed(file.path(), &EntryProblem::ReadBack, Class::Failed);
                return false;
            }
        }
        self.holes_read_back(file)
    }

    fn set_file(&self, file: &File, handle: Output) -> Option<LinkSource> {
        let meta = file.meta.as_metadata();
        let stale = self.may_be_stale(file, (&handle, &meta));
        let finished = self.settle_standing(file, &handle, &meta).and_then(|()| handle.finish(&meta));
        match finished {
            Ok((source, unset)) => {
                self.report_unset(|| file.path(), &unset);
                self.report_done(|| file.path(), true);
                if stale {
                    self.warn_of_stale(file);
                }
                source
            }
            Err(error) => {
                self.report_refused(file.path(), error);
                None
            }
        }
    }

    /// Makes a file that stood before what the snapshot wants, its content apart: holes, and no name that others have.
    fn settle_standing(&self, file: &File, handle: &Output, meta: &Metadata<'_>) -> Result<(), TargetError> {
        let Output::File(handle) = handle else { return Ok(()) };
        let Some(stood) = handle.stood() else { return Ok(()) };
        if !file.is_settled() {
            file.layout.holes().try_for_each(|hole| handle.clear(hole.start, hole.end - hole.start))?;
        }
        if stood.links < 2 {
            return Ok(());
        }
        // A name that the snapshot knows nothing of would change with it. As long as nothing changes, names that the
        // snapshot gives the same file stay together.
        let kept = file.link.is_some_and(|link| self.claim(stood.identity(), link));
        if kept && handle.is_untouched(meta)? { Ok(()) } else { handle.separate() }
    }

    /// The directory in the target, made now or before; `None` if it cannot be made, which was reported once.
    fn enter<'d>(&self, dir: &'d Dir) -> Option<&'d TargetDir> {
        if let Some(made) = dir.made.get() {
            return made.as_ref();
        }
        // Up to what stands already, then down again: a chain may be too long to recurse over.
        let mut missing = vec![dir];
        let mut above = dir.parent.as_deref();
        while let Some(parent) = above.filter(|parent| parent.made.get().is_none()) {
            missing.push(parent);
            above = parent.parent.as_deref();
        }
        while let Some(dir) = missing.pop() {
            dir.made.get_or_init(|| self.make_dir(dir));
        }
        dir.made.get()?.as_ref()
    }

    fn make_dir(&self, dir: &Dir) -> Option<TargetDir> {
        let target = self.directory()?;
        if let Some(Some(stands)) = dir.stands.get() {
            return Some(stands.clone());
        }
        let parent = match &dir.parent {
            Some(parent) if dir.stripped => return parent.made.get()?.clone(),
            Some(parent) => parent.made.get()?.as_ref(),
            None => return Some(target.root()),
        };
        let Some(parent) = parent else {
            self.report_failed(dir.path_of(b""), &EntryProblem::NoDirectory, Class::Failed);
            return None;
        };
        match target.make_dir(parent, &dir.name) {
            Ok(made) => Some(made),
            Err(error) => {
                self.report_refused(dir.path_of(b""), error);
                None
            }
        }
    }

    /// One thing less to wait for in a directory; the last one finishes it, and so on upwards.
    pub(super) fn leave(&self, dir: &Arc<Dir>) {
        let mut next = Some(Arc::clone(dir));
        while let Some(dir) = next {
            if dir.pending.fetch_sub(1, Ordering::AcqRel) != 1 {
                return;
            }
            if !self.stopped() {
                self.finish_dir(&dir);
            }
            next = dir.parent.clone();
        }
    }

    fn finish_dir(&self, dir: &Dir) {
        let made = if dir.only_leads { dir.made.get().and_then(Option::as_ref) } else { self.enter(dir) };
        let (Some(made), Some(target), Some(meta)) = (made, self.directory(), &dir.meta) else { return };
        match target.finish_dir(made, &meta.as_metadata()) {
            Ok(unset) => {
                self.report_unset(|| dir.path_of(b""), &unset);
                self.report_done(|| dir.path_of(b""), false);
            }
            Err(error) => self.report_refused(dir.path_of(b""), error),
        }
    }

    fn task(&self, task: Task) {
        match task {
            Task::Release(file) => self.done_with_chunk(&file),
            Task::Leave(dir) => {
                self.leave(&dir);
                self.end();
            }
            Task::Symlink { dir, name, target: text, meta, link } => {
                self.dressed((&dir, &name), &meta, link, |target, at, meta| {
                    let meta = meta.as_metadata();
                    let kept = match self.keeps_alike(link) {
                        true => target.keep_symlink(at, &name, &text, &meta)?,
                        false => None,
                    };
                    kept.map_or_else(|| target.symlink(at, &name, &text, &meta), Ok)
                });
            }
            Task::Special { dir, name, kind, meta, link } => {
                self.dressed((&dir, &name), &meta, link, |target, at, meta| {
                    let meta = meta.as_metadata();
                    let kept = match self.keeps_alike(link) {
                        true => target.keep_node(at, &name, kind, &meta)?,
                        false => None,
                    };
                    kept.map_or_else(|| target.make_node(at, &name, kind, &meta), Ok)
                });
            }
            Task::Zero(file, range) => self.zero(&file, range),
            Task::Link { entry, source } => self.link(entry, &source),
        }
    }

    /// Whether an entry without content that is there already, just as it should be, is kept.
    fn keeps_alike(&self, link: Option<[u8; 16]>) -> bool {
        link.is_none() && (self.policy.in_place || self.policy.overwrite == Overwrite::IfChanged)
    }

    /// Whether something stands that must be kept because it is not older.
    fn is_as_new(&self, at: &TargetDir, name: &[u8], mtime: (i64, u32)) -> bool {
        if self.policy.overwrite != Overwrite::IfNewer {
            return false;
        }
        let stands = self.directory().and_then(|target| target.look(at, name).ok().flatten());
        stands.is_some_and(|stands| !stands.is_dir() && stands.mtime >= mtime)
    }

    /// Makes an entry without content by `make`.
    fn dressed(
        &self,
        (dir, name): (&Arc<Dir>, &[u8]),
        meta: &Meta,
        link: Option<[u8; 16]>,
        make: impl FnOnce(&Target, &TargetDir, &Meta) -> Result<Vec<MetadataFailure>, TargetError>,
    ) {
        let mut source = None;
        match (self.enter(dir), self.directory()) {
            (Some(at), _) if self.is_as_new(at, name, meta.mtime()) => self.report_left(|| dir.path_of(name)),
            (Some(at), Some(target)) => match make(target, at, meta) {
                Ok(unset) => {
                    self.report_unset(|| dir.path_of(name), &unset);
                    self.report_done(|| dir.path_of(name), false);
                    source = link.and_then(|_| target.link_source(at, name).ok());
                }
                Err(error) => self.report_refused(dir.path_of(name), error),
            },
            _ => {
                self.tally.failed.fetch_add(1, Ordering::Relaxed);
            }
        }
        if let Some(number) = link {
            self.settle_link(number, source);
        }
        self.leave(dir);
        self.end();
    }

    /// Gives what was made a further name. Where the file system does not link, the entry becomes one of its own.
    fn link(&self, entry: Late, source: &LinkSource) {
        let Late { dir, node, .. } = entry;
        let (Some(at), Some(target)) = (self.enter(&dir), self.directory()) else {
            self.tally.failed.fetch_add(1, Ordering::Relaxed);
            self.leave(&dir);
            return self.end();
        };
        if self.is_as_new(at, &node.name, (node.mtime.seconds, node.mtime.nanos)) {
            self.report_left(|| dir.path_of(&node.name));
            self.leave(&dir);
            return self.end();
        }
        match target.hard_link(at, &node.name, source) {
            Err(error @ TargetError::Io { .. }) if error.class() != Class::NoSpace => {
                lock(&self.late).push(Late { dir, node, alone: true });
                return self.end();
            }
            Err(error) => self.report_refused(dir.path_of(&node.name), error),
            Ok(unset) => {
                self.report_unset(|| dir.path_of(&node.name), &unset);
                let is_file = node.kind == crate::format::node::NodeKind::File;
                self.report_done(|| dir.path_of(&node.name), is_file);
            }
        }
        self.leave(&dir);
        self.end();
    }
}
