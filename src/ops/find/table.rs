//! What was found so far, of a window of paths.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use crate::format::node::Node;

/// What became of a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// The newest snapshot of the job and machine holds it.
    There,
    /// The next snapshot holds another version, which need not match.
    Changed,
    /// The next snapshot holds nothing of that name.
    Vanished,
    /// The next snapshot cannot be read there.
    Unknown,
}

/// A path, in the order of a walk: name by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct PathKey(Vec<u8>);

impl PathKey {
    fn new(path: &[u8]) -> Self {
        Self(path.to_vec())
    }
}

impl Ord for PathKey {
    fn cmp(&self, other: &Self) -> Ordering {
        compare(&self.0, &other.0)
    }
}

impl PartialOrd for PathKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

fn compare(one: &[u8], other: &[u8]) -> Ordering {
    one.split(|byte| *byte == b'/').cmp(other.split(|byte| *byte == b'/'))
}

/// Whether `path` lies below `dir`.
fn is_below(path: &[u8], dir: &[u8]) -> bool {
    path.strip_prefix(dir).is_some_and(|rest| rest.starts_with(b"/"))
}

/// The paths that one pass is about.
#[derive(Debug)]
pub(super) struct Window {
    /// The first path.
    pub(super) from: PathKey,
    /// The first path behind it; the end of everything if none.
    pub(super) until: Option<PathKey>,
}

impl Window {
    /// Whether a path is in it.
    pub(super) fn holds(&self, path: &[u8]) -> bool {
        compare(path, &self.from.0) != Ordering::Less && !self.is_behind(path)
    }

    /// Whether it ends before a path, and so before all that comes later in a walk of the same directory.
    pub(super) fn is_behind(&self, path: &[u8]) -> bool {
        self.until.as_ref().is_some_and(|until| compare(path, &until.0) != Ordering::Less)
    }

    /// Whether paths below a directory can be in it, if the directory itself is not behind it.
    pub(super) fn reaches_below(&self, dir: &[u8]) -> bool {
        self.holds(dir) || is_below(&self.from.0, dir)
    }

    /// The first name of a directory that matters, if it is not the first of all.
    pub(super) fn name(&self, dir: &[u8]) -> Option<&[u8]> {
        let rest = self.from.0.strip_prefix(dir)?.strip_prefix(b"/")?;
        rest.split(|byte| *byte == b'/').next()
    }
}

/// One version of an entry.
#[derive(Debug)]
pub(super) struct Version {
    /// Number of the first snapshot that holds it.
    pub(super) first: u32,
    /// The last one, and what came then; `None` while no end is known.
    pub(super) last: Option<(u32, Then)>,
    pub(super) node: Node,
}

/// What a version takes beside names.
const VERSION_BYTES: usize = size_of::<Version>() + 3 * size_of::<usize>() + 64;

/// Versions by path.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) window: Window,
    by_path: BTreeMap<PathKey, Vec<Version>>,
    bytes: usize,
    most: usize,
}

impl Table {
    /// An empty one that holds about `most` bytes, and at least one path.
    pub(super) fn new(window: Window, most: usize) -> Self {
        Self { window, by_path: BTreeMap::new(), bytes: 0, most }
    }

    /// All paths in order, each with its versions from the oldest to the newest.
    pub(super) fn found(&self) -> impl Iterator<Item = (&[u8], &[Version])> {
        self.by_path.iter().map(|(path, versions)| (&*path.0, &**versions))
    }

    /// A version begins with this snapshot.
    pub(super) fn open(&mut self, path: &[u8], first: u32, node: &Node) {
        let version = Version { first, last: None, node: bare(node) };
        self.bytes += bytes_of(path, &version);
        self.by_path.entry(PathKey::new(path)).or_default().push(version);
        while self.bytes > self.most && self.by_path.len() > 1 {
            self.shrink();
        }
    }

    /// The version that has no end yet ends with this snapshot.
    pub(super) fn close(&mut self, path: &[u8], last: u32, then: Then) {
        if let Some(versions) = self.by_path.get_mut(&PathKey::new(path)) {
            close(versions, last, then);
        }
    }

    /// All versions that have no end yet end with this snapshot, of entries of a directory whose names lie in a range, and of all
    /// below them.
    pub(super) fn close_between(&mut self, dir: &[u8], (from, until): (&[u8], Option<&[u8]>), last: u32) {
        let start = PathKey::new(&[dir, b"/", from].concat());
        for (path, versions) in self.by_path.range_mut(start..) {
            let rest = path.0.strip_prefix(dir).and_then(|rest| rest.strip_prefix(b"/"));
            let name = rest.and_then(|rest| rest.split(|byte| *byte == b'/').next());
            if name.is_none_or(|name| until.is_some_and(|until| name >= until)) {
                return;
            }
            close(versions, last, Then::Unknown);
        }
    }

    /// Forgets the second half of the paths; another pass is for them.
    fn shrink(&mut self) {
        let middle = self.by_path.len().div_ceil(2);
        let Some(until) = self.by_path.keys().nth(middle).cloned() else { return };
        for (path, versions) in self.by_path.split_off(&until) {
            let gone: usize = versions.iter().map(|version| bytes_of(&path.0, version)).sum();
            self.bytes = self.bytes.saturating_sub(gone);
        }
        self.window.until = Some(until);
    }
}

fn close(versions: &mut [Version], last: u32, then: Then) {
    if let Some(version) = versions.last_mut().filter(|version| version.last.is_none()) {
        version.last = Some((last, then));
    }
}

/// What a person wants to see of an entry.
fn bare(node: &Node) -> Node {
    Node {
        mode: node.mode,
        uid: node.uid,
        gid: node.gid,
        user: node.user.clone(),
        group: node.group.clone(),
        mtime: node.mtime,
        size: node.size,
        target: node.target.clone(),
        rdev: node.rdev,
        problem: node.problem,
        ..Node::new(Vec::new(), node.kind)
    }
}

fn bytes_of(path: &[u8], version: &Version) -> usize {
    let node = &version.node;
    VERSION_BYTES + path.len() + node.target.len() + node.user.len() + node.group.len()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::format::node::NodeKind;

    fn window(from: &str, until: Option<&str>) -> Window {
        let key = |text: &str| PathKey::new(text.as_bytes());
        Window { from: key(from), until: until.map(key) }
    }

    #[test]
    fn a_window_knows_what_it_reaches() {
        let window = window("/b/c/x", Some("/d"));
        assert!(window.holds(b"/b/c/x") && window.holds(b"/b/c/x/y") && window.holds(b"/c"));
        assert!(!window.holds(b"/b/c") && !window.holds(b"/d") && !window.holds(b"/a"));
        assert!(window.reaches_below(b"/b") && window.reaches_below(b"/b/c") && window.reaches_below(b"/c"));
        assert!(!window.reaches_below(b"/b/b") && !window.reaches_below(b"/a"));
        assert_eq!(window.name(b""), Some(&b"b"[..]));
        assert_eq!(window.name(b"/b"), Some(&b"c"[..]));
        assert_eq!(window.name(b"/c"), None);
        // A slash comes before everything else, as in a walk.
        assert!(PathKey::new(b"/a/z") < PathKey::new(b"/a.b"));
    }

    #[test]
    fn what_lies_in_a_gap_and_nothing_else_ends_there() {
        let mut table = Table::new(window("", None), usize::MAX);
        let node = Node::new(b"n".to_vec(), NodeKind::File);
        let paths = ["/d", "/d/a", "/d/b", "/d/b/x", "/d/c", "/d.e", "/e"];
        paths.iter().for_each(|path| table.open(path.as_bytes(), 0, &node));
        table.close_between(b"/d", (b"aa", Some(b"c")), 4);
        let ended = |table: &Table| -> Vec<String> {
            let ended = table.found().filter(|(_, versions)| versions[0].last == Some((4, Then::Unknown)));
            ended.map(|(path, _)| String::from_utf8(path.to_vec()).unwrap()).collect()
        };
        assert_eq!(ended(&table), ["/d/b", "/d/b/x"]);
        table.close_between(b"/d", (b"", None), 4);
        assert_eq!(ended(&table), ["/d/a", "/d/b", "/d/b/x", "/d/c"]);
        table.close_between(b"", (b"", None), 4);
        assert_eq!(ended(&table).len(), paths.len());
    }

    proptest! {
        #[test]
        fn a_table_that_is_full_keeps_the_first_paths(
            paths in prop::collection::vec("(/[a-c]{1,2}){1,3}", 1..40),
            most in 0_usize..5000,
        ) {
            let node = Node::new(b"n".to_vec(), NodeKind::File);
            let mut table = Table::new(window("", None), most);
            for path in paths.iter().filter(|path| !path.is_empty()) {
                if table.window.holds(path.as_bytes()) {
                    table.open(path.as_bytes(), 0, &node);
                }
            }
            let mut all: Vec<_> = paths.iter().map(|path| PathKey::new(path.as_bytes())).collect();
            all.sort();
            all.dedup();
            let kept: Vec<_> = table.by_path.keys().cloned().collect();
            prop_assert!(!kept.is_empty() && all.starts_with(&kept));
            prop_assert!(table.bytes <= most || kept.len() == 1);
            prop_assert_eq!(table.window.until.as_ref(), all.get(kept.len()).filter(|_| kept.len() < all.len()));
        }
    }
}
