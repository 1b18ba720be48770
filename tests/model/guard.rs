//! Those who keep the old snapshot (hold and undelete), the user who forgets it, and the power cut.

use crate::checker::{Protocol, Step, Steps, Who};
use crate::state::{Collector, CollectorAt, EXISTS, Guard, OLD, State, UNSYNCED, WriterAt};
use crate::variants::Variant;
use crate::writer;

/// The next call of guard `i`.
pub fn steps(protocol: &Protocol, state: &State, i: usize, out: &mut Steps) {
    let mut next = *state;
    let present = state.snapshots[OLD] & EXISTS != 0;
    let named = state.removals.contains(&true);
    let mine = &mut next.guards[i];
    let what = match *mine {
        // Nothing to undo without a tomb.
        Guard::Put if i == 1 && !state.tomb => return,
        Guard::Put => {
            next.kept[i] = true;
            *mine = match protocol.variant {
                Variant::KeepWithoutLook => Guard::Succeeded,
                Variant::KeepLooksBackwards | Variant::KeepIgnoresRemoval => Guard::LookSnapshot,
                _ => Guard::LookRemoval,
            };
            "puts its object"
        }
        Guard::LookRemoval => {
            *mine = match (named, protocol.variant) {
                (true, _) => Guard::TooLate,
                (false, Variant::KeepLooksBackwards) => Guard::Succeeded,
                (false, _) => Guard::LookSnapshot,
            };
            "lists removal records"
        }
        Guard::LookSnapshot => {
            *mine = match (present, protocol.variant) {
                (false, _) => Guard::TooLate,
                (true, Variant::KeepLooksBackwards) => Guard::LookRemoval,
                (true, _) => Guard::Succeeded,
            };
            "looks at the snapshot"
        }
        Guard::Succeeded | Guard::TooLate | Guard::Ended => return,
    };
    out.push(Step { who: Who::Guard(i as u8), what, next });
}

/// What happens to the repository from outside: a tomb, a fold, and a power cut. That a snapshot is gone for good stays so, so a
/// fold may be one step: what is listed in its course does not change.
pub fn outside(protocol: &Protocol, state: &State, out: &mut Steps) {
    if protocol.forget && !state.tomb {
        out.push(Step { who: Who::User, what: "puts a tomb", next: State { tomb: true, ..*state } });
    }
    let gone =
        state.snapshots[OLD] & (EXISTS | UNSYNCED) == 0 || protocol.variant == Variant::FoldsWhatIsThere;
    if protocol.fold && gone && state.removals.contains(&true) {
        let next = State { removals: [false; 3], ..*state };
        out.push(Step { who: Who::Folder, what: "folds removal records", next });
    }
    if protocol.power_cut && !state.cut {
        out.push(Step { who: Who::Power, what: "is cut", next: cut(protocol, state) });
    }
}

/// A deletion that was not durable is undone. Every process on the machine ends; collectors and one writer come back,
/// and know only what is stored.
fn cut(protocol: &Protocol, state: &State) -> State {
    let mut next = State { cut: true, ..*state };
    for snapshot in &mut next.snapshots {
        if *snapshot & UNSYNCED != 0 {
            *snapshot = (*snapshot & !UNSYNCED) | EXISTS;
        }
    }
    for writer in next.writers.iter_mut().take(protocol.writers) {
        *writer = match writer.at {
            WriterAt::GetHorizon => *writer,
            _ => writer::ended(),
        };
    }
    for guard in next.guards.iter_mut().take(protocol.guards) {
        if matches!(guard, Guard::LookRemoval | Guard::LookSnapshot) {
            *guard = Guard::Ended;
        }
    }
    for i in 0..protocol.collectors {
        next.left |= std::mem::take(&mut next.condemned[i]);
        next.removals[2] |= std::mem::take(&mut next.removals[i]);
        let me = &mut next.collectors[i];
        let at = if me.rounds == 0 { CollectorAt::Ended } else { CollectorAt::Begin };
        *me = Collector { at, rounds: me.rounds, ..Collector::default() };
    }
    next
}
