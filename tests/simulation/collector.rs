//! Forgetting, taking back and collecting.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::tz::TimeZone;
use lifeboat::error::Error;
use lifeboat::format::layout::ObjectName;
use lifeboat::id::SnapshotId;
use lifeboat::ops::forget::{ForgetOptions, apply_forget, plan_forget};
use lifeboat::ops::gc::{PruneOptions, prune};
use lifeboat::ops::hold::{Until, hold, list_holds, remove_hold};
use lifeboat::ops::snapshots::{SnapshotFilter, SnapshotInfo, list};
use lifeboat::ops::tag::{TagEdit, tag};
use lifeboat::ops::undelete::undelete;
use lifeboat::repo::Repository;
use lifeboat::retention::{Every, Limit};

use crate::actors::Machine;
use crate::chance::Dice;
use crate::world::Life;

/// Removals that may be left of any number, besides those of what is there: long ones wait for others.
const REMOVALS_KEPT: usize = 3;
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
            fold_from: 2,
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
    match dice.below(9) {
        0..3 => take_back(machine, repo, dice).await?,
        3 | 4 => keep(machine, repo, dice).await?,
        5 => let_go(machine, repo, dice).await?,
        6 => label(machine, repo, dice).await?,
        _ => {}
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

fn short(id: SnapshotId) -> String {
    id.to_string()[..8].to_owned()
}

/// One of the snapshots that are listed and confirmed; now and then one that is not.
async fn choose(repo: &Repository, dice: &mut Dice) -> Result<Option<SnapshotInfo>, Error> {
    let unconfirmed = dice.one_in(3);
    let mut listed = list(repo, &SnapshotFilter::default()).await?.snapshots;
    listed.retain(|info| info.confirmed || unconfirmed);
    let which = dice.next();
    Ok((!listed.is_empty()).then(|| listed.swap_remove((which % listed.len() as u64) as usize)))
}

/// Forgets one snapshot by its name, or all but some by a policy.
async fn forget(machine: &Machine, repo: &Repository, dice: &mut Dice) -> Result<(), Error> {
    let mut options = ForgetOptions { allow_empty: true, ..ForgetOptions::new(TimeZone::UTC) };
    if dice.one_in(4) {
        let most = Limit::Count(1 + dice.below(3) as u32);
        options.policy = options.policy.keep(Every::Snapshot, most);
    } else {
        let Some(info) = choose(repo, dice).await? else { return Ok(()) };
        options.named = vec![info.id.to_string()];
    }
    let plan = match plan_forget(repo, &options).await {
        Err(Error::Held { .. }) => return Ok(()),
        // It went meanwhile.
        Err(Error::NoSnapshot { .. }) => return Ok(()),
        plan => plan?,
    };
    for (info, _) in plan.dropped() {
        machine.world.lock().judge.forget(info.id);
        machine.remark(format!("forgets {}", short(info.id)));
    }
    apply_forget(repo, &plan).await
}

/// Takes back what was forgotten.
async fn take_back(machine: &Machine, repo: &Repository, dice: &mut Dice) -> Result<(), Error> {
    let marks = repo.read_marks().await?;
    let tombed: BTreeSet<SnapshotId> = marks.tomb_names.iter().map(|(id, _)| *id).collect();
    let tombed: Vec<SnapshotId> = tombed.into_iter().collect();
    let which = dice.next();
    if tombed.is_empty() {
        return Ok(());
    }
    let id = tombed[(which % tombed.len() as u64) as usize];
    let since = machine.world.lock().judge.times_forgotten(id);
    let done = match undelete(repo, &[id.to_string()]).await {
        Err(Error::NoSnapshot { .. }) => return Ok(()),
        done => done?,
    };
    if done.back.contains(&id) {
        machine.remark(format!("took {} back", short(id)));
        machine.world.lock().judge.take_back(id, since);
    }
    Ok(())
}

/// Puts a hold.
async fn keep(machine: &Machine, repo: &Repository, dice: &mut Dice) -> Result<(), Error> {
    let Some(info) = choose(repo, dice).await? else { return Ok(()) };
    match hold(repo, std::slice::from_ref(&info), Until::Removed, &TimeZone::UTC).await {
        Ok((hash, _)) => {
            machine.remark(format!("holds {}", short(info.id)));
            machine.world.lock().judge.hold(info.id, hash);
            Ok(())
        }
        Err(Error::TooLate { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Removes a hold.
async fn let_go(machine: &Machine, repo: &Repository, dice: &mut Dice) -> Result<(), Error> {
    let holds = list_holds(repo).await?;
    let which = dice.next();
    let Some(info) = (!holds.is_empty()).then(|| &holds[(which % holds.len() as u64) as usize]) else {
        return Ok(());
    };
    machine.world.lock().judge.let_go(&info.stored.hash);
    match remove_hold(repo, &info.stored.hash.to_string()).await {
        Ok(_) | Err(Error::NoHold { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Gives a snapshot another tag.
async fn label(machine: &Machine, repo: &Repository, dice: &mut Dice) -> Result<(), Error> {
    let Some(info) = choose(repo, dice).await? else { return Ok(()) };
    let edit = TagEdit { add: vec![format!("tag{}", dice.below(3))], ..TagEdit::default() };
    machine.remark(format!("tags {}", short(info.id)));
    tag(repo, &[info], &edit).await.map(drop)
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
        // What was taken back keeps its tomb, and an undo beside it; what is held keeps both.
        if let Some(ObjectName::Tomb(id, hash)) = ObjectName::parse(key)
            && inner.judge.confirmed.contains_key(&id)
            && !inner.judge.is_undone(&hash)
            && !inner.judge.has_hold(&id, &objects)
        {
            left.push(format!("snapshot {id} is forgotten and stays"));
        }
    }
    for key in objects.keys() {
        if matches!(ObjectName::parse(key), Some(ObjectName::Condemned(_))) && inner.judge.condemns(key) {
            left.push(format!("{key} stays"));
        }
    }
    let removals = inner.judge.settled_removals(&objects);
    if removals > REMOVALS_KEPT {
        left.push(format!("{removals} removals of what is gone stay"));
    }
    left
}
