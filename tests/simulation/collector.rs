//! Forgetting, taking back and collecting.

use std::collections::BTreeSet;
use std::time::Duration;

use lifeboat::error::Error;
use lifeboat::format::gc::TombReason;
use lifeboat::format::layout::ObjectName;
use lifeboat::id::{SnapshotId, WriterId};
use lifeboat::ops::gc::{PruneOptions, prune};
use lifeboat::repo::{RepoError, Repository};

use crate::actors::Machine;
use crate::chance::Dice;
use crate::world::Life;

const DAY: Duration = Duration::from_secs(86_400);

/// How a history collects.
#[derive(Debug, Clone, Copy)]
pub struct Manner {
    options: PruneOptions,
    collects: bool,
}

impl Manner {
    pub fn new(dice: &mut Dice, collects: bool) -> Self {
        let days = |dice: &mut Dice, from: &[u32]| DAY * dice.pick(from);
        let options = PruneOptions {
            grace: days(dice, &[0, 0, 1, 7]),
            undo_window: days(dice, &[0, 0, 1, 7]),
            young: dice.pick(&[Some(Duration::ZERO), Some(Duration::ZERO), Some(DAY), None]),
            max_unused: dice.pick(&[0, 50, 1000]),
            max_repack: dice.pick(&[u64::MAX, u64::MAX, 0, 20_000]),
            yes: true,
            force: !dice.one_in(4),
            ..PruneOptions::default()
        };
        Self { options, collects }
    }

    /// Without any delay, when nobody is at work any more.
    pub fn at_last(self) -> Self {
        let options = PruneOptions {
            grace: Duration::ZERO,
            undo_window: Duration::ZERO,
            young: Some(Duration::ZERO),
            max_repack: u64::MAX,
            force: true,
            ..self.options
        };
        Self { options, ..self }
    }

    pub fn collects(self) -> bool {
        self.collects
    }
}

/// Forgets, takes back and collects, so many times.
pub async fn collector(machine: Machine, mut dice: Dice, (rounds, manner): (u64, Manner)) {
    for _ in 0..rounds {
        let (life, repo) = machine.open().await;
        let done = match repo {
            Ok(repo) => round(&machine, &repo, (&mut dice, manner)).await,
            Err(error) => Err(error.into()),
        };
        report(&machine, life, done);
    }
    machine.world.end(machine.actor);
}

fn report(machine: &Machine, life: Life, done: Result<String, Error>) {
    match done {
        Ok(text) => machine.remark(text),
        // What it found is in the way of any collection, and it said so.
        Err(error @ Error::WriterAtWork { .. }) => machine.remark(error.to_string()),
        Err(error) => machine.judge_error(life, "collection", &error),
    }
}

async fn round(
    machine: &Machine,
    repo: &Repository,
    (dice, manner): (&mut Dice, Manner),
) -> Result<String, Error> {
    for _ in 0..dice.below(3) {
        forget(machine, repo, dice).await?;
    }
    if dice.one_in(3) {
        take_back(machine, repo, dice).await?;
    }
    let report = prune(repo, &manner.options).await?;
    Ok(format!(
        "removed {}, condemned {} and {}, {} wait, deleted {}, wrote {} packs, {} + {} index objects",
        report.removed,
        report.plan.drop.len(),
        report.plan.rewrite.len(),
        report.condemned,
        report.deleted,
        report.written,
        report.index_written,
        report.index_deleted,
    ))
}

type Name = (WriterId, u64, SnapshotId);

fn choose(names: Vec<Name>, dice: &mut Dice) -> Option<Name> {
    let which = dice.next();
    (!names.is_empty()).then(|| names[(which % names.len() as u64) as usize])
}

/// Gives one snapshot a tomb.
async fn forget(machine: &Machine, repo: &Repository, dice: &mut Dice) -> Result<(), RepoError> {
    let listed = repo.list_snapshots().await?;
    let names = listed.iter().filter(|l| l.confirmed || dice.one_in(2)).map(|l| (l.writer, l.sequence, l.id));
    let Some(name) = choose(names.collect(), dice) else { return Ok(()) };
    machine.world.lock().judge.forget(name.2);
    machine.remark(format!("forgets {}", &name.2.to_string()[..8]));
    repo.put_tomb(name, TombReason::Named).await.map(drop)
}

/// Takes a tomb back, and believes it only after a look.
async fn take_back(machine: &Machine, repo: &Repository, dice: &mut Dice) -> Result<(), RepoError> {
    let marks = repo.read_marks().await?;
    let tombed: BTreeSet<SnapshotId> = marks.tomb_names.iter().map(|(id, _)| *id).collect();
    let tombed: Vec<SnapshotId> = tombed.into_iter().collect();
    let which = dice.next();
    // A tomb that could not be read would not be taken back.
    if tombed.is_empty() || marks.is_damaged() {
        return Ok(());
    }
    let id = tombed[(which % tombed.len() as u64) as usize];
    let since = machine.world.lock().judge.times_forgotten(id);
    let tombs = marks.tomb_names.iter().filter(|(of, _)| *of == id).map(|(_, hash)| *hash).collect();
    repo.put_undo(tombs).await?;
    let marks = repo.read_marks().await?;
    let listed = repo.list_snapshots().await?;
    let stands = listed.iter().any(|listed| listed.id == id);
    if stands && !marks.is_damaged() && !marks.removed.contains_key(&id) && !marks.tombs.contains_key(&id) {
        machine.remark(format!("took {} back", &id.to_string()[..8]));
        machine.world.lock().judge.take_back(id, since);
    }
    Ok(())
}

/// One collection, in good weather.
pub async fn collect(machine: &Machine, manner: Manner) -> Result<(), String> {
    let repo = machine.open().await.1.map_err(|error| error.to_string())?;
    let report = prune(&repo, &manner.options).await.map_err(|error| crate::actors::chain(&error))?;
    match report.left.first() {
        None => Ok(()),
        Some((key, why)) => Err(format!("{key} was left: {why}")),
    }
}

/// What two collections in good weather must leave nothing of.
pub fn leftovers(machine: &Machine) -> Vec<String> {
    let mut inner = machine.world.lock();
    let mut left = Vec::new();
    let objects = inner.objects.clone();
    for pack in inner.judge.garbage(&objects) {
        left.push(format!("pack {pack} is garbage and stays"));
    }
    for key in objects.keys() {
        // What was taken back keeps its tomb, and an undo beside it.
        if let Some(ObjectName::Tomb(id, hash)) = ObjectName::parse(key)
            && inner.judge.confirmed.contains_key(&id)
            && !inner.judge.is_undone(&hash, &objects)
        {
            left.push(format!("snapshot {id} is forgotten and stays"));
        }
    }
    for key in objects.keys() {
        if matches!(ObjectName::parse(key), Some(ObjectName::Condemned(_))) && inner.judge.condemns(key) {
            left.push(format!("{key} stays"));
        }
    }
    left
}
