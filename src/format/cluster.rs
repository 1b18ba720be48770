//! `docs/format.md` section 20: what is known of a database cluster.
//!
//! ```text
//! preamble 32 | author 16 | cluster 16 | number u64 | salt 32 | 0 u16 | body length u32, body sealed | signature 64
//! ```
//!
//! # Invariants
//! Sealed with the index key and not with a data key: whoever archives a log must read the record, and cannot open what is
//! sealed to readers.

use super::FormatError;
use super::cbor::{Cbor, Out, Written, encode};
use super::envelope::ObjectKind;
use super::sealed::{SealedForm, SealedObject, padded_body};
use super::wire::Reader;
use crate::id::{ClusterId, RepositoryId, WriterId};

/// How a record is sealed.
pub const CLUSTER: SealedForm = SealedForm { kind: ObjectKind::Cluster, section: "20", max: 256 << 10 };
/// Most bytes of a cluster's name.
pub const NAME_MAX: usize = 128;
/// Most histories of a cluster.
pub const HISTORIES_MAX: usize = 1024;
/// Most writers of a cluster.
pub const CLUSTER_WRITERS_MAX: usize = 1024;

/// What kind of database it is. The number is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Engine {
    /// PostgreSQL.
    Postgres = 0,
}

/// What one `initdb` began: its log begins anew, under the same name of the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct History {
    /// Number among the cluster's histories, from 1 on, ascending.
    pub number: u64,
    /// What the server calls itself: the system identifier.
    pub system: u64,
    /// Major version of the server.
    pub version: u32,
    /// Bytes of a log segment, a power of two of at least 1 MiB and at most 1 GiB.
    pub segment_size: u32,
    /// Bytes of a page of the log.
    pub page_size: u32,
}

impl History {
    fn encode(&self, e: &mut Out<'_>) -> Written {
        e.map(5)?.u8(0)?.u64(self.number)?.u8(1)?.u64(self.system)?;
        e.u8(2)?.u32(self.version)?.u8(3)?.u32(self.segment_size)?.u8(4)?.u32(self.page_size)?;
        Ok(())
    }

    fn decode(d: &mut Cbor<'_>) -> Result<Self, FormatError> {
        let mut history = Self { number: 0, system: 0, version: 0, segment_size: 0, page_size: 0 };
        d.map(|d, key| {
            match key {
                0 => history.number = d.u64()?,
                1 => history.system = d.u64()?,
                2 => history.version = d.u32()?,
                3 => history.segment_size = d.u32()?,
                4 => history.page_size = d.u32()?,
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        let Self { segment_size, page_size, .. } = history;
        let segment = segment_size.is_power_of_two() && (1 << 20..=1 << 30).contains(&segment_size);
        let page = page_size.is_power_of_two() && (1 << 10..=1 << 16).contains(&page_size);
        if segment && page { Ok(history) } else { Err(d.value("history of a cluster")) }
    }
}

/// What is known of a cluster: the plaintext of a record's body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    /// What people call it: what [`check_name`] allows.
    pub name: String,
    /// What kind of database it is.
    pub engine: Engine,
    /// Its histories, by number; the last one goes on. At least one.
    pub histories: Vec<History>,
    /// Whose log objects count, ascending. At least one.
    pub writers: Vec<WriterId>,
}

impl Cluster {
    /// The history that goes on.
    pub fn current(&self) -> Option<&History> {
        self.histories.last()
    }

    /// The plaintext of the body: length, CBOR value, zeroes up to a PADME length.
    pub fn encode_body(&self) -> Vec<u8> {
        let value = encode(|e| {
            e.map(4)?.u8(0)?.str(&self.name)?.u8(1)?.u8(self.engine as u8)?;
            e.u8(2)?.array(self.histories.len() as u64)?;
            for history in &self.histories {
                history.encode(e)?;
            }
            e.u8(3)?.array(self.writers.len() as u64)?;
            for writer in &self.writers {
                e.bytes(writer.as_bytes())?;
            }
            Ok(())
        });
        padded_body(&value)
    }

    /// Reads the plaintext of a body.
    pub fn decode_body(bytes: &[u8]) -> Result<Self, FormatError> {
        let value = CLUSTER.value(bytes)?;
        let (mut name, mut engine, mut histories, mut writers) = (None, None, Vec::new(), Vec::new());
        let mut d = Cbor::new(value, CLUSTER.section, "cluster");
        d.map(|d, key| {
            match key {
                0 => name = Some(d.text(NAME_MAX)?),
                1 => {
                    engine = match d.u8()? {
                        0 => Some(Engine::Postgres),
                        _ => None,
                    }
                }
                2 => histories = d.array(HISTORIES_MAX as u64, History::decode)?,
                3 => writers = d.array(CLUSTER_WRITERS_MAX as u64, |d| Ok(WriterId::new(d.fixed()?)))?,
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        d.finish(value.len())?;
        let name = name.filter(|name| check_name(name).is_ok()).ok_or(CLUSTER.broken("name of a cluster"))?;
        let engine = engine.ok_or(CLUSTER.broken("engine of a cluster"))?;
        let ascending = histories.windows(2).all(|pair| pair[0].number < pair[1].number);
        if histories.first().is_none_or(|first| first.number == 0) || !ascending {
            return Err(CLUSTER.broken("histories of a cluster"));
        }
        if writers.is_empty() || !writers.is_sorted_by(|a, b| a < b) {
            return Err(CLUSTER.broken("writers of a cluster"));
        }
        Ok(Self { name, engine, histories, writers })
    }

    /// Demands that a reader accepts what [`Self::encode_body`] makes of this.
    pub fn check(&self) -> Result<(), FormatError> {
        Self::decode_body(&self.encode_body()).map(|_| ())
    }
}

/// Why a text cannot be the name of a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// There is nothing.
    #[error("the name of a cluster must not be empty")]
    Empty,
    /// Longer than [`NAME_MAX`].
    #[error("the name of a cluster has {len} bytes, and {NAME_MAX} are allowed")]
    Long {
        /// Its length in bytes.
        len: usize,
    },
    /// A character that would be mistaken on a command line or in a message.
    #[error(
        "the name of a cluster has letters, digits, `-`, `_` and `.`, and begins with a letter or a digit"
    )]
    Character,
}

/// Whether a text can be the name of a cluster: letters, digits and `-_.` after a letter or a digit, at most [`NAME_MAX`] bytes.
pub fn check_name(name: &str) -> Result<(), NameError> {
    let Some(first) = name.chars().next() else { return Err(NameError::Empty) };
    if name.len() > NAME_MAX {
        return Err(NameError::Long { len: name.len() });
    }
    let allowed = |c: char| c.is_alphanumeric() || "-_.".contains(c);
    if first.is_alphanumeric() && name.chars().all(allowed) { Ok(()) } else { Err(NameError::Character) }
}

/// A record taken apart; nothing in it may be believed before the signature is checked.
#[derive(Debug, Clone)]
pub struct ClusterObject<'a> {
    /// Who wrote it.
    pub author: WriterId,
    /// The cluster, the same as in the name.
    pub cluster: ClusterId,
    /// Its number among the cluster's records, the same as in the name.
    pub number: u64,
    /// The rest; its data key is empty.
    pub sealed: SealedObject<'a>,
}

impl<'a> ClusterObject<'a> {
    /// The bytes to sign.
    pub fn encode_unsigned(&self, repository: RepositoryId) -> Vec<u8> {
        let head =
            [&self.author.as_bytes()[..], &self.cluster.as_bytes()[..], &self.number.to_le_bytes()[..]];
        self.sealed.encode_unsigned(repository, &head)
    }

    /// Takes an object apart.
    pub fn decode(bytes: &'a [u8], repository: &RepositoryId) -> Result<Self, FormatError> {
        let head = |reader: &mut Reader<'_>| {
            Ok((WriterId::new(reader.array()?), ClusterId::new(reader.array()?), reader.u64()?))
        };
        let ((author, cluster, number), sealed) = SealedObject::decode(CLUSTER, bytes, repository, head)?;
        if !sealed.data_key.is_empty() {
            return Err(CLUSTER.broken("data key of a cluster"));
        }
        Ok(Self { author, cluster, number, sealed })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(number: u64) -> History {
        History { number, system: u64::MAX, version: 15, segment_size: 16 << 20, page_size: 8192 }
    }

    fn cluster() -> Cluster {
        Cluster {
            name: "main".to_owned(),
            engine: Engine::Postgres,
            histories: vec![history(1), history(3)],
            writers: vec![WriterId::new([1; 16]), WriterId::new([2; 16])],
        }
    }

    #[test]
    fn only_what_a_reader_accepts_is_made() {
        assert_eq!(Cluster::decode_body(&cluster().encode_body()), Ok(cluster()));
        assert_eq!(cluster().check(), Ok(()));
        let with = |edit: fn(&mut Cluster)| {
            let mut edited = cluster();
            edit(&mut edited);
            edited.check()
        };
        assert!(with(|c| c.name = "a/b".to_owned()).is_err());
        assert!(with(|c| c.histories.clear()).is_err());
        assert!(with(|c| c.histories.reverse()).is_err());
        assert!(with(|c| c.histories[0].number = 0).is_err());
        assert!(with(|c| c.histories[0].segment_size = 3 << 20).is_err());
        assert!(with(|c| c.histories[0].segment_size = 1 << 19).is_err());
        assert!(with(|c| c.histories[0].page_size = 512).is_err());
        assert!(with(|c| c.writers.clear()).is_err());
        assert!(with(|c| c.writers.reverse()).is_err());
        assert!(with(|c| c.writers = vec![WriterId::new([1; 16]); 2]).is_err());
    }

    #[test]
    fn names_are_short_and_plain() {
        for good in ["main", "Main-2.old_x", "9", "größe"] {
            assert_eq!(check_name(good), Ok(()), "{good}");
        }
        assert_eq!(check_name(""), Err(NameError::Empty));
        assert_eq!(check_name(&"x".repeat(129)), Err(NameError::Long { len: 129 }));
        for bad in ["-x", ".x", "a b", "a/b", "a\n", "\u{202e}x", "a\u{1b}[0m", "a,b"] {
            assert_eq!(check_name(bad), Err(NameError::Character), "{bad:?}");
        }
    }
}
