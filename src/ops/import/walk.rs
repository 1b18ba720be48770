//! Walks a snapshot of restic, beside the one that was imported before it.
//!
//! # Invariants
//! Memory is bounded: no directory is entered while those on the way down hold more than [`HELD_MAX`] bytes or are
//! [`DEPTH_MAX`] deep, and beside them there is one window of what comes next. Names are checked before anything is done with
//! them.
//!
//! # Must not
//! Recurse over anything that is stored.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::vec::IntoIter;

use super::before::Before;
use super::convert::convert;
use super::plan::Want;
use crate::crypto::SecretKey;
use crate::error::Error;
use crate::format::node::{Node, NodeKind};
use crate::format::tree::TreeRef;
use crate::id::ResticId;
use crate::ops::tree::{DirCursor, TreeReader};
use crate::restic::{BlobKind, Catalog, Fault, Node as Foreign, NodeType, Place, ResticError, TreeNodes};

/// Bytes of all directories on the way down.
const HELD_MAX: usize = 1 << 30;
/// Directories in each other.
const DEPTH_MAX: usize = 4096;
/// Bytes of content in a window, unless one blob is larger.
const WINDOW_BYTES: u64 = 32 << 20;
/// Bytes of everything else in a window, about.
const WINDOW_NODES: usize = 4 << 20;

/// What is to be done next.
#[derive(Debug)]
pub(super) enum Item {
    /// Go into a directory.
    Enter(Box<Node>),
    /// Leave it.
    Leave,
    /// An entry that needs no content, or is taken over.
    Entry(Box<Node>),
    /// An entry whose content cannot be had.
    Lost(Box<Node>, Error),
    /// Something that cannot be brought at all.
    Skipped(Error),
    /// The rest of the directory cannot be had.
    Incomplete(Error),
    /// A file begins.
    Begin(Box<Node>),
    /// A piece of it.
    Blob(ResticId),
    /// It ends.
    End,
}

/// An item, and the path it is about.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) path: PathBuf,
    pub(super) item: Item,
}

/// Steps, and the blobs that they need.
#[derive(Debug, Default)]
pub(super) struct Window {
    pub(super) steps: Vec<Step>,
    pub(super) wants: Vec<Want>,
}

/// The snapshot that was imported before.
#[derive(Debug, Clone, Copy)]
pub(super) struct Earlier {
    /// Its root as restic names it.
    pub(super) tree: ResticId,
    /// Its root in this repository.
    pub(super) root: Option<TreeRef>,
    /// Whether nothing of it is missing here, so that directories may be taken over whole.
    pub(super) whole: bool,
}

struct Level {
    id: ResticId,
    nodes: TreeNodes,
    before: Option<Before>,
    /// Length of the path of the directory.
    path: usize,
    held: usize,
}

/// An entry of the snapshot before under the same path: as restic has it, and as it is here.
type Same = (Box<Foreign>, Box<Node>);

/// The pieces of a file that are still to come, each with the copy that is read first.
type Pieces = IntoIter<Want>;

/// A walk in depth-first order.
pub(super) struct Walk<'a> {
    catalog: &'a mut Catalog,
    reader: Option<TreeReader<'a>>,
    hard_links: &'a SecretKey,
    whole: bool,
    stack: Vec<Level>,
    held: usize,
    path: Vec<u8>,
    pieces: Option<Pieces>,
    /// Entries that had attributes of Windows.
    pub(super) windows: u64,
}

impl<'a> Walk<'a> {
    /// Stands before the first entry of the snapshot with this root. `reader` reads the earlier snapshot in this repository.
    ///
    /// # Errors
    /// Also what keeps the root from being read: then there is nothing to import.
    pub(super) async fn begin(
        catalog: &'a mut Catalog,
        tree: ResticId,
        (earlier, reader): (Option<Earlier>, Option<TreeReader<'a>>),
        hard_links: &'a SecretKey,
    ) -> Result<Self, Error> {
        let whole = earlier.is_some_and(|earlier| earlier.whole);
        let json = catalog.read_tree(&tree).await?;
        let mut walk = Self {
            catalog,
            reader,
            hard_links,
            whole,
            stack: Vec::new(),
            held: 0,
            path: Vec::new(),
            pieces: None,
            windows: 0,
        };
        let before = earlier.map(|earlier| (earlier.tree, earlier.root));
        let before = walk.before(before).await?;
        walk.push(tree, TreeNodes::new(json), before);
        Ok(walk)
    }

    /// The catalog.
    pub(super) fn catalog(&mut self) -> &mut Catalog {
        self.catalog
    }

    fn push(&mut self, id: ResticId, nodes: TreeNodes, before: Option<Before>) {
        let held = nodes.held() + before.as_ref().map_or(0, Before::held);
        self.held += held;
        self.stack.push(Level { id, nodes, before, path: self.path.len(), held });
    }

    /// Both sides of a directory of the earlier snapshot, if they can be read.
    async fn before(&mut self, both: Option<(ResticId, Option<TreeRef>)>) -> Result<Option<Before>, Error> {
        let (Some((theirs, ours)), true) = (both, self.reader.is_some()) else { return Ok(None) };
        match self.catalog.read_tree(&theirs).await {
            Ok(json) => Ok(Some(Before::new(TreeNodes::new(json), DirCursor::new(ours)))),
            Err(error) if error.is_local() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// What comes next; empty at the end. With `trust` what the earlier snapshot has is taken over.
    pub(super) async fn window(&mut self, trust: bool) -> Result<Window, Error> {
        let mut window = Window::default();
        let (mut bytes, mut weight) = (0, 0);
        while bytes < WINDOW_BYTES && weight < WINDOW_NODES {
            if let Some(pieces) = &mut self.pieces {
                let Some(want) = pieces.next() else {
                    self.pieces = None;
                    window.steps.push(Step { path: PathBuf::new(), item: Item::End });
                    continue;
                };
                bytes += u64::from(want.place.content_len().max(want.place.length));
                weight += 128;
                window.steps.push(Step { path: PathBuf::new(), item: Item::Blob(want.id) });
                window.wants.push(want);
                continue;
            }
            let Some(item) = self.step(trust).await? else { break };
            weight += 512 + self.path.len() + weight_of(&item);
            window.steps.push(Step { path: PathBuf::from(OsStr::from_bytes(&self.path)), item });
        }
        Ok(window)
    }

    /// The copy of a piece that is read first, of the length that the piece has.
    async fn locate(&mut self, id: &ResticId) -> Result<Place, ResticError> {
        let places = self.catalog.locate(BlobKind::Data, id).await?;
        let missing = || ResticError::BlobMissing { kind: "data", blob: *id };
        let first = places.first().copied().ok_or_else(missing)?;
        if places.iter().all(|place| place.content_len() == first.content_len()) {
            return Ok(first);
        }
        // The copies contradict each other: only the content tells.
        let content = self.catalog.read(BlobKind::Data, id).await?;
        let honest = places.into_iter().find(|place| place.content_len() as usize == content.len());
        Ok(honest.unwrap_or(first))
    }

    async fn step(&mut self, trust: bool) -> Result<Option<Item>, Error> {
        let Some(level) = self.stack.last_mut() else { return Ok(None) };
        self.path.truncate(level.path);
        let node = match level.nodes.next_node() {
            Some(Ok(node)) => node,
            Some(Err(fault)) => {
                let error = ResticError::Tree { tree: level.id, fault };
                return Ok(Some(Item::Incomplete(error.into())));
            }
            None => {
                self.held -= level.held;
                self.stack.pop();
                return Ok((!self.stack.is_empty()).then_some(Item::Leave));
            }
        };
        self.path.push(b'/');
        self.path.extend_from_slice(&node.name);
        if matches!(&*node.name, b"" | b"." | b"..") || node.name.iter().any(|byte| matches!(byte, 0 | b'/'))
        {
            let error =
                ResticError::Tree { tree: level.id, fault: Fault::Value { what: "the name of an entry" } };
            return Ok(Some(Item::Skipped(error.into())));
        }
        self.windows += u64::from(node.windows);
        let found = match (&mut level.before, &mut self.reader) {
            (Some(before), Some(reader)) => before.find(&node.name, reader).await,
            _ => None,
        };
        let ours = convert(&node, self.hard_links);
        match &node.kind {
            NodeType::Dir => self.directory(&node, ours, (found, trust)).await.map(Some),
            NodeType::File => self.file(node, ours, (found, trust)).await.map(Some),
            NodeType::Unknown(kind) => {
                let error = ResticError::Kind { kind: kind.clone() };
                Ok(Some(Item::Lost(Box::new(ours), error.into())))
            }
            _ => Ok(Some(Item::Entry(Box::new(ours)))),
        }
    }

    async fn directory(
        &mut self,
        theirs: &Foreign,
        node: Node,
        (found, trust): (Option<Same>, bool),
    ) -> Result<Item, Error> {
        let tree = self.stack.last().map_or(ResticId::new([0; 32]), |level| level.id);
        let Some(subtree) = theirs.subtree else {
            let error =
                ResticError::Tree { tree, fault: Fault::Value { what: "a directory without entries" } };
            return Ok(Item::Lost(Box::new(node), error.into()));
        };
        let found = found.filter(|(_, ours)| ours.kind == NodeKind::Directory);
        if let Some((old, ours)) = &found
            && trust
            && self.whole
            && old.subtree == Some(subtree)
            && ours.problem.is_none()
        {
            return Ok(Item::Entry(Box::new(Node { tree: ours.tree, totals: ours.totals, ..node })));
        }
        if self.stack.len() >= DEPTH_MAX || self.held > HELD_MAX {
            return Ok(Item::Lost(Box::new(node), ResticError::Bounds { tree: subtree }.into()));
        }
        let json = match self.catalog.read_tree(&subtree).await {
            Ok(json) => json,
            Err(error) if error.is_local() => return Ok(Item::Lost(Box::new(node), error.into())),
            Err(error) => return Err(error.into()),
        };
        let both = found.and_then(|(old, ours)| Some((old.subtree?, ours.tree)));
        let before = self.before(both).await?;
        self.push(subtree, TreeNodes::new(json), before);
        Ok(Item::Enter(Box::new(node)))
    }

    async fn file(
        &mut self,
        theirs: Foreign,
        mut node: Node,
        (found, trust): (Option<Same>, bool),
    ) -> Result<Item, Error> {
        let same = found.filter(|(old, ours)| {
            old.kind == NodeType::File
                && old.content == theirs.content
                && ours.kind == NodeKind::File
                && ours.problem.is_none()
        });
        if let Some((_, ours)) = same
            && trust
        {
            let Node { size, content, holes, .. } = *ours;
            return Ok(Item::Entry(Box::new(Node { size, content, holes, ..node })));
        }
        let mut pieces = Vec::with_capacity(theirs.content.len());
        for id in theirs.content {
            match self.locate(&id).await {
                Ok(place) => pieces.push(Want { id, place }),
                Err(error) if error.is_local() => return Ok(Item::Lost(Box::new(node), error.into())),
                Err(error) => return Err(error.into()),
            }
        }
        if pieces.is_empty() {
            return Ok(Item::Entry(Box::new(node)));
        }
        node.size = pieces.iter().map(|want| u64::from(want.place.content_len())).sum();
        self.pieces = Some(pieces.into_iter());
        Ok(Item::Begin(Box::new(node)))
    }
}

/// Bytes of an item beside its path, about.
fn weight_of(item: &Item) -> usize {
    match item {
        Item::Enter(node) | Item::Entry(node) | Item::Lost(node, _) | Item::Begin(node) => node.held(),
        _ => 0,
    }
}
