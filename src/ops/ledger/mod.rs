//! What the ledger says of what is stored: what was verified when, what comes next, and what that is worth.
//!
//! # Invariants
//! Objects are verified in the order in which they were looked at last, or stored. So what is stored meanwhile comes after all that
//! is there, and everything is verified within as many runs as what is there now takes, however much is added. What was found
//! damaged takes its turn with the others, so that it keeps nothing from being verified, and is damaged until as close a look finds
//! it good.
//!
//! # Must not
//! Take anything for verified that is only claimed for a time to come, that was stored since, or that somebody says whose word does
//! not count ([`Repository::each_verified`] sees to that).

mod plan;

use std::collections::HashMap;
use std::time::Duration;

pub use plan::{Forecast, Purse, forecast, order, rounds, superseded};

use crate::clock::{Timestamp, later};
use crate::error::Error;
use crate::event::Event;
use crate::format::layout;
use crate::format::ledger::Look;
use crate::id::ObjectHash;
use crate::repo::{Problem, RepoError, Repository, StoredVerified};

/// What somebody found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fact {
    /// It is as it should be.
    Good,
    /// It is not.
    Damaged,
}

/// A pack, or a file of a log, as a listing shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// Hash of the object, which is in its name.
    pub hash: ObjectHash,
    /// Bytes.
    pub size: u64,
    /// When the store got it.
    pub stored: Timestamp,
}

/// The end of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunEnd {
    /// When, by the store's clock.
    pub at: Timestamp,
    /// How objects were looked at.
    pub look: Look,
    /// How many damages it knew of.
    pub damages: u64,
}

/// When an object was seen, each in nanoseconds; the lowest for never.
#[derive(Debug, Clone, Copy)]
struct Seen {
    /// Found good, by each look.
    good: [i64; 2],
    /// Found damaged, by each look.
    damaged: [i64; 2],
}

const NEVER: i64 = i64::MIN;

/// Clocks of the store and of this machine may differ by this much. What is said of a later time cannot be.
const SKEW: Duration = Duration::from_secs(3600);

/// What records say, taken together.
#[derive(Debug, Clone)]
pub struct Ledger {
    /// Nothing was stored, or looked at, after this.
    limit: Timestamp,
    seen: HashMap<ObjectHash, Seen>,
    /// Ends of runs, oldest first.
    ends: Vec<RunEnd>,
}

/// How much of what is stored was verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Coverage {
    /// How it has to have been looked at to count.
    pub look: Look,
    /// Packs and files of logs.
    pub objects: u64,
    /// Bytes of these.
    pub bytes: u64,
    /// Bytes of those that were found good.
    pub verified: u64,
    /// How many are known to be damaged.
    pub damaged: u64,
    /// When the one that waits for longest was found good, or stored if nobody looked at it since; damaged ones aside.
    pub oldest: Option<Timestamp>,
}

impl Ledger {
    /// One that knows of nothing.
    pub fn new(now: Timestamp) -> Self {
        Self { limit: later(now, SKEW), seen: HashMap::new(), ends: Vec::new() }
    }

    /// What these records say.
    pub fn of(records: &[StoredVerified], now: Timestamp) -> Self {
        let mut ledger = Self::new(now);
        records.iter().for_each(|record| ledger.take(record));
        ledger
    }

    /// Whether a record was put before now.
    fn believes(&self, record: &StoredVerified) -> bool {
        record.stored <= self.limit
    }

    /// Takes what a record says. What it says of a time that has not come is not believed.
    pub fn take(&mut self, record: &StoredVerified) {
        if !self.believes(record) {
            return;
        }
        let (at, look) = (record.since(), record.verified.look);
        for hash in &record.verified.good {
            self.add(*hash, Fact::Good, (look, at));
        }
        for hash in &record.verified.damaged {
            self.add(*hash, Fact::Damaged, (look, at));
        }
        if let Some(damages) = record.verified.ended {
            self.ended(RunEnd { at, look, damages });
        }
    }

    /// Reads the ledger. Records that cannot be read are warned of: what they say is verified again.
    pub async fn read(repo: &Repository) -> Result<Self, Error> {
        let mut problems = Vec::new();
        let mut ledger = Self::new(repo.env().clock.now());
        repo.each_verified(&mut problems, |record| ledger.take(&record)).await?;
        let revoked = |problem: &Problem| matches!(problem.error, RepoError::AfterRevocation { .. });
        for problem in problems.iter().filter(|problem| !revoked(problem)) {
            let message = format!("{} does not count: {}", problem.key, problem.error);
            repo.env().observer.observe(&Event::Warning { message: &message });
        }
        Ok(ledger)
    }

    /// Adds what was found of an object.
    pub fn add(&mut self, hash: ObjectHash, fact: Fact, (look, at): (Look, Timestamp)) {
        let seen = self.seen.entry(hash).or_insert(Seen { good: [NEVER; 2], damaged: [NEVER; 2] });
        let (times, looks) = match fact {
            // A closer look sees all that the other one does.
            Fact::Good => (&mut seen.good, 0..=look as usize),
            Fact::Damaged => (&mut seen.damaged, look as usize..=look as usize),
        };
        for time in &mut times[looks] {
            *time = (*time).max(at.0);
        }
    }

    /// Adds the end of a run.
    pub fn ended(&mut self, end: RunEnd) {
        let place = self.ends.partition_point(|other| other.at <= end.at);
        self.ends.insert(place, end);
    }

    /// The ends of runs that looked so, or closer, oldest first.
    pub fn ends(&self, look: Look) -> impl DoubleEndedIterator<Item = &RunEnd> {
        self.ends.iter().filter(move |end| end.look >= look)
    }

    /// When an object was last found good by such a look, or a closer one.
    pub fn good(&self, hash: &ObjectHash, look: Look) -> Option<Timestamp> {
        let at = self.seen.get(hash)?.good[look as usize];
        (at != NEVER).then_some(Timestamp(at))
    }

    /// Whether anything is known to be damaged, be it there still or not.
    pub fn knows_damage(&self) -> bool {
        self.seen.keys().any(|hash| self.is_damaged(hash))
    }

    /// Whether an object was found damaged, and not found good since by as close a look.
    pub fn is_damaged(&self, hash: &ObjectHash) -> bool {
        let stands = |(damaged, good): (&i64, &i64)| *damaged != NEVER && damaged >= good;
        self.seen.get(hash).is_some_and(|seen| seen.damaged.iter().zip(&seen.good).any(stands))
    }

    /// Since when an object waits to be looked at: since somebody looked so closely, or closer, or it was stored. One that claims
    /// to have been stored in time to come waits for longest.
    pub fn waits(&self, stored: &Stored, look: Look) -> Timestamp {
        let looked = self.seen.get(&stored.hash).map_or(NEVER, |seen| {
            let damaged = seen.damaged[look as usize..].iter().copied().max().unwrap_or(NEVER);
            damaged.max(seen.good[look as usize])
        });
        let stored = if stored.stored > self.limit { NEVER } else { stored.stored.0 };
        Timestamp(stored.max(looked))
    }

    /// How much of this was verified.
    pub fn coverage(&self, all: &[Stored], look: Look) -> Coverage {
        let mut coverage = Coverage { look, objects: 0, bytes: 0, verified: 0, damaged: 0, oldest: None };
        for stored in all {
            coverage.objects += 1;
            coverage.bytes += stored.size;
            if self.is_damaged(&stored.hash) {
                coverage.damaged += 1;
                continue;
            }
            // What was found of it before it was stored anew says nothing.
            let known = stored.stored.min(self.limit);
            if self.good(&stored.hash, look).is_some_and(|good| good >= known || stored.stored > self.limit) {
                coverage.verified += stored.size;
            }
            let waits = self.waits(stored, look);
            coverage.oldest = Some(coverage.oldest.map_or(waits, |oldest| oldest.min(waits)));
        }
        coverage
    }
}

impl Coverage {
    /// How long the one waits that waits for longest.
    pub fn age(&self, now: Timestamp) -> Duration {
        let age = self.oldest.map_or(0, |oldest| now.0.saturating_sub(oldest.0));
        Duration::from_nanos(u64::try_from(age).unwrap_or(0))
    }
}

/// Packs and files of logs that the store shows: what [`Ledger::coverage`] goes by.
pub async fn stored(repo: &Repository) -> Result<Vec<Stored>, Error> {
    let mut all = Vec::new();
    for prefix in [layout::PACKS, layout::STREAMS] {
        for (name, size, stored) in repo.list_named(prefix).await? {
            all.extend(name.content_hash().map(|hash| Stored { hash, size, stored }));
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests;
