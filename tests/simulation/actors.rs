//! What the machines do.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use lifeboat::class::Class;
use lifeboat::error::Error;
use lifeboat::id::SnapshotId;
use lifeboat::ops::backup::{BackupOptions, BackupSource, backup};
use lifeboat::ops::restore::{RestoreOptions, restore};
use lifeboat::ops::snapshots::{SnapshotFilter, resolve};
use lifeboat::ops::verify::{Depth, Finding, Problem, Severity, verify};
use lifeboat::repo::{RepoError, Repository};
use lifeboat::source::target::OwnerPolicy;

use crate::chance::Dice;
use crate::fault::MARKS;
use crate::reading::STORED;
use crate::setup::{Setup, env, places, store_over};
use crate::store::SimStore;
use crate::tree::{Source, Tree, difference};
use crate::world::{DAY, Life, World};

/// A machine.
#[derive(Clone)]
pub struct Machine {
    pub setup: Arc<Setup>,
    pub world: Arc<World>,
    pub actor: usize,
    pub dir: PathBuf,
    seed: u64,
    skew: i64,
    with_cache: bool,
    retry_for: Duration,
}

impl Machine {
    pub fn new(setup: &Arc<Setup>, world: &Arc<World>, (name, dir): (&str, &Path), dice: &mut Dice) -> Self {
        let dir = dir.join(name);
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).unwrap();
        Self {
            setup: Arc::clone(setup),
            world: Arc::clone(world),
            actor: world.add(name),
            dir,
            seed: dice.next(),
            skew: dice.pick(&[0, 0, 0, 365 * DAY * 10, -365 * DAY * 10, -365 * DAY * 99, DAY]),
            with_cache: dice.one_in(2),
            retry_for: Duration::from_secs(dice.pick(&[0, 400, 400, 2000])),
        }
    }

    /// Begins a run.
    pub async fn open(&self) -> (Life, Result<Repository, RepoError>) {
        let life = self.world.begin(self.actor);
        (life, self.open_as(life).await)
    }

    async fn open_as(&self, life: Life) -> Result<Repository, RepoError> {
        let seed = self.seed.wrapping_add(life.number.wrapping_mul(0x9e37_79b9));
        let env = env(seed, (&self.world.clock, self.skew), places(&self.dir, self.with_cache));
        let objects = Arc::new(SimStore { world: Arc::clone(&self.world), life });
        let store = store_over(objects, &env, self.retry_for);
        Ok(Repository::open(store, env, &self.setup.unlock).await?.knowing_with(&self.setup.repo))
    }

    pub fn remark(&self, text: String) {
        self.world.remark(self.actor, text);
    }

    pub fn complain(&self, text: String) {
        self.remark(text.clone());
        self.world.lock().judge.violations.push(text);
    }

    /// An error needs a reason.
    pub fn judge_error(&self, life: Life, what: &str, error: &Error) {
        self.remark(format!("{what}: {}", chain(error)));
        if !self.world.is_excused(life) {
            self.complain(format!("{what} failed without a cause: {}", chain(error)));
        }
    }
}

pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text.push_str(": ");
        text.push_str(&error.to_string());
        next = error.source();
    }
    text
}

/// Backs a changing tree up, so many times.
pub async fn writer(machine: Machine, mut dice: Dice, rounds: u64) {
    let mut source = Source::new(&machine.dir.join("source"));
    for _ in 0..rounds {
        if source.files.is_empty() || !dice.one_in(4) {
            source.change(&mut dice);
        }
        let (life, repo) = machine.open().await;
        machine.world.lock().judge.will_save(machine.actor, &source.files);
        match repo {
            Ok(repo) => save(&machine, life, &repo, &source).await,
            Err(error) => machine.judge_error(life, "open", &error.into()),
        }
    }
    machine.world.end(machine.actor);
}

async fn save(machine: &Machine, life: Life, repo: &Repository, source: &Source) {
    let options = BackupOptions {
        job: Some("simulation".into()),
        stored_as: Some(format!("/{STORED}").into()),
        allow_shrink: true,
        timeless: true,
        ..BackupOptions::new(BackupSource::Paths(vec![source.root.clone()]))
    };
    match backup(repo, options).await {
        Ok(summary) => {
            let (failed, missing) = (summary.failed, summary.missing.len());
            let id = summary.snapshot.expect("a backup that succeeds has a snapshot");
            machine.remark(format!("saved {}", &id.to_string()[..8]));
            if failed + missing as u64 > 0 {
                machine.complain(format!("{failed} files failed, {missing} are missing"));
            }
            let inner = machine.world.lock();
            let known = inner.judge.confirmed.contains_key(&id) || inner.judge.times_forgotten(id) > 0;
            drop(inner);
            if !known {
                machine.complain(format!("I5: {id} is acknowledged and not confirmed"));
            }
        }
        // Collectors may win; then the run says so.
        Err(Error::Unconfirmed { reason, .. }) => machine.remark(format!("unconfirmed: {reason}")),
        Err(error) => machine.judge_error(life, "backup", &error),
    }
}

/// Restores what was confirmed, so many times.
pub async fn restorer(machine: Machine, mut dice: Dice, rounds: u64) {
    for _ in 0..rounds {
        let (life, repo) = machine.open().await;
        let chosen = {
            let inner = machine.world.lock();
            let all: Vec<_> = inner.judge.confirmed.iter().collect();
            let number = dice.below(all.len() as u64) as usize;
            all.get(number).map(|(id, snapshot)| (**id, Arc::clone(&snapshot.tree)))
        };
        let (Ok(repo), Some((id, tree))) = (repo, chosen) else { continue };
        match restore_one(&machine, &repo, (id, &tree)).await {
            Ok(()) => machine.remark(format!("restored {}", &id.to_string()[..8])),
            Err(Failed::Wrong(text)) => machine.complain(format!("{id} restores wrongly: {text}")),
            Err(Failed::Not(text)) => {
                machine.remark(format!("{} is not restored: {text}", &id.to_string()[..8]));
                let stands = machine.world.lock().judge.confirmed.contains_key(&id);
                if stands && !machine.world.is_excused(life) && !machine.world.lock().judge.collects() {
                    machine.complain(format!("{id} does not restore: {text}"));
                }
            }
        }
    }
    machine.world.end(machine.actor);
}

/// Why a snapshot did not restore.
pub enum Failed {
    /// With an error, or with entries left out and counted.
    Not(String),
    /// Without any error, to something else.
    Wrong(String),
}

/// Restores and compares.
pub async fn restore_one(
    machine: &Machine,
    repo: &Repository,
    (id, tree): (SnapshotId, &Tree),
) -> Result<(), Failed> {
    let target = machine.dir.join("restored");
    let _ = std::fs::remove_dir_all(&target);
    let options = SnapshotFilter::default();
    let snapshot = resolve(repo, &id.to_string(), &options).await.map_err(|e| Failed::Not(chain(&e)))?;
    let path = STORED.as_bytes().to_vec();
    let options =
        RestoreOptions { owner: OwnerPolicy::Skip, ..RestoreOptions::new(snapshot, path, target.clone()) };
    let summary = restore(repo, options).await.map_err(|e| Failed::Not(chain(&e)))?;
    if summary.failed + summary.damaged_count > 0 {
        return Err(Failed::Not(format!("{} failed, {} damaged", summary.failed, summary.damaged_count)));
    }
    match difference(&target, tree) {
        None => Ok(()),
        Some(text) => Err(Failed::Wrong(text)),
    }
}

/// Whether a collector may have deleted what is missed, while it was looked for. That is no excuse for marks: nobody needs those
/// that are gone.
fn may_have_gone(finding: &Finding) -> bool {
    let missing =
        matches!(finding.problem, Problem::Missing | Problem::ChunkUnknown { .. } | Problem::Page { .. });
    missing && !MARKS.iter().any(|marks| finding.key.starts_with(marks))
}

/// Verifies, so many times.
pub async fn verifier(machine: Machine, mut dice: Dice, rounds: u64) {
    for _ in 0..rounds {
        let (life, repo) = machine.open().await;
        let depth = dice.pick(&[Depth::Structure, Depth::Packs]);
        let Ok(repo) = repo else { continue };
        match verify(&repo, depth).await {
            Ok(report) => {
                machine.remark(format!("verified {depth:?}: {} findings", report.findings.len()));
                let collects = machine.world.lock().judge.collects();
                let bad = |finding: &&Finding| {
                    finding.severity == Severity::Damage && !(collects && may_have_gone(finding))
                };
                let findings: Vec<_> = report.findings.iter().filter(bad).map(ToString::to_string).collect();
                if !findings.is_empty() && !machine.world.is_excused(life) {
                    machine.complain(format!("verify found damage: {findings:?}"));
                }
            }
            Err(error) => {
                let cancelled = error.class() == Class::Cancelled;
                if !cancelled {
                    machine.judge_error(life, "verify", &error);
                }
            }
        }
    }
    machine.world.end(machine.actor);
}
