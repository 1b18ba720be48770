//! The records of a zip archive: before a file, behind it, in the list, and at the end.

use super::super::entry::{Entry, Problem, Refusal};
use crate::format::node::{FileTime, NodeKind};

/// Larger numbers are in a field of zip64.
const MAX_32: u64 = 0xffff_ffff;
/// A file that may be larger than this, compressed badly, gets fields of zip64 in front.
const SURELY_32: u64 = 0xff00_0000;
const MADE_BY_UNIX: u16 = 3 << 8 | 45;
/// Sizes and sum come behind the file.
const FLAG_STREAMED: u16 = 1 << 3;
/// The name is UTF-8.
const FLAG_UTF8: u16 = 1 << 11;
const DEFLATED: u16 = 8;

/// Sum and sizes of a file.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Sizes {
    pub(super) sum: u32,
    /// Bytes in the archive,
    pub(super) stored: u64,
    /// and of the file.
    pub(super) size: u64,
}

/// One entry.
#[derive(Debug)]
pub(super) struct Member {
    name: Vec<u8>,
    mode: u32,
    is_dir: bool,
    owner: (u32, u32),
    mtime: FileTime,
    atime: Option<FileTime>,
    offset: u64,
    pub(super) deflated: bool,
    /// Its sizes come behind it; about as large as this.
    pub(super) streamed: Option<u64>,
    pub(super) sizes: Sizes,
}

impl Member {
    /// An entry whose first record stands at `offset`.
    pub(super) fn new(entry: &Entry, offset: u64) -> Result<Self, Refusal> {
        let node = &entry.node;
        let mut name = entry.name().to_vec();
        let (kind, is_dir) = match node.kind {
            NodeKind::Directory => (0o040_000, true),
            NodeKind::Symlink => (0o120_000, false),
            _ => (0o100_000, false),
        };
        if is_dir {
            name.push(b'/');
        }
        if name.len() > 0xffff {
            return Err(Refusal::Entry(Problem::LongName));
        }
        if leads_elsewhere(&name) {
            return Err(Refusal::Entry(Problem::ForeignPath));
        }
        Ok(Self {
            name,
            mode: kind | node.mode & 0o7777,
            is_dir,
            owner: (node.uid, node.gid),
            mtime: node.mtime,
            atime: node.atime,
            offset,
            deflated: false,
            streamed: None,
            sizes: Sizes::default(),
        })
    }

    /// The record in front of the file.
    pub(super) fn local(&self) -> Vec<u8> {
        let mut extra = Vec::new();
        let sizes = match self.streamed {
            Some(_) if self.is_large() => {
                put_field(&mut extra, 1, &[0; 16]);
                [MAX_32 as u32; 2]
            }
            Some(_) => [0; 2],
            // What is not streamed is small.
            None => [self.sizes.stored as u32, self.sizes.size as u32],
        };
        let sum = if self.streamed.is_some() { 0 } else { self.sizes.sum };
        self.put_times(&mut extra, true);
        self.put_owner(&mut extra);
        let mut out = Vec::with_capacity(30 + self.name.len() + extra.len());
        out.extend_from_slice(b"PK\x03\x04");
        self.put_common(&mut out, sum, sizes);
        put_16(&mut out, extra.len() as u16);
        out.extend_from_slice(&self.name);
        out.extend_from_slice(&extra);
        out
    }

    /// From the version that is needed to the length of the name.
    fn put_common(&self, out: &mut Vec<u8>, sum: u32, sizes: [u32; 2]) {
        let is_utf8 = std::str::from_utf8(&self.name).is_ok();
        let mut flags = if is_utf8 { FLAG_UTF8 } else { 0 };
        if self.streamed.is_some() {
            flags |= FLAG_STREAMED;
        }
        put_16(out, if self.is_large() || self.offset > MAX_32 { 45 } else { 20 });
        put_16(out, flags);
        put_16(out, if self.deflated { DEFLATED } else { 0 });
        let (date, time) = dos(self.mtime.seconds);
        put_16(out, time);
        put_16(out, date);
        for number in [sum, sizes[0], sizes[1]] {
            put_32(out, number);
        }
        put_16(out, self.name.len() as u16);
    }

    /// Whether its sizes have eight bytes behind it.
    fn is_large(&self) -> bool {
        self.streamed.is_some_and(|size| size > SURELY_32)
    }

    /// The record behind the file, if it is streamed.
    pub(super) fn descriptor(&self) -> Vec<u8> {
        let Sizes { sum, stored, size } = self.sizes;
        let mut out = b"PK\x07\x08".to_vec();
        put_32(&mut out, sum);
        for number in [stored, size] {
            match self.is_large() {
                true => out.extend_from_slice(&number.to_le_bytes()),
                false => put_32(&mut out, number as u32),
            }
        }
        out
    }

    /// The record in the list.
    pub(super) fn listed(&self) -> Vec<u8> {
        let Sizes { sum, stored, size } = self.sizes;
        let mut large = Vec::new();
        for number in [size, stored, self.offset].into_iter().filter(|number| *number >= MAX_32) {
            large.extend_from_slice(&number.to_le_bytes());
        }
        let mut extra = Vec::new();
        if !large.is_empty() {
            put_field(&mut extra, 1, &large);
        }
        self.put_times(&mut extra, false);
        self.put_owner(&mut extra);
        let small = |number: u64| number.min(MAX_32) as u32;
        let mut out = Vec::with_capacity(46 + self.name.len() + extra.len());
        out.extend_from_slice(b"PK\x01\x02");
        put_16(&mut out, MADE_BY_UNIX);
        self.put_common(&mut out, sum, [small(stored), small(size)]);
        put_16(&mut out, extra.len() as u16);
        // No comment, the first disk, no text.
        out.extend_from_slice(&[0; 6]);
        put_32(&mut out, self.mode << 16 | if self.is_dir { 0x10 } else { 0 });
        put_32(&mut out, small(self.offset));
        out.extend_from_slice(&self.name);
        out.extend_from_slice(&extra);
        out
    }

    /// Times in seconds of 1970, as Info-ZIP has them, as far as they fit; and in parts of a second of 1601.
    fn put_times(&self, extra: &mut Vec<u8>, all: bool) {
        let short = |time: FileTime| i32::try_from(time.seconds).ok();
        if let Some(mtime) = short(self.mtime) {
            let atime = self.atime.and_then(short);
            let mut field = vec![1 | if atime.is_some() { 2 } else { 0 }];
            field.extend_from_slice(&mtime.to_le_bytes());
            if let Some(atime) = atime.filter(|_| all) {
                field.extend_from_slice(&atime.to_le_bytes());
            }
            put_field(extra, 0x5455, &field);
        }
        let mtime = ticks(self.mtime);
        if let (true, Some(mtime)) = (all, mtime) {
            let atime = self.atime.and_then(ticks).unwrap_or(mtime);
            let mut field = vec![0, 0, 0, 0, 1, 0, 24, 0];
            for time in [mtime, atime, mtime] {
                field.extend_from_slice(&time.to_le_bytes());
            }
            put_field(extra, 0x000a, &field);
        }
    }

    fn put_owner(&self, extra: &mut Vec<u8>) {
        let mut field = vec![1, 4];
        field.extend_from_slice(&self.owner.0.to_le_bytes());
        field.push(4);
        field.extend_from_slice(&self.owner.1.to_le_bytes());
        put_field(extra, 0x7875, &field);
    }
}

/// The end: in the numbers of zip64 first, if the others are too small.
pub(super) fn end_of_list(count: u64, begin: u64, len: u64) -> Vec<u8> {
    let mut out = Vec::new();
    if count >= 0xffff || begin >= MAX_32 || len >= MAX_32 {
        out.extend_from_slice(b"PK\x06\x06");
        out.extend_from_slice(&44_u64.to_le_bytes());
        put_16(&mut out, MADE_BY_UNIX);
        put_16(&mut out, 45);
        out.extend_from_slice(&[0; 8]);
        for number in [count, count, len, begin] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(b"PK\x06\x07\0\0\0\0");
        out.extend_from_slice(&(begin + len).to_le_bytes());
        put_32(&mut out, 1);
    }
    out.extend_from_slice(b"PK\x05\x06\0\0\0\0");
    put_16(&mut out, count.min(0xffff) as u16);
    put_16(&mut out, count.min(0xffff) as u16);
    put_32(&mut out, len.min(MAX_32) as u32);
    put_32(&mut out, begin.min(MAX_32) as u32);
    put_16(&mut out, 0);
    out
}

/// Whether a name is a way out on systems where `\` parts names and `C:` is a place.
fn leads_elsewhere(name: &[u8]) -> bool {
    let is_drive = matches!(name, [letter, b':', ..] if letter.is_ascii_alphabetic());
    is_drive || name.starts_with(b"\\") || name.split(|b| matches!(b, b'/' | b'\\')).any(|part| part == b"..")
}

fn put_field(out: &mut Vec<u8>, id: u16, bytes: &[u8]) {
    put_16(out, id);
    put_16(out, bytes.len() as u16);
    out.extend_from_slice(bytes);
}

fn put_16(out: &mut Vec<u8>, number: u16) {
    out.extend_from_slice(&number.to_le_bytes());
}

fn put_32(out: &mut Vec<u8>, number: u32) {
    out.extend_from_slice(&number.to_le_bytes());
}

/// Parts of a second, ten million of them, since 1601; `None` before that and after the year 30,000.
fn ticks(time: FileTime) -> Option<i64> {
    const SECONDS_TO_1970: i64 = 11_644_473_600;
    let seconds = time.seconds.checked_add(SECONDS_TO_1970).filter(|seconds| *seconds >= 0)?;
    seconds.checked_mul(10_000_000)?.checked_add(i64::from(time.nanos / 100))
}

/// Date and time of MS-DOS, in UTC: two seconds are the least, and the years are 1980 to 2107.
fn dos(seconds: i64) -> (u16, u16) {
    const FIRST: i64 = 315_532_800;
    const LAST: i64 = 4_354_819_199;
    let seconds = seconds.clamp(FIRST, LAST);
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", civil_from_days; years begin in March.
    let day_of_era = (days + 719_468) % 146_097;
    let era = (days + 719_468) / 146_097;
    let year = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let (month, later) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = year + era * 400 + later;
    let date = (year - 1980) << 9 | month << 5 | day;
    let (hours, minutes) = (second / 3600, second / 60 % 60);
    let time = hours << 11 | minutes << 5 | (second % 60 / 2);
    (date as u16, time as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        let unpacked = |seconds| {
            let (date, time) = dos(seconds);
            let date = (1980 + (date >> 9), date >> 5 & 15, date & 31);
            (date, (time >> 11, time >> 5 & 63, (time & 31) * 2))
        };
        assert_eq!(unpacked(0), ((1980, 1, 1), (0, 0, 0)));
        assert_eq!(unpacked(951_782_400), ((2000, 2, 29), (0, 0, 0)));
        assert_eq!(unpacked(1_709_251_199), ((2024, 2, 29), (23, 59, 58)));
        assert_eq!(unpacked(1_735_689_599), ((2024, 12, 31), (23, 59, 58)));
        assert_eq!(unpacked(4_102_444_800), ((2100, 1, 1), (0, 0, 0)));
        assert_eq!(unpacked(i64::MAX), ((2107, 12, 31), (23, 59, 58)));
        assert_eq!(unpacked(i64::MIN), ((1980, 1, 1), (0, 0, 0)));
        assert_eq!(ticks(FileTime { seconds: 0, nanos: 150 }), Some(116_444_736_000_000_001));
        assert_eq!(ticks(FileTime { seconds: i64::MIN, nanos: 0 }), None);
        assert_eq!(ticks(FileTime { seconds: i64::MAX, nanos: 0 }), None);
    }

    #[test]
    fn ways_out_on_other_systems_are_told() {
        for bad in [&b"\\x"[..], b"c:x", b"C:\\x", b"..\\..\\x", b"a\\..\\x", b"a/..\\x", b"..\\"] {
            assert!(leads_elsewhere(bad), "{}", bad.escape_ascii());
        }
        for good in [&b"dev-disk-by\\x2duuid.swap"[..], b"a:b", b"12:30", b"...", b"a..b/c", b"etc/fstab"] {
            assert_eq!(leads_elsewhere(good), matches!(good, b"a:b"), "{}", good.escape_ascii());
        }
    }
}
