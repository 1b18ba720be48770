//! The writer: steps 1 to 4 of `docs/protocol.md`. Both chunks are in its snapshot.

use crate::checker::{Protocol, Revoked, Step, Steps};
use crate::state::{
    CHUNKS, CONFIRMED, EXISTS, Mask, NONE, Standing, State, UNCHECKED, Writer, WriterAt, members,
};
use crate::variants::Variant;

/// Every call that writer `i` may make next, with what comes of it.
pub fn steps(protocol: &Protocol, state: &State, i: usize, out: &mut Steps) {
    let mut next = *state;
    let me = &mut next.writers[i];
    let mut done = |what: &'static str, next: State| out.push(Step::writer(i, what, next));
    match me.at {
        WriterAt::GetHorizon | WriterAt::ListIndex | WriterAt::ListPacks | WriterAt::ListCondemned => {
            learn(protocol, state, i, out);
        }
        WriterAt::PutPack => {
            let lost = me.lost;
            if let Some(pack) = next.put_pack(lost) {
                let me = &mut next.writers[i];
                members(lost).for_each(|chunk| me.depends[usize::from(chunk)] = pack);
                me.lost = 0;
                me.unnamed |= 1 << pack;
                me.at = WriterAt::PutIndex;
            }
            done("puts a pack", next);
        }
        WriterAt::PutIndex => {
            let (names, fresh) = (me.unnamed, protocol.cached && !me.moved);
            me.unnamed = 0;
            me.at = stored(protocol, state, i);
            next.put_index(names, (fresh, is_revoked(protocol, i)));
            done("puts an index object", next);
        }
        WriterAt::PutSnapshot => {
            me.at = match protocol.variant {
                Variant::NoCheck | Variant::CheckBeforeSnapshot => WriterAt::Confirm,
                Variant::HorizonBeforeCondemned => WriterAt::CheckHorizon,
                _ => WriterAt::CheckCondemned,
            };
            next.snapshots[i + 1] = EXISTS;
            done("puts its snapshot", next);
        }
        WriterAt::Confirm => {
            next.snapshots[i + 1] |= CONFIRMED | if me.checked { 0 } else { UNCHECKED };
            next.writers[i] = ended();
            done("confirms and acknowledges", next);
        }
        WriterAt::Ended => {}
        _ => check(protocol, state, i, out),
    }
}

/// Step 1: the horizon, index objects, packs, condemnations, in this order.
fn learn(protocol: &Protocol, state: &State, i: usize, out: &mut Steps) {
    let mut next = *state;
    let me = &mut next.writers[i];
    let mut done = |what: &'static str, next: State| out.push(Step::writer(i, what, next));
    match me.at {
        WriterAt::GetHorizon => {
            if protocol.cached && !me.cache {
                let mut earlier = *state;
                let me = &mut earlier.writers[i];
                (me.cache, me.cached, me.remembered) = (true, state.packs, state.objects());
                done("listed packs and index objects in an earlier run", earlier);
            }
            (me.moved, me.known) = (false, state.standing);
            me.at = WriterAt::ListIndex;
            if is_revoked(protocol, i) && state.standing != Standing::Active {
                next.writers[i] = ended();
                return done("learns that it is revoked, and does not begin", next);
            }
            done("reads the horizon", next);
        }
        WriterAt::ListIndex => {
            me.view = state.dependably_named(me.known);
            me.at = WriterAt::ListPacks;
            if let Some(view) = view_by_cache(protocol, state, i) {
                (me.view, me.journal) = (view, me.journal & me.cached);
                me.at = WriterAt::ListCondemned;
            }
            (me.cache, me.cached, me.remembered) = (false, 0, 0);
            if matches!(protocol.variant, Variant::NoPackListing | Variant::IndexAfterHorizon) {
                me.journal = 0;
                me.at = WriterAt::ListCondemned;
            }
            done("lists index objects", next);
        }
        WriterAt::ListPacks => {
            me.view = (me.view | me.journal) & state.packs;
            me.at = WriterAt::ListCondemned;
            done("lists packs", next);
        }
        _ => {
            me.view &= !state.all_condemned();
            me.lost = CHUNKS;
            begin(protocol, &next, i, out);
        }
    }
}

/// Whether this is the writer that may be revoked.
fn is_revoked(protocol: &Protocol, i: usize) -> bool {
    protocol.revoked == Revoked::Writer && i == 0
}

/// A writer that makes no further call.
pub fn ended() -> Writer {
    Writer { at: WriterAt::Ended, ..Writer::default() }
}

/// What a writer may use that does not list packs, because an earlier run listed them at this horizon: what was named
/// then and listed then, and what was named since by authors that saw this horizon.
fn view_by_cache(protocol: &Protocol, state: &State, i: usize) -> Option<Mask> {
    let me = &state.writers[i];
    let since = state.objects() & !me.remembered;
    let trusted = protocol.variant == Variant::CacheBelievesAll || since & !state.fresh == 0;
    let view = ((state.named_by(me.remembered) | me.journal) & me.cached) | state.named_by(since);
    (me.cache && !me.moved && trusted).then_some(view)
}

/// Where a writer goes whose packs are all named by the index.
fn stored(protocol: &Protocol, state: &State, i: usize) -> WriterAt {
    if protocol.variant == Variant::CheckBeforeSnapshot || state.snapshots[i + 1] & EXISTS != 0 {
        check_again(protocol)
    } else {
        WriterAt::PutSnapshot
    }
}

fn check_again(protocol: &Protocol) -> WriterAt {
    match protocol.variant {
        Variant::HorizonBeforeCondemned => WriterAt::CheckHorizon,
        _ => WriterAt::CheckCondemned,
    }
}

/// Finds lost chunks again in the packs of the view, in every way there is; the view is forgotten.
fn found(state: &State, i: usize) -> Vec<State> {
    let view = state.writers[i].view;
    let mut states = vec![*state];
    for chunk in members(state.writers[i].lost) {
        let copies = state.holding(chunk, view);
        if copies == 0 {
            continue;
        }
        let depend = |state: &State, pack: u8| {
            let mut state = *state;
            state.writers[i].depends[usize::from(chunk)] = pack;
            state.writers[i].lost &= !(1 << chunk);
            state
        };
        states = states.iter().flat_map(|s| members(copies).map(move |pack| depend(s, pack))).collect();
    }
    states.iter_mut().for_each(|state| state.writers[i].view = 0);
    states
}

/// The backup itself: what is known is not stored again.
fn begin(protocol: &Protocol, state: &State, i: usize, out: &mut Steps) {
    for mut next in found(state, i) {
        let named = state.dependably_named(state.writers[i].known);
        let me = &mut next.writers[i];
        let adopted = me.depends.iter().filter(|pack| **pack != NONE).fold(0, |all, pack| all | (1 << pack));
        me.unnamed = adopted & me.journal & !named;
        me.journal = 0;
        me.at = match (me.lost, me.unnamed) {
            (0, 0) => stored(protocol, state, i),
            (0, _) => WriterAt::PutIndex,
            _ => WriterAt::PutPack,
        };
        out.push(Step::writer(i, "lists condemnations, and chooses packs", next));
    }
}

/// Gives up the packs in `gone`.
fn lose(me: &mut Writer, gone: impl Fn(Mask) -> bool) {
    for chunk in members(CHUNKS) {
        let pack = me.depends[usize::from(chunk)];
        if pack != NONE && gone(1 << pack) {
            me.depends[usize::from(chunk)] = NONE;
            me.lost |= 1 << chunk;
        }
    }
}

/// Step 4, after the snapshot.
fn check(protocol: &Protocol, state: &State, i: usize, out: &mut Steps) {
    let mut next = *state;
    let me = &mut next.writers[i];
    let clean = if protocol.variant == Variant::CheckBeforeSnapshot {
        WriterAt::PutSnapshot
    } else {
        WriterAt::Confirm
    };
    let what = match me.at {
        WriterAt::CheckCondemned => {
            let condemned = state.all_condemned();
            me.seen = condemned;
            lose(me, |pack| pack & condemned != 0);
            me.at = WriterAt::CheckHorizon;
            if me.lost != 0 {
                me.at = WriterAt::HealIndex;
            } else if matches!(protocol.variant, Variant::HorizonBeforeCondemned | Variant::NoHorizon) {
                (me.at, me.checked, me.seen) = (clean, true, 0);
            }
            "checks condemnations"
        }
        WriterAt::CheckHorizon if me.moved || me.doubtful && state.standing != Standing::Revoked => {
            (me.moved, me.doubtful) = (false, false);
            me.at = WriterAt::CheckPacks;
            "checks the horizon, which has moved"
        }
        WriterAt::CheckHorizon if protocol.variant == Variant::HorizonBeforeCondemned => {
            me.at = WriterAt::CheckCondemned;
            "checks the horizon first"
        }
        WriterAt::CheckHorizon => {
            (me.at, me.checked, me.seen) = (clean, true, 0);
            if protocol.revoked != Revoked::Nobody && protocol.variant != Variant::NoRereadByWriter {
                (me.at, me.checked) = (WriterAt::CheckRegistry, false);
            }
            "checks the horizon"
        }
        WriterAt::CheckRegistry => {
            let changed = me.known != state.standing;
            (me.at, me.checked, me.known) = (clean, true, state.standing);
            let harmless = protocol.variant == Variant::ClosingIgnored && state.standing == Standing::Closing;
            if is_revoked(protocol, i) && state.standing != Standing::Active && !harmless {
                next.writers[i] = ended();
                return out.push(Step::writer(i, "learns that it is revoked: not confirmed", next));
            }
            if changed && !harmless {
                me.checked = false;
                lose(me, |_| true);
                me.at = WriterAt::HealIndex;
            }
            "checks the registry"
        }
        WriterAt::CheckPacks => {
            lose(me, |pack| pack & state.packs == 0);
            me.at = if me.lost != 0 { WriterAt::HealIndex } else { check_again(protocol) };
            if me.lost == 0 {
                me.seen = 0;
            }
            "lists packs to check"
        }
        WriterAt::HealIndex => {
            me.view = state.dependably_named(me.known);
            me.at = WriterAt::HealPacks;
            "lists index objects to heal"
        }
        _ => return heal(protocol, state, i, out),
    };
    out.push(Step::writer(i, what, next));
}

/// Lists packs and takes copies that exist; what has none comes from the source, if that can be read again.
fn heal(protocol: &Protocol, state: &State, i: usize, out: &mut Steps) {
    let mut now = *state;
    let me = &mut now.writers[i];
    me.view &= !me.seen;
    if protocol.variant != Variant::HealsFromIndexAlone {
        me.view &= state.packs;
    }
    me.seen = 0;
    for mut next in found(&now, i) {
        let me = &mut next.writers[i];
        if me.lost == 0 {
            me.at = check_again(protocol);
            out.push(Step::writer(i, "lists packs and heals with another copy", next));
            continue;
        }
        me.at = WriterAt::PutPack;
        out.push(Step::writer(i, "lists packs and reads the source again", next));
        let me = &mut next.writers[i];
        match protocol.variant {
            Variant::AcknowledgeUnhealed => {
                (me.at, me.checked) = (WriterAt::Confirm, true);
                out.push(Step::writer(i, "cannot read the source, and goes on", next));
                continue;
            }
            Variant::ForgetsLost => me.lost = 0,
            _ => {}
        }
        me.at = check_again(protocol);
        out.push(Step::writer(i, "cannot read the source, and waits", next));
        next.writers[i] = ended();
        out.push(Step::writer(i, "cannot read the source: not confirmed", next));
    }
}
