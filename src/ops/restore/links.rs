//! Hard links: the first selected name of a file is made, the others are linked to it.

use std::collections::btree_map::Entry;
use std::sync::Arc;

use super::entries::Dir;
use super::run::{Job, Late, LinkState, Run, Task, lock};
use crate::format::content::{ChunkRow, Content};
use crate::format::node::Node;
use crate::source::target::LinkSource;

/// What the walk does with an entry that may have other names.
#[derive(Debug)]
pub(super) enum Linking {
    /// Makes it; with a number if others will be linked to it.
    Make(Box<Node>, Option<[u8; 16]>),
    /// Nothing more: it waits, or a worker links it.
    Later(Option<Task>),
}

/// Stands for everything that the names of one file must have in common.
pub(crate) fn content_of(node: &Node) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&[node.kind as u8]);
    hasher.update(&node.size.to_le_bytes());
    hasher.update(&node.rdev.to_le_bytes());
    hasher.update(&(node.target.len() as u64).to_le_bytes());
    hasher.update(&node.target);
    for (offset, len) in &node.holes {
        hasher.update(&offset.to_le_bytes());
        hasher.update(&len.to_le_bytes());
    }
    match &node.content {
        Content::Inline(rows) => {
            hasher.update(&[0]);
            hasher.update(&ChunkRow::encode_all(rows));
        }
        Content::Paged(list) => {
            hasher.update(&[1, list.level]);
            hasher.update(list.id.as_bytes());
        }
    }
    let mut short = [0; 16];
    short.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    short
}

impl Run {
    /// Decides whether an entry is made or linked.
    pub(super) fn linking(&self, dir: &Arc<Dir>, node: Box<Node>) -> Linking {
        let Some(number) = node.hard_link else { return Linking::Make(node, None) };
        let content = content_of(&node);
        match lock(&self.links).entry(number) {
            Entry::Vacant(free) => {
                free.insert(LinkState::Pending { content, waiting: Vec::new() });
                Linking::Make(node, Some(number))
            }
            Entry::Occupied(mut first) => {
                let entry = |node| Late { dir: Arc::clone(dir), node, alone: false };
                match first.get_mut() {
                    LinkState::Pending { content: same, .. } if *same == content && self.policy.dry => {
                        Linking::Later(None)
                    }
                    LinkState::Pending { content: same, waiting } if *same == content => {
                        waiting.push(entry(node));
                        Linking::Later(None)
                    }
                    LinkState::Made { content: same, source } if *same == content => {
                        Linking::Later(Some(Task::Link { entry: entry(node), source: source.clone() }))
                    }
                    // Whoever wrote the snapshot erred: these are different files.
                    _ => Linking::Make(node, None),
                }
            }
        }
    }

    /// The first of several names stands, or will never stand: the others go on.
    pub(super) fn settle_link(&self, number: [u8; 16], source: Option<LinkSource>) {
        let mut links = lock(&self.links);
        let Some(LinkState::Pending { content, waiting }) = links.remove(&number) else { return };
        match source {
            Some(source) => {
                links.insert(number, LinkState::Made { content, source: source.clone() });
                drop(links);
                if waiting.is_empty() {
                    return;
                }
                waiting.iter().for_each(|_| self.begin());
                let link = |entry| Task::Link { entry, source: source.clone() };
                self.push(Job::Tasks(waiting.into_iter().map(link).collect()));
            }
            None => {
                drop(links);
                let alone = waiting.into_iter().map(|entry| Late { alone: true, ..entry });
                lock(&self.late).extend(alone);
            }
        }
    }
}
