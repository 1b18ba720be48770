//! The walk over the snapshot: it decides what is in the archive, in which order, and where its content is read.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::mpsc::Sender;

use super::assemble::{Chunk, Content, Step};
use super::entry::{Entry, Problem};
use super::run::Run;
use super::segments::{Found, Segments};
use crate::cancel::Cancel;
use crate::error::Error;
use crate::filter::Filter;
use crate::format::content::{ChunkRow, Content as NodeContent};
use crate::format::node::{Node, NodeKind, Problem as NodeProblem};
use crate::format::tree::TreeRef;
use crate::ops::restore::flaw::Flaw;
use crate::ops::restore::layout::Layout;
use crate::ops::restore::links::content_of;
use crate::ops::restore::select::{Choice, choose, choose_root};
use crate::ops::tree::{ContentRows, Step as TreeStep, TreeReader, TreeWalk, is_local_damage};

/// A batch is handed over when it has this many bytes of content and metadata,
const BATCH_BYTES: usize = 1 << 20;
/// or this many steps.
const BATCH_STEPS: usize = 256;

/// The first name of a file that may have more.
struct FirstName {
    content: [u8; 16],
    name: Box<[u8]>,
}

/// A directory that leads to what may be selected.
struct Leading {
    depth: usize,
    /// Length of its path, which begins the path of everything below it.
    len: usize,
    node: Box<Node>,
}

pub(super) struct Walk<'a> {
    run: &'a Run,
    cancel: &'a Cancel,
    reader: TreeReader<'a>,
    filter: &'a Filter,
    segments: Segments<'a>,
    batches: Sender<Vec<Step>>,
    batch: Vec<Step>,
    bytes: usize,
    /// Directories above that are in the archive only if something in them is, from the top.
    leading: Vec<Leading>,
    /// First names of hard links; `None` if the archive has none.
    links: Option<HashMap<[u8; 16], FirstName>>,
    /// How much of a stored path the archive leaves out.
    cut: usize,
    /// Number of the last file.
    file: u64,
}

impl<'a> Walk<'a> {
    pub(super) fn new(
        (run, cancel): (&'a Run, &'a Cancel),
        reader: TreeReader<'a>,
        (filter, links): (&'a Filter, bool),
        segments: Segments<'a>,
        batches: Sender<Vec<Step>>,
    ) -> Self {
        Self {
            run,
            cancel,
            reader,
            filter,
            segments,
            batches,
            batch: Vec::new(),
            bytes: 0,
            leading: Vec::new(),
            links: links.then(HashMap::new),
            cut: 0,
            file: 0,
        }
    }

    /// Everything below a directory, whose own node comes first if it has one.
    pub(super) async fn directory(
        mut self,
        node: Option<Box<Node>>,
        tree: Option<TreeRef>,
        path: Vec<u8>,
    ) -> Result<(), Error> {
        self.cut = path.len() + 1;
        let root = choose_root(self.filter, &path);
        if let Some(node) = node
            && self.is_saved(&path, &node)
        {
            self.enter((0, root), Entry::new(&path, self.cut, node)).await?;
        }
        // One choice a level; the walk says by its path how deep it is.
        let mut choices = vec![root];
        let mut walk = TreeWalk::new(tree, path);
        while let Some(step) = walk.next(&mut self.reader).await? {
            if self.cancel.is_raised() {
                return Err(Error::Cancelled);
            }
            let node = match step {
                TreeStep::Node(node) => node,
                TreeStep::Damaged(error) => {
                    let path = if walk.path().is_empty() { b"/" } else { walk.path() };
                    self.run.report_damaged(path, &error);
                    continue;
                }
            };
            let depth = walk.depth();
            choices.truncate(depth);
            while self.leading.pop_if(|above| above.depth >= depth).is_some() {}
            if !is_plain(&node.name) {
                self.run.report(walk.path(), Flaw::UnsafeName.into());
                continue;
            }
            let is_dir = node.kind == NodeKind::Directory;
            let above = choices.last().copied().unwrap_or(Choice::Out);
            let choice = choose(self.filter, walk.path(), is_dir, above);
            if choice == Choice::Out || !self.is_saved(walk.path(), &node) {
                continue;
            }
            if is_dir {
                walk.enter(&node);
                choices.push(choice);
            }
            let entry = Entry::new(walk.path(), self.cut, node);
            match is_dir {
                true => self.enter((depth, choice), entry).await?,
                false => self.put(entry).await?,
            }
        }
        self.finish().await
    }

    /// A single entry, which stands at `path`.
    pub(super) async fn single(mut self, node: Box<Node>, path: Vec<u8>) -> Result<(), Error> {
        self.cut = path.len() - node.name.len().min(path.len());
        if !is_plain(&node.name) {
            self.run.report(&path, Flaw::UnsafeName.into());
        } else if self.is_saved(&path, &node) {
            self.put(Entry::new(&path, self.cut, node)).await?;
        }
        self.finish().await
    }

    /// Whether there is something to restore of an entry.
    fn is_saved(&self, path: &[u8], node: &Node) -> bool {
        match node.problem {
            Some(NodeProblem::Unreadable) => {
                self.run.report(path, Flaw::Unsaved.into());
                return false;
            }
            Some(NodeProblem::Changed) => self.run.warn(path, Flaw::ChangedThen.into()),
            None => {}
        }
        true
    }

    /// A directory: now, or when something in it comes.
    async fn enter(&mut self, (depth, choice): (usize, Choice), entry: Entry) -> Result<(), Error> {
        if choice == Choice::In {
            self.put_leading(entry.path()).await?;
            return self.push(entry.weight(), Step::Entry(entry)).await;
        }
        self.leading.push(Leading { depth, len: entry.path().len(), node: entry.node });
        Ok(())
    }

    /// The directories that lead to what comes next, which stands at `path`.
    async fn put_leading(&mut self, path: &[u8]) -> Result<(), Error> {
        for Leading { len, node, .. } in std::mem::take(&mut self.leading) {
            let entry = Entry::new(path.get(..len).unwrap_or(path), self.cut, node);
            self.push(entry.weight(), Step::Entry(entry)).await?;
        }
        Ok(())
    }

    /// Anything but a directory.
    async fn put(&mut self, entry: Entry) -> Result<(), Error> {
        match entry.node.kind {
            NodeKind::Socket => {
                self.run.report(entry.path(), Problem::Socket);
                return Ok(());
            }
            NodeKind::Directory | NodeKind::Unknown => {
                self.run.report(entry.path(), Flaw::Unsaved.into());
                return Ok(());
            }
            _ => {}
        }
        self.put_leading(entry.path()).await?;
        let Some(entry) = self.link(entry).await? else { return Ok(()) };
        match entry.node.kind {
            NodeKind::File => self.file(entry).await,
            _ => self.push(entry.weight(), Step::Entry(entry)).await,
        }
    }

    /// Makes a further name of a file a link; gives back what is none.
    async fn link(&mut self, entry: Entry) -> Result<Option<Entry>, Error> {
        let (Some(links), Some(number)) = (&mut self.links, entry.node.hard_link) else {
            return Ok(Some(entry));
        };
        let content = content_of(&entry.node);
        match links.get(&number) {
            // If the content differs, whoever wrote the snapshot erred: these are different files.
            Some(first) if first.content == content => {
                let name = first.name.clone();
                self.push(entry.weight(), Step::Link(entry, name)).await?;
                Ok(None)
            }
            Some(_) => Ok(Some(entry)),
            None => {
                links.insert(number, FirstName { content, name: entry.name().into() });
                Ok(Some(entry))
            }
        }
    }

    async fn file(&mut self, mut entry: Entry) -> Result<(), Error> {
        let content = std::mem::replace(&mut entry.node.content, NodeContent::Inline(Vec::new()));
        let layout = Layout::new(entry.node.size, &entry.node.holes);
        let has_holes = !entry.node.holes.is_empty();
        self.file += 1;
        self.push(entry.weight(), Step::Begin(entry)).await?;
        let listed = match &content {
            NodeContent::Inline(rows) => Some(rows.iter().map(|row| u64::from(row.len)).sum()),
            NodeContent::Paged(_) => None,
        };
        let problem = match layout {
            Some((layout, len)) if listed.is_none_or(|listed: u64| listed == len) => {
                let layout = has_holes.then(|| Arc::new(layout));
                self.rows(ContentRows::new(content), layout, len).await?
            }
            _ => Some(Flaw::Size.into()),
        };
        self.push(0, problem.map_or(Step::End, Step::Lost)).await
    }

    /// The content of a file; says what is wrong with its list.
    async fn rows(
        &mut self,
        mut rows: ContentRows,
        layout: Option<Arc<Layout>>,
        len: u64,
    ) -> Result<Option<Problem>, Error> {
        let mut at = 0;
        loop {
            let row = match rows.next_here() {
                Some(row) => Some(row),
                None => match rows.next(&mut self.reader).await {
                    Ok(row) => row,
                    Err(error) if is_local_damage(&error) => return Ok(Some(Flaw::Lost.into())),
                    Err(error) => return Err(error),
                },
            };
            let Some(row) = row else { break };
            if u64::from(row.len) > len - at {
                return Ok(Some(Flaw::Size.into()));
            }
            if self.run.is_given_up(self.file) {
                // Whoever gave it up has said why.
                return Ok(None);
            }
            let chunk = self.chunk(row).await?;
            self.add(at, &layout, chunk);
            at += u64::from(row.len);
            self.flush_if_full(row.len as usize).await?;
            if self.cancel.is_raised() {
                return Err(Error::Cancelled);
            }
        }
        Ok((at != len).then_some(Flaw::Size.into()))
    }

    /// Adds a chunk to the content that is under way in this batch, or begins one.
    fn add(&mut self, at: u64, layout: &Option<Arc<Layout>>, chunk: Chunk) {
        match self.batch.last_mut() {
            Some(Step::Content(content)) => content.chunks.push(chunk),
            _ => {
                let content = Content { at, layout: layout.clone(), chunks: vec![chunk] };
                self.batch.push(Step::Content(content));
            }
        }
    }

    /// Where a chunk is read. Waits for room; what was begun goes on its way before that, because only what is written gives
    /// room back.
    async fn chunk(&mut self, row: ChunkRow) -> Result<Chunk, Error> {
        loop {
            match self.segments.find(&row).await? {
                Found::In(cell, copy) => return Ok(Chunk::new(row, Some((cell, copy)))),
                Found::Nowhere => return Ok(Chunk::new(row, None)),
                Found::NoRoom => {
                    self.flush().await?;
                    self.segments.send();
                    self.run.released.notified().await;
                }
            }
        }
    }

    async fn push(&mut self, weight: usize, step: Step) -> Result<(), Error> {
        self.batch.push(step);
        self.flush_if_full(weight).await
    }

    async fn flush_if_full(&mut self, weight: usize) -> Result<(), Error> {
        self.bytes += weight;
        if self.bytes >= BATCH_BYTES || self.batch.len() >= BATCH_STEPS { self.flush().await } else { Ok(()) }
    }

    async fn flush(&mut self) -> Result<(), Error> {
        self.bytes = 0;
        self.segments.renew_view();
        if self.batch.is_empty() {
            return Ok(());
        }
        if self.batches.capacity() == 0 {
            // What waits there may need what is not yet asked for.
            self.segments.send();
        }
        // Nobody takes it any more only if the run ends early.
        let _ = self.batches.send(std::mem::take(&mut self.batch)).await;
        Ok(())
    }

    async fn finish(mut self) -> Result<(), Error> {
        self.segments.send();
        self.flush().await
    }
}

/// Whether a name leads nowhere but into its directory.
fn is_plain(name: &[u8]) -> bool {
    !matches!(name, b"" | b"." | b"..") && !name.iter().any(|byte| matches!(byte, b'/' | 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_lead_elsewhere_are_told() {
        for bad in [&b""[..], b".", b"..", b"/", b"a/b", b"/etc", b"../x", b"a\0b"] {
            assert!(!is_plain(bad), "{}", bad.escape_ascii());
        }
        for good in [&b"a"[..], b"...", b" ", b"\xff", b"a\\..\\b", b"-rf", b"\n"] {
            assert!(is_plain(good), "{}", good.escape_ascii());
        }
    }
}
