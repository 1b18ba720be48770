//! Stored bytes to plaintext.

use zeroize::Zeroize;

use super::SealError;
use crate::compress::{CompressError, Decompressor};
use crate::crypto::DataKey;
use crate::format::segment::{Codec, SEGMENT_PLAIN_MAX, SegmentEntry, TAG_LEN, segment_aad};
use crate::id::RepositoryId;

/// Opens segments of one repository. One for each worker: it keeps a context and a buffer.
#[derive(Debug)]
pub struct SegmentOpener {
    repository: RepositoryId,
    decompressor: Decompressor,
    frame: Vec<u8>,
}

impl SegmentOpener {
    /// Sets a context up.
    pub fn new(repository: RepositoryId) -> Result<Self, SealError> {
        Ok(Self { repository, decompressor: Decompressor::new()?, frame: Vec::new() })
    }

    /// Replaces what is in `out` by the plaintext of a segment, exactly `entry.plain_len` bytes.
    ///
    /// The segment must be of the key's kind. The caller has chosen `key` by `entry.data_key`, and cut `stored` by `entry.offset`. On failure `out` is zeroed
    /// and empty. `out` keeps its memory from call to call and is fastest when it is not cleared between them. The
    /// plaintext is authentic to whoever holds the data key; chunk ids must still be recomputed.
    pub fn open(
        &mut self,
        key: &DataKey,
        entry: &SegmentEntry,
        stored: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), SealError> {
        let opened = self.open_or_leave(key, entry, stored, out);
        if opened.is_err() {
            out.zeroize();
        }
        opened
    }

    fn open_or_leave(
        &mut self,
        key: &DataKey,
        entry: &SegmentEntry,
        stored: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), SealError> {
        let plain_len = entry.plain_len as usize;
        if plain_len > SEGMENT_PLAIN_MAX {
            return Err(SealError::TooLong { len: plain_len });
        }
        if stored.len() != entry.stored_len as usize || stored.len() < TAG_LEN {
            return Err(SealError::StoredLength { expected: entry.stored_len, found: stored.len() });
        }
        let body_len = stored.len() - TAG_LEN;
        let aad = segment_aad(&self.repository, key.kind(), entry.plain_len, entry.codec);
        let segment_key = key.segment_key(&entry.n1);
        match entry.codec {
            Codec::Raw => {
                if body_len != plain_len {
                    let found = body_len as u64;
                    return Err(CompressError::Length { expected: plain_len, found }.into());
                }
                out.resize(plain_len, 0);
                segment_key.open_into(entry.n2, &aad, stored, out)?;
            }
            Codec::Zstd => {
                self.frame.resize(body_len, 0);
                segment_key.open_into(entry.n2, &aad, stored, &mut self.frame)?;
                self.decompressor.decompress(&self.frame, plain_len, out)?;
            }
        }
        Ok(())
    }
}
