//! What travels between the two sides of a door, byte for byte: `docs/serve.md`.
//!
//! # Must not
//! Trust a length: nothing is allocated before it was held against the most that its kind may have.

use std::io::{self, Read, Write};

use bytes::Bytes;

pub use super::message::{Answer, Ask, Code, Row};
pub use crate::format::keyslot::Role;

/// What each side says first, before the versions it knows.
pub const MAGIC: [u8; 8] = *b"LIFEBOAT";
/// The lowest and the highest version this program speaks.
pub const VERSIONS: (u16, u16) = (1, 1);
/// Most bytes of content in one frame.
pub const DATA_MAX: usize = 128 * 1024;
/// Most bytes of any other frame.
pub const CONTROL_MAX: usize = 4096;
/// Bytes of content that may be under way for one request.
pub const WINDOW: u32 = 512 * 1024;
/// What a frame of content counts for at least, so that a window is also a bound on frames.
pub const COST_MIN: u32 = 1024;
/// Requests that may be open at the same time.
pub const REQUESTS: usize = 32;
/// Frames that may wait for one request: what its window lets in, and some that have no content.
pub const WAITING: usize = (WINDOW / COST_MIN) as usize + 64;
/// Most bytes of one object.
pub const OBJECT_MAX: u64 = 4 << 30;
/// Bytes before the payload of a frame.
pub const HEADER: usize = 9;
/// Bytes that each side says first.
pub const PREAMBLE: usize = 12;
/// What the one HTTP request of a connection asks to be upgraded to.
pub const UPGRADE: &str = "lifeboat";

/// What a frame of so many bytes of content counts for.
pub fn cost(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX).max(COST_MIN)
}

/// Bytes that are no frame, or not one that may come now.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// The stream failed.
    #[error("the connection failed")]
    Io(#[from] io::Error),
    /// It does not begin as a door does.
    #[error("what came first is not of lifeboat")]
    Magic {
        /// What came instead, as far as it was read.
        found: Vec<u8>,
    },
    /// No version is known to both sides.
    #[error("this side speaks versions {} to {} of the protocol, the other {} to {}", VERSIONS.0, VERSIONS.1, theirs.0, theirs.1)]
    Version {
        /// The lowest and the highest of the other side.
        theirs: (u16, u16),
    },
    /// A frame is longer than its kind may be.
    #[error("a frame of {len} bytes is too long")]
    TooLong {
        /// Bytes it would have.
        len: usize,
    },
    /// A frame that means nothing.
    #[error("{what} cannot be understood")]
    Malformed {
        /// What it should have been.
        what: &'static str,
    },
    /// A frame that may not come now.
    #[error("{what} came where it must not")]
    Unexpected {
        /// What came.
        what: &'static str,
    },
}

/// Who we are and what we speak.
pub fn preamble() -> [u8; PREAMBLE] {
    let mut bytes = [0; PREAMBLE];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..10].copy_from_slice(&VERSIONS.0.to_le_bytes());
    bytes[10..].copy_from_slice(&VERSIONS.1.to_le_bytes());
    bytes
}

/// Says who we are and what we speak.
pub fn write_preamble(output: &mut impl Write) -> io::Result<()> {
    output.write_all(&preamble())?;
    output.flush()
}

/// Who the other side is, by what it said first; fails unless both know a version.
pub fn judge_preamble(bytes: [u8; PREAMBLE]) -> Result<u16, WireError> {
    let (magic, versions) = bytes.split_at(MAGIC.len());
    if magic != MAGIC {
        return Err(WireError::Magic { found: bytes.to_vec() });
    }
    let version = |at: usize| u16::from_le_bytes([versions[at], versions[at + 1]]);
    let theirs = (version(0), version(2));
    let common = theirs.1.min(VERSIONS.1);
    if common < theirs.0.max(VERSIONS.0) { Err(WireError::Version { theirs }) } else { Ok(common) }
}

/// Reads who the other side is; fails unless both know a version.
pub fn read_preamble(input: &mut impl Read) -> Result<u16, WireError> {
    let mut bytes = [0; PREAMBLE];
    let mut filled = 0;
    while filled < bytes.len() {
        let begun = &bytes[..filled.min(MAGIC.len())];
        if !MAGIC.starts_with(begun) {
            return Err(WireError::Magic { found: bytes[..filled].to_vec() });
        }
        match input.read(&mut bytes[filled..]) {
            Ok(0) if filled == 0 => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            Ok(0) => return Err(WireError::Magic { found: bytes[..filled].to_vec() }),
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
    judge_preamble(bytes)
}

/// What comes before the payload of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// What the frame is.
    pub kind: u8,
    /// The request it belongs to.
    pub id: u32,
    /// Bytes of the payload, no more than its kind may have.
    pub len: usize,
}

impl Head {
    /// Takes it apart; a length that its kind may not have is refused before anything is read.
    pub fn parse(bytes: [u8; HEADER]) -> Result<Self, WireError> {
        let [a, b, c, d, kind, e, f, g, h] = bytes;
        let len = usize::try_from(u32::from_le_bytes([a, b, c, d])).unwrap_or(usize::MAX);
        if len > if kind == DATA { DATA_MAX } else { CONTROL_MAX } {
            return Err(WireError::TooLong { len });
        }
        Ok(Self { kind, id: u32::from_le_bytes([e, f, g, h]), len })
    }
}

/// One frame: what it is, the request it belongs to, and the rest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// What it is.
    pub kind: u8,
    /// The request; zero for those that belong to none.
    pub id: u32,
    /// What it holds.
    pub payload: Bytes,
}

/// The kind of frames with content.
pub(super) const DATA: u8 = 0x10;

impl Frame {
    /// Reads one; `None` if the stream ends between two.
    pub fn read(input: &mut impl Read) -> Result<Option<Self>, WireError> {
        let mut header = [0; HEADER];
        let mut filled = 0;
        while filled < HEADER {
            match input.read(&mut header[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        let Head { kind, id, len } = Head::parse(header)?;
        let mut payload = vec![0; len];
        input.read_exact(&mut payload)?;
        Ok(Some(Self { kind, id, payload: payload.into() }))
    }

    /// What comes before the payload.
    pub fn header(&self) -> [u8; HEADER] {
        let len = u32::try_from(self.payload.len()).unwrap_or(u32::MAX).to_le_bytes();
        let mut header = [0; HEADER];
        header[..4].copy_from_slice(&len);
        header[4] = self.kind;
        header[5..].copy_from_slice(&self.id.to_le_bytes());
        header
    }

    /// Writes it; does not flush.
    pub fn write(&self, output: &mut impl Write) -> io::Result<()> {
        output.write_all(&self.header())?;
        output.write_all(&self.payload)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_bytes_are_those_of_the_page() {
        let mut bytes = Vec::new();
        write_preamble(&mut bytes).unwrap();
        Ask::Get { key: "ab".to_owned(), range: 1..2 }.frame(5).write(&mut bytes).unwrap();
        let mut wanted = b"LIFEBOAT\x01\0\x01\0\x12\0\0\0\x03\x05\0\0\0".to_vec();
        wanted.extend_from_slice(b"\x01\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0ab");
        assert_eq!(bytes, wanted);
        assert_eq!(read_preamble(&mut bytes.as_slice()).unwrap(), 1);
    }

    #[test]
    fn another_version_and_another_program_are_told_apart() {
        let of = |bytes: &[u8]| read_preamble(&mut &bytes[..]).unwrap_err();
        assert!(matches!(of(b"LIFEBOAT\x02\0\x09\0"), WireError::Version { theirs: (2, 9) }));
        assert!(read_preamble(&mut &b"LIFEBOAT\x01\0\x09\0"[..]).is_ok());
        assert!(matches!(of(b"Welcome to host\n"), WireError::Magic { .. }));
        assert!(matches!(of(b"hi"), WireError::Magic { found } if found == b"hi"));
        assert!(matches!(of(b"LIFE"), WireError::Magic { .. }));
        assert!(matches!(of(b""), WireError::Io(_)));
    }

    #[test]
    fn a_long_frame_is_refused_before_it_is_read() {
        for (len, kind) in [(DATA_MAX + 1, DATA), (CONTROL_MAX + 1, 0x02), (u32::MAX as usize, 0x10)] {
            let mut bytes = (len as u32).to_le_bytes().to_vec();
            bytes.extend_from_slice(&[kind, 0, 0, 0, 0]);
            assert!(matches!(Frame::read(&mut bytes.as_slice()), Err(WireError::TooLong { .. })));
        }
        let long = Answer::Error { code: Code::Failed, message: "é".repeat(5000) }.frame(1);
        assert!(Answer::parse(&long).is_ok() && long.payload.len() <= CONTROL_MAX);
    }

    proptest! {
        #[test]
        fn no_bytes_make_a_panic(kind in any::<u8>(), id in any::<u32>(), payload in prop::collection::vec(any::<u8>(), 0..64)) {
            let frame = Frame { kind, id, payload: payload.clone().into() };
            let _ = (Ask::parse(&frame), Answer::parse(&frame), Row::parse_all(&payload));
            let mut input = payload.as_slice();
            while let Ok(Some(_)) = Frame::read(&mut input) {}
            let _ = read_preamble(&mut payload.as_slice());
        }
    }
}
