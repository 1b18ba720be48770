//! The collector: removal of the old snapshot if it has a tomb, then steps 1 to 5 of `docs/protocol.md`.

use crate::admin::lists_horizon;
use crate::checker::{Protocol, Revoked, Step, Steps};
use crate::state::{
    CHUNKS, Collector, CollectorAt as At, ENDLESS, EXISTS, Mask, OLD, Standing, State, UNSYNCED, members,
};
use crate::variants::Variant;

/// Every call that collector `i` may make next, with what comes of it.
pub fn steps(protocol: &Protocol, state: &State, i: usize, out: &mut Steps) {
    match state.collectors[i].at {
        At::Begin => begin(protocol, state, i, out),
        At::PutRemoval
        | At::ListHolds
        | At::ListUndos
        | At::DeleteSnapshot
        | At::SyncRemoved
        | At::DropRemoval => remove(protocol, state, i, out),
        At::ListSnapshots | At::ListAgain => list_snapshots(protocol, state, i, out),
        At::Choose => choose(protocol, state, i, out),
        At::Condemn | At::SyncListed | At::ListIndex | At::ListCondemned | At::ListPacks => {
            look(protocol, state, i, out);
        }
        At::CheckRegistry | At::CountsIndex | At::CountsHorizon => reread(protocol, state, i, out),
        At::MovePack | At::MoveIndex => relocate(protocol, state, i, out),
        At::Ended => {}
        _ => finish(protocol, state, i, out),
    }
}

/// The order of a removal; the variants change it.
fn after_removal_step(variant: Variant, at: At) -> At {
    match (variant, at) {
        (Variant::DeleteBeforeHolds, At::PutRemoval) => At::DeleteSnapshot,
        (Variant::DeleteBeforeHolds, At::SyncRemoved) => At::ListHolds,
        (Variant::DeleteBeforeHolds, At::ListUndos) => At::DropRemoval,
        (Variant::RemovalAfterHolds, At::Begin) => At::ListHolds,
        (Variant::RemovalAfterHolds, At::ListUndos) => At::PutRemoval,
        (Variant::RemovalAfterHolds, At::PutRemoval) => At::DeleteSnapshot,
        (Variant::RemovalDroppedEarly, At::ListUndos) => At::DropRemoval,
        (Variant::RemovalDroppedEarly, At::DropRemoval) => At::DeleteSnapshot,
        (Variant::RemovalDroppedEarly | Variant::NoSync, At::SyncRemoved) => At::ListSnapshots,
        (_, At::Begin) => At::PutRemoval,
        (_, At::PutRemoval) => At::ListHolds,
        (_, At::ListHolds) => At::ListUndos,
        (_, At::ListUndos) => At::DeleteSnapshot,
        (_, At::DeleteSnapshot) => At::SyncRemoved,
        (_, At::SyncRemoved) => At::DropRemoval,
        _ => At::ListSnapshots,
    }
}

/// Begins a round, if one is left.
fn begin(protocol: &Protocol, state: &State, i: usize, out: &mut Steps) {
    let mut next = *state;
    let me = &mut next.collectors[i];
    if me.rounds == 0 {
        return;
    }
    if me.rounds != ENDLESS {
        me.rounds -= 1;
    }
    me.record = i as u8;
    (me.moved, me.known) = (false, state.standing);
    if is_stopped(protocol, state, i) {
        stop(me);
        return out.push(Step::collector(i, "reads the registry, and does not begin", next));
    }
    me.at = after_removal_step(protocol.variant, At::Begin);
    if !state.tomb || state.snapshots[OLD] & EXISTS == 0 {
        (me.at, me.spare) = (At::ListSnapshots, false);
        next.removals[i] = false;
        if !protocol.forget {
            return list_snapshots(protocol, &next, i, out);
        }
    }
    out.push(Step::collector(i, "lists tombs", next));
}

/// Whether what the registry says now lets collector `i` go on: while somebody is about to be revoked nobody collects.
fn is_stopped(protocol: &Protocol, state: &State, i: usize) -> bool {
    state.standing == Standing::Closing || is_revoked(protocol, i) && state.standing != Standing::Active
}

/// Removes the old snapshot: record, holds, undos, delete, wait until that is durable.
fn remove(protocol: &Protocol, state: &State, i: usize, out: &mut Steps) {
    let mut next = *state;
    let old = state.snapshots[OLD];
    let me = &mut next.collectors[i];
    let at = me.at;
    me.at = after_removal_step(protocol.variant, at);
    let what = match at {
        At::PutRemoval => {
            next.removals[i] = true;
            "puts a removal record"
        }
        At::ListHolds => {
            me.spare |= state.kept[0];
            "lists holds"
        }
        At::ListUndos => {
            me.spare |= state.kept[1];
            if me.spare {
                me.at = At::DropRemoval;
            }
            "lists undos"
        }
        At::DeleteSnapshot => {
            if old & EXISTS != 0 {
                next.snapshots[OLD] = (old & !EXISTS) | if protocol.power_cut { UNSYNCED } else { 0 };
            }
            "deletes the snapshot"
        }
        At::SyncRemoved => {
            if protocol.variant != Variant::NoSync {
                next.snapshots[OLD] &= !UNSYNCED;
            }
            "waits until that is durable"
        }
        _ => {
            if me.spare {
                me.at = At::ListSnapshots;
            }
            me.spare = false;
            next.removals[i] = false;
            "removes the removal record"
        }
    };
    if next.collectors[i].at == At::ListSnapshots {
        next.collectors[i].spare = false;
        next.removals[i] = false;
    }
    out.push(Step::collector(i, what, next));
}

/// Whether this is the collector that may be revoked.
fn is_revoked(protocol: &Protocol, i: usize) -> bool {
    protocol.revoked == Revoked::Collector && i == 0
}

/// Makes no further call.
fn stop(me: &mut Collector) {
    *me = Collector { at: At::Ended, known: Standing::Closing, ..Collector::default() };
}

/// Reads the registry again: after a look, and before what was put counts as put.
fn reread(protocol: &Protocol, state: &State, i: usize, out: &mut Steps) {
    let mut next = *state;
    let me = &mut next.collectors[i];
    let changed = me.known != state.standing;
    let what = "reads the registry again";
    me.known = state.standing;
    if is_stopped(protocol, state, i) {
        stop(me);
        return out.push(Step::collector(i, "reads the registry again, and stops", next));
    }
    me.at = match me.at {
        At::CheckRegistry if changed => {
            (me.moving, me.live) = (0, 0);
            At::ListAgain
        }
        At::CheckRegistry if me.moving == 0 => At::DeletePacks,
        At::CheckRegistry => At::MovePack,
        At::CountsIndex => At::DeleteIndex,
        _ => At::DropRecord,
    };
    out.push(Step::collector(i, what, next));
}

/// The chunks that some snapshot needs. Each one that exists is a root, confirmed or not, tomb or not.
fn live(protocol: &Protocol, state: &State) -> Mask {
    // One that does not count is removed like what is forgotten: here it may simply be no root.
    let refused = |w: &usize| *w == 1 && protocol.revoked == Revoked::Writer && state.is_refused();
    let writers = (1..=protocol.writers).filter(|w| !refused(w));
    let mut live = writers.filter(|w| state.snapshots[*w] & EXISTS != 0).fold(0, |all, _| all | CHUNKS);
    let buried = protocol.variant == Variant::TombIsNoRoot && state.tomb;
    if state.snapshots[OLD] & EXISTS != 0 && !buried {
        live |= protocol.old;
    }
    live
}

fn list_snapshots(protocol: &Protocol, state: &State, i: usize, out: &mut Steps) {
    let mut next = *state;
    let me = &mut next.collectors[i];
    if me.at == At::ListSnapshots {
        me.at = At::Choose;
        me.live = live(protocol, state);
        return out.push(Step::collector(i, "lists snapshots", next));
    }
    let stale = me.live;
    me.at = if protocol.power_cut { At::SyncListed } else { At::ListIndex };
    if protocol.variant != Variant::NoSecondList {
        me.live = live(protocol, state);
    }
    out.push(Step::collector(i, "lists snapshots again", next));
    if protocol.variant == Variant::StaleListing {
        next.collectors[i].live = stale;
        out.push(Step::collector(i, "is told an old list of snapshots", next));
    }
}

/// Lists packs and chooses: any one pack, or all without a live chunk; or takes up a condemnation that it finds.
fn choose(protocol: &Protocol, state: &State, i: usize, out: &mut Steps) {
    let me = state.collectors[i];
    let mut go = |at: At, packs: Mask, record: u8, what: &'static str| {
        let mut next = *state;
        // Only a protocol without a second list, or with an old one, comes back to the first.
        let live = match protocol.variant {
            Variant::NoSecondList | Variant::StaleListing => me.live,
            _ => 0,
        };
        next.collectors[i] = Collector { at, packs, record, live, ..me };
        if packs == next.left && at == At::ListAgain && record == i as u8 {
            next.condemned[i] = std::mem::take(&mut next.left);
        }
        out.push(Step::collector(i, what, next));
    };
    let other = 1 - i;
    if protocol.take_up && state.condemned[other] != 0 {
        go(At::ListAgain, state.condemned[other], other as u8, "takes up the other's condemnation");
    }
    if state.left != 0 {
        go(At::ListAgain, state.left, i as u8, "takes up a condemnation left behind");
    }
    let packs = state.packs & !state.all_condemned();
    for pack in members(packs) {
        go(At::Condemn, 1 << pack, i as u8, "lists packs, and chooses one");
    }
    let dead = members(packs).filter(|pack| state.chunks[usize::from(*pack)] & me.live == 0);
    let dead = dead.fold(0, |all: Mask, pack| all | (1 << pack));
    if dead.count_ones() > 1 {
        go(At::Condemn, dead, i as u8, "lists packs, and chooses all that are dead");
    }
}

/// Condemns, and does step 4 up to the decision.
fn look(protocol: &Protocol, state: &State, i: usize, out: &mut Steps) {
    let mut next = *state;
    let me = &mut next.collectors[i];
    let variant = protocol.variant;
    let what = match me.at {
        At::Condemn => {
            me.at = At::ListAgain;
            next.condemned[i] = me.packs;
            "condemns"
        }
        At::SyncListed => {
            me.at = At::ListIndex;
            if !matches!(variant, Variant::NoSync | Variant::SyncByRemoverAlone) {
                next.snapshots[OLD] &= !UNSYNCED;
            }
            "waits until what is gone stays gone"
        }
        At::ListIndex => {
            me.named = state.dependably_named(me.known);
            me.at = if variant == Variant::PacksBeforeCondemned { At::ListPacks } else { At::ListCondemned };
            "lists index objects"
        }
        At::ListCondemned => {
            me.seen = me.packs;
            if variant != Variant::CondemnedCopy {
                me.seen |= state.all_condemned();
            }
            me.at = At::ListPacks;
            if variant == Variant::PacksBeforeCondemned {
                me.named &= !me.seen;
                decide(state, me, protocol);
            }
            "lists condemnations"
        }
        _ => {
            me.named = state.packs & !me.seen & if variant == Variant::UnnamedCopy { !0 } else { me.named };
            me.at = At::ListCondemned;
            if variant != Variant::PacksBeforeCondemned {
                decide(state, me, protocol);
            }
            "lists packs"
        }
    };
    out.push(Step::collector(i, what, next));
}

/// What must move: live chunks in the condemned packs that no other pack holds.
fn decide(state: &State, me: &mut Collector, protocol: &Protocol) {
    let variant = protocol.variant;
    me.moving = me.live & state.chunks_in(me.packs & state.packs) & !state.chunks_in(me.named);
    (me.named, me.seen) = (0, 0);
    me.at = match me.moving {
        0 if variant == Variant::HorizonListedEarly => At::ListHorizon,
        0 => At::DeletePacks,
        _ => At::MovePack,
    };
    if me.moving == 0 {
        me.live = 0;
    }
    if protocol.revoked != Revoked::Nobody && variant != Variant::NoRereadAfterLook {
        me.at = At::CheckRegistry;
    }
}

/// Moves live chunks to a new pack, then looks again.
fn relocate(protocol: &Protocol, state: &State, i: usize, out: &mut Steps) {
    let mut next = *state;
    let me = &mut next.collectors[i];
    let moving = std::mem::take(&mut me.moving);
    if me.at == At::MoveIndex {
        let target = std::mem::take(&mut me.target);
        let fresh = protocol.cached && !me.moved;
        me.at = At::ListAgain;
        next.put_index(target, (fresh, is_revoked(protocol, i)));
        return out.push(Step::collector(i, "names what it moved in the index", next));
    }
    if moving & !state.chunks_in(me.packs & state.packs) != 0 {
        me.at = At::ListAgain;
        return out.push(Step::collector(i, "finds its source gone", next));
    }
    if let Some(pack) = next.put_pack(moving) {
        let me = &mut next.collectors[i];
        (me.at, me.target) = (At::MoveIndex, 1 << pack);
        if protocol.variant == Variant::MoveWithoutIndex {
            (me.at, me.live) = (At::DeletePacks, 0);
        }
    }
    out.push(Step::collector(i, "moves live chunks to a new pack", next));
}

/// Where the collector goes after what it has done in step 5.
fn after_finish_step(protocol: &Protocol, at: At) -> At {
    let rereads = |variant| protocol.revoked != Revoked::Nobody && protocol.variant != variant;
    match (protocol.variant, at) {
        (_, At::PutReplacement) if rereads(Variant::NoRereadBeforeIndexGoes) => At::CountsIndex,
        (_, At::PutHorizon) if protocol.revoked != Revoked::Nobody => At::CountsHorizon,
        (Variant::ReplacementAfterDelete, At::ReadIndex) => At::DeleteIndex,
        (Variant::ReplacementAfterDelete, At::DeleteIndex) => At::PutReplacement,
        (Variant::ReplacementAfterDelete, At::PutReplacement) => At::ListHorizon,
        (Variant::IndexAfterHorizon, At::DeletePacks) => At::ListHorizon,
        (Variant::IndexAfterHorizon, At::DropRecord) => At::ReadIndex,
        (Variant::IndexAfterHorizon, At::DeleteIndex) => At::Begin,
        (Variant::RecordBeforeHorizon, At::DeleteIndex) => At::DropRecord,
        (Variant::RecordBeforeHorizon, At::DropRecord) => At::ListHorizon,
        (Variant::RecordBeforeHorizon, At::PutHorizon) => At::Begin,
        (Variant::HorizonListedEarly, At::ListHorizon) => At::DeletePacks,
        (Variant::HorizonListedEarly, At::DeleteIndex) => At::PutHorizon,
        (_, At::DeletePacks) => At::ReadIndex,
        (_, At::ReadIndex) => At::PutReplacement,
        (_, At::PutReplacement) => At::DeleteIndex,
        (_, At::DeleteIndex) => At::ListHorizon,
        (_, At::ListHorizon) => At::PutHorizon,
        (_, At::PutHorizon) => At::DropRecord,
        _ => At::Begin,
    }
}

/// Takes these index objects to be replaced by one without the packs that are gone.
fn supersede(protocol: &Protocol, state: &State, me: &mut Collector, objects: Mask) {
    me.superseded = objects;
    me.named = state.named_by(objects) & !me.packs;
    me.fresh = protocol.cached && objects & !state.fresh == 0;
    if protocol.variant == Variant::MergeNamesOwnHorizon {
        me.fresh = !me.moved;
    }
    me.fresh &= me.named != 0;
    me.at = after_finish_step(protocol, At::ReadIndex);
    while (me.at == At::PutReplacement && me.named == 0) || (me.at == At::DeleteIndex && me.superseded == 0) {
        me.at = after_finish_step(protocol, me.at);
    }
}

/// Step 5: packs, index objects, horizon, condemnation.
fn finish(protocol: &Protocol, state: &State, i: usize, out: &mut Steps) {
    let mut next = *state;
    let me = &mut next.collectors[i];
    let mut at = after_finish_step(protocol, me.at);
    let what = match me.at {
        At::DeletePacks => {
            let present = me.packs & state.packs;
            next.packs &= !(present & present.wrapping_neg());
            if present.count_ones() > 1 {
                at = At::DeletePacks;
            }
            "deletes a condemned pack"
        }
        At::ReadIndex => {
            let naming = members(state.dependable(me.known))
                .filter(|slot| state.index[usize::from(*slot)] & me.packs != 0);
            let naming = naming.fold(0, |all: Mask, slot| all | (1 << slot));
            if protocol.cached && state.objects() != naming {
                let mut merged = *state;
                supersede(protocol, state, &mut merged.collectors[i], state.objects());
                out.push(Step::collector(i, "lists index objects, and merges them all", merged));
            }
            supersede(protocol, state, me, naming);
            at = me.at;
            "lists index objects that name what is gone"
        }
        At::PutReplacement => {
            let names = std::mem::take(&mut me.named);
            let fresh = std::mem::take(&mut me.fresh);
            next.put_index(names, (fresh, is_revoked(protocol, i)));
            "puts an index object with the rest"
        }
        At::DeleteIndex => {
            let one = me.superseded & me.superseded.wrapping_neg();
            me.superseded &= !one;
            if me.superseded != 0 {
                at = At::DeleteIndex;
            }
            members(one).for_each(|slot| next.index[usize::from(slot)] = 0);
            next.forget_object(one);
            "deletes a superseded index object"
        }
        At::ListHorizon => {
            me.late = false;
            "lists horizons"
        }
        At::PutHorizon => {
            if !me.late {
                let listed = lists_horizon(protocol, state, i);
                next.put_horizon(protocol.variant == Variant::HorizonListedEarly, listed);
            }
            next.collectors[i].late = false;
            "puts the next horizon"
        }
        _ => {
            next.condemned[usize::from(me.record)] = 0;
            "removes its condemnation"
        }
    };
    let me = &mut next.collectors[i];
    me.at = at;
    if at == At::Begin {
        let at = if me.rounds == 0 { At::Ended } else { At::Begin };
        *me = Collector { at, rounds: me.rounds, ..Collector::default() };
    }
    out.push(Step::collector(i, what, next));
}
