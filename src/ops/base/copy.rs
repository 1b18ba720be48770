//! The copy of a data directory: read in order, each page held against its checksum, each file summed for the manifest.
//!
//! # Invariants
//! A file is saved with the size it had when it was opened: what was cut off meanwhile becomes zeroes, what was appended is left
//! out, and recovery repeats both from the log. Memory does not grow with the number of files.

use std::collections::HashSet;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc::Sender;

use super::super::backup::{NodeMaker, file_time};
use super::owner::Owner;
use super::session::Started;
use super::spill::Spill;
use crate::cancel::Cancel;
use crate::crypto::SecretKey;
use crate::database::control::{self, Control};
use crate::database::files::{self, ARCHIVE_STATUS, Fate, TABLESPACES, WAL};
use crate::database::manifest::{Manifest, Sum};
use crate::database::page::{self, Verdict};
use crate::error::{BaseError, Error};
use crate::event::{Event, Observer};
use crate::filter::Filter;
use crate::format::node::{Node, NodeKind};
use crate::format::postgres::Tablespace;
use crate::repo::Env;
use crate::source::file::{FileReader, open_file};
use crate::source::walk::{Entry, Item, Root, Tuning, Walk, WalkOptions};
use crate::source::{SourceError, Stat};

/// Content goes in pieces of this size: whole pages of every size there is.
pub(super) const PIECE: usize = 256 << 10;
/// How often a page with a wrong checksum is read again: it may have been in the middle of being written.
const TRIES: usize = 5;
/// How often a file is opened that is replaced by another one again and again, or a control file read.
const OPEN_TRIES: usize = 5;
/// Pages that are named.
const NAMED: usize = 100;

/// A page whose checksum is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrongPage {
    /// The file, below the data directory.
    pub file: PathBuf,
    /// Number of the page in the file.
    pub page: u64,
}

/// Where the files are and how they are made up.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    pub directory: PathBuf,
    /// What the directory of this server's files in a tablespace is called.
    pub version: String,
    pub system: u64,
    pub major: u32,
    pub page_size: usize,
    pub file_pages: u32,
    pub checksums: bool,
}

/// What goes to the feed.
pub(super) enum Step {
    Enter(Box<Node>),
    Leave,
    Entry(Box<Node>),
    Begin(Box<Node>),
    Data(Bytes),
    End,
}

/// What a copy leaves.
pub(super) struct Copied {
    /// Whom the data directory belongs to, and so what is made for it.
    pub owner: Owner,
    pub manifest: Manifest<Spill>,
    pub wrong: Vec<WrongPage>,
    pub wrong_count: u64,
}

/// Reads a data directory; for a thread that may wait.
pub(super) struct Copier {
    nodes: NodeMaker,
    layout: Layout,
    started: Started,
    steps: Sender<Step>,
    observer: Arc<dyn Observer>,
    cancel: Cancel,
    temp: PathBuf,
    owner: Owner,
    wrong: Vec<WrongPage>,
    wrong_count: u64,
}

impl Copier {
    pub(super) fn new(
        layout: Layout,
        started: Started,
        (steps, env, hard_links): (Sender<Step>, &Env, Arc<SecretKey>),
    ) -> Self {
        Self {
            nodes: NodeMaker::new(hard_links, false),
            layout,
            started,
            steps,
            observer: Arc::clone(&env.observer),
            cancel: env.cancel.clone(),
            temp: env.places.cache.clone().filter(|cache| cache.is_dir()).unwrap_or_else(std::env::temp_dir),
            owner: Owner::default(),
            wrong: Vec::new(),
            wrong_count: 0,
        }
    }

    /// Sends the whole tree but what the server gives at the end.
    pub(super) fn run(mut self) -> Result<Copied, Error> {
        let local = |path: &Path| {
            let path = path.to_owned();
            move |source| Error::Local { path, source }
        };
        let spill = Spill::new(&self.temp).map_err(local(&self.temp))?;
        let (major, system) = (self.layout.major, self.layout.system);
        let mut manifest = Manifest::new(spill, major, system).map_err(local(&self.temp))?;
        let directory = self.layout.directory.clone();
        self.tree(&directory, Vec::new(), &mut manifest)?;
        let spaces = std::mem::take(&mut self.started.tablespaces);
        self.tablespaces(spaces, &mut manifest)?;
        // Last, because the control file says how far everything else has come.
        self.tree(&directory.join("global"), vec![b"global".to_vec()], &mut manifest)?;
        let Self { owner, wrong, wrong_count, .. } = self;
        Ok(Copied { owner, manifest, wrong, wrong_count })
    }

    fn tablespaces(
        &mut self,
        mut spaces: Vec<Tablespace>,
        manifest: &mut Manifest<Spill>,
    ) -> Result<(), Error> {
        self.made(TABLESPACES)?;
        // In byte order of their names.
        spaces.sort_by_key(|space| space.oid.to_string());
        for space in spaces {
            let names = vec![TABLESPACES.to_vec(), space.oid.to_string().into_bytes()];
            let place = PathBuf::from(std::ffi::OsStr::from_bytes(&space.place));
            let place = place.canonicalize().map_err(|source| Error::Local { path: place, source })?;
            self.tree(&place, names, manifest)?;
        }
        self.send(Step::Leave)
    }

    /// Sends what is below `path`, as the directory with these names; of the data directory itself only what is in it, without
    /// what has a turn of its own.
    fn tree(
        &mut self,
        path: &Path,
        mut names: Vec<Vec<u8>>,
        manifest: &mut Manifest<Spill>,
    ) -> Result<(), Error> {
        let depth = names.len();
        let mut walk = self.walk(path)?;
        let (mut skipped, mut begun, mut unlogged) = (0_usize, false, vec![HashSet::new()]);
        while let Some(item) = walk.next()? {
            match item {
                Item::Enter { .. } if skipped > 0 => skipped += 1,
                Item::Leave if skipped > 0 => skipped -= 1,
                _ if skipped > 0 => {}
                Item::Enter { entry, error } => {
                    if let Some(error) = error.filter(|error| !error.is_vanished()) {
                        return Err(error.into());
                    }
                    if begun {
                        names.push(entry.name().to_vec());
                    }
                    let fate = if begun { self.fate(&names) } else { Fate::Keep };
                    if fate == Fate::Leave {
                        names.pop();
                        skipped = 1;
                        continue;
                    }
                    self.enter(&entry, &names)?;
                    begun = true;
                    if fate == Fate::Empty {
                        self.end_empty(&names)?;
                        names.pop();
                        skipped = 1;
                        continue;
                    }
                    unlogged.push(self.unlogged(&entry, &names)?);
                }
                Item::Leave => {
                    unlogged.pop();
                    if !names.is_empty() {
                        self.send(Step::Leave)?;
                    }
                    if names.len() > depth {
                        names.pop();
                    }
                }
                Item::Entry(entry) => {
                    names.push(entry.name().to_vec());
                    let known = unlogged.last().is_some_and(|unlogged| is_unlogged(entry.name(), unlogged));
                    if !known {
                        self.entry(&entry, &names, manifest)?;
                    }
                    names.pop();
                }
                Item::Failed(failure) if failure.error.is_vanished() => {}
                Item::Failed(failure) => return Err(failure.error.into()),
            }
        }
        Ok(())
    }

    fn walk(&self, path: &Path) -> Result<Walk, Error> {
        let (walk, failures) = Walk::new(WalkOptions {
            roots: vec![Root { path: path.to_owned(), stored: Vec::new() }],
            streams: Vec::new(),
            filter: Arc::new(Filter::default()),
            one_file_system: false,
            exclude_caches: false,
            exclude_larger_than: None,
            skip_dirs: Vec::new(),
            temp_dir: self.temp.clone(),
            threads: 1,
            cancel: self.cancel.clone(),
            tuning: Tuning::default(),
        })?;
        failures.into_iter().next().map_or(Ok(walk), |error| Err(error.into()))
    }

    fn fate(&self, names: &[Vec<u8>]) -> Fate {
        let names: Vec<&[u8]> = names.iter().map(Vec::as_slice).collect();
        match names[..] {
            // They have a turn of their own.
            [b"global" | TABLESPACES] => Fate::Leave,
            _ => files::fate(&names, self.layout.version.as_bytes()),
        }
    }

    fn enter(&mut self, entry: &Entry, names: &[Vec<u8>]) -> Result<(), Error> {
        let Some(name) = names.last() else {
            let node = self.nodes.make(entry.name(), entry.stat(), 0);
            self.owner = Owner::of(node);
            return Ok(());
        };
        let (mut node, failures) = self.nodes.make_directory(entry, 0);
        for error in failures {
            self.warn(&error);
        }
        node.name.clone_from(name);
        self.send(Step::Enter(Box::new(node)))
    }

    /// Begins a directory that the server makes itself if it is not there.
    fn made(&mut self, name: &[u8]) -> Result<(), Error> {
        self.send(Step::Enter(Box::new(self.owner.entry(name, NodeKind::Directory))))
    }

    /// Ends a directory of which only the name is saved. The log's has one in it that the server expects.
    fn end_empty(&mut self, names: &[Vec<u8>]) -> Result<(), Error> {
        if names == [WAL] {
            self.made(ARCHIVE_STATUS)?;
            self.send(Step::Leave)?;
        }
        self.send(Step::Leave)
    }

    /// Numbers of the relations in a directory whose content a crash empties.
    fn unlogged(&self, entry: &Entry, names: &[Vec<u8>]) -> Result<HashSet<Vec<u8>>, Error> {
        let mut found = HashSet::new();
        let names: Vec<&[u8]> = names.iter().map(Vec::as_slice).collect();
        if !files::is_database(&names) {
            return Ok(found);
        }
        let path = entry.path();
        let failed = |source| SourceError::Io { action: "list", path: path.clone(), source };
        let listed = match std::fs::read_dir(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
            other => other.map_err(failed)?,
        };
        for name in listed {
            let name = name.map_err(failed)?.file_name();
            if let Some(relation) = files::relation(name.as_bytes()).filter(files::Relation::is_init) {
                found.insert(relation.number.to_vec());
            }
        }
        Ok(found)
    }

    fn entry(
        &mut self,
        entry: &Entry,
        names: &[Vec<u8>],
        manifest: &mut Manifest<Spill>,
    ) -> Result<(), Error> {
        match self.fate(names) {
            Fate::Keep => {}
            Fate::Leave => return Ok(()),
            // A link to where the log really is, for one, becomes a directory that the server expects: all in it is left out.
            Fate::Empty => {
                self.made(entry.name())?;
                return self.end_empty(names);
            }
        }
        if entry.stat().is_file() {
            return self.file(entry, names, manifest);
        }
        let (node, failures) = self.nodes.make_special(entry, 0);
        if node.kind != NodeKind::Symlink {
            // A socket, or a pipe: of the running server.
            return Ok(());
        }
        match failures.into_iter().find(SourceError::is_vanished) {
            Some(_) => Ok(()),
            None if entry.path().is_dir() => Err(BaseError::Linked { path: entry.path() }.into()),
            None => self.send(Step::Entry(Box::new(node))),
        }
    }

    fn file(
        &mut self,
        entry: &Entry,
        names: &[Vec<u8>],
        manifest: &mut Manifest<Spill>,
    ) -> Result<(), Error> {
        let Some(reader) = open(entry)? else { return Ok(()) };
        let path = names.join(&b'/');
        let mut node = self.node(&reader, names);
        let mut sum = Sum::new();
        if path == control::PATH.as_bytes() {
            let content = self.control(entry)?;
            node.size = content.len() as u64;
            sum.update(&content);
            self.send(Step::Begin(Box::new(node.clone())))?;
            self.send(Step::Data(Bytes::from(content)))?;
        } else {
            self.send(Step::Begin(Box::new(node.clone())))?;
            self.content(&reader, (names, &path), &mut sum)?;
        }
        self.send(Step::End)?;
        let added = manifest.file(&path, node.size, (node.mtime, &sum.finish()));
        added.map_err(|source| Error::Local { path: self.temp.clone(), source })
    }

    fn node(&mut self, reader: &FileReader, names: &[Vec<u8>]) -> Node {
        let name = names.last().map_or(&b""[..], Vec::as_slice);
        let mut node = self.nodes.make(name, reader.stat(), 0);
        // Files of a database are each its own, whatever pg_upgrade has linked them with.
        node.hard_link = None;
        node.mtime = file_time(reader.stat().mtime);
        let xattrs = reader.xattrs();
        node.xattrs = xattrs.list.into_iter().map(|x| (x.name.into_vec(), x.value.into_vec())).collect();
        if let Some(error) = xattrs.error {
            self.warn(&error);
        }
        node
    }

    /// Sends the content, as long as the file was when it was opened.
    fn content(
        &mut self,
        reader: &FileReader,
        (names, path): (&[Vec<u8>], &[u8]),
        sum: &mut Sum,
    ) -> Result<(), Error> {
        let parents: Vec<&[u8]> = names[..names.len() - 1].iter().map(Vec::as_slice).collect();
        let relation = names.last().and_then(|name| files::relation(name));
        let paged = relation.filter(|_| self.layout.checksums && files::is_database(&parents));
        let (size, mut at) = (reader.stat().size, 0);
        while at < size {
            let wanted = usize::try_from(size - at).map_or(PIECE, |left| left.min(PIECE));
            let mut piece = vec![0; wanted];
            let read = fill(reader, &mut piece, at)?;
            if let Some(relation) = paged {
                let first = at / self.layout.page_size as u64;
                let before = u64::from(relation.segment) * u64::from(self.layout.file_pages);
                self.pages(reader, (&mut piece[..read], path), (first, before))?;
            }
            sum.update(&piece);
            self.send(Step::Data(Bytes::from(piece)))?;
            at += wanted as u64;
        }
        Ok(())
    }

    /// Holds pages against their checksums. One that is wrong is read again; one that was changed since the backup began is made
    /// anew by recovery, whatever it holds.
    fn pages(
        &mut self,
        reader: &FileReader,
        (piece, path): (&mut [u8], &[u8]),
        (first, before): (u64, u64),
    ) -> Result<(), Error> {
        let size = self.layout.page_size;
        for (at, page) in piece.chunks_exact_mut(size).enumerate() {
            let number = first + at as u64;
            let block = (before + number) as u32;
            let mut verdict = page::check(page, block);
            let mut again = vec![0; if matches!(verdict, Verdict::Wrong(_)) { size } else { 0 }];
            for _ in 0..TRIES {
                if !matches!(verdict, Verdict::Wrong(_)) {
                    break;
                }
                if fill(reader, &mut again, number * size as u64)? < size {
                    // It was cut off: recovery knows.
                    verdict = Verdict::New;
                    break;
                }
                page.copy_from_slice(&again);
                verdict = page::check(page, block);
            }
            match verdict {
                Verdict::Wrong(changed) if changed < self.started.start => self.note(path, number),
                _ => {}
            }
        }
        Ok(())
    }

    fn note(&mut self, path: &[u8], page: u64) {
        self.wrong_count += 1;
        if self.wrong.len() < NAMED {
            let file = PathBuf::from(std::ffi::OsStr::from_bytes(path));
            self.wrong.push(WrongPage { file, page });
        }
    }

    /// The control file, when it is whole.
    fn control(&self, entry: &Entry) -> Result<Vec<u8>, Error> {
        let path = entry.path();
        let mut fault = control::ControlFault::Short;
        for _ in 0..OPEN_TRIES {
            let Some(reader) = open(entry)? else { break };
            let mut content = vec![0; usize::try_from(reader.stat().size.min(1 << 16)).unwrap_or(0)];
            let read = fill(&reader, &mut content, 0)?;
            let begun = (self.started.start, self.started.timeline);
            match Control::parse(&content[..read]) {
                Ok(control) if control.has_begun(self.layout.system, begun) => return Ok(content),
                Ok(_) => {
                    let (path, fault) =
                        (self.layout.directory.clone(), "its control file knows of no such backup");
                    return Err(BaseError::NotItsDirectory { path, fault }.into());
                }
                Err(error) => fault = error,
            }
        }
        Err(BaseError::Control { path, fault }.into())
    }

    fn warn(&self, error: &SourceError) {
        self.observer.observe(&Event::Warning { message: &error.to_string() });
    }

    fn send(&self, step: Step) -> Result<(), Error> {
        // Whoever listens is gone only if it failed, and then its error is the one that counts.
        self.steps.blocking_send(step).map_err(|_| Error::Cancelled)
    }
}

/// Opens a file; `None` if it is gone. One that was replaced is opened as what it is now.
fn open(entry: &Entry) -> Result<Option<FileReader>, Error> {
    let mut stat: Stat = *entry.stat();
    for _ in 0..OPEN_TRIES {
        match open_file(entry.dir(), entry.source_name(), &stat) {
            Ok(reader) => return Ok(Some(reader)),
            Err(error) if error.is_vanished() => return Ok(None),
            Err(SourceError::Replaced { .. }) => match entry.look_again() {
                Ok(now) => stat = now,
                Err(error) if error.is_vanished() => return Ok(None),
                Err(error) => return Err(error.into()),
            },
            Err(error) => return Err(error.into()),
        }
    }
    Err(SourceError::Replaced { path: entry.path() }.into())
}

/// Reads until the buffer is full or the file ends; gives how much that was.
fn fill(reader: &FileReader, buffer: &mut [u8], at: u64) -> Result<usize, Error> {
    let mut filled = 0;
    while filled < buffer.len() {
        match reader.read_at(&mut buffer[filled..], at + filled as u64)? {
            0 => break,
            read => filled += read,
        }
    }
    Ok(filled)
}

/// Whether a file holds what a crash empties: a fork of such a relation that is not the one it begins with.
fn is_unlogged(name: &[u8], unlogged: &HashSet<Vec<u8>>) -> bool {
    files::relation(name).is_some_and(|relation| !relation.is_init() && unlogged.contains(relation.number))
}
