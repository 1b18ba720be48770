//! Finding one path without reading what lies beside it.

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

impl TreeReader<'_> {
    /// What stands at `path` below `root`; `None` if nothing does.
    pub(crate) async fn find(&mut self, root: Option<TreeRef>, path: &[u8]) -> Result<Option<Found>, Error> {
        let mut found = Found::Root(root);
        for part in parts(path) {
            let tree = match &found {
                Found::Root(tree) => *tree,
                Found::Node(node) if node.kind == NodeKind::Directory => node.tree,
                Found::Node(_) => return Ok(None),
            };
            let Some(tree) = tree else { return Ok(None) };
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
