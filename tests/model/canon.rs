//! One state for all that differ only in names: of packs, of index objects, and of processes that do the same.
//!
//! Any renaming is sound, because no step and no property looks at a name; a better choice only finds more states equal.

use crate::checker::{Protocol, Revoked};
use crate::state::{INDEXES, NONE, SLOTS, State, WriterAt};

/// Forgets the content of packs that nobody knows, and with `reduced` renames and forgets more.
pub fn canonical(mut state: State, protocol: &Protocol) -> State {
    let used = state.used();
    for slot in 0..SLOTS {
        if used & (1 << slot) == 0 {
            state.chunks[slot] = 0;
        }
    }
    if !protocol.cached {
        state.collectors.iter_mut().for_each(|c| c.moved = false);
    }
    if protocol.reduced {
        if !protocol.variant.uses_without_listing() {
            forget_dead(&mut state, protocol);
        }
        order_processes(&mut state, protocol);
        order_packs(&mut state);
        order_index(&mut state);
    }
    state
}

/// Forgets what is said about packs that are gone for good, where nobody can learn it: whoever takes a pack from the
/// index lists packs before using it. What was listed as present stays, and so do dependencies, condemnations and a
/// collector's own packs. With cached listings, records are believed without such a look, so they stay, too.
fn forget_dead(state: &mut State, protocol: &Protocol) {
    let packs = state.packs;
    let [first, second] = state.collectors;
    for w in &mut state.writers {
        w.seen &= packs;
    }
    for c in &mut state.collectors {
        c.seen &= packs;
    }
    if protocol.cached {
        return;
    }
    let kept = packs | state.all_condemned() | first.packs | second.packs;
    for names in &mut state.index {
        *names &= kept;
    }
    for w in &mut state.writers {
        w.unnamed &= kept;
        w.journal &= packs;
        if matches!(w.at, WriterAt::ListPacks | WriterAt::HealPacks) {
            w.view &= packs;
        }
    }
    for c in &mut state.collectors {
        c.named &= kept;
        c.target &= kept;
    }
}

fn writer_key(state: &State, i: usize) -> impl Ord + use<> {
    let w = state.writers[i];
    let counts = [w.view, w.seen, w.unnamed, w.journal, w.cached, w.remembered].map(u8::count_ones);
    let depends = w.depends.map(|pack| pack != NONE && state.packs & (1 << pack) != 0);
    (w.at, state.snapshots[i + 1], w.moved, w.cache, w.checked, w.lost, counts, depends)
}

fn collector_key(state: &State, i: usize) -> impl Ord + use<> {
    let c = state.collectors[i];
    let counts =
        [c.packs, c.named, c.seen, c.target, c.superseded, state.condemned[i], c.packs & state.packs]
            .map(u8::count_ones);
    ((c.at, c.rounds, c.record == i as u8), (c.spare, c.late, c.moved, c.fresh, c.live, c.moving), counts)
}

fn order_processes(state: &mut State, protocol: &Protocol) {
    let (writers, collectors) = (protocol.revoked != Revoked::Writer, protocol.revoked != Revoked::Collector);
    if writers && protocol.writers == 2 && writer_key(state, 0) > writer_key(state, 1) {
        state.writers.swap(0, 1);
        state.snapshots.swap(1, 2);
    }
    if collectors && protocol.collectors == 2 && collector_key(state, 0) > collector_key(state, 1) {
        state.collectors.swap(0, 1);
        state.condemned.swap(0, 1);
        state.removals.swap(0, 1);
        for c in &mut state.collectors {
            c.record = 1 - c.record;
        }
    }
}

/// Every set of packs in the state, in a fixed order, but for those of index objects.
fn sets(state: &mut State) -> [&mut u8; 22] {
    let [w0, w1] = &mut state.writers;
    let [c0, c1] = &mut state.collectors;
    let [d0, d1] = &mut state.condemned;
    [
        &mut state.packs,
        d0,
        d1,
        &mut state.left,
        &mut w0.view,
        &mut w0.seen,
        &mut w0.unnamed,
        &mut w0.journal,
        &mut w0.cached,
        &mut w1.view,
        &mut w1.seen,
        &mut w1.unnamed,
        &mut w1.journal,
        &mut w1.cached,
        &mut c0.packs,
        &mut c0.named,
        &mut c0.seen,
        &mut c0.target,
        &mut c1.packs,
        &mut c1.named,
        &mut c1.seen,
        &mut c1.target,
    ]
}

/// Sorts packs by everything that is said about them.
fn order_packs(state: &mut State) {
    let mut signs = [0u64; SLOTS];
    for (slot, sign) in signs.iter_mut().enumerate() {
        *sign = u64::from(state.chunks[slot]);
    }
    let mut add = |mask: u8| {
        for (slot, sign) in signs.iter_mut().enumerate() {
            *sign = (*sign << 1) | u64::from((mask >> slot) & 1);
        }
    };
    for set in sets(state) {
        add(*set);
    }
    for w in state.writers {
        for pack in w.depends {
            add(if pack == NONE { 0 } else { 1 << pack });
        }
    }
    for (slot, sign) in signs.iter_mut().enumerate() {
        let naming = state.index.iter().filter(|names| *names & (1 << slot) != 0).count();
        *sign = (*sign << 6) | ((naming as u64) << 3) | slot as u64;
    }
    signs.sort_unstable_by(|a, b| b.cmp(a));
    let mut place = [0u8; SLOTS];
    for (to, sign) in signs.iter().enumerate() {
        place[(sign & 7) as usize] = to as u8;
    }
    if place.iter().enumerate().any(|(from, to)| from != usize::from(*to)) {
        rename(state, place);
    }
}

fn rename(state: &mut State, place: [u8; SLOTS]) {
    let renamed = |mask: u8| {
        let (mut rest, mut to) = (mask, 0u8);
        while rest != 0 {
            to |= 1 << place[rest.trailing_zeros() as usize];
            rest &= rest - 1;
        }
        to
    };
    for set in sets(state) {
        *set = renamed(*set);
    }
    for names in &mut state.index {
        *names = renamed(*names);
    }
    for w in &mut state.writers {
        for pack in &mut w.depends {
            if *pack != NONE {
                *pack = place[usize::from(*pack)];
            }
        }
    }
    let chunks = state.chunks;
    for (from, to) in place.iter().enumerate() {
        state.chunks[usize::from(*to)] = chunks[from];
    }
}

/// Sorts index objects by the packs they name and by who knows them.
fn order_index(state: &mut State) {
    let [c0, c1] = &state.collectors;
    let [w0, w1] = &state.writers;
    let [first, second] = state.accepted;
    let known = [
        state.fresh,
        c0.superseded,
        c1.superseded,
        w0.remembered,
        w1.remembered,
        state.signed,
        first,
        second,
    ];
    let mut objects = [(0u8, 0u8); INDEXES];
    for (slot, object) in objects.iter_mut().enumerate() {
        let by = known.iter().fold(0, |by, mask| (by << 1) | ((mask >> slot) & 1));
        *object = (state.index[slot], by);
    }
    objects.sort_unstable_by(|a, b| b.cmp(a));
    let mut known = [0u8; 8];
    for (slot, (names, by)) in objects.into_iter().enumerate() {
        state.index[slot] = names;
        for (bit, mask) in known.iter_mut().rev().enumerate() {
            *mask |= ((by >> bit) & 1) << slot;
        }
    }
    let [fresh, by_first, by_second, first, second, signed, listed_first, listed_second] = known;
    (state.fresh, state.signed, state.accepted) = (fresh, signed, [listed_first, listed_second]);
    (state.collectors[0].superseded, state.collectors[1].superseded) = (by_first, by_second);
    (state.writers[0].remembered, state.writers[1].remembered) = (first, second);
}
