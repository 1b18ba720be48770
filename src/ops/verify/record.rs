//! What a verification has to do with the ledger: which objects come next, and what was found of them.
//!
//! # Crash
//! What was found since the last record is not known, and is looked at again.

use std::collections::HashSet;
use std::time::Duration;

use super::finding::{Severity, VerifyReport, pack_key};
use super::survey::Survey;
use super::{Budget, Covered, Depth, VerifyOptions};
use crate::clock::Timestamp;
use crate::error::Error;
use crate::event::Event;
use crate::format::layout::{self, ObjectName};
use crate::format::ledger::{Look, VERIFIED_MAX};
use crate::format::log::LOG_MAX;
use crate::format::pack::PACK_MAX;
use crate::id::{ObjectHash, PackId};
use crate::ops::ledger::{Fact, Ledger, RunEnd, Stored, forecast, next, rounds};
use crate::repo::{ListedLog, NewlyVerified, Repository};

/// An object with content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Item {
    /// A pack.
    Pack(PackId),
    /// A file of a database's log.
    Log(ListedLog),
}

impl Item {
    pub(super) fn key(&self) -> String {
        match self {
            Self::Pack(pack) => pack_key(*pack),
            Self::Log(log) => ObjectName::Log(log.name).key(),
        }
    }

    /// Most bytes that such an object may have.
    pub(super) const fn size_max(&self) -> u64 {
        match self {
            Self::Pack(_) => PACK_MAX as u64,
            Self::Log(_) => LOG_MAX,
        }
    }

    fn hash(&self) -> ObjectHash {
        match self {
            Self::Pack(pack) => ObjectHash::from(*pack),
            Self::Log(log) => log.name.hash,
        }
    }
}

/// An object that is to be read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Queued {
    pub(super) item: Item,
    pub(super) size: u64,
}

/// What one verification, however often it begins again, asks of the ledger and tells it.
pub(super) struct Recorder<'a> {
    repo: &'a Repository,
    options: VerifyOptions,
    look: Look,
    /// What it said when this began; nothing if it is not asked.
    ledger: Option<Ledger>,
    /// What is stored, as it was listed last.
    all: Vec<Stored>,
    /// What was found, and is in no record.
    new: NewlyVerified,
    /// When the first of it was looked at, by both clocks.
    since: (Timestamp, Duration),
    /// What was found, and when it was looked at.
    found: Vec<(ObjectHash, Fact, Timestamp)>,
    /// Bytes of that.
    done: u64,
}

impl<'a> Recorder<'a> {
    pub(super) async fn start(repo: &'a Repository, options: &VerifyOptions) -> Result<Self, Error> {
        let look = match options.depth {
            Depth::Data => Look::Opened,
            Depth::Packs | Depth::Structure => Look::Read,
        };
        if options.budget.is_some() {
            repo.may_record()?;
        }
        let records = options.budget.is_some() || (options.record && repo.may_record().is_ok());
        let asked = options.depth > Depth::Structure && records;
        let mut recorder = Self {
            repo,
            options: *options,
            look,
            ledger: None,
            all: Vec::new(),
            new: NewlyVerified::default(),
            since: now(repo),
            found: Vec::new(),
            done: 0,
        };
        if asked {
            match Ledger::read(repo).await {
                Ok(ledger) => recorder.ledger = Some(ledger),
                Err(error) => recorder.give_up(error)?,
            }
        }
        Ok(recorder)
    }

    /// Where nothing depends on the ledger, a store that does not want it is no reason to verify nothing.
    fn give_up(&mut self, error: Error) -> Result<(), Error> {
        if self.options.budget.is_some() || matches!(error, Error::Cancelled) {
            return Err(error);
        }
        let message = format!("what is verified is not recorded: {}", error);
        self.repo.env().observer.observe(&Event::Warning { message: &message });
        self.ledger = None;
        Ok(())
    }

    /// For how long objects may be begun.
    pub(super) fn time(&self) -> Option<Duration> {
        match self.options.budget {
            Some(Budget::Time(time)) => Some(time),
            Some(Budget::Bytes(_)) | None => None,
        }
    }

    /// What is to be read, in the order in which it is: all, or as much as there is a budget for.
    pub(super) async fn queue(&mut self, survey: &Survey) -> Result<Vec<Queued>, Error> {
        let logs = self.repo.list_logs(layout::STREAMS).await?;
        let packs = survey.packs.iter().filter(|pack| pack.size <= PACK_MAX as u64);
        let packs = packs.map(|pack| (Item::Pack(pack.id), pack.size, pack.stored));
        let logs = logs.into_iter().map(|log| (Item::Log(log), log.size, log.stored));
        let all: Vec<(Item, u64, Timestamp)> = packs.chain(logs).collect();
        let stored = |(item, size, stored): &(Item, u64, Timestamp)| Stored {
            hash: item.hash(),
            size: *size,
            stored: *stored,
        };
        let mut queue: Vec<Queued> =
            all.iter().map(|(item, size, _)| Queued { item: *item, size: *size }).collect();
        let Some(ledger) = &self.ledger else { return Ok(queue) };
        self.all = all.iter().map(stored).collect();
        if let Some(budget) = self.options.budget {
            let most = match budget {
                Budget::Bytes(most) => most,
                Budget::Time(_) => u64::MAX,
            };
            queue = next(ledger, (&self.all, self.look), most).into_iter().map(|at| queue[at]).collect();
        }
        Ok(queue)
    }

    /// How many objects fit into one record.
    pub(super) const fn room() -> usize {
        VERIFIED_MAX
    }

    /// Says that what is looked at from here on belongs to the next record.
    pub(super) fn begin(&mut self) {
        self.since = now(self.repo);
    }

    /// Says what an object turned out to be.
    pub(super) fn looked(&mut self, item: Item, size: u64, fact: Fact) {
        self.done += size;
        if self.ledger.is_none() {
            return;
        }
        let hash = item.hash();
        match fact {
            Fact::Good => self.new.good.push(hash),
            Fact::Damaged => self.new.damaged.push(hash),
        }
        self.found.push((hash, fact, self.since.0));
    }

    /// Puts a record of what was found since the last one.
    pub(super) async fn put(&mut self) -> Result<(), Error> {
        if self.new.good.is_empty() && self.new.damaged.is_empty() && self.new.ended.is_none() {
            return Ok(());
        }
        let mut new = std::mem::take(&mut self.new);
        // A clock that was set, and one that stood still while the machine slept: the longer time is the careful one.
        let (wall, steady) = now(self.repo);
        let passed = u64::try_from(wall.0.saturating_sub(self.since.0.0)).unwrap_or(0);
        let slept = steady.saturating_sub(self.since.1).as_nanos();
        new.passed = passed.max(u64::try_from(slept).unwrap_or(u64::MAX));
        match self.repo.put_verified(self.look, new).await {
            Ok(_) => Ok(()),
            Err(error) => self.give_up(error.into()),
        }
    }

    /// Says that the verification came to its end, and gives what the ledger says now.
    pub(super) async fn end(mut self, report: &VerifyReport) -> Result<Option<Covered>, Error> {
        if self.ledger.is_none() {
            return Ok(None);
        }
        let Some(mut ledger) = self.ledger.clone() else { return Ok(None) };
        let looked: HashSet<ObjectHash> = self.found.iter().map(|(hash, ..)| *hash).collect();
        for (hash, fact, since) in self.found.drain(..) {
            ledger.add(hash, fact, (self.look, since));
        }
        let coverage = ledger.coverage(&self.all, self.look);
        let known = self.all.iter().filter(|stored| ledger.is_damaged(&stored.hash));
        let known = known.filter(|stored| !looked.contains(&stored.hash)).count() as u64;
        let found = report.findings.iter().filter(|finding| finding.severity == Severity::Damage);
        let damages = known + found.count() as u64;
        if self.new.good.is_empty() && self.new.damaged.is_empty() {
            self.begin();
        }
        self.new.ended = Some(damages);
        self.put().await?;
        if self.ledger.is_none() {
            return Ok(None);
        }
        let at = self.repo.env().clock.now();
        ledger.ended(RunEnd { at, look: self.look, damages, author: self.repo.may_record()? });
        let ends: Vec<Timestamp> = ledger.ends(self.look).map(|end| end.at).collect();
        let runs = match self.options.budget {
            None => Some(1),
            Some(Budget::Bytes(most)) => Some(rounds(&ledger, (&self.all, self.look), most)),
            Some(Budget::Time(_)) if self.done >= coverage.bytes => Some(1),
            // One more: how far a run comes is not always the same.
            Some(Budget::Time(_)) => coverage.bytes.checked_div(self.done).map(|runs| runs + 2),
        };
        Ok(Some(Covered { coverage, forecast: runs.map(|runs| forecast(runs, &ends)), known, at }))
    }
}

fn now(repo: &Repository) -> (Timestamp, Duration) {
    let clock = &repo.env().clock;
    (clock.now(), clock.monotonic())
}
