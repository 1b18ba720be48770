//! Where blobs are, from all indexes, and from the headers of packs when the indexes do not know.

use std::path::Path;

use bytes::Bytes;
use futures::{StreamExt, stream};
use serde::Deserialize;

use super::blobs::{BlobKind, BlobRow, Place};
use super::crypto::OVERHEAD;
use super::error::{Fault, ResticError};
use super::pack::{HEADER_MAX, LENGTH_LEN, header_start, read_header};
use super::parts::{PART, Parts};
use super::repository::Restic;
use super::table::Table;
use crate::id::ResticId;

/// Longest index that is read. restic ends one at 50,000 blobs, about 10 MB.
const INDEX_MAX: usize = 256 << 20;
/// Indexes that are held at once.
const INDEXES_AT_ONCE: usize = 4;
/// Bytes of a pack's end that are fetched first: with them comes the header of most packs.
const TAIL: u64 = 32 << 10;

#[derive(Deserialize)]
struct StoredIndex {
    packs: Option<Vec<StoredPack>>,
}

#[derive(Deserialize)]
struct StoredPack {
    id: ResticId,
    blobs: Option<Vec<StoredBlob>>,
}

#[derive(Deserialize)]
struct StoredBlob {
    id: ResticId,
    #[serde(rename = "type")]
    kind: StoredKind,
    offset: u32,
    length: u32,
    #[serde(default)]
    uncompressed_length: u32,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "lowercase")]
enum StoredKind {
    Data,
    Tree,
}

/// Where all blobs of a repository are, and the means to read them.
#[derive(Debug)]
pub struct Catalog {
    restic: Restic,
    table: Table,
    parts: Parts,
    requests: usize,
    /// Whether the packs that no index names were looked at.
    searched: bool,
    /// What kept packs from being looked at.
    problems: Vec<ResticError>,
}

impl Catalog {
    pub(super) async fn load(
        restic: &Restic,
        scratch: &Path,
        requests: usize,
    ) -> Result<(Self, Vec<ResticError>), ResticError> {
        let mut catalog = Self {
            restic: restic.clone(),
            table: Table::new(scratch),
            parts: Parts::default(),
            requests: requests.max(1),
            searched: false,
            problems: Vec::new(),
        };
        let names = restic.list("index/").await?;
        let mut reads = stream::iter(names)
            .map(|id| async move {
                let key = format!("index/{id}");
                let json = restic.document(&key, &id, INDEX_MAX).await?;
                let index: StoredIndex =
                    serde_json::from_slice(&json).map_err(Fault::Json).map_err(ResticError::file(key))?;
                Ok::<_, ResticError>(index)
            })
            .buffer_unordered(catalog.requests.min(INDEXES_AT_ONCE));
        let mut problems = Vec::new();
        while let Some(read) = reads.next().await {
            match read {
                Ok(index) => catalog.take(index)?,
                Err(error) if error.is_local() => problems.push(error),
                Err(error) => return Err(error),
            }
        }
        drop(reads);
        catalog.table.settle();
        Ok((catalog, problems))
    }

    fn take(&mut self, index: StoredIndex) -> Result<(), ResticError> {
        for pack in index.packs.unwrap_or_default() {
            let number = self.table.next_pack();
            let row = |blob: StoredBlob| {
                // What cannot be a blob is not one.
                let fits = blob.length as usize >= OVERHEAD && blob.offset.checked_add(blob.length).is_some();
                let kind = match blob.kind {
                    StoredKind::Data => BlobKind::Data,
                    StoredKind::Tree => BlobKind::Tree,
                };
                fits.then_some(BlobRow {
                    id: blob.id,
                    kind,
                    pack: number,
                    offset: blob.offset,
                    length: blob.length,
                    plain: blob.uncompressed_length,
                })
            };
            let rows: Vec<BlobRow> = pack.blobs.unwrap_or_default().into_iter().filter_map(row).collect();
            self.push(&pack.id, &rows)?;
        }
        Ok(())
    }

    fn push(&mut self, id: &ResticId, rows: &[BlobRow]) -> Result<(), ResticError> {
        let place = self.table.place().to_owned();
        self.table.push(id, rows).map_err(|source| ResticError::Local { path: place, source })
    }

    /// The name of a pack.
    pub fn pack_id(&self, number: u32) -> Option<ResticId> {
        self.table.pack(number).map(|pack| pack.id)
    }

    /// What kept packs from being looked at that no index names; each is told once.
    pub fn take_problems(&mut self) -> Vec<ResticError> {
        std::mem::take(&mut self.problems)
    }

    /// Where copies of a blob are; at least one.
    ///
    /// # Errors
    /// [`ResticError::BlobMissing`] if neither an index nor a pack knows it.
    pub async fn locate(&mut self, kind: BlobKind, id: &ResticId) -> Result<Vec<Place>, ResticError> {
        let found = self.table.find(kind, id);
        if !found.is_empty() || !self.search().await? {
            return Self::known(found, kind, id);
        }
        Self::known(self.table.find(kind, id), kind, id)
    }

    fn known(found: Vec<Place>, kind: BlobKind, id: &ResticId) -> Result<Vec<Place>, ResticError> {
        if found.is_empty() {
            Err(ResticError::BlobMissing { kind: kind.word(), blob: *id })
        } else {
            Ok(found)
        }
    }

    /// Reads the headers of all packs that no index names. False if that was done before.
    async fn search(&mut self) -> Result<bool, ResticError> {
        if std::mem::replace(&mut self.searched, true) {
            return Ok(false);
        }
        for byte in 0..=255 {
            let known = self.table.packs_beginning(byte);
            let mut packs = self.restic.list_packs(byte).await?;
            packs.retain(|(id, _)| known.binary_search(id).is_err());
            let restic = self.restic.clone();
            let mut reads = stream::iter(packs)
                .map(|(id, size)| {
                    let restic = &restic;
                    async move { (id, header(restic, &id, size).await) }
                })
                .buffer_unordered(self.requests);
            while let Some((id, rows)) = reads.next().await {
                match rows {
                    Ok(mut rows) => {
                        let number = self.table.next_pack();
                        rows.iter_mut().for_each(|row| row.pack = number);
                        self.push(&id, &rows)?;
                    }
                    Err(error) if error.is_local() => self.problems.push(error),
                    Err(error) => return Err(error),
                }
            }
        }
        self.table.settle();
        Ok(true)
    }

    /// The content of a blob, from whichever copy is whole.
    ///
    /// # Errors
    /// What is wrong with the copy that was tried first, if none is.
    pub async fn read(&mut self, kind: BlobKind, id: &ResticId) -> Result<Bytes, ResticError> {
        let mut first = None;
        let mut tried = Vec::new();
        loop {
            for place in self.locate(kind, id).await? {
                if tried.contains(&place) {
                    continue;
                }
                tried.push(place);
                match self.read_at(kind, id, place).await {
                    Ok(content) => return Ok(content),
                    Err(error) if error.is_local() => first = first.or(Some(error)),
                    Err(error) => return Err(error),
                }
            }
            if !self.search().await? {
                return Err(first.unwrap_or(ResticError::BlobMissing { kind: kind.word(), blob: *id }));
            }
        }
    }

    /// The content of a directory, which is likely to lie beside the one that was read last.
    pub async fn read_tree(&mut self, id: &ResticId) -> Result<Bytes, ResticError> {
        let place = self.locate(BlobKind::Tree, id).await?.first().copied();
        if let Some(place) = place
            && let Some(stored) = self.ahead(place).await?
            && let Some(pack) = self.pack_id(place.pack)
        {
            let blobs = vec![(*id, place, 0)];
            let opened = self.restic.open_blobs(BlobKind::Tree, (pack, stored), blobs).await?;
            if let Some((_, Ok(content))) = opened.into_iter().next() {
                return Ok(content);
            }
        }
        self.read(BlobKind::Tree, id).await
    }

    /// The bytes of a blob from a part that is read ahead; `None` if that does not work out.
    async fn ahead(&mut self, place: Place) -> Result<Option<Bytes>, ResticError> {
        let Some(pack) = self.table.pack(place.pack) else { return Ok(None) };
        let (start, end) = (place.offset, place.offset.saturating_add(place.length));
        let part = start / PART;
        let part_end = (part + 1).saturating_mul(PART);
        if end > part_end {
            return Ok(None);
        }
        let from = part * PART;
        let bytes = match self.parts.get((place.pack, part)) {
            Some(bytes) => bytes,
            None => {
                let range = u64::from(from)..u64::from(part_end.min(pack.end));
                let bytes = match self.restic.read_pack(&pack.id, range).await {
                    Ok(bytes) => bytes,
                    Err(error) if error.is_local() => return Ok(None),
                    Err(error) => return Err(error),
                };
                self.parts.put((place.pack, part), bytes.clone());
                bytes
            }
        };
        let (start, end) = ((start - from) as usize, (end - from) as usize);
        Ok((end <= bytes.len()).then(|| bytes.slice(start..end)))
    }

    async fn read_at(&self, kind: BlobKind, id: &ResticId, place: Place) -> Result<Bytes, ResticError> {
        let missing = || ResticError::BlobMissing { kind: kind.word(), blob: *id };
        let pack = self.pack_id(place.pack).ok_or_else(missing)?;
        let fault = |fault| ResticError::Blob { blob: *id, pack, fault };
        if !place.is_acceptable(kind) {
            let len = place.content_len().max(place.length);
            return Err(fault(Fault::TooLong { len: len.into(), most: kind.most().into() }));
        }
        let start = u64::from(place.offset);
        let stored = self.restic.read_pack(&pack, start..start + u64::from(place.length)).await?;
        let opened = self.restic.open_blobs(kind, (pack, stored), vec![(*id, place, 0)]).await?;
        opened.into_iter().next().map_or_else(|| Err(missing()), |(_, content)| content)
    }

    /// The repository.
    pub fn restic(&self) -> &Restic {
        &self.restic
    }
}

/// What the header of a pack of `size` bytes says.
async fn header(restic: &Restic, id: &ResticId, size: u64) -> Result<Vec<BlobRow>, ResticError> {
    let damaged = |fault| ResticError::file(format!("pack {id}"))(fault);
    if size < LENGTH_LEN {
        return Err(damaged(Fault::Truncated));
    }
    let tail_start = size.saturating_sub(TAIL);
    let tail = restic.read_pack(id, tail_start..size).await?;
    let start = header_start(size, &tail).map_err(damaged)?;
    let end = size - LENGTH_LEN;
    debug_assert!(end - start <= HEADER_MAX, "the length was checked");
    let sealed = match start.checked_sub(tail_start) {
        Some(at) => tail.slice(at as usize..(end - tail_start) as usize),
        None => restic.read_pack(id, start..end).await?,
    };
    read_header(restic.key(), &sealed, start, 0).map_err(damaged)
}
