//! One step of a walk: read the names of a directory, look at each, decide what belongs to the backup.

use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::dir::Dir;
use super::entry::{Block, Record};
use super::explain::Omission;
use super::ignores::{Ignores, is_cache_tag};
use super::names::{Arena, Names, NamesBuilder};
use super::{Context, Failure};
use crate::filter::{Inclusion, RuleText, Verdict};
use crate::source::error::SourceError;
use crate::source::sys::dir as sys;
use crate::source::sys::stat::{Stat, stat_at};

const CACHE_TAG: &[u8] = b"CACHEDIR.TAG";

/// A directory to be listed, or the rest of one.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) dir: Arc<Dir>,
    pub(super) scope: Scope,
    pub(super) rest: Option<Rest>,
}

/// What a directory inherits from those above it.
#[derive(Debug, Clone)]
pub(super) struct Scope {
    /// The place among the roots that the directory is, if roots lie in it or it is one.
    pub(super) place: Option<usize>,
    /// Its own entries are wanted, not just the way to roots below it.
    pub(super) selected: bool,
    /// An include rule holds for all of it.
    pub(super) included: bool,
    ignores: Option<Arc<Ignores>>,
    /// Device and mount of the root it belongs to.
    base: (u64, u64),
    /// It is a cache, of which only the tag is kept.
    only_tag: bool,
}

/// Names of a large directory that are still to be looked at.
#[derive(Debug)]
pub(super) struct Rest {
    names: Names,
    places_done: usize,
    _held: Held,
}

/// Bytes of names that wait in memory.
#[derive(Debug)]
struct Held(Arc<AtomicUsize>, usize);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.fetch_sub(self.1, Ordering::Relaxed);
    }
}

/// What became of a job.
#[derive(Debug)]
pub(super) struct Output {
    /// Why the one name that was asked for is not among the entries, or is shown empty.
    pub(super) omission: Option<Omission>,
    pub(super) block: Arc<Block>,
    /// Entries that could not be looked at, each with the number of the entry it comes before.
    pub(super) failures: Vec<(u32, Failure)>,
    /// The directories among the entries, in order.
    pub(super) subs: Vec<(u32, Sub)>,
    pub(super) rest: Option<Job>,
    /// The directory could not be listed, or not to its end.
    pub(super) error: Option<SourceError>,
}

/// What to do about a directory.
#[derive(Debug)]
pub(super) enum Sub {
    /// Walk it. `leads`: show it only if something in it is included.
    Walk { job: Job, leads: bool },
    /// Show it empty.
    Empty,
    /// Show it as failed.
    Failed(SourceError),
}

/// Buffers of one thread.
#[derive(Debug)]
pub(super) struct Scratch {
    listing: Box<[MaybeUninit<u8>]>,
    path: Vec<u8>,
    /// The only name that is looked at, if one alone is asked for; then it is noted why it is left out.
    pub(super) asked: Option<Vec<u8>>,
}

impl Scratch {
    pub(super) fn new() -> Self {
        Self { listing: Box::new_uninit_slice(256 * 1024), path: Vec::new(), asked: None }
    }
}

/// The entry for the root of the snapshot's tree, and with it the whole walk.
pub(super) fn first(ctx: &Context) -> Output {
    let dir = ctx.roots.dir(0);
    let mut step = Step::new(ctx, Arc::clone(&dir), Scope::outside(0), Vec::new());
    step.add_place(0, b"");
    step.finish(Arena::default(), None, None)
}

/// Does one job.
pub(super) fn run(ctx: &Context, mut job: Job, scratch: &mut Scratch) -> Output {
    let mut path = std::mem::take(&mut scratch.path);
    let mut early = Vec::new();
    let mut error = None;
    let mut fd = None;
    if job.scope.selected {
        match job.dir.handle() {
            Ok(handle) => fd = Some(handle),
            Err(failure) => error = Some(failure),
        }
    }
    if !ctx.filter.is_empty() {
        job.dir.path_into(&mut path);
        if path.last() != Some(&b'/') {
            path.push(b'/');
        }
    }
    let mut rest = match (job.rest.take(), &fd) {
        (Some(rest), _) => rest,
        (None, Some(fd)) => {
            let listed = list(ctx, &job.dir, fd, scratch);
            adopt_special_files(ctx, &mut job, &listed, &mut early, path.len());
            error = listed.error;
            #[cfg(test)]
            if let Some(hook) = &ctx.tuning.after_listing {
                hook(&job.dir.path());
            }
            listed.rest
        }
        (None, None) => Rest { names: Names::empty(), places_done: 0, _held: ctx.hold(0) },
    };
    let batch = rest.names.batch(ctx.tuning.block_at(job.dir.depth()));
    let (names, more) = batch.unwrap_or_else(|failure| {
        error = Some(SourceError::Io { action: "sort the names of", path: job.dir.path(), source: failure });
        (Arena::default(), false)
    });
    let mut step = Step::new(ctx, job.dir, job.scope, path);
    step.explains = scratch.asked.is_some();
    step.failures = early;
    step.places_done = rest.places_done;
    step.look_at_all(fd.as_deref(), &names, more);
    rest.places_done = step.places_done;
    scratch.path = std::mem::take(&mut step.path);
    step.finish(names, more.then_some(rest), error)
}

struct Listed {
    rest: Rest,
    cache_tag: bool,
    ignore_file: bool,
    error: Option<SourceError>,
}

fn list(ctx: &Context, dir: &Arc<Dir>, fd: &OwnedFd, scratch: &mut Scratch) -> Listed {
    let mut names = NamesBuilder::new(&ctx.spill, ctx.names_limit());
    let (mut cache_tag, mut ignore_file) = (false, false);
    let wanted = ctx.filter.ignore_file_name();
    let Scratch { listing, asked, .. } = scratch;
    let listed = sys::list(fd, listing, |name| {
        cache_tag |= name.to_bytes() == CACHE_TAG;
        ignore_file |= wanted == Some(name.to_bytes());
        if asked.as_deref().is_none_or(|asked| asked == name.to_bytes()) {
            names.push(name);
        }
    });
    let error = listed.err().map(|error| SourceError::of_entry("list", dir.path(), error));
    let names = names.finish();
    let held = ctx.hold(names.size());
    Listed { rest: Rest { names, places_done: 0, _held: held }, cache_tag, ignore_file, error }
}

/// Takes notice of a cache tag and of a rule file that the listing showed.
fn adopt_special_files(
    ctx: &Context,
    job: &mut Job,
    listed: &Listed,
    failures: &mut Vec<(u32, Failure)>,
    base: usize,
) {
    let is_root = job.scope.place.is_some_and(|place| ctx.roots.node(place).selected);
    job.scope.only_tag =
        listed.cache_tag && ctx.exclude_caches && !is_root && is_cache_tag(&job.dir, CACHE_TAG);
    if let (true, Some(name)) = (listed.ignore_file, ctx.filter.ignore_file_name()) {
        let (ignores, errors) = Ignores::read(&job.dir, name, base, job.scope.ignores.take());
        job.scope.ignores = ignores;
        let failure = |error| (0, Failure { dir: Arc::clone(&job.dir), name: name.into(), error });
        failures.extend(errors.into_iter().map(failure));
    }
}

impl Scope {
    /// Above all roots.
    fn outside(place: usize) -> Self {
        Self {
            place: Some(place),
            selected: false,
            included: false,
            ignores: None,
            base: (0, 0),
            only_tag: false,
        }
    }
}

/// What the rules say of an entry.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Keep {
    Yes,
    Leads,
    No,
}

/// A job at work.
struct Step<'a> {
    ctx: &'a Context,
    dir: Arc<Dir>,
    scope: Scope,
    /// The path of the directory with a slash at its end; of no meaning without rules.
    path: Vec<u8>,
    places_done: usize,
    /// Whether it is noted why an entry is left out.
    explains: bool,
    omission: Option<Omission>,
    entries: Vec<Record>,
    foreign: Vec<super::entry::Foreign>,
    failures: Vec<(u32, Failure)>,
    subs: Vec<(u32, Sub)>,
}

impl<'a> Step<'a> {
    fn new(ctx: &'a Context, dir: Arc<Dir>, scope: Scope, path: Vec<u8>) -> Self {
        Self {
            ctx,
            dir,
            scope,
            path,
            places_done: 0,
            explains: false,
            omission: None,
            entries: Vec::new(),
            foreign: Vec::new(),
            failures: Vec::new(),
            subs: Vec::new(),
        }
    }

    /// Goes through the names, merging in the places of roots that are stored here.
    fn look_at_all(&mut self, fd: Option<&OwnedFd>, names: &Arena, more: bool) {
        let ctx = self.ctx;
        self.entries.reserve(names.len());
        let done = self.places_done;
        let places = self.scope.place.map(|place| ctx.roots.node(place).children.iter().skip(done));
        let mut places = places.into_iter().flatten().peekable();
        for i in 0..if fd.is_some() { names.len() } else { 0 } {
            let name = names.get(i);
            while let Some((stored, &place)) = places.next_if(|(stored, _)| &***stored < name) {
                self.add_place(place, stored);
            }
            let place = places.next_if(|(stored, _)| &***stored == name).map(|(_, &place)| place);
            self.places_done += usize::from(place.is_some());
            match (place, fd) {
                (Some(place), _) if !ctx.roots.is_at(place, &self.dir, name) => {
                    self.places_done -= 1;
                    self.add_place(place, name);
                }
                (place, Some(fd)) => self.look_at(fd, names, i, place),
                (_, None) => {}
            }
        }
        if !more {
            for (stored, &place) in places {
                self.add_place(place, stored);
            }
        }
    }

    fn look_at(&mut self, fd: &OwnedFd, names: &Arena, i: usize, place: Option<usize>) {
        let ctx = self.ctx;
        let name = names.get(i);
        if self.scope.only_tag && name != CACHE_TAG && place.is_none() {
            ctx.counts.in_caches.fetch_add(1, Ordering::Relaxed);
            self.note(|| Omission::Cache);
            return;
        }
        let stat = match stat_at(fd, names.c_str(i)) {
            Ok(stat) => stat,
            Err(error) => {
                if self.keep(name, false) == Keep::Yes {
                    let error = SourceError::of_entry("look at", self.dir.path_of(name), error);
                    let failure = Failure { dir: Arc::clone(&self.dir), name: name.into(), error };
                    self.failures.push((self.next_index(), failure));
                }
                return;
            }
        };
        let asked_for = place.is_some_and(|place| ctx.roots.node(place).selected);
        let keep = if asked_for { Keep::Yes } else { self.keep(name, stat.is_dir()) };
        if place.is_none() && !self.belongs(keep, &stat) {
            return;
        }
        if keep == Keep::Yes || place.is_none() {
            // A directory that leads to a root keeps its own omission: it holds for all in it but the root.
            self.omission = None;
        }
        let record = Record { name: u32::try_from(i).unwrap_or(u32::MAX), stat };
        if stat.is_dir() {
            let sub = self.sub(name, &stat, place, keep);
            self.subs.push((self.next_index(), sub));
        }
        self.entries.push(record);
    }

    /// Whether an entry that is no place of a root is kept; counts it if not.
    fn belongs(&mut self, keep: Keep, stat: &Stat) -> bool {
        let ctx = self.ctx;
        let large = ctx.exclude_larger_than.filter(|limit| stat.is_file() && stat.size > *limit);
        let count = if keep == Keep::No || (keep == Keep::Leads && !stat.is_dir()) {
            &ctx.counts.by_rules
        } else if let Some(limit) = large {
            self.note(|| Omission::TooLarge { size: stat.size, limit });
            &ctx.counts.too_large
        } else if stat.is_dir() && ctx.skip_dirs.contains(&(stat.dev, stat.ino)) {
            self.note(|| Omission::OwnFiles);
            &ctx.counts.skipped
        } else {
            return true;
        };
        count.fetch_add(1, Ordering::Relaxed);
        false
    }

    /// Notes why an entry is left out, if somebody asked.
    fn note(&mut self, omission: impl FnOnce() -> Omission) {
        if self.explains {
            self.omission = Some(omission());
        }
    }

    fn keep(&mut self, name: &[u8], is_dir: bool) -> Keep {
        let ctx = self.ctx;
        if ctx.filter.is_empty() {
            return Keep::Yes;
        }
        let base = self.path.len();
        self.path.extend_from_slice(name);
        let (keep, omission) = self.judge(is_dir);
        self.path.truncate(base);
        if keep != Keep::Yes {
            self.omission = omission;
        }
        keep
    }

    /// What the rules say of the entry whose path is [`Step::path`]; and which of them says so, if somebody asked.
    fn judge(&self, is_dir: bool) -> (Keep, Option<Omission>) {
        let (filter, explains) = (&self.ctx.filter, self.explains);
        let rule = |text: Option<&RuleText>| text.filter(|_| explains).cloned();
        match filter.decide(&self.path, is_dir) {
            Some(Verdict::Exclude { rule: at }) => {
                return (Keep::No, rule(filter.rule(at)).map(Omission::Rule));
            }
            Some(Verdict::Keep) => {}
            None => {
                let decided = self.scope.ignores.as_ref().and_then(|rules| rules.decide(&self.path, is_dir));
                if let Some(decided) = decided.filter(|decided| decided.excludes()) {
                    return (Keep::No, rule(decided.text()).map(Omission::IgnoreFile));
                }
            }
        }
        if self.scope.included {
            return (Keep::Yes, None);
        }
        let omission = explains.then_some(Omission::NotIncluded);
        match filter.inclusion(&self.path, is_dir) {
            Inclusion::Included => (Keep::Yes, None),
            Inclusion::Leads => (Keep::Leads, omission),
            Inclusion::Outside => (Keep::No, omission),
        }
    }

    fn sub(&mut self, name: &[u8], stat: &Stat, place: Option<usize>, keep: Keep) -> Sub {
        let asked_for = place.is_some_and(|place| self.ctx.roots.node(place).selected);
        let barrier = if asked_for { None } else { self.barrier(name, stat) };
        let barred = barrier.is_some();
        if let (None, Some(barrier)) = (place, barrier) {
            return barrier;
        }
        let dir = self.dir.child(name, stat, false);
        let mut scope = Scope { place, only_tag: false, ..self.scope.clone() };
        if asked_for {
            scope.base = (stat.dev, stat.mnt_id);
            scope.included = self.is_included(&dir.path());
        } else if keep == Keep::No || barred {
            // Only a directory that leads to a root gets here.
            scope.selected = false;
        } else {
            scope.included |= keep == Keep::Yes;
        }
        Sub::Walk { job: Job { dir, scope, rest: None }, leads: place.is_none() && keep == Keep::Leads }
    }

    /// Why a directory is not entered, if it is not.
    fn barrier(&mut self, name: &[u8], stat: &Stat) -> Option<Sub> {
        let ctx = self.ctx;
        let crosses = stat.dev != self.dir.identity().0 || stat.mnt_id != self.dir.mnt_id();
        if !crosses && stat.mnt_id != 0 {
            return None;
        }
        if ctx.one_file_system && (stat.dev, stat.mnt_id) != self.scope.base {
            ctx.counts.other_mounts.fetch_add(1, Ordering::Relaxed);
            self.note(|| Omission::OtherFileSystem);
            return Some(Sub::Empty);
        }
        let mut above = Some(&self.dir);
        while let Some(dir) = above {
            if dir.identity() == (stat.dev, stat.ino) {
                return Some(Sub::Failed(SourceError::Loop { path: self.dir.path_of(name) }));
            }
            above = dir.parent();
        }
        if crosses {
            let kind = self.dir.handle().ok().and_then(|fd| sys::file_system_type(&*fd, name).ok());
            if kind.is_some_and(sys::is_pseudo) {
                ctx.counts.pseudo.fetch_add(1, Ordering::Relaxed);
                self.note(|| Omission::KernelState);
                return Some(Sub::Empty);
            }
        }
        None
    }

    /// Adds the place of a root, or of a directory that leads to one.
    fn add_place(&mut self, place: usize, stored: &[u8]) {
        let ctx = self.ctx;
        let node = ctx.roots.node(place);
        let index = self.next_index();
        self.foreign.push(ctx.roots.entry(place, stored, index));
        if node.stat.is_dir() {
            let dir = ctx.roots.dir(place);
            let mut scope = Scope::outside(place);
            scope.selected = node.selected;
            scope.base = (node.stat.dev, node.stat.mnt_id);
            scope.included = node.selected && self.is_included(&dir.path());
            self.subs.push((index, Sub::Walk { job: Job { dir, scope, rest: None }, leads: false }));
        }
        self.entries.push(Record { name: u32::MAX, stat: node.stat });
        self.places_done += 1;
    }

    fn is_included(&self, path: &std::path::Path) -> bool {
        let filter = &self.ctx.filter;
        !filter.has_includes() || filter.inclusion(path.as_os_str().as_bytes(), true) == Inclusion::Included
    }

    fn next_index(&self) -> u32 {
        u32::try_from(self.entries.len()).unwrap_or(u32::MAX)
    }

    fn finish(self, names: Arena, rest: Option<Rest>, error: Option<SourceError>) -> Output {
        let rest = rest.map(|rest| Job { dir: Arc::clone(&self.dir), scope: self.scope, rest: Some(rest) });
        let block = Block { dir: self.dir, names, entries: self.entries, foreign: self.foreign };
        let omission = self.omission;
        Output { omission, block: Arc::new(block), failures: self.failures, subs: self.subs, rest, error }
    }
}

impl Context {
    /// How many bytes of names a directory may have before they are written out: much, unless much is held already.
    fn names_limit(&self) -> usize {
        let held = self.names_held.load(Ordering::Relaxed);
        if held < 4 * self.tuning.names_bytes {
            self.tuning.names_bytes
        } else {
            self.tuning.names_bytes / 256
        }
    }

    fn hold(&self, bytes: usize) -> Held {
        self.names_held.fetch_add(bytes, Ordering::Relaxed);
        Held(Arc::clone(&self.names_held), bytes)
    }
}
