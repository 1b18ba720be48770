//! One history: from a seed to a verdict.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use lifeboat::format::layout::ObjectName;
use lifeboat::ops::verify::{Depth, Problem, Severity, verify};

use crate::actors::{Failed, Machine, restore_one, restorer, verifier, writer};
use crate::chance::Dice;
use crate::collector::{Manner, collect, collector, leftovers};
use crate::fault::{MARKS, Weather};
use crate::judge::Judge;
use crate::setup::Setup;
use crate::tree::Tree;
use crate::world::World;

/// Nothing may take longer in real time.
const LIMIT: Duration = Duration::from_secs(60);

/// What a history came to.
#[derive(Debug, Default, Clone, Copy)]
pub struct Outcome {
    pub steps: u64,
    pub confirmed: u64,
    pub removed: u64,
}

/// What it came to, what was violated, and the world to look at.
pub type Report = (Outcome, Result<(), String>, Arc<World>);

/// Runs the history of this seed in this directory.
pub async fn run(setup: &Arc<Setup>, seed: u64, dir: &Path) -> Report {
    let mut dice = Dice::new(seed);
    let weather = Weather::new(&mut dice);
    let mut judge = Judge::new(Arc::clone(&setup.repo), Arc::clone(&setup.contents));
    let writers = dice.pick(&[1, 1, 2, 2, 2, 3, 3, 4, 5]);
    let collectors = dice.pick(&[0, 1, 1, 1, 2, 2]);
    judge.expect_collections(collectors > 0);
    let world = World::new(setup.objects.clone(), judge, (dice.fork(), weather));
    let manner = Manner::new(&mut dice, collectors > 0);
    let mut tasks = Vec::new();
    for n in 0..writers {
        let machine = Machine::new(setup, &world, (&format!("writer{n}"), dir), &mut dice);
        let rounds = 1 + dice.below(if writers < 3 { 5 } else { 3 });
        tasks.push(tokio::task::spawn_local(writer(machine, dice.fork(), rounds)));
    }
    for n in 0..collectors {
        let machine = Machine::new(setup, &world, (&format!("collector{n}"), dir), &mut dice);
        let rounds = 1 + dice.below(4);
        tasks.push(tokio::task::spawn_local(collector(machine, dice.fork(), (rounds, manner))));
    }
    if dice.one_in(2) {
        let machine = Machine::new(setup, &world, ("restorer", dir), &mut dice);
        tasks.push(tokio::task::spawn_local(restorer(machine, dice.fork(), 1 + 1)));
    }
    if dice.one_in(4) {
        let machine = Machine::new(setup, &world, ("verifier", dir), &mut dice);
        tasks.push(tokio::task::spawn_local(verifier(machine, dice.fork(), 3)));
    }
    let last = Machine::new(setup, &world, ("last", dir), &mut dice);
    world.end(last.actor);
    let whole = async {
        world.run().await;
        for task in tasks {
            if let Err(error) = task.await {
                world.lock().judge.violations.push(format!("panic: {error}"));
            }
        }
        world.calm_down();
        if world.lock().judge.violations.is_empty() {
            close(&last, manner).await;
        }
    };
    if tokio::time::timeout(LIMIT, whole).await.is_err() {
        world.lock().judge.violations.push("the history does not end".to_owned());
    }
    let mut inner = world.lock();
    let outcome = Outcome {
        steps: inner.steps(),
        confirmed: inner.judge.confirmed.len() as u64,
        removed: inner.judge.removed.len() as u64,
    };
    let violations = std::mem::take(&mut inner.judge.violations);
    drop(inner);
    let verdict = if violations.is_empty() { Ok(()) } else { Err(violations.join("\n")) };
    (outcome, verdict, world)
}

/// Whether this is the name of a snapshot that was removed as was asked.
fn is_removed(machine: &Machine, key: &str) -> bool {
    let Some(ObjectName::Snapshot(_, _, id)) = ObjectName::parse(key) else { return false };
    machine.world.lock().judge.removed.contains(&id)
}

/// Everyone is done and the network is good: two more collections, and everything must be in order. Where a mark is damaged
/// for good, collections may refuse and leave things; what was acknowledged is there all the same.
async fn close(machine: &Machine, manner: Manner) {
    let complain = |text: String| machine.world.lock().judge.violations.push(text);
    let rotten = machine.world.lock().is_rotten;
    for _ in 0..if manner.collects() { 2 } else { 0 } {
        if let Err(text) = collect(machine, manner.at_last()).await
            && !rotten
        {
            complain(format!("a collection in good weather failed: {text}"));
        }
    }
    let repo = match machine.open().await.1 {
        Ok(repo) => repo,
        Err(error) => return complain(format!("cannot open the repository: {error}")),
    };
    match verify(&repo, Depth::Data).await {
        Err(error) => complain(format!("cannot verify: {error}")),
        Ok(report) => {
            for finding in &report.findings {
                // A snapshot that was never confirmed may have lost its chunks: nobody was told of it.
                let unconfirmed = matches!(finding.problem, Problem::Unconfirmed);
                let mark = rotten && MARKS.iter().any(|marks| finding.key.starts_with(marks));
                // The removal that named it may have rotted.
                let removed = rotten && is_removed(machine, &finding.key);
                if finding.severity == Severity::Damage && !unconfirmed && !mark && !removed {
                    complain(format!("verify: {finding}"));
                }
            }
        }
    }
    let mut left: Vec<(_, Arc<Tree>)> = Vec::new();
    for (id, snapshot) in &machine.world.lock().judge.confirmed {
        left.push((*id, Arc::clone(&snapshot.tree)));
    }
    for (id, tree) in left {
        match restore_one(machine, &repo, (id, &tree)).await {
            Ok(()) => {}
            Err(Failed::Not(text)) => complain(format!("{id} does not restore: {text}")),
            Err(Failed::Wrong(text)) => complain(format!("{id} restores wrongly: {text}")),
        }
    }
    if manner.collects() && !rotten {
        leftovers(machine).into_iter().for_each(complain);
    }
}
