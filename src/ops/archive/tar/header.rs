//! Headers of POSIX.1-2001 ("pax"): a ustar header, and before it a list of records for what does not fit into that.

use crate::format::node::FileTime;

/// Everything in a tar archive comes in blocks of this size.
pub(super) const BLOCK: usize = 512;
/// Largest number of eleven octal digits.
const OCTAL_11: u64 = (1 << 33) - 1;
/// Largest number of seven octal digits.
const OCTAL_7: u64 = (1 << 21) - 1;

/// Types of entries.
pub(super) const FILE: u8 = b'0';
pub(super) const LINK: u8 = b'1';
pub(super) const SYMLINK: u8 = b'2';
pub(super) const CHAR_DEVICE: u8 = b'3';
pub(super) const BLOCK_DEVICE: u8 = b'4';
pub(super) const DIRECTORY: u8 = b'5';
pub(super) const FIFO: u8 = b'6';
const RECORDS: u8 = b'x';

/// What a header says.
#[derive(Debug, Clone, Default)]
pub(super) struct Header {
    pub(super) kind: u8,
    /// With a slash at the end if it is a directory.
    pub(super) name: Vec<u8>,
    /// The name that readers are to use who know the records, if it is not `name`; records say it themselves.
    pub(super) is_renamed: bool,
    pub(super) link: Vec<u8>,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Bytes that follow.
    pub(super) size: u64,
    pub(super) mtime: FileTime,
    pub(super) user: Vec<u8>,
    pub(super) group: Vec<u8>,
    pub(super) device: (u32, u32),
}

/// Rounded up to whole blocks.
pub(super) fn padded(len: u64) -> u64 {
    len.next_multiple_of(BLOCK as u64)
}

/// Appends a record. Its length counts its own digits.
pub(super) fn put_record(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut len = rest + 1;
    while len != rest + digits(len as u64) {
        len = rest + digits(len as u64);
    }
    out.extend_from_slice(len.to_string().as_bytes());
    out.push(b' ');
    out.extend_from_slice(key);
    out.push(b'=');
    out.extend_from_slice(value);
    out.push(b'\n');
}

/// Decimal digits of a number.
pub(super) fn digits(number: u64) -> usize {
    number.checked_ilog10().map_or(1, |log| log as usize + 1)
}

/// A time as a decimal number, without zeroes at the end. Nanoseconds count forward also before 1970.
pub(super) fn decimal(time: FileTime) -> String {
    let (mut seconds, mut nanos) = (i128::from(time.seconds), time.nanos);
    let sign = if seconds < 0 { "-" } else { "" };
    if seconds < 0 && nanos > 0 {
        (seconds, nanos) = (seconds + 1, 1_000_000_000 - nanos);
    }
    let text = format!("{sign}{}.{nanos:09}", seconds.unsigned_abs());
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

impl Header {
    /// The bytes of the header, preceded by those of its records. `records` is what else is to be said.
    pub(super) fn encode(&self, records: &[u8]) -> Vec<u8> {
        let mut all = self.own_records();
        all.extend_from_slice(records);
        let mut out = Vec::with_capacity(BLOCK * 3 + all.len());
        if !all.is_empty() {
            let mut name = b"PaxHeaders.0/".to_vec();
            name.extend_from_slice(base(&self.name));
            let header = Self {
                kind: RECORDS,
                name,
                is_renamed: true,
                mode: 0o644,
                size: all.len() as u64,
                mtime: self.mtime,
                ..Self::default()
            };
            out.extend_from_slice(&header.block());
            out.extend_from_slice(&all);
            out.resize(out.len().next_multiple_of(BLOCK), 0);
        }
        out.extend_from_slice(&self.block());
        out
    }

    /// What the block has no room for.
    fn own_records(&self) -> Vec<u8> {
        let mut out = Vec::new();
        if self.name.len() > 100 && !self.is_renamed {
            put_record(&mut out, b"path", &self.name);
        }
        if self.link.len() > 100 {
            put_record(&mut out, b"linkpath", &self.link);
        }
        for (key, number, most) in [
            (&b"size"[..], self.size, OCTAL_11),
            (b"uid", u64::from(self.uid), OCTAL_7),
            (b"gid", u64::from(self.gid), OCTAL_7),
        ] {
            if number > most {
                put_record(&mut out, key, number.to_string().as_bytes());
            }
        }
        if self.mtime.nanos != 0 || !u64::try_from(self.mtime.seconds).is_ok_and(|s| s <= OCTAL_11) {
            put_record(&mut out, b"mtime", decimal(self.mtime).as_bytes());
        }
        for (key, name) in [(&b"uname"[..], &self.user), (b"gname", &self.group)] {
            if name.len() > 31 {
                put_record(&mut out, key, name);
            }
        }
        out
    }

    fn block(&self) -> [u8; BLOCK] {
        let mut block = [0; BLOCK];
        put(&mut block, 0, 100, &self.name);
        put_octal(&mut block, 100, 7, u64::from(self.mode));
        put_octal(&mut block, 108, 7, u64::from(self.uid));
        put_octal(&mut block, 116, 7, u64::from(self.gid));
        put_octal(&mut block, 124, 11, self.size);
        put_octal(&mut block, 136, 11, u64::try_from(self.mtime.seconds).unwrap_or(0));
        block[148..156].fill(b' ');
        block[156] = self.kind;
        put(&mut block, 157, 100, &self.link);
        block[257..265].copy_from_slice(b"ustar\x0000");
        put(&mut block, 265, 31, &self.user);
        put(&mut block, 297, 31, &self.group);
        put_octal(&mut block, 329, 7, u64::from(self.device.0));
        put_octal(&mut block, 337, 7, u64::from(self.device.1));
        let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
        put_octal(&mut block, 148, 6, sum);
        block[154] = 0;
        block
    }
}

/// The last component of a name.
pub(super) fn base(name: &[u8]) -> &[u8] {
    let name = name.strip_suffix(b"/").unwrap_or(name);
    name.rsplit(|byte| *byte == b'/').next().unwrap_or(name)
}

/// As many bytes as there is room for.
fn put(block: &mut [u8; BLOCK], at: usize, room: usize, bytes: &[u8]) {
    let len = bytes.len().min(room);
    block[at..at + len].copy_from_slice(&bytes[..len]);
}

/// Octal digits, or as many sevens: then a record has the number.
fn put_octal(block: &mut [u8; BLOCK], at: usize, width: usize, number: u64) {
    let most = (1_u64 << (3 * width)) - 1;
    let text = format!("{:0width$o}", number.min(most));
    put(block, at, width, text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_of_a_record_counts_itself() {
        for len in (0..300).chain([970, 985, 986, 987, 988, 989, 990, 991, 992, 993, 9_980, 9_990, 99_990]) {
            let mut out = Vec::new();
            put_record(&mut out, b"path", &vec![b'x'; len]);
            let space = out.iter().position(|byte| *byte == b' ').unwrap();
            let said: usize = std::str::from_utf8(&out[..space]).unwrap().parse().unwrap();
            assert_eq!(said, out.len(), "{len}");
        }
        let mut out = Vec::new();
        put_record(&mut out, b"mtime", b"1350244992.023960108");
        assert_eq!(out, b"30 mtime=1350244992.023960108\n", "the example of the manual of GNU tar");
    }

    #[test]
    fn times_are_decimal_numbers() {
        for (seconds, nanos, text) in [
            (0, 0, "0"),
            (100, 0, "100"),
            (1, 500_000_000, "1.5"),
            (1, 1, "1.000000001"),
            (-1, 0, "-1"),
            (-1, 999_999_999, "-0.000000001"),
            (-14_182_940, 123_456_789, "-14182939.876543211"),
            (i64::MIN, 1, "-9223372036854775807.999999999"),
            (i64::MAX, 0, "9223372036854775807"),
        ] {
            assert_eq!(decimal(FileTime { seconds, nanos }), text);
        }
    }

    #[test]
    fn what_fits_needs_no_records() {
        let header = Header { kind: FILE, name: b"a".to_vec(), mode: 0o644, ..Header::default() };
        let block = header.encode(b"");
        assert_eq!(block.len(), BLOCK);
        let mut unsummed: Vec<u64> = block.iter().map(|byte| u64::from(*byte)).collect();
        unsummed[148..156].fill(u64::from(b' '));
        let sum = u64::from_str_radix(std::str::from_utf8(&block[148..154]).unwrap(), 8).unwrap();
        assert_eq!(sum, unsummed.iter().sum::<u64>());
    }

    #[test]
    fn what_does_not_fit_has_a_record_each() {
        let header = Header {
            kind: FILE,
            name: vec![b'n'; 101],
            link: vec![b'l'; 101],
            uid: 1 << 21,
            gid: u32::MAX,
            size: 1 << 33,
            mtime: FileTime { seconds: -1, nanos: 0 },
            user: vec![b'u'; 32],
            group: vec![b'g'; 32],
            ..Header::default()
        };
        let bytes = header.encode(b"");
        for key in [
            "path=n",
            "linkpath=l",
            "uid=2097152\n",
            "gid=4294967295\n",
            "size=8589934592\n",
            "mtime=-1\n",
            "uname=u",
            "gname=g",
        ] {
            assert!(bytes.windows(key.len()).any(|window| window == key.as_bytes()), "{key}");
        }
        assert_eq!(bytes.len() % BLOCK, 0);
    }
}
