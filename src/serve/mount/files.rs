//! Reading regular files: holes, and content through opened segments.
//!
//! # Invariants
//! Every byte is one that was saved, or the read fails. A file whose size is not that of its chunks and holes is damaged
//! as a whole.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::mpsc::UnboundedSender;

use super::attr::Unfit;
use super::extents::{Ahead, Extent, Extents, RowList};
use super::lru::Lru;
use super::pages::{Loaded, Pages};
use super::segments::{Segments, Shared, Wish};
use super::server::Fault;
use crate::error::Error;
use crate::format::FormatError;
use crate::format::content::{Content, LEVELS_MAX, ListRef};
use crate::format::node::Node;
use crate::ops::tree::{Lookup, damaged_page};

/// Bytes of files' descriptions that are kept.
const KEPT: usize = 4 << 20;
/// How far ahead of a reader segments are opened, near and far away.
const AHEAD_NEAR: u64 = 6 << 20;
const AHEAD_FAR: u64 = 16 << 20;

/// Where the content of a file is listed.
#[derive(Debug)]
enum Rows {
    Here(Arc<RowList>),
    Paged(ListRef),
}

/// A regular file.
#[derive(Debug)]
pub(super) struct File {
    extents: Extents,
    rows: Rows,
    ahead: Mutex<Ahead>,
}

impl File {
    /// Of its node.
    pub(super) fn new(node: Node) -> Result<Self, Unfit> {
        let extents = Extents::new(node.size, &node.holes).ok_or(Unfit::Size)?;
        let rows = match node.content {
            Content::Inline(rows) => {
                let list = RowList::new(rows);
                if list.len() != extents.content() {
                    return Err(Unfit::Size);
                }
                Rows::Here(Arc::new(list))
            }
            Content::Paged(list) => Rows::Paged(list),
        };
        Ok(Self { extents, rows, ahead: Mutex::default() })
    }

    /// Where what is at an offset begins and ends.
    pub(super) fn extents(&self) -> &Extents {
        &self.extents
    }

    fn weight(&self) -> usize {
        let rows = match &self.rows {
            Rows::Here(list) => list.weight(),
            Rows::Paged(_) => 0,
        };
        size_of::<Self>() + self.extents.weight() + rows
    }
}

/// What a read brings.
#[derive(Debug)]
pub(super) enum Bytes {
    /// Bytes of an opened segment.
    Shared(Shared),
    /// Put together.
    Own(Vec<u8>),
}

impl std::ops::Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Shared(shared) => shared.bytes(),
            Self::Own(bytes) => bytes,
        }
    }
}

/// Reads files.
pub(super) struct Files<'a> {
    segments: Segments<'a>,
    kept: Mutex<Lru<u64, Arc<File>>>,
    ahead: u64,
}

impl<'a> Files<'a> {
    /// Whoever listens to `wishes` calls [`Self::grant`] for each.
    pub(super) fn new(lookup: &'a Lookup<'a>, wishes: UnboundedSender<Wish>) -> Result<Self, Error> {
        let ahead = if lookup.repo().store().is_local() { AHEAD_NEAR } else { AHEAD_FAR };
        let segments = Segments::new(lookup, wishes)?;
        Ok(Self { segments, kept: Mutex::new(Lru::new(KEPT)), ahead })
    }

    /// The file with this number, if it is kept.
    pub(super) fn known(&self, ino: u64) -> Option<Arc<File>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).get(&ino)
    }

    /// Keeps a file.
    pub(super) fn keep(&self, ino: u64, file: File) -> Arc<File> {
        let (weight, file) = (file.weight(), Arc::new(file));
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).insert(ino, Arc::clone(&file), weight);
        file
    }

    /// Opens a segment ahead of its reader.
    pub(super) async fn grant(&self, wish: Wish) {
        self.segments.grant(wish).await;
    }

    /// Bytes of a file, fewer only at its end.
    pub(super) async fn read(
        &self,
        pages: &Pages<'_>,
        file: &File,
        (offset, len): (u64, u32),
    ) -> Result<Bytes, Fault> {
        let size = file.extents.size();
        let end = offset.saturating_add(len.into()).min(size);
        let plan = {
            let mut ahead = file.ahead.lock().unwrap_or_else(PoisonError::into_inner);
            if offset < end { ahead.plan(offset..end, size, self.ahead) } else { None }
        };
        if let Some(range) = plan {
            // What stands in the way is met, and told, by who reads that far.
            let _ = self.ask(pages, file, range).await;
        }
        if let Some(shared) = self.shared(pages, file, offset..end).await? {
            return Ok(Bytes::Shared(shared));
        }
        let mut out = Vec::with_capacity(end.saturating_sub(offset) as usize);
        let mut at = offset;
        while at < end {
            match file.extents.at(at) {
                Extent::Hole { end: hole } => {
                    let until = hole.min(end);
                    out.resize(out.len() + (until - at) as usize, 0);
                    at = until;
                }
                Extent::Data { content, end: data } => {
                    let len = data.min(end) - at;
                    self.content(pages, file, content..content + len, &mut out).await?;
                    at += len;
                }
            }
        }
        Ok(Bytes::Own(out))
    }

    /// The content of a range, if nothing has to be put together for it.
    async fn shared(
        &self,
        pages: &Pages<'_>,
        file: &File,
        range: Range<u64>,
    ) -> Result<Option<Shared>, Fault> {
        if range.is_empty() {
            return Ok(None);
        }
        let Extent::Data { content, end } = file.extents.at(range.start) else { return Ok(None) };
        let (list, base) = rows_at(pages, file, content).await?;
        let wanted = content - base..content - base + (range.end - range.start);
        if end < range.end || list.len() < wanted.end {
            return Ok(None);
        }
        Ok(self.segments.shared(list.within(wanted.clone()), wanted).await?)
    }

    /// Asks for the content of a range of a file.
    async fn ask(&self, pages: &Pages<'_>, file: &File, range: Range<u64>) -> Result<(), Fault> {
        let mut at = range.start;
        while at < range.end {
            match file.extents.at(at) {
                Extent::Hole { end } => at = end,
                Extent::Data { content, end } => {
                    let len = end.min(range.end) - at;
                    let (list, base) = rows_at(pages, file, content).await?;
                    // What is in another page of the list is asked for when that is reached.
                    let here = list.len().saturating_sub(content - base).min(len).max(1);
                    let from = content - base;
                    self.segments.wish(list.from(from).map(|(row, at)| (row, at < from + here)))?;
                    at += here;
                }
            }
        }
        Ok(())
    }

    async fn content(
        &self,
        pages: &Pages<'_>,
        file: &File,
        wanted: Range<u64>,
        out: &mut Vec<u8>,
    ) -> Result<(), Fault> {
        let mut at = wanted.start;
        while at < wanted.end {
            let (list, base) = rows_at(pages, file, at).await?;
            let before = at;
            for (row, start) in list.within(at - base..wanted.end - base) {
                let from = (at - base - start) as usize;
                let until = (wanted.end - base - start).min(row.len.into()) as usize;
                self.segments.read(&row, from..until, |part| out.extend_from_slice(part)).await?;
                at = base + start + until as u64;
            }
            if at == before {
                return Err(Fault::Unfit(Unfit::Size));
            }
        }
        Ok(())
    }
}

/// The rows that hold an offset of the content, and where they begin.
async fn rows_at(pages: &Pages<'_>, file: &File, content: u64) -> Result<(Arc<RowList>, u64), Fault> {
    let list = match &file.rows {
        Rows::Here(list) => return Ok((Arc::clone(list), 0)),
        Rows::Paged(list) => *list,
    };
    let bad = |what| damaged_page(&list.id, FormatError::Value { section: "7", what });
    if list.level > LEVELS_MAX {
        return Err(bad("level of a list page").into());
    }
    let (mut level, mut id, mut len) = (list.level, list.id, list.len);
    let (mut base, mut bytes) = (0, file.extents.content());
    loop {
        match pages.list(id, len).await? {
            Loaded::Rows(rows) if level == 0 => {
                return if rows.len() == bytes { Ok((rows, base)) } else { Err(Fault::Unfit(Unfit::Size)) };
            }
            Loaded::Lists(below) if level > 0 => {
                let sum = below.iter().fold(0_u64, |sum, page| sum.saturating_add(page.bytes));
                if sum != bytes {
                    return Err(Fault::Unfit(Unfit::Size));
                }
                let mut start = base;
                let holds = below.iter().find(|page| {
                    let found = content - start < page.bytes;
                    if !found {
                        start += page.bytes;
                    }
                    found
                });
                let page = holds.ok_or(Fault::Unfit(Unfit::Size))?;
                (level, id, len, base, bytes) = (level - 1, page.id, page.len, start, page.bytes);
            }
            _ => return Err(bad("level of a list page").into()),
        }
    }
}
