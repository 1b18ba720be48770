//! One snapshot of the source on its way: its tree, walked beside the one that was copied before it.
//!
//! # Invariants
//! What is as it was in the snapshot before is taken over as its copy stands, and its content is not read; everything else
//! is read and checked. Memory does not grow with a directory, a file, or the number of entries.

use std::collections::VecDeque;

use super::ahead::Ahead;
use crate::error::Error;
use crate::format::content::{ChunkRow, Content};
use crate::format::node::{Node, NodeKind, Problem};
use crate::format::tree::TreeRef;
use crate::ops::backup::{Feed, Foreign};
use crate::ops::restore::as_path;
use crate::ops::tree::{ContentRows, DirCursor, Item, Lookup, TreeReader, is_local_damage};
use crate::repo::{Listed, Repository};

/// Directories on the way down that keep their pages; those above read theirs again.
const PAGES_KEPT: usize = 32;
/// Entries that wait for content that is under way.
const WAITING: usize = 4096;

/// The root of a snapshot of the source, and the root of its copy.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pair {
    pub(super) source: Option<TreeRef>,
    pub(super) copy: Option<TreeRef>,
}

/// A snapshot of the source.
pub(super) struct SourceTree<'a> {
    pub(super) from: &'a Repository,
    pub(super) to: &'a Repository,
    pub(super) listed: Listed,
    pub(super) root: Option<TreeRef>,
    /// An earlier snapshot that was copied in full.
    pub(super) before: Option<Pair>,
    /// Whether it is not wanted any more once somebody forgot it.
    pub(super) unless_forgotten: bool,
}

impl Foreign for SourceTree<'_> {
    async fn send(&self, feed: &mut Feed) -> Result<(), Error> {
        let from = Lookup::open(self.from).await?;
        let to = match self.before {
            Some(_) => Some(Lookup::open(self.to).await?),
            None => None,
        };
        let mut walk = Walk {
            source: from.reader()?,
            copy: to.as_ref().map(Lookup::reader).transpose()?,
            rows: from.reader()?,
            ahead: Ahead::new(&from)?,
            waiting: VecDeque::new(),
            path: Vec::new(),
        };
        walk.run((self.root, self.before), feed).await
    }

    async fn stands(&self) -> Result<bool, Error> {
        let listed = self.from.is_listed(self.listed.name()).await?;
        if !listed || !self.unless_forgotten {
            return Ok(listed);
        }
        let tombs = self.from.standing_tombs(&std::iter::once(self.listed.id).collect()).await?;
        Ok(tombs.is_empty())
    }
}

/// A directory of the source, and what it was before.
struct Level {
    source: DirCursor,
    before: Option<Before>,
    /// Length of the directory's path.
    path: usize,
}

/// The same directory in the earlier snapshot, and in its copy.
struct Before {
    source: Peek,
    copy: Peek,
}

/// A cursor whose next entry can be looked at.
struct Peek {
    cursor: DirCursor,
    next: Option<Box<Node>>,
}

impl Peek {
    fn new(tree: Option<TreeRef>) -> Self {
        Self { cursor: DirCursor::new(tree), next: None }
    }

    /// The entry of this name, if there is one; the names asked for must ascend. What cannot be read is not there: it costs
    /// reading.
    async fn find(&mut self, name: &[u8], reader: &mut TreeReader<'_>) -> Result<Option<Box<Node>>, Error> {
        loop {
            match &self.next {
                Some(next) if &*next.name < name => self.next = None,
                Some(next) if &*next.name == name => return Ok(self.next.take()),
                Some(_) => return Ok(None),
                None => match self.cursor.next(reader).await? {
                    Some(Item::Node(node)) => self.next = Some(node),
                    Some(Item::Damaged(_)) => {}
                    None => return Ok(None),
                },
            }
        }
    }
}

impl Level {
    fn new(source: Option<TreeRef>, before: Option<Pair>, path: usize) -> Self {
        let before = before.map(|pair| Before { source: Peek::new(pair.source), copy: Peek::new(pair.copy) });
        Self { source: DirCursor::new(source), before, path }
    }

    fn park(&mut self) {
        self.source.park();
        if let Some(before) = &mut self.before {
            before.source.cursor.park();
            before.copy.cursor.park();
        }
    }
}

/// What waits until the content before it is there.
enum Waiting {
    Enter(Box<Node>),
    Leave,
    Entry(Box<Node>),
    /// An entry, or a part of a directory, that cannot be read.
    Incomplete(Vec<u8>, Error),
    /// A file, with its path.
    Begin(Box<Node>, Vec<u8>),
    /// A chunk of the file at hand.
    Chunk,
    /// The end of the file at hand; or why its chunks are not known to the end.
    End(Option<Error>),
}

/// The file at hand on the side that sends.
enum Sending {
    /// Its path, and whether it goes on: the rest of a spoilt one is passed by.
    File(Vec<u8>, bool),
    Nothing,
}

struct Walk<'a> {
    source: TreeReader<'a>,
    copy: Option<TreeReader<'a>>,
    /// Reads the pages of lists.
    rows: TreeReader<'a>,
    ahead: Ahead<'a>,
    waiting: VecDeque<Waiting>,
    path: Vec<u8>,
}

impl Walk<'_> {
    async fn run(
        &mut self,
        (root, before): (Option<TreeRef>, Option<Pair>),
        feed: &mut Feed,
    ) -> Result<(), Error> {
        let mut sending = Sending::Nothing;
        let mut stack = vec![Level::new(root, before, 0)];
        while let Some(level) = stack.last_mut() {
            self.path.truncate(level.path);
            match level.source.next(&mut self.source).await? {
                Some(Item::Node(node)) => {
                    let known = self.find_before(level, &node.name).await?;
                    self.path.push(b'/');
                    self.path.extend_from_slice(&node.name);
                    if let Some(below) = self.take(*node, known, feed).await? {
                        if let Some(parked) = stack.len().checked_sub(PAGES_KEPT)
                            && let Some(level) = stack.get_mut(parked)
                        {
                            level.park();
                        }
                        stack.push(below);
                    }
                }
                Some(Item::Damaged(error)) => {
                    self.waiting.push_back(Waiting::Incomplete(self.path.clone(), error));
                }
                None => {
                    stack.pop();
                    if !stack.is_empty() {
                        self.waiting.push_back(Waiting::Leave);
                    }
                }
            }
            self.hand_on(feed, &mut sending, false).await?;
        }
        self.hand_on(feed, &mut sending, true).await
    }

    /// What stood under this name before, and how it was copied.
    async fn find_before(&mut self, level: &mut Level, name: &[u8]) -> Result<Option<(Node, Node)>, Error> {
        let (Some(before), Some(copy)) = (&mut level.before, &mut self.copy) else { return Ok(None) };
        let Some(source) = before.source.find(name, &mut self.source).await? else { return Ok(None) };
        Ok(before.copy.find(name, copy).await?.map(|copy| (*source, *copy)))
    }

    /// Takes an entry; gives the directory to go into, if that is what it is.
    async fn take(
        &mut self,
        node: Node,
        known: Option<(Node, Node)>,
        feed: &mut Feed,
    ) -> Result<Option<Level>, Error> {
        match node.kind {
            NodeKind::Directory => {
                let known = known.filter(|(before, copy)| [before.kind, copy.kind] == [NodeKind::Directory; 2]);
                if let Some((before, copy)) = &known
                    && feed.trusts_base()
                    && node.tree == before.tree
                    && node.problem == copy.problem
                {
                    let whole = Node { tree: copy.tree, totals: copy.totals, ..node };
                    self.waiting.push_back(Waiting::Entry(Box::new(whole)));
                    return Ok(None);
                }
                let pair = known.map(|(before, copy)| Pair { source: before.tree, copy: copy.tree });
                let below = Level::new(node.tree, pair, self.path.len());
                self.waiting.push_back(Waiting::Enter(Box::new(node)));
                Ok(Some(below))
            }
            NodeKind::File => {
                self.file(node, known, feed).await?;
                Ok(None)
            }
            _ => {
                self.waiting.push_back(Waiting::Entry(Box::new(node)));
                Ok(None)
            }
        }
    }

    async fn file(
        &mut self,
        node: Node,
        known: Option<(Node, Node)>,
        feed: &mut Feed,
    ) -> Result<(), Error> {
        if node.problem == Some(Problem::Unreadable) || node.content.is_empty() {
            self.waiting.push_back(Waiting::Entry(Box::new(node)));
            return Ok(());
        }
        if let Some((before, copy)) = known
            && is_same(&node, &before, &copy)
            && has(feed, &copy.content)?
        {
            let taken = Node { content: copy.content, ..node };
            self.waiting.push_back(Waiting::Entry(Box::new(taken)));
            return Ok(());
        }
        let mut sending = Sending::Nothing;
        let mut rows = ContentRows::new(node.content.clone());
        self.waiting.push_back(Waiting::Begin(Box::new(node), self.path.clone()));
        let end = loop {
            match self.next_row(&mut rows).await {
                Ok(Some(row)) => {
                    self.ahead.ask(row).await?;
                    self.waiting.push_back(Waiting::Chunk);
                }
                Ok(None) => break None,
                Err(error) if is_local_damage(&error) => break Some(error),
                Err(error) => return Err(error),
            }
            let _ = &mut sending;
            if self.is_full() {
                return self.rest(rows, feed).await;
            }
        };
        self.waiting.push_back(Waiting::End(end));
        Ok(())
    }
}
