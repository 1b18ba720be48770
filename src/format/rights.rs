//! Which role stores and deletes what: the one table from which permissions of stores are made.
//!
//! Every role reads and lists everything, because all of it is sealed or signed. What a role may *say* is decided by its keys
//! and the registry; this is only what it asks of the store,
//! but for keys: whoever replaces a key's secret, or gives one to a reader, needs an admin's rights there.

use super::keyslot::Role;
use super::layout;

/// What is asked of the store below one prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rights {
    /// Where the names begin.
    pub prefix: &'static str,
    /// Who stores objects there.
    pub put: &'static [Role],
    /// Who deletes objects there.
    pub delete: &'static [Role],
}

const NOBODY: &[Role] = &[];
const ADMIN: &[Role] = &[Role::Admin];
const MAINTAINERS: &[Role] = &[Role::Maintainer, Role::Admin];
const VERIFIERS: &[Role] = &[Role::Verifier, Role::Maintainer, Role::Admin];
const WRITERS: &[Role] = &[Role::Writer, Role::Maintainer, Role::Admin];
const SIGNERS: &[Role] = &[Role::Writer, Role::Verifier, Role::Maintainer, Role::Admin];

const fn rights(prefix: &'static str, put: &'static [Role], delete: &'static [Role]) -> Rights {
    Rights { prefix, put, delete }
}

/// Every prefix once. `init` deletes what an interrupted one left of keys and writers; a configuration is never deleted.
pub const RIGHTS: [Rights; layout::PREFIXES.len() + 1] = [
    rights(layout::CONFIG, ADMIN, NOBODY),
    rights(layout::KEYS, ADMIN, ADMIN),
    rights(layout::WRITERS, ADMIN, ADMIN),
    rights(layout::PACKS, WRITERS, MAINTAINERS),
    rights(layout::INDEX, WRITERS, MAINTAINERS),
    rights(layout::SNAPSHOTS, WRITERS, MAINTAINERS),
    rights(layout::CONDEMNED, MAINTAINERS, MAINTAINERS),
    rights(layout::HORIZON, MAINTAINERS, MAINTAINERS),
    rights(layout::REMOVED, MAINTAINERS, MAINTAINERS),
    rights(layout::UNDONE, MAINTAINERS, MAINTAINERS),
    rights(layout::TRIMMED, MAINTAINERS, MAINTAINERS),
    rights(layout::TOMBS, MAINTAINERS, MAINTAINERS),
    rights(layout::HOLDS, MAINTAINERS, MAINTAINERS),
    rights(layout::LABELS, MAINTAINERS, MAINTAINERS),
    rights(layout::ANCHORS, SIGNERS, NOBODY),
    rights(layout::LEDGER, VERIFIERS, MAINTAINERS),
    rights(layout::CLUSTERS, WRITERS, NOBODY),
    rights(layout::STREAMS, WRITERS, MAINTAINERS),
    rights(layout::PROBE, MAINTAINERS, MAINTAINERS),
];

/// Below these prefixes lies what a snapshot depends on: in a store with locks, who makes one locks that anew. A lock only ever
/// lengthens, so this is no right to change anything.
pub const LOCKED_ANEW: [&str; 7] = [
    layout::CONFIG,
    layout::KEYS,
    layout::WRITERS,
    layout::PACKS,
    layout::INDEX,
    layout::SNAPSHOTS,
    layout::STREAMS,
];

/// The prefixes below which this role stores objects.
pub fn put_by(role: Role) -> impl Iterator<Item = &'static str> {
    RIGHTS.iter().filter(move |rights| rights.put.contains(&role)).map(|rights| rights.prefix)
}

/// The prefixes below which this role locks objects: what it stores, and what its snapshots depend on.
pub fn locked_by(role: Role) -> impl Iterator<Item = &'static str> {
    let snapshots = put_by(role).any(|prefix| prefix == layout::SNAPSHOTS);
    let stores = move |rights: &&Rights| rights.put.contains(&role);
    let depends = move |rights: &&Rights| snapshots && LOCKED_ANEW.contains(&rights.prefix);
    RIGHTS.iter().filter(move |rights| stores(rights) || depends(rights)).map(|rights| rights.prefix)
}

/// The prefixes below which this role deletes objects.
pub fn deleted_by(role: Role) -> impl Iterator<Item = &'static str> {
    RIGHTS.iter().filter(move |rights| rights.delete.contains(&role)).map(|rights| rights.prefix)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_prefix_of_the_layout_has_rights_and_nothing_else_has() {
        let mut named: Vec<&str> = RIGHTS.iter().map(|rights| rights.prefix).collect();
        let mut known = layout::PREFIXES.to_vec();
        known.push(layout::PROBE);
        named.sort_unstable();
        known.sort_unstable();
        assert_eq!(named, known);
    }

    #[test]
    fn nobody_deletes_where_he_may_not_store_and_only_maintainers_delete() {
        for rights in RIGHTS {
            assert!(rights.delete.iter().all(|role| rights.put.contains(role)), "{rights:?}");
            assert!(rights.put.contains(&Role::Admin), "{rights:?}");
        }
        assert_eq!(
            put_by(Role::Writer).collect::<Vec<_>>(),
            ["packs/", "index/", "snapshots/", "anchors/", "clusters/", "streams/"]
        );
        assert_eq!(put_by(Role::Verifier).collect::<Vec<_>>(), ["anchors/", "ledger/"]);
        for prefix in LOCKED_ANEW {
            assert!(locked_by(Role::Writer).any(|locked| locked == prefix), "{prefix}");
        }
        assert_eq!(locked_by(Role::Reader).next(), None);
        assert_eq!(locked_by(Role::Verifier).collect::<Vec<_>>(), ["anchors/", "ledger/"]);
        for role in [Role::Writer, Role::Reader, Role::Verifier] {
            assert_eq!(deleted_by(role).next(), None, "{role:?}");
        }
        assert_eq!(put_by(Role::Reader).next(), None);
    }
}
