//! An index object that is built in a file: its blocks come one after another and are sealed at once, so that memory holds
//! one of them.
//!
//! # Invariants
//! The object has the same stored form as one that [`super::seal_index_object`] makes.

use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::error::RepoError;
use super::index_object::{HEAD_LEN, SALT_LEN, seal_head};
use super::pack::PackKeys;
use crate::crypto::{ObjectSealer, object_hash};
use crate::format::FormatError;
use crate::format::envelope::ObjectKind;
use crate::format::index::{
    BLOCK_PLAIN_MAX, BlockEntry, BlockKind, HEADER_MAX, IndexHeader, PlainBlock, StoredBlock,
};
use crate::format::pack::padme;
use crate::format::segment::TAG_LEN;
use crate::id::ObjectHash;
use crate::index::ScratchFile;
use crate::random::Random;

/// An index object under construction.
pub(super) struct IndexFile {
    file: ScratchFile,
    place: PathBuf,
    /// Everything but the list of blocks.
    header: IndexHeader,
    /// What the header will take up.
    header_len: usize,
    salt: [u8; SALT_LEN],
    sealer: ObjectSealer,
    count: u32,
    blocks: Vec<BlockEntry>,
    at: u64,
}

impl IndexFile {
    /// Begins an object with these tables; its blocks and their number follow from the counts in `header`, whose own list of
    /// blocks is empty. The file lies in `place`. The salt must be another for every content.
    pub(super) fn begin(
        place: &Path,
        mut header: IndexHeader,
        keys: &PackKeys<'_>,
        salt: [u8; SALT_LEN],
    ) -> Result<Self, RepoError> {
        header.blocks = block_list(&header);
        let header_len = header.encode().len();
        if header_len > HEADER_MAX {
            return Err(FormatError::Value { section: "15", what: "index header length" }.into());
        }
        let count = std::mem::take(&mut header.blocks).len() as u32 + 1;
        let file = ScratchFile::create(place).map_err(local(place))?;
        Ok(Self {
            file,
            place: place.to_owned(),
            header,
            header_len,
            salt,
            sealer: ObjectSealer::new(keys.index, &salt, keys.repository, ObjectKind::Index),
            count,
            blocks: Vec::with_capacity(count as usize),
            at: (HEAD_LEN + header_len + TAG_LEN) as u64,
        })
    }

    /// Takes the next block in stored order.
    pub(super) fn push(&mut self, block: PlainBlock) -> Result<(), RepoError> {
        let PlainBlock { kind, rows, mut bytes } = block;
        self.sealer.seal_block(self.blocks.len() as u32 + 1, self.count, &mut bytes)?;
        self.blocks.push(BlockEntry { kind, rows, stored: StoredBlock::of(&bytes) });
        self.write(&bytes)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), RepoError> {
        self.file.write_at(bytes, self.at).map_err(local(&self.place))?;
        self.at += bytes.len() as u64;
        Ok(())
    }

    /// Writes what remains; gives name and content. The content takes room on the disk until it is dropped.
    pub(super) fn finish(
        mut self,
        keys: &PackKeys<'_>,
        random: &dyn Random,
    ) -> Result<(ObjectHash, Bytes), RepoError> {
        self.header.blocks = std::mem::take(&mut self.blocks);
        let (head, signature) = seal_head(&self.header, &self.salt, keys)?;
        if head.len() != HEAD_LEN + self.header_len + TAG_LEN {
            return Err(FormatError::Value { section: "15", what: "number of sealed index blocks" }.into());
        }
        self.write(&signature)?;
        let len = usize::try_from(self.at).unwrap_or(usize::MAX);
        let mut filling = vec![0; BLOCK_PLAIN_MAX];
        let mut left = padme(len) - len;
        while left > 0 {
            let part = &mut filling[..left.min(BLOCK_PLAIN_MAX)];
            random.fill(part)?;
            let part = part.to_vec();
            self.write(&part)?;
            left -= part.len();
        }
        self.file.write_at(&head, 0).map_err(local(&self.place))?;
        let map = self.file.map().map_err(local(&self.place))?;
        Ok((object_hash(map.as_ref()), Bytes::from_owner(map)))
    }
}

/// The list of blocks as far as it can be told before they are made. Its stored form has the right length.
fn block_list(header: &IndexHeader) -> Vec<BlockEntry> {
    let mut list = Vec::new();
    let records = BlockKind::Records { first: [0; 16] };
    let rows = [u64::from(header.packs), u64::from(header.segments), header.records];
    for (kind, rows) in [0, 1, 2].into_iter().zip(rows) {
        let mut first = 0_u64;
        while first < rows {
            let number = u32::try_from(first).unwrap_or(u32::MAX);
            let kind = match kind {
                0 => BlockKind::Packs { first: number },
                1 => BlockKind::Segments { first: number },
                _ => records,
            };
            let count = (rows - first).min(kind.rows_max() as u64) as u32;
            let stored_len = (count as usize * kind.row_len() + TAG_LEN) as u32;
            list.push(BlockEntry { kind, rows: count, stored: StoredBlock { stored_len, sum: [0; 32] } });
            first += u64::from(count);
        }
    }
    list
}

fn local(place: &Path) -> impl FnOnce(io::Error) -> RepoError + '_ {
    move |source| RepoError::Local { path: place.to_owned(), source }
}
