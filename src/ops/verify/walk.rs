//! Walking the trees of all snapshots: every page is read once, every chunk it names is looked up.
//!
//! # Invariants
//! A page below which all is well is entered once, however many snapshots share it. A page with damage below it is
//! entered again from each snapshot, so that each affected path is known, until there is more damage than anyone reads.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::finding::{BadPack, Finding, Impact, Problem, pack_key};
use super::read::{is_fatal, note_second_read};
use super::survey::{Root, Survey};
use crate::error::Error;
use crate::format::FormatError;
use crate::format::content::{self, ChunkRow, Content, ListPage};
use crate::format::envelope::ChunkKind;
use crate::format::layout::ObjectName;
use crate::format::node::{Node, NodeKind, Problem as NodeProblem};
use crate::format::tree::Page;
use crate::id::{ChunkId, PackId, SnapshotId};
use crate::index::{IndexError, View};
use crate::repo::{ChunkReader, RepoError, Repository};

/// Most problems that are listed one by one.
const LISTED_MAX: usize = 1000;
/// Opened segments that are kept: pages of one snapshot lie side by side.
const SEGMENTS_KEPT: usize = 4;
/// After so many affected paths damaged pages are entered once, as others are.
const IMPACT_MAX: u64 = 100_000;

/// What the walk found.
#[derive(Default)]
pub(super) struct Walked {
    /// Snapshots that were walked.
    pub(super) snapshots: u64,
    /// Packs whose loss or damage hits a snapshot.
    pub(super) packs: HashMap<PackId, Impact>,
    /// Whether any page could be read.
    pub(super) read: bool,
    problems: BTreeMap<(ChunkId, &'static str), (String, Problem, Impact)>,
    more: (u64, Impact),
    hits: u64,
}

impl Walked {
    /// The findings beside those about packs.
    pub(super) fn findings(&mut self) -> Vec<Finding> {
        let mut findings = Vec::new();
        for (key, problem, impact) in std::mem::take(&mut self.problems).into_values() {
            let mut finding = Finding::warning(key, problem);
            finding.hit(impact);
            findings.push(finding);
        }
        let (count, impact) = std::mem::take(&mut self.more);
        if count > 0 {
            let mut finding = Finding::warning("snapshots", Problem::More { count });
            finding.hit(impact);
            findings.push(finding);
        }
        findings
    }
}

/// A page still to be entered.
struct Item {
    kind: PageKind,
    level: u8,
    id: ChunkId,
    len: u32,
    /// The name it adds to the path; empty inside one directory or file.
    name: Vec<u8>,
}

#[derive(Clone, Copy)]
enum PageKind {
    Tree,
    /// What the page's parent promises of it.
    List {
        rows: u64,
        bytes: u64,
    },
}

/// A page that was entered and not left.
struct Frame {
    key: u128,
    name: Vec<u8>,
    items: std::vec::IntoIter<Item>,
    dirty: bool,
}

enum Status {
    Held,
    /// Every copy is in a pack that is missing or damaged.
    Lost(PackId),
    Unknown,
    Differs,
}

pub(super) struct Walker<'a> {
    repo: &'a Repository,
    reader: ChunkReader<'a>,
    promised: &'a View,
    bad: &'a HashMap<PackId, BadPack>,
    clean: HashSet<u128>,
    frames: Vec<Frame>,
    root: Root,
    walked: Walked,
}

/// Walks all snapshots of the survey; `bad` packs count as lost.
pub(super) async fn walk(
    repo: &Repository,
    survey: &Survey,
    bad: &HashMap<PackId, BadPack>,
) -> Result<Walked, Error> {
    let Some(first) = survey.snapshots.first() else { return Ok(Walked::default()) };
    let mut walker = Walker {
        repo,
        reader: ChunkReader::new(repo, survey.view.clone())?.keeping(SEGMENTS_KEPT),
        promised: &survey.promised,
        bad,
        clean: HashSet::new(),
        frames: Vec::new(),
        root: first.clone(),
        walked: Walked::default(),
    };
    for root in &survey.snapshots {
        walker.snapshot(root).await?;
    }
    Ok(walker.walked)
}

impl Walker<'_> {
    async fn snapshot(&mut self, root: &Root) -> Result<(), Error> {
        self.root = root.clone();
        self.walked.snapshots += 1;
        let Some(tree) = root.tree else { return Ok(()) };
        let item =
            Item { kind: PageKind::Tree, level: tree.level, id: tree.id, len: tree.len, name: Vec::new() };
        self.enter(item).await?;
        while let Some(frame) = self.frames.last_mut() {
            match frame.items.next() {
                Some(item) => self.enter(item).await?,
                None => self.leave(),
            }
        }
        Ok(())
    }

    /// Reads a page unless it is known to be well, and stays in it if there are pages below.
    async fn enter(&mut self, item: Item) -> Result<(), Error> {
        if self.repo.env().cancel.is_raised() {
            return Err(Error::Cancelled);
        }
        let key = item.key();
        match self.status(ChunkKind::Tree, &item.id, item.len)? {
            Status::Held if self.clean.contains(&key) => return Ok(()),
            Status::Held => {}
            status => {
                self.push(key, &item);
                self.note_chunk(&status, &item.id, &[]);
                self.leave();
                return Ok(());
            }
        }
        let read = self.read(&item.id).await?;
        self.push(key, &item);
        let entered = read.and_then(|page| self.look(&item, &page));
        match entered {
            Ok(items) => {
                if let Some(frame) = self.frames.last_mut() {
                    frame.items = items.into_iter();
                }
            }
            Err(error) if is_fatal(&error) => return Err(error.into()),
            Err(error) => {
                let key = self.key_of(&item.id)?;
                let chunk = item.id;
                self.note((chunk, "page"), (key, Problem::Page { chunk, error }), &[]);
            }
        }
        Ok(())
    }

    fn push(&mut self, key: u128, item: &Item) {
        let items = Vec::new().into_iter();
        self.frames.push(Frame { key, name: item.name.clone(), items, dirty: false });
    }

    fn leave(&mut self) {
        let Some(frame) = self.frames.pop() else { return };
        if !frame.dirty || self.walked.hits > IMPACT_MAX {
            self.clean.insert(frame.key);
        }
        if let Some(parent) = self.frames.last_mut() {
            parent.dirty |= frame.dirty;
        }
    }

    /// Reads a page, twice if need be.
    async fn read(&mut self, id: &ChunkId) -> Result<Result<Vec<u8>, RepoError>, Error> {
        for second in [false, true] {
            match self.reader.read(ChunkKind::Tree, id).await {
                Ok(Some(page)) => {
                    self.walked.read = true;
                    if second {
                        note_second_read(&*self.repo.env().observer, &self.key_of(id)?);
                    }
                    return Ok(Ok(page));
                }
                Ok(None) => break,
                Err(error) if is_fatal(&error) => return Err(error.into()),
                Err(error) if second => return Ok(Err(error)),
                Err(_) => {}
            }
        }
        Ok(Err(FormatError::Truncated.into()))
    }

    /// Goes through a page; gives the pages below it.
    fn look(&mut self, item: &Item, page: &[u8]) -> Result<Vec<Item>, RepoError> {
        match item.kind {
            PageKind::Tree => match Page::decode(page, item.level)? {
                Page::Nodes(nodes) => self.nodes(&nodes),
                Page::Pages(rows) => {
                    let below = |row: crate::format::tree::PageRow| Item {
                        kind: PageKind::Tree,
                        level: item.level - 1,
                        id: row.id,
                        len: row.len,
                        name: Vec::new(),
                    };
                    Ok(rows.into_iter().map(below).collect())
                }
            },
            PageKind::List { rows, bytes } => self.list(item, (rows, bytes), page),
        }
    }

    fn list(&mut self, item: &Item, promised: (u64, u64), page: &[u8]) -> Result<Vec<Item>, RepoError> {
        if item.level > content::LEVELS_MAX {
            return Err(FormatError::Value { section: "7", what: "level of a list page" }.into());
        }
        let (found, items) = match (ListPage::decode(page)?, item.level) {
            (ListPage::Rows(rows), 0) => {
                self.rows(&rows, &[])?;
                let bytes = rows.iter().map(|row| u64::from(row.len)).sum();
                ((rows.len() as u64, bytes), Vec::new())
            }
            (ListPage::Pages(pages), 1..) => {
                let sum = pages.iter().fold((0_u64, 0_u64), |(rows, bytes), page| {
                    (rows.saturating_add(page.rows), bytes.saturating_add(page.bytes))
                });
                let below = |page: content::PageRow| Item {
                    kind: PageKind::List { rows: page.rows, bytes: page.bytes },
                    level: item.level - 1,
                    id: page.id,
                    len: page.len,
                    name: Vec::new(),
                };
                (sum, pages.into_iter().map(below).collect())
            }
            _ => return Err(FormatError::Value { section: "7", what: "level of a list page" }.into()),
        };
        if found == promised {
            Ok(items)
        } else {
            Err(FormatError::Value { section: "7", what: "length of the chunk list" }.into())
        }
    }

    fn nodes(&mut self, nodes: &[&[u8]]) -> Result<Vec<Item>, RepoError> {
        let mut items = Vec::new();
        let mut last: Option<Vec<u8>> = None;
        for bytes in nodes {
            let node = Node::decode(bytes)?;
            if let Some(what) = wrong(&node, last.as_deref()) {
                let snapshot = ChunkId::new(*self.root.listed.id.as_bytes());
                self.note((snapshot, what), (self.snapshot_key(), Problem::Entry { what }), &node.name);
            }
            match (&node.content, &node.tree) {
                (_, Some(tree)) if node.kind == NodeKind::Directory => items.push(Item {
                    kind: PageKind::Tree,
                    level: tree.level,
                    id: tree.id,
                    len: tree.len,
                    name: node.name.clone(),
                }),
                (Content::Paged(list), _) => items.push(Item {
                    kind: PageKind::List { rows: list.rows, bytes: stored_bytes(&node) },
                    level: list.level,
                    id: list.id,
                    len: list.len,
                    name: node.name.clone(),
                }),
                (Content::Inline(rows), _) => self.rows(rows, &node.name)?,
            }
            last = Some(node.name);
        }
        Ok(items)
    }

    /// Looks up the chunks of a file.
    fn rows(&mut self, rows: &[ChunkRow], name: &[u8]) -> Result<(), RepoError> {
        for row in rows {
            let status = self.status(ChunkKind::Data, &row.id, row.len)?;
            if !matches!(status, Status::Held) {
                self.note_chunk(&status, &row.id, name);
            }
        }
        Ok(())
    }

    fn status(&self, kind: ChunkKind, id: &ChunkId, len: u32) -> Result<Status, IndexError> {
        let mut status = Status::Unknown;
        for location in self.promised.locate(id) {
            let location = location?;
            if location.pack_kind != kind || location.length != len {
                if matches!(status, Status::Unknown) {
                    status = Status::Differs;
                }
                continue;
            }
            let held = match self.bad.get(&location.pack_id) {
                None => true,
                Some(BadPack::Whole) => false,
                Some(BadPack::Segments(bad)) => bad.binary_search(&location.segment_number).is_err(),
            };
            if held {
                return Ok(Status::Held);
            }
            status = Status::Lost(location.pack_id);
        }
        Ok(status)
    }

    fn note_chunk(&mut self, status: &Status, chunk: &ChunkId, name: &[u8]) {
        let chunk = *chunk;
        match status {
            Status::Held => {}
            Status::Lost(pack) => {
                let (snapshot, confirmed) = self.mark();
                let path = self.path(name);
                self.walked.packs.entry(*pack).or_default().add(snapshot, || path, confirmed);
            }
            Status::Unknown => {
                self.note((chunk, "unknown"), (self.snapshot_key(), Problem::ChunkUnknown { chunk }), name);
            }
            Status::Differs => {
                self.note((chunk, "differs"), (self.snapshot_key(), Problem::ChunkDiffers { chunk }), name);
            }
        }
    }

    fn note(&mut self, place: (ChunkId, &'static str), (key, problem): (String, Problem), name: &[u8]) {
        let (snapshot, confirmed) = self.mark();
        let path = self.path(name);
        let full = self.walked.problems.len() >= LISTED_MAX;
        let impact = match self.walked.problems.get_mut(&place) {
            Some((.., impact)) => impact,
            None if full => {
                self.walked.more.0 += 1;
                &mut self.walked.more.1
            }
            None => &mut self.walked.problems.entry(place).or_insert((key, problem, Impact::default())).2,
        };
        impact.add(snapshot, || path, confirmed);
    }

    /// The page that is being looked at, and all above it, are not well.
    fn mark(&mut self) -> (SnapshotId, bool) {
        self.walked.hits += 1;
        if let Some(frame) = self.frames.last_mut() {
            frame.dirty = true;
        }
        (self.root.listed.id, self.root.listed.confirmed)
    }

    fn path(&self, name: &[u8]) -> Vec<u8> {
        let names = self.frames.iter().map(|frame| &frame.name[..]).chain([name]);
        let mut path = Vec::new();
        for name in names.filter(|name| !name.is_empty()) {
            path.push(b'/');
            path.extend_from_slice(name);
        }
        path
    }

    fn snapshot_key(&self) -> String {
        let listed = &self.root.listed;
        ObjectName::Snapshot(listed.writer, listed.sequence, listed.id).key()
    }

    /// The object that a page is in.
    fn key_of(&self, id: &ChunkId) -> Result<String, IndexError> {
        let location = self.promised.locate(id).next().transpose()?;
        Ok(location.map_or_else(|| self.snapshot_key(), |location| pack_key(location.pack_id)))
    }
}

impl Item {
    /// Names the page, how it is read and what is promised of it: one chunk could be referred to in several ways, and only one
    /// of them be right.
    fn key(&self) -> u128 {
        let promise = match self.kind {
            PageKind::Tree => 0,
            PageKind::List { rows, bytes } => {
                let mut promise = [0; 16];
                promise[..8].copy_from_slice(&rows.to_le_bytes());
                promise[8..].copy_from_slice(&bytes.to_le_bytes());
                let hash = blake3::hash(&promise);
                hash.as_bytes().first_chunk().map_or(0, |half| u128::from_le_bytes(*half))
            }
        };
        u128::from_le_bytes(self.id.prefix()) ^ u128::from(self.level) ^ promise
    }
}

/// Bytes of a file that are in chunks.
fn stored_bytes(node: &Node) -> u64 {
    let holes: u64 = node.holes.iter().map(|(_, len)| *len).fold(0, u64::saturating_add);
    node.size.saturating_sub(holes)
}

/// The rule that an entry breaks, if it does.
fn wrong(node: &Node, last: Option<&[u8]>) -> Option<&'static str> {
    let name = &node.name[..];
    if name == b"." || name == b".." || name.contains(&b'/') || name.contains(&0) {
        return Some("has a name that no file can have");
    }
    if last.is_some_and(|last| last >= name) {
        return Some("is out of order");
    }
    let Content::Inline(rows) = &node.content else {
        return (node.kind != NodeKind::File).then_some("has content and is no file");
    };
    if !rows.is_empty() && node.kind != NodeKind::File {
        return Some("has content and is no file");
    }
    let bytes: u64 = rows.iter().map(|row| u64::from(row.len)).sum();
    let whole = node.kind != NodeKind::File || node.problem == Some(NodeProblem::Unreadable);
    (!whole && bytes != stored_bytes(node)).then_some("has content of another length than its size")
}
