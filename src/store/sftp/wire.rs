//! What travels: version 3 of the protocol (draft-ietf-secsh-filexfer-02) and extensions that OpenSSH defines in its file
//! `PROTOCOL`. Values to bytes and back, without I/O but for the reading and writing of one frame.
//!
//! # Invariants
//! No bytes make it panic, and no more than [`FRAME_MAX`] is allocated for what comes.

use std::io::{self, Read, Write};

use bytes::{Buf, Bytes};

/// The version that is spoken. Those after it were given up, and no server needs them.
pub(super) const VERSION: u32 = 3;
/// Bytes of a frame, its length not counted; OpenSSH sends 256 KiB at most.
pub(super) const FRAME_MAX: u32 = 264 * 1024;
/// Content of one request where the server does not say what it takes: every server takes this.
pub(super) const PIECE: u32 = 32 * 1024;
/// Content of one request whatever the server says: what OpenSSH takes.
pub(super) const PIECE_MAX: u32 = 255 * 1024;

/// Rights of files and directories that are made, as those of a local store: for their owner alone, and nothing is written twice.
const FILE: u32 = 0o400;
const DIRECTORY: u32 = 0o700;

const FSYNC: &[u8] = b"fsync@openssh.com";
const HARDLINK: &[u8] = b"hardlink@openssh.com";
const STATVFS: &[u8] = b"statvfs@openssh.com";
const LIMITS: &[u8] = b"limits@openssh.com";

/// Why bytes are not what may come.
#[derive(Debug, thiserror::Error)]
pub(super) enum WireError {
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Longer than anything that is asked for, or too short to be something. The bytes of the length are kept: they may be
    /// the beginning of a text.
    #[error("a frame of {} bytes", u32::from_be_bytes(*length))]
    Length { length: [u8; 4] },
    #[error("a frame of kind {kind} that cannot be read")]
    Malformed { kind: u8 },
}

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Read,
    /// It must not be there.
    WriteNew,
}

/// A request.
#[derive(Debug, Clone)]
pub(super) enum Ask<'a> {
    Hello,
    Open {
        path: &'a str,
        mode: Mode,
    },
    Close {
        handle: &'a Bytes,
    },
    Read {
        handle: &'a Bytes,
        offset: u64,
        len: u32,
    },
    Write {
        handle: &'a Bytes,
        offset: u64,
        content: Bytes,
    },
    /// Of what a link points to.
    Stat {
        path: &'a str,
    },
    /// Of a link itself.
    LinkStat {
        path: &'a str,
    },
    HandleStat {
        handle: &'a Bytes,
    },
    OpenDirectory {
        path: &'a str,
    },
    ReadDirectory {
        handle: &'a Bytes,
    },
    Remove {
        path: &'a str,
    },
    MakeDirectory {
        path: &'a str,
    },
    Rename {
        from: &'a str,
        to: &'a str,
    },
    Link {
        from: &'a str,
        to: &'a str,
    },
    Sync {
        handle: &'a Bytes,
    },
    Space {
        path: &'a str,
    },
    Limits,
}

/// A request as bytes. Content is not copied.
#[derive(Debug)]
pub(super) struct Frame {
    head: Vec<u8>,
    content: Bytes,
}

impl Frame {
    pub(super) fn write(&self, output: &mut impl Write) -> io::Result<()> {
        let len =
            u32::try_from(self.head.len() + self.content.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        output.write_all(&len.to_be_bytes())?;
        output.write_all(&self.head)?;
        output.write_all(&self.content)
    }
}

struct Head(Vec<u8>);

impl Head {
    fn kind(kind: u8, id: u32) -> Self {
        Self([&[kind][..], &id.to_be_bytes()].concat())
    }

    fn extended(id: u32, name: &[u8]) -> Self {
        Self::kind(200, id).string(name)
    }

    fn number(mut self, number: u32) -> Self {
        self.0.extend_from_slice(&number.to_be_bytes());
        self
    }

    fn long(mut self, number: u64) -> Self {
        self.0.extend_from_slice(&number.to_be_bytes());
        self
    }

    /// Attributes that are the rights and nothing else.
    fn rights(self, mode: u32) -> Self {
        self.number(4).number(mode)
    }

    fn string(self, bytes: &[u8]) -> Self {
        // Paths are made of keys and of an address, handles have come in a frame.
        let mut head = self.number(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
        head.0.extend_from_slice(bytes);
        head
    }
}

impl Ask<'_> {
    /// As bytes; the number means nothing in a greeting.
    pub(super) fn frame(&self, id: u32) -> Frame {
        let kind = |kind| Head::kind(kind, id);
        let head = match self {
            Self::Hello => Head(vec![1]).number(VERSION),
            Self::Open { path, mode } => {
                let flags = match mode {
                    Mode::Read => 0x01,
                    Mode::WriteNew => 0x02 | 0x08 | 0x20,
                };
                let head = kind(3).string(path.as_bytes()).number(flags);
                if *mode == Mode::Read { head.number(0) } else { head.rights(FILE) }
            }
            Self::Close { handle } => kind(4).string(handle),
            Self::Read { handle, offset, len } => kind(5).string(handle).long(*offset).number(*len),
            Self::Write { handle, offset, content } => {
                let len = u32::try_from(content.len()).unwrap_or(u32::MAX);
                kind(6).string(handle).long(*offset).number(len)
            }
            Self::LinkStat { path } => kind(7).string(path.as_bytes()),
            Self::HandleStat { handle } => kind(8).string(handle),
            Self::OpenDirectory { path } => kind(11).string(path.as_bytes()),
            Self::ReadDirectory { handle } => kind(12).string(handle),
            Self::Remove { path } => kind(13).string(path.as_bytes()),
            Self::MakeDirectory { path } => kind(14).string(path.as_bytes()).rights(DIRECTORY),
            Self::Stat { path } => kind(17).string(path.as_bytes()),
            Self::Rename { from, to } => kind(18).string(from.as_bytes()).string(to.as_bytes()),
            Self::Link { from, to } => {
                Head::extended(id, HARDLINK).string(from.as_bytes()).string(to.as_bytes())
            }
            Self::Sync { handle } => Head::extended(id, FSYNC).string(handle),
            Self::Space { path } => Head::extended(id, STATVFS).string(path.as_bytes()),
            Self::Limits => Head::extended(id, LIMITS),
        };
        let content = if let Self::Write { content, .. } = self { content.clone() } else { Bytes::new() };
        Frame { head: head.0, content }
    }
}

/// What a server can do beside what every one can.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Features {
    /// Makes the content of an open file durable.
    pub(super) sync: bool,
    /// Gives a file a second name, if nothing has it.
    pub(super) link: bool,
    /// Says how much room there is.
    pub(super) space: bool,
    /// Says how much content one request may have.
    pub(super) limits: bool,
}

/// The answer to a greeting.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Hello {
    pub(super) version: u32,
    pub(super) features: Features,
}

/// Of a file, as far as the server says it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Attributes {
    pub(super) size: Option<u64>,
    /// Kind and rights, as POSIX has them.
    pub(super) mode: Option<u32>,
    /// Seconds since 1970.
    pub(super) modified: Option<u32>,
}

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Directory,
    Other,
}

impl Attributes {
    /// `None` if the server does not say.
    pub(super) fn kind(&self) -> Option<Kind> {
        self.mode.map(|mode| match mode & 0o170_000 {
            0o100_000 => Kind::File,
            0o040_000 => Kind::Directory,
            _ => Kind::Other,
        })
    }
}

/// A name in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) name: Bytes,
    pub(super) attributes: Attributes,
}

/// Room on a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Space {
    /// Bytes for whoever asks.
    pub(super) free: u64,
    /// No more files can be made.
    pub(super) no_names: bool,
    /// Nothing can be written.
    pub(super) read_only: bool,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reply {
    Status {
        code: u32,
        message: Bytes,
    },
    Handle(Bytes),
    Data(Bytes),
    Names(Vec<Row>),
    Attributes(Attributes),
    /// What it means depends on what was asked.
    Extended(Bytes),
}

struct Reader(Bytes);

impl Reader {
    fn number(&mut self) -> Option<u32> {
        self.0.try_get_u32().ok()
    }

    fn long(&mut self) -> Option<u64> {
        self.0.try_get_u64().ok()
    }

    fn string(&mut self) -> Option<Bytes> {
        let len = usize::try_from(self.number()?).ok()?;
        (len <= self.0.len()).then(|| self.0.split_to(len))
    }

    fn attributes(&mut self) -> Option<Attributes> {
        let mut attributes = Attributes::default();
        let flags = self.number()?;
        if flags & 1 != 0 {
            attributes.size = Some(self.long()?);
        }
        if flags & 2 != 0 {
            self.long()?;
        }
        if flags & 4 != 0 {
            attributes.mode = Some(self.number()?);
        }
        if flags & 8 != 0 {
            self.number()?;
            attributes.modified = Some(self.number()?);
        }
        if flags & 0x8000_0000 != 0 {
            for _ in 0..self.number()? {
                self.string()?;
                self.string()?;
            }
        }
        Some(attributes)
    }

    fn names(&mut self) -> Option<Vec<Row>> {
        let count = self.number()?;
        // Each takes bytes of the frame, so there are not more than it has.
        let mut rows = Vec::new();
        for _ in 0..count {
            let name = self.string()?;
            // A line for people.
            self.string()?;
            rows.push(Row { name, attributes: self.attributes()? });
        }
        Some(rows)
    }
}

/// Reads the content of one frame.
pub(super) fn read_frame(input: &mut impl Read) -> Result<Bytes, WireError> {
    let mut length = [0; 4];
    input.read_exact(&mut length)?;
    let len = u32::from_be_bytes(length);
    if !(5..=FRAME_MAX).contains(&len) {
        return Err(WireError::Length { length });
    }
    let mut content = Vec::with_capacity(len as usize);
    input.take(u64::from(len)).read_to_end(&mut content)?;
    if content.len() < len as usize {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
    }
    Ok(content.into())
}

impl Hello {
    pub(super) fn parse(mut frame: Bytes) -> Result<Self, WireError> {
        let kind = frame.try_get_u8().unwrap_or(0);
        let malformed = || WireError::Malformed { kind };
        if kind != 2 {
            return Err(malformed());
        }
        let mut reader = Reader(frame);
        let version = reader.number().ok_or_else(malformed)?;
        let mut features = Features::default();
        while !reader.0.is_empty() {
            let name = reader.string().ok_or_else(malformed)?;
            let offered = reader.string().ok_or_else(malformed)?;
            let is_version = |wanted: &[u8]| offered.as_ref() == wanted;
            match name.as_ref() {
                FSYNC => features.sync = is_version(b"1"),
                HARDLINK => features.link = is_version(b"1"),
                STATVFS => features.space = is_version(b"2"),
                LIMITS => features.limits = is_version(b"1"),
                _ => {}
            }
        }
        Ok(Self { version, features })
    }
}

impl Reply {
    /// The answer, and the number of what it answers.
    pub(super) fn parse(mut frame: Bytes) -> Result<(u32, Self), WireError> {
        let kind = frame.try_get_u8().unwrap_or(0);
        let mut reader = Reader(frame);
        let parsed = reader.number().and_then(|id| {
            let reply = match kind {
                101 => {
                    let code = reader.number()?;
                    // Servers of old leave the text out.
                    Self::Status { code, message: reader.string().unwrap_or_default() }
                }
                102 => Self::Handle(reader.string()?),
                103 => Self::Data(reader.string()?),
                104 => Self::Names(reader.names()?),
                105 => Self::Attributes(reader.attributes()?),
                201 => Self::Extended(reader.0),
                _ => return None,
            };
            Some((id, reply))
        });
        parsed.ok_or(WireError::Malformed { kind })
    }
}

impl Space {
    /// From the answer to [`Ask::Space`].
    pub(super) fn parse(answer: Bytes) -> Option<Self> {
        let mut reader = Reader(answer);
        let mut numbers = [0; 11];
        for number in &mut numbers {
            *number = reader.long()?;
        }
        let [_, unit, _, _, blocks, files, _, names, _, flags, _] = numbers;
        Some(Self {
            free: unit.saturating_mul(blocks),
            // Some file systems do not count names: they have zero of zero.
            no_names: files > 0 && names == 0,
            read_only: flags & 1 != 0,
        })
    }
}

/// Bytes of content that one request may read and write, from the answer to [`Ask::Limits`].
pub(super) fn parse_limits(answer: Bytes) -> Option<(u32, u32)> {
    let mut reader = Reader(answer);
    reader.long()?;
    // Zero: it does not say.
    let piece = |most: u64| match most {
        0 => PIECE,
        most => u32::try_from(most).unwrap_or(PIECE_MAX).min(PIECE_MAX),
    };
    Some((piece(reader.long()?), piece(reader.long()?)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::played::{greeting, reply, string};
    use super::*;

    #[test]
    fn the_extensions_that_count_are_found_by_name_and_version() {
        let of = |extensions: &[(&str, &str)]| {
            Hello::parse(Bytes::from(greeting(extensions)).slice(4..)).unwrap().features
        };
        let all = [
            ("posix-rename@openssh.com", "1"),
            ("statvfs@openssh.com", "2"),
            ("hardlink@openssh.com", "1"),
            ("fsync@openssh.com", "1"),
            ("limits@openssh.com", "1"),
        ];
        assert_eq!(of(&all), Features { sync: true, link: true, space: true, limits: true });
        assert_eq!(of(&[]), Features::default());
        assert_eq!(of(&[("fsync@openssh.com", "2"), ("statvfs@openssh.com", "1")]), Features::default());
        assert!(Hello::parse(Bytes::from_static(&[2, 0, 0, 0, 3, 0, 0, 0, 9, 1])).is_err());
        assert!(Hello::parse(Bytes::from_static(&[101, 0, 0, 0, 3])).is_err());
    }

    #[test]
    fn a_length_that_cannot_be_is_no_allocation() {
        for bad in [[0, 0, 0, 4], [0xff; 4], *b"Welc"] {
            let error = read_frame(&mut &bad[..]).unwrap_err();
            assert!(matches!(error, WireError::Length { length } if length == bad), "{error}");
        }
        assert!(matches!(read_frame(&mut &[0, 0, 0, 9, 1][..]), Err(WireError::Io(_))));
        // A count of names without names.
        let bad = reply(104, 1, &u32::MAX.to_be_bytes());
        assert!(Reply::parse(Bytes::from(bad).slice(4..)).is_err());
    }

    #[test]
    fn what_openssh_sends_is_read() {
        // A line of a directory: size, owner, rights and times.
        let attributes = [
            &0xf_u32.to_be_bytes()[..],
            &7_u64.to_be_bytes(),
            &[0; 8],
            &0o100_644_u32.to_be_bytes(),
            &1_u32.to_be_bytes(),
            &1_700_000_000_u32.to_be_bytes(),
        ]
        .concat();
        let row = [string(b"a\xff/\n"), string(b"-rw-r--r-- a"), attributes].concat();
        let frame = reply(104, 9, &[&1_u32.to_be_bytes()[..], &row].concat());
        let frame = read_frame(&mut &frame[..]).unwrap();
        let (id, Reply::Names(rows)) = Reply::parse(frame).unwrap() else { panic!("names") };
        assert_eq!((id, rows[0].name.as_ref()), (9, &b"a\xff/\n"[..]));
        let found = rows[0].attributes;
        assert_eq!((found.size, found.modified), (Some(7), Some(1_700_000_000)));
        assert_eq!(found.kind(), Some(Kind::File));
        assert_eq!(Attributes::default().kind(), None);
        let old = reply(101, 3, &4_u32.to_be_bytes());
        let wanted = Reply::Status { code: 4, message: Bytes::new() };
        assert_eq!(Reply::parse(Bytes::from(old).slice(4..)).unwrap(), (3, wanted));
    }

    #[test]
    fn room_and_limits_are_taken_within_bounds() {
        let longs = |numbers: &[u64]| {
            Bytes::from(numbers.iter().flat_map(|number| number.to_be_bytes()).collect::<Vec<u8>>())
        };
        let space = Space::parse(longs(&[512, 4096, 9, 8, 3, 10, 0, 0, 1, 1, 255])).unwrap();
        assert_eq!(space, Space { free: 3 * 4096, no_names: true, read_only: true });
        let huge = Space::parse(longs(&[1, u64::MAX, 1, 1, u64::MAX, 0, 0, 0, 1, 0, 255])).unwrap();
        assert_eq!(huge, Space { free: u64::MAX, no_names: false, read_only: false });
        assert!(Space::parse(longs(&[1; 10])).is_none());
        assert_eq!(parse_limits(longs(&[0, 0, 1 << 40, 9])), Some((PIECE, PIECE_MAX)));
        assert_eq!(parse_limits(longs(&[0, 261_120, 1000, 9])), Some((261_120, 1000)));
        assert_eq!(parse_limits(longs(&[0])), None);
    }

    #[test]
    fn requests_are_as_the_draft_has_them() {
        let bytes = |ask: Ask<'_>| {
            let mut bytes = Vec::new();
            ask.frame(7).write(&mut bytes).unwrap();
            bytes
        };
        assert_eq!(bytes(Ask::Hello), [0, 0, 0, 5, 1, 0, 0, 0, 3]);
        let open = bytes(Ask::Open { path: "a/b", mode: Mode::WriteNew });
        assert_eq!(open, *b"\0\0\0\x18\x03\0\0\0\x07\0\0\0\x03a/b\0\0\0\x2a\0\0\0\x04\0\0\x01\0");
        let open = bytes(Ask::Open { path: "a/b", mode: Mode::Read });
        assert_eq!(open, *b"\0\0\0\x14\x03\0\0\0\x07\0\0\0\x03a/b\0\0\0\x01\0\0\0\0");
        let handle = Bytes::from_static(b"h");
        let content = Bytes::from_static(b"xyz");
        let write = bytes(Ask::Write { handle: &handle, offset: 258, content });
        assert_eq!(write, *b"\0\0\0\x19\x06\0\0\0\x07\0\0\0\x01h\0\0\0\0\0\0\x01\x02\0\0\0\x03xyz");
        let link = bytes(Ask::Link { from: "a", to: "b" });
        assert!(link.ends_with(b"\0\0\0\x14hardlink@openssh.com\0\0\0\x01a\0\0\0\x01b"), "{link:?}");
    }

    proptest! {
        #[test]
        fn whatever_comes_is_a_value_or_an_error(
            kind in prop::sample::select(vec![0_u8, 2, 101, 102, 103, 104, 105, 201, 255]),
            content in prop::collection::vec(prop_oneof![Just(0_u8), Just(1), Just(4), any::<u8>()], 0..200),
        ) {
            let frame = Bytes::from([vec![kind], content].concat());
            let len = frame.len();
            let _ = Hello::parse(frame.clone());
            let _ = Space::parse(frame.clone());
            let _ = parse_limits(frame.clone());
            let _ = read_frame(&mut &frame[..]);
            if let Ok((_, Reply::Names(rows))) = Reply::parse(frame) {
                prop_assert!(rows.len() <= len);
            }
        }
    }
}
