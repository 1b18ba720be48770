//! Writing tar: POSIX.1-2001 with the records of GNU tar and star for what POSIX does not know.
//!
//! # Invariants
//! Names are relative and of plain components. What a header announces follows in full, whatever becomes of the content; an
//! archive that holds content which is not that of its file ends without an end, so that every reader fails.

mod acl;
mod header;
mod sparse;

use self::header::{BLOCK, Header, base, decimal, padded, put_record};
use self::sparse::Parts;
use super::entry::{Entry, Piece, Problem, Refusal};
use super::sink::Sink;
use crate::error::Error;
use crate::format::node::{FileTime, NodeKind};
use crate::ops::restore::flaw::Flaw;

/// Archives are padded to whole records, as tar does.
const RECORD: u64 = 20 * BLOCK as u64;

/// What a file turns into whose content was lost when its beginning was written. A link that leads nowhere: who opens it is told
/// so, and nobody takes it for the file.
const SPOILED_TARGET: &[u8] = b"lifeboat: the content is damaged and was left out";

/// The last member of an archive that never ends: which files are not what they should be.
const SPOILED_LIST: &[u8] = b"LIFEBOAT-DAMAGED.txt";

/// Most names in that list.
const SPOILED_KEPT: usize = 1000;

/// The file under way.
#[derive(Debug)]
struct Open {
    parts: Parts,
    /// Where the next byte of the file would belong.
    at: u64,
    size: u64,
    /// Bytes that are still to come, map and padding not counted.
    left: u64,
    /// All of them.
    stored: u64,
}

#[derive(Debug, Default)]
pub(super) struct Tar {
    /// Owners go by number alone.
    numeric: bool,
    open: Option<Open>,
    /// Files whose content was lost midway, the first ones,
    spoiled: Vec<Vec<u8>>,
    /// and how many more there are.
    more_spoiled: u64,
}

impl Tar {
    /// `numeric`: names of owners are left out.
    pub(super) fn new(numeric: bool) -> Self {
        Self { numeric, ..Self::default() }
    }

    /// Writes an entry without content; a link to `first` if that is given.
    pub(super) async fn entry(
        &mut self,
        sink: &mut Sink,
        entry: &Entry,
        first: Option<&[u8]>,
    ) -> Result<(), Refusal> {
        let mut header = self.header(entry);
        if let Some(first) = first {
            header.kind = header::LINK;
            header.link = first.to_vec();
            return Ok(sink.put(&header.encode(b"")).await?);
        }
        match entry.node.kind {
            NodeKind::Symlink => {
                header.kind = header::SYMLINK;
                header.link = entry.node.target.clone();
            }
            NodeKind::Directory => {
                header.kind = header::DIRECTORY;
                if header.name.is_empty() {
                    header.name.push(b'.');
                }
                header.name.push(b'/');
            }
            NodeKind::Fifo => header.kind = header::FIFO,
            NodeKind::CharDevice | NodeKind::BlockDevice => {
                let is_char = entry.node.kind == NodeKind::CharDevice;
                header.kind = if is_char { header::CHAR_DEVICE } else { header::BLOCK_DEVICE };
                let rdev = entry.node.rdev;
                header.device = (rustix::fs::major(rdev), rustix::fs::minor(rdev));
                if header.device.0.max(header.device.1) >= 1 << 21 {
                    return Err(Refusal::Entry(Problem::Device));
                }
            }
            NodeKind::Socket => return Err(Refusal::Entry(Problem::Socket)),
            NodeKind::File | NodeKind::Unknown => return Err(Refusal::Entry(Flaw::Unsaved.into())),
        }
        Ok(sink.put(&header.encode(&records(entry))).await?)
    }

    fn header(&self, entry: &Entry) -> Header {
        let node = &entry.node;
        let name = |name: &Vec<u8>| if self.numeric { Vec::new() } else { name.clone() };
        Header {
            kind: header::FILE,
            name: entry.name().to_vec(),
            mode: node.mode & 0o7777,
            uid: node.uid,
            gid: node.gid,
            mtime: node.mtime,
            user: name(&node.user),
            group: name(&node.group),
            ..Header::default()
        }
    }

    /// Begins a regular file.
    pub(super) async fn begin(&mut self, sink: &mut Sink, entry: &Entry) -> Result<(), Refusal> {
        let node = &entry.node;
        let parts = Parts::new(node.size, &node.holes);
        let mut header = self.header(entry);
        let mut records = records(entry);
        let stored = parts.stored();
        header.size = stored;
        if parts.has_holes() {
            for (key, value) in [
                (&b"GNU.sparse.major"[..], &b"1"[..]),
                (b"GNU.sparse.minor", b"0"),
                (b"GNU.sparse.name", entry.name()),
                (b"GNU.sparse.realsize", node.size.to_string().as_bytes()),
            ] {
                put_record(&mut records, key, value);
            }
            header.is_renamed = true;
            header.name = [b"GNUSparseFile.0/", base(entry.name())].concat();
            header.size = stored.checked_add(parts.map_len()).ok_or(Refusal::Entry(Flaw::Size.into()))?;
        }
        sink.put(&header.encode(&records)).await?;
        if parts.has_holes() {
            sink.give(parts.map()).await?;
        }
        self.open = Some(Open { parts, at: 0, size: node.size, left: stored, stored });
        Ok(())
    }

    /// Writes bytes of the file, which come in order.
    pub(super) async fn piece(&mut self, sink: &mut Sink, piece: Piece) -> Result<(), Error> {
        let Some(open) = &mut self.open else { return Ok(()) };
        let zeroes = open.parts.between(open.at, piece.place);
        let len = piece.raw.len() as u64;
        open.at = piece.place.saturating_add(len);
        let counted = open.parts.between(piece.place, open.at);
        open.left = open.left.saturating_sub(zeroes + len);
        debug_assert_eq!(counted, len, "content lies in parts");
        sink.zeroes(zeroes).await?;
        sink.give(piece.raw).await
    }

    /// Ends the file, all of whose content was written.
    pub(super) async fn end(&mut self, sink: &mut Sink) -> Result<(), Error> {
        let Some(mut open) = self.open.take() else { return Ok(()) };
        let zeroes = open.parts.between(open.at, open.size);
        debug_assert_eq!(open.left, zeroes, "what is left lies in holes");
        sink.zeroes(open.left + padded(open.stored) - open.stored).await
    }

    /// Ends a file whose content is lost: what was announced is filled up, so that what comes after it can be read, and a link
    /// that leads nowhere takes its name.
    pub(super) async fn spoil(&mut self, sink: &mut Sink, entry: &Entry) -> Result<(), Error> {
        let Some(open) = self.open.take() else { return Ok(()) };
        sink.zeroes(open.left + padded(open.stored) - open.stored).await?;
        let mut header = self.header(entry);
        header.kind = header::SYMLINK;
        header.mode = 0o777;
        header.link = SPOILED_TARGET.to_vec();
        match self.spoiled.len() < SPOILED_KEPT {
            true => self.spoiled.push(entry.name().to_vec()),
            false => self.more_spoiled += 1,
        }
        sink.put(&header.encode(b"")).await
    }

    /// Ends the archive.
    pub(super) async fn finish(self, sink: &mut Sink) -> Result<(), Error> {
        if !self.spoiled.is_empty() {
            return self.break_off(sink).await;
        }
        let end = sink.at() + 2 * BLOCK as u64;
        sink.zeroes(end.next_multiple_of(RECORD) - sink.at()).await
    }

    /// The last member announces more than there is.
    async fn break_off(self, sink: &mut Sink) -> Result<(), Error> {
        let mut text = b"The content of these files is damaged in the repository. It was noticed when a part of them was written\n\
            already; links without a target stand in their place. Everything else is whole.\n\n"
            .to_vec();
        for name in &self.spoiled {
            text.extend_from_slice(name);
            text.push(b'\n');
        }
        if self.more_spoiled > 0 {
            text.extend_from_slice(format!("\nand {} more\n", self.more_spoiled).as_bytes());
        }
        text.resize(text.len().next_multiple_of(BLOCK), b'\n');
        let header = Header {
            kind: header::FILE,
            name: SPOILED_LIST.to_vec(),
            mode: 0o600,
            size: (text.len() + BLOCK) as u64,
            ..Header::default()
        };
        sink.put(&header.encode(b"")).await?;
        sink.put(&text).await
    }
}

/// What a ustar header does not know of an entry: the time of the last read, attributes, lists, flags.
fn records(entry: &Entry) -> Vec<u8> {
    let node = &entry.node;
    let mut out = Vec::new();
    if let Some(FileTime { seconds, nanos }) = node.atime {
        put_record(&mut out, b"atime", decimal(FileTime { seconds, nanos }).as_bytes());
    }
    if matches!(node.kind, NodeKind::File | NodeKind::Directory)
        && let Some(flags) = flags(node.flags)
    {
        put_record(&mut out, b"SCHILY.fflags", flags.as_bytes());
    }
    for (name, value) in node.xattrs.iter().filter(|(name, _)| is_writable(name)) {
        // As text for `--acls` and `--selinux`, and as bytes for `--xattrs`.
        let (key, text) = match name.as_slice() {
            acl::ACCESS => (&b"SCHILY.acl.access"[..], acl::text(value).map(String::into_bytes)),
            acl::DEFAULT => (&b"SCHILY.acl.default"[..], acl::text(value).map(String::into_bytes)),
            b"security.selinux" => {
                (&b"RHT.security.selinux"[..], Some(value.strip_suffix(b"\0").unwrap_or(value).to_vec()))
            }
            _ => (&b""[..], None),
        };
        if let Some(text) = text {
            put_record(&mut out, key, &text);
        }
        let mut key = b"SCHILY.xattr.".to_vec();
        for byte in name {
            match byte {
                b'%' => key.extend_from_slice(b"%25"),
                b'=' => key.extend_from_slice(b"%3D"),
                other => key.push(*other),
            }
        }
        put_record(&mut out, &key, value);
    }
    out
}

fn is_writable(name: &[u8]) -> bool {
    !name.is_empty() && !name.contains(&0)
}

/// What of an entry an archive does not hold.
pub(super) fn lacks(entry: &Entry) -> Option<Problem> {
    let all = entry.node.xattrs.iter().all(|(name, _)| is_writable(name));
    (!all).then_some(Problem::AttributeName)
}

/// The flags of `chattr` by the names of libarchive.
fn flags(bits: u32) -> Option<String> {
    const NAMES: [(u32, &str); 12] = [
        (0x1, "securedeletion"),
        (0x4, "compress"),
        (0x8, "sync"),
        (0x10, "schg"),
        (0x20, "sappnd"),
        (0x40, "nodump"),
        (0x80, "noatime"),
        (0x4000, "journal-data"),
        (0x8000, "notail"),
        (0x1_0000, "dirsync"),
        (0x2_0000, "topdir"),
        (0x80_0000, "nocow"),
    ];
    let names: Vec<_> = NAMES.into_iter().filter(|(bit, _)| bits & bit != 0).map(|(_, name)| name).collect();
    (!names.is_empty()).then(|| names.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::node::Node;

    #[test]
    fn attributes_are_records() {
        let mut node = Node::new(b"f".to_vec(), NodeKind::File);
        node.atime = Some(FileTime { seconds: 7, nanos: 5 });
        node.flags = 0x8_0000 | 0x90;
        node.xattrs = vec![
            (b"security.selinux".to_vec(), b"label\0".to_vec()),
            (b"system.posix_acl_access".to_vec(), b"no list".to_vec()),
            (b"user.a=b%".to_vec(), b"\0\n\xff".to_vec()),
            (b"user.\0".to_vec(), b"x".to_vec()),
        ];
        let entry = Entry::new(b"/f", 1, Box::new(node));
        let text = String::from_utf8_lossy(&records(&entry)).into_owned();
        for part in [
            "21 atime=7.000000005\n",
            " SCHILY.fflags=schg,noatime\n",
            " RHT.security.selinux=label\n",
            " SCHILY.xattr.security.selinux=label\0\n",
            " SCHILY.xattr.system.posix_acl_access=no list\n",
            " SCHILY.xattr.user.a%3Db%25=\0\n\u{fffd}\n",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert!(!text.contains("SCHILY.acl") && !text.contains("user.\0"));
        assert_eq!(lacks(&entry), Some(Problem::AttributeName));
    }

    #[tokio::test]
    async fn the_list_of_what_is_damaged_says_how_many_it_does_not_name() {
        use std::io::{Read, Seek};
        let mut file = tempfile::tempfile().unwrap();
        let mut sink = Sink::start(Box::new(file.try_clone().unwrap())).unwrap();
        let mut tar = Tar::new(false);
        for number in 0..SPOILED_KEPT + 2 {
            let node = Node::new(format!("f{number}").into_bytes(), NodeKind::File);
            let entry = Entry::new(format!("/f{number}").as_bytes(), 1, Box::new(node));
            tar.begin(&mut sink, &entry).await.unwrap();
            tar.spoil(&mut sink, &entry).await.unwrap();
        }
        tar.finish(&mut sink).await.unwrap();
        sink.finish().await.unwrap();
        let mut bytes = Vec::new();
        file.rewind().unwrap();
        file.read_to_end(&mut bytes).unwrap();
        let text = String::from_utf8_lossy(&bytes);
        assert!(text.contains("\nf999\n\nand 2 more\n") && !text.contains("\nf1000\n"));
    }
}
