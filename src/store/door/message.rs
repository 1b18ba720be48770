//! What is said between the two sides of a door, as frames and taken from them: the tables of `docs/serve.md`.

use std::ops::Range;

use bytes::Bytes;

use super::wire::{DATA, DATA_MAX, Frame, WireError};
use crate::format::keyslot::Role;

/// Most bytes of a sentence.
const SENTENCE_MAX: usize = 1000;

/// Why a request was not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Code {
    /// No such object.
    NotFound,
    /// The directory of the repository is not there.
    NoRoot,
    /// The role of this door does not allow it.
    Denied,
    /// The disk or the quota is full.
    NoSpace,
    /// Something has the name already.
    Exists,
    /// Not a request that can be done: a bad name, a bad size.
    Invalid,
    /// The other side broke the rules; the connection ends.
    Broken,
    /// Anything else.
    Failed,
}

const CODES: [Code; 8] = [
    Code::NotFound,
    Code::NoRoot,
    Code::Denied,
    Code::NoSpace,
    Code::Exists,
    Code::Invalid,
    Code::Broken,
    Code::Failed,
];

/// What a client says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// Who it wants: the first frame.
    Open {
        /// The same client had another connection before, and may rest on what it listed there.
        again: bool,
        /// The path in the address; empty if there was none.
        path: String,
    },
    /// Whether an object is there.
    Head {
        /// Its name.
        key: String,
    },
    /// A part of an object; all of it with the highest end.
    Get {
        /// Its name.
        key: String,
        /// Which bytes.
        range: Range<u64>,
    },
    /// Begins to store an object; content follows.
    Put {
        /// Its name.
        key: String,
        /// Bytes that will come.
        size: u64,
    },
    /// What is in a directory, or in all.
    List {
        /// The directory, without a slash at its end, or empty.
        directory: String,
        /// Keys up to this one are not wanted.
        after: String,
    },
    /// Deletes an object.
    Delete {
        /// Its name.
        key: String,
    },
    /// How much room there is.
    Space,
    /// Makes the directory of the repository.
    Root,
    /// Content of a put.
    Data(Bytes),
    /// The put is complete.
    Commit,
    /// The request is not wanted any more.
    Cancel,
    /// So much more content may come.
    Credit(u32),
    /// Are you there?
    Ping,
}

/// What a server says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The client may go on.
    Opened {
        /// What it may do.
        role: Role,
    },
    /// What an object is; content of the range follows a get.
    Meta {
        /// Bytes of all of it.
        size: u64,
        /// Nanoseconds since 1970.
        modified: i64,
        /// The part that follows, cut to the object's size.
        range: Range<u64>,
    },
    /// Content of a get, or entries of a listing.
    Data(Bytes),
    /// The request is done.
    Done,
    /// How much room there is.
    Space {
        /// Bytes; the highest number if that is not known.
        free: u64,
    },
    /// The request is not done.
    Error {
        /// Why.
        code: Code,
        /// In words.
        message: String,
    },
    /// So much more content may come.
    Credit(u32),
    /// Here I am.
    Pong,
}

/// Bytes that are taken from the front.
struct Rest<'a>(&'a [u8], &'static str);

impl<'a> Rest<'a> {
    fn bad(&self) -> WireError {
        WireError::Malformed { what: self.1 }
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let (head, tail) = self.0.split_first_chunk().ok_or_else(|| self.bad())?;
        self.0 = tail;
        Ok(*head)
    }

    fn u64(&mut self) -> Result<u64, WireError> {
        Ok(u64::from_le_bytes(self.take()?))
    }

    fn bytes(&mut self, len: usize) -> Result<&'a [u8], WireError> {
        let (head, tail) = self.0.split_at_checked(len).ok_or_else(|| self.bad())?;
        self.0 = tail;
        Ok(head)
    }

    /// All that is left, as text.
    fn text(&mut self) -> Result<String, WireError> {
        let text = std::str::from_utf8(std::mem::take(&mut self.0)).map_err(|_| self.bad())?;
        Ok(text.to_owned())
    }

    fn end<T>(self, value: T) -> Result<T, WireError> {
        if self.0.is_empty() { Ok(value) } else { Err(self.bad()) }
    }
}

fn credit(mut rest: Rest<'_>) -> Result<u32, WireError> {
    let credit = u32::from_le_bytes(rest.take()?);
    rest.end(credit)
}

impl Ask {
    /// Takes a frame apart.
    pub fn parse(frame: &Frame) -> Result<Self, WireError> {
        let mut rest = Rest(&frame.payload, "a request");
        let ask = match frame.kind {
            0x01 => {
                let [again] = rest.take()?;
                Self::Open { again: again & 1 == 1, path: rest.text()? }
            }
            0x02 => Self::Head { key: rest.text()? },
            0x03 => {
                let range = rest.u64()?..rest.u64()?;
                Self::Get { range, key: rest.text()? }
            }
            0x04 => Self::Put { size: rest.u64()?, key: rest.text()? },
            0x05 => {
                let len = usize::from(u16::from_le_bytes(rest.take()?));
                let after = Rest(rest.bytes(len)?, "a request").text()?;
                Self::List { after, directory: rest.text()? }
            }
            0x06 => Self::Delete { key: rest.text()? },
            0x07 => Self::Space,
            0x08 => Self::Root,
            DATA => return Ok(Self::Data(frame.payload.clone())),
            0x11 => Self::Commit,
            0x12 => Self::Cancel,
            0x13 => return Ok(Self::Credit(credit(rest)?)),
            0x14 => Self::Ping,
            _ => return Err(rest.bad()),
        };
        rest.end(ask)
    }

    /// Makes a frame.
    pub fn frame(&self, id: u32) -> Frame {
        let (kind, payload) = match self {
            Self::Open { again, path } => (0x01, [&[u8::from(*again)], path.as_bytes()].concat()),
            Self::Head { key } => (0x02, key.clone().into()),
            Self::Get { key, range } => {
                let (start, end) = (range.start.to_le_bytes(), range.end.to_le_bytes());
                (0x03, [&start[..], &end, key.as_bytes()].concat())
            }
            Self::Put { key, size } => (0x04, [&size.to_le_bytes()[..], key.as_bytes()].concat()),
            Self::List { directory, after } => {
                let len = u16::try_from(after.len()).unwrap_or(u16::MAX).to_le_bytes();
                (0x05, [&len[..], after.as_bytes(), directory.as_bytes()].concat())
            }
            Self::Delete { key } => (0x06, key.clone().into()),
            Self::Space => (0x07, Vec::new()),
            Self::Root => (0x08, Vec::new()),
            Self::Data(bytes) => return Frame { kind: DATA, id, payload: bytes.clone() },
            Self::Commit => (0x11, Vec::new()),
            Self::Cancel => (0x12, Vec::new()),
            Self::Credit(bytes) => (0x13, bytes.to_le_bytes().to_vec()),
            Self::Ping => (0x14, Vec::new()),
        };
        Frame { kind, id, payload: payload.into() }
    }
}

impl Answer {
    /// Takes a frame apart.
    pub fn parse(frame: &Frame) -> Result<Self, WireError> {
        let mut rest = Rest(&frame.payload, "a reply");
        let answer = match frame.kind {
            0x81 => {
                let [role] = rest.take()?;
                let role = Role::ALL.into_iter().find(|known| *known as u8 == role);
                Self::Opened { role: role.ok_or_else(|| rest.bad())? }
            }
            0x82 => {
                let (size, modified) = (rest.u64()?, i64::from_le_bytes(rest.take()?));
                let range = rest.u64()?..rest.u64()?;
                if range.start > range.end || range.end > size {
                    return Err(rest.bad());
                }
                Self::Meta { size, modified, range }
            }
            DATA => return Ok(Self::Data(frame.payload.clone())),
            0x83 => Self::Done,
            0x84 => Self::Space { free: rest.u64()? },
            0x85 => {
                let [code] = rest.take()?;
                let code = CODES.get(usize::from(code)).copied().unwrap_or(Code::Failed);
                Self::Error { code, message: rest.text()? }
            }
            0x13 => return Ok(Self::Credit(credit(rest)?)),
            0x86 => Self::Pong,
            _ => return Err(rest.bad()),
        };
        rest.end(answer)
    }

    /// Makes a frame.
    pub fn frame(&self, id: u32) -> Frame {
        let place = |found: Option<usize>| found.and_then(|at| u8::try_from(at).ok()).unwrap_or(u8::MAX);
        let (kind, payload) = match self {
            Self::Opened { role } => (0x81, vec![*role as u8]),
            Self::Meta { size, modified, range } => {
                let numbers = [*size, modified.cast_unsigned(), range.start, range.end];
                (0x82, numbers.map(u64::to_le_bytes).concat())
            }
            Self::Data(bytes) => return Frame { kind: DATA, id, payload: bytes.clone() },
            Self::Done => (0x83, Vec::new()),
            Self::Space { free } => (0x84, free.to_le_bytes().to_vec()),
            Self::Error { code, message } => {
                let code = place(CODES.iter().position(|known| known == code));
                let message = &message[..message.floor_char_boundary(SENTENCE_MAX)];
                (0x85, [&[code], message.as_bytes()].concat())
            }
            Self::Credit(bytes) => (0x13, bytes.to_le_bytes().to_vec()),
            Self::Pong => (0x86, Vec::new()),
        };
        Frame { kind, id, payload: payload.into() }
    }
}

/// One object of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Its name.
    pub key: String,
    /// Bytes.
    pub size: u64,
    /// Nanoseconds since 1970.
    pub modified: i64,
}

impl Row {
    /// Adds it to the content of a frame; `false` if there is no room for it.
    pub fn push(&self, page: &mut Vec<u8>) -> bool {
        let Ok(len) = u16::try_from(self.key.len()) else { return false };
        if page.len() + 18 + self.key.len() > DATA_MAX {
            return false;
        }
        page.extend_from_slice(&len.to_le_bytes());
        page.extend_from_slice(self.key.as_bytes());
        page.extend_from_slice(&self.size.to_le_bytes());
        page.extend_from_slice(&self.modified.to_le_bytes());
        true
    }

    /// Takes the content of a frame apart.
    pub fn parse_all(page: &[u8]) -> Result<Vec<Self>, WireError> {
        let mut rest = Rest(page, "a listing");
        let mut rows = Vec::new();
        while !rest.0.is_empty() {
            let len = usize::from(u16::from_le_bytes(rest.take()?));
            let key = Rest(rest.bytes(len)?, "a listing").text()?;
            rows.push(Self { key, size: rest.u64()?, modified: i64::from_le_bytes(rest.take()?) });
        }
        Ok(rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asks() -> Vec<Ask> {
        let key = || "packs/ab/x".to_owned();
        vec![
            Ask::Open { again: true, path: "/srv/ä".to_owned() },
            Ask::Head { key: key() },
            Ask::Get { key: key(), range: 7..u64::MAX },
            Ask::Put { key: key(), size: 1 << 33 },
            Ask::List { directory: "packs".to_owned(), after: key() },
            Ask::Delete { key: key() },
            Ask::Space,
            Ask::Root,
            Ask::Data(Bytes::from_static(b"\0content")),
            Ask::Commit,
            Ask::Cancel,
            Ask::Credit(77),
            Ask::Ping,
        ]
    }

    fn answers() -> Vec<Answer> {
        let mut answers = vec![
            Answer::Meta { size: 10, modified: -5, range: 3..10 },
            Answer::Data(Bytes::from_static(b"content")),
            Answer::Done,
            Answer::Space { free: u64::MAX },
            Answer::Credit(1),
            Answer::Pong,
        ];
        answers.extend(Role::ALL.map(|role| Answer::Opened { role }));
        answers.extend(CODES.map(|code| Answer::Error { code, message: "why".to_owned() }));
        answers
    }

    #[test]
    fn every_message_comes_back_as_it_was() {
        let mut bytes = Vec::new();
        for (id, ask) in asks().iter().enumerate() {
            ask.frame(id as u32).write(&mut bytes).unwrap();
        }
        let mut input = bytes.as_slice();
        for (id, ask) in asks().into_iter().enumerate() {
            let frame = Frame::read(&mut input).unwrap().unwrap();
            assert_eq!((frame.id, Ask::parse(&frame).unwrap()), (id as u32, ask));
        }
        assert!(Frame::read(&mut input).unwrap().is_none());
        for answer in answers() {
            assert_eq!(Answer::parse(&answer.frame(1)).unwrap(), answer);
        }
    }

    #[test]
    fn rows_fill_a_page_and_no_more() {
        let row = Row { key: "packs/ab/x".to_owned(), size: 5, modified: -1 };
        let mut page = Vec::new();
        let mut count = 0;
        while row.push(&mut page) {
            count += 1;
        }
        assert!(page.len() <= DATA_MAX && page.len() > DATA_MAX - 100);
        assert_eq!(Row::parse_all(&page).unwrap(), vec![row; count]);
    }
}
