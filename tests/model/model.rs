//! Every interleaving of writers, collectors and people who remove and keep snapshots, on a small repository.
//!
//! Each call to the store is one step, and a process may stop for ever after any of them. `docs/reliability.md` says what
//! the model covers. `LIFEBOAT_MODEL=full` goes much further; the other tests here break the protocol on purpose, and fail
//! if the model does not notice.
#![allow(missing_docs, unreachable_pub, reason = "a test has no public interface")]
#![expect(
    clippy::print_stdout,
    reason = "the number of states and the ways to a loss are what the test is read for"
)]

mod admin;
mod canon;
mod checker;
mod collector;
mod guard;
mod state;
mod variants;
mod writer;

use checker::{CHECKED, COUNTED, KEPT, Protocol, RESTORABLE, ROOM, Revoked, told};
use state::ENDLESS;
use stateright::{Checker, HasDiscoveries};
use variants::{BROKEN, Broken, Variant};

/// No processes yet, everything else as in a plain repository.
const NOBODY: Protocol = Protocol {
    variant: Variant::Whole,
    writers: 0,
    collectors: 0,
    rounds: 1,
    forget: false,
    guards: 0,
    power_cut: false,
    take_up: false,
    fold: false,
    cached: false,
    old: 0b01,
    many_beginnings: true,
    reduced: true,
    revoked: Revoked::Nobody,
};
/// Removal, hold, undelete and a power cut.
const REMOVAL: Protocol = Protocol { forget: true, guards: 2, power_cut: true, ..NOBODY };

/// What must always hold.
const PROMISES: [&str; 5] = [RESTORABLE, KEPT, CHECKED, COUNTED, ROOM];

/// Visits every state, or about `bound` of them, and finds nothing wrong and everything that must happen.
fn holds(name: &str, protocol: Protocol, bound: Option<usize>) {
    // A bounded run may leave out what needs more room than there is.
    let promises = if bound.is_some() { &PROMISES[..4] } else { &PROMISES };
    let finish = HasDiscoveries::AnyOf(promises.iter().copied().collect());
    let checker = protocol.visit(finish, bound, 2);
    let found = checker.discoveries();
    for property in promises {
        if let Some(path) = found.get(property) {
            panic!("{name}: not so: {property}\n{}", told(path.clone()));
        }
    }
    for (what, _) in protocol.reached() {
        assert!(found.contains_key(what) || bound.is_some(), "{name}: never reached: {what}");
    }
    let extent = if bound.is_some() { "bounded" } else { "exhaustive" };
    let (states, steps, depth) = (checker.unique_state_count(), checker.state_count(), checker.max_depth());
    println!("{name}: {states} states, {steps} steps, {depth} deep, {extent}");
}

/// Whether the long runs are asked for.
fn full() -> bool {
    std::env::var("LIFEBOAT_MODEL").is_ok_and(|value| value == "full")
}

#[test]
fn one_writer_and_one_collector() {
    let both = Protocol { writers: 1, collectors: 1, ..NOBODY };
    holds("1 x 1, rounds without end", Protocol { rounds: ENDLESS, ..both }, None);
    let forget = Protocol { writers: 1, collectors: 1, ..REMOVAL };
    let hold = Protocol { guards: 1, power_cut: false, rounds: ENDLESS, ..forget };
    holds("1 x 1, rounds without end, removal and hold", hold, None);
    holds("1 x 1, removal, hold, undelete, power cut", forget, None);
    if full() {
        let name = "1 x 1, two rounds, removal, hold, undelete, power cut";
        holds(name, Protocol { rounds: 2, ..forget }, None);
    }
}

#[test]
fn two_collectors_alone() {
    let protocol = Protocol { collectors: 2, take_up: true, ..REMOVAL };
    holds("0 x 2, removal, hold, undelete, power cut, taking up", protocol, None);
    holds("the same, folding", Protocol { fold: true, ..protocol }, None);
}

#[test]
fn two_writers_and_one_collector() {
    let protocol = Protocol { writers: 2, collectors: 1, ..NOBODY };
    holds("2 x 1", protocol, None);
    holds("2 x 1, removal and hold", Protocol { forget: true, guards: 1, ..protocol }, None);
    if full() {
        holds("2 x 1, two rounds", Protocol { rounds: 2, ..protocol }, None);
    }
}

#[test]
fn one_writer_and_two_collectors() {
    let protocol = Protocol { writers: 1, collectors: 2, take_up: true, ..NOBODY };
    holds("1 x 2, taking up", protocol, None);
    if full() {
        let removal = Protocol { forget: true, guards: 1, many_beginnings: false, ..protocol };
        holds("1 x 2, removal and hold, taking up", removal, Some(30_000_000));
    }
}

#[test]
fn pack_listings_of_an_earlier_run() {
    let cached = Protocol { cached: true, ..NOBODY };
    holds(
        "1 x 1, cached listing, two rounds",
        Protocol { writers: 1, collectors: 1, rounds: 2, ..cached },
        None,
    );
    holds("2 x 1, cached listing", Protocol { writers: 2, collectors: 1, ..cached }, None);
    let bound = if full() { 20_000_000 } else { 2_000_000 };
    holds("1 x 2, cached listing", Protocol { writers: 1, collectors: 2, ..cached }, Some(bound));
}

#[test]
fn somebody_is_revoked() {
    let protocol = Protocol { collectors: 1, ..NOBODY };
    let (writer, collector) = (Revoked::Writer, Revoked::Collector);
    holds("1 x 1, the writer is revoked", Protocol { writers: 1, revoked: writer, ..protocol }, None);
    holds("1 x 1, the collector is revoked", Protocol { writers: 1, revoked: collector, ..protocol }, None);
    let two = Protocol { writers: 2, revoked: writer, many_beginnings: full(), ..protocol };
    holds("2 x 1, a writer is revoked", two, None);
}

#[test]
fn two_writers_and_two_collectors() {
    let protocol = Protocol { writers: 2, collectors: 2, take_up: true, ..NOBODY };
    let bound = if full() { 30_000_000 } else { 4_000_000 };
    holds("2 x 2, taking up", protocol, Some(bound));
}

/// The way to the broken promise, and how many states it took.
fn caught(broken: &Broken, reduced: bool) -> Result<(usize, String), usize> {
    let plain = if broken.removal { REMOVAL } else { NOBODY };
    let protocol = Protocol {
        variant: broken.variant,
        writers: broken.writers,
        collectors: broken.collectors,
        cached: broken.cached,
        revoked: broken.revoked,
        fold: broken.variant == Variant::FoldsWhatIsThere,
        reduced,
        ..plain
    };
    let checker = protocol.visit(HasDiscoveries::AnyOf([broken.promise].into()), None, 2);
    let states = checker.unique_state_count();
    checker.discovery(broken.promise).map(|path| (states, told(path))).ok_or(states)
}

#[test]
fn every_broken_variant_is_caught() {
    let mut missed = Vec::new();
    for broken in BROKEN {
        // With and without taking similar states for one, which must not hide a fault either.
        let ways: &[bool] = if broken.collectors == 1 || full() { &[false, true] } else { &[true] };
        for &reduced in ways {
            let variant = broken.variant;
            match caught(broken, reduced) {
                Ok((states, way)) if reduced == ways[0] => {
                    println!("{variant:?}: caught after {states} states\n{way}")
                }
                Ok(_) => {}
                Err(states) => missed.push(format!("{variant:?}, reduced {reduced}: {states} states")),
            }
        }
    }
    assert!(missed.is_empty(), "harmless, or not noticed: {missed:#?}");
}

#[test]
fn without_taking_similar_states_for_one() {
    let protocol = Protocol { collectors: 1, reduced: false, ..NOBODY };
    holds("1 x 1, not reduced", Protocol { writers: 1, ..protocol }, None);
    holds("2 x 1, not reduced", Protocol { writers: 2, ..protocol }, None);
}
