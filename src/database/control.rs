//! The control file of a data directory.

use crate::postgres::Lsn;

/// Bytes of the file that are written and read at once; a disk writes a sector whole.
pub const SECTOR: usize = 512;
/// Its path below the data directory.
pub const PATH: &str = "global/pg_control";

/// What is needed of a control file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Control {
    /// What the cluster calls itself.
    pub system: u64,
    /// Version of the file's layout.
    pub version: u32,
    /// Version of the system catalogs.
    pub catalog: u32,
    /// Its server takes changes, or did when it ended without a word.
    pub in_production: bool,
    /// Where recovery from the last checkpoint begins.
    pub redo: Lsn,
    /// The timeline of that checkpoint.
    pub timeline: u32,
}

/// State of a server that takes changes: `DB_IN_PRODUCTION` of `src/include/catalog/pg_control.h`.
const IN_PRODUCTION: u32 = 6;

/// Why bytes are not a control file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ControlFault {
    /// It is shorter than any.
    #[error("is too short for a control file")]
    Short,
    /// Its layout is one that this program does not know.
    #[error("is a control file of a version that this program does not know")]
    Version,
    /// It does not hold what was written.
    #[error("is a control file with a wrong checksum")]
    Checksum,
}

impl Control {
    /// Reads the first sector of a control file.
    pub fn parse(bytes: &[u8]) -> Result<Self, ControlFault> {
        let sector: &[u8; SECTOR] = bytes.first_chunk().ok_or(ControlFault::Short)?;
        let word =
            |at: usize| u32::from_le_bytes([sector[at], sector[at + 1], sector[at + 2], sector[at + 3]]);
        let version = word(8);
        let end = match version {
            // PostgreSQL 13 to 17.
            1300 => 288,
            // PostgreSQL 18 says whether `char` has a sign.
            1800 => 292,
            _ => return Err(ControlFault::Version),
        };
        if crc32c(&sector[..end]) != word(end) {
            return Err(ControlFault::Checksum);
        }
        let long = |at: usize| u64::from(word(at + 4)) << 32 | u64::from(word(at));
        Ok(Self {
            system: long(0),
            version,
            catalog: word(12),
            in_production: word(16) == IN_PRODUCTION,
            redo: Lsn(long(40)),
            timeline: word(48),
        })
    }

    /// Whether it is the file of the server of this identifier, which has begun a backup here: that begins with a checkpoint.
    /// The directory of a standby or of a clone has the same identifier, and other contents.
    pub fn has_begun(&self, system: u64, (start, timeline): (Lsn, u32)) -> bool {
        self.system == system && self.timeline == timeline && self.redo >= start
    }
}

/// CRC-32C bit by bit: for a few hundred bytes.
fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
        }
    }
    !crc
}

#[cfg(test)]
mod tests {
    use super::*;

    fn control() -> Vec<u8> {
        let mut bytes = vec![0; SECTOR];
        bytes[..8].copy_from_slice(&0x1122_3344_5566_7788_u64.to_le_bytes());
        bytes[8..12].copy_from_slice(&1300_u32.to_le_bytes());
        bytes[12..16].copy_from_slice(&202_209_061_u32.to_le_bytes());
        bytes[16] = 6;
        bytes[40..48].copy_from_slice(&0x2_0300_0028_u64.to_le_bytes());
        bytes[48] = 7;
        let crc = crc32c(&bytes[..288]);
        bytes[288..292].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    #[test]
    fn the_checksum_is_the_one_of_the_standard() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn a_control_file_is_read_and_damage_is_seen() {
        let bytes = control();
        let read = Control::parse(&bytes).unwrap();
        assert_eq!((read.system, read.catalog), (0x1122_3344_5566_7788, 202_209_061));
        assert_eq!((read.in_production, read.redo, read.timeline), (true, Lsn(0x2_0300_0028), 7));
        for at in [0, 7, 12, 100, 287, 288, 291] {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x10;
            assert_eq!(Control::parse(&damaged), Err(ControlFault::Checksum), "{at}");
        }
        let mut other = bytes.clone();
        other[8] = 1;
        assert_eq!(Control::parse(&other), Err(ControlFault::Version));
        assert_eq!(Control::parse(&bytes[..511]), Err(ControlFault::Short));
        assert_eq!(Control::parse(&[]), Err(ControlFault::Short));
    }

    #[test]
    fn the_directory_of_a_standby_or_a_clone_is_told_from_the_servers() {
        let read = Control::parse(&control()).unwrap();
        let (system, start) = (read.system, read.redo);
        assert!(read.has_begun(system, (start, 7)));
        assert!(read.has_begun(system, (Lsn(start.0 - 1), 7)), "a later checkpoint");
        assert!(!read.has_begun(system, (Lsn(start.0 + 1), 7)), "it never saw the checkpoint");
        assert!(!read.has_begun(system, (start, 8)), "it went another way");
        assert!(!read.has_begun(system + 1, (start, 7)));
    }
}
