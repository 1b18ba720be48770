//! Blobs: where they are, and how they are opened.

use bytes::Bytes;

use super::crypto::{Key, OVERHEAD, name_of};
use super::error::Fault;
use super::tree::TREE_MAX;
use crate::compress::Decompressor;
use crate::id::ResticId;

/// Most bytes of a piece of a file: restic cuts at 8 MiB, and others who write its format may cut elsewhere.
const DATA_MAX: u32 = 32 << 20;

/// What a blob is a piece of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum BlobKind {
    /// A file.
    Data = 0,
    /// A directory; the blob is all of it.
    Tree = 1,
}

impl BlobKind {
    /// As messages call it.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Data => "data",
            Self::Tree => "tree",
        }
    }

    /// Most bytes of its content.
    pub(super) fn most(self) -> u32 {
        match self {
            Self::Data => DATA_MAX,
            Self::Tree => TREE_MAX,
        }
    }
}

/// What an index or a header says of one copy of a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BlobRow {
    pub(super) id: ResticId,
    pub(super) kind: BlobKind,
    /// Number of the pack.
    pub(super) pack: u32,
    /// Where it begins in the pack.
    pub(super) offset: u32,
    /// Its bytes in the pack.
    pub(super) length: u32,
    /// Its bytes when decompressed; zero if it is not compressed.
    pub(super) plain: u32,
}

/// Where a copy of a blob is. Packs have numbers in the order in which they became known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// Number of the pack.
    pub pack: u32,
    /// Where it begins in the pack.
    pub offset: u32,
    /// Its bytes in the pack.
    pub length: u32,
    /// Its bytes when decompressed; zero if it is not compressed.
    pub(super) plain: u32,
}

impl Place {
    /// Where a blob is that is not compressed.
    pub fn stored(pack: u32, offset: u32, length: u32) -> Self {
        Self { pack, offset, length, plain: 0 }
    }

    /// Whether a blob of this kind may have these lengths. What does not compress may become a little longer.
    pub fn is_acceptable(&self, kind: BlobKind) -> bool {
        let most = kind.most();
        self.content_len() <= most && self.length <= most + most / 64 + 4096
    }

    /// Bytes of its content.
    pub fn content_len(&self) -> u32 {
        match self.plain {
            0 => self.length.saturating_sub(OVERHEAD as u32),
            plain => plain,
        }
    }
}

/// Opens blobs. One at a time; it keeps its memory.
#[derive(Debug)]
pub(super) struct BlobOpener {
    key: Key,
    decompressor: Decompressor,
}

impl BlobOpener {
    pub(super) fn new(key: &Key) -> Result<Self, Fault> {
        let decompressor = Decompressor::new().map_err(Fault::Compression)?;
        Ok(Self { key: key.clone(), decompressor })
    }

    /// The content of the blob with this name, of exactly the length that its place says.
    pub(super) fn open(
        &mut self,
        (kind, id): (BlobKind, &ResticId),
        place: &Place,
        stored: &[u8],
    ) -> Result<Bytes, Fault> {
        let (len, most) = (place.content_len(), kind.most());
        if len > most {
            return Err(Fault::TooLong { len: len.into(), most: most.into() });
        }
        let mut sealed = stored.to_vec();
        self.key.open(&mut sealed)?;
        let (start, end) = (sealed.len().min(16), sealed.len().saturating_sub(16));
        let content = if place.plain == 0 {
            Bytes::from(sealed).slice(start..end.max(start))
        } else {
            let mut plain = Vec::new();
            let opened = sealed.get(start..end).unwrap_or_default();
            let done = self.decompressor.decompress_foreign(opened, len as usize, &mut plain);
            done.map_err(Fault::Compression)?;
            plain.into()
        };
        if name_of(&content) == *id { Ok(content) } else { Err(Fault::Hash) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::crypto::tests::seal;
    use super::*;

    #[test]
    fn a_blob_is_what_its_name_says_or_an_error() {
        let key = Key::new(&[1; 32], &[2; 16], &[3; 16]);
        let mut opener = BlobOpener::new(&key).unwrap();
        let content = b"content content content content".repeat(100);
        let id = name_of(&content);
        let compressed = zstd::stream::encode_all(&content[..], 3).unwrap();
        for (inner, plain) in [(&content, 0), (&compressed, content.len() as u32)] {
            let stored = seal(&key, [7; 16], inner);
            let place = Place { pack: 0, offset: 0, length: stored.len() as u32, plain };
            assert_eq!(opener.open((BlobKind::Data, &id), &place, &stored).unwrap(), content);
            let other = ResticId::new([9; 32]);
            assert!(matches!(opener.open((BlobKind::Data, &other), &place, &stored), Err(Fault::Hash)));
            for at in (0..stored.len()).step_by(7) {
                let mut bad = stored.clone();
                bad[at] ^= 1;
                assert!(opener.open((BlobKind::Data, &id), &place, &bad).is_err());
                assert!(opener.open((BlobKind::Data, &id), &place, &stored[..at]).is_err());
            }
            if plain > 0 {
                for plain in [1, plain - 1, plain + 1, DATA_MAX, u32::MAX] {
                    let lying = Place { plain, ..place };
                    assert!(opener.open((BlobKind::Data, &id), &lying, &stored).is_err());
                }
            }
        }
    }
}
