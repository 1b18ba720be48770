//! One record of the log, as it comes out of the pages piece by piece.

use super::crc::Crc;

/// Bytes of a record's header.
pub(super) const RECORD_HEADER: usize = 24;
/// No record is longer.
pub(super) const RECORD_MAX: u32 = 1 << 30;
/// The checksum covers all of the header before itself.
const CRC_AT: usize = 20;
/// Bytes after the header that are kept: enough to find the time of a commit.
const KEPT: usize = 128;

/// The log itself, and transactions: the resource managers that are looked at.
const RM_XLOG: u8 = 0;
const RM_XACT: u8 = 1;
/// The server goes on in the next segment.
const XLOG_SWITCH: u8 = 0x40;
const XACT_COMMIT: u8 = 0x00;
const XACT_COMMIT_PREPARED: u8 = 0x30;

/// Microseconds from 1970 to 2000, when the server's time begins.
const EPOCH: i64 = 946_684_800_000_000;

/// A record of which a part has come.
#[derive(Debug, Clone)]
pub(super) struct Partial {
    /// Where it began.
    pub(super) at: u64,
    total: u32,
    done: u32,
    header: [u8; RECORD_HEADER],
    kept: [u8; KEPT],
    crc: Crc,
}

/// A whole record with a good checksum.
#[derive(Debug, Clone, Copy)]
pub(super) struct Record {
    pub(super) prev: u64,
    pub(super) is_switch: bool,
    pub(super) is_commit: bool,
    /// Of a commit, nanoseconds since 1970.
    pub(super) time: Option<i64>,
}

impl Partial {
    /// A record of this length; `None` if none has it.
    pub(super) fn new(at: u64, total: u32) -> Option<Self> {
        let possible = (RECORD_HEADER as u32..=RECORD_MAX).contains(&total);
        let (header, kept) = ([0; RECORD_HEADER], [0; KEPT]);
        possible.then_some(Self { at, total, done: 0, header, kept, crc: Crc::new() })
    }

    /// Bytes that are still to come.
    pub(super) const fn left(&self) -> u32 {
        self.total - self.done
    }

    /// Takes the next bytes, no more than are left.
    pub(super) fn take(&mut self, bytes: &[u8]) {
        let done = self.done as usize;
        self.done += bytes.len() as u32;
        let of_header = bytes.len().min(RECORD_HEADER.saturating_sub(done));
        let (header, rest) = bytes.split_at(of_header);
        if let Some(room) = self.header.get_mut(done..done + of_header) {
            room.copy_from_slice(header);
        }
        let from = (done + of_header).saturating_sub(RECORD_HEADER);
        if let Some(room) = self.kept.get_mut(from..) {
            let count = room.len().min(rest.len());
            room[..count].copy_from_slice(&rest[..count]);
        }
        self.crc.update(rest);
    }

    /// The record, if its checksum is right; all of it has come.
    pub(super) fn finish(mut self) -> Option<Record> {
        self.crc.update(&self.header[..CRC_AT]);
        let [.., a, b, c, d] = self.header;
        if self.crc.finish() != u32::from_le_bytes([a, b, c, d]) {
            return None;
        }
        let mut prev = [0; 8];
        prev.copy_from_slice(&self.header[8..16]);
        let (info, manager) = (self.header[16], self.header[17]);
        let is_commit = manager == RM_XACT && matches!(info & 0x70, XACT_COMMIT | XACT_COMMIT_PREPARED);
        Some(Record {
            prev: u64::from_le_bytes(prev),
            is_switch: manager == RM_XLOG && info & 0xf0 == XLOG_SWITCH,
            is_commit,
            time: if is_commit { self.commit_time() } else { None },
        })
    }

    /// The first field of a commit's data. Before it come headers: of where it was replicated from, of the transaction above it,
    /// and of the data itself.
    fn commit_time(&self) -> Option<i64> {
        let mut rest = &self.kept[..];
        loop {
            let (id, after) = rest.split_first()?;
            let skipped = match id {
                255 => 1,
                254 => 4,
                253 => 2,
                252 => 4,
                _ => return None,
            };
            rest = after.get(skipped..)?;
            if *id >= 254 {
                break;
            }
        }
        let micros = i64::from_le_bytes(*rest.first_chunk()?);
        micros.checked_add(EPOCH)?.checked_mul(1000)
    }
}
