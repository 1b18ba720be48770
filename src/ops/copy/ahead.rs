//! Content of many files, read in the order in which it is asked for, some requests ahead.
//!
//! # Invariants
//! A chunk is handed out after its id was computed again. What is fetched and opened ahead is bounded, however well it
//! compresses.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::FuturesOrdered;
use futures::{FutureExt, StreamExt};

use crate::crypto::{DataKey, SecretKey, context};
use crate::error::Error;
use crate::format::content::ChunkRow;
use crate::id::RepositoryId;
use crate::index::Location;
use crate::ops::cat::get;
use crate::ops::tree::{
    ChunkCopy, Located, Locator, Lookup, Sought, elsewhere, genuine, is_local_damage, may_have_moved,
};
use crate::repo::{RepoError, SegmentPlace};
use crate::seal::SegmentOpener;

/// Most stored bytes of one request.
const REQUEST_MAX: u64 = 4 << 20;
/// Most bytes that what one request brings may have once it is opened, unless a single segment has more.
const PLAIN_MAX: u64 = 8 << 20;
/// Bytes between two wanted segments that are fetched rather than skipped.
const GAP_MAX: u64 = 64 << 10;
/// Requests that run ahead, unless fewer are allowed.
const AHEAD: usize = 4;
/// Opened segments that are kept: what small files share is wanted again soon.
const KEPT: usize = 8;

/// Consecutive chunks of one segment.
struct Piece {
    location: Location,
    place: SegmentPlace,
    key: Arc<DataKey>,
    /// The opened segment, if it was kept.
    plain: Option<Bytes>,
    rows: Vec<(ChunkRow, u32)>,
}

/// Consecutive pieces that one request fetches.
#[derive(Default)]
struct Span {
    pieces: Vec<Piece>,
    /// What is to be fetched: the pack of the last piece that is not at hand, and its range there.
    range: Option<(Location, u64, u64)>,
    plain: u64,
}

/// What became of a chunk: its content, or the copy that was tried in vain; none if no copy is known.
type Tried = (ChunkRow, Result<Bytes, Option<ChunkCopy>>);

/// What a request brought.
struct Reply {
    chunks: Vec<Tried>,
    opened: Vec<(SegmentPlace, Bytes)>,
}

/// Requests that run ahead of who uses the content.
pub(super) struct Ahead<'a> {
    lookup: &'a Lookup<'a>,
    id_key: Arc<SecretKey>,
    most: usize,
    locator: Locator<'a>,
    open: Span,
    replies: FuturesOrdered<BoxFuture<'a, Result<Reply, Error>>>,
    ready: VecDeque<Tried>,
    kept: VecDeque<(SegmentPlace, Bytes)>,
}

impl<'a> Ahead<'a> {
    pub(super) fn new(lookup: &'a Lookup<'a>) -> Result<Self, Error> {
        let repo = lookup.repo();
        Ok(Self {
            lookup,
            id_key: Arc::new(repo.dedup_key(context::CHUNK_ID)?),
            most: repo.env().limits.requests.clamp(1, AHEAD),
            locator: Locator::new(lookup),
            open: Span::default(),
            replies: FuturesOrdered::new(),
            ready: VecDeque::new(),
            kept: VecDeque::new(),
        })
    }

    /// Whether enough is under way.
    pub(super) fn is_full(&self) -> bool {
        self.replies.len() >= self.most
    }

    /// Asks for a chunk. It comes behind all that was asked for before.
    pub(super) async fn ask(&mut self, row: ChunkRow) -> Result<(), Error> {
        let Some(Located { location, copy, key }) = self.locator.find(&row).await? else {
            self.send();
            let lost = Reply { chunks: vec![(row, Err(None))], opened: Vec::new() };
            self.replies.push_back(std::future::ready(Ok(lost)).boxed());
            return Ok(());
        };
        if let Some(piece) = self.open.pieces.last_mut().filter(|piece| piece.place == copy.segment) {
            piece.rows.push((row, location.offset));
            return Ok(());
        }
        let kept = self.kept.iter().find(|(place, _)| *place == copy.segment);
        let plain = kept.map(|(_, plain)| plain.clone());
        if plain.is_none() && !self.open.takes(&location) {
            self.send();
        }
        if plain.is_none() {
            self.open.extend(&location);
        }
        let rows = vec![(row, location.offset)];
        self.open.pieces.push(Piece { location, place: copy.segment, key, plain, rows });
        Ok(())
    }

    /// The next chunk that was asked for; `None` if there is none. The inner error is of this chunk alone.
    pub(super) async fn next(&mut self) -> Result<Option<Result<Bytes, Error>>, Error> {
        loop {
            if let Some((row, tried)) = self.ready.pop_front() {
                return self.settle(&row, tried).await.map(Some);
            }
            if self.replies.is_empty() {
                self.send();
            }
            let Some(reply) = self.replies.next().await else { return Ok(None) };
            let Reply { chunks, opened } = reply?;
            self.ready.extend(chunks);
            self.kept.extend(opened);
            self.kept.drain(..self.kept.len().saturating_sub(KEPT));
        }
    }

    /// A chunk, from another copy if the first one was of no use.
    async fn settle(
        &self,
        row: &ChunkRow,
        tried: Result<Bytes, Option<ChunkCopy>>,
    ) -> Result<Result<Bytes, Error>, Error> {
        let not = match tried {
            Ok(chunk) => return Ok(Ok(chunk)),
            Err(Some(not)) => not,
            Err(None) => return Ok(Err(Error::ChunkLost { chunk: row.id })),
        };
        let sought = vec![Sought { row: *row, tried: vec![not] }];
        let found = elsewhere(self.lookup, &self.id_key, sought).await?.pop().flatten();
        Ok(found.map(Bytes::from).ok_or(Error::ChunkLost { chunk: row.id }))
    }

    fn send(&mut self) {
        let span = std::mem::take(&mut self.open);
        if !span.pieces.is_empty() {
            self.replies.push_back(fetch(self.lookup, Arc::clone(&self.id_key), span).boxed());
        }
    }
}

impl Span {
    /// Whether a segment can be fetched by the same request.
    fn takes(&self, location: &Location) -> bool {
        let Some((last, start, end)) = &self.range else { return true };
        let at = u64::from(location.segment.offset);
        last.pack_id == location.pack_id
            && at >= *end
            && at - end <= GAP_MAX
            && at + u64::from(location.segment.stored_len) - start <= REQUEST_MAX
            && self.plain + u64::from(location.segment.plain_len) <= PLAIN_MAX
    }

    fn extend(&mut self, location: &Location) {
        let at = u64::from(location.segment.offset);
        let start = self.range.as_ref().map_or(at, |(_, start, _)| *start);
        self.range = Some((*location, start, at + u64::from(location.segment.stored_len)));
        self.plain += u64::from(location.segment.plain_len);
    }
}

/// Fetches a span and opens what is in it, on a thread of its own: that is the work of a processor.
async fn fetch(lookup: &Lookup<'_>, id_key: Arc<SecretKey>, span: Span) -> Result<Reply, Error> {
    let fetched = match &span.range {
        None => Ok(Bytes::new()),
        Some((location, start, end)) => get(lookup, location, *start..*end).await,
    };
    let bytes = match fetched {
        Ok(bytes) => Some(bytes),
        Err(error) if may_have_moved(&error) || is_local_damage(&error) => None,
        Err(error) => return Err(error),
    };
    let repository = lookup.repo().id();
    let opening = tokio::task::spawn_blocking(move || open(repository, &id_key, span, bytes));
    opening.await.map_err(|_| Error::from(RepoError::Task))?
}

fn open(
    repository: RepositoryId,
    id_key: &SecretKey,
    span: Span,
    bytes: Option<Bytes>,
) -> Result<Reply, Error> {
    let mut opener = SegmentOpener::new(repository)?;
    let mut reply = Reply { chunks: Vec::new(), opened: Vec::new() };
    let start = span.range.map_or(0, |(_, start, _)| start);
    for piece in span.pieces {
        let plain = match piece.plain {
            Some(plain) => Some(plain),
            None => bytes.as_ref().and_then(|bytes| {
                let entry = &piece.location.segment;
                let from = (u64::from(entry.offset) - start) as usize;
                let stored = bytes.get(from..from + entry.stored_len as usize)?;
                let mut plain = Vec::new();
                opener.open(&piece.key, entry, stored, &mut plain).ok()?;
                let plain = Bytes::from(plain);
                reply.opened.push((piece.place, plain.clone()));
                Some(plain)
            }),
        };
        for (row, offset) in piece.rows {
            let chunk = plain.as_ref().and_then(|plain| {
                genuine(id_key, plain, &row, offset)?;
                Some(plain.slice(offset as usize..offset as usize + row.len as usize))
            });
            let tried = ChunkCopy { segment: piece.place, offset };
            reply.chunks.push((row, chunk.ok_or(Some(tried))));
        }
    }
    Ok(reply)
}
