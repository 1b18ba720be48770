//! One pass over the sources: threads, the bridge to the store, and what they leave to be committed.

use std::collections::{BTreeSet, HashSet};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures::FutureExt;
use futures::future::FusedFuture;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::image::Images;
use super::last::LastRun;
use super::merge::Tally;
use super::options::{BackupOptions, BackupSource, SavedStream, stored_parts};
use super::sink::{Sink, SinkParts};
use super::state::{StateFile, StateReader, StateWriter};
use super::stream::StreamPlan;
use super::threads::{Built, Files, ThreadPlan};
use super::total;
use super::upload::{Place, Uploaded, Uploader};
use crate::class::Class;
use crate::error::Error;
use crate::event::{CountingObserver, Event, Phase};
use crate::format::layout::ObjectName;
use crate::format::node::Totals;
use crate::format::tree::TreeRef;
use crate::id::PackId;
use crate::index::PackNumber;
use crate::ops::restore::prepare::own_dirs;
use crate::repo::{Dependencies, FinishedPack, Journal, LoadedIndex, Repository, RunKeys};
use crate::source::SourceError;
use crate::source::file::Holes;
use crate::source::walk::{Root, Tuning, Walk, WalkOptions};

/// Everything a pass leaves for the commit.
pub(super) struct Gathered {
    pub keys: RunKeys,
    pub root: Option<TreeRef>,
    pub totals: Totals,
    pub tally: Tally,
    pub state: Option<StateWriter>,
    pub dependencies: Dependencies,
    /// Of these the packs that were condemned while the run went on.
    pub lost: HashSet<PackId>,
    pub horizon: u64,
    pub entries_before: Option<u64>,
    pub missing: Vec<PathBuf>,
    pub excluded: u64,
    pub streams: Vec<SavedStream>,
    pub bytes_read: u64,
    pub new_bytes: u64,
    pub stored_bytes: u64,
    pub resumed_bytes: u64,
}

/// Reads the sources and stores what is new; returns when every pack and index object is durable.
pub(super) async fn gather(
    repo: &Repository,
    options: &Arc<BackupOptions>,
    index: &mut LoadedIndex,
    (state, journal): (StateFile<'_>, &Path),
) -> Result<Gathered, Error> {
    let begin = begin_walk(repo, options)?;
    let reader = StateReader::open(&state);
    let entries_before = reader.as_ref().map(|reader| reader.trailer().totals.entries);
    let last = LastRun::new(reader);
    let how = How {
        phase: Phase::Backup,
        level: options.level,
        dry_run: options.dry_run,
        timeless: options.timeless,
        total: entries_before.and(last.trailer()).map(|trailer| trailer.totals.bytes),
    };
    let pass = Pass::new(repo, how, index, last.trailer().map(|trailer| &trailer.packs[..]))?;
    let holes = if options.read_holes { Holes::Read } else { Holes::Skip };
    let writer = (!options.dry_run).then(|| StateWriter::create(&state, &*repo.env().random));
    let (writer, last) = (writer.transpose()?, Box::new(last));
    let streams = StreamPlan {
        sources: options.all_streams(),
        at_once: options.streams_at_once,
        withheld: options.withheld.clone(),
    };
    let databases = options.databases;
    let work = move |plan: &ThreadPlan, sink: &Sink| {
        let files = Files { begin, last: *last, holes, databases, streams };
        plan.files(sink, files, writer)
    };
    let gathered = pass.run(repo, (index, journal), work, std::future::ready(Ok(()))).await?;
    Ok(Gathered { entries_before, ..gathered })
}

/// How a pass goes about its work, whatever it reads.
#[derive(Debug, Clone, Copy)]
pub(super) struct How {
    pub phase: Phase,
    pub level: i32,
    pub dry_run: bool,
    pub timeless: bool,
    /// Bytes to go through, if that is known.
    pub total: Option<u64>,
}

/// One pass over what is saved, from its first chunk until all that is new is durable.
pub(super) struct Pass {
    how: How,
    pub sink: Arc<Sink>,
    packs: UnboundedReceiver<FinishedPack>,
    plan: ThreadPlan,
    read_before: u64,
}

impl Pass {
    /// A pass that may depend on what `index` says is usable; `trusted` are packs of an earlier run that are to be taken at
    /// their word if all of them are.
    pub(super) fn new(
        repo: &Repository,
        how: How,
        index: &LoadedIndex,
        trusted: Option<&[PackId]>,
    ) -> Result<Self, Error> {
        let env = repo.env();
        let read_before = total(&env.observer.counters().bytes_read);
        let (send, packs) = unbounded_channel();
        let parts = SinkParts {
            keys: repo.new_run_keys()?,
            level: how.level,
            dry_run: how.dry_run,
            timeless: how.timeless,
            base: index.view.clone(),
            bridge: send,
        };
        let sink = Arc::new(Sink::new(repo, parts)?);
        if let Some(trusted) = trusted {
            trust(&sink, trusted, index)?;
        }
        env.observer.observe(&Event::PhaseFinished { phase: Phase::Open });
        env.observer.observe(&Event::PhaseStarted { phase: how.phase, total: how.total });
        Ok(Self { how, sink, packs, plan: ThreadPlan::new(repo)?, read_before })
    }

    /// Runs `work` on threads, and `beside` it, which feeds it if it needs that; stores what comes of it.
    pub(super) async fn run(
        self,
        repo: &Repository,
        (index, journal): (&mut LoadedIndex, &Path),
        work: impl FnOnce(&ThreadPlan, &Sink) -> Result<Built, Error> + Send + 'static,
        beside: impl Future<Output = Result<(), Error>>,
    ) -> Result<Gathered, Error> {
        let Self { how, sink, packs, plan, read_before } = self;
        let orphans = if how.dry_run { Vec::new() } else { orphans(repo, index, journal).await? };
        let LoadedIndex { horizon, cache, listed, condemned, .. } = &mut *index;
        let place = Place { horizon: *horizon, cache, listed, condemned };
        let mut uploader = Uploader::new(repo, &sink, journal, place)?;
        let resumed_bytes = adopt(&mut uploader, orphans).await?;
        let threads = {
            let sink = Arc::clone(&sink);
            tokio::task::spawn_blocking(move || plan.run(&sink, work))
        };
        // All sides are waited for: one that fails raises the flag that ends the others, also if this future is dropped.
        let _stop = super::upload::StopOnDrop(Arc::clone(&sink));
        let (uploaded, fed) = both_sides(uploader.run(packs), beside).await;
        if uploaded.is_err() {
            sink.stop.store(true, Ordering::Release);
        }
        let built = threads.await.map_err(|_| Error::from(crate::repo::RepoError::Task))?;
        let uploaded = uploaded?;
        let built = match (fed, built) {
            // What feeds the threads knows why they had no more to do.
            (Err(error), Err(Error::Cancelled)) => return Err(error),
            (_, built) => built?,
        };
        repo.env().observer.observe(&Event::PhaseFinished { phase: how.phase });
        collect(sink, (built, uploaded), index, (resumed_bytes, read_before))
    }
}

/// Waits for the side that stores, and goes on with the one that feeds the threads for as long as that takes: threads that
/// have ended want nothing more.
async fn both_sides<T>(
    stores: impl Future<Output = Result<T, Error>>,
    feeds: impl Future<Output = Result<(), Error>>,
) -> (Result<T, Error>, Result<(), Error>) {
    let (mut stores, mut feeds) = (pin!(stores), pin!(feeds.fuse()));
    let mut fed = Ok(());
    loop {
        tokio::select! {
            stored = &mut stores => return (stored, fed),
            done = &mut feeds, if !feeds.is_terminated() => fed = done,
        }
    }
}

fn collect(
    sink: Arc<Sink>,
    (built, uploaded): (Built, Uploaded),
    index: &LoadedIndex,
    (resumed_bytes, read_before): (u64, u64),
) -> Result<Gathered, Error> {
    let mut dependencies = used_packs(&sink)?;
    dependencies.extend(uploaded.packs.iter().copied());
    let lost = dependencies.intersection(&uploaded.condemned).copied().collect();
    Ok(Gathered {
        root: built.root,
        totals: built.totals,
        tally: built.tally,
        state: built.state,
        dependencies: Dependencies(dependencies),
        lost,
        horizon: index.horizon,
        entries_before: None,
        missing: built.missing,
        excluded: built.excluded,
        streams: built.streams,
        bytes_read: total(&sink.observer.counters().bytes_read) - read_before,
        new_bytes: total(&sink.new_bytes),
        stored_bytes: uploaded.bytes,
        resumed_bytes,
        keys: sink.keys.clone(),
    })
}

/// The packs of the base view that were used. One that cannot be named any more must fail the run: the check of the commit
/// would miss it.
fn used_packs(sink: &Sink) -> Result<HashSet<PackId>, Error> {
    let mut packs = HashSet::new();
    for (word, bits) in sink.used.iter().enumerate() {
        let bits = bits.load(Ordering::Relaxed);
        for bit in (0..64).filter(|bit| bits & (1 << bit) != 0) {
            packs.insert(sink.base.pack(PackNumber((word * 64 + bit) as u32))?.id);
        }
    }
    Ok(packs)
}

/// If every pack of the last run may be depended on, its chunks need not be looked up one by one.
///
/// Packs that nothing of the last run is in any more are among them: who trusts does not learn that. They go once a collector
/// condemns one of them, because the run that meets this looks everything up.
fn trust(sink: &Sink, packs: &[PackId], index: &LoadedIndex) -> Result<(), Error> {
    let mut numbers = Vec::with_capacity(packs.len());
    for pack in packs {
        let usable = index.packs.contains(pack) && !index.condemned.contains(pack);
        match index.view.pack_by_id(pack)? {
            Some(number) if usable && index.view.is_usable(number) && !index.view.has_fading(number)? => {
                numbers.push(number);
            }
            _ => return Ok(()),
        }
    }
    sink.trust_last(&numbers);
    Ok(())
}

/// Packs of an interrupted run: in the journal, in the store, and in no index object; with their sizes.
async fn orphans(
    repo: &Repository,
    index: &LoadedIndex,
    journal: &Path,
) -> Result<Vec<(PackId, u64)>, Error> {
    let mut orphans = Vec::new();
    let noted: BTreeSet<_> = Journal::read(journal)?.into_iter().collect();
    for pack in noted {
        let known = index.view.pack_by_id(&pack)?.is_some();
        if known || !index.packs.contains(&pack) || index.condemned.contains(&pack) {
            continue;
        }
        let listed = repo.store().list(&ObjectName::Pack(pack).key()).await?;
        orphans.extend(listed.first().map(|object| (pack, object.size)));
    }
    Ok(orphans)
}

/// Takes orphans over; returns their bytes.
async fn adopt(uploader: &mut Uploader<'_>, orphans: Vec<(PackId, u64)>) -> Result<u64, Error> {
    let mut adopted = 0;
    for (pack, size) in orphans {
        match uploader.adopt(pack, size).await {
            Ok(()) => adopted += size,
            Err(error) if matches!(error.class(), Class::Unreachable | Class::Cancelled) => {
                return Err(error);
            }
            // A pack that does not open was damaged after it was put: it is left for verify to report.
            Err(_) => {}
        }
    }
    uploader.flush_index().await?;
    Ok(adopted)
}

/// How the sources that are files are walked.
pub(in crate::ops) fn walk_options(repo: &Repository, options: &BackupOptions) -> Result<WalkOptions, Error> {
    walk_with(repo, options, (Vec::new(), Vec::new()))
}

/// The same with images among the sources, and streams in their places.
fn walk_with(
    repo: &Repository,
    options: &BackupOptions,
    (images, streams): (Vec<Root>, Vec<Vec<Vec<u8>>>),
) -> Result<WalkOptions, Error> {
    let paths = if let BackupSource::Paths(paths) = &options.source { &paths[..] } else { &[] };
    if let Some(root) = repo.store().local_root() {
        refuse_inside(root, paths.iter().chain(&options.images))?;
    }
    let mut roots: Vec<Root> = paths.iter().cloned().map(Root::at).collect();
    roots.extend(images);
    let several = roots.len() > 1;
    if let Some(stored) = &options.stored_as {
        for root in &mut roots {
            root.stored = stored_parts(stored, root.stored.pop().filter(|_| several));
        }
    }
    let (threads, tuning) = (repo.env().limits.workers, Tuning::default());
    #[cfg(test)]
    let (threads, tuning) = options.tuning.clone().map_or((threads, tuning), |tuning| (0, tuning));
    Ok(WalkOptions {
        roots,
        streams,
        filter: Arc::clone(&options.filter),
        one_file_system: options.one_file_system,
        exclude_caches: options.exclude_caches,
        exclude_larger_than: options.exclude_larger_than,
        skip_dirs: own_dirs(repo).into_iter().collect(),
        temp_dir: repo.env().places.cache.clone().unwrap_or_else(std::env::temp_dir),
        threads,
        cancel: repo.env().cancel.clone(),
        tuning,
    })
}

/// A walk that has begun.
pub(super) struct Begun {
    pub walk: Walk,
    pub images: Images,
    /// Sources that are not there.
    pub missing: Vec<PathBuf>,
}

/// Begins a walk, when it is time to.
pub(super) type Begin = Box<dyn FnOnce() -> Result<Begun, Error> + Send>;

/// Finds mistakes at once, and gives the walk: it begins after the streams, because what is looked at before their commands
/// run is not what is there afterwards.
fn begin_walk(repo: &Repository, options: &Arc<BackupOptions>) -> Result<Begin, Error> {
    let streams = !options.all_streams().is_empty();
    let (images, roots) = Images::find(options, &*repo.env().observer)?;
    let how = walk_with_streams(repo, options, roots)?;
    if streams {
        Walk::new(WalkOptions { threads: 0, ..how })?;
        let (repo, options) = (repo.clone(), Arc::clone(options));
        return Ok(Box::new(move || {
            // What there is to warn of was said.
            let (images, roots) = Images::find(&options, &CountingObserver::default())?;
            let (walk, failures) = Walk::new(walk_with_streams(&repo, &options, roots)?)?;
            let missing = missing(&repo, failures);
            Ok(Begun { walk, images, missing })
        }));
    }
    let (walk, failures) = Walk::new(how)?;
    let missing = missing(repo, failures);
    if missing.len() == options.source_names().len() {
        return Err(Error::NoSource { paths: missing });
    }
    Ok(Box::new(move || Ok(Begun { walk, images, missing })))
}

fn walk_with_streams(
    repo: &Repository,
    options: &BackupOptions,
    images: Vec<Root>,
) -> Result<WalkOptions, Error> {
    let streams = options.all_streams().iter().map(|stream| stored_parts(&stream.stored, None)).collect();
    walk_with(repo, options, (images, streams))
}

/// The sources that are not there, or cannot be looked at.
fn missing(repo: &Repository, failures: Vec<SourceError>) -> Vec<PathBuf> {
    let one = |failure| match failure {
        SourceError::Missing { path } => path,
        other => {
            let class = other.class();
            let path = other.path().map_or_else(|| PathBuf::from("/"), Path::to_owned);
            repo.env().observer.observe(&Event::EntryFailed { path: &path, error: &other, class });
            path
        }
    };
    failures.into_iter().map(one).collect()
}

fn refuse_inside<'p>(root: &Path, paths: impl Iterator<Item = &'p PathBuf>) -> Result<(), Error> {
    let Ok(root) = root.canonicalize() else { return Ok(()) };
    for path in paths {
        if path.canonicalize().is_ok_and(|path| path.starts_with(&root)) {
            return Err(Error::InsideRepository { path: path.clone() });
        }
    }
    Ok(())
}
