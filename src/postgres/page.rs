//! Headers of the pages of the log.

use super::{Lsn, WalError};
use crate::format::log::SegmentName;

/// Bytes of a page's header.
pub(super) const HEADER: usize = 24;
/// Bytes of the header of a segment's first page.
pub const LONG_HEADER: usize = 40;

/// The page begins with the rest of a record.
const CONTINUES: u16 = 1;
/// The header is a long one.
const LONG: u16 = 2;
/// A record that began before this page was never ended: the server died, and went on here.
const OVERWRITES: u16 = 8;

/// What the pages of each version begin with. The newest one is what its first release has.
const MAGICS: [(u16, u32); 6] =
    [(0xd106, 13), (0xd10d, 14), (0xd110, 15), (0xd113, 16), (0xd116, 17), (0xd118, 18)];

/// What the first page of a segment says of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FirstPage {
    /// Major version.
    pub version: u32,
    /// System identifier.
    pub system: u64,
    /// Bytes of a segment.
    pub segment_size: u32,
    /// Bytes of a page.
    pub page_size: u32,
    pub(super) magic: u16,
}

/// Reads the first page's header, and demands that the file is as long as it says.
pub fn first_page(bytes: &[u8]) -> Result<FirstPage, WalError> {
    first_page_of(bytes, bytes.len() as u64)
}

/// The same by what a file of `found` bytes begins with, [`LONG_HEADER`] bytes of it at least.
pub fn first_page_of(start: &[u8], found: u64) -> Result<FirstPage, WalError> {
    let Some(header) = start.first_chunk::<LONG_HEADER>() else {
        return Err(WalError::Length { expected: LONG_HEADER as u64, found });
    };
    let page = Page::decode(header);
    let known = MAGICS.iter().find(|(magic, _)| *magic == page.magic);
    let (_, version) = *known.ok_or(WalError::Magic { found: page.magic })?;
    let system = u64::from_le_bytes(part(header, 24));
    let segment_size = u32::from_le_bytes(part(header, 32));
    let page_size = u32::from_le_bytes(part(header, 36));
    let segment = segment_size.is_power_of_two() && (1 << 20..=1 << 30).contains(&segment_size);
    let size = page_size.is_power_of_two() && (1 << 10..=1 << 16).contains(&page_size);
    if !page.is_long() || !segment || !size {
        return Err(WalError::Header);
    }
    if u64::from(segment_size) != found {
        return Err(WalError::Length { expected: segment_size.into(), found });
    }
    Ok(FirstPage { version, system, segment_size, page_size, magic: page.magic })
}

impl FirstPage {
    /// Demands that the segment, which this was read from, is the one of this name: its position, and a timeline that the name's
    /// may have come from.
    pub fn belongs_to(&self, bytes: &[u8], name: SegmentName) -> Result<(), WalError> {
        let start = name.start(self.segment_size).ok_or(WalError::Header)?;
        let header = bytes.first_chunk().ok_or(WalError::Header)?;
        let (page, at) = (Page::decode(header), Lsn(start));
        if page.address != at {
            return Err(WalError::Address { expected: at, found: page.address });
        }
        if page.timeline == 0 || page.timeline > name.timeline {
            return Err(WalError::Timeline { at, found: page.timeline, name: name.timeline });
        }
        Ok(())
    }
}

/// The header of a page.
#[derive(Debug, Clone, Copy)]
pub(super) struct Page {
    pub(super) magic: u16,
    info: u16,
    pub(super) timeline: u32,
    pub(super) address: Lsn,
    /// Bytes of a record that began before this page and are still to come.
    pub(super) remaining: u32,
}

impl Page {
    pub(super) fn decode(header: &[u8; LONG_HEADER]) -> Self {
        Self {
            magic: u16::from_le_bytes(part(header, 0)),
            info: u16::from_le_bytes(part(header, 2)),
            timeline: u32::from_le_bytes(part(header, 4)),
            address: Lsn(u64::from_le_bytes(part(header, 8))),
            remaining: u32::from_le_bytes(part(header, 16)),
        }
    }

    pub(super) const fn is_long(&self) -> bool {
        self.info & LONG != 0
    }

    pub(super) const fn continues(&self) -> bool {
        self.info & CONTINUES != 0
    }

    pub(super) const fn overwrites(&self) -> bool {
        self.info & OVERWRITES != 0
    }

    /// Bytes of the header.
    pub(super) const fn len(&self) -> usize {
        if self.is_long() { LONG_HEADER } else { HEADER }
    }
}

/// `N` bytes of a header, which has them.
fn part<const N: usize>(header: &[u8; LONG_HEADER], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&header[at..at + N]);
    out
}
