//! The directories above snapshots: which there are, and what is in each. Pure.
//!
//! ```text
//! ids/<short id>   jobs/<job>/<time>   hosts/<host>/<time>   tags/<tag>/<time>      with a link `latest` beside each
//! ```

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::names;
use crate::clock::Timestamp;
use crate::format::tree::TreeRef;
use crate::id::SnapshotId;

/// The name of the link to the newest snapshot.
const LATEST: &[u8] = b"latest";

/// What snapshots are grouped by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Group {
    Jobs,
    Hosts,
    Tags,
}

/// A directory above snapshots.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Dir {
    Root,
    Ids,
    Group(Group),
    /// One job, host or tag, by the name of the directory.
    Named(Group, Vec<u8>),
}

/// What is in one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Entry {
    Dir(Dir),
    Snapshot(SnapshotId),
    /// A link to this name.
    Latest(Vec<u8>),
}

/// A snapshot that is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shown {
    pub(super) id: SnapshotId,
    pub(super) root: Option<TreeRef>,
    /// When it was made, nanoseconds since 1970.
    pub(super) time: i64,
    /// When the store got it.
    pub(super) stored: Timestamp,
    pub(super) confirmed: bool,
    pub(super) host: Vec<u8>,
    pub(super) job: Vec<u8>,
    pub(super) tags: Vec<String>,
}

/// All directories.
#[derive(Debug)]
pub(super) struct Layout {
    snapshots: HashMap<SnapshotId, (Option<TreeRef>, i64)>,
    dirs: HashMap<Dir, BTreeMap<Vec<u8>, Entry>>,
}

impl Layout {
    /// Shows these snapshots, the newest last. `unread` is when the store got the newest confirmed one that cannot be read: an
    /// older one must not pass for the latest.
    pub(super) fn new(shown: &[Shown], unread: Option<Timestamp>) -> Self {
        let mut dirs = HashMap::new();
        let root = [
            (&b"ids"[..], Dir::Ids),
            (b"jobs", Dir::Group(Group::Jobs)),
            (b"hosts", Dir::Group(Group::Hosts)),
            (b"tags", Dir::Group(Group::Tags)),
        ];
        dirs.insert(Dir::Root, root.map(|(name, dir)| (name.to_vec(), Entry::Dir(dir))).into());
        let all: Vec<&Shown> = shown.iter().collect();
        dirs.insert(Dir::Ids, entries(&all, ids(shown), unread));
        for group in [Group::Jobs, Group::Hosts, Group::Tags] {
            let mut by_text: BTreeMap<&[u8], Vec<&Shown>> = BTreeMap::new();
            for snapshot in shown {
                for text in texts(group, snapshot) {
                    by_text.entry(text).or_default().push(snapshot);
                }
            }
            let all: BTreeSet<&[u8]> = by_text.keys().copied().collect();
            let mut names = BTreeMap::new();
            for (name, text) in names::readable_names(&all) {
                let members = by_text.remove(text.as_slice()).unwrap_or_default();
                let dir = Dir::Named(group, name.clone());
                dirs.insert(dir.clone(), entries(&members, times(&members), unread));
                names.insert(name, Entry::Dir(dir));
            }
            dirs.insert(Dir::Group(group), names);
        }
        let snapshots = shown.iter().map(|snapshot| (snapshot.id, (snapshot.root, snapshot.time))).collect();
        Self { snapshots, dirs }
    }

    /// What is in a directory, in the order of names; `None` if it is not there.
    pub(super) fn entries(&self, dir: &Dir) -> Option<&BTreeMap<Vec<u8>, Entry>> {
        self.dirs.get(dir)
    }

    /// The tree of a snapshot and its time; `None` if it is not shown.
    pub(super) fn snapshot(&self, id: &SnapshotId) -> Option<(Option<TreeRef>, i64)> {
        self.snapshots.get(id).copied()
    }
}

/// What a snapshot is found by in a group.
fn texts(group: Group, snapshot: &Shown) -> BTreeSet<&[u8]> {
    match group {
        Group::Jobs => [snapshot.job.as_slice()].into(),
        Group::Hosts => [snapshot.host.as_slice()].into(),
        Group::Tags => snapshot.tags.iter().map(String::as_bytes).collect(),
    }
}

/// Short ids, and long ones of those that begin alike.
fn ids(shown: &[Shown]) -> Vec<String> {
    let mut alike: HashMap<String, usize> = HashMap::new();
    for snapshot in shown {
        *alike.entry(snapshot.id.short()).or_default() += 1;
    }
    let name = |snapshot: &Shown| match alike.get(&snapshot.id.short()) {
        Some(1) => snapshot.id.short(),
        _ => snapshot.id.to_string(),
    };
    shown.iter().map(name).collect()
}

/// Times, with the short or the whole id of those of one second.
fn times(shown: &[&Shown]) -> Vec<String> {
    let mut alike: HashMap<String, Vec<SnapshotId>> = HashMap::new();
    for snapshot in shown {
        alike.entry(names::time(snapshot.time)).or_default().push(snapshot.id);
    }
    let name = |snapshot: &&Shown| {
        let time = names::time(snapshot.time);
        let same = alike.get(&time).map_or(&[][..], Vec::as_slice);
        let short = |id: &&SnapshotId| id.short() == snapshot.id.short();
        match (same.len(), same.iter().filter(short).count()) {
            (..=1, _) => time,
            (_, ..=1) => format!("{time}~{}", snapshot.id.short()),
            _ => format!("{time}~{}", snapshot.id),
        }
    };
    shown.iter().map(name).collect()
}

fn entries(shown: &[&Shown], names: Vec<String>, unread: Option<Timestamp>) -> BTreeMap<Vec<u8>, Entry> {
    let latest = shown.iter().zip(&names).rfind(|(snapshot, _)| snapshot.confirmed);
    let latest = latest.filter(|(snapshot, _)| unread.is_none_or(|unread| unread < snapshot.stored));
    let latest = latest.map(|(_, name)| (LATEST.to_vec(), Entry::Latest(name.clone().into_bytes())));
    let found = shown.iter().zip(names);
    let found = found.map(|(snapshot, name)| (name.into_bytes(), Entry::Snapshot(snapshot.id)));
    found.chain(latest).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(id: u8, time: i64) -> Shown {
        Shown {
            id: SnapshotId::new([id; 32]),
            root: None,
            time,
            stored: Timestamp(time),
            confirmed: true,
            host: b"one".to_vec(),
            job: b"/home/ann".to_vec(),
            tags: vec!["keep".into(), "a/b".into(), "keep".into()],
        }
    }

    fn names(layout: &Layout, dir: Dir) -> Vec<String> {
        let entries = layout.entries(&dir).unwrap();
        entries.keys().map(|name| String::from_utf8(name.clone()).unwrap()).collect()
    }

    const SECOND: i64 = 1_000_000_000;

    #[test]
    fn a_snapshot_is_found_by_all_that_it_is() {
        let layout = Layout::new(&[shown(1, 0), shown(2, 60 * SECOND)], None);
        assert_eq!(names(&layout, Dir::Root), ["hosts", "ids", "jobs", "tags"]);
        assert_eq!(names(&layout, Dir::Ids), ["01010101", "02020202", "latest"]);
        assert_eq!(names(&layout, Dir::Group(Group::Jobs)), ["_home_ann"]);
        assert_eq!(names(&layout, Dir::Group(Group::Tags)), ["a_b", "keep"]);
        let times = ["1970-01-01T00-00-00Z", "1970-01-01T00-01-00Z", "latest"];
        for dir in [
            Dir::Named(Group::Jobs, b"_home_ann".to_vec()),
            Dir::Named(Group::Hosts, b"one".to_vec()),
            Dir::Named(Group::Tags, b"keep".to_vec()),
        ] {
            assert_eq!(names(&layout, dir.clone()), times);
            let latest = &layout.entries(&dir).unwrap()[LATEST];
            assert_eq!(*latest, Entry::Latest(b"1970-01-01T00-01-00Z".to_vec()));
        }
        assert!(layout.entries(&Dir::Named(Group::Jobs, b"none".to_vec())).is_none());
        assert_eq!(layout.snapshot(&SnapshotId::new([2; 32])), Some((None, 60 * SECOND)));
    }

    #[test]
    fn one_second_and_one_beginning_are_told_apart() {
        let mut alike = shown(2, 1);
        let mut bytes = [1; 32];
        bytes[31] = 9;
        alike.id = SnapshotId::new(bytes);
        let layout = Layout::new(&[shown(1, 0), alike, shown(3, 2)], None);
        let found = names(&layout, Dir::Named(Group::Jobs, b"_home_ann".to_vec()));
        assert_eq!(found.len(), 4, "{found:?}");
        assert!(found.contains(&"1970-01-01T00-00-00Z~03030303".to_owned()), "{found:?}");
        assert_eq!(names(&layout, Dir::Ids).len(), 4);
    }

    #[test]
    fn the_latest_is_the_newest_confirmed_one_or_none() {
        let mut open = shown(3, 2 * SECOND);
        open.confirmed = false;
        let snapshots = [shown(1, 0), shown(2, SECOND), open];
        let latest = |unread| {
            let layout = Layout::new(&snapshots, unread);
            layout.entries(&Dir::Ids).unwrap().get(LATEST).cloned()
        };
        assert_eq!(latest(None), Some(Entry::Latest(b"02020202".to_vec())));
        assert_eq!(latest(Some(Timestamp(0))), Some(Entry::Latest(b"02020202".to_vec())));
        assert_eq!(latest(Some(Timestamp(SECOND))), None, "it may be newer");
        let nothing = Layout::new(&[], None);
        assert!(names(&nothing, Dir::Ids).is_empty());
    }
}
