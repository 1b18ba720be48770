//! Plaintext to stored bytes.

use super::{SealError, SegmentOpener};
use crate::compress::{Compressor, looks_incompressible};
use crate::crypto::DataKey;
use crate::format::segment::{Codec, SEGMENT_PLAIN_MAX, SegmentEntry, TAG_LEN, segment_aad};
use crate::id::{ChunkId, RepositoryId};
use crate::random::{Random, random_array};

/// A frame must save at least this part of the plaintext, or the plaintext is stored as it is: reading back pays for
/// every frame.
const LEAST_SAVING: usize = 64;

/// Seals segments of one run, of the kind of its data key. One for each worker: it keeps contexts and buffers.
#[derive(Debug)]
pub struct SegmentSealer {
    key: DataKey,
    repository: RepositoryId,
    compressor: Compressor,
    frame: Vec<u8>,
    opener: SegmentOpener,
    opened: Vec<u8>,
    #[cfg(test)]
    damage: Option<fn(&mut Vec<u8>)>,
}

impl SegmentSealer {
    /// Sets contexts up for a level from -7 to 19.
    pub fn new(key: &DataKey, repository: RepositoryId, level: i32) -> Result<Self, SealError> {
        Ok(Self {
            key: key.clone(),
            repository,
            compressor: Compressor::new(level)?,
            frame: Vec::new(),
            opener: SegmentOpener::new(repository)?,
            opened: Vec::new(),
            #[cfg(test)]
            damage: None,
        })
    }

    /// Appends the stored bytes of a segment to `out`. `plain` is the content of the chunks named `ids`, in order.
    ///
    /// The entry's offset, data-key row and origin row are zero; whoever fills the pack sets them. On failure `out` is
    /// as it was.
    pub fn seal<'a>(
        &mut self,
        plain: &[u8],
        ids: impl IntoIterator<Item = &'a ChunkId>,
        random: &dyn Random,
        out: &mut Vec<u8>,
    ) -> Result<SegmentEntry, SealError> {
        let start = out.len();
        let sealed = self.append(plain, ids, random, out).and_then(|entry| {
            self.check(plain, &entry, &out[start..])?;
            Ok(entry)
        });
        if sealed.is_err() {
            out.truncate(start);
        }
        sealed
    }

    fn append<'a>(
        &mut self,
        plain: &[u8],
        ids: impl IntoIterator<Item = &'a ChunkId>,
        random: &dyn Random,
        out: &mut Vec<u8>,
    ) -> Result<SegmentEntry, SealError> {
        let len = plain.len();
        if len > SEGMENT_PLAIN_MAX {
            return Err(SealError::TooLong { len });
        }
        let mut ids = ids.into_iter().peekable();
        if ids.peek().is_none() && len > 0 {
            return Err(SealError::NoChunks { len });
        }
        let codec = self.choose(plain)?;
        let body = if codec == Codec::Raw { plain } else { &self.frame };
        let fresh = random_array(random).map_err(crate::crypto::CryptoError::from)?;
        let (n1, n2) = self.key.segment_nonces(&fresh, (codec, self.compressor.level()), ids);

        let start = out.len();
        let plain_len = len as u32; // at most SEGMENT_PLAIN_MAX
        let aad = segment_aad(&self.repository, self.key.kind(), plain_len, codec);
        out.resize(start + body.len() + TAG_LEN, 0);
        self.key.segment_key(&n1).seal_into(n2, &aad, body, &mut out[start..])?;
        let stored_len = (out.len() - start) as u32; // a frame is no longer than its plaintext
        Ok(SegmentEntry { offset: 0, stored_len, plain_len, codec, flags: 0, data_key: 0, origin: 0, n1, n2 })
    }

    /// Compresses into `frame` if that is worth it.
    fn choose(&mut self, plain: &[u8]) -> Result<Codec, SealError> {
        if looks_incompressible(plain) {
            return Ok(Codec::Raw);
        }
        self.compressor.compress(plain, &mut self.frame)?;
        #[cfg(test)]
        if let Some(damage) = self.damage {
            damage(&mut self.frame);
        }
        let worth = self.frame.len() < plain.len() - plain.len() / LEAST_SAVING;
        Ok(if worth { Codec::Zstd } else { Codec::Raw })
    }

    /// Opens what was sealed as a reader would, from the entry and the stored bytes alone.
    fn check(&mut self, plain: &[u8], entry: &SegmentEntry, stored: &[u8]) -> Result<(), SealError> {
        match self.opener.open(&self.key, entry, stored, &mut self.opened) {
            Ok(()) if self.opened == plain => Ok(()),
            Ok(()) => Err(SealError::RoundTrip { source: None }),
            Err(error) => Err(SealError::RoundTrip { source: Some(Box::new(error)) }),
        }
    }
}

#[cfg(test)]
mod tests;
