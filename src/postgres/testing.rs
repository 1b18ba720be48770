//! Segments for tests: those of a real server, and made ones.

use super::crc::Crc;
use super::page::{HEADER, LONG_HEADER};
use crate::compress::Decompressor;
use crate::format::log::SegmentName;

/// Bytes of the segments of `tests/samples/wal`.
pub(crate) const SAMPLE: u32 = 1 << 20;
/// Bytes of a page.
const PAGE: usize = 8192;

/// Segment 7, 8 or 9 of the samples, and its name.
pub(crate) fn sample(number: u32) -> (SegmentName, Vec<u8>) {
    let stored: &[u8] = match number {
        7 => include_bytes!("../../tests/samples/wal/000000010000000000000007.zst"),
        8 => include_bytes!("../../tests/samples/wal/000000010000000000000008.zst"),
        _ => include_bytes!("../../tests/samples/wal/000000010000000000000009.zst"),
    };
    let mut out = Vec::new();
    Decompressor::new().unwrap().decompress(stored, SAMPLE as usize, &mut out).unwrap();
    (SegmentName { timeline: 1, log: 0, segment: number }, out)
}

/// Makes segments of 1 MiB.
pub(crate) struct Maker {
    start: u64,
    bytes: Vec<u8>,
    last: u64,
}

impl Maker {
    /// Begins at this segment of timeline 1.
    pub(crate) fn new(number: u32) -> Self {
        Self { start: u64::from(number) * u64::from(SAMPLE), bytes: Vec::new(), last: 0 }
    }

    /// Where the next record goes, if no page begins there.
    pub(crate) fn position(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }

    fn header(&mut self, remaining: u32, info: u16) {
        let long = self.bytes.len().is_multiple_of(SAMPLE as usize);
        let info = info | u16::from(remaining > 0) | if long { 2 } else { 0 };
        let at = self.position();
        self.bytes.extend_from_slice(&0xd110_u16.to_le_bytes());
        self.bytes.extend_from_slice(&info.to_le_bytes());
        self.bytes.extend_from_slice(&1_u32.to_le_bytes());
        self.bytes.extend_from_slice(&at.to_le_bytes());
        self.bytes.extend_from_slice(&remaining.to_le_bytes());
        self.bytes.extend_from_slice(&[0; 4]);
        if long {
            self.bytes.extend_from_slice(&7_u64.to_le_bytes());
            self.bytes.extend_from_slice(&SAMPLE.to_le_bytes());
            self.bytes.extend_from_slice(&(PAGE as u32).to_le_bytes());
        }
        debug_assert!([HEADER, LONG_HEADER].contains(&(self.bytes.len() % PAGE)));
    }

    fn at_page(&self) -> bool {
        self.bytes.len().is_multiple_of(PAGE)
    }

    /// A record that follows the last one.
    pub(crate) fn record(&mut self, payload: &[u8]) -> u64 {
        if self.at_page() {
            self.header(0, 0);
        }
        let at = self.position();
        let total = (24 + payload.len()) as u32;
        let mut record = total.to_le_bytes().to_vec();
        record.extend_from_slice(&[0; 4]);
        record.extend_from_slice(&self.last.to_le_bytes());
        record.extend_from_slice(&[0x10, 10, 0, 0]);
        let mut crc = Crc::new();
        crc.update(payload);
        crc.update(&record);
        record.extend_from_slice(&crc.finish().to_le_bytes());
        record.extend_from_slice(payload);
        let mut rest = &record[..];
        while !rest.is_empty() {
            if self.at_page() {
                self.header(rest.len() as u32, 0);
            }
            let room = PAGE - self.bytes.len() % PAGE;
            let (now, later) = rest.split_at(room.min(rest.len()));
            self.bytes.extend_from_slice(now);
            rest = later;
        }
        self.bytes.resize(self.bytes.len().next_multiple_of(8), 0);
        self.last = at;
        at
    }

    /// Gives the open record up: the next page says that it was never ended.
    pub(crate) fn overwrite(&mut self, last_whole: u64) {
        self.bytes.truncate(self.bytes.len() / PAGE * PAGE);
        self.header(0, 8);
        self.last = last_whole;
    }

    /// Whole segments, the last one filled with zeroes.
    pub(crate) fn segments(mut self) -> Vec<Vec<u8>> {
        self.bytes.resize(self.bytes.len().next_multiple_of(SAMPLE as usize), 0);
        self.bytes.chunks(SAMPLE as usize).map(<[u8]>::to_vec).collect()
    }
}
