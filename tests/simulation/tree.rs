//! What is backed up: small trees whose files take their content from one pool, so that machines share chunks.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::LazyLock;

use crate::chance::Dice;

/// The files of a tree: path below its root, and number of the content.
pub type Tree = BTreeMap<String, usize>;

/// Sizes of the contents of the pool.
const SIZES: [usize; 14] =
    [0, 1, 100, 700, 900, 1500, 3000, 5000, 9000, 14_000, 20_000, 40_000, 90_000, 200_000];

/// Every content there is. Those in the second half begin as one of the first half does.
pub static CONTENTS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let mut contents: Vec<Vec<u8>> = Vec::new();
    for (number, size) in SIZES.into_iter().enumerate() {
        contents.push(noise(number as u64, size));
    }
    for number in 0..SIZES.len() {
        let mut content = contents[number].clone();
        content.extend(noise(100 + number as u64, 50 + number * 300));
        contents.push(content);
    }
    contents
});

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

const NAMES: [&str; 8] = ["a", "b", "c", "dir/a", "dir/b", "dir/c", "other/a", "other/deep/a"];

/// The tree of one machine on disk, and what is in it.
pub struct Source {
    pub root: std::path::PathBuf,
    pub files: Tree,
}

impl Source {
    /// An empty directory; what another history left there is removed.
    pub fn new(root: &Path) -> Self {
        let _ = std::fs::remove_dir_all(root);
        std::fs::create_dir_all(root).unwrap();
        Self { root: root.to_owned(), files: Tree::new() }
    }

    /// Changes some files. Each gets a new inode, so that a change shows however fast it came.
    pub fn change(&mut self, dice: &mut Dice) {
        let first = self.files.is_empty();
        for _ in 0..=dice.below(if first { 5 } else { 2 }) {
            let name = dice.pick(&NAMES);
            // Large contents cost time: they are rarer.
            let most = if dice.one_in(8) { SIZES.len() } else { SIZES.len() - 4 } as u64;
            let half = if dice.one_in(3) { SIZES.len() } else { 0 };
            let content = dice.below(most) as usize + half;
            let gone = !first && self.files.len() > 1 && dice.one_in(4);
            if gone && self.files.remove(name).is_some() {
                std::fs::remove_file(self.root.join(name)).unwrap();
            } else if !gone {
                self.write(name, content);
            }
        }
    }

    fn write(&mut self, name: &str, content: usize) {
        let path = self.root.join(name);
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir).unwrap();
        }
        let _ = std::fs::remove_file(&path);
        std::fs::write(&path, &CONTENTS[content]).unwrap();
        self.files.insert(name.to_owned(), content);
    }
}

/// How a restored tree differs from what it should be.
pub fn difference(root: &Path, wanted: &Tree) -> Option<String> {
    let mut left = wanted.clone();
    let mut dirs = vec![root.to_owned()];
    while let Some(dir) = dirs.pop() {
        let Ok(entries) = std::fs::read_dir(&dir) else {
            return Some(format!("cannot list {}", dir.display()));
        };
        for entry in entries {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
                continue;
            }
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            match left.remove(&name) {
                None => return Some(format!("{name} should not be there")),
                Some(content) if std::fs::read(&path).unwrap() != CONTENTS[content] => {
                    return Some(format!("{name} has other bytes than content {content}"));
                }
                Some(_) => {}
            }
        }
    }
    left.into_keys().next().map(|name| format!("{name} is missing"))
}
