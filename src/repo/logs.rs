//! Files of databases' logs as they are stored: sealing, listing and opening one.
//!
//! # Invariants
//! A file counts if a writer signed it whom the cluster's record names, or a maintainer. It is stored only after what was sealed
//! was opened again and compared. What is read of one is checked from its signature to the keyed hash of its content.
//!
//! # Must not
//! Delete anything: only a collector does, and only what [`super::trims`] names.

use bytes::Bytes;

use super::clusters::StoredCluster;
use super::create::sign;
use super::error::RepoError;
use super::keys::RunKeys;
use super::open::{Repository, object_key};
use crate::clock::Timestamp;
use crate::compress::{Compressor, Decompressor};
use crate::crypto::{ObjectSealer, context, log_hash, object_hash, object_salt};
use crate::format::FormatError;
use crate::format::config::Authority;
use crate::format::envelope::{ChunkKind, ObjectKind};
use crate::format::layout::ObjectName;
use crate::format::log::{LOG_HEAD, LOG_MAX, LOG_PLAIN_MAX, LogFacts, LogFile, LogHeader, LogName};
use crate::format::pack::padme;
use crate::format::segment::Codec;
use crate::id::{LogHash, WriterId};

/// Level of compression: that of the log itself, which a server waits for.
const LEVEL: i32 = 1;

/// A log object, as a listing shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListedLog {
    /// Its name.
    pub name: LogName,
    /// How many bytes the object has.
    pub size: u64,
    /// When the store got it.
    pub stored: Timestamp,
}

/// A file of a log that is to be stored.
#[derive(Debug, Clone, Copy)]
pub struct NewLog<'a> {
    /// The cluster, and the number of its history.
    pub place: (&'a StoredCluster, u64),
    /// The file.
    pub file: LogFile,
    /// Its content.
    pub content: &'a [u8],
    /// What is known of it.
    pub facts: &'a LogFacts,
}

impl Repository {
    /// What tells this content from another one.
    pub fn log_hash(&self, content: &[u8]) -> Result<LogHash, RepoError> {
        Ok(log_hash(&self.dedup_key(context::LOG_NAME)?, content))
    }

    /// All log objects whose names begin so, in the order of their names; of anyone who may put objects.
    pub async fn list_logs(&self, prefix: &str) -> Result<Vec<ListedLog>, RepoError> {
        let listed = self.store.list(prefix).await?.into_iter();
        let named = listed.filter_map(|object| match ObjectName::parse(object.key.as_str())? {
            ObjectName::Log(name) => Some(ListedLog { name, size: object.size, stored: object.modified }),
            _ => None,
        });
        Ok(named.collect())
    }

    /// Whether log objects of this writer count in a cluster.
    pub fn archives(&self, cluster: &StoredCluster, writer: &WriterId) -> bool {
        cluster.cluster.writers.binary_search(writer).is_ok() || self.is_maintainer(writer)
    }

    /// Seals, signs and puts a file of a log; durable when it returns.
    ///
    /// # Errors
    /// [`RepoError::Format`] if it is longer than any; [`RepoError::LogRoundTrip`] if what was sealed does not open to the same.
    pub async fn put_log(&self, new: NewLog<'_>, keys: &RunKeys) -> Result<ListedLog, RepoError> {
        let (bytes, name) = self.seal_log(new, keys)?;
        let size = bytes.len() as u64;
        self.store.put(&object_key(ObjectName::Log(name))?, vec![bytes]).await?;
        Ok(ListedLog { name, size, stored: self.env.clock.now() })
    }

    fn seal_log(&self, new: NewLog<'_>, keys: &RunKeys) -> Result<(Bytes, LogName), RepoError> {
        let (author, signing) = self.writer()?;
        let (cluster, history) = (new.place.0.id, new.place.1);
        let (content, file) = (new.content, new.file);
        if content.len() > LOG_PLAIN_MAX {
            return Err(FormatError::Value { section: "21", what: "length of a file" }.into());
        }
        let plain = self.log_hash(content)?;
        let data_key = keys.key(ChunkKind::Data).base();
        let salt = object_salt(data_key, &*self.env.random, &object_hash(content))?;
        let mut facts = new.facts.encode();
        ObjectSealer::new(keys.key(ChunkKind::Tree).base(), &salt, self.id(), ObjectKind::Log)
            .seal_block(0, 1, &mut facts)?;
        let (codec, mut body) = compressed(content)?;
        ObjectSealer::new(data_key, &salt, self.id(), ObjectKind::Log).seal_block(0, 1, &mut body)?;
        let header = LogHeader {
            author,
            cluster,
            history,
            file,
            plain,
            plain_len: content.len() as u32,
            codec,
            salt,
            facts_key: keys.sealed(ChunkKind::Tree),
            content_key: keys.sealed(ChunkKind::Data),
            facts: &facts,
            body_hash: object_hash(&body),
            body_len: body.len() as u32,
        };
        let sealer = ObjectSealer::new(data_key, &salt, self.id(), ObjectKind::Log);
        if opened(&sealer, &header, &body).is_ok_and(|opened| opened == content) {
            let (head, _) = sign(header.encode_unsigned(self.id()), &signing);
            let bytes = [&head[..], &body].concat();
            let hash = object_hash(&bytes);
            let name = LogName { cluster, history, file, writer: author, plain, hash };
            return Ok((bytes.into(), name));
        }
        Err(RepoError::LogRoundTrip { file })
    }

    /// Reads the first bytes of an object and checks who signed them, and that they belong there. Gives them.
    async fn read_log_head(&self, listed: &ListedLog) -> Result<Bytes, RepoError> {
        let name = ObjectName::Log(listed.name);
        let (key, text) = (object_key(name)?, name.key());
        let mut head = self.store.get_range(&key, 0..listed.size.min(LOG_HEAD)).await?;
        let len = LogHeader::header_len(&head, &self.id()).map_err(RepoError::at(&text))?;
        if len > head.len() {
            head = self.store.get_range(&key, 0..listed.size.min(len as u64)).await?;
        }
        self.checked_header(listed, &head)?;
        Ok(head)
    }

    fn checked_header<'a>(&self, listed: &ListedLog, head: &'a [u8]) -> Result<LogHeader<'a>, RepoError> {
        let key = ObjectName::Log(listed.name).key();
        let (header, message, signature) =
            LogHeader::decode(head, &self.id()).map_err(RepoError::at(&key))?;
        if !header.belongs_to(&listed.name) {
            return Err(RepoError::BadSignature { key });
        }
        self.verify(&key, (header.author, Authority::Writer), message, &signature)?;
        let len = message.len() + signature.len() + header.body_len as usize;
        if len as u64 != listed.size {
            return Err(RepoError::at(&key)(FormatError::Truncated));
        }
        Ok(header)
    }

    /// What is known of a file without opening it. Of the object only its header is read.
    pub async fn read_log_facts(&self, listed: &ListedLog) -> Result<LogFacts, RepoError> {
        let head = self.read_log_head(listed).await?;
        let header = self.checked_header(listed, &head)?;
        self.open_facts(listed, &header)
    }

    fn open_facts(&self, listed: &ListedLog, header: &LogHeader<'_>) -> Result<LogFacts, RepoError> {
        let key = ObjectName::Log(listed.name).key();
        let data_key = self.open_data_key(header.facts_key)?;
        if data_key.kind() != ChunkKind::Tree {
            return Err(RepoError::at(&key)(FormatError::Value {
                section: "21",
                what: "kind of the facts key",
            }));
        }
        let mut facts = header.facts.to_vec();
        ObjectSealer::new(data_key.base(), &header.salt, self.id(), ObjectKind::Log)
            .open_block(0, 1, &mut facts)?;
        LogFacts::decode(&facts).map_err(RepoError::at(&key))
    }

    /// Checks a whole object as far as that goes without opening it: its hash, its signature, its place, its body.
    pub async fn check_log(&self, listed: &ListedLog) -> Result<(), RepoError> {
        self.whole_log(listed).await.map(drop)
    }

    /// Checks the same of bytes that were read already.
    pub fn check_log_bytes(&self, listed: &ListedLog, bytes: &[u8]) -> Result<(), RepoError> {
        if object_hash(bytes) != listed.name.hash {
            return Err(RepoError::HashMismatch { key: ObjectName::Log(listed.name).key() });
        }
        self.check_log_parts(listed, bytes)
    }

    /// What is left to check of bytes that have the hash in the name.
    fn check_log_parts(&self, listed: &ListedLog, bytes: &[u8]) -> Result<(), RepoError> {
        let listed = ListedLog { size: bytes.len() as u64, ..*listed };
        let header = self.checked_header(&listed, bytes)?;
        if object_hash(&bytes[bytes.len() - header.body_len as usize..]) != header.body_hash {
            return Err(RepoError::HashMismatch { key: ObjectName::Log(listed.name).key() });
        }
        Ok(())
    }

    async fn whole_log(&self, listed: &ListedLog) -> Result<Bytes, RepoError> {
        let bytes = self.get_object(ObjectName::Log(listed.name), LOG_MAX).await?;
        self.check_log_parts(listed, &bytes)?;
        Ok(bytes)
    }

    /// Reads a file: hash of the object, signature, place, and the keyed hash of the content.
    pub async fn read_log(&self, listed: &ListedLog) -> Result<Vec<u8>, RepoError> {
        let key = ObjectName::Log(listed.name).key();
        let bytes = self.whole_log(listed).await?;
        let (header, ..) = LogHeader::decode(&bytes, &self.id()).map_err(RepoError::at(&key))?;
        let data_key = self.open_data_key(header.content_key)?;
        if data_key.kind() != ChunkKind::Data {
            let what = "kind of the content key";
            return Err(RepoError::at(&key)(FormatError::Value { section: "21", what }));
        }
        let sealer = ObjectSealer::new(data_key.base(), &header.salt, self.id(), ObjectKind::Log);
        let body = &bytes[bytes.len() - header.body_len as usize..];
        let content = opened(&sealer, &header, body)?;
        if self.log_hash(&content)? == header.plain {
            Ok(content)
        } else {
            Err(RepoError::HashMismatch { key })
        }
    }
}

/// The plaintext of a body: length, what is stored of the content, zeroes up to a PADME length.
fn compressed(content: &[u8]) -> Result<(Codec, Vec<u8>), RepoError> {
    let mut frame = Vec::new();
    let made = Compressor::new(LEVEL).and_then(|mut compressor| compressor.compress(content, &mut frame));
    made.map_err(|error| RepoError::Seal(error.into()))?;
    let (codec, stored) =
        if frame.len() < content.len() { (Codec::Zstd, &frame[..]) } else { (Codec::Raw, content) };
    let mut body = Vec::with_capacity(padme(stored.len() + 4) + 16);
    body.extend_from_slice(&(stored.len() as u32).to_le_bytes());
    body.extend_from_slice(stored);
    body.resize(padme(body.len()), 0);
    Ok((codec, body))
}

/// The content in a sealed body.
fn opened(sealer: &ObjectSealer, header: &LogHeader<'_>, body: &[u8]) -> Result<Vec<u8>, RepoError> {
    let mut plain = Vec::new();
    sealer.open_block_into((0, 1), body, &mut plain)?;
    let broken = || FormatError::Value { section: "21", what: "body of a log file" };
    let (len, rest) = plain.split_first_chunk::<4>().ok_or_else(broken)?;
    let (stored, padding) = rest.split_at_checked(u32::from_le_bytes(*len) as usize).ok_or_else(broken)?;
    if padding.iter().any(|byte| *byte != 0) {
        return Err(broken().into());
    }
    let expected = header.plain_len as usize;
    match header.codec {
        Codec::Raw if stored.len() == expected => Ok(stored.to_vec()),
        Codec::Raw => Err(broken().into()),
        Codec::Zstd => {
            let mut out = Vec::new();
            let done = Decompressor::new().and_then(|mut d| d.decompress(stored, expected, &mut out));
            done.map_err(|error| RepoError::Seal(error.into()))?;
            Ok(out)
        }
    }
}

#[cfg(test)]
mod tests;
