//! One snapshot of the source on its way: its tree, walked beside the one that was copied before it.
//!
//! # Invariants
//! What is as it was in the snapshot before is taken over as its copy stands, and its content is not read; everything else
//! is read and checked. Memory does not grow with a directory, a file, or the number of entries.

use std::collections::VecDeque;
use std::path::PathBuf;

use super::ahead::Ahead;
use crate::error::Error;
use crate::format::content::Content;
use crate::format::node::{Node, NodeKind, Problem, Totals};
use crate::format::tree::TreeRef;
use crate::ops::backup::{Feed, Foreign};
use crate::ops::restore::as_path;
use crate::ops::tree::{ContentRows, DirCursor, Item, Lookup, TreeReader, is_local_damage};
use crate::repo::{Listed, Repository};

/// Directories on the way down that keep their pages; those above read theirs again.
const PAGES_KEPT: usize = 32;
/// Bytes of a pack of trees that are fetched at once where all of a tree is read.
const TREES_AHEAD: u64 = 4 << 20;
/// Entries and chunks that wait for content that is under way, and bytes of these.
const WAITING: usize = 16 << 10;
const WAITING_BYTES: usize = 16 << 20;

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
    /// Bytes of its files.
    pub(super) bytes: u64,
    /// An earlier snapshot that was copied in full.
    pub(super) before: Option<Pair>,
    /// Whether it is not wanted any more once somebody forgot it.
    pub(super) unless_forgotten: bool,
}

impl Foreign for SourceTree<'_> {
    async fn send(&self, feed: &mut Feed) -> Result<(), Error> {
        let from = Lookup::open(self.from).await?;
        if self.before.is_none() {
            from.expect(self.bytes).await?;
        }
        let to = match self.before {
            Some(_) => Some(Lookup::open(self.to).await?),
            None => None,
        };
        let mut walk = Walk {
            source: from.reader()?,
            copy: to.as_ref().map(Lookup::reader).transpose()?,
            rows: from.reader()?,
            line: Line::new(Ahead::new(&from)?),
            path: Vec::new(),
        };
        if self.before.is_none() {
            walk.source.read_ahead(TREES_AHEAD);
        }
        let any = Box::pin(walk.run((self.root, self.before), feed)).await?;
        if any { Ok(()) } else { Err(Error::SnapshotUnreadable { snapshot: self.listed.id }) }
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

struct Walk<'a> {
    source: TreeReader<'a>,
    copy: Option<TreeReader<'a>>,
    /// Reads the pages of lists.
    rows: TreeReader<'a>,
    line: Line<'a>,
    path: Vec<u8>,
}

impl Walk<'_> {
    /// Sends everything; false if there is a root and nothing of it can be read.
    async fn run(
        &mut self,
        (root, before): (Option<TreeRef>, Option<Pair>),
        feed: &mut Feed,
    ) -> Result<bool, Error> {
        let mut stack = vec![Level::new(root, before, 0)];
        let (mut any, mut damaged) = (false, false);
        while let Some(level) = stack.last_mut() {
            self.path.truncate(level.path);
            match level.source.next(&mut self.source).await? {
                Some(Item::Node(node)) => {
                    any = true;
                    let known = self.find_before(level, &node.name).await?;
                    self.path.push(b'/');
                    self.path.extend_from_slice(&node.name);
                    if let Some(below) = self.take(*node, known, feed).await? {
                        let parked = stack.len().checked_sub(PAGES_KEPT);
                        if let Some(level) = parked.and_then(|parked| stack.get_mut(parked)) {
                            level.park();
                        }
                        stack.push(below);
                    }
                }
                Some(Item::Damaged(error)) => {
                    damaged = true;
                    self.line.push(Waiting::Incomplete(error), &self.path);
                }
                None => {
                    stack.pop();
                    if !stack.is_empty() {
                        self.line.push(Waiting::Leave, &[]);
                    }
                }
            }
            self.line.hand_on(feed, false).await?;
        }
        self.line.hand_on(feed, true).await?;
        Ok(any || !damaged)
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
                let both = [NodeKind::Directory; 2];
                let known = known.filter(|(before, copy)| [before.kind, copy.kind] == both);
                if let Some((before, copy)) = &known
                    && feed.trusts_base()
                    && node.tree == before.tree
                    && before.problem == copy.problem
                {
                    let whole = Node { tree: copy.tree, totals: copy.totals, ..bare(node) };
                    self.line.push(Waiting::Entry(whole), &self.path);
                    return Ok(None);
                }
                let pair = known.map(|(before, copy)| Pair { source: before.tree, copy: copy.tree });
                let below = Level::new(node.tree, pair, self.path.len());
                self.line.push(Waiting::Enter(bare(node)), &self.path);
                Ok(Some(below))
            }
            NodeKind::File if node.problem == Some(Problem::Unreadable) => {
                let nothing = Node { size: 0, holes: Vec::new(), ..bare(node) };
                self.line.push(Waiting::Entry(nothing), &self.path);
                Ok(None)
            }
            NodeKind::File => self.file(node, known, feed).await.map(|()| None),
            _ => {
                let special = Node { size: 0, holes: Vec::new(), ..bare(node) };
                self.line.push(Waiting::Entry(special), &self.path);
                Ok(None)
            }
        }
    }

    async fn file(&mut self, node: Node, known: Option<(Node, Node)>, feed: &mut Feed) -> Result<(), Error> {
        if let Some((before, copy)) = known
            && is_same(&node, &before, &copy)
            && has(feed, &copy.content)?
        {
            let taken = Node { content: copy.content, ..bare(node) };
            self.line.push(Waiting::Entry(taken), &self.path);
            return Ok(());
        }
        let mut rows = ContentRows::new(node.content.clone());
        self.line.push(Waiting::Begin(bare(node)), &self.path);
        let end = loop {
            match rows.next(&mut self.rows).await {
                Ok(Some(row)) => {
                    self.line.ahead.ask(row).await?;
                    self.line.push(Waiting::Chunk, &[]);
                    self.line.hand_on(feed, false).await?;
                }
                Ok(None) => break None,
                Err(error) if is_local_damage(&error) => break Some(error),
                Err(error) => return Err(error),
            }
        };
        self.line.push(Waiting::End(end), &[]);
        Ok(())
    }
}

/// The entry without what only its own repository can follow.
fn bare(node: Node) -> Node {
    Node { content: Content::Inline(Vec::new()), tree: None, totals: Totals::default(), ..node }
}

/// Whether a file has the content it had before, and the copy has it too.
fn is_same(node: &Node, before: &Node, copy: &Node) -> bool {
    [before.kind, copy.kind] == [NodeKind::File; 2]
        && node.content == before.content
        && (node.size, &node.holes) == (before.size, &before.holes)
        && (node.size, &node.holes) == (copy.size, &copy.holes)
        && copy.problem != Some(Problem::Unreadable)
}

/// Whether this content can be taken over.
fn has(feed: &Feed, content: &Content) -> Result<bool, Error> {
    if feed.trusts_base() {
        return Ok(true);
    }
    let Content::Inline(rows) = content else { return Ok(false) };
    for row in rows {
        if !feed.holds(&row.id)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// What waits until the content before it is there.
enum Waiting {
    Enter(Node),
    Leave,
    Entry(Node),
    /// A part of a directory that cannot be read.
    Incomplete(Error),
    Begin(Node),
    /// A chunk of the file at hand.
    Chunk,
    /// The end of the file at hand, or why its chunks are not known to the end.
    End(Option<Error>),
}

/// Entries on their way, in order, with the content that was asked for.
struct Line<'a> {
    ahead: Ahead<'a>,
    waiting: VecDeque<(Waiting, Vec<u8>)>,
    bytes: usize,
    /// The path of the file at hand, as long as its content is wanted.
    file: Option<Vec<u8>>,
    /// How many directories lie between here and one that was refused.
    refused: usize,
}

impl<'a> Line<'a> {
    fn new(ahead: Ahead<'a>) -> Self {
        Self { ahead, waiting: VecDeque::new(), bytes: 0, file: None, refused: 0 }
    }

    fn push(&mut self, waiting: Waiting, path: &[u8]) {
        self.bytes += waiting.bytes() + path.len();
        self.waiting.push_back((waiting, path.to_vec()));
    }

    /// Hands on what needs no content, and the rest if enough is under way, or if `all` is to go.
    async fn hand_on(&mut self, feed: &mut Feed, all: bool) -> Result<(), Error> {
        loop {
            let full = self.ahead.is_full() || self.waiting.len() >= WAITING || self.bytes >= WAITING_BYTES;
            match self.waiting.front() {
                Some((Waiting::Chunk, _)) if !(all || full) => return Ok(()),
                None => return Ok(()),
                Some(_) => {}
            }
            let Some((waiting, path)) = self.waiting.pop_front() else { return Ok(()) };
            self.bytes -= waiting.bytes() + path.len();
            self.send(waiting, path, feed).await?;
        }
    }

    async fn send(&mut self, waiting: Waiting, path: Vec<u8>, feed: &mut Feed) -> Result<(), Error> {
        if self.refused > 0 {
            match waiting {
                Waiting::Enter(_) => self.refused += 1,
                Waiting::Leave => self.refused -= 1,
                Waiting::Chunk => drop(self.ahead.next().await?),
                _ => {}
            }
            return Ok(());
        }
        match waiting {
            Waiting::Enter(node) => {
                if let Some(error) = refusal(feed.enter(node).await)? {
                    self.refused = 1;
                    feed.skipped(&as_path(path), &error).await?;
                }
            }
            Waiting::Leave => feed.leave().await?,
            Waiting::Entry(node) => {
                if let Some(error) = refusal(feed.entry(node).await)? {
                    feed.skipped(&as_path(path), &error).await?;
                }
            }
            Waiting::Incomplete(error) => feed.incomplete(&named(path), &error).await?,
            Waiting::Begin(node) => match refusal(feed.begin(node).await)? {
                Some(error) => feed.skipped(&as_path(path), &error).await?,
                None => self.file = Some(path),
            },
            Waiting::Chunk => {
                let chunk = match self.ahead.next().await? {
                    Some(Ok(chunk)) if self.file.is_some() => refusal(feed.data(chunk).await)?,
                    Some(Err(error)) => Some(error),
                    _ => None,
                };
                self.spoil(chunk, feed).await?;
            }
            Waiting::End(error) => {
                let error = match error {
                    None if self.file.is_some() => refusal(feed.end().await)?,
                    error => error,
                };
                self.spoil(error, feed).await?;
                self.file = None;
            }
        }
        Ok(())
    }

    /// Gives the file at hand up, if there is a reason to.
    async fn spoil(&mut self, error: Option<Error>, feed: &mut Feed) -> Result<(), Error> {
        match error {
            Some(error) => match self.file.take() {
                Some(path) => feed.spoilt(&as_path(path), &error).await,
                None => Ok(()),
            },
            None => Ok(()),
        }
    }
}

impl Waiting {
    /// About how much memory it takes.
    fn bytes(&self) -> usize {
        match self {
            Self::Enter(node) | Self::Entry(node) | Self::Begin(node) => size_of::<Node>() + node.held(),
            Self::Leave | Self::Incomplete(_) | Self::Chunk | Self::End(_) => 0,
        }
    }
}

/// Why the feed refuses an entry, if it does; every other error ends the copy.
fn refusal(sent: Result<(), Error>) -> Result<Option<Error>, Error> {
    match sent {
        Ok(()) => Ok(None),
        Err(error @ Error::Damaged { .. }) => Ok(Some(error)),
        Err(error) => Err(error),
    }
}

/// The path of a directory; the root's is empty.
fn named(path: Vec<u8>) -> PathBuf {
    as_path(if path.is_empty() { b"/".to_vec() } else { path })
}
