//! What stands at the end of a level file: header and footer. Both are local; they may change with the program.
//!
//! The file is: data (pack rows, segment rows, origins, ends of keys, keys, shards), sums of the data's pieces, header,
//! footer of 64 bytes. The footer holds the header's hash, and the header the hash of the sums.

use super::pieces::Pieces;
use crate::format::FormatError;
use crate::format::index::{PackRow, RECORD_LEN};
use crate::format::segment::SegmentEntry;
use crate::format::wire::Reader;
use crate::id::{ObjectHash, WriterId};

const MAGIC: [u8; 8] = *b"LBLEVEL1";

/// Length of the footer.
pub(super) const FOOTER_LEN: usize = 64;

/// Length of a binary fuse filter's descriptor.
pub(super) const DESCRIPTOR_LEN: usize = 20;

/// An index object that the cache holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The object.
    pub object: ObjectHash,
    /// Who wrote it.
    pub author: WriterId,
    /// The collector's horizon that its author saw first.
    pub h0: u64,
    /// The index objects it claims to replace; whether its author may is for the caller to judge.
    pub supersedes: Vec<ObjectHash>,
    /// How many records it has.
    pub records: u64,
}

/// A source and its part of the level's key and origin tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SourceEntry {
    pub(super) source: Source,
    pub(super) keys: u32,
    pub(super) origins: u32,
}

/// A run of records and its filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shard {
    /// First eight bytes of the first and of the last record's prefix.
    pub(super) first_key: u64,
    pub(super) last_key: u64,
    pub(super) rows: u64,
    /// Where the records begin.
    pub(super) at: u64,
    /// Where the filter's fingerprints begin; there is no filter if their length is zero.
    pub(super) filter_at: u64,
    pub(super) filter_len: u32,
    pub(super) descriptor: [u8; DESCRIPTOR_LEN],
}

/// Everything about a level but its rows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Header {
    pub(super) data_len: u64,
    pub(super) sums: [u8; 32],
    pub(super) packs: u32,
    pub(super) segments: u32,
    pub(super) keys: u32,
    pub(super) keys_len: u64,
    pub(super) origins: u32,
    /// Whether any segment is fading.
    pub(super) fading: bool,
    pub(super) sources: Vec<SourceEntry>,
    pub(super) shards: Vec<Shard>,
}

impl Header {
    /// Where the segment rows begin; the pack rows begin at zero.
    pub(super) fn segments_at(&self) -> u64 {
        u64::from(self.packs) * PackRow::LEN as u64
    }

    /// Where the origins begin.
    pub(super) fn origins_at(&self) -> u64 {
        self.segments_at() + u64::from(self.segments) * SegmentEntry::LEN as u64
    }

    /// Where the ends of the keys begin, eight bytes each.
    pub(super) fn key_ends_at(&self) -> u64 {
        self.origins_at() + u64::from(self.origins) * WriterId::LEN as u64
    }

    /// Where the keys begin.
    pub(super) fn keys_at(&self) -> u64 {
        self.key_ends_at() + u64::from(self.keys) * 8
    }

    /// How many records there are.
    pub(super) fn records(&self) -> u64 {
        self.shards.iter().map(|shard| shard.rows).sum()
    }

    /// Header and footer, as they end the file; and the header's hash, which names the file.
    pub(super) fn encode(&self) -> (Vec<u8>, blake3::Hash) {
        let mut out = Vec::new();
        out.extend_from_slice(&self.data_len.to_le_bytes());
        out.extend_from_slice(&self.sums);
        for count in [self.packs, self.segments, self.keys, self.origins, u32::from(self.fading)] {
            out.extend_from_slice(&count.to_le_bytes());
        }
        out.extend_from_slice(&self.keys_len.to_le_bytes());
        out.extend_from_slice(&(self.sources.len() as u64).to_le_bytes());
        for SourceEntry { source, keys, origins } in &self.sources {
            out.extend_from_slice(source.object.as_bytes());
            out.extend_from_slice(source.author.as_bytes());
            out.extend_from_slice(&source.h0.to_le_bytes());
            out.extend_from_slice(&source.records.to_le_bytes());
            out.extend_from_slice(&keys.to_le_bytes());
            out.extend_from_slice(&origins.to_le_bytes());
            out.extend_from_slice(&(source.supersedes.len() as u64).to_le_bytes());
            source.supersedes.iter().for_each(|hash| out.extend_from_slice(hash.as_bytes()));
        }
        out.extend_from_slice(&(self.shards.len() as u64).to_le_bytes());
        for shard in &self.shards {
            for field in [shard.first_key, shard.last_key, shard.rows, shard.at, shard.filter_at] {
                out.extend_from_slice(&field.to_le_bytes());
            }
            out.extend_from_slice(&shard.filter_len.to_le_bytes());
            out.extend_from_slice(&shard.descriptor);
        }
        let hash = blake3::hash(&out);
        let len = out.len() as u64;
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&len.to_le_bytes());
        out.extend_from_slice(&[0; 16]);
        out.extend_from_slice(hash.as_bytes());
        (out, hash)
    }

    /// Reads the header of a whole file, and demands that every range it names lies inside the data.
    pub(super) fn read(file: &[u8]) -> Result<Self, FormatError> {
        let (rest, footer) = file.split_last_chunk::<FOOTER_LEN>().ok_or(FormatError::Truncated)?;
        let mut reader = Reader::new(footer);
        let (magic, len) = (reader.array::<8>()?, reader.u64()?);
        let (zero, hash) = (reader.array::<16>()?, reader.array::<32>()?);
        let len = usize::try_from(len).map_err(|_| FormatError::Truncated)?;
        let start = rest.len().checked_sub(len).ok_or(FormatError::Truncated)?;
        let (rest, header) = rest.split_at(start);
        if magic != MAGIC || zero != [0; 16] || *blake3::hash(header).as_bytes() != hash {
            return Err(bad("level footer"));
        }
        let header = Self::decode(header)?;
        let data_len = usize::try_from(header.data_len).map_err(|_| FormatError::Truncated)?;
        let sums = rest.get(data_len..).ok_or(FormatError::Truncated)?;
        if Pieces::sums_len(data_len) != Some(sums.len()) || *blake3::hash(sums).as_bytes() != header.sums {
            return Err(bad("level sums"));
        }
        header.check()?;
        Ok(header)
    }

    fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut reader = Reader::new(bytes);
        let mut header = Self { data_len: reader.u64()?, sums: reader.array()?, ..Self::default() };
        header.packs = reader.u32()?;
        header.segments = reader.u32()?;
        header.keys = reader.u32()?;
        header.origins = reader.u32()?;
        header.fading = reader.u32()? != 0;
        header.keys_len = reader.u64()?;
        for _ in 0..reader.u64()? {
            header.sources.push(source(&mut reader)?);
        }
        for _ in 0..reader.u64()? {
            header.shards.push(Shard {
                first_key: reader.u64()?,
                last_key: reader.u64()?,
                rows: reader.u64()?,
                at: reader.u64()?,
                filter_at: reader.u64()?,
                filter_len: reader.u32()?,
                descriptor: reader.array()?,
            });
        }
        reader.finish()?;
        Ok(header)
    }

    fn check(&self) -> Result<(), FormatError> {
        let inside = |at: u64, len: Option<u64>| {
            len.and_then(|len| at.checked_add(len)).is_some_and(|end| end <= self.data_len)
        };
        // The four counts are 32-bit numbers: the offsets cannot overflow.
        if !inside(self.keys_at(), Some(self.keys_len)) {
            return Err(bad("level tables"));
        }
        let keys: u64 = self.sources.iter().map(|source| u64::from(source.keys)).sum();
        let origins: u64 = self.sources.iter().map(|source| u64::from(source.origins)).sum();
        if keys != u64::from(self.keys) || origins != u64::from(self.origins) {
            return Err(bad("level sources"));
        }
        if !self.shards.is_sorted_by(|a, b| a.last_key < b.first_key) {
            return Err(bad("order of level shards"));
        }
        for shard in &self.shards {
            let ordered = shard.first_key <= shard.last_key && shard.rows > 0;
            if !ordered
                || !inside(shard.at, shard.rows.checked_mul(RECORD_LEN as u64))
                || !inside(shard.filter_at, Some(u64::from(shard.filter_len)))
                || (shard.filter_len > 0 && !descriptor_fits(&shard.descriptor, shard.filter_len))
            {
                return Err(bad("level shard"));
            }
        }
        Ok(())
    }
}

/// Whether every index that a filter of this descriptor computes lies inside its fingerprints.
fn descriptor_fits(descriptor: &[u8; DESCRIPTOR_LEN], filter_len: u32) -> bool {
    let field = |at: usize| {
        let bytes = [descriptor[at], descriptor[at + 1], descriptor[at + 2], descriptor[at + 3]];
        u32::from_le_bytes(bytes)
    };
    let (length, mask, total) = (field(8), field(12), field(16));
    length.is_power_of_two()
        && total >= length
        && mask == length - 1
        && total.is_multiple_of(length)
        && u64::from(total) + 2 * u64::from(length) <= u64::from(filter_len)
}

fn source(reader: &mut Reader<'_>) -> Result<SourceEntry, FormatError> {
    let object = ObjectHash::new(reader.array()?);
    let author = WriterId::new(reader.array()?);
    let (h0, records) = (reader.u64()?, reader.u64()?);
    let (keys, origins) = (reader.u32()?, reader.u32()?);
    let mut supersedes = Vec::new();
    for _ in 0..reader.u64()? {
        supersedes.push(ObjectHash::new(reader.array()?));
    }
    Ok(SourceEntry { source: Source { object, author, h0, supersedes, records }, keys, origins })
}

fn bad(what: &'static str) -> FormatError {
    FormatError::Value { section: "local", what }
}
