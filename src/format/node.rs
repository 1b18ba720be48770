//! `docs/format.md` section 6: a node, one entry of a directory.

use minicbor::Encoder;
use minicbor::decode::Decoder;

use super::FormatError;
use super::content::{ChunkRow, Content, ListRef};
use super::tree::TreeRef;
use crate::id::ChunkId;

/// Longest name or owner name in bytes.
pub const NAME_MAX: usize = 4096;
/// Longest target of a symbolic link in bytes.
const TARGET_MAX: usize = 1 << 16;
/// Most extended attributes of one entry, and the most bytes of one value (the kernel's own bound).
pub const XATTRS_MAX: u64 = 4096;
const XATTR_VALUE_MAX: usize = 1 << 16;
/// Most holes kept for one file; more are stored as zeroes.
pub const HOLES_MAX: usize = 1 << 20;

/// What an entry is. The number is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum NodeKind {
    /// A regular file.
    File = 0,
    /// A directory.
    Directory = 1,
    /// A symbolic link.
    Symlink = 2,
    /// A named pipe.
    Fifo = 3,
    /// A socket.
    Socket = 4,
    /// A character device.
    CharDevice = 5,
    /// A block device.
    BlockDevice = 6,
    /// Something that was there but whose kind could not be learnt.
    Unknown = 7,
}

impl NodeKind {
    fn from_number(number: u8) -> Option<Self> {
        use NodeKind::{BlockDevice, CharDevice, Directory, Fifo, File, Socket, Symlink, Unknown};
        [File, Directory, Symlink, Fifo, Socket, CharDevice, BlockDevice, Unknown]
            .into_iter()
            .find(|kind| *kind as u8 == number)
    }
}

/// A point in time of the file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct FileTime {
    /// Seconds since 1970, negative before.
    pub seconds: i64,
    /// Nanoseconds after that second.
    pub nanos: u32,
}

/// What went wrong with an entry when it was saved. The number is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Problem {
    /// Its content or listing could not be read; nothing of it is stored.
    Unreadable = 1,
    /// It changed each time it was read; what was read last is stored.
    Changed = 2,
}

/// Totals of a directory and all below it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct Totals {
    /// Entries of every kind, the directory itself left out.
    pub entries: u64,
    /// Regular files.
    pub files: u64,
    /// Bytes of the regular files.
    pub bytes: u64,
}

impl Totals {
    /// Adds another directory's totals.
    pub fn add(&mut self, other: Self) {
        self.entries = self.entries.saturating_add(other.entries);
        self.files = self.files.saturating_add(other.files);
        self.bytes = self.bytes.saturating_add(other.bytes);
    }
}

/// One entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Raw bytes of the name; no slash, no NUL, not empty, neither `.` nor `..` in an honest repository.
    pub name: Vec<u8>,
    /// What it is.
    pub kind: NodeKind,
    /// Permission bits, `0o7777` at most.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Name of the owner, if it had one; raw bytes.
    pub user: Vec<u8>,
    /// Name of the group, if it had one; raw bytes.
    pub group: Vec<u8>,
    /// Last change of content.
    pub mtime: FileTime,
    /// Last read.
    pub atime: Option<FileTime>,
    /// Birth; stored, cannot be restored.
    pub btime: Option<FileTime>,
    /// Bytes of a regular file, holes included.
    pub size: u64,
    /// Content of a regular file.
    pub content: Content,
    /// Ranges of a regular file that are holes: offset and length, ascending, apart from each other.
    pub holes: Vec<(u64, u64)>,
    /// Entries of a directory; `None` if it is empty.
    pub tree: Option<TreeRef>,
    /// Totals of a directory.
    pub totals: Totals,
    /// Target of a symbolic link.
    pub target: Vec<u8>,
    /// Device number of a device.
    pub rdev: u64,
    /// Extended attributes in byte order of their names; POSIX ACLs and file capabilities are among them.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Inode flags as `chattr` sets them.
    pub flags: u32,
    /// Same for all names of one file that has several.
    pub hard_link: Option<[u8; 16]>,
    /// What went wrong.
    pub problem: Option<Problem>,
}

impl Node {
    /// About how many bytes it holds beside itself.
    pub(crate) fn held(&self) -> usize {
        let texts = [&self.name, &self.target, &self.user, &self.group].map(Vec::len);
        let xattrs = self.xattrs.iter().map(|(name, value)| name.len() + value.len());
        let rows = match &self.content {
            Content::Inline(rows) => rows.len() * size_of::<ChunkRow>(),
            Content::Paged(_) => 0,
        };
        texts.iter().sum::<usize>()
            + xattrs.sum::<usize>()
            + rows
            + self.holes.len() * size_of::<(u64, u64)>()
    }

    /// An entry with nothing but a name and a kind.
    pub fn new(name: Vec<u8>, kind: NodeKind) -> Self {
        Self {
            name,
            kind,
            mode: 0,
            uid: 0,
            gid: 0,
            user: Vec::new(),
            group: Vec::new(),
            mtime: FileTime::default(),
            atime: None,
            btime: None,
            size: 0,
            content: Content::Inline(Vec::new()),
            holes: Vec::new(),
            tree: None,
            totals: Totals::default(),
            target: Vec::new(),
            rdev: 0,
            xattrs: Vec::new(),
            flags: 0,
            hard_link: None,
            problem: None,
        }
    }

    /// Appends the stored form: a CBOR map in ascending key order, fields of default value left out.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let infallible = encode_fields(self, &mut Encoder::new(out));
        debug_assert!(infallible.is_ok(), "writing to memory cannot fail");
    }

    /// Reads one node from exactly `bytes`.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut decoder = Decoder::new(bytes);
        let node = decode_fields(&mut decoder)?;
        if decoder.position() == bytes.len() { Ok(node) } else { Err(FormatError::TrailingBytes) }
    }

    /// The name in an encoded node, without decoding the rest; it is always the first field.
    pub fn peek_name(bytes: &[u8]) -> Result<&[u8], FormatError> {
        let mut decoder = Decoder::new(bytes);
        let fields = decoder.map().map_err(cbor)?;
        let key = decoder.u8().map_err(cbor)?;
        match (fields, key) {
            (Some(_), 0) => decoder.bytes().map_err(cbor),
            _ => Err(FormatError::Value { section: "6", what: "node name" }),
        }
    }
}

type Infallible = Result<(), minicbor::encode::Error<std::convert::Infallible>>;

fn count_fields(node: &Node) -> u64 {
    let optional = [
        !node.user.is_empty(),
        !node.group.is_empty(),
        node.atime.is_some(),
        node.btime.is_some(),
        node.size != 0,
        !node.content.is_empty(),
        !node.holes.is_empty(),
        node.tree.is_some(),
        node.totals != Totals::default(),
        !node.target.is_empty(),
        node.rdev != 0,
        !node.xattrs.is_empty(),
        node.flags != 0,
        node.hard_link.is_some(),
        node.problem.is_some(),
    ];
    6 + optional.into_iter().filter(|present| *present).count() as u64
}

fn encode_time(e: &mut Encoder<&mut Vec<u8>>, key: u8, time: FileTime) -> Infallible {
    e.u8(key)?.array(2)?.i64(time.seconds)?.u32(time.nanos)?;
    Ok(())
}

fn encode_fields(node: &Node, e: &mut Encoder<&mut Vec<u8>>) -> Infallible {
    e.map(count_fields(node))?;
    e.u8(0)?.bytes(&node.name)?;
    e.u8(1)?.u8(node.kind as u8)?;
    e.u8(2)?.u32(node.mode)?;
    e.u8(3)?.u32(node.uid)?;
    e.u8(4)?.u32(node.gid)?;
    if !node.user.is_empty() {
        e.u8(5)?.bytes(&node.user)?;
    }
    if !node.group.is_empty() {
        e.u8(6)?.bytes(&node.group)?;
    }
    encode_time(e, 7, node.mtime)?;
    if let Some(time) = node.atime {
        encode_time(e, 8, time)?;
    }
    if let Some(time) = node.btime {
        encode_time(e, 9, time)?;
    }
    if node.size != 0 {
        e.u8(10)?.u64(node.size)?;
    }
    encode_content(node, e)?;
    if let Some(tree) = &node.tree {
        e.u8(14)?.array(3)?.u8(tree.level)?.bytes(tree.id.as_bytes())?.u32(tree.len)?;
    }
    if node.totals != Totals::default() {
        e.u8(15)?.array(3)?.u64(node.totals.entries)?.u64(node.totals.files)?.u64(node.totals.bytes)?;
    }
    encode_rest(node, e)
}

fn encode_content(node: &Node, e: &mut Encoder<&mut Vec<u8>>) -> Infallible {
    match &node.content {
        Content::Inline(rows) if rows.is_empty() => {}
        Content::Inline(rows) => {
            e.u8(11)?.bytes(&ChunkRow::encode_all(rows))?;
        }
        Content::Paged(list) => {
            e.u8(12)?.array(4)?.u8(list.level)?.bytes(list.id.as_bytes())?.u32(list.len)?.u64(list.rows)?;
        }
    }
    if !node.holes.is_empty() {
        e.u8(13)?.array(node.holes.len() as u64 * 2)?;
        for (offset, len) in &node.holes {
            e.u64(*offset)?.u64(*len)?;
        }
    }
    Ok(())
}

fn encode_rest(node: &Node, e: &mut Encoder<&mut Vec<u8>>) -> Infallible {
    if !node.target.is_empty() {
        e.u8(16)?.bytes(&node.target)?;
    }
    if node.rdev != 0 {
        e.u8(17)?.u64(node.rdev)?;
    }
    if !node.xattrs.is_empty() {
        e.u8(18)?.array(node.xattrs.len() as u64 * 2)?;
        for (name, value) in &node.xattrs {
            e.bytes(name)?.bytes(value)?;
        }
    }
    if node.flags != 0 {
        e.u8(19)?.u32(node.flags)?;
    }
    if let Some(link) = &node.hard_link {
        e.u8(20)?.bytes(link)?;
    }
    if let Some(problem) = node.problem {
        e.u8(21)?.u8(problem as u8)?;
    }
    Ok(())
}

fn cbor(_: minicbor::decode::Error) -> FormatError {
    FormatError::Cbor { section: "6", what: "node" }
}

fn value(what: &'static str) -> FormatError {
    FormatError::Value { section: "6", what }
}

fn bounded(d: &mut Decoder<'_>, max: usize, what: &'static str) -> Result<Vec<u8>, FormatError> {
    let bytes = d.bytes().map_err(cbor)?;
    if bytes.len() > max { Err(value(what)) } else { Ok(bytes.to_vec()) }
}

fn fixed<const N: usize>(d: &mut Decoder<'_>, what: &'static str) -> Result<[u8; N], FormatError> {
    d.bytes().map_err(cbor)?.try_into().map_err(|_| value(what))
}

fn array_of(d: &mut Decoder<'_>, len: u64, what: &'static str) -> Result<(), FormatError> {
    if d.array().map_err(cbor)? == Some(len) { Ok(()) } else { Err(value(what)) }
}

fn time(d: &mut Decoder<'_>) -> Result<FileTime, FormatError> {
    array_of(d, 2, "time")?;
    let (seconds, nanos) = (d.i64().map_err(cbor)?, d.u32().map_err(cbor)?);
    if nanos < 1_000_000_000 { Ok(FileTime { seconds, nanos }) } else { Err(value("time")) }
}

fn decode_fields(d: &mut Decoder<'_>) -> Result<Node, FormatError> {
    let fields = d.map().map_err(cbor)?.ok_or(value("node"))?;
    let mut node = Node::new(Vec::new(), NodeKind::Unknown);
    let mut last = None;
    for _ in 0..fields {
        let key = d.u32().map_err(cbor)?;
        if last.is_some_and(|last| key <= last) {
            return Err(value("order of fields"));
        }
        last = Some(key);
        match key {
            0..=10 => decode_identity(&mut node, key, d)?,
            11..=15 => decode_content(&mut node, key, d)?,
            16..=21 => decode_rest(&mut node, key, d)?,
            _ => d.skip().map_err(cbor)?,
        }
    }
    if node.name.is_empty() { Err(value("node name")) } else { Ok(node) }
}

fn decode_identity(node: &mut Node, key: u32, d: &mut Decoder<'_>) -> Result<(), FormatError> {
    match key {
        0 => node.name = bounded(d, NAME_MAX, "node name")?,
        1 => node.kind = NodeKind::from_number(d.u8().map_err(cbor)?).ok_or(value("node kind"))?,
        2 => {
            node.mode = d.u32().map_err(cbor)?;
            if node.mode > 0o7777 {
                return Err(value("mode"));
            }
        }
        3 => node.uid = d.u32().map_err(cbor)?,
        4 => node.gid = d.u32().map_err(cbor)?,
        5 => node.user = bounded(d, NAME_MAX, "user name")?,
        6 => node.group = bounded(d, NAME_MAX, "group name")?,
        7 => node.mtime = time(d)?,
        8 => node.atime = Some(time(d)?),
        9 => node.btime = Some(time(d)?),
        _ => node.size = d.u64().map_err(cbor)?,
    }
    Ok(())
}

fn decode_content(node: &mut Node, key: u32, d: &mut Decoder<'_>) -> Result<(), FormatError> {
    match key {
        11 => node.content = Content::Inline(ChunkRow::decode_all(d.bytes().map_err(cbor)?)?),
        12 => {
            array_of(d, 4, "chunk list")?;
            node.content = Content::Paged(ListRef {
                level: d.u8().map_err(cbor)?,
                id: ChunkId::new(fixed(d, "chunk list")?),
                len: d.u32().map_err(cbor)?,
                rows: d.u64().map_err(cbor)?,
            });
        }
        13 => node.holes = decode_holes(d)?,
        14 => {
            array_of(d, 3, "tree reference")?;
            let level = d.u8().map_err(cbor)?;
            let id = ChunkId::new(fixed(d, "tree reference")?);
            node.tree = Some(TreeRef { level, id, len: d.u32().map_err(cbor)? });
        }
        _ => {
            array_of(d, 3, "totals")?;
            let (entries, files) = (d.u64().map_err(cbor)?, d.u64().map_err(cbor)?);
            node.totals = Totals { entries, files, bytes: d.u64().map_err(cbor)? };
        }
    }
    Ok(())
}

fn decode_holes(d: &mut Decoder<'_>) -> Result<Vec<(u64, u64)>, FormatError> {
    let count = d.array().map_err(cbor)?.ok_or(value("holes"))?;
    if count % 2 != 0 || count / 2 > HOLES_MAX as u64 {
        return Err(value("holes"));
    }
    let mut holes = Vec::new();
    let mut end = 0;
    for _ in 0..count / 2 {
        let (offset, len) = (d.u64().map_err(cbor)?, d.u64().map_err(cbor)?);
        if offset < end || len == 0 {
            return Err(value("holes"));
        }
        end = offset.checked_add(len).ok_or(value("holes"))?;
        holes.push((offset, len));
    }
    Ok(holes)
}

fn decode_rest(node: &mut Node, key: u32, d: &mut Decoder<'_>) -> Result<(), FormatError> {
    match key {
        16 => node.target = bounded(d, TARGET_MAX, "link target")?,
        17 => node.rdev = d.u64().map_err(cbor)?,
        18 => {
            let count = d.array().map_err(cbor)?.ok_or(value("attributes"))?;
            if count % 2 != 0 || count / 2 > XATTRS_MAX {
                return Err(value("attributes"));
            }
            for _ in 0..count / 2 {
                let name = bounded(d, NAME_MAX, "attribute name")?;
                node.xattrs.push((name, bounded(d, XATTR_VALUE_MAX, "attribute value")?));
            }
        }
        19 => node.flags = d.u32().map_err(cbor)?,
        20 => node.hard_link = Some(fixed(d, "hard link")?),
        _ => {
            node.problem = match d.u8().map_err(cbor)? {
                1 => Some(Problem::Unreadable),
                2 => Some(Problem::Changed),
                _ => return Err(value("problem")),
            };
        }
    }
    Ok(())
}
