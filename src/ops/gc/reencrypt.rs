//! Sealing again what is under data keys that were sealed to replaced keys (`docs/protocol.md`, Replacing keys).
//!
//! # Invariants
//! What an old pack holds that is needed is durable in packs under new keys, and an index object names these, before the old pack
//! is condemned. Nothing is deleted here: a collection does that when the grace has passed, after it looked again. No pack with
//! anything under an old key counts as another copy, and nothing is moved as it is that is under one.
//!
//! # Crash
//! New packs beside the old ones, some of which are condemned: the next run goes on with those that are not, and what is there
//! under new keys already is not sealed again.

use std::collections::{BTreeMap, HashMap};

use super::mover::{Emptied, Mover};
use super::world::{still_counts, warn};
use super::{ROUNDS, Run};
use crate::error::Error;
use crate::event::{Counters, Event, Phase};
use crate::format::layout::ObjectName;
use crate::id::PackId;
use crate::index::{DataKeyNumber, View};
use crate::repo::{Repository, Task};

use super::options::PruneOptions;

/// Packs after which those that were sealed again are condemned: so much is done twice at most after a crash.
const BATCH: usize = 32;

/// How to seal again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReencryptOptions {
    /// Bytes that must stay free on a local store.
    pub reserve: u64,
    /// Only say how much there is.
    pub dry_run: bool,
}

/// What was sealed again, or would be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReencryptReport {
    /// Packs with something under an old key that nobody condemned, when the run began.
    pub old: u64,
    /// Bytes of these.
    pub old_bytes: u64,
    /// Bytes of all packs in the index that nobody condemned.
    pub pack_bytes: u64,
    /// Old packs that were condemned: a collection deletes them when the grace has passed.
    pub condemned: u64,
    /// Bytes of these.
    pub condemned_bytes: u64,
    /// Packs that were written.
    pub written: u64,
    /// Bytes of these.
    pub written_bytes: u64,
    /// Old packs that stay as they are, with the reason, by key.
    pub left: Vec<(String, String)>,
    /// Whether the store became too full to go on.
    pub full: bool,
}

/// Seals again what is under old keys, in packs that nobody condemned, and condemns these.
///
/// # Errors
/// [`crate::repo::RepoError::WrongRole`], [`crate::repo::RepoError::StaleKey`]; what ends a collection. What was done until then stays
/// done.
pub async fn reencrypt(repo: &Repository, options: ReencryptOptions) -> Result<ReencryptReport, Error> {
    repo.allow(Task::Reencrypt)?;
    let mut report = ReencryptReport::default();
    let index = repo.load_index().await?;
    let counts = |pack: &PackId| index.packs.contains(pack) && !index.condemned.contains(pack);
    let old = old_packs(repo, &index.view, counts)?;
    (report.old, report.old_bytes) = (old.len() as u64, old.values().sum());
    report.pack_bytes = all_bytes(&index.view, counts)?;
    if options.dry_run || old.is_empty() {
        return Ok(report);
    }
    drop(index);
    repo.maintainer()?;
    repo.intact_registry()?;
    let collector = PruneOptions { reserve: options.reserve, ..PruneOptions::default() };
    let now = repo.env().clock.now();
    let run = Run { repo, options: &collector, now, accepted: Default::default() };
    run.seal_again(&mut report).await?;
    still_counts(repo).await?;
    Ok(report)
}

/// The packs with a segment under a data key that is sealed to others than the configuration names, and their bytes.
fn old_packs(
    repo: &Repository,
    view: &View,
    counts: impl Fn(&PackId) -> bool,
) -> Result<BTreeMap<PackId, u64>, Error> {
    let mut known: HashMap<DataKeyNumber, bool> = HashMap::new();
    let mut found = BTreeMap::new();
    for pack in view.packs() {
        let (number, row) = pack?;
        if found.contains_key(&row.id) || !counts(&row.id) {
            continue;
        }
        for segment in view.segments(number)? {
            let key = view.segment_key(number, &segment)?;
            let old = match known.get(&key) {
                Some(old) => *old,
                None => repo.is_sealed_to_others(view.data_key(key)?),
            };
            known.insert(key, old);
            if old {
                found.insert(row.id, u64::from(row.size));
                break;
            }
        }
    }
    Ok(found)
}

fn all_bytes(view: &View, counts: impl Fn(&PackId) -> bool) -> Result<u64, Error> {
    let mut sizes = HashMap::new();
    for pack in view.packs() {
        let (_, row) = pack?;
        if counts(&row.id) {
            sizes.insert(row.id, u64::from(row.size));
        }
    }
    Ok(sizes.values().sum())
}

impl Run<'_> {
    /// Until a look finds nothing old that is not condemned: a backup that began before the keys were replaced may end meanwhile.
    async fn seal_again(&self, report: &mut ReencryptReport) -> Result<(), Error> {
        let mut left: HashMap<PackId, String> = HashMap::new();
        for _ in 0..ROUNDS {
            let mut world = self.look().await?;
            let condemned = world.condemned();
            let counts = |pack: &PackId| world.packs.contains_key(pack) && !condemned.contains(pack);
            let old = old_packs(self.repo, &world.index.view, counts)?;
            let mut mover = Mover::new(self.repo, &world)?.renewing(old.keys());
            let todo: Vec<(PackId, u64)> =
                old.into_iter().filter(|(pack, _)| !left.contains_key(pack)).collect();
            if todo.is_empty() || report.full {
                break;
            }
            let total = report.condemned_bytes + todo.iter().map(|(_, size)| size).sum::<u64>();
            let phase = Phase::Reencrypt;
            self.repo.env().observer.observe(&Event::PhaseStarted { phase, total: Some(total) });
            for batch in todo.chunks(BATCH) {
                self.seal_batch((&mut mover, &mut world), batch, &mut left, report).await?;
                if report.full {
                    break;
                }
            }
            (report.written, report.written_bytes) =
                (report.written + mover.totals.packs, report.written_bytes + mover.totals.pack_bytes);
            self.repo.env().observer.observe(&Event::PhaseFinished { phase });
        }
        report.left = left.into_iter().map(|(id, why)| (ObjectName::Pack(id).key(), why)).collect();
        report.left.sort();
        Ok(())
    }

    /// Seals what is needed of these packs again, makes that durable, and condemns them.
    async fn seal_batch(
        &self,
        (mover, world): (&mut Mover<'_>, &mut super::world::World),
        batch: &[(PackId, u64)],
        left: &mut HashMap<PackId, String>,
        report: &mut ReencryptReport,
    ) -> Result<(), Error> {
        let (mut done, mut bytes) = (Vec::new(), 0);
        for (pack, size) in batch {
            self.stop_if_asked()?;
            let free = self.repo.store().free_space().await;
            if free.is_some_and(|free| free < self.options.reserve) {
                warn(self.repo, "the store is nearly full: the rest waits for room");
                report.full = true;
                break;
            }
            match mover.empty(world, *pack, true).await? {
                Emptied::Left(reason) => self.leave(*pack, reason, left),
                Emptied::Dead | Emptied::Full | Emptied::Moved => {
                    done.push(*pack);
                    bytes += size;
                }
            }
            Counters::add(&self.repo.env().observer.counters().bytes, *size);
        }
        mover.finish().await?;
        if !done.is_empty() {
            (report.condemned, report.condemned_bytes) =
                (report.condemned + done.len() as u64, report.condemned_bytes + bytes);
            self.repo.put_condemnation(done).await?;
        }
        Ok(())
    }
}
