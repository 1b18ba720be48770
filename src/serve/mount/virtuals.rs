//! Numbers of what no snapshot holds: directories above snapshots, the snapshots in them, and links. Pure.

use std::collections::HashMap;

use super::inodes::{Ino, ROOT};
use super::layout::Dir;
use crate::id::SnapshotId;

/// What such a number stands for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Place {
    Dir(Dir),
    /// A snapshot in one of the directories in which it is shown.
    Snapshot(Dir, SnapshotId),
    /// The link in a directory.
    Latest(Dir),
}

impl Place {
    /// The directory above.
    pub(super) fn parent(&self) -> Self {
        match self {
            Self::Dir(Dir::Root | Dir::Ids | Dir::Group(_)) => Self::Dir(Dir::Root),
            Self::Dir(Dir::Named(group, _)) => Self::Dir(Dir::Group(*group)),
            Self::Snapshot(dir, _) | Self::Latest(dir) => Self::Dir(dir.clone()),
        }
    }
}

/// All numbers given out. There are a few for each snapshot, and each stays what it is.
#[derive(Debug, Default)]
pub(super) struct Virtuals {
    places: Vec<Place>,
    numbers: HashMap<Place, u64>,
}

impl Virtuals {
    /// The number of a place, a new one if it has none.
    pub(super) fn number(&mut self, place: &Place) -> u64 {
        if *place == Place::Dir(Dir::Root) {
            return ROOT;
        }
        if let Some(number) = self.numbers.get(place) {
            return Ino::Virtual(*number).number();
        }
        let number = self.places.len() as u64;
        self.places.push(place.clone());
        self.numbers.insert(place.clone(), number);
        Ino::Virtual(number).number()
    }

    /// The place that was given this number.
    pub(super) fn place(&self, number: u64) -> Option<&Place> {
        self.places.get(usize::try_from(number).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::super::layout::Group;
    use super::*;

    #[test]
    fn each_place_has_one_number_and_a_directory_above() {
        let mut virtuals = Virtuals::default();
        let named = Dir::Named(Group::Jobs, b"a".to_vec());
        let snapshot = Place::Snapshot(named.clone(), SnapshotId::new([1; 32]));
        for place in [Place::Dir(Dir::Ids), Place::Dir(named.clone()), snapshot.clone(), Place::Latest(named)]
        {
            let number = virtuals.number(&place);
            assert_eq!(virtuals.number(&place), number);
            let Ino::Virtual(index) = Ino::parse(number) else { panic!("{number:x}") };
            assert_eq!(virtuals.place(index), Some(&place));
        }
        let mut above = vec![snapshot];
        while above[above.len() - 1] != Place::Dir(Dir::Root) {
            above.push(above[above.len() - 1].parent());
        }
        assert_eq!(above.len(), 4);
        assert_eq!(virtuals.number(&above[3]), ROOT);
        assert_eq!(virtuals.place(u64::MAX), None);
    }
}
