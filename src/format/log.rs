//! `docs/format.md` section 21: files of a database's log, as they are named.
//!
//! # Invariants
//! What a name says of a file is what the server called it: nothing else parses, so no name leaves its directory.

mod facts;
mod object;

use std::fmt;
use std::str::FromStr;

pub use facts::{Checked, FACTS_MAX, LogFacts};
pub use object::{LOG_HEAD, LOG_MAX, LOG_PLAIN_MAX, LogHeader};

use super::layout::{STREAMS, numbered};
use crate::id::{ClusterId, LogHash, ObjectHash, WriterId};

/// Where a segment stands in the log: timeline, and the two halves of its number, as its name has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentName {
    /// The timeline.
    pub timeline: u32,
    /// The upper 32 bits of the position of its first byte.
    pub log: u32,
    /// Which one it is of the 4 GiB with these upper bits.
    pub segment: u32,
}

impl SegmentName {
    /// The segment of this size, a power of two, that holds the byte at `position`.
    pub fn at(timeline: u32, position: u64, size: u32) -> Self {
        let segment = (position & 0xffff_ffff) / u64::from(size.max(1));
        Self { timeline, log: (position >> 32) as u32, segment: segment as u32 }
    }

    /// The position of its first byte; `None` if segments of this size have no such number.
    pub fn start(&self, size: u32) -> Option<u64> {
        let within = u64::from(self.segment) * u64::from(size);
        (within <= u64::from(u32::MAX)).then_some(u64::from(self.log) << 32 | within)
    }

    /// Which segment it is of its timeline, from 0 on; `None` if segments of this size have no such number.
    pub fn number(&self, size: u32) -> Option<u64> {
        Some(self.start(size)? / u64::from(size.max(1)))
    }

    /// The same segment on another timeline.
    #[must_use]
    pub const fn on(self, timeline: u32) -> Self {
        Self { timeline, ..self }
    }
}

impl fmt::Display for SegmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08X}{:08X}{:08X}", self.timeline, self.log, self.segment)
    }
}

/// A file that a server archives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LogFile {
    /// A whole segment.
    Segment(SegmentName),
    /// The last segment of a timeline that another one left: `.partial`.
    Partial(SegmentName),
    /// Where a base backup began, at this offset of the segment: `.backup`.
    Backup(SegmentName, u32),
    /// Where a timeline came from: `.history`.
    History(u32),
}

impl LogFile {
    /// The segment in the name.
    pub const fn segment(&self) -> Option<SegmentName> {
        match *self {
            Self::Segment(name) | Self::Partial(name) | Self::Backup(name, _) => Some(name),
            Self::History(_) => None,
        }
    }
}

impl fmt::Display for LogFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Segment(name) => write!(f, "{name}"),
            Self::Partial(name) => write!(f, "{name}.partial"),
            Self::Backup(name, offset) => write!(f, "{name}.{offset:08X}.backup"),
            Self::History(timeline) => write!(f, "{timeline:08X}.history"),
        }
    }
}

/// Text that is not the name of a file that a server archives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the name of a file that PostgreSQL archives")]
pub struct ParseLogFileError;

fn digits(text: &str) -> Result<u32, ParseLogFileError> {
    let upper = |digit: u8| matches!(digit, b'0'..=b'9' | b'A'..=b'F');
    if text.len() != 8 || !text.bytes().all(upper) {
        return Err(ParseLogFileError);
    }
    u32::from_str_radix(text, 16).map_err(|_| ParseLogFileError)
}

impl FromStr for LogFile {
    type Err = ParseLogFileError;

    fn from_str(text: &str) -> Result<Self, ParseLogFileError> {
        let part = |from: usize| text.get(from..from + 8).ok_or(ParseLogFileError).and_then(digits);
        let timeline = part(0)?;
        if timeline == 0 {
            return Err(ParseLogFileError);
        }
        if text.get(8..) == Some(".history") {
            return Ok(Self::History(timeline));
        }
        let name = SegmentName { timeline, log: part(8)?, segment: part(16)? };
        match text.get(24..) {
            Some("") => Ok(Self::Segment(name)),
            Some(".partial") => Ok(Self::Partial(name)),
            Some(rest) => match rest.strip_prefix('.').and_then(|rest| rest.strip_suffix(".backup")) {
                Some(offset) => Ok(Self::Backup(name, digits(offset)?)),
                None => Err(ParseLogFileError),
            },
            None => Err(ParseLogFileError),
        }
    }
}

/// The name of a log object, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogName {
    /// The cluster.
    pub cluster: ClusterId,
    /// Number of the history in the cluster's record.
    pub history: u64,
    /// The file.
    pub file: LogFile,
    /// Who stored it.
    pub writer: WriterId,
    /// Keyed hash of the file's content.
    pub plain: LogHash,
    /// Hash of the object.
    pub hash: ObjectHash,
}

impl LogName {
    /// What the names of all log objects of a history begin with.
    pub fn history_prefix(cluster: ClusterId, history: u64) -> String {
        format!("{STREAMS}{cluster}/{history:010}/")
    }

    /// What the names of all objects of a history's segments of one timeline begin with.
    pub fn timeline_prefix(cluster: ClusterId, history: u64, timeline: u32) -> String {
        format!("{}{timeline:08X}/", Self::history_prefix(cluster, history))
    }

    /// What the names of all objects with a history's timeline files begin with.
    pub fn timelines_prefix(cluster: ClusterId, history: u64) -> String {
        format!("{}history/", Self::history_prefix(cluster, history))
    }

    /// What the names of all objects of one file begin with.
    pub fn prefix(cluster: ClusterId, history: u64, file: LogFile) -> String {
        let folder = match file.segment() {
            Some(name) => {
                format!("{}{:08X}/", Self::timeline_prefix(cluster, history, name.timeline), name.log)
            }
            None => Self::timelines_prefix(cluster, history),
        };
        format!("{folder}{file}-")
    }

    /// The key of the object below the repository's root.
    pub fn key(&self) -> String {
        let prefix = Self::prefix(self.cluster, self.history, self.file);
        format!("{prefix}{}-{}-{}", self.writer, self.plain, self.hash)
    }

    /// Takes the part of a key apart that follows the prefix of logs.
    pub(super) fn parse(rest: &str) -> Option<Self> {
        let (cluster, rest) = rest.split_once('/')?;
        let (history, rest) = rest.split_once('/')?;
        let (history, empty) = numbered(&format!("{history}-")).map(|(n, rest)| (n, rest.is_empty()))?;
        let (folder, name) = rest.rsplit_once('/')?;
        let mut parts = name.split('-');
        let file: LogFile = parts.next()?.parse().ok()?;
        let (writer, plain, hash) = (parts.next()?, parts.next()?, parts.next()?);
        let expected = match file.segment() {
            Some(name) => format!("{:08X}/{:08X}", name.timeline, name.log),
            None => "history".to_owned(),
        };
        if !empty || folder != expected || parts.next().is_some() {
            return None;
        }
        Some(Self {
            cluster: cluster.parse().ok()?,
            history,
            file,
            writer: writer.parse().ok()?,
            plain: plain.parse().ok()?,
            hash: hash.parse().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::layout::ObjectName;
    use super::*;

    #[test]
    fn names_of_files_round_trip_and_nothing_else_is_one() {
        for good in [
            "000000010000000000000001",
            "FFFFFFFFFFFFFFFF000000FF",
            "000000020000000000000003.partial",
            "000000010000000000000005.00000028.backup",
            "0000000A.history",
        ] {
            assert_eq!(good.parse::<LogFile>().map(|file| file.to_string()), Ok(good.to_owned()));
        }
        for bad in [
            "",
            "00000001000000000000000",
            "0000000100000000000000011",
            "00000001000000000000000a",
            "000000000000000000000001",
            "00000000.history",
            "000000010000000000000001.partial.partial",
            "000000010000000000000001.backup",
            "000000010000000000000001.0000002.backup",
            "000000010000000000000001.",
            "00000002.history.tmp",
            "+0000001.history",
            "00000001000000000000000é",
            "../00000001.history",
            "RECOVERYXLOG",
        ] {
            assert_eq!(bad.parse::<LogFile>(), Err(ParseLogFileError), "{bad}");
        }
    }

    #[test]
    fn a_segment_and_its_position_belong_together() {
        let size = 16 << 20;
        let name = SegmentName { timeline: 1, log: 2, segment: 0xff };
        assert_eq!(name.start(size), Some(0x2_ff00_0000));
        assert_eq!(SegmentName::at(1, 0x2_ff00_0000, size), name);
        assert_eq!(SegmentName::at(1, 0x2_ffff_ffff, size), name);
        assert_eq!(SegmentName { segment: 0x100, ..name }.start(size), None, "there are 256 of 16 MiB");
        assert_eq!(SegmentName { segment: 3, ..name }.start(1 << 30), Some(0x2_c000_0000));
        assert_eq!(SegmentName { segment: 4, ..name }.start(1 << 30), None);
        assert_eq!(SegmentName { segment: 4095, ..name }.start(1 << 20), Some(0x2_fff0_0000));
        assert_eq!(name.number(size), Some(0x2ff));
        assert_eq!(SegmentName { segment: 0x100, ..name }.number(size), None);
        assert_eq!(name.number(0), Some(0x2_0000_0000), "a size that no server has stops nothing");
    }

    #[test]
    fn names_of_objects_round_trip() {
        for file in
            ["000000010000000200000001", "0000000A.history", "000000010000000200000001.00000028.backup"]
        {
            let name = LogName {
                cluster: ClusterId::new([3; 16]),
                history: 1,
                file: file.parse().unwrap(),
                writer: WriterId::new([7; 16]),
                plain: LogHash::new([0xcd; 32]),
                hash: ObjectHash::new([0xab; 32]),
            };
            let key = ObjectName::Log(name).key();
            assert_eq!(ObjectName::parse(&key), Some(ObjectName::Log(name)), "{key}");
            assert!(key.starts_with(&LogName::prefix(name.cluster, 1, name.file)));
            assert!(key.rsplit('/').next().is_some_and(|name| name.len() <= 255));
            for bad in
                [key.replace("0000000001/", "1/"), key.replace("streams/", "stream/"), format!("{key}-x")]
            {
                assert_eq!(ObjectName::parse(&bad), None, "{bad}");
            }
        }
        let moved = format!(
            "streams/{}/0000000001/00000002/00000000/000000010000000000000001-{}-{}-{}",
            "03".repeat(16),
            "07".repeat(16),
            "cd".repeat(32),
            "ab".repeat(32)
        );
        assert_eq!(ObjectName::parse(&moved), None, "in the folder of another timeline");
    }
}
