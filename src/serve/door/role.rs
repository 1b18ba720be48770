//! What a role may do behind a door: deny by default, by the kind of an object.

use crate::format::layout::ObjectName;
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

/// Objects that trials of a store make and take away.
const PROBE: &str = "probe/";

/// Whose business an object is.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    /// What a backup adds.
    Backup,
    /// What forgetting, holding and collecting add.
    Collection,
    /// Who may do what.
    Authority,
}

fn kind(key: &Key) -> Option<Kind> {
    if key.as_str().starts_with(PROBE) {
        return Some(Kind::Collection);
    }
    Some(match ObjectName::parse(key.as_str())? {
        ObjectName::Pack(..)
        | ObjectName::Index(..)
        | ObjectName::Snapshot(..)
        | ObjectName::Confirmation(..)
        | ObjectName::Labels(..) => Kind::Backup,
        ObjectName::Condemned(..)
        | ObjectName::Horizon(..)
        | ObjectName::Removed(..)
        | ObjectName::Undone(..)
        | ObjectName::Tomb(..)
        | ObjectName::Hold(..) => Kind::Collection,
        ObjectName::Config(..) | ObjectName::KeySlot(..) | ObjectName::Writer(..) => Kind::Authority,
    })
}

/// Whether a role may do this. What is no object of a repository is nobody's.
pub(super) fn may(role: Role, act: Act, key: &Key) -> bool {
    let Some(kind) = kind(key) else { return false };
    match (role, act) {
        (Role::Reader, _) | (Role::Writer, Act::Delete) => false,
        (Role::Writer, Act::Put) => kind == Kind::Backup,
        (Role::Maintainer, _) => kind <= Kind::Collection,
        (Role::Admin, _) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{ObjectHash, WriterId};

    #[test]
    fn each_role_may_what_it_is_for_and_nothing_else() {
        let (hash, writer) = (ObjectHash::new([0xab; 32]), WriterId::new([7; 16]));
        let backup = [
            ObjectName::Pack(hash.into()),
            ObjectName::Index(writer, hash),
            ObjectName::Snapshot(writer, 1, hash.into()),
            ObjectName::Confirmation(writer, 1, hash.into()),
            ObjectName::Labels(hash.into(), hash),
        ];
        let collection = [
            ObjectName::Condemned(hash),
            ObjectName::Horizon(1, hash),
            ObjectName::Removed(hash),
            ObjectName::Undone(hash),
            ObjectName::Tomb(hash.into(), hash),
            ObjectName::Hold(hash),
        ];
        let authority =
            [ObjectName::Config(1, hash), ObjectName::KeySlot(hash), ObjectName::Writer(writer, 1, hash)];
        let all = |names: &[ObjectName], role, act| {
            let allowed: Vec<bool> =
                names.iter().map(|name| may(role, act, &Key::new(name.key()).unwrap())).collect();
            assert!(allowed.iter().all(|one| *one == allowed[0]), "{allowed:?}");
            allowed[0]
        };
        for (role, put, delete) in [
            (Role::Reader, [false; 3], [false; 3]),
            (Role::Writer, [true, false, false], [false; 3]),
            (Role::Maintainer, [true, true, false], [true, true, false]),
            (Role::Admin, [true; 3], [true; 3]),
        ] {
            for (act, wanted) in [(Act::Put, put), (Act::Delete, delete)] {
                let found =
                    [all(&backup, role, act), all(&collection, role, act), all(&authority, role, act)];
                assert_eq!(found, wanted, "{role} {act:?}");
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
