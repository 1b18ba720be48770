//! A file system in memory that forgets what was not synced when its power is cut.
//!
//! What may be left follows ext4 and xfs, without what they do beyond their promises. Content that was not synced: each
//! block of 4 KiB as it was when it was last synced, zero, or new; the length any that the file had since. A change of a
//! name (make, rename, remove) that was not synced has happened or not, whatever became of earlier and later ones; it is
//! safe only when the directory that it changed is synced, for a rename the one it goes to. A rename is never seen half
//! done. Syncing a file saves no name. A running process sees everything it did.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread::ThreadId;
use std::time::{SystemTime, UNIX_EPOCH};

use lifeboat::store::local::disk::{Disk, Kind, Name, Stat};

/// Where the store lies; everything above but the last two directories is there from the beginning.
pub const ROOT: &str = "/disk/backups/store";
const BLOCK: usize = 4096;

/// One kind of sync, by what it makes durable. Leaving one out must lose something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Sync {
    /// A file, before it gets its name.
    Content,
    /// A directory, after a file got its name in it.
    Name,
    /// A directory, after one was made in it.
    NewDirectory,
    /// A directory, after one was found in it that another process may have made.
    FoundDirectory,
    /// The directory above the root, or above that, after one was made in it.
    NewRoot,
    /// The directory above the root, after the root was found.
    FoundRoot,
    /// A directory, after a file was removed from it.
    Removal,
    /// A directory, after a file that was to be removed was not there.
    Absence,
    /// A directory that was listed, before anything is written that may rest on what it showed.
    Listed,
}

impl Sync {
    pub const ALL: [Self; 9] = [
        Self::Content,
        Self::Name,
        Self::NewDirectory,
        Self::FoundDirectory,
        Self::NewRoot,
        Self::FoundRoot,
        Self::Removal,
        Self::Absence,
        Self::Listed,
    ];
}

/// Numbers that look random and follow from a seed.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % limit.max(1) as u64) as usize
    }
}

#[derive(Clone, Default)]
struct File {
    now: Arc<Vec<u8>>,
    durable: Arc<Vec<u8>>,
    /// Every length since the last sync, the present one last; empty if nothing changed.
    lengths: Vec<usize>,
    modified: (i64, i64),
}

#[derive(Clone, Default)]
struct Directory {
    now: BTreeMap<OsString, usize>,
    durable: BTreeMap<OsString, usize>,
}

#[derive(Clone)]
enum Node {
    File(File),
    Directory(Directory),
}

/// A name that changed and is not durable.
#[derive(Clone)]
struct Change {
    directory: usize,
    name: OsString,
    /// What it stands for now.
    to: Option<usize>,
    /// The name a rename took away.
    from: Option<(usize, OsString)>,
}

/// Everything on the disk and in the caches before it. Cheap to clone.
#[derive(Clone)]
pub struct State {
    /// By number; the top is the first.
    nodes: Vec<Node>,
    changes: Vec<Change>,
}

fn code(number: i32) -> io::Error {
    io::Error::from_raw_os_error(number)
}

impl State {
    pub fn new() -> Self {
        let mut state = Self { nodes: vec![Node::Directory(Directory::default())], changes: Vec::new() };
        let top = Path::new(ROOT).components().nth(1).unwrap().as_os_str().to_owned();
        state.add(0, &top, Node::Directory(Directory::default()));
        state.sync_directory(0);
        state
    }

    fn add(&mut self, directory: usize, name: &OsStr, node: Node) -> usize {
        let number = self.nodes.len();
        self.nodes.push(node);
        self.change(Change { directory, name: name.to_owned(), to: Some(number), from: None });
        number
    }

    fn directory(&mut self, number: usize) -> io::Result<&mut Directory> {
        match self.nodes.get_mut(number) {
            Some(Node::Directory(directory)) => Ok(directory),
            _ => Err(code(libc::ENOTDIR)),
        }
    }

    fn file(&mut self, number: usize) -> io::Result<&mut File> {
        match self.nodes.get_mut(number) {
            Some(Node::File(file)) => Ok(file),
            _ => Err(code(libc::EISDIR)),
        }
    }

    fn find(&mut self, path: &Path) -> io::Result<usize> {
        let mut number = 0;
        for name in path.components().skip(1) {
            let found = self.directory(number)?.now.get(name.as_os_str());
            number = *found.ok_or_else(|| code(libc::ENOENT))?;
        }
        Ok(number)
    }

    fn parent<'a>(&mut self, path: &'a Path) -> io::Result<(usize, &'a OsStr)> {
        let parent = self.find(path.parent().unwrap())?;
        self.directory(parent)?;
        Ok((parent, path.file_name().unwrap()))
    }

    fn make(&mut self, path: &Path, node: Node) -> io::Result<usize> {
        let (parent, name) = self.parent(path)?;
        if self.directory(parent)?.now.contains_key(name) {
            return Err(code(libc::EEXIST));
        }
        Ok(self.add(parent, name, node))
    }

    /// Changes a name for everybody who looks, and notes that it is not durable.
    fn change(&mut self, change: Change) {
        if let Some((from, name)) = &change.from {
            self.directory(*from).unwrap().now.remove(name);
        }
        let names = &mut self.directory(change.directory).unwrap().now;
        match change.to {
            Some(number) => names.insert(change.name.clone(), number),
            None => names.remove(&change.name),
        };
        self.changes.push(change);
    }

    /// Makes one change durable.
    fn settle(&mut self, change: &Change) {
        if let Some((from, name)) = &change.from {
            let names = &mut self.directory(*from).unwrap().durable;
            if names.get(name) == change.to.as_ref() {
                names.remove(name);
            }
            // It was moved away for good: that it once got the old name must not bring it back.
            self.changes
                .retain(|older| older.directory != *from || older.name != *name || older.to != change.to);
        }
        let names = &mut self.directory(change.directory).unwrap().durable;
        match change.to {
            Some(number) => names.insert(change.name.clone(), number),
            None => names.remove(&change.name),
        };
    }

    fn sync_directory(&mut self, number: usize) {
        let of_it = |change: &Change| change.directory == number;
        for change in self.changes.clone().iter().filter(|change| of_it(change)) {
            self.settle(change);
        }
        self.changes.retain(|change| !of_it(change));
    }

    /// Something that the disk may hold after its power was cut now. The seeds 0 to 3 are the ends: nothing that was not
    /// synced, only the names of it, names and lengths, everything.
    pub fn after_power_cut(&self, seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let mut left = self.clone();
        for change in std::mem::take(&mut left.changes) {
            if if seed < 4 { seed > 0 } else { dice.below(2) == 0 } {
                left.settle(&change);
            }
        }
        for node in &mut left.nodes {
            match node {
                Node::Directory(directory) => directory.now = directory.durable.clone(),
                Node::File(file) => {
                    if !file.lengths.is_empty() {
                        file.durable = Arc::new(torn(file, seed, &mut dice));
                    }
                    file.now = Arc::clone(&file.durable);
                    file.lengths.clear();
                }
            }
        }
        left
    }

    /// The same for equal trees; what lies in the directory of temporary files does not count.
    pub fn fingerprint(&mut self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        let mut pending = vec![(0, PathBuf::from("/"))];
        while let Some((number, path)) = pending.pop() {
            hasher.update(path.as_os_str().as_encoded_bytes()).update(&[0]);
            match &self.nodes[number] {
                Node::File(file) => {
                    hasher.update(&(file.now.len() as u64).to_le_bytes()).update(&file.now);
                }
                Node::Directory(_) if path == Path::new(ROOT).join("tmp") => {}
                Node::Directory(directory) => {
                    pending.extend(directory.now.iter().map(|(name, number)| (*number, path.join(name))));
                }
            }
        }
        *hasher.finalize().as_bytes()
    }
}

/// What may be left of the content of a file that was changed since it was synced.
fn torn(file: &File, seed: u64, dice: &mut Dice) -> Vec<u8> {
    let len = match seed {
        0 | 1 => file.durable.len(),
        2 | 3 => file.now.len(),
        _ => match dice.below(file.lengths.len() + 1) {
            0 => file.durable.len(),
            choice => file.lengths[choice - 1],
        },
    };
    let mut content = vec![0; len];
    for start in (0..len).step_by(BLOCK) {
        let source = match seed {
            0 | 1 => Some(&file.durable),
            2 => None,
            3 => Some(&file.now),
            _ => [None, Some(&file.durable), Some(&file.now), Some(&file.now)][dice.below(4)],
        };
        let Some(source) = source else { continue };
        let end = len.min(start + BLOCK).min(source.len());
        if start < end {
            content[start..end].copy_from_slice(&source[start..end]);
        }
    }
    content
}

/// What a thread did last, which tells why it syncs.
#[derive(Clone, Copy)]
enum Last {
    Renamed,
    Made,
    Found,
    Removed,
    Missed,
}

/// Sees the state before each call that changes anything, and what the call is.
pub type Watch = Arc<dyn Fn(&State, &str) + Send + std::marker::Sync>;

struct Shared {
    state: Mutex<State>,
    last: Mutex<HashMap<ThreadId, Last>>,
    omit: Option<Sync>,
    watch: Option<Watch>,
    /// Another process removes each object just before, and dies before it has synced.
    outrun: bool,
}

/// The disk. Clones share it.
#[derive(Clone)]
pub struct SimDisk(Arc<Shared>);

impl SimDisk {
    /// A disk in this state. Syncs of the kind `omit` do nothing.
    pub fn new(state: State, omit: Option<Sync>, watch: Option<Watch>) -> Self {
        Self::with(state, (omit, watch), false)
    }

    /// The same; another process does each removal of an object first, and dies before it has synced it.
    pub fn outrun(state: State, omit: Option<Sync>, watch: Option<Watch>) -> Self {
        Self::with(state, (omit, watch), true)
    }

    fn with(state: State, (omit, watch): (Option<Sync>, Option<Watch>), outrun: bool) -> Self {
        Self(Arc::new(Shared { state: Mutex::new(state), last: Mutex::default(), omit, watch, outrun }))
    }

    pub fn state(&self) -> State {
        self.0.state.lock().unwrap().clone()
    }

    fn call<T>(
        &self,
        what: &str,
        path: &Path,
        work: impl FnOnce(&mut State) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut state = self.0.state.lock().unwrap();
        if let Some(watch) = &self.0.watch {
            watch(&state, &format!("{what} {}", path.display()));
        }
        work(&mut state)
    }

    fn note(&self, last: Last) {
        self.0.last.lock().unwrap().insert(std::thread::current().id(), last);
    }

    fn kind_of_sync(&self, path: &Path) -> Sync {
        let last = self.0.last.lock().unwrap().remove(&std::thread::current().id());
        let above = !path.starts_with(ROOT);
        match last {
            Some(Last::Made) if above => Sync::NewRoot,
            _ if above => Sync::FoundRoot,
            Some(Last::Renamed) => Sync::Name,
            Some(Last::Made) => Sync::NewDirectory,
            Some(Last::Found) => Sync::FoundDirectory,
            Some(Last::Removed) => Sync::Removal,
            Some(Last::Missed) => Sync::Absence,
            None => Sync::Listed,
        }
    }
}

/// An open file: its number and the path it was opened by.
pub struct Open(usize, PathBuf);

/// A name that was read, with what it stood for then.
pub struct Read(OsString, Stat);

impl Name for Read {
    fn name(&self) -> OsString {
        self.0.clone()
    }

    fn kind(&self) -> io::Result<Kind> {
        Ok(self.1.kind)
    }

    fn stat(&self) -> io::Result<Stat> {
        Ok(self.1)
    }
}

fn stat_of(node: &Node) -> Stat {
    match node {
        Node::Directory(_) => Stat { kind: Kind::Directory, len: 0, modified: (0, 0) },
        Node::File(file) => Stat { kind: Kind::File, len: file.now.len() as u64, modified: file.modified },
    }
}

impl Disk for SimDisk {
    type File = Open;
    type Name = Read;

    fn stat(&self, path: &Path) -> io::Result<Stat> {
        self.stat_link(path)
    }

    fn stat_link(&self, path: &Path) -> io::Result<Stat> {
        let mut state = self.0.state.lock().unwrap();
        let number = state.find(path)?;
        Ok(stat_of(&state.nodes[number]))
    }

    fn names(&self, path: &Path) -> io::Result<impl Iterator<Item = io::Result<Read>>> {
        let mut state = self.0.state.lock().unwrap();
        let number = state.find(path)?;
        let names = state.directory(number)?.now.clone();
        let read = |(name, number): (OsString, usize)| Ok(Read(name, stat_of(&state.nodes[number])));
        Ok(names.into_iter().map(read).collect::<Vec<_>>().into_iter())
    }

    fn open(&self, path: &Path) -> io::Result<Open> {
        Ok(Open(self.0.state.lock().unwrap().find(path)?, path.to_owned()))
    }

    fn stat_file(&self, file: &Open) -> io::Result<Stat> {
        Ok(stat_of(&self.0.state.lock().unwrap().nodes[file.0]))
    }

    fn read_at(&self, file: &Open, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut state = self.0.state.lock().unwrap();
        let content = &state.file(file.0)?.now;
        let start = (offset as usize).min(content.len());
        let count = buffer.len().min(content.len() - start);
        buffer[..count].copy_from_slice(&content[start..start + count]);
        Ok(count)
    }

    fn create(&self, path: &Path, _: bool) -> io::Result<Open> {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let modified = (since.as_secs() as i64, i64::from(since.subsec_nanos()));
        let file = File { modified, ..File::default() };
        self.call("create", path, |state| Ok(Open(state.make(path, Node::File(file))?, path.to_owned())))
    }

    fn reserve(&self, file: &Open, len: u64) -> io::Result<()> {
        self.call("reserve", &file.1, |state| {
            let file = state.file(file.0)?;
            let len = file.now.len().max(len as usize);
            Arc::make_mut(&mut file.now).resize(len, 0);
            file.lengths.push(len);
            Ok(())
        })
    }

    fn write_at(&self, file: &Open, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.call("write", &file.1, |state| {
            let file = state.file(file.0)?;
            let end = offset as usize + bytes.len();
            let content = Arc::make_mut(&mut file.now);
            content.resize(content.len().max(end), 0);
            content[offset as usize..end].copy_from_slice(bytes);
            file.lengths.push(file.now.len());
            Ok(())
        })
    }

    fn set_len(&self, file: &Open, len: u64) -> io::Result<()> {
        self.call("set the length of", &file.1, |state| {
            let file = state.file(file.0)?;
            Arc::make_mut(&mut file.now).resize(len as usize, 0);
            file.lengths.push(len as usize);
            Ok(())
        })
    }

    fn leave_direct(&self, _: &Open) -> io::Result<()> {
        Ok(())
    }

    fn sync(&self, file: &Open) -> io::Result<()> {
        let omitted = self.0.omit == Some(Sync::Content);
        self.call("sync", &file.1, |state| {
            let file = state.file(file.0)?;
            if !omitted {
                file.durable = Arc::clone(&file.now);
                file.lengths.clear();
            }
            Ok(())
        })
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        let omitted = self.0.omit == Some(self.kind_of_sync(path));
        self.call("sync directory", path, |state| {
            let number = state.find(path)?;
            state.directory(number)?;
            if !omitted {
                state.sync_directory(number);
            }
            Ok(())
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.note(Last::Renamed);
        self.call("rename to", to, |state| {
            let number = state.find(from)?;
            state.file(number)?;
            let (directory, name) = state.parent(to)?;
            let (old, old_name) = state.parent(from)?;
            state.change(Change {
                directory,
                name: name.to_owned(),
                to: Some(number),
                from: Some((old, old_name.to_owned())),
            });
            Ok(())
        })
    }

    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        match self.call("look at", to, |state| state.find(to)) {
            Ok(_) => Err(code(libc::EEXIST)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.rename(from, to),
            Err(error) => Err(error),
        }
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let outrun = self.0.outrun && !path.starts_with(Path::new(ROOT).join("tmp"));
        let removed = self.call("remove", path, |state| {
            let number = state.find(path)?;
            state.file(number)?;
            let (directory, name) = state.parent(path)?;
            state.change(Change { directory, name: name.to_owned(), to: None, from: None });
            if outrun { Err(code(libc::ENOENT)) } else { Ok(()) }
        });
        self.note(if removed.is_ok() { Last::Removed } else { Last::Missed });
        removed
    }

    fn make_directory(&self, path: &Path) -> io::Result<()> {
        let made = self.call("make directory", path, |state| {
            state.make(path, Node::Directory(Directory::default())).map(|_| ())
        });
        self.note(if made.is_ok() { Last::Made } else { Last::Found });
        made
    }

    fn free_space(&self, _: &Path) -> Option<u64> {
        None
    }
}
