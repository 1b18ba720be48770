//! The protocol as a model of `stateright`: which steps there are, what must always hold, and what must happen at all.

use stateright::{Checker, HasDiscoveries, Model, Path, Property};

use crate::canon::canonical;
use crate::state::{
    CHUNKS, CONFIRMED, Collector, CollectorAt, EXISTS, Guard, Mask, OLD, Standing, State, UNCHECKED, WriterAt,
};
use crate::variants::Variant;
use crate::{admin, collector, guard, writer};

/// Every snapshot with a confirmation can be restored: each chunk is in an existing pack that the index names.
pub const RESTORABLE: &str = "a confirmed snapshot is restorable";
/// Whoever was told that the old snapshot is kept has it.
pub const KEPT: &str = "a kept snapshot is there and restorable";
/// Nothing is acknowledged before a clean check.
pub const CHECKED: &str = "nothing is acknowledged unchecked";
/// A snapshot that was acknowledged is among what counts of its writer.
pub const COUNTED: &str = "what was acknowledged counts";
/// The model never ran out of slots, so nothing was left out.
pub const ROOM: &str = "the model has room";

/// Who is revoked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Revoked {
    Nobody,
    /// Writer 0.
    Writer,
    /// Collector 0.
    Collector,
}

/// One configuration.
#[derive(Clone, Copy, Debug)]
pub struct Protocol {
    pub variant: Variant,
    pub writers: usize,
    pub collectors: usize,
    /// Rounds of each collector.
    pub rounds: u8,
    /// The old snapshot may get a tomb.
    pub forget: bool,
    /// Who keeps it: 1 is a hold, 2 is a hold and an undelete.
    pub guards: usize,
    /// Deletions of snapshots are durable only after a sync, and the power may be cut once.
    pub power_cut: bool,
    /// A collector may take up the condemnation of the other, who may still be at work. Only with one round.
    pub take_up: bool,
    /// Chunks of the old snapshot.
    pub old: Mask,
    /// A further collector folds the removal records of a snapshot that is gone.
    pub fold: bool,
    /// A writer may use a pack listing of an earlier run; collectors merge index objects.
    pub cached: bool,
    /// Begin also with two packs in one index object, and with a pack left by an earlier run of writer 0.
    pub many_beginnings: bool,
    /// Take states for one that differ only in names, or in what nobody will ever learn.
    pub reduced: bool,
    /// Somebody may be revoked.
    pub revoked: Revoked,
}

/// Who makes a step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Who {
    Writer(u8),
    Collector(u8),
    Guard(u8),
    User,
    Admin,
    Folder,
    Power,
}

/// One call to the store, and the state after it.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Step {
    pub who: Who,
    pub what: &'static str,
    pub next: State,
}

/// The steps from one state.
pub type Steps = Vec<Step>;

impl Step {
    pub fn writer(i: usize, what: &'static str, next: State) -> Self {
        Self { who: Who::Writer(i as u8), what, next }
    }

    pub fn collector(i: usize, what: &'static str, next: State) -> Self {
        Self { who: Who::Collector(i as u8), what, next }
    }
}

impl Protocol {
    fn beginnings(&self) -> Vec<State> {
        let mut one = State { condemns: self.revoked == Revoked::Collector, ..State::default() };
        one.chunks[0] = CHUNKS;
        one.packs = 1;
        one.index[0] = 1;
        one.snapshots[OLD] = EXISTS | CONFIRMED;
        for i in 0..2 {
            one.writers[i].at = if i < self.writers { WriterAt::GetHorizon } else { WriterAt::Ended };
            let at = if i < self.collectors { CollectorAt::Begin } else { CollectorAt::Ended };
            one.collectors[i] = Collector { at, rounds: self.rounds, ..Collector::default() };
            one.guards[i] = if i < self.guards { Guard::Put } else { Guard::Ended };
        }
        let mut two = one;
        (two.chunks[0], two.chunks[1]) = (0b01, 0b10);
        (two.packs, two.index[0]) = (0b11, 0b11);
        let mut resumed = one;
        resumed.chunks[0] = 0b01;
        resumed.chunks[1] = CHUNKS;
        resumed.packs = 0b11;
        resumed.writers[0].journal = 0b10;
        if self.cached {
            // Somebody slow has put an index object of a pack that was long gone.
            let mut garbage = one;
            garbage.chunks[1] = CHUNKS;
            garbage.index[1] = 0b10;
            return vec![one, two, garbage];
        }
        match (self.many_beginnings, self.writers) {
            (false, _) => vec![one],
            (true, 0) => vec![one, two],
            (true, _) => vec![one, two, resumed],
        }
    }

    /// Visits states until `finish`, at most about `bound` of them.
    pub fn visit(self, finish: HasDiscoveries, bound: Option<usize>, threads: usize) -> impl Checker<Self> {
        let builder = self.checker().threads(threads).finish_when(finish);
        match bound {
            Some(bound) => builder.target_state_count(bound),
            None => builder,
        }
        .spawn_bfs()
        .join()
    }
}

impl Model for Protocol {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        self.beginnings()
    }

    fn actions(&self, state: &State, steps: &mut Steps) {
        if state.full {
            return;
        }
        for i in 0..self.writers {
            writer::steps(self, state, i, steps);
        }
        for i in 0..self.collectors {
            collector::steps(self, state, i, steps);
        }
        for i in 0..self.guards {
            guard::steps(self, state, i, steps);
        }
        guard::outside(self, state, steps);
        admin::steps(self, state, steps);
    }

    fn next_state(&self, _: &State, step: Step) -> Option<State> {
        Some(canonical(step.next, self))
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![
            Property::always(RESTORABLE, restorable),
            Property::always(KEPT, kept),
            Property::always(CHECKED, |_, s: &State| {
                s.snapshots.iter().all(|snapshot| snapshot & UNCHECKED == 0)
            }),
            Property::always(COUNTED, |protocol: &Self, s: &State| {
                protocol.revoked != Revoked::Writer || s.snapshots[1] & CONFIRMED == 0 || !s.is_refused()
            }),
            Property::always(ROOM, |_, s: &State| !s.full),
        ];
        properties.extend(self.reached().into_iter().map(|(name, seen)| Property::sometimes(name, seen)));
        properties
    }
}

fn needs(protocol: &Protocol, snapshot: usize) -> Mask {
    if snapshot == OLD { protocol.old } else { CHUNKS }
}

fn restorable(protocol: &Protocol, state: &State) -> bool {
    let promised = |snapshot: u8| snapshot & (EXISTS | CONFIRMED) == EXISTS | CONFIRMED;
    let refused = |i| i == 1 && protocol.revoked == Revoked::Writer && state.is_refused();
    let lost = |i: usize| promised(state.snapshots[i]) && !state.restorable(needs(protocol, i));
    (0..3).all(|i| refused(i) || !lost(i))
}

fn kept(protocol: &Protocol, state: &State) -> bool {
    !state.guards.contains(&Guard::Succeeded)
        || (state.snapshots[OLD] & EXISTS != 0 && state.restorable(protocol.old))
}

type Seen = fn(&Protocol, &State) -> bool;

impl Protocol {
    /// What this configuration must reach: a model in which nothing happens proves nothing.
    pub fn reached(&self) -> Vec<(&'static str, Seen)> {
        let mut all: Vec<(&'static str, Seen)> = Vec::new();
        if self.writers > 0 {
            all.push(("a writer is confirmed", |_, s| s.snapshots[1] & CONFIRMED != 0));
            if self.collectors > 0 {
                all.push(("a writer heals", |_, s| at_writer(s, WriterAt::HealPacks)));
                all.push(("a writer meets a moved horizon", |_, s| at_writer(s, WriterAt::CheckPacks)));
                all.push(("a writer is not confirmed", |_, s| {
                    s.snapshots[1] == EXISTS && s.writers[0].at == WriterAt::Ended
                }));
            }
        }
        if self.collectors > 0 {
            all.push(("live chunks move", |_, s| at_collector(s, CollectorAt::MoveIndex)));
            all.push(("a horizon is written", |_, s| at_collector(s, CollectorAt::DropRecord)));
            if self.many_beginnings {
                all.push(("an index object is replaced", |_, s| {
                    at_collector(s, CollectorAt::PutReplacement)
                }));
            }
        }
        if self.forget {
            all.push(("a snapshot is removed", |_, s| s.snapshots[OLD] & EXISTS == 0));
        }
        if self.forget && self.guards > 0 {
            all.push(("a removal is spared", |_, s| s.collectors.iter().any(|c| c.spare)));
            all.push(("keeping succeeds", |_, s| s.guards.contains(&Guard::Succeeded)));
            all.push(("keeping comes too late", |_, s| s.guards.contains(&Guard::TooLate)));
        }
        if self.revoked != Revoked::Nobody {
            all.push(("an index object does not count", |_, s| {
                s.standing == Standing::Revoked && s.signed & !s.accepted[1] != 0
            }));
            all.push(("a collector stops because of the registry", |_, s| {
                s.collectors[0].at == CollectorAt::Ended && s.collectors[0].known != Standing::Active
            }));
        }
        if self.revoked == Revoked::Writer {
            all.push(("a snapshot does not count", |_, s| s.snapshots[1] & EXISTS != 0 && s.is_refused()));
            all.push(("a revoked writer is acknowledged, and counts", |_, s| {
                s.snapshots[1] & CONFIRMED != 0 && s.standing == Standing::Revoked && s.counts
            }));
            if self.writers > 1 {
                all.push(("a writer heals because another one was revoked", |_, s| {
                    s.writers[1].at == WriterAt::HealPacks && s.writers[1].known != Standing::Active
                }));
            }
        }
        if self.power_cut {
            all.push(("a snapshot comes back after a power cut", |_, s| {
                s.cut && s.snapshots[OLD] & EXISTS != 0 && s.removals[2]
            }));
        }
        all
    }
}

fn at_writer(state: &State, at: WriterAt) -> bool {
    state.writers.iter().any(|w| w.at == at)
}

fn at_collector(state: &State, at: CollectorAt) -> bool {
    state.collectors.iter().any(|c| c.at == at)
}

/// A way through the model, a line a step, for people.
pub fn told(path: Path<State, Step>) -> String {
    let steps = path.into_actions();
    let mut lines = String::new();
    for (number, step) in steps.iter().enumerate() {
        let who = match step.who {
            Who::Writer(i) => format!("writer {i}"),
            Who::Collector(i) => format!("collector {i}"),
            Who::Guard(0) => "hold".to_owned(),
            Who::Guard(_) => "undelete".to_owned(),
            Who::User => "user".to_owned(),
            Who::Admin => "admin".to_owned(),
            Who::Folder => "another collector".to_owned(),
            Who::Power => "power".to_owned(),
        };
        lines += &format!("{:3}. {who} {}\n", number + 1, step.what);
    }
    lines
}
