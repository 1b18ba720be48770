//! The admin who revokes a writer or a collector: *Revoking a writer* of `docs/protocol.md`.

use crate::checker::{Protocol, Revoked, Step, Steps, Who};
use crate::state::{Admin, EXISTS, Standing, State};
use crate::variants::Variant;

/// The next call: a list of what counts, the entry that says *about to be*, a second list, the entry that says *revoked*. The
/// first list matters only for index objects: nobody depends on anything else.
pub fn steps(protocol: &Protocol, state: &State, out: &mut Steps) {
    if protocol.revoked == Revoked::Nobody {
        return;
    }
    let mut next = *state;
    let what = match state.admin {
        Admin::ListFirst => {
            next.accepted[0] = state.signed;
            next.counts = protocol.variant == Variant::OneList && signed(protocol, state);
            next.admin = Admin::PutClosing;
            "lists what the revoked one signed"
        }
        Admin::PutClosing => {
            next.standing = Standing::Closing;
            next.admin = Admin::ListIndex;
            if protocol.variant == Variant::OneList {
                next.accepted[1] = state.accepted[0];
                next.admin = Admin::PutRevoked;
            }
            "puts an entry: about to be revoked"
        }
        Admin::ListIndex => {
            next.accepted[1] = state.signed;
            next.admin = Admin::ListOthers;
            "lists index objects again"
        }
        Admin::ListOthers => {
            next.counts = signed(protocol, state);
            next.admin = Admin::PutRevoked;
            "lists again what else the revoked one signed"
        }
        Admin::PutRevoked => {
            next.standing = Standing::Revoked;
            next.admin = Admin::Ended;
            "puts an entry: revoked"
        }
        Admin::Ended => return,
    };
    out.push(Step { who: Who::Admin, what, next });
}

/// Whether there is anything but index objects that the one signed who is revoked.
fn signed(protocol: &Protocol, state: &State) -> bool {
    match protocol.revoked {
        Revoked::Writer => state.snapshots[1] & EXISTS != 0,
        _ => state.condemned[0] != 0,
    }
}

/// Whether a horizon that collector `i` puts now will be among what counts.
pub fn lists_horizon(protocol: &Protocol, state: &State, i: usize) -> bool {
    let listed = match protocol.variant {
        Variant::OneList => state.admin > Admin::ListFirst,
        _ => state.admin > Admin::ListOthers,
    };
    protocol.revoked != Revoked::Collector || i != 0 || !listed
}
