//! What a verification has to do with the ledger: which objects come next, and what was found of them.
//!
//! # Crash
//! What was found since the last record is not known, and is looked at again.

use std::collections::HashSet;
use std::time::Duration;

use super::finding::{Finding, Problem, Severity, VerifyReport, pack_key};
use super::survey::Survey;
use super::{Budget, Covered, Depth, VerifyOptions};
use crate::clock::Timestamp;
use crate::error::Error;
use crate::event::Event;
use crate::format::layout::{self, ObjectName};
use crate::format::ledger::Look;
use crate::format::log::LOG_MAX;
use crate::format::pack::PACK_MAX;
use crate::id::{ObjectHash, PackId};
use crate::ops::ledger::{Fact, Ledger, RunEnd, Stored, forecast, order, rounds};
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
    /// Why a run within a budget cannot go on.
    failure: Option<Error>,
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
            new: NewlyVerified::new(repo.env().clock.now()),
            since: now(repo),
            found: Vec::new(),
            done: 0,
            failure: None,
        };
        if asked {
            match Ledger::read(repo).await {
                Ok(ledger) => recorder.ledger = Some(ledger),
                Err(error) if options.budget.is_some() => return Err(error),
                Err(error) => recorder.give_up(error)?,
            }
        }
        Ok(recorder)
    }

    /// A store that does not want the ledger is no reason to verify nothing, and none to say nothing of what is found. Within a
    /// budget it ends the run, because the next one would look at the same.
    fn give_up(&mut self, error: Error) -> Result<(), Error> {
        if matches!(error, Error::Cancelled) {
            return Err(error);
        }
        let message = format!("what is verified is not recorded: {error}");
        self.repo.env().observer.observe(&Event::Warning { message: &message });
        self.ledger = None;
        self.failure = self.options.budget.and(Some(error));
        Ok(())
    }

    /// Whether the ledger is not to be had, and without it nothing makes sense.
    pub(super) fn has_failed(&self) -> bool {
        self.failure.is_some()
    }

    /// Why.
    pub(super) fn take_failure(&mut self) -> Option<Error> {
        self.failure.take()
    }

    /// Whether what is looked at is written down.
    pub(super) fn keeps(&self) -> bool {
        self.ledger.is_some()
    }

    /// How many bytes may be looked at.
    pub(super) fn bytes(&self) -> u64 {
        match self.options.budget {
            Some(Budget::Bytes(bytes)) => bytes,
            Some(Budget::Time(_)) | None => u64::MAX,
        }
    }

    /// For how long objects may be begun.
    pub(super) fn time(&self) -> Option<Duration> {
        match self.options.budget {
            Some(Budget::Time(time)) => Some(time),
            Some(Budget::Bytes(_)) | None => None,
        }
    }

    /// What is to be read, in the order in which it is. What is larger than any such object is a finding, and not read.
    pub(super) async fn queue(&mut self, survey: &mut Survey) -> Result<Vec<Queued>, Error> {
        // What a try that begins again has found is known by now.
        self.learn();
        let packs = survey.packs.iter().map(|pack| (Item::Pack(pack.id), pack.size, pack.stored));
        let mut all: Vec<(Item, u64, Timestamp)> =
            packs.filter(|(_, size, _)| *size <= PACK_MAX as u64).collect();
        for log in self.repo.list_logs(layout::STREAMS).await? {
            let item = Item::Log(log);
            if log.size <= LOG_MAX {
                all.push((item, log.size, log.stored));
            } else {
                survey.findings.push(Finding::damage(item.key(), Problem::TooLarge { size: log.size }));
            }
        }
        let queued = |(item, size, _): &(Item, u64, Timestamp)| Queued { item: *item, size: *size };
        let Some(ledger) = &self.ledger else { return Ok(all.iter().map(queued).collect()) };
        let stored = |(item, size, stored): &(Item, u64, Timestamp)| Stored {
            hash: item.hash(),
            size: *size,
            stored: *stored,
        };
        self.all = all.iter().map(stored).collect();
        Ok(match self.options.budget {
            None => all.iter().map(queued).collect(),
            Some(_) => order(ledger, (&self.all, self.look)).into_iter().map(|at| queued(&all[at])).collect(),
        })
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
        let fresh = NewlyVerified::new(self.since.0);
        let mut new = std::mem::replace(&mut self.new, fresh);
        new.began = self.since.0;
        // A clock that was set, and one that stood still while the machine slept: the longer time is the careful one.
        let (wall, steady) = now(self.repo);
        let passed = u64::try_from(wall.0.saturating_sub(self.since.0.0)).unwrap_or(0);
        let slept = steady.saturating_sub(self.since.1).as_nanos();
        new.passed = passed.max(u64::try_from(slept).unwrap_or(u64::MAX));
        match self.repo.put_verified(self.look, new).await {
            Ok(()) => Ok(()),
            Err(error) => self.give_up(error.into()),
        }
    }

    /// Takes what was found for known.
    fn learn(&mut self) {
        let found = std::mem::take(&mut self.found);
        let Some(ledger) = &mut self.ledger else { return };
        found.into_iter().for_each(|(hash, fact, since)| ledger.add(hash, fact, (self.look, since)));
    }

    /// Says that the verification came to its end, and gives what the ledger says now.
    pub(super) async fn end(&mut self, report: &VerifyReport) -> Result<Option<Covered>, Error> {
        // What a lesser look found good is known to be damaged all the same.
        let damaged = self.found.iter().filter(|(_, fact, _)| *fact == Fact::Damaged);
        let named: HashSet<ObjectHash> = damaged.map(|(hash, ..)| *hash).collect();
        self.learn();
        let Some(ledger) = &self.ledger else { return Ok(None) };
        let known = self.all.iter().filter(|stored| ledger.is_damaged(&stored.hash));
        let known = known.filter(|stored| !named.contains(&stored.hash)).count() as u64;
        let found = report.findings.iter().filter(|finding| finding.severity == Severity::Damage);
        let damages = known + found.count() as u64;
        self.begin();
        self.new.ended = Some(damages);
        self.put().await?;
        let Some(ledger) = &mut self.ledger else { return Ok(None) };
        let at = self.repo.env().clock.now();
        ledger.ended(RunEnd { at, look: self.look, damages });
        let coverage = ledger.coverage(&self.all, self.look);
        let ends: Vec<Timestamp> = ledger.ends(self.look).map(|end| end.at).collect();
        let runs = match self.options.budget {
            None => Some(1),
            Some(Budget::Bytes(most)) => Some(rounds(ledger, (&self.all, self.look), most)),
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
