//! Writing the content of one stored file to an output.
//!
//! # Invariants
//! Bytes come in order, each after its chunk's id was computed again. A few requests run ahead of the output, and what
//! they hold is bounded.

use std::collections::VecDeque;
use std::io::Write;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::FuturesOrdered;
use futures::{FutureExt, StreamExt};

use crate::crypto::{DataKey, context};
use crate::error::Error;
use crate::format::FormatError;
use crate::format::content::{ChunkRow, Content};
use crate::format::layout::ObjectName;
use crate::format::node::NodeKind;
use crate::index::Location;
use crate::ops::restore::as_path;
use crate::ops::snapshots::SnapshotInfo;
use crate::ops::tree::{
    ChunkCopy, ContentRows, Found, Located, Locator, Lookup, Sought, TreeReader, elsewhere, genuine,
    is_local_damage, may_have_moved,
};
use crate::repo::{RepoError, Repository, SegmentPlace};
use crate::seal::SegmentOpener;
use crate::store::Key;

/// Most stored bytes of one request.
const REQUEST_MAX: u64 = 4 << 20;
/// Bytes between two wanted segments that are fetched rather than skipped.
const GAP_MAX: u64 = 64 << 10;
/// Requests that run ahead.
const AHEAD: usize = 4;
/// Zeroes are written in pieces of this size.
static ZEROES: [u8; 64 << 10] = [0; 64 << 10];

/// Writes the content of the file at `path`, holes as zeroes, and says how many bytes that were.
///
/// # Errors
/// [`Error::NoSuchPath`], [`Error::NotAFile`]; [`Error::ChunkLost`] at the first byte that cannot be had, everything
/// before it having been written; [`Error::Output`] if the output takes no more.
pub async fn cat(
    repo: &Repository,
    snapshot: &SnapshotInfo,
    path: &[u8],
    out: impl Write + Send,
) -> Result<u64, Error> {
    let lookup = Lookup::open(repo).await?;
    let mut reader = lookup.reader()?;
    let node = match reader.find(snapshot.snapshot.root, path).await? {
        None => return Err(Error::NoSuchPath { path: as_path(path.to_vec()) }),
        Some(Found::Node(node)) if node.kind == NodeKind::File => node,
        Some(_) => return Err(Error::NotAFile { path: as_path(path.to_vec()) }),
    };
    let mut holes = Holes { out, holes: node.holes.into_iter().collect(), at: 0, size: node.size };
    let mut ahead = Ahead::new(&lookup, node.content)?;
    let mut opener = SegmentOpener::new(repo.id())?;
    let id_key = repo.dedup_key(context::CHUNK_ID)?;
    let mut plain = Vec::new();
    loop {
        if repo.env().cancel.is_raised() {
            return Err(Error::Cancelled);
        }
        ahead.fill(&mut reader).await?;
        let Some((span, reply)) = ahead.replies.next().await else { break };
        let bytes = match reply {
            Ok(bytes) => Some(bytes),
            Err(error) if may_have_moved(&error) || is_local_damage(&error) => None,
            Err(error) => return Err(error),
        };
        for piece in span.pieces {
            let stored = bytes.as_ref().map(|bytes| piece.stored(bytes, span.start));
            let opened =
                stored.map(|stored| opener.open(&piece.key, &piece.location.segment, stored, &mut plain));
            for (row, offset) in &piece.rows {
                let chunk =
                    if let Some(Ok(())) = opened { genuine(&id_key, &plain, row, *offset) } else { None };
                match chunk {
                    Some(chunk) => holes.write(chunk)?,
                    None => {
                        let tried = vec![ChunkCopy { segment: piece.place, offset: *offset }];
                        let sought = vec![Sought { row: *row, tried }];
                        let found = elsewhere(&lookup, &id_key, sought).await?.pop().flatten();
                        holes.write(&found.ok_or(Error::ChunkLost { chunk: row.id })?)?;
                    }
                }
            }
        }
    }
    holes.finish()
}

/// A range of the pack that a copy is in.
pub(super) async fn get(
    lookup: &Lookup<'_>,
    copy: &Location,
    range: std::ops::Range<u64>,
) -> Result<Bytes, Error> {
    let key = Key::new(ObjectName::Pack(copy.pack_id).key()).map_err(|e| RepoError::Store(e.into()))?;
    Ok(lookup.repo().store().get_range(&key, range).await?)
}

/// Consecutive chunks of one segment.
struct Piece {
    location: Location,
    place: SegmentPlace,
    key: Arc<DataKey>,
    rows: Vec<(ChunkRow, u32)>,
}

impl Piece {
    fn stored<'b>(&self, bytes: &'b Bytes, start: u64) -> &'b [u8] {
        let entry = &self.location.segment;
        let from = (u64::from(entry.offset) - start) as usize;
        &bytes[from..from + entry.stored_len as usize]
    }
}

/// Consecutive pieces that one request fetches.
struct Span {
    start: u64,
    end: u64,
    pieces: Vec<Piece>,
}

type Reply = (Span, Result<Bytes, Error>);

/// Requests that run ahead of the output.
struct Ahead<'a> {
    lookup: &'a Lookup<'a>,
    rows: ContentRows,
    locator: Locator<'a>,
    open: Option<Span>,
    replies: FuturesOrdered<BoxFuture<'a, Reply>>,
    done: bool,
}

impl<'a> Ahead<'a> {
    fn new(lookup: &'a Lookup<'a>, content: Content) -> Result<Self, Error> {
        Ok(Self {
            lookup,
            rows: ContentRows::new(content),
            locator: Locator::new(lookup),
            open: None,
            replies: FuturesOrdered::new(),
            done: false,
        })
    }

    async fn fill(&mut self, reader: &mut TreeReader<'_>) -> Result<(), Error> {
        while self.replies.len() < AHEAD && !self.done {
            match self.rows.next(reader).await? {
                Some(row) => self.add(row).await?,
                None => {
                    self.done = true;
                    self.send();
                }
            }
        }
        Ok(())
    }

    async fn add(&mut self, row: ChunkRow) -> Result<(), Error> {
        let found = self.locator.find(&row).await?.ok_or(Error::ChunkLost { chunk: row.id })?;
        let Located { location, copy: ChunkCopy { segment: place, .. }, key } = found;
        let last = self.open.as_mut().and_then(|span| span.pieces.last_mut());
        if let Some(piece) = last.filter(|piece| piece.place == place) {
            piece.rows.push((row, location.offset));
            return Ok(());
        }
        let start = u64::from(location.segment.offset);
        let end = start + u64::from(location.segment.stored_len);
        let piece = Piece { location, place, key, rows: vec![(row, location.offset)] };
        match &mut self.open {
            Some(span)
                if span.pieces.last().is_some_and(|last| last.location.pack_id == location.pack_id)
                    && start >= span.end
                    && start - span.end <= GAP_MAX
                    && end - span.start <= REQUEST_MAX =>
            {
                span.end = end;
                span.pieces.push(piece);
            }
            _ => {
                self.send();
                self.open = Some(Span { start, end, pieces: vec![piece] });
            }
        }
        Ok(())
    }

    fn send(&mut self) {
        let Some(span) = self.open.take() else { return };
        let lookup = self.lookup;
        let request = async move {
            let reply = match span.pieces.first() {
                Some(first) => get(lookup, &first.location, span.start..span.end).await,
                None => Ok(Bytes::new()),
            };
            (span, reply)
        };
        self.replies.push_back(request.boxed());
    }
}

/// Puts holes between the chunks.
struct Holes<W> {
    out: W,
    holes: VecDeque<(u64, u64)>,
    at: u64,
    size: u64,
}

impl<W: Write> Holes<W> {
    fn write(&mut self, mut chunk: &[u8]) -> Result<(), Error> {
        while !chunk.is_empty() {
            self.skip_hole()?;
            let until = self.holes.front().map_or(u64::MAX, |(offset, _)| *offset);
            let len = usize::try_from(until - self.at).map_or(chunk.len(), |len| len.min(chunk.len()));
            let (head, tail) = chunk.split_at(len);
            self.put(head)?;
            chunk = tail;
        }
        Ok(())
    }

    fn skip_hole(&mut self) -> Result<(), Error> {
        while let Some((_, mut len)) = self.holes.pop_front_if(|(offset, _)| *offset <= self.at) {
            while len > 0 {
                let piece = len.min(ZEROES.len() as u64);
                self.put(&ZEROES[..piece as usize])?;
                len -= piece;
            }
        }
        Ok(())
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let end = self.at + bytes.len() as u64;
        if end > self.size {
            return Err(misfit());
        }
        self.out.write_all(bytes).map_err(Error::Output)?;
        self.at = end;
        Ok(())
    }

    fn finish(mut self) -> Result<u64, Error> {
        self.skip_hole()?;
        self.out.flush().map_err(Error::Output)?;
        if self.at == self.size { Ok(self.at) } else { Err(misfit()) }
    }
}

/// The size of the node is not the sum of its chunks and holes.
fn misfit() -> Error {
    let rule = FormatError::Value { section: "6", what: "size of a file" };
    Error::Damaged { key: "the file's node".to_owned(), rule }
}
