//! `docs/format.md` section 21: a file of a log as it is stored.
//!
//! ```text
//! preamble 32 | header length u32 | author 16 | cluster 16 | history u64 | name length u8, name | plain hash 32
//!   | plain length u32 | codec u8 | salt 32 | facts key length u16, facts key | content key length u16, content key
//!   | facts length u16, facts sealed | body hash 32 | body length u32 | signature 64 || body sealed
//! ```
//!
//! # Invariants
//! The signature covers the header, and through the body's hash all of the object: the header alone can be believed, and a file
//! that was moved or renamed cannot.

use super::super::FormatError;
use super::super::envelope::{ChunkKind, ObjectKind, PREAMBLE_LEN, Preamble};
use super::super::pack::DATA_KEY_MAX;
use super::super::segment::Codec;
use super::super::signed::SIGNATURE_LEN;
use super::super::wire::Reader;
use super::{FACTS_MAX, LogFile, LogName};
use crate::id::{ClusterId, LogHash, ObjectHash, RepositoryId, WriterId};

const SECTION: &str = "21";

/// Bytes that are read first of a log object: the header of one that is sealed to one reader fits.
pub const LOG_HEAD: u64 = 4096;
/// Most bytes of a header.
const LOG_HEADER_MAX: usize = 48 << 10;
/// Most bytes of a file: the largest segment.
pub const LOG_PLAIN_MAX: usize = 1 << 30;
/// Most bytes of an object.
pub const LOG_MAX: u64 = LOG_PLAIN_MAX as u64 + LOG_PLAIN_MAX as u64 / 8 + LOG_HEADER_MAX as u64;

const fn broken(what: &'static str) -> FormatError {
    FormatError::Value { section: SECTION, what }
}

/// The header of a log object; nothing in it may be believed before the signature is checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogHeader<'a> {
    /// Who stored it.
    pub author: WriterId,
    /// The cluster.
    pub cluster: ClusterId,
    /// Number of the history.
    pub history: u64,
    /// The file.
    pub file: LogFile,
    /// Keyed hash of the file's content.
    pub plain: LogHash,
    /// Length of the file's content.
    pub plain_len: u32,
    /// How the content is compressed.
    pub codec: Codec,
    /// Salt of the keys of facts and body.
    pub salt: [u8; 32],
    /// The sealed key of the facts, of kind tree.
    pub facts_key: &'a [u8],
    /// The sealed key of the content, of kind data.
    pub content_key: &'a [u8],
    /// The facts, sealed.
    pub facts: &'a [u8],
    /// Hash of the sealed body.
    pub body_hash: ObjectHash,
    /// Length of the sealed body.
    pub body_len: u32,
}

impl<'a> LogHeader<'a> {
    /// The bytes to sign: everything but signature and body.
    pub fn encode_unsigned(&self, repository: RepositoryId) -> Vec<u8> {
        let name = self.file.to_string();
        let mut out = Preamble::new(ObjectKind::Log, ChunkKind::Data, repository).encode().to_vec();
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(self.author.as_bytes());
        out.extend_from_slice(self.cluster.as_bytes());
        out.extend_from_slice(&self.history.to_le_bytes());
        out.push(name.len() as u8);
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(self.plain.as_bytes());
        out.extend_from_slice(&self.plain_len.to_le_bytes());
        out.push(self.codec as u8);
        out.extend_from_slice(&self.salt);
        for part in [self.facts_key, self.content_key, self.facts] {
            out.extend_from_slice(&(part.len() as u16).to_le_bytes());
            out.extend_from_slice(part);
        }
        out.extend_from_slice(self.body_hash.as_bytes());
        out.extend_from_slice(&self.body_len.to_le_bytes());
        let len = (out.len() + SIGNATURE_LEN) as u32;
        out[PREAMBLE_LEN..PREAMBLE_LEN + 4].copy_from_slice(&len.to_le_bytes());
        out
    }

    /// How many bytes the header has, from the first ones of the object.
    pub fn header_len(bytes: &[u8], repository: &RepositoryId) -> Result<usize, FormatError> {
        Preamble::expect(bytes, ObjectKind::Log, repository)?;
        let mut reader = Reader::new(bytes);
        reader.bytes(PREAMBLE_LEN)?;
        let len = reader.u32()? as usize;
        if len > LOG_HEADER_MAX { Err(broken("length of the header")) } else { Ok(len) }
    }

    /// Takes a header apart: gives it, what the signature covers, and the signature. `bytes` may hold more than the header.
    pub fn decode(
        bytes: &'a [u8],
        repository: &RepositoryId,
    ) -> Result<(Self, &'a [u8], [u8; SIGNATURE_LEN]), FormatError> {
        let len = Self::header_len(bytes, repository)?;
        let bytes = bytes.get(..len).ok_or(FormatError::Truncated)?;
        let mut reader = Reader::new(bytes);
        reader.bytes(PREAMBLE_LEN + 4)?;
        let (author, cluster) = (WriterId::new(reader.array()?), ClusterId::new(reader.array()?));
        let history = reader.u64()?;
        let name_len = usize::from(reader.u8()?);
        let name = std::str::from_utf8(reader.bytes(name_len)?).ok();
        let file = name.and_then(|name| name.parse().ok()).ok_or(broken("name of a file"))?;
        let (plain, plain_len) = (LogHash::new(reader.array()?), reader.u32()?);
        if plain_len as usize > LOG_PLAIN_MAX {
            return Err(broken("length of a file"));
        }
        let codec = match reader.u8()? {
            0 => Codec::Raw,
            1 => Codec::Zstd,
            _ => return Err(broken("codec")),
        };
        let salt = reader.array()?;
        let mut part = |most: usize, what| {
            let len = usize::from(reader.u16()?);
            if len > most { Err(broken(what)) } else { reader.bytes(len) }
        };
        let facts_key = part(DATA_KEY_MAX, "length of a sealed data key")?;
        let content_key = part(DATA_KEY_MAX, "length of a sealed data key")?;
        let facts = part(FACTS_MAX, "length of the facts")?;
        let (body_hash, body_len) = (ObjectHash::new(reader.array()?), reader.u32()?);
        let signature = reader.array()?;
        reader.finish()?;
        let header = Self {
            author,
            cluster,
            history,
            file,
            plain,
            plain_len,
            codec,
            salt,
            facts_key,
            content_key,
            facts,
            body_hash,
            body_len,
        };
        Ok((header, &bytes[..len - SIGNATURE_LEN], signature))
    }

    /// Whether this header was meant for an object of this name.
    pub fn belongs_to(&self, name: &LogName) -> bool {
        let named = (name.writer, name.cluster, name.history, name.file, name.plain);
        (self.author, self.cluster, self.history, self.file, self.plain) == named
    }
}
