//! What is large: packs and files of databases' logs, each read in full, in the order in which the ledger asks for them. What
//! the log of a database says is gone through by [`crate::ops::postgres::verify`].
//!
//! # Invariants
//! What is in the queue is answered for once, or is still to come when the time is over: nothing is passed by. The ledger hears
//! of nothing that was not looked at.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::finding::{BadPack, Finding, Problem, Severity};
use super::pack::{PackChecker, PackOutcome, PackWorker, check_hash};
use super::pipeline::{self, Check, Job, Verdict};
use super::read::{Asked, is_refusal, problem, twice};
use super::record::{Item, Queued, Recorder};
use super::survey::Survey;
use super::{Depth, take_deleted};
use crate::error::Error;
use crate::event::Counters;
use crate::format::layout;
use crate::format::ledger::VERIFIED_MAX;
use crate::id::PackId;
use crate::ops::ledger::{Fact, Purse};
use crate::repo::{ListedLog, RepoError, Repository};
use crate::store::Key;

/// After this time a record is put, so that a run that is killed has not looked for nothing.
const RECORD_EVERY: Duration = Duration::from_secs(600);

/// What the content turned out to be.
#[derive(Default)]
pub(super) struct Content {
    pub(super) findings: Vec<Finding>,
    pub(super) bad: HashMap<PackId, BadPack>,
    pub(super) bytes: u64,
    pub(super) chunks: u64,
    /// Files of logs.
    pub(super) logs: u64,
    /// Packs that were to be read.
    pub(super) asked: Asked,
    /// Files of logs by authors who were not known.
    doubted: Vec<ListedLog>,
}

/// What an object turned out to be.
enum Outcome {
    Pack(PackOutcome),
    Log(Option<Problem>),
}

impl Outcome {
    fn failed(item: Item, error: RepoError) -> Self {
        let problem = problem(error);
        match item {
            Item::Pack(_) => {
                Self::Pack(PackOutcome { problems: vec![problem], bad: Some(BadPack::Whole), chunks: 0 })
            }
            Item::Log(_) => Self::Log(Some(problem)),
        }
    }

    fn problems(&self) -> &[Problem] {
        match self {
            Self::Pack(outcome) => &outcome.problems,
            Self::Log(problem) => problem.as_slice(),
        }
    }

    /// What the ledger is told. That an object was refused, or is gone, says nothing of its bytes.
    fn fact(&self) -> Option<Fact> {
        let unknown = |problem: &Problem| match problem {
            Problem::Missing => true,
            Problem::Invalid(error) => is_refusal(error),
            _ => false,
        };
        // The bytes are right; only nobody believes their author any more.
        let refused =
            |problem: &Problem| matches!(problem, Problem::Invalid(RepoError::AfterRevocation { .. }));
        let wrong: Vec<&Problem> = self.problems().iter().filter(|problem| !refused(problem)).collect();
        match wrong.iter().all(|problem| unknown(problem)) {
            true if wrong.is_empty() => Some(Fact::Good),
            true => None,
            false => Some(Fact::Damaged),
        }
    }
}

/// Reads what is queued, as far as the time goes, and tells the ledger.
pub(super) async fn check_content(
    (repo, survey): (&Repository, &Survey),
    (depth, start): (Depth, Duration),
    queue: Vec<Queued>,
    recorder: &mut Recorder<'_>,
) -> Result<Content, Error> {
    let mut content = Content::default();
    let clock = Arc::clone(&repo.env().clock);
    let deadline = recorder.time().map(|time| start.saturating_add(time));
    let is_over = || deadline.is_some_and(|deadline| clock.monotonic() >= deadline);
    let checker = || PackChecker::new(repo, survey.promised.clone(), Arc::clone(&survey.said));
    let shared = (depth == Depth::Data).then(checker).transpose()?;
    let mut queue = queue.into_iter().filter_map(job).peekable();
    let purse = Cell::new(Purse::new(recorder.bytes()));
    // Without a record nothing ends before all is read, and the order of requests follows from the objects alone.
    let records = recorder.keeps();
    while !recorder.has_failed() {
        recorder.begin();
        let record_at = clock.monotonic().saturating_add(RECORD_EVERY);
        let (mut taken, mut asked) = (0, Asked::default());
        let part = std::iter::from_fn(|| {
            let full = || taken == VERIFIED_MAX || clock.monotonic() >= record_at;
            if taken > 0 && (is_over() || records && full()) {
                return None;
            }
            let next = queue.next_if(|job| purse.get().has(job.size))?;
            purse.update(|mut purse| {
                purse.spend(next.size);
                purse
            });
            taken += 1;
            if matches!(next.what, Item::Pack(_)) {
                asked.add(next.key.as_str());
            }
            Some(next)
        });
        let make = || check(repo, shared.as_ref());
        let read = pipeline::run((repo.store(), repo.env()), part.fuse(), make, |job, outcome| {
            let size = job.size;
            if !content.take(repo, job, outcome, recorder) {
                // It waits on, and must not keep others from being looked at.
                purse.update(|mut purse| {
                    purse.refund(size);
                    purse
                });
            }
        })
        .await;
        content.asked.join(asked);
        let left = queue.peek().is_some_and(|job| purse.get().has(job.size)) && !is_over();
        if read.is_ok() {
            content.look_again(repo, recorder).await?;
        }
        // Also what was looked at before the store went away is known from here on, if it takes that still.
        let put = recorder.put().await;
        read?;
        put?;
        if !left {
            break;
        }
    }
    content.forgive_deleted(repo).await?;
    Ok(content)
}

fn job(queued: Queued) -> Option<Job<Item>> {
    Some(Job { key: Key::new(queued.item.key()).ok()?, size: queued.size, what: queued.item })
}

/// How a thread looks at an object.
fn check(repo: &Repository, shared: Option<&Arc<PackChecker>>) -> Result<Check<Item, Outcome>, RepoError> {
    let mut worker = shared.map(PackWorker::new).transpose()?;
    let repo = repo.clone();
    Ok(Box::new(move |item, bytes| match item {
        Item::Pack(id) => {
            let outcome = match &mut worker {
                Some(worker) => worker.check(*id, bytes)?,
                None => check_hash(*id, bytes),
            };
            let Verdict { answer, suspicious } = outcome.verdict();
            Ok(Verdict { answer: Outcome::Pack(answer), suspicious })
        }
        Item::Log(listed) => {
            let wrong = repo.check_log_bytes(listed, bytes).err();
            Ok(Verdict { suspicious: wrong.is_some(), answer: Outcome::Log(wrong.map(problem)) })
        }
    }))
}

impl Content {
    /// Takes what an object turned out to be; false if that says nothing of its bytes.
    fn take(
        &mut self,
        repo: &Repository,
        job: Job<Item>,
        outcome: Result<Outcome, RepoError>,
        recorder: &mut Recorder<'_>,
    ) -> bool {
        Counters::add(&repo.env().observer.counters().bytes, job.size);
        self.bytes += job.size;
        let outcome = outcome.unwrap_or_else(|error| Outcome::failed(job.what, error));
        if let (Item::Log(log), Outcome::Log(Some(Problem::Invalid(RepoError::BadSignature { .. })))) =
            (job.what, &outcome)
        {
            self.logs += 1;
            self.doubted.push(log);
            return true;
        }
        let fact = outcome.fact();
        if let Some(fact) = fact {
            recorder.looked(job.what, job.size, fact);
        }
        let problems = match outcome {
            Outcome::Pack(outcome) => {
                self.chunks += outcome.chunks;
                if let Item::Pack(pack) = job.what {
                    self.bad.extend(outcome.bad.map(|bad| (pack, bad)));
                }
                outcome.problems
            }
            Outcome::Log(problem) => {
                self.logs += 1;
                problem.into_iter().collect()
            }
        };
        self.findings.extend(problems.into_iter().map(|problem| Finding::damage(job.key.as_str(), problem)));
        fact.is_some()
    }

    /// Takes out what is missing because a collector deleted it meanwhile.
    async fn forgive_deleted(&mut self, repo: &Repository) -> Result<(), Error> {
        for (prefix, severity) in [(layout::PACKS, Some(Severity::Warning)), (layout::STREAMS, None)] {
            // Whether anything is lost with a pack shows when the trees are walked; a log's file that went was not needed.
            let deleted = take_deleted((repo.store(), prefix), &mut self.findings).await?;
            let deleted =
                deleted.into_iter().filter_map(|finding| Some(Finding { severity: severity?, ..finding }));
            self.findings.extend(deleted);
        }
        Ok(())
    }

    /// Looks again at files of logs by authors who were not known: somebody may have been registered since.
    async fn look_again(&mut self, repo: &Repository, recorder: &mut Recorder<'_>) -> Result<(), Error> {
        for log in std::mem::take(&mut self.doubted) {
            let item = Item::Log(log);
            let problem = twice(repo, &item.key(), || repo.check_log(&log)).await?.err();
            let outcome = Outcome::Log(problem);
            if let Some(fact) = outcome.fact() {
                recorder.looked(item, log.size, fact);
            }
            if let Outcome::Log(Some(problem)) = outcome {
                self.findings.push(Finding::damage(item.key(), problem));
            }
        }
        Ok(())
    }
}
