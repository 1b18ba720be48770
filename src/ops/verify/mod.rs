//! Proving that what is stored can be restored.
//!
//! # Invariants
//! Whatever bit is changed in whatever object, a verification of [`Depth::Packs`] or deeper has a finding. A finding
//! never stops the verification: it looks at everything it can. Nothing but records of it is put
//! into the store.
//!
//! # Must not
//! Take for damage what a backup or a collector does meanwhile: snapshots are listed before index objects and those
//! before packs, damage under an index that has moved is looked at again, and a small object that is missed must still be listed.

mod content;
mod finding;
mod pack;
mod pipeline;
mod read;
mod record;
mod said;
mod small;
mod survey;
#[cfg(test)]
mod tests;
mod walk;

use std::collections::{HashMap, HashSet};
use std::time::Duration;

pub use finding::{AFFECTED_MAX, Affected, Covered, Finding, Problem, Severity, VerifyReport};

use self::content::{Content, check_content};
use self::finding::pack_key;
use self::pipeline::{Check, Job, Verdict};
use self::read::{Asked, pages_refused, problem};
use self::record::Recorder;
use self::survey::{listing, survey};
use self::walk::walk;
use crate::crypto::object_hash;
use crate::error::Error;
use crate::event::{Counters, Event, Phase};
use crate::format::envelope::{ObjectKind, Preamble};
use crate::format::layout::ObjectName;
use crate::format::log::LOG_MAX;
use crate::format::pack::PACK_MAX;
use crate::format::signed::SIGNED_MAX;
use crate::id::{ObjectHash, PackId};
use crate::ops::tree::is_cache_damage;
use crate::repo::{Env, RepoError, Repository};
use crate::store::Store;

/// How much is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Depth {
    /// Everything but the content of packs: every name, small object, index object, snapshot and tree page.
    Structure,
    /// Also every byte of every pack against the hash in its name.
    Packs,
    /// Also every segment opened and every chunk named again, as a restore of everything would.
    Data,
}

/// How much of the content is looked at in one run: what was not looked at for longest comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Budget {
    /// So many bytes, or one object if that is larger.
    Bytes(u64),
    /// What can be begun within this time of the run's beginning, and one object at least.
    Time(Duration),
}

/// What to verify, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VerifyOptions {
    /// How much of each object.
    pub depth: Depth,
    /// How many of the packs and files of logs; all if there is no bound.
    pub budget: Option<Budget>,
    /// Whether the ledger is to know. It must where there is a budget: else the same would be looked at each time.
    pub record: bool,
}

impl VerifyOptions {
    /// Everything, to this depth, and nobody is told.
    pub const fn all(depth: Depth) -> Self {
        Self { depth, budget: None, record: false }
    }
}

/// How often a verification begins again because the index moved or the local cache was damaged.
const TRIES: usize = 3;

/// Verifies a repository, as far as the key goes: one that opens no snapshots checks their signatures and the index, and one that
/// cannot name chunks takes a page of a tree for what the index calls it, if all copies are the same.
///
/// # Errors
/// Only for what keeps the verification from going on: the store does not answer, or the key may not read.
pub async fn verify(repo: &Repository, depth: Depth) -> Result<VerifyReport, Error> {
    verify_with(repo, &VerifyOptions::all(depth)).await
}

/// The same, as much of it as there is time for, and so that the ledger knows.
///
/// # Errors
/// Also [`RepoError::RoleForbids`] with a budget and a key that signs for no verifier. A record that the store does not take is a
/// warning, and with a budget, if nothing worse is found, an error in the end.
pub async fn verify_with(repo: &Repository, options: &VerifyOptions) -> Result<VerifyReport, Error> {
    let clock = &repo.env().clock;
    let start = clock.monotonic();
    let mut recorder = Recorder::start(repo, options).await?;
    let mut cached = true;
    let mut tries = 0;
    loop {
        tries += 1;
        let (mut report, listed) =
            match verify_once(repo, (options.depth, start), &mut recorder, cached).await {
                Err(error) if cached && is_cache_damage(&error) => {
                    cached = false;
                    continue;
                }
                other => other?,
            };
        // A collector may have moved or removed what is missed.
        if tries < TRIES && report.findings.iter().any(may_have_moved) && listing(repo).await? != listed {
            continue;
        }
        report.sort();
        report.coverage = recorder.end(&report).await?;
        if let Some(error) = recorder.take_failure().filter(|_| !report.has_damage()) {
            return Err(error);
        }
        report.elapsed = clock.monotonic().saturating_sub(start);
        return Ok(report);
    }
}

fn may_have_moved(finding: &Finding) -> bool {
    finding.severity == Severity::Damage
        && matches!(finding.problem, Problem::Missing | Problem::ChunkUnknown { .. } | Problem::Page { .. })
}

async fn verify_once(
    repo: &Repository,
    (depth, start): (Depth, Duration),
    recorder: &mut Recorder<'_>,
    cached: bool,
) -> Result<(VerifyReport, Vec<ObjectHash>), Error> {
    let mut survey = survey(repo, cached).await?;
    let observer = &repo.env().observer;
    let queue = match depth {
        Depth::Structure => None,
        _ => Some(recorder.queue(&mut survey).await?),
    };
    // How much is read within a time nobody knows before.
    let planned = queue.as_ref().filter(|_| recorder.time().is_none());
    let total =
        planned.map(|queue| queue.iter().map(|queued| queued.size).sum::<u64>().min(recorder.bytes()));
    observer.observe(&Event::PhaseStarted { phase: Phase::Verify, total });
    let mut report = VerifyReport {
        objects: survey.objects,
        bytes: survey.bytes,
        chunks: survey.promised.chunk_count(),
        ..VerifyReport::default()
    };
    let checks = async {
        match queue {
            None => Ok(Content::default()),
            Some(queue) => check_content((repo, &survey), (depth, start), queue, recorder).await,
        }
    };
    let (mut walked, checked) = futures::future::try_join(walk(repo, &survey, &survey.bad), checks).await?;
    report.objects += checked.logs;
    report.snapshots = walked.snapshots;
    report.closed = survey.closed;
    report.bytes += checked.bytes;
    if depth == Depth::Data {
        report.chunks = checked.chunks;
    }
    report.findings = std::mem::take(&mut survey.findings);
    report.findings.extend(walked.findings());
    report.findings.extend(checked.findings);
    let mut lost = walked.packs;
    if !checked.bad.is_empty() {
        // Only now is it known which segments are gone: whom do they hit?
        let mut bad = std::mem::take(&mut survey.bad);
        bad.extend(checked.bad);
        lost = walk(repo, &survey, &bad).await?.packs;
    }
    attach(&mut report.findings, lost);
    let refused = match depth {
        Depth::Structure if walked.read || survey.closed > 0 => None,
        Depth::Structure => pages_refused(repo.store(), &mut report.findings),
        _ => checked.asked.kind_refused(repo.store(), &mut report.findings),
    };
    if let Some(error) = refused {
        return Err(error.into());
    }
    observer.observe(&Event::PhaseFinished { phase: Phase::Verify });
    Ok((report, survey.listing))
}

/// Says of each damaged pack what it hits, at its gravest finding.
fn attach(findings: &mut Vec<Finding>, lost: HashMap<PackId, finding::Impact>) {
    for (pack, impact) in lost {
        let key = pack_key(pack);
        let of_pack = |finding: &&mut Finding| {
            finding.key == key
                && matches!(
                    finding.problem,
                    Problem::Missing
                        | Problem::Segments { .. }
                        | Problem::Directory(_)
                        | Problem::Invalid(_)
                        | Problem::TooLarge { .. }
                )
        };
        match findings.iter_mut().find(of_pack) {
            Some(finding) => finding.hit(impact),
            None => {
                let mut finding = Finding::damage(key, Problem::Missing);
                finding.hit(impact);
                findings.push(finding);
            }
        }
    }
}

/// Takes out what is missing only because it was deleted after it was listed: a collector is at work.
async fn take_deleted(
    (store, prefix): (&Store, &str),
    findings: &mut Vec<Finding>,
) -> Result<Vec<Finding>, Error> {
    let is_missing =
        |finding: &Finding| matches!(finding.problem, Problem::Missing) && finding.key.starts_with(prefix);
    if !findings.iter().any(is_missing) {
        return Ok(Vec::new());
    }
    let listed = store.list(prefix).await?;
    let listed: HashSet<&str> = listed.iter().map(|object| object.key.as_str()).collect();
    Ok(findings
        .extract_if(.., |finding| is_missing(finding) && !listed.contains(finding.key.as_str()))
        .collect())
}

/// Holds every object against the hash in its name, without any key. A confirmation has no hash of its own: of it only
/// the frame is looked at, and that its snapshot is there.
pub async fn verify_packs_without_key(store: Store, env: &Env) -> Result<VerifyReport, Error> {
    let start = env.clock.monotonic();
    let mut report = VerifyReport::default();
    let jobs = list_without_key(&store, &mut report).await?;
    let mut asked = Asked::default();
    jobs.iter().for_each(|job| asked.add(job.key.as_str()));
    let total = Some(jobs.iter().map(|job| job.size).sum());
    env.observer.observe(&Event::PhaseStarted { phase: Phase::Verify, total });
    let make = || -> Result<Check<ObjectName, Option<Problem>>, RepoError> {
        Ok(Box::new(|name, bytes| {
            let answer = keyless(*name, bytes);
            Ok(Verdict { suspicious: answer.is_some(), answer })
        }))
    };
    let counters = env.observer.counters();
    let mut read = Vec::new();
    pipeline::run((&store, env), jobs, make, |job, answer| {
        Counters::add(&counters.bytes, job.size);
        report.bytes += job.size;
        let problem = answer.unwrap_or_else(|error| Some(problem(error)));
        read.extend(problem.map(|problem| Finding::damage(job.key.as_str(), problem)));
    })
    .await?;
    take_deleted((&store, ""), &mut read).await?;
    report.findings.extend(read);
    if let Some(error) = asked.refused(&store, &mut report.findings) {
        return Err(error.into());
    }
    env.observer.observe(&Event::PhaseFinished { phase: Phase::Verify });
    report.sort();
    report.elapsed = env.clock.monotonic().saturating_sub(start);
    Ok(report)
}

/// Lists all objects, and gives those that are to be read.
async fn list_without_key(store: &Store, report: &mut VerifyReport) -> Result<Vec<Job<ObjectName>>, Error> {
    let mut jobs = Vec::new();
    let mut bodies = HashSet::new();
    let mut confirmations = Vec::new();
    for object in store.list("").await? {
        report.objects += 1;
        let Some(name) = ObjectName::parse(object.key.as_str()) else {
            report.findings.push(Finding::warning(object.key.as_str(), Problem::ForeignName));
            continue;
        };
        match name {
            ObjectName::Snapshot(writer, sequence, id) => {
                bodies.insert((writer, sequence, id));
            }
            ObjectName::Confirmation(writer, sequence, id) => confirmations.push((writer, sequence, id)),
            _ => {}
        }
        if object.size > size_max(name) {
            report
                .findings
                .push(Finding::damage(object.key.as_str(), Problem::TooLarge { size: object.size }));
        } else {
            jobs.push(Job { key: object.key, size: object.size, what: name });
        }
    }
    for (writer, sequence, id) in confirmations {
        if !bodies.contains(&(writer, sequence, id)) {
            let key = ObjectName::Snapshot(writer, sequence, id).key();
            report.findings.push(Finding::damage(key, Problem::Missing));
        }
    }
    Ok(jobs)
}

fn keyless(name: ObjectName, bytes: &[u8]) -> Option<Problem> {
    match name.content_hash() {
        Some(hash) => (object_hash(bytes) != hash).then_some(Problem::HashMismatch),
        None => {
            let preamble = Preamble::decode(bytes)
                .and_then(|preamble| Preamble::expect(bytes, ObjectKind::Confirmation, &preamble.repository));
            let key = name.key();
            preamble.err().map(|rule| Problem::Invalid(RepoError::at(&key)(rule)))
        }
    }
}

/// Most bytes of an object of this kind.
fn size_max(name: ObjectName) -> u64 {
    match name {
        ObjectName::Pack(_) => PACK_MAX as u64,
        ObjectName::Index(..) => crate::repo::INDEX_MAX,
        ObjectName::Log(_) => LOG_MAX,
        _ => SIGNED_MAX as u64,
    }
}
