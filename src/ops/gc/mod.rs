//! Collection: removing forgotten snapshots, and giving back the space of what nothing needs (`docs/protocol.md`, Collector).
//!
//! # Invariants
//! A condemnation is durable before snapshots are listed again, and that is before the first deletion (I4). Superseded index
//! objects are deleted before the horizon moves, and the horizon moves before the condemnation goes. What cannot be decoded
//! is never deleted (I8). No clock decides what is safe: grace is a courtesy.
//!
//! # Crash
//! A condemnation without an end: the next collection goes on with it. Packs that no index object lists: garbage for it.
//!
//! # Must not
//! Delete anything that this run did not see condemned before it last listed snapshots.

mod cut;
mod finish;
mod fold;
mod ledger;
mod locked;
mod logs;
mod mover;
mod options;
mod origin;
mod plan;
pub(super) mod reach;
mod reencrypt;
mod remove;
mod share;
#[cfg(test)]
mod tests;
mod world;

use std::collections::{HashMap, HashSet};
use std::time::Duration;

pub use logs::LogReport;
pub use options::{PruneOptions, PruneReport};
pub use plan::{PackFacts, Plan, Rules, plan};
pub use reencrypt::{ReencryptOptions, ReencryptReport, reencrypt};
pub use share::{Share, freed, shares};

use self::logs::Judged;
use self::mover::{Emptied, Mover, age};
use self::world::{World, look, may_have_moved, warn};
use crate::clock::Timestamp;
use crate::error::Error;
use crate::event::{Counters, Event, Phase};
use crate::format::gc::{PACKS_MAX, SNAPSHOTS_MAX};
use crate::format::layout::{self, ObjectName};
use crate::id::{ObjectHash, PackId, SnapshotId};
use crate::repo::{RepoError, Repository, StoredCondemnation};

/// How often a look is repeated that met another collector's work.
const LOOKS: usize = 4;
/// How often content is moved before a run gives up: each round but the last means that someone else changed something.
const ROUNDS: usize = 16;
/// A writer that stored an index object within this time may be at work.
const RECENT: Duration = Duration::from_secs(24 * 3600);

/// Removes forgotten snapshots whose time has come, finishes what earlier collections condemned, and condemns what nothing
/// needs any more.
///
/// # Errors
/// [`Error::ManyRemoved`], [`Error::WriterAtWork`], [`Error::NotListed`] and [`Error::SnapshotVanished`] when it refuses;
/// damage of a confirmed snapshot; and whatever the store says. Nothing is half done then that a later run does not finish.
pub async fn prune(repo: &Repository, options: &PruneOptions) -> Result<PruneReport, Error> {
    repo.maintainer()?;
    repo.intact_registry()?;
    let mut report = PruneReport::default();
    let clock = StoreClock::start(repo, options.dry_run).await?;
    let now = clock.now;
    let result = remove_and_collect(repo, options, now, &mut report).await;
    // Whatever happened: a nightly run that is refused must not leave one object more each time.
    let stopped = clock.stop(repo).await;
    let judged = result?;
    stopped?;
    locked::sweep(repo, (options, now), &judged, &mut report).await?;
    if options.dry_run {
        return Ok(report);
    }
    // The collection is done: what is left over costs little, and nothing depends on it.
    if let Err(error) = ledger::tidy(repo, now).await {
        warn(repo, &format!("old records of what was verified were not removed: {error}"));
    }
    if let Err(error) = repo.store().sweep_temporary().await {
        warn(repo, &format!("old temporary files were not removed: {error}"));
    }
    Ok(report)
}

async fn remove_and_collect(
    repo: &Repository,
    options: &PruneOptions,
    now: Timestamp,
    report: &mut PruneReport,
) -> Result<Judged, Error> {
    let mut accepted = HashSet::new();
    if options.accept_missing {
        let missing = world::vanished(repo).await?;
        if options.dry_run {
            accepted.extend(missing);
        } else {
            name_as_removed(repo, &missing).await?;
        }
    }
    remove::remove(repo, options, now, report).await?;
    Run { repo, options, now, accepted }.collect(report).await
}

/// The store's time, read off an empty condemnation that was just put.
struct StoreClock {
    now: Timestamp,
    mark: Option<ObjectHash>,
}

impl StoreClock {
    async fn start(repo: &Repository, dry_run: bool) -> Result<Self, Error> {
        if dry_run {
            return Ok(Self { now: repo.env().clock.now(), mark: None });
        }
        let mut marks = Vec::new();
        let failed = match Self::look(repo, &mut marks).await {
            Ok(Some((mark, now))) => return Ok(Self { now, mark: Some(mark) }),
            // Nothing that such a store does not list may be taken for gone.
            Ok(None) => Error::NotListed { url: repo.store().url().to_string() },
            Err(error) => error,
        };
        for mark in marks {
            // One that stays is cleared by a later collection; what went wrong first is more worth telling.
            let _ = remove::delete(repo, ObjectName::Condemned(mark)).await;
        }
        Err(failed)
    }

    /// Puts a mark and looks for it in a listing: the mark and its time. All that were put are in `marks`.
    async fn look(
        repo: &Repository,
        marks: &mut Vec<ObjectHash>,
    ) -> Result<Option<(ObjectHash, Timestamp)>, Error> {
        // A machine that slept in between may find that another collector has cleared its mark: then a new one tells.
        for _ in 0..2 {
            let mark = repo.put_condemnation(Vec::new()).await?;
            marks.push(mark);
            let key = ObjectName::Condemned(mark).key();
            let listed = repo.store().list(layout::CONDEMNED).await?;
            if let Some(put) = listed.iter().find(|object| object.key.as_str() == key) {
                return Ok(Some((mark, put.modified)));
            }
        }
        Ok(None)
    }

    async fn stop(self, repo: &Repository) -> Result<(), Error> {
        match self.mark {
            Some(mark) => remove::delete(repo, ObjectName::Condemned(mark)).await,
            None => Ok(()),
        }
    }
}

/// Names snapshots that vanished as removed, because someone said that they may be.
async fn name_as_removed(repo: &Repository, missing: &[SnapshotId]) -> Result<(), Error> {
    for part in missing.chunks(SNAPSHOTS_MAX) {
        repo.put_removal(part.to_vec()).await?;
    }
    Ok(())
}

struct Run<'a> {
    repo: &'a Repository,
    options: &'a PruneOptions,
    now: Timestamp,
    /// Snapshots that may be missing though nothing says so: what a dry run was told to accept.
    accepted: HashSet<SnapshotId>,
}

impl Run<'_> {
    /// Packs first, and then the logs of databases, by what the last look showed.
    async fn collect(&self, report: &mut PruneReport) -> Result<Judged, Error> {
        // Before snapshots are listed, as condemnations are.
        let known = logs::Known::list(self.repo).await?;
        let world = self.collect_packs(report).await?;
        logs::collect(self, (world, known), report).await
    }

    async fn collect_packs(&self, report: &mut PruneReport) -> Result<World, Error> {
        let known = self.condemned_before().await?;
        let mut world = self.look().await?;
        let matured = self.matured(&world, &known);
        let hurried = self.options.grace.is_zero();
        if !matured.is_empty() && !self.options.dry_run {
            // What another collector condemned a moment ago is as new to a backup as what this one condemns.
            if hurried {
                self.refuse_at_work(&world)?;
            }
            world = self.finish(world, &matured, report).await?;
        }
        let mut facts = self.facts(&world)?;
        if self.moves_whole() {
            self.count_segments(&world, &mut facts).await?;
        }
        report.plan = plan(facts, &self.options.rules());
        if self.options.dry_run || report.plan.is_empty() {
            self.account(&world, report);
            self.tidy(&world).await?;
            return Ok(world);
        }
        if hurried {
            self.refuse_at_work(&world)?;
        }
        let condemned: Vec<PackId> = report.plan.drop.iter().chain(&report.plan.rewrite).copied().collect();
        let mut fresh = Vec::new();
        for part in condemned.chunks(PACKS_MAX) {
            fresh.push(self.repo.put_condemnation(part.to_vec()).await?);
        }
        let mut world = self.look().await?;
        if hurried {
            world = self.finish(world, &fresh, report).await?;
        }
        self.account(&world, report);
        self.tidy(&world).await?;
        Ok(world)
    }

    /// Looks, again if another collector changed something between two listings.
    async fn look(&self) -> Result<World, Error> {
        self.repo.env().observer.observe(&Event::PhaseStarted { phase: Phase::Mark, total: None });
        let mut looks = 1;
        loop {
            match look(self.repo, &self.accepted, !self.options.dry_run).await {
                Err(error) if may_have_moved(&error) && looks < LOOKS => looks += 1,
                other => {
                    self.repo.env().observer.observe(&Event::PhaseFinished { phase: Phase::Mark });
                    return other;
                }
            }
        }
    }

    /// Condemnations that are durable before snapshots are listed. What another collector condemns after that listing, a
    /// snapshot that is not in it may depend on, whatever clocks say.
    async fn condemned_before(&self) -> Result<HashSet<ObjectHash>, Error> {
        let listed = self.repo.store().list(layout::CONDEMNED).await?;
        let named = listed.iter().filter_map(|object| match ObjectName::parse(object.key.as_str())? {
            ObjectName::Condemned(hash) => Some(hash),
            _ => None,
        });
        Ok(named.collect())
    }

    /// Condemnations whose time has come, of those that were `known` before this look began.
    fn matured(&self, world: &World, known: &HashSet<ObjectHash>) -> Vec<ObjectHash> {
        let due = |stored: &&StoredCondemnation| {
            known.contains(&stored.hash) && age(self.now, stored.stored) >= self.options.grace
        };
        let real = world.condemnations.iter().filter(|stored| !stored.condemnation.packs.is_empty());
        real.filter(due).map(|stored| stored.hash).collect()
    }

    /// Whether this key cannot take a segment apart, and moves it with what is dead in it.
    fn moves_whole(&self) -> bool {
        let secrets = self.repo.secrets();
        secrets.dedup.is_none() || secrets.data.is_none()
    }

    /// Counts a segment in which anything is needed as needed, as it is moved: else what is moved today would have to be moved
    /// again tomorrow. Only the directories of packs tell which chunks lie together.
    async fn count_segments(&self, world: &World, facts: &mut [PackFacts]) -> Result<(), Error> {
        for fact in facts.iter_mut().filter(|fact| fact.live > 0 && fact.live < fact.plain) {
            if self.repo.env().cancel.is_raised() {
                return Err(Error::Cancelled);
            }
            let directory = match self.repo.read_directory(fact.id, fact.size).await {
                Ok((_, directory)) => directory,
                Err(error @ (RepoError::Store(_) | RepoError::RoleForbids { .. })) => {
                    return Err(error.into());
                }
                // What it holds is not known, so all of it stays.
                Err(_) => {
                    fact.live = fact.plain;
                    continue;
                }
            };
            let mut needed = vec![false; directory.segments.len()];
            for chunk in &directory.chunks {
                needed[usize::from(chunk.segment)] |= world.live.is_live(&chunk.id)?;
            }
            let rows = directory.segments.iter().zip(needed).filter(|(_, needed)| *needed);
            fact.live = rows.map(|(segment, _)| u64::from(segment.plain_len)).sum::<u64>().max(1);
        }
        Ok(())
    }

    /// What is known of each pack that nobody condemned.
    fn facts(&self, world: &World) -> Result<Vec<PackFacts>, Error> {
        let condemned = world.condemned();
        let mut facts: HashMap<PackId, PackFacts> = HashMap::new();
        for (id, listed) in world.packs.iter().filter(|(id, _)| !condemned.contains(id)) {
            let age = age(self.now, listed.stored);
            let (size, kind) = (listed.size, None);
            facts.insert(*id, PackFacts { id: *id, kind, size, plain: 0, live: 0, age });
        }
        let view = world.live.view();
        for pack in view.packs() {
            let (number, row) = pack?;
            let Some(fact) = facts.get_mut(&row.id) else { continue };
            fact.live += world.live.usage(number).bytes;
            if fact.kind.is_none() {
                fact.kind = Some(row.kind);
                let plain = |segment: &crate::format::segment::SegmentEntry| u64::from(segment.plain_len);
                fact.plain = view.segments(number)?.iter().map(plain).sum();
            }
        }
        Ok(facts.into_values().collect())
    }

    /// Without a delay a backup that is at work would lose what it was about to use, and read it again.
    fn refuse_at_work(&self, world: &World) -> Result<(), Error> {
        if self.options.force {
            return Ok(());
        }
        let unused = unused_objects(world)?;
        let at_work = world.index_times.iter().find(|(listed, stored)| {
            let later = |s: &crate::repo::Listed| s.writer == listed.0 && s.stored >= *stored;
            let recent = age(self.now, *stored) < RECENT && unused.contains(&listed.1);
            recent && !world.snapshots.iter().any(later)
        });
        at_work.map_or(Ok(()), |((writer, _), _)| Err(Error::WriterAtWork { writer: *writer }))
    }

    /// Empties and deletes the packs of these condemnations; gives the last look at the repository.
    async fn finish(
        &self,
        mut world: World,
        which: &[ObjectHash],
        report: &mut PruneReport,
    ) -> Result<World, Error> {
        let chosen: HashSet<ObjectHash> = which.iter().copied().collect();
        let mut left: HashMap<PackId, String> = HashMap::new();
        for _ in 0..ROUNDS {
            let doomed = doomed(&world, &chosen, &left);
            let total =
                doomed.iter().filter_map(|pack| world.packs.get(pack)).map(|listed| listed.size).sum();
            self.repo
                .env()
                .observer
                .observe(&Event::PhaseStarted { phase: Phase::Collect, total: Some(total) });
            let mut mover = Mover::new(self.repo, &world)?;
            let mut full = Vec::new();
            for pack in doomed {
                match mover.empty(&mut world, pack, false).await? {
                    Emptied::Dead => {
                        self.delete(&mut world, pack, report).await?;
                    }
                    Emptied::Full => full.push(pack),
                    Emptied::Left(reason) => self.leave(pack, reason, &mut left),
                    Emptied::Moved => {}
                }
            }
            let moved = self.make_room(&mut mover, &mut world, full, &mut left).await?;
            report.add(&mover.totals);
            self.repo.env().observer.observe(&Event::PhaseFinished { phase: Phase::Collect });
            if !moved {
                break;
            }
            world = self.look().await?;
        }
        report.left.extend(left.iter().map(|(id, why)| (ObjectName::Pack(*id).key(), why.clone())));
        report.left.sort();
        report.left.dedup();
        let left = left.into_keys().collect();
        finish::end(self.repo, world, (&chosen, &left), report).await
    }

    /// Moves what is needed out of these packs, as far as the store has room. False if there was nothing to move.
    async fn make_room(
        &self,
        mover: &mut Mover<'_>,
        world: &mut World,
        full: Vec<PackId>,
        left: &mut HashMap<PackId, String>,
    ) -> Result<bool, Error> {
        let mut moved = false;
        for pack in full {
            let free = self.repo.store().free_space().await;
            if free.is_some_and(|free| free < self.options.reserve) {
                warn(self.repo, "the store is nearly full: what is needed of condemned packs waits for room");
                break;
            }
            self.stop_if_asked()?;
            match mover.empty(world, pack, true).await? {
                Emptied::Moved => moved = true,
                Emptied::Left(reason) => self.leave(pack, reason, left),
                Emptied::Dead | Emptied::Full => {}
            }
        }
        mover.finish().await?;
        Ok(moved)
    }

    fn leave(&self, pack: PackId, reason: String, left: &mut HashMap<PackId, String>) {
        warn(self.repo, &format!("pack {} was left alone: {reason}", pack.short()));
        left.insert(pack, reason);
    }

    fn stop_if_asked(&self) -> Result<(), Error> {
        if self.repo.env().cancel.is_raised() { Err(Error::Cancelled) } else { Ok(()) }
    }

    async fn delete(&self, world: &mut World, pack: PackId, report: &mut PruneReport) -> Result<(), Error> {
        self.stop_if_asked()?;
        remove::delete(self.repo, ObjectName::Pack(pack)).await?;
        if let Some(listed) = world.packs.remove(&pack) {
            report.deleted += 1;
            report.deleted_bytes += listed.size;
            Counters::add(&self.repo.env().observer.counters().bytes, listed.size);
        }
        Ok(())
    }

    fn account(&self, world: &World, report: &mut PruneReport) {
        report.pack_bytes = world.packs.values().map(|listed| listed.size).sum();
        let mut waiting = HashSet::new();
        for stored in &world.condemnations {
            let here = stored.condemnation.packs.iter().filter(|pack| world.packs.contains_key(pack));
            let before = waiting.len();
            waiting.extend(here.copied());
            if waiting.len() > before {
                let grace = i64::try_from(self.options.grace.as_nanos()).unwrap_or(i64::MAX);
                let due = Timestamp(stored.stored.0.saturating_add(grace));
                report.due = report.due.max(Some(due));
            }
        }
        report.condemned = waiting.len() as u64;
        report.condemned_bytes = waiting.iter().filter_map(|p| world.packs.get(p)).map(|l| l.size).sum();
    }

    /// Small things: index objects that were replaced, condemnations that say nothing any more.
    async fn tidy(&self, world: &World) -> Result<(), Error> {
        if self.options.dry_run { Ok(()) } else { finish::tidy(self.repo, world, self.now).await }
    }
}

/// Index objects with a pack that nothing needs, as those of a run have that is at work. What a collection moved is needed, and
/// what it merged was said before.
fn unused_objects(world: &World) -> Result<HashSet<ObjectHash>, Error> {
    let view = world.live.view();
    let mut unused = HashSet::new();
    for pack in view.packs() {
        let (number, row) = pack?;
        if world.live.usage(number).chunks == 0 && world.packs.contains_key(&row.id) {
            let source = view.pack_source(number)?;
            if source.supersedes.is_empty() {
                unused.insert(source.object);
            }
        }
    }
    Ok(unused)
}

/// The packs of these condemnations that are still there, without those that must stay.
fn doomed(world: &World, chosen: &HashSet<ObjectHash>, left: &HashMap<PackId, String>) -> Vec<PackId> {
    let said = world.condemnations.iter().filter(|stored| chosen.contains(&stored.hash));
    let packs: HashSet<PackId> = said.flat_map(|stored| stored.condemnation.packs.iter().copied()).collect();
    let mut here: Vec<PackId> =
        packs.into_iter().filter(|pack| world.packs.contains_key(pack) && !left.contains_key(pack)).collect();
    here.sort_unstable();
    here
}
