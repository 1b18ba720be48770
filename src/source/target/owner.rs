//! Who owns a restored entry: names of the snapshot looked up on this machine.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::{PoisonError, RwLock};

use super::Metadata;

/// How a restored entry gets its owner and group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OwnerPolicy {
    /// By name where this machine knows it, by number otherwise.
    #[default]
    Names,
    /// By number.
    Numbers,
    /// Not at all: everything belongs to who restores.
    Skip,
}

/// So many names are remembered of each kind; a hostile snapshot can invent any number.
const REMEMBERED: usize = 4096;

/// No name is longer, and a lookup may go over a network.
const NAME_MAX: usize = 256;

/// Looks names up once.
#[derive(Debug, Default)]
pub(super) struct Owners {
    users: RwLock<HashMap<Vec<u8>, Option<u32>>>,
    groups: RwLock<HashMap<Vec<u8>, Option<u32>>>,
}

impl Owners {
    /// User and group that the entry is to have, or none when owners are left alone.
    pub(super) fn wanted(&self, policy: OwnerPolicy, metadata: &Metadata<'_>) -> Option<(u32, u32)> {
        match policy {
            OwnerPolicy::Skip => None,
            OwnerPolicy::Numbers => Some((metadata.uid, metadata.gid)),
            OwnerPolicy::Names => {
                let user = metadata.user.and_then(|name| cached(&self.users, name, user_id));
                let group = metadata.group.and_then(|name| cached(&self.groups, name, group_id));
                Some((user.unwrap_or(metadata.uid), group.unwrap_or(metadata.gid)))
            }
        }
    }
}

fn user_id(name: &OsStr) -> Option<u32> {
    uzers::get_user_by_name(name).map(|user| user.uid())
}

fn group_id(name: &OsStr) -> Option<u32> {
    uzers::get_group_by_name(name).map(|group| group.gid())
}

fn cached(
    names: &RwLock<HashMap<Vec<u8>, Option<u32>>>,
    name: &[u8],
    look_up: fn(&OsStr) -> Option<u32>,
) -> Option<u32> {
    if name.is_empty() || name.len() > NAME_MAX {
        return None;
    }
    if let Some(&id) = names.read().unwrap_or_else(PoisonError::into_inner).get(name) {
        return id;
    }
    // Two threads may ask twice; nobody waits for a slow directory service under the lock.
    let id = look_up(OsStr::from_bytes(name));
    let mut names = names.write().unwrap_or_else(PoisonError::into_inner);
    if names.len() >= REMEMBERED {
        names.clear();
    }
    names.insert(name.to_vec(), id);
    id
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_names_win_over_numbers_and_unknown_ones_fall_back() {
        let owners = Owners::default();
        let mut metadata = Metadata { uid: 4711, gid: 4712, ..Metadata::default() };
        metadata.user = Some(b"root");
        metadata.group = Some(b"no such group, surely");
        for _ in 0..2 {
            assert_eq!(owners.wanted(OwnerPolicy::Names, &metadata), Some((0, 4712)));
        }
        assert_eq!(owners.wanted(OwnerPolicy::Numbers, &metadata), Some((4711, 4712)));
        assert_eq!(owners.wanted(OwnerPolicy::Skip, &metadata), None);
    }

    #[test]
    fn hostile_names_are_harmless_and_do_not_fill_memory() {
        let owners = Owners::default();
        let long = vec![b'a'; 1 << 20];
        for name in [&b""[..], b"ro\0ot", b"\xff\xfe", &long] {
            let metadata =
                Metadata { uid: 7, gid: 8, user: Some(name), group: Some(name), ..Metadata::default() };
            assert_eq!(owners.wanted(OwnerPolicy::Names, &metadata), Some((7, 8)));
        }
        let names = RwLock::default();
        for number in 0..3 * REMEMBERED {
            cached(&names, number.to_string().as_bytes(), |_| None);
        }
        assert!(names.read().unwrap().len() <= REMEMBERED);
    }
}
