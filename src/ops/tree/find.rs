//! Finding one path without reading what lies beside it.

use std::collections::HashSet;

use super::{TreeReader, damaged_page};
use crate::error::Error;
use crate::format::FormatError;
use crate::format::node::{Node, NodeKind};
use crate::format::tree::{LEVELS_MAX, Page, TreeRef};

/// What stands at a path.
#[derive(Debug)]
pub(crate) enum Found {
    /// The root of the snapshot, which has no node of its own.
    Root(Option<TreeRef>),
    /// An entry.
    Node(Box<Node>),
}

/// The components of a stored path.
pub(crate) fn parts(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|&byte| byte == b'/').filter(|part| !matches!(*part, b"" | b"."))
}

/// Directories below which a path was looked for in vain, each with how deep it lies.
#[derive(Debug, Default)]
pub(crate) struct Absent(HashSet<(usize, TreeRef)>);

/// Directories that are remembered; then all are forgotten, which costs time only.
const ABSENT_MAX: usize = 1 << 16;

impl Absent {
    fn add(&mut self, way: Vec<(usize, TreeRef)>) {
        if self.0.len() > ABSENT_MAX {
            self.0.clear();
        }
        self.0.extend(way);
    }
}

impl TreeReader<'_> {
    /// What stands at `path` below `root`; `None` if nothing does.
    pub(crate) async fn find(&mut self, root: Option<TreeRef>, path: &[u8]) -> Result<Option<Found>, Error> {
        self.find_anew(root, path, &mut Absent::default()).await
    }

    /// As [`TreeReader::find`], for who looks for the same path below one root after another: where it was not found once is
    /// not read again.
    pub(crate) async fn find_anew(
        &mut self,
        root: Option<TreeRef>,
        path: &[u8],
        absent: &mut Absent,
    ) -> Result<Option<Found>, Error> {
        let mut way = Vec::new();
        let found = self.descend(root, path, (&mut way, absent)).await?;
        if found.is_none() {
            absent.add(way);
        }
        Ok(found)
    }

    async fn descend(
        &mut self,
        root: Option<TreeRef>,
        path: &[u8],
        (way, absent): (&mut Vec<(usize, TreeRef)>, &Absent),
    ) -> Result<Option<Found>, Error> {
        let mut found = Found::Root(root);
        for (depth, part) in parts(path).enumerate() {
            let tree = match &found {
                Found::Root(tree) => *tree,
                Found::Node(node) if node.kind == NodeKind::Directory => node.tree,
                Found::Node(_) => return Ok(None),
            };
            let Some(tree) = tree else { return Ok(None) };
            if absent.0.contains(&(depth, tree)) {
                return Ok(None);
            }
            way.push((depth, tree));
            match self.find_name(tree, part).await? {
                Some(node) => found = Found::Node(Box::new(node)),
                None => return Ok(None),
            }
        }
        Ok(Some(found))
    }

    async fn find_name(&mut self, mut tree: TreeRef, name: &[u8]) -> Result<Option<Node>, Error> {
        if tree.level > LEVELS_MAX {
            let rule = FormatError::Value { section: "5", what: "level of a tree page" };
            return Err(damaged_page(&tree.id, rule));
        }
        loop {
            let bytes = self.page(&tree.id, tree.len).await?;
            let page = Page::decode(&bytes, tree.level).map_err(|rule| damaged_page(&tree.id, rule))?;
            match page {
                Page::Nodes(nodes) => {
                    for node in nodes {
                        if Node::peek_name(node).is_ok_and(|found| found == name) {
                            let node = Node::decode(node).map_err(|rule| damaged_page(&tree.id, rule))?;
                            return Ok(Some(node));
                        }
                    }
                    return Ok(None);
                }
                Page::Pages(rows) => {
                    let behind = rows.partition_point(|row| row.first.as_slice() <= name);
                    let Some(row) = behind.checked_sub(1).and_then(|at| rows.get(at)) else {
                        return Ok(None);
                    };
                    tree = TreeRef { level: tree.level - 1, id: row.id, len: row.len };
                }
            }
        }
    }
}
