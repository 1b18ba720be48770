//! What a role may do behind a door: what the table of rights gives it, to objects of a repository, and nothing else.

use crate::format::layout::{ObjectName, PROBE};
use crate::format::rights::RIGHTS;
use crate::store::Key;
use crate::store::door::wire::Role;

/// What is to be done to an object. Reading is not asked for: every role may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Act {
    /// Adding it. Nothing is ever replaced.
    Put,
    /// Deleting it.
    Delete,
}

/// Whether a role may do this. What is no object of a repository, nor of a trial of its store, is nobody's.
pub(super) fn may(role: Role, act: Act, key: &Key) -> bool {
    let key = key.as_str();
    let known = key.starts_with(PROBE) || ObjectName::parse(key).is_some();
    let rights = RIGHTS.iter().find(|rights| key.starts_with(rights.prefix));
    let who = rights.map(|rights| match act {
        Act::Put => rights.put,
        Act::Delete => rights.delete,
    });
    known && who.is_some_and(|who| who.contains(&role))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::log::LogName;
    use crate::id::{ClusterId, LogHash, ObjectHash, WriterId};

    fn log(hash: ObjectHash) -> LogName {
        LogName {
            cluster: ClusterId::new([8; 16]),
            history: 1,
            file: "000000010000000000000001".parse().unwrap(),
            writer: WriterId::new([7; 16]),
            plain: LogHash::new([9; 32]),
            hash,
        }
    }

    #[test]
    fn each_role_may_what_it_is_for_and_nothing_else() {
        let (hash, writer) = (ObjectHash::new([0xab; 32]), WriterId::new([7; 16]));
        let backup = [
            ObjectName::Pack(hash.into()),
            ObjectName::Index(writer, hash),
            ObjectName::Snapshot(writer, 1, hash.into()),
            ObjectName::Confirmation(writer, 1, hash.into()),
        ];
        let cluster = [ObjectName::Cluster(ClusterId::new([8; 16]), 1, hash)];
        let logs = [ObjectName::Log(log(hash))];
        let collection = [
            ObjectName::Condemned(hash),
            ObjectName::Horizon(1, hash),
            ObjectName::Removed(hash),
            ObjectName::Undone(hash),
            ObjectName::Trimmed(hash),
            ObjectName::Tomb(hash.into(), hash),
            ObjectName::Hold(hash),
            ObjectName::Labels(hash.into(), hash),
        ];
        let authority = [ObjectName::KeySlot(hash), ObjectName::Writer(writer, 1, hash)];
        let (config, anchor) = ([ObjectName::Config(1, hash)], [ObjectName::Anchor(hash)]);
        let ledger = [ObjectName::Verified(hash)];
        let all = |names: &[ObjectName], role, act| {
            let allowed: Vec<bool> =
                names.iter().map(|name| may(role, act, &Key::new(name.key()).unwrap())).collect();
            assert!(allowed.iter().all(|one| *one == allowed[0]), "{allowed:?}");
            allowed[0]
        };
        for (role, put, delete) in [
            (Role::Reader, [false; 8], [false; 8]),
            (Role::Verifier, [false, false, false, false, true, false, false, true], [false; 8]),
            (Role::Writer, [true, false, false, false, true, true, true, false], [false; 8]),
            (
                Role::Maintainer,
                [true, true, false, false, true, true, true, true],
                [true, true, false, false, false, false, true, true],
            ),
            (Role::Admin, [true; 8], [true, true, true, false, false, false, true, true]),
        ] {
            for (act, wanted) in [(Act::Put, put), (Act::Delete, delete)] {
                let kinds: [&[ObjectName]; 8] =
                    [&backup, &collection, &authority, &config, &anchor, &cluster, &logs, &ledger];
                assert_eq!(kinds.map(|kind| all(kind, role, act)), wanted, "{role} {act:?}");
            }
        }
    }

    #[test]
    fn what_is_no_object_is_nobodys() {
        for key in ["x", "packs/x", "packs/ab/short", "authorized_keys", ".ssh/rc", "config/1", "index"] {
            assert!(!may(Role::Admin, Act::Put, &Key::new(key).unwrap()), "{key}");
            assert!(!may(Role::Admin, Act::Delete, &Key::new(key).unwrap()), "{key}");
        }
        assert!(may(Role::Maintainer, Act::Put, &Key::new("probe/1/x").unwrap()));
        assert!(!may(Role::Writer, Act::Put, &Key::new("probe/1/x").unwrap()));
    }
}
