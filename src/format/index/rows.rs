//! The rows of an index object as they are stored, one table behind the other: for an object that is too large to be decoded as
//! a whole.

use super::{
    BlockKind, IndexHeader, PackRow, RECORD_LEN, Record, bad, check_range, check_segments, decode_segments,
};
use crate::format::FormatError;
use crate::format::segment::SegmentEntry;
use crate::format::wire::Reader;

/// Stored rows that a header describes.
#[derive(Debug, Clone, Copy)]
pub struct StoredRows<'a> {
    packs: &'a [u8],
    segments: &'a [u8],
    records: &'a [u8],
}

impl<'a> StoredRows<'a> {
    /// Takes the plaintext of all blocks of `header`, in stored order; fails if it has not their length.
    pub fn new(header: &IndexHeader, rows: &'a [u8]) -> Result<Self, FormatError> {
        let packs = header.packs as usize * PackRow::LEN;
        let segments = header.segments as usize * SegmentEntry::LEN;
        let (packs, rest) = rows.split_at_checked(packs).ok_or(FormatError::Truncated)?;
        let (segments, records) = rest.split_at_checked(segments).ok_or(FormatError::Truncated)?;
        if records.len() as u64 != header.records.saturating_mul(RECORD_LEN as u64) {
            return Err(FormatError::Truncated);
        }
        Ok(Self { packs, segments, records })
    }

    /// The pack row with this number.
    pub fn pack(&self, number: u32) -> Result<PackRow, FormatError> {
        let start = number as usize * PackRow::LEN;
        let row = self.packs.get(start..start + PackRow::LEN).ok_or_else(|| bad("pack of a record"))?;
        PackRow::decode(&mut Reader::new(row))
    }

    /// The stored rows of a pack's segments.
    pub fn segments(&self, pack: &PackRow) -> Result<&'a [u8], FormatError> {
        let start = pack.first_segment as usize * SegmentEntry::LEN;
        let end = start + usize::from(pack.segments) * SegmentEntry::LEN;
        self.segments.get(start..end).ok_or_else(|| bad("first segment of a pack row"))
    }

    /// All records.
    pub fn records(&self) -> &'a [[u8; RECORD_LEN]] {
        self.records.as_chunks().0
    }

    /// Demands everything that [`super::IndexTables::check`] does, and that records begin in their blocks as the header says.
    pub fn check(&self, header: &IndexHeader) -> Result<(), FormatError> {
        let (mut segments, mut last) = (0_u64, None);
        for number in 0..header.packs {
            let pack = self.pack(number)?;
            if last.is_some_and(|last| last >= pack.id) {
                return Err(bad("order of pack rows"));
            }
            if u64::from(pack.first_segment) != segments {
                return Err(bad("first segment of a pack row"));
            }
            (segments, last) = (segments + u64::from(pack.segments), Some(pack.id));
            let rows = decode_segments(self.segments(&pack)?)?;
            check_segments(&pack, &rows, header.data_keys.len(), header.origins.len())?;
        }
        if segments != u64::from(header.segments) {
            return Err(bad("number of segment rows"));
        }
        let records = self.records();
        if !records.is_sorted_by(|a, b| a < b) {
            return Err(bad("order of records"));
        }
        let firsts = header.blocks.iter().filter_map(|block| match block.kind {
            BlockKind::Records { first } => Some(first),
            _ => None,
        });
        let full = BlockKind::Records { first: [0; 16] }.rows_max();
        if !records.chunks(full).zip(firsts).all(|(rows, first)| rows[0][..16] == first) {
            return Err(bad("first record of an index block"));
        }
        records.iter().try_for_each(|row| self.check_record(&Record::decode(row)))
    }

    fn check_record(&self, record: &Record) -> Result<(), FormatError> {
        let rows = self.segments(&self.pack(record.pack)?)?;
        let start = usize::from(record.segment) * SegmentEntry::LEN;
        let row = rows.get(start..start + SegmentEntry::LEN).ok_or_else(|| bad("segment of a record"))?;
        let segment = SegmentEntry::decode(&mut Reader::new(row))?;
        check_range(record, &segment)
    }
}
