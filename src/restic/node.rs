//! One entry of a directory as restic describes it.

use serde::Deserialize;

use super::text::{Base64, Name, Time};
use crate::format::node::FileTime;
use crate::id::ResticId;

/// Most characters that are kept of a kind that is not known.
const KIND_MAX: usize = 64;

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeType {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A symbolic link.
    Symlink,
    /// A block device.
    Dev,
    /// A character device.
    CharDev,
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
    /// Anything else, in restic's word, or the beginning of a long one.
    Unknown(String),
}

#[derive(Deserialize)]
pub(super) struct StoredNode {
    name: Name,
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    mode: u32,
    #[serde(default)]
    mtime: Time,
    atime: Option<Time>,
    #[serde(default)]
    uid: u32,
    #[serde(default)]
    gid: u32,
    #[serde(default)]
    user: String,
    #[serde(default)]
    group: String,
    #[serde(default)]
    inode: u64,
    #[serde(default)]
    device_id: u64,
    #[serde(default)]
    size: u64,
    #[serde(default)]
    links: u64,
    #[serde(default)]
    linktarget: String,
    linktarget_raw: Option<Base64>,
    extended_attributes: Option<Vec<StoredAttribute>>,
    generic_attributes: Option<serde::de::IgnoredAny>,
    #[serde(default)]
    device: u64,
    content: Option<Vec<ResticId>>,
    subtree: Option<ResticId>,
}

#[derive(Deserialize)]
struct StoredAttribute {
    name: String,
    value: Option<Base64>,
}

/// One entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Raw bytes of the name.
    pub name: Vec<u8>,
    /// What it is.
    pub kind: NodeType,
    /// Permission bits as Unix has them, `0o7777` at most.
    pub mode: u32,
    /// Last change of content.
    pub mtime: FileTime,
    /// Last read.
    pub atime: Option<FileTime>,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Name of the owner.
    pub user: String,
    /// Name of the group.
    pub group: String,
    /// Number of the file, and of the device it was on; the same for all names of one file.
    pub inode: (u64, u64),
    /// How many names the file had.
    pub links: u64,
    /// Bytes of a regular file, as restic saw it.
    pub size: u64,
    /// Target of a symbolic link, raw bytes.
    pub target: Vec<u8>,
    /// Device number of a device.
    pub device: u64,
    /// Extended attributes, ascending by name, each name once.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Whether it has attributes of Windows.
    pub windows: bool,
    /// The blobs of a regular file.
    pub content: Vec<ResticId>,
    /// The entries of a directory.
    pub subtree: Option<ResticId>,
}

impl From<StoredNode> for Node {
    fn from(stored: StoredNode) -> Self {
        let kind = match stored.kind.as_str() {
            "file" => NodeType::File,
            "dir" => NodeType::Dir,
            "symlink" => NodeType::Symlink,
            "dev" => NodeType::Dev,
            "chardev" => NodeType::CharDev,
            "fifo" => NodeType::Fifo,
            "socket" => NodeType::Socket,
            other => NodeType::Unknown(other.chars().take(KIND_MAX).collect()),
        };
        let attribute = |a: StoredAttribute| (a.name.into_bytes(), a.value.unwrap_or_default().0);
        let mut xattrs: Vec<_> =
            stored.extended_attributes.unwrap_or_default().into_iter().map(attribute).collect();
        xattrs.sort();
        xattrs.dedup_by(|a, b| a.0 == b.0);
        Self {
            name: stored.name.0,
            kind,
            mode: unix_mode(stored.mode),
            mtime: stored.mtime.0,
            atime: stored.atime.map(|time| time.0),
            uid: stored.uid,
            gid: stored.gid,
            user: stored.user,
            group: stored.group,
            inode: (stored.device_id, stored.inode),
            links: stored.links,
            size: stored.size,
            target: stored.linktarget_raw.map_or_else(|| stored.linktarget.into_bytes(), |raw| raw.0),
            device: stored.device,
            xattrs,
            windows: stored.generic_attributes.is_some(),
            content: stored.content.unwrap_or_default(),
            subtree: stored.subtree,
        }
    }
}

/// The permission bits of Go's `fs.FileMode`.
fn unix_mode(mode: u32) -> u32 {
    let bit = |go: u32, unix: u32| if mode & go != 0 { unix } else { 0 };
    mode & 0o777 | bit(1 << 23, 0o4000) | bit(1 << 22, 0o2000) | bit(1 << 20, 0o1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(json: &str) -> Result<Node, serde_json::Error> {
        serde_json::from_str::<StoredNode>(json).map(Node::from)
    }

    #[test]
    fn the_bits_of_go_become_those_of_unix() {
        assert_eq!(unix_mode(0o644), 0o644);
        assert_eq!(unix_mode(1 << 31 | 0o755), 0o755);
        assert_eq!(unix_mode(1 << 23 | 1 << 22 | 1 << 20 | 0o751), 0o7751);
        assert_eq!(unix_mode(u32::MAX), 0o7777);
        assert_eq!(unix_mode(0o7000), 0, "Go has these bits elsewhere");
    }

    #[test]
    fn the_documented_entries_are_read() {
        let file = node(
            r#"{"name":"test\\xffile","type":"file","mode":420,"mtime":"2014-12-06T17:50:23.34513538+01:00",
            "atime":"2014-12-06T17:50:23.338468713+01:00","ctime":"2014-12-06T17:50:23.34513538+01:00","uid":1000,
            "gid":100,"user":"fd0","inode":416863351,"size":1234,"links":1,
            "extended_attributes":[{"name":"user.b","value":"AA=="},{"name":"user.a","value":null}],
            "content":["50f77b3b4291e8411a027b9f9b9e64658181cc676ce6ba9958b95f268cb1109d"]}"#,
        )
        .unwrap();
        assert_eq!(
            (file.name.as_slice(), file.kind, file.content.len()),
            (&b"test\xffile"[..], NodeType::File, 1)
        );
        assert_eq!(file.mtime, FileTime { seconds: 1_417_884_623, nanos: 345_135_380 });
        assert_eq!(file.xattrs, [(b"user.a".to_vec(), vec![]), (b"user.b".to_vec(), vec![0])]);
        let link = node(
            r#"{"name":"l","type":"symlink","mode":134218239,"mtime":"2023-07-25T20:01:44Z","linktarget":"a\ufffd",
            "linktarget_raw":"Yf8=","content":null}"#,
        )
        .unwrap();
        assert_eq!((link.target.as_slice(), link.mode), (&b"a\xff"[..], 0o777));
        let odd = node(r#"{"name":"x","type":"irregular","mtime":"2023-07-25T20:01:44Z"}"#).unwrap();
        assert_eq!(odd.kind, NodeType::Unknown("irregular".to_owned()));
        let long = node(&format!(r#"{{"name":"x","type":"{}"}}"#, "é".repeat(100_000))).unwrap();
        assert_eq!(long.kind, NodeType::Unknown("é".repeat(KIND_MAX)));
    }

    #[test]
    fn what_is_no_entry_is_an_error() {
        for bad in [
            "{}",
            r#"{"name":"a"}"#,
            r#"{"name":"\\q","type":"file"}"#,
            r#"{"name":"a","type":"file","uid":-1}"#,
            r#"{"name":"a","type":"file","mtime":"yesterday"}"#,
            r#"{"name":"a","type":"file","content":["x"]}"#,
            r#"{"name":"a","type":"file","content":[["x"]]}"#,
        ] {
            assert!(node(bad).is_err(), "{bad}");
        }
    }
}
