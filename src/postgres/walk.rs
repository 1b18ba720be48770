//! Going through the records of the log, segment by segment.
//!
//! # Invariants
//! What is called good has headers on every page that belong where they stand, and records without a gap from its beginning to
//! its end, each with a right checksum and each naming the one before it. Of a record that began in a segment that was
//! not seen nothing is known but its length.

use super::page::{FirstPage, LONG_HEADER, Page, first_page};
use super::record::Partial;
use super::{Lsn, WalError};
use crate::format::log::SegmentName;

/// What was found in one segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Walked {
    /// Records that end in it, without one that began in a segment that was not seen.
    pub records: u64,
    /// Commits among them.
    pub commits: u64,
    /// Time of the first of these, nanoseconds since 1970.
    pub first_commit: Option<i64>,
    /// Time of the last of these.
    pub last_commit: Option<i64>,
    /// What the first record that begins in it names as the one before it.
    pub follows: Option<u64>,
    /// The last record that begins and ends in it.
    pub last: Option<u64>,
    /// A record that begins in it and does not end in it.
    pub open: Option<u64>,
    /// It begins with the rest of a record.
    pub continues: bool,
    /// It begins where a record was given up that the segment before it began.
    pub overwrites: bool,
    /// The server left the rest of it empty.
    pub switched: bool,
    /// Where the log in it ends.
    pub end: u64,
}

/// Goes through segments that follow each other.
#[derive(Debug, Clone, Default)]
pub struct Walker {
    /// The record that the segment before has begun and not ended.
    open: Option<Partial>,
    /// The record before the next one, if it was seen.
    last: Option<u64>,
}

/// A segment while it is gone through.
struct Walk<'a> {
    bytes: &'a [u8],
    name: SegmentName,
    start: u64,
    first: FirstPage,
    /// Where in the segment.
    at: usize,
    timeline: u32,
    found: Walked,
}

impl Walker {
    /// Has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Goes through one segment. A walker that has seen the one before it continues what that left open, and checks that this one
    /// follows; a new one takes the beginning as it is.
    /// # Errors
    /// The first thing that is wrong. The walker has then forgotten all it knew.
    pub fn walk(&mut self, bytes: &[u8], name: SegmentName) -> Result<Walked, WalError> {
        let before = std::mem::take(self);
        let first = first_page(bytes)?;
        let start = name.start(first.segment_size).ok_or(WalError::Header)?;
        let found = Walked { end: start, ..Walked::default() };
        let mut walk = Walk { bytes, name, start, first, at: 0, timeline: 0, found };
        let page = walk.enter()?;
        let (mut open, mut last) = (before.open, before.last);
        walk.found.overwrites = page.overwrites();
        if page.overwrites() {
            open = None;
        }
        walk.found.continues = page.continues();
        match (&mut open, page.continues()) {
            (Some(open), true) if open.left() == page.remaining => {}
            (None, true) => walk.skip(page.remaining)?,
            (None, false) => {}
            _ => return Err(WalError::Page { at: Lsn(start) }),
        }
        while walk.step(&mut open, &mut last)? {}
        let found = walk.found;
        if !found.switched && walk.at < bytes.len() {
            return Err(WalError::Ends { at: Lsn(found.end) });
        }
        self.last = last;
        self.open = open;
        Ok(Walked { open: self.open.as_ref().map(|open| open.at).filter(|at| *at >= start), ..found })
    }
}

impl Walk<'_> {
    /// Where in the log.
    fn position(&self) -> u64 {
        self.start + self.at as u64
    }

    /// Reads the header of the page that begins here, and goes behind it.
    fn enter(&mut self) -> Result<Page, WalError> {
        let at = Lsn(self.position());
        let header = self.bytes.get(self.at..).and_then(<[u8]>::first_chunk::<LONG_HEADER>);
        let page = Page::decode(header.ok_or(WalError::Page { at })?);
        if page.address != at {
            return Err(WalError::Address { expected: at, found: page.address });
        }
        if page.magic != self.first.magic || page.is_long() != (self.at == 0) {
            return Err(WalError::Page { at });
        }
        if page.timeline > self.name.timeline || page.timeline < self.timeline || page.timeline == 0 {
            return Err(WalError::Timeline { at, found: page.timeline, name: self.name.timeline });
        }
        self.timeline = page.timeline;
        self.at += page.len();
        Ok(page)
    }

    /// The bytes from here to the end of the page, no more than `most`.
    fn rest_of_page(&self, most: u32) -> &[u8] {
        let page = self.first.page_size as usize;
        let end = (self.at / page + 1) * page;
        let wanted = self.at.saturating_add(most as usize);
        self.bytes.get(self.at..end.min(wanted)).unwrap_or_default()
    }

    fn at_page(&self) -> bool {
        self.at.is_multiple_of(self.first.page_size as usize)
    }

    /// Goes over the rest of a record of which the beginning was not seen.
    fn skip(&mut self, mut left: u32) -> Result<(), WalError> {
        while left > 0 {
            let taken = self.rest_of_page(left).len();
            self.at += taken;
            left -= taken as u32;
            if left == 0 || self.at >= self.bytes.len() {
                break;
            }
            let at = Lsn(self.position());
            let page = self.enter()?;
            if page.overwrites() {
                return Ok(());
            }
            if !page.continues() || page.remaining != left {
                return Err(WalError::Page { at });
            }
        }
        self.at = self.at.next_multiple_of(8).min(self.bytes.len());
        self.found.end = self.position();
        Ok(())
    }

    /// One page's part of a record, or the beginning of the next one. False at the end of the log.
    fn step(&mut self, open: &mut Option<Partial>, last: &mut Option<u64>) -> Result<bool, WalError> {
        if self.at >= self.bytes.len() {
            return Ok(false);
        }
        let at = Lsn(self.position());
        if self.at_page() {
            let page = self.enter()?;
            match open {
                Some(_) if page.overwrites() => *open = None,
                Some(open) if page.continues() && page.remaining == open.left() => {}
                None if !page.continues() => {}
                _ => return Err(WalError::Page { at }),
            }
            return Ok(true);
        }
        if open.is_none() {
            let length = self.rest_of_page(4).first_chunk().copied();
            let total = u32::from_le_bytes(length.ok_or(WalError::Record { at })?);
            if total == 0 {
                // Nothing was written here.
                return Ok(false);
            }
            *open = Some(Partial::new(at.0, total).ok_or(WalError::Record { at })?);
        }
        let Some(record) = open.as_mut() else { return Ok(false) };
        let piece = self.rest_of_page(record.left());
        record.take(piece);
        self.at += piece.len();
        match open.take() {
            Some(whole) if whole.left() == 0 => self.end_record(whole, last),
            other => {
                *open = other;
                Ok(true)
            }
        }
    }

    /// Takes what a whole record says. False if the server went on in the next segment.
    fn end_record(&mut self, whole: Partial, last: &mut Option<u64>) -> Result<bool, WalError> {
        let at = whole.at;
        let record = whole.finish().ok_or(WalError::Checksum { at: Lsn(at) })?;
        if let Some(expected) = last.filter(|last| *last != record.prev) {
            let (expected, found) = (Lsn(expected), Lsn(record.prev));
            return Err(WalError::Chain { at: Lsn(at), expected, found });
        }
        *last = Some(at);
        if at >= self.start {
            self.found.last = Some(at);
            self.found.follows.get_or_insert(record.prev);
        }
        self.found.records += 1;
        self.found.commits += u64::from(record.is_commit);
        if record.time.is_some() {
            self.found.first_commit = self.found.first_commit.or(record.time);
            self.found.last_commit = record.time;
        }
        self.at = self.at.next_multiple_of(8).min(self.bytes.len());
        self.found.end = self.position();
        self.found.switched = record.is_switch;
        Ok(!record.is_switch)
    }
}

#[cfg(test)]
mod tests;
