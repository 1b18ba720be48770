//! What stands behind each number, and the answers to what the kernel asks.
//!
//! # Invariants
//! An answer is right or an error. Nothing is remembered for the kernel but numbers: whatever is open is found again by its
//! number, and what is read of it is kept only while there is room.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fuser::{Errno, FileAttr, FileType};
use tokio::sync::mpsc::UnboundedSender;

use super::attr::{self, Unfit};
use super::bare::Bare;
use super::dirs::{self, Spot};
use super::files::{Bytes, File, Files};
use super::inodes::{GENERATION, Ino, Inodes, PageRecord, ROOT, ROWS_MAX};
use super::layout::{Dir, Entry as Member, Layout};
use super::pages::Pages;
use super::segments::Wish;
use super::shelf::Shelf;
use super::told::Told;
use super::virtuals::{Place, Virtuals};
use crate::error::Error;
use crate::format::FormatError;
use crate::format::node::{FileTime, Node, NodeKind, Problem};
use crate::format::tree::TreeRef;
use crate::ops::restore::content_of;
use crate::ops::tree::{Lookup, damaged_page};

/// How long the kernel may believe what cannot change, and what can.
pub(super) const FOREVER: Duration = Duration::from_secs(24 * 3600);
pub(super) const BRIEFLY: Duration = Duration::from_secs(1);
/// Directories in each other: of each above one that is used the number is known.
const DEPTH_MAX: u32 = 50_000;
/// The longest target of a link that the system takes.
const TARGET_MAX: usize = 4095;

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Fault {
    /// The kernel asked for what is not there.
    Errno(Errno),
    /// The entry cannot be shown, or not be read.
    Unfit(Unfit),
    /// It could not be read.
    Failed(Error),
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// What is mounted.
pub(super) enum Root<'a> {
    /// All snapshots.
    Shelf(Box<Shelf<'a>>),
    /// One directory.
    Tree(Box<Node>),
}

/// What a number stands for.
pub(super) enum Object {
    /// What no snapshot holds.
    Virtual(Place),
    /// An entry of a snapshot.
    Entry(Entry),
}

/// An entry of a snapshot, or the directory in which its tree is shown.
pub(super) struct Entry {
    pub(super) ino: u64,
    pub(super) node: Box<Node>,
    /// The directory it is in.
    pub(super) dir: u64,
    /// The directory in which the tree is shown.
    pub(super) top: u64,
    /// How many directories lie above it, up to there.
    pub(super) depth: u32,
}

impl Entry {
    /// The tree of a directory.
    pub(super) fn tree(&self) -> Result<Option<TreeRef>, Fault> {
        if self.depth < DEPTH_MAX { Ok(self.node.tree) } else { Err(Fault::Errno(Errno::ELOOP)) }
    }
}

pub(super) struct Server<'a> {
    pub(super) root: Root<'a>,
    pub(super) pages: Pages<'a>,
    files: Files<'a>,
    inodes: Mutex<Inodes>,
    virtuals: Mutex<Virtuals>,
    pub(super) bare: Arc<Bare>,
    pub(super) told: Told,
    pub(super) owner: (u32, u32),
    /// When it was mounted, nanoseconds since 1970.
    pub(super) since: i64,
}

impl<'a> Server<'a> {
    /// Whoever listens to `wishes` calls [`Self::grant`] for each.
    pub(super) fn new(
        lookup: &'a Lookup<'a>,
        root: Root<'a>,
        told: Told,
        wishes: UnboundedSender<Wish>,
    ) -> Result<Self, Error> {
        let owner = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
        Ok(Self {
            root,
            pages: Pages::new(lookup),
            files: Files::new(lookup, wishes)?,
            inodes: Mutex::new(Inodes::new(GENERATION)),
            virtuals: Mutex::default(),
            bare: Arc::new(Bare::new()),
            told,
            owner,
            since: lookup.repo().env().clock.now().0,
        })
    }

    pub(super) fn inodes(&self) -> MutexGuard<'_, Inodes> {
        self.inodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn virtuals(&self) -> MutexGuard<'_, Virtuals> {
        self.virtuals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a segment ahead of its reader.
    pub(super) async fn grant(&self, wish: Wish) {
        self.files.grant(wish).await;
    }

    /// What a number stands for.
    pub(super) async fn object(&self, ino: u64) -> Result<Object, Fault> {
        let stale = || Fault::Errno(Errno::ESTALE);
        match Ino::parse(ino) {
            Ino::Root => match &self.root {
                Root::Shelf(_) => Ok(Object::Virtual(Place::Dir(Dir::Root))),
                Root::Tree(node) => {
                    Ok(Object::Entry(Entry { ino, node: node.clone(), dir: ROOT, top: ROOT, depth: 0 }))
                }
            },
            Ino::Virtual(number) => {
                let place = self.virtuals().place(number).cloned().ok_or_else(stale)?;
                match &place {
                    Place::Snapshot(..) => {
                        let node = self.top(&place).ok_or_else(stale)?;
                        let dir = self.virtuals().number(&place.parent());
                        Ok(Object::Entry(Entry { ino, node: node.into(), dir, top: ino, depth: 0 }))
                    }
                    _ => Ok(Object::Virtual(place)),
                }
            }
            Ino::Link(number) => {
                let row = self.inodes().linked(number).ok_or_else(stale)?;
                let entry = self.row(row).await?;
                Ok(Object::Entry(Entry { ino, ..entry }))
            }
            Ino::Row { .. } => self.row(ino).await.map(Object::Entry),
        }
    }

    async fn row(&self, ino: u64) -> Result<Entry, Fault> {
        let stale = || Fault::Errno(Errno::ESTALE);
        let Ino::Row { page, row } = Ino::parse(ino) else { return Err(stale()) };
        let PageRecord { dir, top, depth, page } = self.inodes().record(page).ok_or_else(stale)?;
        let leaf = self.pages.leaf(page).await?;
        let node = leaf.node(row).ok_or_else(stale)?;
        let node = node.map_err(|rule| damaged_page(&page.id, rule))?;
        Ok(Entry { ino, node: node.into(), dir, top, depth })
    }

    /// The directory in which a snapshot is shown, if it is.
    fn top(&self, place: &Place) -> Option<Node> {
        let (Place::Snapshot(_, id), Root::Shelf(shelf)) = (place, &self.root) else { return None };
        let (tree, time) = shelf.layout().snapshot(id)?;
        let mut node = Node::new(id.short().into_bytes(), NodeKind::Directory);
        node.mode = 0o555;
        (node.uid, node.gid) = self.owner;
        let (seconds, nanos) = (time.div_euclid(1_000_000_000), time.rem_euclid(1_000_000_000));
        node.mtime = FileTime { seconds, nanos: nanos as u32 };
        node.tree = tree;
        Some(node)
    }

    /// The number of a page of a directory.
    pub(super) fn page(&self, dir: &Entry, page: TreeRef) -> u64 {
        self.inodes().page(PageRecord { dir: dir.ino, top: dir.top, depth: dir.depth + 1, page })
    }

    /// The number of an entry of a directory.
    pub(super) fn number(&self, dir: &Entry, spot: &Spot, node: &Node) -> Result<u64, Unfit> {
        if spot.row >= ROWS_MAX {
            return Err(Unfit::Crowded);
        }
        let page = self.page(dir, spot.page);
        let row = Ino::Row { page, row: spot.row }.number();
        match node.hard_link {
            Some(number) if node.kind != NodeKind::Directory => {
                // Names that do not agree are names of different files.
                let mut hasher = blake3::Hasher::new();
                hasher.update(&dir.top.to_le_bytes()).update(&number).update(&content_of(node));
                let mut common = [0; 16];
                common.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
                Ok(self.inodes().link(common, row))
            }
            _ => Ok(row),
        }
    }

    /// Attributes of a member of a directory that no snapshot holds.
    pub(super) fn member(&self, dir: &Dir, member: &Member) -> Result<FileAttr, Fault> {
        let place = match member {
            Member::Dir(dir) => Place::Dir(dir.clone()),
            Member::Snapshot(id) => Place::Snapshot(dir.clone(), *id),
            Member::Latest(_) => Place::Latest(dir.clone()),
        };
        self.virtual_attr(&place)
    }

    fn virtual_attr(&self, place: &Place) -> Result<FileAttr, Fault> {
        let ino = self.virtuals().number(place);
        let gone = Fault::Errno(Errno::ENOENT);
        match place {
            Place::Snapshot(..) => {
                let node = self.top(place).ok_or(gone)?;
                attr::of_node(&node, ino).map_err(Fault::Unfit)
            }
            Place::Dir(_) => Ok(attr::virtual_attr(ino, FileType::Directory, (self.since, 0), self.owner)),
            Place::Latest(dir) => {
                let len = self.latest(dir).ok_or(gone)?.len();
                Ok(attr::virtual_attr(ino, FileType::Symlink, (self.since, len), self.owner))
            }
        }
    }

    pub(super) fn layout(&self) -> Option<Arc<Layout>> {
        match &self.root {
            Root::Shelf(shelf) => Some(shelf.layout()),
            Root::Tree(_) => None,
        }
    }

    /// Where the link in a directory leads to.
    fn latest(&self, dir: &Dir) -> Option<Vec<u8>> {
        let layout = self.layout()?;
        layout.entries(dir)?.values().find_map(|member| match member {
            Member::Latest(target) => Some(target.clone()),
            _ => None,
        })
    }

    /// An entry by its name.
    pub(super) async fn lookup(&self, parent: u64, name: &[u8]) -> Result<(FileAttr, Duration), Fault> {
        let none = || Fault::Errno(Errno::ENOENT);
        match self.object(parent).await? {
            Object::Virtual(Place::Dir(dir)) => {
                let Root::Shelf(shelf) = &self.root else { return Err(none()) };
                let layout = shelf.look().await;
                let member = layout.entries(&dir).and_then(|members| members.get(name)).ok_or_else(none)?;
                Ok((self.member(&dir, member)?, BRIEFLY))
            }
            Object::Entry(entry) if entry.node.kind == NodeKind::Directory => {
                let tree = entry.tree()?.ok_or_else(none)?;
                let spot = dirs::find(&self.pages, tree, name).await?.ok_or_else(none)?;
                let node = spot.leaf.node(spot.row).ok_or_else(none)?;
                let node = node.map_err(|rule| damaged_page(&spot.page.id, rule))?;
                let ino = self.number(&entry, &spot, &node).map_err(Fault::Unfit)?;
                let found = attr::attr(&node, ino).map_err(Fault::Unfit)?;
                self.bare.note(ino, &node);
                Ok((found, FOREVER))
            }
            _ => Err(Fault::Errno(Errno::ENOTDIR)),
        }
    }

    /// The attributes of an entry.
    pub(super) async fn attr(&self, ino: u64) -> Result<(FileAttr, Duration), Fault> {
        match self.object(ino).await? {
            Object::Virtual(place) => Ok((self.virtual_attr(&place)?, BRIEFLY)),
            Object::Entry(entry) => {
                let found = attr::of_node(&entry.node, ino).map_err(Fault::Unfit)?;
                Ok((found, FOREVER))
            }
        }
    }

    /// Where a symbolic link leads to.
    pub(super) async fn target(&self, ino: u64) -> Result<Vec<u8>, Fault> {
        match self.object(ino).await? {
            Object::Virtual(Place::Latest(dir)) => self.latest(&dir).ok_or(Fault::Errno(Errno::ENOENT)),
            Object::Entry(Entry { node, .. }) if node.kind == NodeKind::Symlink => {
                if node.target.is_empty() || node.target.len() > TARGET_MAX || node.target.contains(&0) {
                    let rule = FormatError::Value { section: "6", what: "link target" };
                    let key = "the target of the link".to_owned();
                    return Err(Error::Damaged { key, rule }.into());
                }
                Ok(node.target)
            }
            _ => Err(Fault::Errno(Errno::EINVAL)),
        }
    }

    /// Whether something can be opened.
    pub(super) async fn open(&self, ino: u64) -> Result<(), Fault> {
        if self.files.known(ino).is_some() {
            return Ok(());
        }
        match self.object(ino).await? {
            Object::Entry(Entry { node, .. }) if node.problem == Some(Problem::Unreadable) => {
                Err(Fault::Unfit(Unfit::Unsaved))
            }
            Object::Entry(entry) if entry.node.kind == NodeKind::File => {
                self.keep(entry)?;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn keep(&self, entry: Entry) -> Result<Arc<File>, Fault> {
        if entry.node.problem == Some(Problem::Unreadable) {
            return Err(Fault::Unfit(Unfit::Unsaved));
        }
        let file = File::new(*entry.node).map_err(Fault::Unfit)?;
        Ok(self.files.keep(entry.ino, file))
    }

    async fn file(&self, ino: u64) -> Result<Arc<File>, Fault> {
        if let Some(file) = self.files.known(ino) {
            return Ok(file);
        }
        match self.object(ino).await? {
            Object::Entry(entry) if entry.node.kind == NodeKind::File => self.keep(entry),
            _ => Err(Fault::Errno(Errno::EINVAL)),
        }
    }

    /// Bytes of a file, fewer only at its end.
    pub(super) async fn read(&self, ino: u64, offset: u64, len: u32) -> Result<Bytes, Fault> {
        let file = self.file(ino).await?;
        self.files.read(&self.pages, &file, (offset, len)).await
    }

    /// Where content, or a hole, begins at or behind an offset.
    pub(super) async fn seek(&self, ino: u64, offset: i64, whence: i32) -> Result<i64, Fault> {
        let file = self.file(ino).await?;
        let beyond = || Fault::Errno(Errno::ENXIO);
        let offset = u64::try_from(offset).map_err(|_| beyond())?;
        let found = match whence {
            libc::SEEK_DATA => file.extents().seek_data(offset),
            libc::SEEK_HOLE => file.extents().seek_hole(offset),
            _ => return Err(Fault::Errno(Errno::EINVAL)),
        };
        found.and_then(|found| i64::try_from(found).ok()).ok_or_else(beyond)
    }

    /// The value of an extended attribute.
    pub(super) async fn xattr(&self, ino: u64, name: &[u8]) -> Result<Vec<u8>, Fault> {
        let none = Fault::Errno(Errno::ENODATA);
        match self.object(ino).await? {
            Object::Virtual(_) => Err(none),
            Object::Entry(entry) => attr::xattr(&entry.node, name).map(<[u8]>::to_vec).ok_or(none),
        }
    }

    /// The names of all extended attributes, each with a zero behind it.
    pub(super) async fn xattrs(&self, ino: u64) -> Result<Vec<u8>, Fault> {
        Ok(match self.object(ino).await? {
            Object::Virtual(_) => Vec::new(),
            Object::Entry(entry) => attr::xattr_names(&entry.node),
        })
    }
}
