//! Forgetting and collecting.

use crate::actors::Machine;
use crate::chance::Dice;

/// How a history collects.
#[derive(Debug, Clone, Copy)]
pub struct Manner {
    pub grace_days: u64,
}

impl Manner {
    pub fn new(dice: &mut Dice) -> Self {
        Self { grace_days: dice.pick(&[0, 0, 1, 7]) }
    }

    pub fn at_last(self) -> Self {
        Self { grace_days: 0 }
    }

    pub fn collects(self) -> bool {
        false
    }
}

/// Forgets and collects, so many times.
pub async fn collector(machine: Machine, _: Dice, (rounds, manner): (u64, Manner)) {
    for _ in 0..rounds {
        let _ = collect(&machine, manner).await;
    }
    machine.world.end(machine.actor);
}

/// One collection.
pub async fn collect(_: &Machine, _: Manner) -> Result<(), String> {
    Ok(())
}
